"""A graph with many paths, and how often `backward` calls a rule in it."""

from collections.abc import Callable
from typing import Any

from labs.llm02_deep_learning.lesson import Value


def doublings(n: int) -> list[Value]:
    """Return x and n values, each of which is the one before it added to itself."""
    values = [Value(1.0)]
    for _ in range(n):
        values.append(values[-1] + values[-1])
    return values


def count_calls(values: list[Value]) -> int:
    """Return how many rules of results `backward` calls from the last value."""
    calls = 0

    def counted(rule: Callable) -> Callable:
        def grad_fn(g: Any) -> Any:
            nonlocal calls
            calls += 1
            return rule(g)

        return grad_fn

    for value in values[1:]:
        value.grad_fn = counted(value.grad_fn)
    values[-1].backward()
    return calls
