//! The Unix socket that says what the daemon sees now: every connection gets one JSON object and is closed. A client
//! that asks for pictures first has them made for a while.

use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::live::{Live, Shown};
use super::output::{Failure, Output};
use crate::config::Config;
use crate::fs;
use crate::watch::events::{Event, Kind};
use crate::watch::frame::status::Status;
use crate::watch::observe::{
    Budget, Camera, Drift, Frame, LEASE, LastError, ORIGINALS, Observed, OpenEvent, PICTURES, Pictures,
};

/// Owner and group may ask.
const MODE: u32 = 0o660;
/// A client that does not read for so long is left.
const PATIENCE: Duration = Duration::from_secs(1);
/// A client that neither asks for anything nor ends its requests is answered after so long.
const REQUEST: Duration = Duration::from_millis(200);
const STACK: usize = 128 << 10;
/// Of the longest request.
const REQUEST_BYTES: usize = if PICTURES.len() > ORIGINALS.len() { PICTURES.len() } else { ORIGINALS.len() };

/// The socket of the config, and what it answers from.
#[derive(Debug)]
pub struct Observe {
    socket: Option<Socket>,
    path: PathBuf,
    known: Arc<Mutex<Known>>,
    live: Live,
}

impl Observe {
    /// Opens the socket. Where that fails nobody can ask, and the watch goes on.
    pub fn open(config: &Config) -> Self {
        let mut observe = Observe {
            socket: None,
            path: PathBuf::new(),
            known: Arc::new(Mutex::new(Known::new())),
            live: Live::default(),
        };
        observe.take(config);
        observe
    }

    fn take(&mut self, config: &Config) {
        let mut known = lock(&self.known);
        known.loaded = Instant::now();
        known.fixed = Observed {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            instance: config.instance(),
            config: config.path().to_owned(),
            model: config.model.path.clone(),
            camera: Camera {
                source: config.camera.source.to_string(),
                crop: config.camera.crop.map(|crop| crop.to_string()),
                ..Camera::default()
            },
            ..Observed::default()
        };
        drop(known);
        let path = config.socket_path();
        if path == self.path {
            return;
        }
        self.socket = None;
        if self.live.is_there() {
            self.live.clear();
        }
        self.live = Live::beside(&path);
        match Socket::bind(&path, Arc::clone(&self.known)) {
            Ok(socket) => {
                self.socket = Some(socket);
                // A killed daemon leaves its pictures.
                self.live.clear();
            }
            // Outside of the service nobody makes the folder.
            Err(_) if config.observe.socket.is_none() && !fs::folder_of(&path).is_dir() => {}
            Err(e) => log::warn!("`outlierd status` gets no answer: cannot open {}: {e}", path.display()),
        }
        self.path = path;
    }

    pub fn set_model(&mut self, path: &Path) {
        lock(&self.known).fixed.model = path.to_owned();
    }

    /// An event that was written: of an error this is all that there is.
    pub fn note(&mut self, event: &Event) {
        lock(&self.known).note(event);
    }

    /// The pictures, if somebody looks at them and it is time for others.
    pub fn live(&mut self, now: Instant) -> Option<&mut Live> {
        let (looked_at, wants_original) = {
            let known = lock(&self.known);
            (known.is_leased(now), known.originals.is_some_and(|until| now < until))
        };
        self.live.wants_original = wants_original;
        (looked_at && self.live.is_due(now)).then_some(&mut self.live)
    }

    /// To be called after [`Observe::live`] has pictures.
    pub fn note_pictures(&mut self) {
        lock(&self.known).shown = self.live.shown();
    }
}

impl Output for Observe {
    fn reconfigure(&mut self, config: &Config) -> Result<Vec<Failure>, String> {
        self.take(config);
        Ok(Vec::new())
    }

    fn update(&mut self, status: &Status) -> Vec<Failure> {
        lock(&self.known).status = *status;
        Vec::new()
    }

    /// A raise may have its region only now.
    fn event(&mut self, event: &Event, _: &Status) -> Vec<Failure> {
        self.note(event);
        Vec::new()
    }

    /// What nobody looks at any more is removed.
    fn attend(&mut self, _: &Status) -> Vec<Failure> {
        let mut known = lock(&self.known);
        if self.live.is_there() && !known.is_leased(Instant::now()) {
            self.live.clear();
            known.shown = self.live.shown();
        }
        Vec::new()
    }

    fn due(&self) -> Option<Instant> {
        lock(&self.known).leased.filter(|_| self.live.is_there())
    }

    fn finish(&mut self, _: &Status) -> Vec<Failure> {
        self.socket = None;
        self.live.clear();
        Vec::new()
    }
}

/// What an answer is made of, once somebody asks.
#[derive(Debug)]
struct Known {
    started: Instant,
    loaded: Instant,
    /// What no frame changes.
    fixed: Observed,
    status: Status,
    /// Without its age.
    event: Option<(OpenEvent, Instant)>,
    error: Option<(String, Instant)>,
    camera_lost: Option<String>,
    /// Somebody looks at pictures until then.
    leased: Option<Instant>,
    /// And at frames as they came.
    originals: Option<Instant>,
    shown: Shown,
}

impl Known {
    fn new() -> Self {
        Known {
            started: Instant::now(),
            loaded: Instant::now(),
            fixed: Observed::default(),
            status: Status::default(),
            event: None,
            error: None,
            camera_lost: None,
            leased: None,
            originals: None,
            shown: Shown::default(),
        }
    }

    fn is_leased(&self, now: Instant) -> bool {
        self.leased.is_some_and(|until| now < until)
    }

    fn note(&mut self, event: &Event) {
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

    fn observed(&self) -> Observed {
        let Known { fixed, status, .. } = self;
        let now = Instant::now();
        let age = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
        Observed {
            uptime_s: age(self.started),
            loaded_s: age(self.loaded),
            camera: Camera { up: status.camera_up, trouble: self.camera_lost.clone(), ..fixed.camera.clone() },
            frame: status.latest.map(|latest| Frame {
                age_s: age(latest.at),
                p: latest.verdict.p,
                score: latest.verdict.score,
                outlier: latest.verdict.outlier,
            }),
            threshold: status.threshold,
            raised: status.raised,
            event: self.event.as_ref().map(|(event, since)| OpenEvent { age_s: age(*since), ..event.clone() }),
            counts: status.summary,
            frames_per_second: status.rate(),
            drift: status
                .drift
                .map(|drifting| Drift { drifting, rank: status.drift_finding.map(|finding| finding.rank) }),
            budget: status.budget.map(|(rate, budget)| Budget {
                false_alarms: rate.to_string(),
                spent: budget.spent,
                watched_s: budget.watched.as_secs_f64(),
                settling_s: budget.settling.map(|left| left.as_secs_f64()),
            }),
            light: status.light,
            last_error: self
                .error
                .as_ref()
                .map(|(message, at)| LastError { age_s: age(*at), message: message.clone() }),
            pictures: self.is_leased(now).then(|| Pictures {
                frame_age_s: self.shown.frame.map(age),
                map_age_s: self.shown.map.map(age),
                original_age_s: self.shown.original.map(age),
                region: self.shown.region,
                error: self.shown.error.clone(),
            }),
            ..fixed.clone()
        }
    }
}

/// The socket, and the thread that answers.
#[derive(Debug)]
struct Socket {
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
    /// The thread ends when it is closed.
    stop: Option<io::PipeWriter>,
}

impl Socket {
    /// Binds the socket. What a killed daemon left there is replaced.
    ///
    /// # Errors
    /// Another daemon answers there, something else than a socket has the name, or the folder may not be written.
    fn bind(path: &Path, known: Arc<Mutex<Known>>) -> io::Result<Self> {
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
        let (stopped, stop) = io::pipe()?;
        let thread = std::thread::Builder::new()
            .name("observe".into())
            .stack_size(STACK)
            .spawn(move || serve(&listener, &stopped, &known))?;
        Ok(Socket { path: path.to_owned(), thread: Some(thread), stop: Some(stop) })
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

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(listener: &UnixListener, stopped: &io::PipeReader, known: &Mutex<Known>) {
    loop {
        let mut waited = [PollFd::new(listener, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut waited, None) {
            Ok(_) if !waited[1].revents().is_empty() => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return log::error!("the observe socket is not answered any more: {e}"),
        }
        match listener.accept() {
            // A client that is gone, or does not read, has itself to blame.
            Ok((client, _)) => {
                let _ = answer(&client, known);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            // No descriptor is free: the connection waits.
            Err(_) => std::thread::sleep(PATIENCE),
        }
    }
}

fn answer(mut client: &UnixStream, known: &Mutex<Known>) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(REQUEST))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::with_capacity(REQUEST_BYTES);
    // One that writes nothing asks for nothing.
    let _ = client.take(REQUEST_BYTES as u64).read_to_end(&mut request);
    // Not locked while the client takes its time.
    let observed = {
        let mut known = lock(known);
        if request == PICTURES || request == ORIGINALS {
            let until = Instant::now() + LEASE;
            known.leased = Some(until);
            known.originals = if request == ORIGINALS { Some(until) } else { known.originals };
        }
        known.observed()
    };
    let mut line = serde_json::to_vec(&observed)?;
    line.push(b'\n');
    client.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Verdict;
    use crate::watch::frame::status::Latest;
    use crate::watch::observe::{Error, ask, ask_for_pictures};

    fn known(p: f64) -> Arc<Mutex<Known>> {
        let known = Arc::new(Mutex::new(Known::new()));
        see(&known, p);
        known
    }

    fn see(known: &Mutex<Known>, p: f64) {
        let latest = Latest { verdict: Verdict::of(1.0, p, 0.0), at: Instant::now(), period: 0.0 };
        lock(known).status.latest = Some(latest);
    }

    #[test]
    fn the_latest_is_answered_and_ages_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let known = known(0.5);
        let observe = Socket::bind(&path, Arc::clone(&known)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        see(&known, 0.25);
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
        let _observe = Socket::bind(&path, known(0.5)).unwrap();
        assert_eq!(Socket::bind(&path, known(0.5)).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let file = dir.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        assert!(Socket::bind(&file, known(0.5)).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    }

    #[test]
    fn clients_that_send_or_leave_are_nothing_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _observe = Socket::bind(&path, known(0.5)).unwrap();
        for _ in 0..50 {
            let mut client = UnixStream::connect(&path).unwrap();
            let _ = client.write_all(b"GET / HTTP/1.1\r\n\r\n");
        }
        assert_eq!(ask(&path).unwrap().frame.unwrap().p, 0.5);
    }

    #[test]
    fn who_asks_for_pictures_has_them_made_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let known = known(0.5);
        let _observe = Socket::bind(&path, Arc::clone(&known)).unwrap();
        assert_eq!(ask(&path).unwrap().pictures, None);
        let pictures = ask_for_pictures(&path).unwrap().pictures.unwrap();
        assert_eq!((pictures.frame_age_s, pictures.map_age_s, pictures.region), (None, None, None));
        let leased = lock(&known).leased.unwrap();
        assert!(lock(&known).is_leased(leased - LEASE) && !lock(&known).is_leased(leased));
        lock(&known).shown.frame = Some(Instant::now());
        assert!(ask(&path).unwrap().pictures.unwrap().frame_age_s.is_some());
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
