//! What a daemon sees now, as its socket tells it to whoever asks.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::process::{Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::frame::light::Light;
use super::frame::status::Summary;
use super::frame::threshold::Threshold;

/// How long [`ask`] waits for an answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Longer answers are not taken.
const MAX_ANSWER: u64 = 1 << 20;

/// A frame that is older than ten of its intervals, while the camera is there, and at any rate so old: the daemon hangs.
const HUNG_AFTER: Duration = Duration::from_secs(30);

/// A client that writes this before it reads has the daemon make pictures of its frames for the time of [`LEASE`].
pub const PICTURES: &[u8] = b"pictures\n";
/// As [`PICTURES`], and the frame as it came too.
pub const ORIGINALS: &[u8] = b"original\n";
/// How long pictures are made for a client that asked for them.
pub const LEASE: Duration = Duration::from_secs(10);

/// The latest frame, a JPEG file beside the socket while somebody looks.
pub fn frame_path(socket: &Path) -> PathBuf {
    socket.with_extension("frame.jpg")
}

/// A frame with its anomaly map, likewise.
pub fn map_path(socket: &Path) -> PathBuf {
    socket.with_extension("map.jpg")
}

/// A frame as it was judged: whole, and as `outlierd collect` saves it.
pub fn original_path(socket: &Path) -> PathBuf {
    socket.with_extension("original.jpg")
}

/// What the daemon sees now. Keys are only ever added.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observed {
    pub version: String,
    pub pid: u32,
    pub instance: String,
    pub config: PathBuf,
    pub model: PathBuf,
    pub uptime_s: f64,
    /// Since config and model were read last.
    pub loaded_s: f64,
    pub camera: Camera,
    /// The frame that was judged last.
    pub frame: Option<Frame>,
    pub threshold: Threshold,
    pub raised: bool,
    /// The event that stands.
    pub event: Option<OpenEvent>,
    /// Since the start.
    pub counts: Summary,
    /// Frames judged or taken for unchanged, averaged.
    pub frames_per_second: Option<f64>,
    /// None: drift cannot be watched for.
    pub drift: Option<Drift>,
    pub budget: Option<Budget>,
    /// Of the latest frame, where `[[model.when]]` asks for it.
    pub light: Option<Light>,
    pub last_error: Option<LastError>,
    /// None: nobody looks at pictures.
    pub pictures: Option<Pictures>,
}

/// What a daemon is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Normal,
    Outlier,
    CameraLost,
    Starting,
    Hung,
}

impl Observed {
    pub fn state(&self) -> State {
        match &self.frame {
            _ if self.raised => State::Outlier,
            _ if !self.camera.up && self.camera.trouble.is_some() => State::CameraLost,
            None => State::Starting,
            Some(frame) if frame.age_s > self.hung_after() => State::Hung,
            Some(_) => State::Normal,
        }
    }

    /// Seconds.
    fn hung_after(&self) -> f64 {
        let period = self.frames_per_second.filter(|&rate| rate > 0.0).map_or(0.0, |rate| 1.0 / rate);
        HUNG_AFTER.as_secs_f64().max(10.0 * period)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Camera {
    pub source: String,
    /// As the config has it.
    pub crop: Option<String>,
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
pub struct OpenEvent {
    pub id: String,
    pub age_s: f64,
    /// x, y, width, height in shares of the picture.
    pub region: Option<[f64; 4]>,
    pub snapshot: Option<PathBuf>,
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

/// What there is at [`frame_path`], [`map_path`] and [`original_path`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pictures {
    /// None: it comes with the next frame.
    pub frame_age_s: Option<f64>,
    /// None: the model has no map, or nothing departs from what it knows.
    pub map_age_s: Option<f64>,
    /// None: nobody asked for it, or it comes with the next frame.
    pub original_age_s: Option<f64>,
    /// What departs most in the map: x, y, width, height in shares of the picture.
    pub region: Option<[f64; 4]>,
    /// Why they cannot be written.
    pub error: Option<String>,
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
    #[error("what answers at {} says that it is process {said}, but is {pid}", path.display())]
    OtherProcess { path: PathBuf, said: u32, pid: u32 },
    #[error("cannot signal process {pid}: {source}")]
    Signal { pid: u32, source: io::Error },
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
pub fn ask(path: &Path) -> Result<Observed, Error> {
    exchange(path, b"").map(|(observed, _)| observed)
}

/// As [`ask`], and has pictures made for [`LEASE`]: those that are there now are in the answer.
pub fn ask_for_pictures(path: &Path) -> Result<Observed, Error> {
    exchange(path, PICTURES).map(|(observed, _)| observed)
}

/// As [`ask_for_pictures`], and has the frame as it came written too.
pub fn ask_for_originals(path: &Path) -> Result<Observed, Error> {
    exchange(path, ORIGINALS).map(|(observed, _)| observed)
}

/// Has the daemon that answers at a socket read its config and model again, as `systemctl reload` does. It signals the
/// process that holds the socket, by the kernel's word.
///
/// # Errors
/// As [`ask`], and where that process is another user's.
pub fn reload(path: &Path) -> Result<(), Error> {
    let (observed, socket) = exchange(path, b"")?;
    let of_signal = |e: rustix::io::Errno| Error::Signal { pid: observed.pid, source: e.into() };
    let peer = socket_peercred(&socket).map_err(of_signal)?.pid;
    let pid = peer.as_raw_nonzero().get() as u32;
    if pid != observed.pid {
        return Err(Error::OtherProcess { path: path.to_owned(), said: observed.pid, pid });
    }
    kill_process(peer, Signal::HUP).map_err(of_signal)
}

fn exchange(path: &Path, request: &[u8]) -> Result<(Observed, UnixStream), Error> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NotRunning,
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Silent,
        _ => Error::Io { path: path.to_owned(), source },
    };
    let mut socket = UnixStream::connect(path).map_err(io)?;
    socket.set_read_timeout(Some(ANSWER)).map_err(io)?;
    // A daemon that is older reads nothing, and may be gone already.
    let _ = socket.write_all(request).and_then(|()| socket.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    Read::by_ref(&mut socket).take(MAX_ANSWER).read_to_end(&mut answer).map_err(io)?;
    let observed = serde_json::from_slice(&answer);
    Ok((observed.map_err(|source| Error::NotStatus { path: path.to_owned(), source })?, socket))
}
