"""A real Podman, through its Docker-compatible socket."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import BIN, SOMEBODY, Clone, Running
from tests.launcher.gpu_host import (
    FIRST,
    KFD,
    OPEN_NODES,
    PODMAN_SETTINGS,
    RENDER,
    SECOND,
    Host,
    opened_nodes,
    specification,
    wait_for_engine,
)

import pytest

pytestmark = pytest.mark.engine
SEEN = """
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
def tried(name):
    try:
        open(name, "w").close()
        return "written"
    except OSError as error:
        return error.strerror
print(json.dumps({
    "uid": os.getuid(), "groups": os.getgroups(),
    "capabilities": status["CapBnd"].strip(), "no_new_privileges": status["NoNewPrivs"].strip(),
    "interfaces": os.listdir("/sys/class/net"), "nodes": sorted(os.listdir("/dev")),
    "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
    "wrote": {one: tried(one) for one in ("/x", "/lab/labs/x", "/tmp/x", "outputs/x")},
}))
return 7
"""


@dataclass
class Podman:
    """Podman's service on a socket, with separate storage."""

    folder: Path
    host: Host

    @property
    def command(self) -> list[str]:
        where = ["--root", f"{self.folder}/data", "--runroot", f"{self.folder}/run"]
        return [*self.host.enter(self.folder), "podman", *where]

    @property
    def environment(self) -> dict[str, str]:
        settings = {"CONTAINERS_CONF": f"{self.folder}/containers.conf"}
        return {**os.environ, **settings, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [*self.command, *words], env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def invoke(self, clone: Clone, *words: str, **how: Any) -> Running:
        ours = {**self.host.here(clone), "DOCKER_HOST": f"unix://{self.socket}", **how}
        return clone.start(str(BIN / "invoke"), *words, **ours)


@pytest.fixture(scope="module")
def podman(running_host: Host, small_images: Path) -> Iterator[Podman]:
    if not shutil.which("podman"):
        pytest.skip("podman isn't installed")
    one = Podman(Path(tempfile.mkdtemp(prefix="llm-labs-podman-")), running_host)
    (one.folder / "containers.conf").write_text(PODMAN_SETTINGS)
    one.run("load", "--input", str(small_images))
    log = one.folder / "log"
    service = [*one.command, "system", "service", "--time=0", f"unix://{one.socket}"]
    with log.open("w") as file:
        process = subprocess.Popen(service, env=one.environment, stdout=file, stderr=file)
    try:
        wait_for_engine(one.socket, process, log)
        yield one
    finally:
        process.terminate()
        process.wait()
        subprocess.run([*one.command, "rm", "--all", "--force"], env=one.environment, check=False)
        subprocess.run(
            ["umount", one.folder / "data" / "overlay"], capture_output=True, check=False
        )
        shutil.rmtree(one.folder, ignore_errors=True)


@pytest.fixture
def theirs(small_clone: Clone, podman: Podman, host: Host) -> Iterator[Clone]:
    """Return a clone of SOMEBODY; fail if a test leaves a container of it."""
    assert host is podman.host  # has no GPU
    small_clone.give_to(SOMEBODY)
    yield small_clone
    assert podman.run("ps", "--all", "--quiet") == "", "a container was left behind"


def test_a_lab_is_confined_and_its_exit_code_is_returned(theirs: Clone, podman: Podman) -> None:
    ended = podman.invoke(theirs, "lab", theirs.bare_lab(SEEN)).ended()
    assert ended.code == 7, ended
    assert "in a container" in ended.err and "Building" not in ended.err
    seen = json.loads(ended.out)
    assert seen["uid"] == SOMEBODY
    assert seen["groups"] == [SOMEBODY]
    assert seen["capabilities"] == "0" * 16
    assert seen["no_new_privileges"] == "1"
    assert seen["interfaces"] == ["lo"]
    assert seen["shm"] == 2**30
    assert seen["wrote"] == {
        "/x": "Read-only file system",
        "/lab/labs/x": "Read-only file system",
        "/tmp/x": "written",
        "outputs/x": "written",
    }
    assert (theirs.outputs / "x").stat().st_uid == SOMEBODY


@pytest.mark.parametrize("what", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_container(theirs: Clone, podman: Podman, what: signal.Signals) -> None:
    running = podman.invoke(theirs, "lab", theirs.bare_lab("print('begun')\nwait_for('never')"))
    running.wait_for("begun")
    running.send(what)
    ended = running.ended()
    assert ended.code == 130, ended
    assert "Traceback" not in ended.err


def test_a_terminal_shows_the_output_and_has_the_users_size(theirs: Clone, podman: Podman) -> None:
    lab = theirs.bare_lab("""
for _ in range(1200):
    if os.get_terminal_size() == (101, 33):
        break
    time.sleep(0.05)
print("size", *os.get_terminal_size())
""")
    running = podman.invoke(theirs, "lab", lab, terminal=(33, 101))
    assert running.ended().code == 0, running.text
    assert "size 101 33" in running.text


def test_too_little_memory_is_a_card(theirs: Clone, podman: Podman) -> None:
    lab = theirs.bare_lab("kept = []\nwhile True:\n    kept.append(bytearray(2**24))")
    ended = podman.invoke(theirs, "lab", lab, LABS_MEMORY="80m").ended()
    assert ended.code == 137, ended
    assert "what: LLM91 was killed (137)." in ended.err


def test_the_pasted_line_works_with_podman(theirs: Clone, podman: Podman) -> None:
    """Paste the `docker run` line; the docker command uses Podman's socket."""
    theirs.bare_lab("print(os.getuid())")
    dry = podman.invoke(theirs, "--dry", "lab", "LLM91").ended()
    ours = {**podman.host.here(theirs), "DOCKER_HOST": f"unix://{podman.socket}"}
    pasted = theirs.run("bash", "-c", dry.out, **ours)
    assert pasted.code == 0, pasted
    assert pasted.out.strip() == str(SOMEBODY)


def test_compose_runs_a_lab(theirs: Clone, podman: Podman) -> None:
    theirs.bare_lab("print(os.getuid())")
    theirs.make_folders()
    ours = {**podman.host.here(theirs), "DOCKER_HOST": f"unix://{podman.socket}"}
    words = ("docker", "compose", "run", "--rm", "-T", "cpu", "LLM91")
    ended = theirs.run(*words, LABS_UID=str(SOMEBODY), LABS_GID=str(SOMEBODY), **ours)
    assert ended.code == 0, ended
    assert ended.out.strip() == str(SOMEBODY)


RECIPE = """ARG BASE_IMAGE
FROM scratch AS wheels
FROM ${BASE_IMAGE}
USER root
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN --mount=type=bind,from=wheels,target=/wheels ls /wheels > /found
RUN --mount=type=secret,id=ca install -m 644 /run/secrets/ca /found.ca
ARG STACK INPUTS
LABEL llm-labs.stack=$STACK llm-labs.inputs=$INPUTS
USER 1000:1000
"""


def test_podman_builds_a_missing_image(theirs: Clone, podman: Podman) -> None:
    """Build with the contexts and secrets of compose.yaml; Podman's socket has no BuildKit."""
    theirs.change("compose.yaml", "llm-labs-small:cpu", "llm-labs-small:built")
    (theirs.path / "docker" / "Dockerfile").write_text(RECIPE)
    theirs.bare_lab("print(open('/found').read() + open('/found.ca').read())")
    (theirs.path / "wheels").mkdir()
    (theirs.path / "wheels" / "one.whl").touch()
    (theirs.path / "ca").write_text("an authority")
    site = {"LABS_WHEELS": "./wheels", "LABS_CA": "./ca", "LABS_BASE_IMAGE": "llm-labs-small:cpu"}
    dry = podman.invoke(theirs, "--dry", "lab", "LLM91", **site).ended()
    assert dry.out.startswith("podman --remote --url unix://"), dry
    ended = podman.invoke(theirs, "lab", "LLM91", **site).ended()
    assert (ended.code, ended.out.split()) == (0, ["one.whl", "an", "authority"]), ended
    assert "Building llm-labs-small:built, because it doesn't exist yet." in ended.err
    assert "Building" not in podman.invoke(theirs, "lab", "LLM91", **site).ended().err


# GPUs


NODES = ("--", "--word", KFD, FIRST, SECOND)


@pytest.mark.parametrize("access", [None, "cdi"])
def test_a_lab_opens_its_gpu_by_nodes_or_by_cdi(
    theirs: Clone, podman: Podman, mi300x: Host, access: str | None
) -> None:
    theirs.bare_lab(OPEN_NODES)
    specification(mi300x, FIRST, SECOND)
    words = ("lab", "LLM91", "--gpus", "1,", *NODES)
    lines, seen = opened_nodes(podman.invoke(theirs, *words, LABS_DEVICES=access).ended())
    assert lines == [f"opened {KFD}", f"FileNotFoundError {FIRST}", f"opened {SECOND}"]
    assert sorted(seen["groups"]) == [SOMEBODY, RENDER]


def test_a_request_that_podman_would_silently_ignore_is_a_card(
    theirs: Clone, podman: Podman, mi300x: Host
) -> None:
    theirs.bare_lab("print('ran')")
    for access, what in (
        ("runtime", "Podman ignores the runtime"),
        ("cdi", "The engine knows no CDI device of that name."),  # no specification exists
    ):
        ended = podman.invoke(theirs, "lab", "LLM91", LABS_DEVICES=access).ended()
        assert ended.code == 3, ended
        assert what in ended.err and ended.out == ""
    (mi300x.root / "dev" / "kfd").unlink()
    ended = podman.invoke(theirs, "lab", "LLM91").ended()
    assert ended.code == 3, ended
    assert "/dev/kfd is missing" in ended.err


@pytest.mark.parametrize("access", [None, "nodes"])
def test_an_nvidia_gpu_is_attached_by_cdi(
    theirs: Clone, podman: Podman, h100: Host, access: str | None
) -> None:
    theirs.bare_lab(OPEN_NODES)
    specification(h100, "/dev/nvidia0", "/dev/nvidia1", kind="nvidia.com/gpu", each=())
    words = ("lab", "LLM91", "--gpus", "1,", "--", "--word", "/dev/nvidia0", "/dev/nvidia1")
    lines, _ = opened_nodes(podman.invoke(theirs, *words, LABS_DEVICES=access).ended())
    assert lines == ["FileNotFoundError /dev/nvidia0", "opened /dev/nvidia1"]
