//! What several integration tests share.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayView2};
use outlierd::internals::backbone::{Backbone, Options};
use outlierd::internals::image::InputRecipe;
use outlierd::internals::model::{FeatureSource, Model};
use outlierd::internals::training::cross::Synthetic;
use outlierd::internals::training::{fit, metrics};

pub mod browser;
pub mod daemon;
pub mod networks;
pub mod page;

/// The folder with real weights and pictures (`OUTLIERD_SHARED`, else `../shared`); None, and a line that names
/// the test, where it is absent.
pub fn shared(test: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("OUTLIERD_SHARED").map_or(beside, PathBuf::from);
    if folder.join("images/magnetic-tiles/train.txt").is_file() {
        return Some(folder);
    }
    println!("SKIPPED {test}: no real weights and pictures at {}", folder.display());
    None
}

/// A two-dimensional little-endian f32 array in C order, from an .npy file.
pub fn npy(path: &Path) -> Array2<f32> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{}", path.display());
    let header_len = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let header = std::str::from_utf8(&bytes[10..10 + header_len]).unwrap();
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split_once("'shape': (").unwrap().1.split_once(')').unwrap().0;
    let shape: Vec<usize> = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let values = bytes[10 + header_len..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    Array2::from_shape_vec((shape[0], shape[1]), values.collect()).unwrap()
}

/// The int8 conv4 network, with its recipe.
pub fn conv4(shared: &Path) -> Backbone {
    let options = Options { input: Some(InputRecipe::caffe()), threads: 1, ..Options::default() };
    Backbone::load(&shared.join("models/resnet50-conv4-qdq.onnx"), &options).unwrap()
}

/// The float features of the magnetic tiles: train, test normals, test outliers.
pub fn tile_features(shared: &Path) -> [Array2<f32>; 3] {
    ["train", "test-normal", "test-outlier"]
        .map(|name| npy(&shared.join(format!("reference/magnetic-tiles-{name}-f32.npy"))))
}

/// Fits on features alone.
pub fn fit_rows(
    normal: ArrayView2<f32>,
    outliers: Option<ArrayView2<f32>>,
    source: FeatureSource,
    options: &fit::Options,
) -> Result<fit::Fitted, fit::Error> {
    fit::fit(normal.into(), outliers.map(fit::Samples::from), &Synthetic::default(), source, options)
}

/// AUROC of a model of the pooled feature over feature arrays; None with one class only.
pub fn auroc(model: &Model, inliers: ArrayView2<f32>, outliers: ArrayView2<f32>) -> Option<f64> {
    let scores = |rows| fit::feature_scores(model, rows).unwrap();
    metrics::auroc(&scores(inliers), &scores(outliers))
}
