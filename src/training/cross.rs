//! Scores of held-out pictures by fits on the other folds, for many folds at little cost.
//!
//! The folds share the scaler and a PCA of all pictures that keeps slightly more components than any fold does:
//! [`Reduced`]. The PCA of a fold is computed from projections, of hundreds of dimensions instead of thousands; what lies
//! outside of them is part of the residual in any case. Components are not rounded as in the model file.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::params::{self, DetectorKind, Group, Params};
use super::pipeline::{self, Projection};
use super::plan::{Error, Options};
use super::samples::feature_scores;
use crate::backbone::cells::Cells;
use crate::estimators::linalg;
use crate::estimators::pca::{COVARIANCE_LIMIT, NComponents, Pca, PcaParams, components_for};
use crate::estimators::standard_scaler::StandardScaler;
use crate::model::FeatureSource;

/// The share of a fold's residual variance that the common projection keeps.
const KEPT_OF_THE_REST: f64 = 0.9;

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
    let groups = params::groups(candidates.iter().map(|(_, params)| params));
    let reduced = |group: &Group| Reduced::new(normal, &synthetic.rows, &group.params);
    let reduced: Vec<Reduced> = groups.iter().map(reduced).collect::<Result<_, _>>()?;
    let of_part = |(part, held): (usize, &Vec<usize>)| -> Result<(Vec<usize>, Vec<Vec<f64>>), Error> {
        let held_synthetic: Vec<usize> = (0..synthetic.part.len()).filter(|&at| synthetic.part[at] == part).collect();
        let train: Vec<usize> = (0..n).filter(|at| !held.contains(at)).collect();
        let all_held: Vec<usize> = held.iter().copied().chain(held_synthetic.iter().map(|at| n + at)).collect();
        let mut of_candidate = vec![Vec::new(); candidates.len()];
        for (Group { params, members }, reduced) in groups.iter().zip(&reduced) {
            let own: Vec<_> = members.iter().map(|&at| candidates[at].clone()).collect();
            let of_members: Vec<Vec<f64>> = match reduced.fold(&train, &all_held, params)? {
                Some(fold) => own
                    .into_iter()
                    .map(|(kind, params)| fold.scores(kind, &params.seeded(options.seed)))
                    .collect::<Result<_, _>>()?,
                None => {
                    let train = normal.select(Axis(0), &train);
                    let (held, held_synthetic) =
                        (normal.select(Axis(0), held), synthetic.rows.select(Axis(0), &held_synthetic));
                    let source = FeatureSource::unknown();
                    let models = pipeline::models(train.view(), &own, &source, options.seed, &mut Vec::new())?;
                    let both = |model| {
                        Ok([feature_scores(model, held.view())?, feature_scores(model, held_synthetic.view())?]
                            .concat())
                    };
                    models.iter().map(|fitted| both(&fitted.model)).collect::<Result<_, Error>>()?
                }
            };
            members.iter().zip(of_members).for_each(|(&at, scores)| of_candidate[at] = scores);
        }
        Ok((all_held, of_candidate))
    };
    let by_part: Vec<_> = parts.par_iter().enumerate().map(of_part).collect::<Result<_, Error>>()?;
    let empty = HeldOutScores { normal: vec![0.0; n], synthetic: vec![0.0; synthetic.part.len()] };
    let mut all = vec![empty; candidates.len()];
    for (held, of_candidate) in by_part {
        for (all, scores) in all.iter_mut().zip(of_candidate) {
            for (&at, score) in held.iter().zip(scores) {
                *(if at < n { &mut all.normal[at] } else { &mut all.synthetic[at - n] }) = score;
            }
        }
    }
    Ok(all)
}

/// All rows, the normal ones first, projected on the principal axes of the normal ones.
struct Reduced {
    n_features: usize,
    coordinates: Array2<f64>,
    /// Squared norms of the residuals.
    rest: Array1<f64>,
}

/// The projections of one fold.
struct Fold {
    y: Array2<f64>,
    residual: Array1<f64>,
    held_y: Array2<f64>,
    held_residual: Array1<f64>,
    dof: usize,
    log_volume: f64,
}

impl Reduced {
    fn new(normal: ArrayView2<f32>, synthetic: &Array2<f32>, params: &Params) -> Result<Reduced, Error> {
        let x = params.transform.of(normal);
        let scaler = StandardScaler::fit(x.view())?;
        let z = scaler.transform(x.view())?;
        let most = (z.nrows() - 1).min(z.ncols());
        let n_components = match params.pca.n_components {
            NComponents::Count(count) => NComponents::Count((count + count / 10 + 16).min(most)),
            NComponents::Variance(share) => NComponents::Variance(share + KEPT_OF_THE_REST * (1.0 - share)),
        };
        let pca = Pca::fit(z.view(), &PcaParams { n_components, whiten: false, ..params.pca.clone() })?;
        let (mut coordinates, mut rest) = pca.transform_with_residual(z.view())?;
        if synthetic.nrows() > 0 {
            let synthetic = scaler.transform(params.transform.of(synthetic.view()).view())?;
            let (own, own_rest) = pca.transform_with_residual(synthetic.view())?;
            let failed = |e: ndarray::ShapeError| Error::Parameter(e.to_string());
            coordinates = ndarray::concatenate(Axis(0), &[coordinates.view(), own.view()]).map_err(failed)?;
            rest = ndarray::concatenate(Axis(0), &[rest.view(), own_rest.view()]).map_err(failed)?;
        }
        Ok(Reduced { n_features: z.ncols(), coordinates, rest })
    }

    /// The PCA of the `train` rows and the projections of the `held` ones. None where the covariance lacks the precision for
    /// the smallest component.
    fn fold(&self, train: &[usize], held: &[usize], params: &Params) -> Result<Option<Fold>, Error> {
        let count = train.len() as f64;
        let of = |rows: &[usize]| (self.coordinates.select(Axis(0), rows), self.rest.select(Axis(0), rows));
        let ((x, rest), (held_x, held_rest)) = (of(train), of(held));
        let mean = x.sum_axis(Axis(0)) / count;
        let (x, held_x) = (x - &mean, held_x - &mean);
        let covariance = linalg::gram(x.view()) / (count - 1.0);
        let (values, vectors) = linalg::eigh_descending(covariance.view())
            .ok_or(crate::estimators::Error::Decomposition { estimator: "PCA" })?;
        let values = values.mapv(|v| v.max(0.0));
        let most = (train.len() - 1).min(values.len());
        let kept = match params.pca.n_components {
            NComponents::Count(count) => count.min(most),
            NComponents::Variance(share) => {
                let outside = rest.sum() / (count - 1.0);
                components_for(&values, share, values.sum() + outside).min(most)
            }
        };
        if kept == 0 || values[kept - 1] <= COVARIANCE_LIMIT * values[0] {
            return Ok(None);
        }
        let axes = vectors.slice(s![..kept, ..]);
        let project = |x: &Array2<f64>, rest: &Array1<f64>| {
            let y = linalg::matmul(x.view(), axes.t());
            let left = linalg::row_norms_squared(x.view()) - linalg::row_norms_squared(y.view());
            (y, (left + rest).mapv(|r| r.max(0.0)))
        };
        let ((mut y, residual), (mut held_y, held_residual)) = (project(&x, &rest), project(&held_x, &held_rest));
        let mut log_volume = 0.0;
        if params.pca.whiten {
            let deviations = values.slice(s![..kept]).mapv(f64::sqrt);
            y /= &deviations;
            held_y /= &deviations;
            log_volume = deviations.iter().map(|v| v.ln()).sum();
        }
        Ok(Some(Fold { y, residual, held_y, held_residual, dof: self.n_features - kept, log_volume }))
    }
}

impl Fold {
    /// The scores of the held rows by a detector fitted on the others.
    fn scores(&self, kind: DetectorKind, params: &Params) -> Result<Vec<f64>, Error> {
        let (y, residual) = (self.y.view(), self.residual.view());
        let projection = Projection { y, residual, dof: self.dof, log_volume: self.log_volume };
        let detector = pipeline::detector(kind, params, &projection, &mut Vec::new())?;
        let score = |(y, residual): (ArrayView1<f64>, &f64)| detector.score(&y.to_vec(), *residual);
        let scores: Vec<f64> = self.held_y.rows().into_iter().zip(&self.held_residual).map(score).collect();
        match scores.iter().all(|score| score.is_finite()) {
            true => Ok(scores),
            false => Err(crate::model::Error::NotFinite.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::split;

    /// The scores are those of fits on each fold's own features, up to the scaler.
    #[test]
    fn shared_folds_score_as_single_fits_do() {
        let rows = Array2::from_shape_fn((90, 40), |(r, c)| {
            let wave = |k: usize| ((r * (7 * k + 3) + c * c * (k + 1)) as f32 * 0.37).sin();
            3.0 + (1..5).map(|k| wave(k) / k as f32).sum::<f32>()
        });
        let synthetic = Synthetic {
            rows: rows.slice(s![..6, ..]).mapv(|v| v + 0.3),
            cells: Vec::new(),
            part: vec![0, 1, 2, 0, 1, 2],
        };
        let parts = split::folds(90, 30, 0, 1);
        let options = Options::default();
        for kind in [DetectorKind::MixtureResidual, DetectorKind::PcaResidual, DetectorKind::OneClassSvm] {
            let mut params = Params::of(kind);
            params.set("pca.n_components=4").unwrap();
            params.set("gaussian_mixture.n_components=1").unwrap();
            let candidate = [(kind, params.clone())];
            let held = scores_by_part(rows.view(), &synthetic, &parts, &candidate, &options).unwrap().remove(0);
            let mut all = Vec::new();
            for (part, at) in parts.iter().enumerate() {
                let train: Vec<usize> = (0..90).filter(|row| !at.contains(row)).collect();
                let source = FeatureSource::unknown();
                let train = rows.select(Axis(0), &train);
                let model = pipeline::models(train.view(), &candidate, &source, 0, &mut Vec::new()).unwrap().remove(0);
                let mut pairs: Vec<(f64, f64)> = Vec::new();
                let own = feature_scores(&model.model, rows.select(Axis(0), at).view()).unwrap();
                pairs.extend(at.iter().map(|&row| held.normal[row]).zip(own));
                let own_synthetic: Vec<usize> = (0..6).filter(|&row| synthetic.part[row] == part).collect();
                let own = feature_scores(&model.model, synthetic.rows.select(Axis(0), &own_synthetic).view()).unwrap();
                pairs.extend(own_synthetic.iter().map(|&row| held.synthetic[row]).zip(own));
                all.extend(pairs);
            }
            let mean = |of: fn(&(f64, f64)) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
            let (off, size) = (mean(|(shared, own)| (shared - own).abs()), mean(|(_, own)| own.abs()));
            assert!(all.len() == 96 && off < 0.1 * size, "{kind:?}: {off} off, of {size}");
        }
    }
}
