//! A service manager that is gone or does not read, and its watchdog.

use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use outlierd::internals::watch::events::Kind;

use crate::rig::{Journal, Rig, count, until};

#[test]
fn fault_a_service_manager_that_is_gone_is_told_once_and_the_watch_goes_on() {
    let rig = Rig::new("");
    let daemon = rig.spawn_with(|command| {
        command.env("NOTIFY_SOCKET", rig.path("nobody-listens"));
    });
    // Each of these has notifications: ready and status, reloading and ready, stopping.
    rig.works(&daemon);
    daemon.signal(rustix::process::Signal::HUP);
    rig.tells("reloaded");
    rig.works(&daemon);
    rig.stops(daemon);
    let told = rig.told();
    assert_eq!(told.matches("cannot notify systemd").count(), 1, "{told}");
}

#[test]
fn fault_a_service_manager_that_does_not_read_holds_nothing_up() {
    let rig = Rig::new("");
    let deaf = UnixDatagram::bind(rig.path("deaf")).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.send_to(b"x", rig.path("deaf")).is_ok() {}
    let daemon = rig.spawn_with(|command| {
        command.env("NOTIFY_SOCKET", rig.path("deaf")).env("WATCHDOG_USEC", "3000");
    });
    daemon.wait_for("start", |events| count(events, Kind::Start) == 1);
    rig.works(&daemon);
    assert!(sender.send_to(b"x", rig.path("deaf")).is_err(), "the socket is not full");
    rig.stops(daemon);
    drop(deaf);
}

#[test]
fn fault_a_notify_socket_that_makes_no_sense_is_told_and_the_watch_goes_on() {
    for socket in ["", "relative", "@", "/dev/null", "vsock:2:1234"] {
        let rig = Rig::new("");
        let daemon = rig.spawn_with(|command| {
            command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "no number").current_dir(rig.dir.path());
        });
        daemon.wait_for("start", |events| count(events, Kind::Start) == 1);
        rig.works(&daemon);
        rig.stops(daemon);
    }
}

/// The thread that judges stands still: its journal does not read. The watchdog must see that, and that it goes on.
#[test]
fn fault_a_watch_that_stands_still_does_not_feed_the_watchdog() {
    let rig = Rig::new("");
    let journal = Journal::new();
    let daemon = rig.starts_with(|command| {
        command.env("WATCHDOG_USEC", "150000").stderr(journal.writer());
    });
    daemon.notified("WATCHDOG=1");
    journal.fill();
    // The event is in the log before it is told to the journal.
    std::fs::write(rig.frames.join("bad.png"), "no picture").unwrap();
    rig.error(&daemon, "bad.png");
    until("a silent watchdog", || {
        let mut silent = false;
        while !silent {
            match daemon.notices.recv_timeout(Duration::from_secs(3)) {
                Ok(notice) if notice.contains("WATCHDOG=1") => return false,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => silent = true,
                Err(e) => panic!("{e}"),
            }
        }
        silent
    });
    let journal = journal.read();
    daemon.notified("WATCHDOG=1");
    std::fs::remove_file(rig.frames.join("bad.png")).unwrap();
    rig.works(&daemon);
    drop(daemon);
    assert!(journal.join().unwrap().contains("bad.png"));
}
