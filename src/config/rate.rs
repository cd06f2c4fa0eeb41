//! Rates of events: `1/day`, `2/week`.

use std::fmt;
use std::str::FromStr;

/// Names, and days of each.
const UNITS: [(&str, f64); 3] = [("hour", 1.0 / 24.0), ("day", 1.0), ("week", 7.0)];
/// A rate that nobody means, either way.
const PER_DAY: std::ops::RangeInclusive<f64> = 0.01..=1000.0;

/// So many events in an hour, a day or a week.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    events: f64,
    unit: usize,
}

impl Rate {
    pub fn per_day(self) -> f64 {
        self.events / UNITS[self.unit].1
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let wrong = || format!("{text:?} is not a rate; write it as \"1/day\", \"2/week\" or \"1/hour\"");
        let (events, unit) = text.split_once('/').ok_or_else(wrong)?;
        let unit = UNITS.iter().position(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
        let rate = Rate { events: events.trim().parse().map_err(|_| wrong())?, unit };
        match PER_DAY.contains(&rate.per_day()) {
            true => Ok(rate),
            false => Err(format!("{text:?}: must be {} to {} events a day", PER_DAY.start(), PER_DAY.end())),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{}/{}", self.events, UNITS[self.unit].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        let read = |text: &str| text.parse::<Rate>().map(|rate| (rate.per_day(), rate.to_string()));
        assert_eq!(read("1/day"), Ok((1.0, "1/day".into())));
        assert_eq!(read(" 3.5 / week"), Ok((0.5, "3.5/week".into())));
        assert_eq!(read("2/hour").unwrap().0, 48.0);
        for wrong in ["", "1", "1/month", "x/day", "-1/day", "0/day", "nan/day", "1e9/day", "/day"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
