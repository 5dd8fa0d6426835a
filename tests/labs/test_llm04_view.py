"""The view of merges: what a reader can do with it, and that it gives LLM04's ids."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labs.kit import pack_array
from labs.kit.records import View
from labs.kit.report import views
from labs.llm04_tokenization import lesson as lab
from tests.browser import page_of
from tests.kit.report.small_views import page_with, small_view

import numpy as np
import pytest

MERGES = lab.train(lab.count_words("the cat, the hat: naïve café, naïve cafés, 漢字 漢字 漢字"), 40)


@pytest.fixture
def small(browser: Any, tmp_path: Path) -> Iterator[Any]:
    with page_of(
        browser, page_with(small_view("merges", tmp_path), tmp_path), 1280, "light"
    ) as page:
        yield page


def tokens(page: Any) -> list[str]:
    return page.locator(".view-stage [role=option]").all_text_contents()


def test_a_slider_steps_through_the_merges(small: Any) -> None:
    assert tokens(small) == ["low"]
    small.get_by_role("slider", name="merges").focus()
    small.keyboard.press("Home")
    assert tokens(small) == ["l", "o", "w"]
    small.get_by_role("button", name="Next merge").click()
    assert tokens(small) == ["lo", "w"]
    line = small.locator(
        ".view-live", has_text="Merge 1 of the vocabulary: “l” + “o” → “lo”, here 1 ×"
    )
    line.wait_for(timeout=20_000)


def test_another_vocabulary_cuts_the_same_text_otherwise(small: Any) -> None:
    assert small.locator(".view-choice span").all_text_contents() == ["first · 1", "second · 2"]
    small.locator("label", has_text="second").click()
    assert tokens(small) == ["lo", "w"]


def test_typing_an_empty_text_leaves_no_tokens(small: Any) -> None:
    small.get_by_label("Your text").fill("")
    assert tokens(small) == []
    small.get_by_label("Your text").fill("a low b")
    assert tokens(small) == ["a", "·", "low", "·", "b"]


def test_the_view_gives_the_ids_of_the_lab(browser: Any, tmp_path: Path) -> None:
    packed = pack_array(np.array(MERGES, np.uint16))
    data = {"text": "", "vocabularies": [{"name": "ours", "merges": packed}]}
    path = tmp_path / "views" / "ours.json"
    views.write(data, path)
    view = View("merges", "ours", "Ours.", ["a"], [["1"]], path)
    tokenizer = lab.Tokenizer(MERGES)
    with page_of(browser, page_with(view, tmp_path), 1280, "light") as page:
        for text in ("the hats", "naïve 漢字🙂", "we'll see:  12 x!", "a\u0301 cafe"):
            page.get_by_label("Your text").fill(text)
            labels = [
                option.get_attribute("aria-label")
                for option in page.locator(".view-stage [role=option]").all()
            ]
            ids = [int(label.rpartition(" ")[2]) for label in labels]
            assert ids == tokenizer.encode(text), text
