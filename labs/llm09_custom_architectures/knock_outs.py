"""Take parts of a hybrid away, and see what its recall loses."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from labs.llm06_attention import causal_mask, circuit
from labs.llm09_custom_architectures.training import recall

import torch
from torch import Tensor, nn


def _zeros(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
    return torch.zeros_like(output)


@contextmanager
def silenced(module: nn.Module) -> Iterator[None]:
    """Replace the module's output by 0 inside a `with` block, by a hook that returns it."""
    handle = module.register_forward_hook(_zeros)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def masked(attention: nn.Module, mask: Tensor) -> Iterator[None]:
    """Pass a mask to an attention inside a `with` block, by a hook that changes its inputs."""
    handle = attention.register_forward_pre_hook(lambda _module, inputs: (*inputs, mask))
    try:
        yield
    finally:
        handle.remove()


def without_column(model: Any, i: int) -> Any:
    """Return a copy of a hybrid whose convolution doesn't see the token i steps back."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.blocks[0].mixer.kernel[:, i] = 0
    return changed


@torch.no_grad()
def knock_outs(model: Any, tokens: Tensor) -> dict[str, float]:
    """Return the recall of a hybrid (convolution, then attention) without some of its parts."""
    right = {"complete": recall(model, tokens)}
    for block, name in zip(model.blocks, ("convolution", "attention"), strict=True):
        with silenced(block.mixer):
            right[f"{name} silenced"] = recall(model, tokens)
    for i in range(4):
        right[f"kernel without step {i}"] = recall(without_column(model, i), tokens)
    needed = circuit(tokens)["induction"]  # (B, T, T): from the last A to what followed the first
    past = causal_mask(tokens.shape[1], tokens.shape[1])
    for name, visible in (("needed key hidden", ~needed), ("other keys hidden", needed)):
        with masked(model.blocks[1].mixer, (past & visible)[:, None]):  # (B, 1, T, T)
            right[name] = recall(model, tokens)
    return right
