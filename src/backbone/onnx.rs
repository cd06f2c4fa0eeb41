//! ONNX models: the parts of `ModelProto` that a network needs. Tensor data stays in the file until it is asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use sha2::{Digest, Sha256};

use super::error::Error;
use super::tensor;
use super::wire::{Cursor, MAX_NAME, Source, Value, WireError, limit};

pub use super::tensor::{DType, Tensor};

const MAX_NODES: usize = 10_000;
const MAX_TENSORS: usize = 100_000;
const MAX_ATTRIBUTES: usize = 64;
const MAX_LIST: usize = 4096;
const MAX_RANK: usize = 8;
/// Bytes of the model and of the files beside it.
const MAX_BYTES: u64 = 1 << 30;

/// Operators that make a map of a map: each has an input and an output.
const MAP_OPERATORS: [&str; 8] =
    ["QuantizeLinear", "DequantizeLinear", "Conv", "Relu", "Clip", "Add", "MaxPool", "Pad"];

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
    /// Whether the file says itself what the operator does.
    pub function: bool,
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
        self.op == op && self.is_standard()
    }

    /// Whether the operator is one of the standard domain.
    pub fn is_standard(&self) -> bool {
        !self.function && is_standard(&self.domain)
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

fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// Nodes in an order in which every input that a node makes is made before it is used.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub constants: HashMap<String, Tensor>,
    /// Constants of types that nothing computes with, with the code of the type.
    pub unread: HashMap<String, u64>,
    pub inputs: Vec<ValueInfo>,
    pub outputs: Vec<ValueInfo>,
}

impl Graph {
    /// The nodes that read each value, each once; what only asks for a shape does not count.
    pub fn readers(&self) -> HashMap<&str, Vec<&Node>> {
        let mut readers: HashMap<&str, Vec<&Node>> = HashMap::new();
        for node in self.nodes.iter().filter(|n| !n.is("Shape")) {
            for value in node.inputs.iter().filter(|v| !v.is_empty()) {
                let list = readers.entry(value).or_default();
                if !list.last().is_some_and(|last| std::ptr::eq(*last, node)) {
                    list.push(node);
                }
            }
        }
        readers
    }
}

/// A model with the place of its data.
#[derive(Debug)]
pub struct Model {
    pub path: PathBuf,
    pub source: Source,
    /// Where files of tensor data lie, and their names and sizes.
    pub folder: Option<PathBuf>,
    pub beside: BTreeMap<String, u64>,
    /// Version of the standard operator set.
    pub opset: i64,
    pub metadata: Vec<(String, String)>,
    pub graph: Graph,
    /// Bytes of tensor data that were read.
    pub read: AtomicU64,
}

impl Model {
    #[cfg(any(test, feature = "internals"))]
    /// Reads everything but tensor data of a model that is one file. `path` names the model in errors.
    pub fn parse(path: &Path, source: Source) -> Result<Model, Error> {
        Model::parse_in(path, source, None)
    }

    /// Reads everything but tensor data, which may lie in files of `folder`.
    pub fn parse_in(path: &Path, source: Source, folder: Option<&Path>) -> Result<Model, Error> {
        let mut parser = Parser::default();
        let mut cursor = Cursor::new(&source);
        let read = parser.model(&mut cursor, 0..source.len()).and_then(|()| parser.finish());
        let graph = read.map_err(|error| match error {
            WireError::Io(source) => Error::Io { path: path.into(), source },
            error => {
                let reason = other_kind(&source).map_or_else(|| error.to_string(), str::to_string);
                Error::NotOnnx { path: path.into(), reason }
            }
        })?;
        let mut beside = BTreeMap::new();
        for file in graph.constants.values().filter_map(Tensor::external) {
            if !beside.contains_key(file) {
                beside.insert(file.to_string(), tensor::beside(path, folder, file)?.len());
            }
        }
        let (opset, metadata, read) = (parser.opset, parser.metadata, AtomicU64::new(0));
        let folder = folder.map(Path::to_path_buf);
        let model = Model { path: path.into(), opset, metadata, graph, source, folder, beside, read };
        if model.bytes() > MAX_BYTES {
            let reason = format!("with the files of its tensor data it is larger than {MAX_BYTES} bytes");
            return Err(Error::Unsupported { path: model.path, reason });
        }
        Ok(model)
    }

    /// Bytes of the model and of the files beside it.
    pub fn bytes(&self) -> u64 {
        self.beside.values().fold(self.source.len(), |sum, len| sum.saturating_add(*len))
    }

    /// SHA-256 of the model, whose own file has the hash `own`; with files beside it that of all hashes, by name.
    pub fn sha256(&self, own: [u8; 32]) -> Result<[u8; 32], Error> {
        if self.beside.is_empty() {
            return Ok(own);
        }
        let mut all = Sha256::new();
        all.update(own);
        for file in self.beside.keys() {
            let source = tensor::beside(&self.path, self.folder.as_deref(), file)?;
            all.update(source.sha256().map_err(|source| Error::Io { path: self.path.clone(), source })?);
        }
        Ok(all.finalize().into())
    }

    /// The value of a `metadata_props` entry.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

#[derive(Default)]
struct Parser {
    graph: Option<Graph>,
    opset: i64,
    metadata: Vec<(String, String)>,
    /// Domain and name of the operators that the file says itself.
    functions: HashSet<(String, String)>,
}

/// What a file is that is not ONNX, by how it begins.
fn other_kind(source: &Source) -> Option<&'static str> {
    let mut head = [0; 64];
    let n = source.len().min(head.len() as u64) as usize;
    source.read_at(&mut head[..n], 0).ok()?;
    let kinds: [(usize, &[u8], &str); 8] = [
        (
            0,
            b"version https://git-lfs",
            "it is a pointer of Git LFS, not the network itself: fetch that with 'git lfs pull' or from where the pointer is",
        ),
        (4, b"ORTM", "it is in ONNX Runtime's own format (.ort); give the ONNX file that it was made from"),
        (4, b"TFL3", "it is a TensorFlow Lite file; export the network as ONNX"),
        (0, b"PK\x03\x04", "it is a zip archive, as PyTorch and Keras write; export the network as ONNX, or unpack it"),
        (0, b"\x89HDF", "it is an HDF5 file, as Keras writes; export the network as ONNX"),
        (0, b"\x1f\x8b", "it is packed with gzip; unpack it first"),
        (0, b"<!DOCTYPE", "it is a web page; download the file itself"),
        (0, b"<html", "it is a web page; download the file itself"),
    ];
    let is = |at: usize, magic: &[u8]| head[at..at + magic.len()].eq_ignore_ascii_case(magic);
    kinds.into_iter().find(|(at, magic, _)| is(*at, magic)).map(|(.., what)| what)
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
                    if is_standard(&domain) {
                        self.opset = version;
                    }
                }
                (14, Value::Bytes(r)) if r.end - r.start <= MAX_NAME => {
                    limit(&self.metadata, "metadata entries", MAX_LIST)?;
                    self.metadata.push(c.entry(r, "metadata", MAX_NAME)?);
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
        graph.inputs.retain(|i| !graph.constants.contains_key(&i.name) && !graph.unread.contains_key(&i.name));
        let made: HashSet<String> = nodes.iter().flat_map(|n| &n.outputs).cloned().collect();
        let mut known: HashSet<String> = graph.inputs.iter().map(|i| i.name.clone()).collect();
        known.extend(graph.constants.keys().cloned());
        for mut node in nodes {
            let domain = if is_standard(&node.domain) { "" } else { &node.domain };
            node.function = self.functions.contains(&(domain.to_string(), node.op.clone()));
            if let Some(input) = node.inputs.iter().find(|i| made.contains(*i) && !i.is_empty() && !known.contains(*i))
            {
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
                if graph.constants.len() + graph.unread.len() >= MAX_TENSORS {
                    return Err(WireError::Limit { what: "initializers", limit: MAX_TENSORS as u64 });
                }
                match Tensor::parse(c, r)? {
                    (name, Ok(tensor)) => {
                        if graph.constants.insert(name.clone(), tensor).is_some() {
                            return Err(WireError::Meaning(format!("two initializers named {name:?}")));
                        }
                    }
                    (name, Err(code)) => _ = graph.unread.insert(name, code),
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
    let (mut kind, mut has_value) = (0, false);
    cursor.message(range, |c, number, value| {
        has_value |= (2..=11).contains(&number);
        match (number, value) {
            (1, Value::Bytes(r)) => name = c.string(r, "attribute name", MAX_NAME)?,
            (2, Value::Fixed32(bits)) => attr = Attr::Float(f32::from_bits(bits)),
            (3, Value::Varint(v)) => attr = Attr::Int(v as i64),
            (4, Value::Bytes(r)) if r.end - r.start <= MAX_NAME => {
                attr = Attr::Str(String::from_utf8_lossy(&c.bytes(r, "attribute text", MAX_NAME)?).into_owned());
            }
            (5, Value::Bytes(r)) => {
                if let (_, Ok(tensor)) = Tensor::parse(c, r)? {
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
            (20, Value::Varint(code)) => kind = code,
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
    // In proto3 a number or text that is its type's default is left out.
    let attr = match kind {
        1 if !has_value => Attr::Float(0.0),
        2 if !has_value => Attr::Int(0),
        3 if !has_value => Attr::Str(String::new()),
        _ => attr,
    };
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
