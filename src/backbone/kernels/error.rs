//! What a kernel call can get wrong.

/// What a caller, a file or the processor can get wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("OUTLIERD_ISA={0}: no such instruction set; known here: {1}")]
    UnknownIsa(String, String),
    #[error("OUTLIERD_ISA={0}: this processor does not have it; available: {1}")]
    UnsupportedIsa(String, String),
    #[error("convolution: {0}")]
    Shape(String),
    #[error("{what}: {got} elements where {want} are needed")]
    Length { what: &'static str, got: usize, want: usize },
}
