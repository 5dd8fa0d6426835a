"""The process of a sheet's experiments: its command line, its variables, what it may open."""

import argparse
import os
from pathlib import Path
from typing import Any

from common.options import Settings
from common.syllabus import lessons
from labs.kit.run import sheet_process
from labs.kit.sandbox import landlock

import pytest


def test_the_options_of_every_lab_are_passed_on() -> None:
    settings = Settings(seed=7, size="small", online=True, sheet=Path("work/a.py"))
    words = sheet_process._common_words(settings)
    assert words == ["--size=small", "--seed=7", "--online", "--sheet=work/a.py"]


def test_variables_with_secrets_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "GITHUB_TOKEN", "MY_PASSWORD", "AWS_SECRET_ACCESS_KEY", "API_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("KEYBOARD", "qwerty")
    found = sheet_process._variables("/tmp/x", Settings())
    assert "secret" not in found.values()
    assert found["KEYBOARD"] == "qwerty"
    assert found["HOME"] == found["TMPDIR"] == "/tmp/x"


def test_files_that_the_options_name_may_be_read(tmp_path: Path) -> None:
    (tmp_path / "sheet.py").touch()
    own = argparse.Namespace(model=str(tmp_path), corpus=None, steps=3, word="no/such/file")
    settings = Settings(sheet=tmp_path / "sheet.py", own=own)
    assert sheet_process._named_files(settings) == [tmp_path / "sheet.py", tmp_path]


def test_a_kernel_without_landlock_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Any] = []

    def wait_for(process: Any, seconds: float, _stop: Any) -> int:
        started.append(seconds)
        process.kill()
        return int(process.wait() and 1)

    monkeypatch.setattr(landlock, "version", lambda: 0)
    monkeypatch.setattr(sheet_process, "_wait_for", wait_for)
    monkeypatch.chdir(tmp_path)
    sheet = tmp_path / "sheet.py"
    sheet.touch()
    settings = Settings(sheet=sheet, outputs=tmp_path / "outputs", only="one")
    assert sheet_process.run(lessons()[0], settings, [], 5.0) == 1
    assert started == [5.0]
    shown = " ".join(capsys.readouterr().out.split())
    assert "can read and change all files that you can" in shown
    assert os.environ.get(sheet_process.INSIDE) is None
