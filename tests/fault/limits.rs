//! Limits of the process that are reached: descriptors, memory, processes.

use std::os::unix::process::CommandExt;
use std::process::Command;

use outlierd::internals::watch::events::Kind;
use rustix::process::Resource;

use crate::daemon::{Place, world};
use crate::rig::{HOOK, NOBODY, Rig, count, is_root, limit, limited, open_to_all, until};

#[test]
fn fault_no_descriptors_left_is_told_and_the_watch_goes_on_when_there_are() {
    let rig = Rig::new(HOOK);
    let daemon = rig.starts();
    // Before each limit, and before the stop, the hook has taken what it was told of.
    let works = |rounds| {
        rig.works(&daemon);
        until("the hook's clear", || rig.announced(Kind::Clear) == rounds);
    };
    works(1);
    for round in 1..=3 {
        limit(&daemon, Resource::Nofile, Some(3));
        daemon.wait_for("camera-lost", |events| count(events, Kind::CameraLost) == round);
        // Error events of three rounds may be too many to be written; the lost camera's own message never is.
        let lost = rig.events().into_iter().rfind(|event| event.event == Kind::CameraLost).unwrap();
        assert!(lost.message.as_ref().unwrap().contains("Too many open files"), "{lost:?}");
        if round == 1 {
            rig.error(&daemon, "for camera-lost: cannot be run: Too many open files");
        }
        limit(&daemon, Resource::Nofile, None);
        daemon.wait_for("camera-found", |events| count(events, Kind::CameraFound) == round);
        works(round + 1);
    }
    rig.stops(daemon);
    assert_eq!(rig.announced(Kind::Raise), 4);
}

/// A camera that is lost for want of a descriptor must not get the daemon killed as well.
#[test]
fn fault_the_watchdog_is_fed_also_without_a_descriptor() {
    let rig = Rig::new("");
    let daemon = rig.spawn_with(|command| {
        command.env("WATCHDOG_USEC", "300000");
    });
    daemon.notified("READY=1");
    limit(&daemon, Resource::Nofile, Some(3));
    daemon.wait_for("camera-lost", |events| count(events, Kind::CameraLost) == 1);
    while daemon.notices.try_recv().is_ok() {}
    for _ in 0..3 {
        daemon.notified("WATCHDOG=1");
    }
    limit(&daemon, Resource::Nofile, None);
    rig.works(&daemon);
    rig.stops(daemon);
}

#[test]
fn fault_a_reload_without_descriptors_is_refused_and_the_old_config_stays() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    limit(&daemon, Resource::Nofile, Some(3));
    rig.refuses(&daemon, "Too many open files");
    limit(&daemon, Resource::Nofile, None);
    rig.reload(&daemon);
    rig.tells("reloaded");
    rig.works(&daemon);
}

/// A user of whom nothing else runs.
const ALONE: u32 = 64_731;

#[test]
fn fault_no_process_left_for_the_hook_is_told_and_the_watch_goes_on() {
    let test = "fault_no_process_left_for_the_hook_is_told_and_the_watch_goes_on";
    if !is_root(test) {
        return;
    }
    let rig = Rig::new(HOOK);
    for path in [rig.dir.path(), world(), &rig.frames] {
        open_to_all(path);
    }
    let daemon = rig.spawn_with(|command| {
        open_to_all(&rig.path("notify"));
        command.uid(ALONE).gid(NOBODY).current_dir(rig.dir.path());
    });
    daemon.notified("READY=1");
    until("the hook's start", || rig.announced(Kind::Start) == 1);
    // Root in a container may not set the limits of another user's process; its own user may.
    let processes = |limit: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.uid(ALONE).gid(NOBODY).args(["--pid", &daemon.child.id().to_string()]).arg(format!("--nproc={limit}:"));
        assert!(prlimit.status().unwrap().success());
    };
    processes("1");
    rig.raises(&daemon);
    rig.error(&daemon, "for raise: cannot be run: Resource temporarily unavailable");
    processes("10000");
    rig.clears(&daemon);
    until("the hook's clear", || rig.announced(Kind::Clear) == 1);
    rig.stops(daemon);
}

/// Too little memory ends the process with a word and at once: systemd starts it anew. The log is whole.
#[test]
fn fault_no_memory_left_ends_the_daemon_and_loses_no_event() {
    let rig = Rig::new(HOOK);
    let daemon = rig.starts();
    rig.raises(&daemon);
    let size = crate::rig::memory(&daemon, "VmSize") * 1024;
    limit(&daemon, Resource::As, Some(size));
    image::RgbImage::new(9000, 9000).save(rig.frames.join("large.png")).unwrap();
    let status = crate::rig::ended(daemon);
    assert!(!status.success());
    assert!(rig.told().contains("memory"), "{}", rig.told());
    std::fs::remove_file(rig.frames.join("large.png")).unwrap();
    let events = rig.events();
    assert!(rig.announcements().iter().all(|event| events.contains(event)));
    assert_eq!(count(&events, Kind::Raise), 1);
    rig.show(false);
    let daemon = rig.starts();
    rig.works(&daemon);
    rig.stops(daemon);
}

#[test]
fn fault_too_little_memory_to_start_is_an_error_and_no_hang() {
    let place = Place::new("", "");
    for megabytes in [16_u64, 24, 32] {
        let mut run = limited(&[&format!("--as={}", megabytes << 20)]);
        let output = run.args(["run", "--config"]).arg(place.path("o.toml")).output().unwrap();
        assert!(!output.status.success(), "{megabytes} MiB");
    }
    assert!(place.run(&["run"]).status.success());
}
