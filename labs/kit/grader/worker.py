"""Check one part of a sheet, in the sandboxed child. The result is plain data."""

import ast
import linecache
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

from common.syllabus import Lesson
from labs.kit.compare import Mistake, check_part
from labs.kit.grader.differences import describe_arguments, difference
from labs.kit.run.filled_sheet import fill, load_module

import torch

Findings = dict[str, Any]
REPEATABLE_SECONDS = 3  # a longer check might not end twice within its limit


@dataclass(frozen=True)
class Sheet:
    """A learner's sheet, and the lab it was made from."""

    lesson: Lesson
    path: Path
    text: str

    def module(self, parts: list[str]) -> ModuleType:
        """Load the sheet with the reference solutions of `parts`."""
        lines = self.text.splitlines(keepends=True)
        name = str(self.path)
        # A traceback quotes these lines: the sandbox may keep the file itself from being read.
        linecache.cache[name] = (len(self.text), None, lines, name)
        tree = fill(ast.parse(self.text), ast.parse(self.lesson.source), parts)
        return load_module(self.path, tree, f"{self.path.stem}_sheet")


def load(sheet: Sheet, parts: list[str]) -> Findings:
    """Try to run the sheet with the reference solutions of `parts`."""
    try:
        sheet.module(parts)
    except BaseException as error:
        return _describe_error(error, sheet.path)
    return {"right": True}


def check(sheet: Sheet, others: list[str], part: str) -> Findings:
    """Check `part` of the sheet with the reference solutions of `others`."""
    try:
        return _check(sheet, sheet.module(others), part)
    except BaseException as error:
        return _describe_error(error, sheet.path)


def _check(sheet: Sheet, module: ModuleType, part: str) -> Findings:
    start = time.process_time()
    try:
        check_part(sheet.lesson, part, module)
    except Exception as error:
        findings: Findings = {"right": False, "message": str(error)}
        if isinstance(error, Mistake) and error.details:
            return findings | error.details
        short = time.process_time() - start < REPEATABLE_SECONDS
        call = _record_call(sheet, module, part, type(error)) if short else None
        if isinstance(error, Mistake):
            return findings | _compare(sheet, call, part)
        return _describe_error(error, sheet.path) | _describe_call(call)
    return {"right": True}


def imports(lesson: Lesson, parts: list[str]) -> list[str]:
    """Return the modules that the checks of the reference solutions import while they run."""
    before = set(sys.modules)
    module = import_module(lesson.module)
    for part in parts:
        check_part(lesson, part, module)
    return sorted(set(sys.modules) - before)


def _describe_error(error: BaseException, path: Path) -> Findings:
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if frame.filename == str(path)]
    inside = bool(mine) and Path(frames[-1].filename).name != "checks.py"
    findings: Findings = {"right": False, "error": type(error).__name__, "message": str(error)}
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return {**findings, "message": error.msg, "line": error.lineno, "code": error.text or ""}
    if mine:
        findings |= {"line": mine[-1].lineno, "code": mine[-1].line or "", "inside": inside}
    return findings


class _Recorder:
    """Wraps a function and records its last call: arguments, result, output, random state.

    What the function calls itself isn't recorded: the call that counts is the check's.
    """

    def __init__(self, function: Callable[..., Any], is_method: bool) -> None:
        self.calls = 0
        self.arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self.result: Any = None
        self.printed = StringIO()
        self.random_state: tuple[Any, Any] = (None, None)
        self.is_method = is_method
        self.active = False

        @wraps(function)
        def recorded(*positional: Any, **named: Any) -> Any:
            if self.active:
                return function(*positional, **named)
            owner, rest = (positional[:1], positional[1:]) if is_method else ((), positional)
            self.calls += 1
            self.random_state = torch.get_rng_state(), random.getstate()
            self.arguments = ((*owner, *_copy(rest)), _copy(named))
            self.result = None
            self.printed = StringIO()
            self.active = True
            try:
                with redirect_stdout(self.printed), redirect_stderr(self.printed):
                    self.result = function(*positional, **named)
            finally:
                self.active = False
            return self.result

        self.recorded = recorded

    def repeat(self, function: Callable[..., Any]) -> Any:
        """Return what another function returns for the same call and random state."""
        torch.set_rng_state(self.random_state[0])
        random.setstate(self.random_state[1])
        positional, named = self.arguments
        return function(*positional, **named)


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, tuple | list):
        copies = [_copy(member) for member in cast(list[Any], value)]
        return tuple(copies) if isinstance(value, tuple) else copies
    if isinstance(value, dict):
        return {key: _copy(member) for key, member in cast(dict[Any, Any], value).items()}
    return value


def _record_call(
    sheet: Sheet, module: ModuleType, part: str, error: type[Exception]
) -> _Recorder | None:
    """Return the last call of a check that ended in `error`; None if it now ends otherwise.

    The check runs a second time for it, so that the verdict itself was reached without a recorder.
    """
    owner, _, method = part.partition(".")
    target = vars(module)[owner] if method else module
    name = method or owner
    recorder = None
    try:
        recorder = _Recorder(getattr(target, name), bool(method))
        setattr(target, name, recorder.recorded)
        check_part(sheet.lesson, part, module)
    except Exception as same:  # this helps the learner and never decides the verdict
        return recorder if type(same) is error and recorder and recorder.calls else None
    return None


def _describe_call(call: _Recorder | None) -> Findings:
    """Describe the arguments of a call, and return what it printed."""
    findings: Findings = {}
    with suppress(Exception):  # this helps the learner and never decides the verdict
        if call is not None:
            positional, named = call.arguments
            findings["arguments"] = describe_arguments(positional[call.is_method :], named)
            if not isinstance(call.result, Iterator):  # a generator prints later
                text = call.printed.getvalue()
                findings["printed"] = text.encode(errors="replace").decode()
    return findings


def _compare(sheet: Sheet, call: _Recorder | None, part: str) -> Findings:
    """Describe the failing call: arguments, expected result, actual result.

    Without a difference in the results (if a gradient is wrong, say) only the output is described.
    """
    owner, _, method = part.partition(".")
    reference = getattr(import_module(sheet.lesson.module), owner)
    findings = _describe_call(call)
    differences: Findings = {}
    with suppress(Exception):
        if call is not None:
            expected = call.repeat(getattr(reference, method) if method else reference)
            differences = difference(expected, call.result)
    if not differences:
        findings.pop("arguments", None)
    return findings | differences
