//! Fits every default detector on the features of an .npy file and prints the seconds of each step as JSON; `fit ...` is
//! all that the command `fit` does with one detector and features: PCA, detector, held-out scores, calibration.
//!
//! `cargo run --release --example fit_npy -- features.npy`; `benches/fit_vs_sklearn.py` sets it against scikit-learn.

#![allow(clippy::disallowed_methods, reason = "a bench reads what it is given")]

use ndarray::Array2;
use outlierd::internals::estimators::gaussian_mixture::{GaussianMixture, GaussianMixtureParams};
use outlierd::internals::estimators::isolation_forest::{IsolationForest, IsolationForestParams};
use outlierd::internals::estimators::one_class_svm::{OneClassSvm, OneClassSvmParams};
use outlierd::internals::estimators::pca::{Pca, PcaParams};
use outlierd::internals::estimators::standard_scaler::StandardScaler;
use outlierd::internals::model::FeatureSource;
use outlierd::internals::training::cross::Synthetic;
use outlierd::internals::training::fit::{self, Options};
use outlierd::internals::training::params::DetectorKind;
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

/// Reads an f32 or f64 array of two dimensions in C order.
fn read_npy(path: &str) -> Result<Array2<f64>, Failure> {
    let bytes = std::fs::read(path)?;
    if bytes.len() < 10 || &bytes[..6] != b"\x93NUMPY" {
        return Err("not an .npy file".into());
    }
    let body = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(bytes.get(10..body).ok_or("the header is cut off")?)?;
    if header.contains("'fortran_order': True") {
        return Err("Fortran order is not read".into());
    }
    let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).ok_or("no shape")?.0;
    let shape: Vec<usize> = shape.split(',').map(|n| n.trim().parse()).collect::<Result<_, _>>()?;
    let [n, d] = shape[..] else { return Err("two dimensions are needed".into()) };
    let data = &bytes[body..];
    let values: Vec<f64> = if header.contains("<f4") {
        data.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
    } else if header.contains("<f8") {
        data.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    } else {
        return Err("f4 or f8 is needed".into());
    };
    Ok(Array2::from_shape_vec((n, d), values)?)
}

fn main() -> Result<(), Failure> {
    let path = std::env::args().nth(1).ok_or("usage: fit_npy FEATURES.npy")?;
    let x = read_npy(&path)?;
    let mut steps = Vec::new();
    let mut from = Instant::now();
    let mut lap = |name: &str| {
        steps.push(format!("\"{name}\":{:.4}", from.elapsed().as_secs_f64()));
        from = Instant::now();
    };
    let start = Instant::now();
    let scaler = StandardScaler::fit(x.view())?;
    let scaled = scaler.transform(x.view())?;
    lap("scaler");
    let pca = Pca::fit(scaled.view(), &PcaParams::default())?;
    lap("pca");
    let (z, residual) = pca.transform_with_residual(scaled.view())?;
    lap("transform+residual");
    let mixture = GaussianMixture::fit(z.view(), &GaussianMixtureParams::default())?;
    lap("gaussian-mixture");
    let svm = OneClassSvm::fit(z.view(), &OneClassSvmParams::default())?;
    lap("one-class-svm");
    let forest = IsolationForest::fit(z.view(), &IsolationForestParams::default())?;
    lap("isolation-forest");
    let total = start.elapsed().as_secs_f64();
    // What `fit` does with features: held-out scores, calibration, evaluation; each detector for itself.
    let rows = x.mapv(|v| v as f32);
    for kind in [DetectorKind::GaussianMixture, DetectorKind::OneClassSvm, DetectorKind::IsolationForest] {
        let from = Instant::now();
        fit::fit(
            rows.view().into(),
            None,
            &Synthetic::default(),
            FeatureSource::unknown(),
            &Options::with_detector(kind),
        )?;
        steps.push(format!("\"fit {}\":{:.4}", kind.name(), from.elapsed().as_secs_f64()));
    }
    println!("{{\"total\":{total:.4},{}}}", steps.join(","));
    eprintln!(
        "explained {:.6} noise {:.6} residual {:.4} lower bound {:.4} support {} steps {} offset {:.5} trees {}",
        pca.explained_variance_ratio.sum(),
        pca.noise_variance,
        residual.sum() / residual.len() as f64,
        mixture.lower_bound,
        svm.support.len(),
        svm.n_iter,
        svm.offset,
        forest.trees.len(),
    );
    Ok(())
}
