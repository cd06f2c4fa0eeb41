//! Answers, each with the headers that keep a browser from doing more than it is told.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{StatusCode, header};
use maud::Markup;

pub type Response = hyper::Response<Full<Bytes>>;

/// Nothing but what the page has itself: no other host, no script or style in the text, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

fn make(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers: [(HeaderName, &'static str); 7] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With `no-referrer` a browser hides the origin of the page's own forms too.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

pub fn html(status: StatusCode, page: Markup) -> Response {
    make(status, "text/html; charset=utf-8", page.into_string())
}

/// What never changes while the program runs.
pub fn asset(kind: &'static str, text: &'static str) -> Response {
    let mut response = make(StatusCode::OK, kind, text);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response {
    make(status, "text/plain; charset=utf-8", text)
}

/// Prometheus' text exposition format.
pub fn metrics(text: String) -> Response {
    make(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

pub fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => make(StatusCode::OK, "application/json", bytes),
        Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")),
    }
}

pub fn jpeg(bytes: Vec<u8>) -> Response {
    make(StatusCode::OK, "image/jpeg", bytes)
}

/// A report of `fit`, which holds its style and pictures itself, and nothing that runs.
pub fn report(bytes: Vec<u8>) -> Response {
    let mut response = make(StatusCode::OK, "text/html; charset=utf-8", bytes);
    let policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

/// To another page of this one, by GET.
pub fn see(path: &str) -> Response {
    let mut response = text(StatusCode::SEE_OTHER, "");
    match HeaderValue::from_str(path) {
        Ok(path) => drop(response.headers_mut().insert(header::LOCATION, path)),
        Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
    }
    response
}

/// A status without more than its name.
pub fn status(status: StatusCode) -> Response {
    let mut response = text(status, format!("{status}\n"));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

pub fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}
