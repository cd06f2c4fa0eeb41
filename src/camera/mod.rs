//! Cameras: a [`FrameSource`] gives RGB pictures, cropped to the configured region.

use crate::config;

pub mod csi;
pub mod folder;
mod frame;
mod layout;
pub mod negotiate;
pub mod pixels;
pub mod planes;
pub mod stream;
pub mod v4l;
mod ycbcr;

pub use frame::{Error, Frame, FrameSource};

/// Opens the source that the config names.
pub fn open(config: &config::Camera) -> Result<Box<dyn FrameSource>, Error> {
    match &config.source {
        config::Source::Folder(path) => Ok(Box::new(folder::Folder::open(path, config)?)),
        config::Source::Pipe(path) => Ok(Box::new(stream::Stream::open(path, config)?)),
        config::Source::Exec(argv) => Ok(Box::new(stream::Stream::exec(argv, config)?)),
        config::Source::V4l(path) => Ok(Box::new(v4l::Camera::open(path, config)?)),
    }
}
