//! Conformal calibration: the p-value of a score against scores of held-out normals.
//!
//! p is the share of normals that score at most as high. Counted, it is `(1 + #{calibration scores <= score}) / (n + 1)`
//! (Vovk, Gammerman, Shafer 2005): when the normals to come are exchangeable with the calibration samples, a normal has
//! `p <= a` with probability at most `a`, whatever the detector. With a [`Tail`] p is continuous: between the scores it
//! is linear; in the lowest fifth it is predicted by the tail, also far below `1 / (n + 1)`.
//!
//! The calibration samples must not have been fitted on: hold a share out, or, where samples are few, score each by a
//! detector fitted on the other folds and fit the final detector on all (cross-conformal, Vovk 2015). Scores of consecutive
//! frames are dependent: the number of independent scores they are worth determines how certain p is.

use super::tail::{CONFIDENCE, Tail};
use super::{Error, check_finite, special};

const NAME: &str = "conformal calibration";

/// Scores of held-out normals, and their tail.
#[derive(Debug, Clone, PartialEq)]
pub struct Conformal {
    /// Rising.
    pub scores: Vec<f64>,
    /// None: p is counted.
    pub tail: Option<Tail>,
    /// The number of independent scores they are worth.
    pub worth: f64,
    /// Rising scores of false alarms learnt by feedback: each weighs as much as one independent score.
    pub learnt: Vec<f64>,
}

impl Conformal {
    /// Counts scores of held-out normals, which are taken as independent.
    ///
    /// # Errors
    /// [`Error::NotFinite`], [`Error::TooFewSamples`] for none.
    pub fn counted(scores: &[f64]) -> Result<Conformal, Error> {
        check_finite(NAME, scores)?;
        if scores.is_empty() {
            return Err(Error::TooFewSamples { estimator: NAME, needed: 1, got: 0 });
        }
        let mut scores = scores.to_vec();
        scores.sort_by(f64::total_cmp);
        let worth = scores.len() as f64;
        Ok(Conformal { scores, tail: None, worth, learnt: Vec::new() })
    }

    /// From scores of held-out normals that are worth `worth` independent ones, with their tail; counted where they are
    /// too few for one or have no spread.
    ///
    /// # Errors
    /// Those of [`Conformal::counted`]; [`Error::Parameter`] when `worth` is not between 1 and the number of scores.
    pub fn fit(scores: &[f64], worth: f64) -> Result<Conformal, Error> {
        let mut conformal = Conformal::counted(scores)?;
        if !(1.0..=conformal.scores.len() as f64).contains(&worth) {
            let reason = format!("= {worth} must lie between 1 and the {} scores", conformal.scores.len());
            return Err(Error::parameter(NAME, "worth", reason));
        }
        conformal.worth = worth;
        conformal.tail = Tail::fit(&conformal.scores, worth);
        Ok(conformal)
    }

    /// The share of normals that score at most as high; for NaN the smallest.
    pub fn p_value(&self, score: f64) -> f64 {
        let score = if score.is_nan() { f64::MIN } else { score };
        let known = self.known_p(score);
        if self.learnt.is_empty() {
            return known;
        }
        self.with_learnt(known, self.learnt.partition_point(|s| *s <= score), self.learnt.len())
    }

    /// p without what was learnt.
    pub fn known_p(&self, score: f64) -> f64 {
        let n = (self.scores.len() + 1) as f64;
        let below = self.scores.partition_point(|s| *s <= score);
        let Some(tail) = &self.tail else { return (1 + below) as f64 / n };
        if score <= tail.start() {
            return tail.p(score);
        }
        let (Some(last), Some(next)) = (below.checked_sub(1), self.scores.get(below)) else { return 1.0 };
        let (at, way) = (self.scores[last], next - self.scores[last]);
        (below as f64 + (score - at) / way) / n
    }

    /// p where `below` of `all` learnt scores are at most the score whose p is `known` without them.
    pub fn with_learnt(&self, known: f64, below: usize, all: usize) -> f64 {
        (self.weight() * known + below as f64) / (self.weight() + all as f64)
    }

    /// The weight of the scores relative to one learnt score.
    pub fn weight(&self) -> f64 {
        self.worth + 1.0
    }

    /// The score below which `p < rate`; `None` when no score has so small a p.
    pub fn threshold(&self, rate: f64) -> Option<f64> {
        let (mut low, mut high) = (ordered(f64::MIN), ordered(f64::MAX));
        let passes = |at: i64| self.p_value(from_ordered(at)) < rate;
        if !passes(low) {
            return None;
        }
        if passes(high) {
            return Some(f64::INFINITY);
        }
        while high - 1 > low {
            let middle = ((i128::from(low) + i128::from(high)) / 2) as i64;
            *(if passes(middle) { &mut low } else { &mut high }) = middle;
        }
        Some(from_ordered(high))
    }

    /// The interval that holds the realised false-alarm rate with 95 % probability, when frames with `p < rate` are
    /// called outliers. Equal tails.
    ///
    /// Counted, the rate that one calibration realises over endless normals follows Beta(k, n + 1 - k), k how many
    /// scores lie below the threshold (Vovk 2012, "Conditional validity of inductive conformal predictors").
    pub fn false_alarm_interval(&self, rate: f64) -> (f64, f64) {
        let tail = 0.5 * (1.0 - CONFIDENCE);
        let (a, b) = match &self.tail {
            Some(tail) if rate <= tail.share() => {
                let Some(score) = self.threshold(rate) else { return (0.0, 0.0) };
                return tail.interval(score.min(tail.start()));
            }
            Some(_) => (rate * self.worth + 0.5, (1.0 - rate) * self.worth + 0.5),
            None => match self.beta(rate) {
                Some(beta) => beta,
                None => return (0.0, 0.0),
            },
        };
        (special::beta_quantile(tail, a, b), special::beta_quantile(1.0 - tail, a, b))
    }

    /// The interval that holds, with 95 % probability at least, the rate counted on `m` fresh independent normals.
    ///
    /// Wider than [`Conformal::false_alarm_interval`] by the error of counting: the count is beta-binomial. With a
    /// tail the beta distribution is the one with the mean `rate` whose upper end is that of the interval.
    pub fn observed_false_alarm_interval(&self, rate: f64, m: usize) -> (f64, f64) {
        if m == 0 {
            return (0.0, 1.0);
        }
        let (a, b) = match &self.tail {
            None => match self.beta(rate) {
                Some(beta) => beta,
                None => return (0.0, 0.0),
            },
            Some(_) => {
                let high = self.false_alarm_interval(rate).1;
                let at = |ln: f64| (rate * ln.exp(), (1.0 - rate) * ln.exp());
                let (mut low_ln, mut high_ln) = (-3.0_f64, 20.0_f64);
                for _ in 0..60 {
                    let middle = 0.5 * (low_ln + high_ln);
                    let (a, b) = at(middle);
                    let wide = special::beta_quantile(0.5 + 0.5 * CONFIDENCE, a, b) > high;
                    *(if wide { &mut low_ln } else { &mut high_ln }) = middle;
                }
                at(low_ln)
            }
        };
        let tail = 0.5 * (1.0 - CONFIDENCE);
        let (mut low, mut high) = (None, m);
        let mut sum = 0.0;
        for count in 0..=m {
            sum += special::ln_beta_binomial(count as u64, m as u64, a, b).exp();
            if low.is_none() && sum > tail {
                low = Some(count);
            }
            if sum >= 1.0 - tail {
                high = count;
                break;
            }
        }
        (low.unwrap_or(0) as f64 / m as f64, high as f64 / m as f64)
    }

    /// The beta distribution of the rate that a counted calibration realises; None where no score is low enough.
    fn beta(&self, rate: f64) -> Option<(f64, f64)> {
        let cut = self.threshold(rate)?;
        let k = self.scores.partition_point(|s| *s <= cut);
        Some((k as f64, (self.scores.len() + 1 - k) as f64))
    }
}

/// The exact confidence interval (Clopper and Pearson 1934) of a rate, from `count` successes in `m` trials.
pub fn clopper_pearson(count: usize, m: usize, confidence: f64) -> (f64, f64) {
    let tail = 0.5 * (1.0 - confidence);
    let (k, m) = (count.min(m) as f64, m as f64);
    let low = if k == 0.0 { 0.0 } else { special::beta_quantile(tail, k, m - k + 1.0) };
    let high = if k == m { 1.0 } else { special::beta_quantile(1.0 - tail, k + 1.0, m - k) };
    (low, high)
}

/// A bijection of f64 to integers that keeps the order.
fn ordered(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    if bits < 0 { i64::MIN.wrapping_sub(bits) } else { bits }
}

fn from_ordered(at: i64) -> f64 {
    f64::from_bits(if at < 0 { i64::MIN.wrapping_sub(at) } else { at } as u64)
}
