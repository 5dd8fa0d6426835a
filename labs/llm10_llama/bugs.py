"""Five bugs to plant in LLM10's model, and what is expected of its loss then."""

from collections.abc import Callable
from typing import Any, NamedTuple

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
# two bugs are arms of the ablation, and one leaves the training as it is
AS_CHANGES = {
    "the two ends aren't tied": "untied",
    "there are no positions": "without RoPE",
}
ONLY_WRITING = ("with a cache, positions begin at 0 again",)
PLANTED: dict[str, Callable[[Any], None]] = {"none": lambda _: None, **BUGS}


class Row(NamedTuple):
    """The losses and the diagnosis of a model with a planted bug.

    Attributes:
        planted: the bug, or "none".
        first_loss: the loss before training, in nats per token.
        diagnosis: the bug that the untrained model shows; "" if it seems sound.
        loss: the loss after training, if the text is read at once.
        one_by_one: the loss after training, if the text is read one token at a time.
    """

    planted: str
    first_loss: float
    diagnosis: str
    loss: float
    one_by_one: float


def judge_losses(run: Run, costs: dict[str, float], spread: float) -> None:
    """Measure how far each bug's loss is from the sound model's, except the cache's.

    Two bugs must show in the loss. Nothing is required of the other two.

    Args:
        run: the run.
        costs: by bug, its loss after training minus the sound model's.
        spread: the range of the sound model's loss over seeds.
    """
    seeds = f"four ranges of the sound model's seeds; a range is {spread:.3f}"
    copied = "far below what counting reaches: the answer is in the input"
    bound = 4 * spread
    expected: dict[str, dict[str, Any]] = {
        "the future is seen": {"expect_at_most": -0.5, "because": copied},
        "there are no positions": {"expect_at_least": bound, "because": seeds},
        "the two ends aren't tied": {},
        "the last norm is missing": {},
    }
    for name, how in expected.items():
        run.measure(f"{name}: loss − the sound model's", costs[name], decides=bool(how), **how)
