"""Progress: plain files that two windows can write at once; a learner's, and a class's."""

import csv
import io
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from labs.course import progress
from labs.course.cards import Card
from tests.conftest import REPO, Clone

import pytest

COUNTS = """
import sys
from pathlib import Path
from labs.kit import progress
for number in range(40):
    with progress.changing("LLM90", Path(sys.argv[1])) as record:
        part = record.of(sys.argv[2])
        part.tries += 1
        record.of("both").tries += 1
"""


def test_two_windows_at_once_lose_nothing_and_no_reader_sees_half_a_file(tmp_path: Path) -> None:
    """Four real processes count in one file, while a thread reads it all the time."""
    done, seen = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            seen.append(progress.read("LLM90", tmp_path).of("both").tries)

    reader = threading.Thread(target=read)
    reader.start()
    writers = [
        subprocess.Popen([sys.executable, "-c", COUNTS, str(tmp_path), str(n)], cwd=REPO)
        for n in range(4)
    ]
    codes = [one.wait() for one in writers]
    done.set()
    reader.join()
    assert codes == [0] * 4
    record = progress.read("LLM90", tmp_path)
    assert record.of("both").tries == 160
    assert [record.of(str(n)).tries for n in range(4)] == [40] * 4
    assert seen == sorted(seen) and len(set(seen)) > 1
    assert sorted(one.name for one in tmp_path.iterdir()) == [".LLM90.lock", "LLM90.json"]


def test_an_error_while_it_is_changed_leaves_it_as_it_was(tmp_path: Path) -> None:
    with progress.changing("LLM90", tmp_path) as record:
        record.of("add").tries = 3
    with pytest.raises(KeyError), progress.changing("LLM90", tmp_path) as record:
        record.of("add").tries = 4
        raise KeyError
    assert progress.read("LLM90", tmp_path).of("add").tries == 3


@pytest.mark.parametrize("text", ["", "{", "[]", '{"parts": {}}', '{"parts": {"add": {"odd": 1}}}'])
def test_a_damaged_file_is_a_card_and_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "LLM90.json").write_text(text)
    for work in (lambda: progress.read("LLM90", tmp_path), lambda: change(tmp_path)):
        with pytest.raises(Card) as caught:
            work()
        assert "LLM90.json can't be understood" in caught.value.what
    assert (tmp_path / "LLM90.json").read_text() == text


def change(folder: Path) -> None:
    with progress.changing("LLM90", folder) as record:
        record.of("add").tries = 1


def test_what_passed_once_stays_done() -> None:
    part = progress.Part()
    assert part.state == "not started"
    part.tried("wrong", right=False)
    part.tried("wrong", right=False)
    assert (part.state, part.tries) == ("tried", 1)
    part.tried("right", right=True)
    when = part.done
    part.tried("broken again", right=False)
    assert (part.state, part.tries, part.done) == ("done", 2, when)
    assert when


def noted(school: Clone, folder: str, **parts: progress.Part) -> None:
    with progress.changing("LLM90", school.path / folder) as record:
        record.parts = {name.replace("_", "."): one for name, one in parts.items()}


DONE, TRIED = progress.Part("2026-11-26T10:00:00+00:00", 2, "x", 3), progress.Part("", 1, "y")


def test_what_was_done_tried_and_not_started_is_told_with_the_next_thing(school: Clone) -> None:
    first = school.labs("progress")
    assert first.code == 0, first
    assert "0 of 2" in first.out and "Next: invoke learn LLM90" in first.out
    school.labs("learn", "LLM90")
    assert "Next: write add in work/llm90_small.py" in school.labs("progress").out
    noted(school, "work/progress", add=DONE, Counter_count=TRIED)
    ended = school.labs("progress")
    assert "1 of 2" in ended.out
    assert "✓ add  2 tries, 2 hints asked for" in ended.out
    assert "✗ Counter.count  1 try" in ended.out
    assert "Next: mend Counter.count in work/llm90_small.py, then invoke check LLM90" in ended.out
    noted(school, "work/progress", add=DONE, Counter_count=DONE)
    assert "Next: invoke check LLM90, which runs its experiments" in school.labs("progress").out
    with progress.changing("LLM90", school.path / "work" / "progress") as record:
        record.best = {"passed": 3, "of": 3, "yours": 2, "seconds": 1.5, "report": "x"}
    assert "every exercise of every lab is done" in school.labs("progress").out


def test_the_best_run_is_shown(school: Clone) -> None:
    best = {"passed": 3, "of": 3, "yours": 2, "seconds": 1.5, "report": "x"}
    with progress.changing("LLM90", school.path / "work" / "progress") as record:
        record.best = best
    assert "3 of 3 checks, 2 of the parts yours, 2 s" in school.labs("progress").out


def test_a_class_is_a_table_and_csv(school: Clone) -> None:
    noted(school, "class/ada/work/progress", add=DONE, Counter_count=DONE)
    noted(school, "class/bob/progress", add=TRIED)
    (school.path / "class" / "notes").mkdir()
    (school.path / "class" / "cleo").mkdir()
    (school.path / "class" / "cleo" / "llm90_small.py").write_text("# handed in alone")
    ended = school.labs("progress", "--class", "class")
    assert ended.code == 0, ended
    rows = {line.split()[0]: line.split()[1:] for line in ended.out.splitlines() if line.strip()}
    assert rows["ada"] == ["✓✓", "2", "of", "2"]
    assert rows["bob"] == ["✗·", "0", "of", "2"]
    assert rows["cleo"] == ["··", "0", "of", "2"]
    assert "no progress/ beside the sheets of cleo" in ended.out
    assert "notes" not in rows

    printed = school.labs("progress", "--class", "class", "--csv")
    table: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(printed.out)))
    found = {(row["learner"], row["exercise"]): (row["state"], row["tries"]) for row in table}
    assert found == {
        ("ada", "add"): ("done", "2"),
        ("ada", "Counter.count"): ("done", "2"),
        ("bob", "add"): ("tried", "1"),
        ("bob", "Counter.count"): ("not started", "0"),
        ("cleo", "add"): ("not started", "0"),
        ("cleo", "Counter.count"): ("not started", "0"),
    }
    assert [row["hints asked for"] for row in table] == ["2", "2", "0", "0", "0", "0"]


def test_a_class_without_learners_is_a_card(school: Clone) -> None:
    ended = school.labs("progress", "--class", "labs")
    assert ended.code == 2, ended
    assert "labs has no learners" in ended.err


def test_the_file_is_plain(tmp_path: Path) -> None:
    with progress.changing("LLM90", tmp_path) as record:
        record.of("add").tried("text", right=True)
    data = json.loads((tmp_path / "LLM90.json").read_text())
    assert data["lab"] == "LLM90"
    assert data["parts"]["add"]["tries"] == 1
