"""The one Accelerator of a run, and its precision: asked of the hardware, not guessed."""

from pathlib import Path
from typing import TYPE_CHECKING

from labs.kit.cards import Card
from labs.kit.ranks import group_size

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator

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
    if torch.cpu._is_avx512_bf16_supported():  # pyright: ignore[reportPrivateUsage]
        return "bf16", "which this CPU multiplies in: AVX512-BF16"
    return "fp32", "this CPU lacks AVX512-BF16"


def make_accelerator(precision: str) -> "Accelerator":
    """Accelerate's object for this machine: it places models and sets autocast."""
    from accelerate import Accelerator

    cpu = not torch.cuda.is_available()  # also what makes Accelerate join processes on a CPU
    accelerator = Accelerator(mixed_precision=_ACCELERATE_NAME[precision], cpu=cpu)
    if accelerator.num_processes != group_size():
        raise RuntimeError(
            f"{group_size()} processes were started, not {accelerator.num_processes}"
        )
    return accelerator


def describe_device(device: torch.device) -> str:
    """The device's own name, "AMD EPYC 9654, 2 threads, AVX512" or "NVIDIA H100"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{_cpu_name()}, {torch.get_num_threads()} threads, {capability}"


def _cpu_name() -> str:
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "CPU"
