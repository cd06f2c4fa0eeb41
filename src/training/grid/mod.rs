//! Grid search: a detector's parameters by cross-validation on the training share.
//!
//! Every candidate is fitted on all folds but one and judged by AUROC: the normals of the remaining fold against
//! outliers. These are labelled ones, if there are any, else synthetic ones made from the pictures of that same fold
//! ([`super::synthetic`]). AUROC measures how well a detector ranks normal pictures above outliers, whatever the
//! threshold. Synthetic outliers are local, visible changes; a scene that is wrong as a whole (another place, a missing
//! part) is not among them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::{Array1, Array2, ArrayView2, Axis as Dim};
use rayon::prelude::*;
use serde::Serialize;

use super::compare::mean_and_spread;
use super::fit::{self, Options};
use super::params::{DetectorKind, Group, Params, groups};
use super::pipeline::{self, Projected};
use super::{metrics, split};
use axes::combinations;

mod axes;

pub use axes::{Axis, axes};

/// Folds of the cross-validation.
pub const FOLDS: usize = 5;
/// Synthetic outliers at most.
pub const MAX_SYNTHETIC: usize = 200;
/// Fewer labelled outliers than this are not divided between choosing and calibrating.
pub const MIN_OUTLIERS: usize = 8;
/// The arrays of the folds that are fitted at once take no more bytes than this.
const MAX_BYTES: usize = 1 << 30;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Fit(#[from] fit::Error),
    #[error("no parameters of the grid could be fitted; the first: {0}")]
    NoneWorked(String),
    #[error("interrupted")]
    Interrupted,
}

/// The training share of the normal pictures, in folds.
#[derive(Debug)]
pub struct Folds {
    /// Indices of the normal pictures, fold by fold; the calibration share is in none.
    pub parts: Vec<Vec<usize>>,
}

impl Folds {
    /// The folds of `n` normal pictures, of which `options` hold out the calibration share.
    pub fn new(n: usize, options: &Options) -> Self {
        let share = options.held_out.share_beside_a_search();
        let train = split::random(n, share, options.seed, options.block).train;
        let parts = split::folds(train.len(), FOLDS.min(train.len()), options.seed, options.block);
        Folds { parts: parts.into_iter().map(|part| part.into_iter().map(|i| train[i]).collect()).collect() }
    }

    /// The pictures of the smallest fit of the search.
    pub fn n_fit(&self) -> usize {
        let largest = self.parts.iter().map(Vec::len).max().unwrap_or(0);
        self.parts.iter().map(Vec::len).sum::<usize>() - largest
    }
}

/// The outliers that candidates are judged by.
#[derive(Debug)]
pub enum Outliers {
    /// The same for every fold.
    Labelled(Array2<f32>),
    /// Made from the pictures of each fold.
    Synthetic(Vec<Array2<f32>>),
}

impl Outliers {
    fn of_fold(&self, fold: usize) -> ArrayView2<'_, f32> {
        match self {
            Outliers::Labelled(rows) => rows.view(),
            Outliers::Synthetic(folds) => folds[fold].view(),
        }
    }

    pub fn criterion(&self) -> &'static str {
        match self {
            Outliers::Labelled(_) => "auroc-labelled-outliers",
            Outliers::Synthetic(_) => "auroc-synthetic-outliers",
        }
    }

    pub fn count(&self) -> usize {
        match self {
            Outliers::Labelled(rows) => rows.nrows(),
            Outliers::Synthetic(folds) => folds.iter().map(|rows| rows.nrows()).sum(),
        }
    }
}

/// One candidate and its figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub parameters: BTreeMap<&'static str, &'static str>,
    /// Mean over the folds; None if a fold could not be fitted.
    pub mean: Option<f64>,
    /// Standard deviation over the folds.
    pub spread: Option<f64>,
    pub folds: Vec<f64>,
    pub default: bool,
    pub chosen: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// All candidates, the best first, and the parameters to fit with.
#[derive(Debug, Clone, Serialize)]
pub struct Search {
    pub detector: &'static str,
    pub criterion: &'static str,
    pub n_folds: usize,
    pub n_fits: usize,
    pub n_normal: usize,
    pub n_outliers: usize,
    pub rows: Vec<Row>,
    #[serde(skip)]
    pub params: Params,
}

/// What to search.
#[derive(Debug)]
pub struct Problem<'a> {
    /// All normal pictures; those that are in no fold are not looked at.
    pub normal: ArrayView2<'a, f32>,
    pub folds: &'a Folds,
    pub outliers: &'a Outliers,
    pub axes: &'a [Axis],
    /// Detector, seed, and the parameters that the grid does not touch.
    pub options: &'a Options,
}

impl Problem<'_> {
    pub fn n_candidates(&self) -> usize {
        self.axes.iter().map(|axis| axis.values.len()).product()
    }

    pub fn n_fits(&self) -> usize {
        self.n_candidates() * self.folds.parts.len()
    }

    /// Fits and judges every candidate on every fold; `done` is called after each fit, from several threads.
    ///
    /// The best mean is chosen, unless its difference from the default's is within one standard error of the differences
    /// fold by fold: then the default is kept.
    ///
    /// # Errors
    /// [`Error::Fit`] for an invalid parameter, [`Error::NoneWorked`], [`Error::Interrupted`].
    pub fn search(&self, stop: &AtomicBool, done: &(dyn Fn() + Sync)) -> Result<Search, Error> {
        let candidates = combinations(self.axes);
        let params = candidates.iter().map(|values| self.params(values)).collect::<Result<Vec<_>, _>>()?;
        let groups = groups(&params);
        let tasks: Vec<(&Group, usize)> =
            groups.iter().flat_map(|group| (0..self.folds.parts.len()).map(move |fold| (group, fold))).collect();
        let bytes = (self.folds.n_fit() * self.normal.ncols() * size_of::<f64>() * 4).max(1);
        let at_once = (MAX_BYTES / bytes).clamp(1, rayon::current_num_threads());
        let mut results = vec![vec![Err(String::new()); self.folds.parts.len()]; candidates.len()];
        for tasks in tasks.chunks(at_once) {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            let own: Vec<Vec<Result<f64, String>>> =
                tasks.par_iter().map(|(group, fold)| self.judge_group(group, &params, *fold, done)).collect();
            for ((group, fold), own) in tasks.iter().zip(own) {
                for (member, result) in group.members.iter().zip(own) {
                    results[*member][*fold] = result;
                }
            }
        }
        self.rank(&candidates, &params, results)
    }

    fn params(&self, values: &[&'static str]) -> Result<Params, Error> {
        let mut params = self.options.params.clone();
        for (axis, value) in self.axes.iter().zip(values) {
            params.set(&format!("{}={value}", axis.name)).map_err(fit::Error::Parameter)?;
        }
        Ok(params.seeded(self.options.seed))
    }

    /// AUROC of every member of the group on one fold.
    fn judge_group(
        &self,
        group: &Group,
        params: &[Params],
        fold: usize,
        done: &(dyn Fn() + Sync),
    ) -> Vec<Result<f64, String>> {
        let rest: Vec<usize> =
            self.folds.parts.iter().enumerate().filter(|(f, _)| *f != fold).flat_map(|(_, p)| p).copied().collect();
        let projected = || -> Result<(Projected, [Points; 2]), fit::Error> {
            let train = self.normal.select(Dim(0), &rest);
            let projected = pipeline::project(train.view(), &group.params, &mut Vec::new())?;
            let held_out = projected.apply(self.normal.select(Dim(0), &self.folds.parts[fold]).view())?;
            let outliers = projected.apply(self.outliers.of_fold(fold))?;
            Ok((projected, [held_out, outliers]))
        };
        let shared = projected().map_err(|e| e.to_string());
        let one = |member: &usize| {
            let (projected, points) = shared.as_ref().map_err(Clone::clone)?;
            let result = judge(self.options.detector, &params[*member], projected, points);
            done();
            result
        };
        group.members.par_iter().map(one).collect()
    }

    /// Sorts the candidates and chooses one.
    fn rank(
        &self,
        candidates: &[Vec<&'static str>],
        params: &[Params],
        results: Vec<Vec<Result<f64, String>>>,
    ) -> Result<Search, Error> {
        let mut rows: Vec<(usize, Row)> = Vec::new();
        for (at, (values, results)) in candidates.iter().zip(results).enumerate() {
            let error = results.iter().find_map(|r| r.as_ref().err().cloned());
            let folds: Vec<f64> = results.into_iter().flatten().collect();
            let (mean, spread) = mean_and_spread(&folds);
            let good = error.is_none();
            rows.push((
                at,
                Row {
                    parameters: self.axes.iter().zip(values).map(|(axis, value)| (axis.name, *value)).collect(),
                    mean: good.then_some(mean),
                    spread: good.then_some(spread),
                    folds,
                    default: self.axes.iter().zip(values).all(|(axis, value)| axis.default == *value),
                    chosen: false,
                    error,
                },
            ));
        }
        let key = |row: &Row| row.mean.unwrap_or(f64::NEG_INFINITY);
        rows.sort_by(|(_, a), (_, b)| key(b).total_cmp(&key(a)).then(b.default.cmp(&a.default)));
        let mut chosen = 0;
        if let Some(reason) = &rows[0].1.error {
            return Err(Error::NoneWorked(reason.clone()));
        }
        if let Some(default) = rows.iter().position(|(_, row)| row.default && row.error.is_none())
            && !beats(&rows[0].1.folds, &rows[default].1.folds)
        {
            chosen = default;
        }
        rows[chosen].1.chosen = true;
        Ok(Search {
            detector: self.options.detector.name(),
            criterion: self.outliers.criterion(),
            n_folds: self.folds.parts.len(),
            n_fits: self.n_fits(),
            n_normal: self.folds.parts.iter().map(Vec::len).sum(),
            n_outliers: self.outliers.count(),
            params: params[rows[chosen].0].clone(),
            rows: rows.into_iter().map(|(_, row)| row).collect(),
        })
    }
}

/// Whether `a` is above `b` by more than the standard error of the differences.
fn beats(a: &[f64], b: &[f64]) -> bool {
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let (mean, spread) = mean_and_spread(&differences);
    mean > spread / (differences.len() as f64).sqrt()
}

/// Components and squared residuals.
type Points = (Array2<f64>, Array1<f64>);

/// AUROC of one candidate: held-out normals against outliers.
fn judge(
    kind: DetectorKind,
    params: &Params,
    projected: &Projected,
    [inliers, outliers]: &[Points; 2],
) -> Result<f64, String> {
    let detector = pipeline::detector(kind, params, projected, &mut Vec::new()).map_err(|e| e.to_string())?;
    let scores = |(y, residual): &Points| -> Vec<f64> {
        y.rows().into_iter().zip(residual).map(|(y, residual)| detector.score(&y.to_vec(), *residual)).collect()
    };
    let (inliers, outliers) = (scores(inliers), scores(outliers));
    if inliers.iter().chain(&outliers).any(|score| !score.is_finite()) {
        return Err("scores are not finite".into());
    }
    metrics::auroc(&inliers, &outliers).ok_or_else(|| "there are no outliers to judge by".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Uniform noise around centres taken in turn; `half` is the half width of each coordinate, by centre.
    fn around(centres: &[[f32; 2]], half: &[[f32; 2]], n: usize, seed: u64) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_fn((n, 2), |(row, c)| {
            let k = row % centres.len();
            centres[k][c] + half[k][c] * rng.random_range(-1.0..1.0_f32)
        })
    }

    fn options(detector: DetectorKind, set: &[&str]) -> Options {
        let mut options = Options::with_detector(detector);
        for assignment in ["transform=identity", "pca.n_components=2", "gaussian_mixture.n_init=5"].iter().chain(set) {
            options.params.set(assignment).unwrap();
        }
        options
    }

    fn axis(name: &'static str, values: &[&'static str], default: &'static str) -> Axis {
        Axis { name, values: values.to_vec(), default }
    }

    fn search(normal: &Array2<f32>, outliers: Array2<f32>, axes: &[Axis], options: &Options) -> Result<Search, Error> {
        let folds = Folds::new(normal.nrows(), options);
        let outliers = Outliers::Labelled(outliers);
        let problem = Problem { normal: normal.view(), folds: &folds, outliers: &outliers, axes, options };
        let fits = std::sync::atomic::AtomicUsize::new(0);
        let found = problem.search(&AtomicBool::new(false), &|| {
            fits.fetch_add(1, Ordering::Relaxed);
        });
        if found.is_ok() {
            assert_eq!(fits.into_inner(), problem.n_fits());
        }
        found
    }

    fn chosen<'a>(search: &'a Search, name: &str) -> &'a str {
        search.rows.iter().find(|row| row.chosen).unwrap().parameters[name]
    }

    const CORNERS: [[f32; 2]; 4] = [[5.0, 5.0], [-5.0, 5.0], [5.0, -5.0], [-5.0, -5.0]];

    #[test]
    fn clusters_with_outliers_between_want_a_component_each() {
        let normal = around(&CORNERS, &[[1.0; 2]; 4], 200, 1);
        let between = around(&[[0.0; 2]], &[[1.0; 2]], 40, 2);
        let options = options(DetectorKind::GaussianMixture, &[]);
        let axes = [axis("gaussian_mixture.n_components", &["1", "4"], "1")];
        let found = search(&normal, between, &axes, &options).unwrap();
        assert_eq!(chosen(&found, "gaussian_mixture.n_components"), "4");
        assert_eq!(found.params.gaussian_mixture.n_components, 4);
        assert!(found.rows[0].mean.unwrap() > 0.99 && found.rows[1].mean.unwrap() < 0.1, "{:?}", found.rows);
        assert_eq!((found.n_normal, found.n_fits, found.rows[0].folds.len()), (160, 10, 5));
    }

    #[test]
    fn clusters_stretched_across_each_other_want_diag() {
        // Turned by 45 degrees, so that scaling leaves the axes alone and PCA finds them.
        let turned = |v: Array2<f32>| v.dot(&ndarray::arr2(&[[1.0, 1.0], [1.0, -1.0]]));
        let normal = turned(around(&[[-6.0, 0.0], [6.0, 0.0]], &[[2.0, 0.2], [0.2, 2.0]], 240, 3));
        let outliers = turned(around(&[[7.0, 0.0], [5.0, 0.0]], &[[0.1; 2]; 2], 40, 4));
        let options = options(DetectorKind::GaussianMixture, &["gaussian_mixture.n_components=2"]);
        let axes = [axis("gaussian_mixture.covariance_type", &["spherical", "diag"], "spherical")];
        let found = search(&normal, outliers, &axes, &options).unwrap();
        assert_eq!(chosen(&found, "gaussian_mixture.covariance_type"), "diag");
        assert!(found.rows[0].mean.unwrap() > 0.95, "{:?}", found.rows);
    }

    #[test]
    fn the_default_stays_where_nothing_is_better() {
        let normal = around(&CORNERS, &[[1.0; 2]; 4], 120, 1);
        let far = around(&[[60.0, 60.0]], &[[1.0; 2]], 20, 2);
        let options = options(DetectorKind::GaussianMixture, &[]);
        let axes = [axis("gaussian_mixture.n_components", &["4", "6", "8"], "6")];
        let found = search(&normal, far, &axes, &options).unwrap();
        assert_eq!(chosen(&found, "gaussian_mixture.n_components"), "6");
        assert!(found.rows.iter().all(|row| row.mean == Some(1.0) && row.default == row.chosen));
        assert!(beats(&[0.9, 0.91, 0.92], &[0.8, 0.82, 0.81]) && !beats(&[0.9, 0.8, 0.9], &[0.8, 0.9, 0.89]));
    }

    #[test]
    fn a_seed_gives_the_same_search_and_the_calibration_share_is_not_looked_at() {
        let mut normal = around(&CORNERS, &[[1.0; 2]; 4], 100, 1);
        let between = around(&[[0.0, 3.0]], &[[2.0; 2]], 30, 2);
        let options = Options { seed: 9, ..options(DetectorKind::GaussianMixture, &[]) };
        let axes =
            [axis("pca.n_components", &["1", "2"], "2"), axis("gaussian_mixture.n_components", &["1", "2", "4"], "4")];
        let first = search(&normal, between.clone(), &axes, &options).unwrap().rows;
        for held_out in split::random(100, 0.2, 9, 1).held_out {
            normal.row_mut(held_out).fill(f32::NAN);
        }
        assert_eq!(search(&normal, between, &axes, &options).unwrap().rows, first);
    }

    #[test]
    fn what_cannot_be_fitted_is_last_and_says_why() {
        let normal = around(&CORNERS, &[[1.0; 2]; 4], 60, 1);
        let far = around(&[[60.0, 60.0]], &[[1.0; 2]], 20, 2);
        let options = options(DetectorKind::OneClassSvm, &[]);
        let found = search(&normal, far.clone(), &[axis("one_class_svm.nu", &["0.1", "2"], "2")], &options).unwrap();
        assert_eq!(chosen(&found, "one_class_svm.nu"), "0.1");
        assert!(found.rows[1].mean.is_none() && found.rows[1].error.as_ref().unwrap().contains("nu"));
        let none = search(&normal, far, &[axis("one_class_svm.nu", &["2", "3"], "2")], &options).unwrap_err();
        assert!(none.to_string().contains("nu"), "{none}");
    }

    #[test]
    fn interrupted_searches_end() {
        let normal = around(&CORNERS, &[[1.0; 2]; 4], 60, 1);
        let options = options(DetectorKind::PcaResidual, &[]);
        let (folds, outliers) = (Folds::new(60, &options), Outliers::Labelled(normal.clone()));
        let axes = [axis("pca.n_components", &["2"], "2")];
        let problem =
            Problem { normal: normal.view(), folds: &folds, outliers: &outliers, axes: &axes, options: &options };
        assert!(matches!(problem.search(&AtomicBool::new(true), &|| ()), Err(Error::Interrupted)));
    }
}
