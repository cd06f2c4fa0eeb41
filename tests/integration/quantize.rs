//! Quantization from outside: made float networks everywhere, real weights and pictures where they are there.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::common::daemon::outlierd;
use image::RgbImage;
use ndarray::{Array2, Axis};
use outlierd::internals::backbone::onnx::writer::{Dim, Initializer, Model};
use outlierd::internals::backbone::onnx::{Attr, Node};
use outlierd::internals::backbone::quantize::{Error, Network, Options, Quantized, Ranges, Watch};
use outlierd::internals::backbone::untrained::{Params, resnet50};
use outlierd::internals::backbone::{self, Backbone};
use outlierd::internals::image::{InputRecipe, Resize};
use outlierd::internals::model::FeatureSource;
use outlierd::internals::training::fit;
use outlierd::internals::training::params::DetectorKind;
use rayon::prelude::*;
use serde_json::Value;

fn small() -> Model {
    resnet50(&Params { width: 8, size: 64, blocks: vec![2, 2, 1], ..Params::default() })
}

/// A picture with shapes that depend on `seed`.
fn picture(seed: u32) -> RgbImage {
    RgbImage::from_fn(72, 64, |x, y| {
        let disc = (x as i32 - 20 - seed as i32 % 30).pow(2) + (y as i32 - 30).pow(2) < 150 + 20 * (seed as i32 % 7);
        let value = if disc { 200 } else { (x * 2 + y + seed * 3) % 120 };
        image::Rgb([value as u8, (value / 2 + y) as u8, 160 - (value / 2) as u8])
    })
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn load(bytes: Vec<u8>) -> Backbone {
    Backbone::from_bytes("made.onnx", bytes, &backbone::Options { threads: 1, ..Default::default() }).unwrap()
}

fn open(bytes: Vec<u8>) -> Result<Network, Error> {
    Network::from_bytes("float.onnx", bytes, None, None)
}

fn quantize(network: Network, pictures: &[RgbImage], options: &Options) -> Result<Quantized, Error> {
    let stop = AtomicBool::new(false);
    let prepared: Vec<RgbImage> = pictures.iter().map(|p| network.prepare(p).unwrap()).collect();
    network.quantize(&prepared, options, &Watch { stop: &stop, begin: &|_, _| (), done: &|| () })
}

fn calibration() -> Vec<RgbImage> {
    (0..12).map(picture).collect()
}

/// The mean cosine between float and int8 features of pictures that nothing was calibrated on.
fn agreement(float: &Backbone, int8: &Backbone) -> f64 {
    let pictures: Vec<RgbImage> = (40..48).map(picture).collect();
    let one = |p: &RgbImage| cosine(&float.features(p).unwrap(), &int8.features(p).unwrap());
    pictures.iter().map(one).sum::<f64>() / pictures.len() as f64
}

fn whole(int8: &Backbone) {
    let report = int8.describe();
    assert!(report.contains(&"as tract runs it: nothing".to_string()), "{report:?}");
    assert!(report.contains(&"format: QDQ".to_string()), "{report:?}");
}

#[test]
fn every_rule_gives_a_file_that_is_fused_whole() {
    let float = load(small().to_bytes());
    for ranges in [Ranges::Mse, Ranges::Percentile, Ranges::MinMax] {
        for equalize in [false, true] {
            let options = Options { ranges, equalize, correct: true };
            let made = quantize(open(small().to_bytes()).unwrap(), &calibration(), &options).unwrap();
            // One in front, five blocks of three, three shortcuts.
            assert_eq!((made.report.convolutions, made.report.float_convolutions, made.report.corrected), (19, 0, 19));
            assert_eq!(made.report.equalized, if equalize { 10 } else { 0 });
            let int8 = load(made.to_bytes());
            whole(&int8);
            assert_eq!(int8.input().name(), "torch");
            let cosine = agreement(&float, &int8);
            assert!(cosine > 0.998, "{ranges} {equalize}: {cosine}");
        }
    }
}

#[test]
fn bias_correction_takes_the_shift_of_the_mean_back() {
    let float = load(small().to_bytes());
    let pictures = calibration();
    // The mean over pictures of each feature; a correction on the same pictures must bring it to the float network's.
    let mean = |backbone: &Backbone| -> Vec<f64> {
        let rows: Vec<Vec<f32>> = pictures.iter().map(|p| backbone.features(p).unwrap()).collect();
        (0..rows[0].len()).map(|c| rows.iter().map(|r| f64::from(r[c])).sum::<f64>() / rows.len() as f64).collect()
    };
    let shift = |correct: bool| -> f64 {
        let options = Options { ranges: Ranges::MinMax, correct, ..Options::default() };
        let int8 = load(quantize(open(small().to_bytes()).unwrap(), &pictures, &options).unwrap().to_bytes());
        mean(&float).iter().zip(mean(&int8)).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    };
    let (without, with) = (shift(false), shift(true));
    assert!(with < 0.5 * without, "{with} {without}");
}

#[test]
fn the_same_pictures_give_the_same_file() {
    let make = |pictures: &[RgbImage]| {
        quantize(open(small().to_bytes()).unwrap(), pictures, &Options::default()).unwrap().to_bytes()
    };
    let pictures = calibration();
    let first = make(&pictures);
    assert!(first == make(&pictures));
    assert!(first != make(&pictures[..4]));
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

fn batch_norm(model: &mut Model, at: &str, channels: usize) {
    let row = |name: &str, base: f32, step: f32| {
        let values: Vec<f32> = (0..channels).map(|c| base + step * (c % 5) as f32).collect();
        Initializer::f32(&format!("{at}.{name}"), &[channels], &values)
    };
    model.initializers.extend([row("g", 0.8, 0.1), row("b", -0.1, 0.05), row("m", -0.2, 0.1), row("v", 0.6, 0.3)]);
    let names = ["g", "b", "m", "v"].map(|n| format!("{at}.{n}"));
    insert(model, at, |new| {
        let node = Node::new("BatchNormalization", &[at, &names[0], &names[1], &names[2], &names[3]], &[new]);
        node.with("epsilon", Attr::Float(1e-3))
    });
}

/// Ways in which exporters write a network, each with the count of convolutions that it has.
fn exports() -> Vec<(&'static str, Model)> {
    let mut all = Vec::new();

    let mut model = small();
    let convs: Vec<(String, usize)> = (model.nodes.iter())
        .filter(|n| n.op == "Conv")
        .map(|n| {
            let weight = model.initializers.iter().find(|i| i.name == n.inputs[1]).unwrap();
            (n.outputs[0].clone(), weight.dims[0])
        })
        .collect();
    for (at, channels) in &convs {
        batch_norm(&mut model, at, *channels);
    }
    for node in model.nodes.iter_mut().filter(|n| n.op == "Conv") {
        node.inputs.truncate(2);
    }
    all.push(("batch norm, no bias", model));

    let mut model = small();
    let pads = Initializer::i64("pads", &[8], &[0, 0, 1, 1, 0, 0, 1, 1]);
    let wide = Initializer::i64("wide", &[8], &[0, 0, 3, 3, 0, 0, 3, 3]);
    model.initializers.extend([pads, wide]);
    insert(&mut model, "relu1", |new| Node::new("Pad", &["relu1", "pads"], &[new]));
    model.nodes[0].inputs[0] = "padded".into();
    model.nodes.insert(0, Node::new("Pad", &["input", "wide"], &["padded"]));
    for node in &mut model.nodes {
        if node.op == "MaxPool" || node.inputs[0] == "padded" {
            node.attrs.retain(|(name, _)| name != "pads");
        }
    }
    all.push(("pads of their own", model));

    let mut model = small();
    for node in model.nodes.iter_mut().filter(|n| n.op == "Conv" && n.ints("strides") == Some(&[1, 1])) {
        node.attrs.retain(|(name, _)| name != "pads");
        node.attrs.push(("auto_pad".into(), Attr::Str("SAME_UPPER".into())));
    }
    all.push(("auto_pad", model));

    let mut model = small();
    let perm = Node::new("Transpose", &["input"], &["nchw"]).with("perm", Attr::Ints(vec![0, 3, 1, 2]));
    model.nodes[0].inputs[0] = "nchw".into();
    model.nodes.insert(0, perm);
    model.inputs[0].dims = [1, 64, 64, 3].map(Dim::Fixed).into();
    insert(&mut model, "layer1.0.relu1", |new| Node::new("Identity", &["layer1.0.relu1"], &[new]));
    all.push(("NHWC input, identity", model));

    let mut model = small();
    model.nodes.truncate(model.nodes.len() - 2);
    let last = model.nodes.last().unwrap().outputs[0].clone();
    model.outputs[0].name = last;
    model.outputs[0].dims = [1, 128, 4, 4].map(Dim::Fixed).into();
    all.push(("a map as output", model));

    let mut model = small();
    model.opsets = vec![(String::new(), 9)];
    let squeeze = Node::new("Squeeze", &["pooled"], &["features"]).with("axes", Attr::Ints(vec![2, 3]));
    *model.nodes.last_mut().unwrap() = squeeze;
    for node in model.nodes.iter_mut().filter(|n| n.op == "Relu") {
        node.op = "Clip".into();
        node.attrs = vec![("min".into(), Attr::Float(0.0)), ("max".into(), Attr::Float(f32::MAX))];
    }
    all.push(("an old operator set", model));
    all
}

#[test]
fn exporters_ways_are_folded() {
    for (what, model) in exports() {
        let float = load(model.to_bytes());
        let made = quantize(open(model.to_bytes()).unwrap(), &calibration(), &Options::default());
        let made = made.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!((made.report.convolutions, made.report.float_convolutions), (19, 0), "{what}");
        let int8 = load(made.to_bytes());
        whole(&int8);
        let cosine = agreement(&float, &int8);
        assert!(cosine > 0.998, "{what}: {cosine}");
        let opset = outlierd::internals::backbone::onnx::Model::parse(
            Path::new("made.onnx"),
            backbone::Source::Bytes(made.to_bytes().into()),
        );
        assert!(opset.unwrap().opset >= 13, "{what}");
    }
}

#[test]
fn grouped_convolutions_stay_in_float() {
    let mut model = small();
    let at = model.nodes.iter().position(|n| n.outputs[0] == "layer1.1.conv2").unwrap();
    let name = model.nodes[at].inputs[1].clone();
    model.nodes[at].attrs.push(("group".into(), Attr::Int(2)));
    let weight = model.initializers.iter_mut().find(|i| i.name == name).unwrap();
    weight.dims[1] /= 2;
    weight.bytes.truncate(weight.bytes.len() / 2);
    let float = load(model.to_bytes());
    let made = quantize(open(model.to_bytes()).unwrap(), &calibration(), &Options::default()).unwrap();
    assert_eq!((made.report.convolutions, made.report.float_convolutions), (18, 1));
    let cosine = agreement(&float, &load(made.to_bytes()));
    assert!(cosine > 0.998, "{cosine}");
}

#[test]
fn what_cannot_be_quantized_is_refused() {
    let made = quantize(open(small().to_bytes()).unwrap(), &calibration(), &Options::default()).unwrap();
    let error = open(made.to_bytes()).unwrap_err();
    assert!(matches!(error, Error::Quantized { .. }) && error.to_string().contains("QDQ"), "{error}");

    let mut plain = small();
    plain.nodes.retain(|n| n.op != "Conv");
    for node in &mut plain.nodes {
        node.inputs = vec!["input".into()];
    }
    assert!(matches!(open(plain.to_bytes()), Err(Error::NoConvolution { .. })));

    let none = quantize(open(small().to_bytes()).unwrap(), &[], &Options::default());
    assert!(matches!(none, Err(Error::NoPictures)));

    let mut broken = small();
    broken.initializers[0].bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = quantize(open(broken.to_bytes()).unwrap(), &calibration(), &Options::default()).unwrap_err();
    assert!(matches!(error, Error::NotFinite { .. }), "{error}");

    let stop = AtomicBool::new(true);
    let network = open(small().to_bytes()).unwrap();
    let prepared = [network.prepare(&picture(0)).unwrap()];
    let stopped =
        network.quantize(&prepared, &Options::default(), &Watch { stop: &stop, begin: &|_, _| (), done: &|| () });
    assert!(matches!(stopped, Err(Error::Interrupted)));
}

struct Run {
    code: i32,
    out: String,
    err: String,
}

fn run(args: &[&str], dir: &Path) -> Run {
    let mut command = outlierd();
    let output = command.current_dir(dir).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let run = Run { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!run.err.contains("panicked"), "{}", run.err);
    run
}

#[test]
fn the_command_writes_a_backbone_or_says_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("float.onnx"), small().to_bytes()).unwrap();
    std::fs::create_dir(at("normal")).unwrap();
    for n in 0..14 {
        picture(n).save(at(&format!("normal/{n:02}.png"))).unwrap();
    }
    std::fs::write(at("normal/bad.png"), "no picture").unwrap();
    let base = ["quantize", "float.onnx", "--calibrate", "normal", "-o", "int8.onnx", "--threads", "1"];
    let with = |more: &[&str]| run(&[&base, more].concat(), dir.path());

    let done = with(&["--json", "--count", "12", "--input", "caffe"]);
    assert_eq!(done.code, 0, "{}", done.err);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&report["convolutions"], &report["corrected"]), (&19.into(), &19.into()));
    assert_eq!((&report["input"], &report["compared_are_calibration"]), (&"caffe".into(), &false.into()));
    assert!(report["mean_cosine"].as_f64().unwrap() > 0.998, "{report}");
    let int8 = std::fs::read(at("int8.onnx")).unwrap();
    assert_eq!(report["bytes"], int8.len());
    let int8 = load(int8);
    whole(&int8);
    assert_eq!(int8.input().name(), "caffe");

    let done = with(&["--ranges", "minmax", "--no-bias-correction", "--equalize"]);
    assert_eq!(done.code, 0, "{}", done.err);
    for words in ["19 convolutions in 8 bits", "10 pairs equalised", "0 bias vectors corrected", "mean cosine"] {
        assert!(done.out.contains(words), "{}", done.out);
    }
    assert!(done.err.contains("bad.png"), "{}", done.err);

    let refused = |args: &[&str], code: i32, word: &str| {
        let run = run(args, dir.path());
        assert!(run.code == code && run.err.contains(word), "{}: {}", run.code, run.err);
    };
    std::fs::remove_file(at("normal/00.png")).unwrap();
    let int8 = ["quantize", "int8.onnx", "--calibrate", "normal", "-o", "again.onnx"];
    refused(&int8, 65, "quantized already (QDQ)");
    refused(&[&base[..], &["--ranges", "widest"]].concat(), 64, "widest");
    refused(&[&base[..], &["--input", "keras"]].concat(), 64, "keras");
    refused(&["quantize", "float.onnx", "--calibrate", "nowhere", "-o", "x.onnx"], 66, "nowhere");
    refused(&["quantize", "absent.onnx", "--calibrate", "normal", "-o", "x.onnx"], 66, "absent.onnx");
    refused(&["quantize", "float.onnx", "--calibrate", "normal", "-o", "no/x.onnx"], 73, "no/x.onnx");
    std::fs::create_dir(at("broken")).unwrap();
    std::fs::write(at("broken/a.png"), "no picture").unwrap();
    refused(&["quantize", "float.onnx", "--calibrate", "broken", "-o", "x.onnx"], 65, "a.png");
    let names: Vec<String> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|n| n == "x.onnx" || n == "again.onnx" || n.starts_with(".outlierd")), "{names:?}");
}

fn list(path: &Path, step: usize) -> Vec<PathBuf> {
    let folder = path.parent().unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().step_by(step).map(|line| folder.join(line)).collect()
}

/// The goals on real weights and pictures, with a sixth of them: features as the float network's (cosine 0.998; the
/// same file by onnxruntime's own tool has 0.995), and a detector fitted on them that ranks as well.
#[test]
fn real_features_survive_on_the_magnetic_tiles() {
    let Some(shared) = crate::common::shared("real_features_survive_on_the_magnetic_tiles") else { return };
    const STEP: usize = 6;
    let tiles = shared.join("images/magnetic-tiles");
    let path = shared.join("models/resnet50-conv4-f32.onnx");
    let network = Network::open(&path, Some(InputRecipe::caffe()), Some(Resize::Stretch)).unwrap();
    let train = list(&tiles.join("train.txt"), STEP);
    let calibration: Vec<RgbImage> =
        train.iter().step_by(8).map(|p| outlierd::internals::image::read(p).unwrap()).collect();
    let int8 = load(quantize(network, &calibration, &Options::default()).unwrap().to_bytes());
    whole(&int8);

    let float = crate::common::tile_features(&shared).map(|rows| {
        let every: Vec<usize> = (0..rows.nrows()).step_by(STEP).collect();
        rows.select(Axis(0), &every)
    });
    let names = ["train", "test-normal", "test-outlier"];
    let rounded = names.map(|name| {
        let pictures = list(&tiles.join(format!("{name}.txt")), STEP);
        let rows: Vec<Vec<f32>> = pictures
            .par_iter()
            .map(|p| int8.features(&outlierd::internals::image::read(p).unwrap()).unwrap())
            .collect();
        Array2::from_shape_vec((rows.len(), 1024), rows.concat()).unwrap()
    });
    let cosines: Vec<f64> = (1..3)
        .flat_map(|i| float[i].rows().into_iter().zip(rounded[i].rows()))
        .map(|(a, b)| cosine(&a.to_vec(), &b.to_vec()))
        .collect();
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    println!("mean cosine of {} test pictures: {mean:.5}", cosines.len());
    assert!(mean >= 0.998, "{mean}");

    for detector in [DetectorKind::MixtureResidual, DetectorKind::GaussianMixture] {
        let [with_float, with_int8] = [&float, &rounded].map(|[train, normal, outlier]| {
            let options = fit::Options::with_detector(detector);
            let fitted = crate::common::fit_rows(train.view(), None, FeatureSource::of(&int8), &options).unwrap();
            crate::common::auroc(&fitted.model, normal.view(), outlier.view()).unwrap()
        });
        println!("{}: AUROC {with_float:.4} in float, {with_int8:.4} in int8", detector.name());
        assert!(with_int8 >= with_float - 0.01, "{}: {with_float} {with_int8}", detector.name());
    }
}
