"""Wrong solutions of LLM05b: what a learner might plausibly hand in, and the message."""

import math

from labs.llm05a_normalization import rms_norm
from labs.llm05b_depth_and_position import lesson as lab

import torch


class NoLastNorm(lab.Stack):
    def forward(self, tokens):
        x = self.position.embed(self.embedding(tokens))
        for block in self.blocks:
            x = block(x, self.position)
        return self.unembedding(x)


class NoPositions(lab.Stack):
    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.position)
        return self.unembedding(self.norm(x))


class EachFromTheStart(lab.Stack):
    def forward(self, tokens):
        x = self.position.embed(self.embedding(tokens))
        for block in self.blocks:
            y = block(x, self.position)
        return self.unembedding(self.norm(y))


class Probabilities(lab.Stack):
    def forward(self, tokens):
        return super().forward(tokens).softmax(-1)


class NormFirst(lab.Stack):
    def forward(self, tokens):
        x = self.norm(self.position.embed(self.embedding(tokens)))
        for block in self.blocks:
            x = block(x, self.position)
        return self.unembedding(x)


def gradients_of(module):
    return [p.grad for p in module.parameters() if p.grad is not None]


def sums_of_norms(modules):
    return [float(sum(g.norm() for g in gradients_of(module))) for module in modules]


def without_a_root(modules):
    """Return a tensor, too: the root is the mistake to name first."""
    return torch.tensor(lab.gradient_norms(modules)) ** 2


def of_weights(modules):
    return [
        math.sqrt(sum(p.square().sum().item() for p in module.parameters())) for module in modules
    ]


def never_frozen(modules):
    return [
        math.sqrt(sum(p.grad.square().sum().item() for p in module.parameters()))
        for module in modules
    ]


def cleans_up(modules):
    modules = list(modules)
    norms = lab.gradient_norms(modules)
    for module in modules:
        module.zero_grad()
    return norms


def counts_first(modules):
    norms = [0.0] * len(list(modules))
    return lab.gradient_norms(modules) or norms


def tensors(modules):
    return [torch.tensor(norm) for norm in lab.gradient_norms(modules)]


def as_llama(x, g):
    return rms_norm(x, g)


def adds_g(x, g):
    return rms_norm(x, torch.ones_like(g)) + g


def adds_in_bfloat16(x, g):
    return rms_norm(x, 1 + g)


def rounds_twice(x, g):
    return (rms_norm(x, torch.ones_like(g)) * (1 + lab.wide(g))).to(x.dtype)


def returns_wide(x, g):
    return rms_norm(x.to(torch.promote_types(x.dtype, torch.float32)), 1 + lab.wide(g))


def turned(x, angle, one=1, other=1):
    a = x[..., ::2]
    b = x[..., 1::2]
    cos = angle.cos()
    sin = angle.sin()
    return torch.stack((a * cos - one * b * sin, other * a * sin + b * cos), -1).flatten(-2)


def rotated_halves(x, angle):
    a, b = x.chunk(2, -1)
    return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), -1)


def backwards(x, angle):
    return lab.rope(x, -angle)


def without_a_minus(x, angle):
    return turned(x, angle, one=-1)


def halves(x, angle):
    return rotated_halves(x, angle)


def not_side_by_side(x, angle):
    return torch.cat((lab.rope(x, angle)[..., ::2], lab.rope(x, angle)[..., 1::2]), -1)


def in_its_own_dtype(x, angle):
    return turned(x, angle.to(x.dtype))


def returns_float64(x, angle):
    return turned(x, angle)


class Rewarded(lab.Alibi):
    def bias(self, heads, length):
        return -super().bias(heads, length)


class KeysFirst(lab.Alibi):
    def bias(self, heads, length):
        return super().bias(heads, length).mT


class FromZero(lab.Alibi):
    def bias(self, heads, length):
        return super().bias(heads, length) * 2 ** (8 / heads)


class Growing(lab.Alibi):
    def bias(self, heads, length):
        slopes = 2 ** (8 * torch.arange(1, heads + 1, dtype=torch.float64) / heads)
        return -slopes[:, None, None] * (torch.arange(length)[:, None] - torch.arange(length))


class LastIsSteepest(lab.Alibi):
    def bias(self, heads, length):
        return super().bias(heads, length).flip(0)


class BothWays(lab.Alibi):
    def bias(self, heads, length):
        return -super().bias(heads, length).abs()


class InFloat32(lab.Alibi):
    def bias(self, heads, length):
        return super().bias(heads, length).float()


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
    source = lab.to_halves(torch.arange(len(rows)), head_dim)  # row i came from row source[i]
    return rows[source.argsort()]


def odd_first(rows, head_dim):
    return rows.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flip(1).flatten(0, 2)


def as_they_are(rows, head_dim):
    return rows.unflatten(0, (-1, 2, head_dim // 2)).flatten(0, 2)


def takes_heads(rows, heads):
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


WRONG = [
    ("Stack.forward", NoLastNorm, "last norm is missing"),
    ("Stack.forward", NoPositions, "positions are missing"),
    ("Stack.forward", EachFromTheStart, "all blocks read the embeddings"),
    ("Stack.forward", Probabilities, "not their softmax"),
    ("Stack.forward", NormFirst, "not after the embedding"),
    ("gradient_norms", sums_of_norms, "sums of norms"),
    ("gradient_norms", without_a_root, "those are the squares"),
    ("gradient_norms", of_weights, "norms of the weights"),
    ("gradient_norms", never_frozen, "frozen parameter"),
    ("gradient_norms", cleans_up, "changed a gradient"),
    ("gradient_norms", tensors, "call item"),
    ("gradient_norms", counts_first, "gone through only once"),
    ("gemma_norm", as_llama, "must be 1 \\+ g"),
    ("gemma_norm", adds_g, "g is added"),
    ("gemma_norm", adds_in_bfloat16, "rounded to bfloat16"),
    ("gemma_norm", rounds_twice, "round once"),
    ("gemma_norm", returns_wide, "expected the dtype of x"),
    ("rope", backwards, "rotates backwards"),
    ("rope", without_a_minus, "one minus"),
    ("rope", halves, "rotate the neighbours"),
    ("rope", not_side_by_side, "aren't neighbours any more"),
    ("rope", in_its_own_dtype, "computed in bfloat16"),
    ("rope", returns_float64, "expected the dtype of x"),
    ("Alibi.bias", Rewarded, "sign is wrong"),
    ("Alibi.bias", KeysFirst, "queries and keys are swapped"),
    ("Alibi.bias", FromZero, "starts at 1"),
    ("Alibi.bias", Growing, "minus in the exponent"),
    ("Alibi.bias", LastIsSteepest, "in reverse"),
    ("Alibi.bias", BothWays, "absolute distance"),
    ("Alibi.bias", InFloat32, "expected float64"),
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
]
