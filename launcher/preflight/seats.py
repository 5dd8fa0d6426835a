"""Start the containers of many learners at once, and measure what each takes."""

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice, repeat
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from common.cards import Card
from launcher.engine import container as run_container
from launcher.engine.client import Engine
from launcher.engine.compose import notebook_service
from launcher.engine.container_spec import Bind, ContainerSpec
from launcher.engine.known_errors import explain
from launcher.notebook import run as notebook
from launcher.notebook.server import NotebookServer, free_ports
from launcher.run import service as lab_service
from launcher.run.file_owner import Owner, make_writable_folder
from launcher.run.placement import Placement

if TYPE_CHECKING:
    from docker.models.containers import Container

NAME = "preflight"
MOST_SECONDS = 180  # until a seat counts as failed
SECONDS_BETWEEN_REQUESTS = 0.5
JUPYTERLAB = ("python", "-m", "jupyterlab")  # the hub's image has no entrypoint
FOLDERS = ("/lab/outputs", "/lab/work")  # in the container; each seat has separate ones


@dataclass
class Seat:
    """A learner's container.

    Attributes:
        server: Its JupyterLab.
        container: The container.
        created_seconds: How long the engine took to create it.
        ready_seconds: How long it took from the request to the first page; None if it failed.
        memory_bytes: What it takes once all seats are ready; None if that is unknown.
        failure: Why it isn't ready; "" if it is.
    """

    server: NotebookServer
    container: "Container"
    created_seconds: float
    ready_seconds: float | None = None
    memory_bytes: int | None = None
    failure: str = ""


@dataclass(frozen=True)
class Measurement:
    """What starting all seats at once took. Times are seconds, memory is bytes."""

    seats: int
    ready: int
    median_seconds: float | None
    worst_seconds: float | None
    median_memory: int | None
    worst_memory: int | None
    failures: dict[str, int] = field(default_factory=dict[str, int])  # how often each happened


def measure(engine: Engine, placement: Placement, count: int, hub_image: str) -> Measurement:
    """Start seats, wait until each responds, and remove them all.

    Args:
        engine: The engine.
        placement: The stack and the GPUs.
        count: How many seats.
        hub_image: The hub's image, in place of that of `invoke notebook`; or "".

    Raises:
        Card: If the engine refuses the containers.
    """
    ended = threading.Event()
    engine.client.api.timeout = MOST_SECONDS  # it starts many containers at once
    with _created(engine, placement, count, hub_image) as seats, ThreadPoolExecutor(count) as pool:
        try:
            list(pool.map(_start, seats, repeat(ended)))
            list(pool.map(_weigh, seats))
        finally:
            ended.set()
        return _summarise(seats)


@contextmanager
def _created(
    engine: Engine, placement: Placement, count: int, hub_image: str
) -> Generator[list[Seat]]:
    """Create the containers of all seats, and remove them at the end of this block.

    Raises:
        Card: If there are too few ports, or the engine refuses.
    """
    from docker.errors import APIError

    ports = list(islice(free_ports(), count))
    if len(ports) < count:
        why = f"{len(ports)} of the ports for notebooks are free."
        raise Card(f"{count} seats can't be started.", why, "ss -ltnp names the programs")
    variables = lab_service.user_variables(placement, engine.rootless)
    service = lab_service.resolve(notebook_service(placement.stack), placement, variables)
    spec = lab_service.container_spec(service, placement, engine)
    spec = replace(spec, network_mode=run_container.container_name(NAME))
    if hub_image:
        spec = replace(spec, image=hub_image, command=(*JUPYTERLAB, *spec.command))
    try:
        with ExitStack() as stack:
            stack.enter_context(notebook.network(engine, spec))
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-labs-seats-")))
            home.chmod(0o755)
            seats: list[Seat] = []
            for port in ports:
                server = NotebookServer(port, "")
                own = _spec_of(spec, server, home / str(port), placement.owner)
                begun = time.monotonic()
                container = stack.enter_context(run_container.created(engine, own, NAME))
                seats.append(Seat(server, container, time.monotonic() - begun))
            stack.callback(_kill_all, seats)  # the first clean-up
            yield seats
    except APIError as error:
        what = "The engine refuses a seat's container."
        raise explain(str(error.explanation or error), what, "docker info") from error


def _spec_of(
    spec: ContainerSpec, server: NotebookServer, home: Path, owner: Owner
) -> ContainerSpec:
    """Return the container of one seat: with folders, a port and a token that no other has."""
    binds: list[Bind] = []
    for bind in spec.binds:
        if bind.target in FOLDERS:
            folder = home / Path(bind.target).name
            make_writable_folder(folder, owner)
            bind = replace(bind, source=str(folder))
        binds.append(bind)
    return replace(
        spec,
        binds=tuple(binds),
        ports=tuple(replace(port, published=server.port) for port in spec.ports),
        environment={**spec.environment, "JUPYTER_TOKEN": server.token},
    )


def _start(seat: Seat, ended: threading.Event) -> None:
    """Start a seat, and wait until its JupyterLab responds, or the launcher gives up."""
    begun = time.monotonic()
    try:
        seat.container.start()
        while not seat.server.is_ready:
            if time.monotonic() - begun > MOST_SECONDS:
                seat.failure = f"no reply within {MOST_SECONDS} s"
                return
            if ended.wait(SECONDS_BETWEEN_REQUESTS):
                return
            seat.container.reload()
            if seat.container.status not in ("created", "running"):
                seat.failure = _last_line(seat.container)
                return
    except OSError as error:  # includes the SDK's errors
        seat.failure = explain(str(error), str(error)).what
        return
    seat.ready_seconds = seat.created_seconds + time.monotonic() - begun


def _last_line(container: "Container") -> str:
    """Return why a container has ended."""
    state = container.attrs["State"]
    if state.get("OOMKilled"):
        return "it needed more memory than its limit allows"
    lines = container.logs(tail=1).decode(errors="replace").strip()
    return f"it ended with {state['ExitCode']}: {lines}"


def _weigh(seat: Seat) -> None:
    """Read the memory that a seat takes, without the pages of files that the kernel can drop."""
    with suppress(OSError, KeyError):  # the engine's errors; a kernel that doesn't count
        statistics: Any = seat.container.stats(stream=False)
        usage = statistics["memory_stats"]
        seat.memory_bytes = usage["usage"] - usage["stats"].get("inactive_file", 0)


def _kill_all(seats: list[Seat]) -> None:
    """End all seats at once: removing them one by one would wait for each to end."""

    def kill(seat: Seat) -> None:
        with suppress(OSError):  # it has ended already
            seat.container.kill()

    with ThreadPoolExecutor(len(seats)) as pool:
        list(pool.map(kill, seats))


def _summarise(seats: list[Seat]) -> Measurement:
    times = [seat.ready_seconds for seat in seats if seat.ready_seconds is not None]
    weights = [seat.memory_bytes for seat in seats if seat.memory_bytes is not None]
    return Measurement(
        seats=len(seats),
        ready=len(times),
        median_seconds=round(median(times), 1) if times else None,
        worst_seconds=round(max(times), 1) if times else None,
        median_memory=round(median(weights)) if weights else None,
        worst_memory=max(weights, default=None),
        failures=dict(Counter(seat.failure for seat in seats if seat.failure)),
    )
