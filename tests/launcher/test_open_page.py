"""`invoke open`: the newest page, a desktop or none, and the server on 127.0.0.1."""

import http.client
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from launcher.pages.serve_pages import open_below
from tests.conftest import Clone, Running

import pytest

NO_DESKTOP = {"DISPLAY": None, "WAYLAND_DISPLAY": None}
FUTURE = "2999-01-01_00-00-00"


def add_page(folder: Path, text: str = "<!doctype html>") -> Path:
    folder.mkdir(parents=True)
    page = folder / "report.html"
    page.write_text(text)
    return page


def add_runs(outputs: Path) -> tuple[Path, Path]:
    """Write three runs; return the pages of the newest of LLM06 and of all."""
    add_page(outputs / "LLM06" / "2026-01-01_10-00-00_9")
    newest_of_6 = add_page(outputs / "LLM06" / "2026-01-01_10-00-00_10")
    newest = add_page(outputs / "LLM10" / "2026-02-01_00-00-00")
    add_page(outputs / "LLM10" / "not a run")
    (outputs / "LLM10" / "2026-03-01_00-00-00").mkdir()  # still running
    (outputs / "index.html").write_text("all runs")
    return newest_of_6, newest


# What is opened


def test_without_a_desktop_the_path_of_the_newest_page_is_printed(clone: Clone) -> None:
    newest_of_6, newest = add_runs(clone.outputs)
    for words, page in (([], newest), (["6"], newest_of_6), (["llm10"], newest)):
        ended = clone.invoke("open", *words, **NO_DESKTOP)
        assert ended.code == 0, ended
        assert ended.out == f"{page}\n"
        assert "invoke open --serve" in ended.err
    ended = clone.invoke("open", "--index", **NO_DESKTOP)
    assert ended.out == f"{clone.outputs / 'index.html'}\n"


def test_a_desktop_opens_the_page(clone: Clone, tmp_path: Path) -> None:
    _, newest = add_runs(clone.outputs)
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/opened\nexit 4\n')
    opener.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    ended = clone.invoke("open", PATH=path, DISPLAY=":0")
    assert ended.code == 0, ended
    assert ended.out == f"{newest}\n"
    assert (tmp_path / "opened").read_text() == f"{newest}\n"
    assert "xdg-open failed with exit code 4" in ended.err


def test_pages_of_another_outputs_folder_are_found(clone: Clone, tmp_path: Path) -> None:
    add_runs(clone.outputs)
    newest = add_page(tmp_path / "LLM06" / "2026-04-01_00-00-00")
    ended = clone.invoke("open", LABS_OUTPUTS=str(tmp_path), **NO_DESKTOP)
    assert ended.out == f"{newest}\n"


@pytest.mark.parametrize(
    "words, what",
    [
        ([], "There is no report yet."),
        (["LLM06"], "There is no report of LLM06 yet."),
        (["--index"], "There is no report yet."),
        (["--serve"], "There is no report yet."),
        (["LLM77"], "There is no lab called 'LLM77'."),
        (["all"], "One page can be opened."),
        (["LLM06", "--index"], "--index takes no lab."),
        (["--port", "8000"], "--port needs --serve."),
        (["--serve", "--port", "80000"], "--port can't be '80000'."),
        (["--serve", "--port", "http"], "--port can't be 'http'."),
    ],
)
def test_what_cannot_be_opened_is_a_card(clone: Clone, words: list[str], what: str) -> None:
    ended = clone.invoke("open", *words, LABS_OUTPUTS="/nonexistent", **NO_DESKTOP)
    assert ended.code == 2, ended
    assert f"what: {what}" in ended.err
    assert ended.out == ""


# The server


@pytest.fixture(scope="module")
def served(shared_clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serve a folder of runs in which links and files lead elsewhere."""
    outputs = tmp_path_factory.mktemp("outputs")
    add_runs(outputs)
    add_page(outputs / "LLM10" / FUTURE)  # newer than the clone's own runs
    run = outputs / "LLM06" / "2026-01-01_10-00-00_9"
    (run / "log.txt").write_text("é\n")
    (run / "results.json").symlink_to("log.txt")
    (run / ".hidden").write_text("secret")
    (outputs / "outside").symlink_to("/etc")
    (outputs / "passwd").symlink_to("/etc/passwd")
    os.mkfifo(outputs / "pipe")
    yield shared_clone.start_invoke("open", "--serve", LABS_OUTPUTS=str(outputs), **NO_DESKTOP)


@pytest.fixture
def port(served: Running) -> int:
    served.wait_for("Ctrl-C ends the server")
    match = re.search(rf"http://127\.0\.0\.1:(\d+)/LLM10/{FUTURE}/report\.html", served.text)
    assert match, served.text
    return int(match[1])


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_the_link_and_the_command_for_another_machine_are_printed(
    served: Running, port: int
) -> None:
    assert f"ssh -N -L {port}:127.0.0.1:{port} " in served.text


def test_pages_and_files_are_served(port: int) -> None:
    assert ask(port, "/") == (200, b"all runs")
    assert ask(port, "/index.html?x=1#y") == (200, b"all runs")
    run = "/LLM06/2026-01-01_10-00-00_9"
    assert ask(port, f"{run}/report.html") == (200, b"<!doctype html>")
    assert ask(port, f"{run}/results.json")[0] == 200, "a link that stays inside"
    assert ask(port, f"{run}/log.txt", "HEAD") == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/LLM06",
        "/LLM06/",
        "/LLM06/2026-01-01_10-00-00_9/.hidden",
        "/outside/passwd",
        "/passwd",
        "/pipe",
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/LLM06/..%2f..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/%2Fetc/passwd",
        "/index.html%00.svg",
        "/LLM06/%ff",
        "/" + "x" * 5000,
    ],
)
def test_nothing_else_is_served(port: int, path: str) -> None:
    assert ask(port, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH"])
def test_the_server_is_for_reading(port: int, method: str) -> None:
    assert ask(port, "/", method)[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_another_host_s_name_is_refused(port: int, host: str) -> None:
    assert ask(port, "/", Host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1:9000"])
def test_a_forwarded_port_is_served(port: int, host: str) -> None:
    assert ask(port, "/", Host=host) == (200, b"all runs")


def test_only_this_machine_is_served(port: int) -> None:
    for address in {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), port)}:
        if not str(address).startswith("127."):
            with pytest.raises(OSError):
                socket.create_connection((str(address), port), timeout=5).close()


def test_a_busy_port_is_a_card(shared_clone: Clone, port: int, tmp_path: Path) -> None:
    add_runs(tmp_path)
    words = ("open", "--serve", "--port", str(port))
    ended = shared_clone.invoke(*words, LABS_OUTPUTS=str(tmp_path), **NO_DESKTOP)
    assert ended.code == 3, ended
    assert f"what: 127.0.0.1:{port} can't be used." in ended.err


def test_ctrl_c_ends_the_server(served: Running, port: int) -> None:
    """The last test of this server."""
    served.send(signal.SIGINT)
    ended = served.ended()
    assert ended.code == 130, ended
    assert "Traceback" not in ended.err
    with pytest.raises(ConnectionRefusedError):
        ask(port, "/")


def test_a_link_that_replaces_a_page_leads_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    (folder / "page.html").write_text("inside")
    with open_below(folder, "page.html") as file:
        assert file.read() == b"inside"
    (folder / "page.html").unlink()
    (folder / "page.html").symlink_to("/etc/passwd")
    assert open_below(folder, "page.html") is None
