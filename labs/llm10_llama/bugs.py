"""Five bugs to plant in LLM10's model, and what is expected of its loss then."""

from collections.abc import Callable
from typing import Any

from labs.kit import Run

import torch.nn.functional as F
from torch import Tensor, nn


def _sees_ahead(model: Any) -> None:
    def mix(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)

    for module in model.modules():
        if hasattr(module, "mix"):
            module.mix = mix


def _forgets_where(model: Any) -> None:
    right = model.turns
    model.turns = lambda _start, *rest: right(0, *rest)


def _is_not_tied(model: Any) -> None:
    model.lm_head.weight = nn.Parameter(model.embed_tokens.weight.detach().clone())


def _has_no_positions(model: Any) -> None:
    model.turns = lambda *_: None


def _skips_the_last_norm(model: Any) -> None:
    model.norm = nn.Identity()


BUGS: dict[str, Callable[[Any], None]] = {
    "the future is seen": _sees_ahead,
    "with a cache, positions begin at 0 again": _forgets_where,
    "the two ends aren't tied": _is_not_tied,
    "there are no positions": _has_no_positions,
    "the last norm is missing": _skips_the_last_norm,
}
# two bugs are changes of the configuration, and one leaves the training as it is
AS_CHANGES: dict[str, dict[str, Any]] = {
    "the two ends aren't tied": {"tied": False},
    "there are no positions": {"theta": None},
}
ONLY_WRITING = ("with a cache, positions begin at 0 again",)
PLANTED: dict[str, Callable[[Any], None]] = {"none": lambda _: None, **BUGS}


def judge_losses(run: Run, costs: dict[str, float], spread: float) -> None:
    """Measure how far each bug's loss is from the sound model's.

    Two bugs must be visible, and two must cost less than a third of what missing positions cost.

    Args:
        run: the run.
        costs: by bug, its loss after training minus the sound model's.
        spread: the range of the sound model's loss over seeds.
    """
    hidden = max(costs["there are no positions"], 0.0) / 3
    seeds = f"four ranges of the sound model's seeds; a range is {spread:.3f}"
    little = "a third of what missing positions cost"
    copied = "far below what counting reaches: the answer is in the input"
    expected: dict[str, dict[str, Any]] = {
        "the future is seen": {"expect_at_most": -0.5, "because": copied},
        "there are no positions": {"expect_at_least": 4 * spread, "because": seeds},
        "with a cache, positions begin at 0 again": _within(hidden, little),
        "the two ends aren't tied": _within(hidden, little),
        "the last norm is missing": {},
    }
    for name, bound in expected.items():
        what = f"{name}: loss − the sound model's"
        run.measure(what, costs[name], decides=bool(bound), **bound)


def _within(bound: float, because: str) -> dict[str, Any]:
    return {"expect_between": (-bound, bound), "because": because}
