//! ONNX models: the parts of `ModelProto` that a network needs. Tensor data stays in the file until it is asked for.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Error;
use super::wire::{Cursor, Source, Value, WireError};

const MAX_NODES: usize = 10_000;
const MAX_TENSORS: usize = 100_000;
const MAX_ATTRIBUTES: usize = 64;
const MAX_LIST: usize = 4096;
const MAX_NAME: u64 = 4096;
const MAX_RANK: usize = 8;
const MAX_CHUNKS: usize = 65_536;
/// Bytes of one tensor.
const MAX_TENSOR: usize = 1 << 28;
/// How often a file's tensor data may be read: weights that many nodes share would be unpacked for each of them.
const MAX_READS: u64 = 16;
const FREE_READS: u64 = 64 << 20;

/// Operators that make a map of a map: each has an input and an output.
const MAP_OPERATORS: [&str; 8] =
    ["QuantizeLinear", "DequantizeLinear", "Conv", "Relu", "Clip", "Add", "MaxPool", "Pad"];

/// The element types of `TensorProto` that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    F32 = 1,
    U8 = 2,
    I8 = 3,
    U16 = 4,
    I16 = 5,
    I32 = 6,
    I64 = 7,
    Bool = 9,
    F16 = 10,
    F64 = 11,
}

impl DType {
    fn from_code(code: u64) -> Option<DType> {
        use DType::*;
        [F32, U8, I8, U16, I16, I32, I64, Bool, F16, F64].into_iter().find(|&t| t as u64 == code)
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::U8 | DType::I8 | DType::Bool => 1,
            DType::U16 | DType::I16 | DType::F16 => 2,
            DType::F32 | DType::I32 => 4,
            DType::I64 | DType::F64 => 8,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Chunk {
    /// Little-endian elements.
    Plain(Range<u64>),
    /// Packed numbers of `int32_data` and its like.
    Varints(Range<u64>),
    /// One number.
    Number(u64),
    /// Little-endian elements made in memory.
    Owned(Vec<u8>),
}

/// A constant of the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub dtype: DType,
    pub dims: Vec<usize>,
    data: Vec<Chunk>,
}

impl Tensor {
    /// A tensor made in memory from little-endian elements.
    pub fn from_bytes(dtype: DType, dims: Vec<usize>, bytes: Vec<u8>) -> Tensor {
        Tensor { dtype, dims, data: vec![Chunk::Owned(bytes)] }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An attribute of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Attr {
    Float(f32),
    Int(i64),
    Str(String),
    Tensor(Tensor),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    /// A sub-graph or another kind that is not read.
    Other,
}

/// An operator with its inputs (empty: left out) and outputs by value name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Node {
    pub name: String,
    pub op: String,
    pub domain: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub attrs: Vec<(String, Attr)>,
}

impl Node {
    pub fn new(op: &str, inputs: &[&str], outputs: &[&str]) -> Node {
        let strings = |names: &[&str]| names.iter().map(|s| s.to_string()).collect();
        let name = outputs.first().copied().unwrap_or_default().to_string();
        Node { name, op: op.into(), inputs: strings(inputs), outputs: strings(outputs), ..Node::default() }
    }

    pub fn with(mut self, name: &str, attr: Attr) -> Node {
        self.attrs.push((name.into(), attr));
        self
    }

    pub fn attr(&self, name: &str) -> Option<&Attr> {
        self.attrs.iter().find(|(n, _)| n == name).map(|(_, a)| a)
    }

    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attr(name) {
            Some(Attr::Int(i)) => Some(*i),
            _ => None,
        }
    }

    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attr(name) {
            Some(Attr::Ints(v)) => Some(v),
            _ => None,
        }
    }

    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attr(name) {
            Some(Attr::Float(f)) => Some(*f),
            _ => None,
        }
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        match self.attr(name) {
            Some(Attr::Str(s)) => Some(s),
            _ => None,
        }
    }

    /// Input `i`, None if it is left out.
    pub fn input(&self, i: usize) -> Option<&str> {
        self.inputs.get(i).map(String::as_str).filter(|s| !s.is_empty())
    }

    /// Whether this is operator `op` of the standard domain.
    pub fn is(&self, op: &str) -> bool {
        self.op == op && (self.domain.is_empty() || self.domain == "ai.onnx")
    }

    /// What to call the node in a message.
    pub fn label(&self) -> String {
        let name = if self.name.is_empty() { self.outputs.first().map_or("", |s| s) } else { &self.name };
        format!("{} {name:?}", self.op)
    }
}

/// A graph input or output.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueInfo {
    pub name: String,
    pub dtype: Option<DType>,
    /// None: a named or unknown dimension.
    pub dims: Vec<Option<usize>>,
}

/// Nodes in an order in which every input is known before it is used.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub constants: HashMap<String, Tensor>,
    pub inputs: Vec<ValueInfo>,
    pub outputs: Vec<ValueInfo>,
}

/// A model with the place of its data.
#[derive(Debug)]
pub struct Model {
    pub path: PathBuf,
    pub source: Source,
    /// Version of the standard operator set.
    pub opset: i64,
    pub metadata: Vec<(String, String)>,
    pub graph: Graph,
    /// Bytes of tensor data that were read.
    pub read: AtomicU64,
}

impl Model {
    pub fn open(path: &Path) -> Result<Model, Error> {
        let source = Source::open(path).map_err(|source| Error::Io { path: path.into(), source })?;
        Model::parse(path, source)
    }

    /// Reads everything but tensor data. `path` names the model in errors.
    pub fn parse(path: &Path, source: Source) -> Result<Model, Error> {
        let mut parser = Parser::default();
        let mut cursor = Cursor::new(&source);
        let read = parser.model(&mut cursor, 0..source.len()).and_then(|()| parser.finish());
        match read {
            Ok(graph) => {
                let (opset, metadata, read) = (parser.opset, parser.metadata, AtomicU64::new(0));
                Ok(Model { path: path.into(), opset, metadata, graph, source, read })
            }
            Err(WireError::Io(source)) => Err(Error::Io { path: path.into(), source }),
            Err(error) => Err(Error::NotOnnx { path: path.into(), reason: error.to_string() }),
        }
    }

    /// The value of a `metadata_props` entry.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The elements of a tensor, little-endian.
    pub fn read(&self, tensor: &Tensor) -> Result<Vec<u8>, Error> {
        let io = |source| Error::Io { path: self.path.clone(), source };
        let malformed = |e: WireError| match e {
            WireError::Io(source) => io(source),
            e => Error::NotOnnx { path: self.path.clone(), reason: e.to_string() },
        };
        let size = tensor.dtype.size();
        let expected = tensor.len() * size;
        if tensor.data.iter().any(|chunk| !matches!(chunk, Chunk::Owned(_))) {
            let read = self.read.fetch_add(expected as u64, Ordering::Relaxed);
            if read > MAX_READS * self.source.len() + FREE_READS {
                let reason = "its nodes share more weights than those of a ResNet".into();
                return Err(Error::Unsupported { path: self.path.clone(), reason });
            }
        }
        let mut out = Vec::with_capacity(expected);
        for chunk in &tensor.data {
            match chunk {
                Chunk::Plain(range) => {
                    let at = out.len();
                    out.resize(at + (range.end - range.start) as usize, 0);
                    self.source.read_at(&mut out[at..], range.start).map_err(io)?;
                }
                Chunk::Varints(range) => Cursor::new(&self.source)
                    .varints(range.clone(), |v| out.extend_from_slice(&v.to_le_bytes()[..size]))
                    .map_err(malformed)?,
                Chunk::Number(v) => out.extend_from_slice(&v.to_le_bytes()[..size]),
                Chunk::Owned(bytes) => out.extend_from_slice(bytes),
            }
        }
        if out.len() != expected {
            let reason = format!("a tensor of shape {:?} has {} bytes of data", tensor.dims, out.len());
            return Err(Error::NotOnnx { path: self.path.clone(), reason });
        }
        Ok(out)
    }

    /// The elements of an f32 (or f16, f64) tensor.
    pub fn read_f32(&self, tensor: &Tensor) -> Result<Vec<f32>, Error> {
        let bytes = self.read(tensor)?;
        let wide = |c: &[u8]| <[u8; 8]>::try_from(c).map_or(0.0, f64::from_le_bytes) as f32;
        Ok(match tensor.dtype {
            DType::F32 => bytes.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect(),
            DType::F64 => bytes.chunks_exact(8).map(wide).collect(),
            other => return Err(self.wrong_type(other, "a float tensor")),
        })
    }

    /// The elements of an integer tensor of any width, as i32 (saturated).
    pub fn read_i32(&self, tensor: &Tensor) -> Result<Vec<i32>, Error> {
        let bytes = self.read(tensor)?;
        let clamp = |v: i64| v.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        Ok(match tensor.dtype {
            DType::U8 | DType::Bool => bytes.iter().map(|&v| v.into()).collect(),
            DType::I8 => bytes.iter().map(|&v| (v as i8).into()).collect(),
            DType::U16 => bytes.as_chunks::<2>().0.iter().map(|c| u16::from_le_bytes(*c).into()).collect(),
            DType::I16 => bytes.as_chunks::<2>().0.iter().map(|c| i16::from_le_bytes(*c).into()).collect(),
            DType::I32 => bytes.as_chunks::<4>().0.iter().map(|c| i32::from_le_bytes(*c)).collect(),
            DType::I64 => bytes.as_chunks::<8>().0.iter().map(|c| clamp(i64::from_le_bytes(*c))).collect(),
            other => return Err(self.wrong_type(other, "an integer tensor")),
        })
    }

    fn wrong_type(&self, found: DType, wanted: &str) -> Error {
        Error::NotOnnx { path: self.path.clone(), reason: format!("{found:?} data where {wanted} is needed") }
    }
}

#[derive(Default)]
struct Parser {
    graph: Option<Graph>,
    opset: i64,
    metadata: Vec<(String, String)>,
}

fn limit<T>(list: &[T], what: &'static str, limit: usize) -> Result<(), WireError> {
    if list.len() >= limit { Err(WireError::Limit { what, limit: limit as u64 }) } else { Ok(()) }
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
                    let (mut domain, mut version) = (String::new(), 0);
                    c.message(r, |c, number, value| {
                        match (number, value) {
                            (1, Value::Bytes(r)) => domain = c.string(r, "operator set domain", MAX_NAME)?,
                            (2, Value::Varint(v)) => version = v as i64,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    if domain.is_empty() || domain == "ai.onnx" {
                        self.opset = version;
                    }
                }
                (14, Value::Bytes(r)) if r.end - r.start <= MAX_NAME => {
                    limit(&self.metadata, "metadata entries", MAX_LIST)?;
                    let (mut key, mut value) = (String::new(), String::new());
                    c.message(r, |c, number, field| {
                        match (number, field) {
                            (1, Value::Bytes(r)) => key = c.string(r, "metadata key", MAX_NAME)?,
                            (2, Value::Bytes(r)) => value = c.string(r, "metadata value", MAX_NAME)?,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    self.metadata.push((key, value));
                }
                _ => {}
            }
            Ok(())
        })
    }

    /// Constant nodes become constants; every input must be known before it is used, every name given once.
    fn finish(&mut self) -> Result<Graph, WireError> {
        let wrong = |text: String| Err(WireError::Meaning(text));
        let Some(mut graph) = self.graph.take() else { return wrong("it holds no graph".into()) };
        let nodes = std::mem::take(&mut graph.nodes);
        if nodes.is_empty() {
            return wrong("its graph has no nodes".into());
        }
        graph.inputs.retain(|i| !graph.constants.contains_key(&i.name));
        let mut known: HashSet<String> = graph.inputs.iter().map(|i| i.name.clone()).collect();
        known.extend(graph.constants.keys().cloned());
        for node in nodes {
            if let Some(input) = node.inputs.iter().find(|i| !i.is_empty() && !known.contains(*i)) {
                return wrong(format!("{} uses {input:?} before anything makes it", node.label()));
            }
            if MAP_OPERATORS.iter().any(|op| node.is(op)) && (node.input(0).is_none() || node.outputs.is_empty()) {
                return wrong(format!("{} has no input or no output", node.label()));
            }
            for output in node.outputs.iter().filter(|o| !o.is_empty()) {
                if !known.insert(output.clone()) {
                    return wrong(format!("two makers of value {output:?}"));
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
    let longs = |v: &[i64]| v.iter().flat_map(|i| i.to_le_bytes()).collect();
    let floats = |v: &[f32]| v.iter().flat_map(|i| i.to_le_bytes()).collect();
    match (name.as_str(), attr) {
        ("value", Attr::Tensor(t)) => Some(t.clone()),
        ("value_float", Attr::Float(f)) => Some(Tensor::from_bytes(DType::F32, vec![], floats(&[*f]))),
        ("value_floats", Attr::Floats(v)) => Some(Tensor::from_bytes(DType::F32, vec![v.len()], floats(v))),
        ("value_int", Attr::Int(i)) => Some(Tensor::from_bytes(DType::I64, vec![], longs(&[*i]))),
        ("value_ints", Attr::Ints(v)) => Some(Tensor::from_bytes(DType::I64, vec![v.len()], longs(v))),
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
                if graph.constants.len() >= MAX_TENSORS {
                    return Err(WireError::Limit { what: "initializers", limit: MAX_TENSORS as u64 });
                }
                let (name, tensor) = read_tensor(c, r)?;
                if let Some(tensor) = tensor
                    && graph.constants.insert(name.clone(), tensor).is_some()
                {
                    return Err(WireError::Meaning(format!("two initializers named {name:?}")));
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
    let mut name = String::new();
    let mut attr = Attr::Other;
    cursor.message(range, |c, number, value| {
        match (number, value) {
            (1, Value::Bytes(r)) => name = c.string(r, "attribute name", MAX_NAME)?,
            (2, Value::Fixed32(bits)) => attr = Attr::Float(f32::from_bits(bits)),
            (3, Value::Varint(v)) => attr = Attr::Int(v as i64),
            (4, Value::Bytes(r)) if r.end - r.start <= MAX_NAME => {
                attr = Attr::Str(String::from_utf8_lossy(&c.bytes(r, "attribute text", MAX_NAME)?).into_owned());
            }
            (5, Value::Bytes(r)) => {
                if let (_, Some(tensor)) = read_tensor(c, r)? {
                    attr = Attr::Tensor(tensor);
                }
            }
            (7, Value::Fixed32(bits)) => push(&mut attr, Attr::Floats(vec![f32::from_bits(bits)]))?,
            (7, Value::Bytes(r)) => {
                let bytes = c.bytes(r, "attribute floats", 4 * MAX_LIST as u64)?;
                let floats = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                push(&mut attr, Attr::Floats(floats))?;
            }
            (8, Value::Varint(v)) => push(&mut attr, Attr::Ints(vec![v as i64]))?,
            (8, Value::Bytes(r)) => {
                if r.end - r.start > 10 * MAX_LIST as u64 {
                    return Err(WireError::Limit { what: "attribute integers", limit: MAX_LIST as u64 });
                }
                let mut ints = Vec::new();
                c.varints(r, |v| ints.push(v as i64))?;
                push(&mut attr, Attr::Ints(ints))?;
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok((name, attr))
}

fn push(attr: &mut Attr, more: Attr) -> Result<(), WireError> {
    match (&mut *attr, more) {
        (Attr::Floats(list), Attr::Floats(more)) => {
            limit(list, "attribute floats", MAX_LIST)?;
            list.extend(more);
        }
        (Attr::Ints(list), Attr::Ints(more)) => {
            limit(list, "attribute integers", MAX_LIST)?;
            list.extend(more);
        }
        (_, more) => *attr = more,
    }
    Ok(())
}

/// None for a tensor of a type that no supported network computes with (text, complex numbers).
fn read_tensor(cursor: &mut Cursor, range: Range<u64>) -> Result<(String, Option<Tensor>), WireError> {
    let (mut name, mut code) = (String::new(), 0);
    let mut dims: Vec<u64> = Vec::new();
    let mut data: Vec<Chunk> = Vec::new();
    let mut external: Option<String> = None;
    cursor.message(range, |c, number, value| {
        limit(&data, "pieces of a tensor", MAX_CHUNKS)?;
        match (number, value) {
            (1, Value::Varint(v)) => {
                limit(&dims, "dimensions", MAX_RANK)?;
                dims.push(v);
            }
            (1, Value::Bytes(r)) => {
                if r.end - r.start > 10 * MAX_RANK as u64 {
                    return Err(WireError::Limit { what: "dimensions", limit: MAX_RANK as u64 });
                }
                c.varints(r, |v| dims.push(v))?;
            }
            (2, Value::Varint(v)) => code = v,
            (4, Value::Fixed32(bits)) => data.push(Chunk::Number(bits.into())),
            (10, Value::Fixed64(bits)) => data.push(Chunk::Number(bits)),
            (4 | 9 | 10, Value::Bytes(r)) => data.push(Chunk::Plain(r)),
            (5 | 7 | 11, Value::Varint(v)) => data.push(Chunk::Number(v)),
            (5 | 7 | 11, Value::Bytes(r)) => data.push(Chunk::Varints(r)),
            (8, Value::Bytes(r)) => name = c.string(r, "tensor name", MAX_NAME)?,
            (13, Value::Bytes(r)) => {
                let (mut key, mut text) = (String::new(), String::new());
                c.message(r, |c, number, value| {
                    match (number, value) {
                        (1, Value::Bytes(r)) => key = c.string(r, "external data key", MAX_NAME)?,
                        (2, Value::Bytes(r)) => text = c.string(r, "external data value", MAX_NAME)?,
                        _ => {}
                    }
                    Ok(())
                })?;
                if key == "location" {
                    external = Some(text);
                }
            }
            (14, Value::Varint(1)) => _ = external.get_or_insert_default(),
            _ => {}
        }
        Ok(())
    })?;
    if let Some(file) = external {
        return Err(WireError::Meaning(format!(
            "the data of tensor {name:?} lies in another file ({file:?}); save the model as one file"
        )));
    }
    let Some(dtype) = DType::from_code(code) else { return Ok((name, None)) };
    let sizes: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    // A dimension of 0 counts as 1, so that no part of the product is larger than the whole.
    let most = sizes.as_ref().and_then(|s| s.iter().try_fold(dtype.size(), |n, &d| n.checked_mul(d.max(1))));
    let (Some(dims), true) = (sizes, most.is_some_and(|n| n <= MAX_TENSOR)) else {
        return Err(WireError::Meaning(format!("tensor {name:?} has an impossible shape {dims:?}")));
    };
    let total = dims.iter().product::<usize>() * dtype.size();
    let (mut least, mut most) = (0, 0);
    for chunk in &data {
        let (lo, hi) = match chunk {
            Chunk::Plain(r) => (r.end - r.start, r.end - r.start),
            Chunk::Varints(r) => ((r.end - r.start) / 10, (r.end - r.start) * dtype.size() as u64),
            _ => (dtype.size() as u64, dtype.size() as u64),
        };
        least += lo;
        most += hi;
    }
    if (total as u64) < least || (total as u64) > most {
        let text = format!("tensor {name:?} of shape {dims:?} does not have as much data as its shape says");
        return Err(WireError::Meaning(text));
    }
    Ok((name, Some(Tensor { dtype, dims, data })))
}

fn read_value_info(cursor: &mut Cursor, range: Range<u64>) -> Result<ValueInfo, WireError> {
    let mut info = ValueInfo { name: String::new(), dtype: None, dims: Vec::new() };
    let mut shape = Vec::new();
    cursor.message(range, |c, number, value| {
        match (number, value) {
            (1, Value::Bytes(r)) => info.name = c.string(r, "value name", MAX_NAME)?,
            (2, Value::Bytes(r)) => c.message(r, |c, number, value| {
                let (1, Value::Bytes(r)) = (number, value) else { return Ok(()) };
                c.message(r, |_, number, value| {
                    match (number, value) {
                        (1, Value::Varint(v)) => info.dtype = DType::from_code(v),
                        (2, Value::Bytes(r)) => shape.push(r),
                        _ => {}
                    }
                    Ok(())
                })
            })?,
            _ => {}
        }
        Ok(())
    })?;
    for r in shape {
        cursor.message(r, |c, number, value| {
            let (1, Value::Bytes(r)) = (number, value) else { return Ok(()) };
            limit(&info.dims, "dimensions", MAX_RANK)?;
            let mut dim = None;
            c.message(r, |_, number, value| {
                if let (1, Value::Varint(v)) = (number, value) {
                    dim = i64::from_ne_bytes(v.to_ne_bytes()).try_into().ok().filter(|&d: &usize| d > 0);
                }
                Ok(())
            })?;
            info.dims.push(dim);
            Ok(())
        })?;
    }
    Ok(info)
}
