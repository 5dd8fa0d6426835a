"""The parts of a machine for `invoke accept`: driver, firmware, links, clocks, memory errors."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from launcher import preflight_checks
from launcher.amd_gpus import TOPOLOGY
from launcher.detect_gpus import THIS_MACHINE
from launcher.findings import FIX, NOTE, Finding, judge
from launcher.gpu import AMD, Gpu, read_text, under
from launcher.nvidia_gpus import driver_version, query_nvidia_smi

XGMI = 11  # the type of a link in KFD's topology
_NVIDIA = {
    "vbios": "vbios_version",
    "link generation": "pcie.link.gen.current",
    "link generation, most": "pcie.link.gen.max",
    "link width": "pcie.link.width.current",
    "link width, most": "pcie.link.width.max",
    "clock": "clocks.sm",
    "memory clock": "clocks.mem",
    "corrected memory errors": "ecc.errors.corrected.volatile.total",
}
_AMD = {
    "vbios": "vbios_version",
    "link speed": "current_link_speed",
    "link speed, most": "max_link_speed",
    "link width": "current_link_width",
    "link width, most": "max_link_width",
}


def machine(root: Path = THIS_MACHINE) -> dict[str, str]:
    """Return what is known of the machine; a value that can't be read is left out."""
    cpu = read_text(under(root, "/proc/cpuinfo"))
    dmi = under(root, "/sys/class/dmi/id")
    frequency = under(root, "/sys/devices/system/cpu/cpu0/cpufreq")
    total, _ = preflight_checks.read_memory()
    found = {
        "CPU": _field(cpu, "model name"),
        "microcode": _field(cpu, "microcode"),
        "cores that may be used": str(len(os.sched_getaffinity(0))),
        "governor": read_text(frequency / "scaling_governor"),
        "highest clock": _megahertz(read_text(frequency / "cpuinfo_max_freq")),
        "memory": f"{total / 2**30:.1f} GiB",
        "system": read_text(dmi / "product_name"),
        "BIOS": read_text(dmi / "bios_version"),
        "kernel": read_text(under(root, "/proc/sys/kernel/osrelease")),
        "amdgpu": read_text(under(root, "/sys/module/amdgpu/version")),
        "NVIDIA's driver": driver_version(root),
    }
    return {name: value for name, value in found.items() if value}


def _field(text: str, name: str) -> str:
    match = re.search(rf"^{name}\s*: (.+)$", text, re.MULTILINE)
    return match[1] if match else ""


def _megahertz(kilohertz: str) -> str:
    return f"{int(kilohertz) // 1000} MHz" if kilohertz.isdecimal() else ""


def cards(gpus: Iterable[Gpu], root: Path = THIS_MACHINE) -> dict[str, dict[str, str]]:
    """Return what is known of each GPU, by its name for people: "amd 0"."""
    gpus = list(gpus)
    nvidia = _read_nvidia() if any(gpu.vendor != AMD for gpu in gpus) else {}
    return {
        card_name(gpu): {
            "GPU": gpu.name,
            "unique id": gpu.uuid,
            **(_read_amd(root, gpu) if gpu.vendor == AMD else nvidia.get(gpu.uuid, {})),
        }
        for gpu in gpus
    }


def card_name(gpu: Gpu) -> str:
    """Return the name of a GPU for people, as `invoke gpus` shows it."""
    return f"{gpu.vendor} {gpu.index}"


def _read_nvidia() -> dict[str, dict[str, str]]:
    rows, _ = query_nvidia_smi(("uuid", *_NVIDIA.values()))
    return {row[0]: _known(zip(_NVIDIA, row[1:], strict=True)) for row in rows}


def _read_amd(root: Path, gpu: Gpu) -> dict[str, str]:
    if not gpu.node:
        return {}
    minor = gpu.node.rpartition("/")[2]
    device = under(root, f"/sys/class/drm/{minor}/device")
    found = {name: read_text(device / file) for name, file in _AMD.items()}
    found["clock"] = _current(read_text(device / "pp_dpm_sclk"))
    found["memory clock"] = _current(read_text(device / "pp_dpm_mclk"))
    found["XGMI links"] = _xgmi_links(root, minor.removeprefix("renderD"))
    found["corrected memory errors"] = _corrected(device)
    firmware = sorted(device.glob("fw_version/*_fw_version"))
    found["firmware"] = ", ".join(
        f"{path.name.removesuffix('_fw_version')} {read_text(path)}" for path in firmware
    )
    return _known(found.items())


def _known(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value for name, value in pairs if value and value != "[N/A]"}


def _current(levels: str) -> str:
    """Return the clock that a file like pp_dpm_sclk marks: `1: 2100Mhz *`."""
    match = re.search(r"^\S+ (\S+) \*$", levels, re.MULTILINE)
    return match[1] if match else ""


def _corrected(device: Path) -> str:
    texts = [read_text(path) for path in device.glob("ras/*_err_count")]
    counts = [int(match[1]) for text in texts if (match := re.search(r"ce: (\d+)", text))]
    return str(sum(counts)) if counts else ""


def _xgmi_links(root: Path, minor: str) -> str:
    """Return how many links a GPU has to other GPUs, as KFD lists them."""
    for node in under(root, TOPOLOGY).glob("*"):
        if f"drm_render_minor {minor}\n" in f"{read_text(node / 'properties')}\n":
            links = [read_text(path) for path in node.glob("io_links/*/properties")]
            count = sum(bool(re.search(rf"^type {XGMI}$", text, re.MULTILINE)) for text in links)
            return str(count)
    return ""


def link_findings(known: dict[str, dict[str, str]]) -> list[Finding]:
    """Note cards whose link has fewer lanes than the card; an idle link may only be slower."""
    findings: list[Finding] = []
    for name, values in known.items():
        width, most = values.get("link width", ""), values.get("link width, most", "")
        if width.isdecimal() and most.isdecimal() and int(width) < int(most):
            text = f"its PCIe link has {width} of {most} lanes; a narrower slot, or a loose card"
            findings.append(Finding(name, text, NOTE))
    return findings


def memory_errors(root: Path = THIS_MACHINE) -> list[Finding]:
    """Check the counters of the host's memory errors (EDAC); none are listed without ECC."""
    folder = under(root, "/sys/devices/system/edac/mc")
    counts: dict[str, int] = {}
    for name in ("ue_count", "ce_count"):
        known = [read_text(path) for path in folder.glob(f"mc*/{name}")]
        if numbers := [int(text) for text in known if text.isdecimal()]:
            counts[name] = sum(numbers)
    if not counts:
        return [Finding("memory errors", "this kernel reports no counts (EDAC)", NOTE)]
    uncorrected = counts.get("ue_count", 0)
    value = f"{uncorrected} uncorrected, {counts.get('ce_count', 0)} corrected since the start"
    problem = "a module of memory is faulty" if uncorrected else ""
    return [judge("memory errors", value, problem, "ls /sys/devices/system/edac/mc/mc*/dimm*")]


def temperatures(root: Path = THIS_MACHINE) -> list[Finding]:
    """Read the sensors of the CPU: the hottest, and whether one is above its critical value."""
    found: list[tuple[int, bool]] = []
    for chip in under(root, "/sys/class/hwmon").glob("*"):
        if read_text(chip / "name") not in ("coretemp", "k10temp", "zenpower"):
            continue
        for sensor in chip.glob("temp*_input"):
            value = read_text(sensor)
            critical = read_text(chip / sensor.name.replace("input", "crit"))
            if value.isdecimal():
                too_hot = critical.isdecimal() and 0 < int(critical) <= int(value)
                found.append((int(value) // 1000, too_hot))
    if not found:
        return [Finding("CPU", "the kernel shows no temperature (hwmon)", NOTE)]
    hottest = f"{max(found)[0]} °C at the hottest sensor"
    if any(too_hot for _, too_hot in found):
        return [Finding("CPU", f"{hottest}: above its critical value", FIX, "check its cooling")]
    return [Finding("CPU", hottest)]


def as_data(gpus: Iterable[Gpu]) -> dict[str, Any]:
    """Return the inventory as JSON data."""
    return {"machine": machine(), "cards": cards(gpus)}
