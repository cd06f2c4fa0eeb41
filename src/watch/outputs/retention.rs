//! Which snapshots are kept: those of the newest events, up to a number and a size, and of the one that stands.
//!
//! An event's files are `outlier-ID.jpg` and, where there is a heat map, `outlier-ID-heat.jpg`; they go together.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::fs::{PARTIAL, remove};

pub const PREFIX: &str = "outlier-";
pub const SUFFIX: &str = ".jpg";
pub const HEAT: &str = "-heat";
/// The newest snapshot's link.
pub const LAST: &str = "last.jpg";

/// Limits of a folder, and the order of its events.
#[derive(Debug)]
pub struct Retention {
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
    /// At most `keep` events and `max_bytes` in all.
    pub fn new(keep: usize, max_bytes: u64) -> Self {
        Retention { keep: keep.max(1), max_bytes, standing: None, places: HashMap::new(), next_place: 0 }
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

    /// Removes what is beyond the limits, and more until `room` bytes of pictures are gone, the oldest first; and what a
    /// killed run left half written. `newest` and the event that stands keep theirs. A file that cannot be removed does
    /// not save others. The order is that of the log; events that are not in it are older, by the times of their files.
    /// Pictures of a time to come, which a clock that was wrong has left, count as the oldest of these.
    pub fn remove_oldest(&mut self, folder: &Path, newest: Option<&str>, room: u64) -> io::Result<()> {
        let mut events: BTreeMap<String, Kept> = BTreeMap::new();
        let mut failure = Ok(());
        let now = SystemTime::now();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            // Links and folders are others', whatever their name; what is gone by now needs no removal.
            let Ok(metadata) = entry.metadata() else { continue };
            if !metadata.is_file() {
                continue;
            }
            let partial = name.strip_prefix('.').filter(|rest| rest.ends_with(PARTIAL));
            if partial.is_some_and(|rest| rest.starts_with(PREFIX) || rest.starts_with(LAST)) {
                failure = failure.and(remove(&entry.path()));
                continue;
            }
            let Some(id) = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)) else { continue };
            let id = id.strip_suffix(HEAT).unwrap_or(id);
            let modified = Some(metadata.modified()?).filter(|at| *at <= now).unwrap_or(SystemTime::UNIX_EPOCH);
            let kept = events.entry(id.to_owned()).or_insert(Kept { modified, bytes: 0, paths: Vec::new() });
            kept.modified = kept.modified.max(modified);
            kept.bytes += metadata.len();
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
            let removed = kept.paths.iter().map(|path| remove(path)).fold(Ok(()), Result::and);
            if removed.is_ok() {
                count -= 1;
                bytes -= kept.bytes;
            }
            failure = failure.and(removed);
        }
        failure
    }
}
