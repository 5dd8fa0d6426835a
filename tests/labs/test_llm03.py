"""LLM03: parts on unusual shapes, the plane, and what the lesson says of weights.

tests/labs/test_checks.py has the wrong solutions of each exercise.
"""

import math

from labs.kit import Mistake
from labs.llm03_neural_networks import lesson as lab
from labs.llm03_neural_networks import plane, shapes, view_data
from tests.labs.solutions import check_wrong

import pytest
import torch
import torch.nn.functional as F
from torch import nn


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def returns(result):
    """Return a Linear whose methods all return this."""

    class Returns(lab.Linear):
        def reset_parameters(self):
            return result

        def forward(self, _x):
            return result

    return Returns


@pytest.mark.parametrize("part", list(lab.lab.exercises))
@pytest.mark.parametrize(
    "result",
    [None, "text", 7, [], (None,) * 3, torch.zeros(3), torch.full((4, 4), torch.nan).double()],
    ids=str,
)
def test_a_part_that_returns_anything_else_is_a_mistake(part, result):
    wrong = returns(result) if "." in part else lambda *_: result
    with pytest.raises(Mistake):
        check_wrong(lab.lab.lesson, part, wrong)


# The plane.


def test_the_shoelace_formula_gives_known_areas():
    triangle = torch.tensor([[0.0, 0], [4, 0], [0, 3]])
    assert plane.area(triangle) == 6
    assert plane.area(triangle.flip(0)) == 6, "in either direction"


def test_the_matrices_do_what_their_names_say():
    m = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in plane.MOVES.items()}
    eye = torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(m["rotation"] @ m["rotation"].T, eye)
    torch.testing.assert_close(m["projection"] @ m["projection"], m["projection"])
    torch.testing.assert_close(m["reflection"] @ m["reflection"], eye)
    determinants = [round(float(matrix.det()), 9) for matrix in m.values()]
    assert determinants == [1, 1, 1, 0.75, -1, 0]


def test_the_examples_of_the_text_are_right():
    point = torch.tensor([[2.0, 3.0]])
    assert lab.move(point, torch.tensor(plane.SHEAR)).tolist() == [[5.0, 3.0]]
    layer = lab.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0, 2], [0, -1, 1]]))
        layer.bias.copy_(torch.tensor([10.0, 20]))
        x = torch.tensor([[1.0, 2, 3], [0, 1, 0]])
        assert layer(x)[0].tolist() == [17.0, 21.0]
        g = torch.tensor([[1.0, 10.0], [2, 0]])
        dx, dw, dbias = lab.linear_backward(x, layer.weight, g)
    assert dx.tolist() == [[1.0, -10.0, 12.0], [2.0, 0.0, 4.0]]
    assert dw.tolist() == [[1.0, 4.0, 3.0], [10.0, 20.0, 30.0]]
    assert dbias.tolist() == [3.0, 10.0]


def test_the_table_of_the_view_has_rank_and_singular_values():
    _, _, columns, rows = view_data.plane(plane.MOVES)
    by_name = {row[0]: dict(zip(columns[1:], row[1:], strict=True)) for row in rows}
    assert by_name["projection"]["rank"] == 1
    assert by_name["projection"]["shortest stretch"] == 0
    golden = (1 + math.sqrt(5)) / 2
    assert by_name["shear"]["longest stretch"] == pytest.approx(golden)


# Shapes.


def test_four_of_the_twelve_sums_are_errors_and_all_agree_with_pytorch():
    ours = shapes.shapes_or_errors(lab.broadcast_shape, shapes.TWELVE)
    assert ours == shapes.shapes_or_errors(shapes.pytorchs_shape, shapes.TWELVE)
    assert len(ours) == 12
    assert ours.count("error") == 4


def test_a_torch_size_is_broadcast_like_a_tuple():
    assert lab.broadcast_shape(torch.Size([3, 1]), torch.Size([2])) == (3, 2)


# The layer.


@pytest.mark.parametrize("way", list(lab.WAYS))
@pytest.mark.parametrize(("batch", "n", "m"), [(1, 1, 1), (3, 1, 4), (2, 5, 1), (4, 3, 2)])
def test_every_product_equals_the_library_for_any_sizes(way, batch, n, m):
    a = randn(batch, n)
    b = randn(n, m, seed=1)
    torch.testing.assert_close(lab.WAYS[way](a, b), a @ b, rtol=0, atol=1e-12)


def test_the_backward_passes_gradcheck():
    layer = lab.Linear(4, 5).double()

    class ByHand(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w, bias):
            ctx.save_for_backward(x, w)
            return F.linear(x, w, bias)

        @staticmethod
        def backward(ctx, g):
            return lab.linear_backward(*ctx.saved_tensors, g)

    inputs = (randn(2, 3, 4).requires_grad_(), layer.weight, layer.bias)
    assert torch.autograd.gradcheck(ByHand.apply, inputs)


def test_a_new_layer_has_weights_and_biases_of_variance_a_third_over_n():
    layer = lab.Linear(300, 40_000)
    for parameter, n in ((layer.weight, 12e6), (layer.bias, 4e4)):
        assert parameter.abs().max() <= 1 / math.sqrt(300)
        share = 300 * parameter.detach().double().square().mean()
        assert abs(share - 1 / 3) < 5 * math.sqrt(4 / 45 / n)  # var x² of U(−1, 1) is 4/45


def test_ours_and_the_librarys_layer_have_the_same_state_dict():
    ours = lab.Linear(7, 3).state_dict()
    theirs = nn.Linear(7, 3).state_dict()
    assert {name: x.shape for name, x in ours.items()} == {n: x.shape for n, x in theirs.items()}
