//! `quantize`: a float network becomes an int8 one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use ::image::RgbImage;
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::Serialize;

use super::common;
use super::error::{Error, exit};
use crate::backbone::quantize::{Network, Options, Ranges, Report, Watch};
use crate::backbone::{self, Backbone};
use crate::image::{self, Resize};
use crate::pictures;

/// Makes an int8 backbone of a float one, calibrated on your own normal pictures.
///
/// Static quantization: u8 maps with ranges from the pictures, s8 weights with a scale per channel, biases corrected
/// for what the rounding shifts. The file is QDQ ONNX: `--backbone` takes it, and so does onnxruntime.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: outlierd quantize resnet50.onnx --calibrate normal/ --input torch -o resnet50-int8.onnx"
)]
pub struct Args {
    #[arg(value_name = "FLOAT.onnx")]
    file: PathBuf,
    /// Normal pictures: a folder or a list (.txt); may repeat
    #[arg(long, required = true, value_name = "DIR")]
    calibrate: Vec<PathBuf>,
    /// Input recipe of the network: caffe, torch, raw or unit [default: the file's own mark, else torch]
    #[arg(long, value_name = "RECIPE")]
    input: Option<String>,
    /// Geometry instead of the recipe's own: stretch or crop; use the same with `fit`
    #[arg(long, value_name = "HOW")]
    resize: Option<Resize>,
    /// Pictures to calibrate with, spread evenly over those that are there
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    count: u32,
    /// How the range of a map is chosen: mse (least squared error), percentile or minmax
    #[arg(long, default_value_t, value_name = "RULE")]
    ranges: Ranges,
    /// Equalise the channels between two convolutions first
    #[arg(long)]
    equalize: bool,
    /// Leave the biases as they are
    #[arg(long)]
    no_bias_correction: bool,
    /// Threads, each of which takes some 100 MB; 0: all cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// ONNX file to write
    #[arg(short, long, value_name = "INT8.onnx")]
    output: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Pictures on which the result is compared with the float network.
const COMPARED: usize = 16;

/// Below this mean cosine there is a warning; a ResNet-50 with its own input recipe has above 0.999.
const DOUBTFUL: f64 = 0.99;

#[derive(Serialize)]
struct Json<'a> {
    output: String,
    bytes: usize,
    input: &'static str,
    n_calibration: usize,
    convolutions: usize,
    float_convolutions: usize,
    equalized: usize,
    corrected: usize,
    n_compared: usize,
    compared_are_calibration: bool,
    mean_cosine: f64,
    graph: &'a [String],
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let recipe = common::recipe(args.input.as_deref())?;
    let paths = pictures::find(&args.calibrate)?;
    let stop = common::stop_flag()?;
    common::set_workers(args.threads)?;
    let network = Network::open(&args.file, recipe, args.resize)?;
    let input = network.input().clone();
    let (chosen, others) = spread(&paths, args.count as usize);
    let calibration = read(&network, &chosen)?;
    let options = Options { ranges: args.ranges, equalize: args.equalize, correct: !args.no_bias_correction };
    let bar: Mutex<Option<ProgressBar>> = Mutex::new(None);
    let finish = || {
        if let Some(bar) = bar.lock().ok().and_then(|mut bar| bar.take()) {
            bar.finish_and_clear();
        }
    };
    let begin = |what: &'static str, steps: usize| {
        finish();
        if let Ok(mut bar) = bar.lock() {
            *bar = Some(common::progress(what, steps));
        }
    };
    let done = || {
        if let Some(bar) = bar.lock().ok().as_deref().and_then(Option::as_ref) {
            bar.inc(1);
        }
    };
    let watch = Watch { stop: &stop, begin: &begin, done: &done };
    let made = network.quantize(&calibration, &options, &watch);
    finish();
    let made = made?;
    let bytes = made.to_bytes();
    // The network is loaded before the file is replaced.
    let load = backbone::Options { resize: args.resize, threads: 1, ..backbone::Options::default() };
    let name = args.output.display().to_string();
    let int8 = Backbone::from_bytes(&name, bytes.clone(), &load)?;
    let load = backbone::Options { input: Some(input.clone()), tap: Some(int8.tap().clone()), ..load };
    let float = Backbone::load(&args.file, &load)?;
    let mut compared = readable(&float, &spread(&others, COMPARED).0);
    let apart = !compared.is_empty();
    if !apart {
        compared = spread(&calibration, COMPARED).0;
    }
    let mean_cosine = mean_cosine(&float, &int8, &compared)?;
    common::write(&args.output, &bytes)?;
    if mean_cosine < DOUBTFUL {
        log::warn!(
            "the features differ much from the float network's (mean cosine {mean_cosine:.3}): is the input recipe \
             ({}) the network's own, are the pictures those that it will see?",
            input.name()
        );
    }
    let graph = int8.describe();
    if args.json {
        common::print_json(&Json {
            output: name,
            bytes: bytes.len(),
            input: input.name(),
            n_calibration: calibration.len(),
            convolutions: made.report.convolutions,
            float_convolutions: made.report.float_convolutions,
            equalized: made.report.equalized,
            corrected: made.report.corrected,
            n_compared: compared.len(),
            compared_are_calibration: !apart,
            mean_cosine,
            graph: &graph,
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    for line in sentences(&made.report, calibration.len()) {
        common::print(line)?;
    }
    for line in graph {
        common::print(line)?;
    }
    let of = if apart { "pictures apart" } else { "of the same pictures" };
    common::print(format!("features of {} {of}: mean cosine to the float network {mean_cosine:.5}", compared.len()))?;
    common::print(format!("wrote {} ({} bytes), input {}", args.output.display(), bytes.len(), input.name()))?;
    Ok(ExitCode::SUCCESS)
}

fn sentences(report: &Report, pictures: usize) -> Vec<String> {
    let mut lines = vec![format!(
        "{} in 8 bits, {} from {}; {} corrected",
        common::count(report.convolutions, "convolution"),
        common::count(report.ranges, "range"),
        common::count(pictures, "picture"),
        common::count(report.corrected, "bias vector"),
    )];
    if report.equalized > 0 {
        lines.push(format!("{} equalised", common::count(report.equalized, "pair")));
    }
    if report.float_convolutions > 0 {
        let convolutions = common::count(report.float_convolutions, "convolution");
        lines.push(format!("{convolutions} (grouped, or with computed weights) left in float"));
    }
    lines
}

/// `count` of a list at even distances, and the others.
fn spread<T: Clone>(list: &[T], count: usize) -> (Vec<T>, Vec<T>) {
    let count = count.min(list.len());
    let taken = |i: usize| (i + 1) * count / list.len() > i * count / list.len();
    let part = |want: bool| (0..list.len()).filter(|&i| taken(i) == want).map(|i| list[i].clone()).collect();
    (part(true), part(false))
}

/// The prepared pictures; those that cannot be read are left out and named, and more than a tenth of them is an error.
fn read(network: &Network, paths: &[PathBuf]) -> Result<Vec<RgbImage>, Error> {
    let one = |path: &PathBuf| {
        let picture = image::read(path).map_err(|e| e.to_string())?;
        network.prepare(&picture).map_err(|e| format!("{}: {e}", path.display()))
    };
    let all: Vec<Result<RgbImage, String>> = paths.par_iter().map(one).collect();
    let n = all.len();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for picture in all {
        match picture {
            Ok(picture) => good.push(picture),
            Err(reason) => bad.push(reason),
        }
    }
    if bad.len() * 10 > n || good.is_empty() {
        let first = bad.first().map_or("", |s| s);
        let unreadable = bad.len();
        return Err(Error::new(
            exit::DATAERR,
            format!("{unreadable} of {n} pictures to calibrate with cannot be used, the first: {first}"),
        ));
    }
    for reason in bad {
        log::warn!("left out: {reason}");
    }
    Ok(good)
}

fn readable(backbone: &Backbone, paths: &[PathBuf]) -> Vec<RgbImage> {
    let one = |path: &PathBuf| image::read(path).ok().and_then(|p| backbone.prepare(&p).ok());
    paths.iter().filter_map(one).collect()
}

fn mean_cosine(float: &Backbone, int8: &Backbone, pictures: &[RgbImage]) -> Result<f64, Error> {
    let one = |picture: &RgbImage| -> Result<f64, backbone::Error> {
        let [a, b] = [float.features_of(picture)?, int8.features_of(picture)?];
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let length = (dot(&a, &a) * dot(&b, &b)).sqrt();
        Ok(if length > 0.0 { dot(&a, &b) / length } else { 0.0 })
    };
    let all = pictures.par_iter().map(one).collect::<Result<Vec<f64>, _>>()?;
    Ok(all.iter().sum::<f64>() / all.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_taken_at_even_distances() {
        let list: Vec<u32> = (0..10).collect();
        assert_eq!(spread(&list, 3), (vec![3, 6, 9], vec![0, 1, 2, 4, 5, 7, 8]));
        assert_eq!(spread(&list, 20).0, list);
        assert_eq!(spread(&list[..0], 3), (vec![], vec![]));
    }
}
