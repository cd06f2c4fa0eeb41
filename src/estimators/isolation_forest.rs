//! IsolationForest: outliers are cut off from the rest by fewer random splits (Liu, Ting, Zhou 2008).

use super::{Error, check_array, check_features, quantile, random};
use ndarray::{ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

const NAME: &str = "IsolationForest";
const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;

/// Values closer than this are not split (scikit-learn's FEATURE_THRESHOLD).
const FEATURE_THRESHOLD: f64 = 1e-7;

/// How many samples or features a tree draws.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    Count(usize),
    /// Of all, in (0, 1].
    Share(f64),
}

/// Where the decision function is zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Contamination {
    /// At a score of -0.5, as in the paper.
    Auto,
    /// So that this share of the training samples is negative, in (0, 0.5].
    Share(f64),
}

/// Parameters of [`IsolationForest::fit`].
#[derive(Debug, Clone, PartialEq)]
pub struct IsolationForestParams {
    pub n_estimators: usize,
    /// Samples per tree; at most all.
    pub max_samples: Amount,
    /// Features per tree.
    pub max_features: Amount,
    pub contamination: Contamination,
    pub random_state: u64,
}

impl Default for IsolationForestParams {
    fn default() -> Self {
        IsolationForestParams {
            n_estimators: 40,
            max_samples: Amount::Share(1.0),
            max_features: Amount::Share(1.0),
            contamination: Contamination::Auto,
            random_state: 0,
        }
    }
}

/// One tree; node 0 is the root, a node with `left == 0` is a leaf.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tree {
    /// Feature that each node splits on.
    pub feature: Vec<u32>,
    /// Samples at most this large go left.
    pub threshold: Vec<f64>,
    pub left: Vec<u32>,
    pub right: Vec<u32>,
    /// Training samples that reached each node.
    pub n_node_samples: Vec<u32>,
}

/// A fitted forest.
#[derive(Debug, Clone, PartialEq)]
pub struct IsolationForest {
    pub trees: Vec<Tree>,
    pub n_features: usize,
    /// Samples per tree.
    pub max_samples: usize,
    /// Subtracted from the score.
    pub offset: f64,
}

impl IsolationForest {
    /// Grows the trees, in parallel; each has its own random stream, so the forest does not depend on the threads.
    ///
    /// Values are rounded to f32, as scikit-learn does.
    ///
    /// # Errors
    /// [`Error::TooFewSamples`], [`Error::NotFinite`], [`Error::Parameter`].
    pub fn fit(x: ArrayView2<f64>, params: &IsolationForestParams) -> Result<IsolationForest, Error> {
        check_array(NAME, &x, 1)?;
        let (n, d) = x.dim();
        if params.n_estimators == 0 {
            return Err(parameter("n_estimators", "must be at least 1"));
        }
        if let Contamination::Share(share) = params.contamination
            && !(share > 0.0 && share <= 0.5)
        {
            return Err(parameter("contamination", "must lie in (0, 0.5]"));
        }
        let max_samples = amount("max_samples", params.max_samples, n)?.min(n);
        let max_features = amount("max_features", params.max_features, d)?;
        if max_features > d {
            return Err(parameter("max_features", "must not be above the number of features"));
        }
        let columns: Vec<f32> = x.axis_iter(Axis(1)).flat_map(|c| c.into_iter().map(|v| *v as f32)).collect();
        if let Some(at) = columns.iter().position(|v| !v.is_finite()) {
            return Err(Error::NotFinite { estimator: NAME, sample: at % n });
        }
        let data = Columns { values: &columns, n };
        let max_depth = (max_samples.max(2) as f64).log2().ceil() as usize;
        let mut seeds = random::seeded(params.random_state);
        let seeds: Vec<u64> = (0..params.n_estimators).map(|_| random::word(&mut seeds)).collect();
        let trees: Vec<Tree> = seeds
            .into_par_iter()
            .map(|seed| {
                let mut rng = random::seeded(seed);
                let samples = random::subset(&mut rng, n, max_samples);
                let features = random::subset(&mut rng, d, max_features);
                grow(&data, samples, features, max_depth, &mut rng)
            })
            .collect();
        let mut forest = IsolationForest { trees, n_features: d, max_samples, offset: -0.5 };
        if let Contamination::Share(share) = params.contamination {
            let rows: Vec<ArrayView1<f64>> = x.outer_iter().collect();
            let mut scores: Vec<f64> = rows.into_par_iter().with_min_len(16).map(|row| forest.score(row)).collect();
            scores.sort_by(f64::total_cmp);
            forest.offset = quantile(&scores, share);
        }
        Ok(forest)
    }

    /// Score of one sample in [-1, 0): `-2^(-E(path length) / c(max_samples))`. Does not allocate.
    ///
    /// # Errors
    /// [`Error::Features`] when the width differs.
    pub fn score_one(&self, x: ArrayView1<f64>) -> Result<f64, Error> {
        check_features(NAME, self.n_features, x.len())?;
        Ok(self.score(x))
    }

    fn score(&self, x: ArrayView1<f64>) -> f64 {
        let depth: f64 = self.trees.iter().map(|tree| tree.path_length(x)).sum();
        let expected = self.trees.len() as f64 * average_path_length(self.max_samples);
        let relative = if expected == 0.0 { 1.0 } else { depth / expected };
        -(-relative).exp2()
    }
}

impl Tree {
    /// Splits on the path of `x`, plus the mean path length within its leaf.
    fn path_length(&self, x: ArrayView1<f64>) -> f64 {
        let (mut node, mut depth) = (0, 0.0);
        while self.left[node] != 0 {
            let low = f64::from(x[self.feature[node] as usize] as f32) <= self.threshold[node];
            node = if low { self.left[node] } else { self.right[node] } as usize;
            depth += 1.0;
        }
        depth + average_path_length(self.n_node_samples[node] as usize)
    }

    fn push(&mut self, samples: usize) -> u32 {
        self.feature.push(0);
        self.threshold.push(0.0);
        self.left.push(0);
        self.right.push(0);
        self.n_node_samples.push(samples as u32);
        self.left.len() as u32 - 1
    }
}

/// Mean path length of an unsuccessful search in a binary tree of `n` samples: `c(n)` of the paper.
pub fn average_path_length(n: usize) -> f64 {
    match n {
        0 | 1 => 0.0,
        2 => 1.0,
        _ => {
            let n = n as f64;
            2.0 * ((n - 1.0).ln() + EULER_GAMMA) - 2.0 * (n - 1.0) / n
        }
    }
}

fn parameter(parameter: &'static str, reason: &str) -> Error {
    Error::parameter(NAME, parameter, reason)
}

fn amount(name: &'static str, amount: Amount, all: usize) -> Result<usize, Error> {
    match amount {
        Amount::Count(0) => Err(parameter(name, "must be at least 1")),
        Amount::Count(count) => Ok(count),
        Amount::Share(share) if share > 0.0 && share <= 1.0 => Ok(((share * all as f64) as usize).max(1)),
        Amount::Share(_) => Err(parameter(name, "must lie in (0, 1]")),
    }
}

/// The samples by feature.
struct Columns<'a> {
    values: &'a [f32],
    n: usize,
}

impl Columns<'_> {
    fn of(&self, feature: u32) -> &[f32] {
        &self.values[feature as usize * self.n..][..self.n]
    }
}

/// Splits at a uniform threshold of a random feature that varies, down to `max_depth` or one sample.
fn grow(
    data: &Columns,
    mut samples: Vec<u32>,
    mut features: Vec<u32>,
    max_depth: usize,
    rng: &mut random::Generator,
) -> Tree {
    let mut tree = Tree::default();
    tree.push(samples.len());
    let mut todo = vec![(0u32, 0usize, samples.len(), 0usize)];
    while let Some((node, start, end, depth)) = todo.pop() {
        if depth >= max_depth || end - start < 2 {
            continue;
        }
        let here = &mut samples[start..end];
        let Some((feature, low, high)) = varying_feature(data, here, &mut features, rng) else { continue };
        let mut threshold = low + random::uniform(rng) * (high - low);
        if threshold >= high {
            threshold = low;
        }
        let column = data.of(feature);
        let mut split = 0;
        for i in 0..here.len() {
            if f64::from(column[here[i] as usize]) <= threshold {
                here.swap(split, i);
                split += 1;
            }
        }
        let middle = start + split;
        let (left, right) = (tree.push(middle - start), tree.push(end - middle));
        let at = node as usize;
        (tree.feature[at], tree.threshold[at], tree.left[at], tree.right[at]) = (feature, threshold, left, right);
        todo.push((right, middle, end, depth + 1));
        todo.push((left, start, middle, depth + 1));
    }
    tree
}

/// A feature drawn among those that vary on the samples, with its range.
fn varying_feature(
    data: &Columns,
    samples: &[u32],
    features: &mut [u32],
    rng: &mut random::Generator,
) -> Option<(u32, f64, f64)> {
    for left in (1..=features.len()).rev() {
        features.swap(random::below(rng, left), left - 1);
        let feature = features[left - 1];
        let column = data.of(feature);
        let (low, high) = samples.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), i| {
            let v = column[*i as usize];
            (low.min(v), high.max(v))
        });
        let (low, high) = (f64::from(low), f64::from(high));
        if high > low + FEATURE_THRESHOLD {
            return Some((feature, low, high));
        }
    }
    None
}
