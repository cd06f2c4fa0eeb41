//! Writes clips, on a thread of its own: into a hidden folder, which gets its name once all of it is there.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::avi::Avi;
use super::ring::Kept;
use crate::fs::{self, PARTIAL};
use crate::image::jpeg;
use crate::watch::outputs::retention::{BLOCKS, CLIP, Retention, is_full};
use crate::watch::service::remedy;

/// The file for players, beside the frames.
pub const MOVIE: &str = "clip.avi";
/// The page that shows the frames in a browser.
pub const PAGE: &str = "index.html";
/// A clip that is not ended ends so long after its time: no frame came.
const PATIENCE: Duration = Duration::from_secs(10);
/// An AVI file's lengths are of 32 bits.
const MAX_MOVIE: u64 = 1 << 30;

/// What the thread is told.
#[derive(Debug)]
pub enum Job {
    /// Ids of events in the order of the log.
    Remember(Vec<String>),
    /// The clip before has ended.
    Begin(Begin),
    Frame(Arc<Kept>),
    End,
}

/// A clip and its first frames, up to the one that raised the event.
#[derive(Debug)]
pub struct Begin {
    pub id: String,
    /// Of the snapshots.
    pub folder: PathBuf,
    pub raised: Instant,
    /// When the last frame may come.
    pub until: Instant,
    pub frames: Vec<Arc<Kept>>,
    /// Limits of all clips.
    pub keep: usize,
    pub max_bytes: u64,
}

/// A clip that could not be written, and why.
#[derive(Debug)]
pub struct Failed {
    pub path: PathBuf,
    pub reason: String,
}

/// Where the clip of an event is, once it is whole.
pub fn path(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{CLIP}{id}"))
}

/// Takes jobs until their sender is gone, then ends the clip under way.
pub fn run(jobs: &Receiver<Job>, failures: &Sender<Failed>) {
    let mut writer = Writer { retention: Retention::clips(1, 0), clip: None, failures };
    loop {
        let job = match &writer.clip {
            None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(clip) => jobs.recv_timeout((clip.until + PATIENCE).saturating_duration_since(Instant::now())),
        };
        match job {
            Ok(Job::Remember(ids)) => writer.retention.remember(ids),
            Ok(Job::Begin(begin)) => writer.begin(begin),
            Ok(Job::Frame(frame)) => writer.add(&frame),
            Ok(Job::End) | Err(RecvTimeoutError::Timeout) => writer.end(),
            Err(RecvTimeoutError::Disconnected) => return writer.end(),
        }
    }
}

struct Writer<'a> {
    retention: Retention,
    clip: Option<Clip>,
    failures: &'a Sender<Failed>,
}

impl Writer<'_> {
    fn begin(&mut self, begin: Begin) {
        self.end();
        self.retention.remember([begin.id.clone()]);
        self.retention.set_limits(begin.keep, begin.max_bytes);
        let begun = Clip::begin(&begin).or_else(|e| match is_full(&e) {
            true => {
                let _ = self.retention.remove_oldest(&begin.folder, Some(&begin.id), 2 * BLOCKS);
                Clip::begin(&begin)
            }
            false => Err(e),
        });
        match begun {
            Ok(clip) => self.clip = Some(clip),
            Err(e) => return self.fail(path(&begin.folder, &begin.id), &e),
        }
        begin.frames.iter().for_each(|frame| self.add(frame));
    }

    fn add(&mut self, frame: &Kept) {
        let Some(mut clip) = self.clip.take() else { return };
        match jpeg::complete(&frame.jpeg) {
            // It was decoded when it came.
            Err(e) => log::warn!("a frame of the clip {} is left out: {e}", clip.id),
            Ok((size, jpeg)) => {
                let room = 2 * (jpeg.len() as u64 + BLOCKS);
                let at = frame.at;
                if let Err(e) = self.with_room(&mut clip, room, |clip| clip.add(&jpeg, size, at)) {
                    return self.give_up(clip, &e);
                }
            }
        }
        self.clip = Some(clip);
    }

    fn end(&mut self) {
        let Some(mut clip) = self.clip.take() else { return };
        if clip.frames.is_empty() {
            let reason = "none of its frames could be kept: clips.max-memory is too small for them";
            return self.give_up(clip, &io::Error::other(reason));
        }
        if let Err(e) = self.with_room(&mut clip, BLOCKS, Clip::end) {
            return self.give_up(clip, &e);
        }
        if let Err(e) = self.retention.remove_oldest(&clip.folder, Some(&clip.id), 0) {
            // The clip is there.
            log::warn!("cannot remove old clips: {e}");
        }
    }

    /// Where there is no space, the oldest clips make room.
    fn with_room(&mut self, clip: &mut Clip, room: u64, step: impl Fn(&mut Clip) -> io::Result<()>) -> io::Result<()> {
        match step(clip) {
            Err(e) if is_full(&e) => {
                // What cannot be removed makes no room: the second try says so.
                let _ = self.retention.remove_oldest(&clip.folder, Some(&clip.id), room);
                step(clip)
            }
            done => done,
        }
    }

    fn give_up(&self, clip: Clip, error: &io::Error) {
        // The next start removes what is left.
        let _ = std::fs::remove_dir_all(&clip.partial);
        self.fail(path(&clip.folder, &clip.id), error);
    }

    fn fail(&self, path: PathBuf, error: &io::Error) {
        // Nobody listens any more at the end of a daemon that waits no longer.
        let _ = self.failures.send(Failed { path, reason: format!("{error}{}", remedy(error)) });
    }
}

/// A clip under way.
struct Clip {
    id: String,
    folder: PathBuf,
    partial: PathBuf,
    movie: Avi<File>,
    raised: Instant,
    until: Instant,
    /// When each frame came.
    frames: Vec<Instant>,
    bytes: u64,
    max_bytes: u64,
}

impl Clip {
    fn begin(begin: &Begin) -> io::Result<Self> {
        let partial = begin.folder.join(format!(".{CLIP}{}{PARTIAL}", begin.id));
        std::fs::create_dir(&partial)?;
        let movie = create(&partial.join(MOVIE)).inspect_err(|_| drop(std::fs::remove_dir(&partial)))?;
        Ok(Clip {
            id: begin.id.clone(),
            folder: begin.folder.clone(),
            partial,
            movie: Avi::new(movie),
            raised: begin.raised,
            until: begin.until,
            frames: Vec::new(),
            bytes: 0,
            max_bytes: begin.max_bytes.min(MAX_MOVIE),
        })
    }

    /// Frames beyond what all clips may have are left out.
    fn add(&mut self, jpeg: &[u8], size: [u32; 2], at: Instant) -> io::Result<()> {
        let bytes = self.bytes + 2 * jpeg.len() as u64;
        if bytes > self.max_bytes {
            log::debug!("a frame of the clip {} is left out: clips.max-bytes is reached", self.id);
            return Ok(());
        }
        write(&self.partial.join(name(self.frames.len())), jpeg)?;
        self.movie.push(jpeg, size)?;
        self.frames.push(at);
        self.bytes = bytes;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        let duration = match &self.frames[..] {
            [first, .., last] => last.duration_since(*first),
            _ => Duration::ZERO,
        };
        self.movie.finish(duration)?.sync_all()?;
        write(&self.partial.join(PAGE), self.page().as_bytes())?;
        fs::sync_folder(&self.partial.join(PAGE))?;
        let path = path(&self.folder, &self.id);
        std::fs::rename(&self.partial, &path)?;
        fs::sync_folder(&path)
    }

    /// Shows the frames beside it, one after the other at their times.
    fn page(&self) -> String {
        let milliseconds = |at: &Instant| match at.checked_duration_since(self.raised) {
            Some(after) => after.as_millis() as i64,
            None => -(self.raised.duration_since(*at).as_millis() as i64),
        };
        let times: Vec<String> = self.frames.iter().map(|at| milliseconds(at).to_string()).collect();
        include_str!("page.html").replace("{{id}}", &self.id).replace("{{times}}", &times.join(","))
    }
}

/// Of a frame's file; see `page.html`.
fn name(frame: usize) -> String {
    format!("{:05}.jpg", frame + 1)
}

fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).open(path)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
