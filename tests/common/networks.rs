//! Small networks, what the program makes of them, and what it should.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use image::RgbImage;
use outlierd::internals::backbone::onnx;
use outlierd::internals::backbone::onnx::writer::{Initializer, Model};
use outlierd::internals::backbone::quantize::{self, Watch};
use outlierd::internals::backbone::untrained::{Params, resnet50};
use outlierd::internals::backbone::{Backbone, Error, Options, Source};
use outlierd::internals::image::{InputRecipe, Resize};

/// Two stages of one block, without a mark of its input.
pub fn small() -> Model {
    let model = resnet50(&Params { width: 4, size: 32, blocks: vec![1, 1], ..Params::default() });
    Model { metadata: Vec::new(), ..model }
}

pub fn picture(seed: u32) -> RgbImage {
    RgbImage::from_fn(40, 32, |x, y| {
        let disc = (x as i32 - 12 - seed as i32 % 15).pow(2) + (y as i32 - 16).pow(2) < 60;
        let value = if disc { 220 } else { (x * 5 + y * 3 + seed * 11) % 150 };
        image::Rgb([value as u8, (value / 2 + y * 2) as u8, 190 - (value * 3 / 4) as u8])
    })
}

pub fn options(input: Option<InputRecipe>) -> Options {
    Options { input, resize: Some(Resize::Stretch), threads: 1, ..Options::default() }
}

pub fn load(bytes: Vec<u8>, input: Option<InputRecipe>) -> Result<Backbone, Error> {
    Backbone::from_bytes("made.onnx", bytes, &options(input))
}

pub fn features(bytes: Vec<u8>) -> Vec<f32> {
    load(bytes, None).unwrap().features(&picture(3)).unwrap()
}

pub fn quantized(bytes: Vec<u8>) -> Vec<u8> {
    let network = quantize::Network::from_bytes("float.onnx", bytes, None, Some(Resize::Stretch)).unwrap();
    let pictures: Vec<RgbImage> = (0..8).map(|n| network.prepare(&picture(n)).unwrap()).collect();
    let stop = AtomicBool::new(false);
    let watch = Watch { stop: &stop, begin: &|_, _| (), done: &|| () };
    network.quantize(&pictures, &quantize::Options::default(), &watch).unwrap().to_bytes()
}

#[track_caller]
pub fn alike(a: &[f32], b: &[f32], least: f64) {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let (cosine, length) = (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt(), (dot(a, a) / dot(b, b)).sqrt());
    assert!(cosine >= least && (length - 1.0).abs() < 0.03, "cosine {cosine}, length {length}");
}

#[track_caller]
pub fn refused(bytes: Vec<u8>, words: &[&str]) {
    let error = load(bytes, None).unwrap_err();
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

/// A file as a model that can be changed and written.
pub fn read(bytes: &[u8]) -> Model {
    let read = onnx::Model::parse(Path::new("made.onnx"), Source::Bytes(bytes.to_vec().into())).unwrap();
    let tensor = |(name, tensor): (&String, &onnx::Tensor)| Initializer {
        name: name.clone(),
        dtype: tensor.dtype,
        dims: tensor.dims.clone(),
        bytes: read.read(tensor).unwrap(),
    };
    Model {
        opsets: vec![(String::new(), read.opset)],
        metadata: read.metadata.clone(),
        nodes: read.graph.nodes.clone(),
        initializers: read.graph.constants.iter().map(tensor).collect(),
        outputs: Vec::new(),
        ..small()
    }
}
