//! systemd's notifications and its watchdog.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

const STATUS_EVERY: Duration = Duration::from_secs(1);

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

    /// Never waits: a service manager that does not read must not hold up the watch. A failure is logged once.
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
