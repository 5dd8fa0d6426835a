"""Check the exercises of LLM07 against the SVD, autograd, and models with misleading names.

Those of LoraLinear's methods are in layer_checks, those of LLM07+ in deeper_checks.
"""

from typing import Any

from labs.kit import Checks, Mistake, draw, expect_close, name_mistake
from labs.llm07_lora import deeper_checks, layer_checks
from labs.llm07_lora.check_helpers import Function, require_function, type_of

import torch
from torch import Tensor, nn

checks = Checks()

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


def low_rank(module: Any) -> None:
    """Check the product against the truncated SVD, and how the sizes are split."""
    implementation = module.low_rank
    require_function(implementation)
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
        raise Mistake(f"expected two tensors, A and B, got {type_of(got)}")
    a, b = got
    a_like = matrix.new_zeros(rank, matrix.shape[1])
    b_like = matrix.new_zeros(matrix.shape[0], rank)
    shapes = [factor.shape for factor in got if isinstance(factor, Tensor)]
    if shapes == [b_like.shape, a_like.shape] != [a_like.shape, b_like.shape]:
        raise Mistake("A and B are swapped: A is (rank, in), B is (out, rank)")
    expect_close(a, a_like, "A is (rank, in)", tolerance=torch.inf)
    expect_close(b, b_like, "B is (out, rank)", tolerance=torch.inf)
    return a, b


# freeze_base


class _Decay(nn.Module):
    """A layer without an adapter whose parameter has the name of one."""

    def __init__(self) -> None:
        super().__init__()
        self.A = nn.Parameter(draw(3))


def freeze_base(module: Any) -> None:
    implementation = module.freeze_base
    require_function(implementation)
    model = _model(module)
    model.add_module("decay", _Decay())
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
        ("decay", "is it by name? decay.A belongs to no adapter: check the module's type"),
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

TARGETS = ("q_proj", "down_proj", "v_proj")  # of the model below, which has another v_proj


class _Nested(nn.Module):
    """A model with names that nearly match, a layer inside another, and no linear `v_proj`."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(6, 4)
        self.q_proj_norm = nn.Linear(4, 4)
        self.mlp = nn.ModuleDict({"up_proj": nn.Linear(6, 9), "down_proj": nn.Linear(9, 6)})
        self.v_proj = nn.Embedding(5, 6)


def insert(module: Any) -> None:
    """Check which layers are replaced, by what, and that the base is frozen."""
    implementation = module.insert
    require_function(implementation)
    model = _Nested().double()
    linear = {"q_proj": model.q_proj, "mlp.down_proj": model.mlp["down_proj"]}
    got = implementation(model, TARGETS, 2, 6.0)
    if got is not model:
        raise Mistake(f"it must return the model that it changed, got {type_of(got)}")
    _expect_inserted(model, linear, module.LoraLinear)
    wanted = {f"{name}.{letter}" for name in linear for letter in "AB"}
    _expect_trainable(model, wanted, "after the insertion")
    _expect_inserted_once(implementation, model)
    _expect_targets_read_once(implementation, set(linear))
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


def _expect_targets_read_once(implementation: Function, names: set[str]) -> None:
    """Check that an iterator of targets, which can be read only once, gives the same layers."""
    model = _Nested().double()
    hint = "`targets` may be an iterator, which can be read only once: make a set of it first"
    try:
        implementation(model, iter(TARGETS), 2, 6.0)
    except ValueError as error:
        raise Mistake(hint) from error
    if set(_adapters(model)) != names:
        raise Mistake(hint)


# factor_gradients


def factor_gradients(module: Any) -> None:
    """Check both gradients against autograd's, through W + scale · B A."""
    implementation = module.factor_gradients
    require_function(implementation)
    g = draw(7, 5)
    weight = draw(7, 5, seed=1)
    a = draw(2, 5, seed=2).requires_grad_()
    b = draw(7, 2, seed=3).requires_grad_()
    scale = 3.0
    ((weight + scale * b @ a) * g).sum().backward()  # a loss whose gradient by W is G
    with torch.no_grad():
        got = implementation(g, a, b, scale)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake(f"expected two gradients, A's and B's, got {type_of(got)}")
    shapes = [part.shape for part in got if isinstance(part, Tensor)]
    if shapes == [b.shape, a.shape]:
        raise Mistake("the gradients are swapped: A's comes first")
    for name, part, factor in zip("AB", got, (a, b), strict=True):
        want: Any = factor.grad
        expect_close(part, want, f"{name}'s gradient has {name}'s shape", tolerance=torch.inf)
        name_mistake(
            part,
            {
                f"{name}: the factor scale is missing": lambda want=want: want / scale,
                f"{name}: it is divided by scale: multiply": lambda want=want: want / scale**2,
                f"{name}: the factor scale is there twice": lambda want=want: want * scale,
                f"{name}: this is the direction of a step: the gradient has no minus": (
                    lambda want=want: -want
                ),
            },
        )
        expect_close(part, want, f"expected autograd's gradient of {name}")


# adapter_state


def adapter_state(module: Any) -> None:
    implementation = module.adapter_state
    require_function(implementation)
    model = _model(module)
    transposed = model[0].q_proj
    transposed.A = nn.Parameter(transposed.A.detach().mT.contiguous().mT)  # the same numbers
    got = implementation(model)
    want = _state(model)
    _expect_state(got, want)
    for key, tensor in got.items():
        if tensor.requires_grad:
            raise Mistake(f"{key} still belongs to the graph: detach it")
        expect_close(tensor, want[key], f"{key} has other values than the model's")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    if any(not torch.equal(tensor, want[key]) for key, tensor in got.items()):
        raise Mistake("the saved tensors change when training continues: clone each tensor")
    for key, tensor in got.items():
        if not tensor.is_contiguous():
            raise Mistake(f"{key} isn't contiguous: safetensors can't save a transposed view")


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"base_model.model.{name}.lora_{letter}.weight": weight.detach().clone()
        for name, layer in _adapters(model).items()
        for letter, weight in (("A", layer.A), ("B", layer.B))
        if weight is not None
    }


def _expect_state(got: Any, want: dict[str, Tensor]) -> None:
    if not isinstance(got, dict):
        raise Mistake(f"expected a dict of tensors by name, got {type_of(got)}")
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
            raise Mistake(f"{key}: expected a tensor, got {type_of(tensor)}")
        if tensor.shape != want[key].shape:
            raise Mistake(f"{key} is {tuple(tensor.shape)}: A is (rank, in), B is (out, rank)")


for _part, _check in {
    "low_rank": low_rank,
    "LoraLinear.forward": layer_checks.forward,
    "LoraLinear.merge": layer_checks.merge,
    "freeze_base": freeze_base,
    "insert": insert,
    "factor_gradients": factor_gradients,
    "adapter_state": adapter_state,
    "first_update": deeper_checks.first_update,
    "quantize": deeper_checks.quantize,
    "DoraLinear.forward": deeper_checks.dora_linear,
}.items():
    checks.proves(_part)(_check)
