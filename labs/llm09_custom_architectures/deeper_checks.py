"""Check the exercises of LLM09+ against the library safetensors and PyTorch's layers."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from labs.kit import Mistake, draw, expect_close, name_mistake
from labs.llm09_custom_architectures.requirements import (
    require_class,
    require_error,
    require_function,
    type_of,
)

import safetensors.torch
import torch
from torch import Tensor, nn

Function = Callable[..., Any]


# read_safetensors


def read_safetensors(module: Any) -> None:
    """Check valid files of all types, in any order, and the refusal of broken ones."""
    implementation = module.read_safetensors
    require_function(implementation)
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64]
    dtypes += [torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
    state = {f"t{i}": (9 * draw(2, 3, seed=i).abs()).to(dtype) for i, dtype in enumerate(dtypes)}
    state |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)}
    for metadata in (None, {"for": "people"}):
        got = _read(implementation, safetensors.torch.save(state, metadata))
        if "__metadata__" in got:
            raise Mistake("__metadata__ is text for people, not a tensor: leave it out")
        if got.keys() != state.keys():
            raise Mistake(f"names missing or too many: {sorted(got.keys() ^ state.keys())}")
        for name, want in state.items():
            _expect_tensor(name, got[name], want)
    _expect_any_order(implementation)
    for what, data in _broken_files().items():
        read = partial(implementation, data)
        require_error(read, ValueError, what, f"{what} isn't refused")


def _read(implementation: Function, data: bytes) -> Any:
    try:
        got = implementation(data)
    except ValueError as error:
        raise Mistake(f"it refuses a valid file: {error}") from None
    if not isinstance(got, dict):
        raise Mistake(f"expected a dict of tensors by name, got {type_of(got)}")
    return got


def _expect_tensor(name: str, got: Any, want: Tensor) -> None:
    if not isinstance(got, Tensor):
        raise Mistake(f"{name}: expected a tensor, got {type_of(got)}")
    if got.dtype != want.dtype:
        dtypes = f"expected {want.dtype}, got {got.dtype}"
        raise Mistake(f"{name}: {dtypes}; view the bytes as that dtype, don't cast")
    if got.shape != want.shape:
        raise Mistake(f"{name}: expected the shape {tuple(want.shape)}, got {tuple(got.shape)}")
    if not torch.equal(got, want):
        raise Mistake(f"{name} has other values: do offsets count from the header's end?")


def _expect_any_order(implementation: Function) -> None:
    """Check a file whose header doesn't name tensors in the order of their bytes."""
    header = {
        "last": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
        "first": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
    }
    body = torch.tensor([7]).numpy().tobytes() + torch.tensor([1.0, 2.0]).numpy().tobytes()
    try:
        got = implementation(_file(header, body))
    except ValueError:
        raise Mistake("the header may name tensors in any order: sort by offsets") from None
    _expect_tensor("first", got.get("first"), torch.tensor([7]))
    _expect_tensor("last", got.get("last"), torch.tensor([1.0, 2.0]))


def _file(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def _broken_files() -> dict[str, bytes]:
    def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    valid = _file({"w": entry([2], 0, 8)}, bytes(8))
    return {
        "a file of five bytes": valid[:5],
        "a header that is cut off": valid[:20],
        "a file that is cut off": valid[:-1],
        "bytes after the last tensor": valid + bytes(4),
        "a gap between two tensors": _file(
            {"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)
        ),
        "two tensors that overlap": _file(
            {"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)
        ),
        "a shape larger than its bytes": _file({"w": entry([3], 0, 8)}, bytes(8)),
        "an unknown dtype": _file({"w": entry([2], 0, 8, "PY")}, bytes(8)),
        "an entry without offsets": _file({"w": {"dtype": "F32", "shape": [2]}}, bytes(8)),
        "a header that is a list": _file([1, 2], b""),
        "a header that isn't JSON": (4).to_bytes(8, "little") + b"{no}",
        "a zip, as torch.save writes": b"PK\x03\x04" + bytes(60),
    }


# BatchNorm

MOMENTUM = 0.3  # neither is BatchNorm's default
EPS = 1e-3


def batch_norm(module: Any) -> None:
    """Check outputs, buffers and gradients in both modes against nn.BatchNorm2d."""
    implementation = module.BatchNorm
    require_class(implementation)
    x = 2 * draw(4, 3, 5, 2) + 3
    ours = implementation(3, momentum=MOMENTUM, eps=EPS).double()
    theirs = nn.BatchNorm2d(3, momentum=MOMENTUM, eps=EPS).double()
    _set_equal(ours, theirs)
    old_mean, old_var = ours.mean.clone(), ours.var.clone()
    got = ours.train()(x)
    _name_norm(got, ours, x, old_mean, old_var)
    expect_close(got, theirs.train()(x).detach(), "(x − μ) / √(σ² + ε), times weight, plus bias")
    _expect_buffers(ours, theirs, x, old_mean, old_var)
    before = [ours.mean.clone(), ours.var.clone()]
    got = ours.eval()(x)
    from_batch = _normalised(ours, x, *_statistics(x))
    name_mistake(got, {"in evaluation use the buffers, not the batch": lambda: from_batch})
    expect_close(got, theirs.eval()(x).detach(), "in evaluation use the running statistics")
    if not all(map(torch.equal, before, (ours.mean, ours.var))):
        raise Mistake("the buffers change in evaluation: change them only in training")
    _expect_norm_gradients(ours, theirs, x)
    _expect_weight_dtype(implementation, x.bfloat16())


def _name_norm(got: Any, ours: Any, x: Tensor, old_mean: Tensor, old_var: Tensor) -> None:
    """Name the mistake in an output of training mode; the old values are the buffers' before it."""
    mean, var = _statistics(x)
    unbiased = x.var((0, 2, 3), keepdim=True)
    mean_per_image = x.mean((2, 3), keepdim=True)
    var_per_image = x.var((2, 3), correction=0, keepdim=True)
    weight, bias = _per_channel(ours.weight, ours.bias)
    name_mistake(
        got,
        {
            "in training use the batch's own statistics: are the buffers used?": (
                lambda: _normalised(ours, x, *_per_channel(old_mean, old_var))
            ),
            "to normalise, σ² divides by n: correction=0": (
                lambda: _normalised(ours, x, mean, unbiased)
            ),
            "statistics are over the batch too: axes 0, 2 and 3": (
                lambda: _normalised(ours, x, mean_per_image, var_per_image)
            ),
            "use self.eps: it isn't always 1e-5": (
                lambda: _normalised(ours, x, mean, var, eps=1e-5)
            ),
            "weight and bias aren't used": lambda: (x - mean) / (var + EPS).sqrt(),
            "is it divided by σ² instead of σ?": lambda: weight * (x - mean) / (var + EPS) + bias,
            "ε is added to σ: it belongs inside the root": (
                lambda: weight * (x - mean) / (var.sqrt() + EPS) + bias
            ),
        },
    )


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and σ² of each channel, (1, C, 1, 1)."""
    return x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)


def _per_channel(*vectors: Tensor) -> list[Tensor]:
    """Shape vectors for images, (C,) -> (C, 1, 1)."""
    return [vector.detach()[:, None, None] for vector in vectors]


def _normalised(ours: Any, x: Tensor, mean: Tensor, var: Tensor, *, eps: float = EPS) -> Tensor:
    weight, bias = _per_channel(ours.weight, ours.bias)
    return weight * (x - mean) / (var + eps).sqrt() + bias


def _expect_weight_dtype(implementation: type, x: Tensor) -> None:
    what = "x in bfloat16: cast it to the weight's dtype before its statistics"
    try:
        got = implementation(3)(x)
    except RuntimeError as error:  # float32 buffers updated by bfloat16 statistics
        raise Mistake(f"{what} ({str(error).splitlines()[0]})") from None
    expect_close(got, nn.BatchNorm2d(3)(x.float()).detach(), what)


def _set_equal(ours: Any, theirs: Any) -> None:
    """Give both layers the same random weights and buffers."""
    pairs = [(ours.weight, theirs.weight), (ours.bias, theirs.bias)]
    pairs += [(ours.mean, theirs.running_mean), (ours.var, theirs.running_var)]
    with torch.no_grad():
        for i, (own, other) in enumerate(pairs):
            values = draw(3, seed=i + 1).abs() + 0.5
            own.copy_(values)
            other.copy_(values)


def _expect_buffers(ours: Any, theirs: Any, x: Tensor, old_mean: Tensor, old_var: Tensor) -> None:
    """Check the buffers after one step of training."""
    if not {"mean", "var"} <= dict(ours.named_buffers()).keys():
        raise Mistake("mean and var are no longer buffers: change them in place")
    if ours.mean.requires_grad or ours.var.requires_grad:
        raise Mistake("the buffers belong to the graph: update them under no_grad")
    mean = x.mean((0, 2, 3))
    var = x.var((0, 2, 3))
    n = x.numel() / 3
    name_mistake(
        ours.mean,
        {
            "the buffers don't change: in training update them": lambda: old_mean,
            "momentum is the share of the new mean, not of the old one": (
                lambda: mean.lerp(old_mean, MOMENTUM)
            ),
            "use self.momentum: it isn't always 0.1": lambda: old_mean.lerp(mean, 0.1),
        },
    )
    what = "mean ← (1 − momentum) · mean + momentum · the batch's mean"
    expect_close(ours.mean, theirs.running_mean, what)
    biased = old_var.lerp(var * (n - 1) / n, MOMENTUM)
    name_mistake(ours.var, {"the running variance divides by n − 1": lambda: biased})
    what = "var ← (1 − momentum) · var + momentum · n/(n − 1) · σ²"
    expect_close(ours.var, theirs.running_var, what)


def _expect_norm_gradients(ours: Any, theirs: Any, x: Tensor) -> None:
    """Check that gradients flow through the statistics in training."""
    slope = draw(*x.shape, seed=9)
    gradients: list[tuple[Any, ...]] = []
    for layer in (ours.train(), theirs.train()):
        given = x.clone().requires_grad_()
        output = layer(given)
        if not output.requires_grad:
            raise Mistake("no gradient: is it computed under no_grad, or detached?")
        inputs = (given, layer.weight, layer.bias)
        gradients.append(torch.autograd.grad(output, inputs, slope, allow_unused=True))
    for name, got, want in zip(("x", "weight", "bias"), *gradients, strict=True):
        if got is None:
            raise Mistake(f"no gradient reaches {name}")
        expect_close(got, want, f"the gradient of {name}: are the statistics detached?")


# WritingConvolution


def step(module: Any) -> None:
    """Check a text of six tokens, step by step, against the convolution at once."""
    implementation = module.WritingConvolution
    require_class(implementation)
    mixer = implementation(6, 3).double()
    with torch.no_grad():
        for i, weight in enumerate((mixer.enter.weight, mixer.leave.weight, mixer.kernel)):
            weight.copy_(draw(*weight.shape, seed=i))
        x = draw(2, 6, 6, seed=7)
        want = mixer(x)
        state = mixer.start(2)
        for t in range(6):
            before = state.clone()
            got = mixer.step(x[:, t], state)
            if not isinstance(got, tuple) or len(got) != 2:
                raise Mistake(f"return the output and the new state, got {type_of(got)}")
            if not torch.equal(state, before):
                raise Mistake("the old state has changed: return a new one")
            output, new = got
            _expect_state(mixer, x[:, t], before, new)
            name_mistake(output, _wrong_steps(mixer, x[:, t], before))
            expect_close(output, want[:, t], f"token {t}: what forward returns for it")
            state = new


def _expect_state(mixer: Any, x: Tensor, before: Tensor, new: Any) -> None:
    """Check the new state: the last k − 1 vectors u, the newest last."""
    a, _, v = mixer.enter(x).chunk(3, -1)
    u = ((1 + a) * v)[:, None]
    if isinstance(new, Tensor) and new.shape[1] == before.shape[1] + 1:
        raise Mistake("the state grows: drop its oldest vector")
    mistakes = {
        "the state is the old one: put the new vector into it": lambda: before,
        "the state has x in it: it needs u = (1 + a) ⊙ v": (
            lambda: torch.cat((before[:, 1:], x[:, None]), 1)
        ),
        "the state has v in it: it needs u = (1 + a) ⊙ v": (
            lambda: torch.cat((before[:, 1:], v[:, None]), 1)
        ),
        "the newest vector is first: it belongs to the end": (
            lambda: torch.cat((u, before[:, :-1]), 1)
        ),
    }
    name_mistake(new, mistakes)
    want = torch.cat((before[:, 1:], u), 1)
    expect_close(new, want, "the last k − 1 vectors (1 + a) ⊙ v, the newest last")


def _wrong_steps(mixer: Any, x: Tensor, state: Tensor) -> dict[str, Callable[[], Tensor]]:
    a, b, v = mixer.enter(x).chunk(3, -1)
    recent = torch.cat((state, ((1 + a) * v)[:, None]), 1)
    flipped = (recent * mixer.kernel.flip(1).mT).sum(1)
    return {
        "the kernel isn't flipped: its column 0 is for the newest vector": (
            lambda: mixer.leave((1 + b) * (recent * mixer.kernel.mT).sum(1))
        ),
        "the gate b is missing": lambda: mixer.leave(flipped),
        "leave, the last matrix, is missing": lambda: (1 + b) * flipped,
        "only the state is mixed: the new token is missing": (
            lambda: mixer.leave((1 + b) * (state * mixer.kernel.flip(1).mT[:-1]).sum(1))
        ),
    }
