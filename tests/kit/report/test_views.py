"""Interactive views: their data, their HTML, and how a reader uses them in a browser."""

import base64
import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from labs.kit.records import View
from labs.kit.report import views
from labs.kit.run.console import Output
from labs.kit.run.findings import Findings
from tests.browser import SCHEMES, WIDTHS, overflow, page_of, unfold, violations
from tests.kit.report.small_views import DATA, LOOKS_BACK, WORDS, page_with, small_view

import numpy as np
import pytest

KINDS = sorted(DATA)
Opener = Callable[[str], AbstractContextManager[Any]]


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Opener:
    """Return a function that opens a page with a small view of some kind."""

    @contextmanager
    def open_view(kind: str) -> Iterator[Any]:
        page = page_with(small_view(kind, tmp_path), tmp_path)
        with page_of(browser, page, 1280, "light") as shown:
            yield shown

    return open_view


def said(page: Any, words: str) -> None:
    """Wait until the line for screen readers contains `words`."""
    page.locator(".view-live", has_text=words).wait_for(timeout=20_000)


def move(page: Any, slider: str, value: float) -> None:
    """Move a slider to a value, as dragging does."""
    page.get_by_role("slider", name=slider).fill(str(value))


# What is saved


def test_numbers_are_rounded_and_what_is_not_finite_is_null(tmp_path: Path) -> None:
    path = tmp_path / "views" / "numbers.json"
    views.write({"a": [1 / 3, math.nan, (math.inf, 2)], "b": "text", "c": True}, path)
    read = json.loads(path.read_text("utf-8"))
    assert read == {"a": [0.33333, None, [None, 2]], "b": "text", "c": True}


def test_arrays_are_packed_without_loss() -> None:
    numbers = np.array([[0, 1, 65535], [256, 255, 2]], np.uint16)
    packed = views.pack_array(numbers)
    raw = np.frombuffer(base64.b64decode(packed["base64"]), "<u2")
    assert (raw.reshape(packed["shape"]) == numbers).all()


@pytest.mark.parametrize("array", [[0.5], [-1], np.zeros(3, np.int64)])
def test_only_small_unsigned_integers_can_be_packed(array: Any) -> None:
    with pytest.raises(TypeError, match="uint8 and uint16"):
        views.pack_array(array)


def test_a_view_is_recorded_with_its_data_and_table(tmp_path: Path) -> None:
    findings = Findings(Output(StringIO(), silent=True), tmp_path)
    findings.view("curve", "training", DATA["curve"](), "A loss.", ["n", "loss"], [[1000, 0.12345]])
    (view,) = findings.current.items
    assert isinstance(view, View)
    assert view.rows == [["1,000", "0.123"]]
    read = json.loads((tmp_path / "views" / "training.json").read_text("utf-8"))
    assert read["losses"] == pytest.approx(DATA["curve"]()["losses"], rel=1e-4)


def test_a_view_without_a_script_is_refused(tmp_path: Path) -> None:
    findings = Findings(Output(StringIO(), silent=True), tmp_path)
    with pytest.raises(ValueError, match="no view 'piechart', but attention, "):
        findings.view("piechart", "training", {}, "A loss.", ["n"], [])


def test_no_text_of_the_data_is_markup(tmp_path: Path) -> None:
    path = tmp_path / "views" / "evil.json"
    views.write({"text": "</script><script>alert(1)</script><!--"}, path)
    html = str(views.figure(View("tokens", "evil", "<b>", ["<i>"], [["<u>"]], path)))
    assert "</script><script>alert" not in html
    assert html.count("</script>") == 1
    assert not [tag for tag in ("<b>", "<i>", "<u>", "<!--") if tag in html]


@pytest.mark.parametrize("path", sorted(views.FOLDER.glob("*")), ids=lambda path: path.name)
def test_a_script_is_small_and_asks_nobody(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 9500
    asks = ("fetch(", "XMLHttpRequest", "import(", "@import", "url(", "</script")
    assert not [word for word in asks if word in text]


# Every kind of view


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "scheme"), [*zip(WIDTHS, SCHEMES, strict=True)])
def test_a_view_is_accessible_and_fits(
    browser: Any, tmp_path: Path, kind: str, width: int, scheme: str
) -> None:
    page = page_with(small_view(kind, tmp_path), tmp_path)
    with page_of(browser, page, width, scheme) as shown:
        shown.locator(".view-stage").wait_for()
        unfold(shown)
        assert violations(shown) == []
        assert overflow(shown) <= 0


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_script_there_is_a_table(browser: Any, tmp_path: Path, kind: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_with(small_view(kind, tmp_path), tmp_path).as_uri())
    assert page.get_by_role("cell", name="<b>").is_visible()
    assert page.get_by_text("What it shows.").is_visible()
    assert page.locator(".view-stage").count() == 0
    context.close()


def test_the_table_stays_where_the_script_fails(browser: Any, tmp_path: Path) -> None:
    view = small_view("curve", tmp_path)
    views.write({"losses": None}, view.path)
    page = browser.new_page()
    page.goto(page_with(view, tmp_path).as_uri())
    assert page.get_by_role("cell", name="<b>").is_visible()
    assert page.locator(".view-stage").count() == 0
    page.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_notebook_gets_a_frame_that_needs_nothing_else(
    browser: Any, tmp_path: Path, kind: str
) -> None:
    """Two outputs in one notebook in a dark scheme, on a machine that prefers light."""
    frames = 2 * views.frame(small_view(kind, tmp_path))
    notebook = tmp_path / "notebook.html"
    body = f'<body data-jp-theme-light="false"><h1>Notebook</h1>{frames}</body>'
    notebook.write_text(f'<!doctype html><html lang="en"><title>N</title>{body}', encoding="utf-8")
    with page_of(browser, notebook, 1280, "light") as page:
        for frame in page.locator("iframe").all():
            inside = frame.content_frame
            inside.locator(".view-stage").wait_for()
            colour = inside.locator("body").evaluate("one => getComputedStyle(one).backgroundColor")
            assert max(map(int, colour[4:-1].split(","))) < 64, "as dark as the notebook"
            height = inside.locator("html").evaluate("one => one.offsetHeight")
            assert abs(frame.evaluate("one => one.clientHeight") - height) <= 1, (
                "nothing is cut off"
            )


# The attention viewer


def test_a_search_finds_the_head_and_lists_the_best(opened: Opener) -> None:
    with opened("attention") as page:
        page.locator("label", has_text="the previous token").click()
        buttons = page.locator(".view-best button").all_text_contents()
        assert buttons[0] == "2·2  100 %"
        assert [one.split("  ")[1] for one in buttons[1:]] == ["25 %"] * 5
        said(page, "layer 2, head 2: cat (6) looks at The (5) 100 %")
        chosen = page.get_by_role("gridcell", selected=True)
        assert chosen.get_attribute("aria-label") == "layer 2, head 2: 100 %"


def test_arrow_keys_walk_through_tokens_and_heads(opened: Opener) -> None:
    with opened("attention") as page:
        page.get_by_role("option", selected=True).focus()
        for _ in range(2):
            page.keyboard.press("ArrowLeft")
        said(page, ". (4) looks at")
        page.keyboard.press("Home")
        said(page, "The (1) looks at The (1) 100 %")
        page.keyboard.press("ArrowLeft")
        assert page.get_by_role("option", selected=True).text_content() == WORDS[0], "it stops here"
        page.get_by_role("gridcell", selected=True).focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        said(page, "layer 2, head 2")
        assert page.locator("[role=gridcell][tabindex='0']").count() == 1


def test_pointing_at_a_token_shows_its_weights(opened: Opener) -> None:
    with opened("attention") as page:
        page.get_by_role("option", name="sat, token 3").hover()
        said(page, "sat (3) looks at")
        rows = page.locator(".view-reading tbody tr").all_text_contents()
        assert rows == ["The (1)33 %", "cat (2)33 %", "sat (3)33 %"]
        page.locator(".view-map text", has_text="cat").nth(2).hover()
        said(page, "cat (6) looks at")


def test_the_weights_on_the_page_are_those_that_were_saved(opened: Opener) -> None:
    with opened("attention") as page:
        page.get_by_role("gridcell").nth(3).click()  # row 2, layer 2
        squares = page.locator(".view-map rect[data-query='5']").all()
        shades = [float(square.get_attribute("fill-opacity")) for square in squares]
        assert LOOKS_BACK == 4
        assert shades == [0.05, 0.05, 0.05, 0.05, 1.0, 0.05]


def test_the_overview_can_hide_the_first_token(opened: Opener) -> None:
    drawn = "document.querySelector('.view-overview canvas').toDataURL()"
    with opened("attention") as page:
        complete = page.evaluate(drawn)
        box = page.get_by_label("hide the first token")
        box.check()
        assert page.evaluate(drawn) != complete
        box.uncheck()
        assert page.evaluate(drawn) == complete


def test_a_wide_overview_says_that_it_scrolls(opened: Opener) -> None:
    hint = """name => getComputedStyle(
        document.querySelector(`.view-scroll[aria-label='${name}']`), "::after").content"""
    with opened("attention") as page:
        assert page.evaluate(hint, "map") == "none", "all of it fits"
        page.set_viewport_size({"width": 300, "height": 900})
        page.wait_for_selector(".view-scroll[aria-label='map'][tabindex]")
        assert "scrolls sideways" in page.evaluate(hint, "map")
        assert page.evaluate(hint, "all heads") == "none", "two layers fit"


# The token view


def test_pointing_at_a_token_shows_id_probability_and_alternatives(opened: Opener) -> None:
    with opened("tokens") as page:
        page.locator("[role=option]").nth(2).hover()
        said(page, "Token 3 of 4: “⏎”, id 10, 0.1 %. Expected: “·so” 60 %")
        rows = page.locator(".view-bars tbody tr").all_text_contents()
        assert rows == ["·so60 %", "⏎0.1 %"]
        page.locator("[role=option]").nth(0).focus()
        said(page, "no probability: nothing before it")


def test_colours_go_by_probability_or_by_token(opened: Opener) -> None:
    with opened("tokens") as page:
        share = "one => parseInt(one.style.getPropertyValue('--share'))"
        shares = [one.evaluate(share) for one in page.locator("[role=option]").all()]
        assert shares[0] == 0
        assert shares[2] > shares[1] > shares[3], "the less likely, the darker"
        page.locator("label", has_text="by token").click()
        classes = [one.get_attribute("class") for one in page.locator("[role=option]").all()]
        assert classes == ["hue0", "hue1", "hue2", "hue3"]


def test_another_cut_and_another_text_can_be_chosen(opened: Opener) -> None:
    with opened("tokens") as page:
        page.locator("label", has_text="letters · 6").click()
        assert page.locator("[role=option]").count() == 6
        page.locator("label", has_text="second").click()
        assert page.locator("[role=option]").all_text_contents() == ["Hi", "!"]


# The training curve


def test_a_step_shows_loss_rate_and_sample(opened: Opener) -> None:
    losses = DATA["curve"]()["losses"]
    with opened("curve") as page:
        assert page.locator("pre").text_content() == "To be\nor␀not"
        move(page, "step", 12)
        loss, validation, rate = page.locator(".view-numbers dd").all_text_contents()
        assert float(loss) == pytest.approx(sum(losses[9:14]) / 5, abs=1e-3)
        assert (validation, rate) == ("3.600", "0.0078")
        assert page.locator("pre").text_content() == "xq<z"
        page.keyboard.press("ArrowRight")
        said(page, "Step 13: training loss 3.400; learning rate")
        said(page, "Validation loss 3.600 after 10 steps, below uniform.")
        move(page, "step", 3)
        said(page, "Step 3: training loss 3.900; learning rate")
        assert page.get_by_text("Nothing written yet").is_visible()


def test_pointing_at_the_curve_chooses_a_step(opened: Opener) -> None:
    with opened("curve") as page:
        box = page.locator(".view-curve").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 100)
        middle = int(page.get_by_role("slider", name="step").input_value())
        assert 5 <= middle <= 8, "the scale is logarithmic: the middle is near √40"
        page.locator("label", has_text="linear").click()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 101)
        assert 19 <= int(page.get_by_role("slider", name="step").input_value()) <= 23


# The computation graph


def test_a_graph_is_stepped_through_by_buttons_and_keys(opened: Opener) -> None:
    with opened("graph") as page:
        said(page, "Step 0 of 5. The leaves have their numbers.")
        page.get_by_role("button", name="Next").click()
        said(page, "Forward: p = x × y = 2 × 3 = 6.")
        page.get_by_role("slider", name="step").focus()
        page.keyboard.press("End")
        said(page, "Backward: p has the gradient 1 and passes it on: x gets 1 · 3 = 3; y gets")
        assert page.locator(".view-graph .grad").all_text_contents() == [
            "grad 4",
            "grad 2",
            "grad 1",
            "grad 1",
        ]
        assert page.get_by_role("button", name="Next").is_disabled()
        move(page, "x", 5)
        assert page.locator(".view-graph .value").all_text_contents() == ["5", "3", "15", "20"]
        assert page.locator(".view-graph .grad").all_text_contents()[1] == "grad 5"


def test_a_value_that_is_used_twice_gets_both_contributions(opened: Opener) -> None:
    with opened("graph") as page:
        page.locator("label", has_text="twice").click()
        page.get_by_role("slider", name="step").fill("5")
        assert page.locator(".view-graph .grad").first.text_content() == "grad 0", "relu is off"
        move(page, "<b>", 1.5)
        assert page.locator(".view-graph .grad").first.text_content() == "grad 2"


# The decision boundary


def test_a_boundary_is_shown_by_step_network_and_place(opened: Opener) -> None:
    with opened("boundary") as page:
        said(page, "bent, step 1,000: 90 % of unseen points. At (1.00, 1.00) class 1 has 0 %.")
        page.get_by_role("slider", name="training step").fill("0")
        said(page, "bent, step 0: 50 % of unseen points. At (1.00, 1.00) class 1 has 100 %.")
        page.locator(".view-plane").focus()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        said(page, "At (-1.00, 1.00) class 1 has 50 %.")
        page.keyboard.press("ArrowDown")
        said(page, "At (-1.00, -1.00) class 1 has 0 %.")
        page.locator("label", has_text="<b>").click()
        said(page, "<b>, step 0: 60 % of unseen points. At (-1.00, -1.00) class 1 has 100 %.")
        box = page.locator(".view-plane").bounding_box()
        page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.25 * box["height"])
        said(page, "At (1.00, 1.00) class 1 has 0 %.")


def test_playing_ends_at_the_last_step(opened: Opener) -> None:
    with opened("boundary") as page:
        page.get_by_role("button", name="Play").click()
        said(page, "bent, step 1,000")
        page.get_by_role("button", name="Play").wait_for()
        assert page.get_by_role("slider", name="training step").input_value() == "1"


# The low-rank update


def test_a_rank_draws_part_of_an_update(opened: Opener) -> None:
    with opened("low_rank") as page:
        said(page, "<b>, rank 1: 5 numbers hold 80 % of ΔW's sum of squares.")
        page.get_by_role("slider", name="rank").fill("2")
        said(page, "<b>, rank 2: 10 numbers hold 100 % of ΔW's sum of squares.")
        page.get_by_role("slider", name="rank").fill("0")
        assert numbers(page)[:3] == ["0", "6", "0 %"]
        page.locator("label", has_text="line").click()
        page.get_by_role("slider", name="rank").focus()
        page.keyboard.press("ArrowRight")
        said(page, "line, rank 1: 5 numbers hold 100 % of ΔW's sum of squares.")


def test_an_entry_is_shown_as_a_sum(opened: Opener) -> None:
    with opened("low_rank") as page:
        said(page, "Row 2, column 2: −0.25 + 0.00 = −0.25.")
        page.locator(".view-matrices").focus()
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")  # the edge stops it
        said(page, "Row 1, column 1: 0.50 + 2.00 = 2.50.")
        page.locator("label", has_text="line").click()
        said(page, "Row 1, column 1: 0.50 − 1.00 = −0.50.")
        box = page.locator(".view-cells").last.bounding_box()
        page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.9 * box["height"])
        said(page, "Row 2, column 3: 0.00 + 0.50 = 0.50.")


# The batch


def test_a_token_of_a_batch_names_its_label_and_what_it_sees(opened: Opener) -> None:
    with opened("batch") as page:
        said(page, "padded: 2 lines of 2 places, 1 of 4 are padding.")
        page.locator("[role=gridcell]").first.focus()
        page.keyboard.press("ArrowRight")
        said(page, "“yes”: label “yes”, position 1; it sees 2: <b> yes")
        assert page.locator(".seen").all_text_contents() == ["<b>", "yes"]
        page.keyboard.press("ArrowDown")
        said(page, "Padding: no label (−100); no token of a row looks at it.")
        assert page.locator(".seen").count() == 0


def test_a_pack_shows_that_a_document_sees_itself_alone(opened: Opener) -> None:
    with opened("batch") as page:
        page.locator("label", has_text="packed").click()
        said(page, "packed: 1 lines of 3 places, 0 of 3 are padding.")
        page.locator("[role=gridcell]", has_text="no").click()
        said(page, "“no”: no label (−100), position 0; it sees 1: no")
        assert page.locator(".seen").all_text_contents() == ["no"]


# The plane; tests/labs/test_views.py compares its numbers with torch's


def test_a_matrix_can_be_chosen_and_its_entries_moved_by_keyboard(opened: Opener) -> None:
    with opened("plane") as page:
        assert numbers(page) == ["1.00", "2", "1.00", "1.00"]
        page.locator("label", has_text="flat").click()
        said(page, "areas times 0.00, flat: the plane lands on a line, rank 1.")
        page.get_by_role("slider", name="a", exact=True).focus()
        page.keyboard.press("Home")
        said(page, "Rows (−2.00 0.50) and (0.50 0.50): areas times 1.25, mirrored, rank 2.")
        assert page.get_by_role("slider", name="a").get_attribute("aria-valuetext") == "−2.00"


def test_dragging_the_tip_of_a_column_changes_its_entries(opened: Opener) -> None:
    with opened("plane") as page:
        box = page.locator(".view-stage svg").bounding_box()
        unit = box["width"] / 6
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y - unit)  # the tip of the second column, (0, 1)
        page.mouse.down()
        page.mouse.move(x + 1.5 * unit, y - 0.5 * unit, steps=3)
        page.mouse.up()
        page.mouse.move(x, y)
        values = [
            page.get_by_role("slider", name=name, exact=True).input_value() for name in "abcd"
        ]
        assert values == ["1", "1.5", "0", "0.5"]
        assert numbers(page)[0] == "0.50"
        page.mouse.move(x - 2.5 * unit, y)  # far from both tips
        page.mouse.down()
        page.mouse.move(x, y)
        page.mouse.up()
        assert numbers(page)[0] == "0.50"


def numbers(page: Any) -> list[str]:
    """Return the numbers of a view's readout."""
    return page.locator(".view-numbers dd").all_text_contents()


# The sampler; tests/labs/test_views.py compares its numbers with LLM01's functions


def test_a_slider_changes_the_distribution(opened: Opener) -> None:
    with opened("sampler") as page:
        assert page.locator(".view-numbers dd").nth(1).text_content() == "8"
        page.get_by_role("slider", name="top-k").focus()
        page.keyboard.press("Home")
        said(page, "1 of 8 tokens left, as spread as 1.00 equally likely tokens.")
        said(page, "Likeliest: “·the”, 100 %")
        assert page.locator("tr.cut").count() == 7
        page.get_by_role("button", name="Reset").click()
        assert page.locator("tr.cut").count() == 0
        assert page.get_by_role("slider", name="top-k").get_attribute("aria-valuetext") == "off"


def test_ten_draws_stay_while_a_slider_moves(opened: Opener) -> None:
    with opened("sampler") as page:
        page.get_by_role("button", name="Draw 10").click()
        marks = page.locator(".view-line b")
        places = [one.evaluate("one => one.style.left") for one in marks.all()]
        assert len(set(places)) == 10
        assert page.locator(".view-drawn li").count() == 10
        lefts = [float(place.removesuffix("%")) for place in places]
        assert lefts == sorted(lefts), "the marks stand in the order of the tokens below"
        move(page, "temperature", 0.1)
        assert [one.evaluate("one => one.style.left") for one in marks.all()] == places
        page.get_by_role("button", name="Draw 10").click()
        assert [one.evaluate("one => one.style.left") for one in marks.all()] != places


# The loss by length


def test_a_place_shows_the_loss_of_each_encoding_that_is_shown(opened: Opener) -> None:
    with opened("lengths") as page:
        said(page, "Characters 16 to 31, beyond the 8 of training; <b> has the lowest loss.")
        assert numbers(page) == ["+0.50", "−0.25"]
        page.get_by_role("slider", name="place in the text").focus()
        page.keyboard.press("Home")
        said(page, "Characters 4 to 7, as in training; fails has the lowest loss.")
        assert numbers(page) == ["−0.50", "−0.25"]
        page.locator("label", has_text="itself").click()
        assert numbers(page) == ["2.00", "2.25"]
        page.get_by_role("button", name="fails").click()
        said(page, "as in training; <b> has the lowest loss.")
        assert page.locator(".view-numbers div:visible").count() == 1
        assert page.locator("svg path").count() == 2  # the encoding and the bigram


def test_pointing_at_the_lengths_chooses_a_place(opened: Opener) -> None:
    with opened("lengths") as page:
        box = page.locator(".view-lengths").bounding_box()
        page.mouse.move(box["x"] + 60, box["y"] + 100)
        said(page, "Characters 4 to 7")
        assert page.get_by_role("slider").get_attribute("aria-valuetext") == "characters 4 to 7"


# The rotation; tests/labs/test_llm05b.py compares its numbers with LLM05b's functions


def test_moving_the_key_changes_no_score_and_the_offset_does(opened: Opener) -> None:
    with opened("rotation") as page:
        score = page.locator(".view-numbers dd")
        move(page, "offset of the query", 0)
        assert score.text_content() == "+5.000"  # 1 · 1 + 2 · 2
        move(page, "position of the key", 3)
        assert score.text_content() == "+5.000"
        page.get_by_role("slider", name="offset of the query").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        said(page, "Key at 3, query at 5: offset 2, score +3.000.")  # the first pair: half a turn
        assert page.locator(".view-dials strong").all_text_contents() == ["−1.000", "+4.000"]
