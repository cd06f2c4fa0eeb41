//! Reads an event log with its rotated predecessors. Lines that are no events are skipped, half a line at the end too.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use super::event::Event;
use super::log::{ROTATED, rotated};
use crate::fs;

/// How much of one file is read.
pub const MAX_READ: u64 = 32 << 20;
/// Longer lines are not events.
const MAX_LINE: usize = 64 * 1024;

/// The events of a log and its rotated predecessors, oldest first; other lines are skipped. A run that was killed while
/// it rotated leaves the predecessors alone.
pub fn read(path: &Path) -> io::Result<Vec<Event>> {
    let mut events = Vec::new();
    for_each(path, |event| events.push(event))?;
    Ok(events)
}

/// [`read`], one event at a time.
pub fn for_each(path: &Path, mut take: impl FnMut(Event)) -> io::Result<()> {
    let mut found = false;
    for number in (0..=ROTATED).rev() {
        match fs::open(&rotated(path, number)) {
            Ok(file) => {
                Reader::new(file).read_each(true, &mut take)?;
                found = true;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound && (number > 0 || found) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads whole lines of a log that grows.
#[derive(Debug)]
pub struct Reader {
    input: BufReader<File>,
    line: Vec<u8>,
    skipped: u64,
    position: u64,
}

impl Reader {
    /// A file that is larger than [`MAX_READ`] is read from so far before its end.
    pub fn new(mut file: File) -> Self {
        let before = file.metadata().map_or(0, |meta| meta.len().saturating_sub(MAX_READ));
        let position = if before > 0 { file.seek(SeekFrom::Start(before)).unwrap_or(0) } else { 0 };
        if position > 0 {
            log::warn!("the event log is large: what stands before its last {MAX_READ} bytes is not read");
        }
        Reader { input: BufReader::new(file), line: Vec::new(), skipped: 0, position }
    }

    /// Lines that were no events.
    #[cfg(test)]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The file that is read.
    pub fn file(&self) -> &File {
        self.input.get_ref()
    }

    pub fn into_file(self) -> File {
        self.input.into_inner()
    }

    /// Goes on at so many bytes from the file's start, in the line that `before` has read half of.
    pub fn go_on(mut file: File, before: &mut Reader) -> io::Result<Self> {
        let position = file.seek(SeekFrom::Start(before.position))?;
        Ok(Reader { input: BufReader::new(file), line: std::mem::take(&mut before.line), skipped: 0, position })
    }

    /// Pushes the events that came since the last call. A last line without its end is kept for the next call,
    /// unless the file is `complete`: nothing more will be written to it.
    pub fn read_new(&mut self, complete: bool, events: &mut Vec<Event>) -> io::Result<()> {
        self.read_each(complete, &mut |event| events.push(event))
    }

    fn read_each(&mut self, complete: bool, take: &mut impl FnMut(Event)) -> io::Result<()> {
        loop {
            let chunk = self.input.fill_buf()?;
            if chunk.is_empty() {
                if complete && !self.line.is_empty() {
                    self.take_line(take);
                }
                return Ok(());
            }
            let end = chunk.iter().position(|&b| b == b'\n');
            let taken = end.map_or(chunk.len(), |at| at + 1);
            let room = (MAX_LINE + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&chunk[..end.unwrap_or(taken).min(room)]);
            self.input.consume(taken);
            self.position += taken as u64;
            if end.is_some() {
                self.take_line(take);
            }
        }
    }

    fn take_line(&mut self, take: &mut impl FnMut(Event)) {
        match serde_json::from_slice(&self.line) {
            Ok(event) if self.line.len() <= MAX_LINE => take(event),
            _ if self.line.trim_ascii().is_empty() => {}
            _ => self.skipped += 1,
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::event::Kind;
    use super::*;

    #[test]
    fn garbage_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        let mut bytes = b"\xff\xfe\0\n{}\n[1]\n\n".to_vec();
        bytes.extend(Event { frames: Some(7), ..Event::new(Kind::Stop) }.to_json().bytes());
        bytes.push(b'\n');
        bytes.extend(std::iter::repeat_n(b'x', 3 * MAX_LINE));
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path).unwrap().iter().map(|event| event.frames).collect::<Vec<_>>(), [Some(7)]);
        let mut reader = Reader::new(File::open(&path).unwrap());
        reader.read_new(true, &mut Vec::new()).unwrap();
        assert_eq!(reader.skipped(), 4);
    }

    #[test]
    fn a_reader_waits_for_the_end_of_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        let line = Event::new(Kind::Raise).to_json();
        std::fs::write(&path, &line[..10]).unwrap();
        let mut reader = Reader::new(File::open(&path).unwrap());
        let mut events = Vec::new();
        reader.read_new(false, &mut events).unwrap();
        assert!(events.is_empty());
        let mut file = File::options().append(true).open(&path).unwrap();
        writeln!(file, "{}", &line[10..]).unwrap();
        reader.read_new(false, &mut events).unwrap();
        assert_eq!((events.len(), reader.skipped()), (1, 0));
    }
}
