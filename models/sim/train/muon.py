"""Muon for convolutions: momentum whose directions are all made equally strong.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon); steps are scaled as in Liu et al. 2025 (arXiv:2502.16982), so that
AdamW's learning rate and weight decay fit. `torch.optim.Muon` takes matrices only; a kernel is one here, outputs x (inputs x window).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Coefficients of the quintic iteration, tuned by Jordan et al. for speed: singular values end between about 0.7 and 1.2.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrix: Tensor, rounds: int = 5) -> Tensor:
    """The nearest matrix with equal singular values, roughly, by Newton-Schulz iteration."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-7)
    a, b, c = QUINTIC
    for _ in range(rounds):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.T


class Muon(torch.optim.Optimizer):
    """For parameters with at least two axes; the first is the output's."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["mean"] = torch.zeros_like(p)
                mean = state["mean"].lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalised(p.grad.lerp(mean, group["momentum"]).flatten(1))
                scale = 0.2 * max(update.shape) ** 0.5  # as large as AdamW's steps, root mean square
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.view(p.shape), alpha=-group["lr"] * scale)


def optimisers(net: nn.Module, rate: float, decay: float, muon: bool) -> list[torch.optim.Optimizer]:
    """AdamW, or Muon for the convolutions and AdamW for the rest; no weight decay on biases, norms and scalars."""
    kernels = [p for p in net.parameters() if muon and p.ndim == 4]
    heavy = [p for p in net.parameters() if p.ndim >= 2 and not (muon and p.ndim == 4)]
    light = [p for p in net.parameters() if p.ndim < 2]
    groups = [{"params": heavy, "weight_decay": decay}, {"params": light, "weight_decay": 0.0}]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)]
    return [*found, Muon(kernels, lr=rate, weight_decay=decay)] if muon else found
