"""Look at a module: its parameters, its forgotten and tied tensors, its hooks, its errors."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn


def parameters(model: nn.Module) -> int:
    """Return the number of learned parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def tensors_in(name: str, value: Any) -> Iterator[str]:
    """Yield the path of every tensor in a value: in modules, lists, tuples and dicts too."""
    if isinstance(value, Tensor):
        yield name
    elif isinstance(value, nn.Module):
        yield from tensors_in(name, dict(value.state_dict()))
    elif isinstance(value, list | tuple | dict):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors_in(f"{name}.{key}", item)


def forgotten(module: nn.Module) -> list[str]:
    """Return the paths of unregistered tensors in attributes of a module and its submodules."""
    return [
        path.removeprefix(".")
        for owner, submodule in module.named_modules()
        for name, value in vars(submodule).items()
        if not name.startswith("_")  # nn.Module's own dictionaries
        for path in tensors_in(f"{owner}.{name}", value)
    ]


def tied(module: nn.Module) -> list[list[str]]:
    """Return the groups of names that share one memory."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.state_dict().items():
        names.setdefault(tensor.data_ptr(), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def hooks(model: nn.Module) -> int:
    """Return the number of forward hooks on a model's modules."""
    return sum(len(module._forward_hooks) for module in model.modules())


def refusal(action: Callable[[], Any]) -> str:
    """Return the type of the error that an action raises, or "nothing"."""
    try:
        action()
    except Exception as error:
        return type(error).__name__
    return "nothing"
