"""Training views made on the CPU: the same kinds as in detector_data.py, as bytes through Pillow.

One view costs one to three milliseconds on one thread, so that data preparation takes a
small share of a training step on a CPU. Frames stay whole in memory; crops are resized by
Pillow's antialiased bilinear filter, which is also the filter used at inference.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter

from detector_data import MAX_BOXES, MEAN, STD, Batch, FrameStore

BILINEAR = Image.Resampling.BILINEAR
TILE = 64


class CpuViews:
    """Draws augmented batches from a store in host memory; `damage` scales how often pictures are cut out, blurred or noisy, `whole` is
    the share of frames that are shown whole, as they are at inference, instead of a crop of them."""

    def __init__(self, store: FrameStore, seed: int = 0, damage: float = 1.0, whole: float = 0.3) -> None:
        self.store, self.rng, self.damage, self.whole = store, np.random.default_rng(seed), damage, whole
        self.rgb = store.pixels[0].numpy()
        self.boxes, self.category = store.boxes.numpy(), store.category.numpy()
        self.colour, self.ignore = store.colour.numpy(), store.ignore.numpy()
        self.noise = (self.rng.standard_normal(1 << 21) * 32).clip(-127, 127).astype(np.int8)
        mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
        self.gain, self.offset = 1 / (255 * std), -mean / std

    def batch(self, size: int, tiles: float, width: int, height: int) -> Batch:
        """`tiles`: share of mosaics of single objects; the rest shows one frame each."""
        images = np.zeros((size, height, width, 3), np.uint8)
        rows, valid = [], []
        mosaics = int(size * tiles + self.rng.random())
        for i in range(size):
            make = self.mosaic if i < mosaics else self.single
            picture, found = make(width, height)
            picture = self.photometric(picture)
            h, w = picture.shape[:2]
            if self.rng.random() < 0.4 * self.damage:
                found = self.cutout(picture, found)
            images[i, :h, :w] = picture
            rows.append(found)
            valid.append((w, h))
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float().mul_(self.gain).add_(self.offset)
        for i, (w, h) in enumerate(valid):
            x[i, :, h:], x[i, :, :, w:] = 0.0, 0.0
        most = max(1, max(len(r[1]) for r in rows))
        boxes = np.zeros((size, most, 4), np.float32)
        category, colour = np.full((size, most), -1), np.full((size, most), -1)
        ignore = np.zeros((size, most), bool)
        for i, (b, k, c, v) in enumerate(rows):
            n = len(k)
            boxes[i, :n], category[i, :n], colour[i, :n], ignore[i, :n] = b, k, c, v
        return Batch(x, *(torch.from_numpy(v) for v in (boxes, category, colour, ignore)))

    def cut(self, frame: int, x0: float, y0: float, w: float, h: float, vw: int, vh: int, keep: float):
        """The part (x0, y0, w, h) of a frame resized to vw x vh, perhaps mirrored, and its objects."""
        x0, y0 = max(x0, 0.0), max(y0, 0.0)
        left, top = int(x0), int(y0)
        right, bottom = min(int(np.ceil(x0 + w)), self.store.width), min(int(np.ceil(y0 + h)), self.store.height)
        part = Image.fromarray(self.rgb[frame, top:bottom, left:right])
        window = (x0 - left, y0 - top, min(x0 + w - left, right - left), min(y0 + h - top, bottom - top))
        picture = part.resize((vw, vh), BILINEAR, box=window)
        b = (self.boxes[frame] - [x0, y0, x0, y0]) * [vw / w, vh / h, vw / w, vh / h]
        if self.rng.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            b = np.stack([vw - b[:, 2], b[:, 1], vw - b[:, 0], b[:, 3]], 1)
        area = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
        b = b.clip(0, [vw, vh, vw, vh])
        size = b[:, 2:] - b[:, :2]
        seen = size.prod(1) / np.maximum(area, 1e-3)
        there = (self.category[frame] >= 0) & (seen > 0.05) & (size.min(1) > 1)
        vague = self.ignore[frame] | (seen < keep) | (size.max(1) < 8) | (size.min(1) < 4)
        found = tuple(v[there] for v in (b.astype(np.float32), self.category[frame], self.colour[frame], vague))
        return picture, found

    def single(self, width: int, height: int):
        """A crop of one frame. Valid region: 4:3 as cameras give it, the whole input, or another aspect ratio."""
        rng, s = self.rng, self.store
        kind = rng.random()
        vw, vh = width, min(height, width * 3 // 4)
        if 0.6 < kind <= 0.8:
            vh = height
        elif 0.8 < kind <= 0.92:
            vh = int(rng.integers(height * 2 // 3, height + 1))
        elif kind > 0.92:
            vw = int(rng.integers(width * 3 // 5, width + 1))
        whole = rng.random() < self.whole
        part = 1.0 if whole else np.exp(rng.uniform(-0.9, 0))
        w = s.width * part
        h = w * vh / vw * (1.0 if whole else np.exp(rng.uniform(-0.15, 0.15)))
        shrink = min(1.0, s.height / h)
        w, h = w * shrink, h * shrink
        x0, y0 = rng.random() * (s.width - w), rng.random() * (s.height - h)
        picture, found = self.cut(int(rng.integers(s.count)), x0, y0, w, h, vw, vh, 0.35)
        return picture, tuple(v[:MAX_BOXES] for v in found)

    def mosaic(self, width: int, height: int):
        """A grid of tiles, each zoomed on one object; categories are drawn evenly."""
        rng, s = self.rng, self.store
        tile = TILE if rng.random() < 0.75 else 2 * TILE
        columns, rows = max(1, round(width / tile)), max(1, round(height / tile))
        xs, ys = (np.linspace(0, v, n + 1).astype(int) for v, n in ((width, columns), (height, rows)))
        sheet = Image.new("RGB", (width, height))
        parts = []
        lists = s.by_category
        for row in range(rows):
            for column in range(columns):
                cw, ch = int(xs[column + 1] - xs[column]), int(ys[row + 1] - ys[row])
                of = lists[int(rng.integers(len(lists)))]
                frame, k = divmod(int(of[int(rng.integers(len(of)))]), s.objects)
                x1, y1, x2, y2 = (float(v) for v in self.boxes[frame, k])
                h = max(y2 - y1, (x2 - x1) * ch / cw) * rng.uniform(1.05, 2.4)
                h = min(max(h, 20.0), float(s.height))
                w = min(h * cw / ch * np.exp(rng.uniform(-0.15, 0.15)), float(s.width))
                cx = (x1 + x2) / 2 + (rng.random() - 0.5) * max(w - (x2 - x1), 0.0)
                cy = (y1 + y2) / 2 + (rng.random() - 0.5) * max(h - (y2 - y1), 0.0)
                x0 = min(max(cx - w / 2, 0.0), s.width - w)
                y0 = min(max(cy - h / 2, 0.0), s.height - h)
                picture, found = self.cut(frame, x0, y0, w, h, cw, ch, 0.5)
                sheet.paste(picture, (int(xs[column]), int(ys[row])))
                corner = np.array([xs[column], ys[row]] * 2, np.float32)
                parts.append((found[0] + corner, *found[1:]))
        merged = [np.concatenate(v) for v in zip(*parts)]
        order = np.argsort(merged[3], kind="stable")[:MAX_BOXES]  # those that count first
        return sheet, tuple(v[order] for v in merged)

    def cutout(self, picture: np.ndarray, found):
        """Paint a rectangle; objects it hides for the most part no longer count."""
        rng = self.rng
        h, w = picture.shape[:2]
        rw, rh = (np.array([w, h]) * rng.uniform(0.04, 0.22, 2)).astype(int) + 1
        x, y = int(rng.integers(w - rw + 1)), int(rng.integers(h - rh + 1))
        picture[y : y + rh, x : x + rw] = rng.integers(0, 256, 3)
        b, category, colour, vague = found
        ow = np.minimum(b[:, 2], x + rw) - np.maximum(b[:, 0], x)
        oh = np.minimum(b[:, 3], y + rh) - np.maximum(b[:, 1], y)
        hidden = ow.clip(0) * oh.clip(0) / np.maximum((b[:, 2:] - b[:, :2]).prod(1), 1.0) > 0.6
        return b, category, colour, vague | hidden

    def photometric(self, picture: Image.Image) -> np.ndarray:
        """Light, contrast, gamma, slight saturation and white balance, blur, low resolution, JPEG, noise."""
        rng, damage = self.rng, self.damage
        size = picture.size
        kind = rng.random()
        if kind < 0.12 * damage:
            picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.2)))
        elif kind < 0.26 * damage:
            scale = rng.uniform(0.45, 0.85)
            small = picture.resize((max(8, int(size[0] * scale)), max(8, int(size[1] * scale))), BILINEAR)
            picture = small.resize(size, BILINEAR)
        if rng.random() < 0.5:
            picture = ImageEnhance.Color(picture).enhance(rng.uniform(0.8, 1.2))
        v = np.arange(256, dtype=np.float32) / 255
        level = rng.uniform(0.3, 0.6)
        v = ((v - level) * rng.uniform(0.8, 1.2) + level) * rng.uniform(0.78, 1.22)
        v = v[None] * rng.uniform(0.95, 1.05, (3, 1))
        v = v.clip(0, 1) ** np.exp(rng.uniform(-0.25, 0.25))
        picture = picture.point((v * 255 + 0.5).astype(np.uint8).ravel().tolist())
        if rng.random() < 0.2 * damage:
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=int(rng.integers(30, 92)))
            picture = Image.open(buffer)
        out = np.array(picture)
        if rng.random() < 0.4 * damage:
            start = int(rng.integers(len(self.noise) - out.size))
            noise = self.noise[start : start + out.size].reshape(out.shape)
            amount = int(rng.integers(1, 13))  # of 32: standard deviations of 1 to 12 grey levels
            out = (out + (noise.astype(np.int16) * amount >> 5)).clip(0, 255).astype(np.uint8)
        return out
