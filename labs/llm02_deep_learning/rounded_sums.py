"""Long sums of small numbers with plain rounding, and the bounds of better ones."""

import math
from itertools import accumulate

from labs.kit import Run

import torch
from torch import Tensor


def plain_sums(dtype: torch.dtype, step: float = 0.001) -> list[float]:
    """Return 1.0 and the sums after each of 1,000 additions of a step, in a dtype."""
    steps = torch.full((1000,), step, dtype=dtype)
    return [x.item() for x in accumulate(steps, initial=torch.ones((), dtype=dtype))]


def check_remedies(run: Run, kahan: float, stochastic: Tensor) -> None:
    """Check the last sum by Kahan, and those by stochastic rounding, (copies,)."""
    because = (
        "Kahan's error is at most about 2u + n·u² times the sum of all |terms|, 2 (Higham 2002, "
        "§ 4.3); u = 2⁻⁸ is half a spacing above 1, and n = 1,000"
    )
    bound = (2 * 2**-8 + 1000 * 2**-16) * 2
    what = "|bfloat16 with Kahan − 2|"
    run.check(what, abs(kahan - 2), at_most=bound, because=because, decides=True)
    off = abs(stochastic.mean().item() - 2)
    share = 0.001 * 2**6  # of the spacing above 2, the largest here
    deviation = math.sqrt(1000 * share * (1 - share)) * 2**-6  # of one sum
    bound = 5 * deviation / math.sqrt(len(stochastic))
    because = "five standard errors, from theory with the spacing above 2: 0.12/√1000 each"
    what = "|mean with stochastic rounding − 2|"
    run.check(what, off, at_most=bound, because=because, decides=True)
    run.measure("standard deviation of one stochastic sum", stochastic.std())
