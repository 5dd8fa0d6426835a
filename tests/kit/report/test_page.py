"""The report of a run: one file, with prose, claims, numbers, verdicts, figures and code."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import _fresh_clone
from tests.kit.every_finding import CHECKS, LAB, only_run, read_page
from tests.kit.report.page_rules import require_good_page

import pytest

CLOSING = '''

# %% [markdown]
# ## What to remember

# %%
@lab.closing
def closing(results):
    """Say what was found."""
    return f"The claim about chance is **{results.verdict('chance')}**."


# %% [markdown]
# The last paragraph.
'''


@pytest.fixture(scope="module")
def folder(snapshot: Path) -> Iterator[Path]:
    """Yield the folder of a run with every kind of finding."""
    clone = _fresh_clone(snapshot)
    lab = clone.kit_lab(LAB + CLOSING, checks=CHECKS)
    ended = clone.labs(lab, "--word", "<b>&")
    assert ended.code == 0, ended
    yield only_run(clone)
    clone.close()


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return read_page(folder)


def test_the_report_is_a_good_page(browser: Any, folder: Path) -> None:
    require_good_page(browser, folder / "report.html")


def test_the_report_is_one_file(page: str) -> None:
    fetched = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", page)
    assert fetched
    assert all(one.startswith(("data:", "#")) for one in fetched), fetched
    assert "@import" not in page
    assert "default-src 'none'" in page
    assert page.count('<svg class="drawing"') == 2


def test_the_report_has_prose_claims_numbers_verdicts_and_code(page: str) -> None:
    for words in (
        "<strong>prose</strong>",
        "Chance is <strong>seeded</strong>.",
        "which is the prediction",
        "a uniform number is one",
        "It was drawn.",
        "The caption of line",
        "The caption of dots",
        "1,002,001",
        "not held",
        "passed",
        "&lt;b&gt;&amp;",
    ):
        assert words in page, words
    assert "<b>&" not in page


def test_the_report_marks_the_evidence_that_decides(page: str) -> None:
    mark = '<span title="decides the claim">▸ </span>'
    marked = re.findall(f"{re.escape(mark)}([^<]+)<", page)
    assert marked == ["not a number", "the sum"]


def test_the_closing_is_shown_where_it_is_defined(page: str) -> None:
    closing = page.index("The claim about chance is <strong>not held</strong>.")
    assert page.index("What to remember") < closing < page.index("The last paragraph.")
    assert page.count("The claim about chance is <strong>not held</strong>.") == 1
