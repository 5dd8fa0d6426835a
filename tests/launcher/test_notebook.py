"""JupyterLab in a real container, driven through HTTP and by a real browser."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import docker
from common import sheets
from common.source import split
from common.syllabus import lessons
from launcher.notebook.run import LABEL
from tests.conftest import Clone, Running, _fresh_clone, containers_of
from tests.launcher.compare_containers import differences, inspected_settings
from tests.launcher.probe import TRIED

import pytest

pytestmark = pytest.mark.engine

LESSON = "labs/llm02_deep_learning/lesson.py"
LESSONS = [lesson for lesson in lessons() if not lesson.deeper]
FIGURE = 'show(run, "graph"'  # in the first experiment of that lesson with a figure and a check
CONCLUSION = "so the loss changes by about"  # its last output
EXERCISE = '''
@lab.exercise(level=1, hints=("a", "b", "c"))
def double(x):
    """Return twice x."""
    return 2 * x


# %% An experiment
@lab.experiment
def doubles(run: Run):
    """Twice 2 is 4."""
    run.check("twice 2", double(2), equals=4, decides=True)
'''
CHECKS = """

@checks.proves("double")
def double(module):
    if module.double(3) != 6:
        raise Mistake("twice 3 is 6")
"""
# What a hardened container allows, as JSON.
PROBE = (
    f"import json, os, socket\n{TRIED}"
    + """
print(json.dumps({
    "effective": int(status["CapEff"], 16),
    "bounding": int(status["CapBnd"], 16),
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "root": tried(lambda: open("/written", "w")),
    "opt": tried(lambda: open("/opt/labs/venv/written", "w")),
    "lessons": tried(lambda: open("/lab/labs/written", "w")),
    "work": tried(lambda: open("/lab/work/written", "w")),
    "outputs": tried(lambda: open("/lab/outputs/written", "w")),
    "names": tried(lambda: socket.getaddrinfo("example.org", 80)),
}))
"""
)


@dataclass
class Notebook:
    """A running `invoke notebook`."""

    clone: Clone
    running: Running
    link: str

    @property
    def server(self) -> str:
        """The address of the server."""
        return "http://{0.hostname}:{0.port}".format(urlsplit(self.link))

    @property
    def port(self) -> int:
        return urlsplit(self.link).port or 0

    @property
    def token(self) -> str:
        return parse_qs(urlsplit(self.link).query)["token"][0]

    def ask(
        self, path: str, method: str = "GET", body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        """Send a request with the token; return the status, and the JSON of the reply."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"token {self.token}", **headers}
        request = urllib.request.Request(self.server + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                text = reply.read()
                return reply.status, json.loads(text) if text.startswith(b"{") else text
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def open(self, path: str) -> dict[str, Any]:
        """Return a file as a notebook."""
        status, model = self.ask(f"/api/contents/{path}?type=notebook")
        assert status == 200, model
        return model

    def save(self, path: str, content: dict[str, Any]) -> tuple[int, Any]:
        """Save a notebook as JupyterLab does."""
        body = {"type": "notebook", "format": "json", "content": content}
        return self.ask(f"/api/contents/{path}", "PUT", body)


def start(clone: Clone, *words: str, **how: Any) -> Notebook:
    running = clone.start_invoke("notebook", *words, **how)
    return Notebook(clone, running, running.wait_for(lambda: link_in(running.out)))


def link_in(text: str) -> str:
    """Return the first complete link with a token."""
    found = re.search(r"(http://127\.0\.0\.1:\d+/\S+\?token=[\w-]+)\s", text)
    return found[1] if found else ""


def networks_of_notebooks() -> list[str]:
    client = docker.from_env()
    try:
        return [one.name for one in client.networks.list(filters={"label": LABEL})]
    finally:
        client.close()


def is_refused(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=5):
            return False
    except OSError:
        return True


def addresses_of_this_machine() -> list[str]:
    listed = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True)
    return listed.stdout.split()


# The launcher limits the memory to a share of the machine's, and Compose alone doesn't.
MEMORY = ("HostConfig.Memory", "HostConfig.MemorySwap")


@pytest.fixture(scope="module")
def notebook(snapshot: Path, engine: Any) -> Iterator[Notebook]:
    """Serve the notebooks of a clone with one sheet, and a small lab; end by Ctrl-C."""
    del engine
    clone = _fresh_clone(snapshot)
    try:
        clone.kit_lab(EXERCISE, checks=CHECKS)
        clone.deeper_part("")
        assert clone.labs("learn", "all+").code == 0
        served = start(clone, "LLM90", "--runtime", "docker")
        yield served
        served.running.send(signal.SIGINT)
        assert served.running.ended().code == 130
    finally:
        for one in containers_of(clone):
            one.remove(force=True)
        clone.close()


def test_the_link_opens_the_sheet_of_a_lab_as_a_notebook(notebook: Notebook) -> None:
    assert urlsplit(notebook.link).path == "/lab/tree/work/llm90_small.py"
    model = notebook.open("work/llm90_small.py")
    assert model["type"] == "notebook" and model["writable"]
    assert len(model["content"]["cells"]) > 3


def run_to_the_figure(page: Any, lesson: str) -> None:
    """Run the cells of the open lesson up to the first figure, and wait for it."""
    cells = split(lesson)
    last = next(i for i, cell in enumerate(cells) if FIGURE in cell.text)
    assert last >= 3
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_selector("text=/Python 3.*Idle/", timeout=60_000)
    page.locator(".jp-Notebook .jp-Cell").first.click()
    for _ in range(last + 1):
        page.keyboard.press("Shift+Enter")
    page.wait_for_selector(".jp-OutputArea-output img, .jp-OutputArea-output svg", timeout=120_000)
    page.wait_for_selector(f".jp-OutputArea-output >> text={CONCLUSION}", timeout=120_000)


def test_in_a_browser_a_lesson_runs_and_draws_its_figure(notebook: Notebook, browser: Any) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{notebook.server}/lab/tree/{LESSON}?token={notebook.token}")
    run_to_the_figure(page, (notebook.clone.path / LESSON).read_text(encoding="utf-8"))
    assert page.locator("text=/notebook is read-only/").count() >= 1
    assert page.locator(".jp-Dialog").count() == 0
    shown = "".join(page.locator(".jp-OutputArea").all_inner_texts())  # cells in view
    context.close()
    other = ("data:", "blob:", notebook.server, notebook.server.replace("http", "ws"))
    assert [url for url in requests if not url.startswith(other)] == []
    # The run's files are where those of a lab are, and its log has what the notebook shows, once.
    (log,) = notebook.clone.outputs.glob("LLM02/*/log.txt")
    lines = [line.strip() for line in log.read_text().splitlines() if "✓" in line]
    line = max((line for line in lines if line in shown), key=len)
    assert shown.count(line) == 1


def test_a_sheet_counts_as_unchanged_when_it_is_opened(notebook: Notebook, browser: Any) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(f"{notebook.server}/lab/tree/work/llm90_small.py?token={notebook.token}")
    page.wait_for_selector("text=/Python 3.*Idle/", timeout=60_000)
    page.wait_for_function("document.title.includes('llm90')")
    page.wait_for_timeout(1000)  # JupyterLab adds the kernel's metadata after its reply
    assert page.locator(".lm-TabBar-tab.jp-mod-current").count() >= 1
    assert page.locator(".lm-TabBar-tab.jp-mod-dirty").count() == 0
    context.close()


def test_a_browser_that_leaves_early_leaves_no_traceback(notebook: Notebook) -> None:
    kernel = notebook.ask("/api/kernels", "POST", {})[1]["id"]
    request = (
        f"GET /api/kernels/{kernel}/channels?session_id=x HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{notebook.port}\r\nAuthorization: token {notebook.token}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    for seconds in (0, 0, 0.003, 0.01):
        with socket.create_connection(("127.0.0.1", notebook.port)) as browser:
            browser.sendall(request.encode())
            time.sleep(seconds)
    assert notebook.ask(f"/api/kernels/{kernel}", "DELETE")[0] == 204
    assert "kernel_ws_protocol" not in notebook.running.text
    assert "Uncaught exception" not in notebook.running.text


def test_a_lesson_with_exercises_names_the_command_for_a_copy(notebook: Notebook) -> None:
    first = notebook.open("labs/llm90_small/lesson.py")["content"]["cells"][0]["source"]
    assert first.endswith("Lessons are read-only: `invoke learn LLM90` makes your own copy.*")
    deeper = notebook.open("labs/llm90_small/deeper.py")["content"]["cells"][0]["source"]
    assert "read-only" not in deeper, "it has no exercises"


def test_a_wrong_token_is_refused(notebook: Notebook) -> None:
    for token in ("", "wrong", notebook.token[:-1]):
        assert notebook.ask("/api/contents", Authorization=f"token {token}")[0] == 403
        assert notebook.ask("/api/kernels", "POST", {}, Authorization=f"token {token}")[0] == 403
    with urllib.request.urlopen(f"{notebook.server}/lab?token=wrong", timeout=60) as reply:
        assert urlsplit(reply.url).path == "/login"


def test_another_name_for_the_address_is_refused(notebook: Notebook) -> None:
    """A page of a foreign site can't use the browser to reach the server by another name."""
    assert notebook.ask("/api/contents", Host=f"attacker.example:{notebook.port}")[0] == 403


def test_nothing_listens_on_another_address(notebook: Notebook) -> None:
    (container,) = containers_of(notebook.clone)
    bindings = container.attrs["NetworkSettings"]["Ports"]
    mine = {"HostIp": "127.0.0.1", "HostPort": str(notebook.port)}
    assert bindings == {f"{notebook.port}/tcp": [mine]}
    assert not is_refused("127.0.0.1", notebook.port)
    others = addresses_of_this_machine()
    assert others
    assert [one for one in others if not is_refused(one, notebook.port)] == []


def test_the_container_is_as_hardened_as_that_of_a_lab(notebook: Notebook) -> None:
    (container,) = containers_of(notebook.clone)
    dry = notebook.clone.invoke("--dry", "lab", "LLM90", "--runtime", "docker")
    command = dry.out.splitlines()[-1].replace("docker run --rm", "docker create", 1)
    made = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    client = docker.from_env()
    try:
        lab = client.containers.get(made.stdout.strip())
        theirs = inspected_settings(lab.attrs)
        lab.remove()
    finally:
        client.close()
    ours = inspected_settings(container.attrs)
    work = str(notebook.clone.path / "work")
    differ = differences(theirs, ours)
    assert set(differ) <= {
        "Config.Cmd", "Config.Entrypoint", "Config.Env", "Config.Image",
        "mounts", "HostConfig.Mounts",
        "HostConfig.NetworkMode", "HostConfig.Dns", f"Config.ExposedPorts.{notebook.port}/tcp",
        f"HostConfig.PortBindings.{notebook.port}/tcp",
    }  # fmt: skip
    assert set(ours["mounts"]) - set(theirs["mounts"]) == {(work, "/lab/work", True)}
    assert ours["HostConfig.Dns"] == ["127.0.0.1"]


def test_a_cell_can_write_sheets_and_results_only(notebook: Notebook) -> None:
    (container,) = containers_of(notebook.clone)
    code, printed = container.exec_run(["python", "-c", PROBE])
    assert code == 0, printed
    read_only = "Read-only file system"
    assert json.loads(printed) == {
        "effective": 0,
        "bounding": 0,
        "no_new_privileges": "1",
        "root": read_only,
        "opt": read_only,
        "lessons": read_only,
        "work": "worked",
        "outputs": "worked",
        "names": "Temporary failure in name resolution",
    }
    (network,) = container.attrs["NetworkSettings"]["Networks"]
    client = docker.from_env()
    options = client.networks.get(network).attrs["Options"]
    client.close()
    assert options == {"com.docker.network.bridge.enable_ip_masquerade": "false"}


def test_a_lesson_is_read_only(notebook: Notebook) -> None:
    before = (notebook.clone.path / LESSON).read_bytes()
    model = notebook.open(LESSON)
    assert model["writable"] is False
    status, reply = notebook.save(LESSON, model["content"])
    assert status == 403 and "invoke learn" in reply
    assert notebook.ask(f"/api/contents/{LESSON}", "DELETE")[0] == 403
    rename = {"path": "work/mine.py"}
    assert notebook.ask(f"/api/contents/{LESSON}", "PATCH", rename)[0] == 403
    assert (notebook.clone.path / LESSON).read_bytes() == before


def test_saving_a_sheet_keeps_its_bytes(notebook: Notebook) -> None:
    sheets = sorted((notebook.clone.path / "work").glob("*.py"))
    assert len(sheets) >= len(LESSONS)
    for sheet in sheets:
        before = sheet.read_bytes()
        path = f"work/{sheet.name}"
        assert notebook.save(path, notebook.open(path)["content"])[0] == 200
        assert sheet.read_bytes() == before, path


def test_a_sheet_that_was_written_in_a_notebook_passes_its_check(notebook: Notebook) -> None:
    path = "work/llm90_small.py"
    wrong = notebook.clone.labs("check", "LLM90")
    assert wrong.code == 1, wrong
    content = notebook.open(path)["content"]
    (cell,) = [one for one in content["cells"] if "def double(" in one["source"]]
    cell["source"] = re.sub(r"raise NotImplementedError.*", "return 2 * x", cell["source"])
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "4"}]
    cell["metadata"]["tags"] = ["mine"]
    assert notebook.save(path, content)[0] == 200
    sheet = (notebook.clone.path / path).read_text()
    assert "return 2 * x" in sheet and "jupytext" not in sheet and "tags" not in sheet
    right = notebook.clone.labs("check", "LLM90")
    assert right.code == 0, right
    # It still records the lab that it was made from.
    lesson = (notebook.clone.lab_folder("LLM90") / "lesson.py").read_text()
    assert sheets.made_from(sheet) == sheets.digest(lesson)


@pytest.mark.parametrize("what", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_leaves_nothing(
    notebook: Notebook, clone: Clone, what: signal.Signals
) -> None:
    before = networks_of_notebooks()
    other = start(clone, "--runtime", "docker")
    assert other.port != notebook.port  # the first free one
    assert urlsplit(other.link).path == "/lab"
    assert len(networks_of_notebooks()) == len(before) + 1
    other.running.send(what)
    ended = other.running.ended()
    assert ended.code == 130, ended
    assert ended.err.splitlines()[-1] == "interrupted"
    assert containers_of(clone) == []
    assert networks_of_notebooks() == before
    assert list(clone.outputs.iterdir()) == []
    assert notebook.ask("/api/status")[0] == 200


def test_it_ends_with_a_launcher_that_is_killed(clone: Clone) -> None:
    other = start(clone, "--runtime", "docker")
    (container,) = containers_of(clone)
    other.running.send(signal.SIGKILL)
    assert container.wait(timeout=60)["StatusCode"] in (0, 143)
    container.remove()
    for name in container.attrs["NetworkSettings"]["Networks"]:
        subprocess.run(["docker", "network", "rm", name], check=True, capture_output=True)


def test_a_port_that_is_taken_is_a_card(notebook: Notebook, clone: Clone) -> None:
    ended = clone.invoke("notebook", "--port", str(notebook.port), "--runtime", "docker")
    assert ended.code == 3, ended
    assert f"what: Port {notebook.port} is taken." in ended.err
    assert "--port" in ended.err


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (("--port", "http"), 2, "--port can't be 'http'"),
        (("--port", "80"), 2, "--port can't be '80'"),
        (("--port", "65536"), 2, "--port can't be '65536'"),
        (("LLM99",), 2, "There is no lab called 'LLM99'"),
        (("LLM01,LLM02",), 2, "One lab can be opened"),
        (("--runtime", "jail"), 2, "--runtime can't be 'jail'"),
    ],
)
def test_wrong_usage_is_a_card(clone: Clone, words: tuple[str, ...], code: int, what: str) -> None:
    ended = clone.invoke("notebook", *words)
    assert ended.code == code, ended
    assert f"what: {what}" in ended.err


def test_without_a_sheet_the_link_opens_the_lesson(clone: Clone) -> None:
    dry = clone.invoke("--dry", "notebook", "2", "--runtime", "docker")
    assert dry.code == 0, dry
    assert urlsplit(link_in(dry.err)).path == f"/lab/tree/{LESSON}"
    assert "invoke learn LLM02" in dry.err


def test_compose_alone_starts_the_same_container_and_prints_a_link(
    notebook: Notebook, clone: Clone
) -> None:
    del notebook  # its image exists
    clone.make_folders()
    dry = clone.invoke("--dry", "notebook", "--runtime", "docker")
    port = urlsplit(link_in(dry.err)).port
    project = f"notebook-{os.getpid()}"
    how = {
        "LABS_PORT": str(port),
        "LABS_UID": "0",
        "LABS_GID": "0",
        "COMPOSE_PROJECT_NAME": project,
    }
    compose = ("docker", "compose", "--profile", "notebook")
    up = clone.start(*compose, "up", **how)
    try:
        other = Notebook(clone, up, up.wait_for(lambda: link_in(up.text)))
        up.wait_for(lambda: not is_refused("127.0.0.1", other.port))
        (composed,) = containers_of(clone)
        status = time.monotonic() + 60
        while other.ask("/api/status")[0] != 200 and time.monotonic() < status:
            time.sleep(0.2)
        assert other.ask("/api/contents/labs")[0] == 200
        launched = created(dry.out)
        differ = differences(launched, inspected_settings(composed.attrs))
        assert set(differ) <= {"Config.Env", "HostConfig.NetworkMode", *MEMORY}
    finally:
        assert clone.run(*compose, "down", **how).code == 0
    assert up.ended().code in (0, 130)


def created(commands: str) -> dict[str, Any]:
    """Run the commands of --dry, with a container that is only created; return its settings."""
    lines = commands.splitlines()
    (run,) = [i for i, line in enumerate(lines) if line.startswith("docker run --rm")]
    lines[run] = lines[run].replace("docker run --rm", "docker create", 1).rstrip(";")
    *_, identity = subprocess.run(
        ["bash", "-c", "\n".join(lines[: run + 1])], capture_output=True, text=True, check=True
    ).stdout.split()
    client = docker.from_env()
    try:
        container = client.containers.get(identity)
        settings = inspected_settings(container.attrs)
        container.remove()
    finally:
        client.close()
        subprocess.run(["bash", "-c", lines[-1]], check=True, capture_output=True)
    return settings


def test_only_the_image_of_notebooks_has_jupyterlab(notebook: Notebook, engine: Any) -> None:
    find = "import importlib.util as u; print(u.find_spec('jupyterlab') is not None)"
    for image, expected in (("llm-labs:cpu", b"False\n"), ("llm-labs:cpu-notebook", b"True\n")):
        command = ["-c", find]
        printed = engine.containers.run(
            image, command, entrypoint="python", remove=True, network_mode="none"
        )
        assert printed == expected
    rows = json.loads(notebook.clone.invoke("images", "--json").out)
    assert {row["name"]: row["state"] for row in rows}["llm-labs:cpu-notebook"] == "current"
