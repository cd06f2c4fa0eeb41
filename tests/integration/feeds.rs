//! Streams from feeders as they are used: ffmpeg, GStreamer, the packaged script for CSI and network cameras, an RTSP
//! server on loopback.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use outlierd::internals::watch::events::{self, Event, Kind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::common::daemon::{PATIENCE, Place, outlierd, script, text};

const FEED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/feed.sh");
const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/feeds/rtsp_server.py");
const PYTHON: &str = "/usr/bin/python3";

/// Whether the commands succeed; where one does not, a line names the test.
fn has(test: &str, commands: &[&[&str]]) -> bool {
    commands.iter().all(|argv| {
        let run = Command::new(argv[0]).args(&argv[1..]).stdin(Stdio::null()).output();
        let there = run.is_ok_and(|output| output.status.success());
        if !there {
            println!("SKIPPED {test}: no success of {argv:?}; tests/setup.sh installs what it takes");
        }
        there
    })
}

const FFMPEG: &[&str] = &["ffmpeg", "-version"];

/// A process that ends with its group.
struct Group(Child);

impl Group {
    fn start(command: &mut Command) -> Self {
        Group(command.stdin(Stdio::null()).process_group(0).spawn().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Waits for the first bytes, because commands wait for ten seconds only. While the file is held, the FIFO has a reader.
fn flowing(fifo: &Path) -> std::fs::File {
    until("FIFO", || fifo.exists());
    let (file, _) = outlierd::internals::fs::open_stream(fifo).unwrap();
    until("stream", || {
        let mut polled = [PollFd::new(&file, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).unwrap();
        polled[0].revents().contains(PollFlags::IN)
    });
    file
}

fn snap(fifo: &Path, picture: &Path) {
    let mut command = outlierd();
    command.args(["camera", "snap", "--config", "/nonexistent", "--device"]).arg(format!("pipe:{}", fifo.display()));
    let run = command.arg("-o").arg(picture).output().unwrap();
    assert!(run.status.success(), "{}", text(&run.stderr));
}

/// The colour bars of SMPTE: grey, yellow, cyan, green, magenta, red, blue.
fn shows_bars(picture: &Path) {
    let picture = image::open(picture).unwrap().to_rgb8();
    assert_eq!(picture.dimensions(), (320, 240));
    let high = |x: u32| picture.get_pixel(x, 80).0.map(|level| level > 100);
    let bars = [[1, 1, 1], [1, 1, 0], [0, 1, 1], [0, 1, 0], [1, 0, 1], [1, 0, 0], [0, 0, 1]];
    for (bar, colour) in bars.into_iter().enumerate() {
        assert_eq!(high(320 * (2 * bar as u32 + 1) / 14), colour.map(|on| on == 1), "bar {bar}");
    }
}

#[test]
fn test_patterns_of_ffmpeg_come_through_a_fifo() {
    if !has("test_patterns_of_ffmpeg_come_through_a_fifo", &[FFMPEG]) {
        return;
    }
    for format in [&["-c:v", "mjpeg", "-f", "mjpeg"][..], &["-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe"]] {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, picture) = (dir.path().join("fifo"), dir.path().join("p.png"));
        mkfifo(&fifo);
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-v", "error", "-re", "-f", "lavfi", "-i", "smptebars=size=320x240:rate=25"]);
        let _ffmpeg = Group::start(ffmpeg.args(format).arg("-y").arg(&fifo));
        let _reader = flowing(&fifo);
        snap(&fifo, &picture);
        shows_bars(&picture);
    }
}

#[test]
fn test_patterns_of_gstreamer_come_through_a_fifo() {
    let elements: &[&[&str]] =
        &[&["gst-inspect-1.0", "videotestsrc"], &["gst-inspect-1.0", "jpegenc"], &["gst-inspect-1.0", "y4menc"]];
    if !has("test_patterns_of_gstreamer_come_through_a_fifo", elements) {
        return;
    }
    for encoder in ["jpegenc", "y4menc"] {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, picture) = (dir.path().join("fifo"), dir.path().join("p.png"));
        mkfifo(&fifo);
        let mut gst = Command::new("gst-launch-1.0");
        gst.args(["-q", "videotestsrc", "is-live=true", "!"]);
        gst.args(["video/x-raw,format=I420,width=320,height=240,framerate=25/1", "!", encoder, "!", "filesink"]);
        let _gst = Group::start(gst.arg(format!("location={}", fifo.display())));
        let _reader = flowing(&fifo);
        snap(&fifo, &picture);
        shows_bars(&picture);
    }
}

/// The packaged script, its environment as of the units.
fn feed(kind: &str, run: &Path) -> Command {
    let mut command = Command::new(FEED);
    command.arg(kind).env("RUNTIME_DIRECTORY", run).env("CREDENTIALS_DIRECTORY", run);
    command.envs([("CAMERA", "0"), ("WIDTH", "320"), ("HEIGHT", "240"), ("FPS", "5"), ("CODEC", "mjpeg")]);
    command
}

/// A `rpicam-vid` that leaves its arguments in `arguments` and gives one picture until there is a file `end`.
fn fake_camera(dir: &Path) -> PathBuf {
    let bin = dir.join("bin");
    std::fs::create_dir(&bin).unwrap();
    image::RgbImage::from_pixel(64, 48, image::Rgb([90, 120, 200])).save(dir.join("picture.jpg")).unwrap();
    let body = format!(
        "echo \"$@\" >> {0}/arguments\nwhile [ ! -e {0}/end ]; do cat {0}/picture.jpg || exit 141; sleep 0.02; done\nexit 3",
        dir.display()
    );
    script(&bin.join("rpicam-vid"), &body);
    bin
}

#[test]
fn a_csi_camera_is_fed_while_somebody_reads() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let path = format!("{}:/usr/bin:/bin", fake_camera(dir.path()).display());
    let errors = std::fs::File::create(at("errors")).unwrap();
    let mut command = feed("camera", dir.path());
    command.env("PATH", path).env("EXTRA", "--rotation 180").stderr(errors);
    let mut feeder = Group::start(&mut command);
    until("FIFO", || at("stream").exists());
    for _ in 0..3 {
        snap(&at("stream"), &at("p.png"));
    }
    assert!(image::open(at("p.png")).unwrap().to_rgb8().get_pixel(9, 9)[2] > 180);
    let started = std::fs::read_to_string(at("arguments")).unwrap();
    let line = "--timeout 0 --nopreview --flush --camera 0 --codec mjpeg --width 320 --height 240 --framerate 5 \
                --output - --rotation 180";
    assert!(!started.is_empty() && started.lines().all(|arguments| arguments == line), "{started}");
    assert_eq!(feeder.0.try_wait().unwrap(), None);
    // Only its own end ends it.
    let reader = outlierd::internals::fs::open_stream(&at("stream")).unwrap();
    std::fs::write(at("end"), "").unwrap();
    assert_eq!(feeder.0.wait().unwrap().code(), Some(1));
    assert_eq!(std::fs::read_to_string(at("errors")).unwrap(), "the stream ended\n");
    drop(reader);
}

#[test]
fn a_feed_says_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let refused = |kind: &str, change: &[(&str, &str)]| {
        let run = feed(kind, dir.path()).env("PATH", &bin).envs(change.iter().copied()).output().unwrap();
        (run.status.code(), text(&run.stderr))
    };
    let (code, message) = refused("camera", &[]);
    assert!(code == Some(69) && message.contains("apt install rpicam-apps"), "{code:?} {message}");
    let (code, message) = refused("camera", &[("FPS", "many")]);
    assert!(code == Some(78) && message.contains("FPS=many"), "{code:?} {message}");
    let (code, message) = refused("rtsp", &[]);
    assert!(code == Some(69) && message.contains("apt install ffmpeg"), "{code:?} {message}");
    script(&bin.join("ffmpeg"), "exit 0");
    let (code, message) = refused("rtsp", &[]);
    assert!(code == Some(78) && message.contains("no address"), "{code:?} {message}");
    std::fs::write(dir.path().join("url"), "10.0.0.5 secret\n").unwrap();
    let (code, message) = refused("rtsp", &[]);
    assert!(code == Some(78) && message.contains("rtsp://") && !message.contains("secret"), "{code:?} {message}");
    assert!(!dir.path().join("stream").exists());
}

/// An RTSP camera behind a password, on loopback.
struct Server {
    process: Group,
    input: ChildStdin,
    port: String,
}

const PASSWORD: &str = "se'cr@t";
const NEEDED: &[&[&str]] = &[
    FFMPEG,
    &[PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"],
    &["gst-inspect-1.0", "x264enc"],
    &["gst-inspect-1.0", "jpegenc"],
];

impl Server {
    fn start(codec: &str) -> Self {
        let mut command = Command::new(PYTHON);
        command.args([SERVER, codec, "viewer", PASSWORD]).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut process = command.spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let process = Group(process);
        let mut port = String::new();
        BufReader::new(output).read_line(&mut port).unwrap();
        Server { process, input, port: port.trim().into() }
    }

    fn show(&mut self, pattern: &str) {
        writeln!(self.input, "{pattern}").unwrap();
    }

    /// With the password as it is written in an address.
    fn address(&self) -> String {
        format!("rtsp://viewer:{}@127.0.0.1:{}/camera", PASSWORD.replace('@', "%40"), self.port)
    }
}

/// The arguments of every process that can be seen.
fn arguments() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok()).map(|bytes| text(&bytes)).collect()
}

#[test]
fn a_network_camera_is_watched_and_its_password_is_not_seen() {
    if !has("a_network_camera_is_watched_and_its_password_is_not_seen", NEEDED) {
        return;
    }
    let mut server = Server::start("h264");
    let place = Place::unconfigured();
    let place = Place { model: place.path("model.outlierd"), ..place };
    std::fs::write(place.path("url"), server.address()).unwrap();
    let errors = std::fs::File::create(place.path("errors")).unwrap();
    // As systemd restarts it.
    let again = format!("while :; do {FEED} rtsp; sleep 0.2; done");
    let mut feeder = feed("rtsp", place.dir.path());
    let envs: Vec<_> = feeder.get_envs().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect();
    feeder = Command::new("/bin/sh");
    let _feeder = Group::start(feeder.args(["-c", &again]).envs(envs).env("FPS", "10").stderr(errors));
    let fifo = place.path("stream");
    let _reader = flowing(&fifo);
    let device = format!("pipe:{}", fifo.display());
    let collect = |name: &str, count: &str| {
        let into = place.path(name);
        let mut command = outlierd();
        command.args([
            "collect",
            "--config",
            "/nonexistent",
            "--device",
            &device,
            "--every",
            "100ms",
            "--count",
            count,
        ]);
        let run = command.arg("-o").arg(&into).output().unwrap();
        assert!(run.status.success(), "{}", text(&run.stderr));
        into
    };
    let normal = collect("normal", "30");
    let seen = arguments();
    assert!(seen.iter().any(|line| line.contains("ffmpeg") && line.contains("pipe:0")), "{seen:?}");
    assert!(!seen.iter().any(|line| line.contains("se'cr%40t") || line.contains(&server.address())), "{seen:?}");
    server.show("smpte");
    let outliers = collect("outliers", "12");
    server.show("ball");
    let mut fit = outlierd();
    fit.arg("fit").arg("--normal").arg(&normal).arg("--outliers").arg(&outliers).arg("-o").arg(&place.model);
    let fit = fit.output().unwrap();
    assert!(fit.status.success(), "{}", text(&fit.stderr));

    let config = format!(
        "[camera]\nsource = {device:?}\ninterval = \"100ms\"\nlost-after = \"4s\"\n[model]\npath = {:?}\n\
         [decision]\nraise-after = 2\nclear-after = 2\n[events]\nlog = {:?}\nsnapshots = {:?}\n\
         [observe]\nsocket = {:?}\n",
        place.model,
        place.log,
        place.snapshots,
        place.path("socket")
    );
    std::fs::write(place.path("o.toml"), config).unwrap();
    let count = |kind: Kind| move |events: &[Event]| events.iter().filter(|event| event.event == kind).count();
    let daemon = place.spawn();
    daemon.notified("STATUS=normal, p ");
    let switched = std::time::SystemTime::now();
    server.show("smpte");
    daemon.wait_for("raise", |events| count(Kind::Raise)(events) == 1);
    let raise = events::read(&place.log).unwrap().into_iter().find(|event| event.event == Kind::Raise).unwrap();
    println!("note: raised {:?} after the camera saw it", raise.time.duration_since(switched).unwrap_or_default());
    server.show("ball");
    daemon.wait_for("clear", |events| count(Kind::Clear)(events) == 1);
    // A camera that hangs is lost, and found again.
    let pid = Pid::from_child(&server.process.0);
    kill_process(pid, Signal::STOP).unwrap();
    daemon.wait_for("camera-lost", |events| count(Kind::CameraLost)(events) == 1);
    kill_process(pid, Signal::CONT).unwrap();
    daemon.wait_for("camera-found", |events| count(Kind::CameraFound)(events) == 1);
    let status = outlierd().args(["status", "--config"]).arg(place.path("o.toml")).output().unwrap();
    println!("note: {}", text(&status.stdout));
    assert_eq!(daemon.stop(Signal::TERM), 0);
    let stop = events::read(&place.log).unwrap().pop().unwrap();
    println!("note: {} frames judged", stop.frames.unwrap());
    drop(server);
    until("error of ffmpeg", || std::fs::read_to_string(place.path("errors")).unwrap().contains("Connection refused"));
    let errors = std::fs::read_to_string(place.path("errors")).unwrap();
    assert!(
        errors.contains("://***@127.0.0.1") && !errors.contains("cr%40t") && !errors.contains("viewer:"),
        "{errors}"
    );
}

#[test]
fn a_network_camera_that_sends_mjpeg_is_passed_on() {
    if !has("a_network_camera_that_sends_mjpeg_is_passed_on", NEEDED) {
        return;
    }
    let mut server = Server::start("jpeg");
    server.show("smpte");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("url"), server.address() + "\n").unwrap();
    let _feeder = Group::start(feed("rtsp", dir.path()).env("CODEC", "copy"));
    let fifo = dir.path().join("stream");
    let _reader = flowing(&fifo);
    snap(&fifo, &dir.path().join("p.png"));
    shows_bars(&dir.path().join("p.png"));
}

#[test]
fn camera_list_names_csi_cameras_and_how_to_use_them() {
    let dir = tempfile::tempdir().unwrap();
    // As the program printed it on a Pi 5 with two cameras.
    let list = "Available cameras\n-----------------\n\
                0 : ov64a40 [9248x6944 10-bit] (/base/axi/pcie@1000120000/rp1/i2c@88000/ov64a40@36)\n    \
                    Modes: 'SBGGR10_CSI2P' : 1920x1080 [45.65 fps - (784, 1312)/7712x4352 crop]\n\n\
                1 : imx708 [4608x2592 10-bit RGGB] (/base/axi/pcie@1000120000/rp1/i2c@80000/imx708@1a)\n    \
                    Modes: 'SRGGB10_CSI2P' : 1536x864 [120.13 fps - (768, 432)/3072x1728 crop]\n";
    std::fs::write(dir.path().join("list"), list).unwrap();
    script(
        &dir.path().join("rpicam-hello"),
        &format!("[ \"$1\" = --list-cameras ] && cat {}/list", dir.path().display()),
    );
    let run = |arguments: &[&str]| {
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        outlierd().args(["camera", "list"]).args(arguments).env("PATH", path).output().unwrap()
    };
    let shown = run(&[]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let shown = text(&shown.stdout);
    for part in [
        "camera connector 0  ov64a40 (9248x6944 10-bit, /base/axi/pcie@1000120000/rp1/i2c@88000/ov64a40@36)\n  \
         sudo systemctl enable --now outlierd-camera@csi0.service\n  \
         and in the config: source = \"pipe:/run/outlierd-camera/csi0/stream\"\n",
        "\n  echo CAMERA=1 | sudo tee /etc/outlierd/csi1.camera\n  sudo systemctl enable --now outlierd-camera@csi1.service\n",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    let lines: Vec<serde_json::Value> =
        text(&run(&["--json"]).stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let models: Vec<_> = lines.iter().filter_map(|line| line["model"].as_str()).collect();
    assert_eq!(models, ["ov64a40", "imx708"]);
    std::fs::write(dir.path().join("list"), "ERROR: *** failed to acquire camera ***\n").unwrap();
    let failed = text(&run(&[]).stderr);
    assert!(failed.contains("no camera is listed"), "{failed}");
}
