"""The options that every lab has, and the cards for invalid values."""

from pathlib import Path

from common.cards import Card
from common.options import (
    SHARED,
    Settings,
    common_parser,
    namespace_of,
    settings_from,
)

import pytest


def parse(*words: str) -> Settings:
    parser = common_parser("a lab")
    parser.add_argument("--own", default="x")
    return settings_from(parser.parse_args(words))


def test_every_option_has_a_default() -> None:
    settings = parse()
    assert (settings.size, settings.precision, settings.seed) == (None, "auto", 0)
    assert (settings.online, settings.outputs) == (False, Path("outputs"))
    assert (settings.processes, settings.only, settings.sheet) == (1, None, None)
    assert (settings.resume, settings.tensorboard) == (False, False)
    assert vars(settings.own) == {"own": "x"}


def test_values_from_the_command_line_reach_the_settings() -> None:
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
        "--only",
        "rows_sum_to_one",
        "--own",
        "y",
    ]
    settings = parse(*words)
    assert (settings.size, settings.precision, settings.seed) == ("full", "bf16", 7)
    assert (settings.online, settings.outputs) == (True, Path("/o"))
    assert settings.only == "rows_sum_to_one"
    assert vars(settings.own) == {"own": "y"}


@pytest.mark.parametrize("seed", ["0", "4294967295"])
def test_the_smallest_and_the_largest_seed_of_numpy_are_accepted(seed: str) -> None:
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
        ("--processes", "0"),
        ("--processes", "²"),
        ("--sede", "1"),
        ("--see", "1"),
        ("stray",),
    ],
)
def test_an_invalid_option_is_a_card_of_wrong_usage(words: tuple[str, ...]) -> None:
    with pytest.raises(Card) as caught:
        parse(*words)
    assert caught.value.code == 2
    assert "--help" in caught.value.fix


def test_the_help_shows_every_field_of_the_settings() -> None:
    shown = common_parser("a lab").format_help()
    for option in SHARED:
        assert f"--{option.name}" in shown
        assert option.metadata["help"].split(";")[0] in " ".join(shown.split())


def test_parsed_settings_keep_their_values_in_a_lab_s_own_parser() -> None:
    common = parse("--seed", "7", "--online", "--outputs", "/o")
    parser = common_parser("a lab")
    parser.add_argument("--corpus", default="plays")
    settings = settings_from(parser.parse_args(["--corpus", "poems"], namespace_of(common)))
    assert (settings.seed, settings.online, settings.outputs) == (7, True, Path("/o"))
    assert vars(settings.own) == {"corpus": "poems"}
