//! Features of pictures, and their scores by a model.

use ndarray::ArrayView2;

use crate::backbone::cells::Cells;
use crate::model::{Error, Model};

/// The features of pictures, one per row, and the cells of each where a detector needs them.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    pub rows: ArrayView2<'a, f32>,
    /// One for each row, or empty.
    pub cells: &'a [Cells],
}

impl<'a> From<ArrayView2<'a, f32>> for Samples<'a> {
    fn from(rows: ArrayView2<'a, f32>) -> Self {
        Samples { rows, cells: &[] }
    }
}

/// The model's score of every sample.
pub fn scores(model: &Model, samples: Samples) -> Result<Vec<f64>, Error> {
    let one = |(at, row): (usize, ndarray::ArrayView1<f32>)| model.raw_score(&row.to_vec(), samples.cells.get(at));
    samples.rows.rows().into_iter().enumerate().map(one).collect()
}

/// The score of every row by the detector over the pooled feature.
pub fn feature_scores(model: &Model, rows: ArrayView2<f32>) -> Result<Vec<f64>, Error> {
    rows.rows().into_iter().map(|row| model.feature_score(&row.to_vec())).collect()
}
