//! PCA: principal axes of centred data, projection with optional whitening, and the residual of the projection.

use super::{Error, check_array, check_features, linalg, random};
use ndarray::{Array1, Array2, ArrayView2, s};

const NAME: &str = "PCA";

/// Below this share of the largest eigenvalue the covariance has lost the digits that an SVD keeps.
const COVARIANCE_LIMIT: f64 = 1e-9;

/// Additional random directions of the randomized solver.
const N_OVERSAMPLES: usize = 10;

/// How many components to keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NComponents {
    Count(usize),
    /// The fewest that explain more than this share of the variance, in (0, 1).
    Variance(f64),
}

/// How to decompose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SvdSolver {
    /// `Randomized` where few of many components are wanted, else `Full`.
    Auto,
    /// Exact: eigenvectors of the smaller Gram matrix, or an SVD where small components would lose precision.
    Full,
    /// Subspace iteration from a random start (Halko, Martinsson, Tropp 2011), on the smaller Gram matrix.
    Randomized,
}

/// Parameters of [`Pca::fit`].
#[derive(Debug, Clone, PartialEq)]
pub struct PcaParams {
    pub n_components: NComponents,
    /// Divide the projection by the standard deviation of each component.
    pub whiten: bool,
    pub svd_solver: SvdSolver,
    /// Seed of the randomized solver.
    pub random_state: u64,
}

impl Default for PcaParams {
    fn default() -> Self {
        PcaParams { n_components: NComponents::Count(512), whiten: true, svd_solver: SvdSolver::Auto, random_state: 0 }
    }
}

/// A fitted PCA.
#[derive(Debug, Clone, PartialEq)]
pub struct Pca {
    /// `n_features`.
    pub mean: Array1<f64>,
    /// Principal axes, `n_components` x `n_features`, by falling variance; the entry of largest magnitude is positive.
    pub components: Array2<f64>,
    /// Variance (divided by n - 1) along each axis.
    pub explained_variance: Array1<f64>,
    /// The same as a share of the total variance.
    pub explained_variance_ratio: Array1<f64>,
    /// Mean variance of the dropped components (Tipping and Bishop 1999, eq. 12); 0 when none was dropped.
    pub noise_variance: f64,
    pub whiten: bool,
}

/// Eigenvalues of the covariance (n - 1) by falling size and the axes that belong to them.
struct Spectrum {
    values: Array1<f64>,
    axes: Array2<f64>,
}

impl Pca {
    /// Learns the principal axes of `x` (`n_samples` x `n_features`).
    ///
    /// # Errors
    /// [`Error::TooFewSamples`] below two rows, [`Error::NotFinite`], [`Error::Parameter`] when `n_components` is 0,
    /// above `min(n_samples, n_features)`, or a share outside of (0, 1), [`Error::Decomposition`].
    pub fn fit(x: ArrayView2<f64>, params: &PcaParams) -> Result<Pca, Error> {
        check_array(NAME, &x, 2)?;
        let (n, d) = x.dim();
        let most = n.min(d);
        let wanted = match params.n_components {
            NComponents::Count(k) if (1..=most).contains(&k) => k,
            NComponents::Count(k) => {
                return Err(parameter(format!("= {k} must be between 1 and min(n_samples, n_features) = {most}")));
            }
            NComponents::Variance(share) if share > 0.0 && share < 1.0 => most,
            NComponents::Variance(share) => return Err(parameter(format!("= {share} must lie in (0, 1)"))),
        };
        let mean = linalg::column_means(x);
        let xc = linalg::centered(x, mean.view());
        let total = linalg::row_norms_squared(xc.view()).sum() / (n - 1) as f64;
        let randomized = match (params.svd_solver, params.n_components) {
            (SvdSolver::Full, _) => false,
            (SvdSolver::Randomized, NComponents::Variance(_)) => {
                return Err(parameter("as a share of variance needs the full solver".into()));
            }
            (SvdSolver::Randomized, _) => true,
            (SvdSolver::Auto, NComponents::Count(k)) => most > 1000 && k * 5 < most * 2,
            (SvdSolver::Auto, _) => false,
        };
        let spectrum = if randomized {
            randomized_spectrum(&xc, wanted, params.random_state)?
        } else {
            full_spectrum(&xc, params.n_components)?
        };
        let kept = match params.n_components {
            NComponents::Variance(share) => components_for(&spectrum.values, share, spectrum.values.sum()).min(most),
            _ => wanted,
        };
        let noise_variance = if kept >= most {
            0.0
        } else if randomized {
            ((total - spectrum.values.slice(s![..kept]).sum()) / (most - kept) as f64).max(0.0)
        } else {
            spectrum.values.slice(s![kept..most]).sum() / (most - kept) as f64
        };
        let explained_variance = spectrum.values.slice(s![..kept]).to_owned();
        let sum = if randomized { total } else { spectrum.values.slice(s![..most]).sum() };
        let mut components = spectrum.axes.slice(s![..kept, ..]).to_owned();
        flip_signs(&mut components);
        Ok(Pca {
            mean,
            components,
            explained_variance_ratio: explained_variance.mapv(|v| if sum > 0.0 { v / sum } else { 0.0 }),
            explained_variance,
            noise_variance,
            whiten: params.whiten,
        })
    }

    /// Width of the samples.
    pub fn n_features(&self) -> usize {
        self.mean.len()
    }

    /// Width of the projection.
    pub fn n_components(&self) -> usize {
        self.components.nrows()
    }

    /// Log of the factor by which whitening scales volumes; 0 without whitening.
    pub fn log_volume(&self) -> f64 {
        self.scale().iter().map(|s| s.ln()).sum()
    }

    /// What the projection on each axis is divided by: standard deviations when whitening, else ones.
    pub fn scale(&self) -> Array1<f64> {
        if self.whiten {
            self.explained_variance.mapv(|v| v.sqrt().max(f64::EPSILON))
        } else {
            Array1::ones(self.n_components())
        }
    }

    /// Projects every row: `n_samples` x `n_components`.
    ///
    /// # Errors
    /// [`Error::Features`] when the width differs.
    pub fn transform(&self, x: ArrayView2<f64>) -> Result<Array2<f64>, Error> {
        check_features(NAME, self.n_features(), x.ncols())?;
        let xc = linalg::centered(x, self.mean.view());
        Ok(self.scaled(linalg::matmul(xc.view(), self.components.t())))
    }

    /// [`Pca::transform`], and the squared norm of what the projection leaves of each row.
    ///
    /// # Errors
    /// [`Error::Features`] when the width differs.
    pub fn transform_with_residual(&self, x: ArrayView2<f64>) -> Result<(Array2<f64>, Array1<f64>), Error> {
        check_features(NAME, self.n_features(), x.ncols())?;
        let xc = linalg::centered(x, self.mean.view());
        let projected = linalg::matmul(xc.view(), self.components.t());
        let residual = linalg::row_norms_squared(xc.view()) - linalg::row_norms_squared(projected.view());
        Ok((self.scaled(projected), residual.mapv(|r| r.max(0.0))))
    }

    fn scaled(&self, mut projected: Array2<f64>) -> Array2<f64> {
        if self.whiten {
            projected /= &self.scale();
        }
        projected
    }
}

fn parameter(reason: String) -> Error {
    Error::parameter(NAME, "n_components", reason)
}

/// The smallest count whose cumulated share of the total is above `share`.
fn components_for(values: &Array1<f64>, share: f64, total: f64) -> usize {
    let mut sum = 0.0;
    let at_most = values
        .iter()
        .take_while(|v| {
            sum += **v / total;
            sum <= share
        })
        .count();
    at_most + 1
}

/// All `min(n, d)` eigenvalues; at least the wanted axes.
fn full_spectrum(xc: &Array2<f64>, n_components: NComponents) -> Result<Spectrum, Error> {
    let (n, d) = xc.dim();
    let most = n.min(d);
    let failed = Error::Decomposition { estimator: NAME };
    let dof = (n - 1) as f64;
    let wide = n < d;
    let gram = if wide { linalg::gram(xc.t()) } else { linalg::gram(xc.view()) };
    let (values, vectors) = linalg::eigh_descending(gram.view()).ok_or(failed.clone())?;
    let values = values.mapv(|v| v.max(0.0));
    let wanted = match n_components {
        NComponents::Count(k) => k,
        NComponents::Variance(share) => components_for(&values, share, values.sum()).min(most),
    };
    let exact = values[wanted - 1] > COVARIANCE_LIMIT * values[0];
    if exact && !wide {
        return Ok(Spectrum { values: values / dof, axes: vectors });
    }
    if exact {
        let mut axes = linalg::matmul(vectors.slice(s![..wanted, ..]), xc.view());
        normalise_rows(&mut axes);
        return Ok(Spectrum { values: values / dof, axes });
    }
    let (singular, axes) = linalg::svd_right(xc.view()).ok_or(failed)?;
    Ok(Spectrum { values: singular.mapv(|s| s * s / dof), axes })
}

/// The `wanted` largest eigenvalues and their axes.
fn randomized_spectrum(xc: &Array2<f64>, wanted: usize, random_state: u64) -> Result<Spectrum, Error> {
    let (n, d) = xc.dim();
    let most = n.min(d);
    let wide = n < d;
    let size = (wanted + N_OVERSAMPLES).min(most);
    let iterations = if wanted * 10 < most { 7 } else { 4 };
    let gram = if wide { linalg::gram(xc.t()) } else { linalg::gram(xc.view()) };
    let mut rng = random::seeded(random_state);
    let mut basis = random::normal_array(&mut rng, most, size);
    for _ in 0..=iterations {
        basis = linalg::orthonormal(linalg::matmul(gram.view(), basis.view()).view());
    }
    let small = linalg::matmul(basis.t(), linalg::matmul(gram.view(), basis.view()).view());
    let small = (&small + &small.t()) * 0.5;
    let (values, vectors) = linalg::eigh_descending(small.view()).ok_or(Error::Decomposition { estimator: NAME })?;
    let mut axes = linalg::matmul(vectors.slice(s![..wanted, ..]), basis.t());
    if wide {
        axes = linalg::matmul(axes.view(), xc.view());
        normalise_rows(&mut axes);
    }
    let dof = (n - 1) as f64;
    Ok(Spectrum { values: values.slice(s![..wanted]).mapv(|v| v.max(0.0) / dof), axes })
}

fn normalise_rows(axes: &mut Array2<f64>) {
    for mut row in axes.outer_iter_mut() {
        let norm = row.dot(&row).sqrt();
        if norm > 0.0 {
            row /= norm;
        }
    }
}

/// scikit-learn's `svd_flip(u_based_decision=False)`: the entry of largest magnitude of each axis is positive.
fn flip_signs(axes: &mut Array2<f64>) {
    for mut row in axes.outer_iter_mut() {
        let largest = row.iter().fold(0.0f64, |best, v| if v.abs() > best.abs() { *v } else { best });
        if largest < 0.0 {
            row.mapv_inplace(|v| -v);
        }
    }
}
