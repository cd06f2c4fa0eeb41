"""Time of fitting all default detectors on 5,000 x 2,048 features, against scikit-learn, interleaved.

    cargo build --release --example fit_npy
    python benches/fit_vs_sklearn.py target/release/examples/fit_npy [rounds]
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM


def features(n=5000, d=2048, clusters=12, rank=300):
    """Like pooled ReLU outputs: not negative, skewed, correlated, in clusters."""
    rng = np.random.default_rng(0)
    decay = np.exp(-np.arange(rank) / 60)
    z = rng.normal(size=(clusters, rank))[rng.integers(clusters, size=n)] * 0.7 + rng.normal(size=(n, rank))
    x = (z * decay) @ rng.normal(size=(rank, d)) * 0.15 + rng.normal(size=(n, d)) * 0.2
    return np.log1p(np.exp(2 * x)).astype(np.float32)


def scikit_learn(path):
    x = np.load(path).astype(np.float64)
    steps = {}
    start = last = time.perf_counter()

    def lap(name):
        nonlocal last
        now = time.perf_counter()
        steps[name] = now - last
        last = now

    scaled = StandardScaler().fit_transform(x)
    lap("scaler")
    pca = PCA(n_components=512, whiten=True, random_state=0).fit(scaled)
    lap("pca")
    z = pca.transform(scaled)
    residual = ((scaled - pca.inverse_transform(z)) ** 2).sum(axis=1)
    lap("transform+residual")
    mixture = GaussianMixture(18, covariance_type="spherical", random_state=0).fit(z)
    lap("gaussian-mixture")
    svm = OneClassSVM(kernel="rbf", gamma=0.001, nu=0.08).fit(z)
    lap("one-class-svm")
    IsolationForest(n_estimators=40, max_samples=1.0, random_state=0, n_jobs=-1).fit(z)
    lap("isolation-forest")
    steps = {"total": time.perf_counter() - start, **steps}
    print(
        f"explained {pca.explained_variance_ratio_.sum():.6f} noise {pca.noise_variance_:.6f} "
        f"residual {residual.mean():.4f} lower bound {mixture.lower_bound_:.4f} support {len(svm.support_)} "
        f"offset {svm.offset_[0]:.5f}",
        file=sys.stderr,
    )
    return steps


def main():
    program, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder) / "features.npy")
        np.save(path, features())
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(json.loads(subprocess.run([program, path], check=True, capture_output=True).stdout))
            theirs.append(scikit_learn(path))
    print(f"{'step':20} {'outlierd':>9} {'sklearn':>9} {'ratio':>6}   (median of {rounds}, seconds)")
    for step in theirs[0]:
        a, b = (statistics.median(run[step] for run in runs) for runs in (ours, theirs))
        print(f"{step:20} {a:9.3f} {b:9.3f} {a / b:6.2f}")
    print("`fit` of one detector with its calibration, against the same steps without one:")
    for detector in ("gaussian-mixture", "one-class-svm", "isolation-forest"):
        steps = ("scaler", "pca", "transform+residual", detector)
        a = statistics.median(run[f"fit {detector}"] for run in ours)
        b = statistics.median(sum(run[step] for step in steps) for run in theirs)
        print(f"{detector:20} {a:9.3f} {b:9.3f} {a / b:6.2f}")


if __name__ == "__main__":
    main()
