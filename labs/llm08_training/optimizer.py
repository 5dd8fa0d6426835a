"""An optimizer of PyTorch around an update of one weight."""

from collections.abc import Callable
from typing import Any

from labs.kit import Run, tolerance
from labs.llm08_training.figures import show_decay

import torch
from torch import Tensor, nn


def optimizer_from(update: Callable[..., None]) -> Callable[..., torch.optim.Optimizer]:
    """Return an optimizer with the arguments, defaults and group keys of `torch.optim.AdamW`.

    Args:
        update: changes a weight and its two means in place, as `adamw_step` of the lesson does.
    """

    class AdamW(torch.optim.Optimizer):
        """Take AdamW's steps."""

        def __init__(
            self,
            params: Any,
            lr: float = 1e-3,
            betas: tuple[float, float] = (0.9, 0.999),
            eps: float = 1e-8,
            weight_decay: float = 0.01,
        ) -> None:
            defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
            super().__init__(params, defaults)

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            """Update all weights that have a gradient; return the loss if `closure` computes it."""
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            for group in self.param_groups:
                how = {name: group[name] for name in ("lr", "betas", "eps")}
                for weight in (param for param in group["params"] if param.grad is not None):
                    state = self.state[weight]
                    if not state:
                        state["t"] = 0
                        state["m"] = torch.zeros_like(weight)
                        state["v"] = torch.zeros_like(weight)
                    state["t"] += 1
                    means = (state["m"], state["v"], state["t"])
                    update(weight, weight.grad, *means, **how, decay=group["weight_decay"])
            return loss

    return AdamW


def path(optimizer_class: Any, gradients: Tensor, **how: Any) -> Tensor:
    """Return the weights after each step, (steps, n), if the gradients are given, (steps, n).

    The weights begin at 1, and the learning rate falls linearly from 0.01 to 0.
    """
    weight = nn.Parameter(torch.ones_like(gradients[0]))
    optimizer = optimizer_class([weight], lr=0.01, betas=(0.9, 0.98), **how)
    places = []
    for step, gradient in enumerate(gradients):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / len(gradients))
        weight.grad = gradient.clone()
        optimizer.step()
        places.append(weight.detach().clone())
    return torch.stack(places)


def check_path(run: Run, ours_class: Any) -> float:
    """Check that our AdamW takes PyTorch's path, and Adam with L2 another one.

    Returns:
        The size of the first step for a gradient of 0.0001, at a rate of 0.01.
    """
    sizes = torch.logspace(-4, 4, 50, dtype=torch.float64)
    g = torch.randn(1000, 50, dtype=torch.float64) * sizes
    g[0, 0] = 1e-4
    ours = path(ours_class, g, weight_decay=0.1)
    theirs = path(torch.optim.AdamW, g, weight_decay=0.1)
    what = "float64: ours − PyTorch's, all steps"
    run.agree(what, ours - theirs, tolerance(torch.float64), decides=True)
    l2 = path(torch.optim.Adam, g, weight_decay=0.1)
    gap = (l2 - theirs)[-1].abs().max()
    because = "AdamW's decay takes each weight to 61 %; L2 takes those with small gradients to 0"
    what = "largest difference of Adam with L2 to AdamW, at the end"
    run.check(what, gap, at_least=0.05, because=because, decides=True)
    show_decay(run, sizes, ours[-1], l2[-1])
    moved = (path(ours_class, g, weight_decay=0)[0] - 1).abs()
    bound = 1.01e-8 / g[0].abs().min().item()
    because = "ε ÷ |g| of the smallest gradient"
    run.check("first step ÷ η − 1", (moved / 0.01 - 1).abs().max(), at_most=bound, because=because)
    return moved[0].item()
