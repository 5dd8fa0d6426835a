"""The page of all runs: what it lists, what it compares, and that nothing in a folder breaks it."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labs.kit.report import index, runs
from tests.browser import SCHEMES, WIDTHS, overflow, unfold, violations
from tests.conftest import Clone
from tests.kit.every_finding import NOTHING, only_run

import pytest

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 90 50">'
    '<path d="M5 45 85 5" stroke="#0072b2"/></svg>'
)
STAMP = "2026-11-{day:02d}_10-{minute:02d}-00"


def experiment(name: str, verdict: str, value: float, **more: Any) -> dict[str, Any]:
    check = {"name": "the error", "values": [value], "bound": "", "passed": verdict != "failed"}
    measured = {"name": "the loss", "values": [value * 2], "unit": "nats", "verdict": verdict}
    return {
        "name": name,
        "claim": f"The claim of `{name}`.",
        "verdict": verdict,
        "checks": [check],
        "measurements": [measured],
        "figures": [],
        **more,
    }


def results(seed: int = 0, value: float = 0.5, **more: Any) -> dict[str, Any]:
    seconds = 10.0 + seed
    timed = {"name": "elapsed", "values": [seconds], "unit": "s", "verdict": "shown"}
    return {
        "lab": "LLM06",
        "title": "Attention",
        "experiments": [
            experiment("loss", "held", value),
            experiment("figure", "not held", 1.0, figures=["best.svg", "tall.svg"]),
            experiment("shown", "shown", 2.0, figures=["other.svg"]),
            {**experiment("speed", "see timings", 3.0), "checks": [], "measurements": []},
        ],
        "environment": {
            "device": "CPU, 2 threads",
            "precision": "fp32",
            "size": "tiny",
            "seed": seed,
            "stack": {"stack": "cpu", "lock": "0123456789abcdef" * 4},
        },
        "timings": {
            "seconds": seconds,
            "peak_memory_mib": 100.0 + seed,
            "experiments": {
                "speed": {"seconds": seconds, "verdict": "held", "measurements": [timed]}
            },
        },
        **more,
    }


def add_run(outputs: Path, lab: str, name: str, data: dict[str, Any] | str | None) -> Path:
    """Write the folder of a run: `data` is its results.json, as data or as text."""
    folder = outputs / lab / name
    (folder / "figures").mkdir(parents=True)
    for figure in ("other.svg", "best.svg"):
        (folder / "figures" / figure).write_text(SVG)
    (folder / "figures" / "tall.svg").write_text(SVG.replace("0 0 90 50", "0 0 90 200"))
    (folder / "log.txt").write_text("a line\n")
    if data is not None:
        text = data if isinstance(data, str) else json.dumps(data)
        (folder / "results.json").write_text(text)
        (folder / "report.html").write_text("<!doctype html><title>A report</title>")
    return folder


def page_text(outputs: Path) -> str:
    return index.update(outputs).read_text("utf-8")


def listed(outputs: Path) -> list[str]:
    """Return the runs of the page, in its order."""
    parts = page_text(outputs).split('data-run="')[1:]
    return [part.partition('"')[0] for part in parts if part[:2] == "20"]


# What is listed


def test_all_runs_are_listed_the_newest_first(tmp_path: Path) -> None:
    names = [STAMP.format(day=day, minute=0) for day in (1, 12, 3)]
    for name in (*names, f"{names[1]}_2", f"{names[1]}_10"):
        add_run(tmp_path, "LLM06", name, results())
    first, latest, middle = names
    assert listed(tmp_path) == [f"{latest}_10", f"{latest}_2", latest, middle, first]


def test_a_run_has_its_verdicts_device_size_seed_time_and_link(tmp_path: Path) -> None:
    name = STAMP.format(day=1, minute=5)
    crashed = results(3)
    crashed["experiments"].append(experiment("boom", "crashed", 0.0))
    crashed["experiments"].append(experiment("wrong", "failed", 0.0))
    add_run(tmp_path, "LLM06+", name, crashed)
    page = " ".join(page_text(tmp_path).split())
    for words in (
        "2 held</span>",  # one of them by its timing
        "1 not held</span>",
        "1 shown</span>",
        '<span class="verdict crashed">✗ 1 crashed</span>',
        '<span class="verdict failed">✗ 1 failed</span>',
        "tiny · seed 3 · fp32 · CPU, 2 threads",
        "13&nbsp;s",
        "2026-11-01 10:05:00",
        f'<a href="LLM06%2B/{name}/report.html">LLM06+ · Attention</a>',
    ):
        assert words in page, words


def test_the_best_figure_is_the_widest_one_of_a_decided_claim(tmp_path: Path) -> None:
    name = STAMP.format(day=1, minute=0)
    folder = add_run(tmp_path, "LLM06", name, results())
    assert f'src="LLM06/{name}/figures/best.svg"' in page_text(tmp_path)
    (folder / "figures" / "best.svg").unlink()
    assert f'src="LLM06/{name}/figures/tall.svg"' in page_text(tmp_path)
    (folder / "figures" / "tall.svg").unlink()
    assert f'src="LLM06/{name}/figures/other.svg"' in page_text(tmp_path)
    shutil.rmtree(folder / "figures")
    assert "<img" not in page_text(tmp_path)


def test_a_run_of_an_older_version_shows_its_newest_picture(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "LLM06", STAMP.format(day=1, minute=0), results(experiments=[]))
    newest = folder / "figures" / "newest.png"
    newest.write_bytes(b"")
    os.utime(newest, (4e9, 4e9))
    assert "figures/newest.png" in page_text(tmp_path)


DAMAGED = {
    "empty": "",
    "cut": '{"lab": "LLM06", "experiments": [',
    "not UTF-8": "\udcff",
    "deep": "[" * 100_000,
    "a list": "[1, 2]",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_run_is_listed_as_unreadable(tmp_path: Path, damage: str) -> None:
    folder = add_run(tmp_path, "LLM06", STAMP.format(day=1, minute=0), {})
    content = DAMAGED[damage].encode("utf-8", "surrogateescape")
    (folder / "results.json").write_bytes(content)
    assert runs.find(tmp_path)[0].state == runs.UNREADABLE
    assert "Its results.json is damaged." in page_text(tmp_path)


@pytest.mark.parametrize("data", [
    {},
    {"experiments": None, "environment": [], "timings": 3},
    {"experiments": [None, 3, {}, {"checks": 1}, {"measurements": [{}, 2]}], "title": ["x"]},
    {"timings": {"seconds": "long", "experiments": [1]}, "environment": {"seed": {"a": [1]}}},
    {"experiments": [{"name": "a", "verdict": "splendid", "figures": [1, None, "../../x"]}]},
])  # fmt: skip
def test_a_run_without_the_keys_of_today_is_listed(tmp_path: Path, data: dict[str, Any]) -> None:
    add_run(tmp_path, "LLM06", STAMP.format(day=1, minute=0), data)
    assert len(listed(tmp_path)) == 1
    assert "../" not in page_text(tmp_path)


def test_what_is_no_run_is_left_out(tmp_path: Path) -> None:
    add_run(tmp_path, "LLM06", "checkpoints", results())
    real = add_run(tmp_path / "elsewhere", "LLM06", STAMP.format(day=1, minute=0), results())
    (tmp_path / "LLM06" / STAMP.format(day=2, minute=0)).symlink_to(real)
    (tmp_path / "LLM06" / STAMP.format(day=3, minute=0)).symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "a file").write_text("x")
    assert listed(tmp_path) == []
    assert "There is no run yet" in page_text(tmp_path)


def test_a_run_without_results_is_not_finished(tmp_path: Path) -> None:
    add_run(tmp_path, "LLM06", STAMP.format(day=1, minute=0), None)
    page = page_text(tmp_path)
    assert "not finished" in page
    assert f'href="LLM06/{STAMP.format(day=1, minute=0)}/log.txt"' in page


def test_a_run_without_experiments_is_unfinished(tmp_path: Path) -> None:
    add_run(tmp_path, "LLM06", STAMP.format(day=1, minute=0), results())
    add_run(tmp_path, "LLM06", STAMP.format(day=1, minute=1), results(experiments=[]))
    complete, unfinished = page_text(tmp_path).split('<details id="unfinished">')
    assert "1 run, the newest first" in complete
    assert STAMP.format(day=1, minute=1) in unfinished
    assert "1 unfinished run<" in unfinished


@pytest.mark.parametrize(
    ("ran", "words"),
    [(1, "only loss"), (3, "3 of 6 experiments")],
)
def test_a_partial_run_is_marked(tmp_path: Path, ran: int, words: str) -> None:
    data = results(not_run=["a", "b", "c"])
    parts = experiment("parts", "held", 1.0)
    data["experiments"] = [parts, *data["experiments"][:ran]]
    add_run(tmp_path, "LLM06", STAMP.format(day=1, minute=0), data)
    assert f"<strong>{words}</strong>" in page_text(tmp_path)


def test_nothing_in_a_run_becomes_markup(tmp_path: Path) -> None:
    hostile = results(title="</script><script>boom()</script>")
    hostile["experiments"][0]["claim"] = "</script><img src=x onerror=boom()>"
    hostile["environment"]["device"] = "<b>bold</b>"
    add_run(tmp_path, "LLM06", STAMP.format(day=1, minute=0), hostile)
    page = page_text(tmp_path)
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img src=x" not in page
    assert "<b>" not in page


# How it is written


def test_two_runs_that_end_at_once_are_both_listed(tmp_path: Path) -> None:
    def end(number: int) -> None:
        add_run(tmp_path, "LLM06", STAMP.format(day=1, minute=number), results(number))
        index.update(tmp_path)

    threads = [threading.Thread(target=end, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "index.html").read_text("utf-8").count("data-run=") == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LLM06", "index.html"]


def test_what_a_killed_run_left_behind_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".index-abc.part").write_text("half")
    index.update(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").stat().st_mode & 0o777 == 0o644


def test_each_run_updates_the_page(clone: Clone) -> None:
    lab = clone.kit_lab(NOTHING)
    ended = clone.labs(lab)
    assert ended.code == 0, ended
    assert f'data-run="{only_run(clone).name}"' in (clone.outputs / "index.html").read_text("utf-8")


def test_a_page_that_cannot_be_written_fails_no_run(clone: Clone) -> None:
    (clone.outputs / "index.html" / "in the way").mkdir(parents=True)
    ended = clone.labs(clone.kit_lab(NOTHING))
    assert ended.code == 0, ended
    assert "The page of all runs wasn't updated. IsADirectoryError" in ended.out
    assert (only_run(clone) / "report.html").is_file()
    assert not list(clone.outputs.glob(".index-*"))


# In the browser


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of two labs, of two seeds, and of every kind of damage."""
    folder = tmp_path_factory.mktemp("outputs")
    for seed in (0, 1):
        other = results(seed, 0.5 + seed / 10)
        add_run(folder, "LLM06", STAMP.format(day=1, minute=seed), other)
    second = results(1, 0.6)
    second["experiments"][1]["verdict"] = "held"
    second["environment"]["device"] = "GPU"
    add_run(folder, "LLM06", STAMP.format(day=1, minute=2), second)
    add_run(folder, "LLM07", STAMP.format(day=2, minute=0), results(title="LoRA"))
    add_run(folder, "LLM07", STAMP.format(day=3, minute=0), None)
    add_run(folder, "LLM07", STAMP.format(day=4, minute=0), "{")
    index.update(folder)
    return folder


@pytest.fixture
def page(browser: Any, outputs: Path) -> Iterator[Any]:
    """Open the page; it may ask for nothing but files beside it, and report no error."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    errors: list[str] = []
    asked: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto((outputs / "index.html").as_uri())
    yield opened
    assert errors == []
    assert [url for url in asked if not url.startswith((outputs.as_uri(), "data:"))] == []
    context.close()


def box(page: Any, lab: str, minute: int, day: int = 1) -> Any:
    name = STAMP.format(day=day, minute=minute)
    return page.locator(f'[data-lab="{lab}"][data-run="{name}"] input')


def rows(page: Any) -> dict[str, list[str]]:
    """Return the visible values of the comparison by name; those that differ start with ≠."""
    found = {}
    for row in page.locator("#groups tbody tr:visible").all():
        mark = "≠ " if "differs" in (row.get_attribute("class") or "") else ""
        found[mark + row.locator("th").inner_text()] = row.locator("td").all_inner_texts()
    return found


def test_two_seeds_are_compared_and_differences_are_marked(page: Any) -> None:
    box(page, "LLM06", 1).check()
    assert page.inner_text("#message") == "Choose a second run of LLM06 to compare."
    box(page, "LLM06", 0).check()
    assert page.inner_text("#comparison-title") == "LLM06: seed 0 and seed 1"
    assert page.evaluate("document.activeElement.id") == "comparison-title"
    assert rows(page) == {
        "≠ seed": ["0", "1"],
        "≠ the error": ["0.5 (passed)", "0.6 (passed)"],
        "≠ the loss": ["1 nats (held)", "1.2 nats (held)"],
    }
    assert page.inner_text("#conclusion") == "No verdict differs."
    assert page.inner_text("#summary") == "≠ 3 settings and values differ, 9 are equal."


def test_what_is_equal_can_be_shown(page: Any) -> None:
    box(page, "LLM06", 0).check()
    box(page, "LLM06", 1).check()
    page.check("#everything")
    shown = rows(page)
    assert shown["size"] == ["tiny", "tiny"]
    assert shown["hash of the package list"] == ["0123456789ab"] * 2
    assert shown["The claim of figure."] == ["not held"] * 2
    assert "≠ seed" in shown


def test_timings_are_shown_and_never_marked(page: Any) -> None:
    box(page, "LLM06", 0).check()
    box(page, "LLM06", 1).check()
    page.click("summary")
    shown = rows(page)
    assert shown["seconds"] == ["10", "11"]
    assert shown["speed: elapsed"] == ["10 s", "11 s"]
    assert shown["The claim of speed."] == ["held", "held"]


def test_two_machines_differ_in_device_and_verdict(page: Any) -> None:
    box(page, "LLM06", 1).check()
    box(page, "LLM06", 2).check()
    assert page.inner_text("#comparison-title") == "LLM06: CPU, 2 threads and GPU"
    assert page.inner_text("#conclusion") == "1 verdict differs: The claim of figure."
    weight = "one => getComputedStyle(one).fontWeight"
    cells = page.locator("#groups .differs td")
    assert [cell.evaluate(weight) for cell in cells.all()] == ["400", "400", "600", "600"]
    assert rows(page) == {
        "≠ device": ["CPU, 2 threads", "GPU"],
        "≠ The claim of figure.": ["not held", "held"],
    }


def compare(browser: Any, outputs: Path, first: dict[str, Any], second: dict[str, Any]) -> Any:
    """Open the page of two runs with these results, and compare them."""
    for minute, data in enumerate((first, second)):
        add_run(outputs, "LLM06", STAMP.format(day=1, minute=minute), data)
    opened = browser.new_page()
    opened.goto(index.update(outputs).as_uri())
    for minute in (0, 1):
        box(opened, "LLM06", minute).check()
    return opened


def test_rounding_errors_are_no_difference(browser: Any, tmp_path: Path) -> None:
    opened = compare(browser, tmp_path, results(value=3e-16), results(value=-2.5e-12))
    assert rows(opened) == {}
    opened.check("#everything")
    error = opened.locator("#groups tr", has_text="the error").first
    assert error.locator("td").all_inner_texts() == ["3e-16 (passed)", "-2.5e-12 (passed)"]
    opened.context.close()


def test_a_rounding_error_and_a_larger_value_differ(browser: Any, tmp_path: Path) -> None:
    opened = compare(browser, tmp_path, results(value=3e-16), results(value=3e-6))
    assert "≠ the error" in rows(opened)
    opened.context.close()


def test_a_verdict_that_depends_on_time_counts_as_a_verdict(browser: Any, tmp_path: Path) -> None:
    slow = results()
    slow["timings"]["experiments"]["speed"]["verdict"] = "not held"
    opened = compare(browser, tmp_path, results(), slow)
    assert opened.inner_text("#conclusion") == "1 verdict differs: The claim of speed."
    opened.click("#groups summary")
    assert rows(opened)["≠ The claim of speed."] == ["held", "not held"]
    opened.context.close()


@pytest.mark.parametrize(
    ("ran", "words"),
    [
        (["loss"], "No verdict differs. Only one experiment is in both runs."),
        (["loss", "shown"], "No verdict differs. Only 2 of 4 experiments are in both runs."),
        (["none"], "No experiment is in both runs."),
    ],
)
def test_the_comparison_with_a_partial_run_says_so(
    browser: Any, tmp_path: Path, ran: list[str], words: str
) -> None:
    part = results()
    part["experiments"] = [one for one in part["experiments"] if one["name"] in ran]
    if ran == ["none"]:
        part["experiments"] = [experiment("none", "held", 1.0)]
    opened = compare(browser, tmp_path, results(), part)
    assert opened.inner_text("#conclusion") == words
    assert "in one of the runs" not in opened.inner_text("#summary")
    opened.context.close()


def test_two_equal_runs_are_named_by_their_times(browser: Any, tmp_path: Path) -> None:
    opened = compare(browser, tmp_path, results(), results())
    title = opened.inner_text("#comparison-title")
    assert title == "LLM06: 2026-11-01 10:00:00 and 2026-11-01 10:01:00"
    assert "2026-11-01 10:01:00" in opened.locator(".when").all_inner_texts()
    opened.context.close()


def test_a_chosen_run_stays_in_its_place(page: Any) -> None:
    title = page.locator("[data-lab=LLM06] h2").first
    before = title.bounding_box()["x"]
    box(page, "LLM06", 2).check()
    assert page.locator(".run.chosen").count() == 1
    assert title.bounding_box()["x"] == before


def test_a_run_without_a_figure_leaves_no_gap(browser: Any, tmp_path: Path) -> None:
    for minute in (0, 1):
        folder = add_run(tmp_path, "LLM06", STAMP.format(day=1, minute=minute), results())
    shutil.rmtree(folder / "figures")
    opened = browser.new_page()
    opened.goto(index.update(tmp_path).as_uri())
    bare, pictured = [title.bounding_box()["x"] for title in opened.locator(".run h2").all()]
    assert bare == opened.locator("header .name").bounding_box()["x"]
    assert pictured > bare
    opened.context.close()


def test_a_third_run_or_one_of_another_lab_replaces_the_choice(page: Any) -> None:
    for minute in (0, 1, 2):
        box(page, "LLM06", minute).check()
    assert page.locator(".run input:checked").count() == 1
    box(page, "LLM07", 0, day=2).check()
    assert page.locator(".run input:checked").count() == 1
    assert page.is_hidden("#comparison")


def test_the_page_works_by_keyboard(page: Any) -> None:
    box(page, "LLM06", 0).focus()
    page.keyboard.press("Space")
    box(page, "LLM06", 1).focus()
    page.keyboard.press("Space")
    assert page.is_visible("#comparison")
    for _ in range(2):  # past the choice of what is shown
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.is_hidden("#comparison")
    assert page.evaluate("document.activeElement.type") == "checkbox"


def test_one_lab_can_be_shown_alone(page: Any) -> None:
    page.select_option("#lab", "LLM06")
    assert page.locator(".run:visible").count() == 3
    assert page.is_hidden("#unfinished")
    page.select_option("#lab", "LLM07")
    page.click("#unfinished summary")
    assert page.locator(".run:visible").count() == 3
    page.select_option("#lab", "")
    assert page.locator(".run:visible").count() == 6


def test_without_script_the_list_works(browser: Any, outputs: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((outputs / "index.html").as_uri())
    assert page.locator(".run:visible").count() == 5
    page.click("#unfinished summary")
    assert page.locator(".run:visible").count() == 6
    assert page.locator("input:visible, select:visible").count() == 0
    page.click('[data-lab="LLM06"] a >> nth=0')
    assert page.title() == "A report"
    context.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_anybody_can_read_it(browser: Any, outputs: Path, width: int, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto((outputs / "index.html").as_uri())
    assert violations(page) == []
    box(page, "LLM06", 0).check()
    box(page, "LLM06", 1).check()
    page.check("#everything")
    unfold(page)
    assert violations(page) == []
    assert overflow(page) <= 0
    context.close()


def test_only_the_pictures_in_sight_of_hundreds_are_loaded(browser: Any, tmp_path: Path) -> None:
    for number in range(300):
        name = STAMP.format(day=1 + number // 60, minute=number % 60)
        add_run(tmp_path, "LLM06", name, results(number, number / 7))
    written = index.update(tmp_path)
    assert written.stat().st_size < 300 * 4_000, "bytes; measured: 2,700 for a run of a real lab"
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    pictures: list[str] = []
    page.on("request", lambda one: pictures.append(one.url) if one.url.endswith("svg") else None)
    page.goto(written.as_uri())
    page.wait_for_load_state("networkidle")
    assert 0 < len(pictures) < 100
    context.close()
