"""`invoke preflight`: each check with a machine that is fine and one that isn't; seats for real."""

import json
import os
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
from common.cards import Card
from launcher.engine import client as engine
from launcher.engine.client import Engine
from launcher.gpu import health as gpu_health
from launcher.gpu.model import Gpu
from launcher.notebook import run as notebook
from launcher.preflight import checks as preflight_checks
from launcher.preflight import run as preflight
from launcher.preflight import seats
from launcher.preflight.findings import FIX, NOTE, OK, Finding
from launcher.preflight.seats import Measurement
from launcher.run.file_owner import file_owner
from launcher.run.placement import Placement
from tests.conftest import Clone, containers_of

import pytest


def put_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, script: str) -> None:
    """Put a program in front of the real one."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "101", "²"])
def test_an_impossible_number_of_seats_is_refused(text: str) -> None:
    with pytest.raises(Card, match="--seats can't be") as caught:
        preflight.run(text, as_json=False)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("script", "state", "text"),
    [
        ("echo 2.26.1-4", OK, "2.26.1-4"),
        ("echo v2.20.0", OK, "v2.20.0"),
        ("echo 2.19.9", FIX, "2.20 or newer"),
        (
            "echo >&2 \"docker: 'compose' is not a docker command\"; exit 1",
            FIX,
            "plugin is missing",
        ),
    ],
)
def test_compose_must_be_there_and_new_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, state: str, text: str
) -> None:
    put_on_path(monkeypatch, tmp_path, "docker", script)
    found = preflight_checks.compose()
    assert found.state == state and text in found.value
    assert bool(found.fix) == (state == FIX)


def test_a_missing_docker_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert preflight_checks.compose() == Finding(
        "compose",
        "the docker command is missing",
        FIX,
        "sudo apt-get install docker-compose-v2 (elsewhere docker-compose-plugin, docker-compose)",
    )


def test_memory_has_to_suffice_for_a_lab_beside_the_seats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight_checks, "read_memory", lambda: (16 * 10**9, 6 * 10**9))
    few = preflight_checks.memory(4)
    assert few.state == OK and "enough for 2 labs of 2.5 GB at once beside 4 seats" in few.value
    many = preflight_checks.memory(30)
    assert many.state == FIX and "7.0 GB needed" in many.value and many.fix


def test_the_disk_of_a_missing_image_needs_more_space(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9e9, 7e9, 2e9))
    here = Engine(docker, rootless=False, root_dir="/tmp")  # type: ignore[arg-type]
    (runs,) = preflight_checks.disks(here, "", seats=0)
    assert runs.state == OK
    _, image = preflight_checks.disks(here, "cpu", seats=0)
    assert image.state == FIX and "2.0 GB free for /tmp, 3.0 GB needed: too little" in image.value
    (seats,) = preflight_checks.disks(here, "", seats=30)
    assert seats.state == FIX
    elsewhere = Engine(docker, rootless=False, root_dir="/nonexistent")  # type: ignore[arg-type]
    assert len(preflight_checks.disks(elsewhere, "cpu", seats=0)) == 1, "another machine's disk"


def test_each_seat_needs_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight_checks, "free_ports", lambda: iter([8888, 8890]))
    assert preflight_checks.ports(2).state == OK
    assert preflight_checks.ports(3).state == FIX
    monkeypatch.setattr(preflight_checks, "free_ports", lambda: iter([]))
    assert preflight_checks.ports(0).state == FIX


class Clocks:
    """An engine's client with a clock."""

    def __init__(self, system_time: str) -> None:
        self.system_time = system_time

    def info(self) -> dict[str, Any]:
        return {"SystemTime": self.system_time}


def test_the_clock_is_compared_with_the_engines_and_with_the_clone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def clock(system_time: str) -> Finding:
        here = Engine(Clocks(system_time), rootless=False, root_dir="")  # type: ignore[arg-type]
        return preflight_checks.clock(here)

    monkeypatch.setattr(preflight_checks.time, "time", lambda: 4_102_444_800.0)  # 2100
    assert clock("2100-01-01T00:00:01.123456789Z").state == OK
    assert clock("2100-01-01T01:00:00.5+01:00").state == OK
    late = clock("2100-01-01T00:01:00.999Z")
    assert late.state == FIX and "60 s from the engine's clock" in late.value
    monkeypatch.setattr(preflight_checks.time, "time", lambda: 1.0)
    assert "earlier than the clone's files" in preflight_checks.clock(None).value


# GPUs

MI300X = Gpu("amd", 0, "AMD MI300X", vram_bytes=192 * 2**30, node="/dev/dri/renderD128")
H100 = Gpu("nvidia", 1, "H100", vram_bytes=80 * 2**30, node="/dev/nvidia1", uuid="GPU-b")


def amd_health(root: Path, **files: str) -> gpu_health.Health:
    device = root / "sys" / "class" / "drm" / "renderD128" / "device"
    for name, text in files.items():
        path = device / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return gpu_health.read_amd(root, MI300X)


def test_an_amd_gpus_health_is_read_from_sysfs(tmp_path: Path) -> None:
    found = amd_health(
        tmp_path,
        ras__umc_err_count="ue: 0\nce: 3\n",
        ras__gfx_err_count="ue: 0\nce: 0\n",
        hwmon__hwmon4__temp1_input="41000\n",
        mem_info_vram_used="1073741824\n",
    )
    assert found == gpu_health.Health(41, 2**30, 0)
    fine = gpu_health.find(MI300X, found)
    assert fine.state == OK
    assert "41 °C, 1.0 GiB in use, 0 uncorrected memory errors" in fine.value
    assert amd_health(tmp_path, ras__gfx_err_count="ue: 2\nce: 0\n").uncorrected_errors == 2


def test_a_gpu_that_reports_nothing_counts_as_fine(tmp_path: Path) -> None:
    found = gpu_health.find(MI300X, gpu_health.read_amd(tmp_path, MI300X))
    assert found.state == OK and "its health is unknown" in found.value


def test_memory_errors_and_other_programs_are_to_be_fixed() -> None:
    errors = gpu_health.find(H100, gpu_health.Health(50, 0, 7))
    assert errors.state == FIX and "LABS_GPUS" in errors.fix
    used = gpu_health.find(MI300X, gpu_health.Health(50, 100 * 2**30, 0))
    assert used.state == FIX and used.fix.startswith("sudo fuser -v /dev/dri/renderD128")


def test_an_unusable_gpu_is_to_be_fixed_unless_it_is_integrated() -> None:
    unusable = Gpu("amd", 0, "AMD GPU", unusable="no driver", fix="sudo modprobe amdgpu")
    assert gpu_health.find(unusable, gpu_health.Health()) == Finding(
        "amd 0", "AMD GPU, unknown: no driver", FIX, "sudo modprobe amdgpu"
    )
    integrated = Gpu("amd", 0, "AMD GPU", unusable="no driver", integrated=True)
    assert gpu_health.find(integrated, gpu_health.Health()).state == NOTE


def test_nvidias_health_is_what_nvidia_smi_reports(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = "GPU-a, 36, 4, 0\\nGPU-b, [N/A], 512, [N/A]\\n"
    put_on_path(monkeypatch, tmp_path, "nvidia-smi", f"printf '{rows}'")
    assert gpu_health.read_nvidia() == {
        "GPU-a": gpu_health.Health(36, 4 * 2**20, 0),
        "GPU-b": gpu_health.Health(None, 512 * 2**20, None),
    }
    put_on_path(monkeypatch, tmp_path, "nvidia-smi", "exit 9")
    assert gpu_health.read_nvidia() == {}


# The report


def test_the_report_ends_with_what_to_fix() -> None:
    bad = [Finding("disk", "too little", FIX, "df -h"), Finding("ports", "none", FIX, "ss -ltnp")]
    assert preflight._summary(bad) == "\nTo fix:\n1. disk: df -h\n2. ports: ss -ltnp"
    assert preflight._summary([]) == "\nNothing is to be fixed."


def test_seats_that_fail_are_counted_by_their_reason() -> None:
    measured = Measurement(4, 2, 3.1, 4.2, 130_000_000, 150_000_000, {"it ended with 1: x": 2})
    found = preflight._judge_seats(measured)
    assert found.state == FIX and found.fix == "invoke preflight --seats 2"
    assert found.value == (
        "2 of 4 ready after 3.1 s (median), 4.2 s (worst), 130 MB (median), 150 MB (worst) of "
        "memory each; failed: 2 × it ended with 1: x"
    )


def test_seats_are_not_started_without_memory_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight_checks, "read_memory", lambda: (10**10, 10**9))
    here = Engine(docker, rootless=False, root_dir="")  # type: ignore[arg-type]
    placement = Placement("cpu", (), file_owner(), "")
    found = preflight.Preflight(30)._try_seats(here, placement, "")
    assert found.state == FIX and "not tried: 4.5 GB of memory" in found.value
    assert found.fix == "invoke preflight --seats 6", "as many as fit"
    monkeypatch.setattr(preflight_checks, "read_memory", lambda: (10**10, 10**8))
    found = preflight.Preflight(1)._try_seats(here, placement, "")
    assert found.state == FIX and found.fix.startswith("free -h")


def test_without_an_engine_the_machine_is_not_ready(clone: Clone) -> None:
    how = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    ended = clone.invoke("preflight", "--json", "--seats", "3", **how)
    assert ended.code == 1, ended
    record = json.loads(ended.out)
    assert record["ready"] is False and record["seats"] is None
    assert record["machine"] and record["version"] and record["time"].endswith("+00:00")
    found = {one["name"]: one for one in record["findings"]}
    assert found["engine"]["state"] == "fix" and "unset DOCKER_HOST" in found["engine"]["fix"]
    assert found["seats"]["state"] == "fix"
    assert found["python"]["state"] == "ok"
    told = clone.invoke("preflight", **how)
    assert told.code == 1, told
    assert "✗ engine" in told.out and "\nTo fix:\n1. " in told.out


# Seats, for real


def networks() -> list[str]:
    client = docker.from_env()
    try:
        return [one.name for one in client.networks.list(filters={"label": notebook.LABEL})]
    finally:
        client.close()


@pytest.mark.engine
def test_two_seats_start_are_measured_and_removed(clone: Clone) -> None:
    built = clone.invoke("build", "--notebook", "--runtime", "docker")
    assert built.code == 0, built
    ended = clone.invoke("preflight", "--seats", "2", "--json")
    record = json.loads(ended.out)
    found = {one["name"]: one for one in record["findings"]}
    assert found["lab"]["state"] == "ok", ended
    assert found["seats"]["state"] == "ok", ended
    measured = record["seats"]
    assert measured["seats"] == measured["ready"] == 2 and measured["failures"] == {}
    assert 0 < measured["median_seconds"] <= measured["worst_seconds"]
    assert 50e6 < measured["median_memory"] <= measured["worst_memory"]
    assert containers_of(clone) == []
    assert not [name for name in networks() if "preflight" in name]
    assert not (clone.path / "outputs").exists() or not list(clone.outputs.rglob("report.html"))


@pytest.mark.engine
def test_a_seat_whose_server_ends_is_a_failure_with_its_last_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = seats.lab_service.container_spec

    def broken(*arguments: Any) -> Any:
        command = ("--ip=0.0.0.0", "--no-such-option=1", "--port=none")
        return replace(real(*arguments), command=command)

    monkeypatch.setattr(seats.lab_service, "container_spec", broken)
    placement = Placement("cpu", (), file_owner(), "")
    measured = seats.measure(engine.connect(), placement, 2, "")
    assert measured.ready == 0 and measured.median_seconds is None
    ((reason, count),) = measured.failures.items()
    assert count == 2 and reason.startswith("it ended with 2: "), measured
    assert "unrecognized arguments: --no-such-option" in reason
    assert not [name for name in networks() if "preflight" in name]
