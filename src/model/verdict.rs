//! From a score to a verdict.

use crate::estimators::conformal::Conformal;
use crate::estimators::isotonic::IsotonicRegression;

/// The map from a score to `p`.
#[derive(Debug, Clone, PartialEq)]
pub enum Calibration {
    /// Probability of being an inlier, from labelled outliers.
    Isotonic(IsotonicRegression),
    /// Share of normals with at most this score, from held-out ones.
    Conformal(Conformal),
}

impl Calibration {
    pub fn name(&self) -> &'static str {
        match self {
            Calibration::Isotonic(_) => "isotonic",
            Calibration::Conformal(_) => "conformal",
        }
    }

    pub fn p(&self, score: f64) -> f64 {
        match self {
            Calibration::Isotonic(isotonic) => isotonic.predict_one(score),
            Calibration::Conformal(conformal) => conformal.p_value(score),
        }
    }
}

/// The verdict on one picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    pub score: f64,
    pub p: f64,
    pub outlier: bool,
}

impl Verdict {
    /// An outlier has `p < threshold`.
    pub fn of(score: f64, p: f64, threshold: f64) -> Self {
        Verdict { score, p, outlier: p < threshold }
    }
}

/// p for users: four decimal places, or scientific notation below 0.001.
pub fn p_text(p: f64) -> String {
    if p < 0.001 { format!("{p:.1e}") } else { format!("{p:.4}") }
}
