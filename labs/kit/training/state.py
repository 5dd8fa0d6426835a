"""Save and restore what a checkpoint has beside the objects that Accelerate prepared.

It may be a generator, a curve or a running average. Accelerate's `register_for_checkpointing` would
load it with `weights_only=False`, which runs code from the file.
"""

from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import RNG_STATE_NAME, load


def state_of(name: str, value: Any) -> Any:
    """Return the state of a generator, list, dict, or object with a `state_dict`.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, list | dict):
        return cast(Any, value)
    if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        return value.state_dict()
    raise TypeError(f"{name} can't be saved: it isn't a generator, list or dict, and has no state")


def restore(value: Any, state: Any) -> None:
    """Restore a state, in place."""
    if isinstance(value, torch.Generator):
        value.set_state(state)
    elif isinstance(value, list):
        value[:] = state
    elif isinstance(value, dict):
        cast(dict[Any, Any], value).clear()
        cast(dict[Any, Any], value).update(state)
    else:
        value.load_state_dict(state)


def require_random_states(checkpoint: Path, process: int) -> None:
    """Check that the random states of a process were loaded.

    Accelerate reports nothing if they weren't.

    Raises:
        ValueError: if a generator isn't in the state that the checkpoint has.
    """
    file = f"{RNG_STATE_NAME}_{process}.pkl"
    saved = load(checkpoint / file)
    pairs = [(saved["torch_manual_seed"], torch.get_rng_state())]
    if torch.cuda.is_available():
        pairs += zip(saved["torch_cuda_manual_seed"], torch.cuda.get_rng_state_all(), strict=True)
    if not all(torch.equal(then, now) for then, now in pairs):
        raise ValueError(f"{file} wasn't loaded")
