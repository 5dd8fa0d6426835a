"""The checks of `invoke preflight` that look at the machine; each returns a finding."""

import os
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.processes import capture
from launcher import ROOT, settings
from launcher.engine import known_errors
from launcher.engine.client import Engine
from launcher.gpu import health as gpu_health
from launcher.gpu.access import User
from launcher.gpu.detect import THIS_MACHINE, detect
from launcher.gpu.model import AMD, read_text
from launcher.image.build import sizes_of
from launcher.notebook.server import PORTS, free_ports
from launcher.preflight.findings import FIX, NOTE, Finding, judge
from launcher.run.file_owner import file_owner
from launcher.run.placement import container_device_user

OLDEST_COMPOSE = (2, 20)
LAB_BYTES = 2_500_000_000  # the most that a lab needs
SEAT_BYTES = 150_000_000  # a learner's JupyterLab, without a notebook that runs
OUTPUTS_GB = 1  # for the runs of a day
SEAT_GB = 0.1  # for a learner's sheets and runs
CLOCK_SECONDS = 5  # between this machine and its engine


def python() -> Finding:
    """Check the Python that runs invoke."""
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    fix = "make .venv again with one of them: python3.12 -m venv .venv"
    return judge("python", version, "" if fits else "the labs need 3.11, 3.12 or 3.13", fix)


def no_engine(reason: str, has_environment: bool) -> Finding:
    """Return the finding on a machine without an engine."""
    if has_environment:
        return Finding("engine", f"{reason}; labs run in an environment", NOTE)
    fix = known_errors.no_engine().fix
    return Finding("engine", f"{reason}, and there is no environment", FIX, fix)


def engine_version(engine: Engine) -> Finding:
    """Name the engine that would run the labs."""
    version: dict[str, Any] = engine.client.version()
    names = [one.get("Name", "") for one in version.get("Components") or []]
    name = names[0] if names else "Engine"
    rootless = ", rootless" if engine.rootless else ""
    return Finding("engine", f"{name} {version['Version']}, API {version['ApiVersion']}{rootless}")


def compose() -> Finding:
    """Check Compose's version: it resolves compose.yaml."""
    fix = "sudo apt-get install docker-compose-v2 (elsewhere docker-compose-plugin, docker-compose)"
    try:
        result = capture(["docker", "compose", "version", "--short"], stderr=subprocess.DEVNULL)
    except OSError:
        return Finding("compose", "the docker command is missing", FIX, fix)
    version = result.stdout.strip()
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if result.returncode or numbers is None:
        return Finding("compose", "docker's compose plugin is missing", FIX, fix)
    old = (int(numbers[1]), int(numbers[2])) < OLDEST_COMPOSE
    return judge("compose", version, "compose.yaml needs 2.20 or newer" if old else "", fix)


def disks(engine: Engine | None, missing_stack: str, seats: int) -> list[Finding]:
    """Check the free space for runs and, if it is to be built, for the image."""
    setting = settings.find("LABS_OUTPUTS")
    outputs = ROOT / (setting.value if setting else "outputs")
    needed = [(outputs, OUTPUTS_GB + SEAT_GB * seats)]
    here = Path(engine.root_dir or "remote") if engine else ROOT
    if missing_stack and here.exists():
        sizes = sizes_of(missing_stack)
        needed.append((here, sizes.image_gb if engine else sizes.environment_gb))
    return [_disk(path, gigabytes) for path, gigabytes in needed]


def _disk(path: Path, needed_gb: float) -> Finding:
    folder = next(parent for parent in (path, *path.parents) if parent.is_dir())
    free = shutil.disk_usage(folder).free / 1e9
    value = f"{free:.1f} GB free for {path}, {needed_gb:.1f} GB needed"
    fix = f"df -h {folder}; to free the engine's own space: docker system prune"
    return judge("disk", value, "too little" if free < needed_gb else "", fix)


def memory(seats: int) -> Finding:
    """Check the available memory for one lab that runs, and for the seats."""
    total, available = read_memory()
    needed = LAB_BYTES + seats * SEAT_BYTES
    value = f"{available / 1e9:.1f} of {total / 1e9:.1f} GB available"
    running = max(0, available - seats * SEAT_BYTES) // LAB_BYTES
    value += f", enough for {running} labs of {LAB_BYTES / 1e9} GB at once"
    value += f" beside {seats} seats" if seats else ""
    problem = f"too little, {needed / 1e9:.1f} GB needed" if available < needed else ""
    return judge("memory", value, problem, "ps aux --sort=-rss | head, then end what isn't needed")


def read_memory() -> tuple[int, int]:
    """Return the bytes of memory that this machine has, and that are available."""
    text = Path("/proc/meminfo").read_text(encoding="utf-8")
    kib = dict(re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE))
    return int(kib["MemTotal"]) * 1024, int(kib["MemAvailable"]) * 1024


def cores(engine: Engine | None) -> Finding:
    """Name the CPU cores of this process and of the engine."""
    count = len(os.sched_getaffinity(0))
    theirs = engine.cpus if engine else 0
    value = f"{count}, load {os.getloadavg()[0]:.1f}"
    value += f"; the engine has {theirs}" if theirs not in (0, count) else ""
    return Finding("cores", value)


def gpus(engine: Engine | None) -> list[Finding]:
    """Check each GPU, for the user who opens its nodes."""
    user = User.caller()
    if engine is not None:
        user = container_device_user(engine.rootless, file_owner())
    machine = detect(user=user)
    notes = [Finding("gpus", note, NOTE) for note in machine.notes]
    if not machine.gpus:
        return [Finding("gpus", "; ".join(machine.absences)), *notes]
    nvidia = gpu_health.read_nvidia() if machine.nvidia else {}
    unknown = gpu_health.Health()
    healths = [
        gpu_health.read_amd(THIS_MACHINE, gpu)
        if gpu.vendor == AMD
        else nvidia.get(gpu.uuid, unknown)
        for gpu in machine.gpus
    ]
    return [*map(gpu_health.find, machine.gpus, healths), *notes]


def ports(seats: int) -> Finding:
    """Check that there are ports for notebooks."""
    free = len(list(free_ports()))
    value = f"{free} of {len(PORTS)} free from {PORTS[0]} on"
    fix = f"ss -ltnp names the programs that listen on {PORTS[0]} to {PORTS[-1]}"
    return judge("ports", value, "too few" if free < max(seats, 1) else "", fix)


def clock(engine: Engine | None) -> Finding:
    """Compare the clock with the clone's files and with the engine's clock."""
    now = time.time()
    theirs = engine.client.info().get("SystemTime", "") if engine else ""
    value = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    value += "" if _is_synchronised() else ", not synchronised with a time server"
    if now < (ROOT / "compose.yaml").stat().st_mtime:
        fix = "sudo date --set 'YYYY-MM-DD HH:MM'"
        return Finding("clock", f"{value}: earlier than the clone's files", FIX, fix)
    drift = abs(_seconds(theirs) - now) if theirs else 0
    problem = f"{drift:.0f} s from the engine's clock" if drift > CLOCK_SECONDS else ""
    return judge("clock", value, problem, "restart the machine that runs the engine: docker info")


def _is_synchronised() -> bool:
    command = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    try:
        return capture(command, stderr=subprocess.DEVNULL).stdout.strip() == "yes"
    except OSError:
        return False


def _seconds(text: str) -> float:
    """Return the time of an engine, which writes nanoseconds, in seconds since 1970."""
    cut = re.sub(r"\.\d+", "", text)
    return datetime.fromisoformat(cut).timestamp()


def host_name() -> str:
    """Return the name of this machine."""
    return read_text(Path("/proc/sys/kernel/hostname"))
