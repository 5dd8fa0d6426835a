"""LLM07: edge cases of the layer and its adapter, the training loop, and the data of the task."""

import json
import math
from types import SimpleNamespace
from typing import Any

from labs.kit import Card, assets
from labs.kit.measure import peak_bytes
from labs.llm07_lora import deeper, models, plays, records, training, updates
from labs.llm07_lora import lesson as lab
from tests.conftest import Clone

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
)


def layer(out=4, width=6, rank=2, alpha=6.0, dtype=torch.float64):
    torch.manual_seed(0)
    lora = lab.LoraLinear(nn.Linear(width, out).to(dtype), rank, alpha)
    nn.init.normal_(lora.B)
    return lora


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(6, 6)
        self.lora_norm = nn.LayerNorm(6)
        self.mlp = nn.ModuleDict({"up_proj": nn.Linear(6, 9), "down_proj": nn.Linear(9, 6)})

    def forward(self, x):
        return self.mlp["down_proj"](self.mlp["up_proj"](self.lora_norm(self.q_proj(x))))


# The layer.


@pytest.mark.parametrize("shape", [(6,), (0, 6), (3, 6), (2, 5, 6), (2, 1, 3, 6)])
def test_the_layer_computes_what_its_merged_weight_computes_for_any_batch(shape):
    lora = layer()
    x = torch.randn(*shape, dtype=torch.float64)
    want = F.linear(x, lora.base.weight + 3 * lora.B @ lora.A, lora.base.bias)
    torch.testing.assert_close(lora(x), want, rtol=0, atol=1e-12)


def test_the_layer_never_makes_a_matrix_of_out_by_in():
    wide = lab.LoraLinear(nn.Linear(1000, 1000, bias=False), 1, 1).requires_grad_(False)
    made = peak_bytes(lambda: wide(torch.zeros(1, 1000)))
    assert made < 4 * 1000 * 1000 / 10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_an_adapter_has_the_dtype_of_its_base_and_starts_at_zero(dtype):
    lora = lab.LoraLinear(nn.Linear(6, 4).to(dtype), 2, 4)
    assert lora.A.dtype == lora.B.dtype == dtype
    assert lora.delta().abs().max() == 0
    assert 0 < lora.A.abs().max() <= 1 / math.sqrt(6) + 0.01


@pytest.mark.parametrize("keep", [True, False])
def test_a_merged_layer_refuses_to_merge_and_an_unmerged_layer_to_unmerge(keep):
    lora = layer()
    x = torch.randn(3, 6, dtype=torch.float64)
    want = lora(x)
    with pytest.raises(RuntimeError, match="not merged"):
        lora.unmerge()
    lora.merge(keep)
    torch.testing.assert_close(lora(x), want, rtol=0, atol=1e-12)
    with pytest.raises(RuntimeError, match="already merged"):
        lora.merge(keep)
    torch.testing.assert_close(lora(x), want, rtol=0, atol=1e-12)
    lora.unmerge()
    torch.testing.assert_close(lora(x), want, rtol=0, atol=1e-12)


def test_a_saved_weight_is_restored_bit_for_bit_where_subtraction_rounds():
    lora = layer(64, 64, dtype=torch.float32)
    before = lora.base.weight.clone()
    lora.merge(keep=True)
    lora.unmerge()
    assert torch.equal(lora.base.weight, before)
    lora.merge()
    lora.unmerge()
    assert not torch.equal(lora.base.weight, before)
    torch.testing.assert_close(lora.base.weight, before, rtol=0, atol=1e-6)


# The layer in a model.


def test_insertion_finds_layers_by_their_last_name_and_take_out_undoes_it():
    model = Two()
    before = {name: id(module) for name, module in model.named_modules()}
    x = torch.randn(2, 6)
    want = model(x)
    lab.insert(model, ("q_proj", "down_proj"), 2, 4)
    assert set(lab.adapters(model)) == {"q_proj", "mlp.down_proj"}
    assert torch.equal(model(x), want)
    models.take_out(model)
    assert {name: id(module) for name, module in model.named_modules()} == before


def test_inserting_twice_is_the_same_as_inserting_once():
    model = lab.insert(lab.insert(Two(), ("q_proj",), 2, 4), ("q_proj",), 2, 4)
    assert set(lab.adapters(model)) == {"q_proj"}


def test_a_target_that_the_model_lacks_is_an_error():
    with pytest.raises(ValueError, match="no linear layer"):
        lab.insert(Two(), ("query",), 2, 4)


def test_only_a_and_b_are_trained_and_the_fingerprint_covers_the_other_weights():
    model = lab.insert(Two(), ("q_proj",), 2, 4)
    assert len(training.trainable(model)) == 2
    before = training.fingerprint(model)
    with torch.no_grad():
        model.q_proj.A.add_(1)
    assert training.fingerprint(model) == before
    with torch.no_grad():
        model.lora_norm.bias[3] += 1e-7
    assert training.fingerprint(model) != before


@pytest.mark.parametrize("options", [{"use_rslora": True}, {"alpha_pattern": {"q_proj": 7}}])
def test_an_adapter_with_another_scaling_is_refused(tmp_path, options):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(models.QV), **options)
    get_peft_model(models.glass(), config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="scaled otherwise"):
        lab.load(models.glass(), tmp_path)


def test_peft_reads_what_we_save(tmp_path):
    from peft import LoraConfig

    model = lab.insert(models.glass(), models.QV, 3, 5)
    lab.save(model, tmp_path)
    config = LoraConfig.from_pretrained(tmp_path)
    assert (config.r, config.lora_alpha) == (3, 5)
    assert set(config.target_modules) == set(models.QV)
    again = lab.load(models.glass(), tmp_path)
    for key, tensor in lab.adapter_state(model).items():
        assert torch.equal(tensor, lab.adapter_state(again)[key])


# Swapping.


def two_adapters():
    """Return a model, its adapter's state, and the state of another adapter of the same shapes."""
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = models.randomize(lab.insert(models.glass(), models.QV, 3, 5))
        states.append(lab.adapter_state(model))
    return model, states[1], states[0]


def same_states(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_swap_returns_the_old_adapter_and_swapping_back_restores_every_bit():
    model, own, other = two_adapters()
    given = {key: tensor.clone() for key, tensor in other.items()}
    rows = plays.rows().test[:2]
    bare = training.fingerprint(model)
    with torch.no_grad():
        before = model(rows).logits
        assert same_states(lab.swap(model, given), own)
        assert same_states(lab.adapter_state(model), other)
        assert not torch.equal(model(rows).logits, before)
        assert training.fingerprint(model) == bare
        for layer in lab.adapters(model).values():
            layer.A.add_(1)
        assert same_states(given, other), "the model doesn't share memory with the state"
        lab.swap(model, own)
        assert torch.equal(model(rows).logits, before)


@pytest.mark.parametrize("problem", ["missing", "extra", "rank", "merged"])
def test_a_swap_refuses_what_does_not_fit_and_changes_nothing(problem):
    model, own, other = two_adapters()
    last = next(reversed(other))
    if problem == "missing":
        del other[last]
    elif problem == "extra":
        other[last.replace("v_proj", "x_proj")] = other[last]
    elif problem == "rank":
        other[last] = other[last][:, :2]
    else:
        for layer in lab.adapters(model).values():
            layer.merge()
    with pytest.raises(ValueError, match=r"another rank|merged"):
        lab.swap(model, other)
    assert same_states(lab.adapter_state(model), own)


# low_rank, energy, cut, four bits.


@pytest.mark.parametrize("shape", [(5, 5), (9, 4), (4, 9)])
def test_the_error_of_a_low_rank_product_is_the_remaining_energy(shape):
    delta = torch.randn(*shape, dtype=torch.float64)
    a, b = lab.low_rank(delta, 2)
    left = (delta - b @ a).square().sum() / delta.square().sum()
    assert left.item() == pytest.approx(1 - updates.energy(delta)[1].item(), abs=1e-6)


def test_a_matrix_of_rank_one_has_all_its_energy_in_one_direction():
    product = torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 7))
    assert updates.energy(product)[0] > 1 - 1e-6


def test_all_directions_of_an_update_are_the_update():
    model = models.glass()
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    layer = (
        updates.cut(model, 0, 64).model.layers[2].self_attn.k_proj
    )  # a key projection is 64 × 128
    want = model.model.layers[2].self_attn.k_proj.weight
    torch.testing.assert_close(layer.base.weight + layer.delta(), want, rtol=0, atol=1e-5)
    parts = [updates.cut(model, *part) for part in ((0, 8), (8, 64))]
    layers = [part.model.layers[2].self_attn.k_proj for part in parts]
    both = layers[0].base.weight + layers[0].delta() + layers[1].delta()
    torch.testing.assert_close(both, want, rtol=0, atol=1e-5)
    scaled = updates.cut(model, 8, 16, like=4).model.layers[2].self_attn.k_proj.delta()
    shrunk = updates.shrink(model, 4).model.layers[2].self_attn.k_proj.weight
    first = updates.cut(model, 0, 4).model.layers[2].self_attn.k_proj.delta()
    for change in (scaled, shrunk - layers[0].base.weight):
        torch.testing.assert_close(change.norm(), first.norm(), rtol=1e-4, atol=0)


def test_there_are_sixteen_levels_from_minus_one_to_one_and_zero_is_exact():
    levels = deeper.normal_levels()
    assert len(levels) == len(levels.unique()) == 16
    assert levels[0] == -1
    assert levels[-1] == 1
    assert (levels == 0).sum() == 1


def test_a_matrix_of_levels_survives_four_bits():
    levels = deeper.normal_levels()
    linear = nn.Linear(64, 6, bias=False)
    codes = torch.randint(16, (6, 64), generator=torch.Generator().manual_seed(0))
    codes[:, 0] = 15  # the largest level
    with torch.no_grad():
        linear.weight.copy_(levels[codes] * torch.arange(1.0, 7)[:, None])
    quantized = deeper.QuantizedLinear(linear, levels)
    torch.testing.assert_close(quantized.weight, linear.weight.detach(), rtol=1e-6, atol=0)
    x = torch.randn(3, 64)
    torch.testing.assert_close(quantized(x), linear(x))


def dora(dtype=torch.float64):
    torch.manual_seed(0)
    layer = deeper.DoraLinear(nn.Linear(6, 4).to(dtype), 2, 6.0)
    nn.init.normal_(layer.B)
    with torch.no_grad():
        layer.magnitude.mul_(torch.linspace(0.5, 2, 4))
    return layer


def test_dora_starts_as_its_base():
    linear = nn.Linear(6, 4).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    torch.testing.assert_close(deeper.DoraLinear(linear, 2, 4)(x), linear(x))


@pytest.mark.parametrize("keep", [True, False])
def test_dora_merged_computes_what_it_computes_unmerged_and_back(keep):
    layer = dora()
    weight = layer.base.weight.clone()
    x = torch.randn(5, 6, dtype=torch.float64)
    want = layer(x)
    with pytest.raises(RuntimeError, match="not merged"):
        layer.unmerge()
    layer.merge(keep)
    torch.testing.assert_close(layer(x), want, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.base(x), want, rtol=0, atol=1e-12)
    with pytest.raises(RuntimeError, match="already merged"):
        layer.merge(keep)
    torch.testing.assert_close(layer(x), want, rtol=0, atol=1e-12)
    layer.unmerge()
    torch.testing.assert_close(layer(x), want, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.base.weight, weight, rtol=0, atol=1e-12)


def test_a_saved_weight_under_dora_returns_bit_for_bit():
    layer = dora(torch.float32)
    weight = layer.base.weight.clone()
    layer.merge(keep=True)
    assert not torch.equal(layer.base.weight, weight)
    layer.unmerge()
    assert torch.equal(layer.base.weight, weight)


def test_an_adapter_with_magnitudes_is_not_saved_as_plain_lora(tmp_path):
    model = deeper.with_dora(lab.insert(models.glass(), models.QV, 3, 5))
    with pytest.raises(TypeError, match="magnitudes would be lost"):
        lab.save(model, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["r = 4", "full"])
def test_a_scaled_update_is_that_share_of_the_update(name):
    model = deeper.build(deeper.ARMS[name])
    training.tiny_steps(model, plays.rows().training[:4], 2, training.adamw(model, 1e-2))

    def weight(model):
        layer = model.model.layers[1].mlp.up_proj
        return layer.base.weight + layer.delta() if hasattr(layer, "base") else layer.weight

    base = weight(models.glass())
    change = weight(model) - base
    assert change.abs().max() > 1e-3
    for t in (0.0, 0.25, 1.0):
        got = weight(updates.scaled(model, t)) - base
        torch.testing.assert_close(got, t * change, rtol=0, atol=1e-6)


def test_a_merge_in_bf16_rounds_and_in_float32_it_hardly_does():
    model = models.randomize(lab.insert(models.glass(), models.QV, 3, 5))
    rho, vanished = updates.rounding(model, torch.bfloat16)
    assert 1e-4 < rho < 0.5
    assert 0 < vanished < 0.5
    fine, gone = updates.rounding(model, torch.float32)
    assert fine < 1e-5
    assert gone < vanished


def test_a_parabola_is_lowest_where_its_three_values_say():
    for lowest in (0.8, 1.0, 2.3):
        values = [(x - lowest) ** 2 for x in range(4)]
        assert deeper.lowest(values) == pytest.approx(lowest)
    assert deeper.lowest([3.0, 2.0, 1.0]) == 2, "no minimum between: the lower end"


def test_a_lead_needs_more_than_four_standard_errors():
    def exam(trained, prompted):
        it = records.Exam.__new__(records.Exam)
        it.quiz = SimpleNamespace(trips=[(3, "Oslo", "Friday")] * 24)
        replies = {records.TRAINED: trained, records.EXAMPLES: prompted, records.SHORT: 0}
        it.replies = {name: ["OSL-FRI-3"] * n + ["?"] * (24 - n) for name, n in replies.items()}
        return it.lead()

    assert exam(24, 0) > 0.5
    assert exam(24, 20) < 0
    assert exam(12, 6) < 0


# Training: N processes give the losses of one. The first loss is PyTorch's own mean.

TRAINS = '''
import torch
from labs.llm07_lora import lesson as lora
from labs.llm07_lora import models, plays, training


@lab.experiment
def adapts(run: Run):
    """Five steps of an adapter on glass, on rows with different numbers of labels."""
    torch.manual_seed(run.seed)
    model = lora.insert(models.glass(), models.ALL, 2, 4)
    rows = plays.rows().training
    data = []
    for step in range(5):
        tokens = rows[4 * step : 4 * step + 4, :32]
        labels = tokens.clone()
        labels[0, 4:] = labels[1, :30] = -100
        data.append((tokens, labels))
    done = training.train(run, model, data, 5, 1e-2, "adapts")
    run.measure("losses", done.losses)
    run.measure("test", training.test_loss(run, done.model, plays.rows().test[:4]))
    run.measure("bytes", done.optimizer_bytes)
    tokens, labels = data[0]
    logits = models.glass()(tokens).logits[:, :-1].flatten(0, 1)
    want = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten())
    run.measure("first", want.item())
    run.check("processes", run.accelerator.num_processes, at_least=1)
'''


def adapted(clone: Clone, lesson: str, *words: str) -> dict[str, Any]:
    out = f"outputs/{'-'.join(words) or 'one'}"
    ended = clone.labs(lesson, "--precision", "fp32", "--outputs", out, *words)
    assert ended.code == 0, ended
    (folder,) = (clone.path / out / lesson).iterdir()
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    experiments = results["experiments"]
    adapts = next(found for found in experiments if found["name"] == "adapts")
    assert results["environment"]["processes"] == (2 if words else 1)
    return {found["name"]: found["values"] for found in adapts["measurements"]}


def test_two_processes_train_as_one_although_they_share_labels_unequally(clone: Clone) -> None:
    lesson = clone.kit_lab(TRAINS)
    alone = adapted(clone, lesson)
    together = adapted(clone, lesson, "--processes", "2")
    assert alone["losses"][0] == pytest.approx(alone["first"][0], rel=1e-5)
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert together["test"] == pytest.approx(alone["test"], rel=1e-4)
    assert alone["bytes"] == [2 * 4 * 2 * 9212]  # two float32 moments; rank 1 has 9,212


# The task.


def test_held_out_combinations_are_new_but_all_their_parts_are_trained_on():
    known, held = records.trips()
    assert (len(known), len(held)) == (504, 168)
    assert not set(known) & set(held)
    for part in range(3):
        assert {trip[part] for trip in held} == {trip[part] for trip in known}


def test_all_records_differ_and_no_request_contains_its_record():
    everything = [trip for part in records.trips() for trip in part]
    assert len({records.record(trip) for trip in everything}) == 672
    for way in records.WORDINGS:
        assert all(records.record(trip) not in way.format(*trip) for trip in everything)
        assert len({way.format(*trip) for trip in everything}) == 672


def test_only_the_record_and_the_end_are_labels():
    tokenizer = AutoTokenizer.from_pretrained(assets.smollm2())
    ((tokens, labels),) = records.training_batches(tokenizer, 6, 1, seed=0)
    assert tokens.shape == labels.shape
    expected = {records.record(trip) for trip in records.trips()[0]}
    for row, wanted in zip(tokens, labels, strict=True):
        supervised = wanted != -100
        assert torch.equal(row[supervised], wanted[supervised])
        *answer, end = row[supervised].tolist()
        assert tokenizer.decode(answer) in expected
        assert end == tokenizer.eos_token_id
        start = supervised.int().argmax()
        assert supervised[start : start + len(answer) + 1].all(), "in one piece"
        assert tokenizer.decode(row[:start]).endswith("<|im_start|>assistant\n")


def test_rows_of_plays_for_training_validation_and_test_are_disjoint():
    train, valid, test = plays.rows()
    assert train.shape[1] == plays.LENGTH
    assert valid.shape == test.shape == (64, plays.LENGTH)
    rows = [{tuple(row.tolist()) for row in part} for part in (train, valid, test)]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]


def test_shared_beginnings_change_no_answer():
    model = models.glass()
    tokenizer = models.glass_tokenizer()
    tokenizer.eos_token = tokenizer.pad_token = "\n"
    prompts = ["Alice was beginning to", "Alice was", "Alice was very tired of sitting"]
    together = records.answers(model, tokenizer, prompts)
    assert together == [records.answers(model, tokenizer, [prompt])[0] for prompt in prompts]


def test_shares_count_cities_days_numbers_and_exact_records():
    trips = [(3, "Oslo", "Friday"), (4, "Rome", "Monday")]
    said = ["OSL-FRI-4", "ROM-MON-4"]
    assert records.shares_right(said, trips) == [1.0, 1.0, 0.5, 0.5]
    assert records.shares_right(["", "A-B-4-5"], trips) == [0.0, 0.0, 0.5, 0.0]


# Other models.


def run_with_model(folder):
    options = SimpleNamespace(model=str(folder))
    return SimpleNamespace(options=options, online=False, device=torch.device("cpu"))


def test_a_model_without_an_end_token_learns_records_that_end_with_the_line(tmp_path):
    characters = "\n".join(["", *sorted(map(chr, range(32, 127)))]).split("\n")
    ids = {one or "\n": i for i, one in enumerate(characters)}
    tokenizer = Tokenizer(tokenizer_models.WordLevel(ids, unk_token=" "))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
    config = LlamaConfig(vocab_size=len(ids), eos_token_id=None, **shape, **heads)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model, tokenizer = models.smollm2(run_with_model(tmp_path))
    ((tokens, labels),) = records.training_batches(tokenizer, 3, 1, seed=0)
    assert tokens.max() < len(ids)
    expected = {f"{records.record(trip)}\n" for trip in records.trips()[0]}
    assert all(tokenizer.decode(row[row != -100]) in expected for row in labels)
    training.tiny_steps(lab.insert(model, models.ALL, 2, 4), tokens, 1, training.adamw(model, 1e-2))
    prompts = [records.prompt(tokenizer, "Seats"), records.prompt(tokenizer, "More seats")]
    assert len(records.answers(model, tokenizer, prompts)) == 2


def test_a_model_that_is_not_made_like_llama_is_a_card(tmp_path):
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(assets.smollm2()).save_pretrained(tmp_path)
    with pytest.raises(Card, match="isn't made like Llama"):
        models.smollm2(run_with_model(tmp_path))
