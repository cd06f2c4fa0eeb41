//! Brings the ways in which exporters write the same network to one form: float operators between
//! `QuantizeLinear` and `DequantizeLinear`.

use std::collections::HashMap;

use super::onnx::{Attr, Graph, Node};

/// How the file says what it computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Float,
    Qdq,
    QOperator,
}

impl Format {
    pub fn of(graph: &Graph) -> Format {
        if graph.nodes.iter().any(|n| n.op.starts_with("QLinear")) {
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

/// Rewrites the graph:
/// - `Identity` and `Dropout` disappear, as does the `Transpose` behind an NHWC input;
/// - `QLinearConv`, `QLinearAdd` and `QLinear(Global)AveragePool` become dequantize, float operator, quantize;
/// - a `MaxPool` on quantized values moves between a dequantize and a quantize.
///
/// Operators with other vendor names stay as they are.
pub fn lower(graph: Graph) -> Graph {
    let mut lowering = Lowering { nodes: Vec::new(), renamed: HashMap::new(), quantized: HashMap::new() };
    let nhwc = nhwc_input(&graph);
    for mut node in graph.nodes {
        for input in &mut node.inputs {
            if let Some(name) = lowering.renamed.get(input) {
                *input = name.clone();
            }
        }
        let through = node.is("Identity")
            || node.is("Dropout")
            || (node.is("Transpose")
                && nhwc.is_some()
                && node.inputs.first() == nhwc.as_ref()
                && node.ints("perm") == Some(&[0, 3, 1, 2]));
        match (through, node.inputs.first(), node.outputs.first()) {
            (true, Some(input), Some(output)) => _ = lowering.renamed.insert(output.clone(), input.clone()),
            _ => lowering.push(node),
        }
    }
    let mut inputs = graph.inputs;
    for input in inputs.iter_mut().filter(|i| Some(&i.name) == nhwc.as_ref()) {
        if let [n, h, w, c] = input.dims[..] {
            input.dims = vec![n, c, h, w];
        }
    }
    let outputs = graph.outputs.into_iter().map(|mut o| {
        if let Some(name) = lowering.renamed.get(&o.name) {
            o.name = name.clone();
        }
        o
    });
    Graph { outputs: outputs.collect(), inputs, nodes: lowering.nodes, constants: graph.constants }
}

/// The input that is NHWC and used only through transposes to NCHW.
fn nhwc_input(graph: &Graph) -> Option<String> {
    let input = graph.inputs.iter().find(|i| matches!(i.dims[..], [_, _, _, Some(3)]) && i.dims[1] != Some(3))?;
    let mut users = graph.nodes.iter().filter(|n| n.inputs.contains(&input.name)).peekable();
    users.peek()?;
    users.all(|n| n.is("Transpose") && n.ints("perm") == Some(&[0, 3, 1, 2])).then(|| input.name.clone())
}

struct Lowering {
    nodes: Vec<Node>,
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

    fn push(&mut self, node: Node) {
        let microsoft = node.domain == "com.microsoft";
        let arg = |i: usize| node.input(i).unwrap_or_default().to_string();
        let output = node.outputs.first().cloned().unwrap_or_default();
        let suffix = format!("/{output}");
        let real = format!("{output}/real");
        let op = |inputs: &[&str], op: &str| Node { attrs: node.attrs.clone(), ..Node::new(op, inputs, &[&real]) };
        if node.is("QLinearConv") && node.inputs.len() >= 8 {
            let x = self.dequantize([&arg(0), &arg(1), &arg(2)], &suffix, None);
            let w = self.dequantize([&arg(3), &arg(4), &arg(5)], &suffix, Some(0));
            // The bias is int32 at scale x_scale * w_scale; it stays a third input that is not dequantized.
            let bias = arg(8);
            let inputs: Vec<&str> = if bias.is_empty() { vec![&x, &w] } else { vec![&x, &w, &bias] };
            self.nodes.push(op(&inputs, "Conv"));
            self.quantize(&real, &arg(6), &arg(7), &output);
        } else if microsoft && node.op == "QLinearAdd" && node.inputs.len() >= 7 {
            let a = self.dequantize([&arg(0), &arg(1), &arg(2)], &suffix, None);
            let b = self.dequantize([&arg(3), &arg(4), &arg(5)], &format!("{suffix}/b"), None);
            self.nodes.push(op(&[&a, &b], "Add"));
            self.quantize(&real, &arg(6), &arg(7), &output);
        } else if microsoft && node.op == "QLinearGlobalAveragePool" && node.int("channels_last").unwrap_or(0) == 0 {
            let x = self.dequantize([&arg(0), &arg(1), &arg(2)], &suffix, None);
            self.nodes.push(Node::new("GlobalAveragePool", &[&x], &[&real]));
            self.quantize(&real, &arg(3), &arg(4), &output);
        } else if microsoft && node.op == "QLinearAveragePool" && node.int("channels_last").unwrap_or(0) == 0 {
            let x = self.dequantize([&arg(0), &arg(1), &arg(2)], &suffix, None);
            let mut pool = op(&[&x], "AveragePool");
            pool.attrs.retain(|(name, _)| name != "channels_last");
            self.nodes.push(pool);
            self.quantize(&real, &arg(3), &arg(4), &output);
        } else if node.is("MaxPool")
            && let Some([scale, zero]) = self.quantized.get(&arg(0)).cloned()
        {
            let x = self.dequantize([&arg(0), &scale, &zero], &suffix, None);
            self.nodes.push(op(&[&x], "MaxPool"));
            self.quantize(&real, &scale, &zero, &output);
        } else {
            if node.is("QuantizeLinear") {
                self.quantized.insert(output, [arg(1), arg(2)]);
            }
            self.nodes.push(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::onnx::ValueInfo;
    use super::*;

    fn graph(nodes: Vec<Node>) -> Graph {
        let input = ValueInfo { name: "x".into(), dtype: None, dims: vec![None, Some(8), Some(8), Some(3)] };
        Graph { nodes, inputs: vec![input], ..Graph::default() }
    }

    #[test]
    fn identity_dropout_and_input_transpose_disappear() {
        let low = lower(graph(vec![
            Node::new("Transpose", &["x"], &["t"]).with("perm", Attr::Ints(vec![0, 3, 1, 2])),
            Node::new("Identity", &["t"], &["i"]),
            Node::new("Dropout", &["i"], &["d", "mask"]),
            Node::new("Relu", &["d"], &["y"]),
        ]));
        assert_eq!(low.nodes, [Node::new("Relu", &["x"], &["y"])]);
        assert_eq!(low.inputs[0].dims, [None, Some(3), Some(8), Some(8)]);
    }

    #[test]
    fn q_operators_become_q_dq() {
        let mut add = Node::new("QLinearAdd", &["a", "as", "az", "b", "bs", "bz", "cs", "cz"], &["c"]);
        add.domain = "com.microsoft".into();
        let low = lower(graph(vec![
            Node::new("QuantizeLinear", &["x", "as", "az"], &["a"]),
            Node::new("QLinearConv", &["a", "as", "az", "w", "ws", "wz", "bs", "bz", "bias"], &["b"]),
            add,
            Node::new("MaxPool", &["c"], &["m"]),
        ]));
        let ops: Vec<&str> = low.nodes.iter().map(|n| n.op.as_str()).collect();
        let (d, q) = ("DequantizeLinear", "QuantizeLinear");
        assert_eq!(ops, [q, d, d, "Conv", q, d, d, "Add", q, d, "MaxPool", q]);
        assert_eq!(low.nodes.last().unwrap().inputs[1..], ["cs", "cz"]);
    }
}
