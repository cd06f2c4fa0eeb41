//! Which range of real values the 256 levels of a map cover.

use crate::backbone::passes::quant::Quant;

/// Bins on each side of 0.
const HALF: usize = 4096;

/// Candidates of the search for the least squared error, as parts of the observed range.
const CANDIDATES: usize = 96;

/// How ranges are chosen from what was seen while calibrating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ranges {
    /// The range with the least squared error between the real and the rounded values.
    #[default]
    Mse,
    /// All but the outermost 0.01 % of the values.
    Percentile,
    /// Everything that was seen.
    MinMax,
}

impl std::str::FromStr for Ranges {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "mse" => Ok(Ranges::Mse),
            "percentile" => Ok(Ranges::Percentile),
            "minmax" => Ok(Ranges::MinMax),
            _ => Err(format!("unknown ranges '{name}': use mse, percentile or minmax")),
        }
    }
}

impl std::fmt::Display for Ranges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ranges::Mse => "mse",
            Ranges::Percentile => "percentile",
            Ranges::MinMax => "minmax",
        })
    }
}

/// Share of the values that `percentile` leaves out.
const LEFT_OUT: f64 = 1e-4;

/// How often which values were seen, in bins of one width about 0. The width is a power of two that grows with the
/// values, so that the order in which they come does not matter.
#[derive(Debug, Clone)]
pub struct Histogram {
    width: f32,
    counts: Vec<u64>,
    /// Values that are 0: most of what a ReLU gives, and always exact.
    zeros: u64,
    min: f32,
    max: f32,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { width: f32::MIN_POSITIVE, counts: vec![0; 2 * HALF], zeros: 0, min: 0.0, max: 0.0 }
    }
}

impl Histogram {
    /// Counts values, each clamped to `bounds` first; false if one of them is not finite.
    pub fn add(&mut self, values: &[f32], [lo, hi]: [f32; 2]) -> bool {
        let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
        let mut finite = true;
        for &v in values {
            finite &= v.is_finite();
            let v = v.clamp(lo, hi);
            (min, max) = (min.min(v), max.max(v));
        }
        if !finite {
            return false;
        }
        (self.min, self.max) = (self.min.min(min), self.max.max(max));
        self.grow(self.max.max(-self.min));
        let per_unit = 1.0 / self.width;
        for &v in values {
            let v = v.clamp(lo, hi);
            if v == 0.0 {
                self.zeros += 1;
            } else {
                let bin = (v * per_unit).floor() as i64 + HALF as i64;
                self.counts[bin.clamp(0, 2 * HALF as i64 - 1) as usize] += 1;
            }
        }
        true
    }

    /// Doubles the width until `reach` lies within the bins.
    fn grow(&mut self, reach: f32) {
        let mut doublings = 0u32;
        while self.width * HALF as f32 <= reach {
            self.width *= 2.0;
            doublings += 1;
        }
        if doublings == 0 {
            return;
        }
        let mut counts = vec![0; 2 * HALF];
        for (i, &n) in self.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            let from_centre = (i as i64 - HALF as i64) >> doublings.min(62);
            counts[(from_centre + HALF as i64) as usize] += n;
        }
        self.counts = counts;
    }

    /// The non-empty bins: centre and count.
    fn bins(&self) -> Vec<(f32, f64)> {
        let centre = |i: usize| (i as f32 - HALF as f32 + 0.5) * self.width;
        let filled = self.counts.iter().enumerate().filter(|(_, n)| **n > 0);
        filled.map(|(i, &n)| (centre(i).clamp(self.min, self.max), n as f64)).collect()
    }

    /// The quantization that `rule` chooses; 0 is always a level.
    pub fn choose(&self, rule: Ranges) -> Quant {
        let (lo, hi) = match rule {
            Ranges::MinMax => (self.min, self.max),
            Ranges::Percentile => self.percentiles(),
            Ranges::Mse => self.least_error(),
        };
        levels(lo, hi)
    }

    fn percentiles(&self) -> (f32, f32) {
        let bins = self.bins();
        let all: f64 = bins.iter().map(|b| b.1).sum::<f64>() + self.zeros as f64;
        let sides = if self.min < 0.0 && self.max > 0.0 { 2.0 } else { 1.0 };
        let out = all * LEFT_OUT / sides;
        let edge = |bins: &mut dyn Iterator<Item = &(f32, f64)>| {
            let mut seen = 0.0;
            for &(value, n) in bins {
                seen += n;
                if seen > out {
                    return value;
                }
            }
            0.0
        };
        (edge(&mut bins.iter().filter(|b| b.0 < 0.0)), edge(&mut bins.iter().rev().filter(|b| b.0 > 0.0)))
    }

    /// Parts of the observed range: of both ends at once first, then of each alone.
    fn least_error(&self) -> (f32, f32) {
        let bins = self.bins();
        let error = |lo: f32, hi: f32| -> f64 {
            let quant = levels(lo, hi);
            bins.iter().map(|&(v, n)| n * f64::from(quant.dequantize(quant.quantize(v)) - v).powi(2)).sum()
        };
        let parts = || (1..=CANDIDATES).rev().map(|i| i as f32 / CANDIDATES as f32);
        let best = |tried: &mut dyn Iterator<Item = (f32, f32)>| {
            let mut best = (f64::INFINITY, (self.min, self.max));
            for (lo, hi) in tried {
                let error = error(lo, hi);
                if error < best.0 {
                    best = (error, (lo, hi));
                }
            }
            best.1
        };
        let (lo, hi) = best(&mut parts().map(|p| (self.min * p, self.max * p)));
        if self.min == 0.0 || self.max == 0.0 {
            return (lo, hi);
        }
        let (lo, hi) = best(&mut std::iter::once((lo, hi)).chain(parts().map(|p| (lo, self.max * p))));
        best(&mut std::iter::once((lo, hi)).chain(parts().map(|p| (self.min * p, hi))))
    }
}

/// 256 levels from `lo` to `hi`, widened to hold 0 and shifted so that 0 is a level.
pub fn levels(lo: f32, hi: f32) -> Quant {
    let (lo, hi) = (lo.min(0.0), hi.max(0.0));
    let scale = (hi - lo) / 255.0;
    // Nothing but 0 was seen, or values too small to divide by: any scale will do.
    let scale = if scale.is_normal() { scale } else { 1.0 / 255.0 };
    Quant { scale, zero: (-lo / scale).round_ties_even().clamp(0.0, 255.0) as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];

    /// 20,000 values of a standard normal, by their quantiles (logistic approximation), and one far away.
    fn bell(far: f32) -> Vec<f32> {
        let mut values: Vec<f32> = (1..20_000)
            .map(|i| {
                let p = i as f32 / 20_000.0;
                (p / (1.0 - p)).ln() / 1.702
            })
            .collect();
        values.push(far);
        values
    }

    fn error(values: &[f32], quant: Quant) -> f64 {
        values.iter().map(|&v| f64::from(quant.dequantize(quant.quantize(v)) - v).powi(2)).sum()
    }

    fn of(values: &[f32]) -> Histogram {
        let mut histogram = Histogram::default();
        assert!(histogram.add(values, FREE));
        histogram
    }

    #[test]
    fn everything_seen_fits_into_the_levels() {
        let quant = of(&[-1.0, 0.25, 3.0]).choose(Ranges::MinMax);
        assert_eq!(quant, Quant { scale: 4.0 / 255.0, zero: 64 });
        assert_eq!(of(&[2.0, 5.1]).choose(Ranges::MinMax), Quant { scale: 0.02, zero: 0 });
        let dead = of(&[0.0; 9]).choose(Ranges::Mse);
        assert_eq!((dead.zero, dead.dequantize(0)), (0, 0.0));
    }

    #[test]
    fn a_percentile_leaves_the_outermost_values_out() {
        let mut values: Vec<f32> = (0..100_000).map(|i| i as f32 / 100_000.0).collect();
        values.extend([50.0; 5]);
        let quant = of(&values).choose(Ranges::Percentile);
        let top = quant.dequantize(255);
        assert!((0.99..1.03).contains(&top), "{top}");
    }

    #[test]
    fn least_error_is_not_above_that_of_any_part_of_the_range() {
        for far in [4.0, 30.0, -80.0] {
            let values = bell(far);
            let histogram = of(&values);
            let chosen = error(&values, histogram.choose(Ranges::Mse));
            assert!(chosen <= error(&values, histogram.choose(Ranges::Percentile)) * 1.02);
            for part in 1..=20 {
                let part = part as f32 / 20.0;
                let tried = error(&values, levels(histogram.min * part, histogram.max * part));
                assert!(chosen <= 1.02 * tried, "{far}: {part}: {chosen} {tried}");
            }
        }
    }

    #[test]
    fn neither_order_nor_pieces_matter() {
        let mut values = bell(300.0);
        let whole = of(&values);
        values.reverse();
        let mut pieces = Histogram::default();
        assert!(values.chunks(977).all(|part| pieces.add(part, FREE)));
        assert_eq!((whole.width, &whole.counts, whole.zeros), (pieces.width, &pieces.counts, pieces.zeros));
    }

    #[test]
    fn an_activation_bounds_what_is_counted() {
        let mut histogram = Histogram::default();
        assert!(histogram.add(&[-3.0, -1.0, 0.5, 9.0], [0.0, 6.0]));
        assert_eq!((histogram.zeros, histogram.min, histogram.max), (2, 0.0, 6.0));
        assert!(!histogram.add(&[f32::NAN], [0.0, 6.0]));
    }
}
