"""Category AP50 in PyTorch alone, to watch a training run. The figures that count come from evaluate.py."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from detector_data import MEAN, STD, FrameStore
from detector_model import HEIGHT, WIDTH, Detector, cell_centres, decode_boxes


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes [A,4] and [B,4] given by corners."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(-1)
    area_a, area_b = ((v[:, 2:] - v[:, :2]).prod(-1) for v in (a, b))
    return inter / (area_a[:, None] + area_b[None] - inter + 1e-9)


def suppress(boxes: np.ndarray, scores: np.ndarray, limit: float, most: int = 30) -> np.ndarray:
    """Greedy non-maximum suppression; indices kept, best first."""
    order = list(np.argsort(-scores))
    kept: list[int] = []
    while order and len(kept) < most:
        kept.append(order[0])
        rest = np.array(order[1:], int)
        order = list(rest[iou_matrix(boxes[kept[-1:]], boxes[rest])[0] < limit]) if len(rest) else []
    return np.array(kept, int)


def average_precision(hits: np.ndarray, scores: np.ndarray, total: int) -> float:
    """Area under the interpolated precision-recall curve; `hits` holds 1, 0 or -1 (not counted)."""
    order = np.argsort(-scores, kind="stable")
    hits = hits[order]
    hits = hits[hits >= 0]
    tp = np.cumsum(hits)
    precision = tp / np.arange(1, len(tp) + 1) if len(tp) else np.zeros(0)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((precision * hits).sum() / max(total, 1))


@torch.no_grad()
def predict(net: Detector, names: Tensor, rgb: Tensor) -> tuple[Tensor, Tensor]:
    """rgb u8 [b,h,w,3] -> scores [b,N,C], boxes [b,N,4] in pixels of the source."""
    h, w = rgb.shape[1:3]
    scale = min(WIDTH / w, HEIGHT / h)
    nh, nw = round(h * scale), round(w * scale)
    x = F.interpolate(rgb.permute(0, 3, 1, 2).float() / 255, (nh, nw), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (MEAN, STD))
    x = F.pad((x - mean) / std, (0, WIDTH - nw, 0, HEIGHT - nh))
    thing, _, bins = net.cells(x)
    text, _, _ = net.text.from_standardised(names)
    centres, strides = (v.to(x.device) for v in cell_centres())
    scores = (thing.float() @ text.T + net.thing_bias).sigmoid()
    return scores, decode_boxes(bins.float(), centres, strides) / scale


def quick_ap(net: Detector, names: Tensor, store: FrameStore, frames: int) -> dict[str, float]:
    """Mean over categories of AP at IoU 0.5."""
    n = min(frames, store.count)
    found: list[list[tuple[float, int]]] = [[] for _ in range(len(names))]
    total = np.zeros(len(names), int)
    for start in range(0, n, 32):
        stop = min(start + 32, n)
        scores, boxes = (v.cpu().numpy() for v in predict(net, names, store.pixels[0][start:stop]))
        for i in range(stop - start):
            truth = store.boxes[start + i].cpu().numpy()
            label = store.category[start + i].cpu().numpy()
            vague = store.ignore[start + i].cpu().numpy()
            for c in range(len(names)):
                mine = label == c
                total[c] += int((mine & ~vague).sum())
                cells = np.flatnonzero(scores[i, :, c] > 0.02)
                if not len(cells):
                    continue
                cells = cells[np.argsort(-scores[i, cells, c])[:100]]
                cells = cells[suppress(boxes[i, cells], scores[i, cells, c], 0.6)]
                overlap = iou_matrix(boxes[i, cells], truth[mine]) if mine.any() else np.zeros((len(cells), 0))
                free = np.ones(overlap.shape[1], bool)
                for row, cell in enumerate(cells):
                    ranked = np.where(free & ~vague[mine], overlap[row], 0)
                    hit = 0
                    if len(ranked) and ranked.max() >= 0.5:
                        free[ranked.argmax()] = False
                        hit = 1
                    elif overlap.shape[1] and (overlap[row] * vague[mine]).max() >= 0.5:
                        hit = -1
                    found[c].append((float(scores[i, cell, c]), hit))
    aps = []
    for c, rows in enumerate(found):
        if total[c]:
            a = np.array(rows).reshape(-1, 2)
            aps.append(average_precision(a[:, 1], a[:, 0], int(total[c])))
    return {"quick_ap50": round(float(np.mean(aps)), 4) if aps else 0.0, "objects": int(total.sum())}
