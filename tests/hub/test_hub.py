"""A real hub: learners log in over HTTP, work in their seats, and find them after a hub's death."""

import gzip
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from email.message import Message
from pathlib import Path
from typing import Any

import docker
from launcher.hub import api as hub_api
from launcher.hub import folder as hub_folder
from tests.conftest import Clone, _fresh_clone, _remove_containers_of, containers_of
from tests.hub import learner as learner_module
from tests.hub.learner import PATIENCE, Learner

import pytest

pytestmark = pytest.mark.engine

PASSWORD = "a-shared-word"
TEACHER = "the-teacher-s-long-word"
EVE = "../ada"
QUOTA = 10 * 2**20
SEATS = 3
# What a seat can reach, and what its token may do, as JSON.
PROBE = """
import json, os, socket, urllib.error, urllib.request

def connect(address, port):
    with socket.socket() as probe:
        probe.settimeout(3)
        try:
            probe.connect((address, port))
        except OSError as error:
            return type(error).__name__
    return "open"

def ask(path, method="GET", data=None):
    headers = {"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]}
    url = "http://hub:8081/hub/api" + path
    try:
        request = urllib.request.Request(url, data, headers, method=method)
        return urllib.request.urlopen(request, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code

def tried(action):
    try:
        return action() and "worked"
    except OSError as error:
        return type(error).__name__

status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "hub": connect("hub", 8081),
    "others": [connect(a, p) for a, p in TARGETS],
    "names": tried(lambda: socket.getaddrinfo("example.org", 80)),
    "routes": [line.split()[1] for line in list(open("/proc/net/route"))[1:]].count("00000000"),
    "own": ask("/users/ada"),
    "refused": [
        ask("/users"), ask("/services"), ask("/proxy"),
        ask("/users/ben/server", "DELETE"), ask("/users/ada", "PATCH", b'{"admin": true}'),
        ask("/users/ada/tokens", "POST", b"{}"), ask("/shutdown", "POST", b"{}"),
    ],
    "engine": os.path.exists("/var/run/docker.sock"),
    "lab": sorted(os.listdir("/lab")),
    "capabilities": int(status["CapBnd"], 16),
    "no_new_privileges": int(status["NoNewPrivs"]),
    "root": tried(lambda: open("/written", "w")),
    "lessons": tried(lambda: open("/lab/labs/written", "w")),
    "work": tried(lambda: open("/lab/work/written.txt", "w")),
}))
"""
CONNECT = """
import socket
for place in {}:
    socket.create_connection(place, 60).close()
"""
# Guesses from a seat, which reaches the hub without the proxy, and writes any address.
FLOOD = """
def guess(name, n):
    mallory = Learner("http://hub:8081", name, "a guess")
    mallory.headers = {"X-Forwarded-For": f"192.0.2.{n}", "X-Real-IP": f"192.0.2.{n}"}
    return mallory.log_in().status

print(json.dumps({
    "learners": [guess(f"a{n}", n) for n in range(8 * 3 + 1)],
    "teacher": [guess("teacher", n) for n in range(9)],
}))
"""


class Hub:
    """A hub of a clone, and its learners."""

    def __init__(self, clone: Clone) -> None:
        self.clone = clone
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.server = f"http://127.0.0.1:{self.port}"
        self.workshop = clone.path / "workshop"
        self.workshop.mkdir()
        self.write_settings()

    def write_settings(self, more: str = "") -> None:
        (self.workshop / "hub.toml").write_text(
            f'title = "A class of tests"\nport = {self.port}\n'
            f'seats = {SEATS}\nmemory = "1g"\nquota = "{QUOTA // 2**20}m"\n'
            f'password = "{PASSWORD}"\nteacher_password = "{TEACHER}"\n'
            f'solutions = "locked"\n{more}'
        )

    def learner(self, name: str, password: str = PASSWORD) -> Learner:
        return Learner(self.server, name, password)

    def seats(self) -> dict[str, Any]:
        """Return the containers of the seats, by learner."""
        found = {}
        for one in containers_of(self.clone):
            if "-seat-" in one.name:
                found[one.name.rpartition("-")[2]] = one
        return found

    def container(self) -> Any:
        return next(one for one in containers_of(self.clone) if "-seat-" not in one.name)

    def wait(self, learner: Learner) -> None:
        """Wait until the hub replies, and leads to the seat of a learner."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                if learner.ask(f"/user/{learner.name}/api/kernels").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.3)
        raise AssertionError("the hub didn't come back")

    def wait_for_end(self, learner: Learner) -> None:
        """Wait until the hub knows that a seat has ended."""
        deadline = time.monotonic() + PATIENCE
        while learner.server_state():
            assert time.monotonic() < deadline, "the hub never knew"
            time.sleep(0.3)


@pytest.fixture(scope="module")
def hub(snapshot: Path, engine: Any) -> Iterator[Hub]:
    """Start a hub with the seats of Ada and Ben."""
    del engine
    clone = _fresh_clone(snapshot)
    try:
        served = Hub(clone)
        started = clone.invoke("hub")
        assert started.code == 0, started
        assert started.out.strip() == served.server
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: _sit_down(served, name), ("ada", "ben")))
        yield served
        ended = clone.invoke("hub", "--stop")
        assert ended.code == 0, ended
        assert "learners/ada" in ended.out
        (*_, copy) = sorted((served.workshop / "copies").glob("class-*.tar.gz"))
        assert copy.name in ended.err
        with tarfile.open(copy) as archive:
            assert "class/ben/work/mine.txt" in archive.getnames()
        assert containers_of(clone) == []
        assert networks_of(clone) == []
    finally:
        _remove_containers_of(clone)
        clone.close()


def _sit_down(hub: Hub, name: str) -> None:
    learner = hub.learner(name)
    assert learner.log_in().status == 200
    assert learner.open_seat().status == 200


def networks_of(clone: Clone) -> list[str]:
    client = docker.from_env()
    try:
        ident = hub_folder.identity(clone.path)
        return [one.name for one in client.networks.list() if ident in one.name]
    finally:
        client.close()


def enter(hub: Hub, name: str) -> Learner:
    """Log a learner in whose seat runs already."""
    learner = hub.learner(name)
    assert learner.log_in().status == 200
    assert learner.ask(f"/user/{name}/lab").status == 200
    return learner


def notes_of(learner: Learner) -> list[str]:
    """Return the notes that JupyterLab shows."""
    return [note["text"] for note in learner.ask(f"/user/{learner.name}/llm-labs-notes").json]


def test_a_learner_opens_a_lesson_runs_a_cell_and_checks_a_sheet(hub: Hub) -> None:
    ada = enter(hub, "ada")
    lesson = ada.ask("/user/ada/api/contents/labs/llm06_attention/lesson.py?type=notebook")
    assert lesson.json["type"] == "notebook" and not lesson.json["writable"]
    assert "3.0" in ada.run("import torch; print(torch.ones(3).sum().item())")
    code = [cell for cell in lesson.json["content"]["cells"] if cell["cell_type"] == "code"]
    assert ada.run(code[0]["source"]) == "", "the imports show nothing"
    typed = "invoke learn LLM06 > /dev/null; check LLM06; invoke hub; echo e''nd"
    shown = ada.type_in_terminal(typed, "end\r\n")
    assert "masked_softmax  not written yet" in shown
    assert "A seat doesn't have 'invoke hub'" in shown
    work = hub.workshop / "learners" / "ada" / "work"
    assert (work / "llm06_attention.py").is_file()
    assert list((work / "progress").glob("*.json"))


def test_the_hub_commits_without_waiting_for_the_disk(hub: Hub) -> None:
    with closing(sqlite3.connect(hub.workshop / "state" / "hub.sqlite")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_proxy_and_seats_find_the_hub_without_the_engine(hub: Hub) -> None:
    places = {"ada": hub.seats()["ada"], "the hub": hub.container()}
    known = {name: one.exec_run("cat /etc/hosts").output for name, one in places.items()}
    assert b"127.0.0.1\thub\n" in known["the hub"]
    assert re.search(rb"^198\.1[89]\.\d+\.\d+\thub$", known["ada"], re.MULTILINE)


def test_jupyterlab_s_files_come_compressed_to_a_browser_that_accepts_it(hub: Hub) -> None:
    ada = hub.learner("ada")
    page = ada.log_in()
    found = re.search(r'src="([^"]+/main\.[^"]+\.js[^"]*)"', page.text)
    assert found, page.text
    plain, text = _headers_and_body(ada, found[1])
    packed, body = _headers_and_body(ada, found[1], **{"Accept-Encoding": "gzip, br"})
    assert packed["Content-Encoding"] == "gzip"
    assert plain["Content-Encoding"] is None
    assert packed["Content-Type"] == plain["Content-Type"]
    assert "javascript" in plain["Content-Type"]
    assert plain["Vary"] == packed["Vary"] == "Accept-Encoding"
    assert len(body) < len(text) / 2
    assert gzip.decompress(body) == text


def test_jupyterlab_doesn_t_ask_whether_to_build_itself(hub: Hub) -> None:
    page = hub.learner("ada").log_in()
    found = re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', page.text, re.DOTALL)
    assert found, page.text
    config = json.loads(found[1])
    assert (config["buildAvailable"], config["buildCheck"]) == (False, False)


def _headers_and_body(learner: Learner, path: str, **headers: str) -> tuple[Message, bytes]:
    request = urllib.request.Request(learner.server + path, headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
        return reply.headers, reply.read()


def test_a_seat_reaches_the_hub_and_nothing_else(hub: Hub) -> None:
    other = hub.seats()["ben"].attrs["NetworkSettings"]["Networks"]
    (ben,) = [network["IPAddress"] for network in other.values()]
    listed = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True)
    machine = ["127.0.0.1", *(address for address in listed.stdout.split() if "." in address)]
    own = hub.seats()["ada"].attrs["NetworkSettings"]["Networks"].values()
    gateway = next(iter(own))["IPAddress"].rpartition(".")[0] + ".1"
    inside = [(ben, 8888), ("127.0.0.1", 8001), ("127.0.0.1", 8002)]
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        # Whoever may, reaches them: this machine, and the hub.
        for address in machine:
            socket.create_connection((address, port), PATIENCE).close()
        reached = hub.container().exec_run(["python3", "-c", CONNECT.format(inside)])
        assert reached.exit_code == 0, reached
        targets = [(ben, 8888), ("hub", 8001), ("hub", 8002), (gateway, port), (gateway, hub.port)]
        targets += [(address, port) for address in machine]
        found = json.loads(enter(hub, "ada").run(f"TARGETS = {targets!r}\n{PROBE}"))
    assert "open" not in found.pop("others")
    assert set(found.pop("refused")) <= {403, 404}
    assert found == {
        "hub": "open",
        "names": "gaierror",
        "routes": 0,
        "own": 200,
        "engine": False,
        "lab": ["common", "labs", "outputs", "work"],
        "capabilities": 0,
        "no_new_privileges": 1,
        "root": "OSError",
        "lessons": "OSError",
        "work": "worked",
    }
    assert (hub.workshop / "learners" / "ada" / "work" / "written.txt").exists()
    assert not (hub.workshop / "learners" / "ben" / "work" / "written.txt").exists()


def test_a_learner_can_t_open_another_seat_or_the_class_page(hub: Hub) -> None:
    ada = enter(hub, "ada")
    for path in ("/user/ben/lab", "/user/ben/api/contents", "/hub/admin", "/services/class/"):
        assert ada.ask(path).status in (403, 404), path
    for path in ("/user/ben/lab", "/hub/admin", "/services/class/"):
        page = ada.ask(path).text
        assert "You can't open this page" in page and "scopes" not in page, path
    assert "There is no such page" in ada.ask("/hub/gone").text
    nobody = hub.learner("ada")
    assert nobody.ask("/user/ada/api/contents").status == 403


def test_two_browsers_of_a_learner_share_a_seat(hub: Hub) -> None:
    first = enter(hub, "ada")
    second = hub.learner(" ADA ")  # upper case and spaces around it are the same learner
    assert second.log_in().status == 200
    second.ask("/user/ada/lab")
    first.ask("/user/ada/api/contents/work/both.txt", {"type": "file", "format": "text",
              "content": "one"}, "PUT")  # fmt: skip
    assert second.ask("/user/ada/api/contents/work/both.txt").json["content"] == "one"
    assert set(hub.seats()) == {"ada", "ben"}


@pytest.mark.parametrize("name", [EVE, "zoë", "a b", "", "a" * 33, "a%2Fb"])
def test_a_name_that_isn_t_allowed_is_refused_with_the_rule(hub: Hub, name: str) -> None:
    reply = hub.learner(name).log_in()
    assert reply.status in (400, 403)
    assert "lower-case letters" in reply.text
    assert {path.name for path in (hub.workshop / "learners").iterdir()} == {"ada", "ben"}


def test_wrong_passwords_are_refused_and_soon_slowed_down(hub: Hub) -> None:
    assert hub.learner("ada", TEACHER).log_in().status == 403
    assert hub.learner("teacher", PASSWORD).log_in().status == 403
    replies = []
    for guess in range(9):
        mallory = hub.learner("mallory", f"guess {guess}")
        mallory.headers = {"X-Forwarded-For": f"192.0.2.{guess}", "X-Real-IP": f"192.0.2.{guess}"}
        replies.append(mallory.log_in())
    assert [reply.status for reply in replies] == [403] * 8 + [429]
    assert "Too many wrong passwords" in replies[-1].text
    assert hub.learner("mallory").log_in().status == 429, "the right one has to wait, too"


def test_a_seat_that_guesses_under_many_names_stops_nobody_else(hub: Hub) -> None:
    code = Path(learner_module.__file__).read_text() + FLOOD
    found = json.loads(enter(hub, "ada").run(code))
    assert found == {"learners": [403] * 8 * SEATS + [429], "teacher": [403] * 8 + [429]}
    assert hub.learner("teacher", TEACHER).log_in().status == 200
    enter(hub, "ben")


def test_the_teacher_sees_the_class_hands_out_and_collects(hub: Hub) -> None:
    teacher = hub.learner("teacher", TEACHER)
    page = teacher.log_in()
    assert page.url.endswith("/services/class/"), page
    assert "2 of 3 seats run" in page.text
    assert page.text.count(">works</td>") == 2, "learners started these seats themselves"
    handed = teacher.submit("/services/class/handout", page, lab="LLM01")
    assert "LLM01 went to 2 of 2 learners." in handed.text
    assert "There is no lab" in teacher.submit("/services/class/handout", page, lab="LLM77").text
    collected = teacher.submit("/services/class/collect", page)
    (archive,) = (hub.workshop / "archives").glob("class-*.tar.gz")
    said = f"All work is in workshop/archives/{archive.name}"
    assert said in collected.text
    assert collected.url.endswith("/services/class/"), "a reload collects nothing again"
    assert said not in teacher.ask("/services/class/").text, "it is shown once"
    assert teacher.ask("/services/class/collect").url.endswith("/services/class/")
    assert list((hub.workshop / "archives").glob("class-*.tar.gz")) == [archive]
    assert teacher.ask(f"/services/class/archives/{archive.name}").status == 200
    assert teacher.ask("/services/class/archives/%2e%2e/state/hub.json").status in (403, 404)
    lines = teacher.ask("/services/class/class.csv").text.splitlines()
    assert lines[0].startswith("learner,lab,exercise")
    assert any(line.startswith("ada,") and ",works," in line for line in lines)


def test_a_learner_who_is_still_logged_in_and_opens_a_new_seat_is_there(hub: Hub) -> None:
    ben = enter(hub, "ben")
    ben.stop_seat()
    token = (hub.workshop / "state" / "token").read_text().strip()
    api = hub_api.HubApi(hub.server, token)
    assert list(hub_api.start_seats(api, ["ben"], 1, lambda _: None).ready) == ["ben"]
    teacher = hub.learner("teacher", TEACHER)
    assert teacher.log_in().text.count(">ready, not entered yet</td>") == 1
    assert ben.ask("/user/ben/lab").status == 200
    page = teacher.ask("/services/class/").text
    assert "not entered yet" not in page and page.count(">works</td>") == 2


def test_a_message_of_the_teacher_reaches_every_seat(hub: Hub) -> None:
    teacher = hub.learner("teacher", TEACHER)
    page = teacher.log_in()
    shown = teacher.submit("/services/class/message", page, text="Please open <LLM06>.")
    assert "Please open &lt;LLM06&gt;." in shown.text
    empty = teacher.submit("/services/class/message", page, text="  ")
    assert "The message is empty, so nothing was changed." in empty.text
    assert "Please open &lt;LLM06&gt;." in empty.text
    ada, ben = enter(hub, "ada"), enter(hub, "ben")
    for learner in (ada, ben):
        assert notes_of(learner)[0].endswith(" Your teacher: Please open <LLM06>.")
    assert "Your teacher: Please open <LLM06>." in ada.type_in_terminal("echo e''nd", "end\r\n")
    assert ben.ask("/user/ada/llm-labs-notes").status in (403, 404)
    assert "Read-only" in ada.run("open('/opt/labs/class/message.txt', 'w')")
    assert "Please open" not in teacher.submit("/services/class/message", page).text
    assert "Your teacher" not in str(notes_of(ada) + notes_of(ben))
    assert "Start here: " in str(notes_of(ben)), "Ben hasn't checked a sheet"
    script = ada.ask("/user/ada/lab/extensions/llm-labs-notes/static/notes.js")
    assert script.status == 200 and "llm-labs-notes" in ada.ask("/user/ada/lab").text


def test_jupyterlab_shows_no_solution_until_the_teacher_opens_it(hub: Hub) -> None:
    later = "raise NotImplementedError  # Your teacher opens the solutions later."
    solution = "lowest = torch.finfo"
    hint = "Multiply each query with each key"  # the first one, which is never locked
    ada = enter(hub, "ada")
    lesson = "labs/llm06_attention/lesson.py"

    def contents(kind: str) -> str:
        return json.dumps(ada.ask(f"/user/ada/api/contents/{lesson}?type={kind}").json["content"])

    for kind in ("file", "notebook"):
        assert later in contents(kind) and solution not in contents(kind)
        assert hint in contents(kind)
    assert ada.ask(f"/user/ada/files/{lesson}").status == 403
    typed = "learn LLM06 > /dev/null; check LLM06 --solution attention; echo e''nd"
    assert "Your teacher opens the solutions later." in ada.type_in_terminal(typed, "end\r\n")
    teacher = hub.learner("teacher", TEACHER)
    page = teacher.log_in()
    form = {"lab": "LLM06", "action": "open"}
    opened = teacher.submit("/services/class/solutions", page, **form)
    assert "LLM06: solutions open." in opened.text
    for kind in ("file", "notebook"):
        assert later not in contents(kind) and solution in contents(kind)
    assert ada.ask(f"/user/ada/files/{lesson}").status == 200


def test_seats_go_on_while_the_hub_is_dead_and_are_found_again(hub: Hub) -> None:
    ada = enter(hub, "ada")
    kernel = ada.start_kernel()
    ada.run_in(kernel, "x = 41")
    before = {name: one.id for name, one in hub.seats().items()}
    hub_process = hub.container().attrs["State"]["Pid"]
    os.kill(hub_process, signal.SIGKILL)
    hub.wait(ada)
    assert {name: one.id for name, one in hub.seats().items()} == before
    assert ada.run_in(kernel, "print(x + 1)").strip() == "42"
    # A new container of the hub, as after a change of the settings, finds them as well.
    hub.write_settings('idle = "2h"\n')
    assert hub.clone.invoke("hub").code == 0
    hub.wait(ada)
    assert {name: one.id for name, one in hub.seats().items()} == before
    assert ada.run_in(kernel, "print(x + 2)").strip() == "43"


def test_a_port_that_is_taken_leaves_the_running_hub_as_it_is(hub: Hub) -> None:
    before = hub.container().id
    settings = hub.workshop / "hub.toml"
    good = settings.read_text()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings.write_text(good.replace(f"port = {hub.port}", f"port = {port}"))
        refused = hub.clone.invoke("hub")
    settings.write_text(good)
    assert refused.code == 3 and f"Port {port} is taken" in refused.err, refused
    assert hub.container().id == before
    enter(hub, "ada")


def test_work_outlives_a_seat_and_a_seat_that_was_killed_starts_again(hub: Hub) -> None:
    ben = enter(hub, "ben")
    ben.ask("/user/ben/api/contents/work/mine.txt", {"type": "file", "format": "text",
            "content": "kept"}, "PUT")  # fmt: skip
    hub.seats()["ben"].kill()
    hub.wait_for_end(ben)
    assert not any(name.endswith("-ben") for name in networks_of(hub.clone))
    page = ben.ask("/user/ben/lab")
    assert page.status == 424
    assert "Your seat ended unexpectedly at" in page.text
    assert "Your saved files are there." in page.text
    teacher = hub.learner("teacher", TEACHER).log_in()
    assert '<td data-label="seat">ended <time' in teacher.text
    assert ben.open_seat().status == 200
    assert ben.ask("/user/ben/api/contents/work/mine.txt").json["content"] == "kept"


def test_a_full_quota_is_told_and_refuses_to_save(hub: Hub) -> None:
    ben = enter(hub, "ben")
    file = {"type": "file", "format": "text", "content": "1"}
    ben.run(f"open('/lab/outputs/large', 'wb').write(b'1' * {QUOTA + 1})")
    note = "from pathlib import Path; print(Path('/tmp/notes').read_text())"
    deadline = time.monotonic() + PATIENCE
    while "Nothing more can be saved" not in ben.run(note):
        assert time.monotonic() < deadline
        time.sleep(2)
    assert "The largest: outputs/large 10 MB" in notes_of(ben)[0]
    refused = ben.ask("/user/ben/api/contents/work/more.txt", file, "PUT")
    assert refused.status == 507 and "rm -r outputs/large" in refused.text
    shown = ben.type_in_terminal("true\rtrue\recho e''nd", "end\r\n")
    assert shown.count("Nothing more can be saved") == 1, "once, not above each prompt"
    shown = ben.type_in_terminal("rm outputs/large; echo e''nd", "end\r\n")
    assert "Your files take 1" in shown
    assert ben.ask("/user/ben/api/contents/work/more.txt", file, "PUT").status == 201


def test_a_seat_stays_within_its_limits(hub: Hub) -> None:
    limits = hub.seats()["ada"].attrs["HostConfig"]
    assert (limits["Memory"], limits["MemorySwap"]) == (2**30, 2**30)
    assert limits["PidsLimit"] == 4096
    assert limits["ReadonlyRootfs"] and limits["CapDrop"] == ["ALL"]
    assert limits["CpuQuota"] > 0


def test_a_teacher_logs_in_where_they_did_before_whoever_guesses_beside_them(hub: Hub) -> None:
    teacher = hub.learner("teacher", TEACHER)
    assert teacher.log_in().status == 200
    replies = [hub.learner("teacher", f"guess {n}").log_in().status for n in range(9)]
    assert replies[-1] == 429
    assert hub.learner("teacher", TEACHER).log_in().status == 429
    teacher.ask("/hub/logout")
    page = teacher.log_in()
    assert page.url.endswith("/services/class/"), page


def test_a_new_container_of_the_hub_finds_its_address_free_in_each_network(hub: Hub) -> None:
    """The engine starts a seat again while the hub is away, and gives it an address."""
    old = hub.container()
    old.stop()
    before = hub.seats()
    before["ben"].restart(timeout=1)
    settings = hub.workshop / "hub.toml"
    settings.write_text(settings.read_text().replace("A class of tests", "Another title"))
    started = hub.clone.invoke("hub")
    assert started.code == 0, started
    assert hub.container().id != old.id
    hub.wait(enter(hub, "ada"))
    seats = hub.seats()
    assert [seats[name].id for name in seats] == [before[name].id for name in seats]
    for name, seat in seats.items():
        code, output = seat.exec_run(["python3", "-c", CONNECT.format([("hub", 8081)])])
        assert code == 0, (name, output)
