//! Sequential minimal optimisation of the one-class problem, as libsvm does it.
//!
//! Working sets by second-order information (Fan, Chen, Lin 2005, WSS 2), shrinking, and a cache of kernel rows.
//! Missing rows are computed in blocks: one product for the row that is needed and those likely to be needed next.

use super::kernel::Kernel;
use super::linalg;
use ndarray::{Array1, Array2, ArrayView2, Axis};

/// Kernel rows computed at once.
const BLOCK: usize = 32;

/// Stands for a curvature that is not positive (libsvm's TAU).
const TAU: f64 = 1e-12;

/// Rows of the gradient computed at once when it is rebuilt.
const GRADIENT_ROWS: usize = 512;

pub(crate) struct Problem<'a> {
    pub x: ArrayView2<'a, f64>,
    pub kernel: Kernel,
    /// The sum of the weights.
    pub sum: f64,
    pub tol: f64,
    pub shrinking: bool,
    pub cache_bytes: f64,
}

pub(crate) struct Solution {
    pub alpha: Vec<f64>,
    pub rho: f64,
    pub n_iter: usize,
    /// Whether no kernel value overflowed.
    pub finite: bool,
}

/// Solves for weights in [0, 1] that sum to `problem.sum`.
pub(crate) fn solve<'a>(problem: &'a Problem<'a>) -> Solution {
    let mut solver = Solver::new(problem);
    let n = solver.alpha.len();
    let period = n.min(1000);
    let mut counter = period + 1;
    let mut n_iter = 0;
    loop {
        counter -= 1;
        if counter == 0 {
            counter = period;
            if problem.shrinking {
                solver.shrink();
            }
        }
        let mut pair = solver.select();
        if pair.is_none() && solver.active.len() < n {
            solver.unshrink();
            pair = solver.select();
            // Shrink again at once: most of the samples are still at their bounds.
            counter = 1;
        }
        let Some((i, j)) = pair else { break };
        solver.step(i, j);
        n_iter += 1;
    }
    let finite = solver.gradient.iter().chain(&solver.diagonal).all(|v| v.is_finite());
    Solution { rho: solver.rho(), finite, alpha: solver.alpha, n_iter }
}

struct Solver<'a> {
    problem: &'a Problem<'a>,
    norms: Array1<f64>,
    diagonal: Vec<f64>,
    alpha: Vec<f64>,
    /// `K alpha`; out of date outside of `active`.
    gradient: Vec<f64>,
    active: Vec<usize>,
    unshrunk: bool,
    cache: Cache,
}

impl<'a> Solver<'a> {
    fn new(problem: &'a Problem<'a>) -> Solver<'a> {
        let n = problem.x.nrows();
        let norms = linalg::row_norms_squared(problem.x);
        let diagonal = norms.iter().map(|v| problem.kernel.of(*v, *v, *v)).collect();
        let alpha = (0..n).map(|i| (problem.sum - i as f64).clamp(0.0, 1.0)).collect();
        let rows = ((problem.cache_bytes / (4 * n) as f64) as usize).clamp(2, n.max(2));
        let mut solver = Solver {
            problem,
            norms,
            diagonal,
            alpha,
            gradient: vec![0.0; n],
            active: (0..n).collect(),
            unshrunk: false,
            cache: Cache::new(n, rows),
        };
        solver.start_gradient();
        solver
    }

    fn at_upper(&self, i: usize) -> bool {
        self.alpha[i] >= 1.0
    }

    fn at_lower(&self, i: usize) -> bool {
        self.alpha[i] <= 0.0
    }

    /// The largest `-gradient` of a weight that may grow, and the largest `gradient` of one that may fall.
    fn violations(&self) -> (f64, f64) {
        self.active.iter().fold((f64::NEG_INFINITY, f64::NEG_INFINITY), |(up, low), i| {
            let g = self.gradient[*i];
            (if self.at_upper(*i) { up } else { up.max(-g) }, if self.at_lower(*i) { low } else { low.max(g) })
        })
    }

    /// The pair whose step lowers the objective most, the first of it being the steepest; `None` when optimal.
    fn select(&mut self) -> Option<(usize, usize)> {
        let (mut first, mut steepest) = (None, f64::NEG_INFINITY);
        for i in &self.active {
            if !self.at_upper(*i) && -self.gradient[*i] >= steepest {
                (first, steepest) = (Some(*i), -self.gradient[*i]);
            }
        }
        let first = first?;
        self.ensure(first);
        let row = self.cache.row(first);
        let (mut second, mut best, mut opposite) = (None, f64::INFINITY, f64::NEG_INFINITY);
        for j in &self.active {
            if self.alpha[*j] <= 0.0 {
                continue;
            }
            let g = self.gradient[*j];
            opposite = opposite.max(g);
            let difference = steepest + g;
            if difference > 0.0 {
                let curvature = self.diagonal[first] + self.diagonal[*j] - 2.0 * f64::from(row[*j]);
                let gain = -difference * difference / if curvature > 0.0 { curvature } else { TAU };
                if gain <= best {
                    (second, best) = (Some(*j), gain);
                }
            }
        }
        if steepest + opposite < self.problem.tol { None } else { second.map(|j| (first, j)) }
    }

    /// Moves weight between `i` and `j` to the optimum of the pair.
    fn step(&mut self, i: usize, j: usize) {
        self.ensure(j);
        self.ensure(i);
        let (row_i, row_j) = (self.cache.row(i), self.cache.row(j));
        let curvature = self.diagonal[i] + self.diagonal[j] - 2.0 * f64::from(row_i[j]);
        let delta = (self.gradient[i] - self.gradient[j]) / if curvature > 0.0 { curvature } else { TAU };
        let (old_i, old_j) = (self.alpha[i], self.alpha[j]);
        let sum = old_i + old_j;
        let (mut new_i, mut new_j) = (old_i - delta, old_j + delta);
        // Whichever leaves the box is set to the bound exactly.
        if sum > 1.0 && new_i > 1.0 {
            (new_i, new_j) = (1.0, sum - 1.0);
        } else if sum > 1.0 && new_j > 1.0 {
            (new_i, new_j) = (sum - 1.0, 1.0);
        } else if sum <= 1.0 && new_i < 0.0 {
            (new_i, new_j) = (0.0, sum);
        } else if sum <= 1.0 && new_j < 0.0 {
            (new_i, new_j) = (sum, 0.0);
        }
        (self.alpha[i], self.alpha[j]) = (new_i, new_j);
        let (by_i, by_j) = (new_i - old_i, new_j - old_j);
        if self.active.len() == self.gradient.len() {
            for ((g, a), b) in self.gradient.iter_mut().zip(row_i).zip(row_j) {
                *g += by_i * f64::from(*a) + by_j * f64::from(*b);
            }
        } else {
            for k in &self.active {
                self.gradient[*k] += by_i * f64::from(row_i[*k]) + by_j * f64::from(row_j[*k]);
            }
        }
    }

    /// Removes samples that the optimality conditions hold at a bound.
    fn shrink(&mut self) {
        let (up, low) = self.violations();
        if !self.unshrunk && up + low <= 10.0 * self.problem.tol {
            self.unshrunk = true;
            self.unshrink();
        }
        let mut active = std::mem::take(&mut self.active);
        active.retain(|i| {
            let g = self.gradient[*i];
            !((self.at_upper(*i) && -g > up) || (self.at_lower(*i) && g > low))
        });
        self.active = active;
    }

    /// Brings all samples back.
    fn unshrink(&mut self) {
        let n = self.alpha.len();
        let mut inside = vec![false; n];
        self.active.iter().for_each(|i| inside[*i] = true);
        let outside: Vec<usize> = (0..n).filter(|i| !inside[*i]).collect();
        self.rebuild_gradient(&outside);
        self.active = (0..n).collect();
    }

    /// `K alpha` at `rows`, by blocked products with the samples that carry weight.
    fn rebuild_gradient(&mut self, rows: &[usize]) {
        let support: Vec<usize> = (0..self.alpha.len()).filter(|i| self.alpha[*i] > 0.0).collect();
        let weights: Array1<f64> = support.iter().map(|i| self.alpha[*i]).collect();
        let vectors = self.problem.x.select(Axis(0), &support);
        for rows in rows.chunks(GRADIENT_ROWS) {
            let x = self.problem.x.select(Axis(0), rows);
            let sums = self.problem.kernel.matrix(x.view(), vectors.view()).dot(&weights);
            rows.iter().zip(sums).for_each(|(i, v)| self.gradient[*i] = v);
        }
    }

    /// `K alpha` everywhere; the rows of the samples with weight stay in the cache, because they are needed first.
    fn start_gradient(&mut self) {
        let support: Vec<usize> = (0..self.alpha.len()).filter(|i| self.alpha[*i] > 0.0).collect();
        for rows in support.chunks(GRADIENT_ROWS) {
            let values = self.kernel_rows(rows);
            let weights: Array1<f64> = rows.iter().map(|i| self.alpha[*i]).collect();
            let sums = weights.dot(&values);
            self.gradient.iter_mut().zip(sums).for_each(|(g, v)| *g += v);
            for (i, row) in rows.iter().zip(values.outer_iter()) {
                if self.cache.rows.len() < self.cache.capacity {
                    self.cache.insert(*i, row.iter().map(|v| *v as f32));
                }
            }
        }
    }

    /// The kernel of the samples `rows` with all samples.
    fn kernel_rows(&self, rows: &[usize]) -> Array2<f64> {
        let block = self.problem.x.select(Axis(0), rows);
        let mut values = linalg::matmul(block.view(), self.problem.x.t());
        let (kernel, norms) = (self.problem.kernel, &self.norms);
        linalg::par_rows_mut(&mut values, |r, row| {
            let norm = norms[rows[r]];
            row.iter_mut().zip(norms).for_each(|(v, other)| *v = kernel.of(*v, norm, *other));
        });
        values
    }

    /// Computes row `i` if it is not cached, together with rows likely to be needed next.
    fn ensure(&mut self, i: usize) {
        if self.cache.touch(i) {
            return;
        }
        let room = BLOCK.min(self.cache.capacity / 2).max(1);
        let mut wanted = vec![i];
        let mut likely: Vec<usize> =
            self.active.iter().copied().filter(|k| *k != i && !self.cache.contains(*k) && !self.at_upper(*k)).collect();
        if room > 1 && !likely.is_empty() {
            let take = (room - 1).min(likely.len());
            likely.select_nth_unstable_by(take - 1, |a, b| self.gradient[*a].total_cmp(&self.gradient[*b]));
            wanted.extend(&likely[..take]);
        }
        let values = self.kernel_rows(&wanted);
        // The needed row is inserted last, as the most recently used.
        for (r, k) in wanted.iter().enumerate().rev() {
            self.cache.insert(*k, values.row(r).iter().map(|v| *v as f32));
        }
    }

    /// libsvm's rho: the mean gradient of free samples, or the middle of what the bound ones allow.
    fn rho(&self) -> f64 {
        let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
        let (mut sum, mut free) = (0.0, 0usize);
        for i in 0..self.alpha.len() {
            let g = self.gradient[i];
            if self.at_upper(i) {
                low = low.max(g);
            } else if self.at_lower(i) {
                high = high.min(g);
            } else {
                sum += g;
                free += 1;
            }
        }
        match (free, low.is_finite(), high.is_finite()) {
            (1.., _, _) => sum / free as f64,
            (_, true, true) => 0.5 * (low + high),
            (_, true, false) => low,
            _ => high,
        }
    }
}

/// Kernel rows; the least recently used is evicted first.
struct Cache {
    rows: Vec<Vec<f32>>,
    owner: Vec<usize>,
    last_use: Vec<u64>,
    slot: Vec<Option<usize>>,
    capacity: usize,
    clock: u64,
}

impl Cache {
    fn new(n: usize, capacity: usize) -> Cache {
        Cache { rows: Vec::new(), owner: Vec::new(), last_use: Vec::new(), slot: vec![None; n], capacity, clock: 0 }
    }

    fn contains(&self, i: usize) -> bool {
        self.slot[i].is_some()
    }

    /// Marks row `i` as used; false if it is absent.
    fn touch(&mut self, i: usize) -> bool {
        self.clock += 1;
        let Some(slot) = self.slot[i] else { return false };
        self.last_use[slot] = self.clock;
        true
    }

    /// A row that [`Solver::ensure`] has cached.
    fn row(&self, i: usize) -> &[f32] {
        self.slot[i].map_or(&[], |slot| &self.rows[slot])
    }

    fn insert(&mut self, i: usize, values: impl Iterator<Item = f32>) {
        self.clock += 1;
        let slot = if self.rows.len() < self.capacity {
            self.rows.push(Vec::new());
            self.owner.push(i);
            self.last_use.push(0);
            self.rows.len() - 1
        } else {
            let oldest = (0..self.rows.len()).min_by_key(|s| self.last_use[*s]).unwrap_or(0);
            self.slot[self.owner[oldest]] = None;
            oldest
        };
        self.rows[slot].clear();
        self.rows[slot].extend(values);
        (self.owner[slot], self.last_use[slot], self.slot[i]) = (i, self.clock, Some(slot));
    }
}
