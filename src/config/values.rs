//! Durations, sizes and controls as the config and the command line take them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&text(deserializer, "\"2s\"")?).map_err(de::Error::custom)
}

pub(super) fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    parse_size(&text(deserializer, "\"10 MB\"")?).map_err(de::Error::custom)
}

fn text<'de, D: Deserializer<'de>>(deserializer: D, example: &str) -> Result<String, D::Error> {
    String::deserialize(deserializer)
        .map_err(|e| de::Error::custom(format!("{}, such as {example}", e.to_string().trim_end())))
}

pub(super) fn controls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, i64>, D::Error> {
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
