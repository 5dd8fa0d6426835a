"""The port, the token and the link of a notebook; its part of compose.yaml; the desktop."""

import http.server
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from common.cards import Card
from launcher.engine import compose
from launcher.engine.container_spec import Port
from launcher.notebook import server as notebook_server
from launcher.notebook.server import NotebookServer, announced, choose_port

import pytest

SERVICE = {
    "image": "llm-labs:cpu-notebook",
    "command": ["--ip=0.0.0.0", "--name=$$HOME"],
    "dns": ["127.0.0.1"],
    "networks": {"notebook": {"name": "llm-labs_notebook", "driver_opts": {"a": "b"}, "ipam": {}}},
    "ports": [
        {
            "mode": "ingress",
            "host_ip": "127.0.0.1",
            "target": 8889,
            "published": "8888",
            "protocol": "tcp",
        }
    ],
}


@pytest.fixture
def taken() -> Iterator[int]:
    """Return a port on which another program listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_port_is_refused_and_the_next_free_one_is_chosen(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Card, match=f"Port {taken} is taken") as refused:
        choose_port(str(taken))
    assert refused.value.code == 3
    monkeypatch.setattr(notebook_server, "PORTS", range(taken, taken + 50))
    assert choose_port("") > taken
    monkeypatch.setattr(notebook_server, "PORTS", range(taken, taken + 1))
    with pytest.raises(Card, match="There is no free port"):
        choose_port("")


@pytest.mark.parametrize("text", ["1023", "65536", "-1", "8888.0", "eight", "٣٣٣٣٣٣"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(Card, match="--port can't be") as refused:
        choose_port(text)
    assert refused.value.code == 2


def test_each_start_has_another_token_and_no_message_shows_it() -> None:
    servers = [NotebookServer(8888, "") for _ in range(100)]
    assert len({server.token for server in servers}) == 100
    assert all(len(server.token) == 32 for server in servers)
    assert servers[0].token not in repr(servers[0])


def test_the_link_opens_a_file_or_the_list_of_files() -> None:
    opened = NotebookServer(8888, "work/a.py", "secret").link
    assert opened == "http://127.0.0.1:8888/lab/tree/work/a.py?token=secret"
    assert NotebookServer(8888, "", "secret").link == "http://127.0.0.1:8888/lab?token=secret"


class Recorder(http.server.BaseHTTPRequestHandler):
    """Accept the token "secret" once the server is ready."""

    ready = threading.Event()

    def do_GET(self) -> None:
        right = self.headers["Authorization"] == "token secret"
        self.send_response(200 if right and self.ready.is_set() else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[NotebookServer]:
    Recorder.ready.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield NotebookServer(running.server_port, "", "secret")
        running.shutdown()


def wait_for_link(capsys: pytest.CaptureFixture[str], link: str) -> None:
    deadline = time.monotonic() + 60
    printed = ""
    while link not in printed and time.monotonic() < deadline:
        time.sleep(0.05)
        printed += capsys.readouterr().out
    assert link in printed


def test_the_link_is_printed_once_the_server_is_ready(
    server: NotebookServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with announced(server):
        time.sleep(1)
        assert capsys.readouterr().out == ""
        Recorder.ready.set()
        wait_for_link(capsys, server.link)


def test_a_server_that_ends_before_it_is_ready_has_no_link(
    server: NotebookServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with announced(server):
        pass
    assert capsys.readouterr().out == ""


def test_on_a_desktop_the_browser_gets_a_private_file_with_the_link(
    server: NotebookServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tmp_path / "opened"
    program = tmp_path / "xdg-open"
    program.write_text(f'#!/bin/sh\nstat -c %a "$1" > {opened}.mode\ncp "$1" {opened}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DISPLAY", ":0")
    Recorder.ready.set()
    with announced(server):
        deadline = time.monotonic() + 60
        while not opened.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert server.link in opened.read_text()
    assert int(Path(f"{opened}.mode").read_text(), 8) & (stat.S_IRWXG | stat.S_IRWXO) == 0


def test_ports_network_and_command_are_translated() -> None:
    spec = compose.translate(SERVICE)
    assert spec.ports == (Port("127.0.0.1", 8888, 8889),)
    assert spec.network_options == {"a": "b"}
    assert spec.dns == ("127.0.0.1",)
    assert spec.command == ("--ip=0.0.0.0", "--name=$HOME")
    words = spec.docker_run_command()
    assert "--publish=127.0.0.1:8888:8889" in words and "--dns=127.0.0.1" in words
    assert spec.sdk_arguments()["ports"] == {8889: ("127.0.0.1", 8888)}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ports", [{"mode": "ingress", "target": 8888, "published": "8888", "protocol": "tcp"}]),
        ("ports", [{**SERVICE["ports"][0], "protocol": "udp"}]),
        ("networks", {"a": {"name": "a"}, "b": {"name": "b"}}),
        ("networks", {"a": {"name": "a", "driver": "macvlan"}}),
    ],
)
def test_a_port_on_every_address_and_other_networks_are_refused(key: str, value: object) -> None:
    with pytest.raises(Card, match=key):
        compose.translate({**SERVICE, key: value})
