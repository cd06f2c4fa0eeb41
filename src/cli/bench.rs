//! `bench`: time per stage, frames per second, peak memory.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ::image::RgbImage;
use serde::Serialize;

use super::demo::scene::Scene;
use super::{Error, common, exit};
use crate::image;
use crate::watch::gate::Thumbnail;

/// Times the stages of a frame's way: decode, prepare, network, pool.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd bench --backbone resnet50-int8.onnx --threads 1 --frames 50")]
pub struct Args {
    #[command(flatten)]
    backbone: common::BackboneArgs,
    /// Frames that are timed, after three that are not
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    frames: u32,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    backbone: String,
    tap: String,
    isa: &'static str,
    threads: usize,
    frames: u32,
    backbone_ms: Times,
    stages_ms: Stages,
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

#[derive(Serialize)]
struct Times {
    median: f64,
    min: f64,
    p95: f64,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let start = Instant::now();
    let backbone = args.backbone.load()?;
    let load = start.elapsed();
    let jpeg = frame()?;
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
        let picture = image::decode_jpeg(&jpeg).map_err(|e| Error::new(exit::SOFTWARE, e))?;
        lap(&mut laps[0]);
        std::hint::black_box(Thumbnail::of(&picture));
        lap(&mut gate);
        let prepared = backbone.prepare(&picture).map_err(common::backbone_error)?;
        lap(&mut laps[1]);
        let maps = backbone.forward(&prepared).map_err(common::backbone_error)?;
        lap(&mut laps[2]);
        std::hint::black_box(backbone.pool(&maps));
        lap(&mut laps[3]);
    }
    let total: Duration = laps.iter().flatten().sum();
    let [decode, prepare, network, pool] = laps;
    let report = Report {
        backbone: backbone.path().map_or_else(|| "embedded".into(), |p| p.display().to_string()),
        tap: backbone.tap().to_string(),
        isa: backbone.isa(),
        threads: backbone.threads(),
        frames: args.frames,
        backbone_ms: times(network.clone()),
        stages_ms: Stages {
            decode: times(decode),
            gate: times(gate),
            prepare: times(prepare),
            network: times(network),
            pool: times(pool),
        },
        frames_per_second: f64::from(args.frames) / total.as_secs_f64(),
        peak_rss_bytes: peak_rss().unwrap_or(0),
        load_ms: millis(load),
        graph: backbone.describe(),
    };
    if args.json {
        common::print_json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    let r = &report;
    common::print(format!("backbone   {} at {}, {} threads, {}", r.backbone, r.tap, r.threads, r.isa))?;
    for line in &r.graph {
        common::print(format!("           {line}"))?;
    }
    common::print(
        "stage         median       min       p95   (ms; decode is of a 1280x720 JPEG, gate with change-threshold only)",
    )?;
    let s = &r.stages_ms;
    let stages =
        [("decode", &s.decode), ("gate", &s.gate), ("prepare", &s.prepare), ("network", &s.network), ("pool", &s.pool)];
    for (name, t) in stages {
        common::print(format!("{name:<10}{:>10.2}{:>10.2}{:>10.2}", t.median, t.min, t.p95))?;
    }
    common::print(format!("{:.1} frames per second over {} frames", r.frames_per_second, r.frames))?;
    let mib = r.peak_rss_bytes as f64 / f64::from(1 << 20);
    common::print(format!("peak memory {mib:.1} MiB, load {:.0} ms", r.load_ms))?;
    Ok(ExitCode::SUCCESS)
}

/// The demo's scene at 1280x720 as a camera would send it.
fn frame() -> Result<Vec<u8>, Error> {
    let small = Scene::new(7).frame(Some(0.5));
    let large: RgbImage = ::image::imageops::resize(&small, 1280, 720, ::image::imageops::FilterType::Triangle);
    let mut jpeg = Vec::new();
    ::image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 85)
        .encode_image(&large)
        .map_err(|e| Error::new(exit::SOFTWARE, format!("cannot encode the test frame: {e}")))?;
    Ok(jpeg)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn times(mut laps: Vec<Duration>) -> Times {
    laps.sort_unstable();
    let at = |share: f64| laps.get(((laps.len() - 1) as f64 * share).round() as usize).copied().unwrap_or_default();
    Times { median: millis(at(0.5)), min: millis(at(0.0)), p95: millis(at(0.95)) }
}

/// The process's largest resident set so far, in bytes.
fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
