//! The parameters of a mixture's fit.

use ndarray::{Array1, Array2};

use super::covariances::{CovarianceType, Covariances, NAME};
use crate::estimators::{Error, check_finite, check_length};

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

impl GaussianMixtureParams {
    /// Refuses parameters without meaning for samples of `d` features.
    pub(super) fn check(&self, d: usize) -> Result<(), Error> {
        let refuse = |parameter, reason: &str| Err(Error::parameter(NAME, parameter, reason));
        let k = self.n_components;
        for (name, value) in [("n_components", k), ("n_init", self.n_init), ("max_iter", self.max_iter)] {
            if value == 0 {
                return refuse(name, "must be at least 1");
            }
        }
        for (name, value) in [("tol", self.tol), ("reg_covar", self.reg_covar)] {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(name, "must be finite and not negative");
            }
        }
        let matrix = |what, (rows, columns): (usize, usize), value: &Array2<f64>| {
            check_length(NAME, what, rows, value.nrows())?;
            check_length(NAME, what, columns, value.ncols())
        };
        if let Some(weights) = &self.weights_init {
            check_length(NAME, "weights_init", k, weights.len())?;
            if weights.iter().any(|w| !(0.0..=1.0).contains(w)) || (weights.sum() - 1.0).abs() > 1e-6 {
                return refuse("weights_init", "must be shares that sum to 1");
            }
        }
        if let Some(means) = &self.means_init {
            matrix("means_init", (k, d), means)?;
            check_finite(NAME, &means.iter().copied().collect::<Vec<_>>())?;
        }
        let what = "precisions_init";
        match (&self.precisions_init, self.covariance_type) {
            (None, _) => Ok(()),
            (Some(Covariances::Spherical(p)), CovarianceType::Spherical) => check_length(NAME, what, k, p.len()),
            (Some(Covariances::Diag(p)), CovarianceType::Diag) => matrix(what, (k, d), p),
            (Some(Covariances::Tied(p)), CovarianceType::Tied) => matrix(what, (d, d), p),
            (Some(Covariances::Full(p)), CovarianceType::Full) => {
                check_length(NAME, what, k, p.len())?;
                p.iter().try_for_each(|p| matrix(what, (d, d), p))
            }
            _ => refuse(what, "must have the shape of covariance_type"),
        }
    }
}
