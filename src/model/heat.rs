//! Where in a picture the feature departs from what the model knows.
//!
//! The pooled feature is the mean of the cells of the tap's grid, and the scaling is linear, so the residual's norm
//! is the mean over the cells of `<r, z_cell>` with `r` the residual's direction: each cell's share, exactly.

use super::{Error, Model};
use crate::backbone::{FeatureMap, Pooling};

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
}

impl Model {
    /// The residual's shares over the grid of the finest stage of the tap; None where pooling has lost the place.
    pub fn heat(&self, maps: &[FeatureMap], feature: &[f32]) -> Result<Option<Heat>, Error> {
        if self.source.pooling != Pooling::Avg {
            return Ok(None);
        }
        let z = self.scaled(feature)?;
        let mut y = vec![0.0; self.components.rows];
        self.components.multiply(&z, &mut y);
        let mut direction = z;
        self.components.subtract_transposed(&y, &mut direction);
        let norm = direction.iter().map(|r| f64::from(*r).powi(2)).sum::<f64>().sqrt();
        if norm > 0.0 {
            direction.iter_mut().for_each(|r| *r /= norm as f32);
        }
        let Some(finest) = maps.iter().max_by_key(|map| map.height * map.width) else { return Ok(None) };
        let (height, width) = (finest.height, finest.width);
        let mut cells = vec![0.0_f32; height * width];
        let mut first = 0;
        for map in maps {
            let span = first..first + map.channels;
            let (Some(r), Some(mean), Some(scale)) =
                (direction.get(span.clone()), self.mean.get(span.clone()), self.scale.get(span.clone()))
            else {
                return Err(Error::Width { wanted: self.n_features(), got: span.end });
            };
            let shares: Vec<f32> = map
                .data
                .chunks_exact(map.channels)
                .map(|cell| {
                    r.iter().zip(cell).zip(mean.iter().zip(scale)).map(|((r, x), (m, s))| r * (x - m) / s).sum()
                })
                .collect();
            for (at, cell) in cells.iter_mut().enumerate() {
                let (row, column) = (at / width * map.height / height, at % width * map.width / width);
                *cell += shares[row * map.width + column];
            }
            first = span.end;
        }
        Ok(Some(Heat { height, width, cells }))
    }
}
