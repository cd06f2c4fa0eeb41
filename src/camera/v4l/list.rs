//! The video devices of this machine and what they offer.

use std::io;
use std::path::{Path, PathBuf};

use v4l::video::Capture;

use super::device::{self, explain, guard};
use crate::camera::frame::Error;
use crate::camera::negotiate::Sizes;

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

/// The video devices that capture pictures, by number; one that cannot be opened is an error in its place.
pub fn list() -> Vec<Result<Listed, Error>> {
    let node = |entry: io::Result<std::fs::DirEntry>| -> Option<(u32, PathBuf)> {
        let path = entry.ok()?.path();
        let number = path.file_name()?.to_str()?.strip_prefix("video")?.parse().ok()?;
        Some((number, path))
    };
    let mut nodes: Vec<_> = std::fs::read_dir("/dev").into_iter().flatten().filter_map(node).collect();
    nodes.sort();
    nodes.into_iter().filter_map(|(_, path)| describe(&path).transpose()).collect()
}

/// None for a device that does not capture pictures.
fn describe(path: &Path) -> Result<Option<Listed>, Error> {
    let fail = |e: io::Error| Error::Open { origin: path.display().to_string(), reason: explain(&e) };
    let device = device::open(path).map_err(fail)?;
    let caps = guard(|| device.query_caps()).map_err(fail)?;
    if !caps.capabilities.contains(v4l::capability::Flags::VIDEO_CAPTURE) {
        return Ok(None);
    }
    let mut formats = Vec::new();
    for description in guard(|| device.enum_formats()).map_err(fail)? {
        let fourcc = description.fourcc;
        let sizes = device::sizes(&device, fourcc).into_iter().map(|sizes| {
            let (size, (width, height)) = match sizes {
                Sizes::Discrete { width, height } => (format!("{width}x{height}"), (width, height)),
                Sizes::Stepwise { min, max, .. } => {
                    (format!("{}x{} to {}x{}", min[0], min[1], max[0], max[1]), (max[0], max[1]))
                }
            };
            let mut intervals = device::intervals(&device, fourcc, width, height);
            intervals.sort();
            intervals.dedup();
            let rates = intervals.iter().filter(|i| !i.is_zero()).map(|i| (10.0 / i.as_secs_f64()).round() / 10.0);
            ListedSize { size, rates: rates.collect() }
        });
        let sizes = sizes.collect();
        formats.push(ListedFormat { format: fourcc.to_string(), readable: device::known(fourcc).is_some(), sizes });
    }
    // A device without controls answers with an error.
    let controls = guard(|| device.query_controls()).unwrap_or_default();
    let controls = controls.iter().filter(|control| device::is_settable(control)).map(|control| ListedControl {
        name: device::control_name(&control.name),
        minimum: control.minimum,
        maximum: control.maximum,
        default: control.default,
    });
    let controls = controls.collect();
    Ok(Some(Listed { path: path.display().to_string(), card: caps.card, driver: caps.driver, formats, controls }))
}
