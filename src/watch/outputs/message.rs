//! What events say to people.

use crate::model::p_text;
use crate::watch::events::{Event, Kind};
use crate::watch::service::Journal;

/// Characters of an error event's message; what quotes a broken file may be of any length.
const MAX_MESSAGE: usize = 2000;

/// An error event of now.
pub fn error_event(message: &str) -> Event {
    Event { message: Some(shortened(message)), ..Event::new(Kind::Error) }
}

/// A message without its end where that is too long, and with room for a word behind it.
pub fn shortened(message: &str) -> String {
    match message.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) if message[end..].len() > MAX_MESSAGE / 10 => format!("{} ...", &message[..end]),
        _ => message.to_owned(),
    }
}

/// Prints an event to the daemon's own log, or to the journal with its fields.
pub fn print(event: &Event, journal: &Journal) {
    let p = event.p.map(|p| format!(" p {}", p_text(p))).unwrap_or_default();
    let id = event.id.as_ref().map(|id| format!(" {id}")).unwrap_or_default();
    let message = event.message.as_deref().unwrap_or_default();
    let (level, priority) = match event.event {
        Kind::Error => (log::Level::Error, 3),
        Kind::Raise | Kind::CameraLost | Kind::Drift => (log::Level::Warn, 4),
        _ => (log::Level::Info, 6),
    };
    let text = match event.event {
        // The level says so already.
        Kind::Error => message.to_owned(),
        kind if message.is_empty() => format!("{}{id}{p}", kind.name()),
        kind => format!("{}{id}{p}: {message}", kind.name()),
    };
    if !(log::log_enabled!(level) && journal.event(event, priority, &text)) {
        log::log!(level, "{text}");
    }
}
