//! Reads an event log while it grows, through rotation, truncation and deletion.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::events::{Event, Reader};

/// A log that is followed from its beginning; one that does not exist yet is waited for.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    reader: Option<Reader>,
}

impl Follow {
    pub fn new(path: &Path) -> Self {
        Follow { path: path.to_owned(), reader: None }
    }

    /// The events written since the last call; the first call gives those of the current file.
    pub fn poll(&mut self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        if let Some(reader) = &mut self.reader {
            let replaced = replaced(reader, &self.path)?;
            reader.read_new(replaced, &mut events)?;
            if !replaced {
                return Ok(events);
            }
            self.reader = None;
        }
        match File::open(&self.path) {
            Ok(file) => self.reader.insert(Reader::new(file)).read_new(false, &mut events)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        Ok(events)
    }
}

/// True when nothing more will come from the open file: its name is another file's or gone, or it was cut.
fn replaced(reader: &Reader, path: &Path) -> io::Result<bool> {
    let ours = reader.file().metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((ours.dev(), ours.ino()) != (named.dev(), named.ino()) || ours.len() < reader.position()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::super::events::{Kind, Log};
    use super::*;

    fn event(frames: u64) -> Event {
        Event { frames: Some(frames), ..Event::new(Kind::Error) }
    }

    fn frames(follow: &mut Follow) -> Vec<u64> {
        follow.poll().unwrap().iter().filter_map(|event| event.frames).collect()
    }

    #[test]
    fn rotation_truncation_and_deletion_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        let mut follow = Follow::new(&path);
        assert!(frames(&mut follow).is_empty());
        let line = event(10).to_json().len() as u64 + 1;
        let mut log = Log::open(&path, 2 * line).unwrap();
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
}
