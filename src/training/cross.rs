//! Scores of held-out pictures by fits on the other folds.
//!
//! A fold refits all, the scaler too: a value that is 0 but in one picture has a deviation only because of that picture, which
//! hides how far it lies from the others. With a scaler and a PCA of all pictures, false alarms were several times
//! as many as promised.

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::params::{DetectorKind, Params};
use super::pipeline;
use super::plan::{Error, Options};
use super::samples::feature_scores;
use crate::backbone::cells::Cells;
use crate::model::FeatureSource;

/// Pictures of the folds that are fitted at once: each takes some 40 kB.
const PICTURES_AT_ONCE: usize = 4000;

/// Outliers made of the normal pictures, each to be scored where the picture it is made of is held out.
#[derive(Debug, Clone, Default)]
pub struct Synthetic {
    pub rows: Array2<f32>,
    /// One for each row, or empty.
    pub cells: Vec<Cells>,
    /// The part that each one's picture is in.
    pub part: Vec<usize>,
}

/// Scores by models that were not fitted on the pictures.
#[derive(Debug, Clone, Default)]
pub struct HeldOutScores {
    /// In the order of the pictures.
    pub normal: Vec<f64>,
    /// In the order of [`Synthetic`].
    pub synthetic: Vec<f64>,
}

/// The scores of every row and every synthetic outlier by a model fitted on the other parts, for each candidate.
pub fn scores_by_part(
    normal: ArrayView2<f32>,
    synthetic: &Synthetic,
    parts: &[Vec<usize>],
    candidates: &[(DetectorKind, Params)],
    options: &Options,
) -> Result<Vec<HeldOutScores>, Error> {
    let n = normal.nrows();
    let source = FeatureSource::unknown();
    let empty = HeldOutScores { normal: vec![0.0; n], synthetic: vec![0.0; synthetic.part.len()] };
    let mut all = vec![empty; candidates.len()];
    let of_part = |(part, held): (usize, &Vec<usize>)| -> Result<_, Error> {
        let others: Vec<usize> = (0..n).filter(|at| !held.contains(at)).collect();
        let made: Vec<usize> = (0..synthetic.part.len()).filter(|&at| synthetic.part[at] == part).collect();
        let others = normal.select(Axis(0), &others);
        let fitted = pipeline::models(others.view(), candidates, &source, options.seed, &mut Vec::new())?;
        let (of_held, of_made) = (normal.select(Axis(0), held), synthetic.rows.select(Axis(0), &made));
        let scores = |fitted: &pipeline::Timed| -> Result<_, Error> {
            let scores = |rows: &Array2<f32>| feature_scores(&fitted.model, rows.view());
            Ok(HeldOutScores { normal: scores(&of_held)?, synthetic: scores(&of_made)? })
        };
        Ok((made, fitted.iter().map(scores).collect::<Result<Vec<_>, _>>()?))
    };
    let parts: Vec<_> = parts.iter().enumerate().collect();
    for at_once in parts.chunks((PICTURES_AT_ONCE / n.max(1)).max(1)) {
        let by_part: Vec<_> = at_once.par_iter().map(|part| of_part(*part)).collect::<Result<_, _>>()?;
        for ((_, held), (made, of_candidates)) in at_once.iter().zip(by_part) {
            for (all, of_part) in all.iter_mut().zip(of_candidates) {
                held.iter().zip(of_part.normal).for_each(|(&at, score)| all.normal[at] = score);
                made.iter().zip(of_part.synthetic).for_each(|(&at, score)| all.synthetic[at] = score);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use ndarray::s;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::training::split;

    /// Values of a ReLU, half of which most pictures leave at 0.
    fn sparse(n: usize, seed: u64) -> Array2<f32> {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_fn((n, 120), |(_, c)| match c % 2 {
            0 => 1.0 + random.random::<f32>(),
            _ => (random.random::<f32>() * 20.0 - 19.0).max(0.0),
        })
    }

    /// A scaler of all pictures leaves about 13 of them below the tenth.
    #[test]
    fn held_out_pictures_score_as_new_ones_do() {
        let options = Options::default();
        let candidate = [(DetectorKind::MixtureResidual, Params::of(DetectorKind::MixtureResidual))];
        let parts = split::folds(40, 40, 0, 1);
        let (mut tenth, mut half) = (0, 0);
        for seed in 0..12 {
            let rows = sparse(1040, seed);
            let (known, new) = (rows.slice(s![..40, ..]), rows.slice(s![40.., ..]));
            let held = scores_by_part(known, &Synthetic::default(), &parts, &candidate, &options).unwrap().remove(0);
            let source = FeatureSource::unknown();
            let model = pipeline::models(known, &candidate, &source, 0, &mut Vec::new()).unwrap().remove(0).model;
            let mut of_new = feature_scores(&model, new).unwrap();
            of_new.sort_by(f64::total_cmp);
            let below = |quantile: f64| held.normal.iter().filter(|score| **score < quantile).count();
            tenth += below(of_new[100]);
            half += below(of_new[500]);
        }
        assert!((30..=100).contains(&tenth) && (200..=280).contains(&half), "{tenth} and {half} of 480");
    }

    #[test]
    fn each_row_is_scored_by_a_fit_on_the_other_parts() {
        let rows = sparse(30, 1);
        let made = Synthetic {
            rows: rows.slice(s![..6, ..]).mapv(|v| v + 0.3),
            cells: Vec::new(),
            part: vec![0, 1, 2, 0, 1, 2],
        };
        let parts = split::folds(30, 3, 0, 1);
        let kinds = [DetectorKind::MixtureResidual, DetectorKind::IsolationForest];
        let candidates = kinds.map(|kind| (kind, Params::of(kind)));
        let held = scores_by_part(rows.view(), &made, &parts, &candidates, &Options::default()).unwrap();
        for (part, at) in parts.iter().enumerate() {
            let others: Vec<usize> = (0..30).filter(|row| !at.contains(row)).collect();
            let others = rows.select(Axis(0), &others);
            let source = FeatureSource::unknown();
            let fitted = pipeline::models(others.view(), &candidates, &source, 0, &mut Vec::new()).unwrap();
            for (held, fitted) in held.iter().zip(fitted) {
                let own = feature_scores(&fitted.model, rows.select(Axis(0), at).view()).unwrap();
                assert!(at.iter().zip(own).all(|(&row, own)| held.normal[row] == own));
                let of_part: Vec<usize> = (0..6).filter(|&row| made.part[row] == part).collect();
                let own = feature_scores(&fitted.model, made.rows.select(Axis(0), &of_part).view()).unwrap();
                assert!(of_part.iter().zip(own).all(|(&row, own)| held.synthetic[row] == own));
            }
        }
    }
}
