//! Reads `ModelProto`: the parts that a network needs, without the elements of its tensors.

use std::collections::HashSet;
use std::ops::Range;

use tract_onnx::pb;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_shape_proto::dimension;

use super::source::Source;
use super::tensor::{DType, Tensor};
use super::types::{Attr, Graph, Node, ValueInfo, is_standard};
use super::wire::{Cursor, MAX_MESSAGE, MAX_NAME, Value, WireError, limit};

const MAX_NODES: usize = 10_000;
const MAX_TENSORS: usize = 100_000;
const MAX_ATTRIBUTES: usize = 64;
const MAX_LIST: usize = 4096;
const MAX_RANK: usize = 8;

/// Operators that make a map of a map: each has an input and an output.
const MAP_OPERATORS: [&str; 8] =
    ["QuantizeLinear", "DequantizeLinear", "Conv", "Relu", "Clip", "Add", "MaxPool", "Pad"];

/// What a file says.
#[derive(Debug)]
pub struct Contents {
    /// Version of the standard operator set.
    pub opset: i64,
    pub metadata: Vec<(String, String)>,
    pub graph: Graph,
}

/// Reads a whole model.
pub fn read(source: &Source) -> Result<Contents, WireError> {
    let mut parser = Parser::default();
    parser.model(&mut Cursor::new(source), 0..source.len())?;
    let graph = parser.finish()?;
    Ok(Contents { opset: parser.opset, metadata: parser.metadata, graph })
}

#[derive(Default)]
struct Parser {
    graph: Option<Graph>,
    opset: i64,
    metadata: Vec<(String, String)>,
    /// Domain and name of the operators that the file says itself.
    functions: HashSet<(String, String)>,
}

impl Parser {
    fn model(&mut self, cursor: &mut Cursor, range: Range<u64>) -> Result<(), WireError> {
        cursor.message(range, |c, number, value| {
            match (number, value) {
                (7, Value::Bytes(r)) => {
                    let graph = self.graph.get_or_insert_default();
                    read_graph(c, r, graph)?;
                }
                (8, Value::Bytes(r)) => {
                    let opset: pb::OperatorSetIdProto = c.decode(r, "operator set")?;
                    if is_standard(&opset.domain) {
                        self.opset = opset.version;
                    }
                }
                (14, Value::Bytes(r)) if r.end - r.start <= MAX_NAME => {
                    limit(&self.metadata, "metadata entries", MAX_LIST)?;
                    let entry: pb::StringStringEntryProto = c.decode(r, "metadata")?;
                    self.metadata.push((entry.key, entry.value));
                }
                (25, Value::Bytes(r)) => {
                    let (mut name, mut domain) = (String::new(), String::new());
                    c.message(r, |c, number, field| {
                        match (number, field) {
                            (1, Value::Bytes(r)) => name = c.string(r, "function name", MAX_NAME)?,
                            (10, Value::Bytes(r)) => domain = c.string(r, "function domain", MAX_NAME)?,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    self.functions.insert((if is_standard(&domain) { String::new() } else { domain }, name));
                }
                _ => {}
            }
            Ok(())
        })
    }

    /// Constant nodes become constants; what a node makes must be made before it is used, every name given once. A
    /// value that nothing makes is no fault here: the node that uses it may not be needed.
    fn finish(&mut self) -> Result<Graph, WireError> {
        let wrong = |text: String| Err(WireError::Meaning(text));
        let Some(mut graph) = self.graph.take() else { return wrong("it holds no graph".into()) };
        let nodes = std::mem::take(&mut graph.nodes);
        if nodes.is_empty() {
            return wrong("its graph has no nodes".into());
        }
        graph.inputs.retain(|i| !graph.constants.contains_key(&i.name) && !graph.unsupported.contains_key(&i.name));
        let made: HashSet<String> = nodes.iter().flat_map(|n| &n.outputs).cloned().collect();
        let mut known: HashSet<String> = graph.inputs.iter().map(|i| i.name.clone()).collect();
        known.extend(graph.constants.keys().cloned());
        for mut node in nodes {
            let domain = if is_standard(&node.domain) { "" } else { &node.domain };
            node.function = self.functions.contains(&(domain.to_string(), node.op.clone()));
            if let Some(input) = node.inputs.iter().find(|i| made.contains(*i) && !i.is_empty() && !known.contains(*i))
            {
                return wrong(format!(
                    "{} reads {input:?} before the node that makes it: its nodes are not in topological order",
                    node.label()
                ));
            }
            if MAP_OPERATORS.iter().any(|op| node.is(op)) && (node.input(0).is_none() || node.outputs.is_empty()) {
                return wrong(format!("{} has no input or no output", node.label()));
            }
            for output in node.outputs.iter().filter(|o| !o.is_empty()) {
                if !known.insert(output.clone()) {
                    return wrong(format!("two nodes make the value {output:?}"));
                }
            }
            match (node.is("Constant"), node.outputs.first(), constant_value(&node)) {
                (true, Some(output), Some(tensor)) => {
                    graph.constants.insert(output.clone(), tensor);
                }
                _ => graph.nodes.push(node),
            }
        }
        Ok(graph)
    }
}

fn constant_value(node: &Node) -> Option<Tensor> {
    let (name, attr) = node.attrs.first()?;
    match (name.as_str(), attr) {
        ("value", Attr::Tensor(t)) => Some(t.clone()),
        ("value_float", Attr::Float(f)) => Some(Tensor::f32(vec![], &[*f])),
        ("value_floats", Attr::Floats(v)) => Some(Tensor::f32(vec![v.len()], v)),
        ("value_int", Attr::Int(i)) => Some(Tensor::i64(vec![], &[*i])),
        ("value_ints", Attr::Ints(v)) => Some(Tensor::i64(vec![v.len()], v)),
        _ => None,
    }
}

fn read_graph(cursor: &mut Cursor, range: Range<u64>, graph: &mut Graph) -> Result<(), WireError> {
    cursor.message(range, |c, number, value| {
        let Value::Bytes(r) = value else { return Ok(()) };
        match number {
            1 => {
                limit(&graph.nodes, "nodes", MAX_NODES)?;
                graph.nodes.push(read_node(c, r)?);
            }
            5 => {
                if graph.constants.len() + graph.unsupported.len() >= MAX_TENSORS {
                    return Err(WireError::Limit { what: "initializers", limit: MAX_TENSORS as u64 });
                }
                match Tensor::parse(c, r)? {
                    (name, Ok(tensor)) => {
                        if graph.constants.insert(name.clone(), tensor).is_some() {
                            return Err(WireError::Meaning(format!("two initializers named {name:?}")));
                        }
                    }
                    (name, Err(code)) => _ = graph.unsupported.insert(name, code),
                }
            }
            11 => {
                limit(&graph.inputs, "graph inputs", MAX_TENSORS)?;
                graph.inputs.push(read_value_info(c, r)?);
            }
            12 => {
                limit(&graph.outputs, "graph outputs", MAX_LIST)?;
                graph.outputs.push(read_value_info(c, r)?);
            }
            _ => {}
        }
        Ok(())
    })
}

fn read_node(cursor: &mut Cursor, range: Range<u64>) -> Result<Node, WireError> {
    let mut node = Node::default();
    cursor.message(range, |c, number, value| {
        let Value::Bytes(r) = value else { return Ok(()) };
        match number {
            1 => {
                limit(&node.inputs, "inputs of a node", MAX_LIST)?;
                node.inputs.push(c.string(r, "value name", MAX_NAME)?);
            }
            2 => {
                limit(&node.outputs, "outputs of a node", MAX_LIST)?;
                node.outputs.push(c.string(r, "value name", MAX_NAME)?);
            }
            3 => node.name = c.string(r, "node name", MAX_NAME)?,
            4 => node.op = c.string(r, "operator name", MAX_NAME)?,
            5 => {
                limit(&node.attrs, "attributes of a node", MAX_ATTRIBUTES)?;
                node.attrs.push(read_attribute(c, r)?);
            }
            7 => node.domain = c.string(r, "operator domain", MAX_NAME)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(node)
}

fn read_attribute(cursor: &mut Cursor, range: Range<u64>) -> Result<(String, Attr), WireError> {
    let (mut name, mut tensor) = (String::new(), None);
    cursor.message(range.clone(), |c, number, value| {
        match (number, value) {
            (1, Value::Bytes(r)) => name = c.string(r, "attribute name", MAX_NAME)?,
            (5, Value::Bytes(r)) => tensor = Some(Tensor::parse(c, r)?.1),
            _ => {}
        }
        Ok(())
    })?;
    if let Some(tensor) = tensor {
        return Ok((name, tensor.map_or(Attr::Other, Attr::Tensor)));
    }
    if range.end - range.start > MAX_MESSAGE {
        return Ok((name, Attr::Other));
    }
    let proto: pb::AttributeProto = cursor.decode(range, "attribute")?;
    if proto.ints.len().max(proto.floats.len()) > MAX_LIST {
        return Err(WireError::Limit { what: "numbers of an attribute", limit: MAX_LIST as u64 });
    }
    // In proto3 a number or text that is its type's default is left out.
    let attr = match proto.r#type() {
        AttributeType::Float => Attr::Float(proto.f),
        AttributeType::Int => Attr::Int(proto.i),
        AttributeType::String => Attr::Str(String::from_utf8_lossy(&proto.s).into_owned()),
        AttributeType::Floats if !proto.floats.is_empty() => Attr::Floats(proto.floats),
        AttributeType::Ints if !proto.ints.is_empty() => Attr::Ints(proto.ints),
        _ => Attr::Other,
    };
    Ok((name, attr))
}

fn read_value_info(cursor: &mut Cursor, range: Range<u64>) -> Result<ValueInfo, WireError> {
    let info: pb::ValueInfoProto = cursor.decode(range, "graph input or output")?;
    let Some(pb::type_proto::Value::TensorType(tensor)) = info.r#type.and_then(|t| t.value) else {
        return Ok(ValueInfo { name: info.name, dtype: None, dims: Vec::new() });
    };
    let dims = tensor.shape.map_or(Vec::new(), |shape| shape.dim);
    if dims.len() > MAX_RANK {
        return Err(WireError::Limit { what: "dimensions", limit: MAX_RANK as u64 });
    }
    let size = |dim: pb::tensor_shape_proto::Dimension| match dim.value {
        Some(dimension::Value::DimValue(n)) => usize::try_from(n).ok().filter(|&n| n > 0),
        _ => None,
    };
    let dtype = u64::try_from(tensor.elem_type).ok().and_then(DType::from_code);
    Ok(ValueInfo { name: info.name, dtype, dims: dims.into_iter().map(size).collect() })
}
