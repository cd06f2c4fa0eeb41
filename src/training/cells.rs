//! Fitting the detector over cells, and joining it with the one over the pooled feature.

use ndarray::Array2;
use rayon::prelude::*;

use super::cross::{HeldOutScores, Synthetic};
use super::plan::{Error, Plan};
use crate::backbone::cells::Cells;
use crate::estimators::cell_gaussians::Sums;
use crate::estimators::level::Level;
use crate::estimators::{self, linalg};
use crate::model::cells::{self, CellDetector, Joined};
use crate::model::projection::QuantizedMatrix;

/// Principal components of a cell.
const N_COMPONENTS: usize = 64;
/// The PCA is fitted on at most this many cells, evenly spaced over all.
const MAX_CELLS: usize = 6000;
/// Least variance of a component, as a share of the greatest.
const LEAST_VARIANCE: f64 = 1e-6;
/// The share of the cells' variance that their place must explain. Photographs of food, animals and streets lie between
/// 0.04 and 0.06; tiles, turned parts and fixed cameras between 0.12 and 0.7.
const LEAST_SHARE_OF_THE_PLACE: f64 = 0.1;

/// A detector over cells, and held-out scores.
#[derive(Debug)]
pub struct Fitted {
    pub detector: CellDetector,
    pub held: HeldOutScores,
}

/// Fits on the cells of `normal` according to `plan`, and scores the held-out pictures and the synthetic outliers. The
/// folds share the principal components. None where places differ from picture to picture.
pub fn fit(normal: &[Cells], synthetic: &Synthetic, plan: &Plan) -> Result<Option<Fitted>, Error> {
    let held_out = plan.parts.concat();
    let is_train = |at: &usize| plan.crossed || held_out.binary_search(at).is_err();
    let train: Vec<usize> = (0..normal.len()).filter(is_train).collect();
    let first = &normal[*train.first().ok_or(Error::Cells)?];
    let alike =
        |cells: &Cells| (cells.height, cells.width, cells.channels) == (first.height, first.width, first.channels);
    if !normal.iter().chain(&synthetic.cells).all(alike) || synthetic.cells.len() != synthetic.part.len() {
        return Err(Error::Cells);
    }
    let (components, centre) = pca(normal, &train)?;
    let project = |cells: &[Cells]| -> Vec<Vec<f32>> {
        cells.par_iter().map(|cells| cells::project(&components, &centre, cells)).collect()
    };
    let (of_normal, of_synthetic) = (project(normal), project(&synthetic.cells));
    let mut sums = Sums::new(first.height * first.width, components.rows);
    train.iter().try_for_each(|&at| sums.add(&of_normal[at]))?;
    let share = sums.share_of_the_place();
    log::debug!("the place explains {share:.3} of the cells' variance");
    if share < LEAST_SHARE_OF_THE_PLACE {
        return Ok(None);
    }
    let gaussians = sums.fit()?;
    let of_part = |(part, held): (usize, &Vec<usize>)| -> Result<_, estimators::Error> {
        let others = if plan.crossed {
            let mut others = sums.clone();
            held.iter().try_for_each(|&at| others.subtract(&of_normal[at]))?;
            &others.fit()?
        } else {
            &gaussians
        };
        let score = |y: &Vec<f32>| Ok(cells::score(&others.distances(y)?));
        let of_held: Vec<_> = held.iter().map(|&at| Ok((at, score(&of_normal[at])?))).collect::<Result<_, _>>()?;
        let own = (0..of_synthetic.len()).filter(|&at| synthetic.part[at] == part);
        let of_synthetic: Vec<_> = own.map(|at| Ok((at, score(&of_synthetic[at])?))).collect::<Result<_, _>>()?;
        Ok((of_held, of_synthetic))
    };
    let by_part: Vec<_> = plan.parts.par_iter().enumerate().map(of_part).collect::<Result<_, _>>()?;
    let (mut of_held, mut of_synthetic): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    for (held, made) in by_part {
        of_held.extend(held);
        of_synthetic.extend(made);
    }
    of_held.sort_by_key(|(at, _)| *at);
    of_synthetic.sort_by_key(|(at, _)| *at);
    let scores = |held: Vec<(usize, f64)>| held.into_iter().map(|(_, score)| score).collect();
    let held = HeldOutScores { normal: scores(of_held), synthetic: scores(of_synthetic) };
    let (height, width) = (first.height, first.width);
    let detector = CellDetector { height, width, components, centre, gaussians };
    Ok(Some(Fitted { detector, held }))
}

/// Whitened components, rounded, and the projection of the mean cell.
fn pca(normal: &[Cells], train: &[usize]) -> Result<(QuantizedMatrix, Vec<f32>), Error> {
    let (per_picture, channels) = (normal[train[0]].iter().count(), normal[train[0]].channels);
    let all = train.len() * per_picture;
    let n = all.min(MAX_CELLS);
    let mut x = Array2::zeros((n, channels));
    for (at, mut row) in x.rows_mut().into_iter().enumerate() {
        let at = at * all / n;
        let cells = &normal[train[at / per_picture]];
        let from = at % per_picture * channels;
        let values = &cells.values[from..from + channels];
        row.iter_mut().zip(values).for_each(|(x, value)| *x = f64::from(*value) * f64::from(cells.scale));
    }
    let mean = linalg::column_means(x.view());
    let covariance = linalg::gram(linalg::centered(x.view(), mean.view()).view()) / (n.max(2) - 1) as f64;
    let (values, vectors) = linalg::eigh_descending(covariance.view())
        .ok_or(estimators::Error::Decomposition { estimator: "PCA of the cells" })?;
    let least = (LEAST_VARIANCE * values[0]).max(f64::MIN_POSITIVE);
    let whitened = |(row, value): (ndarray::ArrayView1<f64>, &f64)| (&row / value.max(least).sqrt()).to_vec();
    let rows: Vec<Vec<f64>> = vectors.rows().into_iter().zip(&values).take(N_COMPONENTS).map(whitened).collect();
    let components = QuantizedMatrix::from_rows(channels, rows.iter().map(Vec::as_slice));
    let centre = components.dequantized().dot(&mean).mapv(|v| v as f32).to_vec();
    Ok((components, centre))
}

/// Puts both detectors on one scale by their held-out scores, which are in the same order, and replaces those of the pooled
/// feature in `held` by joint ones.
pub fn join(fitted: Fitted, held: &mut HeldOutScores) -> Result<Box<Joined>, Error> {
    let joined = Joined {
        of_feature: Level::fit(&held.normal)?,
        of_cells: Level::fit(&fitted.held.normal)?,
        cells: fitted.detector,
    };
    let both = |of_feature: &mut Vec<f64>, of_cells: &[f64]| {
        of_feature.iter_mut().zip(of_cells).for_each(|(score, of_cells)| *score = joined.score(*score, *of_cells));
    };
    both(&mut held.normal, &fitted.held.normal);
    both(&mut held.synthetic, &fitted.held.synthetic);
    Ok(Box::new(joined))
}
