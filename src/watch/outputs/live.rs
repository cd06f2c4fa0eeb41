//! The latest frame and its anomaly map as JPEG files beside the socket, for who looks at them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::image::RgbImage;

use crate::fs::{self, Replacement};
use crate::image::{self, jpeg};
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
/// and, where it takes longer than the daemon would have waited anyway, no oftener than takes one part in so many of the
/// time, so that the rate of frames stays.
const REST: u32 = 150;

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
    /// much of the time. None: the map of before stays. `next` is when the daemon takes its next frame.
    pub fn show(&mut self, picture: &RgbImage, map: Option<impl FnOnce() -> Option<HeatMap>>, next: Instant) {
        let begun = Instant::now();
        let small = image::reduced(picture, SIDE);
        let mut written = write(&self.frame, &small, QUALITY);
        self.shown.frame = written.is_ok().then_some(begun);
        self.shown.original = None;
        if self.wants_original {
            written = written.and_then(|()| write(&self.original, picture, ORIGINAL_QUALITY));
            self.shown.original = written.is_ok().then_some(begun);
        }
        self.frame_due = Some(again(begun, next));
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
            self.map_due = Some(again(begun, next));
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
fn again(begun: Instant, next: Instant) -> Instant {
    let now = Instant::now();
    let rest = if now <= next { Duration::ZERO } else { now.saturating_duration_since(begun) * REST };
    now + EVERY.max(rest)
}

fn write(path: &Path, picture: &RgbImage, quality: u8) -> io::Result<()> {
    let jpeg = jpeg::encode(picture, quality).map_err(io::Error::other)?;
    fs::replace_as(path, &jpeg, Replacement::Volatile { mode: MODE }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::anomaly_map::AnomalyMap;

    fn heat() -> Option<HeatMap> {
        let mut cells = vec![0.1; 16];
        cells[5] = 9.0;
        HeatMap::new(AnomalyMap { height: 4, width: 4, cells }.at([0.0, 0.0, 1280.0, 720.0]))
    }

    #[test]
    fn pictures_are_small_and_whole_and_their_region_is_that_of_the_frame() {
        let dir = tempfile::tempdir().unwrap();
        let mut live = Live::beside(&dir.path().join("door.sock"));
        let later = Instant::now() + Duration::from_secs(3600);
        assert!(live.is_due(Instant::now()) && !live.is_there());
        live.show(&RgbImage::new(1280, 720), Some(heat), later);
        let size = |name: &str| crate::image::read(&dir.path().join(name)).unwrap().dimensions();
        assert_eq!((size("door.frame.jpg"), size("door.map.jpg")), ((640, 360), (640, 360)));
        assert_eq!(live.shown().region, Some([0.25, 0.25, 0.25, 0.25]));
        assert!(live.is_there() && !live.is_due(Instant::now()));
        // In time to spare they are made as often as may be.
        assert!(live.is_due(Instant::now() + EVERY));
        live.map_due = None;
        live.show(&RgbImage::new(3, 2000), Some(|| None), later);
        assert_eq!(size("door.frame.jpg"), (1, 640));
        assert!(live.shown().map.is_none() && !dir.path().join("door.map.jpg").exists());
        assert!(live.shown().original.is_none() && !dir.path().join("door.original.jpg").exists());
        live.wants_original = true;
        let frame = RgbImage::from_fn(1280, 720, |x, y| ::image::Rgb([x as u8, y as u8, 7]));
        live.show(&frame, None::<fn() -> _>, later);
        let original = std::fs::read(dir.path().join("door.original.jpg")).unwrap();
        assert!(live.shown().original.is_some() && original == jpeg::encode(&frame, ORIGINAL_QUALITY).unwrap());
        live.clear();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_takes_the_time_of_frames_is_made_seldom() {
        let begun = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        assert!(again(begun, begun) > Instant::now() + Duration::from_millis(20) * (REST - 1));
    }

    #[test]
    fn a_folder_that_is_not_there_is_said_once_it_is_looked_at() {
        let mut live = Live::beside(Path::new("/nonexistent/door.sock"));
        live.show(&RgbImage::new(8, 8), Some(heat), Instant::now());
        assert!(live.shown().error.unwrap().contains("/nonexistent/door.frame.jpg") && !live.is_there());
    }
}
