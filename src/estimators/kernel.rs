//! Kernel functions of support vector machines and their evaluation in blocks.

use super::linalg;
use ndarray::{Array2, ArrayView1, ArrayView2};

/// A kernel with its coefficients, libsvm's names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kernel {
    /// `<x, y>`
    Linear,
    /// `(gamma <x, y> + coef0)^degree`
    Poly { gamma: f64, coef0: f64, degree: u32 },
    /// `exp(-gamma |x - y|^2)`
    Rbf { gamma: f64 },
    /// `tanh(gamma <x, y> + coef0)`
    Sigmoid { gamma: f64, coef0: f64 },
}

impl Kernel {
    /// The kernel of two samples from their inner product and squared norms.
    pub(crate) fn of(&self, dot: f64, x_norm: f64, y_norm: f64) -> f64 {
        match *self {
            Kernel::Linear => dot,
            Kernel::Poly { gamma, coef0, degree } => {
                (gamma * dot + coef0).powi(i32::try_from(degree).unwrap_or(i32::MAX))
            }
            Kernel::Rbf { gamma } => (-gamma * (x_norm + y_norm - 2.0 * dot).max(0.0)).exp(),
            Kernel::Sigmoid { gamma, coef0 } => (gamma * dot + coef0).tanh(),
        }
    }

    /// The kernel of every row of `x` with every row of `y`.
    pub(crate) fn matrix(&self, x: ArrayView2<f64>, y: ArrayView2<f64>) -> Array2<f64> {
        let y_norms = linalg::row_norms_squared(y);
        let x_norms = linalg::row_norms_squared(x);
        let mut out = linalg::matmul(x, y.t());
        linalg::par_rows_mut(&mut out, |i, row| {
            row.iter_mut().zip(&y_norms).for_each(|(v, y_norm)| *v = self.of(*v, x_norms[i], *y_norm));
        });
        out
    }

    /// The kernel of two samples.
    pub(crate) fn pair(&self, x: ArrayView1<f64>, y: ArrayView1<f64>) -> f64 {
        if let Kernel::Rbf { gamma } = *self {
            return (-gamma * x.iter().zip(&y).map(|(a, b)| (a - b) * (a - b)).sum::<f64>()).exp();
        }
        self.of(x.dot(&y), 0.0, 0.0)
    }
}
