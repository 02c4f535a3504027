"""Training images for the segmenter, made on the training device: rendered frames, procedural layers, and both together.

Rendered frames come as the shards of ``scenelex_sim.dataset`` (``rgb u8[N,H,W,3]``, ``instance u8[N,H,W]``). They are kept on
the device as bytes; new shards are picked up while training runs, so that rendering and training may overlap.
"""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segmenter_world2d import BACKGROUND_LAYERS, FIRST_LAYER_ID, IDS, LAYERS, Scene, chance, render, texture_bank, uniform


class Frames:
    """Rendered frames on the device, filled by a thread that watches folders for ``*.npz`` shards."""

    def __init__(self, folders: list[Path], device: torch.device, limit: int):
        self.device = device
        self.limit = limit
        self.shape: tuple[int, int] | None = None  # height and width of the first shard; all others must agree
        self.folders = folders
        self.shards: list[tuple[Tensor, Tensor]] = []
        self.count = 0
        self.seen: set[Path] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="shard-loader", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def _watch(self) -> None:
        while not self._stop.is_set():
            fresh = sorted(p for folder in self.folders for p in folder.glob("**/*.npz") if p not in self.seen)
            for path in fresh:
                if self.count >= self.limit or self._stop.is_set():
                    return
                self._load(path)
            self._stop.wait(5.0)

    def _load(self, path: Path) -> None:
        try:
            with np.load(path) as shard:
                rgb, instance = shard["rgb"], shard["instance"]
        except (OSError, ValueError, KeyError, EOFError) as error:
            # A shard that is still being written: look at it again later, unless it is old.
            if time.time() - path.stat().st_mtime > 120:
                print(f"shard {path.name} cannot be read: {error}", flush=True)
                self.seen.add(path)
            return
        except Exception as error:  # zipfile.BadZipFile and zlib.error have no common base
            if type(error).__name__ not in ("BadZipFile", "error"):
                raise
            return
        self.seen.add(path)
        if not len(rgb):
            return
        self.shape = self.shape or rgb.shape[1:3]
        if rgb.shape[1:3] != self.shape:
            print(f"shard {path.name} left out: frames of {rgb.shape[1:3]}, expected {self.shape}", flush=True)
            return
        images = torch.from_numpy(rgb).to(self.device).permute(0, 3, 1, 2).contiguous()
        ids = torch.from_numpy(instance).to(self.device)
        self.shards.append((images, ids))
        self.count += len(images)

    def sample(self, count: int) -> tuple[Tensor, Tensor] | None:
        """``rgb f32[count, 3, H, W]`` in 0..1 and ids ``i64[count, H, W]``, or None while nothing has been loaded."""
        shards = list(self.shards)
        if not shards:
            return None
        sizes = torch.tensor([len(images) for images, _ in shards], dtype=torch.float32)
        # A few shards a batch, several frames from each: one gather per shard.
        chosen = torch.multinomial(sizes, min(8, count), replacement=True).tolist()
        share = [count // len(chosen) + (1 if i < count % len(chosen) else 0) for i in range(len(chosen))]
        rgb, ids = [], []
        for shard, number in zip(chosen, share):
            images, instance = shards[shard]
            index = torch.randint(len(images), (number,), device=self.device)
            rgb.append(images[index])
            ids.append(instance[index])
        return torch.cat(rgb).float() / 255, torch.cat(ids).long().clamp(max=FIRST_LAYER_ID - 1)


def place_frames(rgb: Tensor, ids: Tensor, size: int, whole: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Random crop, scale, flip and small rotation of rendered frames into ``size x size``.

    A part (``whole``) of them are near whole frames, as the segmenter will meet them; a frame that ends before the bottom or the right edge
    leaves padding there. Third result: the covered fraction of the height and of the width, ``[B, 2]``.
    """
    b, _, h, w = rgb.shape
    device = rgb.device
    # Side of the crop over the height of the frame.
    zoom = torch.exp(uniform((b,), math.log(0.35), 0.0, device))
    zoom = torch.where(chance((b,), whole, device), uniform((b,), 1.0, 1.05 * w / h, device), zoom)
    squeeze = torch.exp(torch.randn(b, device=device) * 0.12)
    angle = torch.where(chance((b,), 0.4, device) & (zoom < 0.8), uniform((b,), -0.4, 0.4, device), 0.0)
    flip = torch.where(chance((b,), 0.5, device), -1.0, 1.0)
    half_x, half_y = zoom * squeeze * h / w, zoom / squeeze
    free_x, free_y = (1 - half_x).clamp(min=0), (1 - half_y).clamp(min=0)
    cx, cy = uniform((b,), -1, 1, device) * free_x, uniform((b,), -1, 1, device) * free_y
    cx = torch.where(half_x > 1, (half_x - 1) * flip, cx)
    cy = torch.where(half_y > 1, half_y - 1, cy)
    covered = torch.stack([1 / half_y.clamp(min=1), 1 / half_x.clamp(min=1)], 1)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [torch.stack([half_x * cos * flip, -half_x * sin, cx], -1), torch.stack([half_y * sin * flip, half_y * cos, cy], -1)], 1
    )
    grid = F.affine_grid(theta, [b, 3, size, size], align_corners=False)
    image = F.grid_sample(rgb, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    labels = F.grid_sample(ids.float().unsqueeze(1), grid, mode="nearest", padding_mode="reflection", align_corners=False)
    return image, labels.squeeze(1).round().long(), covered


def repaint(rgb: Tensor, ids: Tensor, bank: Tensor, share: float = 0.5) -> Tensor:
    """Gives the objects of a ``share`` of rendered frames other colours and textures, keeping their shading."""
    b, _, h, w = rgb.shape
    device = rgb.device
    change = chance((b, FIRST_LAYER_ID), 0.6, device) & chance((b, 1), share, device)
    tint = uniform((b, FIRST_LAYER_ID, 3), 0.2, 1.9, device)
    grain = torch.exp(uniform((b, FIRST_LAYER_ID, 1), -4, -1.2, device))
    table = torch.cat([tint, grain, change.float().unsqueeze(-1)], -1)
    flat = ids.reshape(b, -1, 1).expand(-1, -1, 5)
    chosen = table.gather(1, flat).transpose(1, 2).reshape(b, 5, h, w)
    texture = bank[torch.randint(len(bank), (b,), device=device)][:, :3]
    texture = F.interpolate(texture, size=(h, w), mode="bilinear", align_corners=False)
    grey = rgb.mean(1, keepdim=True)
    painted = grey * (chosen[:, :3] + chosen[:, 3:4] * texture)
    return torch.where(chosen[:, 4:] > 0, painted, rgb).clamp(0, 1)


def _dct_matrix(device: torch.device) -> Tensor:
    n = torch.arange(8, device=device).float()
    matrix = torch.cos((2 * n + 1) * n.unsqueeze(1) * math.pi / 16) * 0.5
    matrix[0] *= math.sqrt(0.5)
    return matrix


def jpeg_like(rgb: Tensor, step: Tensor) -> Tensor:
    """Quantises 8x8 DCT coefficients, coarser for high frequencies; ``step [B]`` in 0..1 units, 0 leaves an image as it is."""
    b, c, h, w = rgb.shape
    matrix = _dct_matrix(rgb.device)
    blocks = rgb.reshape(b, c, h // 8, 8, w // 8, 8).permute(0, 1, 2, 4, 3, 5)
    frequency = torch.arange(8, device=rgb.device).float()
    weight = 1 + frequency.unsqueeze(0) + frequency.unsqueeze(1)
    quantum = step.reshape(-1, 1, 1, 1, 1, 1).clamp(min=1e-4) * weight
    coefficients = matrix @ blocks @ matrix.T
    blocks = matrix.T @ ((coefficients / quantum).round() * quantum) @ matrix
    back = blocks.permute(0, 1, 2, 4, 3, 5).reshape(b, c, h, w)
    return torch.where(step.reshape(-1, 1, 1, 1) > 0, back, rgb)


def photograph(rgb: Tensor, strength: float = 1.0) -> Tensor:
    """What a camera does to a picture: blur, exposure, colour cast, vignette, noise, compression, 8 bits.

    ``strength`` scales all of it; the first half hour of a training on a CPU gets on better with a half.
    """
    b, _, h, w = rgb.shape
    device = rgb.device

    def some(p: float, low: float, high: float) -> Tensor:
        return torch.where(chance((b, 1, 1, 1), p * strength, device), uniform((b, 1, 1, 1), low, high * strength, device), 0.0)

    sigma = torch.where(chance((b,), 0.6 * strength, device), torch.exp(uniform((b,), -1.2, 0.6, device)), 0.05)
    offset = torch.arange(-4, 5, device=device).float()
    kernel = torch.exp(-0.5 * (offset / sigma.unsqueeze(1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    flat = F.pad(rgb.reshape(1, b * 3, h, w), (4, 4, 4, 4), mode="reflect")
    flat = F.conv2d(flat, kernel.reshape(-1, 1, 1, 9), groups=b * 3)
    rgb = F.conv2d(flat, kernel.reshape(-1, 1, 9, 1), groups=b * 3).reshape(b, 3, h, w)

    rgb = rgb.clamp(1e-4, 1) ** torch.exp(torch.randn(b, 1, 1, 1, device=device) * 0.3 * strength)
    grey = rgb.mean(1, keepdim=True)
    rgb = grey.lerp(rgb, uniform((b, 1, 1, 1), 1 - 0.7 * strength, 1 + 0.4 * strength, device) * ~chance((b, 1, 1, 1), 0.05 * strength, device))
    contrast = torch.exp(torch.randn(b, 1, 1, 1, device=device) * 0.2 * strength)
    middle = rgb.mean((1, 2, 3), keepdim=True)
    rgb = (rgb - middle) * contrast + middle + torch.randn(b, 1, 1, 1, device=device) * 0.08 * strength
    rgb = rgb * (1 + torch.randn(b, 3, 1, 1, device=device) * 0.08 * strength)
    y = torch.linspace(-1, 1, h, device=device).reshape(1, 1, -1, 1)
    x = torch.linspace(-1, 1, w, device=device).reshape(1, 1, 1, -1)
    rgb = rgb * (1 - some(0.3, 0, 0.35) * (x * x + y * y))
    noise = some(0.6, 0.003, 0.06)
    rgb = rgb + torch.randn_like(rgb) * noise * (0.4 + rgb.clamp(0, 1).sqrt())
    rgb = jpeg_like(rgb, some(0.5, 0.005, 0.06).flatten())
    return (rgb.clamp(0, 1) * 255).round()


class Ring:
    """The latest procedural images, kept as bytes: drawing one costs more than several training steps on it.

    Each is seen again in other crops, colours and company.
    """

    def __init__(self, size: int, capacity: int, device: torch.device):
        self.size, self.capacity, self.device = size, capacity, device
        self.rgb = torch.zeros(capacity, 3, size, size, dtype=torch.uint8, device=device)
        self.ids = torch.zeros(capacity, 2, size, size, dtype=torch.uint8, device=device)
        self.count = 0

    def add(self, scene: Scene) -> None:
        for row in range(len(scene.rgb)):
            place = self.count % self.capacity
            self.rgb[place] = (scene.rgb[row] * 255).round().to(torch.uint8)
            self.ids[place] = torch.stack([scene.objects()[row], scene.part[row]]).to(torch.uint8)
            self.count += 1

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """``rgb f32[count, 3, s, s]`` in 0..1 and ``maps i64[count, 2, s, s]`` (objects, parts)."""
        index = torch.randint(min(self.count, self.capacity), (count,), device=self.device)
        return self.rgb[index].float() / 255, self.ids[index].long()


def paste(rgb: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Lays about half the objects of each image's neighbour in the batch over it, in two images of five.

    They keep their ids; those whose id the image has already are left out. The ids of rendered and procedural images do not
    overlap.
    """
    b, device = len(rgb), rgb.device
    other_rgb, other = rgb.roll(1, 0), maps.roll(1, 0)
    own = torch.zeros(b, IDS, device=device).scatter_(1, maps[:, 0].reshape(b, -1), 1.0)
    theirs = torch.zeros(b, IDS, device=device).scatter_(1, other[:, 0].reshape(b, -1), 1.0)
    # Background regions are no objects to be moved about.
    taken = chance((b, IDS), 0.5, device) & chance((b, 1), 0.4, device) & (own == 0) & (theirs > 0)
    taken[:, 0] = False
    taken[:, FIRST_LAYER_ID : FIRST_LAYER_ID + BACKGROUND_LAYERS] = False
    mask = taken.gather(1, other[:, 0].reshape(b, -1)).reshape(b, 1, *maps.shape[2:])
    return torch.where(mask, other_rgb, rgb), torch.where(mask, other, maps)


class Images:
    """Makes batches: ``rgb f32[B, 3, S, S]`` in 0..255, ``maps i64[B, 2, S, S]`` (objects, parts), ``valid f32[B, 1, S, S]``.

    With ``ring`` images, procedural ones are drawn one or two a batch and used again from a ring; without, they are drawn anew
    for every batch, which only a GPU can afford. ``whole`` is the share of rendered frames with a ring that are shown whole.
    """

    def __init__(
        self, frames: Frames | None, size: int, device: torch.device, ring: int = 0, rendered: float = 0.5, strength: float = 1.0,
        whole: float = 0.5,
    ):  # fmt: skip
        self.frames = frames
        self.size = size
        self.device = device
        self.rendered, self.strength, self.whole = rendered, strength, whole
        self.bank: Tensor | None = None
        self.age = 0
        self.ring = Ring(256, ring, device) if ring else None

    def _textures(self, b: int, frames: Tensor | None) -> Tensor:
        if self.bank is None or self.age >= 8:
            donors = None
            if frames is not None and min(frames.shape[2:]) >= 256:
                donors = frames[:, :, :256, :256].clone()
            elif frames is not None:
                side = min(frames.shape[2:])
                donors = F.interpolate(frames[:, :, :side, :side], size=(256, 256), mode="bilinear", align_corners=False)
            if donors is not None:
                donors = donors - donors.mean((2, 3), keepdim=True)
            self.bank = texture_bank(max(8, 2 * b), 256, self.device, donors)
            self.age = 0
        self.age += 1
        return self.bank

    @torch.no_grad()
    def fill(self, count: int, frames: Tensor | None = None) -> None:
        """Draws ``count`` more procedural images into the ring."""
        assert self.ring is not None
        for _ in range(count):
            self.ring.add(render(1, self.ring.size, self.device, self._textures(8, frames)))

    def _from_ring(self, b: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rendered frames and images of the ring, each placed anew, with objects exchanged between neighbours."""
        assert self.ring is not None
        size, device = self.size, self.device
        share = min(b, round(b * self.rendered)) if self.frames is not None else 0
        drawn = self.frames.sample(share) if share else None
        m = 0 if drawn is None else share
        if m < b:
            fresh = max(0, 48 - self.ring.count) or int(torch.rand(()) < 0.4)
            self.fill(fresh, None if drawn is None else drawn[0])
        placed, labels, covered = [], [], torch.ones(b, 2, device=device)
        if drawn is not None:
            rgb, ids, covered[:m] = place_frames(*drawn, size, self.whole)
            placed.append(repaint(rgb, ids, self._textures(8, drawn[0]), 0.5 * self.strength))
            labels.append(torch.stack([ids, ids], 1))
        if m < b:
            rgb, maps = self.ring.sample(b - m)
            rgb, codes, _ = place_frames(rgb, maps[:, 0] * 256 + maps[:, 1], size, whole=0.25)
            placed.append(rgb)
            labels.append(torch.stack([codes // 256, codes % 256], 1))
        order = torch.randperm(b, device=device)
        rgb, maps = paste(torch.cat(placed)[order], torch.cat(labels)[order])
        return rgb, maps, covered[order]

    def _drawn(self, b: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rendered frames, a part of them under procedural layers, and wholly procedural images, all drawn now."""
        size, device = self.size, self.device
        drawn = self.frames.sample(max(1, round(b * 0.6))) if self.frames is not None else None
        bank = self._textures(b, None if drawn is None else drawn[0])
        covered = torch.ones(0, 2, device=device)
        if drawn is None:
            scene = render(b, size, device, bank)
        else:
            rgb, ids, covered = place_frames(*drawn, size)
            rgb = repaint(rgb, ids, bank)
            # Of the rendered frames about a third get procedural layers on top; the rest stay as they are.
            plain = round(b * 0.4)
            scene = render(b - plain, size, device, bank, (rgb[plain:], ids[plain:]))
            owner = torch.zeros(plain, IDS, dtype=torch.long, device=device)
            owner[:, :FIRST_LAYER_ID] = torch.arange(FIRST_LAYER_ID, device=device)
            scene = Scene(
                torch.cat([rgb[:plain], scene.rgb]), torch.cat([ids[:plain], scene.part]), torch.cat([owner, scene.owner])
            )
        return scene.rgb, torch.stack([scene.objects(), scene.part], 1), covered

    @torch.no_grad()
    def batch(self, b: int) -> tuple[Tensor, Tensor, Tensor]:
        size, device = self.size, self.device
        rgb, maps, covered = self._from_ring(b) if self.ring is not None else self._drawn(b)
        rgb = photograph(rgb, self.strength)

        # Letterbox: most real frames are not square, so a strip at the bottom or the right is padding.
        ratio = torch.where(chance((b,), 0.75, device), uniform((b,), 0.5, 1.0, device), 1.0)
        wide = chance((b,), 0.7, device)
        rows = torch.where(wide, ratio, 1.0)
        columns = torch.where(wide, 1.0, ratio)
        # Whole frames keep their own shape; where only rendered images are named, they come first.
        m = len(covered)
        partial = (covered < 0.999).any(1)
        rows[:m] = torch.where(partial, covered[:, 0], rows[:m])
        columns[:m] = torch.where(partial, covered[:, 1], columns[:m])
        rows, columns = rows.reshape(-1, 1, 1) * size, columns.reshape(-1, 1, 1) * size
        axis = torch.arange(size, device=device)
        valid = (axis.reshape(1, -1, 1) < rows.round()) & (axis.reshape(1, 1, -1) < columns.round())
        maps = maps * valid.unsqueeze(1)
        return rgb, maps, valid.unsqueeze(1).float()


__all__ = ["Frames", "Images", "IDS", "LAYERS"]
