"""Wrong solutions of LLM05a: what a learner might plausibly hand in, and the message."""

from labs.llm05a_normalization import lesson as lab

import torch
import torch.nn.functional as F


def moments(x, axis=-1):
    centred = x - x.mean(axis, keepdim=True)
    return centred, centred.square().mean(axis, keepdim=True)


def variance_by_d_minus_one(x, gain, bias, eps=1e-5):
    centred, _ = moments(x)
    return centred / (x.var(-1, keepdim=True) + eps).sqrt() * gain + bias


def epsilon_outside(x, gain, bias, eps=1e-5):
    centred, variance = moments(x)
    return centred / (variance.sqrt() + eps) * gain + bias


def over_everything(x, gain, bias, eps=1e-5):
    centred = x - x.mean()
    return centred / (centred.square().mean() + eps).sqrt() * gain + bias


def over_the_tokens(x, gain, bias, eps=1e-5):
    centred, variance = moments(x, -2)
    return centred / (variance + eps).sqrt() * gain + bias


def in_its_own_dtype(x, gain, bias, eps=1e-5):
    centred, variance = moments(x)
    return (centred / (variance + eps).sqrt() * gain + bias).to(x.dtype)


def always_in_float32(x, gain, bias, eps=1e-5):
    centred, variance = moments(x.float())
    return (centred / (variance + eps).sqrt() * gain + bias).to(x.dtype)


def rms_epsilon_outside(x, gain, eps=1e-5):
    return x / (x.square().mean(-1, keepdim=True).sqrt() + eps) * gain


def rms_without_epsilon(x, gain, eps=1e-5):
    del eps
    return x / x.square().mean(-1, keepdim=True).sqrt() * gain


def rms_of_the_sum(x, gain, eps=1e-5):
    return x / (x.square().sum(-1, keepdim=True) + eps).sqrt() * gain


def rms_with_the_variance(x, gain, eps=1e-5):
    return x / (moments(x)[1] + eps).sqrt() * gain


def rms_in_its_own_dtype(x, gain, eps=1e-5):
    return (x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * gain).to(x.dtype)


def rms_always_in_float32(x, gain, eps=1e-5):
    x32 = x.float()
    return (x32 * (x32.square().mean(-1, keepdim=True) + eps).rsqrt() * gain).to(x.dtype)


def rms_returns_float32(x, gain, eps=1e-5):
    return F.rms_norm(lab.wide(x), (x.shape[-1],), gain.to(lab.wide(x).dtype), eps)


def halves(length, d):
    table = lab.sinusoid(length, d)
    return torch.cat((table[:, ::2], table[:, 1::2]), -1)


def cosine_first(length, d):
    return lab.sinusoid(length, d).unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


def from_one(length, d):
    return lab.sinusoid(length + 1, d)[1:]


def half_the_exponent(length, d):
    angles = torch.arange(length).double()[:, None] * 10000 ** (-torch.arange(d // 2).double() / d)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)


def in_float32(length, d):
    return lab.sinusoid(length, d).float()


class Gated(lab.SwiGLU):
    """The reference in two steps: each subclass makes a mistake in `mix`."""

    def forward(self, x):
        return self.down_proj(self.mix(self.gate_proj(x), self.up_proj(x)))


class Swapped(Gated):
    def mix(self, gate, up):
        return gate * F.silu(up)


class LogisticGate(Gated):
    def mix(self, gate, up):
        return gate.sigmoid() * up


class AfterTheProduct(Gated):
    def mix(self, gate, up):
        return F.silu(gate * up)


class Added(Gated):
    def mix(self, gate, up):
        return F.silu(gate) + up


class PreAsPost(lab.PreNormBlock):
    def forward(self, x):
        return lab.PostNormBlock.forward(self, x)


class SideBySide(lab.PreNormBlock):
    def forward(self, x):
        return x + self.attention(self.attention_norm(x)) + self.ffn(self.ffn_norm(x))


class WithoutResiduals(lab.PreNormBlock):
    def forward(self, x):
        return self.ffn(self.ffn_norm(self.attention(self.attention_norm(x))))


class OnTheNormed(lab.PreNormBlock):
    def forward(self, x):
        x = self.attention_norm(x)
        x = self.ffn_norm(x + self.attention(x))
        return x + self.ffn(x)


class PreInPlace(lab.PreNormBlock):
    def forward(self, x):
        x += self.attention(self.attention_norm(x))
        return x + self.ffn(self.ffn_norm(x))


class PostAsPre(lab.PostNormBlock):
    def forward(self, x):
        return lab.PreNormBlock.forward(self, x)


class NormOnTheBranch(lab.PostNormBlock):
    def forward(self, x):
        x = x + self.attention_norm(self.attention(x))
        return x + self.ffn_norm(self.ffn(x))


class UnnormedSum(lab.PostNormBlock):
    def forward(self, x):
        x = x + self.attention(x)
        return self.ffn_norm(x + self.ffn(x))


class NormUsedTwice(lab.PostNormBlock):
    def forward(self, x):
        x = self.attention_norm(x + self.attention(x))
        return self.attention_norm(x + self.ffn(x))


class LastNormForgotten(lab.PostNormBlock):
    def forward(self, x):
        x = self.attention_norm(x + self.attention(x))
        return x + self.ffn(x)


WRONG = [
    ("layer_norm", variance_by_d_minus_one, "d − 1"),
    ("layer_norm", epsilon_outside, "ε is outside the root"),
    ("layer_norm", over_everything, "over all numbers"),
    ("layer_norm", over_the_tokens, "over the tokens of a text"),
    ("layer_norm", always_in_float32, "which keeps float64"),
    ("layer_norm", in_its_own_dtype, "statistics computed in torch.bfloat16"),
    ("rms_norm", rms_epsilon_outside, "ε is outside the root"),
    ("rms_norm", rms_without_epsilon, "ε isn't used"),
    ("rms_norm", rms_of_the_sum, "MEAN square"),
    ("rms_norm", rms_with_the_variance, "not the variance"),
    ("rms_norm", rms_always_in_float32, "which keeps float64"),
    ("rms_norm", rms_in_its_own_dtype, "statistics computed in torch.float16"),
    ("rms_norm", rms_returns_float32, "expected the dtype of x"),
    ("gated_width", lambda d, n=8: 8 * d // (3 * n) * n, "rounded down"),
    ("gated_width", lambda d, n=8: round(8 * d / 3 / n) * n, "nearest"),
    ("gated_width", lambda d, n=8: (8 * d // 3 // n + 1) * n, "a multiple already"),
    ("gated_width", lambda d, n=8: 8 * d // 3 + 0 * n, "isn't rounded to a multiple yet"),
    ("gated_width", lambda d, n=8: 8 * d / 3 + 0 * n, "whole number"),
    ("SwiGLU.forward", Swapped, "gate and up are swapped"),
    ("SwiGLU.forward", LogisticGate, "logistic"),
    ("SwiGLU.forward", AfterTheProduct, "after the product"),
    ("SwiGLU.forward", Added, "a gate multiplies"),
    ("sinusoid", halves, "neighbours"),
    ("sinusoid", cosine_first, "sine and cosine are swapped"),
    ("sinusoid", from_one, "start at 1"),
    ("sinusoid", half_the_exponent, "factor 2"),
    ("sinusoid", in_float32, "expected float64"),
    ("PreNormBlock.forward", PreAsPost, "that is Post-LN"),
    ("PreNormBlock.forward", SideBySide, "both branches read the same x"),
    ("PreNormBlock.forward", WithoutResiduals, "residual connections are missing"),
    ("PreNormBlock.forward", OnTheNormed, "added to the normed x"),
    ("PreNormBlock.forward", PreInPlace, "changed its input"),
    ("PostNormBlock.forward", PostAsPre, "that is Pre-LN"),
    ("PostNormBlock.forward", NormOnTheBranch, "on the branch alone"),
    ("PostNormBlock.forward", UnnormedSum, "without its norm"),
    ("PostNormBlock.forward", NormUsedTwice, "one norm is used twice"),
    ("PostNormBlock.forward", LastNormForgotten, "last norm is missing"),
]
