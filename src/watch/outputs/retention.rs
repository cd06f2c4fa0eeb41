//! Which snapshots and clips are kept: those of the newest events, up to a number and a size, and of the one that stands.
//!
//! An event's files are `outlier-ID.jpg` and, where there is a heat map, `outlier-ID-heat.jpg`; they go together. Its clip is
//! the folder `clip-ID`. Both kinds lie in the same folder, each with limits of its own.

use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::fs::{PARTIAL, remove};

pub const PREFIX: &str = "outlier-";
pub const SUFFIX: &str = ".jpg";
pub const HEAT: &str = "-heat";
/// The newest snapshot's link.
pub const LAST: &str = "last.jpg";
pub const CLIP: &str = "clip-";
/// What a file may take beyond its bytes: the rest of a block, and its entry in the folder.
pub const BLOCKS: u64 = 8192;

/// Whether a write failed for lack of space, which the oldest can make.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What is kept of an event. Links, and what is of another type, are others', whatever their name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pictures,
    Clips,
}

impl Kind {
    fn is(self, metadata: &Metadata) -> bool {
        match self {
            Kind::Pictures => metadata.is_file(),
            Kind::Clips => metadata.is_dir(),
        }
    }

    /// The event that something belongs to by its name.
    fn id(self, name: &str) -> Option<&str> {
        match self {
            Kind::Pictures => {
                let id = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
                Some(id.strip_suffix(HEAT).unwrap_or(id))
            }
            Kind::Clips => name.strip_prefix(CLIP),
        }
    }

    /// Whether something of that name is not written to its end.
    fn is_partial(self, name: &str) -> bool {
        let begins: &[&str] = match self {
            Kind::Pictures => &[PREFIX, LAST],
            Kind::Clips => &[CLIP],
        };
        let rest = name.strip_prefix('.').filter(|rest| rest.ends_with(PARTIAL));
        rest.is_some_and(|rest| begins.iter().any(|begin| rest.starts_with(begin)))
    }

    /// What cannot be read counts for nothing.
    fn bytes(self, path: &Path, metadata: &Metadata) -> u64 {
        match self {
            Kind::Pictures => metadata.len(),
            Kind::Clips => {
                let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
                entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
            }
        }
    }

    fn remove(self, path: &Path) -> io::Result<()> {
        match self {
            Kind::Pictures => remove(path),
            Kind::Clips => std::fs::remove_dir_all(path),
        }
    }
}

/// Limits of a folder, and the order of its events.
#[derive(Debug)]
pub struct Retention {
    kind: Kind,
    keep: usize,
    max_bytes: u64,
    standing: Option<String>,
    /// Place in the event log of the events that have pictures; the clock that gave files their times may have been
    /// wrong.
    places: HashMap<String, u64>,
    next_place: u64,
}

/// The files of one event.
#[derive(Debug)]
struct Kept {
    modified: SystemTime,
    bytes: u64,
    paths: Vec<PathBuf>,
}

impl Retention {
    /// Of pictures: at most those of `keep` events and `max_bytes` in all.
    pub fn pictures(keep: usize, max_bytes: u64) -> Self {
        Retention::new(Kind::Pictures, keep, max_bytes)
    }

    /// Of clips: at most `keep` and `max_bytes` in all.
    pub fn clips(keep: usize, max_bytes: u64) -> Self {
        Retention::new(Kind::Clips, keep, max_bytes)
    }

    fn new(kind: Kind, keep: usize, max_bytes: u64) -> Self {
        Retention { kind, keep: keep.max(1), max_bytes, standing: None, places: HashMap::new(), next_place: 0 }
    }

    pub fn set_limits(&mut self, keep: usize, max_bytes: u64) {
        (self.keep, self.max_bytes) = (keep.max(1), max_bytes);
    }

    /// Takes note of events in the order of the log.
    pub fn remember(&mut self, ids: impl IntoIterator<Item = String>) {
        for id in ids {
            self.places.insert(id, self.next_place);
            self.next_place += 1;
        }
    }

    /// The event that stands: its pictures are not removed. None: no event does.
    pub fn set_standing(&mut self, id: Option<&str>) {
        self.standing = id.map(str::to_owned);
    }

    /// Removes what is beyond the limits, and more until `room` bytes are gone, the oldest first; and pictures that a killed
    /// run left half written. `newest` and the event that stands keep theirs. A file that cannot be removed does
    /// not save others. The order is that of the log; events that are not in it are older, by the times of their files.
    /// Those of a time to come, which a clock that was wrong has left, count as the oldest of these.
    pub fn remove_oldest(&mut self, folder: &Path, newest: Option<&str>, room: u64) -> io::Result<()> {
        let mut events: BTreeMap<String, Kept> = BTreeMap::new();
        let mut failure = Ok(());
        let now = SystemTime::now();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            // What is gone by now needs no removal.
            let Ok(metadata) = entry.metadata() else { continue };
            if !self.kind.is(&metadata) {
                continue;
            }
            if self.kind == Kind::Pictures && self.kind.is_partial(name) {
                failure = failure.and(remove(&entry.path()));
                continue;
            }
            let Some(id) = self.kind.id(name) else { continue };
            let modified = Some(metadata.modified()?).filter(|at| *at <= now).unwrap_or(SystemTime::UNIX_EPOCH);
            let kept = events.entry(id.to_owned()).or_insert(Kept { modified, bytes: 0, paths: Vec::new() });
            kept.modified = kept.modified.max(modified);
            kept.bytes += self.kind.bytes(&entry.path(), &metadata);
            kept.paths.push(entry.path());
        }
        self.places.retain(|id, _| events.contains_key(id) || Some(id.as_str()) == newest);
        let (mut count, mut bytes) = (events.len(), events.values().map(|kept| kept.bytes).sum::<u64>());
        let max_bytes = if room > 0 { self.max_bytes.min(bytes.saturating_sub(room)) } else { self.max_bytes };
        let mut ordered: Vec<(String, Kept)> = events.into_iter().collect();
        ordered.sort_by(|(a_id, a), (b_id, b)| {
            (self.places.get(a_id), a.modified, a_id).cmp(&(self.places.get(b_id), b.modified, b_id))
        });
        let newest = newest.or(ordered.last().map(|(id, _)| id.as_str())).map(str::to_owned);
        ordered.retain(|(id, _)| newest.as_ref() != Some(id) && self.standing.as_ref() != Some(id));
        for (_, kept) in ordered {
            if count <= self.keep && bytes <= max_bytes {
                break;
            }
            let removed = kept.paths.iter().map(|path| self.kind.remove(path)).fold(Ok(()), Result::and);
            if removed.is_ok() {
                count -= 1;
                bytes -= kept.bytes;
            }
            failure = failure.and(removed);
        }
        failure
    }
}

/// Removes the clips that a killed run left half written. None may be under way.
pub fn remove_partial_clips(folder: &Path) -> io::Result<()> {
    let mut failure = Ok(());
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let partial = entry.file_name().to_str().is_some_and(|name| Kind::Clips.is_partial(name));
        if partial && entry.file_type()?.is_dir() {
            failure = failure.and(std::fs::remove_dir_all(entry.path()));
        }
    }
    failure
}
