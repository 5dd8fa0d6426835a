"""A GPU's image in which torch sees no GPU is a card: a run on the CPU would look like a slow card.

https://docs.pytorch.org/docs/stable/notes/cuda.html
"""

import os
from pathlib import Path

from labs.kit.cards import Card

import torch

# Set to nothing, any of these asks for none.
FILTERS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
NODES = {"cuda": "nvidiactl", "rocm": "kfd"}


def expect(stack: str) -> None:
    """See that a stack for GPUs has one, unless none is asked for.

    Args:
        stack: what the image or the environment was built for: cpu, cuda or rocm.

    Raises:
        Card: where it has none; it says what stands between.
    """
    if stack not in NODES or any(os.environ.get(name) in ("", "-1") for name in FILTERS):
        return
    if not torch.cuda.is_available():
        raise absence(stack)


def absence(stack: str, devices: Path = Path("/dev")) -> Card:
    """Why torch sees no GPU: no node, no right to it, or what torch itself says."""
    what = f"This is the {stack} stack, and torch sees no GPU."
    node = devices / NODES[stack]
    cpu = "to run on the CPU: --stack cpu"
    try:
        node.open("r+b").close()
    except FileNotFoundError:
        why = f"{node} isn't here: the container was started without a GPU."
        return Card(what, why, f"invoke lab …; or invoke dotenv, for docker compose; {cpu}")
    except PermissionError:
        group = node.stat().st_gid
        why = f"uid {os.getuid()} in groups {sorted(os.getgroups())} may not open {node}."
        mend = f"give it group {group}: invoke lab …; or invoke dotenv, for docker compose; {cpu}"
        return Card(what, why, mend)
    except OSError as error:
        return Card(what, f"{node} can't be opened: {error.strerror}.", f"invoke gpus; {cpu}")
    return Card(what, _said(), f"invoke gpus, outside of a container; {cpu}")


def _said() -> str:
    """What torch says when it is made to begin: a driver that is too old, for example."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0]
    return "Its driver lists none."
