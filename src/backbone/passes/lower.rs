//! Brings the ways in which exporters write the same network to one form: float operators between
//! `QuantizeLinear` and `DequantizeLinear`.

use std::collections::{HashMap, HashSet};

use crate::backbone::onnx::{Attr, DType, Graph, Node, Tensor};

/// How the file says what it computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Float,
    Qdq,
    QOperator,
}

impl Format {
    /// Of a lowered graph; `operators` holds what [`q_operators`] gave before.
    pub fn of(graph: &Graph, operators: &HashSet<String>) -> Format {
        if graph.nodes.iter().flat_map(|n| &n.outputs).any(|output| operators.contains(output)) {
            Format::QOperator
        } else if graph.nodes.iter().any(|n| n.is("QuantizeLinear") || n.is("DequantizeLinear")) {
            Format::Qdq
        } else {
            Format::Float
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Format::Float => "float",
            Format::Qdq => "QDQ",
            Format::QOperator => "QOperator",
        }
    }
}

/// What the operators of QOperator files make.
pub fn q_operators(graph: &Graph) -> HashSet<String> {
    graph.nodes.iter().filter(|n| n.op.starts_with("QLinear")).flat_map(|n| n.outputs.iter().cloned()).collect()
}

/// Rewrites the graph:
/// - `Identity` and `Dropout` disappear, as does a `Cast` between real numbers, which are all f32 here;
/// - `QLinearConv`, `QLinearAdd` and their like become dequantize, float operator, quantize;
/// - `FusedConv`, as ONNX Runtime saves it, becomes convolution, sum, activation;
/// - a `MaxPool` on quantized values moves between a dequantize and a quantize;
/// - a zero point that is left out is written out, of the type that `output_dtype` says.
///
/// Operators with other vendor names stay as they are.
pub fn lower(graph: Graph, opset: i64) -> Graph {
    let Graph { nodes, constants, unsupported, inputs, outputs } = graph;
    let mut lowering =
        Lowering { nodes: Vec::new(), constants, opset, renamed: HashMap::new(), quantized: HashMap::new() };
    for mut node in nodes {
        for input in &mut node.inputs {
            if let Some(name) = lowering.renamed.get(input) {
                *input = name.clone();
            }
        }
        let from_real = |node: &Node| node.input(0).is_some_and(|x| !lowering.quantized.contains_key(x));
        let through = node.is("Identity")
            || node.is("Dropout")
            || (node.is("Cast") && matches!(node.int("to"), Some(1 | 10 | 16)) && from_real(&node));
        match (through, node.inputs.first(), node.outputs.first()) {
            (true, Some(input), Some(output)) => _ = lowering.renamed.insert(output.clone(), input.clone()),
            _ => lowering.push(node),
        }
    }
    let outputs = outputs.into_iter().map(|mut o| {
        if let Some(name) = lowering.renamed.get(&o.name) {
            o.name = name.clone();
        }
        o
    });
    Graph { outputs: outputs.collect(), inputs, nodes: lowering.nodes, constants: lowering.constants, unsupported }
}

struct Lowering {
    nodes: Vec<Node>,
    constants: HashMap<String, Tensor>,
    opset: i64,
    renamed: HashMap<String, String>,
    /// Scale and zero point of every quantized value.
    quantized: HashMap<String, [String; 2]>,
}

impl Lowering {
    fn dequantize(&mut self, [value, scale, zero]: [&str; 3], suffix: &str, axis: Option<i64>) -> String {
        let output = format!("{value}/dequantized{suffix}");
        let mut node = Node::new("DequantizeLinear", &[value, scale, zero], &[&output]);
        if let Some(axis) = axis {
            node = node.with("axis", Attr::Int(axis));
        }
        self.nodes.push(node);
        output
    }

    fn quantize(&mut self, value: &str, scale: &str, zero: &str, output: &str) {
        self.nodes.push(Node::new("QuantizeLinear", &[value, scale, zero], &[output]));
        self.quantized.insert(output.into(), [scale.into(), zero.into()]);
    }

    fn constant(&mut self, name: String, dtype: DType, bytes: &[u8]) -> String {
        self.constants.insert(name.clone(), Tensor::from_bytes(dtype, vec![], bytes.to_vec()));
        name
    }

    fn push(&mut self, mut node: Node) {
        let microsoft = node.domain == "com.microsoft" && !node.function;
        if microsoft && matches!(node.op.as_str(), "QuantizeLinear" | "DequantizeLinear") {
            node.domain.clear();
        }
        let arg = |i: usize| node.input(i).unwrap_or_default().to_string();
        let output = node.outputs.first().cloned().unwrap_or_default();
        let (suffix, real) = (format!("/{output}"), format!("{output}/real"));
        let attrs: Vec<_> = node.attrs.iter().filter(|(name, _)| name != "channels_last").cloned().collect();
        let op = |inputs: &[&str], op: &str| Node { attrs: attrs.clone(), ..Node::new(op, inputs, &[&real]) };
        let channels_first = node.int("channels_last").unwrap_or(0) == 0;
        // How many inputs are maps or weights; each has a scale and a zero point, as has the output behind them.
        let quantized = match node.op.as_str() {
            "QLinearConv" if node.is("QLinearConv") => 2,
            "QLinearAdd" | "QLinearMul" if microsoft => 2,
            "QLinearLeakyRelu" | "QLinearSigmoid" if microsoft => 1,
            "QLinearAveragePool" | "QLinearGlobalAveragePool" if microsoft && channels_first => 1,
            _ => 0,
        };
        if quantized > 0 && node.inputs.len() > 3 * quantized {
            let is_conv = node.op == "QLinearConv";
            let mut inputs = vec![self.dequantize([&arg(0), &arg(1), &arg(2)], &suffix, None)];
            if quantized > 1 {
                let axis = is_conv.then_some(0);
                inputs.push(self.dequantize([&arg(3), &arg(4), &arg(5)], &format!("{suffix}/b"), axis));
            }
            // The bias is int32 at scale x_scale * w_scale; it stays a third input that is not dequantized.
            inputs.extend(node.input(8).filter(|_| is_conv).map(String::from));
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            self.nodes.push(op(&inputs, node.op.trim_start_matches("QLinear")));
            self.quantize(&real, &arg(3 * quantized), &arg(3 * quantized + 1), &output);
        } else if microsoft && node.op == "FusedConv" {
            self.fused_conv(node, output);
        } else if node.is("MaxPool")
            && let Some([scale, zero]) = self.quantized.get(&arg(0)).cloned()
        {
            let x = self.dequantize([&arg(0), &scale, &zero], &suffix, None);
            self.nodes.push(op(&[&x], "MaxPool"));
            self.quantize(&real, &scale, &zero, &output);
        } else {
            if node.is("QuantizeLinear") && node.inputs.len() >= 2 {
                let dtype = match node.int("output_dtype").unwrap_or(0) {
                    0 | 2 => Some(DType::U8),
                    3 => Some(DType::I8),
                    _ => None,
                };
                if let (None, Some(dtype)) = (node.input(2), dtype) {
                    let zero = self.constant(format!("{output}/zero_point"), dtype, &[0]);
                    node.inputs.truncate(2);
                    node.inputs.push(zero);
                    node.attrs.retain(|(name, _)| name != "output_dtype");
                }
                self.quantized.insert(output, [node.inputs[1].clone(), node.input(2).unwrap_or_default().into()]);
            } else if node.is("DequantizeLinear")
                && node.input(2).is_none()
                && let Some([_, zero]) = self.quantized.get(node.input(0).unwrap_or_default())
            {
                node.inputs.truncate(2);
                node.inputs.push(zero.clone());
            }
            self.nodes.push(node);
        }
    }

    /// A convolution, what is added to it, an activation with its parameters.
    fn fused_conv(&mut self, mut node: Node, output: String) {
        let name = node.text("activation").unwrap_or_default().to_string();
        let parameters = match node.attr("activation_params") {
            Some(Attr::Floats(list)) => list.clone(),
            _ => Vec::new(),
        };
        let named = |names: &[&str]| -> Vec<(String, Attr)> {
            names.iter().zip(&parameters).map(|(name, v)| (name.to_string(), Attr::Float(*v))).collect()
        };
        let mut inputs: Vec<String> = Vec::new();
        let attrs = match name.as_str() {
            "" | "Relu" | "Sigmoid" | "Tanh" => Vec::new(),
            "LeakyRelu" => named(&["alpha"]),
            "HardSigmoid" => named(&["alpha", "beta"]),
            "Clip" if self.opset < 11 => named(&["min", "max"]),
            "Clip" => {
                for (bound, value) in ["min", "max"].iter().zip(&parameters) {
                    inputs.push(self.constant(format!("{output}/{bound}"), DType::F32, &value.to_le_bytes()));
                }
                Vec::new()
            }
            _ => return self.nodes.push(node),
        };
        let mut made = format!("{output}/convolution");
        let summand = node.input(3).map(str::to_string);
        node.op = "Conv".into();
        node.domain.clear();
        node.inputs.truncate(3);
        node.attrs.retain(|(name, _)| !name.starts_with("activation"));
        node.outputs = vec![made.clone()];
        self.nodes.push(node);
        if let Some(summand) = summand {
            let sum = format!("{output}/sum");
            self.nodes.push(Node::new("Add", &[&made, &summand], &[&sum]));
            made = sum;
        }
        if name.is_empty() {
            self.renamed.insert(output, made);
            return;
        }
        inputs.insert(0, made);
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.nodes.push(Node { attrs, ..Node::new(&name, &inputs, &[&output]) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::onnx::ValueInfo;

    fn lowered(nodes: Vec<Node>) -> Graph {
        let input = ValueInfo { name: "x".into(), dtype: None, dims: vec![None, Some(3), Some(8), Some(8)] };
        lower(Graph { nodes, inputs: vec![input], ..Graph::default() }, 13)
    }

    #[test]
    fn identity_dropout_and_casts_disappear() {
        let low = lowered(vec![
            Node::new("Cast", &["x"], &["h"]).with("to", Attr::Int(10)),
            Node::new("Identity", &["h"], &["i"]),
            Node::new("Dropout", &["i"], &["d", "mask"]),
            Node::new("Relu", &["d"], &["y"]),
        ]);
        assert_eq!(low.nodes, [Node::new("Relu", &["x"], &["y"])]);
    }

    #[test]
    fn a_zero_point_that_is_left_out_has_the_type_that_is_said() {
        let quantize = Node::new("QuantizeLinear", &["x", "s"], &["q"]).with("output_dtype", Attr::Int(3));
        let low = lowered(vec![
            quantize,
            Node::new("MaxPool", &["q"], &["m"]),
            Node::new("DequantizeLinear", &["m", "s"], &["d"]),
        ]);
        assert!(low.nodes.iter().filter(|n| n.op != "MaxPool").all(|n| n.inputs[2] == "q/zero_point"));
        assert_eq!(low.constants["q/zero_point"].dtype, DType::I8);
    }

    #[test]
    fn a_fused_convolution_comes_apart() {
        let mut fused = Node::new("FusedConv", &["x", "w", "b", "z"], &["y"])
            .with("group", Attr::Int(1))
            .with("activation", Attr::Str("Clip".into()))
            .with("activation_params", Attr::Floats(vec![0.0, 6.0]));
        fused.domain = "com.microsoft".into();
        let low = lowered(vec![fused]);
        let conv = Node { name: "y".into(), ..Node::new("Conv", &["x", "w", "b"], &["y/convolution"]) };
        let sum = Node::new("Add", &["y/convolution", "z"], &["y/sum"]);
        let clip = Node::new("Clip", &["y/sum", "y/min", "y/max"], &["y"]);
        assert_eq!(low.nodes, [conv.with("group", Attr::Int(1)), sum, clip]);
    }

    #[test]
    fn q_operators_become_q_dq() {
        let mut add = Node::new("QLinearAdd", &["a", "as", "az", "b", "bs", "bz", "cs", "cz"], &["c"]);
        add.domain = "com.microsoft".into();
        let low = lowered(vec![
            Node::new("QuantizeLinear", &["x", "as", "az"], &["a"]),
            Node::new("QLinearConv", &["a", "as", "az", "w", "ws", "wz", "bs", "bz", "bias"], &["b"]),
            add,
            Node::new("MaxPool", &["c"], &["m"]),
        ]);
        let ops: Vec<&str> = low.nodes.iter().map(|n| n.op.as_str()).collect();
        let (d, q) = ("DequantizeLinear", "QuantizeLinear");
        assert_eq!(ops, [q, d, d, "Conv", q, d, d, "Add", q, d, "MaxPool", q]);
        assert_eq!(low.nodes.last().unwrap().inputs[1..], ["cs", "cz"]);
    }
}
