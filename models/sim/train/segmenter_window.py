"""The mask decoder for processors: it draws masks about their prompts only.

Most of a decoder's time goes into the upscaling from stride 16 to stride 2, over the whole picture, for an object that fills a
twentieth of it. A box says where the object is; so where there is one, everything behind the transformer is done in a window
about the box and the foreground points, object by object, and the logits beyond it are `OUTSIDE`. Prompts without a box, and
those with an earlier mask, get the whole picture. Same weights, same interface, nothing is trained.

The loop over the objects is an ONNX `Loop`, which a graphics processor would not like; there one batch over whole pictures is
better (`mask_decoder.onnx`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 16  # pixels of the resized frame; windows have whole cells
MARGIN = 0.25  # of the prompt's extent, to each side
OUTSIDE = -10.0  # logit of what is not looked at


def around(coords: Tensor, labels: Tensor, has_mask: Tensor, coarse: Tensor) -> Tensor:
    """Windows ``i64[B, 4]``: top, left, bottom, right in cells of ``coarse [..., rows, columns]``, none of them empty."""
    cells = torch._shape_as_tensor(coarse)[-2:].flip(0).to(torch.float32).to(coords.device)
    place = coords.float() + 0.5

    def extreme(way: float) -> Tensor:
        """The least (``way`` 1) or greatest (-1) x and y of box corners and foreground points."""
        counts = ((labels == 1) | (labels == 2) | (labels == 3)).unsqueeze(-1)
        return way * torch.where(counts, way * place, torch.full_like(place, 1e6)).amin(1)

    low, high = extreme(1.0), extreme(-1.0)
    margin = (high - low) * MARGIN + CELL
    start = torch.minimum(((low - margin) / CELL).floor().clamp(min=0.0), cells - 1.0)
    end = torch.maximum(torch.minimum(((high + margin) / CELL).ceil(), cells), start + 1.0)
    boxed = (labels == 3).any(1, keepdim=True) & (has_mask.reshape(-1, 1) <= 0)
    start, end = torch.where(boxed, start, torch.zeros_like(start)), torch.where(boxed, end, cells.expand_as(end))
    return torch.cat([start.flip(1), end.flip(1)], 1).to(torch.int64)


def windowed(model: nn.Module) -> nn.Module:
    """A copy of a `segmenter_model.Segmenter` that draws in windows; for export, not for training."""
    import segmenter_model

    model = copy.deepcopy(model).requires_grad_(False)
    decoder, c = model.mask_decoder, model.cfg.embed
    rows, columns = 7, 9
    example = (
        torch.randn(1, c, 2 * rows, 2 * columns),
        torch.randn(1, c, rows, columns),
        torch.randn(1, 32, 2 * rows, 2 * columns),
        torch.randn(1, segmenter_model.NUM_MASKS, model.cfg.finest + 1),
        torch.tensor(1),
    )
    segmenter_model.EXPORTING = True
    try:
        draw = torch.jit.trace(lambda embeddings, *rest: decoder.draw(decoder.unfold(embeddings), *rest), example, check_trace=False)
    finally:
        segmenter_model.EXPORTING = False
    model.window = in_windows(draw)
    return model


def in_windows(draw: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """What draws each prompt's masks in its window, by ``draw``, a traced function of embeddings, image, dense prompt, kernels
    and frame. Scripted, for the loop to stay one."""

    @torch.jit.script
    def run(
        embeddings: Tensor,
        image: Tensor,
        dense: Tensor,
        kernels: Tensor,
        frame: Tensor,
        windows: Tensor,
        outside: float = OUTSIDE,
    ) -> tuple[Tensor, Tensor]:
        rows, columns = image.shape[2], image.shape[3]
        masks: list[Tensor] = []
        statistics: list[Tensor] = []
        for i in range(windows.shape[0]):
            top, left, bottom, right = int(windows[i, 0]), int(windows[i, 1]), int(windows[i, 2]), int(windows[i, 3])
            right, bottom = columns - right, rows - bottom
            # Padding by less than nothing cuts all axes at once; slices would copy one after another.
            finer = [-2 * left, -2 * right, -2 * top, -2 * bottom]
            others = [0, 0, -i, i + 1 - windows.shape[0]]
            low_res, seen = draw(
                F.pad(embeddings, finer),
                F.pad(image, [-left, -right, -top, -bottom] + others),
                F.pad(dense, finer + others),
                kernels[i : i + 1],
                frame,
            )
            masks.append(F.pad(low_res, [8 * left, 8 * right, 8 * top, 8 * bottom], value=outside))
            statistics.append(seen)
        return torch.cat(masks), torch.cat(statistics)

    return run
