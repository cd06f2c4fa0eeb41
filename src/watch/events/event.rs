//! An event, and its line of JSON.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The watch begins.
    Start,
    /// So many outlier frames in a row as `raise-after` says.
    Raise,
    /// So many inlier frames in a row as `clear-after` says, or a start that finds an event standing.
    Clear,
    /// The camera is gone, or no frame came for `lost-after`.
    CameraLost,
    /// It gives frames again.
    CameraFound,
    /// Normal frames score lower than at calibration.
    Drift,
    /// They score as they did again.
    DriftClear,
    /// The alarm budget settles, holds, or answers a storm of false alarms.
    Threshold,
    /// Another model watches.
    Model,
    /// Something failed; the watch goes on.
    Error,
    /// The watch ends.
    Stop,
}

impl Kind {
    pub const ALL: [Kind; 11] = [
        Kind::Start,
        Kind::Raise,
        Kind::Clear,
        Kind::CameraLost,
        Kind::CameraFound,
        Kind::Drift,
        Kind::DriftClear,
        Kind::Threshold,
        Kind::Model,
        Kind::Error,
        Kind::Stop,
    ];

    /// The name in the log and in `OUTLIERD_EVENT`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Start => "start",
            Kind::Raise => "raise",
            Kind::Clear => "clear",
            Kind::CameraLost => "camera-lost",
            Kind::CameraFound => "camera-found",
            Kind::Drift => "drift",
            Kind::DriftClear => "drift-clear",
            Kind::Threshold => "threshold",
            Kind::Model => "model",
            Kind::Error => "error",
            Kind::Stop => "stop",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            format!("{name:?} is no kind of event: {} are", known.join(", "))
        })
    }
}

/// One line of the log. What does not apply to a kind is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// RFC 3339 in UTC, with milliseconds.
    #[serde(serialize_with = "serialize_time", deserialize_with = "deserialize_time")]
    pub time: SystemTime,
    /// Which kind.
    pub event: Kind,
    /// The same for a raise and its clear, or a drift and its end; unique across restarts.
    #[serde(default)]
    pub id: Option<String>,
    /// Of the frame; drift, drift-clear: mean over the window.
    #[serde(default)]
    pub p: Option<f64>,
    /// As p.
    #[serde(default)]
    pub score: Option<f64>,
    /// Frames with a smaller p are outliers.
    #[serde(default)]
    pub threshold: Option<f64>,
    /// Raise, clear: outlier frames of the event so far. Drift, drift-clear: frames of the window. Stop: frames judged
    /// in all.
    #[serde(default)]
    pub frames: Option<u64>,
    /// Raise, clear: since the event's first outlier frame. Camera-lost, camera-found: since the last frame.
    /// Drift-clear: since the drift event. Stop: since the start.
    #[serde(default)]
    pub duration_s: Option<f64>,
    /// The picture that raised the event.
    #[serde(default)]
    pub snapshot: Option<PathBuf>,
    /// The same picture with a map of where it departs from what the model knows.
    #[serde(default)]
    pub heat: Option<PathBuf>,
    /// What departs most in it: left, top, width, height as shares of the picture; left out where no map was made, and
    /// from the log's line of a raise whose map is made after it: the clear has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<[f64; 4]>,
    /// The folder with the frames before and after a raise, which is there once all of them are; left out without clips.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<PathBuf>,
    /// The file name of the model that watches.
    #[serde(default)]
    pub model: Option<String>,
    /// Which daemon: the name of its config file without the extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What went wrong or has changed, for people; left out where nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Event {
    /// An event of now, its other fields null.
    pub fn new(event: Kind) -> Self {
        Event::at(event, SystemTime::now())
    }

    /// An event of that time, its other fields null.
    pub fn at(event: Kind, time: SystemTime) -> Self {
        Event {
            time,
            event,
            id: None,
            p: None,
            score: None,
            threshold: None,
            frames: None,
            duration_s: None,
            snapshot: None,
            heat: None,
            region: None,
            clip: None,
            model: None,
            instance: None,
            message: None,
        }
    }

    pub fn with_pictures(self, pictures: Pictures) -> Self {
        let Pictures { snapshot, heat, region, clip } = pictures;
        Event { snapshot, heat, region, clip, ..self }
    }

    /// The JSON object, without a line end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|e| format!("{{\"event\":\"error\",\"message\":\"{e}\"}}"))
    }
}

/// The pictures of an event, and what they show; see the fields of [`Event`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pictures {
    pub snapshot: Option<PathBuf>,
    pub heat: Option<PathBuf>,
    pub region: Option<[f64; 4]>,
    pub clip: Option<PathBuf>,
}

fn serialize_time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_time(*time))
}

fn deserialize_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_rfc3339(&text).map_err(de::Error::custom)
}

/// Seconds, to the millisecond, as events give them.
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// RFC 3339 in UTC with milliseconds; a clock before 1970 or after 9999 is held at these ends.
pub fn format_time(time: SystemTime) -> String {
    const LAST_SECOND_OF_9999: u64 = 253_402_300_799;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let held = since.min(Duration::from_secs(LAST_SECOND_OF_9999));
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + held).to_string()
}

/// Text without control characters: what a file's name or a program put into it must not write lines of its own, nor
/// steer a terminal.
pub fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_every_field() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_000_000_123);
        let mut raise = Event { frames: Some(3), ..Event::at(Kind::Raise, time) };
        raise.id = Some("i".into());
        raise.p = Some(0.25);
        raise.snapshot = Some("/s/i.jpg".into());
        let expected = concat!(
            r#"{"time":"2025-11-24T16:00:00.123Z","event":"raise","id":"i","p":0.25,"score":null,"#,
            r#""threshold":null,"frames":3,"duration_s":null,"snapshot":"/s/i.jpg","heat":null,"model":null}"#
        );
        assert_eq!(raise.to_json(), expected);
        assert_eq!(serde_json::from_str::<Event>(expected).unwrap(), raise);
        raise.event = Kind::CameraLost;
        raise.message = Some("gone".into());
        assert!(raise.to_json().contains(r#""event":"camera-lost""#));
        assert!(raise.to_json().ends_with(r#""message":"gone"}"#));
        for kind in Kind::ALL {
            assert!(Event::new(kind).to_json().contains(&format!("\"event\":\"{}\"", kind.name())));
        }
    }

    #[test]
    fn times_outside_of_four_digit_years_are_held() {
        let far = Duration::from_secs(300_000_000_000);
        assert_eq!(format_time(SystemTime::UNIX_EPOCH + far), "9999-12-31T23:59:59.000Z");
        assert_eq!(format_time(SystemTime::UNIX_EPOCH - far / 100), "1970-01-01T00:00:00.000Z");
    }
}
