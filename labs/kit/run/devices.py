"""The one Accelerator of a run, and the precision that suits the hardware."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from common.cards import Card
from labs.kit.run.processes import group_size

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.tracking import TensorBoardTracker

PRODUCT = (512, 512)  # rows and width of the speed test's matrices: about a millisecond a product
MIN_GAIN = 1.2  # bf16 ÷ fp32 speed; a smaller gain is close to the noise and costs precision
_ACCELERATE_NAME = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def choose_precision(asked: str, product: tuple[int, int] = PRODUCT) -> tuple[str, str]:
    """Return the precision for training and throughput, and the reason.

    Args:
        asked: fp32, bf16, fp16 or auto.
        product: the size of the products that decide on a CPU: rows, and width of the matrix.

    Raises:
        Card: for fp16 without a GPU: CPUs have no fast fp16, and no loss scaling.
    """
    gpu = torch.cuda.is_available()
    if asked == "fp16" and not gpu:
        raise Card(
            "fp16 training needs a GPU.",
            "CPUs have no fast fp16 arithmetic; their 16-bit format is bf16.",
            "the same command with --precision bf16",
        )
    if asked != "auto":
        return asked, "as requested"
    if gpu:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "this GPU supports it") if fast else ("fp32", "this GPU lacks bf16")
    if not torch.cpu._is_avx512_bf16_supported():  # pyright: ignore[reportPrivateUsage]
        return "fp32", "this CPU lacks AVX512-BF16"
    gain = _gain_of_bf16(*product)
    if gain < MIN_GAIN:
        return "fp32", f"on this CPU, bf16 is {1 / gain:.1f} times as slow"
    return "bf16", f"{gain:.1f} times as fast as fp32 on this CPU"


@cache
def _gain_of_bf16(rows: int, width: int) -> float:
    """Return the measured speed of matrix products, bf16 ÷ fp32.

    In bf16 the rows are rounded before the product, and the result is widened after it, as in
    mixed precision. The gain can't be read from the instruction set: of two CPUs with AVX512-BF16,
    an AMD EPYC was twice as fast in bf16, an Intel Xeon half as fast. Nor from one size: on a Xeon
    with AMX, 512 rows times 512 × 512 were 3.2 times as fast in bf16, 416 times 64 × 64 took 1.4
    times as long.
    """
    from labs.kit.measure import seconds_paired

    fp32 = torch.ones(rows, width)
    matrix = torch.ones(width, width)
    rounded = matrix.bfloat16()
    times = max(1, 2**20 // (rows * width))  # the smallest takes microseconds

    def in_fp32() -> None:
        for _ in range(times):
            _ = fp32 @ matrix

    def in_bf16() -> None:
        for _ in range(times):
            _ = (fp32.bfloat16() @ rounded).float()

    threads = torch.get_num_threads()
    if (rows, width) != PRODUCT:
        torch.set_num_threads(1)  # as trainings of small models do
    slow, fast = seconds_paired(in_fp32, in_bf16, 9)
    torch.set_num_threads(threads)
    return min(slow) / min(fast)


def make_accelerator(precision: str, seed: int = 0, board: Path | None = None) -> "Accelerator":
    """Return the Accelerator for this machine; it places models and sets autocast.

    Args:
        precision: fp32, bf16 or fp16.
        seed: the seed of the order in data loaders. Their batches, and the steps of schedulers,
            are those of all processes together.
        board: a folder for TensorBoard's logs.

    Raises:
        Card: if there are to be logs, and the stack lacks the package that writes them.
    """
    from accelerate import Accelerator, DataLoaderConfiguration

    loaders = DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True, data_seed=seed)
    accelerator = Accelerator(
        mixed_precision=_ACCELERATE_NAME[precision],
        cpu=not torch.cuda.is_available(),  # also makes Accelerate join processes on a CPU
        dataloader_config=loaders,
        log_with=[_tracker(board)] if board else None,
    )
    accelerator.init_trackers("")
    joined = accelerator.num_processes
    if joined != group_size():
        raise RuntimeError(f"{group_size()} processes were started, and Accelerate joined {joined}")
    return accelerator


def _tracker(board: Path) -> "TensorBoardTracker":
    from accelerate.tracking import TensorBoardTracker

    if find_spec("tensorboardX") is None:
        raise Card(
            "TensorBoard logs can't be written.",
            "This stack lacks the package tensorboardX.",
            "invoke build, which rebuilds it; or leave out --tensorboard",
        )
    return TensorBoardTracker("tensorboard", board)


def describe_device(device: torch.device) -> str:
    """Return the device's name, "AMD EPYC 9654, 2 threads, AVX512" or "NVIDIA H100"."""
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
