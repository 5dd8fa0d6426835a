"""A learner of a hub, as a browser does it: cookies, forms and websockets."""

import base64
import http.client
import http.cookiejar
import json
import os
import re
import socket
import struct
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass
from typing import Any

PATIENCE = 240  # seconds until a learner gives up; no test passes or fails by speed
TEXT = 1
CLOSE = 8
PING = 9
PONG = 10


@dataclass
class Reply:
    """The reply to a request, after redirects."""

    status: int
    text: str
    url: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Learner:
    """A browser with its own cookies."""

    def __init__(self, server: str, name: str, password: str) -> None:
        self.server = server
        self.name = name
        self.password = password
        self.headers: dict[str, str] = {}  # of each request
        self._cookies = http.cookiejar.CookieJar()
        handler = urllib.request.HTTPCookieProcessor(self._cookies)
        self._opener = urllib.request.build_opener(handler)

    def ask(self, path: str, data: Any = None, method: str = "") -> Reply:
        """Send a request; a dict is sent as JSON, a text as a form."""
        request = self._request(path, data, method)
        try:
            with self._opener.open(request, timeout=PATIENCE) as reply:
                return Reply(reply.status, reply.read().decode(errors="replace"), reply.url)
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.read().decode(errors="replace"), error.url or "")

    def _request(self, path: str, data: Any = None, method: str = "") -> urllib.request.Request:
        headers = {"Accept": "text/html,*/*", "Referer": self.server + path, **self.headers}
        if isinstance(data, dict | list):
            data = json.dumps(data)
            headers["Content-Type"] = "application/json"
        if token := self._xsrf(path):
            headers["X-XSRFToken"] = token
        body = None if data is None else data.encode()
        return urllib.request.Request(
            self.server + path, body, headers, method=method or ("GET" if body is None else "POST")
        )

    def _xsrf(self, path: str) -> str:
        """Return the token of the longest path that fits."""
        fits = [one for one in self._cookies if one.name == "_xsrf" and path.startswith(one.path)]
        return max(fits, key=lambda one: len(one.path)).value or "" if fits else ""

    def log_in(self) -> Reply:
        """Fill in the form of the login page."""
        page = self.ask("/hub/login")
        return self.submit("/hub/login", page, username=self.name, password=self.password)

    def submit(self, path: str, page: Reply, **fields: str) -> Reply:
        """Send a form of a page."""
        found = re.search(r'name="_xsrf"\s+value="([^"]+)"', page.text)
        form = {**fields, "_xsrf": found[1] if found else ""}
        return self.ask(path, urllib.parse.urlencode(form))

    def open_seat(self) -> Reply:
        """Start the seat, wait until it runs, and open JupyterLab in it."""
        started = self.ask(f"/hub/spawn/{self.name}")
        assert started.status == 200, started
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            server = self.server_state()
            if server.get("ready"):
                break
            assert server.get("pending"), "the seat didn't start"
            time.sleep(0.5)
        return self.ask(f"/user/{self.name}/lab")

    def server_state(self) -> dict[str, Any]:
        """Return what the hub says about the seat; nothing if there is none."""
        return self.ask(f"/hub/api/users/{self.name}").json["servers"].get("", {})

    def message_with(self, text: str) -> str:
        """Return the first message with a text on the page of a seat that starts."""
        request = self._request(f"/hub/api/users/{self.name}/server/progress")
        with self._opener.open(request, timeout=PATIENCE) as events:
            for line in events:
                if line.startswith(b"data: "):
                    message = json.loads(line.removeprefix(b"data: "))["message"]
                    if text in message:
                        return message
        raise AssertionError(f"no message with {text!r}")

    def stop_seat(self) -> None:
        """Stop the seat, and wait until it is gone."""
        self.ask(f"/hub/api/users/{self.name}/server", method="DELETE")
        while self.server_state():
            time.sleep(0.3)

    def run(self, code: str) -> str:
        """Run a cell in a new kernel; return what it prints."""
        kernel = self.start_kernel()
        printed = self.run_in(kernel, code)
        self.ask(f"/user/{self.name}/api/kernels/{kernel}", method="DELETE")
        return printed

    def start_kernel(self) -> str:
        """Start a kernel; return its id."""
        kernel = self.ask(f"/user/{self.name}/api/kernels", {"name": "python3"})
        assert kernel.status == 201, kernel
        return kernel.json["id"]

    def run_in(self, kernel: str, code: str) -> str:
        """Run a cell in a kernel; return what it prints."""
        with self.socket(f"/user/{self.name}/api/kernels/{kernel}/channels") as channel:
            request = _execute(code)
            channel.send(request)
            return _collect(channel, request["header"]["msg_id"])

    def type_in_terminal(self, line: str, until: str) -> str:
        """Type a line in a new terminal; return what it shows, up to a text."""
        terminal = self.ask(f"/user/{self.name}/api/terminals", {}).json["name"]
        shown = ""
        with self.socket(f"/user/{self.name}/terminals/websocket/{terminal}") as channel:
            channel.send(["set_size", 50, 200])
            channel.send(["stdin", f"{line}\r"])
            while until not in shown:
                kind, *content = channel.receive()
                shown += content[0] if kind == "stdout" else ""
        return shown

    def socket(self, path: str) -> "WebSocket":
        """Open a websocket."""
        cookies = "; ".join(
            f"{one.name}={one.value}" for one in self._cookies if path.startswith(one.path)
        )
        return WebSocket(self.server, path, {"Cookie": cookies})


def _execute(code: str) -> dict[str, Any]:
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3"}
    header |= {"session": uuid.uuid4().hex, "username": "", "date": ""}
    parts = {"parent_header": {}, "metadata": {}, "buffers": []}
    return {"header": header, "content": content, "channel": "shell", **parts}


def _collect(channel: "WebSocket", request: str) -> str:
    """Return the output and the value of a cell, and its traceback if it fails.

    The reply and the output come through two sockets of the kernel, in any order.
    """
    printed = ""
    missing = {"execute_reply", "idle"}
    while missing:
        message = channel.receive()
        if message["parent_header"].get("msg_id") != request:
            continue
        kind = message["msg_type"]
        if kind == "stream":
            printed += message["content"]["text"]
        elif kind == "execute_result":
            printed += message["content"]["data"]["text/plain"]
        elif kind == "error":
            printed += "\n".join(message["content"]["traceback"])
        elif kind == "status":
            missing.discard(message["content"]["execution_state"])
        else:
            missing.discard(kind)
    return printed


class WebSocket:
    """A websocket of the standard library's parts, for JSON messages."""

    def __init__(self, server: str, path: str, headers: dict[str, str]) -> None:
        address = urllib.parse.urlsplit(server)
        port = address.port or 80
        self._socket = socket.create_connection((address.hostname or "", port), timeout=PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: {address.netloc}", f"Origin: {server}"]
        lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        lines += [f"Sec-WebSocket-Key: {key}", *(f"{name}: {headers[name]}" for name in headers)]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._file = self._socket.makefile("rb")
        status = int(self._file.readline().split()[1])
        http.client.parse_headers(self._file)
        if status != 101:
            raise ConnectionError(f"{path}: {status}")

    def __enter__(self) -> "WebSocket":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, message: Any) -> None:
        """Send a message in one frame, masked as a client has to."""
        self._send_frame(TEXT, json.dumps(message).encode())

    def _send_frame(self, code: int, data: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        size = len(data)
        head = bytes([0x80 | code]) + (
            bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + struct.pack(">H", size)
        )
        self._socket.sendall(head + mask + masked)

    def receive(self) -> Any:
        """Return the next message."""
        while True:
            code, data = self._frame()
            if code == CLOSE:
                raise ConnectionError("the server closed the websocket")
            if code == PING:  # without a reply, Jupyter closes the websocket after 90 seconds
                self._send_frame(PONG, data)
            if code == TEXT:
                return json.loads(data)

    def _frame(self) -> tuple[int, bytes]:
        first, second = self._file.read(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self._file.read(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._file.read(8))
        return first & 0x0F, self._file.read(size)
