//! What a network sees at each place of a picture: layer2 and layer3 on one grid, some hundred small integers a cell.
//!
//! A cell is the mean of the map's values in it, square-rooted, hashed with signs into [`CHANNELS`] (a count sketch,
//! Charikar, Chen, Farach-Colton 2002) and averaged with its neighbours. It depends on nothing that is fitted, so cells
//! of one backbone can be kept and compared.

use std::sync::Arc;

use super::compile::stages::StageOutput;
use super::multi_crop::MAX_TILES;
use super::tap::{FeatureMap, Stage, Tap};

/// Most values of a cell.
pub const CHANNELS: usize = 256;
/// Most cells along a side of one crop, and of a picture.
const SIDE: usize = 16;
pub const MAX_SIDE: usize = SIDE * MAX_TILES as usize;
/// The stages that cells are made of, where the network runs that far.
pub const STAGES: [Stage; 2] = [Stage::Layer2, Stage::Layer3];

/// The stages that cells are made of: those of [`STAGES`] that the network runs through for the tap, else the tap's own.
pub(super) fn stages(tap: &Tap, found: &[StageOutput]) -> Vec<Stage> {
    let run = |stage: &Stage| found.iter().any(|f| f.stage == *stage) && tap.stages().last() >= Some(stage);
    let stages: Vec<Stage> = STAGES.into_iter().filter(run).collect();
    if stages.is_empty() { tap.stages().to_vec() } else { stages }
}

/// The cells of one picture; a value stands for itself times `scale`. Clones share the values.
#[derive(Debug, Clone, PartialEq)]
pub struct Cells {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub scale: f32,
    /// `height x width x channels`.
    pub values: Arc<[i8]>,
}

impl Cells {
    /// On the grid of the coarsest of the maps, which are those of one crop or of `tiles` along a side; None without maps.
    pub fn of(maps: &[&FeatureMap], tiles: usize) -> Option<Cells> {
        let coarsest = maps.iter().min_by_key(|map| map.height * map.width)?;
        let (height, width) = (coarsest.height.min(SIDE * tiles), coarsest.width.min(SIDE * tiles));
        let all: usize = maps.iter().map(|map| map.channels).sum();
        let channels = all.min(CHANNELS);
        let signs: Vec<f32> = (0..all).map(|at| if all > CHANNELS { sign(at as u64) } else { 1.0 }).collect();
        let mut grid = vec![0.0_f32; height * width * channels];
        let mut first = 0;
        for map in maps {
            let signs = &signs[first..first + map.channels];
            let mut sum = vec![0.0_f32; map.channels];
            for (at, cell) in grid.chunks_exact_mut(channels).enumerate() {
                let rows = span(at / width, height, map.height);
                let columns = span(at % width, width, map.width);
                let factor = 1.0 / (rows.len() * columns.len()) as f32;
                sum.fill(0.0);
                for y in rows {
                    for x in columns.clone() {
                        let from = (y * map.width + x) * map.channels;
                        let values = &map.data[from..from + map.channels];
                        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                    }
                }
                sum.iter_mut().zip(signs).for_each(|(sum, sign)| *sum = sign * (*sum * factor).max(0.0).sqrt());
                scatter(&sum, first, cell);
            }
            first += map.channels;
        }
        let grid = smoothed(&grid, height, width, channels);
        let largest = grid.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = largest / 127.0;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let values = grid.iter().map(|value| (value * inverse).round() as i8).collect();
        Some(Cells { height, width, channels, scale, values })
    }

    /// Row by row.
    pub fn iter(&self) -> impl Iterator<Item = &[i8]> {
        self.values.chunks_exact(self.channels.max(1))
    }
}

/// Adds values, the first of which has the number `first`, to their buckets.
fn scatter(values: &[f32], first: usize, buckets: &mut [f32]) {
    let (mut rest, mut at) = (values, first % buckets.len());
    while !rest.is_empty() {
        let (these, others) = rest.split_at(rest.len().min(buckets.len() - at));
        buckets[at..].iter_mut().zip(these).for_each(|(bucket, value)| *bucket += value);
        (rest, at) = (others, 0);
    }
}

/// The places of a map's side that belong to a cell: at least one.
fn span(at: usize, cells: usize, side: usize) -> std::ops::Range<usize> {
    at * side / cells..((at + 1) * side).div_ceil(cells)
}

/// The finalizer of splitmix64: its lowest bit.
fn sign(number: u64) -> f32 {
    let mut x = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    if (x ^ (x >> 31)) & 1 == 0 { 1.0 } else { -1.0 }
}

/// Means of 3 x 3 cells, at the edge of those that there are.
fn smoothed(grid: &[f32], height: usize, width: usize, channels: usize) -> Vec<f32> {
    let along = |grid: &[f32], steps: usize, length: usize, stride: usize| {
        let mut means = vec![0.0; grid.len()];
        for lane in 0..steps {
            for at in 0..length {
                let near = at.saturating_sub(1)..(at + 2).min(length);
                let place = |at: usize| {
                    let start = (lane / stride * stride * length + at * stride + lane % stride) * channels;
                    start..start + channels
                };
                let factor = 1.0 / near.len() as f32;
                let out = &mut means[place(at)];
                for from in near {
                    out.iter_mut().zip(&grid[place(from)]).for_each(|(mean, value)| *mean += factor * value);
                }
            }
        }
        means
    };
    along(&along(grid, height, width, 1), width, height, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(stage: Stage, side: usize, channels: usize, value: impl Fn(usize, usize, usize) -> f32) -> FeatureMap {
        let at = |i: usize| value(i / channels / side, i / channels % side, i % channels);
        FeatureMap { stage, height: side, width: side, channels, data: (0..side * side * channels).map(at).collect() }
    }

    #[test]
    fn a_place_stays_a_place() {
        let fine = map(Stage::Layer2, 12, 8, |y, x, c| if (y, x) == (7, 2) && c == 3 { 16.0 } else { 1.0 });
        let coarse = map(Stage::Layer3, 6, 16, |_, _, c| c as f32);
        let cells = Cells::of(&[&fine, &coarse], 1).unwrap();
        assert_eq!((cells.height, cells.width, cells.channels), (6, 6, 24));
        let value = |row: usize, column: usize, channel: usize| {
            f32::from(cells.values[(row * 6 + column) * 24 + channel]) * cells.scale
        };
        // The mean of the four places is 4.75 in the cell (3, 1), and its root's excess a ninth of it there and around.
        let expected = 1.0 + (4.75_f32.sqrt() - 1.0) / 9.0;
        for (row, column) in [(3, 1), (2, 2), (4, 1)] {
            assert!((value(row, column, 3) - expected).abs() < 0.02, "{row} {column}");
        }
        assert!((value(0, 5, 3) - 1.0).abs() < 0.02 && (value(3, 3, 3) - 1.0).abs() < 0.02);
        assert!((value(5, 5, 8 + 9) - 3.0).abs() < 0.02);
    }

    #[test]
    fn many_channels_and_cells_become_fewer() {
        let fine = map(Stage::Layer2, 40, 200, |y, x, c| (y * x + c) as f32);
        let coarse = map(Stage::Layer3, 20, 400, |y, x, c| (y + x * c) as f32);
        let cells = Cells::of(&[&fine, &coarse], 1).unwrap();
        assert_eq!((cells.height, cells.width, cells.channels), (SIDE, SIDE, CHANNELS));
        assert_eq!(cells.iter().count(), SIDE * SIDE);
        assert_eq!(Cells::of(&[&fine, &coarse], 2).map(|cells| [cells.height, cells.width]), Some([20, 20]));
        let signs: f32 = (0..10_000).map(sign).sum();
        assert!(signs.abs() < 300.0, "{signs}");
        assert_eq!(Cells::of(&[], 1), None);
    }
}
