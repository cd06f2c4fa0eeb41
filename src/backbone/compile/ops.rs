//! The fused operators as tract ops. Quantized values are u8, NHWC; float values that tract's own
//! operators make are f32, NCHW.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tract_onnx::tract_hir::internal::*;

use crate::backbone::kernels::{self, Conv, Isa, MaxPool, OutputMut, Pool, Scratch};
use crate::backbone::passes::quant::Quant;

/// What an operator does with its inputs.
pub trait Run: Debug + Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// Fills `outputs`, which have the shapes and types that the operator was wired with.
    fn run(&self, inputs: &[TValue], outputs: &mut [Arc<Tensor>]) -> TractResult<()>;
}

/// Memory of output tensors, used again as soon as nothing reads it any more.
#[derive(Debug, Default)]
pub struct Buffers(Mutex<Vec<Arc<Tensor>>>);

impl Buffers {
    /// A u8 tensor takes the smallest free memory that is large enough, so that layers of all shapes share it. Another
    /// goes to tract's own operators, which rely on its size, and takes memory of its exact size only.
    fn take(&self, dt: DatumType, shape: &[usize]) -> TractResult<Arc<Tensor>> {
        let size = dt.size_of() * shape.iter().product::<usize>();
        let room = |t: &Tensor| t.as_plain_ram_storage().map_or(0, |s| s.layout().size());
        let fits = |room: usize| room == size || room > size && dt == DatumType::U8;
        let mut list = self.0.lock().map_err(|_| format_err!("an earlier run panicked"))?;
        let free = list.iter().enumerate().filter(|(_, t)| Arc::strong_count(t) == 1 && fits(room(t)));
        let best = free.min_by_key(|(_, t)| room(t)).map(|(i, _)| i);
        let memory = match best {
            Some(i) => Arc::try_unwrap(list.swap_remove(i)).map_err(|_| format_err!("an output buffer is in use"))?,
            None => Tensor::zero_aligned_dt(DatumType::U8, &[size], 64)?,
        };
        Ok(Arc::new(Tensor::from_storage(dt, shape, PlainStorage::from(memory.into_blob()?))))
    }

    fn keep(&self, tensor: &Arc<Tensor>) {
        if let Ok(mut list) = self.0.lock() {
            list.push(tensor.clone());
        }
    }
}

/// A tract op around a [`Run`].
#[derive(Debug, Clone)]
pub struct Fused {
    run: Arc<dyn Run>,
    outputs: TVec<(DatumType, TVec<usize>)>,
    buffers: Arc<Buffers>,
}

impl Fused {
    /// Wires an operator whose outputs have the given types and shapes.
    pub fn wire(
        model: &mut TypedModel,
        buffers: &Arc<Buffers>,
        name: String,
        run: impl Run,
        inputs: &[OutletId],
        outputs: &[(DatumType, &[usize])],
    ) -> TractResult<TVec<OutletId>> {
        let outputs = outputs.iter().map(|(dt, shape)| (*dt, TVec::from_slice(shape))).collect();
        model.wire_node(name, Fused { run: Arc::new(run), outputs, buffers: buffers.clone() }, inputs)
    }
}

impl PartialEq for Fused {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.run, &other.run)
    }
}

impl Eq for Fused {}

impl Op for Fused {
    fn name(&self) -> StaticName {
        self.run.name().into()
    }

    op_as_typed_op!();
}

impl EvalOp for Fused {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let take = |(dt, shape): &(DatumType, TVec<usize>)| self.buffers.take(*dt, shape);
        let mut outputs: TVec<Arc<Tensor>> = self.outputs.iter().map(take).collect::<TractResult<_>>()?;
        self.run.run(&inputs, &mut outputs)?;
        Ok(outputs
            .into_iter()
            .map(|tensor| {
                self.buffers.keep(&tensor);
                TValue::from_const(tensor)
            })
            .collect())
    }
}

impl TypedOp for Fused {
    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(self.outputs.iter().map(|(dt, shape)| dt.fact(&**shape)).collect())
    }

    as_op!();
}

/// The elements of an input.
pub fn slice<T: Datum>(tensor: &Tensor) -> TractResult<&[T]> {
    tensor.try_as_plain_ram()?.as_slice::<T>()
}

/// The elements of an output.
pub fn slice_mut<T: Datum>(tensor: &mut Arc<Tensor>) -> TractResult<&mut [T]> {
    let tensor = Arc::get_mut(tensor).ok_or_else(|| format_err!("an output buffer is in use"))?;
    let view = tensor.to_plain_array_view_mut::<T>()?;
    view.into_slice().ok_or_else(|| format_err!("an output buffer is not contiguous"))
}

/// RGB u8 `[1, h, w, 3]` -> normalised f32 `[1, 3, h, w]` in the network's channel order.
#[derive(Debug)]
pub struct Normalize {
    /// The value of level `v` of channel `c` at `[c][v]`, channels in the network's order.
    pub table: Box<[[f32; 256]; 3]>,
    /// Which of R, G, B is channel `c`.
    pub order: [usize; 3],
}

impl Run for Normalize {
    fn name(&self) -> &'static str {
        "Normalize"
    }

    fn run(&self, inputs: &[TValue], outputs: &mut [Arc<Tensor>]) -> TractResult<()> {
        let pixels = slice::<u8>(&inputs[0])?.as_chunks::<3>().0;
        let planes = slice_mut::<f32>(&mut outputs[0])?.chunks_exact_mut(pixels.len());
        for ((plane, table), &from) in planes.zip(&*self.table).zip(&self.order) {
            for (value, pixel) in plane.iter_mut().zip(pixels) {
                *value = table[usize::from(pixel[from])];
            }
        }
        Ok(())
    }
}

/// What the int8 operators share: threads and scratch memory.
#[derive(Debug)]
pub struct Engine {
    pub isa: Isa,
    pub pool: Pool,
    pub scratch: Mutex<Scratch>,
}

/// RGB u8 `[1, h, w, 3]` -> quantized u8 `[1, h, w, 3]` in the network's channel order.
#[derive(Debug)]
pub struct NormalizeU8 {
    pub table: Box<[[u8; 256]; 3]>,
    pub order: [usize; 3],
}

impl Run for NormalizeU8 {
    fn name(&self) -> &'static str {
        "NormalizeU8"
    }

    fn run(&self, inputs: &[TValue], outputs: &mut [Arc<Tensor>]) -> TractResult<()> {
        Ok(kernels::lut_u8(slice(&inputs[0])?, &self.table, self.order, slice_mut(&mut outputs[0])?)?)
    }
}

/// Convolution, bias, residual sum, ReLU and requantization in one. Inputs: the map, then the other summand if there
/// is one. Outputs: the real values if it is a tap, then the quantized map if anything reads it.
#[derive(Debug)]
pub struct QConv {
    pub conv: Conv,
    pub engine: Arc<Engine>,
    /// Scale of the output and the bounds of its real values, at a tap.
    pub tap: Option<(f32, [f32; 2])>,
    pub quant: Quant,
    pub bounds: [u8; 2],
}

impl Run for QConv {
    fn name(&self) -> &'static str {
        "QConv"
    }

    fn run(&self, inputs: &[TValue], outputs: &mut [Arc<Tensor>]) -> TractResult<()> {
        let x = slice::<u8>(&inputs[0])?;
        let other = inputs.get(1).map(|b| slice::<u8>(b)).transpose()?;
        let mut scratch = self.engine.scratch.lock().map_err(|_| format_err!("an earlier run panicked"))?;
        let Some((scale, [least, most])) = self.tap else {
            let out = OutputMut::U8(slice_mut(&mut outputs[0])?);
            return Ok(self.conv.run(&self.engine.pool, &mut scratch, x, other, out)?);
        };
        let (first, rest) = outputs.split_at_mut(1);
        let real = slice_mut::<f32>(&mut first[0])?;
        self.conv.run(&self.engine.pool, &mut scratch, x, other, OutputMut::F32(real))?;
        if let Some(rounded) = rest.first_mut() {
            let [lo, hi] = self.bounds;
            kernels::quantize_f32(real, self.quant.zero, lo, hi, slice_mut(rounded)?)?;
        }
        real.iter_mut().for_each(|v| *v = (*v * scale).max(least).min(most));
        Ok(())
    }
}

/// Max pool of a quantized map.
#[derive(Debug)]
pub struct QMaxPool {
    pub pool: MaxPool,
    pub engine: Arc<Engine>,
}

impl Run for QMaxPool {
    fn name(&self) -> &'static str {
        "QMaxPool"
    }

    fn run(&self, inputs: &[TValue], outputs: &mut [Arc<Tensor>]) -> TractResult<()> {
        Ok(self.pool.run(&self.engine.pool, slice(&inputs[0])?, slice_mut(&mut outputs[0])?)?)
    }
}

/// u8 `[1, h, w, c]` -> f32 `[1, c, h, w]`.
#[derive(Debug)]
pub struct Dequantize(pub Quant);

impl Run for Dequantize {
    fn name(&self) -> &'static str {
        "Dequantize"
    }

    fn run(&self, inputs: &[TValue], outputs: &mut [Arc<Tensor>]) -> TractResult<()> {
        let channels = inputs[0].shape()[3];
        let table: Vec<f32> = (0..=255).map(|q| self.0.dequantize(q)).collect();
        let rows = slice::<u8>(&inputs[0])?;
        let output = slice_mut::<f32>(&mut outputs[0])?;
        let pixels = rows.len() / channels.max(1);
        for (i, row) in rows.chunks_exact(channels).enumerate() {
            for (c, &q) in row.iter().enumerate() {
                output[c * pixels + i] = table[usize::from(q)];
            }
        }
        Ok(())
    }
}

/// f32 `[1, c, h, w]` -> u8 `[1, h, w, c]`.
#[derive(Debug)]
pub struct Quantize(pub Quant);

impl Run for Quantize {
    fn name(&self) -> &'static str {
        "Quantize"
    }

    fn run(&self, inputs: &[TValue], outputs: &mut [Arc<Tensor>]) -> TractResult<()> {
        let quant = self.0;
        transpose(&inputs[0], slice_mut::<u8>(&mut outputs[0])?, |x| quant.quantize(x))
    }
}

/// f32 `[1, c, h, w]` -> f32 `[1, h, w, c]`, within the bounds: a tap.
#[derive(Debug)]
pub struct ChannelsLast(pub [f32; 2]);

impl Run for ChannelsLast {
    fn name(&self) -> &'static str {
        "ChannelsLast"
    }

    fn run(&self, inputs: &[TValue], outputs: &mut [Arc<Tensor>]) -> TractResult<()> {
        let [least, most] = self.0;
        transpose(&inputs[0], slice_mut::<f32>(&mut outputs[0])?, |x| x.max(least).min(most))
    }
}

fn transpose<T>(input: &Tensor, output: &mut [T], map: impl Fn(f32) -> T) -> TractResult<()> {
    let channels = input.shape()[1];
    let pixels = input.len() / channels.max(1);
    let planes = slice::<f32>(input)?;
    for (i, row) in output.chunks_exact_mut(channels).enumerate() {
        for (c, value) in row.iter_mut().enumerate() {
            *value = map(planes[c * pixels + i]);
        }
    }
    Ok(())
}
