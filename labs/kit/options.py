"""The options that every lab has. Standard library only: the launcher's host has no torch."""

import argparse
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NoReturn

from labs.kit.cards import WRONG_USAGE, Card

SIZES = ("tiny", "small", "full")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
OUTPUTS = Path("outputs")
LARGEST_SEED = 2**32 - 1  # what numpy takes


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are cards that say where the help is."""

    help_is_at = ""

    def error(self, message: str) -> NoReturn:
        raise Card("The options can't be understood.", message, self.help_is_at, WRONG_USAGE)


@dataclass(frozen=True)
class Settings:
    """How a lab is run. `size` None means: tiny on a CPU, small on a GPU."""

    size: str | None = None
    precision: str = "auto"
    seed: int = 0
    online: bool = False
    processes: int = 1
    resume: bool = False
    tensorboard: bool = False
    outputs: Path = OUTPUTS
    sheet: Path | None = None
    own: argparse.Namespace = field(default_factory=argparse.Namespace)


def seed(text: str) -> int:
    """A seed that torch, numpy and Python all take."""
    if not text.isdecimal() or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to {LARGEST_SEED}")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def common_parser(
    prog: str, description: str = "", help_is_at: str = "invoke lab --help"
) -> Parser:
    """A parser that knows the options which every lab has."""
    parser = Parser(prog=prog, description=description, allow_abbrev=False)
    parser.help_is_at = help_is_at
    parser.add_argument("--size", choices=SIZES, help="default: tiny on a CPU, small on a GPU")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="for training; default: auto"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--processes",
        type=positive,
        default=1,
        metavar="N",
        help="train as N processes; default: 1",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from a broken-off run's checkpoints, or not at all; without it: where they fit",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="log training for TensorBoard, into outputs/"
    )
    parser.add_argument("--online", action="store_true", help="allow the Hugging Face hub")
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE", help="with the parts that are written in this sheet"
    )
    parser.add_argument(
        "--outputs", type=Path, default=OUTPUTS, metavar="DIR", help="where runs go: outputs/"
    )
    return parser


def settings_from(parsed: argparse.Namespace) -> Settings:
    """Split a parsed command line into what every lab has and what is this lab's own."""
    values = vars(parsed)
    names = [one.name for one in fields(Settings) if one.name != "own"]
    common = {name: values.pop(name) for name in names}
    return Settings(**common, own=argparse.Namespace(**values))
