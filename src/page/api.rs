//! What programs read.

use std::fmt::Write;

use hyper::StatusCode;
use serde::Serialize;

use super::events::{Filter, newest};
use super::instance::Instance;
use super::request::Request;
use super::response::{self, Response};
use crate::watch::observe::{self, Observed, State};

/// Events of one answer.
const MOST: usize = 1000;
const USUAL: usize = 100;

/// As a line of `outlierd status --json`.
#[derive(Serialize)]
struct Line {
    /// Of a status that is its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    state: Option<State>,
    #[serde(flatten)]
    status: Option<Observed>,
    error: Option<String>,
}

fn ask(instance: &Instance) -> Result<Observed, String> {
    let config = instance.config().map_err(|e| e.to_string())?;
    observe::ask(&config.socket_path()).map_err(|e| e.to_string())
}

/// Every daemon's status, as an array.
pub fn status(instances: &[Instance]) -> Response {
    let lines = instances.iter().map(|instance| {
        let (status, error) = match ask(instance) {
            Ok(status) => (Some(status), None),
            Err(e) => (None, Some(e)),
        };
        let state = status.as_ref().map(Observed::state);
        let name = status.is_none().then(|| instance.name.clone());
        Line { instance: name, state, status, error }
    });
    response::json(&lines.collect::<Vec<_>>())
}

/// The newest events that are wanted, oldest first, as the log has them.
pub fn events(instance: &Instance, request: &Request) -> Response {
    let wrong = |reason: String| response::text(StatusCode::BAD_REQUEST, format!("{reason}\n"));
    let filter = match Filter::parse(&request.query, None) {
        Ok(filter) => filter,
        Err(reason) => return wrong(reason),
    };
    let most = match request.query.get("limit") {
        "" => USUAL,
        text => match text.parse() {
            Ok(most @ 1..=MOST) => most,
            _ => return wrong(format!("limit: a number from 1 to {MOST}")),
        },
    };
    let config = match instance.config() {
        Ok(config) => config,
        Err(e) => return response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")),
    };
    match newest(&config, &filter, most) {
        Ok(found) => response::json(&found.into_iter().map(|found| found.event).collect::<Vec<_>>()),
        Err(e) => response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read the event log: {e}\n")),
    }
}

type Figure = (&'static str, &'static str, &'static str, fn(&Observed) -> Option<f64>);

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

/// Those of the metrics file that the socket knows, by the same names.
const FIGURES: [Figure; 12] = [
    ("outlierd_frames_total", "counter", "Frames judged.", |it| Some(it.counts.frames as f64)),
    ("outlierd_frames_dropped_total", "counter", "Frames that could not be read or judged.", |it| {
        Some(it.counts.dropped as f64)
    }),
    ("outlierd_frames_skipped_total", "counter", "Frames that looked like the last judged one.", |it| {
        Some(it.counts.skipped as f64)
    }),
    ("outlierd_raised_total", "counter", "Events raised.", |it| Some(it.counts.raised as f64)),
    ("outlierd_cleared_total", "counter", "Events cleared.", |it| Some(it.counts.cleared as f64)),
    ("outlierd_p", "gauge", "p of the latest judged frame; an outlier has p < threshold.", |it| {
        it.frame.as_ref().map(|frame| frame.p)
    }),
    ("outlierd_frame_age_seconds", "gauge", "Since the latest judged frame.", |it| {
        it.frame.as_ref().map(|frame| frame.age_s)
    }),
    ("outlierd_outlier", "gauge", "1 while an event stands.", |it| Some(flag(it.raised))),
    ("outlierd_threshold", "gauge", "The threshold that p is compared with.", |it| Some(it.threshold.value)),
    ("outlierd_camera_up", "gauge", "1 while the camera gives frames.", |it| Some(flag(it.camera.up))),
    ("outlierd_drift", "gauge", "1 while a drift event stands; absent where drift is not watched for.", |it| {
        it.drift.as_ref().map(|drift| flag(drift.drifting))
    }),
    ("outlierd_uptime_seconds", "gauge", "Since the daemon started.", |it| Some(it.uptime_s)),
];

/// Prometheus' text exposition format 0.0.4.
pub fn metrics(instances: &[Instance]) -> Response {
    let asked: Vec<(String, Result<Observed, String>)> = instances
        .iter()
        .map(|it| (it.name.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n"), ask(it)))
        .collect();
    let mut text = String::from("# HELP outlierd_up 1 where the daemon answers.\n# TYPE outlierd_up gauge\n");
    // Writing to a string cannot fail.
    for (name, answer) in &asked {
        let _ = writeln!(text, "outlierd_up{{instance=\"{name}\"}} {}", flag(answer.is_ok()));
    }
    for (figure, kind, help, value) in FIGURES {
        let known = asked.iter().filter_map(|(name, answer)| Some((name, value(answer.as_ref().ok()?)?)));
        for (at, (name, value)) in known.enumerate() {
            if at == 0 {
                let _ = writeln!(text, "# HELP {figure} {help}\n# TYPE {figure} {kind}");
            }
            let _ = writeln!(text, "{figure}{{instance=\"{name}\"}} {value}");
        }
    }
    response::metrics(text)
}
