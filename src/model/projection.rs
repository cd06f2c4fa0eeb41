//! The linear part of a model: from the scaled feature to principal components, stored as i8 or f32.

use ndarray::Array2;

use crate::estimators::linalg::dot;

/// The matrix of principal components, one per row.
#[derive(Debug, Clone, PartialEq)]
pub enum Components {
    /// A quarter of the size; scores of fitted models change by about 1e-3.
    I8(QuantizedMatrix),
    /// For imported models, whose scores must be those of the original.
    F32(FloatMatrix),
}

impl Components {
    pub fn rows(&self) -> usize {
        match self {
            Components::I8(matrix) => matrix.rows,
            Components::F32(matrix) => matrix.rows(),
        }
    }

    /// "i8" or "f32".
    pub fn precision(&self) -> &'static str {
        match self {
            Components::I8(_) => "i8",
            Components::F32(_) => "f32",
        }
    }

    /// The product with a vector of one value per column: one value per row.
    pub fn multiply(&self, x: &[f32]) -> Vec<f64> {
        match self {
            Components::I8(matrix) => matrix.multiply(x),
            Components::F32(matrix) => matrix.multiply(x),
        }
    }

    /// `x[c] -= sum over r of element(r, c) * y[r]`; `y` has a value per row, `x` one per column.
    pub fn subtract_transposed(&self, y: &[f64], x: &mut [f32]) {
        match self {
            Components::I8(matrix) => matrix.subtract_transposed(y, x),
            Components::F32(matrix) => matrix.subtract_transposed(y, x),
        }
    }
}

/// A row-major matrix of f32.
#[derive(Debug, Clone, PartialEq)]
pub struct FloatMatrix {
    pub cols: usize,
    pub values: Vec<f32>,
}

impl FloatMatrix {
    pub fn rows(&self) -> usize {
        self.values.len() / self.cols.max(1)
    }

    /// Sums in f64, so that a small component of a large feature keeps its digits.
    fn multiply(&self, x: &[f32]) -> Vec<f64> {
        let product = |row: &[f32]| row.iter().zip(x).map(|(r, x)| f64::from(*r) * f64::from(*x)).sum();
        self.values.chunks_exact(self.cols.max(1)).map(product).collect()
    }

    fn subtract_transposed(&self, y: &[f64], x: &mut [f32]) {
        for (row, y) in self.values.chunks_exact(self.cols.max(1)).zip(y) {
            x.iter_mut().zip(row).for_each(|(x, value)| *x -= (y * f64::from(*value)) as f32);
        }
    }
}

/// A row-major matrix of i8 values with one scale per row: element = `value * scale[row]`.
///
/// Symmetric, rounded to nearest, with the row's largest magnitude at 127.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedMatrix {
    pub rows: usize,
    pub cols: usize,
    pub values: Vec<i8>,
    pub scales: Vec<f32>,
}

impl QuantizedMatrix {
    /// The dequantized values, `rows` x `cols`.
    pub fn dequantized(&self) -> Array2<f64> {
        Array2::from_shape_fn((self.rows, self.cols), |(r, c)| {
            f64::from(self.values[r * self.cols + c]) * f64::from(self.scales[r])
        })
    }

    /// Quantizes rows of `cols` values.
    pub fn from_rows<'a>(cols: usize, rows: impl Iterator<Item = &'a [f64]>) -> Self {
        let (mut values, mut scales) = (Vec::new(), Vec::new());
        for row in rows {
            let largest = row.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
            let scale = (largest / 127.0) as f32;
            scales.push(scale);
            let inverse = if scale > 0.0 { 1.0 / f64::from(scale) } else { 0.0 };
            values.extend(row.iter().map(|v| (v * inverse).round().clamp(-127.0, 127.0) as i8));
        }
        QuantizedMatrix { rows: scales.len(), cols, values, scales }
    }

    fn multiply(&self, x: &[f32]) -> Vec<f64> {
        let rows = self.values.chunks_exact(self.cols.max(1)).zip(&self.scales);
        rows.map(|(row, scale)| f64::from(dot(row, x)) * f64::from(*scale)).collect()
    }

    fn subtract_transposed(&self, y: &[f64], x: &mut [f32]) {
        for ((row, scale), y) in self.values.chunks_exact(self.cols.max(1)).zip(&self.scales).zip(y) {
            let factor = (y * f64::from(*scale)) as f32;
            for (x, value) in x.iter_mut().zip(row) {
                *x -= factor * f32::from(*value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_to_the_exact_product() {
        let cols = 131;
        let rows: Vec<Vec<f64>> =
            (0..5).map(|r| (0..cols).map(|c| ((r * cols + c) as f64 * 0.7).sin() / 11.0).collect()).collect();
        let matrix = QuantizedMatrix::from_rows(cols, rows.iter().map(Vec::as_slice));
        let x: Vec<f32> = (0..cols).map(|c| (c as f32 * 0.3).cos()).collect();
        for (row, got) in rows.iter().zip(matrix.multiply(&x)) {
            let exact: f64 = row.iter().zip(&x).map(|(r, x)| r * f64::from(*x)).sum();
            assert!((exact - got).abs() < 0.01, "{exact} {got}");
        }
    }

    #[test]
    fn zero_rows_stay_zero() {
        let matrix = QuantizedMatrix::from_rows(3, [[0.0; 3].as_slice()].into_iter());
        assert_eq!(matrix.multiply(&[5.0, 6.0, 7.0]), [0.0]);
    }
}
