"""Phrase sampling, assignment of cells to objects, and the training losses of the detector.

Assignment is task-aligned (TOOD): a cell serves an object when it both names and boxes it
well. Names are learned with the varifocal loss over all phrases of the step, so every
phrase that is true of an object is positive and all others are negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from detector_data import Batch
from detector_model import Detector, decode_boxes


@dataclass
class Phrases:
    """Phrases of one step: standardised features [P,768], category and colour [P] (-1: none)."""

    features: Tensor
    category: Tensor
    colour: Tensor


class PhraseBank:
    """Draws phrases from the file written by text_features.py."""

    def __init__(self, path: Path, device: torch.device, seed: int = 0) -> None:
        z = np.load(path)
        self.texts = [str(t) for t in z["phrases"]]
        raw = torch.from_numpy(z["features"].astype(np.float32)).flatten(1)
        self.category, self.colour, self.word = (z[k].astype(np.int64) for k in ("category", "colour", "word"))
        plain = self.colour < 0
        # Statistics of plain and coloured phrases in equal parts.
        groups = [raw[torch.from_numpy(m)] for m in (plain, ~plain)]
        self.mean = torch.stack([v.mean(0) for v in groups]).mean(0)
        self.std = torch.stack([v.var(0) for v in groups]).mean(0).sqrt() + 1e-4
        self.features = ((raw - self.mean) / self.std).to(device)
        self.device, self.rng = device, np.random.default_rng(seed)
        self.categories = int(self.category.max()) + 1
        self.plain = [np.flatnonzero(plain & (self.category == k)) for k in range(self.categories)]
        self.coloured = [np.flatnonzero(~plain & (self.category == k)) for k in range(self.categories)]
        self.absent = np.flatnonzero(self.category < 0)

    def own_names(self) -> Tensor:
        """Features of "a <category>" for each category, in order."""
        return self.features[[v[0] for v in self.plain]]

    def draw(self, plain: int = 3, coloured: int = 4, absent: int = 40) -> Phrases:
        """`plain` and `coloured` phrases of every category, `absent` of things that never occur; then perturbed."""
        rng = self.rng
        first = [rng.choice(v, plain, replace=False) for v in self.plain]
        first += [rng.choice(v, coloured, replace=False) for v in self.coloured]
        first.append(rng.choice(self.absent, absent, replace=False))
        index = np.concatenate(first)
        # Between two names of the same thing lies, more or less, another name of it.
        other = index.copy()
        for i in range(self.categories * plain):
            other[i] = rng.choice(self.plain[self.category[index[i]]])
        share = np.where(rng.random(len(index)) < 0.5, rng.uniform(0, 0.5, len(index)), 0.0)
        share = torch.from_numpy(share.astype(np.float32)).to(self.device)[:, None]
        a = torch.from_numpy(index).to(self.device)
        b = torch.from_numpy(other).to(self.device)
        x = self.features[a] * (1 - share) + self.features[b] * share
        x = x + torch.randn_like(x) * (0.7 * torch.rand(len(x), 1, device=self.device))
        x = F.dropout(x, 0.15)
        return Phrases(
            x, torch.from_numpy(self.category[index]).to(self.device), torch.from_numpy(self.colour[index]).to(self.device)
        )


def inside(gt: Tensor, centres: Tensor) -> Tensor:
    """Distance [G,N] of each cell centre to the nearest side of each box [G,4]; negative outside."""
    x, y = centres[:, 0], centres[:, 1]
    margin = torch.minimum(x - gt[:, 0:1], gt[:, 2:3] - x)
    return torch.minimum(margin, torch.minimum(y - gt[:, 1:2], gt[:, 3:4] - y))


def overlap(gt: Tensor, boxes: Tensor) -> Tensor:
    """IoU [G,N] of each box [G,4] with its own list of boxes [G,N,4]."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    gx1, gy1, gx2, gy2 = (v[:, None] for v in gt.unbind(-1))
    inter = (torch.minimum(x2, gx2) - torch.maximum(x1, gx1)).clamp(min=0)
    inter = inter * (torch.minimum(y2, gy2) - torch.maximum(y1, gy1)).clamp(min=0)
    return inter / ((x2 - x1) * (y2 - y1) + (gx2 - gx1) * (gy2 - gy1) - inter + 1e-6)


@torch.no_grad()
def assign(score: Tensor, boxes: Tensor, centres: Tensor, strides: Tensor, batch: Batch, top: int = 10):
    """Task-aligned assignment.

    score [B,N,C] probability of each category, boxes [B,N,4] pixels. Returns for each cell the
    index of its object [B,N] (-1: none), the quality it should predict [B,N], and whether its
    background loss counts [B,N]. Works on the list of the real objects, not on a padded table.
    """
    b, n = score.shape[:2]
    image, index = torch.nonzero((batch.category >= 0) & ~batch.ignore, as_tuple=True)
    gt = batch.boxes[image, index]
    iou = overlap(gt, boxes[image])
    # Objects smaller than a cell have no cell centre inside: the cell around their centre serves them.
    mid = (gt[:, :2] + gt[:, 2:]) / 2
    around = torch.maximum((centres[:, 0] - mid[:, 0:1]).abs(), (centres[:, 1] - mid[:, 1:2]).abs()) < strides * 0.75
    small = (gt[:, 2:] - gt[:, :2]).amin(-1, keepdim=True) < 2 * strides
    candidate = (inside(gt, centres) > 0) | (around & small)
    named = score.transpose(1, 2)[image, batch.category[image, index]]
    metric, where = (named.clamp(min=1e-4).sqrt() * iou.pow(5) * candidate).topk(top, dim=1)
    iou = iou.gather(1, where)
    key = image[:, None] * n + where
    best = torch.full((b * n,), -1.0, device=score.device)
    chosen = metric > 1e-9
    best = best.scatter_reduce(0, key[chosen], iou[chosen], "amax")
    won = chosen & (iou >= best[key])  # where objects share a cell, the one with the larger IoU
    metric, iou = metric * won, iou * won
    quality = metric / (metric.amax(1, keepdim=True) + 1e-9) * iou.amax(1, keepdim=True)
    owner = torch.full((b * n,), -1, device=score.device)
    owner[key[won]] = index[:, None].expand_as(won)[won]
    wanted = torch.zeros(b * n, device=score.device)
    wanted[key[won]] = quality[won]
    image, index = torch.nonzero((batch.category >= 0) & batch.ignore, as_tuple=True)
    vague = torch.zeros(b, n, device=score.device)
    vague.index_add_(0, image, (inside(batch.boxes[image, index], centres) > 0).float())
    owner = owner.view(b, n)
    return owner, wanted.view(b, n), (owner >= 0) | (vague == 0)


def box_losses(bins: Tensor, points: Tensor, strides: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """GIoU loss, distribution loss and IoU [P] for positive cells; bins [P,4*n], target [P,4] pixels."""
    predicted = decode_boxes(bins[None], points, strides)[0]
    low = torch.maximum(predicted[:, :2], target[:, :2])
    high = torch.minimum(predicted[:, 2:], target[:, 2:])
    inter = (high - low).clamp(min=0).prod(1)
    area_p = (predicted[:, 2:] - predicted[:, :2]).clamp(min=0).prod(1)
    area_t = (target[:, 2:] - target[:, :2]).prod(1)
    union = area_p + area_t - inter + 1e-6
    iou = inter / union
    hull = torch.maximum(predicted[:, 2:], target[:, 2:]) - torch.minimum(predicted[:, :2], target[:, :2])
    hull = hull.prod(1) + 1e-6
    giou = iou - (hull - union) / hull
    count = bins.shape[1] // 4
    side = torch.cat([points - target[:, :2], target[:, 2:] - points], 1) / strides[:, None]
    side = side.clamp(0, count - 1.01)
    left = side.long()
    share = side - left
    logits = bins.view(-1, count)
    dist = F.cross_entropy(logits, left.view(-1), reduction="none") * (1 - share.view(-1))
    dist = dist + F.cross_entropy(logits, left.view(-1) + 1, reduction="none") * share.view(-1)
    return 1 - giou, dist.view(-1, 4).mean(1), iou.detach()


class NameLoss(torch.autograd.Function):
    """Varifocal loss over all cells and phrases, in a handful of passes over its largest tensor.

    Away from the targets the weight is 0.75 p^2, taken as a constant, so the gradient there is
    0.75 p^3. Only the few cells that serve an object have targets; their rows are redone.
    """

    @staticmethod
    def forward(ctx, logits, rows, target, counted):
        """logits [C,P]; rows [R] of the cells with targets, target [R,P] (0: false); counted f32 [C,1]."""
        total = target.sum().clamp(min=1.0)
        p = logits.sigmoid()
        grad = p * p
        grad.mul_(0.75).mul_(counted)
        background = torch.log1p(-p.clamp(max=1 - 1e-6)).mul_(grad)
        loss = -background.sum()
        grad.mul_(p)
        true = target > 0
        some, q = logits[rows], p[rows]
        weight = torch.where(true, target, 0.75 * q * q)
        loss = loss + background[rows].sum() + (weight * (F.softplus(some) - some * target)).sum()
        grad[rows] = weight * (q - target)
        ctx.save_for_backward(grad.div_(total))
        return loss / total

    @staticmethod
    def backward(ctx, upstream):
        (grad,) = ctx.saved_tensors
        return grad * upstream, None, None, None


def name_loss(logits: Tensor, quality: Tensor, category: Tensor, counted: Tensor, phrases: Phrases) -> Tensor:
    """Varifocal loss over all cells and phrases; `category` [B,N] of the cell's object, -1 for background."""
    flat = category.flatten()
    rows = torch.nonzero(flat >= 0).squeeze(1)
    target = (flat[rows, None] == phrases.category) * quality.flatten()[rows, None]
    return NameLoss.apply(logits.flatten(0, 1), rows, target, counted.flatten()[:, None].to(logits.dtype))


def detector_loss(
    net: Detector, outputs: tuple[Tensor, Tensor, Tensor], phrases: Phrases, batch: Batch, centres: Tensor, strides: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss and its parts (detached)."""
    thing, attribute, bins = (v.float() for v in outputs)
    t_thing, t_attribute, gate = net.text.from_standardised(phrases.features)
    logits = thing @ t_thing.T + net.thing_bias
    with torch.no_grad():
        boxes = decode_boxes(bins, centres, strides)
        plain = (phrases.colour < 0) & (phrases.category >= 0)
        one_hot = F.one_hot(phrases.category.clamp(min=0), net.sizes.categories).float() * plain[:, None]
        score = (logits @ (one_hot / one_hot.sum(0).clamp(min=1.0))).sigmoid()
    owner, quality, counted = assign(score, boxes, centres, strides, batch)
    positive = owner >= 0
    category = torch.where(positive, batch.category.gather(1, owner.clamp(min=0)), -1)
    parts = {"name": name_loss(logits, quality, category, counted, phrases)}

    image, cell = torch.nonzero(positive, as_tuple=True)
    target = batch.boxes[image, owner[image, cell]]
    weight = quality[image, cell]
    total = weight.sum().clamp(min=1.0)
    giou, dist, iou = box_losses(bins[image, cell], centres[cell], strides[cell], target)
    parts["box"] = (giou * weight).sum() / total
    parts["dist"] = (dist * weight).sum() / total

    colour = batch.colour[image, owner[image, cell]]
    coloured = phrases.colour >= 0
    known = weight * (colour >= 0)
    a = attribute[image, cell]
    fits = a @ t_attribute[coloured].T + net.attribute_bias
    hit = (colour[:, None] == phrases.colour[coloured]).float()
    each = F.binary_cross_entropy_with_logits(fits, hit, reduction="none").mean(1)
    parts["colour"] = (each * known).sum() / known.sum().clamp(min=1.0)
    parts["gate"] = F.binary_cross_entropy_with_logits(gate, coloured.float())

    label = category[image, cell]
    each = F.cross_entropy(net.category_head(thing[image, cell]), label, reduction="none", label_smoothing=0.05)
    parts["category_ce"] = (each * weight).sum() / total
    each = F.cross_entropy(net.colour_head(a), colour.clamp(min=0), reduction="none", label_smoothing=0.05)
    parts["colour_ce"] = (each * known).sum() / known.sum().clamp(min=1.0)

    weights = {"name": 1.0, "box": 2.5, "dist": 0.5, "colour": 1.0, "gate": 0.3, "category_ce": 1.0, "colour_ce": 0.2}
    loss = sum(weights[k] * v for k, v in parts.items())
    shown = {k: v.detach() for k, v in parts.items()}
    shown["iou"] = (iou * weight).sum() / total
    shown["positives"] = positive.sum() / len(positive)
    return loss, shown
