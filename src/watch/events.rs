//! Events, and the JSON-lines log that keeps them: one line, one write, rotated by size.
//!
//! A log that ends in half a line (power cut, full disk) is appended to on a line of its own, and read without
//! complaint.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::fs;

/// How many rotated logs are kept: `events.jsonl.1` is the youngest.
pub const ROTATED: u32 = 5;
/// Lines that wait in memory while the log cannot be written; then the oldest are given up.
pub const MAX_PENDING: usize = 1000;
/// How much of one file is read.
pub const MAX_READ: u64 = 32 << 20;
/// Longer lines are not events.
const MAX_LINE: usize = 64 * 1024;
/// Another writer of the same log is waited for so often, and so long each time; then the line waits.
const LOCK_TRIES: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(1);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Start,
    Raise,
    Clear,
    CameraLost,
    CameraFound,
    /// Normal frames score lower than at calibration.
    Drift,
    DriftClear,
    Error,
    Stop,
}

impl Kind {
    pub const ALL: [Kind; 9] = [
        Kind::Start,
        Kind::Raise,
        Kind::Clear,
        Kind::CameraLost,
        Kind::CameraFound,
        Kind::Drift,
        Kind::DriftClear,
        Kind::Error,
        Kind::Stop,
    ];

    /// The name in the log and in `OUTLIERD_EVENT`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Start => "start",
            Kind::Raise => "raise",
            Kind::Clear => "clear",
            Kind::CameraLost => "camera-lost",
            Kind::CameraFound => "camera-found",
            Kind::Drift => "drift",
            Kind::DriftClear => "drift-clear",
            Kind::Error => "error",
            Kind::Stop => "stop",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            format!("{name:?} is no kind of event: {} are", known.join(", "))
        })
    }
}

/// One line of the log. What does not apply to a kind is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    #[serde(serialize_with = "serialize_time", deserialize_with = "deserialize_time")]
    pub time: SystemTime,
    pub event: Kind,
    /// The same for a raise and its clear, or a drift and its end; unique across restarts.
    #[serde(default)]
    pub id: Option<String>,
    /// Of the frame; drift, drift-clear: mean over the window.
    #[serde(default)]
    pub p: Option<f64>,
    /// As p.
    #[serde(default)]
    pub score: Option<f64>,
    #[serde(default)]
    pub threshold: Option<f64>,
    /// Raise, clear: outlier frames of the event so far. Drift, drift-clear: frames of the window. Stop: frames judged
    /// in all.
    #[serde(default)]
    pub frames: Option<u64>,
    /// Raise, clear: since the event's first outlier frame. Camera-lost, camera-found: since the last frame.
    /// Drift-clear: since the drift was told. Stop: since the start.
    #[serde(default)]
    pub duration_s: Option<f64>,
    /// The picture that raised the event.
    #[serde(default)]
    pub snapshot: Option<PathBuf>,
    /// The same picture with a map of where it departs from what the model knows.
    #[serde(default)]
    pub heat: Option<PathBuf>,
    /// What departs most in it: left, top, width, height as shares of the picture; left out where no map was made, and
    /// from the log's line of a raise whose map is made after it: the clear has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<[f64; 4]>,
    #[serde(default)]
    pub model: Option<String>,
    /// Which daemon: the name of its config file without the extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What went wrong or has changed, for people; left out where nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Event {
    /// An event of now, its other fields null.
    pub fn new(event: Kind) -> Self {
        Event {
            time: SystemTime::now(),
            event,
            id: None,
            p: None,
            score: None,
            threshold: None,
            frames: None,
            duration_s: None,
            snapshot: None,
            heat: None,
            region: None,
            model: None,
            instance: None,
            message: None,
        }
    }

    /// The JSON object, without a line end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|e| format!("{{\"event\":\"error\",\"message\":\"{e}\"}}"))
    }
}

fn serialize_time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_time(*time))
}

fn deserialize_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_rfc3339(&text).map_err(de::Error::custom)
}

/// Seconds, to the millisecond, as events give them.
pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// RFC 3339 in UTC with milliseconds; a clock before 1970 or after 9999 is held at these ends.
pub fn format_time(time: SystemTime) -> String {
    const LAST_SECOND_OF_9999: u64 = 253_402_300_799;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let held = since.min(std::time::Duration::from_secs(LAST_SECOND_OF_9999));
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + held).to_string()
}

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
        for number in (0..ROTATED).rev() {
            match std::fs::rename(rotated(&self.path, number), rotated(&self.path, number + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
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

/// The name of a rotated log; number 0 is the log itself.
pub(crate) fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Text without control characters: what a file's name or a program put into it must not write lines of its own, nor
/// steer a terminal.
pub fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

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
    #[cfg(any(test, feature = "internals"))]
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
    use super::*;

    fn event(kind: Kind, frames: u64) -> Event {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_764_000_000_123);
        Event { time, frames: Some(frames), ..Event::new(kind) }
    }

    fn frames(path: &Path) -> Vec<u64> {
        read(path).unwrap().iter().filter_map(|e| e.frames).collect()
    }

    #[test]
    fn a_line_has_every_field() {
        let mut raise = event(Kind::Raise, 3);
        raise.id = Some("i".into());
        raise.p = Some(0.25);
        raise.snapshot = Some("/s/i.jpg".into());
        let expected = concat!(
            r#"{"time":"2025-11-24T16:00:00.123Z","event":"raise","id":"i","p":0.25,"score":null,"#,
            r#""threshold":null,"frames":3,"duration_s":null,"snapshot":"/s/i.jpg","heat":null,"model":null}"#
        );
        assert_eq!(raise.to_json(), expected);
        assert_eq!(serde_json::from_str::<Event>(expected).unwrap(), raise);
        raise.event = Kind::CameraLost;
        raise.message = Some("gone".into());
        assert!(raise.to_json().contains(r#""event":"camera-lost""#));
        assert!(raise.to_json().ends_with(r#""message":"gone"}"#));
        for kind in Kind::ALL {
            assert!(event(kind, 0).to_json().contains(&format!("\"event\":\"{}\"", kind.name())));
        }
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
            assert!(read(&path).unwrap().len() <= 1);
            let mut log = Log::open(&path, 1 << 20).unwrap();
            log.append(&event(Kind::Clear, 2)).unwrap();
            log.append(&event(Kind::Stop, 3)).unwrap();
            let found = frames(&path);
            assert!(found.ends_with(&[2, 3]), "cut at {cut}: {found:?}");
            assert_eq!(found.len(), if cut == whole.len() - 1 { 3 } else { 2 }, "cut at {cut}");
        }
    }

    #[test]
    fn garbage_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        let mut bytes = b"\xff\xfe\0\n{}\n[1]\n\n".to_vec();
        bytes.extend(event(Kind::Stop, 7).to_json().bytes());
        bytes.push(b'\n');
        bytes.extend(std::iter::repeat_n(b'x', 3 * MAX_LINE));
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(frames(&path), [7]);
        let mut reader = Reader::new(File::open(&path).unwrap());
        reader.read_new(true, &mut Vec::new()).unwrap();
        assert_eq!(reader.skipped(), 4);
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

    #[test]
    fn a_reader_waits_for_the_end_of_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        let line = event(Kind::Raise, 1).to_json();
        std::fs::write(&path, &line[..10]).unwrap();
        let mut reader = Reader::new(File::open(&path).unwrap());
        let mut events = Vec::new();
        reader.read_new(false, &mut events).unwrap();
        assert!(events.is_empty());
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        writeln!(file, "{}", &line[10..]).unwrap();
        reader.read_new(false, &mut events).unwrap();
        assert_eq!((events.len(), reader.skipped()), (1, 0));
    }

    #[test]
    fn times_outside_of_four_digit_years_are_held() {
        let far = std::time::Duration::from_secs(300_000_000_000);
        assert_eq!(format_time(SystemTime::UNIX_EPOCH + far), "9999-12-31T23:59:59.000Z");
        assert_eq!(format_time(SystemTime::UNIX_EPOCH - far / 100), "1970-01-01T00:00:00.000Z");
    }
}
