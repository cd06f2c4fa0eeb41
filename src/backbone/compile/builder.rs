//! The tract model that runs a lowered ONNX graph: fused int8 operators (u8, NHWC) where the plan has them, the fallback
//! of tract's own operators (f32, NCHW) between them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use tract_onnx::tract_hir::internal::*;

use super::cache;
use super::fallback::{self, Subgraph};
use super::fusion::Fusion;
use super::network::Network;
use super::ops::{
    Buffers, ChannelsLast, Dequantize, Engine, Fused, Normalize, NormalizeU8, QConv, QMaxPool, Quantize, Run,
};
use super::plan::{ConvStep, Plan, Step, plan};
use super::request::Request;
use super::weights::Weights;
use crate::backbone::error::Error;
use crate::backbone::kernels::{Conv, ConvShape, Epilogue, MaxPool, Packed, Pool, Residual, Scratch};
use crate::backbone::onnx::Node;
use crate::backbone::options::input_table;
use crate::backbone::passes::quant::Quant;
use crate::backbone::passes::window::{pads, pair};

/// More multiplications for one picture than these are refused: a ResNet-152 at 2048 x 2048 pixels needs as many.
const MAX_WORK: u64 = 1 << 40;

/// Builds the model; weights are packed here, or mapped from the cache, and the file is not needed any more.
pub fn build(request: &Request) -> Result<Network, Error> {
    let taps: Vec<&str> = request.taps.iter().map(|t| t.value.as_str()).collect();
    let plan = plan(request.model, request.graph, request.input, request.maps, &taps)?;
    let mut builder = Builder::new(request, &plan);
    builder.packed = cache::packed(request, &plan).into_iter();
    builder.build(&taps)
}

pub(super) struct Builder<'a> {
    request: &'a Request<'a>,
    plan: &'a Plan<'a>,
    pub target: TypedModel,
    /// f32 NCHW values.
    pub floats: HashMap<&'a str, OutletId>,
    /// u8 NHWC values.
    pub quantized: HashMap<&'a str, OutletId>,
    /// f32 NHWC values, taps of fused convolutions.
    pub reals: HashMap<&'a str, OutletId>,
    /// Weights of the convolutions to come, in the plan's order; those that are missing are packed.
    packed: std::vec::IntoIter<Packed>,
    buffers: Arc<Buffers>,
    engine: Arc<Engine>,
    /// Multiplications of the fused operators.
    work: u64,
}

impl<'a> Builder<'a> {
    pub fn new(request: &'a Request<'a>, plan: &'a Plan<'a>) -> Self {
        Builder {
            request,
            plan,
            target: TypedModel::default(),
            floats: HashMap::new(),
            quantized: HashMap::new(),
            reals: HashMap::new(),
            packed: Vec::new().into_iter(),
            buffers: Arc::new(Buffers::default()),
            engine: Arc::new(Engine {
                isa: request.isa,
                pool: Pool::new(request.threads),
                scratch: Mutex::new(Scratch::default()),
            }),
            work: 0,
        }
    }

    pub fn picture(&mut self) -> Result<OutletId, Error> {
        let (h, w) = (self.request.recipe.height as usize, self.request.recipe.width as usize);
        let picture = self.target.add_source("picture", u8::fact([1, h, w, 3]));
        picture.map_err(|e| self.tract(e))
    }

    pub fn step(&mut self, at: usize, picture: OutletId, taps: &[&'a str], tap: bool) -> Result<(), Error> {
        match &self.plan.steps[at] {
            Step::Picture { output } => self.picture_u8(picture, output),
            Step::Conv(conv) => self.conv(conv, tap),
            Step::MaxPool { node, x, output } => self.max_pool(node, x, output),
            Step::Quantize { value, output } => self.quantize(value, output),
            Step::Fallback(nodes) => self.fallback(at, nodes, picture, taps),
        }
    }

    pub fn tract(&self, error: TractError) -> Error {
        Error::Tract { path: self.request.model.path.clone(), reason: format!("{error:#}") }
    }

    fn unsupported(&self, reason: String) -> Error {
        self.request.model.unsupported(reason)
    }

    fn build(mut self, taps: &[&'a str]) -> Result<Network, Error> {
        let picture = self.picture()?;
        for (at, step) in self.plan.steps.iter().enumerate() {
            let tap = matches!(step, Step::Conv(conv) if taps.contains(&conv.real));
            self.step(at, picture, taps, tap)?;
        }
        let mut outlets = Vec::new();
        let mut outputs = Vec::new();
        for tap in taps {
            let outlet = match self.reals.get(tap) {
                Some(&outlet) => outlet,
                None => self.channels_last(tap)?,
            };
            let [_, h, w, c] = self.dims(outlet)?;
            outputs.push([h, w, c]);
            outlets.push(outlet);
        }
        let fusion = Fusion::of(self.plan, self.request.format);
        let mut target = std::mem::take(&mut self.target);
        let finish = std::panic::AssertUnwindSafe(|| {
            target.select_output_outlets(&outlets)?;
            let mut work = self.work;
            for node in &target.nodes {
                work = work.saturating_add(fallback::cost(&target, node)?);
            }
            ensure!(work <= MAX_WORK, "{work} multiplications for one picture are too many");
            Ok((work, TypedSimplePlan::new(target)?))
        });
        let (work, plan) = fallback::guarded(self.request.model, finish)?.map_err(|e| self.tract(e))?;
        Ok(Network { plan, outputs, fusion, work })
    }

    fn dims(&self, outlet: OutletId) -> Result<[usize; 4], Error> {
        let fact = self.target.outlet_fact(outlet).map_err(|e| self.tract(e))?;
        let dims = fact.shape.as_concrete().and_then(|d| <[usize; 4]>::try_from(d).ok());
        dims.ok_or_else(|| {
            self.unsupported(format!("a map has the shape {:?}; N, C, H, W of fixed sizes are supported", fact.shape))
        })
    }

    fn wire(
        &mut self,
        name: &str,
        run: impl Run,
        inputs: &[OutletId],
        outputs: &[(DatumType, &[usize])],
    ) -> Result<TVec<OutletId>, Error> {
        let facts = outputs.iter().map(|(dt, shape)| dt.fact(*shape));
        facts.into_iter().try_for_each(|fact| fallback::check_size(&fact)).map_err(|e| self.tract(e))?;
        let name = format!("{name}#{}", self.target.nodes.len());
        let wired = Fused::wire(&mut self.target, &self.buffers, name, run, inputs, outputs);
        wired.map_err(|e| self.tract(e))
    }

    fn work(&mut self, dims: &[usize], each: usize) {
        let all = dims.iter().fold(each as u64, |n, d| n.saturating_mul(*d as u64));
        self.work = self.work.saturating_add(all);
    }

    fn input(&self, name: &str) -> Result<OutletId, Error> {
        let missing = || self.unsupported(format!("value {name:?} is used before it is made"));
        self.quantized.get(name).copied().ok_or_else(missing)
    }

    fn quant(&self, name: &str) -> Result<Quant, Error> {
        let missing = || self.unsupported(format!("value {name:?} is not quantized"));
        self.plan.quants.get(name).copied().ok_or_else(missing)
    }

    fn picture_u8(&mut self, picture: OutletId, output: &'a str) -> Result<(), Error> {
        let quant = self.quant(output)?;
        let (table, order) = input_table(self.request.recipe);
        let table = Box::new(table.map(|channel| channel.map(|v| quant.quantize(v))));
        let dims = self.dims(picture)?;
        let made = self.wire(output, NormalizeU8 { table, order }, &[picture], &[(DatumType::U8, &dims)])?;
        self.quantized.insert(output, made[0]);
        Ok(())
    }

    fn quantize(&mut self, value: &'a str, output: &'a str) -> Result<(), Error> {
        let quant = self.quant(output)?;
        let missing = || self.unsupported(format!("value {value:?} is quantized before it is made"));
        let from = self.floats.get(value).copied().ok_or_else(missing)?;
        let [n, c, h, w] = self.dims(from)?;
        let made = self.wire(output, Quantize(quant), &[from], &[(DatumType::U8, &[n, h, w, c])])?;
        self.quantized.insert(output, made[0]);
        Ok(())
    }

    /// A tap that the fallback makes.
    fn channels_last(&mut self, tap: &'a str) -> Result<OutletId, Error> {
        let missing = || self.unsupported(format!("the network does not compute the stage {tap:?}"));
        let from = self.floats.get(tap).copied().ok_or_else(missing)?;
        let [n, c, h, w] = self.dims(from)?;
        // Where the file has no ReLU because its quantization cuts off below zero, that cut is the ReLU.
        let rounded = self.plan.index.readers(tap).find(|node| node.is("QuantizeLinear"));
        let quant = rounded.and_then(|node| self.plan.quants.get(node.outputs[0].as_str()));
        let bounds = quant.map_or([f32::NEG_INFINITY, f32::INFINITY], |quant| self.reach(*quant));
        Ok(self.wire(tap, ChannelsLast(bounds), &[from], &[(DatumType::F32, &[n, h, w, c])])?[0])
    }

    /// The real values at a tap that a rounding keeps. Quantizers leave out a ReLU or Clip that its range does already.
    /// A file that is meant to be nearer to the float network has what it needs in front of its roundings.
    fn reach(&self, quant: Quant) -> [f32; 2] {
        let most = if self.request.round_sums { quant.dequantize(255) } else { f32::INFINITY };
        [quant.dequantize(0), most]
    }

    fn fallback(&mut self, i: usize, nodes: &[&'a Node], picture: OutletId, taps: &[&'a str]) -> Result<(), Error> {
        let Request { model, graph, .. } = *self.request;
        let known = tract_onnx::onnx();
        let mut live: HashSet<&str> = HashSet::from([self.request.input]);
        live.extend(self.floats.keys().chain(self.plan.dequantized.keys()));
        for node in nodes {
            let is_live = node.inputs.iter().any(|value| live.contains(value.as_str()));
            fallback::check(model, graph, node, &known, is_live)?;
            live.extend(node.outputs.iter().map(String::as_str));
        }
        let inside: HashSet<&str> = nodes.iter().flat_map(|n| n.outputs.iter().map(String::as_str)).collect();
        let mut inputs: Vec<(&str, OutletId)> = Vec::new();
        for value in nodes.iter().flat_map(|n| &n.inputs).map(String::as_str).filter(|v| !v.is_empty()) {
            if inside.contains(value) || inputs.iter().any(|(name, _)| *name == value) {
                continue;
            }
            if let Some(outlet) = self.float(value, picture)? {
                inputs.push((value, outlet));
            }
        }
        let read_outside = |value: &str| {
            let by = |step: &Step| match step {
                Step::Quantize { value: read, .. } => *read == value,
                Step::Fallback(other) if !std::ptr::eq(other.as_slice(), nodes) => {
                    other.iter().any(|n| n.inputs.iter().any(|i| i == value))
                }
                _ => false,
            };
            taps.contains(&value) || self.plan.steps.iter().any(by)
        };
        let made = nodes.iter().flat_map(|n| &n.outputs).map(String::as_str).filter(|v| !v.is_empty());
        let outputs: Vec<&str> = made.filter(|v| read_outside(v)).collect();
        let subgraph = Subgraph { nodes: nodes.to_vec(), inputs, outputs };
        let outlets = fallback::splice(model, graph, &subgraph, &format!("tract{i}"), &mut self.target)?;
        self.floats.extend(subgraph.outputs.iter().copied().zip(outlets));
        Ok(())
    }

    /// The f32 NCHW outlet of a value from outside a subgraph; None for a constant.
    fn float(&mut self, value: &'a str, picture: OutletId) -> Result<Option<OutletId>, Error> {
        if let Some(&outlet) = self.floats.get(value) {
            return Ok(Some(outlet));
        }
        let outlet = if value == self.request.input {
            let (table, order) = input_table(self.request.recipe);
            let [n, h, w, c] = self.dims(picture)?;
            let run = Normalize { table: Box::new(table), order };
            self.wire(value, run, &[picture], &[(DatumType::F32, &[n, c, h, w])])?[0]
        } else if let Some(&quantized) = self.plan.dequantized.get(value) {
            let from = self.input(quantized)?;
            let [n, h, w, c] = self.dims(from)?;
            self.wire(value, Dequantize(self.quant(quantized)?), &[from], &[(DatumType::F32, &[n, c, h, w])])?[0]
        } else {
            return Ok(None);
        };
        self.floats.insert(value, outlet);
        Ok(Some(outlet))
    }

    fn max_pool(&mut self, node: &Node, x: &'a str, output: &'a str) -> Result<(), Error> {
        let from = self.input(x)?;
        let [_, in_h, in_w, channels] = self.dims(from)?;
        let kernel = pair(self.request.model, node, "kernel_shape", 1)?;
        let pool = MaxPool {
            in_h,
            in_w,
            channels,
            kernel,
            stride: pair(self.request.model, node, "strides", 1)?,
            pads: pads(self.request.model, node)?,
        };
        let dims = [1, pool.out_h(), pool.out_w(), channels];
        self.work(&dims, kernel[0] * kernel[1]);
        let made =
            self.wire(output, QMaxPool { pool, engine: self.engine.clone() }, &[from], &[(DatumType::U8, &dims)])?;
        self.quantized.insert(output, made[0]);
        Ok(())
    }

    fn conv(&mut self, step: &ConvStep<'a>, tap: bool) -> Result<(), Error> {
        let node = step.node;
        let (from, x) = (self.input(step.x)?, self.quant(step.x)?);
        let [_, in_h, in_w, in_c] = self.dims(from)?;
        let y = self.quant(step.output)?;
        let weight = Weights::read(self.request.model, self.request.graph, node, x.scale)?;
        let [out_c, weight_in, kh, kw] = weight.dims;
        if weight_in != in_c {
            return Err(self.unsupported(format!(
                "{}: its weights are for {weight_in} channels, its input has {in_c}",
                node.label()
            )));
        }
        let shape = ConvShape {
            in_h,
            in_w,
            in_c,
            out_c,
            kernel: [kh, kw],
            stride: pair(self.request.model, node, "strides", 1)?,
            pads: pads(self.request.model, node)?,
            dilation: pair(self.request.model, node, "dilations", 1)?,
        };
        let bounds = step.bounds.map(|bound| y.quantize(bound));
        let own = step.sum.as_ref().and_then(|sum| sum.own);
        let unit = own.filter(|_| self.request.round_sums).unwrap_or(y).scale;
        let scale = weight.scale.iter().map(|w| x.scale * w / unit).collect();
        let mut epilogue = Epilogue::new(scale, y.zero, bounds[0], bounds[1]);
        let mut inputs = vec![from];
        if let Some(sum) = &step.sum {
            let other = self.quant(sum.other)?;
            let limit = |q: u8| own.map(|own| own.dequantize(q) / unit);
            epilogue.residual = Some(Residual {
                scale: other.scale / y.scale,
                zero_point: other.zero,
                conv_step: own.filter(|_| self.request.round_sums).map(|own| own.scale / y.scale),
                conv_lo: limit(0).unwrap_or(f32::NEG_INFINITY),
                conv_hi: limit(255).unwrap_or(f32::INFINITY),
            });
            inputs.push(self.input(sum.other)?);
        }
        let isa = self.engine.isa;
        let conv = match self.packed.next() {
            Some(packed) => Conv::of(isa, &shape, packed, x.zero, epilogue),
            None => Conv::new(isa, &shape, &weight.values(self.request.model)?, &weight.bias, x.zero, epilogue),
        };
        let conv = conv.map_err(|e| self.unsupported(format!("{}: {e}", node.label())))?;
        let dims = [1, shape.out_h(), shape.out_w(), out_c];
        self.work(&dims, kh * kw * in_c);
        if let Some(other) = inputs.get(1)
            && self.dims(*other)? != dims
        {
            return Err(self.unsupported(format!("{}: it is added to a map of another shape", node.label())));
        }
        let read = !self.plan.index.consumers(step.output).is_empty();
        let outputs: Vec<(DatumType, &[usize])> = match (tap, read) {
            (false, _) => vec![(DatumType::U8, &dims)],
            (true, false) => vec![(DatumType::F32, &dims)],
            (true, true) => vec![(DatumType::F32, &dims), (DatumType::U8, &dims)],
        };
        let [least, most] = self.reach(y);
        let real_bounds = [step.bounds[0].max(least), step.bounds[1].min(most)];
        let real = tap.then_some((y.scale, real_bounds));
        let run = QConv { conv, engine: self.engine.clone(), tap: real, quant: y, bounds };
        let made = self.wire(step.output, run, &inputs, &outputs)?;
        if tap {
            self.reals.insert(step.real, made[0]);
        }
        if let Some(&outlet) = made.get(usize::from(tap)) {
            self.quantized.insert(step.output, outlet);
        }
        Ok(())
    }
}
