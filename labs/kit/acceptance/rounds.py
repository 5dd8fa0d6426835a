"""Repeat measurements in rounds: in each round every measurement runs once, for its time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from labs.kit.measure import synchronize

ROUND_SECONDS = 0.2  # a round repeats a short call, so that the clock and other load matter less
MOST_CALLS = 1000


@dataclass
class Task:
    """Something to measure.

    Attributes:
        name: its name, which is the same on every machine.
        unit: of the rate: GFLOP/s or GB/s.
        amount: the floating-point operations, or the bytes, of one call.
        call: what is timed.
        check: checks the result after each round, which has the given number; returns the problem,
            or "".
        rates: 1e9 units of the amount a second, for each round.
        core: the core that ran it alone, such as "core 0"; empty if the card did.
        problem: the first problem that a check found.
    """

    name: str
    unit: str
    amount: float
    call: Callable[[], Any]
    check: Callable[[int], str] = lambda _: ""
    core: str = ""
    rates: list[float] = field(default_factory=list[float])
    problem: str = ""

    def as_data(self) -> dict[str, Any]:
        """Return the measurement as JSON data."""
        return {
            "name": self.name,
            "core": self.core,
            "unit": self.unit,
            "amount": self.amount,
            "values": self.rates,
            "problem": self.problem,
        }


def measure(tasks: Sequence[Task], rounds: int, seconds: float = ROUND_SECONDS) -> None:
    """Measure the tasks in turn, a b c a b c …, so that a slow minute affects all of them.

    Args:
        tasks: the tasks, which keep their rates.
        rounds: how often each is measured.
        seconds: the least time of a task in a round; 0 for one call.
    """
    calls = [_calls(task, seconds) for task in tasks]
    for number in range(rounds):
        for task, count in zip(tasks, calls, strict=True):
            task.rates.append(task.amount * count / _seconds(task.call, count) / 1e9)
            task.problem = task.problem or task.check(number)


def _calls(task: Task, seconds: float) -> int:
    """Warm the task up; return how many calls take `seconds`."""
    task.call()
    once = _seconds(task.call, 1)
    return max(1, min(MOST_CALLS, round(seconds / once)))


def _seconds(call: Callable[[], Any], count: int) -> float:
    synchronize()
    start = time.perf_counter()
    for _ in range(count):
        call()
    synchronize()
    return time.perf_counter() - start
