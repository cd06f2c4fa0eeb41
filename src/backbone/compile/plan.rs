//! Decides which part of a lowered graph becomes which operator: the fused int8 ones where a pattern is recognised,
//! tract's own for the rest.

use std::collections::{HashMap, HashSet};

use super::stages::{self, MapInfo};
use crate::backbone::error::Error;
use crate::backbone::onnx::{DType, Graph, Index, Model, Node};
use crate::backbone::passes::activations::Activations;
use crate::backbone::passes::quant::{ConstantDequantize, Quant};

/// The second summand of a residual sum: a quantized value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sum<'g> {
    pub other: &'g str,
    /// Quantization of the convolution's own output, whose range clamps it; None if the file does not round it.
    pub own: Option<Quant>,
}

/// A convolution with all that is fused into it.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvStep<'g> {
    pub node: &'g Node,
    /// Quantized input.
    pub x: &'g str,
    pub sum: Option<Sum<'g>>,
    /// Least and greatest real value behind the activation.
    pub bounds: [f32; 2],
    /// The name of the quantized output, of the real value that it rounds, and of that in front of the activation.
    pub output: &'g str,
    pub real: &'g str,
    pub source: &'g str,
}

/// One operator of the model that is built.
#[derive(Debug, Clone, PartialEq)]
pub enum Step<'g> {
    /// Picture -> quantized value, by table.
    Picture {
        output: &'g str,
    },
    Conv(ConvStep<'g>),
    MaxPool {
        node: &'g Node,
        x: &'g str,
        output: &'g str,
    },
    /// A float value of the fallback -> quantized value.
    Quantize {
        value: &'g str,
        output: &'g str,
    },
    /// A subgraph that tract runs, in float.
    Fallback(Vec<&'g Node>),
}

/// The steps in an order in which they can run.
#[derive(Debug, Clone)]
pub struct Plan<'g> {
    pub steps: Vec<Step<'g>>,
    /// Every quantized value that lives as u8 NHWC, by name.
    pub quants: HashMap<&'g str, Quant>,
    /// The quantized value behind each `DequantizeLinear`.
    pub dequantized: HashMap<&'g str, &'g str>,
    /// What is run, with the taps as outputs.
    pub index: Index<'g>,
}

struct Planner<'g> {
    model: &'g Model,
    graph: &'g Graph,
    index: Index<'g>,
    activations: Activations<'g>,
    quants: HashMap<&'g str, Quant>,
    dequantized: HashMap<&'g str, &'g str>,
}

/// Plans everything that the values `taps` need. `input` is the picture, `maps` what descends from it.
pub fn plan<'g>(
    model: &'g Model,
    graph: &'g Graph,
    input: &'g str,
    maps: &HashMap<String, MapInfo>,
    taps: &[&'g str],
) -> Result<Plan<'g>, Error> {
    let index = Index::of(graph);
    let needed = index.needed(stages::with_roundings(graph, taps));
    let index = index.restricted(&needed, taps);
    let needed: Vec<&Node> = graph.nodes.iter().zip(needed).filter(|(_, needed)| *needed).map(|(n, _)| n).collect();
    let activations = Activations::of(model, graph)?;
    let (quants, dequantized) = (HashMap::new(), HashMap::new());
    let mut planner = Planner { model, graph, index, activations, quants, dequantized };
    planner.find_quantized(&needed, maps)?;
    planner.steps(&needed, input)
}

impl<'g> Planner<'g> {
    /// The quantization that a Q or DQ node states, None unless it is one constant scale and zero point.
    fn quant(&self, node: &Node) -> Result<Option<Quant>, Error> {
        let constant = |i: usize| node.input(i).map(|name| self.graph.constants.get(name));
        let Some(Some(scale)) = constant(1) else { return Ok(None) };
        let shift = match constant(2) {
            None => 0,
            Some(Some(zero)) if zero.len() == 1 && zero.dtype == DType::U8 => 0,
            Some(Some(zero)) if zero.len() == 1 && zero.dtype == DType::I8 => 128,
            _ => return Ok(None),
        };
        if scale.len() != 1 || scale.dtype != DType::F32 {
            return Ok(None);
        }
        let scale = self.model.read_f32(scale)?[0];
        let zero = match constant(2) {
            Some(Some(zero)) => self.model.read_i32(zero)?[0] + shift,
            _ => 0,
        };
        if !(scale.is_finite() && scale > 0.0) {
            return Err(self.model.invalid(format!("{}: its scale is {scale}, not a positive number", node.label())));
        }
        Ok(Some(Quant { scale, zero: zero.clamp(0, 255) as u8 }))
    }

    /// Quantized maps that are read by `DequantizeLinear` alone, at the same scale.
    fn find_quantized(&mut self, needed: &[&'g Node], maps: &HashMap<String, MapInfo>) -> Result<(), Error> {
        for node in needed.iter().filter(|n| n.is("QuantizeLinear") && maps.contains_key(&n.outputs[0])) {
            let output = node.outputs[0].as_str();
            let Some(quant) = self.quant(node)? else { continue };
            let consumers = self.index.consumers(output).iter().map(|&at| &self.graph.nodes[at]);
            let mut all = true;
            for node in consumers.clone() {
                all &= node.is("DequantizeLinear") && self.quant(node)? == Some(quant);
            }
            if all && !self.index.is_output(output) {
                self.dequantized.extend(consumers.map(|node| (node.outputs[0].as_str(), output)));
                self.quants.insert(output, quant);
            }
        }
        Ok(())
    }

    /// The quantized value that `value` is, dequantized.
    fn quantized(&self, value: Option<&str>) -> Option<&'g str> {
        self.dequantized.get(value?).copied()
    }

    /// Whether the int8 kernels can compute a convolution: group 1, s8 weights with zero point 0, constant bias.
    fn is_int8_conv(&self, node: &Node) -> Result<bool, Error> {
        if !node.is("Conv") || node.int("group").unwrap_or(1) != 1 || self.quantized(node.input(0)).is_none() {
            return Ok(false);
        }
        if !matches!(node.text("auto_pad"), None | Some("NOTSET" | "VALID")) {
            return Ok(false);
        }
        let Some(weight) = node.input(1) else { return Ok(false) };
        let Some(dq) = ConstantDequantize::of(self.model, self.graph, weight)? else { return Ok(false) };
        let per_channel = dq.scale.len() == 1 || dq.axis == 0;
        let symmetric = dq.zero.iter().all(|&z| z == 0);
        let bias = match node.input(2) {
            None => true,
            Some(bias) => match self.graph.constants.get(bias) {
                Some(tensor) => matches!(tensor.dtype, DType::I32 | DType::F32),
                None => ConstantDequantize::of(self.model, self.graph, bias)?
                    .is_some_and(|dq| dq.tensor.dtype == DType::I32 && dq.zero.iter().all(|&z| z == 0)),
            },
        };
        Ok(dq.tensor.dtype == DType::I8 && dq.tensor.dims.len() == 4 && per_channel && symmetric && bias)
    }

    /// The fused step that makes the quantized value of node `q`, with the other nodes that it covers.
    fn fuse(&self, q: &'g Node) -> Result<Option<(ConvStep<'g>, Vec<&'g Node>)>, Error> {
        let (real, output) = (q.inputs[0].as_str(), q.outputs[0].as_str());
        let (source, bounds) = self.activations.source(real, |x| {
            let producer = self.index.producer(x);
            let fused = producer.is_some_and(|n| n.is("Conv") || n.is("Add") || n.is("Sum"));
            fused && self.index.sole_consumer(x).is_some()
        });
        let Some(node) = self.index.producer(source) else { return Ok(None) };
        // What rounds to `output` may be a tap, and may be read by nothing else.
        if self.index.consumers(real).len() > 1 {
            return Ok(None);
        }
        if self.is_int8_conv(node)? {
            let Some(x) = self.quantized(node.input(0)) else { return Ok(None) };
            return Ok(Some((ConvStep { node, x, sum: None, bounds, output, real, source }, vec![node])));
        }
        if !(node.is("Add") || node.is("Sum")) || node.inputs.len() != 2 {
            return Ok(None);
        }
        let mut best: Option<(Option<usize>, ConvStep<'g>, Vec<&'g Node>)> = None;
        for (own, other) in [(0, 1), (1, 0)] {
            let Some(other) = self.quantized(node.input(other)) else { continue };
            let Some((conv, rounding)) = self.own_conv(&node.inputs[own])? else { continue };
            if rounding.map(|r| r.outputs[0].as_str()) == Some(other) {
                continue;
            }
            let Some(x) = self.quantized(conv.input(0)) else { continue };
            let own = rounding.and_then(|r| self.quants.get(r.outputs[0].as_str()).copied());
            let step = ConvStep { node: conv, x, sum: Some(Sum { other, own }), bounds, output, real, source };
            let covered = [conv, node].into_iter().chain(rounding).collect();
            let at = self.index.position(&conv.outputs[0]);
            // Of two convolutions the later one takes the sum: the earlier one's output is then ready.
            if best.as_ref().is_none_or(|b| b.0 < at) {
                best = Some((at, step, covered));
            }
        }
        Ok(best.map(|(_, step, covered)| (step, covered)))
    }

    /// The convolution whose output is the summand `value`, used for nothing else, and the Q between if there is one.
    fn own_conv(&self, value: &'g str) -> Result<Option<(&'g Node, Option<&'g Node>)>, Error> {
        let (made, rounding) = match self.quantized(Some(value)) {
            None => (value, None),
            Some(quantized) => {
                let Some(q) = self.index.producer(quantized) else { return Ok(None) };
                if self.index.sole_consumer(quantized).is_none() || self.index.sole_consumer(value).is_none() {
                    return Ok(None);
                }
                (q.inputs[0].as_str(), Some(q))
            }
        };
        let Some(conv) = self.index.producer(made) else { return Ok(None) };
        Ok((self.index.sole_consumer(made).is_some() && self.is_int8_conv(conv)?).then_some((conv, rounding)))
    }

    fn is_int8_pool(&self, node: &Node, q: &Node) -> bool {
        node.is("MaxPool")
            && node.outputs.len() == 1
            && node.int("ceil_mode").unwrap_or(0) == 0
            && node.ints("dilations").is_none_or(|d| d.iter().all(|&d| d == 1))
            && matches!(node.text("auto_pad"), None | Some("NOTSET" | "VALID"))
            && node.ints("kernel_shape").is_some_and(|k| k.len() == 2)
            && self.index.consumers(&node.outputs[0]).len() == 1
            && self.quantized(node.input(0)).and_then(|x| self.quants.get(x)) == self.quants.get(q.outputs[0].as_str())
    }

    fn steps(mut self, needed: &[&'g Node], input: &'g str) -> Result<Plan<'g>, Error> {
        let mut fused: HashMap<*const Node, Step<'g>> = HashMap::new();
        let mut covered: HashSet<*const Node> = HashSet::new();
        // From the end, so that a sum takes its convolution before the convolution's own rounding claims it.
        for &q in needed.iter().rev() {
            let at: *const Node = q;
            if !q.is("QuantizeLinear") || !self.quants.contains_key(q.outputs[0].as_str()) || covered.contains(&at) {
                continue;
            }
            let output = q.outputs[0].as_str();
            let value = q.inputs[0].as_str();
            let step = if let Some((step, nodes)) = self.fuse(q)? {
                covered.extend(nodes.iter().map(|n| *n as *const Node));
                let mut real = step.real;
                while real != step.source
                    && let Some(node) = self.index.producer(real)
                {
                    covered.insert(node as *const Node);
                    real = node.inputs[0].as_str();
                }
                Step::Conv(step)
            } else if let Some(node) = self.index.producer(value).filter(|n| self.is_int8_pool(n, q)) {
                covered.insert(node as *const Node);
                let Some(x) = self.quantized(node.input(0)) else { continue };
                Step::MaxPool { node, x, output }
            } else if value == input {
                Step::Picture { output }
            } else {
                Step::Quantize { value, output }
            };
            fused.insert(at, step);
        }
        // A rounding that disappeared into a sum makes no value any more.
        let gone = |q: &str| self.index.producer(q).is_some_and(|n| covered.contains(&(n as *const Node)));
        let lost: Vec<&str> = self.quants.keys().copied().filter(|q| gone(q)).collect();
        for q in lost {
            self.quants.remove(q);
        }
        let mut levels: HashMap<&str, usize> = HashMap::from([(input, 0)]);
        let mut by_level: Vec<(Vec<&'g Node>, Vec<Step<'g>>)> = Vec::new();
        for &node in needed {
            let at: *const Node = node;
            let weight = node.is("DequantizeLinear") && !levels.contains_key(node.inputs[0].as_str());
            if weight || covered.contains(&at) {
                continue;
            }
            let level_of = |value: &str| levels.get(value).copied().unwrap_or(0);
            if let Some(quantized) = self.dequantized.get(node.outputs[0].as_str()) {
                if self.quants.contains_key(quantized) {
                    levels.insert(&node.outputs[0], level_of(quantized) + 1);
                }
                continue;
            }
            let (level, step) = match fused.remove(&at) {
                Some(step) => {
                    let level = match &step {
                        Step::Conv(conv) => level_of(conv.x).max(conv.sum.as_ref().map_or(0, |s| level_of(s.other))),
                        Step::MaxPool { x, .. } => level_of(x),
                        Step::Quantize { value, .. } => level_of(value),
                        Step::Picture { .. } | Step::Fallback(_) => 0,
                    };
                    if let Step::Conv(conv) = &step {
                        levels.insert(conv.real, level);
                    }
                    (level, Some(step))
                }
                None => (node.inputs.iter().map(|v| level_of(v)).max().unwrap_or(0), None),
            };
            levels.extend(node.outputs.iter().map(|o| (o.as_str(), level)));
            if by_level.len() <= level {
                by_level.resize_with(level + 1, Default::default);
            }
            match step {
                Some(step) => by_level[level].1.push(step),
                None => by_level[level].0.push(node),
            }
        }
        let mut steps = Vec::new();
        for (fallback, fused) in by_level {
            if !fallback.is_empty() {
                steps.push(Step::Fallback(fallback));
            }
            steps.extend(fused);
        }
        Ok(Plan { steps, quants: self.quants, dequantized: self.dequantized, index: self.index })
    }
}
