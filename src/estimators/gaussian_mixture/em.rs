//! Expectation maximisation.

use ndarray::{Array1, Array2, ArrayView2};
use rayon::prelude::*;

use super::covariances::{CovarianceType, Covariances};
use super::params::GaussianMixtureParams;
use crate::estimators::{Error, kmeans, linalg, random};

pub(super) const LOG_TAU: f64 = 1.837_877_066_409_345_3;

/// What the density of a mixture is computed from.
pub(super) struct Density {
    pub weights: Array1<f64>,
    pub means: Array2<f64>,
    pub precisions_cholesky: Covariances,
}

/// The end of one start.
pub(super) struct Fit {
    pub density: Density,
    pub covariances: Covariances,
    pub converged: bool,
    pub n_iter: usize,
    /// Mean log-likelihood before the last step.
    pub lower_bound: f64,
}

/// What every step needs of the samples.
struct Samples<'a> {
    x: ArrayView2<'a, f64>,
    norms: Array1<f64>,
    /// For diagonal covariances.
    squares: Option<Array2<f64>>,
}

/// The start with the largest likelihood, of `params.n_init`.
pub(super) fn fit(x: ArrayView2<f64>, params: &GaussianMixtureParams) -> Result<Fit, Error> {
    let squares = (params.covariance_type == CovarianceType::Diag).then(|| &x * &x);
    let samples = Samples { x, norms: linalg::row_norms_squared(x), squares };
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

/// The given start; what is not given comes from k-means labels.
fn start(samples: &Samples, params: &GaussianMixtureParams, rng: &mut random::Generator) -> Result<Density, Error> {
    let cholesky = params.precisions_init.as_ref().map(Covariances::cholesky).transpose()?;
    let given = (params.weights_init.clone(), params.means_init.clone(), cholesky);
    let (weights, means, cholesky) = match given {
        (Some(weights), Some(means), Some(precisions_cholesky)) => {
            return Ok(Density { weights, means, precisions_cholesky });
        }
        given => given,
    };
    let k = params.n_components;
    let mut resp = Array2::zeros((samples.x.nrows(), k));
    for (i, label) in kmeans::labels(samples.x, k, rng).into_iter().enumerate() {
        resp[[i, label]] = 1.0;
    }
    let (own, _) = maximise(samples, &resp, params)?;
    Ok(Density {
        weights: weights.unwrap_or(own.weights),
        means: means.unwrap_or(own.means),
        precisions_cholesky: cholesky.unwrap_or(own.precisions_cholesky),
    })
}

/// EM until the mean log-likelihood settles.
fn em(samples: &Samples, mut density: Density, params: &GaussianMixtureParams) -> Result<Fit, Error> {
    let (mut lower_bound, mut n_iter) = (f64::NEG_INFINITY, 0);
    loop {
        n_iter += 1;
        let mut resp = weighted_log_prob(samples, &density);
        let log_prob = normalise(&mut resp);
        let (next, covariances) = maximise(samples, &resp, params)?;
        let mean = log_prob.sum() / log_prob.len() as f64;
        let converged = (mean - lower_bound).abs() < params.tol;
        if converged || n_iter >= params.max_iter {
            return Ok(Fit { density: next, covariances, converged, n_iter, lower_bound: mean });
        }
        (density, lower_bound) = (next, mean);
    }
}

/// Turns weighted log probabilities into responsibilities, and returns the log density of every row.
fn normalise(log_prob: &mut Array2<f64>) -> Array1<f64> {
    let norm = linalg::logsumexp_rows(log_prob.view());
    linalg::par_rows_mut(log_prob, |i, row| row.iter_mut().for_each(|v| *v = (*v - norm[i]).exp()));
    norm
}

/// The M-step.
fn maximise(
    samples: &Samples,
    resp: &Array2<f64>,
    params: &GaussianMixtureParams,
) -> Result<(Density, Covariances), Error> {
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
    let precisions_cholesky = covariances.precisions_cholesky()?;
    let weights = &nk / nk.sum().max(n as f64 * f64::EPSILON);
    Ok((Density { weights, means, precisions_cholesky }, covariances))
}

fn divide_rows(x: &mut Array2<f64>, by: &Array1<f64>) {
    x.outer_iter_mut().zip(by).for_each(|(mut row, n)| row /= *n);
}

/// log (weight x density) of every row under every component.
fn weighted_log_prob(samples: &Samples, density: &Density) -> Array2<f64> {
    let (x, Density { weights, means, precisions_cholesky: cholesky }) = (samples.x, density);
    let (n, d) = x.dim();
    let k = weights.len();
    let constant: Array1<f64> =
        (0..k).map(|k| weights[k].ln() - 0.5 * d as f64 * LOG_TAU + cholesky.log_det(k, d)).collect();
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
