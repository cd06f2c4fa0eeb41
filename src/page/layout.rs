//! What every page has around it.

use std::time::SystemTime;

use hyper::StatusCode;
use maud::{DOCTYPE, Markup, html};

use super::access::Access;
use super::instance::Instance;
use super::request::{Request, encode};
use super::response::{self, Response};
use super::state::{Page, lock};
use crate::config::Config;
use crate::watch::time::local;

/// The pages of a daemon: the last part of the path, and the name.
pub const TABS: [(&str, &str); 5] =
    [("live", "Live"), ("threshold", "Threshold"), ("events", "Events"), ("teach", "Teach"), ("masks", "Masks")];

/// One request for a page of one daemon.
pub struct View<'a> {
    pub page: &'a Page,
    pub request: &'a Request,
    pub access: &'a Access,
    pub instances: &'a [Instance],
    pub instance: &'a Instance,
    pub config: Config,
}

impl View<'_> {
    pub fn url(&self, page: &str) -> String {
        self.instance.url(page)
    }

    /// What makes a form this page's own.
    pub fn form_token(&self) -> Markup {
        form_token(self.page, self.access)
    }

    /// A page of the daemon; `tab` is one of [`TABS`].
    pub fn show(&self, tab: &str, body: Markup) -> Response {
        self.show_as(StatusCode::OK, tab, body, false)
    }

    /// The same, loaded anew every few seconds where there is no script.
    pub fn show_live(&self, tab: &str, body: Markup) -> Response {
        self.show_as(StatusCode::OK, tab, body, true)
    }

    /// What went wrong, and the way back.
    pub fn fail(&self, tab: &str, message: &str) -> Response {
        let body = html! {
            p class="wrong" role="alert" { (message) }
            p { a href=(self.url(tab)) { "Back" } }
        };
        self.show_as(StatusCode::UNPROCESSABLE_ENTITY, tab, body, false)
    }

    fn show_as(&self, status: StatusCode, tab: &str, body: Markup, live: bool) -> Response {
        let title = TABS.iter().find(|(path, _)| *path == tab).map_or("outlierd", |(_, name)| name);
        let nav = html! {
            @if self.instances.len() > 1 {
                ul class="instances" {
                    @for other in self.instances {
                        li { a href=(other.url(tab)) aria-current=[(other.name == self.instance.name).then_some("true")] { (other.name) } }
                    }
                }
            }
            ul class="tabs" {
                @for (path, name) in TABS {
                    li { a href=(self.url(path)) aria-current=[(path == tab).then_some("page")] { (name) } }
                }
            }
            @if let Access::Session(_) = self.access {
                form method="post" action="/logout" { (self.form_token()) button { "Log out" } }
            }
        };
        response::html(status, document(&format!("{title}: {}", self.instance.name), nav, body, live))
    }
}

/// The hidden field of every form.
pub fn form_token(page: &Page, access: &Access) -> Markup {
    html! { input type="hidden" name="form" value=(lock(&page.sessions).form_token(access.cookie())); }
}

/// A whole page. One that is `live` is loaded anew every few seconds where there is no script.
pub fn document(title: &str, nav: Markup, body: Markup, live: bool) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                link rel="stylesheet" href="/style.css";
                @if live { noscript { meta http-equiv="refresh" content="3"; } }
                script src="/app.js" defer {}
            }
            body {
                header { a class="skip" href="#main" { "To the content" } nav { (nav) } }
                main id="main" { h1 { (title) } (body) }
            }
        }
    }
}

/// The list of daemons where there are several, or none.
pub fn home(instances: &[Instance]) -> Response {
    let body = html! {
        @if instances.is_empty() {
            p { "There is no config yet: " code { "/etc/outlierd/outlierd.toml" } " comes with the package." }
        }
        ul { @for instance in instances { li { a href=(instance.url("live")) { (instance.name) } } } }
    };
    response::html(StatusCode::OK, document("outlierd", html! {}, body, false))
}

/// Asks for the token.
pub fn login(page: &Page, wrong: Option<&str>) -> Response {
    let status = if wrong.is_some() { StatusCode::FORBIDDEN } else { StatusCode::OK };
    let body = html! {
        @if let Some(wrong) = wrong { p class="wrong" role="alert" { (wrong) } }
        form method="post" action="/login" {
            (form_token(page, &Access::None))
            label { "Token " input type="password" name="token" autocomplete="current-password" required autofocus; }
            button { "Log in" }
        }
    };
    response::html(status, document("Log in to outlierd", html! {}, body, false))
}

/// A local time to the second.
pub fn clock(time: SystemTime) -> String {
    local(time).chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// A path with one parameter.
pub fn with(path: &str, name: &str, value: &str) -> String {
    format!("{path}?{name}={}", encode(value))
}
