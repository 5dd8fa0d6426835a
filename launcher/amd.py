"""AMD's GPUs, as the kernel's compute driver (KFD) lists them; no tool of AMD's is needed.

https://github.com/torvalds/linux/blob/master/drivers/gpu/drm/amd/amdkfd/kfd_topology.c
"""

from dataclasses import dataclass
from pathlib import Path

from launcher.hardware import (
    AMD,
    Found,
    Gpu,
    Problem,
    User,
    below,
    gids,
    on_the_bus,
    refusal,
    text,
)

KFD = "/dev/kfd"
TOPOLOGY = "/sys/class/kfd/kfd/topology/nodes"
# What torch's ROCm wheels have a device- extra for, and what the cards of that target are called.
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
# A part of the CPU's chip. Newer kernels list these as nodes without CPU cores.
_INTEGRATED = {
    *("gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036"),
    *("gfx1103", "gfx1150", "gfx1151", "gfx1152", "gfx1153"),
}
_VRAM_HEAPS = (1, 2)  # visible to the CPU, and not


@dataclass(frozen=True)
class _Node:
    """A GPU's node of the topology; no properties where they are withheld."""

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


def find(root: Path, user: User) -> Found:
    """The GPUs that KFD lists; where it lists none, those that are on the PCI bus all the same."""
    shown, withheld = _nodes(root)
    gpus = [_gpu(root, node, index, user) for index, node in enumerate(shown)]
    gpus += [_withheld(node, index) for index, node in enumerate(withheld, start=len(gpus))]
    gpus = gpus or [_undriven(*one, index) for index, one in enumerate(on_the_bus(root, AMD))]
    if gpus:
        return Found(tuple(gpus))
    seen = "has no GPU node" if below(root, "/sys/class/kfd").exists() else "is missing"
    return Found(absence=f"/sys/class/kfd {seen}")


def target_name(version: int) -> str:
    """90402 is gfx942: major·10000 + minor·100 + step, the step written in hex; 0 is none."""
    major, minor, step = version // 10_000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{step:x}" if version else ""


def _nodes(root: Path) -> tuple[list[_Node], list[_Node]]:
    """The nodes of GPUs in KFD's order, and those whose properties are withheld.

    The kernel withholds a GPU's node where a device cgroup keeps its render node from the process.
    """
    folders = [one for one in below(root, TOPOLOGY).glob("*") if one.name.isdigit()]
    shown: list[_Node] = []
    withheld: list[_Node] = []
    for folder in sorted(folders, key=lambda one: int(one.name)):
        try:
            node = _Node(folder, _numbers(folder / "properties"))
        except OSError:
            withheld.append(_Node(folder, {}))
            continue
        if node.target or node.properties.get("simd_count", 0):  # else it is a CPU's
            shown.append(node)
    return shown, withheld


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
        remedy=problem.remedy,
        integrated=node.integrated,
        uuid=f"GPU-{unique:016x}" if unique else "",
        devices=devices,
        gids=gids(root, devices, user),
    )


def _name(root: Path, node: _Node) -> str:
    """What the card says of itself (few do), else what cards of its target are called."""
    minor = node.render.rpartition("/")[2]
    own = text(below(root, f"/sys/class/drm/{minor}/device/product_name")) if minor else ""
    return f"AMD {(own or TARGETS.get(node.target, node.target or 'GPU')).removeprefix('AMD ')}"


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
    """What stands between the GPU and its use, the hardest to mend first."""
    if not node.target:
        return Problem("the kernel's amdgpu is too old to tell its target", "update the kernel")
    if node.target not in TARGETS:
        return Problem(f"torch for ROCm is not built for {node.target}")
    if not node.render:
        return Problem("KFD names no render node for it", "sudo dmesg | grep -i amdgpu")
    for device in devices:
        if not below(root, device).exists():
            return _missing(device)
    return refusal(root, devices, user)


def _missing(device: str) -> Problem:
    remedy = f"sudo modprobe amdgpu; if this is a container, start it with --device {device}"
    return Problem(f"{device} is missing though /sys/class/kfd lists the GPU", remedy)


def _withheld(node: _Node, index: int) -> Gpu:
    number = node.folder.name
    unusable = f"KFD's node {number} can't be read: it is kept from this process, as in a container"
    remedy = f"if this is a container, start it with --device {KFD} and the GPU's /dev/dri/renderD…"
    return Gpu(AMD, index, "AMD GPU", unusable=unusable, remedy=remedy)


def _undriven(place: str, driver: str, index: int) -> Gpu:
    """A GPU that the PCI bus has and KFD doesn't."""
    if driver == "amdgpu":
        unusable = "amdgpu drives it, but KFD doesn't list it: too old for ROCm, or switched off"
        remedy = "sudo dmesg | grep -i kfd"
    else:
        now = f"{driver} has it" if driver else "nothing drives it"
        unusable, remedy = f"its driver amdgpu isn't loaded: {now}", "sudo modprobe amdgpu"
    return Gpu(AMD, index, f"AMD GPU at {place}", unusable=unusable, remedy=remedy)
