"""A real hub whose seats have GPUs: stand-ins for AMD's nodes, on a host with a separate engine.

Most of the minutes go into a copy of the image for that engine, so this test is run by hand.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.conftest import SOMEBODY, Clone, Ended, _fresh_clone
from tests.hub.learner import PATIENCE, Learner
from tests.launcher.gpu_host import (
    FIRST,
    KFD,
    RENDER,
    SECOND,
    Host,
    add_gpu,
    add_kfd,
    use_small_images,
)

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.slow]

NEW_NETWORK = 0x40000000  # CLONE_NEWNET
PORT = 8765  # in the host's own network
PASSWORD = "a-shared-word"
SETTINGS = f"""
port = {PORT}
seats = 4
memory = "1g"
cpus = 0
gpus = 1
password = "{PASSWORD}"
teacher_password = "the-teacher-s-long-word"
"""
NAMES = ("carla", "dora")
FILE = {"type": "file", "format": "text", "content": "saved before the restart"}
IMAGE = "llm-labs-small:rocm-gfx942-hub"
# The image of the hub without torch and models.
SMALL = """
FROM {whole} AS whole
FROM base AS hub
RUN --mount=type=bind,from=whole,source=/opt/labs,target=/whole \\
    tar --create --directory /whole --exclude assets --exclude 'torch*' --exclude transformers \\
        --exclude pyarrow --exclude sklearn --exclude scipy --exclude sympy --exclude pandas . \\
    | tar --extract --directory /opt/labs
ENV HOME=/tmp/home USER=learner PYTHONPATH=/lab PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /lab
ARG STACK GFX INPUTS
LABEL llm-labs.stack=$STACK llm-labs.gfx=$GFX llm-labs.inputs=$INPUTS
LABEL llm-labs.notebook=jupyterhub
"""


class GpuHub:
    """A hub on a host with two MI300X.

    Its learners are threads in the host's network.
    """

    def __init__(self, host: Host, clone: Clone) -> None:
        self.host = host
        self.clone = clone
        self.entered: dict[str, Learner] = {}
        self._threads = self._threads_in_network()

    def _threads_in_network(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(4, initializer=enter_network, initargs=(self.host,))

    def invoke(self, *words: str) -> Ended:
        return self.host.invoke(self.clone, *words).ended()

    def learner(self, name: str) -> Learner:
        """Log a learner in, which asks for the seat."""
        learner = Learner(f"http://127.0.0.1:{PORT}", name, PASSWORD)
        assert learner.log_in().status == 200
        return learner

    def seats(self) -> dict[str, Any]:
        containers = [one for one in self.host.containers() if "-seat-" in one.name]
        return {one.name.rpartition("-")[2]: one for one in containers}

    def nodes(self) -> dict[str, str]:
        """Return the render node of each learner's seat."""
        nodes = {}
        for name, seat in self.seats().items():
            config = seat.attrs["HostConfig"]
            kfd, nodes[name] = [device["PathOnHost"] for device in config["Devices"]]
            assert kfd == KFD
            assert config["GroupAdd"] == [str(RENDER)]
        return nodes

    def seat_networks(self) -> list[str]:
        """Return whose seats have a network."""
        with self.host.client() as client:
            names = [network.name for network in client.networks.list()]
        return sorted(name.rpartition("-")[2] for name in names if "-seat-" in name)

    def holders(self) -> set[tuple[str, str]]:
        """Return the number of each GPU that `invoke gpus` lists as held, and who holds it."""
        lines = self.invoke("gpus").out.splitlines()
        held = next((line for line in lines if line.startswith("Held: ")), "Held: ")
        leases = filter(None, held.removeprefix("Held: ").split("; "))
        return {(lease.split()[1], lease.split(", ")[1]) for lease in leases}

    def kill(self) -> None:
        (hub,) = [one for one in self.host.containers() if "-seat-" not in one.name]
        os.kill(hub.attrs["State"]["Pid"], signal.SIGKILL)

    def restart_machine(self) -> None:
        """Restart the host, which gets another network, with the same GPUs."""
        self.close_pages()
        self.host.restart_machine()
        add_gpus(self.host)
        self._threads = self._threads_in_network()

    def in_network(self, scenario: Callable[["GpuHub"], None]) -> None:
        self._threads.submit(scenario, self).result()

    def open_page(self, learner: Learner) -> "Future[str]":
        """Keep the page of a seat that starts open; return the last message once it comes."""
        return self._threads.submit(learner.message_with, "Server ready")

    def close_pages(self) -> None:
        self._threads.shutdown(wait=False)  # each ends with the hub


def enter_network(host: Host) -> None:
    """Move this thread into the network of a host."""
    assert host.process is not None
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{host.process.pid}/ns/net").open() as namespace:
        moved = libc.setns(namespace.fileno(), NEW_NETWORK)
    assert moved == 0, os.strerror(ctypes.get_errno())


@pytest.fixture
def hub(snapshot: Path, tmp_path: Path) -> Iterator[GpuHub]:
    """Start a hub on a host with two MI300X."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("docker", "dockerd", "unshare", "nsenter"))):
        pytest.skip("it needs root, and the commands docker, dockerd, unshare and nsenter")
    host = Host.new()
    clone = _fresh_clone(snapshot)
    try:
        use_small_images(clone, SMALL.format(whole=build(clone)))
        host.start()
        add_gpus(host)
        started = GpuHub(host, clone)
        prepare(started, tmp_path / "image.tar")
        yield started
        started.close_pages()
        host.clear()
    finally:
        host.close()
        clone.close()


def add_gpus(host: Host) -> None:
    add_kfd(host)
    add_gpu(host, 1, 90402, 128, 192)
    add_gpu(host, 2, 90402, 136, 192)


def build(clone: Clone) -> str:
    """Build the image of the hub with the machine's engine, unless one is current; return it."""
    planned = clone.invoke("--dry", "hub")
    assert planned.code == 0, planned
    *build_lines, start = planned.out.splitlines()
    for line in build_lines:
        built = clone.run("sh", "-c", line)
        assert built.code == 0, built
    (image,) = re.findall(r"LABS_HUB_IMAGE=(\S+)", start)
    return image


def prepare(hub: GpuHub, archive: Path) -> None:
    """Write the settings, and give the engine of the host the image."""
    (hub.clone.path / "workshop").mkdir()
    (hub.clone.path / "workshop" / "hub.toml").write_text(SETTINGS)
    # A folder on the disk outlives a restart of the machine, and /run/lock doesn't.
    leases = hub.host.folder / "leases"
    leases.mkdir()
    leases.chmod(0o1777)
    (hub.clone.path / ".env").write_text(f"LABS_LEASES={leases}\n")
    hub.clone.give_to(SOMEBODY)
    planned = hub.invoke("--dry", "hub")
    assert planned.code == 0, planned
    build = planned.out.splitlines()[0]  # with the machine's engine, which has the stages
    built = hub.clone.run("sh", "-c", build)
    assert built.code == 0, built
    subprocess.run(["docker", "save", "--output", archive, IMAGE], check=True)
    subprocess.run(["docker", "image", "rm", IMAGE], check=True, capture_output=True)
    load = ["docker", f"--host=unix://{hub.host.socket}", "load", "--input", archive]
    subprocess.run(load, check=True, capture_output=True)


def wait_until(ask: Callable[[], Any]) -> Any:
    """Wait until a question has an answer; a hub that starts gives none."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if answer := ask():
                return answer
        except (OSError, ValueError):
            pass
        time.sleep(0.3)
    raise AssertionError("it never came")


def test_seats_get_gpus_wait_for_them_and_keep_them_while_the_hub_is_dead(hub: GpuHub) -> None:
    hub.in_network(the_hub_starts)
    hub.in_network(two_seats_get_a_gpu_each)
    hub.in_network(the_next_learners_wait_for_a_gpu)
    hub.in_network(the_next_hub_takes_the_leases_again)
    for restart in (
        lambda: hub.host.restart_engine(signal.SIGTERM),
        lambda: hub.host.restart_engine(signal.SIGKILL),
        hub.restart_machine,
    ):
        hub.in_network(files_are_saved)
        restart()
        hub.in_network(seats_start_again)
    assert hub.invoke("hub", "--stop").code == 0
    assert hub.seats() == {} and hub.seat_networks() == []
    assert hub.holders() == set()


def the_hub_starts(hub: GpuHub) -> None:
    started = hub.invoke("hub")
    assert started.code == 0, started
    assert "Each seat gets a GPU, of GPU 0, 1: enough for 2 seats at once." in started.err


def two_seats_get_a_gpu_each(hub: GpuHub) -> None:
    assert hub.learner("ada").open_seat().status == 200
    assert hub.learner("ben").open_seat().status == 200
    assert hub.nodes() == {"ada": FIRST, "ben": SECOND}
    assert hub.holders() == {("0:", "seat of ada"), ("1:", "seat of ben")}
    refused = hub.invoke("--dry", "lab", "LLM06")
    assert refused.code == 3
    assert "No GPU is free." in refused.err
    assert "seat of ada" in refused.err


def the_next_learners_wait_for_a_gpu(hub: GpuHub) -> None:
    carla = hub.learner("carla")
    assert "Keep this page open" in carla.ask("/hub/spawn-pending/carla").text
    assert "1 learner waits: You are the first." in carla.message_with("wait")
    page = hub.open_page(carla)
    dora = hub.learner("dora")
    assert "2 learners wait: 1 before you." in dora.message_with("wait")
    hub.open_page(dora)
    hub.seats()["ada"].kill()
    assert page.result() == "Server ready at /user/carla/"
    assert carla.ask("/user/carla/lab").status == 200
    assert hub.nodes() == {"carla": FIRST, "ben": SECOND}
    assert hub.holders() == {("0:", "seat of carla"), ("1:", "seat of ben")}
    assert "1 learner waits: You are the first." in dora.message_with("wait")


def the_next_hub_takes_the_leases_again(hub: GpuHub) -> None:
    before = {name: seat.id for name, seat in hub.seats().items()}
    ben = hub.learner("ben")
    hub.kill()
    held = {("0:", "seat of carla"), ("1:", "seat of ben")}
    wait_until(lambda: ben.ask("/user/ben/api/kernels").status == 200)
    assert hub.holders() == held
    assert {name: seat.id for name, seat in hub.seats().items()} == before
    dora = hub.learner("dora")  # who isn't in the line of the new hub
    assert "1 learner waits: You are the first." in dora.message_with("wait")
    page = hub.open_page(dora)
    ben.stop_seat()
    assert page.result() == "Server ready at /user/dora/"
    assert hub.nodes() == {"carla": FIRST, "dora": SECOND}


def files_are_saved(hub: GpuHub) -> None:
    """Save a file in each of two seats."""
    for name in NAMES:
        learner = hub.entered[name] = hub.learner(name)
        assert learner.open_seat().status == 200
        assert learner.ask(path_of(name), FILE, "PUT").status in (200, 201)
    assert hub.nodes().keys() == set(NAMES)


def seats_start_again(hub: GpuHub) -> None:
    """Find the hub, and neither seats nor leases; start the seats again, which have the files.

    Nobody has to log in again.
    """
    learners = [hub.entered[name] for name in NAMES]
    for learner in learners:
        wait_until(lambda learner=learner: learner.ask("/hub/home").status == 200)
        wait_until(lambda learner=learner: not learner.server_state())
    assert hub.seats() == {} and hub.holders() == set()
    for learner in learners:
        page = learner.ask(f"/user/{learner.name}/lab")
        assert page.status == 424 and "Start your seat" in page.text, page
    for learner, node in zip(learners, (FIRST, SECOND), strict=True):
        assert learner.open_seat().status == 200
        saved = learner.ask(path_of(learner.name))
        assert saved.json["content"] == FILE["content"]
        assert hub.nodes()[learner.name] == node
        assert learner.ask(path_of(learner.name), method="DELETE").status == 204
    assert hub.holders() == {("0:", f"seat of {NAMES[0]}"), ("1:", f"seat of {NAMES[1]}")}
    wait_until(lambda: hub.seat_networks() == sorted(NAMES))


def path_of(name: str) -> str:
    return f"/user/{name}/api/contents/work/mine.txt"
