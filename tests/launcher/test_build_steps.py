"""A build's steps: a bar or plain lines, a log, and a card for a step that fails."""

import signal
import sys
from pathlib import Path

from common.cards import Card
from launcher.environment import install_meter
from launcher.image.build_steps import Step, run_build
from launcher.image.meter import image_meter
from launcher.run.file_owner import file_owner
from tests.conftest import REPO, Running

import pytest

SHOW_CURSOR = "\x1b[?25h"
FULL = "import os; os.write(os.open('/dev/full', os.O_WRONLY), b'x')"
# Two steps; the second one waits for a signal.
BUILD = """
import sys
from pathlib import Path
from launcher.image.build_steps import Step, run_build
from launcher.run.file_owner import file_owner
from common.interrupts import Interrupted, Interrupts
waits = "import time; print('begun', flush=True); time.sleep(600 if 'wait' in sys.argv else 0)"
waits = waits.replace("'wait' in sys.argv", repr("wait" in sys.argv))
steps = [Step("The first", ["true"]), Step("The second", [sys.executable, "-c", waits])]
try:
    with Interrupts():
        run_build(Path(sys.argv[1]), file_owner(), "It failed.", steps)
except Interrupted:
    sys.exit(130)
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def build(tmp_path: Path, *steps: Step) -> None:
    run_build(tmp_path / "build.log", file_owner(), "It failed.", steps)


def test_a_pipe_gets_a_line_for_each_step_and_the_log_has_the_rest(tmp_path: Path, capsys) -> None:
    first = Step("The first", python("print('out')"))
    second = Step("The second", python("import os; print(os.environ['A'])"), variables={"A": "b"})
    build(tmp_path, first, Step("", ["true"]), second)
    printed = capsys.readouterr().err
    assert printed.startswith("  The first\n  The second\nDone in ")
    log = (tmp_path / "build.log").read_text()
    assert "\nout\n" in log and "\n$ env A=b " in log and log.endswith("\nb\n")


def test_a_failed_step_is_a_card_with_its_last_lines_and_the_log(tmp_path: Path) -> None:
    code = "for n in range(20): print('line', n)\nprint('10%\\r100%')\nraise SystemExit(1)"
    never = tmp_path / "never"
    with pytest.raises(Card) as caught:
        build(tmp_path, Step("The first", python(code)), Step("", ["touch", str(never)]))
    lines = [f"  line {n}" for n in range(15, 20)]
    log = tmp_path / "build.log"
    expected = ["100%", f"The last lines of {log}:", *lines, "  100%"]
    assert caught.value.what == "It failed."
    assert caught.value.why.splitlines()[-len(expected) + 1 :] == expected[1:]
    assert not never.exists()


def test_a_full_disk_is_a_card_even_if_the_log_cannot_be_written() -> None:
    with pytest.raises(Card) as caught:
        run_build(Path("/dev/full"), file_owner(), "It failed.", [Step("First", python(FULL))])
    assert caught.value.what == "The disk is full."
    assert "No space left on device" in caught.value.why


def test_a_build_goes_on_without_a_log(capsys) -> None:
    run_build(Path("/proc/none/build.log"), file_owner(), "It failed.", [Step("First", ["true"])])
    printed = capsys.readouterr().err
    assert printed.startswith("  First\nDone in ")
    assert "log" not in printed


@pytest.mark.parametrize("wait", [False, True])
def test_a_terminal_gets_a_bar_and_its_cursor_back(tmp_path: Path, wait: bool) -> None:
    log = tmp_path / "build.log"
    words = [sys.executable, "-c", BUILD, str(log), *(["wait"] if wait else [])]
    with Running(words, (40, 100), cwd=REPO, env={"TERM": "xterm"}) as running:
        running.wait_for("The second")
        if wait:
            running.wait_for(lambda: "begun" in log.read_text())
            running.send(signal.SIGTERM)
        assert running.ended().code == (130 if wait else 0)
        assert "━" in running.text
        assert running.text.rindex(SHOW_CURSOR) > running.text.rindex("The second")
        assert ("The log is" in running.text) == (not wait)


# How far a step is


def test_uv_s_downloads_are_weighed_by_their_size() -> None:
    read = install_meter.meter(3)
    assert read("Resolved 3 packages in 298ms") is None
    assert read("Downloading numpy (30.0MiB)") == 0
    assert read("Downloading torch (90.0MiB)") == 0
    assert read(" Downloaded torch") == pytest.approx(0.6)
    assert read(" Downloaded numpy") == pytest.approx(0.8)


def test_pip_s_packages_are_counted() -> None:
    read = install_meter.meter(4)
    assert read("Collecting numpy==2.4.6") == pytest.approx(0.2)
    assert read("  Downloading numpy-2.4.6.whl (16.9 MB)") is None
    assert read("Collecting torch") == pytest.approx(0.4)


def test_buildkit_s_stages_have_titles_and_their_usual_share() -> None:
    read = image_meter()
    assert read("#8 [cpu base 1/2] FROM registry.example/library/ubuntu") == (
        "Python and certificates, from the distribution"
    )
    assert read("#9 [cpu base 2/2] RUN apt-get") is None, "a title is shown once"
    first = read("#8 DONE 0.3s")
    assert read("#9 CACHED") == pytest.approx(2 * first)
    assert read("#10 [torch-cpu 1/1] RUN . /build.sh") == "torch"
    assert read("#10 12.3 Collecting torch") is None
    assert read("#11 exporting to image") == "The image's layers"


def test_podman_s_steps_are_counted() -> None:
    read = image_meter()
    assert read("STEP 3/5: RUN true") == pytest.approx(0.4)
    assert read("[2/4] STEP 1/5: RUN true") == pytest.approx(0.25)
