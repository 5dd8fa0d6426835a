"""Look into a CNN with hooks: what LLM09 checks, and what it draws."""

from collections.abc import Callable
from functools import partial
from typing import Any

from labs.kit import Run, tolerance
from labs.llm09_custom_architectures.inspection import hooks, refusal
from labs.llm09_custom_architectures.training import framed, images

import torch
import torch.nn.functional as F
from torch import Tensor

LookInside = Callable[[Any, list[str], Tensor], dict[str, Tensor]]


def check(run: Run, model: Any, look_inside: LookInside) -> int:
    """Check that looking leaves no hook behind; then leave three, and return what they stored."""
    x = framed(images()[2][:1])
    seen = look_inside(model, ["conv1", "conv2"], x)
    inputs = {"conv1": x, "conv2": F.max_pool2d(seen["conv1"].relu(), 2)}
    for name, given in inputs.items():
        error = seen[name] - model.get_submodule(name)(given)
        run.agree(f"{name}'s output − what it returns alone", error, tolerance(torch.float32))
    run.check("hooks after a look", hooks(model), equals=0, decides=True)
    raised = refusal(lambda: look_inside(model, ["conv1"], torch.zeros(1, 3, 12, 12)))
    run.check("three channels for one: raises", raised, equals="RuntimeError")
    run.check("hooks after the error", hooks(model), equals=0, decides=True)
    stored: list[Tensor] = []
    handles = []
    for _ in range(3):
        handles.append(model.conv1.register_forward_hook(partial(_store, stored)))
        model(x)
    run.check("hooks that nobody removes", hooks(model), equals=3)
    run.check("outputs that they store", len(stored), equals=1 + 2 + 3)
    for handle in handles:
        handle.remove()
    return len(stored)


def _store(stored: list[Tensor], _module: Any, _inputs: Any, output: Tensor) -> None:
    stored.append(output)


def maps_of(model: Any, look_inside: LookInside) -> tuple[Tensor, Tensor]:
    """Return the first test image, (12, 12), and its maps after the first ReLU, (16, 12, 12)."""
    x = framed(images()[2][:1])
    return x[0, 0], look_inside(model, ["conv1"], x)["conv1"][0].relu()
