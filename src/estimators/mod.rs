//! scikit-learn's estimators by their names: `fit` on an array of samples, then score one or many.
//!
//! | module | estimator |
//! | --- | --- |
//! | [`feature_transform`] | square root of the features |
//! | [`standard_scaler`] | zero mean and unit variance per feature |
//! | [`pca`] | principal components, whitening, residual |
//! | [`gaussian_mixture`] | EM for Gaussian mixtures |
//! | [`mixture_residual`] | density of the projection and of the residual |
//! | [`cell_gaussians`] | a Gaussian for each cell of a grid |
//! | [`one_class_svm`] | the region that holds all but a share of the samples |
//! | [`isolation_forest`] | how few random cuts isolate a sample |
//! | [`isotonic`] | monotone regression: score to probability |
//! | [`conformal`] | score to p-value against held-out normals |
//! | [`level`] | scores of different detectors on one scale |
//! | [`tail`] | p-values below what counting resolves |
//! | [`exceedances`] | how often peaks exceed a level |
//!
//! Arrays are `n_samples` x `n_features`, f64. Parameters and fitted attributes carry scikit-learn's names.
//! A seed gives the same fit on every run of one machine.

pub mod cell_gaussians;
pub mod conformal;
pub mod exceedances;
pub mod feature_transform;
pub mod gaussian_mixture;
pub mod isolation_forest;
pub mod isotonic;
pub mod kernel;
pub mod level;
pub mod mixture_residual;
pub mod one_class_svm;
pub mod pca;
pub mod standard_scaler;
pub mod tail;

mod kmeans;
pub(crate) mod linalg;
mod random;
mod smo;
pub(crate) mod special;

use ndarray::ArrayView2;

/// Why an estimator could not be fitted or applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The array has fewer samples than the estimator can be fitted on.
    #[error("{estimator} needs at least {needed} samples, got {got}")]
    TooFewSamples { estimator: &'static str, needed: usize, got: usize },
    /// The array has no columns.
    #[error("{estimator} needs at least one feature")]
    NoFeatures { estimator: &'static str },
    /// The array has another width than the one fitted on.
    #[error("{estimator} was fitted on {expected} features, got {got}")]
    Features { estimator: &'static str, expected: usize, got: usize },
    /// Two arrays that belong together differ in length.
    #[error("{estimator}: {what} has {got} entries, expected {expected}")]
    Length { estimator: &'static str, what: &'static str, expected: usize, got: usize },
    /// NaN or infinity in the input.
    #[error("{estimator}: sample {sample} holds NaN or infinity")]
    NotFinite { estimator: &'static str, sample: usize },
    /// A parameter outside of its range.
    #[error("{estimator}: {parameter} {reason}")]
    Parameter { estimator: &'static str, parameter: &'static str, reason: String },
    /// A covariance that is not positive definite; a larger `reg_covar` or fewer components help.
    #[error("{estimator}: the covariance of component {component} is not positive definite; raise reg_covar")]
    Singular { estimator: &'static str, component: usize },
    /// The decomposition did not converge.
    #[error("{estimator}: the decomposition did not converge")]
    Decomposition { estimator: &'static str },
}

impl Error {
    pub(crate) fn parameter(estimator: &'static str, parameter: &'static str, reason: impl Into<String>) -> Error {
        Error::Parameter { estimator, parameter, reason: reason.into() }
    }
}

/// A quantile of rising values, linear between them (numpy's default).
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let at = place.floor() as usize;
    let next = (at + 1).min(sorted.len() - 1);
    sorted[at] + (place - at as f64) * (sorted[next] - sorted[at])
}

/// Rising values, or, where there are more than `most`, as many evenly spaced quantiles of them.
pub(crate) fn thinned(sorted: &[f64], most: usize) -> Vec<f64> {
    let n = sorted.len();
    if n <= most {
        return sorted.to_vec();
    }
    (0..most).map(|at| sorted[(2 * at + 1) * n / (2 * most)]).collect()
}

/// Refuses arrays without columns, with too few rows, or with values that are not finite.
pub(crate) fn check_array(estimator: &'static str, x: &ArrayView2<f64>, needed: usize) -> Result<(), Error> {
    if x.nrows() < needed {
        return Err(Error::TooFewSamples { estimator, needed, got: x.nrows() });
    }
    if x.ncols() == 0 {
        return Err(Error::NoFeatures { estimator });
    }
    for (sample, row) in x.outer_iter().enumerate() {
        if row.iter().any(|v| !v.is_finite()) {
            return Err(Error::NotFinite { estimator, sample });
        }
    }
    Ok(())
}

/// Refuses arrays of another width than the one fitted on.
pub(crate) fn check_features(estimator: &'static str, expected: usize, got: usize) -> Result<(), Error> {
    if got == expected { Ok(()) } else { Err(Error::Features { estimator, expected, got }) }
}

/// Refuses an array whose length is not that of the one it belongs to.
pub(crate) fn check_length(
    estimator: &'static str,
    what: &'static str,
    expected: usize,
    got: usize,
) -> Result<(), Error> {
    if got == expected { Ok(()) } else { Err(Error::Length { estimator, what, expected, got }) }
}

/// Refuses vectors with values that are not finite.
pub(crate) fn check_finite(estimator: &'static str, values: &[f64]) -> Result<(), Error> {
    match values.iter().position(|v| !v.is_finite()) {
        Some(sample) => Err(Error::NotFinite { estimator, sample }),
        None => Ok(()),
    }
}
