//! Static post-training quantization of a ResNet: float ONNX and calibration pictures in, QDQ ONNX out.
//!
//! | step | does |
//! | --- | --- |
//! | `fold` | batch norm into weights, padding into operators |
//! | `equalize` | channels between two convolutions to the same reach (asked for only) |
//! | `observe` | runs the float network on the pictures: histograms, channel means |
//! | `ranges` | the range of each map: least squared error, percentile, or all that was seen |
//! | `weights` | s8, symmetric, a scale per output channel |
//! | `emit` | `QuantizeLinear` and `DequantizeLinear` around float operators |
//! | `correct` | runs the 8-bit network and takes the shift of each channel's mean back |
//!
//! Sources: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
//! Inference"; Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction".

use std::collections::HashMap;
use std::path::Path;

use ::image::RgbImage;

use super::compile::stages;
use super::compile::trunk::Trunk;
use super::error::Error as BackboneError;
use super::onnx::{Graph, Model, Source, writer};
use super::options::{self, INPUT_KEY, SUMS_KEY, input_table};
use super::passes::input;
use super::passes::lower::Format;
use super::passes::quant::Quant;
use crate::image::{InputRecipe, Resize};

mod correct;
mod emit;
pub mod equalize;
mod error;
mod fold;
mod observe;
mod points;
mod progress;
pub mod ranges;
mod weights;

pub use error::Error;
pub use progress::Watch;
pub use ranges::Ranges;

use observe::{Observer, Statistics, Subject};
use points::{Kind, Point};
use weights::Layer;

/// How to quantize.
#[derive(Debug, Clone)]
pub struct Options {
    pub ranges: Ranges,
    /// Equalise the channels between two convolutions first.
    pub equalize: bool,
    /// Correct the biases afterwards.
    pub correct: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { ranges: Ranges::default(), equalize: false, correct: true }
    }
}

/// A float network that is read and folded.
#[derive(Debug)]
pub struct Network {
    model: Model,
    graph: Graph,
    input: String,
    recipe: InputRecipe,
    /// Names of graph outputs by the maps that are given out, which have other names inside.
    outputs: HashMap<String, String>,
}

/// What was made, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Convolutions in 8 bits.
    pub convolutions: usize,
    /// Convolutions that stay in float: grouped ones, and those whose weights are computed.
    pub float_convolutions: usize,
    /// Maps with a range of their own.
    pub ranges: usize,
    /// Pairs of convolutions that were equalised.
    pub equalized: usize,
    /// Convolutions whose bias was corrected.
    pub corrected: usize,
}

/// A quantized network.
#[derive(Debug)]
pub struct Quantized {
    file: writer::Model,
    pub report: Report,
}

impl Quantized {
    /// The ONNX file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.file.to_bytes()
    }
}

impl Network {
    /// Reads a float ONNX file. `input` None: the file's own mark, else `torch`; `resize` None: the recipe's own.
    ///
    /// # Errors
    /// The file cannot be read, is quantized already, has no convolution, or does not take one picture.
    pub fn open(path: &Path, input: Option<InputRecipe>, resize: Option<Resize>) -> Result<Network, Error> {
        let source = Source::open(path).map_err(|source| BackboneError::Io { path: path.into(), source })?;
        Self::from_model(Model::parse_in(path, source, path.parent())?, input, resize)
    }

    /// The same of a file in memory; `name` names it in errors.
    #[cfg(any(test, feature = "internals"))]
    pub fn from_bytes(
        name: &str,
        bytes: Vec<u8>,
        input: Option<InputRecipe>,
        resize: Option<Resize>,
    ) -> Result<Network, Error> {
        Self::from_model(Model::parse(Path::new(name), Source::Bytes(bytes.into()))?, input, resize)
    }

    fn from_model(mut model: Model, input: Option<InputRecipe>, resize: Option<Resize>) -> Result<Network, Error> {
        let path = model.path.clone();
        let options = options::Options { input, resize, ..options::Options::default() };
        let mut trunk = Trunk::of(&mut model, &options)?;
        let taps = trunk.found.clone();
        if !taps.is_empty() {
            trunk.cut(&model, &taps)?;
        }
        if trunk.format() != Format::Float {
            return Err(Error::Quantized { path, format: trunk.format().name() });
        }
        if !trunk.graph.nodes.iter().any(|n| fold::is_plain_conv(&trunk.graph, n)) {
            return Err(Error::NoConvolution { path });
        }
        if taps.is_empty() {
            let reason = "it has no residual stages: it is not a ResNet; give one of 18 to 152 layers".into();
            return Err(Error::Unsupported { path, reason });
        }
        if model.opset < emit::OLDEST {
            let reason = format!("operator set {} is too old; export with {} or newer", model.opset, emit::OLDEST);
            return Err(Error::Unsupported { path, reason });
        }
        let Trunk { mut graph, picture, .. } = trunk;
        let size = [picture.recipe.height as usize, picture.recipe.width as usize];
        fold::fold(&model, &mut graph, &picture.name, size)?;
        let outputs = rename_outputs(&mut graph, &picture.name);
        Ok(Network { model, graph, input: picture.name, recipe: picture.recipe, outputs })
    }

    /// What the network expects of its pictures.
    pub fn input(&self) -> &InputRecipe {
        &self.recipe
    }

    /// Resizes and crops a picture as the recipe says.
    ///
    /// # Errors
    /// The picture has no pixels.
    pub fn prepare(&self, picture: &RgbImage) -> Result<RgbImage, Error> {
        Ok(crate::image::prepare(picture, &self.recipe).map_err(BackboneError::from)?)
    }

    /// Quantizes on pictures that [`Network::prepare`] made. Several are run at once, each with some 100 MB for a
    /// ResNet-50; how many, rayon's threads say.
    ///
    /// # Errors
    /// There are no pictures, an operator is not known, or `watch` says stop.
    pub fn quantize(self, pictures: &[RgbImage], options: &Options, watch: &Watch) -> Result<Quantized, Error> {
        if pictures.is_empty() {
            return Err(Error::NoPictures);
        }
        let (width, height) = (self.recipe.width, self.recipe.height);
        if let Some(odd) = pictures.iter().find(|p| p.dimensions() != (width, height)) {
            let (got_width, got_height) = odd.dimensions();
            return Err(BackboneError::PictureSize { width, height, got_width, got_height }.into());
        }
        let Network { model, mut graph, input, recipe, outputs } = self;
        let subject = Subject { model: &model, input: &input, recipe: &recipe };
        let equalized = match options.equalize {
            true => equalize_all(subject, &mut graph, pictures, watch)?,
            false => 0,
        };
        let mut points = points::find(&model, &graph, &input, &stages::maps(&graph, &input))?;
        let observers = observers(&graph, &points);
        (watch.begin)("ranges", pictures.len());
        let seen = subject.observe(&graph, &observers, pictures, watch)?;
        let quants = quants(&points, &observers, &seen, &recipe, options.ranges);
        points.retain(|p| quants.contains_key(&p.value));
        let mut layers = layers(&model, &graph, &quants)?;
        let mut rounded = emit::quantized(&graph, &points, &quants, &layers, &outputs);
        let mut corrected = 0;
        if options.correct {
            let means: HashMap<&str, &[f64]> =
                observers.iter().zip(&seen).map(|(o, s)| (o.value.as_str(), s.mean.as_slice())).collect();
            (watch.begin)("biases", layers.len());
            corrected = subject.correct(&mut rounded, &mut layers, &means, pictures, watch)?;
        }
        let convolutions = layers.len();
        let report = Report {
            convolutions,
            float_convolutions: graph.nodes.iter().filter(|n| n.is("Conv")).count() - convolutions,
            ranges: points.iter().filter(|p| p.kind != Kind::Pooled).count(),
            equalized,
            corrected,
        };
        let file = emit::file(&model, &rounded, metadata(&model, &recipe))?;
        Ok(Quantized { file, report })
    }
}

/// Gives maps that are outputs of the graph other names inside, so that a rounding fits between.
fn rename_outputs(graph: &mut Graph, input: &str) -> HashMap<String, String> {
    let maps = stages::maps(graph, input);
    let mut outputs = HashMap::new();
    for output in graph.outputs.iter_mut().filter(|o| maps.contains_key(&o.name) && o.name != input) {
        let inside = format!("{}/real", output.name);
        let values = graph.nodes.iter_mut().flat_map(|n| n.inputs.iter_mut().chain(&mut n.outputs));
        for value in values.filter(|v| **v == output.name) {
            *value = inside.clone();
        }
        outputs.insert(inside.clone(), std::mem::replace(&mut output.name, inside));
    }
    outputs
}

fn equalize_all(subject: Subject, graph: &mut Graph, pictures: &[RgbImage], watch: &Watch) -> Result<usize, Error> {
    let pairs = equalize::pairs(graph);
    let observers: Vec<Observer> =
        pairs.iter().map(|p| Observer { value: p.between.clone(), histogram: None, greatest: true }).collect();
    if observers.is_empty() {
        return Ok(0);
    }
    (watch.begin)("equalisation", pictures.len());
    let seen = subject.observe(graph, &observers, pictures, watch)?;
    for (pair, seen) in pairs.iter().zip(&seen) {
        equalize::equalize(subject.model, graph, pair, &seen.greatest)?;
    }
    Ok(pairs.len())
}

/// What ranges and bias correction need to be observed, each value once for each pair of bounds.
fn observers(graph: &Graph, points: &[Point]) -> Vec<Observer> {
    let mut observers: Vec<Observer> = Vec::new();
    for point in points.iter().filter(|p| matches!(p.kind, Kind::Observed | Kind::Summand)) {
        let one = Observer { value: point.source.clone(), histogram: Some(point.bounds), greatest: false };
        if !observers.contains(&one) {
            observers.push(one);
        }
    }
    for node in graph.nodes.iter().filter(|n| fold::is_plain_conv(graph, n)) {
        let value = node.outputs[0].clone();
        if !observers.iter().any(|o| o.value == value) {
            observers.push(Observer { value, histogram: None, greatest: false });
        }
    }
    observers
}

fn quants(
    points: &[Point],
    observers: &[Observer],
    seen: &[Statistics],
    recipe: &InputRecipe,
    rule: Ranges,
) -> HashMap<String, Quant> {
    let mut quants: HashMap<String, Quant> = HashMap::new();
    for point in points {
        let chosen = |rule: Ranges| {
            let is = |o: &Observer| o.value == point.source && o.histogram == Some(point.bounds);
            observers.iter().zip(seen).find(|(o, _)| is(o)).map(|(_, seen)| seen.histogram.choose(rule))
        };
        let quant = match point.kind {
            Kind::Picture => {
                // A picture to be judged may be darker or brighter than those seen here.
                let (table, _) = input_table(recipe);
                let values = || table.iter().flatten().copied();
                Some(ranges::levels(values().fold(0.0, f32::min), values().fold(0.0, f32::max)))
            }
            Kind::Pooled => quants.get(&point.source).copied(),
            Kind::Summand => chosen(Ranges::MinMax),
            Kind::Observed => chosen(rule),
        };
        if let Some(quant) = quant {
            quants.insert(point.value.clone(), quant);
        }
    }
    quants
}

/// The convolutions with constant weights whose input is quantized, by their output.
fn layers(model: &Model, graph: &Graph, quants: &HashMap<String, Quant>) -> Result<HashMap<String, Layer>, Error> {
    let mut layers = HashMap::new();
    for node in graph.nodes.iter().filter(|n| fold::is_plain_conv(graph, n)) {
        let Some(quant) = quants.get(&node.inputs[0]) else { continue };
        let (weight, bias) = (&graph.constants[&node.inputs[1]], &graph.constants[&node.inputs[2]]);
        let dims = <[usize; 4]>::try_from(weight.dims.as_slice()).unwrap_or_default();
        let (weight, bias) = (model.read_f32(weight)?, model.read_f32(bias)?);
        if weight.iter().chain(&bias).any(|v| !v.is_finite()) {
            let reason = format!("{}: its weights are not finite; give the file as it was trained", node.label());
            return Err(Error::Unsupported { path: model.path.clone(), reason });
        }
        layers.insert(node.outputs[0].clone(), Layer::round(dims, &weight, &bias, quant.scale));
    }
    Ok(layers)
}

/// The file's own metadata, with the input recipe and how its sums are meant.
fn metadata(model: &Model, recipe: &InputRecipe) -> Vec<(String, String)> {
    let ours = [INPUT_KEY, SUMS_KEY];
    let mut metadata: Vec<(String, String)> =
        model.metadata.iter().filter(|(key, _)| !ours.contains(&key.as_str())).cloned().collect();
    metadata.push((INPUT_KEY.into(), input::mark(recipe)));
    metadata.push((SUMS_KEY.into(), "unrounded".into()));
    metadata
}

#[cfg(test)]
mod tests {
    use super::super::onnx::writer::Initializer;
    use super::super::onnx::{Attr, Node};
    use super::super::passes::lower::lower;
    use super::super::untrained::{Params, resnet50};
    use super::*;

    static RUNS: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

    fn nobody() -> Watch<'static> {
        Watch { stop: &RUNS, begin: &|_, _| (), done: &|| () }
    }

    /// Two blocks; a batch norm behind every convolution, and a pad in front of the max pool.
    fn normalized() -> writer::Model {
        let mut model = resnet50(&Params { width: 4, size: 32, blocks: vec![1, 1], ..Params::default() });
        let convs: Vec<String> = model.nodes.iter().filter(|n| n.op == "Conv").map(|n| n.outputs[0].clone()).collect();
        for conv in convs {
            let at = model.nodes.iter().position(|n| n.outputs[0] == conv).unwrap();
            let weight = &model.nodes[at].inputs[1];
            let channels = model.initializers.iter().find(|i| i.name == *weight).unwrap().dims[0];
            let row = |what: &str, base: f32, step: f32| {
                let values: Vec<f32> = (0..channels).map(|c| base + step * (c % 7) as f32).collect();
                Initializer::f32(&format!("{conv}.{what}"), &[channels], &values)
            };
            model.initializers.extend([
                row("g", 0.5, 0.2),
                row("b", -0.3, 0.1),
                row("m", 0.2, -0.1),
                row("v", 0.1, 0.4),
            ]);
            let names = ["g", "b", "m", "v"].map(|what| format!("{conv}.{what}"));
            let out = format!("{conv}.normalized");
            for input in model.nodes.iter_mut().flat_map(|n| &mut n.inputs).filter(|input| **input == conv) {
                *input = out.clone();
            }
            let inputs = [conv.as_str(), &names[0], &names[1], &names[2], &names[3]];
            let norm = Node::new("BatchNormalization", &inputs, &[&out]).with("epsilon", Attr::Float(0.01));
            model.nodes.insert(at + 1, norm);
        }
        let pool = model.nodes.iter_mut().find(|n| n.op == "MaxPool").unwrap();
        pool.attrs.retain(|(name, _)| name != "pads");
        pool.inputs[0] = "padded".into();
        let at = model.nodes.iter().position(|n| n.op == "MaxPool").unwrap();
        model.initializers.push(Initializer::i64("pads", &[8], &[0, 0, 1, 1, 0, 0, 1, 1]));
        model.nodes.insert(at, Node::new("Pad", &["relu1", "pads"], &["padded"]));
        model
    }

    fn pictures() -> Vec<RgbImage> {
        let one = |n: u32| {
            RgbImage::from_fn(32, 32, |x, y| {
                ::image::Rgb([(x * 7 + n * 31) as u8, (y * 5 + x * n) as u8, (x * y) as u8])
            })
        };
        (0..4).map(one).collect()
    }

    /// The channel means of the last stage.
    fn means(model: &Model, graph: &Graph, input: &str, recipe: &InputRecipe) -> Vec<f64> {
        let value = stages::find(graph, &stages::maps(graph, input)).pop().unwrap().value;
        let observers = [Observer { value, histogram: None, greatest: false }];
        let subject = Subject { model, input, recipe };
        subject.observe(graph, &observers, &pictures(), &nobody()).unwrap().remove(0).mean
    }

    #[test]
    fn folding_and_equalisation_leave_the_float_function_as_it_is() {
        let bytes = normalized().to_bytes();
        let mut plain = Model::parse(Path::new("plain"), Source::Bytes(bytes.clone().into())).unwrap();
        let unfolded = lower(std::mem::take(&mut plain.graph), 13);
        let network = Network::from_bytes("folded", bytes, None, None).unwrap();
        let Network { model, mut graph, input, recipe, .. } = network;
        assert!(!graph.nodes.iter().any(|n| n.is("BatchNormalization") || n.is("Pad")));
        let expected = means(&plain, &unfolded, &input, &recipe);
        let near = |got: Vec<f64>, what: &str| {
            assert!(expected.iter().any(|&v| v > 0.05) && expected.len() == got.len());
            for (a, b) in expected.iter().zip(&got) {
                assert!((a - b).abs() <= 1e-4 * (1.0 + a.abs()), "{what}: {a} {b}");
            }
        };
        near(means(&model, &graph, &input, &recipe), "folded");
        let before = model.read_f32(&graph.constants["layer1.0.conv2/weight"]).unwrap();
        let subject = Subject { model: &model, input: &input, recipe: &recipe };
        let n = equalize_all(subject, &mut graph, &pictures(), &nobody()).unwrap();
        assert_eq!(n, 4);
        assert_ne!(before, model.read_f32(&graph.constants["layer1.0.conv2/weight"]).unwrap());
        near(means(&model, &graph, &input, &recipe), "equalised");
    }

    #[test]
    fn the_later_of_two_summands_keeps_everything_that_was_seen() {
        let bytes = normalized().to_bytes();
        let network = Network::from_bytes("folded", bytes, None, None).unwrap();
        let maps = stages::maps(&network.graph, &network.input);
        let points = points::find(&network.model, &network.graph, &network.input, &maps).unwrap();
        let of =
            |kind: Kind| -> Vec<&str> { points.iter().filter(|p| p.kind == kind).map(|p| p.value.as_str()).collect() };
        assert_eq!(of(Kind::Picture), ["input"]);
        assert_eq!(of(Kind::Pooled), ["pool1"]);
        assert_eq!(of(Kind::Summand), ["layer1.0.downsample.normalized", "layer2.0.downsample.normalized"]);
        // Seven activations, two earlier summands.
        assert_eq!(of(Kind::Observed).len(), 9);
    }
}
