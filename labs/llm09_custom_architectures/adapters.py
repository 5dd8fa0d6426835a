"""Insert, train, merge and remove the adapters of a CNN."""

import copy
from collections.abc import Callable
from typing import Any

from labs.kit import Run, tolerance
from labs.llm02_deep_learning import accuracy
from labs.llm09_custom_architectures.inspection import parameters
from labs.llm09_custom_architectures.training import fit, framed, images

import torch
from torch import Tensor, nn


def insert(model: nn.Module, kind: type, adapter: Callable[[Any], nn.Module]) -> Any:
    """Freeze a model, replace each layer of a kind by `adapter(layer)`, return the model."""
    model.requires_grad_(False)  # before the adapters are in it
    for name, layer in list(model.named_modules()):  # a list: adapters contain such layers
        if isinstance(layer, kind):
            model.set_submodule(name, adapter(layer))
    return model


def merge(model: Any) -> Any:
    """Return a copy of a model in which each adapter is merged."""
    merged = copy.deepcopy(model)
    for name, layer in list(merged.named_modules()):
        if hasattr(layer, "merged"):
            merged.set_submodule(name, layer.merged())
    return merged


def check_negatives(run: Run, base: Any, model: Any) -> tuple[float, float, int, int]:
    """Train the adapters in a CNN on photographic negatives.

    `model` is a copy of `base` with new adapters.

    Returns:
        The accuracy on negatives before and after, and the numbers of new and of old parameters.
    """
    x, y, x_test, y_test = images()
    positives = framed(x_test)
    negatives = 1 - positives
    change = (model(negatives) - base(negatives)).abs().max()
    run.check("change of a logit by insertion", change, at_most=0, because="up is 0")
    with torch.enable_grad():
        epochs = run.pick(tiny=12, small=40, full=100)
        model = fit(run, model, 1 - framed(x), y, epochs, "LoRA, negatives")
    before, after = (accuracy(one, negatives, y_test) for one in (base, model))
    because = "five times a guess: it saw none"
    run.check("negatives before", before, at_most=0.5, because=because, decides=True)
    because = "three in five: six times a guess"
    run.measure("negatives after", after, expect_at_least=0.6, because=because, decides=True)
    because = "three digits in ten"
    run.measure("negatives: after − before", after - before, expect_at_least=0.3, because=because)
    rows = [["before", before, accuracy(base, positives, y_test)]]
    rows.append(["with the adapters", after, accuracy(model, positives, y_test)])
    run.table("Accuracy on 360 test images, one seed", ["", "negatives", "positives"], rows)
    kernels = [(model.conv1.base, base.conv1), (model.conv2.base, base.conv2)]
    same = all(torch.equal(a.weight, b.weight) for a, b in kernels)
    run.check("the base's kernels have the same bits", same, equals=True, decides=True)
    model = copy.deepcopy(model).double()
    error = merge(model)(negatives.double()) - model(negatives.double())
    run.agree("merged − unmerged", error, tolerance(torch.float64), decides=True)
    old = parameters(base)
    return before, after, parameters(model) - old, old


def take_out(model: Any) -> Any:
    """Return a copy of a model without its adapters."""
    bare = copy.deepcopy(model)
    for name, layer in list(bare.named_modules()):
        if hasattr(layer, "base"):
            bare.set_submodule(name, layer.base)
    return bare


def check_still_norms(run: Run, model: Any, norm: type, x: Tensor) -> None:
    """Check that norms in evaluation mode stay as they are while dropout works."""
    before = copy.deepcopy(model.state_dict())
    model.train()
    for layer in model.modules():
        if isinstance(layer, norm):
            layer.eval()
    first = model(x)
    second = model(x)
    change = max((a - before[name]).abs().max() for name, a in model.state_dict().items())
    because = "buffers move in training mode only"
    run.check(
        "only norms in evaluation mode: change of the model", change, at_most=0, because=because
    )
    same = torch.equal(first, second)
    run.check("only norms in evaluation mode: two passes are equal", same, equals=False)
