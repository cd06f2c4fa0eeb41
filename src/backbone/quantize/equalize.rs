//! Cross-layer equalisation (Nagel et al. 2019, section 4.1): a channel between two convolutions can be divided by any
//! `s > 0` in the first and multiplied by it in the second, through a ReLU as well. With `r1` the channel's reach
//! behind the first and `r2` that of the weights that read it, `s = sqrt(r1 / r2)` gives both the same reach.
//!
//! Weights of the first layer have a scale for each channel here, so that it is the reach of the map between, seen while
//! calibrating, that is `r1`.

use super::fold::is_plain_conv;
use crate::backbone::error::Error;
use crate::backbone::onnx::{Graph, Index, Model, Tensor};

/// The most that one channel is scaled against the others, either way.
const MOST: f64 = 16.0;

/// Two convolutions with nothing but a ReLU between.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Node indices.
    pub first: usize,
    pub second: usize,
    /// The value that the second one reads.
    pub between: String,
}

/// Every such pair, in the graph's order.
pub fn pairs(graph: &Graph) -> Vec<Pair> {
    let index = Index::of(graph);
    let convs = graph.nodes.iter().enumerate().filter(|(_, n)| is_plain_conv(graph, n));
    convs
        .filter_map(|(first, node)| {
            let mut between = node.outputs[0].as_str();
            let mut next = index.sole_consumer(between)?;
            if next.is("Relu") {
                between = next.outputs[0].as_str();
                next = index.sole_consumer(between)?;
            }
            let second = index.position(next.outputs.first()?)?;
            let reads = is_plain_conv(graph, next) && next.inputs[0] == between;
            reads.then(|| Pair { first, second, between: between.to_string() })
        })
        .collect()
}

/// The factor of each channel for the reach of the map and of the weights that read it; their geometric mean is 1, and
/// a channel that is always 0 keeps 1.
pub fn factors(map: &[f32], weights: &[f32]) -> Vec<f64> {
    let ratio = |(&r1, &r2): (&f32, &f32)| (r1 > 0.0 && r2 > 0.0).then(|| 0.5 * (f64::from(r1) / f64::from(r2)).ln());
    let logs: Vec<Option<f64>> = map.iter().zip(weights).map(ratio).collect();
    let known: Vec<f64> = logs.iter().flatten().copied().collect();
    let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
    logs.iter().map(|log| log.map_or(1.0, |log| (log - mean).exp().clamp(1.0 / MOST, MOST))).collect()
}

/// Equalises one pair; `reach` is the greatest value of each channel between the two.
///
/// # Errors
/// The weights cannot be read.
pub fn equalize(model: &Model, graph: &mut Graph, pair: &Pair, reach: &[f32]) -> Result<(), Error> {
    let names = |node: usize| (graph.nodes[node].inputs[1].clone(), graph.nodes[node].inputs.get(2).cloned());
    let ((w1, b1), (w2, _)) = (names(pair.first), names(pair.second));
    let dims = graph.constants[&w2].dims.clone();
    let (channels, taps) = (dims[1], dims[2] * dims[3]);
    let mut second = model.read_f32(&graph.constants[&w2])?;
    let mut columns = vec![0.0f32; channels];
    for (i, w) in second.iter().enumerate() {
        let c = i / taps.max(1) % channels;
        columns[c] = columns[c].max(w.abs());
    }
    if reach.len() != channels || graph.constants[&w1].dims[0] != channels {
        return Ok(());
    }
    let factors = factors(reach, &columns);
    for (i, w) in second.iter_mut().enumerate() {
        *w = (f64::from(*w) * factors[i / taps.max(1) % channels]) as f32;
    }
    replace(graph, &w2, &second);
    for name in std::iter::once(w1).chain(b1) {
        let mut values = model.read_f32(&graph.constants[&name])?;
        let per = values.len() / channels;
        for (i, v) in values.iter_mut().enumerate() {
            *v = (f64::from(*v) / factors[i / per.max(1)]) as f32;
        }
        replace(graph, &name, &values);
    }
    Ok(())
}

fn replace(graph: &mut Graph, name: &str, values: &[f32]) {
    if let Some(tensor) = graph.constants.get_mut(name) {
        *tensor = Tensor::f32(tensor.dims.clone(), values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_make_both_sides_reach_equally_far() {
        let (map, weights) = ([8.0, 0.5, 0.0, 2.0], [0.5, 2.0, 1.0, 0.5]);
        let s = factors(&map, &weights);
        assert_eq!(s[2], 1.0);
        let ratio = |c: usize| (f64::from(map[c]) / s[c]) / (f64::from(weights[c]) * s[c]);
        assert!((ratio(0) - ratio(1)).abs() < 1e-9 && (ratio(0) - ratio(3)).abs() < 1e-9);
        let product: f64 = s.iter().product();
        assert!((product - 1.0).abs() < 1e-9, "{s:?}");
    }
}
