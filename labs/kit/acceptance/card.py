"""Measure one card: the GPU that this process sees, or all cores of the CPU."""

import os
from pathlib import Path

from labs.kit.acceptance import all_reduce
from labs.kit.acceptance.memory import memory_tasks, transfer_tasks
from labs.kit.acceptance.products import core_tasks, product_tasks
from labs.kit.acceptance.rounds import Task, measure
from labs.kit.acceptance.sizes import Sizes, choose
from labs.kit.acceptance.write import write
from labs.kit.run.devices import describe_device

import torch


def measure_card(size: str, out: Path) -> None:
    """Measure the card, and write the record."""
    device = _device()
    sizes = choose(size, device.type == "cuda")
    _sum_in_fp32()
    tasks = _tasks(device, sizes)
    measure(tasks, sizes.rounds, sizes.seconds)
    measured = tasks
    if device.type == "cpu":
        measured = [*tasks, *_measure_cores(sizes)]
    write({**_record(device), "measurements": [one.as_data() for one in measured]}, out)


def reduce_over_cards(size: str, out: Path) -> int:
    """Measure all-reduce in this process of a group; return the exit code."""
    device = _device()
    sizes = choose(size, device.type == "cuda")
    return all_reduce.run(sizes, _record(device), out)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _record(device: torch.device) -> dict[str, str]:
    return {"device": describe_device(device), "torch": torch.__version__}


def _sum_in_fp32() -> None:
    """Have 16-bit products add in float32: the bound of the check is for float32."""
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


def _tasks(device: torch.device, sizes: Sizes) -> list[Task]:
    tasks = product_tasks(device, sizes.width) + memory_tasks(device, sizes.buffer)
    if device.type == "cuda":
        tasks += transfer_tasks(device, sizes.buffer)
    return tasks


def _measure_cores(sizes: Sizes) -> list[Task]:
    """Measure each core alone, so that a slow one can be named."""
    tasks = core_tasks(sorted(os.sched_getaffinity(0)), sizes.core_width)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measure(tasks, sizes.rounds, sizes.seconds / 4)
    finally:
        torch.set_num_threads(threads)
    return tasks
