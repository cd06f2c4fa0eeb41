//! The daemon as a process: signals, systemd's notifications, reload, a kill at any time, and the commands
//! around it.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use outlierd::watch::events::{self, Event, Kind};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(120);

fn outlierd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlierd"));
    command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM");
    command
}

/// A scene, a model of it and frames with an object, made once by `demo`.
fn world() -> &'static Path {
    static WORLD: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = WORLD.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let made = outlierd().args(["demo", "--dir"]).arg(dir.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        dir
    });
    dir.path()
}

/// A folder of its own with a config that watches the world's frames.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(camera: &str, more: &str) -> Self {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        place.configure(camera, more);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, camera: &str, more: &str) {
        let text = format!(
            "[camera]\nsource = \"folder:{0}/frames\"\n{camera}\n[model]\npath = \"{0}/model.outlierd\"\nthreads = 1\n\
             [events]\nlog = \"{1}/events.jsonl\"\nsnapshots = \"{1}/snapshots\"\n{more}",
            world().display(),
            self.dir.path().display()
        );
        std::fs::write(self.path("o.toml"), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        outlierd().args(arguments).arg("--config").arg(self.path("o.toml")).output().unwrap()
    }

    fn spawn(&self) -> Daemon {
        let err = std::fs::File::create(self.path("stderr")).unwrap();
        let notices = listen(&self.path("notify"));
        let mut command = outlierd();
        command.args(["run", "--config"]).arg(self.path("o.toml")).env("NOTIFY_SOCKET", self.path("notify"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(err).spawn().unwrap();
        Daemon { child, notices, log: self.path("events.jsonl") }
    }

    fn kinds(&self) -> Vec<Kind> {
        kinds(&self.path("events.jsonl"))
    }
}

fn kinds(log: &Path) -> Vec<Kind> {
    events::read(log).unwrap().iter().map(|event| event.event).collect()
}

/// Reads the service manager's socket as systemd does, all the time.
fn listen(path: &Path) -> Receiver<String> {
    let socket = UnixDatagram::bind(path).unwrap();
    let (sender, notices) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len) = socket.recv(&mut buffer) {
            if sender.send(text(&buffer[..len])).is_err() {
                return;
            }
        }
    });
    notices
}

struct Daemon {
    child: Child,
    notices: Receiver<String>,
    log: PathBuf,
}

impl Daemon {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Takes notifications until one holds `text`.
    fn notified(&self, text: &str) {
        let mut before = String::new();
        loop {
            match self.notices.recv_timeout(PATIENCE) {
                Ok(notice) if notice.contains(text) => return,
                Ok(notice) => before.push_str(&notice),
                Err(e) => panic!("no {text} but {before}: {e}"),
            }
        }
    }

    fn wait_for(&self, what: &str, found: impl Fn(&[Event]) -> bool) {
        let started = Instant::now();
        while !events::read(&self.log).is_ok_and(|events| found(&events)) {
            assert!(started.elapsed() < PATIENCE, "no {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(mut self, signal: Signal) -> i32 {
        self.signal(signal);
        self.child.wait().unwrap().code().expect("ended by a signal")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

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
    let json = place.run(&["events", "--json", "--raise", "--since", "1h"]);
    let json: Vec<Event> = text(&json.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json, events::read(&place.path("events.jsonl")).unwrap()[1..3]);
    assert_eq!(json[0].id, json[1].id);
    let none = place.run(&["events", "--since", "2999-01-01"]);
    assert!(none.status.success() && none.stdout.is_empty());
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
    assert!(place.kinds().ends_with(&[Kind::Start, Kind::Raise, Kind::Clear, Kind::Stop]));
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
fn pictures_are_snapped_and_collected() {
    let place = Place::new("crop = [0, 0, 32, 16]\ninterval = \"1ms\"", "");
    let picture = place.path("p.png");
    let snap = place.run(&["camera", "snap", "-o", picture.to_str().unwrap()]);
    assert!(snap.status.success(), "{}", text(&snap.stderr));
    assert_eq!(outlierd::image::read(&picture).unwrap().dimensions(), (32, 16));
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
