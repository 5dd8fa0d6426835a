"""Wrong solutions of LLM05b+: what a learner might plausibly hand in, and the message."""

import math

from labs.llm05b_depth_and_position import deeper as lab

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


def all_heads_at_once(rows, head_dim):
    del head_dim
    return torch.cat((rows[::2], rows[1::2]))


def the_way_back(rows, head_dim):
    return lab.to_neighbours(rows, head_dim)


def odd_first(rows, head_dim):
    return rows.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flip(1).flatten(0, 2)


def as_they_are(rows, head_dim):
    return rows.unflatten(0, (-1, 2, head_dim // 2)).flatten(0, 2)


def takes_heads(rows, heads):
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


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


def yarn_weight(frequencies, trained, low, high):
    return ((trained * frequencies / (2 * math.pi) - low) / (high - low)).clamp(0, 1)


def all_interpolated(frequencies, trained, factor, low=1.0, high=32.0):
    del trained, low, high
    return frequencies / factor


def swapped_weights(frequencies, trained, factor, low=1.0, high=32.0):
    weight = 1 - yarn_weight(frequencies, trained, low, high)
    return weight * frequencies + (1 - weight) * frequencies / factor


def radians(frequencies, trained, factor, low=1.0, high=32.0):
    weight = yarn_weight(2 * math.pi * frequencies, trained, low, high)
    return weight * frequencies + (1 - weight) * frequencies / factor


def without_limits(frequencies, trained, factor, low=1.0, high=32.0):
    weight = (trained * frequencies / (2 * math.pi) - low) / (high - low)
    return weight * frequencies + (1 - weight) * frequencies / factor


def a_step(frequencies, trained, factor, low=1.0, high=32.0):
    del low
    turns = trained * frequencies / (2 * math.pi)
    return torch.where(turns > high, frequencies, frequencies / factor)


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
    ("to_halves", all_heads_at_once, "convert each head's D rows separately"),
    ("to_halves", the_way_back, "way back"),
    ("to_halves", odd_first, "put the even ones first"),
    ("to_halves", as_they_are, "nothing is changed"),
    ("to_halves", takes_heads, "not the number of heads"),
    ("interpolated", squeezed_too, "keeps its places"),
    ("interpolated", stretched, "stretched"),
    ("interpolated", to_the_last, "the last place is trained − 1"),
    ("interpolated", whole_places, "rounded"),
    ("interpolated", cut_off, "cut off"),
    ("yarn_frequencies", all_interpolated, "all pairs are interpolated"),
    ("yarn_frequencies", swapped_weights, "weights are swapped"),
    ("yarn_frequencies", radians, "aren't turns"),
    ("yarn_frequencies", without_limits, "isn't limited"),
    ("yarn_frequencies", a_step, "step at `high`"),
]
