//! Standard output and standard error that are closed or that nobody reads.

use std::process::{Command, Stdio};

use crate::daemon::{Place, text};
use crate::rig::Rig;

/// A pipe whose reader is gone.
fn broken_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn fault_a_journal_that_is_gone_does_not_end_the_watch() {
    let rig = Rig::new("hook = [\"/bin/sh\", \"-c\", \"echo said by the hook\"]\n");
    let daemon = rig.spawn_with(|command| {
        command.stdout(broken_pipe()).stderr(broken_pipe());
    });
    daemon.notified("READY=1");
    for _ in 0..3 {
        rig.works(&daemon);
    }
    std::fs::write(rig.frames.join("bad.png"), "no picture").unwrap();
    rig.error(&daemon, "bad.png");
    rig.reload(&daemon);
    rig.works(&daemon);
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(crate::rig::ended(daemon).code(), Some(0));
}

/// `exec PROGRAM ... 0<&- 1>&- 2>&-`: descriptors that others would get.
#[test]
fn fault_closed_standard_streams_are_not_taken_for_files() {
    let rig = Rig::new("");
    let daemon = rig.spawn_with(|command| {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_owned()).collect();
        let socket = rig.path("notify");
        *command = Command::new("/bin/sh");
        command.args(["-c", "exec \"$0\" \"$@\" 0<&- 1>&- 2>&-", env!("CARGO_BIN_EXE_outlierd")]).args(arguments);
        command.env("NOTIFY_SOCKET", socket).env_remove("RUST_LOG");
    });
    daemon.notified("READY=1");
    rig.works(&daemon);
    let before = rig.events();
    rig.works(&daemon);
    let log = std::fs::read_to_string(&rig.log).unwrap();
    assert!(log.lines().all(|line| line.starts_with('{')), "{log}");
    assert_eq!(rig.events().len(), before.len() + 2);
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(crate::rig::ended(daemon).code(), Some(0));
}

#[test]
fn fault_an_error_that_nobody_reads_keeps_its_exit_code() {
    let place = Place::new("", "");
    std::fs::write(place.path("o.toml"), "[model]\n").unwrap();
    for (arguments, code) in [(["run"].as_slice(), 78), (&["events", "--log", "/nonexistent"], 66)] {
        let mut command = crate::daemon::outlierd();
        command.args(arguments).stderr(broken_pipe());
        if arguments == ["run"] {
            command.arg("--config").arg(place.path("o.toml"));
        }
        assert_eq!(command.status().unwrap().code(), Some(code), "{arguments:?}");
    }
    let mut score = crate::daemon::outlierd();
    score.args(["score", "--model"]).arg(&place.model).arg("/nonexistent.png").stderr(broken_pipe());
    assert_ne!(score.status().unwrap().code(), Some(101));
}

#[test]
fn fault_a_reader_that_has_seen_enough_ends_the_report_quietly() {
    let place = Place::new("interval = \"1ms\"", "");
    assert!(place.run(&["run"]).status.success());
    // More than a pipe holds.
    let line = std::fs::read_to_string(&place.log).unwrap();
    std::fs::write(&place.log, line.repeat(300)).unwrap();
    let config = place.path("o.toml");
    let config = config.to_str().unwrap();
    let log = place.log.to_str().unwrap();
    let model = place.model.to_str().unwrap();
    for arguments in [
        ["events", "--log", log].as_slice(),
        &["events", "--json", "--log", log],
        &["events", "--follow", "--log", log],
        &["check", "--config", config],
        &["inspect", model],
        &["completions", "bash"],
        &["man"],
        &["--help"],
    ] {
        let mut command = crate::daemon::outlierd();
        let output = command.args(arguments).stdout(broken_pipe()).output().unwrap();
        let told = text(&output.stderr);
        assert_eq!((output.status.code(), told.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn fault_an_output_on_a_full_disk_is_an_error_with_its_exit_code() {
    let place = Place::new("interval = \"1ms\"", "");
    assert!(place.run(&["run"]).status.success());
    let model = place.model.to_str().unwrap();
    let log = place.log.to_str().unwrap();
    for arguments in [["events", "--log", log].as_slice(), &["inspect", model], &["completions", "zsh"], &["man"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = crate::daemon::outlierd().args(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(74), "{arguments:?}");
        assert!(text(&output.stderr).contains("cannot write to standard output"), "{}", text(&output.stderr));
    }
}
