//! The errors of reading and preparing pictures.

use std::path::PathBuf;

use super::limits::{MAX_PIXELS, MAX_SIDE};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read picture {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("cannot decode picture {path}: {reason}")]
    Decode { path: PathBuf, reason: String },
    #[error(
        "picture {path} is {width}x{height}: larger than {MAX_SIDE} pixels a side or {MAX_PIXELS} in all; scale it down first"
    )]
    TooLarge { path: PathBuf, width: u32, height: u32 },
    #[error("cannot resize a {width}x{height} picture: {reason}")]
    Resize { width: u32, height: u32, reason: String },
    #[error("crop {x},{y} {width}x{height} does not fit into a {image_width}x{image_height} picture")]
    Crop { x: u32, y: u32, width: u32, height: u32, image_width: u32, image_height: u32 },
}
