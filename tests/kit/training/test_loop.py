"""What a long training needs: threads, batches that can be resumed, a check of its loss."""

import io
from pathlib import Path
from typing import Any

from common.cards import Card
from common.options import Settings
from labs.kit import Run, on_one_thread
from labs.kit.run.console import Output
from labs.kit.training.loop import batches, stop_on_nan

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader


def a_run(folder: Path, **settings: Any) -> Run:
    return Run(Settings(**settings), "fp32", Output(io.StringIO(), silent=True), folder)


@pytest.mark.parametrize(("size", "threads"), [("tiny", 1), ("small", 2)])
def test_a_training_uses_one_thread_only_at_tiny(tmp_path: Path, size: str, threads: int) -> None:
    @on_one_thread
    def train(_run: Run, raises: bool = False) -> int:
        if raises:
            raise ValueError
        return torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run = a_run(tmp_path, size=size)
        assert train(run) == threads
        with pytest.raises(ValueError):
            train(run, raises=True)
        assert torch.get_num_threads() == 2, "as many as before"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("done", range(12))
def test_batches_resume_after_those_that_are_done(tmp_path: Path, done: int) -> None:
    def first(n: int, after: int) -> list[list[int]]:
        run = a_run(tmp_path)
        own = torch.Generator()
        loader = DataLoader(range(23), 4, shuffle=True, drop_last=True, generator=own)  # pyright: ignore
        feed = batches(run, run.accelerator.prepare(loader), after)
        return [next(feed).tolist() for _ in range(n)]

    everything = first(14, 0)
    assert everything[0:5] != everything[5:10], "each epoch has another order"
    torch.manual_seed(done)
    before = torch.get_rng_state()
    assert first(14 - done, done) == everything[done:]
    assert torch.equal(before, torch.get_rng_state()), "torch's generator wasn't used"


def test_another_seed_gives_another_order(tmp_path: Path) -> None:
    def order(seed: int) -> list[int]:
        run = a_run(tmp_path, seed=seed)
        loader = DataLoader(range(23), 4, shuffle=True, generator=torch.Generator())  # pyright: ignore
        return next(batches(run, run.accelerator.prepare(loader))).tolist()

    assert order(0) == order(0) != order(1)


def test_batches_need_a_generator_and_a_batch(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    with pytest.raises(ValueError, match="the loader needs a generator"):
        next(batches(run, run.accelerator.prepare(DataLoader(range(9), 2))))  # pyright: ignore
    few = DataLoader(range(3), 4, drop_last=True, generator=torch.Generator())  # pyright: ignore
    with pytest.raises(ValueError, match="no batch"):
        next(batches(run, run.accelerator.prepare(few)))


def test_a_finite_loss_is_a_number(tmp_path: Path) -> None:
    assert stop_on_nan(a_run(tmp_path), torch.tensor(1.5, requires_grad=True), 3) == 1.5


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("kind", ["tensor", "dict", "pair"])
def test_a_loss_that_is_not_finite_stops_with_step_and_batch(
    tmp_path: Path, value: str, kind: str
) -> None:
    x = torch.arange(6).view(2, 3)
    y = torch.tensor([0.5, float("nan")]).bfloat16()
    batch: Any = {"tensor": x, "dict": {"x": x, "y": y, "n": 2}, "pair": (x, y)}[kind]
    with pytest.raises(Card) as caught:
        stop_on_nan(a_run(tmp_path), torch.tensor(float(value)), 1234, batch)
    assert f"step 1,234 is {value}" in caught.value.what
    assert "(2, 3) from 0 to 5" in caught.value.why
    assert "learning rate" in caught.value.fix
    saved = load_file(tmp_path / "nan-batch.safetensors")
    assert sorted(saved) == {"tensor": ["batch"], "dict": ["x", "y"], "pair": ["0", "1"]}[kind]
    assert all(one.dtype in (torch.int64, torch.bfloat16) for one in saved.values())


def test_without_a_batch_the_card_names_the_step(tmp_path: Path) -> None:
    with pytest.raises(Card, match="step 0 is nan"):
        stop_on_nan(a_run(tmp_path), torch.tensor(float("nan")), 0)
