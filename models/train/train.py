"""Trains the default backbone on pictures made by formulas.

    python train.py --out DIR --minutes 60

Three signals, each from the average-pooled maps that outlierd uses as features:
the formula's class, the kind of defect pasted, and, cell by cell, whether a defect can be seen there.
Run again with the same DIR it goes on from the last checkpoint.
"""
import argparse
import math
import os
import time
from collections import OrderedDict
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import torch.nn.functional as F
from torch import nn

import pictures
from network import MEAN, STD, Backbone, channels


class Material(torch.utils.data.Dataset):
    """Item `step` is a whole batch. A made batch is used `reuse` times, each time turned and toned otherwise."""

    def __init__(self, seed, size, reuse, keep=400):
        self.seed, self.size, self.reuse, self.keep = seed, size, reuse, keep
        self.made = OrderedDict()

    def __len__(self):
        return 1 << 40

    def number(self, step, draw):
        newest = step // self.reuse
        if step % self.reuse == 0 or newest == 0:
            return newest
        return int(draw.integer(max(0, newest - self.keep), newest))

    def __getitem__(self, step):
        draw = pictures.Draw(self.seed, 77, step)
        number = self.number(step, draw)
        if number not in self.made:
            self.made[number] = pictures.batch(self.seed, number, size=self.size)
            if len(self.made) > self.keep:
                self.made.popitem(last=False)
        images, classes, kinds, cells = self.made[number]
        images, cells = images.float() / 255, cells.float().unsqueeze(1) / 255
        turns = int(draw.integer(0, 4))
        images, cells = torch.rot90(images, turns, (2, 3)), torch.rot90(cells, turns, (2, 3))
        if draw.chance(0.5):
            images, cells = images.flip(3), cells.flip(3)
        if draw.chance(0.5):
            images = images[:, torch.randperm(3, generator=draw.generator)]
        n = len(images)
        gain, shift = draw.log(0.6, 1.5, n, 1, 1, 1), draw.uniform(-0.12, 0.12, n, 1, 1, 1)
        images = ((images - 0.5) * gain + 0.5 + shift).clamp(0, 1)
        return images, classes, kinds, cells


class Steps(torch.utils.data.Sampler):
    def __init__(self, first):
        self.first = first

    def __iter__(self):
        step = self.first
        while True:
            yield step
            step += 1


class Heads(nn.Module):
    """Linear readings of the pooled maps and of their cells."""

    def __init__(self, width):
        super().__init__()
        sizes = channels(width)[1:]
        self.kind = nn.ModuleList([nn.Linear(size, len(pictures.DEFECTS)) for size in sizes])
        self.formula = nn.ModuleList([nn.Linear(size, pictures.CLASSES) for size in sizes[1:]])
        self.cell = nn.ModuleList([nn.Conv2d(size, 1, 1) for size in sizes])

    def forward(self, maps):
        pooled = [m.mean((2, 3)) for m in maps]
        return (
            [head(p) for head, p in zip(self.kind, pooled)],
            [head(p) for head, p in zip(self.formula, pooled[1:])],
            [head(m) for head, m in zip(self.cell, maps)],
        )


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


def loss_of(heads, maps, classes, kinds, cells):
    by_kind, by_formula, by_cell = heads(maps)
    kind = sum(F.cross_entropy(logits.float(), kinds, label_smoothing=0.05) for logits in by_kind) / len(by_kind)
    formula = sum(F.cross_entropy(logits.float(), classes) for logits in by_formula) / len(by_formula)
    cell = 0.0
    for logits in by_cell:
        target = F.adaptive_max_pool2d(cells, logits.shape[2:])
        cell = cell + F.binary_cross_entropy_with_logits(logits.float(), target) / len(by_cell)
    right = (by_kind[-1].argmax(1) == kinds).float().mean()
    return kind + 0.3 * formula + 3.0 * cell, (kind, formula, cell, right)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and log")
    parser.add_argument("--width", type=int, default=16, help="channels of the first bottleneck; ResNet-50 has 64")
    parser.add_argument("--stem", type=int, default=32)
    parser.add_argument("--size", type=int, default=128, help="pixels of a picture's side")
    parser.add_argument("--crop", type=int, default=96, help="side of the crops seen in the first 70 %%")
    parser.add_argument("--steps", type=int, default=20_000, help="batches of 64, at most")
    parser.add_argument("--minutes", type=float, default=60.0, help="time, at most; the learning rate ends with it")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--reuse", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="more made the backward pass slower where measured")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    backbone = Backbone(args.width, args.stem).to(memory_format=torch.channels_last)
    heads = Heads(args.width)
    parameters = [*backbone.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.03},
         {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}], lr=args.rate)
    average = Average(backbone)
    first, spent = 0, 0.0
    last = args.out / "last.pt"
    if last.exists():
        saved = torch.load(last, weights_only=True)
        backbone.load_state_dict(saved["backbone"])
        heads.load_state_dict(saved["heads"])
        optimizer.load_state_dict(saved["optimizer"])
        average.state, average.count = saved["average"], saved["count"]
        first, spent = saved["step"], saved["spent"]

    def save(step, spent):
        entry = {"backbone": backbone.state_dict(), "heads": heads.state_dict(), "optimizer": optimizer.state_dict(),
                 "average": average.state, "count": average.count, "step": step, "spent": spent,
                 "width": args.width, "stem": args.stem, "size": args.size}
        torch.save(entry, args.out / "last.tmp")
        os.replace(args.out / "last.tmp", last)

    material = Material(args.seed, args.size, args.reuse)
    loader = iter(torch.utils.data.DataLoader(material, batch_size=None, sampler=Steps(first), num_workers=1,
                                              prefetch_factor=6))
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    began, told, saved_at = time.monotonic() - spent, time.monotonic(), time.monotonic()
    sums, log = torch.zeros(4), open(args.out / "log.txt", "a", buffering=1)
    step = first
    while True:
        spent = time.monotonic() - began
        progress = max(step / args.steps, spent / (60 * args.minutes))
        if progress >= 1:
            break
        rate = args.rate * min(1, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, classes, kinds, cells = next(loader)
        if progress < 0.7 and args.crop < args.size:
            draw = pictures.Draw(args.seed, 78, step)
            top, left = (int(draw.integer(0, (args.size - args.crop) // 8 + 1)) for _ in range(2))
            images = images[:, :, 8 * top : 8 * top + args.crop, 8 * left : 8 * left + args.crop]
            cells = cells[:, :, top : top + args.crop // 8, left : left + args.crop // 8]
            kinds = torch.where(cells.flatten(1).amax(1) < 0.25, 0, kinds)
        images = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            maps = backbone(images)[1:]
        loss, parts = loss_of(heads, [m.float() for m in maps], classes, kinds, cells)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        average.update(backbone)
        step += 1
        sums += torch.stack([part.detach() for part in parts])
        if step % 50 == 0:
            now = time.monotonic()
            kind, formula, cell, right = (sums / 50).tolist()
            line = (f"step {step} minutes {spent / 60:.1f} rate {rate:.2e} kind {kind:.3f} right {right:.3f} "
                    f"formula {formula:.3f} cell {cell:.4f} pictures/s {50 * len(images) / (now - told):.0f}")
            print(line, file=log)
            print(line, flush=True)
            sums.zero_()
            told = now
        if time.monotonic() - saved_at > 180:
            save(step, spent)
            saved_at = time.monotonic()
    save(step, spent)


if __name__ == "__main__":
    main()
