"""Five bugs to plant in LLM10's model, and what is expected of its loss then."""

from collections.abc import Callable
from typing import Any

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
PLANTED: dict[str, Callable[[Any], None]] = {"none": lambda _: None, **BUGS}
EXPECTED: dict[str, dict[str, Any]] = {
    "the future is seen": {"expect_at_most": -0.5, "decides": True},
    "there are no positions": {"expect_at_least": 0.05, "decides": True},
    "the two ends aren't tied": {"expect_at_most": 0.05, "decides": True},
    "the last norm is missing": {},
}
