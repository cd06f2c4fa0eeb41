"""Writes the fixtures of tests/import.rs: exported pipelines and what scikit-learn answers.

    python tests/sklearn/make_import_fixtures.py

Made with scikit-learn 1.9.1. NAME.npz is the export, NAME-expected.npz holds new features, scores and p.
"""

import pathlib
import sys

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.isotonic import IsotonicRegression
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "models"))
from export_sklearn import export  # noqa: E402

FEATURES, COMPONENTS = 40, 12
rng = np.random.default_rng(4)
mixing = rng.normal(size=(FEATURES, FEATURES)) * np.exp(-0.1 * np.arange(FEATURES))[:, None]
scales = np.exp(rng.normal(size=FEATURES))


def features(n, shift):
    """Averages of ReLU outputs are positive and skewed: so are these."""
    centers = np.repeat([[0.0], [1.5], [-1.5]], -(-n // 3), axis=0)[:n]
    return (np.log1p(np.exp((rng.normal(size=(n, FEATURES)) + centers + shift) @ mixing / 4)) * scales).astype("f4")


def fixture(name, detector, whiten=True, calibrated="isotonic", scaler=StandardScaler()):
    train, normal, outliers, new = features(240, 0), features(80, 0), features(80, 1.2), features(30, 0.5)
    scaler = scaler.fit(train.astype("f8"))
    pca = PCA(n_components=COMPONENTS, whiten=whiten, svd_solver="full").fit(scaler.transform(train.astype("f8")))
    project = lambda x: pca.transform(scaler.transform(x.astype("f8")))
    detector.fit(project(train))
    score = detector.score_samples if isinstance(detector, GaussianMixture) else detector.decision_function
    inlier, outlier, scores = (score(project(x)) for x in (normal, outliers, new))
    if calibrated == "isotonic":
        isotonic = IsotonicRegression(out_of_bounds="clip")
        isotonic.fit(np.concatenate([inlier, outlier]), np.repeat([1.0, 0.0], 80))
        export(HERE / f"import/{name}.npz", scaler, pca, detector, isotonic=isotonic, n_calibration=160)
        p = isotonic.predict(scores)
    else:
        export(HERE / f"import/{name}.npz", scaler, pca, detector, calibration_scores=inlier)
        p = np.array([(1 + np.sum(inlier <= s)) / 81 for s in scores])
    np.savez(HERE / f"import/{name}-expected.npz", x=new, score=scores, p=p)


for covariance in ("spherical", "diag", "tied", "full"):
    fixture(f"gmm-{covariance}", GaussianMixture(3, covariance_type=covariance, random_state=0))
fixture("gmm-plain", GaussianMixture(2, random_state=0), whiten=False, calibrated="conformal",
        scaler=StandardScaler(with_mean=False, with_std=False))
fixture("svm-rbf", OneClassSVM(nu=0.08, gamma="scale"))
fixture("svm-linear", OneClassSVM(kernel="linear", nu=0.2))
fixture("svm-poly", OneClassSVM(kernel="poly", degree=2, coef0=1.0, gamma=0.05, nu=0.1))
fixture("svm-sigmoid", OneClassSVM(kernel="sigmoid", gamma=0.01, coef0=0.1, nu=0.1))
fixture("forest", IsolationForest(n_estimators=10, max_samples=64, random_state=0))
fixture("forest-subset", IsolationForest(n_estimators=10, max_samples=32, max_features=0.5, contamination=0.05, random_state=0),
        calibrated="conformal")
# Arrays of other types and orders.
np.savez(HERE / "import/types.npz", f4=np.arange(6, dtype="f4").reshape(2, 3), u4=np.uint32([7, 4294967295]),
         fortran=np.asfortranarray(np.arange(24, dtype="i4").reshape(2, 3, 4)), i8=np.int64(-5))
