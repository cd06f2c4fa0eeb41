//! Why a network cannot be quantized.

use std::path::PathBuf;

use crate::backbone::error::Error as BackboneError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    #[error("backbone {path} is quantized already ({format}); give the float file that it was made from")]
    Quantized { path: PathBuf, format: &'static str },
    #[error("backbone {path} has no convolution with constant weights: there is nothing to quantize")]
    NoConvolution { path: PathBuf },
    #[error("backbone {path} cannot be quantized: {reason}")]
    Unsupported { path: PathBuf, reason: String },
    #[error("there are no pictures to calibrate with")]
    NoPictures,
    #[error(
        "the float network gives values that are not finite at {value:?}: its weights are damaged or its input recipe is wrong (--input)"
    )]
    NotFinite { value: String },
    #[error("interrupted")]
    Interrupted,
}
