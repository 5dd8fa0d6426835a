"""The verdict on one exercise of a sheet."""

from dataclasses import dataclass

RIGHT = "right"
WRONG = "wrong"
NOT_WRITTEN = "not written yet"


@dataclass(frozen=True)
class Verdict:
    """The verdict on one exercise.

    Attributes:
        part: the exercise.
        state: RIGHT, WRONG or NOT_WRITTEN.
        message: the likely mistake.
        arguments: the arguments of the failing call.
        expected: what the reference returns for them.
        got: what the learner's code returned.
        line: the line of the sheet, 0 if unknown.
        code: the code in that line.
        printed: the last lines that the failing call printed.
    """

    part: str
    state: str
    message: str = ""
    arguments: str = ""
    expected: str = ""
    got: str = ""
    line: int = 0
    code: str = ""
    printed: str = ""
