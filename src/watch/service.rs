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
    watchdog: Option<Duration>,
    last_alive: Option<Instant>,
    last_status: Option<(String, Instant)>,
}

impl Notifier {
    /// Reads the watchdog's time from the environment.
    pub fn from_env() -> Self {
        Notifier { watchdog: sd_notify::watchdog_enabled(), last_alive: None, last_status: None }
    }

    pub fn ready(&self) {
        send(&[NotifyState::Ready]);
    }

    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(e) => log::warn!("cannot read the monotonic clock: {e}"),
        }
    }

    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// One line of `systemctl status`; sent when it has changed, once a second at most.
    pub fn status(&mut self, text: &str) {
        let due = match &self.last_status {
            Some((last, at)) => last != text && at.elapsed() >= STATUS_EVERY,
            None => true,
        };
        if due {
            self.last_status = Some((text.to_owned(), Instant::now()));
            send(&[NotifyState::Status(text)]);
        }
    }

    /// Tells the watchdog that frames are judged; to be called often, sends a third of its time apart.
    pub fn alive(&mut self) {
        let Some(limit) = self.watchdog else { return };
        if self.last_alive.is_none_or(|at| at.elapsed() >= limit / 3) {
            self.last_alive = Some(Instant::now());
            send(&[NotifyState::Watchdog]);
        }
    }

    /// How often [`Notifier::alive`] must be called at least.
    pub fn alive_interval(&self) -> Duration {
        self.watchdog.map_or(Duration::from_secs(10), |limit| limit / 4)
    }
}

/// Sends without ever waiting: a service manager that does not read must not hold up the watch.
fn send(states: &[NotifyState<'_>]) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    match try_send(&path, message.as_bytes()) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => log::debug!("systemd does not read its notifications"),
        Err(e) => log::warn!("cannot notify systemd: {e}"),
    }
}

fn try_send(path: &OsStr, message: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    socket.send_to_addr(message, &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_does_not_read_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let reader = UnixDatagram::bind(&path).unwrap();
        try_send(path.as_os_str(), b"READY=1\n").unwrap();
        let mut buffer = [0; 64];
        let len = reader.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"READY=1\n");
        let full = (0..100_000).find_map(|_| try_send(path.as_os_str(), &[b'x'; 1000]).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(reader);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(try_send(path.as_os_str(), b"x").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
