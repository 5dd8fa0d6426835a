"""`progress`: what is done, tried and next; and the table of a class."""

import csv
import io
import os
import shutil
import sys
import tarfile
from typing import Any

from common import progress
from tests.conftest import Clone
from tests.small_lab import DEEPER_SHEET

import pytest

DONE = progress.Part("2026-11-26T10:00:00+00:00", 2, "x", 3)
TRIED = progress.Part("", 1, "y")
BEST = {"passed": 3, "of": 3, "yours": 2, "seconds": 1.5, "report": "x"}


def record(school: Clone, folder: str, parts: dict[str, progress.Part], lab: str = "LLM90") -> None:
    """Write the progress on a lab."""
    with progress.changing(lab, school.path / folder) as changed:
        changed.parts = parts


def record_best_run(school: Clone, lab: str = "LLM90") -> None:
    """Write a full run of a lab's experiments on the learner's own parts."""
    with progress.changing(lab, school.path / "work" / "progress") as changed:
        changed.best = BEST


def test_progress_shows_what_is_done_tried_and_next(school: Clone) -> None:
    first = school.labs("progress")
    assert first.code == 0, first
    assert "0 of 2" in first.out
    assert "Next: invoke learn LLM90" in first.out
    school.labs("learn", "LLM90")
    assert "Next: write add in work/llm90_small.py" in school.labs("progress").out
    record(school, "work/progress", {"add": DONE, "Counter.count": TRIED})
    ended = school.labs("progress")
    assert "1 of 2" in ended.out
    assert "✓ add  2 tries, 2 hints asked for" in ended.out
    assert "✗ Counter.count  1 try" in ended.out
    assert "Next: fix Counter.count in work/llm90_small.py, then invoke check LLM90" in ended.out
    record(school, "work/progress", {"add": DONE, "Counter.count": DONE})
    assert "Next: invoke check LLM90, which runs its experiments" in school.labs("progress").out
    record_best_run(school)
    assert "every exercise of every lab is done" in school.labs("progress").out


def test_a_new_sheet_is_next_even_if_another_lab_comes_first(school: Clone) -> None:
    shutil.copytree(school.lab_folder("LLM90"), school.lab_folder("LLM91"))
    school.change("labs/llm91_small/lesson.py", "LLM90", "LLM91")
    assert "Next: invoke learn LLM90" in school.labs("progress").out
    school.labs("learn", "LLM91")
    assert "Next: write add in work/llm91_small.py" in school.labs("progress").out
    record(school, "work/progress", {"add": TRIED})  # its sheet is gone
    assert "Next: write add in work/llm91_small.py" in school.labs("progress").out
    school.labs("learn", "LLM90")
    assert "Next: fix add in work/llm90_small.py" in school.labs("progress").out


def test_a_lab_without_exercises_is_listed(school: Clone) -> None:
    school.deeper_part('@lab.experiment\ndef nothing(run: Run):\n    """Nothing."""\n')
    record(school, "work/progress", {"add": DONE, "Counter.count": DONE})
    ended = school.labs("progress")
    rows = [line.split() for line in ended.out.splitlines()]
    assert ["LLM90+", "A", "small", "lab", "no", "exercises"] in rows
    assert "Next: every exercise of every lab is done" in ended.out


def test_the_best_run_is_shown(school: Clone) -> None:
    record_best_run(school)
    assert "3 of 3 checks, 2 of the parts yours, 2 s" in school.labs("progress").out


def test_a_class_is_a_table_and_csv(school: Clone) -> None:
    record(school, "class/ada/work/progress", {"add": DONE, "Counter.count": DONE})
    record(school, "class/bob/progress", {"add": TRIED})
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


@pytest.mark.parametrize("kind", ["link", "pipe", "large", "forged", "cut"])
def test_a_damaged_record_of_a_learner_doesn_t_end_the_table(school: Clone, kind: str) -> None:
    record(school, "class/ada/work/progress", {"add": DONE})
    record(school, "class/eve/work/progress", {"add": DONE})
    path = school.path / "class" / "eve" / "work" / "progress" / "LLM90.json"
    content = path.read_text()
    path.unlink()
    if kind == "link":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        path.write_text(content)
        os.truncate(path, 2**33)
    elif kind == "forged":
        path.write_text(content.replace('"tries": 2', '"tries": -2'))
    else:
        path.write_text(content[:20])
    ended = school.labs("progress", "--class", "class")
    assert ended.code == 0, ended
    rows = {line.split()[0]: line.split()[1:] for line in ended.out.splitlines() if line.strip()}
    assert rows["ada"] == ["✓·", "1", "of", "2"]
    assert rows["eve"] == ["damaged", "0", "of", "2"]
    assert "eve: damaged, or no plain file: progress/ of LLM90" in ended.out
    printed = school.labs("progress", "--class", "class", "--csv")
    table = list(csv.DictReader(io.StringIO(printed.out)))
    assert [row["state"] for row in table] == ["done", "not started", "damaged", "damaged"]


@pytest.mark.parametrize("name", ["work", "progress"])
def test_a_learner_s_link_to_another_s_progress_isn_t_followed(school: Clone, name: str) -> None:
    record(school, "class/ada/work/progress", {"add": DONE})
    work = school.path / "class" / "eve" / "work"
    link = work if name == "work" else work / "progress"
    link.parent.mkdir(parents=True)
    link.symlink_to(school.path / "class" / "ada" / link.relative_to(work.parent))
    ended = school.labs("progress", "--class", "class")
    assert ended.code == 0, ended
    rows = {line.split()[0]: line.split()[1:] for line in ended.out.splitlines() if line.strip()}
    assert rows["ada"] == ["✓·", "1", "of", "2"]
    assert rows["eve"] == ["damaged", "0", "of", "2"]
    assert "eve: progress/ can't be read, or is a link" in ended.out


def test_a_class_without_learners_is_a_card(school: Clone) -> None:
    ended = school.labs("progress", "--class", "labs")
    assert ended.code == 2, ended
    assert "labs has no learners" in ended.err
    assert "fix: invoke progress --class FOLDER" in ended.err
    record(school, "workshop/learners/ada/work/progress", {"add": DONE})
    for wrong in ("labs", "workshop", "gone"):
        ended = school.labs("progress", "--class", wrong)
        assert "fix: invoke progress --class workshop/learners" in ended.err


def test_an_archive_in_place_of_a_folder_is_unpacked_with_the_printed_command(
    school: Clone,
) -> None:
    record(school, "class/ada/work/progress", {"add": DONE})
    with tarfile.open(school.path / "class-1.tar.gz", "w:gz") as archive:
        archive.add(school.path / "class", "class")
    shutil.rmtree(school.path / "class")
    ended = school.labs("progress", "--class", "class-1.tar.gz")
    assert "class-1.tar.gz is an archive." in ended.err
    assert "fix: tar -xzf class-1.tar.gz, then: invoke progress --class class" in ended.err


def test_a_deeper_part_is_next_after_the_lessons(deeper: Clone) -> None:
    assert "Next: invoke learn LLM90\n" in deeper.labs("progress").out
    record(deeper, "work/progress", {"add": DONE, "Counter.count": DONE})
    ended = deeper.labs("progress")
    rows = [line.split() for line in ended.out.splitlines()]
    assert ["LLM90", "A", "small", "lab", "2", "of", "2"] in rows
    assert ["LLM90+", "A", "small", "lab", "0", "of", "1"] in rows
    assert "Next: invoke learn LLM90+\n" in ended.out
    deeper.labs("learn", "LLM90+")
    assert f"Next: write multiply in {DEEPER_SHEET}" in deeper.labs("progress").out
    record(deeper, "work/progress", {"multiply": DONE}, "LLM90+")
    assert "Next: invoke check LLM90+, which runs" in deeper.labs("progress").out
    record_best_run(deeper, "LLM90+")
    assert "every exercise of every lab is done" in deeper.labs("progress").out


def test_a_started_deeper_part_is_continued_before_a_new_lesson(deeper: Clone) -> None:
    deeper.labs("learn", "LLM90+")
    record(deeper, "work/progress", {"multiply": TRIED}, "LLM90+")
    assert "Next: fix multiply" in deeper.labs("progress").out


def test_a_class_shows_deeper_parts_that_somebody_has_started(deeper: Clone) -> None:
    record(deeper, "class/ada/work/progress", {"add": DONE})
    assert "LLM90+" not in deeper.labs("progress", "--class", "class").out
    record(deeper, "class/bob/work/progress", {"multiply": DONE}, "LLM90+")
    ended = deeper.labs("progress", "--class", "class")
    rows = {line.split()[0]: line.split()[1:] for line in ended.out.splitlines() if line.strip()}
    assert rows["learner"] == ["LLM90", "LLM90+", "done"]
    assert rows["ada"] == ["✓·", "1", "of", "3"], "she has no sheet of LLM90+"
    assert rows["bob"] == ["✓", "1", "of", "3"], "he has no sheet of LLM90"
    printed = deeper.labs("progress", "--class", "class", "--csv").out
    table = list(csv.DictReader(io.StringIO(printed)))
    assert [(row["lab"], row["exercise"]) for row in table[:3]] == [
        ("LLM90", "add"),
        ("LLM90", "Counter.count"),
        ("LLM90+", "multiply"),
    ]


def test_a_handed_in_deeper_sheet_makes_a_learner(deeper: Clone) -> None:
    folder = deeper.path / "class" / "cleo"
    folder.mkdir(parents=True)
    (folder / "llm90_small_deeper.py").write_text("# handed in alone")
    ended = deeper.labs("progress", "--class", "class")
    assert ended.code == 0, ended
    assert "no progress/ beside the sheets of cleo" in ended.out


@pytest.mark.parametrize("words", ["progress", "progress --class class --csv", "--list"])
def test_a_reader_of_the_output_may_leave(school: Clone, words: str) -> None:
    record(school, "class/ada/work/progress", {"add": DONE})
    left = "{ exec 0<&-; sleep 5; }"
    line = f"'{sys.executable}' -m labs {words} | {left}; echo ${{PIPESTATUS[0]}}"
    ended = school.run("bash", "-c", line)
    assert (ended.out, ended.err) == ("0\n", "")
