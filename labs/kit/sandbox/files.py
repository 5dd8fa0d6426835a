"""The files that untrusted code may read: Python, its packages, the labs and their models."""

import os
import sys
from pathlib import Path

# System folders: programs, libraries, settings. /nix and /gnu hold them on NixOS and Guix.
SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc",
    "/opt",
    "/nix/store",
    "/gnu/store",
    "/proc",
    "/sys",
)
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# What a GPU's driver and its libraries open. torch exchanges tensors in /dev/shm.
GPU_DEVICES = ("/dev/kfd", "/dev/dri", "/dev/shm")
# Variables that name the folders of libraries' caches.
CACHES = (
    "TMPDIR",
    "HOME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "MPLCONFIGDIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
)


def readable() -> list[Path]:
    """Return the files and folders that a lab's code needs to read. Your home isn't among them."""
    clone = Path(__file__).parents[3]
    models = os.environ.get("LABS_HOME") or Path(sys.prefix).parent / "home"
    found = [clone, Path(models), Path(sys.prefix), Path(sys.base_prefix)]
    found += [Path(name) for name in (*SYSTEM, *DEVICES)]
    searched = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    for name in (*sys.path, *searched):
        if name and not _contains_home(Path(name)):
            found.append(Path(name))
    return found


def gpu_devices() -> list[Path]:
    """Return the device nodes that a lab on a GPU opens, and /dev/shm."""
    return [Path(name) for name in GPU_DEVICES] + sorted(Path("/dev").glob("nvidia*"))


def has_gpu() -> bool:
    """Return whether a GPU's compute device is here."""
    return any(Path(name).exists() for name in ("/dev/kfd", "/dev/nvidiactl"))


def _contains_home(path: Path) -> bool:
    home = Path.home().resolve()
    return path.resolve() in (home, *home.parents)
