//! The Unix socket that says what the daemon sees now: every connection gets one JSON object and is closed. Nothing is
//! read from the client.

use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::output::{Failure, Output};
use crate::config::Config;
use crate::fs;
use crate::watch::events::{Event, Kind};
use crate::watch::frame::status::Status;
use crate::watch::observe::{Budget, Camera, Drift, Frame, LastError, Observed, OpenEvent};

/// Owner and group may ask.
const MODE: u32 = 0o660;
/// A client that does not read for so long is left.
const PATIENCE: Duration = Duration::from_secs(1);
const STACK: usize = 128 << 10;

/// The socket of the config, and what is known beside the status.
#[derive(Debug)]
pub struct Observe {
    socket: Option<Socket>,
    path: PathBuf,
    started: Instant,
    /// What no frame changes.
    fixed: Observed,
    /// Without its age.
    event: Option<(OpenEvent, Instant)>,
    error: Option<(String, Instant)>,
    camera_lost: Option<String>,
}

impl Observe {
    /// Opens the socket. Where that fails nobody can ask, and the watch goes on.
    pub fn open(config: &Config) -> Self {
        let mut observe = Observe {
            socket: None,
            path: PathBuf::new(),
            started: Instant::now(),
            fixed: Observed::default(),
            event: None,
            error: None,
            camera_lost: None,
        };
        observe.take(config);
        observe
    }

    fn take(&mut self, config: &Config) {
        self.fixed = Observed {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            instance: config.instance(),
            config: config.path().to_owned(),
            model: config.model.path.clone(),
            camera: Camera { source: config.camera.source.to_string(), ..Camera::default() },
            ..Observed::default()
        };
        let path = config.socket_path();
        if path == self.path {
            return;
        }
        self.socket = None;
        match Socket::bind(&path, self.fixed.clone()) {
            Ok(socket) => self.socket = Some(socket),
            // Outside of the service nobody makes the folder.
            Err(_) if config.observe.socket.is_none() && !fs::folder_of(&path).is_dir() => {}
            Err(e) => log::warn!("`outlierd status` gets no answer: cannot open {}: {e}", path.display()),
        }
        self.path = path;
    }

    /// An event that was written: of an error this is all that there is.
    pub fn note(&mut self, event: &Event) {
        match event.event {
            Kind::Raise => {
                let since = self.event.as_ref().map_or_else(Instant::now, |(_, since)| *since);
                let (id, region) = (event.id.clone().unwrap_or_default(), event.region);
                self.event = Some((OpenEvent { id, age_s: 0.0, region, snapshot: event.snapshot.clone() }, since));
            }
            Kind::Clear | Kind::Stop => self.event = None,
            Kind::Error => self.error = event.message.clone().map(|message| (message, Instant::now())),
            Kind::CameraLost => self.camera_lost = Some(event.message.clone().unwrap_or_default()),
            Kind::CameraFound => self.camera_lost = None,
            _ => {}
        }
    }

    fn publish(&self, status: &Status) {
        let Some(socket) = &self.socket else { return };
        let now = Instant::now();
        let age = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
        let verdict = status.latest.map(|latest| (latest.verdict, latest.at));
        socket.publish(Observed {
            uptime_s: age(self.started),
            camera: Camera { up: status.camera_up, trouble: self.camera_lost.clone(), ..self.fixed.camera.clone() },
            frame: verdict.map(|(verdict, at)| Frame {
                age_s: age(at),
                p: verdict.p,
                score: verdict.score,
                outlier: verdict.outlier,
            }),
            threshold: status.threshold,
            raised: status.raised,
            event: self.event.as_ref().map(|(event, since)| OpenEvent { age_s: age(*since), ..event.clone() }),
            counts: status.summary,
            frames_per_second: status.rate(),
            drift: status
                .drift
                .map(|drifting| Drift { drifting, rank: status.drift_finding.map(|finding| finding.rank) }),
            budget: status.budget.map(|(rate, status)| Budget {
                false_alarms: rate.to_string(),
                spent: status.spent,
                watched_s: status.watched.as_secs_f64(),
                settling_s: status.settling.map(|left| left.as_secs_f64()),
            }),
            last_error: self
                .error
                .as_ref()
                .map(|(message, at)| LastError { age_s: age(*at), message: message.clone() }),
            ..self.fixed.clone()
        });
    }
}

impl Output for Observe {
    fn reconfigure(&mut self, config: &Config) -> Result<Vec<Failure>, String> {
        self.take(config);
        Ok(Vec::new())
    }

    fn update(&mut self, status: &Status) -> Vec<Failure> {
        self.publish(status);
        Vec::new()
    }

    fn event(&mut self, event: &Event, status: &Status) -> Vec<Failure> {
        self.note(event);
        self.publish(status);
        Vec::new()
    }

    fn attend(&mut self, _: &Status) -> Vec<Failure> {
        Vec::new()
    }

    fn finish(&mut self, _: &Status) -> Vec<Failure> {
        self.socket = None;
        Vec::new()
    }
}

/// What is observed, and when its ages were true.
#[derive(Debug)]
struct Published {
    observed: Observed,
    at: Instant,
}

impl Published {
    fn now(&self) -> Observed {
        let passed = self.at.elapsed().as_secs_f64();
        let mut observed = self.observed.clone();
        observed.uptime_s += passed;
        let ages = [
            observed.frame.as_mut().map(|frame| &mut frame.age_s),
            observed.event.as_mut().map(|event| &mut event.age_s),
            observed.last_error.as_mut().map(|error| &mut error.age_s),
        ];
        ages.into_iter().flatten().for_each(|age| *age += passed);
        observed
    }
}

/// The socket, and the thread that answers.
#[derive(Debug)]
struct Socket {
    path: PathBuf,
    published: Arc<Mutex<Published>>,
    thread: Option<JoinHandle<()>>,
    /// The thread ends when it is closed.
    stop: Option<io::PipeWriter>,
}

impl Socket {
    /// Binds the socket. What a killed daemon left there is replaced.
    ///
    /// # Errors
    /// Another daemon answers there, something else than a socket has the name, or the folder may not be written.
    fn bind(path: &Path, observed: Observed) -> io::Result<Self> {
        match (UnixStream::connect(path), std::fs::symlink_metadata(path)) {
            (Ok(_), _) => {
                let message = "another outlierd that is running answers there; give each config its own observe.socket";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
            }
            (Err(_), Ok(there)) if there.file_type().is_socket() => std::fs::remove_file(path)?,
            (Err(_), _) => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
        let published = Arc::new(Mutex::new(Published { observed, at: Instant::now() }));
        let (stopped, stop) = io::pipe()?;
        let answered = Arc::clone(&published);
        let thread = std::thread::Builder::new()
            .name("observe".into())
            .stack_size(STACK)
            .spawn(move || serve(&listener, &stopped, &answered))?;
        Ok(Socket { path: path.to_owned(), published, thread: Some(thread), stop: Some(stop) })
    }

    /// Changes what is answered from now on; ages count from now.
    fn publish(&self, observed: Observed) {
        *lock(&self.published) = Published { observed, at: Instant::now() };
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(published: &Mutex<Published>) -> MutexGuard<'_, Published> {
    published.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(listener: &UnixListener, stopped: &io::PipeReader, published: &Mutex<Published>) {
    loop {
        let mut waited = [PollFd::new(listener, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut waited, None) {
            Ok(_) if !waited[1].revents().is_empty() => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return log::error!("the observe socket is not answered any more: {e}"),
        }
        match listener.accept() {
            // A client that is gone, or does not read, has itself to blame.
            Ok((client, _)) => drop(answer(&client, &lock(published).now())),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            // No descriptor is free: the connection waits.
            Err(_) => std::thread::sleep(PATIENCE),
        }
    }
}

fn answer(mut client: &UnixStream, observed: &Observed) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(observed)?;
    line.push(b'\n');
    client.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::observe::{Error, ask};

    fn observed(p: f64) -> Observed {
        Observed { frame: Some(Frame { p, ..Frame::default() }), ..Observed::default() }
    }

    #[test]
    fn the_latest_is_answered_and_ages_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let observe = Socket::bind(&path, observed(0.5)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        observe.publish(observed(0.25));
        let (first, second) = (ask(&path).unwrap(), ask(&path).unwrap());
        assert_eq!(first.frame.as_ref().unwrap().p, 0.25);
        assert!(second.uptime_s > first.uptime_s && second.frame.unwrap().age_s > first.frame.unwrap().age_s);
        drop(observe);
        assert!(!path.exists() && matches!(ask(&path), Err(Error::NotRunning)));
    }

    #[test]
    fn a_socket_has_one_daemon_and_what_a_killed_one_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(matches!(ask(&path), Err(Error::NotRunning)));
        let _observe = Socket::bind(&path, Observed::default()).unwrap();
        assert_eq!(Socket::bind(&path, Observed::default()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let file = dir.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        assert!(Socket::bind(&file, Observed::default()).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    }

    #[test]
    fn clients_that_send_or_leave_are_nothing_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _observe = Socket::bind(&path, observed(0.5)).unwrap();
        for _ in 0..50 {
            let mut client = UnixStream::connect(&path).unwrap();
            let _ = client.write_all(b"GET / HTTP/1.1\r\n\r\n");
        }
        assert_eq!(ask(&path).unwrap().frame.unwrap().p, 0.5);
    }

    #[test]
    fn what_is_no_status_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let other = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"hello").unwrap());
        assert!(matches!(ask(&path), Err(Error::NotStatus { .. })));
        other.join().unwrap();
    }
}
