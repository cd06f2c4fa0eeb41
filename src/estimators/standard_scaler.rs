//! StandardScaler: every feature minus its mean, divided by its standard deviation.

use super::{Error, check_array, check_features, linalg};
use ndarray::{Array1, Array2, ArrayView2};

const NAME: &str = "StandardScaler";

/// A fitted scaler.
#[derive(Debug, Clone, PartialEq)]
pub struct StandardScaler {
    /// Subtracted, `n_features`.
    pub mean: Array1<f64>,
    /// Divided by, `n_features`; 1 for constant features.
    pub scale: Array1<f64>,
    /// Population variance (divided by n), `n_features`.
    pub var: Array1<f64>,
}

impl StandardScaler {
    /// Learns mean and variance of every column of `x`.
    ///
    /// A feature counts as constant when its variance is within rounding of zero:
    /// `var <= n eps var + (n mean eps)^2`, as in scikit-learn. NaN is refused (scikit-learn skips it).
    ///
    /// # Errors
    /// [`Error::TooFewSamples`] for no rows, [`Error::NoFeatures`], [`Error::NotFinite`].
    pub fn fit(x: ArrayView2<f64>) -> Result<StandardScaler, Error> {
        check_array(NAME, &x, 1)?;
        let n = x.nrows() as f64;
        let mean = linalg::column_means(x);
        let mut square = Array1::<f64>::zeros(x.ncols());
        let mut correction = Array1::<f64>::zeros(x.ncols());
        for row in x.outer_iter() {
            ndarray::Zip::from(&mut square).and(&mut correction).and(row).and(&mean).for_each(|s, c, v, m| {
                let d = v - m;
                *s += d * d;
                *c += d;
            });
        }
        let var: Array1<f64> = square.iter().zip(&correction).map(|(s, c)| (s - c * c / n) / n).collect();
        let scale = |(v, m): (&f64, &f64)| {
            let bound = n * f64::EPSILON * v + (n * m * f64::EPSILON).powi(2);
            if *v <= bound { 1.0 } else { v.sqrt() }
        };
        let scale = var.iter().zip(&mean).map(scale).collect();
        Ok(StandardScaler { mean, scale, var })
    }

    /// Scales every row.
    ///
    /// # Errors
    /// [`Error::Features`] when the width differs.
    pub fn transform(&self, x: ArrayView2<f64>) -> Result<Array2<f64>, Error> {
        check_features(NAME, self.mean.len(), x.ncols())?;
        let mut out = linalg::to_row_major(x);
        linalg::par_rows_mut(&mut out, |_, row| {
            for ((v, m), s) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
                *v = (*v - m) / s;
            }
        });
        Ok(out)
    }
}
