"""Wrong solutions of LLM05b+: what a learner might plausibly hand in, and the message."""

import math

from labs.llm05a_normalization import rms_norm
from labs.llm05b_depth_and_position import deeper as lab
from labs.llm05b_depth_and_position.stack import split_heads

import torch


def split(matrix, x):
    return split_heads(matrix(x), 4)


class NotTurned(lab.QKNormAttention):
    def queries_and_keys(self, x, position):
        del position
        return self.q_norm(split(self.q, x)), self.k_norm(split(self.k, x))


class TurnedFirst(lab.QKNormAttention):
    def queries_and_keys(self, x, position):
        q = position.turn(split(self.q, x))
        k = position.turn(split(self.k, x))
        return self.q_norm(q), self.k_norm(k)


class OverAllEntries(lab.QKNormAttention):
    def queries_and_keys(self, x, position):
        q = split_heads(rms_norm(self.q(x), torch.ones(x.shape[-1])), 4) * self.q_norm.weight
        k = split_heads(rms_norm(self.k(x), torch.ones(x.shape[-1])), 4) * self.k_norm.weight
        return position.turn(q), position.turn(k)


class OneNorm(lab.QKNormAttention):
    def queries_and_keys(self, x, position):
        q = position.turn(self.k_norm(split(self.q, x)))
        return q, position.turn(self.q_norm(split(self.k, x)))


class QueriesOnly(lab.QKNormAttention):
    def queries_and_keys(self, x, position):
        return position.turn(self.q_norm(split(self.q, x))), position.turn(split(self.k, x))


class HeadsTogether(lab.QKNormAttention):
    def queries_and_keys(self, x, position):
        return tuple(
            part.transpose(1, 2).flatten(2) for part in super().queries_and_keys(x, position)
        )


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
    ("QKNormAttention.queries_and_keys", NotTurned, "positions are missing"),
    ("QKNormAttention.queries_and_keys", TurnedFirst, "normalize first"),
    ("QKNormAttention.queries_and_keys", OverAllEntries, "over all d entries"),
    ("QKNormAttention.queries_and_keys", OneNorm, "each has its own gains"),
    ("QKNormAttention.queries_and_keys", QueriesOnly, "keys aren't normalized"),
    ("QKNormAttention.queries_and_keys", HeadsTogether, "expected \\(B, H, T, D\\)"),
    ("interpolated", squeezed_too, "keeps its places"),
    ("interpolated", stretched, "stretched"),
    ("interpolated", to_the_last, "the last place is trained_length − 1"),
    ("interpolated", whole_places, "rounded"),
    ("interpolated", cut_off, "cut off"),
    ("yarn_frequencies", all_interpolated, "all pairs are interpolated"),
    ("yarn_frequencies", swapped_weights, "weights are swapped"),
    ("yarn_frequencies", radians, "aren't turns"),
    ("yarn_frequencies", without_limits, "isn't limited"),
    ("yarn_frequencies", a_step, "step at `high`"),
]
