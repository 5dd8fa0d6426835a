"""The measurements of `invoke accept`: right results pass, wrong ones are found, rounds rotate."""

import json
import os
import socket
from pathlib import Path

from labs.cli import accept
from labs.cli.main import main
from labs.kit.acceptance import card, products, rounds
from labs.kit.acceptance.memory import memory_tasks
from labs.kit.acceptance.products import BF16, FP16, FP32, TF32, Format
from labs.kit.acceptance.rounds import Task

import pytest
import torch

CPU = torch.device("cpu")
WIDTH = 96


def product_of(form: Format) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    a = products._random(WIDTH, form, CPU, seed=1)
    b = products._random(WIDTH, form, CPU, seed=2)
    return a, b, a @ b


@pytest.mark.parametrize("form", [FP32, BF16, FP16], ids=lambda form: form.name)
def test_a_right_product_passes_in_each_format(form: Format) -> None:
    a, b, result = product_of(form)
    assert all(products.wrong_sums(a, b, result, form, number) == "" for number in range(7))


def test_factors_rounded_to_ten_bits_pass_as_tf32_and_not_as_fp32() -> None:
    a, b, _ = product_of(FP32)
    rounded = [one.half().float() for one in (a, b)]
    result = rounded[0] @ rounded[1]
    assert products.wrong_sums(a, b, result, TF32, 0) == ""
    assert "sums are wrong" in products.wrong_sums(a, b, result, FP32, 0)


@pytest.mark.parametrize("form", [FP32, BF16], ids=lambda form: form.name)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_single_wrong_sum_is_found(form: Format, value: float) -> None:
    a, b, result = product_of(form)
    result[0, 5] = value if result[0, 5] != value else 1.0
    assert products.wrong_sums(a, b, result, form, 0).startswith("1 of 768 sums are wrong")


def test_the_rounds_together_look_at_different_rows() -> None:
    a, b, result = product_of(FP32)
    result[8, 0] += 1  # 997 modulo 96 is 37: row 8 is the 8th row of 37·8 modulo 96, in round 1
    found = [bool(products.wrong_sums(a, b, result, FP32, number)) for number in range(12)]
    assert any(found) and not all(found)


@pytest.mark.parametrize("form", [FP32, BF16], ids=lambda form: form.name)
def test_products_of_integers_are_exact_and_a_flipped_bit_is_found(form: Format) -> None:
    both, exact = products._small_integers(WIDTH, form, CPU)
    found = both[0] @ both[1]
    assert products.wrong_integers(found, exact) == ""
    found[95, 95] += 1
    assert products.wrong_integers(found, exact) == "1 of 9216 integers are wrong"


def test_memory_is_checked_number_by_number() -> None:
    copy, triad = memory_tasks(CPU, 4096)
    for task in (copy, triad):
        assert task.check(0), "nothing was copied or added yet"
        task.call()
        assert task.check(0) == ""
    assert triad.amount == 1.5 * copy.amount


def test_rounds_rotate_and_the_first_problem_stays() -> None:
    calls: list[str] = []
    problems = iter(["", "bad", "worse"])
    first = Task("first", "GB/s", 1e9, lambda: calls.append("a"), lambda _: next(problems))
    second = Task("second", "GB/s", 1e9, lambda: calls.append("b"))
    rounds.measure([first, second], 3, seconds=0)
    assert "".join(calls) == "aabb" + 3 * "ab", "warmed up and calibrated, then in turn"
    assert len(first.rates) == len(second.rates) == 3 and min(first.rates) > 0
    assert (first.problem, second.problem) == ("bad", "")


def test_a_core_is_pinned_only_while_it_is_measured() -> None:
    before = os.sched_getaffinity(0)
    core = max(before)
    seen: list[set[int]] = []
    products._pinned(core, lambda: seen.append(os.sched_getaffinity(0)))()
    assert seen == [{core}] and os.sched_getaffinity(0) == before
    with pytest.raises(ZeroDivisionError):
        products._pinned(core, lambda: 1 // 0)()
    assert os.sched_getaffinity(0) == before


def test_each_core_of_the_cpu_gets_a_measurement() -> None:
    tasks = products.core_tasks([0, 3], 32)
    assert [task.core for task in tasks] == ["core 0", "core 3"]
    assert len({task.name for task in tasks}) == 1, "the same name, so that cores are compared"


def test_all_reduce_is_measured_in_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of this process alone; the launcher's tests run one of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    for name, value in {**group, "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "all.json"
    assert card.reduce_over_cards("tiny", out) == 0
    record = json.loads(out.read_text())
    (measured,) = record["measurements"]
    assert record["processes"] == 1 and measured["problem"] == ""
    assert measured["amount"] == 2**16 and len(measured["values"]) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["all.json"]


@pytest.mark.parametrize(
    "words", [[], ["--out", "x", "--size", "huge"], ["--out", "x", "--processes", "0"]]
)
def test_a_wrong_command_line_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["accept", *words]) == 2
    assert "fix: invoke accept --help" in capsys.readouterr().err
    assert accept.SIZES == ("tiny", "full")
