"""The parts of a report page, in a real browser: what is folded, what moves, what can't get in."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import classroom
from common.syllabus import Lesson
from labs.kit.records import PARTS, Bound, Check, Experiment, Figure, Measurement, Table
from labs.kit.report import page as report
from labs.kit.report.figure_style import use_style
from labs.kit.report.save_figure import save
from tests.browser import page_of, unfold
from tests.kit.report.page_rules import require_good_page

import numpy as np
import pytest

PATIENCE = 60  # seconds until a test gives up
SOURCE = '''# %% [markdown]
# # LLM90 · Everything
# A line.
#
# <script>document.title = "taken over"</script> <b onclick="x()">raw</b>
# ![a picture](http://127.0.0.1/picture.png) costs $5, and
#
# | | left | right |
# |---|---|---|
# | x | $x_1$ | 2 |
#
# $$
# a_1 + a_2 + a_3 + a_4 + a_5 + a_6 + a_7 + a_8 + a_9 + a_{10} + a_{11} + a_{12} = 0
# $$
#
# ```python
# print("in the prose")
# ```

# %% [markdown]
# ## 1. First $x$ section

# %% 1. Code of the first
@lab.exercise(level=1, hints=("a", "b", "c"))
def add(a, b):
    return a + b


@lab.experiment
def first(run):
    """It holds."""


# %% [markdown]
# ## 2. Second §: σ and «more»
# # Not a second title

# %% 2. Code of the second
class Model:
    @lab.exercise(level=1, hints=("a", "b", "c"))
    def forward(self, x):
        return x


@lab.experiment
def second(run):
    """It does `not` hold."""
    very_long_line = "so long that it must scroll within itself on every phone, and on a desk, too"


@lab.experiment
def third(run):
    """The third isn't run."""
'''
DATA: dict[str, Any] = {
    "not_run": ["third"],
    "commands": {
        "first": "invoke lab LLM90 --only first --seed 1",
        "third": "invoke lab LLM90 --only third --seed 1",
    },
    "environment": {
        "device": "a CPU",
        "precision": "fp32",
        "size": "tiny",
        "seed": 0,
        "stack": {"stack": "cpu", "torch": "2"},
        "models_sha256": {"small": "0123456789abcdef" * 4},
        "options": {"model": "None", "bad_rows": "skip"},
    },
    "timings": {"seconds": 1.0, "peak_memory_mib": 100.0},
}
ESCAPES = "\x1b[31mred\x1b[0m \x1b]0;title\x07\x9b2J done"


def check(name: str, passed: bool = True, decides: bool = False, because: str = "") -> Check:
    value = 0.5 if passed else 2.0
    return Check(name, [value], "at most 1", passed, because=because, decides=decides)


def experiments(folder: Path) -> list[Experiment]:
    parts = Experiment(PARTS, "Every part meets its specification.")
    parts.items = [
        Check("add (the lab's own)", ["right"], "must be right", True, decides=True),
        Check("Model.forward", ["returns <None>"], "must be right", False, decides=True),
    ]
    first = Experiment("first", "It holds.", "Predict: does it?", guess="<yes>", conclusion="Yes.")
    first.items = [
        check("quiet one"),
        check("quiet two", because="theory"),
        Measurement("speed", [1.0, 2.0], "s", Bound(high=3)),
        check("decider", decides=True),
        Table("Wide", ["", *(f"column {n}" for n in range(12))], [["1,000"] * 13]),
        Figure("plot", "A *plot* of $x$", draw(folder), "a rising line"),
        Figure("again", "The same again", draw(folder)),
    ]
    second = Experiment("second", "It does `not` hold.")
    second.items = [check(f"good {n}", decides=True) for n in range(4)]
    second.items += [check("bad", passed=False)]
    second.crash = f"Traceback <here>\n{ESCAPES}"
    return [parts, first, second]


def draw(folder: Path, inches: float = 7.2) -> Path:
    use_style()
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(inches, 4.0))
    ax.plot([1, 2, 3], [1, 4, 9], "o-", label="black", color="black")
    ax.set(title="A title", xlabel="x")
    ax.legend()
    save(fig, folder / "plot.svg")
    plt.close(fig)
    return folder / "plot.svg"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    lesson = Lesson("LLM90", folder / "lesson.py", "Everything", "A line.", text=SOURCE)
    report.write(lesson, DATA, experiments(folder), "", folder / "report.html")
    return folder / "report.html"


def test_locked_solutions_are_not_on_the_page_but_a_learner_s_own_code_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classroom, "solutions_locked", lambda lab: lab == "LLM90")
    lesson = Lesson("LLM90", tmp_path / "lesson.py", "Everything", "A line.", text=SOURCE)

    def page_of_a_run(lesson: Lesson) -> str:
        report.write(lesson, DATA, experiments(tmp_path), "", tmp_path / "report.html")
        return re.sub("<[^>]+>", "", (tmp_path / "report.html").read_text(encoding="utf-8"))

    locked = page_of_a_run(lesson)
    assert "add: Your teacher opens the solutions later." in locked
    assert "return a + b" not in locked
    assert "def add(a, b):" in locked
    own = page_of_a_run(replace(lesson, yours=("add",)))
    assert "return a + b" in own and "Your teacher" not in own


@pytest.fixture
def opened(browser: Any, path: Path, request: pytest.FixtureRequest) -> Any:
    width = getattr(request, "param", 1280)
    with page_of(browser, path, width, "light") as page:
        yield page


def wait_for(page: Any, condition: str) -> None:
    """Wait until a JavaScript expression is true; the page's policy forbids Playwright's way."""
    deadline = time.monotonic() + PATIENCE
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


NARROW = pytest.mark.parametrize("opened", [360], indirect=True)


def test_a_page_with_failures_is_a_good_page(browser: Any, path: Path) -> None:
    require_good_page(browser, path)


def test_checks_that_passed_are_one_line(opened: Any) -> None:
    first = opened.locator("section.experiment", has_text="It holds.")
    assert first.locator("details.checks summary").inner_text().split() == [
        "✓",
        "2",
        "more",
        "checks",
        "passed",
    ]
    assert not first.get_by_text("quiet one").is_visible()
    assert first.get_by_text("decider").is_visible(), "a few that decide are evidence"
    assert first.get_by_text("speed").is_visible()
    first.locator("details.checks summary").click()
    assert first.get_by_text("quiet one").is_visible()


def test_a_failed_check_is_never_folded(opened: Any) -> None:
    second = opened.locator("section.experiment", has_text="It does not hold.")
    assert second.get_by_text("bad", exact=True).is_visible()
    assert second.locator("details.checks summary").inner_text().split()[1:] == [
        *("4", "more", "checks", "passed,", "all", "of", "them", "decide", "the", "claim"),
    ]
    assert opened.get_by_text("returns <None>").is_visible(), "nor that of an exercise"


def test_the_proof_of_an_exercise_stands_below_its_code(opened: Any) -> None:
    places = [
        "main h1",
        "text=add (the lab's own)",
        "#first",
        "text=returns <None>",
        "#second",
    ]
    tops = [opened.locator(place).first.bounding_box()["y"] for place in places]
    assert tops == sorted(tops)
    assert opened.locator(".experiment").count() == 3


def test_a_solution_is_folded_within_its_code(opened: Any) -> None:
    for title, signature, body in (
        ("Code of the first", "def add(a, b):", "return a + b"),
        ("Code of the second", "def forward(self, x):", "return x"),
    ):
        code = opened.locator("details.source", has_text=title)
        code.locator("summary").first.click()
        assert signature in code.inner_text()
        assert body not in code.inner_text()
        code.locator("details.solution summary").click()
        assert body in code.inner_text()


def test_guess_result_and_expectation_stand_together(opened: Any) -> None:
    rows = opened.locator("#first ~ .scroll tbody tr, #first ~ .scroll > .guess tr")
    text = [row.inner_text().split("\t") for row in rows.all()]
    assert ["<yes>", "Yes."] in text
    assert ["speed", "1.5 [1, 2] s", "at most 3", "held"] in text


def test_html_of_the_lab_is_text(opened: Any) -> None:
    assert opened.title() == "LLM90 · Everything"
    assert '<b onclick="x()">raw</b>' in opened.locator("main").inner_text()
    assert opened.locator("img").count() == 0


def test_terminal_escapes_are_removed(path: Path) -> None:
    text = path.read_text("utf-8")
    assert "red  done" in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def test_nothing_can_be_requested_and_no_other_script_runs(browser: Any, path: Path) -> None:
    page = browser.new_page()
    page.goto(path.as_uri())
    page.evaluate(
        """() => {
            window.refused = [];
            const note = one => refused.push(one.blockedURI);
            document.addEventListener("securitypolicyviolation", note);
            document.body.append(Object.assign(new Image(), { src: "http://127.0.0.1:1/x.png" }));
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
        }"""
    )
    wait_for(page, "refused.length == 2")
    assert set(page.evaluate("refused")) == {"inline", "http://127.0.0.1:1/x.png"}
    assert page.evaluate("window.ran") is None
    page.context.close()


def test_headings_and_experiments_can_be_linked_to(opened: Any) -> None:
    assert opened.locator("h1").count() == 1
    for link in opened.locator("a[href^='#']").all():
        anchor = link.get_attribute("href")
        assert opened.locator(f"[id='{anchor[1:]}']").count() == 1, anchor


def test_the_contents_follow_the_reader(opened: Any) -> None:
    contents = opened.locator("nav details")
    assert contents.get_attribute("open") is not None
    opened.evaluate("document.getElementById('1-first-x-section').scrollIntoView()")
    wait_for(opened, "document.querySelector('nav [aria-current]')?.hash == '#1-first-x-section'")
    assert opened.locator("nav [aria-current]").count() == 1
    assert contents.bounding_box()["y"] >= 0, "it stays on the screen"
    opened.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    wait_for(opened, "document.querySelector('nav [aria-current]').hash == '#verdicts'")
    opened.evaluate("scrollTo(0, 0)")
    wait_for(opened, "!document.querySelector('nav [aria-current]')")


# Evidence


def page_with(folder: Path, experiment: Experiment) -> Path:
    """Write the page of a run with one experiment."""
    lesson = Lesson("LLM90", folder / "lesson.py", "Everything", "A line.", text=SOURCE)
    data = {**DATA, "not_run": []}
    report.write(lesson, data, [experiment], "", folder / "report.html")
    return folder / "report.html"


def opened_with(browser: Any, folder: Path, items: list[Any], **facts: str) -> Any:
    first = Experiment("first", "It holds.", **facts)
    first.items = items
    return page_of(browser, page_with(folder, first), 1280, "light")


def folded(page: Any) -> str:
    return " ".join(page.locator("details.checks summary").inner_text().split())


def test_many_checks_that_decide_are_named_first(browser: Any, tmp_path: Path) -> None:
    items = [
        Measurement("beside it", [1.0], "s", Bound()),
        *(check(f"proof {n}", decides=True) for n in range(4)),
        check("another"),
    ]
    with opened_with(browser, tmp_path, items) as page:
        assert folded(page) == "✓ 5 checks passed, 4 of them decide the claim"
        fold = page.locator("details.checks").bounding_box()
        assert fold["y"] < page.get_by_text("beside it").bounding_box()["y"]
        assert not page.get_by_text("proof 1").is_visible()


def test_a_guess_without_conclusion_has_the_deciding_values_beside_it(
    browser: Any, tmp_path: Path
) -> None:
    items = [
        Measurement("unrelated", [7.0], "s", Bound()),
        Measurement("share", [19.0], "%", Bound(high=50), decides=True),
        check("error", decides=True),
    ]
    with opened_with(browser, tmp_path, items, guess="90 %") as page:
        cell = page.locator(".guess td").last
        assert cell.locator("li").all_inner_texts() == ["▸ share: 19\u00a0%", "▸ error: 0.5"]


def test_a_guess_with_many_deciding_values_points_to_them(browser: Any, tmp_path: Path) -> None:
    items = [check(f"proof {n}", decides=True) for n in range(5)]
    with opened_with(browser, tmp_path, items, guess="yes") as page:
        assert page.locator(".guess td").last.inner_text() == "See the results below."
        assert page.get_by_text("proof 4").is_visible()


def test_one_claim_and_one_check_are_singular(browser: Any, tmp_path: Path) -> None:
    with opened_with(browser, tmp_path, [check("only one", decides=True)]) as page:
        assert "1 claim: 1 held. 1 check passed." in " ".join(page.inner_text("header").split())
        assert page.locator(".partial").count() == 0


def test_an_experiment_that_was_not_run_has_its_place(opened: Any) -> None:
    assert opened.inner_text(".partial") == "2 of 3 experiments were run."
    left_out = opened.locator(".experiment.not-run")
    text = " ".join(left_out.inner_text().split())
    assert text.startswith("not run in this run The third isn't run.")
    assert "invoke lab LLM90 --only third --seed 1" in text
    assert opened.locator("#verdicts ~ .scroll tr").count() == 4, "it has no verdict"


def test_the_environment_is_in_plain_words(opened: Any) -> None:
    unfold(opened)
    rows = [row.inner_text().split("\t") for row in opened.locator("footer tr").all()]
    assert ["packages for", "cpu"] in rows
    assert ["hash of the weights of small", "0123456789abcdef" * 4] in rows
    assert ["option --bad-rows", "skip"] in rows
    assert not [name for name, _ in rows if "_" in name or "option --model" in name]


@NARROW
def test_an_option_is_not_broken_after_its_dashes(opened: Any) -> None:
    for option in opened.locator(".run .together").all():
        assert option.evaluate("one => one.getClientRects().length") == 1


@NARROW
def test_what_scrolls_has_a_shade_at_its_edge(opened: Any) -> None:
    tables = opened.locator(".scroll:has(table), .scroll:has(svg), .math.block")
    assert tables.count() > 4
    for table in tables.all():
        attachments = table.evaluate("one => getComputedStyle(one).backgroundAttachment")
        assert attachments == "local, local, scroll, scroll"


@NARROW
def test_the_contents_are_folded_on_a_phone(opened: Any) -> None:
    assert opened.locator("nav details").get_attribute("open") is None


@NARROW
def test_what_scrolls_on_a_phone_can_be_reached_by_keyboard(opened: Any) -> None:
    unfold(opened)
    opened.wait_for_timeout(100)  # two frames
    scrolls = opened.evaluate(
        """() => [...document.querySelectorAll("pre, .scroll, .math.block")]
            .filter(one => (one.scrollWidth > one.clientWidth) != (one.tabIndex == 0))
            .map(one => one.outerHTML)"""
    )
    assert scrolls == []
    assert opened.locator(".math.block[tabindex='0']").count() == 1


def test_a_command_can_be_copied(opened: Any) -> None:
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    run = opened.locator(".run", has_text="--only first")
    run.get_by_role("button").press("Enter")
    wait_for(opened, "document.querySelector('.copy').textContent == 'copied'")
    assert opened.evaluate("navigator.clipboard.readText()") == DATA["commands"]["first"]


def test_on_paper_everything_is_unfolded(opened: Any) -> None:
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    opened.emulate_media(media="print")
    assert opened.locator("details:not([open])").count() == 0
    assert opened.get_by_text("quiet one").is_visible()
    assert not opened.locator(".copy").first.is_visible()
    assert not opened.locator("nav").is_visible()
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.locator("details.checks[open]").count() == 0


def test_the_page_is_complete_without_scripts(browser: Any, path: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    page.locator("nav summary").click()
    assert page.get_by_role("link", name="2. Second §: σ and «more»", exact=True).is_visible()
    assert page.get_by_role("button").count() == 0
    assert page.locator("pre:not([tabindex])").count() == 0
    context.close()


# Figures


def test_a_figure_takes_the_ink_of_the_page(browser: Any, path: Path) -> None:
    for scheme, ink in (("light", "rgb(28, 32, 38)"), ("dark", "rgb(227, 231, 236)")):
        with page_of(browser, path, 1280, scheme) as page:
            colour = "one => getComputedStyle(one).fill"
            title = page.locator(".drawing").first.get_by_text("A title")
            assert title.evaluate(colour) == ink
            line = page.locator(".drawing path[clip-path]").first
            assert line.evaluate("one => getComputedStyle(one).stroke") in (ink, "none")


def test_a_figure_has_a_text_for_those_who_cannot_see_it(opened: Any) -> None:
    assert opened.get_by_role("img", name="a rising line").count() == 1
    assert opened.get_by_role("img", name="The same again").count() == 1, "else the caption"


def test_a_narrow_figure_fits_a_phone_and_its_text_has_one_size_on_a_desk(
    browser: Any, tmp_path: Path
) -> None:
    widths = {}
    for inches in (4.0, 7.2):
        experiment = Experiment("first", "It holds.")
        experiment.items = [Figure("plot", "A plot", draw(tmp_path, inches))]
        path = page_with(tmp_path, experiment)
        with page_of(browser, path, 360, "light") as page:
            scrolls = "one => one.scrollWidth > one.clientWidth"
            assert page.locator("figure .scroll").evaluate(scrolls) == (inches > 5)
        with page_of(browser, path, 1280, "light") as page:
            widths[inches] = page.locator(".drawing").bounding_box()["width"]
    assert widths[4.0] / widths[7.2] == pytest.approx(4.0 / 7.2, rel=0.02)


def test_a_short_cell_is_one_line_on_a_phone_and_a_long_one_wraps(
    browser: Any, tmp_path: Path
) -> None:
    experiment = Experiment("first", "It holds.")
    cells = [
        "dog cow bee <|end|>",
        "a sentence that is longer than a phone is wide",
        *["0.123"] * 5,
    ]
    experiment.items = [Table("Wide", list("abcdefg"), [cells])]
    with page_of(browser, page_with(tmp_path, experiment), 360, "light") as page:
        lines = """one => {
            const text = document.createRange()
            text.selectNodeContents(one)
            return text.getClientRects().length
        }"""
        short, long = page.locator(".experiment tr td").all()[:2]
        assert short.evaluate(lines) == 1
        assert long.evaluate(lines) > 1


def test_the_same_figure_gives_the_same_file(tmp_path: Path) -> None:
    first = draw(tmp_path).read_bytes()
    assert draw(tmp_path).read_bytes() == first
    assert b"<dc:date>" not in first


def scatter(ax: Any) -> None:
    ax.scatter(*np.random.default_rng(0).random((2, 20_000)))


def mesh(ax: Any) -> None:
    ax.pcolormesh(np.random.default_rng(0).random((200, 200)))


def line(ax: Any) -> None:
    ax.plot(np.random.default_rng(0).random(100_000))


def bars(ax: Any) -> None:
    ax.bar(range(5_000), np.random.default_rng(0).random(5_000))


def many_lines(ax: Any) -> None:
    for row in np.random.default_rng(0).random((200, 1_000)):
        ax.plot(row)


@pytest.mark.parametrize("plot", [scatter, mesh, line, bars, many_lines])
def test_a_heavy_figure_stays_small_and_its_text_stays_text(
    tmp_path: Path, plot: Callable[[Any], None]
) -> None:
    import matplotlib.pyplot as plt

    use_style()
    fig, ax = plt.subplots()
    plot(ax)
    ax.set_title("A title that is text")
    path = tmp_path / "heavy.svg"
    save(fig, path)
    plt.close(fig)
    assert path.stat().st_size < 1_000_000
    assert "A title that is text" in path.read_text("utf-8")
