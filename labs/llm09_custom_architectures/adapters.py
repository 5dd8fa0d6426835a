"""Put adapters into a CNN, and train them."""

import copy
from collections.abc import Callable
from typing import Any

from labs.kit import Run, tolerance
from labs.llm02_deep_learning import accuracy
from labs.llm09_custom_architectures.training import fit, framed, images

import torch
from torch import nn


def insert(model: Any, kind: type, adapter: Callable[[Any], nn.Module]) -> Any:
    """Freeze a model, replace each layer of a kind by `adapter(layer)`, return the model."""
    model.requires_grad_(False)
    for name, layer in list(model.named_modules()):
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


def check_negatives(run: Run, base: Any, model: Any) -> tuple[float, float]:
    """Train the adapters in a CNN on photographic negatives; return the accuracy before and after.

    `model` is a copy of `base` with new adapters.
    """
    x, y, x_test, y_test = images()
    negatives = 1 - framed(x_test)
    change = (model(negatives) - base(negatives)).abs().max()
    run.check("change of a logit by insertion", change, at_most=0, because="up is 0")
    with torch.enable_grad():
        epochs = run.pick(tiny=20, small=40, full=100)
        model = fit(run, model, 1 - framed(x), y, epochs, "LoRA, negatives")
    before, after = (accuracy(one, negatives, y_test) for one in (base, model))
    run.check("negatives before", before, at_most=0.5, because="it saw none", decides=True)
    because = "three in five: six times a guess"
    run.check("negatives after", after, at_least=0.6, because=because, decides=True)
    model = copy.deepcopy(model).double()
    error = merge(model)(negatives.double()) - model(negatives.double())
    run.agree("merged − unmerged", error, tolerance(torch.float64), decides=True)
    return before, after


def take_out(model: Any) -> Any:
    """Return a copy of a model without its adapters."""
    bare = copy.deepcopy(model)
    for name, layer in list(bare.named_modules()):
        if hasattr(layer, "base"):
            bare.set_submodule(name, layer.base)
    return bare
