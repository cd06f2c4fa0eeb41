//! From a camera to a watch, through the web page alone.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use outlierd::internals::image::{self as pictures, jpeg};
use outlierd::internals::watch::events::Kind;
use rustix::process::{Pid, Signal, kill_process};

use super::page::watched;
use crate::common::browser::{self, Browser};
use crate::common::daemon::{Place, outlierd, world};
use crate::common::page::{Answer, Page};

/// A fit on a machine that has other things to do.
const LONG: Duration = Duration::from_secs(1200);

/// Waits until no job goes on, and gives the page with what came of it.
fn ended(page: &Page) -> Answer {
    let started = Instant::now();
    loop {
        let answer = page.get("/o/teach");
        if !answer.text().contains("id=\"job\"") {
            return answer;
        }
        assert!(started.elapsed() < LONG, "{}", answer.text());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn frames(place: &Place) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place.path("o.teach/normal")).into_iter().flatten().flatten();
    let mut frames: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    frames.sort();
    frames
}

#[test]
fn from_nothing_to_a_raise() {
    let Some(program) = browser::find("page teach") else { return };
    let mut place = Place::unconfigured();
    (place.frames, place.model) = (place.path("camera"), place.path("model.outlierd"));
    std::fs::create_dir(&place.frames).unwrap();
    let copy = |from: String, to: usize| {
        std::fs::copy(world().join(from), place.frames.join(format!("{to:04}.png"))).unwrap();
    };
    (0..200).for_each(|n| copy(format!("normal/{n:04}.png"), n));
    // The object is there.
    (25..45).for_each(|n| copy(format!("frames/{n:04}.png"), 175 + n));
    place.configure("interval = \"1ms\"", "[observe]\nsocket = \"o.sock\"\n");

    let page = Page::of(&place);
    let mut browser = Browser::start(&program);
    browser.open(&format!("http://{}/o/teach", page.address));
    browser.look("teach-empty");
    browser.value(
        "document.querySelector('[name=count]').value = 220; document.querySelector('[name=every]').value = '1ms'",
    );
    browser.click("form[action$='teach/collect'] button");
    browser.wait_for("document.querySelector('.job').textContent.includes('Frames collected: 220.')");
    browser
        .wait_for("[...document.querySelectorAll('.frames img')].filter((it) => it.naturalWidth === 320).length > 3");
    // The newest are first: those with the object, and four without.
    let ticked = "[...document.querySelectorAll('[name=frame]')].filter((it) => it.value >= '000200')";
    assert_eq!(browser.value(&format!("{ticked}.map((it) => it.click()).length")), 20);
    browser.look("teach-frames");
    browser.click("form[action$='teach/throw'] button");
    browser.wait_for("document.getElementById('frames').textContent.startsWith('200 frames')");
    assert_eq!(frames(&place).len(), 200);

    browser.click("form[action$='teach/fit'] button");
    browser.wait_for("document.querySelector('.job')");
    browser.look("teach-fitting");
    assert!(ended(&page).text().contains("The model is fitted."));
    browser.wait_for("document.querySelector('.job').textContent.includes('The model is fitted.')");
    browser.look("teach-fitted");
    assert!(!place.model.exists());
    let report = page.get("/o/teach/report");
    assert!(
        report.header("content-security-policy").unwrap().starts_with("default-src 'none'; style-src 'unsafe-inline';")
    );
    browser.open(&format!("http://{}/o/teach/report", page.address));
    browser.wait_for("document.querySelectorAll('.exhibits figure').length > 3");
    browser.look("report");

    browser.open(&format!("http://{}/o/teach", page.address));
    browser.click("form[action$='teach/check'] button");
    browser.wait_for("document.querySelector('.job').textContent.includes('All is as it should be.')");
    browser.look("teach-checked");
    browser.click("form[action$='take-over'] [name=sure]");
    browser.click("form[action$='take-over'] button");
    browser.wait_for("document.querySelector('.job').textContent.includes('No daemon runs yet')");
    assert_eq!(browser.complaints, [""; 0]);

    let daemon = place.spawn();
    // The log has it before its pictures are there.
    daemon.wait_for("raise", |events| {
        let raise = events.iter().find(|event| event.event == Kind::Raise);
        raise.and_then(|raise| raise.snapshot.as_ref()).is_some_and(|snapshot| snapshot.exists())
    });
    browser.open(&format!("http://{}/o/events", page.address));
    browser.wait_for("document.querySelector('.card img').naturalWidth > 0");
}

#[test]
fn a_running_daemon_gives_its_frames_as_they_came() {
    // Time to spare, in which frames are written.
    let (place, daemon) = watched("interval = \"2s\"", "");
    let page = Page::of(&place);
    let empty = page.get("/o/teach");
    let posted = page.post("/o/teach/collect", &empty, "count=3&every=10ms");
    assert_eq!((posted.status, posted.header("location")), (303, Some("/o/teach")));
    let text = ended(&page).text();
    assert!(text.contains("Frames collected: 3."), "{text}");
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(world().join("frames")).unwrap().map(|it| it.unwrap().path()).collect();
    all.sort();
    let saved: Vec<Vec<u8>> =
        all.iter().map(|path| jpeg::encode(&pictures::read(path).unwrap(), 95).unwrap()).collect();
    for frame in frames(&place) {
        let bytes = std::fs::read(&frame).unwrap();
        assert!(saved.contains(&bytes), "{} is none of the camera's frames", frame.display());
        let name = frame.file_name().unwrap().to_str().unwrap();
        assert_eq!(page.get(&format!("/o/teach/{name}")).body, bytes);
    }

    // One at a time, and it can be ended.
    assert_eq!(page.post("/o/teach/collect", &empty, "count=2000&every=1h").status, 303);
    page.wait_for("/o/teach", "fourth frame", |_| frames(&place).len() == 4);
    let second = page.post("/o/teach/fit", &empty, "");
    assert!(second.status == 422 && second.text().contains("Collecting goes on"), "{}", second.text());
    page.post("/o/teach/cancel", &empty, "");
    let text = ended(&page).text();
    assert!(text.contains("Frames collected: 1. Stopped: it was cancelled."), "{text}");
    for wrong in ["count=0&every=1s", "count=2001&every=1s", "count=1&every=x", ""] {
        assert_eq!(page.post("/o/teach/collect", &empty, wrong).status, 422, "{wrong}");
    }

    let name = frames(&place)[0].file_name().unwrap().to_str().unwrap().to_owned();
    page.post("/o/teach/throw", &empty, &format!("frame={name}&frame=..%2f..%2fo.toml&frame=..jpg"));
    assert!(frames(&place).len() == 3 && place.path("o.toml").exists());
    assert_eq!(page.post("/o/teach/clear", &empty, "").status, 422);
    assert_eq!(frames(&place).len(), 3);
    page.post("/o/teach/clear", &empty, "sure=yes");
    assert_eq!(frames(&place).len(), 0);
    for absent in ["/o/teach/report", &format!("/o/teach/{name}"), "/o/teach/fit.json", "/o/teach/.jpg"] {
        assert_eq!(page.get(absent).status, 404, "{absent}");
    }
    assert_eq!(daemon.stop(Signal::TERM), 0);
}

#[test]
fn a_model_is_taken_over_where_it_fits_the_config() {
    let (place, daemon) = watched("interval = \"20ms\"", "");
    let page = Page::of(&place);
    let empty = page.get("/o/teach");
    std::fs::create_dir(place.path("o.teach")).unwrap();
    std::fs::write(place.path("o.teach/fit.json"), "{}").unwrap();
    std::fs::copy(world().join("model.outlierd"), place.path("o.teach/model.outlierd")).unwrap();
    let old = b"the model of before";
    std::fs::write(&place.model, old).unwrap();
    assert_eq!(page.post("/o/teach/take-over", &empty, "").status, 422);
    page.post("/o/teach/take-over", &empty, "sure=yes");
    let text = ended(&page).text();
    assert!(text.contains("The daemon watches with the new model."), "{text}");
    assert_eq!(std::fs::read(place.path("model.outlierd.bak")).unwrap(), old);
    assert_eq!(std::fs::read(&place.model).unwrap(), std::fs::read(world().join("model.outlierd")).unwrap());

    let config = std::fs::read_to_string(place.path("o.toml")).unwrap();
    let masked = format!("{config}\n[[camera.mask]]\npolygon = [[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]]\n");
    std::fs::write(place.path("o.toml"), masked).unwrap();
    std::fs::write(&place.model, old).unwrap();
    page.post("/o/teach/take-over", &empty, "sure=yes");
    let text = ended(&page).text();
    assert!(text.contains("Nothing was replaced. mask:"), "{text}");
    assert_eq!(std::fs::read(&place.model).unwrap(), old);

    // Frames of another crop are not mixed with those that are there.
    std::fs::write(place.path("o.toml"), config.replace("[camera]\n", "[camera]\ncrop = [0, 0, 100, 100]\n")).unwrap();
    page.post("/o/teach/collect", &empty, "count=1&every=1s");
    let text = ended(&page).text();
    assert!(text.contains("The running daemon still has another crop than the config"), "{text}");
    assert_eq!(frames(&place).len(), 0);
    assert_eq!(daemon.stop(Signal::TERM), 0);
}

#[test]
fn the_demo_is_shown_until_it_is_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = outlierd();
    demo.args(["demo", "--page=127.0.0.1:0", "--dir"]).arg(dir.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = demo.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let address = { lines }.find_map(|line| line.strip_prefix("http://")?.split('/').next()?.parse().ok()).unwrap();
    let mut page = Page { child, address };
    page.wait_for("/outlierd/live", "outlier", |answer| answer.text().contains("Outlier"));
    assert!(dir.path().join("demo.sock").exists());
    kill_process(Pid::from_child(&page.child), Signal::INT).unwrap();
    assert!(page.child.wait().unwrap().success());
    assert!(!dir.path().join("demo.sock").exists(), "the daemon goes on");
    assert!(TcpStream::connect(page.address).is_err(), "the page goes on");
}
