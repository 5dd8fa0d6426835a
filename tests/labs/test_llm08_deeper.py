"""LLM08+: seven loops with a mistake, packs, and two processes that train as one."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from common.options import Settings
from labs.kit import Run
from labs.kit.run.console import Output
from labs.llm08_training import deeper, loops, puzzle, rounding, training, word_tasks
from labs.llm08_training import lesson as lab
from labs.llm08_training.loops import LOOPS
from labs.llm08_training.training import in_groups

import pytest
import torch


@pytest.fixture
def run(tmp_path: Path):
    with (tmp_path / "log.txt").open("w", encoding="utf-8") as log:
        yield Run(Settings(), "fp32", Output(log, silent=True), tmp_path)


def rows_of(count: int) -> list[lab.Row]:
    return training.encoded(lab.encode, islice(word_tasks.examples(0, False), count))


# Mistakes.


def test_a_loop_with_a_mistake_differs_from_the_right_one_in_one_thing():
    right = LOOPS["right"]
    for name, loop in LOOPS.items():
        changed = {key for key, value in vars(loop).items() if value != getattr(right, key)}
        changed -= {"accumulate"}  # which alone is no mistake
        assert changed - {"pad"} or name == "right", name
        assert len(changed - {"pad"}) <= 1, name


def test_the_labels_of_each_mistake():
    (row,) = rows_of(1)
    assert loops.all_labels(row)["labels"] == row["input_ids"]
    assert loops.shifted(row)["labels"] == [*row["labels"][1:], lab.IGNORED]
    batch = loops.collate_all(rows_of(8), lab.PAD)
    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert (batch["labels"][padding] == lab.PAD).all()


def test_a_batch_of_each_loop_shows_a_mistake_in_its_labels_and_no_other():
    rows = rows_of(8)
    found = {
        name: deeper.label_mistake(deeper.batch_of(loop, rows)) for name, loop in LOOPS.items()
    }
    assert found == {name: name if name in deeper.IN_LABELS else "none" for name in LOOPS}


def test_a_loop_is_compared_with_the_right_one_seed_by_seed():
    losses = puzzle.beside("x", [0.5, 0.7, 0.41], [0.4, 0.5, 0.45])
    assert losses == "x 0.410 to 0.700 (seed by seed +0.100, +0.200, -0.040)"


def test_the_key_names_each_loop_and_compares_seed_by_seed():
    text = puzzle.key({"right": "A", "x": "B"}, {"right": [0.4, 0.5], "x": [0.5, 0.4]})
    assert text.startswith("The key: A is right, B is x. ")
    assert "the right loop 0.400 to 0.500; x 0.400 to 0.500 (seed by seed +0.100, -0.100)." in text


def test_each_letter_of_the_puzzle_is_a_loop_and_the_order_depends_on_the_seed(run: Run):
    letters = puzzle.letters_of(run, LOOPS)
    assert sorted(letters.values()) == list("ABCDEFGH")
    assert set(letters) == set(LOOPS)
    other = Run(Settings(seed=1), "fp32", run.output, run.folder)
    assert puzzle.letters_of(other, LOOPS) != letters


def test_the_puzzle_names_the_precision_of_its_small_products(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    assert run.accelerator.mixed_precision == "no"

    @contextmanager
    def in_bf16(width: int) -> Iterator[None]:
        del width
        run.precision = "bf16"
        yield
        run.precision = "fp32"

    monkeypatch.setattr(training, "steps_of", lambda _: 25)
    assert puzzle.precision_of(deeper.fit(run, "right", 0)) == "fp32"
    monkeypatch.setattr(run, "small_products", in_bf16)
    assert puzzle.precision_of(deeper.fit(run, "right", 1)) == "bf16 autocast"


def test_a_mean_of_means_weighs_micro_batches_equally(run: Run):
    window = [lab.collate(rows_of(n), lab.PAD) for n in (1, 8)]
    model = lab.build(run, 0)
    optimizer = torch.optim.SGD(model.parameters(), 0)
    labels = sum(lab.label_count(batch) for batch in window)
    steps = {}
    for step in (lab.training_step, loops.mean_of_means):
        steps[step] = step(model, optimizer, iter(window), labels, 0.0, 1.0, run.accelerator)
    model = lab.build(run, 0)
    means = [lab.label_sum(model, batch) / lab.label_count(batch) for batch in window]
    assert steps[loops.mean_of_means].item() == pytest.approx(sum(means).item() / 2, rel=1e-2)
    assert steps[lab.training_step].item() != pytest.approx(sum(means).item() / 2, rel=1e-2)


def test_a_rate_by_batch_ends_early():
    assert loops.lr_by_batch(30, 100, 20) == lab.lr_at(60, 100, 20)
    assert loops.lr_by_batch(60, 100, 20) == loops.lr_by_batch(99, 100, 20) == 0.1


def test_the_backward_pass_has_twice_the_products(run: Run):
    batch = lab.collate(rows_of(4), lab.PAD)
    model = lab.build(run, 0)
    forward, backward = deeper.products(model, batch)
    assert forward > 0
    assert 1.9 <= backward / forward <= 2.2
    assert all(weight.grad is None for weight in model.parameters())


# float16.


def test_the_lost_shares_are_those_of_entries_that_float16_rounds_to_0():
    g = torch.tensor([2.0**-25, -(2.0**-25), 1.5 * 2.0**-25, 1.0], dtype=torch.float64)
    entries, mass = deeper.shares_lost(g, 1)
    assert entries == 0.5
    assert mass == pytest.approx(2 * 2**-25 / (1 + 3.5 * 2**-25))
    assert deeper.shares_lost(g, 2) == (0, 0)


def test_an_entry_above_the_limit_rounds_up_so_the_sum_may_grow():
    lost, grows, stays = 2.0**-25, 1.5 * 2.0**-25, 2.0**-24
    assert rounding.sum_in_float16(torch.tensor([lost, stays]).double()) == pytest.approx(2 / 3)
    assert rounding.sum_in_float16(torch.tensor([grows]).double()) == pytest.approx(4 / 3)
    assert rounding.sum_in_float16(torch.tensor([stays]).double()) == 1


# Packing.


def test_packing_loses_no_row_and_overfills_no_pack():
    rows = training.encoded(lab.encode, islice(word_tasks.examples(0, None), 300))
    packs = deeper.pack(rows, 40)
    assert all(sum(len(row["input_ids"]) for row in one) <= 40 for one in packs)
    assert sorted(map(str, rows)) == sorted(str(row) for one in packs for row in one)


def test_first_fit_decreasing_by_hand():
    rows = [{"input_ids": [0] * n, "labels": [0] * n} for n in (3, 6, 4, 7, 2, 1)]
    sizes = [[len(row["input_ids"]) for row in one] for one in deeper.pack(rows, 10)]
    assert sizes == [[7, 3], [6, 4], [2, 1]]


def test_a_row_that_is_longer_than_a_pack_is_an_error():
    with pytest.raises(ValueError, match="a row of 5 tokens"):
        deeper.pack([{"input_ids": [0] * 5, "labels": [0] * 5}], 4)


def test_padding_is_counted_relative_to_the_longest_row_or_to_the_given_places():
    rows = [{"input_ids": [0] * n, "labels": []} for n in (2, 4)]
    assert deeper.padding([rows]) == pytest.approx(2 / 8)
    assert deeper.padding([rows], places=10) == pytest.approx(4 / 10)


# P processes.


def test_the_two_processes_of_the_lab_train_the_model_of_the_run_size(run: Run) -> None:
    small = Run(Settings(size="small"), "fp32", run.output, run.folder)
    records = deeper.start_two(small.size, small.seed)
    half = deeper.SEVERAL.batch // 2
    shares = [in_groups(record["seen"], half)[: deeper.SEVERAL.steps] for record in records]
    whole = deeper.plainly(small, [a + b for a, b in zip(*shares, strict=True)])
    assert records[0]["losses"] == pytest.approx(whole, rel=1e-4)
