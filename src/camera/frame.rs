//! A frame, and the source of frames.

use std::time::Instant;

use ::image::RgbImage;

/// The bytes of a JPEG.
pub type Jpeg = Box<[u8]>;

/// One picture and its origin.
#[derive(Debug, Clone)]
pub struct Frame {
    pub picture: RgbImage,
    /// The JPEG that the picture was decoded from, if it was and [`crate::config::Camera::keep_jpeg`] asks for it.
    pub jpeg: Option<Jpeg>,
    /// The number of the frame, from 0; dropped ones count.
    pub sequence: u64,
    /// The picture's file, or the device.
    pub source: String,
}

/// Why there is no frame. After [`Error::Lost`] and [`Error::Open`] the source cannot be used any more.
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

/// A source of frames.
pub trait FrameSource: Send {
    /// The newest frame, waiting for it until `deadline`; `None` when the source has come to its end.
    ///
    /// # Errors
    /// [`Error::Timeout`] and [`Error::Dropped`] leave the source usable.
    fn next(&mut self, deadline: Instant) -> Result<Option<Frame>, Error>;

    /// A description for users: device, size, pixel format, rate.
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
