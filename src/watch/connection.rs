//! The source of frames: opened, lost and found again.

use std::time::{Duration, Instant};

use super::events::{Event, Kind, seconds};
use crate::camera::{self, Frame, FrameSource};
use crate::config;

/// How long the loop waits for a camera before it looks for signals again.
const SLICE: Duration = Duration::from_millis(200);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// Gives another source of frames after the first is lost.
pub type OpenCamera<'a, S> = Box<dyn FnMut(&config::Camera) -> Result<S, camera::Error> + 'a>;

/// The result of a poll.
pub(super) enum Polled {
    Frame(Frame),
    /// A frame that cannot be used, and why.
    Dropped(String),
    Nothing,
    End,
}

/// The source of frames, lost and found.
pub(super) struct Connection<S> {
    source: Option<S>,
    /// When the source was asked for the first frame that did not come.
    failing_since: Option<Instant>,
    /// There was an error since, or the wait is half of what makes a camera lost: the next frame of a slow source is only
    /// waited for.
    failing: bool,
    last_frame: Option<Instant>,
    announced: bool,
    reason: String,
    opened_at: Instant,
    retry_at: Instant,
    retry: Duration,
}

impl<S> Connection<S> {
    pub(super) fn new(now: Instant) -> Self {
        Connection {
            source: None,
            failing_since: None,
            failing: false,
            last_frame: None,
            announced: false,
            reason: String::new(),
            opened_at: now,
            retry_at: now,
            retry: FIRST_RETRY,
        }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing
    }

    /// It was asked for a frame that has not come.
    pub(super) fn is_waiting(&self) -> bool {
        self.failing_since.is_some()
    }

    /// A source is open and has not failed since its last frame.
    pub(super) fn is_up(&self) -> bool {
        self.source.is_some() && !self.is_failing()
    }

    pub(super) fn problem(&self) -> Option<&str> {
        self.is_failing().then_some(self.reason.as_str())
    }

    /// Drops the source, to be opened again at once.
    pub(super) fn close(&mut self, now: Instant) {
        self.source = None;
        self.retry_at = now;
        self.retry = FIRST_RETRY;
    }

    fn fail(&mut self, since: Instant, reason: String) {
        if self.reason != reason {
            log::warn!("{reason}");
        }
        self.failing_since.get_or_insert(since);
        self.failing = true;
        self.reason = reason;
    }

    /// Drops the source, to be opened again later and later.
    fn back_off(&mut self) {
        self.source = None;
        self.retry_at = Instant::now() + self.retry;
        self.retry = (self.retry * 2).min(LAST_RETRY);
    }
}

impl<S: FrameSource> Connection<S> {
    pub(super) fn open(
        &mut self,
        config: &config::Camera,
        open: &mut OpenCamera<'_, S>,
        asked: Instant,
    ) -> Result<(), camera::Error> {
        match open(config) {
            Ok(source) => {
                log::info!("camera: {}", source.describe());
                self.source = Some(source);
                self.opened_at = Instant::now();
                Ok(())
            }
            Err(e) => {
                self.fail(asked, e.to_string());
                self.back_off();
                Err(e)
            }
        }
    }

    /// Waits a little for the next frame. The event that goes with it: the camera is lost, or found.
    pub(super) fn poll(&mut self, config: &config::Camera, open: &mut OpenCamera<'_, S>) -> (Polled, Option<Event>) {
        let asked = Instant::now();
        if self.source.is_none() && asked >= self.retry_at {
            // A failure is kept in `self.reason`.
            let _ = self.open(config, open, asked);
        }
        let Some(source) = &mut self.source else {
            std::thread::sleep(SLICE.min(self.retry_at.saturating_duration_since(asked)));
            return (Polled::Nothing, self.lost(config));
        };
        match source.next(asked + SLICE) {
            Ok(Some(frame)) => {
                let found = self.found();
                (Polled::Frame(frame), found)
            }
            Ok(None) => (Polled::End, None),
            Err(e @ camera::Error::Dropped { .. }) => {
                // Not `fail`, which logs every reason: each picture has a name of its own.
                self.failing_since.get_or_insert(asked);
                self.failing = true;
                self.reason = e.to_string();
                (Polled::Dropped(self.reason.clone()), self.lost(config))
            }
            Err(e @ camera::Error::Timeout { .. }) => {
                let waited = self.failing_since.get_or_insert(asked).elapsed();
                if waited >= config.lost_after / 2 {
                    self.fail(asked, e.to_string());
                }
                if self.opened_at.elapsed().min(waited) >= config.lost_after {
                    self.back_off();
                }
                (Polled::Nothing, self.lost(config))
            }
            Err(e) => {
                self.fail(asked, e.to_string());
                self.back_off();
                (Polled::Nothing, self.lost(config))
            }
        }
    }

    /// The event that the camera is lost, once it has been long enough.
    fn lost(&mut self, config: &config::Camera) -> Option<Event> {
        if self.announced || self.failing_since.is_none_or(|since| since.elapsed() < config.lost_after) {
            return None;
        }
        self.announced = true;
        let duration_s = self.last_frame.map(|at| seconds(at.elapsed()));
        let message = Some(self.reason.clone());
        Some(Event { duration_s, message, ..Event::new(Kind::CameraLost) })
    }

    /// A frame came: the event that the camera is found, if it was lost.
    fn found(&mut self) -> Option<Event> {
        let found = std::mem::take(&mut self.announced).then(|| {
            let duration_s = self.last_frame.map(|at| seconds(at.elapsed()));
            Event { duration_s, ..Event::new(Kind::CameraFound) }
        });
        self.last_frame = Some(Instant::now());
        self.failing_since = None;
        self.failing = false;
        self.retry = FIRST_RETRY;
        self.reason.clear();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a frame at every third call.
    struct Slow(u64);

    impl FrameSource for Slow {
        fn next(&mut self, _: Instant) -> Result<Option<Frame>, camera::Error> {
            self.0 += 1;
            match self.0 % 3 {
                0 => {
                    let picture = ::image::RgbImage::new(1, 1);
                    Ok(Some(Frame { picture, jpeg: None, sequence: self.0, source: "slow".into() }))
                }
                _ => Err(camera::Error::Timeout { origin: "slow".into(), reason: String::new() }),
            }
        }

        fn describe(&self) -> String {
            "slow".into()
        }
    }

    #[test]
    fn the_next_frame_of_a_slow_source_is_waited_for() {
        // Half of it passes on no machine.
        let mut config = config::Camera { lost_after: Duration::from_secs(86_400), ..config::Camera::default() };
        let mut open: OpenCamera<'_, Slow> = Box::new(|_| Ok(Slow(0)));
        let mut camera = Connection::new(Instant::now());
        let mut poll = |camera: &mut Connection<Slow>, config: &config::Camera| {
            let (polled, event) = camera.poll(config, &mut open);
            (matches!(polled, Polled::Frame(_)), camera.is_up(), camera.is_waiting(), event.map(|event| event.event))
        };
        for _ in 0..3 {
            assert_eq!(poll(&mut camera, &config), (false, true, true, None));
            assert_eq!(poll(&mut camera, &config), (false, true, true, None));
            assert_eq!(poll(&mut camera, &config), (true, true, false, None));
        }
        config.lost_after = Duration::ZERO;
        assert_eq!(poll(&mut camera, &config), (false, false, true, Some(Kind::CameraLost)));
    }
}
