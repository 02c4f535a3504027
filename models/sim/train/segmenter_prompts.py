"""Training prompts and the losses of the segmenter; everything is batched and stays on the device.

Prompts imitate what the pipeline sends: a detector's box, which is tight at best and often loose; up to 20 foreground points
that are centres of detector queries, so they crowd around the middle and now and then fall on a neighbour; single clicks;
and a second round with an earlier mask and a point where it was wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segmenter_world2d import chance, uniform

POSITIVE, NEGATIVE, EXTRA = 20, 3, 2
SLOTS = 2 + POSITIVE + NEGATIVE + EXTRA
# Share of the boxes whose points may all lie beside the object: the middle of a box need not be on a bent or half-hidden thing.
UNCHECKED = 0.15


@dataclass
class Prompts:
    """``coords f32[P, SLOTS, 2]`` in pixels, ``labels f32[P, SLOTS]``, ``target f32[P, 1, S/2, S/2]`` coverage 0..1,
    ``image i64[P]``, ``single bool[P]``: one point only (whole or part may be meant)."""

    coords: Tensor
    labels: Tensor
    target: Tensor
    image: Tensor
    single: Tensor


def choose(maps: Tensor, per_image: int, ids: int, minimum: int) -> tuple[Tensor, Tensor]:
    """Objects (mostly) or single parts to ask for: ``kind i64[B, P]`` (0 object, 1 part) and ``id i64[B, P]``."""
    b = maps.shape[0]
    areas = torch.zeros(b, 2, ids, device=maps.device)
    areas.scatter_add_(2, maps.reshape(b, 2, -1), torch.ones((1, 1, 1), device=maps.device).expand(b, 2, maps[0, 0].numel()))
    outlines = torch.zeros_like(areas)
    for axis in (2, 3):
        here, next_to = maps.narrow(axis, 0, maps.shape[axis] - 1), maps.narrow(axis, 1, maps.shape[axis] - 1)
        differ = (here != next_to).to(outlines.dtype).reshape(b, 2, -1)
        outlines.scatter_add_(2, here.reshape(b, 2, -1), differ)
        outlines.scatter_add_(2, next_to.reshape(b, 2, -1), differ)
    # Of compact shapes nearly all alike, whatever their size; of thin and branched ones, which are harder, more.
    weight = torch.where(areas >= minimum, outlines / areas.clamp(min=1) ** 0.4, 0.0)
    weight[:, :, 0] = 0
    weight[:, 1] *= 0.3
    weight = weight.reshape(b, -1) + 1e-6
    weight[:, 0] = weight[:, ids] = 1e-9
    picked = torch.multinomial(weight, per_image, replacement=True)
    return picked // ids, picked % ids


def bounds(mask: Tensor) -> Tensor:
    """Tight boxes ``x0, y0, x1, y1`` (pixel edges) of ``bool[P, S, S]``; an empty mask gives the whole frame."""
    size = mask.shape[-1]
    columns, rows = mask.any(1), mask.any(2)

    def ends(line: Tensor) -> tuple[Tensor, Tensor]:
        first = line.to(torch.uint8).argmax(1)
        last = size - line.flip(1).to(torch.uint8).argmax(1)
        return first.float(), last.float()

    (x0, x1), (y0, y1) = ends(columns), ends(rows)
    return torch.stack([x0, y0, x1, y1], 1)


def jitter(box: Tensor, size: int, loose_share: float) -> Tensor:
    """Detector-like boxes: a third tight, the rest moved by up to 10 or 25 % a side, a share up to 40 % a side larger."""
    p, device = len(box), box.device
    kind = torch.rand(p, 1, device=device)
    extent = (box[:, 2:] - box[:, :2]).repeat(1, 2)
    amount = torch.where(kind < 0.35, 0.015, torch.where(kind < 0.68, 0.10, 0.25))
    moved = box + (torch.rand(p, 4, device=device) * 2 - 1) * amount * extent
    outward = torch.tensor([-1.0, -1.0, 1.0, 1.0], device=device)
    loose = box + outward * extent * torch.rand(p, 4, device=device) * 0.4
    moved = torch.where(kind > 1 - loose_share, loose, moved)
    low, high = torch.minimum(moved[:, :2], moved[:, 2:] - 2), moved[:, 2:]
    return torch.cat([low, high], 1).clamp(0, size)


def draw(weight: Tensor, count: int, size: int) -> tuple[Tensor, Tensor]:
    """``count`` positions a row, in pixels, by ``weight [P, h, w]``; also whether the row had any weight at all."""
    p, h, w = weight.shape
    flat = weight.reshape(p, -1)
    some = flat.sum(1) > 0
    index = torch.multinomial(flat + (~some).unsqueeze(1).float(), count, replacement=True)
    scale = size / w
    x, y = (index % w).float(), (index // w).float()
    spot = torch.stack([x, y], -1) + torch.rand(p, count, 2, device=weight.device)
    # Decoder coordinates name pixel indices: the graph adds the half pixel.
    return spot * scale - 0.5, some


def blurred(mask: Tensor, kernel: int, times: int) -> Tensor:
    x = mask.unsqueeze(1)
    for _ in range(times):
        x = F.avg_pool2d(x, kernel, 1, kernel // 2)
    return x.squeeze(1)


def make(maps: Tensor, valid: Tensor, per_image: int, ids: int, loose_share: float = 0.1) -> Prompts:
    b, _, size, _ = maps.shape
    device = maps.device
    kind, chosen = choose(maps, per_image, ids, minimum=max(16, round(60 * (size / 384) ** 2)))
    image = torch.arange(b, device=device).repeat_interleave(per_image)
    mask = maps[image, kind.flatten()] == chosen.reshape(-1, 1, 1)
    # An image in which nothing is large enough gives an empty prompt: its target is empty and its loss harmless.
    target = F.avg_pool2d(mask.unsqueeze(1).to(torch.bfloat16 if device.type == "cuda" else torch.float32), 2).float()
    p = len(mask)
    tight = bounds(mask)
    box = jitter(tight, size, loose_share)

    mode = torch.rand(p, 1, device=device)
    single = mode.squeeze(1) < 0.17
    has_box = mode >= 0.29

    # Points are drawn from cells of four pixels, by how much of a cell is the object's.
    share = F.avg_pool2d(target, 2).squeeze(1)
    side = size // 4
    most = share.flatten(1).amax(1).clamp(max=0.9).reshape(-1, 1, 1)
    solid = ((share >= most) & (share > 0)).float()
    depth = blurred(solid, 3, 2)
    centred = solid * depth**6
    axis = (torch.arange(side, device=device).float() + 0.5) * 4
    grown = box + torch.tensor([-0.1, -0.1, 0.1, 0.1], device=device) * (box[:, 2:] - box[:, :2]).repeat(1, 2)
    in_x = (axis > grown[:, 0:1]) & (axis < grown[:, 2:3])
    in_y = (axis > grown[:, 1:2]) & (axis < grown[:, 3:4])
    beside = (in_y.unsqueeze(2) & in_x.unsqueeze(1)).float() * (share <= 0) * valid[image, 0, ::4, ::4]

    inner, _ = draw(solid, POSITIVE, size)
    middle, _ = draw(centred, POSITIVE, size)
    astray, has_outside = draw(beside, NEGATIVE + 3, size)
    centre = (box[:, :2] + box[:, 2:]).unsqueeze(1) / 2
    spread = torch.exp(uniform((p, 1, 1), -3.5, -1.5, device))
    crowd = centre + torch.randn(p, POSITIVE, 2, device=device) * spread * (box[:, 2:] - box[:, :2]).unsqueeze(1)
    cell = (crowd / 4).long().clamp(0, side - 1)
    hits = solid.reshape(p, -1).gather(1, cell[..., 1] * side + cell[..., 0]) > 0
    # Query centres that crowd around the middle of the box, kept where they hit; elsewhere an interior point.
    style = torch.rand(p, 1, 1, device=device)
    points = torch.where(style < 0.35, inner, torch.where(style < 0.55, middle, torch.where(hits.unsqueeze(-1), crowd, inner)))
    # As a detector gives them beside its box: on the object or not.
    points = torch.where(has_box.unsqueeze(-1) & (style > 1 - UNCHECKED), crowd, points)
    wrong = chance((p, 3), 0.5, device) & chance((p, 1), 0.4, device) & has_outside.unsqueeze(1)
    slots = torch.randperm(POSITIVE - 1, device=device)[:3] + 1
    points[:, slots] = torch.where(wrong.unsqueeze(-1), astray[:, NEGATIVE:], points[:, slots])

    number = torch.exp(uniform((p, 1), 0.7, 3.05, device)).floor()
    number = torch.where(chance((p, 1), 0.35, device), 20.0, number)
    number = torch.where(mode < 0.17, 1.0, torch.where(mode < 0.29, number, torch.where(mode < 0.62, 0.0, number)))
    negatives = torch.where(
        chance((p, 1), 0.35, device) & ~single.unsqueeze(1) & has_outside.unsqueeze(1),
        torch.randint(1, NEGATIVE + 1, (p, 1), device=device).float(), 0.0,
    )  # fmt: skip
    negatives = torch.where((mode > 0.4) & (mode < 0.7), 0.0, negatives)
    points = torch.where(single.reshape(-1, 1, 1) & (style < 0.5), middle, points)
    points = torch.where(single.reshape(-1, 1, 1) & (style >= 0.5), inner, points)

    rank = torch.arange(POSITIVE, device=device)
    ones = torch.ones(p, 1, device=device)
    labels = torch.cat(
        [
            torch.where(has_box, 2.0, -1.0), torch.where(has_box, 3.0, -1.0),
            torch.where(rank < number, 1.0, -1.0), torch.where(rank[:NEGATIVE] < negatives, 0.0, -1.0),
            -ones, -ones,
        ], 1,
    )  # fmt: skip
    corners = box.reshape(p, 2, 2)
    coords = torch.cat([corners, points, astray[:, :NEGATIVE], torch.zeros(p, EXTRA, 2, device=device)], 1)
    return Prompts(coords, labels, target, image, single)


def correct(prompts: Prompts, logits: Tensor) -> Prompts:
    """Adds a foreground point where ``logits [P, 1, S/2, S/2]`` missed the target, a background point where it spilled over."""
    size = prompts.target.shape[-1] * 2
    found, wanted = logits.squeeze(1) > 0, prompts.target.squeeze(1) >= 0.5
    # Interiors of the errors, as a person would click them: cells of four pixels that are wholly wrong, or else the worst.
    missed = F.avg_pool2d((wanted & ~found).float().unsqueeze(1), 2).squeeze(1)
    spilled = F.avg_pool2d((found & ~wanted).float().unsqueeze(1), 2).squeeze(1)
    miss, any_missed = draw(missed**2 * blurred(missed, 3, 2) ** 2, 1, size)
    spill, any_spilled = draw(spilled**2 * blurred(spilled, 3, 2) ** 2, 1, size)
    which = torch.rand(len(found), device=logits.device)
    coords, labels = prompts.coords.clone(), prompts.labels.clone()
    coords[:, -2], coords[:, -1] = miss[:, 0], spill[:, 0]
    labels[:, -2] = torch.where(any_missed & (which < 0.7), 1.0, -1.0)
    labels[:, -1] = torch.where(any_spilled & (which > 0.3), 0.0, -1.0)
    return Prompts(coords, labels, prompts.target, prompts.image, torch.zeros_like(prompts.single))


def mask_loss(logits: Tensor, target: Tensor, inside: Tensor, weight: Tensor) -> Tensor:
    """10 x focal + Dice + weighted cross-entropy, ``[P, tokens]``."""
    probability = logits.sigmoid()
    # log(1 + e^x) - x t, which is cheaper than the general function and as stable.
    entropy = F.softplus(logits) - logits * target
    hard = probability - target
    count = inside.sum((2, 3)).clamp(min=1)
    focal = (entropy * hard * hard * inside).sum((2, 3)) / count
    local = (entropy * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1)
    covered = probability * inside
    dice = 1 - (2 * (covered * target).sum((2, 3)) + 1) / (covered.sum((2, 3)) + target.sum((2, 3)) + 1)
    return 10 * focal + dice + local


@torch.no_grad()
def true_iou(logits: Tensor, prompts: Prompts, valid: Tensor) -> Tensor:
    """The IoU ``f32[P, 4]`` that masks have with what was asked for; arguments as ``loss`` takes them."""
    found, wanted = (logits > 0) & (valid[prompts.image] > 0), prompts.target >= 0.5
    return (found & wanted).sum((2, 3)) / (found | wanted).sum((2, 3)).clamp(min=1)


def loss(logits: Tensor, predicted_iou: Tensor, prompts: Prompts, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Focal + Dice + boundary-weighted cross-entropy per token, best of tokens 1-3, and the error of the predicted IoU.

    ``logits f32[P, 4, h, w]``; ``valid [B, 1, h, w]`` is 0 in the letterbox's padding, where nothing is asked.
    """
    target = prompts.target
    inside = valid[prompts.image]
    # The object's neighbourhood and its outline, so that a small object's edge is worth as much as a large one's.
    edge = F.max_pool2d(target, 3, 1, 1) + F.max_pool2d(-target, 3, 1, 1)
    near = F.avg_pool2d(F.max_pool2d(target, 8, 8), 3, 1, 1)
    near = F.interpolate((near > 0).to(target.dtype), scale_factor=8, mode="nearest")
    weight = (near + 3 * edge) * inside
    each = mask_loss(logits[:, :1], target, inside, weight)[:, 0]
    # The alternatives are compared on every other pixel, at a random offset.
    dy, dx = torch.randint(2, (2,)).tolist()
    alternatives = mask_loss(*(t[:, :, dy::2, dx::2] for t in (logits[:, 1:], target, inside, weight)))

    asked = (target.sum((1, 2, 3)) > 0).float()
    total = asked.sum().clamp(min=1)
    first = (each * asked).sum() / total
    best = alternatives.amin(1)
    share = torch.where(prompts.single, 1.0, 0.4)
    # A little of the mean keeps the tokens that never win alive.
    several = ((best + 0.05 * alternatives.mean(1)) * share * asked).sum() / total
    reached = true_iou(logits, prompts, valid)
    # L1 beside MSE: the mean absolute error is what callers feel.
    error = predicted_iou.float() - reached
    iou_loss = ((2 * error**2 + error.abs()).mean(1) * asked).sum() / total
    parts = {
        "first": first.detach(), "several": several.detach(),
        "iou": (reached[:, 0] * asked).sum() / total, "iou_error": (error.detach().abs()[:, 0] * asked).sum() / total,
    }  # fmt: skip
    return first + several + iou_loss, parts
