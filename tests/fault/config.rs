//! A config that is broken, replaced or gone when the daemon is told to read it again, and devices that it names.

use std::process::Command;

use rustix::process::Signal;

use crate::daemon::{Place, text};
use crate::rig::{Journal, Rig, ended, messages};

/// What stands in the config's place is refused; once it is back it is taken over.
fn is_refused(reason: &str, plant: impl FnOnce(&std::path::Path)) -> Rig {
    let rig = Rig::new("");
    let daemon = rig.starts();
    let path = rig.path("o.toml");
    std::fs::rename(&path, rig.path("good")).unwrap();
    plant(&path);
    rig.refuses(&daemon, reason);
    rig.works(&daemon);
    let _ = std::fs::remove_dir(&path);
    std::fs::rename(rig.path("good"), &path).unwrap();
    rig.reload(&daemon);
    rig.tells("reloaded");
    rig.works(&daemon);
    rig.stops(daemon);
    rig
}

#[test]
fn fault_a_config_that_is_gone_is_refused_and_the_old_one_stays() {
    is_refused("No such file", |_| {});
}

#[test]
fn fault_a_folder_in_the_config_s_place_is_refused_and_the_old_one_stays() {
    is_refused("not a plain file", |path| std::fs::create_dir(path).unwrap());
}

#[test]
fn fault_a_pipe_in_the_config_s_place_does_not_hang_the_reload() {
    is_refused("not a plain file", |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()));
}

#[test]
fn fault_a_config_of_gigabytes_is_not_read() {
    is_refused("larger than", |path| std::fs::File::create(path).unwrap().set_len(40 << 30).unwrap());
}

#[test]
fn fault_garbage_in_the_config_is_refused_and_the_old_one_stays() {
    is_refused("UTF-8", |path| std::fs::write(path, [0xff; 4096]).unwrap());
    is_refused("o.toml:1: ", |path| std::fs::write(path, [0; 4096]).unwrap());
    is_refused("o.toml:1: ", |path| std::fs::write(path, "[camera\nsource = ").unwrap());
}

/// The log's reader takes no line beyond 64 KiB, and a journal should not have to.
#[test]
fn fault_a_broken_config_is_told_in_a_line_that_can_be_read_whatever_it_holds() {
    let key = "k".repeat(200_000);
    let rig = is_refused("unknown key", |path| std::fs::write(path, format!("[camera]\n{key} = 1\n")).unwrap());
    let message = messages(&rig.events()).remove(0);
    assert!(message.contains("o.toml:2: ") && message.len() < 10_000, "{} bytes", message.len());
    assert!(rig.told().len() < 50_000, "{} bytes", rig.told().len());
}

#[test]
fn fault_a_chip_that_is_not_there_is_refused_at_a_reload_and_the_old_config_stays() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    for chip in ["/dev/nonexistent-gpiochip", "/dev/null"] {
        rig.watch("", &format!("[gpio]\nchip = {chip:?}\nline = 17\n"));
        rig.refuses(&daemon, chip);
        rig.works(&daemon);
    }
    rig.stops(daemon);
}

#[test]
fn fault_a_chip_that_is_not_there_at_the_start_is_told_by_the_exit_code() {
    let place = Place::new("", "[gpio]\nchip = \"/dev/nonexistent-gpiochip\"\nline = 17\n");
    let run = place.run(&["run"]);
    assert_eq!(run.status.code(), Some(69));
    assert!(text(&run.stderr).contains("cannot open the GPIO chip /dev/nonexistent-gpiochip"), "{}", text(&run.stderr));
}

#[test]
fn fault_a_log_that_cannot_be_opened_is_refused_at_a_reload_and_the_old_one_stays() {
    let mut rig = Rig::new("");
    let daemon = rig.starts();
    let log = std::mem::replace(&mut rig.place.log, "/dev/null/events.jsonl".into());
    rig.watch("", "");
    rig.place.log = log;
    rig.refuses(&daemon, "cannot open the event log /dev/null/events.jsonl");
    rig.works(&daemon);
    rig.stops(daemon);
}

/// A reload loads model and backbone: one after the other, they would keep the watch from its frames and from its end.
#[test]
fn fault_a_flood_of_reloads_is_one_and_the_stop_comes_before_them() {
    let rig = Rig::new("");
    let journal = Journal::new();
    let daemon = rig.starts_with(|command| {
        command.stderr(journal.writer());
    });
    daemon.notified("STATUS=normal");
    // The first reload stands still where it tells that it is done, until all the others and the stop are sent.
    journal.fill();
    daemon.signal(Signal::HUP);
    daemon.notified("RELOADING=1");
    for _ in 0..2000 {
        daemon.signal(Signal::HUP);
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    daemon.signal(Signal::TERM);
    let journal = journal.read();
    assert_eq!(ended(daemon).code(), Some(0));
    // Then those that wait are one, and so is a signal that is taken and one that is pending.
    let reloaded = journal.join().unwrap().matches("reloaded").count();
    assert!((1..=4).contains(&reloaded), "{reloaded} reloads");
    use outlierd::internals::watch::events::Kind::{Start, Stop};
    assert_eq!(rig.kinds(), [Start, Stop]);
}

#[test]
fn fault_a_stop_in_the_middle_of_a_reload_is_a_stop() {
    for delay in [0, 5, 20, 40] {
        let rig = Rig::new("");
        let daemon = rig.starts();
        daemon.signal(Signal::HUP);
        std::thread::sleep(std::time::Duration::from_millis(delay));
        rig.stops(daemon);
        use outlierd::internals::watch::events::Kind::{Start, Stop};
        assert_eq!(rig.kinds(), [Start, Stop]);
    }
}
