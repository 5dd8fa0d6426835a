"""Count, size and time a model's calls: what the sections on speed of LLM01+ measure with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from labs.kit import Run, seconds_paired

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """Collect how many positions each call of the model computes."""
    positions: list[int] = []
    hook = model.get_input_embeddings().register_forward_pre_hook(
        lambda _module, inputs: positions.append(inputs[0].numel())
    )
    try:
        yield positions
    finally:
        hook.remove()


@torch.no_grad()
def check_cache_size(run: Run, name: str, model: Any) -> None:
    """Check the formula of the cache's size on two texts of ten tokens."""
    ids = torch.ones(2, 10, dtype=torch.long, device=run.device)
    cache = model(ids, use_cache=True, logits_to_keep=1).cache
    size = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    c = model.config
    numbers = 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * ids.numel()
    what = f"{name}: bytes of a {str(model.dtype)[6:]} cache"
    run.check(
        what,
        size,
        equals=numbers * model.dtype.itemsize,
        because="2·L·H_kv·D·B·T·size, B = 2 and T = 10",
    )


@torch.no_grad()
def change_by_cache(model: Any, ids: list[int]) -> float:
    """Return the largest change of the last logits if a cache holds all tokens but the last."""
    text = torch.tensor([ids], device=model.device)  # (1, T)
    cache = model(text[:, :-1], use_cache=True, logits_to_keep=1).cache
    cached = model(text[:, -1:], cache=cache, use_cache=True).logits[0, -1]
    return (cached - model(text).logits[0, -1]).abs().max().item()


def until_end(row: list[int], end: set[int]) -> list[int]:
    """Return the ids up to the first end token."""
    places = [i for i, token in enumerate(row) if token in end]
    return row[: places[0] + 1] if places else row


def random_ids(model: Any, batch: int, length: int) -> torch.Tensor:
    """Return random ids, (batch, length)."""
    return torch.randint(model.config.vocab_size, (batch, length), device=model.device)


@torch.no_grad()
def one_step(model: Any, batch: int, length: int) -> Callable[[], None]:
    """Return a decoding step after `length` tokens, which can be repeated."""
    cache = model(random_ids(model, batch, length), use_cache=True, logits_to_keep=1).cache
    ids = random_ids(model, batch, 1)

    @torch.no_grad()
    def step() -> None:
        model(ids, cache=cache, use_cache=True)
        cache.crop(-1)

    return step


def utilisation(run: Run, model: Any, repeats: int) -> float:
    """Measure the MBU of a decoding step for one text: time to sum as many bytes ÷ its time."""
    block = torch.ones(sum(p.nbytes for p in model.parameters()) // 4, device=model.device)
    took, sums = seconds_paired(one_step(model, 1, 32), block.sum, repeats)
    mbu = median(y / x for x, y in zip(took, sums, strict=True))
    name = str(model.dtype)[6:]
    because = "a test of our sum: no step reads faster, unless fast memory holds the weights"
    what = f"MBU, one text, {name}"
    run.measure(what, mbu, expect_at_most=1, because=because, timed=True)
    bandwidth = block.nbytes / median(sums) / 1e9
    what = f"bandwidth of a plain sum, as many bytes as in {name}"
    run.measure(what, bandwidth, unit="GB/s", timed=True)
    return mbu


def compare_formats(run: Run, short: Any, long: Any, repeats: int) -> str:
    """Measure a step's MBU in bfloat16 and in float32, and the ratio of the steps; describe it."""
    in_short, in_long = (utilisation(run, model, repeats) for model in (short, long))
    times = seconds_paired(one_step(short, 1, 32), one_step(long, 1, 32), repeats)
    ratio = median(a / b for a, b in zip(*times, strict=True))
    run.measure("step in bfloat16 ÷ step in float32", ratio, timed=True)
    return (
        f"Summing as many bytes as the weights have took {in_short:.0%} of the time of a bfloat16 "
        f"step and {in_long:.0%} of that of a float32 step. A bfloat16 step took {ratio:.2f} times "
        "as long as a float32 step. If both waited for memory, it would be 0.50."
    )


def random_gpt2(device: torch.device) -> Any:
    """Return a small GPT-2 with the random weights with which training starts."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=500,
        n_positions=64,
        n_embd=64,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    model: Any = GPT2LMHeadModel(config)
    return model.double().to(device).eval()
