"""In the child: one part of a sheet, put to its check. What is found out is plain data."""

import ast
import random
import traceback
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from labs.kit.differences import difference, kinds
from labs.kit.graft import graft, implementation, load
from labs.kit.grading import Mistake, check_of

import torch

Found = dict[str, Any]


def loads(sheet: Path, text: str, lab_source: str, parts: list[str], name: str) -> Found:
    """Can the sheet be run at all, with `parts` from the lab?"""
    try:
        load(sheet, graft(ast.parse(text), ast.parse(lab_source), parts), name)
    except BaseException as error:
        return _raised(error, sheet)
    return {"right": True}


def part_of(
    sheet: Path, text: str, lab_source: str, others: list[str], lab: str, reference: str, part: str
) -> Found:
    """Is `part` of the sheet right, where `others` are the lab's own?"""
    name = f"{sheet.stem}_sheet"
    try:
        module = load(sheet, graft(ast.parse(text), ast.parse(lab_source), others), name)
        check = check_of(lab, part)
        check(implementation(module, part))
    except Mistake as mistake:
        return {"right": False, "said": str(mistake), **_compared(module, reference, part, check)}
    except BaseException as error:
        return _raised(error, sheet)
    return {"right": True}


def _raised(error: BaseException, sheet: Path) -> Found:
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if frame.filename == str(sheet)]
    inside = bool(mine) and not frames[-1].filename.endswith(f"checks/{sheet.stem[:5]}.py")
    found: Found = {"right": False, "kind": type(error).__name__, "said": str(error)}
    if isinstance(error, SyntaxError) and error.filename == str(sheet):
        return {**found, "said": error.msg, "line": error.lineno, "code": error.text or ""}
    if mine:
        found |= {"line": mine[-1].lineno, "code": mine[-1].line or "", "inside": inside}
    return found


class _Recorder:
    """Stands before a function, and remembers its last call: what it was given, and gave."""

    def __init__(self, function: Callable[..., Any], method: bool) -> None:
        self.call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.came: Any = None

        @wraps(function)
        def recorded(*given: Any, **named: Any) -> Any:
            bound, rest = (given[:1], given[1:]) if method else ((), given)
            self.state = torch.get_rng_state(), random.getstate()
            self.call = ((*bound, *_copied(rest)), _copied(named))
            self.came = None
            self.came = function(*given, **named)
            return self.came

        self.recorded = recorded


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, tuple | list):
        copies = [_copied(one) for one in cast(list[Any], value)]
        return tuple(copies) if isinstance(value, tuple) else copies
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in cast(dict[Any, Any], value).items()}
    return value


def _compared(module: Any, reference: str, part: str, check: Callable[[Any], None]) -> Found:
    """The call that the check was not content with: what it was given, what came, what ought to.

    The check runs a second time for it, so that the verdict itself was given without a recorder.
    Empty where the reference's answer is the same (a gradient is at fault, say) or can't be had.
    """
    owner, _, method = part.partition(".")
    theirs = getattr(import_module(reference), owner)
    try:
        recorder = _Recorder(
            getattr(vars(module)[owner], method) if method else vars(module)[owner], bool(method)
        )
        if method:
            setattr(vars(module)[owner], method, recorder.recorded)
        try:
            check(vars(module)[owner] if method else recorder.recorded)
        except Mistake:
            pass
        if recorder.call is None:
            return {}
        given, named = recorder.call
        torch.set_rng_state(recorder.state[0])
        random.setstate(recorder.state[1])
        expected = (getattr(theirs, method) if method else theirs)(*given, **named)
        told = difference(expected, recorder.came)
        return {**told, "given": kinds(given[bool(method) :], named)} if told else {}
    except Exception:  # a help more, never a verdict
        return {}
