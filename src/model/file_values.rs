//! What several parts of the model file are made of.

use serde::{Deserialize, Serialize};

use super::projection::QuantizedMatrix;

#[derive(Serialize, Deserialize)]
pub(super) struct IntegersV1 {
    rows: u32,
    cols: u32,
    values: Vec<i8>,
    scales: Vec<f32>,
}

impl IntegersV1 {
    pub(super) fn of(matrix: &QuantizedMatrix) -> IntegersV1 {
        let (values, scales) = (matrix.values.clone(), matrix.scales.clone());
        IntegersV1 { rows: matrix.rows as u32, cols: matrix.cols as u32, values, scales }
    }

    pub(super) fn cols(&self) -> usize {
        self.cols as usize
    }

    /// Of `cols` columns and one row at least, and no more than columns.
    pub(super) fn matrix(self, cols: usize) -> Result<QuantizedMatrix, String> {
        let rows = self.rows as usize;
        check(self.cols as usize == cols && (1..=cols).contains(&rows), "the number of components")?;
        check(rows.checked_mul(cols) == Some(self.values.len()) && self.scales.len() == rows, "the components")?;
        finite_f32(&self.scales, "the components' scales")?;
        Ok(QuantizedMatrix { rows, cols, values: self.values, scales: self.scales })
    }
}

pub(super) fn check(good: bool, what: &str) -> Result<(), String> {
    if good { Ok(()) } else { Err(format!("{what} does not make sense: it is damaged or was not written by outlierd")) }
}

pub(super) fn finite_f32(values: &[f32], what: &str) -> Result<(), String> {
    check(values.iter().all(|v| v.is_finite()), what)
}
