//! The detectors as the model file keeps them.

use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use super::Detector;
use super::file::check;
use crate::estimators::gaussian_mixture::{Covariances, GaussianMixture};

#[derive(Serialize, Deserialize)]
pub(super) struct FloatsV1 {
    rows: u32,
    cols: u32,
    values: Vec<f32>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum DetectorV1 {
    GaussianMixture { weights: Vec<f64>, means: FloatsV1, precisions_cholesky: CovariancesV1 },
    PcaResidual,
}

#[derive(Serialize, Deserialize)]
pub(super) enum CovariancesV1 {
    Spherical(Vec<f64>),
    Diag(FloatsV1),
    Tied(FloatsV1),
    Full(Vec<FloatsV1>),
}

impl FloatsV1 {
    fn of(array: &Array2<f64>) -> Self {
        let values = array.iter().map(|v| *v as f32).collect();
        FloatsV1 { rows: array.nrows() as u32, cols: array.ncols() as u32, values }
    }

    fn array(self, rows: usize, cols: usize, what: &str) -> Result<Array2<f64>, String> {
        check((self.rows as usize, self.cols as usize) == (rows, cols), what)?;
        check(self.values.iter().all(|v| v.is_finite()), what)?;
        let values = self.values.into_iter().map(f64::from).collect();
        Array2::from_shape_vec((rows, cols), values).map_err(|_| format!("{what} has the wrong number of values"))
    }
}

pub(super) fn body(detector: &Detector) -> DetectorV1 {
    match detector {
        Detector::GaussianMixture(mixture) => DetectorV1::GaussianMixture {
            weights: mixture.weights.to_vec(),
            means: FloatsV1::of(&mixture.means),
            precisions_cholesky: match &mixture.precisions_cholesky {
                Covariances::Spherical(v) => CovariancesV1::Spherical(v.to_vec()),
                Covariances::Diag(v) => CovariancesV1::Diag(FloatsV1::of(v)),
                Covariances::Tied(v) => CovariancesV1::Tied(FloatsV1::of(v)),
                Covariances::Full(v) => CovariancesV1::Full(v.iter().map(FloatsV1::of).collect()),
            },
        },
        Detector::PcaResidual => DetectorV1::PcaResidual,
    }
}

/// Rebuilds a detector over `n` components.
pub(super) fn detector(body: DetectorV1, n: usize) -> Result<Detector, String> {
    match body {
        DetectorV1::GaussianMixture { weights, means, precisions_cholesky } => {
            let k = weights.len();
            check(k > 0 && weights.iter().all(|w| w.is_finite() && *w >= 0.0), "the mixture's weights")?;
            let means = means.array(k, n, "the mixture's means")?;
            let what = "the mixture's covariances";
            let precisions_cholesky = match precisions_cholesky {
                CovariancesV1::Spherical(v) => {
                    check(v.len() == k && v.iter().all(|v| v.is_finite() && *v > 0.0), what)?;
                    Covariances::Spherical(Array1::from(v))
                }
                CovariancesV1::Diag(v) => Covariances::Diag(v.array(k, n, what)?),
                CovariancesV1::Tied(v) => Covariances::Tied(v.array(n, n, what)?),
                CovariancesV1::Full(v) => {
                    check(v.len() == k, what)?;
                    Covariances::Full(v.into_iter().map(|v| v.array(n, n, what)).collect::<Result<_, _>>()?)
                }
            };
            GaussianMixture::from_precisions_cholesky(Array1::from(weights), means, precisions_cholesky)
                .map(Detector::GaussianMixture)
                .map_err(|e| e.to_string())
        }
        DetectorV1::PcaResidual => Ok(Detector::PcaResidual),
    }
}
