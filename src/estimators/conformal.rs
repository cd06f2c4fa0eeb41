//! Conformal calibration: the p-value of a score against scores of held-out normals.
//!
//! `p = (1 + #{calibration scores <= score}) / (n + 1)` (Vovk, Gammerman, Shafer 2005). When the normals to come are
//! exchangeable with the calibration samples, a normal has `p <= a` with probability at most `a`, whatever the
//! detector. The calibration samples must not have been fitted on: hold a share out, or, where samples are few, score
//! each by a detector fitted on the other folds and fit the detector to use on all (cross-conformal, Vovk 2015); that
//! one has seen more, so false alarms come out below the rate. Neighbouring frames of a video are not exchangeable: see [`Blocks`].

use super::{Error, check_finite, special};

const NAME: &str = "conformal calibration";

/// Which of the scores, in the order of time, count as independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    /// Every score: pictures taken independently.
    Each,
    /// The smallest score of each block of so many consecutive frames.
    ///
    /// The p-value of a frame is then at most wrong in the safe direction, and the false-alarm rate bounds the share
    /// of *blocks* with any false alarm in them. Choose blocks longer than the scene's memory (light, passing
    /// shadows); a last, shorter block is left out.
    Minimum(usize),
    /// The middle frame of each block of so many consecutive frames.
    ///
    /// The rate is per frame, as for `Each`, from fewer scores.
    OnePer(usize),
}

/// Scores of held-out normals.
#[derive(Debug, Clone, PartialEq)]
pub struct Conformal {
    /// Rising.
    pub scores: Vec<f64>,
}

impl Conformal {
    /// Keeps the scores of held-out normals; with [`Blocks`] other than `Each` they must be in the order of time.
    ///
    /// # Errors
    /// [`Error::NotFinite`], [`Error::Parameter`] for a block of no frames, [`Error::TooFewSamples`] for less than
    /// one block.
    pub fn fit(scores: &[f64], blocks: Blocks) -> Result<Conformal, Error> {
        check_finite(NAME, scores)?;
        let mut scores: Vec<f64> = match blocks {
            Blocks::Each => scores.to_vec(),
            Blocks::Minimum(0) | Blocks::OnePer(0) => {
                let reason = "must hold at least one frame".into();
                return Err(Error::Parameter { estimator: NAME, parameter: "block", reason });
            }
            Blocks::Minimum(len) => {
                scores.chunks_exact(len).map(|block| block.iter().copied().fold(f64::INFINITY, f64::min)).collect()
            }
            Blocks::OnePer(len) => scores.chunks_exact(len).map(|block| block[len / 2]).collect(),
        };
        if scores.is_empty() {
            return Err(Error::TooFewSamples { estimator: NAME, needed: 1, got: 0 });
        }
        scores.sort_by(f64::total_cmp);
        Ok(Conformal { scores })
    }

    /// `(1 + #{calibration scores <= score}) / (n + 1)`; for NaN the smallest, `1 / (n + 1)`.
    pub fn p_value(&self, score: f64) -> f64 {
        let below = self.scores.partition_point(|s| *s <= score);
        (1 + below) as f64 / (self.scores.len() + 1) as f64
    }

    /// How many calibration scores a frame must fall below to have `p < rate`: it is an outlier when its score is
    /// below the k-th smallest. 0: no score is low enough.
    pub fn rank(&self, rate: f64) -> usize {
        rank(self.scores.len(), rate)
    }

    /// The score below which `p < rate`; `None` when the calibration is too small for that rate
    /// (see [`minimum_samples`]).
    pub fn threshold(&self, rate: f64) -> Option<f64> {
        self.rank(rate).checked_sub(1).and_then(|k| self.scores.get(k).copied())
    }

    /// The interval that holds the realised false-alarm rate with probability `confidence`.
    ///
    /// With continuous scores the rate that one calibration realises, over endless normals, follows
    /// Beta(k, n + 1 - k), k the [`Conformal::rank`] (Vovk 2012, "Conditional validity of inductive conformal
    /// predictors"). Equal tails.
    pub fn false_alarm_interval(&self, rate: f64, confidence: f64) -> (f64, f64) {
        let (k, n) = (self.rank(rate), self.scores.len());
        if k == 0 {
            return (0.0, 0.0);
        }
        let tail = 0.5 * (1.0 - confidence);
        let (a, b) = (k as f64, (n + 1 - k) as f64);
        (special::beta_quantile(tail, a, b), special::beta_quantile(1.0 - tail, a, b))
    }

    /// The interval that holds, with probability `confidence` at least, the rate counted on `m` fresh normals.
    ///
    /// Wider than [`Conformal::false_alarm_interval`] by the error of counting: the count is beta-binomial.
    pub fn observed_false_alarm_interval(&self, rate: f64, confidence: f64, m: usize) -> (f64, f64) {
        let (k, n) = (self.rank(rate), self.scores.len());
        if k == 0 || m == 0 {
            return (0.0, if m == 0 { 1.0 } else { 0.0 });
        }
        let tail = 0.5 * (1.0 - confidence);
        let (a, b) = (k as f64, (n + 1 - k) as f64);
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
}

/// The fewest calibration scores with which some score has `p < rate`.
pub fn minimum_samples(rate: f64) -> usize {
    if rate.is_nan() || rate <= 0.0 {
        return usize::MAX;
    }
    let guess = (1.0 / rate).floor().min(1e15) as usize;
    (guess.saturating_sub(2)..).find(|n| rank(*n, rate) > 0).unwrap_or(usize::MAX)
}

/// The exact interval (Clopper and Pearson 1934) of a rate of which `count` of `m` was seen.
pub fn clopper_pearson(count: usize, m: usize, confidence: f64) -> (f64, f64) {
    let tail = 0.5 * (1.0 - confidence);
    let (k, m) = (count.min(m) as f64, m as f64);
    let low = if k == 0.0 { 0.0 } else { special::beta_quantile(tail, k, m - k + 1.0) };
    let high = if k == m { 1.0 } else { special::beta_quantile(1.0 - tail, k + 1.0, m - k) };
    (low, high)
}

/// How many counts `c` have `(1 + c) / (n + 1) < rate`, computed as the p-value is.
fn rank(n: usize, rate: f64) -> usize {
    let passes = |c: usize| ((1 + c) as f64 / (n + 1) as f64) < rate;
    let mut k = ((rate * (n + 1) as f64).max(0.0) as usize).saturating_sub(2).min(n);
    while k > 0 && !passes(k - 1) {
        k -= 1;
    }
    while k <= n && passes(k) {
        k += 1;
    }
    k.min(n)
}
