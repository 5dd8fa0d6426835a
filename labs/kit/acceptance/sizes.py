"""How much `invoke accept` measures: for tests, and for a result that counts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The sizes of all measurements. Records of different sizes can't be compared.

    Attributes:
        width: of the square matrices.
        core_width: of the square matrices that one core multiplies.
        buffer: the bytes of each array that is copied; larger than a cache.
        reduced: the bytes of the tensor that all-reduce sums.
        rounds: how often each measurement is repeated.
        seconds: the least time of a measurement in a round.
    """

    width: int
    core_width: int
    buffer: int
    reduced: int
    rounds: int
    seconds: float


TINY = Sizes(128, 64, 2**20, 2**16, 3, 0)
CPU = Sizes(1024, 512, 2**28, 2**24, 7, 0.2)
GPU = Sizes(8192, 0, 2**30, 2**28, 7, 0.2)


def choose(size: str, gpu: bool) -> Sizes:
    """Return the sizes of tiny or full, for a GPU or a CPU."""
    if size == "tiny":
        return TINY
    return GPU if gpu else CPU
