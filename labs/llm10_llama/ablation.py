"""The arms of LLM10+'s ablation: what each replaces."""

from collections.abc import Mapping, Sequence
from typing import Any

from labs.kit import Run
from labs.shared.small_gpt import FeedForward

from torch import nn


def plain_ffn(d_model: int, d_ff: int) -> nn.Module:
    """Return a GELU layer without a gate: two matrices, 1.5 times as wide, as many parameters."""
    return FeedForward(d_model, 3 * d_ff // 2)


COMPLETE = "the complete model"  # the arm without a change
# for each arm: what changes in the configuration, and in the recipe
ARMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "without RoPE": ({"theta": None}, {}),
    "GELU for SwiGLU": ({"ffn": plain_ffn}, {}),
    "untied": ({"tied": False}, {}),
    "σ = 0.02": ({"std": 0.02}, {}),
    "LayerNorm": ({"norm": nn.LayerNorm}, {}),
    "one key-value head": ({"kv_heads": 1}, {}),
    "AdamW for all": ({}, {"muon": None}),
}
WORSE = ("without RoPE", "AdamW for all")
EQUAL = ("LayerNorm",)


def judge_arms(
    run: Run,
    costs: dict[str, float],
    bound: float,
    complete: Sequence[float],
    worse: Mapping[str, Sequence[float]],
) -> None:
    """Measure what each arm costs.

    Args:
        run: the run.
        costs: by arm, its loss minus the complete model's of the same seed.
        bound: nats that seeds rarely explain.
        complete: the complete model's losses with three seeds.
        worse: the same of each arm that must be worse.
    """
    because = f"{bound:.3f} nats are four ranges of three seeds"
    for name, cost in costs.items():
        expected: dict[str, Any] = {}
        if name in EQUAL:
            expected = {"expect_between": (-bound, bound), "because": because, "decides": True}
        run.measure(f"nats that it costs: {name}", cost, **expected)
    because = "by chance, three losses are above three others in 1 of 20 cases"
    for name, losses in worse.items():
        what = f"{name}: its lowest loss − the complete model's highest, three seeds each"
        gap = min(losses) - max(complete)
        run.measure(what, gap, expect_at_least=0, because=because, decides=True)
