//! A fitted model: scaler, PCA, detector and calibration over one backbone's features.
//!
//! A feature `x` goes through `z = (transform(x) - mean) / scale`, `y = components * z`, whitening, the detector (a score
//! that grows with normality) and the calibration (a `p` in [0, 1]). The fitted estimators are rounded once, before
//! calibration: what is calibrated is what runs.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::cells::{self, Joined};
use super::detector::Detector;
use super::error::Error;
use super::projection::Components;
use super::records::Records;
use super::source::FeatureSource;
use super::verdict::{Calibration, Verdict};
use crate::backbone::cells::Cells;
use crate::backbone::{self, Backbone};
use crate::estimators::feature_transform::FeatureTransform;
use crate::image::mask::Mask;

/// How the model came to be: counts of pictures, seed, and figures on pictures it was not fitted on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Training {
    pub n_train: u32,
    pub n_calibration: u32,
    pub n_outliers: u32,
    pub seed: u64,
    pub auroc: Option<f64>,
    /// The expected share of normals below the threshold; NaN where it is not known.
    pub false_alarm_rate: f64,
    /// Consecutive frames that were held out together; 1 or 0: independent pictures.
    pub stretch: u32,
}

impl Training {
    /// For users: "fitted on 200 normals, ...".
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
    /// The means of scaler and PCA combined, one value per feature.
    pub mean: Vec<f32>,
    pub scale: Vec<f32>,
    pub components: Components,
    /// The PCA's explained variance, one per component.
    pub variance: Vec<f64>,
    pub whiten: bool,
    /// Over the pooled feature.
    pub detector: Detector,
    /// The detector over cells that is joined with it; None: the pooled feature alone is scored.
    pub joined: Option<Box<Joined>>,
    pub calibration: Calibration,
    /// A picture is an outlier when `p < threshold`.
    pub threshold: f64,
    pub training: Training,
    pub records: Records,
}

impl Model {
    pub fn n_features(&self) -> usize {
        self.mean.len()
    }

    /// `(transform(x) - mean) / scale`.
    pub(super) fn scaled(&self, feature: &[f32]) -> Result<Vec<f32>, Error> {
        if feature.len() != self.mean.len() {
            return Err(Error::Width { wanted: self.mean.len(), got: feature.len() });
        }
        let z = |((x, mean), scale): ((&f32, &f32), &f32)| (self.transform.apply(f64::from(*x)) as f32 - mean) / scale;
        Ok(feature.iter().zip(&self.mean).zip(&self.scale).map(z).collect())
    }

    /// "pooled+cells", or the name of the detector over the pooled feature.
    pub fn detector_name(&self) -> &'static str {
        if self.joined.is_some() { "pooled+cells" } else { self.detector.name() }
    }

    /// The score of a picture by its feature vector and its cells; grows with normality.
    ///
    /// # Errors
    /// [`Error::Cells`] where the model needs cells and there are none, or they are on another grid.
    pub fn raw_score(&self, feature: &[f32], cells: Option<&Cells>) -> Result<f64, Error> {
        let of_feature = self.feature_score(feature)?;
        let Some(joined) = &self.joined else { return Ok(of_feature) };
        let distances = joined.cells.distances(cells.ok_or(Error::Cells)?)?;
        Ok(joined.score(of_feature, cells::score(&distances)))
    }

    /// The score of one feature vector by the detector over it; grows with normality.
    pub fn feature_score(&self, feature: &[f32]) -> Result<f64, Error> {
        let z = self.scaled(feature)?;
        let mut y = self.components.multiply(&z);
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

    /// The score below which a picture is an outlier; None with isotonic calibration, or where no score is low enough.
    pub fn cut(&self) -> Option<f64> {
        match &self.calibration {
            Calibration::Isotonic(_) => None,
            Calibration::Conformal(conformal) => conformal.threshold(self.threshold),
        }
    }

    /// Rising scores of normals that the model was not fitted on, or quantiles of them; may be empty.
    pub fn normal_scores(&self) -> &[f64] {
        match &self.calibration {
            Calibration::Isotonic(_) => &self.records.normal_scores,
            Calibration::Conformal(conformal) => &conformal.scores,
        }
    }

    /// The number of independent scores that [`Model::normal_scores`] are worth.
    pub fn worth(&self) -> f64 {
        match &self.calibration {
            Calibration::Isotonic(_) => {
                self.records.normal_scores.len() as f64 / f64::from(self.training.stretch.max(1))
            }
            Calibration::Conformal(conformal) => conformal.worth,
        }
    }

    /// Tells this fit from others; feedback does not change it.
    pub fn identity(&self) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.made_at.to_le_bytes());
        hash.update(self.source.sha256);
        hash.update(self.detector_name());
        self.normal_scores().iter().for_each(|score| hash.update(score.to_le_bytes()));
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(hash.finalize());
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// p of the lowest score of the calibration; the model's threshold where it keeps none.
    pub fn lowest_p(&self) -> f64 {
        self.normal_scores().first().map_or(self.threshold, |score| self.calibration.p(*score))
    }

    /// # Errors
    /// [`Error::NoBudget`]: an isotonic p is the same for all scores beyond the outliers that it was fitted with, so no
    /// threshold tells a rare frame from a rarer one.
    pub fn check_budget(&self, config: &Path) -> Result<(), Error> {
        match self.calibration {
            Calibration::Isotonic(_) => Err(Error::NoBudget { config: config.to_owned() }),
            Calibration::Conformal(_) => Ok(()),
        }
    }

    /// Whether the backbone of this model, which lies at `path`, serves the one at `other_path` too.
    ///
    /// # Errors
    /// [`Error::OtherNetwork`].
    pub fn check_network(&self, path: &Path, other: &Model, other_path: &Path) -> Result<(), Error> {
        let placeless = |source: &FeatureSource| FeatureSource { path: None, ..source.clone() };
        let is_shared =
            placeless(&self.source) == placeless(&other.source) && self.joined.is_some() == other.joined.is_some();
        match is_shared {
            true => Ok(()),
            false => Err(Error::OtherNetwork { path: other_path.to_owned(), first: path.to_owned() }),
        }
    }

    /// Compares the mask of the config file `config` with that of the pictures that the model was fitted on.
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

    /// Loads the backbone that the model was fitted on: from `path` if given, else from where it was then.
    pub fn load_backbone(&self, path: Option<&Path>, threads: usize) -> Result<Backbone, Error> {
        self.load_backbone_sharing(path, threads, None)
    }

    /// The same with weights that all processes share which name the folder `cache`.
    pub fn load_backbone_sharing(
        &self,
        path: Option<&Path>,
        threads: usize,
        cache: Option<PathBuf>,
    ) -> Result<Backbone, Error> {
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
            cache,
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

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
