//! A Video4Linux2 camera: memory-mapped streaming; of the frames that wait, the newest is taken.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use v4l::buffer::Flags;
use v4l::video::Capture;
use v4l::{Device, Format};

use self::device::{change, explain, guard};
use self::stream::{BUFFERS, ENODEV, Streaming};
use super::frame::{Error, Frame, FrameSource};
use super::negotiate;
use super::pixels::{self, Layout};
use crate::config;

mod device;
mod list;
mod stream;

pub use list::{Listed, list};

/// A frame that is older waited in the queue: the next one is taken instead.
const FRESH: Duration = Duration::from_millis(100);

/// An open camera.
pub struct Camera {
    origin: String,
    device: Device,
    stream: Option<Streaming>,
    /// As the driver set it; the layout follows from it.
    format: Format,
    layout: Layout,
    interval: Option<Duration>,
    region: [u32; 4],
    keep_jpeg: bool,
    sequence: u64,
    opened: Instant,
    /// The least time from a buffer's timestamp to its dequeue, in seconds; the offset of the two clocks is unknown.
    least_lag: f64,
}

impl Camera {
    /// Opens a device, sets format and controls; streaming begins with the first frame asked for.
    pub fn open(path: &Path, config: &config::Camera) -> Result<Self, Error> {
        let origin = path.display().to_string();
        let fail = |reason: String| Error::Open { origin: origin.clone(), reason };
        let device = device::open(path).map_err(|e| fail(explain(&e)))?;
        let caps = guard(|| device.query_caps()).map_err(|e| fail(format!("it is no V4L2 device: {}", explain(&e))))?;
        use v4l::capability::Flags as Caps;
        if !caps.capabilities.contains(Caps::VIDEO_CAPTURE | Caps::STREAMING) {
            let multi =
                if caps.capabilities.contains(Caps::VIDEO_CAPTURE_MPLANE) { " (only multi-planar)" } else { "" };
            return Err(fail(format!("{} does not stream pictures{multi}; see `outlierd camera list`", caps.card)));
        }
        let offers = device::offers(&device, config.width, config.height).map_err(|e| fail(explain(&e)))?;
        let offer = negotiate::choose(&offers, config.format, config.width, config.height, config.interval)
            .ok_or_else(|| {
                fail(format!("it has no format that is wanted ({:?}); see `outlierd camera list`", config.format))
            })?;
        let format = device::set_format(&device, &offer).map_err(|e| fail(explain(&e)))?;
        let layout = device::layout(&format, offer.format);
        let (width, height) = (layout.width, layout.height);
        let region = config.crop.map_or(Ok([0, 0, width, height]), |crop| crop.region(width, height));
        let region = region.map_err(|e| fail(format!("camera.crop: {e}")))?;
        device::set_controls(&device, config).map_err(fail)?;
        Ok(Camera {
            origin,
            device,
            stream: None,
            format,
            layout,
            interval: offer.interval,
            region,
            keep_jpeg: config.keep_jpeg && offer.format == config::PixelFormat::Mjpg,
            sequence: 0,
            opened: Instant::now(),
            least_lag: f64::INFINITY,
        })
    }

    /// Waits for a frame that is fresh and whole.
    fn take(&mut self, deadline: Instant, unusable: &mut Option<String>) -> io::Result<Option<Frame>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(Streaming::start(&self.device)?),
        };
        let mut stale = 0;
        loop {
            if !stream.ready(deadline)? {
                return Ok(None);
            }
            let Some((bytes, meta)) = stream.next()? else { continue };
            // Asked after the buffer was filled, so that none of another format is read.
            if let Ok(now) = guard(|| self.device.format())
                && let Some(change) = change(&self.format, &now)
            {
                return Err(io::Error::other(change));
            }
            self.sequence += 1;
            let stamp = meta.timestamp.sec as f64 + meta.timestamp.usec as f64 / 1e6;
            let lag = self.opened.elapsed().as_secs_f64() - stamp;
            // After a whole queue of stale frames the next one is fresh, whatever its timestamp: the clock was set.
            self.least_lag = if stale < BUFFERS { self.least_lag.min(lag) } else { lag };
            let age = Duration::try_from_secs_f64(lag - self.least_lag).unwrap_or_default();
            let used = &bytes[..bytes.len().min(meta.bytesused as usize)];
            let picture = if meta.flags.contains(Flags::ERROR) {
                Err("the driver marks it as damaged".to_owned())
            } else if age > FRESH {
                stale += 1;
                continue;
            } else {
                pixels::to_rgb(&self.layout, used, self.region).map_err(|e| e.to_string())
            };
            match picture {
                Ok(picture) => {
                    let jpeg = self.keep_jpeg.then(|| used.into());
                    let (sequence, source) = (self.sequence, self.origin.clone());
                    return Ok(Some(Frame { picture, jpeg, sequence, source }));
                }
                Err(reason) => {
                    log::debug!("{}: dropped frame {}: {reason}", self.origin, self.sequence);
                    *unusable = Some(reason);
                }
            }
        }
    }
}

impl FrameSource for Camera {
    fn next(&mut self, deadline: Instant) -> Result<Option<Frame>, Error> {
        let mut unusable = None;
        match self.take(deadline, &mut unusable) {
            Ok(Some(frame)) => Ok(Some(frame)),
            Ok(None) => {
                let reason =
                    unusable.map_or_else(String::new, |reason| format!("; the last one was dropped: {reason}"));
                Err(Error::Timeout { origin: self.origin.clone(), reason })
            }
            Err(e) => {
                self.stream = None;
                let unplugged = e.raw_os_error() == Some(ENODEV);
                let reason = if unplugged { "unplugged".into() } else { explain(&e) };
                Err(Error::Lost { origin: self.origin.clone(), reason })
            }
        }
    }

    fn describe(&self) -> String {
        let Layout { width, height, .. } = self.layout;
        let interval = self.interval.filter(|interval| !interval.is_zero());
        let rate = interval.map_or_else(String::new, |i| format!(", up to {:.1} frames/s", 1.0 / i.as_secs_f64()));
        format!("{}: {width}x{height} {}{rate}", self.origin, self.format.fourcc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_cannot_be_opened_is_named() {
        let config = config::Camera::default();
        let error = Camera::open(Path::new("/dev/nonexistent-video"), &config).err().unwrap().to_string();
        assert!(error.contains("/dev/nonexistent-video") && error.contains("is the camera plugged in"), "{error}");
        let error = Camera::open(Path::new("/dev/null"), &config).err().unwrap().to_string();
        assert!(error.contains("it is no V4L2 device"), "{error}");
    }
}
