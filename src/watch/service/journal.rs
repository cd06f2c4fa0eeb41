//! systemd's journal: events with their values as fields, so that `journalctl OUTLIERD_EVENT=raise` finds them.
//! The native protocol of systemd.io/JOURNAL_NATIVE_PROTOCOL.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::watch::events::{Event, printable};

const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal's socket, where the standard error goes to the journal.
#[derive(Debug, Default)]
pub struct Journal(Option<UnixDatagram>);

impl Journal {
    pub fn from_env() -> Self {
        match is_stderr(&std::env::var("JOURNAL_STREAM").unwrap_or_default()) {
            true => Journal::at(Path::new(SOCKET)),
            false => Journal::default(),
        }
    }

    /// The journal that reads at that socket; none where nothing does.
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.connect(path).map(|()| socket)
        });
        Journal(socket.inspect_err(|e| log::debug!("cannot reach {}: {e}", path.display())).ok())
    }

    /// Whether the journal has taken the event. It never waits.
    pub fn event(&self, event: &Event, priority: u8, message: &str) -> bool {
        let Some(socket) = &self.0 else { return false };
        let number = |value: Option<f64>| value.map(|value| value.to_string());
        let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let fields = [
            ("MESSAGE", Some(printable(message))),
            ("PRIORITY", Some(priority.to_string())),
            ("SYSLOG_IDENTIFIER", Some("outlierd".into())),
            ("OUTLIERD_EVENT", Some(event.event.name().into())),
            ("OUTLIERD_ID", event.id.clone()),
            ("OUTLIERD_INSTANCE", event.instance.clone()),
            ("OUTLIERD_MODEL", event.model.clone()),
            ("OUTLIERD_P", number(event.p)),
            ("OUTLIERD_SCORE", number(event.score)),
            ("OUTLIERD_THRESHOLD", number(event.threshold)),
            ("OUTLIERD_DURATION_S", number(event.duration_s)),
            ("OUTLIERD_SNAPSHOT", path(&event.snapshot)),
        ];
        let mut bytes = Vec::with_capacity(512);
        for (name, value) in fields {
            if let Some(value) = value {
                field(&mut bytes, name, &value);
            }
        }
        socket.send(&bytes).is_ok()
    }
}

/// Whether `JOURNAL_STREAM`, `device:inode`, names the standard error: a hook's or a redirected one is another.
fn is_stderr(stream: &str) -> bool {
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}

fn field(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend((value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend(value.as_bytes());
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::events::Kind;

    #[test]
    fn an_event_is_a_datagram_of_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(!Journal::at(&path).event(&Event::new(Kind::Stop), 6, "stop"));
        let journal = UnixDatagram::bind(&path).unwrap();
        let event = Event { id: Some("a\nB=c".into()), p: Some(0.25), ..Event::new(Kind::Raise) };
        assert!(Journal::at(&path).event(&event, 4, "raise\n\u{1b}[31m"));
        let mut bytes = [0; 4096];
        let length = journal.recv(&mut bytes).unwrap();
        let fields = String::from_utf8_lossy(&bytes[..length]).into_owned();
        assert!(fields.starts_with("MESSAGE=raise") && !fields.contains('\u{1b}'), "{fields:?}");
        assert!(fields.contains("\nPRIORITY=4\n") && fields.contains("\nOUTLIERD_EVENT=raise\n"), "{fields:?}");
        assert!(fields.contains("\nOUTLIERD_P=0.25\n") && !fields.contains("OUTLIERD_SCORE"), "{fields:?}");
        assert!(fields.contains("\nOUTLIERD_ID\n\u{5}\0\0\0\0\0\0\0a\nB=c\n"), "{fields:?}");
    }

    #[test]
    fn only_the_journals_own_stream_is_taken_for_it() {
        let own = std::fs::metadata("/proc/self/fd/2").unwrap();
        assert!(is_stderr(&format!("{}:{}", own.dev(), own.ino())));
        assert!(!is_stderr("") && !is_stderr("1:1") && !is_stderr(&format!("{}:{}", own.dev(), own.ino() + 1)));
    }
}
