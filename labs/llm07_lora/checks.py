"""What proves the parts of LLM07 right. References: W + (α/r) B A in full, and PyTorch's SVD."""

from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, expect_close, name_mistake

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

checks = Checks()

Function = Callable[..., Any]


class _Block(nn.Module):
    """Names that mislead: a base layer called lora_gate, and adapters in places without `lora`."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(6, 4), nn.Linear(4, 6, bias=False)
        self.lora_gate, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)


def _callable(implementation: Any) -> None:
    if not callable(implementation):
        raise Mistake(f"a function was expected, a {type(implementation).__name__} came")


def _model(module: Any, seed: int = 0, rank: int = 2) -> Any:
    """Return two blocks with the module's adapters on q_proj and v_proj, weights random, float64."""
    layer = module.LoraLinear
    model = nn.Sequential(_Block(), _Block())
    for block in model:
        block.q_proj = layer(block.q_proj, rank, 3 * rank)
        block.v_proj = layer(block.v_proj, rank, 3 * rank)
    with torch.no_grad():
        for i, weight in enumerate(model.double().parameters()):
            weight.copy_(draw(*weight.shape, seed=100 * seed + i) / 2)
    return model


def _adapters(model: nn.Module) -> dict[str, Any]:
    return {name: one for name, one in model.named_modules() if hasattr(one, "alpha")}


@checks.proves("LoraLinear.forward")
def lora_linear(module: Any) -> None:
    implementation = module.LoraLinear
    layer = _layer(implementation)
    x = draw(2, 5, 6, seed=9)
    w, bias, a, b = layer.base.weight, layer.base.bias, layer.A, layer.B
    low, plain = x @ a.mT @ b.mT, x @ w.mT + bias
    want = (plain + 3 * low).detach()  # alpha 6 over rank 2
    with torch.no_grad():
        got = layer(x)
        name_mistake(
            got,
            {
                "the update isn't added to what the base gives": lambda: plain,
                "the base's own answer is missing": lambda: 3 * low,
                "the factor alpha / rank is missing": lambda: plain + low,
                "is it multiplied by alpha alone? The factor is alpha / rank": lambda: (
                    plain + 6 * low
                ),
                "is it rank / alpha? The factor is alpha / rank": lambda: plain + low / 3,
                "is it alpha / √rank? That is another method's: here alpha / rank": (
                    lambda: plain + 6 / 2**0.5 * low
                ),
                "the bias is scaled or added twice: only B A x has the factor": (
                    lambda: plain + 3 * low + bias
                ),
            },
        )
        expect_close(got, want, "W x + b, and alpha / rank times B (A x)")
        layer.merged = True  # as after merge(): the base has it
        got = layer(x)
        name_mistake(
            got, {"merged, the update is in the base's weight: it is added twice": lambda: want}
        )
        expect_close(got, plain.detach(), "merged, the base's answer is the answer")
        layer.merged = False
    _gradients_reach(layer, x)
    with _MadeOf(layer.base.weight) as watch:
        layer(x)
    if watch.made:
        raise Mistake(f"it makes a matrix of {w.shape[0]} × {w.shape[1]}: first A x, then B (A x)")


class _MadeOf(TorchDispatchMode):
    """Sees whether a matrix of a weight's shape is made that isn't that weight."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.made = weight, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        shapes = (self.weight.shape, self.weight.mT.shape)
        if isinstance(out, Tensor) and out.shape in shapes:
            self.made |= out.data_ptr() != self.weight.data_ptr()
        return out


def _layer(implementation: Any) -> Any:
    if not isinstance(implementation, type):
        raise Mistake(f"a class was expected, a {type(implementation).__name__} came")
    layer = implementation(nn.Linear(6, 4).double(), rank=2, alpha=6.0)
    with torch.no_grad():
        for i, weight in enumerate((layer.base.weight, layer.base.bias, layer.A, layer.B)):
            weight.copy_(draw(*weight.shape, seed=i))
    return layer


def _gradients_reach(layer: Any, x: Tensor) -> None:
    x = x.clone().requires_grad_()
    answer = layer(x)
    if not answer.requires_grad:
        raise Mistake("no gradient: is it computed under no_grad, or detached?")
    grads = torch.autograd.grad(answer.sum(), (layer.A, layer.B, x), allow_unused=True)
    for name, grad in zip(("A", "B", "x"), grads, strict=True):
        if grad is None:
            raise Mistake(f"no gradient reaches {name}: is something detached, or .data used?")
    want = (layer.base.weight + 3 * layer.B @ layer.A).detach().sum(0)  # of each token
    expect_close(grads[2], want.expand_as(x).contiguous(), "the gradient to x, through both paths")


@checks.proves("freeze_base")
def freeze_base(module: Any) -> None:
    implementation = module.freeze_base
    _callable(implementation)
    model = _model(module)
    model.requires_grad_(True)
    before = list(model.parameters())
    numbers = [one.detach().clone() for one in before]
    answer = implementation(model)
    wanted = {f"{name}.{letter}" for name in _adapters(model) for letter in "AB"}
    _trains(model, wanted, "after everything could be trained")
    model.requires_grad_(False)
    implementation(model)
    _trains(model, wanted, "after nothing could be trained")
    if answer is not None:
        raise Mistake("nothing is to be returned: the model is changed in place")
    if any(one is not was for one, was in zip(model.parameters(), before, strict=True)):
        raise Mistake("these are other parameters than before: an optimizer would miss the new")
    if not all(map(torch.equal, before, numbers)):
        raise Mistake("the weights have other numbers than before: only requires_grad is to change")


def _trains(model: nn.Module, wanted: set[str], when: str) -> None:
    found = {name for name, weight in model.named_parameters() if weight.requires_grad}
    told = f"{when}, "
    if found == {name for name, _ in model.named_parameters()}:
        raise Mistake(f"{told}everything can still be trained: freeze it all, then thaw A and B")
    if not found:
        raise Mistake(f"{told}nothing can be trained: A and B must be thawed again")
    for kind, message in (
        ("lora_gate", "is it by name? lora_gate is a base layer: look at the module's type"),
        (".base.", "an adapter's own base layer can still be trained: only its A and B may"),
        ("norm", "norms can still be trained: freeze everything, then thaw A and B"),
    ):
        if any(kind in name for name in found):
            raise Mistake(f"{told}{message}")
    for letter in "AB":
        if not any(name.endswith(f".{letter}") for name in found):
            raise Mistake(f"{told}{letter} can't be trained: both factors must be")
    if found != wanted:
        raise Mistake(f"{told}these are wrong: {', '.join(sorted(found ^ wanted)[:3])}")


@checks.proves("adapter_state")
def adapter_state(module: Any) -> None:
    implementation = module.adapter_state
    _callable(implementation)
    model = _model(module)
    got = implementation(model)
    want = _state(model)
    _is_state(got, want)
    for key, tensor in got.items():
        if tensor.requires_grad:
            raise Mistake(f"{key} still belongs to the graph: detach it")
        expect_close(tensor, want[key], f"{key} has other numbers than the model's")
        if not tensor.is_contiguous():
            raise Mistake(f"{key} isn't contiguous: safetensors can't save a transposed view")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    if any(not torch.equal(tensor, want[key]) for key, tensor in got.items()):
        raise Mistake("what was saved changes when training goes on: clone each tensor")


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"base_model.model.{name}.lora_{letter}.weight": weight.detach().clone()
        for name, layer in _adapters(model).items()
        for letter, weight in (("A", layer.A), ("B", layer.B))
        if weight is not None
    }


def _is_state(got: Any, want: dict[str, Tensor]) -> None:
    if not isinstance(got, dict):
        raise Mistake(f"a dict from name to tensor was expected, a {type(got).__name__} came")
    keys = {str(key) for key in got}
    if any(".base." in key for key in keys) or any("norm" in key for key in keys):
        raise Mistake("the base's weights are in it: an adapter is A and B alone")
    if keys and not any(key.startswith("base_model.model.") for key in keys):
        raise Mistake("peft's names begin with base_model.model.")
    if any(key.endswith((".A", ".B")) for key in keys):
        raise Mistake("peft calls them lora_A.weight and lora_B.weight")
    if keys != set(want):
        missing = sorted(set(want) - keys) or sorted(keys - set(want))
        raise Mistake(f"names missing or too many, {missing[0]} first; a key for each A and B")
    for key, tensor in got.items():
        if not isinstance(tensor, Tensor):
            raise Mistake(f"{key}: a tensor was expected, a {type(tensor).__name__} came")
        if tensor.shape != want[key].shape:
            raise Mistake(f"{key} is {tuple(tensor.shape)}: A is (rank, in), B is (out, rank)")


@checks.proves("swap")
def swap(module: Any) -> None:
    implementation = module.swap
    _callable(implementation)
    model, other = _model(module), _model(module, seed=1)
    first, second = _state(model), _state(other)
    given = {key: one.clone() for key, one in second.items()}
    base = [layer.base.weight.clone() for layer in _adapters(model).values()]
    try:
        old = implementation(model, given)
    except ValueError as error:
        raise Mistake(f"an adapter that fits is refused: {error}") from None
    _is_state(_state(model), first)
    if all(torch.equal(one, first[key]) for key, one in _state(model).items()):
        raise Mistake("the model's adapter is what it was: copy the new numbers into A and B")
    for letter in "AB":
        wrong = [k for k, one in _state(model).items() if not torch.equal(one, second[k])]
        if any(f"lora_{letter}" in key for key in wrong):
            raise Mistake(f"{letter} isn't the new adapter's, bit for bit")
    if not _same(given, second):
        raise Mistake("the dict that was given has changed")
    if not all(map(torch.equal, (one.base.weight for one in _adapters(model).values()), base)):
        raise Mistake("the base's weights have changed: only A and B are the adapter's")
    _is_state(old, first)
    if any(torch.equal(old[key], second[key]) for key in first):
        raise Mistake("what came back is the new adapter: keep a copy before you overwrite it")
    with torch.no_grad():
        for layer in _adapters(model).values():
            layer.A.add_(1)
    if not _same(given, second):
        raise Mistake("training the model changes the dict: copy_ the numbers, don't share them")
    implementation(model, old)
    if any(not torch.equal(one, first[key]) for key, one in _state(model).items()):
        raise Mistake("swapped back, the model isn't what it was before")
    _refusals(module)


def _same(got: dict[str, Any], want: dict[str, Tensor]) -> bool:
    """The same names, and to each the same numbers."""
    return got.keys() == want.keys() and all(
        isinstance(got[key], Tensor) and torch.equal(got[key], want[key]) for key in want
    )


def _refusals(module: Any) -> None:
    """Check that unsuitable adapters are refused and leave the model unchanged."""
    implementation = module.swap
    good = _state(_model(module, seed=1))
    key = next(reversed(good))
    hostile = {
        "a layer of the model isn't in the adapter": {k: v for k, v in good.items() if k != key},
        "the adapter has a layer that the model lacks": {
            **good,
            key.replace("v_", "x_"): good[key],
        },
        "the adapter has another rank": _state(_model(module, seed=1, rank=4)),
    }
    for what, state in hostile.items():
        _refused(implementation, _model(module), state, what)
    merged = _model(module)
    for layer in _adapters(merged).values():
        layer.merge()
    _refused(implementation, merged, good, "the model's adapter is merged")


def _refused(implementation: Function, model: Any, state: Any, what: str) -> None:
    before = _state(model)
    try:
        implementation(model, state)
    except ValueError:
        if any(not torch.equal(one, before[key]) for key, one in _state(model).items()):
            raise Mistake(f"{what}: refused, but half of it is written; compare first") from None
        return
    except Exception as error:
        raise Mistake(f"{what}: a ValueError was expected, {type(error).__name__} came") from None
    raise Mistake(f"{what}, and it isn't refused")


@checks.proves("low_rank")
def low_rank(module: Any) -> None:
    implementation = module.low_rank
    delta, rank, alpha = draw(7, 5), 2, 6.0
    a, b = _factors(implementation, delta, rank, alpha)
    u, sigma, vt = torch.linalg.svd(delta, full_matrices=False)
    best = (u[:, :rank] * sigma[:rank]) @ vt[:rank]
    name_mistake(
        b @ a,
        {
            "the layer will multiply by alpha / rank: divide by it first": lambda: best,
            "multiplied by alpha / rank, and the layer does so again: divide": lambda: 3 * best,
            "divided by alpha / rank in each factor: it counts twice; take its root": (
                lambda: best / 9
            ),
            "divided by alpha alone: the layer's factor is alpha / rank": lambda: best / 6,
            "the smallest directions are kept: σ comes sorted, largest first": (
                lambda: (u[:, -rank:] * sigma[-rank:]) @ vt[-rank:] / 3
            ),
            "σ is in both factors: its square comes out; √σ in each": (
                lambda: (u[:, :rank] * sigma[:rank].square()) @ vt[:rank] / 3
            ),
            "σ is missing: directions alone have no size": lambda: u[:, :rank] @ vt[:rank] / 3,
        },
    )
    expect_close(b @ a * 3, best, "(alpha / rank) B A is the best approximation of that rank")
    if not torch.allclose(a.norm(dim=1), b.norm(dim=0)):
        raise Mistake("each direction's size must be split evenly: √σ in A, √σ in B")
    a, b = _factors(implementation, delta, 5, 5.0)
    expect_close(b @ a, delta, "all directions give ΔW itself")


def _factors(implementation: Function, delta: Tensor, rank: int, alpha: float) -> Any:
    """A (rank, in) and B (out, rank), of whatever numbers."""
    _callable(implementation)
    got = implementation(delta.clone(), rank, alpha)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake(f"two tensors were expected, A and B; a {type(got).__name__} came")
    a, b = got
    want_a, want_b = delta.new_zeros(rank, delta.shape[1]), delta.new_zeros(delta.shape[0], rank)
    shapes = [one.shape for one in got if isinstance(one, Tensor)]
    if shapes == [want_b.shape, want_a.shape] != [want_a.shape, want_b.shape]:
        raise Mistake("A and B are swapped: A is (rank, in), B is (out, rank)")
    expect_close(a, want_a, "A is (rank, in)", tolerance=torch.inf)
    expect_close(b, want_b, "B is (out, rank)", tolerance=torch.inf)
    return a, b
