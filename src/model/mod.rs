//! What was learned: scaler, PCA, detector and calibration over one backbone's features.
//!
//! A feature `x` goes through `z = (transform(x) - mean) / scale`, `y = components * z` (kept as small integers, of imported models as f32),
//! whitening, the detector (a score that grows with normality) and the calibration (a `p` in [0, 1]). The
//! fitted estimators are rounded once, when the model is made: what is calibrated is what runs.

use std::path::{Path, PathBuf};

use crate::backbone::cells::Cells;
use crate::backbone::{self, Backbone, FeatureMap, Pooling, Tap};
use crate::estimators::conformal::Conformal;
use crate::estimators::feature_transform::FeatureTransform;
use crate::estimators::isotonic::IsotonicRegression;
use crate::image::InputRecipe;
use crate::image::mask::Mask;

pub mod cells;
pub mod detector;
pub mod file;
mod file_cells;
mod file_detector;
pub mod heat;
pub mod learn;
pub mod projection;
pub mod records;

use cells::Joined;
pub use detector::Detector;
use heat::Heat;
use projection::Components;
pub use records::Records;

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
    #[error("the feature has {got} values, the model was fitted on {wanted}")]
    Width { wanted: usize, got: usize },
    #[error("the feature holds a value that is not a finite number")]
    NotFinite,
    #[error("the cells of the picture are not on the grid that the model was fitted on: fit again")]
    Cells,
    #[error(transparent)]
    Backbone(#[from] backbone::Error),
}

/// The network that features came from, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureSource {
    pub sha256: [u8; 32],
    /// None: the embedded backbone.
    pub path: Option<PathBuf>,
    pub tap: Tap,
    pub pooling: Pooling,
    pub input: InputRecipe,
    /// What of every picture counts for nothing.
    pub mask: Mask,
    /// Tiles across and down; 1: the views that the backbone's file wants.
    pub tiles: u32,
}

impl FeatureSource {
    pub fn of(backbone: &Backbone) -> Self {
        FeatureSource {
            sha256: backbone.sha256(),
            path: backbone.path().map(|p| std::path::absolute(p).unwrap_or_else(|_| p.to_owned())),
            tap: backbone.tap().clone(),
            pooling: backbone.pooling(),
            input: backbone.input().clone(),
            mask: backbone.mask().clone(),
            tiles: backbone.tiles(),
        }
    }

    /// For models that only score features and are never kept.
    pub fn unknown() -> Self {
        FeatureSource {
            sha256: [0; 32],
            path: None,
            tap: Tap::from(backbone::Stage::Layer4),
            pooling: Pooling::Avg,
            input: InputRecipe::torch(),
            mask: Mask::default(),
            tiles: 1,
        }
    }

    pub fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "the embedded backbone".into(), |p| p.display().to_string())
    }
}

/// How a score becomes `p`.
#[derive(Debug, Clone, PartialEq)]
pub enum Calibration {
    /// Probability of being an inlier, from labelled outliers.
    Isotonic(IsotonicRegression),
    /// Share of normals that look at most as normal, from held-out ones.
    Conformal(Conformal),
}

impl Calibration {
    pub fn name(&self) -> &'static str {
        match self {
            Calibration::Isotonic(_) => "isotonic",
            Calibration::Conformal(_) => "conformal",
        }
    }

    pub fn p(&self, score: f64) -> f64 {
        match self {
            Calibration::Isotonic(isotonic) => isotonic.predict_one(score),
            Calibration::Conformal(conformal) => conformal.p_value(score),
        }
    }
}

/// How the model came to be: counts of pictures, seed, and figures on pictures it was not fitted on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Training {
    pub n_train: u32,
    pub n_calibration: u32,
    pub n_outliers: u32,
    pub seed: u64,
    pub auroc: Option<f64>,
    /// The share of held-out normals below the threshold that calibration promises; NaN where nobody counted.
    pub false_alarm_rate: f64,
    /// Frames that follow each other and were held out together; 1 or 0: independent pictures.
    pub stretch: u32,
}

impl Training {
    /// "fitted on 200 normals, ..." for people.
    pub fn sentence(&self) -> String {
        let calibrated = if self.n_calibration == self.n_train {
            "calibrated on each by a fit on the others".into()
        } else {
            format!("calibrated on {} more", self.n_calibration)
        };
        let outliers = if self.n_outliers > 0 { format!(" and {} outliers", self.n_outliers) } else { String::new() };
        let stretch = if self.stretch > 1 { format!(" in stretches of {}", self.stretch) } else { String::new() };
        format!("fitted on {} normals{stretch}, {calibrated}{outliers}, seed {}", self.n_train, self.seed)
    }
}

/// A fitted model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub crate_version: String,
    /// Seconds since 1970 UTC.
    pub made_at: u64,
    pub source: FeatureSource,
    pub transform: FeatureTransform,
    /// Of the scaler and the PCA's centre together, one value per feature.
    pub mean: Vec<f32>,
    pub scale: Vec<f32>,
    pub components: Components,
    /// The PCA's explained variance, one per component.
    pub variance: Vec<f64>,
    pub whiten: bool,
    /// Over the pooled feature.
    pub detector: Detector,
    /// The detector over cells, joined with it; None: the pooled feature alone is judged.
    pub joined: Option<Box<Joined>>,
    pub calibration: Calibration,
    /// A picture is an outlier when `p < threshold`.
    pub threshold: f64,
    pub training: Training,
    pub records: Records,
}

/// What is said of one picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    pub score: f64,
    pub p: f64,
    pub outlier: bool,
}

impl Verdict {
    /// An outlier has `p < threshold`.
    pub fn of(score: f64, p: f64, threshold: f64) -> Self {
        Verdict { score, p, outlier: p < threshold }
    }
}

impl Model {
    /// Reads and checks a model file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        file::load(path)
    }

    /// Writes a model file atomically.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        file::save(self, path)
    }

    pub fn n_features(&self) -> usize {
        self.mean.len()
    }

    /// `(transform(x) - mean) / scale`.
    fn scaled(&self, feature: &[f32]) -> Result<Vec<f32>, Error> {
        if feature.len() != self.mean.len() {
            return Err(Error::Width { wanted: self.mean.len(), got: feature.len() });
        }
        let z = |((x, mean), scale): ((&f32, &f32), &f32)| (self.transform.apply(f64::from(*x)) as f32 - mean) / scale;
        Ok(feature.iter().zip(&self.mean).zip(&self.scale).map(z).collect())
    }

    /// "pooled+cells", or the name of the only detector.
    pub fn detector_name(&self) -> &'static str {
        if self.joined.is_some() { "pooled+cells" } else { self.detector.name() }
    }

    /// The score of a picture by its feature vector and its cells; grows with normality.
    ///
    /// # Errors
    /// [`Error::Cells`] where the model wants cells and there are none, or other ones.
    pub fn raw_score(&self, feature: &[f32], cells: Option<&Cells>) -> Result<f64, Error> {
        let of_feature = self.feature_score(feature)?;
        let Some(joined) = &self.joined else { return Ok(of_feature) };
        let distances = joined.cells.distances(cells.ok_or(Error::Cells)?)?;
        Ok(joined.score(of_feature, cells::score(&distances)))
    }

    /// Where in a picture the model sees what it does not know, by what the backbone made of it: the cells' map where the
    /// model has one, else the residual's, less the pattern of a `normal` picture of the same view.
    pub fn map(
        &self,
        backbone: &Backbone,
        views: &[Vec<FeatureMap>],
        normal: Option<&[FeatureMap]>,
    ) -> Result<Option<Heat>, Error> {
        let (feature, cells) = (backbone.pool(views), backbone.cells(views));
        match &self.joined {
            Some(joined) => {
                let distances = joined.cells.distances(cells.as_ref().ok_or(Error::Cells)?)?;
                Ok(Some(joined.map(distances)))
            }
            None => self.heat_against(views.first().map_or(&[], Vec::as_slice), &feature, normal),
        }
    }

    /// The score of one feature vector by the detector over it; grows with normality.
    pub fn feature_score(&self, feature: &[f32]) -> Result<f64, Error> {
        let z = self.scaled(feature)?;
        let mut y = vec![0.0_f64; self.components.rows()];
        self.components.multiply(&z, &mut y);
        let norm: f64 = z.iter().map(|z| f64::from(*z).powi(2)).sum();
        let residual = (norm - y.iter().map(|y| y * y).sum::<f64>()).max(0.0);
        if self.whiten {
            for (y, variance) in y.iter_mut().zip(&self.variance) {
                *y /= variance.sqrt().max(f64::MIN_POSITIVE.sqrt());
            }
        }
        let score = self.detector.score(&y, residual);
        if score.is_finite() { Ok(score) } else { Err(Error::NotFinite) }
    }

    /// Score, `p` and verdict of a picture by its feature vector and its cells.
    pub fn score(&self, feature: &[f32], cells: Option<&Cells>) -> Result<Verdict, Error> {
        Ok(self.verdict(self.raw_score(feature, cells)?))
    }

    /// The verdict on a score by the model's own threshold.
    pub fn verdict(&self, score: f64) -> Verdict {
        Verdict::of(score, self.calibration.p(score), self.threshold)
    }

    /// The score below which a picture is an outlier; None where isotonic calibration has no single one or none is low
    /// enough.
    pub fn cut(&self) -> Option<f64> {
        match &self.calibration {
            Calibration::Isotonic(_) => None,
            Calibration::Conformal(conformal) => conformal.threshold(self.threshold),
        }
    }

    /// Rising scores of normals that the model was not fitted on, or quantiles of them; empty where it keeps none.
    pub fn normal_scores(&self) -> &[f64] {
        match &self.calibration {
            Calibration::Isotonic(_) => &self.records.normal_scores,
            Calibration::Conformal(conformal) => &conformal.scores,
        }
    }

    /// How many independent scores [`Model::normal_scores`] are worth.
    pub fn worth(&self) -> f64 {
        match &self.calibration {
            Calibration::Isotonic(_) => {
                self.records.normal_scores.len() as f64 / f64::from(self.training.stretch.max(1))
            }
            Calibration::Conformal(conformal) => conformal.worth,
        }
    }

    /// Whether the mask of the config file `config` is that of the pictures that the model was fitted on.
    ///
    /// # Errors
    /// [`Error::OtherMask`].
    pub fn check_mask(&self, configured: &Mask, config: &Path) -> Result<(), Error> {
        let fitted = &self.source.mask;
        if fitted == configured {
            return Ok(());
        }
        let count = |mask: &Mask| mask.polygons().len();
        Err(Error::OtherMask { fitted: count(fitted), configured: count(configured), config: config.to_owned() })
    }

    /// Loads the backbone that the model was fitted on: `path` if given, else where it was when fitting.
    pub fn load_backbone(&self, path: Option<&Path>, threads: usize) -> Result<Backbone, Error> {
        let options = backbone::Options {
            tap: Some(self.source.tap.clone()),
            pooling: Some(self.source.pooling),
            input: Some(self.source.input.clone()),
            resize: None,
            threads,
            sha256: Some(self.source.sha256),
            cells: self.joined.is_some(),
            mask: self.source.mask.clone(),
            tiles: self.source.tiles,
        };
        let loaded = match path.or(self.source.path.as_deref()) {
            Some(path) => Backbone::load(path, &options),
            None => Backbone::embedded(&options),
        };
        let backbone = loaded.map_err(|error| match error {
            backbone::Error::OtherFile { path, sha256 } => Error::OtherBackbone {
                wanted: self.source.name(),
                wanted_sha256: hex(&self.source.sha256),
                found: path.display().to_string(),
                found_sha256: hex(&sha256),
            },
            error => Error::Backbone(error),
        })?;
        if backbone.n_features() != self.n_features() {
            return Err(Error::Width { wanted: self.n_features(), got: backbone.n_features() });
        }
        Ok(backbone)
    }
}

/// p for people: four places, and the power of ten of what these would not show.
pub fn p_text(p: f64) -> String {
    if p < 0.001 { format!("{p:.1e}") } else { format!("{p:.4}") }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
