"""A scene rendered by code, for judging only: a bolted plate under a moving lamp, with and without subtle faults.

Nothing here is shared with the training pictures but the random draws: a height field, its normals, Lambert and
Blinn-Phong light. Faults: a missing bolt, a bolt out of place, a scratch, a dent, a small foreign thing, a dull patch.
"""
import math

import torch

from pictures import Draw, column, grid, power_noise

FAULTS = ("missing", "moved", "scratch", "dent", "thing", "dull")


def bump(y, x, cy, cx, radius, sharp):
    return torch.sigmoid((radius - torch.sqrt((y - cy) ** 2 + (x - cx) ** 2 + 1e-9)) * sharp)


def plates(seed, n, fault=None, size=128):
    """`n` pictures u8 [n, 3, size, size]; every one with `fault`, or none."""
    draw = Draw(seed, 31, 0 if fault is None else 1 + FAULTS.index(fault))
    y, x = grid(size)
    turn = draw.uniform(-0.03, 0.03, n)
    dy, dx = column(draw.uniform(-0.03, 0.03, n)), column(draw.uniform(-0.03, 0.03, n))
    cos, sin = column(torch.cos(turn)), column(torch.sin(turn))
    u, v = (x + dx) * cos + (y + dy) * sin, (y + dy) * cos - (x + dx) * sin
    # plate with a raised rim, two slots, nine bolts with a drive slit
    height = 0.05 * torch.sigmoid((0.9 - torch.maximum(u.abs(), v.abs())) * 60)
    for side in (-0.33, 0.33):
        slot = torch.sigmoid((0.05 - (v - side).abs()) * 80) * torch.sigmoid((0.75 - u.abs()) * 60)
        height = height - 0.03 * slot
    steel = torch.zeros(n, size, size)
    odd = draw.integer(0, 9, n)
    away = draw.uniform(0, 2 * math.pi, n)
    for index in range(9):
        cy, cx = (index // 3 - 1) * 0.62, (index % 3 - 1) * 0.62
        here = (odd == index).float()
        move = 0.07 * here if fault == "moved" else torch.zeros(n)
        by, bx = column(cy + move * torch.sin(away)), column(cx + move * torch.cos(away))
        head = bump(v, u, by, bx, 0.12, 90)
        angle = column(draw.uniform(0, math.pi, n))
        slit = ((v - by) * torch.cos(angle) - (u - bx) * torch.sin(angle)).abs()
        slit = torch.sigmoid((0.02 - slit) * 150) * head
        there = column(1 - here) if fault == "missing" else 1.0
        hole = bump(v, u, by, bx, 0.06, 90) * (1 - there)
        height = height + there * (0.05 * head - 0.03 * slit) - 0.06 * hole
        steel = torch.maximum(steel, head * there)
    fy, fx = column(draw.uniform(-0.75, 0.75, n)), column(draw.uniform(-0.75, 0.75, n))
    angle = column(draw.uniform(0, math.pi, n))
    if fault == "scratch":
        along = (u - fx) * torch.cos(angle) + (v - fy) * torch.sin(angle)
        across = (v - fy) * torch.cos(angle) - (u - fx) * torch.sin(angle) + 0.15 * along**2
        length = column(draw.uniform(0.12, 0.3, n))
        height = height - 0.012 * torch.sigmoid((0.012 - across.abs()) * 300) * torch.sigmoid((length - along.abs()) * 60)
    if fault == "dent":
        height = height - 0.03 * torch.exp(-((u - fx) ** 2 + (v - fy) ** 2) / column(draw.uniform(0.05, 0.1, n)) ** 2)
    thing = torch.zeros(n, size, size)
    if fault == "thing":
        across = ((u - fx) * torch.cos(angle) + (v - fy) * torch.sin(angle)) / 2.2
        other = (v - fy) * torch.cos(angle) - (u - fx) * torch.sin(angle)
        thing = torch.sigmoid((column(draw.uniform(0.03, 0.06, n)) - torch.sqrt(across**2 + other**2)) * 120)
        height = height + 0.03 * thing
    grain = 0.0012 * power_noise(draw, n, size, 0.3)
    height = height + grain
    ny = -(torch.roll(height, -1, 1) - torch.roll(height, 1, 1)) * size / 4
    nx = -(torch.roll(height, -1, 2) - torch.roll(height, 1, 2)) * size / 4
    norm = torch.sqrt(nx**2 + ny**2 + 1)
    way, tilt = column(draw.uniform(-0.5, 0.5, n) - 2.2), column(draw.uniform(0.7, 0.95, n))
    ly, lx, lz = torch.sin(way) * tilt, torch.cos(way) * tilt, torch.sqrt(1 - tilt**2) + 0.35
    diffuse = ((nx * lx + ny * ly + lz) / norm).clamp_min(0)
    hy, hx, hz = ly / 2, lx / 2, (lz + 1) / 2
    half = torch.sqrt(hy**2 + hx**2 + hz**2)
    shine = ((nx * hx + ny * hy + hz) / (norm * half)).clamp(0, 1) ** 40
    if fault == "dull":
        patch = bump(v, u, fy + 0.04 * power_noise(draw, n, size, 2.0), fx, column(draw.uniform(0.1, 0.25, n)), 14)
        shine, diffuse = shine * (1 - 0.8 * patch), diffuse * (1 - 0.15 * patch)
    paint = torch.tensor([0.28, 0.36, 0.33]).view(1, 3, 1, 1)
    metal = torch.tensor([0.55, 0.54, 0.52]).view(1, 3, 1, 1)
    rust = torch.tensor([0.45, 0.22, 0.10]).view(1, 3, 1, 1)
    albedo = paint + (metal - paint) * steel.unsqueeze(1)
    albedo = albedo + (rust - albedo) * thing.unsqueeze(1)
    lamp = column(draw.uniform(0.85, 1.15, n)) * (1 + 0.15 * column(draw.uniform(-1, 1, n)) * x)
    picture = albedo * (0.25 + 0.9 * (diffuse * lamp).unsqueeze(1)) + 0.25 * (shine * lamp).unsqueeze(1)
    picture = picture + 0.012 * draw.normal(n, 3, size, size)
    return (picture.clamp(0, 1) * 255).round().byte()
