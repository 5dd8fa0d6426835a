"""What is left when the launcher, the engine or a child process is killed with KILL."""

import signal
import time
from pathlib import Path
from typing import Any

from tests.conftest import SOMEBODY, Clone, Running, containers_of
from tests.launcher.gpu_host import Host
from tests.launcher.test_interrupts import gone, is_running

import pytest

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
    with host.client() as client:
        assert wait_until_it_ended(client.containers.get(left.id)) == 128 + signal.SIGTERM
    assert "Removed the container" in host.invoke(small_clone, "images").ended().err


# Processes of the environment


def test_a_child_of_a_killed_launcher_ends_with_it(clone: Clone, tmp_path: Path) -> None:
    """Use the function by which the launcher starts `python -m labs`."""
    word = f"sleeper-{tmp_path.name}"
    child = f"import time; time.sleep(600)  # {word}"
    parent = (
        "import sys; from launcher.processes import child_process\n"
        f"with child_process([sys.executable, '-c', {child!r}]) as child:\n"
        "    print('begun', flush=True); child.wait()"
    )
    running = clone.start("python3", "-c", parent, PYTHONPATH=str(clone.path))
    running.wait_for("begun")
    assert is_running(word)
    kill(running)
    assert gone(word), is_running(word)
