//! Who may ask: hosts, sessions, and forms of this page alone.

use std::net::IpAddr;
use std::time::Instant;

use hyper::{Method, StatusCode};

use super::access::{Access, COOKIE, is_loopback};
use super::request::Request;
use super::state::{Page, lock};

impl Page {
    /// Says how the request is let in.
    ///
    /// # Errors
    /// What it is refused with: another site's name leads here, or another site has sent a form.
    pub fn admit(&self, request: &Request, now: Instant) -> Result<Access, StatusCode> {
        if !self.is_host(request) {
            return Err(StatusCode::MISDIRECTED_REQUEST);
        }
        let changes = match request.method {
            Method::GET | Method::HEAD => false,
            Method::POST => true,
            _ => return Err(StatusCode::METHOD_NOT_ALLOWED),
        };
        if changes && !is_own(request) {
            return Err(StatusCode::FORBIDDEN);
        }
        let mut sessions = lock(&self.sessions);
        if !sessions.is_guarded() {
            return match changes && !sessions.is_form_token("", request.form.get("form")) {
                true => Err(StatusCode::FORBIDDEN),
                false => Ok(Access::Open),
            };
        }
        if let Some(token) = request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")) {
            // No other site can make a browser send this.
            return match sessions.is_token(token, now) {
                true => Ok(Access::Token),
                false => Err(StatusCode::UNAUTHORIZED),
            };
        }
        let cookie = request.cookie(COOKIE).filter(|cookie| sessions.is_open(cookie, now));
        let access = cookie.map_or(Access::None, |cookie| Access::Session(cookie.to_owned()));
        match changes && !sessions.is_form_token(access.cookie(), request.form.get("form")) {
            true => Err(StatusCode::FORBIDDEN),
            false => Ok(access),
        }
    }

    /// Names of others may lead here too (DNS rebinding); an address is no name.
    fn is_host(&self, request: &Request) -> bool {
        let name = &request.host.0;
        is_loopback(name)
            || name.parse::<IpAddr>().is_ok_and(|ip| ip == request.local)
            || self.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
    }
}

/// Whether a browser says that the page itself has sent it. Programs say nothing.
fn is_own(request: &Request) -> bool {
    let origin = request.header("origin").map(|origin| {
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        host.is_some_and(|host| host.eq_ignore_ascii_case(&request.host.1))
    });
    let site = request.header("sec-fetch-site").map(|site| site == "same-origin");
    request.headers.get_all("origin").iter().count() <= 1 && origin.unwrap_or(true) && site.unwrap_or(true)
}
