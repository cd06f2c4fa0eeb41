//! `fit --grid` of the real binary, on drawn pictures with the embedded backbone.

use std::path::{Path, PathBuf};

use crate::common::daemon::outlierd;
use outlierd::internals::cli::demo::scene::Scene;
use serde_json::Value;

/// Normal pictures and outliers.
fn pictures() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(5);
    for (folder, n) in [("normal", 40), ("odd", 16), ("few", 3)] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
        for i in 0..n {
            let object = (folder != "normal").then_some(0.3 + 0.03 * i as f32);
            scene.frame(object).save(dir.path().join(format!("{folder}/{i:03}.png"))).unwrap();
        }
    }
    dir
}

fn fit(dir: &Path, extra: &[&str]) -> (i32, String, String) {
    let model: PathBuf = dir.join("m.outlierd");
    let mut command = outlierd();
    command.current_dir(dir);
    let output = command.args(["fit", "--normal", "normal", "--grid", "-o"]).arg(&model).args(extra).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(!err.contains("panicked"), "{err}");
    (output.status.code().unwrap(), out, err)
}

#[track_caller]
fn report(dir: &Path, extra: &[&str]) -> (Value, String) {
    let (code, out, err) = fit(dir, &[&["--json"], extra].concat());
    assert_eq!(code, 0, "{err}");
    (serde_json::from_str(&out).unwrap(), err)
}

fn chosen(grid: &Value) -> &Value {
    let rows = grid["rows"].as_array().unwrap();
    let chosen: Vec<&Value> = rows.iter().filter(|row| row["chosen"] == true).collect();
    assert_eq!(chosen.len(), 1);
    chosen[0]
}

#[test]
fn normals_alone_are_enough_and_a_seed_gives_the_same_choice() {
    let dir = pictures();
    let (first, err) = report(dir.path(), &["--set", "pca.n_components=0.9"]);
    let grid = &first["grid"];
    assert_eq!((&grid["detector"], &grid["criterion"]), (&"pooled+cells".into(), &"auroc-synthetic-outliers".into()));
    let rows = grid["rows"].as_array().unwrap();
    assert_eq!(grid["n_fits"].as_u64().unwrap(), 5 * rows.len() as u64);
    assert!(err.contains(&format!("{} fits", grid["n_fits"])), "{err}");
    let means: Vec<f64> = rows.iter().map(|row| row["mean"].as_f64().unwrap()).collect();
    assert!(means.is_sorted_by(|a, b| a >= b) && means[0] > 0.5 && means[0] <= 1.0, "{means:?}");
    assert!(rows.iter().all(|row| row["parameters"].get("pca.n_components").is_none()));
    assert_eq!((grid["n_normal"].as_u64(), first["n_calibration"].as_u64()), (Some(32), Some(8)));
    assert!(grid["n_outliers"].as_u64().unwrap() <= 200);
    assert_eq!(report(dir.path(), &["--set", "pca.n_components=0.9"]).0["grid"], *grid);
    let (code, out, _) = fit(dir.path(), &["--set", "pca.n_components=0.9"]);
    assert!(code == 0 && out.contains("\n> ") && out.contains("synthetic outliers"), "{out}");
}

#[test]
fn the_chosen_parameters_are_those_of_the_model() {
    let dir = pictures();
    let (report, _) = report(dir.path(), &["--detector", "isolation-forest"]);
    let trees = chosen(&report["grid"])["parameters"]["isolation_forest.n_estimators"].as_str().unwrap();
    let inspect = outlierd().args(["inspect", "--json"]).arg(dir.path().join("m.outlierd")).output().unwrap();
    let text = String::from_utf8(inspect.stdout).unwrap();
    assert!(text.contains("n_estimators") && text.contains(trees), "{trees} not in {text}");
}

#[test]
fn outliers_that_choose_do_not_calibrate() {
    let dir = pictures();
    let (all, _) = report(dir.path(), &["--detector", "pca-residual", "--outliers", "odd"]);
    assert_eq!(all["grid"]["criterion"], "auroc-labelled-outliers");
    assert_eq!((all["grid"]["n_outliers"].as_u64(), all["n_outliers"].as_u64()), (Some(8), Some(8)));
    assert_eq!(all["evaluation"]["calibration"], "isotonic");
    let (few, err) = report(dir.path(), &["--detector", "pca-residual", "--outliers", "few"]);
    assert_eq!(few["grid"]["criterion"], "auroc-synthetic-outliers");
    assert_eq!(few["n_outliers"].as_u64(), Some(3));
    assert!(err.contains("too few to choose by"), "{err}");
}
