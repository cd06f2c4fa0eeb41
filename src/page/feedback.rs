//! "This was normal": events that are taken back, as `outlierd learn` does, and the reload that makes it hold.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::child;
use super::layout::View;
use super::marks::Mark;
use super::pictures::is_id;
use super::response::{self, Response};
use super::state::lock;
use crate::model::p_text;
use crate::watch::observe::{self, Observed};

/// Scoring a snapshot takes a run of the network.
const PATIENCE: Duration = Duration::from_secs(120);
const NO_EVENT: &str = "There is no such event.";

impl View<'_> {
    /// The marks that the daemon has not taken over; all where it is not known to run.
    pub fn marks(&self, observed: Option<&Observed>) -> Vec<Mark> {
        lock(&self.page.marks).since(&self.instance.name, observed.map(|observed| observed.loaded_s))
    }

    /// None: there can be no such event.
    fn id(&self) -> Option<&str> {
        Some(self.request.form.get("id")).filter(|id| is_id(id))
    }

    /// Runs `learn` on an event of the daemon.
    fn learn(&self, more: &[&str], id: &str) -> Result<child::Said, String> {
        let config = self.instance.path.to_str().ok_or("the name of the config file is no UTF-8 text")?;
        let arguments = [&["learn", "--json", "--config", config], more, &["--", id]].concat();
        child::run(&arguments, PATIENCE)
    }
}

/// A line of `learn --json`.
#[derive(Deserialize)]
struct Row {
    taken: String,
    p_before: f64,
    p_after: f64,
    more_needed: usize,
}

impl Row {
    fn sentence(&self) -> Result<String, String> {
        if self.taken == "too-far" {
            return Err(
                "It scores far below all of the calibration, so it is not learnt: all that lies between would \
                        pass too. Collect the snapshots with `outlierd learn --keep DIR` and fit again."
                    .into(),
            );
        }
        let verdict = match self.more_needed {
            0 => "such a frame will be normal".to_owned(),
            n => format!("still below the threshold, {n} more of its kind would do"),
        };
        Ok(format!("p {} → {}: {verdict}", p_text(self.p_before), p_text(self.p_after)))
    }
}

pub fn normal(view: &View<'_>) -> Response {
    let Some(id) = view.id() else { return view.fail("events", NO_EVENT) };
    let outcome = view.learn(&[], id).and_then(|said| {
        let row = said.out.lines().find_map(|line| serde_json::from_str::<Row>(line).ok());
        row.ok_or_else(|| said.err.trim().to_owned()).and_then(|row| row.sentence())
    });
    match outcome {
        Ok(outcome) => {
            let mark = Mark { id: id.to_owned(), at: Instant::now(), outcome };
            lock(&view.page.marks).add(&view.instance.name, mark);
            response::see(&format!("{}#{id}", back(view)))
        }
        Err(reason) => view.fail("events", &reason),
    }
}

pub fn forget(view: &View<'_>) -> Response {
    let Some(id) = view.id() else { return view.fail("events", NO_EVENT) };
    let observed = observe::ask(&view.config.socket_path()).ok();
    if view.marks(observed.as_ref()).iter().all(|mark| mark.id != id) {
        return view.fail("events", "The daemon has taken it over by now: fit again to have it back.");
    }
    match view.learn(&["--forget"], id) {
        Ok(said) if said.ok => {
            lock(&view.page.marks).remove(&view.instance.name, id);
            response::see(&format!("{}#{id}", back(view)))
        }
        Ok(said) => view.fail("events", said.err.trim()),
        Err(reason) => view.fail("events", &reason),
    }
}

/// Has the daemon take over what was changed.
pub fn reload(view: &View<'_>) -> Response {
    match observe::reload(&view.config.socket_path()) {
        Ok(()) => response::see(&back(view)),
        Err(e) => view.fail("events", &format!("The daemon was not told: {e}. `systemctl reload` does it too.")),
    }
}

/// The page of events that a form was on.
fn back(view: &View<'_>) -> String {
    let query = view.request.form.get("query");
    let is_query = query.bytes().all(|c| c.is_ascii_alphanumeric() || b"=&%-_.~+".contains(&c));
    let url = view.url("events");
    if query.is_empty() || !is_query { url } else { format!("{url}?{query}") }
}
