//! How a model is fitted: with what options, and which pictures are held out.

use super::params::{DetectorKind, Params};
use super::split;
use crate::{estimators, model};

/// Fewer normal pictures than this are refused.
pub const MIN_PICTURES: usize = 10;
/// Lower rates of false alarms are refused.
const LOWEST_RATE: f64 = 1e-6;
/// From this number of pictures on a share is held out instead of every fold in turn.
const MANY: usize = 5000;
const DEFAULT_SHARE: f64 = 0.2;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{got} normal pictures are too few to learn from: at least {MIN_PICTURES}, better some hundreds")]
    TooFew { got: usize },
    #[error("{0}")]
    Parameter(String),
    #[error(transparent)]
    Estimator(#[from] estimators::Error),
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error("outlier features have {outliers} values, normal ones {normal}")]
    Width { normal: usize, outliers: usize },
    #[error("the pictures have no cells, or cells of different grids")]
    Cells,
}

/// Which normal pictures give the scores that calibrate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HeldOut {
    /// [`default_folds`]; of 5,000 pictures and more a share of 0.2.
    Auto,
    /// A share of the pictures that the estimators are not fitted on.
    Share(f64),
    /// Every picture, scored by a fit on the other folds; the model itself is fitted on all (cross-conformal
    /// prediction, Vovk 2015). More scores and a better model from few pictures, for a fit per fold.
    Folds(usize),
}

impl HeldOut {
    /// The share that calibrates after a grid search: pictures that chose the parameters must not calibrate too.
    pub fn share_beside_a_search(self) -> f64 {
        match self {
            HeldOut::Share(share) => share,
            HeldOut::Auto | HeldOut::Folds(_) => DEFAULT_SHARE,
        }
    }
}

/// The number of folds for `n` pictures.
pub fn default_folds(n: usize) -> usize {
    match n {
        0..=100 => n,
        101..=1000 => 30,
        _ => 10,
    }
}

/// Which pictures are held out together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub parts: Vec<Vec<usize>>,
    /// Whether the model is fitted on all pictures and each part is scored by a fit on the others; else there is one
    /// part, which the model is not fitted on.
    pub crossed: bool,
}

impl Plan {
    /// # Errors
    /// [`Error::TooFew`]; [`Error::Parameter`] for shares and folds that leave nothing to fit on or to hold out.
    pub fn new(n: usize, options: &Options) -> Result<Plan, Error> {
        if n < MIN_PICTURES {
            return Err(Error::TooFew { got: n });
        }
        options.check()?;
        match options.held_out {
            HeldOut::Folds(folds) => Plan::cross(n, folds, options),
            HeldOut::Auto if n < MANY => Plan::cross(n, default_folds(n), options),
            HeldOut::Share(share) => Plan::hold_out(n, share, options),
            HeldOut::Auto => Plan::hold_out(n, DEFAULT_SHARE, options),
        }
    }

    fn cross(n: usize, folds: usize, options: &Options) -> Result<Plan, Error> {
        if folds < 2 {
            return Err(Error::Parameter(format!("cross-calibration needs 2 folds or more, not {folds}")));
        }
        let parts = split::folds(n, folds.min(n), options.seed, options.block);
        if parts.len() < 2 {
            let block = options.block;
            let reason = format!("{n} pictures in blocks of {block} leave nothing to hold out; smaller blocks do");
            return Err(Error::Parameter(reason));
        }
        Ok(Plan { parts, crossed: true })
    }

    fn hold_out(n: usize, share: f64, options: &Options) -> Result<Plan, Error> {
        let block = options.block;
        let held_out = split::random(n, share, options.seed, block).held_out;
        let left = n - held_out.len();
        if left < MIN_PICTURES {
            return Err(Error::Parameter(format!(
                "a held-out share of {share} in stretches of {block} leaves {left} of {n} pictures to fit on: at least \
                 {MIN_PICTURES} are needed"
            )));
        }
        Ok(Plan { parts: vec![held_out], crossed: false })
    }
}

/// What to fit and how to calibrate it. The default is a detector over the pooled feature alone.
#[derive(Debug, Clone)]
pub struct Options {
    pub detector: DetectorKind,
    pub params: Params,
    pub held_out: HeldOut,
    /// Accepted share of normal frames that are called outliers; not used with labelled outliers.
    pub false_alarms: f64,
    pub seed: u64,
    /// The length of a stretch of dependent pictures, as consecutive frames of a video are: they are held out together and
    /// count as one in the calibration. 1: independent pictures. See [`super::stretches`].
    pub block: usize,
}

impl Options {
    /// The defaults with another detector and its parameters.
    pub fn with_detector(detector: DetectorKind) -> Self {
        Options { detector, params: Params::of(detector), ..Options::default() }
    }

    /// # Errors
    /// [`Error::Parameter`] for shares and rates outside of 0 to 1.
    pub fn check(&self) -> Result<(), Error> {
        let rate = |share: f64| share > 0.0 && share < 1.0;
        if !rate(self.false_alarms) {
            let reason = format!("false alarms are a rate between 0 and 1, not {}", self.false_alarms);
            return Err(Error::Parameter(reason));
        }
        if self.false_alarms < LOWEST_RATE {
            let reason = format!(
                "a false-alarm rate of {} is below {LOWEST_RATE}: no number of pictures says anything of it",
                self.false_alarms
            );
            return Err(Error::Parameter(reason));
        }
        match self.held_out {
            HeldOut::Share(share) if !rate(share) => {
                Err(Error::Parameter(format!("the held-out share is between 0 and 1, not {share}")))
            }
            _ => Ok(()),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            detector: DetectorKind::MixtureResidual,
            params: Params::of(DetectorKind::MixtureResidual),
            held_out: HeldOut::Auto,
            false_alarms: 0.01,
            seed: 0,
            block: 1,
        }
    }
}
