//! The estimators against scikit-learn's answers (`tests/sklearn`), and on input that has no good answer.

use ndarray::{Array1, Array2, ArrayView1, array};
use outlierd::internals::estimators::Error;
use outlierd::internals::estimators::conformal::{self, Conformal};
use outlierd::internals::estimators::feature_transform::FeatureTransform;
use outlierd::internals::estimators::gaussian_mixture::{
    CovarianceType, Covariances, GaussianMixture, GaussianMixtureParams,
};
use outlierd::internals::estimators::isolation_forest::{
    self, Amount, Contamination, IsolationForest, IsolationForestParams, Tree,
};
use outlierd::internals::estimators::isotonic::{IsotonicRegression, IsotonicRegressionParams};
use outlierd::internals::estimators::mixture_residual::MixtureResidual;
use outlierd::internals::estimators::one_class_svm::{Gamma, KernelName, OneClassSvm, OneClassSvmParams};
use outlierd::internals::estimators::pca::{NComponents, Pca, PcaParams, SvdSolver};
use outlierd::internals::estimators::standard_scaler::StandardScaler;
use serde_json::Value;

fn fixture(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sklearn").join(format!("{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn vector(v: &Value) -> Array1<f64> {
    v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn matrix(v: &Value) -> Array2<f64> {
    let rows: Vec<Array1<f64>> = v.as_array().unwrap().iter().map(vector).collect();
    let mut out = Array2::zeros((rows.len(), rows[0].len()));
    out.outer_iter_mut().zip(&rows).for_each(|(mut o, r)| o.assign(r));
    out
}

fn list(v: &Value) -> &[Value] {
    v.as_array().unwrap()
}

/// The score of every row.
fn scores(x: &Array2<f64>, one: impl Fn(ArrayView1<f64>) -> Result<f64, Error>) -> Array1<f64> {
    x.outer_iter().map(|row| one(row).unwrap()).collect()
}

/// Every entry within `tol` of the wanted one, relative to the largest wanted entry.
#[track_caller]
fn close<'a>(
    what: &str,
    got: impl IntoIterator<Item = &'a f64>,
    want: impl IntoIterator<Item = &'a f64> + Clone,
    tol: f64,
) {
    let scale = want.clone().into_iter().fold(1e-300f64, |m, v| m.max(v.abs()));
    let (got, want): (Vec<f64>, Vec<f64>) = (got.into_iter().copied().collect(), want.into_iter().copied().collect());
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!((g - w).abs() <= tol * scale, "{what}[{i}]: {g} is not {w}");
    }
}

#[test]
fn standard_scaler_is_scikit_learns() {
    let f = fixture("standard_scaler");
    let x = matrix(&f["x"]);
    let scaler = StandardScaler::fit(x.view()).unwrap();
    for (got, name) in [(&scaler.mean, "mean"), (&scaler.var, "var"), (&scaler.scale, "scale")] {
        for (g, w) in got.iter().zip(&vector(&f[name])) {
            assert!((g - w).abs() <= 1e-9 * w.abs().max(1e-12), "{name}: {g} is not {w}");
        }
    }
    let transformed = scaler.transform(x.view()).unwrap();
    close("transformed", &transformed, &matrix(&f["transformed"]), 1e-9);
}

#[test]
fn pca_is_scikit_learns() {
    for (i, f) in list(&fixture("pca")).iter().enumerate() {
        let (x, new) = (matrix(&f["x"]), matrix(&f["new"]));
        let n_components = match f["n_components"].as_u64() {
            Some(k) => NComponents::Count(k as usize),
            None => NComponents::Variance(f["n_components"].as_f64().unwrap()),
        };
        let randomized = f["solver"] == "randomized";
        let params = PcaParams {
            n_components,
            whiten: f["whiten"].as_bool().unwrap(),
            svd_solver: if randomized { SvdSolver::Randomized } else { SvdSolver::Full },
            ..PcaParams::default()
        };
        let pca = Pca::fit(x.view(), &params).unwrap();
        let tol = if randomized { 1e-4 } else { 1e-6 };
        let case = |what: &str| format!("case {i} {what}");
        close(&case("components"), &pca.components, &matrix(&f["components"]), tol);
        close(&case("variance"), &pca.explained_variance, &vector(&f["explained_variance"]), tol);
        close(&case("ratio"), &pca.explained_variance_ratio, &vector(&f["explained_variance_ratio"]), tol);
        let noise = f["noise_variance"].as_f64().unwrap();
        assert!((pca.noise_variance - noise).abs() <= tol * noise + 1e-12, "{i}: {} {noise}", pca.noise_variance);
        let (z, residual) = pca.transform_with_residual(new.view()).unwrap();
        close(&case("transformed"), &z, &matrix(&f["transformed"]), tol);
        for (r, w) in residual.iter().zip(&vector(&f["residual"])) {
            assert!((r - w).abs() <= tol * w + 1e-12, "{i}: residual {r} is not {w}");
        }
    }
}

fn covariances(kind: &str, v: &Value) -> Covariances {
    match kind {
        "spherical" => Covariances::Spherical(vector(v)),
        "diag" => Covariances::Diag(matrix(v)),
        "tied" => Covariances::Tied(matrix(v)),
        _ => Covariances::Full(list(v).iter().map(matrix).collect()),
    }
}

fn covariance_type(kind: &str) -> CovarianceType {
    match kind {
        "spherical" => CovarianceType::Spherical,
        "diag" => CovarianceType::Diag,
        "tied" => CovarianceType::Tied,
        _ => CovarianceType::Full,
    }
}

fn entries(c: &Covariances) -> Vec<f64> {
    match c {
        Covariances::Spherical(c) => c.to_vec(),
        Covariances::Diag(c) | Covariances::Tied(c) => c.iter().copied().collect(),
        Covariances::Full(c) => c.iter().flat_map(|c| c.iter().copied()).collect(),
    }
}

#[test]
fn gaussian_mixture_from_one_start_is_scikit_learns() {
    let f = fixture("gaussian_mixture");
    let (x, new) = (matrix(&f["x"]), matrix(&f["new"]));
    for case in list(&f["cases"]) {
        let kind = case["covariance_type"].as_str().unwrap();
        let params = GaussianMixtureParams {
            n_components: 4,
            covariance_type: covariance_type(kind),
            reg_covar: 1e-5,
            tol: 1e-5,
            max_iter: 200,
            weights_init: Some(vector(&f["weights_init"])),
            means_init: Some(matrix(&f["means_init"])),
            precisions_init: Some(covariances(kind, &case["precisions_init"])),
            ..GaussianMixtureParams::default()
        };
        let mixture = GaussianMixture::fit(x.view(), &params).unwrap();
        assert_eq!(mixture.converged, case["converged"].as_bool().unwrap(), "{kind}");
        assert_eq!(mixture.n_iter as u64, case["n_iter"].as_u64().unwrap(), "{kind}");
        close(kind, &[mixture.lower_bound], &[case["lower_bound"].as_f64().unwrap()], 1e-8);
        close(kind, &mixture.weights, &vector(&case["weights"]), 1e-6);
        close(kind, &mixture.means, &matrix(&case["means"]), 1e-6);
        close(kind, &entries(&mixture.covariances), &entries(&covariances(kind, &case["covariances"])), 1e-6);
        let cholesky = covariances(kind, &case["precisions_cholesky"]);
        close(kind, &entries(&mixture.precisions_cholesky), &entries(&cholesky), 1e-6);
        close(kind, &scores(&new, |row| mixture.score_one(row)), &vector(&case["score_samples"]), 1e-6);
    }
}

#[test]
fn gaussian_mixture_finds_the_clusters_that_scikit_learn_finds() {
    let f = fixture("gaussian_mixture");
    let x = matrix(&f["apart"]);
    for own in list(&f["own"]) {
        let kind = own["covariance_type"].as_str().unwrap();
        let params = GaussianMixtureParams {
            n_components: 3,
            covariance_type: covariance_type(kind),
            n_init: 5,
            ..GaussianMixtureParams::default()
        };
        let mixture = GaussianMixture::fit(x.view(), &params).unwrap();
        close(kind, &scores(&x, |row| mixture.score_one(row)), &vector(&own["score_samples"]), 1e-3);
        let again = GaussianMixture::fit(x.view(), &params).unwrap();
        assert_eq!(mixture, again, "{kind}: one seed, one fit");
    }
}

#[test]
fn isotonic_regression_is_scikit_learns() {
    for (i, f) in list(&fixture("isotonic")).iter().enumerate() {
        let (x, y, weight) = (vector(&f["x"]), vector(&f["y"]), vector(&f["weight"]));
        let params = IsotonicRegressionParams {
            y_min: f["y_min"].as_f64(),
            y_max: f["y_max"].as_f64(),
            increasing: f["increasing"].as_bool().unwrap(),
        };
        let weight = Some(weight.to_vec());
        let model = IsotonicRegression::fit(&x.to_vec(), &y.to_vec(), weight.as_deref(), &params).unwrap();
        close(&format!("case {i} x"), &model.x_thresholds, &vector(&f["x_thresholds"]), 1e-12);
        close(&format!("case {i} y"), &model.y_thresholds, &vector(&f["y_thresholds"]), 1e-9);
        let predicted = vector(&f["new"]).mapv(|v| model.predict_one(v));
        close(&format!("case {i} predicted"), &predicted, &vector(&f["predicted"]), 1e-6);
    }
}

#[test]
fn conformal_intervals_are_scipys() {
    let f = fixture("conformal");
    for case in list(&f["clopper_pearson"]) {
        let [count, m, low, high] = vector(case).to_vec()[..] else { panic!() };
        let got = conformal::clopper_pearson(count as usize, m as usize, 0.95);
        close("clopper-pearson", &[got.0, got.1], &[low, high], 1e-9);
    }
    for case in list(&f["observed"]) {
        let [n, m, k, low, high] = vector(case).to_vec()[..] else { panic!() };
        let calibration = Conformal::counted(&(0..n as usize).map(|i| i as f64).collect::<Vec<_>>()).unwrap();
        let rate = (k + 0.5) / (n + 1.0);
        assert_eq!(calibration.threshold(rate), Some(k - 1.0));
        let got = calibration.observed_false_alarm_interval(rate, m as usize);
        close("observed", &[got.0, got.1], &[low, high], 1e-9);
        let realised = calibration.false_alarm_interval(rate);
        assert!(got.0 <= realised.0 && realised.1 <= got.1 && realised.0 < rate && rate < realised.1);
    }
    for case in list(&f["beta_quantile"]) {
        let [q, a, b, want] = vector(case).to_vec()[..] else { panic!() };
        if a.fract() == 0.0 && q != 0.5 {
            let scores: Vec<f64> = (0..(a + b - 1.0) as usize).map(|i| i as f64).collect();
            let got = Conformal::counted(&scores).unwrap().false_alarm_interval((a + 0.5) / (a + b));
            close("beta", &[if q < 0.5 { got.0 } else { got.1 }], &[want], 1e-9);
        }
    }
}

#[test]
fn conformal_threshold_and_p_value_agree() {
    let scores: Vec<f64> = (0..199).map(|i| ((i * 7919) % 199) as f64).collect();
    let calibration = Conformal::counted(&scores).unwrap();
    for rate in [0.004, 0.005, 0.01, 0.02, 0.05, 0.5, 0.99] {
        match calibration.threshold(rate) {
            None => assert!(calibration.p_value(f64::NEG_INFINITY) >= rate),
            Some(threshold) => {
                for score in -2..201 {
                    let score = f64::from(score);
                    assert_eq!(calibration.p_value(score) < rate, score < threshold, "{rate} {score} {threshold}");
                }
            }
        }
        let scores = |n: usize| (0..n).map(|i| i as f64).collect::<Vec<_>>();
        for n in 1..1200 {
            let shown = Conformal::counted(&scores(n)).unwrap().threshold(rate).is_some();
            assert_eq!(shown, 1.0 / (n as f64 + 1.0) < rate, "{rate} {n}");
        }
    }
    assert_eq!(calibration.p_value(f64::NAN), 1.0 / 200.0);
}

#[test]
fn a_calibration_with_a_tail_is_continuous_and_cut_where_p_is_the_rate() {
    let scores: Vec<f64> = (1..=300).map(|i| (f64::from(i) / 301.0).ln()).collect();
    let calibration = Conformal::fit(&scores, 300.0).unwrap();
    let (mut before, mut score) = (0.0, -30.0);
    while score < 0.1 {
        let p = calibration.p_value(score);
        assert!(p >= before && p - before < 0.012, "{before} to {p} at {score}");
        // The scores are logarithms of p.
        assert!(!(-5.0..0.0).contains(&score) || (p.ln() - score).abs() < 0.1 - 0.1 * score, "{p} at {score}");
        (before, score) = (p, score + 0.01);
    }
    assert_eq!(before, 1.0);
    for rate in [1e-6, 0.001, 0.01, 0.1, 0.19, 0.21, 0.5] {
        let cut = calibration.threshold(rate).unwrap();
        assert!(calibration.p_value(cut.next_down()) < rate && calibration.p_value(cut) >= rate, "{rate}");
        let ((low, high), (least, most)) =
            (calibration.false_alarm_interval(rate), calibration.observed_false_alarm_interval(rate, 200));
        assert!(
            low < rate && rate < high && least <= low.max(0.005) && high <= most + 0.005,
            "{rate}: {low} {high} {least} {most}"
        );
    }
}

#[test]
fn degenerate_input_is_refused_by_name() {
    let ok = Array2::from_shape_fn((12, 3), |(i, j)| ((i * 5 + j * 3) % 7) as f64);
    let mut nan = ok.clone();
    nan[[4, 1]] = f64::NAN;
    let mut inf = ok.clone();
    inf[[7, 0]] = f64::INFINITY;
    let none = Array2::<f64>::zeros((0, 3));
    let no_features = Array2::<f64>::zeros((5, 0));
    let pca = PcaParams { n_components: NComponents::Count(2), ..PcaParams::default() };
    let mixture = GaussianMixtureParams { n_components: 2, ..GaussianMixtureParams::default() };
    for (x, sample) in [(&nan, 4), (&inf, 7)] {
        let is = |e: Error| matches!(e, Error::NotFinite { sample: s, .. } if s == sample);
        assert!(is(StandardScaler::fit(x.view()).unwrap_err()));
        assert!(is(Pca::fit(x.view(), &pca).unwrap_err()));
        assert!(is(GaussianMixture::fit(x.view(), &mixture).unwrap_err()));
    }
    let few = |e: Error| matches!(e, Error::TooFewSamples { .. });
    assert!(few(StandardScaler::fit(none.view()).unwrap_err()));
    assert!(few(Pca::fit(ok.slice(ndarray::s![..1, ..]), &pca).unwrap_err()));
    assert!(few(GaussianMixture::fit(ok.slice(ndarray::s![..1, ..]), &mixture).unwrap_err()));
    assert!(matches!(StandardScaler::fit(no_features.view()), Err(Error::NoFeatures { .. })));
    let more = PcaParams { n_components: NComponents::Count(4), ..PcaParams::default() };
    assert!(matches!(Pca::fit(ok.view(), &more), Err(Error::Parameter { parameter: "n_components", .. })));
    let fitted = StandardScaler::fit(ok.view()).unwrap();
    assert!(matches!(fitted.transform(array![[1.0, 2.0]].view()), Err(Error::Features { expected: 3, got: 2, .. })));
    assert!(Conformal::counted(&[]).is_err());
    assert!(Conformal::fit(&[1.0, f64::NAN], 2.0).is_err());
    assert!(Conformal::fit(&[1.0; 10], 11.0).is_err());
    assert!(IsotonicRegression::fit(&[], &[], None, &IsotonicRegressionParams::default()).is_err());
    assert!(IsotonicRegression::fit(&[1.0], &[1.0, 2.0], None, &IsotonicRegressionParams::default()).is_err());
}

#[test]
fn constant_and_repeated_samples_fit_without_panic() {
    let constant = Array2::from_elem((12, 3), 2.0);
    let scaler = StandardScaler::fit(constant.view()).unwrap();
    assert!(scaler.transform(constant.view()).unwrap().iter().all(|v| *v == 0.0));
    for whiten in [false, true] {
        for x in [constant.clone(), Array2::from_shape_fn((12, 3), |(i, j)| ((i % 2) * (j + 1)) as f64)] {
            let params = PcaParams { n_components: NComponents::Count(3), whiten, ..PcaParams::default() };
            let pca = Pca::fit(x.view(), &params).unwrap();
            assert!(pca.transform(x.view()).unwrap().iter().all(|v| v.is_finite()));
            let axes = pca.components.dot(&pca.components.t());
            close("orthonormal axes", &axes, &Array2::<f64>::eye(3), 1e-9);
        }
    }
    for kind in ["spherical", "diag", "tied", "full"] {
        let params = GaussianMixtureParams {
            n_components: 3,
            covariance_type: covariance_type(kind),
            ..GaussianMixtureParams::default()
        };
        let mixture = GaussianMixture::fit(constant.view(), &params).unwrap();
        assert!(scores(&constant, |row| mixture.score_one(row)).iter().all(|v| v.is_finite()), "{kind}");
        let params = GaussianMixtureParams { reg_covar: 0.0, ..params };
        assert!(matches!(GaussianMixture::fit(constant.view(), &params), Err(Error::Singular { .. })), "{kind}");
    }
}

fn svm_params(v: &Value) -> OneClassSvmParams {
    OneClassSvmParams {
        kernel: match v["kernel"].as_str().unwrap() {
            "linear" => KernelName::Linear,
            "poly" => KernelName::Poly,
            "sigmoid" => KernelName::Sigmoid,
            _ => KernelName::Rbf,
        },
        gamma: match (v["gamma"].as_str(), v["gamma"].as_f64()) {
            (Some("auto"), _) => Gamma::Auto,
            (_, Some(gamma)) => Gamma::Value(gamma),
            _ => Gamma::Scale,
        },
        coef0: v["coef0"].as_f64().unwrap_or(0.0),
        tol: v["tol"].as_f64().unwrap_or(1e-3),
        nu: v["nu"].as_f64().unwrap(),
        ..OneClassSvmParams::default()
    }
}

#[test]
fn one_class_svm_is_libsvms() {
    let f = fixture("one_class_svm");
    let (x, new) = (matrix(&f["x"]), matrix(&f["new"]));
    for (i, case) in list(&f["cases"]).iter().enumerate() {
        let params = svm_params(&case["params"]);
        let nu_n = params.nu * x.nrows() as f64;
        // A cache of a few rows and no shrinking must not change the answer.
        for (cache_size, shrinking) in [(200.0, true), (0.003, true), (0.003, false)] {
            let svm =
                OneClassSvm::fit(x.view(), &OneClassSvmParams { cache_size, shrinking, ..params.clone() }).unwrap();
            close(&format!("{i} sum"), &[svm.dual_coef.sum()], &[nu_n], 1e-9);
            assert!(svm.dual_coef.iter().all(|a| *a > 0.0 && *a <= 1.0));
            let decision = scores(&new, |row| svm.score_one(row)) - svm.offset;
            for (g, w) in decision.iter().zip(&vector(&case["decision"])) {
                assert!((g - w).abs() <= 1e-3 * w.abs().max(1.0), "{i}: {g} is not {w}");
            }
        }
    }
}

#[test]
fn isolation_forest_scores_a_given_forest_as_scikit_learn() {
    let f = fixture("isolation_forest");
    let [counts, lengths] = list(&f["average_path_length"]) else { panic!() };
    for (n, want) in vector(counts).iter().zip(&vector(lengths)) {
        close("c(n)", &[isolation_forest::average_path_length(*n as usize)], &[*want], 1e-15);
    }
    let u32s = |v: &Value| vector(v).iter().map(|v| *v as u32).collect::<Vec<u32>>();
    let trees = list(&f["trees"])
        .iter()
        .map(|tree| {
            let features = u32s(&tree["features"]);
            Tree {
                feature: u32s(&tree["feature"]).iter().map(|i| features[*i as usize]).collect(),
                threshold: vector(&tree["threshold"]).to_vec(),
                left: u32s(&tree["left"]),
                right: u32s(&tree["right"]),
                n_node_samples: u32s(&tree["n_node_samples"]),
            }
        })
        .collect();
    let forest = IsolationForest {
        trees,
        n_features: 5,
        max_samples: f["max_samples"].as_u64().unwrap() as usize,
        offset: f["offset"].as_f64().unwrap(),
    };
    let new = matrix(&f["new"]);
    let scores = scores(&new, |row| forest.score_one(row));
    close("score", &scores, &vector(&f["score_samples"]), 1e-12);
    close("decision", &(scores.clone() - forest.offset), &vector(&f["decision_function"]), 1e-12);
}

#[test]
fn isolation_forest_grows_as_scikit_learns() {
    let f = fixture("isolation_forest");
    let (x, new) = (matrix(&f["x"]), matrix(&f["new"]));
    let mean = vector(&f["mean_of_seeds"]);
    let mut sum = Array1::<f64>::zeros(new.nrows());
    for random_state in 0..20 {
        let params = IsolationForestParams {
            n_estimators: 100,
            max_samples: Amount::Count(256),
            random_state,
            contamination: Contamination::Share(0.1),
            ..IsolationForestParams::default()
        };
        let forest = IsolationForest::fit(x.view(), &params).unwrap();
        sum += &scores(&new, |row| forest.score_one(row));
        let negative = scores(&x, |row| forest.score_one(row)).iter().filter(|v| **v < forest.offset).count();
        assert_eq!(negative, 20);
        assert_eq!(forest, IsolationForest::fit(x.view(), &params).unwrap(), "one seed, one forest");
    }
    for (g, w) in (sum / 20.0).iter().zip(&mean) {
        assert!((g - w).abs() < 0.01, "{g} is not near {w}");
    }
}

#[test]
fn mixture_residual_of_one_component_is_probabilistic_pca() {
    // PPCA's log density is that of a Gaussian with covariance W Wᵀ + s I: here scikit-learn's full Gaussian of it.
    let f = &fixture("pca")[5];
    let (x, new) = (matrix(&f["x"]), matrix(&f["new"]));
    let d = x.ncols();
    let params = PcaParams { n_components: NComponents::Count(3), whiten: true, ..PcaParams::default() };
    let pca = Pca::fit(x.view(), &params).unwrap();
    let (z, residual) = pca.transform_with_residual(x.view()).unwrap();
    let one = GaussianMixtureParams { n_components: 1, reg_covar: 0.0, ..GaussianMixtureParams::default() };
    let detector =
        MixtureResidual::fit(z.view(), residual.view(), pca.n_features() - pca.n_components(), pca.log_volume(), &one)
            .unwrap();
    let (z, residual) = pca.transform_with_residual(new.view()).unwrap();
    let n = x.nrows() as f64;
    let s = pca.noise_variance * (n - 1.0) / n;
    close("noise", &[detector.noise_variance], &[s], 1e-9);
    let mut covariance = Array2::<f64>::eye(d) * s;
    for (axis, variance) in pca.components.outer_iter().zip(&pca.explained_variance) {
        let variance = variance * (n - 1.0) / n - s;
        for i in 0..d {
            for j in 0..d {
                covariance[[i, j]] += variance * axis[i] * axis[j];
            }
        }
    }
    let precision = inverse(&covariance);
    let log_det = log_determinant(&covariance);
    for (i, row) in new.outer_iter().enumerate() {
        let c = &row - &pca.mean;
        let want = -0.5 * (d as f64 * std::f64::consts::TAU.ln() + log_det + c.dot(&precision.dot(&c)));
        close("log density", &[detector.score_one(z.row(i), residual[i]).unwrap()], &[want], 1e-6);
    }
}

/// Gauss-Jordan, for small well-conditioned matrices.
fn inverse(a: &Array2<f64>) -> Array2<f64> {
    let n = a.nrows();
    let (mut a, mut out) = (a.clone(), Array2::<f64>::eye(n));
    for k in 0..n {
        let pivot = a[[k, k]];
        a.row_mut(k).mapv_inplace(|v| v / pivot);
        out.row_mut(k).mapv_inplace(|v| v / pivot);
        let (ak, ok) = (a.row(k).to_owned(), out.row(k).to_owned());
        for i in (0..n).filter(|i| *i != k) {
            let factor = a[[i, k]];
            a.row_mut(i).scaled_add(-factor, &ak);
            out.row_mut(i).scaled_add(-factor, &ok);
        }
    }
    out
}

fn log_determinant(a: &Array2<f64>) -> f64 {
    let mut a = a.clone();
    for k in 0..a.nrows() {
        let row = a.row(k).to_owned();
        for i in k + 1..a.nrows() {
            let factor = a[[i, k]] / row[k];
            a.row_mut(i).scaled_add(-factor, &row);
        }
    }
    a.diag().iter().map(|v| v.ln()).sum()
}

fn read_npy(path: &std::path::Path) -> Array2<f64> {
    let bytes = std::fs::read(path).unwrap();
    let body = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..body]).unwrap();
    let shape = header.split_once("'shape': (").unwrap().1.split_once(')').unwrap().0;
    let shape: Vec<usize> = shape.split(',').map(|n| n.trim().parse().unwrap()).collect();
    let values = bytes[body..].chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())));
    Array2::from_shape_vec((shape[0], shape[1]), values.collect()).unwrap()
}

/// Chance that an inlier scores above an outlier.
fn auroc(inliers: &Array1<f64>, outliers: &Array1<f64>) -> f64 {
    let wins: f64 = inliers
        .iter()
        .flat_map(|i| outliers.iter().map(move |o| if i > o { 1.0 } else { f64::from(u8::from(i == o)) * 0.5 }))
        .sum();
    wins / (inliers.len() * outliers.len()) as f64
}

#[test]
fn detectors_reach_scikit_learns_auroc_on_magnetic_tiles() {
    let shared = std::env::var_os("OUTLIERD_SHARED")
        .map_or_else(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), std::path::PathBuf::from);
    let file = |name: &str| shared.join("reference").join(format!("magnetic-tiles-{name}-f32.npy"));
    if !file("train").is_file() {
        println!("SKIPPED detectors_reach_scikit_learns_auroc_on_magnetic_tiles: no reference features");
        return;
    }
    let sets = ["train", "test-normal", "test-outlier"].map(|name| read_npy(&file(name)));
    let prepare = |transform: FeatureTransform, n_components: NComponents| {
        let sets = sets.clone().map(|x| x.mapv(|v| transform.apply(v)));
        let scaler = StandardScaler::fit(sets[0].view()).unwrap();
        let sets = sets.map(|x| scaler.transform(x.view()).unwrap());
        let pca = Pca::fit(sets[0].view(), &PcaParams { n_components, ..PcaParams::default() }).unwrap();
        let projected = sets.each_ref().map(|x| pca.transform_with_residual(x.view()).unwrap());
        (projected, pca)
    };

    // The article's recipe; scikit-learn's figures are of the same parameters.
    let ([train, normal, outlier], _) = prepare(FeatureTransform::Identity, NComponents::Count(512));
    let near = |name: &str, got: f64, want: f64, tol: f64| {
        println!("{name}: {got:.4}, scikit-learn {want:.4}");
        assert!((got - want).abs() <= tol, "{name}: {got} is not {want}");
    };
    let mixture = GaussianMixture::fit(train.0.view(), &GaussianMixtureParams::default()).unwrap();
    let score = |z: &Array2<f64>| scores(z, |row| mixture.score_one(row));
    near("gaussian-mixture", auroc(&score(&normal.0), &score(&outlier.0)), 0.9754, 0.003);
    let svm = OneClassSvm::fit(train.0.view(), &OneClassSvmParams::default()).unwrap();
    let score = |z: &Array2<f64>| scores(z, |row| svm.score_one(row));
    near("one-class-svm", auroc(&score(&normal.0), &score(&outlier.0)), 0.9760, 0.003);
    let forests: f64 = (0..5)
        .map(|random_state| {
            let params = IsolationForestParams { random_state, ..IsolationForestParams::default() };
            let forest = IsolationForest::fit(train.0.view(), &params).unwrap();
            let score = |z: &Array2<f64>| scores(z, |row| forest.score_one(row));
            auroc(&score(&normal.0), &score(&outlier.0)) / 5.0
        })
        .sum();
    near("isolation-forest, mean of 5 seeds", forests, 0.9456, 0.01);
    let score = |residual: &Array1<f64>| residual.mapv(|r| -r);
    near("pca-residual", auroc(&score(&normal.1), &score(&outlier.1)), 0.9814, 0.003);

    // The default of fit.
    let ([train, normal, outlier], pca) = prepare(FeatureTransform::Sqrt, NComponents::Variance(0.98));
    let params = GaussianMixtureParams::default();
    let detector = MixtureResidual::fit(
        train.0.view(),
        train.1.view(),
        pca.n_features() - pca.n_components(),
        pca.log_volume(),
        &params,
    )
    .unwrap();
    let score = |(z, r): &(Array2<f64>, Array1<f64>)| -> Array1<f64> {
        z.outer_iter().zip(r).map(|(row, residual)| detector.score_one(row, *residual).unwrap()).collect()
    };
    let got = auroc(&score(&normal), &score(&outlier));
    println!("mixture+residual after sqrt: {got:.4}");
    assert!(got >= 0.985, "{got}");
}

#[test]
fn detectors_fit_samples_without_information_and_refuse_the_impossible() {
    let constant = Array2::from_elem((12, 3), 2.0);
    let repeated = Array2::from_shape_fn((12, 3), |(i, j)| ((i % 2) * (j + 1)) as f64);
    let single = array![[1.0, -2.0, 0.5]];
    for x in [&constant, &repeated, &single] {
        for kernel in [KernelName::Linear, KernelName::Poly, KernelName::Rbf, KernelName::Sigmoid] {
            for nu in [1e-3, 0.3, 1.0] {
                let params = OneClassSvmParams { kernel, nu, gamma: Gamma::Scale, ..OneClassSvmParams::default() };
                let svm = OneClassSvm::fit(x.view(), &params).unwrap();
                assert!(scores(x, |row| svm.score_one(row)).iter().all(|v| v.is_finite()));
                close("sum", &[svm.dual_coef.sum()], &[nu * x.nrows() as f64], 1e-9);
            }
        }
        for contamination in [Contamination::Auto, Contamination::Share(0.5)] {
            let params = IsolationForestParams { contamination, ..IsolationForestParams::default() };
            let forest = IsolationForest::fit(x.view(), &params).unwrap();
            assert!(scores(x, |row| forest.score_one(row)).iter().all(|v| v.is_finite()));
        }
    }
    let mut nan = repeated.clone();
    nan[[3, 2]] = f64::NAN;
    let mut huge = repeated.clone();
    huge[[5, 1]] = 1e300;
    let svm = OneClassSvmParams::default();
    let forest = IsolationForestParams::default();
    assert!(matches!(OneClassSvm::fit(nan.view(), &svm), Err(Error::NotFinite { sample: 3, .. })));
    assert!(matches!(IsolationForest::fit(nan.view(), &forest), Err(Error::NotFinite { sample: 3, .. })));
    assert!(matches!(IsolationForest::fit(huge.view(), &forest), Err(Error::NotFinite { sample: 5, .. })));
    let poly = OneClassSvmParams { kernel: KernelName::Poly, gamma: Gamma::Value(1.0), ..svm.clone() };
    assert!(matches!(OneClassSvm::fit(huge.view(), &poly), Err(Error::Parameter { parameter: "kernel", .. })));
    for nu in [0.0, 1.5, f64::NAN] {
        let params = OneClassSvmParams { nu, ..svm.clone() };
        assert!(matches!(OneClassSvm::fit(repeated.view(), &params), Err(Error::Parameter { parameter: "nu", .. })));
    }
    for params in [
        IsolationForestParams { n_estimators: 0, ..forest.clone() },
        IsolationForestParams { max_samples: Amount::Share(0.0), ..forest.clone() },
        IsolationForestParams { max_features: Amount::Count(4), ..forest.clone() },
        IsolationForestParams { contamination: Contamination::Share(0.6), ..forest.clone() },
    ] {
        assert!(matches!(IsolationForest::fit(repeated.view(), &params), Err(Error::Parameter { .. })));
    }
    let mixture = GaussianMixtureParams { n_components: 2, ..GaussianMixtureParams::default() };
    let keep = |k| PcaParams { n_components: NComponents::Count(k), ..PcaParams::default() };
    // PCA that reconstructs every training sample, and PCA that keeps every axis: the density must stay finite.
    for k in [1, 3] {
        let pca = Pca::fit(repeated.view(), &keep(k)).unwrap();
        let (z, residual) = pca.transform_with_residual(repeated.view()).unwrap();
        let detector = MixtureResidual::fit(
            z.view(),
            residual.view(),
            pca.n_features() - pca.n_components(),
            pca.log_volume(),
            &mixture,
        )
        .unwrap();
        for (row, residual) in z.outer_iter().zip(&residual) {
            assert!(detector.score_one(row, *residual).unwrap().is_finite());
        }
        let short = MixtureResidual::fit(
            z.view(),
            residual.slice(ndarray::s![1..]),
            pca.n_features() - pca.n_components(),
            0.0,
            &mixture,
        );
        assert!(matches!(short, Err(Error::Length { what: "residual", .. })));
    }
    assert!("cube".parse::<FeatureTransform>().is_err());
    assert_eq!("sqrt".parse::<FeatureTransform>().unwrap().apply(-4.0), -2.0);
}
