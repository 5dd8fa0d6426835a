"""How the grader talks: a line for each exercise, then one thing to do."""

from collections.abc import Sequence
from pathlib import Path

from labs.kit import cells
from labs.kit.progress import Part, Record
from labs.kit.sheets import Exercise
from labs.kit.syllabus import Lesson, lessons
from labs.kit.verdicts import NOT_WRITTEN, RIGHT, WRONG, Verdict

from rich.console import Console
from rich.markdown import Markdown
from rich.rule import Rule
from rich.syntax import Syntax
from rich.text import Text

MARKS = {RIGHT: ("✓", "green"), WRONG: ("✗", "bold red"), NOT_WRITTEN: ("·", "dim")}
WIDTH = 100


def screen() -> Console:
    """Standard output; on a pipe, plain and of a fixed width."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def line(text: str, style: str = "") -> None:
    """A line of output, wrapped by words on a terminal and never on a pipe."""
    console = screen()
    console.print(Text(text, style=style), soft_wrap=not console.is_terminal)


def table(path: Path, lesson: Lesson, verdicts: Sequence[Verdict], record: Record) -> None:
    """A line for each exercise."""
    screen().print(Rule(f"{lesson.name} · {lesson.title} · {path}", align="left"))
    for verdict in verdicts:
        mark, style = MARKS[verdict.state]
        line(f" {mark} {verdict.part}{_aside(verdict, record.of(verdict.part))}", style)


def _aside(verdict: Verdict, part: Part) -> str:
    if verdict.state == NOT_WRITTEN:
        return f"  {NOT_WRITTEN}"
    if verdict.state == WRONG and part.done:
        return "  it was right before"
    return f"  after {part.tries} tries" if verdict.state == RIGHT and part.tries > 1 else ""


def older(lesson: Lesson) -> None:
    """The sheet was made from another release of the lab."""
    line(f"Made from another release of {lesson.name}, and checked all the same.")
    line(f"What has changed since: invoke learn {lesson.name}")


def compare(lesson: Lesson, parts: Sequence[str]) -> None:
    """Parts that have just passed: how the lab does them may be looked at."""
    if parts:
        are = "is" if len(parts) == 1 else "are"
        how = _how_the_lab_does(lesson.name, parts[0])
        line(f"{', '.join(parts)} {are} right. How the lab does it: {how}")


def _how_the_lab_does(lab: str, part: str) -> str:
    return f"invoke check {lab} --solution {part}"


def wrong(at: str, verdict: Verdict, exercise: Exercise) -> None:
    """What is wrong with a part: what was asked, given, expected, what came, the likely mistake."""
    line("")
    line(f"{verdict.part}, level {exercise.level}", "bold")
    for label, text in (
        ("asked", exercise.asked),
        ("given", verdict.given),
        ("expected", verdict.expected),
        ("came", verdict.came),
        ("likely" if verdict.expected else "what", verdict.said),
        ("where", at),
    ):
        if text:
            labelled(label, text)
    if verdict.printed:
        labelled("printed", verdict.printed)


def labelled(label: str, text: str) -> None:
    console = screen()
    if not console.is_terminal:
        text = text.replace("\n", f"\n{' ' * 11}")
        console.print(f" {label:9} {text}", markup=False, soft_wrap=True)
        return
    body = Text(text).wrap(console, max(20, console.width - 12))
    for number, part in enumerate(body):
        console.print(Text.assemble((f" {label if not number else '':9} ", "bold"), part))


def hints(exercise: Exercise, upto: int, lab: str, done: bool) -> None:
    """The hints that were asked for so far; all of them once the part is right."""
    seen = exercise.hints if done else exercise.hints[:upto]
    for number, hint in enumerate(seen, 1):
        labelled(f"hint {number}", hint)
    if len(seen) < len(exercise.hints):
        labelled("", f"another hint: invoke check {lab} --hint {exercise.part}")
    elif not done:
        labelled("", f"that was the last; the lab's own: {_how_the_lab_does(lab, exercise.part)}")


def solution(source: str, exercise: Exercise) -> None:
    """The lab's own function, as it stands there."""
    node = exercise.node
    lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
    line("")
    console = screen()
    if console.is_terminal:
        console.print(Syntax("\n".join(lines), "python", theme="ansi_light"))
    else:
        console.print("\n".join(lines), markup=False, soft_wrap=True)


def ending(lesson: Lesson, source: str) -> None:
    """What was learned and what to try next, in the words of the lab."""
    prose = [cell.text for cell in cells.split(source) if cell.prose]
    line("")
    screen().print(Rule(f"All of {lesson.name}'s exercises are right", align="left"))
    screen().print(Markdown(_can_do(prose[0])))
    screen().print(Markdown(prose[-1]))
    line(f'("Above" is in the report of the last run, under outputs/{lesson.name}/.)', "dim")
    following = [one for one in lessons() if one.name > lesson.name][:1]
    for one in following:
        line(f"Next: invoke learn {one.name}, {one.title}. {one.blurb}")


def _can_do(first: str) -> str:
    """The paragraph of the opening cell that says what one will be able to do."""
    found = [one for one in first.split("\n\n") if "You will be able to" in one]
    text = found[0] if found else first
    return text.split("**Builds on**")[0].replace("You will be able to", "You are now able to")
