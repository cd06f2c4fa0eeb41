//! A Video4Linux2 camera: memory-mapped streaming, the newest frame taken.
//!
//! The crate `v4l` panics on what it does not expect of a driver (control types, colour spaces, a failing
//! stop); [`guard`] turns that into an error of the camera.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use v4l::buffer::{Flags, Type};
use v4l::format::{Colorspace, Quantization};
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::io::mmap::Stream;
use v4l::io::traits::{CaptureStream, Stream as _};
use v4l::video::Capture;
use v4l::{Device, Format, FourCC};

use super::frame::{Error, Frame, FrameSource};
use super::negotiate::{self, Offer, Sizes};
use super::pixels::{self, Layout, Matrix};
use crate::config::{self, PixelFormat};

const BUFFERS: u32 = 4;
/// An older frame waited in the queue: it is passed over for the next.
const FRESH: Duration = Duration::from_millis(100);
/// `v4l` waits for ever unless told otherwise; a buffer is ready before it is asked for one.
const DEQUEUE: Duration = Duration::from_secs(2);
const ENODEV: i32 = 19;
const POLLIN: i16 = 1;
/// Where drivers pad NV12's planes, they pad them to so many lines.
const LINE_ALIGNMENT: usize = 16;

/// V4L2's codes of the formats that are read.
const FORMATS: [(&[u8; 4], PixelFormat); 6] = [
    (b"MJPG", PixelFormat::Mjpg),
    (b"JPEG", PixelFormat::Mjpg),
    (b"YUYV", PixelFormat::Yuyv),
    (b"NV12", PixelFormat::Nv12),
    (b"GREY", PixelFormat::Grey),
    (b"RGB3", PixelFormat::Rgb3),
];

/// An open camera.
pub struct Camera {
    origin: String,
    device: Device,
    stream: Option<Streaming>,
    /// As the driver answered, all that the layout hangs on.
    format: Format,
    layout: Layout,
    interval: Option<Duration>,
    region: [u32; 4],
    sequence: u64,
    opened: Instant,
    /// The least time from a buffer's stamp to its dequeue, in seconds of two clocks of unknown offset.
    least_lag: f64,
}

impl Camera {
    /// Opens a device, sets format and controls; streaming begins with the first frame asked for.
    pub fn open(path: &Path, config: &config::Camera) -> Result<Self, Error> {
        let origin = path.display().to_string();
        let fail = |reason: String| Error::Open { origin: origin.clone(), reason };
        let device = open_device(path).map_err(|e| fail(explain(&e)))?;
        let caps = guard(|| device.query_caps()).map_err(|e| fail(format!("it is no V4L2 device: {}", explain(&e))))?;
        use v4l::capability::Flags as Caps;
        if !caps.capabilities.contains(Caps::VIDEO_CAPTURE | Caps::STREAMING) {
            let multi =
                if caps.capabilities.contains(Caps::VIDEO_CAPTURE_MPLANE) { " (only multi-planar)" } else { "" };
            return Err(fail(format!("{} does not stream pictures{multi}; see `outlierd camera list`", caps.card)));
        }
        let offers = offers(&device, config.width, config.height).map_err(|e| fail(explain(&e)))?;
        let offer = negotiate::choose(&offers, config.format, config.width, config.height, config.interval)
            .ok_or_else(|| {
                fail(format!("it has no format that is wanted ({:?}); see `outlierd camera list`", config.format))
            })?;
        let format = set_format(&device, &offer).map_err(|e| fail(explain(&e)))?;
        let layout = layout(&format, offer.format);
        let (width, height) = (layout.width, layout.height);
        let region = config.crop.map_or(Ok([0, 0, width, height]), |crop| crop.region(width, height));
        let region = region.map_err(|e| fail(format!("camera.crop: {e}")))?;
        set_controls(&device, config).map_err(fail)?;
        Ok(Camera {
            origin,
            device,
            stream: None,
            format,
            layout,
            interval: offer.interval,
            region,
            sequence: 0,
            opened: Instant::now(),
            least_lag: f64::INFINITY,
        })
    }

    /// Waits for a frame that is fresh and whole.
    fn take(&mut self, deadline: Instant, unusable: &mut Option<String>) -> io::Result<Option<Frame>> {
        if self.stream.is_none() {
            self.stream = Some(Streaming::start(&self.device)?);
        }
        let mut stale = 0;
        loop {
            let Some(stream) = &mut self.stream else { return Ok(None) };
            if !stream.ready(deadline)? {
                return Ok(None);
            }
            let Some((bytes, meta)) = stream.next()? else { continue };
            // Asked after the buffer is filled: none of another format is read.
            if let Ok(now) = guard(|| self.device.format())
                && let Some(change) = change(&self.format, &now)
            {
                return Err(io::Error::other(change));
            }
            self.sequence += 1;
            let stamp = meta.timestamp.sec as f64 + meta.timestamp.usec as f64 / 1e6;
            let lag = self.opened.elapsed().as_secs_f64() - stamp;
            // Behind a queue's worth of old frames comes a new one, whatever its stamp says: the clock was set.
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
                    let (sequence, source) = (self.sequence, self.origin.clone());
                    return Ok(Some(Frame { picture, sequence, source }));
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
            Err(e) if e.raw_os_error() == Some(ENODEV) => {
                self.stream = None;
                Err(Error::Lost { origin: self.origin.clone(), reason: "unplugged".into() })
            }
            Err(e) => {
                self.stream = None;
                Err(Error::Lost { origin: self.origin.clone(), reason: explain(&e) })
            }
        }
    }

    fn describe(&self) -> String {
        let Layout { width, height, .. } = self.layout;
        let rate = self
            .interval
            .filter(|i| !i.is_zero())
            .map_or_else(String::new, |interval| format!(", up to {:.1} frames/s", 1.0 / interval.as_secs_f64()));
        format!("{}: {width}x{height} {}{rate}", self.origin, self.format.fourcc)
    }
}

/// A running stream. `v4l` gives a buffer's bytes only from `next`, which first gives the buffer before back to
/// the driver; so the first buffer is dequeued unseen, and `next` is called only when another is ready.
struct Streaming {
    stream: Option<Stream<'static>>,
    holding: bool,
}

impl Streaming {
    fn start(device: &Device) -> io::Result<Self> {
        let mut stream = guard(|| Stream::with_buffers(device, Type::VideoCapture, BUFFERS))?;
        guard(|| {
            stream.set_timeout(DEQUEUE);
            Ok(())
        })?;
        // A driver may give another number of buffers than asked for; the first index too many is EINVAL.
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
    fn ready(&mut self, deadline: Instant) -> io::Result<bool> {
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

    /// The filled buffer; None for the first, whose bytes cannot be had.
    fn next(&mut self) -> io::Result<Option<(&[u8], v4l::buffer::Metadata)>> {
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
    /// `Stream`'s own drop panics on any error but ENODEV. One that cannot be stopped is left to the kernel,
    /// which ends it with the process.
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        match guard(|| stream.stop()) {
            Err(e) if e.raw_os_error() != Some(ENODEV) => {
                log::warn!("cannot stop the camera's stream: {e}");
                std::mem::forget(stream);
            }
            _ => {
                if guard(move || {
                    drop(stream);
                    Ok(())
                })
                .is_err()
                {
                    log::warn!("cannot release the camera's buffers");
                }
            }
        }
    }
}

/// Runs a call of the crate `v4l`, a panic becoming an error.
fn guard<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(io::Error::other("the driver's answer is not understood")))
}

fn open_device(path: &Path) -> io::Result<Device> {
    guard(|| Device::with_path(path))
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it is not there: is the camera plugged in? see `outlierd camera list`".into(),
        io::ErrorKind::PermissionDenied => "no permission: be of the group `video`".into(),
        io::ErrorKind::ResourceBusy => "it is busy: another program uses the camera".into(),
        _ => error.to_string(),
    }
}

fn known(fourcc: FourCC) -> Option<PixelFormat> {
    FORMATS.iter().find(|(code, _)| FourCC::new(code) == fourcc).map(|(_, format)| *format)
}

/// Every format that can be read, each at its size nearest to the wanted one.
fn offers(device: &Device, width: u32, height: u32) -> io::Result<Vec<Offer>> {
    let mut offers = Vec::new();
    for description in guard(|| device.enum_formats())? {
        let Some(format) = known(description.fourcc) else { continue };
        let sizes = sizes(device, description.fourcc);
        let nearest = sizes.iter().map(|sizes| sizes.nearest(width, height));
        let nearest = nearest.min_by_key(|(w, h)| w.abs_diff(width).saturating_add(h.abs_diff(height)));
        // A driver that lists no sizes takes the wanted one or answers with its own.
        let (width, height) = nearest.unwrap_or((width, height));
        let interval = intervals(device, description.fourcc, width, height).into_iter().min();
        offers.push(Offer { format, width, height, interval });
    }
    Ok(offers)
}

fn sizes(device: &Device, fourcc: FourCC) -> Vec<Sizes> {
    let listed = guard(|| device.enum_framesizes(fourcc)).unwrap_or_default();
    let size = |size: FrameSizeEnum| match size {
        FrameSizeEnum::Discrete(d) => Sizes::Discrete { width: d.width, height: d.height },
        FrameSizeEnum::Stepwise(s) => Sizes::Stepwise {
            min: [s.min_width, s.min_height],
            max: [s.max_width, s.max_height],
            step: [s.step_width, s.step_height],
        },
    };
    listed.into_iter().map(|listed| size(listed.size)).collect()
}

fn intervals(device: &Device, fourcc: FourCC, width: u32, height: u32) -> Vec<Duration> {
    let seconds = |fraction: &v4l::Fraction| {
        Duration::try_from_secs_f64(f64::from(fraction.numerator) / f64::from(fraction.denominator)).ok()
    };
    let listed = guard(|| device.enum_frameintervals(fourcc, width, height)).unwrap_or_default();
    let shortest = listed.iter().map(|listed| match &listed.interval {
        FrameIntervalEnum::Discrete(fraction) => seconds(fraction),
        FrameIntervalEnum::Stepwise(stepwise) => seconds(&stepwise.min),
    });
    shortest.flatten().collect()
}

fn set_format(device: &Device, offer: &Offer) -> io::Result<Format> {
    let mut answered = None;
    for (code, _) in FORMATS.iter().filter(|(_, format)| *format == offer.format) {
        let wanted = Format::new(offer.width, offer.height, FourCC::new(code));
        let got = guard(|| device.set_format(&wanted))?;
        if known(got.fourcc) == Some(offer.format) {
            return Ok(got);
        }
        answered = Some(got.fourcc);
    }
    let got = answered.map_or_else(String::new, |fourcc| fourcc.to_string());
    Err(io::Error::other(format!("asked for {:?} it answers with {got}", offer.format)))
}

/// What a source that changes under way (HDMI, another program) has changed.
fn change(set: &Format, now: &Format) -> Option<String> {
    let geometry = |format: &Format| (format.width, format.height, format.fourcc, format.stride);
    let words = |format: &Format| {
        let Format { width, height, fourcc, stride, .. } = format;
        format!("{width}x{height} {fourcc} of {stride} bytes a line")
    };
    (geometry(set) != geometry(now)).then(|| format!("its format changed from {} to {}", words(set), words(now)))
}

fn layout(format: &Format, pixel_format: PixelFormat) -> Layout {
    let mut layout = Layout::packed(pixel_format, format.width, format.height);
    layout.stride = (format.stride as usize).max(layout.stride);
    layout.matrix = if matches!(format.colorspace, Colorspace::Rec709) { Matrix::Bt709 } else { Matrix::Bt601 };
    layout.full_range = match format.quantization {
        Quantization::FullRange => true,
        Quantization::LimitedRange => false,
        Quantization::Default => matches!(format.colorspace, Colorspace::JPEG),
    };
    layout.plane_lines = plane_lines(format.height, layout.stride, format.size as usize);
    layout
}

/// Lines of a padded Y plane, from the size of the image: 3/2 of them fill it exactly.
fn plane_lines(height: u32, stride: usize, size: usize) -> u32 {
    let lines = size * 2 / (stride.max(1) * 3);
    let exact = lines * stride * 3 == size * 2 && lines.is_multiple_of(LINE_ALIGNMENT);
    let padded = lines > height as usize && lines < height as usize + 2 * LINE_ALIGNMENT;
    if exact && padded { lines as u32 } else { height }
}

/// Pins controls by name. Those that switch an automatic off come first: what they steer is refused until then.
fn set_controls(device: &Device, config: &config::Camera) -> Result<(), String> {
    if config.controls.is_empty() {
        return Ok(());
    }
    let offered = guard(|| device.query_controls()).map_err(|e| format!("cannot list its controls: {e}"))?;
    let mut wanted: Vec<_> = config.controls.iter().collect();
    wanted.sort_by_key(|(name, _)| !name.contains("auto"));
    for (name, &value) in wanted {
        let settable = || offered.iter().filter(|control| is_settable(control));
        let Some(control) = settable().find(|control| control_name(&control.name) == *name) else {
            let names: Vec<String> = settable().map(|control| control_name(&control.name)).collect();
            return Err(format!("it has no control {name}; it has {}", names.join(", ")));
        };
        if value < control.minimum || value > control.maximum {
            let (low, high) = (control.minimum, control.maximum);
            return Err(format!("its control {name} goes from {low} to {high}, not to {value}"));
        }
        let value = v4l::control::Value::Integer(value);
        guard(|| device.set_control(v4l::Control { id: control.id, value }))
            .map_err(|e| format!("cannot set its control {name}: {e}"))?;
    }
    Ok(())
}

fn is_settable(control: &v4l::control::Description) -> bool {
    use v4l::control::Type as Kind;
    matches!(control.typ, Kind::Integer | Kind::Boolean | Kind::Menu | Kind::Integer64 | Kind::IntegerMenu)
}

/// `Exposure Time, Absolute` is `exposure_time_absolute`, as in v4l2-ctl.
fn control_name(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}

/// A device and what it offers.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Listed {
    pub path: String,
    pub card: String,
    pub driver: String,
    pub formats: Vec<ListedFormat>,
    pub controls: Vec<ListedControl>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ListedFormat {
    /// V4L2's code.
    pub format: String,
    /// Whether it can be read here.
    pub readable: bool,
    pub sizes: Vec<ListedSize>,
}

/// One size, or the ends of a range.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ListedSize {
    pub size: String,
    /// Frames per second, fastest first.
    pub rates: Vec<f64>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ListedControl {
    pub name: String,
    pub minimum: i64,
    pub maximum: i64,
    pub default: i64,
}

/// The video devices that give pictures, by number; a device that cannot be opened is an error of its own.
pub fn list() -> Vec<Result<Listed, Error>> {
    let mut nodes: Vec<_> = std::fs::read_dir("/dev").map_or_else(
        |_| Vec::new(),
        |entries| {
            let path = |entry: io::Result<std::fs::DirEntry>| Some(entry.ok()?.path());
            let number = |path: std::path::PathBuf| {
                let number = path.file_name()?.to_str()?.strip_prefix("video")?.parse::<u32>().ok()?;
                Some((number, path))
            };
            entries.filter_map(path).filter_map(number).collect()
        },
    );
    nodes.sort();
    nodes.into_iter().filter_map(|(_, path)| describe(&path).transpose()).collect()
}

/// None for a device that does not give pictures.
fn describe(path: &Path) -> Result<Option<Listed>, Error> {
    let fail = |e: io::Error| Error::Open { origin: path.display().to_string(), reason: explain(&e) };
    let device = open_device(path).map_err(fail)?;
    let caps = guard(|| device.query_caps()).map_err(fail)?;
    if !caps.capabilities.contains(v4l::capability::Flags::VIDEO_CAPTURE) {
        return Ok(None);
    }
    let mut formats = Vec::new();
    for description in guard(|| device.enum_formats()).map_err(fail)? {
        let fourcc = description.fourcc;
        let sizes = sizes(&device, fourcc).into_iter().map(|sizes| {
            let (size, (width, height)) = match sizes {
                Sizes::Discrete { width, height } => (format!("{width}x{height}"), (width, height)),
                Sizes::Stepwise { min, max, .. } => {
                    (format!("{}x{} to {}x{}", min[0], min[1], max[0], max[1]), (max[0], max[1]))
                }
            };
            let mut intervals = intervals(&device, fourcc, width, height);
            intervals.sort();
            intervals.dedup();
            let rates = intervals.iter().filter(|i| !i.is_zero()).map(|i| (10.0 / i.as_secs_f64()).round() / 10.0);
            ListedSize { size, rates: rates.collect() }
        });
        let sizes = sizes.collect();
        formats.push(ListedFormat { format: fourcc.to_string(), readable: known(fourcc).is_some(), sizes });
    }
    // A device without controls answers with an error.
    let controls = guard(|| device.query_controls()).unwrap_or_default();
    let controls = controls.iter().filter(|control| is_settable(control)).map(|control| ListedControl {
        name: control_name(&control.name),
        minimum: control.minimum,
        maximum: control.maximum,
        default: control.default,
    });
    let controls = controls.collect();
    Ok(Some(Listed { path: path.display().to_string(), card: caps.card, driver: caps.driver, formats, controls }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_names_are_those_of_v4l2_ctl() {
        assert_eq!(control_name("Exposure Time, Absolute"), "exposure_time_absolute");
        assert_eq!(control_name("White Balance, Automatic"), "white_balance_automatic");
    }

    #[test]
    fn padded_planes_are_seen_in_the_image_size() {
        assert_eq!(plane_lines(480, 640, 640 * 480 * 3 / 2), 480);
        assert_eq!(plane_lines(1080, 1920, 1920 * 1088 * 3 / 2), 1088);
        assert_eq!(plane_lines(480, 640, 462_848), 480);
        assert_eq!(plane_lines(480, 640, 0), 480);
        assert_eq!(plane_lines(480, 0, 100), 480);
    }

    #[test]
    fn fault_a_format_that_changes_under_way_is_noticed() {
        let set = Format { stride: 1280, ..Format::new(640, 480, FourCC::new(b"YUYV")) };
        assert_eq!(change(&set, &set), None);
        assert_eq!(change(&set, &Format { field_order: v4l::format::FieldOrder::Any, ..set }), None);
        for other in [
            Format { width: 1920, ..set },
            Format { height: 576, ..set },
            Format { stride: 1536, ..set },
            Format { fourcc: FourCC::new(b"UYVY"), ..set },
        ] {
            let told = change(&set, &other).unwrap();
            assert!(told.starts_with("its format changed from 640x480 YUYV of 1280 bytes a line to "), "{told}");
        }
    }

    #[test]
    fn devices_that_are_none_are_named() {
        let config = config::Camera::default();
        let error = Camera::open(Path::new("/dev/nonexistent-video"), &config).err().unwrap().to_string();
        assert!(error.contains("/dev/nonexistent-video") && error.contains("is the camera plugged in"), "{error}");
        let error = Camera::open(Path::new("/dev/null"), &config).err().unwrap().to_string();
        assert!(error.contains("it is no V4L2 device"), "{error}");
    }

    #[test]
    fn a_panic_of_the_crate_is_an_error() {
        assert!(guard::<()>(|| panic!("unexpected")).is_err());
    }
}
