//! `[[model.when]]` with the real daemon: which model watches, and what is kept apart.

use std::path::Path;

use outlierd::internals::watch::events::{self, Event, Kind};
use outlierd::internals::watch::frame::light::Light;
use outlierd::internals::watch::history::{Entry, Reader};
use rustix::process::Signal;

use crate::common::daemon::{Place, outlierd, text, world};

/// How much darker night is than day.
const DARKER: f32 = 0.3;

fn darken(from: &Path, to: &Path) {
    let mut picture = image::open(from).unwrap().to_rgb8();
    picture.iter_mut().for_each(|value| *value = (f32::from(*value) * DARKER) as u8);
    picture.save(to).unwrap();
}

/// A place with a model of the dark scene, `night.outlierd`, whose camera shows five frames by day and five by night.
fn place() -> (Place, f64) {
    let mut place = Place::unconfigured();
    place.frames = place.path("frames");
    let dark = place.path("dark");
    [&place.frames, &dark].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    let mut names: Vec<_> =
        std::fs::read_dir(world().join("normal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in &names {
        darken(path, &dark.join(path.file_stem().unwrap()).with_extension("png"));
    }
    let fitted =
        outlierd().args(["fit", "--normal"]).arg(&dark).arg("-o").arg(place.path("night.outlierd")).output().unwrap();
    assert!(fitted.status.success(), "{}", text(&fitted.stderr));
    for (number, path) in names.iter().take(5).enumerate() {
        let day = image::open(path).unwrap().to_rgb8();
        day.save(place.frames.join(format!("a{number}.png"))).unwrap();
        darken(path, &place.frames.join(format!("b{number}.png")));
    }
    let light = |name: &str| Light::of(&image::open(place.frames.join(name)).unwrap().to_rgb8()).brightness;
    let between = 0.5 * (light("a0.png") + light("b0.png"));
    (place, between)
}

fn of_kind(place: &Place, kind: Kind) -> Vec<Event> {
    events::read(&place.log).unwrap().into_iter().filter(|event| event.event == kind).collect()
}

fn frames(path: &Path) -> usize {
    Reader::open(path, None).unwrap().filter(|entry| matches!(entry, Entry::Frame { .. })).count()
}

#[test]
fn the_light_chooses_the_model_and_each_has_its_history() {
    let (place, between) = place();
    let camera = "interval = \"5ms\"";
    // By day's model night is an outlier.
    place.configure(camera, "");
    assert!(place.run(&["run"]).status.success());
    assert_eq!(of_kind(&place, Kind::Raise).len(), 1);
    std::fs::remove_file(&place.log).unwrap();
    std::fs::remove_file(place.path("o.history")).unwrap();

    place.configure(
        camera,
        &format!(
            "[[model.when]]\npath = \"night.outlierd\"\nbrightness-below = {between}\nhold = \"0s\"\n\
             [observe]\nsocket = \"sock\"\n"
        ),
    );
    assert!(place.run(&["run"]).status.success());
    assert_eq!(of_kind(&place, Kind::Raise), []);
    let [switch] = &of_kind(&place, Kind::Model)[..] else { panic!("{:?}", events::read(&place.log).unwrap()) };
    assert_eq!(switch.model.as_deref(), Some("night.outlierd"));
    assert!(switch.message.as_ref().is_some_and(|message| message.contains("brightness below")), "{switch:?}");
    assert_eq!((frames(&place.path("o.history")), frames(&place.path("o.night.history"))), (5, 5));
    let stop = of_kind(&place, Kind::Stop);
    assert_eq!((stop[0].frames, stop[0].model.as_deref()), (Some(10), Some("night.outlierd")));
}

#[test]
fn frames_of_changing_light_are_not_judged() {
    let (place, between) = place();
    place.configure(
        "interval = \"5ms\"",
        &format!("[[model.when]]\npath = \"night.outlierd\"\nbrightness-below = {between}\nhold = \"5m\"\n"),
    );
    assert!(place.run(&["run"]).status.success());
    assert_eq!((of_kind(&place, Kind::Raise), of_kind(&place, Kind::Model)), (vec![], vec![]));
    assert_eq!(of_kind(&place, Kind::Stop)[0].frames, Some(5));
}

#[test]
fn the_hour_chooses_the_model_and_a_reload_keeps_it() {
    let (place, _) = place();
    std::fs::copy(place.path("night.outlierd"), place.path("evening.outlierd")).unwrap();
    let whens = "[[model.when]]\npath = \"night.outlierd\"\nfrom = \"00:00\"\nto = \"12:00\"\n\
                 [[model.when]]\npath = \"evening.outlierd\"\nfrom = \"12:00\"\nto = \"00:00\"\n";
    place.configure("interval = \"5ms\"\nloop = true", &format!("{whens}[decision]\nthreshold = 0.0\n"));
    let daemon = place.spawn();
    let switched = |event: &Event| event.event == Kind::Model && event.model.as_deref() != Some("model.outlierd");
    daemon.wait_for("switch", |events| events.iter().any(switched));
    // A raise would need p < 0; another threshold is taken by the model that watches.
    place.configure(
        "interval = \"5ms\"\nloop = true",
        &format!("{whens}[decision]\nthreshold = 1.0\nraise-after = 1\n"),
    );
    daemon.signal(Signal::HUP);
    daemon.wait_for("raise", |events| events.iter().any(|event| event.event == Kind::Raise));
    assert_eq!(daemon.stop(Signal::TERM), 0);
    let raise = &of_kind(&place, Kind::Raise)[0];
    assert_ne!(raise.model.as_deref(), Some("model.outlierd"));
}

#[test]
fn models_of_another_network_are_refused() {
    let (place, between) = place();
    let folder = place.path("dark");
    let other = outlierd()
        .args(["fit", "--tap", "layer2", "--normal"])
        .arg(&folder)
        .arg("-o")
        .arg(place.path("other.outlierd"))
        .output()
        .unwrap();
    assert!(other.status.success(), "{}", text(&other.stderr));
    place.configure("", &format!("[[model.when]]\npath = \"other.outlierd\"\nbrightness-below = {between}\n"));
    for command in ["run", "check"] {
        let refused = place.run(&[command]);
        assert_eq!(refused.status.code(), Some(78), "{command}");
        let said = text(&refused.stderr) + &text(&refused.stdout);
        assert!(said.contains("other.outlierd was fitted on another backbone, tap"), "{command}: {said}");
    }
}
