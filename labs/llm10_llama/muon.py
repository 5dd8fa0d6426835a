"""Muon, an optimizer for matrices: every direction of a step has about the same size."""

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024


def orthogonal(x: Tensor, steps: int = 5) -> Tensor:
    """Return nearly U Vᵀ for each matrix U S Vᵀ of (count, m, n).

    After five steps, the singular values are about 0.7 to 1.2.
    """
    a, b, c = COEFFICIENTS
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x  # so that X Xᵀ is the smaller of both products
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal; matrices of one shape are updated together.

    torch.optim.Muon always computes its products in bfloat16, which is slow on many CPUs.

    Args:
        matrices: the matrices of a model.
        lr: the learning rate.
        momentum: the share of the old momentum in the new one.
        dtype: of the products; the weights and their momentum keep their own.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(matrices, {"lr": lr, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update every matrix that has a gradient."""
        del closure
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Any]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[tuple(p.shape)].append(p)
            for (rows, columns), matrices in by_shape.items():
                ahead = [self._ahead(p, group["momentum"]) for p in matrices]
                moves = orthogonal(torch.stack(ahead).to(self.dtype)).unbind()
                size = group["lr"] * math.sqrt(max(1, rows / columns))
                for p, move in zip(matrices, moves, strict=True):
                    p.add_(move, alpha=-size)

    def _ahead(self, p: Any, share: float) -> Tensor:
        """Update the momentum of a matrix; return Nesterov's look ahead."""
        if not self.state[p]:
            self.state[p]["momentum"] = torch.zeros_like(p)
        momentum = self.state[p]["momentum"]
        momentum.lerp_(p.grad, 1 - share)
        return p.grad.lerp(momentum, share)
