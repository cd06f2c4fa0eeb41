//! The detector over cells, and how it is joined with the one over the pooled feature.
//!
//! A cell is projected by a whitened PCA and scored by the Gaussian of its place; the picture's score is the negated mean
//! of the [`WORST`] largest squared distances. Held-out normals put the scores of both detectors on one scale, and the
//! joint score is the logarithm of the harmonic mean of both shares: the smaller one decides, and dependence does no harm
//! (Wilson 2019, "The harmonic mean p-value for combining dependent tests"). The joint score is what is calibrated.

use ndarray::Array2;

use super::anomaly_map::AnomalyMap;
use super::error::Error;
use super::projection::QuantizedMatrix;
use crate::backbone::cells::Cells;
use crate::estimators::cell_gaussians::CellGaussians;
use crate::estimators::level::Level;

/// The number of cells, those with the largest distances, that make the score.
pub const WORST: usize = 4;

/// The distance of every cell from the normal cells of its place.
#[derive(Debug, Clone, PartialEq)]
pub struct CellDetector {
    pub height: usize,
    pub width: usize,
    /// Whitened principal components, one per row.
    pub components: QuantizedMatrix,
    /// The projection of the mean cell.
    pub centre: Vec<f32>,
    pub gaussians: CellGaussians,
}

/// The whitened principal components of every cell, cell by cell. The inner products are integers below 2^24, which f32
/// holds exactly.
pub fn project(components: &QuantizedMatrix, centre: &[f32], cells: &Cells) -> Vec<f32> {
    let floats = |values: &[i8], cols: usize| {
        let values: Vec<f32> = values.iter().map(|v| f32::from(*v)).collect();
        Array2::from_shape_vec((values.len() / cols.max(1), cols), values).unwrap_or_default()
    };
    let rows = floats(&components.values, components.cols);
    let mut projected = floats(&cells.values, components.cols).dot(&rows.t());
    for mut cell in projected.rows_mut() {
        for ((value, scale), centre) in cell.iter_mut().zip(&components.scales).zip(centre) {
            *value = scale * cells.scale * *value - centre;
        }
    }
    projected.into_raw_vec_and_offset().0
}

/// The negated mean of the farthest cells.
pub fn score(distances: &[f32]) -> f64 {
    let mut sorted = distances.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    sorted.truncate(WORST);
    -sorted.iter().map(|d| f64::from(*d)).sum::<f64>() / sorted.len().max(1) as f64
}

impl CellDetector {
    /// # Errors
    /// [`Error::Cells`] for cells of another grid.
    pub fn distances(&self, cells: &Cells) -> Result<Vec<f32>, Error> {
        if (cells.height, cells.width, cells.channels) != (self.height, self.width, self.components.cols) {
            return Err(Error::Cells);
        }
        let projected = project(&self.components, &self.centre, cells);
        self.gaussians.distances(&projected).map_err(|_| Error::Cells)
    }
}

/// The detector over cells and the scales that join it.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    pub cells: CellDetector,
    /// Of the scores of the pooled feature.
    pub of_feature: Level,
    /// Of the scores of the cells.
    pub of_cells: Level,
}

impl Joined {
    /// The joint score.
    pub fn score(&self, of_feature: f64, of_cells: f64) -> f64 {
        let (a, b) = (self.of_feature.of(of_feature), self.of_cells.of(of_cells));
        // ln(2 / (exp(-a) + exp(-b)))
        a.min(b) + std::f64::consts::LN_2 - (-(a - b).abs()).exp().ln_1p()
    }

    /// The anomaly map of the cells' distances; normals have 1 on average at every place.
    pub fn map(&self, distances: Vec<f32>) -> AnomalyMap {
        AnomalyMap { height: self.cells.height, width: self.cells.width, cells: distances }
    }
}
