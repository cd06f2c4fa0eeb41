//! Fitting a model on features: split, estimators, rounding, calibration, evaluation.

use ndarray::{Array2, ArrayView2, Axis};
use serde::Serialize;

use super::cross::{self, Held, Made};
use super::evaluation::Evaluation;
use super::params::{DetectorKind, Params};
use super::{cells, metrics, pipeline, split};
use crate::backbone::cells::Cells;
use crate::estimators;
use crate::estimators::conformal::{Conformal, clopper_pearson};
use crate::estimators::isotonic::{IsotonicRegression, IsotonicRegressionParams};
use crate::model::{self, Calibration, FeatureSource, Model, Training, Verdict, file, records};

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

/// What the backbone gave of pictures: a feature vector a row and, where a detector wants them, the cells of each.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    pub rows: ArrayView2<'a, f32>,
    /// One for each row, or none at all.
    pub cells: &'a [Cells],
}

impl<'a> From<ArrayView2<'a, f32>> for Samples<'a> {
    fn from(rows: ArrayView2<'a, f32>) -> Self {
        Samples { rows, cells: &[] }
    }
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

    /// Refuses shares that are none.
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

/// A fitted model, its figures on pictures it was not fitted on, and what the user should know.
#[derive(Debug)]
pub struct Fitted {
    pub model: Model,
    pub evaluation: Evaluation,
    pub warnings: Vec<String>,
    /// Place and score of the normals that calibrated, by models that did not see them; the lowest score first.
    pub held: Vec<(usize, f64)>,
    /// How many of these lie farther off than so many normals would; 0 with isotonic calibration.
    pub suspects: Suspects,
    /// None where no outliers were made.
    pub catches: Option<Catches>,
}

/// Normals that may be none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Suspects {
    /// The lowest scores.
    pub count: usize,
    /// How many normals would be expected to score as low.
    pub expected: f64,
}

impl Suspects {
    /// The most of the rising scores, of which [`SUSPECT_SHARE`] at most are looked at, that are more than chance
    /// ([`CHANCE`], Poisson) puts below the highest of them, by a tail that is fitted without the lowest.
    fn of(calibration: &Calibration, rising: impl ExactSizeIterator<Item = f64>) -> Suspects {
        let Calibration::Conformal(Conformal { tail: Some(tail), worth, .. }) = calibration else {
            return Suspects::default();
        };
        let n = rising.len();
        let stretch = n as f64 / worth;
        let mut found = Suspects::default();
        for (at, score) in rising.take((SUSPECT_SHARE * n as f64).ceil() as usize).enumerate() {
            if score > tail.start() {
                break;
            }
            let rate = tail.p(score);
            // Alike frames count as one: P(N > those below), N of the mean rate * worth.
            let mut term = (-rate * worth).exp();
            let mut likely = 0.0;
            for count in 0..=(at as f64 / stretch) as usize {
                likely += term;
                term *= rate * worth / (count + 1) as f64;
            }
            if 1.0 - likely < CHANCE {
                found = Suspects { count: at + 1, expected: rate * n as f64 };
            }
        }
        found
    }
}

const SUSPECT_SHARE: f64 = 0.05;
const CHANCE: f64 = 0.02;

/// An estimate of recall: of outliers made of held-out normals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Catches {
    pub recall: f64,
    /// The 95 % interval of counting so few.
    pub interval: (f64, f64),
    pub made: usize,
}

/// Fits on `normal` (n x features); `outliers`, if any, are only used to calibrate and to judge.
pub fn fit(
    normal: ArrayView2<f32>,
    outliers: Option<ArrayView2<f32>>,
    source: FeatureSource,
    options: &Options,
) -> Result<Fitted, Error> {
    fit_with(normal.into(), outliers.map(Samples::from), &Made::default(), source, options)
}

/// [`fit`], over cells too, with an estimate of what it catches of outliers that were made of the parts of [`Plan::new`].
///
/// # Errors
/// [`Error::Cells`] where the detector wants cells and there are none.
pub fn fit_with(
    normal: Samples,
    outliers: Option<Samples>,
    made: &Made,
    source: FeatureSource,
    options: &Options,
) -> Result<Fitted, Error> {
    let Samples { rows, cells } = normal;
    let n = rows.nrows();
    let plan = Plan::new(n, options)?;
    if let Some(outliers) = &outliers
        && outliers.rows.ncols() != rows.ncols()
    {
        return Err(Error::Width { normal: rows.ncols(), outliers: outliers.rows.ncols() });
    }
    let mut warnings = Vec::new();
    let outliers = outliers.filter(|o| o.rows.nrows() > 0);
    let places = if plan.crossed { (0..n).collect() } else { plan.parts.concat() };
    let (mut model, mut held, n_train) = if plan.crossed {
        let candidate = [(options.detector, options.params.clone())];
        let mut held = cross::scores_by_part(rows, made, &plan.parts, &candidate, options)?;
        (estimate(rows, source, options, &mut warnings)?, held.pop().unwrap_or_default(), n)
    } else {
        let train: Vec<usize> = (0..n).filter(|at| places.binary_search(at).is_err()).collect();
        let model = estimate(rows.select(Axis(0), &train).view(), source, options, &mut warnings)?;
        let of_normal = feature_scores(&model, rows.select(Axis(0), &places).view())?;
        let of_made = feature_scores(&model, made.rows.view())?;
        (model, Held { normal: of_normal, made: of_made }, train.len())
    };
    if options.detector.wants_cells() {
        let fitted = cells::fit(cells, made, &plan)?;
        model.joined = fitted.map(|fitted| cells::join(fitted, &mut held)).transpose()?;
    }
    let outliers = outliers.map(|o| scores(&model, o)).transpose()?.unwrap_or_default();
    let (model, evaluation) = calibrate(model, &held.normal, &outliers, n_train, options, &mut warnings)?;
    let catches = (!held.made.is_empty()).then(|| {
        let (made, caught) = (held.made.len(), held.made.iter().filter(|s| model.verdict(**s).outlier).count());
        Catches { recall: caught as f64 / made as f64, interval: clopper_pearson(caught, made, 0.95), made }
    });
    let mut held: Vec<(usize, f64)> = places.into_iter().zip(held.normal).collect();
    held.sort_by(|a, b| a.1.total_cmp(&b.1));
    let suspects = Suspects::of(&model.calibration, held.iter().map(|(_, score)| *score));
    Ok(Fitted { model, evaluation, warnings, held, suspects, catches })
}

/// Calibrates a model with the scores of normals that it was not fitted on and, if any, of labelled outliers, and
/// judges it on them.
pub fn calibrate(
    mut model: Model,
    held_out: &[f64],
    outliers: &[f64],
    n_train: usize,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<(Model, Evaluation), Error> {
    (model.calibration, model.threshold) = match outliers {
        [] => conformal(held_out, n_train, options, warnings)?,
        outliers => (isotonic(held_out, outliers)?, 0.5),
    };
    if let Calibration::Isotonic(_) = model.calibration {
        model.records.normal_scores = records::quantiles(held_out);
    }
    let evaluation = cross_evaluate(&model, held_out, outliers, options)?;
    model.training = Training {
        n_train: n_train as u32,
        n_calibration: held_out.len() as u32,
        n_outliers: outliers.len() as u32,
        seed: options.seed,
        auroc: evaluation.auroc,
        false_alarm_rate: if outliers.is_empty() { model.threshold } else { evaluation.false_alarms() },
        stretch: options.block as u32,
    };
    Ok((file::rounded(&model)?, evaluation))
}

/// Scaler, PCA and detector, rounded as the file keeps them; not yet calibrated.
fn estimate(
    train: ArrayView2<f32>,
    source: FeatureSource,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<Model, Error> {
    let candidate = [(options.detector, options.params.clone())];
    let mut models = pipeline::models(train, &candidate, &source, options.seed, warnings)?;
    models.pop().map(|fitted| fitted.model).ok_or_else(|| Error::Parameter("no detector was named".into()))
}

/// The model's score of every sample.
pub fn scores(model: &Model, samples: Samples) -> Result<Vec<f64>, model::Error> {
    let one = |(at, row): (usize, ndarray::ArrayView1<f32>)| model.raw_score(&row.to_vec(), samples.cells.get(at));
    samples.rows.rows().into_iter().enumerate().map(one).collect()
}

/// The score of every row by the detector over the pooled feature.
pub fn feature_scores(model: &Model, rows: ArrayView2<f32>) -> Result<Vec<f64>, model::Error> {
    rows.rows().into_iter().map(|row| model.feature_score(&row.to_vec())).collect()
}

fn isotonic(inliers: &[f64], outliers: &[f64]) -> Result<Calibration, Error> {
    let x: Vec<f64> = inliers.iter().chain(outliers).copied().collect();
    let y: Vec<f64> = inliers.iter().map(|_| 1.0).chain(outliers.iter().map(|_| 0.0)).collect();
    Ok(Calibration::Isotonic(IsotonicRegression::fit(&x, &y, None, &IsotonicRegressionParams::default())?))
}

/// Conformal calibration and the threshold for the accepted rate, or, where the scores have no tail, the lowest rate
/// that so few pictures allow.
fn conformal(
    held_out: &[f64],
    n_train: usize,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<(Calibration, f64), Error> {
    let worth = (held_out.len() as f64 / options.block.max(1) as f64).max(1.0);
    let conformal = Conformal::fit(held_out, worth)?;
    let counts = conformal.tail.is_none();
    let lowest = 1.0 / (conformal.scores.len() + 1) as f64;
    let calibration = Calibration::Conformal(conformal);
    if !counts || options.false_alarms > lowest {
        return Ok((calibration, options.false_alarms));
    }
    let (count, pictures) = (held_out.len(), n_train.max(held_out.len()));
    let per_score = pictures as f64 / count as f64;
    warnings.push(format!(
        "{count} calibration scores are too few or too much alike to be extrapolated, and cannot show a false-alarm \
         rate of {}: the threshold is set for {lowest:.4}; {} normal pictures would be enough",
        options.false_alarms,
        ((1.0 / options.false_alarms).ceil() * per_score).ceil()
    ));
    Ok((calibration, 1.5 * lowest))
}

/// What a conformal calibration promises of normal frames.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FalseAlarms {
    /// The rate that the threshold is set for.
    pub promised: f64,
    /// Holds the true rate with 95 % probability.
    pub interval: (f64, f64),
    /// The lowest rate that counting the calibration's pictures could show; a lower one is extrapolated.
    pub vouched_for: f64,
    /// How many independent pictures the calibration is worth.
    pub stretches: f64,
}

impl FalseAlarms {
    /// None with isotonic calibration.
    pub fn of(model: &Model) -> Option<FalseAlarms> {
        let Calibration::Conformal(conformal) = &model.calibration else { return None };
        let promised = model.threshold;
        Some(FalseAlarms {
            promised,
            interval: conformal.false_alarm_interval(promised),
            vouched_for: 1.0 / (conformal.worth + 1.0),
            stretches: (conformal.worth * 10.0).round() / 10.0,
        })
    }
}

/// What the threshold means, for people.
pub fn meaning(model: &Model, raise_after: u32) -> Vec<String> {
    let rate = model.training.false_alarm_rate;
    let mut lines = Vec::new();
    let most;
    match FalseAlarms::of(model) {
        Some(FalseAlarms { promised, interval: (low, high), vouched_for, stretches }) => {
            most = high;
            let low = if low > RARE { format!(" to 1 in {}", one_in(low)) } else { " or fewer".into() };
            lines.push(format!(
                "about 1 false alarm in {} normal frames (95 % interval: 1 in {}{low})",
                one_in(promised),
                one_in(high)
            ));
            if promised < vouched_for {
                lines.push(format!(
                    "{stretches:.0} independent pictures can vouch for 1 in {}; what is rarer is extrapolated from the \
                     tail of their scores, and the interval says how surely",
                    one_in(vouched_for)
                ));
            }
        }
        None => {
            let worth = f64::from(model.training.n_calibration) / f64::from(model.training.stretch.max(1));
            let worth = (worth.round() as usize).max(1);
            most = clopper_pearson((rate * worth as f64).round() as usize, worth, 0.95).1;
            lines.push(format!(
                "{:.2} % of held-out normals are false alarms, worth {worth} independent ones: at most 1 in {} (95 %)",
                100.0 * rate,
                one_in(most)
            ));
        }
    }
    lines.push(format!(
        "with raise-after = {raise_after}, at most one false event in about {} normal frames: one takes {raise_after} \
         false alarms in a row",
        one_in(most / f64::from(raise_after.max(1)))
    ));
    lines
}

/// A rate that nobody will wait for.
const RARE: f64 = 1e-5;

fn one_in(rate: f64) -> String {
    if rate <= RARE { "very many".into() } else { format!("{:.0}", 1.0 / rate) }
}

/// Figures on the held-out normals and the outliers. Isotonic calibration is fitted on one half and judged on
/// the other, both ways, so that no picture is judged by a curve that has seen it.
fn cross_evaluate(model: &Model, inliers: &[f64], outliers: &[f64], options: &Options) -> Result<Evaluation, Error> {
    let judge = |scores: &[f64], calibration: &Calibration| -> Vec<Verdict> {
        scores.iter().map(|&score| Verdict::of(score, calibration.p(score), model.threshold)).collect()
    };
    let (mut judged_inliers, mut judged_outliers) = (Vec::new(), Vec::new());
    if outliers.len() < 2 || inliers.len() < 2 {
        judged_inliers = judge(inliers, &model.calibration);
        judged_outliers = judge(outliers, &model.calibration);
    } else {
        let pick = |values: &[f64], at: &[usize]| at.iter().map(|&i| values[i]).collect::<Vec<_>>();
        let block = options.block.min(inliers.len() / 2);
        let (a, b) =
            (split::folds(inliers.len(), 2, options.seed, block), split::folds(outliers.len(), 2, options.seed, 1));
        for half in 0..2 {
            let calibration = isotonic(&pick(inliers, &a[1 - half]), &pick(outliers, &b[1 - half]))?;
            judged_inliers.extend(judge(&pick(inliers, &a[half]), &calibration));
            judged_outliers.extend(judge(&pick(outliers, &b[half]), &calibration));
        }
    }
    let calibration = model.calibration.name();
    Ok(Evaluation::of(model.detector_name(), calibration, model.threshold, &judged_inliers, &judged_outliers))
}

/// AUROC of a model of the pooled feature over feature arrays; None with one class only.
pub fn auroc(model: &Model, inliers: ArrayView2<f32>, outliers: ArrayView2<f32>) -> Result<Option<f64>, model::Error> {
    Ok(metrics::auroc(&feature_scores(model, inliers)?, &feature_scores(model, outliers)?))
}

/// Rows of several arrays of one width.
pub fn stack(parts: &[ArrayView2<f32>]) -> Option<Array2<f32>> {
    ndarray::concatenate(Axis(0), parts).ok()
}
