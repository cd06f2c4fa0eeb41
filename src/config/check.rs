//! Whether the values of a config make sense.

use std::time::Duration;

use super::clips::Clips;
use super::decision::LONGEST_RUN;
use super::mqtt::Mqtt;
use super::{Config, Error, Line, Mode, Source, Span};

/// A longer time between frames is a mistake.
const MAX_INTERVAL: Duration = Duration::from_secs(7 * 86_400);
/// In a smaller window a block holds fewer than five frames.
const MIN_FRAMES: u32 = 60;
const MIN_TIME: Duration = Duration::from_secs(10);
/// More models are hardly meant, and each keeps a history.
const MOST_WHENS: usize = 8;
/// Bytes; see `check_events`.
const MIN_HISTORY: u64 = 100_000;

impl Config {
    /// Tries every value for sense. What depends on the machine (files, devices) is `outlierd check`'s.
    pub fn check(&self) -> Result<(), Error> {
        self.check_camera()?;
        if self.model.path.as_os_str().is_empty() {
            let message = "model.path is missing: name the file that `outlierd fit -o MODEL` wrote";
            return Err(self.error_at("model.path", message));
        }
        if self.model.threads > 1024 {
            let message = format!("model.threads = {}: at most 1024", self.model.threads);
            return Err(self.error_at("model.threads", message));
        }
        self.check_when()?;
        self.check_load()?;
        self.check_decision()?;
        self.check_drift()?;
        self.check_events()?;
        if let Some(Err((key, message))) = self.clips.as_ref().map(Clips::check) {
            return Err(self.error_at(key, message));
        }
        self.check_gpio()?;
        match self.mqtt.as_ref().map(Mqtt::check) {
            Some(Err((key, message))) => Err(self.error_at(key, message)),
            _ => Ok(()),
        }
    }

    /// Tries the section `[camera]` alone.
    pub fn check_camera(&self) -> Result<(), Error> {
        let fail = |key: &str, message: String| Err(self.error_at(key, message));
        let camera = &self.camera;
        for (key, value) in [("camera.width", camera.width), ("camera.height", camera.height)] {
            if value == 0 || value > crate::image::MAX_SIDE {
                return fail(key, format!("{key} = {value}: must be 1 to {}", crate::image::MAX_SIDE));
            }
        }
        if camera.interval.is_zero() {
            return fail("camera.interval", "camera.interval must be longer than 0; \"1ms\" is full speed".into());
        }
        if camera.interval > MAX_INTERVAL {
            let message = "camera.interval is longer than a week, surely by mistake: a frame is to be judged so often";
            return fail("camera.interval", message.into());
        }
        if camera.lost_after.is_zero() {
            return fail("camera.lost-after", "camera.lost-after must be longer than 0, such as \"10s\"".into());
        }
        if let Some(crop) = camera.crop {
            let framed = matches!(camera.source, Source::V4l(_));
            let beyond = || crop.region(camera.width, camera.height).err().map(|e| format!("camera.crop: {e}"));
            if let Some(reason) = crop.wrong().or_else(|| if framed { beyond() } else { None }) {
                return fail("camera.crop", reason);
            }
        }
        if camera.repeat && !matches!(camera.source, Source::Folder(_)) {
            return fail("camera.loop", "camera.loop is for source = \"folder:...\" only; take it out".into());
        }
        Ok(())
    }

    fn check_when(&self) -> Result<(), Error> {
        let whens = &self.model.when;
        if whens.len() > MOST_WHENS {
            return Err(
                self.error_at("model.when", format!("{} times [[model.when]]: at most {MOST_WHENS}", whens.len()))
            );
        }
        for (at, when) in whens.iter().enumerate() {
            if let Some((key, reason)) = when.wrong() {
                return Err(self.error_at(&format!("model.when.{at}.{key}"), format!("[[model.when]]: {reason}")));
            }
            if let Some(other) = self.models().take(at + 1).find(|other| other.file_stem() == when.path.file_stem()) {
                let message = format!(
                    "[[model.when]]: {} has the file name of {}, by which events and histories tell models apart",
                    when.path.display(),
                    other.display()
                );
                return Err(self.error_at(&format!("model.when.{at}.path"), message));
            }
        }
        Ok(())
    }

    fn check_decision(&self) -> Result<(), Error> {
        let decision = &self.decision;
        if let Some(threshold) = decision.threshold
            && !(0.0..=1.0).contains(&threshold)
        {
            let message = format!("decision.threshold = {threshold}: must be 0 to 1, p is compared with it");
            return Err(self.error_at("decision.threshold", message));
        }
        for (key, value) in
            [("decision.raise-after", decision.raise_after), ("decision.clear-after", decision.clear_after)]
        {
            if value.is_zero() {
                let message = format!("{key} = 0: at least one frame is needed, or a time such as \"2s\"");
                return Err(self.error_at(key, message));
            }
            if matches!(value, Span::Time(time) if time > LONGEST_RUN) {
                return Err(self.error_at(key, format!("{key} = \"{value}\": a day at most")));
            }
        }
        let Some(budget) = decision.false_alarms else {
            return match decision.settle {
                None => Ok(()),
                Some(_) => Err(self.error_at("decision.settle", "decision.settle needs decision.false-alarms")),
            };
        };
        if decision.threshold.is_some() {
            let message = "decision.threshold and decision.false-alarms both set the threshold: take one of them out";
            return Err(self.error_at("decision.false-alarms", message));
        }
        if self.history.max_size == 0 {
            let message = format!(
                "decision.false-alarms = \"{budget}\" is kept by the history, and history.max-size = 0 keeps none"
            );
            return Err(self.error_at("decision.false-alarms", message));
        }
        Ok(())
    }

    fn check_events(&self) -> Result<(), Error> {
        let events = &self.events;
        if events.max_log_size < 4096 {
            let message = format!("events.max-log-size is {} bytes: at least \"4 KiB\"", events.max_log_size);
            return Err(self.error_at("events.max-log-size", message));
        }
        if events.log.as_os_str().is_empty() || events.snapshots.as_os_str().is_empty() {
            return Err(self.error_at("events", "events.log and events.snapshots must name a file and a folder"));
        }
        let history = &self.history;
        if history.path.as_ref().is_some_and(|path| path.file_name().is_none()) {
            let message = "history.path names no file: write it as \"/var/lib/outlierd/door.history\"";
            return Err(self.error_at("history.path", message));
        }
        if history.max_size != 0 && history.max_size < MIN_HISTORY {
            let message = format!(
                "history.max-size is {} bytes: at least \"100 kB\", two hours at two frames a second; 0 keeps none",
                history.max_size
            );
            return Err(self.error_at("history.max-size", message));
        }
        if events.keep_snapshots == 0 {
            let message = "events.keep-snapshots = 0: at least 1, the frame that raised the event";
            return Err(self.error_at("events.keep-snapshots", message));
        }
        if events.max_snapshot_bytes < 100_000 {
            let message = format!("events.max-snapshot-bytes is {}: at least \"100 kB\"", events.max_snapshot_bytes);
            return Err(self.error_at("events.max-snapshot-bytes", message));
        }
        if let Some(hook) = &events.hook
            && hook.first().is_none_or(|program| program.is_empty())
        {
            let message = "events.hook is empty: write [\"/path/to/program\", \"argument\"] or take it out";
            return Err(self.error_at("events.hook", message));
        }
        if events.metrics.as_ref().is_some_and(|path| path.file_name().is_none()) {
            let message = "events.metrics names no file: write it as \"/run/outlierd/metrics.prom\"";
            return Err(self.error_at("events.metrics", message));
        }
        Ok(())
    }

    fn check_gpio(&self) -> Result<(), Error> {
        let Some(gpio) = &self.gpio else { return Ok(()) };
        if gpio.line == Line::Name(String::new()) {
            return Err(self.error_at("gpio.line", "gpio.line is empty: write a number (17) or a name (\"GPIO17\")"));
        }
        if gpio.mode == Mode::Pulse && gpio.pulse.is_zero() {
            return Err(self.error_at("gpio.pulse", "gpio.pulse must be longer than 0, such as \"500ms\""));
        }
        if gpio.heartbeat.as_ref() == Some(&gpio.line) {
            return Err(self.error_at("gpio.heartbeat", "gpio.heartbeat and gpio.line are the same line"));
        }
        Ok(())
    }

    fn check_drift(&self) -> Result<(), Error> {
        let drift = &self.drift;
        let short = match drift.window {
            Span::Time(time) => time < MIN_TIME,
            Span::Frames(frames) => frames < MIN_FRAMES,
        };
        if short && !drift.window.is_zero() {
            let message = format!(
                "drift.window is {}: at least \"10s\" or {MIN_FRAMES} frames; \"0s\" takes drift off the watch",
                drift.window
            );
            return Err(self.error_at("drift.window", message));
        }
        if !(0.01..=0.4).contains(&drift.mean_p) {
            let message = format!("drift.mean-p = {}: must be 0.01 to 0.4; 0.5 is no drift", drift.mean_p);
            return Err(self.error_at("drift.mean-p", message));
        }
        Ok(())
    }
}
