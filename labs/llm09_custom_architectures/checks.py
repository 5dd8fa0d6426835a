"""Check the exercises of LLM09 against PyTorch's layers and the library safetensors."""

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, expect_close, name_mistake
from labs.llm07_lora import LoraLinear

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

checks = Checks()

Function = Callable[..., Any]


def _require_function(implementation: Any) -> None:
    if not callable(implementation):
        raise Mistake(f"expected a function, got {_type_of(implementation)}")


def _require_class(implementation: Any) -> None:
    if not isinstance(implementation, type):
        raise Mistake(f"expected a class, got {_type_of(implementation)}")


def _type_of(value: Any) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


# load_partial


class _Small(nn.Module):
    def __init__(self, out: int = 3, seed: int = 0) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, out)
        self.register_buffer("scale", torch.zeros(4))
        with torch.no_grad():
            for i, tensor in enumerate(self.state_dict().values()):
                tensor.copy_(draw(*tensor.shape, seed=100 * seed + i))


@checks.proves("load_partial")
def load_partial(module: Any) -> None:
    implementation = module.load_partial
    _require_function(implementation)
    model = _Small()
    state = _clones(_Small(out=5, seed=1).state_dict())
    state["extra"] = torch.ones(2)
    del state["body.bias"]
    names = set(state)
    before = _clones(model.state_dict())
    parameters = list(model.parameters())
    try:
        got = implementation(model, state)
    except RuntimeError as error:
        raise Mistake(
            "report another shape, don't raise: load_state_dict raises for it, strict or not, "
            f"so leave such tensors out ({str(error).splitlines()[0]})"
        ) from None
    _expect_report(got)
    after = model.state_dict()
    if not torch.equal(after["body.weight"], state["body.weight"]):
        raise Mistake("body.weight fits, but it isn't loaded")
    if not torch.equal(after["scale"], state["scale"]):
        raise Mistake("buffers belong to the state too: scale fits, but it isn't loaded")
    for name in ("body.bias", "head.weight", "head.bias"):
        if not torch.equal(after[name], before[name]):
            raise Mistake(f"{name} has changed, but nothing in the state fits it")
    pairs = zip(model.parameters(), parameters, strict=True)
    if any(now is not before for now, before in pairs):
        raise Mistake("the parameters are new objects: copy in place, don't assign")
    if set(state) != names:
        raise Mistake("the state that was passed in has changed: make a new dict")
    _expect_error_if_nothing_fits(implementation)


def _clones(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def _expect_report(got: Any) -> None:
    if not isinstance(got, tuple) or len(got) != 4:
        raise Mistake(f"expected four lists of names, got {_type_of(got)}")
    want = {
        "loaded": ["body.weight", "scale"],
        "missing": ["body.bias"],
        "unexpected": ["extra"],
        "misshapen": ["head.bias", "head.weight"],
    }
    lists = dict(zip(want, got, strict=True))
    if lists["missing"] == want["unexpected"] and lists["unexpected"] == want["missing"]:
        raise Mistake("missing and unexpected are swapped: the state lacks the missing names")
    for name, names in lists.items():
        if not isinstance(names, list):
            raise Mistake(f"{name} must be a list, got {_type_of(names)}")
        if names != want[name] and sorted(map(str, names)) == want[name]:
            raise Mistake(f"{name} must be sorted")
        if names != want[name]:
            raise Mistake(f"{name}: expected {want[name]}, got {names}")


def _expect_error_if_nothing_fits(implementation: Function) -> None:
    prefixed = {f"module.{name}": tensor for name, tensor in _Small().state_dict().items()}
    try:
        implementation(_Small(), prefixed)
    except ValueError:
        return
    except Exception as error:
        kind = type(error).__name__
        raise Mistake(f"if nothing fits: expected a ValueError, got {kind}") from None
    raise Mistake("every name has another prefix, so nothing is loaded: raise a ValueError")


# read_safetensors


@checks.proves("read_safetensors")
def read_safetensors(module: Any) -> None:
    implementation = module.read_safetensors
    _require_function(implementation)
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
        _expect_refusal(implementation, what, data)


def _read(implementation: Function, data: bytes) -> Any:
    try:
        got = implementation(data)
    except ValueError as error:
        raise Mistake(f"it refuses a valid file: {error}") from None
    if not isinstance(got, dict):
        raise Mistake(f"expected a dict of tensors by name, got {_type_of(got)}")
    return got


def _expect_tensor(name: str, got: Any, want: Tensor) -> None:
    if not isinstance(got, Tensor):
        raise Mistake(f"{name}: expected a tensor, got {_type_of(got)}")
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


def _expect_refusal(implementation: Function, what: str, data: bytes) -> None:
    try:
        implementation(data)
    except ValueError:
        return
    except Exception as error:
        kind = type(error).__name__
        raise Mistake(f"{what}: expected a ValueError, got {kind}") from None
    raise Mistake(f"{what} isn't refused: raise a ValueError")


# BatchNorm


@checks.proves("BatchNorm.forward")
def batch_norm(module: Any) -> None:
    implementation = module.BatchNorm
    _require_class(implementation)
    x = 2 * draw(4, 3, 5, 2) + 3
    ours = implementation(3).double()
    theirs = nn.BatchNorm2d(3).double()
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
            "weight and bias aren't used": lambda: (x - mean) / (var + 1e-5).sqrt(),
            "is it divided by σ² instead of σ?": lambda: weight * (x - mean) / (var + 1e-5) + bias,
            "ε is added to σ: it belongs inside the root": (
                lambda: weight * (x - mean) / (var.sqrt() + 1e-5) + bias
            ),
        },
    )


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and σ² of each channel, (1, C, 1, 1)."""
    return x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)


def _per_channel(*vectors: Tensor) -> list[Tensor]:
    """Shape vectors for images, (C,) -> (C, 1, 1)."""
    return [vector.detach()[:, None, None] for vector in vectors]


def _normalised(ours: Any, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    weight, bias = _per_channel(ours.weight, ours.bias)
    return weight * (x - mean) / (var + 1e-5).sqrt() + bias


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
                lambda: 0.1 * old_mean + 0.9 * mean
            ),
        },
    )
    expect_close(ours.mean, theirs.running_mean, "mean ← 0.9 · mean + 0.1 · the batch's mean")
    biased = 0.9 * old_var + 0.1 * var * (n - 1) / n
    name_mistake(ours.var, {"the running variance divides by n − 1": lambda: biased})
    expect_close(ours.var, theirs.running_var, "var ← 0.9 · var + 0.1 · n/(n − 1) · σ²")


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


# look_inside


class _Overwrites(nn.Module):
    """A network that changes its first layer's output in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4).double()
        self.act = nn.ReLU(inplace=True)
        self.last = nn.Linear(4, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 5:
            raise RuntimeError("too long")
        return self.last(self.act(self.first(x)))


def _hook_count(model: nn.Module) -> int:
    return sum(
        len(hooks)
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    )


@checks.proves("look_inside")
def look_inside(module: Any) -> None:
    implementation = module.look_inside
    _require_function(implementation)
    body = _Overwrites()
    model = nn.Sequential(OrderedDict(body=body, end=nn.Identity()))
    x = draw(5, 3)
    names = ["body.first", "body.last"]
    with torch.no_grad():
        want = {"body.first": body.first(x), "body.last": model(x)}
    got = implementation(model, names, x)
    if _hook_count(model):
        raise Mistake("a hook is left behind: remove() every handle")
    if not isinstance(got, dict):
        raise Mistake(f"expected a dict of outputs by name, got {_type_of(got)}")
    if set(got) != set(names):
        raise Mistake(
            f"expected outputs of {', '.join(names)}, got {', '.join(map(str, got)) or 'none'}; "
            "in a loop a closure sees the last name: bind it"
        )
    name_mistake(
        got["body.first"],
        {
            "an operation in place changed the stored output: clone it": (
                lambda: want["body.first"].relu()
            ),
            "all names have the last layer's output: bind the name in each closure": (
                lambda: want["body.last"]
            ),
        },
    )
    for name in names:
        expect_close(got[name], want[name], f"the output of {name}")
        if got[name].requires_grad:
            raise Mistake("the stored outputs belong to a graph: detach them, or use no_grad")
    _expect_unchanged(implementation, model, body, x)
    for what, arguments in {
        "the model raises": (model, names, draw(6, 3)),
        "a name is unknown": (model, ["body.first", "body.nothing"], x),
    }.items():
        _expect_no_hook_after_error(implementation, what, arguments)


def _expect_unchanged(implementation: Function, model: nn.Module, body: Any, x: Tensor) -> None:
    """Check that the model keeps its mode and its own hooks, and runs once."""
    for mode in (True, False):
        implementation(model.train(mode), ["body.first"], x)
        if model.training != mode:
            raise Mistake("leave the model in training or evaluation mode, as it was")
    calls: list[int] = []
    handle = body.register_forward_hook(lambda *_: calls.append(1))
    implementation(model, ["body"], x)
    if not _hook_count(model):
        raise Mistake("a hook that was there before is gone: remove only your own")
    handle.remove()
    if len(calls) != 1:
        raise Mistake(f"the model must read x once, it read it {len(calls)} times")


def _expect_no_hook_after_error(implementation: Function, what: str, arguments: Any) -> None:
    try:
        implementation(*arguments)
    except Exception:
        if _hook_count(arguments[0]):
            raise Mistake(f"if {what}, hooks are left behind: remove them in finally") from None
        return
    raise Mistake(f"if {what}, it must raise as well")


# adapter_kernels


@checks.proves("adapter_kernels")
def adapter_kernels(module: Any) -> None:
    implementation = module.adapter_kernels
    _require_function(implementation)
    convolution = module.Convolution(2, 5, 3, 2, 1, 1).double()
    adapter = LoraLinear(convolution.linear, 4, 6.0).double()
    convolution.linear = adapter
    with torch.no_grad():
        for i, factor in enumerate((adapter.A, adapter.B)):
            factor.copy_(draw(*factor.shape, seed=i))
    a = adapter.A.detach()
    b = adapter.B.detach()
    got = implementation(convolution)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mistake(f"expected two kernels, got {_type_of(got)}")
    if not all(isinstance(kernel, Tensor) for kernel in got):
        raise Mistake(f"expected two tensors, got {_type_of(got[0])} and {_type_of(got[1])}")
    down, up = (kernel.detach() for kernel in got)
    down_wanted = a.view(4, 2, 3, 3)
    name_mistake(
        down,
        {
            "a window has channels first, then rows and columns: (r, C, k, k)": (
                lambda: a.view(4, 3, 3, 2).permute(0, 3, 1, 2)
            ),
            "the factor alpha / rank belongs to the second kernel": lambda: 1.5 * down_wanted,
            "the kernel is flipped: a window isn't": lambda: down_wanted.flip(2, 3),
            "rows and columns are swapped": lambda: down_wanted.mT,
        },
    )
    expect_close(down, down_wanted, "expected A's rows, each a window of (C, k, k)")
    unscaled = b[:, :, None, None]
    name_mistake(
        up,
        {
            "the factor alpha / rank is missing": lambda: unscaled,
            "is it multiplied by alpha alone?": lambda: 6 * unscaled,
            "is it rank / alpha?": lambda: unscaled / 1.5,
        },
    )
    expect_close(up, 1.5 * unscaled, "expected alpha / rank times B, (out, r, 1, 1)")
    if any(kernel.grad_fn is None and not kernel.requires_grad for kernel in got):
        raise Mistake("the kernels are cut off from the graph: don't detach them")


# GatedConvolution


@checks.proves("GatedConvolution.forward")
def gated_convolution(module: Any) -> None:
    implementation = module.GatedConvolution
    _require_class(implementation)
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
    output = mixer(given)
    if not output.requires_grad:
        raise Mistake("no gradient: is it computed under no_grad, or detached?")
    inputs = {
        "x": given,
        "kernel": mixer.kernel,
        "enter": mixer.enter.weight,
        "leave": mixer.leave.weight,
    }
    gradients = torch.autograd.grad(output.sum(), list(inputs.values()), allow_unused=True)
    for name, gradient in zip(inputs, gradients, strict=True):
        if gradient is None:
            raise Mistake(f"no gradient reaches {name}: is something detached?")


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
