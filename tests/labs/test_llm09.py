"""LLM09: edge cases of its parts, the reader and broken files, numbers that the text states."""

import json
import pickle

from labs.llm07_lora import LoraLinear
from labs.llm09_custom_architectures import inspection, training
from labs.llm09_custom_architectures import lesson as lab
from labs.llm09_custom_architectures.trap import Trap

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

# What is registered.


def test_forgotten_tensors_are_found_in_dicts_lists_tuples_and_modules():
    module = nn.Sequential(nn.Linear(2, 2))
    module.plain = {"a": [torch.zeros(1), (torch.zeros(2), 3)], "b": "not a tensor"}
    module[0].hidden = [nn.Linear(2, 2, bias=False)]
    assert lab.forgotten(module) == ["plain.a.0", "plain.a.1.0", "0.hidden.0.weight"]
    assert lab.forgotten(nn.BatchNorm2d(3)) == []


def test_the_careful_module_computes_what_the_careless_one_computes():
    torch.manual_seed(0)
    careless = lab.Careless()
    torch.manual_seed(0)
    careful = lab.Careful()
    x = torch.randn(5, 4)
    assert torch.equal(careless(x), careful(x))
    assert set(careful.state_dict()) == {
        "scale",
        "first.weight",
        "last.weight",
        "layers.0.weight",
        "layers.0.bias",
    }


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


# Convolutions.


@pytest.mark.parametrize("height", [5, 8, 9])
@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (3, 2, 0, 1), (2, 2, 1, 2), (5, 3, 2, 1)])
def test_the_number_of_windows_is_that_of_the_formula(height, shape):
    size, stride, padding, dilation = shape
    layer = lab.Convolution(2, 3, *shape)
    out = layer(torch.zeros(1, 2, height, 11))
    want = [(n + 2 * padding - dilation * (size - 1) - 1) // stride + 1 for n in (height, 11)]
    assert list(out.shape[2:]) == want


def test_windows_are_a_view():
    x = torch.zeros(1, 1, 6, 6)
    assert lab.windows(x, 3, 2).data_ptr() == x.data_ptr()


def test_halving_is_max_pooling():
    x = torch.randn(2, 3, 8, 6)
    assert torch.equal(lab.halve(x), F.max_pool2d(x, 2))


def test_a_window_larger_than_its_image_is_an_error():
    with pytest.raises(RuntimeError):
        lab.Convolution(1, 1, size=5, padding=0)(torch.zeros(1, 1, 4, 9))


@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (2, 2, 0, 1), (3, 1, 2, 2)])
def test_an_adapter_is_two_convolutions_at_any_stride(shape):
    layer = lab.Convolution(2, 3, *shape).double()
    base = layer.linear
    x = torch.randn(2, 2, 9, 7, dtype=torch.float64)
    plain = layer(x)
    layer.linear = LoraLinear(base, 2, 5)
    nn.init.normal_(layer.linear.B)
    down, up = lab.adapter_kernels(layer)
    _, stride, padding, dilation = shape
    added = F.conv2d(F.conv2d(x, down, None, stride, padding, dilation), up)
    torch.testing.assert_close(layer(x) - plain, added, rtol=0, atol=1e-12)


def test_batch_normalisation_returns_the_dtype_of_its_weight():
    norm = lab.BatchNorm(3)
    assert norm(torch.randn(2, 3, 4, 4, dtype=torch.bfloat16)).dtype == torch.float32
    assert norm.double()(torch.randn(2, 3, 4, 4)).dtype == torch.float64


# The hybrid.


@pytest.mark.parametrize("t", [1, 2, 3, 9])
def test_a_gated_convolution_reads_any_length(t):
    mixer = lab.GatedConvolution(6, 4)
    assert mixer(torch.zeros(2, t, 6)).shape == (2, t, 6)


def test_arms_have_the_same_number_of_parameters_except_for_kernels():
    counts = {
        arm: lab.parameters(lab.Hybrid(lab.HybridConfig(mixers=mixers)))
        for arm, mixers in lab.ARMS.items()
    }
    assert counts["hybrid"] == counts["hybrid, reversed"] == counts["attention"] + 4 * 64
    assert counts["convolution"] == counts["attention"] + 2 * 4 * 64


def test_nine_of_120_places_are_within_reach():
    """Keys are at 16, 18 … 30, and the reach is six; a pair begins at 0 to 14."""
    seen = [first >= key - 6 for key in range(16, 32, 2) for first in range(15)]
    assert (sum(seen), len(seen)) == (9, 120)


def test_padding_is_refused():
    model = lab.Hybrid(lab.HybridConfig())
    ids = torch.zeros(1, 4, dtype=torch.int64)
    model(ids, attention_mask=torch.ones(1, 4))
    with pytest.raises(ValueError, match="padding"):
        model(ids, attention_mask=torch.tensor([[0, 1, 1, 1]]))


def test_the_hybrid_is_saved_and_opened_by_the_auto_classes(tmp_path):
    model = lab.Hybrid(lab.HybridConfig(vocab_size=11, mixers=("convolution",), kernel=2))
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.vocab_size, list(config.mixers), config.kernel) == (11, ["convolution"], 2)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, one in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], one), name
    ids = torch.arange(5)[None]
    how = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}
    written = again.generate(ids, max_new_tokens=3, **how)
    assert torch.equal(written, training.greedy(model, ids, 3))


def test_a_training_loads_its_state_and_leaves_missing_parts_unchanged():
    one = training.Training(lab.CNN, 0)
    one.step()
    state = {
        name: json.loads(json.dumps(part)) if name == "schedule" else part
        for name, part in one.state().items()
    }
    state["weights"] = {name: part.detach().clone() for name, part in state["weights"].items()}
    state["buffers"] = {name: part.clone() for name, part in state["buffers"].items()}
    other = training.Training(lab.CNN, 1)
    before = other.model.head.weight.clone()
    other.load({})
    assert torch.equal(other.model.head.weight, before)
    other.load(state)
    for name, part in one.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], part), name


def test_all_images_are_shuffled_in_the_same_order():
    x = torch.randn(3, 1, 8, 8)
    one, two = training.shuffled(x, 0), training.shuffled(x, 0)
    assert torch.equal(one, two)
    assert not torch.equal(one, x)
    assert torch.equal(one.flatten(1).sort().values, x.flatten(1).sort().values)


def test_opening_the_trap_runs_its_code(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "made")))
    assert (tmp_path / "made").is_dir()


def test_the_mlp_is_as_large_as_the_cnn():
    assert lab.parameters(training.mlp()) == 6160
    assert lab.parameters(lab.CNN()) == 6138


def test_look_inside_leaves_no_hook_in_a_cnn():
    model = lab.CNN()
    seen = lab.look_inside(model, ["conv1", "conv2"], torch.zeros(2, 1, 8, 8))
    assert seen["conv1"].shape == (2, 16, 8, 8)
    assert seen["conv2"].shape == (2, 32, 4, 4)
    assert inspection.hooks(model) == 0
