"""Pictures made by formulas: textures of many classes, lighting, framing, and pasted defects.

Everything is a function of the seeds. Arrays are torch float32, pictures in [0, 1], shape [n, 3, size, size].
"""
import math

import torch
import torch.nn.functional as F

FAMILIES = (
    "noise", "brushed", "stripes", "weave", "cells", "marble", "rings", "waves", "fractal", "shapes", "bricks", "grain",
)
VARIANTS = 32
DEFECTS = (
    "none", "blob", "crack", "scratch", "break", "stain", "paste", "warp", "smear", "foreign", "spots", "dent",
)
CLASS_SEED = 7001


class Draw:
    """Random numbers of one seed."""

    def __init__(self, *seed):
        value = 0
        for part in seed:
            value = (value * 1_000_003 + int(part) + 12_345) % (2**61 - 1)
        self.generator = torch.Generator().manual_seed(value)

    def uniform(self, low, high, *shape):
        return torch.rand(shape, generator=self.generator) * (high - low) + low

    def log(self, low, high, *shape):
        return torch.exp(self.uniform(math.log(low), math.log(high), *shape))

    def normal(self, *shape):
        return torch.randn(shape, generator=self.generator)

    def integer(self, low, high, *shape):
        return torch.randint(low, high, shape, generator=self.generator)

    def chance(self, p):
        return float(self.uniform(0, 1)) < p


def column(values):
    return values.view(-1, 1, 1)


def grid(size):
    """y and x in [-1, 1], each [1, size, size]."""
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    return line.view(1, size, 1).expand(1, size, size), line.view(1, 1, size).expand(1, size, size)


def standard(field):
    """Each field to mean 0 and deviation 1."""
    flat = field.flatten(1)
    return (field - column(flat.mean(1))) / column(flat.std(1) + 1e-6)


_FREQUENCIES = {}


def frequencies(size):
    if size not in _FREQUENCIES:
        fy = torch.fft.fftfreq(size).view(1, size, 1) * size
        fx = torch.fft.rfftfreq(size).view(1, 1, size // 2 + 1) * size
        _FREQUENCIES[size] = (fy, fx, torch.sqrt(fy**2 + fx**2).clamp_min(0.5))
    return _FREQUENCIES[size]


def filtered(draw, n, size, response):
    """White noise through a frequency response [n, size, size // 2 + 1], standardised."""
    spectrum = torch.fft.rfft2(draw.normal(n, size, size)) * response
    return standard(torch.fft.irfft2(spectrum, s=(size, size)))


def power_noise(draw, n, size, exponent, low=1.0):
    """Noise whose amplitude falls with frequency to the power `exponent`; `exponent`, `low`: number or [n].

    Steep noise has no fine part: it is made small and enlarged.
    """
    if size > 32 and isinstance(exponent, float) and exponent >= 1.6:
        small = power_noise(draw, n, 32, exponent, low).unsqueeze(1)
        return F.interpolate(small, (size, size), mode="bilinear", align_corners=False).squeeze(1)
    _, _, radius = frequencies(size)
    exponent = column(torch.as_tensor(exponent, dtype=torch.float32).expand(n))
    low = column(torch.as_tensor(low, dtype=torch.float32).expand(n))
    return filtered(draw, n, size, radius.clamp_min(1e-3) ** -exponent * (radius >= low))


def band_noise(draw, n, size, centre, octaves):
    """Noise of one band: Gaussian over log2 of frequency."""
    _, _, radius = frequencies(size)
    return filtered(draw, n, size, torch.exp(-0.5 * ((torch.log2(radius) - column(torch.log2(centre))) / column(octaves)) ** 2))


def turned(size, angle):
    """Coordinates turned by `angle` [n]: along and across, each [n, size, size]."""
    y, x = grid(size)
    cos, sin = column(torch.cos(angle)), column(torch.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def class_table(family, seed=CLASS_SEED):
    """The fixed parameters of a family's variants, [VARIANTS, 8] in [0, 1]."""
    return Draw(seed, FAMILIES.index(family)).uniform(0, 1, VARIANTS, 8)


def texture(family, draw, table, size):
    """Grey fields of deviation 1: one for each row of `table` [n, 8]; the same rows give the same class."""
    n = len(table)
    a, b, c, d, e, f, g, h = (table + draw.uniform(-0.03, 0.03, *table.shape)).clamp(0, 1).T
    angle = draw.uniform(-0.08, 0.08, n) + torch.floor(e * 6) * math.pi / 6
    y, x = grid(size)
    phase = column(draw.uniform(0, 2 * math.pi, n))
    if family == "noise":
        field = power_noise(draw, n, size, 0.3 + 2.0 * a, 1 + 10 * b)
        ridged = standard(-field.abs())
        return torch.where(column(c > 0.6), ridged, field)
    if family == "brushed":
        fy, fx, radius = frequencies(size)
        along = fx * column(torch.cos(angle)) + fy * column(torch.sin(angle))
        across = fy * column(torch.cos(angle)) - fx * column(torch.sin(angle))
        shape = torch.exp(-((along / column(0.7 + 10 * a**2)) ** 2)) * (1 + across.abs()) ** -column(1.3 * b)
        fine = torch.exp(-((along / 30) ** 2)) * (1 + radius) ** -0.5
        return standard(filtered(draw, n, size, shape) + column(0.8 * c) * filtered(draw, n, size, fine))
    if family == "stripes":
        u, v = turned(size, angle)
        u = u + column(0.08 * b) * power_noise(draw, n, size, 2.0)
        wave = torch.sin(u * column(6 * 2 ** (3.2 * a)) + phase)
        sharp = torch.tanh(wave * column(1 + 6 * c))
        second = torch.sin(u * column(6 * 2 ** (3.2 * d)) * 1.7)
        return standard(sharp + column(f) * second + column(0.4 * g) * power_noise(draw, n, size, 0.7))
    if family == "weave":
        u, v = turned(size, angle)
        wobble = column(0.02 * b) * power_noise(draw, n, size, 2.0)
        k, m = column(12 * 2 ** (2.2 * a)), column(12 * 2 ** (2.2 * c))
        p, q = torch.sin((u + wobble) * k + phase), torch.sin((v + wobble) * m)
        plain = p * q
        over = torch.where(torch.sin((u + wobble) * k / 2) * torch.sin((v + wobble) * m / 2) > 0, p, q)
        mesh = torch.maximum(p, q)
        kind = column(torch.floor(d * 3))
        field = torch.where(kind == 0, plain, torch.where(kind == 1, over, mesh))
        return standard(field + column(0.5 * f) * power_noise(draw, n, size, 0.7))
    if family == "cells":
        cells = 3 + (5 * a).long()
        half = size // 2
        y, x = grid(half)
        out = torch.empty(n, half, half)
        for index in range(n):
            k = int(cells[index])
            points = (torch.stack(torch.meshgrid(torch.arange(-1, k + 1), torch.arange(-1, k + 1), indexing="ij"), -1)
                      .reshape(-1, 2) + 0.5 + float(b[index]) * draw.uniform(-0.5, 0.5, (k + 2) ** 2, 2)) / k * 2 - 1
            pixels = torch.stack((y, x), -1).reshape(-1, 2)
            near = torch.cdist(pixels, points, compute_mode="use_mm_for_euclid_dist").topk(2, 1, largest=False).values
            choice = int(c[index] * 3)
            value = near[:, 0] if choice == 0 else near[:, 1] - near[:, 0]
            value = torch.tanh(value * k * 4) if choice == 2 else value
            out[index] = value.view(half, half)
        out = F.interpolate(out.unsqueeze(1), (size, size), mode="bicubic", align_corners=False).squeeze(1)
        return standard(standard(out) + column(0.4 * d) * power_noise(draw, n, size, 0.8))
    if family == "marble":
        warp = power_noise(draw, n, size, 1.2 + 0.6 * b)
        u, v = turned(size, angle)
        return standard(torch.sin(u * column(3 + 20 * a) + column(1 + 3 * c) * warp) + column(0.5 * d) * warp)
    if family == "rings":
        cy, cx = column(draw.uniform(-1, 1, n) * 2 * f), column(draw.uniform(-1, 1, n) * 2 * f)
        warp = power_noise(draw, n, size, 2.0)
        radius = torch.sqrt((x - cx) ** 2 * column(0.2 + b) + (y - cy) ** 2 + 1e-4) + column(0.1 * d) * warp
        return standard(torch.sin(radius * column(6 * 2 ** (3.0 * a)) + phase).abs() ** column(0.3 + c)
                        + column(0.3 * g) * power_noise(draw, n, size, 0.6))
    if family == "waves":
        # sums of products of sines: a small net of sine units over the coordinates, fixed by the class
        field = torch.zeros(n, size, size)
        dy, dx = column(draw.uniform(-0.5, 0.5, n)), column(draw.uniform(-0.5, 0.5, n))
        for k, weights in enumerate((a, b, c, d)):
            other = (e, f, g, h)[k]
            u = torch.sin((x + dx) * column(20 * (weights - 0.5)) + (y + dy) * column(20 * (other - 0.5)) + 2 * field)
            field = field + u / (k + 1)
        return standard(field + column(0.15 * h) * power_noise(draw, n, size, 0.7))
    if family == "fractal":
        return iterated(draw, table, size)
    if family == "shapes":
        # one shape on a jittered lattice: distance to the nearest centre, shaped by the class
        k = column(2 + torch.floor(7 * a))
        u, v = turned(size, angle)
        u, v = (u + phase / 3) * k / 2, (v + column(draw.uniform(0, 1, n))) * k / 2
        v = v + column(0.5 * torch.floor(2 * b)) * torch.floor(u)
        du, dv = (u - torch.floor(u) - 0.5).abs(), (v - torch.floor(v) - 0.5).abs()
        exponent = column(0.7 + 4 * c)
        distance = (du**exponent + dv**exponent + 1e-6) ** (1 / exponent)
        edge = torch.sigmoid((column(0.15 + 0.3 * d) - distance) * column(8 + 30 * f))
        ring = edge - column(torch.round(g)) * torch.sigmoid((column(0.08 + 0.2 * d) - distance) * 30)
        return standard(standard(ring) + column(0.4 * h) * power_noise(draw, n, size, 0.8))
    if family == "bricks":
        u, v = turned(size, torch.floor(e * 2) * math.pi / 2 + draw.uniform(-0.04, 0.04, n))
        k, m = column(2 + 5 * a), column(2 + 9 * b)
        row = torch.floor((v + phase) * m)
        column_shift = column(0.5 * torch.round(c)) * row
        u, v = (u + phase) * k + column_shift, (v + phase) * m
        joint = column(0.04 + 0.1 * d)
        wall = ((u - torch.floor(u)) > joint) & ((v - torch.floor(v)) > joint * 1.5)
        tone = torch.sin(torch.floor(u) * 12.9898 + row * 78.233 + phase) * column(0.6 * f)
        return standard(wall * (1 + tone) + column(0.4 * g) * power_noise(draw, n, size, 0.8))
    if family == "grain":
        # band noise, cut or folded at class levels: spots, worms, speckle
        centre = 4 * 2 ** (3.2 * a)
        field = band_noise(draw, n, size, centre, 0.15 + 0.6 * b)
        spots = torch.sigmoid((field - column(2 * c - 0.6)) * column(3 + 12 * d))
        worms = torch.exp(-((field / column(0.2 + 0.5 * c)) ** 2))
        kind = column(torch.floor(f * 3))
        return standard(torch.where(kind == 0, field, torch.where(kind == 1, standard(spots), standard(worms))))
    raise ValueError(family)


def iterated(draw, table, size, walkers=600, steps=24):
    """Iterated function systems: four affine maps fixed by the class, points drawn by the chaos game."""
    n = len(table)
    fixed = []
    for row in table:
        maps = Draw(9001, *(int(value * 1e6) for value in row[:3])).uniform(-1, 1, 4, 6)
        matrices = maps[:, :4].view(4, 2, 2)
        norms = torch.linalg.matrix_norm(matrices, 2).view(4, 1, 1)
        fixed.append((matrices / norms * (0.35 + 0.45 * maps[:, 4:5, None].abs()), maps[:, 4:]))
    matrices = torch.stack([entry[0] for entry in fixed])
    offsets = torch.stack([entry[1] for entry in fixed])
    points = torch.zeros(n, walkers, 2)
    image = torch.zeros(n, size * size)
    every = torch.arange(n).view(n, 1)
    for step in range(steps):
        choice = draw.integer(0, 4, n, walkers)
        points = torch.einsum("nwij,nwj->nwi", matrices[every, choice], points) + offsets[every, choice]
        if step == 8:
            low, high = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
            shift = draw.uniform(-0.1, 0.1, n, 1, 2)
        if step > 8:
            places = (((points - low) / (high - low + 1e-3) * 0.9 + 0.05 + shift) * size).long().clamp(0, size - 1)
            image.scatter_add_(1, places[..., 0] * size + places[..., 1], torch.ones(n, walkers))
    image = F.avg_pool2d(torch.log1p(image).view(n, 1, size, size), 3, 1, 1).view(n, size, size)
    return standard(image + 0.1 * image.std() * draw.normal(n, size, size))


def blurred(pictures, amount, rounds=1):
    """Each round: every pixel gives `amount` (up to 1/3) of itself to either neighbour, along both axes."""
    for _ in range(rounds):
        wide = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
        rows = wide[:, :, 1:-1] * (1 - 2 * amount) + (wide[:, :, :-2] + wide[:, :, 2:]) * amount
        pictures = rows[..., 1:-1] * (1 - 2 * amount) + (rows[..., :-2] + rows[..., 2:]) * amount
    return pictures


def coloured(draw, field, second):
    """Grey fields to pictures: tone curve, then grey, one tint, or a run through three colours."""
    n, size, _ = field.shape
    contrast = column(draw.log(0.04, 0.28, n))
    level = column(draw.uniform(0.2, 0.8, n))
    tone = level + contrast * field.clamp(-3.5, 3.5)
    stops = draw.uniform(0.05, 0.95, n, 3, 3)
    tint = draw.uniform(0.75, 1.15, n, 3, 1, 1)
    place = torch.sigmoid(1.2 * field).unsqueeze(1)
    view = stops.view(n, 3, 3, 1, 1)
    run = torch.where(place < 0.5, view[:, 0] + (view[:, 1] - view[:, 0]) * place * 2,
                      view[:, 1] + (view[:, 2] - view[:, 1]) * (place * 2 - 1))
    run = run + 0.05 * second.unsqueeze(1) * draw.uniform(0, 1, n, 1, 1, 1)
    kind = draw.uniform(0, 1, n).view(n, 1, 1, 1)
    grey = tone.unsqueeze(1).expand(n, 3, size, size)
    return torch.where(kind < 0.45, grey, torch.where(kind < 0.7, grey * tint, run))


def lit(draw, pictures):
    """Gradient, soft shadows, a band of shine."""
    n, _, size, _ = pictures.shape
    u, _ = turned(size, draw.uniform(0, 2 * math.pi, n))
    v, _ = turned(size, draw.uniform(0, 2 * math.pi, n))
    soft = power_noise(draw, n, 16, 1.6)
    soft = F.interpolate(soft.unsqueeze(1), (size, size), mode="bicubic", align_corners=False).squeeze(1)
    gain = 1 + column(draw.uniform(0, 0.35, n)) * u + column(draw.uniform(0, 0.16, n)) * soft
    shine = torch.exp(-(((v - column(draw.uniform(-1, 1, n))) / column(draw.log(0.08, 0.6, n))) ** 2))
    shine = shine * column(draw.uniform(-0.1, 0.35, n).clamp_min(0))
    return pictures * gain.clamp_min(0.1).unsqueeze(1) + shine.unsqueeze(1)


def framed(draw, pictures):
    """A part on a ground: a box with round corners or an ellipse, with a lit edge."""
    n, _, size, _ = pictures.shape
    u, v = turned(size, draw.uniform(-0.06, 0.06, n))
    u, v = u - column(draw.uniform(-0.12, 0.12, n)), v - column(draw.uniform(-0.12, 0.12, n))
    half_u, half_v = column(draw.uniform(0.55, 1.3, n)), column(draw.uniform(0.55, 1.3, n))
    power = column(draw.integer(1, 5, n).float() * 2)
    distance = ((u / half_u).abs() ** power + (v / half_v).abs() ** power + 1e-6) ** (1 / power)
    inside = torch.sigmoid((1 - distance) * size * column(draw.uniform(0.15, 0.6, n)))
    ground = draw.uniform(0, 0.8, n, 3, 1, 1) * draw.uniform(0, 1, n, 1, 1, 1)
    ground = ground + 0.04 * power_noise(draw, n, size, 0.8).unsqueeze(1)
    rim = torch.exp(-(((distance - 0.97) / column(draw.uniform(0.01, 0.05, n))) ** 2)) * column(draw.uniform(-0.3, 0.3, n))
    return (pictures + rim.unsqueeze(1)) * inside.unsqueeze(1) + ground * (1 - inside.unsqueeze(1))


def clean(draw, family, table, size):
    """Pictures without defect."""
    n = len(table)
    pictures = texture(family, draw, table, size)
    pictures = lit(draw, coloured(draw, pictures, power_noise(draw, n, size, 1.6)))
    part = torch.nonzero(draw.uniform(0, 1, n) < 0.3).flatten()
    if len(part):
        pictures[part] = framed(draw, pictures[part])
    return pictures


def finished(draw, pictures):
    """Camera: blur, noise, clipping."""
    n, _, size, _ = pictures.shape
    pictures = blurred(pictures, float(draw.uniform(0, 0.33)), int(draw.integer(0, 3)))
    common = draw.normal(n, 1, size, size)
    pictures = pictures + draw.log(0.003, 0.035, n, 1, 1, 1) * common
    return pictures.clamp(0, 1)


def polyline(draw, n, size, points, step, bend, width):
    """Distance fields of random walks turned to soft lines: [n, size, size] in [0, 1]."""
    direction = draw.uniform(0, 2 * math.pi, n, 1) + torch.cumsum(bend.view(n, 1) * draw.normal(n, points), 1)
    moves = torch.stack((torch.cos(direction), torch.sin(direction)), -1) * step.view(n, 1, 1)
    path = torch.cumsum(moves, 1)
    path = path - path.mean(1, keepdim=True) + draw.uniform(-0.7, 0.7, n, 1, 2)
    y, x = grid(size)
    nearest = torch.full((n, size, size), 9.0)
    for k in range(points - 1):
        y0, x0 = column(path[:, k, 0]), column(path[:, k, 1])
        dy, dx = column(path[:, k + 1, 0]) - y0, column(path[:, k + 1, 1]) - x0
        down, right = y[:, :, :1] - y0, x[:, :1, :] - x0
        share = ((down * dy + right * dx) / (dy**2 + dx**2 + 1e-8)).clamp_(0, 1)
        nearest = torch.minimum(nearest, (down - share * dy).square_().add_((right - share * dx).square_()))
    return torch.sigmoid((column(width) - torch.sqrt(nearest)) * size * 0.6)


def lump(draw, n, size, radius, rough, soft):
    """Irregular patches of about `radius` [n] (1 is half the picture): [n, size, size] in [0, 1]."""
    u, v = turned(size, draw.uniform(0, math.pi, n))
    y0, x0 = draw.uniform(-0.8, 0.8, n), draw.uniform(-0.8, 0.8, n)
    stretch = column(draw.log(0.5, 2.0, n))
    u, v = u - column(x0), v - column(y0)
    noise = power_noise(draw, n, size, 1.7, 2)
    distance = torch.sqrt((u * stretch) ** 2 + (v / stretch) ** 2) / column(radius) + column(rough) * noise
    return torch.sigmoid((1 - distance) * column(radius) * size / 2 * column(soft))


def signed(draw, low, high, n):
    sign = draw.integer(0, 2, n).float() * 2 - 1
    sign = torch.where(draw.uniform(0, 1, n) < 0.25, -torch.ones(n), sign)
    return (sign * draw.log(low, high, n)).view(n, 1, 1, 1)


def defective(draw, pictures, kind, strangers):
    """Pastes defects of one kind. `strangers`: pictures of other textures. Gives pictures of the same shape."""
    n, _, size, _ = pictures.shape
    tone = signed(draw, 0.06, 0.5, n) * (1 + 0.15 * draw.normal(n, 3, 1, 1))
    name = DEFECTS[kind]
    if name == "blob":
        mask = lump(draw, n, size, draw.log(0.025, 0.18, n), draw.uniform(0, 0.2, n), draw.uniform(0.4, 1.2, n))
        return pictures + mask.unsqueeze(1) * tone
    if name == "crack":
        width = draw.log(0.004, 0.02, n)
        mask = polyline(draw, n, size, 14, draw.log(0.02, 0.11, n), draw.uniform(0.3, 0.9, n), width)
        tone = torch.where(draw.uniform(0, 1, n).view(n, 1, 1, 1) < 0.75, -tone.abs(), tone)
        return pictures + mask.unsqueeze(1) * tone
    if name == "scratch":
        width = draw.log(0.004, 0.025, n)
        mask = polyline(draw, n, size, 4, draw.log(0.08, 0.5, n), draw.uniform(0.0, 0.2, n), width)
        return pictures + mask.unsqueeze(1) * tone
    if name == "break":
        # a half plane with a rough edge near a border or a lump is replaced by a flat tone
        u, _ = turned(size, draw.integer(0, 4, n) * (math.pi / 2) + draw.uniform(-0.6, 0.6, n))
        rough = power_noise(draw, n, size, 1.6, 2)
        cut = torch.sigmoid((u - column(draw.uniform(0.72, 1.05, n)) + 0.07 * rough) * size * 0.4)
        mask = torch.maximum(cut * column(draw.uniform(0, 1, n) < 0.5),
                             lump(draw, n, size, draw.log(0.08, 0.3, n), draw.uniform(0.1, 0.35, n), torch.ones(n)))
        fill = draw.uniform(0, 0.7, n, 3, 1, 1) * draw.uniform(0, 1, n, 1, 1, 1)
        fill = fill + 0.05 * power_noise(draw, n, size, 1.0).unsqueeze(1)
        return pictures * (1 - mask.unsqueeze(1)) + fill * mask.unsqueeze(1)
    if name == "stain":
        mask = lump(draw, n, size, draw.log(0.12, 0.5, n), draw.uniform(0.1, 0.4, n), draw.log(0.05, 0.5, n))
        return pictures * (1 + mask.unsqueeze(1) * tone * 0.8)
    if name in ("paste", "foreign"):
        if name == "paste":
            source = torch.rot90(pictures, int(draw.integer(1, 4)), (2, 3))
            source = torch.roll(source, (int(draw.integer(20, size - 20)), int(draw.integer(20, size - 20))), (2, 3))
            source = source + 0.3 * tone * (draw.uniform(0, 1, n).view(n, 1, 1, 1) < 0.5)
        else:
            source = strangers
        if draw.chance(0.5):
            mask = lump(draw, n, size, draw.log(0.07, 0.3, n), draw.uniform(0, 0.3, n), draw.uniform(0.3, 1.0, n))
        else:
            u, v = turned(size, draw.uniform(0, math.pi, n))
            u, v = (u - column(draw.uniform(-0.7, 0.7, n))).abs(), (v - column(draw.uniform(-0.7, 0.7, n))).abs()
            mask = ((u < column(draw.log(0.03, 0.3, n))) & (v < column(draw.log(0.05, 0.3, n)))).float()
        mask = mask.unsqueeze(1) * draw.uniform(0.4, 1, n, 1, 1, 1)
        return pictures * (1 - mask) + source * mask
    if name == "warp":
        y, x = grid(size)
        mask = lump(draw, n, size, draw.log(0.12, 0.4, n), torch.zeros(n), draw.uniform(0.1, 0.3, n))
        move = power_noise(draw, 2 * n, size, 2.2, 2).view(2, n, size, size) * column(draw.log(0.03, 0.12, n)) * mask
        places = torch.stack((x + move[0], y + move[1]), -1)
        return F.grid_sample(pictures, places, mode="bilinear", padding_mode="reflection", align_corners=False)
    if name == "smear":
        mask = lump(draw, n, size, draw.log(0.12, 0.45, n), draw.uniform(0.1, 0.3, n), draw.uniform(0.15, 0.6, n))
        mask = mask.unsqueeze(1)
        if draw.chance(0.5):
            small = F.avg_pool2d(pictures, int(draw.integer(3, 9)))
            other = F.interpolate(small, (size, size), mode="bilinear", align_corners=False)
        else:
            other = pictures + draw.log(0.05, 0.2, n, 1, 1, 1) * power_noise(draw, n, size, float(draw.uniform(0, 1))).unsqueeze(1)
        return pictures * (1 - mask) + other * mask
    if name == "spots":
        field = band_noise(draw, n, size, draw.log(8, 24, n), torch.full((n,), 0.4))
        dots = torch.sigmoid((field - column(draw.uniform(1.5, 2.6, n))) * 8)
        mask = dots * lump(draw, n, size, draw.log(0.1, 0.5, n), draw.uniform(0, 0.3, n), draw.uniform(0.1, 0.6, n))
        return pictures + mask.unsqueeze(1) * tone
    if name == "dent":
        # a lump seen by light from one side: bright and dark flank
        mask = lump(draw, n, size, draw.log(0.06, 0.25, n), draw.uniform(0, 0.15, n), draw.uniform(0.1, 0.4, n))
        dy, dx = torch.roll(mask, 1, 1) - torch.roll(mask, -1, 1), torch.roll(mask, 1, 2) - torch.roll(mask, -1, 2)
        angle = draw.uniform(0, 2 * math.pi, n)
        relief = dy * column(torch.sin(angle)) + dx * column(torch.cos(angle))
        relief = relief / column(relief.abs().flatten(1).amax(1) + 1e-4)
        return pictures + relief.unsqueeze(1) * tone.abs()
    raise ValueError(name)


def batch(seed, number, n=64, size=128, defect_share=0.6, class_seed=CLASS_SEED):
    """One batch, fixed by (seed, number, n): pictures u8 [n, 3, size, size], the share `defect_share` of them defective."""
    draw = Draw(seed, number)
    group = 16
    parts = []
    families = torch.randperm(len(FAMILIES), generator=draw.generator)[: (n + group - 1) // group]
    for family in families.tolist():
        rows = draw.integer(0, VARIANTS, group)
        table = class_table(FAMILIES[family], class_seed)[rows]
        parts.append(clean(draw, FAMILIES[family], table, size))
    order = torch.randperm(len(families) * group, generator=draw.generator)[:n]
    pictures = torch.cat(parts)[order]
    count = int(defect_share * n)
    chosen = torch.randperm(len(DEFECTS) - 1, generator=draw.generator)[:4] + 1
    for index, kind in enumerate(chosen.tolist()):
        where = torch.arange(index * count // 4, (index + 1) * count // 4)
        strangers = pictures[(where + n // 2) % n]
        pictures[where] = defective(draw, pictures[where], kind, strangers)
    pictures = finished(draw, pictures)
    if draw.chance(0.5):
        pictures = pictures.transpose(2, 3)
    return (pictures * 255).round().byte().contiguous()
