//! Shared by several commands: log set-up, progress bars, backbone options, loading, output.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::error::{Error, exit};
use super::progress::Lines;
use crate::backbone::multi_crop::MAX_TILES;
use crate::backbone::{self, Backbone, Pooling, Tap};
use crate::config::Config;
use crate::fs;
use crate::image::mask::Mask;
use crate::image::{InputRecipe, Resize};
use crate::model::Model;
use crate::training::cross::Synthetic;
use crate::training::features::{self, Cache, Features};
use crate::training::synthetic;
use crate::watch::events;

/// Sets up the log on standard error: `info` and above unless `OUTLIERD_LOG` or `RUST_LOG` says otherwise, with
/// journald's priority prefixes when journald reads it. `OUTLIERD_LOG` alone keeps the libraries quiet that it does not
/// name.
pub fn init_log() {
    let mut builder = env_logger::Builder::new();
    let own = std::env::var("OUTLIERD_LOG").ok();
    let rust = std::env::var("RUST_LOG").ok().filter(|_| own.is_none());
    if rust.is_none() {
        builder.filter_level(log::LevelFilter::Info);
        for library in ["tract_onnx", "tract_core", "tract_linalg", "tract_hir"] {
            builder.filter_module(library, log::LevelFilter::Error);
        }
    }
    if let Some(filters) = own.or(rust) {
        builder.parse_filters(&filters);
    }
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    builder.format(move |out, record| {
        let (priority, word) = match record.level() {
            log::Level::Error => (3, "error: "),
            log::Level::Warn => (4, "warning: "),
            log::Level::Info => (6, ""),
            log::Level::Debug | log::Level::Trace => (7, "debug: "),
        };
        let text = events::printable(&record.args().to_string());
        if journal { writeln!(out, "<{priority}>{text}") } else { writeln!(out, "outlierd: {word}{text}") }
    });
    let _ = builder.try_init();
}

/// A progress bar on a terminal; elsewhere lines, where `OUTLIERD_PROGRESS` is set, or nothing.
pub fn progress(what: &str, len: usize) -> ProgressBar {
    let (target, template) = match std::io::stderr().is_terminal() {
        true => (ProgressDrawTarget::stderr(), "{msg} [{bar:32}] {pos}/{len}, {eta} left"),
        false if Lines::are_wanted() => (Lines::target(), Lines::TEMPLATE),
        false => (ProgressDrawTarget::hidden(), ""),
    };
    let bar = ProgressBar::with_draw_target(Some(len as u64), target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what.to_owned());
    bar
}

/// The backbone, its input recipe and its features.
#[derive(Debug, Clone, clap::Args)]
pub struct BackboneArgs {
    /// ResNet ONNX file, float, QDQ or QOperator [default: the embedded one]
    #[arg(long, value_name = "FILE")]
    pub backbone: Option<PathBuf>,
    /// Input recipe of the network: caffe, torch, raw or unit [default: the file's own mark, else torch]
    #[arg(long, value_name = "RECIPE")]
    pub input: Option<String>,
    /// Geometry instead of the recipe's own (the embedded one's: stretch): stretch or crop
    #[arg(long, value_name = "HOW")]
    pub resize: Option<Resize>,
    /// Residual stage(s) whose output is the feature: layer1..layer4, joined by + [default: the file's last; layer2+layer3+layer4 of the embedded one]
    #[arg(long, value_name = "T")]
    pub tap: Option<Tap>,
    /// avg, max or none [default: avg]
    #[arg(long, value_name = "HOW")]
    pub pooling: Option<Pooling>,
    /// N x N overlapping tiles of each picture, up to 4, for what is too small to be seen at the network's size; takes N x N
    /// times the time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TILES)))]
    pub tiles: Option<u32>,
    /// Config file whose [[camera.mask]] say what of the pictures to ignore
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Threads; 0: all cores
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

impl BackboneArgs {
    /// Loads the backbone, with cells if they are wanted.
    pub fn load(&self, cells: bool) -> Result<Backbone, Error> {
        self.load_sharing(cells, None)
    }

    /// The same with weights from the folder of packed weights `cache`.
    pub fn load_sharing(&self, cells: bool, cache: Option<PathBuf>) -> Result<Backbone, Error> {
        let options = backbone::Options {
            tap: self.tap.clone(),
            pooling: self.pooling,
            input: recipe(self.input.as_deref())?,
            resize: self.resize,
            threads: self.threads,
            sha256: None,
            cells,
            mask: match &self.config {
                Some(path) => Config::read(path)?.camera.mask,
                None => Mask::default(),
            },
            tiles: self.tiles.unwrap_or(1),
            cache,
        };
        let loaded = match &self.backbone {
            Some(path) => Backbone::load(path, &options),
            None => Backbone::embedded(&options),
        };
        Ok(loaded?)
    }
}

/// The input recipe of that name.
pub fn recipe(name: Option<&str>) -> Result<Option<InputRecipe>, Error> {
    let known = |name: &str| {
        let unknown =
            || Error::new(exit::USAGE, format!("unknown input recipe '{name}': use caffe, torch, raw or unit"));
        InputRecipe::by_name(name).ok_or_else(unknown)
    };
    name.map(known).transpose()
}

/// Loads a model and the backbone that it was fitted on: the one named, else the model's own path.
pub fn load_model(path: &Path, backbone: Option<&Path>, threads: usize) -> Result<(Model, Backbone), Error> {
    let model = Model::load(path)?;
    let loaded = model.load_backbone(backbone, threads)?;
    Ok((model, loaded))
}

/// Prints an error to standard error; a failure to do so is ignored.
pub fn complain(error: &impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "outlierd: {error}");
}

/// Prints text to standard output; a closed pipe ends the process quietly.
pub fn print_text(text: &[u8]) -> Result<(), Error> {
    std::io::stdout().write_all(text).map_err(print_error)
}

/// Prints a line to standard output; a closed pipe ends the process quietly.
pub fn print(line: impl std::fmt::Display) -> Result<(), Error> {
    writeln!(std::io::stdout(), "{line}").map_err(print_error)
}

fn print_error(e: std::io::Error) -> Error {
    match e.kind() {
        std::io::ErrorKind::BrokenPipe => Error::new(0, ""),
        _ => Error::new(exit::IOERR, format!("cannot write to standard output: {e}")),
    }
}

/// Writes a file in one atomic replacement.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::replace(path, bytes).map_err(|e| cannot_write(path, e))
}

/// A file or folder that cannot be written.
pub fn cannot_write(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::new(exit::CANTCREAT, format!("cannot write {}: {reason}", path.display()))
}

/// Makes a folder, if it is not there.
pub fn make_folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path)
        .map_err(|e| Error::new(exit::CANTCREAT, format!("cannot make {}: {e}", path.display())))
}

/// Prints a value as one line of JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let line = serde_json::to_string(value).map_err(|e| Error::new(exit::SOFTWARE, e))?;
    print(line)
}

/// "12 pictures", "1 picture".
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Sets the number of pictures that are processed at once; 0: as many as there are cores.
pub fn set_workers(threads: usize) -> Result<(), Error> {
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
        Ok(()) => Ok(()),
        Err(error) if rayon::current_num_threads() == threads || threads == 0 => {
            log::debug!("thread pool: {error}");
            Ok(())
        }
        Err(error) => Err(Error::new(exit::SOFTWARE, format!("cannot start {threads} threads: {error}"))),
    }
}

/// The features of pictures, with a progress bar. The cache is written also after an error or an interrupt.
pub fn extract(
    backbone: &Backbone,
    what: &str,
    paths: &[PathBuf],
    cache: &mut Cache,
    stop: &AtomicBool,
) -> Result<Features, Error> {
    let bar = progress(what, paths.len());
    let found = features::extract(backbone, paths, cache, stop, &|| bar.inc(1));
    bar.finish_and_clear();
    save(cache);
    Ok(found?)
}

/// Writes the cache; a failure is only logged.
fn save(cache: &mut Cache) {
    if let Err(error) = cache.save() {
        log::warn!("{error}");
    }
}

/// Refuses a picture that is given both as normal and as an outlier, by its content.
pub fn refuse_shared(normal: &Features, outliers: &Features) -> Result<(), Error> {
    let Some((picture, outlier)) = normal.shared(outliers) else { return Ok(()) };
    let message = format!("{} is given as normal and, as {}, as an outlier", picture.display(), outlier.display());
    Err(Error::new(exit::DATAERR, message))
}

/// Drops copies of other pictures, which would be scored by models that have seen them, and says so.
pub fn drop_copies(features: &mut Features) {
    let before = features.paths.len();
    if let Some((copy, of)) = features.without_copies() {
        log::warn!(
            "{} of {before} pictures are copies of others and count once, the first: {} is {}",
            before - features.paths.len(),
            copy.display(),
            of.display()
        );
    }
}

/// The features of synthetic outliers, with a progress bar; cached as those of pictures.
pub fn make_outliers(
    backbone: &Backbone,
    normal: &Features,
    jobs: &[synthetic::Job],
    seed: u64,
    cache: &mut Cache,
    stop: &AtomicBool,
) -> Result<Synthetic, Error> {
    let bar = progress("synthetic outliers", jobs.len());
    let made = synthetic::extract(backbone, normal, jobs, seed, (&mut *cache, stop), &|| bar.inc(1));
    bar.finish_and_clear();
    save(cache);
    Ok(made?)
}

/// RFC 3339 in UTC.
pub fn rfc3339(seconds: u64) -> String {
    let time = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds));
    match time.filter(|_| seconds < 253_402_300_800) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => format!("{seconds} s after 1970"),
    }
}

/// A flag that the first SIGINT or SIGTERM sets; a second one ends the process at once.
pub fn stop_flag() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .map_err(|e| Error::new(exit::SOFTWARE, format!("cannot listen for signal {signal}: {e}")))?;
    }
    Ok(stop)
}
