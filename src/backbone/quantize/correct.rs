//! Bias correction, from the first layer to the last: rounding shifts the mean of a convolution's channels, and the
//! bias takes that shift back (Nagel et al. 2019, section 4.2, with means that are measured, appendix D).
//!
//! The network runs step by step in 8 bits, all pictures through one step before the next, so that each layer sees
//! what the corrected layers before it make. Where a convolution runs together with a residual sum, it is the mean of
//! the sum that is kept, so that what the other summand has drifted is taken back too.

use std::collections::HashMap;
use std::sync::Arc;

use ::image::RgbImage;
use rayon::prelude::*;
use tract_onnx::prelude::{IntoArcTensor, TValue, TVec, Tensor};

use super::error::Error;
use super::observe::{Subject, channel_means};
use super::progress::Watch;
use super::weights::{Layer, bias_name};
use crate::backbone::compile::ops::slice;
use crate::backbone::compile::plan::{Step, plan};
use crate::backbone::compile::stages;
use crate::backbone::compile::{self, Part};
use crate::backbone::onnx::{Graph, Tensor as Constant};
use crate::backbone::passes::lower::Format;
use crate::backbone::passes::quant::Quant;

/// Room for values below the range of 8 bits, when a convolution's values are looked at before its activation.
const WIDER: f32 = 4096.0;

/// A value of all pictures between two steps.
struct Held {
    dims: [usize; 4],
    bytes: bool,
    maps: Vec<Arc<Tensor>>,
}

impl Subject<'_> {
    /// Corrects the biases of `layers` (by the convolution's output) and puts them into `graph`. `means` holds the
    /// float network's channel means by value. Gives the number of corrected layers.
    ///
    /// # Errors
    /// The graph cannot be run, or `watch` says stop.
    pub fn correct(
        &self,
        graph: &mut Graph,
        layers: &mut HashMap<String, Layer>,
        means: &HashMap<&str, &[f64]>,
        pictures: &[RgbImage],
        watch: &Watch,
    ) -> Result<usize, Error> {
        let planned = graph.clone();
        let maps = stages::maps(&planned, self.input);
        let taps = stages::select(&self.model.path, &stages::find(&planned, &maps), None)?;
        let tap_values: Vec<&str> = taps.iter().map(|t| t.value.as_str()).collect();
        let plan = plan(self.model, &planned, self.input, &maps, &tap_values)?;
        let mut free = plan.clone();
        for step in &mut free.steps {
            if let Step::Conv(conv) = step {
                conv.bounds = [f32::NEG_INFINITY, f32::INFINITY];
            }
        }
        let reads: Vec<Vec<&str>> = plan.steps.iter().map(|s| compile::reads(&plan, s, self.input)).collect();
        let mut held: HashMap<String, Held> = HashMap::new();
        let mut corrected = 0;
        for (at, step) in plan.steps.iter().enumerate() {
            watch.check()?;
            if let Step::Conv(conv) = step {
                let layer = layers.get_mut(&conv.node.outputs[0]);
                if let (Some(layer), Some(target)) = (layer, means.get(conv.source)) {
                    let known = free.quants.get(conv.output).copied();
                    let known = known.ok_or_else(|| self.unplanned(conv.output))?;
                    free.quants.insert(conv.output, Quant { scale: known.scale * WIDER, zero: 128 });
                    let request = self.request(graph, Format::Qdq, &maps, &taps)?;
                    let inputs = inputs(&reads[at], &held);
                    let part = compile::part(&request, &free, at, &inputs, true)?;
                    let found = self.means(&part, &reads[at], &held, pictures)?;
                    free.quants.insert(conv.output, known);
                    for (bias, (target, found)) in layer.bias.iter_mut().zip(target.iter().zip(found)) {
                        *bias += target - found;
                    }
                    let levels = layer.bias_levels();
                    graph.constants.insert(bias_name(conv.node), Constant::i32(vec![levels.len()], &levels));
                    corrected += 1;
                }
            }
            let later = |name: &str| reads[at + 1..].iter().any(|r| r.contains(&name));
            let request = self.request(graph, Format::Qdq, &maps, &taps)?;
            let part = compile::part(&request, &plan, at, &inputs(&reads[at], &held), false)?;
            if part.outputs.iter().any(|name| later(name)) {
                let made = self.run(&part, &reads[at], &held, pictures)?;
                let bytes = !matches!(step, Step::Fallback(_));
                for (name, maps) in part.outputs.into_iter().zip(made).filter(|(name, _)| later(name)) {
                    let first = maps.first().ok_or(Error::NoPictures)?;
                    let dims = <[usize; 4]>::try_from(first.shape()).map_err(|_| self.unplanned(&name))?;
                    held.insert(name, Held { dims, bytes, maps });
                }
            }
            held.retain(|name, _| later(name));
            if matches!(step, Step::Conv(_)) {
                watch.done();
            }
        }
        Ok(corrected)
    }

    fn unplanned(&self, value: &str) -> Error {
        Error::Backbone(self.model.unsupported(format!("the quantized value {value:?} is no map of 8 bits")))
    }

    /// Runs a step on one picture.
    fn one(
        &self,
        part: &Part,
        reads: &[&str],
        held: &HashMap<String, Held>,
        n: usize,
        picture: &RgbImage,
    ) -> Result<TVec<TValue>, Error> {
        let mut values: TVec<TValue> = TVec::new();
        values.push(compile::picture(picture).map_err(|e| self.failed(e))?);
        for held in reads.iter().filter_map(|name| held.get(*name)) {
            values.push(TValue::from_const(held.maps[n].clone()));
        }
        part.plan.run(values).map_err(|e| self.failed(e))
    }

    /// The outputs of a step, each of all pictures.
    fn run(
        &self,
        part: &Part,
        reads: &[&str],
        held: &HashMap<String, Held>,
        pictures: &[RgbImage],
    ) -> Result<Vec<Vec<Arc<Tensor>>>, Error> {
        let one = |(n, picture)| -> Result<Vec<Arc<Tensor>>, Error> {
            let outputs = self.one(part, reads, held, n, picture)?;
            Ok(outputs.into_iter().map(|o| o.into_arc_tensor()).collect())
        };
        let all = pictures.par_iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?;
        let mut by_output: Vec<Vec<Arc<Tensor>>> = part.outputs.iter().map(|_| Vec::new()).collect();
        for outputs in all {
            by_output.iter_mut().zip(outputs).for_each(|(list, tensor)| list.push(tensor));
        }
        Ok(by_output)
    }

    /// The mean of each channel over all pictures and places.
    fn means(
        &self,
        part: &Part,
        reads: &[&str],
        held: &HashMap<String, Held>,
        pictures: &[RgbImage],
    ) -> Result<Vec<f64>, Error> {
        let one = |(n, picture)| -> Result<Vec<f64>, Error> {
            let outputs = self.one(part, reads, held, n, picture)?;
            let map = outputs.first().ok_or(Error::NoPictures)?;
            let channels = map.shape().last().copied().unwrap_or(0);
            Ok(channel_means(slice::<f32>(map).map_err(|e| self.failed(e))?, channels))
        };
        let all = pictures.par_iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?;
        let mut mean = vec![0.0; all.first().map_or(0, Vec::len)];
        for row in &all {
            mean.iter_mut().zip(row).for_each(|(mean, v)| *mean += v / all.len() as f64);
        }
        Ok(mean)
    }
}

fn inputs<'r>(reads: &[&'r str], held: &HashMap<String, Held>) -> Vec<(&'r str, [usize; 4], bool)> {
    reads.iter().filter_map(|name| held.get(*name).map(|h| (*name, h.dims, h.bytes))).collect()
}
