//! The event log: JSON lines, one line, one write, rotated by size.
//!
//! A log that ends in half a line (power cut, full disk) is appended to on a line of its own.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::event::{Event, Kind};
use crate::fs;

/// How many rotated logs are kept: `events.jsonl.1` is the youngest.
pub const ROTATED: u32 = 5;
/// Lines that wait in memory while the log cannot be written; then the oldest are given up.
pub const MAX_PENDING: usize = 1000;
/// Another writer of the same log is waited for so often, and so long each time; then the line waits.
const LOCK_TRIES: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(1);

/// The writer of the log.
///
/// Lines that cannot be written wait in memory and are tried again at the next [`Log::append`] or
/// [`Log::retry`], in order. A log that cannot be rotated grows beyond its size.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    max_size: u64,
    open: Option<Open>,
    pending: VecDeque<(Vec<u8>, bool)>,
    lost: u64,
    /// The log could not be rotated: it is tried again at this size. 0: it could.
    rotate_above: u64,
    unrotated: Option<io::Error>,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
    /// The file does not end in a line end: the next line brings one.
    torn: bool,
}

impl Log {
    /// Opens or makes the log, and its folder.
    pub fn open(path: &Path, max_size: u64) -> io::Result<Self> {
        let mut log = Self::closed(path, max_size);
        log.open = Some(Open::at(path)?);
        Ok(log)
    }

    /// A log that is opened at the first line.
    pub fn closed(path: &Path, max_size: u64) -> Self {
        Log {
            path: path.to_owned(),
            max_size,
            open: None,
            pending: VecDeque::new(),
            lost: 0,
            rotate_above: 0,
            unrotated: None,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn set_max_size(&mut self, max_size: u64) {
        self.max_size = max_size;
    }

    /// Lines that wait for the log to become writable.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Lines given up because more than [`MAX_PENDING`] waited, since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Why the log cannot be rotated; once, until it could be.
    pub fn take_unrotated(&mut self) -> Option<io::Error> {
        self.unrotated.take()
    }

    /// Writes an event; a raise, a clear and a drift are on the disk when this returns.
    ///
    /// # Errors
    /// The line then waits; it is not lost.
    pub fn append(&mut self, event: &Event) -> io::Result<()> {
        let mut line = event.to_json().into_bytes();
        line.push(b'\n');
        if self.pending.len() == MAX_PENDING {
            self.pending.pop_front();
            self.lost += 1;
        }
        self.pending.push_back((line, matches!(event.event, Kind::Raise | Kind::Clear | Kind::Drift)));
        self.retry()
    }

    /// Writes what waits.
    pub fn retry(&mut self) -> io::Result<()> {
        while let Some((line, durable)) = self.pending.pop_front() {
            if let Err(e) = self.write(&line) {
                self.pending.push_front((line, durable));
                return Err(e);
            }
            if durable && let Some(open) = &self.open {
                open.file.sync_data()?;
            }
        }
        Ok(())
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let mut open = self.locked()?;
        let size = open.size + line.len() as u64;
        if size <= self.max_size {
            self.rotate_above = 0;
        } else if open.size > 0 && size > self.rotate_above {
            match open.file.sync_data().and_then(|()| self.rotate()) {
                Ok(()) => {
                    self.rotate_above = 0;
                    drop(open);
                    open = self.locked()?;
                }
                Err(e) => {
                    if self.rotate_above == 0 {
                        self.unrotated = Some(e);
                    }
                    self.rotate_above = size + self.max_size / 8;
                }
            }
        }
        let written = open.write(line);
        // What cannot be unlocked could not be locked.
        let _ = open.file.unlock();
        self.open = Some(open);
        written
    }

    /// The file that the path names, as it is now, and locked: another daemon with the same log must not rotate it
    /// meanwhile.
    fn locked(&mut self) -> io::Result<Open> {
        for _ in 0..LOCK_TRIES {
            let open = match self.open.take() {
                Some(open) => open,
                None => Open::at(&self.path)?,
            };
            match open.file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    self.open = Some(open);
                    std::thread::sleep(LOCK_WAIT);
                }
                // A file system without locks is written all the same.
                Ok(()) | Err(TryLockError::Error(_)) if open.is_current(&self.path) => return Ok(open),
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "another process holds it locked"))
    }

    fn rotate(&self) -> io::Result<()> {
        shift(&self.path, ROTATED)?;
        fs::sync_folder(&self.path)
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let new = !path.exists();
        if new && let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a plain file"));
        }
        if new {
            fs::sync_folder(path)?;
        }
        let size = file.seek(SeekFrom::End(0))?;
        let mut last = [b'\n'];
        if size > 0 {
            file.seek(SeekFrom::Start(size - 1))?;
            file.read_exact(&mut last)?;
        }
        Ok(Open { file, size, torn: last != [b'\n'] })
    }

    /// False when the path now names another file, or none, or the file has another size: someone rotated, deleted or
    /// cut the log, or wrote to it.
    fn is_current(&self, path: &Path) -> bool {
        match (self.file.metadata(), std::fs::metadata(path)) {
            (Ok(ours), Ok(theirs)) => {
                (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()) && ours.len() == self.size
            }
            _ => false,
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let mut joined = Vec::new();
        let bytes = if self.torn {
            joined.push(b'\n');
            joined.extend_from_slice(line);
            &joined
        } else {
            line
        };
        let written = loop {
            match self.file.write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.size += written as u64;
        if written < bytes.len() {
            self.torn = written > 0 || self.torn;
            return Err(io::Error::new(io::ErrorKind::WriteZero, "half a line was written: is the disk full?"));
        }
        self.torn = false;
        Ok(())
    }
}

/// Gives each file of a rotated series the next number, up to `oldest`, which is replaced.
pub(crate) fn shift(path: &Path, oldest: u32) -> io::Result<()> {
    for number in (0..oldest).rev() {
        match std::fs::rename(rotated(path, number), rotated(path, number + 1)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// The name of a rotated log; number 0 is the log itself.
pub(crate) fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, frames: u64) -> Event {
        Event { frames: Some(frames), ..Event::new(kind) }
    }

    /// Of the log and its rotated predecessors.
    fn frames(path: &Path) -> Vec<u64> {
        let text = |number| std::fs::read_to_string(rotated(path, number)).unwrap_or_default();
        let all = (0..=ROTATED).rev().map(text).collect::<String>();
        all.lines().filter_map(|line| serde_json::from_str::<Event>(line).ok()?.frames).collect()
    }

    #[test]
    fn half_a_line_is_appended_to_and_read_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/events.jsonl");
        let mut log = Log::open(&path, 1 << 20).unwrap();
        log.append(&event(Kind::Raise, 1)).unwrap();
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(frames(&path).len() <= 1);
            let mut log = Log::open(&path, 1 << 20).unwrap();
            log.append(&event(Kind::Clear, 2)).unwrap();
            log.append(&event(Kind::Stop, 3)).unwrap();
            let found = frames(&path);
            assert!(found.ends_with(&[2, 3]), "cut at {cut}: {found:?}");
            assert_eq!(found.len(), if cut == whole.len() - 1 { 3 } else { 2 }, "cut at {cut}");
        }
    }

    #[test]
    fn rotation_keeps_five_and_loses_nothing_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let line = event(Kind::Error, 10).to_json().len() as u64 + 1;
        let mut log = Log::open(&path, 3 * line).unwrap();
        for number in 10..28 {
            log.append(&event(Kind::Error, number)).unwrap();
        }
        assert_eq!(frames(&path), (10..28).collect::<Vec<_>>());
        assert!(std::fs::metadata(&path).unwrap().len() <= 3 * line);
        for number in 28..31 {
            log.append(&event(Kind::Error, number)).unwrap();
        }
        assert_eq!(frames(&path), (13..31).collect::<Vec<_>>());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 6);
    }

    #[test]
    fn a_log_that_cannot_be_rotated_grows_and_says_so_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let line = event(Kind::Error, 10).to_json().len() as u64 + 1;
        let mut log = Log::open(&path, 3 * line).unwrap();
        // No file takes the place of a folder: as final as a folder that may not be written, whoever runs the test.
        std::fs::write(rotated(&path, 4), "").unwrap();
        std::fs::create_dir(rotated(&path, 5)).unwrap();
        for number in 10..60 {
            log.append(&event(Kind::Error, number)).unwrap();
            assert_eq!(log.take_unrotated().is_some(), number == 13, "{number}");
        }
        let lines = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
        assert_eq!((lines(&path), log.pending()), (50, 0));
        std::fs::remove_dir(rotated(&path, 5)).unwrap();
        (60..64).for_each(|number| log.append(&event(Kind::Error, number)).unwrap());
        assert_eq!(frames(&path), (10..64).collect::<Vec<_>>());
        assert!(lines(&path) <= 3);
    }

    #[test]
    fn a_log_moved_or_deleted_by_others_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        let mut log = Log::open(&path, 1 << 20).unwrap();
        log.append(&event(Kind::Start, 1)).unwrap();
        std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        log.append(&event(Kind::Raise, 2)).unwrap();
        assert_eq!(frames(&path), [2]);
        std::fs::remove_file(&path).unwrap();
        log.append(&event(Kind::Clear, 3)).unwrap();
        assert_eq!(frames(&path), [3]);
    }

    #[test]
    fn events_wait_for_an_unwritable_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        std::fs::create_dir(&path).unwrap();
        let mut log = Log::closed(&path, 1 << 20);
        assert!(log.append(&event(Kind::Raise, 1)).is_err());
        assert!(log.append(&event(Kind::Clear, 2)).is_err());
        assert_eq!(log.pending(), 2);
        std::fs::remove_dir(&path).unwrap();
        log.retry().unwrap();
        assert_eq!((frames(&path), log.pending(), log.take_lost()), (vec![1, 2], 0, 0));
    }

    #[test]
    fn a_full_disk_is_an_error_and_the_line_waits() {
        let Ok(mut full) =
            OpenOptions::new().append(true).open("/dev/full").map(|file| Open { file, size: 0, torn: false })
        else {
            println!("SKIPPED a_full_disk_is_an_error_and_the_line_waits: no /dev/full");
            return;
        };
        assert_eq!(full.write(b"x\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(!full.torn && full.size == 0);
    }
}
