//! `events`: prints the event log.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use jiff::tz::TimeZone;

use super::common;
use super::error::{Error, exit};
use crate::config::{self, Config};
use crate::watch::events::{self, Event, Follow, Kind};
use crate::watch::time;

const POLL: Duration = Duration::from_millis(200);

/// Prints the local event log, oldest first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples: outlierd events --since 2h --follow\n          outlierd events --raise --last 10 --json\n\
                  \x20         outlierd events --kind camera-lost,camera-found --since 7d --until 1d"
)]
pub struct Args {
    /// Only events since a local time (2026-11-23 18:00, 18:00, yesterday), one that ends in Z or an offset, or within a
    /// duration (2h)
    #[arg(long, value_name = "T", value_parser = time::parse, allow_hyphen_values = true)]
    since: Option<SystemTime>,
    /// Only events before a time, or longer ago than a duration
    #[arg(long, value_name = "T", value_parser = time::parse, allow_hyphen_values = true, conflicts_with = "follow")]
    until: Option<SystemTime>,
    #[arg(long, value_name = "KIND", value_delimiter = ',', help = kinds())]
    kind: Vec<Kind>,
    /// Only raised outliers: --kind raise
    #[arg(long, conflicts_with = "kind")]
    raise: bool,
    /// Only the last N that the other options let through; with --follow, of those already there
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Wait for new events, through rotation of the log
    #[arg(short, long)]
    follow: bool,
    /// One JSON object a line, as in the log: times are UTC
    #[arg(long)]
    json: bool,
    /// Config file that names the log
    #[arg(short, long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// The log itself, without a config
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    log: Option<PathBuf>,
}

fn kinds() -> String {
    format!("Only events of these kinds: {}", Kind::ALL.map(Kind::name).join(", "))
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let path = match &args.log {
        Some(path) => path.clone(),
        None => log_of(&args.config)?,
    };
    let cannot = |e: std::io::Error| {
        let hint = match e.kind() {
            std::io::ErrorKind::NotFound => "; has `outlierd run` been started? name another log with --log",
            std::io::ErrorKind::PermissionDenied => "; be root or of the group that may read it",
            _ => "",
        };
        Error::new(exit::NOINPUT, format!("cannot read the event log {}: {e}{hint}", path.display()))
    };
    if !args.follow {
        args.print(&events::read(&path).map_err(cannot)?, args.last)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut follow = Follow::new(&path);
    args.print(&follow.poll().map_err(cannot)?, args.last)?;
    loop {
        std::thread::sleep(POLL);
        args.print(&follow.poll().map_err(cannot)?, None)?;
    }
}

impl Args {
    fn wants(&self, event: &Event) -> bool {
        self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time < until)
            && (!self.raise || event.event == Kind::Raise)
            && (self.kind.is_empty() || self.kind.contains(&event.event))
    }

    fn print(&self, events: &[Event], last: Option<usize>) -> Result<(), Error> {
        let wanted: Vec<&Event> = events.iter().filter(|event| self.wants(event)).collect();
        let skipped = last.map_or(0, |last| wanted.len().saturating_sub(last));
        for event in &wanted[skipped..] {
            if self.json { common::print(event.to_json())? } else { common::print(line(event, &TimeZone::system()))? }
        }
        Ok(())
    }
}

/// One aligned line: local time, kind, id, p, details.
fn line(event: &Event, zone: &TimeZone) -> String {
    let p = event.p.map_or_else(String::new, |p| format!("p={}", crate::model::p_text(p)));
    let id = event.id.as_deref().unwrap_or("");
    let time = time::local_in(event.time, zone.clone());
    let mut line = format!("{time}  {:<12}  {id:<27}  {p:<8}", event.event.name());
    let mut add = |text: String| {
        line.push_str("  ");
        line.push_str(&text);
    };
    if let Some(frames) = event.frames {
        add(common::count(frames as usize, "frame"));
    }
    if let Some(duration) = event.duration_s.and_then(|s| Duration::try_from_secs_f64(s).ok()) {
        let unit = if duration.as_secs() > 0 { 1000 } else { 1 };
        let rounded = Duration::from_millis(duration.as_millis() as u64 / unit * unit);
        add(format!("in {}", humantime::format_duration(rounded)));
    }
    for path in [&event.snapshot, &event.clip].into_iter().flatten() {
        add(path.display().to_string());
    }
    if let Some(message) = &event.message {
        add(message.clone());
    }
    events::printable(line.trim_end())
}

fn log_of(config: &std::path::Path) -> Result<PathBuf, Error> {
    match Config::read(config) {
        Err(config::Error::Io { path, source }) => {
            let path = path.display();
            let message = format!("cannot read {path}: {source}; name a config with -c FILE or a log with --log");
            Err(Error::new(exit::CONFIG, message))
        }
        config => Ok(config?.events.log),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_aligned() {
        let mut raise = Event::new(Kind::Raise);
        raise.time = SystemTime::UNIX_EPOCH;
        raise.id = Some("20261123T201500-0123abcd-1".into());
        raise.p = Some(0.0123);
        raise.frames = Some(3);
        raise.duration_s = Some(61.5);
        raise.snapshot = Some("/s/a.jpg".into());
        let expected = "1970-01-01T00:00:00.000+00:00  raise         20261123T201500-0123abcd-1   p=0.0123  \
                        3 frames  in 1m 1s  /s/a.jpg";
        assert_eq!(line(&raise, &TimeZone::UTC), expected);
        let mut lost = Event::new(Kind::CameraLost);
        lost.time = SystemTime::UNIX_EPOCH;
        lost.message = Some("gone".into());
        assert_eq!(
            line(&lost, &TimeZone::UTC).split_whitespace().collect::<Vec<_>>(),
            ["1970-01-01T00:00:00.000+00:00", "camera-lost", "gone"]
        );
    }
}
