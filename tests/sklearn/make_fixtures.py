"""Writes the fixtures of tests/estimators.rs: inputs and what scikit-learn answers.

    python tests/sklearn/make_fixtures.py

Made with scikit-learn 1.9.1. The fixtures are deterministic for one version of numpy and scikit-learn.
"""

import json
import pathlib

import numpy as np
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.ensemble._iforest import _average_path_length
from sklearn.isotonic import IsotonicRegression
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

HERE = pathlib.Path(__file__).parent


def write(name, value):
    def plain(v):
        if isinstance(v, dict):
            return {k: plain(w) for k, w in v.items()}
        if isinstance(v, (list, tuple)):
            return [plain(w) for w in v]
        if isinstance(v, np.ndarray):
            return v.tolist()
        if isinstance(v, np.generic):
            return v.item()
        return v

    text = json.dumps(plain(value), separators=(",", ":"))
    (HERE / f"{name}.json").write_text(text + "\n")
    print(f"{name}.json {len(text)} bytes")


def blobs(rng, n, d, k, spread=2.0):
    """Clusters of correlated samples, rounded so that the JSON stays small."""
    centers = rng.normal(size=(k, d)) * spread
    mixing = rng.normal(size=(d, d)) / np.sqrt(d)
    x = centers[rng.integers(k, size=n)] + rng.normal(size=(n, d)) @ mixing
    return np.round(x, 4)


def standard_scaler():
    rng = np.random.default_rng(1)
    x = np.round(rng.normal(size=(40, 7)) * [1, 10, 1e-3, 1e4, 1, 1, 1] + [0, 5, 1, 1e5, 0, 0, 3], 6)
    x[:, 4] = 2.5  # constant
    x[:, 5] = 0.1 + 1e-17  # constant, its mean is rounded
    scaler = StandardScaler().fit(x)
    write("standard_scaler", {
        "x": x, "mean": scaler.mean_, "var": scaler.var_, "scale": scaler.scale_, "transformed": scaler.transform(x),
    })


def pca():
    rng = np.random.default_rng(2)
    cases = []
    for n, d, n_components, solver, whiten in [
        (60, 8, 5, "full", True),
        (60, 8, 8, "full", False),
        (60, 8, 0.9, "full", False),
        (20, 30, 12, "full", True),
        (20, 30, 0.8, "full", True),
        (60, 8, 3, "covariance_eigh", True),
        (80, 24, 4, "randomized", True),
        (24, 60, 4, "randomized", False),
    ]:
        scales = np.exp(-0.3 * np.arange(d))
        x = np.round(rng.normal(size=(n, d)) * scales @ np.linalg.qr(rng.normal(size=(d, d)))[0] + 1.0, 5)
        new = np.round(rng.normal(size=(5, d)), 3)
        model = PCA(n_components=n_components, svd_solver=solver, whiten=whiten, random_state=0).fit(x)
        z = model.transform(new)
        back = model.inverse_transform(z)
        cases.append({
            "x": x, "new": new, "n_components": n_components, "solver": solver, "whiten": whiten,
            "components": model.components_, "explained_variance": model.explained_variance_,
            "explained_variance_ratio": model.explained_variance_ratio_, "noise_variance": model.noise_variance_,
            "transformed": z, "inverse": back, "residual": ((new - back) ** 2).sum(axis=1),
        })
    write("pca", cases)


def gaussian_mixture():
    rng = np.random.default_rng(3)
    k, d = 4, 5
    x = blobs(rng, 160, d, k, spread=1.2)
    new = np.round(rng.normal(size=(12, d)) * 2, 3)
    means = np.round(x[rng.choice(len(x), k, replace=False)], 4)
    weights = np.full(k, 1 / k)
    root = rng.normal(size=(d, d)) * 0.2
    full = np.round(root @ root.T + np.eye(d), 6)
    precisions = {
        "spherical": np.linspace(0.5, 1.5, k),
        "diag": np.round(rng.uniform(0.5, 1.5, size=(k, d)), 6),
        "tied": full,
        "full": np.stack([full * s for s in (0.5, 1.0, 1.5, 2.0)]),
    }
    cases = []
    for kind, start in precisions.items():
        model = GaussianMixture(
            k, covariance_type=kind, weights_init=weights, means_init=means, precisions_init=start,
            reg_covar=1e-5, tol=1e-5, max_iter=200,
        ).fit(x)
        cases.append({
            "covariance_type": kind, "precisions_init": start, "weights": model.weights_, "means": model.means_,
            "covariances": model.covariances_, "precisions_cholesky": model.precisions_cholesky_,
            "converged": model.converged_, "n_iter": model.n_iter_, "lower_bound": model.lower_bound_,
            "score_samples": model.score_samples(new), "predict_proba": model.predict_proba(new),
        })
    # From their own k-means the fits differ; on clusters this far apart they must not.
    apart = blobs(rng, 120, 6, 3, spread=12.0)
    own = [
        {"covariance_type": kind, "lower_bound": m.lower_bound_, "weights": np.sort(m.weights_),
         "score_samples": m.score_samples(apart)}
        for kind in precisions
        for m in [GaussianMixture(3, covariance_type=kind, random_state=0, n_init=5).fit(apart)]
    ]
    write("gaussian_mixture", {
        "x": x, "new": new, "means_init": means, "weights_init": weights, "cases": cases, "apart": apart, "own": own,
    })


def isotonic():
    rng = np.random.default_rng(4)
    cases = []
    for n, ties, weighted, increasing, y_min, y_max in [
        (50, False, False, True, None, None),
        (60, True, False, True, 0.0, 1.0),
        (60, True, True, True, None, None),
        (40, True, True, False, 0.1, 0.8),
        (1, False, False, True, None, None),
    ]:
        x = np.round(rng.normal(size=n), 1 if ties else 5)
        y = (rng.uniform(size=n) < 1 / (1 + np.exp(-2 * x))).astype(float)
        weight = np.round(rng.uniform(size=n), 3) if weighted else np.ones(n)
        if weighted:
            weight[::7] = 0.0
        new = np.round(np.linspace(-4, 4, 41), 3)
        model = IsotonicRegression(y_min=y_min, y_max=y_max, increasing=increasing, out_of_bounds="clip")
        model.fit(x, y, sample_weight=weight)
        cases.append({
            "x": x, "y": y, "weight": weight, "increasing": increasing, "y_min": y_min, "y_max": y_max, "new": new,
            "x_thresholds": model.X_thresholds_, "y_thresholds": model.y_thresholds_, "predicted": model.predict(new),
        })
    write("isotonic", cases)


def conformal():
    beta = [[q, a, b, stats.beta.ppf(q, a, b)] for q in (0.025, 0.5, 0.975) for a, b in
            ((1, 100), (2, 99), (5, 200), (50, 951), (0.5, 0.5), (300, 20))]
    clopper = []
    for count, m in ((0, 50), (3, 190), (50, 50), (20, 1000)):
        interval = stats.binomtest(count, m).proportion_ci(0.95, method="exact")
        clopper.append([count, m, interval.low, interval.high])
    observed = []
    for n, m, k in ((152, 190, 2), (999, 190, 10), (500, 100, 25)):
        dist = stats.betabinom(m, k, n + 1 - k)
        observed.append([n, m, k, dist.ppf(0.025) / m, dist.ppf(0.975) / m])
    write("conformal", {"beta_quantile": beta, "clopper_pearson": clopper, "observed": observed})


def one_class_svm():
    rng = np.random.default_rng(5)
    x = blobs(rng, 150, 6, 3, spread=1.0)
    new = np.round(rng.normal(size=(40, 6)) * 1.5, 3)
    cases = []
    for params in (
        dict(kernel="rbf", gamma="scale", nu=0.1),
        dict(kernel="rbf", gamma=0.001, nu=0.08),
        dict(kernel="rbf", gamma="auto", nu=0.5, tol=1e-6),
        dict(kernel="linear", nu=0.2),
        dict(kernel="poly", degree=3, coef0=1.0, gamma=0.05, nu=0.15),
        dict(kernel="sigmoid", coef0=0.1, gamma=0.01, nu=0.3),
    ):
        model = OneClassSVM(**params).fit(x)
        alpha = np.zeros(len(x))
        alpha[model.support_] = model.dual_coef_[0]
        cases.append({
            "params": params, "offset": model.offset_[0], "alpha": alpha,
            "decision": model.decision_function(new), "score_samples": model.score_samples(new),
        })
    write("one_class_svm", {"x": x, "new": new, "cases": cases})


def isolation_forest():
    rng = np.random.default_rng(6)
    x = blobs(rng, 200, 5, 2).astype(np.float32).astype(np.float64)
    new = np.round(rng.normal(size=(30, 5)) * 3, 2)
    model = IsolationForest(n_estimators=8, max_samples=64, max_features=3, contamination=0.1, random_state=0).fit(x)
    trees = [
        {
            "features": features, "feature": np.maximum(tree.tree_.feature, 0), "threshold": tree.tree_.threshold,
            "left": np.maximum(tree.tree_.children_left, 0), "right": np.maximum(tree.tree_.children_right, 0),
            "n_node_samples": tree.tree_.n_node_samples,
        }
        for tree, features in zip(model.estimators_, model.estimators_features_)
    ]
    counts = [1, 2, 3, 5, 10, 256, 762, 100000]
    write("isolation_forest", {
        "x": x, "new": new, "trees": trees, "offset": model.offset_, "max_samples": model.max_samples_,
        "score_samples": model.score_samples(new), "decision_function": model.decision_function(new),
        "average_path_length": [counts, _average_path_length(np.array(counts))],
        "mean_of_seeds": np.mean([
            IsolationForest(n_estimators=100, random_state=s).fit(x).score_samples(new) for s in range(20)
        ], axis=0),
    })


if __name__ == "__main__":
    standard_scaler()
    pca()
    gaussian_mixture()
    isotonic()
    conformal()
    one_class_svm()
    isolation_forest()
