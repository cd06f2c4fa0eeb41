//! Weights in 8 bits: symmetric, one scale per output channel.

use crate::backbone::onnx::Node;

/// The levels of a weight are -127 to 127: symmetric, so that no zero point is needed.
const LEVELS: f32 = 127.0;

/// A convolution with weights in 8 bits and a bias that is still real.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Output channels, input channels, kernel height and width.
    pub dims: [usize; 4],
    pub weights: Vec<i8>,
    /// One per output channel.
    pub scales: Vec<f32>,
    pub bias: Vec<f64>,
    /// Scale of the input.
    pub x_scale: f32,
}

impl Layer {
    /// Rounds `weights` (`dims[0]` rows). Where a channel's weights are so small that its bias would not fit into 32
    /// bits at the scale `x_scale * scale`, the scale is larger.
    pub fn round(dims: [usize; 4], weights: &[f32], bias: &[f32], x_scale: f32) -> Layer {
        let per = weights.len() / dims[0].max(1);
        let mut levels = Vec::with_capacity(weights.len());
        let mut scales = Vec::with_capacity(dims[0]);
        for (row, &bias) in weights.chunks_exact(per.max(1)).zip(bias) {
            let reach = row.iter().fold(0.0f32, |reach, w| reach.max(w.abs()));
            let least = (f64::from(bias.abs()) / f64::from(x_scale) / f64::from(1 << 24)) as f32;
            let scale = (reach / LEVELS).max(least);
            let scale = if scale.is_normal() { scale } else { 1.0 };
            levels.extend(row.iter().map(|w| (w / scale).round_ties_even().clamp(-LEVELS, LEVELS) as i8));
            scales.push(scale);
        }
        Layer { dims, weights: levels, scales, bias: bias.iter().map(|&b| b.into()).collect(), x_scale }
    }

    /// The bias in units of `x_scale * scale`, as the file holds it.
    pub fn bias_levels(&self) -> Vec<i32> {
        let units = self.scales.iter().map(|&s| f64::from(self.x_scale * s));
        self.bias.iter().zip(units).map(|(b, unit)| (b / unit).round_ties_even() as i32).collect()
    }
}

/// Name of the constant that holds the bias of a convolution in 32 bits.
pub fn bias_name(conv: &Node) -> String {
    format!("{}/bias/quantized", conv.outputs[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_has_its_own_scale() {
        let layer = Layer::round([2, 2, 1, 1], &[127.0, -1.4, 0.5, -1.0], &[10.0, -3.0], 0.5);
        assert_eq!(layer.weights, [127, -1, 64, -127]);
        assert_eq!(layer.scales, [1.0, 1.0 / 127.0]);
        assert_eq!(layer.bias_levels(), [20, -762]);
    }

    #[test]
    fn a_dead_channel_keeps_its_bias() {
        let layer = Layer::round([1, 2, 1, 1], &[0.0, 1e-30], &[3.0], 0.01);
        let real = f64::from(layer.bias_levels()[0]) * f64::from(layer.x_scale * layer.scales[0]);
        assert!((real - 3.0).abs() < 1e-5, "{real}");
        assert_eq!(layer.weights, [0, 0]);
        assert_eq!(Layer::round([1, 1, 1, 1], &[0.0], &[0.0], 0.01).bias_levels(), [0]);
    }
}
