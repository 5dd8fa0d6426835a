"""What a checkpoint carries beside what Accelerate prepared: generators, curves, averages."""

from typing import Any, cast

import torch


def state_of(name: str, thing: Any) -> Any:
    """The state of something that can be carried.

    Raises:
        TypeError: where it can't.
    """
    if isinstance(thing, torch.Generator):
        return thing.get_state()
    if isinstance(thing, list | dict):
        return cast(Any, thing)
    if hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict"):
        return thing.state_dict()
    raise TypeError(f"{name} can't be carried: it is no generator, list or dict, nor has a state")


def restore(thing: Any, state: Any) -> None:
    """Put a state back, in place."""
    if isinstance(thing, torch.Generator):
        thing.set_state(state)
    elif isinstance(thing, list):
        thing[:] = state
    elif isinstance(thing, dict):
        cast(dict[Any, Any], thing).clear()
        cast(dict[Any, Any], thing).update(state)
    else:
        thing.load_state_dict(state)
