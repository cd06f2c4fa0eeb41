//! The model file: magic `OUTLIERD`, format version, postcard body, CRC-32 of all before it.
//!
//! The body's structs are frozen per format version: a change of shape is a new version. Version 2 is version 1 with
//! [`Records`] behind, its learnt scores among those of the calibration. Version 3 keeps them apart, and the tail of the
//! calibration and what it is worth. Version 4 adds the detector over cells, version 5 masks and tiles. A model is written in the lowest version that
//! holds it, which older readers know.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::file_cells::{self, JoinedV4};
use super::file_detector::{self, DetectorV1, FloatsV1};
use super::file_values::{IntegersV1, check, finite_f32};
use super::fitted::{Model, Training};
use super::projection::{Components, FloatMatrix};
use super::records::{Learnt, MAX_NORMAL_SCORES, Records};
use super::source::FeatureSource;
use super::verdict::Calibration;
use crate::backbone::views::MAX_TILES;
use crate::backbone::{Pooling, Tap};
use crate::estimators::conformal::Conformal;
use crate::estimators::feature_transform::FeatureTransform;
use crate::estimators::isotonic::IsotonicRegression;
use crate::estimators::tail::{KNOTS, Knot, Tail};
use crate::fs;
use crate::image::mask::Mask;
use crate::image::{ChannelOrder, Geometry, InputRecipe};

pub const MAGIC: &[u8; 8] = b"OUTLIERD";
pub const VERSION: u16 = 5;
const WITHOUT_MASK: u16 = 4;
const WITHOUT_CELLS: u16 = 3;
const WITHOUT_TAIL: u16 = 2;
const WITHOUT_RECORDS: u16 = 1;
/// Larger files are refused before they are read.
pub const MAX_BYTES: u64 = 64 << 20;
const MAX_FEATURES: usize = 1 << 20;
const MAX_SIZE: u32 = 4096;

#[derive(Serialize, Deserialize)]
struct BodyV1 {
    crate_version: String,
    made_at: u64,
    source: SourceV1,
    /// The square root of the features, instead of the features.
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
struct BodyV2 {
    body: BodyV1,
    normal_scores: Vec<f64>,
    /// Event and score.
    #[serde(deserialize_with = "file_detector::at_most::<MAX_LEARNT, _, _>")]
    learnt: Vec<(String, f64)>,
}

#[derive(Serialize, Deserialize)]
struct BodyV3 {
    body: BodyV2,
    /// What the conformal scores are worth, in independent ones.
    worth: f64,
    /// Score, p, low and high of the tail's knots, by rising score; none without a tail.
    tail: Vec<[f64; 4]>,
    /// Frames of a stretch that were held out together; 1: independent pictures.
    stretch: u32,
}

#[derive(Serialize, Deserialize)]
struct BodyV4 {
    body: BodyV3,
    joined: JoinedV4,
}

#[derive(Serialize, Deserialize)]
struct BodyV5 {
    body: BodyV3,
    joined: Option<JoinedV4>,
    mask: Vec<Vec<[f64; 2]>>,
    tiles: u32,
}

/// More false alarms are refused.
const MAX_LEARNT: usize = 100_000;

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

impl Model {
    /// Reads and checks a model file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path, MAX_BYTES).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        decode(&bytes).map_err(|reason| Error::Format { path: path.to_owned(), reason })
    }

    /// Writes a model file atomically.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        fs::replace(path, &encode(self)?).map_err(|source| Error::Write { path: path.to_owned(), source })
    }
}

/// The model as its file keeps it: rounded the same way.
pub fn rounded(model: &Model) -> Result<Model, Error> {
    decode(&encode(model)?).map_err(|reason| Error::Format { path: PathBuf::from("the fitted model"), reason })
}

/// The bytes of a model file.
pub fn encode(model: &Model) -> Result<Vec<u8>, Error> {
    let conformal = match &model.calibration {
        Calibration::Conformal(conformal) => Some(conformal),
        Calibration::Isotonic(_) => None,
    };
    let tail = conformal.and_then(|conformal| conformal.tail.as_ref());
    let whole = model.source.mask.is_empty() && model.source.tiles <= 1;
    let plain = model.records.is_empty() && tail.is_none() && model.training.stretch <= 1;
    let plain = plain && whole && model.joined.is_none();
    let (version, body) = if plain {
        (WITHOUT_RECORDS, postcard::to_stdvec(&body(model)))
    } else {
        let learnt = model.records.learnt.iter().map(|known| (known.event.clone(), known.score)).collect();
        let normal_scores = model.records.normal_scores.clone();
        let body = BodyV3 {
            body: BodyV2 { body: body(model), normal_scores, learnt },
            worth: conformal.map_or(0.0, |conformal| conformal.worth),
            tail: knots(tail),
            stretch: model.training.stretch,
        };
        let joined = model.joined.as_deref().map(file_cells::body);
        match joined {
            joined if !whole => {
                let mask = model.source.mask.polygons().to_vec();
                (VERSION, postcard::to_stdvec(&BodyV5 { body, joined, mask, tiles: model.source.tiles }))
            }
            None => (WITHOUT_CELLS, postcard::to_stdvec(&body)),
            Some(joined) => (WITHOUT_MASK, postcard::to_stdvec(&BodyV4 { body, joined })),
        }
    };
    let body = body.map_err(|e| Error::Format { path: PathBuf::from("the fitted model"), reason: e.to_string() })?;
    let mut bytes = Vec::with_capacity(body.len() + 14);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    Ok(bytes)
}

/// A model from the bytes of a file; the reason if they are none.
pub fn decode(bytes: &[u8]) -> Result<Model, String> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is larger than {MAX_BYTES} bytes"));
    }
    let rest = bytes.strip_prefix(MAGIC.as_slice()).ok_or("it does not start as a model file does")?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or("it is cut short")?;
    let version = u16::from_le_bytes(*version);
    if !(WITHOUT_RECORDS..=VERSION).contains(&version) {
        return Err(format!(
            "it has format version {version}, this outlierd reads versions {WITHOUT_RECORDS} to {VERSION}: \
             use the outlierd that wrote it, or fit again"
        ));
    }
    let (body, crc) = rest.split_last_chunk::<4>().ok_or("it is cut short")?;
    if crc32fast::hash(&bytes[..bytes.len() - 4]) != u32::from_le_bytes(*crc) {
        return Err("its checksum is wrong: it is cut short or damaged; copy it again or fit again".into());
    }
    let taken = match version {
        WITHOUT_RECORDS => postcard::take_from_bytes::<BodyV1>(body).map(|(body, left)| (Body::V1(body), left)),
        WITHOUT_TAIL => postcard::take_from_bytes::<BodyV2>(body).map(|(body, left)| (Body::V2(body), left)),
        WITHOUT_CELLS => postcard::take_from_bytes::<BodyV3>(body).map(|(body, left)| (Body::V3(body), left)),
        WITHOUT_MASK => postcard::take_from_bytes::<BodyV4>(body).map(|(body, left)| (Body::V4(Box::new(body)), left)),
        _ => postcard::take_from_bytes::<BodyV5>(body).map(|(body, left)| (Body::V5(Box::new(body)), left)),
    };
    let (body, left) = taken.map_err(|e| format!("its body is damaged: {e}"))?;
    if !left.is_empty() {
        return Err(format!("{} bytes follow its body", left.len()));
    }
    match body {
        Body::V1(body) => model(body),
        Body::V2(body) => {
            let (body, records) = parts(body)?;
            let mut model = Model { records, ..model(body)? };
            if let Calibration::Conformal(conformal) = &mut model.calibration {
                for known in &model.records.learnt {
                    let at = conformal.scores.binary_search_by(|score| score.total_cmp(&known.score));
                    conformal.scores.remove(at.map_err(|_| "a learnt score is not in its calibration")?);
                }
                check(!conformal.scores.is_empty(), "the calibration's length")?;
                conformal.worth = conformal.scores.len() as f64;
                conformal.learnt = learnt(&model.records);
            }
            Ok(model)
        }
        Body::V3(body) => model_v3(body),
        Body::V4(body) => {
            let BodyV4 { body, joined } = *body;
            Ok(Model { joined: Some(Box::new(file_cells::joined(joined)?)), ..model_v3(body)? })
        }
        Body::V5(body) => {
            let BodyV5 { body, joined, mask, tiles } = *body;
            let joined = joined.map(file_cells::joined).transpose()?.map(Box::new);
            let mut model = Model { joined, ..model_v3(body)? };
            check((1..=MAX_TILES).contains(&tiles), "the number of tiles")?;
            model.source.mask = Mask::new(mask).map_err(|reason| format!("its masks are wrong: {reason}"))?;
            model.source.tiles = tiles;
            Ok(model)
        }
    }
}

fn model_v3(BodyV3 { body, worth, tail, stretch }: BodyV3) -> Result<Model, String> {
    let (body, records) = parts(body)?;
    let mut model = Model { records, ..model(body)? };
    model.training.stretch = stretch;
    if let Calibration::Conformal(conformal) = &mut model.calibration {
        *conformal = with_tail(conformal.clone(), worth, tail)?;
        conformal.learnt = learnt(&model.records);
    }
    Ok(model)
}

/// What calibration scores are worth, and their tail.
fn with_tail(conformal: Conformal, worth: f64, tail: Vec<[f64; 4]>) -> Result<Conformal, String> {
    check((1.0..=conformal.scores.len() as f64).contains(&worth), "what the calibration is worth")?;
    let tail = self::tail(tail, &conformal.scores)?;
    Ok(Conformal { worth, tail, ..conformal })
}

/// Score, p, low and high of the knots of a tail.
fn knots(tail: Option<&Tail>) -> Vec<[f64; 4]> {
    tail.map_or_else(Vec::new, |tail| tail.knots.iter().map(|knot| [knot.score, knot.p, knot.low, knot.high]).collect())
}

enum Body {
    V1(BodyV1),
    V2(BodyV2),
    V3(BodyV3),
    V4(Box<BodyV4>),
    V5(Box<BodyV5>),
}

fn parts(body: BodyV2) -> Result<(BodyV1, Records), String> {
    let scores = &body.normal_scores;
    check(scores.len() <= MAX_NORMAL_SCORES, "the number of scores of normals")?;
    check(scores.iter().all(|v| v.is_finite()) && scores.is_sorted(), "the scores of normals")?;
    check(body.learnt.iter().all(|(_, score)| score.is_finite()), "a learnt score")?;
    let learnt = body.learnt.into_iter().map(|(event, score)| Learnt { event, score }).collect();
    Ok((body.body, Records { normal_scores: body.normal_scores, learnt }))
}

/// The scores that were learnt, rising.
fn learnt(records: &Records) -> Vec<f64> {
    let mut scores: Vec<f64> = records.learnt.iter().map(|known| known.score).collect();
    scores.sort_by(f64::total_cmp);
    scores
}

/// Knots by rising score and p, within intervals of probabilities; the last no higher than the highest of
/// `scores`, and no more probable than they count.
fn tail(knots: Vec<[f64; 4]>, scores: &[f64]) -> Result<Option<Tail>, String> {
    if knots.is_empty() {
        return Ok(None);
    }
    let what = "the calibration's tail";
    check((2..=KNOTS).contains(&knots.len()), what)?;
    check(knots.iter().flatten().all(|v| v.is_finite()), what)?;
    check(knots.is_sorted_by(|a, b| a[0] < b[0]), what)?;
    check((1..4).all(|column| knots.is_sorted_by(|a, b| a[column] <= b[column])), what)?;
    check(knots.iter().all(|[_, p, low, high]| *p > 0.0 && *low >= 0.0 && low <= high && p.max(*high) <= 1.0), what)?;
    let knots = knots.into_iter().map(|[score, p, low, high]| Knot { score, p, low, high }).collect();
    let tail = Tail { knots };
    let counted = (scores.partition_point(|s| *s <= tail.start()) + 1) as f64 / (scores.len() + 1) as f64;
    check(tail.share() <= counted + 1e-9 && scores.last() >= Some(&tail.start()), what)?;
    Ok(Some(tail))
}

fn body(model: &Model) -> BodyV1 {
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
            Components::F32(matrix) => ComponentsV1::F32(FloatsV1 {
                rows: matrix.rows() as u32,
                cols: matrix.cols as u32,
                values: matrix.values.clone(),
            }),
        },
        variance: model.variance.iter().map(|v| *v as f32).collect(),
        whiten: model.whiten,
        detector: file_detector::body(&model.detector),
        calibration: match &model.calibration {
            Calibration::Isotonic(isotonic) => {
                CalibrationV1::Isotonic { x: isotonic.x_thresholds.clone(), y: isotonic.y_thresholds.clone() }
            }
            Calibration::Conformal(conformal) => CalibrationV1::Conformal { scores: conformal.scores.clone() },
        },
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

fn model(body: BodyV1) -> Result<Model, String> {
    let n = body.mean.len();
    check(n > 0 && n <= MAX_FEATURES, "the number of features")?;
    check(body.scale.len() == n && body.scale.iter().all(|s| s.is_finite() && *s > 0.0), "the scale")?;
    finite_f32(&body.mean, "the mean")?;
    let components = components(body.components, n)?;
    let rows = components.rows();
    check(body.variance.len() == rows && body.variance.iter().all(|v| v.is_finite() && *v >= 0.0), "the variance")?;
    check((0.0..=1.0).contains(&body.threshold), "the threshold")?;
    let detector = file_detector::detector(body.detector, rows, n)?;
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
        calibration: calibration(body.calibration)?,
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

/// At least one row and at most `n`, of `n` values.
fn components(components: ComponentsV1, n: usize) -> Result<Components, String> {
    let m = match components {
        ComponentsV1::I8(integers) => return Ok(Components::I8(integers.matrix(n)?)),
        ComponentsV1::F32(floats) => floats,
    };
    let (rows, cols) = (m.rows as usize, m.cols as usize);
    check(cols == n && (1..=n).contains(&rows), "the number of components")?;
    check(rows.checked_mul(cols) == Some(m.values.len()), "the components")?;
    finite_f32(&m.values, "the components")?;
    Ok(Components::F32(FloatMatrix { cols, values: m.values }))
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

fn calibration(calibration: CalibrationV1) -> Result<Calibration, String> {
    match calibration {
        CalibrationV1::Isotonic { x, y } => {
            check(!x.is_empty() && x.len() == y.len(), "the calibration's length")?;
            check(x.iter().all(|v| v.is_finite()) && x.is_sorted_by(|a, b| a < b), "the calibration's scores")?;
            check(y.iter().all(|v| (0.0..=1.0).contains(v)) && y.is_sorted(), "the calibration's probabilities")?;
            Ok(Calibration::Isotonic(IsotonicRegression { x_thresholds: x, y_thresholds: y }))
        }
        CalibrationV1::Conformal { scores } => counted(&scores).map(Calibration::Conformal),
    }
}

/// Rising finite scores.
fn counted(scores: &[f64]) -> Result<Conformal, String> {
    check(!scores.is_empty(), "the calibration's length")?;
    check(scores.iter().all(|v| v.is_finite()) && scores.is_sorted(), "the calibration's scores")?;
    Conformal::counted(scores).map_err(|e| e.to_string())
}
