//! Reads the history, while it is written too.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::page::{Body, Frame, LARGEST, MARK, Page, Wrong, mark};
use crate::fs;
use crate::watch::events::rotated;
use crate::watch::surprisal::Surprisal;

/// Files of a history: `door.history` is the youngest, `door.history.7` the oldest.
pub const SEGMENTS: u32 = 8;

/// A history that is rotated while it is opened is opened again so often.
const TRIES: u32 = 5;

/// What the history tells, in the order in which it was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Entry {
    /// A frame, and the threshold that it was judged by.
    Frame { frame: Frame, threshold: Surprisal },
    /// What was raised from one time to another, in hundredths of a second, was normal.
    TakenBack { from: i64, to: i64 },
}

/// Reads the frames of one model, a page at a time.
#[derive(Debug)]
pub struct Reader {
    files: VecDeque<File>,
    pages: Option<Pages>,
    model: Option<u32>,
    entries: VecDeque<Entry>,
    next: Option<u32>,
    skipped: u64,
}

impl Reader {
    /// Reads what there is of the model with that hash, or of the latest.
    ///
    /// # Errors
    /// There is no history, or it cannot be opened.
    pub fn open(path: &Path, model: Option<u64>) -> io::Result<Reader> {
        let model = match model {
            Some(model) => Some(mark(model)),
            None => newest(path)?.map(|page| page.model),
        };
        let files: VecDeque<File> = segments(path)?.into();
        if files.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "there is no history"));
        }
        Ok(Reader { files, pages: None, model, entries: VecDeque::new(), next: None, skipped: 0 })
    }

    /// Frames that were written, or should have been, and could not be read; those at the end, after which nothing
    /// comes, are not known.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn page(&mut self) -> Option<Page> {
        loop {
            if self.pages.is_none() {
                self.pages = Some(Pages::new(self.files.pop_front()?));
            }
            match self.pages.as_mut().and_then(Pages::next) {
                Some(page) => return Some(page),
                None => self.pages = None,
            }
        }
    }
}

impl Iterator for Reader {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.entries.pop_front() {
                return Some(entry);
            }
            let page = self.page()?;
            if self.model != Some(page.model) {
                self.next = None;
                continue;
            }
            let missing = self.next.map_or(0, |next| page.number.wrapping_sub(next));
            // A number that goes back is that of a history that began anew.
            if missing < u32::MAX / 2 {
                self.skipped += u64::from(missing);
            }
            self.next = Some(page.number.wrapping_add(page.count()));
            let threshold = page.threshold;
            match page.body {
                Body::Frames(frames) => {
                    self.entries.extend(frames.into_iter().map(|frame| Entry::Frame { frame, threshold }));
                }
                Body::TakenBack { from, to } => self.entries.push_back(Entry::TakenBack { from, to }),
            }
        }
    }
}

/// The segments, oldest first, as they stood between two rotations.
fn segments(path: &Path) -> io::Result<Vec<File>> {
    let identity = || std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let mut tries = 0;
    loop {
        let before = identity();
        let mut files = Vec::new();
        for number in (0..SEGMENTS).rev() {
            match fs::open(&rotated(path, number)) {
                Ok(file) => files.push(file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        tries += 1;
        if identity() == before || tries == TRIES {
            return Ok(files);
        }
    }
}

/// The latest page that can be read.
pub(super) fn newest(path: &Path) -> io::Result<Option<Page>> {
    Ok(segments(path)?.into_iter().rev().find_map(|file| Pages::new(file).last()))
}

/// The whole pages of a file; what lies between them is passed over.
#[derive(Debug)]
struct Pages {
    file: File,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are done with.
    done: usize,
    ended: bool,
}

impl Pages {
    fn new(file: File) -> Self {
        Pages { file, buffer: Vec::with_capacity(2 * LARGEST), done: 0, ended: false }
    }

    /// Has a page's worth of bytes in the buffer where the file has them. A file that cannot be read on ends here.
    fn fill(&mut self) {
        if self.ended || self.buffer.len() - self.done >= LARGEST {
            return;
        }
        self.buffer.drain(..self.done);
        self.done = 0;
        let room = 2 * LARGEST - self.buffer.len();
        match (&mut self.file).take(room as u64).read_to_end(&mut self.buffer) {
            Ok(read) => self.ended = read < room,
            Err(e) => {
                log::warn!("the history cannot be read on: {e}");
                self.ended = true;
            }
        }
    }
}

impl Iterator for Pages {
    type Item = Page;

    fn next(&mut self) -> Option<Page> {
        loop {
            self.fill();
            let rest = &self.buffer[self.done..];
            if rest.is_empty() {
                return None;
            }
            match Page::decode(rest) {
                Ok((page, length)) => {
                    self.done += length;
                    return Some(page);
                }
                Err(Wrong::Short | Wrong::Damaged) => {
                    let next = rest[1..].windows(MARK.len()).position(|window| window == MARK);
                    // A mark may begin in the last bytes of the buffer.
                    let without = if self.ended { rest.len() } else { (rest.len() - MARK.len() + 1).max(1) };
                    self.done += next.map_or(without, |at| at + 1);
                }
            }
        }
    }
}
