//! The quantized graph: `QuantizeLinear` and `DequantizeLinear` around float operators, as an ONNX file.

use std::collections::{HashMap, HashSet};

use super::points::Point;
use super::weights::{Layer, bias_name};
use crate::backbone::error::Error;
use crate::backbone::onnx::writer::{self, Dim, Initializer, Io};
use crate::backbone::onnx::{Attr, DType, Graph, Index, Model, Node, Tensor, ValueInfo};
use crate::backbone::passes::quant::Quant;

/// The least operator set with scales per channel.
const OPSET: i64 = 13;

/// The oldest operator set whose operators mean what they mean today, or can be rewritten so.
pub const OLDEST: i64 = 7;

/// Puts a rounding behind every point and 8-bit weights into every layer. `outputs` are the names that points have as
/// outputs of the graph.
pub fn quantized(
    float: &Graph,
    points: &[Point],
    quants: &HashMap<String, Quant>,
    layers: &HashMap<String, Layer>,
    outputs: &HashMap<String, String>,
) -> Graph {
    let mut graph = Graph { constants: float.constants.clone(), inputs: float.inputs.clone(), ..Graph::default() };
    let rounded: HashSet<&str> = points.iter().map(|p| p.value.as_str()).collect();
    let real = |value: &str| outputs.get(value).cloned().unwrap_or_else(|| format!("{value}/dequantized"));
    let mut emit = Emit { graph: &mut graph };
    for input in float.inputs.iter().filter(|i| rounded.contains(i.name.as_str())) {
        emit.point(&input.name, quants[&input.name], &real(&input.name));
    }
    for node in &float.nodes {
        let mut node = node.clone();
        for input in &mut node.inputs {
            if rounded.contains(input.as_str()) {
                *input = real(input);
            }
        }
        let made = node.outputs.clone();
        match made.first().and_then(|output| layers.get(output)) {
            Some(layer) => emit.layer(node, layer),
            None => emit.graph.nodes.push(node),
        }
        for value in made.iter().filter(|v| rounded.contains(v.as_str())) {
            emit.point(value, quants[value], &real(value));
        }
    }
    graph.outputs = float.outputs.clone();
    for output in &mut graph.outputs {
        if rounded.contains(output.name.as_str()) {
            output.name = real(&output.name);
        }
    }
    graph
}

struct Emit<'a> {
    graph: &'a mut Graph,
}

impl Emit<'_> {
    fn constant(&mut self, name: String, tensor: Tensor) -> String {
        self.graph.constants.insert(name.clone(), tensor);
        name
    }

    fn point(&mut self, value: &str, quant: Quant, real: &str) {
        let scale = self.constant(format!("{value}/scale"), Tensor::f32(vec![], &[quant.scale]));
        let zero = Tensor::from_bytes(DType::U8, vec![], vec![quant.zero]);
        let zero = self.constant(format!("{value}/zero_point"), zero);
        let rounded = format!("{value}/quantized");
        self.graph.nodes.push(Node::new("QuantizeLinear", &[value, &scale, &zero], &[&rounded]));
        self.graph.nodes.push(Node::new("DequantizeLinear", &[&rounded, &scale, &zero], &[real]));
    }

    fn layer(&mut self, mut conv: Node, layer: &Layer) {
        let (output, n) = (conv.outputs[0].clone(), layer.dims[0]);
        let name = |what: &str| format!("{output}/{what}");
        let weights = layer.weights.iter().map(|&w| w as u8).collect();
        let weights = Tensor::from_bytes(DType::I8, layer.dims.to_vec(), weights);
        let weights = self.constant(name("weight/quantized"), weights);
        let scales = self.constant(name("weight/scale"), Tensor::f32(vec![n], &layer.scales));
        let zero = Tensor::from_bytes(DType::I8, vec![n], vec![0; n]);
        let zero = self.constant(name("weight/zero_point"), zero);
        let bias = self.constant(bias_name(&conv), Tensor::i32(vec![n], &layer.bias_levels()));
        let bias_scales: Vec<f32> = layer.scales.iter().map(|s| layer.x_scale * s).collect();
        let bias_scales = self.constant(name("bias/scale"), Tensor::f32(vec![n], &bias_scales));
        let bias_zero = self.constant(name("bias/zero_point"), Tensor::i32(vec![n], &vec![0; n]));
        let (w, b) = (name("weight/dequantized"), name("bias/dequantized"));
        for (inputs, output) in [([&weights, &scales, &zero], &w), ([&bias, &bias_scales, &bias_zero], &b)] {
            let node = Node::new("DequantizeLinear", &inputs.map(String::as_str), &[output]);
            self.graph.nodes.push(node.with("axis", Attr::Int(0)));
        }
        for float in conv.inputs.drain(1..) {
            self.graph.constants.remove(&float);
        }
        conv.inputs.extend([w, b]);
        self.graph.nodes.push(conv);
    }
}

/// The graph as a file of its own: what its outputs need, at operator set 13 or the source's newer one.
///
/// # Errors
/// A node cannot be written.
pub fn file(model: &Model, graph: &Graph, metadata: Vec<(String, String)>) -> Result<writer::Model, Error> {
    let needed = Index::of(graph).needed(graph.outputs.iter().map(|o| o.name.as_str()));
    let mut nodes = Vec::new();
    let mut initializers = Vec::new();
    for (node, _) in graph.nodes.iter().zip(needed).filter(|(_, needed)| *needed) {
        let mut node = node.clone();
        // ONNX Runtime refuses two nodes of one name, which a graph output's own rounding would make.
        node.name = node.outputs.first().cloned().unwrap_or_default();
        if let Some((name, _)) = node.attrs.iter().find(|(_, a)| matches!(a, Attr::Tensor(_) | Attr::Other)) {
            let reason = format!("{} has an attribute {name} that cannot be copied; export it without", node.label());
            return Err(model.unsupported(reason));
        }
        if model.opset < OPSET {
            initializers.extend(renew(&mut node));
        }
        nodes.push(node);
    }
    let used: HashSet<&str> = nodes.iter().flat_map(|n| n.inputs.iter().map(String::as_str)).collect();
    let mut names: Vec<&String> = graph.constants.keys().filter(|name| used.contains(name.as_str())).collect();
    names.sort();
    for name in names {
        let tensor = &graph.constants[name];
        let bytes = model.read(tensor)?;
        initializers.push(Initializer { name: name.clone(), dtype: tensor.dtype, dims: tensor.dims.clone(), bytes });
    }
    let io = |info: &ValueInfo| {
        let dim = |(i, d): (usize, &Option<usize>)| match d {
            Some(n) => Dim::Fixed(*n),
            None => Dim::Named(if i == 0 { "N".into() } else { format!("{}_{i}", info.name) }),
        };
        let dims = info.dims.iter().enumerate().map(dim).collect();
        Io { name: info.name.clone(), dtype: info.dtype.unwrap_or(DType::F32), dims }
    };
    Ok(writer::Model {
        name: "quantized".into(),
        opsets: vec![(String::new(), model.opset.max(OPSET))],
        metadata,
        nodes,
        initializers,
        inputs: graph.inputs.iter().map(io).collect(),
        outputs: graph.outputs.iter().map(io).collect(),
    })
}

/// Rewrites a node of operator sets 7 to 12 as operator set 13 spells it; gives the constants that this takes.
fn renew(node: &mut Node) -> Vec<Initializer> {
    let name = |node: &Node, what: &str| format!("{}/{what}", node.outputs.first().map_or("", |o| o));
    let take = |node: &mut Node, what: &str| {
        let at = node.attrs.iter().position(|(n, _)| n == what)?;
        Some(node.attrs.remove(at).1)
    };
    let mut made = Vec::new();
    let mut push = |node: &mut Node, at: usize, constant: Initializer| {
        if node.inputs.len() <= at {
            node.inputs.resize(at + 1, String::new());
        }
        node.inputs[at] = constant.name.clone();
        made.push(constant);
    };
    match node.op.as_str() {
        "Clip" => {
            for (at, what) in [(1, "min"), (2, "max")] {
                if let Some(Attr::Float(bound)) = take(node, what) {
                    let constant = Initializer::f32(&name(node, what), &[], &[bound]);
                    push(node, at, constant);
                }
            }
        }
        "Pad" => {
            let value = take(node, "value");
            if let Some(Attr::Ints(list)) = take(node, "pads") {
                let constant = Initializer::i64(&name(node, "pads"), &[list.len()], &list);
                push(node, 1, constant);
            }
            if let Some(Attr::Float(value)) = value {
                let constant = Initializer::f32(&name(node, "value"), &[], &[value]);
                push(node, 2, constant);
            }
        }
        "BatchNormalization" => node.attrs.retain(|(n, _)| n == "epsilon" || n == "momentum"),
        _ => {}
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_nodes_have_one_name() {
        let input =
            ValueInfo { name: "x".into(), dtype: Some(DType::F32), dims: vec![None, Some(3), Some(8), Some(8)] };
        let output = ValueInfo { name: "y".into(), ..input.clone() };
        let relu = Node { name: "y".into(), ..Node::new("Relu", &["x"], &["y/real"]) };
        let nodes = vec![relu, Node::new("Abs", &["y/real"], &["y"])];
        let graph = Graph { nodes, inputs: vec![input], outputs: vec![output], ..Graph::default() };
        let file = file(&Model::empty(), &graph, Vec::new()).unwrap();
        assert_eq!(file.nodes.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["y/real", "y"]);
    }

    #[test]
    fn old_operators_are_spelled_anew() {
        let mut clip = Node::new("Clip", &["x"], &["y"]).with("min", Attr::Float(0.0)).with("max", Attr::Float(6.0));
        let made = renew(&mut clip);
        assert_eq!((clip.inputs.as_slice(), clip.attrs.len()), (&["x", "y/min", "y/max"].map(String::from)[..], 0));
        assert_eq!(made[1].bytes, 6f32.to_le_bytes());
        let mut clip = Node::new("Clip", &["x"], &["y"]).with("max", Attr::Float(6.0));
        renew(&mut clip);
        assert_eq!(clip.inputs, ["x", "", "y/max"]);
    }
}
