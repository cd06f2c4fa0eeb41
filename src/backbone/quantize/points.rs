//! Which values of a folded float graph become 8 bits wide.

use std::collections::{HashMap, HashSet};

use crate::backbone::compile::stages::MapInfo;
use crate::backbone::error::Error;
use crate::backbone::onnx::{Graph, Index, Model, Node};
use crate::backbone::passes::activations::Activations;

/// How a point gets its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The picture: the range of the input recipe.
    Picture,
    /// From what an observer sees while calibrating.
    Observed,
    /// As `Observed`, but a convolution's output that meets its residual sum: its rounding is left out when outlierd runs
    /// the file, so that everything that is seen can be kept.
    Summand,
    /// The same as that of the value in front of a max pool.
    Pooled,
}

/// A value that is quantized.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    pub value: String,
    pub kind: Kind,
    /// The value in front of the activations, and the bounds that these set. Of a pool: its input.
    pub source: String,
    pub bounds: [f32; 2],
}

/// Operators that read a map in 8 bits, or whose input ends a stage.
const READERS: [&str; 7] = ["Conv", "Add", "Sum", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean"];

/// The points in the graph's order.
///
/// # Errors
/// The bounds of a `Clip` cannot be read.
pub fn find(model: &Model, graph: &Graph, input: &str, maps: &HashMap<String, MapInfo>) -> Result<Vec<Point>, Error> {
    let index = Index::of(graph);
    let activations = Activations::of(model, graph)?;
    let sum = |n: &Node| n.is("Add") || n.is("Sum");
    let mut points: Vec<Point> = Vec::new();
    let mut known: HashSet<String> = HashSet::new();
    let values = std::iter::once(input).chain(graph.nodes.iter().filter_map(|n| n.outputs.first()).map(|s| s.as_str()));
    for value in values.filter(|v| maps.contains_key(*v)) {
        let producer = index.producer(value);
        let fused = producer.is_some_and(|n| n.is("Conv") || sum(n))
            && index.sole_consumer(value).is_some_and(|n| n.outputs.first().is_some_and(|o| activations.contains(o)));
        let (source, bounds) = activations.source(value, |_| true);
        let ends_block = index.producer(source).is_some_and(sum);
        let read = index.readers(value).any(|n| READERS.iter().any(|op| n.is(op)));
        if fused || !(read || index.is_output(value) || ends_block) {
            continue;
        }
        let pooled = producer.filter(|n| n.is("MaxPool")).and_then(|n| n.input(0)).filter(|x| known.contains(*x));
        let conv = |value: &str| index.position(value).filter(|at| graph.nodes[*at].is("Conv"));
        let summand = match (conv(value), index.consumers(value)) {
            (Some(own), &[one]) if sum(&graph.nodes[one]) && graph.nodes[one].inputs.len() == 2 => {
                let inputs = &graph.nodes[one].inputs;
                // Of two convolutions the later one is run together with the sum.
                inputs[0] != inputs[1] && inputs.iter().filter_map(|v| conv(v)).all(|at| at <= own)
            }
            _ => false,
        };
        let kind = match (value == input, pooled, summand) {
            (true, ..) => Kind::Picture,
            (_, Some(_), _) => Kind::Pooled,
            (.., true) => Kind::Summand,
            _ => Kind::Observed,
        };
        let source = pooled.unwrap_or(source).to_string();
        known.insert(value.into());
        points.push(Point { value: value.into(), kind, source, bounds });
    }
    Ok(points)
}
