"""Check the exercises of LLM01+.

References: results written out for `left_pad`, plain loops for `generate_cached` and
`strided_loss`.
"""

import math
from collections.abc import Iterator
from typing import Any

from labs.kit import Mistake, equals, expect_close
from labs.llm01_inference.steps import counted

import torch
from torch import Tensor

NEW = 8  # tokens that generate_cached writes


def left_pad(module: Any) -> None:
    """Compare ids, mask and positions of three prompts with those written out here."""
    implementation = module.left_pad
    prompts = [[5, 6, 7], [8], [1, 2, 3, 4, 9]]
    got = implementation([list(prompt) for prompt in prompts], 77)
    if not isinstance(got, tuple | list) or len(got) != 3:
        raise Mistake("expected three tensors: ids, mask and positions")
    want_ids = torch.tensor([[77, 77, 5, 6, 7], [77, 77, 77, 77, 8], [1, 2, 3, 4, 9]])
    want_mask = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]])
    want_positions = torch.tensor([[0, 0, 0, 1, 2], [0, 0, 0, 0, 0], [0, 1, 2, 3, 4]])
    ids, mask, positions = got
    if equals(ids, torch.tensor([[5, 6, 7, 77, 77], [8, 77, 77, 77, 77], [1, 2, 3, 4, 9]])):
        raise Mistake("the padding is on the right: the next token follows the last place")
    if equals(ids, torch.tensor([[77, 77, 7, 6, 5], [77, 77, 77, 77, 8], [9, 4, 3, 2, 1]])):
        raise Mistake("the prompts are reversed: after padding a reversed list, reverse it back")
    expect_close(ids, want_ids, "the padding goes in front, and consists of `pad`")
    _expect_mask(mask, want_mask)
    _expect_positions(positions, want_mask, want_positions)
    again = implementation([[77, 77, 5], [5]], 77)
    reason = "a prompt may contain the id `pad`: make the mask from lengths, not from ids"
    expect_close(again[1], torch.tensor([[1, 1, 1], [0, 0, 1]]), reason)


def _expect_mask(got: Any, want: Tensor) -> None:
    if equals(got, 1 - want):
        raise Mistake("the mask is the wrong way round: 1 is text, 0 is padding")
    if isinstance(got, Tensor) and got.dtype == torch.bool:
        raise Mistake("expected a mask of int64 (1 for text, 0 for padding), got booleans")
    if equals(got, torch.ones_like(want)):
        raise Mistake("the mask is 1 everywhere: the model would read the padding as text")
    expect_close(got, want, "1 for each token of a prompt, 0 for the padding")


def _expect_positions(got: Any, mask: Tensor, want: Tensor) -> None:
    places = torch.arange(mask.shape[1]).expand_as(mask)
    if equals(got, places):
        raise Mistake("the positions count the padding: a text's first token has position 0")
    if equals(got, mask.cumsum(-1)):
        raise Mistake("the positions start at 1: a text's first token has position 0")
    if isinstance(got, Tensor) and got.shape == want.shape and (got < 0).any():
        raise Mistake("a position is negative: no table has a row -1, so clamp to 0")
    if isinstance(got, Tensor) and got.shape == want.shape and equals(got * mask, want):
        return  # positions of the padding do no harm
    expect_close(got, want, "0, 1, 2, … along the tokens of each prompt")


def strided_loss(module: Any) -> None:
    """Compare with a loop over windows, whose model depends on every token of its window."""
    implementation = module.strided_loss
    ids = torch.randint(9, (23,), generator=torch.Generator().manual_seed(0))
    for window, stride in ((23, 1), (8, 7), (8, 3), (8, 1), (5, 4), (40, 6)):
        model = _CountingModel()
        got = implementation(model, ids, window, stride)
        if isinstance(got, Tensor) and got.ndim == 0:
            got = got.item()
        if not isinstance(got, float):
            raise Mistake(f"expected a float, got a {type(got).__name__}")
        if model.longest > window:
            raise Mistake(f"the model got {model.longest} tokens: a window has at most {window}")
        want = _strided(ids, window, stride)
        for message, wrong in _mistakes_of_strides(ids, window, stride).items():
            if abs(wrong - want) > 1e-6 and abs(wrong - got) < 1e-9:
                raise Mistake(message)
        if not abs(got - want) < 1e-9:
            raise Mistake(
                f"expected {want:.4f}, got {got:.4f} (window {window}, stride {stride}): does each "
                "token count once, in a window that ends where the new tokens end?"
            )


class _CountingModel:
    """A model whose logits depend on all ids of its window: (T,) -> (T, 9)."""

    def __init__(self) -> None:
        self.longest = 0

    def __call__(self, ids: Tensor) -> Tensor:
        if not isinstance(ids, Tensor) or ids.ndim != 1:
            raise Mistake("the model takes a window of ids, (T,)")
        self.longest = max(self.longest, len(ids))
        seen = torch.nn.functional.one_hot(ids, 9).double().cumsum(0)  # (T, 9)
        return seen.sqrt() + 0.1 * torch.arange(9) * ids[:, None]


def _windows(n: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yield (begin, first scored, end) of each window."""
    scored = 1
    while scored < n:
        end = min(window if scored == 1 else scored + stride, n)
        yield max(0, end - window), scored, end
        scored = end


def _losses(ids: Tensor, begin: int, first: int, end: int, shift: int = 1) -> Tensor:
    """Return the nats of ids[first:end] in a window from `begin`; no shift is a mistake."""
    logp = _CountingModel()(ids[begin:end]).log_softmax(-1)
    return -torch.stack([logp[t - shift - begin, ids[t]] for t in range(first, end)])


def _strided(ids: Tensor, window: int, stride: int) -> float:
    spans = _windows(len(ids), window, stride)
    return sum(_losses(ids, *span).sum().item() for span in spans) / (len(ids) - 1)


def _mistakes_of_strides(ids: Tensor, window: int, stride: int) -> dict[str, float]:
    n = len(ids)
    spans = list(_windows(n, window, stride))
    new = [_losses(ids, *span) for span in spans]
    total = sum(losses.sum().item() for losses in new)
    all_of_each = torch.cat([_losses(ids, begin, begin + 1, end) for begin, _, end in spans])
    unshifted = sum(_losses(ids, *span, shift=0).sum().item() for span in spans)
    starts = range(0, n - 1, stride)
    apart = torch.cat([_losses(ids, a, a + 1, min(a + window, n)) for a in starts])
    return {
        "each window's mean has the same weight, though the last has fewer tokens: divide at the "
        "end": sum(losses.mean().item() for losses in new) / len(new),
        "tokens in two windows count twice: score only new tokens": all_of_each.mean().item(),
        "tokens in two windows count twice, but the sum is divided as if they counted once": (
            all_of_each.sum().item() / (n - 1)
        ),
        "windows that start every `stride` tokens score all their tokens: score only new ones": (
            apart.mean().item()
        ),
        "the logits at place t are about token t + 1: shift by one": unshifted / (n - 1),
        "nothing predicts the first token: divide by len(ids) - 1": total / n,
        "expected the mean, got the sum: divide by the number of scored tokens": total,
        "expected the loss, got e^loss, which is the perplexity": math.exp(total / (n - 1)),
        "expected the loss in nats, got bits": total / (n - 1) / math.log(2),
    }


def _small_llama() -> Any:
    """Return a Llama with random weights, whose greedy text doesn't repeat one token."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    config.initializer_range = 1.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return LlamaForCausalLM(config).double().eval()


@torch.no_grad()
def generate_cached(module: Any) -> None:
    """Compare with a loop without a cache: the ids, and how many positions each call computes."""
    model = _small_llama()
    for prompt in ([3, 1, 4, 1, 5], [9]):
        want = list(prompt)
        for _ in range(NEW):
            want.append(int(model(torch.tensor([want])).logits[0, -1].argmax()))
        passed = list(prompt)
        with counted(model) as positions:
            got = module.generate_cached(model, passed, NEW)
        if passed != prompt:
            raise Mistake("your function changed the prompt: append to another list")
        _expect_each_once(positions, len(prompt))
        _expect_ids(got, want[len(prompt) :], prompt)
    if list(module.generate_cached(model, [3, 1], 0)) != []:
        raise Mistake("with new = 0, nothing must be written")


def _expect_each_once(positions: list[int], length: int) -> None:
    if len(positions) > 1 and positions[1] == length + 1:
        raise Mistake(
            "the second call computes the entire text again: after the first call, pass only the "
            "id that was chosen last"
        )
    if positions and positions[0] == 1 < length:
        raise Mistake("the first call gets one token: it must put the complete prompt in the cache")
    want = [length, *[1] * (NEW - 1)]
    if len(positions) > NEW:
        raise Mistake(f"{NEW} new ids need {NEW} calls, of which the first is the prefill")
    if positions != want:
        raise Mistake(f"the calls must compute {want} positions, yours compute {positions}")


def _expect_ids(got: Any, want: list[int], prompt: list[int]) -> None:
    if isinstance(got, Tensor):
        got = got.flatten().tolist()
    if not isinstance(got, list):
        raise Mistake(f"expected a list of ids, got {type(got).__name__}")
    if got == prompt + want:
        raise Mistake("the prompt was returned, too: return new ids only")
    if got and got[0] != want[0]:
        raise Mistake("the first new id is wrong: the next token is in the last row of the logits")
    if got != want:
        raise Mistake(
            f"the first new id is right, but expected {want}, got {got}: does every call get the "
            "same cache?"
        )
