//! The tract model that runs a lowered ONNX graph: fused int8 operators (u8, NHWC) where the plan has them, islands
//! of tract's own operators (f32, NCHW) between them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use ::image::RgbImage;
use tract_onnx::tract_hir::internal::*;

use super::error::Error;
use super::island::{self, ConstantDequantize, Island};
use super::kernels::{Conv, ConvShape, Epilogue, Isa, MaxPool, Pool, Residual, Scratch};
use super::lower::Format;
use super::onnx::{DType, Graph, Model, Node};
use super::ops::{Buffers, Dequantize, Engine, Fused, Normalize, NormalizeU8, QConv, QMaxPool, Quant, Quantize, Rows};
use super::options::input_table;
use super::plan::{ConvStep, Plan, Step, plan};
use super::stages::{MapInfo, StageOutput};
use crate::image::InputRecipe;

/// A model ready to run: RGB u8 `[1, h, w, 3]` in, one f32 `[1, h, w, c]` per tap out.
#[derive(Debug)]
pub struct Network {
    pub plan: Arc<TypedSimplePlan>,
    /// Height, width and channels of each output.
    pub outputs: Vec<[usize; 3]>,
    pub fusion: Fusion,
    /// Multiplications of one run, about.
    pub work: u64,
}

/// More multiplications for one picture than these are refused: a ResNet-152 at 2048 x 2048 pixels needs as many.
const MAX_WORK: u64 = 1 << 40;

impl Network {
    /// Runs the model on a picture of its size: the taps' maps, f32 NHWC.
    pub fn run(&self, picture: &RgbImage) -> TractResult<TVec<TValue>> {
        let picture = self::picture(picture)?;
        // What tract's own operators make of a damaged graph must not end the process.
        let run = std::panic::AssertUnwindSafe(|| self.plan.run(tvec!(picture)));
        std::panic::catch_unwind(run).unwrap_or_else(|_| bail!("an operator panicked"))
    }
}

/// A picture as plans take it: RGB u8 `[1, h, w, 3]`.
pub fn picture(picture: &RgbImage) -> TractResult<TValue> {
    let shape = [1, picture.height() as usize, picture.width() as usize, 3];
    Ok(Tensor::from_shape(&shape, picture.as_raw())?.into_tvalue())
}

/// What the model is made from.
pub struct Request<'a> {
    pub model: &'a Model,
    pub graph: &'a Graph,
    pub format: Format,
    /// The picture among the graph's inputs.
    pub input: &'a str,
    pub recipe: &'a InputRecipe,
    pub maps: &'a HashMap<String, MapInfo>,
    pub taps: &'a [StageOutput],
    /// Round a convolution's own output before a residual sum, where the file does.
    pub round_sums: bool,
    pub isa: Isa,
    pub threads: usize,
}

/// Builds the model; weights are packed here and the file is not needed any more.
pub fn build(request: &Request) -> Result<Network, Error> {
    let taps: Vec<&str> = request.taps.iter().map(|t| t.value.as_str()).collect();
    let plan = plan(request.model, request.graph, request.input, request.maps, &taps)?;
    let builder = Builder::new(request, &plan);
    builder.build(&taps)
}

/// One step of a plan as a model of its own.
pub struct Part {
    pub plan: Arc<TypedSimplePlan>,
    /// Names of what it makes, in the order of its outputs. u8 NHWC, f32 NCHW from an island, f32 NHWC of a tap.
    pub outputs: Vec<String>,
}

/// Values from outside that a step reads: u8 NHWC or f32 NCHW.
pub fn reads<'g>(plan: &Plan<'g>, step: &Step<'g>, input: &str) -> Vec<&'g str> {
    match step {
        Step::Picture { .. } => Vec::new(),
        Step::Conv(conv) => std::iter::once(conv.x).chain(conv.sum.as_ref().map(|s| s.other)).collect(),
        Step::MaxPool { x, .. } => vec![x],
        Step::Quantize { value, .. } => vec![value],
        Step::Island(nodes) => {
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
        Step::Island(nodes) => {
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

struct Builder<'a> {
    request: &'a Request<'a>,
    plan: &'a Plan<'a>,
    target: TypedModel,
    /// f32 NCHW values.
    floats: HashMap<&'a str, OutletId>,
    /// u8 NHWC values.
    quantized: HashMap<&'a str, OutletId>,
    /// f32 NHWC values, taps of fused convolutions.
    reals: HashMap<&'a str, OutletId>,
    buffers: Arc<Buffers>,
    engine: Arc<Engine>,
    /// Multiplications of the fused operators.
    work: u64,
}

impl<'a> Builder<'a> {
    fn new(request: &'a Request<'a>, plan: &'a Plan<'a>) -> Self {
        Builder {
            request,
            plan,
            target: TypedModel::default(),
            floats: HashMap::new(),
            quantized: HashMap::new(),
            reals: HashMap::new(),
            buffers: Arc::new(Buffers::default()),
            engine: Arc::new(Engine {
                isa: request.isa,
                pool: Pool::new(request.threads),
                scratch: Mutex::new(Scratch::default()),
            }),
            work: 0,
        }
    }

    fn picture(&mut self) -> Result<OutletId, Error> {
        let (h, w) = (self.request.recipe.height as usize, self.request.recipe.width as usize);
        let picture = self.target.add_source("picture", u8::fact([1, h, w, 3]));
        picture.map_err(|e| self.tract(e))
    }

    fn step(&mut self, at: usize, picture: OutletId, taps: &[&'a str], tap: bool) -> Result<(), Error> {
        match &self.plan.steps[at] {
            Step::Picture { output } => self.picture_u8(picture, output),
            Step::Conv(conv) => self.conv(conv, tap),
            Step::MaxPool { node, x, output } => self.max_pool(node, x, output),
            Step::Quantize { value, output } => self.quantize(value, output),
            Step::Island(nodes) => self.island(at, nodes, picture, taps),
        }
    }

    fn tract(&self, error: TractError) -> Error {
        Error::Tract { path: self.request.model.path.clone(), reason: format!("{error:#}") }
    }

    fn unsupported(&self, reason: String) -> Error {
        Error::Unsupported { path: self.request.model.path.clone(), reason }
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
                None => self.rows(tap)?,
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
                work = work.saturating_add(island::cost(&target, node)?);
            }
            ensure!(work <= MAX_WORK, "{work} multiplications for one picture are too many");
            Ok((work, TypedSimplePlan::new(target)?))
        });
        let (work, plan) = island::guarded(self.request.model, finish)?.map_err(|e| self.tract(e))?;
        Ok(Network { plan, outputs, fusion, work })
    }

    fn dims(&self, outlet: OutletId) -> Result<[usize; 4], Error> {
        let fact = self.target.outlet_fact(outlet).map_err(|e| self.tract(e))?;
        let dims = fact.shape.as_concrete().and_then(|d| <[usize; 4]>::try_from(d).ok());
        dims.ok_or_else(|| self.unsupported(format!("a map has the shape {:?}", fact.shape)))
    }

    fn wire(
        &mut self,
        name: &str,
        run: impl super::ops::Run,
        inputs: &[OutletId],
        outputs: &[(DatumType, &[usize])],
    ) -> Result<TVec<OutletId>, Error> {
        let facts = outputs.iter().map(|(dt, shape)| dt.fact(*shape));
        facts.into_iter().try_for_each(|fact| island::check_size(&fact)).map_err(|e| self.tract(e))?;
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

    /// A tap that an island makes.
    fn rows(&mut self, tap: &'a str) -> Result<OutletId, Error> {
        let missing = || self.unsupported(format!("value {tap:?} cannot be tapped"));
        let from = self.floats.get(tap).copied().ok_or_else(missing)?;
        let [n, c, h, w] = self.dims(from)?;
        // Where the file has no ReLU because its quantization cuts off below zero, that cut is the ReLU.
        let rounded = self.request.graph.nodes.iter().find(|node| node.is("QuantizeLinear") && node.inputs[0] == tap);
        let quant = rounded.and_then(|node| self.plan.quants.get(node.outputs[0].as_str()));
        let bounds = quant.map_or([f32::NEG_INFINITY, f32::INFINITY], |quant| self.reach(*quant));
        Ok(self.wire(tap, Rows(bounds), &[from], &[(DatumType::F32, &[n, h, w, c])])?[0])
    }

    /// The real values at a tap that a rounding keeps. Quantizers leave out a ReLU or Clip that its range does already.
    /// A file that is meant to be nearer to the float network has what it needs in front of its roundings.
    fn reach(&self, quant: Quant) -> [f32; 2] {
        let most = if self.request.round_sums { quant.dequantize(255) } else { f32::INFINITY };
        [quant.dequantize(0), most]
    }

    fn island(&mut self, i: usize, nodes: &[&'a Node], picture: OutletId, taps: &[&'a str]) -> Result<(), Error> {
        let Request { model, graph, .. } = *self.request;
        let known = tract_onnx::onnx();
        let mut live: HashSet<&str> = HashSet::from([self.request.input]);
        live.extend(self.floats.keys().chain(self.plan.dequantized.keys()));
        for node in nodes {
            let is_live = node.inputs.iter().any(|value| live.contains(value.as_str()));
            island::check(model, graph, node, &known, is_live)?;
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
                Step::Island(other) if !std::ptr::eq(other.as_slice(), nodes) => {
                    other.iter().any(|n| n.inputs.iter().any(|i| i == value))
                }
                _ => false,
            };
            taps.contains(&value) || self.plan.steps.iter().any(by)
        };
        let made = nodes.iter().flat_map(|n| &n.outputs).map(String::as_str).filter(|v| !v.is_empty());
        let outputs: Vec<&str> = made.filter(|v| read_outside(v)).collect();
        let island = Island { nodes: nodes.to_vec(), inputs, outputs };
        let outlets = island::splice(model, graph, &island, &format!("tract{i}"), &mut self.target)?;
        self.floats.extend(island.outputs.iter().copied().zip(outlets));
        Ok(())
    }

    /// The f32 NCHW outlet of a value from outside an island; None for a constant.
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
        let weight = Weight::read(self.request, node, x.scale)?;
        let [out_c, weight_in, kh, kw] = weight.dims;
        if weight_in != in_c {
            return Err(
                self.unsupported(format!("{}: weights for {weight_in} channels, input of {in_c}", node.label()))
            );
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
        let conv = Conv::new(self.engine.isa, &shape, &weight.values, &weight.bias, x.zero, epilogue);
        let conv = conv.map_err(|e| self.unsupported(format!("{}: {e}", node.label())))?;
        let dims = [1, shape.out_h(), shape.out_w(), out_c];
        self.work(&dims, kh * kw * in_c);
        if let Some(other) = inputs.get(1)
            && self.dims(*other)? != dims
        {
            return Err(self.unsupported(format!("{}: a sum of maps of different shapes", node.label())));
        }
        let read = self.request.graph.nodes.iter().any(|n| n.inputs.iter().any(|i| i == step.output));
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

/// Two sizes of a window, height and width, `default` where the node leaves them out.
///
/// # Errors
/// There are not two, or one is not between 1 and 1024.
pub fn pair(model: &Model, node: &Node, name: &str, default: usize) -> Result<[usize; 2], Error> {
    let Some(list) = node.ints(name) else { return Ok([default; 2]) };
    let small = |v: &i64| usize::try_from(*v).ok().filter(|v| (1..=1024).contains(v));
    let values: Option<Vec<usize>> = list.iter().map(small).collect();
    let reason = || format!("{} has {name} {list:?}", node.label());
    let pair = values.and_then(|v| <[usize; 2]>::try_from(v).ok());
    pair.ok_or_else(|| Error::Unsupported { path: model.path.clone(), reason: reason() })
}

/// Top, left, bottom and right padding.
///
/// # Errors
/// There are not four, or one is not between 0 and 1024.
pub fn pads(model: &Model, node: &Node) -> Result<[usize; 4], Error> {
    let Some(list) = node.ints("pads") else { return Ok([0; 4]) };
    let small = |v: &i64| usize::try_from(*v).ok().filter(|v| *v <= 1024);
    let values: Option<Vec<usize>> = list.iter().map(small).collect();
    let reason = || format!("{} has pads {list:?}", node.label());
    let pads = values.and_then(|v| <[usize; 4]>::try_from(v).ok());
    pads.ok_or_else(|| Error::Unsupported { path: model.path.clone(), reason: reason() })
}

/// Weights and bias of an int8 convolution.
struct Weight {
    /// Output channels, input channels, kernel height and width.
    dims: [usize; 4],
    values: Vec<i8>,
    /// One per output channel.
    scale: Vec<f32>,
    /// In units of `x_scale * scale`.
    bias: Vec<i32>,
}

impl Weight {
    fn read(request: &Request, node: &Node, x_scale: f32) -> Result<Weight, Error> {
        let Request { model, graph, .. } = *request;
        let wrong =
            |what: &str| Error::NotOnnx { path: model.path.clone(), reason: format!("{}: {what}", node.label()) };
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
        let values = model.read(weight.tensor)?.into_iter().map(|b| b as i8).collect();
        Ok(Weight { dims, values, scale, bias })
    }
}

/// Which part of a network is fused into int8 operators and which part runs as tract runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fusion {
    /// float, QDQ or QOperator.
    pub format: &'static str,
    /// Fused convolutions; of these with their residual sum.
    pub convolutions: usize,
    pub sums: usize,
    pub max_pools: usize,
    /// Operators that tract runs, in float, with their number.
    pub in_float: Vec<(String, usize)>,
    /// Float maps that are rounded for the int8 operators: transitions out of what tract runs.
    pub roundings: usize,
}

impl Fusion {
    fn of(plan: &Plan, format: Format) -> Fusion {
        let count = |is: fn(&Step) -> bool| plan.steps.iter().filter(|s| is(s)).count();
        let mut in_float: Vec<(String, usize)> = Vec::new();
        for step in &plan.steps {
            let Step::Island(nodes) = step else { continue };
            for node in nodes {
                match in_float.iter_mut().find(|(op, _)| *op == node.op) {
                    Some((_, n)) => *n += 1,
                    None => in_float.push((node.op.clone(), 1)),
                }
            }
        }
        Fusion {
            format: format.name(),
            convolutions: count(|s| matches!(s, Step::Conv(_))),
            sums: count(|s| matches!(s, Step::Conv(c) if c.sum.is_some())),
            max_pools: count(|s| matches!(s, Step::MaxPool { .. })),
            in_float,
            roundings: count(|s| matches!(s, Step::Quantize { .. })),
        }
    }

    /// Whether everything from the picture to the tap runs in fused int8 operators.
    pub fn is_whole(&self) -> bool {
        self.convolutions > 0 && self.in_float.is_empty() && self.roundings == 0
    }

    /// Lines for people.
    pub fn describe(&self) -> Vec<String> {
        let Fusion { format, convolutions, sums, max_pools, in_float, roundings } = self;
        let mut lines = vec![format!("format: {format}")];
        if convolutions + max_pools > 0 {
            lines.push(format!(
                "fused int8: {convolutions} convolutions ({sums} with their residual sum), {max_pools} max pools"
            ));
        }
        if in_float.is_empty() {
            lines.push("as tract runs it: nothing".into());
        } else {
            let list: Vec<String> = in_float.iter().map(|(op, n)| format!("{n} {op}")).collect();
            lines.push(format!("as tract runs it, in float: {}", list.join(", ")));
        }
        if *roundings > 0 {
            lines.push(format!("rounded from float to int8: {roundings} maps"));
        }
        lines
    }
}
