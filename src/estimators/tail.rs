//! The lower tail of held-out scores: the probability of a normal that scores below nearly all that were seen.
//!
//! Counting cannot resolve p below `1 / (n + 1)`, and a few pictures that are not normal, or a long tail, lower the counted
//! threshold a lot. Excesses over a high threshold follow a generalised Pareto distribution (Pickands 1975; Balkema and
//! de Haan 1974): for a score `s` below `u`, p is `p(u) (1 + xi (u - s) / sigma)^(-1 / xi)`.
//!
//! - `u` is the quantile [`SHARE`] of the scores.
//! - The lowest [`CENSORED`] of the scores enter as "at least as low as the next" (type II censoring): that many of the
//!   pictures may be outliers, and how low they score does not affect the fit.
//! - `xi` and `sigma` are not estimated but averaged over, weighted by their posterior on a grid: p is the predictive
//!   probability, which is larger with fewer scores. The priors are weak: `xi` is normal around [`XI`], between the
//!   exponential tail of log densities and the heavier one of mixed populations; `ln sigma` is normal around the value
//!   that the spread between `u` and the median implies.
//! - Scores of consecutive frames are worth fewer independent ones: the likelihood is raised to the power `worth / n` (a
//!   composite likelihood, magnitude-adjusted as by Pauli, Racugno and Ventura 2011).
//!
//! The result is a table of p and its 95 % interval, between whose entries `ln p` is linear in the logarithm of the excess.

use super::{quantile, special, thinned};

/// Share of the scores that the tail is fitted to.
const SHARE: f64 = 0.2;
/// Fewest scores in the tail; half of all where there are fewer than twice as many.
const FEWEST: usize = 10;
/// Share of the scores that may be those of outliers.
const CENSORED: f64 = 0.03;
/// Mean and standard deviation of the prior of the shape.
const XI: (f64, f64) = (0.1, 0.15);
/// Mean and standard deviation of the prior of `ln(sigma / (median - quantile of SHARE))`.
const LN_SIGMA: (f64, f64) = (0.1, 0.5);
/// More scores are replaced by this number of evenly spaced quantiles.
const MAX_SCORES: usize = 5000;
/// Points of the grid with a smaller weight, relative to the greatest, are dropped.
const NEGLIGIBLE: f64 = 1e-6;
/// The number of quantiles that represent a distribution when intervals are computed.
const STRATA: usize = 32;
/// Entries of the table: excesses from a twentieth of the typical one upwards, each larger by [`STEP`].
pub const KNOTS: usize = 48;
const STEP: f64 = 1.2;
/// The smallest p: the calibration's arithmetic in f64 loses nothing above it.
const MIN_P: f64 = 1e-12;
/// The confidence of every interval.
pub(super) const CONFIDENCE: f64 = 0.95;

/// How many of `n` scores make the tail.
pub(super) fn tail_len(n: usize) -> usize {
    ((SHARE * n as f64).round() as usize).max(FEWEST.min(n / 2))
}

/// How many of those may be outliers'.
pub(super) fn censored(n: usize) -> usize {
    ((CENSORED * n as f64).round() as usize).min(tail_len(n).saturating_sub(4))
}

/// p of one score, and the interval that holds the true rate of lower scores with 95 % probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knot {
    pub score: f64,
    pub p: f64,
    pub low: f64,
    pub high: f64,
}

/// A fitted tail: knots by rising score, the last one at `u`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tail {
    pub knots: Vec<Knot>,
}

/// The generalised Pareto distribution of excesses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pareto {
    pub xi: f64,
    pub sigma: f64,
}

impl Pareto {
    /// The probability of an excess above `excess`.
    pub fn survival(&self, excess: f64) -> f64 {
        self.ln_survival(excess).exp()
    }

    pub fn ln_survival(&self, excess: f64) -> f64 {
        if self.xi.abs() < 1e-9 {
            return -excess / self.sigma;
        }
        let base = 1.0 + self.xi * excess / self.sigma;
        if base <= 0.0 { f64::NEG_INFINITY } else { -base.ln() / self.xi }
    }

    /// Minus infinity for an excess that cannot be.
    pub fn ln_density(&self, excess: f64) -> f64 {
        (1.0 + self.xi) * self.ln_survival(excess) - self.sigma.ln()
    }
}

/// A weighted point of the grid.
struct Point {
    pareto: Pareto,
    weight: f64,
}

impl Point {
    fn survival(&self, excess: f64) -> f64 {
        self.pareto.survival(excess)
    }
}

impl Tail {
    /// Fits the lower tail of rising finite scores that are worth `worth` independent ones. None with fewer than
    /// [`FEWEST`] scores, or without spread between the tail's start and the median.
    pub fn fit(sorted: &[f64], worth: f64) -> Option<Tail> {
        if sorted.len() < FEWEST {
            return None;
        }
        let scores = &thinned(sorted, MAX_SCORES);
        let n = scores.len();
        let m = tail_len(n);
        let start = scores[m];
        let spread = quantile(scores, 0.5) - quantile(scores, SHARE);
        let censored = censored(n);
        let excesses: Vec<f64> = scores[censored..m].iter().rev().map(|score| start - score).collect();
        let typical = excesses.iter().sum::<f64>() / excesses.len() as f64;
        if !(spread > 0.0 && typical > 0.0 && start.is_finite()) {
            return None;
        }
        let weight = (worth / n as f64).min(1.0);
        let points = posterior(&excesses, censored, weight, spread, typical);
        let share = sorted.partition_point(|score| *score <= start) as f64 / (sorted.len() + 1) as f64;
        let of_share = strata_of_share(share, worth);
        let knot = |excess: f64| {
            let mean: f64 = points.iter().map(|point| point.weight * point.survival(excess)).sum();
            let (low, high) = interval(&points, excess, &of_share);
            Knot { score: start - excess, p: (share * mean).max(MIN_P), low, high: high.max(MIN_P) }
        };
        let mut excess = typical / 20.0;
        let mut knots = vec![knot(0.0)];
        for _ in 1..KNOTS {
            knots.push(knot(excess));
            excess *= STEP;
        }
        knots.reverse();
        Some(Tail { knots })
    }

    /// The score above which p is counted.
    pub fn start(&self) -> f64 {
        self.knots.last().map_or(f64::NEG_INFINITY, |knot| knot.score)
    }

    /// p at the start.
    pub fn share(&self) -> f64 {
        self.knots.last().map_or(0.0, |knot| knot.p)
    }

    /// p of a score at or below [`Tail::start`], extrapolated below the table.
    pub fn p(&self, score: f64) -> f64 {
        self.at(score, |knot| knot.p).max(MIN_P)
    }

    /// The interval that holds the rate of scores below `score` with 95 % probability.
    pub fn interval(&self, score: f64) -> (f64, f64) {
        (self.at(score, |knot| knot.low), self.at(score, |knot| knot.high))
    }

    fn at(&self, score: f64, value: impl Fn(&Knot) -> f64) -> f64 {
        let start = self.start();
        let above = self.knots.partition_point(|knot| knot.score < score).max(1).min(self.knots.len() - 1);
        let (lower, upper) = (&self.knots[above - 1], &self.knots[above]);
        let ln = |knot: &Knot| value(knot).max(1e-300).ln();
        // ln p is linear in the excess in the interval at the start, in its logarithm elsewhere.
        let place = |score: f64| if upper.score >= start { start - score } else { (start - score).ln() };
        let (from, to) = (place(upper.score), place(lower.score));
        let way = (place(score) - from) / (to - from);
        (ln(upper) + way * (ln(lower) - ln(upper))).exp().min(value(upper))
    }
}

/// The points of the grid that are not negligible, with weights that sum to 1.
fn posterior(excesses: &[f64], censored: usize, weight: f64, spread: f64, typical: f64) -> Vec<Point> {
    let furthest = excesses.iter().copied().fold(0.0, f64::max);
    let mut points = Vec::new();
    for step in 0..49 {
        let xi = -0.4 + 0.025 * f64::from(step);
        for step in 0..91 {
            let ln_sigma = typical.ln() - 2.0 + 0.05 * f64::from(step);
            let sigma = ln_sigma.exp();
            let pareto = Pareto { xi, sigma };
            let ln_survival = pareto.ln_survival(furthest);
            if ln_survival == f64::NEG_INFINITY {
                continue;
            }
            let ln_density: f64 = excesses.iter().map(|excess| pareto.ln_density(*excess)).sum();
            let ln_likelihood = ln_density + censored as f64 * ln_survival;
            let prior = |value: f64, (mean, deviation): (f64, f64)| -0.5 * ((value - mean) / deviation).powi(2);
            let ln_prior = prior(xi, XI) + prior(ln_sigma - spread.ln(), LN_SIGMA);
            points.push(Point { pareto, weight: weight * ln_likelihood + ln_prior });
        }
    }
    let greatest = points.iter().map(|point| point.weight).fold(f64::NEG_INFINITY, f64::max);
    points.iter_mut().for_each(|point| point.weight = (point.weight - greatest).exp());
    points.retain(|point| point.weight > NEGLIGIBLE);
    let sum: f64 = points.iter().map(|point| point.weight).sum();
    points.iter_mut().for_each(|point| point.weight /= sum);
    points
}

/// The share of normals beyond the start follows a beta distribution: its quantiles, evenly spaced.
fn strata_of_share(share: f64, worth: f64) -> Vec<f64> {
    let (a, b) = (share * worth + 0.5, (1.0 - share) * worth + 0.5);
    (0..STRATA).map(|at| special::beta_quantile((at as f64 + 0.5) / STRATA as f64, a, b)).collect()
}

/// Quantiles of the product of the share and the probability of a greater excess, taken as independent.
fn interval(points: &[Point], excess: f64, of_share: &[f64]) -> (f64, f64) {
    let mut survivals: Vec<(f64, f64)> = points.iter().map(|p| (p.survival(excess), p.weight)).collect();
    survivals.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut rates = Vec::with_capacity(STRATA * of_share.len());
    let (mut sum, mut at) = (0.0, 0);
    for stratum in 0..STRATA {
        let wanted = (stratum as f64 + 0.5) / STRATA as f64;
        while at + 1 < survivals.len() && sum + survivals[at].1 < wanted {
            sum += survivals[at].1;
            at += 1;
        }
        rates.extend(of_share.iter().map(|share| share * survivals[at].0));
    }
    rates.sort_by(f64::total_cmp);
    let tail = 0.5 * (1.0 - CONFIDENCE);
    (quantile(&rates, tail), quantile(&rates, 1.0 - tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Negated quantiles of a generalised Pareto distribution.
    fn pareto(n: usize, xi: f64) -> Vec<f64> {
        let excess = |u: f64| if xi == 0.0 { -u.ln() } else { (u.powf(-xi) - 1.0) / xi };
        (0..n).map(|at| -excess((at as f64 + 0.5) / n as f64)).collect()
    }

    #[test]
    fn known_tails_are_found() {
        for xi in [0.0, 0.1, 0.3] {
            let scores = pareto(2000, xi);
            let tail = Tail::fit(&scores, 2000.0).unwrap();
            for p in [0.1_f64, 0.01, 0.001] {
                let score = -if xi == 0.0 { -p.ln() } else { (p.powf(-xi) - 1.0) / xi };
                let (got, (low, high)) = (tail.p(score), tail.interval(score));
                assert!((got / p).ln().abs() < 0.5, "xi {xi}: {got} instead of {p}");
                assert!(low < p && p < high, "xi {xi}: {p} is not in {low} to {high}");
            }
        }
    }

    #[test]
    fn p_falls_with_the_score_and_stays_positive() {
        for n in [10, 31, 300, 20_000] {
            let tail = Tail::fit(&pareto(n, 0.0), n as f64).unwrap();
            let mut before = 0.0;
            for step in (0..4000).rev() {
                let score = tail.start() - 0.01 * f64::from(step);
                let (p, (low, high)) = (tail.p(score), tail.interval(score));
                assert!(p >= before && p > 0.0 && low <= high, "{n}: {p} at {score}");
                before = p;
            }
            assert!((tail.p(tail.start()) - tail.share()).abs() < 1e-12);
            assert!(tail.p(f64::MIN) > 0.0 && tail.p(f64::MIN) < 1e-5, "{n}: {}", tail.p(f64::MIN));
        }
    }

    #[test]
    fn three_percent_of_outliers_have_little_effect() {
        let clean = pareto(300, 0.0);
        let mut wrong = clean.clone();
        wrong[..9].iter_mut().enumerate().for_each(|(at, score)| *score = -200.0 + at as f64);
        let (clean, wrong) = (Tail::fit(&clean, 300.0).unwrap(), Tail::fit(&wrong, 300.0).unwrap());
        for score in [-3.0, -4.6, -6.9] {
            assert!((clean.p(score) / wrong.p(score)).ln().abs() < 0.05, "{} {}", clean.p(score), wrong.p(score));
        }
    }

    #[test]
    fn fewer_independent_scores_give_wider_intervals() {
        let scores = pareto(500, 0.0);
        let (sure, unsure) = (Tail::fit(&scores, 500.0).unwrap(), Tail::fit(&scores, 20.0).unwrap());
        let width = |tail: &Tail| {
            let (low, high) = tail.interval(-4.6);
            high / low.max(1e-9)
        };
        assert!(width(&unsure) > 3.0 * width(&sure));
        assert!(unsure.p(-9.2) > sure.p(-9.2));
    }

    #[test]
    fn no_spread_is_no_tail() {
        assert_eq!(Tail::fit(&[1.0; 50], 50.0), None);
        assert_eq!(Tail::fit(&pareto(9, 0.0), 9.0), None);
    }
}
