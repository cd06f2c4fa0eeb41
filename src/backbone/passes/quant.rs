//! Scale and zero point: of a map, of a constant.

use crate::backbone::error::Error;
use crate::backbone::onnx::{Graph, Model, Tensor};

/// Scale and zero point of a quantized value, shifted into u8 where the file has s8.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quant {
    pub scale: f32,
    pub zero: u8,
}

impl Quant {
    /// `saturate(round_half_even(x / scale) + zero)`, as `QuantizeLinear`.
    pub fn quantize(self, x: f32) -> u8 {
        ((x / self.scale).round_ties_even() + f32::from(self.zero)).clamp(0.0, 255.0) as u8
    }

    /// `(q - zero) * scale`, as `DequantizeLinear`.
    pub fn dequantize(self, q: u8) -> f32 {
        (f32::from(q) - f32::from(self.zero)) * self.scale
    }
}

/// A `DequantizeLinear` of a constant, with what it needs.
pub struct ConstantDequantize<'a> {
    pub tensor: &'a Tensor,
    pub scale: Vec<f32>,
    pub zero: Vec<i32>,
    pub axis: usize,
}

impl<'a> ConstantDequantize<'a> {
    /// None if `value` is not made by dequantizing a constant with a constant scale.
    pub fn of(model: &Model, graph: &'a Graph, value: &str) -> Result<Option<Self>, Error> {
        let Some(node) = graph.producer(value).filter(|n| n.is("DequantizeLinear")) else { return Ok(None) };
        let constant = |i: usize| node.input(i).and_then(|name| graph.constants.get(name));
        let (Some(tensor), Some(scale)) = (constant(0), constant(1)) else { return Ok(None) };
        if node.input(2).is_some() && constant(2).is_none() {
            return Ok(None);
        }
        let scale = model.read_f32(scale)?;
        let zero = constant(2).map_or(Ok(vec![0; scale.len()]), |t| model.read_i32(t))?;
        let axis = node.int("axis").unwrap_or(1);
        let axis = usize::try_from(if axis < 0 { axis + tensor.dims.len() as i64 } else { axis }).unwrap_or(0);
        let channels = if scale.len() == 1 { Some(1) } else { tensor.dims.get(axis).copied() };
        if channels != Some(scale.len()) || scale.is_empty() || zero.len() != scale.len() {
            let reason = format!("{}: its scale and zero point do not have one value per channel", node.label());
            return Err(model.invalid(reason));
        }
        Ok(Some(ConstantDequantize { tensor, scale, zero, axis }))
    }
}

/// The real values of a dequantized constant.
pub fn dequantized(model: &Model, graph: &Graph, value: &str) -> Result<Option<Tensor>, Error> {
    let Some(dq) = ConstantDequantize::of(model, graph, value)? else { return Ok(None) };
    let inner = if dq.scale.len() == 1 { dq.tensor.len() } else { dq.tensor.dims[dq.axis + 1..].iter().product() };
    let ints = model.read_i32(dq.tensor)?;
    let channel = |i: usize| (i / inner.max(1)) % dq.scale.len();
    let real = |(i, &q): (usize, &i32)| (i64::from(q) - i64::from(dq.zero[channel(i)])) as f32 * dq.scale[channel(i)];
    let values: Vec<f32> = ints.iter().enumerate().map(real).collect();
    Ok(Some(Tensor::f32(dq.tensor.dims.clone(), &values)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantization_rounds_half_to_even_and_saturates() {
        let quant = Quant { scale: 0.5, zero: 10 };
        let got: Vec<u8> = [0.25, 0.75, -0.25, -100.0, 1000.0].map(|x| quant.quantize(x)).into();
        assert_eq!(got, [10, 12, 10, 0, 255]);
        assert_eq!(quant.dequantize(12), 1.0);
    }
}
