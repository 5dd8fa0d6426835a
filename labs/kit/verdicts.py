"""What became of a part, in words: right, wrong and why, stopped and why, not written yet."""

import re
import signal
from dataclasses import dataclass, replace
from typing import Any

from labs.kit.fence import Ended, Limits

RIGHT, WRONG, NOT_WRITTEN = "right", "wrong", "not written yet"
MOST_PRINTED = 10  # lines


@dataclass(frozen=True)
class Verdict:
    """A part's verdict. `said` names the likely mistake, `line` is the sheet's."""

    part: str
    state: str
    said: str = ""
    given: str = ""
    expected: str = ""
    came: str = ""
    line: int = 0
    code: str = ""
    printed: str = ""


def of(part: str, ended: Ended, limits: Limits, sheet: str, text: str) -> Verdict:
    """The verdict on a part whose check has ended so; `sheet` is its file, `text` what it says.

    What is shown of its printing is the failing call's, where that is known, or else all.
    """
    if ended.how == "answered":
        printed = _last_lines(ended.answer.get("printed", ended.output))
        return replace(_answered(part, ended.answer), printed=printed)
    printed = _last_lines(ended.output)
    line = _line_of(ended.trace, sheet)
    code = text.splitlines()[line - 1] if line else ""
    return Verdict(part, WRONG, _stopped(ended, limits), line=line, code=code, printed=printed)


def _answered(part: str, found: dict[str, Any]) -> Verdict:
    if found["right"]:
        return Verdict(part, RIGHT)
    known = {
        key: found[key] for key in ("given", "expected", "came", "line", "code") if key in found
    }
    said = _of_error(found) if "kind" in found else found["said"]
    return Verdict(part, WRONG, said, **known)


def _of_error(found: dict[str, Any]) -> str:
    kind, text = str(found["kind"]), str(found["said"])
    if kind == "MemoryError" or "allocate memory" in text or "out of memory" in text:
        return f"it asked for more memory than its {Limits.memory >> 30} GiB: how large is it?"
    if kind == "PermissionError" or "Read-only file system" in text:
        return f"it may change no files but temporary ones: {text}"
    known = {
        "RecursionError": "it calls itself without end",
        "SystemExit": "it ended the program (exit): return the answer instead",
        "NotImplementedError": "a piece of it still says `raise NotImplementedError`",
        "SyntaxError": f"that can't be read as Python: {text}",
        "IndentationError": f"that can't be read as Python: {text}",
        "TabError": f"that can't be read as Python: {text}",
        "EOFError": "it waits for input, and nobody is there to type",
    }
    if kind in known:
        return known[kind]
    if kind == "ModuleNotFoundError":
        return f"{text[0].lower()}{text[1:]} here: the labs' packages are all that there is"
    if found.get("inside") is False or "line" not in found:
        return f"its check stumbled over its answer, with {kind}: {text}"
    return f"it raised {kind}: {text}"


def _stopped(ended: Ended, limits: Limits) -> str:
    if ended.how == "time":
        return (
            f"it didn't end in {limits.cpu_seconds} s of computing or {limits.seconds:.0f} s in "
            "all, and was stopped: is there an endless loop?"
        )
    if ended.how == "processes":
        return f"it started more processes than its limit allows, {limits.processes}: all are ended"
    if ended.how == "output":
        return f"it printed more than {limits.output >> 20} MiB, and was stopped: in a loop?"
    if ended.how == "killed" and ended.code == signal.SIGKILL:
        return "it was killed (SIGKILL), most likely because memory ran out"
    if ended.how == "killed":
        return f"it crashed Python itself ({signal.Signals(ended.code).name})"
    return f"it ended Python itself, with code {ended.code} (os._exit?): return the answer instead"


def _line_of(trace: str, sheet: str) -> int:
    """The sheet's innermost line in what faulthandler wrote."""
    found = re.search(rf'File "{re.escape(sheet)}", line (\d+)', trace)
    return int(found[1]) if found else 0


def _last_lines(text: str) -> str:
    lines = text.strip().splitlines()
    cut = ["…"] if len(lines) > MOST_PRINTED else []
    return "\n".join([*cut, *(line[:200] for line in lines[-MOST_PRINTED:])])
