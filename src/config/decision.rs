//! The section `[decision]`: when frames become an event.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::values::{optional_duration, parse_duration};

/// A longer run of outliers would hardly ever raise: by mistake.
pub(super) const LONGEST_RUN: Duration = Duration::from_secs(86_400);
/// How long the scene is watched before the alarm budget's threshold holds, unless `settle` says otherwise.
const SETTLE: Duration = Duration::from_secs(86_400);
/// Outliers in a row that raise an event unless the config says otherwise.
pub const RAISE_AFTER: u32 = 3;
/// A rate that nobody means, either way.
const PER_DAY: RangeInclusive<f64> = 0.01..=1000.0;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Decision {
    /// A frame is an outlier when `p` is below; None: by the alarm budget, else the model's own.
    pub threshold: Option<f64>,
    /// The alarm budget, which sets the threshold from the history; None: there is no budget.
    pub false_alarms: Option<FalseAlarms>,
    /// How long the scene is watched after a new model before the budget's threshold holds; None: a day.
    #[serde(deserialize_with = "optional_duration")]
    pub settle: Option<Duration>,
    /// Outliers in a row that raise an event.
    pub raise_after: Span,
    /// Inliers in a row that clear it.
    pub clear_after: Span,
}

impl Default for Decision {
    fn default() -> Self {
        Decision {
            threshold: None,
            false_alarms: None,
            settle: None,
            raise_after: Span::Frames(RAISE_AFTER),
            clear_after: Span::Frames(5),
        }
    }
}

impl Decision {
    /// Zero without an alarm budget.
    pub fn settle(&self) -> Duration {
        self.false_alarms.map_or(Duration::ZERO, |_| self.settle.unwrap_or(SETTLE))
    }
}

/// So many frames, or so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    Frames(u32),
    /// From the first of the frames to the latest.
    Time(Duration),
}

impl Span {
    pub fn is_zero(self) -> bool {
        matches!(self, Span::Frames(0) | Span::Time(Duration::ZERO))
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Span::Frames(1) => write!(f, "1 frame"),
            Span::Frames(frames) => write!(f, "{frames} frames"),
            Span::Time(time) => write!(f, "{}", humantime::format_duration(*time)),
        }
    }
}

/// As the config has it.
impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Span::Frames(frames) => serializer.serialize_u32(*frames),
            Span::Time(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "write a number of frames (100) or a duration (\"5m\")")]
        enum Written {
            Frames(u32),
            Time(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Frames(frames) => Ok(Span::Frames(frames)),
            Written::Time(text) => parse_duration(&text).map(Span::Time).map_err(de::Error::custom),
        }
    }
}

/// An alarm budget: so many false events in a time, such as `1/day`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FalseAlarms {
    pub events: f64,
    pub per: Per,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    Hour,
    Day,
    Week,
}

impl Per {
    const ALL: [Per; 3] = [Per::Hour, Per::Day, Per::Week];

    pub fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Per::Hour => 3600,
            Per::Day => 86_400,
            Per::Week => 7 * 86_400,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Per::Hour => "hour",
            Per::Day => "day",
            Per::Week => "week",
        }
    }
}

impl FalseAlarms {
    pub fn per_day(self) -> f64 {
        self.events * 86_400.0 / self.per.duration().as_secs_f64()
    }
}

impl std::str::FromStr for FalseAlarms {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no rate of events; write it as \"1/day\", \"2/week\" or \"3/hour\"");
        let (events, per) = text.split_once('/').ok_or_else(wrong)?;
        let events: f64 = events.trim().parse().map_err(|_| wrong())?;
        let per = Per::ALL.into_iter().find(|unit| unit.name() == per.trim()).ok_or_else(wrong)?;
        let rate = FalseAlarms { events, per };
        match PER_DAY.contains(&rate.per_day()) {
            true => Ok(rate),
            false => Err(format!("{text:?}: must be {} to {} events a day", PER_DAY.start(), PER_DAY.end())),
        }
    }
}

impl std::fmt::Display for FalseAlarms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.events, self.per.name())
    }
}

impl<'de> Deserialize<'de> for FalseAlarms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_rate() {
        let per_day = |text: &str| text.parse().map(FalseAlarms::per_day);
        assert_eq!(per_day("1/day"), Ok(1.0));
        assert_eq!(per_day("3.5 / week"), Ok(0.5));
        assert_eq!(per_day("2/hour"), Ok(48.0));
        for wrong in
            ["", "1", "1/", "/day", "1/days", "-1/day", "0/day", "nan/day", "inf/day", "1e9/hour", "1/fortnight"]
        {
            assert!(per_day(wrong).is_err(), "{wrong}");
        }
        assert_eq!("1/day".parse::<FalseAlarms>().unwrap().to_string(), "1/day");
        assert_eq!("0.5/week".parse::<FalseAlarms>().unwrap().to_string(), "0.5/week");
    }
}
