"""Check the exercises of LLM07 and LLM07+ against W + (α/r) B A in full, SVD, and peft's DoRA."""

from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, expect_close, name_mistake

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

checks = Checks()

Function = Callable[..., Any]


def _require_function(implementation: Any) -> None:
    if not callable(implementation):
        raise Mistake(f"expected a function, got {_type_of(implementation)}")


def _type_of(value: Any) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


# A model for the checks.


class _Block(nn.Module):
    """A block with misleading names: lora_gate is a base layer, adapters have no `lora`."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(6, 4)
        self.v_proj = nn.Linear(4, 6, bias=False)
        self.lora_gate = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)


def _model(module: Any, seed: int = 0, rank: int = 2) -> Any:
    """Return two blocks in float64 with adapters on q_proj and v_proj, all weights random."""
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
    return {name: layer for name, layer in model.named_modules() if hasattr(layer, "alpha")}


# low_rank


@checks.proves("low_rank")
def low_rank(module: Any) -> None:
    """Check the product against the truncated SVD, and how the sizes are split."""
    implementation = module.low_rank
    _require_function(implementation)
    matrix = draw(7, 5)
    rank = 2
    a, b = _factors(implementation, matrix, rank)
    u, sigma, vt = torch.linalg.svd(matrix, full_matrices=False)
    best = (u[:, :rank] * sigma[:rank]) @ vt[:rank]
    smallest = (u[:, -rank:] * sigma[-rank:]) @ vt[-rank:]
    squared = (u[:, :rank] * sigma[:rank].square()) @ vt[:rank]
    name_mistake(
        b @ a,
        {
            "these are the smallest directions: σ is sorted, largest first": lambda: smallest,
            "both factors contain σ, so their product contains σ²: use √σ in each": lambda: squared,
            "σ is missing: directions alone have no size": lambda: u[:, :rank] @ vt[:rank],
        },
    )
    expect_close(b @ a, best, "expected B @ A to be the best approximation of rank 2")
    if not torch.allclose(a.norm(dim=1), b.norm(dim=0)):
        raise Mistake("split each direction's size evenly: √σ in A, √σ in B")
    a, b = _factors(implementation, matrix, 5)
    expect_close(b @ a, matrix, "with all five directions, expected the matrix itself")


def _factors(implementation: Function, matrix: Tensor, rank: int) -> Any:
    """Return A (rank, in) and B (out, rank) after checking their shapes."""
    got = implementation(matrix.clone(), rank)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake(f"expected two tensors, A and B, got {_type_of(got)}")
    a, b = got
    a_like = matrix.new_zeros(rank, matrix.shape[1])
    b_like = matrix.new_zeros(matrix.shape[0], rank)
    shapes = [factor.shape for factor in got if isinstance(factor, Tensor)]
    if shapes == [b_like.shape, a_like.shape] != [a_like.shape, b_like.shape]:
        raise Mistake("A and B are swapped: A is (rank, in), B is (out, rank)")
    expect_close(a, a_like, "A is (rank, in)", tolerance=torch.inf)
    expect_close(b, b_like, "B is (out, rank)", tolerance=torch.inf)
    return a, b


# LoraLinear


@checks.proves("LoraLinear.forward")
def lora_linear(module: Any) -> None:
    layer = _layer(module.LoraLinear)
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


def _layer(implementation: Any) -> Any:
    if not isinstance(implementation, type):
        raise Mistake(f"expected a class, got {_type_of(implementation)}")
    layer: Any = implementation(nn.Linear(6, 4).double(), rank=2, alpha=6.0)
    with torch.no_grad():
        for i, weight in enumerate((layer.base.weight, layer.base.bias, layer.A, layer.B)):
            weight.copy_(draw(*weight.shape, seed=i))
    return layer


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


# merge and unmerge


@checks.proves("LoraLinear.merge")
def merge(module: Any) -> None:
    """Check the merged weight, the copy of the old one, and the refusal of a second merge."""
    for keep in (True, False):
        layer = _layer(module.LoraLinear)
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
        _expect_second_is_refused(layer, want)


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


def _expect_second_is_refused(layer: Any, want: Tensor) -> None:
    try:
        layer.merge()
    except RuntimeError:
        expect_close(layer.base.weight.detach(), want, "a refused merge must change nothing")
        return
    raise Mistake("a second merge adds the update twice: raise a RuntimeError")


@checks.proves("LoraLinear.unmerge")
def unmerge(module: Any) -> None:
    """Check the weight that comes back, with a copy and without, and that a layer refuses."""
    for keep in (True, False):
        layer = _layer(module.LoraLinear)
        parameter = layer.base.weight
        original = parameter.detach().clone()
        update = 3 * (layer.B @ layer.A).detach()
        with torch.no_grad():
            parameter += update
            if keep:
                parameter += 1e-6  # as rounding would; subtraction can't take it out
        layer.original = original.clone() if keep else None
        layer.merged = True
        merged = parameter.detach().clone()
        _call(layer.unmerge)
        _expect_same_parameter(layer, parameter)
        got = layer.base.weight.detach()
        mistakes = {
            "the weight hasn't changed": lambda merged=merged: merged,
            "the update is added a second time: subtract it": (
                lambda merged=merged, update=update: merged + update
            ),
            "a factor is missing: subtract self.delta(), not B A": (
                lambda merged=merged, update=update: merged - update / 3
            ),
        }
        name_mistake(got, mistakes)
        if keep and not torch.equal(got, original):
            raise Mistake("with a saved copy, the weight must come back bit for bit: copy_ it")
        expect_close(got, original, "expected the weight as it was before the merge")
        if layer.merged is not False:
            raise Mistake("set self.merged to False: else forward leaves the update out")
        if layer.original is not None:
            raise Mistake("set self.original to None: the copy isn't needed any more")
        _expect_unmerged_refuses(layer)


def _expect_unmerged_refuses(layer: Any) -> None:
    before = layer.base.weight.detach().clone()
    try:
        layer.unmerge()
    except RuntimeError:
        expect_close(layer.base.weight.detach(), before, "a refused unmerge must change nothing")
        return
    raise Mistake("it unmerges a layer that isn't merged: raise a RuntimeError")


# freeze_base


@checks.proves("freeze_base")
def freeze_base(module: Any) -> None:
    implementation = module.freeze_base
    _require_function(implementation)
    model = _model(module)
    model.requires_grad_(True)
    parameters = list(model.parameters())
    values = [parameter.detach().clone() for parameter in parameters]
    result = implementation(model)
    wanted = {f"{name}.{letter}" for name in _adapters(model) for letter in "AB"}
    _expect_trainable(model, wanted, "everything was trainable before")
    model.requires_grad_(False)
    implementation(model)
    _expect_trainable(model, wanted, "nothing was trainable before")
    if result is not None:
        raise Mistake("it must return nothing: it changes the model in place")
    pairs = zip(model.parameters(), parameters, strict=True)
    if any(now is not before for now, before in pairs):
        raise Mistake("the parameters are new objects: an optimizer would miss them")
    if not all(map(torch.equal, parameters, values)):
        raise Mistake("the weights have other values than before: change only requires_grad")


def _expect_trainable(model: nn.Module, wanted: set[str], when: str) -> None:
    found = {name for name, weight in model.named_parameters() if weight.requires_grad}
    if found == {name for name, _ in model.named_parameters()}:
        raise Mistake(f"{when}: now everything is trainable; freeze it all, then unfreeze A and B")
    if not found:
        raise Mistake(f"{when}: now nothing is trainable; unfreeze A and B")
    for part, message in (
        ("lora_gate", "is it by name? lora_gate is a base layer: check the module's type"),
        (".base.", "an adapter's own base layer is still trainable: only its A and B may be"),
        ("norm", "norms are still trainable: freeze everything, then unfreeze A and B"),
    ):
        if any(part in name for name in found):
            raise Mistake(f"{when}: {message}")
    for letter in "AB":
        if not any(name.endswith(f".{letter}") for name in found):
            raise Mistake(f"{when}: {letter} isn't trainable; both factors must be")
    if found != wanted:
        raise Mistake(f"{when}: wrong for {', '.join(sorted(found ^ wanted)[:3])}")


# insert


class _Nested(nn.Module):
    """A model with names that nearly match, a layer inside another, and no linear `v_proj`."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(6, 4)
        self.q_proj_norm = nn.Linear(4, 4)
        self.mlp = nn.ModuleDict({"up_proj": nn.Linear(6, 9), "down_proj": nn.Linear(9, 6)})
        self.v_proj = nn.Embedding(5, 6)


@checks.proves("insert")
def insert(module: Any) -> None:
    """Check which layers are replaced, by what, and that the base is frozen."""
    implementation = module.insert
    _require_function(implementation)
    model = _Nested().double()
    linear = {"q_proj": model.q_proj, "mlp.down_proj": model.mlp["down_proj"]}
    targets = iter(("q_proj", "down_proj", "v_proj"))  # can be read only once
    got = implementation(model, targets, 2, 6.0)
    if got is not model:
        raise Mistake(f"it must return the model that it changed, got {_type_of(got)}")
    _expect_inserted(model, linear, module.LoraLinear)
    wanted = {f"{name}.{letter}" for name in linear for letter in "AB"}
    _expect_trainable(model, wanted, "after the insertion")
    _expect_inserted_once(implementation, model)
    try:
        implementation(_Nested(), ("query",), 2, 6.0)
    except ValueError:
        return
    raise Mistake("the model has no such layer, but that isn't refused: raise a ValueError")


def _expect_inserted(model: Any, linear: dict[str, nn.Linear], kind: Any) -> None:
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, kind)}
    if not layers:
        raise Mistake("no layer was replaced: use set_submodule with the layer's name")
    if "q_proj_norm" in layers:
        raise Mistake("q_proj_norm isn't a target: compare the last part of the name exactly")
    if "mlp.up_proj" in layers:
        raise Mistake("up_proj wasn't a target, but it was replaced")
    if "v_proj" in layers:
        raise Mistake("v_proj is an embedding here: replace nn.Linear layers only")
    missing = sorted(set(linear) - set(layers))
    if missing:
        raise Mistake(f"{missing[0]} wasn't replaced: look at modules inside of modules, too")
    for name, layer in layers.items():
        if layer.base is not linear[name]:
            raise Mistake(f"{name}: the base must be the model's own layer, not a copy")
        if (layer.rank, layer.alpha) != (2, 6.0):
            raise Mistake(f"{name} has rank {layer.rank} and alpha {layer.alpha}: 2 and 6 expected")


def _expect_inserted_once(implementation: Function, model: Any) -> None:
    """Check that a second insertion leaves the adapters alone."""
    before = list(model.modules())
    implementation(model, ("q_proj", "down_proj"), 2, 6.0)
    if list(model.modules()) != before:
        raise Mistake("a layer got a second adapter: replace nn.Linear layers only")


# adapter_state


@checks.proves("adapter_state")
def adapter_state(module: Any) -> None:
    implementation = module.adapter_state
    _require_function(implementation)
    model = _model(module)
    got = implementation(model)
    want = _state(model)
    _expect_state(got, want)
    for key, tensor in got.items():
        if tensor.requires_grad:
            raise Mistake(f"{key} still belongs to the graph: detach it")
        expect_close(tensor, want[key], f"{key} has other values than the model's")
        if not tensor.is_contiguous():
            raise Mistake(f"{key} isn't contiguous: safetensors can't save a transposed view")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    if any(not torch.equal(tensor, want[key]) for key, tensor in got.items()):
        raise Mistake("the saved tensors change when training continues: clone each tensor")


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"base_model.model.{name}.lora_{letter}.weight": weight.detach().clone()
        for name, layer in _adapters(model).items()
        for letter, weight in (("A", layer.A), ("B", layer.B))
        if weight is not None
    }


def _expect_state(got: Any, want: dict[str, Tensor]) -> None:
    if not isinstance(got, dict):
        raise Mistake(f"expected a dict of tensors by name, got {_type_of(got)}")
    keys = {str(key) for key in got}
    if any(".base." in key for key in keys) or any("norm" in key for key in keys):
        raise Mistake("the base's weights are in it: an adapter is A and B alone")
    if keys and not any(key.startswith("base_model.model.") for key in keys):
        raise Mistake("peft's names begin with base_model.model.")
    if any(key.endswith((".A", ".B")) for key in keys):
        raise Mistake("peft calls them lora_A.weight and lora_B.weight")
    missing = sorted(set(want) - keys)
    if missing:
        raise Mistake(f"names are missing, first {missing[0]}: it needs a key for each A and B")
    extra = sorted(keys - set(want))
    if extra:
        raise Mistake(f"it has names that no A or B has, first {extra[0]}")
    for key, tensor in got.items():
        if not isinstance(tensor, Tensor):
            raise Mistake(f"{key}: expected a tensor, got {_type_of(tensor)}")
        if tensor.shape != want[key].shape:
            raise Mistake(f"{key} is {tuple(tensor.shape)}: A is (rank, in), B is (out, rank)")


# swap


@checks.proves("swap")
def swap(module: Any) -> None:
    implementation = module.swap
    _require_function(implementation)
    model = _model(module)
    first = _state(model)
    second = _state(_model(module, seed=1))
    given = {key: tensor.clone() for key, tensor in second.items()}
    base = [layer.base.weight.clone() for layer in _adapters(model).values()]
    try:
        old = implementation(model, given)
    except ValueError as error:
        raise Mistake(f"it refuses an adapter that fits: {error}") from None
    _expect_second_adapter(model, first, second, given)
    if not all(map(torch.equal, (layer.base.weight for layer in _adapters(model).values()), base)):
        raise Mistake("the base's weights have changed: only A and B belong to the adapter")
    _expect_state(old, first)
    if any(torch.equal(old[key], second[key]) for key in first):
        raise Mistake("it returns the new adapter: copy the old one before you overwrite it")
    with torch.no_grad():
        for layer in _adapters(model).values():
            layer.A.add_(1)
    if not _same(given, second):
        raise Mistake("training the model changes the dict: copy_ the values, don't share them")
    implementation(model, old)
    if not _same(_state(model), first):
        raise Mistake("swapped back, the model isn't what it was before")
    _expect_refusals(module)


def _expect_second_adapter(
    model: nn.Module, first: dict[str, Tensor], second: dict[str, Tensor], given: dict[str, Tensor]
) -> None:
    """Check that the model has the second adapter, and that the dict `given` is unchanged."""
    now = _state(model)
    _expect_state(now, first)
    if _same(now, first):
        raise Mistake("the model's adapter hasn't changed: copy the new values into A and B")
    wrong = [key for key, tensor in now.items() if not torch.equal(tensor, second[key])]
    for letter in "AB":
        if any(f"lora_{letter}" in key for key in wrong):
            raise Mistake(f"{letter} isn't the new adapter's, bit for bit")
    if not _same(given, second):
        raise Mistake("the dict that was passed in has changed")


def _same(got: dict[str, Any], want: dict[str, Tensor]) -> bool:
    """Return whether two states have the same names and values."""
    return got.keys() == want.keys() and all(
        isinstance(got[key], Tensor) and torch.equal(got[key], want[key]) for key in want
    )


def _expect_refusals(module: Any) -> None:
    """Check that unsuitable adapters are refused and leave the model unchanged."""
    implementation = module.swap
    good = _state(_model(module, seed=1))
    key = next(reversed(good))
    unsuitable = {
        "the adapter lacks a layer of the model": {k: v for k, v in good.items() if k != key},
        "the adapter has a layer that the model lacks": {
            **good,
            key.replace("v_", "x_"): good[key],
        },
        "the adapter has another rank": _state(_model(module, seed=1, rank=4)),
    }
    for problem, state in unsuitable.items():
        _expect_refusal(implementation, _model(module), state, problem)
    merged = _model(module)
    for layer in _adapters(merged).values():
        layer.merge()
    _expect_refusal(implementation, merged, good, "the model's adapter is merged")


def _expect_refusal(implementation: Function, model: Any, state: Any, problem: str) -> None:
    before = _state(model)
    try:
        implementation(model, state)
    except ValueError:
        if not _same(_state(model), before):
            raise Mistake(
                f"{problem}: it is refused, but some layers are already overwritten; "
                "compare names and shapes first"
            ) from None
        return
    except Exception as error:
        kind = type(error).__name__
        raise Mistake(f"{problem}: expected a ValueError, got {kind}") from None
    raise Mistake(f"{problem}, but it isn't refused: raise a ValueError")


# quantize


@checks.proves("quantize")
def quantize(module: Any) -> None:
    """Check codes and scales, block by block, also for a block of zeros."""
    implementation = module.quantize
    _require_function(implementation)
    levels = torch.tensor([-1.0, -0.5, 0.0, 0.25, 1.0], dtype=torch.float64)
    weight = draw(4, 6)
    weight[3] = 0.0  # two blocks of zeros
    got = implementation(weight.clone(), levels, 3)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake(f"expected codes and scales, got {_type_of(got)}")
    codes, scales = got
    blocks = weight.view(8, 3)
    if not isinstance(codes, Tensor) or codes.dtype != torch.uint8:
        raise Mistake("codes must be a tensor of uint8: a code is the index of a level")
    if codes.shape != weight.shape:
        raise Mistake(f"codes are {tuple(codes.shape)}: give them the shape of the matrix")
    want = blocks.abs().amax(1)
    mistakes = {
        "the scale is the largest value of a block: take the largest absolute value": (
            lambda: blocks.amax(1)
        ),
        "the scale is that of the entire matrix: each block has its own": (
            lambda: weight.abs().max().expand(8)
        ),
    }
    name_mistake(scales, mistakes)
    expect_close(scales, want, "expected the largest absolute value of each block, (blocks,)")
    _expect_codes(codes, blocks, want, levels)


def _expect_codes(codes: Tensor, blocks: Tensor, scales: Tensor, levels: Tensor) -> None:
    relative = blocks / scales.clamp_min(1e-12)[:, None]
    nearest = (relative[..., None] - levels).abs().argmin(-1)
    got = codes.view(nearest.shape).long()
    if torch.equal(got, nearest):
        return
    if (got[6:] != 2).any():
        raise Mistake("in a block of zeros every code must be that of the level 0")
    if torch.equal(got, (blocks[..., None] - levels).abs().argmin(-1)):
        raise Mistake("divide each block by its scale before you look for the nearest level")
    below = (relative[..., None] >= levels).sum(-1).clamp_min(1) - 1
    if torch.equal(got, below):
        raise Mistake("these are the levels below each number: take the nearest level")
    raise Mistake("a code isn't that of the nearest level")


# DoraLinear


@checks.proves("DoraLinear.forward")
def dora_linear(module: Any) -> None:
    """Check the output, the sizes of the rows, and the gradients."""
    layer = _layer(module.DoraLinear)
    with torch.no_grad():
        layer.magnitude.copy_(draw(4, seed=7).abs() + 0.5)
    x = draw(2, 5, 6, seed=9)
    weight, bias = layer.base.weight.detach(), layer.base.bias.detach()
    changed = weight + 3 * (layer.B @ layer.A).detach()  # alpha 6 over rank 2
    sizes = layer.magnitude.detach()
    norms = changed.norm(dim=1)
    columns = changed / changed.norm(dim=0)
    want = x @ (changed * (sizes / norms)[:, None]).mT + bias
    got = layer(x)
    mistakes = {
        "this is LoRA: the rows don't have the sizes in `magnitude`": lambda: x @ changed.mT + bias,
        "the rows are multiplied by `magnitude`, but not divided by their norms": (
            lambda: x @ (changed * sizes[:, None]).mT + bias
        ),
        "the norms are those of W alone: take them of W + ΔW": (
            lambda: x @ (changed * (sizes / weight.norm(dim=1))[:, None]).mT + bias
        ),
        "the norms are those of columns: each output has a row of W": (
            lambda: x @ (columns * sizes[:, None]).mT + bias
        ),
        "the bias is scaled, too: scale before you add it": (
            lambda: (x @ changed.mT + bias) * (sizes / norms)
        ),
        "the bias is missing": lambda: want - bias,
        "the bias is added twice: the base's output contains it": lambda: (
            (x @ changed.mT + bias) * (sizes / norms) + bias
        ),
    }
    name_mistake(got.detach(), mistakes)
    expect_close(got.detach(), want, "expected magnitude ÷ norm of each row, times (W + ΔW) x")
    _expect_dora_gradients(layer, got, x, changed)


def _expect_dora_gradients(layer: Any, got: Tensor, x: Tensor, changed: Tensor) -> None:
    """Check that the norms count as constants, and that sizes get a gradient."""
    wanted = (layer.A, layer.B, layer.magnitude)
    gradients = torch.autograd.grad(got.sum(), wanted, allow_unused=True)
    for name, gradient in zip(("A", "B", "magnitude"), gradients, strict=True):
        if gradient is None:
            raise Mistake(f"no gradient reaches {name}: what did you detach?")
    norms = changed.norm(dim=1)
    factor = (layer.magnitude.detach() / norms)[:, None]  # (out, 1)
    total = x.sum((0, 1))  # (in,)
    want = 3 * factor * (layer.A.detach() @ total)  # (out, r)
    hint = "the norms must count as constants in the backward pass: detach them"
    if not torch.allclose(gradients[1], want):
        raise Mistake(hint)
