//! What another threshold would have raised, and the line that sets it.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};

use super::layout::{View, clock, with};
use super::response::{self, Response};
use crate::config::edit;
use crate::fs;
use crate::watch::budget::LEAST;
use crate::watch::budget::ladder::{Ladder, Rung};
use crate::watch::history::{Merged, hundredths, time_of};
use crate::watch::observe;

const DAY: Duration = Duration::from_secs(86_400);
/// Thresholds of the slider: so many times each of these powers of ten.
const STEPS: [f64; 6] = [5.0, 3.0, 2.0, 1.5, 1.0, 0.7];
const POWERS: std::ops::RangeInclusive<i32> = 1..=8;

/// What the last 24 hours say.
struct Tried {
    ladder: Ladder,
    /// The threshold of the latest frame.
    present: f64,
}

fn tried(view: &View<'_>, asked: Option<f64>) -> Result<Tried, String> {
    let open = || {
        let path = view.config.history_path();
        let cannot = |e| format!("Nothing is known of the past: cannot read the history {}: {e}.", path.display());
        Merged::open(&view.config.history_paths()).map_err(cannot)
    };
    let now = SystemTime::now();
    let span = (hundredths(now.checked_sub(DAY).unwrap_or(now)), hundredths(now));
    let present = open()?.latest_threshold(span.0).ok_or("No frame was judged in the last 24 hours.")?;
    let steps = POWERS.flat_map(|power| STEPS.map(|step| rounded(step * 10_f64.powi(-power))));
    let steps = steps.chain([present]).chain(asked).filter(|p| *p >= LEAST);
    let decision = &view.config.decision;
    let all: Vec<f64> = steps.collect();
    let mut ladder = Ladder::new(&all, decision.raise_after, decision.clear_after, span, 1);
    ladder.climb(open()?);
    Ok(Tried { ladder, present })
}

/// Of the parameter or field `threshold`.
fn asked(text: &str) -> Option<f64> {
    text.parse().ok().filter(|p: &f64| *p > 0.0 && *p <= 1.0)
}

fn events(count: u64) -> String {
    format!("{count} {}", if count == 1 { "time" } else { "times" })
}

pub fn show(view: &View<'_>) -> Response {
    let asked = asked(view.request.query.get("threshold"));
    let Tried { ladder, present } = match tried(view, asked) {
        Ok(tried) => tried,
        Err(reason) => return view.show("threshold", html! { p { (reason) } }),
    };
    let chosen = asked.unwrap_or(present);
    let at = ladder.rungs.iter().position(|rung| rung.threshold == chosen).unwrap_or(0);
    let Some(rung) = ladder.rungs.get(at) else { return view.show("threshold", html! {}) };
    let body = html! {
        p { (ladder.frames) " frames of the last 24 hours, judged by p < " b { (number(present)) } " at the end; raised after "
            (view.config.decision.raise_after) ", cleared after " (view.config.decision.clear_after) "." }
        form method="get" class="slider" {
            label for="slider" { "Threshold" }
            input type="range" id="slider" min="0" max=(ladder.rungs.len() - 1) value=(at) hidden;
            input type="text" inputmode="decimal" id="threshold" name="threshold" value=(number(chosen)) aria-label="Threshold as a number";
            button { "Count" }
            p role="status" { "p < " b id="chosen" { (number(chosen)) } " would have raised " b id="count" { (events(rung.events)) }
                " in the last 24 hours." }
        }
        (latest(rung))
        (line(view, chosen))
        h2 { "All that were counted" }
        div class="scroll" { table {
            thead { tr { th { "threshold" } th { "events" } th { "the latest" } } }
            tbody id="rungs" {
                @for other in &ladder.rungs {
                    tr data-p=(number(other.threshold)) data-events=(events(other.events))
                        class=[(other.threshold == present).then_some("present")] {
                        td { a href=(with(&view.url("threshold"), "threshold", &number(other.threshold))) { (number(other.threshold)) } }
                        td { (other.events) }
                        td { @if let Some(time) = other.latest.back() { (clock(time_of(*time))) } }
                    }
                }
            }
        } }
    };
    view.show("threshold", body)
}

/// A number as the config has it, to three digits: what is shown is what is set.
fn number(p: f64) -> String {
    let digits = (2.0 - p.log10().floor()).max(0.0) as usize;
    let text = format!("{p:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn rounded(p: f64) -> f64 {
    number(p).parse().unwrap_or(p)
}

fn latest(rung: &Rung) -> Markup {
    html! {
        @if !rung.latest.is_empty() {
            details { summary { "The latest of them" } ul { @for time in rung.latest.iter().rev() { li { (clock(time_of(*time))) } } } }
        }
    }
}

/// The config's line, and either the button that sets it or the command.
fn line(view: &View<'_>, chosen: f64) -> Markup {
    let path = &view.instance.path;
    let value = number(chosen);
    html! {
        h2 { "The line of the config" }
        @if let Some(rate) = view.config.decision.false_alarms {
            p { "The config has " code { "false-alarms = \"" (rate) "\"" } ": the threshold follows from that, and the two exclude "
                "each other. Take that line out of " code { (path.display()) } " to set a threshold here." }
        } @else {
            pre { code { "[decision]\nthreshold = " span id="line" { (value) } } }
            @if view.instance.is_writable() {
                form method="post" {
                    (view.form_token())
                    input type="hidden" id="value" name="threshold" value=(value);
                    label { input type="checkbox" name="sure" value="yes" required; " write it into " code { (path.display()) } " and reload the daemon" }
                    button { "Apply" }
                }
            } @else {
                p { "The page may not write to " code { (fs::folder_of(path).display()) } ", which is as it should be unless you "
                    "want it (see " code { "outlierd-page.service.d/config.conf.example" } "). By hand:" }
                pre { code { "sudo outlierd tune --threshold " span id="command" { (value) } " --write -c " (path.display())
                    "\nsudo systemctl reload " (view.instance.name) } }
            }
        }
    }
}

pub fn apply(view: &View<'_>) -> Response {
    let form = &view.request.form;
    let Some(p) = asked(form.get("threshold")) else {
        return view.fail("threshold", "A threshold is a p: above 0, at most 1, such as 0.001.");
    };
    if form.get("sure") != "yes" {
        return view.fail("threshold", "Say that you are sure: the config is written and the daemon reloaded.");
    }
    if view.config.decision.false_alarms.is_some() {
        return view.fail("threshold", "The config has false-alarms, which sets the threshold.");
    }
    if let Err(e) = edit::set_key(&view.instance.path, "decision", "threshold", &format!("{p:?}")) {
        return view.fail("threshold", &e.to_string());
    }
    match observe::reload(&view.config.socket_path()) {
        Ok(()) | Err(observe::Error::NotRunning) => response::see(&view.url("live")),
        Err(e) => view.fail("threshold", &format!("The config has it, but the daemon was not told: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_they_are_set() {
        for (p, text) in
            [(0.5, "0.5"), (0.0123456, "0.0123"), (1.0, "1"), (0.00099999, "0.001"), (3.16e-9, "0.00000000316")]
        {
            assert_eq!(number(p), text);
            assert_eq!(asked(text).map(number).as_deref(), Some(text));
        }
        for wrong in ["", "0", "-1", "1.5", "nan", "x"] {
            assert_eq!(asked(wrong), None, "{wrong}");
        }
    }
}
