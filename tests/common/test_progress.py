"""The progress files: two windows can write at once, and a reader sees only complete files."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from common import progress
from common.cards import Card
from tests.conftest import REPO

import pytest

COUNTS = """
import sys
from pathlib import Path
from common import progress
for number in range(40):
    with progress.changing("LLM90", Path(sys.argv[1])) as record:
        part = record.of(sys.argv[2])
        part.tries += 1
        record.of("both").tries += 1
"""


def test_two_windows_at_once_lose_nothing_and_no_reader_sees_half_a_file(tmp_path: Path) -> None:
    """Four processes count in the same file, while a thread reads it all the time."""
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            seen.append(progress.read("LLM90", tmp_path).of("both").tries)

    reader = threading.Thread(target=read)
    reader.start()
    writers = [
        subprocess.Popen([sys.executable, "-c", COUNTS, str(tmp_path), str(n)], cwd=REPO)
        for n in range(4)
    ]
    codes = [writer.wait() for writer in writers]
    done.set()
    reader.join()
    assert codes == [0] * 4
    record = progress.read("LLM90", tmp_path)
    assert record.of("both").tries == 160
    assert [record.of(str(n)).tries for n in range(4)] == [40] * 4
    assert seen == sorted(seen)
    assert len(set(seen)) > 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".LLM90.lock", "LLM90.json"]


def test_an_error_during_a_change_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    with progress.changing("LLM90", tmp_path) as record:
        record.of("add").tries = 3
    with pytest.raises(KeyError), progress.changing("LLM90", tmp_path) as record:
        record.of("add").tries = 4
        raise KeyError
    assert progress.read("LLM90", tmp_path).of("add").tries == 3


@pytest.mark.parametrize("text", ["", "{", "[]", '{"parts": {}}', '{"parts": {"add": {"odd": 1}}}'])
def test_a_damaged_file_is_a_card_and_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "LLM90.json").write_text(text)
    for use in (lambda: progress.read("LLM90", tmp_path), lambda: change(tmp_path)):
        with pytest.raises(Card) as caught:
            use()
        assert "LLM90.json is damaged" in caught.value.what
    assert (tmp_path / "LLM90.json").read_text() == text


@pytest.mark.parametrize(
    "name", [".LLM90.lock", f"LLM90.{os.getpid()}.part"], ids=["the lock", "the new file"]
)
def test_a_link_in_the_folder_is_not_followed(tmp_path: Path, name: str) -> None:
    mine = tmp_path / "mine"
    mine.write_text("a file of the learner")
    folder = tmp_path / "progress"
    folder.mkdir()
    (folder / name).symlink_to(mine)
    with pytest.raises(Card, match="Your progress can't be written"):
        change(folder)
    assert mine.read_text() == "a file of the learner"


def change(folder: Path) -> None:
    with progress.changing("LLM90", folder) as record:
        record.of("add").tries = 1


def test_an_exercise_that_passed_once_stays_done() -> None:
    part = progress.Part()
    assert part.state == "not started"
    part.add_try("wrong", right=False)
    part.add_try("wrong", right=False)
    assert (part.state, part.tries) == ("tried", 1)
    part.add_try("right", right=True)
    when = part.done
    part.add_try("broken again", right=False)
    assert (part.state, part.tries, part.done) == ("done", 2, when)
    assert when


def test_a_learner_asks_for_two_hints_at_most() -> None:
    part = progress.Part()
    counts = []
    for _ in range(4):
        counts.append(part.requested_hints)
        part.add_hint()
    assert counts == [0, 1, 2, 2]


def test_the_best_run_passes_most_then_has_most_own_parts_then_is_fastest() -> None:
    record = progress.Record()
    runs = [
        {"passed": 2, "of": 3, "yours": 2, "seconds": 1.0},
        {"passed": 3, "of": 3, "yours": 1, "seconds": 9.0},
        {"passed": 3, "of": 3, "yours": 2, "seconds": 8.0},
        {"passed": 3, "of": 3, "yours": 2, "seconds": 7.0},
    ]
    for run in [*runs, runs[0]]:
        record.add_run(run)
    assert record.best == runs[3]
    assert record.last == runs[0]


def test_a_run_that_crashed_is_not_the_best() -> None:
    record = progress.Record()
    whole = {"passed": 24, "of": 24, "yours": 7, "seconds": 60.0}
    record.add_run(whole)
    record.add_run({"passed": 22, "of": 22, "yours": 7, "seconds": 44.0})
    assert record.best == whole


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    with progress.changing("LLM90", tmp_path) as record:
        record.of("add").add_try("text", right=True)
    data = json.loads((tmp_path / "LLM90.json").read_text())
    assert data["lab"] == "LLM90"
    assert data["parts"]["add"]["tries"] == 1


def test_both_sittings_of_a_lab_have_their_own_file(tmp_path: Path) -> None:
    for lab in ("LLM90", "LLM90+"):
        with progress.changing(lab, tmp_path) as record:
            record.of(lab).tries = 1
    assert list(progress.read("LLM90", tmp_path).parts) == ["LLM90"]
    assert list(progress.read("LLM90+", tmp_path).parts) == ["LLM90+"]
