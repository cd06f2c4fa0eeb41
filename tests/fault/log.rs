//! An event log that someone else moves, cuts, deletes, replaces, locks or writes to.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use outlierd::internals::watch::events::{self, Kind};

use crate::daemon::{Place, text};
use crate::rig::{HOOK, Rig, count, until};

const QUICK: &str = "[decision]\nraise-after = 1\nclear-after = 1\n";

fn other(rig: &Rig, suffix: &str) -> PathBuf {
    rig.path(&format!("events.jsonl{suffix}"))
}

#[test]
fn fault_a_log_that_is_renamed_is_written_at_its_path() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    rig.raises(&daemon);
    std::fs::rename(&rig.log, other(&rig, "-20261124")).unwrap();
    rig.clears(&daemon);
    assert_eq!(rig.kinds(), [Kind::Clear]);
    let moved = events::read(&other(&rig, "-20261124")).unwrap();
    assert_eq!(moved.last().unwrap().id, rig.events()[0].id);
    rig.works(&daemon);
}

#[test]
fn fault_a_log_that_is_deleted_is_made_anew() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    rig.raises(&daemon);
    std::fs::remove_file(&rig.log).unwrap();
    rig.clears(&daemon);
    rig.works(&daemon);
    assert_eq!(rig.kinds(), [Kind::Clear, Kind::Raise, Kind::Clear]);
}

#[test]
fn fault_a_log_folder_that_is_deleted_is_made_anew() {
    let mut place = Place::unconfigured();
    place.log = place.path("var/log/events.jsonl");
    let rig = Rig::on(place, "", "");
    let daemon = rig.starts();
    rig.raises(&daemon);
    std::fs::remove_dir_all(rig.path("var")).unwrap();
    rig.clears(&daemon);
    assert_eq!(rig.kinds(), [Kind::Clear]);
}

#[test]
fn fault_a_log_that_is_cut_in_a_line_costs_no_other_line() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    rig.works(&daemon);
    let len = std::fs::metadata(&rig.log).unwrap().len();
    File::options().write(true).open(&rig.log).unwrap().set_len(len - 50).unwrap();
    rig.works(&daemon);
    assert_eq!(rig.kinds(), [Kind::Start, Kind::Raise, Kind::Raise, Kind::Clear]);
}

#[test]
fn fault_a_log_that_others_write_half_lines_to_costs_no_line_of_the_daemon() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    let mut file = File::options().append(true).open(&rig.log).unwrap();
    file.write_all(b"half a line of someone else").unwrap();
    rig.works(&daemon);
    file.write_all(&[0; 5000]).unwrap();
    rig.works(&daemon);
    assert_eq!(rig.kinds(), [Kind::Start, Kind::Raise, Kind::Clear, Kind::Raise, Kind::Clear]);
}

/// Something else has the log's name; what is announced meanwhile is in the log once that is gone.
fn waits(what: &str, plant: impl FnOnce(&Rig), remove: impl FnOnce(&Rig)) {
    let rig = Rig::new("");
    let daemon = rig.starts();
    std::fs::rename(&rig.log, other(&rig, ".1")).unwrap();
    plant(&rig);
    rig.show(true);
    rig.tells("raise 2");
    rig.tells(what);
    rig.show(false);
    rig.tells("clear 2");
    remove(&rig);
    daemon.wait_for("the events that waited", |events| count(events, Kind::Clear) == 1);
    rig.works(&daemon);
    rig.stops(daemon);
    let all = [Kind::Start, Kind::Raise, Kind::Clear, Kind::Raise, Kind::Clear, Kind::Stop];
    assert_eq!(rig.kinds(), all);
}

#[test]
fn fault_a_folder_in_the_log_s_place_delays_events_and_loses_none() {
    let plant = |rig: &Rig| std::fs::create_dir(&rig.log).unwrap();
    waits("Is a directory", plant, |rig| std::fs::remove_dir(&rig.log).unwrap());
}

#[test]
fn fault_a_pipe_in_the_log_s_place_delays_events_and_loses_none() {
    let plant = |rig: &Rig| assert!(Command::new("mkfifo").arg(&rig.log).status().unwrap().success());
    waits("not a plain file", plant, |rig| std::fs::remove_file(&rig.log).unwrap());
}

#[test]
fn fault_a_device_in_the_log_s_place_swallows_no_event() {
    let plant = |rig: &Rig| symlink("/dev/null", &rig.log).unwrap();
    waits("not a plain file", plant, |rig| std::fs::remove_file(&rig.log).unwrap());
}

#[test]
fn fault_a_link_to_itself_in_the_log_s_place_delays_events_and_loses_none() {
    let plant = |rig: &Rig| symlink(&rig.log, &rig.log).unwrap();
    waits("symbolic link", plant, |rig| std::fs::remove_file(&rig.log).unwrap());
}

#[test]
fn fault_a_log_that_is_a_link_loses_no_line_when_it_is_rotated() {
    let place = Place::unconfigured();
    std::fs::create_dir(place.path("card")).unwrap();
    symlink(place.path("card/events.jsonl"), &place.log).unwrap();
    let rig = Rig::on(place, "", &format!("max-log-size = \"4 KiB\"\n{QUICK}"));
    let daemon = rig.starts();
    for _ in 0..15 {
        rig.works(&daemon);
    }
    rig.stops(daemon);
    assert!(other(&rig, ".1").exists());
    let events = rig.events();
    assert_eq!((count(&events, Kind::Raise), count(&events, Kind::Clear)), (15, 15));
}

#[test]
fn fault_a_log_does_not_fill_the_card() {
    let rig = Rig::new(&format!("max-log-size = \"4 KiB\"\nheat-map = false\n{QUICK}"));
    let daemon = rig.starts();
    // One picture of three is an object: each round is a raise and a clear.
    rig.show(true);
    std::fs::copy(rig.frames.join("a.png"), rig.path("object.png")).unwrap();
    rig.show(false);
    std::fs::rename(rig.path("object.png"), rig.frames.join("b.png")).unwrap();
    let folder = || {
        let logs = std::fs::read_dir(rig.dir.path()).unwrap().map(|entry| entry.unwrap());
        logs.filter(|entry| entry.file_name().to_str().unwrap().starts_with("events.jsonl")).collect::<Vec<_>>()
    };
    until("the fifth rotation", || other(&rig, ".5").exists());
    let (first, seen) = (other(&rig, ".5"), std::fs::read(other(&rig, ".5")).unwrap());
    until("the sixth rotation", || std::fs::read(&first).unwrap() != seen);
    rig.show(false);
    rig.stops(daemon);
    assert_eq!(folder().len(), 6);
    let bytes: u64 = folder().iter().map(|entry| entry.metadata().unwrap().len()).sum();
    assert!(bytes <= 6 * 4096, "{bytes} bytes");
}

#[test]
fn fault_a_log_that_is_locked_holds_nothing_up_and_gets_its_lines_later() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    let holder = File::options().append(true).open(&rig.log).unwrap();
    holder.lock().unwrap();
    rig.show(true);
    rig.tells("raise 2");
    rig.tells("another process holds it locked");
    rig.show(false);
    rig.tells("clear 2");
    holder.unlock().unwrap();
    daemon.wait_for("the events that waited", |events| count(events, Kind::Clear) == 1);
    rig.works(&daemon);
}

/// Two daemons with one config: both run, and every event of both is in the log.
#[test]
fn fault_two_daemons_on_one_log_lose_no_event() {
    let place = Place::unconfigured();
    let log = place.log.clone();
    let rigs: Vec<Rig> = (0..3)
        .map(|_| {
            let mut place = Place::unconfigured();
            place.log = log.clone();
            Rig::on(place, "", &format!("max-log-size = \"4 KiB\"\nheat-map = false\n{HOOK}{QUICK}"))
        })
        .collect();
    let daemons: Vec<_> = rigs
        .iter()
        .map(|rig| {
            rig.spawn_with(|command| {
                command.current_dir(rig.dir.path());
            })
        })
        .collect();
    // Eight lines each and three starts fit into the five rotated logs.
    for _ in 0..8 {
        for (object, kind) in [(true, Kind::Raise), (false, Kind::Clear)] {
            let before: Vec<usize> = rigs.iter().map(|rig| rig.announced(kind)).collect();
            rigs.iter().for_each(|rig| rig.show(object));
            for (rig, before) in rigs.iter().zip(before) {
                until("the hook", || rig.announced(kind) > before);
            }
        }
    }
    daemons.into_iter().zip(&rigs).for_each(|(daemon, rig)| rig.stops(daemon));
    let events = events::read(&log).unwrap();
    let expected: usize = rigs.iter().map(|rig| rig.announced(Kind::Raise)).sum();
    assert!(expected >= 24);
    assert_eq!(count(&events, Kind::Raise), expected);
    assert_eq!((count(&events, Kind::Start), count(&events, Kind::Stop)), (3, 3));
    for rig in &rigs {
        let told = rig.told();
        assert!(!told.contains("panicked"), "{told}");
    }
}

/// As a kill between a rotation's rename and the new log leaves it.
#[test]
fn fault_a_rotation_that_was_cut_short_hides_no_event() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    rig.works(&daemon);
    rig.stops(daemon);
    std::fs::rename(&rig.log, other(&rig, ".1")).unwrap();
    let shown = rig.run(&["events"]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    assert_eq!(text(&shown.stdout).lines().count(), 4);
    let daemon = rig.starts();
    rig.stops(daemon);
    assert_eq!(rig.kinds().len(), 6);
}

#[test]
fn fault_a_log_that_is_no_log_is_an_error_and_no_hang() {
    let place = Place::new("", "");
    assert!(Command::new("mkfifo").arg(&place.log).status().unwrap().success());
    for arguments in [["events"].as_slice(), &["events", "--follow"], &["learn", "--list"]] {
        let shown = place.run(arguments);
        assert_eq!(shown.status.code(), Some(66), "{arguments:?}");
        assert!(text(&shown.stderr).contains("not a plain file"), "{}", text(&shown.stderr));
    }
}
