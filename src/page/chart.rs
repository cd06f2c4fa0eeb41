//! p over time as SVG, by its logarithm.

use std::fmt::Write;
use std::time::SystemTime;

use maud::{Markup, html};

use super::past::{PARTS, Span};
use crate::watch::history::time_of;
use crate::watch::surprisal::Surprisal;
use crate::watch::time::local;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 22.0;
/// Powers of ten that are drawn at least.
const DECADES: f64 = 3.0;

/// Decades below 1.
fn decades(surprisal: Surprisal) -> f64 {
    surprisal.value() / std::f64::consts::LN_10
}

fn x(share: f64) -> f64 {
    LEFT + share * (WIDTH - LEFT)
}

/// A line through the parts that have a value, broken where they have none.
fn line(parts: impl Iterator<Item = Option<f64>>, y: impl Fn(f64) -> f64) -> String {
    let (mut path, mut within) = (String::new(), false);
    for (at, value) in parts.enumerate() {
        let Some(value) = value else {
            within = false;
            continue;
        };
        let (from, to) = (x(at as f64 / PARTS as f64), x((at + 1) as f64 / PARTS as f64));
        // Writing to a string cannot fail.
        let _ = match within {
            true => write!(path, "L{from:.1} {:.1}H{to:.1}", y(value)),
            false => write!(path, "M{from:.1} {0:.1}H{to:.1}", y(value)),
        };
        within = true;
    }
    path
}

/// The lowest p of each part, the threshold, and when an event stood.
pub fn svg(span: &Span, id: &str, name: &str) -> Markup {
    let seen = || span.parts.iter().filter(|part| part.frames > 0);
    let deepest = seen().map(|part| decades(part.highest).max(decades(part.threshold))).fold(DECADES, f64::max).ceil();
    let y = |decades: f64| TOP + decades / deepest * (HEIGHT - TOP - BOTTOM);
    let step = (deepest / 4.0).ceil().max(1.0) as usize;
    let p = line(span.parts.iter().map(|part| (part.frames > 0).then(|| decades(part.highest))), y);
    let threshold = line(span.parts.iter().map(|part| (part.frames > 0).then(|| decades(part.threshold))), y);
    let raised = span.parts.iter().enumerate().filter(|(_, part)| part.raised);
    let clock = |share: f64| {
        let time: SystemTime = time_of(span.from + (share * (span.to - span.from) as f64) as i64);
        local(time).chars().skip(11).take(5).collect::<String>()
    };
    let label = format!("p in the last {name}, lowest of each part, on a logarithmic scale");
    html! {
        figure id=(id) data-live {
            svg class="chart" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(label) {
                @for (at, _) in raised {
                    rect class="raised" x=(format!("{:.1}", x(at as f64 / PARTS as f64))) y=(TOP)
                        width=(format!("{:.1}", (WIDTH - LEFT) / PARTS as f64)) height=(HEIGHT - TOP - BOTTOM) {}
                }
                @for decade in (0..=deepest as usize).step_by(step) {
                    path class="axis" d=(format!("M{LEFT} {:.1}H{WIDTH}", y(decade as f64))) {}
                    text x=(LEFT - 6.0) y=(format!("{:.1}", y(decade as f64) + 4.0)) text-anchor="end" {
                        @if decade == 0 { "1" } @else { "1e-" (decade) }
                    }
                }
                @for quarter in 0..=4 {
                    text x=(format!("{:.1}", x(f64::from(quarter) / 4.0))) y=(HEIGHT - 5.0)
                        text-anchor=(match quarter { 0 => "start", 4 => "end", _ => "middle" }) {
                        (clock(f64::from(quarter) / 4.0))
                    }
                }
                path class="curve" d=(p) {}
                path class="cut" d=(threshold) {}
            }
            figcaption { "p in the last " (name) ": " span class="key curve" {} " the lowest of each part, "
                span class="key cut" {} " the threshold" @if seen().any(|part| part.raised) { ", " span class="key raised" {} " raised" } }
        }
    }
}
