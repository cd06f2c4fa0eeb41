//! `status`: what the running daemons see now.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::error::{Error, exit};
use super::{common, instances};
use crate::config::{self, Config, RUN_FOLDER};
use crate::model::p_text;
use crate::watch::events::printable;
use crate::watch::frame::threshold::Origin;
use crate::watch::observe::{self, Observed, State};
use crate::watch::time::span;

const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Clears a terminal.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Exit codes: the worst of all daemons that were asked, in this order of badness.
mod code {
    pub const NORMAL: u8 = 0;
    pub const NOT_RUNNING: u8 = 3;
    /// It runs, but no frame is judged.
    pub const UNKNOWN: u8 = 4;
    pub const OUTLIER: u8 = 1;
}

/// Prints what the running daemons see now.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 normal, 1 an outlier stands, 3 not running, 4 running but nothing is judged (no frame yet, \
                  camera lost, hung).\n\nExamples: outlierd status\n          outlierd status --watch\n          \
                  outlierd status -c door.toml --json"
)]
pub struct Args {
    /// Config file of the daemon to ask [default: all daemons of /run/outlierd and /etc/outlierd]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask at this socket, without a config
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    socket: Option<PathBuf>,
    /// One JSON object a line and daemon
    #[arg(long)]
    json: bool,
    /// Ask again every second, until it is interrupted
    #[arg(short, long)]
    watch: bool,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    loop {
        let sockets = args.sockets()?;
        let answers: Vec<_> = sockets.iter().map(|socket| (socket, observe::ask(socket))).collect();
        if args.watch && !args.json && std::io::stdout().is_terminal() {
            let _ = std::io::stdout().write_all(CLEAR.as_bytes());
        }
        let codes: Vec<u8> = answers
            .iter()
            .map(|(socket, answer)| {
                let text = if args.json { json(socket, answer) } else { text(socket, answer) };
                common::print(text.trim_end()).map(|()| code_of(answer))
            })
            .collect::<Result<_, _>>()?;
        if !args.watch {
            let worst = [code::OUTLIER, code::UNKNOWN, code::NOT_RUNNING].into_iter().find(|code| codes.contains(code));
            return Ok(ExitCode::from(worst.unwrap_or(code::NORMAL)));
        }
        std::thread::sleep(WATCH_EVERY);
    }
}

impl Args {
    /// That of the config given, else all that are in the run folder and those of the configs that have a model; where
    /// there is none, the packaged config's.
    fn sockets(&self) -> Result<Vec<PathBuf>, Error> {
        if let Some(socket) = &self.socket {
            return Ok(vec![socket.clone()]);
        }
        if let Some(config) = &self.config {
            return Ok(vec![Config::read(config)?.socket_path()]);
        }
        let mut sockets = BTreeSet::new();
        match std::fs::read_dir(RUN_FOLDER) {
            Ok(entries) => sockets.extend(
                entries
                    .flatten()
                    .map(|entry| entry.path())
                    .filter(|path| path.extension().is_some_and(|e| e == "sock")),
            ),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::new(exit::NOINPUT, format!("cannot read {RUN_FOLDER}: {e}"))),
        }
        let configs = instances::configs(Path::new(config::FOLDER)).unwrap_or_default();
        let ready =
            configs.iter().filter_map(|path| Config::read(path).ok()).filter(|config| config.model.path.exists());
        sockets.extend(ready.map(|config| config.socket_path()));
        if !sockets.is_empty() {
            return Ok(sockets.into_iter().collect());
        }
        match Config::read(Path::new(config::DEFAULT_PATH)) {
            Ok(config) => drop(sockets.insert(config.socket_path())),
            Err(config::Error::Io { .. }) => {
                let message = format!(
                    "no daemon answers in {RUN_FOLDER}, and there is no {}: name the config of one with -c FILE",
                    config::DEFAULT_PATH
                );
                return Err(Error::new(code::NOT_RUNNING, message));
            }
            Err(_) => {}
        }
        Ok(sockets.into_iter().collect())
    }
}

type Answer = Result<Observed, observe::Error>;

fn code_of(answer: &Answer) -> u8 {
    match answer {
        Ok(status) => match status.state() {
            State::Normal => code::NORMAL,
            State::Outlier => code::OUTLIER,
            State::CameraLost | State::Starting | State::Hung => code::UNKNOWN,
        },
        Err(observe::Error::NotRunning) => code::NOT_RUNNING,
        Err(_) => code::UNKNOWN,
    }
}

fn json(socket: &Path, answer: &Answer) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        socket: &'a Path,
        state: Option<State>,
        #[serde(flatten)]
        status: Option<&'a Observed>,
        error: Option<String>,
    }
    let status = answer.as_ref().ok();
    let error = answer.as_ref().err().map(ToString::to_string);
    let line = Line { socket, state: status.map(Observed::state), status, error };
    serde_json::to_string(&line).unwrap_or_else(|e| e.to_string())
}

/// The name of the daemon that answers at a socket of that path.
fn name(socket: &Path) -> String {
    socket.file_stem().map_or_else(|| socket.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn text(socket: &Path, answer: &Answer) -> String {
    let status = match answer {
        Ok(status) => status,
        Err(e) => return printable(&format!("{}: {e}", name(socket))),
    };
    let mut lines = vec![format!("{}: {}", status.instance, headline(status))];
    let mut add = |name: &str, text: String| lines.push(format!("  {name:<11}{text}"));
    if let Some(frame) = &status.frame {
        let verdict = if frame.outlier { "outlier" } else { "inlier" };
        let (p, score, age) = (p_text(frame.p), frame.score, ago(frame.age_s));
        add("frame", format!("{verdict}, p {p}, score {score:.4}, {age}"));
    }
    add("threshold", threshold(status));
    if let Some(event) = &status.event {
        let region = event.region.map_or_else(String::new, |[x, y, width, height]| {
            let [x, y, width, height] = [x, y, width, height].map(|share| (100.0 * share).round());
            format!(", at {x} %, {y} %, {width} % x {height} % of the picture")
        });
        add("event", format!("{}, since {}{region}", event.id, span(event.age_s)));
    }
    let counts = &status.counts;
    let rate = status.frames_per_second.map_or_else(String::new, |rate| format!(", {rate:.1} a second"));
    add("frames", format!("{} judged, {} unchanged, {} dropped{rate}", counts.frames, counts.skipped, counts.dropped));
    add("events", format!("{} raised, {} cleared in {}", counts.raised, counts.cleared, span(status.uptime_s)));
    if let Some(budget) = &status.budget {
        let known = span(budget.watched_s);
        add("budget", format!("{}: {} spent; {known} of the scene known", budget.false_alarms, budget.spent));
    }
    if let Some(drift) = &status.drift {
        let rank = drift.rank.map_or_else(
            || "no full window yet".into(),
            |rank| format!("above {:.0} % of calibration's normals, 50 % expected", 100.0 * rank),
        );
        add("drift", format!("{}, {rank}", if drift.drifting { "YES" } else { "none" }));
    }
    let trouble = status.camera.trouble.as_ref().map_or_else(String::new, |trouble| format!("; {trouble}"));
    add("camera", format!("{}{trouble}", status.camera.source));
    add("model", status.model.display().to_string());
    if let Some(light) = status.light {
        add("light", format!("brightness {:.3}, saturation {:.3}", light.brightness, light.saturation));
    }
    if let Some(error) = &status.last_error {
        add("last error", format!("{}, {}", error.message, ago(error.age_s)));
    }
    add("daemon", format!("outlierd {}, process {}, {}", status.version, status.pid, status.config.display()));
    lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
}

fn headline(status: &Observed) -> String {
    let settling = status.budget.as_ref().and_then(|budget| budget.settling_s);
    let headline = match status.state() {
        State::Outlier => "OUTLIER",
        State::CameraLost => "camera lost",
        State::Starting => "no frame judged yet",
        State::Hung => "HUNG: no frame is judged any more; see `journalctl -u outlierd`",
        State::Normal => "normal",
    };
    match settling {
        Some(left) => format!("{headline}, settling for another {}", span(left)),
        None => headline.into(),
    }
}

fn threshold(status: &Observed) -> String {
    let (value, model) = (p_text(status.threshold.value), p_text(status.threshold.model));
    match status.threshold.origin {
        Origin::Model => format!("p < {value}, the model's own"),
        Origin::Config => format!("p < {value} by the config (the model's own: {model})"),
        Origin::Budget => format!("p < {value} by the alarm budget (the model's own: {model})"),
        Origin::Settling => format!("p < {value} while the scene is learnt (the model's own: {model})"),
    }
}

fn ago(seconds: f64) -> String {
    if seconds < 1.0 { "now".into() } else { format!("{} ago", span(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::frame::threshold::Threshold;
    use crate::watch::observe::{Budget, Camera, Frame, OpenEvent};

    fn normal() -> Observed {
        Observed {
            instance: "door".into(),
            camera: Camera { source: "folder:x".into(), up: true, ..Camera::default() },
            frame: Some(Frame { p: 0.5, ..Frame::default() }),
            frames_per_second: Some(2.0),
            ..Observed::default()
        }
    }

    #[test]
    fn states_have_their_codes() {
        let code = |change: fn(&mut Observed)| {
            let mut status = normal();
            change(&mut status);
            code_of(&Ok(status))
        };
        let lost = |status: &mut Observed| {
            status.camera = Camera { up: false, trouble: Some("gone".into()), ..Camera::default() };
        };
        assert_eq!(code(|_| ()), 0);
        assert_eq!(code(|status| status.raised = true), 1);
        assert_eq!(code(|status| status.frame = None), 4);
        assert_eq!(code(lost), 4);
        assert_eq!(code(|status| status.frame.as_mut().unwrap().age_s = 31.0), 4);
        let slow = |status: &mut Observed| {
            status.frames_per_second = Some(0.01);
            status.frame.as_mut().unwrap().age_s = 300.0;
        };
        assert_eq!(code(slow), 0);
        assert_eq!(code_of(&Err(observe::Error::NotRunning)), 3);
        assert_eq!(code_of(&Err(observe::Error::Silent)), 4);
    }

    #[test]
    fn people_read_what_there_is() {
        let mut status = normal();
        status.raised = true;
        status.event = Some(OpenEvent {
            id: "e1".into(),
            age_s: 3661.2,
            region: Some([0.25, 0.5, 0.1, 0.2]),
            ..OpenEvent::default()
        });
        status.threshold = Threshold { value: 0.001, origin: Origin::Settling, model: 0.01 };
        status.budget = Some(Budget {
            false_alarms: "1/day".into(),
            watched_s: 7200.0,
            settling_s: Some(79_200.0),
            ..Budget::default()
        });
        let text = text(Path::new("/run/outlierd/door.sock"), &Ok(status));
        for part in [
            "door: OUTLIER, settling for another 22h",
            "e1, since 1h 1m, at 25 %, 50 %, 10 % x 20 % of the picture",
            "p < 0.0010 while the scene is learnt (the model's own: 0.0100)",
            "1/day: 0 spent; 2h of the scene known",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn hostile_text_is_printable() {
        let mut status = normal();
        status.camera.source = "a\x1b[2Jb".into();
        assert!(!text(Path::new("x"), &Ok(status)).contains('\x1b'));
    }
}
