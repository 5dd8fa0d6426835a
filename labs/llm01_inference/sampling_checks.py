"""Check what chooses a token in LLM01: `sample`, `top_p` and `repetition_penalty`.

References: the probabilities for `sample`, the logits processors of transformers for the others.
"""

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

from labs.kit import Mistake, draw, expect_close, name_mistake

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TopPLogitsWarper,
)

Function = Callable[..., Any]
Mistakes = dict[str, Callable[[], Tensor]]
# As `Any`, because their annotations ask for LongTensor and FloatTensor, which no function returns.
THEIR_TOP_P: Any = TopPLogitsWarper
THEIR_PENALTY: Any = RepetitionPenaltyLogitsProcessor
# The numbers of the text, and which of the three tokens stay at each p.
THREE_TOKENS = (0.67, 0.24, 0.09)
NUCLEI = {0.6: [True, False, False], 0.9: [True, True, False], 0.95: [True, True, True]}
DRAWS = 20_000


def sample(module: Any) -> None:
    """Count draws at several temperatures, and compare their shares with the probabilities."""
    implementation = module.sample
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 0.5, 3.0, 1.0]], dtype=torch.float64)
    torch.manual_seed(0)
    _greedy(implementation, logits.clone())
    for temperature in (1.0, 0.5, 2.0):
        passed = logits.clone()
        ids = _two_rows(implementation, passed, temperature)
        if not torch.equal(passed, logits):
            raise Mistake("your function changed its input: divide into a new tensor")
        _require_ids(ids, (2, DRAWS))
        _compare_shares(ids, logits, temperature)
    _require_ids(implementation(logits), (2, 1))
    _any_number_of_axes(implementation, logits)
    pair = implementation(torch.zeros(2000, 50, dtype=torch.float64))[:, 0]
    if len(pair.unique()) == 1:
        raise Mistake("all rows used the same random number: draw one for each row")
    _zero_probabilities(implementation)
    _rare_tokens(implementation)


def _two_rows(implementation: Function, logits: Tensor, temperature: float) -> Any:
    try:
        return implementation(logits, temperature, DRAWS)
    except RuntimeError as error:
        what = f"two rows of logits failed: {str(error)[:120]}"
        shapes = "u needs two rows, too, and ends[..., -1:] is the last end of each row"
        raise Mistake(f"{what}; {shapes}") from error


def _zero_probabilities(implementation: Function) -> None:
    few = torch.full((1000,), -math.inf, dtype=torch.float64)
    few[[3, 999]] = 0.0
    if set(implementation(few, 1.0, 500).tolist()) - {3, 999}:
        raise Mistake("a token with probability 0 was drawn")
    with mock.patch.object(torch, "rand", _zeros):  # u = 0 is too rare to wait for
        if set(implementation(few, 1.0, 5).tolist()) - {3, 999}:
            raise Mistake("at u = 0 a token of probability 0 was drawn: searchsorted(right=True)")


def _zeros(*size: Any, generator: Any = None, **options: Any) -> Tensor:
    """Return zeros where torch.rand would return random numbers."""
    del generator
    return torch.zeros(*size, **options)


def _rare_tokens(implementation: Function) -> None:
    rare = torch.full((100_000,), math.log(1e-8))  # float32
    rare[0] = 0.0
    stretches = rare.softmax(-1).cumsum(-1).diff(prepend=torch.zeros(1))  # of 0 or 6e-8
    drawn = implementation(rare, 1.0, DRAWS)
    _require_ids(drawn, (DRAWS,))
    if not (stretches[drawn.clamp(max=len(rare) - 1)] == 0).any():  # about 17 are expected
        raise Mistake("in float32 most of these stretches are 0 long: .double() before cumsum")


def _greedy(implementation: Function, logits: Tensor) -> None:
    try:
        ids = implementation(logits, 0.0, 5)
    except (RuntimeError, ZeroDivisionError) as error:
        what = f"temperature 0 failed with {type(error).__name__}: {str(error)[:120]}"
        raise Mistake(
            f"{what}; it means greedy: the argmax, repeated on a new last axis"
        ) from error
    _require_ids(ids, (2, 5))
    if not torch.equal(ids, torch.tensor([[0] * 5, [2] * 5])):
        raise Mistake("temperature 0 means greedy: every draw is the most probable id")


def _any_number_of_axes(implementation: Function, logits: Tensor) -> None:
    for passed, axes in ((logits[None], "three axes"), (logits[0], "one axis")):
        for temperature in (1.0, 0.0):
            try:
                ids = implementation(passed, temperature, 3)
            except RuntimeError as error:
                what = f"at T = {temperature:g}, logits with {axes} failed: {str(error)[:120]}"
                raise Mistake(f"{what}; the last axis is V, before it may be any number") from error
            _require_ids(ids, (*passed.shape[:-1], 3))


def _require_ids(ids: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(ids, Tensor):
        raise Mistake(f"expected a tensor of ids, got a {type(ids).__name__}")
    if ids.is_floating_point():
        raise Mistake("expected ids, got numbers with a fraction: search for the stretch of u")
    if ids.shape != shape:
        raise Mistake(f"expected ids of shape {shape}, got {tuple(ids.shape)}")


def _compare_shares(ids: Tensor, logits: Tensor, temperature: float) -> None:
    size = logits.shape[-1]
    if ids.min() < 0 or ids.max() >= size:
        raise Mistake(f"an id is {int(ids.max())}, outside of 0 to {size - 1}")
    shares = torch.stack([row.bincount(minlength=size) for row in ids]) / ids.shape[-1]
    if _fits(shares, (logits / temperature).softmax(-1)):
        return
    p = logits.softmax(-1)
    wrong = {
        "the logits are multiplied by the temperature: divide them": logits * temperature,
        "the temperature is ignored: divide the logits by it": logits,
        "the probabilities are divided by the temperature: divide the logits, before the softmax": (
            (p / temperature).log()
        ),
        "the temperature acts on the probabilities: divide the logits, before the softmax": (
            p / temperature
        ),
        "every token is equally likely in your draws: use the probabilities": torch.zeros_like(p),
    }
    for message, mistaken in wrong.items():
        if _fits(shares, mistaken.softmax(-1)):
            raise Mistake(message)
    if torch.equal(ids, logits.argmax(-1, keepdim=True).expand_as(ids)):
        raise Mistake("every draw is the most probable id: that is greedy decoding")
    raise Mistake(
        f"at temperature {temperature:g} the shares of {DRAWS:,} draws are far from softmax(logits "
        "÷ temperature)",
        arguments=f"logits {logits[0].tolist()}, temperature {temperature:g}",
        expected=f"shares near {_rounded((logits[0] / temperature).softmax(-1))}",
        got=f"shares {_rounded(shares[0])}",
        message="the shares don't fit: check the order of the steps",
    )


def _rounded(numbers: Tensor) -> list[float]:
    return [round(number, 3) for number in numbers.tolist()]


def _fits(shares: Tensor, p: Tensor) -> bool:
    """Return whether shares of DRAWS draws are within 5 standard errors of p."""
    return bool(((shares - p).abs() <= 5 * (p * (1 - p) / DRAWS).sqrt() + 1e-9).all())


def top_p(module: Any) -> None:
    """Compare with `TopPLogitsWarper`, on a batch, a single row and the numbers of the text."""
    implementation = module.top_p
    logits = 2 * draw(4, 50)
    for p in (0.05, 0.5, 0.9, 0.999):
        passed = logits.clone()
        got = implementation(passed, p)
        want = THEIR_TOP_P(p)(None, logits)
        if not torch.equal(passed, logits):
            raise Mistake("your function changed its input: fill a copy")
        name_mistake(got, _mistakes_of_top_p(logits, p, want))
        expect_close(got, want, f"p = {p}: keep the fewest likeliest tokens that hold at least p")
    row = implementation(logits[0], 0.5)
    want = THEIR_TOP_P(0.5)(None, logits[:1])[0]
    expect_close(row, want, "one row without a batch: work on the last axis")
    _top_p_of_three(implementation)
    two = implementation(torch.zeros(1, 2, dtype=torch.float64), 0.5)
    if isinstance(two, Tensor) and two.isfinite().sum() == 2:
        raise Mistake("of two equal tokens one holds p = 0.5 already: cut where `before` is >= p")


def _top_p_of_three(implementation: Function) -> None:
    three = torch.tensor([THREE_TOKENS], dtype=torch.float64).log()
    for p, want in NUCLEI.items():
        got = implementation(three.clone(), p)
        stays = got.isfinite() if isinstance(got, Tensor) else got
        reason = (
            f"of 0.67, 0.24 and 0.09, {sum(want)} must stay at p = {p}: does the token that "
            "crosses p stay?"
        )
        expect_close(stays, torch.tensor([want]), reason)


def _keep(logits: Tensor, stays: Tensor) -> Tensor:
    return logits.masked_fill(~stays, -math.inf)


def _mistakes_of_top_p(logits: Tensor, p: float, want: Tensor) -> Mistakes:
    ordered, where = logits.sort(-1, descending=True)
    share = ordered.softmax(-1)
    before = share.cumsum(-1) - share
    probabilities = logits.softmax(-1)
    zeros = torch.zeros_like(logits)
    without_crossing = zeros.scatter(-1, where, (before + share <= p).to(share)) > 0
    rank_from_above = where.argsort(-1)  # the place of each token in sorted order
    rank_from_below = logits.argsort(-1).argsort(-1)
    rising = probabilities.sort(-1).values
    least_likely = (rising.cumsum(-1) - rising < p).gather(-1, rank_from_below)
    results = {
        "the token that crosses p is missing: it must stay, or the sum is below p": _keep(
            logits, without_crossing
        ),
        "the logits are added up: the softmax makes probabilities of them first": _keep(
            logits, (ordered.cumsum(-1) - ordered < p).gather(-1, rank_from_above)
        ),
        "the mask is in sorted order: scatter it back to the tokens' own places": _keep(
            logits, before < p
        ),
        "the logits are sorted: each logit must stay at its own token": _keep(ordered, before < p),
        "the least likely tokens stay: sort from the largest down": _keep(logits, least_likely),
        "gather reads from `where`: write the mask to these places, with scatter": _keep(
            logits, ~(before >= p).gather(-1, where)
        ),
        "the tokens are added up unsorted: sort from the largest down": _keep(
            logits, probabilities.cumsum(-1) - probabilities < p
        ),
        "each probability is compared with p: add them up first": _keep(logits, probabilities >= p),
        "expected logits with -inf outside, got probabilities": want.softmax(-1),
        "0 doesn't remove a token, because e⁰ = 1: fill with -inf": want.nan_to_num(neginf=0.0),
    }
    return {
        message: lambda wrong=wrong: wrong
        for message, wrong in results.items()
        if not torch.equal(wrong, want)
    }


def repetition_penalty(module: Any) -> None:
    """Compare with `RepetitionPenaltyLogitsProcessor`, for seen logits of both signs."""
    implementation = module.repetition_penalty
    logits = draw(2, 8)
    logits[0, 0] = 2.0
    logits[0, 3] = -2.0
    ids = torch.tensor([[0, 3, 3, 0, 3], [7, 1, 2, 1, 1]])
    for penalty in (1.3, 2.0):
        passed = logits.clone()
        got = implementation(ids, passed, penalty)
        if not torch.equal(passed, logits):
            raise Mistake(
                "your function changed its input, by `logits[…] = …` or by scatter_: write to a "
                "copy, or use scatter"
            )
        want = THEIR_PENALTY(penalty)(ids, logits.clone())
        name_mistake(got, _mistakes_of_penalties(ids, logits, penalty))
        reason = "divide positive logits, multiply negative ones, for ids that occurred only"
        expect_close(got, want, reason)
    unchanged = implementation(ids, logits.clone(), 1.0)
    expect_close(unchanged, logits, "a penalty of 1 changes nothing")


def _mistakes_of_penalties(ids: Tensor, logits: Tensor, penalty: float) -> Mistakes:
    seen = torch.zeros_like(logits).scatter(1, ids, 1.0) > 0
    count = torch.zeros_like(logits).scatter_add(1, ids, torch.ones_like(ids).to(logits))

    def lowered(by: Any) -> Tensor:
        return torch.where(logits < 0, logits * by, logits / by)

    def raised() -> Tensor:
        return torch.where(logits < 0, logits / penalty, logits * penalty)

    return {
        "a negative logit got larger: dividing it by the penalty rewards the token": lambda: (
            torch.where(seen, logits / penalty, logits)
        ),
        "a positive logit got larger: multiplying it by the penalty rewards the token": lambda: (
            torch.where(seen, logits * penalty, logits)
        ),
        "the sign is the wrong way round: divide positive logits, multiply negative ones": lambda: (
            torch.where(seen, raised(), logits)
        ),
        "every token is penalised: penalise only ids that occurred in that row": lambda: lowered(
            penalty
        ),
        "a token that occurred twice is penalised twice: once is enough": lambda: lowered(
            penalty**count
        ),
        "the ids of all rows are penalised in each row: gather along dim 1": lambda: torch.where(
            seen.any(0), lowered(penalty), logits
        ),
        "the penalty is subtracted: it is a factor": lambda: logits - seen.to(logits) * penalty,
    }
