"""Check the exercises of LLM05b+ against formulas."""

import math
from collections.abc import Callable
from typing import Any

from labs.kit import Mistake, draw, equals, expect_close, name_mistake

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def require_float64(got: Any) -> None:
    """Refuse floating-point numbers of another type."""
    if isinstance(got, Tensor) and got.is_floating_point() and got.dtype != torch.float64:
        raise Mistake(f"expected float64, got {got.dtype}")


class _Turn(nn.Module):
    """Stand in for a position: swap a head's entries and scale them by the place."""

    def turn(self, x: Tensor) -> Tensor:
        return x.flip(-1) * (1 + torch.arange(x.shape[-2]))[:, None]


def queries_and_keys(module: Any) -> None:
    """Check both results, with different gains, for a stand-in that turns."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        attention = module.QKNormAttention(16, True).double()  # four heads of 4
    for seed, norm in enumerate((attention.q_norm, attention.k_norm)):
        norm.weight.data = 1 + draw(4, seed=seed) / 4
    x = draw(2, 5, 16, seed=3)
    with torch.no_grad():
        got = attention.queries_and_keys(x, _Turn())
        if not isinstance(got, tuple) or len(got) != 2:
            raise Mistake("expected two tensors: return q, k")
        for name, part in zip("qk", got, strict=True):
            if not isinstance(part, Tensor) or part.shape != (2, 4, 5, 4):
                shape = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
                raise Mistake(f"{name}: expected (B, H, T, D) = (2, 4, 5, 4), got {shape}")
        name_mistake(torch.stack(got), _mistakes_of_qk(attention, x))
        want = _queries_and_keys(attention, x)
        expect_close(torch.stack(got), want, "split the heads, normalize q and k, then turn both")


def _queries_and_keys(attention: Any, x: Tensor, norms: Any = None, turn: Any = None) -> Tensor:
    """Return q and k with other norms or another turn, (2, B, H, T, D)."""
    norms = norms or (attention.q_norm, attention.k_norm)
    turn = turn or _Turn().turn
    split = (
        (part(x).unflatten(-1, (4, -1)).transpose(1, 2)) for part in (attention.q, attention.k)
    )
    return torch.stack([turn(norm(part)) for norm, part in zip(norms, split, strict=True)])


def _mistakes_of_qk(attention: Any, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return the result of each known mistake."""
    q_norm = attention.q_norm
    k_norm = attention.k_norm
    bare = nn.Identity()

    def over_all_entries() -> Tensor:
        parts = []
        for matrix, norm in ((attention.q, q_norm), (attention.k, k_norm)):
            unit = F.rms_norm(matrix(x), (16,), eps=1e-5)
            split = unit.unflatten(-1, (4, -1)).transpose(1, 2) * norm.weight
            parts.append(_Turn().turn(split))
        return torch.stack(parts)

    def turned_first() -> Tensor:
        turned = _queries_and_keys(attention, x, (bare, bare))
        return torch.stack((q_norm(turned[0]), k_norm(turned[1])))

    return {
        "the positions are missing: position.turn rotates q and k": (
            lambda: _queries_and_keys(attention, x, turn=bare)
        ),
        "normalize first, then turn: the gains would undo the rotation": turned_first,
        "nothing is normalized: q_norm and k_norm come before the turn": (
            lambda: _queries_and_keys(attention, x, (bare, bare))
        ),
        "the keys aren't normalized: k_norm": (
            lambda: _queries_and_keys(attention, x, (q_norm, bare))
        ),
        "the queries aren't normalized: q_norm": (
            lambda: _queries_and_keys(attention, x, (bare, k_norm))
        ),
        "q_norm is for queries and k_norm for keys: each has its own gains": (
            lambda: _queries_and_keys(attention, x, (k_norm, q_norm))
        ),
        "normalized over all d entries: split the heads first, then normalize over D": (
            over_all_entries
        ),
        "q and k are swapped: return q first": (lambda: _queries_and_keys(attention, x).flip(0)),
    }


def interpolated(module: Any) -> None:
    """Check texts that are longer than the training length, shorter, and as long."""
    cases = ((512, 64), (96, 64), (40, 64), (64, 64))
    results = [module.interpolated(*case) for case in cases]
    for message, rule in WRONG_PLACES.items():
        if all(equals(got, rule(*case)) for got, case in zip(results, cases, strict=True)):
            raise Mistake(message)
    for got, (n, trained) in zip(results, cases, strict=True):
        factor = min(1.0, trained / n)
        require_float64(got)
        message = f"{n} tokens, trained on {trained}: places 0, {factor:g}, …"
        expect_close(got, _places(n) * factor, message)


def _places(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64)


WRONG_PLACES: dict[str, Callable[[int, int], Tensor]] = {
    "nothing is interpolated": lambda n, _: _places(n),
    "a text that isn't longer than the training length keeps its places: limit the factor to 1": (
        lambda n, trained: _places(n) * trained / n
    ),
    "the places are stretched, but they must be squeezed: trained_length / length": (
        lambda n, trained: _places(n) * max(1.0, n / trained)
    ),
    "the last place is trained_length − 1: use the factor trained_length / length": (
        lambda n, trained: _places(n) * min(1.0, (trained - 1) / (n - 1))
    ),
    "the places are rounded, so 8 tokens share one place": (
        lambda n, trained: (_places(n) * min(1.0, trained / n)).floor()
    ),
    "late places are cut off, so all late tokens share one place": (
        lambda n, trained: _places(n).clamp(max=trained - 1)
    ),
    "the places start again after the training length, so two tokens share one place": (
        lambda n, trained: _places(n) % trained
    ),
    "the places start at 1, but they must start at 0": (
        lambda n, trained: (_places(n) + 1) * min(1.0, trained / n)
    ),
}


def yarn_frequencies(module: Any) -> None:
    """Check unchanged, mixed and interpolated pairs, at several factors and limits."""
    frequencies = 10_000 ** (-torch.arange(16, dtype=torch.float64) / 16)
    cases = ((2048, 4.0, 1.0, 32.0), (64, 8.0, 1.0, 4.0), (512, 2.0, 2.0, 16.0))
    results = [module.yarn_frequencies(frequencies, *case) for case in cases]
    for message, rule in WRONG_YARN.items():
        if all(
            equals(got, rule(frequencies, *case)) for got, case in zip(results, cases, strict=True)
        ):
            raise Mistake(message)
    for got, (trained, factor, low, high) in zip(results, cases, strict=True):
        weight = _kept(frequencies, trained, low, high)
        want = weight * frequencies + (1 - weight) * frequencies / factor
        expect_close(
            got,
            want,
            f"trained {trained}, factor {factor:g}: weight · ω + (1 − weight) · ω / factor",
        )
    short = module.yarn_frequencies(frequencies, 2048, 4.0)
    expect_close(short, results[0], "low = 1 and high = 32 are the defaults")


def _kept(w: Tensor, trained: float, low: float, high: float) -> Tensor:
    """Return the weight of the unchanged frequency."""
    turns = trained * w / (2 * math.pi)
    return ((turns - low) / (high - low)).clamp(0, 1)


def _mixed(w: Tensor, weight: Tensor, factor: float) -> Tensor:
    return weight * w + (1 - weight) * w / factor


WRONG_YARN: dict[str, Callable[[Tensor, int, float, float, float], Tensor]] = {
    "nothing is changed": lambda w, *_: w,
    "all pairs are interpolated: fast pairs keep their frequency": lambda w, _, s, *__: w / s,
    "the weights are swapped: pairs with many turns keep their frequency": (
        lambda w, n, s, low, high: _mixed(w, 1 - _kept(w, n, low, high), s)
    ),
    "radians aren't turns: divide trained_length · ω by 2π": (
        lambda w, n, s, low, high: _mixed(w, _kept(2 * math.pi * w, n, low, high), s)
    ),
    "the weight isn't limited: clamp it to 0 … 1": lambda w, n, s, low, high: _mixed(
        w, (n * w / (2 * math.pi) - low) / (high - low), s
    ),
    "that is a step at `high`: mix the pairs between low and high": (
        lambda w, n, s, _, high: _mixed(w, (n * w / (2 * math.pi) > high).to(w.dtype), s)
    ),
    "that is a step at `low`: mix the pairs between low and high": (
        lambda w, n, s, low, _: _mixed(w, (n * w / (2 * math.pi) > low).to(w.dtype), s)
    ),
    "those are wavelengths mixed, not frequencies: weight · ω + (1 − weight) · ω / factor": (
        lambda w, n, s, low, high: 1 / _mixed(1 / w, _kept(w, n, low, high), 1 / s)
    ),
}
