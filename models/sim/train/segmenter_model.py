"""A small promptable segmenter with the interface of SAM.

Three parts, named as the Segment Anything paper names them:

* image encoder: pixels ``[b, 3, H, W]`` -> embeddings ``[b, C, H / 8, W / 8]``; the longer of H and W is S, or both are;
* prompt encoder: points, box corners and an earlier mask -> sparse tokens and dense maps;
* mask decoder: a light two-way transformer at stride 16 and an upscaling path to stride 2.

There are no skip connections from the encoder to the decoder (SAM's interface has none), so the embedding itself carries
the detail: it is unfolded to strides 4 and 2 once for all prompts of an image, and only narrow maps are made per prompt.

Two departures from SAM, neither visible in the interface: prompts are also drawn as dense maps (inside the box, near a
point), which a small network learns from much sooner than from Fourier features alone; and padding points (label -1) are
masked out of every attention, so a batch may be padded to any number of points without changing a result.

Coordinates are pixels of the resized frame (longest side = S); the decoder adds the half pixel itself, as SAM's graph does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmenter_attention import TwoWayBlock, attend
from segmenter_window import around

# SAM's normalisation on the 0..255 scale (ImageNet's statistics times 255).
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
NUM_MASKS = 4  # token 0: the single answer; tokens 1-3: whole, part, sub-part
MASKED = -1e4  # additive attention bias that survives half precision


@dataclass
class SegmenterConfig:
    """Sizes of the network. ``size`` must be a multiple of 16."""

    size: int = 256
    stem: int = 16
    quarter: int = 32
    eighth: int = 64
    sixteenth: int = 128
    embed: int = 96
    encoder_blocks: int = 3
    decoder_blocks: int = 1
    fine: int = 32
    finer: int = 16
    finest: int = 6

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


class ConvNorm(nn.Sequential):
    """Convolution and batch norm (folded into one node when exported), optionally with ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True):
        padding = (kernel - 1) // 2 if kernel % 2 else 0
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, momentum=0.05),
        ]
        if act:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class Residual(nn.Module):
    """Two 3x3 convolutions around an identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = ConvNorm(channels, channels, 3)
        self.second = ConvNorm(channels, channels, 3, act=False)
        nn.init.zeros_(self.second[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class GlobalBlock(nn.Module):
    """Convolutional position, self-attention over the whole frame, and an MLP with a depthwise convolution inside.

    Keys and values are of means over four by four places (as in Pyramid Vision Transformer v2), which takes a third of the encoder's
    time off and is not seen in the masks.
    """

    POOLED = 4

    def __init__(self, channels: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        self.expand = ConvNorm(channels, hidden, 1)
        self.local = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.reduce = ConvNorm(hidden, channels, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position(x)
        b, c, h, w = x.shape
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        places = F.avg_pool2d(tokens.transpose(1, 2).reshape(-1, c, h, w), self.POOLED, ceil_mode=True).flatten(2).transpose(1, 2)
        k, v = self.kv(places).chunk(2, -1)
        mixed = self.out(attend(self.q(tokens), k, v, self.heads))
        x = x + mixed.transpose(1, 2).reshape(-1, c, h, w)
        return x + self.reduce(self.local(self.expand(x)))


class ImageEncoder(nn.Module):
    """Normalised pixels ``f32[b, 3, H, W]`` -> embeddings ``f32[b, C, H/8, W/8]``."""

    def __init__(self, cfg: SegmenterConfig):
        super().__init__()
        self.stem = ConvNorm(3, cfg.stem, 3, 2)
        self.quarter = nn.Sequential(ConvNorm(cfg.stem, cfg.quarter, 3, 2), Residual(cfg.quarter))
        self.eighth = nn.Sequential(
            ConvNorm(cfg.quarter, cfg.eighth, 3, 2), Residual(cfg.eighth), Residual(cfg.eighth)
        )
        self.sixteenth = nn.Sequential(
            ConvNorm(cfg.eighth, cfg.sixteenth, 3, 2),
            *[GlobalBlock(cfg.sixteenth, cfg.sixteenth // 32, 2 * cfg.sixteenth) for _ in range(cfg.encoder_blocks)],
        )
        # Finer maps are folded, not pooled, into the embedding: nothing is thrown away before the learnt projection.
        self.from_half = ConvNorm(cfg.stem, cfg.embed, 4, 4, act=False)
        self.from_quarter = ConvNorm(cfg.quarter, cfg.embed, 2, 2, act=False)
        self.from_eighth = ConvNorm(cfg.eighth, cfg.embed, 1, act=False)
        self.from_sixteenth = ConvNorm(cfg.sixteenth, cfg.embed, 1, act=False)
        self.fuse = ConvNorm(cfg.embed, cfg.embed, 3)
        self.neck = ConvNorm(cfg.embed, cfg.embed, 1, act=False)

    def forward(self, pixels: Tensor) -> Tensor:
        half = self.stem(pixels)
        quarter = self.quarter(half)
        eighth = self.eighth(quarter)
        sixteenth = self.from_sixteenth(self.sixteenth(eighth))
        fused = (
            self.from_half(half)
            + self.from_quarter(quarter)
            + self.from_eighth(eighth)
            + F.interpolate(sixteenth, scale_factor=2, mode="bilinear", align_corners=False)
        )
        return self.neck(self.fuse(F.relu(fused)))


class PromptEncoder(nn.Module):
    """Points, boxes and an earlier mask -> sparse tokens, their attention bias and dense maps."""

    MAPS = 8

    def __init__(self, cfg: SegmenterConfig):
        super().__init__()
        generator = torch.Generator().manual_seed(20)
        frequencies = torch.randn(2, cfg.embed // 2, generator=generator)
        frequencies *= torch.logspace(0, 3, cfg.embed // 2, base=2.0)
        self.register_buffer("frequencies", frequencies)
        # Rows: background point, foreground point, top-left corner, bottom-right corner (SAM's labels 0..3).
        self.kinds = nn.Parameter(torch.randn(4, cfg.embed) * 0.3)
        self.padding = nn.Parameter(torch.randn(1, cfg.embed) * 0.3)
        self.mix = ConvNorm(self.MAPS, 32, 1)
        self.mask_in = nn.Conv2d(1, 16, 4, 4)
        self.mask_mix = nn.Conv2d(16, 32, 1)
        self.no_mask = nn.Parameter(torch.zeros(1, 32, 1, 1))

    def fourier(self, unit: Tensor) -> Tensor:
        """Positions in 0..1, last axis (x, y) -> features."""
        angle = (2.0 * unit - 1.0) @ self.frequencies * math.pi
        return torch.cat([angle.sin(), angle.cos()], -1)

    def image_positions(self, image: Tensor) -> Tensor:
        """``fourier`` of the centres of the cells of ``image [..., rows, columns]``, ``[1, C, rows, columns]``.

        By the angle-sum formulas, from the sines and cosines of rows and columns alone: it is part of every run."""
        longest = longer_side(image)

        def waves(count: int, frequencies: Tensor) -> tuple[Tensor, Tensor]:
            unit = (torch.arange(count, device=image.device, dtype=torch.float32) + 0.5) / longest
            angle = (2.0 * unit - 1.0) * (frequencies * math.pi).unsqueeze(-1)
            return angle.sin(), angle.cos()

        sin_y, cos_y = (wave.unsqueeze(2) for wave in waves(image.shape[-2], self.frequencies[1]))
        sin_x, cos_x = (wave.unsqueeze(1) for wave in waves(image.shape[-1], self.frequencies[0]))
        features = torch.cat([sin_y * cos_x + cos_y * sin_x, cos_y * cos_x - sin_y * sin_x])
        return as_convolved(features.unsqueeze(0))

    def sparse(self, coords: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Tokens ``[B, N, C]`` and 0/1 validity ``[B, N]`` of the prompts in a frame whose longer side is ``size``; a padding
        point is its own constant."""
        is_kind = (labels.unsqueeze(-1) == torch.arange(4, device=labels.device, dtype=labels.dtype)).float()
        valid = is_kind.sum(-1)
        tokens = self.fourier((coords + 0.5) / size) * valid.unsqueeze(-1)
        tokens = tokens + is_kind @ self.kinds.float() + (1.0 - valid).unsqueeze(-1) * self.padding.float()
        return tokens, valid

    def maps(self, coords: Tensor, labels: Tensor, embeddings: Tensor) -> Tensor:
        """The prompts drawn on the cells of ``embeddings [..., rows, columns]``, ``[B, 8, rows, columns]``."""
        cell, size = 8.0, 8 * longer_side(embeddings)
        centres_y, centres_x = (
            (torch.arange(n, device=coords.device, dtype=torch.float32) + 0.5) * cell for n in embeddings.shape[-2:]
        )
        place = coords + 0.5
        low = (labels == 2).float()
        high = (labels == 3).float()
        has_box = high.sum(1).clamp(max=1.0)

        def axis(index: int, centres: Tensor) -> tuple[Tensor, Tensor]:
            start = (place[..., index] * low).sum(1, keepdim=True)
            end = (place[..., index] * high).sum(1, keepdim=True)
            inside = ((centres - start) / cell + 0.5).clamp(0, 1) * ((end - centres) / cell + 0.5).clamp(0, 1)
            extent = (end - start).clamp(min=4.0)
            offset = ((2.0 * centres - start - end) / extent).clamp(-2, 2)
            return inside, offset * offset * 0.5

        inside_x, offset_x = axis(0, centres_x)
        inside_y, offset_y = axis(1, centres_y)
        flag = has_box.reshape(-1, 1, 1)
        across, down = torch.ones_like(offset_x), torch.ones_like(offset_y)
        drawn = [
            inside_y.unsqueeze(2) * inside_x.unsqueeze(1) * flag,
            down.unsqueeze(2) * offset_x.unsqueeze(1) * flag,
            offset_y.unsqueeze(2) * across.unsqueeze(1) * flag,
            down.unsqueeze(2) * across.unsqueeze(1) * flag,
        ]
        for label in (1, 0):
            chosen = (labels == label).float().unsqueeze(-1)
            for sigma in (size / 64, size / 12):
                near_x = torch.exp(-((centres_x - place[..., :1]) / sigma) ** 2 * 0.5) * chosen
                near_y = torch.exp(-((centres_y - place[..., 1:]) / sigma) ** 2 * 0.5)
                heat = near_y.transpose(1, 2) @ near_x
                drawn.append(heat / (heat + 0.5))
        return torch.stack(drawn, 1)

    def dense(self, maps: Tensor, alike: Tensor, mask_input: Tensor, has_mask: Tensor) -> Tensor:
        """Dense prompt ``[B, 32, rows, columns]``: the drawn prompts, what looks like them, and the earlier mask where there is one."""
        flag = has_mask.reshape(-1, 1, 1, 1)
        earlier = self.mask_mix(F.relu(self.mask_in(torch.tanh(mask_input * 0.25))))
        return self.mix(maps) + alike + as_convolved(flag * earlier + (1.0 - flag) * self.no_mask)


class Likeness(nn.Module):
    """What the prompted region looks like, and where the image looks like it.

    Mean features inside the box (its middle weighs most), just around it, at foreground and at background points; each is
    compared with every place of the image. Attention can learn this too, but takes far longer to.
    """

    WIDTH = 32
    REGIONS = 4

    def __init__(self, cfg: SegmenterConfig):
        super().__init__()
        self.features = nn.Conv2d(cfg.embed, self.WIDTH, 1)
        self.to_dense = nn.Conv2d(self.REGIONS, 32, 1)
        self.hidden = nn.Linear(self.REGIONS * self.WIDTH, cfg.embed)
        self.to_tokens = nn.Linear(cfg.embed, cfg.embed)
        for layer in (self.to_dense, self.to_tokens):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, embeddings: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """``maps [B, 8, rows, columns]`` of the prompts, image by image -> dense ``[B, 32, rows, columns]``, tokens ``[B, 1, C]``."""
        inside, across, down, boxed = maps[:, 0], maps[:, 1], maps[:, 2], maps[:, 3]
        closeness = torch.exp(-2.0 * (across + down))
        regions = torch.stack([inside * closeness, (boxed - inside).clamp(min=0) * closeness, maps[:, 4], maps[:, 6]], 1)
        rows, columns = regions.shape[-2:]
        weights = regions.flatten(2)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-3)
        # Prompts of one image share its features: rows are images here, not prompts.
        images = embeddings.shape[0]
        weights = weights.reshape(images, -1, rows * columns)
        features = unit(self.features(embeddings).flatten(2).transpose(1, 2).float())
        means = unit(weights @ features)
        alike = (means @ features.transpose(1, 2)).reshape(-1, self.REGIONS, rows, columns)
        tokens = self.to_tokens(F.relu(self.hidden(means.reshape(-1, 1, self.REGIONS * self.WIDTH))))
        return self.to_dense(alike), tokens


def unit(x: Tensor) -> Tensor:
    """Rows of length 1, or about 0 where they were about 0."""
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-4)


def longer_side(x: Tensor) -> int:
    """Of the last two axes; a tensor while exporting, where Python's ``max`` would make a constant of it."""
    rows, columns = x.shape[-2:]
    return torch.maximum(rows, columns) if exporting() else max(rows, columns)


EXPORTING = False


def exporting() -> bool:
    """Whether modules are written as ONNX Runtime runs them fastest: while exporting, and where `EXPORTING` is set for a trace
    that becomes part of an export."""
    return EXPORTING or torch.onnx.is_in_onnx_export()


def repeat_images(x: Tensor, each: int) -> Tensor:
    """Every image ``each`` times in a row; channels stay last in memory, which is what the convolutions are fastest with."""
    last = x.permute(0, 2, 3, 1)
    return last.unsqueeze(1).expand(-1, each, -1, -1, -1).flatten(0, 1).permute(0, 3, 1, 2)


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def unfold_pixels(x: Tensor, channels: int) -> Tensor:
    """``4 * channels`` channels, ``c * 4 + 2 * row + column``, to pixels of twice the resolution (``pixel_shuffle`` by 2).

    ONNX Runtime's DepthToSpace takes four times as long as the transposed convolution that does the same.
    """
    if not exporting():
        return F.pixel_shuffle(x, 2)
    places = torch.eye(4).reshape(4, 1, 2, 2).repeat(channels, 1, 1, 1)
    return F.conv_transpose2d(x, places, stride=2, groups=channels)


def as_convolved(x: Tensor) -> Tensor:
    """``x`` in the layout that ONNX Runtime's convolutions work in, while exporting. Sums with their outputs stay in that layout only
    where both terms are in it, and a pooling of single pixels brings what is no convolution's output there."""
    return F.max_pool2d(x, 1) if exporting() else x


def head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def mask_statistics(logits: Tensor, frame: int) -> tuple[Tensor, ...]:
    """What mask logits ``[B, M, h, w]`` say of themselves, each ``[B, M]``: the IoU to be expected if their probabilities are right,
    the mean probability inside, the stability (SAM's ratio of areas at a raised and a lowered threshold) at 1 and 3, the area
    as a share of ``frame`` places. All are smoothed by a pixel, so that they are defined where nothing is found."""

    def ratio(part: Tensor, whole: Tensor) -> Tensor:
        return part / (whole + 1.0)

    probability = logits.sigmoid()
    thresholds = torch.tensor([0.0, 1.0, -1.0, 3.0, -3.0], device=logits.device).reshape(-1, 1, 1, 1)
    areas = (logits.unsqueeze(1) > thresholds).to(logits.dtype).sum((3, 4))
    inside, over_1, above_1, over_3, above_3 = areas.unbind(1)
    covered, total = (probability * (logits > 0)).sum((2, 3)), probability.sum((2, 3))
    share = (inside + 1.0) / frame
    stability = ratio(over_1, above_1), ratio(over_3, above_3)
    return ratio(covered, inside + total - covered), ratio(covered, inside), *stability, share.log() * 0.1


Shared = tuple[Tensor, Tensor, Tensor]
Draw = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class MaskDecoder(nn.Module):
    """Embeddings and prompts -> low-resolution mask logits at stride 2 and predicted IoUs."""

    def __init__(self, cfg: SegmenterConfig):
        super().__init__()
        c = cfg.embed
        self.cfg = cfg
        self.coarse = ConvNorm(c, c, 2, 2, act=False)
        self.shared_fine = ConvNorm(c, cfg.fine, 1, act=False)
        self.shared_finer = ConvNorm(c, cfg.finer * 4, 1, act=False)
        self.shared_finest = ConvNorm(c, cfg.finest * 16, 1, act=False)
        self.dense_coarse = nn.Conv2d(32, c, 2, 2)
        self.dense_fine = nn.Conv2d(32, cfg.fine, 1)
        self.likeness = Likeness(cfg)
        self.output_tokens = nn.Parameter(torch.randn(1, NUM_MASKS + 1, c) * 0.3)
        blocks = [TwoWayBlock(c) for _ in range(cfg.decoder_blocks)] + [TwoWayBlock(c, update_image=False)]
        self.blocks = nn.ModuleList(blocks)
        self.to_fine = nn.Conv2d(c, cfg.fine, 1)
        self.fine = nn.Sequential(
            ConvNorm(cfg.fine, cfg.fine, 3, groups=cfg.fine, act=False), ConvNorm(cfg.fine, cfg.fine, 1, act=False)
        )
        self.to_finer = nn.Conv2d(cfg.fine, cfg.finer, 1)
        self.finer = nn.Sequential(
            ConvNorm(cfg.finer, cfg.finer, 3, groups=cfg.finer, act=False), ConvNorm(cfg.finer, cfg.finer, 1, act=False)
        )
        self.to_finest = nn.Conv2d(cfg.finer, cfg.finest * 4, 1)
        self.kernels = nn.ModuleList(head(c, c, cfg.finest + 1) for _ in range(NUM_MASKS))
        self.iou = head(c, c, NUM_MASKS)
        self.quality = head(c + NUM_MASKS * 6, 64, NUM_MASKS)
        nn.init.zeros_(self.quality[-1].weight)
        nn.init.zeros_(self.quality[-1].bias)

    def unfold(self, embeddings: Tensor) -> Shared:
        """What all prompts of an image share: the embeddings at strides 8, 4 and, still folded, 2."""
        return (
            self.shared_fine(embeddings),
            as_convolved(unfold_pixels(self.shared_finer(embeddings), self.cfg.finer)),
            unfold_pixels(self.shared_finest(embeddings), 4 * self.cfg.finest),
        )

    def look(
        self, coarse: Tensor, dense: Tensor, tokens: Tensor, valid: Tensor, image_place: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The two-way transformer: states of the tokens, and the image ``[B, C, H/16, W/16]``."""
        image = coarse + self.dense_coarse(dense)
        outputs = self.output_tokens + seen.to(self.output_tokens.dtype)
        place = torch.cat([outputs, tokens.to(outputs.dtype)], 1)
        live = torch.cat([torch.ones_like(outputs[:, :, 0], dtype=valid.dtype), valid], 1)
        bias = ((1.0 - live) * MASKED).unsqueeze(1).unsqueeze(1)
        state = place
        for block in self.blocks:
            state, image = block(state, image, place, image_place, bias)
        return state, image

    def draw(
        self, shared: Shared, image: Tensor, dense: Tensor, kernels: Tensor, frame: Tensor | int
    ) -> tuple[Tensor, Tensor]:
        """``image [B, C, h, w]`` -> mask logits at stride 2, ``[B, 4, 8 h, 8 w]``, and what those say of themselves, ``[B, 20]``
        (``mask_statistics``). ``kernels`` are of each mask the weights of the finest features and a bias."""
        rows, columns = image.shape[-2:]
        fine = double(self.to_fine(image)) + shared[0] + self.dense_fine(dense)
        fine = F.relu(fine)
        fine = F.relu(fine + self.fine(fine))
        finer = F.relu(double(self.to_finer(fine)) + shared[1])
        finer = F.relu(finer + self.finer(finer))
        # Stride 2 stays folded (2x2 pixels side by side in the channels, channel-major) until only masks are left:
        # unfolding four masks is cheaper than unfolding the features.
        finest = F.relu(self.to_finest(finer) + shared[2])
        high, wide = 4 * rows, 4 * columns
        if exporting():
            finest = finest.reshape(-1, self.cfg.finest, 4 * high * wide)
            folded = (kernels[..., :-1] @ finest + kernels[..., -1:]).reshape(-1, 4 * NUM_MASKS, high, wide)
        else:
            # The same with channels last, as the convolutions leave them: one small matrix that keeps the four sub-pixels apart.
            apart = torch.eye(4, device=kernels.device, dtype=kernels.dtype)
            matrix = torch.einsum("bmc,st->bcsmt", kernels[..., :-1], apart).reshape(-1, 4 * self.cfg.finest, 4 * NUM_MASKS)
            folded = finest.permute(0, 2, 3, 1).reshape(-1, high * wide, 4 * self.cfg.finest) @ matrix
            folded = folded + kernels[..., -1].repeat_interleave(4, 1).unsqueeze(1)
            folded = folded.transpose(1, 2).reshape(-1, 4 * NUM_MASKS, high, wide)
        return unfold_pixels(folded, NUM_MASKS), torch.cat(mask_statistics(folded[:, ::4].detach(), frame), 1)

    def forward(
        self, draw: Draw, coarse: Tensor, dense: Tensor, tokens: Tensor, valid: Tensor, image_place: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``low_res [B, 4, H/2, W/2]``, as ``draw`` makes it of image, dense prompt and kernels, and ``iou [B, 4]``. ``coarse``,
        the embeddings at stride 16, is of one image or has one row a prompt."""
        state, image = self.look(coarse, dense, tokens, valid, image_place, seen)
        kernels = torch.stack([kernel(state[:, 1 + i]) for i, kernel in enumerate(self.kernels)], 1)
        low_res, statistics = draw(image, dense, kernels)
        guess = self.iou(state[:, 0])
        return low_res, guess + self.quality(torch.cat([guess, statistics, state[:, 0]], 1))


class Segmenter(nn.Module):
    """The whole model. See the module's text for what each part takes and gives."""

    def __init__(self, cfg: SegmenterConfig | None = None):
        super().__init__()
        self.cfg = cfg or SegmenterConfig()
        self.image_encoder = ImageEncoder(self.cfg)
        self.prompt_encoder = PromptEncoder(self.cfg)
        self.mask_decoder = MaskDecoder(self.cfg)
        # `segmenter_window.windowed` sets it: masks are drawn about their prompts only.
        self.window: Callable[..., tuple[Tensor, Tensor]] | None = None

    def resize(self, size: int) -> None:
        """Sets the input size. Weights do not depend on it, so one may train small and finish large."""
        self.cfg.size = size

    def normalise(self, rgb: Tensor) -> Tensor:
        """RGB in 0..255 -> normalised pixels."""
        mean = rgb.new_tensor(PIXEL_MEAN).reshape(1, 3, 1, 1)
        std = rgb.new_tensor(PIXEL_STD).reshape(1, 3, 1, 1)
        return (rgb - mean) / std

    def decode(
        self,
        embeddings: Tensor,
        coords: Tensor,
        labels: Tensor,
        mask_input: Tensor,
        has_mask: Tensor,
        each: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """``each`` prompts per image, image by image (1 with a single image: any number). Prompts in pixels of the resized frame -> ``low_res f32[B, 4, H/2, W/2]``, ``iou f32[B, 4]``."""
        with torch.autocast(coords.device.type, enabled=False):
            tokens, valid = self.prompt_encoder.sparse(coords.float(), labels.float(), 8 * longer_side(embeddings))
            maps = self.prompt_encoder.maps(coords.float(), labels.float(), embeddings)
        alike, seen = self.mask_decoder.likeness(embeddings, maps)
        dense = self.prompt_encoder.dense(maps, alike, mask_input, has_mask)
        decoder, frame = self.mask_decoder, (2 * longer_side(embeddings)) ** 2
        coarse = decoder.coarse(embeddings)
        if self.window is None:
            shared = decoder.unfold(embeddings)
            if each > 1:
                shared = tuple(repeat_images(m, each) for m in shared)
            draw = lambda *rest: decoder.draw(shared, *rest, frame)  # noqa: E731
        else:
            windows = around(coords, labels, has_mask, coarse)
            frame = frame if isinstance(frame, Tensor) else torch.tensor(frame)
            draw = lambda *rest: self.window(embeddings, *rest, frame, windows)  # noqa: E731
        with torch.autocast(coords.device.type, enabled=False):
            places = self.prompt_encoder.image_positions(coarse)
        if each > 1:
            coarse = repeat_images(coarse, each)
        return decoder(draw, coarse, dense, tokens, valid, places, seen)


class ExportedDecoder(nn.Module):
    """The decoder with the six inputs and three outputs of SAM's own ONNX export."""

    def __init__(self, model: Segmenter):
        super().__init__()
        self.model = model

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        low_res, iou = self.model.decode(image_embeddings, point_coords, point_labels, mask_input, has_mask_input)
        masks = upscale(low_res, orig_im_size)
        return masks, iou, low_res


@torch.jit.script
def upscale(low_res: Tensor, orig_im_size: Tensor) -> Tensor:
    """Logits at the original size: to the encoder's input, crop the letterbox's padding, to (H, W); bilinear, as SAM's graph does it.

    ONNX Runtime runs this even when ``masks`` is not fetched. An ``orig_im_size`` of (1, 1) therefore skips it (an ``If`` in the
    graph) and gives the top-left logit, for hosts that upscale ``low_res_masks`` themselves.
    """
    if bool((orig_im_size <= 1).all()):
        return low_res[..., :1, :1]
    masks = F.interpolate(low_res, scale_factor=2.0, mode="bilinear", align_corners=False)
    scale = max(masks.shape[2], masks.shape[3]) / orig_im_size.max()
    inner = torch.floor(scale * orig_im_size + 0.5).to(torch.int64)
    masks = masks[..., : int(inner[0]), : int(inner[1])]
    target = orig_im_size.to(torch.int64)
    return F.interpolate(masks, size=[int(target[0]), int(target[1])], mode="bilinear", align_corners=False)
