//! How a model is fitted: with what options, and which pictures are held out.

use super::params::{DetectorKind, Params};
use super::split;
use crate::{estimators, model};

/// Fewer normal pictures than this are refused.
pub const MIN_PICTURES: usize = 10;
/// Lower rates of false alarms are refused.
const LOWEST_RATE: f64 = 1e-6;
/// So many pictures and more leave a share out instead of being fitted fold by fold.
const MANY: usize = 5000;

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
    /// As many folds as pay: a picture each of at most a hundred, 30 of a thousand, ten of more; of 5,000 pictures and
    /// more a share of a fifth.
    Auto,
    /// A share of the pictures that the estimators are not fitted on.
    Share(f64),
    /// Every picture, scored by a fit on the other folds; the model itself is fitted on all (cross-conformal
    /// prediction, Vovk 2015). More scores and a better model from few pictures, for a fit per fold.
    Folds(usize),
}

impl HeldOut {
    /// The share that calibrates after a search: pictures that chose the parameters must not calibrate too.
    pub fn share_beside_a_search(self) -> f64 {
        match self {
            HeldOut::Share(share) => share,
            HeldOut::Auto | HeldOut::Folds(_) => 0.2,
        }
    }

    /// The folds of `n` pictures.
    pub fn crossed(n: usize) -> HeldOut {
        HeldOut::Folds(match n {
            0..=100 => n,
            101..=1000 => 30,
            _ => 10,
        })
    }

    fn resolve(self, n: usize) -> HeldOut {
        match self {
            HeldOut::Auto if n >= MANY => HeldOut::Share(0.2),
            HeldOut::Auto => HeldOut::crossed(n),
            given => given,
        }
    }
}

/// Which pictures are held out together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub parts: Vec<Vec<usize>>,
    /// Whether the model is fitted on all pictures, and each part scored by a fit on the others; else the only part
    /// is not fitted on.
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
        match options.held_out.resolve(n) {
            HeldOut::Folds(folds) => {
                if folds < 2 {
                    let reason = format!("cross-calibration needs 2 folds or more, not {folds}");
                    return Err(Error::Parameter(reason));
                }
                let parts = split::folds(n, folds.min(n), options.seed, options.block);
                if parts.len() < 2 {
                    let block = options.block;
                    let reason =
                        format!("{n} pictures in blocks of {block} leave nothing to hold out; smaller blocks do");
                    return Err(Error::Parameter(reason));
                }
                Ok(Plan { parts, crossed: true })
            }
            HeldOut::Share(share) => {
                let held_out = split::random(n, share, options.seed, options.block).held_out;
                if n - held_out.len() < MIN_PICTURES {
                    let (left, block) = (n - held_out.len(), options.block);
                    let reason = format!(
                        "a held-out share of {share} in stretches of {block} leaves {left} of {n} pictures to fit on: \
                         at least {MIN_PICTURES} are needed"
                    );
                    return Err(Error::Parameter(reason));
                }
                Ok(Plan { parts: vec![held_out], crossed: false })
            }
            HeldOut::Auto => Err(Error::Parameter("the held-out share is not settled".into())),
        }
    }
}

/// What to fit and how to calibrate it. The default is a detector over the pooled feature alone.
#[derive(Debug, Clone)]
pub struct Options {
    pub detector: DetectorKind,
    pub params: Params,
    pub held_out: HeldOut,
    /// Accepted share of normal frames called outliers; used where there are no labelled outliers.
    pub false_alarms: f64,
    pub seed: u64,
    /// Consecutive pictures that are not independent: frames of a video, in the order of time. They are held out
    /// together, and together are worth one for calibration. 1: pictures taken independently. See
    /// [`super::stretches`].
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
