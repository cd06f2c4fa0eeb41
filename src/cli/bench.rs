//! `bench`: time per stage, frames per second, peak memory.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ::image::RgbImage;
use serde::Serialize;

use super::common;
use super::demo::scene::Scene;
use super::error::{Error, exit};
use crate::camera::pixels::{self, Layout};
use crate::config::PixelFormat;
use crate::image::jpeg;
use crate::watch::frame::change_filter::Thumbnail;
use crate::watch::outputs::metrics::memory_bytes;

/// Times the stages that a frame goes through: decode, prepare, network, pool.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd bench --backbone resnet50-int8.onnx --threads 1 --frames 50")]
pub struct Args {
    #[command(flatten)]
    backbone: common::BackboneArgs,
    /// Frames that are timed, after three for warm-up
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    frames: u32,
    /// Also computes the cells of the detector `pooled+cells`
    #[arg(long)]
    cells: bool,
    /// Packed weights from this folder, as a daemon with `[model] cache` has them
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Pixel format of the 1280x720 frames that are decoded
    #[arg(long, value_enum, default_value = "mjpg")]
    format: FrameFormat,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What a camera sends; the config's `auto` takes the first of rgb3, nv12, yuyv, mjpg, grey that is fast enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum FrameFormat {
    Mjpg,
    Yuyv,
    Nv12,
    Grey,
    Rgb3,
}

impl From<FrameFormat> for PixelFormat {
    fn from(format: FrameFormat) -> Self {
        match format {
            FrameFormat::Mjpg => PixelFormat::Mjpg,
            FrameFormat::Yuyv => PixelFormat::Yuyv,
            FrameFormat::Nv12 => PixelFormat::Nv12,
            FrameFormat::Grey => PixelFormat::Grey,
            FrameFormat::Rgb3 => PixelFormat::Rgb3,
        }
    }
}

#[derive(Serialize)]
struct Report {
    backbone: String,
    tap: String,
    /// Runs of the network per frame.
    views: usize,
    isa: &'static str,
    threads: usize,
    frames: u32,
    format: FrameFormat,
    backbone_ms: Times,
    stages_ms: Stages,
    /// By the medians.
    share_outside_network: f64,
    frames_per_second: f64,
    peak_rss_bytes: u64,
    load_ms: f64,
    graph: Vec<String>,
}

#[derive(Serialize)]
struct Stages {
    decode: Times,
    /// Only with `change-threshold`; not in the frames per second.
    gate: Times,
    prepare: Times,
    network: Times,
    pool: Times,
}

#[derive(Clone, Serialize)]
struct Times {
    median: f64,
    min: f64,
    p95: f64,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let start = Instant::now();
    let backbone = args.backbone.load_sharing(args.cells, args.cache)?;
    let load = start.elapsed();
    let format = args.format.into();
    let layout = Layout::packed(format, WIDTH, HEIGHT);
    let frame = frame(format)?;
    let mut laps: [Vec<Duration>; 4] = Default::default();
    let mut gate = Vec::new();
    for warm in (0..args.frames + 3).map(|n| n >= 3) {
        let mut at = Instant::now();
        let mut lap = |times: &mut Vec<Duration>| {
            let now = Instant::now();
            if warm {
                times.push(now - at);
            }
            at = now;
        };
        let picture =
            pixels::to_rgb(&layout, &frame, [0, 0, WIDTH, HEIGHT]).map_err(|e| Error::new(exit::SOFTWARE, e))?;
        lap(&mut laps[0]);
        std::hint::black_box(Thumbnail::of(&picture));
        lap(&mut gate);
        let prepared = backbone.prepare(&picture)?;
        lap(&mut laps[1]);
        let views = backbone.forward(&prepared)?;
        lap(&mut laps[2]);
        std::hint::black_box((backbone.pool(&views), backbone.cells(&views)));
        lap(&mut laps[3]);
    }
    let total: Duration = laps.iter().flatten().sum();
    let [decode, prepare, network, pool] = laps.map(times);
    let outside = decode.median + prepare.median + pool.median;
    let report = Report {
        backbone: backbone.path().map_or_else(|| "embedded".into(), |p| p.display().to_string()),
        tap: backbone.tap().to_string(),
        views: backbone.multi_crop().count(),
        isa: backbone.isa(),
        threads: backbone.threads(),
        frames: args.frames,
        format: args.format,
        share_outside_network: outside / (outside + network.median),
        backbone_ms: network.clone(),
        stages_ms: Stages { decode, gate: times(gate), prepare, network, pool },
        frames_per_second: f64::from(args.frames) / total.as_secs_f64(),
        peak_rss_bytes: memory_bytes("VmHWM").unwrap_or(0),
        load_ms: millis(load),
        graph: backbone.describe(),
    };
    if args.json {
        common::print_json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    let r = &report;
    let views = if r.views == 1 { String::new() } else { format!(", {} views a frame", r.views) };
    common::print(format!("backbone   {} at {}{views}, {} threads, {}", r.backbone, r.tap, r.threads, r.isa))?;
    for line in &r.graph {
        common::print(format!("           {line}"))?;
    }
    common::print(
        "stage         median       min       p95   (ms; decode is of 1280x720 frames, gate with change-threshold only)",
    )?;
    let s = &r.stages_ms;
    let stages =
        [("decode", &s.decode), ("gate", &s.gate), ("prepare", &s.prepare), ("network", &s.network), ("pool", &s.pool)];
    for (name, t) in stages {
        common::print(format!("{name:<10}{:>10.2}{:>10.2}{:>10.2}", t.median, t.min, t.p95))?;
    }
    let share = 100.0 * r.share_outside_network;
    let (rate, frames) = (r.frames_per_second, r.frames);
    common::print(format!(
        "{rate:.1} frames per second over {frames} frames, {share:.1} % of a frame's time outside the network"
    ))?;
    let mib = r.peak_rss_bytes as f64 / f64::from(1 << 20);
    common::print(format!("peak memory {mib:.1} MiB, load {:.0} ms", r.load_ms))?;
    Ok(ExitCode::SUCCESS)
}

const WIDTH: u32 = 1280;
const HEIGHT: u32 = 720;

/// The demo's scene at 1280x720 as a camera would send it.
fn frame(format: PixelFormat) -> Result<Vec<u8>, Error> {
    let small = Scene::new(7).frame(Some(0.5));
    let large: RgbImage = ::image::imageops::resize(&small, WIDTH, HEIGHT, ::image::imageops::FilterType::Triangle);
    let luma = large.pixels().map(|p| p.0[1]);
    Ok(match format {
        PixelFormat::Mjpg => jpeg::encode(&large, 85)
            .map_err(|e| Error::new(exit::SOFTWARE, format!("cannot encode the test frame: {e}")))?,
        PixelFormat::Rgb3 => large.into_raw(),
        // Grey pictures in YCbCr: their content does not change how long the conversion takes.
        PixelFormat::Yuyv => luma.flat_map(|y| [y, 128]).collect(),
        PixelFormat::Nv12 => luma.chain(std::iter::repeat_n(128, (WIDTH * HEIGHT / 2) as usize)).collect(),
        _ => luma.collect(),
    })
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn times(mut laps: Vec<Duration>) -> Times {
    laps.sort_unstable();
    let at = |share: f64| laps.get(((laps.len() - 1) as f64 * share).round() as usize).copied().unwrap_or_default();
    Times { median: millis(at(0.5)), min: millis(at(0.0)), p95: millis(at(0.95)) }
}
