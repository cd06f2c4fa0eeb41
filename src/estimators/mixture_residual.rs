//! Mixture and residual: a density of the whole feature, of what PCA keeps and of what it drops.
//!
//! The kept part `z` follows a Gaussian mixture; the dropped part, of squared length `r`, an isotropic Gaussian of
//! `dof` dimensions with variance `s`, as in probabilistic PCA (Tipping and Bishop 1999):
//! `log p = log mixture(z) - r / (2 s) - dof / 2 log(2 pi s)`.

use super::gaussian_mixture::{GaussianMixture, GaussianMixtureParams};
use super::{Error, check_finite};
use ndarray::{Array1, ArrayView1, ArrayView2};

const NAME: &str = "mixture+residual";

/// Least variance of the dropped part, as a share of a scaled feature's: keeps the density finite where PCA
/// reconstructs the training samples exactly.
const MIN_NOISE_VARIANCE: f64 = 1e-9;

/// A fitted mixture with its residual.
#[derive(Debug, Clone, PartialEq)]
pub struct MixtureResidual {
    /// Density of the projection.
    pub mixture: GaussianMixture,
    /// Variance of each dropped dimension.
    pub noise_variance: f64,
    /// Dropped dimensions.
    pub dof: usize,
}

impl MixtureResidual {
    /// Fits on projections `z` (`n_samples` x `n_components`) and squared residuals, both from
    /// [`super::pca::Pca::transform_with_residual`]; `n_features` is the width before the projection.
    ///
    /// # Errors
    /// Those of [`GaussianMixture::fit`]; [`Error::Length`] when `residual` and `z` differ in length;
    /// [`Error::Parameter`] for fewer features than components.
    pub fn fit(
        z: ArrayView2<f64>,
        residual: ArrayView1<f64>,
        n_features: usize,
        params: &GaussianMixtureParams,
    ) -> Result<MixtureResidual, Error> {
        if residual.len() != z.nrows() {
            let (expected, got) = (z.nrows(), residual.len());
            return Err(Error::Length { estimator: NAME, what: "residual", expected, got });
        }
        let Some(dof) = n_features.checked_sub(z.ncols()) else {
            let reason = format!("= {n_features} must be at least the {} components", z.ncols());
            return Err(Error::Parameter { estimator: NAME, parameter: "n_features", reason });
        };
        check_finite(NAME, &residual.to_vec())?;
        let mixture = GaussianMixture::fit(z, params)?;
        let noise_variance = (residual.sum() / (z.nrows() * dof.max(1)) as f64).max(MIN_NOISE_VARIANCE);
        Ok(MixtureResidual { mixture, noise_variance, dof })
    }

    /// Log density of every sample.
    ///
    /// # Errors
    /// [`Error::Features`], [`Error::Length`].
    pub fn score_samples(&self, z: ArrayView2<f64>, residual: ArrayView1<f64>) -> Result<Array1<f64>, Error> {
        if residual.len() != z.nrows() {
            let (expected, got) = (z.nrows(), residual.len());
            return Err(Error::Length { estimator: NAME, what: "residual", expected, got });
        }
        Ok(self.mixture.score_samples(z)? + residual.mapv(|r| self.residual_log_density(r)))
    }

    /// Log density of one sample. Does not allocate.
    ///
    /// # Errors
    /// [`Error::Features`].
    pub fn score_one(&self, z: ArrayView1<f64>, residual: f64) -> Result<f64, Error> {
        Ok(self.mixture.score_one(z)? + self.residual_log_density(residual))
    }

    fn residual_log_density(&self, residual: f64) -> f64 {
        if self.dof == 0 {
            return 0.0;
        }
        let s = self.noise_variance;
        -0.5 * (residual / s + self.dof as f64 * (std::f64::consts::TAU * s).ln())
    }
}
