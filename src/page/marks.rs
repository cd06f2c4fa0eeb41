//! Events that were taken back through the page: until the daemon is reloaded they can be put back.

use std::collections::HashMap;
use std::time::Instant;

/// Marks that are remembered of a daemon.
const MOST: usize = 200;

#[derive(Debug, Clone)]
pub struct Mark {
    pub id: String,
    pub at: Instant,
    /// What came of it.
    pub outcome: String,
}

/// By daemon, the newest first.
#[derive(Debug, Default)]
pub struct Marks(HashMap<String, Vec<Mark>>);

impl Marks {
    /// Those that the daemon has not taken over, which read its model so many seconds ago; None: it does not run.
    pub fn since(&mut self, instance: &str, loaded_s: Option<f64>) -> Vec<Mark> {
        let Some(marks) = self.0.get_mut(instance) else { return Vec::new() };
        if let Some(loaded_s) = loaded_s {
            marks.retain(|mark| mark.at.elapsed().as_secs_f64() < loaded_s);
        }
        marks.clone()
    }

    pub fn add(&mut self, instance: &str, mark: Mark) {
        let marks = self.0.entry(instance.to_owned()).or_default();
        marks.retain(|known| known.id != mark.id);
        marks.truncate(MOST - 1);
        marks.insert(0, mark);
    }

    pub fn remove(&mut self, instance: &str, id: &str) {
        if let Some(marks) = self.0.get_mut(instance) {
            marks.retain(|mark| mark.id != id);
        }
    }
}
