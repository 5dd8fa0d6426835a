"""Ask a running hub, as the service `launcher`: which seats there are, and to start some."""

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

from common.cards import Card
from launcher.hub.settings import HubSettings

SECONDS_TO_RESPOND = 60
SECONDS_FOR_A_SEAT = 300
SECONDS_BETWEEN_QUESTIONS = 0.3
EVERYWHERE = "0.0.0.0"


@dataclass(frozen=True)
class HubApi:
    """The interface of a hub on this machine."""

    url: str
    token: str
    context: ssl.SSLContext | None = None

    def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        """Send a request; return the status and the JSON of the reply.

        Raises:
            OSError: If the hub doesn't reply.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}/hub/api{path}", data, headers, method=method)
        try:
            return self._send(request)
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"its reply is incomplete: {error}") from error

    def _send(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(
                request, timeout=SECONDS_TO_RESPOND, context=self.context
            ) as reply:
                return reply.status, json.loads(reply.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def is_ready(self) -> bool:
        """Return whether the hub replies."""
        try:
            return self.ask("/")[0] == 200
        except OSError:
            return False


def connect(settings: HubSettings, token_file: Path) -> HubApi:
    """Return the interface of the hub with these settings.

    Raises:
        Card: If it never ran here.
    """
    address = "127.0.0.1" if settings.address == EVERYWHERE else settings.address
    scheme = "https" if settings.certificate else "http"
    # A certificate is for the name that learners use, not for the address.
    context = ssl.create_default_context() if settings.certificate else None
    if context is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        token = token_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise not_running() from error
    return HubApi(f"{scheme}://{address}:{settings.port}", token, context)


def not_running() -> Card:
    """Return the card for a hub that doesn't reply."""
    return Card("The hub doesn't run.", "Nothing replies on its port.", "invoke hub")


@dataclass(frozen=True)
class StartedSeats:
    """What became of the seats that were to start.

    Attributes:
        ready: the seconds until each seat was ready, by name.
        failed: the reason, by name.
    """

    ready: dict[str, float]
    failed: dict[str, str]


def start_seats(
    api: HubApi, names: list[str], at_once: int, report: Callable[[str], None]
) -> StartedSeats:
    """Start seats, a few at once, and wait until they are ready.

    The hub replies to a request only after some seconds, so each seat has its own thread.

    Args:
        api: The hub.
        names: The learners.
        at_once: How many start at the same time.
        report: Is called with a line for each seat as soon as it is ready or fails.
    """
    result = StartedSeats({}, {})
    waiting = list(names)
    ended: Queue[tuple[str, float, str]] = Queue()
    starting = 0
    while waiting or starting:
        while waiting and starting < at_once:
            # A daemon: Ctrl-C doesn't wait for a reply.
            Thread(target=_start, args=(api, waiting.pop(0), ended), daemon=True).start()
            starting += 1
        name, seconds, problem = ended.get()
        starting -= 1
        if problem:
            result.failed[name] = problem
            report(f"{name}: {problem}")
        else:
            result.ready[name] = seconds
            report(f"{name} is ready after {seconds:.0f} s.")
    return result


def _start(api: HubApi, name: str, ended: Queue[tuple[str, float, str]]) -> None:
    """Start a seat, and report its name, the seconds that it took, and why it failed or ""."""
    since = time.monotonic()
    try:
        problem = _request(api, name) or _wait(api, name, since)
    except Exception as error:  # `start_seats` waits for each seat
        problem = f"didn't start: {error!r}"
    ended.put((name, time.monotonic() - since, problem))


def _wait(api: HubApi, name: str, since: float) -> str:
    """Wait until a seat is ready; return "", or why it isn't."""
    while (state := _state(api, name, since)) == "pending":
        time.sleep(SECONDS_BETWEEN_QUESTIONS)
    return "" if state == "ready" else state


def _request(api: HubApi, name: str) -> str:
    """Ask for a seat; return why it is refused, or ""."""
    try:
        api.ask(f"/users/{name}", "POST")  # 409 if the hub knows the learner
        status, reply = api.ask(f"/users/{name}/server", "POST", {})
    except OSError as error:
        return f"the hub doesn't reply: {error}"
    if status in (201, 202) or (status == 400 and "already running" in str(reply)):
        return ""
    return message_in(reply) or f"the hub replied {status}"


def message_in(reply: Any) -> str:
    """Return the message in the hub's reply to a refused request, or ""."""
    try:
        return str(json.loads(reply)["message"])
    except (ValueError, TypeError, KeyError):
        return ""


def _state(api: HubApi, name: str, since: float) -> str:
    """Return "ready", "pending", or why the seat isn't there."""
    status = 0
    user: Any = None
    try:
        status, user = api.ask(f"/users/{name}")
        problem = f"the hub replied {status}"
    except OSError as error:
        problem = f"the hub doesn't reply: {error}"
    if 400 <= status < 500:
        return problem
    if status == 200:
        server: dict[str, Any] = user["servers"].get("", {})
        if server.get("ready"):
            return "ready"
        if not server.get("pending"):
            return "didn't start; see the hub's log"
        problem = "its start takes longer"
    late = time.monotonic() - since > SECONDS_FOR_A_SEAT
    return f"isn't ready after {SECONDS_FOR_A_SEAT} s: {problem}" if late else "pending"
