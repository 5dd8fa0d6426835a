"""Which build of torch an environment gets, and from where. docker/Dockerfile names the version."""

import os
import re
import threading
import urllib.request
from pathlib import Path

from common.cards import print_status
from launcher import DOCKER_FOLDER, settings
from launcher.image.status import CUDA_LOCK

SECONDS_TO_CONNECT = 5


def dockerfile_default(argument: str) -> str:
    """Return the default of a build argument in the Dockerfile."""
    text = (DOCKER_FOLDER / "Dockerfile").read_text(encoding="utf-8")
    default = re.search(rf"^ARG {argument}=(\S+)$", text, re.MULTILINE)
    if default is None:
        raise ValueError(f"docker/Dockerfile has no default for {argument}")
    return default[1]


def torch_version() -> str:
    """Return the version of torch that every stack uses."""
    return dockerfile_default("TORCH_VERSION")


def cpu_index() -> str:
    """Return the URL of the package index for the CPU's torch."""
    return os.environ.get("LABS_TORCH_INDEX") or dockerfile_default("CPU_INDEX")


def rocm_index() -> str:
    """Return the URL of the package index for ROCm's torch."""
    return os.environ.get("LABS_ROCM_INDEX") or dockerfile_default("ROCM_INDEX")


def pip_arguments(stack: str, gfx: str) -> list[str]:
    """Return the arguments of `pip install` for a stack's torch.

    CUDA's build comes from pip's default index, with hashes. ROCm's comes from AMD's index only.
    The CPU's comes from LABS_WHEELS, else from PyTorch's index. If that index is unreachable, it
    comes from pip's default index, and the launcher prints a warning.
    """
    if stack == "cuda":
        return ["--no-deps", "--require-hashes", "--requirement", str(DOCKER_FOLDER / CUDA_LOCK)]
    if stack == "rocm":
        build = f"{torch_version()}+rocm{dockerfile_default('ROCM_VERSION')}"
        options = ["--no-binary=rocm", "--no-build-isolation", "--index-url", rocm_index()]
        return [*options, f"torch[device-{gfx}]=={build}"]
    return [f"torch=={torch_version()}", *cpu_source()]


def cpu_source() -> list[str]:
    """Return pip's options for the source of the CPU build; none for pip's default index."""
    wheels = settings.find("LABS_WHEELS")
    if wheels and any(Path(wheels.value).glob(f"torch-{torch_version()}*.whl")):
        return ["--no-deps", "--no-index"]
    index = cpu_index()
    if _is_reachable(f"{index}/torch/"):
        return ["--no-deps", "--index-url", index]
    print_status(f"{index} is unreachable, so torch comes from pip's default index. Its build for")
    print_status("Linux includes CUDA, a download of about 3 GB, unless pip finds a CPU wheel.")
    return []


def _is_reachable(url: str) -> bool:
    """Return whether a URL responds within seconds; a thread limits a slow name server too."""
    reached = threading.Event()

    def request() -> None:
        try:
            with urllib.request.urlopen(url, timeout=SECONDS_TO_CONNECT):
                reached.set()
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(SECONDS_TO_CONNECT)
    return reached.is_set()
