//! What lets a watch go on for months: the change gate, drift, and learning from false alarms.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::common::daemon::{outlierd, text, world};
use image::{Rgb, RgbImage};
use outlierd::internals::camera;
use outlierd::internals::cli::demo::scene::Scene;
use outlierd::internals::config::Config;
use outlierd::internals::model::Model;
use outlierd::internals::model::Verdict;
use outlierd::internals::watch::events::{self, Event, Kind};
use outlierd::internals::watch::service::Notifier;
use outlierd::internals::watch::{Judge, JudgeError, Summary, Watch};

/// Dark pictures are inliers. Counts what it judges.
struct Brightness {
    judged: Arc<AtomicU64>,
}

impl Judge for Brightness {
    fn judge(&mut self, picture: &RgbImage, threshold: f64) -> Result<Verdict, JudgeError> {
        self.judged.fetch_add(1, Ordering::Relaxed);
        let [red, green, _] = picture.get_pixel(0, 0).0;
        if green > 200 {
            return Err(JudgeError("it is green".into()));
        }
        let p = 1.0 - f64::from(red) / 255.0;
        Ok(Verdict::of(p * 10.0, p, threshold))
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

/// However long the frames take, only a change has one judged.
const GATE: &str = "change-threshold = 4.0\njudge-at-least-every = \"1h\"";

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

    let (gated, judged) = run(config(dir.path(), GATE, ""));
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
    let (summary, judged) = run(config(dir.path(), GATE, "[decision]\nraise-after = 10\n"));
    assert_eq!((summary.raised, summary.cleared, judged), (1, 0, 11));
    assert_eq!(kinds(&log(dir.path())), [Kind::Start, Kind::Raise, Kind::Stop]);
}

#[test]
fn a_frame_that_cannot_be_judged_is_not_taken_for_a_judged_one() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("frames"), "..gggg...");
    let (summary, judged) = run(config(dir.path(), GATE, ""));
    assert_eq!(summary, Summary { frames: 2, skipped: 3, dropped: 4, raised: 0, cleared: 0 });
    assert_eq!(judged, 6);
}

/// A judge that reads its score from the picture and keeps the normals' scores 0 to 255.
struct Shade {
    normal: Vec<f64>,
}

impl Judge for Shade {
    fn judge(&mut self, picture: &RgbImage, threshold: f64) -> Result<Verdict, JudgeError> {
        let score = f64::from(picture.get_pixel(0, 0)[0]);
        Ok(Verdict::of(score, (score + 1.0) / 257.0, threshold))
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

/// A gauge of a metrics file.
fn figure(file: &Path, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("{instance=\"o\"} "))?;
    Some(line.parse().unwrap())
}

#[test]
fn drift_and_its_end_are_events_and_outliers_are_not_drift() {
    let spread = |at: u32| (at * 97 % 256) as u8;
    let low = |at: u32| 3 + (at * 97 % 60) as u8;
    let frames = (0..240).map(spread).chain((240..720).map(low)).chain((720..1000).map(spread));
    let dir = tempfile::tempdir().unwrap();
    shades(&dir.path().join("frames"), frames.clone());
    let figures = dir.path().join("m.prom");
    let figure = |name: &str| figure(&figures, name);
    let drift = format!("metrics = {figures:?}\n[decision]\nraise-after = 3\n[drift]\nwindow = 120\n");
    let normal: Vec<f64> = (0..256).map(f64::from).collect();
    run_shades(config(dir.path(), "", &drift), Shade { normal: normal.clone() });
    assert_eq!(figure("outlierd_drift"), Some(0.0));
    for name in ["outlierd_drift_mean_rank", "outlierd_drift_mean_p"] {
        assert!((figure(name).unwrap() - 0.5).abs() < 0.1, "{name} {:?}", figure(name));
    }
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
    run_shades(config(dir.path(), "", &drift), Shade { normal: Vec::new() });
    assert_eq!(kinds(&log(dir.path())), [Kind::Start, Kind::Stop]);
    for name in ["outlierd_drift", "outlierd_drift_mean_rank", "outlierd_drift_mean_p"] {
        assert_eq!(figure(name), None, "{name}");
    }
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

/// A lamp that loses a fifth of its light, and one that keeps it.
#[test]
fn a_lamp_that_dims_slowly_is_drift_before_it_is_a_lasting_outlier() {
    const FRAMES: usize = 1400;
    let frames = tempfile::tempdir().unwrap();
    let (steady, dimming) = (frames.path().join("steady"), frames.path().join("dimming"));
    let mut scene = later_scene();
    for (folder, loss, count) in [(&steady, 0.0, 600), (&dimming, 0.2, FRAMES)] {
        std::fs::create_dir(folder).unwrap();
        for at in 0..count {
            let light = 1.0 - loss * at as f32 / FRAMES as f32;
            let mut picture = scene.frame(None);
            picture.pixels_mut().for_each(|pixel| pixel.0 = pixel.0.map(|value| (f32::from(value) * light) as u8));
            picture.save(folder.join(format!("{at:05}.png"))).unwrap();
        }
    }
    let figures = frames.path().join("m.prom");
    let drift = format!("metrics = {figures:?}\n[drift]\nwindow = 60\n");
    let figure = |name: &str| figure(&figures, name);
    let place = Place::new(&steady, "", "", &drift);
    place.run();
    assert!(!place.kinds().contains(&Kind::Drift), "{:?}", log(place.dir.path()));
    assert_eq!(figure("outlierd_drift"), Some(0.0));
    assert!(figure("outlierd_drift_mean_rank") > Some(0.2), "{:?}", figure("outlierd_drift_mean_rank"));

    let place = Place::new(&dimming, "", "", &drift);
    place.run();
    let events = log(place.dir.path());
    let kinds = kinds(&events);
    println!("{kinds:?}");
    let drifted = kinds.iter().position(|kind| *kind == Kind::Drift).expect("no drift");
    let lasting = kinds.iter().rposition(|kind| *kind == Kind::Raise).expect("no outlier");
    assert!(!kinds[lasting..].contains(&Kind::Clear) && drifted < lasting, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Drift).count(), 1);
    assert_eq!(figure("outlierd_drift"), Some(1.0));
    assert!(figure("outlierd_drift_mean_rank") < Some(0.3), "{:?}", figure("outlierd_drift_mean_rank"));
    assert!(figure("outlierd_drift_mean_p") < Some(0.3), "{:?}", figure("outlierd_drift_mean_p"));
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
    let hook = "hook = [\"/bin/sh\", \"-c\", \"nice >> $0.nice\", \"HERE\"]\n";
    let place = Place::new(frames.path(), GATE, "nice = 10\nduty = 0.5", hook);
    let config = std::fs::read_to_string(place.path("o.toml")).unwrap();
    let here = place.path("hook");
    std::fs::write(place.path("o.toml"), config.replace("HERE", here.to_str().unwrap())).unwrap();
    let said = place.run();
    assert!(said.contains("9 frames, 21 unchanged, 0 dropped, 1 event raised, 1 cleared"), "{said}");
    assert_eq!(place.kinds(), [Kind::Start, Kind::Raise, Kind::Clear, Kind::Stop]);

    // A run that lasts until its first hook has ended.
    let config = std::fs::read_to_string(place.path("o.toml")).unwrap();
    std::fs::write(place.path("o.toml"), config.replace("\"1ms\"", "\"1h\"")).unwrap();
    let _ = std::fs::remove_file(place.path("hook.nice"));
    let mut daemon = outlierd().args(["run", "--config"]).arg(place.path("o.toml")).spawn().unwrap();
    let nice = || std::fs::read_to_string(place.path("hook.nice")).unwrap_or_default();
    let started = Instant::now();
    while !nice().ends_with('\n') && started.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let nice = nice();
    assert!(!nice.is_empty() && nice.lines().all(|line| line.parse::<i32>().unwrap() >= 10), "{nice}");
}

fn json_lines(output: &Output) -> Vec<serde_json::Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every frame with p < 0.4 is an event: many false alarms, and the object.
fn with_false_alarms() -> Place {
    let decision = "[decision]\nthreshold = 0.4\nraise-after = 1\nclear-after = 1\n";
    let place = Place::new(&world().join("frames"), "", "", decision);
    place.run();
    place
}

#[test]
fn false_alarms_are_learnt_once_and_the_object_never() {
    let place = with_false_alarms();
    let before = std::fs::read(place.path("model.outlierd")).unwrap();
    let list = json_lines(&place.command(&["learn", "--list", "--json"]));
    assert!(list.len() > 5 && list.iter().all(|event| event["snapshot_exists"] == true && event["learnt"] == false));

    let learnt = place.command(&["learn", "--since", "1h", "--json"]);
    assert!(learnt.status.success(), "{}", text(&learnt.stderr));
    let rows = json_lines(&learnt);
    assert_eq!(rows.len(), list.len());
    let value = |row: &serde_json::Value, name: &str| row[name].as_f64().unwrap();
    // The object is an event of its own where the frame before it was no false alarm.
    let (object, alarms): (Vec<_>, Vec<_>) = rows.iter().zip(&list).partition(|(row, _)| row["taken"] == "too-far");
    let lowest = alarms.iter().map(|(row, _)| value(row, "score")).fold(0.0, f64::min);
    assert!(object.len() <= 1 && object.iter().all(|(row, _)| value(row, "score") < 10.0 * lowest), "{object:?}");
    let new = alarms.len();
    for (row, event) in alarms {
        assert!(row["taken"] == "learnt" && row["score_of"] == "live", "{row}");
        for (ours, logged) in [("score", "score"), ("p_before", "p")] {
            assert!((value(row, ours) - value(event, logged)).abs() < 1e-9, "{row} {event}");
        }
        assert!(value(row, "p_after") > value(row, "p_before"), "{row}");
        assert_eq!(row["outlier"] == false, value(row, "p_after") >= 0.4, "{row}");
    }
    assert_eq!(std::fs::read(place.path("model.outlierd.bak")).unwrap(), before);
    let model = Model::load(&place.path("model.outlierd")).unwrap();
    assert_eq!(model.records.learnt.len(), new);
    assert_eq!(model.normal_scores().len(), 200);
    let shown = json_lines(&outlierd().args(["inspect", "--json"]).arg(place.path("model.outlierd")).output().unwrap());
    assert_eq!(shown[0]["n_learnt"], new);

    let bytes = std::fs::read(place.path("model.outlierd")).unwrap();
    let again = place.command(&["learn", "--since", "1h"]);
    assert!(again.status.success() && text(&again.stdout).contains("the model is as it was"));
    assert_eq!(std::fs::read(place.path("model.outlierd")).unwrap(), bytes);
    assert_eq!(std::fs::read(place.path("model.outlierd.bak")).unwrap(), before);

    place.run();
    let last = json_lines(&place.command(&["learn", "--last", "--json"]));
    assert!(last[0]["score_of"] == "live", "{last:?}");

    let object = Place::new(&world().join("frames"), "", "", "");
    object.run();
    let refused = object.command(&["learn", "--last"]);
    assert_eq!(refused.status.code(), Some(65));
    let said = text(&refused.stdout);
    assert!(said.contains("far below all") && said.contains("--keep DIR"), "{said}");
    assert_eq!(std::fs::read(object.path("model.outlierd")).unwrap(), before);
}

/// A model that was made after the event did not score it.
#[test]
fn events_of_another_model_are_scored_by_their_snapshots() {
    let place = with_false_alarms();
    let model = Model::load(&place.path("model.outlierd")).unwrap();
    let later = Model { made_at: model.made_at + 1_000_000, ..model };
    later.save(&place.path("model.outlierd")).unwrap();
    let list = json_lines(&place.command(&["learn", "--list", "--json"]));
    let rows = json_lines(&place.command(&["learn", "--since", "1h", "--json"]));
    assert_eq!(rows.len(), list.len());
    for (row, event) in rows.iter().zip(&list) {
        assert_eq!((&row["id"], &row["score_of"]), (&event["id"], &"snapshot".into()));
        println!("live {}, snapshot {}", event["score"], row["score"]);
    }
}

#[test]
fn what_cannot_be_learnt_is_refused_with_a_remedy() {
    let place = with_false_alarms();
    let said = |arguments: &[&str], code: i32| {
        let output = place.command(&[&["learn"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stderr)
    };
    assert!(said(&[], 64).contains("--last"));
    assert!(said(&["nobody"], 66).contains("no event nobody"));
    assert!(said(&["--since", "2999-01-01"], 66).contains("no such event"));
    let last = json_lines(&place.command(&["learn", "--list", "--json"])).pop().unwrap();
    std::fs::remove_file(last["snapshot"].as_str().unwrap()).unwrap();
    assert!(said(&["--last", "--keep", "kept"], 66).contains("its snapshot is gone"));
    assert!(!place.path("model.outlierd.bak").exists());
}

#[test]
fn snapshots_are_kept_for_a_fit_that_knows_them() {
    let place = with_false_alarms();
    let kept = place.path("kept");
    let keep = || place.command(&["learn", "--since", "1h", "--keep", kept.to_str().unwrap()]);
    let first = keep();
    assert!(first.status.success(), "{}", text(&first.stderr));
    let count = std::fs::read_dir(&kept).unwrap().count();
    assert!(count > 5 && text(&first.stdout).contains(&format!("{count} of them new")), "{}", text(&first.stdout));
    assert!(text(&keep().stdout).contains("0 of them new"));
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), count);

    let fit = |more: &str, output: &str| {
        let mut fit = outlierd();
        fit.args(["fit", "--threads", "1", "--normal"]).arg(world().join("normal")).arg(more).arg(&kept);
        let fit = fit.arg("-o").arg(place.path(output)).output().unwrap();
        assert!(fit.status.success(), "{}", text(&fit.stderr));
        Model::load(&place.path(output)).unwrap()
    };
    assert_eq!(fit("--normal", "more.outlierd").training.n_train as usize, 200 + count);

    // Isotonic calibration keeps normal scores for drift, and learns by a fit alone.
    let isotonic = fit("--outliers", "model.outlierd");
    assert_eq!(isotonic.normal_scores().len(), 200);
    let bytes = std::fs::read(place.path("model.outlierd")).unwrap();
    assert_eq!(bytes[8..10], [4, 0]);
    let refused = place.command(&["learn", "--last"]);
    assert_eq!(refused.status.code(), Some(65));
    assert!(text(&refused.stderr).contains("--keep DIR"));
    assert_eq!(std::fs::read(place.path("model.outlierd")).unwrap(), bytes);
    assert!(!place.run().contains("drift is not watched"));

    // As older versions wrote it.
    let older = Model { records: Default::default(), joined: None, ..isotonic };
    older.save(&place.path("model.outlierd")).unwrap();
    assert_eq!(std::fs::read(place.path("model.outlierd")).unwrap()[8..10], [1, 0]);
    let said = place.run();
    assert!(said.contains("drift is not watched for: the model keeps no scores of normals"), "{said}");
}
