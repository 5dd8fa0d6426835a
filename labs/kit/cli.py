"""`python -m labs`: run one lab, or several one after the other, and end in one table."""

import json
import multiprocessing
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from labs.kit.cards import Card
from labs.kit.options import OUTPUTS, Parser, common_parser
from labs.kit.syllabus import Lesson, find, lessons

from rich.console import Console
from rich.table import Table

INTERRUPTED = 130
TERMINATED = 143
DESCRIPTION = "Run labs. What a lab has of its own follows its options, or stands behind --."
# The other things to do with labs, each with options of its own.
VERBS = {"learn": "labs.kit.work", "check": "labs.kit.check", "progress": "labs.kit.overview"}


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 a check failed, 2 usage, 3 environment, 130."""
    try:
        return _main(sys.argv[1:] if arguments is None else arguments)
    except Card as card:
        card.show()
        return card.code
    except KeyboardInterrupt:
        return INTERRUPTED


def _main(arguments: list[str]) -> int:
    if arguments and arguments[0] in VERBS:
        return import_module(VERBS[arguments[0]]).main(arguments[1:])
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    before, own = arguments[:cut], arguments[cut + 1 :]
    parsed, unknown = _parser().parse_known_args(before)
    if parsed.list or (not parsed.labs and not parsed.plan):
        _print_syllabus()
        return 0
    asked = find(parsed.labs or "")
    if parsed.plan:
        planned = [*_common(parsed), *unknown, *(["--", *own] if own else [])]
        print(json.dumps({"labs": [one.name for one in asked], "arguments": planned}))
        return 0
    passed_on = [*_common(parsed), *unknown, *own]
    return _run_one(asked[0], passed_on) if len(asked) == 1 else _run_all(asked, passed_on)


def _parser() -> Parser:
    parser = common_parser("python -m labs", DESCRIPTION)
    parser.add_argument("labs", nargs="?", help="LLM06, 6, a comma list, or all")
    parser.add_argument("--list", action="store_true", help="the syllabus")
    parser.add_argument(
        "--plan", action="store_true", help="check the options, print what would run, as JSON"
    )
    return parser


def _common(parsed: Any) -> list[str]:
    size = ["--size", parsed.size] if parsed.size else []
    flags = [f"--{one}" for one in ("online", "resume", "tensorboard") if vars(parsed)[one]]
    outputs = ["--outputs", str(parsed.outputs)] if parsed.outputs != OUTPUTS else []
    sheet = ["--sheet", str(parsed.sheet)] if parsed.sheet else []
    processes = ["--processes", str(parsed.processes)] if parsed.processes > 1 else []
    chosen = [*size, "--precision", parsed.precision, "--seed", str(parsed.seed)]
    return [*chosen, *flags, *processes, *sheet, *outputs]


def _print_syllabus() -> None:
    table = Table(box=None, padding=(0, 2))
    for column in ("lab", "title", ""):
        table.add_column(column, no_wrap=column == "lab")
    for lesson in lessons():
        table.add_row(lesson.name, lesson.title, lesson.blurb)
    Console().print(table)


def _run_one(lesson: Lesson, arguments: list[str]) -> int:
    return _open(lesson).run(arguments)


def _open(lesson: Lesson) -> Any:
    """Import a lab.

    Raises:
        Card: where this Python lacks the labs' packages.
    """
    try:
        return import_module(lesson.module).lab
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("labs"):
            raise
        raise Card(
            f"{lesson.name} can't run in this Python.",
            f"It has no {error.name}; the labs' packages are in the image or the environment.",
            f"invoke lab {lesson.name}",
        ) from error


@dataclass
class Outcome:
    """How one lab of several ended."""

    code: int
    seconds: float
    checks: str = "–"
    memory: str = "–"


def _end_by_way_of_finally(_signum: int, _frame: FrameType | None) -> None:
    sys.exit(TERMINATED)


def _run_all(asked: list[Lesson], arguments: list[str]) -> int:
    """Run each lab in a process of its own, so that memory and crashes stay apart."""
    signal.signal(signal.SIGTERM, _end_by_way_of_finally)
    outcomes = {lesson.name: _in_its_own_process(lesson, arguments) for lesson in asked}
    _print_outcomes(outcomes)
    return max(outcome.code for outcome in outcomes.values())


def _in_its_own_process(lesson: Lesson, arguments: list[str]) -> Outcome:
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_child, args=(lesson, arguments, sender))
    start = time.perf_counter()
    process.start()
    sender.close()
    try:
        process.join()
    finally:
        process.kill()
    code = process.exitcode or 0
    outcome = Outcome(code if code >= 0 else 128 - code, time.perf_counter() - start)
    with suppress(EOFError):  # it was killed before it could tell
        outcome.checks, outcome.memory = receiver.recv()
    return outcome


def _child(lesson: Lesson, arguments: list[str], sender: Connection) -> None:
    try:
        lab = _open(lesson)
    except Card as card:
        card.show()
        sys.exit(card.code)
    code = lab.run(arguments)
    sender.send(lab.summary)
    sys.exit(code)


def _print_outcomes(outcomes: dict[str, Outcome]) -> None:
    table = Table(box=None, padding=(0, 2))
    for column in ("lab", "checks", "time", "memory", ""):
        table.add_column(column, justify="right" if column in ("time", "memory") else "left")
    for name, one in outcomes.items():
        told = {0: "", 1: "a check failed"}.get(one.code, f"ended with {one.code}")
        table.add_row(name, one.checks, f"{one.seconds:.0f} s", one.memory, told)
    print()
    Console().print(table)
