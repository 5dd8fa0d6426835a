"""Report a GPU that torch doesn't see: a run on the CPU would look like a slow GPU.

https://docs.pytorch.org/docs/stable/notes/cuda.html
"""

import os
from pathlib import Path

from common.cards import Card

import torch

# Each of these hides all GPUs if it is empty or -1.
FILTERS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
NODES = {"cuda": "nvidiactl", "rocm": "kfd"}


def require_gpu(stack: str) -> None:
    """Check that a GPU stack has a GPU, unless the environment hides all GPUs.

    Args:
        stack: what the image or the environment was built for: cpu, cuda or rocm.

    Raises:
        Card: if torch sees no GPU; it names the reason.
    """
    if stack not in NODES or any(os.environ.get(name) in ("", "-1") for name in FILTERS):
        return
    if not torch.cuda.is_available():
        raise explain_absence(stack)


def explain_absence(stack: str, devices: Path = Path("/dev")) -> Card:
    """Return the card for an invisible GPU: no node, no permission, or the error of torch."""
    what = f"This is the {stack} stack, and torch sees no GPU."
    node = devices / NODES[stack]
    cpu = "to run on the CPU: --stack cpu"
    try:
        node.open("r+b").close()
    except FileNotFoundError:
        why = f"{node} doesn't exist: the container was started without a GPU."
        return Card(what, why, f"invoke lab …; for docker compose: invoke dotenv; {cpu}")
    except PermissionError:
        group = node.stat().st_gid
        why = f"uid {os.getuid()} in groups {sorted(os.getgroups())} may not open {node}."
        fix = f"add group {group}: invoke lab …; for docker compose: invoke dotenv; {cpu}"
        return Card(what, why, fix)
    except OSError as error:
        return Card(what, f"{node} can't be opened: {error.strerror}.", f"invoke gpus; {cpu}")
    return Card(what, _torch_error(), f"invoke gpus, outside of a container; {cpu}")


def _torch_error() -> str:
    """Return the error of torch's initialisation: a driver that is too old, for example."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0]
    return "Its driver lists no GPU."
