//! The latest frames in memory, bounded in time and bytes. Whoever holds one of them counts towards the bytes, so that what
//! waits for a slow disk is within the bound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A frame in memory.
#[derive(Debug)]
pub struct Kept {
    /// When it came.
    pub at: Instant,
    pub jpeg: Box<[u8]>,
    alive: Arc<AtomicUsize>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.jpeg.len(), Ordering::Relaxed);
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ring {
    frames: VecDeque<Arc<Kept>>,
    /// Bytes of all frames that are held by anyone.
    alive: Arc<AtomicUsize>,
}

impl Ring {
    /// Takes a frame. Older ones are let go beyond `time`, and where all would have more than `max` bytes. None: the frame
    /// alone has, or what others still hold leaves no room.
    pub fn push(&mut self, jpeg: Box<[u8]>, at: Instant, time: Duration, max: u64) -> Option<Arc<Kept>> {
        while self.frames.front().is_some_and(|oldest| at.duration_since(oldest.at) > time) {
            self.frames.pop_front();
        }
        let len = jpeg.len();
        if len as u64 > max {
            return None;
        }
        while (self.alive.load(Ordering::Relaxed) + len) as u64 > max {
            self.frames.pop_front()?;
        }
        self.alive.fetch_add(len, Ordering::Relaxed);
        let kept = Arc::new(Kept { at, jpeg, alive: Arc::clone(&self.alive) });
        self.frames.push_back(Arc::clone(&kept));
        Some(kept)
    }

    /// All frames, oldest first.
    pub fn frames(&self) -> Vec<Arc<Kept>> {
        self.frames.iter().map(Arc::clone).collect()
    }

    pub fn clear(&mut self) {
        self.frames.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bytes(len: usize) -> Box<[u8]> {
        vec![7; len].into()
    }

    #[test]
    fn time_is_a_limit() {
        let (mut ring, start) = (Ring::default(), Instant::now());
        for second in 0..10 {
            ring.push(bytes(10), start + SECOND * second, SECOND * 3, 1000).unwrap();
        }
        let times: Vec<_> = ring.frames().iter().map(|kept| kept.at.duration_since(start).as_secs()).collect();
        assert_eq!(times, [6, 7, 8, 9]);
        ring.push(bytes(10), start + SECOND * 100, SECOND * 3, 1000).unwrap();
        assert_eq!(ring.frames().len(), 1);
        ring.clear();
        assert_eq!((ring.frames().len(), ring.alive.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn bytes_are_a_limit_wherever_frames_are_held() {
        let (mut ring, start) = (Ring::default(), Instant::now());
        let alive = Arc::clone(&ring.alive);
        let push = |ring: &mut Ring, len| ring.push(bytes(len), start, SECOND, 100).is_some();
        for _ in 0..10 {
            assert!(push(&mut ring, 30));
        }
        assert_eq!((ring.frames().len(), alive.load(Ordering::Relaxed)), (3, 90));
        // A slow disk holds two of them.
        let held: Vec<_> = ring.frames().drain(..2).collect();
        assert!(push(&mut ring, 40));
        assert_eq!((ring.frames().len(), alive.load(Ordering::Relaxed)), (1, 100));
        assert!(!push(&mut ring, 60), "what is held leaves no room");
        drop(held);
        assert!(push(&mut ring, 100));
        assert!(!push(&mut ring, 101), "larger than all");
        assert_eq!((ring.frames().len(), alive.load(Ordering::Relaxed)), (1, 100));
    }
}
