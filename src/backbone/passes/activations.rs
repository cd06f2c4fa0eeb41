//! Operators that compute value by value: which there are, the bounds that they set, the value in front of them.

use std::collections::HashMap;

use crate::backbone::error::Error;
use crate::backbone::onnx::{DType, Graph, Model, Node};

/// Operators of one map that compute each of its values by itself.
pub fn is_activation(op: &str) -> bool {
    const KNOWN: &str = "Abs Celu Clip Elu Erf Exp Gelu HardSigmoid HardSwish LeakyRelu Log Mish Neg PRelu Reciprocal \
        Relu Selu Shrink Sigmoid Softplus Softsign Sqrt Swish Tanh ThresholdedRelu";
    KNOWN.split(' ').any(|known| known == op)
}

/// Operators of several maps that compute value by value.
pub fn is_arithmetic(op: &str) -> bool {
    const KNOWN: &str = "Add Div Max Min Mul Pow Sub Sum";
    KNOWN.split(' ').any(|known| known == op)
}

/// The values that a `Relu` or `Clip` with constant bounds makes, with its input and bounds.
#[derive(Debug)]
pub struct Activations<'g>(HashMap<&'g str, (&'g str, [f32; 2])>);

impl<'g> Activations<'g> {
    /// # Errors
    /// The bounds of a `Clip` cannot be read.
    pub fn of(model: &Model, graph: &'g Graph) -> Result<Activations<'g>, Error> {
        let mut found = HashMap::new();
        for node in &graph.nodes {
            if let (Some(x), Some(output), Some(bounds)) =
                (node.input(0), node.outputs.first(), bounds(model, graph, node)?)
            {
                found.insert(output.as_str(), (x, bounds));
            }
        }
        Ok(Activations(found))
    }

    /// Whether the value is made by one.
    pub fn contains(&self, value: &str) -> bool {
        self.0.contains_key(value)
    }

    /// Walks up from a value as long as an activation makes it whose input passes `through`: the value in front of
    /// them, and the bounds that they set together.
    pub fn source(&self, mut value: &'g str, through: impl Fn(&'g str) -> bool) -> (&'g str, [f32; 2]) {
        let mut bounds = [f32::NEG_INFINITY, f32::INFINITY];
        while let Some(&(x, own)) = self.0.get(value).filter(|(x, _)| through(x)) {
            bounds = own.map(|bound| bound.clamp(bounds[0], bounds[1]));
            value = x;
        }
        (value, bounds)
    }
}

/// Least and greatest value behind a `Relu` or `Clip`; None for another operator, or bounds that are not constant.
fn bounds(model: &Model, graph: &Graph, node: &Node) -> Result<Option<[f32; 2]>, Error> {
    if node.is("Relu") {
        return Ok(Some([0.0, f32::INFINITY]));
    }
    if !node.is("Clip") {
        return Ok(None);
    }
    let bound = |i: usize, name: &str, none: f32| -> Result<Option<f32>, Error> {
        let Some(input) = node.input(i) else { return Ok(Some(node.float(name).unwrap_or(none))) };
        let tensor = graph.constants.get(input).filter(|t| t.len() == 1 && t.dtype == DType::F32);
        tensor.map(|t| Ok(model.read_f32(t)?[0])).transpose()
    };
    let (lo, hi) = (bound(1, "min", f32::NEG_INFINITY)?, bound(2, "max", f32::INFINITY)?);
    Ok(lo.zip(hi).filter(|(lo, hi)| lo <= hi).map(|(lo, hi)| [lo, hi]))
}
