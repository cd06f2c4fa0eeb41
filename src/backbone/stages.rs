//! Finds the residual stages of a ResNet by structure: sums of two computed values, grouped by stride and width.

use std::collections::HashMap;

use super::onnx::{Graph, Node};
use super::{Stage, Tap};

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
    for node in &graph.nodes {
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
            "Relu" | "Clip" | "LeakyRelu" | "PRelu" | "Sigmoid" | "HardSwish" | "Elu" | "BatchNormalization"
            | "Cast" | "Pad" | "QuantizeLinear" | "DequantizeLinear" | "Identity" | "Dropout" => known(0),
            "Add" | "Sub" | "Mul" | "Div" | "Sum" | "Max" | "Min" => {
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

fn is_residual_sum(node: &Node, maps: &HashMap<String, MapInfo>) -> bool {
    (node.is("Add") || node.is("Sum"))
        && node.inputs.len() == 2
        && node.inputs[0] != node.inputs[1]
        && node.inputs.iter().all(|i| maps.contains_key(i))
        && maps.contains_key(&node.outputs[0])
}

/// The stages in order: the last residual sum before the stride or the width changes, with the ReLU behind it.
/// Empty if the graph has no residual sums, or more stages than a ResNet.
pub fn find(graph: &Graph, maps: &HashMap<String, MapInfo>) -> Vec<StageOutput> {
    let mut last: Vec<(MapInfo, &Node)> = Vec::new();
    for node in graph.nodes.iter().filter(|n| !n.outputs.is_empty() && is_residual_sum(n, maps)) {
        let info = maps[&node.outputs[0]];
        match last.last_mut() {
            Some(end) if end.0 == info => end.1 = node,
            _ => last.push((info, node)),
        }
    }
    if last.len() > Stage::ALL.len() {
        return Vec::new();
    }
    let named = last.into_iter().zip(Stage::ALL);
    named
        .map(|((info, node), stage)| StageOutput { stage, value: behind_relu(graph, &node.outputs[0]), info })
        .collect()
}

/// The output of the ReLU that follows `value`, directly or behind a rounding; else `value`.
fn behind_relu(graph: &Graph, value: &str) -> String {
    let users = |value: &str| {
        let value = value.to_string();
        graph.nodes.iter().filter(move |n| n.inputs.contains(&value) && !n.outputs.is_empty())
    };
    let relu = |value: &str| users(value).find(|n| n.is("Relu") || n.is("Clip")).map(|n| n.outputs[0].clone());
    if let Some(found) = relu(value) {
        return found;
    }
    for q in users(value).filter(|n| n.is("QuantizeLinear")) {
        for dq in users(&q.outputs[0]).filter(|n| n.is("DequantizeLinear")) {
            if let Some(found) = relu(&dq.outputs[0]) {
                return found;
            }
        }
    }
    value.to_string()
}

/// The stages that a tap asks for; `Err` names those that there are.
pub fn select(found: &[StageOutput], tap: Option<&Tap>) -> Result<Vec<StageOutput>, Vec<Stage>> {
    let available = || found.iter().map(|s| s.stage).collect();
    match tap {
        None => found.last().map(|s| vec![s.clone()]).ok_or_else(available),
        Some(tap) => {
            let one = |stage: &Stage| found.iter().find(|s| s.stage == *stage).cloned();
            tap.stages().iter().map(one).collect::<Option<Vec<_>>>().ok_or_else(available)
        }
    }
}
