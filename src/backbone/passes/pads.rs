//! Takes out a `Pad` in front of a convolution or max pool, which can pad themselves.

use std::collections::HashMap;

use super::quant::ConstantDequantize;
use crate::backbone::error::Error;
use crate::backbone::onnx::{Attr, DType, Graph, Index, Model, Node, Tensor};

/// Folds every `Pad` of height and width with zeros into the padding of the convolutions and max pools that read it,
/// directly or behind a `QuantizeLinear` and `DequantizeLinear`. A max pool's padding is below every value, so the
/// padded map must have no value below zero. A `Pad` with another reader stays.
pub fn fold(model: &Model, graph: &mut Graph) -> Result<(), Error> {
    if !graph.nodes.iter().any(|n| n.is("Pad")) {
        return Ok(());
    }
    let index = Index::of(graph);
    let mut folds = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        if let Some(fold) = PadFold::of(model, graph, &index, node)? {
            folds.push((i, fold));
        }
    }
    let mut renamed = HashMap::new();
    for (i, fold) in folds {
        for consumer in fold.consumers {
            add_pads(&mut graph.nodes[consumer], fold.pads);
        }
        let pad = std::mem::take(&mut graph.nodes[i]);
        renamed.extend(pad.outputs.into_iter().zip(pad.inputs));
    }
    graph.nodes.retain(|n| !n.op.is_empty());
    graph.rename_inputs(&renamed);
    Ok(())
}

/// Padding of height and width, and which nodes take it over.
struct PadFold {
    /// Top, left, bottom, right.
    pads: [usize; 4],
    consumers: Vec<usize>,
}

impl PadFold {
    fn of(model: &Model, graph: &Graph, index: &Index, node: &Node) -> Result<Option<PadFold>, Error> {
        if node.outputs.len() != 1 || node.inputs.is_empty() {
            return Ok(None);
        }
        let Some(pads) = padding(model, &graph.constants, node)? else { return Ok(None) };
        let Some(value) = fill(model, graph, index, node)? else { return Ok(None) };
        let mut consumers = Vec::new();
        let mut open = vec![node.outputs[0].as_str()];
        while let Some(read) = open.pop() {
            if index.is_output(read) {
                return Ok(None);
            }
            for &i in index.consumers(read) {
                let reader = &graph.nodes[i];
                let first = reader.inputs.first().is_some_and(|x| x == read)
                    && reader.inputs.iter().filter(|x| *x == read).count() == 1;
                let explicit = matches!(reader.text("auto_pad"), None | Some("NOTSET" | "VALID"));
                let own_pads = reader.ints("pads").is_none_or(|p| p.len() == 4);
                let takes = match reader.op.as_str() {
                    "QuantizeLinear" | "DequantizeLinear" if first => {
                        open.extend(reader.outputs.first().map(String::as_str));
                        continue;
                    }
                    "Conv" => value == Fill::Zero,
                    "QLinearConv" => match value {
                        Fill::Level(level) => level_of(model, graph, reader.input(2))? == Some(level),
                        Fill::Zero | Fill::Least => false,
                    },
                    "MaxPool" if reader.outputs.len() == 1 && windows_reach(reader, pads) => match value {
                        Fill::Zero => is_non_negative(model, graph, index.producer(&node.inputs[0]))?,
                        Fill::Least => true,
                        Fill::Level(level) => level == 0,
                    },
                    _ => false,
                };
                if !(takes && first && explicit && own_pads) {
                    return Ok(None);
                }
                consumers.push(i);
            }
        }
        Ok((!consumers.is_empty()).then_some(PadFold { pads, consumers }))
    }
}

/// Top, left, bottom, right of a `Pad` of height and width by constants up to 1024; None for any other node.
///
/// # Errors
/// The constants cannot be read.
pub fn padding(model: &Model, constants: &HashMap<String, Tensor>, node: &Node) -> Result<Option<[usize; 4]>, Error> {
    // With axes (since operator set 18) the list of pads has another order.
    if !node.is("Pad") || node.text("mode").is_some_and(|mode| mode != "constant") || node.input(3).is_some() {
        return Ok(None);
    }
    let list = match (node.ints("pads"), node.input(1).and_then(|name| constants.get(name))) {
        (Some(list), _) => list.to_vec(),
        (None, Some(tensor)) if tensor.len() == 8 && tensor.dtype == DType::I64 => {
            model.read_i32(tensor)?.into_iter().map(i64::from).collect()
        }
        _ => return Ok(None),
    };
    let small = |p: &i64| usize::try_from(*p).ok().filter(|p| *p <= 1024);
    Ok(match list.iter().map(small).collect::<Option<Vec<usize>>>().as_deref() {
        Some(&[0, 0, top, left, 0, 0, bottom, right]) => Some([top, left, bottom, right]),
        _ => None,
    })
}

/// Whether every window of a pool still holds a value of the map when `more` is added to its padding.
fn windows_reach(pool: &Node, more: [usize; 4]) -> bool {
    let own = pool.ints("pads").unwrap_or(&[0; 4]);
    let reach = |kernel: &[i64]| {
        let sides = own.iter().zip(more).zip(kernel.iter().cycle());
        kernel.len() == 2 && sides.into_iter().all(|((own, more), kernel)| own.saturating_add(more as i64) < *kernel)
    };
    pool.ints("kernel_shape").is_some_and(reach)
}

/// What a `Pad` fills with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fill {
    /// Real zero.
    Zero,
    /// Minus infinity.
    Least,
    /// A level of a quantized map, counted from the least.
    Level(i32),
}

fn fill(model: &Model, graph: &Graph, index: &Index, pad: &Node) -> Result<Option<Fill>, Error> {
    let real = |v: f32| match v {
        0.0 => Some(Fill::Zero),
        f32::NEG_INFINITY => Some(Fill::Least),
        _ => None,
    };
    let Some(name) = pad.input(2) else {
        // The default is a zero of the map's own type; only a real one says which.
        let quantized =
            index.producer(&pad.inputs[0]).is_some_and(|n| n.is("QuantizeLinear") || n.op.starts_with("QL"));
        return Ok(if quantized { None } else { real(pad.float("value").unwrap_or(0.0)) });
    };
    if let Some(tensor) = graph.constants.get(name).filter(|t| t.len() == 1) {
        return Ok(match tensor.dtype {
            DType::F32 => real(model.read_f32(tensor)?[0]),
            DType::U8 | DType::I8 => level_of(model, graph, Some(name))?.map(Fill::Level),
            _ => None,
        });
    }
    let Some(dq) = ConstantDequantize::of(model, graph, name)?.filter(|dq| dq.tensor.len() == 1) else {
        return Ok(None);
    };
    Ok((model.read_i32(dq.tensor)? == dq.zero).then_some(Fill::Zero))
}

/// A constant u8 or s8 scalar, counted from the least value of its type.
fn level_of(model: &Model, graph: &Graph, name: Option<&str>) -> Result<Option<i32>, Error> {
    let Some(tensor) = name.and_then(|name| graph.constants.get(name)).filter(|t| t.len() == 1) else {
        return Ok(None);
    };
    let least = match tensor.dtype {
        DType::U8 => 0,
        DType::I8 => -128,
        _ => return Ok(None),
    };
    Ok(Some(model.read_i32(tensor)?[0] - least))
}

/// Whether what `producer` makes cannot be below zero: behind a ReLU, or rounded with zero as the least level.
fn is_non_negative(model: &Model, graph: &Graph, producer: Option<&Node>) -> Result<bool, Error> {
    let Some(node) = producer else { return Ok(false) };
    if node.is("Relu") {
        return Ok(true);
    }
    Ok(node.is("DequantizeLinear") && level_of(model, graph, node.input(2))? == Some(0))
}

fn add_pads(node: &mut Node, more: [usize; 4]) {
    let own = node.ints("pads").unwrap_or(&[0; 4]);
    let sum = own.iter().zip(more).map(|(own, more)| own.saturating_add(more as i64)).collect();
    node.attrs.retain(|(name, _)| name != "pads" && name != "auto_pad");
    node.attrs.push(("pads".into(), Attr::Ints(sum)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: Vec<Node>) -> Graph {
        let longs = |v: &[i64]| v.iter().flat_map(|v| v.to_le_bytes()).collect();
        let byte = |v: u8| Tensor::from_bytes(DType::U8, vec![], vec![v]);
        let real = |v: f32| Tensor::from_bytes(DType::F32, vec![], v.to_le_bytes().into());
        let constants = HashMap::from([
            ("pads".to_string(), Tensor::from_bytes(DType::I64, vec![8], longs(&[0, 0, 1, 2, 0, 0, 3, 4]))),
            ("deep".to_string(), Tensor::from_bytes(DType::I64, vec![8], longs(&[0, 1, 1, 1, 0, 1, 1, 1]))),
            ("z0".to_string(), byte(0)),
            ("z7".to_string(), byte(7)),
            ("s".to_string(), real(0.5)),
            ("w".to_string(), real(1.0)),
            ("one".to_string(), real(1.0)),
        ]);
        Graph { nodes, constants, ..Graph::default() }
    }

    fn folded(nodes: Vec<Node>) -> Vec<Node> {
        let mut graph = graph(nodes);
        fold(&Model::empty(), &mut graph).unwrap();
        graph.nodes
    }

    fn pool(x: &str, y: &str, side: i64) -> Node {
        Node::new("MaxPool", &[x], &[y]).with("kernel_shape", Attr::Ints(vec![side; 2]))
    }

    fn all_pads(nodes: &[Node]) -> Vec<Option<&[i64]>> {
        nodes.iter().map(|n| n.ints("pads")).collect()
    }

    #[test]
    fn a_pad_goes_into_convolutions_and_pools() {
        let own = Attr::Ints(vec![1; 4]);
        let nodes = folded(vec![
            Node::new("Relu", &["x"], &["r"]),
            Node::new("Pad", &["r", "pads"], &["p"]),
            Node::new("Conv", &["p", "w"], &["y"]).with("pads", own),
            pool("p", "m", 5),
        ]);
        assert_eq!(all_pads(&nodes), [None, Some(&[2, 3, 4, 5][..]), Some(&[1, 2, 3, 4])]);
        assert!(nodes[1..].iter().all(|n| n.inputs[0] == "r"));
    }

    #[test]
    fn a_pad_goes_through_a_rounding() {
        let nodes = folded(vec![
            Node::new("DequantizeLinear", &["x", "s", "z0"], &["r"]),
            Node::new("Pad", &["r", "pads"], &["p"]),
            Node::new("QuantizeLinear", &["p", "s", "z0"], &["q"]),
            Node::new("DequantizeLinear", &["q", "s", "z0"], &["d"]),
            pool("d", "m", 5),
        ]);
        assert_eq!(all_pads(&nodes), [None, None, None, Some(&[1, 2, 3, 4][..])]);
    }

    #[test]
    fn a_pad_of_levels_must_be_the_zero_point() {
        let conv = Node::new("QLinearConv", &["p", "s", "z7", "w", "s", "z0", "s", "z0"], &["y"]);
        let pad = |level: &str| Node::new("Pad", &["x", "pads", level], &["p"]);
        assert_eq!(folded(vec![pad("z7"), conv.clone()]).len(), 1);
        assert_eq!(folded(vec![pad("z0"), conv]).len(), 2);
        let pool = pool("p", "y", 5);
        assert_eq!(folded(vec![pad("z0"), pool.clone()]).len(), 1);
        assert_eq!(folded(vec![pad("z7"), pool]).len(), 2);
    }

    #[test]
    fn other_pads_stay() {
        let conv = Node::new("Conv", &["p", "w"], &["y"]);
        let pool = |side: i64| pool("p", "y", side);
        let stays = |nodes: Vec<Node>| assert_eq!(folded(nodes.clone()), nodes);
        stays(vec![Node::new("Pad", &["x", "deep"], &["p"]), conv.clone()]);
        stays(vec![Node::new("Pad", &["x", "pads", "one"], &["p"]), conv.clone()]);
        let reflect = Node::new("Pad", &["x", "pads"], &["p"]).with("mode", Attr::Str("reflect".into()));
        stays(vec![reflect, conv.clone()]);
        // Values below zero would lose against the zeros of the Pad.
        stays(vec![Node::new("Pad", &["x", "pads"], &["p"]), pool(5)]);
        // A window of the zeros of the Pad alone has zero as its greatest value.
        let relu = Node::new("Relu", &["x"], &["r"]);
        stays(vec![relu, Node::new("Pad", &["r", "pads"], &["p"]), pool(4)]);
        stays(vec![Node::new("Pad", &["x", "pads"], &["p"]), conv, Node::new("Sigmoid", &["p"], &["z"])]);
    }
}
