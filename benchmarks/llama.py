"""LLM10's LLaMA beside transformers' LlamaForCausalLM of the same shape and the same weights.

    python -m benchmarks.llama [--rounds 9] [--growth]

A training step (forward, loss, backward, fused AdamW) and greedy decoding with a cache, in float32,
at three sizes. Losses and texts are compared first. Two calls are timed in turn, a b a b …, so that
a slowdown affects both; the table has medians over the rounds, with their range.

- `ratio`: the seconds of transformers over ours; above 1 ours is faster.
- `of nn.Linear's`: the seconds of nothing but the products with its matrices, one by one
  as nn.Linear computes them, over ours. Another form of product may take less: above 1.
- `of the same`: likewise with the products that ours computes.

Ours trains as it is, and with convolutions for products. It writes as it is, and rearranged by
`Decoder`, whose milliseconds are behind the name. Ours also makes glibc reuse freed memory, which
helps any model of this size, so theirs gets it too; the last column is theirs without it. --growth
measures time and memory of our step as context, batch and width grow, beside the counted work.
"""

import argparse
import copy
import gc
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from labs.kit import keep_memory, seconds, seconds_paired
from labs.kit.measure import peak_bytes
from labs.kit.run.devices import describe_device
from labs.llm05a_normalization.lesson import gated_width
from labs.llm10_llama import lesson as lab
from labs.llm10_llama.decoder import Decoder
from labs.llm10_llama.memory import step_of
from labs.llm10_llama.products import by_convolution, convolve, product

import torch
import torch.nn.functional as F
import transformers

Call = Callable[[], Any]
Multiply = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# by name: shape; batch and length in training; number of tokens to decode
SIZES = {
    "0.5 M": (lab.Config(257, 96, 4, 4, 4, 256, std=0.2), 16, 64, 48),
    "4 M": (lab.Config(1024, 256, 5, 8, 4, 688, context=128, std=0.1), 8, 128, 64),
    "21 M": (lab.Config(4096, 512, 6, 8, 4, 1376, context=256, std=0.1), 4, 256, 48),
}


def training_step(model: Any, tokens: torch.Tensor) -> Callable[[], float]:
    """Return a function that takes a training step on tokens (B, T + 1) and returns the loss."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    x = tokens[:, :-1].contiguous()
    y = tokens[:, 1:].contiguous()

    def step() -> float:
        out = model(x)
        logits = out if isinstance(out, torch.Tensor) else out.logits
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def text_of_theirs(model: Any, prompt: torch.Tensor, new: int) -> torch.Tensor:
    """Return `new` greedy tokens after each row of the prompt, by `model.generate`."""
    options = {"do_sample": False, "pad_token_id": 0, "max_new_tokens": new}
    text = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
    return text[:, prompt.shape[1] :]


def products(
    matrices: list[torch.Tensor], rows: int, times: int, multiply: Multiply, backward: bool
) -> Call:
    """Return a function that multiplies (rows, d) by each matrix, and does nothing else.

    Args:
        matrices: (d_out, d) each.
        rows: tokens at once.
        times: how often it does so.
        multiply: returns x·Wᵀ of x and W.
        backward: whether to compute the products of the backward pass too.
    """
    pairs = [
        (torch.randn(rows, w.shape[1], requires_grad=backward), w, torch.randn(rows, len(w)))
        for w in matrices
    ]

    def run() -> None:
        with torch.inference_mode(not backward):
            for x, w, dy in pairs * times:
                y = multiply(x, w)
                if backward:
                    torch.autograd.grad(y, (x, w), dy)

    return run


def linear(model: Any) -> list[torch.Tensor]:
    """Return the matrices of a model, as they are multiplied one by one."""
    return [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]


def rearranged(decoder: Decoder) -> list[torch.Tensor]:
    """Return the matrices of a decoder."""
    return [*(w for b in decoder.blocks for w in (b.qkv, b.o, b.gate_up, b.down)), decoder.output]


def cells(ours: Call, theirs: Call, alone: list[Call], tokens: int, rounds: int) -> str:
    """Return both speeds, their ratio and our shares of products' speeds, as cells of the table.

    Args:
        ours: one round of our model.
        theirs: the same of transformers' model.
        alone: products alone, as nn.Linear computes them and as ours does.
        tokens: tokens of a round.
        rounds: how often each is timed.
    """
    mine, others = seconds_paired(ours, theirs, rounds)
    speeds = " | ".join(f"{tokens / median(x):,.0f}" for x in (mine, others))
    shares = [in_turn(*seconds_paired(ours, each, rounds)) for each in alone]
    return f"{speeds} | {in_turn(mine, others)} | {' | '.join(shares)}"


def in_turn(ours: list[float], others: list[float]) -> str:
    """Return the median of the ratios, round by round, and their range."""
    ratios = sorted(b / a for a, b in zip(ours, others, strict=True))
    return f"{median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"


def by_default(name: str, rounds: int) -> float:
    """Return their tokens per second in training, with glibc's default settings for memory."""
    config, batch, length, _ = SIZES[name]
    theirs = lab.to_transformers(lab.Llama(config)).train()
    step = training_step(theirs, lab.random_tokens(config, batch, length + 1))
    return batch * length / median(seconds(step, rounds))


def compare(name: str, rounds: int, default: float) -> None:
    """Print the rows of one size; `default` is `by_default`'s result."""
    config = SIZES[name][0]
    torch.manual_seed(0)
    model = lab.Llama(config)
    compare_writing(name, rounds, model)
    compare_training(name, rounds, default, model)


def compare_training(name: str, rounds: int, default: float, model: lab.Llama) -> None:
    """Print the rows for training: as it is, and with convolutions for products."""
    config, batch, length, _ = SIZES[name]
    tokens = lab.random_tokens(config, batch, length + 1)
    alone = products(linear(model), batch * length, 1, F.linear, backward=True)
    convolved = products(linear(model), batch * length, 1, by_convolution, backward=True)
    for way, same in (("", alone), (", convolutions", convolved)):
        ours = copy.deepcopy(model)
        if way:
            convolve(ours)
        our_step = training_step(ours, tokens)
        their_step = training_step(lab.to_transformers(model).train(), tokens)
        losses = [(our_step(), their_step()) for _ in range(2)]
        if max(abs(x - y) for x, y in losses) > 1e-3:
            raise SystemExit(f"{name}: the losses differ, so the times mean nothing: {losses}")
        row = cells(our_step, their_step, [alone, same], batch * length, rounds)
        print(f"| {name}, train {batch} × {length}{way} | {row} | {default:,.0f} |", flush=True)


def compare_writing(name: str, rounds: int, model: lab.Llama) -> None:
    """Print the rows for decoding one text and eight texts: as it is, and rearranged."""
    config, _, _, new = SIZES[name]
    theirs = lab.to_transformers(model).eval()
    theirs.generation_config.eos_token_id = None
    milliseconds = median(seconds(partial(Decoder, model), 3)) * 1e3
    decoder = Decoder(model)
    for size in (1, 8):
        prompt = lab.random_tokens(config, size, 8)
        their_text = partial(text_of_theirs, theirs, prompt, new)
        alone = products(linear(model), size, new, F.linear, backward=False)
        fewer = products(rearranged(decoder), size, new, product, backward=False)
        ways: Any = [("", model, alone), (f", rearranged ({milliseconds:.0f} ms)", decoder, fewer)]
        for way, ours, same in ways:
            our_text = partial(lab.generate, ours, prompt, new)
            unlike = (our_text() != their_text()).float().mean().item()
            if unlike > 0.1:  # logits of an untrained model are close: rounding may change a token
                raise SystemExit(f"{name}: {unlike:.0%} of the texts differ")
            row = cells(our_text, their_text, [alone, same], size * new, rounds)
            print(f"| {name}, decode {size} × {new}{way} | {row} | |", flush=True)


def grow() -> None:
    """Print time and memory of forward and backward beside the counted operations.

    The count is 6·N·B·T + 6·L·d·B·T²: LLM10+'s, without the half of attention that is masked.
    """
    print("\n| context | batch | width | parameters | GFLOP counted | ms | GFLOP/s | peak MiB |")
    print("|---|---|---|---|---|---|---|---|")
    shapes = [(64, 16, 128), (256, 4, 128), (1024, 1, 128), (64, 4, 128), (64, 64, 128)]
    shapes += [(64, 16, 64), (64, 16, 256), (64, 16, 512)]
    for context, batch, width in shapes:
        config = lab.Config(257, width, 4, 4, 4, gated_width(width), context=context)
        model = lab.Llama(config)
        step = step_of(model, batch, context)
        n = lab.parameters(model)
        count = 6 * n * batch * context + 6 * 4 * width * batch * context**2
        taken = median(seconds(step, 5))
        peak = peak_bytes(step) / 2**20
        cells = [f"{context}", f"{batch}", f"{width}", f"{n:,}", f"{count / 1e9:.2f}"]
        cells += [f"{taken * 1e3:.1f}", f"{count / taken / 1e9:.0f}", f"{peak:.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)
        del model, step
        gc.collect()


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--growth", action="store_true")
    parsed = parser.parse_args()
    device = describe_device(torch.device("cpu"))
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{device}; {versions}; tokens per second")
    print("| | ours | theirs | ratio | of nn.Linear's | of the same | theirs, default memory |")
    print("|---|---|---|---|---|---|---|")
    default = {name: by_default(name, parsed.rounds) for name in SIZES}
    keep_memory()
    for name in SIZES:
        compare(name, parsed.rounds, default[name])
    if parsed.growth:
        grow()


if __name__ == "__main__":
    main()
