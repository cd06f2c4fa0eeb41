//! A file's network up to its last tap: what lies behind does not matter, what lies before must be understood.

use std::collections::{HashMap, HashSet};

use super::stages::{self, MapInfo, StageOutput};
use crate::backbone::error::Error;
use crate::backbone::onnx::{DType, Graph, Index, Model, Node, ValueInfo, type_name};
use crate::backbone::options::Options;
use crate::backbone::passes::input::{self, Picture};
use crate::backbone::passes::lower::{Format, lower, q_operators};
use crate::backbone::passes::{pads, redundant};
use crate::backbone::tap::Stage;

/// A lowered graph without what it does to its picture first.
#[derive(Debug)]
pub struct Trunk {
    pub graph: Graph,
    pub picture: Picture,
    pub maps: HashMap<String, MapInfo>,
    pub found: Vec<StageOutput>,
    /// What operators of the QOperator format made.
    operators: HashSet<String>,
}

impl Trunk {
    /// Reads the graph of `model`, which is empty then.
    ///
    /// # Errors
    /// It does not take one picture, or an operator in front of the stages is not of the standard domain.
    pub fn of(model: &mut Model, options: &Options) -> Result<Trunk, Error> {
        let mut graph = std::mem::take(&mut model.graph);
        let operators = q_operators(&graph);
        pads::fold(model, &mut graph)?;
        let mut graph = lower(graph, model.opset);
        redundant::quantization(model, &mut graph)?;
        let picture = input::take(model, &mut graph, options)?;
        let maps = stages::maps(&graph, &picture.name);
        let found = stages::find(&graph, &maps);
        let trunk = Trunk { graph, picture, maps, found, operators };
        match trunk.non_standard() {
            Some(node) => Err(refusal(model, node)),
            None => Ok(trunk),
        }
    }

    /// An operator of another domain on which the network depends: with fewer stages than a ResNet has, one that
    /// convolutions depend on; else one that alone reads a stage's sum.
    fn non_standard(&self) -> Option<&Node> {
        let index = Index::of(&self.graph);
        let mut first: Option<&Node> = None;
        let mut seen: HashSet<&str> = HashSet::from([self.picture.name.as_str()]);
        let mut behind: HashSet<&str> = HashSet::new();
        for node in &self.graph.nodes {
            let reads = |values: &HashSet<&str>| node.inputs.iter().any(|i| values.contains(i.as_str()));
            if !reads(&seen) {
                continue;
            }
            let outputs = || node.outputs.iter().map(String::as_str);
            seen.extend(outputs());
            if !node.is_standard() {
                let mut sums = self.found.iter().filter(|stage| self.made_by_sum(&stage.value));
                if sums.any(|stage| {
                    reader_behind_rounding(&index, &stage.value).is_some_and(|one| std::ptr::eq(one, node))
                }) {
                    return Some(node);
                }
                first = first.or(Some(node));
            }
            if !node.is_standard() || reads(&behind) {
                if node.op.contains("Conv") && self.found.len() < Stage::ALL.len() {
                    return first;
                }
                behind.extend(outputs());
            }
        }
        None
    }

    fn made_by_sum(&self, value: &str) -> bool {
        self.graph.producer(value).is_some_and(|n| n.is("Add") || n.is("Sum"))
    }

    /// Leaves what `taps` need, with the roundings right behind them; the last tap becomes an output.
    ///
    /// # Errors
    /// What is left cannot be run, with the reason.
    pub fn cut(&mut self, model: &Model, taps: &[StageOutput]) -> Result<(), Error> {
        let graph = &mut self.graph;
        let values: Vec<&str> = taps.iter().map(|tap| tap.value.as_str()).collect();
        let needed = Index::of(graph).needed(stages::with_roundings(graph, &values));
        let mut needed = needed.into_iter();
        graph.nodes.retain(|_| needed.next() == Some(true));
        let read: HashSet<&String> = graph.nodes.iter().flat_map(|n| &n.inputs).collect();
        graph.inputs.retain(|i| i.name == self.picture.name || read.contains(&i.name));
        let mut made: HashSet<String> = graph.nodes.iter().flat_map(|n| &n.outputs).cloned().collect();
        graph.outputs.retain(|o| made.contains(&o.name) && self.maps.contains_key(&o.name));
        if let Some(last) = taps.last().filter(|tap| graph.outputs.iter().all(|o| o.name != tap.value)) {
            let dims = vec![None, last.info.channels, None, None];
            graph.outputs.push(ValueInfo { name: last.value.clone(), dtype: Some(DType::F32), dims });
        }
        made.extend(graph.inputs.iter().map(|i| i.name.clone()));
        self.graph.nodes.iter().try_for_each(|node| self.check(model, node, &made))
    }

    pub fn format(&self) -> Format {
        Format::of(&self.graph, &self.operators)
    }

    /// Refuses a node that means something else than it would be run as. `known` are the values that there are beside
    /// the constants.
    fn check(&self, model: &Model, node: &Node, known: &HashSet<String>) -> Result<(), Error> {
        let fail = |reason: String| Err(model.unsupported(reason));
        let graph = &self.graph;
        if !node.is_standard() {
            return Err(refusal(model, node));
        }
        let known = |value: &String| value.is_empty() || known.contains(value) || graph.constants.contains_key(value);
        if let Some(missing) = node.inputs.iter().find(|i| !known(i)) {
            return match graph.unsupported.get(missing) {
                Some(code) => fail(format!(
                    "{} uses {missing:?} of type {}, which is not supported; store it in 8 bits or as floats",
                    node.label(),
                    type_name(*code)
                )),
                None => fail(format!("{} uses {missing:?}, which nothing makes: the file is damaged", node.label())),
            };
        }
        if node.is("BatchNormalization") {
            let outputs = node.outputs.iter().filter(|o| !o.is_empty()).count();
            let training = node.int("training_mode").unwrap_or(0) != 0
                || model.opset < 14 && outputs > 1
                || model.opset < 7 && node.int("is_test").unwrap_or(0) == 0;
            if training {
                let why = "normalises each picture by itself, as in training; export the network for inference, in \
                           PyTorch after model.eval()";
                return fail(format!("{} {why}", node.label()));
            }
        }
        if node.is("QuantizeLinear") {
            let code = node.int("output_dtype").filter(|code| *code != 0);
            let zero = node.input(2).and_then(|zero| graph.constants.get(zero)).map(|zero| zero.dtype as i64);
            if let Some(code) = zero.or(code).filter(|code| ![DType::U8 as i64, DType::I8 as i64].contains(code)) {
                let name = type_name(code as u64);
                let why = "8 bits are run: quantize with activations of UINT8 or INT8";
                return fail(format!("{} rounds a map to {name}; {why}", node.label()));
            }
        }
        Ok(())
    }
}

/// The node that alone reads a value, rounded or not.
fn reader_behind_rounding<'g>(index: &Index<'g>, value: &str) -> Option<&'g Node> {
    let reader = |value: &str| {
        let mut readers = index.readers(value);
        readers.next().filter(|_| readers.next().is_none())
    };
    let mut node = reader(value)?;
    for op in ["QuantizeLinear", "DequantizeLinear"] {
        if node.is(op) {
            node = reader(node.outputs.first()?)?;
        }
    }
    Some(node)
}

/// Why an operator of another domain is not run, and what to do.
fn refusal(model: &Model, node: &Node) -> Error {
    let domain = if node.domain.is_empty() { "ai.onnx" } else { &node.domain };
    let why = match domain {
        _ if node.function => {
            "a function that the file defines itself; inline it with onnx.inliner.inline_local_functions"
        }
        "com.microsoft" | "com.microsoft.nchwc" | "com.ms.internal.nhwc" => {
            "which ONNX Runtime writes when it saves a network after its own optimisations; give the file that it was \
             made from, or save it at the level ORT_ENABLE_BASIC"
        }
        _ => "which is not known; export the network with standard operators alone",
    };
    model.unsupported(format!("operator {} is of the domain {domain}, {why}", node.label()))
}
