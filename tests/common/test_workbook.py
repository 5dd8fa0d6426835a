"""The learner's sheets in work/: how they are read and written, and never overwritten."""

import resource
from pathlib import Path

from common import workbook
from common.cards import Card

import pytest


def test_a_removed_sheet_is_restored_and_an_existing_one_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sheet.py"
    workbook.restore(path, "as it was")
    assert path.read_text() == "as it was"
    path.write_text("saved meanwhile")
    workbook.restore(path, "as it was")
    assert path.read_text() == "saved meanwhile"


def test_a_sheet_that_is_not_utf_8_is_a_card_that_names_the_byte(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.py"
    sheet.write_bytes(b"# one\n# \xe9t\xe9\n")
    with pytest.raises(Card) as caught:
        workbook.read(sheet)
    assert "Line 2 contains the byte 0xe9" in caught.value.why


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.py"
    sheet.write_bytes(b"\xef\xbb\xbfx = 1\r\ny = 2\r\n")
    assert workbook.read(sheet) == "x = 1\ny = 2\n"


def test_a_full_disk_leaves_no_incomplete_sheet(tmp_path: Path) -> None:
    path = tmp_path / "sheet.py"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # more bytes are an OSError
    try:
        with pytest.raises(Card, match="can't be written"):
            workbook.write_new(path, "x = 1\n" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not path.exists()
    assert workbook.write_new(path, "x = 1\n")


def test_a_sheet_that_exists_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "work" / "sheet.py"
    assert workbook.write_new(path, "first")
    assert not workbook.write_new(path, "second")
    assert path.read_text() == "first"
