//! Where in a picture the feature departs from what the model knows.
//!
//! Where the pooled feature `x` is the mean of the cells of the tap's grid, the residual's norm `<r, z>`, with `r` its
//! direction, is a mean of shares over the cells. Without a transform a cell's share is `<r, (x_cell - m) / s>`; with
//! the square root, `sqrt(x) - m = (x - m^2) / (sqrt(x) + m)` makes it `<r, (x_cell - m^2) / ((sqrt(x) + m) s)>`.
//! Where `x` is the greatest of the cells, a channel's whole share lies in the cell that has it.

use super::{Error, Model};
use crate::backbone::{FeatureMap, Pooling};
use crate::estimators::feature_transform::FeatureTransform;

/// A grid of shares, row by row; their mean is the norm of the residual.
#[derive(Debug, Clone, PartialEq)]
pub struct Heat {
    pub height: usize,
    pub width: usize,
    pub cells: Vec<f32>,
}

impl Heat {
    /// The hottest cell: row, column, share.
    pub fn hottest(&self) -> Option<(usize, usize, f32)> {
        let best = self.cells.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
        Some((best.0 / self.width, best.0 % self.width, *best.1))
    }

    /// Between the centres of the cells, linearly; `u` and `v` are shares of width and height.
    pub fn between(&self, u: f64, v: f64) -> f32 {
        let at = |share: f64, cells: usize| {
            let centre = (share * cells as f64 - 0.5).clamp(0.0, cells.saturating_sub(1) as f64);
            let low = centre as usize;
            (low, (low + 1).min(cells - 1), (centre - low as f64) as f32)
        };
        let ((x0, x1, x), (y0, y1, y)) = (at(u, self.width), at(v, self.height));
        let row = |y: usize| self.cells[y * self.width + x0] * (1.0 - x) + self.cells[y * self.width + x1] * x;
        row(y0) * (1.0 - y) + row(y1) * y
    }

    /// The first and last row and column, inclusive, of the cells that are connected with the hottest, by sides or corners,
    /// and at least half as hot, counted from the median; None where nothing is hot.
    pub fn hot_region(&self) -> Option<([usize; 2], [usize; 2])> {
        let (row, column, hottest) = self.hottest().filter(|(.., share)| *share > 0.0)?;
        let mut sorted = self.cells.clone();
        sorted.sort_by(f32::total_cmp);
        let floor = sorted[sorted.len() / 2].max(0.0);
        let least = floor + 0.5 * (hottest - floor);
        let (mut rows, mut columns) = ([row; 2], [column; 2]);
        let mut seen = vec![false; self.cells.len()];
        seen[row * self.width + column] = true;
        let mut open = vec![(row, column)];
        while let Some((row, column)) = open.pop() {
            rows = [rows[0].min(row), rows[1].max(row)];
            columns = [columns[0].min(column), columns[1].max(column)];
            for y in row.saturating_sub(1)..(row + 2).min(self.height) {
                for x in column.saturating_sub(1)..(column + 2).min(self.width) {
                    let at = y * self.width + x;
                    if !seen[at] && self.cells[at] >= least {
                        seen[at] = true;
                        open.push((y, x));
                    }
                }
            }
        }
        Some((rows, columns))
    }

    /// The heat of a region of a picture.
    pub fn at(self, region: [f64; 4]) -> Placed {
        Placed { heat: self, region }
    }
}

/// A heat and where in a picture it lies.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    pub heat: Heat,
    /// What the network saw: left, top, width, height in pixels of the picture.
    pub region: [f64; 4],
}

impl Placed {
    /// A cell's left, top, width and height in pixels of the picture.
    pub fn cell(&self, row: usize, column: usize) -> [f64; 4] {
        let [left, top, width, height] = self.region;
        let (width, height) = (width / self.heat.width as f64, height / self.heat.height as f64);
        [left + column as f64 * width, top + row as f64 * height, width, height]
    }
}

impl Model {
    /// The residual's shares over the grid of the finest stage of the tap; None where pooling has lost the place.
    pub fn heat(&self, maps: &[FeatureMap], feature: &[f32]) -> Result<Option<Heat>, Error> {
        self.heat_against(maps, feature, None)
    }

    /// [`Model::heat`], less the pattern that the maps of a `normal` picture of the same view have along the same
    /// direction: before a camera that stands still, what always looks odd is not hot. The pattern is taken as far as
    /// the two regress on each other, so a picture of another view does no harm.
    pub fn heat_against(
        &self,
        maps: &[FeatureMap],
        feature: &[f32],
        normal: Option<&[FeatureMap]>,
    ) -> Result<Option<Heat>, Error> {
        if self.source.pooling == Pooling::None {
            return Ok(None);
        }
        let z = self.scaled(feature)?;
        let mut y = vec![0.0; self.components.rows()];
        self.components.multiply(&z, &mut y);
        let mut direction = z;
        self.components.subtract_transposed(&y, &mut direction);
        let norm = direction.iter().map(|r| f64::from(*r).powi(2)).sum::<f64>().sqrt();
        if norm > 0.0 {
            direction.iter_mut().for_each(|r| *r /= norm as f32);
        }
        let (weights, centres) = self.linear(feature, &direction);
        let Some(finest) = maps.iter().max_by_key(|map| map.height * map.width) else { return Ok(None) };
        let (height, width) = (finest.height, finest.width);
        let mut cells = self.shares(maps, (height, width), &weights, &centres)?;
        if let Some(normal) = normal {
            let pattern = self.shares(normal, (height, width), &weights, &centres)?;
            subtract_pattern(&mut cells, &pattern);
        }
        Ok(Some(Heat { height, width, cells }))
    }

    /// `sum of w (x - c)` of every cell, coarser maps spread over the cells of the finest.
    fn shares(
        &self,
        maps: &[FeatureMap],
        (height, width): (usize, usize),
        weights: &[f32],
        centres: &[f32],
    ) -> Result<Vec<f32>, Error> {
        let mut cells = vec![0.0_f32; height * width];
        let mut first = 0;
        for map in maps {
            let span = first..first + map.channels;
            let (Some(weights), Some(centres)) = (weights.get(span.clone()), centres.get(span.clone())) else {
                return Err(Error::Width { wanted: self.n_features(), got: span.end });
            };
            let shares = match self.source.pooling {
                Pooling::Max => shares_of_the_greatest(map, weights, centres),
                _ => shares_of_all(map, weights, centres),
            };
            for (at, cell) in cells.iter_mut().enumerate() {
                let (row, column) = (at / width * map.height / height, at % width * map.width / width);
                *cell += shares[row * map.width + column];
            }
            first = span.end;
        }
        Ok(cells)
    }

    /// Weights `w` and centres `c` with `<direction, z> = sum of w (x - c)`, exact at `feature`.
    fn linear(&self, feature: &[f32], direction: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let each = |(((r, x), mean), scale): (((&f32, &f32), &f32), &f32)| match self.transform {
            FeatureTransform::Identity => (r / scale, *mean),
            FeatureTransform::Sqrt => {
                let sum = x.abs().sqrt() + mean;
                (if sum > 0.0 { r / (scale * sum) } else { 0.0 }, mean * mean)
            }
        };
        direction.iter().zip(feature).zip(&self.mean).zip(&self.scale).map(each).unzip()
    }
}

/// `sum of w (x - c)` of every cell.
fn shares_of_all(map: &FeatureMap, weights: &[f32], centres: &[f32]) -> Vec<f32> {
    let share = |cell: &[f32]| weights.iter().zip(cell.iter().zip(centres)).map(|(w, (x, c))| w * (x - c)).sum();
    map.data.chunks_exact(map.channels).map(share).collect()
}

/// `w (x - c)` of every channel, times the number of cells, in the cell where the channel is greatest.
fn shares_of_the_greatest(map: &FeatureMap, weights: &[f32], centres: &[f32]) -> Vec<f32> {
    let cells = map.height * map.width;
    let mut shares = vec![0.0; cells];
    let mut greatest = vec![(0, f32::NEG_INFINITY); map.channels];
    for (at, cell) in map.data.chunks_exact(map.channels).enumerate() {
        for (best, &x) in greatest.iter_mut().zip(cell) {
            if x > best.1 {
                *best = (at, x);
            }
        }
    }
    for ((at, x), (w, c)) in greatest.into_iter().zip(weights.iter().zip(centres)) {
        if let (Some(share), true) = (shares.get_mut(at), x.is_finite()) {
            *share += w * (x - c) * cells as f32;
        }
    }
    shares
}

/// Takes the pattern away from the cells as far as it explains them, by least squares; their mean stays.
fn subtract_pattern(cells: &mut [f32], pattern: &[f32]) {
    let n = cells.len().max(1) as f32;
    let (mean, pattern_mean) = (cells.iter().sum::<f32>() / n, pattern.iter().sum::<f32>() / n);
    let (mut covariance, mut variance) = (0.0_f32, 0.0_f32);
    for (cell, value) in cells.iter().zip(pattern) {
        covariance += (cell - mean) * (value - pattern_mean);
        variance += (value - pattern_mean).powi(2);
    }
    let slope = if variance > 0.0 { (covariance / variance).clamp(0.0, 1.0) } else { 0.0 };
    for (cell, value) in cells.iter_mut().zip(pattern) {
        *cell -= slope * (value - pattern_mean);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::backbone::Stage;
    use crate::estimators::conformal::Conformal;
    use crate::image::InputRecipe;
    use crate::model::projection::{Components, QuantizedMatrix};
    use crate::model::{Calibration, Detector, FeatureSource, Records, Training};

    /// A model of four features that knows one direction.
    pub fn model(transform: FeatureTransform) -> Model {
        Model {
            crate_version: String::new(),
            made_at: 0,
            source: FeatureSource {
                sha256: [0; 32],
                path: None,
                tap: "layer3".parse().unwrap(),
                pooling: Pooling::Avg,
                input: InputRecipe::torch(),
                mask: Default::default(),
                tiles: 1,
            },
            transform,
            mean: vec![0.5, 1.0, 0.2, 0.7],
            scale: vec![0.5, 2.0, 1.0, 0.3],
            components: Components::I8(QuantizedMatrix::from_rows(4, [[0.5; 4].as_slice()].into_iter())),
            variance: vec![1.0],
            whiten: true,
            detector: Detector::PcaResidual,
            joined: None,
            calibration: Calibration::Conformal(Conformal::counted(&[0.0]).unwrap()),
            threshold: 0.5,
            training: Training::default(),
            records: Records::default(),
        }
    }

    #[test]
    fn the_shares_average_to_the_residual_s_norm() {
        let cells: [[f32; 4]; 4] =
            [[0.1, 0.4, 3.0, 0.2], [0.3, 1.2, 0.0, 0.9], [0.5, 2.0, 0.7, 0.1], [0.0, 0.1, 0.2, 4.0]];
        let map = FeatureMap { stage: Stage::Layer3, height: 2, width: 2, channels: 4, data: cells.concat() };
        let mean: Vec<f32> = (0..4).map(|c| cells.iter().map(|cell| cell[c]).sum::<f32>() / 4.0).collect();
        let greatest: Vec<f32> = (0..4).map(|c| cells.iter().map(|cell| cell[c]).fold(0.0, f32::max)).collect();
        for transform in [FeatureTransform::Identity, FeatureTransform::Sqrt] {
            for (pooling, feature) in [(Pooling::Avg, &mean), (Pooling::Max, &greatest)] {
                let mut model = model(transform);
                model.source.pooling = pooling;
                let heat = model.heat(std::slice::from_ref(&map), feature).unwrap().unwrap();
                let norm = (-model.feature_score(feature).unwrap()).sqrt();
                let mean = f64::from(heat.cells.iter().sum::<f32>()) / 4.0;
                assert!((mean - norm).abs() < 1e-3 * norm, "{transform} {pooling}: {mean} {norm}");
            }
        }
    }

    #[test]
    fn a_pattern_that_is_always_there_is_taken_away_and_no_other() {
        let pattern = [5.0, -5.0, 3.0, -3.0, 1.0, -1.0];
        let mut cells: Vec<f32> = pattern.iter().map(|value| value + 2.0).collect();
        cells[3] += 4.0;
        let mean = cells.iter().sum::<f32>() / 6.0;
        subtract_pattern(&mut cells, &pattern);
        let hottest = (0..6).max_by(|a, b| cells[*a].total_cmp(&cells[*b])).unwrap();
        assert_eq!(hottest, 3, "{cells:?}");
        assert!((cells.iter().sum::<f32>() / 6.0 - mean).abs() < 1e-5);
        let opposite: Vec<f32> = cells.iter().map(|value| -value).collect();
        let before = cells.clone();
        subtract_pattern(&mut cells, &opposite);
        assert_eq!(cells, before);
    }

    #[test]
    fn the_hot_region_is_what_hangs_together() {
        let heat = |cells: [f32; 16]| Heat { height: 4, width: 4, cells: cells.to_vec() };
        let cells = [0.0, 1.0, 0.0, 9.0, 0.0, 8.0, 0.0, 0.0, 5.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 8.5];
        // 9 stands alone; 8 and 5 touch at a corner.
        assert_eq!(heat(cells).hot_region(), Some(([0, 0], [3, 3])));
        let cells = cells.map(|v| {
            if v == 9.0 {
                0.0
            } else if v == 8.5 {
                1.0
            } else {
                v
            }
        });
        assert_eq!(heat(cells).hot_region(), Some(([1, 2], [0, 1])));
        assert_eq!(heat([2.0; 16]).hot_region(), Some(([0, 3], [0, 3])));
        assert_eq!(heat([0.0; 16]).hot_region(), None);
    }

    #[test]
    fn pooling_that_loses_the_place_has_no_heat() {
        let mut model = model(FeatureTransform::Identity);
        model.source.pooling = Pooling::None;
        assert_eq!(model.heat(&[], &[0.0; 4]).unwrap(), None);
    }
}
