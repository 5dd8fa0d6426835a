"""`python -m labs accept`: the measurements of `invoke accept` on the card that is visible here."""

from pathlib import Path

from labs.course.cards import Card
from labs.course.options import Parser, positive

SIZES = ("tiny", "full")
DESCRIPTION = "Measure a card for `invoke accept`, or all-reduce over several."


def main(arguments: list[str]) -> int:
    """Run `python -m labs accept`; return the exit code.

    Raises:
        Card: if this Python has no torch.
    """
    parser = Parser(prog="python -m labs accept", description=DESCRIPTION, allow_abbrev=False)
    parser.help_command = "invoke accept --help"
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="for the record")
    parser.add_argument("--size", choices=SIZES, default="full", help="of the measurements")
    parser.add_argument(
        "--processes", type=positive, default=1, metavar="N", help="measure all-reduce over N"
    )
    parsed = parser.parse_args(arguments)
    out: Path = parsed.out
    size: str = parsed.size
    processes: int = parsed.processes
    try:
        from labs.kit.acceptance import card
        from labs.kit.run.processes import run_ranks
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("labs"):
            raise
        raise Card(
            "The card can't be measured in this Python.",
            f"{error.name} is missing; the labs' packages are in the image or the environment.",
            "invoke accept",
        ) from error
    if processes > 1:
        return run_ranks(processes, card.reduce_over_cards, size, out)
    card.measure_card(size, out)
    return 0
