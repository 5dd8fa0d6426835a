"""Check the exercises of LLM01; sampling is in sampling_checks, those of LLM01+ in deeper_checks.

References: results written out for `build_chat`, a plain loop for `generate`, the probabilities for
`next_token`, Python's `statistics` for `difference`.
"""

import math
import statistics
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from labs.kit import Checks, Mistake
from labs.llm01_inference import deeper_checks, sampling_checks

import torch
from torch import Tensor

checks = Checks()

Function = Callable[..., Any]
PROMPT = [3, 1]  # of generate
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


# Here, because the checks have the order of the exercises.
for _check in (sampling_checks.sample, sampling_checks.top_p, sampling_checks.repetition_penalty):
    checks.proves(_check.__name__)(_check)


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
