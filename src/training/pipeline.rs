//! The estimators in a row: StandardScaler, PCA, detector.

use ndarray::{Array1, Array2, ArrayView2};

use super::fit::Error;
use super::params::{DetectorKind, Params};
use crate::estimators::conformal::{Blocks, Conformal};
use crate::estimators::gaussian_mixture::GaussianMixture;
use crate::estimators::isolation_forest::IsolationForest;
use crate::estimators::one_class_svm::OneClassSvm;
use crate::estimators::pca::{NComponents, Pca, PcaParams};
use crate::estimators::standard_scaler::{StandardScaler, StandardScalerParams};
use crate::model::projection::QuantizedMatrix;
use crate::model::{Calibration, Detector, FeatureSource, Model, Training, file};

/// Scaler and PCA, and what they make of the pictures they were fitted on.
#[derive(Debug, Clone)]
pub struct Projected {
    pub scaler: StandardScaler,
    pub pca: Pca,
    /// n x components.
    pub y: Array2<f64>,
    /// Squared norm of what the components leave over, n.
    pub residual: Array1<f64>,
}

/// Fits scaler and PCA; more components than the pictures allow become fewer, with a warning.
pub fn project(train: ArrayView2<f32>, params: &PcaParams, warnings: &mut Vec<String>) -> Result<Projected, Error> {
    let mut params = params.clone();
    let x = train.mapv(f64::from);
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
    let scaler = StandardScaler::fit(x.view(), &StandardScalerParams::default())?;
    let z = scaler.transform(x.view())?;
    drop(x);
    let pca = Pca::fit(z.view(), &params)?;
    let (y, residual) = pca.transform_with_residual(z.view())?;
    Ok(Projected { scaler, pca, y, residual })
}

/// Fits one detector.
pub fn detector(
    kind: DetectorKind,
    params: &Params,
    projected: &Projected,
    warnings: &mut Vec<String>,
) -> Result<Detector, Error> {
    let y = projected.y.view();
    Ok(match kind {
        DetectorKind::GaussianMixture => {
            let mut params = params.gaussian_mixture.clone();
            let allowed = (y.nrows() / 2).max(1);
            if params.n_components > allowed {
                let wanted = params.n_components;
                warnings.push(format!("{} pictures allow {allowed} mixture components, not {wanted}", y.nrows()));
                params.n_components = allowed;
            }
            let mixture = GaussianMixture::fit(y, &params)?;
            if !mixture.converged {
                let steps = params.max_iter;
                warnings.push(format!("the mixture did not converge in {steps} steps; see gaussian_mixture.max_iter"));
            }
            Detector::GaussianMixture(mixture)
        }
        DetectorKind::OneClassSvm => {
            let svm = OneClassSvm::fit(y, &params.one_class_svm)?;
            if !svm.converged {
                warnings.push(format!("the one-class SVM did not converge in {} steps", svm.n_iter));
            }
            Detector::OneClassSvm(svm)
        }
        DetectorKind::IsolationForest => Detector::IsolationForest(IsolationForest::fit(y, &params.isolation_forest)?),
        DetectorKind::PcaResidual => Detector::PcaResidual,
    })
}

/// A model of these estimators, rounded as its file keeps it; its calibration is yet to come.
pub fn model(source: FeatureSource, projected: &Projected, detector: Detector) -> Result<Model, Error> {
    let Projected { scaler, pca, .. } = projected;
    let centre =
        scaler.mean.iter().zip(&scaler.scale).zip(&pca.mean).map(|((mean, scale), m)| (mean + m * scale) as f32);
    let rows: Vec<Vec<f64>> = pca.components.rows().into_iter().map(|row| row.to_vec()).collect();
    let model = Model {
        crate_version: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        source,
        mean: centre.collect(),
        scale: scaler.scale.iter().map(|s| *s as f32).collect(),
        components: QuantizedMatrix::from_rows(pca.n_features(), rows.iter().map(Vec::as_slice)),
        variance: pca.explained_variance.to_vec(),
        whiten: pca.whiten,
        detector,
        calibration: Calibration::Conformal(Conformal::fit(&[0.0], Blocks::Each)?),
        threshold: 0.5,
        training: Training::default(),
    };
    Ok(file::rounded(&model)?)
}
