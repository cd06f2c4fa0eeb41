//! `[[model.when]]`: another model at some hours, or in some light.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::civil::Time;
use serde::{Deserialize, Deserializer, de};

use super::values::duration;

pub(super) const KEYS: &[&str] =
    &["path", "from", "to", "brightness-below", "brightness-above", "saturation-below", "hold"];
/// Longer ones leave the scene unwatched.
const LONGEST_HOLD: Duration = Duration::from_secs(600);

/// A model, and all that must hold for it to watch.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct When {
    pub path: PathBuf,
    /// Local time; beyond midnight where `to` is earlier.
    #[serde(deserialize_with = "clock")]
    pub from: Option<Time>,
    #[serde(deserialize_with = "clock")]
    pub to: Option<Time>,
    /// Mean luma of the picture, 0 to 1.
    pub brightness_below: Option<f64>,
    pub brightness_above: Option<f64>,
    /// Share of colour in the picture, 0 (grey, as by infrared light) to 1.
    pub saturation_below: Option<f64>,
    /// How long the light must have changed before the model does; frames of that time are not judged.
    #[serde(deserialize_with = "duration")]
    pub hold: Duration,
}

impl Default for When {
    fn default() -> Self {
        When {
            path: PathBuf::new(),
            from: None,
            to: None,
            brightness_below: None,
            brightness_above: None,
            saturation_below: None,
            hold: Duration::from_secs(5),
        }
    }
}

impl When {
    /// The limits of light, with the keys.
    fn light(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let limits = [
            ("brightness-below", self.brightness_below),
            ("brightness-above", self.brightness_above),
            ("saturation-below", self.saturation_below),
        ];
        limits.into_iter().filter_map(|(key, limit)| Some((key, limit?)))
    }

    /// It depends on what the camera sees.
    pub fn needs_light(&self) -> bool {
        self.light().next().is_some()
    }

    /// Why it makes no sense, and the key.
    pub(super) fn wrong(&self) -> Option<(&'static str, String)> {
        if self.path.as_os_str().is_empty() {
            return Some(("path", "it names no model: path = \"night.outlierd\"".into()));
        }
        if self.from.is_some() != self.to.is_some() {
            return Some(("from", "from and to belong together: from = \"20:00\" and to = \"06:00\"".into()));
        }
        if self.from.is_some() && self.from == self.to {
            return Some(("to", "from and to are the same time".into()));
        }
        if self.from.is_none() && !self.needs_light() {
            let limits = "brightness-below, brightness-above or saturation-below";
            return Some(("path", format!("it says not when: give it from and to, {limits}")));
        }
        if let Some((key, limit)) = self.light().find(|(_, limit)| !(*limit > 0.0 && *limit < 1.0)) {
            return Some((
                key,
                format!("{key} = {limit}: must lie between 0 and 1; `outlierd status` shows the light"),
            ));
        }
        if self.hold > LONGEST_HOLD {
            return Some(("hold", "hold: ten minutes at most, in which nothing is judged".into()));
        }
        None
    }
}

/// What must hold, for people.
impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.from.zip(self.to).map(|(from, to)| {
            let clock = |time: Time| time.strftime("%H:%M").to_string();
            format!("from {} to {}", clock(from), clock(to))
        });
        let light = self.light().map(|(key, limit)| format!("{} {limit}", key.replace('-', " ")));
        f.write_str(&hours.into_iter().chain(light).collect::<Vec<_>>().join(", "))
    }
}

fn clock<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = || de::Error::custom(format!("{text:?} is no time of day; write it as \"20:00\""));
    let time: Time = text.trim().parse().map_err(|_| wrong())?;
    match text.trim().starts_with(|c: char| c.is_ascii_digit()) && text.contains(':') {
        true => Ok(Some(time)),
        false => Err(wrong()),
    }
}
