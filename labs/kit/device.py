"""The one Accelerator of a run, and its precision: asked of the hardware, not guessed."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from labs.kit.cards import Card
from labs.kit.ranks import group_size

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.tracking import TensorBoardTracker

WIDTH = 512  # of the matrices that a CPU is tried with: about a millisecond a product
WORTH_IT = 1.2  # times as fast: for less, three digits aren't given up, nor may noise decide
_ACCELERATE_NAME = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def choose_precision(asked: str) -> tuple[str, str]:
    """The precision for training and throughput, and why.

    Raises:
        Card: for fp16 without a GPU: CPUs have no fast fp16, and loss scaling isn't built for them.
    """
    gpu = torch.cuda.is_available()
    if asked == "fp16" and not gpu:
        raise Card(
            "fp16 can't be trained on a CPU.",
            "CPUs have no fp16 arithmetic worth using; their short format is bf16.",
            "the same command with --precision bf16",
        )
    if asked != "auto":
        return asked, "asked for"
    if gpu:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "which this GPU has") if fast else ("fp32", "this GPU lacks bf16")
    if not torch.cpu._is_avx512_bf16_supported():  # pyright: ignore[reportPrivateUsage]
        return "fp32", "this CPU lacks AVX512-BF16"
    gain = _gain_of_bf16()
    if gain < WORTH_IT:
        return "fp32", f"bf16 takes this CPU {1 / gain:.1f} times as long"
    return "bf16", f"in which this CPU is {gain:.1f} times as fast"


def _gain_of_bf16() -> float:
    """How many times as fast as in fp32 matrix products are, measured.

    Having the instructions doesn't tell: of two CPUs with AVX512-BF16 one was twice as fast, an AMD
    EPYC, and one half as fast, an Intel Xeon.
    """
    from labs.kit.timing import seconds_paired

    wide = torch.ones(WIDTH, WIDTH)
    short = wide.bfloat16()
    single, half = seconds_paired(lambda: wide @ wide, lambda: short @ short, 9)
    return min(single) / min(half)


def make_accelerator(precision: str, seed: int = 0, board: Path | None = None) -> "Accelerator":
    """Accelerate's object for this machine: it places models and sets autocast.

    Args:
        seed: of the order in which its data loaders shuffle. Their batches are those of all
            processes together, like the steps of its schedulers.
        board: a folder for what is logged to TensorBoard.

    Raises:
        Card: where that is asked for, and the stack lacks its writer.
    """
    from accelerate import Accelerator, DataLoaderConfiguration

    loaders = DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True, data_seed=seed)
    accelerator = Accelerator(
        mixed_precision=_ACCELERATE_NAME[precision],
        cpu=not torch.cuda.is_available(),  # also what makes Accelerate join processes on a CPU
        dataloader_config=loaders,
        log_with=[_tracker(board)] if board else None,
    )
    accelerator.init_trackers("")
    if accelerator.num_processes != group_size():
        raise RuntimeError(
            f"{group_size()} processes were started, not {accelerator.num_processes}"
        )
    return accelerator


def _tracker(board: Path) -> "TensorBoardTracker":
    from accelerate.tracking import TensorBoardTracker

    if find_spec("tensorboardX") is None:
        raise Card(
            "Nothing can be logged to TensorBoard.",
            "This stack lacks its writer, the package tensorboardX.",
            "invoke build, which makes it anew; or leave out --tensorboard",
        )
    return TensorBoardTracker("tensorboard", board)


def describe_device(device: torch.device) -> str:
    """The device's own name, "AMD EPYC 9654, 2 threads, AVX512" or "NVIDIA H100"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    capability = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    return f"{_cpu_name()}, {threads} thread{'s' if threads > 1 else ''}, {capability}"


def _cpu_name() -> str:
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "CPU"
