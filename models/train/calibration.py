"""Writes formula pictures, as training saw them but of another seed, to calibrate the int8 file with.

    python calibration.py DIR
"""
import argparse
from pathlib import Path

import torch
from PIL import Image

import pictures

SEED = 9301


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--batches", type=int, default=4, help="of 64 pictures")
    parser.add_argument("--size", type=int, default=128)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.dir.mkdir(parents=True, exist_ok=True)
    for number in range(args.batches):
        images = pictures.batch(SEED, number, size=args.size)[0]
        for index, image in enumerate(images):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(args.dir / f"{number}-{index:02}.png")


if __name__ == "__main__":
    main()
