//! The budget as people see it.

use std::time::Duration;

/// What the budget knows, and what was spent of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetStatus {
    /// Events raised in the last of its periods that were not taken back.
    pub spent: u64,
    /// Watched time since the model was new, as far back as the history goes.
    pub watched: Duration,
    /// What is still to be watched until the budget holds; None: it does.
    pub settling: Option<Duration>,
}
