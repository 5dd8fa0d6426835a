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

# Below this width of a matrix, bf16 is no faster on a CPU: the rounding takes longer than it saves.
# On a Xeon with AMX, rows times 64 × 64 were 0.7 times as fast as in fp32, 128 × 128 1.7 times.
SMALLEST_WIDTH = 128
LARGE = 512
CPUINFO = Path("/proc/cpuinfo")
_ACCELERATE_NAME = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def choose_precision(asked: str, width: int = LARGE) -> tuple[str, str]:
    """Return the precision for training and throughput, and the reason.

    `auto` follows from what the hardware says of itself and measures nothing: the same seed gives
    the same numbers tomorrow, however busy the machine is.

    Args:
        asked: fp32, bf16, fp16 or auto.
        width: the width of the matrices in most products.

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
    unit = _fast_bf16_of_cpu()
    if unit and width < SMALLEST_WIDTH:
        return "fp32", "bf16 doesn't pay for matrices as small as this lab's"
    return ("bf16", f"this CPU has {unit}") if unit else ("fp32", "this CPU has no fast bf16")


@cache
def _fast_bf16_of_cpu() -> str:
    """Return what makes this CPU fast in bf16; "" if nothing does.

    AVX512-BF16 alone isn't enough: an AMD EPYC with it was twice as fast in bf16, an Intel Xeon
    half as fast.
    """
    processor = _processor()
    flags = processor.get("flags", "").split()
    if "amx_bf16" in flags:
        return "AMX-BF16"
    amd = processor.get("vendor_id") == "AuthenticAMD"
    return "AVX512-BF16" if amd and "avx512_bf16" in flags else ""


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
    name = _processor().get("model name", "CPU")
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}, {capability}"


def _processor() -> dict[str, str]:
    """Return what Linux says of the first processor, by the names in /proc/cpuinfo."""
    first = CPUINFO.read_text(encoding="utf-8").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
