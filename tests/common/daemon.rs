//! The daemon as a process, on a drawn scene that `demo` made.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use outlierd::internals::watch::events::{self, Event, Kind};
use rustix::process::{Pid, Signal, kill_process};

pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn outlierd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlierd"));
    command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM");
    command
}

/// A scene, a model of it and frames with an object, made once by `demo`.
pub fn world() -> &'static Path {
    static WORLD: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = WORLD.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let made = outlierd().args(["demo", "--dir"]).arg(dir.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        dir
    });
    dir.path()
}

/// A folder of its own with a config; unless told otherwise it watches the world's frames with the world's model.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub frames: PathBuf,
    pub model: PathBuf,
    pub log: PathBuf,
    pub snapshots: PathBuf,
}

impl Place {
    pub fn new(camera: &str, more: &str) -> Self {
        let place = Place::unconfigured();
        place.configure(camera, more);
        place
    }

    pub fn unconfigured() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (log, snapshots) = (at("events.jsonl"), at("snapshots"));
        Place { frames: world().join("frames"), model: world().join("model.outlierd"), log, snapshots, dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn configure(&self, camera: &str, more: &str) {
        let text = format!(
            "[camera]\nsource = \"folder:{}\"\n{camera}\n[model]\npath = {:?}\nthreads = 1\n\
             [events]\nlog = {:?}\nsnapshots = {:?}\n{more}",
            self.frames.display(),
            self.model,
            self.log,
            self.snapshots
        );
        std::fs::write(self.path("o.toml"), text).unwrap();
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        outlierd().args(arguments).arg("--config").arg(self.path("o.toml")).output().unwrap()
    }

    pub fn spawn(&self) -> Daemon {
        self.spawn_with(|_| {})
    }

    /// `adapt` has the last word on the command.
    pub fn spawn_with(&self, adapt: impl FnOnce(&mut Command)) -> Daemon {
        let err = std::fs::File::create(self.path("stderr")).unwrap();
        let _ = std::fs::remove_file(self.path("notify"));
        let notices = listen(&self.path("notify"));
        let mut command = outlierd();
        command.args(["run", "--config"]).arg(self.path("o.toml")).env("NOTIFY_SOCKET", self.path("notify"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(err);
        adapt(&mut command);
        Daemon { child: command.spawn().unwrap(), notices, log: self.log.clone() }
    }

    pub fn kinds(&self) -> Vec<Kind> {
        kinds(&self.log)
    }
}

pub fn kinds(log: &Path) -> Vec<Kind> {
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

pub struct Daemon {
    pub child: Child,
    pub notices: Receiver<String>,
    log: PathBuf,
}

impl Daemon {
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Takes notifications until one holds `text`.
    pub fn notified(&self, text: &str) {
        self.notified_of(text, |notice| notice.contains(text));
    }

    /// Takes notifications until one is `wanted`.
    pub fn notified_of(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        let mut before = String::new();
        loop {
            match self.notices.recv_timeout(PATIENCE) {
                Ok(notice) if wanted(&notice) => return,
                Ok(notice) => before.push_str(&notice),
                Err(e) => panic!("no {what} but {before}: {e}"),
            }
        }
    }

    pub fn wait_for(&self, what: &str, found: impl Fn(&[Event]) -> bool) {
        let started = Instant::now();
        while !events::read(&self.log).is_ok_and(|events| found(&events)) {
            assert!(started.elapsed() < PATIENCE, "no {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn stop(mut self, signal: Signal) -> i32 {
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

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Makes or replaces an executable script. By another process: what another test starts meanwhile would hold the file
/// open for writing, and it could not be run.
pub fn script(path: &Path, text: &str) {
    let made = path.with_extension("new");
    let write = "printf '#!/bin/sh\n%s\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
    assert!(Command::new("/bin/sh").args(["-c", write]).arg(&made).arg(text).status().unwrap().success());
    std::fs::rename(made, path).unwrap();
}
