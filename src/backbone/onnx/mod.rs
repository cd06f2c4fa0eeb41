//! ONNX models: a graph of nodes, read within limits, looked up by value, written.

mod elements;
mod index;
mod model;
mod reader;
mod source;
mod tensor;
mod types;
mod wire;
pub mod writer;

pub use index::Index;
pub use model::Model;
pub use source::Source;
pub use tensor::{DType, Tensor, type_name};
pub use types::{Attr, Graph, Node, ValueInfo};
