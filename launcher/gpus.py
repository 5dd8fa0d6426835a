"""Which GPUs this machine has, and which of them can be used; no tool of a vendor's is needed."""

from dataclasses import dataclass
from pathlib import Path

from launcher import amd, nvidia
from launcher.hardware import AMD, NVIDIA, Gpu, User, below

__all__ = ["AMD", "NVIDIA", "Gpu", "Machine", "User", "detect"]

MACHINE = Path("/")


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
        return tuple(gpu for gpu in self.gpus if gpu.vendor == vendor)

    def usable(self, vendor: str) -> tuple[Gpu, ...]:
        """A vendor's GPUs that can be used, in the order to prefer them: discrete ones first."""
        fit = (gpu for gpu in self.of(vendor) if not gpu.unusable)
        return tuple(sorted(fit, key=lambda gpu: (gpu.integrated, gpu.index)))


def detect(root: Path = MACHINE, user: User | None = None, ask: bool | None = None) -> Machine:
    """Look below `root` for GPUs, and at what `user`, by default the caller, may open.

    Args:
        root: the machine's root folder, or a tree of files that looks like one.
        user: who will open the devices.
        ask: whether to ask nvidia-smi; by default, where `root` is this machine's.
    """
    user = user or User.caller()
    amds = amd.find(root, user)
    nvidias = nvidia.find(root, user, root == MACHINE if ask is None else ask)
    absences = (("AMD", amds.absence), ("NVIDIA", nvidias.absence))
    return Machine(
        gpus=amds.gpus + nvidias.gpus,
        amdgpu=below(root, "/sys/module/amdgpu").exists(),
        kfd=below(root, amd.TOPOLOGY).exists(),
        nvidia=nvidia.driver_version(root),
        notes=amds.notes + nvidias.notes,
        absences=tuple(f"no {vendor} GPU ({why})" for vendor, why in absences if why),
    )
