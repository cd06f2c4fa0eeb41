//! Fitting a model on features: split, estimators, rounding, calibration, evaluation.

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::evaluation::Evaluation;
use super::params::{DetectorKind, Params};
use super::{metrics, pipeline, split};
use crate::estimators;
use crate::estimators::conformal::{Blocks, Conformal};
use crate::estimators::isotonic::{IsotonicRegression, IsotonicRegressionParams};
use crate::model::{self, Calibration, FeatureSource, Model, Training, Verdict, file, records};

/// Fewer normal pictures than this are refused.
pub const MIN_PICTURES: usize = 10;

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
}

/// Which normal pictures give the scores that calibrate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HeldOut {
    /// A share of a fifth where that makes scores enough to see ten of the accepted false alarms, else ten folds.
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

    fn resolve(self, n: usize, false_alarms: f64) -> HeldOut {
        match self {
            HeldOut::Auto if n as f64 * 0.2 * false_alarms >= 10.0 => HeldOut::Share(0.2),
            HeldOut::Auto => HeldOut::Folds(10),
            given => given,
        }
    }
}

/// What to fit and how to calibrate it.
#[derive(Debug, Clone)]
pub struct Options {
    pub detector: DetectorKind,
    pub params: Params,
    pub held_out: HeldOut,
    /// Accepted share of normal frames called outliers; used where there are no labelled outliers.
    pub false_alarms: f64,
    pub seed: u64,
    /// Consecutive pictures that are not independent: frames of a video, in the order of time. They are held out
    /// together and count as one for calibration. 1: pictures taken independently.
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
            detector: DetectorKind::default(),
            params: Params::of(DetectorKind::default()),
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
}

/// Fits on `normal` (n x features); `outliers`, if any, are only used to calibrate and to judge.
pub fn fit(
    normal: ArrayView2<f32>,
    outliers: Option<ArrayView2<f32>>,
    source: FeatureSource,
    options: &Options,
) -> Result<Fitted, Error> {
    let n = normal.nrows();
    if n < MIN_PICTURES {
        return Err(Error::TooFew { got: n });
    }
    options.check()?;
    if let Some(outliers) = &outliers
        && outliers.ncols() != normal.ncols()
    {
        return Err(Error::Width { normal: normal.ncols(), outliers: outliers.ncols() });
    }
    let mut warnings = Vec::new();
    let outliers = outliers.filter(|o| o.nrows() > 0);
    let (model, held_out, n_train) = match options.held_out.resolve(n, options.false_alarms) {
        HeldOut::Folds(folds) => {
            let candidate = [(options.detector, options.params.clone())];
            let mut scores = cross_scores(normal, folds, &candidate, options)?;
            (estimate(normal, source, options, &mut warnings)?, scores.pop().unwrap_or_default(), n)
        }
        HeldOut::Share(share) => {
            let split = split::random(n, share, options.seed, options.block);
            let train = normal.select(Axis(0), &split.train);
            let model = estimate(train.view(), source, options, &mut warnings)?;
            let held_out = scores(&model, normal.select(Axis(0), &split.held_out).view())?;
            (model, held_out, split.train.len())
        }
        HeldOut::Auto => return Err(Error::Parameter("the held-out share is not settled".into())),
    };
    let outliers = outliers.map(|o| scores(&model, o)).transpose()?.unwrap_or_default();
    let (model, evaluation) = calibrate(model, &held_out, &outliers, n_train, options, &mut warnings)?;
    Ok(Fitted { model, evaluation, warnings })
}

/// The score of every row by a model fitted on the other folds, for each candidate. Candidates that agree in
/// transform and PCA share these.
pub fn cross_scores(
    normal: ArrayView2<f32>,
    folds: usize,
    candidates: &[(DetectorKind, Params)],
    options: &Options,
) -> Result<Vec<Vec<f64>>, Error> {
    let n = normal.nrows();
    if folds < 2 {
        return Err(Error::Parameter(format!("cross-calibration needs 2 folds or more, not {folds}")));
    }
    let seed = options.seed;
    let folds = split::folds(n, folds.min(n), seed, options.block);
    if folds.len() < 2 {
        let reason =
            format!("{n} pictures in blocks of {} leave nothing to hold out; smaller blocks do", options.block);
        return Err(Error::Parameter(reason));
    }
    let by_fold = folds.par_iter().map(|fold| {
        let train: Vec<usize> = (0..n).filter(|i| !fold.contains(i)).collect();
        let (train, rest) = (normal.select(Axis(0), &train), normal.select(Axis(0), fold));
        let models = pipeline::models(train.view(), candidates, &FeatureSource::unknown(), seed, &mut Vec::new())?;
        models.iter().map(|fitted| Ok(scores(&fitted.model, rest.view())?)).collect()
    });
    let by_fold: Vec<Vec<Vec<f64>>> = by_fold.collect::<Result<_, Error>>()?;
    let mut all = vec![vec![0.0; n]; candidates.len()];
    for (fold, candidate_scores) in folds.iter().zip(by_fold) {
        for (all, scores) in all.iter_mut().zip(candidate_scores) {
            fold.iter().zip(scores).for_each(|(&at, score)| all[at] = score);
        }
    }
    Ok(all)
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
    let alarms = evaluation.confusion.false_outlier as f64 / evaluation.n_inlier.max(1) as f64;
    model.training = Training {
        n_train: n_train as u32,
        n_calibration: held_out.len() as u32,
        n_outliers: outliers.len() as u32,
        seed: options.seed,
        auroc: evaluation.auroc,
        false_alarm_rate: if outliers.is_empty() { model.threshold } else { alarms },
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

/// The model's score of every row.
pub fn scores(model: &Model, rows: ArrayView2<f32>) -> Result<Vec<f64>, model::Error> {
    rows.rows().into_iter().map(|row| model.raw_score(&row.to_vec())).collect()
}

fn isotonic(inliers: &[f64], outliers: &[f64]) -> Result<Calibration, Error> {
    let x: Vec<f64> = inliers.iter().chain(outliers).copied().collect();
    let y: Vec<f64> = inliers.iter().map(|_| 1.0).chain(outliers.iter().map(|_| 0.0)).collect();
    Ok(Calibration::Isotonic(IsotonicRegression::fit(&x, &y, None, &IsotonicRegressionParams::default())?))
}

/// Conformal calibration and the threshold for the accepted rate, or the lowest rate that so few pictures allow.
fn conformal(
    held_out: &[f64],
    n_train: usize,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<(Calibration, f64), Error> {
    let blocks = if options.block > 1 { Blocks::OnePer(options.block) } else { Blocks::Each };
    let conformal = Conformal::fit(held_out, blocks)?;
    let lowest = 1.0 / (conformal.scores.len() + 1) as f64;
    let count = conformal.scores.len();
    let calibration = Calibration::Conformal(conformal);
    if options.false_alarms > lowest {
        return Ok((calibration, options.false_alarms));
    }
    let pictures = n_train.max(held_out.len());
    let per_score = pictures as f64 / count as f64;
    warnings.push(format!(
        "{count} calibration scores cannot show a false-alarm rate of {}: the threshold is set for {lowest:.4}; \
         {} normal pictures would be enough",
        options.false_alarms,
        ((1.0 / options.false_alarms).ceil() * per_score).ceil()
    ));
    Ok((calibration, 1.5 * lowest))
}

/// What the threshold means, for people.
pub fn meaning(model: &Model, raise_after: u32) -> Vec<String> {
    let rate = model.training.false_alarm_rate;
    let mut lines = Vec::new();
    match &model.calibration {
        Calibration::Conformal(conformal) => {
            let (low, high) = conformal.false_alarm_interval(model.threshold, 0.95);
            lines.push(format!(
                "about 1 false alarm in {} normal frames (95 % interval: 1 in {} to 1 in {})",
                one_in(rate),
                one_in(high),
                one_in(low)
            ));
        }
        Calibration::Isotonic(_) => {
            lines.push(format!("about 1 false alarm in {} normal frames, as counted here", one_in(rate)));
        }
    }
    lines.push(format!(
        "with raise-after = {raise_after}, one false event in about {} frames if frames were independent; \
         neighbouring frames are not, so expect more",
        one_in(rate.powi(raise_after as i32))
    ));
    lines
}

fn one_in(rate: f64) -> String {
    if rate <= 1e-12 { "very many".into() } else { format!("{:.0}", 1.0 / rate) }
}

/// Figures on the held-out normals and the outliers. Isotonic calibration is fitted on one half and judged on
/// the other, both ways, so that no picture is judged by a curve that has seen it.
fn cross_evaluate(model: &Model, inliers: &[f64], outliers: &[f64], options: &Options) -> Result<Evaluation, Error> {
    let judge = |scores: &[f64], calibration: &Calibration| -> Vec<Verdict> {
        let p = |&score: &f64| (score, calibration.p(score));
        scores.iter().map(p).map(|(score, p)| Verdict { score, p, outlier: p < model.threshold }).collect()
    };
    let (mut judged_inliers, mut judged_outliers) = (Vec::new(), Vec::new());
    if outliers.len() < 2 || inliers.len() < 2 {
        judged_inliers = judge(inliers, &model.calibration);
        judged_outliers = judge(outliers, &model.calibration);
    } else {
        let pick = |values: &[f64], at: &[usize]| at.iter().map(|&i| values[i]).collect::<Vec<_>>();
        let (a, b) = (
            split::folds(inliers.len(), 2, options.seed, options.block),
            split::folds(outliers.len(), 2, options.seed, 1),
        );
        for half in 0..2 {
            let calibration = isotonic(&pick(inliers, &a[1 - half]), &pick(outliers, &b[1 - half]))?;
            judged_inliers.extend(judge(&pick(inliers, &a[half]), &calibration));
            judged_outliers.extend(judge(&pick(outliers, &b[half]), &calibration));
        }
    }
    let calibration = model.calibration.name();
    Ok(Evaluation::of(model.detector.name(), calibration, model.threshold, &judged_inliers, &judged_outliers))
}

/// AUROC of a model over feature arrays; None with one class only.
pub fn auroc(model: &Model, inliers: ArrayView2<f32>, outliers: ArrayView2<f32>) -> Result<Option<f64>, model::Error> {
    Ok(metrics::auroc(&scores(model, inliers)?, &scores(model, outliers)?))
}

/// Rows of several arrays of one width.
pub fn stack(parts: &[ArrayView2<f32>]) -> Option<Array2<f32>> {
    ndarray::concatenate(Axis(0), parts).ok()
}
