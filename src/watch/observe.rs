//! What the daemon sees now, for whoever asks: a Unix socket that answers every connection with one JSON object and
//! closes it. Nothing is read from the client.

use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

/// Owner and group may ask.
const MODE: u32 = 0o660;
/// A client that does not read for so long is left.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long [`ask`] waits for an answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Longer answers are not taken.
const MAX_ANSWER: u64 = 1 << 20;
const STACK: usize = 128 << 10;

/// What the daemon sees now. Keys are only ever added.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub instance: String,
    pub config: PathBuf,
    pub model: PathBuf,
    pub uptime_s: f64,
    pub camera: Camera,
    /// The frame that was judged last.
    pub frame: Option<Frame>,
    pub threshold: Threshold,
    pub raised: bool,
    /// The event that stands.
    pub event: Option<OpenEvent>,
    pub counts: Counts,
    /// Frames judged or taken for unchanged, averaged.
    pub frames_per_second: Option<f64>,
    /// None: drift cannot be watched for.
    pub drift: Option<Drift>,
    pub budget: Option<Budget>,
    pub last_error: Option<LastError>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Camera {
    pub source: String,
    pub up: bool,
    /// Why no frame comes.
    pub trouble: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Frame {
    pub age_s: f64,
    pub p: f64,
    pub score: f64,
    pub outlier: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Threshold {
    /// p below is an outlier.
    pub value: f64,
    pub origin: Origin,
    /// The model's own.
    pub model: f64,
}

/// Where a threshold comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    #[default]
    Model,
    Config,
    /// The alarm budget.
    Budget,
    /// The alarm budget, while it learns the scene.
    Settling,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenEvent {
    pub id: String,
    pub age_s: f64,
    /// x, y, width, height in shares of the picture.
    pub region: Option<[f64; 4]>,
    pub snapshot: Option<PathBuf>,
}

/// Since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub judged: u64,
    pub unchanged: u64,
    pub dropped: u64,
    pub raised: u64,
    pub cleared: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drift {
    pub drifting: bool,
    /// Share of the calibration's normals that score lower than a normal frame of the last window; 0.5 without drift.
    pub rank: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// Such as `1/day`.
    pub false_alarms: String,
    /// Events that count against the budget in the last of its periods (a day of `1/day`).
    pub spent: u64,
    /// Watched time that is known of the scene.
    pub watched_s: f64,
    /// Until the budget's threshold holds; None: it does.
    pub settling_s: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastError {
    pub age_s: f64,
    pub message: String,
}

/// The status, and when its ages were true.
#[derive(Debug)]
struct Published {
    status: Status,
    at: Instant,
}

impl Published {
    fn now(&self) -> Status {
        let passed = self.at.elapsed().as_secs_f64();
        let mut status = self.status.clone();
        status.uptime_s += passed;
        let ages = [
            status.frame.as_mut().map(|frame| &mut frame.age_s),
            status.event.as_mut().map(|event| &mut event.age_s),
            status.last_error.as_mut().map(|error| &mut error.age_s),
        ];
        ages.into_iter().flatten().for_each(|age| *age += passed);
        status
    }
}

/// The socket, and the thread that answers.
#[derive(Debug)]
pub struct Observe {
    path: PathBuf,
    published: Arc<Mutex<Published>>,
    thread: Option<JoinHandle<()>>,
    /// The thread ends when it is closed.
    stop: Option<io::PipeWriter>,
}

impl Observe {
    /// Binds the socket. What a killed daemon left there is replaced.
    ///
    /// # Errors
    /// Another daemon answers there, something else than a socket has the name, or the folder may not be written.
    pub fn bind(path: &Path, status: Status) -> io::Result<Self> {
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
        let published = Arc::new(Mutex::new(Published { status, at: Instant::now() }));
        let (stopped, stop) = io::pipe()?;
        let answered = Arc::clone(&published);
        let thread = std::thread::Builder::new()
            .name("observe".into())
            .stack_size(STACK)
            .spawn(move || serve(&listener, &stopped, &answered))?;
        Ok(Observe { path: path.to_owned(), published, thread: Some(thread), stop: Some(stop) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes what is answered from now on; ages count from now.
    pub fn publish(&self, status: Status) {
        *lock(&self.published) = Published { status, at: Instant::now() };
    }
}

impl Drop for Observe {
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

fn answer(mut client: &UnixStream, status: &Status) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(status)?;
    line.push(b'\n');
    client.write_all(&line)
}

/// Why a daemon gave no status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it is not running")]
    NotRunning,
    #[error("it does not answer")]
    Silent,
    #[error("cannot ask at {}: {source}{}", path.display(), hint(source))]
    Io { path: PathBuf, source: io::Error },
    #[error("what answers at {} is no outlierd: {source}", path.display())]
    NotStatus { path: PathBuf, source: serde_json::Error },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; be root, or of the group outlierd (`sudo adduser $USER outlierd`)",
        _ => "",
    }
}

/// Asks the daemon that answers at a socket.
///
/// # Errors
/// None is there, or it does not answer within [`ANSWER`].
pub fn ask(path: &Path) -> Result<Status, Error> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NotRunning,
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Silent,
        _ => Error::Io { path: path.to_owned(), source },
    };
    let mut socket = UnixStream::connect(path).map_err(io)?;
    socket.set_read_timeout(Some(ANSWER)).map_err(io)?;
    let mut answer = Vec::new();
    Read::by_ref(&mut socket).take(MAX_ANSWER).read_to_end(&mut answer).map_err(io)?;
    serde_json::from_slice(&answer).map_err(|source| Error::NotStatus { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(p: f64) -> Status {
        Status { frame: Some(Frame { p, ..Frame::default() }), ..Status::default() }
    }

    #[test]
    fn the_latest_is_answered_and_ages_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let observe = Observe::bind(&path, status(0.5)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        observe.publish(status(0.25));
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
        let _observe = Observe::bind(&path, Status::default()).unwrap();
        assert_eq!(Observe::bind(&path, Status::default()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let file = dir.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        assert!(Observe::bind(&file, Status::default()).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    }

    #[test]
    fn clients_that_send_or_leave_are_nothing_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _observe = Observe::bind(&path, status(0.5)).unwrap();
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
