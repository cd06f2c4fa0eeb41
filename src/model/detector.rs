//! The detectors a model can hold, over whitened components and the residual that the PCA left.

use ndarray::ArrayView1;

use crate::estimators::gaussian_mixture::{Covariances, GaussianMixture};

/// A fitted detector.
#[derive(Debug, Clone, PartialEq)]
pub enum Detector {
    GaussianMixture(GaussianMixture),
    /// The negated squared distance between the scaled feature and its PCA reconstruction.
    PcaResidual,
}

impl Detector {
    pub fn name(&self) -> &'static str {
        match self {
            Detector::GaussianMixture(_) => "gaussian-mixture",
            Detector::PcaResidual => "pca-residual",
        }
    }

    /// The score of one sample: `y` whitened components, `residual` the squared norm outside them. Not finite
    /// if the sample does not fit the detector.
    pub fn score(&self, y: &[f64], residual: f64) -> f64 {
        match self {
            Detector::GaussianMixture(mixture) => mixture.score_one(ArrayView1::from(y)).unwrap_or(f64::NAN),
            Detector::PcaResidual => -residual,
        }
    }

    /// The components that the detector wants; None: any number.
    pub fn n_features(&self) -> Option<usize> {
        match self {
            Detector::GaussianMixture(mixture) => Some(mixture.n_features()),
            Detector::PcaResidual => None,
        }
    }

    /// What distinguishes it, by scikit-learn's names.
    pub fn parameters(&self) -> Vec<(String, String)> {
        match self {
            Detector::GaussianMixture(mixture) => vec![
                ("n_components".into(), mixture.weights.len().to_string()),
                ("covariance_type".into(), covariance_type(&mixture.covariances).into()),
            ],
            Detector::PcaResidual => Vec::new(),
        }
    }
}

fn covariance_type(covariances: &Covariances) -> &'static str {
    match covariances {
        Covariances::Spherical(_) => "spherical",
        Covariances::Diag(_) => "diag",
        Covariances::Tied(_) => "tied",
        Covariances::Full(_) => "full",
    }
}
