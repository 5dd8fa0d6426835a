"""The precision of a run: as requested, or chosen for the hardware."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from common.options import Settings
from labs.kit import Card
from labs.kit.run import devices
from labs.kit.run.console import Output
from labs.kit.run.run import Run

import pytest
import torch
from accelerate.state import AcceleratorState


@pytest.fixture
def cpu_with_bf16(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    return monkeypatch


@pytest.mark.parametrize(("gain", "chosen"), [(0.5, "fp32"), (1.1, "fp32"), (1.9, "bf16")])
def test_a_cpu_with_bf16_trains_in_it_if_that_is_faster(
    cpu_with_bf16: pytest.MonkeyPatch, gain: float, chosen: str
) -> None:
    cpu_with_bf16.setattr(devices, "_gain_of_bf16", lambda *_: gain)
    precision, reason = devices.choose_precision("auto")
    assert precision == chosen
    assert f"{gain if chosen == 'bf16' else 1 / gain:.1f} times as" in reason


def test_the_speed_of_a_cpu_without_bf16_is_not_measured(
    cpu_with_bf16: pytest.MonkeyPatch,
) -> None:
    cpu_with_bf16.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    cpu_with_bf16.setattr(devices, "_gain_of_bf16", lambda *_: pytest.fail("it was measured"))
    assert devices.choose_precision("auto")[0] == "fp32"


@pytest.mark.usefixtures("cpu_with_bf16")
def test_a_requested_precision_is_taken_except_fp16_on_a_cpu() -> None:
    assert devices.choose_precision("bf16") == ("bf16", "as requested")
    with pytest.raises(Card, match="fp16"):
        devices.choose_precision("fp16")


@pytest.mark.parametrize("product", [devices.PRODUCT, (128, 32)])
def test_the_gain_is_measured_on_this_cpu(product: tuple[int, int]) -> None:
    assert 0.01 < devices._gain_of_bf16(*product) < 100


def test_a_lab_of_small_products_is_measured_by_them(cpu_with_bf16: pytest.MonkeyPatch) -> None:
    def gain(rows: int, width: int) -> float:
        return rows / width / 8

    cpu_with_bf16.setattr(devices, "_gain_of_bf16", gain)
    assert devices.choose_precision("auto", (128, 32))[0] == "fp32"
    assert devices.choose_precision("auto", (128, 8))[0] == "bf16"


@pytest.fixture
def bf16_by_auto(cpu_with_bf16: pytest.MonkeyPatch) -> Iterator[Run]:
    """Return a run whose precision is bf16, chosen on a CPU that is slow if products are small."""
    cpu_with_bf16.setattr(devices, "_gain_of_bf16", lambda rows, width: rows * width / 2**16)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Run(Settings(precision="auto"), "bf16", Output(io.StringIO()), Path("nowhere"))
    AcceleratorState._reset_state(reset_partial_state=True)


def test_small_products_are_in_fp32_where_auto_chose_bf16(bf16_by_auto: Run) -> None:
    run = bf16_by_auto
    with run.small_products(416, 64):
        assert run.precision == "fp32"
        small = run.accelerator.prepare(torch.nn.Linear(64, 64))
    assert run.precision == "bf16"
    large = run.accelerator.prepare(torch.nn.Linear(64, 64))
    large.load_state_dict(small.state_dict())
    x = torch.full((1, 64), 1 / 3)
    exact = x @ small.weight.T + small.bias
    torch.testing.assert_close(small(x), exact, rtol=0, atol=1e-6)
    assert (large(x) - exact).abs().max() > 1e-4


def test_a_requested_precision_holds_for_small_products_too(bf16_by_auto: Run) -> None:
    run = bf16_by_auto
    run.settings = replace(run.settings, precision="bf16")
    with run.small_products(416, 64):
        assert run.precision == "bf16"
