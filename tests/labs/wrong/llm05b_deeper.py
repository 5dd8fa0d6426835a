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
