"""The options that every lab has, and the cards for values that they can't have."""

from pathlib import Path

from labs.course.cards import Card
from labs.course.options import common_parser, settings_from

import pytest


def parse(*words: str):
    parser = common_parser("a lab")
    parser.add_argument("--own", default="x")
    return settings_from(parser.parse_args(words))


def test_every_option_has_a_default() -> None:
    settings = parse()
    assert (settings.size, settings.precision, settings.seed) == (None, "auto", 0)
    assert (settings.online, settings.outputs) == (False, Path("outputs"))
    assert vars(settings.own) == {"own": "x"}


def test_what_is_given_arrives() -> None:
    words = [
        "--size",
        "full",
        "--precision",
        "bf16",
        "--seed",
        "7",
        "--online",
        "--outputs",
        "/o",
        "--own",
        "y",
    ]
    settings = parse(*words)
    assert (settings.size, settings.precision, settings.seed) == ("full", "bf16", 7)
    assert (settings.online, settings.outputs) == (True, Path("/o"))
    assert vars(settings.own) == {"own": "y"}


@pytest.mark.parametrize("seed", ["0", "4294967295"])
def test_a_seed_is_what_numpy_takes(seed: str) -> None:
    assert parse("--seed", seed).seed == int(seed)


@pytest.mark.parametrize(
    "words",
    [
        ("--size", "huge"),
        ("--size", ""),
        ("--precision", "fp8"),
        ("--seed", "1.5"),
        ("--seed=-1",),
        ("--seed", "4294967296"),
        ("--seed", "²"),
        ("--seed",),
        ("--sede", "1"),
        ("--see", "1"),
        ("stray",),
    ],
)
def test_what_can_not_be_understood_is_a_card_of_wrong_usage(words: tuple[str, ...]) -> None:
    with pytest.raises(Card) as caught:
        parse(*words)
    assert caught.value.code == 2
    assert "--help" in caught.value.mend
