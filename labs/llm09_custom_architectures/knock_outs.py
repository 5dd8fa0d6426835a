"""Take parts of a hybrid away, and see what its recall loses."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from labs.kit import Run
from labs.llm06_attention import GUESS, causal_mask, circuit
from labs.llm09_custom_architectures.training import recall

import torch
from torch import Tensor, nn


def zeros(output: Tensor) -> Tensor:
    """Return zeros in place of an output."""
    return torch.zeros_like(output)


def average(output: Tensor) -> Tensor:
    """Return the mean over the texts in place of an output (B, T, d)."""
    return output.mean(0, keepdim=True).expand_as(output)


HOW = {"silenced": zeros, "averaged": average}


@contextmanager
def replaced(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change the module's output inside a `with` block, by a hook that returns the new one."""

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        return change(output)

    handle = module.register_forward_hook(hook)
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
        for what, change in HOW.items():
            with replaced(block.mixer, change):
                right[f"{name} {what}"] = recall(model, tokens)
    for i in range(4):
        right[f"kernel without step {i}"] = recall(without_column(model, i), tokens)
    needed = circuit(tokens)["induction"]  # (B, T, T): from the last A to what followed the first
    past = causal_mask(tokens.shape[1], tokens.shape[1])
    for name, visible in (("needed key hidden", ~needed), ("other keys hidden", needed)):
        with masked(model.blocks[1].mixer, (past & visible)[:, None]):  # (B, 1, T, T)
            right[name] = recall(model, tokens)
    return right


def recall_without(models: list[Any], tokens: Tensor) -> dict[str, list[float]]:
    """Return the recall of each model, by the part that it lacks."""
    rows = [knock_outs(model, tokens) for model in models]
    return {name: [row[name] for row in rows] for name in rows[0]}


def check_parts(run: Run, right: Mapping[str, Sequence[float]]) -> None:
    """Check which parts recall needs; `right` has the recall of each seed, by knock-out."""
    because = f"about twice an informed guess, {GUESS:.2f}"
    lost = [f"convolution {how}" for how in HOW]
    for name in (*lost, "needed key hidden", "kernel without step 1"):
        run.check(f"recall, {name}", right[name], at_most=0.2, because=because, decides=True)
    because = "one convolution sees three steps back: 2 of 120, and elsewhere a guess, 0.11"
    for how in HOW:
        name = f"attention {how}"
        run.check(f"recall, {name}", right[name], at_most=0.15, because=because)
    because = "one recall in five may suffer"
    name = "other keys hidden"
    run.measure(f"recall, {name}", right[name], expect_at_least=0.8, because=because, decides=True)
    for i in (0, 2, 3):
        name = f"kernel without step {i}"
        run.measure(f"recall, {name}", right[name], expect_at_least=0.8, decides=True)
