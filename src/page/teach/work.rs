//! What jobs do: the commands of this program, and frames that the running daemon gives.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::folder::Folder;
use super::jobs::{Check, Control, Outcome};
use crate::config::Config;
use crate::fs;
use crate::model::file::{MAX_BYTES, backup_path};
use crate::page::child;
use crate::watch::observe::{self, original_path};

/// Larger frames are not taken.
const MAX_FRAME: u64 = 32 << 20;
/// How long a frame that is due may take.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Fitting and checking take no longer.
const FIT_LIMIT: Duration = Duration::from_secs(12 * 3600);
const CHECK_LIMIT: Duration = Duration::from_secs(300);
/// How long the daemon may take to read a model.
const RELOAD: Duration = Duration::from_secs(60);
/// Lines of a check that say whether a model fits the config.
const OF_THE_MODEL: [&str; 5] = ["config", "model", "budget", "mask", "backbone"];

/// Frames to collect.
#[derive(Debug, Clone)]
pub struct Wish {
    pub count: usize,
    pub every: Duration,
    /// As it was written.
    pub every_text: String,
}

/// Collects frames: from the running daemon, which has the camera, else from the camera.
pub fn collect(config: &Config, wish: &Wish, control: &Control) -> Result<String, String> {
    let folder = Folder::of(config);
    folder.make(config, &folder.normal())?;
    folder.note_crop(config)?;
    let socket = config.socket_path();
    let before = folder.frames().len();
    let new = || folder.frames().len().saturating_sub(before);
    let outcome = match observe::ask(&socket) {
        Ok(_) => from_daemon(config, &folder, wish, control),
        Err(observe::Error::NotRunning) => {
            let (normal, count) = (folder.normal(), wish.count.to_string());
            let arguments = ["collect", "--config", utf8(config.path())?, "--output", utf8(&normal)?];
            let more = ["--count", &count, "--every", &wish.every_text];
            let said = child::run_while(&[&arguments[..], &more].concat(), |_| {
                control.tell(format!("{} of {count} frames", new()));
                control.cancelled().or_else(|| folder.full())
            });
            said.and_then(|said| if said.ok { Ok(()) } else { Err(said.err) })
        }
        Err(e) => Err(e.to_string()),
    };
    let collected = format!("Frames collected: {}.", new());
    outcome.map(|()| collected.clone()).map_err(|reason| format!("{collected} {reason}"))
}

fn from_daemon(config: &Config, folder: &Folder, wish: &Wish, control: &Control) -> Result<(), String> {
    let socket = config.socket_path();
    let original = original_path(&socket);
    let (mut last, mut made, mut saved) = (Vec::new(), None, 0);
    let mut due = Instant::now();
    while saved < wish.count {
        if let Some(reason) = control.cancelled().or_else(|| folder.full()) {
            return Err(format!("Stopped: {reason}."));
        }
        let observed = observe::ask_for_originals(&socket).map_err(|e| format!("The daemon: {e}"))?;
        let crop = config.camera.crop.map(|crop| crop.to_string());
        if observed.camera.crop != crop {
            return Err(
                "The running daemon still has another crop than the config: reload it. It refuses that while the \
                        model has other masks than the config: take these out, apply the crop, and draw them then."
                    .into(),
            );
        }
        let now = Instant::now();
        let found = std::fs::metadata(&original).ok().map(|meta| (meta.ino(), meta.mtime(), meta.mtime_nsec()));
        if now >= due && found.is_some() && found != made {
            made = found;
            // It may be gone again.
            if let Some(frame) = fs::read_unlinked(&original, MAX_FRAME).ok().filter(|frame| *frame != last) {
                let path = folder.next_frame();
                fs::replace(&path, &frame).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
                (last, due) = (frame, (due + wish.every).max(now));
                saved += 1;
                control.tell(format!("{saved} of {} frames", wish.count));
                continue;
            }
        }
        if now > due + PATIENCE {
            let error = observed.pictures.and_then(|pictures| pictures.error).or(observed.camera.trouble);
            let error = error.map_or_else(String::new, |error| format!(": {error}"));
            return Err(format!("No other frame came from the running daemon for {} s{error}", PATIENCE.as_secs()));
        }
        std::thread::sleep(LOOK_EVERY.min(due.saturating_duration_since(now).max(LOOK_EVERY / 10)));
    }
    Ok(())
}

/// Takes one picture from the camera, to aim by.
pub fn aim(config: &Config) -> Result<(), String> {
    let folder = Folder::of(config);
    folder.make(config, &folder.aim())?;
    let aim = folder.aim();
    let arguments = ["collect", "--config", utf8(config.path())?, "--output", utf8(&aim)?, "--count", "1"];
    let said = child::run(&arguments, PATIENCE)?;
    if !said.ok {
        return Err(said.err);
    }
    let mut old = super::folder::frames_in(&aim).into_iter().skip(1);
    old.try_for_each(|name| fs::remove(&aim.join(name))).map_err(|e| e.to_string())
}

/// Fits a model on the frames, with the config's masks and backbone, and writes the report.
pub fn fit(config: &Config, control: &Control) -> Result<String, String> {
    let folder = Folder::of(config);
    folder.check_crop(config)?;
    let result = folder.result();
    let cannot = |e: std::io::Error| format!("cannot write {}: {e}", result.display());
    fs::remove(&result).map_err(cannot)?;
    let [normal, model, report] = [folder.normal(), folder.model(), folder.report()];
    let mut arguments = vec!["fit", "--json", "--normal", utf8(&normal)?, "--config", utf8(config.path())?];
    arguments.extend(["--output", utf8(&model)?, "--report", utf8(&report)?]);
    if let Some(backbone) = &config.model.backbone {
        arguments.extend(["--backbone", utf8(backbone)?]);
    }
    let started = Instant::now();
    let said = child::run_while(&arguments, |progress| {
        control.tell(progress);
        let late = || format!("it takes longer than {} hours", FIT_LIMIT.as_secs() / 3600);
        control.cancelled().or_else(|| (started.elapsed() > FIT_LIMIT).then(late))
    })?;
    if !said.ok {
        return Err(said.err);
    }
    fs::replace(&result, said.out.as_bytes()).map_err(cannot)?;
    Ok("The model is fitted.".into())
}

/// Checks all that a watch with the fitted model needs.
pub fn check(config: &Config, control: &Control) -> Outcome {
    let checked = checks(config, control);
    let checks = checked.clone().unwrap_or_default();
    let wrong = checks.iter().filter(|line| !line.ok).count();
    let said = checked.and_then(|_| match wrong {
        0 => Ok("All is as it should be.".into()),
        n => Err(format!("{n} of {} checks failed.", checks.len())),
    });
    Outcome { said, checks }
}

fn checks(config: &Config, control: &Control) -> Result<Vec<Check>, String> {
    let model = Folder::of(config).model();
    let started = Instant::now();
    let arguments = ["check", "--json", "--config", utf8(config.path())?, "--model", utf8(&model)?];
    let said = child::run_while(&arguments, |_| {
        control.cancelled().or_else(|| (started.elapsed() > CHECK_LIMIT).then(|| "it takes too long".into()))
    })?;
    let lines: Vec<Check> = said.out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if lines.is_empty() { Err(said.err) } else { Ok(lines) }
}

/// Puts the fitted model in the place of the config's, which is kept as `MODEL.bak`, and has the daemon read it. Nothing is
/// replaced where the model does not fit the config.
pub fn take_over(config: &Config, control: &Control) -> Outcome {
    let checks = match checks(config, control) {
        Ok(checks) => checks,
        Err(reason) => return Err(reason).into(),
    };
    let bad = |line: &&Check| !line.ok && OF_THE_MODEL.contains(&line.check.as_str());
    let said = match checks.iter().find(bad) {
        Some(line) => Err(format!("Nothing was replaced. {}: {}", line.check, line.message)),
        None => replace(config).and_then(|()| reload(config)),
    };
    Outcome { said, checks }
}

fn replace(config: &Config) -> Result<(), String> {
    let path = &config.model.path;
    let cannot = |e: std::io::Error| format!("cannot write {}: {e}", path.display());
    let new = fs::read(&Folder::of(config).model(), MAX_BYTES).map_err(|e| format!("cannot read the model: {e}"))?;
    match fs::read(path, MAX_BYTES) {
        Ok(old) => fs::replace(&backup_path(path), &old).map_err(cannot)?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(format!("cannot keep the model that is there, {}: {e}", path.display())),
    }
    fs::replace(path, &new).map_err(cannot)
}

/// Waits until the daemon has read config and model.
fn reload(config: &Config) -> Result<String, String> {
    let (socket, told) = (config.socket_path(), Instant::now());
    match observe::reload(&socket) {
        Err(observe::Error::NotRunning) => {
            return Ok(format!(
                "The model is in its place, {}. No daemon runs yet: it begins by itself where outlierd.path is enabled, else by \
                 `sudo systemctl start {}`.",
                config.model.path.display(),
                config.instance()
            ));
        }
        told => told.map_err(|e| format!("The model is in its place, but the daemon was not told: {e}"))?,
    }
    while told.elapsed() < RELOAD {
        std::thread::sleep(LOOK_EVERY);
        let Ok(observed) = observe::ask(&socket) else { continue };
        let waited = told.elapsed().as_secs_f64();
        if observed.loaded_s < waited {
            return Ok("The daemon watches with the new model.".into());
        }
        if let Some(error) = observed.last_error.filter(|error| error.age_s < waited) {
            return Err(format!("The model is in its place, but the daemon goes on as before: {}", error.message));
        }
    }
    Err("The model is in its place, but the daemon has not read it yet: see `outlierd status`.".into())
}

fn utf8(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{} is no UTF-8 text", path.display()))
}
