//! Pipelines fitted with scikit-learn (tests/sklearn/make_import_fixtures.py) become models that score the same.

use std::path::{Path, PathBuf};

use crate::common::daemon::outlierd;
use ndarray::{Array1, Array2, Array3, Ix1, Ix2, Ix3};
use outlierd::internals::model::{FeatureSource, Model, file};
use outlierd::internals::training::import;
use outlierd::internals::training::npz::{Error, Npz};

const PIPELINES: [&str; 11] = [
    "gmm-spherical",
    "gmm-diag",
    "gmm-tied",
    "gmm-full",
    "gmm-plain",
    "svm-rbf",
    "svm-linear",
    "svm-poly",
    "svm-sigmoid",
    "forest",
    "forest-subset",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/sklearn/import/{name}.npz"))
}

fn imported(bytes: &[u8]) -> Result<Model, import::Error> {
    import::model(&Npz::parse(bytes)?, FeatureSource::unknown(), 0.05)
}

#[test]
fn scores_and_p_are_scikit_learn_s() {
    for name in PIPELINES {
        let model = imported(&std::fs::read(fixture(name)).unwrap()).unwrap();
        let model = file::decode(&file::encode(&model).unwrap()).unwrap();
        let expected = Npz::read(&fixture(&format!("{name}-expected"))).unwrap();
        let x: Array2<f64> = expected.array::<Ix2>("x").unwrap();
        let scores: Array1<f64> = expected.array::<Ix1>("score").unwrap();
        let p: Array1<f64> = expected.array::<Ix1>("p").unwrap();
        // A decision function near 0 is a small difference of large sums.
        let typical = scores.iter().map(|s| s.abs()).sum::<f64>() / scores.len() as f64;
        let mut worst = (0.0_f64, 0.0_f64);
        for ((row, score), p) in x.rows().into_iter().zip(&scores).zip(&p) {
            let row: Vec<f32> = row.iter().map(|v| *v as f32).collect();
            let verdict = model.score(&row, None).unwrap();
            let off = (verdict.score - score).abs() / score.abs().max(typical);
            assert!(off <= 1e-4, "{name}: score {} for {score}", verdict.score);
            let of_score = model.calibration.p(*score);
            assert!((of_score - p).abs() <= 1e-4 * p.max(1e-2), "{name}: p {of_score} for {p}");
            worst = (worst.0.max(off), worst.1.max((of_score - p).abs()));
        }
        println!("{name}: scores within {:.1e} relative, p within {:.1e}", worst.0, worst.1);
        assert!(p.iter().any(|p| *p != p.round()) || scores.len() < 2, "{name}: p says nothing");
    }
}

#[test]
fn every_type_and_order_of_numpy() {
    let arrays = Npz::read(&fixture("types")).unwrap();
    assert_eq!(arrays.array::<Ix2>("f4").unwrap(), ndarray::array![[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]);
    assert_eq!(arrays.counts("u4", u32::MAX).unwrap(), [7, u32::MAX]);
    let fortran: Array3<f64> = arrays.array::<Ix3>("fortran").unwrap();
    assert_eq!(fortran, Array3::from_shape_fn((2, 3, 4), |(a, b, c)| (12 * a + 4 * b + c) as f64));
    assert_eq!(arrays.number("i8").unwrap(), -5.0);
    assert!(matches!(arrays.count("i8", 9), Err(Error::Value { .. })));
    assert!(matches!(arrays.array::<Ix1>("f4"), Err(Error::Shape { .. })));
    assert!(matches!(arrays.number("nothing"), Err(Error::Missing("nothing"))));
}

#[test]
fn cut_files_are_refused() {
    for name in ["gmm-full", "forest", "types"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        for cut in (0..whole.len()).step_by(7).chain(whole.len() - 30..whole.len()) {
            assert!(Npz::parse(&whole[..cut]).is_err(), "{name} cut at {cut}");
        }
    }
}

/// A flipped bit is refused, or harms nothing that is read; either way nothing panics.
#[test]
fn damaged_files_never_panic_and_never_score_otherwise() {
    for name in ["gmm-diag", "svm-rbf", "forest"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        let probe = [0.7_f32; 40];
        let right = imported(&whole).unwrap().score(&probe, None).unwrap();
        let mut refused = 0;
        let places: Vec<usize> = (0..whole.len()).step_by(3).chain(whole.len() - 60..whole.len()).collect();
        for &at in &places {
            let mut bad = whole.clone();
            bad[at] ^= 1 << (at % 8);
            match imported(&bad) {
                Err(_) => refused += 1,
                Ok(model) => assert_eq!(model.score(&probe, None).unwrap(), right, "{name} flipped at {at}"),
            }
        }
        assert!(refused * 10 > places.len() * 7, "{name}: {refused} of {} refused", places.len());
    }
}

#[test]
fn wrong_arrays_are_named() {
    let types = import::model(&Npz::read(&fixture("types")).unwrap(), FeatureSource::unknown(), 0.05).unwrap_err();
    assert!(types.to_string().contains("no array version"), "{types}");
    let arrays = Npz::read(&fixture("gmm-plain")).unwrap();
    assert!(matches!(import::model(&arrays, FeatureSource::unknown(), 1.5), Err(import::Error::Rate(_))));
    let model = import::model(&arrays, FeatureSource::unknown(), 0.03).unwrap();
    assert_eq!((model.calibration.name(), model.threshold), ("conformal", 0.03));
    let width = import::check_width(&model, 1024).unwrap_err();
    assert!(width.to_string().contains("features of 40 values") && width.to_string().contains("1024"), "{width}");
}

#[test]
fn the_command_tells_what_is_wrong_with_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("m.outlierd");
    let broken = dir.path().join("broken.npz");
    std::fs::write(&broken, b"not an archive, though long enough to be one").unwrap();
    let other = fixture("gmm-full");
    for (input, code, word) in [
        (dir.path().join("absent.npz"), 66, "absent.npz"),
        (broken, 65, "not an .npz file"),
        (other, 65, "features of 40 values"),
    ] {
        let mut command = outlierd();
        let run = command.arg("import-sklearn").arg(&input).arg("-o").arg(&output).output().unwrap();
        let err = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(code), "{err}");
        assert!(err.contains(word), "{err}");
        assert!(!output.exists());
    }
}
