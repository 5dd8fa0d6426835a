"""Leases of `invoke lab`: two users, one server, real containers and stand-in GPUs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.cards import Card
from launcher.gpu.lease import RunLease, run_lease
from launcher.gpu.leases import PREFIX, Leases
from launcher.gpu.model import AMD, Gpu
from tests.conftest import SOMEBODY, Clone, Running, _fresh_clone, as_user
from tests.launcher.gpu_host import FIRST, GROUP, KFD, OPEN_NODES, SECOND, Host, use_small_images

import pytest

ANOTHER = SOMEBODY + 1
GPUS = [Gpu(AMD, number, "Instinct", node=f"/dev/dri/renderD{128 + number}") for number in range(2)]
# wait_for() gives up after a minute, and these tests start several commands meanwhile.
UNTIL_GO = """
print('begun', flush=True)
while not (OUTPUTS / 'go').exists():
    time.sleep(0.05)
"""
WAITING = OPEN_NODES + UNTIL_GO
NODES = ("--", "--word", KFD, FIRST, SECOND)


class User:
    """A user of the server, with a clone of their own."""

    def __init__(self, host: Host, clone: Clone, uid: int) -> None:
        self.host = host
        self.clone = clone
        clone.make_folders()
        clone.give_to(uid)
        self.how: dict[str, Any] = host.here(clone, as_user(uid, GROUP))

    def lab(self, *words: str, **variables: str) -> Running:
        return self.host.invoke(self.clone, "lab", "LLM91", *words, **{**self.how, **variables})

    def let_go(self) -> None:
        (self.clone.outputs / "go").touch()


def new_user(host: Host, clone: Clone, uid: int, body: str) -> User:
    clone.bare_lab(body)
    return User(host, clone, uid)


@pytest.fixture
def other_clone(snapshot: Path) -> Iterator[Clone]:
    clone = use_small_images(_fresh_clone(snapshot))
    yield clone
    clone.close()


@pytest.mark.engine
def test_two_users_get_a_gpu_each_and_the_next_lab_is_refused_or_waits(
    small_clone: Clone, other_clone: Clone, mi300x: Host
) -> None:
    anna = new_user(mi300x, small_clone, SOMEBODY, WAITING)
    ben = new_user(mi300x, other_clone, ANOTHER, WAITING)
    first = anna.lab(*NODES)
    first.wait_for("begun")
    assert "GPU 0 is free" in first.text and f"opened {FIRST}" in first.text
    second = ben.lab("--gpus", "1", *NODES)
    second.wait_for("begun")
    assert "GPU 1 is free" in second.text
    assert f"opened {SECOND}" in second.text and f"FileNotFoundError {FIRST}" in second.text

    refused = ben.lab("--gpus", "0,").ended()
    assert refused.code == 3, refused
    assert "what: GPU 0 isn't free." in refused.err
    assert f"why: GPU 0: uid {SOMEBODY}, LLM91, process {first.process.pid}" in refused.err
    assert "--wait" in refused.err
    listed = mi300x.invoke(ben.clone, "gpus", **ben.how).ended()
    assert f"Held: GPU 0: uid {SOMEBODY}, LLM91, process {first.process.pid}, " in listed.out

    waiting = ben.lab("--gpus", "0,", "--wait", *NODES)
    waiting.wait_for("Waiting for a GPU, until Ctrl-C. GPU 0: ")
    anna.let_go()
    assert first.ended().code == 0, first.text
    waiting.wait_for("begun")
    assert f"opened {FIRST}" in waiting.text
    ben.let_go()
    assert waiting.ended().code == second.ended().code == 0
    assert "Held: " not in mi300x.invoke(ben.clone, "gpus", **ben.how).ended().out


@pytest.mark.engine
def test_a_killed_launcher_gives_its_gpus_back(
    small_clone: Clone, other_clone: Clone, mi300x: Host
) -> None:
    anna = new_user(mi300x, small_clone, SOMEBODY, WAITING)
    ben = new_user(mi300x, other_clone, ANOTHER, OPEN_NODES)
    running = anna.lab("--gpus", "all", *NODES)
    running.wait_for("begun")
    interrupted = ben.lab("--wait")
    interrupted.wait_for("Waiting for a GPU")
    interrupted.send(signal.SIGINT)
    assert interrupted.ended().code == 130
    waiting = ben.lab("--wait", *NODES)
    waiting.wait_for("Waiting for a GPU")
    running.process.kill()
    running.process.wait()
    ended = waiting.ended()
    assert ended.code == 0, ended
    assert f"opened {FIRST}" in ended.out
    mi300x.clear()


@pytest.mark.engine
def test_the_labs_of_one_user_on_one_gpu_run_side_by_side_and_say_so(
    small_clone: Clone, mi300x: Host
) -> None:
    anna = new_user(mi300x, small_clone, SOMEBODY, WAITING)
    one_gpu = {"HIP_VISIBLE_DEVICES": "0"}
    first = anna.lab(*NODES, **one_gpu)
    first.wait_for("begun")
    assert "is free" not in first.text, "there was no choice"
    second = anna.lab(*NODES, **one_gpu)
    second.wait_for("begun")
    assert f"it shares GPU 0: uid {SOMEBODY}, LLM91, process {first.process.pid}" in second.text
    anna.let_go()
    assert first.ended().code == second.ended().code == 0


# Without a container


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path.chmod(0o1777)
    monkeypatch.setenv("LABS_LEASES", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return tmp_path


def held(folder: Path) -> list[str]:
    return [lease.holder for lease in Leases(GPUS, folder=folder).held()]


def test_a_run_ends_its_lease_also_by_an_error(folder: Path) -> None:
    with pytest.raises(ValueError), run_lease("LLM06", wait=False, dry=False) as lease:
        assert lease.take(GPUS, 1) == ((GPUS[0],), "GPU 0 is free")
        assert held(folder) == [f"LLM06, process {os.getpid()}"]
        raise ValueError
    assert held(folder) == []


def test_a_dry_run_chooses_a_free_gpu_and_takes_no_lease(folder: Path) -> None:
    Leases(GPUS, folder=folder).take(1, "seat anna")
    with run_lease("LLM06", wait=False, dry=True) as lease:
        assert lease.take(GPUS, 1)[0] == (GPUS[1],)
        assert held(folder) == ["seat anna"]


def test_in_a_slurm_job_the_scheduler_decides(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Leases(GPUS, folder=folder).take(2, "seat anna")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with run_lease("LLM06", wait=False, dry=False) as lease:
        assert lease.take(GPUS, 1) == ((GPUS[0],), "")
        assert lease.inherited == ()
        assert set(held(folder)) == {"seat anna"}


def test_the_site_lets_labs_share_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Leases(GPUS[:1], per_gpu=2, folder=folder).take(1, "seat anna")
    with pytest.raises(Card, match="GPU 0 isn't free"):
        RunLease("LLM06", wait=False, dry=True).take(GPUS[:1], 1)
    monkeypatch.setenv("LABS_PER_GPU", "2")
    chosen, note = RunLease("LLM06", wait=False, dry=True).take(GPUS[:1], 1)
    assert chosen == (GPUS[0],)
    assert note.startswith("it shares GPU 0: ") and "seat anna" in note
    for bad in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("LABS_PER_GPU", bad)
        with pytest.raises(Card, match=f"LABS_PER_GPU={bad} isn't possible") as refused:
            RunLease("LLM06", wait=False, dry=True).take(GPUS, 1)
        assert refused.value.code == 2


@pytest.mark.usefixtures("folder")
def test_the_process_of_a_lab_outside_a_container_has_the_lease_open() -> None:
    """So the lease ends with the last of launcher and lab."""
    code = f"""
import sys
from launcher.run.file_owner import Owner, run_as_owner
from launcher.gpu.model import AMD, Gpu
from launcher.gpu.lease import run_lease
with run_lease("LLM06", wait=False, dry=False) as lease:
    lease.take([Gpu(AMD, 0, "Instinct", node="/dev/dri/renderD128")], 1)
    show = ["ls", "-l", "/proc/self/fd"]
    for inherited in ((), lease.inherited):
        run_as_owner(Owner({os.getuid()}, {os.getgid()}), show, {{"PATH": "/bin"}}, inherited)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.count(PREFIX) == 1, shown.stdout
