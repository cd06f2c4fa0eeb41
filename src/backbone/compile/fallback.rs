//! The fallback: subgraphs over f32 values that tract runs itself. They are handed to tract's own ONNX reader and
//! optimiser, then spliced into the model.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb;
use tract_onnx::tract_core::ops::cnn::{MaxPool, OptMaxPool, OptSumPool, PoolSpec, SumPool};
use tract_onnx::tract_hir::internal::*;

use crate::backbone::error::Error;
use crate::backbone::onnx::writer::{self, Initializer, Io};
use crate::backbone::onnx::{Attr, DType, Graph, Model, Node, Tensor as OnnxTensor};
use crate::backbone::passes::activations::{is_activation, is_arithmetic};
use crate::backbone::passes::quant::dequantized;

/// What ResNets and their relatives are made of, besides what computes value by value. Others can make large values out
/// of small files, or run sub-graphs.
fn is_layer(op: &str) -> bool {
    const KNOWN: &str = "AveragePool BatchNormalization Cast Conv DequantizeLinear GlobalAveragePool GlobalMaxPool \
        InstanceNormalization LRN MaxPool Pad QuantizeLinear Transpose";
    KNOWN.split(' ').any(|known| known == op)
}

/// The largest number in a shape-like attribute (stride, padding, dilation, group).
const MAX_EXTENT: i64 = 4096;
/// Elements of the largest map.
const MAX_MAP: usize = 1 << 26;
/// The largest side of a kernel.
const MAX_KERNEL: i64 = 64;

/// Refuses a node that tract does not know or that could take memory or time without bound. `live` says which values
/// descend from the picture: what is computed of constants alone, tract would compute while loading.
pub fn check(model: &Model, graph: &Graph, node: &Node, known: &tract_onnx::Onnx, live: bool) -> Result<(), Error> {
    let fail = |reason: String| Err(model.unsupported(reason));
    if !(is_layer(&node.op) || is_activation(&node.op) || is_arithmetic(&node.op)) {
        return fail(format!("operator {} is not supported; export a ResNet of standard layers", node.label()));
    }
    if !live {
        return fail(format!(
            "{} has constant inputs only: fold constants first, for example with onnxsim",
            node.label()
        ));
    }
    if !known.op_register.0.contains_key(&node.op) {
        return fail(format!(
            "operator {} is not implemented in tract; export a ResNet of standard layers",
            node.label()
        ));
    }
    for (name, attr) in &node.attrs {
        let least = i64::from(matches!(name.as_str(), "strides" | "dilations" | "kernel_shape" | "group"));
        let values = match attr {
            Attr::Ints(list) => list.as_slice(),
            Attr::Int(one) if name == "group" => std::slice::from_ref(one),
            _ => continue,
        };
        let bounds = match name.as_str() {
            "perm" | "axes" => -8..=8,
            "kernel_shape" => least..=MAX_KERNEL,
            _ => least..=MAX_EXTENT,
        };
        let sides = match name.as_str() {
            "kernel_shape" | "strides" | "dilations" => Some(2),
            "pads" if !node.is("Pad") => Some(4),
            _ => None,
        };
        if let Some(sides) = sides.filter(|sides| values.len() != *sides) {
            return fail(format!("{} has {name} {values:?}; {sides} numbers are supported", node.label()));
        }
        if let Some(bad) = values.iter().find(|v| !bounds.contains(v)) {
            let (lo, hi) = bounds.into_inner();
            return fail(format!("{} has {name} {bad}; {lo} to {hi} are supported", node.label()));
        }
    }
    let constant = |i: usize| node.input(i).and_then(|name| graph.constants.get(name));
    if node.is("Pad") && node.ints("pads").is_none() {
        let pads = constant(1).map(|pads| model.read_i32(pads)).transpose()?;
        if !pads.is_some_and(|pads| pads.iter().all(|p| (0..=MAX_EXTENT).contains(&i64::from(*p)))) {
            return fail(format!(
                "{} has pads that are not constants from 0 to {MAX_EXTENT}; export with a fixed input size",
                node.label()
            ));
        }
    }
    let weights = constant(1).map_or(&[][..], |weights| &weights.dims);
    if node.is("Conv") && weights.iter().skip(2).any(|side| *side as i64 > MAX_KERNEL) {
        return fail(format!("{} has weights of shape {weights:?}; {MAX_KERNEL} a side are supported", node.label()));
    }
    Ok(())
}

/// ONNX nodes that become one tract sub-model.
pub struct Subgraph<'a> {
    pub nodes: Vec<&'a Node>,
    /// f32 values from outside, with the outlet that makes each.
    pub inputs: Vec<(&'a str, OutletId)>,
    /// Values that are used outside.
    pub outputs: Vec<&'a str>,
}

/// Wires a subgraph into `target`; gives the outlets of its outputs.
pub fn splice(
    model: &Model,
    graph: &Graph,
    subgraph: &Subgraph,
    prefix: &str,
    target: &mut TypedModel,
) -> Result<Vec<OutletId>, Error> {
    let proto = to_proto(model, graph, subgraph, target)?;
    let tract = |e: TractError| Error::Tract { path: model.path.clone(), reason: format!("{e:#}") };
    // tract indexes into what it is given at many places: a damaged file must not end the process.
    let build = std::panic::AssertUnwindSafe(|| -> TractResult<TypedModel> {
        let parsed = tract_onnx::onnx().parse(&proto, None)?;
        drop(proto);
        parsed.model.into_optimized()
    });
    let part = guarded(model, build)?.map_err(tract)?;
    guarded(model, std::panic::AssertUnwindSafe(|| wire(&part, subgraph, prefix, target)))?.map_err(tract)
}

/// Runs what may panic on a damaged graph.
pub fn guarded<T>(model: &Model, run: impl FnOnce() -> T + std::panic::UnwindSafe) -> Result<T, Error> {
    std::panic::catch_unwind(run).map_err(|_| Error::Tract {
        path: model.path.clone(),
        reason: "it cannot read the graph; check the file with onnx.checker or export it again".into(),
    })
}

fn wire(part: &TypedModel, subgraph: &Subgraph, prefix: &str, target: &mut TypedModel) -> TractResult<Vec<OutletId>> {
    let mut outlets: HashMap<OutletId, OutletId> =
        part.input_outlets()?.iter().copied().zip(subgraph.inputs.iter().map(|(_, outlet)| *outlet)).collect();
    for id in part.eval_order()? {
        let node = part.node(id);
        if outlets.contains_key(&OutletId::new(id, 0)) {
            continue;
        }
        let inputs: TVec<OutletId> = node.inputs.iter().map(|i| outlets[i]).collect();
        part.node_output_facts(id)?.iter().try_for_each(|fact| check_size(fact))?;
        let made = target.wire_node(format!("{prefix}/{}", node.name), node.op.clone(), &inputs)?;
        outlets.extend(made.iter().enumerate().map(|(slot, &outlet)| (OutletId::new(id, slot), outlet)));
    }
    Ok(part.output_outlets()?.iter().map(|o| outlets[o]).collect())
}

/// Refuses a map that is larger than those of a ResNet-50 for the largest picture.
pub fn check_size(fact: &TypedFact) -> TractResult<()> {
    let elements = fact.shape.as_concrete().and_then(|dims| dims.iter().try_fold(1, |n: usize, d| n.checked_mul(*d)));
    ensure!(elements.is_some_and(|n| n <= MAX_MAP), "a map of shape {:?} is too large", fact.shape);
    Ok(())
}

/// Multiplications and the like that an operator of a model costs in one run; tract's own count, and the windows of pools.
pub fn cost(model: &TypedModel, node: &TypedNode) -> TractResult<u64> {
    let facts = model.node_output_facts(node.id)?;
    let count = |fact: &&TypedFact| fact.shape.as_concrete().map_or(0, |d| d.iter().map(|d| *d as u64).product());
    let elements: u64 = facts.iter().map(count).sum();
    let window = |spec: &PoolSpec| spec.kernel_shape.iter().map(|side| *side as u64).product();
    let pool = node.op_as::<MaxPool>().map(|op| window(&op.pool_spec));
    let pool = pool.or_else(|| node.op_as::<OptMaxPool>().map(|op| window(&op.pool_spec)));
    let pool = pool.or_else(|| node.op_as::<SumPool>().map(|op| window(&op.pool_spec)));
    let pool: u64 = pool.or_else(|| node.op_as::<OptSumPool>().map(|op| window(&op.pool_spec))).unwrap_or(1);
    let costs = node.op.cost(&model.node_input_facts(node.id)?)?;
    let own = costs.iter().filter(|(what, _)| what.is_compute()).map(|(_, n)| n.to_i64().unwrap_or(i64::MAX) as u64);
    Ok(own.fold(elements.saturating_mul(pool), u64::saturating_add))
}

fn to_proto(model: &Model, graph: &Graph, subgraph: &Subgraph, target: &TypedModel) -> Result<pb::ModelProto, Error> {
    let mut proto = pb::GraphProto { name: "fallback".into(), ..Default::default() };
    for (name, outlet) in &subgraph.inputs {
        let fact = target.outlet_fact(*outlet);
        let fact = fact.map_err(|e| Error::Tract { path: model.path.clone(), reason: e.to_string() })?;
        let dims = fact.shape.as_concrete().unwrap_or_default();
        proto.input.push(writer::value_info(&Io::fixed(name, DType::F32, dims)));
    }
    proto.output =
        subgraph.outputs.iter().map(|name| pb::ValueInfoProto { name: (*name).into(), ..Default::default() }).collect();
    let mut taken: HashSet<&str> = HashSet::new();
    for node in &subgraph.nodes {
        // A file may name several nodes alike; tract tells them apart by name.
        let name = node.outputs.first().cloned().unwrap_or_default();
        let mut wired = pb::NodeProto { name, ..writer::node(node) };
        if node.is("Conv")
            && let Some(bias) = node.input(2)
            && let Some(tensor) = graph.constants.get(bias).filter(|t| t.dtype == DType::I32)
        {
            let values = integer_bias(model, graph, node, tensor)?;
            wired.input[2] = format!("{}/bias", node.outputs[0]);
            let real = OnnxTensor::f32(tensor.dims.clone(), &values);
            proto.initializer.push(initializer(model, &wired.input[2], &real)?);
        }
        for input in node.inputs.iter().filter(|i| !i.is_empty()) {
            if !taken.insert(input) || !wired.input.contains(input) {
                continue;
            }
            if let Some(tensor) = graph.constants.get(input) {
                proto.initializer.push(initializer(model, input, tensor)?);
            } else if let Some(tensor) = dequantized(model, graph, input)? {
                proto.initializer.push(initializer(model, input, &tensor)?);
            }
        }
        proto.node.push(wired);
    }
    Ok(writer::model(proto, &[(String::new(), model.opset)]))
}

/// The real values of a bias that is stored as int32 at scale `x_scale * w_scale`.
fn integer_bias(model: &Model, graph: &Graph, conv: &Node, bias: &OnnxTensor) -> Result<Vec<f32>, Error> {
    let scale_of = |value: Option<&str>| -> Result<Vec<f32>, Error> {
        let producer = value.and_then(|value| graph.producer(value)).filter(|n| n.is("DequantizeLinear"));
        let scale = producer.and_then(|n| graph.constants.get(n.input(1)?));
        let missing = || model.invalid(format!("{}: its integer bias has no scale", conv.label()));
        model.read_f32(scale.ok_or_else(missing)?)
    };
    let (x, w) = (scale_of(conv.input(0))?, scale_of(conv.input(1))?);
    let (Some(&x), false) = (x.first(), w.is_empty()) else { return Ok(Vec::new()) };
    let ints = model.read_i32(bias)?;
    Ok(ints
        .iter()
        .enumerate()
        .map(|(c, &b)| (f64::from(b) * f64::from(x) * f64::from(w[c % w.len()])) as f32)
        .collect())
}

fn initializer(model: &Model, name: &str, tensor: &OnnxTensor) -> Result<pb::TensorProto, Error> {
    let (dtype, dims, bytes) = (tensor.dtype, tensor.dims.clone(), model.read(tensor)?);
    Ok(writer::tensor(Initializer { name: name.into(), dtype, dims, bytes }))
}
