"""Check clipping, AdamW and the schedule of LLM08 against PyTorch's AdamW and formulas."""

import math
from typing import Any

from labs.kit import Mistake, draw, expect_close, name_mistake
from labs.llm08_training.batch_checks import Function, type_of

import torch
from torch import Tensor

# clip_gradients


def clip_gradients(module: Any) -> None:
    """Compare with gradients of a known norm."""
    implementation = module.clip_gradients
    shapes = [(3, 2), (4,)]
    weights = [torch.nn.Parameter(draw(*shape, seed=i)) for i, shape in enumerate(shapes)]
    gradients = [10 * draw(*shape, seed=5 + i) for i, shape in enumerate(shapes)]
    without = torch.nn.Parameter(torch.zeros(2))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    got, returned = _clipped(implementation, [*weights, without], gradients, 1.0)
    each = [gradient / gradient.norm() for gradient in gradients]
    name_mistake(
        got,
        {
            "each parameter's gradient is clipped by itself: there is one norm, over all": (
                lambda: _flat(each)
            ),
            "nothing was clipped: change the gradients in place": lambda: _flat(gradients),
            "entries are cut off at c: scale all of them by the same factor": (
                lambda: _flat([gradient.clamp(-1, 1) for gradient in gradients])
            ),
            "the gradient is divided by the norm squared": (
                lambda: _flat([gradient / norm**2 for gradient in gradients])
            ),
            "the sum of the norms is no norm: add the squares, then take the root": (
                lambda: _flat([g / sum(g.norm() for g in gradients) for g in gradients])
            ),
        },
    )
    expect_close(got, _flat([gradient / norm for gradient in gradients]), "clipped to norm 1", 1e-5)
    if not isinstance(returned, Tensor | float):
        raise Mistake(f"expected the norm before clipping, got {type_of(returned)}")
    if abs(float(returned) - 1) < 1e-3:
        raise Mistake("the norm after clipping was returned: return the one before")
    expect_close(torch.as_tensor(returned).double(), norm, "the returned norm", 1e-5)
    got, _ = _clipped(implementation, weights, gradients, 1.0)
    half, _ = _clipped(implementation, weights, gradients, float(norm) / 2)
    expect_close(half, _flat(gradients) / 2, "clipped to half of its norm", 1e-5)
    small, _ = _clipped(implementation, weights, gradients, 2 * float(norm))
    if (small.norm() / norm - 2).abs() < 1e-3:
        raise Mistake("a short gradient was made longer: leave it if its norm is below c")
    expect_close(small, _flat(gradients), "a gradient below c stays", 1e-12)


def _clipped(
    implementation: Function, weights: list[Any], gradients: list[Tensor], c: float
) -> tuple[Tensor, Any]:
    """Return all gradients after clipping, in one vector, and what was returned."""
    for weight, gradient in zip(weights, gradients, strict=False):
        weight.grad = gradient.clone()
    returned = implementation(iter(weights), c)
    return _flat([weight.grad for weight in weights if weight.grad is not None]), returned


def _flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


# adamw_step

LR = 1e-2
BETAS = (0.9, 0.98)
EPS = 1e-8
DECAY = 0.1


def adamw_step(module: Any) -> None:
    """Compare with PyTorch's AdamW."""
    implementation = module.adamw_step
    first = _own_weight(implementation, 1)
    mistakes = {
        "the weight hasn't moved: change it in place (mul_, sub_, addcdiv_)": _start(),
        "does it go up the gradient? Subtract the step": _wrong_step(sign=-1),
        "m and v begin at 0: divide each by 1 − βᵗ": _wrong_step(corrected=False),
        "ε is inside the root: add it to √v̂": _wrong_step(inside=True),
        "is the decay added to the gradient? That is L2; AdamW shrinks the weight itself": (
            _wrong_step(l2=True)
        ),
        "the decay is missing: the weight shrinks by the factor 1 − lr · decay": (
            _wrong_step(decay=0.0)
        ),
        "the decay isn't multiplied by the rate: lr · decay": _wrong_step(bare_decay=True),
        "√v̂ is missing, or v̂ without its root: Adam divides by the root": _wrong_step(root=False),
        "the weight has grown: decay pulls it towards 0, so subtract": _wrong_step(decay=-DECAY),
        "the betas are swapped: the first is m's, the second v's": _wrong_step(swapped=True),
    }
    name_mistake(first, {message: lambda wrong=wrong: wrong for message, wrong in mistakes.items()})
    # a large ε shows where it is added
    name_mistake(
        _own_weight(implementation, 1, eps=0.5),
        {
            "ε is inside the root: add it to √v̂": lambda: _wrong_step(inside=True, eps=0.5),
            "ε is added to √v before its correction: first √v̂, then ε": lambda: _wrong_step(
                early=True, eps=0.5
            ),
        },
    )
    expect_close(first, _torch_weight(1), "the first step")
    expect_close(
        _own_weight(implementation, 5),
        _torch_weight(5),
        "after five steps; are m, v and t used in each?",
    )
    expect_close(
        _own_weight(implementation, 5, eps=0.5), _torch_weight(5, eps=0.5), "five steps, ε = 0.5"
    )


def _start() -> Tensor:
    return draw(7, seed=3)


def _gradient(step: int) -> Tensor:
    return draw(7, seed=10 + step) * 10 ** torch.linspace(-3, 3, 7).double()


def _own_weight(implementation: Function, steps: int, eps: float = EPS) -> Tensor:
    weight = _start()
    m, v = torch.zeros(2, 7).double()
    for t in range(1, steps + 1):
        given = _gradient(t)
        result = implementation(weight, given, m, v, t, lr=LR, betas=BETAS, eps=eps, decay=DECAY)
        if result is not None:
            raise Mistake("it must return nothing: it changes weight, m and v in place")
        if not torch.equal(given, _gradient(t)):
            raise Mistake("the gradient has changed: decay or scale a new tensor")
        if not weight.isfinite().all():
            raise Mistake("the weight is NaN or infinite: is ε added, and is v̂ never negative?")
    if not m.any() or not v.any():
        raise Mistake("m or v is still 0: change them in place, the next step needs them")
    return weight


def _torch_weight(steps: int, eps: float = EPS) -> Tensor:
    weight = torch.nn.Parameter(_start())
    optimizer = torch.optim.AdamW([weight], LR, BETAS, eps, DECAY)
    for t in range(1, steps + 1):
        weight.grad = _gradient(t)
        optimizer.step()
    return weight.detach()


def _wrong_step(
    sign: int = 1,
    corrected: bool = True,
    inside: bool = False,
    early: bool = False,
    l2: bool = False,
    bare_decay: bool = False,
    root: bool = True,
    swapped: bool = False,
    decay: float = DECAY,
    eps: float = EPS,
) -> Tensor:
    """Return the weight after a first step with a mistake."""
    first, second = BETAS
    weight = _start()
    g = _gradient(1)
    if swapped:  # each mean is corrected by the other's beta
        m = (1 - second) * g / (1 - first)
        v = (1 - first) * g * g / (1 - second)
        return weight * (1 - LR * decay) - LR * m / (v.sqrt() + eps)
    if l2:
        g = g + decay * weight
    m = (1 - first) * g
    v = (1 - second) * g * g
    if corrected:
        m = m / (1 - first)
        v = v / (1 - second)
    below = (v + eps).sqrt() if inside else (v.sqrt() if root else v) + eps
    if early:  # √v + ε, then divided by the root of the correction
        below = ((v * (1 - second)).sqrt() + eps) / math.sqrt(1 - second)
    shrunk = weight if l2 else weight * (1 - (1 if bare_decay else LR) * decay)
    return shrunk - sign * LR * m / below


# lr_at


def lr_at(module: Any) -> None:
    """Compare with the formula at every step."""
    implementation = module.lr_at
    steps = 20
    warmup = 5
    floor = 0.1
    got = [_own_share(implementation, t, steps, warmup, floor) for t in range(steps)]
    if abs(got[0]) < 1e-12:
        raise Mistake("the first step has a rate of 0 and is wasted: use (step + 1) / warmup")
    _name_curve(got, _wrong_curves(got, steps, warmup, floor))
    if got[warmup - 1] < got[-1] or got[0] > got[warmup - 1]:
        raise Mistake("it must rise to 1 in the warm-up, and fall after it")
    for t in range(steps):
        _expect_share(implementation, t, steps, warmup, floor)
    for t, of, warm, low in ((0, 10, 0, 0.1), (9, 10, 0, 0.0), (3, 4, 4, 0.5), (0, 1, 1, 0.1)):
        _expect_share(implementation, t, of, warm, low)
    for t in (steps, 10 * steps):
        share = _own_share(implementation, t, steps, warmup, floor)
        what = "after the last step it stays at the floor (p is at most 1)"
        _expect_number(share, floor, what)


def _wrong_curves(
    got: list[float], steps: int, warmup: int, floor: float
) -> dict[str, list[float]]:
    rising = [(t + 1) / warmup for t in range(warmup)]
    falling = range(warmup, steps)
    without_floor = [_share(t, steps, warmup, 0.0) for t in falling]
    return {
        "there is no warm-up: (step + 1) / warmup, while step < warmup": [
            _share(t, steps, 0, floor) if t < warmup else got[t] for t in range(steps)
        ],
        "the cosine begins at step 0, during the warm-up: p counts from the warm-up's end": [
            *rising,
            *(floor + (1 - floor) * _cosine((t + 1) / (steps + 1)) for t in falling),
        ],
        "the floor is missing: the cosine ends at it, not at 0": [*rising, *without_floor],
        "the floor is added on top: the peak is 1, so scale the cosine by 1 − floor": [
            *rising,
            *(floor + share for share in without_floor),
        ],
        "that is a straight line down: expected a half cosine": [
            *rising,
            *(1 - (1 - floor) * (t + 1 - warmup) / (steps + 1 - warmup) for t in falling),
        ],
        "the rate is cut off at the floor: the cosine should end there": [
            *rising,
            *(max(floor, share) for share in without_floor),
        ],
        "it is one step late: p = (step + 1 − warmup) / (steps + 1 − warmup)": [
            *rising,
            *(floor + (1 - floor) * _cosine((t - warmup) / (steps - warmup)) for t in falling),
        ],
    }


def _cosine(p: float) -> float:
    return (1 + math.cos(math.pi * p)) / 2


def _share(step: int, steps: int, warmup: int, floor: float) -> float:
    if step < warmup:
        return (step + 1) / warmup
    p = min(1.0, (step + 1 - warmup) / (steps + 1 - warmup))
    return floor + (1 - floor) * _cosine(p)


def _own_share(implementation: Function, *arguments: float) -> float:
    got = implementation(*arguments)
    if isinstance(got, bool) or not isinstance(got, int | float):
        raise Mistake(f"expected a number, got {type_of(got)}")
    if math.isnan(got):
        raise Mistake("expected a number, got NaN")
    return float(got)


def _name_curve(got: list[float], mistakes: dict[str, list[float]]) -> None:
    for message, wrong in mistakes.items():
        if all(abs(a - b) < 1e-9 for a, b in zip(got, wrong, strict=True)):
            raise Mistake(message)


def _expect_share(
    implementation: Function, step: int, steps: int, warmup: int, floor: float
) -> None:
    got = _own_share(implementation, step, steps, warmup, floor)
    want = _share(step, steps, warmup, floor)
    _expect_number(got, want, f"step {step} of {steps}, warm-up {warmup}, floor {floor}")


def _expect_number(got: float, want: float, what: str) -> None:
    if abs(got - want) > 1e-9:
        raise Mistake(f"{what}: expected {want:.4f}, got {got:.4f}")
