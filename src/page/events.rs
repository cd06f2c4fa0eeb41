//! The events of a daemon, the newest first, as cards.

use std::collections::VecDeque;
use std::time::SystemTime;

use maud::{Markup, html};

use super::layout::{View, clock};
use super::live::percent;
use super::marks::Mark;
use super::pictures::{clip_folder, is_id};
use super::request::{Fields, encode};
use super::response::Response;
use crate::model::{Model, p_text};
use crate::watch::events::{self, Event, Kind};
use crate::watch::observe;
use crate::watch::time::{self, span};

/// Events of a page, and pages at most.
const PER_PAGE: usize = 24;
const MOST_PAGES: usize = 50;

/// Which events are wanted.
#[derive(Debug, Default)]
pub struct Filter {
    /// None: all kinds.
    pub kind: Option<Kind>,
    pub from: Option<SystemTime>,
    pub to: Option<SystemTime>,
    /// Part of its id, model or message, in any case.
    pub text: String,
}

impl Filter {
    /// Of the parameters `kind` (a kind, or "all"; `usual` where there is none), `from`, `to` and `text`.
    ///
    /// # Errors
    /// A sentence about a parameter that is none.
    pub fn parse(query: &Fields, usual: Option<Kind>) -> Result<Filter, String> {
        let kind = match query.get("kind") {
            "" => usual,
            "all" => None,
            name => Some(name.parse()?),
        };
        let at = |name: &str| match query.get(name) {
            "" => Ok(None),
            text => time::parse(text).map(Some).map_err(|e| format!("{name}: {e}")),
        };
        Ok(Filter { kind, from: at("from")?, to: at("to")?, text: query.get("text").to_lowercase() })
    }

    fn takes(&self, event: &Event) -> bool {
        let has = |text: &Option<String>| text.as_ref().is_some_and(|text| text.to_lowercase().contains(&self.text));
        self.kind.is_none_or(|kind| kind == event.event)
            && self.from.is_none_or(|from| event.time >= from)
            && self.to.is_none_or(|to| event.time < to)
            && (self.text.is_empty() || [&event.id, &event.model, &event.message].into_iter().any(has))
    }
}

/// An event of the log, and for a raise what ended it.
#[derive(Debug)]
pub struct Found {
    pub event: Event,
    pub end: Option<Event>,
}

/// The newest `most` that are wanted, oldest first.
///
/// # Errors
/// The log cannot be read; one that is not there has no events.
pub fn newest(view_config: &crate::config::Config, filter: &Filter, most: usize) -> std::io::Result<VecDeque<Found>> {
    let name = view_config.instance();
    let mut found: VecDeque<Found> = VecDeque::new();
    let read = events::for_each(&view_config.events.log, |event| {
        if event.instance.as_ref().is_some_and(|instance| *instance != name) {
            return;
        }
        if event.event == Kind::Clear
            && let Some(raise) =
                found.iter_mut().rev().find(|raise| raise.event.event == Kind::Raise && raise.event.id == event.id)
        {
            raise.end = Some(event.clone());
        }
        if filter.takes(&event) {
            if found.len() == most {
                found.pop_front();
            }
            found.push_back(Found { event, end: None });
        }
    });
    match read {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(found),
    }
}

pub fn show(view: &View<'_>) -> Response {
    let query = &view.request.query;
    let filter = match Filter::parse(query, Some(Kind::Raise)) {
        Ok(filter) => filter,
        Err(reason) => return view.fail("events", &reason),
    };
    let page = query.get("page").parse::<usize>().unwrap_or(0).min(MOST_PAGES - 1);
    let mut found = match newest(&view.config, &filter, (page + 1) * PER_PAGE + 1) {
        Ok(found) => found,
        Err(e) => {
            return view
                .fail("events", &format!("Cannot read the event log {}: {e}", view.config.events.log.display()));
        }
    };
    let more = found.len() > (page + 1) * PER_PAGE && page + 1 < MOST_PAGES;
    found.truncate(found.len().saturating_sub(page * PER_PAGE));
    let observed = observe::ask(&view.config.socket_path()).ok();
    let marks = view.marks(observed.as_ref());
    let learnt: Vec<String> = match Model::load(&view.config.model.path) {
        Ok(model) => model.records.learnt.into_iter().map(|learnt| learnt.event).collect(),
        Err(_) => Vec::new(),
    };
    let cards = Cards { view, marks: &marks, learnt: &learnt, query: query_of(query, page) };
    let body = html! {
        (filters(query))
        @if !marks.is_empty() {
            form method="post" action=(view.url("reload")) class="pending" {
                (view.form_token())
                input type="hidden" name="query" value=(cards.query);
                p role="status" { (marks.len()) " marked as normal. It holds once the daemon has reloaded; it can be undone until then." }
                button { "Reload the daemon" }
            }
        }
        @if found.is_empty() { p { "No such event." } }
        ol class="cards" {
            @for found in found.iter().rev().take(PER_PAGE) {
                @match found.event.event {
                    Kind::Raise => (cards.raise(found)),
                    _ => (cards.other(&found.event)),
                }
            }
        }
        nav class="pages" aria-label="Pages" {
            @if page > 0 { a rel="prev" href={ "?" (query_of(query, page - 1)) } { "Newer" } }
            @if more { a rel="next" href={ "?" (query_of(query, page + 1)) } { "Older" } }
        }
    };
    view.show("events", body)
}

fn query_of(query: &Fields, page: usize) -> String {
    let mut text = format!("page={page}");
    for name in ["kind", "from", "to", "text"] {
        if !query.get(name).is_empty() {
            text.push_str(&format!("&{name}={}", encode(query.get(name))));
        }
    }
    text
}

fn filters(query: &Fields) -> Markup {
    let kind = query.get("kind");
    let chosen = |name: &str| kind == name || (kind.is_empty() && name == "raise");
    html! {
        form method="get" class="filters" {
            label { "Kind " select name="kind" {
                option value="all" selected[kind == "all"] { "all" }
                @for kind in Kind::ALL { option value=(kind.name()) selected[chosen(kind.name())] { (kind.name()) } }
            } }
            label { "From " input name="from" value=(query.get("from")) placeholder="yesterday"; }
            label { "To " input name="to" value=(query.get("to")) placeholder="18:00"; }
            label { "Text " input name="text" value=(query.get("text")); }
            button { "Show" }
        }
    }
}

struct Cards<'a> {
    view: &'a View<'a>,
    marks: &'a [Mark],
    learnt: &'a [String],
    query: String,
}

impl Cards<'_> {
    fn raise(&self, Found { event, end }: &Found) -> Markup {
        let id = event.id.as_deref().filter(|id| is_id(id));
        let there = |name: &str| self.view.config.events.snapshots.join(format!("outlier-{name}")).is_file();
        let url = |name: &str| format!("{}/{name}", self.view.url("picture"));
        let pictures =
            id.map(|id| [(format!("{id}.jpg"), "The picture"), (format!("{id}-heat.jpg"), "Its anomaly map")]);
        let region = event.region.or_else(|| end.as_ref().and_then(|end| end.region));
        html! {
            li class="card" id=[id] {
                @for (name, what) in pictures.iter().flatten().filter(|(name, _)| there(name)) {
                    a href=(url(name)) { img src=(url(name)) alt={ (what) " of the event of " (clock(event.time)) } loading="lazy"; }
                }
                h2 { time datetime=(events::format_time(event.time)) { (clock(event.time)) } }
                p {
                    @match end.as_ref().map(|end| end.duration_s) {
                        Some(Some(duration)) => { "Lasted " @if duration < 1.0 { "less than a second" } @else { (span(duration)) } }
                        Some(None) => { "Over" }
                        None => { "Not over, or its end is not in the log" }
                    }
                    @if let Some(p) = event.p { "; p " (p_text(p)) }
                    @if let Some(threshold) = event.threshold { ", threshold " (p_text(threshold)) }
                    "."
                }
                @if let Some([x, y, width, height]) = region {
                    p class="note" { "At " (percent(x)) ", " (percent(y)) "; " (percent(width)) " × " (percent(height)) " of the picture." }
                }
                @if let Some(message) = end.as_ref().and_then(|end| end.message.as_ref()).or(event.message.as_ref()) { p class="note" { (message) } }
                p class="note" { (event.id.as_deref().unwrap_or_default()) }
                @if let Some(id) = id {
                    @if clip_folder(&self.view.config, id).is_some() {
                        p { a href={ (self.view.url("clip")) "/" (id) } { "Frames before and after" } }
                    }
                    (self.feedback(id))
                }
            }
        }
    }

    fn feedback(&self, id: &str) -> Markup {
        let form = |action: &str, name: &str| {
            html! {
                form method="post" action=(self.view.url(action)) {
                    (self.view.form_token())
                    input type="hidden" name="id" value=(id);
                    input type="hidden" name="query" value=(self.query);
                    button { (name) }
                }
            }
        };
        html! {
            @if let Some(mark) = self.marks.iter().find(|mark| mark.id == id) {
                p class="marked" { "Marked as normal: " (mark.outcome) "." }
                (form("forget", "Undo"))
            } @else if self.learnt.iter().any(|known| known == id) {
                p class="marked" { "Learnt as normal." }
            } @else {
                (form("normal", "This was normal"))
            }
        }
    }

    fn other(&self, event: &Event) -> Markup {
        html! {
            li class="card" {
                h2 { (event.event.name()) " " time datetime=(events::format_time(event.time)) { (clock(event.time)) } }
                @if let Some(message) = &event.message { p { (message) } }
                @if let Some(duration) = event.duration_s { p { "After " (span(duration)) "." } }
                @if let Some(id) = &event.id { p class="note" { (id) } }
            }
        }
    }
}
