"""Look at a module: its parameters, its forgotten and tied tensors, its hooks, its errors."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn


def parameters(model: nn.Module) -> int:
    """Return the number of learned parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def tensors_in(path: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the path of every tensor in a value, and the tensor: in modules and lists too."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, nn.Module):
        yield from tensors_in(path, dict(value.state_dict(keep_vars=True)))
    elif isinstance(value, list | tuple | dict):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors_in(f"{path}.{key}", item)


def unregistered(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors in plain attributes of a module and its submodules, by path."""
    return {
        path.removeprefix("."): tensor
        for owner, submodule in module.named_modules()
        for name, value in vars(submodule).items()
        if not name.startswith("_")  # nn.Module's own dictionaries
        for path, tensor in tensors_in(f"{owner}.{name}", value)
    }


def forgotten(module: nn.Module) -> list[str]:
    """Return the paths of the tensors that a module doesn't know."""
    return list(unregistered(module))


def fates(module: nn.Module) -> dict[str, list[str]]:
    """Convert a float32 module to float64; return what happens to each tensor, by path.

    Returns:
        Three times "yes" or "no": is it learned, is it converted, is it in `state_dict()`?
    """
    learned = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    saved = module.state_dict().keys()
    module.double()
    tensors = dict(module.named_parameters(remove_duplicate=False))
    tensors |= dict(module.named_buffers(remove_duplicate=False)) | unregistered(module)
    return {
        path: ["yes" if fact else "no" for fact in (path in learned, wide, path in saved)]
        for path, tensor in tensors.items()
        for wide in [tensor.element_size() == 8]
    }


def tied(module: nn.Module) -> list[list[str]]:
    """Return the groups of names that share one memory."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.state_dict().items():
        names.setdefault(tensor.data_ptr(), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def hooks(model: nn.Module) -> int:
    """Return the number of forward hooks and forward pre-hooks on a model's modules."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def refusal(action: Callable[[], Any]) -> str:
    """Return the type of the error that an action raises, or "nothing"."""
    try:
        action()
    except Exception as error:
        return type(error).__name__
    return "nothing"
