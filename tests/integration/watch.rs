//! The watch's loop on folders of pictures, with a judge that knows a bright picture from a dark one.

use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use outlierd::internals::camera::{self, Frame, FrameSource};
use outlierd::internals::config::{self, Config};
use outlierd::internals::model::Verdict;
use outlierd::internals::watch::events::{self, Event, Kind};
use outlierd::internals::watch::judging::Drawing;
use outlierd::internals::watch::outputs::snapshots;
use outlierd::internals::watch::service::{Command, Notifier};
use outlierd::internals::watch::{Judge, JudgeError, Summary, Watch};

/// Dark pictures are inliers; a green one cannot be judged.
struct Brightness {
    name: String,
}

impl Judge for Brightness {
    fn judge(&mut self, picture: &RgbImage, threshold: f64) -> Result<Verdict, JudgeError> {
        let [red, green, _] = picture.get_pixel(0, 0).0;
        if green > 200 {
            return Err(JudgeError("it is green".into()));
        }
        if green > 100 {
            return Ok(Verdict::of(f64::NAN, f64::NAN, threshold));
        }
        let p = 1.0 - f64::from(red) / 255.0;
        Ok(Verdict::of(p * 10.0, p, threshold))
    }

    fn threshold(&self) -> f64 {
        0.5
    }

    fn model_name(&self) -> &str {
        &self.name
    }
}

fn judge(name: &str) -> Brightness {
    Brightness { name: name.into() }
}

/// `.` inlier, `o` outlier, `x` text instead of a picture, `g` not to be judged, `n` p is not a number.
fn pictures(dir: &Path, frames: &str) {
    std::fs::create_dir_all(dir).unwrap();
    for (number, frame) in frames.chars().enumerate() {
        let path = dir.join(format!("{number:05}.png"));
        let colour = match frame {
            '.' => [20, 0, 0],
            'o' => [240, 0, 0],
            'g' => [0, 255, 0],
            'n' => [0, 150, 0],
            _ => {
                std::fs::write(path, "no picture").unwrap();
                continue;
            }
        };
        RgbImage::from_pixel(16, 12, Rgb(colour)).save(path).unwrap();
    }
}

fn config(dir: &Path, more: &str) -> Config {
    let text = format!(
        "[camera]\nsource = \"folder:{0}/frames\"\ninterval = \"1ms\"\n[model]\npath = \"m\"\n\
         [events]\nlog = \"{0}/log/events.jsonl\"\nsnapshots = \"{0}/snapshots\"\n{more}",
        dir.display()
    );
    let config = Config::parse(&dir.join("o.toml"), &text).unwrap();
    config.check().unwrap();
    config
}

fn run(config: Config) -> Summary {
    run_observed(config, |_| {})
}

/// `observe` gets the number of each judged frame, from 0, and may hold the watch up.
fn run_observed(config: Config, mut observe: impl FnMut(u64)) -> Summary {
    let (_keep, commands) = channel();
    let watch = Watch {
        config,
        judge: judge("first"),
        open_camera: Box::new(camera::open),
        reload: Box::new(|| Err("not in this test".into())),
        observe: Some(Box::new(move |frame: &Frame, _| observe(frame.sequence))),
    };
    watch.run(&commands, &mut Notifier::from_env()).unwrap()
}

fn log(dir: &Path) -> Vec<Event> {
    events::read(&dir.join("log/events.jsonl")).unwrap()
}

fn kinds(events: &[Event]) -> Vec<Kind> {
    events.iter().map(|event| event.event).collect()
}

#[test]
fn events_are_those_of_a_hand_count() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), "...oo..ooooo....o.o.....oo...ooo.");
    let summary = run(config(dir.path(), ""));
    assert_eq!(summary, Summary { frames: 33, skipped: 0, dropped: 0, raised: 2, cleared: 1 });
    let events = log(dir.path());
    assert_eq!(kinds(&events), [Kind::Start, Kind::Raise, Kind::Clear, Kind::Raise, Kind::Stop]);
    let (raise, clear, second, stop) = (&events[1], &events[2], &events[3], &events[4]);
    assert!(raise.id.is_some() && raise.id == clear.id && raise.id != second.id && second.id == stop.id);
    assert_eq!((raise.frames, clear.frames, second.frames, stop.frames), (Some(3), Some(7), Some(3), Some(33)));
    assert_eq!(raise.threshold, Some(0.5));
    assert!(raise.p.unwrap() < 0.1 && clear.p.unwrap() > 0.9 && raise.score.unwrap() < 1.0);
    assert!(events.iter().all(|event| event.model.as_deref() == Some("first")));
    assert_eq!(raise.snapshot, clear.snapshot);
    let snapshot = outlierd::internals::image::read(raise.snapshot.as_ref().unwrap()).unwrap();
    assert!(snapshot.get_pixel(3, 3)[0] > 200);
    assert_eq!(
        std::fs::canonicalize(dir.path().join("snapshots/last.jpg")).unwrap(),
        std::fs::canonicalize(second.snapshot.as_ref().unwrap()).unwrap()
    );
}

#[test]
fn the_config_sets_threshold_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), ".o.o");
    let more = "[decision]\nraise-after = 1\nclear-after = 1\n";
    assert_eq!(run(config(dir.path(), more)), Summary { frames: 4, skipped: 0, dropped: 0, raised: 2, cleared: 1 });
    let more = "[decision]\nraise-after = 1\nthreshold = 0.01\n";
    assert_eq!(run(config(dir.path(), more)).raised, 0);
}

#[test]
fn bad_frames_are_error_events_and_do_not_break_a_run() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), "xoxogon.");
    let summary = run(config(dir.path(), ""));
    assert_eq!(summary, Summary { frames: 4, skipped: 0, dropped: 4, raised: 1, cleared: 0 });
    let events = log(dir.path());
    use Kind::{Error, Raise, Start, Stop};
    assert_eq!(kinds(&events), [Start, Error, Error, Error, Raise, Error, Stop]);
    let messages: Vec<_> = events.iter().filter_map(|event| event.message.as_deref()).collect();
    assert!(messages[0].contains("00000.png") && messages[2].contains("it is green") && messages[3].contains("NaN"));
}

#[test]
fn an_empty_or_missing_folder_is_an_error_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let watch = || Watch {
        config: config(dir.path(), ""),
        judge: judge("m"),
        open_camera: Box::new(camera::open),
        reload: Box::new(|| Err("no".into())),
        observe: None,
    };
    let (_keep, commands) = channel();
    assert!(watch().run(&commands, &mut Notifier::from_env()).is_err());
    std::fs::create_dir(dir.path().join("frames")).unwrap();
    let message = watch().run(&commands, &mut Notifier::from_env()).unwrap_err().to_string();
    assert!(message.contains("no pictures in"), "{message}");
}

#[test]
fn a_log_that_cannot_be_written_does_not_stop_the_watch() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), ".oooo");
    std::fs::create_dir_all(dir.path().join("log/events.jsonl")).unwrap();
    assert_eq!(run(config(dir.path(), "")).raised, 1);
}

#[test]
fn a_snapshot_folder_that_cannot_be_written_does_not_lose_the_event() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), "ooo");
    std::fs::write(dir.path().join("snapshots"), "a file").unwrap();
    run(config(dir.path(), ""));
    let events = log(dir.path());
    assert_eq!(kinds(&events), [Kind::Start, Kind::Raise, Kind::Error, Kind::Stop]);
    assert!(events[2].message.as_ref().unwrap().contains("cannot write the snapshot"));
    // The line came first, with the name that the picture was to have; the stop knows that there is none.
    assert!(events[1].snapshot.is_some());
    assert_eq!((&events[3].id, &events[3].snapshot), (&events[1].id, &None));
}

/// Draws a map only after more runs of the network; what it does first is in the log's last line by then.
struct Slow {
    log: std::path::PathBuf,
    last: std::sync::Arc<std::sync::Mutex<Option<Event>>>,
    fails: bool,
}

impl Judge for Slow {
    fn judge(&mut self, picture: &RgbImage, threshold: f64) -> Result<Verdict, JudgeError> {
        judge("slow").judge(picture, threshold)
    }

    fn heat(&mut self, _: &RgbImage) -> Result<Option<outlierd::internals::watch::overlay::HeatMap>, JudgeError> {
        *self.last.lock().unwrap() = events::read(&self.log).unwrap().pop();
        match self.fails {
            true => Err(JudgeError("it is tired".into())),
            false => Ok(None),
        }
    }

    fn drawing(&self) -> Drawing {
        Drawing::Later
    }

    fn threshold(&self) -> f64 {
        0.5
    }

    fn model_name(&self) -> &str {
        "slow"
    }
}

/// A kill while the heat map is drawn leaves a line that names both pictures, and the picture that is there already.
#[test]
fn a_raise_is_in_the_log_before_its_heat_map_and_keeps_its_picture_without_one() {
    for fails in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        pictures(&dir.path().join("frames"), "ooo.....");
        let last = std::sync::Arc::default();
        let judge = Slow { log: dir.path().join("log/events.jsonl"), last, fails };
        let last = judge.last.clone();
        let (_keep, commands) = channel();
        let watch = Watch {
            config: config(dir.path(), ""),
            judge,
            open_camera: Box::new(camera::open),
            reload: Box::new(|| Err("not in this test".into())),
            observe: None,
        };
        watch.run(&commands, &mut Notifier::from_env()).unwrap();
        let raise = last.lock().unwrap().take().unwrap();
        assert_eq!(raise.event, Kind::Raise);
        let (snapshot, heat) = (raise.snapshot.clone().unwrap(), raise.heat.unwrap());
        assert!(snapshot.exists() && !heat.exists());
        let events = log(dir.path());
        let clear = events.iter().find(|event| event.event == Kind::Clear).unwrap();
        assert_eq!((&clear.snapshot, &clear.heat), (&raise.snapshot, &None));
        let told = events.iter().filter(|event| event.event == Kind::Error).count();
        assert_eq!(told, usize::from(fails), "{events:?}");
    }
}

#[test]
fn an_event_that_stands_at_the_stop_is_closed_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), "ooo");
    run(config(dir.path(), ""));
    std::fs::remove_dir_all(dir.path().join("frames")).unwrap();
    pictures(&dir.path().join("frames"), "...");
    run(config(dir.path(), ""));
    run(config(dir.path(), ""));
    let events = log(dir.path());
    use Kind::{Clear, Raise, Start, Stop};
    assert_eq!(kinds(&events), [Start, Raise, Stop, Start, Clear, Stop, Start, Stop]);
    assert_eq!((&events[4].id, &events[4].snapshot), (&events[1].id, &events[1].snapshot));
    assert_eq!(events[4].message.as_deref(), Some("outlierd was stopped while it stood"));
    assert!(events.iter().all(|event| event.instance.as_deref() == Some("o")));
}

/// Three daemons, one log: the one that starts ends its own event and leaves the others' alone.
#[test]
fn a_start_leaves_the_events_of_running_daemons_alone() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), "...");
    let other = dir.path().join("other");
    let mut running = snapshots::Snapshots::new(&other, 1, 1 << 20);
    running.claim().unwrap();
    let mut lines = events::Log::open(&dir.path().join("log/events.jsonl"), 1 << 20).unwrap();
    // A log may say anything: what is no folder is not opened, nor waited for.
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let event = Event { snapshot: Some(pipe.join("outlier-0.jpg")), ..Event::new(Kind::Raise) };
    lines.append(&Event { id: Some("0".into()), ..event }).unwrap();
    for (id, instance, folder) in [("1", "o", "snapshots"), ("2", "door", "snapshots"), ("3", "o", "other")] {
        let snapshot = Some(dir.path().join(folder).join(format!("outlier-{id}.jpg")));
        let event = Event { id: Some(id.into()), instance: Some(instance.into()), snapshot, ..Event::new(Kind::Raise) };
        lines.append(&event).unwrap();
    }
    let closed = || {
        run(config(dir.path(), ""));
        let events = log(dir.path()).into_iter().filter(|event| event.event == Kind::Clear);
        events.map(|event| event.id.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(closed(), ["1"]);
    drop(running);
    // Of a folder that nobody writes to any more: the config named it before.
    assert_eq!(closed(), ["1", "3"]);
}

#[test]
fn a_folder_of_snapshots_that_another_daemon_has_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), "ooo");
    let mut running = snapshots::Snapshots::new(&dir.path().join("snapshots"), 1, 1 << 20);
    running.claim().unwrap();
    let watch = Watch {
        config: config(dir.path(), ""),
        judge: judge("m"),
        open_camera: Box::new(camera::open),
        reload: Box::new(|| Err("no".into())),
        observe: None,
    };
    let (_keep, commands) = channel();
    let message = watch.run(&commands, &mut Notifier::from_env()).unwrap_err().to_string();
    assert!(message.contains("snapshots: another outlierd that is running"), "{message}");
}

/// What is beyond the limits goes at the start and at a reload, not first when the next event was written whole.
#[test]
fn old_snapshots_go_at_the_start_and_at_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("snapshots");
    std::fs::create_dir(&folder).unwrap();
    for number in 0..6 {
        std::fs::write(folder.join(format!("outlier-{number}.jpg")), "x").unwrap();
    }
    std::fs::write(folder.join(".outlier-6.jpg.part"), "half").unwrap();
    let count = || std::fs::read_dir(&folder).unwrap().count();
    let path = dir.path().to_owned();
    let at_reload = std::cell::Cell::new(0);
    let reload = || {
        at_reload.set(count());
        Ok((device(&path, "keep-snapshots = 2\n"), judge("second")))
    };
    run_scripts(device(dir.path(), "keep-snapshots = 4\n"), vec![Ok(".r..")], reload);
    assert_eq!((at_reload.get(), count()), (4, 2));
}

#[test]
fn a_log_that_cannot_be_rotated_is_told_once_and_written_on() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), &"o.".repeat(40));
    // No file takes the place of a folder, whoever runs the test.
    std::fs::create_dir_all(dir.path().join("log/events.jsonl.5")).unwrap();
    std::fs::write(dir.path().join("log/events.jsonl.4"), "").unwrap();
    let more = "max-log-size = \"4 KiB\"\nheat-map = false\n[decision]\nraise-after = 1\nclear-after = 1\n";
    assert_eq!(run(config(dir.path(), more)).raised, 40);
    let text = std::fs::read_to_string(dir.path().join("log/events.jsonl")).unwrap();
    assert_eq!(text.matches("\"event\":\"raise\"").count(), 40);
    assert_eq!(text.matches("cannot rotate the event log").count(), 1);
}

#[test]
fn half_a_line_of_an_earlier_run_is_stepped_over() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), "ooo");
    std::fs::create_dir_all(dir.path().join("log")).unwrap();
    std::fs::write(dir.path().join("log/events.jsonl"), "{\"time\":\"2026-01-01T0").unwrap();
    run(config(dir.path(), ""));
    assert_eq!(kinds(&log(dir.path())), [Kind::Start, Kind::Raise, Kind::Stop]);
}

#[test]
fn a_small_log_is_rotated_under_way() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), &"o.".repeat(20));
    run(config(dir.path(), "max-log-size = \"4 KiB\"\n[decision]\nraise-after = 1\nclear-after = 1\n"));
    assert!(dir.path().join("log/events.jsonl.1").exists());
    assert_eq!(log(dir.path()).len(), 42);
}

#[test]
fn hooks_see_every_event_and_their_failure_is_told() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), "ooo.....");
    let hook = format!("hook = [\"/bin/sh\", \"-c\", \"cat >> {}/h; echo >> {0}/h\"]\n", dir.path().display());
    let seen = || std::fs::read_to_string(dir.path().join("h")).unwrap_or_default();
    let started = Instant::now();
    run_observed(config(dir.path(), &hook), |number| {
        while number == 7 && seen().lines().count() < 3 {
            assert!(started.elapsed() < Duration::from_secs(120), "{}", seen());
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let events = log(dir.path());
    assert_eq!(kinds(&events)[..4], [Kind::Start, Kind::Raise, Kind::Clear, Kind::Stop]);
    // The hook of the stop has two seconds: where they are too few, that is told.
    let told = events[4..].iter().any(|event| event.message.as_ref().is_some_and(|m| m.contains(" for stop: ")));
    let taken = if told { 3 } else { 4 };
    let seen: Vec<Event> = seen().lines().take(taken).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(seen, events[..taken]);

    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), "ooo");
    run(config(dir.path(), "hook = [\"/nonexistent/hook\"]\n"));
    let events = log(dir.path());
    let failed = |event: &&Event| event.message.as_ref().is_some_and(|m| m.contains("/nonexistent/hook"));
    assert_eq!(events.iter().filter(failed).count(), 3);
}

#[test]
fn a_hanging_hook_does_not_hold_up_the_watch() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), "ooo.....ooo.....");
    let summary = run(config(dir.path(), "hook = [\"/bin/sh\", \"-c\", \"sleep 600\"]\n"));
    assert_eq!((summary.raised, summary.cleared), (2, 2));
    let events = log(dir.path());
    // A watch that waited for its hook would have a failure after each event.
    let before_stop = events.iter().position(|event| event.event == Kind::Stop).unwrap();
    let failed = events[..before_stop].iter().filter(|event| event.event == Kind::Error).count();
    assert!(failed < 4, "{:?}", kinds(&events));
    assert!(events.iter().any(|event| event.message.as_ref().is_some_and(|m| m.contains("killed"))));
}

#[test]
fn a_full_queue_of_hooks_is_an_error_event_and_nothing_waits() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), &"o.".repeat(50));
    let more = "hook = [\"/bin/sh\", \"-c\", \"sleep 600\"]\n[decision]\nraise-after = 1\nclear-after = 1\n";
    assert_eq!(run(config(dir.path(), more)).raised, 50);
    let events = log(dir.path());
    let full = |event: &&Event| event.message.as_ref().is_some_and(|m| m.contains("64 events wait already"));
    assert!(events.iter().any(|event| full(&event)), "{:?}", kinds(&events));
    let raised = events.iter().filter(|event| event.event == Kind::Raise).count();
    assert_eq!(raised, 50);
}

/// A camera that does as a script says: a frame, a stall, or gone.
struct Scripted {
    script: std::vec::IntoIter<char>,
    sequence: u64,
    commands: Sender<Command>,
}

impl FrameSource for Scripted {
    fn next(&mut self, deadline: Instant) -> Result<Option<Frame>, camera::Error> {
        let origin = "scripted".to_owned();
        let red = match self.script.next() {
            Some('.') => 20,
            Some('o') => 240,
            Some('r') => {
                self.commands.send(Command::Reload).unwrap();
                20
            }
            Some('s') => {
                std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
                return Err(camera::Error::Timeout { origin, reason: String::new() });
            }
            Some('!') => return Err(camera::Error::Lost { origin, reason: "unplugged".into() }),
            _ => {
                self.commands.send(Command::Stop).unwrap();
                20
            }
        };
        self.sequence += 1;
        let picture = RgbImage::from_pixel(4, 4, Rgb([red, 0, 0]));
        Ok(Some(Frame { picture, jpeg: None, sequence: self.sequence, source: origin }))
    }

    fn describe(&self) -> String {
        "scripted".into()
    }
}

type Opened = Vec<Result<&'static str, &'static str>>;

/// Runs scripts one after the other, one for each time the camera is opened.
fn run_scripts(
    config: Config,
    scripts: Opened,
    reload: impl FnMut() -> Result<(Config, Brightness), String>,
) -> Summary {
    let (sender, commands) = channel();
    let mut scripts = scripts.into_iter();
    let open = |camera: &config::Camera| match scripts.next().expect("opened more often than the test says") {
        Ok(script) => {
            let script = script.chars().collect::<Vec<_>>().into_iter();
            Ok(Scripted { script, sequence: 0, commands: sender.clone() })
        }
        Err(reason) => Err(camera::Error::Open { origin: camera.source.to_string(), reason: reason.into() }),
    };
    let watch =
        Watch { config, judge: judge("first"), open_camera: Box::new(open), reload: Box::new(reload), observe: None };
    watch.run(&commands, &mut Notifier::from_env()).unwrap()
}

fn device(dir: &Path, more: &str) -> Config {
    let mut config = config(dir, more);
    config.camera.source = config::Source::V4l("/dev/video0".into());
    config.camera.lost_after = Duration::from_millis(300);
    config
}

fn no_reload() -> Result<(Config, Brightness), String> {
    Err("not in this test".into())
}

#[test]
fn a_camera_is_lost_and_found() {
    let dir = tempfile::tempdir().unwrap();
    let scripts = vec![Ok("..!"), Err("no such device"), Ok("..")];
    run_scripts(device(dir.path(), ""), scripts, no_reload);
    let events = log(dir.path());
    assert_eq!(kinds(&events), [Kind::Start, Kind::CameraLost, Kind::CameraFound, Kind::Stop]);
    let reason = events[1].message.as_ref().unwrap();
    assert!(reason.contains("unplugged") || reason.contains("no such device"), "{reason}");
    assert!(events[1].duration_s.unwrap() >= 0.3 && events[2].duration_s >= events[1].duration_s);
}

#[test]
fn a_stalled_camera_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    run_scripts(device(dir.path(), ""), vec![Ok(".sssssss"), Ok(".")], no_reload);
    assert_eq!(kinds(&log(dir.path())), [Kind::Start, Kind::CameraLost, Kind::CameraFound, Kind::Stop]);
}

#[test]
fn a_short_stall_is_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = device(dir.path(), "");
    config.camera.lost_after = Duration::from_secs(3600);
    run_scripts(config, vec![Ok(".s.!"), Ok(".")], no_reload);
    assert_eq!(kinds(&log(dir.path())), [Kind::Start, Kind::Stop]);
}

#[test]
fn a_camera_that_is_not_there_at_the_start_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    run_scripts(device(dir.path(), ""), vec![Err("busy"), Ok("ooo")], no_reload);
    let kinds = kinds(&log(dir.path()));
    assert!(kinds.starts_with(&[Kind::Start]) && kinds.ends_with(&[Kind::Raise, Kind::Stop]), "{kinds:?}");
}

#[test]
fn an_event_stands_through_a_lost_camera_and_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let reload = move || {
        let mut config = device(&path, "[decision]\nclear-after = 2\n");
        config.camera.lost_after = Duration::from_secs(3600);
        config.events.log = path.join("log2/events.jsonl");
        Ok((config, judge("second")))
    };
    let mut config = device(dir.path(), "");
    config.camera.lost_after = Duration::from_secs(3600);
    run_scripts(config, vec![Ok("ooo!"), Ok("or..")], reload);
    let first = log(dir.path());
    assert_eq!(first.last().unwrap().event, Kind::Raise);
    let second = events::read(&dir.path().join("log2/events.jsonl")).unwrap();
    assert_eq!(kinds(&second), [Kind::Clear, Kind::Stop]);
    assert_eq!(second[0].id, first.last().unwrap().id);
    assert_eq!(second[0].model.as_deref(), Some("second"));
}

#[test]
fn a_bad_reload_keeps_the_old_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let reload = || Err("o.toml:3: unknown key".into());
    run_scripts(device(dir.path(), ""), vec![Ok(".rooo")], reload);
    let events = log(dir.path());
    assert_eq!(kinds(&events), [Kind::Start, Kind::Error, Kind::Raise, Kind::Stop]);
    let message = events[1].message.as_ref().unwrap();
    assert!(message.contains("the old config and model stay: o.toml:3: unknown key"), "{message}");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let reload = move || {
        let mut config = device(&path, "");
        config.events.log = "/dev/null/events.jsonl".into();
        Ok((config, judge("second")))
    };
    run_scripts(device(dir.path(), ""), vec![Ok(".rooo")], reload);
    let events = log(dir.path());
    assert_eq!(kinds(&events), [Kind::Start, Kind::Error, Kind::Raise, Kind::Stop]);
    assert_eq!(events[2].model.as_deref(), Some("first"));
}

#[test]
fn ids_differ_between_runs() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), "ooo");
    run(config(dir.path(), ""));
    run(config(dir.path(), ""));
    let ids: Vec<_> = log(dir.path()).into_iter().filter(|e| e.event == Kind::Raise).map(|e| e.id).collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
}
