"""The segmenter's attention: within the encoder, and between the tokens and the map of the mask decoder.

Written out in matrix products, which is what ONNX Runtime is given, and with the layouts that it is fastest with.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Multi-head attention on ``[b, n, c]`` tensors, written out so that it exports to plain matrix products."""
    b, n, c = q.shape
    depth = c // heads

    def split(t: Tensor) -> Tensor:
        return t.reshape(t.shape[0], -1, heads, depth).transpose(1, 2)

    if bias is not None or q.device.type == "cpu" or torch.onnx.is_in_onnx_export():
        scores = (split(q) * depth**-0.5) @ split(k).transpose(2, 3)
        if bias is not None:
            scores = scores + bias
        mixed = scores.softmax(-1) @ split(v)
    else:
        mixed = F.scaled_dot_product_attention(split(q), split(k), split(v))
    return mixed.transpose(1, 2).reshape(-1, n, c)


def of_places(channels: int, outputs: int) -> nn.Conv2d:
    """A linear layer for the places of a map."""
    return nn.Conv2d(channels, outputs, 1)


class PlacesNorm(nn.LayerNorm):
    """Layer normalisation of the places of a map."""

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(1, keepdim=True)
        x = x * torch.rsqrt((x * x).mean(1, keepdim=True) + self.eps)
        return x * self.weight.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)


class Cross(nn.Module):
    """Attention through a narrower inner width, of ``tokens [b, t, c]`` and a map ``[b, c, rows, columns]``.

    The map is never turned to have its channels last: what the convolutions put out is multiplied as it is."""

    def __init__(self, channels: int, inner: int, heads: int, asks=nn.Linear, answers=nn.Linear):
        super().__init__()
        self.heads = heads
        self.depth = inner // heads
        self.q = asks(channels, inner)
        self.k = answers(channels, inner)
        self.v = answers(channels, inner)
        self.out = asks(inner, channels)

    def token_heads(self, x: Tensor) -> Tensor:
        """``[b, t, inner]`` -> ``[b, heads, t, depth]``"""
        return x.reshape(x.shape[0], -1, self.heads, self.depth).transpose(1, 2)

    def place_heads(self, x: Tensor) -> Tensor:
        """``[b, inner, rows, columns]`` -> ``[b, heads, depth, rows * columns]``"""
        return x.reshape(x.shape[0], self.heads, self.depth, -1)


class AmongTokens(Cross):
    """Of tokens to tokens."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return self.out(attend(self.q(q), self.k(k), self.v(v), self.heads, bias))


class TokensToPlaces(Cross):
    """Of tokens to the image."""

    def __init__(self, channels: int, inner: int, heads: int):
        super().__init__(channels, inner, heads, answers=of_places)

    def forward(self, tokens: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (self.token_heads(self.q(tokens)) * self.depth**-0.5) @ self.place_heads(self.k(k))
        mixed = scores.softmax(-1) @ self.place_heads(self.v(v)).transpose(2, 3)
        return self.out(mixed.transpose(1, 2).reshape(tokens.shape[0], -1, self.heads * self.depth))


class PlacesToTokens(Cross):
    """Of the image to tokens; ``bias [b, 1, 1, t]`` is added to the scores."""

    def __init__(self, channels: int, inner: int, heads: int):
        super().__init__(channels, inner, heads, asks=of_places)

    def forward(self, places: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        scores = (self.token_heads(self.k(k)) * self.depth**-0.5) @ self.place_heads(self.q(places)) + bias.transpose(2, 3)
        # A softmax over the tokens. ONNX Runtime has one for the last axis only and would turn these, the largest of all, twice.
        weights = (scores - scores.amax(2, keepdim=True)).exp()
        mixed = (self.token_heads(self.v(v)).transpose(2, 3) @ weights) / weights.sum(2, keepdim=True)
        return self.out(mixed.reshape(-1, self.heads * self.depth, *places.shape[-2:]))


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves and to the image; the image then attends to the tokens (SAM, figure 14)."""

    def __init__(self, channels: int, update_image: bool = True):
        super().__init__()
        self.self_attention = AmongTokens(channels, channels, 8)
        self.to_image = TokensToPlaces(channels, channels // 2, 4)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels))
        self.from_tokens = PlacesToTokens(channels, channels // 2, 4) if update_image else None
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.image_norm = PlacesNorm(channels) if update_image else None

    def forward(self, tokens: Tensor, image: Tensor, place: Tensor, image_place: Tensor, bias: Tensor):
        asked = tokens + place
        tokens = self.norms[0](tokens + self.self_attention(asked, asked, tokens, bias))
        keyed = image + image_place
        tokens = self.norms[1](tokens + self.to_image(tokens + place, keyed, image))
        tokens = self.norms[2](tokens + self.mlp(tokens))
        if self.from_tokens is not None and self.image_norm is not None:
            image = self.image_norm(image + self.from_tokens(keyed, tokens + place, tokens, bias))
        return tokens, image
