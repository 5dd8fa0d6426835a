"""Leases on GPUs: one holder for each, whoever asks, and however a holder ends."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from common.cards import Card
from launcher.gpu import leases
from launcher.gpu.leases import FOLDERS, PREFIX, AllTaken, Leases, folder_problem, lease_folder
from launcher.gpu.model import AMD, Gpu
from tests.conftest import REPO, SOMEBODY, as_user

import pytest

GPUS = [Gpu(AMD, number, "Instinct", node=f"/dev/dri/renderD{128 + number}") for number in range(2)]
# Another process: it takes as many GPUs as it is asked, says which, and waits for its end.
HOLDER = """
import sys
from pathlib import Path
from launcher.gpu.model import AMD, Gpu
from launcher.gpu.leases import AllTaken, Leases
folder, holder, gpus, count, per_gpu = sys.argv[1:]
gpus = [Gpu(AMD, i, "Instinct", node=f"/dev/dri/renderD{128 + i}") for i in range(int(gpus))]
leases = Leases(gpus, int(per_gpu), folder=Path(folder))
try:
    print(*(gpu.index for gpu in leases.take(int(count), holder)), flush=True)
except AllTaken as refused:
    print("refused", refused.why, flush=True)
    sys.exit()
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o1777)
    return tmp_path


class Holders:
    """Processes that hold leases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []

    def begin(
        self, holder: str, gpus: int = 2, count: int = 1, per_gpu: int = 1, uid: int = 0
    ) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", HOLDER, self.folder, holder, gpus, count, per_gpu]
        command = [*(as_user(uid) if uid else []), *map(str, words)]
        process = subprocess.Popen(
            command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.started.append(process)
        return process

    def start(self, holder: str, **how: int) -> tuple[subprocess.Popen[str], str]:
        process = self.begin(holder, **how)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()


@pytest.fixture
def holders(folder: Path) -> Iterator[Holders]:
    made = Holders(folder)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


def indices(gpus: tuple[Gpu, ...]) -> list[int]:
    return [gpu.index for gpu in gpus]


def test_each_holder_gets_a_free_gpu_and_the_last_one_learns_who_has_them(folder: Path) -> None:
    leases = Leases(GPUS, folder=folder)
    assert indices(leases.take(1, "seat anna")) == [0]
    assert indices(leases.take(1, "seat ben")) == [1]
    with pytest.raises(AllTaken, match="No GPU is free") as refused:
        leases.take(1, "seat carla")
    assert "GPU 0: " in refused.value.why and "seat anna" in refused.value.why
    assert "GPU 1: " in refused.value.why and "seat ben" in refused.value.why
    leases.release("seat anna")
    assert indices(leases.take(1, "seat carla")) == [0]


def test_a_request_that_can_not_be_met_takes_nothing(folder: Path) -> None:
    leases = Leases(GPUS, folder=folder)
    leases.take(1, "seat anna")
    with pytest.raises(AllTaken, match="Not all of these GPUs are free: 0, 1"):
        leases.take(2, "seat ben")
    assert indices(leases.take(1, "seat carla")) == [1]


def test_two_processes_that_race_for_one_gpu_get_it_once(holders: Holders) -> None:
    racing = [holders.begin(f"lab {number}", gpus=1) for number in range(6)]
    said = [process.stdout.readline().split()[0] for process in racing if process.stdout]
    assert sorted(said) == ["0", *["refused"] * 5]


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGTERM])
def test_a_lease_ends_with_a_killed_holder(
    holders: Holders, folder: Path, what: signal.Signals
) -> None:
    process, said = holders.start("lab", count=2)
    assert said == "0 1"
    with pytest.raises(AllTaken):
        Leases(GPUS, folder=folder).take(1, "seat anna")
    process.send_signal(what)
    process.wait()
    assert indices(Leases(GPUS, folder=folder).take(1, "seat anna")) == [0]


def test_a_lease_lives_as_long_as_a_process_that_inherited_it(
    holders: Holders, folder: Path
) -> None:
    """A lab in an environment can outlive its launcher."""
    leases = Leases(GPUS, folder=folder)
    assert indices(leases.take(1, "lab")) == [0]
    lab = subprocess.Popen(["sleep", "600"], pass_fds=leases.descriptors("lab"))
    leases.release("lab")  # as if the launcher were killed
    assert holders.start("another")[1] == "1"
    assert holders.start("one too many")[1].startswith("refused")
    lab.kill()
    lab.wait()
    assert holders.start("after the lab")[1] == "0"


@pytest.mark.parametrize(
    ("first", "second", "sharing"), [(3, 3, True), (1, 3, False), (3, 1, False), (2, 9, True)]
)
def test_a_gpu_is_shared_as_far_as_all_of_its_holders_accept(
    folder: Path, first: int, second: int, sharing: bool
) -> None:
    Leases(GPUS[:1], per_gpu=first, folder=folder).take(1, "seat anna")
    newcomer = Leases(GPUS[:1], per_gpu=second, folder=folder)
    if sharing:
        assert indices(newcomer.take(1, "seat ben")) == [0]
        limit = min(first, second)
        for number in range(2, limit):
            newcomer.take(1, f"seat {number}")
    with pytest.raises(AllTaken):
        newcomer.take(1, "one too many")


def test_shares_are_spread_over_the_gpus(folder: Path) -> None:
    leases = Leases(GPUS, per_gpu=2, folder=folder)
    assert [indices(leases.take(1, f"seat {number}")) for number in range(4)] == [[0], [1]] * 2


def test_the_labs_of_one_user_share_a_gpu_only_if_none_is_free(folder: Path) -> None:
    labs = Leases(GPUS, with_own=True, folder=folder)
    got = [indices(labs.take(1, f"lab {number}")) for number in range(4)]
    assert got == [[0], [1], [0], [1]]
    with pytest.raises(AllTaken):
        Leases(GPUS, folder=folder).take(1, "seat anna")


def test_a_lab_does_not_share_the_gpu_of_a_seat_of_the_same_user(folder: Path) -> None:
    Leases(GPUS[:1], folder=folder).take(1, "seat anna")
    with pytest.raises(AllTaken):
        Leases(GPUS[:1], with_own=True, folder=folder).take(1, "lab")


# Other users


@pytest.mark.usefixtures("root")
def test_another_user_respects_a_lease_and_is_named(holders: Holders, folder: Path) -> None:
    assert holders.start("theirs", uid=SOMEBODY)[1] == "0"
    mine = Leases(GPUS, with_own=True, folder=folder)
    assert indices(mine.take(1, "mine")) == [1]
    with pytest.raises(AllTaken) as refused:
        Leases(GPUS[:1], with_own=True, folder=folder).take(1, "mine, too")
    assert f"GPU 0: uid {SOMEBODY}, theirs, since" in refused.value.why


@pytest.mark.usefixtures("root")
def test_a_gpu_goes_from_one_user_to_the_next(holders: Holders) -> None:
    process, said = holders.start("theirs", gpus=1, uid=SOMEBODY)
    assert said == "0"
    process.kill()
    process.wait()
    assert holders.start("mine", gpus=1, uid=SOMEBODY + 1)[1] == "0"


JUNK = {
    "empty": b"",
    "no JSON": b"\xff{",
    "a list": b"[]",
    "a number": b'{"holder": 1, "uid": "x", "per_gpu": 1, "with_own": 0, "since": 0}',
    "an infinite number": b'{"holder": "x", "uid": 1e999, "per_gpu": 1, "since": 0}',
    "too long": b"[" * 100_000,
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_only_the_lock_decides_and_the_text_may_be_junk(folder: Path, junk: bytes) -> None:
    path = folder / f"{PREFIX}dev-dri-renderD128.0"
    path.write_bytes(junk)
    first = Leases(GPUS[:1], folder=folder)
    assert indices(first.take(1, "seat anna")) == [0]
    path.write_bytes(junk)
    with pytest.raises(AllTaken, match="GPU 0 isn't free") as refused:
        Leases(GPUS[:1], folder=folder).take(1, "seat ben")
    assert "unknown" in refused.value.why


def test_links_pipes_and_folders_with_the_name_of_a_lease_hold_nothing(folder: Path) -> None:
    os.mkfifo(folder / f"{PREFIX}dev-dri-renderD128.0")
    (folder / f"{PREFIX}dev-dri-renderD128.1").mkdir()
    (folder / f"{PREFIX}dev-dri-renderD129.0").symlink_to("/etc/passwd")
    leases = Leases(GPUS, folder=folder)
    assert indices(leases.take(2, "seat anna")) == [0, 1]
    assert len(leases.held()) == 2
    assert (folder / f"{PREFIX}dev-dri-renderD129.0").is_symlink()


def test_a_holder_can_not_steer_the_terminal_of_others(folder: Path) -> None:
    leases = Leases(GPUS[:1], folder=folder)
    leases.take(1, "\x1b[2Jlab\n" + "x" * 500)
    (lease,) = leases.held()
    assert lease.holder.startswith("?[2Jlab?xxx") and len(lease.holder) == 80


# The folder


def test_a_locked_folder_is_a_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SECONDS_TO_LOCK", 0.1)
    blocker = os.open(folder, os.O_RDONLY)
    fcntl.flock(blocker, fcntl.LOCK_EX)
    try:
        with pytest.raises(Card, match="The leases of GPUs can't be read") as refused:
            Leases(GPUS, folder=folder).take(1, "seat anna")
    finally:
        os.close(blocker)
    assert "lsof" in refused.value.fix


def test_a_full_disk_is_a_card_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(leases, "_write", full)
    with pytest.raises(Card, match="can't be written") as refused:
        Leases(GPUS, folder=folder).take(1, "seat anna")
    assert "No space left on device" in refused.value.why
    assert Leases(GPUS, folder=folder).held() == []


def test_a_folder_in_which_others_could_remove_a_lease_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for mode, problem in ((0o777, "has the mode 777"), (0o755, "has the mode 755"), (0o1777, "")):
        tmp_path.chmod(mode)
        assert folder_problem(tmp_path).startswith(problem)
        assert bool(folder_problem(tmp_path)) == bool(problem)
    monkeypatch.setenv("LABS_LEASES", str(tmp_path))
    assert lease_folder() == tmp_path
    for bad in (str(tmp_path / "missing"), "relative", "/etc/passwd"):
        monkeypatch.setenv("LABS_LEASES", bad)
        with pytest.raises(Card, match="LABS_LEASES="):
            lease_folder()


@pytest.mark.usefixtures("root")
def test_the_folder_of_another_user_is_refused(folder: Path) -> None:
    os.chown(folder, SOMEBODY, SOMEBODY)
    assert f"belongs to uid {SOMEBODY}, who could remove" in folder_problem(folder)


def test_the_usual_folder_is_one_that_every_user_can_write_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LABS_LEASES", raising=False)
    assert lease_folder() in FOLDERS
