//! The window of a convolution or pool.

use crate::backbone::error::Error;
use crate::backbone::onnx::{Model, Node};

/// Two sizes of a window, height and width, `default` where the node leaves them out.
///
/// # Errors
/// There are not two, or one is not between 1 and 1024.
pub fn pair(model: &Model, node: &Node, name: &str, default: usize) -> Result<[usize; 2], Error> {
    let Some(list) = node.ints(name) else { return Ok([default; 2]) };
    let small = |v: &i64| usize::try_from(*v).ok().filter(|v| (1..=1024).contains(v));
    let values: Option<Vec<usize>> = list.iter().map(small).collect();
    let reason = || format!("{} has {name} {list:?}; two numbers from 1 to 1024 are supported", node.label());
    values.and_then(|v| v.try_into().ok()).ok_or_else(|| model.unsupported(reason()))
}

/// Top, left, bottom and right padding.
///
/// # Errors
/// There are not four, or one is not between 0 and 1024.
pub fn pads(model: &Model, node: &Node) -> Result<[usize; 4], Error> {
    let Some(list) = node.ints("pads") else { return Ok([0; 4]) };
    let small = |v: &i64| usize::try_from(*v).ok().filter(|v| *v <= 1024);
    let values: Option<Vec<usize>> = list.iter().map(small).collect();
    let reason = || format!("{} has pads {list:?}; four numbers from 0 to 1024 are supported", node.label());
    values.and_then(|v| v.try_into().ok()).ok_or_else(|| model.unsupported(reason()))
}
