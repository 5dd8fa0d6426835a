"""Checkpoints in one process: what is saved comes back, and what doesn't fit or hold is told."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from labs.course.cards import Card
from labs.course.options import Settings
from labs.kit import atomic_folder
from labs.kit.run.console import Output
from labs.kit.run.run import Run
from labs.kit.training.checkpoints import Checkpoints
from labs.kit.training.loop import batches, stop_on_nan
from tests.kit.trainings import DAMAGES, damage

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

STEPS = 9


class Trained:
    """A training of STEPS steps with dropout, up to `until`; it may have gone on from before."""

    def __init__(self, folder: Path, until: int = STEPS, name: str = "it", **how: Any) -> None:
        settings = {key: how.pop(key) for key in ("seed", "resume") if key in how}
        self.log = io.StringIO()
        self.run = Run(Settings(**settings), "fp32", Output(self.log, silent=True), folder)
        how = {"every_steps": 2, **how}
        self.checkpoints = Checkpoints(self.run, name, **how)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        self.model, self.optimizer = self.run.accelerator.prepare(model, optimizer)
        self.draws, self.curve = torch.Generator().manual_seed(1), []
        self.checkpoints.carry(draws=self.draws, curve=self.curve)
        self.done = self.checkpoints.resume()
        for step in range(self.done, until):
            self.step()
            self.checkpoints.save_if_due(step + 1)

    def step(self) -> None:
        x = torch.randn(3, 4, generator=self.draws)
        loss = (self.model(x) - x.sum(-1, keepdim=True)).square().mean()
        self.run.accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.curve.append(loss.item())

    @property
    def weights(self) -> list[float]:
        return torch.cat([one.detach().flatten() for one in self.model.parameters()]).tolist()

    @property
    def said(self) -> str:
        return self.log.getvalue()


def all_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoints/*/step-*"), key=lambda one: one.name)


def steps(folder: Path) -> list[int]:
    return [int(one.name.split("-")[1]) for one in all_in(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("until", range(STEPS + 1))
def test_broken_off_after_any_step_it_ends_with_the_same_bits(
    tmp_path: Path, whole: Trained, until: int
) -> None:
    assert Trained(tmp_path, until).done == 0
    resumed = Trained(tmp_path)
    assert resumed.done == until // 2 * 2
    assert (resumed.weights, resumed.curve) == (whole.weights, whole.curve)


def test_a_training_that_had_ended_is_not_trained_again(tmp_path: Path, whole: Trained) -> None:
    Trained(tmp_path).checkpoints.save(STEPS)
    again = Trained(tmp_path)
    assert again.done == STEPS
    assert (again.weights, again.curve) == (whole.weights, whole.curve)


def test_a_whole_training_holds_no_state_of_an_earlier_one(tmp_path: Path, whole: Trained) -> None:
    Trained(tmp_path, name="first").checkpoints.save(STEPS)
    second = Trained(tmp_path, name="second")
    assert second.weights == whole.weights
    (model,) = all_in(tmp_path)[-1].glob("model*")
    assert len(load_file(model)) == 4


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    Trained(tmp_path, keep=keep)
    assert steps(tmp_path) == [4, 6, 8][-keep:]


def test_by_the_clock_too(tmp_path: Path) -> None:
    Trained(tmp_path, every_steps=None, every_minutes=0)
    assert steps(tmp_path) == [8, 9]
    Trained(tmp_path, name="later", every_steps=None, every_minutes=60)
    assert not list(tmp_path.glob("checkpoints/later-*/step-*"))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_one_is_told_and_the_one_before_is_taken(
    tmp_path: Path, whole: Trained, how: str
) -> None:
    Trained(tmp_path, 7)
    assert steps(tmp_path) == [4, 6]
    damage(all_in(tmp_path)[-1], how)
    resumed = Trained(tmp_path)
    assert resumed.done == 4
    assert "step-00000006 is damaged" in resumed.said
    assert (resumed.weights, resumed.curve) == (whole.weights, whole.curve)


def test_where_all_are_damaged_it_begins_anew(tmp_path: Path, whole: Trained) -> None:
    Trained(tmp_path, 7)
    for one in all_in(tmp_path):
        damage(one, DAMAGES[0])
    resumed = Trained(tmp_path)
    assert (resumed.done, resumed.weights) == (0, whole.weights)


def test_what_was_half_written_is_none(tmp_path: Path) -> None:
    Trained(tmp_path, 5)
    newest = all_in(tmp_path)[-1]
    newest.rename(newest.parent / ".part")
    assert Trained(tmp_path).done == 2
    assert not list(tmp_path.glob("checkpoints/*/.part"))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"depends_on": {"width": 9}}, "width was nothing and is 9"),
        ({"depends_on": {"data": "x" * 64}}, "data has changed"),
    ],
)
def test_what_a_training_depends_on_keeps_its_checkpoints_apart(
    tmp_path: Path, other: dict[str, Any], told: str
) -> None:
    Trained(tmp_path, 5)
    anew = Trained(tmp_path, 3, **other)
    assert anew.done == 0
    assert told in anew.said.replace("\n", " ")
    assert Trained(tmp_path).done == 4, "what didn't fit stayed"
    with pytest.raises(Card, match="don't fit") as caught:
        Trained(tmp_path, resume=True, depends_on={"width": 10})
    assert "width was" in caught.value.why


def test_another_training_s_are_not_even_spoken_of(tmp_path: Path) -> None:
    Trained(tmp_path, 5, name="seed 1")
    other = Trained(tmp_path, 5, name="seed 10", resume=True)
    assert (other.done, other.said) == (0, "")


def test_on_another_machine_it_goes_on_where_that_is_asked_for(tmp_path: Path) -> None:
    Trained(tmp_path, 5, depends_on={"threads": 96})
    assert Trained(tmp_path, 0, depends_on={"threads": 2}).done == 0
    asked = Trained(tmp_path, resume=True, depends_on={"threads": 2})
    assert asked.done == 4
    assert "not bit for bit" in asked.said and "threads was 96 and is 2" in asked.said


def test_what_json_can_not_tell_is_nothing_to_depend_on(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        Trained(tmp_path, depends_on={"config": object()})


HOLDS = """
import sys, pathlib
from labs.kit import kept
place = kept.lock(pathlib.Path(sys.argv[1]))
assert place
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_run_at_the_same_time_keeps_its_own(tmp_path: Path) -> None:
    Trained(tmp_path, 5).run.places[0].lock.close()
    (folder,) = tmp_path.glob("checkpoints/*")
    command = [sys.executable, "-c", HOLDS, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"held\n"
        second = Trained(tmp_path, 3)
        assert second.done == 0
        assert second.run.places[0].folder.name == f"{folder.name}-2"
        assert other.stdin
        other.stdin.close()
    assert Trained(tmp_path).done == 4


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    for name in ("optimizer.bin", "random_states_0.pkl", "carried.pt"):
        folder = tmp_path / name
        Trained(folder, 3)
        (one,) = all_in(folder)
        facts = json.loads((one / "manifest.json").read_text())
        torch.save({"state": Harm()}, one / name)
        one = one.rename(one.parent / ".part")
        (one / "manifest.json").unlink()
        facts.pop("files")
        atomic_folder.seal(one, atomic_folder.path_of(one.parent, 2), facts)
        with pytest.raises(Card, match="can't be loaded"):
            Trained(folder)
        assert not (tmp_path / "harm").exists(), name


@pytest.mark.parametrize(
    ("until", "told"), [(4, "goes on after step 4, from"), (9, "already trained, 9 steps, from")]
)
def test_what_is_trained_already_is_told_as_such(tmp_path: Path, until: int, told: str) -> None:
    Trained(tmp_path, until, steps=STEPS).checkpoints.save(until)
    assert f"it: {told} its checkpoint" in Trained(tmp_path, until, steps=STEPS).said


def test_weights_that_are_nan_are_not_kept(tmp_path: Path) -> None:
    trained = Trained(tmp_path, 5)
    with torch.no_grad():
        next(trained.model.parameters())[0, 0] = float("inf")
    with pytest.raises(Card, match="NaN or infinite after step 6") as caught:
        trained.checkpoints.save(6)
    assert "of step 4" in caught.value.why and "--precision" not in caught.value.mend
    assert steps(tmp_path) == [2, 4]


def test_it_comes_before_prepare(tmp_path: Path) -> None:
    trained = Trained(tmp_path, 0)
    late = Checkpoints(trained.run, "late")
    with pytest.raises(RuntimeError, match="resume comes before"):
        late.save(1)
    late.resume()
    with pytest.raises(RuntimeError, match="comes before"):
        late.save(1)


def test_what_has_no_state_can_not_be_carried(tmp_path: Path) -> None:
    trained = Trained(tmp_path, 0)
    with pytest.raises(TypeError, match="number can't be carried"):
        trained.checkpoints.carry(number=3)


def test_what_could_not_be_read_again_is_an_error_at_the_first_checkpoint(tmp_path: Path) -> None:
    trained = Trained(tmp_path, 0)
    trained.curve.append(Path())  # pyright: ignore
    with pytest.raises(Exception, match="Weights only load failed"):
        trained.checkpoints.save(1)


def test_all_kinds_of_things_are_carried(tmp_path: Path) -> None:
    first = Trained(tmp_path, 0, name="kinds")
    average, notes = nn.Linear(2, 2), {"best": 1.5}
    first.checkpoints.carry(average=average, notes=notes)
    first.checkpoints.save(1)
    run = Run(Settings(), "fp32", Output(io.StringIO(), silent=True), tmp_path)
    again = Checkpoints(run, "kinds")
    run.accelerator.prepare(*_fresh())
    another, others, curve = nn.Linear(2, 2), {"worst": 0}, [1.0]
    again.carry(average=another, notes=others, curve=curve, draws=torch.Generator())
    assert again.resume() == 1
    assert torch.equal(another.weight, average.weight)
    assert (others, curve) == (notes, [])


def _fresh() -> tuple[Any, Any]:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"every_steps": 0}, {"every_minutes": -1}])
def test_what_makes_no_sense_is_an_error(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="begin at"):
        Trained(tmp_path, **wrong)


def a_run(folder: Path, precision: str = "fp32", seed: int = 0) -> Run:
    return Run(Settings(seed=seed), precision, Output(io.StringIO(), silent=True), folder)


@pytest.mark.parametrize("done", range(12))
def test_batches_go_on_where_they_were(tmp_path: Path, done: int) -> None:
    def first(n: int, after: int) -> list[list[int]]:
        run, own = a_run(tmp_path), torch.Generator()
        loader = DataLoader(range(23), 4, shuffle=True, drop_last=True, generator=own)  # pyright: ignore
        feed = batches(run, run.accelerator.prepare(loader), after)
        return [next(feed).tolist() for _ in range(n)]

    everything = first(14, 0)
    assert everything[0:5] != everything[5:10], "each epoch has an order of its own"
    torch.manual_seed(done)
    before = torch.get_rng_state()
    assert first(14 - done, done) == everything[done:]
    assert torch.equal(before, torch.get_rng_state()), "torch's own generator wasn't asked"


def test_another_seed_shuffles_otherwise(tmp_path: Path) -> None:
    def order(seed: int) -> list[int]:
        run = a_run(tmp_path, seed=seed)
        loader = DataLoader(range(23), 4, shuffle=True, generator=torch.Generator())  # pyright: ignore
        return next(batches(run, run.accelerator.prepare(loader))).tolist()

    assert order(0) == order(0) != order(1)


def test_batches_need_a_generator_and_a_batch(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    with pytest.raises(ValueError, match="generator of its own"):
        next(batches(run, run.accelerator.prepare(DataLoader(range(9), 2))))  # pyright: ignore
    few = DataLoader(range(3), 4, drop_last=True, generator=torch.Generator())  # pyright: ignore
    with pytest.raises(ValueError, match="no batch"):
        next(batches(run, run.accelerator.prepare(few)))


def test_a_finite_loss_is_a_number(tmp_path: Path) -> None:
    assert stop_on_nan(a_run(tmp_path), torch.tensor(1.5, requires_grad=True), 3) == 1.5


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("kind", ["tensor", "dict", "pair"])
def test_a_loss_that_is_none_stops_with_step_and_batch(
    tmp_path: Path, value: str, kind: str
) -> None:
    x, y = torch.arange(6).view(2, 3), torch.tensor([0.5, float("nan")]).bfloat16()
    batch: Any = {"tensor": x, "dict": {"x": x, "y": y, "n": 2}, "pair": (x, y)}[kind]
    with pytest.raises(Card) as caught:
        stop_on_nan(a_run(tmp_path), torch.tensor(float(value)), 1234, batch)
    assert f"step 1,234 is {value}" in caught.value.what
    assert "(2, 3) from 0 to 5" in caught.value.why
    assert "learning rate" in caught.value.mend
    kept = load_file(tmp_path / "nan-batch.safetensors")
    assert sorted(kept) == {"tensor": ["batch"], "dict": ["x", "y"], "pair": ["0", "1"]}[kind]
    assert all(one.dtype in (torch.int64, torch.bfloat16) for one in kept.values())


def test_without_a_batch_it_is_a_card_too(tmp_path: Path) -> None:
    with pytest.raises(Card, match="step 0 is nan"):
        stop_on_nan(a_run(tmp_path), torch.tensor(float("nan")), 0)
