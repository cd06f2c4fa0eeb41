//! The latest frame and its anomaly map as JPEG files beside the socket, for who looks at them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::image::{RgbImage, imageops};

use crate::fs::{self, Replacement};
use crate::image::jpeg;
use crate::watch::observe::{frame_path, map_path, original_path};
use crate::watch::overlay::HeatMap;

/// Pixels of the longer side.
const SIDE: u32 = 640;
const QUALITY: u8 = 80;
/// As `outlierd collect` saves pictures.
const ORIGINAL_QUALITY: u8 = 95;
/// Owner and group may look.
const MODE: u32 = 0o640;
/// A picture is made so often at most,
const EVERY: Duration = Duration::from_millis(500);
/// and no oftener than takes one part in so many of the time, so that the rate of frames stays.
const REST: u32 = 100;

/// What was written, and when.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    pub frame: Option<Instant>,
    pub map: Option<Instant>,
    pub original: Option<Instant>,
    /// Of the map: x, y, width, height in shares of the picture.
    pub region: Option<[f64; 4]>,
    /// Why nothing was.
    pub error: Option<String>,
}

/// Both pictures, and when they may be made again.
#[derive(Debug, Default)]
pub struct Live {
    frame: PathBuf,
    map: PathBuf,
    original: PathBuf,
    /// Somebody wants frames as they came.
    pub wants_original: bool,
    frame_due: Option<Instant>,
    map_due: Option<Instant>,
    shown: Shown,
}

impl Live {
    /// Beside that socket.
    pub fn beside(socket: &Path) -> Live {
        Live { frame: frame_path(socket), map: map_path(socket), original: original_path(socket), ..Live::default() }
    }

    pub fn shown(&self) -> Shown {
        self.shown.clone()
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.frame_due.is_none_or(|due| now >= due)
    }

    pub fn is_there(&self) -> bool {
        [self.shown.frame, self.shown.map, self.shown.original].iter().any(Option::is_some)
    }

    /// Makes the pictures; `map` draws the anomaly map where there is one, and is not called where it would take too
    /// much of the time. None: the map of before stays.
    pub fn show(&mut self, picture: &RgbImage, map: Option<impl FnOnce() -> Option<HeatMap>>) {
        let begun = Instant::now();
        let small = reduced(picture);
        let mut written = write(&self.frame, &small, QUALITY);
        self.shown.frame = written.is_ok().then_some(begun);
        self.shown.original = None;
        if self.wants_original {
            written = written.and_then(|()| write(&self.original, picture, ORIGINAL_QUALITY));
            self.shown.original = written.is_ok().then_some(begun);
        }
        self.frame_due = Some(next(begun));
        if let Some(map) = map
            && self.map_due.is_none_or(|due| begun >= due)
        {
            let begun = Instant::now();
            let heat = map();
            self.shown.region = heat.as_ref().map(|heat| heat.region(picture.width(), picture.height()));
            let drawn = heat.map(|heat| heat.scaled(picture, &small).draw(&small));
            self.shown.map = None;
            written = written.and_then(|()| match drawn {
                Some(drawn) => write(&self.map, &drawn, QUALITY).map(|()| self.shown.map = Some(begun)),
                None => fs::remove(&self.map),
            });
            self.map_due = Some(next(begun));
        }
        let error = written.err().map(|e| format!("cannot write {}: {e}", self.frame.display()));
        if let Some(error) = error.as_ref().filter(|error| self.shown.error.as_ref() != Some(error)) {
            log::warn!("nobody sees the picture: {error}");
        }
        self.shown.error = error;
    }

    /// Removes what is there.
    pub fn clear(&mut self) {
        for path in [&self.frame, &self.map, &self.original] {
            if let Err(e) = fs::remove(path) {
                log::warn!("cannot remove {}: {e}", path.display());
            }
        }
        (self.shown, self.frame_due, self.map_due) = (Shown::default(), None, None);
    }
}

/// When what was begun then, and is done now, may be done again.
fn next(begun: Instant) -> Instant {
    let now = Instant::now();
    now + EVERY.max(now.saturating_duration_since(begun) * REST)
}

fn reduced(picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let longer = width.max(height);
    if longer <= SIDE {
        return picture.clone();
    }
    let side = |pixels: u32| (u64::from(pixels) * u64::from(SIDE) / u64::from(longer)).max(1) as u32;
    imageops::thumbnail(picture, side(width), side(height))
}

fn write(path: &Path, picture: &RgbImage, quality: u8) -> io::Result<()> {
    let jpeg = jpeg::encode(picture, quality).map_err(io::Error::other)?;
    fs::replace_as(path, &jpeg, Replacement::Volatile { mode: MODE }).map(drop)
}
