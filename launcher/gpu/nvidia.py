"""NVIDIA GPUs, as the driver lists them in /proc; nvidia-smi adds memory and capability."""

import csv
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from launcher.gpu.access import User, access_problem, node_groups
from launcher.gpu.model import (
    NVIDIA,
    Gpu,
    Problem,
    VendorGpus,
    driver_state,
    pci_gpus,
    read_text,
    under,
)

LISTING = "/proc/driver/nvidia/gpus"
OLDEST_DRIVER = 580  # of CUDA 13
OLDEST_CAPABILITY = (7, 5)  # CUDA 13 compiles for nothing older
SMI_TIMEOUT = 10  # seconds
_QUERY = ("index", "name", "memory.total", "compute_cap", "uuid", "pci.bus_id")
_INSTALL_DRIVER = f"install NVIDIA's driver {OLDEST_DRIVER} or newer, and restart"
_NAMELESS = "NVIDIA GPU"


@dataclass(frozen=True)
class Properties:
    """The properties of a GPU that nvidia-smi reports."""

    index: int
    name: str
    vram_bytes: int
    capability: str
    uuid: str


def find(root: Path, user: User, ask_nvidia_smi: bool) -> VendorGpus:
    """Find the GPUs that the driver lists; if it lists none, those on the PCI bus."""
    listed = _listed(root)
    if not listed:
        return _not_listed(root)
    reported, note = nvidia_smi() if ask_nvidia_smi else ({}, "")
    driver = driver_version(root)
    gpus: list[Gpu] = []
    for index, (address, facts) in enumerate(sorted(listed.items())):
        properties = reported.get(address) or _from_driver(index, facts)
        gpus.append(_gpu(root, address, facts, properties, driver, user))
    nodes = {node for gpu in gpus for node in gpu.devices}
    absent = sorted(node for node in nodes if not under(root, node).exists())
    notes = [f"{node} doesn't exist yet: sudo nvidia-modprobe -c0 -u creates it" for node in absent]
    notes += [note] if note else []
    return VendorGpus(tuple(sorted(gpus, key=lambda gpu: gpu.index)), tuple(notes))


def _not_listed(root: Path) -> VendorGpus:
    on_bus = enumerate(pci_gpus(root, NVIDIA))
    gpus = tuple(_undriven(address, driver, index) for index, (address, driver) in on_bus)
    state = "has no GPU" if under(root, "/proc/driver/nvidia").exists() else "is missing"
    return VendorGpus(gpus, absence="" if gpus else f"/proc/driver/nvidia {state}")


def driver_version(root: Path) -> str:
    """Return the driver's version, such as 580.95.05.

    The proprietary and the open kernel module word the line differently.
    """
    text = read_text(under(root, "/proc/driver/nvidia/version"))
    text = text or read_text(under(root, "/sys/module/nvidia/version"))
    version = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return version[0] if version else ""


def nvidia_smi(timeout: float = SMI_TIMEOUT) -> tuple[dict[str, Properties], str]:
    """Return what nvidia-smi reports by PCI address; if it fails, a note with the reason."""
    rows, note = query_nvidia_smi(_QUERY, timeout)
    return dict(map(_parse, rows)), note


def query_nvidia_smi(
    fields: tuple[str, ...], timeout: float = SMI_TIMEOUT
) -> tuple[list[list[str]], str]:
    """Return a row of values for each GPU; if nvidia-smi fails, a note with the reason."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    except OSError:
        return [], ""  # nvidia-smi is optional
    try:
        output, _ = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        child.kill()  # without waiting: a process that hangs in the driver doesn't die
        return [], f"nvidia-smi doesn't respond within {timeout:g} s"
    if child.returncode != 0:
        line = (output.strip().splitlines() or ["it printed nothing"])[0]
        return [], f"nvidia-smi fails ({child.returncode}): {line}"
    rows = csv.reader(output.splitlines(), skipinitialspace=True)
    return [row for row in rows if len(row) == len(fields)], ""


def _parse(row: list[str]) -> tuple[str, Properties]:
    """Parse a row of nvidia-smi; an unknown value reads [N/A]."""
    index, name, memory, capability, uuid, address = row
    vram = int(memory) * 2**20 if memory.isdigit() else 0
    capability = capability if re.fullmatch(r"\d+\.\d+", capability) else ""
    return _address(address), Properties(int(index), name, vram, capability, uuid)


def _from_driver(index: int, facts: dict[str, str]) -> Properties:
    """Return the properties without nvidia-smi; its order is the order of the PCI bus."""
    model = facts.get("Model", "")
    name = model if model not in ("", "Unknown") else _NAMELESS
    uuid = facts.get("GPU UUID", "")
    return Properties(index, name, 0, "", "" if "?" in uuid else uuid)


def _address(bus_id: str) -> str:
    """Return 0000:c8:00.0 for the 00000000:C8:00.0 that nvidia-smi prints."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _listed(root: Path) -> dict[str, dict[str, str]]:
    """Return what the driver's files say about each GPU, by PCI address."""
    listed: dict[str, dict[str, str]] = {}
    for path in under(root, LISTING).glob("*/information"):
        pairs = (line.partition(":") for line in read_text(path).splitlines())
        listed[_address(path.parent.name)] = {name: value.strip() for name, _, value in pairs}
    return listed


def _gpu(
    root: Path,
    address: str,
    facts: dict[str, str],
    properties: Properties,
    driver: str,
    user: User,
) -> Gpu:
    minor = facts.get("Device Minor", "")  # may differ from nvidia-smi's index
    node = f"/dev/nvidia{minor}" if minor.isdigit() else ""
    devices = tuple(path for path in ("/dev/nvidiactl", "/dev/nvidia-uvm", node) if path)
    problem = _problem(facts, properties, driver)
    if not problem.unusable:
        # A node that doesn't exist yet is created at first use, by the container toolkit.
        existing = [device for device in devices if under(root, device).exists()]
        problem = access_problem(root, existing, user)
    name = properties.name
    return Gpu(
        vendor=NVIDIA,
        index=properties.index,
        name=f"{_NAMELESS} at {address}" if name == _NAMELESS else name,
        target=properties.capability,
        vram_bytes=properties.vram_bytes,
        node=node,
        unusable=problem.unusable,
        fix=problem.fix,
        uuid=properties.uuid,
        devices=devices,
        gids=node_groups(root, devices, user),
    )


def _problem(facts: dict[str, str], properties: Properties, driver: str) -> Problem:
    """Return why CUDA can't use the GPU for any user, the hardest problem to fix first."""
    capability = properties.capability
    if capability and tuple(map(int, capability.split("."))) < OLDEST_CAPABILITY:
        oldest = ".".join(map(str, OLDEST_CAPABILITY))
        return Problem(f"CUDA 13 needs compute capability {oldest}, and it has {capability}")
    if driver and int(driver.split(".")[0]) < OLDEST_DRIVER:
        unusable = f"CUDA 13 needs NVIDIA's driver {OLDEST_DRIVER} or newer, and {driver} is loaded"
        return Problem(unusable, _INSTALL_DRIVER)
    if facts.get("GPU Excluded", facts.get("Blacklisted")) == "Yes":
        unusable = "NVIDIA's driver is configured to exclude it"
        return Problem(unusable, "cat /proc/driver/nvidia/params")
    return Problem()


def _undriven(address: str, driver: str, index: int) -> Gpu:
    """Return a GPU that is on the PCI bus and that NVIDIA's driver doesn't list."""
    if driver == "nvidia":
        unusable = f"NVIDIA's driver is bound to it, but {LISTING} doesn't list it"
        fix = "if this is a container, start it with --gpus all"
    else:
        unusable = f"NVIDIA's driver isn't loaded: {driver_state(driver)}"
        fix = _INSTALL_DRIVER
    return Gpu(NVIDIA, index, f"{_NAMELESS} at {address}", unusable=unusable, fix=fix)
