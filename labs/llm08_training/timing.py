"""Measure the parts of a training step: their time, and the operations of their products."""

import time
from collections.abc import Iterator
from itertools import pairwise
from statistics import median
from typing import Any

from labs.kit import Run, on_one_thread
from labs.llm08_training.lesson import collate, label_count, label_sum
from labs.llm08_training.training import Batch, Row, placed
from labs.llm08_training.word_tasks import PAD, build

import torch
from torch.utils.flop_counter import FlopCounterMode

STAGES = ("collate", "forward", "backward", "clip", "optimizer")


def one_step(run: Run, model: Any, optimizer: Any, rows: list[Row]) -> Iterator[None]:
    """Do a step of training, and pause after each of its STAGES."""
    batch = placed(run, collate(rows, PAD))
    yield
    loss = label_sum(model, batch) / label_count(batch)
    yield
    run.accelerator.backward(loss)
    yield
    run.accelerator.clip_grad_norm_(model.parameters(), 1.0)
    yield
    optimizer.step()
    optimizer.zero_grad()
    yield


@on_one_thread
def stopwatch(run: Run, rows: list[Row], ways: dict[str, Any], steps: int) -> list[list[float]]:
    """Return the median time of each part of a step, in milliseconds, for each optimizer.

    The optimizers take steps in turn, so that other work on the machine affects both.
    """
    loops = []
    for way in ways.values():
        model = build(run, run.seed)
        loops.append(run.accelerator.prepare(model, way(model.parameters(), 1e-3)))
    laps = [[] for _ in loops]
    for _ in range(steps + 3):
        for times, (model, optimizer) in zip(laps, loops, strict=True):
            start = now()
            ends = [now() for _ in one_step(run, model, optimizer, rows)]
            times.append([1000 * (b - a) for a, b in pairwise([start, *ends])])
    # the first three warm up
    return [[median(part) for part in zip(*times[3:], strict=True)] for times in laps]


def now() -> float:
    """Return the time in seconds, after a GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def products(model: Any, batch: Batch) -> tuple[int, int]:
    """Return the operations of the matrix products in a forward and in a backward pass."""
    with FlopCounterMode(display=False) as counter:
        loss = label_sum(model, batch)
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    model.zero_grad()
    return forward, counter.get_total_flops()
