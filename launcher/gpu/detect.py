"""Detect the GPUs of this machine and whether they can be used, without any vendor tool."""

from dataclasses import dataclass
from pathlib import Path

from launcher.gpu import amd as amd_gpus
from launcher.gpu import nvidia as nvidia_gpus
from launcher.gpu.access import User
from launcher.gpu.model import Gpu, under

THIS_MACHINE = Path("/")


@dataclass(frozen=True)
class Machine:
    """The GPUs of a machine and the drivers that are loaded."""

    gpus: tuple[Gpu, ...]
    amdgpu: bool = False
    kfd: bool = False
    nvidia: str = ""  # the driver's version
    notes: tuple[str, ...] = ()
    absences: tuple[str, ...] = ()  # for a vendor without a GPU: "no AMD GPU (…)"

    def of(self, vendor: str) -> tuple[Gpu, ...]:
        """Return all GPUs of a vendor."""
        return tuple(gpu for gpu in self.gpus if gpu.vendor == vendor)

    def usable(self, vendor: str) -> tuple[Gpu, ...]:
        """Return a vendor's usable GPUs in order of preference: discrete GPUs first."""
        usable = (gpu for gpu in self.of(vendor) if not gpu.unusable)
        return tuple(sorted(usable, key=lambda gpu: (gpu.integrated, gpu.index)))


def detect(
    root: Path = THIS_MACHINE, user: User | None = None, ask_nvidia_smi: bool | None = None
) -> Machine:
    """Detect the GPUs below `root`, and which of them `user` may open.

    Args:
        root: The machine's root folder, or a tree of files in its shape.
        user: The user who opens the devices; the caller by default.
        ask_nvidia_smi: Whether to run nvidia-smi; by default, if `root` is this machine.
    """
    user = user or User.caller()
    if ask_nvidia_smi is None:
        ask_nvidia_smi = root == THIS_MACHINE
    amd = amd_gpus.find(root, user)
    nvidia = nvidia_gpus.find(root, user, ask_nvidia_smi)
    absences = (("AMD", amd.absence), ("NVIDIA", nvidia.absence))
    return Machine(
        gpus=amd.gpus + nvidia.gpus,
        amdgpu=under(root, "/sys/module/amdgpu").exists(),
        kfd=under(root, amd_gpus.TOPOLOGY).exists(),
        nvidia=nvidia_gpus.driver_version(root),
        notes=amd.notes + nvidia.notes,
        absences=tuple(f"no {vendor} GPU ({why})" for vendor, why in absences if why),
    )
