//! What `fit` says of its pictures and its promise, through the real binary on drawn scenes.

use std::path::{Path, PathBuf};
use std::process::Output;

use image::RgbImage;
use outlierd::internals::cli::demo::scene::Scene;
use serde_json::Value;

use crate::common::daemon::{outlierd, text};

fn draw(folder: &Path, seed: u64, n: usize, object: Option<f32>) {
    std::fs::create_dir_all(folder).unwrap();
    let mut scene = Scene::new(seed);
    for at in 0..n {
        scene.frame(object).save(folder.join(format!("shot {at}.png"))).unwrap();
    }
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// A hundred normal pictures, two of which are of something else.
    fn new() -> Self {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        draw(&bench.at("normal"), 1, 98, None);
        let stripes = RgbImage::from_fn(96, 72, |x, y| image::Rgb([(x * 37 + y * 11) as u8, 200, 10]));
        stripes.save(bench.at("normal/wrong 1.png")).unwrap();
        let disc = |x: u32, y: u32| u8::from(x.abs_diff(48).pow(2) + y.abs_diff(36).pow(2) < 600) * 180;
        let discs = RgbImage::from_fn(96, 72, |x, y| image::Rgb([20, 20 + disc(x, y), 230 - disc(x, y)]));
        discs.save(bench.at("normal/wrong 2.png")).unwrap();
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn fit(&self, normal: &str, more: &[&str]) -> Output {
        let mut fit = outlierd();
        fit.args(["fit", "--normal"]).arg(self.at(normal)).arg("-o").arg(self.at("m.outlierd")).args(more);
        fit.current_dir(self.dir.path()).output().unwrap()
    }

    fn json(&self, normal: &str, more: &[&str]) -> Value {
        let output = self.fit(normal, &[more, &["--json"]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn suspects(report: &Value) -> Vec<String> {
    let all = report["least_like_the_rest"].as_array().unwrap().iter();
    let path = |one: &Value| Path::new(one["path"].as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<String> = all.filter(|one| one["suspect"] == true).map(path).collect();
    names.sort();
    names
}

#[test]
fn wrong_pictures_are_named_and_left_out_by_name() {
    let bench = Bench::new();
    let said = bench.fit("normal", &["--report", "page.html"]);
    assert!(said.status.success(), "{}", text(&said.stderr));
    let lines = text(&said.stdout);
    for words in ["farther from the rest", "--drop", "wrong 1.png", "wrong 2.png", "it catches about"] {
        assert!(lines.contains(words), "no '{words}' in {lines}");
    }
    let page = std::fs::read_to_string(bench.at("page.html")).unwrap();
    let shown = page.split_once("id=\"suspects\"").unwrap().1.split_once("</section>").unwrap().0;
    assert!(shown.contains("wrong 1.png") && shown.contains("wrong 2.png"), "{shown}");
    for outside in ["http:", "https:", "<script", "<link", "@import"] {
        assert!(!page.contains(outside), "{outside} in the page");
    }
    let with = bench.json("normal", &[]);
    // Chance may put another beside them, but not before them.
    let least = with["least_like_the_rest"].as_array().unwrap();
    assert!(least[..2].iter().all(|one| one["path"].as_str().unwrap().contains("wrong")), "{least:?}");
    let named = suspects(&with);
    assert!(named.iter().filter(|name| name.starts_with("wrong")).count() == 2 && named.len() <= 4, "{named:?}");

    // Their calibration is no other with them or without.
    std::fs::write(bench.at("drop.txt"), "normal/wrong 2.png\n").unwrap();
    let without = bench.json("normal", &["--drop", "normal/wrong 1.png", "drop.txt"]);
    assert_eq!(without["n_train"], 98);
    assert!(suspects(&without).iter().all(|name| !name.starts_with("wrong")));
    assert_eq!(with["false_alarms"]["promised"], without["false_alarms"]["promised"]);

    let unknown = bench.fit("normal", &["--drop", "m.outlierd"]);
    assert_eq!(unknown.status.code(), Some(66));
    assert!(text(&unknown.stderr).contains("m.outlierd is not among the normal pictures"));
}

/// Light that comes and goes over many frames.
fn lit(folder: &Path, n: usize) {
    std::fs::create_dir_all(folder).unwrap();
    let mut scene = Scene::new(5);
    for at in 0..n {
        let light = 1.0 + 0.4 * (at as f32 / 9.0).sin();
        let mut frame = scene.frame(None);
        frame.pixels_mut().for_each(|pixel| pixel.0 = pixel.0.map(|v| (f32::from(v) * light).min(255.0) as u8));
        frame.save(folder.join(format!("frame{at}.png"))).unwrap();
    }
}

#[test]
fn frames_that_follow_each_other_are_found_out() {
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    lit(&bench.at("video"), 160);
    let said = text(&bench.fit("video", &[]).stdout);
    assert!(said.contains("neighbouring pictures are alike: 160 pictures are worth about"), "{said}");
    let found = bench.json("video", &[]);
    let length = found["stretch"].as_u64().unwrap();
    assert!((3..=20).contains(&length), "{length}");
    assert!(found["false_alarms"]["stretches"].as_f64().unwrap() < 60.0);
    assert!(found["false_alarms"]["vouched_for"].as_f64().unwrap() > 0.01);
    let interval = |report: &Value| {
        let ends = report["false_alarms"]["interval"].as_array().unwrap();
        ends[1].as_f64().unwrap() - ends[0].as_f64().unwrap()
    };
    let independent = bench.json("video", &["--block", "1"]);
    assert_eq!((independent["stretch"].as_u64(), independent["n_calibration"].as_u64()), (Some(1), Some(160)));
    assert!(interval(&independent) < interval(&found));
    let inspect = outlierd().args(["inspect", "--json"]).arg(bench.at("m.outlierd")).output().unwrap();
    let inside: Value = serde_json::from_slice(&inspect.stdout).unwrap();
    assert_eq!(inside["false_alarms"], independent["false_alarms"]);
}

#[test]
fn copies_count_once_and_no_picture_is_normal_and_an_outlier() {
    let bench = Bench::new();
    let once = bench.json("normal", &[]);
    let twice = bench.fit("normal", &["--normal", "normal", "--json"]);
    assert!(text(&twice.stderr).contains("100 of 200 pictures are copies"), "{}", text(&twice.stderr));
    let twice: Value = serde_json::from_slice(&twice.stdout).unwrap();
    assert_eq!((&twice["n_train"], &twice["false_alarms"]), (&once["n_train"], &once["false_alarms"]));
    let both = bench.fit("normal", &["--outliers", "normal/wrong 1.png"]);
    assert_eq!(both.status.code(), Some(65));
    assert!(text(&both.stderr).contains("wrong 1.png is given as normal and"), "{}", text(&both.stderr));
    for command in [&["eval", "--model", "m.outlierd"][..], &["compare", "--train", "normal"]] {
        let sets = ["--normal", "normal", "--outliers", "normal/wrong 1.png"];
        let both = outlierd().current_dir(bench.at("")).args(command).args(sets).output().unwrap();
        assert!(text(&both.stderr).contains("wrong 1.png is given as normal and"), "{}", text(&both.stderr));
    }
}

#[test]
fn stretches_that_leave_too_little_are_told_and_no_panic() {
    let bench = Bench::new();
    draw(&bench.at("odd"), 1, 12, Some(0.5));
    let held_out = ["--held-out", "0.1", "--block", "20"];
    let fitted = bench.fit("normal", &[&held_out[..], &["--outliers", "odd"]].concat());
    assert!(fitted.status.success(), "{}", text(&fitted.stderr));
    let refused = bench.fit("normal", &["--held-out", "0.2", "--block", "200"]);
    assert_eq!(refused.status.code(), Some(64));
    assert!(text(&refused.stderr).contains("leaves 0 of 100 pictures to fit on"), "{}", text(&refused.stderr));
    let rare = bench.fit("normal", &["--false-alarms", "1e-13"]);
    assert_eq!(rare.status.code(), Some(64));
    let same = bench.fit("normal", &["--report", bench.at("m.outlierd").to_str().unwrap()]);
    assert_eq!(same.status.code(), Some(64));
}

#[test]
fn a_promise_is_checked_by_eval() {
    let bench = Bench::new();
    draw(&bench.at("later"), 1, 60, None);
    draw(&bench.at("object"), 1, 60, Some(0.5));
    bench.json("normal", &["--drop", "normal/wrong 1.png", "normal/wrong 2.png"]);
    let eval = |normal: &str| {
        let mut eval = outlierd();
        eval.args(["eval", "--json", "--model"]).arg(bench.at("m.outlierd")).arg("--normal").arg(bench.at(normal));
        serde_json::from_slice::<Value>(&eval.output().unwrap().stdout).unwrap()["false_alarms"].clone()
    };
    let (kept, broken) = (eval("later"), eval("object"));
    assert_eq!((&kept["held"], &broken["held"]), (&Value::Bool(true), &Value::Bool(false)), "{kept} {broken}");
    assert_eq!(broken["counted"], 1.0);
}

#[test]
fn collected_frames_are_in_order_over_several_runs() {
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    draw(&bench.at("camera"), 2, 12, None);
    for _ in 0..2 {
        let mut collect = outlierd();
        collect.args(["collect", "--every", "1ms", "--device"]).arg(format!("folder:{}", bench.at("camera").display()));
        let output = collect.arg("-o").arg(bench.at("frames")).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let mut names: Vec<String> =
        std::fs::read_dir(bench.at("frames")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let numbers: Vec<usize> = names.iter().map(|name| name.split_once('-').unwrap().0.parse().unwrap()).collect();
    assert_eq!(numbers, (0..24).collect::<Vec<_>>());
}
