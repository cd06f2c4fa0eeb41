//! The web page against the real daemon: what it shows, and what may be changed through it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use outlierd::internals::model::Model;
use outlierd::internals::watch::events::{self, Kind};
use outlierd::internals::watch::observe::{self, frame_path, map_path};
use rustix::process::Signal;

use crate::common::daemon::{Daemon, PATIENCE, Place, world};
use crate::common::page::{Answer, Page};

/// A daemon that goes over the scene again and again, and answers at `o.sock`.
pub fn watched(camera: &str, more: &str) -> (Place, Daemon) {
    let mut place = Place::unconfigured();
    place.model = place.path("model.outlierd");
    std::fs::copy(world().join("model.outlierd"), &place.model).unwrap();
    let more = format!("{more}\n[observe]\nsocket = \"o.sock\"\n");
    place.configure(&format!("loop = true\n{camera}"), &more);
    let daemon = place.spawn();
    daemon.notified("READY=1");
    (place, daemon)
}

/// Every frame with p < 0.4 is an event: many false alarms, which are near enough to be learnt.
pub const FALSE_ALARMS: &str = "[decision]\n# mine\nthreshold = 0.4\nraise-after = 1\nclear-after = 1\n";

fn threads(daemon: &Daemon) -> Vec<String> {
    let folder = format!("/proc/{}/task", daemon.child.id());
    let tasks = std::fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<String> =
        tasks.map(|task| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default()).collect();
    names.sort();
    names
}

/// Ids of the raises that are on a page of events.
fn ids(page: &Answer) -> Vec<String> {
    let text = page.text();
    text.split("class=\"card\" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[test]
fn pictures_are_made_only_while_somebody_looks() {
    let (place, daemon) = watched("interval = \"20ms\"", "");
    let socket = place.path("o.sock");
    let pictures = || [frame_path(&socket), map_path(&socket)].map(|path| path.exists());
    daemon.wait_for("raise", |events| events.iter().any(|event| event.event == Kind::Raise));
    assert_eq!(pictures(), [false, false]);
    assert_eq!(observe::ask(&socket).unwrap().pictures, None);
    let alone = threads(&daemon);
    let page = Page::of(&place);
    assert_eq!(page.get("/").header("location"), Some("/o/live"));
    assert!(page.get("/o/live").text().contains("The picture comes with the next frame."));
    for name in ["/o/frame.jpg", "/o/map.jpg", "/snapshot.jpg"] {
        // Each look prolongs the time.
        let wanted = |answer: &Answer| {
            page.get("/o/live");
            answer.status == 200
        };
        let picture = page.wait_for(name, "picture", wanted);
        assert_eq!(picture.header("content-type"), Some("image/jpeg"));
        assert_eq!(image::load_from_memory(&picture.body).unwrap().into_rgb8().dimensions(), (320, 240), "{name}");
    }
    let live = page.get("/o/live").text();
    for part in ["src=\"/o/frame.jpg?", "src=\"/o/map.jpg?", "p is <b>", "the last hour", "the last day", " judged, "] {
        assert!(live.contains(part), "{part}: {live}");
    }
    assert_eq!(threads(&daemon), alone);
    drop(page);
    let started = Instant::now();
    while pictures() != [false, false] {
        assert!(started.elapsed() < PATIENCE, "the pictures stay though nobody looks");
        std::thread::sleep(Duration::from_millis(100));
    }
    let page = Page::of(&place);
    page.wait_for("/snapshot.jpg", "picture", |answer| answer.status == 200);
    assert_eq!(daemon.stop(Signal::TERM), 0);
    assert_eq!(pictures(), [false, false]);
    assert_eq!(page.get("/snapshot.jpg").status, 503);
    let live = page.get("/o/live");
    assert!(live.status == 200 && live.text().contains("o: it is not running"), "{}", live.text());
}

#[test]
fn programs_read_figures_and_events() {
    let (place, daemon) = watched("interval = \"1ms\"", "");
    daemon.wait_for("clear", |events| events.iter().any(|event| event.event == Kind::Clear));
    let page = Page::of(&place);
    let status = page.get("/api/status").json();
    assert_eq!((&status[0]["instance"], &status[0]["error"]), (&"o".into(), &serde_json::Value::Null));
    assert!(status[0]["counts"]["raised"].as_u64().unwrap() >= 1, "{status}");
    let metrics = page.get("/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in
        ["outlierd_up{instance=\"o\"} 1\n", "# TYPE outlierd_frames_total counter\n", "outlierd_p{instance=\"o\"} "]
    {
        assert!(metrics.text().contains(line), "{line}: {}", metrics.text());
    }
    let found = page.get("/api/events?kind=raise&limit=1").json();
    let id = found[0]["id"].as_str().unwrap().to_owned();
    assert_eq!((found.as_array().unwrap().len(), &found[0]["event"]), (1, &"raise".into()));
    assert_eq!(page.get(&format!("/api/events?text={}&kind=raise", id.to_uppercase())).json()[0]["id"], *id);
    assert_eq!(page.get("/api/events?from=2999-01-01").json(), serde_json::json!([]));
    for wrong in ["kind=rise", "from=someday", "limit=0", "limit=1001"] {
        assert_eq!(page.get(&format!("/api/events?{wrong}")).status, 400, "{wrong}");
    }
    assert_eq!(page.get("/api/events?instance=other").status, 404);
    daemon.stop(Signal::TERM);
    assert!(page.get("/metrics").text().contains("outlierd_up{instance=\"o\"} 0\n"));
    assert_eq!(page.get("/api/status").json()[0]["error"], "it is not running");
}

#[test]
fn a_threshold_is_counted_set_and_taken_over() {
    let (place, daemon) = watched("interval = \"5ms\"", "[decision]\n# mine\nraise-after = 2 # two\n");
    let page = Page::of(&place);
    let counted =
        page.wait_for("/o/threshold?threshold=0.5", "history", |answer| answer.text().contains("would have raised"));
    let text = counted.text();
    assert!(text.contains("threshold = <span id=\"line\">0.5</span>") && text.contains("id=\"slider\""), "{text}");
    let refused = page.post("/o/threshold", &counted, "threshold=0.5");
    assert!(refused.status == 422 && refused.text().contains("sure"), "{}", refused.text());
    for wrong in ["7", "0", "x", ""] {
        assert_eq!(page.post("/o/threshold", &counted, &format!("threshold={wrong}&sure=yes")).status, 422);
    }
    let before = std::fs::read_to_string(place.path("o.toml")).unwrap();
    let set = page.post("/o/threshold", &counted, "threshold=0.25&sure=yes");
    assert_eq!((set.status, set.header("location")), (303, Some("/o/live")));
    let after = std::fs::read_to_string(place.path("o.toml")).unwrap();
    assert_eq!(after, before.replace("[decision]\n", "[decision]\nthreshold = 0.25\n"));
    page.wait_for("/api/status", "new threshold", |status| {
        status.json()[0]["threshold"]["value"] == 0.25 && status.json()[0]["threshold"]["origin"] == "config"
    });
    assert_eq!(daemon.stop(Signal::TERM), 0);
}

#[test]
fn a_false_alarm_is_marked_put_back_and_taken_over() {
    let (place, daemon) = watched("interval = \"20ms\"", FALSE_ALARMS);
    let is_many = |found: &[events::Event]| found.iter().filter(|event| event.event == Kind::Clear).count() > 5;
    daemon.wait_for("false alarms", is_many);
    let before = std::fs::read(&place.model).unwrap();
    let page = Page::of(&place);
    let cards = page.get("/o/events");
    // The newest may not have its picture yet.
    let picture = format!("/o/picture/{}.jpg", ids(&cards).last().unwrap());
    assert!(cards.text().contains(&format!("<img src=\"{picture}\"")), "{}", cards.text());
    assert!(page.get(&picture).body.starts_with(&[0xff, 0xd8]));
    // The object is too far from normal to be learnt, another event is not.
    let (id, marked) = ids(&cards)
        .into_iter()
        .find_map(|id| {
            let marked = page.post("/o/normal", &cards, &format!("id={id}&query=page%3D0"));
            (marked.status == 303).then_some((id, marked))
        })
        .expect("one of them is learnt");
    assert_eq!(marked.header("location"), Some(format!("/o/events?page=0#{id}").as_str()));
    let is_learnt = || Model::load(&place.model).unwrap().records.learnt.iter().any(|learnt| learnt.event == id);
    assert!(is_learnt());
    let found = |what: &str| page.get(&format!("/o/events?text={id}")).text().contains(what);
    assert!(found("Marked as normal: p ") && found("Undo") && found("1 marked as normal"));
    assert_eq!(page.post("/o/forget", &cards, &format!("id={id}")).status, 303);
    assert_eq!(std::fs::read(&place.model).unwrap(), before);
    assert!(!found("Marked as normal") && found("This was normal"));

    assert_eq!(page.post("/o/normal", &cards, &format!("id={id}")).status, 303);
    assert_eq!(page.post("/o/reload", &cards, "").status, 303);
    daemon.notified("RELOADING=1");
    page.wait_for(&format!("/o/events?text={id}"), "end of the mark", |answer| {
        answer.text().contains("Learnt as normal.")
    });
    let late = page.post("/o/forget", &cards, &format!("id={id}"));
    assert!(late.status == 422 && late.text().contains("taken it over"), "{}", late.text());
    assert!(is_learnt());
    for wrong in ["", "nothing", "--help", "a/b", "%0a"] {
        assert_eq!(page.post("/o/normal", &cards, &format!("id={wrong}")).status, 422, "{wrong}");
    }
}

/// Event lines that others have written: markup, paths, ids that are none.
#[test]
fn what_a_log_says_is_text_and_pages_are_short() {
    let place = Place::new("", "[observe]\nsocket = \"o.sock\"\n");
    let evil = "<script>alert(1)</script>\"'&";
    let mut lines = String::new();
    for at in 0..60 {
        let event = events::Event {
            id: Some(if at % 2 == 0 { format!("e{at}") } else { format!("../{evil}{at}") }),
            snapshot: Some(PathBuf::from("/etc/passwd")),
            message: Some(evil.into()),
            ..events::Event::new(if at == 0 { Kind::Error } else { Kind::Raise })
        };
        lines.push_str(&event.to_json());
        lines.push('\n');
    }
    std::fs::write(&place.log, lines).unwrap();
    let page = Page::of(&place);
    let first = page.get("/o/events");
    assert_eq!(first.text().matches("class=\"card\"").count(), 24);
    assert!(!first.text().contains("<script>alert") && first.text().contains("&lt;script&gt;alert"));
    assert!(!first.text().contains("passwd") && !first.text().contains("rel=\"prev\""));
    let last = page.get("/o/events?page=2&text=script");
    assert!(last.text().contains("rel=\"prev\"") && !last.text().contains("rel=\"next\""));
    assert_eq!(last.text().matches("class=\"card\"").count(), 11);
    let all = page.get(&format!("/o/events?kind=error&text={}", "%3Cscript%3E"));
    assert!(all.text().contains("value=\"&lt;script&gt;\"") && all.text().matches("class=\"card\"").count() == 1);
    assert_eq!(page.get("/o/events?kind=%3Cb%3E").status, 422);
    assert_eq!(page.get("/o/events?page=99999999999999999999").status, 200);
}
