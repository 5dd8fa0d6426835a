"""Measure a hub with many learners at once: until a seat is ready, its memory, and after faults.

    .venv/bin/python -m benchmarks.classroom [--learners 30]

Needs the hub of this clone: `invoke hub`, with one password for all, and as many seats. Learners
log in through HTTP within five seconds of each other. Each starts a seat, opens a lesson as a
notebook, runs a cell with torch and checks a sheet. Then the benchmark kills the hub, and all go on
in the same seats. At last it stops all seats, starts them with `invoke hub --seats`, and all log in
again. It prints the median, the slowest learner, and each failure.

The learners share the hub's machine here, while those of a class have their own. So they use the
CPU first, if the benchmark runs as root, and they connect to the hub's container without
docker-proxy, as other machines do. Otherwise they would measure how long they wait for a CPU.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import docker
from launcher.hub import folder as hub_folder
from launcher.hub import settings as hub_settings
from tests.hub import learner as learner_module
from tests.hub.learner import Learner, Reply

ROOT = Path(__file__).resolve().parent.parent
SECONDS_TO_LOG_IN = 5  # of the class, together
PATIENCE = 600
PORT = 8000  # of the hub in its container
LESSON = "labs/llm06_attention/lesson.py"
CELL = "import torch; x = torch.ones(3).sum().item(); print(x)"
CHECK = "invoke learn LLM06 > /dev/null; check LLM06; echo e''nd"
MB = 10**6
Times = dict[str, float]


class Hub:
    """The hub of this clone, its containers and its learners."""

    def __init__(self, count: int) -> None:
        self.settings = hub_settings.read()
        self.engine = docker.from_env()
        self.url = self._url()
        self.names = [f"learner-{n:02}" for n in range(1, count + 1)]

    def _url(self) -> str:
        """Return the address of the hub's container, to which the engine forwards learners."""
        networks = self.own().attrs["NetworkSettings"]["Networks"]
        (name,) = (name for name in networks if not name.startswith("llm-labs-seat-"))
        scheme = "https" if self.settings.certificate else "http"
        return f"{scheme}://{networks[name]['IPAddress']}:{PORT}"

    def log_in(self, learner: Learner) -> Reply:
        reply = learner.log_in()
        assert reply.status == 200, f"the login ended in {reply.status}"
        return reply

    def learner(self, name: str) -> Learner:
        return Learner(self.url, name, self.settings.password)

    def seats(self) -> list[Any]:
        label = f"{hub_folder.LABEL}={hub_folder.identity()}"
        return self.engine.containers.list(filters={"label": label}, ignore_removed=True)

    def own(self) -> Any:
        """Return the container of the hub itself."""
        project = f"com.docker.compose.project=llm-labs-hub-{hub_folder.identity()}"
        (container,) = self.engine.containers.list(filters={"label": project})
        return container

    def kill(self) -> None:
        os.kill(self.own().attrs["State"]["Pid"], signal.SIGKILL)


class Round:
    """What all learners do at once: how long each step took, and who failed."""

    def __init__(self, hub: Hub, title: str) -> None:
        self.hub = hub
        self.title = title
        self.times: list[Times] = []
        self.failures: list[str] = []

    def run(self, work: Callable[[str, Times], None]) -> None:
        """Let all learners work, beginning within five seconds of each other; print a summary."""
        begun = time.monotonic()
        count = len(self.hub.names)
        with first_on_the_cpu(), weighed(self.hub) as peaks, ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda n: self._one(n, work), range(count)))
        print(f"\n{self.title}: {time.monotonic() - begun:.0f} s, load {os.getloadavg()[0]:.0f}")
        print(f"  {len(self.times)} of {len(self.hub.names)} learners succeeded")
        for failure in self.failures:
            print(f"  {failure}")
        for step in self.times[0] if self.times else ():
            values = [times[step] for times in self.times]
            print(f"  {step:<24} {median(values):6.1f} s (median) {max(values):6.1f} s (slowest)")
        show_memory("a seat, at most", list(peaks.values()))
        show_memory("a seat, afterwards", [memory(seat) for seat in self.hub.seats()])
        show_memory("the hub", [memory(self.hub.own())])

    def _one(self, number: int, work: Callable[[str, Times], None]) -> None:
        name = self.hub.names[number]
        times: Times = {}
        time.sleep(number * SECONDS_TO_LOG_IN / len(self.hub.names))
        try:
            work(name, times)
            self.times.append(times)
        except (AssertionError, OSError, ValueError, KeyError) as error:
            self.failures.append(f"{name}, after {list(times)}: {error!r:.300}")


@contextmanager
def first_on_the_cpu() -> Generator[None]:
    """Let threads that start in this block run before all that isn't real-time; only root may."""
    schedule(os.SCHED_FIFO, 1)
    try:
        yield
    finally:
        schedule(os.SCHED_OTHER, 0)


def schedule(policy: int, priority: int) -> None:
    with suppress(PermissionError):
        os.sched_setscheduler(0, policy, os.sched_param(priority))


@contextmanager
def weighed(hub: Hub) -> Generator[dict[str, int]]:
    """Sample the memory of all seats every few seconds; yield the most of each seat."""
    peaks: dict[str, int] = {}
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(3):
            for seat in hub.seats():
                peaks[seat.name] = max(peaks.get(seat.name, 0), memory(seat))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def memory(container: Any) -> int:
    """Return the bytes that a container takes, without pages that the kernel can drop."""
    try:
        usage = container.stats(stream=False, one_shot=True)["memory_stats"]
        return usage["usage"] - usage["stats"].get("inactive_file", 0)
    except (OSError, KeyError):  # it has just ended
        return 0


def show_memory(what: str, sizes: list[int]) -> None:
    if sizes:
        most = f"{max(sizes) / MB:6.0f} MB (most)"
        print(f"  memory of {what:<20} {median(sizes) / MB:6.0f} MB (median) {most}")


@contextmanager
def timed(times: Times, step: str) -> Generator[None]:
    begun = time.monotonic()
    yield
    times[step] = time.monotonic() - begun


class Classroom:
    """The rounds, and the kernel of each learner."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.learners: dict[str, Learner] = {}
        self.kernels: dict[str, str] = {}

    def begin(self, name: str, times: Times) -> None:
        """Log in, start the seat and work in it."""
        with timed(times, "seat ready, with login"):
            learner = self.hub.learner(name)
            with timed(times, "logged in"):
                self.hub.log_in(learner)
            reply = learner.open_seat()
            assert reply.status == 200, f"JupyterLab ended in {reply.status}"
        self.learners[name] = learner
        self.work(name, times)

    def enter(self, name: str, times: Times) -> None:
        """Log in, which leads into the seat that runs already, and work in it."""
        learner = self.hub.learner(name)
        with timed(times, "JupyterLab, with login"):
            page = self.hub.log_in(learner)
        assert f"/user/{name}/lab" in page.url, f"the login ended at {page.url}"
        self.learners[name] = learner
        self.work(name, times)

    def work(self, name: str, times: Times) -> None:
        """Open a lesson, run a cell and check a sheet."""
        learner = self.learners[name]
        with timed(times, "lesson opened"):
            lesson = learner.ask(f"/user/{name}/api/contents/{LESSON}?type=notebook")
            assert lesson.json["type"] == "notebook"
        with timed(times, "cell with torch"):
            self.kernels[name] = learner.start_kernel()
            printed = learner.run_in(self.kernels[name], CELL)
            assert printed.strip() == "3.0", printed
        self.check(name, times)

    def check(self, name: str, times: Times) -> None:
        """Check a sheet in the terminal."""
        with timed(times, "sheet checked"):
            shown = self.learners[name].type_in_terminal(CHECK, "end\r\n")
            assert "masked_softmax  not written yet" in shown, shown

    def go_on(self, name: str, times: Times) -> None:
        """Reach the seat again, find the variable of the kernel, and check."""
        learner = self.learners[name]
        with timed(times, "seat reached again"):
            while not reaches(learner):
                time.sleep(0.5)
        with timed(times, "variable found"):
            printed = learner.run_in(self.kernels[name], "print(x + 1)")
            assert printed.strip() == "4.0", printed
        self.check(name, times)

    def stop_all(self) -> None:
        with ThreadPoolExecutor(len(self.learners)) as pool:
            list(pool.map(Learner.stop_seat, self.learners.values()))


def reaches(learner: Learner) -> bool:
    try:
        return learner.ask(f"/user/{learner.name}/api/kernels").status == 200
    except OSError:
        return False


def start_beforehand() -> None:
    begun = time.monotonic()
    invoke = Path(sys.executable).parent / "invoke"
    subprocess.run([invoke, "hub", "--seats"], cwd=ROOT, check=True, capture_output=True)
    print(f"\ninvoke hub --seats: {time.monotonic() - begun:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--learners", type=int, default=30)
    learner_module.PATIENCE = PATIENCE
    hub = Hub(parser.parse_args().learners)
    classroom = Classroom(hub)
    print(f"{len(hub.names)} learners, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}")
    Round(hub, "All start at once").run(classroom.begin)
    before = {seat.id for seat in hub.seats()}
    hub.kill()
    Round(hub, "The hub was killed").run(classroom.go_on)
    print(f"  {len(before & {seat.id for seat in hub.seats()})} seats are the same containers")
    classroom.stop_all()
    start_beforehand()
    Round(hub, "Seats were started beforehand").run(classroom.enter)


if __name__ == "__main__":
    main()
