//! Disks that are full, read-only or swept by others, and what is written beside the log: snapshots, figures.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use outlierd::internals::watch::events::Kind;
use rustix::process::Resource;

use crate::daemon::{Place, text};
use crate::rig::{Disk, HOOK, Rig, count, limit, messages, until};

/// The daemon's log and snapshots on a disk of their own.
fn on_disk(test: &str, kilobytes: u32, more: &str) -> Option<(Rig, Disk)> {
    let mut place = Place::unconfigured();
    let disk = Disk::mount(test, &place.path("disk"), kilobytes)?;
    place.log = place.path("disk/log/events.jsonl");
    place.snapshots = place.path("disk/snapshots");
    Some((Rig::on(place, "", more), disk))
}

/// All lines of the log are whole events; those that were announced are there once, in order.
fn is_complete(rig: &Rig, raises: usize) {
    let events = rig.events();
    let ids: Vec<_> = events.iter().filter(|e| e.event == Kind::Raise).map(|e| e.id.clone().unwrap()).collect();
    let mut unique = ids.clone();
    unique.sort();
    unique.dedup();
    assert_eq!((ids.len(), unique.len()), (raises, raises), "{events:?}");
}

#[test]
fn fault_a_full_disk_delays_events_and_loses_none() {
    let Some((rig, disk)) = on_disk("fault_a_full_disk_delays_events_and_loses_none", 128, HOOK) else { return };
    let daemon = rig.starts();
    disk.fill();
    let mut rounds = 0;
    // What is left of the log's last page takes some lines.
    while !rig.told().contains("events wait in memory") {
        rounds += 1;
        assert!(rounds < 50, "the disk does not fill");
        rig.show(true);
        until("the hook's raise", || rig.announced(Kind::Raise) == rounds);
        rig.show(false);
        until("the hook's clear", || rig.announced(Kind::Clear) == rounds);
    }
    disk.free();
    daemon.wait_for("the events that waited", |events| count(events, Kind::Clear) == rounds);
    rig.tells("can be written again");
    is_complete(&rig, rounds);
    rig.works(&daemon);
    rig.stops(daemon);
    is_complete(&rig, rounds + 1);
}

#[test]
fn fault_a_full_disk_leaves_no_half_snapshot_and_the_event_goes_without() {
    let test = "fault_a_full_disk_leaves_no_half_snapshot_and_the_event_goes_without";
    let mut place = Place::unconfigured();
    let Some(disk) = Disk::mount(test, &place.path("disk"), 16) else { return };
    place.snapshots = place.path("disk/snapshots");
    let rig = Rig::on(place, "", "");
    let daemon = rig.starts();
    rig.raises(&daemon);
    rig.error(&daemon, "cannot write the snapshot of");
    let left: Vec<_> = std::fs::read_dir(&rig.place.snapshots).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    rig.clears(&daemon);
    // The raise was written before; what comes after it names no picture that is not there.
    let clear = rig.events().into_iter().find(|event| event.event == Kind::Clear).unwrap();
    assert_eq!((clear.snapshot, clear.heat), (None, None));
    disk.remount("size=4m");
    rig.works(&daemon);
    let raise = rig.last_raise();
    assert!(raise.snapshot.unwrap().exists());
}

/// The limits allow more than the disk: the oldest make room, and the newest evidence is there.
#[test]
fn fault_a_disk_that_old_snapshots_fill_takes_the_newest() {
    let test = "fault_a_disk_that_old_snapshots_fill_takes_the_newest";
    let mut place = Place::unconfigured();
    let Some(_disk) = Disk::mount(test, &place.path("disk"), 256) else { return };
    place.snapshots = place.path("disk/snapshots");
    let rig = Rig::on(place, "", "");
    let daemon = rig.starts();
    let mut ids = Vec::new();
    // A raise takes more than 8 kB: these take more than there is.
    while rig.snapshots().len() > ids.len() || ids.len() < 3 {
        assert!(ids.len() < 60, "the disk does not fill: {:?}", rig.snapshots());
        rig.works(&daemon);
        let clear = rig.events().into_iter().rfind(|event| event.event == Kind::Clear).unwrap();
        assert!(clear.snapshot.unwrap().exists() && clear.heat.unwrap().exists(), "{:?}", rig.snapshots());
        ids.push(clear.id.unwrap());
    }
    let first = format!("outlier-{}.jpg", ids[0]);
    assert!(!rig.snapshots().contains(&first), "{:?}", rig.snapshots());
    assert_eq!(messages(&rig.events()), [""; 0]);
    rig.stops(daemon);
}

/// A board without a clock of its own starts in the past after a power cut.
#[test]
fn fault_snapshots_of_a_clock_that_is_behind_are_kept_as_the_newest() {
    let rig = Rig::new("keep-snapshots = 3\n");
    let daemon = rig.starts();
    for _ in 0..3 {
        rig.works(&daemon);
    }
    rig.stops(daemon);
    let raises = |rig: &Rig| -> Vec<outlierd::internals::watch::events::Event> {
        rig.events().into_iter().filter(|event| event.event == Kind::Raise).collect()
    };
    // As the clock of the newest said, these are older than those.
    for (number, raise) in raises(&rig).into_iter().enumerate() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - 1000 * number as u64);
        for path in [raise.snapshot, raise.heat].into_iter().flatten() {
            std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }
    }
    let daemon = rig.starts();
    rig.works(&daemon);
    rig.stops(daemon);
    let kept: Vec<bool> = raises(&rig).into_iter().map(|event| event.snapshot.unwrap().exists()).collect();
    assert_eq!(kept, [false, true, true, true], "{:?}", rig.snapshots());
}

/// The log may not grow beyond a byte: the line that would is torn there.
#[test]
fn fault_a_line_torn_at_any_byte_is_written_again_whole() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    rig.works(&daemon);
    for (round, more) in [1, 40, 150, 249].into_iter().enumerate() {
        let size = std::fs::metadata(&rig.log).unwrap().len();
        limit(&daemon, Resource::Fsize, Some(size + more));
        rig.show(true);
        daemon.notified("cannot write the event log");
        assert!(std::fs::metadata(&rig.log).unwrap().len() <= size + more);
        limit(&daemon, Resource::Fsize, None);
        daemon.wait_for("the line that waited", |events| count(events, Kind::Raise) == round + 2);
        rig.clears(&daemon);
        // What is told of the log from now on is of the next round.
        daemon.notified_of("a status without trouble", |notice| {
            notice.contains("STATUS=normal") && !notice.contains("cannot write the event log")
        });
        // The snapshot had no room either: its error came first, and it is the one that was torn.
        assert_eq!(messages(&rig.events()).len(), round + 1);
    }
    is_complete(&rig, 5);
    rig.stops(daemon);
    assert_eq!(rig.kinds().last(), Some(&Kind::Stop));
}

#[test]
fn fault_a_file_size_limit_ends_no_daemon() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    limit(&daemon, Resource::Fsize, Some(0));
    rig.show(true);
    daemon.notified("cannot write the event log");
    limit(&daemon, Resource::Fsize, None);
    daemon.wait_for("raise", |events| count(events, Kind::Raise) == 1);
    rig.clears(&daemon);
    rig.stops(daemon);
}

#[test]
fn fault_a_full_disk_costs_the_history_its_own_frames_alone() {
    let place = Place::unconfigured();
    let test = "fault_a_full_disk_costs_the_history_its_own_frames_alone";
    let Some(disk) = Disk::mount(test, &place.path("disk"), 64) else { return };
    let rig = Rig::on(place, "", "[history]\npath = \"disk/o.history\"\n[decision]\nfalse-alarms = \"1/day\"\n");
    let daemon = rig.starts();
    let size = || std::fs::metadata(rig.path("disk/o.history")).map_or(0, |file| file.len());
    until("frames in the history", || size() > 0);
    disk.fill();
    let told = || messages(&rig.events()).iter().filter(|text| text.contains("cannot keep the history")).count();
    until("an error event", || told() == 1);
    rig.works(&daemon);
    disk.free();
    let full = size();
    until("frames again", || size() > full);
    rig.stops(daemon);
    assert_eq!(told(), 1);
}

#[test]
fn fault_a_disk_that_turns_read_only_delays_events_and_loses_none() {
    let test = "fault_a_disk_that_turns_read_only_delays_events_and_loses_none";
    let Some((rig, _disk)) = on_disk(test, 1024, HOOK) else { return };
    let daemon = rig.starts();
    // A log that is open for writing keeps its disk writable: the daemon is to find it moved to another disk.
    std::fs::rename(rig.log.parent().unwrap(), rig.path("disk/old")).unwrap();
    let Some(other) = Disk::mount(test, rig.log.parent().unwrap(), 64) else { return };
    other.remount("ro");
    rig.show(true);
    until("the hook's raise", || rig.announced(Kind::Raise) == 1);
    rig.tells("Read-only file system");
    other.remount("rw");
    daemon.wait_for("raise", |events| count(events, Kind::Raise) == 1);
    rig.clears(&daemon);
    rig.works(&daemon);
    is_complete(&rig, 2);
}

#[test]
fn fault_a_snapshot_folder_that_is_deleted_is_made_anew() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    rig.works(&daemon);
    std::fs::remove_dir_all(&rig.place.snapshots).unwrap();
    rig.works(&daemon);
    let names = rig.snapshots();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(outlierd::internals::image::read(&rig.place.snapshots.join("last.jpg")).is_ok());
    assert_eq!(messages(&rig.events()), [""; 0]);
}

#[test]
fn fault_a_file_in_the_snapshot_folder_s_place_loses_no_event() {
    let rig = Rig::new("");
    std::fs::write(&rig.place.snapshots, "a file").unwrap();
    let daemon = rig.starts();
    rig.works(&daemon);
    rig.error(&daemon, "cannot write the snapshot of");
    std::fs::remove_file(&rig.place.snapshots).unwrap();
    rig.works(&daemon);
    let raise = rig.last_raise();
    assert!(raise.snapshot.unwrap().exists());
}

#[test]
fn fault_what_a_killed_run_left_half_written_is_swept() {
    let rig = Rig::new("");
    std::fs::create_dir(&rig.place.snapshots).unwrap();
    for number in 0..20 {
        std::fs::write(rig.place.snapshots.join(format!(".outlier-{number}.jpg.part")), "half").unwrap();
    }
    std::fs::write(rig.place.snapshots.join(".last.part"), "a file in the link's way").unwrap();
    let daemon = rig.starts();
    rig.works(&daemon);
    let names = rig.snapshots();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(messages(&rig.events()), [""; 0]);
}

#[test]
fn fault_snapshots_do_not_fill_the_card() {
    let rig = Rig::new("keep-snapshots = 3\n");
    let daemon = rig.starts();
    for _ in 0..8 {
        rig.works(&daemon);
    }
    let names = rig.snapshots();
    assert_eq!(names.len(), 7, "{names:?}");
    let newest = rig.last_raise();
    assert!(newest.snapshot.unwrap().exists());
}

/// A clock that was years ahead at boot has left pictures; what is new must not make room for them.
#[test]
fn fault_snapshots_of_a_clock_that_was_ahead_go_first() {
    let rig = Rig::new("keep-snapshots = 3\n");
    std::fs::create_dir(&rig.place.snapshots).unwrap();
    let ahead = SystemTime::now() + Duration::from_secs(20 * 365 * 86_400);
    for number in 0..3 {
        let path = rig.place.snapshots.join(format!("outlier-2046-{number}.jpg"));
        std::fs::write(&path, "x").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(ahead).unwrap();
    }
    let daemon = rig.starts();
    for _ in 0..3 {
        rig.works(&daemon);
    }
    let raises = rig.events().into_iter().filter(|event| event.event == Kind::Raise);
    let kept: Vec<bool> = raises.map(|event| event.snapshot.unwrap().exists()).collect();
    assert_eq!(kept, [true; 3], "{:?}", rig.snapshots());
}

fn with_metrics(folder: &str) -> Rig {
    let place = Place::unconfigured();
    let more = format!("metrics = \"{}\"\n", place.path(folder).join("m.prom").display());
    Rig::on(place, "", &more)
}

#[test]
fn fault_figures_that_cannot_be_written_are_told_once_and_come_back() {
    let rig = with_metrics("run");
    let daemon = rig.starts();
    rig.error(&daemon, "cannot write the metrics file");
    rig.works(&daemon);
    // They are tried as often as the status is told: each second.
    (0..4).for_each(|_| daemon.notified("STATUS="));
    assert_eq!(messages(&rig.events()).len(), 1);
    std::fs::create_dir(rig.path("run")).unwrap();
    until("figures", || rig.path("run/m.prom").exists());
    rig.tells("can be written again");
    std::fs::rename(rig.path("run"), rig.path("away")).unwrap();
    daemon.wait_for("the second failure", |events| messages(events).len() == 2);
    rig.works(&daemon);
}

fn plants_beside_the_figures(plant: impl FnOnce(&Path)) -> Rig {
    let rig = with_metrics("run");
    std::fs::create_dir(rig.path("run")).unwrap();
    plant(&rig.path("run/.m.prom.part"));
    let daemon = rig.starts();
    until("figures", || rig.path("run/m.prom").exists());
    assert!(std::fs::read_to_string(rig.path("run/m.prom")).unwrap().contains("outlierd_build_info"));
    rig.works(&daemon);
    rig.stops(daemon);
    rig
}

#[test]
fn fault_a_pipe_in_the_figures_way_does_not_hang_the_watch() {
    plants_beside_the_figures(|path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()));
}

#[test]
fn fault_a_link_in_the_figures_way_is_not_written_through() {
    let precious = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(precious.path(), "precious").unwrap();
    plants_beside_the_figures(|path| symlink(precious.path(), path).unwrap());
    assert_eq!(std::fs::read_to_string(precious.path()).unwrap(), "precious");
}

/// `collect` with room for so many bytes in a file.
#[test]
fn fault_a_picture_that_is_cut_while_it_is_collected_is_no_picture() {
    let place = Place::new("interval = \"1ms\"", "");
    let folder = place.path("normal");
    for bytes in ["--fsize=0", "--fsize=1000", "--fsize=10000"] {
        let mut collect = crate::rig::limited(&[bytes]);
        collect.args(["collect", "--count", "3", "-o"]).arg(&folder).arg("--config").arg(place.path("o.toml"));
        let output = collect.output().unwrap();
        assert!(!output.status.success(), "{bytes}: {}", text(&output.stdout));
        let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        let pictures = names.iter().filter(|name| outlierd::internals::image::is_picture(Path::new(name))).count();
        assert_eq!(pictures, 0, "{names:?}");
    }
}
