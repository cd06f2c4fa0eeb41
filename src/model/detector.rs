//! The detectors of a model, over whitened components and the residual of the PCA.

use ndarray::ArrayView1;

use crate::estimators::gaussian_mixture::{Covariances, GaussianMixture};
use crate::estimators::isolation_forest::IsolationForest;
use crate::estimators::kernel::Kernel;
use crate::estimators::mixture_residual::MixtureResidual;
use crate::estimators::one_class_svm::OneClassSvm;

/// A fitted detector.
#[derive(Debug, Clone, PartialEq)]
pub enum Detector {
    GaussianMixture(GaussianMixture),
    OneClassSvm(OneClassSvm),
    IsolationForest(IsolationForest),
    /// The negated squared distance between the scaled feature and its PCA reconstruction.
    PcaResidual,
    MixtureResidual(MixtureResidual),
}

impl Detector {
    pub fn name(&self) -> &'static str {
        match self {
            Detector::GaussianMixture(_) => "gaussian-mixture",
            Detector::OneClassSvm(_) => "one-class-svm",
            Detector::IsolationForest(_) => "isolation-forest",
            Detector::PcaResidual => "pca-residual",
            Detector::MixtureResidual(_) => "mixture+residual",
        }
    }

    /// The score of one sample with whitened components `y` and the squared norm `residual` of the rest. Not finite if the
    /// sample has the wrong width.
    pub fn score(&self, y: &[f64], residual: f64) -> f64 {
        match self {
            Detector::GaussianMixture(mixture) => mixture.score_one(ArrayView1::from(y)).unwrap_or(f64::NAN),
            Detector::OneClassSvm(svm) => svm.score_one(ArrayView1::from(y)).map_or(f64::NAN, |s| s - svm.offset),
            Detector::IsolationForest(forest) => {
                forest.score_one(ArrayView1::from(y)).map_or(f64::NAN, |s| s - forest.offset)
            }
            Detector::PcaResidual => -residual,
            Detector::MixtureResidual(both) => both.score_one(ArrayView1::from(y), residual).unwrap_or(f64::NAN),
        }
    }

    /// Its parameters, by scikit-learn's names.
    pub fn parameters(&self) -> Vec<(String, String)> {
        match self {
            Detector::GaussianMixture(mixture) => mixture_parameters(mixture),
            Detector::OneClassSvm(svm) => vec![
                ("kernel".into(), kernel(&svm.kernel)),
                ("support_vectors".into(), svm.support_vectors.nrows().to_string()),
            ],
            Detector::IsolationForest(forest) => vec![
                ("n_estimators".into(), forest.trees.len().to_string()),
                ("max_samples".into(), forest.max_samples.to_string()),
            ],
            Detector::PcaResidual => Vec::new(),
            Detector::MixtureResidual(both) => {
                let mut parameters = mixture_parameters(&both.mixture);
                parameters.push(("noise_variance".into(), format!("{:.5}", both.noise_variance)));
                parameters
            }
        }
    }
}

fn mixture_parameters(mixture: &GaussianMixture) -> Vec<(String, String)> {
    vec![
        ("n_components".into(), mixture.weights.len().to_string()),
        ("covariance_type".into(), covariance_type(&mixture.covariances).into()),
    ]
}

fn covariance_type(covariances: &Covariances) -> &'static str {
    match covariances {
        Covariances::Spherical(_) => "spherical",
        Covariances::Diag(_) => "diag",
        Covariances::Tied(_) => "tied",
        Covariances::Full(_) => "full",
    }
}

fn kernel(kernel: &Kernel) -> String {
    match kernel {
        Kernel::Linear => "linear".into(),
        Kernel::Poly { gamma, coef0, degree } => format!("poly, gamma={gamma}, coef0={coef0}, degree={degree}"),
        Kernel::Rbf { gamma } => format!("rbf, gamma={gamma}"),
        Kernel::Sigmoid { gamma, coef0 } => format!("sigmoid, gamma={gamma}, coef0={coef0}"),
    }
}
