"""Fixtures of all tests: copies of this clone with small labs, and real runs of `invoke`."""

import fcntl
import os
import pty
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from launcher.image.status import clone_name
from tests.browser import chromium

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

REPO = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SOCKET = "/var/run/docker.sock"
SOMEBODY = 4242  # a uid that no machine here knows by name
# They start engines of their own, so no container of another test can disturb them.
OWN_ENGINES = ("test_gpu_hosts.py", "test_hub_gpus.py", "test_podman.py", "test_rootless.py")
PATIENCE = 900  # seconds until a test that waits gives up; no test passes or fails by speed

# Hypothesis would fail a test whose example takes 200 ms, as any does beside other tests.
hypothesis.settings.register_profile(
    "labs", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("labs")

# A shell makes background processes and their children ignore Ctrl-C; nohup, a hang-up.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Tests that are run by hand, by their mark: pytest -m slow.
BY_HAND = {"slow": "takes minutes, or gigabytes", "sweep": "takes a quarter of an hour a lab"}

# A lab that needs only Python, for tests of the launcher; `body` is the body of run().
BARE = '''# %% [markdown]
# # {name} · A bare lab
# Runs one function and nothing of the kit.
import json, os, pathlib, signal, socket, sys, time

OUTPUTS = pathlib.Path("outputs")

def wait_for(name):
    """Wait until the test makes outputs/<name>; exit with 99 if it never does."""
    for _ in range(1200):
        if (OUTPUTS / name).exists():
            return
        time.sleep(0.05)
    sys.exit(99)

class lab:
    summary = ("–", "–")

    @staticmethod
    def run(arguments, common=None):
{body}
        return 0
'''

NO_CHECKS = """from labs.kit import Checks, Mistake

checks = Checks()
"""

# The first cells of a small lab that uses the kit.
KIT = """# %% [markdown]
# # {name} · A small lab
# Measures next to nothing.
#
# Some **prose** for the report.

# %% 1. Preparations
import os
import signal
import sys
import time

from labs.kit import Lab, Run, assets

lab = Lab("{name}")

{body}

# %%
if __name__ == "__main__":
    lab.main()
"""


# The __init__.py of a small lab, with more fields for more options.
OPTIONS = """from dataclasses import dataclass
from pathlib import Path

from common.options import FILE, option


@dataclass(frozen=True)
class LessonOptions:
    word: str = option("an option of its own", "none")
{more}

DeeperOptions = LessonOptions
"""
ANY_WORDS = """from dataclasses import dataclass

from common.options import option


@dataclass(frozen=True)
class LessonOptions:
    word: list[str] | None = option("any words", nargs="*")
"""


def pytest_configure(config: pytest.Config) -> None:
    for mark, why in BY_HAND.items():
        config.addinivalue_line("markers", f"{mark}: {why}; run with -m {mark}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for mark, why in BY_HAND.items():
        if mark in config.option.markexpr:
            continue
        for item in items:
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=f"{why}: -m {mark}"))


class EngineTogether(LoadScopeScheduling):
    """Run the tests that use this machine's engine in one process, and each other file in one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "engine" if _uses_engine(REPO / file) else file


@cache
def _uses_engine(file: Path) -> bool:
    return file.name not in OWN_ENGINES and "mark.engine" in file.read_text(encoding="utf-8")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> EngineTogether:
    return EngineTogether(config, log)


def indent(code: str) -> str:
    return "\n".join("        " + line for line in code.strip("\n").splitlines())


@dataclass
class Ended:
    """An ended command."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Running:
    """A running command: its output so far, and how it ends."""

    def __init__(self, command: list[str], terminal: tuple[int, int] | None = None, **how: Any):
        self.printed = bytearray()  # both streams, in order
        self._out = bytearray()
        self._err = bytearray()
        self._terminal = None
        if terminal:
            self._terminal, theirs = pty.openpty()
            self.resize(*terminal)
            streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
            # the controlling terminal, so that Ctrl-C and a new size reach the command
            how["preexec_fn"] = lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        else:
            streams = {
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
            }
        self.process = subprocess.Popen(command, start_new_session=True, **streams, **how)
        if terminal:
            os.close(theirs)
            sources = [(self._terminal, self._out)]
        else:
            pipes = (self.process.stdout.fileno(), self.process.stderr.fileno())
            sources = list(zip(pipes, (self._out, self._err), strict=True))
        self._readers = [threading.Thread(target=self._read, args=one) for one in sources]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self, descriptor: int, received: bytearray) -> None:
        while True:
            try:
                chunk = os.read(descriptor, 65_536)
            except OSError:  # the terminal was closed
                return
            if not chunk:
                return
            received += chunk
            self.printed += chunk

    @property
    def text(self) -> str:
        return self.printed.decode(errors="replace")

    @property
    def out(self) -> str:
        """Its stdout so far. In `text` the two streams can mix in the middle of a line."""
        return self._out.decode(errors="replace")

    def wait_for(self, what: str | Callable[[], Any]) -> Any:
        """Wait until `what` is printed, or returns something true."""
        ask = what if callable(what) else lambda: what in self.text
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if answer := ask():
                return answer
            if self.process.poll() is not None:
                for reader in self._readers:
                    reader.join(5)
                if answer := ask():
                    return answer
                raise AssertionError(f"it ended before {what!r}:\n{self.text}")
            time.sleep(0.02)
        raise AssertionError(f"{what!r} never came:\n{self.text}")

    def send(self, what: signal.Signals) -> None:
        self.process.send_signal(what)

    def type(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def resize(self, lines: int, columns: int) -> None:
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def ended(self) -> Ended:
        """Wait for its end; return how it ended."""
        self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(10)
        return Ended(self.process.returncode, self._out.decode(), self._err.decode())

    def close(self) -> None:
        """End it, if it still runs, with all processes of its session."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        for reader in self._readers:
            reader.join(10)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        if self._terminal is not None:
            os.close(self._terminal)


def as_user(uid: int, *groups: int) -> list[str]:
    """Return the words before a command that run it as another user, if this user is root.

    It may read everything, because this Python can be in root's home. It may write, and use a
    socket, only as that user may.
    """
    more = ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
    reads = "-all,+dac_read_search"
    readable = [f"--inh-caps={reads}", f"--ambient-caps={reads}"]  # codespell:ignore inh
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", *more, *readable]


@dataclass
class Clone:
    """A copy of this clone in a separate folder."""

    path: Path
    started: list[Running] = field(default_factory=list)

    @property
    def outputs(self) -> Path:
        return self.path / "outputs"

    def make_folders(self) -> None:
        """Make the folders that Compose alone doesn't make: outputs and work/progress."""
        for folder in (self.outputs, self.path / "work" / "progress"):
            folder.mkdir(parents=True, exist_ok=True)

    def bare_lab(self, body: str, name: str = "LLM91") -> str:
        """Write a lab whose run() has this body and --word any words; it needs only Python."""
        return self._write(name, BARE.format(name=name, body=indent(body)), ANY_WORDS)

    def kit_lab(self, body: str, name: str = "LLM90", checks: str = "", options: str = "") -> str:
        """Write a small lab of the kit with this body, these checks and these more options."""
        more = indent(options).replace(" " * 8, " " * 4)
        self._write(name, KIT.format(name=name, body=body.strip("\n")), OPTIONS.format(more=more))
        (self.lab_folder(name) / "checks.py").write_text(NO_CHECKS + checks)
        return name

    def deeper_part(self, body: str, name: str = "LLM90") -> str:
        """Write the second sitting of a small lab, with this body."""
        source = KIT.format(name=f"{name}+", body=body.strip("\n"))
        (self.lab_folder(name) / "deeper.py").write_text(source, encoding="utf-8")
        return f"{name}+"

    def lab_folder(self, name: str) -> Path:
        """Return the folder of a small lab."""
        return self.path / "labs" / f"{name.lower()}_small"

    def _write(self, name: str, source: str, package: str) -> str:
        folder = self.lab_folder(name)
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text(package)
        (folder / "lesson.py").write_text(source, encoding="utf-8")
        return name

    def change(self, name: str, old: str, new: str) -> None:
        """Change a file of the clone."""
        file = self.path / name
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{name} has no {old!r}"
        file.write_text(text.replace(old, new), encoding="utf-8")

    def give_to(self, uid: int) -> None:
        for path in (self.path, *self.path.rglob("*")):
            os.lchown(path, uid, uid)

    def start(
        self,
        *command: str,
        user: list[str] | tuple[str, ...] = (),
        terminal: tuple[int, int] | None = None,
        **environment: str | None,
    ) -> Running:
        """Start a command in the clone. None takes a variable out of its environment."""
        ours = {"COLUMNS": None, "LINES": None, "FORCE_COLOR": None, "PYTHONDONTWRITEBYTECODE": "1"}
        variables = {**os.environ, **ours, **environment}
        variables = {name: value for name, value in variables.items() if value is not None}
        words = [*user, *command]
        running = Running(words, terminal, cwd=self.path, env=variables)
        self.started.append(running)
        return running

    def run(self, *command: str, **how: Any) -> Ended:
        return self.start(*command, **how).ended()

    def invoke(self, *words: str, **how: Any) -> Ended:
        """Run invoke as a user does, to its end."""
        return self.start_invoke(*words, **how).ended()

    def start_invoke(self, *words: str, **how: Any) -> Running:
        return self.start(str(BIN / "invoke"), *words, **how)

    def labs(self, *words: str, **how: Any) -> Ended:
        """Run `python -m labs` in the tests' own Python."""
        how = {"PYTHONPATH": str(self.path), **how}
        return self.start(sys.executable, "-m", "labs", *words, **how).ended()

    def close(self) -> None:
        for one in self.started:
            one.close()
        if any("Building " in one.text for one in self.started):
            self._remove_image_names()
        shutil.rmtree(self.path, ignore_errors=True)

    def _remove_image_names(self) -> None:
        """Remove the names that builds in this clone gave to images, which keep their others."""
        suffix = clone_name("", self.path)
        listed = ["docker", "image", "ls", "--format={{.Repository}}:{{.Tag}}"]
        names = subprocess.run(listed, capture_output=True, text=True, check=False).stdout.split()
        if mine := [name for name in names if name.endswith(suffix)]:
            subprocess.run(["docker", "image", "rm", *mine], capture_output=True, check=False)


def _copy_of(source: Path, names: list[str], to: Path) -> None:
    for name in names:
        if (source / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, to / name)


@pytest.fixture(scope="session")
def snapshot() -> Iterator[Path]:
    """Copy this clone's files as they are when the tests start: tracked, or not ignored by git."""
    with tempfile.TemporaryDirectory(prefix="llm-labs-snapshot-") as folder:
        command = ["git", "-C", str(REPO), "ls-files", "-z", "--cached", "--others"]
        listed = subprocess.run(
            [*command, "--exclude-standard"], capture_output=True, text=True, check=True
        )
        _copy_of(REPO, [name for name in listed.stdout.split("\0") if name], Path(folder))
        yield Path(folder)


def _fresh_clone(snapshot: Path, prefix: str = "llm-labs-test-") -> Clone:
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)  # other users have to get in
    shutil.copytree(snapshot, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tests"))
    folder.chmod(0o755)
    return Clone(folder)


@pytest.fixture
def clone(snapshot: Path, request: pytest.FixtureRequest) -> Iterator[Clone]:
    """Copy this clone for one test; no container of it may be left behind."""
    one = _fresh_clone(snapshot)
    yield one
    try:
        if request.node.get_closest_marker("engine"):
            assert not containers_of(one), "a container was left behind"
    finally:
        _remove_containers_of(one)
        one.close()


@pytest.fixture(scope="session")
def shared_clone(snapshot: Path) -> Iterator[Clone]:
    """Copy this clone once for all tests; it has the environment."""
    one = _fresh_clone(snapshot)
    yield one
    one.close()


def containers_of(clone: Clone) -> list[Any]:
    """Return every container, running or not, that mounts a folder of this clone."""
    import docker

    client = docker.from_env()
    try:
        everything = client.containers.list(all=True, ignore_removed=True)
    finally:
        client.close()
    return [
        one
        for one in everything
        if any(
            mount.get("Source", "").startswith(f"{clone.path}/") for mount in one.attrs["Mounts"]
        )
    ]


def _remove_containers_of(clone: Clone) -> None:
    import docker

    try:
        left = containers_of(clone)
    except docker.errors.DockerException:
        return  # no engine, no containers
    for one in left:
        one.remove(force=True)


def _no_engine() -> str:
    """Return why the tests can't use an engine, in one line; empty if they can."""
    import docker

    try:
        client = docker.from_env()
        client.ping()
        client.close()
    except (docker.errors.DockerException, OSError) as error:
        return f"no container engine responds here ({str(error).splitlines()[0][:120]})"
    for plugin in ("compose", "buildx"):
        try:
            asked = subprocess.run(["docker", plugin, "version"], capture_output=True, text=True)
        except FileNotFoundError:
            return "the docker command isn't here"
        if asked.returncode != 0:
            return f"docker's {plugin} plugin isn't here"
    return ""


@pytest.fixture(scope="session")
def engine(snapshot: Path) -> Iterator[Any]:
    """Yield a client of the engine, with the image built; skip without an engine."""
    import docker

    if reason := _no_engine():
        pytest.skip(reason)
    builder = _fresh_clone(snapshot)
    try:
        dry = builder.invoke("--dry", "lab", "LLM06", "--runtime", "docker")
        assert dry.code == 0, f"the tests' image can't be planned:\n{dry}"
        if " build " in dry.out.splitlines()[0]:
            built = builder.invoke("build", "--runtime", "docker")
            assert built.code == 0, f"the tests' image can't be built:\n{built.err[-4000:]}"
    finally:
        builder.close()
    client = docker.from_env()
    yield client
    client.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Report all tests that lack an engine in one line."""
    report = yield
    if report.skipped and item.get_closest_marker("engine") and isinstance(report.longrepr, tuple):
        report.longrepr = (__file__, None, report.longrepr[2])
    return report


@pytest.fixture(autouse=True)
def _usual_signals() -> Iterator[None]:
    """Give Ctrl-C and TERM their usual effect after a test that left a training before its end."""
    yield
    if stop_request := sys.modules.get("labs.kit.run.stop_request"):
        with suppress(KeyboardInterrupt):  # the test has sent one
            stop_request.end()


@pytest.fixture(autouse=True)
def _engine_where_marked(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("engine"):
        request.getfixturevalue("engine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return a headless Chromium. It ends with the module: its event loop would disturb others."""
    with chromium() as started:
        yield started


@pytest.fixture
def socket_group() -> int:
    """Return the group of the engine's socket, which may use the engine."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if not stat.S_ISSOCK(Path(SOCKET).stat().st_mode):
        pytest.skip(f"{SOCKET} isn't the engine's socket")
    return Path(SOCKET).stat().st_gid


@pytest.fixture
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")


@pytest.fixture(scope="session")
def lab_environment(shared_clone: Clone) -> Path:
    """Return the folder of a real environment, with venv/ and home/, made once by the launcher."""
    name = shared_clone.bare_lab("print('made')")
    # As for a user, the build writes the byte-code that later processes would compile each time.
    made = shared_clone.invoke("lab", name, "--runtime", "venv", PYTHONDONTWRITEBYTECODE=None)
    assert made.code == 0, f"the environment can't be made:\n{made.err[-4000:]}"
    (home,) = (shared_clone.path / ".lab-env").glob("*/home/stack.json")
    return home.parent.parent


@pytest.fixture(scope="session")
def labs_home(request: pytest.FixtureRequest) -> Path:
    """Return the folder of the models: LABS_HOME, or that of the environment."""
    if given := os.environ.get("LABS_HOME"):
        return Path(given)
    return request.getfixturevalue("lab_environment") / "home"


@pytest.fixture(scope="module", autouse=True)
def _models_for_the_labs(request: pytest.FixtureRequest) -> None:
    if (REPO / "tests" / "labs") in request.path.parents:
        os.environ.setdefault("LABS_HOME", str(request.getfixturevalue("labs_home")))
