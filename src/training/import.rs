//! Import of models fitted with scikit-learn, from the arrays that `models/export_sklearn.py` writes.

use ndarray::{Array1, Array2, Array3, Axis, Ix1, Ix2, Ix3};

use super::npz::{self, Npz};
use crate::estimators;
use crate::estimators::conformal::Conformal;
use crate::estimators::feature_transform::FeatureTransform;
use crate::estimators::gaussian_mixture::{Covariances, GaussianMixture};
use crate::estimators::isolation_forest::{IsolationForest, Tree};
use crate::estimators::isotonic::IsotonicRegression;
use crate::estimators::kernel::Kernel;
use crate::estimators::one_class_svm::OneClassSvm;
use crate::model::projection::{Components, FloatMatrix};
use crate::model::{self, Calibration, Detector, FeatureSource, Model, Records, Training, file};

/// The version of the arrays' layout.
pub const VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Arrays(#[from] npz::Error),
    #[error("its layout has version {0}, this outlierd reads version {VERSION}: use its own models/export_sklearn.py")]
    Version(u32),
    #[error("it holds no detector: a GaussianMixture, OneClassSVM or IsolationForest")]
    NoDetector,
    #[error("it holds {0} detectors: one model has one")]
    ManyDetectors(usize),
    #[error("it holds no calibration: export it with an IsotonicRegression, or with the scores of held-out normals")]
    NoCalibration,
    #[error("it was fitted on features of {got} values, this backbone, tap and pooling give {wanted}")]
    Width { wanted: usize, got: usize },
    #[error("false alarms are a rate between 0 and 1, not {0}")]
    Rate(f64),
    #[error(transparent)]
    Estimator(#[from] estimators::Error),
    #[error(transparent)]
    Model(#[from] model::Error),
}

/// Makes a model of exported arrays; `false_alarms` is the threshold where the calibration is conformal.
///
/// Scores are scikit-learn's: the mixture's log density, the decision function of the others.
///
/// # Errors
/// Where arrays are missing, of wrong shapes, or inconsistent.
pub fn model(arrays: &Npz, source: FeatureSource, false_alarms: f64) -> Result<Model, Error> {
    let version = arrays.count("version", u32::MAX)?;
    if version != VERSION {
        return Err(Error::Version(version));
    }
    if !(false_alarms > 0.0 && false_alarms < 1.0) {
        return Err(Error::Rate(false_alarms));
    }
    let scaler_mean = arrays.array::<Ix1>("scaler_mean")?;
    let n = scaler_mean.len();
    let scale = sized::<Ix1>(arrays, "scaler_scale", &[n])?;
    let pca_mean = sized::<Ix1>(arrays, "pca_mean", &[n])?;
    let components = arrays.array::<Ix2>("pca_components")?;
    let k = components.nrows();
    if components.ncols() != n || k == 0 {
        return Err(shape("pca_components", components.shape(), &[k.max(1), n]));
    }
    let variance = sized::<Ix1>(arrays, "pca_explained_variance", &[k])?;
    let detector = detector(arrays, k)?;
    let (calibration, threshold, n_calibration) = calibration(arrays, false_alarms)?;
    let is_conformal = matches!(calibration, Calibration::Conformal(_));
    let mean = scaler_mean.iter().zip(&scale).zip(&pca_mean).map(|((mean, scale), m)| (mean + m * scale) as f32);
    let model = Model {
        crate_version: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        source,
        transform: FeatureTransform::Identity,
        mean: mean.collect(),
        scale: scale.iter().map(|s| *s as f32).collect(),
        components: Components::F32(FloatMatrix { cols: n, values: components.iter().map(|v| *v as f32).collect() }),
        variance: variance.to_vec(),
        whiten: arrays.count("pca_whiten", 1)? == 1,
        detector,
        joined: None,
        calibration,
        threshold,
        training: Training {
            n_train: arrays.count("n_train", u32::MAX)?,
            n_calibration,
            false_alarm_rate: if is_conformal { threshold } else { f64::NAN },
            ..Training::default()
        },
        records: Records::default(),
    };
    Ok(file::rounded(&model)?)
}

/// Refuses a model of another width than its backbone's.
///
/// # Errors
/// [`Error::Width`].
pub fn check_width(model: &Model, wanted: usize) -> Result<(), Error> {
    let got = model.n_features();
    if got == wanted { Ok(()) } else { Err(Error::Width { wanted, got }) }
}

fn shape(name: &'static str, got: &[usize], wanted: &[usize]) -> Error {
    Error::Arrays(npz::Error::Shape { name, got: got.to_vec(), wanted: format!("{wanted:?}") })
}

fn value(name: &'static str, reason: &'static str) -> Error {
    Error::Arrays(npz::Error::Value { name, reason })
}

fn sized<D: ndarray::Dimension>(
    arrays: &Npz,
    name: &'static str,
    wanted: &[usize],
) -> Result<ndarray::Array<f64, D>, Error> {
    let array = arrays.array::<D>(name)?;
    if array.shape() == wanted { Ok(array) } else { Err(shape(name, array.shape(), wanted)) }
}

/// The one detector, over `d` components.
fn detector(arrays: &Npz, d: usize) -> Result<Detector, Error> {
    let found = ["gmm_weights", "svm_dual_coef", "forest_nodes"].map(|name| arrays.has(name));
    match found {
        [true, false, false] => mixture(arrays, d).map(Detector::GaussianMixture),
        [false, true, false] => machine(arrays, d).map(Detector::OneClassSvm),
        [false, false, true] => forest(arrays, d).map(Detector::IsolationForest),
        [false, false, false] => Err(Error::NoDetector),
        several => Err(Error::ManyDetectors(several.into_iter().filter(|has| *has).count())),
    }
}

fn mixture(arrays: &Npz, d: usize) -> Result<GaussianMixture, Error> {
    let weights: Array1<f64> = arrays.array("gmm_weights")?;
    let k = weights.len();
    let means: Array2<f64> = sized(arrays, "gmm_means", &[k, d])?;
    let name = "gmm_precisions_cholesky";
    let cholesky = match arrays.count("gmm_covariance_type", 3)? {
        0 => Covariances::Spherical(sized::<Ix1>(arrays, name, &[k])?),
        1 => Covariances::Diag(sized::<Ix2>(arrays, name, &[k, d])?),
        2 => Covariances::Tied(sized::<Ix2>(arrays, name, &[d, d])?),
        _ => {
            let all: Array3<f64> = sized::<Ix3>(arrays, name, &[k, d, d])?;
            Covariances::Full(all.axis_iter(Axis(0)).map(|one| one.to_owned()).collect())
        }
    };
    Ok(GaussianMixture::from_precisions_cholesky(weights, means, cholesky)?)
}

fn machine(arrays: &Npz, d: usize) -> Result<OneClassSvm, Error> {
    let mut dual_coef: Array1<f64> = arrays.array("svm_dual_coef")?;
    let n = dual_coef.len();
    let (gamma, coef0) = (arrays.number("svm_gamma")?, arrays.number("svm_coef0")?);
    let kernel = match arrays.count("svm_kernel", 3)? {
        0 => Kernel::Linear,
        1 => Kernel::Poly { gamma, coef0, degree: arrays.count("svm_degree", i32::MAX as u32)? },
        2 => Kernel::Rbf { gamma },
        _ => Kernel::Sigmoid { gamma, coef0 },
    };
    let mut support_vectors: Array2<f64> = sized(arrays, "svm_support_vectors", &[n, d])?;
    if kernel == Kernel::Linear {
        // The weighted sum of the vectors scores the same. It is small where they surround the origin: vectors that are
        // rounded one by one would not cancel.
        support_vectors = dual_coef.dot(&support_vectors).insert_axis(Axis(0));
        dual_coef = Array1::ones(1);
    }
    Ok(OneClassSvm {
        kernel,
        support: (0..dual_coef.len()).collect(),
        support_vectors,
        dual_coef,
        offset: arrays.number("svm_offset")?,
        n_iter: 0,
    })
}

/// Trees follow each other; `forest_nodes` counts the nodes of each, children are numbered within a tree.
fn forest(arrays: &Npz, d: usize) -> Result<IsolationForest, Error> {
    let nodes = arrays.counts("forest_nodes", u32::MAX)?;
    let feature = arrays.counts("forest_feature", u32::MAX)?;
    let all = feature.len();
    let threshold: Array1<f64> = sized(arrays, "forest_threshold", &[all])?;
    let lists = ["forest_left", "forest_right", "forest_n_node_samples"];
    let [left, right, samples] = lists.map(|name| {
        let list = arrays.counts(name, u32::MAX)?;
        if list.len() == all { Ok(list) } else { Err(shape(name, &[list.len()], &[all])) }
    });
    let (left, right, samples) = (left?, right?, samples?);
    let total = nodes.iter().try_fold(0_usize, |sum, n| sum.checked_add(*n as usize));
    if total != Some(all) {
        return Err(value("forest_nodes", "does not sum to the number of nodes"));
    }
    let mut start = 0;
    let trees = nodes.iter().map(|n| {
        let span = start..start + *n as usize;
        start = span.end;
        Tree {
            feature: feature[span.clone()].to_vec(),
            threshold: threshold.slice(ndarray::s![span.clone()]).to_vec(),
            left: left[span.clone()].to_vec(),
            right: right[span.clone()].to_vec(),
            n_node_samples: samples[span].to_vec(),
        }
    });
    Ok(IsolationForest {
        trees: trees.collect(),
        n_features: d,
        max_samples: arrays.count("forest_max_samples", u32::MAX)? as usize,
        offset: arrays.number("forest_offset")?,
    })
}

/// Calibration, threshold, and the number of scores that were calibrated on.
fn calibration(arrays: &Npz, false_alarms: f64) -> Result<(Calibration, f64, u32), Error> {
    if arrays.has("isotonic_x") {
        let x: Array1<f64> = arrays.array("isotonic_x")?;
        let y: Array1<f64> = sized(arrays, "isotonic_y", &[x.len()])?;
        if !x.iter().is_sorted_by(|a, b| a < b) {
            return Err(value("isotonic_x", "is not strictly increasing"));
        }
        if !(y.iter().is_sorted() && y.iter().all(|y| (0.0..=1.0).contains(y))) {
            return Err(value("isotonic_y", "does not increase within 0 to 1: is 1 an inlier, and increasing true?"));
        }
        let isotonic = IsotonicRegression { x_thresholds: x.to_vec(), y_thresholds: y.to_vec() };
        return Ok((Calibration::Isotonic(isotonic), 0.5, arrays.count("n_calibration", u32::MAX)?));
    }
    if !arrays.has("calibration_scores") {
        return Err(Error::NoCalibration);
    }
    let scores: Array1<f64> = arrays.array("calibration_scores")?;
    let conformal = Conformal::counted(&scores.to_vec())?;
    Ok((Calibration::Conformal(conformal), false_alarms, scores.len() as u32))
}
