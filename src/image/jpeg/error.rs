//! The error of decoding a JPEG.

/// Why a JPEG was not decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("it does not begin with FF D8")]
    NoStart,
    #[error("it ends early, without FF D9")]
    NoEnd,
    #[error("{0}")]
    Damaged(String),
    #[error("{0}: such JPEG files are not supported; save it again as baseline JPEG")]
    Layout(String),
    #[error("it is {width}x{height}")]
    OtherSize { width: usize, height: usize },
}

impl Error {
    pub(super) fn damaged(reason: &str) -> Error {
        Error::Damaged(reason.to_owned())
    }

    pub(super) fn layout(reason: &str) -> Error {
        Error::Layout(reason.to_owned())
    }
}
