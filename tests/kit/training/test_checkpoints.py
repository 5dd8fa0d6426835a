"""Checkpoints in one process: everything is restored, bit for bit; errors are found early."""

import io
import json
import os
from pathlib import Path
from typing import Any

from common.cards import Card
from common.options import Settings
from labs.kit import atomic_folder
from labs.kit.run.console import Output
from labs.kit.run.run import Run
from labs.kit.training.checkpoints import Checkpoints
from tests.kit.training.trained import STEPS, Trained, all_in, steps

import pytest
import torch
from safetensors.torch import load_file
from torch import nn


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.parametrize("until", range(STEPS + 1))
def test_a_resumed_training_ends_with_the_same_bits(
    tmp_path: Path, uninterrupted: Trained, until: int
) -> None:
    assert Trained(tmp_path, until).done == 0
    resumed = Trained(tmp_path)
    assert resumed.done == until // 2 * 2
    assert (resumed.weights, resumed.curve) == (uninterrupted.weights, uninterrupted.curve)


def test_a_finished_training_is_not_trained_again(tmp_path: Path, uninterrupted: Trained) -> None:
    Trained(tmp_path).checkpoints.save(STEPS)
    again = Trained(tmp_path)
    assert again.done == STEPS
    assert (again.weights, again.curve) == (uninterrupted.weights, uninterrupted.curve)


def test_a_checkpoint_has_no_state_of_an_earlier_training(
    tmp_path: Path, uninterrupted: Trained
) -> None:
    Trained(tmp_path, name="first").checkpoints.save(STEPS)
    second = Trained(tmp_path, name="second")
    assert second.weights == uninterrupted.weights
    (model,) = all_in(tmp_path)[-1].glob("model*")
    assert len(load_file(model)) == 4


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_checkpoints_are_retained(tmp_path: Path, keep: int) -> None:
    Trained(tmp_path, keep=keep)
    assert steps(tmp_path) == [4, 6, 8][-keep:]


def test_checkpoints_are_also_written_by_the_clock(tmp_path: Path) -> None:
    Trained(tmp_path, every_steps=None, every_minutes=0)
    assert steps(tmp_path) == [8, 9]
    Trained(tmp_path, name="later", every_steps=None, every_minutes=60)
    assert not list(tmp_path.glob("checkpoints/later-*/step-*"))


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    for name in ("optimizer.bin", "random_states_0.pkl", "state.pt"):
        folder = tmp_path / name
        Trained(folder, 3)
        (one,) = all_in(folder)
        facts = json.loads((one / "manifest.json").read_text())
        torch.save({"state": Harm()}, one / name)
        one = one.rename(one.parent / ".part")
        (one / "manifest.json").unlink()
        facts.pop("files")
        atomic_folder.publish(one, atomic_folder.path_of(one.parent, 2), facts)
        with pytest.raises(Card, match="can't be loaded"):
            Trained(folder)
        assert not (tmp_path / "harm").exists(), name


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    trained = Trained(tmp_path, 5)
    with torch.no_grad():
        next(trained.model.parameters())[0, 0] = float("inf")
    with pytest.raises(Card, match="NaN or infinite after step 6") as caught:
        trained.checkpoints.save(6)
    assert "of step 4" in caught.value.why
    assert "--precision" not in caught.value.fix
    assert steps(tmp_path) == [2, 4]


def test_checkpoints_are_created_before_prepare(tmp_path: Path) -> None:
    trained = Trained(tmp_path, 0)
    late = Checkpoints(trained.run, "late")
    with pytest.raises(RuntimeError, match="call resume before the first save"):
        late.save(1)
    late.resume()
    with pytest.raises(RuntimeError, match="create Checkpoints before"):
        late.save(1)


def test_an_object_without_a_state_cannot_be_included(tmp_path: Path) -> None:
    trained = Trained(tmp_path, 0)
    with pytest.raises(TypeError, match="number can't be saved"):
        trained.checkpoints.include(number=3)


def test_a_state_that_cannot_be_loaded_is_an_error_at_the_first_checkpoint(tmp_path: Path) -> None:
    trained = Trained(tmp_path, 0)
    trained.curve.append(Path())  # pyright: ignore
    with pytest.raises(Exception, match="Weights only load failed"):
        trained.checkpoints.save(1)


def test_every_kind_of_state_is_restored(tmp_path: Path) -> None:
    first = Trained(tmp_path, 0, name="kinds")
    average = nn.Linear(2, 2)
    notes = {"best": 1.5}
    first.checkpoints.include(average=average, notes=notes)
    first.checkpoints.save(1)
    run = Run(Settings(), "fp32", Output(io.StringIO(), silent=True), tmp_path)
    again = Checkpoints(run, "kinds")
    run.accelerator.prepare(*_fresh())
    another = nn.Linear(2, 2)
    others = {"worst": 0.0}
    curve = [1.0]
    again.include(average=another, notes=others, curve=curve, draws=torch.Generator())
    assert again.resume() == 1
    assert torch.equal(another.weight, average.weight)
    assert (others, curve) == (notes, [])


def _fresh() -> tuple[Any, Any]:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"every_steps": 0}, {"every_minutes": -1}])
def test_a_number_that_is_too_small_is_an_error(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1, every_minutes at least 0"):
        Trained(tmp_path, **wrong)
