"""What a call costs: its time, and the FLOPs of its matrix products."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from labs.kit import Run, seconds

import torch
from torch.utils.flop_counter import FlopCounterMode

Name = TypeVar("Name", bound=Hashable)
Shape = tuple[int, int, int]  # B, n, m
CPU = torch.device("cpu")
SHORT = 1e-3  # seconds


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def once(call: Callable[[], Any]) -> float:
    """Return the processor time of one call on this thread."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def processor_seconds(call: Callable[[], Any]) -> float:
    """Return the processor time of a call on this thread, of the fastest of 20 if it is short.

    Other programs don't add to it, but they empty the caches that a short call relies on. The
    repetitions of a short call find its arrays in a cache; a long call may not.
    """
    first = once(call)
    return first if first > SHORT else min(once(call) for _ in range(20))


def best_in_turn(
    calls: Mapping[Name, Callable[[], Any]],
    rounds: int = 5,
    device: torch.device = CPU,
    clock: Callable[[Callable[[], Any]], float] = processor_seconds,
) -> dict[Name, float]:
    """Return the seconds of the fastest run of each call, by name.

    On a CPU this is processor time on one thread. The calls run one after another, round by round:
    other work on the machine then disturbs all of them. Each call warms up: on a CPU in a round
    more, where the minimum passes over slow calls, and on a GPU before each timing.

    Args:
        calls: by name.
        rounds: how often each call is timed.
        device: where the calls compute.
        clock: returns the seconds of a call on a CPU. With `once` each call finds its arrays where
            all others have left them: in memory, if together they are larger than the caches.
    """
    if device.type != "cpu":
        times = [{name: seconds(call, 1)[0] for name, call in calls.items()} for _ in range(rounds)]
    else:
        with one_thread():
            times = [{name: clock(call) for name, call in calls.items()} for _ in range(1 + rounds)]
    return {name: min(round_[name] for round_ in times) for name in calls}


def time_products(
    ways: Mapping[str, Callable[..., Any]], sizes: Iterable[int]
) -> dict[str, list[float]]:
    """Return the seconds of each way to multiply two n × n matrices, for each size n."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for n in sizes:
        a, b = torch.randn(2, n, n)
        calls = {name: partial(way, a, b) for name, way in ways.items()}
        for name, fastest in best_in_turn(calls, 3).items():
            times[name].append(fastest)
    return times


def product_call(run: Run, dtype: torch.dtype, shape: Shape) -> Callable[[], Any]:
    """Return a call that multiplies (B, n) by (n, m)."""
    b, n, m = shape
    x = torch.randn(b, n).to(run.device, dtype)
    w = torch.randn(m, n).to(run.device, dtype)
    return lambda: x @ w.T


def read_calls(run: Run, nbytes: int) -> dict[str, Callable[[], Any]]:
    """Return two calls that read this many bytes: sums, and a dot product of other arrays."""
    a, b, c, d = torch.ones(4, nbytes // 8, device=run.device)  # float32, half of the bytes each
    return {"sum": lambda: (a.sum(), b.sum()), "dot": lambda: c @ d}


def time_with_roof(
    run: Run, dtype: torch.dtype, side: int, inputs: Sequence[int]
) -> tuple[list[float], float, float]:
    """Return the seconds of products with a square matrix, then the peak and the bandwidth.

    Args:
        run: its device computes.
        dtype: of the products.
        side: n and m of the products.
        inputs: B of each product.
    """
    shapes = [(b, side, side) for b in inputs]
    squares = [side // 4, side // 2, 3 * side // 4]
    nbytes = dtype.itemsize * side**2
    calls: dict[Any, Callable[[], Any]] = {s: product_call(run, dtype, s) for s in shapes}
    calls |= read_calls(run, nbytes)
    calls |= {n: product_call(run, dtype, (n, n, n)) for n in squares}
    fastest = best_in_turn(calls, 15, run.device, once)
    peak = max(2 * n**3 / fastest[n] for n in squares)
    bandwidth = nbytes / min(fastest["sum"], fastest["dot"])
    return [fastest[shape] for shape in shapes], peak, bandwidth


def product_flops(call: Callable[[], Any]) -> int:
    """Return the FLOPs of the matrix products in a call, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def rounded(ratio: float) -> str:
    """Return a number with two digits: a timing has no more."""
    return f"{float(f'{ratio:.2g}'):,.0f}"
