//! SIGKILL at any time: what was announced anywhere is in the log, and nothing is torn.

use std::path::Path;
use std::time::Duration;

use outlierd::internals::watch::events::{Event, Kind};
use rustix::process::Signal;

use crate::daemon::Place;
use crate::rig::{HOOK, Rig, count, ended, until};

const KILLS: u64 = 40;

/// Every picture under a final name is whole.
fn pictures_are_whole(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let mut pictures = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        if outlierd::internals::image::is_picture(&path)
            && !path.file_name().unwrap().to_str().unwrap().starts_with('.')
        {
            outlierd::internals::image::read(&path).unwrap();
            pictures += 1;
        }
    }
    pictures
}

/// Ids of raises that the journal told of.
fn in_the_journal(text: &str) -> Vec<String> {
    let raises = text.lines().filter_map(|line| line.split_once("raise ")?.1.split(' ').next());
    raises.map(str::to_owned).collect()
}

#[test]
fn fault_kills_at_any_time_lose_no_announced_event_and_tear_nothing() {
    let place = Place::unconfigured();
    let metrics = place.path("m.prom");
    let more = format!(
        "max-log-size = \"16 KiB\"\nkeep-snapshots = 20\nmetrics = {metrics:?}\n{HOOK}[decision]\nraise-after = 1\nclear-after = 1\n"
    );
    let rig = Rig::on(place, "", &more);
    // One picture of three is an object: raise and clear follow each other as fast as they can.
    rig.show(true);
    std::fs::copy(rig.frames.join("a.png"), rig.path("object.png")).unwrap();
    rig.show(false);
    std::fs::rename(rig.path("object.png"), rig.frames.join("b.png")).unwrap();
    let mut announced: Vec<String> = Vec::new();
    let mut seen: Vec<Event> = Vec::new();
    for round in 0..KILLS {
        let mut daemon = rig.starts();
        until("raises", || in_the_journal(&rig.told()).len() as u64 >= round % 3);
        // Spread over what comes between two raises; no two rounds alike.
        std::thread::sleep(Duration::from_micros(round * 7919 % 200_000));
        daemon.signal(Signal::KILL);
        daemon.child.wait().unwrap();
        announced.extend(in_the_journal(&rig.told()));
        // The log is rotated: what it gave up meanwhile was seen before.
        for event in rig.events() {
            if !seen.contains(&event) {
                seen.push(event);
            }
        }
        pictures_are_whole(&rig.place.snapshots);
        if let Ok(text) = std::fs::read_to_string(&metrics) {
            assert!(text.ends_with('\n') && text.contains("outlierd_build_info"), "{text}");
        }
    }
    let by_hook = rig.announcements().into_iter().filter(|event| event.event == Kind::Raise);
    announced.extend(by_hook.filter_map(|event| event.id));
    let logged: Vec<&String> =
        seen.iter().filter(|event| event.event == Kind::Raise).filter_map(|event| event.id.as_ref()).collect();
    let lost: Vec<&String> = announced.iter().filter(|id| !logged.contains(id)).collect();
    println!("{KILLS} kills, {} raises announced, {} lost", announced.len(), lost.len());
    assert!(announced.len() as u64 >= KILLS / 2, "{} announced", announced.len());
    assert!(lost.is_empty(), "{lost:?}");
    assert!(pictures_are_whole(&rig.place.snapshots) > 0);
    rig.show(false);
    let daemon = rig.starts();
    rig.works(&daemon);
    rig.stops(daemon);
    assert_eq!(rig.kinds().last(), Some(&Kind::Stop));
    let parts = rig.snapshots().into_iter().filter(|name| name.ends_with(".part")).count();
    assert_eq!(parts, 0);
}

/// The line is on the disk before anyone is told, so that a kill at the announcement finds it there.
#[test]
fn fault_a_kill_at_the_moment_of_the_announcement_finds_the_event_in_the_log() {
    use std::io::{BufRead, BufReader};
    for _ in 0..10 {
        let rig = Rig::new("heat-map = false\n");
        let mut daemon = rig.spawn_with(|command| {
            command.stderr(std::process::Stdio::piped());
        });
        let journal = BufReader::new(daemon.child.stderr.take().unwrap());
        rig.show(true);
        let line = journal.lines().map(|line| line.unwrap()).find(|line| line.contains("raise ")).unwrap();
        daemon.signal(Signal::KILL);
        let id = in_the_journal(&line).remove(0);
        ended(daemon);
        assert!(rig.events().iter().any(|event| event.id.as_ref() == Some(&id)), "{id}: {:?}", rig.events());
    }
}

#[test]
fn fault_a_kill_while_an_event_stands_leaves_a_log_in_which_the_next_run_closes_it() {
    let rig = Rig::new("");
    for round in 1..=3 {
        let daemon = rig.starts();
        daemon.wait_for("start", |events| count(events, Kind::Start) == round);
        rig.show(true);
        daemon.wait_for("raise", |events| count(events, Kind::Raise) == round);
        daemon.signal(Signal::KILL);
        ended(daemon);
    }
    let kinds = [&[Kind::Start][..], &[Kind::Raise, Kind::Start, Kind::Clear].repeat(2), &[Kind::Raise]].concat();
    assert_eq!(rig.kinds(), kinds);
    let events = rig.events();
    assert!(events.iter().zip(&events[2..]).all(|(a, b)| b.event != Kind::Clear || a.id == b.id), "{events:?}");
    let mut ids: Vec<_> = events.into_iter().filter_map(|event| event.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}
