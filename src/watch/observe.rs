//! What a daemon sees now, as its socket tells it to whoever asks.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::frame::schedule::Light;
use super::frame::status::Summary;
use super::frame::threshold::Threshold;

/// How long [`ask`] waits for an answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Longer answers are not taken.
const MAX_ANSWER: u64 = 1 << 20;

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
pub fn ask(path: &Path) -> Result<Observed, Error> {
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
