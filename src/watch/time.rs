//! Times as people write and read them: local, as in journalctl.

use std::time::{Duration, SystemTime};

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, ZonedDateTime};

use super::events;
use crate::config;

/// `2026-11-23 18:00`, `18:00`, `yesterday` are local; `2026-11-23T18:00:00Z` and `...+01:00` have an offset; `2h`, `-2h`
/// and `2h ago` are relative to now.
pub fn parse(text: &str) -> Result<SystemTime, String> {
    parse_at(text.trim(), &ZonedDateTime::now())
}

fn parse_at(text: &str, now: &ZonedDateTime) -> Result<SystemTime, String> {
    let system = |time: Timestamp| SystemTime::try_from(time).map_err(|e| e.to_string());
    if let Ok(time) = text.parse::<Timestamp>() {
        return system(time);
    }
    let day = match text {
        "now" => return system(now.timestamp()),
        "today" => Some(now.date()),
        "yesterday" => now.date().checked_sub(1.day()).ok(),
        "tomorrow" => now.date().checked_add(1.day()).ok(),
        _ => None,
    };
    let clock = || text.contains(':').then(|| text.parse::<Time>().ok()).flatten();
    let local = day
        .map(DateTime::from)
        .or_else(|| text.parse::<DateTime>().ok())
        .or_else(|| clock().map(|time| now.date().to_datetime(time)));
    if let Some(local) = local {
        let zoned = local.to_zoned_datetime(now.time_zone().clone()).map_err(|e| e.to_string())?;
        return system(zoned.timestamp());
    }
    let ago = text.strip_prefix('-').or_else(|| text.strip_suffix(" ago")).unwrap_or(text);
    let ago = config::parse_duration(ago).map_err(|_| {
        "write a time (2026-11-23 18:00, local unless it ends in Z or an offset) or a duration (30m, 2h, 7d)".to_owned()
    })?;
    system(now.timestamp())?.checked_sub(ago).ok_or_else(|| "that is longer ago than times go".to_owned())
}

/// RFC 3339 with milliseconds and the offset of the local time.
pub fn local(time: SystemTime) -> String {
    local_in(time, TimeZone::system())
}

/// A time beyond the calendar's range is clamped, in UTC.
pub fn local_in(time: SystemTime, zone: TimeZone) -> String {
    match Timestamp::try_from(time) {
        Ok(stamp) => stamp.to_zoned_datetime(zone).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
        Err(_) => events::format_time(time),
    }
}

/// Seconds in words: whole ones, the two largest units.
pub fn span(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds.max(0.0).round()).unwrap_or_default();
    humantime::format_duration(whole).to_string().split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<String> {
        // Two hours east in winter, three in summer, as in Helsinki.
        let zone = TimeZone::posix("EET-2EEST,M3.5.0/3,M10.5.0/4").unwrap();
        let now = "2026-11-23T10:00:00Z".parse::<Timestamp>().unwrap().to_zoned_datetime(zone);
        parse_at(text, &now).ok().map(events::format_time)
    }

    #[test]
    fn times_without_an_offset_are_local() {
        for (text, utc) in [
            ("2026-11-23", "2026-11-22T22:00:00.000Z"),
            ("2026-07-23", "2026-07-22T21:00:00.000Z"),
            ("2026-11-23 18:00", "2026-11-23T16:00:00.000Z"),
            ("2026-11-23T18:00:05", "2026-11-23T16:00:05.000Z"),
            ("2026-11-23 18:00:05.25", "2026-11-23T16:00:05.250Z"),
            ("18:00", "2026-11-23T16:00:00.000Z"),
            ("08:30:01", "2026-11-23T06:30:01.000Z"),
            ("today", "2026-11-22T22:00:00.000Z"),
            ("yesterday", "2026-11-21T22:00:00.000Z"),
            ("now", "2026-11-23T10:00:00.000Z"),
            // Of the hour that the clock leaves out and of the one that it shows twice, as journalctl.
            ("2026-03-29 03:30", "2026-03-29T01:30:00.000Z"),
            ("2026-10-25 03:30", "2026-10-25T00:30:00.000Z"),
        ] {
            assert_eq!(parsed(text).as_deref(), Some(utc), "{text}");
        }
    }

    #[test]
    fn offsets_and_durations_are_taken_at_their_word() {
        for (text, utc) in [
            ("2026-11-23T18:00:00Z", "2026-11-23T18:00:00.000Z"),
            ("2026-11-23 18:00:00Z", "2026-11-23T18:00:00.000Z"),
            ("2026-11-23T18:00:00+01:00", "2026-11-23T17:00:00.000Z"),
            ("2026-11-23T18:00-05:30", "2026-11-23T23:30:00.000Z"),
            ("2h", "2026-11-23T08:00:00.000Z"),
            ("-90m", "2026-11-23T08:30:00.000Z"),
            ("1 day ago", "2026-11-22T10:00:00.000Z"),
        ] {
            assert_eq!(parsed(text).as_deref(), Some(utc), "{text}");
        }
        for wrong in ["", "someday", "5", "2026-13-01", "25:00", "--2h", "2026-11-23 18:00 o'clock"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn local_times_have_their_offset() {
        let zone = TimeZone::posix("EET-2EEST,M3.5.0/3,M10.5.0/4").unwrap();
        let at = |text: &str| local_in(text.parse::<Timestamp>().unwrap().try_into().unwrap(), zone.clone());
        assert_eq!(at("2026-11-23T10:00:00.25Z"), "2026-11-23T12:00:00.250+02:00");
        assert_eq!(at("2026-07-23T10:00:00Z"), "2026-07-23T13:00:00.000+03:00");
    }
}
