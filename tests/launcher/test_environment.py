"""The environment: made once, whole or not at all, anew when the lock changes, and said aloud."""

import json
import os
import shutil
import signal
import socket
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

from launcher import environments, torch_source
from launcher.cards import Card
from launcher.environments import Environment
from tests.conftest import Clone, Running

import pytest

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
Disk = namedtuple("Disk", "total used free")

# An environment whose making takes as long as the test wants: its first step says that it has
# begun and waits for the file `go`, its last writes stack.json. Then it is in use until `done`.
QUICK = """
import sys, time, pathlib
from launcher import environments, owners
from launcher.cards import Card, show
from launcher.interrupts import Interrupted, Interrupts

BEGIN = '''
import pathlib, sys, time
with open("begun", "a") as file:
    file.write("once ")
for _ in range(2400):
    if pathlib.Path("go").exists():
        sys.exit(0)
    time.sleep(0.05)
sys.exit("nobody said go")
'''

def steps(environment):
    fails = [[sys.executable, "-c", "import sys; sys.exit('a step failed')"]]
    return [
        [sys.executable, "-c", BEGIN, str(environment.folder)],
        *(fails if "fail" in sys.argv else []),
        ["touch", str(environment.home / "stack.json")],
    ]

environments.steps = steps
try:
    with Interrupts(), environments.ready(environments.wanted("cpu"), owners.of_the_files()) as one:
        print("ready", one.complete, one.folder.name, flush=True)
        while "use" in sys.argv and not pathlib.Path("done").exists():
            time.sleep(0.05)
except Interrupted:
    sys.exit(130)
except Card as card:
    show(card)
    sys.exit(card.code)
"""


class Quick:
    """The clone whose environment is made by QUICK."""

    def __init__(self, clone: Clone) -> None:
        self.clone = clone

    def start(self, *words: str) -> Running:
        command = (sys.executable, "-c", QUICK, *words)
        return self.clone.start(*command, PYTHONPATH=str(self.clone.path))

    def begun(self) -> bool:
        return (self.clone.path / "begun").exists()

    def say(self, word: str) -> None:
        (self.clone.path / word).touch()

    @property
    def folders(self) -> list[Path]:
        return sorted(one for one in (self.clone.path / ".lab-env").iterdir() if one.is_dir())


@pytest.fixture
def quick(clone: Clone) -> Quick:
    return Quick(clone)


def processes_of(clone: Clone) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, UnicodeDecodeError):
            continue
        if str(clone.path) in command:
            found.append(command)
    return found


def test_two_processes_make_it_once(quick: Quick) -> None:
    first = quick.start()
    first.wait_for(quick.begun)
    second = quick.start()
    second.wait_for("Another process is making the environment")
    quick.say("go")
    for one in (first, second):
        ended = one.ended()
        assert ended.code == 0, ended
        assert ended.out.startswith("ready True"), ended
    assert (quick.clone.path / "begun").read_text() == "once "


def test_one_that_is_there_is_taken_as_it_is(quick: Quick) -> None:
    quick.say("go")
    assert quick.start().ended().code == 0
    again = quick.start().ended()
    assert again.code == 0, again
    assert "Making" not in again.err
    assert (quick.clone.path / "begun").read_text() == "once "


def test_one_whose_making_was_killed_is_made_anew(quick: Quick) -> None:
    first = quick.start()
    first.wait_for(quick.begun)
    os.killpg(first.process.pid, signal.SIGKILL)
    first.process.wait()
    (half,) = quick.folders
    (half / "venv").mkdir()
    (half / "venv" / "half").touch()
    quick.say("go")
    ended = quick.start().ended()
    assert ended.code == 0, ended
    assert "An earlier build was interrupted" in ended.err
    assert not (half / "venv" / "half").exists()


@pytest.mark.parametrize("what", SIGNALS, ids=lambda one: one.name)
def test_a_signal_while_it_is_made_leaves_nothing(quick: Quick, what: signal.Signals) -> None:
    running = quick.start()
    running.wait_for(quick.begun)
    running.send(what)
    ended = running.ended()
    assert ended.code == 130, ended
    assert quick.folders == []
    assert processes_of(quick.clone) == []


def test_a_step_that_fails_leaves_nothing_and_ends_in_a_card(quick: Quick) -> None:
    quick.say("go")
    ended = quick.start("fail").ended()
    assert ended.code == 3, ended
    assert "a step failed" in ended.err
    assert "what: The environment couldn't be made." in ended.err
    assert quick.folders == []


def test_a_changed_lock_makes_a_new_one_and_removes_the_old(quick: Quick) -> None:
    quick.say("go")
    assert quick.start().ended().code == 0
    (old,) = quick.folders
    with (quick.clone.path / "docker" / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert quick.start().ended().code == 0
    (new,) = quick.folders
    assert new != old


def test_one_that_is_in_use_is_not_removed(quick: Quick) -> None:
    quick.say("go")
    user = quick.start("use")
    user.wait_for("ready True")
    (old,) = quick.folders
    with (quick.clone.path / "docker" / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert quick.start().ended().code == 0
    assert old in quick.folders and len(quick.folders) == 2
    quick.say("done")
    assert user.ended().code == 0


# Where torch comes from


@pytest.fixture
def silent_index(monkeypatch) -> Iterator[str]:
    """An index on this machine that takes connections and never answers."""
    monkeypatch.delenv("LABS_WHEELS", raising=False)
    monkeypatch.setattr(torch_source, "SECONDS_TO_ANSWER", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        index = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("LABS_TORCH_INDEX", index)
        yield index


def test_an_index_that_never_answers_gives_way_to_the_default_one(
    silent_index: str, capsys
) -> None:
    assert torch_source.cpu_source() == []
    said = capsys.readouterr().err
    assert f"{silent_index} can't be reached" in said
    assert "default index" in said


def test_an_index_that_answers_is_taken(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("LABS_WHEELS", raising=False)
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "index.html").touch()
    with Running(
        [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"], cwd=tmp_path
    ) as server:
        server.wait_for("port ")
        port = server.text.split("port ")[1].split()[0]
        monkeypatch.setenv("LABS_TORCH_INDEX", f"http://127.0.0.1:{port}")
        source = torch_source.cpu_source()
    assert source == ["--no-deps", "--index-url", f"http://127.0.0.1:{port}"]


@pytest.mark.parametrize("index", ["http://127.0.0.1:9", "http://registry.invalid", "nonsense"])
def test_an_index_that_can_not_be_reached_gives_way(monkeypatch, index: str) -> None:
    monkeypatch.delenv("LABS_WHEELS", raising=False)
    monkeypatch.setenv("LABS_TORCH_INDEX", index)
    assert torch_source.cpu_source() == []


def test_a_wheel_of_torch_on_disk_is_taken_before_any_index(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / f"torch-{torch_source.VERSION}+cpu-cp311-cp311-linux_x86_64.whl").touch()
    monkeypatch.setenv("LABS_WHEELS", str(tmp_path))
    source = torch_source.cpu_source()
    assert "--no-index" in source
    steps = environments.steps(Environment(tmp_path / "cpu-0", "cpu"))
    (torch,) = [step for step in steps if f"torch=={torch_source.VERSION}" in step]
    assert torch[torch.index("--find-links") + 1] == str(tmp_path)


def test_the_lock_is_installed_with_its_hashes_and_nothing_beside_it(tmp_path: Path) -> None:
    steps = environments.steps(Environment(tmp_path / "cpu-0", "cpu"))
    (lock,) = [step for step in steps if "--require-hashes" in step]
    assert "--no-deps" in lock
    assert lock[lock.index("--requirement") + 1].endswith("docker/requirements.lock")
    assert steps[-1][1].endswith("docker/stack.py"), "what marks it as complete comes last"


# What can't be


def test_a_full_disk_is_told_before_anything_is_made(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(10**11, 10**11 - 10**9, 10**9))
    with pytest.raises(Card) as caught:
        environments._refuse_a_full_disk(3)
    assert "disk space" in caught.value.what
    assert "1.0 GB free" in caught.value.why


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_a_python_without_a_lock_is_a_card(monkeypatch, version: tuple[int, int]) -> None:
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    with pytest.raises(Card) as caught:
        environments.wanted("cpu")
    assert f"Python {version[0]}.{version[1]} can't run the labs." == caught.value.what


# The real one


def test_the_real_environment_runs_a_lab_of_the_kit(
    shared_clone: Clone, lab_environment: Path
) -> None:
    lab = shared_clone.kit_lab('''
@lab.experiment
def models(run: Run):
    """The models are here, and open."""
    from transformers import AutoTokenizer
    words = AutoTokenizer.from_pretrained(assets.smollm2())("a few words").input_ids
    run.check("tokens", len(words), at_least=3)
    run.check("threads sleep while they wait", os.environ["OMP_WAIT_POLICY"], equals="PASSIVE")
''')
    ended = shared_clone.invoke("lab", lab, "--runtime", "venv")
    assert ended.code == 0, ended
    assert "Making" not in ended.err
    assert "in an environment" in ended.err
    (results,) = shared_clone.outputs.glob("LLM90/*/results.json")
    stack = json.loads(results.read_text())["environment"]["stack"]
    assert stack == json.loads((lab_environment / "home" / "stack.json").read_text())
    assert stack["stack"] == "cpu" and len(stack["lock"]) == 64


@pytest.mark.usefixtures("lab_environment")
@pytest.mark.parametrize("code", [1, 2, 137])
def test_the_real_environment_keeps_a_lab_s_exit_code(shared_clone: Clone, code: int) -> None:
    body = "os.kill(os.getpid(), signal.SIGKILL)" if code == 137 else f"return {code}"
    lab = shared_clone.bare_lab(body, "LLM92")
    ended = shared_clone.invoke("lab", lab, "--runtime", "venv")
    assert ended.code == code, ended
    assert ("what: LLM92 was killed (137)." in ended.err) == (code == 137)


@pytest.mark.usefixtures("lab_environment")
@pytest.mark.parametrize("what", SIGNALS, ids=lambda one: one.name)
def test_a_signal_ends_a_lab_in_the_real_environment(
    shared_clone: Clone, what: signal.Signals
) -> None:
    lab = shared_clone.bare_lab("print('begun', os.getpid())\nwait_for('never')", "LLM93")
    running = shared_clone.start_invoke("lab", lab, "--runtime", "venv")
    running.wait_for("begun")
    running.wait_for("\n")
    process = int(running.text.split("begun ")[1].split()[0])
    running.send(what)
    ended = running.ended()
    assert ended.code == 130, ended
    assert "Traceback" not in ended.err
    assert not Path(f"/proc/{process}").exists()


def test_a_signal_ends_a_real_making_and_leaves_nothing(clone: Clone) -> None:
    running = clone.start_invoke("build", "--runtime", "venv")
    running.wait_for(lambda: list(clone.path.glob(".lab-env/*/venv/bin/python")))
    running.send(signal.SIGTERM)
    ended = running.ended()
    assert ended.code == 130, ended
    assert [one.suffix for one in (clone.path / ".lab-env").iterdir()] == [".lock"]
    assert processes_of(clone) == []


def test_cuda_s_torch_is_hashed_and_rocm_s_comes_from_amd_s_index_alone() -> None:
    cuda = torch_source.arguments("cuda", "")
    assert cuda[:2] == ["--no-deps", "--require-hashes"]
    assert cuda[-1].endswith("docker/requirements-cuda.lock")
    rocm = torch_source.arguments("rocm", "gfx942")
    assert rocm[rocm.index("--index-url") + 1] == torch_source.ROCM_INDEX
    assert rocm[-1] == f"torch[device-gfx942]=={torch_source.VERSION}+rocm10.1.0"


def test_only_the_cpu_stack_hides_the_gpus(tmp_path: Path) -> None:
    assert Environment(tmp_path, "cpu").variables["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in Environment(tmp_path, "cuda").variables
