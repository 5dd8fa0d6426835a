"""Write trees of files in the shape of /sys/class/kfd, /proc/driver/nvidia and /dev."""

import os
import stat
from pathlib import Path

GIB = 2**30
# The node of an MI300X, as kernel 6.8 writes it.
PROPERTIES = """\
cpu_cores_count {cores}
simd_count {simds}
mem_banks_count 1
caches_count 0
io_links_count 1
p2p_links_count 0
cpu_core_id_base 0
simd_id_base 2147487744
max_waves_per_simd 8
lds_size_in_kb 64
gds_size_in_kb 0
num_gws 64
wave_front_size 64
array_count 32
simd_arrays_per_engine 1
cu_per_simd_array 10
simd_per_cu 4
max_slots_scratch_cu 32
{version}vendor_id 4098
device_id 29857
location_id 2560
domain 0
drm_render_minor {minor}
hive_id 2095653680343411291
num_sdma_engines 2
local_mem_size 0
unique_id {unique}
num_xcc 8
max_engine_clk_ccompute 3800
"""
INFORMATION = """\
Model: \t\t {model}
IRQ:   \t\t 185
GPU UUID: \t {uuid}
Video BIOS: \t 96.00.99.00.01
Bus Type: \t PCIe
DMA Size: \t 52 bits
DMA Mask: \t 0xfffffffffffff
Bus Location: \t {place}
Device Minor: \t {minor}
GPU Firmware: \t 580.95.05
GPU Excluded:\t {excluded}
"""
OPEN_MODULE = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build"
    "  (dvs-builder@U22-I3-AM02-24-3)  Tue Sep 23 10:11:41 UTC 2025\nGCC version:  gcc 13.3.0\n"
)
OWN_MODULE = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Thu Feb 22 01:44:30 UTC 2024\n"
    "GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n"
)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def device(root: Path, name: str, mode: int = 0o666, gid: int = 0) -> None:
    """Create a null device, or a file if this process isn't root."""
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        path.touch()
    else:
        os.mknod(path, stat.S_IFCHR | mode, os.makedev(1, 3))
        os.chown(path, 0, gid)
    path.chmod(mode)


def kfd_node(
    root: Path,
    number: int,
    version: int | None,
    minor: int = 0,
    vram: int = 0,
    cores: int = 0,
    heap: int = 1,
    unique: int = 0,
) -> Path:
    """Write a node of the KFD topology: version 0 is a CPU, None an old kernel."""
    folder = root / "sys/class/kfd/kfd/topology/nodes" / str(number)
    simds = 0 if version == 0 else 304
    line = "" if version is None else f"gfx_target_version {version}\n"
    properties = PROPERTIES.format(
        cores=cores, simds=simds, version=line, minor=minor, unique=unique
    )
    write(folder / "properties", properties)
    write(folder / "gpu_id", f"{0 if version == 0 else 24248 + number}\n")
    bank = f"heap_type {heap}\nsize_in_bytes {vram}\nflags 0\nwidth 8192\nmem_clk_max 1300\n"
    write(folder / "mem_banks/0/properties", bank)
    return folder


def cpu_node(root: Path, number: int = 0) -> None:
    kfd_node(root, number, 0, vram=1024 * GIB, cores=96, heap=0)


def add_amd_gpu(
    root: Path, number: int, version: int, minor: int, vram: int = 0, **how: int
) -> Path:
    """Write a GPU's node of the topology, and its render node, open to all users."""
    device(root, f"/dev/dri/renderD{minor}")
    return kfd_node(root, number, version, minor, vram, **how)


def nvidia_driver(root: Path, version: str, wording: str = OPEN_MODULE) -> None:
    write(root / "proc/driver/nvidia/version", wording.format(version))


def add_nvidia_gpu(
    root: Path,
    place: str,
    minor: int,
    model: str = "NVIDIA H100 80GB HBM3",
    uuid: str = "GPU-eaf23aa1-4d3d-596c-da66-b86b0e5db584",
    excluded: str = "No",
) -> None:
    for name in ("nvidiactl", "nvidia-uvm"):
        if not (root / "dev" / name).exists():
            device(root, f"/dev/{name}")
    device(root, f"/dev/nvidia{minor}")
    said = INFORMATION.format(model=model, uuid=uuid, place=place, minor=minor, excluded=excluded)
    write(root / f"proc/driver/nvidia/gpus/{place}/information", said)


def add_pci_device(root: Path, place: str, vendor: str, kind: str, driver: str = "") -> None:
    folder = root / "sys/bus/pci/devices" / place
    write(folder / "vendor", f"{vendor}\n")
    write(folder / "class", f"{kind}\n")
    if driver:
        home = root / "sys/bus/pci/drivers" / driver
        home.mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(home)
