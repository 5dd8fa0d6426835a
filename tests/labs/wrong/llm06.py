"""Wrong solutions of LLM06: what a learner might plausibly hand in, and the message."""

import math

from labs.llm06_attention import lesson as lab

import torch


def softmax_before_the_mask(scores, mask=None):
    return scores.softmax(-1) if mask is None else scores.softmax(-1) * mask


def a_large_negative_number(scores, mask=None):
    return (scores if mask is None else scores.masked_fill(~mask, -1e9)).softmax(-1)


def minus_infinity(scores, mask=None):
    return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1)


def nan_hidden_from_the_answer_alone(scores, mask=None):
    if mask is None:
        return scores.softmax(-1)
    bias = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -math.inf)
    return (scores + bias).softmax(-1).nan_to_num()


def zero_is_no_weight(scores, mask=None):
    return (scores if mask is None else scores * mask).softmax(-1)


def mask_the_wrong_way_round(scores, mask=None):
    return lab.masked_softmax(scores, None if mask is None else ~mask)


def hides_what_may_be_seen(scores, mask=None):
    return scores.softmax(-1) if mask is None else scores.masked_fill(mask, -math.inf).softmax(-1)


def scaled_by_the_number_of_queries(q, k, v, mask=None):
    return lab.masked_softmax(q @ k.mT / math.sqrt(q.shape[-2]), mask) @ v


def one_row_for_all_queries(lengths, tq, tk):
    return lab.padding_mask(lengths, tq, tk)[:, :, :1]


def causal_source(lengths, tq, tk):
    return lab.padding_mask(lengths, tq, tk) & lab.causal_mask(tq, tk)


def source_and_target_swapped(lengths, tq, tk):
    return lab.padding_mask(lengths, tq, tk).mT


def without_a_head_axis(lengths, tq, tk):
    return lab.padding_mask(lengths, tq, tk)[:, 0]


def padding_may_be_seen(lengths, tq, tk):
    return ~lab.padding_mask(lengths, tq, tk)


def one_padding_too_many(lengths, tq, tk):
    return lab.padding_mask(lengths + 1, tq, tk)


def heads_repeated_as_a_whole(q, k, v, mask=None):
    times = (1, q.shape[1] // k.shape[1], 1, 1)
    return lab.attention(q, k.repeat(times), v.repeat(times), mask)


def grouped(q, k, v):
    return (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))


def mask_forgotten(q, k, v, _mask=None):
    return lab.attention(q, *grouped(q, k, v))


def divided_by_d(q, k, v, mask=None):
    return lab.attention(q / math.sqrt(q.shape[-1]), *grouped(q, k, v), mask)


def not_divided(q, k, v, mask=None):
    return lab.attention(q * math.sqrt(q.shape[-1]), *grouped(q, k, v), mask)


def mask_rebuilt_top_left(q, k, v, mask=None):
    mask = None if mask is None else torch.ones(mask.shape, dtype=torch.bool).tril()
    return lab.attention(q, *grouped(q, k, v), mask)


def groups_on_their_own_axis(q, k, v, mask=None):
    sharing = q.shape[-3] // k.shape[-3]
    q = q.unflatten(-3, (-1, sharing))  # (..., Hkv, sharing, Tq, D)
    return lab.attention(q, k.unsqueeze(-3), v.unsqueeze(-3), mask).flatten(-4, -3)


class Heads(lab.MultiHeadAttention):
    """The reference in separate steps: each subclass makes a mistake in one of them."""

    def split(self, x):
        return x.unflatten(-1, (-1, self.head_dim)).transpose(-3, -2)

    def attend(self, q, k, v, mask):
        return lab.grouped_query_attention(q, k, v, mask)

    def merge(self, x):
        return x.transpose(-3, -2).flatten(-2)

    def turn(self, x):
        return self.position(x)

    def forward(self, x, mask=None, context=None):
        context = x if context is None else context
        q, k, v = (
            self.split(y) for y in (self.q_proj(x), self.k_proj(context), self.v_proj(context))
        )
        mixed = self.attend(self.turn(q), self.turn(k), v, mask)
        return self.o_proj(self.merge(mixed))


class BareView(Heads):
    def split(self, x):
        return x.view(x.shape[0], -1, x.shape[1], self.head_dim)


class BareViewTwice(BareView):
    def merge(self, x):
        return x.reshape(x.shape[0], x.shape[2], -1)


class MergedWithoutTranspose(Heads):
    def merge(self, x):
        return x.reshape(x.shape[0], x.shape[2], -1)


class OnlyBatches(Heads):
    def split(self, x):
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def merge(self, x):
        return x.transpose(1, 2).flatten(2)


class ModelWidthInTheRoot(Heads):
    def attend(self, q, k, v, mask):
        return super().attend(q * math.sqrt(self.head_dim / self.q_proj.in_features), k, v, mask)


class ContextIgnored(Heads):
    def forward(self, x, mask=None, context=None):
        return super().forward(x, None if context is not None else mask)


class PositionForgotten(Heads):
    def turn(self, x):
        return x


class ValuesRotatedToo(Heads):
    def attend(self, q, k, v, mask):
        return super().attend(q, k, self.position(v), mask)


def changes_its_input(scores, mask=None):
    if mask is None:
        return scores.softmax(-1)
    scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).masked_fill(~mask, 0.0)


def not_scaled(q, k, v, mask=None):
    return lab.masked_softmax(q @ k.mT, mask) @ v


def scaled_by_d(q, k, v, mask=None):
    return lab.masked_softmax(q @ k.mT / q.shape[-1], mask) @ v


def scaled_by_the_number_of_keys(q, k, v, mask=None):
    return lab.masked_softmax(q @ k.mT / math.sqrt(k.shape[-2]), mask) @ v


def softmax_over_the_queries(q, k, v, mask=None):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-2).nan_to_num() @ v


def attention_without_its_mask(q, k, v, _mask=None):
    return lab.attention(q, k, v)


def hides_itself(tq, tk, _device=None):
    return torch.ones(tq, tk, dtype=torch.bool).tril(tk - tq - 1)


def sees_one_ahead(tq, tk, _device=None):
    return torch.ones(tq, tk, dtype=torch.bool).tril(tk - tq + 1)


def aligned_top_left(tq, tk, _device=None):
    return torch.ones(tq, tk, dtype=torch.bool).tril()


def true_hides(tq, tk, _device=None):
    return ~lab.causal_mask(tq, tk)


def all_queries_count(weights, pairs):
    return (weights * pairs[:, None]).sum(-1).mean((0, 2))


def pairs_count(weights, pairs):
    return (weights * pairs[:, None]).sum((0, 2, 3)) / pairs.sum()


def sum_only(weights, pairs):
    return (weights * pairs[:, None]).sum((0, 2, 3))


def keys_and_queries_swapped(weights, pairs):
    return lab.head_scores(weights, pairs.mT)


WRONG = [
    ("attention", not_scaled, "division by √d is missing"),
    ("attention", scaled_by_d, "divided by d, not by √d"),
    ("attention", scaled_by_the_number_of_keys, "not by the square root of the number of keys"),
    ("attention", scaled_by_the_number_of_queries, "the number of queries"),
    ("attention", softmax_over_the_queries, "the softmax runs over the queries"),
    ("attention", attention_without_its_mask, "the mask isn't used"),
    ("causal_mask", hides_itself, "own key must be visible"),
    ("causal_mask", sees_one_ahead, "one key of the future"),
    ("causal_mask", aligned_top_left, "aligned top-left"),
    ("causal_mask", true_hides, "True and False are swapped"),
    ("head_scores", all_queries_count, "queries without a pair count"),
    ("head_scores", pairs_count, "a query with two pairs counts once"),
    ("head_scores", sum_only, "isn't divided"),
    ("head_scores", keys_and_queries_swapped, "queries and keys are swapped"),
    ("masked_softmax", softmax_before_the_mask, "does the softmax come before the mask"),
    ("masked_softmax", a_large_negative_number, "gets uniform weights"),
    ("masked_softmax", minus_infinity, "NaN where a query may look at no key: the softmax"),
    ("masked_softmax", nan_hidden_from_the_answer_alone, "do you add -inf to the scores"),
    ("masked_softmax", zero_is_no_weight, "a masked score of 0 still gets weight"),
    ("masked_softmax", mask_the_wrong_way_round, "True means that a query may look"),
    ("masked_softmax", hides_what_may_be_seen, "the mask is inverted"),
    ("masked_softmax", changes_its_input, "changed its input"),
    ("padding_mask", one_row_for_all_queries, "expand the mask"),
    ("padding_mask", causal_source, "the mask is causal"),
    ("padding_mask", source_and_target_swapped, "queries and keys swapped"),
    ("padding_mask", without_a_head_axis, "B would broadcast against H"),
    ("padding_mask", padding_may_be_seen, "True and False are swapped"),
    ("padding_mask", one_padding_too_many, "one key too many"),
    ("grouped_query_attention", heads_repeated_as_a_whole, "assigned in turn"),
    ("grouped_query_attention", mask_forgotten, "the mask isn't used"),
    ("grouped_query_attention", divided_by_d, "divided by d, not by √d"),
    ("grouped_query_attention", not_divided, "division by √d is missing"),
    ("grouped_query_attention", mask_rebuilt_top_left, "aligned top-left"),
    ("grouped_query_attention", groups_on_their_own_axis, "a mask may differ by text"),
    ("MultiHeadAttention.forward", BareView, "use a transpose, not a bare view or reshape"),
    ("MultiHeadAttention.forward", BareViewTwice, "splits and merges the heads"),
    ("MultiHeadAttention.forward", MergedWithoutTranspose, "merged without a transpose back"),
    ("MultiHeadAttention.forward", OnlyBatches, "without a batch"),
    ("MultiHeadAttention.forward", ModelWidthInTheRoot, "divided by √d_model"),
    ("MultiHeadAttention.forward", ContextIgnored, "keys and values come from the context"),
    ("MultiHeadAttention.forward", PositionForgotten, "it was called with nothing"),
    ("MultiHeadAttention.forward", ValuesRotatedToo, "not on the values"),
]
