//! Mixture and residual: a density of the whole feature, of what PCA keeps and of what it drops.
//!
//! The kept part `z` follows a Gaussian mixture; the dropped part, of squared length `r`, an isotropic Gaussian of
//! `dof` dimensions with variance `s`, as in probabilistic PCA (Tipping and Bishop 1999):
//! `log p = log mixture(z) - log_volume - r / (2 s) - dof / 2 log(2 pi s)`.
//! It is a density of the sample that PCA was given, so scores of fits on different folds compare.

use super::gaussian_mixture::{GaussianMixture, GaussianMixtureParams};
use super::{Error, check_finite, check_length};
use ndarray::{ArrayView1, ArrayView2};

const NAME: &str = "mixture+residual";

/// Least variance of the dropped part, relative to a scaled feature's, where PCA reconstructs the training samples
/// exactly. It is far above what rounding the components to small integers leaves over, so scores of fits with rounded
/// and with exact components compare.
const MIN_NOISE_VARIANCE: f64 = 1e-3;

/// A fitted mixture with its residual.
#[derive(Debug, Clone, PartialEq)]
pub struct MixtureResidual {
    /// Density of the projection.
    pub mixture: GaussianMixture,
    /// Variance of each dropped dimension.
    pub noise_variance: f64,
    /// Dropped dimensions.
    pub dof: usize,
    /// Log of the factor by which whitening scales volumes; 0 without whitening.
    pub log_volume: f64,
}

impl MixtureResidual {
    /// Fits on projections `z` (`n_samples` x `n_components`) and squared residuals of `dof` dropped dimensions;
    /// `log_volume` is the log of the factor by which whitening scales volumes, 0 without.
    ///
    /// # Errors
    /// Those of [`GaussianMixture::fit`]; [`Error::Length`] when `residual` and `z` differ in length.
    pub fn fit(
        z: ArrayView2<f64>,
        residual: ArrayView1<f64>,
        dof: usize,
        log_volume: f64,
        params: &GaussianMixtureParams,
    ) -> Result<MixtureResidual, Error> {
        check_length(NAME, "residual", z.nrows(), residual.len())?;
        check_finite(NAME, &residual.to_vec())?;
        let mixture = GaussianMixture::fit(z, params)?;
        let noise_variance = (residual.sum() / (z.nrows() * dof.max(1)) as f64).max(MIN_NOISE_VARIANCE);
        Ok(MixtureResidual { mixture, noise_variance, dof, log_volume })
    }

    /// Log density of one sample. Does not allocate.
    ///
    /// # Errors
    /// [`Error::Features`].
    pub fn score_one(&self, z: ArrayView1<f64>, residual: f64) -> Result<f64, Error> {
        Ok(self.mixture.score_one(z)? + self.residual_log_density(residual))
    }

    /// Log density of the dropped part, less the volume that whitening adds.
    fn residual_log_density(&self, residual: f64) -> f64 {
        if self.dof == 0 {
            return -self.log_volume;
        }
        let s = self.noise_variance;
        -0.5 * (residual / s + self.dof as f64 * (std::f64::consts::TAU * s).ln()) - self.log_volume
    }
}
