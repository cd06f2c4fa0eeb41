//! Brings a float network to convolutions with bias: batch norm and its like go into the weights, explicit padding
//! into the operator behind it, `auto_pad` and `ceil_mode` become plain pads.
//!
//! A batch norm behind a convolution is an affine map of each of its channels: with `a = gamma / sqrt(var + epsilon)`
//! the weights become `a w` and the bias `a (b - mean) + beta` (Jacob et al. 2018, section 3.2).

use std::collections::HashMap;

use crate::backbone::error::Error;
use crate::backbone::onnx::{Attr, DType, Graph, Index, Model, Node, Tensor};
use crate::backbone::passes::affine::{Layout, affine};
use crate::backbone::passes::pads;
use crate::backbone::passes::window::{self, pair};

/// Folds what can be folded; what cannot stays. `size` is height and width of the picture `input`.
///
/// # Errors
/// A tensor cannot be read, or a stride, pad or kernel makes no sense.
pub fn fold(model: &Model, graph: &mut Graph, input: &str, size: [usize; 2]) -> Result<(), Error> {
    plain_pads(model, graph, input, size)?;
    // Once more after loading: operators whose own pads are plain only now can take a `Pad`.
    pads::fold(model, graph)?;
    own_weights(model, graph)?;
    while merge_affine(model, graph)? {}
    Ok(())
}

/// Whether the weights and the bias of a convolution are constants of one group.
pub fn is_plain_conv(graph: &Graph, node: &Node) -> bool {
    let constant = |i: usize| node.input(i).and_then(|name| graph.constants.get(name));
    let weights = constant(1).is_some_and(|w| w.dims.len() == 4 && matches!(w.dtype, DType::F32 | DType::F64));
    node.is("Conv")
        && node.int("group").unwrap_or(1) == 1
        && weights
        && (node.input(2).is_none() || constant(2).is_some())
        && matches!(node.text("auto_pad"), None | Some("NOTSET" | "VALID"))
}

/// Replaces `auto_pad` and `ceil_mode` by pads where the sizes are known.
fn plain_pads(model: &Model, graph: &mut Graph, input: &str, size: [usize; 2]) -> Result<(), Error> {
    let mut sizes = HashMap::from([(input.to_string(), size)]);
    for node in &mut graph.nodes {
        let known = node.input(0).and_then(|x| sizes.get(x)).copied();
        let (Some(from), Some(output)) = (known, node.outputs.first().cloned()) else { continue };
        let windowed = node.is("Conv") || node.is("MaxPool") || node.is("AveragePool");
        let behind = if windowed {
            let weight = node.input(1).and_then(|w| graph.constants.get(w)).map(|w| w.dims.clone());
            match window(model, node, weight.as_deref())? {
                Some(window) => Some(resolve(model, node, window, from)?),
                None => None,
            }
        } else if node.is("Pad") {
            pads::padding(model, &graph.constants, node)?
                .map(|[top, left, bottom, right]| [from[0] + top + bottom, from[1] + left + right])
        } else {
            let same =
                ["Relu", "Clip", "BatchNormalization", "Add", "Sum", "Mul", "Sub", "Div", "LeakyRelu", "Sigmoid"];
            same.iter().any(|op| node.is(op)).then_some(from)
        };
        if let Some(behind) = behind {
            sizes.insert(output, behind);
        }
    }
    Ok(())
}

/// Kernel, stride and dilation of a convolution or a pool.
fn window(model: &Model, node: &Node, weight: Option<&[usize]>) -> Result<Option<[[usize; 2]; 3]>, Error> {
    let kernel = match (node.is("Conv"), weight) {
        (true, Some(&[_, _, h, w])) if h.max(w) <= 1024 => [h, w],
        (true, _) => return Ok(None),
        (false, _) => pair(model, node, "kernel_shape", 1)?,
    };
    Ok(Some([kernel, pair(model, node, "strides", 1)?, pair(model, node, "dilations", 1)?]))
}

/// Height and width behind a window; its `auto_pad` and `ceil_mode` become pads.
fn resolve(
    model: &Model,
    node: &mut Node,
    [kernel, stride, dilation]: [[usize; 2]; 3],
    from: [usize; 2],
) -> Result<[usize; 2], Error> {
    let reach: [usize; 2] = std::array::from_fn(|i| (kernel[i].max(1) - 1) * dilation[i] + 1);
    let auto = node.text("auto_pad").unwrap_or("NOTSET").to_string();
    let mut pads = if auto == "VALID" { [0; 4] } else { window::pads(model, node)? };
    if let "SAME_UPPER" | "SAME_LOWER" = auto.as_str() {
        for i in 0..2 {
            let whole = (from[i].div_ceil(stride[i]).max(1) - 1) * stride[i] + reach[i];
            let total = whole.saturating_sub(from[i]);
            let (less, more) = (total / 2, total - total / 2);
            (pads[i], pads[i + 2]) = if auto == "SAME_UPPER" { (less, more) } else { (more, less) };
        }
    }
    // An average pool with `ceil_mode` divides by windows that are cut at the border: it stays.
    let ceil = node.int("ceil_mode").unwrap_or(0) != 0;
    let mut out = [0; 2];
    for i in 0..2 {
        let room = (from[i] + pads[i] + pads[i + 2]).saturating_sub(reach[i]);
        out[i] = room / stride[i] + 1;
        if ceil && !room.is_multiple_of(stride[i]) && out[i] * stride[i] < from[i] + pads[i] {
            if node.is("MaxPool") {
                pads[i + 2] += stride[i] - room % stride[i];
            }
            out[i] += 1;
        }
    }
    if auto != "NOTSET" || (ceil && node.is("MaxPool")) {
        let pool = node.is("MaxPool");
        node.attrs.retain(|(name, _)| name != "auto_pad" && name != "pads" && !(name == "ceil_mode" && pool));
        node.attrs.push(("pads".into(), Attr::Ints(pads.iter().map(|&p| p as i64).collect())));
    }
    Ok(out)
}

/// Gives every convolution weights and a bias of its own, in f32.
fn own_weights(model: &Model, graph: &mut Graph) -> Result<(), Error> {
    for at in 0..graph.nodes.len() {
        if !is_plain_conv(graph, &graph.nodes[at]) {
            continue;
        }
        let node = &graph.nodes[at];
        let weight = &graph.constants[&node.inputs[1]];
        let (dims, values) = (weight.dims.clone(), model.read_f32(weight)?);
        let bias = match node.input(2) {
            Some(name) => model.read_f32(&graph.constants[name])?,
            None => vec![0.0; dims[0]],
        };
        if bias.len() != dims[0] || values.is_empty() {
            let reason = format!("{}: its bias does not have one value per output channel", node.label());
            return Err(model.invalid(reason));
        }
        let name = format!("{}/weight", node.outputs[0]);
        let bias_name = format!("{}/bias", node.outputs[0]);
        graph.constants.insert(bias_name.clone(), Tensor::f32(vec![dims[0]], &bias));
        graph.constants.insert(name.clone(), Tensor::f32(dims, &values));
        let node = &mut graph.nodes[at];
        node.inputs.truncate(1);
        node.inputs.extend([name, bias_name]);
    }
    Ok(())
}

/// Folds the first affine node whose convolution nothing else reads; false if there is none.
fn merge_affine(model: &Model, graph: &mut Graph) -> Result<bool, Error> {
    let index = Index::of(graph);
    let mut found = None;
    for (at, node) in graph.nodes.iter().enumerate() {
        if let Some((x, affine)) = affine(model, graph, node, Layout::ChannelsFirst)?
            && let Some(conv) = index.position(x)
            && is_plain_conv(graph, &graph.nodes[conv])
            && index.sole_consumer(x).is_some()
        {
            found = Some((at, conv, affine));
            break;
        }
    }
    let Some((at, conv, affine)) = found else { return Ok(false) };
    let (weight, bias) = (graph.nodes[conv].inputs[1].clone(), graph.nodes[conv].inputs[2].clone());
    let dims = graph.constants[&weight].dims.clone();
    let of = |list: &[f64], c: usize| list[if list.len() == 1 { 0 } else { c }];
    if [&affine.scale, &affine.shift].iter().any(|list| list.len() != 1 && list.len() != dims[0]) {
        let reason = format!("{}: it does not have one value per channel", graph.nodes[at].label());
        return Err(model.invalid(reason));
    }
    let mut values = model.read_f32(&graph.constants[&weight])?;
    let mut biases = model.read_f32(&graph.constants[&bias])?;
    let per = values.len() / dims[0].max(1);
    for (c, rows) in values.chunks_exact_mut(per.max(1)).enumerate() {
        rows.iter_mut().for_each(|w| *w = (f64::from(*w) * of(&affine.scale, c)) as f32);
        biases[c] = (f64::from(biases[c]) * of(&affine.scale, c) + of(&affine.shift, c)) as f32;
    }
    graph.constants.insert(weight, Tensor::f32(dims.clone(), &values));
    graph.constants.insert(bias, Tensor::f32(vec![dims[0]], &biases));
    let output = graph.nodes[at].outputs[0].clone();
    graph.nodes[conv].outputs[0] = output;
    graph.nodes.remove(at);
    Ok(true)
}
