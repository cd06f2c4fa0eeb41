//! From a graph to a model that tract runs: fused int8 operators where the plan has them, tract's own elsewhere.

mod builder;
mod cache;
mod fallback;
mod fusion;
mod network;
pub mod ops;
mod part;
pub mod plan;
mod request;
pub mod stages;
pub mod trunk;
mod weights;

pub use builder::build;
pub use fusion::Fusion;
pub use network::{Network, picture};
pub use part::{Part, part, reads};
pub use request::{Cache, Request};
