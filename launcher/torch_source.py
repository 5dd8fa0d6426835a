"""torch for an environment: which build, and where it comes from."""

import os
import threading
import urllib.request
from pathlib import Path

from launcher import ROOT
from launcher.cards import say

DOCKER = ROOT / "docker"
VERSION = "2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SECONDS_TO_ANSWER = 5
ROCM, ROCM_INDEX = "rocm10.1.0", "https://stable.repo.amd.com/rocm/whl-next/"


def arguments(stack: str, gfx: str) -> list[str]:
    """What pip is told of torch: which build, and where it comes from.

    CUDA's comes from the default index, hashed; ROCm's from AMD's index alone; the CPU's from
    LABS_WHEELS, else from PyTorch's index, and where that can't be reached from the default one,
    which is said aloud.
    """
    if stack == "cuda":
        lock = str(DOCKER / "requirements-cuda.lock")
        return ["--no-deps", "--require-hashes", "--requirement", lock]
    if stack == "rocm":
        index = os.environ.get("LABS_ROCM_INDEX", ROCM_INDEX)
        built = ["--no-binary=rocm", "--no-build-isolation", "--index-url", index]
        return [*built, f"torch[device-{gfx}]=={VERSION}+{ROCM}"]
    return [f"torch=={VERSION}", *cpu_source()]


def cpu_source() -> list[str]:
    """Where the CPU's build comes from, in pip's words; nothing for pip's default index."""
    if any(Path(os.environ.get("LABS_WHEELS", os.devnull)).glob(f"torch-{VERSION}*.whl")):
        return ["--no-deps", "--no-index"]
    index = os.environ.get("LABS_TORCH_INDEX", CPU_INDEX)
    if _answers(f"{index}/torch/"):
        return ["--no-deps", "--index-url", index]
    say(f"{index} can't be reached, so torch comes from pip's default index. Its build for Linux")
    say("brings CUDA along, about 3 GB to download, unless your pip finds a CPU build on disk.")
    return []


def _answers(address: str) -> bool:
    """Does it answer within seconds? In a thread, since a name server may take its time."""
    answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(address, timeout=SECONDS_TO_ANSWER):
                answered.set()
        except (OSError, ValueError):
            pass

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS_TO_ANSWER)
    return answered.is_set()
