//! Writes ONNX models: protobuf of the types that tract has, tensor data raw.

use prost::Message;
use tract_onnx::pb;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};

use super::tensor::DType;
use super::types::{Attr, Node};

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

const IR_VERSION: i64 = 8;

impl Model {
    /// The ONNX file. The same model always gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let entry =
            |(key, value): &(String, String)| pb::StringStringEntryProto { key: key.clone(), value: value.clone() };
        let graph = pb::GraphProto {
            name: self.name.clone(),
            node: self.nodes.iter().map(node).collect(),
            initializer: self.initializers.iter().cloned().map(tensor).collect(),
            input: self.inputs.iter().map(value_info).collect(),
            output: self.outputs.iter().map(value_info).collect(),
            ..Default::default()
        };
        let model = pb::ModelProto {
            producer_name: env!("CARGO_PKG_NAME").into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            metadata_props: self.metadata.iter().map(entry).collect(),
            ..model(graph, &self.opsets)
        };
        model.encode_to_vec()
    }
}

/// A graph as a model; operator sets by domain.
pub fn model(graph: pb::GraphProto, opsets: &[(String, i64)]) -> pb::ModelProto {
    let opset =
        |(domain, version): &(String, i64)| pb::OperatorSetIdProto { domain: domain.clone(), version: *version };
    pb::ModelProto {
        ir_version: IR_VERSION,
        opset_import: opsets.iter().map(opset).collect(),
        graph: Some(graph),
        ..Default::default()
    }
}

pub fn tensor(initializer: Initializer) -> pb::TensorProto {
    pb::TensorProto {
        name: initializer.name,
        dims: initializer.dims.iter().map(|&d| d as i64).collect(),
        data_type: initializer.dtype as i32,
        raw_data: initializer.bytes,
        ..Default::default()
    }
}

/// A node without its attributes that hold tensors or sub-graphs.
pub fn node(node: &Node) -> pb::NodeProto {
    pb::NodeProto {
        input: node.inputs.clone(),
        output: node.outputs.clone(),
        name: node.name.clone(),
        op_type: node.op.clone(),
        domain: node.domain.clone(),
        attribute: node.attrs.iter().filter_map(|(name, attr)| attribute(name, attr)).collect(),
        ..Default::default()
    }
}

fn attribute(name: &str, attr: &Attr) -> Option<pb::AttributeProto> {
    let empty =
        |r#type: AttributeType| pb::AttributeProto { name: name.into(), r#type: r#type.into(), ..Default::default() };
    Some(match attr {
        Attr::Float(f) => pb::AttributeProto { f: *f, ..empty(AttributeType::Float) },
        Attr::Int(i) => pb::AttributeProto { i: *i, ..empty(AttributeType::Int) },
        Attr::Str(s) => pb::AttributeProto { s: s.clone().into_bytes(), ..empty(AttributeType::String) },
        Attr::Floats(list) => pb::AttributeProto { floats: list.clone(), ..empty(AttributeType::Floats) },
        Attr::Ints(list) => pb::AttributeProto { ints: list.clone(), ..empty(AttributeType::Ints) },
        Attr::Tensor(_) | Attr::Other => return None,
    })
}

pub fn value_info(io: &Io) -> pb::ValueInfoProto {
    let dim = |dim: &Dim| {
        let value = match dim {
            Dim::Fixed(n) => dimension::Value::DimValue(*n as i64),
            Dim::Named(name) => dimension::Value::DimParam(name.clone()),
        };
        Dimension { value: Some(value), ..Default::default() }
    };
    let shape = pb::TensorShapeProto { dim: io.dims.iter().map(dim).collect() };
    let tensor = pb::type_proto::Tensor { elem_type: io.dtype as i32, shape: Some(shape) };
    let r#type = pb::TypeProto { value: Some(pb::type_proto::Value::TensorType(tensor)), ..Default::default() };
    pb::ValueInfoProto { name: io.name.clone(), r#type: Some(r#type), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::model;
    use super::super::source::Source;
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
                    .with("auto_pad", Attr::Str("NOTSET".into()))
                    .with("axis", Attr::Int(0))
                    .with("beta", Attr::Float(0.0))
                    .with("activation", Attr::Str(String::new()))
                    .with("activation_params", Attr::Floats(vec![0.0, 6.0])),
            ],
            initializers: vec![
                Initializer::f32("w", &[1, 3, 1, 1], &[1.0, -2.5, 3e9]),
                Initializer::i8("b", &[300], &[-7; 300]),
            ],
            inputs: vec![Io { name: "x".into(), dtype: DType::F32, dims: vec![Dim::Named("N".into()), Dim::Fixed(3)] }],
            outputs: vec![Io::fixed("y", DType::F32, &[1, 1])],
        };
        let read = model::Model::parse(Path::new("small.onnx"), Source::Bytes(model.to_bytes().into())).unwrap();
        assert_eq!(read.opset, 13);
        assert_eq!(read.metadata("outlierd.input"), Some("torch"));
        assert_eq!(read.graph.nodes, model.nodes);
        assert_eq!(read.graph.inputs[0].dims, [None, Some(3)]);
        assert_eq!(read.read_f32(&read.graph.constants["w"]).unwrap(), [1.0, -2.5, 3e9]);
        assert_eq!(read.read_i32(&read.graph.constants["b"]).unwrap(), [-7; 300]);
    }
}
