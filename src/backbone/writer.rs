//! Writes ONNX models: protobuf out, tensor data raw.

use std::io::{self, Write};

use super::onnx::{Attr, DType, Node};

/// A constant of the graph with its little-endian elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Initializer {
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Initializer {
    pub fn f32(name: &str, dims: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Initializer { name: name.into(), dtype: DType::F32, dims: dims.into(), bytes }
    }

    #[cfg(any(test, feature = "internals"))]
    pub fn i32(name: &str, dims: &[usize], values: &[i32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Initializer { name: name.into(), dtype: DType::I32, dims: dims.into(), bytes }
    }

    pub fn i64(name: &str, dims: &[usize], values: &[i64]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Initializer { name: name.into(), dtype: DType::I64, dims: dims.into(), bytes }
    }

    #[cfg(any(test, feature = "internals"))]
    pub fn i8(name: &str, dims: &[usize], values: &[i8]) -> Self {
        let bytes = values.iter().map(|&v| v as u8).collect();
        Initializer { name: name.into(), dtype: DType::I8, dims: dims.into(), bytes }
    }

    #[cfg(any(test, feature = "internals"))]
    pub fn u8(name: &str, dims: &[usize], values: &[u8]) -> Self {
        Initializer { name: name.into(), dtype: DType::U8, dims: dims.into(), bytes: values.into() }
    }
}

/// One dimension of an input or output.
#[derive(Debug, Clone, PartialEq)]
pub enum Dim {
    Fixed(usize),
    /// A dimension that is known at run time only, by its name.
    Named(String),
}

/// A graph input or output.
#[derive(Debug, Clone, PartialEq)]
pub struct Io {
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<Dim>,
}

#[cfg(any(test, feature = "internals"))]
impl Io {
    pub fn fixed(name: &str, dtype: DType, dims: &[usize]) -> Io {
        Io { name: name.into(), dtype, dims: dims.iter().map(|&d| Dim::Fixed(d)).collect() }
    }
}

/// A model to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub name: String,
    /// Operator sets by domain; the standard domain is the empty name.
    pub opsets: Vec<(String, i64)>,
    pub metadata: Vec<(String, String)>,
    pub nodes: Vec<Node>,
    pub initializers: Vec<Initializer>,
    pub inputs: Vec<Io>,
    pub outputs: Vec<Io>,
}

const IR_VERSION: u64 = 8;

impl Model {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // Writing into memory cannot fail.
        let _ = self.write(&mut out);
        out
    }

    /// Writes the model, one tensor at a time.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut head = Message::default();
        head.int(1, IR_VERSION);
        head.text(2, env!("CARGO_PKG_NAME"));
        head.text(3, env!("CARGO_PKG_VERSION"));
        let mut tail = Message::default();
        for (domain, version) in &self.opsets {
            tail.message(8, |m| {
                m.text(1, domain);
                m.int(2, *version as u64);
            });
        }
        for (key, value) in &self.metadata {
            tail.message(14, |m| {
                m.text(1, key);
                m.text(2, value);
            });
        }
        let mut graph = Message::default();
        for node in &self.nodes {
            graph.message(1, |m| write_node(m, node));
        }
        graph.text(2, &self.name);
        for io in &self.inputs {
            graph.message(11, |m| write_io(m, io));
        }
        for io in &self.outputs {
            graph.message(12, |m| write_io(m, io));
        }
        let heads: Vec<(Vec<u8>, &Initializer)> = self.initializers.iter().map(|t| (tensor_head(t), t)).collect();
        let sizes = heads.iter().map(|(head, t)| {
            let inner = head.len() + t.bytes.len();
            1 + varint_len(inner as u64) + inner
        });
        let graph_len = graph.0.len() + sizes.sum::<usize>();
        head.key(7, 2);
        head.varint(graph_len as u64);
        out.write_all(&head.0)?;
        out.write_all(&graph.0)?;
        for (head, tensor) in &heads {
            let mut prefix = Message::default();
            prefix.key(5, 2);
            prefix.varint((head.len() + tensor.bytes.len()) as u64);
            out.write_all(&prefix.0)?;
            out.write_all(head)?;
            out.write_all(&tensor.bytes)?;
        }
        out.write_all(&tail.0)
    }
}

/// Everything of a `TensorProto` up to its raw data.
fn tensor_head(tensor: &Initializer) -> Vec<u8> {
    let mut m = Message::default();
    for &d in &tensor.dims {
        m.int(1, d as u64);
    }
    m.int(2, tensor.dtype as u64);
    m.text(8, &tensor.name);
    m.key(9, 2);
    m.varint(tensor.bytes.len() as u64);
    m.0
}

fn write_node(m: &mut Message, node: &Node) {
    for input in &node.inputs {
        m.text(1, input);
    }
    for output in &node.outputs {
        m.text(2, output);
    }
    m.text(3, &node.name);
    m.text(4, &node.op);
    for (name, attr) in &node.attrs {
        m.message(5, |m| write_attribute(m, name, attr));
    }
    if !node.domain.is_empty() {
        m.text(7, &node.domain);
    }
}

fn write_attribute(m: &mut Message, name: &str, attr: &Attr) {
    m.text(1, name);
    match attr {
        Attr::Float(f) => {
            m.key(2, 5);
            m.0.extend_from_slice(&f.to_le_bytes());
            m.int(20, 1);
        }
        Attr::Int(i) => {
            m.int(3, *i as u64);
            m.int(20, 2);
        }
        Attr::Str(s) => {
            m.text(4, s);
            m.int(20, 3);
        }
        Attr::Floats(list) => {
            for f in list {
                m.key(7, 5);
                m.0.extend_from_slice(&f.to_le_bytes());
            }
            m.int(20, 6);
        }
        Attr::Ints(list) => {
            for i in list {
                m.int(8, *i as u64);
            }
            m.int(20, 7);
        }
        Attr::Tensor(_) | Attr::Other => {}
    }
}

fn write_io(m: &mut Message, io: &Io) {
    m.text(1, &io.name);
    m.message(2, |m| {
        m.message(1, |m| {
            m.int(1, io.dtype as u64);
            m.message(2, |m| {
                for dim in &io.dims {
                    m.message(1, |m| match dim {
                        Dim::Fixed(n) => m.int(1, *n as u64),
                        Dim::Named(name) => m.text(2, name),
                    });
                }
            });
        });
    });
}

fn varint_len(v: u64) -> usize {
    (64 - (v | 1).leading_zeros() as usize).div_ceil(7)
}

#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.0.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
    }

    fn key(&mut self, number: u64, wire: u64) {
        self.varint(number << 3 | wire);
    }

    fn int(&mut self, number: u64, v: u64) {
        self.key(number, 0);
        self.varint(v);
    }

    fn text(&mut self, number: u64, s: &str) {
        self.key(number, 2);
        self.varint(s.len() as u64);
        self.0.extend_from_slice(s.as_bytes());
    }

    fn message(&mut self, number: u64, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.key(number, 2);
        self.varint(inner.0.len() as u64);
        self.0.extend_from_slice(&inner.0);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::onnx;
    use super::super::wire::Source;
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let model = Model {
            name: "small".into(),
            opsets: vec![("".into(), 13)],
            metadata: vec![("outlierd.input".into(), "torch".into())],
            nodes: vec![
                Node::new("Conv", &["x", "w", "b"], &["y"])
                    .with("strides", Attr::Ints(vec![2, 2]))
                    .with("group", Attr::Int(-1))
                    .with("alpha", Attr::Float(0.5))
                    .with("auto_pad", Attr::Str("NOTSET".into())),
            ],
            initializers: vec![
                Initializer::f32("w", &[1, 3, 1, 1], &[1.0, -2.5, 3e9]),
                Initializer::i8("b", &[300], &[-7; 300]),
            ],
            inputs: vec![Io { name: "x".into(), dtype: DType::F32, dims: vec![Dim::Named("N".into()), Dim::Fixed(3)] }],
            outputs: vec![Io::fixed("y", DType::F32, &[1, 1])],
        };
        let read = onnx::Model::parse(Path::new("small.onnx"), Source::Bytes(model.to_bytes().into())).unwrap();
        assert_eq!(read.opset, 13);
        assert_eq!(read.metadata("outlierd.input"), Some("torch"));
        assert_eq!(read.graph.nodes, model.nodes);
        assert_eq!(read.graph.inputs[0].dims, [None, Some(3)]);
        assert_eq!(read.read_f32(&read.graph.constants["w"]).unwrap(), [1.0, -2.5, 3e9]);
        assert_eq!(read.read_i32(&read.graph.constants["b"]).unwrap(), [-7; 300]);
    }

    #[test]
    fn varint_lengths() {
        for v in [0, 1, 127, 128, 16_383, 16_384, u64::MAX] {
            let mut m = Message::default();
            m.varint(v);
            assert_eq!(m.0.len(), varint_len(v), "{v}");
        }
    }
}
