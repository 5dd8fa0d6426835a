"""The options that every lab has, and the cards for invalid values."""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

from common.cards import Card
from common.options import (
    SHARED,
    Settings,
    add_options,
    common_parser,
    integer,
    namespace_of,
    option,
    settings_from,
)

import pytest


@dataclass(frozen=True)
class Own:
    """The options of one lab."""

    own: str = option("a word", "x")
    bad_rows: bool = option("a flag", False)


def parse(*words: str) -> Settings:
    parser = common_parser("a lab")
    add_options(parser, fields(Own))
    return settings_from(parser.parse_args(words), Own)


def test_every_option_has_a_default() -> None:
    settings = parse()
    assert (settings.size, settings.precision, settings.seed) == (None, "auto", 0)
    assert (settings.online, settings.outputs) == (False, Path("outputs"))
    assert (settings.processes, settings.only, settings.sheet) == (1, None, None)
    assert (settings.resume, settings.tensorboard) == (False, False)
    assert settings.own == Own("x", False)


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
        "--bad-rows",
    ]
    settings = parse(*words)
    assert (settings.size, settings.precision, settings.seed) == ("full", "bf16", 7)
    assert (settings.online, settings.outputs) == (True, Path("/o"))
    assert settings.only == "rows_sum_to_one"
    assert settings.own == Own("y", True)


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
    for one in SHARED:
        assert f"--{one.name}" in shown
        assert one.metadata["help"].split(";")[0] in " ".join(shown.split())


def test_parsed_settings_keep_their_values_in_a_lab_s_own_parser() -> None:
    common = parse("--seed", "7", "--online", "--outputs", "/o")
    parser = common_parser("a lab")
    add_options(parser, fields(Own))
    settings = settings_from(parser.parse_args(["--own", "poems"], namespace_of(common)), Own)
    assert (settings.seed, settings.online, settings.outputs) == (7, True, Path("/o"))
    assert settings.own == Own("poems", False)


def test_a_wrong_size_is_a_card_with_the_sizes() -> None:
    with pytest.raises(Card) as caught:
        parse("--size", "huge")
    assert caught.value.what == "--size can't be 'huge'."
    assert caught.value.why == "--size is tiny, small or full."


@pytest.mark.parametrize("text", ["-1", "8", "1.5", "ten"])
def test_an_integer_has_limits(text: str) -> None:
    assert [integer(0, 7)(inside) for inside in ("0", "7")] == [0, 7]
    with pytest.raises(argparse.ArgumentTypeError, match="an integer from 0 to 7"):
        integer(0, 7)(text)
