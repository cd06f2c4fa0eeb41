//! The estimators of a model: StandardScaler, PCA, detector.

use std::time::Instant;

use ndarray::{Array1, Array2, ArrayView2};

use super::params::{DetectorKind, Group, Params, groups};
use super::plan::Error;
use crate::estimators::conformal::Conformal;
use crate::estimators::feature_transform::FeatureTransform;
use crate::estimators::gaussian_mixture::{GaussianMixture, GaussianMixtureParams};
use crate::estimators::isolation_forest::IsolationForest;
use crate::estimators::mixture_residual::MixtureResidual;
use crate::estimators::one_class_svm::OneClassSvm;
use crate::estimators::pca::{NComponents, Pca};
use crate::estimators::standard_scaler::StandardScaler;
use crate::model::projection::{Components, QuantizedMatrix};
use crate::model::{Calibration, Detector, FeatureSource, Model, Records, Training, file};

/// Scaler and PCA, and their projection of the pictures they were fitted on.
#[derive(Debug, Clone)]
pub struct Projected {
    pub transform: FeatureTransform,
    pub scaler: StandardScaler,
    pub pca: Pca,
    /// n x components.
    pub y: Array2<f64>,
    /// Squared norms of the residuals, n.
    pub residual: Array1<f64>,
}

impl Projected {
    /// Components and squared residual of further rows.
    pub fn apply(&self, rows: ArrayView2<f32>) -> Result<(Array2<f64>, Array1<f64>), Error> {
        let x = self.transform.of(rows);
        let z = self.scaler.transform(x.view())?;
        Ok(self.pca.transform_with_residual(z.view())?)
    }
}

/// Transforms the features and fits scaler and PCA. Components beyond what the pictures allow are dropped with a warning.
pub fn project(train: ArrayView2<f32>, params: &Params, warnings: &mut Vec<String>) -> Result<Projected, Error> {
    let transform = params.transform;
    let mut params = params.pca.clone();
    let x = transform.of(train);
    let allowed = x.nrows().saturating_sub(1).min(x.ncols());
    if let NComponents::Count(wanted) = params.n_components
        && wanted > allowed
    {
        warnings.push(format!(
            "{} pictures of {} values allow {allowed} principal components, not {wanted}{}",
            x.nrows(),
            x.ncols(),
            if allowed < x.ncols() {
                format!("; {} would be enough", wanted.min(x.ncols()) + 1)
            } else {
                String::new()
            }
        ));
        params.n_components = NComponents::Count(allowed);
    }
    let scaler = StandardScaler::fit(x.view())?;
    let z = scaler.transform(x.view())?;
    drop(x);
    let (pca, y, residual) = round(Pca::fit(z.view(), &params)?, z.view())?;
    Ok(Projected { transform, scaler, pca, y, residual })
}

/// The PCA with its components rounded as in the model file, and the projection of `z`. The variances are those of the
/// rounded components' projections, so that whitening and detector account for the rounding.
fn round(mut pca: Pca, z: ArrayView2<f64>) -> Result<(Pca, Array2<f64>, Array1<f64>), Error> {
    pca.components = rounded_components(&pca).dequantized();
    let (mut y, residual) = pca.transform_with_residual(z)?;
    let n = y.nrows();
    let dof = n.saturating_sub(1).max(1) as f64;
    for (mut column, variance) in y.columns_mut().into_iter().zip(&mut pca.explained_variance) {
        let measured = column.iter().map(|v| v * v).sum::<f64>() / dof;
        if !pca.whiten {
            *variance = measured;
        } else if measured > 0.0 {
            *variance *= measured;
            column /= measured.sqrt();
        }
    }
    Ok((pca, y, residual))
}

fn rounded_components(pca: &Pca) -> QuantizedMatrix {
    let rows: Vec<Vec<f64>> = pca.components.rows().into_iter().map(|row| row.to_vec()).collect();
    QuantizedMatrix::from_rows(pca.n_features(), rows.iter().map(Vec::as_slice))
}

/// A fitted model, not yet calibrated, and how long scaler, PCA and detector took.
#[derive(Debug, Clone)]
pub struct Timed {
    pub model: Model,
    pub fit_ms: f64,
}

/// Fits every candidate on the same rows; those with the same transform and PCA share the projection.
pub fn models(
    train: ArrayView2<f32>,
    candidates: &[(DetectorKind, Params)],
    source: &FeatureSource,
    seed: u64,
    warnings: &mut Vec<String>,
) -> Result<Vec<Timed>, Error> {
    let mut fitted = Vec::new();
    for Group { params, members } in groups(candidates.iter().map(|(_, params)| params)) {
        let start = Instant::now();
        let projected = project(train, &params.seeded(seed), warnings)?;
        let project_time = start.elapsed();
        for at in members {
            let (kind, params) = &candidates[at];
            let start = Instant::now();
            let detector = detector(*kind, &params.clone().seeded(seed), &projected, warnings)?;
            let fit_ms = (project_time + start.elapsed()).as_secs_f64() * 1e3;
            fitted.push((at, Timed { model: model(source.clone(), &projected, detector)?, fit_ms }));
        }
    }
    fitted.sort_by_key(|(at, _)| *at);
    Ok(fitted.into_iter().map(|(_, timed)| timed).collect())
}

/// Fits one detector over the pooled feature.
pub fn detector(
    kind: DetectorKind,
    params: &Params,
    projected: &Projected,
    warnings: &mut Vec<String>,
) -> Result<Detector, Error> {
    let (y, residual, pca) = (projected.y.view(), projected.residual.view(), &projected.pca);
    Ok(match kind {
        DetectorKind::GaussianMixture => {
            let mixture = GaussianMixture::fit(y, &mixture_params(params, y.nrows(), warnings))?;
            check_converged(&mixture, warnings);
            Detector::GaussianMixture(mixture)
        }
        DetectorKind::MixtureResidual | DetectorKind::PooledCells => {
            let params = mixture_params(params, y.nrows(), warnings);
            let dropped = pca.n_features() - pca.n_components();
            let both = MixtureResidual::fit(y, residual, dropped, pca.log_volume(), &params)?;
            check_converged(&both.mixture, warnings);
            Detector::MixtureResidual(both)
        }
        DetectorKind::OneClassSvm => Detector::OneClassSvm(OneClassSvm::fit(y, &params.one_class_svm)?),
        DetectorKind::IsolationForest => Detector::IsolationForest(IsolationForest::fit(y, &params.isolation_forest)?),
        DetectorKind::PcaResidual => Detector::PcaResidual,
    })
}

/// The mixture's parameters, with at most half as many components as pictures.
fn mixture_params(params: &Params, n: usize, warnings: &mut Vec<String>) -> GaussianMixtureParams {
    let mut params = params.gaussian_mixture.clone();
    let allowed = (n / 2).max(1);
    if params.n_components > allowed {
        warnings.push(format!("{n} pictures allow {allowed} mixture components, not {}", params.n_components));
        params.n_components = allowed;
    }
    params
}

fn check_converged(mixture: &GaussianMixture, warnings: &mut Vec<String>) {
    if !mixture.converged {
        let steps = mixture.n_iter;
        warnings.push(format!("the mixture did not converge in {steps} steps; see gaussian_mixture.max_iter"));
    }
}

/// A model of these estimators, rounded as in its file and not yet calibrated.
pub fn model(source: FeatureSource, projected: &Projected, detector: Detector) -> Result<Model, Error> {
    let Projected { transform, scaler, pca, .. } = projected;
    let centre =
        scaler.mean.iter().zip(&scaler.scale).zip(&pca.mean).map(|((mean, scale), m)| (mean + m * scale) as f32);
    let model = Model {
        crate_version: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        source,
        transform: *transform,
        mean: centre.collect(),
        scale: scaler.scale.iter().map(|s| *s as f32).collect(),
        components: Components::I8(rounded_components(pca)),
        variance: pca.explained_variance.to_vec(),
        whiten: pca.whiten,
        detector,
        joined: None,
        calibration: Calibration::Conformal(Conformal::counted(&[0.0])?),
        threshold: 0.5,
        training: Training::default(),
        records: Records::default(),
    };
    Ok(file::rounded(&model)?)
}
