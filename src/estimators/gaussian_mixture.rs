//! GaussianMixture: expectation maximisation for mixtures of Gaussians with four shapes of covariance.

use super::{Error, check_array, check_features, check_finite, kmeans, linalg, random};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

const NAME: &str = "GaussianMixture";
const LOG_TAU: f64 = 1.837_877_066_409_345_3;

/// Shape of the covariance of each component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CovarianceType {
    /// One variance per component.
    Spherical,
    /// One variance per component and feature.
    Diag,
    /// One full matrix for all components.
    Tied,
    /// One full matrix per component.
    Full,
}

/// Covariances, precisions or Cholesky factors of precisions, by [`CovarianceType`].
#[derive(Debug, Clone, PartialEq)]
pub enum Covariances {
    /// `n_components`.
    Spherical(Array1<f64>),
    /// `n_components` x `n_features`.
    Diag(Array2<f64>),
    /// `n_features` x `n_features`.
    Tied(Array2<f64>),
    /// `n_components` of `n_features` x `n_features`.
    Full(Vec<Array2<f64>>),
}

/// Parameters of [`GaussianMixture::fit`].
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianMixtureParams {
    pub n_components: usize,
    pub covariance_type: CovarianceType,
    /// EM stops when the mean log-likelihood changes by less.
    pub tol: f64,
    /// Added to every variance.
    pub reg_covar: f64,
    pub max_iter: usize,
    /// Starts; the one with the largest likelihood is kept.
    pub n_init: usize,
    /// Start: `n_components`, summing to 1.
    pub weights_init: Option<Array1<f64>>,
    /// Start: `n_components` x `n_features`.
    pub means_init: Option<Array2<f64>>,
    /// Start: inverse covariances of the covariance type's shape.
    pub precisions_init: Option<Covariances>,
    /// Seed of k-means.
    pub random_state: u64,
}

impl Default for GaussianMixtureParams {
    fn default() -> Self {
        GaussianMixtureParams {
            n_components: 18,
            covariance_type: CovarianceType::Spherical,
            tol: 1e-3,
            reg_covar: 1e-6,
            max_iter: 100,
            n_init: 1,
            weights_init: None,
            means_init: None,
            precisions_init: None,
            random_state: 0,
        }
    }
}

/// A fitted mixture.
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianMixture {
    /// `n_components`.
    pub weights: Array1<f64>,
    /// `n_components` x `n_features`.
    pub means: Array2<f64>,
    pub covariances: Covariances,
    /// Spherical, diag: 1 / standard deviation. Tied, full: upper triangular `U` with precision `U Uᵀ`.
    pub precisions_cholesky: Covariances,
    /// Whether EM reached `tol` within `max_iter`.
    pub converged: bool,
    /// Steps of EM of the kept start.
    pub n_iter: usize,
    /// Mean log-likelihood of the training samples before the last step.
    pub lower_bound: f64,
}

/// Means, weights and covariances while EM runs.
struct State {
    weights: Array1<f64>,
    means: Array2<f64>,
    covariances: Covariances,
    precisions_cholesky: Covariances,
}

/// What every step of EM needs of the samples.
struct Samples<'a> {
    x: ArrayView2<'a, f64>,
    norms: Array1<f64>,
    squares: Option<Array2<f64>>,
}

impl GaussianMixture {
    /// Fits by EM, from k-means labels or from the given start.
    ///
    /// # Errors
    /// [`Error::TooFewSamples`] below two rows or `n_components` rows, [`Error::NotFinite`], [`Error::Parameter`],
    /// [`Error::Length`] for a start of another shape, [`Error::Singular`].
    pub fn fit(x: ArrayView2<f64>, params: &GaussianMixtureParams) -> Result<GaussianMixture, Error> {
        check_array(NAME, &x, params.n_components.max(2))?;
        check_params(x.ncols(), params)?;
        let x = linalg::to_row_major(x);
        let squares = (params.covariance_type == CovarianceType::Diag).then(|| &x * &x);
        let samples = Samples { x: x.view(), norms: linalg::row_norms_squared(x.view()), squares };
        let mut rng = random::seeded(params.random_state);
        let mut best = em(&samples, start(&samples, params, &mut rng)?, params)?;
        for _ in 1..params.n_init {
            let next = em(&samples, start(&samples, params, &mut rng)?, params)?;
            if next.lower_bound > best.lower_bound {
                best = next;
            }
        }
        Ok(best)
    }

    /// A mixture for scoring, from its weights, means and the Cholesky factors of its precisions.
    ///
    /// # Errors
    /// [`Error::Length`] for shapes that do not belong together, [`Error::Singular`] for a factor without inverse.
    pub fn from_precisions_cholesky(
        weights: Array1<f64>,
        means: Array2<f64>,
        precisions_cholesky: Covariances,
    ) -> Result<GaussianMixture, Error> {
        let (k, d) = means.dim();
        let length = |what, expected, got| {
            if got == expected { Ok(()) } else { Err(Error::Length { estimator: NAME, what, expected, got }) }
        };
        let positive = |component: usize, values: ArrayView1<f64>| {
            let good = values.iter().all(|v| *v > 0.0 && v.is_finite());
            if good { Ok(()) } else { Err(Error::Singular { estimator: NAME, component }) }
        };
        let square = |component: usize, factor: &Array2<f64>| {
            length("a covariance", d * d, factor.len())?;
            positive(component, factor.diag())?;
            let inverse = linalg::invert_lower(factor.t());
            Ok(inverse.dot(&inverse.t()))
        };
        length("weights", k, weights.len())?;
        let covariances = match &precisions_cholesky {
            Covariances::Spherical(p) => {
                length("the covariances", k, p.len())?;
                positive(0, p.view())?;
                Covariances::Spherical(p.mapv(|p| 1.0 / (p * p)))
            }
            Covariances::Diag(p) => {
                length("the covariances", k * d, p.len())?;
                p.outer_iter().enumerate().try_for_each(|(k, row)| positive(k, row))?;
                Covariances::Diag(p.mapv(|p| 1.0 / (p * p)))
            }
            Covariances::Tied(p) => Covariances::Tied(square(0, p)?),
            Covariances::Full(p) => {
                length("the covariances", k, p.len())?;
                Covariances::Full(p.iter().enumerate().map(|(k, p)| square(k, p)).collect::<Result<_, Error>>()?)
            }
        };
        let (converged, n_iter, lower_bound) = (true, 0, f64::NAN);
        Ok(GaussianMixture { weights, means, covariances, precisions_cholesky, converged, n_iter, lower_bound })
    }

    /// Width of the samples.
    pub fn n_features(&self) -> usize {
        self.means.ncols()
    }

    /// Log density of every row.
    ///
    /// # Errors
    /// [`Error::Features`] when the width differs.
    pub fn score_samples(&self, x: ArrayView2<f64>) -> Result<Array1<f64>, Error> {
        Ok(linalg::logsumexp_rows(self.weighted_log_prob(x)?.view()))
    }

    /// Log density of one sample. Does not allocate.
    ///
    /// # Errors
    /// [`Error::Features`] when the width differs.
    pub fn score_one(&self, x: ArrayView1<f64>) -> Result<f64, Error> {
        check_features(NAME, self.n_features(), x.len())?;
        let d = x.len();
        let (mut max, mut sum) = (f64::NEG_INFINITY, 0.0);
        for (k, mean) in self.means.outer_iter().enumerate() {
            let distance: f64 = match &self.precisions_cholesky {
                Covariances::Spherical(p) => {
                    x.iter().zip(&mean).map(|(v, m)| (v - m) * (v - m)).sum::<f64>() * p[k] * p[k]
                }
                Covariances::Diag(p) => {
                    x.iter().zip(&mean).zip(p.row(k)).map(|((v, m), p)| ((v - m) * p).powi(2)).sum()
                }
                Covariances::Tied(p) => mahalanobis(x, mean, p),
                Covariances::Full(p) => mahalanobis(x, mean, &p[k]),
            };
            let log_det = log_det(&self.precisions_cholesky, k, d);
            let value = self.weights[k].ln() - 0.5 * (d as f64 * LOG_TAU + distance) + log_det;
            if value > max {
                sum = sum * (max - value).exp() + 1.0;
                max = value;
            } else if value > f64::NEG_INFINITY {
                sum += (value - max).exp();
            }
        }
        Ok(max + sum.ln())
    }

    /// Probability of each component for every row, `n_samples` x `n_components`.
    ///
    /// # Errors
    /// [`Error::Features`] when the width differs.
    pub fn predict_proba(&self, x: ArrayView2<f64>) -> Result<Array2<f64>, Error> {
        let mut log_prob = self.weighted_log_prob(x)?;
        normalise(&mut log_prob);
        Ok(log_prob)
    }

    fn weighted_log_prob(&self, x: ArrayView2<f64>) -> Result<Array2<f64>, Error> {
        check_features(NAME, self.n_features(), x.ncols())?;
        let x = linalg::to_row_major(x);
        let squares = matches!(self.precisions_cholesky, Covariances::Diag(_)).then(|| &x * &x);
        let samples = Samples { x: x.view(), norms: linalg::row_norms_squared(x.view()), squares };
        Ok(weighted_log_prob(&samples, &self.weights, &self.means, &self.precisions_cholesky))
    }
}

fn check_params(d: usize, params: &GaussianMixtureParams) -> Result<(), Error> {
    let parameter =
        |parameter, reason: &str| Err(Error::Parameter { estimator: NAME, parameter, reason: reason.into() });
    let k = params.n_components;
    if k == 0 {
        return parameter("n_components", "must be at least 1");
    }
    if params.n_init == 0 {
        return parameter("n_init", "must be at least 1");
    }
    if params.max_iter == 0 {
        return parameter("max_iter", "must be at least 1");
    }
    if !(params.tol.is_finite() && params.tol >= 0.0) {
        return parameter("tol", "must be finite and not negative");
    }
    if !(params.reg_covar.is_finite() && params.reg_covar >= 0.0) {
        return parameter("reg_covar", "must be finite and not negative");
    }
    let length = |what, expected, got| {
        if expected == got { Ok(()) } else { Err(Error::Length { estimator: NAME, what, expected, got }) }
    };
    if let Some(weights) = &params.weights_init {
        length("weights_init", k, weights.len())?;
        if weights.iter().any(|w| !(0.0..=1.0).contains(w)) || (weights.sum() - 1.0).abs() > 1e-6 {
            return parameter("weights_init", "must be shares that sum to 1");
        }
    }
    if let Some(means) = &params.means_init {
        length("means_init", k, means.nrows())?;
        length("a row of means_init", d, means.ncols())?;
        check_finite(NAME, &means.iter().copied().collect::<Vec<_>>())?;
    }
    match (&params.precisions_init, params.covariance_type) {
        (None, _) => Ok(()),
        (Some(Covariances::Spherical(p)), CovarianceType::Spherical) => length("precisions_init", k, p.len()),
        (Some(Covariances::Diag(p)), CovarianceType::Diag) => {
            length("precisions_init", k, p.nrows())?;
            length("a row of precisions_init", d, p.ncols())
        }
        (Some(Covariances::Tied(p)), CovarianceType::Tied) => {
            length("precisions_init", d, p.nrows())?;
            length("a row of precisions_init", d, p.ncols())
        }
        (Some(Covariances::Full(p)), CovarianceType::Full) => {
            length("precisions_init", k, p.len())?;
            p.iter().try_for_each(|p| {
                length("a matrix of precisions_init", d, p.nrows())?;
                length("a row of precisions_init", d, p.ncols())
            })
        }
        _ => parameter("precisions_init", "must have the shape of covariance_type"),
    }
}

fn start(samples: &Samples, params: &GaussianMixtureParams, rng: &mut random::Generator) -> Result<State, Error> {
    let k = params.n_components;
    let (n, d) = samples.x.dim();
    let given = params.precisions_init.as_ref().map(precisions_cholesky_of_precisions).transpose()?;
    if let (Some(weights), Some(means), Some(cholesky)) = (&params.weights_init, &params.means_init, &given) {
        let covariances = empty_covariances(params.covariance_type, k, d);
        return Ok(State {
            weights: weights.clone(),
            means: means.clone(),
            covariances,
            precisions_cholesky: cholesky.clone(),
        });
    }
    let mut resp = Array2::zeros((n, k));
    for (i, label) in kmeans::labels(samples.x, k, rng).into_iter().enumerate() {
        resp[[i, label]] = 1.0;
    }
    let mut state = maximise(samples, &resp, params)?;
    if let Some(weights) = &params.weights_init {
        state.weights = weights.clone();
    }
    if let Some(means) = &params.means_init {
        state.means = means.clone();
    }
    if let Some(cholesky) = given {
        state.precisions_cholesky = cholesky;
    }
    Ok(state)
}

/// EM from `state` until the mean log-likelihood settles.
fn em(samples: &Samples, mut state: State, params: &GaussianMixtureParams) -> Result<GaussianMixture, Error> {
    let mut lower_bound = f64::NEG_INFINITY;
    let (mut converged, mut n_iter) = (false, 0);
    while n_iter < params.max_iter && !converged {
        n_iter += 1;
        let mut resp = weighted_log_prob(samples, &state.weights, &state.means, &state.precisions_cholesky);
        let log_prob = normalise(&mut resp);
        state = maximise(samples, &resp, params)?;
        let mean = log_prob.sum() / log_prob.len() as f64;
        converged = (mean - lower_bound).abs() < params.tol;
        lower_bound = mean;
    }
    Ok(GaussianMixture {
        weights: state.weights,
        means: state.means,
        covariances: state.covariances,
        precisions_cholesky: state.precisions_cholesky,
        converged,
        n_iter,
        lower_bound,
    })
}

/// Turns weighted log probabilities into responsibilities, and returns the log density of every row.
fn normalise(log_prob: &mut Array2<f64>) -> Array1<f64> {
    let norm = linalg::logsumexp_rows(log_prob.view());
    linalg::par_rows_mut(log_prob, |i, row| row.iter_mut().for_each(|v| *v = (*v - norm[i]).exp()));
    norm
}

/// The M-step.
fn maximise(samples: &Samples, resp: &Array2<f64>, params: &GaussianMixtureParams) -> Result<State, Error> {
    let x = samples.x;
    let (n, d) = x.dim();
    let nk = linalg::column_sums(resp.view()) + 10.0 * f64::EPSILON;
    let mut means = linalg::matmul(resp.t(), x);
    divide_rows(&mut means, &nk);
    let reg = params.reg_covar;
    let covariances = match params.covariance_type {
        CovarianceType::Spherical => {
            let square = resp.t().dot(&samples.norms) / &nk;
            let mean_square = linalg::row_norms_squared(means.view());
            Covariances::Spherical((square - mean_square) / d as f64 + reg)
        }
        CovarianceType::Diag => {
            let squares = samples.squares.as_ref().expect("kept for diagonal covariances");
            let mut variance = linalg::matmul(resp.t(), squares.view());
            divide_rows(&mut variance, &nk);
            Covariances::Diag(variance - &means * &means + reg)
        }
        CovarianceType::Tied => {
            let mut weighted = means.clone();
            weighted.outer_iter_mut().zip(&nk).for_each(|(mut row, n)| row *= n.sqrt());
            let mut covariance = (linalg::gram(x) - linalg::gram(weighted.view())) / nk.sum();
            covariance.diag_mut().mapv_inplace(|v| v + reg);
            Covariances::Tied(covariance)
        }
        CovarianceType::Full => Covariances::Full(
            (0..nk.len())
                .into_par_iter()
                .map(|k| {
                    let mut diff = linalg::centered(x, means.row(k));
                    diff.outer_iter_mut().zip(resp.column(k)).for_each(|(mut row, r)| row *= r.sqrt());
                    let mut covariance = linalg::gram(diff.view()) / nk[k];
                    covariance.diag_mut().mapv_inplace(|v| v + reg);
                    covariance
                })
                .collect(),
        ),
    };
    let precisions_cholesky = precisions_cholesky(&covariances)?;
    Ok(State { weights: &nk / nk.sum().max(n as f64 * f64::EPSILON), means, covariances, precisions_cholesky })
}

fn divide_rows(x: &mut Array2<f64>, by: &Array1<f64>) {
    x.outer_iter_mut().zip(by).for_each(|(mut row, n)| row /= *n);
}

fn precisions_cholesky(covariances: &Covariances) -> Result<Covariances, Error> {
    let root = |component: usize, v: &f64| {
        if *v > 0.0 { Ok(1.0 / v.sqrt()) } else { Err(Error::Singular { estimator: NAME, component }) }
    };
    let inverse_factor = |component: usize, covariance: &Array2<f64>| {
        let lower = linalg::cholesky(covariance.view()).ok_or(Error::Singular { estimator: NAME, component })?;
        Ok(linalg::invert_lower(lower.view()).reversed_axes().as_standard_layout().into_owned())
    };
    Ok(match covariances {
        Covariances::Spherical(c) => {
            Covariances::Spherical(c.iter().enumerate().map(|(k, v)| root(k, v)).collect::<Result<_, _>>()?)
        }
        Covariances::Diag(c) => {
            let mut out = c.clone();
            for (k, mut row) in out.outer_iter_mut().enumerate() {
                for v in row.iter_mut() {
                    *v = root(k, v)?;
                }
            }
            Covariances::Diag(out)
        }
        Covariances::Tied(c) => Covariances::Tied(inverse_factor(0, c)?),
        Covariances::Full(c) => Covariances::Full(
            c.par_iter().enumerate().map(|(k, c)| inverse_factor(k, c)).collect::<Result<Vec<_>, Error>>()?,
        ),
    })
}

/// Cholesky factors of given precisions; upper triangular as [`GaussianMixture::precisions_cholesky`].
fn precisions_cholesky_of_precisions(precisions: &Covariances) -> Result<Covariances, Error> {
    let singular = |component| Error::Singular { estimator: NAME, component };
    // The flipped matrix's lower factor, flipped back, is upper triangular with U Uᵀ = P.
    let upper = |component: usize, p: &Array2<f64>| {
        let flipped = p.slice(ndarray::s![..;-1, ..;-1]);
        let lower = linalg::cholesky(flipped).ok_or(singular(component))?;
        Ok(lower.slice(ndarray::s![..;-1, ..;-1]).as_standard_layout().into_owned())
    };
    let positive = |component: usize, values: ArrayView1<f64>| {
        if values.iter().all(|v| *v > 0.0 && v.is_finite()) { Ok(()) } else { Err(singular(component)) }
    };
    Ok(match precisions {
        Covariances::Spherical(p) => {
            positive(0, p.view())?;
            Covariances::Spherical(p.mapv(f64::sqrt))
        }
        Covariances::Diag(p) => {
            p.axis_iter(Axis(0)).enumerate().try_for_each(|(k, row)| positive(k, row))?;
            Covariances::Diag(p.mapv(f64::sqrt))
        }
        Covariances::Tied(p) => Covariances::Tied(upper(0, p)?),
        Covariances::Full(p) => {
            Covariances::Full(p.iter().enumerate().map(|(k, p)| upper(k, p)).collect::<Result<Vec<_>, Error>>()?)
        }
    })
}

fn empty_covariances(covariance_type: CovarianceType, k: usize, d: usize) -> Covariances {
    match covariance_type {
        CovarianceType::Spherical => Covariances::Spherical(Array1::zeros(k)),
        CovarianceType::Diag => Covariances::Diag(Array2::zeros((k, d))),
        CovarianceType::Tied => Covariances::Tied(Array2::zeros((d, d))),
        CovarianceType::Full => Covariances::Full(vec![Array2::zeros((d, d)); k]),
    }
}

/// log (weight x density) of every row under every component.
fn weighted_log_prob(
    samples: &Samples,
    weights: &Array1<f64>,
    means: &Array2<f64>,
    cholesky: &Covariances,
) -> Array2<f64> {
    let x = samples.x;
    let (n, d) = x.dim();
    let k = weights.len();
    let constant: Array1<f64> =
        (0..k).map(|k| weights[k].ln() - 0.5 * d as f64 * LOG_TAU + log_det(cholesky, k, d)).collect();
    let mut out = match cholesky {
        Covariances::Spherical(p) => {
            let norms = linalg::row_norms_squared(means.view());
            let mut out = linalg::matmul(x, means.t());
            linalg::par_rows_mut(&mut out, |i, row| {
                for (k, v) in row.iter_mut().enumerate() {
                    *v = (samples.norms[i] - 2.0 * *v + norms[k]) * p[k] * p[k];
                }
            });
            out
        }
        Covariances::Diag(p) => {
            let precisions = p * p;
            let scaled = means * &precisions;
            let norms: Array1<f64> = means.outer_iter().zip(scaled.outer_iter()).map(|(m, s)| m.dot(&s)).collect();
            let squares = samples.squares.as_ref().expect("kept for diagonal covariances");
            let mut out = linalg::matmul(x, scaled.t()) * -2.0;
            out += &linalg::matmul(squares.view(), precisions.t());
            out + &norms
        }
        Covariances::Tied(p) => {
            let y = linalg::matmul(x, p.view());
            let centers = linalg::matmul(means.view(), p.view());
            let mut out = Array2::zeros((n, k));
            linalg::par_rows_mut(&mut out, |i, row| {
                for (v, center) in row.iter_mut().zip(centers.outer_iter()) {
                    *v = y.row(i).iter().zip(center).map(|(a, b)| (a - b) * (a - b)).sum();
                }
            });
            out
        }
        Covariances::Full(p) => {
            let columns: Vec<Array1<f64>> = p
                .par_iter()
                .zip(means.outer_iter().collect::<Vec<_>>())
                .map(|(p, mean)| {
                    let y = linalg::matmul(linalg::centered(x, mean).view(), p.view());
                    linalg::row_norms_squared(y.view())
                })
                .collect();
            Array2::from_shape_fn((n, k), |(i, k)| columns[k][i])
        }
    };
    linalg::par_rows_mut(&mut out, |_, row| row.iter_mut().zip(&constant).for_each(|(v, c)| *v = c - 0.5 * *v));
    out
}

/// Half the log determinant of the precision of component `k`.
fn log_det(cholesky: &Covariances, k: usize, d: usize) -> f64 {
    match cholesky {
        Covariances::Spherical(p) => d as f64 * p[k].ln(),
        Covariances::Diag(p) => p.row(k).iter().map(|v| v.ln()).sum(),
        Covariances::Tied(p) => p.diag().iter().map(|v| v.ln()).sum(),
        Covariances::Full(p) => p[k].diag().iter().map(|v| v.ln()).sum(),
    }
}

/// Squared norm of `(x - mean) upper`.
fn mahalanobis(x: ArrayView1<f64>, mean: ArrayView1<f64>, upper: &Array2<f64>) -> f64 {
    (0..x.len()).map(|j| (0..=j).map(|i| (x[i] - mean[i]) * upper[[i, j]]).sum::<f64>().powi(2)).sum()
}
