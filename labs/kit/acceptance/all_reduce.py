"""All-reduce over all cards of a machine, or over two processes on its CPU."""

from pathlib import Path

from labs.kit.acceptance.rounds import Task, measure
from labs.kit.acceptance.sizes import Sizes
from labs.kit.acceptance.write import write
from labs.kit.run.processes import group_size, is_main, rank

import torch
import torch.distributed


def run(size: Sizes, record: dict[str, str], out: Path) -> int:
    """Measure all-reduce in this process of a group; the first process writes the record."""
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(rank())
    torch.distributed.init_process_group("nccl" if gpu else "gloo")
    try:
        task = _task(torch.device("cuda" if gpu else "cpu"), size.reduced)
        # The same number of calls in every process: one call a round.
        measure([task], size.rounds, seconds=0)
        if is_main():
            write({**record, "processes": group_size(), "measurements": [task.as_data()]}, out)
    finally:
        torch.distributed.destroy_process_group()
    return 0


def _task(device: torch.device, size: int) -> Task:
    own = torch.full((size // 4,), float(rank() + 1), device=device)
    shared = torch.empty_like(own)
    total = sum(range(1, group_size() + 1))

    def reduce() -> None:
        shared.copy_(own)
        torch.distributed.all_reduce(shared)

    def check(_: int) -> str:
        wrong = int((shared != total).sum())
        return f"{wrong} of {shared.numel()} sums are wrong" if wrong else ""

    # The algorithm's bandwidth: the bytes of the tensor, however often they are sent.
    return Task("all-reduce", "GB/s", float(size), reduce, check)
