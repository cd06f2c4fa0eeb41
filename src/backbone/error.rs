//! Why a backbone cannot be had or run.

use std::path::PathBuf;

use super::kernels;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read backbone {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("backbone {path} is not a usable ONNX file: {reason}")]
    NotOnnx { path: PathBuf, reason: String },
    #[error("backbone {path} cannot be run: {reason}")]
    Unsupported { path: PathBuf, reason: String },
    #[error("backbone {path} cannot be run: tract: {reason}")]
    Tract { path: PathBuf, reason: String },
    #[error("backbone {path} has no tap {wanted}; it has {available}")]
    NoTap { path: PathBuf, wanted: String, available: String },
    #[error("unknown input recipe {name:?} in the metadata of backbone {path}: set it to caffe, torch, raw or unit")]
    UnknownRecipe { path: PathBuf, name: String },
    #[error("unknown views {name:?} in the metadata of backbone {path}: set it to whole or whole+corners")]
    UnknownViews { path: PathBuf, name: String },
    #[error("a {got_width}x{got_height} picture was given to a backbone that takes {width}x{height}")]
    PictureSize { width: u32, height: u32, got_width: u32, got_height: u32 },
    #[error("backbone {path} failed: {reason}")]
    Run { path: PathBuf, reason: String },
    #[error("backbone {path} is not the file that is wanted: its SHA-256 differs")]
    OtherFile { path: PathBuf, sha256: [u8; 32] },
    #[error("{0:?} is no tap: use layer1, layer2, layer3, layer4, or several joined by +")]
    UnknownTap(String),
    #[error("{0:?} is no pooling: use avg, max or none")]
    UnknownPooling(String),
    #[error(transparent)]
    Image(#[from] crate::image::Error),
    #[error(transparent)]
    Kernels(#[from] kernels::Error),
}
