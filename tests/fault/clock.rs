//! Clocks that jump: at boot to 1970, years ahead, and back when NTP has its say.

use std::time::{Duration, SystemTime};

use outlierd::internals::watch::events::{Event, Kind};

use crate::daemon::{Place, text};
use crate::rig::Rig;

fn at(seconds: u64, kind: Kind, frames: u64) -> Event {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Event { time, frames: Some(frames), ..Event::new(kind) }
}

const NOW: u64 = 1_795_000_000;
const FAR: u64 = 4_000_000_000;

#[test]
fn fault_a_log_whose_times_jump_is_filtered_by_each_event_s_own_time() {
    let place = Place::new("", "");
    let times = [NOW, FAR, 5, NOW + 60, FAR + 1, 6, NOW + 120];
    let lines: Vec<String> =
        times.iter().zip(1..).map(|(time, number)| at(*time, Kind::Raise, number).to_json()).collect();
    std::fs::write(&place.log, lines.join("\n") + "\n").unwrap();
    let frames = |filters: &[&str]| -> Vec<u64> {
        let shown = place.run(&[&["events", "--json"], filters].concat());
        assert!(shown.status.success(), "{}", text(&shown.stderr));
        let events = text(&shown.stdout);
        events.lines().map(|line| serde_json::from_str::<Event>(line).unwrap().frames.unwrap()).collect()
    };
    assert_eq!(frames(&[]), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(frames(&["--since", "2026-11-01", "--until", "2027-11-01"]), [1, 4, 7]);
    assert_eq!(frames(&["--until", "2000-01-01"]), [3, 6]);
    assert_eq!(frames(&["--since", "2090-01-01"]), [2, 5]);
    assert_eq!(frames(&["--last", "2"]), [6, 7]);
}

#[test]
fn fault_a_daemon_goes_on_in_a_log_of_any_time() {
    for before in [5, FAR, 253_402_300_799] {
        let rig = Rig::new("");
        std::fs::write(&rig.log, at(before, Kind::Start, 1).to_json() + "\n").unwrap();
        let daemon = rig.starts();
        rig.works(&daemon);
        rig.stops(daemon);
        assert_eq!(rig.kinds(), [Kind::Start, Kind::Start, Kind::Raise, Kind::Clear, Kind::Stop]);
    }
}

/// The score of an event from before the model was made, by its time, is another model's.
#[test]
fn fault_an_event_of_a_clock_at_1970_is_learnt_from_its_snapshot() {
    let (rig, raise) = Rig::with_false_alarm();
    let model = std::fs::read(&rig.place.model).unwrap();
    let learnt = |time: SystemTime| -> String {
        std::fs::write(&rig.log, Event { time, ..raise.clone() }.to_json() + "\n").unwrap();
        std::fs::write(&rig.place.model, &model).unwrap();
        let learn = rig.run(&["learn", "--json", raise.id.as_ref().unwrap()]);
        assert!(learn.status.success(), "{}", text(&learn.stderr));
        let row: serde_json::Value = serde_json::from_str(text(&learn.stdout).lines().next().unwrap()).unwrap();
        row["score_of"].as_str().unwrap().to_owned()
    };
    assert_eq!(learnt(raise.time), "live");
    assert_eq!(learnt(SystemTime::UNIX_EPOCH + Duration::from_secs(7)), "snapshot");
    assert_eq!(learnt(SystemTime::UNIX_EPOCH), "snapshot");
    let _ = std::fs::remove_file(raise.snapshot.as_ref().unwrap());
    std::fs::write(&rig.log, at(7, Kind::Raise, 3).to_json() + "\n").unwrap();
    assert_eq!(rig.run(&["learn", "--since", "2026-01-01"]).status.code(), Some(66));
}

/// A board without a clock starts at the same second at every boot.
#[test]
fn fault_ids_differ_between_runs_whatever_the_clock_says() {
    let mut parts = Vec::new();
    for _ in 0..3 {
        let rig = Rig::new("");
        let daemon = rig.starts();
        rig.works(&daemon);
        rig.works(&daemon);
        rig.stops(daemon);
        let ids = rig.events().into_iter().filter(|event| event.event == Kind::Raise).map(|event| event.id.unwrap());
        parts.extend(ids.map(|id| id.split_once('-').unwrap().1.to_owned()));
    }
    let all = parts.len();
    parts.sort();
    parts.dedup();
    assert_eq!((all, parts.len()), (6, 6));
}
