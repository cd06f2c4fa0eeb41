//! Pictures: of events, and what the camera shows now.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use maud::html;

use super::instance::Instance;
use super::layout::View;
use super::response::{self, Response};
use crate::config::Config;
use crate::fs;
use crate::watch::observe::{self, frame_path, map_path};

/// Larger files are not sent.
const MAX_BYTES: u64 = 16 << 20;
/// Frames of a clip that are shown.
const MOST_FRAMES: usize = 1000;
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

/// The folder with the frames before and after an event; None: there is none.
pub fn clip_folder(config: &Config, id: &str) -> Option<PathBuf> {
    let folder = config.events.snapshots.join(format!("clip-{id}"));
    folder.symlink_metadata().is_ok_and(|there| there.is_dir()).then_some(folder)
}

/// All frames of a clip on one page.
pub fn clip(view: &View<'_>, id: &str) -> Response {
    let folder = Some(id).filter(|id| is_id(id)).and_then(|id| clip_folder(&view.config, id));
    let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok());
    let names = entries.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_frame(name)).take(MOST_FRAMES).collect();
    names.sort();
    let body = html! {
        p { a href={ (view.url("events")) "?text=" (id) } { "The event" } }
        @if names.is_empty() { p { "No frames of it are kept." } }
        ol class="cards clip" {
            @for name in &names {
                li { img src={ (view.url("clip")) "/" (id) "/" (name) } alt={ "Frame " (name) } loading="lazy"; }
            }
        }
    };
    view.show("events", body)
}

/// One frame of a clip.
pub fn of_clip(config: &Config, id: &str, name: &str) -> Response {
    let folder = Some(id).filter(|id| is_id(id) && is_frame(name)).and_then(|id| clip_folder(config, id));
    folder.map_or_else(|| response::status(StatusCode::NOT_FOUND), |folder| send(&folder.join(name)))
}

/// `00001.jpg`.
fn is_frame(name: &str) -> bool {
    let number = name.strip_suffix(".jpg");
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()))
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
