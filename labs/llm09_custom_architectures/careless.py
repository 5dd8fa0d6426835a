"""Careless networks and careless loading in LLM09: what is lost, and what raises an error."""

import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from labs.kit import Run
from labs.llm09_custom_architectures.inspection import fates, forgotten, refusal, tied
from labs.llm09_custom_architectures.trap import Trap

import safetensors.torch
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn


def _layer(base: Any) -> Any:
    """Return a layer on a base class: a matrix, and a buffer that scales its output."""
    layer = base()
    layer.weight = nn.Parameter(torch.rand(4, 4))
    layer.register_buffer("scale", torch.rand(4))
    return layer


def network(base: Any, seed: int) -> Any:
    """Return three layers on a base class; one layer and a tensor aren't registered."""
    torch.manual_seed(seed)
    model = base()
    model.first = _layer(base)
    model.last = _layer(base)
    model.last.weight = model.first.weight  # tied
    model.layers = [_layer(base)]
    model.shift = torch.rand(4)
    return model


def registered(base: Any, seed: int) -> Any:
    """Return the same network with everything registered."""
    model = network(base, seed)
    layers = model.layers
    shift = model.shift
    del model.shift  # a name can't be a plain attribute and a buffer
    model.layers = nn.ModuleList(layers)
    model.register_buffer("shift", shift)
    return model


def compute(model: Any, x: Tensor) -> Tensor:
    """Apply the three layers and the shift, (B, 4) -> (B, 4)."""
    for layer in (model.first, model.layers[0], model.last):
        x = x @ layer.weight * layer.scale
    return x + model.shift


def check_names(run: Run, module: Any) -> None:
    """Check that a base class registers what nn.Module does, and what nn.Module forgets."""
    ours = network(module, run.seed)
    theirs = network(nn.Module, run.seed)
    saved = ours.state_dict()
    expected = theirs.state_dict()
    run.check("names in our state", [*saved], equals=[*expected], decides=True)
    learned = [name for name, _ in ours.named_parameters()]
    expected_learned = [name for name, _ in theirs.named_parameters()]
    run.check("names of our parameters", learned, equals=expected_learned, decides=True)
    pairs = zip(saved.values(), expected.values(), strict=True)
    run.check("our tensors equal theirs", all(torch.equal(a, b) for a, b in pairs), equals=True)
    lost = ["layers.0.weight", "layers.0.scale", "shift"]
    run.check("forgotten", forgotten(theirs), equals=lost, decides=True)


def check_fates(run: Run) -> None:
    """Check for each kind of tensor whether nn.Module learns, converts and saves it."""
    model = network(nn.Module, run.seed)
    model.register_buffer("table", torch.rand(4), persistent=False)
    facts = fates(model)
    kinds = {
        "a parameter": "first.weight",
        "a buffer": "first.scale",
        "a buffer that isn't persistent": "table",
        "a parameter in a list": "layers.0.weight",
        "a plain tensor": "shift",
    }
    columns = ["", "learned", "converted by double()", "in state_dict()"]
    rows = [[kind, *facts[path]] for kind, path in kinds.items()]
    run.table("What nn.Module does with five tensors", columns, rows)
    shown = [" ".join(facts[path]) for path in kinds.values()]
    wanted = ["yes yes yes", "no yes yes", "no yes no", "no no no", "no no no"]
    run.check("the five rows", shown, equals=wanted, decides=True)


@torch.no_grad()
def check_loading(run: Run) -> float:
    """Check what a saved and loaded network computes.

    Returns:
        The careless network's mean error, relative to the mean size of its outputs.
    """
    x = torch.rand(8, 4)
    errors: dict[str, float] = {}
    shares: dict[str, float] = {}
    for name, make in (("careless", network), ("registered", registered)):
        saved = make(nn.Module, run.seed)
        loaded = make(nn.Module, run.seed + 1)
        raised = refusal(partial(loaded.load_state_dict, saved.state_dict()))
        run.check(f"{name}: loading raises", raised, equals="nothing", decides=True)
        expected = compute(saved, x)
        gaps = (compute(loaded, x) - expected).abs()
        errors[name] = gaps.max().item()
        shares[name] = (gaps.mean() / expected.abs().mean()).item()
    because = "what was lost has the size of the outputs"
    what = "careless: output after loading − before"
    run.check(what, errors["careless"], at_least=1e-2, because=because, decides=True)
    what = "registered: output after loading − before"
    run.check(what, errors["registered"], at_most=0, because="the same numbers", decides=True)
    return shares["careless"]


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))


@torch.no_grad()
def check_saving(run: Run) -> None:
    """Check that a model comes back from a file, and what happens to tied tensors there."""
    x = torch.rand(8, 4)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        model = _mlp()
        save_file(model.state_dict(), file)
        fresh = _mlp()
        what = "a new network: output − that of the saved one"
        because = "two draws of random weights"
        before = (fresh(x) - model(x)).abs().max()
        run.check(f"{what}, before loading", before, at_least=1e-2, because=because, decides=True)
        fresh.load_state_dict(load_file(file))
        error = (fresh(x) - model(x)).abs().max()
        because = "the same numbers"
        run.check(f"{what}, after loading", error, at_most=0, because=because, decides=True)
        tying = registered(nn.Module, run.seed)
        raised = refusal(partial(save_file, tying.state_dict(), file))
        run.check("tied tensors, save_file: raises", raised, equals="RuntimeError")
        save_model(tying, str(file))
        again = registered(nn.Module, run.seed + 1)
        load_model(again, file)
        error = (compute(again, x) - compute(tying, x)).abs().max()
        what = "tied tensors, save_model and load_model: output after − before"
        run.check(what, error, at_most=0, because="the same numbers")
        run.check("and they are still tied", tied(again), equals=tied(tying))


def check_prefix(run: Run, load_partial: Callable[..., Any]) -> str:
    """Check what raises an error for names with another prefix, and for another shape.

    Returns:
        The names that our loader loads beside another head.
    """
    state = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)).state_dict()
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    fresh = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    before = fresh.state_dict()["0.weight"].clone()
    raised = refusal(lambda: fresh.load_state_dict(prefixed))
    run.check("wrong prefix, strict: raises", raised, equals="RuntimeError")
    raised = refusal(lambda: fresh.load_state_dict(prefixed, strict=False))
    run.check("wrong prefix, not strict: raises", raised, equals="nothing", decides=True)
    same = torch.equal(fresh.state_dict()["0.weight"], before)
    run.check("the weights are as before", same, equals=True, decides=True)
    raised = refusal(lambda: load_partial(fresh, prefixed))
    run.check("wrong prefix, our loader: raises", raised, equals="ValueError", decides=True)
    wider = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 6))
    raised = refusal(lambda: wider.load_state_dict(state, strict=False))
    run.check("another head, not strict: raises", raised, equals="RuntimeError")
    loaded = load_partial(wider, state).loaded
    run.check("another head, our loader: loaded", loaded, equals=["0.bias", "0.weight"])
    same = torch.equal(wider.state_dict()["0.weight"], state["0.weight"])
    run.check("and its body is that of the state", same, equals=True)
    return " and ".join(loaded)


def check_trap(run: Run) -> str:
    """Check which ways to open a file let its code run; return the errors of the others."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        file = io.BytesIO()
        torch.save({"weight": torch.zeros(3), "more": Trap(made)}, file)
        data = file.getvalue()
        first = refusal(lambda: torch.load(io.BytesIO(data), weights_only=True))
        run.check("torch.load of the trap raises", first, equals="UnpicklingError", decides=True)
        second = refusal(lambda: safetensors.torch.load(data))
        because = "it isn't a safetensors file, and any other file is refused"
        what = "safetensors' load of it raises"
        run.check(what, second, equals="SafetensorError", because=because)
        run.check("its code has run", made.exists(), equals=False, decides=True)
        torch.load(io.BytesIO(data), weights_only=False)
        what = "its code has run, with weights_only=False"
        run.check(what, made.exists(), equals=True, decides=True)
    return f"{first} and {second}"
