"""`invoke hub --stop` and `--purge`: only the work that is named goes; and how seats start."""

import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common import classroom
from common.cards import Card
from launcher.engine.container_spec import ContainerSpec
from launcher.hub import address as hub_address
from launcher.hub import api as hub_api
from launcher.hub import compose as hub_compose
from launcher.hub import folder as hub_folder
from launcher.hub import gpus as hub_gpus
from launcher.hub import settings as hub_settings
from launcher.hub import start as hub
from launcher.hub import stop as hub_stop
from launcher.run import service as lab_service
from launcher.run.runtime import Runtime

import pytest

END = hub_stop._end


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a workshop with two learners and an archive; no engine is asked."""
    for name in ("ada", "ben"):
        (tmp_path / "learners" / name / "work").mkdir(parents=True)
        (tmp_path / "learners" / name / "work" / "sheet.py").write_text("1")
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "class-1.tar.gz").write_text("1")
    (tmp_path / "state").mkdir()
    (tmp_path / "hub.toml").write_text("")
    monkeypatch.setattr(hub_stop, "WORKSHOP", tmp_path)

    (tmp_path / "class").mkdir()
    (tmp_path / "class" / hub_folder.MESSAGE).write_text("2026\nOpen LLM06.\n")

    runtime = SimpleNamespace(engine="an engine")
    monkeypatch.setattr(hub_stop, "require_runtime", lambda: runtime)
    monkeypatch.setattr(hub_stop, "_end", lambda _: "Stopped the hub and 3 seats.")
    monkeypatch.setattr(hub_stop, "_seats_and_networks", lambda _: ([], []))
    return tmp_path


def left(workshop: Path) -> set[str]:
    learners = {path.name for path in (workshop / "learners").iterdir()}
    return learners | {path.name for path in (workshop / "archives").iterdir()}


def test_a_purge_without_names_removes_no_work(workshop: Path, capsys: Any) -> None:
    assert hub_stop.purge("", dry=False) == 0
    assert left(workshop) == {"ada", "ben", "class-1.tar.gz"}
    assert not (workshop / "state").exists()
    assert (workshop / "hub.toml").exists()
    told = capsys.readouterr()
    assert "learners/ada" in told.out
    assert "--purge class-1.tar.gz,ada" in told.err
    assert "removes the hub's own files" not in told.err, "this command did"


def test_a_purge_removes_what_is_named(workshop: Path) -> None:
    assert hub_stop.purge("ada,class-1.tar.gz", dry=False) == 0
    assert left(workshop) == {"ben"}


def test_all_stands_for_all_work(workshop: Path) -> None:
    assert hub_stop.purge("all", dry=False) == 0
    assert left(workshop) == set()


def test_a_purge_names_what_it_stopped_what_it_removed_and_which_passwords_stay(
    workshop: Path, capsys: Any
) -> None:
    (workshop / "users.csv").write_text("ada,a-long-word\n")
    assert hub_stop.purge("ada,class-1.tar.gz", dry=False) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [lines[0], lines[2]] == [
        "Stopped the hub and 3 seats.",
        "Removed the hub's own files, learners/ada, archives/class-1.tar.gz.",
    ]
    assert lines[-1].endswith(": hub.toml, users.csv")


def test_the_work_is_copied_before_a_learner_s_folder_is_removed(
    workshop: Path, capsys: Any
) -> None:
    assert hub_stop.purge("ada", dry=False) == 0
    (copy,) = (workshop / "copies").iterdir()
    with tarfile.open(copy) as archive:
        assert "class/ada/work/sheet.py" in archive.getnames()
    assert f"A copy of all work is in {copy}." in capsys.readouterr().err


@pytest.mark.parametrize("names", ["all", "ada,copies", "class-1.tar.gz", ""])
def test_copies_that_are_removed_and_work_that_stays_need_no_copy(
    workshop: Path, names: str
) -> None:
    (workshop / "copies").mkdir()
    assert hub_stop.purge(names, dry=False) == 0
    assert list(workshop.glob("copies/*")) == []


def test_a_purge_that_can_t_copy_removes_nothing(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = SimpleNamespace(returncode=1, stdout="", stderr="a warning\nNo space left\n")
    monkeypatch.setattr(hub_stop, "capture", lambda *_, **__: failed)
    with pytest.raises(Card, match="Nothing was removed") as raised:
        hub_stop.purge("ada", dry=False)
    assert "No space left" in raised.value.why
    assert left(workshop) == {"ada", "ben", "class-1.tar.gz"}
    assert (workshop / "state").exists()


@pytest.mark.parametrize("name", ["nobody", "..", "../..", "ada/work", "/", "hub.toml", "Ada"])
def test_a_name_that_isn_t_there_removes_nothing(workshop: Path, name: str) -> None:
    with pytest.raises(Card, match=r"can't be purged") as raised:
        hub_stop.purge(f"ada,{name}", dry=False)
    assert raised.value.fix == "choose from class-1.tar.gz, ada, ben; or all"
    assert ("Did you mean ada?" in raised.value.why) == (name == "Ada")
    assert left(workshop) == {"ada", "ben", "class-1.tar.gz"}
    assert (workshop / "state").exists()


@pytest.mark.parametrize(
    ("hubs", "seats", "told"),
    [
        ([], [], "No hub was running."),
        (["a hub"], [], "Stopped the hub and 0 seats."),
        (["a hub"], ["a seat"], "Stopped the hub and 1 seat."),
    ],
)
def test_a_stop_names_what_ran_and_ends_the_teacher_s_message(
    workshop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    hubs: list[str],
    seats: list[str],
    told: str,
) -> None:
    done = SimpleNamespace(returncode=0, stdout="class-2.tar.gz\n", stderr="")
    monkeypatch.setattr(hub_stop, "_end", END)
    monkeypatch.setattr(hub_stop, "capture", lambda *_, **__: done)
    monkeypatch.setattr(hub_stop, "_remove_seat", lambda _: None)
    monkeypatch.setattr(hub_stop, "_seats_and_networks", lambda _: (seats, []))
    monkeypatch.setattr(hub_compose, "containers", lambda _: hubs)
    assert hub_stop.stop(dry=False) == 0
    printed = capsys.readouterr().err
    assert told in printed
    assert ("copies/class-2.tar.gz" in printed) == bool(seats)
    assert not (workshop / "class" / classroom.MESSAGE).exists()


def test_a_stop_without_a_copy_names_the_reason_and_goes_on(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    failed = SimpleNamespace(returncode=1, stdout="", stderr="a warning\nNo space left\n")
    monkeypatch.setattr(hub_stop, "capture", lambda *_, **__: failed)
    monkeypatch.setattr(hub_stop, "_seats_and_networks", lambda _: (["a seat"], []))
    monkeypatch.setattr(hub_compose, "containers", lambda _: ["a hub"])
    assert hub_stop.stop(dry=False) == 0
    printed = capsys.readouterr().err
    assert "No copy of the learners' work was made: No space left" in printed
    assert "Stopped the hub" in printed
    assert left(workshop) == {"ada", "ben", "class-1.tar.gz"}


def test_without_an_engine_a_hub_names_docker_and_no_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = Runtime(None, "no engine")
    monkeypatch.setattr(hub_compose, "choose_runtime", lambda _: runtime)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    with pytest.raises(Card, match=r"A hub needs Docker") as raised:
        hub_compose.require_runtime()
    assert raised.value.why == "No engine responds at unix:///var/run/docker.sock."
    assert raised.value.fix == "sudo systemctl start docker"
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    with pytest.raises(Card, match=r"A hub needs Docker") as raised:
        hub_compose.require_runtime()
    assert "DOCKER_HOST is unix:///nonexistent" in raised.value.why
    assert raised.value.fix == "start that engine, or: unset DOCKER_HOST"


def test_a_wrong_list_of_learners_is_refused_before_an_image_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users.csv").write_text("ada;a-long-word\n")
    text = 'users = "users.csv"\nteacher_password = "a-much-longer-word"\n'
    values = hub_settings.check(tmp_path / "hub.toml", text)
    runtime = SimpleNamespace(engine="an engine")
    monkeypatch.setattr(hub, "WORKSHOP", tmp_path)
    monkeypatch.setattr(hub_compose, "require_runtime", lambda: runtime)
    monkeypatch.setattr(hub_compose, "published_ports", lambda _: set[int]())
    monkeypatch.setattr(hub_folder, "prepare", lambda *_: None)
    monkeypatch.setattr(hub_settings, "read", lambda: values)
    monkeypatch.setattr(hub_address, "refuse_unusable", lambda *_: None)
    monkeypatch.setattr(hub_gpus, "place", lambda *_: SimpleNamespace(stack="cpu", owner=None))
    monkeypatch.setattr(hub_gpus, "describe", lambda *_: None)
    monkeypatch.setattr(hub, "_seat_service", lambda *_: None)
    monkeypatch.setattr(lab_service, "container_spec", lambda *_: ContainerSpec(image="hub"))
    monkeypatch.setattr(lab_service, "prepare", lambda *_: pytest.fail("it was built"))
    with pytest.raises(Card, match=r"users\.csv can't be used"):
        hub.start(seats=False, dry=False)


def test_dry_commands_are_printed_and_nothing_is_removed(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    seats = ([SimpleNamespace(name="seat-ada")], [SimpleNamespace(name="net-ada")])
    monkeypatch.setattr(hub_stop, "_seats_and_networks", lambda _: seats)
    assert hub_stop.purge("ada", dry=True) == 0
    down, *lines = capsys.readouterr().out.splitlines()
    assert down.endswith("down --timeout=10")
    assert lines == [
        "docker rm --force seat-ada",
        "docker network rm net-ada",
        f"{sys.executable} -m hub.copies {workshop}",
        f"rm -r {workshop}/state",
        f"rm -r {workshop}/class",
        f"rm -r {workshop}/learners/ada",
    ]
    assert hub_stop.stop(dry=True) == 0
    assert capsys.readouterr().out.splitlines() == [down, *lines[:2]]
    assert left(workshop) == {"ada", "ben", "class-1.tar.gz"}
    assert (workshop / "state").exists()


def test_the_list_of_work_survives_a_folder_that_a_learner_closed(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    lstat = Path.lstat

    def refuse(path: Path) -> Any:
        if path.name == "sheet.py" and "ada" in path.parts:
            raise PermissionError("closed")
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", refuse)  # root, who may run the tests, would be let in
    hub_stop.list_left(workshop)
    assert "learners/ada" in capsys.readouterr().out


class Hub:
    """A hub that starts each seat at the second question about it, and refuses `full`."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}
        self.most = 0

    def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        del body
        name = path.split("/")[2]
        if path.endswith("/server"):
            if name == "full":
                return 429, '{"message": "all seats are taken"}'
            self.asked[name] = 0
            return 202, None
        if method == "POST":
            return 201, {}
        self.asked[name] += 1
        self.most = max(self.most, sum(count < 2 for count in self.asked.values()))
        server = {"ready": self.asked[name] >= 2, "pending": "spawn"}
        if name == "broken":
            self.asked[name] = 2  # it no longer starts
            server = {"ready": False, "pending": None}
        return 200, {"servers": {"": server}}


def test_seats_start_a_few_at_once_and_each_end_is_reported() -> None:
    hub: Any = Hub()
    lines: list[str] = []
    names = ["a", "b", "full", "broken", "c"]
    result = hub_api.start_seats(hub, names, 2, lines.append)
    assert set(result.ready) == {"a", "b", "c"}
    assert result.failed["full"] == "all seats are taken"
    assert "didn't start" in result.failed["broken"]
    assert len(lines) == len(names)
    assert hub.most <= 2


def test_a_seat_that_is_ready_is_reported_while_the_hub_still_starts_others() -> None:
    reported = threading.Event()

    class Slow(Hub):
        """A hub that replies to the request for `a` once another seat was reported."""

        def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
            if path.endswith("/a/server"):
                assert reported.wait(60)
            return super().ask(path, method, body)

    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        reported.set()

    hub: Any = Slow()
    assert set(hub_api.start_seats(hub, ["a", "b"], 2, report).ready) == {"a", "b"}
    assert [line.split()[0] for line in lines] == ["b", "a"]


def test_a_fault_in_the_start_of_a_seat_fails_it_and_doesn_t_wait_for_ever() -> None:
    class Odd(Hub):
        def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
            return (200, {}) if method == "GET" else super().ask(path, method, body)

    hub: Any = Odd()
    failed = hub_api.start_seats(hub, ["a"], 2, lambda _: None).failed
    assert failed == {"a": "didn't start: KeyError('servers')"}


class Restarting(Hub):
    """A hub that doesn't reply to the first question about a seat, and never for `lost`."""

    def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        name = path.split("/")[2]
        if name == "lost":
            raise TimeoutError("timed out")
        if name == "forbidden" and method == "GET":
            return 403, "no"
        status, reply = super().ask(path, method, body)
        if method == "GET" and self.asked[name] == 1:
            if name == "a":
                raise ConnectionRefusedError(111, "Connection refused")
            return 503, "the proxy's page"
        return status, reply


def test_a_hub_that_stops_to_reply_fails_a_seat_and_not_the_others() -> None:
    hub: Any = Restarting()
    result = hub_api.start_seats(hub, ["lost", "a", "b", "forbidden"], 2, lambda _: None)
    assert set(result.ready) == {"a", "b"}
    assert result.failed == {
        "lost": "the hub doesn't reply: timed out",
        "forbidden": "the hub replied 403",
    }


def test_a_seat_whose_hub_never_replies_again_fails_at_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Dead(Hub):
        def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
            if method == "GET":
                raise ConnectionRefusedError("refused")
            return super().ask(path, method, body)

    monkeypatch.setattr(hub_api, "SECONDS_FOR_A_SEAT", 0)
    hub: Any = Dead()
    result = hub_api.start_seats(hub, ["a"], 2, lambda _: None)
    assert result.failed == {"a": "isn't ready after 0 s: the hub doesn't reply: refused"}


def test_a_reply_that_is_cut_is_no_traceback() -> None:
    class Cut(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.endswith("/good") else 500)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"{")

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Cut) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api = hub_api.HubApi(f"http://127.0.0.1:{server.server_port}", "token")
        for path in ("/good", "/bad"):
            with pytest.raises(OSError, match="its reply is incomplete"):
                api.ask(path)
        server.shutdown()


def test_the_last_line_of_the_log_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    log = "\x1b[31mkey values mismatch\x1b[0m\n\n\x1b[2K\n"  # as Compose ends it
    monkeypatch.setattr(hub_compose, "capture", lambda *_, **__: SimpleNamespace(stdout=log))
    assert hub_compose.last_line_of_log() == "key values mismatch"
