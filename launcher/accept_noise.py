"""Whether two measurements differ by more than their noise.

A rate counts as changed if the medians differ by more than 5 %, and by more than three times the
spread of both. The spread is the median absolute deviation of a measurement's rounds, as a ratio
and scaled to a standard deviation. The rounds of all measurements rotate, so a measurement's spread
contains what changed on the machine during the entire run. Clocks and other programs change further
between two runs; this is why the spread of single rounds counts, and not the smaller error of their
median, and why differences below 5 % never count. If the noise hides even half or twice the rate,
there is no verdict: something else used the machine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, median_high

LEAST = math.log(1.05)
MOST_NOISE = 1.0  # ratios from 0.5 to 2
SPREADS = 3
TO_DEVIATION = 1.4826  # of a normal distribution: standard deviation ÷ median absolute deviation
SAME = "same"
SLOWER = "slower"
FASTER = "faster"
UNCLEAR = "too noisy to tell"


def spread(values: Sequence[float]) -> float:
    """Return the spread of rates as a ratio: 0.02 is 2 %."""
    logs = [math.log(value) for value in values]
    middle = median(logs)
    return TO_DEVIATION * median(abs(one - middle) for one in logs)


@dataclass(frozen=True)
class Change:
    """A rate relative to another one.

    Attributes:
        ratio: this rate ÷ the other one.
        noise: the factor beyond which a ratio counts, minus 1.
    """

    ratio: float
    noise: float

    @property
    def band(self) -> str:
        """Return the ratios that don't count, as text: 0.95 to 1.05."""
        return f"{1 / (1 + self.noise):.2f} to {1 + self.noise:.2f}"

    @property
    def verdict(self) -> str:
        """Return one of SAME, SLOWER, FASTER and UNCLEAR."""
        if self.noise > MOST_NOISE:
            return UNCLEAR
        if abs(math.log(self.ratio)) <= math.log1p(self.noise):
            return SAME
        return SLOWER if self.ratio < 1 else FASTER


def compare(before: Sequence[float], after: Sequence[float]) -> Change:
    """Compare the rates of two measurements."""
    return _change(median(before), spread(before), median(after), spread(after))


def compare_with_all(own: Sequence[float], cards: Sequence[Sequence[float]]) -> Change:
    """Compare a card's rates with the median card, of two with the faster one.

    Args:
        own: The card's rates.
        cards: The rates of all cards, with this one.
    """
    usual = median_high(map(median, cards))
    return _change(usual, median(map(spread, cards)), median(own), spread(own))


def _change(before: float, before_spread: float, after: float, after_spread: float) -> Change:
    noise = max(LEAST, SPREADS * math.hypot(before_spread, after_spread))
    return Change(after / before, math.expm1(noise))
