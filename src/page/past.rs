//! What a daemon's frames scored in the last hour and day, from its history.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::watch::history::{Entry, Merged, hundredths};
use crate::watch::surprisal::Surprisal;

/// Parts of a time that is drawn.
pub const PARTS: usize = 240;
/// A history is read again after so long.
const FRESH: Duration = Duration::from_secs(10);
/// Hundredths of a second.
const HOUR: i64 = 360_000;
const DAY: i64 = 24 * HOUR;
/// Surprisals are counted in classes of so many steps.
const CLASS: u16 = 32;

/// What is drawn of a part of the time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Part {
    pub frames: u32,
    /// The greatest surprisal, and the least of the thresholds' at that time.
    pub highest: Surprisal,
    pub threshold: Surprisal,
    pub raised: bool,
}

/// Parts from one time to another, in hundredths of a second since 1970.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub from: i64,
    pub to: i64,
    pub parts: Vec<Part>,
}

impl Span {
    fn new(from: i64, to: i64) -> Self {
        Span { from, to, parts: vec![Part::default(); PARTS] }
    }

    fn push(&mut self, time: i64, surprisal: Surprisal, threshold: Surprisal, raised: bool) {
        if !(self.from..self.to).contains(&time) {
            return;
        }
        let way = (time - self.from) as f64 / (self.to - self.from) as f64;
        let part = &mut self.parts[((way * PARTS as f64) as usize).min(PARTS - 1)];
        part.threshold = if part.frames == 0 { threshold } else { part.threshold.min(threshold) };
        part.highest = part.highest.max(surprisal);
        part.frames += 1;
        part.raised |= raised;
    }
}

#[derive(Debug, Clone)]
pub struct Past {
    pub hour: Span,
    pub day: Span,
    /// Frames of the day.
    pub frames: u64,
    /// Of them, by classes of surprisal.
    classes: Vec<u32>,
    read: Instant,
}

impl Past {
    /// # Errors
    /// There is no history, or it cannot be read.
    pub fn read(paths: &[PathBuf], now: SystemTime) -> io::Result<Past> {
        let (read, now) = (Instant::now(), hundredths(now));
        let mut past = Past {
            hour: Span::new(now - HOUR, now),
            day: Span::new(now - DAY, now),
            frames: 0,
            classes: vec![0; usize::from(u16::MAX / CLASS) + 1],
            read,
        };
        for entry in Merged::open(paths)? {
            let Entry::Frame { frame, threshold } = entry else { continue };
            past.hour.push(frame.time, frame.surprisal, threshold, frame.raised);
            past.day.push(frame.time, frame.surprisal, threshold, frame.raised);
            if (past.day.from..past.day.to).contains(&frame.time) {
                past.frames += 1;
                past.classes[usize::from(frame.surprisal.0 / CLASS)] += 1;
            }
        }
        Ok(past)
    }

    /// Share of the day's frames that were less unusual; None without frames.
    pub fn rank(&self, p: f64) -> Option<f64> {
        let below = usize::from(Surprisal::of_p(p).0 / CLASS);
        let less: u64 = self.classes[..below].iter().map(|count| u64::from(*count)).sum();
        (self.frames > 0).then(|| less as f64 / self.frames as f64)
    }
}

/// The latest of each daemon, by its histories.
#[derive(Debug, Default)]
pub struct Pasts(HashMap<Vec<PathBuf>, Arc<Past>>);

impl Pasts {
    /// The past of a daemon with these histories, some seconds old at most.
    ///
    /// # Errors
    /// As [`Past::read`].
    pub fn of(&mut self, paths: &[PathBuf]) -> io::Result<Arc<Past>> {
        if let Some(past) = self.0.get(paths).filter(|past| past.read.elapsed() < FRESH) {
            return Ok(Arc::clone(past));
        }
        let past = Arc::new(Past::read(paths, SystemTime::now())?);
        self.0.insert(paths.to_vec(), Arc::clone(&past));
        Ok(past)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::history::{Writer, time_of};

    #[test]
    fn the_lowest_p_of_each_part_is_kept_and_ranked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h");
        assert_eq!(
            Past::read(std::slice::from_ref(&path), SystemTime::now()).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let now = 170_000_000_000;
        let mut writer = Writer::open(&path, 1 << 20, 1).unwrap();
        for (ago, p, raised) in
            [(2 * DAY, 0.5, false), (DAY / 2, 0.25, false), (HOUR / 2, 0.5, false), (HOUR / 2 - 1, 0.001, true)]
        {
            writer.push(time_of(now - ago), 1.0, p, raised, 0.01).unwrap();
        }
        writer.flush().unwrap();
        let past = Past::read(std::slice::from_ref(&path), time_of(now)).unwrap();
        let drawn = |span: &Span| span.parts.iter().filter(|part| part.frames > 0).copied().collect::<Vec<_>>();
        assert_eq!(past.frames, 3);
        assert_eq!(drawn(&past.hour).len(), 1);
        let low = drawn(&past.hour)[0];
        assert_eq!((low.frames, low.highest, low.raised), (2, Surprisal::of_p(0.001), true));
        assert_eq!(low.threshold, Surprisal::of_p(0.01));
        assert_eq!(drawn(&past.day).len(), 2);
        assert_eq!(past.rank(0.5), Some(0.0));
        assert_eq!(past.rank(0.0001), Some(1.0));
        assert!((past.rank(0.2).unwrap() - 2.0 / 3.0).abs() < 1e-9);
    }
}
