//! One program of all integration tests, so that the engine is linked once. A module is an area.
#![allow(clippy::disallowed_methods, reason = "tests make files of every kind")]

#[path = "../common/mod.rs"]
mod common;

mod backbone;
mod budget;
mod cli;
mod cli_grid;
mod cli_run;
mod clips;
mod config;
mod estimators;
mod exports;
mod feeds;
mod fetch;
mod fit;
mod heat;
mod hostile;
mod import;
mod instances;
mod metrics;
mod model;
mod mqtt;
mod mqtt_broker;
mod mqtt_tls;
mod networks;
mod notify;
mod page;
mod page_browser;
mod page_hostile;
mod page_masks;
mod page_teach;
mod preprocessing;
mod quantize;
mod report;
mod scene;
mod scenes;
mod schedule;
mod shipped;
mod structure;
mod upkeep;
mod watch;
mod weights;
