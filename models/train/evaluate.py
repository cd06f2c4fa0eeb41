"""AUROC of one-class detectors on a backbone's features, through onnxruntime, pooled by the greatest value over the
views that the file names in its metadata.

    python evaluate.py backbone.onnx                        formula scenes: the set to choose by
    python evaluate.py backbone.onnx --plates               rendered plates with faults
    python evaluate.py backbone.onnx --tiles DIR            magnetic tiles (train.txt, test-normal.txt, test-outlier.txt)

Detectors as in outlierd's recipe: StandardScaler, PCA with whitening (at most 512 components and half of what the
number of pictures and features allow), then `mixture` (GaussianMixture, 18 spherical components), `residual`
(negated squared distance to the PCA reconstruction); `gauss` is the Mahalanobis distance with Ledoit-Wolf shrinkage.
"""
import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

MEAN = np.array((0.485, 0.456, 0.406), np.float32).reshape(1, 3, 1, 1)
STD = np.array((0.229, 0.224, 0.225), np.float32).reshape(1, 3, 1, 1)
LAST_ADDS = {"layer2": 6, "layer3": 12, "layer4": 15}
TAPS = ("layer2", "layer3", "layer4", "layer2+layer3", "layer3+layer4", "layer2+layer3+layer4")
SCENE_SEED = 8101


class Features:
    """The pooled outputs of layer2, layer3, layer4 of a float or QDQ file, averaged over its views."""

    def __init__(self, path, threads):
        model = onnx.load(path)
        self.corners = any(p.key == "outlierd.views" and p.value == "whole+corners" for p in model.metadata_props)
        consumers = {}
        for node in model.graph.node:
            for name in node.input:
                consumers.setdefault(name, []).append(node)
        adds = [node for node in model.graph.node if node.op_type == "Add"]
        outputs = []
        for index in LAST_ADDS.values():
            name = adds[index].output[0]
            while True:
                after = consumers.get(name, [])
                if not after or after[0].op_type not in ("Relu", "QuantizeLinear", "DequantizeLinear"):
                    break
                name = after[0].output[0]
            outputs.append(name)
        del model.graph.output[:]
        model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in outputs)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].shape[2]
        # The side of the pictures that are asked for.
        self.size = self.input + -(-self.input // 10) if self.corners else self.input

    def views(self, picture):
        if not self.corners:
            return [picture]
        whole = Image.fromarray(picture.transpose(1, 2, 0)).resize((self.input, self.input), Image.BILINEAR)
        first = slice(0, self.input), slice(self.size - self.input, None)
        corners = [picture[:, rows, columns] for rows in first for columns in first]
        return [np.asarray(whole).transpose(2, 0, 1), *corners]

    def __call__(self, pictures):
        """u8 [n, 3, size, size] to {tap: [n, features]}."""
        rows = {tap: [] for tap in LAST_ADDS}
        for picture in pictures:
            seen = [(view[None].astype(np.float32) / 255 - MEAN) / STD for view in self.views(picture)]
            maps = [self.session.run(None, {"input": x}) for x in seen]
            for tap, values in zip(rows, zip(*maps)):
                rows[tap].append(np.mean([value.max((2, 3))[0] for value in values], 0))
        single = {tap: np.array(value, np.float64) for tap, value in rows.items()}
        return {tap: np.concatenate([single[part] for part in tap.split("+")], 1) for tap in TAPS}


def scores(train, tests, seed=0):
    scaler = StandardScaler().fit(train)
    train, tests = scaler.transform(train), [scaler.transform(test) for test in tests]
    count = min(512, train.shape[1] // 2, train.shape[0] // 2)
    pca = PCA(count, whiten=True, svd_solver="full", random_state=seed).fit(train)
    mixture = GaussianMixture(min(18, len(train) // 10), covariance_type="spherical", random_state=seed).fit(pca.transform(train))
    gauss = LedoitWolf().fit(train)
    residual = lambda x: -((x - pca.inverse_transform(pca.transform(x))) ** 2).sum(1)
    return {
        "mixture": [mixture.score_samples(pca.transform(test)) for test in tests],
        "residual": [residual(test) for test in tests],
        "gauss": [-gauss.mahalanobis(test) for test in tests],
    }


def table(features, train, normal, outlier):
    """{tap: {detector: AUROC of inliers against outliers}}"""
    parts = [features(pictures) for pictures in (train, normal, outlier)]
    truth = np.r_[np.ones(len(normal)), np.zeros(len(outlier))]
    result = {}
    for tap in TAPS:
        by_detector = scores(parts[0][tap], [parts[1][tap], parts[2][tap]])
        result[tap] = {name: roc_auc_score(truth, np.concatenate(pair)) for name, pair in by_detector.items()}
    return result


def scene_sets(size):
    """Formula scenes: for each family one class, look and light that training did not have; all defects mixed."""
    import torch
    import pictures

    torch.set_num_threads(1)
    for index, family in enumerate(pictures.FAMILIES):
        sets = []
        for part, n in ((0, 200), (1, 66), (2, 66)):
            made = pictures.normals(SCENE_SEED + part, index, family, n, size, SCENE_SEED)
            if part == 2:
                each = n // (len(pictures.DEFECTS) - 1)
                for kind in range(1, len(pictures.DEFECTS)):
                    rows = slice((kind - 1) * each, kind * each)
                    strangers = pictures.clean(pictures.Draw(SCENE_SEED, 5, kind), "marble", torch.rand(each, 8), size)
                    made[rows] = pictures.defective(pictures.Draw(SCENE_SEED, 6, index, kind), made[rows], kind, strangers)
            made = pictures.finished(pictures.Draw(SCENE_SEED, 7, index, part), made)
            sets.append((made * 255).round().byte().numpy())
        yield family, sets


def plate_sets(size):
    import torch
    import scenes

    torch.set_num_threads(1)
    faults = [scenes.plates(43, 34, fault, size) for fault in scenes.FAULTS]
    return [scenes.plates(41, 400, None, size).numpy(), scenes.plates(42, 200, None, size).numpy(), torch.cat(faults).numpy()]


def read(root, name, size):
    """The pictures of a list, stretched to size x size."""
    lines = [line.strip() for line in (root / name).read_text().splitlines() if line.strip()]
    made = [np.asarray(Image.open(root / line).convert("RGB").resize((size, size), Image.BILINEAR)) for line in lines]
    return np.stack(made).transpose(0, 3, 1, 2)


def show(title, result):
    print(title)
    for tap, row in result.items():
        print(f"  {tap:24}" + "  ".join(f"{name} {value:.4f}" for name, value in row.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("onnx")
    parser.add_argument("--tiles", type=Path)
    parser.add_argument("--plates", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    features = Features(args.onnx, args.threads)
    if args.tiles:
        sets = [read(args.tiles, f"{name}.txt", features.size) for name in ("train", "test-normal", "test-outlier")]
        result = table(features, *sets)
        show(f"tiles: {', '.join(str(len(s)) for s in sets)} pictures", result)
    elif args.plates:
        result = table(features, *plate_sets(features.size))
        show("plates", result)
    else:
        every = [table(features, *sets) for _, sets in scene_sets(features.size)]
        result = {tap: {name: float(np.mean([t[tap][name] for t in every])) for name in every[0][tap]} for tap in TAPS}
        show(f"formula scenes, mean of {len(every)}", result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
