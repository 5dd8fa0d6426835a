"""Wrong solutions of LLM05b: what a learner might plausibly hand in, and the message."""

import math

from labs.llm05b_depth_and_position import lesson as lab

import torch


def swapped(layers):
    return lab.deepnorm(layers)[::-1]


def beside_an_encoder(layers):
    return (3 * layers) ** 0.25, (12 * layers) ** -0.25


def one_branch_a_block(layers):
    return layers**0.25, (4 * layers) ** -0.25


def square_roots(layers):
    return (2 * layers) ** 0.5, (8 * layers) ** -0.5


def reciprocal(layers):
    return (2 * layers) ** 0.25, (2 * layers) ** -0.25


def alpha_alone(layers):
    return lab.deepnorm(layers)[0]


def never_asks_about_the_future(layer, x):
    named = lab.diagnose(layer, x)
    return "sound" if named == "looks ahead" else named


def by_size_alone(layer, x):
    named = lab.diagnose(layer, x)
    return "no residual" if named == "norm on the sum" else named


def thinks_that_any_change_is_growth(layer, x):
    named = lab.diagnose(layer, x)
    return "no norm" if named == "no residual" else named


def twice_is_too_little(layer, x):
    named = lab.diagnose(layer, x)
    return "sound" if named == "no norm" else named


def dead_is_sound(layer, x):
    named = lab.diagnose(layer, x)
    return "sound" if named == "dead branch" else named


def a_sentence(layer, x):
    return f"it is {lab.diagnose(layer, x)}"


def asks_in_place(layer, x):
    named = lab.diagnose(layer, x)
    x *= 1000
    return named


def turned(x, angle, one=1, other=1):
    a = x[..., ::2]
    b = x[..., 1::2]
    cos = angle.cos()
    sin = angle.sin()
    return torch.stack((a * cos - one * b * sin, other * a * sin + b * cos), -1).flatten(-2)


def backwards(x, angle):
    return lab.rope(x, -angle)


def without_a_minus(x, angle):
    return turned(x, angle, one=-1)


def halves(x, angle):
    return lab.rope_halves(x, angle)


def not_side_by_side(x, angle):
    return torch.cat((lab.rope(x, angle)[..., ::2], lab.rope(x, angle)[..., 1::2]), -1)


def in_its_own_dtype(x, angle):
    return turned(x, angle.to(x.dtype))


def returns_float64(x, angle):
    return turned(x, angle)


def all_heads_at_once(rows, heads):
    del heads
    return torch.cat((rows[::2], rows[1::2]))


def the_way_back(rows, heads):
    return lab.to_neighbours(rows, heads)


def odd_first(rows, heads):
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flip(1).flatten(0, 2)


def as_they_are(rows, heads):
    return rows.unflatten(0, (heads, 2, -1)).flatten(0, 2)


def from_zero(heads):
    return 2 ** (-8 * torch.arange(heads, dtype=torch.float64) / heads)


def geometric(heads):
    return 2 ** (-8 * torch.arange(1, heads + 1, dtype=torch.float64) / heads)


def sorted_slopes(heads):
    return lab.alibi_slopes(heads).sort(descending=True).values


def every_slope_of_the_next(heads):
    lower = 2 ** int(math.log2(heads))
    return torch.cat((lab.alibi_slopes(lower), lab.alibi_slopes(2 * lower)[: heads - lower]))


def the_second_fourth(heads):
    lower = 2 ** int(math.log2(heads))
    return torch.cat((lab.alibi_slopes(lower), lab.alibi_slopes(2 * lower)[1::2][: heads - lower]))


def squeezed_too(length, trained):
    return torch.arange(length).double() * trained / length


def stretched(length, trained):
    return torch.arange(length).double() * max(1.0, length / trained)


def to_the_last(length, trained):
    return torch.arange(length).double() * min(1.0, (trained - 1) / (length - 1))


def whole_places(length, trained):
    return lab.interpolated(length, trained).floor()


def cut_off(length, trained):
    return torch.arange(length).double().clamp(max=trained - 1)


WRONG = [
    ("deepnorm", swapped, "are swapped"),
    ("deepnorm", beside_an_encoder, "beside an encoder"),
    ("deepnorm", one_branch_a_block, "two branches"),
    ("deepnorm", square_roots, "square root"),
    ("deepnorm", reciprocal, "isn't 1/α"),
    ("deepnorm", alpha_alone, "expected two numbers"),
    ("diagnose", never_asks_about_the_future, "earlier output change"),
    ("diagnose", by_size_alone, "What is the size of the output"),
    ("diagnose", thinks_that_any_change_is_growth, "its size not 1"),
    ("diagnose", twice_is_too_little, "adds to x grow with x"),
    ("diagnose", dead_is_sound, "Is the output x itself"),
    ("diagnose", a_sentence, "isn't a key of FAULTS"),
    ("diagnose", asks_in_place, "changed x"),
    ("rope", backwards, "rotates backwards"),
    ("rope", without_a_minus, "one minus"),
    ("rope", halves, "rotate the neighbours"),
    ("rope", not_side_by_side, "aren't neighbours any more"),
    ("rope", in_its_own_dtype, "computed in bfloat16"),
    ("rope", returns_float64, "expected the dtype of x"),
    ("to_halves", all_heads_at_once, "convert each head's D rows separately"),
    ("to_halves", the_way_back, "way back"),
    ("to_halves", odd_first, "put the even ones first"),
    ("to_halves", as_they_are, "nothing is changed"),
    ("alibi_slopes", from_zero, "starts at 1"),
    ("alibi_slopes", geometric, "isn't a power of 2"),
    ("alibi_slopes", sorted_slopes, "don't sort them"),
    ("alibi_slopes", every_slope_of_the_next, "every second slope of 2p"),
    ("alibi_slopes", the_second_fourth, "not the 2nd, 4th"),
    ("interpolated", squeezed_too, "keeps its places"),
    ("interpolated", stretched, "stretched"),
    ("interpolated", to_the_last, "the last place is trained − 1"),
    ("interpolated", whole_places, "rounded"),
    ("interpolated", cut_off, "cut off"),
]
