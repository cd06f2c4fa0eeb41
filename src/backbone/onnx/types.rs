//! A graph as ONNX has it: nodes, constants, inputs and outputs.

use std::collections::HashMap;

use super::tensor::{DType, Tensor};

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

/// Nodes in an order in which every input that a node makes is made before it is used.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub constants: HashMap<String, Tensor>,
    /// Constants of types that nothing computes with, with the code of the type.
    pub unsupported: HashMap<String, u64>,
    pub inputs: Vec<ValueInfo>,
    pub outputs: Vec<ValueInfo>,
}

impl Graph {
    /// The node that makes a value. For many values see [`super::index::Index`].
    pub fn producer(&self, value: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.outputs.iter().any(|output| output == value))
    }

    /// Lets every node that reads a renamed value read the other.
    pub fn rename_inputs(&mut self, renamed: &HashMap<String, String>) {
        for input in self.nodes.iter_mut().flat_map(|node| &mut node.inputs) {
            if let Some(name) = renamed.get(input) {
                *input = name.clone();
            }
        }
    }
}

/// Whether a domain is that of the standard operators.
pub(super) fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}
