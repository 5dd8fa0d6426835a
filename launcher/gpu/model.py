"""A GPU of this machine, and readers for /proc, /sys and /dev below any root folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

AMD = "amd"
NVIDIA = "nvidia"
_PCI_VENDORS = {AMD: "0x1002", NVIDIA: "0x10de"}
_DISPLAYS_AND_ACCELERATORS = ("0x03", "0x12")  # PCI classes


@dataclass(frozen=True)
class Gpu:
    """A GPU. `unusable` says why it can't be used, in words that follow its name."""

    vendor: str
    index: int  # in the vendor's own order
    name: str
    target: str = ""  # AMD: gfx942; NVIDIA: the compute capability, 9.0; empty: unknown
    vram_bytes: int = 0  # 0: unknown
    node: str = ""  # /dev/dri/renderD128, /dev/nvidia0
    unusable: str = ""
    fix: str = ""
    integrated: bool = False
    uuid: str = ""
    devices: tuple[str, ...] = ()  # every device node that a process opens to use it
    gids: tuple[int, ...] = ()  # the groups of those nodes that are closed to other users


class Problem(NamedTuple):
    """Why a GPU can't be used, and what fixes that. Empty if it can be used."""

    unusable: str = ""
    fix: str = ""


@dataclass(frozen=True)
class VendorGpus:
    """The GPUs of one vendor. `absence` says where detection looked if there are none."""

    gpus: tuple[Gpu, ...] = ()
    notes: tuple[str, ...] = ()
    absence: str = ""


def under(root: Path, path: str) -> Path:
    """Return the absolute `path` as seen from `root`."""
    return root / path.lstrip("/")


def read_text(path: Path) -> str:
    """Return the stripped text of a file, or "" if it can't be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def pci_gpus(root: Path, vendor: str) -> list[tuple[str, str]]:
    """List the vendor's GPUs on the PCI bus: address, and kernel driver or "".

    Skips GPUs that are reserved for a virtual machine.
    """
    gpus: list[tuple[str, str]] = []
    for device in sorted(under(root, "/sys/bus/pci/devices").glob("*")):
        if read_text(device / "vendor") != _PCI_VENDORS[vendor]:
            continue
        if not read_text(device / "class").startswith(_DISPLAYS_AND_ACCELERATORS):
            continue
        link = device / "driver"
        driver = link.resolve().name if link.exists() else ""
        if driver != "vfio-pci":
            gpus.append((device.name, driver))
    return gpus


def driver_state(driver: str) -> str:
    """Say which kernel driver is bound to a PCI device."""
    return f"{driver} is bound to it" if driver else "no driver is bound to it"
