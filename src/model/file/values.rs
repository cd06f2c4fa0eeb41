//! Matrices in the model file, and checks of its values.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::model::projection::{FloatMatrix, QuantizedMatrix};

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

    /// A matrix of `cols` columns, with at least one row and no more rows than columns.
    pub(super) fn matrix(self, cols: usize) -> Result<QuantizedMatrix, String> {
        let rows = self.rows as usize;
        check(self.cols as usize == cols && (1..=cols).contains(&rows), "the number of components")?;
        check(rows.checked_mul(cols) == Some(self.values.len()) && self.scales.len() == rows, "the components")?;
        finite_f32(&self.scales, "the components' scales")?;
        Ok(QuantizedMatrix { rows, cols, values: self.values, scales: self.scales })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct FloatsV1 {
    rows: u32,
    cols: u32,
    values: Vec<f32>,
}

impl FloatsV1 {
    pub(super) fn of(array: &Array2<f64>) -> FloatsV1 {
        let values = array.iter().map(|v| *v as f32).collect();
        FloatsV1 { rows: array.nrows() as u32, cols: array.ncols() as u32, values }
    }

    pub(super) fn of_matrix(matrix: &FloatMatrix) -> FloatsV1 {
        FloatsV1 { rows: matrix.rows() as u32, cols: matrix.cols as u32, values: matrix.values.clone() }
    }

    pub(super) fn array(self, rows: usize, cols: usize, what: &str) -> Result<Array2<f64>, String> {
        check((self.rows as usize, self.cols as usize) == (rows, cols), what)?;
        finite_f32(&self.values, what)?;
        let values = self.values.into_iter().map(f64::from).collect();
        Array2::from_shape_vec((rows, cols), values).map_err(|_| format!("{what} has the wrong number of values"))
    }

    /// The same matrix as f32; shapes as [`IntegersV1::matrix`].
    pub(super) fn matrix(self, cols: usize) -> Result<FloatMatrix, String> {
        let rows = self.rows as usize;
        check(self.cols as usize == cols && (1..=cols).contains(&rows), "the number of components")?;
        check(rows.checked_mul(cols) == Some(self.values.len()), "the components")?;
        finite_f32(&self.values, "the components")?;
        Ok(FloatMatrix { cols, values: self.values })
    }
}

pub(super) fn check(good: bool, what: &str) -> Result<(), String> {
    if good { Ok(()) } else { Err(format!("{what} is invalid: the file is damaged or was not written by outlierd")) }
}

pub(super) fn finite_f32(values: &[f32], what: &str) -> Result<(), String> {
    check(values.iter().all(|v| v.is_finite()), what)
}
