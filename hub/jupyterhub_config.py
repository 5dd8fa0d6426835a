"""JupyterHub's configuration, from what `invoke hub` wrote into workshop/state/."""

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
from hub import class_folder, copies, networks, presence, seat_ends, state, time_limits
from hub.authenticator import WorkshopAuthenticator
from hub.database import use_write_ahead_log
from hub.proxy import SeatProxy
from hub.spawner import HUB_CONTAINER, SECONDS_TO_START, SeatSpawner, leases, workshop
from hub.steady_clock import use_steady_clock
from launcher.gpu.select import LABEL as GPUS_LABEL
from launcher.hub import folder as hub_folder

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821
settings = workshop.settings
STATE = state.WORKSHOP / hub_folder.STATE
CLASS_PAGE = "class"
SECONDS_TO_WAIT = 24 * 3600  # for a GPU
SECONDS_BETWEEN_LOOKS = 10  # whether a seat has ended; each asks the engine


def first_page(handler: Any) -> str:
    """Return where a user goes after the login: to the class, or to the own seat."""
    user = handler.current_user
    if user is None:
        return "/hub/login"
    presence.record(state.WORKSHOP, user.name, time.time())
    return f"/services/{CLASS_PAGE}/" if user.admin else "/hub/spawn"


def end_of_seat(user: Any) -> seat_ends.End | None:
    """Return when and why a user's seat ended, for a template; None if that is unknown."""
    return seat_ends.read(state.WORKSHOP, user.name) if user else None


def running_seats(engine: Any) -> dict[str, Any]:
    """Return the containers of this hub's seats that have GPUs, by learner."""
    own = networks.seat_network(workshop.ident, "")
    filters = {"label": [f"{hub_folder.LABEL}={workshop.ident}", GPUS_LABEL]}
    containers = engine.containers.list(filters=filters, ignore_removed=True)
    return {container.name.removeprefix(own): container for container in containers}


def take_leases_again(engine: Any) -> None:
    """Take the leases of an earlier hub's seats; stop a seat if others hold its GPUs now."""
    containers = running_seats(engine)
    seats = {name: one.labels[GPUS_LABEL].split() for name, one in containers.items()}
    for name in leases.take_again(seats):
        print(f"Stopping the seat of {name}: somebody else holds its GPUs.", file=sys.stderr)
        with suppress(docker.errors.NotFound):  # it has just ended
            containers[name].remove(force=True)


use_steady_clock()
use_write_ahead_log()
seconds_between_reports = time_limits.seconds_between_reports(settings.idle)
class_folder.lock_solutions(state.WORKSHOP, settings.solutions == "locked")
engine = docker.from_env()
networks.connect_hub_to_all(engine.api, workshop.ident, HUB_CONTAINER)
copies.begin(docker.from_env(), workshop.ident)
if leases is not None:
    take_leases_again(engine)
    # A seat that waits for a GPU is one that starts; its page shows the line at once.
    c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 1}

c.JupyterHub.bind_url = "http://0.0.0.0:8000"
c.JupyterHub.hub_bind_url = "http://0.0.0.0:8081"
c.JupyterHub.hub_connect_url = f"http://{networks.HUB}:8081"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:8001"
c.ConfigurableHTTPProxy.pid_file = "/tmp/proxy.pid"
if settings.certificate:
    c.JupyterHub.bind_url = "https://0.0.0.0:8000"
    c.JupyterHub.ssl_cert = str(STATE / "certificate.pem")
    c.JupyterHub.ssl_key = str(STATE / "key.pem")
c.JupyterHub.db_url = f"sqlite:///{STATE / 'hub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(STATE / "cookie_secret")
# The seats go on without the hub, and it finds them again.
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = True
c.JupyterHub.default_url = first_page
c.JupyterHub.template_paths = ["/lab/hub/pages"]
c.JupyterHub.template_vars = {
    "announcement_login": settings.title,
    "seats": settings.seats,
    "end_of_seat": end_of_seat,
    "seats_have_gpus": leases is not None,
}
c.JupyterHub.active_server_limit = settings.seats
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.last_activity_interval = seconds_between_reports
c.JupyterHub.log_level = "WARN"
c.JupyterHub.authenticator_class = WorkshopAuthenticator
c.JupyterHub.spawner_class = SeatSpawner
c.JupyterHub.proxy_class = SeatProxy

c.WorkshopAuthenticator.teacher_password = settings.teacher_password
c.WorkshopAuthenticator.password = settings.password
c.WorkshopAuthenticator.users = workshop.users
c.WorkshopAuthenticator.seats = settings.seats
c.WorkshopAuthenticator.admin_users = {settings.teacher}
c.WorkshopAuthenticator.allow_all = True
c.WorkshopAuthenticator.auth_refresh_age = -1  # call `refresh_user` for each request

c.SeatSpawner.image = workshop.seat.image
c.SeatSpawner.cmd = ["jupyterhub-singleuser"]
c.SeatSpawner.name_template = networks.seat_network(workshop.ident, "{raw_username}")
c.SeatSpawner.remove = True
# JupyterHub calls `stop` only for a seat that still runs, and this hook for each.
c.SeatSpawner.post_stop_hook = SeatSpawner.clean_up
c.SeatSpawner.pull_policy = "skip"  # the launcher builds the image
c.SeatSpawner.use_internal_ip = True
c.Spawner.default_url = "/lab"
c.Spawner.poll_interval = SECONDS_BETWEEN_LOOKS
c.Spawner.http_timeout = SECONDS_TO_START
c.Spawner.start_timeout = SECONDS_TO_WAIT if leases else SECONDS_TO_START
c.Spawner.environment = {
    **workshop.seat.environment,
    "LABS_QUOTA": str(settings.quota),
    "LABS_LONGEST": str(settings.longest),
    "JUPYTERHUB_ACTIVITY_INTERVAL": str(seconds_between_reports),
}

token = Path(STATE, "token").read_text(encoding="utf-8").strip()
c.JupyterHub.services = [
    {"name": "launcher", "api_token": token},
    {
        "name": CLASS_PAGE,
        "url": "http://127.0.0.1:8002",
        "command": [sys.executable, "-m", "hub.class_page"],
        "cwd": "/lab",
        "oauth_no_confirm": True,
    },
]
c.JupyterHub.load_roles = [
    {
        "name": "launcher",
        "services": ["launcher"],
        "scopes": ["admin:users", "admin:servers", "list:users"],
    },
    {
        "name": CLASS_PAGE,
        "services": [CLASS_PAGE],
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
    },
]
if settings.idle or settings.longest:
    command = [sys.executable, "-m", "hub.culler"]
    c.JupyterHub.services.append({"name": "culler", "command": command, "cwd": "/lab"})
    scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
    c.JupyterHub.load_roles.append({"name": "culler", "services": ["culler"], "scopes": scopes})
