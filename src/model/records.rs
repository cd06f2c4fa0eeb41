//! What a model stores besides its estimators: scores of normals, and learnt false alarms.

use crate::estimators::thinned;

/// More scores of normals are replaced by this number of quantiles.
pub const MAX_NORMAL_SCORES: usize = 500;

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Records {
    /// Rising scores of normals that isotonic calibration was fitted on, or quantiles of them; empty with conformal
    /// calibration, which consists of such scores.
    pub normal_scores: Vec<f64>,
    /// False alarms whose scores joined the conformal calibration.
    pub learnt: Vec<Learnt>,
}

/// A false alarm learnt by feedback.
#[derive(Debug, Clone, PartialEq)]
pub struct Learnt {
    /// The event's id.
    pub event: String,
    pub score: f64,
}

impl Records {
    pub fn is_empty(&self) -> bool {
        self.normal_scores.is_empty() && self.learnt.is_empty()
    }
}

/// The scores, rising, or, of more than [`MAX_NORMAL_SCORES`], as many evenly spaced quantiles.
pub fn quantiles(scores: &[f64]) -> Vec<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    thinned(&sorted, MAX_NORMAL_SCORES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_stand_for_the_scores() {
        assert_eq!(quantiles(&[3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        let many: Vec<f64> = (0..10_000).rev().map(f64::from).collect();
        let kept = quantiles(&many);
        assert_eq!(kept.len(), MAX_NORMAL_SCORES);
        assert!(kept.is_sorted() && kept[0] == 10.0 && kept[MAX_NORMAL_SCORES - 1] == 9990.0);
    }
}
