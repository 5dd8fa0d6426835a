"""The arms of LLM10+'s ablation: what each replaces."""

from typing import Any

from labs.shared.small_gpt import FeedForward

from torch import nn


def plain_ffn(d_model: int, d_ff: int) -> nn.Module:
    """Return a GELU layer without a gate: two matrices, 1.5 times as wide, as many parameters."""
    return FeedForward(d_model, 3 * d_ff // 2)


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
EXPECTED: dict[str, dict[str, Any]] = {
    "without RoPE": {"expect_at_least": 0.03, "decides": True},
    "AdamW for all": {"expect_at_least": 0.03, "decides": True},
    "LayerNorm": {"expect_at_most": 0.03, "decides": True},
}
