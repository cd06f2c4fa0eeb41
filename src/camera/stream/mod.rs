//! A stream of MJPEG or YUV4MPEG2 as a camera: through a FIFO, from a file, or from a command's standard output. A
//! thread reads it all the time, so that its source is not held up, and keeps the newest picture; of a file every one
//! is taken.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use ::image::RgbImage;
use rustix::event::{PollFd, PollFlags, poll};

use super::frame::{Error, Frame, FrameSource};
use crate::config::{self, Crop};
use crate::fs::{self, Locked};
use crate::image::{self, MAX_SIDE, jpeg};

mod feeder;
mod mjpeg;
mod split;
mod y4m;

pub(super) use feeder::Feeder;
#[cfg(feature = "internals")]
pub use split::count;
use split::{Kind, Splitter};

/// What a FIFO holds.
const CHUNK: usize = 64 << 10;
const STACK: usize = 256 << 10;

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    origin: String,
    crop: Option<Crop>,
    keep_jpeg: bool,
    shared: Arc<Shared>,
    feeder: Option<Feeder>,
    reader: Option<JoinHandle<()>>,
    /// The reader ends when it is closed.
    stop: Option<io::PipeWriter>,
    format: String,
}

#[derive(Debug, Default)]
struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
}

/// Between the thread that reads and the one that asks.
#[derive(Debug, Default)]
struct Slot {
    newest: Option<Picture>,
    /// An old buffer to be used again.
    spare: Vec<u8>,
    sequence: u64,
    ended: Option<Ended>,
    stopped: bool,
}

#[derive(Debug)]
struct Picture {
    kind: Kind,
    bytes: Vec<u8>,
    sequence: u64,
}

#[derive(Debug, Clone)]
enum Ended {
    /// Of a file.
    Whole,
    /// Of a command.
    Closed,
    Failed(String),
}

/// Where a stream's bytes come from.
enum Input {
    Fifo(Fifo),
    File(File),
    Command(ChildStdout),
}

/// A FIFO, locked because two readers would get parts of frames.
struct Fifo {
    path: PathBuf,
    file: File,
    /// The lock is of the FIFO, whichever opening of it holds it.
    lock: Locked,
}

impl Fifo {
    fn new(path: PathBuf, file: File) -> io::Result<Self> {
        let busy = || io::Error::new(io::ErrorKind::ResourceBusy, "another process reads it");
        let lock = Locked::new(file.try_clone()?).ok_or_else(busy)?;
        Ok(Fifo { path, file, lock })
    }

    /// Opens what has its name now, which may be another FIFO. A writer finds a reader at any time.
    fn reopen(&mut self) -> io::Result<()> {
        let (file, true) = fs::open_stream(&self.path)? else { return Err(io::Error::other("it is no FIFO any more")) };
        let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        if identity(&file)? == identity(self.lock.file())? {
            self.file = file;
        } else {
            *self = Fifo::new(std::mem::take(&mut self.path), file)?;
        }
        Ok(())
    }
}

impl Stream {
    /// Opens a FIFO, which need not have a writer yet, or a file of a stream.
    pub fn open(path: &Path, config: &config::Camera) -> Result<Self, Error> {
        let origin = path.display().to_string();
        let fail = |e: io::Error| Error::Open { origin: origin.clone(), reason: explain(&e) };
        let input = match fs::open_stream(path).map_err(fail)? {
            (file, true) => Input::Fifo(Fifo::new(path.to_owned(), file).map_err(fail)?),
            (file, false) => Input::File(file),
        };
        Self::start(origin.clone(), input, None, config).map_err(fail)
    }

    /// Starts a command that writes a stream to its standard output.
    pub fn exec(argv: &[String], config: &config::Camera) -> Result<Self, Error> {
        let origin = feeder::name(argv);
        let fail = |e: io::Error| {
            let reason = match e.kind() {
                io::ErrorKind::NotFound => "no such program: is it installed, is its path right?".into(),
                _ => e.to_string(),
            };
            Error::Open { origin: origin.clone(), reason }
        };
        let (feeder, output) = Feeder::start(argv).map_err(fail)?;
        Self::start(origin.clone(), Input::Command(output), Some(feeder), config).map_err(fail)
    }

    fn start(origin: String, input: Input, feeder: Option<Feeder>, config: &config::Camera) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (stopped, stop) = io::pipe()?;
        let filled = Arc::clone(&shared);
        let reader = std::thread::Builder::new().name("stream".into()).stack_size(STACK).spawn(move || {
            let ended = read(input, &stopped, &filled);
            filled.lock().ended = Some(ended);
            filled.changed.notify_all();
        })?;
        Ok(Stream {
            origin,
            crop: config.crop,
            keep_jpeg: config.keep_jpeg,
            shared,
            feeder,
            reader: Some(reader),
            stop: Some(stop),
            format: "no picture yet".into(),
        })
    }

    /// The newest picture, undecoded; None at the deadline.
    fn take(&self, deadline: Instant) -> Result<Option<Picture>, Ended> {
        let mut slot = self.shared.lock();
        loop {
            if let Some(picture) = slot.newest.take() {
                self.shared.changed.notify_all();
                return Ok(Some(picture));
            }
            if let Some(ended) = &slot.ended {
                return Err(ended.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            slot = self.shared.changed.wait_timeout(slot, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn decode(&self, picture: &Picture) -> Result<RgbImage, String> {
        let region = |width, height| match self.crop {
            Some(crop) => crop.region(width, height).map_err(|e| format!("camera.crop: {e}")),
            None => Ok([0, 0, width, height]),
        };
        match picture.kind {
            Kind::Planes(planes) => {
                planes.to_rgb(&picture.bytes, region(planes.width, planes.height)?).map_err(|e| e.to_string())
            }
            Kind::Jpeg => {
                let small = |width, height| width <= MAX_SIDE as usize && height <= MAX_SIDE as usize;
                let whole = jpeg::decode(&picture.bytes, small).map_err(|e| format!("damaged JPEG: {e}"))?;
                match self.crop {
                    Some(_) => image::crop(&whole, region(whole.width(), whole.height())?).map_err(|e| e.to_string()),
                    None => Ok(whole),
                }
            }
        }
    }
}

impl FrameSource for Stream {
    fn next(&mut self, deadline: Instant) -> Result<Option<Frame>, Error> {
        let mut unusable = None;
        loop {
            match self.take(deadline) {
                Ok(Some(taken)) => {
                    let decoded = self.decode(&taken);
                    let Picture { kind, bytes, sequence } = taken;
                    let kept = self.keep_jpeg && kind == Kind::Jpeg && decoded.is_ok();
                    let jpeg = kept.then(|| bytes.as_slice().into());
                    self.shared.lock().spare = bytes;
                    match decoded {
                        Ok(picture) => {
                            let name = if kind == Kind::Jpeg { "MJPEG" } else { "YUV4MPEG2" };
                            self.format = format!("{}x{} {name}", picture.width(), picture.height());
                            return Ok(Some(Frame { picture, jpeg, sequence, source: self.origin.clone() }));
                        }
                        Err(reason) => {
                            log::debug!("{}: dropped frame {sequence}: {reason}", self.origin);
                            unusable = Some(reason);
                        }
                    }
                }
                Ok(None) => {
                    let reason =
                        unusable.map_or_else(String::new, |reason| format!("; the last one was dropped: {reason}"));
                    return Err(Error::Timeout { origin: self.origin.clone(), reason });
                }
                Err(Ended::Whole) => return Ok(None),
                Err(ended) => {
                    let reason = match (ended, &mut self.feeder) {
                        (Ended::Failed(reason), _) => reason,
                        (_, Some(feeder)) => feeder.ended(),
                        (_, None) => "it ended".into(),
                    };
                    return Err(Error::Lost { origin: self.origin.clone(), reason });
                }
            }
        }
    }

    fn describe(&self) -> String {
        format!("{}: {}", self.origin, self.format)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        self.stop = None;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a picture there, and an old buffer in its place; `each`: only once the one before is taken.
    fn put(&self, kind: Kind, bytes: &mut Vec<u8>, each: bool) {
        let mut slot = self.lock();
        while each && slot.newest.is_some() && !slot.stopped {
            slot = self.changed.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
        let mut next = match slot.newest.take() {
            Some(passed_over) => passed_over.bytes,
            None => std::mem::take(&mut slot.spare),
        };
        next.clear();
        std::mem::swap(&mut next, bytes);
        let sequence = slot.sequence;
        slot.sequence += 1;
        slot.newest = Some(Picture { kind, bytes: next, sequence });
        self.changed.notify_all();
    }
}

/// Reads until the end of the input, or until `stopped` is closed.
fn read(mut input: Input, stopped: &io::PipeReader, shared: &Shared) -> Ended {
    let mut splitter = Splitter::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let readable = match &input {
            Input::Fifo(fifo) => wait(&fifo.file, stopped),
            Input::Command(output) => wait(output, stopped),
            Input::File(_) => Ok(!shared.lock().stopped),
        };
        let read = match readable {
            Ok(false) => return Ended::Closed,
            Err(e) => Err(e),
            Ok(true) => match &mut input {
                Input::Fifo(Fifo { file, .. }) | Input::File(file) => file.read(&mut chunk),
                Input::Command(output) => output.read(&mut chunk),
            },
        };
        let each = matches!(input, Input::File(_));
        match read {
            Ok(0) => match &mut input {
                // Its writer is gone; another's stream begins anew.
                Input::Fifo(fifo) => match fifo.reopen() {
                    Ok(()) => splitter = Splitter::new(),
                    Err(e) => return Ended::Failed(explain(&e)),
                },
                Input::File(_) => return Ended::Whole,
                Input::Command(_) => return Ended::Closed,
            },
            Ok(count) => {
                if let Err(reason) = splitter.push(&chunk[..count], |kind, bytes| shared.put(kind, bytes, each)) {
                    return Ended::Failed(reason);
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(e) => return Ended::Failed(e.to_string()),
        }
    }
}

/// Waits for bytes or the end of the input; false when `stopped` is closed.
fn wait(input: &impl AsFd, stopped: &io::PipeReader) -> io::Result<bool> {
    let mut waited = [PollFd::new(input, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
    poll(&mut waited, None)?;
    Ok(waited[1].revents().is_empty())
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it is not there: make it with `mkfifo`, or start the unit that feeds it".into(),
        io::ErrorKind::PermissionDenied => "no permission to read it".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
