//! A service manager that is gone or does not read, and its watchdog.

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use outlierd::watch::events::Kind;

use crate::rig::{Rig, count, until};

#[test]
fn fault_a_service_manager_that_is_gone_is_told_once_and_the_watch_goes_on() {
    let rig = Rig::new("");
    let daemon = rig.spawn_with(|command| {
        command.env("NOTIFY_SOCKET", rig.path("nobody-listens"));
    });
    for _ in 0..4 {
        rig.works(&daemon);
        std::thread::sleep(Duration::from_millis(1100));
    }
    rig.stops(daemon);
    let told = rig.told();
    assert_eq!(told.matches("cannot notify systemd").count(), 1, "{told}");
}

#[test]
fn fault_a_service_manager_that_does_not_read_holds_nothing_up() {
    let rig = Rig::new("");
    let deaf = UnixDatagram::bind(rig.path("deaf")).unwrap();
    let daemon = rig.spawn_with(|command| {
        command.env("NOTIFY_SOCKET", rig.path("deaf")).env("WATCHDOG_USEC", "3000");
    });
    daemon.wait_for("start", |events| count(events, Kind::Start) == 1);
    // The watchdog's notices fill the socket within a second.
    std::thread::sleep(Duration::from_secs(2));
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    until("a full socket", || sender.send_to(b"x", rig.path("deaf")).is_err());
    rig.works(&daemon);
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
    let mut daemon = rig.spawn_with(|command| {
        command.env("WATCHDOG_USEC", "150000").env("RUST_LOG", "debug").stderr(Stdio::piped());
    });
    let mut journal = daemon.child.stderr.take().unwrap();
    daemon.notified("READY=1");
    daemon.notified("WATCHDOG=1");
    // Each of these is a line.
    std::fs::write(rig.frames.join("bad.png"), "no picture").unwrap();
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
    std::thread::spawn(move || while journal.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {});
    daemon.notified("WATCHDOG=1");
    std::fs::remove_file(rig.frames.join("bad.png")).unwrap();
    rig.works(&daemon);
}
