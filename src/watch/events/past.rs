//! The event log at the start of the daemon: which event of the run before still stands, and the order of all raises.

use std::io;
use std::path::Path;

use super::event::{Event, Kind};
use super::reader::for_each;

/// What was read.
#[derive(Debug, Default)]
pub struct Past {
    /// Ids of all raises, oldest first.
    pub raises: Vec<String>,
    pub raise: Option<Open>,
    pub drift: Option<Open>,
}

/// An event without its end.
#[derive(Debug)]
pub struct Open {
    pub event: Event,
    /// The stop of its run is in the log.
    pub stopped: bool,
}

/// Reads the log at `path` with its rotated predecessors; `own` says whether a raise or a drift is one of this daemon.
///
/// # Errors
/// There is no log, or it cannot be read.
pub fn read(path: &Path, own: impl Fn(&Event) -> bool) -> io::Result<Past> {
    let mut past = Past::default();
    for_each(path, |event| past.push(event, &own))?;
    Ok(past)
}

impl Past {
    fn push(&mut self, event: Event, own: &impl Fn(&Event) -> bool) {
        let Some(id) = &event.id else { return };
        if event.event == Kind::Raise {
            self.raises.push(id.clone());
        }
        let is = |open: &Option<Open>| open.as_ref().is_some_and(|open| open.event.id == event.id);
        match event.event {
            Kind::Clear if is(&self.raise) => self.raise = None,
            Kind::DriftClear if is(&self.drift) => self.drift = None,
            Kind::Stop => {
                for open in [&mut self.raise, &mut self.drift].into_iter().flatten() {
                    open.stopped |= open.event.id == event.id;
                }
            }
            Kind::Raise if own(&event) => self.raise = Some(Open { event, stopped: false }),
            Kind::Drift if own(&event) => self.drift = Some(Open { event, stopped: false }),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(lines: &[(Kind, &str, &str)]) -> Past {
        let mut past = Past::default();
        for (kind, id, instance) in lines {
            let event = Event { id: Some((*id).into()), instance: Some((*instance).into()), ..Event::new(*kind) };
            past.push(event, &|event| event.instance.as_deref() == Some("door"));
        }
        past
    }

    #[test]
    fn what_has_no_end_is_open_if_it_is_the_daemon_s_own() {
        use Kind::{Clear, Drift, DriftClear, Raise, Stop};
        let id = |open: &Option<Open>| open.as_ref().map(|open| (open.event.id.clone().unwrap(), open.stopped));
        let found = past(&[(Raise, "1", "door"), (Clear, "1", "door"), (Raise, "2", "hive"), (Drift, "3", "door")]);
        assert_eq!((id(&found.raise), id(&found.drift)), (None, Some(("3".into(), false))));
        assert_eq!(found.raises, ["1", "2"]);
        let found = past(&[(Drift, "3", "door"), (Raise, "4", "door"), (Clear, "2", "hive"), (Stop, "4", "door")]);
        assert_eq!(id(&found.raise), Some(("4".into(), true)));
        let found = past(&[(Drift, "3", "door"), (DriftClear, "3", "door"), (Raise, "5", "door"), (Stop, "2", "hive")]);
        assert_eq!((id(&found.raise), id(&found.drift)), (Some(("5".into(), false)), None));
    }
}
