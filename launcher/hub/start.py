"""`invoke hub`: JupyterHub for a class, in a container that starts one for each learner."""

import socket
import time

from common.cards import Card, print_status
from launcher.engine.client import Engine
from launcher.engine.compose import Service, seat_service
from launcher.hub import address as hub_address
from launcher.hub import api as hub_api
from launcher.hub import compose as hub_compose
from launcher.hub import folder as hub_folder
from launcher.hub import gpus as hub_gpus
from launcher.hub import settings as hub_settings
from launcher.hub import users as hub_users
from launcher.hub.api import HubApi
from launcher.hub.folder import LEARNERS, STATE
from launcher.hub.gpus import HubGpus
from launcher.hub.settings import SETTINGS_FILE, WORKSHOP, HubSettings
from launcher.run import service as lab_service
from launcher.run.file_owner import file_owner
from launcher.run.placement import Placement
from launcher.run.runtime import Runtime

SECONDS_TO_START = 120
LOOPBACK = "127."
SEATS_AT_ONCE_PER_CPU = 2


def start(seats: bool, dry: bool) -> int:
    """Start the hub, or start it again after a change of hub.toml, and print its link.

    Args:
        seats: Whether to start the seats of all learners, too.
        dry: Whether to print the commands only.

    Returns:
        The exit code: 1 if a seat didn't start.

    Raises:
        Card: If a setting is wrong, or the engine refuses.
    """
    runtime = hub_compose.require_runtime()
    engine = runtime.engine
    assert engine is not None
    if dry:
        _print_commands(runtime, engine)
        return 0
    hub_folder.prepare(WORKSHOP, file_owner())
    settings = hub_settings.read()
    # The engine ends the running hub before it looks at the new port.
    hub_address.refuse_unusable(settings, hub_compose.published_ports(engine))
    placement = hub_gpus.place(runtime, settings)
    gpus = hub_gpus.describe(settings, placement, engine)
    service = _seat_service(settings, engine, placement)
    spec = lab_service.container_spec(service, placement, engine)
    hub_folder.describe(WORKSHOP, settings, spec, gpus)  # a wrong list ends this before a build
    name = seat_service(placement.stack)
    lab_service.prepare(engine, name, service, spec, placement.owner)
    spec = lab_service.container_spec(service, placement, engine)  # the image may be new
    state = hub_folder.describe(WORKSHOP, settings, spec, gpus)
    command, variables = hub_compose.up_command(
        settings, engine, placement, spec.image, state.digest
    )
    hub_folder.write_state(WORKSHOP, state, placement.owner)
    hub_compose.up(command, variables, settings)
    api = hub_api.connect(settings, WORKSHOP / STATE / "token")
    _wait_until_ready(api)
    _print_link(settings)
    _print_gpus(gpus)
    _print_learners(settings)
    return _start_seats(api, settings, engine, gpus) if seats else 0


def _print_commands(runtime: Runtime, engine: Engine) -> None:
    """Print the commands that build the image and start the hub; nothing is written.

    Raises:
        Card: If a setting is wrong, or this machine has too few GPUs.
    """
    path = WORKSHOP / SETTINGS_FILE
    new = not path.exists()
    settings = hub_settings.check(path, hub_folder.new_settings()) if new else hub_settings.read()
    placement = hub_gpus.place(runtime, settings)
    gpus = hub_gpus.describe(settings, placement, engine)
    service = _seat_service(settings, engine, placement)
    spec = lab_service.container_spec(service, placement, engine)
    config = hub_folder.describe(WORKSHOP, settings, spec, gpus).digest
    command, variables = hub_compose.up_command(settings, engine, placement, spec.image, config)
    for line in lab_service.build_lines(engine, seat_service(placement.stack), service):
        print(line)
    print(lab_service.shell_line(command, variables))
    _print_gpus(gpus)
    if new:
        print_status(f"invoke hub also writes {path}, which isn't there yet.")


def _seat_service(settings: HubSettings, engine: Engine, placement: Placement) -> Service:
    """Return the service of a seat, with the limits of hub.toml."""
    cpus = min(settings.cpus, engine.cpus) if engine.cpus else settings.cpus
    variables = {
        **lab_service.user_variables(placement, engine.rootless),
        "LABS_MEMORY": str(settings.memory),
        "LABS_CPUS": str(cpus),
    }
    return lab_service.resolve(seat_service(placement.stack), placement, variables)


def _wait_until_ready(api: HubApi) -> None:
    """Wait until the hub replies.

    Raises:
        Card: If it doesn't, with the last line of its log.
    """
    deadline = time.monotonic() + SECONDS_TO_START
    while not api.is_ready():
        if time.monotonic() > deadline:
            why = f"Its last line: {hub_compose.last_line_of_log()}"
            words = " ".join(hub_compose.compose_command()[:3])
            raise Card("The hub doesn't start.", why, f"{words} logs")
        time.sleep(0.3)


def _print_link(settings: HubSettings) -> None:
    scheme = "https" if settings.certificate else "http"
    host = socket.gethostname() if settings.address == hub_api.EVERYWHERE else settings.address
    print(f"{scheme}://{host}:{settings.port}", flush=True)
    who = f"their name in {settings.users}" if settings.users else "a name of their choice"
    print_status(f"Learners log in with {who}, and {settings.teacher} sees the class.")
    print_status(f"Passwords and settings: {WORKSHOP / SETTINGS_FILE}. To end: invoke hub --stop")
    if not settings.address.startswith(LOOPBACK) and not settings.certificate:
        print_status(
            "Without `certificate` and `key`, passwords travel unencrypted: use this hub only in a "
            "network that you trust."
        )


def _print_learners(settings: HubSettings) -> None:
    """Print what is worth knowing about the list of learners."""
    if not settings.users:
        return
    path = WORKSHOP / settings.users
    if problem := hub_users.readable_by_others(path):
        print_status(f"{path}: {problem}. To stop that: chmod 600 {path}")
    learners = len(hub_users.read_users(path, settings.teacher))
    if learners > settings.seats:
        print_status(
            f"{path} has {learners} learners, and {settings.seats} can work at once. "
            f"To change that, in {WORKSHOP / SETTINGS_FILE}: seats = {learners}"
        )


def _print_gpus(gpus: HubGpus | None) -> None:
    if gpus is None:
        return
    each = "a GPU" if gpus.per_seat == 1 else f"{gpus.per_seat} GPUs"
    numbers = ", ".join(str(gpu.index) for gpu in gpus.gpus)
    seats = f"{gpus.seats} seat{'s' if gpus.seats > 1 else ''}"
    print_status(f"Each seat gets {each}, of GPU {numbers}: enough for {seats} at once.")


def _start_seats(api: HubApi, settings: HubSettings, engine: Engine, gpus: HubGpus | None) -> int:
    """Start the seats of all learners whose names are known, as far as GPUs go round.

    Raises:
        Card: If no name is known.
    """
    names = _known_learners(settings)
    if not names:
        raise Card(
            "No learner is known.",
            "In a room with a shared password, names are known once learners have logged in.",
            f"list the learners in a CSV file: `users` in {WORKSHOP / SETTINGS_FILE}",
        )
    seats = min(settings.seats, gpus.seats) if gpus else settings.seats
    if len(names) > seats:
        why = " with GPUs" if seats < settings.seats else ""
        print_status(f"{len(names)} learners are known, and there are {seats} seats{why}.")
    at_once = max(2, SEATS_AT_ONCE_PER_CPU * engine.cpus)
    result = hub_api.start_seats(api, names[:seats], at_once, print_status)
    print_status(f"{len(result.ready)} seats are ready, {len(result.failed)} failed.")
    return 1 if result.failed else 0


def _known_learners(settings: HubSettings) -> list[str]:
    if settings.users:
        return sorted(hub_users.read_users(WORKSHOP / settings.users, settings.teacher))
    folders = (path.name for path in (WORKSHOP / LEARNERS).glob("*/"))
    names = filter(hub_users.is_allowed, folders)
    return sorted(name for name in names if name != settings.teacher)
