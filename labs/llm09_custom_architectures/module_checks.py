"""Check the exercises of LLM09 on modules: the mini-module, partial loading, looking inside.

`checks` lists them.
"""

from collections import OrderedDict
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

import torch
from torch import Tensor, nn

Function = Callable[..., Any]


# Module


def _same_tree(base: Any) -> Any:
    """Build a tree of three levels with buffers and a tied tensor on a base class."""
    root = base()
    root.child = base()
    root.child.inner = base()
    root.last = base()
    for seed, module in enumerate((root.child.inner, root.last, root.child, root)):
        module.register_buffer("scale", draw(3, seed=seed))
        module.weight = nn.Parameter(draw(3, seed=10 + seed))
    root.last.weight = root.child.inner.weight
    return root


def module_setattr(module: Any) -> None:
    """Check where each kind of value ends up, and what is refused."""
    implementation = module.Module
    require_class(implementation)
    made = implementation()
    weight = nn.Parameter(torch.ones(2))
    made.weight = weight
    if made._parameters.get("weight") is not weight:
        raise Mistake("a Parameter belongs into self._parameters, under its name")
    inner = implementation()
    made.inner = inner
    if made._modules.get("inner") is not inner:
        raise Mistake("a Module belongs into self._modules, under its name")
    made.plain = torch.ones(2)
    made.number = 3
    if made._parameters.keys() | made._buffers.keys() | made._modules.keys() != {"weight", "inner"}:
        raise Mistake("a plain tensor is registered: it is a plain attribute, in self.__dict__")
    if made.__dict__.get("number") != 3 or "plain" not in made.__dict__:
        raise Mistake("a plain value is lost: put it into self.__dict__")
    _expect_buffer_stays(implementation)
    _expect_one_home(implementation)
    _expect_refusal_of_plain_values(implementation)


def _expect_buffer_stays(implementation: Any) -> None:
    made = implementation()
    made.register_buffer("scale", torch.ones(2))
    new = torch.zeros(2)
    made.scale = new
    if "scale" in made.__dict__:
        raise Mistake("a tensor for the name of a buffer replaces the buffer: it is no attribute")
    if made._buffers.get("scale") is not new:
        raise Mistake("a tensor for the name of a buffer must replace the buffer")


def _expect_one_home(implementation: Any) -> None:
    """Check that a name which moves to another dictionary leaves the first one."""
    made = implementation()
    made.part = 1
    made.part = nn.Parameter(torch.ones(2))
    if "part" in made.__dict__:
        raise Mistake(
            "a plain attribute hides a parameter of the same name: remove it from self.__dict__"
        )
    made.register_buffer("table", torch.ones(2))
    made.table = implementation()
    if "table" in made._buffers or "table" not in made._modules:
        raise Mistake("a name has one home: remove it from the other dictionaries")
    made.register_buffer("scale", torch.ones(2))
    made.scale = nn.Parameter(torch.ones(2))
    if "scale" in made._buffers or "scale" not in made._parameters:
        raise Mistake("a Parameter for the name of a buffer: the name has one home, parameters")
    made.inner = 1
    made.inner = implementation()
    if "inner" in made.__dict__:
        raise Mistake("a plain attribute hides a module of the same name: remove it from __dict__")
    made.inner = nn.Parameter(torch.ones(2))
    if "inner" in made._modules:
        raise Mistake("a Parameter for the name of a module: the name has one home, parameters")
    try:
        made.inner = implementation()
    except TypeError:
        raise Mistake("refuse only plain values: a Module may take a parameter's name") from None
    if "inner" in made._parameters:
        raise Mistake("a Module for the name of a parameter: the name has one home, modules")


def _expect_refusal_of_plain_values(implementation: Any) -> None:
    for what, registered in (("parameter", nn.Parameter(torch.ones(2))), ("module", None)):
        for plain, value in (("tensor", torch.zeros(2)), ("number", 3)):
            made = implementation()
            made.part = implementation() if registered is None else registered
            replaced = f"a {plain} replaces a {what}, which is then no longer registered"
            replace = partial(setattr, made, "part", value)
            require_error(replace, TypeError, f"a {plain} for a {what}", replaced)


def named_tensors(module: Any) -> None:
    """Check paths and tensors of a tree of three levels against nn.Module's state."""
    implementation = module.Module
    require_class(implementation)
    tree = _same_tree(implementation)
    got = tree.named_tensors()
    if got is None or isinstance(got, Tensor | str):
        raise Mistake(f"expected an iterator of paths and tensors, got {type_of(got)}")
    pairs = list(got)
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise Mistake("yield pairs: the path and the tensor")
    want = list(_same_tree(nn.Module).state_dict(keep_vars=True).items())
    _name_paths([path for path, _ in pairs], [path for path, _ in want])
    for (path, tensor), (_, other) in zip(pairs, want, strict=True):
        if not isinstance(tensor, Tensor) or not torch.equal(tensor, other):
            raise Mistake(f"{path} has the values of another tensor")
    if dict(pairs)["weight"] is not tree.weight:
        raise Mistake("yield the tensor itself, not a copy: the optimizer must change it")
    prefixed = [path for path, _ in tree.named_tensors("model.")]
    if prefixed != [f"model.{path}" for path, _ in want]:
        raise Mistake("with a prefix, each path must begin with it")


def _name_paths(got: list[Any], want: list[str]) -> None:
    """Name the mistake in a list of paths."""
    if got == want:
        return
    missing = sorted(set(want) - set(got))
    if any("scale" in path for path in missing) and not any("scale" in str(path) for path in got):
        raise Mistake("the buffers are missing: they belong to the state, too")
    if set(got) == {"weight", "scale"} and len(got) > 2:
        raise Mistake("the paths lack the names of the modules: pass a longer prefix on")
    if not any("." in str(path) for path in got):
        raise Mistake("the submodules' tensors are missing: each submodule yields its own")
    if missing == ["last.weight"]:
        raise Mistake("a tied tensor must come with each of its paths")
    if "child.inner.weight" in missing and "child.weight" in got:
        raise Mistake("the tree is deeper: a submodule of a submodule is missing, or its path is")
    if sorted(map(str, got)) == sorted(want):
        raise Mistake(
            "another order: a module's parameters, then its buffers, then its submodules in turn"
        )
    raise Mistake(f"expected the paths {', '.join(want)}; got {', '.join(map(str, got))}")


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


def load_partial(module: Any) -> None:
    """Check what is loaded and reported from a state that fits in part."""
    implementation = module.load_partial
    require_function(implementation)
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
        raise Mistake(f"expected four lists of names, got {type_of(got)}")
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
            raise Mistake(f"{name} must be a list, got {type_of(names)}")
        if names != want[name] and sorted(map(str, names)) == want[name]:
            raise Mistake(f"{name} must be sorted")
        if names != want[name]:
            raise Mistake(f"{name}: expected {want[name]}, got {names}")


def _expect_error_if_nothing_fits(implementation: Function) -> None:
    state = _Small().state_dict()
    states = {
        "every name has another prefix": {f"module.{name}": state[name] for name in state},
        "every name matches, but no shape does": {name: state[name][None] for name in state},
    }
    for why, other in states.items():
        load = partial(implementation, _Small(), other)
        require_error(load, ValueError, "if nothing fits", f"{why}, so nothing is loaded")


# look_inside


class _Overwrites(nn.Module):
    """A network that changes its first layer's output in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4, bias=False)
        # Always the same: random outputs can all be positive, and ReLU then changes nothing.
        self.first.weight = nn.Parameter(draw(4, 3, seed=1))
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


def look_inside(module: Any) -> None:
    """Check the stored outputs, and that the model is as it was, even after errors."""
    implementation = module.look_inside
    require_function(implementation)
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
        raise Mistake(f"expected a dict of outputs by name, got {type_of(got)}")
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
