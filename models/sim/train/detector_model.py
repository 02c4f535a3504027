"""The open-vocabulary detector: a dense convolutional detector whose classifier is the text.

The image side is an anchor-free one-stage detector (strides 8, 16 and 32). Each cell
predicts a box and two vectors. A phrase is turned into two vectors as well, so that

    p(cell shows the phrase) = p(thing) * (1 - g + g * p(attribute))

with p(thing) and p(attribute) sigmoids of dot products and `g`, predicted from the text
alone, saying whether the phrase names an attribute (a colour) at all. The product is what
lets "a red mug" work for a colour and a category never seen together.

`Detector` is what is trained; `ExportedDetector` wraps it in the split Grounding DINO
contract (per-token logits, boxes relative to the unpadded region).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, HEIGHT = 416, 320
STRIDES = (8, 16, 32)
QUERIES = 300
TEXT_COLUMNS = 256
DELIMITERS = (101, 102, 1012, 1029)  # [CLS] [SEP] . ?
# Logit of a delimiter's column: low enough never to name a thing, finite so that it can be averaged.
DELIMITER_LOGIT = -20.0


@dataclass(frozen=True)
class Sizes:
    """Channel counts and depths."""

    stem: int = 16
    stages: tuple[int, int, int, int] = (32, 96, 192, 256)
    depths: tuple[int, int, int, int] = (1, 1, 3, 2)
    neck: int = 96
    towers: int = 1
    box_tower: int = 64
    bins: int = 16
    text_input: int = 384
    text_hidden: int = 224
    thing: int = 128
    attribute: int = 32
    categories: int = 28
    colours: int = 11


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, cin: int, cout: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(cout, eps=1e-3, momentum=0.03),
            nn.ReLU(inplace=True),
        )


class Residual(nn.Module):
    """Two 3x3 convolutions, optionally with a shortcut."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.a = ConvNorm(channels, channels)
        self.b = ConvNorm(channels, channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x))
        return x + y if self.shortcut else y


class Split(nn.Module):
    """Cross-stage block: half of the channels pass `depth` residual blocks, all steps are kept."""

    def __init__(self, cin: int, cout: int, depth: int, shortcut: bool = True) -> None:
        super().__init__()
        half = cout // 2
        self.keep = ConvNorm(cin, half, 1)
        self.work = ConvNorm(cin, half, 1)
        self.blocks = nn.ModuleList(Residual(half, shortcut) for _ in range(depth))
        self.fuse = ConvNorm(half * (2 + depth), cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.keep(x), self.work(x)]
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.fuse(torch.cat(parts, 1))


class Context(nn.Module):
    """Pools over three growing windows, so that the coarsest cells see the whole scene."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvNorm(channels, channels // 2, 1)
        self.expand = ConvNorm(channels * 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.expand(torch.cat(parts, 1))


class ImageSide(nn.Module):
    """Backbone and a two-way feature pyramid; returns maps at strides 8, 16, 32."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.stem = ConvNorm(3, s.stem, 3, 2)
        chans = (s.stem, *s.stages)
        self.stages = nn.ModuleList(
            nn.Sequential(ConvNorm(chans[i], chans[i + 1], 3, 2), Split(chans[i + 1], chans[i + 1], s.depths[i]))
            for i in range(4)
        )
        self.context = Context(s.stages[3])
        n = s.neck
        self.lateral = nn.ModuleList(ConvNorm(c, n, 1) for c in s.stages[1:])
        self.down_path = nn.ModuleList(Split(2 * n, n, 1, False) for _ in range(2))
        self.strided = nn.ModuleList(ConvNorm(n, n, 3, 2) for _ in range(2))
        self.up_path = nn.ModuleList(Split(2 * n, n, 1, False) for _ in range(2))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stages[0](self.stem(x))
        c3 = self.stages[1](x)
        c4 = self.stages[2](c3)
        c5 = self.context(self.stages[3](c4))
        p3, p4, p5 = (f(c) for f, c in zip(self.lateral, (c3, c4, c5)))
        p4 = self.down_path[0](torch.cat([p4, F.interpolate(p5, scale_factor=2.0, mode="nearest")], 1))
        p3 = self.down_path[1](torch.cat([p3, F.interpolate(p4, scale_factor=2.0, mode="nearest")], 1))
        p4 = self.up_path[0](torch.cat([p4, self.strided[0](p3)], 1))
        p5 = self.up_path[1](torch.cat([p5, self.strided[1](p4)], 1))
        return [p3, p4, p5]


class TextSide(nn.Module):
    """From a phrase's pooled language features to its thing and attribute vectors and the gate."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        width = 2 * s.text_input
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.thing = nn.Linear(width, s.thing)
        self.hidden = nn.Linear(width, s.text_hidden)
        self.rest = nn.Linear(s.text_hidden, s.thing)
        self.attribute = nn.Linear(s.text_hidden, s.attribute)
        self.gate = nn.Linear(s.text_hidden, 1)
        nn.init.zeros_(self.rest.weight)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """pooled [..., 2*384] raw -> thing [...,D] and attribute [...,A] (unit length), gate logit [...]."""
        return self.from_standardised((pooled - self.mean) / self.std)

    def from_standardised(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same, for features that are already standardised (and perhaps perturbed)."""
        h = F.relu(self.hidden(x))
        thing = F.normalize(self.thing(x) + self.rest(h), dim=-1)
        attribute = F.normalize(self.attribute(h), dim=-1)
        return thing, attribute, self.gate(h).squeeze(-1)


class Detector(nn.Module):
    """Image side, heads shared by the three strides, and text side."""

    def __init__(self, sizes: Sizes | None = None) -> None:
        super().__init__()
        s = sizes or Sizes()
        self.sizes = s
        self.image = ImageSide(s)
        n = s.neck
        self.name_tower = nn.Sequential(*(ConvNorm(n, n) for _ in range(s.towers)))
        self.box_tower = nn.Sequential(*(ConvNorm(s.box_tower if i else n, s.box_tower) for i in range(s.towers)))
        self.to_thing = nn.Conv2d(n, s.thing, 1)
        self.to_attribute = nn.Conv2d(n, s.attribute, 1)
        self.to_box = nn.ModuleList(nn.Conv2d(s.box_tower, 4 * s.bins, 1) for _ in STRIDES)
        self.text = TextSide(s)
        self.thing_bias = nn.Parameter(torch.tensor(-math.log((1 - 0.01) / 0.01)))
        self.attribute_bias = nn.Parameter(torch.tensor(-1.0))
        # Used in training only: plain classifiers that speed up recognition.
        self.category_head = nn.Linear(s.thing, s.categories)
        self.colour_head = nn.Linear(s.attribute, s.colours)

    def cells(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised images [b,3,H,W] -> thing [b,N,D], attribute [b,N,A], box bins [b,N,4*bins]."""
        thing, attribute, boxes = [], [], []
        for level, x in enumerate(self.image(images)):
            name = self.name_tower(x)
            thing.append(self.to_thing(name).flatten(2))
            attribute.append(self.to_attribute(name).flatten(2))
            boxes.append(self.to_box[level](self.box_tower(x)).flatten(2))
        return tuple(torch.cat(v, 2).transpose(1, 2) for v in (thing, attribute, boxes))


def cell_centres(width: int = WIDTH, height: int = HEIGHT) -> tuple[Tensor, Tensor]:
    """Centres [N,2] (x, y in pixels) and strides [N] of all cells, in the order of `Detector.cells`."""
    points, strides = [], []
    for s in STRIDES:
        y, x = torch.meshgrid(torch.arange(height // s), torch.arange(width // s), indexing="ij")
        points.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * s)
        strides.append(torch.full((points[-1].shape[0],), float(s)))
    return torch.cat(points), torch.cat(strides)


def decode_boxes(bins: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """Expected distances to the four sides -> corners [b,N,4] x1,y1,x2,y2 in pixels."""
    count = bins.shape[-1] // 4
    p = bins.unflatten(-1, (4, count)).softmax(-1)
    side = (p * torch.arange(count, device=bins.device, dtype=p.dtype)).sum(-1) * strides[..., None]
    return torch.cat([centres - side[..., :2], centres + side[..., 2:]], -1)


def fuse_norms(model: nn.Module) -> nn.Module:
    """Fold every batch normalisation into the convolution before it (for inference)."""
    for module in model.modules():
        if isinstance(module, ConvNorm):
            conv, norm = module[0], module[1]
            module[0] = torch.nn.utils.fuse_conv_bn_eval(conv.eval(), norm.eval())
            module[1] = nn.Identity()
    return model


class ExportedDetector(nn.Module):
    """The split Grounding DINO contract around a trained detector with a fixed input size."""

    def __init__(self, detector: Detector, width: int = WIDTH, height: int = HEIGHT) -> None:
        super().__init__()
        self.net = detector
        centres, strides = cell_centres(width, height)
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("strides", strides, persistent=False)
        self.register_buffer("padding", torch.full((1, 1, TEXT_COLUMNS), float("-inf")), persistent=False)

    def phrases(self, ids: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features [b,T,2*384] of the phrase each token belongs to, and which tokens are delimiters."""
        special = (ids == DELIMITERS[0]) | (ids == DELIMITERS[1]) | (ids == DELIMITERS[2]) | (ids == DELIMITERS[3])
        length = ids.shape[1]
        index = torch.arange(length, device=ids.device)
        before = special[:, None, :] & (index[None, :] < index[:, None])
        after = special[:, None, :] & (index[None, :] > index[:, None])
        previous = torch.where(before, index, -1).amax(2)
        following = torch.where(after, index, length).amin(2)
        word = ~special
        same = (previous[:, :, None] == previous[:, None, :]) & word[:, :, None] & word[:, None, :]
        same = same.to(features.dtype)
        mean = (same @ features) / same.sum(2, keepdim=True).clamp(min=1.0)
        closing = (following[:, :, None] == index).to(features.dtype)
        return torch.cat([mean, closing @ features], -1), special

    def forward(
        self, pixel_values: Tensor, pixel_mask: Tensor, input_ids: Tensor, attention_mask: Tensor, text_features: Tensor
    ) -> tuple[Tensor, Tensor]:
        thing, attribute, bins = self.net.cells(pixel_values)
        pooled, special = self.phrases(input_ids, text_features)
        t_thing, t_attribute, gate = self.net.text(pooled)
        p_thing = (thing @ t_thing.transpose(1, 2) + self.net.thing_bias).sigmoid()
        p_attribute = (attribute @ t_attribute.transpose(1, 2) + self.net.attribute_bias).sigmoid()
        g = gate.sigmoid()[:, None, :]
        p = p_thing * (1.0 - g + g * p_attribute)
        p = torch.where(special[:, None, :] | (attention_mask[:, None, :] == 0), torch.zeros_like(p), p)

        valid_w = pixel_mask[:, 0, :].sum(1).to(p.dtype)
        valid_h = pixel_mask[:, :, 0].sum(1).to(p.dtype)
        inside = (self.centres[:, 0] < valid_w[:, None]) & (self.centres[:, 1] < valid_h[:, None])
        best = p.amax(2) * inside.to(p.dtype)
        _, top = best.topk(min(QUERIES, best.shape[1]), dim=1)
        p = torch.gather(p, 1, top[..., None].expand(-1, -1, p.shape[2]))
        bins = torch.gather(bins, 1, top[..., None].expand(-1, -1, bins.shape[2]))
        boxes = decode_boxes(bins, self.centres[top], self.strides[top])

        # 2e-9 is the sigmoid of DELIMITER_LOGIT.
        p = p.clamp(2.0611537e-9, 1.0 - 1e-6)
        logits = torch.log(p) - torch.log1p(-p)
        logits = logits.masked_fill(attention_mask[:, None, :] == 0, float("-inf"))
        pad = self.padding.expand(logits.shape[0], logits.shape[1], -1)
        logits = torch.cat([logits, pad[:, :, logits.shape[2] :]], 2)

        extent = torch.stack([valid_w, valid_h], 1)[:, None, :]
        low = torch.minimum(boxes[..., :2].clamp(min=0.0), extent) / extent
        high = torch.minimum(boxes[..., 2:].clamp(min=0.0), extent) / extent
        return logits, torch.cat([(low + high) * 0.5, high - low], -1)
