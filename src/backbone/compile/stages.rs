//! Finds the residual stages of a ResNet by structure: sums of two computed values, grouped by stride and width.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::backbone::error::Error;
use crate::backbone::onnx::{Graph, Index, Node};
use crate::backbone::passes::activations::{is_activation, is_arithmetic};
use crate::backbone::tap::{Stage, Tap};

/// What is known of a value that descends from the picture: a map at `1 / stride` of the input's size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MapInfo {
    pub stride: [usize; 2],
    pub channels: Option<usize>,
}

/// A stage and the value that is its output, before any quantization of it.
#[derive(Debug, Clone, PartialEq)]
pub struct StageOutput {
    pub stage: Stage,
    pub value: String,
    pub info: MapInfo,
}

/// Follows the picture through the operators that keep it a map. `input` is the graph's picture.
pub fn maps(graph: &Graph, input: &str) -> HashMap<String, MapInfo> {
    let mut maps = HashMap::from([(input.to_string(), MapInfo { stride: [1, 1], channels: Some(3) })]);
    let mut widths: HashMap<&str, usize> = HashMap::new();
    for node in graph.nodes.iter().filter(|n| n.is_standard()) {
        let (Some(output), Some(first)) = (node.outputs.first(), node.input(0)) else { continue };
        let width = graph.constants.get(first).and_then(|t| t.dims.first().copied()).or(widths.get(first).copied());
        if let (Some(width), true) = (width, node.is("DequantizeLinear") || node.is("QuantizeLinear")) {
            widths.insert(output, width);
            continue;
        }
        let known = |i: usize| node.input(i).and_then(|name| maps.get(name)).copied();
        let strided = |mut info: MapInfo| {
            if let Some(&[h, w]) = node.ints("strides") {
                info.stride = [scaled(info.stride[0], h), scaled(info.stride[1], w)];
            }
            info
        };
        let info = match node.op.as_str() {
            "Conv" => known(0).map(|info| {
                let weight = node.input(1).unwrap_or_default();
                let constant = graph.constants.get(weight).and_then(|t| t.dims.first().copied());
                MapInfo { channels: constant.or(widths.get(weight).copied()), ..strided(info) }
            }),
            "MaxPool" | "AveragePool" => known(0).map(strided),
            "BatchNormalization" | "Cast" | "Pad" | "QuantizeLinear" | "DequantizeLinear" | "Identity" | "Dropout" => {
                known(0)
            }
            op if is_activation(op) => known(0),
            op if is_arithmetic(op) => {
                let mut all = (0..node.inputs.len()).filter_map(known);
                let one = all.next();
                one.filter(|one| all.all(|other| other == *one))
            }
            _ => None,
        };
        if let Some(info) = info {
            maps.insert(output.clone(), info);
        }
    }
    maps
}

fn scaled(stride: usize, by: i64) -> usize {
    stride.saturating_mul(usize::try_from(by).unwrap_or(1).max(1))
}

/// Of every value that is computed value by value of one other alone (an activation, or one spelled out in
/// arithmetic with single constants), that other; roundings pass.
struct Origins<'g>(HashMap<&'g str, &'g str>);

impl<'g> Origins<'g> {
    fn of(graph: &'g Graph) -> Origins<'g> {
        let mut origins = Origins(HashMap::new());
        let single = graph.constants.iter().filter(|(_, tensor)| tensor.len() == 1);
        let mut single: HashSet<&str> = single.map(|(name, _)| name.as_str()).collect();
        for node in graph.nodes.iter().filter(|n| n.is_standard()) {
            let (Some(output), Some(first)) = (node.outputs.first(), node.input(0)) else { continue };
            let rounding = is_rounding(node);
            if rounding && single.contains(first) {
                single.insert(output);
            } else if graph.constants.contains_key(first) && !single.contains(first) {
                continue;
            } else if rounding || is_activation(&node.op) {
                origins.0.insert(output, origins.get(first));
            } else if is_arithmetic(&node.op) {
                let mut maps = node.inputs.iter().filter(|i| !single.contains(i.as_str())).map(|i| origins.get(i));
                if let Some(one) = maps.next()
                    && maps.all(|other| other == one)
                {
                    origins.0.insert(output, one);
                }
            }
        }
        origins
    }

    fn get(&self, value: &'g str) -> &'g str {
        self.0.get(value).copied().unwrap_or(value)
    }
}

fn is_rounding(node: &Node) -> bool {
    node.is("QuantizeLinear") || node.is("DequantizeLinear")
}

/// Whether a node adds two maps of which neither is an activation of the other.
fn is_residual_sum(node: &Node, maps: &HashMap<String, MapInfo>, origins: &Origins) -> bool {
    (node.is("Add") || node.is("Sum"))
        && node.inputs.len() == 2
        && node.inputs.iter().all(|i| maps.contains_key(i))
        && origins.get(&node.inputs[0]) != origins.get(&node.inputs[1])
        && node.outputs.first().is_some_and(|output| maps.contains_key(output))
}

/// The stages in order: the last residual sum before the stride or the width changes, with the activation behind it.
/// Empty if the graph has no residual sums, or more stages than a ResNet.
pub fn find(graph: &Graph, maps: &HashMap<String, MapInfo>) -> Vec<StageOutput> {
    let origins = Origins::of(graph);
    let mut last: Vec<(MapInfo, &Node)> = Vec::new();
    for node in graph.nodes.iter().filter(|n| is_residual_sum(n, maps, &origins)) {
        let info = maps[&node.outputs[0]];
        match last.last_mut() {
            Some(end) if end.0 == info => end.1 = node,
            _ => last.push((info, node)),
        }
    }
    // Keras' ResNetV2 makes the last block of a stage the strided one, and widens in the first of the next.
    let strided_last = |three: &[(MapInfo, &Node)]| {
        let [a, b, c] = [three[0].0, three[1].0, three[2].0];
        a.channels == b.channels && a.stride != b.stride && b.channels != c.channels && b.stride == c.stride
    };
    if last.windows(3).any(strided_last) {
        last.reverse();
        last.dedup_by_key(|(info, _)| info.channels);
        last.reverse();
    }
    if last.len() > Stage::ALL.len() {
        return Vec::new();
    }
    let index = Index::of(graph);
    let mut made: HashMap<&str, Vec<&Node>> = HashMap::new();
    for node in &graph.nodes {
        if let Some(origin) = node.outputs.first().and_then(|output| origins.0.get(output.as_str())) {
            made.entry(*origin).or_default().push(node);
        }
    }
    let named = last.into_iter().zip(Stage::ALL);
    named
        .map(|((info, node), stage)| {
            let sum = node.outputs[0].as_str();
            let value = behind_activation(made.get(sum).map_or(&[], Vec::as_slice), &index, sum).to_string();
            StageOutput { stage, value, info }
        })
        .collect()
}

/// The last value that is made of `sum` alone, value by value, and through which everything passes that reads `sum`;
/// `sum` itself where that is read directly. A rounding at the end does not belong to it. `made` is what is made of it.
fn behind_activation<'g>(made: &[&'g Node], index: &Index, sum: &'g str) -> &'g str {
    // How many readers of each value that is made of the sum are still to come, and of how many values there are any.
    let mut left: HashMap<&str, usize> = HashMap::from([(sum, index.readers(sum).count())]);
    let mut open = usize::from(left[sum] > 0);
    let mut end = sum;
    for node in made {
        let mut inputs: Vec<&str> = node.inputs.iter().map(String::as_str).collect();
        inputs.sort_unstable();
        inputs.dedup();
        for value in inputs {
            if let Some(left) = left.get_mut(value).filter(|left| **left > 0) {
                *left -= 1;
                open -= usize::from(*left == 0);
            }
        }
        let output = node.outputs[0].as_str();
        if !is_rounding(node) && open == 0 {
            end = output;
        }
        let count = index.readers(output).count();
        if left.insert(output, count).is_none() {
            open += usize::from(count > 0);
        }
    }
    end
}

/// The values `taps` and the roundings right behind them, which say how a tap's convolution is scaled.
pub fn with_roundings<'g>(graph: &'g Graph, taps: &[&'g str]) -> Vec<&'g str> {
    let rounds = |n: &&Node| n.is("QuantizeLinear") && n.input(0).is_some_and(|x| taps.contains(&x));
    let rounded = graph.nodes.iter().filter(rounds).filter_map(|n| n.outputs.first()).map(String::as_str);
    taps.iter().copied().chain(rounded).collect()
}

/// The stages that a tap asks for, of the backbone at `path`; the last one without a tap.
///
/// # Errors
/// [`Error::NoTap`], which names those that there are.
pub fn select(path: &Path, found: &[StageOutput], tap: Option<&Tap>) -> Result<Vec<StageOutput>, Error> {
    let selected = match tap {
        None => found.last().map(|s| vec![s.clone()]),
        Some(tap) => {
            let one = |stage: &Stage| found.iter().find(|s| s.stage == *stage).cloned();
            tap.stages().iter().map(one).collect()
        }
    };
    selected.ok_or_else(|| {
        let available: Vec<String> = found.iter().map(|output| output.stage.to_string()).collect();
        let available = match available.is_empty() {
            true => "no residual stages: it is not a ResNet".into(),
            false => available.join(", "),
        };
        let wanted = tap.map_or_else(|| "at all".into(), Tap::to_string);
        Error::NoTap { path: path.into(), wanted, available }
    })
}
