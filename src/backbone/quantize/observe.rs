//! Runs the float network on calibration pictures and keeps of its values what ranges and biases need.

use std::collections::HashMap;
use std::sync::Mutex;

use ::image::RgbImage;
use rayon::prelude::*;
use tract_onnx::prelude::TractError;

use super::error::Error;
use super::progress::Watch;
use super::ranges::Histogram;
use crate::backbone::compile::ops::slice;
use crate::backbone::compile::stages::{MapInfo, StageOutput};
use crate::backbone::compile::{Request, build};
use crate::backbone::error::Error as BackboneError;
use crate::backbone::kernels;
use crate::backbone::onnx::{Graph, Model};
use crate::backbone::passes::lower::Format;
use crate::backbone::tap::Stage;
use crate::image::InputRecipe;

/// What is observed of one value.
#[derive(Debug, Clone, PartialEq)]
pub struct Observer {
    pub value: String,
    /// A histogram of the value within these bounds.
    pub histogram: Option<[f32; 2]>,
    /// The greatest absolute value of each channel within the bounds.
    pub greatest: bool,
}

/// What an observer saw.
#[derive(Debug, Clone, Default)]
pub struct Statistics {
    pub histogram: Histogram,
    /// The mean of each channel over pictures and places, before any bounds.
    pub mean: Vec<f64>,
    pub greatest: Vec<f32>,
}

/// One part in 2^30: means are summed as integers, so that the order of the pictures does not matter.
const UNIT: f64 = (1u64 << 30) as f64;

#[derive(Default)]
struct Gathered {
    histogram: Histogram,
    sums: Vec<i128>,
    greatest: Vec<f32>,
}

/// The network that is quantized, beside its graph.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub model: &'a Model,
    /// The picture among the graph's inputs.
    pub input: &'a str,
    pub recipe: &'a InputRecipe,
}

impl<'a> Subject<'a> {
    /// A graph of it, to be run on one picture by one thread.
    pub fn request(
        &self,
        graph: &'a Graph,
        format: Format,
        maps: &'a HashMap<String, MapInfo>,
        taps: &'a [StageOutput],
    ) -> Result<Request<'a>, Error> {
        let Subject { model, input, recipe } = *self;
        let isa = kernels::Isa::detect().map_err(BackboneError::from)?;
        Ok(Request { model, graph, format, input, recipe, maps, taps, round_sums: false, isa, threads: 1, cache: None })
    }

    pub fn failed(&self, error: TractError) -> Error {
        Error::Backbone(BackboneError::Run { path: self.model.path.clone(), reason: format!("{error:#}") })
    }

    /// Runs a float graph on all pictures, several at once, and gives what each observer saw.
    ///
    /// # Errors
    /// The network cannot be run, gives values that are not finite, or `watch` says stop.
    pub fn observe(
        &self,
        graph: &Graph,
        observers: &[Observer],
        pictures: &[RgbImage],
        watch: &Watch,
    ) -> Result<Vec<Statistics>, Error> {
        let info = MapInfo { stride: [1, 1], channels: None };
        let taps: Vec<StageOutput> =
            observers.iter().map(|o| StageOutput { stage: Stage::Layer1, value: o.value.clone(), info }).collect();
        let network = build(&self.request(graph, Format::Float, &HashMap::new(), &taps)?)?;
        let gathered: Vec<Mutex<Gathered>> = observers.iter().map(|_| Mutex::default()).collect();
        pictures.par_iter().try_for_each(|picture| {
            watch.check()?;
            let outputs = network.run(picture).map_err(|e| self.failed(e))?;
            for (((tensor, observer), gathered), dims) in
                outputs.iter().zip(observers).zip(&gathered).zip(&network.outputs)
            {
                let values = slice::<f32>(tensor).map_err(|e| self.failed(e))?;
                let mut gathered = gathered.lock().map_err(|_| Error::Interrupted)?;
                if !gathered.take(observer, values, dims[2]) {
                    return Err(Error::NotFinite { value: observer.value.clone() });
                }
            }
            watch.done();
            Ok(())
        })?;
        let finish = |gathered: Mutex<Gathered>| {
            let Gathered { histogram, sums, greatest } = gathered.into_inner().map_err(|_| Error::Interrupted)?;
            let mean = sums.iter().map(|&s| s as f64 / UNIT / pictures.len() as f64).collect();
            Ok(Statistics { histogram, mean, greatest })
        };
        gathered.into_iter().map(finish).collect()
    }
}

impl Gathered {
    /// Takes the values of one picture, channels last; false if one is not finite.
    fn take(&mut self, observer: &Observer, values: &[f32], channels: usize) -> bool {
        let bounds = observer.histogram.unwrap_or([f32::NEG_INFINITY, f32::INFINITY]);
        if observer.histogram.is_some() && !self.histogram.add(values, bounds) {
            return false;
        }
        let mean = channel_means(values, channels);
        if mean.iter().any(|m| !m.is_finite()) {
            return false;
        }
        self.sums.resize(channels, 0);
        self.sums
            .iter_mut()
            .zip(&mean)
            .for_each(|(sum, mean)| *sum = sum.saturating_add((mean * UNIT).round() as i128));
        if observer.greatest {
            self.greatest.resize(channels, 0.0);
            for row in values.chunks_exact(channels.max(1)) {
                for (greatest, value) in self.greatest.iter_mut().zip(row) {
                    *greatest = greatest.max(value.clamp(bounds[0], bounds[1]).abs());
                }
            }
        }
        true
    }
}

/// The mean of each channel of a map, channels last.
pub fn channel_means(values: &[f32], channels: usize) -> Vec<f64> {
    let mut sums = vec![0.0; channels];
    for row in values.chunks_exact(channels.max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
    }
    let n = (values.len() / channels.max(1)).max(1) as f64;
    sums.iter_mut().for_each(|sum| *sum /= n);
    sums
}
