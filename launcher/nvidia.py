"""NVIDIA's GPUs, as the driver lists them in /proc; nvidia-smi adds memory and capability."""

import csv
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from launcher.hardware import (
    NVIDIA,
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

LISTING = "/proc/driver/nvidia/gpus"
OLDEST_DRIVER = 580  # CUDA 13's
OLDEST_CAPABILITY = (7, 5)  # CUDA 13 builds for nothing older
SECONDS_TO_ANSWER = 10
_QUERY = ("index", "name", "memory.total", "compute_cap", "uuid", "pci.bus_id")


@dataclass(frozen=True)
class Told:
    """What nvidia-smi says of a GPU."""

    index: int
    name: str
    vram_bytes: int
    capability: str
    uuid: str


def find(root: Path, user: User, ask: bool) -> Found:
    """The GPUs that the driver lists; where it lists none, those that are on the PCI bus."""
    listed = _listed(root)
    if not listed:
        gpus = tuple(_undriven(*one, index) for index, one in enumerate(on_the_bus(root, NVIDIA)))
        seen = "has no GPU" if below(root, "/proc/driver/nvidia").exists() else "is missing"
        return Found(gpus, absence="" if gpus else f"/proc/driver/nvidia {seen}")
    told, note = nvidia_smi() if ask else ({}, "")
    driver = driver_version(root)
    gpus = [
        _gpu(root, place, facts, told.get(place) or _untold(index, facts), driver, user)
        for index, (place, facts) in enumerate(sorted(listed.items()))
    ]
    absent = sorted({one for gpu in gpus for one in gpu.devices if not below(root, one).exists()})
    notes = [f"{one} isn't there yet: sudo nvidia-modprobe -c0 -u makes it" for one in absent]
    notes += [note] if note else []
    return Found(tuple(sorted(gpus, key=lambda gpu: gpu.index)), tuple(notes))


def driver_version(root: Path) -> str:
    """580.95.05, from the line that the proprietary and the open module word differently."""
    said = text(below(root, "/proc/driver/nvidia/version"))
    said = said or text(below(root, "/sys/module/nvidia/version"))
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", said)
    return found[0] if found else ""


def nvidia_smi(seconds: float = SECONDS_TO_ANSWER) -> tuple[dict[str, Told], str]:
    """What nvidia-smi says of each GPU, by its place on the bus; else a note why it doesn't."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    except OSError:
        return {}, ""  # not installed: nothing of NVIDIA's has to be
    try:
        said, _ = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()  # not waited for: one that hangs in the driver doesn't die
        return {}, f"nvidia-smi doesn't answer within {seconds:g} s"
    if child.returncode != 0:
        line = (said.strip().splitlines() or ["it says nothing"])[0]
        return {}, f"nvidia-smi fails ({child.returncode}): {line}"
    rows = csv.reader(said.splitlines(), skipinitialspace=True)
    return dict(_told(row) for row in rows if len(row) == len(_QUERY)), ""


def _told(row: list[str]) -> tuple[str, Told]:
    """A row; what a card can't tell reads [N/A]."""
    index, name, memory, capability, uuid, place = row
    vram = int(memory) * 2**20 if memory.isdigit() else 0
    capability = capability if re.fullmatch(r"\d+\.\d+", capability) else ""
    return _place(place), Told(int(index), name, vram, capability, uuid)


def _untold(index: int, facts: dict[str, str]) -> Told:
    """Without nvidia-smi: its order is that of the bus."""
    model = facts.get("Model", "")
    name = model if model not in ("", "Unknown") else "NVIDIA GPU"
    uuid = facts.get("GPU UUID", "")
    return Told(index, name, 0, "", "" if "?" in uuid else uuid)


def _place(bus_id: str) -> str:
    """0000:c8:00.0, where nvidia-smi writes 00000000:C8:00.0."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _listed(root: Path) -> dict[str, dict[str, str]]:
    """What the driver's files say, by the place on the bus that their folders are named for."""
    listed: dict[str, dict[str, str]] = {}
    for path in below(root, LISTING).glob("*/information"):
        pairs = (line.partition(":") for line in text(path).splitlines())
        listed[_place(path.parent.name)] = {name: value.strip() for name, _, value in pairs}
    return listed


def _gpu(root: Path, place: str, facts: dict[str, str], told: Told, driver: str, user: User) -> Gpu:
    minor = facts.get("Device Minor", "")  # nvidia-smi's index needn't be the same
    node = f"/dev/nvidia{minor}" if minor.isdigit() else ""
    devices = tuple(one for one in ("/dev/nvidiactl", "/dev/nvidia-uvm", node) if one)
    problem = _problem(facts, told, driver)
    if not problem.unusable:
        # Nodes that aren't there yet are made on first use, by whoever gives them to a container.
        there = [device for device in devices if below(root, device).exists()]
        problem = refusal(root, there, user)
    return Gpu(
        vendor=NVIDIA,
        index=told.index,
        name=told.name if told.name != "NVIDIA GPU" else f"NVIDIA GPU at {place}",
        target=told.capability,
        vram_bytes=told.vram_bytes,
        node=node,
        unusable=problem.unusable,
        remedy=problem.remedy,
        uuid=told.uuid,
        devices=devices,
        gids=gids(root, devices, user),
    )


def _problem(facts: dict[str, str], told: Told, driver: str) -> Problem:
    """Why CUDA can't use the GPU, whoever asks; the hardest to mend first."""
    if told.capability and tuple(map(int, told.capability.split("."))) < OLDEST_CAPABILITY:
        oldest = ".".join(map(str, OLDEST_CAPABILITY))
        return Problem(f"CUDA 13 needs compute capability {oldest}, and it has {told.capability}")
    if driver and int(driver.split(".")[0]) < OLDEST_DRIVER:
        unusable = f"CUDA 13 needs NVIDIA's driver {OLDEST_DRIVER} or newer, and {driver} is loaded"
        return Problem(unusable, _install())
    if facts.get("GPU Excluded", facts.get("Blacklisted")) == "Yes":
        return Problem(
            "NVIDIA's driver is told to leave it alone", "cat /proc/driver/nvidia/params"
        )
    return Problem()


def _install() -> str:
    return f"install NVIDIA's driver {OLDEST_DRIVER} or newer, and restart"


def _undriven(place: str, driver: str, index: int) -> Gpu:
    """A GPU that the PCI bus has and NVIDIA's driver doesn't list."""
    if driver == "nvidia":
        unusable = f"NVIDIA's driver has it, but {LISTING} doesn't list it, as in a container"
        remedy = "if this is a container, start it with --gpus all"
    else:
        now = f"{driver} has it" if driver else "nothing drives it"
        unusable, remedy = f"NVIDIA's driver isn't loaded: {now}", _install()
    return Gpu(NVIDIA, index, f"NVIDIA GPU at {place}", unusable=unusable, remedy=remedy)
