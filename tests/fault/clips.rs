//! The frames around a raise where the disk is full, the daemon is killed, and frames are giants.

use std::io::Write;

use outlierd::internals::image::jpeg;
use outlierd::internals::watch::events::{Event, Kind};
use rustix::process::Signal;

use crate::daemon::{Place, world};
use crate::rig::{Disk, HOOK, Rig, count, ended, memory, messages, until};

const CLIPS: &str = "[clips]\nafter = \"50ms\"\n";

/// What of clips is in the folder of snapshots.
fn clips(rig: &Rig) -> Vec<String> {
    rig.snapshots().into_iter().filter(|name| name.contains("clip-")).collect()
}

fn newest(rig: &Rig, kind: Kind) -> Event {
    rig.events().into_iter().rfind(|event| event.event == kind).unwrap()
}

#[test]
fn fault_a_full_disk_costs_the_clip_and_neither_the_event_nor_what_follows() {
    let test = "fault_a_full_disk_costs_the_clip_and_neither_the_event_nor_what_follows";
    let mut place = Place::unconfigured();
    let Some(disk) = Disk::mount(test, &place.path("disk"), 16) else { return };
    place.snapshots = place.path("disk/snapshots");
    let rig = Rig::on(place, "", &format!("heat-map = false\n{HOOK}{CLIPS}"));
    let daemon = rig.starts();
    rig.raises(&daemon);
    rig.error(&daemon, "cannot write the clip");
    until("the hook's raise", || rig.announced(Kind::Raise) == 1);
    assert_eq!(clips(&rig), [""; 0]);
    rig.clears(&daemon);
    assert_eq!(newest(&rig, Kind::Clear).clip, None);
    disk.remount("size=8m");
    rig.works(&daemon);
    let clip = newest(&rig, Kind::Raise).clip.unwrap();
    until("a clip", || clip.exists());
    rig.stops(daemon);
}

/// The limits allow more than the disk: the oldest make room.
#[test]
fn fault_a_disk_that_old_clips_fill_takes_the_newest() {
    let test = "fault_a_disk_that_old_clips_fill_takes_the_newest";
    let mut place = Place::unconfigured();
    let Some(_disk) = Disk::mount(test, &place.path("disk"), 1024) else { return };
    place.snapshots = place.path("disk/snapshots");
    let rig =
        Rig::on(place, "", &format!("heat-map = false\nkeep-snapshots = 1\n{CLIPS}before = \"0s\"\nkeep = 1000\n"));
    let daemon = rig.starts();
    let mut made = 0;
    while clips(&rig).len() >= made {
        made += 1;
        assert!(made < 300, "the disk does not fill: {:?}", clips(&rig));
        rig.works(&daemon);
        let clip = newest(&rig, Kind::Raise).clip.unwrap();
        until("a clip", || clip.exists());
    }
    assert_eq!(messages(&rig.events()), [""; 0]);
    rig.stops(daemon);
}

#[test]
fn fault_a_kill_amid_a_clip_leaves_what_the_next_start_removes() {
    let rig = Rig::new("heat-map = false\n[clips]\nbefore = \"0s\"\nafter = \"5m\"\n");
    let daemon = rig.starts();
    rig.raises(&daemon);
    let id = newest(&rig, Kind::Raise).id.unwrap();
    until("half a clip", || clips(&rig) == [format!(".clip-{id}.part")]);
    daemon.signal(Signal::KILL);
    ended(daemon);
    assert_eq!(clips(&rig), [format!(".clip-{id}.part")]);
    rig.show(false);
    let daemon = rig.starts();
    daemon.wait_for("clear", |events| count(events, Kind::Clear) == 1);
    let clear = newest(&rig, Kind::Clear);
    assert_eq!((clear.id, clear.clip), (Some(id), None));
    until("no half a clip", || clips(&rig).is_empty());
    // A stop ends a clip early.
    rig.raises(&daemon);
    let clip = newest(&rig, Kind::Raise).clip.unwrap();
    rig.stops(daemon);
    assert_eq!(newest(&rig, Kind::Stop).clip.as_ref(), Some(&clip));
    assert!(clip.join("00001.jpg").exists() && clip.join("clip.avi").exists() && clip.join("index.html").exists());
    // Without the section what is left half written goes, too, and what is whole stays.
    std::fs::create_dir(rig.place.snapshots.join(".clip-cut.part")).unwrap();
    rig.watch("", "heat-map = false\n");
    let daemon = rig.starts();
    daemon.wait_for("clear", |events| count(events, Kind::Clear) == 2);
    until("no half a clip", || clips(&rig).len() == 1);
    rig.stops(daemon);
}

#[test]
fn fault_a_folder_that_cannot_be_written_costs_the_clip_alone() {
    let rig = Rig::new(&format!("{HOOK}{CLIPS}"));
    let daemon = rig.starts();
    std::fs::remove_dir_all(&rig.place.snapshots).unwrap();
    std::fs::write(&rig.place.snapshots, "no folder").unwrap();
    rig.raises(&daemon);
    rig.error(&daemon, "cannot write the clip");
    until("the hook's raise", || rig.announced(Kind::Raise) == 1);
    rig.clears(&daemon);
    assert_eq!(newest(&rig, Kind::Clear).clip, None);
    std::fs::remove_file(&rig.place.snapshots).unwrap();
    rig.works(&daemon);
    let clip = newest(&rig, Kind::Raise).clip.unwrap();
    until("a clip", || clip.exists());
    rig.stops(daemon);
}

/// Small pictures of 20 MB each, thirty of them: none is kept for a clip. How many are under way at once (the reader's, the
/// newest, the one that is judged) depends on the load; kept, they would be 600 MB.
#[test]
fn fault_giant_frames_are_in_no_clip() {
    let picture = outlierd::internals::image::read(&world().join("frames/0000.png")).unwrap();
    let small = jpeg::encode(&picture, 95).unwrap();
    let segment = [&[0xFF, 0xEF, 0xFF, 0xFF][..], &[0x55; 0xFFFD]].concat();
    let giant = [&small[..2], &segment.repeat(320), &small[2..]].concat();
    let place = Place::unconfigured();
    let fifo = place.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    place.configure("", "[clips]\nbefore = \"5m\"\n");
    let config = std::fs::read_to_string(place.path("o.toml")).unwrap();
    let config = config.replace(&format!("folder:{}", place.frames.display()), &format!("pipe:{}", fifo.display()));
    std::fs::write(place.path("o.toml"), config.replace("[camera]", "[camera]\ninterval = \"1ms\"")).unwrap();
    // It ends with the daemon, which it writes to.
    std::thread::spawn(move || {
        let mut writer = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
        while writer.write_all(&giant).is_ok() {}
    });
    let daemon = place.spawn();
    daemon.notified_of("thirty frames", |notice| {
        let frames = notice.split(", ").find_map(|part| part.strip_suffix(" frames"));
        frames.is_some_and(|frames| frames.parse::<u64>().is_ok_and(|frames| frames >= 30))
    });
    let peak = memory(&daemon, "VmHWM");
    assert_eq!(daemon.stop(Signal::TERM), 0);
    let events = outlierd::internals::watch::events::read(&place.log).unwrap();
    let large = |message: &&String| message.contains("larger than clips.max-memory");
    assert_eq!(messages(&events).iter().filter(large).count(), 1);
    println!("peak {peak} kB");
    assert!(peak < 350_000, "{peak} kB");
}
