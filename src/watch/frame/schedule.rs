//! Which of a config's models watches: by local time, or by the light that the camera sees.
//!
//! The first of `[[model.when]]` of which all conditions hold, else `model.path`. Hours count from the latest start or
//! end in local time: one that daylight saving time skips is an hour later, one that it repeats is the first of the
//! two. Limits of light have a hysteresis of [`HYSTERESIS`], and must be passed for `hold`; meanwhile nothing is
//! judged, as neither model knows such frames.

use std::time::{Duration, SystemTime};

use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::light::Light;
use super::machine::Time;
use crate::config::When;

/// The light goes back beyond a limit by so much before it counts.
const HYSTERESIS: f64 = 1.25;

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The model that watches goes on.
    Keep,
    /// The light changes: the frame is none's.
    Wait,
    /// Another model watches from this frame on: 0 is `model.path`.
    Switch(usize),
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Schedule {
    whens: Vec<When>,
    chosen: usize,
    /// No frame was seen yet: the first chooses at once.
    fresh: bool,
    /// What the light asks for, and since when.
    pending: Option<(usize, std::time::Instant)>,
}

impl Schedule {
    pub fn new(whens: &[When]) -> Self {
        Schedule { whens: whens.to_vec(), chosen: 0, fresh: true, pending: None }
    }

    /// Takes the conditions of another config; the choice stays where they are the same.
    pub fn reconfigure(&mut self, whens: &[When]) {
        if self.whens != whens {
            *self = Schedule::new(whens);
        }
    }

    /// The model that watches: 0 is `model.path`.
    pub fn chosen(&self) -> usize {
        self.chosen
    }

    pub fn needs_light(&self) -> bool {
        self.whens.iter().any(When::needs_light)
    }

    /// Why the chosen model watches, for people.
    pub fn reason(&self) -> String {
        match self.chosen.checked_sub(1).and_then(|at| self.whens.get(at)) {
            Some(when) => when.to_string(),
            None => "no [[model.when]] holds".into(),
        }
    }

    /// Takes the time and the light of a frame; light that was not measured meets no limit.
    pub fn choose(&mut self, now: Time, zone: &TimeZone, light: Option<Light>) -> Choice {
        let holds = |(at, when): (usize, &When)| is_met(when, self.chosen == at + 1, now.wall, zone, light);
        let wanted = self.whens.iter().enumerate().position(holds).map_or(0, |at| at + 1);
        let is_first = std::mem::take(&mut self.fresh);
        if wanted == self.chosen {
            self.pending = None;
            return Choice::Keep;
        }
        let (_, since) = *match &mut self.pending {
            Some(pending) if pending.0 == wanted => pending,
            pending => pending.insert((wanted, now.monotonic)),
        };
        if !is_first && now.monotonic.duration_since(since) < self.hold(wanted) {
            return Choice::Wait;
        }
        (self.chosen, self.pending) = (wanted, None);
        Choice::Switch(wanted)
    }

    /// How long the light must have changed; hours change at once.
    fn hold(&self, wanted: usize) -> Duration {
        let holds = [self.chosen, wanted].into_iter().filter_map(|at| self.whens.get(at.checked_sub(1)?));
        holds.filter(|when| when.needs_light()).map(|when| when.hold).max().unwrap_or_default()
    }
}

fn is_met(when: &When, is_chosen: bool, now: SystemTime, zone: &TimeZone, light: Option<Light>) -> bool {
    let margin = if is_chosen { HYSTERESIS } else { 1.0 };
    let limited = |limit: Option<f64>, is_within: &dyn Fn(f64, Light) -> bool| {
        limit.is_none_or(|limit| light.is_some_and(|light| is_within(limit, light)))
    };
    when.from.zip(when.to).is_none_or(|(from, to)| is_between(from, to, now, zone))
        && limited(when.brightness_below, &|limit, light| light.brightness < limit * margin)
        && limited(when.brightness_above, &|limit, light| light.brightness > limit / margin)
        && limited(when.saturation_below, &|limit, light| light.saturation < limit * margin)
}

/// Whether `from` was later than `to`; a time beyond the calendar is between none.
fn is_between(from: civil::Time, to: civil::Time, now: SystemTime, zone: &TimeZone) -> bool {
    let Ok(now) = Timestamp::try_from(now) else { return false };
    let today = now.to_zoned_datetime(zone.clone()).date();
    let latest = |time: civil::Time| {
        (0..=2).find_map(|back| {
            let day = today.checked_sub(back.days()).ok()?;
            let at = day.to_datetime(time).to_zoned_datetime(zone.clone()).ok()?.timestamp();
            (at <= now).then_some(at)
        })
    };
    latest(from) > latest(to)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn hours(from: &str, to: &str) -> When {
        When { path: "x".into(), from: from.parse().ok(), to: to.parse().ok(), ..When::default() }
    }

    fn utc(text: &str) -> SystemTime {
        SystemTime::try_from(text.parse::<Timestamp>().unwrap()).unwrap()
    }

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    #[test]
    fn hours_go_beyond_midnight() {
        let (from, to) = (civil::time(20, 0, 0, 0), civil::time(6, 0, 0, 0));
        let night = |text| is_between(from, to, utc(text), &TimeZone::UTC);
        assert_eq!(
            ["2026-11-23T19:59:59Z", "2026-11-23T20:00:00Z", "2026-11-24T00:00:00Z", "2026-11-24T05:59:59Z"].map(night),
            [false, true, true, true]
        );
        assert!(!night("2026-11-24T06:00:00Z"));
        let day = |text| is_between(to, from, utc(text), &TimeZone::UTC);
        assert_eq!(
            ["2026-11-23T05:59:59Z", "2026-11-23T06:00:00Z", "2026-11-23T20:00:00Z"].map(day),
            [false, true, false]
        );
    }

    /// In Berlin 2026 clocks go from 02:00 to 03:00 on March 29, and from 03:00 back to 02:00 on October 25.
    #[test]
    fn hours_are_local_and_survive_daylight_saving_time() {
        let within =
            |from: &str, to: &str, text| is_between(from.parse().unwrap(), to.parse().unwrap(), utc(text), &berlin());
        // Winter and summer.
        assert!(within("20:00", "06:00", "2026-01-10T19:00:00Z") && !within("20:00", "06:00", "2026-01-10T18:59:00Z"));
        assert!(within("20:00", "06:00", "2026-07-10T18:00:00Z") && !within("20:00", "06:00", "2026-07-10T17:59:00Z"));
        // 02:30 is skipped: it is 03:30 that day, and the hours end as ever.
        assert!(!within("02:30", "06:00", "2026-03-29T01:29:00Z") && within("02:30", "06:00", "2026-03-29T01:30:00Z"));
        assert!(!within("02:30", "06:00", "2026-03-29T04:00:00Z"));
        // 02:30 comes twice: the first counts, and the second is none.
        assert!(!within("02:30", "06:00", "2026-10-25T00:29:00Z") && within("02:30", "06:00", "2026-10-25T00:30:00Z"));
        assert!(within("02:30", "06:00", "2026-10-25T01:10:00Z"));
        assert!(within("20:00", "02:30", "2026-10-25T00:29:00Z") && !within("20:00", "02:30", "2026-10-25T01:10:00Z"));
    }

    #[test]
    fn the_first_that_holds_watches_and_hours_switch_at_once() {
        let mut schedule = Schedule::new(&[hours("12:00", "13:00"), hours("10:00", "18:00")]);
        let begun = Instant::now();
        let mut choose = |text| {
            let now = Time { monotonic: begun, wall: utc(text) };
            schedule.choose(now, &TimeZone::UTC, None)
        };
        assert_eq!(choose("2026-11-23T09:00:00Z"), Choice::Keep);
        assert_eq!(choose("2026-11-23T10:00:00Z"), Choice::Switch(2));
        assert_eq!(choose("2026-11-23T11:00:00Z"), Choice::Keep);
        assert_eq!(choose("2026-11-23T12:30:00Z"), Choice::Switch(1));
        assert_eq!(choose("2026-11-23T13:00:00Z"), Choice::Switch(2));
        // A clock that is set back.
        assert_eq!(choose("2026-11-22T03:00:00Z"), Choice::Switch(0));
    }

    /// `1` to `9`: brightness in tenths, a second apart; the answer has what watches, `.` where nothing is judged.
    fn choices(schedule: &mut Schedule, from: &mut u64, begun: Instant, light: &str) -> String {
        let mut watched = String::new();
        for brightness in light.chars() {
            *from += 1;
            let now = Time { monotonic: begun + Duration::from_secs(*from), wall: utc("2026-11-23T09:00:00Z") };
            let brightness = f64::from(brightness.to_digit(10).unwrap()) / 10.0;
            let light = Some(Light { brightness, saturation: 0.5 });
            watched.push(match schedule.choose(now, &TimeZone::UTC, light) {
                Choice::Wait => '.',
                Choice::Keep | Choice::Switch(_) => char::from_digit(schedule.chosen() as u32, 10).unwrap(),
            });
        }
        watched
    }

    #[test]
    fn light_has_a_hysteresis_and_must_last() {
        let dark =
            When { path: "x".into(), brightness_below: Some(0.45), hold: Duration::from_secs(2), ..When::default() };
        let (mut schedule, mut at, begun) = (Schedule::new(&[dark]), 0, Instant::now());
        assert!(schedule.needs_light());
        // A flash, dusk, a flicker within the hysteresis, headlights, dawn.
        let mut choices = |light| choices(&mut schedule, &mut at, begun, light);
        assert_eq!(choices("8828"), "00.0");
        assert_eq!(choices("84443"), "0..11");
        assert_eq!(choices("5454"), "1111");
        assert_eq!(choices("4949"), "1.1.");
        assert_eq!(choices("9990"), ".00.");
    }

    #[test]
    fn the_first_frame_chooses_at_once_and_a_reload_keeps_the_choice() {
        let dark = When { path: "x".into(), brightness_below: Some(0.45), ..When::default() };
        let (mut schedule, mut at, begun) = (Schedule::new(std::slice::from_ref(&dark)), 0, Instant::now());
        assert_eq!(choices(&mut schedule, &mut at, begun, "24"), "11");
        assert_eq!(schedule.reason(), "brightness below 0.45");
        schedule.reconfigure(std::slice::from_ref(&dark));
        assert_eq!(schedule.chosen(), 1);
        schedule.reconfigure(&[]);
        assert_eq!((schedule.chosen(), schedule.reason().as_str()), (0, "no [[model.when]] holds"));
    }
}
