//! `fit --grid`: chooses a detector's parameters before the fit.

use std::sync::atomic::AtomicBool;

use ndarray::Axis;

use super::common;
use super::error::Error;
use crate::backbone::Backbone;
use crate::training::cross::Synthetic;
use crate::training::features::{Cache, Features};
use crate::training::fit::Options;
use crate::training::grid::{self, Folds, MAX_SYNTHETIC, MIN_OUTLIERS, Outliers, Problem, Row, Search};
use crate::training::{split, synthetic};

/// Rows of the table; `--json` has all.
const MAX_ROWS: usize = 20;

/// The pictures and where their features are kept.
pub struct Inputs<'a> {
    pub backbone: &'a Backbone,
    pub cache: &'a mut Cache,
    pub normal: &'a Features,
    pub outliers: Option<&'a Features>,
    pub stop: &'a AtomicBool,
}

/// Searches the grid of `options.detector`; `set` are the parameters that the user fixed. Also returns which labelled
/// outliers remain for calibration and evaluation, if some of them were used to choose.
pub fn choose(inputs: Inputs, options: &Options, set: &[String]) -> Result<(Search, Option<Vec<usize>>), Error> {
    let n = inputs.normal.rows.nrows();
    let folds = Folds::new(n, options);
    let labelled = inputs.outliers.map(|o| &o.rows);
    let halves = labelled.map_or_else(Vec::new, |rows| split::folds(rows.nrows(), 2, options.seed, 1));
    let (outliers, left) = match (labelled, halves.as_slice()) {
        (Some(rows), [choose, calibrate]) if rows.nrows() >= MIN_OUTLIERS => {
            (Outliers::Labelled(rows.select(Axis(0), choose)), Some(calibrate.clone()))
        }
        (few, _) => {
            if let Some(few) = few {
                log::warn!(
                    "{} are too few to choose by and to calibrate with: synthetic ones choose, these calibrate; \
                     {MIN_OUTLIERS} would be enough for both",
                    common::count(few.nrows(), "labelled outlier")
                );
            }
            let made = make_outliers(inputs.backbone, inputs.normal, &folds, inputs.cache, inputs.stop, options.seed)?;
            (made, None)
        }
    };
    let axes = grid::axes(options.detector, set, folds.n_fit(), inputs.normal.rows.ncols());
    let problem =
        Problem { normal: inputs.normal.rows.view(), folds: &folds, outliers: &outliers, axes: &axes, options };
    log::info!(
        "grid: {} of {}, {} folds: {} fits",
        common::count(problem.n_candidates(), "candidate"),
        options.detector.name(),
        folds.parts.len(),
        problem.n_fits()
    );
    let bar = common::progress("grid fits", problem.n_fits());
    let search = problem.search(inputs.stop, &|| bar.inc(1));
    bar.finish_and_clear();
    Ok((search?, left))
}

fn make_outliers(
    backbone: &Backbone,
    normal: &Features,
    folds: &Folds,
    cache: &mut Cache,
    stop: &AtomicBool,
    seed: u64,
) -> Result<Outliers, Error> {
    let jobs = synthetic::plan(&folds.parts, MAX_SYNTHETIC);
    let Synthetic { rows, .. } = common::make_outliers(backbone, normal, &jobs, seed, cache, stop)?;
    let of_fold = |fold: usize| -> Vec<usize> { (0..jobs.len()).filter(|&job| jobs[job].fold == fold).collect() };
    Ok(Outliers::Synthetic((0..folds.parts.len()).map(|fold| rows.select(Axis(0), &of_fold(fold))).collect()))
}

/// The table: best first, the chosen row marked.
pub fn table(search: &Search) -> Result<(), Error> {
    let outliers = if search.criterion == "auroc-labelled-outliers" { "labelled" } else { "synthetic" };
    common::print(format!(
        "grid search of {}: {} fits on {} folds of {} pictures; AUROC of held-out pictures against {} {outliers} outliers",
        search.detector, search.n_fits, search.n_folds, search.n_normal, search.n_outliers
    ))?;
    let names: Vec<&str> = search.rows.first().map(|row| row.parameters.keys().copied().collect()).unwrap_or_default();
    let head: String = names.iter().map(|name| format!("  {name}")).collect();
    common::print(format!("  {:<16}{head}", "AUROC"))?;
    let mut left_out = 0;
    for (at, row) in search.rows.iter().enumerate() {
        if at >= MAX_ROWS && !row.chosen && !row.default {
            left_out += 1;
            continue;
        }
        let cells: String =
            names.iter().map(|name| format!("  {:<width$}", row.parameters[name], width = name.len())).collect();
        let mark = if row.chosen { '>' } else { ' ' };
        let note = if row.default { "  default" } else { "" };
        common::print(format!("{mark} {:<16}{cells}{note}", figure(row)).trim_end())?;
    }
    if left_out > 0 {
        common::print(format!("  {left_out} more are not shown; --json has all"))?;
    }
    if search.rows.iter().any(|row| row.chosen && row.default) && !search.rows[0].chosen {
        common::print("the default stays: nothing is above it by more than the error of the comparison")?;
    }
    Ok(())
}

fn figure(row: &Row) -> String {
    match (row.mean, row.spread) {
        (Some(mean), Some(spread)) => format!("{mean:.4} ±{spread:.4}"),
        _ => "not fitted".into(),
    }
}
