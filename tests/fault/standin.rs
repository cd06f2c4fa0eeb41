//! Faults that a device must have, on a camera and a judge that stand in for it.

use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use image::{Rgb, RgbImage};
use outlierd::internals::camera::{self, Frame, FrameSource};
use outlierd::internals::config::{self, Config};
use outlierd::internals::model::Verdict;
use outlierd::internals::watch::events::{self, Event, Kind};
use outlierd::internals::watch::service::{Command, Notifier};
use outlierd::internals::watch::{Judge, JudgeError, Watch};

use crate::rig::{count, messages};

/// Dark pictures are inliers; green ones cannot be judged.
struct Brightness;

impl Judge for Brightness {
    fn judge(&mut self, picture: &RgbImage, threshold: f64) -> Result<Verdict, JudgeError> {
        let [red, green, _] = picture.get_pixel(0, 0).0;
        if green > 0 {
            return Err(JudgeError("it is green".into()));
        }
        let p = 1.0 - f64::from(red) / 255.0;
        Ok(Verdict::of(p, p, threshold))
    }

    fn threshold(&self) -> f64 {
        0.5
    }

    fn model_name(&self) -> &str {
        "brightness"
    }
}

/// What the camera does next.
#[derive(Clone, Copy)]
enum Step {
    Dark,
    Bright,
    Green,
    Stall,
    Damaged,
    Lost(&'static str),
    /// Something happens outside: 0, 1, ... are the test's.
    Outside(fn(&Path)),
}

struct Scripted {
    script: std::vec::IntoIter<Step>,
    dir: std::path::PathBuf,
    commands: Sender<Command>,
}

impl FrameSource for Scripted {
    fn next(&mut self, deadline: Instant) -> Result<Option<Frame>, camera::Error> {
        let origin = "scripted".to_owned();
        let colour = loop {
            match self.script.next() {
                Some(Step::Dark) => break [20, 0, 0],
                Some(Step::Bright) => break [240, 0, 0],
                Some(Step::Green) => break [0, 255, 0],
                Some(Step::Outside(act)) => act(&self.dir),
                Some(Step::Stall) => {
                    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
                    return Err(camera::Error::Timeout { origin, reason: String::new() });
                }
                Some(Step::Damaged) => return Err(camera::Error::Dropped { origin, reason: "damaged".into() }),
                Some(Step::Lost(reason)) => return Err(camera::Error::Lost { origin, reason: reason.into() }),
                None => {
                    self.commands.send(Command::Stop).unwrap();
                    break [20, 0, 0];
                }
            }
        };
        let picture = RgbImage::from_pixel(4, 4, Rgb(colour));
        Ok(Some(Frame { picture, jpeg: None, sequence: 0, source: origin }))
    }

    fn describe(&self) -> String {
        "scripted".into()
    }
}

/// Runs the scripts, one for each time that the camera is opened.
fn run(more: &str, scripts: Vec<Vec<Step>>) -> Vec<Event> {
    run_with("300ms", more, scripts)
}

fn run_with(lost_after: &str, more: &str, scripts: Vec<Vec<Step>>) -> Vec<Event> {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[camera]\nsource = \"v4l:/dev/video0\"\ninterval = \"1ms\"\nlost-after = \"{lost_after}\"\n[model]\npath = \"m\"\n\
         [events]\nlog = \"{0}/events.jsonl\"\nsnapshots = \"{0}/snapshots\"\n{more}",
        dir.path().display()
    );
    let config = Config::parse(&dir.path().join("o.toml"), &text).unwrap();
    let (sender, commands) = channel();
    let mut scripts = scripts.into_iter();
    let open = |_: &config::Camera| {
        let script = scripts.next().expect("opened more often than the test says").into_iter();
        Ok(Scripted { script, dir: dir.path().to_owned(), commands: sender.clone() })
    };
    let reload = || Err("not in this test".to_owned());
    let watch: Watch<'_, Brightness, Scripted> =
        Watch { config, judge: Brightness, open_camera: Box::new(open), reload: Box::new(reload), observe: None };
    watch.run(&commands, &mut Notifier::from_env()).unwrap();
    events::read(&dir.path().join("events.jsonl")).unwrap()
}

fn kinds(events: &[Event]) -> Vec<Kind> {
    events.iter().map(|event| event.event).collect()
}

#[test]
fn fault_a_format_that_changes_under_way_is_a_lost_camera_that_is_opened_anew() {
    let changed = Step::Lost("its format changed from 640x480 YUYV to 1920x1080 YUYV");
    // Told at once: however late the watch looks again, the camera is not found before it is lost.
    let events = run_with("1ns", "", vec![vec![Step::Dark, changed], vec![Step::Bright; 3]]);
    assert_eq!(kinds(&events), [Kind::Start, Kind::CameraLost, Kind::CameraFound, Kind::Raise, Kind::Stop]);
    assert!(events[1].message.as_ref().unwrap().contains("its format changed"), "{events:?}");
}

#[test]
fn fault_a_camera_that_stalls_while_an_event_stands_keeps_it() {
    let script = [vec![Step::Bright; 3], vec![Step::Stall; 4]].concat();
    let events = run("", vec![script, vec![Step::Bright, Step::Dark, Step::Dark, Step::Dark, Step::Dark, Step::Dark]]);
    let expected = [Kind::Start, Kind::Raise, Kind::CameraLost, Kind::CameraFound, Kind::Clear, Kind::Stop];
    assert_eq!(kinds(&events), expected);
    assert_eq!(events[1].id, events[4].id);
    assert_eq!(events[4].frames, Some(4));
}

#[test]
fn fault_damaged_and_unjudgeable_frames_neither_raise_nor_clear() {
    use Step::{Bright, Damaged, Dark, Green};
    let script = vec![Bright, Damaged, Bright, Green, Bright, Green, Damaged, Dark, Dark, Green, Dark, Dark, Dark];
    let events = run("", vec![script]);
    assert_eq!((count(&events, Kind::Raise), count(&events, Kind::Clear)), (1, 1));
    let raise = events.iter().find(|event| event.event == Kind::Raise).unwrap();
    assert_eq!(raise.frames, Some(3));
    assert_eq!(messages(&events).len(), 5);
}

/// For weeks, so to speak: more events than wait in memory. What is given up is told.
#[test]
fn fault_events_that_are_given_up_on_a_full_disk_are_counted_in_the_log() {
    let flips = 700;
    let block: fn(&Path) = |dir| {
        std::fs::rename(dir.join("events.jsonl"), dir.join("events.jsonl.1")).unwrap();
        std::fs::create_dir(dir.join("events.jsonl")).unwrap();
    };
    let free: fn(&Path) = |dir| std::fs::remove_dir(dir.join("events.jsonl")).unwrap();
    let script = [
        vec![Step::Dark, Step::Outside(block)],
        [Step::Bright, Step::Dark].repeat(flips),
        vec![Step::Outside(free), Step::Dark, Step::Dark],
    ]
    .concat();
    let events = run("keep-snapshots = 1\n[decision]\nraise-after = 1\nclear-after = 1\n", vec![script]);
    let written = count(&events, Kind::Raise) + count(&events, Kind::Clear);
    assert!(written < 2 * flips && written >= events::MAX_PENDING - 100, "{written}");
    let told = messages(&events);
    let lost = 2 * flips - written;
    assert!(told.iter().any(|message| message.starts_with(&format!("{lost} events were given up: "))), "{told:?}");
}

/// The hook's thread ends in its own time; the watch does not ask it.
#[test]
fn fault_nothing_that_is_slow_outside_keeps_a_frame_waiting() {
    let hook = "hook = [\"/bin/sh\", \"-c\", \"sleep 1000\"]\n[decision]\nraise-after = 1\nclear-after = 1\n";
    let events = run(hook, vec![[Step::Bright, Step::Dark].repeat(50)]);
    assert_eq!((count(&events, Kind::Raise), count(&events, Kind::Clear)), (50, 50));
    // A watch that waited for its hook would never have so many events ahead of it.
    assert!(messages(&events).iter().any(|message| message.contains("64 events wait already")), "{events:?}");
}
