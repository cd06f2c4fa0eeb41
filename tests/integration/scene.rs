//! History, alarm budget, observe socket and `status` with the real daemon.

use std::path::Path;
use std::time::{Duration, Instant};

use outlierd::internals::watch::events::Kind;
use outlierd::internals::watch::history::{Entry, Reader};
use rustix::process::Signal;
use serde_json::Value;

use crate::common::daemon::{Daemon, PATIENCE, Place, outlierd, text, world};

const FAST: &str = "interval = \"5ms\"\nloop = true";

/// A place whose daemon answers at `sock`, and whose frames are the world's normal or odd ones.
fn place(frames: std::ops::Range<u32>, more: &str) -> Place {
    let mut place = Place::unconfigured();
    place.frames = place.path("frames");
    std::fs::create_dir(&place.frames).unwrap();
    for n in frames {
        let name = format!("{n:04}.png");
        std::fs::copy(world().join("frames").join(&name), place.frames.join(&name)).unwrap();
    }
    place.configure(FAST, &format!("[observe]\nsocket = \"sock\"\n{more}"));
    place
}

fn status(place: &Place) -> (i32, Value, String) {
    let json = place.run(&["status", "--json"]);
    let people = text(&place.run(&["status"]).stdout);
    (json.status.code().unwrap(), serde_json::from_slice(&json.stdout).unwrap(), people)
}

/// Asks until the answer is as wanted.
fn until(place: &Place, what: &str, wanted: impl Fn(i32, &Value) -> bool) -> (Value, String) {
    let started = Instant::now();
    loop {
        let (code, json, people) = status(place);
        if wanted(code, &json) {
            return (json, people);
        }
        assert!(started.elapsed() < PATIENCE, "not {what}: {code} {json}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn history(path: &Path) -> (Vec<(i64, u16, bool)>, u64) {
    let mut reader = Reader::open(path, None).unwrap();
    let frames = (&mut reader).filter_map(|entry| match entry {
        Entry::Frame { frame, .. } => Some((frame.time, frame.surprisal.0, frame.raised)),
        Entry::TakenBack { .. } => None,
    });
    let frames = frames.collect();
    (frames, reader.skipped())
}

fn kill(daemon: Daemon) {
    daemon.signal(Signal::KILL);
    drop(daemon);
}

#[test]
fn status_tells_running_raised_settling_stopped_daemons_and_one_that_does_not_answer() {
    let place = place(0..3, "");
    assert_eq!(place.run(&["status"]).status.code(), Some(3));
    let daemon = place.spawn();
    daemon.notified("READY=1");
    let (json, people) = until(&place, "normal", |code, json| code == 0 && json["counts"]["frames"].as_u64() > Some(3));
    assert_eq!((json["state"].as_str(), json["threshold"]["origin"].as_str()), (Some("normal"), Some("model")));
    assert!(people.contains("o: normal") && people.contains("the model's own"), "{people}");

    // Nothing is below 1 but everything is below 2: every frame is an outlier.
    place.configure(FAST, "[observe]\nsocket = \"sock\"\n[decision]\nthreshold = 1.0\nraise-after = 1\n");
    daemon.signal(Signal::HUP);
    let (json, people) = until(&place, "raised", |code, json| code == 1 && !json["event"]["id"].is_null());
    assert_eq!(json["threshold"]["origin"], "config");
    assert!(people.contains("o: OUTLIER") && people.contains("by the config"), "{people}");
    daemon.wait_for("raise", |events| events.iter().any(|event| event.event == Kind::Raise));

    place.configure(FAST, "[observe]\nsocket = \"sock\"\n[decision]\nfalse-alarms = \"1/day\"\n");
    daemon.signal(Signal::HUP);
    let (json, people) = until(&place, "settling", |_, json| json["threshold"]["origin"] == "settling");
    assert_eq!(json["budget"]["false_alarms"], "1/day");
    assert!(people.contains("settling for another") && people.contains("while the scene is learnt"), "{people}");
    let settling = |event: &outlierd::internals::watch::events::Event| {
        event.event == Kind::Threshold && event.message.as_ref().is_some_and(|message| message.contains("settling"))
    };
    daemon.wait_for("threshold event", |events| events.iter().any(settling));
    let check = text(&place.run(&["check"]).stdout);
    assert!(check.contains("budget    ok    1/day, settling for another"), "{check}");

    daemon.signal(Signal::STOP);
    let silent = place.run(&["status"]);
    assert_eq!(silent.status.code(), Some(if text(&silent.stdout).contains("does not answer") { 4 } else { 0 }));
    daemon.signal(Signal::CONT);
    assert_eq!(daemon.stop(Signal::TERM), 0);
    assert_eq!(place.run(&["status"]).status.code(), Some(3));
    assert!(!place.path("sock").exists());
}

#[test]
fn a_lost_camera_is_no_verdict() {
    let place = place(0..3, "");
    place.configure("interval = \"5ms\"\nloop = true\nlost-after = \"100ms\"", "[observe]\nsocket = \"sock\"\n");
    let daemon = place.spawn();
    until(&place, "normal", |code, _| code == 0);
    std::fs::remove_dir_all(&place.frames).unwrap();
    let (json, people) = until(&place, "camera lost", |code, json| code == 4 && json["state"] == "camera-lost");
    assert_eq!(json["camera"]["up"], false);
    assert!(people.contains("camera lost"), "{people}");
    kill(daemon);
    // What a killed daemon leaves is replaced.
    assert!(place.path("sock").exists());
    assert_eq!(place.run(&["status"]).status.code(), Some(3));
}

#[test]
fn killed_daemons_go_on_with_what_they_wrote() {
    let place = place(0..6, "[decision]\nfalse-alarms = \"1/day\"\n");
    let path = place.path("o.history");
    let mut before = Vec::new();
    for round in 0..3 {
        let daemon = place.spawn();
        let pages = || history(&path).0.len() > before.len() + 300;
        let started = Instant::now();
        while !(path.exists() && pages()) {
            assert!(started.elapsed() < PATIENCE, "round {round}: no frames are written");
            std::thread::sleep(Duration::from_millis(100));
        }
        kill(daemon);
        let (now, skipped) = history(&path);
        assert_eq!(now[..before.len()], before[..], "round {round}");
        assert_eq!(skipped, 0);
        before = now;
    }
    let daemon = place.spawn();
    daemon.notified("READY=1");
    daemon.notified("frames");
    assert_eq!(daemon.stop(Signal::TERM), 0);
    // A stop loses nothing.
    let (all, skipped) = history(&path);
    assert!(all.len() > before.len() && skipped == 0 && all[..before.len()] == before[..]);
    let tuned = place.run(&["tune", "--json"]);
    let tuned: Value = serde_json::from_slice(&tuned.stdout).unwrap();
    assert_eq!(tuned["frames"].as_u64(), Some(all.len() as u64));
}

#[test]
fn a_history_that_cannot_be_written_is_told_once_and_the_watch_goes_on() {
    let place = place(0..3, "[history]\npath = \"nowhere/door.history\"\n");
    let daemon = place.spawn();
    let (json, _) = until(&place, "judging", |code, json| code == 0 && json["counts"]["frames"].as_u64() > Some(800));
    assert!(json["last_error"]["message"].as_str().unwrap().contains("nowhere/door.history"), "{json}");
    assert_eq!(daemon.stop(Signal::TERM), 0);
    assert_eq!(place.kinds().iter().filter(|kind| **kind == Kind::Error).count(), 1);
}

#[test]
fn a_budget_needs_a_model_that_tells_rare_from_rarer() {
    let place = place(0..3, "");
    let isotonic = place.path("isotonic");
    let mut fit = outlierd();
    fit.args(["fit", "--normal"]).arg(world().join("normal")).arg("--outliers").arg(&place.frames);
    let fitted = fit.arg("-o").arg(&isotonic).output().unwrap();
    assert!(fitted.status.success(), "{}", text(&fitted.stderr));
    let place = Place { model: isotonic, ..place };
    place.configure(FAST, "[decision]\nfalse-alarms = \"1/day\"\n");
    for command in ["run", "check"] {
        let refused = place.run(&[command]);
        assert_eq!(refused.status.code(), Some(78));
        let said = text(&refused.stdout) + &text(&refused.stderr);
        assert!(said.contains("decision.false-alarms needs a model with conformal calibration"), "{command}: {said}");
    }
}
