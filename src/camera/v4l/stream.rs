//! A running stream of a camera's buffers.

use std::io;
use std::time::{Duration, Instant};

use v4l::Device;
use v4l::buffer::{Metadata, Type};
use v4l::io::mmap::Stream;
use v4l::io::traits::{CaptureStream, Stream as _};

use super::device::guard;

pub(super) const BUFFERS: u32 = 4;
/// Without a limit `v4l` waits for ever; a buffer is ready before it is asked for one.
const DEQUEUE: Duration = Duration::from_secs(2);
pub(super) const ENODEV: i32 = 19;
const POLLIN: i16 = 1;

/// `v4l` gives a buffer's bytes only from `next`, which first returns the previous buffer to the driver. So the first
/// buffer is dequeued unseen, and `next` is called only when another is ready.
pub(super) struct Streaming {
    stream: Option<Stream<'static>>,
    holding: bool,
}

impl Streaming {
    pub(super) fn start(device: &Device) -> io::Result<Self> {
        let mut stream = guard(|| Stream::with_buffers(device, Type::VideoCapture, BUFFERS))?;
        guard(|| {
            stream.set_timeout(DEQUEUE);
            Ok(())
        })?;
        // A driver may give more or fewer buffers than asked for; the first index beyond the last is EINVAL.
        let mut queued = 0;
        while queued < 32 && guard(|| CaptureStream::queue(&mut stream, queued)).is_ok() {
            queued += 1;
        }
        let mut streaming = Streaming { stream: Some(stream), holding: false };
        if queued == 0 {
            return Err(io::Error::other("the driver gave no buffers"));
        }
        let Some(stream) = &mut streaming.stream else { return Err(io::Error::other("no stream")) };
        guard(|| stream.start())?;
        Ok(streaming)
    }

    /// Waits until a buffer is filled; false at the deadline.
    pub(super) fn ready(&mut self, deadline: Instant) -> io::Result<bool> {
        let Some(stream) = &self.stream else { return Ok(false) };
        let handle = stream.handle();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match guard(|| handle.poll(POLLIN, left.as_millis().min(60_000) as i32)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The filled buffer; None for the first, whose bytes `v4l` does not give.
    pub(super) fn next(&mut self) -> io::Result<Option<(&[u8], Metadata)>> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        if !self.holding {
            guard(|| CaptureStream::dequeue(stream))?;
            self.holding = true;
            return Ok(None);
        }
        let (bytes, meta) = guard(|| CaptureStream::next(stream))?;
        Ok(Some((bytes, *meta)))
    }
}

impl Drop for Streaming {
    /// `Stream`'s own drop panics on any error but ENODEV. A stream that cannot be stopped is left to the kernel,
    /// which ends it with the process.
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        match guard(|| stream.stop()) {
            Err(e) if e.raw_os_error() != Some(ENODEV) => {
                log::warn!("cannot stop the camera's stream: {e}");
                std::mem::forget(stream);
            }
            _ => {
                let released = guard(move || {
                    drop(stream);
                    Ok(())
                });
                if released.is_err() {
                    log::warn!("cannot release the camera's buffers");
                }
            }
        }
    }
}
