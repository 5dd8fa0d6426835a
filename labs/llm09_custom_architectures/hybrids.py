"""Train and compare the language models of LLM09, which differ in their mixers."""

from collections.abc import Callable
from functools import cache
from statistics import mean
from typing import Any

from labs.kit import Run
from labs.llm06_attention import (
    VOCABULARY,
    MultiHeadAttention,
    causal_mask,
    recall_batch,
    rope,
)
from labs.llm09_custom_architectures.training import loss_on, recall, teach
from labs.shared import small_gpt

import torch
from torch import Tensor, nn

Mixer = type[nn.Module]  # takes the width of the vectors
Kind = Callable[..., nn.Module]  # takes the size of the vocabulary and the mixers


class CausalAttention(MultiHeadAttention):
    """LLM06's attention with one head, RoPE, and the causal mask unless another is passed."""

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model, 1, position=rope)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix the tokens, (B, T, d) -> (B, T, d)."""
        if mask is None:
            mask = causal_mask(x.shape[1], x.shape[1], x.device)
        return super().forward(x, mask)


class Block(nn.Module):
    """A mixer and a feed-forward layer; each reads a norm of x, and is added to x.

    LayerNorm, because PyTorch computes it by one kernel on a CPU, and RMSNorm by six.
    """

    def __init__(self, d_model: int, mixer: Mixer) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model, bias=False)
        self.mixer = mixer(d_model)
        self.norm2 = nn.LayerNorm(d_model, bias=False)
        self.ffn = small_gpt.FeedForward(d_model, 2 * d_model)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.05)

    def forward(self, x: Tensor) -> Tensor:
        """Transform the residual stream, (B, T, d) -> (B, T, d)."""
        x = x + self.mixer(self.norm1(x))
        return x + self.ffn(self.norm2(x))


@cache
@torch.enable_grad()
def trained(run: Run, kind: Kind, mixers: tuple[Mixer, ...], task: str, seed: int) -> Any:
    """Return a new model of a kind with these mixers, trained on "recall" or "text"."""
    torch.manual_seed(seed)
    vocabulary = VOCABULARY if task == "recall" else len(small_gpt.shakespeare().characters)
    names = ", ".join(mixer.__name__ for mixer in mixers)
    return teach(run, kind(vocabulary, *mixers), task, f"{names}: {task}, seed {seed}", seed)


@torch.no_grad()
def compare(
    run: Run, kind: Kind, arms: dict[str, tuple[Mixer, ...]]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the accuracy of recall and the loss on text, three seeds each, by arm."""
    tokens = recall_batch(500)
    windows = small_gpt.shakespeare().windows(128, 64)
    right: dict[str, list[float]] = {}
    loss: dict[str, list[float]] = {}
    for arm, mixers in arms.items():
        models = [trained(run, kind, mixers, "recall", seed) for seed in run.seeds(3)]
        right[arm] = [recall(model, tokens) for model in models]
        models = [trained(run, kind, mixers, "text", seed) for seed in run.seeds(3)]
        loss[arm] = [loss_on(model, "text", windows).item() for model in models]
    rows = [[arm, mean(right[arm]), mean(loss[arm])] for arm in arms]
    columns = ["mixers", "recall (accuracy)", "text (nats per character)"]
    run.table("Mean of three seeds", columns, rows)
    return right, loss
