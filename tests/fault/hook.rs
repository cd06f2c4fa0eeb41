//! Hooks that hang, crash, vanish or leave something behind.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use outlierd::internals::watch::events::Kind;
use rustix::process::Signal;

use crate::daemon::script;
use crate::rig::{HOOK, Rig, count, ended, messages, until};

fn hook(rig: &Rig, text: &str) {
    script(&rig.path("hook"), text);
}

/// A rig whose hook is a script in its folder.
fn with_hook(script: &str, more: &str) -> Rig {
    let rig = Rig::new("");
    hook(&rig, script);
    rig.watch("", &format!("hook = [{:?}]\n{more}", rig.path("hook")));
    rig
}

fn is_dead(pid: &Path) -> bool {
    let number = std::fs::read_to_string(pid).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", number.trim())).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z")
}

#[test]
fn fault_a_hook_that_hangs_holds_neither_watch_nor_stop_up() {
    // A queue of these is minutes of waiting.
    let rig = with_hook("sleep 1000", "heat-map = false\n[decision]\nraise-after = 1\nclear-after = 1\n");
    let daemon = rig.starts_telling_all();
    for _ in 0..12 {
        rig.works(&daemon);
    }
    rig.stops(daemon);
    assert_eq!(count(&rig.events(), Kind::Raise), 12);
    assert_eq!(count(&rig.events(), Kind::Stop), 1);
    assert!(rig.told().contains("not run, the daemon stops"), "{}", rig.told());
}

#[test]
fn fault_a_hook_that_ignores_signals_ends_with_the_daemon_and_so_do_its_children() {
    let rig =
        with_hook("trap '' TERM HUP INT\n(trap '' TERM HUP; sleep 1000) &\necho $! > child\necho $$ > self\nwait", "");
    let daemon = rig.starts();
    until("the hook's child", || std::fs::read_to_string(rig.path("self")).is_ok_and(|pid| pid.ends_with('\n')));
    rig.works(&daemon);
    rig.stops(daemon);
    for name in ["self", "child"] {
        until("the end of what the hook left", || is_dead(&rig.path(name)));
    }
}

#[test]
fn fault_more_events_than_the_hook_takes_are_refused_to_it_and_not_to_the_log() {
    let rig = with_hook("sleep 1000", "heat-map = false\n[decision]\nraise-after = 1\nclear-after = 1\n");
    let daemon = rig.starts_telling_all();
    let mut rounds = 0;
    while !rig.told().contains("64 events wait already") {
        rounds += 1;
        assert!(rounds < 200, "the queue does not fill");
        rig.works(&daemon);
    }
    assert!(rounds > 30, "full after {rounds} rounds");
    assert_eq!(count(&rig.events(), Kind::Raise), rounds);
    rig.stops(daemon);
}

#[test]
fn fault_a_hook_that_crashes_is_told_with_its_last_words() {
    let rig = with_hook("echo no route to the relay >&2\nkill -SEGV $$", "");
    let daemon = rig.starts();
    rig.raises(&daemon);
    rig.error(&daemon, "for raise: ended with signal: 11 (SIGSEGV)");
    rig.error(&daemon, "no route to the relay");
    rig.clears(&daemon);
    hook(&rig, "exit 7");
    rig.raises(&daemon);
    rig.error(&daemon, "for raise: ended with exit status: 7");
    rig.clears(&daemon);
    rig.stops(daemon);
}

#[test]
fn fault_a_hook_that_is_deleted_and_comes_back_is_told_and_run_again() {
    let rig = with_hook("echo $OUTLIERD_EVENT >> seen", "");
    let daemon = rig.starts();
    let seen = || std::fs::read_to_string(rig.path("seen")).unwrap_or_default();
    until("start", || seen() == "start\n");
    std::fs::remove_file(rig.path("hook")).unwrap();
    rig.raises(&daemon);
    rig.error(&daemon, "for raise: cannot be run: No such file or directory");
    hook(&rig, "echo new $OUTLIERD_EVENT >> seen");
    rig.clears(&daemon);
    until("clear", || seen() == "start\nnew clear\n");
    rig.stops(daemon);
}

#[test]
fn fault_a_hook_that_may_not_be_run_is_told_with_the_remedy() {
    let rig = with_hook("exit 0", "");
    std::fs::set_permissions(rig.path("hook"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let daemon = rig.starts();
    rig.error(&daemon, "Permission denied (os error 13): chmod +x it");
    rig.works(&daemon);
    rig.stops(daemon);
}

#[test]
fn fault_a_hook_that_reads_nothing_and_writes_without_end_is_killed_and_told() {
    let rig = with_hook("exec 0<&-\nyes 'flood of the journal'", "");
    let daemon = rig.starts();
    rig.works(&daemon);
    rig.error(&daemon, "for start: killed after 10s");
    rig.works(&daemon);
    rig.stops(daemon);
    assert!(rig.told().len() < 100_000, "{} bytes", rig.told().len());
}

#[test]
fn fault_a_hook_that_leaves_its_output_open_does_not_hold_up_the_next() {
    let script = "(sleep 1000; echo late) &\necho $! > child-$OUTLIERD_EVENT\necho $OUTLIERD_EVENT >> seen";
    let rig = with_hook(script, "");
    let daemon = rig.starts();
    rig.works(&daemon);
    let seen = || std::fs::read_to_string(rig.path("seen")).unwrap_or_default();
    until("three runs", || seen() == "start\nraise\nclear\n");
    for kind in ["start", "raise"] {
        until("the end of what the hook left", || is_dead(&rig.path(&format!("child-{kind}"))));
    }
    assert_eq!(messages(&rig.events()), [""; 0]);
    rig.stops(daemon);
}

#[test]
fn fault_a_hook_that_signals_the_daemon_reloads_it_and_no_more() {
    let rig = with_hook("kill -HUP $PPID", "");
    let daemon = rig.starts();
    rig.works(&daemon);
    rig.tells("reloaded");
    rig.works(&daemon);
    rig.stops(daemon);
}

/// Announced first in the log, then elsewhere.
#[test]
fn fault_a_hook_that_kills_the_daemon_finds_its_event_in_the_log() {
    let rig = Rig::new(
        &HOOK.replace("echo >>", "echo >> announced; test $OUTLIERD_EVENT != raise || kill -9 $PPID; echo >>"),
    );
    let daemon = rig.starts();
    rig.show(true);
    let status = ended(daemon);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::KILL.as_raw()));
    let raised = rig.announcements().into_iter().find(|event| event.event == Kind::Raise).unwrap();
    assert!(rig.events().contains(&raised), "{:?}", rig.events());
    rig.show(false);
    rig.watch("", "");
    let daemon = rig.starts();
    rig.works(&daemon);
    rig.stops(daemon);
}
