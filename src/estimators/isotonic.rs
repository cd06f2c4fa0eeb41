//! IsotonicRegression: the monotone function of the score nearest to the targets in weighted least squares.

use super::{Error, check_finite, check_length};

const NAME: &str = "IsotonicRegression";

/// Scores nearer than this are one score (scikit-learn's resolution of f64).
const RESOLUTION: f64 = 1e-15;

/// Parameters of [`IsotonicRegression::fit`].
#[derive(Debug, Clone, PartialEq)]
pub struct IsotonicRegressionParams {
    pub y_min: Option<f64>,
    pub y_max: Option<f64>,
    /// Whether the function rises with the score, or falls.
    pub increasing: bool,
}

impl Default for IsotonicRegressionParams {
    fn default() -> Self {
        IsotonicRegressionParams { y_min: None, y_max: None, increasing: true }
    }
}

/// A fitted monotone function: linear between its thresholds, constant beyond them.
#[derive(Debug, Clone, PartialEq)]
pub struct IsotonicRegression {
    /// Scores, strictly rising.
    pub x_thresholds: Vec<f64>,
    /// The value at each of them.
    pub y_thresholds: Vec<f64>,
}

/// A run of equal values while pooling.
struct Block {
    value: f64,
    weight: f64,
    len: usize,
}

impl IsotonicRegression {
    /// Fits `y` on `x` by pooling adjacent violators; samples of weight 0 are left out.
    ///
    /// Equal scores are pooled into their weighted mean first, and thresholds inside a flat run are dropped.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::NotFinite`], [`Error::Parameter`] for a negative weight or `y_min > y_max`,
    /// [`Error::TooFewSamples`] when no weight is positive.
    pub fn fit(
        x: &[f64],
        y: &[f64],
        sample_weight: Option<&[f64]>,
        params: &IsotonicRegressionParams,
    ) -> Result<IsotonicRegression, Error> {
        check_length(NAME, "y", x.len(), y.len())?;
        check_finite(NAME, x)?;
        check_finite(NAME, y)?;
        if let Some(weights) = sample_weight {
            check_length(NAME, "sample_weight", x.len(), weights.len())?;
            check_finite(NAME, weights)?;
            if weights.iter().any(|w| *w < 0.0) {
                return Err(Error::parameter(NAME, "sample_weight", "must not be negative"));
            }
        }
        let (low, high) = (params.y_min.unwrap_or(f64::NEG_INFINITY), params.y_max.unwrap_or(f64::INFINITY));
        if low.is_nan() || high.is_nan() || low > high {
            return Err(Error::parameter(NAME, "y_min", "must be at most y_max"));
        }
        let mut samples: Vec<(f64, f64, f64)> = x
            .iter()
            .zip(y)
            .enumerate()
            .map(|(i, (x, y))| (*x, *y, sample_weight.map_or(1.0, |w| w[i])))
            .filter(|s| s.2 > 0.0)
            .collect();
        if samples.is_empty() {
            return Err(Error::TooFewSamples { estimator: NAME, needed: 1, got: 0 });
        }
        samples.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let (xs, ys, weights) = unique(&samples);
        let values: Vec<f64> = pool(&ys, &weights, params.increasing).into_iter().map(|v| v.clamp(low, high)).collect();
        let last = values.len() - 1;
        let keep = |i: usize| i == 0 || i == last || values[i] != values[i - 1] || values[i] != values[i + 1];
        let (x_thresholds, y_thresholds) = (0..=last).filter(|i| keep(*i)).map(|i| (xs[i], values[i])).unzip();
        Ok(IsotonicRegression { x_thresholds, y_thresholds })
    }

    /// The value for one score; NaN for NaN.
    pub fn predict_one(&self, x: f64) -> f64 {
        let (xs, ys) = (&self.x_thresholds, &self.y_thresholds);
        let above = xs.partition_point(|t| *t <= x);
        if x.is_nan() || xs.is_empty() {
            return f64::NAN;
        }
        if above == 0 || above == xs.len() {
            return ys[above.saturating_sub(1)];
        }
        let (x0, x1, y0, y1) = (xs[above - 1], xs[above], ys[above - 1], ys[above]);
        (y1 - y0) / (x1 - x0) * (x - x0) + y0
    }
}

/// Replaces samples of the same score by their weighted mean.
fn unique(samples: &[(f64, f64, f64)]) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut xs, mut ys, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    let (mut current, mut y_sum, mut weight) = (samples[0].0, 0.0, 0.0);
    for (x, y, w) in samples {
        if x - current >= RESOLUTION {
            xs.push(current);
            ys.push(y_sum / weight);
            weights.push(weight);
            (current, y_sum, weight) = (*x, 0.0, 0.0);
        }
        y_sum += y * w;
        weight += w;
    }
    xs.push(current);
    ys.push(y_sum / weight);
    weights.push(weight);
    (xs, ys, weights)
}

/// Pools adjacent violators.
fn pool(y: &[f64], weights: &[f64], increasing: bool) -> Vec<f64> {
    let mut blocks: Vec<Block> = Vec::with_capacity(y.len());
    let sign = if increasing { 1.0 } else { -1.0 };
    for (value, weight) in y.iter().zip(weights) {
        let mut block = Block { value: sign * value, weight: *weight, len: 1 };
        while let Some(previous) = blocks.pop_if(|previous| previous.value >= block.value) {
            let weight = previous.weight + block.weight;
            block = Block {
                value: (previous.value * previous.weight + block.value * block.weight) / weight,
                weight,
                len: previous.len + block.len,
            };
        }
        blocks.push(block);
    }
    blocks.iter().flat_map(|b| std::iter::repeat_n(sign * b.value, b.len)).collect()
}
