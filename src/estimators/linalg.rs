//! Dense products and decompositions on ndarray, done by faer on all threads of rayon.

use faer::linalg::matmul::triangular::BlockStructure;
use faer::linalg::matmul::{matmul as faer_matmul, triangular};
use faer::{Accum, MatMut, MatRef, Side};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use rayon::prelude::*;

/// Calls `f` with a faer view of `a`, copying only when `a` is neither row-major nor column-major.
fn with_mat<R>(a: ArrayView2<f64>, f: impl FnOnce(MatRef<'_, f64>) -> R) -> R {
    let (n, m) = a.dim();
    if let Some(slice) = a.to_slice() {
        return f(MatRef::from_row_major_slice(slice, n, m));
    }
    if let Some(slice) = a.reversed_axes().to_slice() {
        return f(MatRef::from_column_major_slice(slice, n, m));
    }
    let copy: Vec<f64> = a.iter().copied().collect();
    f(MatRef::from_row_major_slice(&copy, n, m))
}

/// `a` times `b`.
pub(crate) fn matmul(a: ArrayView2<f64>, b: ArrayView2<f64>) -> Array2<f64> {
    let (n, m) = (a.nrows(), b.ncols());
    let mut out = vec![0.0; n * m];
    with_mat(a, |a| {
        with_mat(b, |b| {
            let dst = MatMut::from_row_major_slice_mut(&mut out, n, m);
            faer_matmul(dst, Accum::Replace, a, b, 1.0, faer::get_global_parallelism());
        })
    });
    from_row_major(n, m, out)
}

/// `xᵀ x`, both halves.
pub(crate) fn gram(x: ArrayView2<f64>) -> Array2<f64> {
    let d = x.ncols();
    let mut out = vec![0.0; d * d];
    with_mat(x, |x| {
        let dst = MatMut::from_row_major_slice_mut(&mut out, d, d);
        triangular::matmul(
            dst,
            BlockStructure::TriangularLower,
            Accum::Replace,
            x.transpose(),
            BlockStructure::Rectangular,
            x,
            BlockStructure::Rectangular,
            1.0,
            faer::get_global_parallelism(),
        );
    });
    let mut out = from_row_major(d, d, out);
    for i in 0..d {
        for j in 0..i {
            out[[j, i]] = out[[i, j]];
        }
    }
    out
}

/// Eigenvalues of a symmetric matrix in falling order, and the eigenvectors as rows.
pub(crate) fn eigh_descending(a: ArrayView2<f64>) -> Option<(Array1<f64>, Array2<f64>)> {
    let d = a.nrows();
    let evd = with_mat(a, |a| a.self_adjoint_eigen(Side::Lower)).ok()?;
    let values: Array1<f64> = evd.S().column_vector().iter().rev().copied().collect();
    let mut vectors = Vec::with_capacity(d * d);
    for column in (0..d).rev() {
        vectors.extend(evd.U().col(column).iter());
    }
    Some((values, from_row_major(d, d, vectors)))
}

/// Singular values in falling order and the right singular vectors as rows.
pub(crate) fn svd_right(a: ArrayView2<f64>) -> Option<(Array1<f64>, Array2<f64>)> {
    let (n, d) = a.dim();
    let svd = with_mat(a, |a| a.thin_svd()).ok()?;
    let values: Array1<f64> = svd.S().column_vector().iter().copied().collect();
    let mut vectors = Vec::with_capacity(n.min(d) * d);
    for column in 0..n.min(d) {
        vectors.extend(svd.V().col(column).iter());
    }
    Some((values, from_row_major(n.min(d), d, vectors)))
}

/// An orthonormal basis of the columns of `a` (`n` x `k`, `n >= k`).
pub(crate) fn orthonormal(a: ArrayView2<f64>) -> Array2<f64> {
    let (n, k) = (a.nrows(), a.ncols().min(a.nrows()));
    let q = with_mat(a, |a| a.qr().compute_thin_Q());
    Array2::from_shape_fn((n, k), |(i, j)| q[(i, j)])
}

/// Lower Cholesky factor; `None` if `a` is not positive definite.
pub(crate) fn cholesky(a: ArrayView2<f64>) -> Option<Array2<f64>> {
    let d = a.nrows();
    let llt = with_mat(a, |a| a.llt(Side::Lower)).ok()?;
    let factor = llt.L();
    let lower = Array2::from_shape_fn((d, d), |(i, j)| if j <= i { factor[(i, j)] } else { 0.0 });
    lower.diag().iter().all(|v| v.is_finite() && *v > 0.0).then_some(lower)
}

/// Inverse of a lower triangular matrix.
pub(crate) fn invert_lower(lower: ArrayView2<f64>) -> Array2<f64> {
    let d = lower.nrows();
    let mut inverse = Array2::<f64>::zeros((d, d));
    for i in 0..d {
        let pivot = 1.0 / lower[[i, i]];
        let (done, mut rest) = inverse.view_mut().split_at(ndarray::Axis(0), i);
        let mut row = rest.row_mut(0);
        for k in 0..i {
            row.scaled_add(-lower[[i, k]] * pivot, &done.row(k));
        }
        row[i] = pivot;
    }
    inverse
}

/// Squared Euclidean norm of every row.
pub(crate) fn row_norms_squared(x: ArrayView2<f64>) -> Array1<f64> {
    x.outer_iter().map(|row| row.dot(&row)).collect()
}

/// Mean of every column.
pub(crate) fn column_means(x: ArrayView2<f64>) -> Array1<f64> {
    column_sums(x) / x.nrows() as f64
}

/// Sum of every column.
pub(crate) fn column_sums(x: ArrayView2<f64>) -> Array1<f64> {
    let mut sum = Array1::zeros(x.ncols());
    for row in x.outer_iter() {
        sum += &row;
    }
    sum
}

/// `x` minus `mean` in every row.
pub(crate) fn centered(x: ArrayView2<f64>, mean: ArrayView1<f64>) -> Array2<f64> {
    let mut out = to_row_major(x);
    par_rows_mut(&mut out, |_, row| row.iter_mut().zip(&mean).for_each(|(v, m)| *v -= m));
    out
}

/// Log of the sum of exponentials of every row.
pub(crate) fn logsumexp_rows(x: ArrayView2<f64>) -> Array1<f64> {
    let logsumexp = |row: ArrayView1<f64>| {
        let max = row.fold(f64::NEG_INFINITY, |max, v| max.max(*v));
        if max.is_finite() { max + row.iter().map(|v| (v - max).exp()).sum::<f64>().ln() } else { max }
    };
    x.outer_iter().map(logsumexp).collect()
}

/// Calls `f` on every row of a row-major array, in parallel.
pub(crate) fn par_rows_mut(x: &mut Array2<f64>, f: impl Fn(usize, &mut [f64]) + Sync) {
    let d = x.ncols().max(1);
    let slice = x.as_slice_mut().expect("a row-major array");
    slice.par_chunks_mut(d).enumerate().with_min_len((4096 / d).max(1)).for_each(|(i, row)| f(i, row));
}

/// A row-major copy, whatever the layout of `x`.
pub(crate) fn to_row_major(x: ArrayView2<f64>) -> Array2<f64> {
    x.as_standard_layout().into_owned()
}

/// Wraps a row-major vector of `n * m` values.
fn from_row_major(n: usize, m: usize, data: Vec<f64>) -> Array2<f64> {
    Array2::from_shape_vec((n, m), data).expect("n * m values")
}

/// The inner product of small integers and floats. Sixteen sums side by side let the compiler use vector registers.
pub fn dot(row: &[i8], x: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0_f32; LANES];
    let (row_chunks, row_rest) = row.as_chunks::<LANES>();
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    for (r, x) in row_chunks.iter().zip(x_chunks) {
        for lane in 0..LANES {
            sums[lane] += f32::from(r[lane]) * x[lane];
        }
    }
    let rest: f32 = row_rest.iter().zip(x_rest).map(|(r, x)| f32::from(*r) * x).sum();
    sums.iter().sum::<f32>() + rest
}
