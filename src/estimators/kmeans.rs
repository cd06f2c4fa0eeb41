//! k-means with k-means++ seeding, as scikit-learn's `KMeans(n_init=1)`: the start of the mixture.

use super::{linalg, random};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use rayon::prelude::*;

const MAX_ITER: usize = 300;
const TOL: f64 = 1e-4;

/// Cluster of every row; `k` is at most the number of rows.
pub(crate) fn labels(x: ArrayView2<f64>, k: usize, rng: &mut random::Generator) -> Vec<usize> {
    let mean = linalg::column_means(x);
    let x = linalg::centered(x, mean.view());
    let norms = linalg::row_norms_squared(x.view());
    let tol = TOL * norms.sum() / x.len() as f64;
    let mut centers = plus_plus(&x, &norms, k, rng);
    let (mut labels, mut distances) = assign(&x, &norms, &centers);
    for _ in 0..MAX_ITER {
        let next = update(&x, &mut labels, &distances, k);
        let shift: f64 = (&next - &centers).iter().map(|v| v * v).sum();
        centers = next;
        let (new_labels, new_distances) = assign(&x, &norms, &centers);
        let same = new_labels == labels;
        labels = new_labels;
        distances = new_distances;
        if same || shift <= tol {
            break;
        }
    }
    labels
}

/// Greedy k-means++ (Arthur and Vassilvitskii 2007): of 2 + ln k draws by squared distance, the best.
fn plus_plus(x: &Array2<f64>, norms: &Array1<f64>, k: usize, rng: &mut random::Generator) -> Array2<f64> {
    let n = x.nrows();
    let trials = 2 + (k as f64).ln() as usize;
    let mut chosen = vec![random::below(rng, n)];
    let mut closest = distances_to(x, norms, &chosen).column(0).to_owned();
    while chosen.len() < k {
        let total = closest.sum();
        let candidates: Vec<usize> = (0..trials).map(|_| draw(&closest, random::uniform(rng) * total)).collect();
        let mut to = distances_to(x, norms, &candidates);
        for (mut row, limit) in to.outer_iter_mut().zip(&closest) {
            row.mapv_inplace(|v| v.min(*limit));
        }
        let potentials = linalg::column_sums(to.view());
        let best = (0..trials).min_by(|a, b| potentials[*a].total_cmp(&potentials[*b])).unwrap_or(0);
        chosen.push(candidates[best]);
        closest = to.column(best).to_owned();
    }
    x.select(Axis(0), &chosen)
}

/// The first index at which the running sum reaches `at`.
fn draw(weights: &Array1<f64>, at: f64) -> usize {
    let mut sum = 0.0;
    let found = weights.iter().position(|w| {
        sum += w;
        sum > at
    });
    found.unwrap_or(weights.len() - 1)
}

/// Squared distance of every row to the chosen rows.
fn distances_to(x: &Array2<f64>, norms: &Array1<f64>, chosen: &[usize]) -> Array2<f64> {
    let centers = x.select(Axis(0), chosen);
    squared_distances(x, norms, &centers)
}

fn squared_distances(x: &Array2<f64>, norms: &Array1<f64>, centers: &Array2<f64>) -> Array2<f64> {
    let center_norms = linalg::row_norms_squared(centers.view());
    let mut out = linalg::matmul(x.view(), centers.t());
    linalg::par_rows_mut(&mut out, |i, row| {
        for (v, c) in row.iter_mut().zip(&center_norms) {
            *v = (norms[i] + c - 2.0 * *v).max(0.0);
        }
    });
    out
}

/// The nearest centre of every row and the squared distance to it.
fn assign(x: &Array2<f64>, norms: &Array1<f64>, centers: &Array2<f64>) -> (Vec<usize>, Vec<f64>) {
    let distances = squared_distances(x, norms, centers);
    (0..x.nrows())
        .into_par_iter()
        .with_min_len(256)
        .map(|i| {
            let row = distances.row(i);
            row.iter()
                .copied()
                .enumerate()
                .fold((0, f64::INFINITY), |best, (j, v)| if v < best.1 { (j, v) } else { best })
        })
        .unzip()
}

/// Means of the clusters; an empty cluster takes the row farthest from its own centre.
fn update(x: &Array2<f64>, labels: &mut [usize], distances: &[f64], k: usize) -> Array2<f64> {
    let mut counts = vec![0usize; k];
    labels.iter().for_each(|l| counts[*l] += 1);
    if counts.contains(&0) {
        let mut far: Vec<usize> = (0..labels.len()).collect();
        far.sort_by(|a, b| distances[*b].total_cmp(&distances[*a]));
        let mut far = far.into_iter();
        for empty in 0..k {
            if counts[empty] > 0 {
                continue;
            }
            if let Some(row) = far.find(|i| counts[labels[*i]] > 1) {
                counts[labels[row]] -= 1;
                counts[empty] = 1;
                labels[row] = empty;
            }
        }
    }
    let mut centers = Array2::<f64>::zeros((k, x.ncols()));
    for (row, label) in x.outer_iter().zip(labels.iter()) {
        let mut center = centers.row_mut(*label);
        center += &row;
    }
    for (mut center, count) in centers.outer_iter_mut().zip(&counts) {
        center /= (*count).max(1) as f64;
    }
    centers
}
