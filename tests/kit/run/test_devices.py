"""The precision of a run: as requested, or what the hardware is fast in."""

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

CPU = "processor\t: 0\nvendor_id\t: {}\nmodel name\t: A CPU\nflags\t\t: fpu {}\n\nprocessor\t: 1\n"


def processor(monkeypatch: pytest.MonkeyPatch, folder: Path, vendor: str, flags: str) -> None:
    """Let the machine have this processor and no GPU."""
    (folder / "cpuinfo").write_text(CPU.format(vendor, flags))
    monkeypatch.setattr(devices, "CPUINFO", folder / "cpuinfo")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    devices._fast_bf16_of_cpu.cache_clear()


@pytest.fixture(autouse=True)
def _forget_the_processor() -> Iterator[None]:
    yield
    devices._fast_bf16_of_cpu.cache_clear()


@pytest.mark.parametrize(
    ("vendor", "flags", "chosen", "why"),
    [
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16", "bf16", "this CPU has AMX-BF16"),
        ("AuthenticAMD", "avx512f avx512_bf16", "bf16", "this CPU has AVX512-BF16"),
        ("GenuineIntel", "avx512f avx512_bf16", "fp32", "this CPU has no fast bf16"),
        ("AuthenticAMD", "avx2", "fp32", "this CPU has no fast bf16"),
    ],
)
def test_the_precision_follows_from_what_the_processor_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vendor: str, flags: str, chosen: str, why: str
) -> None:
    processor(monkeypatch, tmp_path, vendor, flags)
    assert devices.choose_precision("auto") == (chosen, why)


def test_small_matrices_are_in_fp32(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    processor(monkeypatch, tmp_path, "GenuineIntel", "amx_bf16")
    assert devices.choose_precision("auto", 64)[0] == "fp32"
    assert devices.choose_precision("auto", 128)[0] == "bf16"


def test_a_requested_precision_is_taken_except_fp16_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    processor(monkeypatch, tmp_path, "GenuineIntel", "")
    assert devices.choose_precision("bf16") == ("bf16", "as requested")
    with pytest.raises(Card, match="fp16"):
        devices.choose_precision("fp16")


@pytest.fixture
def bf16_by_auto(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Return a run whose precision is bf16, chosen by auto on a CPU."""
    processor(monkeypatch, tmp_path, "GenuineIntel", "amx_bf16")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Run(Settings(precision="auto"), "bf16", Output(io.StringIO()), Path("nowhere"))
    AcceleratorState._reset_state(reset_partial_state=True)


def test_small_products_are_in_fp32_where_auto_chose_bf16(bf16_by_auto: Run) -> None:
    run = bf16_by_auto
    with run.small_products(64):
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
    with run.small_products(64):
        assert run.precision == "bf16"
