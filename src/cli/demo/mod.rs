//! `demo`: the complete workflow on a drawn scene, without camera and files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::image::RgbImage;

use self::scene::Scene;
use super::common;
use super::error::{Error, exit};
use crate::backbone::{Backbone, Options as BackboneOptions};
use crate::camera::{self, FrameSource};
use crate::config::Config;
use crate::config::decision::RAISE_AFTER;
use crate::model::FeatureSource;
use crate::page::listen;
use crate::training::cross::Synthetic;
use crate::training::features::Cache;
use crate::training::params::DetectorKind;
use crate::training::{fit, stretches};
use crate::watch::events::{self, Event, Kind};
use crate::watch::judge::ModelJudge;
use crate::watch::service::{Notifier, signals};
use crate::watch::{Judge, Watch};

pub mod scene;
mod serve;

const NORMAL: usize = 200;
const BEFORE: usize = 25;
const WITH: usize = 20;
const AFTER: usize = 20;

/// Draws a scene, learns it, watches it, and catches an object: no camera, no files needed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  outlierd demo --dir /tmp/outlierd-demo
  outlierd demo --page")]
pub struct Args {
    /// Where pictures, model, snapshots and log go [default: a new folder under the temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Seed of scene, light and noise
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Watches the scene again and again, and shows it on a web page, until Ctrl-C
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true, default_missing_value = listen::DEFAULT)]
    page: Option<SocketAddr>,
}

/// A judged frame: its place in the sequence, p, verdict.
struct Judged {
    at: usize,
    p: f64,
    outlier: bool,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let dir = match &args.dir {
        // Relative paths in the config are relative to its own folder.
        Some(dir) => std::path::absolute(dir)
            .map_err(|e| Error::new(exit::CANTCREAT, format!("cannot make {}: {e}", dir.display())))?,
        None => tempfile::Builder::new()
            .prefix("outlierd-demo-")
            .tempdir()
            .map_err(|e| Error::new(exit::CANTCREAT, format!("cannot make a folder for the demo: {e}")))?
            .keep(),
    };
    let config = draw(&dir, args.seed, args.page.is_some())?;
    let judge = learn(&dir)?;
    if let Some(address) = args.page {
        return serve::serve(&config, address);
    }
    let threshold = judge.threshold();
    common::print(format!("watch    {} frames; an outlier is a frame with p < {threshold:.3}", BEFORE + WITH + AFTER))?;
    let judged = watch(config.clone(), judge)?;
    let events = events::read(&config.events.log)
        .map_err(|e| Error::new(exit::IOERR, format!("cannot read {}: {e}", config.events.log.display())))?;
    report(&config, &judged, &events)
}

/// Writes the pictures and a config that watches them: once, or again and again at a pace to look at.
fn draw(dir: &Path, seed: u64, endless: bool) -> Result<Config, Error> {
    common::print(format!("scene    {NORMAL} normal frames and a sequence, drawn into {}", dir.display()))?;
    let mut scene = Scene::new(seed);
    let (normal, frames) = (dir.join("normal"), dir.join("frames"));
    for folder in [&normal, &frames] {
        common::make_folder(folder)?;
    }
    for n in 0..NORMAL {
        save(&scene.frame(None), &normal.join(format!("{n:04}.png")))?;
    }
    for n in 0..BEFORE + WITH + AFTER {
        let object = (BEFORE..BEFORE + WITH).contains(&n).then(|| {
            let way = (n - BEFORE) as f32 / (WITH - 1) as f32;
            0.25 + 0.5 * way
        });
        save(&scene.frame(object), &frames.join(format!("{n:04}.png")))?;
    }
    let pace = if endless { "interval = \"500ms\"\nloop = true" } else { "interval = \"1ms\"" };
    let mut toml = format!(
        "[camera]\nsource = {:?}\n{pace}\n\n[model]\npath = {:?}\n\n[events]\nlog = {:?}\nsnapshots = {:?}\n",
        format!("folder:{}", frames.display()),
        dir.join("model.outlierd"),
        dir.join("events.jsonl"),
        dir.join("snapshots"),
    );
    if endless {
        toml.push_str(&format!("\n[observe]\nsocket = {:?}\n", dir.join("demo.sock")));
    }
    let path = dir.join("outlierd.toml");
    common::write(&path, toml.as_bytes())?;
    let config = Config::load(&path)?;
    config.check()?;
    match std::fs::remove_file(&config.events.log) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::new(exit::IOERR, format!("cannot remove the last run's {}: {e}", config.events.log.display())))
        }
        _ => Ok(config),
    }
}

fn save(picture: &RgbImage, path: &Path) -> Result<(), Error> {
    picture.save(path).map_err(|e| common::cannot_write(path, e))
}

/// Fits on the normal frames with the embedded backbone, as `fit` does.
fn learn(dir: &Path) -> Result<ModelJudge, Error> {
    let options = BackboneOptions { threads: 1, cells: true, ..BackboneOptions::default() };
    let backbone = Backbone::embedded(&options)?;
    let paths = crate::pictures::find(&[dir.join("normal")])?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut features = common::extract(&backbone, "features", &paths, &mut Cache::in_memory(), &stop)?;
    let block = stretches::arrange(&mut features)?.length;
    let options = fit::Options { block, ..fit::Options::with_detector(DetectorKind::default()) };
    let fitted = fit::fit(features.samples(), None, &Synthetic::default(), FeatureSource::of(&backbone), &options)?;
    let path = dir.join("model.outlierd");
    fitted.model.save(&path)?;
    common::print("backbone the embedded one, a small ResNet-50 distilled from an ImageNet one")?;
    let detector = fitted.model.detector_name();
    common::print(format!("fit      {detector}, {}: {}", fitted.model.training.sentence(), path.display()))?;
    Ok(ModelJudge::new(fitted.model, backbone, &path))
}

/// Runs the daemon's loop over the sequence until it ends.
fn watch(config: Config, judge: ModelJudge) -> Result<Vec<Judged>, Error> {
    let mut judged = Vec::new();
    let commands = signals().map_err(|e| Error::new(exit::SOFTWARE, format!("cannot listen for signals: {e}")))?;
    let watch = Watch {
        config,
        judge,
        open_camera: Box::new(camera::open),
        reload: Box::new(|| Err("the demo has nothing to reload".into())),
        observe: Some(Box::new(|frame, verdict| {
            judged.push(Judged { at: frame.sequence as usize, p: verdict.p, outlier: verdict.outlier });
        })),
    };
    let run: Watch<'_, ModelJudge, Box<dyn FrameSource>> = watch;
    run.run(&commands, &mut Notifier::from_env()).map_err(|e| Error::new(exit::SOFTWARE, e))?;
    Ok(judged)
}

/// Prints phases and events; success only if the object, and nothing before it, was raised and cleared.
fn report(config: &Config, judged: &[Judged], events: &[Event]) -> Result<ExitCode, Error> {
    let phases = [("empty", 0..BEFORE), ("object", BEFORE..BEFORE + WITH), ("empty", BEFORE + WITH..usize::MAX)];
    for (name, range) in phases {
        let phase: Vec<&Judged> = judged.iter().filter(|j| range.contains(&j.at)).collect();
        let (mut low, mut high, mut sum) = (f64::INFINITY, 0.0_f64, 0.0);
        for frame in &phase {
            (low, high, sum) = (low.min(frame.p), high.max(frame.p), sum + frame.p);
        }
        let outliers = phase.iter().filter(|j| j.outlier).count();
        let mean = sum / phase.len().max(1) as f64;
        let n = phase.len();
        common::print(format!(
            "  {name:<7}{n:>3} frames   p {low:.3} .. {high:.3}, mean {mean:.3}   {outliers} outliers"
        ))?;
    }
    for event in events {
        common::print(format!("event    {}", event.to_json()))?;
    }
    common::print(format!("log      {}", config.events.log.display()))?;
    if let Some(snapshot) = events.iter().find_map(|e| e.snapshot.as_ref()) {
        common::print(format!("snapshot {}", snapshot.display()))?;
    }
    let kinds: Vec<Kind> = events.iter().map(|e| e.event).collect();
    let raise_after = RAISE_AFTER as usize;
    let raised_at = judged.windows(raise_after).position(|run| run.iter().all(|j| j.outlier));
    let with_object = raised_at.is_some_and(|first| (BEFORE..BEFORE + WITH).contains(&(first + raise_after - 1)));
    if kinds == [Kind::Start, Kind::Raise, Kind::Clear, Kind::Stop] && with_object {
        common::print("the object was raised and cleared, and nothing before it")?;
        return Ok(ExitCode::SUCCESS);
    }
    Err(Error::new(exit::SOFTWARE, "the demo failed: start, raise, clear and stop were expected, once each"))
}
