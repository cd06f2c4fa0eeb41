//! Where in a picture the feature departs from what the model knows.
//!
//! Where the pooled feature `x` is the mean of the cells of the tap's grid, the residual's norm `<r, z>`, with `r` its
//! direction, is a mean of shares over the cells. Without a transform a cell's share is `<r, (x_cell - m) / s>`; with
//! the square root, `sqrt(x) - m = (x - m^2) / (sqrt(x) + m)` makes it `<r, (x_cell - m^2) / ((sqrt(x) + m) s)>`.
//! Where `x` is the greatest of the cells, a channel's whole share lies in the cell that has it.

use super::error::Error;
use super::fitted::Model;
use super::heat::Heat;
use crate::backbone::{Backbone, FeatureMap, Pooling};
use crate::estimators::feature_transform::FeatureTransform;

impl Model {
    /// Where in a picture the model sees what it does not know, by what the backbone made of it: the cells' map where the
    /// model has one, else the residual's, less the pattern of a `normal` picture of the same view.
    pub fn map(
        &self,
        backbone: &Backbone,
        views: &[Vec<FeatureMap>],
        normal: Option<&[FeatureMap]>,
    ) -> Result<Option<Heat>, Error> {
        let (feature, cells) = (backbone.pool(views), backbone.cells(views));
        match &self.joined {
            Some(joined) => {
                let distances = joined.cells.distances(cells.as_ref().ok_or(Error::Cells)?)?;
                Ok(Some(joined.map(distances)))
            }
            None => self.heat_against(views.first().map_or(&[], Vec::as_slice), &feature, normal),
        }
    }

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
    fn pooling_that_loses_the_place_has_no_heat() {
        let mut model = model(FeatureTransform::Identity);
        model.source.pooling = Pooling::None;
        assert_eq!(model.heat(&[], &[0.0; 4]).unwrap(), None);
    }
}
