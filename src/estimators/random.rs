//! Seeded random numbers: the same stream on every platform.

use ndarray::Array2;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The generator of every estimator.
pub(crate) type Generator = ChaCha8Rng;

/// A generator for a user's seed.
pub(crate) fn seeded(seed: u64) -> Generator {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Uniform in [0, 1).
pub(crate) fn uniform(rng: &mut Generator) -> f64 {
    rng.random::<f64>()
}

/// Uniform in `0..n`; `n` is above 0.
pub(crate) fn below(rng: &mut Generator, n: usize) -> usize {
    rng.random_range(0..n as u64) as usize
}

/// Standard normal values (Box and Muller 1958), `n` x `m`.
pub(crate) fn normal_array(rng: &mut Generator, n: usize, m: usize) -> Array2<f64> {
    let mut spare = None;
    Array2::from_shape_simple_fn((n, m), || {
        spare.take().unwrap_or_else(|| {
            let radius = (-2.0 * (1.0 - uniform(rng)).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * uniform(rng)).sin_cos();
            spare = Some(radius * sin);
            radius * cos
        })
    })
}

/// A seed for a further generator.
pub(crate) fn word(rng: &mut Generator) -> u64 {
    rng.random::<u64>()
}

/// `k` of `0..n` without replacement, `k <= n`, in random order (Fisher and Yates).
pub(crate) fn subset(rng: &mut Generator, n: usize, k: usize) -> Vec<u32> {
    let mut all: Vec<u32> = (0..n as u32).collect();
    for i in 0..k {
        let j = i + below(rng, n - i);
        all.swap(i, j);
    }
    all.truncate(k);
    all
}
