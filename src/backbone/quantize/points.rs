//! Which values of a folded float graph become 8 bits wide.

use std::collections::{HashMap, HashSet};

use super::super::error::Error;
use super::super::onnx::{Graph, Model, Node};
use super::super::plan::activation_bounds;
use super::super::stages::MapInfo;

/// How a point gets its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The picture: the range of the input recipe.
    Picture,
    /// From what is seen while calibrating.
    Seen,
    /// As `Seen`, but a convolution's output that meets its residual sum: its rounding is left out when outlierd runs
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
    let outputs: HashSet<&str> = graph.outputs.iter().map(|o| o.name.as_str()).collect();
    let makers: HashMap<&str, (usize, &Node)> =
        graph.nodes.iter().enumerate().filter_map(|(i, n)| Some((n.outputs.first()?.as_str(), (i, n)))).collect();
    let mut readers: HashMap<&str, Vec<&Node>> = HashMap::new();
    for node in &graph.nodes {
        for value in &node.inputs {
            readers.entry(value).or_default().push(node);
        }
    }
    let mut activations: HashMap<&str, [f32; 2]> = HashMap::new();
    for node in &graph.nodes {
        if let (Some(bounds), Some(output)) = (activation_bounds(model, graph, node)?, node.outputs.first()) {
            activations.insert(output, bounds);
        }
    }
    let sum = |n: &Node| n.is("Add") || n.is("Sum");
    let mut points: Vec<Point> = Vec::new();
    let mut known: HashSet<String> = HashSet::new();
    let values = std::iter::once(input).chain(graph.nodes.iter().filter_map(|n| n.outputs.first()).map(|s| s.as_str()));
    for value in values.filter(|v| maps.contains_key(*v)) {
        let maker = makers.get(value).map(|m| m.1);
        let read = readers.get(value).map_or(&[][..], Vec::as_slice);
        let fused = maker.is_some_and(|m| m.is("Conv") || sum(m))
            && matches!(read, [one] if activations.contains_key(one.outputs[0].as_str()))
            && !outputs.contains(value);
        let (mut source, mut bounds) = (value, [f32::NEG_INFINITY, f32::INFINITY]);
        while let Some(own) = activations.get(source) {
            bounds = own.map(|bound| bound.clamp(bounds[0], bounds[1]));
            source = makers[source].1.inputs[0].as_str();
        }
        let ends_block = makers.get(source).is_some_and(|m| sum(m.1));
        let wanted = read.iter().any(|n| READERS.iter().any(|op| n.is(op))) || outputs.contains(value) || ends_block;
        if fused || !wanted {
            continue;
        }
        let pooled = maker.filter(|m| m.is("MaxPool")).and_then(|m| m.input(0)).filter(|x| known.contains(*x));
        let summand = match (maker, read) {
            (Some(m), [one]) if m.is("Conv") && sum(one) && one.inputs.len() == 2 => {
                let at = |v: &String| makers.get(v.as_str()).filter(|m| m.1.is("Conv")).map(|m| m.0);
                let other = one.inputs.iter().find(|v| *v != value).and_then(at);
                // Of two convolutions the later one is run together with the sum.
                other < at(&value.to_string())
            }
            _ => false,
        };
        let kind = match (value == input, pooled, summand) {
            (true, ..) => Kind::Picture,
            (_, Some(_), _) => Kind::Pooled,
            (.., true) => Kind::Summand,
            _ => Kind::Seen,
        };
        let source = pooled.unwrap_or(source).to_string();
        known.insert(value.into());
        points.push(Point { value: value.into(), kind, source, bounds });
    }
    Ok(points)
}
