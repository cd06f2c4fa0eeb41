//! PCA residual: how far a sample lies from the subspace that the training samples span.

use super::Error;
use super::pca::{NComponents, Pca, PcaParams};
use ndarray::{Array1, ArrayView1, ArrayView2};

/// Parameters of [`PcaResidual::fit`].
#[derive(Debug, Clone, PartialEq)]
pub struct PcaResidualParams {
    pub pca: PcaParams,
}

impl Default for PcaResidualParams {
    fn default() -> Self {
        PcaResidualParams { pca: PcaParams { n_components: NComponents::Count(512), ..PcaParams::default() } }
    }
}

/// A fitted residual detector. Scale the samples first: the distance is in their units.
#[derive(Debug, Clone, PartialEq)]
pub struct PcaResidual {
    pub pca: Pca,
}

impl PcaResidual {
    /// Fits the subspace.
    ///
    /// # Errors
    /// Those of [`Pca::fit`].
    pub fn fit(x: ArrayView2<f64>, params: &PcaResidualParams) -> Result<PcaResidual, Error> {
        Ok(PcaResidual { pca: Pca::fit(x, &params.pca)? })
    }

    /// Negated squared distance between each row and its reconstruction.
    ///
    /// # Errors
    /// [`Error::Features`] when the width differs.
    pub fn score_samples(&self, x: ArrayView2<f64>) -> Result<Array1<f64>, Error> {
        Ok(-self.pca.residual(x)?)
    }

    /// [`PcaResidual::score_samples`] of one sample; `projection` is room for `n_components` values.
    ///
    /// # Errors
    /// [`Error::Features`] when a width differs.
    pub fn score_one(&self, x: ArrayView1<f64>, projection: &mut [f64]) -> Result<f64, Error> {
        Ok(-self.pca.transform_one(x, projection)?)
    }
}
