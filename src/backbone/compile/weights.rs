//! Weights and bias of the fused convolutions, as the file has them.

use crate::backbone::error::Error;
use crate::backbone::onnx::{DType, Graph, Model, Node, Tensor};
use crate::backbone::passes::quant::ConstantDequantize;

/// Weights and bias of an int8 convolution.
pub struct Weights<'g> {
    /// Output channels, input channels, kernel height and width.
    pub dims: [usize; 4],
    tensor: &'g Tensor,
    /// One per output channel.
    pub scale: Vec<f32>,
    /// In units of `x_scale * scale`.
    pub bias: Vec<i32>,
}

impl<'g> Weights<'g> {
    /// Those of a convolution that the plan fuses; `x_scale` is the scale of its input.
    pub fn read(model: &Model, graph: &'g Graph, node: &Node, x_scale: f32) -> Result<Self, Error> {
        let wrong = |what: &str| model.invalid(format!("{}: {what}", node.label()));
        let weight = node.input(1).map(|name| ConstantDequantize::of(model, graph, name)).transpose()?.flatten();
        let weight = weight.ok_or_else(|| wrong("its weights are not constant"))?;
        let dims = <[usize; 4]>::try_from(weight.tensor.dims.as_slice())
            .map_err(|_| wrong("its weights have no 4 dimensions"))?;
        let out_c = dims[0];
        let mut scale = weight.scale;
        if scale.len() == 1 {
            scale.resize(out_c, scale[0]);
        }
        let units: Vec<f64> = scale.iter().map(|&w| f64::from(x_scale) * f64::from(w)).collect();
        let to_units =
            |c: usize, real: f64| if units[c] == 0.0 { 0 } else { (real / units[c]).round_ties_even() as i32 };
        let bias = match node.input(2) {
            None => vec![0; out_c],
            Some(name) => match graph.constants.get(name) {
                Some(tensor) if tensor.dtype == DType::I32 => model.read_i32(tensor)?,
                Some(tensor) => {
                    let real = model.read_f32(tensor)?;
                    real.iter().take(out_c).enumerate().map(|(c, &b)| to_units(c, b.into())).collect()
                }
                None => {
                    let dq =
                        ConstantDequantize::of(model, graph, name)?.ok_or_else(|| wrong("its bias is not constant"))?;
                    let scale_of = |c: usize| f64::from(dq.scale[c % dq.scale.len()]);
                    let ints = model.read_i32(dq.tensor)?;
                    let same = |c: usize| (scale_of(c) / units[c] - 1.0).abs() < 1e-5;
                    let convert =
                        |(c, &b): (usize, &i32)| if same(c) { b } else { to_units(c, f64::from(b) * scale_of(c)) };
                    ints.iter().take(out_c).enumerate().map(convert).collect()
                }
            },
        };
        if bias.len() != out_c || scale.len() != out_c {
            return Err(wrong("its bias or scale does not have one value per channel"));
        }
        Ok(Weights { dims, tensor: weight.tensor, scale, bias })
    }

    /// `OIHW`.
    pub fn values(&self, model: &Model) -> Result<Vec<i8>, Error> {
        Ok(model.read(self.tensor)?.into_iter().map(|b| b as i8).collect())
    }
}
