//! The real binary: the whole job on drawn pictures with the embedded backbone, and wrong input of every kind.

use std::path::{Path, PathBuf};

use image::RgbImage;
use outlierd::internals::cli::demo::scene::Scene;
use serde_json::Value;

use crate::common::daemon::outlierd;

struct Run {
    code: i32,
    out: String,
    err: String,
}

fn run(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Run {
    let output = outlierd().args(args.iter().map(|a| a.as_ref())).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().expect("ended by a signal");
    let run = Run { code, out: text(output.stdout), err: text(output.stderr) };
    assert!(!run.err.contains("panicked"), "{}", run.err);
    run
}

/// A failure with this exit code whose message holds all of `words`.
#[track_caller]
fn refused(run: &Run, code: i32, words: &[&str]) {
    assert_eq!(run.code, code, "out: {}\nerr: {}", run.out, run.err);
    for word in words {
        assert!(run.err.contains(word), "no '{word}' in: {}", run.err);
    }
}

/// A folder with normal pictures, outliers, and a model fitted on the normal ones.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut scene = Scene::new(3);
        for folder in ["normal", "more", "odd"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for n in 0..60 {
            scene.frame(None).save(dir.path().join(format!("normal/{n:03}.png"))).unwrap();
        }
        for n in 0..12 {
            scene.frame(None).save(dir.path().join(format!("more/{n:03}.png"))).unwrap();
            scene.frame(Some(0.3 + 0.03 * n as f32)).save(dir.path().join(format!("odd/{n:03}.png"))).unwrap();
        }
        Bench { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn fit(&self) -> PathBuf {
        let model = self.at("m.outlierd");
        let fitted = run(&[&"fit", &"--normal", &self.at("normal"), &"-o", &model, &"--false-alarms", &"0.1"]);
        assert_eq!(fitted.code, 0, "{}", fitted.err);
        model
    }
}

fn truncated_jpeg(path: &Path) {
    let mut jpeg = Vec::new();
    let picture = Scene::new(1).frame(None);
    image::codecs::jpeg::JpegEncoder::new(&mut jpeg).encode_image(&picture).unwrap();
    std::fs::write(path, &jpeg[..jpeg.len() / 2]).unwrap();
}

/// A PNG that says it is 20,000 x 20,000 pixels, with no pixels behind.
fn huge_png(path: &Path) {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], body: &[u8]| {
        let mut checked = kind.to_vec();
        checked.extend_from_slice(body);
        png.extend_from_slice(&(body.len() as u32).to_be_bytes());
        png.extend_from_slice(&checked);
        png.extend_from_slice(&crc32fast::hash(&checked).to_be_bytes());
    };
    let mut header = Vec::new();
    header.extend_from_slice(&20_000_u32.to_be_bytes());
    header.extend_from_slice(&20_000_u32.to_be_bytes());
    header.extend_from_slice(&[8, 2, 0, 0, 0]);
    chunk(b"IHDR", &header);
    chunk(b"IDAT", &[0; 16]);
    chunk(b"IEND", &[]);
    std::fs::write(path, png).unwrap();
}

#[test]
fn fit_eval_score_and_inspect_agree() {
    let bench = Bench::new();
    let model = bench.fit();
    let eval =
        run(&[&"eval", &"--model", &model, &"--normal", &bench.at("more"), &"--outliers", &bench.at("odd"), &"--json"]);
    assert_eq!(eval.code, 0, "{}", eval.err);
    let figures: Value = serde_json::from_str(&eval.out).unwrap();
    assert_eq!((figures["n_inlier"].as_u64(), figures["n_outlier"].as_u64()), (Some(12), Some(12)));
    assert_eq!(figures["calibration"], "conformal");
    assert!(figures["auroc"].as_f64().unwrap() > 0.95, "{figures}");
    for key in ["detector", "threshold", "average_precision", "accuracy", "inlier", "outlier", "confusion"] {
        assert!(!figures[key].is_null(), "no {key} in {figures}");
    }
    let score = run(&[&"score", &"--model", &model, &"--json", &bench.at("odd"), &bench.at("more")]);
    let lines: Vec<Value> = score.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 24);
    let called = |lines: &[Value]| lines.iter().filter(|l| l["outlier"] == true).count() as u64;
    assert_eq!(called(&lines[..12]), figures["confusion"]["true_outlier"].as_u64().unwrap());
    assert_eq!(called(&lines[12..]), figures["confusion"]["false_outlier"].as_u64().unwrap());
    let inspect = run(&[&"inspect", &model, &"--json"]);
    let inside: Value = serde_json::from_str(&inspect.out).unwrap();
    assert_eq!((inside["n_train"].as_u64(), inside["n_calibration"].as_u64()), (Some(60), Some(60)));
    assert_eq!(inside["threshold"], figures["threshold"]);
}

#[test]
fn a_second_fit_reads_the_features_and_gives_the_same_model() {
    let bench = Bench::new();
    let model = bench.fit();
    let cache = bench.at("m.outlierd.features");
    let (first, cached) = (std::fs::read(&model).unwrap(), std::fs::metadata(&cache).unwrap().modified().unwrap());
    bench.fit();
    assert_eq!(std::fs::metadata(&cache).unwrap().modified().unwrap(), cached, "the cache was written again");
    let scores = |model: &Path| run(&[&"score", &"--model", &model, &bench.at("odd")]).out;
    let again = scores(&model);
    std::fs::write(&model, first).unwrap();
    assert_eq!(again, scores(&model));
}

#[test]
fn outliers_make_probabilities() {
    let bench = Bench::new();
    let model = bench.at("m.outlierd");
    let fit =
        run(&[&"fit", &"--normal", &bench.at("normal"), &"--outliers", &bench.at("odd"), &"-o", &model, &"--json"]);
    assert_eq!(fit.code, 0, "{}", fit.err);
    let report: Value = serde_json::from_str(&fit.out).unwrap();
    assert_eq!(report["evaluation"]["calibration"], "isotonic");
    assert_eq!(report["evaluation"]["threshold"], 0.5);
    assert_eq!(report["n_outliers"], 12);
}

#[test]
fn the_report_is_one_page_that_needs_nothing_else() {
    let bench = Bench::new();
    let (model, page) = (bench.fit(), bench.at("report.html"));
    let eval = run(&[
        &"eval",
        &"--model",
        &model,
        &"--normal",
        &bench.at("odd"),
        &"--outliers",
        &bench.at("more"),
        &"--report",
        &page,
    ]);
    assert_eq!(eval.code, 0, "{}", eval.err);
    let html = std::fs::read_to_string(&page).unwrap();
    for part in
        ["<h2>ROC curve</h2>", "id=\"confusion\"", "id=\"false-alarms\"", "data:image/jpeg;base64,", "class=\"hot\""]
    {
        assert!(html.contains(part), "no {part}");
    }
    for outside in ["http://", "https://", "<script", "<link", "@import"] {
        assert!(!html.contains(outside), "{outside} in the page");
    }
}

/// The figure is in models/default.md.
#[test]
fn the_embedded_backbone_tells_the_defects_of_real_tiles() {
    let Some(shared) = crate::common::shared("the_embedded_backbone_tells_the_defects_of_real_tiles") else { return };
    let list = |name: &str| shared.join(format!("images/magnetic-tiles/{name}.txt"));
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("tiles.outlierd");
    let fit = run(&[&"fit", &"--normal", &list("train"), &"-o", &model]);
    assert_eq!(fit.code, 0, "{}", fit.err);
    let (normal, outlier) = (list("test-normal"), list("test-outlier"));
    let eval = run(&[&"eval", &"--model", &model, &"--normal", &normal, &"--outliers", &outlier, &"--json"]);
    assert_eq!(eval.code, 0, "{}", eval.err);
    let auroc = serde_json::from_str::<Value>(&eval.out).unwrap()["auroc"].as_f64().unwrap();
    assert!(auroc > 0.95, "AUROC {auroc}");
}

#[test]
fn wrong_pictures_are_named() {
    let bench = Bench::new();
    let model = bench.fit();
    let bad = bench.at("bad");
    std::fs::create_dir(&bad).unwrap();
    std::fs::write(bad.join("text.jpg"), "this is no picture\n").unwrap();
    truncated_jpeg(&bad.join("cut.jpg"));
    huge_png(&bad.join("huge.png"));
    RgbImage::new(1, 1).save(bad.join("one.png")).unwrap();
    let score = run(&[&"score", &"--model", &model, &bad, &bench.at("nowhere.png")]);
    refused(&score, 65, &["text.jpg", "cut.jpg", "huge.png is 20000x20000", "nowhere.png", "4 pictures could not"]);
    assert!(score.out.lines().count() == 1 && score.out.contains("one.png"), "{}", score.out);

    let few = run(&[&"fit", &"--normal", &bad, &"-o", &bench.at("x")]);
    refused(&few, 65, &["4 normal pictures are too few"]);
    for n in 0..8 {
        std::fs::copy(bad.join("text.jpg"), bad.join(format!("{n}.jpg"))).unwrap();
    }
    let unreadable = run(&[&"fit", &"--normal", &bad, &"-o", &bench.at("x")]);
    refused(&unreadable, 65, &["11 of 12 pictures cannot be used", ".jpg"]);
    std::fs::copy(bad.join("text.jpg"), bench.at("normal/zz.jpg")).unwrap();
    let one = run(&[&"fit", &"--normal", &bench.at("normal"), &"-o", &bench.at("x")]);
    assert_eq!(one.code, 0, "{}", one.err);
    assert!(one.err.contains("left out") && one.err.contains("zz.jpg"), "{}", one.err);
    std::fs::create_dir(bench.at("empty")).unwrap();
    let empty = run(&[&"fit", &"--normal", &bench.at("empty"), &"-o", &bench.at("x")]);
    refused(&empty, 66, &["no pictures", "empty"]);
}

#[test]
fn wrong_backbones_and_models_are_named() {
    let bench = Bench::new();
    let (normal, model) = (bench.at("normal"), bench.fit());
    let onnx = bench.at("no.onnx");
    std::fs::write(&onnx, "not an ONNX file, just text\n".repeat(40)).unwrap();
    refused(&run(&[&"fit", &"--normal", &normal, &"--backbone", &onnx, &"-o", &bench.at("x")]), 65, &["no.onnx"]);
    let gone = run(&[&"fit", &"--normal", &normal, &"--backbone", &bench.at("gone.onnx"), &"-o", &bench.at("x")]);
    refused(&gone, 66, &["gone.onnx"]);
    let other = run(&[&"score", &"--model", &model, &"--backbone", &onnx, &bench.at("odd")]);
    refused(&other, 78, &["fitted on another backbone", "no.onnx"]);
    refused(&run(&[&"inspect", &bench.at("gone.outlierd")]), 66, &["gone.outlierd"]);
    refused(&run(&[&"inspect", &onnx]), 65, &["no.onnx is not a usable model"]);
    let whole = std::fs::read(&model).unwrap();
    let cut = bench.at("cut.outlierd");
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    refused(&run(&[&"score", &"--model", &cut, &bench.at("odd")]), 65, &["cut.outlierd", "cut short or damaged"]);
}

#[test]
fn wrong_options_are_told() {
    let bench = Bench::new();
    let fit = |extra: &[&str]| {
        let (normal, out) = (bench.at("normal"), bench.at("x"));
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"fit", &"--normal", &normal, &"-o", &out];
        args.extend(extra.iter().map(|a| a as &dyn AsRef<std::ffi::OsStr>));
        run(&args)
    };
    refused(&fit(&["--tap", "layer9"]), 64, &["layer9", "layer4"]);
    refused(&fit(&["--input", "keras"]), 64, &["unknown input recipe 'keras'", "use caffe, torch, raw or unit"]);
    refused(&fit(&["--resize", "squash"]), 64, &["squash", "stretch or crop"]);
    refused(&fit(&["--set", "pca.components=3"]), 64, &["unknown parameter", "pca.n_components"]);
    refused(&fit(&["--false-alarms", "1.5"]), 64, &["between 0 and 1"]);
    refused(&fit(&["--detector", "magic"]), 64, &["magic", "gaussian-mixture"]);
    refused(&run(&[&"fit"]), 64, &["--normal"]);
}

#[test]
fn the_demo_raises_and_clears() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let demo = run(&[&"demo", &"--dir", &dir.path()]);
        assert_eq!(demo.code, 0, "{}{}", demo.out, demo.err);
        assert!(demo.out.contains("raised and cleared"), "{}", demo.out);
    }
    let log = std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 4, "{log}");
}

#[test]
fn bench_reports_every_stage() {
    let bench = run(&[&"bench", &"--frames", &"3", &"--threads", &"1", &"--json"]);
    assert_eq!(bench.code, 0, "{}", bench.err);
    let figures: Value = serde_json::from_str(&bench.out).unwrap();
    for stage in ["decode", "prepare", "network", "pool"] {
        assert!(figures["stages_ms"][stage]["median"].as_f64().unwrap() >= 0.0);
    }
    assert_eq!((figures["frames"].as_u64(), figures["threads"].as_u64()), (Some(3), Some(1)));
    assert!(figures["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);
}

#[test]
fn bench_times_every_frame_format() {
    for format in ["mjpg", "yuyv", "nv12", "grey", "rgb3"] {
        let bench = run(&[&"bench", &"--frames", &"1", &"--format", &format, &"--json"]);
        assert_eq!(bench.code, 0, "{}", bench.err);
        let figures: Value = serde_json::from_str(&bench.out).unwrap();
        assert_eq!(figures["format"], format);
        let median = |stage: &str| figures["stages_ms"][stage]["median"].as_f64().unwrap();
        let outside = median("decode") + median("prepare") + median("pool");
        let share = figures["share_outside_network"].as_f64().unwrap();
        assert!((share - outside / (outside + median("network"))).abs() < 1e-9, "{figures}");
        assert!(median("decode") > 0.0, "{figures}");
    }
}

#[test]
fn help_prints_commands_topics_and_their_list() {
    let list = run(&[&"help", &"topics"]);
    assert_eq!(list.code, 0, "{}", list.err);
    let names: Vec<&str> = list.out.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    for name in ["start", "config", "event-log", "calibration", "cameras", "browser", "files", "exit-codes"] {
        assert!(names.contains(&name), "{name}: {}", list.out);
        let topic = run(&[&"help", &name]);
        assert!(topic.code == 0 && topic.out.len() > 300, "{name}: {}{}", topic.out, topic.err);
    }
    for words in [vec![], vec!["fit"], vec!["camera", "snap"], vec!["help"]] {
        let arguments = |before: &[&'static str], after: &[&'static str]| {
            let all = [before, &words, after].concat();
            run(&all.iter().map(|word| word as &dyn AsRef<std::ffi::OsStr>).collect::<Vec<_>>())
        };
        let (help, option) = (arguments(&["help"], &[]), arguments(&[], &["--help"]));
        assert!(help.code == 0 && help.out == option.out, "{words:?}: {}{}", help.out, help.err);
    }
    refused(&run(&[&"help", &"nonsense"]), 64, &["\"nonsense\"", "outlierd help topics"]);
}
