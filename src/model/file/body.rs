//! The first version of the body, which all later ones extend.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::calibration::{self, CalibrationV1};
use super::detector::{self, DetectorV1};
use super::values::{FloatsV1, IntegersV1, check, finite_f32};
use crate::backbone::{Pooling, Tap};
use crate::estimators::feature_transform::FeatureTransform;
use crate::image::mask::Mask;
use crate::image::{ChannelOrder, Geometry, InputRecipe};
use crate::model::fitted::{Model, Training};
use crate::model::projection::Components;
use crate::model::records::Records;
use crate::model::source::FeatureSource;

const MAX_FEATURES: usize = 1 << 20;
const MAX_SIZE: u32 = 4096;

#[derive(Serialize, Deserialize)]
pub(super) struct BodyV1 {
    crate_version: String,
    made_at: u64,
    source: SourceV1,
    /// Whether the square root is taken of the features.
    sqrt: bool,
    mean: Vec<f32>,
    scale: Vec<f32>,
    components: ComponentsV1,
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
enum ComponentsV1 {
    I8(IntegersV1),
    F32(FloatsV1),
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

pub(super) fn body(model: &Model) -> BodyV1 {
    let source = &model.source;
    BodyV1 {
        crate_version: model.crate_version.clone(),
        made_at: model.made_at,
        source: SourceV1 {
            sha256: source.sha256,
            path: source.path.as_ref().map(|p| p.to_string_lossy().into_owned()),
            tap: source.tap.to_string(),
            pooling: source.pooling.to_string(),
            width: source.input.width,
            height: source.input.height,
            bgr: source.input.order == ChannelOrder::Bgr,
            mean: source.input.mean,
            std: source.input.std,
            short_side: match source.input.geometry {
                Geometry::Stretch => None,
                Geometry::Crop { short_side } => Some(short_side),
            },
        },
        sqrt: model.transform == FeatureTransform::Sqrt,
        mean: model.mean.clone(),
        scale: model.scale.clone(),
        components: match &model.components {
            Components::I8(matrix) => ComponentsV1::I8(IntegersV1::of(matrix)),
            Components::F32(matrix) => ComponentsV1::F32(FloatsV1::of_matrix(matrix)),
        },
        variance: model.variance.iter().map(|v| *v as f32).collect(),
        whiten: model.whiten,
        detector: detector::body(&model.detector),
        calibration: calibration::body(&model.calibration),
        threshold: model.threshold,
        training: TrainingV1 {
            n_train: model.training.n_train,
            n_calibration: model.training.n_calibration,
            n_outliers: model.training.n_outliers,
            seed: model.training.seed,
            auroc: model.training.auroc,
            false_alarm_rate: model.training.false_alarm_rate,
        },
    }
}

pub(super) fn model(body: BodyV1) -> Result<Model, String> {
    let n = body.mean.len();
    check(n > 0 && n <= MAX_FEATURES, "the number of features")?;
    check(body.scale.len() == n && body.scale.iter().all(|s| s.is_finite() && *s > 0.0), "the scale")?;
    finite_f32(&body.mean, "the mean")?;
    let components = match body.components {
        ComponentsV1::I8(integers) => Components::I8(integers.matrix(n)?),
        ComponentsV1::F32(floats) => Components::F32(floats.matrix(n)?),
    };
    let rows = components.rows();
    check(body.variance.len() == rows && body.variance.iter().all(|v| v.is_finite() && *v >= 0.0), "the variance")?;
    check((0.0..=1.0).contains(&body.threshold), "the threshold")?;
    let detector = detector::detector(body.detector, rows, n)?;
    Ok(Model {
        crate_version: body.crate_version,
        made_at: body.made_at,
        source: source(body.source)?,
        transform: if body.sqrt { FeatureTransform::Sqrt } else { FeatureTransform::Identity },
        mean: body.mean,
        scale: body.scale,
        components,
        variance: body.variance.into_iter().map(f64::from).collect(),
        whiten: body.whiten,
        detector,
        joined: None,
        calibration: calibration::calibration(body.calibration)?,
        threshold: body.threshold,
        training: Training {
            n_train: body.training.n_train,
            n_calibration: body.training.n_calibration,
            n_outliers: body.training.n_outliers,
            seed: body.training.seed,
            auroc: body.training.auroc,
            false_alarm_rate: body.training.false_alarm_rate,
            stretch: 1,
        },
        records: Records::default(),
    })
}

fn source(source: SourceV1) -> Result<FeatureSource, String> {
    let side = |s: u32| (1..=MAX_SIZE).contains(&s);
    check(side(source.width) && side(source.height) && source.short_side.is_none_or(side), "the input size")?;
    finite_f32(&source.mean, "the input's mean")?;
    check(source.std.iter().all(|s| s.is_finite() && *s > 0.0), "the input's scale")?;
    Ok(FeatureSource {
        sha256: source.sha256,
        path: source.path.map(PathBuf::from),
        tap: source.tap.parse::<Tap>().map_err(|e| format!("its tap: {e}"))?,
        pooling: source.pooling.parse::<Pooling>().map_err(|e| format!("its pooling: {e}"))?,
        input: InputRecipe {
            width: source.width,
            height: source.height,
            order: if source.bgr { ChannelOrder::Bgr } else { ChannelOrder::Rgb },
            mean: source.mean,
            std: source.std,
            geometry: source.short_side.map_or(Geometry::Stretch, |short_side| Geometry::Crop { short_side }),
        },
        mask: Mask::default(),
        tiles: 1,
    })
}
