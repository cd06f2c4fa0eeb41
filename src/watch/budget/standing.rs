//! The budget as people see it.

use std::time::Duration;

use super::Budget;
use super::blocks::BLOCK;

/// What the budget knows, and what was spent of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Events raised in the last of its periods that were not taken back.
    pub spent: u64,
    /// Watched time since the model was new, as far back as the history goes.
    pub watched: Duration,
    /// What is still to be watched until the budget holds; None: it does.
    pub settling: Option<Duration>,
}

impl Budget {
    pub fn standing(&self, period: Duration) -> Standing {
        let blocks = i64::try_from(period.as_millis() / 10).unwrap_or(i64::MAX) / BLOCK;
        let first = self.current.number.saturating_sub(blocks);
        let recent = self.blocks.iter().chain([&self.current]).filter(|block| block.number > first);
        Standing {
            spent: recent.map(|block| u64::from(block.alarms)).sum(),
            watched: Duration::from_millis(10 * self.watched.unsigned_abs()),
            settling: self.settling(),
        }
    }
}
