"""LLM10: its parts on difficult shapes, its theory, its texts, and training in processes."""

import json
import math
import sys
from argparse import Namespace
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from common.options import Settings
from labs.kit import Card, Results
from labs.kit.records import Bound, Experiment, Measurement
from labs.kit.run.console import Output
from labs.kit.run.filled_sheet import open_sheet
from labs.kit.run.run import Run
from labs.llm04_tokenization import BPE
from labs.llm07_lora import lesson as llm07
from labs.llm07_lora import models
from labs.llm07_lora import training as tuning
from labs.llm10_llama import conversion, ladder, muon, parts, probes, publishing, samples, training
from labs.llm10_llama import lesson as lab
from labs.llm10_llama.corpus import Text, open_text, prompt_of, tokenizer_of, witten_bell
from tests.conftest import Clone

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

SMALL = parts.Config(40, 32, 2, 4, 2, 88, context=16, std=0.15)
PROSE = "the cat sat on the mat, and the rat sat on the cat. " * 200


@pytest.fixture
def run(tmp_path: Path) -> Run:
    with (tmp_path / "log.txt").open("w", encoding="utf-8") as log:
        yield Run(Settings(outputs=tmp_path), "fp32", Output(log, silent=True), tmp_path)


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    return path


def text_of(tmp_path: Path, merges: int = 0, data: str = PROSE) -> Text:
    return open_text(written(tmp_path, data.encode()), merges, tmp_path)


# The parts.


def test_a_rotation_preserves_lengths_and_dot_products_depend_on_the_distance():
    turns = parts.rotations(12, 8, 100.0, torch.device("cpu"))
    q, k = (torch.randn(8).double().expand(1, 12, 1, 8) for _ in range(2))
    q, k = (lab.turn(x, turns)[0, :, 0] for x in (q, k))
    torch.testing.assert_close(q.norm(dim=-1), q.norm(dim=-1)[:1].expand(12), rtol=0, atol=1e-6)
    scores = q @ k.T
    for distance in (0, 4, -7):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("heads", "d"), [(1, 2), (3, 4), (2, 10)])
def test_to_neighbours_is_the_inverse_of_to_halves(heads, d):
    rows = torch.randn(heads * d, 5)
    assert torch.equal(conversion.to_neighbours(conversion.to_halves(rows, d), d), rows)


def test_grouped_heads_equal_full_heads_with_copied_keys():
    grouped = lab.Attention(16, 4, 2).double()
    full = lab.Attention(16, 4, 4).double()
    for name in ("k_proj", "v_proj"):
        weight = getattr(grouped, name).weight.unflatten(0, (2, 4)).repeat_interleave(2, 0)
        getattr(full, name).load_state_dict({"weight": weight.flatten(0, 1)})
    full.q_proj = grouped.q_proj
    full.o_proj = grouped.o_proj
    x = torch.randn(2, 6, 16).double()
    turns = parts.rotations(6, 4, 1e4, torch.device("cpu"))
    torch.testing.assert_close(grouped(x, turns), full(x, turns), rtol=0, atol=1e-12)


def test_the_norm_equals_llm05as_forward_and_backward():
    x = torch.randn(3, 5, 8, dtype=torch.double, requires_grad=True)
    dy = torch.randn(3, 5, 8, dtype=torch.double)
    found = []
    for norm in (parts.RMSNorm(8).double(), parts.Norm(8).double()):
        norm.load_state_dict({"weight": torch.linspace(0.5, 2, 8)})
        y = norm(x)
        found.append([y, *torch.autograd.grad(y, (x, norm.weight), dy)])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-12)


def test_generation_continues_beyond_the_context():
    torch.manual_seed(0)
    model = lab.Llama(SMALL)
    prompt = torch.arange(10)[None]
    got = lab.generate(model, prompt, 30)
    assert got.shape == (1, 30)
    fits = probes.generate_slowly(model, prompt, 6)
    assert torch.equal(got[:, :6], fits)
    # the cache holds 16; the 17th token begins it anew, with the last 8
    begun = torch.cat((prompt, got[:, :7]), 1)[:, -8:]
    assert torch.equal(probes.generate_slowly(model, begun, 8), got[:, 7:15])


def test_training_after_generation_uses_the_same_rotations():
    parts.rotations.cache_clear()
    model = lab.Llama(SMALL)
    ids = lab.generate(model, torch.arange(4)[None], 8)
    model(ids).square().sum().backward()
    assert model.embed_tokens.weight.grad.abs().max() > 0


def test_of_a_prompt_longer_than_the_context_only_the_end_is_read():
    model = lab.Llama(SMALL)
    prompt = torch.arange(30)[None]
    assert torch.equal(lab.generate(model, prompt, 5), lab.generate(model, prompt[:, -16:], 5))


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ({"heads": 3}, "3 heads don't divide a width of 10"),
        ({"heads": 5, "kv_heads": 2}, "2 key-value heads don't divide 5 heads"),
        ({"heads": 2, "kv_heads": 1}, "heads of width 5 have no pairs"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(shape, why):
    with pytest.raises(ValueError, match=why):
        parts.Config(9, 10, **shape)


def test_rotations_need_few_tables_however_long_the_text():
    parts.rotations.cache_clear()
    config = replace(SMALL, context=16)
    for start in range(0, 1600, 3):
        turns = parts.rotations_from(config, start, 2, torch.device("cpu"))
        assert turns.shape == (2, 1, 4)
    assert parts.rotations.cache_info().currsize <= parts.TABLES
    table = parts.rotations(64, 8, 1e4, torch.device("cpu"))
    assert torch.equal(parts.rotations_from(config, 40, 2, torch.device("cpu")), table[40:42])


def test_a_norm_in_bfloat16_has_statistics_in_float32_with_gradients_too():
    x = (10 * torch.randn(256, 512)).bfloat16()
    norm = parts.Norm(512).bfloat16()
    with torch.no_grad():
        want = norm(x)
    got = norm(x.requires_grad_())
    assert got.dtype == torch.bfloat16
    assert (got != want).float().mean() < 0.01, "rounding of single numbers alone"
    got.sum().backward()
    assert x.grad.dtype == norm.weight.grad.dtype == torch.bfloat16


def test_prompts_of_unlike_lengths_are_continued_as_if_each_were_alone():
    torch.manual_seed(0)
    model = lab.Llama(SMALL)
    prompts = [torch.arange(9), torch.arange(20, 24), torch.arange(30, 36)]
    ids, padding = parts.pad_left(prompts)
    texts = lab.generate(model, ids, 7, padding=padding)
    for prompt, text in zip(prompts, texts, strict=True):
        assert torch.equal(text, lab.generate(model, prompt[None], 7)[0])
    assert lab.generate(model, ids, 30, padding=padding).shape == (3, 30), "past the context"


def test_rows_in_halves_have_the_even_rows_of_each_head_first():
    assert conversion.to_halves(torch.arange(6), 6).tolist() == [0, 2, 4, 1, 3, 5]
    assert conversion.to_halves(torch.arange(8), 4).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_a_token_is_chosen_after_the_temperature_and_within_the_top():
    logits = torch.tensor([1.0, 0.0, 2.0]).expand(4000, 3)
    assert (parts.choose(logits, 0) == 2).all()
    assert (parts.choose(logits, 1.0, 1e-9) == 2).all()
    shares = parts.choose(logits, 4.0, 0.7).bincount(minlength=3) / 4000
    assert shares.tolist() == pytest.approx([0.44, 0.0, 0.56], abs=0.05)


def test_matrices_decay_once_and_gains_never():
    model = lab.Llama(SMALL)
    model.norm.weight.requires_grad_(False)
    matrices, rest = training.decay_groups(model, 0.3)
    assert (matrices["weight_decay"], rest["weight_decay"]) == (0.3, 0.0)
    assert len(matrices["params"]) == len({id(p) for p in matrices["params"]}) == 1 + 2 * 7
    assert len(rest["params"]) == 2 * 2, "the frozen gain is left out"


def test_orthogonal_brings_every_singular_value_close_to_one():
    for shape in ((1, 6, 6), (1, 4, 20), (2, 20, 4), (3, 8, 5)):
        values = torch.linalg.svdvals(muon.orthogonal(torch.randn(shape)))
        assert values.min() > 0.3, "small singular values rise"
        assert values.max() < 1.3
    x = torch.randn(5, 9)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    assert F.cosine_similarity(muon.orthogonal(x[None]).flatten(), (u @ v).flatten(), dim=0) > 0.95


def test_the_polynomial_gives_the_numbers_in_the_text():
    s = 0.01
    seen = []
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        seen.append(s)
    assert [round(x, 2) for x in seen] == [0.03, 0.12, 0.40, 1.09, 0.70]


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 0.1), (torch.bfloat16, 0.01)])
def test_muon_moves_like_torchs(dtype: torch.dtype, share: float):
    torch.manual_seed(0)
    mine, other = (torch.nn.Parameter(torch.ones(6, 4)) for _ in range(2))
    ours = muon.Muon([mine], 0.1, dtype=dtype)
    theirs = torch.optim.Muon([other], 0.1, weight_decay=0.0)
    for _ in range(3):
        mine.grad = other.grad = torch.randn(6, 4)
        ours.step()
        theirs.step()
    moved = mine.detach() - 1
    wanted = other.detach() - 1
    assert (moved - wanted).abs().max() < share * wanted.abs().max(), "theirs uses bfloat16"


def test_every_parameter_belongs_to_muon_or_adamw():
    model = lab.Llama(SMALL)
    for rate in (0.02, None):
        pulls = training.optimizers(model, training.Recipe(1, 1, rate))
        found = [id(p) for one in pulls for group in one.param_groups for p in group["params"]]
        assert sorted(found) == sorted(id(p) for p in model.parameters()), "each once"
        assert len(pulls) == (2 if rate else 1)


# The theory.


def test_a_logit_of_an_untrained_model_has_the_variance_in_the_formula():
    config = parts.Config(500, 64, 2, std=0.05, d_ff=176, tied=False, eps=1e-12)
    with torch.no_grad():
        logits = lab.Llama(config)(parts.random_tokens(config, 8, 32))
    assert logits.var().item() == pytest.approx(64 * 0.05**2, rel=0.1)


def test_witten_bell_equals_its_formula():
    train = np.array([0, 1, 0, 1, 0, 2, 0, 1])
    asked = np.array([0, 1, 0, 2, 2])
    v = 3
    unigram = [(np.sum(train == w) + 3 / v) / (8 + 3) for w in range(v)]
    follow: dict[int, list[int]] = {h: [] for h in range(v)}
    for a, b in pairwise(train):
        follow[int(a)].append(int(b))

    def bigram(h: int, w: int) -> float:
        c = len(follow[h])
        t = len(set(follow[h]))
        return (follow[h].count(w) + t * unigram[w]) / (c + t) if c else unigram[w]

    assert sum(bigram(0, w) for w in range(v)) == pytest.approx(1)
    want = [-np.mean([math.log(unigram[w]) for w in asked[1:]])]
    want.append(-np.mean([math.log(bigram(h, w)) for h, w in pairwise(asked)]))
    assert witten_bell(train, asked, v, 2) == pytest.approx(want)


def test_nats_counts_every_token_but_the_first_once():
    model = lab.Llama(SMALL)
    ids = np.random.default_rng(0).integers(0, 40, 39).astype(np.uint8)
    x = torch.from_numpy(ids.astype(np.int64))
    total = 0.0
    for start in (0, 16, 32):
        part = x[start : start + 17]
        total += F.cross_entropy(model(part[None, :-1])[0], part[1:], reduction="sum").item()
    assert ladder.nats(model, ids, 16) == pytest.approx(total / 38, rel=1e-5)


# Texts.


def test_a_text_is_split_like_nanogpts_and_its_bytes_are_its_ids(tmp_path):
    text = text_of(tmp_path)
    assert len(text.train) == len(PROSE) * 9 // 10
    assert text.decode([*text.train, *text.validation]) == PROSE
    draws = torch.Generator().manual_seed(0)
    batch = text.windows(text.anywhere(5, 7, draws), 7)
    assert batch.shape == (5, 8)
    assert all(text.decode(row) in PROSE for row in batch.tolist())


def test_windows_in_turn_cover_the_text_and_late_ones_stand_late(tmp_path):
    text = text_of(tmp_path)
    last = len(text.train) - 5 - 1
    whole = last // 5  # with any offset the text has as many windows of 5, or one more
    passes = 6
    starts = text.in_turn(passes * whole, 5, torch.Generator().manual_seed(0), spread=0.5)
    assert len(starts) == passes * whole
    assert starts.min() >= 0
    assert starts.max() <= last
    assert starts.unique().numel() > 2 * whole, "each pass cuts elsewhere"
    third = len(starts) // 3
    means = [part.double().mean() / len(text.train) for part in starts.split(third)[:3]]
    assert means[0] + 0.15 < means[1] < means[2] - 0.15


def test_merges_shorten_a_text_and_lose_nothing(tmp_path):
    text = text_of(tmp_path, merges=10)
    assert text.decode([*text.train, *text.validation]) == PROSE
    assert text.train.dtype == np.uint16
    assert text.bytes_per_token > 2
    assert text.vocabulary == 267
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"], "ids' files have no name"


@pytest.mark.parametrize("merges", [0, 20])
def test_the_saved_tokenizer_has_the_same_ids_and_restores_any_text(tmp_path, merges):
    text = text_of(tmp_path, merges)
    tokenizer = tokenizer_of(text)
    for sample in ("the rat", "  two  spaces\n\n", "naïve — 漢字 🙂", "they'll"):
        ids = tokenizer(sample).input_ids
        assert ids == BPE(text.merges).encode(sample)
        assert tokenizer.decode(ids) == sample == text.decode(ids)
    assert tokenizer.eos_token_id == text.vocabulary - 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "It is empty"),
        (b"short" * 100, "at least 10,000"),
        (b"x" * 20_000 + b"\0" + b"x" * 200, "Byte 20,000 is 0"),
        ("é".encode("latin-1") * 20_000, "is not UTF-8"),
        (("hello " * 2000).encode("utf-16"), "the mark of UTF-16"),
        (b"x" * 20_000 + "漢".encode()[:2], "is not UTF-8"),
    ],
)
def test_a_file_that_is_not_text_gives_a_card(tmp_path, data, why):
    with pytest.raises(Card, match="can't be used as the corpus") as card:
        open_text(written(tmp_path, data), 0, tmp_path)
    assert why in card.value.why


def test_the_card_for_a_missing_corpus_names_a_folder_to_put_it_into(tmp_path):
    with pytest.raises(Card, match="can't be used as the corpus") as card:
        open_text(tmp_path / "nothing.txt", 0, tmp_path)
    assert "outputs/" in card.value.why


def test_a_folder_is_no_corpus(tmp_path):
    with pytest.raises(Card, match="can't be used as the corpus") as card:
        open_text(tmp_path, 0, tmp_path)
    assert card.value.why == "It is a folder."


def test_a_bad_corpus_is_reported_once_and_nothing_runs(clone: Clone, tmp_path: Path) -> None:
    path = written(tmp_path, b"x" * 20_000 + b"\0")
    ended = clone.labs("LLM10", "--processes", "2", "--", "--corpus", str(path))
    assert ended.code == 2, ended
    assert ended.err.count("can't be used as the corpus") == 1, "once, not in each process"
    assert ended.out == "", "no experiment ran"


@pytest.mark.parametrize(
    ("data", "prompt"),
    [
        (PROSE, "the"),
        ("\n\n# Été, 1904" + PROSE, "Été"),
        ("「漢字」" + PROSE, "漢字"),
        ("-" * 20_000, "\n"),
    ],
)
def test_the_prompt_is_the_texts_first_word(tmp_path, data, prompt):
    assert prompt_of(text_of(tmp_path, data=data)) == prompt


def test_the_prompt_of_the_plays_is_a_name(tmp_path):
    assert prompt_of(open_text(None, 0, tmp_path)) == "ROMEO\n"


# Saving.


def saved(tmp_path: Path, merges: int = 0) -> tuple[lab.Llama, Path]:
    text = text_of(tmp_path, merges)
    model = lab.Llama(replace(SMALL, vocabulary=text.vocabulary))
    facts = {"loss": 1.0, "bits": 1.0, "judged": 10, "trigram": 1.0, "seed": 0}
    publishing.save(model, text, tmp_path / "model", **facts, **vars(training.Recipe(8, 4)))
    return model, tmp_path / "model"


@pytest.mark.parametrize("merges", [0, 10])
def test_a_saved_model_is_restored_from_its_files_alone(tmp_path, merges):
    model, folder = saved(tmp_path, merges)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    back = conversion.from_transformers(theirs, lab.Llama)
    same = zip(model.parameters(), back.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert back.lm_head.weight is back.embed_tokens.weight
    assert theirs.get_input_embeddings().padding_idx is None, "END's row learns as all others"
    assert theirs.generation_config.pad_token_id == model.config.vocabulary - 1
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "text.txt" in card
    assert "{" not in card.split("```")[0], "every place of the card is filled"
    assert 'tokenizer("the", ' in card, "it begins with the text's first word"


@pytest.mark.parametrize(
    ("unlike", "why"),
    [
        ({"attention_bias": True}, "biases"),
        ({"head_dim": 8}, "heads"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "RoPE"),
    ],
)
def test_a_llama_with_features_that_ours_lacks_gives_a_card(unlike, why):
    shape = {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 1}
    theirs = LlamaForCausalLM(
        LlamaConfig(vocab_size=9, intermediate_size=8, num_key_value_heads=2, **shape, **unlike)
    )
    with pytest.raises(Card, match="no place in our model") as card:
        conversion.from_transformers(theirs, lab.Llama)
    assert why in card.value.why


def test_adapters_of_llm07_tune_a_saved_model(tmp_path):
    _, folder = saved(tmp_path)
    tuned = llm07.insert(models.open_model(folder), models.ALL, rank=2, alpha=4.0)
    base = tuning.fingerprint(models.open_model(folder))
    assert len({file.stat().st_mode for file in folder.iterdir()}) == 1, "others may read all of it"
    text = text_of(tmp_path)
    rows = text.windows(text.anywhere(8, 15, torch.Generator().manual_seed(0)), 15)
    before = tuning.loss_on(tuned, rows).item()
    tuning.tiny_steps(tuned, rows, 10, tuning.adamw(tuned, 0.02))
    assert tuning.loss_on(tuned, rows).item() < before - 0.1
    assert tuning.fingerprint(models.take_out(tuned)) == base


# Training.


RECIPE = training.Recipe(8, 4)


def test_training_lowers_the_loss_and_a_second_call_finds_its_checkpoint(tmp_path, run):
    text = text_of(tmp_path)
    config = replace(SMALL, vocabulary=text.vocabulary)
    first = training.train(run, lab.PARTS, "a", config, text, RECIPE, 0, lambda _: 1.5, (2, 8))
    assert first.losses[-1] < first.losses[0] - 0.5
    assert first.seen == {"2": 1.5, "8": 1.5}
    again = training.train(run, lab.PARTS, "a", config, text, RECIPE, 0, lambda _: 2.5, (2, 8))
    assert (again.losses, again.seen) == (first.losses, first.seen)
    same = zip(first.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert again.model.lm_head.weight is again.model.embed_tokens.weight


def test_training_works_inside_an_experiment_without_gradients(tmp_path, run):
    text = text_of(tmp_path)
    config = replace(SMALL, vocabulary=text.vocabulary)
    with torch.no_grad():
        trained = training.train(run, lab.PARTS, "a", config, text, RECIPE, 0)
    assert trained.losses[-1] < trained.losses[0] - 0.5


TRAINS = '''
@lab.experiment
def trains(run: Run):
    """Eight steps of LLM10."""
    import torch
    from labs.llm10_llama.corpus import open_text
    from labs.llm10_llama.lesson import PARTS, Llama
    from labs.llm10_llama.parts import Config
    from labs.llm10_llama.training import Recipe, train

    text = open_text(run.options.text, 0, run.settings.outputs)
    config = Config(text.vocabulary, 32, 2, 4, 2, 88, context=16)
    recipe = Recipe(8, 4)
    torch.manual_seed(run.seed)
    start = torch.cat([p.detach().flatten() for p in Llama(config).parameters()])
    result = train(run, PARTS, "a", config, text, recipe, run.seed)
    end = torch.cat([p.detach().flatten() for p in result.model.parameters()])
    run.measure("losses", result.losses)
    run.measure("how far every 50th parameter went", (end - start)[::50].tolist())
    run.check("processes", run.accelerator.num_processes, at_least=1)
'''


def test_two_processes_train_like_one(clone: Clone, tmp_path: Path) -> None:
    name = clone.kit_lab(TRAINS, options='text: Path = option("a file", type=Path)')
    path = written(tmp_path, PROSE.encode())

    def results(*words: str) -> dict[str, Any]:
        out = f"outputs/{'-'.join(words) or 'one'}"
        options = ("--precision", "fp32", "--outputs", out, *words)
        ended = clone.labs(name, *options, "--", "--text", str(path))
        assert ended.code == 0, ended
        (file,) = (clone.path / out / name).glob("*/results.json")
        return json.loads(file.read_text())

    alone = results()
    together = results("--processes", "2")
    assert (alone["environment"]["processes"], together["environment"]["processes"]) == (1, 2)
    for which, how in (("losses", {"rel": 1e-4}), ("how far", {"rel": 1e-2, "abs": 1e-3})):
        a, b = (measured(one, which) for one in (alone, together))
        assert b == pytest.approx(a, **how)
        assert max(map(abs, a)) > 0.01


def measured(results: dict[str, Any], start: str) -> list[float]:
    """Return the values of the measurement whose name begins with `start`."""
    experiments = results["experiments"]
    measurements = [one for experiment in experiments for one in experiment["measurements"]]
    return next(one["values"] for one in measurements if one["name"].startswith(start))


def test_excerpts_are_spread_from_the_first_token_to_the_last():
    ids = np.arange(10_000)
    pieces = ladder.excerpts(ids, 3, 100)
    assert pieces.tolist() == [*range(100), *range(4950, 5050), *range(9900, 10_000)]
    short = ladder.excerpts(ids[:50], 2, 100)
    assert short.tolist() == [*range(50), *range(50)], "all of a short text, each time"


@pytest.mark.parametrize(("letters", "all_of_it"), [(320_000, True), (340_000, False)])
def test_all_of_a_short_text_is_validated_during_training(tmp_path, letters, all_of_it):
    path = written(tmp_path, (PROSE * 40)[:letters].encode())
    with (tmp_path / "log.txt").open("w", encoding="utf-8") as log:
        own = Namespace(corpus=path, merges=0)
        settings = Settings(outputs=tmp_path, size="tiny", own=own)
        run = Run(settings, "fp32", Output(log, silent=True), tmp_path)
        assert len(ladder.looked_at(run)) == (letters // 10 if all_of_it else 8 * 2**10)


def test_steps_override_the_recipe(tmp_path):
    path = written(tmp_path, PROSE.encode())
    with (tmp_path / "log.txt").open("w", encoding="utf-8") as log:
        own = Namespace(corpus=path, merges=0, steps=7)
        settings = Settings(outputs=tmp_path, size="tiny", own=own)
        run = Run(settings, "fp32", Output(log, silent=True), tmp_path)
        assert training.sizes(run)[1].steps == 7
        assert not training.by_default(run)


def test_the_model_of_a_sheet_trains_and_writes_the_page_of_samples(tmp_path):
    line = "            fresh = choose(logits)[:, None]  # (B, 1)\n"
    assert line in lab.lab.lesson.source
    text = lab.lab.lesson.source.replace(line, line.replace(")[:, None]", ")[:, None] * 0 + 90"))
    sheet = tmp_path / "llm10.py"
    sheet.write_text(text, encoding="utf-8")
    own = open_sheet(lab.lab.lesson, sheet).exercises
    module = sys.modules["llm10_sheet"]
    assert module.PARTS.step is own["training_step"]
    path = written(tmp_path, PROSE.encode())
    with (tmp_path / "log.txt").open("w", encoding="utf-8") as log:
        options = Namespace(corpus=path, merges=0, steps=2)
        settings = Settings(outputs=tmp_path, size="tiny", own=options)
        run = Run(settings, "fp32", Output(log, silent=True), tmp_path)
        result = training.trained(run, module.PARTS)
    assert isinstance(result.model, module.Llama)
    assert {text for _, text in result.seen.values()} == {"Z" * training.SAMPLE}


def test_mixed_letters_make_few_words(tmp_path):
    path = written(tmp_path, PROSE.encode())
    with (tmp_path / "log.txt").open("w", encoding="utf-8") as log:
        own = Namespace(corpus=path, merges=0, steps=None)
        run = Run(Settings(outputs=tmp_path, own=own), "fp32", Output(log, silent=True), tmp_path)
        assert samples.known_words(run, PROSE) == 1.0
        assert max(samples.shares_if_mixed(run, PROSE)) < 0.2


def test_words_are_known_since_a_sample_only_if_they_are_in_all_later_ones():
    shares = {3: 0.6, 6: 0.2, 12: 0.5, 25: 0.7}
    assert samples.known_since(shares, 0.5) == "from the sample after 12 steps on"
    assert samples.known_since({3: 0.6, 6: 0.2}, 0.5) == "not in the last sample"


@pytest.mark.parametrize("per_token", [1.0, 2.0])
def test_nanogpts_loss_is_a_claim_with_its_own_text_alone(tmp_path, monkeypatch, per_token):
    path = written(tmp_path, PROSE.encode())
    with (tmp_path / "log.txt").open("w", encoding="utf-8") as log:
        own = Namespace(corpus=path, merges=0, steps=None)
        run = Run(Settings(outputs=tmp_path, own=own), "fp32", Output(log, silent=True), tmp_path)
        run.current = Experiment("a", "It falls.")
        assert ladder.beside_nanogpt(run, 1.5) == {}
        assert (run.current.claim, run.current.items) == ("It falls.", [])
        text = replace(ladder.corpus(run), sha256=ladder.TINYSHAKESPEARE, bytes_per_token=per_token)
        monkeypatch.setattr(ladder, "corpus", lambda _: text)
        beside = ladder.beside_nanogpt(run, 1.8 * per_token)
        assert beside == {"nanoGPT, published": pytest.approx(1.88 * per_token)}
        assert "nanoGPT" in run.current.claim
        (gap,) = run.current.measurements
        assert gap.values == [pytest.approx(0.08)]
        assert (gap.verdict, gap.decides) == ("held", True)
        ladder.beside_nanogpt(run, 1.9 * per_token)
        assert run.current.verdict == "not held"


# The closing.


def test_the_closing_reports_the_loss():
    loss = Measurement("nats per token", [1.7], "", Bound())
    text = lab.closing(Results([Experiment("the_loss_passes_the_rungs", "", items=[loss])]))
    assert "1.700 nats per token" in text


def test_a_loss_as_near_as_chance_is_level_with_a_rung():
    losses = {"trigram": 2.0, "4-gram": 1.783, "5-gram": 1.7}
    said = "level with it: 4-grams (1.783); ahead of it: 5-grams (1.700)"
    assert ladder.beside(losses, 1.787) == said
    assert ladder.beside({"trigram": 2.0}, 1.787) == "better than all that we counted"
