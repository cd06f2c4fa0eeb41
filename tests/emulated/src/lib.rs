//! The kernels of `outlierd`, for `run.sh`.

#[path = "../../../src/backbone/kernels/mod.rs"]
pub mod kernels;
