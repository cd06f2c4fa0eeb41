//! The article's comparison: every detector on the same split and the same pictures.

use std::time::Instant;

use ndarray::Axis;
use serde::Serialize;

use super::cross::{self, Synthetic};
use super::evaluation::Evaluation;
use super::fit::{self, Error, Options, Samples};
use super::params::{DetectorKind, Params};
use super::{cells, pipeline, split};
use crate::model::{FeatureSource, Verdict, file};

/// One detector's figures under one seed.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub seed: u64,
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// The false-alarm rate that the threshold is set for.
    pub promised: f64,
    /// The share of the judged normals that were called outliers.
    pub false_alarms: f64,
    /// The share of the judged outliers that were called outliers.
    pub recall: f64,
    /// Scaler, PCA and detector; with cells, their cross-validation too.
    pub fit_ms: f64,
    /// Per feature vector.
    pub score_ms: f64,
    pub model_bytes: usize,
}

/// The samples to fit on, and those of both classes to judge.
#[derive(Debug, Clone, Copy)]
pub struct Pictures<'a> {
    pub train: Samples<'a>,
    pub normal: Samples<'a>,
    pub outliers: Samples<'a>,
}

/// Fits and calibrates every detector that the pictures allow on `pictures.train` as `fit` does, and judges it on the
/// other two. `set` overrides parameters of all; `done` is called after each.
///
/// Seed 0 takes the pictures as they are given. Any other seed divides the normal ones anew, so that the spread over
/// seeds includes that of the pictures. Consecutive frames keep their order: only the start is moved.
pub fn compare(
    pictures: &Pictures,
    source: &FeatureSource,
    options: &Options,
    set: &[String],
    done: &mut dyn FnMut(),
) -> Result<Vec<Row>, Error> {
    let n = pictures.train.rows.nrows();
    if n < fit::MIN_PICTURES {
        return Err(Error::TooFew { got: n });
    }
    let all = ndarray::concatenate(Axis(0), &[pictures.train.rows, pictures.normal.rows])
        .map_err(|_| Error::Width { normal: pictures.train.rows.ncols(), outliers: pictures.normal.rows.ncols() })?;
    let all_cells = [pictures.train.cells, pictures.normal.cells].concat();
    let mut order: Vec<usize> = (0..all.nrows()).collect();
    if options.seed > 0 {
        let shuffled = split::folds(order.len(), 1, options.seed, 1).concat();
        if options.block > 1 { order.rotate_left(shuffled[0]) } else { order = shuffled }
    }
    let (train, normal) = order.split_at(n);
    let of = |order: &[usize]| order.iter().filter_map(|&at| all_cells.get(at).cloned()).collect::<Vec<_>>();
    let (train_cells, normal_cells) = (of(train), of(normal));
    let (train, normal) = (all.select(Axis(0), train), all.select(Axis(0), normal));
    drop(all);
    let mut candidates = Vec::new();
    for kind in DetectorKind::ALL.into_iter().filter(|kind| !kind.wants_cells()) {
        let mut params = Params::of(kind);
        for assignment in set {
            params.set(assignment).map_err(Error::Parameter)?;
        }
        candidates.push((kind, params));
    }
    let mut warnings = Vec::new();
    let plan = fit::Plan::new(n, &Options { held_out: fit::HeldOut::Folds(fit::default_folds(n)), ..options.clone() })?;
    let held_out = cross::scores_by_part(train.view(), &Synthetic::default(), &plan.parts, &candidates, options)?;
    let fitted = pipeline::models(train.view(), &candidates, source, options.seed, &mut warnings)?;
    let mut fits: Vec<_> = candidates.iter().map(|(kind, _)| *kind).zip(fitted.into_iter().zip(held_out)).collect();
    if !all_cells.is_empty()
        && let Some((_, (pooled, held_out))) = fits.iter().find(|(kind, _)| *kind == DetectorKind::MixtureResidual)
    {
        let (mut fitted, mut held_out) = (pooled.clone(), held_out.clone());
        let start = Instant::now();
        let of_cells = cells::fit(&train_cells, &Synthetic::default(), &plan)?;
        fitted.model.joined = of_cells.map(|of_cells| cells::join(of_cells, &mut held_out)).transpose()?;
        fitted.fit_ms += start.elapsed().as_secs_f64() * 1e3;
        fits.push((DetectorKind::PooledCells, (fitted, held_out)));
    }
    let mut rows = Vec::new();
    for (kind, (fitted, held_out)) in fits {
        let (model, _) = fit::calibrate(fitted.model, &held_out.normal, &[], n, options, &mut warnings)?;
        let start = Instant::now();
        let judge = |samples: Samples| -> Result<Vec<Verdict>, Error> {
            Ok(fit::scores(&model, samples)?.into_iter().map(|score| model.verdict(score)).collect())
        };
        let normal = Samples { rows: normal.view(), cells: &normal_cells };
        let (inliers, outliers) = (judge(normal)?, judge(pictures.outliers)?);
        let judged = (inliers.len() + outliers.len()).max(1);
        let score_ms = start.elapsed().as_secs_f64() * 1e3 / judged as f64;
        let evaluation = Evaluation { detector: kind.name().to_owned(), ..Evaluation::of(&model, &inliers, &outliers) };
        rows.push(Row {
            seed: options.seed,
            promised: model.threshold,
            false_alarms: evaluation.false_alarms(),
            recall: evaluation.outlier.map_or(0.0, |figures| figures.recall),
            evaluation,
            fit_ms: fitted.fit_ms,
            score_ms,
            model_bytes: file::encode(&model)?.len(),
        });
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
