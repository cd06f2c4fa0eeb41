//! The model file: magic `OUTLIERD`, format version, postcard body, CRC-32 of all before it.
//!
//! The body's structs are frozen per format version: a change of shape is a new version.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Calibration, Detector, Error, FeatureSource, Model, Training};
use super::projection::QuantizedMatrix;
use crate::backbone::{Pooling, Tap};
use crate::image::{ChannelOrder, Geometry, InputRecipe};

pub const MAGIC: &[u8; 8] = b"OUTLIERD";
pub const VERSION: u16 = 1;
/// Larger files are refused before they are read.
pub const MAX_BYTES: u64 = 64 << 20;
const MAX_FEATURES: usize = 1 << 20;
const MAX_SIZE: u32 = 4096;

/// Writes a file so that a reader sees the old one or the new one whole, and a power cut loses neither.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".outlierd-")
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    std::fs::File::open(folder)?.sync_all()
}

#[derive(Serialize, Deserialize)]
struct BodyV1 {
    crate_version: String,
    made_at: u64,
    source: SourceV1,
    mean: Vec<f32>,
    scale: Vec<f32>,
    components: IntegersV1,
    variance: Vec<f32>,
    whiten: bool,
    detector: DetectorV1,
    calibration: CalibrationV1,
    threshold: f64,
    training: TrainingV1,
}

#[derive(Serialize, Deserialize)]
struct SourceV1 {
    sha256: [u8; 32],
    path: Option<String>,
    tap: String,
    pooling: String,
    width: u32,
    height: u32,
    bgr: bool,
    mean: [f32; 3],
    std: [f32; 3],
    /// None: stretch; else the short side before the centre crop.
    short_side: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct IntegersV1 {
    rows: u32,
    cols: u32,
    values: Vec<i8>,
    scales: Vec<f32>,
}

#[derive(Serialize, Deserialize)]
struct FloatsV1 {
    rows: u32,
    cols: u32,
    values: Vec<f32>,
}

#[derive(Serialize, Deserialize)]
enum DetectorV1 {
    GaussianMixture { weights: Vec<f64>, means: FloatsV1, covariances: CovariancesV1 },
    PcaResidual,
}

#[derive(Serialize, Deserialize)]
enum CovariancesV1 {
    Spherical(Vec<f64>),
    Diag(FloatsV1),
    Tied(FloatsV1),
    Full(Vec<FloatsV1>),
}

#[derive(Serialize, Deserialize)]
enum CalibrationV1 {
    Isotonic { x: Vec<f64>, y: Vec<f64> },
    Conformal { scores: Vec<f64> },
}

#[derive(Serialize, Deserialize)]
struct TrainingV1 {
    n_train: u32,
    n_calibration: u32,
    n_outliers: u32,
    seed: u64,
    auroc: Option<f64>,
    false_alarm_rate: f64,
}
