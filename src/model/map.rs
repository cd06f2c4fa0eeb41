//! The anomaly map of a picture.
//!
//! With a detector over cells it holds their distances. Else it is that of the residual: where the pooled feature `x` is
//! the mean of the cells of the tap's grid, the residual's norm `<r, z>`, with `r` its direction, is a mean of shares
//! over the cells. Without a transform a cell's share is `<r, (x_cell - m) / s>`; with the square root,
//! `sqrt(x) - m = (x - m^2) / (sqrt(x) + m)` makes it `<r, (x_cell - m^2) / ((sqrt(x) + m) s)>`. With max pooling a
//! channel's whole share lies in the cell with the maximum.

use super::anomaly_map::AnomalyMap;
use super::error::Error;
use super::fitted::Model;
use crate::backbone::{Backbone, FeatureMap, Pooling};
use crate::estimators::feature_transform::FeatureTransform;

impl Model {
    /// The anomaly map of a picture whose views the backbone has run. A map of the residual is taken relative to a
    /// `normal` picture of the same view, if there is one. None where pooling does not keep the place.
    pub fn anomaly_map(
        &self,
        backbone: &Backbone,
        views: &[Vec<FeatureMap>],
        normal: Option<&[FeatureMap]>,
    ) -> Result<Option<AnomalyMap>, Error> {
        let (feature, cells) = (backbone.pool(views), backbone.cells(views));
        match &self.joined {
            Some(joined) => {
                let distances = joined.cells.distances(cells.as_ref().ok_or(Error::Cells)?)?;
                Ok(Some(joined.map(distances)))
            }
            None => self.residual_map(views.first().map_or(&[], Vec::as_slice), &feature, normal),
        }
    }

    /// The residual's shares over the grid of the finest stage of the tap, less the pattern that the maps of a `normal`
    /// picture have along the same direction: in front of a fixed camera, what always looks odd is not hot. The pattern
    /// is subtracted as far as a regression on it explains the shares, so a picture of another view does no harm.
    fn residual_map(
        &self,
        maps: &[FeatureMap],
        feature: &[f32],
        normal: Option<&[FeatureMap]>,
    ) -> Result<Option<AnomalyMap>, Error> {
        if self.source.pooling == Pooling::None {
            return Ok(None);
        }
        let mut direction = self.scaled(feature)?;
        let y = self.components.multiply(&direction);
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
        Ok(Some(AnomalyMap { height, width, cells }))
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
                Pooling::Max => shares_of_maxima(map, weights, centres),
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

/// `w (x - c)` of every channel, times the number of cells, in the cell where the channel has its maximum.
fn shares_of_maxima(map: &FeatureMap, weights: &[f32], centres: &[f32]) -> Vec<f32> {
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

/// Subtracts the pattern from the cells as far as it explains them, by least squares; their mean stays.
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
                let shares = model.residual_map(std::slice::from_ref(&map), feature, None).unwrap().unwrap();
                let norm = (-model.feature_score(feature).unwrap()).sqrt();
                let mean = f64::from(shares.cells.iter().sum::<f32>()) / 4.0;
                assert!((mean - norm).abs() < 1e-3 * norm, "{transform} {pooling}: {mean} {norm}");
            }
        }
    }

    #[test]
    fn a_pattern_that_is_always_there_is_subtracted_and_no_other() {
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
    fn pooling_that_loses_the_place_has_no_map() {
        let mut model = model(FeatureTransform::Identity);
        model.source.pooling = Pooling::None;
        assert_eq!(model.residual_map(&[], &[0.0; 4], None).unwrap(), None);
    }
}
