"""The health of a GPU: memory errors, memory in use and temperature, from sysfs or nvidia-smi."""

from dataclasses import dataclass
from pathlib import Path

from launcher.environment.stack import format_memory
from launcher.gpu.model import AMD, Gpu, read_text, under
from launcher.gpu.nvidia import query_nvidia_smi
from launcher.preflight.findings import FIX, NOTE, Finding

MOST_IN_USE = 0.1  # of the memory, by other programs
_FIELDS = ("uuid", "temperature.gpu", "memory.used", "ecc.errors.uncorrected.volatile.total")


@dataclass(frozen=True)
class Health:
    """What a GPU reports of itself; None where it doesn't."""

    celsius: int | None = None
    used_bytes: int | None = None
    uncorrected_errors: int | None = None

    @property
    def text(self) -> str:
        """Return the known values, for people."""
        parts: list[str] = []
        if self.celsius is not None:
            parts.append(f"{self.celsius} °C")
        if self.used_bytes is not None:
            parts.append(f"{self.used_bytes / 2**30:.1f} GiB in use")
        if self.uncorrected_errors is not None:
            parts.append(f"{self.uncorrected_errors} uncorrected memory errors")
        return ", ".join(parts) or "its health is unknown"


def read_nvidia() -> dict[str, Health]:
    """Return the health of the GPUs that nvidia-smi lists, by UUID."""
    rows, _ = query_nvidia_smi(_FIELDS)
    healths: dict[str, Health] = {}
    for uuid, celsius, mebibytes, errors in rows:
        used = _number(mebibytes)
        bytes_used = None if used is None else used * 2**20
        healths[uuid] = Health(_number(celsius), bytes_used, _number(errors))
    return healths


def _number(text: str) -> int | None:
    """Return a number of nvidia-smi or sysfs; an unknown value reads [N/A], or isn't there."""
    return int(text) if text.isdigit() else None


def read_amd(root: Path, gpu: Gpu) -> Health:
    """Return the health of an AMD GPU, as amdgpu shows it in sysfs.

    https://docs.kernel.org/gpu/amdgpu/ras.html
    """
    if not gpu.node:
        return Health()
    device = under(root, f"/sys/class/drm/{gpu.node.rpartition('/')[2]}/device")
    heats = [_number(read_text(path)) for path in sorted(device.glob("hwmon/hwmon*/temp1_input"))]
    celsius = next((heat // 1000 for heat in heats if heat is not None), None)
    used = _number(read_text(device / "mem_info_vram_used"))
    counts = [_uncorrected(read_text(path)) for path in device.glob("ras/*_err_count")]
    known = [count for count in counts if count is not None]
    return Health(celsius, used, sum(known) if known else None)


def _uncorrected(text: str) -> int | None:
    """Return the number in the line `ue: 0` of a file that counts errors."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "ue":
            return _number(value.strip())
    return None


def find(gpu: Gpu, health: Health) -> Finding:
    """Return the finding on a GPU: whether it can be used, and how it is."""
    name = f"{gpu.vendor} {gpu.index}"
    description = f"{gpu.name}, {format_memory(gpu.vram_bytes)}"
    if gpu.unusable:
        state = NOTE if gpu.integrated else FIX
        return Finding(name, f"{description}: {gpu.unusable}", state, gpu.fix or "invoke gpus")
    value = f"{description}, {health.text}"
    if health.uncorrected_errors:
        return Finding(name, value, FIX, _leave_out(gpu))
    if gpu.vram_bytes and (health.used_bytes or 0) > MOST_IN_USE * gpu.vram_bytes:
        fix = f"sudo fuser -v {gpu.node}" if gpu.vendor == AMD else "nvidia-smi"
        return Finding(name, value, FIX, f"{fix} names the programs that use it; end them")
    return Finding(name, value)


def _leave_out(gpu: Gpu) -> str:
    variable = "LABS_RENDER_NODES" if gpu.vendor == AMD else "LABS_GPUS"
    return f"sudo reboot; if the errors return, name the other GPUs in {variable}"
