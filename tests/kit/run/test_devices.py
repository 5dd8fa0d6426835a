"""The precision of a run: asked for, or found out from the hardware."""

from labs.kit import Card
from labs.kit.run import devices

import pytest
import torch


@pytest.fixture
def cpu_with_bf16(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    return monkeypatch


@pytest.mark.parametrize(("gain", "chosen"), [(0.5, "fp32"), (1.1, "fp32"), (1.9, "bf16")])
def test_a_cpu_that_has_bf16_trains_in_it_where_that_is_faster(cpu_with_bf16, gain, chosen):
    cpu_with_bf16.setattr(devices, "_gain_of_bf16", lambda: gain)
    precision, reason = devices.choose_precision("auto")
    assert precision == chosen
    assert f"{gain if chosen == 'bf16' else 1 / gain:.1f} times as" in reason


def test_a_cpu_without_bf16_isnt_tried(cpu_with_bf16):
    cpu_with_bf16.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    cpu_with_bf16.setattr(devices, "_gain_of_bf16", lambda: pytest.fail("it was"))
    assert devices.choose_precision("auto")[0] == "fp32"


@pytest.mark.usefixtures("cpu_with_bf16")
def test_what_is_asked_for_is_taken_but_for_fp16_on_a_cpu():
    assert devices.choose_precision("bf16") == ("bf16", "asked for")
    with pytest.raises(Card, match="fp16"):
        devices.choose_precision("fp16")


def test_the_gain_is_measured_on_this_cpu():
    assert 0.01 < devices._gain_of_bf16() < 100
