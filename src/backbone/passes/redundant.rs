//! Redundant quantization, as quantizers write it: it goes without a change of what is computed.

use std::collections::HashMap;

use crate::backbone::error::Error;
use crate::backbone::onnx::{DType, Graph, Index, Model, Node};

/// On a lowered graph: drops a rounding between a convolution or sum and its ReLU, where the ReLU's output is rounded
/// again (quantizers with ranges around zero write that), and a rounding of what is rounded in the same way already.
pub fn quantization(model: &Model, graph: &mut Graph) -> Result<(), Error> {
    let index = Index::of(graph);
    let mut renamed: HashMap<String, String> = HashMap::new();
    for node in &graph.nodes {
        let dequantize = node.input(0).and_then(|x| index.producer(x)).filter(|n| n.is("DequantizeLinear"));
        let Some((dequantize, x)) = dequantize.and_then(|n| Some((n, n.input(0)?))) else { continue };
        if node.is("QuantizeLinear") && !node.outputs.is_empty() {
            let free = !graph.constants.contains_key(x) && !index.is_output(&node.outputs[0]);
            if free && same_scale(model, graph, node, dequantize)? {
                let x = renamed.get(x).cloned().unwrap_or_else(|| x.into());
                renamed.insert(node.outputs[0].clone(), x);
            }
        } else if node.is("Relu") && !node.outputs.is_empty() {
            let quantize = index.producer(x).filter(|n| n.is("QuantizeLinear"));
            let Some(real) = quantize.and_then(|n| n.input(0)) else { continue };
            let made = index.producer(real).is_some_and(|n| n.is("Conv") || n.is("Add") || n.is("Sum"));
            let sole = [real, x, node.inputs[0].as_str()].iter().all(|value| index.sole_consumer(value).is_some());
            let rounded = index.consumers(&node.outputs[0]).iter().all(|&i| graph.nodes[i].is("QuantizeLinear"));
            if made && sole && rounded {
                renamed.insert(node.inputs[0].clone(), real.into());
            }
        }
    }
    graph.rename_inputs(&renamed);
    Ok(())
}

/// Whether two Q or DQ nodes have the same constant scale and zero point.
fn same_scale(model: &Model, graph: &Graph, a: &Node, b: &Node) -> Result<bool, Error> {
    let constant = |node: &Node, i: usize| node.input(i).and_then(|name| graph.constants.get(name)).cloned();
    let (Some(x), Some(y)) = (constant(a, 1), constant(b, 1)) else { return Ok(false) };
    let (zero_x, zero_y) = (constant(a, 2), constant(b, 2));
    if x.dtype != DType::F32 || y.dtype != DType::F32 || (x.len(), y.len()) != (1, 1) {
        return Ok(false);
    }
    let zeros = match (zero_x, zero_y) {
        (None, None) => a.input(2).is_none() && b.input(2).is_none(),
        (Some(p), Some(q)) => p.dtype == q.dtype && model.read_i32(&p)? == model.read_i32(&q)?,
        _ => false,
    };
    Ok(zeros && model.read_f32(&x)? == model.read_f32(&y)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::onnx::Tensor;

    #[test]
    fn roundings_that_say_nothing_disappear() {
        let real = |v: f32| Tensor::from_bytes(DType::F32, vec![], v.to_le_bytes().into());
        let zero = |v: u8| Tensor::from_bytes(DType::U8, vec![], vec![v]);
        let constants = [("s", real(0.5)), ("same", real(0.5)), ("s2", real(0.25)), ("w", real(1.0))];
        let constants = constants.into_iter().chain([("z0", zero(0)), ("z7", zero(7))]);
        let constants = constants.map(|(name, tensor)| (name.to_string(), tensor)).collect();
        let nodes = vec![
            Node::new("Conv", &["x", "w"], &["c"]),
            Node::new("QuantizeLinear", &["c", "s2", "z7"], &["q0"]),
            Node::new("DequantizeLinear", &["q0", "s2", "z7"], &["d0"]),
            Node::new("Relu", &["d0"], &["r"]),
            Node::new("QuantizeLinear", &["r", "s", "z0"], &["q1"]),
            Node::new("DequantizeLinear", &["q1", "s", "z0"], &["d1"]),
            Node::new("QuantizeLinear", &["d1", "same", "z0"], &["q2"]),
            Node::new("DequantizeLinear", &["q2", "same", "z0"], &["d2"]),
            Node::new("QuantizeLinear", &["d2", "s2", "z0"], &["q3"]),
        ];
        let mut graph = Graph { nodes, constants, ..Graph::default() };
        quantization(&Model::empty(), &mut graph).unwrap();
        let inputs: Vec<&str> = graph.nodes.iter().map(|n| n.inputs[0].as_str()).collect();
        // The ReLU reads the convolution, the second DQ what the first reads; another scale stays a rounding.
        assert_eq!(inputs, ["x", "c", "q0", "c", "r", "q1", "d1", "q1", "d2"]);
    }
}
