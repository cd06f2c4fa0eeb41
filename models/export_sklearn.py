"""Writes a pipeline fitted with scikit-learn to an .npz file for `outlierd import-sklearn`.

    from export_sklearn import export
    export("tiles.npz", scaler, pca, detector, isotonic=isotonic)

`scaler` is a StandardScaler, `pca` a PCA, `detector` a GaussianMixture, OneClassSVM or IsolationForest fitted on
`pca.transform(scaler.transform(features))`, the features as outlierd's backbone gives them. `isotonic` is an
IsotonicRegression fitted on the detector's scores with 1 for inliers and 0 for outliers; without labelled outliers
give `calibration_scores` instead, the scores of normals that nothing was fitted on. Scores are `score_samples` of a
GaussianMixture and `decision_function` of the others. Outside of the scores that `isotonic` saw, outlierd clips.
"""

import numpy as np


def export(path, scaler, pca, detector, isotonic=None, calibration_scores=None, n_calibration=0):
    n, kind = pca.n_features_in_, type(detector).__name__
    out = {"version": 1, "n_train": pca.n_samples_, "n_calibration": n_calibration, "pca_whiten": int(pca.whiten)}
    out["scaler_mean"] = scaler.mean_ if scaler.with_mean else np.zeros(n)
    out["scaler_scale"] = scaler.scale_ if scaler.with_std else np.ones(n)
    out |= {f"pca_{name}": getattr(pca, name + "_") for name in ("mean", "components", "explained_variance")}
    if kind == "GaussianMixture":
        out["gmm_covariance_type"] = ("spherical", "diag", "tied", "full").index(detector.covariance_type)
        out |= {f"gmm_{name}": getattr(detector, name + "_") for name in ("weights", "means", "precisions_cholesky")}
    elif kind == "OneClassSVM":
        out["svm_kernel"] = ("linear", "poly", "rbf", "sigmoid").index(detector.kernel)
        out |= {"svm_gamma": detector._gamma, "svm_coef0": detector.coef0, "svm_degree": detector.degree}
        out |= {"svm_support_vectors": detector.support_vectors_, "svm_dual_coef": detector.dual_coef_[0]}
        out["svm_offset"] = detector.offset_[0]
    elif kind == "IsolationForest":
        trees = [tree.tree_ for tree in detector.estimators_]
        features = [columns[np.maximum(t.feature, 0)] for t, columns in zip(trees, detector.estimators_features_)]
        out |= {"forest_nodes": [t.node_count for t in trees], "forest_feature": np.concatenate(features)}
        out["forest_threshold"] = np.concatenate([np.where(t.feature < 0, 0.0, t.threshold) for t in trees])
        out["forest_left"] = np.concatenate([np.maximum(t.children_left, 0) for t in trees])
        out["forest_right"] = np.concatenate([np.maximum(t.children_right, 0) for t in trees])
        out["forest_n_node_samples"] = np.concatenate([t.n_node_samples for t in trees])
        out |= {"forest_max_samples": detector._max_samples, "forest_offset": detector.offset_}
    else:
        raise TypeError(f"outlierd cannot import a {kind}")
    if isotonic is not None:
        out |= {"isotonic_x": isotonic.X_thresholds_, "isotonic_y": isotonic.y_thresholds_}
    elif calibration_scores is not None:
        out["calibration_scores"] = calibration_scores
    np.savez_compressed(path, **out)
