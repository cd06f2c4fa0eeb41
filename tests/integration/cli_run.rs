//! The daemon as a process: signals, systemd's notifications, reload, a kill at any time, and the commands
//! around it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::daemon::{PATIENCE, Place, outlierd, script, text, world};
use outlierd::internals::watch::events::{self, Event, Kind};
use rustix::process::Signal;

#[test]
fn the_object_is_raised_and_cleared_and_the_log_shows_it() {
    let place = Place::new("interval = \"1ms\"", "");
    let run = place.run(&["run"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert_eq!(place.kinds(), [Kind::Start, Kind::Raise, Kind::Clear, Kind::Stop]);
    let shown = place.run(&["events"]);
    let lines: Vec<String> = text(&shown.stdout).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[1].contains("  raise ") && lines[1].contains(".jpg") && lines[1].contains("3 frames"), "{lines:?}");
    let log = events::read(&place.path("events.jsonl")).unwrap();
    assert_eq!(log[1].id, log[2].id);
    let filtered = |filters: &[&str]| -> Vec<Event> {
        let shown = place.run(&[&["events", "--json"], filters].concat());
        assert!(shown.status.success(), "{filters:?}: {}", text(&shown.stderr));
        text(&shown.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(filtered(&["--raise", "--since", "1h"]), log[1..2]);
    assert_eq!(filtered(&["--kind", "raise,clear"]), log[1..3]);
    assert_eq!(filtered(&["--kind", "start", "--kind", "stop"]), [log[0].clone(), log[3].clone()]);
    assert_eq!(filtered(&["--last", "2"]), log[2..]);
    assert_eq!(filtered(&["--last", "1", "--kind", "raise,clear"]), log[2..3]);
    assert_eq!(filtered(&["--last", "100"]), log);
    assert_eq!(filtered(&["--until", &events::format_time(log[2].time)]), log[..2]);
    assert_eq!(filtered(&["--until", "1h"]), []);
    assert_eq!(filtered(&["--since", "2999-01-01"]), []);
    let unknown = place.run(&["events", "--kind", "rise"]);
    assert_eq!(unknown.status.code(), Some(64));
    assert!(text(&unknown.stderr).contains("\"rise\" is no kind of event: start, raise, clear"));
    assert_eq!(place.run(&["events", "--until", "1h", "--follow"]).status.code(), Some(64));
}

#[test]
fn sigterm_stops_within_a_frame_and_systemd_is_told() {
    let place = Place::new("interval = \"1h\"", "");
    let daemon = place.spawn();
    daemon.notified("READY=1");
    daemon.notified("STATUS=normal, p ");
    daemon.signal(Signal::HUP);
    daemon.notified("RELOADING=1");
    daemon.notified("READY=1");
    assert_eq!(daemon.stop(Signal::INT), 0);
    assert_eq!(place.kinds(), [Kind::Start, Kind::Stop]);
    let stop = events::read(&place.path("events.jsonl")).unwrap().pop().unwrap();
    assert_eq!(stop.frames, Some(1));
}

/// `timeout` and others signal a process and then its group: the same stop, twice.
#[test]
fn a_stop_that_comes_twice_at_once_is_one_clean_stop() {
    let place = Place::new("interval = \"1h\"", "hook = [\"sleep\", \"60\"]\n");
    let daemon = place.spawn();
    daemon.notified("STATUS=normal, p ");
    // Both wait for a process that is held up: two of one kind would be one, and any other way they could come apart.
    daemon.signal(Signal::STOP);
    daemon.signal(Signal::TERM);
    daemon.signal(Signal::INT);
    assert_eq!(daemon.stop(Signal::CONT), 0);
    assert_eq!(place.kinds().first().zip(place.kinds().get(1)), Some((&Kind::Start, &Kind::Stop)));
}

#[test]
fn a_bad_reload_keeps_the_watch_and_a_good_one_takes_over() {
    let camera = "interval = \"5ms\"\nloop = true";
    let place = Place::new(camera, "");
    let daemon = place.spawn();
    daemon.notified("READY=1");
    std::fs::write(place.path("o.toml"), "[camera]\nwidht = 3\n").unwrap();
    daemon.signal(Signal::HUP);
    daemon.notified("RELOADING=1");
    daemon.notified("READY=1");
    daemon.wait_for("error event", |events| events.iter().any(|event| event.event == Kind::Error));
    let error = events::read(&place.path("events.jsonl")).unwrap().into_iter().find(|e| e.event == Kind::Error);
    let message = error.unwrap().message.unwrap();
    assert!(message.contains("o.toml:2: unknown key \"widht\"") && message.contains("\"width\""), "{message}");

    let clears = |events: &[Event]| events.iter().filter(|event| event.event == Kind::Clear).count();
    let before = clears(&events::read(&place.path("events.jsonl")).unwrap());
    daemon.wait_for("clear after the bad reload", |events| clears(events) > before);

    place.configure(camera, "[decision]\nthreshold = 0.0\n");
    daemon.signal(Signal::HUP);
    daemon.notified("RELOADING=1");
    daemon.notified("READY=1");
    daemon.notified("STATUS=");
    assert_eq!(daemon.stop(Signal::TERM), 0);
    let raises = place.kinds().iter().filter(|kind| **kind == Kind::Raise).count();
    assert!(raises > 0);
}

#[test]
fn a_kill_at_any_time_leaves_a_log_that_is_read_and_appended_to() {
    let camera = "interval = \"1ms\"\nloop = true";
    let place = Place::new(camera, "[decision]\nraise-after = 1\nclear-after = 1\n");
    for round in 1..=4 {
        let mut daemon = place.spawn();
        daemon.notified("READY=1");
        std::thread::sleep(Duration::from_millis(70 * round));
        daemon.signal(Signal::KILL);
        daemon.child.wait().unwrap();
        drop(daemon);
        std::fs::remove_file(place.path("notify")).unwrap();
        let starts = place.kinds().iter().filter(|kind| **kind == Kind::Start).count();
        assert_eq!(starts as u64, round);
        let cut = std::fs::read(place.path("events.jsonl")).unwrap();
        std::fs::write(place.path("events.jsonl"), [&cut[..], b"{\"time\":\"20"].concat()).unwrap();
    }
    place.configure("interval = \"1ms\"", "");
    assert!(place.run(&["run"]).status.success());
    let kinds = place.kinds();
    let last = kinds.rsplit(|kind| *kind == Kind::Start).next().unwrap();
    // An event that stood at the kill is closed first.
    let last = last.strip_prefix(&[Kind::Clear]).unwrap_or(last);
    assert_eq!(last, [Kind::Raise, Kind::Clear, Kind::Stop]);
}

/// The next frame is an hour away and the first one was broken: that is no reason to start anew again and again.
#[test]
fn the_watchdog_is_fed_while_the_next_frame_is_waited_for() {
    let place = Place::unconfigured();
    let place = Place { frames: place.path("frames"), ..place };
    std::fs::create_dir(&place.frames).unwrap();
    std::fs::write(place.frames.join("a.png"), "no picture").unwrap();
    std::fs::copy(world().join("frames/0000.png"), place.frames.join("b.png")).unwrap();
    place.configure("interval = \"1h\"", "");
    let daemon = place.spawn_with(|command| {
        command.env("WATCHDOG_USEC", "200000");
    });
    daemon.notified("READY=1");
    (0..5).for_each(|_| daemon.notified("WATCHDOG=1"));
    assert_eq!(daemon.stop(Signal::TERM), 0);
    assert_eq!(place.kinds(), [Kind::Start, Kind::Error, Kind::Stop]);
}

#[test]
fn an_event_that_stands_at_a_kill_is_closed_by_the_next_start() {
    let place = Place::new("interval = \"1h\"", "[decision]\nthreshold = 1.0\nraise-after = 1\n");
    let mut daemon = place.spawn();
    daemon.wait_for("raise", |events| events.iter().any(|event| event.event == Kind::Raise));
    // The line comes before the picture, and the picture before its link.
    daemon.wait_for("the picture", |_| place.snapshots.join("last.jpg").exists());
    daemon.signal(Signal::KILL);
    daemon.child.wait().unwrap();
    drop(daemon);
    // The scene is as it should be by now.
    place.configure("interval = \"1h\"", "[decision]\nthreshold = 0.0\n");
    let daemon = place.spawn();
    daemon.notified("STATUS=normal, p ");
    assert_eq!(daemon.stop(Signal::TERM), 0);
    assert_eq!(place.kinds(), [Kind::Start, Kind::Raise, Kind::Start, Kind::Clear, Kind::Stop]);
    let log = events::read(&place.path("events.jsonl")).unwrap();
    assert_eq!((&log[3].id, &log[3].snapshot, &log[4].id), (&log[1].id, &log[1].snapshot, &None));
    assert!(log[3].message.as_ref().unwrap().contains("killed, or the power was cut"));
}

#[test]
fn a_second_daemon_with_the_same_snapshots_is_refused() {
    let place = Place::new("interval = \"1h\"", "");
    let daemon = place.spawn();
    daemon.notified("READY=1");
    let checked = text(&place.run(&["check"]).stdout);
    assert!(checked.contains("which a running outlierd writes to"), "{checked}");
    let second = place.run(&["run"]);
    let said = text(&second.stderr);
    assert_eq!(second.status.code(), Some(69), "{said}");
    assert!(
        said.contains("/snapshots: another outlierd that is running") && said.contains("events.snapshots"),
        "{said}"
    );
    // A reload of the first is no second one.
    daemon.signal(Signal::HUP);
    daemon.notified("RELOADING=1");
    daemon.notified("READY=1");
    assert_eq!(daemon.stop(Signal::TERM), 0);
    assert_eq!(place.kinds(), [Kind::Start, Kind::Stop]);
}

#[test]
fn relative_paths_are_relative_to_the_config_and_absolute_in_events() {
    let place = Place::unconfigured();
    for (folder, kind) in [("frames", "frames"), ("other", "normal")] {
        std::fs::create_dir(place.path(folder)).unwrap();
        let pictures = std::fs::read_dir(world().join(kind)).unwrap().map(|entry| entry.unwrap()).take(5);
        for entry in pictures {
            std::fs::copy(entry.path(), place.path(folder).join(entry.file_name())).unwrap();
        }
    }
    std::fs::copy(&place.model, place.path("m")).unwrap();
    std::fs::write(
        place.path("o.toml"),
        "[camera]\nsource = \"folder:frames\"\ninterval = \"1ms\"\n[model]\npath = \"m\"\nthreads = 1\n[decision]\n\
         threshold = 1.0\nraise-after = 1\n[events]\nlog = \"events.jsonl\"\nsnapshots = \"./shots\"\n\
         metrics = \"m.prom\"\nhook = [\"./hook\"]\n",
    )
    .unwrap();
    script(&place.path("hook"), "cat > \"$0.out\"");
    let mut run = outlierd();
    let run = run.args(["run", "--config", "../o.toml"]).current_dir(place.path("other")).output().unwrap();
    assert!(run.status.success(), "{}", text(&run.stderr));
    let log = events::read(&place.path("events.jsonl")).unwrap();
    let raise = log.iter().find(|event| event.event == Kind::Raise).unwrap();
    let snapshot = raise.snapshot.as_ref().unwrap();
    assert!(snapshot.is_absolute() && snapshot.exists(), "{snapshot:?}");
    assert!(place.path("m.prom").exists() && place.path("hook.out").exists());
}

#[test]
fn snapshots_in_the_watched_folder_are_refused() {
    let place = Place::new("", "");
    std::os::unix::fs::symlink(&place.frames, place.path("link")).unwrap();
    for snapshots in [place.frames.clone(), place.frames.join("new/shots"), place.path("link/shots")] {
        let place = Place { snapshots, ..Place::unconfigured() };
        place.configure("", "");
        for command in ["run", "check"] {
            let output = place.run(&[command]);
            let said = text(&output.stdout) + &text(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{command}: {said}");
            assert!(
                said.contains("o.toml:9: events.snapshots") && said.contains("its own snapshots"),
                "{command}: {said}"
            );
        }
    }
    assert!(!place.frames.join("new").exists());
    // Linked folders are searched, hidden ones are not.
    let mut own = Place::unconfigured();
    own.frames = own.path("frames");
    std::fs::create_dir(&own.frames).unwrap();
    std::fs::copy(world().join("frames/0000.png"), own.frames.join("a.png")).unwrap();
    std::os::unix::fs::symlink(own.dir.path(), own.frames.join("up")).unwrap();
    own.configure("", "");
    assert_eq!(own.run(&["run"]).status.code(), Some(78));
    std::fs::remove_file(own.frames.join("up")).unwrap();
    for snapshots in [own.path("snapshots"), own.frames.join(".shots")] {
        own.snapshots = snapshots;
        own.configure("", "");
        let run = own.run(&["run"]);
        assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    }
}

#[test]
fn lines_are_released_where_there_are_any() {
    let place = Place::new("", "");
    let none = place.run(&["release"]);
    assert!(none.status.success() && text(&none.stdout).contains("no line is driven"));
    place.configure("", "[gpio]\nchip = \"/dev/nonexistent\"\n");
    let missing = place.run(&["release"]);
    assert_eq!(missing.status.code(), Some(69));
    assert!(text(&missing.stderr).contains("cannot open the GPIO chip /dev/nonexistent"));
    let unit = include_str!("../../systemd/outlierd.service");
    assert!(unit.contains("\nExecStopPost=-/usr/bin/outlierd release --config /etc/outlierd/outlierd.toml\n"));
}

#[test]
fn check_tries_the_folder_of_a_log_that_is_there() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    let place = Place::unconfigured();
    let place = Place { log: place.path("log/events.jsonl"), ..place };
    std::fs::create_dir(place.path("log")).unwrap();
    std::fs::write(&place.log, "").unwrap();
    place.configure("", "");
    let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    set(place.dir.path(), 0o755);
    set(&place.log, 0o666);
    let checked = |mode| {
        set(&place.path("log"), mode);
        let mut command = outlierd();
        command.args(["check", "--config"]).arg(place.path("o.toml"));
        // Root may do everything: the right to the folder is to be missing.
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = command.output().unwrap();
        let line = text(&output.stdout).lines().find(|line| line.starts_with("log ")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{}", text(&output.stderr)))
    };
    assert!(checked(0o777).starts_with("log       ok "), "{}", checked(0o777));
    let said = checked(0o555);
    assert!(said.contains("WRONG") && said.contains("can be written but not rotated"), "{said}");
    if rustix::process::geteuid().is_root() {
        let said = checked(0o1777);
        assert!(said.contains("WRONG") && said.contains("lets only owners rename their files"), "{said}");
    }
    set(&place.path("log"), 0o755);
}

#[test]
fn check_says_what_is_right_and_what_is_wrong() {
    let place = Place::new("", "hook = [\"/bin/sh\"]\n");
    let good = place.run(&["check"]);
    let lines = text(&good.stdout);
    assert!(good.status.success(), "{lines}");
    for name in ["config", "model", "backbone", "camera", "log", "snapshots", "hook"] {
        assert!(lines.lines().any(|line| line.starts_with(name) && line.contains(" ok ")), "{name}: {lines}");
    }
    assert!(!place.path("events.jsonl").exists());

    place.configure("crop = [0, 0, 9999, 9999]", "hook = [\"/nonexistent\"]\n[gpio]\nchip = \"/dev/nonexistent\"\n");
    let wrong = place.run(&["check", "--json"]);
    assert_eq!(wrong.status.code(), Some(78));
    let failed: Vec<String> = text(&wrong.stdout)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["ok"] == false)
        .map(|line| format!("{} {}", line["check"].as_str().unwrap(), line["message"].as_str().unwrap()))
        .collect();
    assert_eq!(failed.len(), 3, "{failed:?}");
    assert!(failed[0].starts_with("camera ") && failed[1].starts_with("gpio ") && failed[2].starts_with("hook "));

    std::fs::write(place.path("o.toml"), "[model]\npath = \"/nonexistent/m\"\n").unwrap();
    let wrong = place.run(&["check"]);
    assert_eq!(wrong.status.code(), Some(78));
    let lines = text(&wrong.stdout);
    assert!(lines.contains("WRONG /nonexistent/m does not exist: make it with `outlierd fit"), "{lines}");
    std::fs::write(place.path("o.toml"), "[model]\npaht = \"m\"\n").unwrap();
    let wrong = place.run(&["check"]);
    assert_eq!(wrong.status.code(), Some(78));
    assert!(text(&wrong.stdout).contains("o.toml:2: unknown key \"paht\""));
}

#[test]
fn wrong_starts_have_their_exit_codes() {
    let place = Place::new("", "");
    std::fs::write(place.path("o.toml"), "[model]\n").unwrap();
    assert_eq!(place.run(&["run"]).status.code(), Some(78));
    std::fs::remove_file(place.path("o.toml")).unwrap();
    let missing = place.run(&["run"]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(text(&missing.stderr).contains("o.toml"));
    let model = world().join("model.outlierd");
    let toml = |camera: &str, model: &Path| format!("[camera]\nsource = \"{camera}\"\n[model]\npath = {model:?}\n");
    std::fs::write(place.path("o.toml"), toml("folder:/nonexistent", &model)).unwrap();
    let run = place.run(&["run"]);
    assert_eq!(run.status.code(), Some(66));
    assert!(text(&run.stderr).contains("/nonexistent"));
    std::fs::write(place.path("o.toml"), toml("folder:/", Path::new("/nonexistent/m"))).unwrap();
    assert_eq!(place.run(&["run"]).status.code(), Some(66));
    let log = outlierd().args(["events", "--log", "/nonexistent/e.jsonl"]).output().unwrap();
    assert_eq!(log.status.code(), Some(66));
    assert!(text(&log.stderr).contains("/nonexistent/e.jsonl"));
}

#[test]
fn events_are_followed_through_rotation() {
    let place =
        Place::new("interval = \"1ms\"", "max-log-size = \"4 KiB\"\n[decision]\nraise-after = 1\nclear-after = 1\n");
    let out = std::fs::File::create(place.path("followed")).unwrap();
    let mut command = outlierd();
    command.args(["events", "--follow", "--json", "--config"]).arg(place.path("o.toml"));
    let mut follower = command.stdout(out).spawn().unwrap();
    for _ in 0..6 {
        assert!(place.run(&["run"]).status.success());
    }
    let log = || events::read(&place.path("events.jsonl")).unwrap().len();
    let started = Instant::now();
    let followed = || std::fs::read_to_string(place.path("followed")).unwrap().lines().count();
    while followed() < log() && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
    assert!(place.path("events.jsonl.1").exists());
    assert_eq!(followed(), log());
}

#[test]
fn times_that_are_typed_and_shown_are_local_and_those_of_json_are_utc() {
    let place = Place::new("", "");
    let at = |hour: u64, frames| Event {
        time: std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000 / 86_400 * 86_400 + hour * 3600),
        frames: Some(frames),
        ..Event::new(Kind::Raise)
    };
    let lines: Vec<String> = (10..16).map(|hour| at(hour, hour).to_json() + "\n").collect();
    std::fs::write(place.path("events.jsonl"), lines.concat()).unwrap();
    let shown = |filters: &[&str]| {
        let mut command = outlierd();
        // Two hours east of Greenwich, without a database of zones.
        command.env("TZ", "TST-2").args(["events", "--log"]).arg(place.path("events.jsonl")).args(filters);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{filters:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let frames = |filters: &[&str]| -> Vec<u64> {
        let shown = shown(&[&["--json"], filters].concat());
        shown.lines().map(|line| serde_json::from_str::<Event>(line).unwrap().frames.unwrap()).collect()
    };
    assert_eq!(frames(&["--since", "2026-11-18 15:00"]), [13, 14, 15]);
    assert_eq!(frames(&["--since", "2026-11-18T15:00:00Z"]), [15]);
    assert_eq!(frames(&["--until", "2026-11-18T15:00:00+04:00"]), [10]);
    assert_eq!(frames(&["--since", "2026-11-18", "--until", "2026-11-18 12:30"]), [10]);
    assert!(frames(&["--since", "-1h", "--until", "2026-11-18"]).is_empty());
    assert!(shown(&["--last", "1"]).starts_with("2026-11-18T17:00:00.000+02:00  raise"), "{}", shown(&[]));
    assert!(shown(&["--last", "1", "--json"]).starts_with("{\"time\":\"2026-11-18T15:00:00.000Z\""));
}

#[test]
fn help_lists_every_kind_of_event() {
    let help = text(&outlierd().args(["events", "--help"]).output().unwrap().stdout);
    let words: Vec<&str> = help.split([' ', ',', '\n']).collect();
    for kind in Kind::ALL {
        assert!(words.contains(&kind.name()), "{}: {help}", kind.name());
    }
}

/// What a copy beside the log holds already is not shown again, whatever name it has later.
#[test]
fn a_log_that_is_copied_and_cut_is_followed_once() {
    let place = Place::new("", "");
    let path = place.path("events.jsonl");
    let mut log = events::Log::open(&path, 1 << 20).unwrap();
    let mut write = |frames| log.append(&Event { frames: Some(frames), ..Event::new(Kind::Raise) }).unwrap();
    let follower = Follower::start(&place, &[]);
    (1..=3).for_each(&mut write);
    follower.sees(1..=3);
    std::fs::copy(&path, place.path("events.jsonl.1")).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    write(4);
    follower.sees(1..=4);
    std::fs::rename(place.path("events.jsonl.1"), place.path("events.jsonl.2")).unwrap();
    std::fs::rename(&path, place.path("events.jsonl.1")).unwrap();
    write(5);
    follower.sees(1..=5);
}

#[test]
fn the_words_of_the_log_are_said_once_and_as_loud_as_asked() {
    let place = Place::new("interval = \"1ms\"", "");
    std::fs::create_dir(place.path("frames")).unwrap();
    std::fs::copy(world().join("frames/0000.png"), place.path("frames/a.png")).unwrap();
    std::fs::write(place.path("frames/b.png"), "no picture").unwrap();
    let place = Place { frames: place.path("frames"), ..place };
    place.configure("interval = \"1ms\"", "");
    let said = |variables: &[(&str, &str)]| {
        let mut command = outlierd();
        command.args(["run", "--config"]).arg(place.path("o.toml")).envs(variables.iter().copied());
        text(&command.output().unwrap().stderr)
    };
    let usual = said(&[]);
    assert!(usual.contains("outlierd: error: ") && usual.contains("outlierd: start"), "{usual}");
    assert!(!usual.to_lowercase().contains("error: error"), "{usual}");
    for variable in ["OUTLIERD_LOG", "RUST_LOG"] {
        assert!(!said(&[(variable, "error")]).contains("outlierd: start"));
    }
    // The service's own variable has the last word, and is about the program and not its libraries.
    assert!(said(&[("RUST_LOG", "error"), ("OUTLIERD_LOG", "info")]).contains("outlierd: start"));
    let journal = said(&[("JOURNAL_STREAM", "1:1")]);
    assert!(journal.contains("<3>") && !journal.contains("<3>error"), "{journal}");
}

/// `events --follow` as a process; its lines are counted.
struct Follower {
    child: std::process::Child,
    out: std::path::PathBuf,
}

impl Follower {
    fn start(place: &Place, filters: &[&str]) -> Self {
        let out = place.path("followed");
        let mut command = outlierd();
        command.args(["events", "--follow", "--json", "--log"]).arg(place.path("events.jsonl")).args(filters);
        Follower { child: command.stdout(std::fs::File::create(&out).unwrap()).spawn().unwrap(), out }
    }

    fn frames(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(&self.out).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().filter_map(|line| serde_json::from_str::<Event>(line).unwrap().frames).collect()
    }

    fn sees(&self, frames: impl IntoIterator<Item = u64>) {
        let expected: Vec<u64> = frames.into_iter().collect();
        let started = Instant::now();
        while self.frames() != expected {
            assert!(started.elapsed() < PATIENCE, "{:?} instead of {expected:?}", self.frames());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_is_renamed_deleted_or_cut_is_followed() {
    let place = Place::new("", "");
    let path = place.path("events.jsonl");
    let mut log = events::Log::open(&path, 1 << 20).unwrap();
    let mut write = |kind, frames| log.append(&Event { frames: Some(frames), ..Event::new(kind) }).unwrap();
    (1..=5).for_each(|frames| write(Kind::Raise, frames));
    let follower = Follower::start(&place, &["--raise", "--last", "2"]);
    follower.sees([4, 5]);
    std::fs::rename(&path, place.path("events.jsonl.1")).unwrap();
    write(Kind::Clear, 60);
    write(Kind::Raise, 6);
    follower.sees(4..=6);
    std::fs::remove_file(&path).unwrap();
    // Longer than the next line, which would hide the cut of one of its own length.
    write(Kind::DriftClear, 70_000_000_000);
    write(Kind::Raise, 7);
    follower.sees(4..=7);
    std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    write(Kind::Raise, 8);
    follower.sees(4..=8);
    std::fs::rename(&path, place.path("gone")).unwrap();
    write(Kind::Raise, 9);
    follower.sees(4..=9);
}

#[test]
fn a_hook_that_floods_and_leaves_a_child_behind_is_bounded() {
    let place = Place::new("", "");
    let script = "echo \"saw $OUTLIERD_EVENT\"; yes | head -c 100000; sleep 1000 &";
    let hook = format!("hook = [\"/bin/sh\", \"-c\", {script:?}]\n[decision]\nthreshold = 1.0\nraise-after = 1\n");
    // One frame, so that there are no events but these and the stop.
    place.configure("interval = \"1h\"", &hook);
    let daemon = place.spawn();
    let shown = || text(&std::fs::read(place.path("stderr")).unwrap());
    daemon.wait_for("the output of two hooks", |_| {
        shown().matches("hook /bin/sh: more output is not shown").count() >= 2
    });
    for kind in ["start", "raise"] {
        assert!(shown().contains(&format!("hook /bin/sh: saw {kind}\n")), "{}", shown());
    }
    assert_eq!(daemon.stop(Signal::TERM), 0);
    assert!(shown().len() < 10_000, "{} bytes", shown().len());
}

#[test]
fn pictures_are_snapped_and_collected() {
    let place = Place::new("crop = [0, 0, 32, 16]\ninterval = \"1ms\"", "");
    let picture = place.path("p.png");
    let snap = place.run(&["camera", "snap", "-o", picture.to_str().unwrap()]);
    assert!(snap.status.success(), "{}", text(&snap.stderr));
    assert_eq!(outlierd::internals::image::read(&picture).unwrap().dimensions(), (32, 16));
    let folder = place.path("normal");
    let collect = place.run(&["collect", "--count", "5", "-o", folder.to_str().unwrap()]);
    assert!(collect.status.success(), "{}", text(&collect.stderr));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 5);
    let source = format!("folder:{}", folder.display());
    let all =
        place.run(&["collect", "--device", &source, "--every", "1ms", "-o", place.path("more").to_str().unwrap()]);
    assert!(all.status.success() && text(&all.stdout).contains("5 pictures"), "{}", text(&all.stdout));
    let wrong = place.run(&["camera", "snap", "-o", place.path("p.xyz").to_str().unwrap()]);
    assert_eq!(wrong.status.code(), Some(73));
    let wrong = place.run(&["camera", "snap", "--device", "/dev/nonexistent", "-o", picture.to_str().unwrap()]);
    assert_eq!(wrong.status.code(), Some(66));
}
