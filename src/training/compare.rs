//! The article's comparison: every detector on the same split, judged on the same pictures.

use std::time::Instant;

use ndarray::{ArrayView2, Axis};
use serde::Serialize;

use super::evaluation::Evaluation;
use super::fit::{self, Error, Options};
use super::params::{DetectorKind, Params};
use super::{pipeline, split};
use crate::model::{FeatureSource, Verdict, file};

/// One detector's figures under one seed.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub seed: u64,
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// Scaler, PCA and detector.
    pub fit_ms: f64,
    /// Per feature vector.
    pub score_ms: f64,
    pub model_bytes: usize,
}

/// Features that are fitted on, and the two classes that are judged.
#[derive(Debug, Clone, Copy)]
pub struct Pictures<'a> {
    pub train: ArrayView2<'a, f32>,
    pub normal: ArrayView2<'a, f32>,
    pub outliers: ArrayView2<'a, f32>,
}

/// Fits every detector on the training share of `pictures.train`, calibrates it on the share that the seed holds
/// out, and judges it on the other two. `set` overrides parameters of all; `done` is called after each.
pub fn compare(
    pictures: &Pictures,
    source: &FeatureSource,
    options: &Options,
    set: &[String],
    done: &mut dyn FnMut(),
) -> Result<Vec<Row>, Error> {
    let n = pictures.train.nrows();
    if n < fit::MIN_PICTURES {
        return Err(Error::TooFew { got: n });
    }
    let split = split::random(n, options.held_out, options.seed);
    let train = pictures.train.select(Axis(0), &split.train);
    let held_out = pictures.train.select(Axis(0), &split.held_out);
    let (mut warnings, mut rows) = (Vec::new(), Vec::new());
    let mut last: Option<(Params, pipeline::Projected, f64)> = None;
    for kind in DetectorKind::ALL {
        let mut params = Params::of(kind).seeded(options.seed);
        for assignment in set {
            params.set(assignment).map_err(Error::Parameter)?;
        }
        let shared = last.take().filter(|(p, ..)| (p.transform, &p.pca) == (params.transform, &params.pca));
        let (_, projected, project_ms) = match shared {
            Some(shared) => shared,
            None => {
                let start = Instant::now();
                let projected = pipeline::project(train.view(), &params, &mut warnings)?;
                (params.clone(), projected, start.elapsed().as_secs_f64() * 1e3)
            }
        };
        let start = Instant::now();
        let detector = pipeline::detector(kind, &params, &projected, &mut warnings)?;
        let fit_ms = project_ms + start.elapsed().as_secs_f64() * 1e3;
        let model = pipeline::model(source.clone(), &projected, detector)?;
        let n_train = split.train.len();
        let (model, _) = fit::calibrate(model, held_out.view(), None, n_train, options, &mut Vec::new())?;
        let start = Instant::now();
        let judge = |rows: ArrayView2<f32>| -> Result<Vec<Verdict>, Error> {
            Ok(fit::scores(&model, rows)?.into_iter().map(|score| model.verdict(score)).collect())
        };
        let (inliers, outliers) = (judge(pictures.normal)?, judge(pictures.outliers)?);
        let judged = (inliers.len() + outliers.len()).max(1);
        let score_ms = start.elapsed().as_secs_f64() * 1e3 / judged as f64;
        rows.push(Row {
            seed: options.seed,
            evaluation: Evaluation::of(kind.name(), model.calibration.name(), model.threshold, &inliers, &outliers),
            fit_ms,
            score_ms,
            model_bytes: file::encode(&model)?.len(),
        });
        last = Some((params, projected, project_ms));
        done();
    }
    warnings.sort();
    warnings.dedup();
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    Ok(rows)
}

/// Mean and standard deviation (of the sample; 0 for one value).
pub fn mean_and_spread(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, variance.sqrt())
}
