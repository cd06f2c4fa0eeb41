//! A GPIO line that shows the outlier, through the character device (uAPI v2).
//!
//! A stop drives the line inactive. Where the process is killed the kernel takes the line back and may keep its value:
//! the service runs `outlierd release` then.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gpiocdev::Request;
use gpiocdev::chip::Chip;
use gpiocdev::line::Value;

use super::output::{Failure, Output};
use crate::config::{self, Active, Config, Line, Mode};
use crate::watch::frame::status::Status;

/// The name under which the lines are held.
pub const CONSUMER: &str = "outlierd";

/// A line that cannot be had or driven.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open the GPIO chip {}: {reason}", chip.display())]
    Chip { chip: PathBuf, reason: String },
    #[error("{} has no line {line}: see its lines with `gpioinfo`", chip.display())]
    NoLine { chip: PathBuf, line: String },
    #[error("line {line} of {} is used by {consumer:?}: stop that, or take another line", chip.display())]
    Used { chip: PathBuf, line: String, consumer: String },
    #[error("cannot drive line {line} of {}: {reason}", chip.display())]
    Line { chip: PathBuf, line: String, reason: String },
}

/// The lines of the config, if it has any: they follow the status.
#[derive(Debug)]
pub struct Gpio {
    lines: Option<Lines>,
    /// What they were opened with.
    config: Option<config::Gpio>,
    raised: bool,
    /// Frames judged and skipped.
    frames: u64,
}

impl Gpio {
    /// Takes the lines of the config as outputs, inactive.
    pub fn open(config: Option<&config::Gpio>) -> Result<Self, Error> {
        let lines = config.map(Lines::open).transpose()?;
        Ok(Gpio { lines, config: config.cloned(), raised: false, frames: 0 })
    }

    fn drive(&mut self, action: impl FnOnce(&mut Lines) -> Result<(), Error>) -> Option<Failure> {
        let driven = action(self.lines.as_mut()?);
        driven.err().map(|e| Failure::Announced(e.to_string()))
    }
}

impl Output for Gpio {
    /// The old lines are released first: the new ones may be the same.
    fn reconfigure(&mut self, config: &Config) -> Result<Vec<Failure>, String> {
        if config.gpio == self.config {
            return Ok(Vec::new());
        }
        (self.lines, self.config) = (None, None);
        let opened = Gpio::open(config.gpio.as_ref()).map_err(|e| e.to_string())?;
        (self.lines, self.config) = (opened.lines, opened.config);
        let shown = self.raised.then(|| self.drive(|lines| lines.show(true))).flatten();
        Ok(shown.into_iter().collect())
    }

    fn update(&mut self, status: &Status) -> Vec<Failure> {
        let frames = status.summary.frames + status.summary.skipped;
        let beat = (std::mem::replace(&mut self.frames, frames) != frames).then(|| self.drive(Lines::beat));
        let changed = std::mem::replace(&mut self.raised, status.raised) != status.raised;
        let shown = changed.then(|| self.drive(|lines| lines.show(status.raised)));
        [beat, shown].into_iter().flatten().flatten().collect()
    }

    fn attend(&mut self, _: &Status) -> Vec<Failure> {
        self.drive(Lines::attend).into_iter().collect()
    }

    fn due(&self) -> Option<Instant> {
        self.lines.as_ref()?.pulse_ends
    }

    fn finish(&mut self, _: &Status) -> Vec<Failure> {
        let released = self.drive(Lines::release);
        self.lines = None;
        released.into_iter().collect()
    }
}

/// The outlier's line, and the heartbeat's.
#[derive(Debug)]
pub struct Lines {
    outlier: Pin,
    heartbeat: Option<Pin>,
    mode: Mode,
    pulse: Duration,
    pulse_ends: Option<Instant>,
}

#[derive(Debug)]
struct Pin {
    request: Request,
    offset: u32,
    chip: PathBuf,
    line: String,
    active: bool,
}

impl Lines {
    /// Takes the lines as outputs, inactive.
    pub fn open(config: &config::Gpio) -> Result<Self, Error> {
        let heartbeat = config.heartbeat.as_ref().map(|line| Pin::open(&config.chip, line, config.active));
        Ok(Lines {
            outlier: Pin::open(&config.chip, &config.line, config.active)?,
            heartbeat: heartbeat.transpose()?,
            mode: config.mode,
            pulse: config.pulse,
            pulse_ends: None,
        })
    }

    /// Shows whether an event stands.
    pub fn show(&mut self, raised: bool) -> Result<(), Error> {
        match self.mode {
            Mode::Hold => self.outlier.set(raised),
            Mode::Pulse if raised => {
                self.pulse_ends = Some(Instant::now() + self.pulse);
                self.outlier.set(true)
            }
            Mode::Pulse => Ok(()),
        }
    }

    /// Ends a pulse whose time is over.
    pub fn attend(&mut self) -> Result<(), Error> {
        if self.pulse_ends.is_some_and(|end| Instant::now() >= end) {
            self.pulse_ends = None;
            return self.outlier.set(false);
        }
        Ok(())
    }

    /// Toggles the heartbeat line: a frame was judged.
    pub fn beat(&mut self) -> Result<(), Error> {
        match &mut self.heartbeat {
            Some(line) => line.set(!line.active),
            None => Ok(()),
        }
    }

    /// Drives both lines inactive.
    pub fn release(&mut self) -> Result<(), Error> {
        self.pulse_ends = None;
        self.outlier.set(false)?;
        self.heartbeat.as_mut().map_or(Ok(()), |line| line.set(false))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Err(e) = self.release() {
            log::error!("{e}");
        }
    }
}

impl Pin {
    fn open(chip: &Path, line: &Line, active: Active) -> Result<Self, Error> {
        let offset = find(chip, line)?;
        let mut builder = Request::builder();
        builder.on_chip(chip).with_consumer(CONSUMER).with_line(offset).as_output(Value::Inactive);
        match active {
            Active::High => builder.as_active_high(),
            Active::Low => builder.as_active_low(),
        };
        let (chip, line) = (chip.to_owned(), line.to_string());
        match builder.request() {
            Ok(request) => Ok(Pin { request, offset, chip, line, active: false }),
            Err(e) => Err(Error::Line { chip, line, reason: e.to_string() }),
        }
    }

    fn set(&mut self, active: bool) -> Result<(), Error> {
        let value = if active { Value::Active } else { Value::Inactive };
        match self.request.set_value(self.offset, value) {
            Ok(()) => {
                self.active = active;
                Ok(())
            }
            Err(e) => Err(Error::Line { chip: self.chip.clone(), line: self.line.clone(), reason: e.to_string() }),
        }
    }
}

/// The offset of a line, which must be there and free.
pub fn find(chip: &Path, line: &Line) -> Result<u32, Error> {
    match seek(chip, line)? {
        (offset, None) => Ok(offset),
        (_, Some(consumer)) => Err(Error::Used { chip: chip.to_owned(), line: line.to_string(), consumer }),
    }
}

/// The offset of a line, used or not.
pub fn offset(chip: &Path, line: &Line) -> Result<u32, Error> {
    seek(chip, line).map(|(offset, _)| offset)
}

/// The offset of a line, and who uses it.
fn seek(chip: &Path, line: &Line) -> Result<(u32, Option<String>), Error> {
    let chip_error = |e: gpiocdev::Error| Error::Chip { chip: chip.to_owned(), reason: e.to_string() };
    let device = Chip::from_path(chip).map_err(chip_error)?;
    let count = device.info().map_err(chip_error)?.num_lines;
    for offset in 0..count {
        let info = device.line_info(offset).map_err(chip_error)?;
        let wanted = match line {
            Line::Number(number) => *number == offset,
            Line::Name(name) => *name == info.name,
        };
        if wanted {
            return Ok((offset, info.used.then_some(info.consumer)));
        }
    }
    Err(Error::NoLine { chip: chip.to_owned(), line: line.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_chip_is_named() {
        let config = config::Gpio { chip: "/nonexistent/gpiochip9".into(), ..config::Gpio::default() };
        let message = Lines::open(&config).unwrap_err().to_string();
        assert!(message.starts_with("cannot open the GPIO chip /nonexistent/gpiochip9"), "{message}");
        let config = config::Gpio { chip: "/dev/null".into(), ..config };
        assert!(matches!(Lines::open(&config), Err(Error::Chip { .. })));
    }
}
