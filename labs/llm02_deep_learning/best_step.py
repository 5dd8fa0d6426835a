"""The bounds of the best step of a finite difference."""

import math

from labs.kit import Run

from torch import Tensor


def check_best_step(run: Run, name: str, steps: Tensor, errors: Tensor, theory: float) -> float:
    """Check where the error of a difference is smallest, and how it grows; return the best step.

    The worst rounding error of a difference is ε|f|. Let the median be r times that. Two errors,
    each uniform up to half a spacing, make a median of 1 − 1/√2 = 0.29 spacings. From 2ᵉ to 2ᵉ⁺¹ a
    spacing is 1 to 1/2 of ε|f|, for eˣ 0.72 in the mean. So r = 0.29·0.72 = 0.21.

    The best step is then r^(1/3)·h* = 0.6 h*, with an error of r^(2/3)·h*²/2. At 32 h* Taylor's
    term is 1,024·h*²/6, 341·r^(−2/3) = 966 times as much. At h*/32 rounding makes 32·r·h*²/3,
    21·r^(1/3) = 13 times as much. The bounds allow an r from a fifth to five times 0.21, and a
    factor of √2, because the steps are powers of 2. At the best step the two errors may partly
    cancel, which makes both ratios larger.

    Args:
        run: the run.
        name: the dtype's name.
        steps: powers of 2, from 1 down, (n,).
        errors: the error for each step, (n,).
        theory: h*, the best step for the worst rounding.
    """
    best = steps[int(errors.argmin())].item()
    because = "theory: 0.6, the cube root of 0.21; a fifth to five times 0.21, and a factor √2"
    what = f"{name}: best step ÷ h*"
    run.check(what, best / theory, at_least=0.245, at_most=1.44, because=because, decides=True)
    nearest = round(-math.log2(theory))
    larger = (errors[nearest - 5] / errors.min()).item()
    because = "970 at exactly 32 h*; 165 if rounding is five times as large and the step off by √2"
    what = f"{name}: error near 32 h* ÷ smallest error"
    run.check(what, larger, at_least=150, because=because, decides=True)
    smaller = (errors[nearest + 5] / errors.min()).item()
    because = "theory: about 13; 5.2 if rounding is a fifth as large and the step off by √2"
    what = f"{name}: error near h*/32 ÷ smallest error"
    run.check(what, smaller, at_least=5, because=because, decides=True)
    return best
