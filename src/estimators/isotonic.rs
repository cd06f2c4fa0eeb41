//! IsotonicRegression: the monotone function of the score nearest to the targets in weighted least squares.

use super::{Error, check_finite};

const NAME: &str = "IsotonicRegression";

/// Scores nearer than this are one score (scikit-learn's resolution of f64).
const RESOLUTION: f64 = 1e-15;

/// What to answer outside of the scores seen when fitting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfBounds {
    /// The answer at the nearest end.
    Clip,
    /// NaN.
    Nan,
}

/// Parameters of [`IsotonicRegression::fit`].
#[derive(Debug, Clone, PartialEq)]
pub struct IsotonicRegressionParams {
    /// Smallest answer.
    pub y_min: Option<f64>,
    /// Largest answer.
    pub y_max: Option<f64>,
    /// Whether the answer grows with the score, or falls.
    pub increasing: bool,
    pub out_of_bounds: OutOfBounds,
}

impl Default for IsotonicRegressionParams {
    fn default() -> Self {
        IsotonicRegressionParams { y_min: None, y_max: None, increasing: true, out_of_bounds: OutOfBounds::Clip }
    }
}

/// A fitted monotone function: linear between its thresholds.
#[derive(Debug, Clone, PartialEq)]
pub struct IsotonicRegression {
    /// Scores, strictly growing.
    pub x_thresholds: Vec<f64>,
    /// The answer at each of them.
    pub y_thresholds: Vec<f64>,
    pub out_of_bounds: OutOfBounds,
}

/// A run of equal answers while pooling.
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
        let length = |what, got| {
            if got == x.len() { Ok(()) } else { Err(Error::Length { estimator: NAME, what, expected: x.len(), got }) }
        };
        length("y", y.len())?;
        check_finite(NAME, x)?;
        check_finite(NAME, y)?;
        if let Some(weights) = sample_weight {
            length("sample_weight", weights.len())?;
            check_finite(NAME, weights)?;
            if weights.iter().any(|w| *w < 0.0) {
                return Err(parameter("sample_weight", "must not be negative"));
            }
        }
        let (low, high) = (params.y_min.unwrap_or(f64::NEG_INFINITY), params.y_max.unwrap_or(f64::INFINITY));
        if low.is_nan() || high.is_nan() || low > high {
            return Err(parameter("y_min", "must be at most y_max"));
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
        let answers: Vec<f64> =
            pool(&ys, &weights, params.increasing).into_iter().map(|v| v.clamp(low, high)).collect();
        let last = answers.len() - 1;
        let keep = |i: usize| i == 0 || i == last || answers[i] != answers[i - 1] || answers[i] != answers[i + 1];
        let (x_thresholds, y_thresholds) = (0..=last).filter(|i| keep(*i)).map(|i| (xs[i], answers[i])).unzip();
        Ok(IsotonicRegression { x_thresholds, y_thresholds, out_of_bounds: params.out_of_bounds })
    }

    /// The answer for one score; NaN for NaN.
    pub fn predict_one(&self, x: f64) -> f64 {
        let (xs, ys) = (&self.x_thresholds, &self.y_thresholds);
        let (Some(first), Some(last)) = (xs.first(), xs.last()) else { return f64::NAN };
        if x.is_nan() {
            return f64::NAN;
        }
        let outside = x < *first || x > *last;
        if xs.len() == 1 || (outside && self.out_of_bounds == OutOfBounds::Clip) {
            return if x < *first { ys[0] } else { ys[ys.len() - 1] };
        }
        if outside {
            return f64::NAN;
        }
        let above = xs.partition_point(|t| *t <= x);
        if above == xs.len() {
            return ys[above - 1];
        }
        let (x0, x1, y0, y1) = (xs[above - 1], xs[above], ys[above - 1], ys[above]);
        (y1 - y0) / (x1 - x0) * (x - x0) + y0
    }

    /// The answer for every score.
    pub fn predict(&self, x: &[f64]) -> Vec<f64> {
        x.iter().map(|v| self.predict_one(*v)).collect()
    }
}

fn parameter(parameter: &'static str, reason: &str) -> Error {
    Error::Parameter { estimator: NAME, parameter, reason: reason.into() }
}

/// Pools samples of one score into their weighted mean.
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
