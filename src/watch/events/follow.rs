//! Reads an event log while it grows, through rotation, truncation and deletion.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::event::Event;
use super::log::{ROTATED, rotated};
use super::reader::Reader;
use crate::fs;

/// A log that is followed from its oldest rotated file; one that does not exist yet is waited for.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    reader: Option<Reader>,
    /// Files that were read to their end. They are held open, so that none of their inode numbers is given to a new
    /// file, which would then look as if it had been read.
    done: Vec<File>,
}

impl Follow {
    pub fn new(path: &Path) -> Self {
        Follow { path: path.to_owned(), reader: None, done: Vec::new() }
    }

    /// The events written since the last call; the first call gives those of the current file and of the rotated
    /// ones, oldest first.
    pub fn poll(&mut self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        if let Some(reader) = &mut self.reader {
            let cut = reader.file().metadata()?.len() < reader.position();
            let named = identity_at(&self.path)? == Some(identity(reader.file())?);
            if named && !cut {
                reader.read_new(false, &mut events)?;
                return Ok(events);
            }
            if named {
                let cut = fs::open(&self.path)?;
                self.read_copy(&mut events)?;
                let mut reader = Reader::new(cut);
                reader.read_new(false, &mut events)?;
                self.reader = Some(reader);
                return Ok(events);
            }
        }
        let new = self.unread()?;
        // Until another file is in the log's place, the one that was moved or deleted may still get a line.
        let replaced = !new.is_empty();
        if let Some(reader) = &mut self.reader {
            reader.read_new(replaced, &mut events)?;
        }
        for file in new {
            if let Some(before) = self.reader.replace(Reader::new(file)) {
                self.done.push(before.into_file());
            }
            if let Some(reader) = &mut self.reader {
                reader.read_new(false, &mut events)?;
            }
        }
        let kept = self.done.len().saturating_sub(ROTATED as usize + 1);
        self.done.drain(..kept);
        Ok(events)
    }

    /// The log was cut. Who rotates by `copytruncate` has copied it before, to where rotated logs are: of the copy, what
    /// was not read yet is read, and it is known from now on.
    fn read_copy(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let mut unread = self.unread()?;
        let (Some(copy), Some(reader)) = (unread.pop(), &mut self.reader) else { return Ok(()) };
        if copy.metadata()?.len() >= reader.position() {
            Reader::go_on(copy.try_clone()?, reader)?.read_new(true, events)?;
        }
        self.done.extend(unread);
        self.done.push(copy);
        Ok(())
    }

    /// The log and its rotated predecessors that were not read yet, oldest first. They are opened newest first: a
    /// rotation meanwhile then shows a file twice, and never hides one.
    fn unread(&self) -> io::Result<Vec<File>> {
        let mut known = Vec::new();
        for file in self.done.iter().chain(self.reader.as_ref().map(Reader::file)) {
            known.push(identity(file)?);
        }
        let mut unread = Vec::new();
        for number in 0..=ROTATED {
            let file = match fs::open(&rotated(&self.path, number)) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let identity = identity(&file)?;
            if !known.contains(&identity) {
                known.push(identity);
                unread.push(file);
            }
        }
        unread.reverse();
        Ok(unread)
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// None: there is no file of this name.
fn identity_at(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Kind;
    use super::super::log::Log;
    use super::*;

    fn event(frames: u64) -> Event {
        Event { frames: Some(frames), ..Event::new(Kind::Error) }
    }

    fn frames(follow: &mut Follow) -> Vec<u64> {
        follow.poll().unwrap().iter().filter_map(|event| event.frames).collect()
    }

    /// A log that holds two lines before it is rotated.
    fn small_log(path: &Path) -> Log {
        Log::open(path, 2 * (event(10).to_json().len() as u64 + 1)).unwrap()
    }

    #[test]
    fn rotation_truncation_and_deletion_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        let mut follow = Follow::new(&path);
        assert!(frames(&mut follow).is_empty());
        let mut log = small_log(&path);
        let mut seen = Vec::new();
        for number in 10..20 {
            log.append(&event(number)).unwrap();
            seen.extend(frames(&mut follow));
        }
        assert_eq!(seen, (10..20).collect::<Vec<_>>());
        std::fs::write(&path, "").unwrap();
        assert!(frames(&mut follow).is_empty());
        log.append(&event(20)).unwrap();
        assert_eq!(frames(&mut follow), [20]);
        std::fs::remove_file(&path).unwrap();
        assert!(frames(&mut follow).is_empty());
        log.append(&event(21)).unwrap();
        assert_eq!(frames(&mut follow), [21]);
        assert!(frames(&mut follow).is_empty());
    }

    #[test]
    fn several_rotations_between_two_looks_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        let mut log = small_log(&path);
        for number in 10..15 {
            log.append(&event(number)).unwrap();
        }
        let mut follow = Follow::new(&path);
        assert_eq!(frames(&mut follow), (10..15).collect::<Vec<_>>());
        for number in 15..23 {
            log.append(&event(number)).unwrap();
        }
        assert_eq!(frames(&mut follow), (15..23).collect::<Vec<_>>());
        for number in 23..60 {
            log.append(&event(number)).unwrap();
        }
        let seen = frames(&mut follow);
        let (open, kept) = seen.split_at(1);
        assert_eq!((open, kept.len() >= 2 * ROTATED as usize), ([23].as_slice(), true), "{seen:?}");
        assert_eq!(kept, (60 - kept.len() as u64..60).collect::<Vec<_>>());
    }

    #[test]
    fn a_log_in_the_middle_of_a_rotation_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        let mut log = small_log(&path);
        log.append(&event(10)).unwrap();
        let mut follow = Follow::new(&path);
        assert_eq!(frames(&mut follow), [10]);
        log.append(&event(11)).unwrap();
        std::fs::rename(&path, rotated(&path, 1)).unwrap();
        assert_eq!(frames(&mut follow), [11]);
        assert!(frames(&mut follow).is_empty());
        log.append(&event(12)).unwrap();
        assert_eq!(frames(&mut follow), [12]);
        std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        log.append(&event(13)).unwrap();
        assert_eq!(frames(&mut follow), [13]);
    }

    #[test]
    fn a_copy_of_a_log_that_is_cut_repeats_nothing_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        let mut log = Log::open(&path, 1 << 20).unwrap();
        let mut follow = Follow::new(&path);
        let mut seen = Vec::new();
        let mut number = 10;
        for round in 0..4 {
            for read in [true, false, true] {
                log.append(&event(number)).unwrap();
                number += 1;
                // In some rounds a line comes between the last look and the copy.
                if read && (round % 2 == 0 || number % 3 != 1) {
                    seen.extend(frames(&mut follow));
                }
            }
            (1..=3).rev().for_each(|n| {
                let _ = std::fs::rename(rotated(&path, n), rotated(&path, n + 1));
            });
            std::fs::copy(&path, rotated(&path, 1)).unwrap();
            std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
            seen.extend(frames(&mut follow));
        }
        // A rotation by renames shows the copies under other names.
        (1..=4).rev().for_each(|n| std::fs::rename(rotated(&path, n), rotated(&path, n + 1)).unwrap());
        std::fs::rename(&path, rotated(&path, 1)).unwrap();
        log.append(&event(number)).unwrap();
        seen.extend(frames(&mut follow));
        seen.extend(frames(&mut follow));
        assert_eq!(seen, (10..=number).collect::<Vec<_>>());
    }

    #[test]
    fn files_deleted_and_made_anew_are_new_whatever_their_inode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        let mut follow = Follow::new(&path);
        for number in 10..40 {
            let mut log = small_log(&path);
            log.append(&event(number)).unwrap();
            assert_eq!(frames(&mut follow), [number]);
            std::fs::remove_file(&path).unwrap();
        }
    }
}
