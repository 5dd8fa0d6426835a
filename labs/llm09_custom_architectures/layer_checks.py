"""Check the exercises of LLM09 on layers: two convolutions, and a merged adapter.

`checks` lists them.
"""

from collections.abc import Callable
from typing import Any

from labs.kit import Mistake, draw, equals, expect_close, name_mistake
from labs.llm09_custom_architectures.requirements import require_class, type_of

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Convolution


def convolution(module: Any) -> None:
    """Check maps and all gradients of three convolutions against F.conv2d."""
    implementation = module.Convolution
    require_class(implementation)
    x = draw(2, 3, 9, 7)
    for size, stride, padding, dilation in ((3, 1, 1, 1), (2, 2, 0, 1), (3, 3, 2, 2)):
        layer = implementation(3, 4, size, stride, padding, dilation).double()
        with torch.no_grad():
            for i, weight in enumerate(layer.parameters()):
                weight.copy_(draw(*weight.shape, seed=i))
        places = (stride, padding, dilation)
        want = F.conv2d(x, layer.weight, layer.bias, *places).detach()
        got = layer(x)
        if not isinstance(got, Tensor):
            raise Mistake(f"expected maps (B, out, H′, W′), got {type_of(got)}")
        if got.shape == want.movedim(1, -1).shape != want.shape:
            raise Mistake("the maps are last: move the axis of `out` to place 1")
        wrong = _wrong_maps(layer, x, places)  # some are right if stride or dilation is 1
        name_mistake(got, {what: maps for what, maps in wrong.items() if not equals(want, maps())})
        what = f"kernel {size}, stride {stride}, padding {padding}, dilation {dilation}"
        expect_close(got.detach(), want, f"expected F.conv2d's maps; {what}")
        _expect_convolution_gradients(layer, x, places)
    bare = implementation(3, 4, bias=False).double()
    expect_close(bare(x).detach(), F.conv2d(x, bare.weight, padding=1).detach(), "without a bias")


def _wrong_maps(layer: Any, x: Tensor, places: tuple[int, int, int]) -> dict[str, Any]:
    weight = layer.weight.detach()
    bias = layer.bias.detach()
    stride, padding, dilation = places
    return {
        "the bias is missing": lambda: F.conv2d(x, weight, None, *places),
        "the kernel is flipped: deep learning's convolution doesn't flip it": (
            lambda: F.conv2d(x, weight.flip(2, 3), bias, *places)
        ),
        "rows and columns of the windows are swapped": (
            lambda: F.conv2d(x, weight.mT, bias, *places)
        ),
        "windows are flattened with channels last; the weight has channels first": (
            lambda: F.conv2d(
                x,
                weight.flatten(1).unflatten(1, (*weight.shape[2:], 3)).movedim(-1, 1),
                bias,
                *places,
            )
        ),
        "the padding is missing": lambda: F.conv2d(x, weight, bias, stride, 0, dilation),
        "the stride is ignored": lambda: F.conv2d(x, weight, bias, 1, padding, dilation),
        "the dilation is ignored": lambda: F.conv2d(x, weight, bias, stride, padding),
    }


def _expect_convolution_gradients(layer: Any, x: Tensor, places: tuple[int, int, int]) -> None:
    given = x.clone().requires_grad_()
    inputs = {"x": given, "weight": layer.weight, "bias": layer.bias}
    _expect_gradients(inputs, layer(given), F.conv2d(given, layer.weight, layer.bias, *places))


def _expect_gradients(inputs: dict[str, Tensor], output: Tensor, right: Tensor) -> None:
    """Check the gradients of a random sum of the output against those of the right output."""
    if not output.requires_grad:
        raise Mistake("no gradient: is it computed under no_grad, or detached?")
    slope = draw(*right.shape, seed=9)
    tensors = list(inputs.values())
    gradients = torch.autograd.grad(output, tensors, slope, allow_unused=True)
    wanted = torch.autograd.grad(right, tensors, slope)
    for name, gradient, want in zip(inputs, gradients, wanted, strict=True):
        if gradient is None:
            raise Mistake(f"no gradient reaches {name}: is something detached?")
        expect_close(gradient, want, f"the gradient of {name}: is a part of its path detached?")


# LoraConvolution


def merged(module: Any) -> None:
    """Check the merged layer's kernel and outputs, and that the adapter stays as it was."""
    implementation = module.LoraConvolution
    require_class(implementation)
    base = module.Convolution(3, 4, 3, 2, 2, 2)
    adapter = implementation(base, 2, 5).double()
    with torch.no_grad():
        for i, weight in enumerate(
            (base.weight, base.bias, adapter.down.weight, adapter.up.weight)
        ):
            weight.copy_(draw(*weight.shape, seed=i))
    before = {name: tensor.clone() for name, tensor in adapter.state_dict().items()}
    got = adapter.merged()
    if not isinstance(got, module.Convolution):
        raise Mistake(f"expected a Convolution, got {type_of(got)}")
    if got is base or any(not torch.equal(a, before[name]) for name, a in _tensors(adapter)):
        raise Mistake("the adapter or its base has changed: add the update to a copy of the base")
    if got.weight.data_ptr() == base.weight.data_ptr():
        raise Mistake("the new layer shares its weight with the base: copy the base")
    _expect_merged_kernel(adapter, got.weight.detach())
    x = draw(2, 3, 9, 7)
    with torch.no_grad():
        what = "expected the adapter's outputs: do bias, stride, padding and dilation stay?"
        expect_close(got(x), adapter(x), what)


def _tensors(layer: nn.Module) -> list[tuple[str, Tensor]]:
    return list(layer.state_dict().items())


@torch.no_grad()
def _expect_merged_kernel(adapter: Any, got: Tensor) -> None:
    weight = adapter.base.weight
    update = torch.einsum("or,rcij->ocij", adapter.up.weight[:, :, 0, 0], adapter.down.weight)
    if got.shape != weight.shape:
        raise Mistake(f"expected a kernel {tuple(weight.shape)}, got {tuple(got.shape)}")
    factor = adapter.factor
    mistakes = {
        "it is the base's kernel: add the update B A": lambda: weight,
        "the base's kernel is missing: add the update to it": lambda: factor * update,
        "the factor α ÷ r is missing": lambda: weight + update,
        "the update is subtracted: add it": lambda: weight - factor * update,
        "the update is flipped: neither convolution flips its kernel": (
            lambda: weight + factor * update.flip(2, 3)
        ),
        "rows and columns of the update are swapped": lambda: weight + factor * update.mT,
    }
    name_mistake(got, mistakes)
    expect_close(got, weight + factor * update, "the base's kernel + α ÷ r · B A")


# GatedConvolution


def gated_convolution(module: Any) -> None:
    """Check outputs against the definition, a loop over steps back, and the gradients."""
    implementation = module.GatedConvolution
    require_class(implementation)
    mixer = implementation(6, 3).double()
    with torch.no_grad():
        for i, weight in enumerate((mixer.enter.weight, mixer.leave.weight, mixer.kernel)):
            weight.copy_(draw(*weight.shape, seed=i))
    x = draw(2, 5, 6, seed=7)
    with torch.no_grad():
        got = mixer(x)
        want = _gated(mixer, x)
        name_mistake(got, _wrong_gates(mixer, x))
        what = "leave((1 + b) ⊙ conv((1 + a) ⊙ v)), column i of the kernel for i steps back"
        expect_close(got, want, what)
        for t in (1, 2):  # shorter than the kernel
            expect_close(mixer(x[:, :t]), want[:, :t], "a text shorter than the kernel")
    _expect_mixer_gradients(mixer, x)


def _expect_mixer_gradients(mixer: Any, x: Tensor) -> None:
    given = x.clone().requires_grad_()
    inputs = {
        "x": given,
        "kernel": mixer.kernel,
        "enter": mixer.enter.weight,
        "leave": mixer.leave.weight,
    }
    _expect_gradients(inputs, mixer(given), _gated(mixer, given))


def _gated(mixer: Any, x: Tensor, shift: int = 0, flip: bool = False) -> Tensor:
    """Return the output by its definition, a loop over steps back.

    Args:
        mixer: the gated convolution.
        x: (B, T, d).
        shift: how many tokens it looks ahead.
        flip: flip the kernel.
    """
    a, b, v = mixer.enter(x).chunk(3, -1)
    u = (1 + a) * v
    kernel = mixer.kernel.flip(1) if flip else mixer.kernel
    mixed = torch.zeros_like(u)
    for t in range(u.shape[1]):
        for i in range(kernel.shape[1]):
            if 0 <= t - i + shift < u.shape[1]:
                mixed[:, t] += kernel[:, i] * u[:, t - i + shift]
    return mixer.leave((1 + b) * mixed)


def _wrong_gates(mixer: Any, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    a, b, v = mixer.enter(x).chunk(3, -1)

    def mixed(u: Tensor) -> Tensor:
        past = F.pad(u.mT, (2, 0))
        return F.conv1d(past, mixer.kernel.flip(1)[:, None], groups=6).mT

    return {
        "F.conv1d doesn't flip the kernel: column 0 is for the token itself, so flip it": (
            lambda: _gated(mixer, x, flip=True)
        ),
        "it sees the future: pad k − 1 zeros on the left, and none on the right": (
            lambda: _gated(mixer, x, shift=1)
        ),
        "it sees the future: the padding is on the right": lambda: _gated(mixer, x, shift=2),
        "it sees the future: the padding is on both sides, and the kernel isn't flipped": (
            lambda: _gated(mixer, x, shift=1, flip=True)
        ),
        "the gate a is missing: convolve (1 + a) ⊙ v": lambda: mixer.leave((1 + b) * mixed(v)),
        "the gate b is missing": lambda: mixer.leave(mixed((1 + a) * v)),
        "the gates start open: use 1 + a and 1 + b": lambda: mixer.leave(b * mixed(a * v)),
        "the gates are swapped: enter gives a, b and v in this order": (
            lambda: mixer.leave((1 + a) * mixed((1 + b) * v))
        ),
        "leave, the last matrix, is missing": lambda: (1 + b) * mixed((1 + a) * v),
        "the gates have an activation: here they only multiply": (
            lambda: mixer.leave(b.sigmoid() * mixed(a.sigmoid() * v))
        ),
    }
