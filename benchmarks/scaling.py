"""Measure LLM10's training with 1 and 2 processes, and compare the steps with a model of them.

    python -m benchmarks.scaling [--steps 10] [--rounds 7] [--processes 1,2] [--batch 32] [--plan]

Run it from the clone's root with the labs' Python. Each process has one thread and the entire batch
of the recipe: the work grows with the processes (weak scaling). More processes than cores would
share the cores, and are refused. In each round, five measurements take turns: steps of DDP, steps
of DDP without the exchange of gradients, and all-reduce of the gradients' bytes, of 32 MiB and of
one number. The model of a step with n processes is

    compute + 2 (n − 1) / n × bytes ÷ bandwidth + latency

with compute from the steps without exchange, and bandwidth and latency from the last two. So the
model knows nothing about a step with exchange, nor about all-reduce of that many bytes. A step is
shorter than predicted if DDP hides the exchange behind the backward pass. With --batch 1, a process
has one window, so all-reduce takes a larger share of a step.

--plan measures nothing: it computes, from assumed rates, what to expect of large clusters.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from labs.cpus import usable_cpus
from labs.kit.run.devices import describe_device
from labs.kit.run.processes import group_size, is_main, rank, run_ranks
from labs.llm10_llama import lesson as lab
from labs.llm10_llama.training import HEADLINE, optimizers

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

VOCABULARY = 257
WARM_UP = 3  # calls
LARGE = 32 * 2**20  # bytes: large enough that latency hardly counts


def ring_seconds(count: int, size: float, bandwidth: float, latency: float) -> float:
    """Return the seconds of an all-reduce in a ring: each process sends 2 (n − 1) / n × size."""
    return 0.0 if count == 1 else 2 * (count - 1) / count * size / bandwidth + latency


def per_call(action: Callable[[], Any], times: int) -> float:
    """Return the mean seconds of a call."""
    start = time.perf_counter()
    for _ in range(times):
        action()
    return (time.perf_counter() - start) / times


def measure(steps: int, rounds: int, batch: int, out: Path) -> int:
    """Measure in one process of a group; the main process writes the seconds of each round."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank(), world_size=group_size())
    config, recipe = replace(HEADLINE[0], vocabulary=VOCABULARY), HEADLINE[1]
    torch.manual_seed(0)
    model = lab.Llama(config)
    net = DistributedDataParallel(model)
    both = optimizers(model, recipe)
    tokens = torch.randint(VOCABULARY, (batch, config.context + 1))
    size = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)

    def step(exchange: bool) -> None:
        with nullcontext() if exchange else net.no_sync():
            lab.training_step(net, both, tokens, torch.Tensor.backward)

    def reduce(size: int) -> Callable[[], Any]:
        tensor = torch.zeros(size // 4)
        return lambda: distributed.all_reduce(tensor)

    actions: dict[str, Callable[[], Any]] = {
        "step": lambda: step(exchange=True),
        "compute": lambda: step(exchange=False),
        "gradients": reduce(size),
        "large": reduce(LARGE),
        "number": reduce(4),
    }
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        per_call(action, WARM_UP)
    for _ in range(rounds):
        for name, action in actions.items():
            distributed.barrier()
            seconds[name].append(per_call(action, steps))
    if is_main():
        facts = {"tokens": batch * config.context, "bytes": size, **seconds}
        out.write_text(json.dumps(facts), encoding="utf-8")
    distributed.destroy_process_group()
    return 0


def measure_group(count: int, *sizes: int) -> dict[str, Any]:
    """Measure a group of `count` processes; return what its main process wrote."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "facts.json"
        if run_ranks(count, measure, *sizes, out):
            raise SystemExit("a process failed")
        return json.loads(out.read_text(encoding="utf-8"))


def in_ms(values: list[float]) -> str:
    """Return the median of seconds, and their range, in milliseconds."""
    return f"{1000 * median(values):.2f} [{1000 * min(values):.2f}, {1000 * max(values):.2f}] ms"


def show(count: int, facts: dict[str, Any]) -> None:
    """Print what was measured with `count` processes, and what the model predicts."""
    rate = count * facts["tokens"] / median(facts["step"])
    print(f"\n{count} process{'es' if count > 1 else ''}: {rate:,.0f} tokens/s")
    print(f"  step                {in_ms(facts['step'])}")
    print(f"  without exchange    {in_ms(facts['compute'])}")
    if count == 1:
        return
    share = 2 * (count - 1) / count
    rounds = list(zip(facts["large"], facts["number"], strict=True))
    bandwidth = median(share * LARGE / (large - number) for large, number in rounds)
    latency = median(facts["number"])
    reduce = ring_seconds(count, facts["bytes"], bandwidth, latency)
    predicted = median(facts["compute"]) + reduce
    ratios = [
        step / (compute + reduce)
        for step, compute in zip(facts["step"], facts["compute"], strict=True)
    ]
    print(f"  all-reduce alone    {in_ms(facts['gradients'])}, predicted {1000 * reduce:.2f} ms")
    print(f"  of one number       {in_ms(facts['number'])}")
    print(f"  each process sends {share * facts['bytes'] / 1e6:.2f} MB a step, ", end="")
    print(f"at {bandwidth / 1e9:.2f} GB/s")
    print(f"  predicted step      {1000 * predicted:.2f} ms, of which all-reduce is ", end="")
    print(f"{reduce / predicted:.1%}")
    print(f"  measured ÷ predicted, by round: {median(ratios):.3f} ", end="")
    print(f"[{min(ratios):.3f}, {max(ratios):.3f}]")


@dataclass(frozen=True)
class Model:
    """A model to plan for. Each GPU has `tokens` in a step, at a share of its peak."""

    name: str
    parameters: float
    tokens: int
    utilisation: float  # assumed

    @property
    def compute(self) -> float:
        """Return the seconds of a step: 6 operations a parameter and token, without attention's."""
        return 6 * self.parameters * self.tokens / (PEAK * self.utilisation)


PEAK = 1e15  # operations a second of a GPU in bf16: between an H100 and an MI300X
MODELS = (
    Model("LLM10 at full", 10.7e6, 64 * 256, 0.10),
    Model("a Llama of 1.2 billion", 1.24e9, 8 * 2048, 0.40),
)
HOP = 10e-6  # seconds from one GPU of the ring to the next
# bytes a second of a GPU: NVLink or xGMI; 400 Gbit/s for each GPU; 100 Gbit/s for eight together
NETWORKS = {8: (300e9,), 64: (50e9, 1.56e9), 512: (50e9, 1.56e9)}
HIDDEN = 2 / 3  # of the compute: the backward pass, behind which DDP can hide the exchange
ENOUGH = 0.9  # efficiency


@dataclass(frozen=True)
class Expectation:
    """What to expect of a model on a cluster; seconds, and efficiency relative to one GPU."""

    compute: float
    reduce: float

    def efficiency(self, hidden: bool = True, accumulate: int = 1) -> float:
        """Return compute ÷ step, if the exchange is hidden, and follows several backward passes."""
        shown = max(0.0, self.reduce - HIDDEN * self.compute) if hidden else self.reduce
        return accumulate * self.compute / (accumulate * self.compute + shown)

    @property
    def accumulate(self) -> int:
        """Return after how many backward passes an exchange costs a tenth of a step at most."""
        shown = max(0.0, self.reduce - HIDDEN * self.compute)
        return max(1, ceil(shown * ENOUGH / ((1 - ENOUGH) * self.compute)))


def expectations(model: Model, width: int) -> Iterator[tuple[int, float, Expectation]]:
    """Yield GPUs, bandwidth and expectation, with gradients of `width` bytes a number."""
    for count, networks in NETWORKS.items():
        for bandwidth in networks:
            latency = 2 * (count - 1) * HOP
            reduce = ring_seconds(count, width * model.parameters, bandwidth, latency)
            yield count, bandwidth, Expectation(model.compute, reduce)


def show_plan() -> None:
    """Print what to expect of each model, with gradients in fp32 and in bf16."""
    print(f"computed, not measured: GPUs of {PEAK / 1e12:,.0f} TFLOP/s in bf16")
    for model in MODELS:
        print(f"\n{model.name}: {model.parameters / 1e6:,.1f} million parameters, ", end="")
        print(
            f"{model.tokens:,} tokens a GPU and step, {model.utilisation:.0%} of the peak: ", end=""
        )
        print(f"compute {1000 * model.compute:,.1f} ms")
        print("gradients  GPUs   GB/s  MB sent  all-reduce ms  in sequence  hidden  accumulate")
        for name, width in (("fp32", 4), ("bf16", 2)):
            for count, bandwidth, expected in expectations(model, width):
                sent = 2 * (count - 1) / count * width * model.parameters / 1e6
                print(f"{name:9}  {count:4}  {bandwidth / 1e9:5.1f}  {sent:7,.0f}  ", end="")
                print(f"{1000 * expected.reduce:13,.1f}  ", end="")
                print(f"{expected.efficiency(hidden=False):11.0%}  ", end="")
                print(f"{expected.efficiency():6.0%}  {expected.accumulate:10}")


def main() -> None:
    """Measure and compare with the model, or compute what to expect of clusters."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--batch", type=int, default=HEADLINE[1].batch, help="windows a process")
    parser.add_argument("--plan", action="store_true", help="compute only")
    options = parser.parse_args()
    if options.plan:
        show_plan()
        return
    counts = [int(word) for word in options.processes.split(",")]
    if max(counts) > usable_cpus():
        sys.exit(f"{max(counts)} processes would share {usable_cpus()} cores: no weak scaling")
    print(f"{describe_device(torch.device('cpu'))}; load {os.getloadavg()[0]:.1f}")
    for count in counts:
        show(count, measure_group(count, options.steps, options.rounds, options.batch))


if __name__ == "__main__":
    main()
