"""The notes that a seat shows in JupyterLab, in a real browser; no server runs here."""

import json
from collections.abc import Iterator
from typing import Any

from launcher import DOCKER_FOLDER

import pytest

SCRIPT = DOCKER_FOLDER / "seat_lab" / "static" / "notes.js"
ADDRESS = "http://seat.test/user/ada/lab"
MESSAGE = {"id": "2026-11-29T10:00:00Z", "text": "Your teacher: <b>Open</b> LLM06."}
QUOTA = {"id": "quota", "text": "Your files take 17 of 20 MB."}
BARS = ".llm-labs-notes > div"
# As JupyterLab does: load the extension, get its plugin, and activate it.
ACTIVATE = """async () => {
    const extension = window._JUPYTERLAB["llm-labs-notes"];
    await extension.init({});
    const plugin = (await extension.get("./extension"))().default;
    const serverSettings = { baseUrl: `${location.origin}/user/ada/` };
    window.started = Promise.withResolvers();
    plugin.activate({ serviceManager: { serverSettings }, started: window.started.promise });
}"""


class Seat:
    """A page of JupyterLab, and the notes that its server has."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.notes: list[dict[str, str]] | None = []
        self.end = ""  # of a seat that the hub has stopped, on the hub's page
        self.tokens: list[str] = []
        page.route("**/*", self._reply)

    def _reply(self, route: Any) -> None:
        if route.request.url.endswith("/hub/user/ada/lab"):
            route.fulfill(status=424, body=self.end, content_type="text/html")
            return
        if not route.request.url.endswith("/llm-labs-notes"):
            cookie = {"Set-Cookie": "_xsrf=a-token; Path=/user/ada/"}
            body = "<title>a</title><div id='main' style='position: absolute; top: 0'></div>"
            route.fulfill(body=body, content_type="text/html", headers=cookie)
            return
        self.tokens.append(route.request.headers["x-xsrftoken"])
        if self.end:
            route.fulfill(status=302, headers={"Location": "/hub/user/ada/llm-labs-notes"})
        elif self.notes is None:
            route.fulfill(status=503, body="gone")
        else:
            route.fulfill(json=self.notes)

    def open(self) -> None:
        self.page.goto(ADDRESS)
        self.page.add_script_tag(path=SCRIPT)
        self.page.evaluate(ACTIVATE)

    def look(self, notes: list[dict[str, str]] | None) -> list[str]:
        """Return the notes that the page shows once it has asked for these."""
        self.notes = notes
        with self.page.expect_request("**/llm-labs-notes"):
            self.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        self.page.wait_for_timeout(300)
        return self.page.locator(f"{BARS} > span").all_text_contents()


@pytest.fixture
def seat(browser: Any) -> Iterator[Seat]:
    context = browser.new_context(timezone_id="Asia/Tokyo", locale="en-GB")
    opened = Seat(context.new_page())
    opened.open()
    yield opened
    context.close()


def test_a_note_is_shown_replaced_and_removed(seat: Seat) -> None:
    assert seat.look([MESSAGE, QUOTA]) == [MESSAGE["text"], QUOTA["text"]]
    assert seat.page.locator(f"{BARS} b").count() == 0, "a text is no HTML"
    more = {**QUOTA, "text": "Your files take 18 of 20 MB."}
    assert seat.look([more]) == [more["text"]]
    assert seat.look([]) == []
    assert set(seat.tokens) == {"a-token"}


def test_a_note_that_was_dismissed_comes_back_only_after_it_was_gone(seat: Seat) -> None:
    seat.look([MESSAGE, QUOTA])
    seat.page.locator(BARS).nth(1).get_by_role("button", name="Dismiss").click()
    assert seat.look([MESSAGE, {**QUOTA, "text": "17.5 of 20 MB"}]) == [MESSAGE["text"]]
    seat.open()
    assert seat.look([MESSAGE, QUOTA]) == [MESSAGE["text"]], "also after a reload"
    seat.look([MESSAGE])
    assert seat.look([QUOTA, MESSAGE]) == [MESSAGE["text"], QUOTA["text"]]


def test_a_seat_that_doesn_t_respond_twice_says_so_until_it_does(seat: Seat) -> None:
    seat.look([MESSAGE])
    assert seat.look(None) == [MESSAGE["text"]]
    message, down = seat.look(None)
    assert message == MESSAGE["text"]
    assert down.startswith("Your seat doesn't respond. Wait a moment, then reload this page.")
    assert seat.look([MESSAGE]) == [MESSAGE["text"]]


def test_jupyterlab_moves_down_so_that_a_note_covers_nothing(seat: Seat) -> None:
    top = "document.getElementById('main').getBoundingClientRect().top"
    bottom = "document.querySelector('.llm-labs-notes').getBoundingClientRect().bottom"
    seat.look([MESSAGE, QUOTA])
    assert seat.page.evaluate(top) == seat.page.evaluate(bottom) > 40
    seat.look([])
    assert seat.page.evaluate(top) == 0


def test_jupyterlab_moves_down_also_if_it_starts_after_a_note_is_shown(seat: Seat) -> None:
    height = "document.querySelector('.llm-labs-notes').offsetHeight"
    seat.page.evaluate("document.getElementById('main').remove()")
    seat.look([MESSAGE, QUOTA])
    seat.page.evaluate(
        """() => {
            const main = document.createElement("div");
            main.id = "main";
            document.body.append(main);
            window.started.resolve();
        }"""
    )
    top = seat.page.evaluate("document.getElementById('main').style.top")
    assert top == f"{seat.page.evaluate(height)}px" != "0px"


def test_a_time_is_shown_in_the_time_zone_of_the_browser(seat: Seat) -> None:
    note = {"id": "end", "text": "This seat stops at 2026-11-29T23:51:07Z. Save your work."}
    assert seat.look([note]) == ["This seat stops at 08:51. Save your work."]


def test_a_seat_that_the_hub_stopped_says_why_and_when(seat: Seat) -> None:
    seat.look([MESSAGE])
    time = '<time datetime="2026-11-29T23:51:07Z">23:51 UTC</time>'
    seat.end = f'<p id="end-of-seat">Your seat was stopped at\n {time}: your files take 145 MB.</p>'
    shown = "Your seat was stopped at 08:51: your files take 145 MB. Reload this page to start it"
    assert seat.look([]) == [f"{shown} again."]


def test_a_seat_that_ended_for_an_unknown_reason_keeps_its_notes(seat: Seat) -> None:
    seat.look([MESSAGE])
    seat.end = "<p>Your seat isn't running.</p>"
    assert seat.look([]) == [MESSAGE["text"]]


def test_the_package_names_the_script(seat: Seat) -> None:
    package = json.loads((DOCKER_FOLDER / "seat_lab" / "package.json").read_text())
    build = package["jupyterlab"]["_build"]
    assert (SCRIPT.parents[1] / build["load"]) == SCRIPT
    names = seat.page.evaluate("Object.keys(window._JUPYTERLAB)")
    assert names == [package["name"]]
