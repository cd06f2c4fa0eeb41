//! Faults through the real binary: each has a defined answer, told as an event, a line or an exit code. The daemon may
//! miss a frame; it never hangs silently, loses an event it announced, fills the card, or is taken over by a file.
#![allow(clippy::disallowed_methods, reason = "tests make files of every kind")]

mod camera;
mod clips;
mod clock;
mod config;
#[path = "../common/daemon.rs"]
#[allow(dead_code)]
mod daemon;
mod disk;
mod hook;
mod kill;
mod limits;
mod log;
mod model;
mod pipes;
mod rig;
mod service;
mod standin;
mod weights;
