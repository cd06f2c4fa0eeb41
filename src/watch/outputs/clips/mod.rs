//! Clips: the frames before and after a raise. The latest frames are held in memory; a raise gives them to a thread, which
//! writes them and those that follow into the folder `clip-ID` beside the snapshots.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::time::{Duration, Instant};

use super::output::{Failure, Output};
use super::retention::remove_partial_clips;
use crate::camera::Frame;
use crate::config::{self, Config};
use crate::image::jpeg;
use crate::watch::frame::status::Status;

mod avi;
mod ring;
mod writer;

use ring::Ring;
use writer::{Begin, Failed, Job};

/// Of frames that did not come as JPEGs. There are many of them, and they are looked at one by one only rarely.
const QUALITY: u8 = 80;
/// Jobs that wait for the disk.
const QUEUE: usize = 256;
/// How long the clip under way may take to end when the daemon stops.
const GRACE: Duration = Duration::from_secs(5);
const STACK: usize = 256 << 10;

/// The frames in memory, and the thread that writes clips.
#[derive(Debug)]
pub struct Clips {
    /// None: no frame is kept.
    config: Option<config::Clips>,
    /// Of the snapshots.
    folder: PathBuf,
    ring: Ring,
    /// No frame is kept before.
    due: Option<Instant>,
    /// The event that the next frame raised.
    raised: Option<String>,
    /// Until then frames belong to the clip under way.
    until: Option<Instant>,
    /// The newest clip that could not be written.
    failed: Option<PathBuf>,
    /// The latest frame was too large.
    too_large: bool,
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    jobs: SyncSender<Job>,
    failures: Receiver<Failed>,
}

impl Thread {
    fn start() -> io::Result<Self> {
        let ((jobs, queue), (report, failures)) = (sync_channel(QUEUE), channel());
        let builder = std::thread::Builder::new().name("clips".into()).stack_size(STACK);
        builder.spawn(move || writer::run(&queue, &report))?;
        Ok(Thread { jobs, failures })
    }
}

impl Clips {
    /// # Errors
    /// The thread cannot be started.
    pub fn start(config: &Config) -> io::Result<Self> {
        let mut clips = Clips {
            config: None,
            folder: PathBuf::new(),
            ring: Ring::default(),
            due: None,
            raised: None,
            until: None,
            failed: None,
            too_large: false,
            thread: None,
        };
        clips.take(config)?;
        Ok(clips)
    }

    /// The frames in memory may be of another camera than the one to come.
    fn take(&mut self, config: &Config) -> io::Result<()> {
        if config.clips.is_some() && self.thread.is_none() {
            self.thread = Some(Thread::start()?);
        }
        self.config.clone_from(&config.clips);
        self.folder.clone_from(&config.events.snapshots);
        self.ring.clear();
        Ok(())
    }

    /// Removes what a killed run left half written, and takes note of events in the order of the log.
    pub fn take_over(&mut self, ids: Vec<String>) -> io::Result<()> {
        // Its error is told with the first clip, which cannot be written either.
        let _ = self.send(Job::Remember(ids));
        match remove_partial_clips(&self.folder) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
            removed => removed,
        }
    }

    /// Where the clip of an event will be; None: there is none.
    pub fn path(&self, id: &str) -> Option<PathBuf> {
        self.config.as_ref().map(|_| writer::path(&self.folder, id))
    }

    /// The frame that comes next raised an event: its clip begins with those before.
    pub fn raise(&mut self, id: &str) {
        self.raised = Some(id.to_owned());
    }

    /// Whether the clip with that path could not be written.
    pub fn has_failed(&self, path: &Path) -> bool {
        self.failed.as_deref() == Some(path)
    }

    /// Takes a frame that came at a time, once all that it changed is told. Returns what went wrong.
    pub fn keep(&mut self, frame: Frame, at: Instant) -> Option<String> {
        let config = self.config.clone()?;
        let raised = self.raised.take();
        if raised.is_none() && self.due.is_some_and(|due| at < due) {
            return None;
        }
        let period = Duration::from_secs_f64(1.0 / config.max_rate);
        self.due = Some(self.due.map_or(at + period, |due| (due + period).max(at)));
        let jpeg = frame.jpeg.map_or_else(|| jpeg::encode(&frame.picture, QUALITY).map(Vec::into_boxed_slice), Ok);
        let jpeg = match (jpeg, &raised) {
            (Ok(jpeg), _) => jpeg,
            (Err(e), None) => return Some(format!("cannot keep a frame of {}: {e}", frame.source)),
            (Err(e), Some(id)) => {
                return Some(self.fail(Failed { path: writer::path(&self.folder, id), reason: e.to_string() }));
            }
        };
        let len = jpeg.len() as u64;
        let kept = self.ring.push(jpeg, at, config.before, config.max_memory);
        let told = std::mem::replace(&mut self.too_large, len > config.max_memory);
        let failure = (self.too_large && !told).then(|| {
            let max = config.max_memory;
            format!("a frame of {len} bytes is larger than clips.max-memory, {max}: frames like it are in no clip")
        });
        let Some(id) = raised else {
            self.follow(kept.map(Job::Frame), at);
            return failure;
        };
        let until = at + config.after;
        self.until = Some(until);
        let begin = Begin {
            id: id.clone(),
            folder: self.folder.clone(),
            raised: at,
            until,
            frames: self.ring.frames(),
            keep: config.keep,
            max_bytes: config.max_bytes,
        };
        match self.send(Job::Begin(begin)) {
            Ok(()) => failure,
            Err(reason) => Some(self.fail(Failed { path: writer::path(&self.folder, &id), reason })),
        }
    }

    /// Gives a frame to the clip under way, or ends it.
    fn follow(&mut self, frame: Option<Job>, at: Instant) {
        let Some(until) = self.until else { return };
        let over = at > until;
        if let Some(job) = if over { Some(Job::End) } else { frame }
            && let Err(reason) = self.send(job)
        {
            log::debug!("a frame is left out of a clip: {reason}");
        }
        if over {
            self.until = None;
        }
    }

    fn send(&self, job: Job) -> Result<(), String> {
        let Some(thread) = &self.thread else { return Ok(()) };
        thread.jobs.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => "the disk is too slow, all that waits for it is as much as may".into(),
            TrySendError::Disconnected(_) => "the thread that writes clips has ended".into(),
        })
    }

    /// Ends the clip under way. A thread that a disk holds up for longer is left: the next start removes its half a clip.
    fn end(&mut self, grace: Duration) -> Vec<String> {
        let Some(Thread { jobs, failures }) = self.thread.take() else { return Vec::new() };
        drop(jobs);
        let deadline = Instant::now() + grace;
        let mut told = Vec::new();
        loop {
            match failures.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(failed) => told.push(self.fail(failed)),
                Err(RecvTimeoutError::Disconnected) => return told,
                Err(RecvTimeoutError::Timeout) => {
                    log::warn!("a clip is not written to its end: the disk is too slow");
                    return told;
                }
            }
        }
    }

    fn fail(&mut self, Failed { path, reason }: Failed) -> String {
        let message = format!("cannot write the clip {}: {reason}", path.display());
        self.failed = Some(path);
        message
    }
}

impl Output for Clips {
    fn reconfigure(&mut self, config: &Config) -> Result<Vec<Failure>, String> {
        self.take(config).map(|()| Vec::new()).map_err(|e| format!("cannot start the thread that writes clips: {e}"))
    }

    fn attend(&mut self, _: &Status) -> Vec<Failure> {
        let Some(thread) = &self.thread else { return Vec::new() };
        let failed: Vec<Failed> = thread.failures.try_iter().collect();
        failed.into_iter().map(|failed| Failure::Announced(self.fail(failed))).collect()
    }

    fn finish(&mut self, _: &Status) -> Vec<Failure> {
        self.end(GRACE).into_iter().map(Failure::Announced).collect()
    }
}

#[cfg(test)]
mod tests;
