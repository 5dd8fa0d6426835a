"""Open a page of a run in the browser, or print its path where there is no desktop."""

from common.cards import WRONG_USAGE, Card, print_status
from launcher.pages import desktop
from launcher.pages.serve_pages import serve
from launcher.run import lab_command
from launcher.run import pages as run_pages

LARGEST_PORT = 65_535


def show(lab: str, index: bool, serving: bool, port: str) -> None:
    """Open the newest report, or serve the pages until Ctrl-C.

    Args:
        lab: A lab as the user names it; empty for every lab.
        index: Whether to open the page of all runs instead.
        serving: Whether to serve the pages on 127.0.0.1.
        port: The port for serving; empty for any.

    Raises:
        Card: If there is no such page, or the options don't fit together.
    """
    if port and not serving:
        why = "Without --serve the page is opened as a file."
        raise Card("--port needs --serve.", why, f"invoke open --serve --port {port}", WRONG_USAGE)
    number = _port(port)
    if index and lab:
        why = "The page of all runs has a choice of the lab."
        raise Card("--index takes no lab.", why, "invoke open --index", WRONG_USAGE)
    name = _lab_name(lab) if lab else ""
    page = run_pages.newest_index() if index else run_pages.newest_report(name)
    if serving:
        serve(page, number)
        return
    _open(page)


def _lab_name(text: str) -> str:
    """Return the name of the lab that `text` means.

    Raises:
        Card: If it means several.
        SystemExit: If it means none; the labs print a card.
    """
    name, *more = lab_command.plan_run(text, {}, ()).labs
    if more:
        why = f"{text} names {len(more) + 1} labs."
        raise Card("One page can be opened.", why, "invoke open LLM06", WRONG_USAGE)
    return name


def _port(text: str) -> int:
    """Return a port; 0 lets the system choose.

    Raises:
        Card: If it isn't a port.
    """
    if not text:
        return 0
    if not text.isdecimal() or not 1 <= int(text) <= LARGEST_PORT:
        why = f"A port is an integer from 1 to {LARGEST_PORT}."
        raise Card(f"--port can't be {text!r}.", why, "invoke open --serve", WRONG_USAGE)
    return int(text)


def _open(page: run_pages.Page) -> None:
    """Open a file in the desktop's browser, and print its path."""
    print(page.file)
    if reason := desktop.why_no_desktop():
        print_status(f"{reason} Open this file in a browser, or: invoke open --serve")
        return
    if problem := desktop.open_file(page.file):
        print_status(f"{problem} Open this file in a browser.")
