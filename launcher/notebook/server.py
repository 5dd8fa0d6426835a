"""A JupyterLab on 127.0.0.1: a free port, a random token, and the link once it is ready."""

import http.client
import secrets
import socket
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.cards import WRONG_USAGE, Card, print_status
from launcher.pages import desktop

HOST = "127.0.0.1"
FIRST_PORT = 8888
PORTS = range(FIRST_PORT, FIRST_PORT + 100)
LOWEST_PORT = 1024  # lower ports need privileges
HIGHEST_PORT = 65_535
SECONDS_BETWEEN_REQUESTS = 0.3
SECONDS_TO_RESPOND = 5


@dataclass(frozen=True)
class NotebookServer:
    """A JupyterLab on 127.0.0.1.

    Attributes:
        port: its port.
        page: the path of the file that it opens, in the clone; empty for the list of files.
        token: the password in the link.
    """

    port: int
    page: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    @property
    def link(self) -> str:
        """Return the link that opens the page and logs in."""
        path = f"lab/tree/{self.page}" if self.page else "lab"
        return f"http://{HOST}:{self.port}/{path}?token={self.token}"

    @property
    def is_ready(self) -> bool:
        """Return whether it accepts the token."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=SECONDS_TO_RESPOND)
        try:
            connection.request(
                "GET", "/api/status", headers={"Authorization": f"token {self.token}"}
            )
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def choose_port(text: str) -> int:
    """Return the requested port, or the first free one from 8888 on.

    Raises:
        Card: If it isn't a port, or it is taken.
    """
    if not text:
        return _first_free_port()
    if not text.isdecimal() or not LOWEST_PORT <= int(text) <= HIGHEST_PORT:
        why = f"A port is an integer from {LOWEST_PORT} to {HIGHEST_PORT}."
        raise Card(f"--port can't be {text!r}.", why, "invoke notebook --port 8889", WRONG_USAGE)
    port = int(text)
    if not _is_free(port):
        raise Card(
            f"Port {port} is taken.",
            f"Another program listens on {HOST}:{port}, perhaps another notebook.",
            "invoke notebook --port with another number, or without --port for a free one",
        )
    return port


def free_ports() -> Iterator[int]:
    """Yield the free ports from 8888 on."""
    return filter(_is_free, PORTS)


def _first_free_port() -> int:
    if (port := next(free_ports(), None)) is not None:
        return port
    why = f"The ports from {PORTS[0]} to {PORTS[-1]} of {HOST} are taken."
    raise Card("There is no free port.", why, "invoke notebook --port with another number")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@contextmanager
def announced(server: NotebookServer) -> Generator[None]:
    """Print the link once the server is ready, while this block runs it."""
    ended = threading.Event()
    announce = threading.Thread(target=_announce, args=(server, ended), daemon=True)
    announce.start()
    try:
        yield
    finally:
        ended.set()
        announce.join()


def _announce(server: NotebookServer, ended: threading.Event) -> None:
    while not server.is_ready:
        if ended.wait(SECONDS_BETWEEN_REQUESTS):
            return
    print(server.link, flush=True)
    print_status("JupyterLab runs until Ctrl-C. Only this machine can open the link.")
    if not desktop.why_no_desktop():
        _open_in_browser(server, ended)


def _open_in_browser(server: NotebookServer, ended: threading.Event) -> None:
    """Open the link by a private file: other users can read the command line of a browser."""
    with tempfile.TemporaryDirectory(prefix="llm-labs-notebook-") as folder:
        page = Path(folder, "notebook.html")
        page.touch(mode=0o600)
        page.write_text(f'<meta http-equiv="refresh" content="0; url={server.link}">')
        if problem := desktop.open_file(page):
            print_status(f"{problem} Open the link in a browser.")
        ended.wait()
