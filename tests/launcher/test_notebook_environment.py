"""JupyterLab without a container engine: on top of the labs' environment, which it leaves alone."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import Clone
from tests.launcher.test_notebook import (
    LESSON,
    Notebook,
    addresses_of_this_machine,
    is_refused,
    run_to_the_figure,
    start,
)

import pytest


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the size and the time of each file but bytecode, which any run may write."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if not path.is_dir() and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module")
def packages(lab_environment: Path) -> dict[str, tuple[int, int]]:
    """Return the files of the labs' environment from before the notebook."""
    return files_below(lab_environment / "venv")


@pytest.fixture(scope="module")
def notebook(shared_clone: Clone, packages: dict[str, tuple[int, int]]) -> Iterator[Notebook]:
    """Serve the notebooks of the clone that has the environment."""
    del packages
    served = start(shared_clone, "2", "--runtime", "venv")
    yield served
    served.running.close()


def processes_of(clone: Clone) -> list[str]:
    """Return the command lines that contain the clone's path."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if f"{clone.path}/.lab-env" in line]


def test_it_serves_the_lessons_to_this_machine_alone(notebook: Notebook) -> None:
    assert notebook.link.startswith(f"{notebook.server}/lab/tree/{LESSON}?token=")
    assert notebook.open(LESSON)["writable"] is False
    assert notebook.save(LESSON, notebook.open(LESSON)["content"])[0] == 403
    assert notebook.ask("/api/contents", Authorization="token wrong")[0] == 403
    others = addresses_of_this_machine()
    assert others
    assert [one for one in others if not is_refused(one, notebook.port)] == []


def test_the_environment_of_the_labs_is_left_as_it_was(
    notebook: Notebook, lab_environment: Path, packages: dict[str, tuple[int, int]]
) -> None:
    del notebook
    assert packages
    assert files_below(lab_environment / "venv") == packages


def test_in_a_browser_a_lesson_runs_and_draws_its_figure(notebook: Notebook, browser: Any) -> None:
    before = {*notebook.clone.outputs.glob("LLM02/*/log.txt")}  # other tests share this clone
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(notebook.link)
    run_to_the_figure(page, (notebook.clone.path / LESSON).read_text(encoding="utf-8"))
    (log,) = {*notebook.clone.outputs.glob("LLM02/*/log.txt")} - before
    assert "✓" in log.read_text()
    page.context.close()


def test_ctrl_c_leaves_no_process_and_the_next_start_installs_nothing(
    notebook: Notebook, shared_clone: Clone
) -> None:
    assert processes_of(shared_clone)
    notebook.running.send(signal.SIGINT)
    ended = notebook.running.ended()
    assert ended.code == 130, ended
    assert processes_of(shared_clone) == []
    assert is_refused("127.0.0.1", notebook.port)
    again = start(shared_clone, "--runtime", "venv")
    assert "Installing" not in again.running.text
    again.running.send(signal.SIGTERM)
    assert again.running.ended().code == 130
    assert processes_of(shared_clone) == []


def test_a_failed_installation_is_a_card_and_leaves_nothing(
    shared_clone: Clone, lab_environment: Path, tmp_path: Path
) -> None:
    offline = {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1", "LABS_WHEELS": str(tmp_path)}
    lock = shared_clone.path / "docker" / "requirements-notebook.lock"
    text = lock.read_text()
    lock.write_text(text + "\n# another lock\n")
    try:
        cache = {"UV_CACHE_DIR": str(tmp_path / "cache"), "PIP_NO_CACHE_DIR": "1"}
        ended = shared_clone.invoke(
            "notebook", "--runtime", "venv", **offline, **cache, PIP_FIND_LINKS=None
        )
    finally:
        lock.write_text(text)
    assert ended.code == 3, ended
    assert "what: " in ended.err and "Traceback" not in ended.err
    assert list(lab_environment.glob("notebook-*/")) == []
    assert os.access(lab_environment / "home" / "stack.json", os.R_OK)
