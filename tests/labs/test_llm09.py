"""LLM09: edge cases of its parts, its knock-outs and measurements, numbers that the text states."""

import copy
import io
from functools import partial
from types import SimpleNamespace

from labs.llm06_attention import GUESS, KEYS, recall_batch
from labs.llm09_custom_architectures import (
    adapters,
    careless,
    convolutions,
    costs,
    hybrids,
    inspection,
    training,
)
from labs.llm09_custom_architectures import knock_outs as taking
from labs.llm09_custom_architectures import lesson as lab
from labs.llm09_custom_architectures.trap import Trap

import pytest
import torch
import torch.nn.functional as F
from torch import nn

# The module.


def test_a_missing_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = lab.Module().nothing


@pytest.mark.parametrize("base", [lab.Module, nn.Module])
def test_a_taken_name_is_refused_for_a_buffer(base):
    model = careless.network(base, 0)
    model.first.register_buffer("scale", torch.ones(4))  # a buffer may be replaced
    for module, name in ((model, "shift"), (model, "first"), (model.first, "weight")):
        with pytest.raises(KeyError):
            module.register_buffer(name, torch.ones(4))


def test_our_module_can_be_copied():
    """A copy has no dictionaries yet when Python asks for its attributes."""
    model = careless.network(lab.Module, 0)
    again = copy.deepcopy(model)
    for (path, a), (other, b) in zip(model.named_tensors(), again.named_tensors(), strict=True):
        assert path == other
        assert a is not b
        assert torch.equal(a, b)


def test_an_optimizer_takes_our_parameters():
    model = careless.network(lab.Module, 0)
    parameters = [tensor for _, tensor in model.named_parameters()]
    before = model.first.weight.detach().clone()
    careless.compute(model, torch.ones(2, 4)).sum().backward()
    torch.optim.SGD(parameters, 0.1).step()
    assert not torch.equal(model.first.weight, before)
    assert model.first.weight is model.last.weight


def test_a_replaced_parameter_keeps_its_place_as_in_pytorch():
    trees = []
    for base in (lab.Module, nn.Module):
        model = careless.network(base, 0)
        model.register_buffer("scale", torch.ones(1))
        model.first.weight = nn.Parameter(torch.zeros(4, 4))
        model.first.scale = torch.zeros(4)
        trees.append(list(model.state_dict()))
    assert trees[0] == trees[1]


def test_forgotten_tensors_are_found_in_dicts_lists_tuples_and_modules():
    module = nn.Sequential(nn.Linear(2, 2))
    module.plain = {"a": [torch.zeros(1), (torch.zeros(2), 3)], "b": "not a tensor"}
    module[0].hidden = [nn.Linear(2, 2, bias=False)]
    forgotten = ["plain.a.0", "plain.a.1.0", "0.hidden.0.weight"]
    assert inspection.forgotten(module) == forgotten
    assert inspection.forgotten(nn.BatchNorm2d(3)) == []


def test_the_registered_network_computes_what_the_careless_one_computes():
    x = torch.randn(5, 4)
    plain = careless.network(nn.Module, 0)
    registered = careless.registered(nn.Module, 0)
    assert torch.equal(careless.compute(plain, x), careless.compute(registered, x))
    assert inspection.forgotten(registered) == []
    assert "shift" in registered.state_dict()


def test_opening_the_trap_runs_its_code(tmp_path):
    file = io.BytesIO()
    torch.save(Trap(tmp_path / "made"), file)
    file.seek(0)
    torch.load(file, weights_only=False)
    assert (tmp_path / "made").is_dir()


# Convolutions.


@pytest.mark.parametrize("height", [5, 8, 9])
@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (3, 2, 0, 1), (2, 2, 1, 2), (5, 3, 2, 1)])
def test_the_number_of_windows_is_that_of_the_formula(height, shape):
    size, stride, padding, dilation = shape
    out = lab.Convolution(2, 3, *shape)(torch.zeros(1, 2, height, 11))
    want = [(n + 2 * padding - dilation * (size - 1) - 1) // stride + 1 for n in (height, 11)]
    assert list(out.shape[2:]) == want


def test_the_example_of_the_formula_has_four_rows():
    assert lab.Convolution(1, 1, 3, 2, 1, 1)(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 4, 4)


def test_windows_are_a_view():
    x = torch.zeros(1, 1, 6, 6)
    assert lab.windows(x, 3, 2).data_ptr() == x.data_ptr()


def test_a_window_larger_than_its_image_is_an_error():
    with pytest.raises(RuntimeError):
        lab.Convolution(1, 1, size=5, padding=0)(torch.zeros(1, 1, 4, 9))


def test_the_networks_have_the_stated_numbers_of_parameters():
    assert inspection.parameters(lab.CNN()) == 160 + 4640 + 330 == 5130
    assert inspection.parameters(training.mlp()) == 5162
    assert inspection.parameters(lab.CNN(by_place=True)) == 160 + 4640 + 32 * 36 * 10 + 10


def test_a_third_layer_would_see_18_pixels():
    x = torch.rand(64, 1, 40, 40, requires_grad=True)
    maps = x
    for pool in (True, True, False):
        maps = F.conv2d(maps, torch.rand(1, 1, 3, 3), padding=1)
        maps = F.max_pool2d(maps, 2) if pool else maps
    assert convolutions.across(convolutions.seen_by(maps, x, 5)) == 18


def test_framed_digits_move_and_lose_no_pixel():
    x = torch.rand(3, 1, 8, 8)
    for down, right in [(0, 0), (-2, 0), (2, 0), (0, -2), (0, 2)]:
        framed = training.framed(x, down, right)
        assert framed.shape == (3, 1, 12, 12)
        assert torch.equal(framed[:, :, 2 + down : 10 + down, 2 + right : 10 + right], x)
        assert framed.sum() == pytest.approx(x.sum())


def test_all_images_are_shuffled_in_the_same_order():
    x = torch.randn(3, 1, 12, 12)
    shuffled = training.shuffled(x, 0)
    assert torch.equal(shuffled, training.shuffled(x, 0))
    assert not torch.equal(shuffled, x)
    assert torch.equal(shuffled.flatten(1).sort().values, x.flatten(1).sort().values)


def test_a_shift_by_two_moves_the_second_maps_by_one_cell():
    """And so the largest value of each map stays, while the digit is clear of the border."""
    model = lab.CNN().double()
    x = F.pad(torch.rand(1, 1, 4, 4, dtype=torch.float64), (4, 4, 4, 4))
    names = ["conv2"]
    first, moved = (lab.look_inside(model, names, one)["conv2"] for one in (x, x.roll(2, -1)))
    torch.testing.assert_close(moved[..., 2:5], first[..., 1:4])
    assert not torch.allclose(lab.look_inside(model, names, x.roll(1, -1))["conv2"], first)


def test_look_inside_leaves_no_hook_in_a_cnn():
    model = lab.CNN()
    seen = lab.look_inside(model, ["conv1", "conv2"], torch.zeros(2, 1, 12, 12))
    assert seen["conv1"].shape == (2, 16, 12, 12)
    assert seen["conv2"].shape == (2, 32, 6, 6)
    assert inspection.hooks(model) == 0


# LoRA.


@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (2, 2, 0, 1), (3, 1, 2, 2)])
def test_an_adapter_merges_at_any_stride(shape):
    layer = lab.LoraConvolution(lab.Convolution(2, 3, *shape), 2, 5).double()
    nn.init.normal_(layer.up.weight)
    x = torch.randn(2, 2, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(layer.merged()(x), layer(x), rtol=0, atol=1e-12)
    assert not torch.equal(layer.base(x), layer(x))


def test_only_adapters_train_and_can_be_taken_out():
    base = lab.CNN()
    adapter = partial(lab.LoraConvolution, rank=2, alpha=4)
    model = adapters.insert(copy.deepcopy(base), lab.Convolution, adapter)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {
        f"{layer}.{half}.weight" for layer in ("conv1", "conv2") for half in ("down", "up")
    }
    bare = adapters.take_out(model)
    assert list(bare.state_dict()) == list(base.state_dict())
    x = torch.rand(2, 1, 12, 12)
    assert torch.equal(bare(x), base(x))
    assert torch.equal(adapters.merge(model)(x), base(x))


class Wraps(nn.Module):
    """An adapter that contains a layer of the kind that it replaces, as LoRA does."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.extra = nn.Linear(base.in_features, base.out_features)


def test_insert_replaces_each_layer_of_a_kind_once_and_freezes_the_rest():
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), nn.Linear(4, 2))
    first, norm, last = model[0][0], model[0][1], model[1]
    assert adapters.insert(model, nn.Linear, Wraps) is model
    assert (model[0][0].base, model[0][1], model[1].base) == (first, norm, last)
    assert isinstance(model[1].extra, nn.Linear)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {
        f"{path}.extra.{part}" for path in ("0.0", "1") for part in ("weight", "bias")
    }


# The hybrid.


@pytest.mark.parametrize("t", [1, 2, 3, 9])
def test_a_gated_convolution_reads_any_length(t):
    assert lab.GatedConvolution(6, 4)(torch.zeros(2, t, 6)).shape == (2, t, 6)


def test_the_example_of_a_convolution():
    """With k = 2 and w = (1, −1) a channel 3, 5, 4 becomes 3, 2, −1."""
    u = torch.tensor([[[3.0, 5.0, 4.0]]])
    w = torch.tensor([[1.0, -1.0]])
    mixed = F.conv1d(F.pad(u, (1, 0)), w.flip(1)[:, None])
    assert mixed.flatten().tolist() == [3, 2, -1]


def test_arms_have_the_same_number_of_parameters_except_for_kernels():
    counts = {
        arm: inspection.parameters(lab.Hybrid(32, *mixers)) for arm, mixers in lab.ARMS.items()
    }
    assert counts["hybrid"] == counts["attentions"] + 4 * 48
    assert counts["convolutions"] == counts["attentions"] + 2 * 4 * 48


def test_nine_of_120_places_are_within_reach():
    """Keys are at 16, 18 … 30, and the reach is six; a pair begins at 0 to 14."""
    seen = [first >= key - 6 for key in range(16, 32, 2) for first in range(15)]
    assert (sum(seen), len(seen)) == (9, 120)
    # Elsewhere a target is one of those out of reach: as likely right as if none were in sight.
    best = 9 / 120 + GUESS
    assert best == pytest.approx(0.17, abs=0.005)
    # One convolution has a reach of three.
    seen = [first >= key - 3 for key in range(16, 32, 2) for first in range(15)]
    assert sum(seen) == 2
    best = 2 / 120 + GUESS
    assert best == pytest.approx(0.11, abs=0.005)


def test_a_silenced_module_returns_zeros_only_inside_the_block():
    layer = nn.Linear(3, 3)
    x = torch.ones(2, 3)
    before = layer(x)
    with taking.replaced(layer, taking.zeros):
        assert not layer(x).any()
    assert torch.equal(layer(x), before)
    with pytest.raises(RuntimeError), taking.replaced(layer, taking.zeros):
        layer(torch.ones(2, 4))
    assert inspection.hooks(layer) == 0


def test_an_averaged_output_is_the_same_for_all_texts():
    output = torch.randn(3, 4, 5)
    averaged = taking.average(output)
    assert torch.equal(averaged[0], averaged[2])
    torch.testing.assert_close(averaged[0], output.mean(0))


def test_a_mask_reaches_the_attention_of_a_hybrid():
    model = lab.Hybrid(32, *lab.ARMS["hybrid"])
    tokens = recall_batch(4)
    itself = torch.eye(32, dtype=torch.bool)
    before = model(tokens)
    with taking.masked(model.blocks[1].mixer, itself):
        assert not torch.allclose(model(tokens), before)
    assert torch.equal(model(tokens), before)
    assert inspection.hooks(model) == 0


def test_knock_outs_leave_the_model_as_it_was():
    model = lab.Hybrid(32, *lab.ARMS["hybrid"])
    before = copy.deepcopy(model.state_dict())
    right = taking.knock_outs(model, recall_batch(20))
    assert len(right) == 11
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert inspection.hooks(model) == 0


def test_recall_counts_right_targets():
    tokens = recall_batch(3)

    def knows(given):
        logits = torch.zeros(*given.shape, 32)
        logits[:, KEYS] = F.one_hot(given[:, 17::2], 32).float()
        return logits

    assert training.recall(knows, tokens) == 1
    assert training.recall(lambda given: -knows(given), tokens) == 0


# Costs.


def test_eight_layers_store_keys_and_values_or_three_vectors():
    assert costs.stored(8) == 8 * 2 * 64 * 4096 * 4 / 1e6
    assert costs.stored(0) == 8 * 3 * 64 * 4 / 1e6


def test_a_cost_has_time_and_the_memory_of_its_scores():
    attention = hybrids.CausalAttention(costs.WIDTH)
    small, large = (costs.cost({"own": attention}, t)["own"] for t in (128, 256))
    assert small.milliseconds > 0
    assert large.megabytes > 3 * small.megabytes > 3 * 4 * 128**2 / 1e6


def test_growth_is_computed_from_the_measured_costs():
    recorded = {}

    def record(name, value, **_):
        recorded[name] = value

    run = SimpleNamespace(check=record, measure=record, table=lambda *_: None)
    kernel = [costs.Cost(4.0**i, 2.0**i) for i in range(5)]
    plain = [costs.Cost(8.0**i, 4.0**i) for i in range(5)]
    convolution = [costs.Cost(2.0**i, 2.0**i) for i in range(5)]
    measured = {"plain": plain, "kernel": kernel, "convolution": convolution}
    assert costs.check_growth(run, measured) == 16
    assert recorded["memory of 4,096 ÷ 2,048 tokens: all scores stored"] == 4
    assert recorded["time of PyTorch's kernel ÷ convolution: longest text ÷ shortest"] == 16
