//! How well anomaly maps localize outliers, by ground-truth masks: pixel AUROC, and PRO, the per-region overlap (Bergmann
//! et al. 2020, "Uninformed Students"): the share of a region's pixels that are found, averaged over regions and over
//! false-positive rates up to [`MAX_RATE`].

use ::image::RgbImage;
use serde::Serialize;

use crate::model::anomaly_map::{PlacedMap, connected};

/// False-positive rates over which PRO is averaged.
const MAX_RATE: f64 = 0.3;
/// Masks and maps are compared at no more places along a side.
const MAX_SIDE: u32 = 256;
/// Values are counted in bins of their logarithm, 0.6 % wide.
const BINS: usize = 4096;
const LN_RANGE: (f32, f32) = (-8.0, 16.0);

/// Pixel figures of a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    pub auroc: f64,
    pub pro: f64,
    /// Pictures with a mask.
    pub masks: usize,
    /// Connected regions in the masks.
    pub regions: usize,
}

/// Counts of map values inside and outside of the masks.
#[derive(Debug)]
pub struct Pixels {
    normal: Vec<u64>,
    outlier: Vec<u64>,
    /// The bins of every region.
    regions: Vec<Vec<u16>>,
    masks: usize,
}

impl Default for Pixels {
    fn default() -> Self {
        Pixels { normal: vec![0; BINS], outlier: vec![0; BINS], regions: Vec::new(), masks: 0 }
    }
}

fn bin(value: f32) -> u16 {
    let (low, high) = LN_RANGE;
    let share = (value.max(f32::MIN_POSITIVE).ln() - low) / (high - low);
    (share.clamp(0.0, 1.0) * (BINS - 1) as f32) as u16
}

impl Pixels {
    /// Adds the anomaly map of a picture of that size. The mask, of any size, is white where the outlier is; without one
    /// nothing in the picture is.
    pub fn add(&mut self, map: &PlacedMap, (width, height): (u32, u32), mask: Option<&RgbImage>) {
        let (columns, rows) = mask.map_or((width, height), |mask| mask.dimensions());
        let side = |pixels: u32| pixels.min(MAX_SIDE);
        let (columns, rows) = (side(columns), side(rows));
        let [left, top, seen_width, seen_height] = map.region;
        let mut marked = vec![false; (columns * rows) as usize];
        let mut bins = vec![0; marked.len()];
        for row in 0..rows {
            for column in 0..columns {
                let share = |at: u32, of: u32| (f64::from(at) + 0.5) / f64::from(of);
                let (x, y) = (share(column, columns), share(row, rows));
                let u = (x * f64::from(width) - left) / seen_width;
                let v = (y * f64::from(height) - top) / seen_height;
                if !(0.0..1.0).contains(&u) || !(0.0..1.0).contains(&v) {
                    continue;
                }
                let bin = bin(map.map.between(u, v));
                let is_marked = mask.is_some_and(|mask| {
                    let at = |share: f64, side: u32| (share * f64::from(side)) as u32;
                    mask.get_pixel(at(x, mask.width()), at(y, mask.height())).0.iter().all(|level| *level > 127)
                });
                if is_marked {
                    let at = (row * columns + column) as usize;
                    (marked[at], bins[at]) = (true, bin);
                    self.outlier[usize::from(bin)] += 1;
                } else {
                    self.normal[usize::from(bin)] += 1;
                }
            }
        }
        self.masks += usize::from(mask.is_some());
        while let Some(start) = marked.iter().position(|marked| *marked) {
            let region = connected(start, columns as usize, &mut marked);
            self.regions.push(region.into_iter().map(|at| bins[at]).collect());
        }
    }

    /// None unless there are pixels of both classes.
    pub fn figures(&self) -> Option<Figures> {
        let (normal, outlier): (u64, u64) = (self.normal.iter().sum(), self.outlier.iter().sum());
        if normal == 0 || outlier == 0 {
            return None;
        }
        let mut found = vec![0.0; BINS];
        for region in &self.regions {
            let share = 1.0 / (region.len() * self.regions.len()) as f64;
            region.iter().for_each(|bin| found[usize::from(*bin)] += share);
        }
        let (mut rate, mut hits, mut overlap) = (0.0, 0.0, 0.0);
        let (mut auroc, mut pro) = (0.0, 0.0);
        for bin in (0..BINS).rev() {
            let step = self.normal[bin] as f64 / normal as f64;
            let (more_hits, more) = (self.outlier[bin] as f64 / outlier as f64, found[bin]);
            auroc += step * (hits + 0.5 * more_hits);
            // The part of the step that lies below the greatest rate.
            let part = if step > 0.0 { ((MAX_RATE - rate) / step).clamp(0.0, 1.0) } else { 0.0 };
            pro += part * step * (overlap + 0.5 * part * more);
            rate += step;
            hits += more_hits;
            overlap += more;
        }
        Some(Figures { auroc, pro: pro / MAX_RATE, masks: self.masks, regions: self.regions.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::anomaly_map::AnomalyMap;

    fn map(cells: [f32; 4]) -> PlacedMap {
        AnomalyMap { height: 2, width: 2, cells: cells.to_vec() }.at([0.0, 0.0, 40.0, 40.0])
    }

    /// White in the left upper quarter, and in a corner of the right lower one.
    fn mask(corner: bool) -> RgbImage {
        let white = |x: u32, y: u32| (x < 20 && y < 20) || (corner && x >= 36 && y >= 36);
        RgbImage::from_fn(40, 40, |x, y| ::image::Rgb([if white(x, y) { 255 } else { 0 }; 3]))
    }

    #[test]
    fn what_is_found_whole_is_1_and_what_is_opposite_0() {
        for (cells, auroc, pro) in [([9.0, 0.1, 0.1, 0.1], 1.0, 0.93), ([0.1, 9.0, 9.0, 9.0], 0.0, 0.0)] {
            let mut pixels = Pixels::default();
            pixels.add(&map(cells), (40, 40), Some(&mask(false)));
            let got = pixels.figures().unwrap();
            assert_eq!((got.masks, got.regions), (1, 1));
            assert!((got.auroc - auroc).abs() < 0.09 && (got.pro - pro).abs() < 0.1, "{got:?}");
        }
    }

    #[test]
    fn a_small_region_counts_as_much_as_a_large_one() {
        let mut pixels = Pixels::default();
        pixels.add(&map([9.0, 0.1, 0.1, 0.1]), (40, 40), Some(&mask(true)));
        pixels.add(&map([0.1; 4]), (40, 40), None);
        let got = pixels.figures().unwrap();
        assert_eq!((got.masks, got.regions), (1, 2));
        // The large one is found at once, the small one with everything else.
        assert!(got.auroc > 0.9 && got.pro > 0.4 && got.pro < 0.65, "{got:?}");
    }

    #[test]
    fn one_kind_of_pixels_has_no_figures() {
        let mut pixels = Pixels::default();
        pixels.add(&map([1.0; 4]), (40, 40), None);
        assert_eq!(pixels.figures(), None);
    }
}
