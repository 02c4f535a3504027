"""Frames on the training device, and the views the detector is trained on.

All frames live in device memory as bytes, at full, half and quarter size, so that reduced
views are not aliased. A batch is cut and augmented on the device: single views (crops,
flips, letterboxes) and mosaics of whole frames or of single objects. Colours keep their
names: hue is never shifted, saturation and white balance only slightly.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from detector_model import HEIGHT, WIDTH

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
MAX_BOXES = 64
LEVELS = 3


@dataclass
class Batch:
    """Augmented images and their objects, all on the training device."""

    images: Tensor  # [B,3,H,W] normalised, padding 0
    boxes: Tensor  # f32 [B,M,4] x1,y1,x2,y2 in pixels
    category: Tensor  # i64 [B,M], -1 where there is no object
    colour: Tensor  # i64 [B,M], -1 where no single colour names the object
    ignore: Tensor  # bool [B,M]: neither hit nor miss


def boxes_of(instance: Tensor, count: int) -> Tensor:
    """Bounding boxes f32 [N,count,4] (x2, y2 exclusive) of the ids 1..count in u8 [N,H,W]; zeros if absent."""
    n, h, w = instance.shape
    if instance.device.type == "cpu":
        return torch.from_numpy(_boxes_by_counting(instance.numpy(), count))
    out = torch.zeros(n, count, 4, device=instance.device)
    xs = torch.arange(w, device=instance.device)
    ys = torch.arange(h, device=instance.device)
    for k in range(count):
        hit = instance == k + 1
        col, row = hit.any(1), hit.any(2)
        there = col.any(1)
        x1 = torch.where(col, xs, w).amin(1)
        x2 = torch.where(col, xs, -1).amax(1) + 1
        y1 = torch.where(row, ys, h).amin(1)
        y2 = torch.where(row, ys, -1).amax(1) + 1
        out[:, k] = torch.where(there[:, None], torch.stack([x1, y1, x2, y2], 1), 0).float()
    return out


def _boxes_by_counting(instance: np.ndarray, count: int) -> np.ndarray:
    """`boxes_of` in one pass over the pixels and axis, whatever the number of ids."""
    n, h, w = instance.shape
    out = np.zeros((n, count, 4), np.float32)
    ids = instance.astype(np.int32) * (instance <= count)
    for axis, (length, low, high) in enumerate(((w, 0, 2), (h, 1, 3))):
        place = np.arange(length, dtype=np.int32).reshape((1, 1, w) if axis == 0 else (1, h, 1))
        for i in range(n):  # one frame at a time keeps the table small
            table = np.bincount((ids[i] * length + place[0]).ravel(), minlength=(count + 1) * length)
            hit = table.reshape(count + 1, length)[1:] > 0
            there = hit.any(1)
            out[i, there, low] = hit.argmax(1)[there]
            out[i, there, high] = length - hit[:, ::-1].argmax(1)[there]
    return out


class FrameStore:
    """Frames and boxes of all shards in a folder, loaded into device memory as shards appear; of `part` (k, n) those whose name's
    checksum is k modulo n."""

    def __init__(
        self, folder: Path, device: torch.device, max_frames: int, readers: int = 8, levels: int = LEVELS, part: tuple[int, int] = (0, 1)
    ) -> None:
        self.folder, self.device, self.readers, self.part = folder, device, readers, part
        self.seen: set[Path] = set()
        self.lock = threading.Lock()
        first = self._read(self._wait_for_first())
        self.height, self.width = first["rgb"].shape[1:3]
        self.objects = first["category"].shape[1]
        self.capacity = max_frames
        self.pixels = [
            torch.empty(max_frames, self.height >> l, self.width >> l, 3, dtype=torch.uint8, device=device)
            for l in range(levels)
        ]
        self.boxes = torch.zeros(max_frames, self.objects, 4, device=device)
        self.category = torch.full((max_frames, self.objects), -1, dtype=torch.int64, device=device)
        self.colour = torch.full_like(self.category, -1)
        self.ignore = torch.zeros(max_frames, self.objects, dtype=torch.bool, device=device)
        self.count = 0
        self.by_category: list[Tensor] = []

    def _wait_for_first(self) -> Path:
        found = sorted(self.folder.glob("*.npz"))
        if not found:
            raise SystemExit(f"no .npz shards in {self.folder}")
        return found[0]

    @staticmethod
    def _read(path: Path) -> dict[str, np.ndarray]:
        with np.load(path) as z:
            return {k: z[k] for k in ("rgb", "instance", "category", "color", "ignore") if k in z.files}

    def load_new(self) -> int:
        """Load every shard not loaded yet; returns the number of frames held."""
        which, of = self.part
        paths = [p for p in sorted(self.folder.glob("*.npz")) if crc32(p.name.encode()) % of == which and p not in self.seen]
        with ThreadPoolExecutor(self.readers, thread_name_prefix="shards") as pool:
            # Bounded: at most `readers` shards are in host memory at once.
            for start in range(0, len(paths), self.readers):
                chunk = paths[start : start + self.readers]
                for path, data in zip(chunk, pool.map(self._read, chunk)):
                    self.seen.add(path)
                    self._add(data)
        if paths:
            self._index()
        return self.count

    def _add(self, data: dict[str, np.ndarray]) -> None:
        n = min(len(data["rgb"]), self.capacity - self.count)
        if n <= 0:
            return
        here = slice(self.count, self.count + n)
        rgb = torch.from_numpy(data["rgb"][:n]).to(self.device)
        self.pixels[0][here] = rgb
        for start in range(0, n if len(self.pixels) > 1 else 0, 64):  # in pieces, to keep the float copies small
            small = rgb[start : start + 64].permute(0, 3, 1, 2).float()
            for level in range(1, len(self.pixels)):
                small = F.avg_pool2d(small, 2)
                rows = slice(here.start + start, here.start + start + small.shape[0])
                self.pixels[level][rows] = small.round().byte().permute(0, 2, 3, 1)
        instance = torch.from_numpy(data["instance"][:n]).to(self.device)
        boxes = boxes_of(instance, self.objects)
        category = torch.from_numpy(data["category"][:n].astype(np.int64)).to(self.device)
        category[(boxes[..., 2] - boxes[..., 0]) < 1] = -1
        self.boxes[here], self.category[here] = boxes, category
        self.colour[here] = torch.from_numpy(data["color"][:n].astype(np.int64)).to(self.device)
        if "ignore" in data:
            self.ignore[here] = torch.from_numpy(data["ignore"][:n].astype(bool)).to(self.device)
        self.count += n

    def _index(self) -> None:
        """Lists of (frame * objects + object) for each category, for drawing tiles evenly."""
        category = self.category[: self.count].flatten()
        usable = ~self.ignore[: self.count].flatten()
        lists = []
        for k in range(int(category.max()) + 1):
            found = torch.nonzero((category == k) & usable).squeeze(1)
            if len(found):
                lists.append(found)
        with self.lock:
            self.by_category = lists

    def draw_objects(self, count: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """Frame and object numbers [count] each, categories drawn evenly."""
        with self.lock:
            lists = self.by_category
        longest = torch.tensor([len(v) for v in lists], device=self.device)
        starts = torch.cumsum(longest, 0) - longest
        flat = torch.cat(lists)
        which = torch.randint(len(lists), (count,), device=self.device, generator=g)
        offset = (torch.rand(count, device=self.device, generator=g) * longest[which]).long()
        chosen = flat[starts[which] + torch.minimum(offset, longest[which] - 1)]
        return chosen // self.objects, chosen % self.objects


class Views:
    """Draws augmented batches from a store."""

    def __init__(self, store: FrameStore, seed: int = 0) -> None:
        self.store = store
        self.device = store.device
        self.g = torch.Generator(device=self.device).manual_seed(seed)
        k = torch.arange(8, device=self.device, dtype=torch.float32)
        dct = torch.cos((2 * k[None] + 1) * k[:, None] * torch.pi / 16) * 0.5
        dct[0] /= 2**0.5
        self.dct = dct
        self.jpeg = 1.0 + 2.0 * (k[:, None] + k[None])  # a quantisation table of JPEG's general shape

    def rand(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(*shape, device=self.device, generator=self.g) * (high - low) + low

    def batch(self, size: int, tiles: float, frames: float) -> Batch:
        """`tiles`, `frames`: shares of object mosaics (4x4) and frame mosaics (2x2)."""
        a, b = round(size * tiles), round(size * frames)
        parts = [self.single(size - a - b)]
        if a:
            parts.append(self.mosaic(a, 4, 4, True))
        if b:
            parts.append(self.mosaic(b, 2, 2, False))
        images, valid, boxes, category, colour, ignore = (torch.cat(v) for v in zip(*parts))
        images, covered = self.cutout(images, boxes)
        ignore = ignore | covered
        images = self.photometric(images)
        mean = torch.tensor(MEAN, device=self.device)[:, None, None]
        std = torch.tensor(STD, device=self.device)[:, None, None]
        images = (images - mean) / std * valid[:, None]
        return Batch(images, boxes, category, colour, ignore)

    def sample(self, frame: Tensor, x0: Tensor, y0: Tensor, sx: Tensor, sy: Tensor, h: int, w: int) -> Tensor:
        """Bilinear views [C,3,h,w] in 0..1: output pixel (i, j) shows source (x0 + sx (i + .5), y0 + sy (j + .5))."""
        s = self.store
        out = torch.empty(len(frame), 3, h, w, device=self.device)
        scale = torch.maximum(sx.abs(), sy.abs())
        level = (scale / 1.5).log2().ceil().clamp(0, LEVELS - 1).long()
        i = torch.arange(w, device=self.device) + 0.5
        j = torch.arange(h, device=self.device) + 0.5
        for l in range(LEVELS):
            rows = torch.nonzero(level == l).squeeze(1)
            for part in rows.split(256):
                if not len(part):
                    continue
                gx = (x0[part, None] + sx[part, None] * i) / s.width * 2 - 1
                gy = (y0[part, None] + sy[part, None] * j) / s.height * 2 - 1
                grid = torch.stack([gx[:, None, :].expand(-1, h, -1), gy[:, :, None].expand(-1, -1, w)], -1)
                source = s.pixels[l][frame[part]].permute(0, 3, 1, 2).float() / 255
                out[part] = F.grid_sample(source, grid, padding_mode="border", align_corners=False)
        return out

    def objects(self, frame: Tensor, x0: Tensor, y0: Tensor, sx: Tensor, sy: Tensor, w: Tensor, h: Tensor, keep: float):
        """Objects of each view: boxes [C,K,4] clipped to w x h, category, colour, ignore."""
        s = self.store
        source = s.boxes[frame]
        x = (source[..., 0::2] - x0[:, None, None]) / sx[:, None, None]
        y = (source[..., 1::2] - y0[:, None, None]) / sy[:, None, None]
        x, y = x.sort(-1).values, y.sort(-1).values
        area = (x[..., 1] - x[..., 0]) * (y[..., 1] - y[..., 0])
        x = torch.minimum(x.clamp(min=0), w[:, None, None])
        y = torch.minimum(y.clamp(min=0), h[:, None, None])
        bw, bh = x[..., 1] - x[..., 0], y[..., 1] - y[..., 0]
        seen = bw * bh / area.clamp(min=1e-3)
        category = s.category[frame]
        there = (category >= 0) & (seen > 0.05) & (bw > 1) & (bh > 1)
        ignore = s.ignore[frame] | (seen < keep) | (torch.maximum(bw, bh) < 8) | (torch.minimum(bw, bh) < 4)
        boxes = torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], -1)
        return boxes, torch.where(there, category, -1), s.colour[frame], ignore & there

    def pick(self, boxes: Tensor, category: Tensor, colour: Tensor, ignore: Tensor):
        """Keep at most MAX_BOXES entries of each image, real objects first."""
        rank = (category >= 0).int() * 2 - ignore.int()
        if rank.shape[1] < MAX_BOXES:
            pad = MAX_BOXES - rank.shape[1]
            return F.pad(boxes, (0, 0, 0, pad)), F.pad(category, (0, pad), value=-1), F.pad(colour, (0, pad), value=-1), F.pad(ignore, (0, pad))
        order = rank.topk(MAX_BOXES, dim=1).indices
        return (
            boxes.gather(1, order[..., None].expand(-1, -1, 4)),
            category.gather(1, order),
            colour.gather(1, order),
            ignore.gather(1, order),
        )

    def flip(self, x0: Tensor, sx: Tensor, width: Tensor | float) -> tuple[Tensor, Tensor]:
        """Mirror half of the views."""
        mirrored = self.rand(len(x0)) < 0.5
        return torch.where(mirrored, x0 + sx * width, x0), torch.where(mirrored, -sx, sx)

    def single(self, n: int):
        """Crops of one frame each, letterboxed into the input."""
        s = self.store
        frame = torch.randint(s.count, (n,), device=self.device, generator=self.g)
        kind = self.rand(n)
        # Valid region: 4:3 as cameras give it, the whole input, or another aspect ratio.
        vw, vh = torch.full((n,), float(WIDTH), device=self.device), torch.full((n,), WIDTH * 0.75, device=self.device)
        vh = torch.where(kind > 0.6, torch.full_like(vh, float(HEIGHT)), vh)
        vh = torch.where((kind > 0.8) & (kind <= 0.92), self.rand(n, low=HEIGHT * 0.67, high=HEIGHT).round(), vh)
        vw = torch.where(kind > 0.92, self.rand(n, low=WIDTH * 0.6, high=WIDTH).round(), vw)
        part = torch.where(self.rand(n) < 0.3, torch.ones(n, device=self.device), torch.exp(self.rand(n, low=-0.9, high=0.0)))
        stretch = torch.where(part == 1, torch.ones(n, device=self.device), torch.exp(self.rand(n, low=-0.15, high=0.15)))
        w = s.width * part
        h = w * vh / vw * stretch
        shrink = (s.height / h).clamp(max=1.0)
        w, h = w * shrink, h * shrink
        x0 = self.rand(n) * (s.width - w)
        y0 = self.rand(n) * (s.height - h)
        sx, sy = w / vw, h / vh
        x0, sx = self.flip(x0, sx, vw)
        images = self.sample(frame, x0, y0, sx, sy, HEIGHT, WIDTH)
        found = self.objects(frame, x0, y0, sx, sy, vw, vh, 0.35)
        xs = torch.arange(WIDTH, device=self.device)
        ys = torch.arange(HEIGHT, device=self.device)
        valid = (xs[None, None] < vw[:, None, None]) & (ys[None, :, None] < vh[:, None, None])
        return images, valid, *self.pick(*found)

    def mosaic(self, n: int, columns: int, rows: int, around_objects: bool):
        """Grids of cells from different frames; `around_objects` zooms each cell on one object."""
        s = self.store
        cells = n * columns * rows
        cw, ch = WIDTH // columns, HEIGHT // rows
        if around_objects:
            frame, k = s.draw_objects(cells, self.g)
            box = s.boxes[frame, k]
            bw, bh = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
            h = torch.maximum(bh, bw * ch / cw) * self.rand(cells, low=1.05, high=2.4)
            h = h.clamp(min=24.0, max=float(s.height))
            w = h * cw / ch * torch.exp(self.rand(cells, low=-0.15, high=0.15))
            w = w.clamp(max=float(s.width))
            cx = (box[:, 0] + box[:, 2]) / 2 + (self.rand(cells) - 0.5) * (w - bw).clamp(min=0)
            cy = (box[:, 1] + box[:, 3]) / 2 + (self.rand(cells) - 0.5) * (h - bh).clamp(min=0)
            x0 = torch.minimum((cx - w / 2).clamp(min=0), s.width - w)
            y0 = torch.minimum((cy - h / 2).clamp(min=0), s.height - h)
        else:
            frame = torch.randint(s.count, (cells,), device=self.device, generator=self.g)
            part = torch.exp(self.rand(cells, low=-0.7, high=0.0))
            w = s.width * part
            h = torch.minimum(w * ch / cw, torch.tensor(float(s.height), device=self.device))
            x0 = self.rand(cells) * (s.width - w)
            y0 = self.rand(cells) * (s.height - h)
        sx, sy = w / cw, h / ch
        x0, sx = self.flip(x0, sx, float(cw))
        views = self.sample(frame, x0, y0, sx, sy, ch, cw)
        size = torch.ones(cells, device=self.device)
        boxes, category, colour, ignore = self.objects(frame, x0, y0, sx, sy, size * cw, size * ch, 0.5)
        images = views.view(n, rows, columns, 3, ch, cw).permute(0, 3, 1, 4, 2, 5).reshape(n, 3, HEIGHT, WIDTH)
        cell = torch.arange(cells, device=self.device) % (rows * columns)
        corner = torch.stack([cell % columns * cw, cell // columns * ch] * 2, -1).float()
        boxes = boxes + corner[:, None]
        flat = [v.reshape(n, -1, *v.shape[2:]) for v in (boxes, category, colour, ignore)]
        valid = torch.ones(n, HEIGHT, WIDTH, dtype=torch.bool, device=self.device)
        return images, valid, *self.pick(*flat)

    def cutout(self, images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Paint one rectangle on half of the images; also returns which objects it hides for the most part."""
        n = len(images)
        w = self.rand(n, low=0.04, high=0.22) * WIDTH
        h = self.rand(n, low=0.04, high=0.22) * HEIGHT
        w, h = w * (self.rand(n) < 0.5), h
        x, y = self.rand(n) * (WIDTH - w), self.rand(n) * (HEIGHT - h)
        xs, ys = torch.arange(WIDTH, device=self.device), torch.arange(HEIGHT, device=self.device)
        inside = ((xs >= x[:, None]) & (xs < (x + w)[:, None]))[:, None, :]
        inside = inside & ((ys >= y[:, None]) & (ys < (y + h)[:, None]))[:, :, None]
        fill = self.rand(n, 3)[:, :, None, None]
        images = torch.where(inside[:, None], fill, images)
        ow = torch.minimum(boxes[..., 2], (x + w)[:, None]) - torch.maximum(boxes[..., 0], x[:, None])
        oh = torch.minimum(boxes[..., 3], (y + h)[:, None]) - torch.maximum(boxes[..., 1], y[:, None])
        area = ((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])).clamp(min=1.0)
        return images, ow.clamp(min=0) * oh.clamp(min=0) / area > 0.6

    def some(self, n: int, share: float) -> Tensor:
        """A random subset of n rows, of a fixed size."""
        return torch.randperm(n, device=self.device, generator=self.g)[: max(1, round(n * share))]

    def photometric(self, x: Tensor) -> Tensor:
        """Light, contrast, slight saturation and white balance, blur, low resolution, JPEG-like loss, noise."""
        n = len(x)
        col = (n, 1, 1, 1)
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * self.rand(*col, low=0.8, high=1.2)
        x = x * self.rand(n, 3, 1, 1, low=0.95, high=1.05)
        level = x.mean((1, 2, 3), keepdim=True)
        x = level + (x - level) * self.rand(*col, low=0.8, high=1.2)
        x = (x * self.rand(*col, low=0.78, high=1.22)).clamp(0, 1)
        x = (x + 1e-4).pow(torch.exp(self.rand(*col, low=-0.25, high=0.25)))
        rows = self.some(n, 0.25)
        sigma = self.rand(len(rows), 1, low=0.4, high=1.4)
        t = torch.arange(-2, 3, device=self.device).float()
        kernel = torch.exp(-(t**2) / (2 * sigma**2))
        kernel = kernel / kernel.sum(1, keepdim=True)
        flat = x[rows].reshape(1, -1, HEIGHT, WIDTH)
        weights = kernel.repeat_interleave(3, 0)
        flat = F.conv2d(flat, weights[:, None, :, None], padding=(2, 0), groups=len(weights))
        flat = F.conv2d(flat, weights[:, None, None, :], padding=(0, 2), groups=len(weights))
        x[rows] = flat.view(len(rows), 3, HEIGHT, WIDTH)
        rows = self.some(n, 0.12)
        scale = float(torch.rand(1).item() * 0.4 + 0.45)
        small = F.interpolate(x[rows], scale_factor=scale, mode="bilinear", antialias=self.device.type == "cpu")
        x[rows] = F.interpolate(small, size=(HEIGHT, WIDTH), mode="bilinear")
        rows = self.some(n, 0.3)
        x[rows] = self.lossy(x[rows])
        amount = self.rand(*col, low=0.0, high=0.05) * (self.rand(*col) < 0.6)
        noise = torch.randn(x.shape, device=self.device, generator=self.g, dtype=x.dtype)
        return (x + noise * amount).clamp(0, 1)

    def lossy(self, x: Tensor) -> Tensor:
        """8x8 cosine transform, quantised; chroma more coarsely."""
        y = (x * torch.tensor([0.299, 0.587, 0.114], device=self.device)[:, None, None]).sum(1, keepdim=True)
        planes = torch.cat([y, x[:, 2:3] - y, x[:, 0:1] - y], 1)
        blocks = planes.view(len(x), 3, HEIGHT // 8, 8, WIDTH // 8, 8)
        spectrum = torch.einsum("ki,ncyixj,lj->ncykxl", self.dct, blocks, self.dct)
        strength = torch.exp(self.rand(len(x), 1, 1, 1, 1, 1, low=-5.5, high=-3.4))
        step = self.jpeg[:, None, :] * strength
        step = step * torch.tensor([1.0, 1.6, 1.6], device=self.device)[:, None, None, None, None]
        spectrum = (spectrum / step).round() * step
        planes = torch.einsum("ki,ncykxl,lj->ncyixj", self.dct, spectrum, self.dct).reshape(planes.shape)
        y, b, r = planes[:, 0:1], planes[:, 1:2] + planes[:, 0:1], planes[:, 2:3] + planes[:, 0:1]
        green = (y - 0.299 * r - 0.114 * b) / 0.587
        return torch.cat([r, green, b], 1).clamp(0, 1)
