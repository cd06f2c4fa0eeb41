//! The TOML file: sections with defaults, parsed by [`Config::parse`], then tried for sense by
//! [`Config::check`]. Only `model.path` has no default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use crate::fs;
use crate::image::mask::Mask;

mod check;
pub mod clips;
pub mod decision;
pub mod drift;
pub mod edit;
pub mod edit_region;
mod keys;
mod load;
mod mqtt;
mod paths;
mod region;
mod source;
pub mod values;
mod when;

pub use clips::Clips;
pub use decision::{Decision, FalseAlarms, Span};
pub use drift::Drift;
pub use mqtt::Mqtt;
pub use region::Crop;
pub use source::Source;
pub use values::parse_duration;
pub use when::When;

use keys::{SECTIONS, line_of, unknown_key, unknown_section};
use values::{controls, duration, size};

/// Where packages put the files of all daemons.
pub const FOLDER: &str = "/etc/outlierd";
/// Where packages put the file and `run`, `check` and `events` look for it.
pub const DEFAULT_PATH: &str = "/etc/outlierd/outlierd.toml";
/// What systemd makes while the service runs.
pub const RUN_FOLDER: &str = "/run/outlierd";
/// The instance of the packaged config.
pub const INSTANCE: &str = "outlierd";
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
    pub history: History,
    pub observe: Observe,
    pub events: Events,
    /// None: no frames are kept.
    pub clips: Option<Clips>,
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
    /// Frames carry the JPEG that they came as. Not in the file: it follows from `[clips]`, and from `crop`, which no JPEG
    /// has undergone.
    #[serde(skip)]
    pub keep_jpeg: bool,
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
            keep_jpeg: false,
        }
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
    /// The folder of packed weights that daemons share; empty: none. None: see [`Config::cache_folder`].
    pub cache: Option<PathBuf>,
    /// 0: all cores.
    pub threads: usize,
    /// What the process's priority is lowered by, 0 to 19; 0: it stays as it was started.
    pub nice: i32,
    /// Share of the time that judging may take: after a frame that took t, the next waits (1 / duty - 1) t or longer.
    pub duty: f64,
    /// Other models, and when they watch in place of `path`: the first of which all conditions hold.
    pub when: Vec<When>,
}

impl Default for Model {
    fn default() -> Self {
        Model { path: PathBuf::new(), backbone: None, cache: None, threads: 0, nice: 0, duty: 1.0, when: Vec::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Events {
    /// By default, as `snapshots`, in a folder named after the instance, except the packaged config's.
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

/// What every judged frame scored.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct History {
    /// None: `INSTANCE.history` beside the snapshots; see [`Config::history_path`].
    pub path: Option<PathBuf>,
    /// Bytes; the oldest frames make room. 0: none is kept.
    #[serde(deserialize_with = "size")]
    pub max_size: u64,
}

impl Default for History {
    fn default() -> Self {
        History { path: None, max_size: 8_000_000 }
    }
}

/// What the daemon sees now, for `outlierd status`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Observe {
    /// A Unix socket; None: [`Config::socket_path`].
    pub socket: Option<PathBuf>,
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

impl Config {
    /// Reads, parses and checks a file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let config = Self::read(path)?;
        config.check()?;
        Ok(config)
    }

    /// Reads and parses a file, which may be unfinished: its values are not tried for sense.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_text(path, MAX_BYTES).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Self::parse(path, &text)
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
                unknown_key(name, &format!("[{section}]"), known).map_or(Ok(()), |message| Err(at(start, message)))?;
                lines.insert(format!("{section}.{name}"), line_of(text, start));
            }
            let Some(DeValue::Array(whens)) = entries.get("when").map(|whens| whens.get_ref()) else { continue };
            for (number, when) in whens.iter().enumerate() {
                let DeValue::Table(entries) = when.get_ref() else { continue };
                for (key, _) in entries {
                    let (name, start) = (key.get_ref().as_ref(), key.span().start);
                    unknown_key(name, "[model.when]", when::KEYS).map_or(Ok(()), |message| Err(at(start, message)))?;
                    lines.insert(format!("model.when.{number}.{name}"), line_of(text, start));
                }
            }
        }
        let mut config: Config = toml::from_str(text).map_err(toml_error)?;
        config.origin = Origin { path: path.to_owned(), lines };
        config.camera.keep_jpeg = config.clips.is_some() && config.camera.crop.is_none();
        let instance = config.instance();
        config.separate(&instance);
        config.resolve_paths()?;
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
}
