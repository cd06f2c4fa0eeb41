//! The calibration as the model file keeps it.

use serde::{Deserialize, Serialize};

use super::values::check;
use crate::estimators::conformal::Conformal;
use crate::estimators::isotonic::IsotonicRegression;
use crate::estimators::tail::{KNOTS, Knot, Tail};
use crate::model::verdict::Calibration;

#[derive(Serialize, Deserialize)]
pub(super) enum CalibrationV1 {
    Isotonic { x: Vec<f64>, y: Vec<f64> },
    Conformal { scores: Vec<f64> },
}

pub(super) fn body(calibration: &Calibration) -> CalibrationV1 {
    match calibration {
        Calibration::Isotonic(isotonic) => {
            CalibrationV1::Isotonic { x: isotonic.x_thresholds.clone(), y: isotonic.y_thresholds.clone() }
        }
        Calibration::Conformal(conformal) => CalibrationV1::Conformal { scores: conformal.scores.clone() },
    }
}

pub(super) fn calibration(body: CalibrationV1) -> Result<Calibration, String> {
    let finite = |scores: &[f64]| check(scores.iter().all(|v| v.is_finite()), "the calibration's scores");
    match body {
        CalibrationV1::Isotonic { x, y } => {
            check(!x.is_empty() && x.len() == y.len(), "the calibration's length")?;
            finite(&x)?;
            check(x.is_sorted_by(|a, b| a < b), "the calibration's scores")?;
            check(y.iter().all(|v| (0.0..=1.0).contains(v)) && y.is_sorted(), "the calibration's probabilities")?;
            Ok(Calibration::Isotonic(IsotonicRegression { x_thresholds: x, y_thresholds: y }))
        }
        CalibrationV1::Conformal { scores } => {
            check(!scores.is_empty(), "the calibration's length")?;
            finite(&scores)?;
            check(scores.is_sorted(), "the calibration's scores")?;
            Ok(Calibration::Conformal(Conformal::counted(&scores).map_err(|e| e.to_string())?))
        }
    }
}

/// Score, p, low and high of the knots of a tail.
pub(super) fn knots(tail: Option<&Tail>) -> Vec<[f64; 4]> {
    tail.map_or_else(Vec::new, |tail| tail.knots.iter().map(|knot| [knot.score, knot.p, knot.low, knot.high]).collect())
}

/// Knots by rising score and p, within intervals of probabilities; the last no higher than the highest of
/// `scores`, and no more probable than they count.
pub(super) fn tail(knots: Vec<[f64; 4]>, scores: &[f64]) -> Result<Option<Tail>, String> {
    if knots.is_empty() {
        return Ok(None);
    }
    let what = "the calibration's tail";
    check((2..=KNOTS).contains(&knots.len()), what)?;
    check(knots.iter().flatten().all(|v| v.is_finite()), what)?;
    check(knots.is_sorted_by(|a, b| a[0] < b[0]), what)?;
    check((1..4).all(|column| knots.is_sorted_by(|a, b| a[column] <= b[column])), what)?;
    check(knots.iter().all(|[_, p, low, high]| *p > 0.0 && *low >= 0.0 && low <= high && p.max(*high) <= 1.0), what)?;
    let knots = knots.into_iter().map(|[score, p, low, high]| Knot { score, p, low, high }).collect();
    let tail = Tail { knots };
    let counted = (scores.partition_point(|s| *s <= tail.start()) + 1) as f64 / (scores.len() + 1) as f64;
    check(tail.share() <= counted + 1e-9 && scores.last() >= Some(&tail.start()), what)?;
    Ok(Some(tail))
}
