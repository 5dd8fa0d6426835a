"""Child processes: shown live, their last words kept, none outliving its block."""

import sys
import time
from pathlib import Path

from launcher import processes
from launcher.processes import show_and_keep, started

import pytest

PYTHON = [sys.executable, "-u", "-c"]


def test_what_it_prints_is_shown_and_kept_with_its_code(capfdbinary) -> None:
    code = "import sys; print('to out'); print('to err', file=sys.stderr); sys.exit(7)"
    assert show_and_keep([*PYTHON, code], {}) == (7, "to out\nto err\n")
    assert capfdbinary.readouterr().err == b"to out\nto err\n"


def test_only_the_end_of_much_output_is_kept(capfdbinary) -> None:
    code = "print('x' * 200_000); print('the end')"
    _, kept = show_and_keep([*PYTHON, code], {})
    assert kept.endswith("the end\n")
    assert len(kept) == processes.KEPT
    assert len(capfdbinary.readouterr().err) == 200_009


def test_bytes_that_are_no_text_do_no_harm(capfdbinary) -> None:
    code = "import sys; sys.stdout.buffer.write(b'a\\xffb')"
    ended, kept = show_and_keep([*PYTHON, code], {})
    assert (ended, kept) == (0, "a�b")
    assert capfdbinary.readouterr().err == b"a\xffb"


@pytest.mark.parametrize("stubborn", [False, True])
def test_no_child_outlives_its_block(monkeypatch, tmp_path: Path, stubborn: bool) -> None:
    monkeypatch.setattr(processes, "SECONDS_TO_END", 1 if stubborn else 60)
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if stubborn else ""
    code = f"import pathlib, signal, time; {ignore}pathlib.Path('ready').touch(); time.sleep(600)"
    with pytest.raises(KeyError), started([*PYTHON, code], cwd=tmp_path) as child:
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        raise KeyError
    assert child.returncode == (-9 if stubborn else -15)
