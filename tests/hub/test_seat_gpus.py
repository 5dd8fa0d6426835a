"""GPUs of seats: leases, the line of those who wait, and the container. No hub runs here."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from common.cards import Card
from hub import seats, state, waiting_line
from hub.seat_leases import SeatLeases
from hub.waiting_line import LeftTheLine, WaitingLine
from launcher.engine.container_spec import ContainerSpec
from launcher.gpu.leases import AllTaken, Leases, describe
from launcher.gpu.model import AMD, NVIDIA, Gpu
from launcher.gpu.select import LABEL, attach
from launcher.hub import folder as hub_folder
from launcher.hub import gpus as hub_gpus
from launcher.hub import settings as hub_settings
from launcher.hub.gpus import HubGpus
from launcher.run.file_owner import Owner
from launcher.run.placement import Placement
from launcher.run.runtime import Runtime

import pytest

KFD = "/dev/kfd"
NODES = ["/dev/dri/renderD128", "/dev/dri/renderD136"]
GPUS = tuple(
    Gpu(AMD, number, "Instinct", "gfx942", node=node, devices=(KFD, node), gids=(992,))
    for number, node in enumerate(NODES)
)
SEATS = HubGpus("rocm", GPUS, "auto", 1, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o1777)
    return tmp_path


def leases_of(folder: Path, gpus: HubGpus = SEATS) -> SeatLeases:
    return SeatLeases(gpus, folder)


def lab(folder: Path, gpus: tuple[Gpu, ...] = GPUS) -> Leases:
    """Return the leases as `invoke lab` uses them."""
    return Leases(gpus, with_own=True, folder=folder)


def numbers(gpus: tuple[Gpu, ...]) -> list[int]:
    return [gpu.index for gpu in gpus]


def test_a_lab_never_gets_the_gpu_of_a_seat_and_a_seat_never_that_of_a_lab(folder: Path) -> None:
    assert numbers(leases_of(folder).take("ada")) == [0]
    labs = lab(folder)
    assert numbers(labs.take(1, "LLM06")) == [1]
    assert numbers(labs.take(1, "LLM07")) == [1], "the user's own labs share, but not with a seat"
    assert leases_of(folder).take("ben") == ()
    with pytest.raises(AllTaken):
        lab(folder, GPUS[:1]).take(1, "LLM08")


def test_the_list_of_leases_names_the_learner(folder: Path) -> None:
    leases = leases_of(folder)
    leases.take("ada")
    assert ", seat of ada, since " in describe(GPUS, lab(folder).held())
    leases.release("ada")
    leases.release("ada")
    assert lab(folder).held() == []


def test_the_next_hub_takes_the_leases_of_running_seats_again(folder: Path) -> None:
    labs = lab(folder)
    assert numbers(labs.take(1, "LLM06")) == [0]
    leases = leases_of(folder)
    seats = {
        "ada": [NODES[1]],
        "ben": [NODES[0]],  # a lab has taken its GPU
        "carla": ["/dev/dri/renderD200"],  # the site has taken its GPU away from the hub
    }
    assert leases.take_again(seats) == ["ben", "carla"]
    assert [one.holder for one in labs.held()] == ["LLM06", "seat of ada"]
    leases.release("ada")
    assert [one.holder for one in labs.held()] == ["LLM06"]


def test_a_seat_that_starts_again_doesn_t_hold_the_gpu_of_its_failed_start_too(
    folder: Path,
) -> None:
    leases = leases_of(folder)
    assert numbers(leases.take("ada")) == [0]
    assert numbers(leases.take("ada")) == [0]
    assert len(lab(folder).held()) == 1


def test_no_gpu_is_given_twice_to_seats_and_labs_that_ask_at_once(folder: Path) -> None:
    seats_at_once = leases_of(folder)

    def ask(number: int) -> list[int]:
        if number % 2:
            return numbers(seats_at_once.take(f"learner-{number}"))
        try:
            return numbers(Leases(GPUS, folder=folder).take(1, f"lab {number}"))
        except AllTaken:
            return []

    with ThreadPoolExecutor(12) as pool:
        given = [number for gpus in pool.map(ask, range(24)) for number in gpus]
    assert sorted(given) == [0, 1]


def test_seats_share_a_gpu_as_far_as_the_site_says(folder: Path) -> None:
    shared = replace(SEATS, per_gpu=2)
    assert shared.seats == 4
    leases = leases_of(folder, shared)
    given = [numbers(leases.take(name)) for name in ("ada", "ben", "carla", "dora", "eve")]
    assert given == [[0], [1], [0], [1], []]
    pairs = leases_of(folder, replace(shared, per_seat=2))
    assert replace(shared, per_seat=2).seats == 2
    assert pairs.take("fay") == ()
    leases.release("ada")
    leases.release("ben")
    assert numbers(pairs.take("fay")) == [0, 1]


# The line


class Pool:
    """GPUs to take, which the test adds one by one."""

    def __init__(self) -> None:
        self.free: list[Gpu] = []
        self.given: dict[str, Gpu] = {}

    def take(self, learner: str) -> tuple[Gpu, ...]:
        if not self.free:
            return ()
        self.given[learner] = self.free.pop()
        return (self.given[learner],)

    def release(self, learner: str) -> None:
        if learner in self.given:
            self.free.append(self.given.pop(learner))


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr(waiting_line, "SECONDS_BETWEEN_TRIES", 0.01)
    monkeypatch.setattr(waiting_line, "SECONDS_BETWEEN_MESSAGES", 0.01)
    return Pool()


async def first_message(line: WaitingLine, name: str) -> str:
    async with aclosing(line.messages(name)) as messages:
        return await anext(messages, "")


async def until_waiting(line: WaitingLine, name: str) -> None:
    while not await first_message(line, name):
        await asyncio.sleep(0.001)


def test_who_comes_first_gets_the_first_gpu_and_all_learn_their_place(pool: Pool) -> None:
    async def scenario() -> None:
        line = WaitingLine(pool)
        waiting = {}
        for name in ("ada", "ben", "carla"):
            waiting[name] = asyncio.ensure_future(line.wait(name))
            await until_waiting(line, name)
        assert "3 learners wait: You are the first." in await first_message(line, "ada")
        assert "3 learners wait: 2 before you." in await first_message(line, "carla")
        pool.free.append(GPUS[0])
        assert await waiting["ada"] == (GPUS[0],)
        assert "2 learners wait: 1 before you." in await first_message(line, "carla")
        assert await first_message(line, "ada") == "", "who doesn't wait reads nothing"
        pool.free.append(GPUS[1])
        assert await waiting["ben"] == (GPUS[1],)
        assert not waiting["carla"].done()
        waiting["carla"].cancel()

    asyncio.run(scenario())


def test_who_closes_the_page_loses_the_place_and_who_keeps_it_open_waits_on(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(waiting_line, "monotonic", lambda: now[0])

    async def scenario() -> None:
        line = WaitingLine(pool)
        ada = asyncio.ensure_future(line.wait("ada"))
        ben = asyncio.ensure_future(line.wait("ben"))
        await asyncio.sleep(0)
        for _ in range(5):  # Ben's page is open for more than a minute
            now[0] += waiting_line.SECONDS_TO_LEAVE / 4
            assert await first_message(line, "ben")
        with pytest.raises(LeftTheLine):
            await ada
        assert "1 learner waits: You are the first." in await first_message(line, "ben")
        pool.free.append(GPUS[0])
        assert await ben == (GPUS[0],)

    asyncio.run(scenario())


def test_a_learner_who_stops_waiting_while_a_gpu_is_taken_gives_it_back(pool: Pool) -> None:
    async def scenario() -> None:
        line = WaitingLine(pool)
        pool.free.append(GPUS[0])
        ada = asyncio.ensure_future(line.wait("ada"))
        await asyncio.sleep(0)  # a thread takes the GPU now
        ada.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ada
        assert await line.wait("ben") == (GPUS[0],)

    asyncio.run(scenario())


# The container

SPEC = ContainerSpec(image="llm-labs:x", user="1000:1000", devices=(KFD, "/dev/dri"), groups=("9",))


def test_a_seat_gets_the_nodes_and_numeric_groups_of_its_amd_gpu_alone() -> None:
    spec = attach(SPEC, "rocm", GPUS[1:], "auto")
    config = seats.host_config(spec, ())
    assert config["devices"] == [f"{KFD}:{KFD}:rwm", f"{NODES[1]}:{NODES[1]}:rwm"]
    assert config["group_add"] == ["992"]
    assert "device_requests" not in config and "runtime" not in config
    assert seats.create_arguments(spec, spec.labels)["labels"][LABEL] == NODES[1]


@pytest.mark.parametrize(
    ("access", "request_"),
    [
        ("auto", {"Driver": "nvidia", "DeviceIDs": ["GPU-b"], "Capabilities": [["gpu"]]}),
        ("cdi", {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=1"]}),
    ],
)
def test_a_seat_asks_for_its_nvidia_gpu_alone(access: str, request_: dict[str, object]) -> None:
    gpu = Gpu(NVIDIA, 1, "H100", node="/dev/nvidia1", uuid="GPU-b")
    spec = attach(ContainerSpec(image="llm-labs:cuda-hub"), "cuda", (gpu,), access)
    config = seats.host_config(spec, ())
    (found,) = config["device_requests"]
    assert {name: found[name] for name in request_} == request_
    assert "devices" not in config
    assert spec.labels[LABEL] == "GPU-b"


def test_the_hub_reads_which_gpus_seats_may_have(tmp_path: Path) -> None:
    owner = Owner(tmp_path.stat().st_uid, tmp_path.stat().st_gid)
    hub_folder.prepare(tmp_path, owner)
    settings = replace(hub_settings.read(tmp_path), gpus=1)
    written = hub_folder.describe(tmp_path, settings, SPEC, SEATS)
    hub_folder.write_state(tmp_path, written, owner)
    assert state.load(tmp_path).gpus == SEATS
    assert written.digest != hub_folder.describe(tmp_path, settings, SPEC).digest


@pytest.mark.parametrize(
    ("gpus", "wanted", "why"),
    [((), 1, "No GPU can be used here: no kfd."), (GPUS, 3, "Seats can use 2 GPUs: no kfd.")],
)
def test_too_few_gpus_for_a_seat_are_a_card_at_the_start_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: tuple[Gpu, ...], wanted: int, why: str
) -> None:
    placement = Placement("rocm" if gpus else "cpu", gpus, Owner(1, 1), "no kfd")

    def choose(*_: object) -> Placement:
        return placement

    monkeypatch.setattr(hub_gpus, "choose_placement", choose)
    hub_folder.prepare(tmp_path, Owner(tmp_path.stat().st_uid, tmp_path.stat().st_gid))
    settings = replace(hub_settings.read(tmp_path), gpus=wanted)
    with pytest.raises(Card) as raised:
        hub_gpus.place(Runtime(None, ""), settings)
    assert raised.value.why == why
    assert raised.value.fix.endswith(f"gpus = {len(gpus)}")
