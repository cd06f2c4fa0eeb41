//! The errors of models.

use std::path::PathBuf;

use crate::backbone;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read model {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write model {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a usable model: {reason}")]
    Format { path: PathBuf, reason: String },
    #[error(
        "the model was fitted on another backbone: it wants {wanted} (SHA-256 {wanted_sha256}), {found} has {found_sha256}; \
         name the right file with --backbone or fit again"
    )]
    OtherBackbone { wanted: String, wanted_sha256: String, found: String, found_sha256: String },
    #[error(
        "the masks of the model ({fitted}) and of the config ({configured}) differ: fit again with --config {config}, or set \
         [[camera.mask]] back"
    )]
    OtherMask { fitted: usize, configured: usize, config: PathBuf },
    #[error(
        "{config}: decision.false-alarms needs a model with conformal calibration, and this one has an isotonic one: fit it \
         without --outliers, or take false-alarms out"
    )]
    NoBudget { config: PathBuf },
    #[error(
        "{} was fitted on another backbone, tap, pooling, tiling or detector with cells than {}: the models of one config \
         share one network; fit both with the same options", path.display(), first.display()
    )]
    OtherNetwork { path: PathBuf, first: PathBuf },
    #[error("the feature has {got} values, the model was fitted on {wanted}")]
    Width { wanted: usize, got: usize },
    #[error("the feature has a value that is not a finite number")]
    NotFinite,
    #[error("the cells of the picture are not on the grid that the model was fitted on: fit again")]
    Cells,
    #[error(transparent)]
    Backbone(#[from] backbone::Error),
}
