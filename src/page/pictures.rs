//! Pictures: of events, and what the camera shows now.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use hyper::StatusCode;

use super::instance::Instance;
use super::response::{self, Response};
use crate::config::Config;
use crate::fs;
use crate::watch::observe::{self, frame_path, map_path};

/// Larger files are not sent.
const MAX_BYTES: u64 = 16 << 20;
/// How long a picture is waited for, and how often it is asked for.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(200);

pub fn frame(config: &Config) -> Response {
    send(&frame_path(&config.socket_path()))
}

pub fn map(config: &Config) -> Response {
    send(&map_path(&config.socket_path()))
}

/// `ID.jpg` or `ID-heat.jpg`, by the daemon's own rule: what a log says where pictures are counts for nothing.
pub fn of_event(config: &Config, name: &str) -> Response {
    match name.strip_suffix(".jpg").filter(|id| is_id(id)) {
        Some(_) => send(&config.events.snapshots.join(format!("outlier-{name}"))),
        None => response::status(StatusCode::NOT_FOUND),
    }
}

/// Whether a text can be an event's id, and so a part of a file's name.
pub fn is_id(id: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !id.is_empty() && id.len() <= 100 && !id.starts_with('-') && id.chars().all(is_plain)
}

/// What the camera shows now, without a page: has it made, and waits for it.
pub fn snapshot(instance: &Instance) -> Response {
    let unavailable = |e: &dyn std::fmt::Display| response::text(StatusCode::SERVICE_UNAVAILABLE, format!("{e}\n"));
    let socket = match instance.config() {
        Ok(config) => config.socket_path(),
        Err(e) => return unavailable(&e),
    };
    let started = Instant::now();
    loop {
        let pictures = match observe::ask_for_pictures(&socket) {
            Ok(observed) => observed.pictures.unwrap_or_default(),
            Err(e) => return unavailable(&e),
        };
        match (pictures.frame_age_s, pictures.error) {
            (Some(_), _) => return send(&frame_path(&socket)),
            (None, Some(error)) => return unavailable(&error),
            _ if started.elapsed() > PATIENCE => return unavailable(&"no frame has come"),
            _ => std::thread::sleep(AGAIN),
        }
    }
}

/// A JPEG file: no link, and nothing else that has its name.
pub fn send(path: &Path) -> Response {
    match fs::read_unlinked(path, MAX_BYTES) {
        Ok(bytes) if bytes.starts_with(&[0xff, 0xd8, 0xff]) => response::jpeg(bytes),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            response::text(StatusCode::FORBIDDEN, "the page's user may not read the pictures\n")
        }
        Ok(_) | Err(_) => response::status(StatusCode::NOT_FOUND),
    }
}
