"""In the child: one part of a sheet, put to its check. What is found out is plain data."""

import ast
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from labs.kit.differences import difference, kinds
from labs.kit.grading import Mistake, check_of
from labs.kit.graft import graft, implementation, load
from labs.kit.syllabus import Lesson

import torch

Found = dict[str, Any]
SECONDS_TO_REPEAT = 3  # a check that took longer might not end twice within its limit


@dataclass(frozen=True)
class Sheet:
    """A learner's sheet beside the lab that it was made from."""

    lesson: Lesson
    path: Path
    text: str

    def module(self, parts: list[str]) -> ModuleType:
        """The sheet's module, with `parts` as they are in the lab."""
        tree = graft(ast.parse(self.text), ast.parse(self.lesson.source), parts)
        return load(self.path, tree, f"{self.path.stem}_sheet")


def loads(sheet: Sheet, parts: list[str]) -> Found:
    """Can the sheet be run at all, with `parts` from the lab?"""
    try:
        sheet.module(parts)
    except BaseException as error:
        return _raised(error, sheet.path)
    return {"right": True}


def part_of(sheet: Sheet, others: list[str], part: str) -> Found:
    """Is `part` of the sheet right, where `others` are the lab's own?"""
    check = check_of(sheet.lesson.name, part)
    try:
        return _checked(sheet, sheet.module(others), part, check)
    except BaseException as error:
        return _raised(error, sheet.path)


def _checked(sheet: Sheet, module: ModuleType, part: str, check: Callable[[Any], None]) -> Found:
    start = time.process_time()
    try:
        check(implementation(module, part))
    except Exception as error:
        found: Found = {"right": False, "said": str(error)}
        if isinstance(error, Mistake) and error.told:
            return found | error.told
        short = time.process_time() - start < SECONDS_TO_REPEAT
        call = _again(module, part, check, type(error)) if short else None
        if isinstance(error, Mistake):
            return found | _compared(sheet, call, part)
        return _raised(error, sheet.path) | _shown(call)
    return {"right": True}


def imports(lesson: Lesson, parts: list[str]) -> list[str]:
    """The modules that the lab's own checks import on their way."""
    before, module = set(sys.modules), import_module(lesson.module)
    for part in parts:
        check_of(lesson.name, part)(implementation(module, part))
    return sorted(set(sys.modules) - before)


def _raised(error: BaseException, path: Path) -> Found:
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if frame.filename == str(path)]
    inside = bool(mine) and Path(frames[-1].filename).parent.name != "checks"
    found: Found = {"right": False, "kind": type(error).__name__, "said": str(error)}
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return {**found, "said": error.msg, "line": error.lineno, "code": error.text or ""}
    if mine:
        found |= {"line": mine[-1].lineno, "code": mine[-1].line or "", "inside": inside}
    return found


class _Recorder:
    """Stands before a function, and remembers its last call: what it was given, and gave."""

    def __init__(self, function: Callable[..., Any], method: bool) -> None:
        self.calls = 0
        self.given: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self.came: Any = None
        self.printed = StringIO()
        self.chance: tuple[Any, Any] = (None, None)
        self.method = method

        @wraps(function)
        def recorded(*given: Any, **named: Any) -> Any:
            whose, rest = (given[:1], given[1:]) if method else ((), given)
            self.calls += 1
            self.chance = torch.get_rng_state(), random.getstate()
            self.given = ((*whose, *_copied(rest)), _copied(named))
            self.came, self.printed = None, StringIO()
            with redirect_stdout(self.printed), redirect_stderr(self.printed):
                self.came = function(*given, **named)
            return self.came

        self.recorded = recorded

    def once_more(self, function: Callable[..., Any]) -> Any:
        """What another function answers to the same call, with the same chance."""
        torch.set_rng_state(self.chance[0])
        random.setstate(self.chance[1])
        given, named = self.given
        return function(*given, **named)


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, tuple | list):
        copies = [_copied(one) for one in cast(list[Any], value)]
        return tuple(copies) if isinstance(value, tuple) else copies
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in cast(dict[Any, Any], value).items()}
    return value


def _again(
    module: ModuleType, part: str, check: Callable[[Any], None], error: type[Exception]
) -> _Recorder | None:
    """The last call of a check that ended in such an error; None where it now ends otherwise.

    The check runs a second time for it, so that the verdict itself was given without a recorder.
    """
    owner, _, method = part.partition(".")
    mine, recorder = vars(module)[owner], None
    try:
        recorder = _Recorder(getattr(mine, method) if method else mine, bool(method))
        if method:
            setattr(mine, method, recorder.recorded)
        check(mine if method else recorder.recorded)
    except Exception as same:  # a help more, never a verdict
        return recorder if type(same) is error and recorder and recorder.calls else None
    return None


def _shown(call: _Recorder | None) -> Found:
    """What a call was given, and what it printed."""
    found: Found = {}
    with suppress(Exception):  # a help more, never a verdict
        if call is not None:
            given, named = call.given
            found["given"] = kinds(given[call.method :], named)
            if not isinstance(call.came, Iterator):  # which prints when it is asked, later on
                found["printed"] = call.printed.getvalue().encode(errors="replace").decode()
    return found


def _compared(sheet: Sheet, call: _Recorder | None, part: str) -> Found:
    """What the check was not content with: the call, what ought to come, what came.

    Only what was printed, where the reference's answer is the same (a gradient is at fault, say).
    """
    owner, _, method = part.partition(".")
    theirs = getattr(import_module(sheet.lesson.module), owner)
    shown, found = _shown(call), {}
    with suppress(Exception):
        if call is not None:
            expected = call.once_more(getattr(theirs, method) if method else theirs)
            found = difference(expected, call.came)
    if not found:
        shown.pop("given", None)
    return shown | found
