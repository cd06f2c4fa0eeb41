//! The covariances of a mixture's components, and the Cholesky factors of their inverses.

use ndarray::{Array1, Array2, ArrayView1};
use rayon::prelude::*;

use crate::estimators::{Error, check_length, linalg};

/// The estimator's name in errors.
pub(super) const NAME: &str = "GaussianMixture";

/// Shape of the covariance of each component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CovarianceType {
    /// One variance per component.
    Spherical,
    /// One variance per component and feature.
    Diag,
    /// One full matrix for all components.
    Tied,
    /// One full matrix per component.
    Full,
}

/// Covariances, precisions or Cholesky factors of precisions, by [`CovarianceType`].
#[derive(Debug, Clone, PartialEq)]
pub enum Covariances {
    /// `n_components`.
    Spherical(Array1<f64>),
    /// `n_components` x `n_features`.
    Diag(Array2<f64>),
    /// `n_features` x `n_features`.
    Tied(Array2<f64>),
    /// `n_components` of `n_features` x `n_features`.
    Full(Vec<Array2<f64>>),
}

impl Covariances {
    /// The Cholesky factors of the inverses of covariances.
    ///
    /// # Errors
    /// [`Error::Singular`] where a covariance is not positive definite.
    pub(super) fn precisions_cholesky(&self) -> Result<Covariances, Error> {
        let inverse_root = |component: usize, v: &f64| {
            if *v > 0.0 { Ok(1.0 / v.sqrt()) } else { Err(singular(component)) }
        };
        let inverse_factor = |component: usize, covariance: &Array2<f64>| {
            let lower = linalg::cholesky(covariance.view()).ok_or(singular(component))?;
            Ok(linalg::invert_lower(lower.view()).reversed_axes().as_standard_layout().into_owned())
        };
        Ok(match self {
            Covariances::Spherical(c) => {
                Covariances::Spherical(c.iter().enumerate().map(|(k, v)| inverse_root(k, v)).collect::<Result<_, _>>()?)
            }
            Covariances::Diag(c) => {
                let mut out = c.clone();
                for (k, mut row) in out.outer_iter_mut().enumerate() {
                    for v in row.iter_mut() {
                        *v = inverse_root(k, v)?;
                    }
                }
                Covariances::Diag(out)
            }
            Covariances::Tied(c) => Covariances::Tied(inverse_factor(0, c)?),
            Covariances::Full(c) => Covariances::Full(
                c.par_iter().enumerate().map(|(k, c)| inverse_factor(k, c)).collect::<Result<Vec<_>, Error>>()?,
            ),
        })
    }

    /// The Cholesky factors of precisions.
    ///
    /// # Errors
    /// [`Error::Singular`] where a precision is not positive definite.
    pub(super) fn cholesky(&self) -> Result<Covariances, Error> {
        // The flipped matrix's lower factor, flipped back, is upper triangular with U Uᵀ = P.
        let upper = |component: usize, p: &Array2<f64>| {
            let flipped = p.slice(ndarray::s![..;-1, ..;-1]);
            let lower = linalg::cholesky(flipped).ok_or(singular(component))?;
            Ok(lower.slice(ndarray::s![..;-1, ..;-1]).as_standard_layout().into_owned())
        };
        Ok(match self {
            Covariances::Spherical(p) => {
                check_positive(0, p.view())?;
                Covariances::Spherical(p.mapv(f64::sqrt))
            }
            Covariances::Diag(p) => {
                p.outer_iter().enumerate().try_for_each(|(k, row)| check_positive(k, row))?;
                Covariances::Diag(p.mapv(f64::sqrt))
            }
            Covariances::Tied(p) => Covariances::Tied(upper(0, p)?),
            Covariances::Full(p) => {
                Covariances::Full(p.iter().enumerate().map(|(k, p)| upper(k, p)).collect::<Result<Vec<_>, Error>>()?)
            }
        })
    }

    /// Of Cholesky factors of precisions: the covariances, of `k` components and `d` features.
    ///
    /// # Errors
    /// [`Error::Length`] for another shape, [`Error::Singular`] for a factor without inverse.
    pub(super) fn inverted(&self, k: usize, d: usize) -> Result<Covariances, Error> {
        let square = |component: usize, factor: &Array2<f64>| {
            check_length(NAME, "a covariance", d * d, factor.len())?;
            check_positive(component, factor.diag())?;
            let inverse = linalg::invert_lower(factor.t());
            Ok(inverse.dot(&inverse.t()))
        };
        Ok(match self {
            Covariances::Spherical(p) => {
                check_length(NAME, "the covariances", k, p.len())?;
                check_positive(0, p.view())?;
                Covariances::Spherical(p.mapv(|p| 1.0 / (p * p)))
            }
            Covariances::Diag(p) => {
                check_length(NAME, "the covariances", k * d, p.len())?;
                p.outer_iter().enumerate().try_for_each(|(k, row)| check_positive(k, row))?;
                Covariances::Diag(p.mapv(|p| 1.0 / (p * p)))
            }
            Covariances::Tied(p) => Covariances::Tied(square(0, p)?),
            Covariances::Full(p) => {
                check_length(NAME, "the covariances", k, p.len())?;
                Covariances::Full(p.iter().enumerate().map(|(k, p)| square(k, p)).collect::<Result<_, Error>>()?)
            }
        })
    }

    /// Of Cholesky factors: half the log determinant of the precision of component `k` of `d` features.
    pub(super) fn log_det(&self, k: usize, d: usize) -> f64 {
        match self {
            Covariances::Spherical(p) => d as f64 * p[k].ln(),
            Covariances::Diag(p) => p.row(k).iter().map(|v| v.ln()).sum(),
            Covariances::Tied(p) => p.diag().iter().map(|v| v.ln()).sum(),
            Covariances::Full(p) => p[k].diag().iter().map(|v| v.ln()).sum(),
        }
    }

    /// Of Cholesky factors: the squared Mahalanobis distance of `x` from the mean of component `k`.
    pub(super) fn mahalanobis(&self, x: ArrayView1<f64>, mean: ArrayView1<f64>, k: usize) -> f64 {
        let whitened = |upper: &Array2<f64>| {
            (0..x.len()).map(|j| (0..=j).map(|i| (x[i] - mean[i]) * upper[[i, j]]).sum::<f64>().powi(2)).sum()
        };
        match self {
            Covariances::Spherical(p) => x.iter().zip(&mean).map(|(v, m)| (v - m) * (v - m)).sum::<f64>() * p[k] * p[k],
            Covariances::Diag(p) => x.iter().zip(&mean).zip(p.row(k)).map(|((v, m), p)| ((v - m) * p).powi(2)).sum(),
            Covariances::Tied(p) => whitened(p),
            Covariances::Full(p) => whitened(&p[k]),
        }
    }
}

fn singular(component: usize) -> Error {
    Error::Singular { estimator: NAME, component }
}

fn check_positive(component: usize, values: ArrayView1<f64>) -> Result<(), Error> {
    if values.iter().all(|v| *v > 0.0 && v.is_finite()) { Ok(()) } else { Err(singular(component)) }
}
