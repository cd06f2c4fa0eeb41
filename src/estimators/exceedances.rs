//! How often peaks exceed a level, from peaks that are seen up to another one only.
//!
//! Peaks over a base level come as a Poisson process, and their excesses follow a generalised Pareto distribution
//! (Davison and Smith 1990, "Models for exceedances over high thresholds"). What lies beyond the level at which an alarm
//! is raised may be a peak of the process or something real, and nobody says which. So it is not taken for a peak:
//!
//! - The likelihood is that of the peaks between base and level, each stretch of time with the level that held then
//!   (truncation). Peaks that are known to belong to the process enter wherever they lie.
//! - Of `n` alarms in all, any number may be peaks: the likelihood of their rate is that a Poisson count is at most `n`.
//!   Few alarms say that peaks beyond the level are rare, many say nothing.
//!
//! Shape, scale and rate are averaged over, weighted by their posterior on a grid, as in [`super::tail`].

use super::special::ln_poisson_at_most;
use super::tail::Pareto;

/// Mean and standard deviation of the prior of the shape.
const XI: (f64, f64) = (0.0, 0.15);
/// The same of the logarithm of the scale.
const LN_SIGMA_DEVIATION: f64 = 0.7;
/// Independent peaks that the observed ones are worth: peaks of one hour come from one light, one wind.
const WORTH: f64 = 0.5;
/// Points of the grid with a smaller share of the greatest weight are left out.
const NEGLIGIBLE: f64 = 1e-5;

/// What was seen. Weights say what an observation is worth: 1, or less of what is long ago.
#[derive(Debug, Default)]
pub struct Observed {
    /// Excess over the base, above 0, and weight of each peak.
    pub peaks: Vec<(f64, f64)>,
    /// Time watched, weighted, and the excess up to which peaks were seen in it; infinite: all.
    pub watched: Vec<(f64, f64)>,
    /// Weighted number of alarms: of all that passed those levels.
    pub alarms: f64,
    /// Expected scale of the excesses.
    pub scale: f64,
}

/// The posterior of rate, shape and scale.
#[derive(Debug)]
pub struct Exceedances {
    points: Vec<Point>,
}

#[derive(Debug)]
struct Point {
    pareto: Pareto,
    /// Peaks over the base per unit of time: mean, and relative standard deviation.
    rate: f64,
    spread: f64,
    weight: f64,
}

impl Exceedances {
    /// None where nothing was watched.
    pub fn fit(seen: &Observed) -> Option<Exceedances> {
        let total: f64 = seen.watched.iter().map(|(time, _)| time).sum();
        if !(total > 0.0 && seen.scale > 0.0) {
            return None;
        }
        let count: f64 = seen.peaks.iter().map(|(_, weight)| weight).sum();
        let mut points = Vec::new();
        for step in 0..9 {
            let xi = -0.3 + 0.1 * f64::from(step);
            for step in 0..25 {
                let ln_ratio = -1.6 + 0.13 * f64::from(step);
                let pareto = Pareto { xi, sigma: seen.scale * ln_ratio.exp() };
                let density: f64 = seen.peaks.iter().map(|(excess, weight)| weight * pareto.ln_density(*excess)).sum();
                if !density.is_finite() {
                    continue;
                }
                let beyond: f64 = seen.watched.iter().map(|(time, limit)| time * pareto.survival(*limit)).sum();
                let inside = total - beyond;
                if inside <= 1e-9 * total {
                    continue;
                }
                // The rate has a gamma posterior, and is integrated out of the rest.
                let n = WORTH * count + 0.5;
                let rate = n / (WORTH * inside);
                let ln_likelihood = WORTH * density - n * inside.ln() + ln_poisson_at_most(seen.alarms, rate * beyond);
                let prior = |value: f64, (mean, deviation): (f64, f64)| -0.5 * ((value - mean) / deviation).powi(2);
                let ln_prior = prior(xi, XI) + prior(ln_ratio, (0.0, LN_SIGMA_DEVIATION));
                points.push(Point { pareto, rate, spread: n.sqrt().recip(), weight: ln_likelihood + ln_prior });
            }
        }
        let greatest = points.iter().map(|point| point.weight).fold(f64::NEG_INFINITY, f64::max);
        points.iter_mut().for_each(|point| point.weight = (point.weight - greatest).exp());
        points.retain(|point| point.weight > NEGLIGIBLE);
        let sum: f64 = points.iter().map(|point| point.weight).sum();
        points.iter_mut().for_each(|point| point.weight /= sum);
        (!points.is_empty()).then_some(Exceedances { points })
    }

    /// The probability that no more than `rate` peaks per unit of time exceed the base by `excess`.
    pub fn confidence(&self, excess: f64, rate: f64) -> f64 {
        let sum = self.points.iter().map(|point| {
            let mean = point.rate * point.pareto.survival(excess);
            // The gamma posterior by Wilson and Hilferty, the normal distribution by a logistic one.
            let ninth = point.spread * point.spread / 9.0;
            let z = ((rate / mean.max(1e-300)).cbrt() - 1.0 + ninth) / ninth.sqrt();
            point.weight / (1.0 + (-1.702 * z).exp())
        });
        sum.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forty peaks a day over ten days, exponential excesses of scale 0.5, without the luck of a draw.
    fn peaks() -> Vec<f64> {
        (0..400).map(|at| -0.5 * ((f64::from(at) + 0.5) / 400.0).ln()).collect()
    }

    fn seen(limit: f64, alarms: f64, days: f64) -> Observed {
        let peaks = peaks().into_iter().filter(|peak| *peak < limit).map(|peak| (peak, days / 10.0)).collect();
        Observed { peaks, watched: vec![(days, limit.min(100.0))], alarms, scale: 0.5 }
    }

    /// The excess that is passed no more than once a day, with such a probability.
    fn once_a_day(seen: &Observed, confidence: f64) -> f64 {
        let fitted = Exceedances::fit(seen).unwrap();
        (0..2000).map(|at| 0.01 * f64::from(at)).find(|excess| fitted.confidence(*excess, 1.0) >= confidence).unwrap()
    }

    #[test]
    fn the_level_is_found_from_below_the_threshold() {
        let truth = 0.5 * 40.0_f64.ln();
        for limit in [f64::INFINITY, 2.5, 1.5, 1.0] {
            let got = once_a_day(&seen(limit, 1e3, 10.0), 0.5);
            assert!((got - truth).abs() < 0.4, "limit {limit}: {got} instead of {truth}");
        }
    }

    #[test]
    fn few_alarms_say_more_than_many() {
        let [none, some, many] = [0.0, 40.0, 1e4].map(|alarms| once_a_day(&seen(1.0, alarms, 10.0), 0.5));
        assert!(none < some && some <= many, "{none} {some} {many}");
    }

    #[test]
    fn little_watched_is_less_sure() {
        let level = |days| once_a_day(&seen(f64::INFINITY, 0.0, days), 0.9);
        assert!(level(0.25) > level(1.0) && level(1.0) > level(10.0), "{} {} {}", level(0.25), level(1.0), level(10.0));
        assert!(Exceedances::fit(&Observed { scale: 1.0, ..Observed::default() }).is_none());
    }
}
