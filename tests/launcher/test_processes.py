"""Child processes: their output is shown and captured, and they end with their block."""

import sys
import time
from pathlib import Path

from common import processes
from common.processes import child_process, show_output

import pytest

PYTHON = [sys.executable, "-u", "-c"]


def test_output_is_shown_and_returned_with_the_exit_code(capfdbinary) -> None:
    code = "import sys; print('to out'); print('to err', file=sys.stderr); sys.exit(7)"
    assert show_output([*PYTHON, code], {}) == (7, "to out\nto err\n")
    assert capfdbinary.readouterr().err == b"to out\nto err\n"


def test_only_the_end_of_long_output_is_returned(capfdbinary) -> None:
    code = "print('x' * 200_000); print('the end')"
    _, tail = show_output([*PYTHON, code], {})
    assert tail.endswith("the end\n")
    assert len(tail) == processes.TAIL_BYTES
    assert len(capfdbinary.readouterr().err) == 200_009


def test_invalid_utf8_is_shown_unchanged(capfdbinary) -> None:
    code = "import sys; sys.stdout.buffer.write(b'a\\xffb')"
    ended, tail = show_output([*PYTHON, code], {})
    assert (ended, tail) == (0, "a�b")
    assert capfdbinary.readouterr().err == b"a\xffb"


@pytest.mark.parametrize("stubborn", [False, True])
def test_no_child_process_outlives_its_block(monkeypatch, tmp_path: Path, stubborn: bool) -> None:
    monkeypatch.setattr(processes, "SECONDS_TO_END", 1 if stubborn else 60)
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if stubborn else ""
    code = f"import pathlib, signal, time; {ignore}pathlib.Path('ready').touch(); time.sleep(600)"
    with pytest.raises(KeyError), child_process([*PYTHON, code], cwd=tmp_path) as child:
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        raise KeyError
    assert child.returncode == (-9 if stubborn else -15)
