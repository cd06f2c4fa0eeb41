//! The histories of all models of a config as one.

use std::io;
use std::path::PathBuf;

use super::reader::{Entry, Reader};

/// Reads several histories, the oldest entry first.
#[derive(Debug)]
pub struct Merged(Vec<(Option<Entry>, Reader)>);

impl Merged {
    /// Reads what there is, of the latest model in each.
    ///
    /// # Errors
    /// There is no history at any of the paths, or one cannot be opened.
    pub fn open(paths: &[PathBuf]) -> io::Result<Merged> {
        let mut readers = Vec::with_capacity(paths.len());
        for path in paths {
            match Reader::open(path, None) {
                Ok(mut reader) => readers.push((reader.next(), reader)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
            }
        }
        match readers.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "there is no history")),
            false => Ok(Merged(readers)),
        }
    }

    /// The threshold of the latest frame since that time, in hundredths of a second since 1970, as p; None: there is none.
    pub fn latest_threshold(self, since: i64) -> Option<f64> {
        let thresholds = self.filter_map(|entry| match entry {
            Entry::Frame { frame, threshold } if frame.time >= since => Some(threshold.p()),
            _ => None,
        });
        thresholds.last()
    }

    /// As [`Reader::skipped`], of all.
    pub fn skipped(&self) -> u64 {
        self.0.iter().map(|(_, reader)| reader.skipped()).sum()
    }
}

impl Iterator for Merged {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let time = |entry: &Entry| match entry {
            Entry::Frame { frame, .. } => frame.time,
            Entry::TakenBack { from, .. } => *from,
        };
        let ready = self.0.iter_mut().filter(|(next, _)| next.is_some());
        let (next, reader) = ready.min_by_key(|(next, _)| next.as_ref().map(time))?;
        std::mem::replace(next, reader.next())
    }
}
