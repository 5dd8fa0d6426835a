"""`invoke lab` and `docker compose run` on hosts with GPUs, for users without privileges."""

import json
import os
import shlex
import signal
from typing import Any

from tests.conftest import SOMEBODY, Clone, Ended, Running
from tests.launcher.compare_containers import differences, inspected_settings
from tests.launcher.device_trees import GIB, cpu_node, nvidia_driver
from tests.launcher.gpu_host import (
    FIRST,
    KFD,
    OPEN_NODES,
    RENDER,
    SECOND,
    Host,
    add_gpu,
    add_kfd,
    opened_nodes,
    specification,
)

import pytest

pytestmark = pytest.mark.engine


@pytest.fixture
def theirs(small_clone: Clone) -> Clone:
    """Return a clone that belongs to SOMEBODY, with a lab that opens nodes."""
    small_clone.bare_lab(OPEN_NODES)
    small_clone.make_folders()
    small_clone.give_to(SOMEBODY)
    return small_clone


NODES = ("--", "--word", KFD, FIRST, SECOND)


def test_a_lab_of_an_ordinary_user_opens_its_gpu_and_no_other(theirs: Clone, mi300x: Host) -> None:
    lines, seen = opened_nodes(mi300x.invoke(theirs, "lab", "LLM91", *NODES).ended())
    assert lines == [f"opened {KFD}", f"opened {FIRST}", f"FileNotFoundError {SECOND}"]
    assert seen["uid"] == SOMEBODY
    assert sorted(seen["groups"]) == [SOMEBODY, RENDER]
    assert seen["shown"] == {}, "a filter beside isolation would filter twice"


def test_the_second_gpu_can_be_attached_alone(theirs: Clone, mi300x: Host) -> None:
    lines, _ = opened_nodes(mi300x.invoke(theirs, "lab", "LLM91", "--gpus", "1,", *NODES).ended())
    assert lines == [f"opened {KFD}", f"FileNotFoundError {FIRST}", f"opened {SECOND}"]


def test_the_assignment_of_a_batch_system_is_respected_and_reported(
    theirs: Clone, mi300x: Host
) -> None:
    words = ("lab", "LLM91", *NODES)
    ended = mi300x.invoke(theirs, *words, ROCR_VISIBLE_DEVICES="1").ended()
    lines, seen = opened_nodes(ended)
    assert lines == [f"opened {KFD}", f"FileNotFoundError {FIRST}", f"opened {SECOND}"]
    assert "ROCR_VISIBLE_DEVICES=1 leaves GPU 1" in ended.err
    assert seen["shown"] == {}


def test_no_gpu_is_attached_if_none_is_requested(theirs: Clone, mi300x: Host) -> None:
    ended = mi300x.invoke(theirs, "lab", "LLM91", "--gpus", "none", *NODES).ended()
    _, seen = opened_nodes(ended)
    assert seen["nodes"] == []
    assert "cpu stack, because no GPU was asked for" in ended.err


def refused(ended: Ended, *said: str) -> None:
    """Check that a command ended in a card with these words, and ran nothing."""
    assert ended.code == 3, ended
    assert ended.out == "", ended
    assert "Traceback" not in ended.err
    for one in ("what: ", "why: ", "fix: ", *said):
        assert one in ended.err, ended


def test_a_node_closed_to_its_group_is_a_card_and_not_a_cpu_run(
    theirs: Clone, mi300x: Host
) -> None:
    (mi300x.root / KFD.lstrip("/")).chmod(0o600)
    ended = mi300x.invoke(theirs, "lab", "LLM91").ended()
    refused(
        ended, "This machine has 2 GPUs, and none", "its group may not either", "chmod 660 /dev/kfd"
    )


def test_a_missing_node_is_a_card(theirs: Clone, mi300x: Host) -> None:
    (mi300x.root / KFD.lstrip("/")).unlink()
    ended = mi300x.invoke(theirs, "lab", "LLM91").ended()
    refused(ended, "/dev/kfd is missing, although /sys/class/kfd lists the GPU", "modprobe amdgpu")


@pytest.mark.parametrize("runtime", ["docker", "venv"])
def test_a_gfx_target_that_the_image_lacks_is_a_card(
    theirs: Clone, mi300x: Host, runtime: str
) -> None:
    how = {**mi300x.somebody(theirs, RENDER), "LABS_GFX": "gfx90a"}
    words = ("--dry", "lab", "LLM91", "--runtime", runtime)
    ended = mi300x.invoke(theirs, *words, **how).ended()
    refused(ended, "is for gfx90a, and the GPU is a gfx942", "LABS_GFX=gfx942 invoke lab")
    every = mi300x.invoke(theirs, *words, **{**how, "LABS_GFX": "all"}).ended()
    assert every.code == 0, every


def test_a_missing_node_of_one_gpu_leaves_the_other_gpu(theirs: Clone, mi300x: Host) -> None:
    (mi300x.root / FIRST.lstrip("/")).unlink()
    lines, _ = opened_nodes(mi300x.invoke(theirs, "lab", "LLM91", *NODES).ended())
    assert lines == [f"opened {KFD}", f"FileNotFoundError {FIRST}", f"opened {SECOND}"]


def test_outside_a_container_a_user_needs_the_group_of_the_nodes(
    theirs: Clone, mi300x: Host
) -> None:
    words = ("--dry", "lab", "LLM91", "--runtime", "venv")
    for groups in ((), (RENDER + 1,)):
        ended = mi300x.invoke(theirs, *words, **mi300x.somebody(theirs, *groups)).ended()
        refused(ended, f"uid {SOMEBODY} may not open /dev/kfd and", f"not in group {RENDER}")
    ended = mi300x.invoke(theirs, *words, **mi300x.somebody(theirs, RENDER)).ended()
    assert ended.code == 0, ended
    assert "ROCR_VISIBLE_DEVICES=0 HIP_VISIBLE_DEVICES=0" in ended.out.splitlines()[-1]


# Compose alone


def dotenv(host: Host, clone: Clone, *groups: int) -> None:
    written = host.invoke(clone, "dotenv", **host.somebody(clone, *groups)).ended()
    assert written.code == 0, written


COMPOSE = ("run", "--rm", "-T", "rocm", "LLM91", *NODES[1:])


def test_compose_alone_opens_the_gpus_with_the_file_of_dotenv(theirs: Clone, mi300x: Host) -> None:
    dotenv(mi300x, theirs)
    lines, seen = opened_nodes(mi300x.compose(theirs, *COMPOSE).ended())
    assert lines == [f"opened {KFD}", f"opened {FIRST}", f"opened {SECOND}"]
    assert seen["uid"] == SOMEBODY
    one = mi300x.compose(theirs, *COMPOSE, LABS_RENDER_NODES=SECOND).ended()
    assert opened_nodes(one)[0] == [
        f"opened {KFD}",
        f"FileNotFoundError {FIRST}",
        f"opened {SECOND}",
    ]


def test_compose_with_a_wrong_group_can_not_open_the_nodes(theirs: Clone, mi300x: Host) -> None:
    dotenv(mi300x, theirs)
    lines, seen = opened_nodes(mi300x.compose(theirs, *COMPOSE, LABS_RENDER_GID="4343").ended())
    assert lines == [f"PermissionError {one}" for one in (KFD, FIRST, SECOND)]
    assert 4343 in seen["groups"] and RENDER not in seen["groups"]


def test_compose_can_not_open_a_node_closed_to_its_group(theirs: Clone, mi300x: Host) -> None:
    dotenv(mi300x, theirs)
    (mi300x.root / KFD.lstrip("/")).chmod(0o600)
    lines, _ = opened_nodes(mi300x.compose(theirs, *COMPOSE).ended())
    assert lines[0] == f"PermissionError {KFD}"


def test_compose_fails_if_a_node_is_missing(theirs: Clone, mi300x: Host) -> None:
    dotenv(mi300x, theirs)
    (mi300x.root / KFD.lstrip("/")).unlink()
    ended = mi300x.compose(theirs, *COMPOSE).ended()
    assert ended.code != 0
    assert "error gathering device information" in ended.err and KFD in ended.err


# GPUs by CDI and by a runtime


def test_gpus_are_attached_by_cdi_on_request(theirs: Clone, mi300x: Host) -> None:
    specification(mi300x, FIRST, SECOND)
    words = ("lab", "LLM91", "--gpus", "1,", *NODES)
    lines, seen = opened_nodes(mi300x.invoke(theirs, *words, LABS_DEVICES="cdi").ended())
    assert lines == [f"opened {KFD}", f"FileNotFoundError {FIRST}", f"opened {SECOND}"]
    assert sorted(seen["groups"]) == [SOMEBODY, RENDER]


def test_compose_attaches_gpus_by_cdi(theirs: Clone, mi300x: Host) -> None:
    """Change compose.yaml as its comment explains."""
    specification(mi300x, FIRST, SECOND)
    dotenv(mi300x, theirs)
    nodes = "    devices:\n      - /dev/kfd\n      - ${LABS_RENDER_NODES:-/dev/dri}\n"
    theirs.change("compose.yaml", nodes, "")
    theirs.change("compose.yaml", "    #   deploy: {", "    deploy: {")
    theirs.change(
        "compose.yaml",
        '    #     { driver: cdi, device_ids: ["amd',
        '      { driver: cdi, device_ids: ["amd',
    )
    lines, seen = opened_nodes(mi300x.compose(theirs, *COMPOSE).ended())
    assert lines == [f"opened {KFD}", f"opened {FIRST}", f"FileNotFoundError {SECOND}"]
    assert RENDER in seen["groups"]


def test_a_gpu_without_a_cdi_specification_is_a_card(theirs: Clone, mi300x: Host) -> None:
    ended = mi300x.invoke(theirs, "lab", "LLM91", LABS_DEVICES="cdi").ended()
    refused(ended, "The engine knows no CDI device of that name.", "amd-ctk cdi generate")


def test_the_runtime_of_amds_toolkit_gets_the_gpu_number(theirs: Clone, mi300x: Host) -> None:
    words = ("lab", "LLM91", "--gpus", "1,", *NODES)
    _, seen = opened_nodes(mi300x.invoke(theirs, *words, LABS_DEVICES="runtime").ended())
    assert seen["shown"] == {"AMD_VISIBLE_DEVICES": "1"}


# NVIDIA


def test_an_nvidia_gpu_is_requested_by_its_uuid(theirs: Clone, h100: Host) -> None:
    ended = h100.invoke(theirs, "lab", "LLM91", "--gpus", "1,", *NODES).ended()
    _, seen = opened_nodes(ended)
    assert seen["shown"]["NVIDIA_VISIBLE_DEVICES"] == "GPU-bbbbbbbb-0000-0000-0000-000000000000"
    assert "NVIDIA's driver 580.95.05 lists 2 × NVIDIA H100 80GB HBM3" in ended.err


def test_compose_requests_the_nvidia_gpus(theirs: Clone, h100: Host) -> None:
    dotenv(h100, theirs)
    words = ("run", "--rm", "-T", "cuda", "LLM91", "--word")
    assert opened_nodes(h100.compose(theirs, *words).ended())[1]["shown"] == {
        "NVIDIA_VISIBLE_DEVICES": "all"
    }


def test_an_old_driver_is_a_card(theirs: Clone, h100: Host) -> None:
    nvidia_driver(h100.root, "550.54.14")
    ended = h100.invoke(theirs, "lab", "LLM91").ended()
    refused(ended, "CUDA 13 needs NVIDIA's driver 580 or newer, and 550.54.14 is loaded")


# Three ways to start a container


def inspected(host: Host, running: Running, clone: Clone) -> dict[str, Any]:
    """Return the settings of the only running container, then let the lab end."""
    running.wait_for("begun")
    (one,) = host.containers()
    seen = inspected_settings(one.attrs)
    (clone.outputs / "go").touch()
    assert running.ended().code == 0, running.text
    (clone.outputs / "go").unlink()
    return seen


def check_three_ways(
    host: Host, clone: Clone, stack: str, compose: dict[str, str], **how: str
) -> dict[str, Any]:
    """Check that the launcher, the pasted line and Compose start the same container."""
    clone.bare_lab("print('begun')\nwait_for('go')")
    words = ("lab", "LLM91", "--seed", "3")
    launched = inspected(host, host.invoke(clone, *words, **how), clone)
    dry = host.invoke(clone, "--dry", *words, **how).ended()
    assert dry.code == 0, dry
    ours = host.somebody(clone)
    pasted = inspected(host, clone.start("bash", "-c", dry.out, **ours), clone)
    assert differences(launched, pasted) == {}
    command = shlex.split(dry.out.splitlines()[-1])
    arguments = command[command.index("LLM91") :]
    dotenv(host, clone)
    running = host.compose(clone, "run", "--rm", "-T", stack, *arguments, **compose)
    assert differences(launched, inspected(host, running, clone)) == {}
    return launched


def test_three_ways_give_the_same_container_with_an_amd_gpu(theirs: Clone, mi300x: Host) -> None:
    os.chown(mi300x.root / FIRST.lstrip("/"), 0, 60044)  # two groups: .env has a line for each
    seen = check_three_ways(mi300x, theirs, "rocm", {"LABS_RENDER_NODES": FIRST})
    nodes = [dict(one)["PathOnHost"] for one in seen["HostConfig.Devices"]]
    assert sorted(nodes) == [FIRST, KFD]
    assert sorted(seen["HostConfig.GroupAdd"]) == ["60044", str(RENDER)]
    assert seen["HostConfig.ShmSize"] == 8 * GIB
    assert seen["HostConfig.CapDrop"] == ["ALL"]


def test_three_ways_give_the_same_container_with_an_nvidia_gpu(theirs: Clone, h100: Host) -> None:
    first = "GPU-aaaaaaaa-0000-0000-0000-000000000000"
    seen = check_three_ways(h100, theirs, "cuda", {"LABS_GPUS": first})
    (request,) = (dict(one) for one in seen["HostConfig.DeviceRequests"])
    assert request["DeviceIDs"] == str([first])
    assert request["Driver"] == "nvidia"
    assert seen["HostConfig.ShmSize"] == 8 * GIB


def test_a_pasted_line_with_cdi_gives_the_container_of_the_launcher(
    theirs: Clone, mi300x: Host
) -> None:
    specification(mi300x, FIRST, SECOND)
    theirs.bare_lab("print('begun')\nwait_for('go')")
    launched = inspected(mi300x, mi300x.invoke(theirs, "lab", "LLM91", LABS_DEVICES="cdi"), theirs)
    dry = mi300x.invoke(theirs, "--dry", "lab", "LLM91", LABS_DEVICES="cdi").ended()
    pasted = theirs.start("bash", "-c", dry.out, **mi300x.somebody(theirs))
    assert differences(launched, inspected(mi300x, pasted, theirs)) == {}
    assert "amd.com/gpu=0" in str(launched["HostConfig.DeviceRequests"])


# The image and the nodes for real machines


def mi250(host: Host) -> None:
    add_gpu(host, 1, 90010, 128, 64)
    add_gpu(host, 2, 90010, 129, 64)


def eight_mi300x(host: Host) -> None:
    for number in range(8):
        add_gpu(host, 2 + number, 90402, 128 + 8 * number, 192)


def partitioned(host: Host) -> None:
    cpu_node(host.root, 1)
    for number in range(64):
        add_gpu(host, 2 + number, 90402, 128 + number, 24)


def strix_halo(host: Host) -> None:
    add_gpu(host, 1, 110501, 128, 96)


def beside_a_discrete_one(host: Host) -> None:
    strix_halo(host)
    add_gpu(host, 2, 110000, 129, 48)


@pytest.mark.parametrize(
    ("machine", "gpus", "gfx", "minors", "found"),
    [
        (mi250, "all", "gfx90a", [128, 129], 2),
        (eight_mi300x, "2,5", "gfx942", [144, 168], 8),
        (partitioned, "0,63", "gfx942", [128, 191], 64),
        (strix_halo, "1", "gfx1151", [128], 1),
        (beside_a_discrete_one, "1", "gfx1100", [129], 2),
    ],
)
def test_each_machine_gets_its_image_and_its_nodes(
    theirs: Clone, host: Host, machine, gpus: str, gfx: str, minors: list[int], found: int
) -> None:
    add_kfd(host)
    machine(host)
    dry = host.invoke(theirs, "--dry", "lab", "LLM91", "--gpus", gpus).ended()
    assert dry.code == 0, dry
    assert f"lists {'an integrated' if gfx == 'gfx1151' else ''}" in dry.err
    line = shlex.split(dry.out.splitlines()[-1])
    assert f"llm-labs-small:rocm-{gfx}" in line
    devices = [word.partition("=")[2] for word in line if word.startswith("--device=")]
    assert devices == [KFD, *(f"/dev/dri/renderD{minor}" for minor in minors)]
    assert [word for word in line if word.startswith("--group-add")] == [f"--group-add={RENDER}"]
    processes = line[line.index("--processes") + 1] if "--processes" in line else "1"
    assert processes == str(len(minors))

    listed = host.invoke(theirs, "gpus", "--json").ended()
    assert listed.code == 0, listed
    assert len(json.loads(listed.out)["gpus"]) == found


# A lost engine


def test_a_lost_engine_is_a_card(theirs: Clone, host: Host) -> None:
    theirs.bare_lab("print('begun')\nwait_for('never')")
    running = host.invoke(theirs, "lab", "LLM91")
    running.wait_for("begun")
    host.stop(signal.SIGKILL)
    ended = running.ended()
    host.start()
    assert ended.code == 3, ended
    assert "what: The connection to the container engine broke while LLM91 ran." in ended.err
    assert "Traceback" not in ended.err
    for one in host.containers():  # only the restarted engine can remove it
        one.remove(force=True)
