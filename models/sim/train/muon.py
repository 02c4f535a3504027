"""Muon for convolutions: momentum whose directions are all made equally strong.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon); steps are scaled as in Liu et al. 2025 (arXiv:2502.16982), so that
AdamW's learning rate and weight decay fit. `torch.optim.Muon` takes matrices only; a kernel is one here, outputs x (inputs x window).
"""

from __future__ import annotations

import torch
from torch import Tensor

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
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalised(p.grad.lerp(mean, group["momentum"]).flatten(1))
                scale = 0.2 * max(update.shape) ** 0.5  # as large as AdamW's steps, root mean square
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.view(p.shape), alpha=-group["lr"] * scale)
