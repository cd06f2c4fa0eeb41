//! One step of a plan as a model of its own, to run the network step by step.

use std::collections::HashSet;
use std::sync::Arc;

use tract_onnx::tract_hir::internal::*;

use super::builder::Builder;
use super::plan::{Plan, Step};
use super::request::Request;
use crate::backbone::error::Error;

/// One step of a plan as a model of its own.
pub struct Part {
    pub plan: Arc<TypedSimplePlan>,
    /// Names of what it makes, in the order of its outputs. u8 NHWC, f32 NCHW from the fallback, f32 NHWC of a tap.
    pub outputs: Vec<String>,
}

/// Values from outside that a step reads: u8 NHWC or f32 NCHW.
pub fn reads<'g>(plan: &Plan<'g>, step: &Step<'g>, input: &str) -> Vec<&'g str> {
    match step {
        Step::Picture { .. } => Vec::new(),
        Step::Conv(conv) => std::iter::once(conv.x).chain(conv.sum.as_ref().map(|s| s.other)).collect(),
        Step::MaxPool { x, .. } => vec![x],
        Step::Quantize { value, .. } => vec![value],
        Step::Fallback(nodes) => {
            let made: HashSet<&str> = nodes.iter().flat_map(|n| n.outputs.iter().map(String::as_str)).collect();
            let read = nodes.iter().flat_map(|n| n.inputs.iter().map(String::as_str));
            let mut values: Vec<&str> = Vec::new();
            for value in read.filter(|v| !v.is_empty() && *v != input && !made.contains(v)) {
                let value = plan.dequantized.get(value).copied().unwrap_or(value);
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            values
        }
    }
}

/// Builds step `at` of `plan`: the picture (RGB u8 `[1, h, w, 3]`) in, then `held` (name, shape, whether it is u8).
/// With `tap` a convolution gives its real values, else 8 bits.
pub fn part<'a>(
    request: &'a Request<'a>,
    plan: &'a Plan<'a>,
    at: usize,
    held: &[(&'a str, [usize; 4], bool)],
    tap: bool,
) -> Result<Part, Error> {
    let mut builder = Builder::new(request, plan);
    let picture = builder.picture()?;
    for &(name, dims, bytes) in held {
        let fact = if bytes { u8::fact(dims) } else { f32::fact(dims) };
        let outlet = builder.target.add_source(name, fact).map_err(|e| builder.tract(e))?;
        if bytes {
            builder.quantized.insert(name, outlet)
        } else {
            builder.floats.insert(name, outlet)
        };
    }
    let taps: Vec<&str> = request.taps.iter().map(|t| t.value.as_str()).collect();
    builder.step(at, picture, &taps, tap)?;
    let known = |name: &str| held.iter().any(|(held, ..)| *held == name);
    let step = &plan.steps[at];
    let mut made: Vec<(&str, OutletId)> = match step {
        Step::Fallback(nodes) => {
            let inside = nodes.iter().flat_map(|n| n.outputs.iter().map(String::as_str));
            inside.filter_map(|name| Some((name, *builder.floats.get(name)?))).collect()
        }
        Step::Conv(conv) if tap => builder.reals.get(conv.real).map(|&o| (conv.real, o)).into_iter().collect(),
        _ => builder.quantized.iter().map(|(name, o)| (*name, *o)).filter(|(name, _)| !known(name)).collect(),
    };
    made.sort_by_key(|(_, outlet)| *outlet);
    let outlets: Vec<OutletId> = made.iter().map(|m| m.1).collect();
    let outputs = made.iter().map(|m| m.0.to_string()).collect();
    let mut target = std::mem::take(&mut builder.target);
    let plan = target.select_output_outlets(&outlets).and_then(|()| TypedSimplePlan::new(target));
    Ok(Part { plan: plan.map_err(|e| builder.tract(e))?, outputs })
}
