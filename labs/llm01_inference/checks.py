"""Check the exercises of LLM01; those of LLM01+ are in deeper_checks.

References: the logits processors of transformers for `top_p` and `repetition_penalty`, results
written out for `build_chat`, a plain loop for `generate`, the probabilities for `sample` and
`next_token`, Python's `statistics` for `difference`.
"""

import math
import statistics
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

from labs.kit import Checks, Mistake, draw, expect_close, name_mistake
from labs.llm01_inference import deeper_checks

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TopPLogitsWarper,
)

checks = Checks()

Function = Callable[..., Any]
Mistakes = dict[str, Callable[[], Tensor]]
# As `Any`, because their annotations ask for LongTensor and FloatTensor, which no function returns.
THEIR_TOP_P: Any = TopPLogitsWarper
THEIR_PENALTY: Any = RepetitionPenaltyLogitsProcessor
# The numbers of the text, and which of the three tokens stay at each p.
THREE_TOKENS = (0.67, 0.24, 0.09)
NUCLEI = {0.6: [True, False, False], 0.9: [True, True, False], 0.95: [True, True, True]}
PROMPT = [3, 1]  # of generate
DRAWS = 20_000
SUM_MODEL = "a model of 11 tokens whose next id is the sum of all ids, modulo 11"


class _SumModel:
    """A model of 11 tokens that prefers the sum of all ids so far, modulo 11.

    Attributes:
        calls: the ids of each call.
    """

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __repr__(self) -> str:
        return SUM_MODEL

    def __call__(self, ids: Any, **_: Any) -> Any:
        if not isinstance(ids, Tensor) or ids.ndim != 2:
            raise Mistake("the model takes ids of shape (1, T): call logits_of(model, ids)")
        self.calls.append(ids[0].tolist())
        sums = ids.cumsum(-1) % 11  # (1, T)
        height = 5 + 0.1 * torch.arange(ids.shape[1])  # a little surer at each position
        return SimpleNamespace(logits=height[:, None] * torch.nn.functional.one_hot(sums, 11))


def _plain_loop(new: int, stop: tuple[int, ...] = ()) -> list[int]:
    ids = list(PROMPT)
    for _ in range(new):
        ids.append(sum(ids) % 11)
        if ids[-1] in stop:
            break
    return ids[len(PROMPT) :]


@checks.proves("next_token")
def next_token(module: Any) -> None:
    """Compare id and probability with those of a model that prefers a known id."""
    for ids in (PROMPT, [9], [1, 2, 3, 4]):
        passed = list(ids)
        got = module.next_token(_SumModel(), passed)
        if passed != ids:
            raise Mistake("your function changed the ids: the text stays as it is")
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Mistake("expected two numbers: the id and its probability")
        _compare_next(got, ids)


def _compare_next(got: Any, ids: list[int]) -> None:
    logits = _SumModel()(torch.tensor([ids])).logits[0].double()  # (T, 11)
    want = [logits[-1].argmax().item(), logits[-1].softmax(-1).max().item()]
    best, p = (x.item() if isinstance(x, Tensor) and x.numel() == 1 else x for x in got)
    if isinstance(best, float) and isinstance(p, int):
        raise Mistake("you returned the probability first: return the id, then its probability")
    if not isinstance(best, int) or not isinstance(p, float):
        kinds = f"{type(best).__name__} and {type(p).__name__}"
        raise Mistake(f"expected an id of type int and a probability of type float, got {kinds}")
    ids_of_mistakes = {
        "the logits of the first position were used: what follows the text is in row -1": (
            logits[0].argmax().item()
        ),
        "the argmax ran over all positions together: take the last row first": (
            logits.argmax().item() if len(ids) > 1 else None
        ),
        "this is the least probable token: use argmax": logits[-1].argmin().item(),
    }
    if best != want[0]:
        known = (message for message, wrong in ids_of_mistakes.items() if wrong == best)
        message = next(known, "this is another id: take the argmax of the last row")
        raise _unlike_pair(message, want, [best, p], ids)
    p_of_mistakes = {
        "this is the logit: the softmax makes a probability of it": logits[-1, want[0]],
        "the softmax ran over the positions: use .softmax(-1), over the vocabulary": (
            logits.softmax(0)[-1, want[0]]
        ),
        "the softmax ran over positions and vocabulary together: use .softmax(-1)": (
            logits.flatten().softmax(-1).max()
        ),
        "e to the power of the logit must be divided by the sum of all powers": (
            logits[-1, want[0]].exp()
        ),
        "this is ln p, from log_softmax: use softmax": logits[-1].log_softmax(-1).max(),
    }
    if abs(p - want[1]) > 1e-4:
        known = (message for message, wrong in p_of_mistakes.items() if abs(wrong - p) < 1e-4)
        message = next(known, "the id is right, but this is another probability")
        raise _unlike_pair(message, want, [best, p], ids)


def _unlike_pair(message: str, want: list[Any], got: list[Any], ids: list[int]) -> Mistake:
    """Return a mistake that shows both results: the id and the probability."""
    call = f"{SUM_MODEL}, ids {ids}"
    shown = {"expected": f"{want[0]}, {want[1]:.4f}", "got": f"{got[0]}, {got[1]:.4f}"}
    return Mistake(message, arguments=call, message=message, **shown)


@checks.proves("generate")
def generate(module: Any) -> None:
    """Compare with a plain loop: the ids, the stop token, and that each id comes at once."""
    implementation = module.generate
    prompt = list(PROMPT)

    def written(new: int, **options: Any) -> list[int]:
        got = implementation(_SumModel(), prompt, new, **options)
        if got is None or not hasattr(got, "__iter__"):
            raise Mistake("generate must yield ids, one after the other")
        return [_token_id(token) for token in got]

    want = _plain_loop(6)
    for options in ({"choose": _greedy_of_one_row}, {}):
        got = written(6, **options)
        if prompt != PROMPT:
            raise Mistake("your function changed the prompt: append to a copy of it")
        _name_ids(got, want)
    if written(0) != []:
        raise Mistake("with new = 0, nothing must be written")
    _stop_token(written)
    _each_at_once(implementation)
    _choose_gets_all(implementation)


def _greedy_of_one_row(_ids: Any, logits: Any) -> int:
    if not isinstance(logits, Tensor) or logits.shape != (11,):
        shape = tuple(getattr(logits, "shape", ()))
        raise Mistake(f"`choose` must get the logits (V,) of the next token, got shape {shape}")
    return int(logits.argmax())


def _unlike(message: str, want: list[int], got: list[int], options: str) -> Mistake:
    """Return a mistake that shows ids: the generators themselves say nothing."""
    call = f"{SUM_MODEL}, prompt {PROMPT}, {options}"
    ids = {"expected": f"the ids {want}", "got": f"the ids {got}"}
    return Mistake(message, arguments=call, message=message, **ids)


def _token_id(token: Any) -> int:
    if isinstance(token, Tensor) and token.ndim == 0:
        token = token.item()
    if not isinstance(token, int):
        raise Mistake(f"expected ids of type int, got a {type(token).__name__}")
    return token


def _name_ids(got: list[int], want: list[int]) -> None:
    missing = len(want) - len(got)
    if got == want:
        return
    if got == PROMPT + want:
        message = "the prompt was yielded, too: yield new ids only"
    elif got == [want[0]] * len(want):
        message = "every id is the same: call the model on all ids so far, new ones too"
    elif got == want[:-1]:
        message = f"expected {len(want)} ids, got {len(got)}: does the loop start at 0?"
    elif got[: len(want)] == want:
        message = f"expected {len(want)} ids, got {len(got)}: the loop runs too often"
    elif missing == len(PROMPT) and got == want[:-missing]:
        message = f"expected {len(want)} ids, got {len(got)}: `new` doesn't count the prompt"
    elif got and got[0] == PROMPT[0]:
        message = "the logits of the first token were used: the next token is in row -1"
    else:
        message = "these are other ids: choose from the last row of the logits"
    raise _unlike(message, want, got, f"new={len(want)}")


def _stop_token(written: Callable[..., list[int]]) -> None:
    unstopped = _plain_loop(9)
    stop = unstopped[3]
    want = unstopped[: unstopped.index(stop) + 1]
    for stops in ((stop,), [stop, 99], {stop}):
        got = written(9, stop=stops)
        if got == want:
            continue
        message = f"the ids are wrong with the stop token {stop}"
        if got == unstopped:
            message = "the text goes on after a stop token"
        elif got == want[:-1]:
            message = "the stop token itself is missing: yield it, then return"
        raise _unlike(message, want, got, f"new=9, stop={stops}")
    got = written(3, stop=(PROMPT[-1],))
    want = _plain_loop(3, (PROMPT[-1],))
    if got != want:
        message = "a stop token in the prompt doesn't count: look at new ids only"
        raise _unlike(message, want, got, f"new=3, stop={(PROMPT[-1],)}")


def _each_at_once(implementation: Function) -> None:
    model = _SumModel()
    output = iter(implementation(model, list(PROMPT), 5))
    next(output)
    if len(model.calls) > 1:
        raise Mistake("all ids were computed before the first was yielded: yield inside the loop")


def _choose_gets_all(implementation: Function) -> None:
    seen: list[list[int]] = []

    def choose(ids: Any, logits: Any) -> int:
        _greedy_of_one_row(ids, logits)
        seen.append([int(i) for i in ids])
        return 7

    got = [_token_id(token) for token in implementation(_SumModel(), list(PROMPT), 3, choose)]
    if got != [7, 7, 7]:
        raise Mistake("the choice was ignored: the next id is what `choose` returns")
    want = [[*PROMPT, *[7] * n] for n in range(3)]
    if seen != want:
        raise Mistake(
            f"`choose` must get all ids so far, {want[1]} at its second call, "
            f"got {seen[1] if len(seen) > 1 else seen}"
        )


@checks.proves("sample")
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


@checks.proves("top_p")
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


@checks.proves("repetition_penalty")
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


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi!\nHow are you? "},
    {"role": "assistant", "content": "Fine."},
    {"role": "user", "content": "Good."},
]
CHAT_TEXT = (
    "<|im_start|>system\nBe brief.<|im_end|>\n"
    "<|im_start|>user\nHi!\nHow are you? <|im_end|>\n"
    "<|im_start|>assistant\nFine.<|im_end|>\n"
    "<|im_start|>user\nGood.<|im_end|>\n"
    "<|im_start|>assistant\n"
)


@checks.proves("build_chat")
def build_chat(module: Any) -> None:
    """Compare with conversations written out here."""
    messages = [dict(message) for message in CHAT]
    got = _text(module.build_chat(messages))
    if messages != CHAT:
        raise Mistake("your function changed the messages")
    header = "<|im_start|>assistant\n"
    without_header = CHAT_TEXT.removesuffix(header)
    named = {
        "the last line is missing: open the assistant's turn for the model": without_header,
        "the assistant's turn is closed: the model must write it and its end": (
            f"{CHAT_TEXT}<|im_end|>\n"
        ),
        "the line end after <|im_end|> is missing": CHAT_TEXT.replace("<|im_end|>\n", "<|im_end|>"),
        "<|im_end|> is missing: each turn ends with it": CHAT_TEXT.replace("<|im_end|>", ""),
        "the line end after the role is missing": _without_line_after_role(CHAT_TEXT),
        "the line end after the last `assistant` is missing": CHAT_TEXT.removesuffix("\n"),
        "a message's text was stripped: keep its spaces": CHAT_TEXT.replace("you? <", "you?<"),
        "every turn opens an assistant's turn: only the end of the text does": "".join(
            f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n{header}" for one in CHAT
        ),
    }
    _compare_text(got, CHAT_TEXT, named)
    alone = _text(module.build_chat([{"role": "user", "content": "Hi"}]))
    want = f"<|im_start|>user\nHi<|im_end|>\n{header}"
    if "system" in alone:
        raise Mistake("a system message was added: write down the given messages only")
    _compare_text(alone, want, {})


def _without_line_after_role(text: str) -> str:
    for role in ("system", "user", "assistant"):
        text = text.replace(f"<|im_start|>{role}\n", f"<|im_start|>{role}")
    return text


def _text(got: Any) -> str:
    if not isinstance(got, str):
        raise Mistake(
            f"expected a text, got {'None' if got is None else f'a {type(got).__name__}'}"
        )
    return got


def _compare_text(got: str, want: str, named: dict[str, str]) -> None:
    """Compare two texts; raise the message of a known mistake, or where they first differ."""
    if got == want:
        return
    for message, wrong in named.items():
        if got == wrong:
            raise Mistake(message)
    at = next((i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), None)
    at = min(len(got), len(want)) if at is None else at
    raise Mistake(
        f"after {want[max(0, at - 20) : at]!r} expected {want[at : at + 20]!r}, "
        f"got {got[at : at + 20]!r}"
    )


# Which replies of two forms are right; the first pair is the text's.
REPLIES: list[tuple[list[bool], list[bool]]] = [
    ([True, True, True, False, True], [False, True, False, False, True]),
    ([False, False, True, False, True, False], [True, True, True, False, False, False]),
    ([True, False, True, True, False, False, True], [False, True, False, True, False, True, False]),
]


@checks.proves("difference")
def difference(module: Any) -> None:
    """Compare with the mean and the standard deviation of the differences."""
    for first, second in REPLIES:
        passed = (list(first), list(second))
        got = module.difference(*passed)
        if passed != (first, second):
            raise Mistake(
                "your function changed the replies: write the differences into a new list"
            )
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Mistake("expected two numbers: the mean and its standard error")
        _compare_difference([float(number) for number in got], first, second)
    same = module.difference([True, False], [True, False])
    if [float(number) for number in same] != [0, 0]:
        raise Mistake("replies that are right at the same questions have the difference 0 ± 0")


def _compare_difference(got: list[float], first: list[bool], second: list[bool]) -> None:
    n = len(first)
    gains = [int(a) - int(b) for a, b in zip(first, second, strict=True)]
    want = [statistics.mean(gains), statistics.stdev(gains) / math.sqrt(n)]
    means = {
        "the sign is the wrong way round: subtract the second share from the first": -want[0],
        "the sizes of the differences were averaged: −1 counts as −1, not as 1": (
            statistics.mean(map(abs, gains))
        ),
        "this is the sum of the differences: divide it by n": sum(gains),
        "this is the share of the first form: subtract the second": sum(first) / n,
    }
    a, b = (sum(right) / n for right in (first, second))
    errors = {
        "the squares are divided by n, as in section 4's formula: here divide by n − 1": (
            statistics.pstdev(gains) / math.sqrt(n)
        ),
        "the root of n is missing: this is how one difference varies, not their mean": (
            statistics.stdev(gains)
        ),
        "this is the variance of the mean: take its square root": want[1] ** 2,
        "this is the variance of the differences: divide by n, and take the square root": (
            statistics.variance(gains)
        ),
        "these are the errors for different questions: the two forms got the same ones, so use "
        "the difference at each question": math.sqrt((a * (1 - a) + b * (1 - b)) / n),
    }
    message = ""
    if abs(got[0] - want[0]) > 1e-6:
        known = (why for why, wrong in means.items() if abs(wrong - got[0]) < 1e-6)
        message = next(known, "this is another mean of the differences")
    elif abs(got[1] - want[1]) > 1e-6:
        known = (why for why, wrong in errors.items() if abs(wrong - got[1]) < 1e-6)
        message = next(known, "the mean is right, but this is another standard error")
    if message:
        call = f"right: {[*map(int, first)]} and {[*map(int, second)]}"
        shown = {"expected": f"{want[0]:.3f}, {want[1]:.4f}", "got": f"{got[0]:.3f}, {got[1]:.4f}"}
        raise Mistake(message, arguments=call, message=message, **shown)


for _check in (deeper_checks.generate_cached, deeper_checks.until_stop, deeper_checks.rounded):
    checks.proves(_check.__name__)(_check)
