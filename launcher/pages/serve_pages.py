"""Serve the files of a folder of runs on 127.0.0.1, for reading, until Ctrl-C."""

import os
import re
import socket
import stat
import sys
from contextlib import suppress
from getpass import getuser
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote, unquote, urlsplit

from common.cards import Card, print_status
from launcher.run.pages import INDEX, Page

ADDRESS = "127.0.0.1"
# Names by which a browser reaches this address, with any port: `ssh -L` may use another one. A
# page of another site whose name resolves to 127.0.0.1 (DNS rebinding) sends its own name.
_OUR_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?", re.IGNORECASE)
CHUNK = 65_536  # bytes
SECONDS_OF_SILENCE = 30  # then a connection is closed
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def serve(page: Page, port: int) -> None:
    """Serve a folder of runs, print the link to a page, and return only by an exception.

    Args:
        page: The page to link to.
        port: The port; 0 for any free one.

    Raises:
        Card: If the port can't be used.
        Interrupted: On INT, TERM or HUP.
    """
    try:
        server = _Server(page.outputs.resolve(), port)
    except OSError as error:
        what = f"{ADDRESS}:{port} can't be used."
        raise Card(what, f"{error.strerror}.", "invoke open --serve, without --port") from error
    with server:
        number = server.server_address[1]
        print(f"http://{ADDRESS}:{number}/{quote(str(page.path))}", flush=True)
        print_status(f"From another machine, run there first: {_tunnel(number)}")
        print_status("Every user of this machine can read these pages. Ctrl-C ends the server.")
        server.serve_forever()


def _tunnel(port: int) -> str:
    """Return the command that makes this server reachable from another machine."""
    return f"ssh -N -L {port}:{ADDRESS}:{port} {getuser()}@{socket.gethostname()}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        super().__init__((ADDRESS, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a browser that left; report anything else as the base class does."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Serves files to GET and HEAD requests; the base class refuses every other method."""

    server_version = "llm-labs"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = SECONDS_OF_SILENCE

    def do_GET(self) -> None:
        """Send a file."""
        self._send(with_body=True)

    def do_HEAD(self) -> None:
        """Send the headers of a file."""
        self._send(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the terminal shows the link."""

    def _send(self, with_body: bool) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not _OUR_HOST.fullmatch(hosts[0]):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        path = unquote(urlsplit(self.path).path).removeprefix("/") or INDEX
        file = open_below(cast(_Server, self.server).folder, path)
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            kind = CONTENT_TYPES.get(Path(path).suffix, "application/octet-stream")
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(size))
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self._send_bytes(file, size)

    def _send_bytes(self, file: IO[bytes], size: int) -> None:
        """Send exactly `size` bytes: the log of a running lab grows meanwhile."""
        while size > 0 and (chunk := file.read(min(size, CHUNK))):
            self.wfile.write(chunk)
            size -= len(chunk)
        if size:
            self.close_connection = True


def open_below(folder: Path, path: str) -> IO[bytes] | None:
    """Open a regular file below a folder; None for anything else.

    The file is opened first and its real path looked up afterwards, so that a link can't be
    changed in between.

    Args:
        folder: The folder, without links in its path.
        path: A path below it, as a browser asks for it.
    """
    parts = path.split("/")
    if any(part == "" or part.startswith(".") for part in parts):  # hidden files and ".."
        return None
    try:
        # O_NONBLOCK: opening a pipe would wait for its other end.
        descriptor = os.open(folder.joinpath(*parts), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    with suppress(OSError):
        real = Path(f"/proc/self/fd/{descriptor}").readlink()
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and real.is_relative_to(folder):
            return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    return None
