"""Which files a seat names: the largest of a quota, and the first to open; no server runs here."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from launcher import DOCKER_FOLDER

import pytest

MB = 2**20


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Import the module; Jupyter, which only the image has, is a stand-in."""
    jupyter: dict[str, dict[str, Any]] = {
        "jupyter_core.paths": {"jupyter_runtime_dir": str},
        "jupyter_server.base.handlers": {"JupyterHandler": object},
        "jupyter_server.utils": {"url_path_join": str},
        "tornado.web": {"authenticated": staticmethod},
    }
    for name, contents in jupyter.items():
        module = ModuleType(name)
        module.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("jupyter_core", "jupyter_server", "jupyter_server.base", "tornado"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.syspath_prepend(str(DOCKER_FOLDER))
    import seat_notes  # type: ignore[import-not-found]

    monkeypatch.setattr(seat_notes, "HOME", tmp_path)
    monkeypatch.setattr(seat_notes, "PROGRESS", tmp_path / "work" / "progress")
    monkeypatch.setattr(seat_notes, "FOLDERS", (tmp_path / "work", tmp_path / "outputs"))
    yield seat_notes
    sys.modules.pop("seat_notes")


def write(home: Path, name: str, size: int) -> None:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"1" * size)


def note(notes: Any) -> str:
    usage = notes.Usage(10 * MB)
    usage.measure()
    return usage.note


def test_the_largest_files_are_named_wherever_they_are(notes: Any, tmp_path: Path) -> None:
    write(tmp_path, "work/big", 6 * MB)
    write(tmp_path, "outputs/LLM06/2026-01-01/model", 3 * MB)
    write(tmp_path, "outputs/LLM06/2026-01-02/report.html", MB)
    write(tmp_path, "work/data/a/b/c/d/deep.bin", 2 * MB)
    text = note(notes)
    assert (
        "The largest: work/big 6 MB, outputs/LLM06/2026-01-01/model 3 MB, work/data/a/b 2" in text
    )
    assert text.endswith("Remove what you don't need, such as: rm -r work/big")


def test_a_name_with_spaces_is_quoted(notes: Any, tmp_path: Path) -> None:
    write(tmp_path, "work/my data/large file", 9 * MB)
    assert note(notes).endswith("such as: rm -r 'work/my data/large file'")


def test_a_folder_of_many_files_is_named_as_one(notes: Any, tmp_path: Path) -> None:
    for run in range(3):
        write(tmp_path, f"outputs/LLM06/run-{run}/model", 3 * MB)
    assert "The largest: outputs/LLM06 9 MB." in note(notes)


def test_files_below_a_megabyte_are_not_named(notes: Any, tmp_path: Path) -> None:
    write(tmp_path, "work/big", 9 * MB)
    write(tmp_path, "work/sheet.py", 4096)
    assert "The largest: work/big 9 MB. Remove" in note(notes)


def test_without_a_large_file_none_is_named(notes: Any, tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path, f"work/{number}", MB // 2)
    assert note(notes).endswith(
        "a seat that goes on writing is stopped. Remove what you don't need: rm -r FILE"
    )


def test_nothing_is_said_below_four_fifths_of_the_quota(notes: Any, tmp_path: Path) -> None:
    write(tmp_path, "work/big", 7 * MB)
    assert note(notes) == ""


def test_a_terminal_names_its_time_zone(notes: Any) -> None:
    assert notes._in_utc("at 2026-11-29T23:51:07Z. Save") == "at 23:51 UTC. Save"


def test_until_a_sheet_is_checked_a_note_names_what_to_open(notes: Any, tmp_path: Path) -> None:
    (without,) = notes._first_step().values()
    assert "such as labs/llm01_inference/lesson.py" in without
    assert "invoke learn LLM01" in without
    write(tmp_path, "work/llm01_inference.py", 1)
    os.utime(tmp_path / "work" / "llm01_inference.py", (1, 1))
    write(tmp_path, "work/llm06_attention_deeper.py", 1)
    write(tmp_path, "work/my_own.py", 1)
    (newest,) = notes._first_step().values()
    assert "open work/llm06_attention_deeper.py, your sheet of LLM06+." in newest
    assert "The lesson is labs/llm06_attention/deeper.py." in newest
    write(tmp_path, "work/progress/LLM06+.json", 1)
    assert notes._first_step() == {}
