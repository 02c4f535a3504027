"""Procedural 2-D images with exact masks, drawn on the training device.

A dead-leaves model: layers of random shapes are laid over one another, each with its own texture, shading and shadow, and every
visible remainder of a layer is something that can be asked for, the large background regions included. Several neighbouring
layers may belong to one object (parts that look different but share a mask), and some images repeat one look over many
objects. Layers may also be laid over rendered frames. What matters here is variety, not realism: a network that has seen
only one renderer's shapes and materials does not carry over to photographs.

Everything is drawn for the whole batch at once, layer by layer, in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FIRST_LAYER_ID = 41  # ids 1..40 belong to the objects of a rendered frame underneath
BACKGROUND_LAYERS = 4
FOREGROUND_LAYERS = 20
LAYERS = BACKGROUND_LAYERS + FOREGROUND_LAYERS
IDS = FIRST_LAYER_ID + LAYERS
TABLE = 128  # samples of a polar outline


@dataclass
class Scene:
    """``rgb f32[B, 3, S, S]`` in 0..1; ``part i64[B, S, S]``; ``owner i64[B, IDS]``: object id of each part id (0: nothing)."""

    rgb: Tensor
    part: Tensor
    owner: Tensor

    def objects(self) -> Tensor:
        """Object ids per pixel, ``i64[B, S, S]``."""
        b = self.part.shape[0]
        return self.owner.gather(1, self.part.reshape(b, -1)).reshape(self.part.shape)


def uniform(shape: tuple[int, ...], low: float, high: float, device: torch.device) -> Tensor:
    return torch.rand(shape, device=device) * (high - low) + low


def chance(shape: tuple[int, ...], p: float, device: torch.device) -> Tensor:
    return torch.rand(shape, device=device) < p


def texture_bank(count: int, side: int, device: torch.device, donors: Tensor | None = None) -> Tensor:
    """Noise with power spectra 1/f^b of random slope and direction, ``[count, 4, side, side]``, unit variance.

    ``donors`` (``[M, 3, side, side]`` in 0..1, pieces of rendered frames) replace the first three channels of some entries.
    """
    fy = torch.fft.fftfreq(side, device=device).reshape(1, 1, -1, 1)
    fx = torch.fft.rfftfreq(side, device=device).reshape(1, 1, 1, -1)
    angle = uniform((count, 1, 1, 1), 0, math.pi, device)
    stretch = torch.where(chance((count, 1, 1, 1), 0.3, device), uniform((count, 1, 1, 1), 1, 6, device), 1.0)
    along = fx * angle.cos() + fy * angle.sin()
    across = (fy * angle.cos() - fx * angle.sin()) * stretch
    radius = (along**2 + across**2).sqrt().clamp(min=1.0 / side)
    slope = torch.cat(
        [uniform((count, 3, 1, 1), 0.3, 2.2, device)[:, :1].expand(-1, 3, -1, -1), uniform((count, 1, 1, 1), 1.4, 2.6, device)], 1
    )
    spectrum = torch.randn(count, 4, side, side // 2 + 1, 2, device=device)
    noise = torch.fft.irfft2(torch.view_as_complex(spectrum) * radius**-slope, s=(side, side))
    if donors is not None and len(donors):
        chosen = torch.randint(len(donors), (count,), device=device)
        use = chance((count, 1, 1, 1), 0.35, device)
        noise = torch.cat([torch.where(use, donors[chosen].to(noise.dtype), noise[:, :3]), noise[:, 3:]], 1)
    noise = noise - noise.mean((2, 3), keepdim=True)
    return noise / noise.std((2, 3), keepdim=True).clamp(min=1e-3)


def outlines(b: int, device: torch.device) -> Tensor:
    """Polar outlines ``[B, LAYERS, TABLE]``: ellipses, superellipses, convex polygons, stars and Fourier blobs."""
    shape = (b, LAYERS, 1)
    theta = torch.arange(TABLE, device=device).float() * (2 * math.pi / TABLE)
    cos, sin = theta.cos().abs().clamp(min=1e-4), theta.sin().abs().clamp(min=1e-4)
    p = 2.0 ** uniform(shape, -0.6, 3.5, device)
    superellipse = (cos**p + sin**p) ** (-1.0 / p)

    sides = 7
    kept = torch.arange(sides, device=device) < torch.randint(3, sides + 1, shape, device=device)
    count = kept.sum(-1, keepdim=True)
    normals = (torch.arange(sides, device=device) + uniform((b, LAYERS, sides), -0.3, 0.3, device)) * 2 * math.pi / count
    facing = (theta - normals.unsqueeze(-1)).cos()
    reach = uniform((b, LAYERS, sides, 1), 0.5, 1.0, device) / facing.clamp(min=1e-3)
    polygon = torch.where((facing > 1e-3) & kept.unsqueeze(-1), reach, 9.0).amin(2).clamp(max=1.8)

    knots = 16
    radii = uniform((b, LAYERS, knots), 0.3, 1.1, device)
    spacing = 2 ** torch.randint(0, 3, shape, device=device)
    radii = radii.gather(2, (torch.arange(knots, device=device) // spacing).expand(b, LAYERS, knots))
    closed = torch.cat([radii, radii[..., :1]], -1).reshape(b * LAYERS, 1, knots + 1)
    star = F.interpolate(closed, size=TABLE, mode="linear", align_corners=True).reshape(b, LAYERS, TABLE)

    k = torch.arange(2, 9, device=device).float().reshape(1, 1, -1, 1)
    amplitude = torch.randn(b, LAYERS, 7, 1, device=device) * 0.35 / k
    phase = uniform((b, LAYERS, 7, 1), 0, 2 * math.pi, device)
    fourier = (0.9 + (amplitude * (k * theta + phase).cos()).sum(2)).clamp(min=0.15)

    kind = torch.rand(shape, device=device)
    table = torch.where(kind < 0.15, torch.ones_like(fourier), superellipse)
    table = torch.where(kind > 0.4, polygon, table)
    table = torch.where(kind > 0.62, star, table)
    return torch.where(kind > 0.74, fourier, table)


class Layers:
    """Random parameters of every layer of every image; fields are ``[B, LAYERS, ...]``."""

    def __init__(self, b: int, over_frame: Tensor, bank_size: int, device: torch.device):
        shape = (b, LAYERS)
        foreground = torch.arange(LAYERS, device=device) >= BACKGROUND_LAYERS
        self.table = outlines(b, device)

        starts = chance(shape, 0.55, device) | ~foreground
        starts[:, BACKGROUND_LAYERS] = True
        self.starts = starts
        index = torch.arange(LAYERS, device=device).expand(shape)
        self.first = torch.where(starts, index, 0).cummax(1).values  # layer that opened the object

        biggest = uniform((b, 1), -1.9, -0.2, device)
        scale = torch.exp(uniform(shape, -3.6, 0.0, device).clamp(min=-3.6) * 0.75 + biggest * 0.75)
        # Images of many small things, and of few large ones; later layers tend to be smaller, so that much stays visible.
        order = torch.linspace(0.35, -0.35, LAYERS, device=device)
        scale = (scale * torch.exp(order)).clamp(0.02, 0.6)
        scale = torch.where(foreground, scale, uniform(shape, 0.4, 1.2, device))
        centre = torch.rand(b, LAYERS, 2, device=device)
        part_scale = scale.gather(1, self.first) * uniform(shape, 0.25, 0.95, device)
        offset = torch.randn(b, LAYERS, 2, device=device) * scale.gather(1, self.first).unsqueeze(-1) * 0.7
        owner_centre = centre.gather(1, self.first.unsqueeze(-1).expand(-1, -1, 2))
        self.scale = torch.where(starts, scale, part_scale)
        self.centre = torch.where(starts.unsqueeze(-1), centre, owner_centre + offset)
        self.angle = uniform(shape, 0, 2 * math.pi, device)
        self.angle = torch.where(chance(shape, 0.4, device), (torch.rand(shape, device=device) * 4).floor() * math.pi / 2, self.angle)
        self.aspect = torch.exp(torch.randn(shape, device=device) * 0.45)

        number = torch.randint(3, FOREGROUND_LAYERS + 1, (b, 1), device=device)
        number = torch.where(over_frame.unsqueeze(1), torch.randint(0, 7, (b, 1), device=device), number)
        rank = index - BACKGROUND_LAYERS
        self.active = torch.where(foreground, rank < number, chance(shape, 0.55, device) & ~over_frame.unsqueeze(1))
        self.active[:, 0] = ~over_frame
        self.everything = (index == 0) & ~over_frame.unsqueeze(1)

        family = torch.rand(shape, device=device)
        self.skeleton = (family < 0.24) & foreground
        self.noisy = (family > 0.84) & foreground
        self.hole = torch.where(chance(shape, 0.12, device) & foreground, uniform(shape, 0.3, 0.85, device), 0.0)
        steps = torch.randn(b, LAYERS, 4, 2, device=device) * 0.75
        steps[:, :, 0] *= 0.5
        self.joints = steps.cumsum(2) - steps.cumsum(2).mean(2, keepdim=True)
        thick = torch.exp(uniform((b, LAYERS, 1), -3.4, -0.9, device))
        self.thickness = thick * uniform((b, LAYERS, 4), 0.5, 1.5, device)
        self.warp = torch.where(chance(shape, 0.5, device), torch.exp(uniform(shape, -4.0, -1.2, device)), 0.0)
        self.softness = torch.exp(uniform(shape, -0.4, 0.8, device))

        self.texture = torch.randint(bank_size, shape, device=device)
        self.zoom = torch.exp(uniform(shape, -2.0, 0.5, device))
        self.shift = uniform((b, LAYERS, 2), -1, 1, device)
        colour = torch.rand(b, LAYERS, 3, device=device)
        # Real surfaces are mostly dull: saturated colours are the exception.
        grey = chance((b, LAYERS, 1), 0.6, device)
        colour = torch.where(grey, torch.rand(b, LAYERS, 1, device=device) + (colour - 0.5) * 0.25, colour * 0.8 + 0.1)
        shared = colour.gather(1, self.first.unsqueeze(-1).expand(-1, -1, 3))
        alike = chance((b, LAYERS, 1), 0.4, device) & ~starts.unsqueeze(-1)
        colour = torch.where(alike, shared + torch.randn_like(colour) * 0.06, colour)
        # Low contrast: the whole palette is drawn together around one colour.
        dull = torch.where(chance((b, 1, 1), 0.3, device), uniform((b, 1, 1), 0.12, 0.5, device), 1.0)
        self.colour = torch.rand(b, 1, 3, device=device).lerp(colour, dull)
        self.second = self.colour + torch.randn(b, LAYERS, 3, device=device) * 0.28 * dull
        contrast = torch.exp(uniform(shape, -4.0, -1.2, device))
        mixing = torch.randn(b, LAYERS, 3, 3, device=device) * uniform((b, LAYERS, 1, 1), 0, 0.35, device)
        self.mixing = (torch.eye(3, device=device) * uniform((b, LAYERS, 1, 1), 0.2, 1, device) + mixing) * contrast[..., None, None]
        self.mixing[..., 0] += contrast.unsqueeze(-1) * uniform((b, LAYERS, 1), 0, 1.2, device)
        self.pattern = torch.rand(shape, device=device)
        self.frequency = torch.exp(uniform(shape, 0.3, 2.9, device))
        self.pattern_angle = uniform(shape, 0, 2 * math.pi, device)
        self.hardness = torch.exp(uniform(shape, 0, 3, device))
        self.light = torch.randn(b, LAYERS, 2, device=device) * uniform((b, LAYERS, 1), 0, 0.3, device)
        self.bulge = torch.where(chance(shape, 0.5, device), uniform(shape, 0, 0.6, device), 0.0)
        self.outline = torch.where(chance(shape, 0.12, device), uniform(shape, -0.5, 0.2, device), 0.0)
        self.shadow = torch.where(chance((b, 1), 0.5, device), uniform(shape, 0, 0.7, device), 0.0) * foreground
        self.shadow_shift = torch.randn(b, 1, 2, device=device).expand(-1, LAYERS, -1) * 0.02
        self._repeat_some(b, foreground, device)

    def _repeat_some(self, b: int, foreground: Tensor, device: torch.device) -> None:
        """In a quarter of the images the objects look alike: neighbours of one kind are told apart by their outline only."""
        clones = chance((b, 1), 0.25, device) & foreground
        source = BACKGROUND_LAYERS + torch.randint(0, 3, (b, LAYERS), device=device)
        source = torch.where(clones, source, torch.arange(LAYERS, device=device).expand(b, LAYERS))
        for name in ("table", "aspect", "skeleton", "noisy", "hole", "joints", "thickness", "texture", "zoom", "colour", "second",
                     "mixing", "pattern", "frequency", "hardness", "bulge"):  # fmt: skip
            value = getattr(self, name)
            index = source.reshape(b, LAYERS, *([1] * (value.dim() - 2))).expand(value.shape)
            setattr(self, name, value.gather(1, index))


def _field(p: Layers, i: int, u: Tensor, v: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Signed inside-ness of layer ``i`` (positive inside, unit near 1 in local coordinates) and the local radius."""

    def each(value: Tensor) -> Tensor:
        return value[:, i].reshape(-1, 1, 1)

    radius = (u * u + v * v).sqrt()
    turn = (torch.atan2(v, u) * (TABLE / (2 * math.pi))) % TABLE
    low = turn.floor()
    table = p.table[:, i]
    b = len(table)
    index = low.long().clamp(max=TABLE - 1).reshape(b, -1)
    near = table.gather(1, index).reshape(u.shape)
    after = table.gather(1, (index + 1) % TABLE).reshape(u.shape)
    limit = near + (after - near) * (turn - low)
    polar = limit - radius
    hole = each(p.hole)
    polar = torch.where(hole > 0, torch.minimum(polar, radius - limit * hole), polar)

    limb = torch.full_like(u, -9.0)
    for k in range(3):
        start, end = p.joints[:, i, k], p.joints[:, i, k + 1]
        du, dv = (end - start)[:, 0].reshape(-1, 1, 1), (end - start)[:, 1].reshape(-1, 1, 1)
        pu, pv = u - start[:, 0].reshape(-1, 1, 1), v - start[:, 1].reshape(-1, 1, 1)
        along = ((pu * du + pv * dv) / (du * du + dv * dv + 1e-4)).clamp(0, 1)
        width = p.thickness[:, i, k].reshape(-1, 1, 1).lerp(p.thickness[:, i, k + 1].reshape(-1, 1, 1), along)
        limb = torch.maximum(limb, width - ((pu - along * du) ** 2 + (pv - along * dv) ** 2).sqrt())
    cloud = 0.75 - radius + 0.35 * noise
    field = torch.where(each(p.skeleton), limb, polar)
    return torch.where(each(p.noisy), cloud, field), radius


def _paint(p: Layers, i: int, u: Tensor, v: Tensor, field: Tensor, texture: Tensor) -> Tensor:
    """Colours of layer ``i``, ``[B, 3, S, S]``."""

    def each(value: Tensor) -> Tensor:
        return value[:, i].reshape(-1, 1, 1)

    angle, frequency = each(p.pattern_angle), each(p.frequency)
    along = (u * angle.cos() + v * angle.sin()) * frequency + texture[:, 3] * 0.4
    across = (v * angle.cos() - u * angle.sin()) * frequency
    kind = each(p.pattern)
    wave = torch.where(kind < 0.12, along.sin(), along.sin() * across.sin() * 1.6)
    wave = torch.where(kind > 0.2, texture[:, 3], wave)
    wave = (wave * each(p.hardness)).tanh() * (kind < 0.36)
    blend = torch.where(kind < 0.36, 0.5 + 0.5 * wave, 0.0).unsqueeze(1)
    first, second = p.colour[:, i].reshape(-1, 3, 1, 1), p.second[:, i].reshape(-1, 3, 1, 1)
    colour = first + (second - first) * blend
    b = len(u)
    colour = colour + (p.mixing[:, i] @ texture[:, :3].reshape(b, 3, -1)).reshape(colour.shape)
    light = p.light[:, i]
    shade = 1 + u.clamp(-2, 2) * light[:, 0].reshape(-1, 1, 1) + v.clamp(-2, 2) * light[:, 1].reshape(-1, 1, 1)
    shade = shade + each(p.bulge) * (field.clamp(0, 1).sqrt() - 0.6)
    shade = shade + torch.where(field < 0.06, each(p.outline), 0.0)
    return colour * shade.unsqueeze(1)


def _window(p: Layers, i: int, size: int) -> tuple[slice, slice]:
    """The part of a single image that layer ``i`` and its shadow can reach, in whole blocks of four pixels."""
    if bool(p.everything[0, i]):
        return slice(0, size), slice(0, size)
    stretch = float(p.aspect[0, i]) ** 0.5
    # Outlines reach 1.8, limbs of joints about 3; warps and clouds push them out.
    local = 3.2 if bool(p.skeleton[0, i]) else 1.9
    reach = float(p.scale[0, i]) * max(stretch, 1 / stretch) * (local + 3 * float(p.warp[0, i])) + 0.09
    slices = []
    for axis in (1, 0):
        centre = float(p.centre[0, i, axis])
        low = max(0, min(size - 8, int((centre - reach) * size) // 4 * 4))
        high = min(size, max(low + 8, -(-int((centre + reach) * size) // 4) * 4))
        slices.append(slice(low, high))
    return slices[0], slices[1]


def render(b: int, size: int, device: torch.device, bank: Tensor, under: tuple[Tensor, Tensor] | None = None) -> Scene:
    """Draws ``b`` images. ``under``: rendered frames (``rgb f32[M, 3, S, S]``, ids ``i64[M, S, S]``), M <= b, to lay layers over.

    A single image is drawn window by window, which on a CPU costs a fraction of whole layers.
    """
    rgb = torch.zeros(b, 3, size, size, device=device)
    part = torch.zeros(b, size, size, dtype=torch.long, device=device)
    over_frame = torch.zeros(b, dtype=torch.bool, device=device)
    if under is not None and len(under[0]):
        m = min(b, len(under[0]))
        rgb[:m], part[:m], over_frame[:m] = under[0][:m], under[1][:m], True
    p = Layers(b, over_frame, len(bank), device)
    axis = (torch.arange(size, device=device).float() + 0.5) / size
    whole = slice(0, size)

    for i in range(LAYERS):
        if b == 1 and not bool(p.active[0, i]):
            continue
        rows, columns = _window(p, i, size) if b == 1 else (whole, whole)
        _layer(p, i, rgb[:, :, rows, columns], part[:, rows, columns], axis[rows], axis[columns], size, bank)

    owner = torch.zeros(b, IDS, dtype=torch.long, device=device)
    owner[:, :FIRST_LAYER_ID] = torch.arange(FIRST_LAYER_ID, device=device)
    owner[:, FIRST_LAYER_ID:] = FIRST_LAYER_ID + p.first
    return Scene(rgb.clamp(0, 1), part, owner)


def _layer(p: Layers, i: int, rgb: Tensor, part: Tensor, rows: Tensor, columns: Tensor, size: int, bank: Tensor) -> None:
    """Lays layer ``i`` over ``rgb [B, 3, h, w]`` and ``part [B, h, w]``, in place; ``rows``, ``columns``: their places in 0..1."""
    b, _, h, w = rgb.shape
    y, x = rows.reshape(1, -1, 1), columns.reshape(1, 1, -1)
    zoom = p.zoom[:, i].reshape(-1, 1, 1)
    where = torch.stack(
        [((x - 0.5) * 2 * zoom + p.shift[:, i, 0].reshape(-1, 1, 1)).expand(b, h, w),
         ((y - 0.5) * 2 * zoom + p.shift[:, i, 1].reshape(-1, 1, 1)).expand(b, h, w)], -1
    )  # fmt: skip
    texture = F.grid_sample(bank[p.texture[:, i]], where, mode="bilinear", padding_mode="reflection", align_corners=False)
    cos, sin = p.angle[:, i].cos().reshape(-1, 1, 1), p.angle[:, i].sin().reshape(-1, 1, 1)
    scale = p.scale[:, i].reshape(-1, 1, 1)
    stretch = p.aspect[:, i].sqrt().reshape(-1, 1, 1)
    dx = x - p.centre[:, i, 0].reshape(-1, 1, 1)
    dy = y - p.centre[:, i, 1].reshape(-1, 1, 1)
    warp = p.warp[:, i].reshape(-1, 1, 1)
    u = (dx * cos + dy * sin) / (scale * stretch) + warp * texture[:, 3]
    v = (dy * cos - dx * sin) / (scale / stretch) + warp * texture[:, 0]
    field, _ = _field(p, i, u, v, texture[:, 3])
    field = torch.where(p.everything[:, i].reshape(-1, 1, 1), torch.ones_like(field), field)
    pixels = scale * size / p.softness[:, i].reshape(-1, 1, 1) * torch.minimum(stretch, 1 / stretch)
    alpha = (field * pixels + 0.5).clamp(0, 1) * p.active[:, i].reshape(-1, 1, 1)

    if i >= BACKGROUND_LAYERS:
        coarse = F.avg_pool2d(alpha.unsqueeze(1), 4)
        for _ in range(2):
            coarse = F.avg_pool2d(coarse, 5, 1, 2, count_include_pad=False)
        move = torch.eye(2, 3, device=rgb.device).repeat(b, 1, 1)
        # The shift is in units of the whole picture; the grid's are of this window.
        move[:, :, 2] = p.shadow_shift[:, i] * 2 * torch.tensor([size / w, size / h], device=rgb.device)
        grid = F.affine_grid(move, [b, 1, h // 4, w // 4], align_corners=False)
        coarse = F.grid_sample(coarse, grid, align_corners=False)
        dark = F.interpolate(coarse, size=(h, w), mode="bilinear", align_corners=False)
        rgb.mul_(1 - p.shadow[:, i].reshape(-1, 1, 1, 1) * dark)
    rgb.lerp_(_paint(p, i, u, v, field, texture), alpha.unsqueeze(1))
    part.masked_fill_(alpha > 0.5, FIRST_LAYER_ID + i)
