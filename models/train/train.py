"""Distils the default backbone from a teacher's maps, which `crops.py` has written.

    python train.py --crops DIR --out OUT --steps 12000

Through 1 x 1 convolutions that are dropped afterwards, layer2 and layer3 are to give the teacher's layer2 and layer3 cell
by cell and on average, and layer4 the mean of four cells of layer3. The first steps see a quarter to a half of each crop,
the last ones the whole. Run again with the same OUT it goes on from the last checkpoint; `--start OTHER/last.pt` begins with the
weights of another run.
"""
import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from network import MEAN, STD, Backbone, Bottleneck, channels

SIDE, CELL2, CELL3 = 224, 8, 16
ALIGN = 32


class Crops:
    """Batches of the memory-mapped crops and maps. A batch is a function of seed and step."""

    def __init__(self, folder, seed):
        self.x, self.t2, self.t3 = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("x", "t2", "t3"))
        basis = np.load(folder / "basis.npz")
        self.scale2, self.scale3 = (torch.from_numpy(basis[f"scale_{layer}"]).view(1, -1, 1, 1) for layer in ("layer2", "layer3"))
        self.seed = seed
        self.mean, self.std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))

    def batch(self, step, count, side):
        """Pictures and both maps, `side` pixels of each crop."""
        rng = np.random.default_rng((self.seed, step))
        rows = np.sort(rng.choice(len(self.x), count, replace=False))
        places = rng.integers(0, (SIDE - side) // ALIGN + 1, (count, 2)) * ALIGN
        parts = []
        for source, cell in ((self.x, 1), (self.t2, CELL2), (self.t3, CELL3)):
            n = side // cell
            parts.append(torch.from_numpy(np.stack([
                source[row, :, y // cell : y // cell + n, x // cell : x // cell + n] for row, (y, x) in zip(rows, places)
            ])).float())
        mirrored = torch.from_numpy(rng.random(count) < 0.5).view(-1, 1, 1, 1)
        x, t2, t3 = (torch.where(mirrored, part.flip(3), part) for part in parts)
        x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return x, t2 * self.scale2, t3 * self.scale3


class Student(nn.Module):
    def __init__(self, width, stem, components):
        super().__init__()
        self.backbone = Backbone(width, stem)
        second, third, fourth = channels(width)[1:]
        self.heads = nn.ModuleList([
            nn.Conv2d(second, components[0], 1), nn.Conv2d(third, components[1], 1), nn.Conv2d(fourth, components[1], 1)
        ])

    def forward(self, x):
        return [head(layer) for head, layer in zip(self.heads, self.backbone(x)[1:])]


class Average:
    """Exponential moving average of weights and batch norm's buffers."""

    def __init__(self, module, decay=0.998):
        self.decay, self.count = decay, 0
        self.state = {key: value.detach().clone() for key, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module):
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                self.state[key].lerp_(value, 1 - decay)
            else:
                self.state[key].copy_(value)


class Ranges:
    """How far activations reach beyond twice their 99.9th percentile, which the first batch sets: int8 has 255 steps
    for the whole range, so a few large values cost all others their precision."""

    def __init__(self, backbone):
        self.seen, self.limits = [], None
        for module in backbone.modules():
            if isinstance(module, (nn.ReLU, Bottleneck)):
                module.register_forward_hook(lambda _module, _inputs, output: self.seen.append(output))

    def excess(self):
        seen, self.seen = self.seen, []
        if self.limits is None:
            sampled = [output.detach().float().flatten()[::97] for output in seen]
            self.limits = [2 * float(torch.quantile(sample[:1_000_000], 0.999)) for sample in sampled]
        peaks = [output.amax((1, 2, 3)).float() for output in seen]
        return sum(F.relu(peak / limit - 1).mean() for peak, limit in zip(peaks, self.limits)) / len(peaks)


def loss_of(made, t2, t3, whole):
    """Squared errors of layer2, layer3 and layer4, and those of their means: what pooling makes of a whole crop counts
    four times, of a part the first two once."""
    p2, p3, p4 = (part.float() for part in made)
    weights = (4, 4, 4) if whole else (1, 1, 0)
    means = sum(w * F.mse_loss(p.mean((2, 3)), t.mean((2, 3))) for w, p, t in zip(weights, (p2, p3, p4), (t2, t3, t3)))
    return F.mse_loss(p2, t2), F.mse_loss(p3, t3), F.mse_loss(p4, F.avg_pool2d(t3, 2)), means


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=Path, required=True, help="folder that crops.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--start", type=Path, help="checkpoint whose weights a new run begins with")
    parser.add_argument("--width", type=int, default=24, help="channels of the first bottleneck; ResNet-50 has 64")
    parser.add_argument("--stem", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--settle", type=int, default=500, help="further steps that also narrow the activations' ranges")
    parser.add_argument("--narrow", type=float, default=0.1, help="weight of the ranges' excess in those steps")
    parser.add_argument("--part", type=int, default=160, help="side of what the first steps see; a multiple of 32")
    parser.add_argument("--whole", type=float, default=0.3, help="share of steps, the last ones, that see whole crops")
    parser.add_argument("--batch", type=int, default=48, help="parts a step; as many pixels of whole crops")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--decay", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    crops = Crops(args.crops, args.seed)
    student = Student(args.width, args.stem, (crops.t2.shape[1], crops.t3.shape[1])).to(memory_format=torch.channels_last)
    last = args.out / "last.pt"
    if args.start and not last.exists():
        student.load_state_dict(torch.load(args.start, weights_only=True)["student"])
    optimizer = torch.optim.AdamW(student.parameters(), lr=args.rate, weight_decay=args.decay, fused=True)
    average = Average(student.backbone)
    step, spent = 0, 0.0
    if last.exists():
        saved = torch.load(last, weights_only=True)
        student.load_state_dict(saved["student"])
        optimizer.load_state_dict(saved["optimizer"])
        average.state, average.count = saved["average"], saved["count"]
        step, spent = saved["step"], saved["spent"]
        print(f"goes on at step {step}", flush=True)

    def save():
        part = args.out / "part.pt"
        torch.save({
            "student": student.state_dict(), "optimizer": optimizer.state_dict(), "average": average.state,
            "count": average.count, "step": step, "spent": spent, "width": args.width, "stem": args.stem,
        }, part)
        part.replace(last)

    whole_from = round((1 - args.whole) * args.steps)
    ranges = None
    sums, since, saved_at = torch.zeros(6), time.monotonic(), time.monotonic()
    log = (args.out / "log.txt").open("a", buffering=1)
    while step < args.steps + args.settle:
        progress = step / args.steps
        rate = args.rate * min(1, (step + 1) / 300) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        if step >= args.steps:
            rate = 0.1 * args.rate * (1 - (step - args.steps) / args.settle)
            ranges = ranges or Ranges(student.backbone)
        for group in optimizer.param_groups:
            group["lr"] = rate
        whole = step >= whole_from
        count = round(args.batch * (args.part / SIDE) ** 2) if whole else args.batch
        x, t2, t3 = crops.batch(step, count, SIDE if whole else args.part)
        with torch.autocast("cpu", torch.bfloat16):
            made = student(x)
        parts = loss_of(made, t2, t3, whole)
        optimizer.zero_grad(set_to_none=True)
        loss = sum(parts)
        if ranges:
            excess = ranges.excess()
            loss = loss + args.narrow * excess
            if step % 50 == 0:
                print(f"excess {excess.item():.3f}", flush=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        average.update(student.backbone)
        step += 1
        sums += torch.stack([part.detach() for part in parts] + [t2.var(), t3.var()])
        if step % 50 == 0:
            now = time.monotonic()
            spent += now - since
            second, third, fourth, means, of2, of3 = (sums / 50).tolist()
            line = (f"step {step} minutes {spent / 60:.1f} rate {rate:.2e} layer2 {second:.4f} of {of2:.4f} "
                    f"layer3 {third:.4f} of {of3:.4f} layer4 {fourth:.4f} means {means:.4f} "
                    f"crops/s {50 * count / (now - since):.0f}")
            print(line, file=log)
            print(line, flush=True)
            sums.zero_()
            since = now
            if now - saved_at > 180:
                save()
                saved_at = since = time.monotonic()
    save()


if __name__ == "__main__":
    main()
