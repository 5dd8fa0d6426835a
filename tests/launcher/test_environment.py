"""The environment: created once, completely or not at all, and again after the lock changes."""

import json
import os
import re
import shutil
import signal
import socket
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

from common.cards import Card
from launcher.environment import make as environment
from launcher.environment import torch_source
from launcher.environment.make import Environment
from tests.conftest import Clone, Running

import pytest

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
Disk = namedtuple("Disk", "total used free")

# An environment whose build the test controls. The first step writes the file `begun` and waits for
# the file `go`; the last step writes stack.json. With `use`, the environment is then in use until
# the file `done` exists.
QUICK = """
import sys, time, pathlib
from launcher.environment import make as environment
from launcher.image.build import Step
from launcher.run.file_owner import file_owner
from common.cards import Card
from common.interrupts import Interrupted, Interrupts

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
END = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('{}')"

def steps(target):
    fails = [Step("A step that fails", [sys.executable, "-c", "import sys; sys.exit('it failed')"])]
    return [
        Step("A step that waits", [sys.executable, "-c", BEGIN, str(target.folder)]),
        *(fails if "fail" in sys.argv else []),
        Step("", ["install", "-D", "/bin/true", str(target.python)]),
        Step("", [sys.executable, "-c", END, str(target.home / "stack.json")]),
    ]

environment.build_steps = steps
try:
    required = environment.required_environment("cpu")
    with Interrupts(), environment.ready(required, file_owner()):
        print("ready", required.is_complete, required.folder.name, flush=True)
        while "use" in sys.argv and not pathlib.Path("done").exists():
            time.sleep(0.05)
except Interrupted:
    sys.exit(130)
except Card as card:
    card.show()
    sys.exit(card.code)
"""


class Quick:
    """A clone whose environment QUICK creates."""

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


def test_two_processes_create_one_environment(quick: Quick) -> None:
    first = quick.start()
    first.wait_for(quick.begun)
    second = quick.start()
    second.wait_for("Another process is creating the environment")
    quick.say("go")
    for one in (first, second):
        ended = one.ended()
        assert ended.code == 0, ended
        assert ended.out.startswith("ready True"), ended
    assert (quick.clone.path / "begun").read_text() == "once "


def test_who_has_waited_for_an_environment_begins_while_the_other_still_uses_it(
    quick: Quick,
) -> None:
    first = quick.start("use")
    first.wait_for(quick.begun)
    second = quick.start()
    second.wait_for("Another process is creating the environment")
    quick.say("go")
    assert second.ended().code == 0
    assert first.process.poll() is None
    quick.say("done")
    assert first.ended().code == 0


def test_a_complete_environment_is_reused(quick: Quick) -> None:
    quick.say("go")
    assert quick.start().ended().code == 0
    again = quick.start().ended()
    assert again.code == 0, again
    assert "Creating" not in again.err
    assert (quick.clone.path / "begun").read_text() == "once "


def test_a_killed_build_is_started_over(quick: Quick) -> None:
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
    assert "The environment is incomplete or damaged" in ended.err
    assert not (half / "venv" / "half").exists()


@pytest.mark.parametrize("what", SIGNALS, ids=lambda one: one.name)
def test_a_signal_during_the_build_leaves_no_files(quick: Quick, what: signal.Signals) -> None:
    running = quick.start()
    running.wait_for(quick.begun)
    running.send(what)
    ended = running.ended()
    assert ended.code == 130, ended
    assert quick.folders == []
    assert processes_of(quick.clone) == []


def test_a_failed_step_leaves_no_files_and_ends_in_a_card(quick: Quick) -> None:
    quick.say("go")
    ended = quick.start("fail").ended()
    assert ended.code == 3, ended
    assert "\n  A step that waits\n  A step that fails\nit failed\n" in ended.err
    assert "what: The environment couldn't be created." in ended.err
    assert "why: it failed\n" in ended.err
    assert "fix: read the lines above; invoke build --runtime venv --stack cpu tries" in ended.err
    assert quick.folders == []


def test_a_changed_lock_replaces_the_environment(quick: Quick) -> None:
    quick.say("go")
    assert quick.start().ended().code == 0
    (old,) = quick.folders
    with (quick.clone.path / "docker" / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert quick.start().ended().code == 0
    (new,) = quick.folders
    assert new != old


def test_an_environment_in_use_is_not_removed(quick: Quick) -> None:
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


@pytest.mark.parametrize("name", ["venv/bin/python", "home/stack.json"])
def test_a_damaged_environment_is_made_again(quick: Quick, name: str) -> None:
    quick.say("go")
    assert quick.start().ended().code == 0
    (folder,) = quick.folders
    (folder / name).unlink()
    (folder / name).write_text("{")
    again = quick.start().ended()
    assert again.code == 0, again
    assert "The environment is incomplete or damaged" in again.err
    assert again.out.startswith("ready True")


def test_downloads_that_no_environment_shares_are_removed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(environment, "CACHE", tmp_path)
    for name in ("used", "unused"):
        info = tmp_path / "archive-v0" / name / f"{name}-1.dist-info"
        info.mkdir(parents=True)
        (info / "RECORD").touch()
    os.link(tmp_path / "archive-v0" / "used" / "used-1.dist-info" / "RECORD", tmp_path / "linked")
    environment._remove_unused_downloads()
    assert [path.name for path in (tmp_path / "archive-v0").iterdir()] == ["used"]


# The source of torch


@pytest.fixture
def silent_index(monkeypatch) -> Iterator[str]:
    """Start an index on this machine that accepts connections and never responds."""
    monkeypatch.delenv("LABS_WHEELS", raising=False)
    monkeypatch.setattr(torch_source, "SECONDS_TO_CONNECT", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        index = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("LABS_TORCH_INDEX", index)
        yield index


def test_an_index_that_never_responds_is_replaced_by_the_default_index(
    silent_index: str, capsys
) -> None:
    assert torch_source.cpu_source() == []
    said = capsys.readouterr().err
    assert f"{silent_index} is unreachable" in said
    assert "default index" in said


def test_a_reachable_index_is_used(tmp_path: Path, monkeypatch) -> None:
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
def test_an_unreachable_index_is_replaced_by_the_default_index(monkeypatch, index: str) -> None:
    monkeypatch.delenv("LABS_WHEELS", raising=False)
    monkeypatch.setenv("LABS_TORCH_INDEX", index)
    assert torch_source.cpu_source() == []


def test_a_torch_wheel_on_disk_takes_precedence_over_any_index(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / f"torch-{torch_source.torch_version()}+cpu-cp311-cp311-linux_x86_64.whl").touch()
    monkeypatch.setenv("LABS_WHEELS", str(tmp_path))
    source = torch_source.cpu_source()
    assert "--no-index" in source
    steps = environment.steps(Environment(tmp_path / "cpu-0", "cpu"))
    (torch,) = [step for step in steps if f"torch=={torch_source.torch_version()}" in step]
    assert torch[torch.index("--find-links") + 1] == str(tmp_path)


def test_the_lock_is_installed_with_hashes_and_without_dependencies(tmp_path: Path) -> None:
    steps = environment.steps(Environment(tmp_path / "cpu-0", "cpu"))
    (lock,) = [step for step in steps if "--require-hashes" in step]
    assert "--no-deps" in lock
    assert lock[lock.index("--requirement") + 1].endswith("docker/requirements.lock")
    assert steps[-1][1].endswith("docker/stack.py"), "the step that marks it as complete comes last"


# Refusals


def test_a_full_disk_is_reported_before_the_build(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(10**11, 10**11 - 10**9, 10**9))
    with pytest.raises(Card) as caught:
        environment._check_disk_space(3)
    assert "disk space" in caught.value.what
    assert "1.0 GB free" in caught.value.why


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_an_unsupported_python_is_a_card(monkeypatch, version: tuple[int, int]) -> None:
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    with pytest.raises(Card) as caught:
        environment.required_environment("cpu")
    assert f"Python {version[0]}.{version[1]} can't run the labs." == caught.value.what


# The real environment


def test_the_real_environment_runs_a_lab(shared_clone: Clone, lab_environment: Path) -> None:
    lab = shared_clone.kit_lab('''
@lab.experiment
def models(run: Run):
    """The models exist and can be opened."""
    from transformers import AutoTokenizer
    words = AutoTokenizer.from_pretrained(assets.smollm2())("a few words").input_ids
    run.check("tokens", len(words), at_least=3)
    run.check("threads sleep while they wait", os.environ["OMP_WAIT_POLICY"], equals="PASSIVE")
''')
    ended = shared_clone.invoke("lab", lab, "--runtime", "venv")
    assert ended.code == 0, ended
    assert "Creating" not in ended.err
    assert "in an environment" in ended.err
    (results,) = shared_clone.outputs.glob("LLM90/*/results.json")
    stack = json.loads(results.read_text())["environment"]["stack"]
    assert stack == json.loads((lab_environment / "home" / "stack.json").read_text())
    assert stack["stack"] == "cpu" and len(stack["lock"]) == 64


@pytest.mark.usefixtures("lab_environment")
@pytest.mark.parametrize("code", [1, 2, 137])
def test_the_real_environment_returns_the_exit_code_of_a_lab(
    shared_clone: Clone, code: int
) -> None:
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
    begun = running.wait_for(lambda: re.search(r"begun (\d+)\s", running.out))
    process = int(begun[1])
    running.send(what)
    ended = running.ended()
    assert ended.code == 130, ended
    assert "Traceback" not in ended.err
    assert not Path(f"/proc/{process}").exists()


def test_a_signal_ends_a_real_build_and_leaves_no_files(clone: Clone) -> None:
    running = clone.start_invoke("build", "--runtime", "venv")
    running.wait_for(lambda: list(clone.path.glob(".lab-env/*/venv/bin/python")))
    running.send(signal.SIGTERM)
    ended = running.ended()
    assert ended.code == 130, ended
    left = {one.suffix or one.name for one in (clone.path / ".lab-env").iterdir()}
    assert left <= {".lock", "cache"}
    assert processes_of(clone) == []


def test_cuda_torch_is_hashed_and_rocm_torch_comes_from_amd_only() -> None:
    cuda = torch_source.pip_arguments("cuda", "")
    assert cuda[:2] == ["--no-deps", "--require-hashes"]
    assert cuda[-1].endswith("docker/requirements-cuda.lock")
    rocm = torch_source.pip_arguments("rocm", "gfx942")
    assert rocm[rocm.index("--index-url") + 1] == torch_source.rocm_index()
    assert rocm[-1] == f"torch[device-gfx942]=={torch_source.torch_version()}+rocm10.1.0"


def test_only_the_cpu_stack_hides_the_gpus(tmp_path: Path) -> None:
    assert Environment(tmp_path, "cpu").variables["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in Environment(tmp_path, "cuda").variables
