"""Check the exercises of LLM01+.

References: a loop without a cache for `generate_cached`, a search at each character and texts
written out for `until_stop`, the formula for `rounded`.
"""

import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from labs.kit import Mistake, draw, expect_close, name_mistake
from labs.llm01_inference import stops
from labs.llm01_inference.steps import counted

import torch
from torch import Tensor

ROUNDING = (
    "round w ÷ scale, and multiply by the scale of each row; against 0 ÷ 0 clamp the scale, add "
    "nothing to it"
)

NEW = 8  # tokens that generate_cached writes


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


# Pieces, stop strings, the text to show, and what wrong texts come from.
STOPPED: list[tuple[list[str], list[str], str, dict[str, str]]] = [
    (
        ["no", " stop", " here"],
        ["##"],
        "no stop here",
        {"": "nothing was shown: yield all text that can't be part of a stop"},
    ),
    (
        ["ends with #"],
        ["##"],
        "ends with #",
        {
            "ends with ": "the end of the text is missing: after the last piece yield what is held",
            "ends with ##": "the held text was shown twice: hold only what isn't shown yet",
        },
    ),
    (
        ["a b", " ## c", " d"],
        ["##"],
        "a b ",
        {
            "a b ##": "the stop string was shown: yield only the text before it",
            "a b": "the text before the stop is missing: it may stand in the same piece",
            "a b  d": "text after the stop was shown: return at the stop",
            "a b  c d": "text after the stop was shown: return at the stop",
            "a b ## c d": "text after the stop was shown: return at the stop",
        },
    ),
    (
        ["a#", "#b"],
        ["##"],
        "a",
        {
            "a##b": "a stop in two pieces was missed: search in the held text and the new piece "
            "together",
            "a#": "the first half of a stop was shown: hold the end that may begin a stop",
        },
    ),
    (
        ["aaa", "b!"],
        ["aab"],
        "a",
        {"aaab!": "of several ends that begin a stop the longest must wait, here 'aa', not 'a'"},
    ),
    (
        ["one STOP two END"],
        ["END", "STOP"],
        "one ",
        {
            "one STOP two ": "the first stop of the list ended the text: it must be the one "
            "that is complete first in the text",
        },
    ),
    (
        ["xa", "bcd"],
        ["abcd", "bc"],
        "xa",
        {
            "x": "the stop that begins first ended the text: 'bc' is complete before 'abcd'",
        },
    ),
    (
        ["xa", "bcd"],
        ["bc", "abc"],
        "x",
        {"xa": "of 'bc' and 'abc', complete at the same character, the longer one counts"},
    ),
    (["a", "b"], [], "ab", {}),
]


def until_stop(module: Any) -> None:
    """Compare what is shown and when, for texts written out here and for random cuts of others."""
    show = _generator(module.until_stop)
    for pieces, ends, want, mistakes in STOPPED:
        got, _ = stops.shown_and_held(show, list(pieces), list(ends))
        if got != want:
            message = mistakes.get(got, "this text isn't the one before the stop")
            raise _other_text(message, pieces, ends, want, got)
    _shown_at_once(show)
    _nothing_asked_after_the_stop(show)
    generator = random.Random(0)
    for _ in range(200):
        text = "".join(generator.choices("ab#", k=20))
        cuts = sorted({0, 20, *generator.sample(range(20), 4)})
        pieces = [text[a:b] for a, b in pairwise(cuts)]
        ends = ["##a", "b#b#", "#a#"]
        want = _before_the_stop(text, ends)
        got, _ = stops.shown_and_held(show, list(pieces), list(ends))
        if got != want:
            raise _other_text("this text isn't the one before the stop", pieces, ends, want, got)


def _generator(implementation: Callable[..., Any]) -> stops.UntilStop:
    def show(pieces: Any, ends: list[str]) -> Iterator[str]:
        got = implementation(pieces, ends)
        if not isinstance(got, Iterator):
            kind = "nothing (None)" if got is None else f"a {type(got).__name__}"
            raise Mistake(f"until_stop must be a generator, which yields text, got {kind}")
        for part in got:
            if not isinstance(part, str):
                raise Mistake(f"expected texts, got a {type(part).__name__}")
            yield part

    return show


def _other_text(message: str, pieces: list[str], ends: list[str], want: str, got: str) -> Mistake:
    """Return a mistake that shows the texts."""
    call = f"pieces {pieces}, ends {ends}"
    shown = {"expected": f"the text {want!r}", "got": f"the text {got!r}"}
    return Mistake(f"{message} ({call})", arguments=call, message=message, **shown)


def _shown_at_once(show: stops.UntilStop) -> None:
    pieces = ["The", " cat #", " sat", " #"]
    held = stops.shown_and_held(show, pieces, ["##"])[1]
    for piece, part in zip(pieces, held[1:], strict=False):
        if not stops.begins_a_stop(part, ["##"]):
            raise Mistake(
                f"after the piece {piece!r} the text {part!r} was held back, though no stop "
                "begins so: show it before you ask for the next piece"
            )


def _nothing_asked_after_the_stop(show: stops.UntilStop) -> None:
    held = stops.shown_and_held(show, ["a ##", " b", " c"], ["##"])[1]
    if len(held) > 1:
        raise Mistake("another piece was asked for after the stop, which costs a call: return")


def _before_the_stop(text: str, ends: list[str]) -> str:
    """Return the text before the stop that is complete first, by a search at each character."""
    for at in range(1, len(text) + 1):
        if complete := [end for end in ends if text[:at].endswith(end)]:
            return text[: at - max(map(len, complete))]
    return text


def rounded(module: Any) -> None:
    """Compare with the formula, for rows of different sizes, blocks, and a row of zeros."""
    implementation = module.rounded
    w = draw(3, 6) * torch.tensor([[1.0], [10.0], [0.1]])
    w[:, 2] = -1.5 * w.abs().amax(-1)  # the largest magnitude is negative
    for weights in (w, draw(2, 3, 8, seed=1)):
        for bits in (8, 4, 3):
            passed = weights.clone()
            got = implementation(passed, bits)
            if not torch.equal(passed, weights):
                raise Mistake("your function changed its input: a model's weights would change")
            want = _rounded(weights, _largest(weights), bits)
            name_mistake(got, _mistakes_of_rounding(weights, bits))
            expect_close(got, want, ROUNDING)
    zeros = torch.zeros(2, 4, dtype=torch.float64)
    got = implementation(zeros.clone(), 4)
    if isinstance(got, Tensor) and got.isnan().any():
        raise Mistake("a row of zeros became NaN: its scale is 0, so clamp the scale")
    expect_close(got, zeros, "a row of zeros stays as it is")


def _largest(w: Tensor) -> Tensor:
    return w.abs().amax(-1, keepdim=True)


def _rounded(w: Tensor, largest: Tensor, bits: int, levels: int | None = None) -> Tensor:
    scale = largest / (levels or 2 ** (bits - 1) - 1)
    return (w / scale).round() * scale


def _mistakes_of_rounding(w: Tensor, bits: int) -> dict[str, Callable[[], Tensor]]:
    largest = _largest(w)
    scale = largest / (2 ** (bits - 1) - 1)
    return {
        "all rows have the same scale: take the largest magnitude along the last axis": lambda: (
            _rounded(w, w.abs().max(), bits)
        ),
        "the columns have the scales: take the largest magnitude along the last axis, -1": lambda: (
            _rounded(w, w.abs().amax(-2, keepdim=True), bits)
        ),
        "the scale comes from the largest weight: a negative one may be larger, so abs()": lambda: (
            _rounded(w, w.amax(-1, keepdim=True), bits)
        ),
        "the largest integer is 2^(bits − 1) − 1: the − 1 is missing": lambda: _rounded(
            w, largest, bits, 2 ** (bits - 1)
        ),
        "the largest integer is 2^(bits − 1) − 1: half of the levels are negative": lambda: (
            _rounded(w, largest, bits, 2**bits - 1)
        ),
        "these are the integers: multiply them by the scale again": lambda: (w / scale).round(),
        "the numbers are cut off: .round() takes the nearest integer": lambda: (
            (w / scale).trunc() * scale
        ),
        "the numbers are rounded down: .round() takes the nearest integer": lambda: (
            (w / scale).floor() * scale
        ),
        "the weights are rounded without a scale: divide by it first": lambda: w.round(),
        "nothing was rounded": lambda: w,
    }
