//! A video device: what it offers, and how it is set up.
//!
//! The crate `v4l` panics on answers of a driver that it does not expect (control types, colour spaces, a failing
//! stop); [`guard`] turns that into an error.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use v4l::format::{Colorspace, Quantization};
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::video::Capture;
use v4l::{Device, Format, FourCC};

use crate::camera::negotiate::{Offer, Sizes};
use crate::camera::pixels::{Layout, Matrix};
use crate::config::{self, PixelFormat};

/// Drivers that pad NV12's planes pad them to a multiple of this many lines.
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

/// Runs a call of the crate `v4l`; a panic becomes an error.
pub(super) fn guard<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(io::Error::other("the driver's answer is not understood")))
}

pub(super) fn open(path: &Path) -> io::Result<Device> {
    guard(|| Device::with_path(path))
}

pub(super) fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it is not there: is the camera plugged in? see `outlierd camera list`".into(),
        io::ErrorKind::PermissionDenied => "no permission: be of the group `video`".into(),
        io::ErrorKind::ResourceBusy => "it is busy: another program uses the camera".into(),
        _ => error.to_string(),
    }
}

pub(super) fn known(fourcc: FourCC) -> Option<PixelFormat> {
    FORMATS.iter().find(|(code, _)| FourCC::new(code) == fourcc).map(|(_, format)| *format)
}

/// Every format that can be read, each at its size nearest to the wanted one.
pub(super) fn offers(device: &Device, width: u32, height: u32) -> io::Result<Vec<Offer>> {
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

pub(super) fn sizes(device: &Device, fourcc: FourCC) -> Vec<Sizes> {
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

pub(super) fn intervals(device: &Device, fourcc: FourCC, width: u32, height: u32) -> Vec<Duration> {
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

pub(super) fn set_format(device: &Device, offer: &Offer) -> io::Result<Format> {
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

/// How the format differs from the one that was set: an HDMI source or another program may change it while streaming.
pub(super) fn change(set: &Format, now: &Format) -> Option<String> {
    let geometry = |format: &Format| (format.width, format.height, format.fourcc, format.stride);
    let words = |format: &Format| {
        let Format { width, height, fourcc, stride, .. } = format;
        format!("{width}x{height} {fourcc} of {stride} bytes a line")
    };
    (geometry(set) != geometry(now)).then(|| format!("its format changed from {} to {}", words(set), words(now)))
}

pub(super) fn layout(format: &Format, pixel_format: PixelFormat) -> Layout {
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

/// Lines of a padded Y plane, found from the size of the image: 3/2 times as many fill it exactly.
fn plane_lines(height: u32, stride: usize, size: usize) -> u32 {
    let lines = size * 2 / (stride.max(1) * 3);
    let exact = lines * stride * 3 == size * 2 && lines.is_multiple_of(LINE_ALIGNMENT);
    let padded = lines > height as usize && lines < height as usize + 2 * LINE_ALIGNMENT;
    if exact && padded { lines as u32 } else { height }
}

/// Sets controls by name, those of an automatic first: drivers refuse the manual value while it is on.
pub(super) fn set_controls(device: &Device, config: &config::Camera) -> Result<(), String> {
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

pub(super) fn is_settable(control: &v4l::control::Description) -> bool {
    use v4l::control::Type as Kind;
    matches!(control.typ, Kind::Integer | Kind::Boolean | Kind::Menu | Kind::Integer64 | Kind::IntegerMenu)
}

/// `Exposure Time, Absolute` is `exposure_time_absolute`, as in v4l2-ctl.
pub(super) fn control_name(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
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
    fn fault_a_format_that_changes_while_streaming_is_noticed() {
        let set = Format { stride: 1280, ..Format::new(640, 480, FourCC::new(b"YUYV")) };
        assert_eq!(change(&set, &set), None);
        assert_eq!(change(&set, &Format { field_order: v4l::format::FieldOrder::Any, ..set }), None);
        for other in [
            Format { width: 1920, ..set },
            Format { height: 576, ..set },
            Format { stride: 1536, ..set },
            Format { fourcc: FourCC::new(b"UYVY"), ..set },
        ] {
            let message = change(&set, &other).unwrap();
            assert!(message.starts_with("its format changed from 640x480 YUYV of 1280 bytes a line to "), "{message}");
        }
    }

    #[test]
    fn a_panic_of_the_crate_is_an_error() {
        assert!(guard::<()>(|| panic!("unexpected")).is_err());
    }
}
