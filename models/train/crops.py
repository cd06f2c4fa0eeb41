"""Crops for distillation and what the teacher makes of them, computed once and memory-mapped.

    python crops.py --teacher teacher.onnx --out DIR --count 40000 --photos DIR... [--formulas 0.25]

A crop is 224 x 224: of a photograph (15 to 100 % of its area, turned, mirrored, grey or in other light), of several
photographs side by side at their own scale, which keeps fine detail that enlarging blurs, or of a formula
(`pictures.py`). Some photographs get one of the formulas' defects pasted. `teacher.onnx` is a ResNet-50 that ends at
layer3, int8 by `outlierd quantize --input caffe`. In DIR:

    x.npy       u8 [count, 3, 224, 224]     RGB
    t2.npy      i8 [count, 128, 28, 28]     the teacher's layer2, reduced by PCA, over scale2
    t3.npy      i8 [count, 256, 14, 14]     layer3 likewise
    basis.npz   mean, projection and scale of both

A component's deviation is the square root of the deviation that PCA found: between whitened and as it is. Crop `i` depends
on the seed and `i` alone; a broken run goes on where it stood.
"""
import argparse
import os
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from PIL import Image, ImageEnhance, ImageFilter

SIDE = 224
COMPONENTS = {"layer2": 128, "layer3": 256}
GRIDS = {"layer2": 28, "layer3": 14}
CAFFE_MEAN = np.array([103.939, 116.779, 123.68], np.float32)
BLOCK = 64
CLIP = 5.0


class Teacher:
    """layer2 and layer3 of a ResNet-50 in QDQ form, as rows of cells."""

    def __init__(self, path):
        model = onnx.load(path)
        consumers = {}
        for node in model.graph.node:
            for name in node.input:
                consumers.setdefault(name, []).append(node)
        adds = [node.output[0] for node in model.graph.node if node.op_type == "Add"]
        if len(adds) < 13:
            raise SystemExit(f"{path}: {len(adds)} residual sums; a ResNet-50 up to layer3 has 13")
        outputs = []
        for name in (adds[6], adds[12]):
            while consumers.get(name) and consumers[name][0].op_type in ("Relu", "QuantizeLinear", "DequantizeLinear"):
                name = consumers[name][0].output[0]
            outputs.append(name)
        del model.graph.output[:]
        model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def __call__(self, crop):
        """u8 [224, 224, 3] to {layer: f32 [cells, channels]}"""
        x = (crop[:, :, ::-1].astype(np.float32) - CAFFE_MEAN).transpose(2, 0, 1)[None]
        maps = self.session.run(None, {self.input: np.ascontiguousarray(x)})
        return {layer: m[0].reshape(m.shape[1], -1).T for layer, m in zip(COMPONENTS, maps)}


class Crops:
    """Crop `i` is `crops[i]`, u8 [224, 224, 3]."""

    def __init__(self, files, seed, formulas):
        self.files, self.seed = files, seed
        self.share = formulas if files else 1.0
        self.block = (None, None)

    def random(self, *what):
        return np.random.default_rng((self.seed, *what))

    def photo(self, rng):
        return Image.open(self.files[rng.integers(len(self.files))]).convert("RGB")

    def part(self, rng, width, height, least):
        """A random part of a photograph, at least `least` of its area, resized."""
        photo = self.photo(rng)
        w, h = photo.size
        for _ in range(10):
            area = w * h * rng.uniform(least, 1)
            ratio = width / height * np.exp(rng.uniform(np.log(0.75), np.log(1.33)))
            cw, ch = int(round((area * ratio) ** 0.5)), int(round((area / ratio) ** 0.5))
            if 0 < cw <= w and 0 < ch <= h:
                break
        else:
            cw = ch = min(w, h)
        x, y = rng.integers(0, w - cw + 1), rng.integers(0, h - ch + 1)
        method = (Image.BILINEAR, Image.BICUBIC)[rng.integers(2)]
        return photo.resize((width, height), method, box=(x, y, x + cw, y + ch))

    def mosaic(self, rng):
        """2 to 9 parts side by side."""
        columns, rows = [(2, 1), (1, 2), (2, 2), (2, 2), (3, 3)][rng.integers(5)]
        canvas = Image.new("RGB", (SIDE, SIDE))
        xs = [round(i * SIDE / columns) for i in range(columns + 1)]
        ys = [round(i * SIDE / rows) for i in range(rows + 1)]
        for left, right in zip(xs, xs[1:]):
            for top, bottom in zip(ys, ys[1:]):
                canvas.paste(self.part(rng, right - left, bottom - top, 0.3), (left, top))
        return canvas

    def toned(self, rng, crop):
        if rng.random() < 0.5:
            crop = crop.transpose(Image.FLIP_LEFT_RIGHT)
        if rng.random() < 0.25:
            crop = crop.transpose([Image.ROTATE_90, Image.ROTATE_180, Image.ROTATE_270][rng.integers(3)])
        if rng.random() < 0.25:
            crop = crop.convert("L").convert("RGB")
        if rng.random() < 0.6:
            crop = ImageEnhance.Brightness(crop).enhance(rng.uniform(0.5, 1.5))
            crop = ImageEnhance.Contrast(crop).enhance(rng.uniform(0.5, 1.6))
        if rng.random() < 0.3:
            crop = crop.filter(ImageFilter.UnsharpMask(rng.uniform(1, 3), int(rng.uniform(50, 200)), 0))
        crop = np.asarray(crop)
        if rng.random() < 0.15:
            noise = rng.normal(0, rng.uniform(2, 10), crop.shape)
            crop = (crop + noise).clip(0, 255).round().astype(np.uint8)
        return crop

    def formula(self, index):
        import pictures

        number = index // BLOCK
        if self.block[0] != number:
            every = range(number * BLOCK, (number + 1) * BLOCK)
            here = [i for i in every if self.random(1, i).random() < self.share]
            made = pictures.batch(self.seed, number, n=len(here), size=SIDE).permute(0, 2, 3, 1).numpy()
            self.block = (number, dict(zip(here, made)))
        return self.block[1][index]

    def marred(self, rng, crop, stranger, index):
        """`crop` with one of the formulas' defects."""
        import pictures
        import torch

        pair = torch.from_numpy(np.stack([crop, stranger])).permute(0, 3, 1, 2).float() / 255
        kind = int(rng.integers(1, len(pictures.DEFECTS)))
        made = pictures.defective(pictures.Draw(self.seed, 55, index), pair[:1], kind, pair[1:])
        return (made[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()

    def __getitem__(self, index):
        rng = self.random(1, index)
        lot = rng.random()
        if lot < self.share:
            return self.formula(index)
        mosaic = rng.random() < 0.15
        crop = self.toned(rng, self.mosaic(rng) if mosaic else self.part(rng, SIDE, SIDE, 0.15))
        if rng.random() < 0.1:
            crop = self.marred(rng, crop, np.asarray(self.part(rng, SIDE, SIDE, 0.15)), index)
        return crop


def basis(teacher, crops, count):
    """PCA of the cells of `count` crops that are not trained on."""
    cells = {layer: [] for layer in COMPONENTS}
    for index in range(count):
        for layer, rows in teacher(crops[(1 << 30) + index * BLOCK]).items():
            cells[layer].append(rows[:: 11 if layer == "layer2" else 3])
    saved = {}
    for layer, rows in cells.items():
        rows = np.concatenate(rows).astype(np.float64)
        mean = rows.mean(0)
        variances, axes = np.linalg.eigh(np.cov((rows - mean).T))
        keep = COMPONENTS[layer]
        kept, axes = variances[::-1][:keep], axes[:, ::-1][:, :keep]
        print(f"{layer}: {keep} components hold {kept.sum() / variances.sum():.4f} of the variance", flush=True)
        deviation = (kept / kept[0]) ** 0.25
        saved |= {f"mean_{layer}": mean, f"axes_{layer}": axes * (deviation / np.sqrt(kept)),
                  f"scale_{layer}": CLIP * deviation / 127}
    return {key: value.astype(np.float32) for key, value in saved.items()}


class Worker:
    def __init__(self, args, files):
        import torch

        torch.set_num_threads(1)
        self.teacher = Teacher(args.teacher)
        self.crops = Crops(files, args.seed, args.formulas)
        self.basis = dict(np.load(args.out / "basis.npz"))

    def __call__(self, number):
        rows = []
        for index in range(number * BLOCK, (number + 1) * BLOCK):
            crop = self.crops[index]
            row = [crop.transpose(2, 0, 1)]
            for layer, cells in self.teacher(crop).items():
                part = (cells - self.basis[f"mean_{layer}"]) @ self.basis[f"axes_{layer}"] / self.basis[f"scale_{layer}"]
                part = part.round().clip(-127, 127).astype(np.int8)
                row.append(part.T.reshape(-1, GRIDS[layer], GRIDS[layer]))
            rows.append(row)
        return number, [np.stack(part) for part in zip(*rows)]


_worker = None


def start(args, files):
    global _worker
    _worker = Worker(args, files)


def work(number):
    return _worker(number)


def shapes(count):
    yield "x", (count, 3, SIDE, SIDE), np.uint8
    for layer, name in (("layer2", "t2"), ("layer3", "t3")):
        yield name, (count, COMPONENTS[layer], GRIDS[layer], GRIDS[layer]), np.int8


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40_000, help="crops; rounded up to whole blocks of 64")
    parser.add_argument("--photos", nargs="*", default=[], help="folders, or lists with a path a line")
    parser.add_argument("--formulas", type=float, default=0.25, help="share of crops that are made by formulas")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    files = []
    for source in map(Path, args.photos):
        if source.is_dir():
            files += sorted(p for p in source.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        else:
            files += [source.parent / line.strip() for line in source.read_text().splitlines() if line.strip()]
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "basis.npz").exists():
        np.savez(args.out / "basis.npz", **basis(Teacher(args.teacher), Crops(files, args.seed, args.formulas), 400))
    blocks = -(-args.count // BLOCK)
    maps = []
    for name, shape, kind in shapes(blocks * BLOCK):
        path = args.out / f"{name}.npy"
        mode = "r+" if path.exists() else "w+"
        maps.append(np.lib.format.open_memmap(path, mode, kind, shape))
        if maps[-1].shape != shape:
            raise SystemExit(f"{path}: holds {maps[-1].shape[0]} crops, not {shape[0]}: take another --out")
    done = args.out / "done.txt"
    finished = set(map(int, done.read_text().split())) if done.exists() else set()
    print(f"{len(files)} photographs, {blocks} blocks of {BLOCK}, {len(finished)} done", flush=True)
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with get_context("spawn").Pool(args.processes, start, (args, files)) as pool, done.open("a") as log:
        for number, parts in pool.imap_unordered(work, (n for n in range(blocks) if n not in finished)):
            for target, part in zip(maps, parts):
                target[number * BLOCK : (number + 1) * BLOCK] = part
            print(number, file=log, flush=True)
            if number % 20 == 19:
                print(f"block {number + 1} of {blocks}", flush=True)
    for target in maps:
        target.flush()


if __name__ == "__main__":
    main()
