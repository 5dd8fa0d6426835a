"""What proves the parts of LLM09 right. References: PyTorch's own layers, and safetensors."""

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


def _callable(implementation: Any) -> None:
    if not callable(implementation):
        raise Mistake(f"a function was expected, a {type(implementation).__name__} came")


def _class(implementation: Any) -> None:
    if not isinstance(implementation, type):
        raise Mistake(f"a class was expected, a {type(implementation).__name__} came")


# load_partial


class _Small(nn.Module):
    def __init__(self, out: int = 3, seed: int = 0) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, out)
        self.register_buffer("scale", torch.zeros(4))
        with torch.no_grad():
            for i, one in enumerate(self.state_dict().values()):
                one.copy_(draw(*one.shape, seed=100 * seed + i))


@checks.proves("load_partial")
def load_partial(module: Any) -> None:
    implementation = module.load_partial
    _callable(implementation)
    module, other = _Small(), _Small(out=5, seed=1)
    state = {name: one.clone() for name, one in other.state_dict().items()}
    state["extra"] = torch.ones(2)
    del state["body.bias"]
    before = {name: one.clone() for name, one in module.state_dict().items()}
    objects, given = list(module.parameters()), {name: one.clone() for name, one in state.items()}
    try:
        got = implementation(module, state)
    except RuntimeError as error:
        raise Mistake(
            "another shape must be told, not raised: load_state_dict raises for it, strict or not, "
            f"so leave such tensors out ({str(error).splitlines()[0]})"
        ) from None
    _is_report(got)
    after = module.state_dict()
    if not torch.equal(after["body.weight"], state["body.weight"]):
        raise Mistake("body.weight fits, and it isn't loaded")
    if not torch.equal(after["scale"], state["scale"]):
        raise Mistake("buffers belong to the state too: scale fits, and it isn't loaded")
    for name in ("body.bias", "head.weight", "head.bias"):
        if not torch.equal(after[name], before[name]):
            raise Mistake(f"{name} has changed: nothing in the state fits it")
    if any(one is not was for one, was in zip(module.parameters(), objects, strict=True)):
        raise Mistake("the parameters are other objects than before: copy in place, don't assign")
    if state.keys() != given.keys():
        raise Mistake("the state that was given has changed: make a dict of your own")
    _nothing_fits(implementation)


def _is_report(got: Any) -> None:
    if not isinstance(got, tuple) or len(got) != 4:
        raise Mistake(f"four lists of names were expected, {_kind(got)} came")
    want = {
        "loaded": ["body.weight", "scale"],
        "missing": ["body.bias"],
        "unexpected": ["extra"],
        "misshapen": ["head.bias", "head.weight"],
    }
    lists = dict(zip(want, got, strict=True))
    if lists["missing"] == want["unexpected"] and lists["unexpected"] == want["missing"]:
        raise Mistake("missing and unexpected are swapped: missing is what the state lacks")
    for name, names in lists.items():
        if not isinstance(names, list):
            raise Mistake(f"{name} must be a list, {_kind(names)} came")
        if names != want[name] and sorted(map(str, names)) == want[name]:
            raise Mistake(f"{name} must be sorted")
        if names != want[name]:
            raise Mistake(f"{name} must be {want[name]} here, {names} came")


def _nothing_fits(implementation: Function) -> None:
    prefixed = {f"module.{name}": one for name, one in _Small().state_dict().items()}
    try:
        implementation(_Small(), prefixed)
    except ValueError:
        return
    except Exception as error:
        kind = type(error).__name__
        raise Mistake(f"nothing fits: a ValueError was expected, {kind} came") from None
    raise Mistake("every name has another prefix, nothing is loaded, and nothing is raised")


def _kind(value: Any) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


# read_safetensors


@checks.proves("read_safetensors")
def read_safetensors(module: Any) -> None:
    implementation = module.read_safetensors
    _callable(implementation)
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64]
    kinds += [torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
    state = {f"t{i}": (9 * draw(2, 3, seed=i).abs()).to(kind) for i, kind in enumerate(kinds)}
    state |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)}
    for metadata in (None, {"for": "people"}):
        got = _read(implementation, safetensors.torch.save(state, metadata))
        if "__metadata__" in got:
            raise Mistake("__metadata__ is text for people, no tensor: leave it out")
        if got.keys() != state.keys():
            raise Mistake(f"names missing or too many: {sorted(got.keys() ^ state.keys())}")
        for name, want in state.items():
            _is_tensor(name, got[name], want)
    _in_any_order(implementation)
    for what, data in _hostile().items():
        _is_refused(implementation, what, data)


def _read(implementation: Function, data: bytes) -> Any:
    try:
        got = implementation(data)
    except ValueError as error:
        raise Mistake(f"a sound file is refused: {error}") from None
    if not isinstance(got, dict):
        raise Mistake(f"a dict from name to tensor was expected, {_kind(got)} came")
    return got


def _is_tensor(name: str, got: Any, want: Tensor) -> None:
    if not isinstance(got, Tensor):
        raise Mistake(f"{name}: a tensor was expected, {_kind(got)} came")
    if got.dtype != want.dtype:
        raise Mistake(f"{name} must be {want.dtype}, {got.dtype} came: bytes are viewed, not cast")
    if got.shape != want.shape:
        raise Mistake(f"{name} must have the shape {tuple(want.shape)}, {tuple(got.shape)} came")
    if not torch.equal(got, want):
        raise Mistake(f"{name} has other numbers: do offsets count from the header's end?")


def _in_any_order(implementation: Function) -> None:
    """JSON needn't name tensors in the order of their bytes."""
    header = {
        "last": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
        "first": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
    }
    body = torch.tensor([7]).numpy().tobytes() + torch.tensor([1.0, 2.0]).numpy().tobytes()
    try:
        got = implementation(_file(header, body))
    except ValueError:
        raise Mistake("the header may name tensors in any order: sort by offsets") from None
    _is_tensor("first", got.get("first"), torch.tensor([7]))
    _is_tensor("last", got.get("last"), torch.tensor([1.0, 2.0]))


def _file(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def _hostile() -> dict[str, bytes]:
    def one(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    sound = _file({"w": one([2], 0, 8)}, bytes(8))
    return {
        "a file of five bytes": sound[:5],
        "a header that is cut off": sound[:20],
        "a file that is cut off": sound[:-1],
        "bytes after the last tensor": sound + bytes(4),
        "a gap between two tensors": _file({"a": one([1], 0, 4), "b": one([1], 8, 12)}, bytes(12)),
        "two tensors that overlap": _file({"a": one([2], 0, 8), "b": one([2], 4, 12)}, bytes(12)),
        "a shape larger than its bytes": _file({"w": one([3], 0, 8)}, bytes(8)),
        "an unknown dtype": _file({"w": one([2], 0, 8, "PY")}, bytes(8)),
        "an entry without offsets": _file({"w": {"dtype": "F32", "shape": [2]}}, bytes(8)),
        "a header that is a list": _file([1, 2], b""),
        "a header that is no JSON": (4).to_bytes(8, "little") + b"{no}",
        "a zip, as torch.save writes": b"PK\x03\x04" + bytes(60),
    }


def _is_refused(implementation: Function, what: str, data: bytes) -> None:
    try:
        implementation(data)
    except ValueError:
        return
    except Exception as error:
        kind = type(error).__name__
        raise Mistake(f"{what}: a ValueError was expected, {kind} came") from None
    raise Mistake(f"{what} isn't refused")


# BatchNorm


@checks.proves("BatchNorm.forward")
def batch_norm(module: Any) -> None:
    implementation = module.BatchNorm
    _class(implementation)
    x = 2 * draw(4, 3, 5, 2) + 3
    ours, theirs = implementation(3).double(), nn.BatchNorm2d(3).double()
    _same_numbers(ours, theirs)
    got = ours.train()(x)
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    w, b = (one.detach()[:, None, None] for one in (ours.weight, ours.bias))
    per_image = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
    biased = x.var((0, 2, 3), keepdim=True)
    old = [one[:, None, None] for one in (theirs.running_mean, theirs.running_var)]

    def norm(mean: Tensor, var: Tensor, eps: float = 1e-5) -> Tensor:
        return w * (x - mean) / (var + eps).sqrt() + b

    name_mistake(
        got,
        {
            "in training the batch's own statistics count: are the buffers used?": (
                lambda: norm(*old)
            ),
            "σ² divides by n where it normalises: correction=0": lambda: norm(mean, biased),
            "statistics are over the batch too: axes 0, 2 and 3": lambda: norm(*per_image),
            "weight and bias aren't used": lambda: (x - mean) / (var + 1e-5).sqrt(),
            "is it divided by σ² and not by σ?": lambda: w * (x - mean) / (var + 1e-5) + b,
            "ε is added to σ²: it belongs inside the root": (
                lambda: w * (x - mean) / (var.sqrt() + 1e-5) + b
            ),
        },
    )
    expect_close(got, theirs.train()(x).detach(), "(x − μ) / √(σ² + ε), times weight, plus bias")
    _buffers_moved(ours, theirs, x)
    before = [ours.mean.clone(), ours.var.clone()]
    got, want = ours.eval()(x), theirs.eval()(x).detach()
    name_mistake(got, {"in evaluation the buffers count, not the batch": lambda: norm(mean, var)})
    expect_close(got, want, "in evaluation by the running statistics")
    if not all(map(torch.equal, before, (ours.mean, ours.var))):
        raise Mistake("the buffers move in evaluation: only training may move them")
    _norm_gradients(ours, theirs, x)
    _in_the_weights_dtype(implementation, x.bfloat16())


def _in_the_weights_dtype(implementation: type, x: Tensor) -> None:
    what = "x in bfloat16: cast it to the weight's dtype before taking its statistics"
    try:
        got = implementation(3)(x)
    except RuntimeError as error:  # a step of float32 buffers by bfloat16 statistics
        raise Mistake(f"{what} ({str(error).splitlines()[0]})") from None
    expect_close(got, nn.BatchNorm2d(3)(x.float()).detach(), what)


def _same_numbers(ours: Any, theirs: nn.BatchNorm2d) -> None:
    pairs = [(ours.weight, theirs.weight), (ours.bias, theirs.bias)]
    pairs += [(ours.mean, theirs.running_mean), (ours.var, theirs.running_var)]
    with torch.no_grad():
        for i, (mine, other) in enumerate(pairs):
            numbers = draw(3, seed=i + 1).abs() + 0.5
            mine.copy_(numbers)
            other.copy_(numbers)


def _buffers_moved(ours: Any, theirs: Any, x: Tensor) -> None:
    if not {"mean", "var"} <= dict(ours.named_buffers()).keys():
        raise Mistake("mean and var are no buffers any more: change them in place")
    if ours.mean.requires_grad or ours.var.requires_grad:
        raise Mistake("the buffers belong to the graph: update them under no_grad")
    old, new = (draw(3, seed=i).abs() + 0.5 for i in (3, 4)), (x.mean((0, 2, 3)), x.var((0, 2, 3)))
    (mean, var), n = old, x.numel() / 3
    name_mistake(ours.mean, {"the buffers don't move: in training they take a step": lambda: mean})
    name_mistake(
        ours.mean,
        {"momentum is the share of the new, not of the old": lambda: 0.1 * mean + 0.9 * new[0]},
    )
    expect_close(ours.mean, theirs.running_mean, "mean ← 0.9 · mean + 0.1 · the batch's")
    biased = 0.9 * var + 0.1 * new[1] * (n - 1) / n
    name_mistake(ours.var, {"the running variance divides by n − 1": lambda: biased})
    expect_close(ours.var, theirs.running_var, "var ← 0.9 · var + 0.1 · n/(n − 1) · σ²")


def _norm_gradients(ours: Any, theirs: Any, x: Tensor) -> None:
    """In training gradients flow through the statistics."""
    slope, found = draw(*x.shape, seed=9), []
    for one in (ours.train(), theirs.train()):
        given = x.clone().requires_grad_()
        answer = one(given)
        if not answer.requires_grad:
            raise Mistake("no gradient: is it computed under no_grad, or detached?")
        wanted = (given, one.weight, one.bias)
        found.append(torch.autograd.grad(answer, wanted, slope, allow_unused=True))
    for name, got, want in zip(("x", "weight", "bias"), *found, strict=True):
        if got is None:
            raise Mistake(f"no gradient reaches {name}")
        expect_close(got, want, f"the gradient to {name}: are the statistics detached?")


# look_inside


class _Overwrites(nn.Module):
    """Changes in place what its layer answered, and drops out in training."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act = nn.Linear(3, 4).double(), nn.ReLU(inplace=True)
        self.last = nn.Linear(4, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 5:
            raise RuntimeError("too long")
        return self.last(self.act(self.first(x)))


def _left(model: nn.Module) -> int:
    return sum(
        len(hooks)
        for one in model.modules()
        for hooks in (one._forward_hooks, one._forward_pre_hooks, one._backward_hooks)
    )


@checks.proves("look_inside")
def look_inside(module: Any) -> None:
    implementation = module.look_inside
    _callable(implementation)
    model, x = nn.Sequential(OrderedDict(body=_Overwrites(), end=nn.Identity())), draw(5, 3)
    body, names = model.body, ["body.first", "body.last"]
    with torch.no_grad():
        want = {"body.first": body.first(x), "body.last": model(x)}
    got = implementation(model, names, x)
    if _left(model):
        raise Mistake("a hook is left behind: remove() every handle")
    if not isinstance(got, dict):
        raise Mistake(f"a dict from name to answer was expected, {_kind(got)} came")
    if set(got) != set(names):
        raise Mistake(
            f"answers of {', '.join(names)} were asked for, {', '.join(map(str, got)) or 'none'} "
            "came; in a loop a closure sees the last name: bind it"
        )
    name_mistake(
        got["body.first"],
        {
            "an operation in place changed what was kept: clone it": (
                lambda: want["body.first"].relu()
            ),
            "all names have the last one's answer: bind the name in each closure": (
                lambda: want["body.last"]
            ),
        },
    )
    for name in names:
        expect_close(got[name], want[name], f"what {name} answers")
        if got[name].requires_grad:
            raise Mistake("what is kept belongs to a graph: detach it, or look under no_grad")
    _is_left_alone(implementation, model, x)
    for what, arguments in {
        "the model raises": (model, names, draw(6, 3)),
        "a name is unknown": (model, ["body.first", "body.nothing"], x),
    }.items():
        _raises_cleanly(implementation, what, arguments)


def _is_left_alone(implementation: Function, model: nn.Module, x: Tensor) -> None:
    for mode in (True, False):
        implementation(model.train(mode), ["body.first"], x)
        if model.training != mode:
            raise Mistake("training mode or evaluation: leave the model in the one it was in")
    calls: list[int] = []
    handle = model.body.register_forward_hook(lambda *_: calls.append(1))
    implementation(model, ["body"], x)
    if not _left(model):
        raise Mistake("a hook that was there before is gone: remove your own alone")
    handle.remove()
    if len(calls) != 1:
        raise Mistake(f"the model must read x once, it read {len(calls)} times")


def _raises_cleanly(implementation: Function, what: str, arguments: Any) -> None:
    try:
        implementation(*arguments)
    except Exception:
        if _left(arguments[0]):
            raise Mistake(f"where {what}, hooks are left behind: remove them in finally") from None
        return
    raise Mistake(f"where {what}, it must raise as well")


# adapter_kernels


@checks.proves("adapter_kernels")
def adapter_kernels(module: Any) -> None:
    implementation = module.adapter_kernels
    _callable(implementation)
    convolution = module.Convolution(2, 5, 3, 2, 1, 1).double()
    convolution.linear = LoraLinear(convolution.linear, 4, 6.0).double()
    with torch.no_grad():
        for i, one in enumerate((convolution.linear.A, convolution.linear.B)):
            one.copy_(draw(*one.shape, seed=i))
    a, b = convolution.linear.A.detach(), convolution.linear.B.detach()
    got = implementation(convolution)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mistake(f"two kernels were expected, {_kind(got)} came")
    if not all(isinstance(one, Tensor) for one in got):
        raise Mistake("two tensors were expected")
    down, up = (one.detach() for one in got)
    wanted = a.view(4, 2, 3, 3)
    name_mistake(
        down,
        {
            "channels come first in a window, then its rows and columns: (r, C, k, k)": (
                lambda: a.view(4, 3, 3, 2).permute(0, 3, 1, 2)
            ),
            "the factor alpha / rank belongs to the second kernel": lambda: 1.5 * wanted,
            "the kernel is turned round: a window is read as it lies": lambda: wanted.flip(2, 3),
            "rows and columns are swapped": lambda: wanted.mT,
        },
    )
    expect_close(down, wanted, "A's rows, each a window of (C, k, k)")
    kernel = b[:, :, None, None]
    name_mistake(
        up,
        {
            "the factor alpha / rank is missing": lambda: kernel,
            "is it multiplied by alpha alone?": lambda: 6 * kernel,
            "is it rank / alpha?": lambda: kernel / 1.5,
        },
    )
    expect_close(up, 1.5 * kernel, "alpha / rank times B, (out, r, 1, 1)")
    if any(one.grad_fn is None and not one.requires_grad for one in got):
        raise Mistake("the kernels have left the graph: don't detach them")


# GatedConvolution


@checks.proves("GatedConvolution.forward")
def gated_convolution(module: Any) -> None:
    implementation = module.GatedConvolution
    _class(implementation)
    module = implementation(6, 3).double()
    with torch.no_grad():
        for i, one in enumerate((module.enter.weight, module.leave.weight, module.kernel)):
            one.copy_(draw(*one.shape, seed=i))
    x = draw(2, 5, 6, seed=7)
    with torch.no_grad():
        got, want = module(x), _gated(module, x)
        name_mistake(got, _mistakes_of_gates(module, x))
        what = "leave((1 + b) ⊙ conv((1 + a) ⊙ v)), column i of the kernel for i steps back"
        expect_close(got, want, what)
        for t in (1, 2):  # shorter than the kernel
            expect_close(module(x[:, :t]), want[:, :t], "texts shorter than the kernel")
    given = x.clone().requires_grad_()
    answer = module(given)
    if not answer.requires_grad:
        raise Mistake("no gradient: is it computed under no_grad, or detached?")
    wanted = {"x": given, "kernel": module.kernel, "enter": module.enter.weight}
    wanted["leave"] = module.leave.weight
    slopes = torch.autograd.grad(answer.sum(), list(wanted.values()), allow_unused=True)
    for name, slope in zip(wanted, slopes, strict=True):
        if slope is None:
            raise Mistake(f"no gradient reaches {name}: is something detached?")


def _gated(module: Any, x: Tensor, shift: int = 0, flip: bool = False) -> Tensor:
    """By its definition, a loop over steps back; `shift` looks ahead, `flip` turns the kernel."""
    a, b, v = module.enter(x).chunk(3, -1)
    u, kernel = (1 + a) * v, module.kernel.flip(1) if flip else module.kernel
    mixed = torch.zeros_like(u)
    for t in range(u.shape[1]):
        for i in range(kernel.shape[1]):
            if 0 <= t - i + shift < u.shape[1]:
                mixed[:, t] += kernel[:, i] * u[:, t - i + shift]
    return module.leave((1 + b) * mixed)


def _mistakes_of_gates(module: Any, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    a, b, v = module.enter(x).chunk(3, -1)

    def mixed(u: Tensor) -> Tensor:
        past = F.pad(u.mT, (2, 0))
        return F.conv1d(past, module.kernel.flip(1)[:, None], groups=6).mT

    return {
        "F.conv1d doesn't turn the kernel round: column 0 is for the token itself, flip it": (
            lambda: _gated(module, x, flip=True)
        ),
        "it sees the future: pad k − 1 zeros on the left, and none on the right": (
            lambda: _gated(module, x, shift=1)
        ),
        "it sees the future: the padding is on the right": lambda: _gated(module, x, shift=2),
        "it sees the future: the padding is on both sides, and the kernel isn't flipped": (
            lambda: _gated(module, x, shift=1, flip=True)
        ),
        "the gate a is missing: the convolution is of (1 + a) ⊙ v": (
            lambda: module.leave((1 + b) * mixed(v))
        ),
        "the gate b is missing": lambda: module.leave(mixed((1 + a) * v)),
        "the gates start open: 1 + a and 1 + b": lambda: module.leave(b * mixed(a * v)),
        "the gates are confused: enter gives a, b and v in this order": (
            lambda: module.leave((1 + a) * mixed((1 + b) * v))
        ),
        "leave, the last matrix, is missing": lambda: (1 + b) * mixed((1 + a) * v),
        "the gates have an activation: here they only multiply": (
            lambda: module.leave(b.sigmoid() * mixed(a.sigmoid() * v))
        ),
    }
