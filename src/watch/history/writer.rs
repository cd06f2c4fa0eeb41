//! Appends to the history.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::page::{Body, FRAMES, Frame, LARGEST, Page, hundredths, mark};
use super::reader::{SEGMENTS, newest};
use crate::watch::events::{rotated, shift};
use crate::watch::surprisal::Surprisal;

/// Hundredths of a second that frames are gathered for.
const GATHER: u64 = 1500;

/// The history of one daemon and one model, open to be appended to.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    /// Of one segment.
    max: u64,
    model: u32,
    file: Option<File>,
    /// The frames to come, and their threshold.
    frames: Vec<Frame>,
    threshold: Surprisal,
    /// Of the next frame that is gathered.
    number: u32,
}

impl Writer {
    /// Goes on with the history at `path`, of `max` bytes at most; begins it anew where the latest frames in it are of
    /// another model. `model` is a hash of what tells the model from others.
    ///
    /// # Errors
    /// The history cannot be read, or that of another model not be removed. A file that is not there is made.
    pub fn open(path: &Path, max: u64, model: u64) -> io::Result<Writer> {
        let model = mark(model);
        let mut number = 0;
        match newest(path)? {
            Some(page) if page.model == model => number = page.number.wrapping_add(page.count()),
            Some(_) => clear(path)?,
            None => {}
        }
        let max = (max / u64::from(SEGMENTS)).max(2 * LARGEST as u64);
        let threshold = Surprisal::default();
        // What cannot be opened yet is tried again with the first frames.
        let file = open(path).ok();
        Ok(Writer { path: path.to_owned(), max, model, file, frames: Vec::new(), threshold, number })
    }

    /// Takes one judged frame, and the threshold that it was judged by. Frames are written every fifteen seconds, and
    /// where the threshold changes; true: this was such a moment.
    ///
    /// # Errors
    /// The frames gathered so far could not be written. They are lost, and this one waits.
    pub fn push(&mut self, time: SystemTime, score: f64, p: f64, raised: bool, threshold: f64) -> io::Result<bool> {
        let threshold = Surprisal::of_p(threshold);
        let frame = Frame { time: hundredths(time), score: score as f32, surprisal: Surprisal::of_p(p), raised };
        let written = match self.frames.first() {
            Some(first)
                if self.threshold != threshold
                    || self.frames.len() == FRAMES
                    || first.time.abs_diff(frame.time) >= GATHER =>
            {
                self.flush().map(|()| true)
            }
            _ => Ok(false),
        };
        self.threshold = threshold;
        self.frames.push(frame);
        written
    }

    /// Notes that what was raised from one time to another was normal.
    ///
    /// # Errors
    /// It could not be written.
    pub fn take_back(&mut self, from: SystemTime, to: SystemTime) -> io::Result<()> {
        let gathered = self.flush();
        self.write(Body::TakenBack { from: hundredths(from), to: hundredths(to) })?;
        gathered
    }

    /// Writes what was gathered.
    ///
    /// # Errors
    /// It could not be written, and is lost.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.frames.is_empty() {
            return Ok(());
        }
        let frames = std::mem::take(&mut self.frames);
        self.write(Body::Frames(frames))
    }

    fn write(&mut self, body: Body) -> io::Result<()> {
        let page = Page { number: self.number, model: self.model, threshold: self.threshold, body };
        // Frames that are lost are counted too, so that a reader knows of them.
        self.number = self.number.wrapping_add(page.count());
        let mut bytes = Vec::with_capacity(256);
        page.encode(&mut bytes);
        let written = self.append(&bytes);
        if written.is_err() {
            self.file = None;
        }
        written
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.current()?;
        if file.metadata()?.len() + bytes.len() as u64 > self.max {
            shift(&self.path, SEGMENTS - 1)?;
            file = open(&self.path)?;
        }
        file.write_all(bytes)?;
        self.file = Some(file);
        Ok(())
    }

    /// The file that the path names.
    fn current(&mut self) -> io::Result<File> {
        if let Some(file) = self.file.take()
            && let (Ok(ours), Ok(theirs)) = (file.metadata(), std::fs::metadata(&self.path))
            && (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
        {
            return Ok(file);
        }
        open(&self.path)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(e) = self.flush() {
            log::warn!("the last frames were not written to the history {}: {e}", self.path.display());
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a plain file")),
    }
}

/// Removes all segments.
fn clear(path: &Path) -> io::Result<()> {
    for number in 0..SEGMENTS {
        match std::fs::remove_file(rotated(path, number)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
