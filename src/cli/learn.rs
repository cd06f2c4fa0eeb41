//! `learn`: feedback of false alarms to the model.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::common;
use super::error::{Error, exit};
use crate::config::{self, Config};
use crate::fs;
use crate::model::learn::{self, Feedback, Outcome, Taken};
use crate::model::records::Learnt;
use crate::model::{Calibration, Model, file, p_text};
use crate::watch::events::{self, Event, Kind};
use crate::watch::scene;
use crate::watch::time;

/// With more false alarms, relative to the calibration's number of independent scores, it is time to fit again.
const MUCH: f64 = 0.1;

/// Teaches the model that events were false alarms, or collects their snapshots for the next fit.
///
/// The score of the frame that raised each event joins the conformal calibration, so that frames like it get a higher
/// p. The model is replaced in one step; the previous one is kept beside it as MODEL.bak. One false alarm changes p by
/// little: for each event the gain is shown, and how many more like it pass the threshold. The threshold is no longer an
/// exact false-alarm rate then, and outliers that look like what was learnt are no longer detected: where many events are
/// false alarms, --keep their snapshots and fit again.
///
/// The score is that of the live frame in the event log. If another model wrote it, the snapshot is scored instead, whose
/// score differs: it is a JPEG file of quality 90.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  outlierd learn --list
  outlierd learn 20261123T201500-0123abcd-1 && systemctl reload outlierd
  outlierd learn --since 2h --keep more/ && outlierd fit --normal normal/ --normal more/ -o door.outlierd")]
pub struct Args {
    /// Ids of the events, as `outlierd events` shows them
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// The latest event
    #[arg(long, conflicts_with_all = ["ids", "since"])]
    last: bool,
    /// All events since a local time (2026-11-23 18:00, 18:00, yesterday), one that ends in Z or an offset, or within a
    /// duration (2h)
    #[arg(long, value_name = "T", value_parser = time::parse, allow_hyphen_values = true, conflicts_with = "ids")]
    since: Option<SystemTime>,
    /// Only list the events, whether their snapshots are there, and what was learnt before
    #[arg(long, conflicts_with = "keep")]
    list: bool,
    /// Only copy the snapshots into a folder, for `fit --normal`
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Take back what was learnt of these events, before the daemon is reloaded: what the alarm budget has counted by
    /// then stays taken back
    #[arg(long, conflicts_with_all = ["keep", "list"])]
    forget: bool,
    /// Config file that names log and model
    #[arg(short, long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// A raised event.
struct Alarm {
    id: String,
    raise: Event,
}

impl Alarm {
    /// The score in the log, if it is from this model.
    fn live(&self, model: &Model) -> Option<f64> {
        let made = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(model.made_at))?;
        let (score, p) = (self.raise.score?, self.raise.p?);
        (self.raise.time >= made && learn::is_of(model, score, p)).then_some(score)
    }
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let config = Config::load(&args.config)?;
    let alarms = args.select(alarms(&config)?)?;
    if args.list {
        list(&args, &config, &alarms)?;
    } else if let Some(folder) = &args.keep {
        keep(&args, &alarms, folder)?;
    } else if args.forget {
        forget(&args, &config, &alarms)?;
    } else {
        return teach(&args, &config, &alarms);
    }
    Ok(ExitCode::SUCCESS)
}

fn alarms(config: &Config) -> Result<Vec<Alarm>, Error> {
    let log = &config.events.log;
    let events = events::read(log)
        .map_err(|e| Error::new(exit::NOINPUT, format!("cannot read the event log {}: {e}", log.display())))?;
    let raises = events.into_iter().filter(|event| event.event == Kind::Raise);
    Ok(raises.filter_map(|raise| raise.id.clone().map(|id| Alarm { id, raise })).collect())
}

impl Args {
    fn select(&self, mut all: Vec<Alarm>) -> Result<Vec<Alarm>, Error> {
        if let Some(unknown) = self.ids.iter().find(|id| all.iter().all(|alarm| alarm.id != **id)) {
            let message = format!("no event {unknown} in the log; `outlierd learn --list` shows those there are");
            return Err(Error::new(exit::NOINPUT, message));
        }
        if !self.ids.is_empty() {
            all.retain(|alarm| self.ids.contains(&alarm.id));
        } else if let Some(since) = self.since {
            all.retain(|alarm| alarm.raise.time >= since);
        } else if self.last {
            all.drain(..all.len().saturating_sub(1));
        } else if !self.list {
            let message = "name the events that were false alarms: ids, --last or --since T; --list shows them";
            return Err(Error::new(exit::USAGE, message));
        }
        if all.is_empty() && !self.list {
            return Err(Error::new(exit::NOINPUT, "the log has no such event"));
        }
        Ok(all)
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    id: &'a str,
    time: String,
    p: Option<f64>,
    score: Option<f64>,
    snapshot: Option<&'a Path>,
    snapshot_exists: bool,
    learnt: bool,
}

fn list(args: &Args, config: &Config, alarms: &[Alarm]) -> Result<(), Error> {
    let known = |path: &PathBuf| match Model::load(path) {
        Ok(model) => model.records.learnt,
        Err(error) => {
            log::warn!("{error}: what was learnt before is not known");
            Vec::new()
        }
    };
    let known: Vec<Learnt> = config.models().flat_map(known).collect();
    for Alarm { id, raise } in alarms {
        let snapshot = raise.snapshot.as_deref();
        let listed = Listed {
            id,
            time: events::format_time(raise.time),
            p: raise.p,
            score: raise.score,
            snapshot,
            snapshot_exists: snapshot.is_some_and(Path::exists),
            learnt: known.iter().any(|Learnt { event, .. }| event == id),
        };
        if args.json {
            common::print_json(&listed)?;
            continue;
        }
        let p = listed.p.map_or_else(String::new, |p| format!("p={}", p_text(p)));
        let shot = match snapshot {
            Some(path) if listed.snapshot_exists => path.display().to_string(),
            Some(_) => "snapshot removed".into(),
            None => "no snapshot".into(),
        };
        let learnt = if listed.learnt { "  learnt" } else { "" };
        common::print(format!("{}  {id:<27}  {p:<8}  {shot}{learnt}", time::local(raise.time)))?;
    }
    Ok(())
}

/// The events whose snapshots exist. With ids or --last they must.
fn with_snapshots<'a>(args: &Args, alarms: &[&'a Alarm]) -> Result<Vec<(&'a Alarm, &'a Path)>, Error> {
    let mut found = Vec::with_capacity(alarms.len());
    for alarm in alarms.iter().copied() {
        match alarm.raise.snapshot.as_deref().filter(|path| path.exists()) {
            Some(path) => found.push((alarm, path)),
            None if args.since.is_some() => log::warn!("{}: its snapshot is gone, it is left out", alarm.id),
            None => {
                let message = format!(
                    "{}: its snapshot is gone; events.keep-snapshots says how many are kept before the oldest go",
                    alarm.id
                );
                return Err(Error::new(exit::NOINPUT, message));
            }
        }
    }
    match found.is_empty() {
        true => Err(Error::new(exit::NOINPUT, "none of the events has its snapshot any more")),
        false => Ok(found),
    }
}

#[derive(Serialize)]
struct Kept<'a> {
    id: &'a str,
    path: PathBuf,
    new: bool,
}

/// Copies snapshots, named after their events; one that is there already is left.
fn keep(args: &Args, alarms: &[Alarm], folder: &Path) -> Result<(), Error> {
    let found = with_snapshots(args, &alarms.iter().collect::<Vec<_>>())?;
    common::make_folder(folder)?;
    let mut new = 0;
    for (alarm, snapshot) in &found {
        let bytes = crate::image::bytes(snapshot).map_err(|e| Error::new(exit::NOINPUT, e))?;
        let extension = snapshot.extension().and_then(|extension| extension.to_str()).unwrap_or("jpg");
        let path = folder.join(format!("learnt-{}.{extension}", alarm.id));
        let there = match fs::read(&path, crate::image::MAX_BYTES) {
            Ok(old) => old == bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => false,
            Err(e) => return Err(common::cannot_write(&path, e)),
        };
        if !there {
            common::write(&path, &bytes)?;
            new += 1;
        }
        if args.json {
            common::print_json(&Kept { id: &alarm.id, path, new: !there })?;
        }
    }
    if !args.json {
        let (all, folder) = (common::count(found.len(), "snapshot"), folder.display());
        common::print(format!(
            "{all} in {folder}, {new} of them new; fit again with --normal {folder} beside the rest"
        ))?;
    }
    Ok(())
}

/// The models of the config that raised any of the events, and these.
fn by_model<'a>(config: &'a Config, alarms: &'a [Alarm]) -> impl Iterator<Item = (&'a PathBuf, Vec<&'a Alarm>)> {
    let path = move |alarm: &Alarm| {
        let name = alarm.raise.model.as_ref().map(OsStr::new);
        config.models().find(|path| path.file_name() == name).unwrap_or(&config.model.path)
    };
    let of = move |model: &'a PathBuf| (model, alarms.iter().filter(|alarm| path(alarm) == model).collect::<Vec<_>>());
    config.models().map(of).filter(|(_, alarms)| !alarms.is_empty())
}

fn teach(args: &Args, config: &Config, alarms: &[Alarm]) -> Result<ExitCode, Error> {
    let mut taught = false;
    for (path, alarms) in by_model(config, alarms) {
        taught |= teach_model(args, config, path, &alarms)?;
    }
    Ok(if taught { ExitCode::SUCCESS } else { ExitCode::from(exit::DATAERR) })
}

/// Whether any of the events could be learnt.
fn teach_model(args: &Args, config: &Config, path: &Path, alarms: &[&Alarm]) -> Result<bool, Error> {
    let mut model = Model::load(path)?;
    if let Calibration::Isotonic(_) = model.calibration {
        return Err(Error::new(exit::DATAERR, learn::NotConformal));
    }
    let (mut scored, mut others) = (Vec::new(), Vec::new());
    for alarm in alarms {
        match alarm.live(&model) {
            Some(score) => scored.push((alarm.id.clone(), score)),
            None => others.push(*alarm),
        }
    }
    let live = scored.len();
    if !others.is_empty() {
        scored.extend(score_snapshots(config, &model, with_snapshots(args, &others)?)?);
    }
    let threshold = scene::threshold(config, path, &model).map_err(|e| {
        Error::new(exit::NOINPUT, format!("cannot read the history {}: {e}", config.history_path_of(path).display()))
    })?;
    let feedback = learn::learn(&mut model, &scored, threshold).map_err(|e| Error::new(exit::DATAERR, e))?;
    if feedback.taken() > 0 {
        replace(&model, path)?;
    }
    report(args, &feedback, live, threshold, path)?;
    Ok(feedback.outcomes.iter().any(|outcome| outcome.taken != Taken::TooFar))
}

#[derive(Serialize)]
struct Forgotten<'a> {
    id: &'a str,
    forgotten: bool,
}

fn forget(args: &Args, config: &Config, alarms: &[Alarm]) -> Result<(), Error> {
    let mut any = false;
    for (path, alarms) in by_model(config, alarms) {
        let mut model = Model::load(path)?;
        let ids: Vec<String> = alarms.iter().map(|alarm| alarm.id.clone()).collect();
        let forgotten = learn::forget(&mut model, &ids);
        if !forgotten.is_empty() {
            replace(&model, path)?;
        }
        any |= !forgotten.is_empty();
        for id in &ids {
            let row = Forgotten { id, forgotten: forgotten.contains(&id.as_str()) };
            match (args.json, row.forgotten) {
                (true, _) => common::print_json(&row)?,
                (false, true) => common::print(format!("{id}: no longer learnt"))?,
                (false, false) => common::print(format!("{id}: was not learnt"))?,
            }
        }
    }
    if !any || args.json {
        return Ok(());
    }
    common::print("the running daemon takes it over with: systemctl reload outlierd")
}

fn score_snapshots(
    config: &Config,
    model: &Model,
    snapshots: Vec<(&Alarm, &Path)>,
) -> Result<Vec<(String, f64)>, Error> {
    let backbone = model.load_backbone(config.model.backbone.as_deref(), config.model.threads)?;
    let bar = common::progress("snapshots", snapshots.len());
    let mut scored = Vec::with_capacity(snapshots.len());
    for (alarm, snapshot) in snapshots {
        let picture = crate::image::read(snapshot).map_err(|e| Error::new(exit::DATAERR, e))?;
        let sample = backbone.prepare(&picture).and_then(|prepared| backbone.sample(&prepared));
        let (feature, cells) = sample?;
        scored.push((alarm.id.clone(), model.raw_score(&feature, cells.as_ref())?));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(scored)
}

/// Writes the model in the place of the one there, which is kept as MODEL.bak.
fn replace(model: &Model, path: &Path) -> Result<(), Error> {
    let old = fs::read(path, file::MAX_BYTES).map_err(|e| common::cannot_write(path, e))?;
    common::write(&file::backup_path(path), &old)?;
    Ok(model.save(path)?)
}

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    taken: &'static str,
    score: f64,
    /// "live" frame or "snapshot".
    score_of: &'static str,
    p_before: f64,
    p_after: f64,
    outlier: bool,
    more_needed: usize,
}

/// The first `live` outcomes are of live frames, the others of snapshots.
fn report(args: &Args, feedback: &Feedback, live: usize, threshold: f64, path: &Path) -> Result<(), Error> {
    for (at, outcome) in feedback.outcomes.iter().enumerate() {
        let is_live = at < live;
        if args.json {
            common::print_json(&Row {
                id: &outcome.event,
                taken: match outcome.taken {
                    Taken::Learnt => "learnt",
                    Taken::Already => "already",
                    Taken::TooFar => "too-far",
                },
                score: outcome.score,
                score_of: if is_live { "live" } else { "snapshot" },
                p_before: outcome.p_before,
                p_after: outcome.p_after,
                outlier: outcome.more_needed > 0,
                more_needed: outcome.more_needed,
            })?;
        } else {
            common::print(sentence(outcome, is_live, threshold))?;
        }
    }
    if args.json {
        return Ok(());
    }
    if feedback.outcomes.iter().any(|outcome| outcome.taken == Taken::TooFar) {
        common::print(
            "What scores so far below is not taken: all that lies between would pass too. Collect the snapshots with \
             --keep DIR and fit again with --normal DIR beside the other pictures.",
        )?;
    }
    if feedback.taken() == 0 {
        return common::print("the model is as it was");
    }
    if let (Some(before), Some(after)) = (feedback.cut_before, feedback.cut_after) {
        common::print(format!(
            "outliers now score below {after:.2}, before it was {before:.2}: what lies between is no longer seen"
        ))?;
    }
    let Feedback { worth, learnt, .. } = feedback;
    if *learnt as f64 > MUCH * worth {
        common::print(format!(
            "{learnt} false alarms beside a calibration worth {worth:.0} pictures: p means little; --keep and fit again"
        ))?;
    }
    common::print(format!("wrote {}, the one before is {}", path.display(), file::backup_path(path).display()))?;
    common::print("the running daemon takes it over with: systemctl reload outlierd")
}

fn sentence(outcome: &Outcome, is_live: bool, threshold: f64) -> String {
    let Outcome { event, score, p_before, p_after, more_needed, .. } = outcome;
    let scored = format!("{event}: score {score:.2}{}", if is_live { "" } else { " of its snapshot" });
    let verdict = match more_needed {
        0 => format!("such a frame is no outlier now (threshold {threshold})"),
        n => format!("still below the threshold {threshold}; {n} more of its kind would do"),
    };
    match outcome.taken {
        Taken::Learnt => format!("{scored}, p {} -> {}: {verdict}", p_text(*p_before), p_text(*p_after)),
        Taken::Already => format!("{scored}, learnt before, p {}: {verdict}", p_text(*p_after)),
        Taken::TooFar => format!("{scored}, not learnt: far below all of the calibration"),
    }
}
