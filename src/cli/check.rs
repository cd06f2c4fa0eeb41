//! `check`: everything that `run` needs, one line each.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::error::{Error, exit};
use super::{common, instances};
use crate::camera;
use crate::config::{self, Config};
use crate::fs;
use crate::model::{Model, hex, p_text};
use crate::watch::frame::drift::Drift;
use crate::watch::observe::{self, Observed};
use crate::watch::outputs::snapshots::is_claimed;
use crate::watch::outputs::{gpio, mqtt};
use crate::watch::scene;
use crate::watch::service;

/// The mode bit of a folder where only owners may rename files, such as /tmp.
const STICKY: u32 = 0o1000;
/// How long the camera may take for its first picture.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// Checks config, model, backbone, camera, GPIO line and writable paths.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples: outlierd check -c outlierd.toml\n          outlierd check --all")]
pub struct Args {
    /// Config file
    #[arg(short, long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Check all config files (*.toml) in the folder of --config, also for what two of them must not share
    #[arg(long)]
    all: bool,
    /// Model file instead of the config's
    #[arg(long, value_name = "MODEL", conflicts_with = "all")]
    model: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

type Checked = Result<String, String>;

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let mut failed = false;
    if args.all {
        let folder = fs::folder_of(&args.config);
        let paths = instances::configs(folder)
            .map_err(|e| Error::new(exit::NOINPUT, format!("cannot read {}: {e}", folder.display())))?;
        if paths.is_empty() {
            return Err(Error::new(exit::NOINPUT, format!("there is no config (*.toml) in {}", folder.display())));
        }
        let readable: Vec<Config> = paths.iter().filter_map(|path| Config::read(path).ok()).collect();
        for (number, path) in paths.iter().enumerate() {
            if number > 0 && !args.json {
                common::print("")?;
            }
            let mut report = Report { config: path, json: args.json, failed: false };
            if let Some(config) = check(&mut report, None)? {
                for (check, message) in instances::shared(&config, &readable) {
                    report.tell(check, Err(message))?;
                }
            }
            failed |= report.failed;
        }
    } else {
        let mut report = Report { config: &args.config, json: args.json, failed: false };
        check(&mut report, args.model)?;
        failed = report.failed;
    }
    Ok(if failed { ExitCode::from(exit::CONFIG) } else { ExitCode::SUCCESS })
}

/// What was found out about one config.
struct Report<'a> {
    config: &'a Path,
    json: bool,
    failed: bool,
}

impl Report<'_> {
    fn tell(&mut self, check: &'static str, checked: Checked) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            config: &'a Path,
            check: &'static str,
            ok: bool,
            message: String,
        }
        let ok = checked.is_ok();
        self.failed |= !ok;
        let message = checked.unwrap_or_else(|message| message);
        if self.json {
            return common::print_json(&Line { config: self.config, check, ok, message });
        }
        let mark = if ok { "ok   " } else { "WRONG" };
        common::print(format!("{check:<9} {mark} {message}"))
    }
}

/// The config, where it can be used.
fn check(report: &mut Report<'_>, model: Option<PathBuf>) -> Result<Option<Config>, Error> {
    let mut config = match Config::load(report.config) {
        Ok(config) => config,
        Err(error) => {
            report.tell("config", Err(error.to_string()))?;
            return Ok(None);
        }
    };
    report.tell("config", Ok(report.config.display().to_string()))?;
    if let Some(model) = model {
        config.model.path = model;
    }
    let mut first: Option<Model> = None;
    for path in config.models() {
        let model = Model::load(path);
        report.tell("model", check_model(&config, path, &model, first.as_ref()))?;
        let Ok(model) = model else { continue };
        if config.decision.false_alarms.is_some() {
            report.tell("budget", check_budget(&config, path, &model))?;
        }
        if !(model.source.mask.is_empty() && config.camera.mask.is_empty()) {
            let agreed = model.check_mask(&config.camera.mask, config.path());
            report.tell("mask", agreed.map(|()| "the model's".into()).map_err(|e| e.to_string()))?;
        }
        if first.is_none() {
            report.tell("backbone", check_backbone(&config, &model))?;
            first = Some(model);
        }
    }
    if let Some(folder) = config.cache_folder() {
        report.tell("cache", check_cache(&folder))?;
    }
    report.tell("camera", check_camera(&config))?;
    if let Some(gpio) = &config.gpio {
        report.tell("gpio", check_gpio(gpio))?;
    }
    report.tell("log", check_log(&config.events.log))?;
    report.tell("snapshots", check_snapshots(&config))?;
    if let Some(clips) = &config.clips {
        report.tell("clips", Ok(clips.to_string()))?;
    }
    if let Some(hook) = &config.events.hook {
        report.tell("hook", check_hook(hook))?;
    }
    if let Some(path) = &config.events.metrics {
        report.tell("metrics", check_metrics(path))?;
    }
    if let Some(broker) = &config.mqtt {
        report.tell("mqtt", mqtt::try_connect(broker, &config.events.log))?;
    }
    Ok(Some(config))
}

fn check_model(
    config: &Config,
    path: &Path,
    model: &Result<Model, crate::model::Error>,
    first: Option<&Model>,
) -> Checked {
    match model {
        Ok(model) => {
            if let Some(first) = first {
                first.check_network(&config.model.path, model, path).map_err(|e| e.to_string())?;
            }
            let when = config.model.when.iter().find(|when| when.path == path);
            let when = when.map_or_else(String::new, |when| format!(", {when}"));
            let threshold = config.decision.threshold.unwrap_or(model.threshold);
            let path = path.display();
            let (detector, calibration) = (model.detector_name(), model.calibration.name());
            let drift = match Drift::new(&config.drift, model.normal_scores(), model.worth()) {
                Ok(_) => String::new(),
                Err(reason) => format!("; drift is not watched for: {reason}"),
            };
            Ok(format!("{path}: {detector}, {calibration}, threshold {threshold}{when}{drift}"))
        }
        Err(crate::model::Error::Read { path, source }) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("{} does not exist: make it with `outlierd fit --normal DIR -o {0}`", path.display()))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// What the alarm budget makes of the history so far.
fn check_budget(config: &Config, model_path: &Path, model: &Model) -> Checked {
    model.check_budget(config.path()).map_err(|e| e.to_string())?;
    let path = config.history_path_of(model_path);
    let cannot = |e: std::io::Error| format!("cannot read the history {}: {e}; {}", path.display(), remedy(&e));
    let looked = scene::look(config, model_path, model).map_err(cannot)?;
    let Some((rate, budget)) = looked else { return Err("decision.false-alarms is missing".into()) };
    let time = |time: Duration| humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
    let status = budget.status(rate.per.duration());
    let (threshold, known) = (p_text(budget.threshold()), time(status.watched));
    let settling = status.settling.map_or_else(String::new, |left| format!(", settling for another {}", time(left)));
    check_folder(fs::folder_of(&path))?;
    Ok(format!("{rate}{settling}: threshold {threshold}, {known} of the scene known, {} spent", status.spent))
}

fn check_backbone(config: &Config, model: &Model) -> Checked {
    let backbone =
        model.load_backbone(config.model.backbone.as_deref(), config.model.threads).map_err(|e| e.to_string())?;
    let name = backbone.path().map_or_else(|| "the embedded one".to_owned(), |path| path.display().to_string());
    let sha256 = hex(&backbone.sha256()[..6]);
    Ok(format!("{name}: SHA-256 {sha256}.. is the model's, tap {}, {} values", backbone.tap(), backbone.n_features()))
}

/// The daemon makes no folder for packed weights: systemd makes `/var/cache/outlierd` for the service.
fn check_cache(folder: &Path) -> Checked {
    match folder.is_dir() || folder == Path::new("/var/cache/outlierd") {
        true => check_folder(folder),
        false => Err(format!("{} does not exist: make it, or take model.cache out", folder.display())),
    }
}

/// One that the running daemon has is not free, and need not be.
fn check_camera(config: &Config) -> Checked {
    open_camera(&config.camera).or_else(|reason| match observe::ask(&config.socket_path()) {
        Ok(Observed { camera, .. }) if camera.up && camera.source == config.camera.source.to_string() => {
            Ok(format!("{}: held by a running outlierd", camera.source))
        }
        _ => Err(reason),
    })
}

fn open_camera(config: &config::Camera) -> Checked {
    let mut source = camera::open(config).map_err(|e| e.to_string())?;
    let deadline = Instant::now() + FIRST_FRAME;
    loop {
        match source.next(deadline) {
            Ok(Some(frame)) => {
                let (width, height) = frame.picture.dimensions();
                let kept = if frame.jpeg.is_some() { ", as a JPEG that clips keep" } else { "" };
                return Ok(format!("{}; a {width}x{height} picture came{kept}", source.describe()));
            }
            Ok(None) => return Err(format!("{}: none of its pictures can be used", source.describe())),
            Err(camera::Error::Dropped { .. }) if Instant::now() < deadline => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn check_gpio(config: &config::Gpio) -> Checked {
    let mut found = Vec::new();
    for line in [Some(&config.line), config.heartbeat.as_ref()].into_iter().flatten() {
        match gpio::find(&config.chip, line) {
            Ok(offset) => found.push(format!("line {offset} is free")),
            Err(gpio::Error::Used { consumer, line, .. }) if consumer == gpio::CONSUMER => {
                found.push(format!("line {line} is held by a running outlierd"));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(format!("{}: {}", config.chip.display(), found.join(", ")))
}

/// The folder must be writable too, else the log cannot be rotated.
fn check_log(path: &Path) -> Checked {
    let folder = fs::folder_of(path);
    if !path.exists() {
        return check_folder(folder).map(|_| format!("{} will be made", path.display()));
    }
    let log = std::fs::OpenOptions::new().append(true).open(path);
    let log = log.map_err(|e| format!("cannot write {}: {e}; {}", path.display(), remedy(&e)))?;
    let rotation =
        |e: String| format!("{} can be written but not rotated, and would grow for ever: {e}", path.display());
    check_folder(folder).map_err(rotation)?;
    let (Ok(log), Ok(folder_is)) = (log.metadata(), folder.metadata()) else { return Ok(path.display().to_string()) };
    let user = rustix::process::geteuid().as_raw();
    if folder_is.mode() & STICKY != 0 && ![log.uid(), folder_is.uid()].contains(&user) && user != 0 {
        let reason = format!("{} lets only owners rename their files; name a folder of its own", folder.display());
        return Err(rotation(reason));
    }
    Ok(path.display().to_string())
}

fn check_snapshots(config: &Config) -> Checked {
    config.check_snapshots().map_err(|e| e.to_string())?;
    let folder = &config.events.snapshots;
    let held = if is_claimed(folder) { ", which a running outlierd writes to: no second one may" } else { "" };
    check_folder(folder).map(|message| message + held)
}

/// Tries to write into the folder, or into the closest parent that exists.
fn check_folder(folder: &Path) -> Checked {
    let absolute = std::path::absolute(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let there = absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    match tempfile::tempfile_in(there) {
        Ok(_) if there == absolute => Ok(folder.display().to_string()),
        Ok(_) => Ok(format!("{} will be made", folder.display())),
        Err(e) => Err(format!("cannot write into {}: {e}; {}", there.display(), remedy(&e))),
    }
}

/// The daemon makes no folder for metrics: systemd makes `/run/outlierd` for the service.
fn check_metrics(path: &Path) -> Checked {
    let folder = fs::folder_of(path);
    if folder.is_dir() {
        return check_folder(folder).map(|_| path.display().to_string());
    }
    match folder == Path::new("/run/outlierd") {
        true => Ok(format!("{}: systemd makes the folder when the service starts", path.display())),
        false => Err(format!("{} does not exist: make it, or name a file in /run/outlierd", folder.display())),
    }
}

fn remedy(error: &std::io::Error) -> &'static str {
    if let Some(sandbox) = service::remedy(error).strip_prefix("; ") {
        return sandbox;
    }
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "give the user that runs outlierd the right to",
        std::io::ErrorKind::StorageFull => "free some space",
        std::io::ErrorKind::ReadOnlyFilesystem => "mount it writable or name another place",
        _ => "name another place in [events]",
    }
}

fn check_hook(argv: &[String]) -> Checked {
    let program = argv.first().map(String::as_str).unwrap_or_default();
    let runs = |path: &Path| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if program.contains('/') {
        return match runs(Path::new(program)) {
            true => Ok(program.to_owned()),
            false => Err(format!("{program} is not an executable file: check its path and chmod +x it")),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| runs(candidate)) {
        Some(found) => Ok(found.display().to_string()),
        None => Err(format!("{program} is not found on PATH: write its whole path")),
    }
}
