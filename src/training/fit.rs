//! Fitting a model on features: split, estimators, rounding, calibration, evaluation.

use ndarray::{ArrayView2, Axis};
use serde::Serialize;

pub use super::plan::{Error, HeldOut, MIN_PICTURES, Options, Plan, default_folds};
pub use super::promise::{FalseAlarms, meaning};
pub use super::samples::{Samples, feature_scores, scores};

use super::cross::{self, HeldOutScores, Synthetic};
use super::evaluation::Evaluation;
use super::{cells, pipeline, split};
use crate::estimators::conformal::{Conformal, clopper_pearson};
use crate::estimators::isotonic::{IsotonicRegression, IsotonicRegressionParams};
use crate::model::{Calibration, FeatureSource, Model, Training, Verdict, file, records};

/// A fitted model, and its figures on pictures it was not fitted on.
#[derive(Debug)]
pub struct Fitted {
    pub model: Model,
    pub evaluation: Evaluation,
    pub warnings: Vec<String>,
    /// Index and held-out score of the normals that calibrated, the lowest score first.
    pub held: Vec<(usize, f64)>,
    /// None are found with isotonic calibration.
    pub suspects: Suspects,
    /// None without synthetic outliers.
    pub catches: Option<Catches>,
}

/// Normals that may be outliers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Suspects {
    /// How many of the lowest scores are.
    pub count: usize,
    /// The number of normals expected to score as low.
    pub expected: f64,
}

impl Suspects {
    /// The largest number of lowest scores that is improbable: so many scores below the highest of them have a probability
    /// below [`CHANCE`] (Poisson), by a tail that was fitted without the lowest. Looks at [`SUSPECT_SHARE`] of the scores.
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
            // P(N > those below) for a Poisson N of mean rate * worth; dependent frames count as one.
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

/// An estimate of recall, by synthetic outliers made of held-out normals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Catches {
    pub recall: f64,
    /// 95 % confidence interval.
    pub interval: (f64, f64),
    pub made: usize,
}

/// Fits on `normal`; `outliers`, if any, are used to calibrate and to evaluate. Recall is estimated by `synthetic`
/// outliers, which are made of the parts of [`Plan::new`].
///
/// # Errors
/// [`Error::Cells`] where the detector needs cells and there are none.
pub fn fit(
    normal: Samples,
    outliers: Option<Samples>,
    synthetic: &Synthetic,
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
        let mut held = cross::scores_by_part(rows, synthetic, &plan.parts, &candidate, options)?;
        (estimate(rows, source, options, &mut warnings)?, held.pop().unwrap_or_default(), n)
    } else {
        let train: Vec<usize> = (0..n).filter(|at| places.binary_search(at).is_err()).collect();
        let model = estimate(rows.select(Axis(0), &train).view(), source, options, &mut warnings)?;
        let of_normal = feature_scores(&model, rows.select(Axis(0), &places).view())?;
        let of_synthetic = feature_scores(&model, synthetic.rows.view())?;
        (model, HeldOutScores { normal: of_normal, synthetic: of_synthetic }, train.len())
    };
    if options.detector.wants_cells() {
        let fitted = cells::fit(cells, synthetic, &plan)?;
        model.joined = fitted.map(|fitted| cells::join(fitted, &mut held)).transpose()?;
    }
    let outliers = outliers.map(|o| scores(&model, o)).transpose()?.unwrap_or_default();
    let (model, evaluation) = calibrate(model, &held.normal, &outliers, n_train, options, &mut warnings)?;
    let catches = (!held.synthetic.is_empty()).then(|| {
        let (made, caught) =
            (held.synthetic.len(), held.synthetic.iter().filter(|s| model.verdict(**s).outlier).count());
        Catches { recall: caught as f64 / made as f64, interval: clopper_pearson(caught, made, 0.95), made }
    });
    let mut held: Vec<(usize, f64)> = places.into_iter().zip(held.normal).collect();
    held.sort_by(|a, b| a.1.total_cmp(&b.1));
    let suspects = Suspects::of(&model.calibration, held.iter().map(|(_, score)| *score));
    Ok(Fitted { model, evaluation, warnings, held, suspects, catches })
}

/// Calibrates a model with held-out scores of normals and, if any, scores of labelled outliers, and evaluates it on them.
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

/// Scaler, PCA and detector, rounded as in the model file and not yet calibrated.
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

fn isotonic(inliers: &[f64], outliers: &[f64]) -> Result<Calibration, Error> {
    let x: Vec<f64> = inliers.iter().chain(outliers).copied().collect();
    let y: Vec<f64> = inliers.iter().map(|_| 1.0).chain(outliers.iter().map(|_| 0.0)).collect();
    Ok(Calibration::Isotonic(IsotonicRegression::fit(&x, &y, None, &IsotonicRegressionParams::default())?))
}

/// Conformal calibration and the threshold for the accepted rate; where the scores have no tail, the lowest rate that
/// the number of pictures allows.
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

/// Figures on the held-out normals and the outliers. Isotonic calibration is fitted on one half and applied to the other,
/// both ways, so that no picture is judged by a calibration it was used for.
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
    Ok(Evaluation::of(model, &judged_inliers, &judged_outliers))
}
