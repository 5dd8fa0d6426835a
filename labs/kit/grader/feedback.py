"""What the grader prints: a line for each exercise, then one thing to do."""

from collections.abc import Sequence
from pathlib import Path

from common import classroom, source
from common.progress import Part, Record
from common.sheets import Exercise, exercises
from common.syllabus import Lesson, deeper_part, following
from common.terminal import labelled, line, screen
from labs.kit.grader.verdicts import NOT_WRITTEN, RIGHT, WRONG, Verdict

from rich.markdown import Markdown
from rich.rule import Rule
from rich.syntax import Syntax

MARKS = {RIGHT: ("✓", "green"), WRONG: ("✗", "bold red"), NOT_WRITTEN: ("·", "dim")}


def print_verdicts(path: Path, lesson: Lesson, verdicts: Sequence[Verdict], record: Record) -> None:
    """Print a line for each exercise."""
    screen().print(Rule(f"{lesson.name} · {lesson.title} · {path}", align="left"))
    for verdict in verdicts:
        mark, style = MARKS[verdict.state]
        line(f" {mark} {verdict.part}{_remark(verdict, record.of(verdict.part))}", style)


def _remark(verdict: Verdict, part: Part) -> str:
    if verdict.state == NOT_WRITTEN:
        return f"  {NOT_WRITTEN}"
    if verdict.state == WRONG and part.done:
        return "  it was right before"
    return f"  after {part.tries} tries" if verdict.state == RIGHT and part.tries > 1 else ""


def print_older_sheet(lesson: Lesson) -> None:
    """Report that the lab has changed since the sheet was made."""
    line(f"{lesson.name} has changed since this sheet was made. The sheet is checked all the same.")
    line(f"To see what has changed: invoke learn {lesson.name}")


def print_newly_right(lesson: Lesson, parts: Sequence[str]) -> None:
    """Name the parts that have just passed, and where to see the lab's solution."""
    if parts:
        verb = "is" if len(parts) == 1 else "are"
        line(f"{', '.join(parts)} {verb} right. {_where_solution_is(lesson.name, parts[0])}")


def _where_solution_is(lab: str, part: str) -> str:
    if classroom.solutions_locked(lab):
        return classroom.LATER
    return f"The lab's solution: invoke check {lab} --solution {part}"


def print_mistake(place: str, verdict: Verdict, exercise: Exercise) -> None:
    """Print what is wrong with a part: task, arguments, expected and actual result, the mistake."""
    line("")
    line(f"{verdict.part}, level {exercise.level}", "bold")
    for label, text in (
        ("task", exercise.task),
        ("arguments", verdict.arguments),
        ("expected", verdict.expected),
        ("got", verdict.got),
        ("likely" if verdict.expected else "mistake", verdict.message),
        ("where", place),
    ):
        if text:
            labelled(label, text)
    if verdict.printed:
        labelled("printed", verdict.printed)


def print_other_mistakes(lab: str, verdicts: Sequence[Verdict]) -> None:
    """Print what is wrong with further parts, in one line each."""
    if verdicts:
        line("\nWrong, too:", "bold")
        for verdict in verdicts:
            labelled(verdict.part, verdict.message.partition("\n")[0])
        line(f" in full: invoke check {lab} --all")


def print_hints(exercise: Exercise, number: int, lab: str, done: bool, another: str = "") -> None:
    """Print the first `number` hints; all of them once the part is right.

    Args:
        exercise: The exercise.
        number: How many hints the learner has seen.
        lab: The lab's name.
        done: Whether the part is right.
        another: What shows one more hint; by default a command.
    """
    seen = exercise.hints if done else exercise.hints[:number]
    for position, hint in enumerate(seen, 1):
        labelled(f"hint {position}", hint)
    if len(seen) < len(exercise.hints):
        another = another or f"invoke check {lab} --hint {exercise.part}"
        line(f" another hint: {another}")
    elif not done:
        line(f" That was the last hint. {_where_solution_is(lab, exercise.part)}")


def print_solution(text: str, exercise: Exercise) -> None:
    """Print the lab's own function from the lab's source."""
    node = exercise.node
    lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
    line("")
    console = screen()
    if console.is_terminal:
        console.print(Syntax("\n".join(lines), "python", theme="ansi_light"))
    else:
        console.print("\n".join(lines), markup=False, soft_wrap=True)


def print_ending(lesson: Lesson, text: str, report: str) -> None:
    """Print what was learned and what to do next, in the words of the lab."""
    prose = [cell.text for cell in source.split(text) if cell.prose]
    line("")
    screen().print(Rule(f"All of {lesson.name}'s exercises are right", align="left"))
    screen().print(Markdown(_abilities(prose[0])))
    screen().print(Markdown(prose[-1]))
    if report:
        line(f"What your last run measured is in its report: {report}", "dim")
    deeper = deeper_part(lesson)
    if deeper:
        verb = "learn" if exercises(deeper.source) else "lab"
        line(f"Deeper: invoke {verb} {deeper.name}, {deeper.title}. {deeper.blurb}")
    after = following(lesson)
    if after:
        line(f"Next: invoke learn {after.name}, {after.title}. {after.blurb}")


def print_experiments_failed(lesson: Lesson) -> None:
    """Print what to do if every exercise is right, but an experiment crashed or failed."""
    name = lesson.name
    line("")
    screen().print(
        Rule(f"All of {name}'s exercises are right, but an experiment failed", align="left")
    )
    line("The lines above say which one, and where. Did you change code outside the exercises?")
    line(f"To see how they end with the lab's own code: invoke lab {name}")


def _abilities(opening: str) -> str:
    """Return the paragraph of the opening cell that says what the learner will be able to do."""
    paragraphs = [text for text in opening.split("\n\n") if "You will be able to" in text]
    text = paragraphs[0] if paragraphs else opening
    text = text.split("**Builds on**")[0]
    return text.replace("You will be able to", "You are now able to")
