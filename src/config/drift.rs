//! The section `[drift]`: whether normal frames still score as they did at calibration.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::values::parse_duration;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Drift {
    /// What the latest normal frames are; see [`crate::watch::frame::drift`] for how long it must be.
    pub window: Span,
    /// Mean p in three windows in a row at which drift is announced; 0.5 is expected of frames like those of the
    /// calibration.
    pub mean_p: f64,
}

impl Default for Drift {
    fn default() -> Self {
        Drift { window: Span::Time(Duration::from_secs(5 * 3600)), mean_p: 0.3 }
    }
}

/// A stretch of the watch: `"5h"` of it, or a number of frames. Zero: drift is not watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    Time(Duration),
    Frames(u64),
}

impl Span {
    pub fn is_zero(self) -> bool {
        self == Span::Time(Duration::ZERO) || self == Span::Frames(0)
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Span::Time(time) => write!(f, "{}", humantime::format_duration(*time)),
            Span::Frames(frames) => write!(f, "{frames} frames"),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a window is a duration (\"5h\") or a number of frames (20000)")]
        enum Value {
            Frames(u64),
            Time(String),
        }
        match Value::deserialize(deserializer)? {
            Value::Frames(frames) => Ok(Span::Frames(frames)),
            Value::Time(text) => parse_duration(&text).map(Span::Time).map_err(de::Error::custom),
        }
    }
}
