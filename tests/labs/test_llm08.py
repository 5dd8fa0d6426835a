"""LLM08: its data, edge cases of its parts, packing, and its training."""

import io
import json
import math
import re
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from common.options import Settings
from labs.kit import Card, Run
from labs.kit.chat.saved_models import SavedModel
from labs.kit.records import Experiment
from labs.kit.run.console import Output
from labs.llm08_training import (
    LessonOptions,
    own_data,
    saved_model,
    training,
    view_data,
    word_tasks,
)
from labs.llm08_training import lesson as lab
from labs.llm08_training.conversations import messages_of
from labs.llm08_training.readers import BadRow
from labs.llm08_training.saved_model import Answer
from tests.conftest import Clone

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn
from transformers import get_cosine_schedule_with_warmup


@pytest.fixture
def run(tmp_path: Path):
    with (tmp_path / "log.txt").open("w", encoding="utf-8") as log:
        yield Run(Settings(), "fp32", Output(log, silent=True), tmp_path)


# The rows.


def test_one_task_is_held_out_for_each_list_and_every_task_for_some_list():
    held = set()
    for row in islice(word_tasks.examples(0, None), 300):
        rows = [{**row, "instruction": task} for task in word_tasks.TASKS]
        tasks = [one["instruction"] for one in rows if word_tasks.is_held_out(one)]
        assert len(tasks) == (" " in row["input"])  # none for lists of one word
        held.update(tasks)
    assert held == set(word_tasks.TASKS)


@pytest.mark.parametrize("held_out", [True, False])
def test_outputs_are_what_the_tasks_ask_for(held_out: bool):
    for row in islice(word_tasks.examples(3, held_out), 500):
        words = row["input"].split()
        task = row["instruction"]
        assert word_tasks.is_held_out(row) == held_out
        assert len(set(words)) == len(words) in range(1, 7)
        want = {
            "Repeat the words": row["input"],
            "Reverse the words": " ".join(reversed(words)),
            "Name the first": words[0],
            "Name the last": words[-1],
            "Count the words": ["one", "two", "three", "four", "five", "six"][len(words) - 1],
        }
        assert row["output"] == want[task]


# Tokens and labels.


def test_every_word_of_a_row_is_one_token_and_decodes_to_itself():
    for row in islice(word_tasks.examples(0, None), 200):
        text = " ".join(row.values())
        ids = lab.word_tokenizer(text, add_special_tokens=False).input_ids
        assert len(ids) == len(text.split())
        assert lab.word_tokenizer.decode(ids) == text


def test_the_labels_of_a_row_are_its_output_and_the_end():
    for row in islice(word_tasks.examples(1, None), 200):
        made = lab.encode(lab.word_tokenizer, messages_of(row))
        assert len(made["input_ids"]) == len(made["labels"])
        taught = [label for label in made["labels"] if label != lab.IGNORED]
        assert lab.word_tokenizer.decode(taught) == f"{row['output']} <|end|>"
        assert taught[-1] == word_tasks.END
        assert made["input_ids"][-len(taught) :] == taught


@pytest.mark.parametrize("text", ["cat <|end|>", "<|assistant|> cat", "x<|pad|>y"])
def test_a_text_that_could_open_or_close_a_turn_is_refused(text: str):
    talk = messages_of({"prompt": text, "completion": "cat"})
    with pytest.raises(BadRow, match="special token"):
        lab.encode(lab.word_tokenizer, talk)


BARE = "{% for one in messages %}[{{ one.content }}]{% endfor %}"


@pytest.mark.parametrize("template", [None, BARE])
def test_a_template_that_does_not_mark_the_start_of_an_answer_is_a_card(template: str | None):
    words = word_tasks.make_tokenizer()
    words.chat_template = template
    with pytest.raises(Card, match="The start of a response can't be found"):
        lab.encode(words, messages_of({"prompt": "cat", "completion": "dog"}))


def test_supervise_takes_time_in_proportion_to_the_row():
    ids = [7] * 20_000 + [7, 8, 5]
    assert lab.supervise(ids, [7, 8], 2)[-2:] == [lab.IGNORED, 5]


# Batches and windows.


def test_the_loss_counts_the_same_labels_as_label_count():
    rows = training.encoded(lab.encode, islice(word_tasks.examples(0, None), 8))
    batch = lab.collate(rows, lab.PAD)
    assert lab.label_count(batch) == sum(
        one != lab.IGNORED for row in rows for one in row["labels"]
    )

    class Uniform(nn.Module):
        def forward(self, ids: torch.Tensor, attention_mask: torch.Tensor):
            del attention_mask
            return type("Out", (), {"logits": torch.zeros(*ids.shape, 10_000)})()

    mean = lab.label_sum(Uniform(), batch) / lab.label_count(batch)
    assert mean.item() == pytest.approx(math.log(10_000))


@torch.no_grad()
def test_padding_does_not_change_the_loss(run: Run):
    model = lab.build(run, 0)
    rows = small(16)
    loss = lab.label_sum(model, lab.collate(rows, lab.PAD)).item()
    alone = sum(lab.label_sum(model, lab.collate([row], lab.PAD)).item() for row in rows)
    assert loss == pytest.approx(alone, rel=1e-5)
    shared = lab.collate(rows, word_tasks.END)
    assert loss == pytest.approx(lab.label_sum(model, shared).item(), rel=1e-5)


def test_windows_read_an_endless_stream():
    def endless():
        while True:
            yield {"labels": torch.full((1, 3), 5)}

    found = list(islice(lab.windows(endless(), 4), 3))
    assert [(len(window), count) for window, count in found] == [(4, 8)] * 3


# AdamW and the rate.


def test_adamw_leaves_weights_without_a_gradient_unchanged():
    moved, still = (nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = lab.AdamW([moved, still], 0.1)
    moved.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(still, torch.ones(3))
    assert moved.max() < 1


def test_adamw_has_the_arguments_defaults_and_group_keys_of_torch():
    weight = nn.Parameter(torch.zeros(1))
    (ours,) = lab.AdamW([weight]).param_groups
    (theirs,) = torch.optim.AdamW([weight]).param_groups
    assert set(ours) == {"params", "lr", "betas", "eps", "weight_decay"}
    assert ours == {name: theirs[name] for name in ours}
    (ours,) = lab.AdamW([weight], 0.1, (0.8, 0.9), 1e-6, 0.2).param_groups
    (theirs,) = torch.optim.AdamW([weight], 0.1, (0.8, 0.9), 1e-6, 0.2).param_groups
    assert ours == {name: theirs[name] for name in ours}


def test_adamw_reads_the_weight_decay_of_each_group():
    """As `Trainer` and others set it: no decay for biases and norms."""
    first, second = (nn.Parameter(torch.ones(3)) for _ in range(2))
    groups = [{"params": [first], "weight_decay": 0.0}, {"params": [second], "weight_decay": 0.5}]
    optimizer = lab.AdamW(groups, 0.1)
    first.grad = torch.zeros(3)
    second.grad = torch.zeros(3)
    optimizer.step()
    assert torch.equal(first, torch.ones(3))
    assert torch.allclose(second, torch.full((3,), 0.95))


def test_adamw_takes_a_closure_and_returns_its_loss():
    weight = nn.Parameter(torch.ones(3))
    optimizer = lab.AdamW([weight], 0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step() is None
    assert optimizer.step(closure).item() == 3.0
    assert optimizer.step(closure).item() < 3.0


def test_adamw_continues_from_its_state_dict():
    def made(weight: nn.Parameter):
        return lab.AdamW([weight], 0.1)

    def go(weight: nn.Parameter, optimizer: Any, steps: int):
        for _ in range(steps):
            weight.grad = torch.sin(weight.detach())
            optimizer.step()

    full, part = (nn.Parameter(torch.arange(4.0)) for _ in range(2))
    go(full, made(full), 6)
    first = made(part)
    go(part, first, 3)
    again = made(part)
    again.load_state_dict(first.state_dict())
    go(part, again, 3)
    assert torch.equal(full, part)


@pytest.mark.parametrize(("steps", "warmup", "floor"), [(1, 0, 0.1), (1, 1, 0.0), (50, 7, 0.2)])
def test_a_rate_is_never_above_one_and_after_the_warmup_never_below_the_floor(steps, warmup, floor):
    shares = [lab.lr_at(t, steps, warmup, floor) for t in range(steps)]
    assert max(shares) <= 1
    assert all(share >= floor for share in shares[warmup:])
    assert min(shares) > 0


# Packing.


def test_a_pack_has_a_block_diagonal_mask_and_separate_positions_and_labels():
    rows = [
        {"input_ids": [5, 6, 7], "labels": [lab.IGNORED, lab.IGNORED, 7]},
        {"input_ids": [8, 9], "labels": [8, 9]},
    ]
    alone = [{"input_ids": [4], "labels": [4]}]
    batch = lab.collate_packs([rows, alone], pad=3)
    x = lab.IGNORED
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9], [4, 3, 3, 3, 3]]
    assert batch["labels"].tolist() == [[x, x, 7, x, 9], [x, x, x, x, x]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 0, 0, 0, 0]]
    mask = batch["attention_mask"]
    assert mask.shape == (2, 1, 5, 5)
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]
    assert mask.any(-1).all(), "no row of the mask is empty"


# Training.


def small(count: int = 96) -> list[lab.Row]:
    return training.encoded(lab.encode, islice(word_tasks.examples(0, False), count))


def test_a_window_of_micro_batches_trains_like_one_batch(run: Run):
    recipe = lab.Recipe(4, batch=32, warmup=2)
    full = training.train(run, "full", lab.build(run, 0), small(), recipe, lab.LOOP)
    how = lab.Recipe(4, batch=8, accumulate=4, warmup=2)
    parts = training.train(run, "parts", lab.build(run, 0), small(), how, lab.LOOP)
    assert parts.losses == pytest.approx(full.losses, rel=1e-4)


def test_the_first_loss_is_the_mean_over_labels_that_pytorch_computes(run: Run):
    seen: list[lab.Batch] = []

    def make(rows: list[lab.Row]) -> lab.Batch:
        seen.append(lab.collate(rows, lab.PAD))
        return seen[-1]

    loop = replace(lab.LOOP, collate=make)
    done = training.train(run, "first", lab.build(run, 0), small(), lab.Recipe(1, warmup=1), loop)
    model = lab.build(run, 0)
    batch = seen[0]
    want = model(batch["input_ids"], labels=batch["labels"]).loss.item()
    assert done.losses == [pytest.approx(want, rel=1e-5)]


def test_a_nan_saves_every_batch_of_its_window(run: Run):
    how = lab.Recipe(2, lr=math.nan, batch=8, accumulate=2, warmup=1)
    with pytest.raises(Card, match="The loss of step 1"):
        training.train(run, "nan", lab.build(run, 0), small(), how, lab.LOOP)
    saved = load_file(run.folder / "nan-batch.safetensors")
    names = ("attention_mask", "input_ids", "labels")
    assert sorted(saved) == [f"{i}.{name}" for i in range(2) for name in names]
    assert all(tensor.shape[0] == 8 for tensor in saved.values())


def test_watched_values_have_their_step(run: Run):
    how = lab.Recipe(2 * training.EVERY, warmup=2)
    rows = small(40)

    def judge(model: Any) -> float:
        return lab.PARTS.loss(run, model, rows, lab.PAD)

    model = lab.build(run, 0)
    before = judge(model)
    done = training.train(run, "watched", model, rows, how, lab.LOOP, watch=judge)
    assert [step for step, _ in done.watched] == [training.EVERY, 2 * training.EVERY]
    assert done.watched[-1][1] == pytest.approx(judge(done.model), rel=1e-5)
    assert done.watched[-1][1] < before


def test_a_held_out_response_is_not_in_training_with_the_same_list():
    training_rows, held_out = word_tasks.split(0, 4000)
    known = {(row["input"], row["output"]) for row in training_rows}
    assert all((row["input"], row["output"]) not in known for row in held_out)


def test_the_exam_counts_right_words_and_ends_separately(run: Run):
    rows = list(islice(word_tasks.examples(0, True), 7))
    batch = word_tasks.collate_requests(rows)
    answers = [lab.word_tokenizer(row["output"]).input_ids for row in rows]

    def says(*ends: int) -> Any:
        class Says(nn.Module):
            def generate(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
                said = [one + [*ends, *[lab.PAD] * 8][: 8 - len(one)] for one in answers]
                return torch.cat([input_ids, torch.tensor(said)], 1)

        return Says()

    assert batch["wanted"].shape == (7, 7)
    assert lab.exam(run, says(word_tasks.END), rows) == (1.0, 1.0, 1.0, [True] * 7)
    assert lab.exam(run, says(), rows) == (0.0, 1.0, 0.0, [False] * 7)
    more = lab.word_tokenizer("cow").input_ids
    assert lab.exam(run, says(*more, word_tasks.END), rows)[:3] == (0.0, 1.0, 1.0)
    answers = [one[::-1] if len(set(one)) > 1 else [word_tasks.END] for one in answers]
    assert lab.exam(run, says(), rows)[:2] == (0.0, 0.0)


def test_answers_are_the_texts_up_to_the_end_token():
    rows = list(islice(word_tasks.examples(0, True), 3))
    outputs = lab.word_tokenizer(["ant cow", "one", "yak"]).input_ids

    class Says(nn.Module):
        device = torch.device("cpu")

        def generate(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
            lines = [[*output, word_tasks.END, *[lab.PAD] * 3][:4] for output in outputs]
            return torch.cat([input_ids, torch.tensor(lines)], 1)

    texts = word_tasks.responses(Says(), rows)
    assert texts == ["ant cow <|end|>", "one <|end|>", "yak <|end|>"]


def test_the_training_clips_with_the_function_of_its_loop(run: Run):
    norms: list[float] = []

    def clip(parameters: Any, c: float) -> torch.Tensor:
        norms.append(c)
        return lab.clip_gradients(parameters, c)

    how = lab.Recipe(2, clip=0.25, warmup=1)
    training.train(run, "clip", lab.build(run, 0), small(), how, replace(lab.LOOP, clip=clip))
    assert norms == [0.25, 0.25]


def test_without_another_process_an_epoch_has_every_row(run: Run):
    seen: list[lab.Row] = []

    def make(rows: list[lab.Row]) -> lab.Batch:
        seen.extend(rows)
        return lab.collate(rows, lab.PAD)

    loop = replace(lab.LOOP, collate=make)
    training.train(run, "all", lab.build(run, 0), small(40), lab.Recipe(2, warmup=1), loop)
    assert sorted(map(str, seen[:40])) == sorted(map(str, small(40)))


def test_the_rate_is_that_of_the_library_one_step_later():
    steps, warmup = 100, 10
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    library = get_cosine_schedule_with_warmup(sgd, warmup, steps + 1)
    for step in range(steps):
        sgd.step()
        library.step()
        (want,) = library.get_last_lr()
        assert lab.lr_at(step, steps, warmup, floor=0) == pytest.approx(want, abs=1e-12)


def test_clipping_equals_that_of_pytorch():
    torch.manual_seed(0)
    ours, theirs = (nn.Linear(5, 3) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 5)
    for model in (ours, theirs):
        model(x).square().sum().backward()
    norm = lab.clip_gradients(ours.parameters(), 0.5)
    assert torch.allclose(norm, nn.utils.clip_grad_norm_(theirs.parameters(), 0.5))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


def test_a_batch_is_shown_padded_and_packed():
    rows = small(4)
    words = word_tasks.word_tokenizer
    data, _, _, table = view_data.batch(words, rows, lab.collate, lab.collate_packs, lab.PAD)
    padded, packed = data["grids"]
    tokens = sum(len(row["input_ids"]) for row in rows)
    for grid in (padded, packed):
        cells = [cell for line in grid["lines"] for cell in line]
        real = [cell for cell in cells if not cell.get("padding")]
        assert len(real) == tokens
        assert all(cell["label"] in (None, cell["token"]) for cell in cells)
    second = packed["lines"][0][len(rows[0]["input_ids"])]
    assert second["position"] == 0
    assert second["sees"] == [len(rows[0]["input_ids"])] * 2
    assert table[0][4] == table[1][4] > 0, "packing loses no label"


# Own data.


def encoded(talks: list[Any], length: int, folder: Path):
    def encode(messages: Any) -> lab.Row:
        return lab.encode(lab.word_tokenizer, messages)

    return own_data.encoded_rows(talks, encode, length, folder, seed=0)


def test_rows_are_cut_counted_and_left_out_without_a_label(tmp_path: Path):
    talks = [{"messages": messages_of(row)} for row in islice(word_tasks.examples(0, None), 50)]
    talks.append({"messages": messages_of({"prompt": "cat " * 30, "completion": "dog"})})
    with encoded(talks, 20, tmp_path) as rows:
        assert len(rows.table) == 50
        assert (rows.cut, rows.empty) == (1, 1)
        assert max(len(row["input_ids"]) for row in rows.table) <= 20
        assert rows.tokens == sum(len(row["input_ids"]) for row in rows.table)
    assert list(tmp_path.iterdir()) == [], "the file is gone"
    with encoded(talks, 9, tmp_path) as rows:
        assert rows.cut > rows.empty > 0
        assert all(any(one != lab.IGNORED for one in row["labels"][1:]) for row in rows.table)


def test_equal_rows_are_on_one_side_and_all_others_are_trained_on(tmp_path: Path):
    made = list(islice(word_tasks.examples(0, None), 300))
    talks = [{"messages": messages_of(row)} for row in made * 2]
    with encoded(talks, 40, tmp_path) as rows:
        training, test = rows.split()
        seen = {str(row["input_ids"]) for row in training}
        tested = [str(row["input_ids"]) for row in test]
        assert len(tested) == len(set(tested)) == own_data.TESTED
        assert seen.isdisjoint(tested)
        assert seen | set(tested) == {str(row["input_ids"]) for row in rows.table}


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"question": "Q?", "answer": "A."}, None),
        ({"Question ": "Q?", "id": "7", "ANSWER": "A."}, None),
        ({"prompt": "Q?", "response": "A."}, None),
        ({"Frage": "Q?", "Antwort": "A.", "answer": "no"}, ("Frage", "Antwort")),
    ],
)
def test_usual_and_chosen_columns_become_a_request_and_its_answer(row, columns):
    user, assistant = messages_of(row, columns)
    assert user == {"role": "user", "content": "Q?"}
    assert assistant == {"role": "assistant", "content": "A."}


def test_a_chosen_column_that_is_missing_is_a_bad_row():
    with pytest.raises(BadRow, match="no column 'Antwort', but question, answer"):
        messages_of({"question": "Q?", "answer": "A."}, ("question", "Antwort"))


def own_run(folder: Path, **options: Any) -> Run:
    own = LessonOptions(**{"dataset": "work/faq.csv", **options})
    run = Run(Settings(seed=3, own=own), "fp32", Output(io.StringIO(), silent=True), folder)
    run.current = Experiment("a_real_model_learns", "It learns.")
    return run


ANSWERS = [
    Answer("Is it|new?", "Yes", "No `really`.\nNo.", "No `really`.\nNo."),
    Answer("Red?", "Red", "Red", "Red"),
    Answer("Blue?", "", "blue", "Blue"),
]
FACTS = {"rows": 90, "used": 80, "cut": 0, "length": 256, "steps": 10, "batch": 8}
FACTS |= {"before": 3.0, "after": 1.0, "tests": 32, "most": 48}


def saved_own_model(folder: Path, **options: Any) -> Path:
    run = own_run(folder, **options)
    model = word_tasks.build(run, 0)
    model.generation_config.temperature = 0.6  # as some bases have it
    model.generation_config.do_sample = True
    return saved_model.save(run, model, lab.word_tokenizer, ANSWERS, **FACTS)


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the header of a card, and the rest."""
    _, header, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(header), text


def test_the_card_counts_the_right_answers_and_shows_them(tmp_path: Path):
    header, text = card_of(saved_own_model(tmp_path, columns=("Q", "A"), steps=10))
    assert header["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert header["license"] == "apache-2.0"
    assert "| right answers | 1 of 3 before, 2 of 3 after |" in text
    assert "We counted 3 of the 32 rows that the model was not trained on" in text
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows[0] == r"| `Is it\|new?` | `No 'really'. No.` | `Yes` | `No 'really'. No.` | yes |"
    assert rows[2] == "| `Blue?` | `Blue` | (nothing) | `blue` | no |"
    assert time.strftime("trained on faq.csv on %Y-%m-%d") in text
    own = "--dataset work/faq.csv --columns Q,A --steps 10"
    assert f"`invoke lab LLM08 --only a_real_model_learns --seed 3 -- {own}`" in text
    assert "The licence of your data is yours to state" in text
    assert not re.search(r"\{\w+\}", text), "every place of the card is filled"


def test_the_card_of_another_base_names_no_licence(tmp_path: Path):
    header, _ = card_of(saved_own_model(tmp_path / "a", model="owner/name: x"))
    assert header["base_model"] == "owner/name: x"
    assert "license" not in header
    header, text = card_of(saved_own_model(tmp_path / "b", model=str(tmp_path)))
    assert "base_model" not in header, "a folder is no id"
    assert str(tmp_path.parent) not in text.replace(f"--model {tmp_path}", "")


def test_the_saved_model_decodes_greedily_and_the_list_shows_its_data(tmp_path: Path):
    folder = saved_own_model(tmp_path)
    config = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert config["do_sample"] is False
    assert "temperature" not in config
    title = SavedModel(folder).title
    start = time.strftime("SmolLM2-135M-Instruct, trained on faq.csv on %Y-%m-%d")
    assert title == f"{start}: 10 steps, 2 of 3 right"


# N processes.

TRAINS = '''
from labs.llm08_training import lesson as lab8
from labs.llm08_training import training, word_tasks


@lab.experiment
def trains(run: Run):
    """Four steps of two micro-batches, then an exam."""
    chosen, held_out = word_tasks.split(0, 200)
    rows = training.encoded(lab8.encode, chosen)
    test = held_out[:7]
    how = lab8.Recipe(4, batch=16, accumulate=2, warmup=2)
    done = training.train(run, "trains", lab8.build(run, 0), rows, how, lab8.LOOP)
    run.measure("losses", done.losses)
    run.measure("exam", lab8.exam(run, done.model, test)[:3])
    run.check("processes", run.accelerator.num_processes, at_least=1)
'''


def trained(clone: Clone, lesson: str, *words: str) -> dict[str, Any]:
    out = f"outputs/{'-'.join(words) or 'one'}"
    ended = clone.labs(lesson, "--precision", "fp32", "--outputs", out, *words)
    assert ended.code == 0, ended
    (path,) = (clone.path / out / lesson).glob("*/results.json")
    results = json.loads(path.read_text(encoding="utf-8"))
    assert results["environment"]["processes"] == (2 if words else 1)
    found = next(one for one in results["experiments"] if one["name"] == "trains")
    return {one["name"]: one["values"] for one in found["measurements"]}


def test_two_processes_train_and_take_the_exam_as_one(clone: Clone) -> None:
    lesson = clone.kit_lab(TRAINS)
    alone = trained(clone, lesson)
    together = trained(clone, lesson, "--processes", "2")
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert together["exam"] == alone["exam"]
