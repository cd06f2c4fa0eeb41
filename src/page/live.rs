//! What the camera shows now, how it scored, and why that was raised or not.

use std::time::SystemTime;

use maud::{Markup, html};

use super::chart;
use super::layout::View;
use super::past::Past;
use super::response::Response;
use crate::model::p_text;
use crate::watch::frame::threshold::Origin;
use crate::watch::history::hundredths;
use crate::watch::observe::{self, Observed, Pictures, State};
use crate::watch::time::span;

/// Elements with `data-live` are replaced by those of a page that was loaded later.
pub fn show(view: &View<'_>) -> Response {
    let observed = observe::ask_for_pictures(&view.config.socket_path());
    let past = view.page.past(&view.config.history_path());
    let body = html! {
        @match &observed {
            Ok(observed) => {
                p id="state" data-live class={ "state " @if observed.raised { "outlier" } } role="status" { (headline(observed)) }
                div class="columns" {
                    (picture(view, observed.pictures.as_ref()))
                    div {
                        (reason(observed, past.as_ref().ok().map(AsRef::as_ref)))
                        (facts(observed))
                    }
                }
            }
            Err(e) => p id="state" data-live class="state wrong" role="status" { (view.instance.name) ": " (e) }
        }
        @match &past {
            Ok(past) => { (chart::svg(&past.hour, "hour", "hour")) (chart::svg(&past.day, "day", "day")) }
            Err(e) => p id="hour" data-live { "Nothing is known of the past: " (e) }
        }
    };
    view.show_live("live", body)
}

pub fn headline(observed: &Observed) -> String {
    let state = match observed.state() {
        State::Outlier => {
            let since = observed.event.as_ref().map_or_else(String::new, |event| format!(" for {}", span(event.age_s)));
            format!("Outlier{since}")
        }
        State::Normal => "Normal".into(),
        State::Starting => "No frame judged yet".into(),
        State::CameraLost => "Camera lost".into(),
        State::Hung => "Hung: no frame is judged any more".into(),
    };
    match observed.budget.as_ref().and_then(|budget| budget.settling_s) {
        Some(left) => format!("{state}; the scene is learnt for another {}", span(left)),
        None => state,
    }
}

/// The frame, and over it what can be switched on and off.
fn picture(view: &View<'_>, pictures: Option<&Pictures>) -> Markup {
    let none = Pictures::default();
    let pictures = pictures.unwrap_or(&none);
    let now = hundredths(SystemTime::now());
    let url = |name: &str, age: f64| format!("{}?{}", view.url(name), now - (100.0 * age) as i64);
    let (frame, map) = (pictures.frame_age_s, pictures.map_age_s);
    let masks = view.config.camera.mask.polygons();
    html! {
        div class="view" {
            input type="checkbox" id="show-map" checked; label for="show-map" { "anomaly map" }
            input type="checkbox" id="show-masks" checked; label for="show-masks" { "masks" }
            input type="checkbox" id="show-region" checked; label for="show-region" { "region" }
            div class="layers" {
                img id="frame" data-live alt=(if frame.is_some() { "The latest frame" } else { "" }) src=[frame.map(|age| url("frame.jpg", age))];
                img id="map" data-live class="map" alt=(if map.is_some() { "The same with its anomaly map" } else { "" }) src=[map.map(|age| url("map.jpg", age))];
                svg id="over" data-live viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true" {
                    @for polygon in masks {
                        polygon class="mask" points=(polygon.iter().map(|[x, y]| format!("{x},{y}")).collect::<Vec<_>>().join(" ")) {}
                    }
                    @if let Some([x, y, width, height]) = pictures.region {
                        rect class="region" x=(x) y=(y) width=(width) height=(height) {}
                    }
                }
            }
            @if let Some(crop) = view.config.camera.crop {
                p class="note" { "The picture is the crop " code { (crop) } " of the camera's." }
            }
            p id="picture-note" data-live class="note" {
                @match (frame, &pictures.error) {
                    (_, Some(error)) => { (error) }
                    (None, None) => { "The picture comes with the next frame." }
                    (Some(age), None) => { "A frame of " (ago(age))
                        @match map {
                            None => { "; it has no anomaly map" }
                            // Where the map takes another run of the network it is made seldom.
                            Some(map) if map > age + 1.0 => { "; the anomaly map is of one of " (ago(map)) }
                            Some(_) => {}
                        }
                        "."
                    }
                }
            }
        }
    }
}

pub fn ago(seconds: f64) -> String {
    if seconds < 1.0 { "now".into() } else { format!("{} ago", span(seconds)) }
}

/// "Why did it (not) fire?"
fn reason(observed: &Observed, past: Option<&Past>) -> Markup {
    let threshold = observed.threshold.value;
    let origin = match observed.threshold.origin {
        Origin::Model => "the model's own",
        Origin::Config => "by the config",
        Origin::Budget => "by the alarm budget",
        Origin::Settling => "while the scene is learnt",
    };
    html! {
        div id="why" data-live {
            @if let Some(frame) = &observed.frame {
                p { "p is " b { (p_text(frame.p)) } ", "
                    @if frame.outlier { "below" } @else { "not below" }
                    " the threshold " b { (p_text(threshold)) } " (" (origin) "): "
                    @if frame.outlier { "an outlier frame" } @else { "an inlier" } "."
                    @if frame.outlier && !observed.raised { " It is raised after some of them in a row." }
                    @if !frame.outlier && observed.raised { " The event is cleared after some of them in a row." }
                }
                @if let Some(rank) = past.and_then(|past| past.rank(frame.p)) {
                    p { "It is more unusual than " (format!("{:.2}", 100.0 * rank)) " % of the frames of the last 24 hours." }
                }
            }
            @if let Some([x, y, width, height]) = observed.event.as_ref().filter(|_| observed.raised).and_then(|event| event.region) {
                p { "What raised the event lies at " (percent(x)) ", " (percent(y)) " from the left and the top, "
                    (percent(width)) " × " (percent(height)) " of the picture." }
            }
        }
    }
}

pub fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn facts(observed: &Observed) -> Markup {
    let counts = &observed.counts;
    html! {
        dl id="facts" data-live class="facts" {
            dt { "Frames" }
            dd { (counts.frames) " judged, " (counts.skipped) " unchanged, " (counts.dropped) " dropped"
                @if let Some(rate) = observed.frames_per_second { ", " (format!("{rate:.1}")) " a second" } }
            dt { "Events" }
            dd { (counts.raised) " raised, " (counts.cleared) " cleared in " (span(observed.uptime_s)) }
            @if let Some(budget) = &observed.budget {
                dt { "Alarm budget" }
                dd { (budget.false_alarms) ": " (budget.spent) " spent; " (span(budget.watched_s)) " of the scene known" }
            }
            @if let Some(drift) = &observed.drift {
                dt { "Drift" }
                dd { @if drift.drifting { "yes" } @else { "none" }
                    @if let Some(rank) = drift.rank { ", above " (percent(rank)) " of calibration's normals, 50 % expected" } }
            }
            dt { "Camera" }
            dd { (observed.camera.source) @if let Some(trouble) = &observed.camera.trouble { "; " (trouble) } }
            dt { "Model" }
            dd { (observed.model.display()) }
            @if let Some(error) = &observed.last_error {
                dt { "Last error" }
                dd { (error.message) ", " (ago(error.age_s)) }
            }
        }
    }
}
