//! Long work that tells how far it is and can be stopped.

use std::sync::atomic::{AtomicBool, Ordering};

use super::error::Error;

/// Who is told of progress, and who may stop it.
pub struct Watch<'a> {
    pub stop: &'a AtomicBool,
    /// A pass begins: what it does and how many steps it has.
    pub begin: &'a (dyn Fn(&'static str, usize) + Sync),
    /// A step is done.
    pub done: &'a (dyn Fn() + Sync),
}

impl Watch<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    pub(super) fn done(&self) {
        (self.done)();
    }
}
