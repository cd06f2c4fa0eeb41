//! GaussianMixture: expectation maximisation for mixtures of Gaussians with four shapes of covariance.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

use super::{Error, check_array, check_features, check_length, linalg};
use covariances::NAME;
use em::{Density, Fit, LOG_TAU};

mod covariances;
mod em;
mod params;

pub use covariances::{CovarianceType, Covariances};
pub use params::GaussianMixtureParams;

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

impl GaussianMixture {
    /// Fits by EM, from k-means labels or from the given start.
    ///
    /// # Errors
    /// [`Error::TooFewSamples`] below two rows or `n_components` rows, [`Error::NotFinite`], [`Error::Parameter`],
    /// [`Error::Length`] for a start of another shape, [`Error::Singular`].
    pub fn fit(x: ArrayView2<f64>, params: &GaussianMixtureParams) -> Result<GaussianMixture, Error> {
        check_array(NAME, &x, params.n_components.max(2))?;
        params.check(x.ncols())?;
        let Fit { density, covariances, converged, n_iter, lower_bound } =
            em::fit(linalg::to_row_major(x).view(), params)?;
        let Density { weights, means, precisions_cholesky } = density;
        Ok(GaussianMixture { weights, means, covariances, precisions_cholesky, converged, n_iter, lower_bound })
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
        check_length(NAME, "weights", k, weights.len())?;
        let covariances = precisions_cholesky.inverted(k, d)?;
        let (converged, n_iter, lower_bound) = (true, 0, f64::NAN);
        Ok(GaussianMixture { weights, means, covariances, precisions_cholesky, converged, n_iter, lower_bound })
    }

    /// Log density of one sample. Does not allocate.
    ///
    /// # Errors
    /// [`Error::Features`] when the width differs.
    pub fn score_one(&self, x: ArrayView1<f64>) -> Result<f64, Error> {
        let d = self.means.ncols();
        check_features(NAME, d, x.len())?;
        let (mut max, mut sum) = (f64::NEG_INFINITY, 0.0);
        for (k, mean) in self.means.outer_iter().enumerate() {
            let distance = self.precisions_cholesky.mahalanobis(x, mean, k);
            let log_det = self.precisions_cholesky.log_det(k, d);
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
}
