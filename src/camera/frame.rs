//! A frame, and something that gives frames.

use std::time::Instant;

use ::image::RgbImage;

/// One picture and where it came from.
#[derive(Debug, Clone)]
pub struct Frame {
    pub picture: RgbImage,
    /// Counts the source's frames from 0; dropped ones count.
    pub sequence: u64,
    /// The picture's file, or the device.
    pub source: String,
}

/// Why there is no frame. Only [`Error::Lost`] and [`Error::Open`] mean that the source is gone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no frame from {origin} in time{reason}")]
    Timeout { origin: String, reason: String },
    /// One frame is unusable; the next may be good.
    #[error("dropped a frame of {origin}: {reason}")]
    Dropped { origin: String, reason: String },
    #[error("lost {origin}: {reason}")]
    Lost { origin: String, reason: String },
    #[error("cannot open {origin}: {reason}")]
    Open { origin: String, reason: String },
    #[error("{reason}")]
    Empty { reason: String },
}

/// Something that gives frames.
pub trait FrameSource: Send {
    /// The newest frame, waiting for it until `deadline`; `None` when the source has come to its end.
    ///
    /// # Errors
    /// [`Error::Timeout`] and [`Error::Dropped`] leave the source usable.
    fn next(&mut self, deadline: Instant) -> Result<Option<Frame>, Error>;

    /// What the source gives, for people: device, size, pixel format, rate.
    fn describe(&self) -> String;
}

impl FrameSource for Box<dyn FrameSource> {
    fn next(&mut self, deadline: Instant) -> Result<Option<Frame>, Error> {
        (**self).next(deadline)
    }

    fn describe(&self) -> String {
        (**self).describe()
    }
}
