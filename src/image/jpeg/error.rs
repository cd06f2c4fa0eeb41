//! Why a JPEG was not decoded.

/// Why a JPEG was not decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("it does not begin with FF D8")]
    NoStart,
    #[error("it ends early, without FF D9")]
    NoEnd,
    #[error("{0}")]
    Damaged(String),
    #[error("{0}, which is a JPEG that is not read: save it again as an ordinary one")]
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
