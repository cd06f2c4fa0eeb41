//! The daemon as a service: signals, systemd's notifications and its watchdog.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

const STATUS_EVERY: Duration = Duration::from_secs(1);
/// A stop that comes again so soon is the same one: `timeout` and others signal the process and then its group.
const SAME_STOP: Duration = Duration::from_secs(1);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// Turns signals into commands. A second SIGTERM or SIGINT, a second or more after the first, ends the process at once.
pub fn signals() -> io::Result<Receiver<Command>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, receiver) = channel();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut stopping: Option<Instant> = None;
        for signal in signals.forever() {
            let command = if signal == SIGHUP { Command::Reload } else { Command::Stop };
            let again = command == Command::Stop && stopping.is_some_and(|since| since.elapsed() >= SAME_STOP);
            // While stopping, nobody may listen any more: the main thread ends the process.
            let unheard = sender.send(command).is_err() && stopping.is_none();
            if again || unheard {
                if let Err(e) = signal_hook::low_level::emulate_default_handler(signal) {
                    log::error!("cannot end on signal {signal}: {e}");
                }
                return;
            }
            if command == Command::Stop {
                stopping.get_or_insert_with(Instant::now);
            }
        }
    })?;
    Ok(receiver)
}

/// systemd's notification socket; silent where there is none.
#[derive(Debug)]
pub struct Notifier {
    /// Held open: the watchdog must be fed also when no descriptor is left.
    socket: Option<(UnixDatagram, SocketAddr)>,
    failed: bool,
    watchdog: Option<Duration>,
    last_alive: Option<Instant>,
    last_status: Option<(String, Instant)>,
}

impl Notifier {
    /// Reads socket and watchdog's time from the environment.
    pub fn from_env() -> Self {
        let path = std::env::var_os("NOTIFY_SOCKET");
        let socket = path.and_then(|path| connect(&path).map_err(|e| log::warn!("cannot notify systemd: {e}")).ok());
        let watchdog = sd_notify::watchdog_enabled();
        Notifier { socket, failed: false, watchdog, last_alive: None, last_status: None }
    }

    pub fn ready(&mut self) {
        self.send(&[NotifyState::Ready]);
    }

    pub fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(e) => log::warn!("cannot read the monotonic clock: {e}"),
        }
    }

    pub fn stopping(&mut self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// One line of `systemctl status`; sent when it has changed, once a second at most.
    pub fn status(&mut self, text: &str) {
        let due = match &self.last_status {
            Some((last, at)) => last != text && at.elapsed() >= STATUS_EVERY,
            None => true,
        };
        if due {
            self.last_status = Some((text.to_owned(), Instant::now()));
            self.send(&[NotifyState::Status(text)]);
        }
    }

    /// Tells the watchdog that frames are judged; to be called often, sends a third of its time apart.
    pub fn alive(&mut self) {
        let Some(limit) = self.watchdog else { return };
        if self.last_alive.is_none_or(|at| at.elapsed() >= limit / 3) {
            self.last_alive = Some(Instant::now());
            self.send(&[NotifyState::Watchdog]);
        }
    }

    /// How often [`Notifier::alive`] must be called at least.
    pub fn alive_interval(&self) -> Duration {
        self.watchdog.map_or(Duration::from_secs(10), |limit| limit / 4)
    }

    /// Never waits: a service manager that does not read must not hold up the watch. A failure is told once.
    fn send(&mut self, states: &[NotifyState<'_>]) {
        let Some((socket, address)) = &self.socket else { return };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        match socket.send_to_addr(message.as_bytes(), address) {
            Ok(_) => self.failed = false,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => log::debug!("systemd does not read its notifications"),
            Err(e) => {
                if !std::mem::replace(&mut self.failed, true) {
                    log::warn!("cannot notify systemd: {e}");
                }
            }
        }
    }
}

/// What to do about a place that a service cannot write; empty outside of one, and where its sandbox is not the reason.
pub fn remedy(error: &io::Error) -> &'static str {
    // systemd gives it to every process of a unit.
    remedy_in(std::env::var_os("INVOCATION_ID").is_some(), error)
}

fn remedy_in(unit: bool, error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem if unit => {
            "; the unit's sandbox keeps all folders but its own read-only: `systemctl edit outlierd`, and below [Service] \
             ReadWritePaths= with that folder; or name a place below /var/lib/outlierd"
        }
        _ => "",
    }
}

fn connect(path: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_is_named_where_it_is_the_reason() {
        let read_only = io::Error::from(rustix::io::Errno::ROFS);
        assert!(remedy_in(true, &read_only).contains("ReadWritePaths="));
        assert_eq!(remedy_in(false, &read_only), "");
        assert_eq!(remedy_in(true, &io::ErrorKind::StorageFull.into()), "");
    }

    #[test]
    fn a_reader_that_does_not_read_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let reader = UnixDatagram::bind(&path).unwrap();
        let (socket, address) = connect(path.as_os_str()).unwrap();
        let send = |message: &[u8]| socket.send_to_addr(message, &address);
        send(b"READY=1\n").unwrap();
        let mut buffer = [0; 64];
        let len = reader.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"READY=1\n");
        let full = (0..100_000).find_map(|_| send(&[b'x'; 1000]).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(reader);
        assert!(send(b"x").is_err());
        // A service manager that starts anew is found again.
        std::fs::remove_file(&path).unwrap();
        let _reader = UnixDatagram::bind(&path).unwrap();
        send(b"x").unwrap();
    }
}
