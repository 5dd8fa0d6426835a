"""What proves the parts of LLM01 right. References: transformers' processors, or a plain loop."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TopPLogitsWarper,
)

checks = Checks()

Function = Callable[..., Any]


def _keep(logits: Tensor, kept: Tensor) -> Tensor:
    return logits.masked_fill(~kept, -math.inf)


@checks.proves("top_p")
def top_p(module: Any) -> None:
    implementation = module.top_p
    logits = 2 * draw(4, 50)
    for p in (0.05, 0.5, 0.9, 0.999):
        given = logits.clone()
        got, want = implementation(given, p), TopPLogitsWarper(p)(None, logits)
        if not torch.equal(given, logits):
            raise Mistake("your function changed its input: fill a copy")
        name_mistake(got, _mistakes_of_top_p(logits, p, want))
        expect_close(got, want, f"p = {p}: the fewest likeliest tokens that hold at least p")
    expect_close(implementation(logits[0], 0.5), TopPLogitsWarper(0.5)(None, logits[:1])[0],
                 "one row without a batch: work on the last axis")  # fmt: skip
    _top_p_of_three(implementation, torch.tensor([[0.67, 0.24, 0.09]], dtype=torch.float64).log())


def _top_p_of_three(implementation: Function, three: Tensor) -> None:
    """The numbers of the text: 0.67, 0.24, 0.09."""
    kept = {0.6: [True, False, False], 0.9: [True, True, False], 0.95: [True, True, True]}
    for p, want in kept.items():
        got = implementation(three.clone(), p)
        expect_close(got.isfinite() if isinstance(got, Tensor) else got, torch.tensor([want]),
                     f"of 0.67, 0.24 and 0.09, {sum(want)} must stay at p = {p}: is the token that "
                     "crosses p kept?")  # fmt: skip


def _mistakes_of_top_p(logits: Tensor, p: float, want: Tensor) -> dict[str, Callable[[], Tensor]]:
    ordered, where = logits.sort(-1, descending=True)
    share = ordered.softmax(-1)
    before = share.cumsum(-1) - share
    probabilities = logits.softmax(-1)
    candidates = {
        "the token that crosses p is missing: it belongs to the nucleus": _keep(
            logits, torch.zeros_like(logits).scatter(-1, where, (before + share <= p).to(share)) > 0
        ),
        "the mask is in sorted order: scatter it back to where the tokens stand": _keep(
            logits, before < p
        ),
        "the answer is sorted: each logit must stay at its own token": _keep(ordered, before < p),
        "is it the unlikeliest that are kept? Sort from the largest down": _keep(
            logits, (probabilities.sort(-1).values.cumsum(-1) <= p).gather(-1, where.argsort(-1))
        ),
        "that compares each probability with p: add them up first": _keep(
            logits, probabilities >= p
        ),
        "probabilities came back: the answer is logits, -inf outside": want.softmax(-1),
        "0 isn't out: e⁰ = 1. Fill with -inf": want.nan_to_num(neginf=0.0),
    }
    return {
        message: lambda wrong=wrong: wrong
        for message, wrong in candidates.items()
        if not torch.equal(wrong, want)
    }


@checks.proves("repetition_penalty")
def repetition_penalty(module: Any) -> None:
    implementation = module.repetition_penalty
    logits = draw(2, 8)
    logits[0, 0], logits[0, 3] = 2.0, -2.0
    ids = torch.tensor([[0, 3, 3, 0, 3], [7, 1, 2, 1, 1]])
    for penalty in (1.3, 2.0):
        given = logits.clone()
        got = implementation(ids, given, penalty)
        if not torch.equal(given, logits):
            raise Mistake("your function changed its input: scatter, not scatter_")
        want = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())
        name_mistake(got, _mistakes_of_penalties(ids, logits, penalty))
        expect_close(got, want, "divide what is positive, multiply what is negative, seen ids only")
    message = "a penalty of 1 changes nothing"
    expect_close(implementation(ids, logits.clone(), 1.0), logits, message)


def _mistakes_of_penalties(
    ids: Tensor, logits: Tensor, penalty: float
) -> dict[str, Callable[[], Tensor]]:
    seen = torch.zeros_like(logits).scatter(1, ids, 1.0) > 0
    count = torch.zeros_like(logits).scatter_add(1, ids, torch.ones_like(ids).to(logits))

    def lowered(by: Any) -> Tensor:
        return torch.where(logits < 0, logits * by, logits / by)

    return {
        "a negative logit got larger: dividing it by the penalty rewards the token": lambda: (
            torch.where(seen, logits / penalty, logits)
        ),
        "a positive logit got larger: multiplying it by the penalty rewards the token": lambda: (
            torch.where(seen, logits * penalty, logits)
        ),
        "the sign is the wrong way round: divide what is positive, multiply what is negative": (
            lambda: torch.where(
                seen, torch.where(logits < 0, logits / penalty, logits * penalty), logits
            )
        ),
        "every token is penalised: only ids that occurred in that row": lambda: lowered(penalty),
        "a token that occurred twice is penalised twice: once is enough": lambda: lowered(
            penalty**count
        ),
        "the ids of all rows are penalised in each row: gather along dim 1": lambda: torch.where(
            seen.any(0), lowered(penalty), logits
        ),
        "it subtracts: the penalty is a factor": lambda: logits - seen.to(logits) * penalty,
    }


@checks.proves("left_pad")
def left_pad(module: Any) -> None:
    implementation = module.left_pad
    prompts = [[5, 6, 7], [8], [1, 2, 3, 4, 9]]
    got = implementation([list(prompt) for prompt in prompts], 77)
    if not isinstance(got, tuple | list) or len(got) != 3:
        raise Mistake("three tensors were expected: ids, mask and positions")
    want = (
        torch.tensor([[77, 77, 5, 6, 7], [77, 77, 77, 77, 8], [1, 2, 3, 4, 9]]),
        torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]),
        torch.tensor([[0, 0, 0, 1, 2], [0, 0, 0, 0, 0], [0, 1, 2, 3, 4]]),
    )
    ids, mask, positions = got
    if equals(ids, torch.tensor([[5, 6, 7, 77, 77], [8, 77, 77, 77, 77], [1, 2, 3, 4, 9]])):
        raise Mistake("the filling is on the right: the next token follows the last place")
    if equals(ids, torch.tensor([[77, 77, 7, 6, 5], [77, 77, 77, 77, 8], [9, 4, 3, 2, 1]])):
        raise Mistake("the prompts are reversed: padding a reversed list must be undone")
    expect_close(ids, want[0], "the filling goes in front, and is `pad`")
    if equals(mask, 1 - want[1]):
        raise Mistake("the mask is the wrong way round: 1 is text, 0 is filling")
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        raise Mistake("the mask is boolean: int64 was asked for, 1 for text and 0 for filling")
    if equals(mask, torch.ones_like(want[1])):
        raise Mistake("the mask is 1 everywhere: the filling would be read as text")
    expect_close(mask, want[1], "1 for each of a prompt's tokens, 0 for the filling")
    _positions(positions, want[1], want[2])
    again = implementation([[77, 77, 5], [5]], 77)
    message = "a prompt may itself hold the id `pad`: make the mask from lengths, not from ids"
    expect_close(again[1], torch.tensor([[1, 1, 1], [0, 0, 1]]), message)


def _positions(got: Any, mask: Tensor, want: Tensor) -> None:
    places = torch.arange(mask.shape[1]).expand_as(mask)
    if equals(got, places):
        raise Mistake("the positions count the filling: a text's first token has position 0")
    if equals(got, mask.cumsum(-1)):
        raise Mistake("the positions start at 1: a text's first token has position 0")
    if isinstance(got, Tensor) and got.shape == want.shape and (got < 0).any():
        raise Mistake("a position is negative: no table has a row -1, clamp to 0")
    if isinstance(got, Tensor) and got.shape == want.shape and equals(got * mask, want):
        return  # whatever stands below the filling does no harm
    expect_close(got, want, "0, 1, 2, … along each prompt's own tokens")


@checks.proves("strided_loss")
def strided_loss(module: Any) -> None:
    implementation = module.strided_loss
    ids = torch.randint(9, (23,), generator=torch.Generator().manual_seed(0))
    for window, stride in ((23, 1), (8, 7), (8, 3), (8, 1), (5, 4), (40, 6)):
        model = _Counts()
        got = implementation(model, ids, window, stride)
        if isinstance(got, Tensor) and got.ndim == 0:
            got = got.item()
        if not isinstance(got, float):
            raise Mistake(f"one number was expected, a {type(got).__name__} came")
        if model.longest > window:
            raise Mistake(f"a window of {model.longest} tokens: at most {window} may be read")
        want, wrong = _strided(ids, window, stride), _mistakes_of_strides(ids, window, stride)
        for message, value in wrong.items():
            if abs(value - want) > 1e-6 and abs(value - got) < 1e-9:
                raise Mistake(message)
        if not abs(got - want) < 1e-9:
            raise Mistake(
                f"{got:.4f} came, {want:.4f} was expected (window {window}, stride {stride}): does "
                "each token count once, with a window that ends where the new ones end?"
            )


class _Counts:
    """A model whose answer depends on all that it is given: (T,) -> (T, 9)."""

    def __init__(self) -> None:
        self.longest = 0

    def __call__(self, ids: Tensor) -> Tensor:
        if not isinstance(ids, Tensor) or ids.ndim != 1:
            raise Mistake("the model takes a window of ids, (T,)")
        self.longest = max(self.longest, len(ids))
        seen = torch.nn.functional.one_hot(ids, 9).double().cumsum(0)  # (T, 9)
        return seen.sqrt() + 0.1 * torch.arange(9) * ids[:, None]


def _windows(n: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(begin, first scored, end) of each window."""
    scored = 1
    while scored < n:
        end = min(window if scored == 1 else scored + stride, n)
        yield max(0, end - window), scored, end
        scored = end


def _losses(ids: Tensor, begin: int, first: int, end: int) -> Tensor:
    """Nats of ids[first:end], read from `begin` on."""
    logp = _Counts()(ids[begin:end]).log_softmax(-1)
    return -torch.stack([logp[t - 1 - begin, ids[t]] for t in range(first, end)])


def _strided(ids: Tensor, window: int, stride: int) -> float:
    spans = _windows(len(ids), window, stride)
    return sum(_losses(ids, *span).sum().item() for span in spans) / (len(ids) - 1)


def _mistakes_of_strides(ids: Tensor, window: int, stride: int) -> dict[str, float]:
    n, spans = len(ids), list(_windows(len(ids), window, stride))
    new = [_losses(ids, *span) for span in spans]
    whole = [_losses(ids, begin, begin + 1, end) for begin, _, end in spans]
    total = sum(one.sum().item() for one in new)
    unshifted = 0.0
    for begin, first, end in spans:
        logp = _Counts()(ids[begin:end]).log_softmax(-1)
        unshifted -= sum(logp[t - begin, ids[t]].item() for t in range(first, end))
    starts = range(0, n - 1, stride)
    apart = torch.cat([_losses(ids, a, a + 1, min(a + window, n)) for a in starts])
    return {
        "each window's mean counts alike, though the last has fewer tokens: divide at the end": (
            sum(one.mean().item() for one in new) / len(new)
        ),
        "tokens in two windows count twice: score only what is new": (
            torch.cat(whole).mean().item()
        ),
        "tokens in two windows count twice, and the sum is divided as if once": (
            torch.cat(whole).sum().item() / (n - 1)
        ),
        "windows that start every `stride` tokens score all they hold: score only what is new": (
            apart.mean().item()
        ),
        "the logits at place t are about token t + 1: shift by one": unshifted / (n - 1),
        "the first token isn't predicted: divide by len(ids) - 1": total / n,
        "that is the sum: divide by the tokens scored": total,
        "that is e^loss, the perplexity: the loss was asked for": math.exp(total / (n - 1)),
        "that is in bits: the loss was asked for in nats": total / (n - 1) / math.log(2),
    }


@checks.proves("until_stop")
def until_stop(module: Any) -> None:
    implementation = module.until_stop

    def shown(pieces: list[str], stops: list[str]) -> str:
        got = implementation(iter(pieces), list(stops))
        if got is None or isinstance(got, str) or not hasattr(got, "__iter__"):
            raise Mistake("it must yield pieces of text, one after the other")
        parts = list(got)
        if not all(isinstance(part, str) for part in parts):
            raise Mistake("something else than text was yielded")
        return "".join(parts)

    _one_stop(shown)
    _several_stops(shown)
    _as_early_as_is_safe(implementation)


def _one_stop(shown: Callable[[list[str], list[str]], str]) -> None:
    if shown(["no", " stop", " here"], ["##"]) != "no stop here":
        raise Mistake("without a stop all text must be shown, what was held back at its end too")
    if shown(["ends with #"], ["##"]) != "ends with #":
        raise Mistake("what was held back at the end was never shown: it was no stop after all")
    got = shown(["a b", " ## c", " d"], ["##"])
    if got == "a b ##":
        raise Mistake("the stop string itself was shown: end before it")
    if got == "a b":
        raise Mistake("text before the stop, in its own piece, is lost")
    if "c" in got:
        raise Mistake("it goes on behind the stop string")
    if got != "a b ":
        raise Mistake(f"{got!r} came for 'a b ## c', 'a b ' was expected")
    if shown(["a#", "#b"], ["##"]) != "a":
        raise Mistake("a stop that begins in one piece and ends in the next isn't recognised")
    if shown(["aaa", "b!"], ["aab"]) != "a":
        raise Mistake("after 'aaa' 'aa' must wait, not all of it: a stop may begin at each letter")


def _several_stops(shown: Callable[[list[str], list[str]], str]) -> None:
    if shown(["one STOP two END"], ["END", "STOP"]) != "one ":
        raise Mistake("the stop that comes first in the text ends it, not the first of the list")
    for pieces in (["xabcd"], list("xabcd"), ["xa", "bcd"]):
        if shown(pieces, ["abcd", "bc"]) != "xa":
            raise Mistake(
                "the stop that is complete first ends the text, however it is cut: of 'xabcd', "
                "'bc' is complete before 'abcd'"
            )
        if shown(pieces, ["bc", "abc"]) != "x":
            raise Mistake("of two stops that are complete together the longer one counts")


def _as_early_as_is_safe(implementation: Function) -> None:
    def pieces() -> Iterator[str]:
        for piece in ("The", " cat #", " sat"):
            yield piece
            asked.append(piece)

    asked: list[str] = []
    out = iter(implementation(pieces(), ["##"]))
    early = ""
    while early != "The" and len(early) < 3:
        early += next(out, "###")
    if asked:
        raise Mistake("nothing is shown before later pieces are read: yield what is safe at once")
    rest = early + "".join(out)
    if rest != "The cat # sat":
        raise Mistake(f"{rest!r} was shown of 'The cat # sat': a part that was held back is lost")
