"""LLM10's LLaMA beside transformers' LlamaForCausalLM of the same shape and the same weights.

    python -m benchmarks.llama [--rounds 9] [--growth]

A training step (forward, loss, backward, fused AdamW) and greedy decoding with a cache, in float32,
at three sizes, in pairs, a b a b …, so that a change of pace meets both alike. Printed are medians
of tokens per second and the median of the ratios, round by round, with their range: above 1 ours
is faster. Before, the losses and the texts must be equal. Ours also tells glibc to keep freed
memory, which helps any model of this size, so it is given to both; `as it comes` is theirs without.
`at most` is the ratio that a model would have of which nothing took time but the products with its
matrices, one by one, which both have to compute: no other way to write the rest gets past it.
For decoding ours is laid out once before, in the milliseconds that stand behind its name.
--growth tells time and memory of our step as context, batch and width grow, beside the count.
"""

import argparse
import gc
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from labs.kit import seconds, seconds_paired
from labs.kit.measure import peak_bytes
from labs.kit.run.devices import describe_device
from labs.llm05a_normalization import gated_width
from labs.llm10_llama import lesson as lab

import torch
import torch.nn.functional as F
import transformers

SIZES = {  # shape, batch, length of training; tokens that are decoded
    "0.5 M": (lab.Config(257, 96, 4, 4, 4, 256, std=0.2), 16, 64, 48),
    "4 M": (lab.Config(1024, 256, 5, 8, 4, 688, context=128, std=0.1), 8, 128, 64),
    "21 M": (lab.Config(4096, 512, 6, 8, 4, 1376, context=256, std=0.1), 4, 256, 48),
}


def training_step(model: Any, tokens: torch.Tensor) -> Callable[[], float]:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step() -> float:
        out = model(x)
        logits = out if isinstance(out, torch.Tensor) else out.logits
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def their_text(model: Any, prompt: torch.Tensor, new: int) -> torch.Tensor:
    how = {"do_sample": False, "pad_token_id": 0, "max_new_tokens": new}
    text = model.generate(prompt, attention_mask=torch.ones_like(prompt), **how)
    return text[:, prompt.shape[1] :]


def products(model: lab.Llama, rows: int, times: int, backward: bool) -> Callable[[], None]:
    """The products of (rows, d) with each matrix alone; if it is trained, those backwards, too."""
    weights = [one.weight.detach() for one in model.modules() if isinstance(one, torch.nn.Linear)]
    pairs = [(torch.randn(rows, w.shape[1]), w, torch.randn(rows, w.shape[0])) for w in weights]

    @torch.inference_mode()
    def run() -> None:
        for _ in range(times):
            for x, w, dy in pairs:
                F.linear(x, w)
                if backward:
                    dy @ w
                    dy.T @ x

    return run


def ratio(ours: list[float], theirs: list[float], tokens: int, alone: list[float]) -> str:
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    speeds = " | ".join(f"{tokens / median(x):,.0f}" for x in (ours, theirs))
    most = median(theirs) / median(alone)
    return f"{speeds} | {median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}] | {most:.2f}"


def as_it_comes(name: str, rounds: int) -> float:
    """Their tokens per second in training, in a process that was told nothing about memory."""
    config, batch, length, _ = SIZES[name]
    theirs = lab.to_transformers(lab.Llama(config)).train()
    step = training_step(theirs, lab.random_tokens(config, batch, length + 1))
    return batch * length / median(seconds(step, rounds))


def compare(name: str, rounds: int, plain: float) -> None:
    config, batch, length, new = SIZES[name]
    torch.manual_seed(0)
    ours = lab.Llama(config)
    theirs = lab.to_transformers(ours).train()
    tokens = lab.random_tokens(config, batch, length + 1)
    a, b = training_step(ours, tokens), training_step(theirs, tokens)
    losses = [(a(), b()) for _ in range(2)]
    if max(abs(x - y) for x, y in losses) > 1e-3:
        raise SystemExit(f"{name}: the losses differ, so the times mean nothing: {losses}")
    alone = seconds(products(ours, batch * length, 1, backward=True), rounds)
    told = ratio(*seconds_paired(a, b, rounds), batch * length, alone)
    print(f"| {name}, train {batch} × {length} | {told} | {plain:,.0f} |", flush=True)
    theirs = lab.to_transformers(ours).eval()
    laying = median(seconds(partial(lab.laid_for_writing, ours), 3)) * 1e3
    ours = lab.laid_for_writing(ours).eval()
    theirs.generation_config.eos_token_id = None
    for size in (1, 8):
        prompt = lab.random_tokens(config, size, 8)
        pair = partial(lab.generate, ours, prompt, new), partial(their_text, theirs, prompt, new)
        unlike = (pair[0]() != pair[1]()).float().mean().item()
        if unlike > 0.1:  # an untrained model's logits are near ties, which rounding may turn
            raise SystemExit(f"{name}: {unlike:.0%} of the texts differ")
        alone = seconds(products(ours, size, new, backward=False), rounds)
        told = ratio(*seconds_paired(*pair, rounds), size * new, alone)
        print(f"| {name}, decode {size} × {new} ({laying:.0f} ms) | {told} | |", flush=True)


def grow() -> None:
    """Time and memory of forward and backward, beside the count: 6·N·B·T + 6·L·d·B·T², LLM03."""
    print("\n| context | batch | width | parameters | GFLOP counted | ms | GFLOP/s | MiB held |")
    print("|---|---|---|---|---|---|---|---|")
    base = [(64, 16, 128), (256, 4, 128), (1024, 1, 128), (64, 4, 128), (64, 64, 128),
            (64, 16, 64), (64, 16, 256), (64, 16, 512)]  # fmt: skip
    for context, batch, width in base:
        config = lab.Config(257, width, 4, 4, 4, gated_width(width), context=context)
        model = lab.Llama(config)
        step = lab.step_of(model, batch, context)
        n = lab.parameters(model)
        count = 6 * n * batch * context + 6 * 4 * width * batch * context**2
        taken = median(seconds(step, 5))
        held = peak_bytes(step) / 2**20
        print(f"| {context} | {batch} | {width} | {n:,} | {count / 1e9:.2f} | {taken * 1e3:.1f} | "
              f"{count / taken / 1e9:.0f} | {held:.0f} |", flush=True)  # fmt: skip
        del model, step
        gc.collect()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--growth", action="store_true")
    asked = parser.parse_args()
    print(f"{describe_device(torch.device('cpu'))}; torch {torch.__version__}, "
          f"transformers {transformers.__version__}; tokens per second")  # fmt: skip
    print("| | ours | theirs | ratio [range] | at most | theirs, as it comes |")
    print("|---|---|---|---|---|---|")
    plain = {name: as_it_comes(name, asked.rounds) for name in SIZES}
    lab.keep_memory()
    for name in SIZES:
        compare(name, asked.rounds, plain[name])
    if asked.growth:
        grow()


if __name__ == "__main__":
    main()
