//! The backbone from outside: real files where they are there, our own untrained network everywhere.

use std::path::{Path, PathBuf};

use outlierd::internals::backbone::onnx::writer::{Dim, Initializer, Model};
use outlierd::internals::backbone::onnx::{Attr, Node};
use outlierd::internals::backbone::untrained::{Params, resnet50};
use outlierd::internals::backbone::{Backbone, Error, Options, Pooling, Tap};
use outlierd::internals::image::{self, InputRecipe};

fn shared(test: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let dir = std::env::var_os("OUTLIERD_SHARED").map_or(beside, PathBuf::from);
    if !dir.join("models").is_dir() {
        println!("SKIPPED {test}: no test data; set OUTLIERD_SHARED");
        return None;
    }
    Some(dir)
}

fn options(tap: Option<&str>, input: Option<InputRecipe>) -> Options {
    Options { tap: tap.map(|t| t.parse().unwrap()), input, threads: 1, ..Options::default() }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Rows of a two-dimensional f32 .npy file.
fn npy(path: &Path) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let data: Vec<f32> = bytes[10 + header..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    data.chunks(1024).map(<[f32]>::to_vec).collect()
}

/// Every 40th picture of a list with its float feature by ONNX Runtime.
fn pictures(shared: &Path, list: &str) -> Vec<(PathBuf, Vec<f32>)> {
    let tiles = shared.join("images/magnetic-tiles");
    let names = std::fs::read_to_string(tiles.join(format!("{list}.txt"))).unwrap();
    let rows = npy(&shared.join(format!("reference/magnetic-tiles-{list}-f32.npy")));
    names.lines().zip(rows).step_by(40).map(|(name, row)| (tiles.join(name), row)).collect()
}

fn compare(test: &str, file: &str, least: f64) {
    let Some(shared) = shared(test) else { return };
    let path = shared.join("models").join(file);
    let backbone = Backbone::load(&path, &options(None, Some(InputRecipe::caffe()))).unwrap();
    assert_eq!(backbone.tap().to_string(), "layer3");
    assert_eq!(backbone.n_features(), 1024);
    let mut all = Vec::new();
    for list in ["test-normal", "test-outlier"] {
        for (picture, expected) in pictures(&shared, list) {
            let features = backbone.features(&image::read(&picture).unwrap()).unwrap();
            let cosine = cosine(&features, &expected);
            assert!(cosine >= least, "{picture:?}: {cosine}");
            all.push(cosine);
        }
    }
    println!("{file}: mean cosine to float {:.6}", all.iter().sum::<f64>() / all.len() as f64);
}

#[test]
fn float_features_equal_onnx_runtimes() {
    compare("float_features_equal_onnx_runtimes", "resnet50-conv4-f32.onnx", 0.9999);
}

#[test]
fn qdq_features_are_near_the_float_ones() {
    compare("qdq_features_are_near_the_float_ones", "resnet50-conv4-qdq.onnx", 0.985);
}

#[test]
fn qoperator_features_are_near_the_float_ones() {
    compare("qoperator_features_are_near_the_float_ones", "resnet50-conv4-qop.onnx", 0.98);
}

/// `tests/fixtures/backbone/make.py` made the expected values.
#[test]
fn int8_features_equal_onnx_runtimes() {
    let Some(shared) = shared("int8_features_equal_onnx_runtimes") else { return };
    let text = include_str!("../fixtures/backbone/onnxruntime.json");
    let expected: serde_json::Value = serde_json::from_str(text).unwrap();
    for (model, rows) in expected["features"].as_object().unwrap() {
        let path = shared.join(format!("models/{model}.onnx"));
        let backbone = Backbone::load(&path, &options(None, Some(InputRecipe::caffe()))).unwrap();
        let report = backbone.describe();
        assert!(report.contains(&"as tract runs it: nothing".to_string()), "{report:?}");
        for (seed, row) in rows.as_array().unwrap().iter().enumerate() {
            let row: Vec<f32> = row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
            let cosine = cosine(&backbone.features(&pattern(seed as u32)).unwrap(), &row);
            assert!(cosine >= 0.9995, "{model} {seed}: {cosine}");
        }
    }
}

/// The pictures of `tests/fixtures/backbone/make.py`.
fn pattern(seed: u32) -> ::image::RgbImage {
    ::image::RgbImage::from_fn(224, 224, |x, y| {
        let square = 60 * ((x >> 4 ^ y >> 4) & 1);
        ::image::Rgb([0, 1, 2].map(|c| {
            let value = x * (3 + seed) / 2 + y * (5 + 2 * seed) / 3 + x * y / (110 + seed) + 40 * c + square;
            96 + (value % 256 / 4) as u8
        }))
    })
}

#[test]
fn missing_stages_are_named() {
    let Some(shared) = shared("missing_stages_are_named") else { return };
    let path = shared.join("models/resnet50-conv4-qop.onnx");
    let error = Backbone::load(&path, &options(Some("layer4"), None)).unwrap_err().to_string();
    assert!(error.contains("no tap layer4") && error.contains("layer1, layer2, layer3"), "{error}");
}

/// An untrained network that runs in milliseconds.
fn small() -> Model {
    resnet50(&Params { width: 4, size: 64, ..Params::default() })
}

fn load(model: &Model, tap: Option<&str>) -> Result<Backbone, Error> {
    Backbone::from_bytes("small.onnx", model.to_bytes(), &options(tap, None))
}

fn picture(seed: u32) -> ::image::RgbImage {
    ::image::RgbImage::from_fn(80, 64, |x, y| ::image::Rgb([(x * 3 + seed) as u8, (y * 5) as u8, (x * y) as u8]))
}

#[test]
fn every_tap_of_the_untrained_network() {
    let whole = load(&small(), None).unwrap();
    assert_eq!(whole.tap().to_string(), "layer4");
    assert_eq!((whole.n_features(), whole.input().width, whole.input().name()), (128, 64, "torch"));
    let mut joined = Vec::new();
    for (tap, channels) in [("layer1", 16), ("layer2", 32), ("layer3", 64), ("layer4", 128)] {
        let backbone = load(&small(), Some(tap)).unwrap();
        let features = backbone.features(&picture(0)).unwrap();
        assert_eq!(features.len(), channels, "{tap}");
        assert!(features.iter().all(|v| v.is_finite() && (0.0..50.0).contains(v)), "{tap}: {features:?}");
        assert!(features.iter().any(|&v| v > 0.01), "{tap}");
        joined.extend(features);
    }
    let all = load(&small(), Some("layer1+layer2+layer3+layer4")).unwrap();
    assert!(cosine(&all.features(&picture(0)).unwrap(), &joined) > 0.999_999);
}

#[test]
fn pooling_is_of_the_same_map() {
    let tap: Tap = "layer3".parse().unwrap();
    let load = |pooling| {
        let options = Options { tap: Some(tap.clone()), pooling: Some(pooling), threads: 1, ..Options::default() };
        Backbone::from_bytes("small.onnx", small().to_bytes(), &options).unwrap()
    };
    let flat = load(Pooling::None);
    assert_eq!(flat.n_features(), 4 * 4 * 64);
    let values = flat.features(&picture(1)).unwrap();
    let channel = |c: usize| values.iter().skip(c).step_by(64).copied();
    let avg = load(Pooling::Avg).features(&picture(1)).unwrap();
    let max = load(Pooling::Max).features(&picture(1)).unwrap();
    for c in 0..64 {
        assert!((channel(c).sum::<f32>() / 16.0 - avg[c]).abs() < 1e-4);
        assert_eq!(channel(c).fold(f32::MIN, f32::max), max[c]);
    }
}

#[test]
fn the_embedded_backbone_loads() {
    let backbone = Backbone::embedded(&options(None, None)).unwrap();
    assert_eq!(backbone.path(), None);
    assert_eq!(backbone.sha256(), Backbone::embedded(&options(None, None)).unwrap().sha256());
    let a = backbone.features(&picture(0)).unwrap();
    let b = backbone.features(&picture(90)).unwrap();
    assert_eq!(a.len(), backbone.n_features());
    assert_ne!(a, b);
}

/// Inserts a node behind the value `at`: everything that read `at` reads the new node's output.
fn insert(model: &mut Model, at: &str, make: impl FnOnce(&str) -> Node) {
    let new = format!("{at}/new");
    let i = model.nodes.iter().position(|n| n.outputs[0] == at).unwrap() + 1;
    for input in model.nodes[i..].iter_mut().flat_map(|n| &mut n.inputs).filter(|input| *input == at) {
        *input = new.clone();
    }
    model.nodes.insert(i, make(&new));
}

#[test]
fn exporters_ways_give_the_same_features() {
    let plain = load(&small(), Some("layer3")).unwrap().features(&picture(2)).unwrap();
    let same = |model: &Model, what: &str| {
        let got = load(model, Some("layer3")).unwrap().features(&picture(2)).unwrap();
        assert!(cosine(&got, &plain) > 0.999_99, "{what}: {}", cosine(&got, &plain));
    };

    let mut model = small();
    insert(&mut model, "layer1.2.relu3", |new| Node::new("Identity", &["layer1.2.relu3"], &[new]));
    insert(&mut model, "layer2.0.relu3", |new| Node::new("Dropout", &["layer2.0.relu3"], &[new]));
    same(&model, "identity, dropout");

    let mut model = small();
    let ones = |name: &str, v: f32| Initializer::f32(name, &[4], &[v; 4]);
    model.initializers.extend([ones("g", 1.0), ones("b", 0.0), ones("m", 0.0), ones("v", 1.0)]);
    insert(&mut model, "conv1", |new| {
        Node::new("BatchNormalization", &["conv1", "g", "b", "m", "v"], &[new]).with("epsilon", Attr::Float(0.0))
    });
    same(&model, "batch norm");

    let mut model = small();
    model.initializers.push(Initializer::f32("zero", &[], &[0.0]));
    for node in model.nodes.iter_mut().filter(|n| n.op == "Relu") {
        node.op = "Clip".into();
        node.inputs.push("zero".into());
    }
    same(&model, "clip");

    let mut model = small();
    model.inputs[0].dims = [1, 3, 64, 64].map(Dim::Fixed).into();
    same(&model, "fixed batch");

    let mut model = small();
    let perm = |node: Node, perm: [i64; 4]| node.with("perm", Attr::Ints(perm.into()));
    model.nodes[0].inputs[0] = "nchw".into();
    model.nodes.insert(0, perm(Node::new("Transpose", &["input"], &["nchw"]), [0, 3, 1, 2]));
    model.inputs[0].dims = [1, 64, 64, 3].map(Dim::Fixed).into();
    same(&model, "NHWC input");

    let mut model = small();
    let shift = Initializer::i64("pads", &[8], &[0, 0, 1, 1, 0, 0, 1, 1]);
    model.initializers.extend([shift, Initializer::f32("least", &[], &[0.0])]);
    insert(&mut model, "relu1", |new| Node::new("Pad", &["relu1", "pads", "least"], &[new]));
    let pool = model.nodes.iter_mut().find(|n| n.op == "MaxPool").unwrap();
    pool.attrs.retain(|(name, _)| name != "pads");
    same(&model, "pad before the max pool");
}

#[test]
fn shallow_and_plain_networks() {
    let shallow = resnet50(&Params { width: 4, size: 64, blocks: vec![2, 2], ..Params::default() });
    assert_eq!(load(&shallow, None).unwrap().tap().to_string(), "layer2");
    let error = load(&shallow, Some("layer3")).unwrap_err();
    assert!(matches!(&error, Error::NoTap { available, .. } if available == "layer1, layer2"), "{error}");
    let mut plain = small();
    plain.nodes.truncate(3);
    let error = load(&plain, None).unwrap_err().to_string();
    assert!(error.contains("it is not a ResNet"), "{error}");
}

#[test]
fn unknown_operators_are_named() {
    let mut model = small();
    insert(&mut model, "layer1.0.conv1", |new| Node::new("Frobnicate", &["layer1.0.conv1"], &[new]));
    // Behind an operator that nothing is known of, sums are no longer recognised.
    assert!(load(&model, Some("layer4")).is_err());
    let mut model = small();
    let relu = model.nodes.iter_mut().find(|n| n.outputs[0] == "layer1.0.relu1").unwrap();
    relu.op = "HardSwish".into();
    relu.domain = "made.up".into();
    let done = load(&model, None);
    assert!(done.is_ok() || done.unwrap_err().to_string().contains("HardSwish"));
}

#[test]
fn what_is_not_onnx_is_refused() {
    for bytes in [&b""[..], b"This is a text file, not a network.\n", &[0xff; 300], &[0; 4096], b"\x89PNG\r\n\x1a\n"] {
        let error = Backbone::from_bytes("odd.onnx", bytes.to_vec(), &options(None, None)).unwrap_err();
        assert!(error.to_string().contains("odd.onnx"), "{error}");
    }
    let error = Backbone::load(Path::new("/does/not/exist.onnx"), &options(None, None)).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(Backbone::load(Path::new("/"), &options(None, None)).is_err());
}

/// Two blocks in two stages: a file of a few kilobytes that loads quickly.
fn tiny() -> Vec<u8> {
    let mut model = resnet50(&Params { width: 2, size: 32, blocks: vec![1, 1], ..Params::default() });
    // Graph structure first and small, so that damage hits it often.
    model.metadata.push(("note".into(), "for damage".into()));
    model.to_bytes()
}

#[test]
fn truncated_files_are_refused() {
    let whole = tiny();
    assert!(Backbone::from_bytes("whole.onnx", whole.clone(), &options(None, None)).is_ok());
    for end in (0..whole.len()).step_by(61) {
        // What is cut behind the graph (operator sets, metadata) need not be missed.
        let cut = Backbone::from_bytes("cut.onnx", whole[..end].to_vec(), &options(None, None));
        assert!(cut.is_err() || end + 120 > whole.len(), "{end} of {}", whole.len());
    }
}

#[test]
fn flipped_bytes_do_not_end_the_process() {
    let whole = tiny();
    let structure = whole.len().min(3000);
    for at in (0..structure).step_by(7).chain((structure..whole.len()).step_by(997)) {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            if let Ok(backbone) = Backbone::from_bytes("flipped.onnx", bytes, &options(None, None)) {
                let _ = backbone.features(&picture(0));
            }
        }
    }
}
