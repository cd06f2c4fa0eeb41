//! Every way in which a ResNet reaches us as ONNX: it loads, has the four taps, int8 files are fused whole, and the
//! features are ONNX Runtime's. `tests/exports/make.py` made the files and the expected values.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use image::{Rgb, RgbImage};
use outlierd::internals::backbone::{Backbone, Fusion, Options};
use outlierd::internals::image::InputRecipe;

const SIDE: u32 = 64;
const TAPS: [&str; 4] = ["layer1", "layer2", "layer3", "layer4"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exports")
}

fn load(name: &str, tap: &str) -> Backbone {
    let packed = std::fs::File::open(folder().join(format!("{name}.onnx.gz"))).unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    let recipe = if name.starts_with("keras") { InputRecipe::caffe() } else { InputRecipe::torch() };
    let options = Options { tap: Some(tap.parse().unwrap()), input: Some(recipe), threads: 1, ..Options::default() };
    Backbone::from_bytes(name, bytes, &options).unwrap()
}

/// The pictures of `tests/exports/pictures.py`.
fn drawn(seed: u32) -> RgbImage {
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let square = 60 * ((x >> 3 ^ y >> (2 + seed % 3)) & 1);
        let wave = x * (3 + seed) / 2 + y * (5 + 2 * seed) / 3 + x * y / (11 + seed);
        Rgb([0, 1, 2].map(|c| ((wave + 40 * c * (1 + seed % 4)) % 256 * 3 / 4 + square) as u8))
    })
}

/// ONNX Runtime's pooled maps: `[picture][tap][channel]`.
fn expected(name: &str) -> Vec<Vec<Vec<f32>>> {
    let text = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(all["features"][name].clone()).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Loads the file, compares the features of every picture at every tap. Features of two pictures are alike in most of
/// their length, so their difference must agree too: `least` is of the features' cosine, `least_difference` of that of
/// the difference.
fn agree(name: &str, least: f64, least_difference: f64) -> Fusion {
    let expected = expected(name);
    let backbone = load(name, &TAPS.join("+"));
    let mut found: Vec<Vec<Vec<f32>>> = Vec::new();
    for seed in 0..expected.len() {
        let maps = backbone.forward(&drawn(seed as u32)).unwrap().remove(0);
        assert_eq!(maps.iter().map(|m| m.stage.to_string()).collect::<Vec<_>>(), TAPS);
        assert_eq!(maps.iter().map(|m| (m.height, m.width)).collect::<Vec<_>>(), [(16, 16), (8, 8), (4, 4), (2, 2)]);
        found.push(maps.iter().map(|map| backbone.pool_crop(std::slice::from_ref(map))).collect());
    }
    for (tap, label) in TAPS.iter().enumerate() {
        let difference =
            |of: &[Vec<Vec<f32>>]| -> Vec<f32> { of[0][tap].iter().zip(&of[1][tap]).map(|(a, b)| a - b).collect() };
        let cosines: Vec<f64> = (0..expected.len()).map(|i| cosine(&found[i][tap], &expected[i][tap])).collect();
        let of_difference = cosine(&difference(&found), &difference(&expected));
        println!("{name} {label}: {cosines:.6?}, of the difference {of_difference:.6}");
        assert!(cosines.iter().all(|&c| c >= least), "{name} {label}: {cosines:?}");
        assert!(of_difference >= least_difference, "{name} {label}: difference {of_difference}");
    }
    // A single tap, as it is mostly used, and the plan that stops there.
    let alone = load(name, "layer3");
    assert_eq!(alone.n_features(), expected[0][2].len());
    let single = alone.pool(&alone.forward(&drawn(0)).unwrap());
    assert!(cosine(&single, &found[0][2]) > 0.999_99, "{name}: layer3 alone");
    backbone.fusion().clone()
}

/// A float file: cosine 0.9999 and better with ONNX Runtime.
fn float(name: &str) {
    let fusion = agree(name, 0.9999, 0.9999);
    assert_eq!((fusion.format, fusion.convolutions), ("float", 0), "{name}");
}

/// An int8 file that is fused whole. Rounding differs from ONNX Runtime's in three places: a sum is rounded once with
/// its convolution, a tap is not rounded, and ties; each is one level of a map at most.
fn fused(name: &str, format: &str, counts: [usize; 2]) {
    fused_within(name, format, counts, [0.998, 0.99]);
}

/// As [`fused`], with limits of its own.
fn fused_within(name: &str, format: &str, [convolutions, sums]: [usize; 2], [least, least_difference]: [f64; 2]) {
    let fusion = agree(name, least, least_difference);
    assert!(fusion.is_whole(), "{name}: {fusion:?}");
    assert_eq!((fusion.format, fusion.convolutions, fusion.sums, fusion.max_pools), (format, convolutions, sums, 1));
}

const RESNET18: [usize; 2] = [20, 8];
const RESNET34: [usize; 2] = [36, 16];
const RESNET50: [usize; 2] = [53, 16];
const RESNET101: [usize; 2] = [104, 33];

macro_rules! exports {
    ($($test:ident: $file:literal => $check:ident($($arg:expr),*);)*) => {
        $(#[test]
        fn $test() {
            $check($file $(, $arg)*);
        })*

        #[test]
        fn every_file_has_a_test() {
            let list = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
            let names = list.filter_map(|n| n.to_str().unwrap().strip_suffix(".onnx.gz").map(str::to_string));
            let mut names: Vec<String> = names.collect();
            let mut tested = vec![$($file),*];
            names.sort();
            tested.sort();
            assert_eq!(names, tested);
        }
    };
}

exports! {
    gluon: "gluon-resnet50" => float();
    gluon_qdq: "gluon-resnet50-qdq" => fused("QDQ", RESNET50);
    gluon_qoperator: "gluon-resnet50-int8" => fused("QOperator", RESNET50);
    gluon_qdq_by_neural_compressor: "gluon-resnet50-inc-qdq" => with_float_sums();
    gluon_qoperator_by_neural_compressor: "gluon-resnet50-inc-int8" => fused("QOperator", RESNET50);
    torchvision: "torchvision-resnet50" => float();
    torchvision_with_batch_norm: "torchvision-resnet50-batchnorm" => float();
    torchvision_dynamo: "torchvision-resnet50-dynamo" => float();
    torchvision_qdq: "torchvision-resnet50-qdq" => fused("QDQ", RESNET50);
    // Half the levels lie below zero, so a level is twice as much; and the rounding before each ReLU is left out.
    torchvision_qdq_around_zero: "torchvision-resnet50-qdq-s8" => fused_within("QDQ", RESNET50, [0.995, 0.98]);
    torchvision_qoperator: "torchvision-resnet50-int8" => fused("QOperator", RESNET50);
    torchvision_18: "torchvision-resnet18" => float();
    torchvision_18_qdq: "torchvision-resnet18-qdq" => fused("QDQ", RESNET18);
    torchvision_18_qoperator: "torchvision-resnet18-int8" => fused("QOperator", RESNET18);
    torchvision_34: "torchvision-resnet34" => float();
    torchvision_34_qdq: "torchvision-resnet34-qdq" => fused("QDQ", RESNET34);
    torchvision_34_qoperator: "torchvision-resnet34-int8" => fused("QOperator", RESNET34);
    torchvision_101: "torchvision-resnet101" => float();
    torchvision_101_qdq: "torchvision-resnet101-qdq" => fused("QDQ", RESNET101);
    torchvision_101_qoperator: "torchvision-resnet101-int8" => fused("QOperator", RESNET101);
    torchvision_wide: "torchvision-wide_resnet50_2" => float();
    torchvision_wide_qdq: "torchvision-wide_resnet50_2-qdq" => fused("QDQ", RESNET50);
    torchvision_wide_qoperator: "torchvision-wide_resnet50_2-int8" => fused("QOperator", RESNET50);
    keras: "keras-resnet50" => float();
    keras_qdq: "keras-resnet50-qdq" => fused("QDQ", RESNET50);
    keras_qoperator: "keras-resnet50-int8" => fused("QOperator", RESNET50);
    timm: "timm-resnet50" => float();
    timm_qdq: "timm-resnet50-qdq" => fused("QDQ", RESNET50);
    timm_qoperator: "timm-resnet50-int8" => fused("QOperator", RESNET50);
    timm_50d: "timm-resnet50d" => float();
    timm_50d_qdq: "timm-resnet50d-qdq" => with_float_average_pools("QDQ");
    timm_50d_qoperator: "timm-resnet50d-int8" => with_float_average_pools("QOperator");
}

/// An exception: Neural Compressor leaves residual sums in float in its QDQ files, and the shortcut is never rounded.
fn with_float_sums(name: &str) {
    let fusion = agree(name, 0.999, 0.99);
    assert_eq!((fusion.format, fusion.convolutions, fusion.sums, fusion.max_pools), ("QDQ", 53, 0, 1));
    assert_eq!(fusion.in_float, [("Add".to_string(), 16), ("Relu".to_string(), 16)]);
}

/// An exception: the average pools in the shortcuts of a ResNet-D have no int8 operator here.
fn with_float_average_pools(name: &str, format: &str) {
    let fusion = agree(name, 0.999, 0.99);
    assert_eq!((fusion.format, fusion.convolutions, fusion.sums, fusion.max_pools), (format, 55, 16, 1));
    assert_eq!(fusion.in_float, [("AveragePool".to_string(), 3)]);
}
