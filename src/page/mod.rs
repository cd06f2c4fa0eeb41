//! The web page: what the daemons see now, what a threshold would have raised, and their events.
//!
//! A process of its own. It reads the observe sockets, the histories, the event logs and the pictures of the daemons, and
//! changes nothing but through the commands that a person would use. `server` reads requests within limits, `guard` says
//! who may ask, `route` finds the answer; every answer is made by blocking code.

mod access;
mod api;
mod chart;
pub mod child;
mod error;
mod events;
mod feedback;
mod guard;
mod instance;
mod layout;
pub mod listen;
mod live;
mod marks;
mod masks;
mod past;
mod pictures;
mod request;
mod response;
mod route;
pub mod server;
mod session;
mod state;
mod teach;
mod threshold;

pub use error::Error;
pub use instance::Configs;
pub use session::Token;
pub use state::Page;
