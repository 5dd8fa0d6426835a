"""The arms of LLM07+: what is trained, and at which rate."""

from dataclasses import dataclass

from labs.llm07_lora.models import ALL, ATTENTION, MLP, QV


@dataclass(frozen=True)
class Arm:
    """A way to train glass; rank 0 trains the linear layers themselves."""

    rate: float
    targets: tuple[str, ...] = ALL
    rank: int = 0


# The best rates in steps of a factor of two, the lower of near ties: 40 steps of 4 rows.
ARMS = {
    "r = 1": Arm(2e-2, ALL, 1),
    "r = 4": Arm(1e-2, ALL, 4),
    "r = 16": Arm(5e-3, ALL, 16),
    "r = 8, q and v": Arm(1e-2, QV, 8),
    "r = 2, attention": Arm(2e-2, ATTENTION, 2),
    "r = 1, MLP": Arm(2e-2, MLP, 1),
    "full": Arm(2e-3),
}
LADDER = ("r = 1", "r = 4", "r = 16")  # adapters in all linear layers
DORA_RATE = 1e-2  # of rank 4
MAGNITUDES_RATE = 4e-2  # of DoRA's magnitudes alone


def adapter_ranks() -> dict[str, int]:
    """Return the rank of each arm that trains an adapter."""
    return {name: arm.rank for name, arm in ARMS.items() if arm.rank}
