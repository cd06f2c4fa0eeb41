//! `tune`: how often other thresholds would have raised.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::common;
use super::error::{Error, exit};
use crate::config::{self, Config, FalseAlarms, Span, edit};
use crate::model::p_text;
use crate::watch::budget::LEAST;
use crate::watch::budget::ladder::{Ladder, Rung};
use crate::watch::events;
use crate::watch::history::{Merged, hundredths, time_of};
use crate::watch::time;

/// Parts of the sparkline.
const PARTS: usize = 24;
/// Steps of a factor of ten that are tried for a rate, and those of them that are shown around the present threshold.
const STEPS: i32 = 8;
const SHOWN: std::ops::RangeInclusive<i32> = -8..=4;

/// Says how often each of a ladder of thresholds would have raised, from the history of what was judged.
///
/// The history has what every frame scored, so the answer is exact: the same frames, the same raise-after and
/// clear-after, another threshold. The threshold in force is marked. `--false-alarms` names the threshold that keeps a
/// rate over that time; as a config line it lets the daemon keep the rate by itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  outlierd tune --since yesterday
  outlierd tune --threshold 0.001 --write && systemctl reload outlierd
  outlierd tune --false-alarms 1/day --since 7d --json")]
pub struct Args {
    /// Only frames since a local time (2026-11-23 18:00, 18:00, yesterday), one that ends in Z or an offset, or within a
    /// duration (2h)
    #[arg(long, value_name = "T", value_parser = time::parse, default_value = "24h", allow_hyphen_values = true)]
    since: SystemTime,
    /// Also this threshold
    #[arg(long, value_name = "P", value_parser = threshold, conflicts_with = "false_alarms")]
    threshold: Option<f64>,
    /// Also the threshold that raises so rarely: 1/day, 2/week
    #[arg(long, value_name = "RATE")]
    false_alarms: Option<FalseAlarms>,
    /// Put the line into the config file; its comments and layout stay
    #[arg(long)]
    write: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Config file that names the history
    #[arg(short, long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

fn threshold(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(p) if p > 0.0 && p <= 1.0 => Ok(p),
        _ => Err("a threshold is a p: above 0, at most 1, such as 0.001".to_owned()),
    }
}

#[derive(Serialize)]
struct Tuned<'a> {
    since: String,
    until: String,
    frames: u64,
    unreadable_frames: u64,
    watched_days: f64,
    raise_after: Span,
    clear_after: Span,
    threshold: f64,
    ladder: Vec<Row>,
    line: Option<&'a str>,
}

#[derive(Serialize)]
struct Row {
    threshold: f64,
    events: u64,
    per_day: Option<f64>,
    present: bool,
    latest: Vec<String>,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let line = args.line();
    if args.write && line.is_none() {
        return Err(Error::new(exit::USAGE, "--write needs what to write: --threshold P or --false-alarms RATE"));
    }
    let config = Config::load(&args.config)?;
    let until = SystemTime::now();
    let present = present(&config, args.since)?;
    let ladder = args.climb(&config, present, until)?;
    let shown = args.shown(&ladder.0, present);
    match args.json {
        true => args.print_json(&config, &ladder, &shown, present, until, line.as_deref())?,
        false => args.print(&config, &ladder, &shown, present)?,
    }
    let Some(line) = line else { return Ok(ExitCode::SUCCESS) };
    let file = args.config.display();
    if args.write {
        let (key, value) = line.split_once(" = ").unwrap_or((&line, ""));
        edit::set_key(&args.config, "decision", key, value)?;
        let reload = format!("{file} has it now; the daemon takes it with: systemctl reload {}", config.instance());
        if !args.json {
            common::print(reload)?;
        }
    } else if !args.json {
        common::print(format!("for {file}, below [decision] (--write puts it there):\n{line}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn open(config: &Config) -> Result<Merged, Error> {
    Merged::open(&config.history_paths()).map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::NotFound => "; has `outlierd run` judged frames with this config?",
            std::io::ErrorKind::PermissionDenied => "; be root or of the group that may read it",
            _ => "",
        };
        Error::new(exit::NOINPUT, format!("cannot read the history {}: {e}{hint}", config.history_path().display()))
    })
}

/// The threshold that the latest frame was judged by.
fn present(config: &Config, since: SystemTime) -> Result<f64, Error> {
    let since = hundredths(since);
    let none = || {
        let since = time::local(time_of(since));
        Error::new(
            exit::NOINPUT,
            format!("the history {} has no frame since {since}; --since 7d?", config.history_path().display()),
        )
    };
    open(config)?.latest_threshold(since).ok_or_else(none)
}

/// Each step's threshold, around one.
fn step(around: f64, step: i32, steps: i32) -> f64 {
    around * 10.0_f64.powf(f64::from(step) / f64::from(steps))
}

impl Args {
    /// What to put into the config.
    fn line(&self) -> Option<String> {
        let threshold = self.threshold.map(|p| format!("threshold = {p:?}"));
        threshold.or_else(|| self.false_alarms.map(|rate| format!("false-alarms = \"{rate}\"")))
    }

    /// The ladder, and how many frames could not be read.
    fn climb(&self, config: &Config, present: f64, until: SystemTime) -> Result<(Ladder, u64), Error> {
        let shown = SHOWN.map(|at| step(present, at, 2));
        let fine = (0..12 * STEPS).map(|at| step(0.5, -at, STEPS)).filter(|_| self.false_alarms.is_some());
        let all: Vec<f64> = shown.chain(fine).filter(|p| (LEAST..=0.5).contains(p)).chain(self.threshold).collect();
        let decision = &config.decision;
        let span = (hundredths(self.since), hundredths(until));
        let mut ladder = Ladder::new(&all, decision.raise_after, decision.clear_after, span, PARTS);
        let mut reader = open(config)?;
        ladder.climb(&mut reader);
        Ok((ladder, reader.skipped()))
    }

    /// The rungs around the present threshold, and the one that was asked for.
    fn shown<'a>(&self, ladder: &'a Ladder, present: f64) -> Vec<&'a Rung> {
        let asked = match self.false_alarms {
            Some(rate) => ladder.within(rate.per_day()).map(|rung| rung.threshold),
            None => self.threshold,
        };
        let is_shown = |p: f64| Some(p) == asked || SHOWN.into_iter().any(|at| step(present, at, 2) == p);
        ladder.rungs.iter().filter(|rung| is_shown(rung.threshold)).collect()
    }

    fn print(&self, config: &Config, ladder: &(Ladder, u64), shown: &[&Rung], present: f64) -> Result<(), Error> {
        let (ladder, unreadable) = ladder;
        let decision = &config.decision;
        let watched = humantime::format_duration(Duration::from_secs((86_400.0 * ladder.days()) as u64));
        common::print(format!(
            "{} since {}, watched for {watched}; raise-after = {}, clear-after = {}",
            common::count(ladder.frames as usize, "frame"),
            time::local(self.since),
            decision.raise_after,
            decision.clear_after
        ))?;
        if *unreadable > 0 {
            common::print(format!("{} more could not be read", common::count(*unreadable as usize, "frame")))?;
        }
        common::print(format!("  threshold  events   a day  {:<PARTS$}  latest", "when"))?;
        let highest = shown.iter().flat_map(|rung| &rung.parts).copied().max().unwrap_or(0);
        let drawn = std::io::stdout().is_terminal();
        for rung in shown {
            let mark = if rung.threshold == present { '>' } else { ' ' };
            let per_day = if ladder.days() > 0.0 { rung.events as f64 / ladder.days() } else { 0.0 };
            let latest = rung.latest.back().map_or_else(String::new, |time| time::local(time_of(*time)));
            let (p, events) = (p_text(rung.threshold), rung.events);
            let when = sparkline(&rung.parts, highest, drawn);
            common::print(format!("{mark} {p:>9}  {events:>6}  {per_day:>6.1}  {when}  {latest}").trim_end())?;
        }
        let asked = match self.false_alarms {
            Some(rate) => match ladder.within(rate.per_day()) {
                Some(rung) => Some(rung),
                None => {
                    common::print(format!("no threshold raises as rarely as {rate}"))?;
                    None
                }
            },
            None => shown.iter().copied().find(|rung| rung.threshold == self.threshold.unwrap_or(present)),
        };
        if let Some(rung) = asked.filter(|rung| !rung.latest.is_empty()) {
            common::print(format!("the latest with {}:", p_text(rung.threshold)))?;
            for time in &rung.latest {
                common::print(format!("  {}", time::local(time_of(*time))))?;
            }
        }
        Ok(())
    }

    fn print_json(
        &self,
        config: &Config,
        (ladder, unreadable): &(Ladder, u64),
        shown: &[&Rung],
        present: f64,
        until: SystemTime,
        line: Option<&str>,
    ) -> Result<(), Error> {
        let days = ladder.days();
        let row = |rung: &&Rung| Row {
            threshold: rung.threshold,
            events: rung.events,
            per_day: (days > 0.0).then(|| rung.events as f64 / days),
            present: rung.threshold == present,
            latest: rung.latest.iter().map(|time| events::format_time(time_of(*time))).collect(),
        };
        common::print_json(&Tuned {
            since: events::format_time(self.since),
            until: events::format_time(until),
            frames: ladder.frames,
            unreadable_frames: *unreadable,
            watched_days: days,
            raise_after: config.decision.raise_after,
            clear_after: config.decision.clear_after,
            threshold: present,
            ladder: shown.iter().map(row).collect(),
            line,
        })
    }
}

/// One character for each part: a block as high as its events, or their number where blocks are not drawn.
fn sparkline(parts: &[u32], highest: u32, drawn: bool) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let one = |events: &u32| match *events {
        0 => '.',
        _ if drawn => {
            let height = f64::from(*events).ln_1p() / f64::from(highest).ln_1p();
            BLOCKS[((8.0 * height) as usize).clamp(1, 8) - 1]
        }
        1..=9 => char::from_digit(*events, 10).unwrap_or('+'),
        _ => '+',
    };
    parts.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparklines_are_text_where_no_terminal_draws_them() {
        assert_eq!(sparkline(&[0, 1, 9, 10, 500], 500, false), ".19++");
        assert_eq!(sparkline(&[0, 1, 20, 500], 500, true), ".▁▃█");
    }
}
