"""What is left when the launcher, the engine or a child process is killed with KILL."""

import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.sheets import SENTINEL
from launcher.engine import orphans
from launcher.engine.client import Engine
from tests.conftest import SOMEBODY, Clone, Running, containers_of
from tests.launcher.gpu_host import Host

import pytest
from docker.errors import NotFound

WAITING = "print('begun', flush=True)\nwait_for('never')"


def kill(running: Running) -> None:
    """Kill the launcher alone; its children, if it has any, aren't signalled."""
    running.process.kill()
    running.process.wait()


def wait_until_it_ended(container: Any) -> int:
    """Return the exit code of a container, which must end long before its lab would."""
    return int(container.wait(timeout=30)["StatusCode"])


@pytest.mark.engine
@pytest.mark.parametrize("terminal", [None, (24, 80)], ids=["pipe", "terminal"])
def test_a_container_ends_with_its_killed_launcher_and_the_next_command_removes_it(
    clone: Clone, terminal: tuple[int, int] | None
) -> None:
    lab = clone.bare_lab(WAITING)
    running = clone.start_invoke("lab", lab, "--runtime", "docker", terminal=terminal)
    running.wait_for("begun")
    (container,) = containers_of(clone)
    kill(running)
    assert wait_until_it_ended(container) == 128 + signal.SIGTERM

    following = clone.invoke("images")
    assert f"Removed the container {container.name} of an earlier launch" in following.err
    assert containers_of(clone) == []
    assert list(clone.outputs.iterdir()) == []


@pytest.mark.engine
def test_a_lab_that_ignores_term_is_killed_with_its_launcher(clone: Clone) -> None:
    lab = clone.bare_lab("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAITING)
    running = clone.start_invoke("lab", lab, "--runtime", "docker")
    running.wait_for("begun")
    (container,) = containers_of(clone)
    kill(running)
    assert wait_until_it_ended(container) == 128 + signal.SIGKILL
    assert clone.invoke("images").code == 0


@pytest.mark.engine
def test_a_container_survives_a_stopped_launcher(clone: Clone) -> None:
    lab = clone.bare_lab("print('begun', flush=True)\nwait_for('go')\nprint('done')")
    running = clone.start_invoke("lab", lab, "--runtime", "docker")
    running.wait_for("begun")
    running.send(signal.SIGSTOP)
    time.sleep(1)
    (clone.outputs / "go").touch()
    (container,) = containers_of(clone)
    assert wait_until_it_ended(container) == 0
    assert "Removed" not in clone.invoke("images").err, "its launcher will remove it"
    running.send(signal.SIGCONT)
    ended = running.ended()
    assert ended.code == 0, ended
    assert ended.out == "begun\ndone\n"
    assert [one.name for one in clone.outputs.iterdir()] == ["go"]


@pytest.mark.engine
def test_a_container_that_outlives_its_launcher_is_named_at_the_next_command(clone: Clone) -> None:
    """Use a lab that ends the process that waits for the launcher's end."""
    lab = clone.bare_lab("""
me = os.getpid()
for status in pathlib.Path("/proc").glob("[0-9]*/status"):
    if f"PPid:\\t{me}\\n" in status.read_text():
        os.kill(int(status.parent.name), signal.SIGKILL)
print('begun', flush=True)
wait_for('go')
""")
    running = clone.start_invoke("lab", lab, "--runtime", "docker")
    running.wait_for("begun")
    (container,) = containers_of(clone)
    kill(running)
    following = clone.invoke("images")
    assert f"docker stop {container.name}" in following.err
    assert f"docker logs -f {container.name}" in following.err
    container.reload()
    assert container.status == "running"
    (clone.outputs / "go").touch()
    assert wait_until_it_ended(container) == 0
    assert "Removed the container" in clone.invoke("images").err


@pytest.mark.engine
def test_a_container_without_a_lock_is_left_to_its_launcher(
    engine: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """A launcher holds no lock if the disk is full. Use a container that was never started."""
    one = engine.containers.create("llm-labs:cpu", labels={orphans.LABEL: "LLM91"})
    try:
        orphans.clean_up(Engine(engine, rootless=False, root_dir=""))
        assert one.name not in capfd.readouterr().err
        one.reload()
    finally:
        one.remove(force=True)


@pytest.mark.engine
@pytest.mark.usefixtures("root")
def test_containers_of_a_killed_engine_are_removed_by_the_next_command(
    host: Host, small_clone: Clone
) -> None:
    lab = small_clone.bare_lab(WAITING)
    small_clone.give_to(SOMEBODY)
    running = host.invoke(small_clone, "lab", lab, "--runtime", "docker")
    running.wait_for("begun")
    host.stop(signal.SIGKILL)
    ended = running.ended()
    assert ended.code == 3, ended
    assert "The connection to the container engine broke" in ended.err
    host.start()
    (left,) = host.containers()
    following = host.invoke(small_clone, "images").ended()
    assert f"Removed the container {left.name} of an earlier launch" in following.err, following
    assert host.containers() == []


@pytest.mark.engine
@pytest.mark.usefixtures("root")
def test_ctrl_c_ends_a_lab_whose_engine_is_frozen(host: Host, small_clone: Clone) -> None:
    lab = small_clone.bare_lab(WAITING)
    small_clone.give_to(SOMEBODY)
    running = host.invoke(small_clone, "lab", lab, "--runtime", "docker")
    running.wait_for("begun")
    assert host.process is not None
    host.process.send_signal(signal.SIGSTOP)
    try:
        running.send(signal.SIGINT)
        ended = running.ended()
        assert ended.code == 130, ended
        assert "The container engine doesn't respond." in ended.err
    finally:
        host.process.send_signal(signal.SIGCONT)
    (left,) = host.containers()
    # A request that the engine got while it was frozen may remove the container late.
    with host.client() as client, suppress(NotFound):
        assert wait_until_it_ended(client.containers.get(left.id)) == 128 + signal.SIGTERM
    assert host.invoke(small_clone, "images").ended().code == 0
    assert host.containers() == []


# Processes of the environment

# The launcher's own way to start `python -m labs`.
LAUNCHES = """
import os, sys
from launcher.run.lab_command import labs_command
from common.processes import child_process
with child_process(labs_command(sys.argv[1:]), env=dict(os.environ)) as child:
    sys.exit(child.wait())
"""
WAITS = '''
@lab.experiment
def waits(run: Run):
    """It waits."""
    os.write(1, f"begun {os.environ.get('RANK')}\\n".encode())  # in one piece: another writes, too
    time.sleep(600)
'''
EXERCISE = '''
@lab.exercise(level=1, hints=("a", "b", "c"))
def add(a, b):
    """Return the sum."""
    return a + b
'''
CHECK = """
@checks.proves("add")
def add(module):
    if module.add(1, 2) != 3:
        raise Mistake("wrong")
"""


def processes_in(clone: Clone) -> list[str]:
    """Return the command lines of the processes whose folder is the clone."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink() == clone.path:
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


def check_everything_ends(
    running: Running, clone: Clone, processes: int, what: signal.Signals = signal.SIGKILL
) -> None:
    """End the launcher, and wait until none of its `processes` or more is left."""
    running.wait_for(lambda: len(processes_in(clone)) >= processes)
    running.send(what)
    for _ in range(300):
        if not processes_in(clone):
            return
        time.sleep(0.1)
    raise AssertionError(f"still running: {processes_in(clone)}")


def launch(clone: Clone, *words: str) -> Running:
    return clone.start(sys.executable, "-c", LAUNCHES, *words, PYTHONPATH=str(clone.path))


def test_labs_in_a_row_end_with_a_killed_launcher(clone: Clone) -> None:
    names = [clone.bare_lab(WAITING, name) for name in ("LLM91", "LLM92")]
    running = launch(clone, ",".join(names))
    running.wait_for("begun")
    check_everything_ends(running, clone, processes=3)


@pytest.mark.usefixtures("labs_home")
def test_the_processes_of_a_group_end_with_a_killed_launcher(clone: Clone) -> None:
    running = launch(clone, clone.kit_lab(WAITS), "--processes", "2")
    running.wait_for("begun 0")
    running.wait_for("begun 1")
    check_everything_ends(running, clone, processes=4)


@pytest.mark.parametrize(
    ("options", "what"),
    [((), signal.SIGINT), (("--watch",), signal.SIGKILL)],
    ids=["check is interrupted", "watch is killed"],
)
def test_a_check_of_a_sheet_that_hangs_ends_with_its_launcher(
    clone: Clone, options: tuple[str, ...], what: signal.Signals
) -> None:
    lab = clone.kit_lab(EXERCISE, checks=CHECK)
    assert clone.labs("learn", lab).code == 0
    (sheet,) = (clone.path / "work").glob("*.py")
    sheet.write_text(sheet.read_text().replace(SENTINEL, "import time; time.sleep(600)"))
    running = launch(clone, "check", lab, *options)
    check_everything_ends(running, clone, processes=3, what=what)
