//! Seeded splits of picture lists.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Indices of a list, cut into what the estimators are fitted on and what is held out for calibration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    pub train: Vec<usize>,
    pub held_out: Vec<usize>,
}

/// Holds out `share` of `n` indices (at least one, and leaving at least one), drawn with `seed`.
pub fn random(n: usize, share: f64, seed: u64) -> Split {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let held = ((n as f64 * share).round() as usize).clamp(1, n.saturating_sub(1).max(1)).min(n);
    let mut held_out = order.split_off(n - held);
    held_out.sort_unstable();
    order.sort_unstable();
    Split { train: order, held_out }
}

/// Cuts `n` indices into `folds` parts of sizes that differ by one at most, drawn with `seed`.
pub fn folds(n: usize, folds: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut parts = vec![Vec::new(); folds.max(1)];
    for (at, index) in order.into_iter().enumerate() {
        parts[at % folds.max(1)].push(index);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_seeded_and_whole() {
        let split = random(100, 0.2, 1);
        assert_eq!((split.train.len(), split.held_out.len()), (80, 20));
        let mut all = [split.train.clone(), split.held_out.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert_eq!(split, random(100, 0.2, 1));
        assert_ne!(split, random(100, 0.2, 2));
        assert_eq!(random(2, 0.0, 0).held_out.len(), 1);
    }

    #[test]
    fn folds_cover_once() {
        let mut all = folds(11, 3, 5).concat();
        all.sort_unstable();
        assert_eq!(all, (0..11).collect::<Vec<_>>());
        assert!(folds(11, 3, 5).iter().all(|part| (3..=4).contains(&part.len())));
    }
}
