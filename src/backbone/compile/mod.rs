//! From a graph to a model that tract runs: fused int8 operators where the plan has them, tract's own elsewhere.

mod builder;
mod fallback;
mod fusion;
mod network;
pub mod ops;
mod part;
pub mod plan;
pub mod stages;
pub mod trunk;
mod weights;

pub use builder::{Request, build};
pub use fusion::Fusion;
pub use network::{Network, picture};
pub use part::{Part, part, reads};
