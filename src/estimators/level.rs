//! Scores of different detectors on one scale: the logarithm of the share of normals that score as low, with an
//! exponential tail.
//!
//! Down to the quantile `m / n` it is interpolated between quantiles; below, it falls by 1 per mean excess of the `m`
//! lowest scores. The lowest of these enter as "at least as low as the next", as in [`super::tail`]: a few pictures that do
//! not belong would stretch the scale of one detector, and the other one would outvote it. It is not a calibration, because
//! a tail that is not exponential keeps its shape, but it makes scores of two detectors comparable before both are
//! calibrated together.

use super::tail::{censored, tail_len};
use super::{Error, check_finite};

const NAME: &str = "level";
/// Quantiles from the tail's start to the highest score.
pub const QUANTILES: usize = 5;

/// A fitted scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// Scores at evenly spaced shares, from `share` to 1.
    pub quantiles: [f64; QUANTILES],
    /// The share of the scores below the first quantile.
    pub share: f64,
    /// Mean distance of those from the first quantile: the maximum likelihood estimate of an exponential distribution's,
    /// with type II censoring.
    pub excess: f64,
}

impl Level {
    /// # Errors
    /// [`Error::TooFewSamples`] below 2, [`Error::NotFinite`].
    pub fn fit(scores: &[f64]) -> Result<Level, Error> {
        check_finite(NAME, scores)?;
        let n = scores.len();
        if n < 2 {
            return Err(Error::TooFewSamples { estimator: NAME, needed: 2, got: n });
        }
        let mut sorted = scores.to_vec();
        sorted.sort_by(f64::total_cmp);
        let m = tail_len(n);
        let place = |at: usize| m + (at * (n - 1 - m) + (QUANTILES - 1) / 2) / (QUANTILES - 1);
        let quantiles = std::array::from_fn(|at| sorted[place(at)]);
        let censored = censored(n);
        let known = sorted[censored..m].iter().map(|score| sorted[m] - score).sum::<f64>();
        let excess = (known + censored as f64 * (sorted[m] - sorted[censored])) / (m - censored) as f64;
        // Equal scores have no scale: any lower one is far.
        let least = (1e-9 * sorted[m].abs()).max(f64::MIN_POSITIVE.sqrt());
        Ok(Level { quantiles, share: m as f64 / n as f64, excess: excess.max(least) })
    }

    /// The level of a score: 0 for the highest, negative for lower ones; NaN has the lowest.
    pub fn of(&self, score: f64) -> f64 {
        let start = self.quantiles[0];
        if score.is_nan() {
            return f64::MIN;
        }
        if score <= start {
            return self.share.ln() - (start - score) / self.excess;
        }
        let above = self.quantiles.partition_point(|quantile| *quantile < score);
        if above == QUANTILES {
            return 0.0;
        }
        let (low, high) = (self.quantiles[above - 1], self.quantiles[above]);
        let step = (1.0 - self.share) / (QUANTILES - 1) as f64;
        (self.share + step * ((above - 1) as f64 + (score - low) / (high - low))).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_of_exponential_scores_is_ln_p() {
        let n = 2000;
        let scores: Vec<f64> = (1..=n).map(|at| 3.0 * (f64::from(at) / f64::from(n + 1)).ln() - 7.0).collect();
        let level = Level::fit(&scores).unwrap();
        for p in [1.0_f64, 0.9, 0.5, 0.21, 0.1, 0.01, 1e-4, 1e-9] {
            let got = level.of(3.0 * p.ln() - 7.0);
            assert!((got - p.ln()).abs() < 0.02 + 0.02 * p.ln().abs(), "{p} {got}");
        }
        assert_eq!(level.of(0.0), 0.0);
        assert!(level.of(f64::NAN) < -1e300);
    }

    #[test]
    fn the_level_rises_with_the_score_even_where_scores_repeat() {
        for scores in [vec![1.0; 12], vec![0.0, 0.0, 1.0, 1.0, 1.0, 2.0], vec![-3.0, 5.0]] {
            let level = Level::fit(&scores).unwrap();
            let at: Vec<f64> = (-60..80).map(|at| level.of(f64::from(at) / 10.0)).collect();
            assert!(at.is_sorted() && at.iter().all(|v| !v.is_nan()), "{at:?}");
        }
        assert!(Level::fit(&[1.0]).is_err() && Level::fit(&[1.0, f64::NAN]).is_err());
    }
}
