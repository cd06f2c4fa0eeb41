//! Operators that scale and shift each channel of a map by constants.

use crate::backbone::error::Error;
use crate::backbone::onnx::{DType, Graph, Model, Node};

/// A per-channel map `scale * x + shift`, one value for all channels or one for each.
#[derive(Debug, Clone, PartialEq)]
pub struct Affine {
    pub scale: Vec<f64>,
    pub shift: Vec<f64>,
}

/// Which dimension of a map the channels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    ChannelsFirst,
    ChannelsLast,
}

/// The value that a node maps channel by channel, and how; None for any other node.
///
/// # Errors
/// The constants cannot be read.
pub fn affine<'g>(
    model: &Model,
    graph: &'g Graph,
    node: &'g Node,
    layout: Layout,
) -> Result<Option<(&'g str, Affine)>, Error> {
    let Some(x) = node.input(0) else { return Ok(None) };
    if node.is("BatchNormalization") && layout == Layout::ChannelsFirst {
        let mut rows = Vec::new();
        for i in 1..5 {
            let Some(tensor) = node.input(i).and_then(|name| graph.constants.get(name)) else { return Ok(None) };
            rows.push(model.read_f32(tensor)?);
        }
        let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
        let [gamma, beta, mean, var] = &rows[..] else { return Ok(None) };
        let n = gamma.len().min(beta.len()).min(mean.len()).min(var.len());
        let scale: Vec<f64> = (0..n).map(|c| f64::from(gamma[c]) / (f64::from(var[c]) + epsilon).sqrt()).collect();
        let shift = (0..n).map(|c| f64::from(beta[c]) - f64::from(mean[c]) * scale[c]).collect();
        return Ok(Some((x, Affine { scale, shift })));
    }
    let [a, b] = &node.inputs[..] else { return Ok(None) };
    let (x, constant, swapped) = match (graph.constants.get(a), graph.constants.get(b)) {
        (None, Some(constant)) => (a, constant, false),
        (Some(constant), None) => (b, constant, true),
        _ => return Ok(None),
    };
    let per_channel = matches!(
        (&constant.dims[..], layout),
        ([] | [1] | [1, 1, 1] | [1, 1, 1, 1], _)
            | ([_, 1, 1] | [1, _, 1, 1], Layout::ChannelsFirst)
            | ([_] | [1, 1, _] | [1, 1, 1, _], Layout::ChannelsLast)
    );
    if !per_channel || constant.dtype != DType::F32 || !node.is_standard() {
        return Ok(None);
    }
    let values: Vec<f64> = model.read_f32(constant)?.into_iter().map(f64::from).collect();
    let all = |f: fn(f64) -> f64| values.iter().map(|&v| f(v)).collect::<Vec<f64>>();
    let (scale, shift) = match (node.op.as_str(), swapped) {
        ("Mul", _) => (all(|v| v), vec![0.0]),
        ("Add", _) => (vec![1.0], all(|v| v)),
        ("Sub", false) => (vec![1.0], all(|v| -v)),
        ("Sub", true) => (vec![-1.0], all(|v| v)),
        ("Div", false) if values.iter().all(|&v| v != 0.0) => (all(|v| 1.0 / v), vec![0.0]),
        _ => return Ok(None),
    };
    Ok(Some((x, Affine { scale, shift })))
}
