"""Word a verdict: right, wrong and why, or stopped and why."""

import re
import signal
from dataclasses import replace
from typing import Any

from labs.kit.grader.verdicts import RIGHT, WRONG, Verdict
from labs.kit.run.plain_output import plain
from labs.kit.sandbox.limits import Limits, Outcome

PRINTED_LINES = 10
PRINTED_COLUMNS = 200
KNOWN_ERRORS = {
    "RecursionError": "it calls itself endlessly",
    "SystemExit": "it ended the program (exit): return a value instead",
    "NotImplementedError": "a part of it still says `raise NotImplementedError`",
    "EOFError": "it waits for input, and there is none",
}
SYNTAX_ERRORS = ("SyntaxError", "IndentationError", "TabError")


def verdict_of(part: str, outcome: Outcome, limits: Limits, sheet: str, text: str) -> Verdict:
    """Return the verdict on a part whose check ended with `outcome`.

    Args:
        part: the exercise.
        outcome: how the child process of the check ended.
        limits: what the child was allowed to use.
        sheet: the sheet's path.
        text: the sheet's text.
    """
    verdict = _verdict_of(part, outcome, limits, sheet, text)
    words = ("message", "arguments", "expected", "got", "code", "printed")
    return replace(verdict, **{name: plain(str(getattr(verdict, name))) for name in words})


def _verdict_of(part: str, outcome: Outcome, limits: Limits, sheet: str, text: str) -> Verdict:
    if outcome.kind == "returned":
        # the failing call's output if it is known, else everything that was printed
        printed = _last_lines(outcome.result.get("printed", outcome.output))
        return replace(_verdict_from(part, outcome.result), printed=printed)
    printed = _last_lines(outcome.output)
    number = _line_in(outcome.trace, sheet)
    code = text.splitlines()[number - 1] if number else ""
    message = _stop_message(outcome, limits)
    return Verdict(part, WRONG, message, line=number, code=code, printed=printed)


def _verdict_from(part: str, findings: dict[str, Any]) -> Verdict:
    if findings["right"]:
        return Verdict(part, RIGHT)
    names = ("arguments", "expected", "got", "line", "code")
    details = {name: findings[name] for name in names if name in findings}
    message = _error_message(findings) if "error" in findings else findings["message"]
    return Verdict(part, WRONG, message, **details)


def _error_message(findings: dict[str, Any]) -> str:
    error = str(findings["error"])
    text = str(findings["message"])
    if error == "MemoryError" or "allocate memory" in text or "out of memory" in text:
        gib = Limits.memory >> 30
        return f"it asked for more memory than its limit of {gib} GiB: how large is it?"
    if error == "PermissionError" and "[Errno 1]" in text:
        return f"a check has no network, no other processes and no file permissions: {text}"
    if error == "PermissionError" or "Read-only file system" in text:
        return f"it may read the labs' files and change temporary files, and no others: {text}"
    if error in SYNTAX_ERRORS:
        return f"this is not valid Python: {text}"
    if error in KNOWN_ERRORS:
        return KNOWN_ERRORS[error]
    if error == "ModuleNotFoundError":
        return f"{text[0].lower()}{text[1:]} here: only the labs' packages are installed"
    if findings.get("inside") is False or "line" not in findings:
        return f"its check failed on the result, with {error}: {text}"
    return f"it raised {error}: {text}"


def _stop_message(outcome: Outcome, limits: Limits) -> str:
    if outcome.kind == "time":
        return (
            f"it was stopped after {limits.cpu_seconds} s of computing or {limits.seconds:.0f} s "
            "in total: is there an endless loop?"
        )
    if outcome.kind == "processes":
        return f"it started more than {limits.processes} processes: all of them were ended"
    if outcome.kind == "memory":
        return f"its processes used more than {limits.memory >> 30} GiB together: how large is it?"
    if outcome.kind == "disk":
        return f"it wrote more than {limits.disk >> 20} MiB of temporary files, or 10,000 of them"
    if outcome.kind == "output":
        return f"it printed more than {limits.output >> 20} MiB and was stopped: in a loop?"
    if outcome.kind == "killed" and outcome.code == signal.SIGKILL:
        return "it was killed (SIGKILL), most likely because memory ran out"
    if outcome.kind == "killed":
        return f"it crashed Python itself ({signal.Signals(outcome.code).name})"
    return f"it ended Python itself with code {outcome.code} (os._exit?): return a value instead"


def _line_in(trace: str, sheet: str) -> int:
    """Return the sheet's innermost line in a trace by faulthandler; 0 if the sheet isn't in it."""
    match = re.search(rf'File "{re.escape(sheet)}", line (\d+)', trace)
    return int(match[1]) if match else 0


def _last_lines(text: str) -> str:
    lines = text.strip().splitlines()
    omitted = ["…"] if len(lines) > PRINTED_LINES else []
    last = [line[:PRINTED_COLUMNS] for line in lines[-PRINTED_LINES:]]
    return "\n".join([*omitted, *last])
