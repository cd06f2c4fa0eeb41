//! OneClassSVM: the region that holds all but a share `nu` of the samples (Schölkopf et al. 2001).

use super::kernel::Kernel;
use super::{Error, check_array, check_features, linalg, smo};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

const NAME: &str = "OneClassSVM";

/// The kernel to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelName {
    Linear,
    Poly,
    Rbf,
    Sigmoid,
}

/// The coefficient of the kernels other than the linear one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gamma {
    /// `1 / (n_features * variance of all entries)`.
    Scale,
    /// `1 / n_features`.
    Auto,
    Value(f64),
}

/// Parameters of [`OneClassSvm::fit`].
#[derive(Debug, Clone, PartialEq)]
pub struct OneClassSvmParams {
    pub kernel: KernelName,
    /// Power of the polynomial kernel.
    pub degree: u32,
    pub gamma: Gamma,
    /// Constant of the polynomial and sigmoid kernels.
    pub coef0: f64,
    /// Stops when the largest violation of the optimality conditions is below.
    pub tol: f64,
    /// Upper bound of the share of training outliers, lower bound of the share of support vectors, in (0, 1].
    pub nu: f64,
    /// Leave samples that stay at a bound out of the optimisation.
    pub shrinking: bool,
    /// Kernel rows kept, MB.
    pub cache_size: f64,
}

impl Default for OneClassSvmParams {
    fn default() -> Self {
        OneClassSvmParams {
            kernel: KernelName::Rbf,
            degree: 3,
            gamma: Gamma::Value(0.001),
            coef0: 0.0,
            tol: 1e-3,
            nu: 0.08,
            shrinking: true,
            cache_size: 200.0,
        }
    }
}

/// A fitted support vector machine.
#[derive(Debug, Clone, PartialEq)]
pub struct OneClassSvm {
    pub kernel: Kernel,
    /// Indices of the support vectors in the training samples.
    pub support: Vec<usize>,
    /// `n_support` x `n_features`.
    pub support_vectors: Array2<f64>,
    /// Their weights, in (0, 1], summing to `nu * n_samples`.
    pub dual_coef: Array1<f64>,
    /// Subtracted from the score: libsvm's rho.
    pub offset: f64,
    /// Steps of the optimiser.
    pub n_iter: usize,
}

impl OneClassSvm {
    /// Minimises `a' K a / 2` under `0 <= a <= 1`, `sum a = nu n` (libsvm's scaling).
    ///
    /// # Errors
    /// [`Error::TooFewSamples`], [`Error::NotFinite`], [`Error::Parameter`].
    pub fn fit(x: ArrayView2<f64>, params: &OneClassSvmParams) -> Result<OneClassSvm, Error> {
        check_array(NAME, &x, 1)?;
        let kernel = kernel(x, params)?;
        let x = linalg::to_row_major(x);
        let problem = smo::Problem {
            x: x.view(),
            kernel,
            sum: params.nu * x.nrows() as f64,
            tol: params.tol,
            shrinking: params.shrinking,
            cache_bytes: params.cache_size * 1e6,
        };
        let solution = smo::solve(&problem);
        if !solution.finite {
            let reason = "overflows on these samples; scale them, or lower gamma, coef0 or degree";
            return Err(Error::parameter(NAME, "kernel", reason));
        }
        let support: Vec<usize> = (0..x.nrows()).filter(|i| solution.alpha[*i] > 0.0).collect();
        Ok(OneClassSvm {
            kernel,
            support_vectors: x.select(Axis(0), &support),
            dual_coef: support.iter().map(|i| solution.alpha[*i]).collect(),
            support,
            offset: solution.rho,
            n_iter: solution.n_iter,
        })
    }

    /// Weighted kernel sum of one sample, from which the offset is yet to be subtracted. Does not allocate.
    ///
    /// # Errors
    /// [`Error::Features`] when the width differs.
    pub fn score_one(&self, x: ArrayView1<f64>) -> Result<f64, Error> {
        check_features(NAME, self.support_vectors.ncols(), x.len())?;
        let vectors = self.support_vectors.outer_iter();
        Ok(vectors.zip(&self.dual_coef).map(|(v, a)| a * self.kernel.pair(x, v)).sum())
    }
}

fn kernel(x: ArrayView2<f64>, params: &OneClassSvmParams) -> Result<Kernel, Error> {
    let parameter = |parameter, reason: &str| Err(Error::parameter(NAME, parameter, reason));
    if !(params.nu > 0.0 && params.nu <= 1.0) {
        return parameter("nu", "must lie in (0, 1]");
    }
    if !(params.tol.is_finite() && params.tol > 0.0) {
        return parameter("tol", "must be finite and positive");
    }
    if !(params.cache_size.is_finite() && params.cache_size > 0.0) {
        return parameter("cache_size", "must be finite and positive");
    }
    if !params.coef0.is_finite() {
        return parameter("coef0", "must be finite");
    }
    let d = x.ncols() as f64;
    let gamma = match params.gamma {
        Gamma::Auto => 1.0 / d,
        Gamma::Value(gamma) if gamma.is_finite() && gamma >= 0.0 => gamma,
        Gamma::Value(_) => return parameter("gamma", "must be finite and not negative"),
        Gamma::Scale => {
            let mean = x.sum() / x.len() as f64;
            let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / x.len() as f64;
            if variance > 0.0 { 1.0 / (d * variance) } else { 1.0 }
        }
    };
    let coef0 = params.coef0;
    Ok(match params.kernel {
        KernelName::Linear => Kernel::Linear,
        KernelName::Poly => Kernel::Poly { gamma, coef0, degree: params.degree },
        KernelName::Rbf => Kernel::Rbf { gamma },
        KernelName::Sigmoid => Kernel::Sigmoid { gamma, coef0 },
    })
}
