//! The TOML file: sections with defaults, parsed by [`Config::parse`], then tried for sense by
//! [`Config::check`]. Only `model.path` has no default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use toml::de::{DeTable, DeValue};

use crate::files;
use crate::image::mask::Mask;

pub mod drift;
mod load;
mod mqtt;
mod paths;
mod region;

pub use drift::Drift;
pub use mqtt::Mqtt;
pub use region::Crop;

/// Where packages put the file and `run`, `check` and `events` look for it.
pub const DEFAULT_PATH: &str = "/etc/outlierd/outlierd.toml";
/// The instance of the packaged config.
pub const INSTANCE: &str = "outlierd";
/// A longer time between frames is a mistake.
const MAX_INTERVAL: Duration = Duration::from_secs(7 * 86_400);
/// Larger files are refused before they are read.
pub const MAX_BYTES: u64 = 1 << 20;

/// A config file that cannot be used. `Display` names file and line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}; give the right file with -c FILE", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}:{line}: {message}", path.display())]
    At { path: PathBuf, line: usize, message: String },
}

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    pub camera: Camera,
    pub model: Model,
    pub decision: Decision,
    pub drift: Drift,
    pub events: Events,
    /// None: no line is driven.
    pub gpio: Option<Gpio>,
    /// None: no broker is told.
    pub mqtt: Option<Mqtt>,
    #[serde(skip)]
    origin: Origin,
}

#[derive(Debug, Clone, Default)]
struct Origin {
    path: PathBuf,
    lines: BTreeMap<String, usize>,
}

/// Two configs are the same if their values are; where these stood does not matter.
impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Camera {
    pub source: Source,
    /// Pixels; the nearest that the camera offers is taken.
    pub width: u32,
    pub height: u32,
    pub format: PixelFormat,
    /// Time from one judged frame to the next.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// The part of the frame that is the picture; None: all of it.
    pub crop: Option<Crop>,
    /// What of the picture counts for nothing.
    #[serde(deserialize_with = "region::masks")]
    pub mask: Mask,
    /// No frame for so long: the camera is lost and opened again with back-off.
    #[serde(deserialize_with = "duration")]
    pub lost_after: Duration,
    /// Folders only: start again after the last picture.
    #[serde(rename = "loop")]
    pub repeat: bool,
    /// Greatest change of the mean of any of 32 x 32 cells, in levels of 255, from the last judged frame, below which a
    /// frame is not judged but taken for the same; 0: every frame is judged.
    pub change_threshold: f64,
    /// A frame is judged after so long, whatever it looks like.
    #[serde(deserialize_with = "duration")]
    pub judge_at_least_every: Duration,
    /// V4L2 controls to pin, by name (`exposure_time_absolute`, `white_balance_automatic`); true is 1.
    #[serde(deserialize_with = "controls")]
    pub controls: BTreeMap<String, i64>,
}

impl Default for Camera {
    fn default() -> Self {
        Camera {
            source: Source::V4l(PathBuf::from("/dev/video0")),
            width: 1280,
            height: 720,
            format: PixelFormat::Auto,
            interval: Duration::from_millis(500),
            crop: None,
            mask: Mask::default(),
            lost_after: Duration::from_secs(10),
            repeat: false,
            change_threshold: 0.0,
            judge_at_least_every: Duration::from_secs(30),
            controls: BTreeMap::new(),
        }
    }
}

/// Where frames come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `v4l:/dev/video0`
    V4l(PathBuf),
    /// `folder:/path`, or `folder:/path/list.txt`, a list of paths relative to the list.
    Folder(PathBuf),
}

impl std::str::FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((_, "")) | None => {}
            Some(("v4l", path)) => return Ok(Source::V4l(path.into())),
            Some(("folder", path)) => return Ok(Source::Folder(path.into())),
            Some(_) => {}
        }
        Err(format!("source {text:?} is neither \"v4l:/dev/video0\" nor \"folder:/path\""))
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::V4l(path) => write!(f, "v4l:{}", path.display()),
            Source::Folder(path) => write!(f, "folder:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The pixel format asked of the camera; `auto` takes the cheapest to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelFormat {
    #[default]
    Auto,
    Mjpg,
    Yuyv,
    Nv12,
    Grey,
    Rgb3,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Model {
    pub path: PathBuf,
    /// None: the backbone that the model names.
    pub backbone: Option<PathBuf>,
    /// 0: all cores.
    pub threads: usize,
    /// What the process's priority is lowered by, 0 to 19; 0: it stays as it was started.
    pub nice: i32,
    /// Share of the time that judging may take: after a frame that took t, the next waits (1 / duty - 1) t or longer.
    pub duty: f64,
}

impl Default for Model {
    fn default() -> Self {
        Model { path: PathBuf::new(), backbone: None, threads: 0, nice: 0, duty: 1.0 }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Decision {
    /// A frame is an outlier when `p` is below; None: the model's own.
    pub threshold: Option<f64>,
    /// Consecutive outlier frames that raise an event.
    pub raise_after: u32,
    /// Consecutive inlier frames that clear it.
    pub clear_after: u32,
}

impl Default for Decision {
    fn default() -> Self {
        Decision { threshold: None, raise_after: 3, clear_after: 5 }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Events {
    pub log: PathBuf,
    /// Bytes; a log that would grow beyond is rotated.
    #[serde(deserialize_with = "size")]
    pub max_log_size: u64,
    pub snapshots: PathBuf,
    pub keep_snapshots: usize,
    /// Bytes of all snapshots together.
    #[serde(deserialize_with = "size")]
    pub max_snapshot_bytes: u64,
    /// Draw where the outlier is, beside each snapshot.
    pub heat_map: bool,
    /// argv of a program that is run at every event; None: no program.
    pub hook: Option<Vec<String>>,
    /// A file with figures for Prometheus; None: no file.
    pub metrics: Option<PathBuf>,
}

impl Default for Events {
    fn default() -> Self {
        Events {
            log: "/var/log/outlierd/events.jsonl".into(),
            max_log_size: 10_000_000,
            snapshots: "/var/lib/outlierd/snapshots".into(),
            keep_snapshots: 500,
            max_snapshot_bytes: 200_000_000,
            heat_map: true,
            hook: None,
            metrics: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Gpio {
    pub chip: PathBuf,
    pub line: Line,
    pub active: Active,
    pub mode: Mode,
    /// How long the line is active in mode `pulse`.
    #[serde(deserialize_with = "duration")]
    pub pulse: Duration,
    /// A second line that toggles with every frame, judged or unchanged.
    pub heartbeat: Option<Line>,
}

impl Default for Gpio {
    fn default() -> Self {
        Gpio {
            chip: "/dev/gpiochip0".into(),
            line: Line::Number(17),
            active: Active::High,
            mode: Mode::Hold,
            pulse: Duration::from_millis(500),
            heartbeat: None,
        }
    }
}

/// A GPIO line by its offset on the chip or by its name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a line is a number (17) or a name (\"GPIO17\")")]
pub enum Line {
    Number(u32),
    Name(String),
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Line::Number(number) => write!(f, "{number}"),
            Line::Name(name) => f.write_str(name),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Active {
    High,
    Low,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Active while the outlier lasts.
    Hold,
    /// Active for a while when an outlier is raised.
    Pulse,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&text(deserializer, "\"2s\"")?).map_err(de::Error::custom)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    parse_size(&text(deserializer, "\"10 MB\"")?).map_err(de::Error::custom)
}

fn text<'de, D: Deserializer<'de>>(deserializer: D, example: &str) -> Result<String, D::Error> {
    String::deserialize(deserializer)
        .map_err(|e| de::Error::custom(format!("{}, such as {example}", e.to_string().trim_end())))
}

fn controls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a control is an integer, true or false")]
    enum Value {
        Switch(bool),
        Integer(i64),
    }
    let values = BTreeMap::<String, Value>::deserialize(deserializer)?;
    Ok(values
        .into_iter()
        .map(|(name, value)| match value {
            Value::Switch(on) => (name, i64::from(on)),
            Value::Integer(value) => (name, value),
        })
        .collect())
}

/// The longest duration that is taken: clocks can be reckoned with by it.
pub const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 86_400);

/// `500ms`, `2s`, `1h 30m`: a duration as the config and the command line take it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.contains('M') && humantime::parse_duration(text.trim()).is_ok() {
        return Err(format!("{text:?}: M is a month, surely by mistake; minutes are m, and a month is \"30d\""));
    }
    match humantime::parse_duration(text.trim()) {
        Ok(time) if time <= MAX_DURATION => Ok(time),
        Ok(_) => Err(format!("{text:?} is longer than a hundred years")),
        Err(e) => Err(format!("{text:?} is not a duration ({e}); write it as \"500ms\", \"2s\" or \"5m\"")),
    }
}

/// `10 MB`, `64 KiB`, `1000`: bytes. Decimal units count in 1000, binary ones in 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write it as \"10 MB\" or \"512 KiB\"");
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(wrong);
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * factor as f64;
    if bytes.is_finite() && bytes < 1e18 { Ok(bytes as u64) } else { Err(wrong()) }
}

const SECTIONS: &[(&str, &[&str])] = &[
    (
        "camera",
        &[
            "source",
            "width",
            "height",
            "format",
            "interval",
            "crop",
            "mask",
            "lost-after",
            "loop",
            "change-threshold",
            "judge-at-least-every",
            "controls",
        ],
    ),
    ("model", &["path", "backbone", "threads", "nice", "duty"]),
    ("decision", &["threshold", "raise-after", "clear-after"]),
    ("drift", &["window", "mean-p"]),
    (
        "events",
        &["log", "max-log-size", "snapshots", "keep-snapshots", "max-snapshot-bytes", "heat-map", "hook", "metrics"],
    ),
    ("gpio", &["chip", "line", "active", "mode", "pulse", "heartbeat"]),
    ("mqtt", mqtt::KEYS),
];

impl Config {
    /// Reads, parses and checks a file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = files::read_text(path, MAX_BYTES).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let config = Self::parse(path, &text)?;
        config.check()?;
        Ok(config)
    }

    /// Parses a file's text; `path` names it in errors, and relative paths lie beside it. The values are not tried for
    /// sense, but for paths that a shell would have to expand.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        if text.len() as u64 > MAX_BYTES {
            let message = format!("it is larger than {MAX_BYTES} bytes");
            return Err(Error::At { path: path.to_owned(), line: 1, message });
        }
        let at =
            |offset: usize, message: String| Error::At { path: path.to_owned(), line: line_of(text, offset), message };
        let toml_error = |e: toml::de::Error| at(e.span().map_or(0, |span| span.start), e.message().trim().to_owned());
        let table = DeTable::parse(text).map_err(toml_error)?;
        let mut lines = BTreeMap::new();
        let section_names: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        for (key, value) in table.get_ref() {
            let (section, start) = (key.get_ref().as_ref(), key.span().start);
            let Some((_, known)) = SECTIONS.iter().find(|(name, _)| *name == section) else {
                return Err(at(start, unknown_section(section, &section_names, value.get_ref())));
            };
            lines.insert(section.to_owned(), line_of(text, start));
            let DeValue::Table(entries) = value.get_ref() else { continue };
            for (key, _) in entries {
                let (name, start) = (key.get_ref().as_ref(), key.span().start);
                if !known.contains(&name) {
                    let (nearest, all) = (nearest(name, known), known.join(", "));
                    let message =
                        format!("unknown key \"{name}\" in [{section}]: did you mean \"{nearest}\"? known: {all}");
                    return Err(at(start, message));
                }
                lines.insert(format!("{section}.{name}"), line_of(text, start));
            }
        }
        let mut config: Config = toml::from_str(text).map_err(toml_error)?;
        config.origin = Origin { path: path.to_owned(), lines };
        config.resolve_paths()?;
        let instance = config.instance();
        if let Some(mqtt) = config.mqtt.as_mut().filter(|mqtt| mqtt.node_id.is_none() && instance != INSTANCE) {
            mqtt.node_id = Some(format!("{}-{instance}", mqtt.node()));
            mqtt.node_id = Some(mqtt.node());
        }
        Ok(config)
    }

    /// The file that the config was read from.
    pub fn path(&self) -> &Path {
        &self.origin.path
    }

    /// An error at a key (`camera.crop`), with the key's line, else its section's, else the first.
    pub fn error_at(&self, key: &str, message: impl Into<String>) -> Error {
        let section = key.split('.').next().unwrap_or(key);
        let lines = &self.origin.lines;
        let line = lines.get(key).or_else(|| lines.get(section)).copied().unwrap_or(1);
        Error::At { path: self.origin.path.clone(), line, message: message.into() }
    }

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
        self.check_load()?;
        self.check_decision()?;
        self.check_drift()?;
        self.check_events()?;
        self.check_gpio()?;
        mqtt::check(self)
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
            if value == 0 {
                return Err(self.error_at(key, format!("{key} = 0: at least one frame is needed")));
            }
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
}

fn unknown_section(name: &str, sections: &[&str], value: &DeValue<'_>) -> String {
    if value.is_table() {
        let all = sections.join("], [");
        return format!("unknown section [{name}]: did you mean [{}]? known: [{all}]", nearest(name, sections));
    }
    match SECTIONS.iter().find(|(_, keys)| keys.contains(&name)) {
        Some((section, _)) => format!("key \"{name}\" stands outside of a section: put it below [{section}]"),
        None => {
            let keys: Vec<&str> = SECTIONS.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
            format!("unknown key \"{name}\" outside of a section: did you mean \"{}\"?", nearest(name, &keys))
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&b| b == b'\n').count() + 1
}

fn nearest<'a>(name: &str, known: &[&'a str]) -> &'a str {
    let plain: String = name.to_ascii_lowercase().replace('_', "-").chars().take(64).collect();
    known.iter().min_by_key(|candidate| edit_distance(&plain, candidate)).copied().unwrap_or_default()
}

/// Levenshtein distance in bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
