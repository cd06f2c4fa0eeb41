//! What lets a watch go on for months: the change gate, drift, and learning from false alarms.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};

use image::{Rgb, RgbImage};
use outlierd::camera;
use outlierd::cli::demo::scene::Scene;
use outlierd::config::Config;
use outlierd::watch::events::{self, Event, Kind};
use outlierd::watch::service::Notifier;
use outlierd::watch::{Judge, JudgeError, Judgement, Summary, Watch};

/// Dark pictures are inliers. Counts what it judges.
struct Brightness {
    judged: Arc<AtomicU64>,
}

impl Judge for Brightness {
    fn judge(&mut self, picture: &RgbImage) -> Result<Judgement, JudgeError> {
        self.judged.fetch_add(1, Ordering::Relaxed);
        let [red, green, _] = picture.get_pixel(0, 0).0;
        if green > 200 {
            return Err(JudgeError("it is green".into()));
        }
        let p = 1.0 - f64::from(red) / 255.0;
        Ok(Judgement { score: p * 10.0, p })
    }

    fn threshold(&self) -> f64 {
        0.5
    }

    fn model_name(&self) -> &str {
        "brightness"
    }
}

/// `.` dark, `:` a little lighter, `o` bright, `g` not to be judged.
fn pictures(dir: &Path, frames: &str) {
    std::fs::create_dir_all(dir).unwrap();
    for (number, frame) in frames.chars().enumerate() {
        let colour = match frame {
            '.' => [20, 0, 0],
            ':' => [40, 0, 0],
            'o' => [240, 0, 0],
            _ => [0, 255, 0],
        };
        RgbImage::from_pixel(40, 36, Rgb(colour)).save(dir.join(format!("{number:05}.png"))).unwrap();
    }
}

fn config(dir: &Path, camera: &str, more: &str) -> Config {
    let text = format!(
        "[camera]\nsource = \"folder:{0}/frames\"\ninterval = \"1ms\"\n{camera}\n[model]\npath = \"m\"\n\
         [events]\nlog = \"{0}/events.jsonl\"\nsnapshots = \"{0}/snapshots\"\n{more}",
        dir.display()
    );
    let config = Config::parse(&dir.join("o.toml"), &text).unwrap();
    config.check().unwrap();
    config
}

/// What the run did, and how many frames the judge saw.
fn run(config: Config) -> (Summary, u64) {
    let (_keep, commands) = channel();
    let judged = Arc::new(AtomicU64::new(0));
    let watch = Watch {
        config,
        judge: Brightness { judged: judged.clone() },
        open_camera: Box::new(camera::open),
        reload: Box::new(|| Err("not in this test".into())),
        observe: None,
    };
    let summary = watch.run(&commands, &mut Notifier::from_env()).unwrap();
    (summary, judged.load(Ordering::Relaxed))
}

fn log(dir: &Path) -> Vec<Event> {
    events::read(&dir.join("events.jsonl")).unwrap()
}

fn kinds(events: &[Event]) -> Vec<Kind> {
    events.iter().map(|event| event.event).collect()
}

#[test]
fn an_unchanged_picture_is_not_judged_again_and_events_are_the_same() {
    let frames = "......ooooooo........::::..oo....";
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), frames);
    let (all, judged_all) = run(config(dir.path(), "", ""));
    assert_eq!((all.frames, all.skipped, judged_all), (33, 0, 33));
    let with = log(dir.path());
    std::fs::remove_file(dir.path().join("events.jsonl")).unwrap();

    let gate = "change-threshold = 4.0\njudge-at-least-every = \"1h\"";
    let (gated, judged) = run(config(dir.path(), gate, ""));
    // Judged: 1 at first, 3 to the raise, 5 to the clear, 1 lighter, 1 darker, 2 that only look like an event, 1 back.
    assert_eq!((gated.frames, judged), (14, 14));
    assert_eq!(gated.frames + gated.skipped, all.frames);
    assert_eq!((gated.raised, gated.cleared), (all.raised, all.cleared));
    assert_eq!(kinds(&log(dir.path())), kinds(&with));
    assert_eq!(log(dir.path())[1].frames, Some(3));
}

#[test]
fn an_object_that_appears_and_stands_still_is_raised_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), &format!(".....{}", "o".repeat(40)));
    let (summary, judged) = run(config(dir.path(), "change-threshold = 4.0", "[decision]\nraise-after = 10\n"));
    assert_eq!((summary.raised, summary.cleared, judged), (1, 0, 11));
    assert_eq!(kinds(&log(dir.path())), [Kind::Start, Kind::Raise, Kind::Stop]);
}

#[test]
fn a_frame_that_cannot_be_judged_is_not_taken_for_a_judged_one() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), "..gggg...");
    let (summary, judged) = run(config(dir.path(), "change-threshold = 4.0", ""));
    assert_eq!(summary, Summary { frames: 2, skipped: 3, dropped: 4, raised: 0, cleared: 0 });
    assert_eq!(judged, 6);
}

/// A judge that reads its score from the picture and keeps the normals' scores 0 to 255.
struct Shade {
    normal: Vec<f64>,
}

impl Judge for Shade {
    fn judge(&mut self, picture: &RgbImage) -> Result<Judgement, JudgeError> {
        let score = f64::from(picture.get_pixel(0, 0)[0]);
        Ok(Judgement { score, p: (score + 1.0) / 257.0 })
    }

    fn threshold(&self) -> f64 {
        0.01
    }

    fn model_name(&self) -> &str {
        "shade"
    }

    fn normal_scores(&self) -> &[f64] {
        &self.normal
    }
}

fn shades(dir: &Path, shades: impl Iterator<Item = u8>) {
    std::fs::create_dir_all(dir).unwrap();
    for (number, shade) in shades.enumerate() {
        RgbImage::from_pixel(2, 2, Rgb([shade, 0, 0])).save(dir.join(format!("{number:05}.bmp"))).unwrap();
    }
}

fn run_shades(config: Config, judge: Shade) {
    let (_keep, commands) = channel();
    let watch = Watch {
        config,
        judge,
        open_camera: Box::new(camera::open),
        reload: Box::new(|| Err("not in this test".into())),
        observe: None,
    };
    watch.run(&commands, &mut Notifier::from_env()).unwrap();
}

#[test]
fn drift_and_its_end_are_events_and_outliers_are_not_drift() {
    let spread = |at: u32| (at * 97 % 256) as u8;
    let low = |at: u32| 3 + (at * 97 % 60) as u8;
    let frames = (0..240).map(spread).chain((240..720).map(low)).chain((720..1000).map(spread));
    let dir = tempfile::tempdir().unwrap();
    shades(&dir.path().join("frames"), frames.clone());
    let drift = "[decision]\nraise-after = 3\n[drift]\nwindow = 120\n";
    let normal: Vec<f64> = (0..256).map(f64::from).collect();
    run_shades(config(dir.path(), "", drift), Shade { normal: normal.clone() });
    let events = log(dir.path());
    assert_eq!(kinds(&events), [Kind::Start, Kind::Drift, Kind::DriftClear, Kind::Stop]);
    let (begun, over) = (&events[1], &events[2]);
    assert!(begun.id.is_some() && begun.id == over.id && over.duration_s.is_some());
    assert!(begun.p.unwrap() < 0.25 && begun.score.unwrap() < 60.0 && begun.frames == Some(120), "{begun:?}");
    let message = begun.message.as_ref().unwrap();
    assert!(message.contains("in 3 windows of 120 frames in a row") && message.contains("outlierd learn"));

    // The same frames as part of an event, which the first of them raise.
    std::fs::remove_file(dir.path().join("events.jsonl")).unwrap();
    let raised = "[decision]\nthreshold = 0.24\n[drift]\nwindow = 120\n";
    run_shades(config(dir.path(), "", raised), Shade { normal });
    let events = log(dir.path());
    assert!(!kinds(&events).contains(&Kind::Drift) && kinds(&events).contains(&Kind::Raise), "{events:?}");

    std::fs::remove_file(dir.path().join("events.jsonl")).unwrap();
    run_shades(config(dir.path(), "", drift), Shade { normal: Vec::new() });
    assert_eq!(kinds(&log(dir.path())), [Kind::Start, Kind::Stop]);
}

fn outlierd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlierd"));
    command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A scene, a model of it and frames with an object, made once by `demo`.
fn world() -> &'static Path {
    static WORLD: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = WORLD.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let made = outlierd().args(["demo", "--dir"]).arg(dir.path()).output().unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        dir
    });
    dir.path()
}

/// The world's scene, later than the frames that `demo` has drawn.
fn later_scene() -> Scene {
    let mut scene = Scene::new(1);
    (0..300).for_each(|_| drop(scene.frame(None)));
    scene
}

/// A folder with a copy of the world's model and a config.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(frames: &Path, camera: &str, model: &str, more: &str) -> Self {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        std::fs::copy(world().join("model.outlierd"), place.path("model.outlierd")).unwrap();
        let text = format!(
            "[camera]\nsource = \"folder:{1}\"\ninterval = \"1ms\"\n{camera}\n[model]\npath = \"{0}/model.outlierd\"\n\
             threads = 1\n{model}\n[events]\nlog = \"{0}/events.jsonl\"\nsnapshots = \"{0}/snapshots\"\n{more}",
            place.dir.path().display(),
            frames.display()
        );
        std::fs::write(place.path("o.toml"), text).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Output {
        outlierd().args(arguments).arg("--config").arg(self.path("o.toml")).output().unwrap()
    }

    fn run(&self) -> String {
        let run = self.command(&["run"]);
        assert!(run.status.success(), "{}", text(&run.stderr));
        text(&run.stderr)
    }

    fn kinds(&self) -> Vec<Kind> {
        kinds(&log(self.dir.path()))
    }
}

/// A lamp that loses a third of its light, and one that keeps it.
#[test]
fn a_lamp_that_dims_slowly_is_drift_before_it_is_a_lasting_outlier() {
    const FRAMES: usize = 720;
    let frames = tempfile::tempdir().unwrap();
    let (steady, dimming) = (frames.path().join("steady"), frames.path().join("dimming"));
    let mut scene = later_scene();
    for (folder, loss, count) in [(&steady, 0.0, FRAMES / 2), (&dimming, 0.35, FRAMES)] {
        std::fs::create_dir(folder).unwrap();
        for at in 0..count {
            let light = 1.0 - loss * at as f32 / FRAMES as f32;
            let mut picture = scene.frame(None);
            picture.pixels_mut().for_each(|pixel| pixel.0 = pixel.0.map(|value| (f32::from(value) * light) as u8));
            picture.save(folder.join(format!("{at:05}.png"))).unwrap();
        }
    }
    let drift = "[drift]\nwindow = 60\n";
    let place = Place::new(&steady, "", "", drift);
    place.run();
    assert!(!place.kinds().contains(&Kind::Drift), "{:?}", log(place.dir.path()));

    let place = Place::new(&dimming, "", "", drift);
    place.run();
    let events = log(place.dir.path());
    let kinds = kinds(&events);
    println!("{kinds:?}");
    let drifted = kinds.iter().position(|kind| *kind == Kind::Drift).expect("no drift");
    let lasting = kinds.iter().rposition(|kind| *kind == Kind::Raise).expect("no outlier");
    assert!(!kinds[lasting..].contains(&Kind::Clear) && drifted < lasting, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Drift).count(), 1);
}

#[test]
fn the_daemon_skips_a_still_scene_and_keeps_its_manners() {
    let frames = tempfile::tempdir().unwrap();
    let mut scene = later_scene();
    let (empty, object) = (scene.frame(None), scene.frame(Some(0.5)));
    for at in 0..30 {
        let picture = if (10..20).contains(&at) { &object } else { &empty };
        picture.save(frames.path().join(format!("{at:05}.png"))).unwrap();
    }
    let camera = "change-threshold = 4.0\njudge-at-least-every = \"1h\"";
    let hook = "hook = [\"/bin/sh\", \"-c\", \"nice >> $0.nice\", \"HERE\"]\n";
    let place = Place::new(frames.path(), camera, "nice = 10\nduty = 0.5", hook);
    let config = std::fs::read_to_string(place.path("o.toml")).unwrap();
    let here = place.path("hook");
    std::fs::write(place.path("o.toml"), config.replace("HERE", here.to_str().unwrap())).unwrap();
    let said = place.run();
    assert!(said.contains("9 frames, 21 unchanged, 0 dropped, 1 event raised, 1 cleared"), "{said}");
    assert_eq!(place.kinds(), [Kind::Start, Kind::Raise, Kind::Clear, Kind::Stop]);
    let nice = std::fs::read_to_string(place.path("hook.nice")).unwrap();
    assert!(nice.lines().all(|line| line.parse::<i32>().unwrap() >= 10), "{nice}");
}
