"""What a mixer costs in LLM09: time and memory, by the length of the text."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from labs.kit import Run, tolerance
from labs.kit.measure import peak_bytes

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Call = Callable[[Tensor], Tensor]
Mixer = Callable[[int], nn.Module]  # takes the width of the vectors
LENGTHS = [256, 512, 1024, 2048, 4096]
WIDTH = 64
RATIO = "4,096 tokens: time of PyTorch's kernel ÷ convolution"


class Cost(NamedTuple):
    """The cost of one forward pass.

    Attributes:
        milliseconds: the shortest of the repeats, which other load disturbs least.
        megabytes: the most that is stored at once, in units of 10⁶ bytes.
    """

    milliseconds: float
    megabytes: float


def by_kernel(attention: Any, x: Tensor) -> Tensor:
    """Compute LLM06's causal attention with PyTorch's kernel, (B, T, d) -> (B, T, d).

    The kernel works in tiles and never stores the T × T scores (LLM06+).
    """
    heads = []
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        split = projection(x).unflatten(-1, (-1, attention.head_dim))  # (B, T, H, D)
        heads.append(split.transpose(-3, -2))  # (B, H, T, D)
    q, k, v = heads
    q = attention.position(q)
    k = attention.position(k)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return attention.o_proj(mixed.transpose(-3, -2).flatten(-2))  # (B, T, d)


@torch.no_grad()
def cost(mixers: dict[str, Call], length: int) -> dict[str, Cost]:
    """Measure mixers on a text (1, length, WIDTH), in turn, on the CPU and on one thread.

    Each is called at least four times, and until its calls took a tenth of a second: on a busy
    machine, a call of 0.3 ms can take ten times as long.
    """
    x = torch.randn(1, length, WIDTH)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    times: dict[str, list[float]] = {name: [] for name in mixers}
    try:
        while short := [name for name in mixers if len(times[name]) < 4 or sum(times[name]) < 0.1]:
            for name in short:
                start = time.perf_counter()
                mixers[name](x)
                times[name].append(time.perf_counter() - start)
        stored = {name: peak_bytes(partial(mixer, x)) for name, mixer in mixers.items()}
    finally:
        torch.set_num_threads(before)
    return {name: Cost(1000 * min(times[name]), stored[name] / 1e6) for name in mixers}


@torch.no_grad()
def compare(run: Run, attention: Mixer, convolution: Mixer) -> dict[str, list[Cost]]:
    """Measure a plain attention, PyTorch's kernel and a convolution at LENGTHS."""
    plain: Any = attention(WIDTH)
    x = torch.randn(1, 100, WIDTH)
    error = by_kernel(plain, x) - plain(x)
    run.agree("PyTorch's kernel − ours", error, tolerance(torch.float32))
    mixers = {
        "attention, all scores stored": plain,
        "attention, PyTorch's kernel": partial(by_kernel, plain),
        "convolution": convolution(WIDTH),
    }
    measured = [cost(mixers, length) for length in LENGTHS]
    return {name: [costs[name] for costs in measured] for name in mixers}


def check_growth(run: Run, measured: dict[str, list[Cost]]) -> float:
    """Check how costs grow with the text; return the kernel's time relative to the convolution's.

    The mixers are a plain attention, PyTorch's kernel and a convolution, at LENGTHS.
    """
    plain, kernel, convolution = measured.values()
    doubled = f"{LENGTHS[-1]:,} ÷ {LENGTHS[-2]:,} tokens"
    growth = [costs[-1].megabytes / costs[-2].megabytes for costs in (plain, kernel, convolution)]
    because = "four times the scores, twice the rest"
    what = f"memory of {doubled}: all scores stored"
    run.check(what, growth[0], at_least=3.5, because=because, decides=True)
    because = "twice the vectors, and nothing else"
    what = f"memory of {doubled}: PyTorch's kernel, convolution"
    run.check(what, growth[1:], at_most=2.1, because=because, decides=True)
    for name, costs in measured.items():
        growing = costs[-1].milliseconds / costs[-2].milliseconds
        run.measure(f"time of {doubled}: {name}", growing, timed=True)
    ratios = [a.milliseconds / b.milliseconds for a, b in zip(kernel, convolution, strict=True)]
    what = "time of PyTorch's kernel ÷ convolution: longest text ÷ shortest"
    because = "a constant, if both grew alike"
    growing = ratios[-1] / ratios[0]
    run.measure(what, growing, expect_at_least=2, because=because, timed=True, decides=True)
    run.measure(RATIO, ratios[-1], timed=True)
    eight = [
        [name, n * kernel[-1].milliseconds + (8 - n) * convolution[-1].milliseconds, stored(n)]
        for name, n in (("8 attentions", 8), ("1 attention, 7 convolutions", 1))
    ]
    columns = ["mixers of eight layers", "forward pass (ms)", "stored while writing (MB)"]
    title = "Eight layers, as in a block of Jamba, computed from one mixer of each kind"
    run.table(f"{title}: {LENGTHS[-1]:,} tokens", columns, eight)
    return ratios[-1]


def stored(attentions: int) -> float:
    """Return what eight mixers store while they write, in MB: keys and values, or k − 1 vectors."""
    convolutions = 8 - attentions
    numbers = WIDTH * (attentions * 2 * LENGTHS[-1] + convolutions * 3)
    return 4 * numbers / 1e6
