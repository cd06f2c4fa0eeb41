//! Seeded splits of picture lists.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Indices of a list: those to fit on, and those held out for calibration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    pub train: Vec<usize>,
    pub held_out: Vec<usize>,
}

/// Holds out `share` of `n` indices (at least one, and leaving at least one), drawn with `seed` in runs of `block`
/// consecutive ones.
pub fn random(n: usize, share: f64, seed: u64, block: usize) -> Split {
    let blocks = shuffled_blocks(n, seed, block);
    let wanted = ((blocks.len() as f64 * share).round() as usize).clamp(1, blocks.len().saturating_sub(1).max(1));
    let cut = blocks.len() - wanted.min(blocks.len());
    let sorted = |blocks: &[Vec<usize>]| {
        let mut all = blocks.concat();
        all.sort_unstable();
        all
    };
    Split { train: sorted(&blocks[..cut]), held_out: sorted(&blocks[cut..]) }
}

/// Divides `n` indices into `folds` parts whose sizes differ by at most one, drawn with `seed`. Consecutive frames (`block`
/// above 1) are cut into stretches of `block` or more instead, so that a frame's neighbours are not in the other parts.
pub fn folds(n: usize, folds: usize, seed: u64, block: usize) -> Vec<Vec<usize>> {
    if block > 1 {
        let folds = folds.min(n / block).max(1);
        return (0..folds).map(|at| (at * n / folds..(at + 1) * n / folds).collect()).collect();
    }
    let mut parts = vec![Vec::new(); folds.max(1)];
    for (at, one) in shuffled_blocks(n, seed, 1).concat().into_iter().enumerate() {
        parts[at % folds.max(1)].push(one);
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn shuffled_blocks(n: usize, seed: u64, block: usize) -> Vec<Vec<usize>> {
    let order: Vec<usize> = (0..n).collect();
    let mut blocks: Vec<Vec<usize>> = order.chunks(block.max(1)).map(<[usize]>::to_vec).collect();
    blocks.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_seeded_and_whole() {
        let split = random(100, 0.2, 1, 1);
        assert_eq!((split.train.len(), split.held_out.len()), (80, 20));
        let mut all = [split.train.clone(), split.held_out.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert_eq!(split, random(100, 0.2, 1, 1));
        assert_ne!(split, random(100, 0.2, 2, 1));
        assert_eq!(random(2, 0.0, 0, 1).held_out.len(), 1);
    }

    #[test]
    fn folds_cover_once() {
        let mut all = folds(11, 3, 5, 1).concat();
        all.sort_unstable();
        assert_eq!(all, (0..11).collect::<Vec<_>>());
        assert!(folds(11, 3, 5, 1).iter().all(|part| (3..=4).contains(&part.len())));
    }

    #[test]
    fn blocks_stay_together() {
        let parts = folds(100, 4, 3, 10);
        assert_eq!(parts.len(), 4);
        assert_eq!(parts.concat(), (0..100).collect::<Vec<_>>());
        assert!(parts.iter().all(|part| part.len() == 25));
        let split = random(100, 0.2, 3, 10);
        assert!(split.held_out.chunks(10).all(|run| run[0] % 10 == 0 && run[9] == run[0] + 9));
        assert_eq!(folds(5, 10, 0, 3).len(), 1);
        assert!(folds(107, 30, 0, 10).iter().all(|part| part.len() >= 10));
    }
}
