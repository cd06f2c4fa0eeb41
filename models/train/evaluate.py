"""Picture sets to choose a backbone by, none of them a test list, and the AUROC that outlierd reaches on them.

    python evaluate.py make DIR --images ../shared/images
    python evaluate.py judge DIR backbone.onnx [--outlierd PROGRAM] [--tap T] [--pooling P]

`make` writes DIR/<set>/{train,normal,outlier}: of every picture set's training list seven tenths to fit, and the others as
they are and with a formula's defect pasted; food of the training list against photographs; the repositories of many
photographs (`sources.tsv`) against each other; plates rendered by code (`scenes.py`). `judge` fits the default detector.
"""
import argparse
import csv
import json
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import pictures
import scenes

SEED = 8101
SIDE = 320
SETS = ("magnetic-tiles", "commutators", "cookies", "toy-figures", "road")
AT_MOST = 200


def read(path):
    """f32 [1, 3, SIDE, SIDE] in [0, 1]"""
    picture = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.BILINEAR)
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float().unsqueeze(0) / 255


def write(folder, number, picture):
    """`picture`: u8 [3, height, width]"""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{number:04}.png")


def write_list(folder, name, paths):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text("".join(f"{Path(path).resolve()}\n" for path in paths))


def listed(path):
    return [path.parent / line.strip() for line in path.read_text().splitlines() if line.strip()]


def dealt(rng, paths):
    """Seven tenths and the others."""
    paths = [paths[i] for i in rng.permutation(len(paths))[:AT_MOST]]
    cut = round(0.7 * len(paths))
    return paths[:cut], paths[cut:]


def make(args):
    rng = np.random.default_rng(SEED)
    for name in SETS:
        folder = args.dir / name
        train, held = dealt(rng, listed(args.images / name / "train.txt"))
        write_list(folder, "train", train)
        write_list(folder, "normal", held)
        for number in range(max(60, len(held))):
            draw = pictures.Draw(SEED, 3, number)
            kind = int(draw.integer(1, len(pictures.DEFECTS)))
            picture, stranger = read(held[number % len(held)]), read(held[(number + 1) % len(held)])
            made = pictures.defective(draw, picture, kind, stranger)
            write(folder / "outlier", number, (made[0].clamp(0, 1) * 255).round().byte())
        write_list(folder, "outlier", sorted((folder / "outlier").iterdir()))
    natural = sorted((args.images / "natural").glob("*.jpg"))
    train, held = dealt(rng, listed(args.images / "food" / "train.txt"))
    for part, paths in (("train", train), ("normal", held), ("outlier", natural[::4])):
        write_list(args.dir / "food", part, paths)
    by_repository = defaultdict(list)
    with (args.images / "photos" / "sources.tsv").open(newline="") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            by_repository[row["repository"]].append(args.images / "photos" / row["file"])
    large = sorted(by_repository.items(), key=lambda entry: -len(entry[1]))[:8]
    for number, (name, paths) in enumerate(large):
        train, held = dealt(rng, paths)
        others = [path for other, theirs in large if other != name for path in theirs[::10]]
        for part, paths in (("train", train), ("normal", held), ("outlier", others)):
            write_list(args.dir / f"photos-{number}", part, paths)
    for part, seed, fault, n in (("train", 41, None, 200), ("normal", 42, None, 100), *(("outlier", 43, f, 17) for f in scenes.FAULTS)):
        for number, picture in enumerate(scenes.plates(seed, n, fault, 224)):
            write(args.dir / "plates" / part, number if fault is None else 100 * (1 + scenes.FAULTS.index(fault)) + number, picture)
    for part in ("train", "normal", "outlier"):
        write_list(args.dir / "plates", part, sorted((args.dir / "plates" / part).iterdir()))


def run(command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def judge(args):
    options = [f"--{name}={value}" for name, value in (("tap", args.tap), ("pooling", args.pooling), ("resize", args.resize)) if value]
    if str(args.backbone) != "embedded":
        options.append(f"--backbone={args.backbone}")
    every = []
    for folder in sorted(path for path in args.dir.iterdir() if (path / "train.txt").exists()):
        with tempfile.TemporaryDirectory() as scratch:
            model = f"{scratch}/model.outlierd"
            run([args.outlierd, "fit", "--normal", folder / "train.txt", "-o", model, *options])
            report = run([args.outlierd, "eval", "--json", "--model", model, "--normal", folder / "normal.txt",
                          "--outliers", folder / "outlier.txt"])
        every.append(json.loads(report)["auroc"])
        print(f"{folder.name:16}{every[-1]:.4f}", flush=True)
    print(f"{'mean':16}{np.mean(every):.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(required=True)
    making = actions.add_parser("make")
    making.add_argument("dir", type=Path)
    making.add_argument("--images", type=Path, required=True)
    making.set_defaults(run=make)
    judging = actions.add_parser("judge")
    judging.add_argument("dir", type=Path)
    judging.add_argument("backbone", type=Path, help="an ONNX file, or `embedded`")
    judging.add_argument("--outlierd", default="outlierd")
    for name in ("tap", "pooling", "resize"):
        judging.add_argument(f"--{name}")
    judging.set_defaults(run=judge)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
