"""LLM09+: the reader and broken files, batch normalisation, resuming, steps, the Auto classes."""

import json

from labs.llm06_attention import recall_batch
from labs.llm09_custom_architectures import convolutions, distances, inspection, resuming, writing
from labs.llm09_custom_architectures import deeper as lab

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

# The reader.


@given(st.lists(st.tuples(st.sampled_from(sorted(lab.DTYPES)), st.lists(st.integers(0, 4)))))
def test_our_reader_reads_what_the_library_writes(entries):
    state = {
        f"t{i}": torch.randint(2, shape[:3]).to(lab.DTYPES[kind])
        for i, (kind, shape) in enumerate(entries)
    }
    got = lab.read_safetensors(safetensors.torch.save(state))
    assert got.keys() == state.keys()
    for name, want in state.items():
        assert got[name].dtype == want.dtype
        assert torch.equal(got[name], want)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_a_value_error(data):
    try:
        lab.read_safetensors(data)
    except ValueError:
        return
    assert len(data) >= 8


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 9]},
        {"dtype": "F32", "shape": [2], "data_offsets": ["0", "8"]},
        {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]},
        {"dtype": None, "shape": [2], "data_offsets": None},
        None,
    ],
)
def test_a_strange_header_is_a_value_error(entry):
    text = json.dumps({"w": entry}).encode()
    with pytest.raises(ValueError):
        lab.read_safetensors(len(text).to_bytes(8, "little") + text + bytes(8))


# Batch normalisation.


def test_batch_normalisation_returns_the_dtype_of_its_weight():
    norm = lab.BatchNorm(3)
    assert norm(torch.randn(2, 3, 4, 4, dtype=torch.bfloat16)).dtype == torch.float32
    assert norm.double()(torch.randn(2, 3, 4, 4)).dtype == torch.float64


def test_the_example_of_batch_normalisation():
    norm = lab.BatchNorm(1, momentum=1.0, eps=0.0)
    out = norm(torch.tensor([1.0, 3.0]).view(2, 1, 1, 1))
    assert out.flatten().tolist() == [-1, 1]
    assert (norm.mean.item(), norm.var.item()) == (2, 2)


def test_biases_before_norms_are_48_parameters():
    counts = [inspection.parameters(lab.NormedCNN(bias=bias)) for bias in (False, True)]
    assert counts[1] - counts[0] == 48


# Resuming.


def test_a_training_loads_its_state_and_leaves_missing_parts_unchanged():
    one = resuming.Training(lab.NormedCNN, 0)
    one.step()
    state = one.state()
    state["weights"] = {name: part.detach().clone() for name, part in state["weights"].items()}
    state["buffers"] = {name: part.clone() for name, part in state["buffers"].items()}
    other = resuming.Training(lab.NormedCNN, 1)
    before = other.model.head.weight.clone()
    other.load({})
    assert torch.equal(other.model.head.weight, before)
    other.load(state)
    for name, part in one.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], part), name


# Reach and steps.


def test_the_distance_to_the_first_copy():
    tokens = recall_batch(20)
    back = distances.steps_back(tokens)
    assert back.shape == (20, 8)
    for row in range(20):
        for pair in range(8):
            query = 16 + 2 * pair
            assert tokens[row, query] == tokens[row, query - back[row, pair]]
            assert query - back[row, pair] < 16
    assert back.min() >= 2
    assert back.max() <= 30


def test_two_before_the_first_query_is_right_at_three_steps_only():
    tokens = recall_batch(200)
    back = distances.steps_back(tokens)[:, 0]

    def names_place_14(given):
        return torch.nn.functional.one_hot(given.roll(2, 1), 32)

    assert distances.names_two_before(names_place_14, tokens).all()
    assert not distances.names_two_before(lambda given: -names_place_14(given), tokens).any()
    assert torch.equal(tokens[:, 14] == tokens[:, 17], back == 3)


def test_strides_from_the_shape_are_right_for_contiguous_images_only():
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(convolutions.windows_by_shape(x, 3), lab.windows(x, 3))
    assert not torch.equal(convolutions.windows_by_shape(x.mT, 3), lab.windows(x.mT, 3))


def test_the_gradient_is_zero_outside_the_reach():
    model = lab.Hybrid(32, *lab.ORDERS["convolutions"]).double()
    slope = distances.influence(model, 24, 15)
    assert (slope > 0).nonzero().flatten().tolist() == list(range(9, 16))


def test_a_text_can_be_continued_step_by_step():
    mixer = lab.WritingConvolution(6, 4).double()
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    state = mixer.start(2)
    assert state.shape == (2, 3, 6)
    for t in range(9):
        output, state = mixer.step(x[:, t], state)
        torch.testing.assert_close(output, mixer(x)[:, t])


def test_attention_step_by_step_is_attention_at_once():
    attention = lab.CausalAttention(8).double()
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    torch.testing.assert_close(writing.step_by_step(attention, x), attention(x))


# The Auto classes.


def test_padding_is_refused():
    model = lab.HybridForCausalLM(lab.HybridConfig())
    ids = torch.zeros(1, 4, dtype=torch.int64)
    model(ids, attention_mask=torch.ones(1, 4))
    with pytest.raises(ValueError, match="padding"):
        model(ids, attention_mask=torch.tensor([[0, 1, 1, 1]]))


def test_the_hybrid_is_saved_and_opened_by_the_auto_classes(tmp_path):
    model = lab.HybridForCausalLM(lab.HybridConfig(vocab_size=11, mixers=("convolution",)))
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.vocab_size, list(config.mixers)) == (11, ["convolution"])
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    ids = torch.arange(5)[None]
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}
    written = again.generate(ids, max_new_tokens=3, **options)
    assert written.tolist() == lab.write_greedily(model.model, ids, 3)
