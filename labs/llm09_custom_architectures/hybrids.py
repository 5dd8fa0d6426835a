"""Language models of LLM09 that mix tokens by convolution or attention, block by block."""

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
    """A mixer and a feed-forward layer; each reads a norm of x, and is added to x."""

    def __init__(self, d_model: int, mixer: Mixer) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(d_model)
        self.mixer = mixer(d_model)
        self.norm2 = nn.RMSNorm(d_model)
        self.ffn = small_gpt.FeedForward(d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Transform the residual stream, (B, T, d) -> (B, T, d)."""
        x = x + self.mixer(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Hybrid(nn.Module):
    """A causal language model with one mixer in each block."""

    def __init__(self, vocabulary: int, *mixers: Mixer, d_model: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, d_model)
        self.blocks = nn.ModuleList(Block(d_model, mixer) for mixer in mixers)
        self.norm = nn.RMSNorm(d_model)
        self.unembed = nn.Linear(d_model, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.05)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of each next token, (B, T) -> (B, T, V)."""
        x = self.embed(tokens)  # (B, T, d)
        for block in self.blocks:
            x = block(x)
        return self.unembed(self.norm(x))


@cache
@torch.enable_grad()
def trained(run: Run, mixers: tuple[Mixer, ...], task: str, seed: int) -> Any:
    """Return a new model with these mixers, trained on "recall" or "text"."""
    torch.manual_seed(seed)
    vocabulary = VOCABULARY if task == "recall" else len(small_gpt.shakespeare().characters)
    names = ", ".join(mixer.__name__ for mixer in mixers)
    return teach(run, Hybrid(vocabulary, *mixers), task, f"{names}: {task}, seed {seed}", seed)


@torch.no_grad()
def compare(
    run: Run, arms: dict[str, tuple[Mixer, ...]]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the accuracy of recall and the loss on text, three seeds each, by arm."""
    tokens = recall_batch(500)
    windows = small_gpt.shakespeare().windows(128, 64)
    right: dict[str, list[float]] = {}
    loss: dict[str, list[float]] = {}
    for arm, mixers in arms.items():
        models = [trained(run, mixers, "recall", seed) for seed in run.seeds(3)]
        right[arm] = [recall(model, tokens) for model in models]
        models = [trained(run, mixers, "text", seed) for seed in run.seeds(3)]
        loss[arm] = [loss_on(model, "text", windows).item() for model in models]
    rows = [[arm, mean(right[arm]), mean(loss[arm])] for arm in arms]
    columns = ["mixers", "recall (accuracy)", "text (nats per character)"]
    run.table("Mean of three seeds", columns, rows)
    return right, loss
