//! The metrics file of a real run, read by a parser that takes nothing but Prometheus' text format.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::daemon::{Place, text};
use outlierd::internals::watch::events::{self, Kind};
use rustix::process::Signal;

#[derive(Debug, Default)]
struct Family {
    kind: String,
    /// By name and labels as written.
    samples: BTreeMap<(String, Vec<(String, String)>), f64>,
}

fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

fn value(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        number => {
            assert!(number.starts_with(|c: char| c.is_ascii_digit() || c == '-'), "{number}");
            number.parse().unwrap_or_else(|_| panic!("no number: {number}"))
        }
    }
}

/// `a="b",c="d"}` into pairs; gives what stands behind the brace.
fn labels(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        let (name, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {rest}"));
        assert!(is_name(name) && !name.contains(':'), "{name}");
        let mut unescaped = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next() {
                Some((at, '"')) => break at,
                Some((_, '\\')) => match chars.next() {
                    Some((_, 'n')) => unescaped.push('\n'),
                    Some((_, c @ ('\\' | '"'))) => unescaped.push(c),
                    other => panic!("escape {other:?} in {quoted}"),
                },
                Some((_, c)) => unescaped.push(c),
                None => panic!("no end of {quoted}"),
            }
        };
        found.push((name.to_owned(), unescaped));
        rest = match quoted[end + 1..].split_at(1) {
            (",", more) => more,
            ("}", behind) => return (found, behind),
            other => panic!("{other:?}"),
        };
    }
}

fn parse(file: &str) -> BTreeMap<String, Family> {
    assert!(file.ends_with('\n') && !file.contains("\n\n") && !file.contains('\r'));
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut lines = file.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !help.trim().is_empty());
            let (typed, kind) =
                lines.next().unwrap().strip_prefix("# TYPE ").expect("TYPE after HELP").split_once(' ').unwrap();
            assert_eq!(typed, name);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            let family = Family { kind: kind.into(), ..Family::default() };
            assert!(families.insert(name.into(), family).is_none(), "{name} twice");
            current = name.into();
            continue;
        }
        let at = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
        let (name, rest) = line.split_at(at);
        let (mut labels, rest) = labels(rest.strip_prefix('{').unwrap_or_else(|| panic!("no labels: {line}")));
        assert_eq!(labels.pop(), Some(("instance".into(), "o".into())), "{line}");
        let family = families.get_mut(&current).unwrap_or_else(|| panic!("a sample without a family: {line}"));
        let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} does not belong to {current}"));
        let allowed: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(allowed.contains(&suffix), "{line}");
        assert_eq!(suffix == "_bucket", labels.iter().any(|(label, _)| label == "le"), "{line}");
        let value = value(rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}")));
        assert!(family.kind == "gauge" || value >= 0.0, "{line}");
        assert!(family.samples.insert((name.into(), labels), value).is_none(), "{line} twice");
    }
    for (name, family) in &families {
        assert!(!family.samples.is_empty(), "{name} has no sample");
        if family.kind == "histogram" {
            check_histogram(name, family);
        }
    }
    families
}

fn check_histogram(name: &str, family: &Family) {
    let mut buckets: Vec<(f64, f64)> =
        family.samples.iter().filter(|((_, l), _)| !l.is_empty()).map(|((_, l), v)| (value(&l[0].1), *v)).collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name} is not cumulative: {buckets:?}");
    let count = family.samples[&(format!("{name}_count"), Vec::new())];
    assert_eq!(*buckets.last().unwrap(), (f64::INFINITY, count));
    assert!(family.samples.contains_key(&(format!("{name}_sum"), Vec::new())));
}

struct Figures(BTreeMap<String, Family>);

impl Figures {
    fn read(path: &Path) -> Self {
        Figures(parse(&std::fs::read_to_string(path).unwrap()))
    }

    fn one(&self, name: &str) -> f64 {
        self.0[name].samples[&(name.to_owned(), Vec::new())]
    }

    fn events(&self, kind: Kind) -> f64 {
        let name = "outlierd_events_total".to_owned();
        self.0[&name].samples[&(name.clone(), vec![("event".into(), kind.name().into())])]
    }
}

fn with_metrics(more: &str) -> Place {
    let place = Place::new("interval = \"1ms\"", more);
    let key = format!("metrics = {:?}\n{more}", place.path("m.prom"));
    place.configure("interval = \"1ms\"", &key);
    place
}

#[test]
fn a_run_s_figures_are_those_of_its_events() {
    let place = with_metrics("hook = [\"/bin/false\"]\n");
    let run = place.run(&["run"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let figures = Figures::read(&place.path("m.prom"));
    let log = events::read(&place.path("events.jsonl")).unwrap();
    let count = |kind: Kind| log.iter().filter(|event| event.event == kind).count() as f64;
    for kind in Kind::ALL {
        assert_eq!(figures.events(kind), count(kind), "{}", kind.name());
    }
    assert_eq!((figures.events(Kind::Raise), figures.events(Kind::Clear)), (1.0, 1.0));
    let stop = log.iter().find(|event| event.event == Kind::Stop).unwrap();
    assert_eq!(figures.one("outlierd_frames_total"), stop.frames.unwrap() as f64);
    assert_eq!(figures.0["outlierd_frame_seconds"].samples.len(), 16);
    let judged = figures.0["outlierd_frame_seconds"].samples[&("outlierd_frame_seconds_count".into(), Vec::new())];
    assert_eq!(judged, stop.frames.unwrap() as f64);
    assert_eq!(figures.one("outlierd_frames_dropped_total"), 0.0);
    assert_eq!(figures.one("outlierd_hook_failures_total"), count(Kind::Error));
    assert_eq!(figures.one("outlierd_threshold"), log[0].threshold.unwrap());
    assert_eq!((figures.one("outlierd_outlier"), figures.one("outlierd_camera_up")), (0.0, 0.0));
    assert!((0.0..=1.0).contains(&figures.one("outlierd_p")));
    assert!(figures.one("outlierd_resident_memory_bytes") > 1e6 && figures.one("outlierd_open_fds") >= 3.0);
    assert!(figures.0.keys().all(|name| name.starts_with("outlierd_")), "{:?}", figures.0.keys());
    let started = log[0].time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((figures.one("outlierd_start_time_seconds") - started).abs() < 60.0);
    let labels: BTreeSet<_> = figures.0["outlierd_build_info"].samples.keys().flat_map(|(_, l)| l.clone()).collect();
    assert!(labels.contains(&("version".into(), env!("CARGO_PKG_VERSION").into())));
    let mode = std::fs::metadata(place.path("m.prom")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

#[test]
fn a_standing_event_shows_and_the_file_is_kept_up_between_frames() {
    let place = with_metrics("");
    // One frame an hour: the second writing of the file comes from no frame.
    let more = format!("metrics = {:?}\n[decision]\nthreshold = 1.0\nraise-after = 1\n", place.path("m.prom"));
    place.configure("interval = \"1h\"", &more);
    let daemon = place.spawn();
    daemon.wait_for("raise", |events| events.iter().any(|event| event.event == Kind::Raise));
    let standing = "outlierd_outlier{instance=\"o\"} 1\n";
    let shown = || std::fs::read_to_string(place.path("m.prom")).is_ok_and(|m| m.contains(standing));
    daemon.wait_for("a standing event in the file", |_| shown());
    let figures = Figures::read(&place.path("m.prom"));
    assert_eq!((figures.one("outlierd_frames_total"), figures.one("outlierd_camera_up")), (1.0, 1.0));
    std::fs::remove_file(place.path("m.prom")).unwrap();
    daemon.wait_for("the file again", |_| place.path("m.prom").exists());
    assert_eq!(daemon.stop(Signal::TERM), 0);
    // Nobody watches any more: the file says neither that an event stands nor that the camera is up.
    let figures = Figures::read(&place.path("m.prom"));
    assert_eq!((figures.one("outlierd_outlier"), figures.one("outlierd_camera_up")), (0.0, 0.0));
}

#[test]
fn two_daemons_do_not_replace_each_other_s_file() {
    let places = ["m", "n"].map(|_| Place::unconfigured());
    let file = places[0].path("m.prom");
    let metrics = format!("metrics = {file:?}\n");
    places.iter().for_each(|place| place.configure("interval = \"1h\"", &metrics));
    let first = places[0].spawn();
    first.wait_for("the file", |_| file.exists());
    let second = places[1].spawn();
    second.wait_for("an error event", |events| {
        let message = |event: &events::Event| event.message.clone().unwrap_or_default();
        events.iter().any(|event| message(event).contains("another outlierd that is running writes it"))
    });
    assert_eq!((first.stop(Signal::TERM), second.stop(Signal::TERM)), (0, 0));
}

#[test]
fn a_file_that_cannot_be_written_is_one_error_event() {
    let place = with_metrics("");
    let more = format!("metrics = {:?}\n", place.path("missing/m.prom"));
    place.configure("interval = \"40ms\"", &more);
    assert!(place.run(&["run"]).status.success());
    let log = events::read(&place.path("events.jsonl")).unwrap();
    let errors: Vec<_> = log.iter().filter_map(|event| event.message.as_deref()).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("cannot write the metrics file") && errors[0].contains("missing/m.prom"), "{errors:?}");
    let check = place.run(&["check"]);
    assert!(text(&check.stdout).lines().any(|line| line.starts_with("metrics   WRONG")), "{}", text(&check.stdout));
}
