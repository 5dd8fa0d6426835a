"""Check the methods of LLM07's LoraLinear against W + (α/r) B A in full."""

from collections.abc import Callable
from typing import Any

from labs.kit import Mistake, draw, expect_close, name_mistake
from labs.llm07_lora.check_helpers import random_layer

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


def forward(module: Any) -> None:
    """Check the output, merged or not, the gradients, and that no matrix of W's shape is made."""
    layer = random_layer(module.LoraLinear)
    x = draw(2, 5, 6, seed=9)
    base = layer.base
    update = x @ layer.A.mT @ layer.B.mT
    plain = x @ base.weight.mT + base.bias
    want = (plain + 3 * update).detach()  # alpha 6 over rank 2
    with torch.no_grad():
        got = layer(x)
        name_mistake(
            got,
            {
                "the update isn't added to the base's output": lambda: plain,
                "the base's own output is missing": lambda: 3 * update,
                "the factor alpha / rank is missing": lambda: plain + update,
                "is it multiplied by alpha alone? The factor is alpha / rank": lambda: (
                    plain + 6 * update
                ),
                "is it rank / alpha? The factor is alpha / rank": lambda: plain + update / 3,
                "is it alpha / √rank? That is rsLoRA; here the factor is alpha / rank": (
                    lambda: plain + 6 / 2**0.5 * update
                ),
                "the bias is scaled or added twice: only B A x has the factor": (
                    lambda: plain + 3 * update + base.bias
                ),
            },
        )
        expect_close(got, want, "expected W x + b, plus alpha / rank times B (A x)")
        layer.merged = True  # as after merge(): the base's weight contains the update
        got = layer(x)
        twice = "once merged, the base's weight contains the update: here it is added twice"
        name_mistake(got, {twice: lambda: want})
        expect_close(got, plain.detach(), "once merged, expected the base's output alone")
        layer.merged = False
    _expect_gradients(layer, x)
    with _WatchMatrices(base.weight) as watch:
        layer(x)
    if watch.made:
        rows, columns = base.weight.shape
        raise Mistake(f"it makes a matrix of {rows} × {columns}: compute A x first, then B (A x)")


class _WatchMatrices(TorchDispatchMode):
    """Watch whether an operation makes another matrix of a weight's shape."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.made = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        shapes = (self.weight.shape, self.weight.mT.shape)
        if isinstance(out, Tensor) and out.shape in shapes:
            self.made |= out.data_ptr() != self.weight.data_ptr()
        return out


def _expect_gradients(layer: Any, x: Tensor) -> None:
    x = x.clone().requires_grad_()
    output = layer(x)
    if not output.requires_grad:
        raise Mistake("no gradient: is it computed under no_grad, or detached?")
    gradients = torch.autograd.grad(output.sum(), (layer.A, layer.B, x), allow_unused=True)
    for name, gradient in zip(("A", "B", "x"), gradients, strict=True):
        if gradient is None:
            raise Mistake(f"no gradient reaches {name}: is something detached, or .data used?")
    want = (layer.base.weight + 3 * layer.B @ layer.A).detach().sum(0)  # the same for each token
    expect_close(
        gradients[2], want.expand_as(x).contiguous(), "the gradient of x through both paths"
    )


# merge


def merge(module: Any) -> None:
    """Check the merged weight, the copy of the old one, and the refusal of a second merge."""
    for keep in (True, False):
        layer = random_layer(module.LoraLinear)
        parameter = layer.base.weight
        before = parameter.detach().clone()
        want = before + 3 * (layer.B @ layer.A).detach()  # alpha 6 over rank 2
        _call(layer.merge, keep)
        _expect_same_parameter(layer, parameter)
        merged = layer.base.weight.detach()
        mistakes = {
            "the weight hasn't changed: add the update to it": lambda before=before: before,
            "the factor alpha / rank is missing": (
                lambda layer=layer, before=before: before + (layer.B @ layer.A).detach()
            ),
            "the update is subtracted: add it": lambda before=before, want=want: 2 * before - want,
            "the old weight is gone: add the update to it": (
                lambda before=before, want=want: want - before
            ),
        }
        name_mistake(merged, mistakes)
        expect_close(merged, want, "expected W + alpha / rank times B A")
        if layer.merged is not True:
            raise Mistake("set self.merged to True: else forward adds the update again")
        _expect_copy(layer, before, keep)
        _expect_second_is_refused(layer, want, keep)


def _call(method: Callable[..., Any], *arguments: Any) -> None:
    """Call a method that changes a layer in place, with the base's weight trainable or not."""
    try:
        result = method(*arguments)
    except RuntimeError as error:
        if "leaf" in str(error):
            raise Mistake("autograd watches the change: work under torch.no_grad()") from None
        raise
    if result is not None:
        raise Mistake("it must return nothing: it changes the layer in place")


def _expect_same_parameter(layer: Any, parameter: nn.Parameter) -> None:
    weight = layer.base.weight
    if not isinstance(weight, nn.Parameter) or weight.grad_fn is not None:
        raise Mistake("the weight has become part of a graph: work under torch.no_grad()")
    if weight is not parameter:
        raise Mistake("the weight is a new object: change the old one in place")


def _expect_copy(layer: Any, before: Tensor, keep: bool) -> None:
    """Check self.original after merge(keep)."""
    if not keep:
        if layer.original is not None:
            raise Mistake("without keep, self.original must be None: a copy costs memory")
        return
    if not isinstance(layer.original, Tensor):
        raise Mistake("with keep, self.original must hold the weight as it was")
    if not torch.equal(layer.original, before):
        raise Mistake("self.original has changed with the weight: clone it before you add")
    if layer.original.requires_grad:
        raise Mistake("self.original belongs to a graph: detach it")


def _expect_second_is_refused(layer: Any, want: Tensor, keep: bool) -> None:
    """Check that a second merge, with the other `keep`, raises and changes nothing."""
    original = layer.original
    try:
        layer.merge(not keep)
    except RuntimeError:
        expect_close(layer.base.weight.detach(), want, "a refused merge must change nothing")
        if layer.original is not original:
            raise Mistake("a refused merge must leave self.original: refuse first") from None
        return
    raise Mistake("a second merge adds the update twice: raise a RuntimeError")
