//! A daemon on a folder whose pictures a test changes under way.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use outlierd::internals::watch::events::{self, Event, Kind};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::daemon::{Daemon, PATIENCE, Place, outlierd, text, world};

const NAMES: [&str; 3] = ["a.png", "b.png", "c.png"];

/// Writes down what is announced, whatever the log says; the daemon must run in the rig's folder.
pub const HOOK: &str = "hook = [\"/bin/sh\", \"-c\", \"cat >> announced; echo >> announced\"]\n";

/// Three pictures that are inliers beyond doubt, three that are outliers, and three that are nearly.
fn pictures() -> &'static [Vec<PathBuf>; 3] {
    static PICTURES: OnceLock<[Vec<PathBuf>; 3]> = OnceLock::new();
    PICTURES.get_or_init(|| {
        let mut score = outlierd();
        score.args(["score", "--json", "--model"]).arg(world().join("model.outlierd"));
        let output = score.args((0..45).map(|n| world().join(format!("frames/{n:04}.png")))).output().unwrap();
        let rows: Vec<serde_json::Value> =
            text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut rows: Vec<(f64, PathBuf)> =
            rows.iter().map(|row| (row["p"].as_f64().unwrap(), row["path"].as_str().unwrap().into())).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let paths: Vec<PathBuf> = rows.into_iter().map(|(_, path)| path).collect();
        [paths[42..].to_vec(), paths[..3].to_vec(), paths[25..28].to_vec()]
    })
}

pub fn count(events: &[Event], kind: Kind) -> usize {
    events.iter().filter(|event| event.event == kind).count()
}

/// The id of the last event of a kind: a count falls where a log is rotated.
fn newest(events: &[Event], kind: Kind) -> Option<String> {
    events.iter().rfind(|event| event.event == kind)?.id.clone()
}

/// Of the error events.
pub fn messages(events: &[Event]) -> Vec<String> {
    events.iter().filter(|event| event.event == Kind::Error).filter_map(|event| event.message.clone()).collect()
}

/// Waits with patience, and says what for.
pub fn until(what: &str, mut found: impl FnMut() -> bool) {
    let started = Instant::now();
    while !found() {
        assert!(started.elapsed() < PATIENCE, "not seen: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub struct Rig {
    pub place: Place,
}

impl Deref for Rig {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Rig {
    pub fn new(more: &str) -> Self {
        Rig::with("", more)
    }

    pub fn with(camera: &str, more: &str) -> Self {
        Rig::on(Place::unconfigured(), camera, more)
    }

    pub fn on(mut place: Place, camera: &str, more: &str) -> Self {
        place.frames = place.path("frames");
        std::fs::create_dir(&place.frames).unwrap();
        let rig = Rig { place };
        rig.show(false);
        rig.watch(camera, more);
        rig
    }

    /// A rig with a model of its own, after an event that the user calls a false alarm, and that event.
    pub fn with_false_alarm() -> (Self, Event) {
        let mut place = Place::unconfigured();
        place.model = place.path("model.outlierd");
        std::fs::copy(world().join("model.outlierd"), &place.model).unwrap();
        // An inlier of the model that is called an outlier: what is learnt lies within the calibration.
        let rig = Rig::on(place, "", "[decision]\nthreshold = 1.0\n");
        rig.show_doubtful();
        let daemon = rig.starts();
        daemon.wait_for("raise", |events| count(events, Kind::Raise) == 1);
        rig.stops(daemon);
        let raise = rig.events().into_iter().find(|event| event.event == Kind::Raise).unwrap();
        (rig, raise)
    }

    /// The newest raise in the log.
    pub fn last_raise(&self) -> Event {
        self.events().into_iter().rfind(|event| event.event == Kind::Raise).unwrap()
    }

    /// Writes the config. A history is kept only where `more` says so: what is wrong with the disk it tells, too.
    pub fn watch(&self, camera: &str, more: &str) {
        let none = if more.contains("[history]") { "" } else { "\n[history]\nmax-size = \"0\"\n" };
        let more = &format!("{more}{none}");
        let camera = format!("interval = \"5ms\"\nloop = true\nlost-after = \"300ms\"\n{camera}");
        self.place.configure(&camera, more);
    }

    /// From now on the camera shows an object, or none: with one step for all of its pictures.
    pub fn show(&self, object: bool) {
        self.take(usize::from(object));
    }

    /// Pictures that a strict threshold calls outliers.
    pub fn show_doubtful(&self) {
        self.take(2);
    }

    /// The camera's pictures are links through `shown`, itself a link.
    fn take(&self, kind: usize) {
        let folder = self.path(&format!("kind-{kind}"));
        if !folder.exists() {
            std::fs::create_dir(&folder).unwrap();
            for (name, picture) in NAMES.iter().zip(&pictures()[kind]) {
                std::fs::copy(picture, folder.join(name)).unwrap();
            }
        }
        self.link(&format!("kind-{kind}"), &self.path("shown"));
        for name in NAMES {
            let path = self.frames.join(name);
            if !path.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
                self.link(&format!("../shown/{name}"), &path);
            }
        }
    }

    fn link(&self, to: &str, path: &Path) {
        std::os::unix::fs::symlink(to, self.path("next")).unwrap();
        std::fs::rename(self.path("next"), path).unwrap();
    }

    pub fn events(&self) -> Vec<Event> {
        events::read(&self.log).unwrap_or_default()
    }

    pub fn raises(&self, daemon: &Daemon) {
        let before = newest(&self.events(), Kind::Raise);
        self.show(true);
        daemon.wait_for("raise", |events| newest(events, Kind::Raise).is_some_and(|id| Some(id) != before));
    }

    pub fn clears(&self, daemon: &Daemon) {
        let before = newest(&self.events(), Kind::Clear);
        self.show(false);
        daemon.wait_for("clear", |events| newest(events, Kind::Clear).is_some_and(|id| Some(id) != before));
    }

    /// The daemon does its job.
    pub fn works(&self, daemon: &Daemon) {
        self.raises(daemon);
        self.clears(daemon);
    }

    pub fn error(&self, daemon: &Daemon, said: &str) {
        daemon.wait_for(said, |events| messages(events).iter().any(|message| message.contains(said)));
    }

    /// The daemon in the rig's folder, once it is ready.
    pub fn starts(&self) -> Daemon {
        self.starts_with(|_| {})
    }

    pub fn starts_with(&self, adapt: impl FnOnce(&mut Command)) -> Daemon {
        let daemon = self.spawn_with(|command| {
            command.current_dir(self.dir.path());
            adapt(command);
        });
        daemon.notified("READY=1");
        daemon
    }

    /// The same; errors that get no event because there are too many are on standard error.
    pub fn starts_telling_all(&self) -> Daemon {
        self.starts_with(|command| {
            command.env("RUST_LOG", "debug");
        })
    }

    /// What [`HOOK`] wrote down.
    pub fn announcements(&self) -> Vec<Event> {
        let text = std::fs::read_to_string(self.path("announced")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub fn announced(&self, kind: Kind) -> usize {
        count(&self.announcements(), kind)
    }

    /// What went to standard error.
    pub fn told(&self) -> String {
        text(&std::fs::read(self.path("stderr")).unwrap())
    }

    pub fn tells(&self, said: &str) {
        until(said, || self.told().contains(said));
    }

    /// SIGHUP, until it has been taken.
    pub fn reload(&self, daemon: &Daemon) {
        daemon.signal(rustix::process::Signal::HUP);
        daemon.notified("RELOADING=1");
        daemon.notified("READY=1");
    }

    /// A reload that is refused for a reason; the watch goes on.
    pub fn refuses(&self, daemon: &Daemon, reason: &str) {
        self.reload(daemon);
        let refused = |message: &String| {
            message.starts_with("reload refused, the old config and model stay: ") && message.contains(reason)
        };
        daemon.wait_for(reason, |events| messages(events).iter().any(refused));
    }

    /// Names in the folder of snapshots.
    pub fn snapshots(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.place.snapshots) else { return Vec::new() };
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Ends the daemon as systemd does; it must be quiet and in time.
    pub fn stops(&self, daemon: Daemon) {
        daemon.signal(rustix::process::Signal::TERM);
        assert_eq!(ended(daemon).code(), Some(0), "{}", self.told());
    }
}

pub fn ended(mut daemon: Daemon) -> ExitStatus {
    let mut status = None;
    until("the daemon's end", || {
        status = daemon.child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// A pipe for standard error that can be filled: who writes to it then stands still until it is read.
pub struct Journal {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Journal {
    pub fn new() -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        Journal { reader, writer }
    }

    pub fn writer(&self) -> Stdio {
        self.writer.try_clone().unwrap().into()
    }

    /// Until not a byte more goes in.
    pub fn fill(&self) {
        // Another description of the same pipe: the daemon's stays one that waits.
        let path = format!("/proc/self/fd/{}", self.writer.as_raw_fd());
        let mut options = std::fs::File::options();
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let mut other = options.write(true).custom_flags(flags).open(path).unwrap();
        while other.write(b"\n").is_ok() {}
    }

    /// Reads it from now on to its end, which is that of the daemon; gives what was written.
    pub fn read(self) -> std::thread::JoinHandle<String> {
        let Journal { mut reader, writer } = self;
        drop(writer);
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            text(&bytes)
        })
    }
}

/// Sets a soft limit of a running daemon; None: as high as it goes.
pub fn limit(daemon: &Daemon, resource: Resource, current: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    prlimit(Some(Pid::from_child(&daemon.child)), resource, Rlimit { current: current.or(maximum), maximum }).unwrap();
}

/// A kB figure of /proc/PID/status.
pub fn memory(daemon: &Daemon, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// The command under limits from its first instruction on: `prlimit` options.
pub fn limited(options: &[&str]) -> Command {
    let mut command = Command::new("prlimit");
    command.args(options).arg("--core=0").arg(env!("CARGO_BIN_EXE_outlierd"));
    command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM");
    command
}

/// The tests that need root to mount or to be someone else.
pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED {test}: it needs root");
    }
    root
}

/// Nobody, who owns nothing.
pub const NOBODY: u32 = 65534;

/// Lets another user in.
pub fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

/// A small disk of its own.
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// None, and a line that names the test, where nothing can be mounted.
    pub fn mount(test: &str, path: &Path, kilobytes: u32) -> Option<Disk> {
        std::fs::create_dir(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kilobytes}k"), "tmpfs"]).arg(path);
        match mount.output() {
            Ok(output) if output.status.success() => Some(Disk { path: path.to_owned() }),
            Ok(output) => {
                println!("SKIPPED {test}: cannot mount: {}", text(&output.stderr).trim());
                None
            }
            Err(e) => {
                println!("SKIPPED {test}: cannot mount: {e}");
                None
            }
        }
    }

    pub fn fill(&self) {
        let mut file = std::fs::File::options().append(true).create(true).open(self.path.join("filler")).unwrap();
        while file.write(&[b'x'; 1024]).is_ok() {}
    }

    pub fn free(&self) {
        std::fs::remove_file(self.path.join("filler")).unwrap();
    }

    pub fn remount(&self, how: &str) {
        let mut mount = Command::new("mount");
        assert!(mount.args(["-o", &format!("remount,{how}")]).arg(&self.path).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
