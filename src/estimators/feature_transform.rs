//! Transforms of the features before the scaler.

use super::Error;
use ndarray::{Array2, ArrayView2};

/// An elementwise map of the features.
///
/// Averages of ReLU outputs are skewed and their spread grows with their mean; the square root evens out both, as it
/// does for counts, so that a Gaussian fits them better. `models/README.md` holds the evidence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FeatureTransform {
    /// As they are.
    Identity,
    /// `sign(x) sqrt(|x|)`
    #[default]
    Sqrt,
}

impl FeatureTransform {
    /// One value.
    pub fn apply(self, value: f64) -> f64 {
        match self {
            FeatureTransform::Identity => value,
            FeatureTransform::Sqrt => value.abs().sqrt().copysign(value),
        }
    }

    /// Every value of `rows`.
    pub fn of(self, rows: ArrayView2<f32>) -> Array2<f64> {
        rows.mapv(|v| self.apply(f64::from(v)))
    }

    /// The name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            FeatureTransform::Identity => "identity",
            FeatureTransform::Sqrt => "sqrt",
        }
    }
}

impl std::fmt::Display for FeatureTransform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for FeatureTransform {
    type Err = Error;

    fn from_str(name: &str) -> Result<FeatureTransform, Error> {
        [FeatureTransform::Identity, FeatureTransform::Sqrt].into_iter().find(|t| t.name() == name).ok_or_else(|| {
            Error::parameter("feature transform", "name", format!("\"{name}\" must be identity or sqrt"))
        })
    }
}
