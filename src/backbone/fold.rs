//! Takes out what exporters and quantizers write around an operator and what the operator can do itself: a `Pad`
//! before a convolution or max pool, a rounding before a ReLU, a rounding of what is rounded so already.

use std::collections::{HashMap, HashSet};

use super::error::Error;
use super::island::ConstantDequantize;
use super::onnx::{Attr, DType, Graph, Model, Node, Tensor};

/// Folds every `Pad` of height and width with zeros into the padding of the convolutions and max pools that read it,
/// directly or behind a `QuantizeLinear` and `DequantizeLinear`. A max pool's padding is below every value, so the
/// padded map must have no value below zero. A `Pad` with another reader stays.
pub fn pads(model: &Model, graph: &mut Graph) -> Result<(), Error> {
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
        for reader in fold.readers {
            add_pads(&mut graph.nodes[reader], fold.pads);
        }
        let pad = std::mem::take(&mut graph.nodes[i]);
        renamed.extend(pad.outputs.into_iter().zip(pad.inputs));
    }
    graph.nodes.retain(|n| !n.op.is_empty());
    rename(graph, &renamed);
    Ok(())
}

/// Who makes and who reads each value.
struct Index<'g> {
    makers: HashMap<&'g str, &'g Node>,
    users: HashMap<&'g str, Vec<usize>>,
    outputs: HashSet<&'g str>,
}

impl<'g> Index<'g> {
    fn of(graph: &'g Graph) -> Index<'g> {
        let mut users: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, node) in graph.nodes.iter().enumerate() {
            for input in &node.inputs {
                users.entry(input).or_default().push(i);
            }
        }
        Index {
            makers: graph.nodes.iter().flat_map(|n| n.outputs.iter().map(move |o| (o.as_str(), n))).collect(),
            users,
            outputs: graph.outputs.iter().map(|o| o.name.as_str()).collect(),
        }
    }

    fn maker(&self, value: &str) -> Option<&'g Node> {
        self.makers.get(value).copied()
    }

    fn users(&self, value: &str) -> &[usize] {
        self.users.get(value).map_or(&[], Vec::as_slice)
    }

    /// Whether one node reads the value and nothing else.
    fn has_one_user(&self, value: &str) -> bool {
        self.users(value).len() == 1 && !self.outputs.contains(value)
    }
}

/// Padding of height and width, and which nodes take it over.
struct PadFold {
    /// Top, left, bottom, right.
    pads: [usize; 4],
    readers: Vec<usize>,
}

impl PadFold {
    fn of(model: &Model, graph: &Graph, index: &Index, node: &Node) -> Result<Option<PadFold>, Error> {
        if node.outputs.len() != 1 || node.inputs.is_empty() {
            return Ok(None);
        }
        let Some(pads) = padding(model, &graph.constants, node)? else { return Ok(None) };
        let Some(value) = fill(model, graph, index, node)? else { return Ok(None) };
        let mut readers = Vec::new();
        let mut open = vec![node.outputs[0].as_str()];
        while let Some(read) = open.pop() {
            if index.outputs.contains(read) {
                return Ok(None);
            }
            for &i in index.users(read) {
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
                        Fill::Zero => is_non_negative(model, graph, index.maker(&node.inputs[0]))?,
                        Fill::Least => true,
                        Fill::Level(level) => level == 0,
                    },
                    _ => false,
                };
                if !(takes && first && explicit && own_pads) {
                    return Ok(None);
                }
                readers.push(i);
            }
        }
        Ok((!readers.is_empty()).then_some(PadFold { pads, readers }))
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
        let quantized = index.maker(&pad.inputs[0]).is_some_and(|n| n.is("QuantizeLinear") || n.op.starts_with("QL"));
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

/// Whether what `maker` makes cannot be below zero: behind a ReLU, or rounded with zero as the least level.
fn is_non_negative(model: &Model, graph: &Graph, maker: Option<&Node>) -> Result<bool, Error> {
    let Some(node) = maker else { return Ok(false) };
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

/// On a lowered graph: drops a rounding between a convolution or sum and its ReLU, where the ReLU's output is rounded
/// again (quantizers with ranges around zero write that), and a rounding of what is rounded in the same way already.
pub fn roundings(model: &Model, graph: &mut Graph) -> Result<(), Error> {
    let index = Index::of(graph);
    let mut renamed: HashMap<String, String> = HashMap::new();
    for node in &graph.nodes {
        let dequantize = node.input(0).and_then(|x| index.maker(x)).filter(|n| n.is("DequantizeLinear"));
        let Some((dequantize, x)) = dequantize.and_then(|n| Some((n, n.input(0)?))) else { continue };
        if node.is("QuantizeLinear") && !node.outputs.is_empty() {
            let free = !graph.constants.contains_key(x) && !index.outputs.contains(node.outputs[0].as_str());
            if free && same_scale(model, graph, node, dequantize)? {
                let x = renamed.get(x).cloned().unwrap_or_else(|| x.into());
                renamed.insert(node.outputs[0].clone(), x);
            }
        } else if node.is("Relu") && !node.outputs.is_empty() {
            let quantize = index.maker(x).filter(|n| n.is("QuantizeLinear"));
            let Some(real) = quantize.and_then(|n| n.input(0)) else { continue };
            let made = index.maker(real).is_some_and(|n| n.is("Conv") || n.is("Add") || n.is("Sum"));
            let sole = [real, x, node.inputs[0].as_str()].iter().all(|value| index.has_one_user(value));
            let rounded = index.users(&node.outputs[0]).iter().all(|&i| graph.nodes[i].is("QuantizeLinear"));
            if made && sole && rounded {
                renamed.insert(node.inputs[0].clone(), real.into());
            }
        }
    }
    rename(graph, &renamed);
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

/// Lets every reader of a renamed value read the other.
fn rename(graph: &mut Graph, renamed: &HashMap<String, String>) {
    for input in graph.nodes.iter_mut().flat_map(|n| &mut n.inputs) {
        if let Some(name) = renamed.get(input) {
            *input = name.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::wire::Source;
    use super::*;

    fn model() -> Model {
        Model {
            path: Path::new("small.onnx").into(),
            source: Source::Bytes(Vec::new().into()),
            folder: None,
            beside: Default::default(),
            opset: 13,
            metadata: Vec::new(),
            graph: Graph::default(),
            read: Default::default(),
        }
    }

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
            ("same".to_string(), real(0.5)),
            ("s2".to_string(), real(0.25)),
            ("w".to_string(), real(1.0)),
            ("one".to_string(), real(1.0)),
        ]);
        Graph { nodes, constants, ..Graph::default() }
    }

    fn folded(nodes: Vec<Node>) -> Vec<Node> {
        let mut graph = graph(nodes);
        pads(&model(), &mut graph).unwrap();
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

    #[test]
    fn roundings_that_say_nothing_disappear() {
        let mut graph = graph(vec![
            Node::new("Conv", &["x", "w"], &["c"]),
            Node::new("QuantizeLinear", &["c", "s2", "z7"], &["q0"]),
            Node::new("DequantizeLinear", &["q0", "s2", "z7"], &["d0"]),
            Node::new("Relu", &["d0"], &["r"]),
            Node::new("QuantizeLinear", &["r", "s", "z0"], &["q1"]),
            Node::new("DequantizeLinear", &["q1", "s", "z0"], &["d1"]),
            Node::new("QuantizeLinear", &["d1", "same", "z0"], &["q2"]),
            Node::new("DequantizeLinear", &["q2", "same", "z0"], &["d2"]),
            Node::new("QuantizeLinear", &["d2", "s2", "z0"], &["q3"]),
        ]);
        roundings(&model(), &mut graph).unwrap();
        let inputs: Vec<&str> = graph.nodes.iter().map(|n| n.inputs[0].as_str()).collect();
        // The ReLU reads the convolution, the second DQ what the first reads; another scale stays a rounding.
        assert_eq!(inputs, ["x", "c", "q0", "c", "r", "q1", "d1", "q1", "d2"]);
    }
}
