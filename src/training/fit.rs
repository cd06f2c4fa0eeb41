//! Fitting a model on features: split, estimators, rounding, calibration, evaluation.

use ndarray::{Array2, ArrayView2, Axis};

use super::evaluation::Evaluation;
use super::params::{DetectorKind, Params};
use super::{metrics, pipeline, split};
use crate::estimators;
use crate::estimators::conformal::{Blocks, Conformal};
use crate::estimators::isotonic::{IsotonicRegression, IsotonicRegressionParams};
use crate::model::{self, Calibration, FeatureSource, Model, Training, Verdict, file};

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

/// What to fit and how to calibrate it.
#[derive(Debug, Clone)]
pub struct Options {
    pub detector: DetectorKind,
    pub params: Params,
    /// Share of the normal pictures that is held out for calibration.
    pub held_out: f64,
    /// Accepted share of normal frames called outliers; used where there are no labelled outliers.
    pub false_alarms: f64,
    pub seed: u64,
}

impl Options {
    /// The defaults with another detector and its parameters.
    pub fn with_detector(detector: DetectorKind) -> Self {
        Options { detector, params: Params::of(detector), ..Options::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            detector: DetectorKind::default(),
            params: Params::of(DetectorKind::default()),
            held_out: 0.2,
            false_alarms: 0.01,
            seed: 0,
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
    if !(options.false_alarms > 0.0 && options.false_alarms < 1.0) {
        return Err(Error::Parameter(format!("false alarms are a rate between 0 and 1, not {}", options.false_alarms)));
    }
    if let Some(outliers) = &outliers
        && outliers.ncols() != normal.ncols()
    {
        return Err(Error::Width { normal: normal.ncols(), outliers: outliers.ncols() });
    }
    let mut warnings = Vec::new();
    let split = split::random(n, options.held_out, options.seed);
    let train = normal.select(Axis(0), &split.train);
    let model = estimate(train.view(), source, options, &mut warnings)?;
    let held_out = normal.select(Axis(0), &split.held_out);
    let (model, evaluation) = calibrate(model, held_out.view(), outliers, split.train.len(), options, &mut warnings)?;
    Ok(Fitted { model, evaluation, warnings })
}

/// Calibrates a model on held-out normals and, if given, labelled outliers, and judges it on them.
pub fn calibrate(
    mut model: Model,
    held_out: ArrayView2<f32>,
    outliers: Option<ArrayView2<f32>>,
    n_train: usize,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<(Model, Evaluation), Error> {
    let held_out = scores(&model, held_out)?;
    let outliers = outliers.map(|o| scores(&model, o)).transpose()?.filter(|o| !o.is_empty());
    (model.calibration, model.threshold) = match &outliers {
        Some(outliers) => (isotonic(&held_out, outliers)?, 0.5),
        None => conformal(&held_out, options, warnings)?,
    };
    let evaluation = cross_evaluate(&model, &held_out, outliers.as_deref().unwrap_or_default(), options)?;
    let alarms = evaluation.confusion.false_outlier as f64 / evaluation.n_inlier.max(1) as f64;
    model.training = Training {
        n_train: n_train as u32,
        n_calibration: held_out.len() as u32,
        n_outliers: outliers.as_ref().map_or(0, |o| o.len() as u32),
        seed: options.seed,
        auroc: evaluation.auroc,
        false_alarm_rate: if outliers.is_some() { alarms } else { model.threshold },
    };
    Ok((file::rounded(&model)?, evaluation))
}

/// Scaler, PCA and detector on the training share, rounded as the file keeps them; not yet calibrated.
fn estimate(
    train: ArrayView2<f32>,
    source: FeatureSource,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<Model, Error> {
    let params = options.params.clone().seeded(options.seed);
    let projected = pipeline::project(train, &params, warnings)?;
    let detector = pipeline::detector(options.detector, &params, &projected, warnings)?;
    pipeline::model(source, &projected, detector)
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
fn conformal(held_out: &[f64], options: &Options, warnings: &mut Vec<String>) -> Result<(Calibration, f64), Error> {
    let calibration = Calibration::Conformal(Conformal::fit(held_out, Blocks::Each)?);
    let lowest = 1.0 / (held_out.len() + 1) as f64;
    if options.false_alarms > lowest {
        return Ok((calibration, options.false_alarms));
    }
    let enough = ((1.0 / options.false_alarms).ceil() / options.held_out).ceil();
    let threshold = 1.5 * lowest;
    warnings.push(format!(
        "{} calibration pictures cannot show a false-alarm rate of {}: the threshold is set for {:.4}; \
         {enough} normal pictures would be enough",
        held_out.len(),
        options.false_alarms,
        lowest
    ));
    Ok((calibration, threshold))
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
        let (a, b) = (split::folds(inliers.len(), 2, options.seed), split::folds(outliers.len(), 2, options.seed));
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
