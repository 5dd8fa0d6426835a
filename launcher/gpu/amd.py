"""AMD GPUs, as the kernel's compute driver (KFD) lists them; no AMD tool is needed.

https://github.com/torvalds/linux/blob/master/drivers/gpu/drm/amd/amdkfd/kfd_topology.c
"""

from dataclasses import dataclass
from pathlib import Path

from launcher.gpu.access import User, access_problem, node_groups
from launcher.gpu.model import (
    AMD,
    Gpu,
    Problem,
    VendorGpus,
    driver_state,
    pci_gpus,
    read_text,
    under,
)

KFD = "/dev/kfd"
TOPOLOGY = "/sys/class/kfd/kfd/topology/nodes"
# The targets that torch's ROCm wheels have a device- extra for, and the names of their GPUs.
TARGETS = {
    "gfx908": "Instinct MI100",
    "gfx90a": "Instinct MI210 or MI250",
    "gfx942": "Instinct MI300 series",
    "gfx950": "Instinct MI350 series",
    "gfx1100": "Radeon RX 7900 or PRO W7900",
    "gfx1101": "Radeon RX 7800 or 7700",
    "gfx1102": "Radeon RX 7600",
    "gfx1103": "Radeon 780M",
    "gfx1150": "Radeon of Strix Point",
    "gfx1151": "Radeon of Strix Halo",
    "gfx1152": "Radeon (gfx1152)",
    "gfx1153": "Radeon (gfx1153)",
    "gfx1200": "Radeon RX 9060",
    "gfx1201": "Radeon RX 9070 or R9700",
}
# GPUs on the same chip as a CPU. Newer kernels list them as nodes without CPU cores.
_INTEGRATED = {
    *("gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036"),
    *("gfx1103", "gfx1150", "gfx1151", "gfx1152", "gfx1153"),
}
_VRAM_HEAPS = (1, 2)  # VRAM that the CPU can see, and VRAM that it can't


@dataclass(frozen=True)
class _Node:
    """A GPU's node of the KFD topology; without properties if the kernel withholds them."""

    folder: Path
    properties: dict[str, int]

    @property
    def target(self) -> str:
        return target_name(self.properties.get("gfx_target_version", 0))

    @property
    def render(self) -> str:
        minor = self.properties.get("drm_render_minor", 0)
        return f"/dev/dri/renderD{minor}" if minor else ""

    @property
    def integrated(self) -> bool:
        return self.target in _INTEGRATED or self.properties.get("cpu_cores_count", 0) > 0


def find(root: Path, user: User) -> VendorGpus:
    """Find the GPUs that KFD lists; if it lists none, those on the PCI bus."""
    readable, withheld = _nodes(root)
    gpus = [_gpu(root, node, index, user) for index, node in enumerate(readable)]
    gpus += [_withheld(node, index) for index, node in enumerate(withheld, start=len(gpus))]
    if not gpus:
        on_bus = enumerate(pci_gpus(root, AMD))
        gpus = [_undriven(address, driver, index) for index, (address, driver) in on_bus]
    if gpus:
        return VendorGpus(tuple(gpus))
    state = "has no GPU node" if under(root, "/sys/class/kfd").exists() else "is missing"
    return VendorGpus(absence=f"/sys/class/kfd {state}")


def target_name(version: int) -> str:
    """Return the name of a target: 90402 is gfx942, 0 is "".

    The version is major·10000 + minor·100 + step; the name has the step in hex.
    """
    major = version // 10_000
    minor = version // 100 % 100
    step = version % 100
    return f"gfx{major}{minor:x}{step:x}" if version else ""


def _nodes(root: Path) -> tuple[list[_Node], list[_Node]]:
    """Return the readable GPU nodes in KFD's order, and those with withheld properties.

    The kernel withholds a GPU's node if a device cgroup denies the process its render node.
    """
    folders = [path for path in under(root, TOPOLOGY).glob("*") if path.name.isdigit()]
    readable: list[_Node] = []
    withheld: list[_Node] = []
    for folder in sorted(folders, key=lambda path: int(path.name)):
        try:
            node = _Node(folder, _numbers(folder / "properties"))
        except OSError:
            withheld.append(_Node(folder, {}))
            continue
        if node.target or node.properties.get("simd_count", 0):  # a CPU's node has neither
            readable.append(node)
    return readable, withheld


def _numbers(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _gpu(root: Path, node: _Node, index: int, user: User) -> Gpu:
    devices = (KFD, node.render) if node.render else (KFD,)
    problem = _problem(root, node, devices, user)
    unique = node.properties.get("unique_id", 0)
    return Gpu(
        vendor=AMD,
        index=index,
        name=_name(root, node),
        target=node.target,
        vram_bytes=_vram(node),
        node=node.render,
        unusable=problem.unusable,
        fix=problem.fix,
        integrated=node.integrated,
        uuid=f"GPU-{unique:016x}" if unique else "",
        devices=devices,
        gids=node_groups(root, devices, user),
    )


def _name(root: Path, node: _Node) -> str:
    """Return the GPU's product name; most GPUs have none and get the name of their target."""
    name = ""
    if node.render:
        minor = node.render.rpartition("/")[2]
        name = read_text(under(root, f"/sys/class/drm/{minor}/device/product_name"))
    name = name or TARGETS.get(node.target, node.target or "GPU")
    return f"AMD {name.removeprefix('AMD ')}"


def _vram(node: _Node) -> int:
    total = 0
    for bank in (node.folder / "mem_banks").glob("*/properties"):
        try:
            properties = _numbers(bank)
        except OSError:
            continue
        if properties.get("heap_type") in _VRAM_HEAPS:
            total += properties.get("size_in_bytes", 0)
    return total


def _problem(root: Path, node: _Node, devices: tuple[str, ...], user: User) -> Problem:
    """Return what prevents the use of the GPU, the hardest problem to fix first."""
    if not node.target:
        return Problem("the kernel's amdgpu is too old to report its target", "update the kernel")
    if node.target not in TARGETS:
        return Problem(f"torch for ROCm is not built for {node.target}")
    if not node.render:
        return Problem("KFD lists no render node for it", "sudo dmesg | grep -i amdgpu")
    for device in devices:
        if not under(root, device).exists():
            return _missing(device)
    return access_problem(root, devices, user)


def _missing(device: str) -> Problem:
    return Problem(
        f"{device} is missing, although /sys/class/kfd lists the GPU",
        f"sudo modprobe amdgpu; if this is a container, start it with --device {device}",
    )


def _withheld(node: _Node, index: int) -> Gpu:
    return Gpu(
        AMD,
        index,
        "AMD GPU",
        unusable=f"KFD's node {node.folder.name} can't be read: this process has no access to it",
        fix=f"if this is a container, start it with --device {KFD} and the GPU's /dev/dri/renderD…",
    )


def _undriven(address: str, driver: str, index: int) -> Gpu:
    """Return a GPU that is on the PCI bus and that KFD doesn't list."""
    if driver == "amdgpu":
        unusable = "amdgpu drives it, but KFD doesn't list it: it is too old for ROCm, or disabled"
        fix = "sudo dmesg | grep -i kfd"
    else:
        unusable = f"its driver amdgpu isn't loaded: {driver_state(driver)}"
        fix = "sudo modprobe amdgpu"
    return Gpu(AMD, index, f"AMD GPU at {address}", unusable=unusable, fix=fix)
