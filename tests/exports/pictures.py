"""The pictures of tests/exports.rs, by formula. Needs numpy."""
import numpy as np

SIDE = 64


def drawn(seed):
    """SIDE x SIDE RGB, u8."""
    y, x = np.mgrid[:SIDE, :SIDE]
    square = 60 * ((x >> 3 ^ y >> 2 + seed % 3) & 1)
    wave = x * (3 + seed) // 2 + y * (5 + 2 * seed) // 3 + x * y // (11 + seed)
    return np.stack([((wave + 40 * c * (1 + seed % 4)) % 256 * 3 // 4 + square) for c in range(3)], -1).astype(np.uint8)


def prepared(seed, order="torch"):
    """The network's input [1, 3, SIDE, SIDE] in the recipe `torch` or `caffe`."""
    rgb = drawn(seed).astype(np.float32)
    if order == "torch":
        rgb = (rgb / 255 - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    else:
        rgb = rgb[:, :, ::-1] - np.float32([103.939, 116.779, 123.68])
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None]).astype(np.float32)
