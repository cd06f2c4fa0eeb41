//! Work in parts of nearly equal size.

use std::ops::Range;

/// `0..len` in `parts` parts that differ by at most one.
#[derive(Clone, Copy)]
pub(super) struct Partition {
    pub len: usize,
    pub parts: usize,
}

impl Partition {
    pub fn part(&self, part: usize) -> Range<usize> {
        let at = |part: usize| part * (self.len / self.parts) + part.min(self.len % self.parts);
        at(part)..at(part + 1)
    }
}
