"""A real hub whose seats end when they are unused, whose proxy is killed and whose clock jumps."""

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.conftest import Clone, _fresh_clone, _remove_containers_of
from tests.hub.learner import PATIENCE, Learner
from tests.hub.test_hub import TEACHER, Hub

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.slow]

IDLE = 60  # seconds, the shortest that hub.toml allows
FILE = {"type": "file", "format": "text", "content": "kept"}
# Debian's package libfaketime. The monotonic clock stays as it is, as it does on a real machine.
LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
FAKED = {
    "LD_PRELOAD": "/lab/labs/libfaketime.so.1",
    "FAKETIME_TIMESTAMP_FILE": "/lab/labs/clock",
    "FAKETIME_DONT_FAKE_MONOTONIC": "'1'",
    "FAKETIME_NO_CACHE": "'1'",
}
# JupyterHub gives its services few of its own variables.
SERVICES = """
import os
for service in c.JupyterHub.services:
    service["environment"] = {name: os.environ[name] for name in NAMES}
"""
# Of the seats and of the hub, in compose.yaml.
ENVIRONMENTS = (
    ("x-seat: &seat\n  environment:\n", 4),
    ("command: [jupyterhub, --config=/lab/hub/jupyterhub_config.py]\n    environment:\n", 6),
)


class FaultyHub(Hub):
    """A hub on which faults happen."""

    def prepare_clock(self) -> None:
        """Let the hub and the seats read the time that `jump` sets, if this machine can."""
        if LIBRARY is None:
            return
        self.jump("+0")
        shutil.copy(LIBRARY, self.clone.path / "labs")
        for before, indent in ENVIRONMENTS:
            lines = [f"{' ' * indent}{name}: {value}\n" for name, value in FAKED.items()]
            self.clone.change("compose.yaml", before, before + "".join(lines))
        with (self.clone.path / "hub" / "jupyterhub_config.py").open("a") as file:
            file.write(SERVICES.replace("NAMES", repr(list(FAKED))))

    def jump(self, offset: str) -> None:
        """Set the clock of the hub and its seats to an offset from this machine's."""
        new = self.clone.path / "labs" / ".clock.new"
        new.write_text(f"{offset}\n")
        new.replace(self.clone.path / "labs" / "clock")

    def hour(self) -> int:
        """Return the hour that the page of the class shows."""
        page = self.learner("teacher", TEACHER).log_in()
        shown = re.search(r'seats run, at <time datetime="[\d-]+T(\d+):', page.text)
        assert shown, page
        return int(shown[1])

    def enter(self, name: str) -> Learner:
        """Log a learner in and start the seat, unless it runs."""
        learner = self.learner(name)
        assert learner.log_in().status == 200
        assert learner.open_seat().status == 200
        return learner

    def proxy(self) -> int:
        """Return the process of the proxy."""
        processes = self.container().top()["Processes"]
        (pid,) = [int(words[1]) for words in processes if "configurable-http-proxy" in words[-1]]
        return pid


@pytest.fixture(scope="module")
def hub(snapshot: Path, engine: Any) -> Iterator[FaultyHub]:
    """Start a hub with the shortest idle time, and the seats of Ada and Ben."""
    del engine
    clone: Clone = _fresh_clone(snapshot)
    try:
        served = FaultyHub(clone)
        served.prepare_clock()
        served.write_settings('idle = "1m"\n')
        started = clone.invoke("hub")
        assert started.code == 0, started
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(served.enter, ("ada", "ben")))
        yield served
        assert clone.invoke("hub", "--stop").code == 0
    finally:
        _remove_containers_of(clone)
        clone.close()


@contextmanager
def in_use(learner: Learner) -> Iterator[None]:
    """Ask for the list of files again and again, as an open page of JupyterLab does."""
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(IDLE / 12):
            with suppress(OSError):  # the proxy is gone
                learner.ask(f"/user/{learner.name}/api/contents")

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield
        finally:
            ended.set()
        asking.result()


def wait_until(ask: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ask():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(1)


def can_log_in(learner: Learner) -> bool:
    try:
        return learner.log_in().status == 200
    except OSError:
        return False


def test_a_killed_proxy_comes_back_and_seats_go_on(hub: FaultyHub) -> None:
    ada = hub.enter("ada")
    kernel = ada.start_kernel()
    ada.run_in(kernel, "x = 41")
    seats = {name: seat.id for name, seat in hub.seats().items()}
    hub_process = hub.container().attrs["State"]["Pid"]
    for _ in range(2):
        os.kill(hub.proxy(), signal.SIGKILL)
        with pytest.raises(OSError):
            ada.ask("/user/ada/api/contents")
        hub.wait(ada)
    assert ada.run_in(kernel, "print(x + 1)").strip() == "42"
    assert {name: seat.id for name, seat in hub.seats().items()} == seats
    assert hub.container().attrs["State"]["Pid"] == hub_process
    assert "seats run" in hub.learner("teacher", TEACHER).log_in().text


def test_an_unused_seat_ends_and_a_used_one_goes_on(hub: FaultyHub) -> None:
    ada, ben = hub.enter("ada"), hub.enter("ben")
    assert ben.ask("/user/ben/api/contents/work/mine.txt", FILE, "PUT").status == 201
    before = hub.seats()["ada"].id
    with in_use(ada):
        wait_until(lambda: set(hub.seats()) == {"ada"})
    assert hub.seats()["ada"].id == before
    page = ben.ask("/user/ben/lab")
    assert page.status == 424
    assert "Your seat was stopped at" in page.text
    assert "nobody used it for 1 minute. Your files are saved." in page.text
    assert hub.enter("ben").ask("/user/ben/api/contents/work/mine.txt").json["content"] == "kept"


@pytest.mark.skipif(LIBRARY is None, reason="it needs Debian's package libfaketime")
def test_no_seat_ends_early_when_the_clock_jumps_and_all_that_repeats_goes_on(
    hub: FaultyHub,
) -> None:
    ada = hub.enter("ada")
    hub.enter("ben")
    used = time.monotonic()
    before = {name: seat.id for name, seat in hub.seats().items()}
    with in_use(ada):
        now = hub.hour()
        hub.jump("+2h")
        assert (hub.hour() - now) % 24 in (2, 3)
        while time.monotonic() < used + 0.8 * IDLE:  # the hub looks every 15 seconds
            assert set(hub.seats()) == {"ada", "ben"}
            time.sleep(1)
        wait_until(lambda: set(hub.seats()) == {"ada"})
        hub.jump("-2h")
        assert (hub.hour() - now) % 24 in (22, 23)
        for guess in range(9):
            hub.learner("eve", f"guess {guess}").log_in()
        os.kill(hub.proxy(), signal.SIGKILL)
        wait_until(lambda: can_log_in(hub.learner("eve")))
    assert hub.seats()["ada"].id == before["ada"]
