"""LLM06: the parts on hostile shapes, the checks against wrong solutions, the theory it quotes."""

import math

from labs import llm06_attention as lab
from labs.checks import llm06 as checks
from labs.kit import Mistake

import pytest
import torch
import torch.nn.functional as F


def randn(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def qkv(t, tk=None, heads=2, kv_heads=None, d=8, dtype=torch.float64):
    kv = (3, kv_heads or heads, tk or t, d)
    q = randn(3, heads, t, d, dtype=dtype)
    return q, randn(*kv, dtype=dtype, seed=1), randn(*kv, dtype=dtype, seed=2)


PARTS = {
    "masked_softmax": lab.masked_softmax,
    "cross_attention_mask": lab.cross_attention_mask,
    "grouped_query_attention": lab.grouped_query_attention,
    "multi_head_attention": lab.MultiHeadAttention,
    "sliding_window_mask": lab.sliding_window_mask,
    "tiled_attention": lab.tiled_attention,
}


@pytest.mark.parametrize("part", PARTS)
def test_every_check_passes_on_the_reference(part):
    getattr(checks, part)(PARTS[part])


def test_every_exercise_has_a_check():
    owners = {exercise.split(".")[0] for exercise in lab.lab.exercises}
    snake = {"MultiHeadAttention": "multi_head_attention"}
    assert {snake.get(owner, owner) for owner in owners} == set(PARTS)


# Wrong solutions: each is what a learner might plausibly hand in.


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


def causal_source(lengths, tq, tk):
    return lab.cross_attention_mask(lengths, tq, tk) & lab.causal_mask(tq, tk)


def source_and_target_swapped(lengths, tq, tk):
    return lab.cross_attention_mask(lengths, tq, tk).mT


def without_a_head_axis(lengths, tq, tk):
    return lab.cross_attention_mask(lengths, tq, tk)[:, 0]


def padding_may_be_seen(lengths, tq, tk):
    return ~lab.cross_attention_mask(lengths, tq, tk)


def one_padding_too_many(lengths, tq, tk):
    return lab.cross_attention_mask(lengths + 1, tq, tk)


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


class Heads(lab.MultiHeadAttention):
    """The reference with its steps apart, for a mistake to be put in one of them."""

    def split(self, x):
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def attend(self, q, k, v, mask):
        return lab.grouped_query_attention(q, k, v, mask)

    def merge(self, x):
        return x.transpose(1, 2).flatten(2)

    def turn(self, x):
        return self.position(x)

    def forward(self, x, mask=None, context=None):
        context = x if context is None else context
        q, k, v = (self.split(y) for y in (self.q(x), self.k(context), self.v(context)))
        mixed = self.attend(self.turn(q), self.turn(k), v, mask)
        return self.out(self.merge(mixed))


class BareView(Heads):
    def split(self, x):
        return x.view(x.shape[0], -1, x.shape[1], self.head_dim)


class BareViewTwice(BareView):
    def merge(self, x):
        return x.reshape(x.shape[0], x.shape[2], -1)


class MergedWithoutTranspose(Heads):
    def merge(self, x):
        return x.reshape(x.shape[0], x.shape[2], -1)


class ModelWidthInTheRoot(Heads):
    def attend(self, q, k, v, mask):
        return super().attend(q * math.sqrt(self.head_dim / self.q.in_features), k, v, mask)


class ContextIgnored(Heads):
    def forward(self, x, mask=None, context=None):
        return super().forward(x, None if context is not None else mask)


class PositionForgotten(Heads):
    def turn(self, x):
        return x


class ValuesRotatedToo(Heads):
    def attend(self, q, k, v, mask):
        return super().attend(q, k, self.position(v), mask)


def window_of(low, high, aligned=True):
    def mask(tq, tk, window):
        start = tk - tq if aligned else 0
        distance = torch.arange(start, start + tq)[:, None] - torch.arange(tk)
        return (distance >= low(window)) & (distance < high(window))

    return mask


def tiles(rescale_total=True, rescale_mixed=True, start=-math.inf, stable=True, power=0.5):
    def attend(q, k, v, block=32):
        top = q.new_full((*q.shape[:-1], 1), start)
        total, mixed = 0.0, 0.0
        for keys, values in zip(k.split(block, -2), v.split(block, -2), strict=True):
            scores = q @ keys.mT / q.shape[-1] ** power
            new = (
                torch.maximum(top, scores.amax(-1, keepdim=True)) if stable else 0 * scores[..., :1]
            )
            shrink, weights = (top - new).exp() if stable else 1.0, (scores - new).exp()
            total = total * (shrink if rescale_total else 1) + weights.sum(-1, keepdim=True)
            mixed = mixed * (shrink if rescale_mixed else 1) + weights @ values
            top = new
        return mixed / total

    return attend


def only_pretends_to_tile(q, k, v, **_block):
    return lab.attention(q, k, v)


def tiles_the_queries(q, k, v, block=32):
    return torch.cat([lab.attention(part, k, v) for part in q.split(block, -2)], -2)


def forgets_to_divide(q, k, v, **_block):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return (scores - scores.amax(-1, keepdim=True)).exp() @ v


def leaves_itself_out(tq, tk, window):
    distance = torch.arange(tk - tq, tk)[:, None] - torch.arange(tk)
    return (distance > 0) & (distance <= window)


def changes_its_input(scores, mask=None):
    if mask is None:
        return scores.softmax(-1)
    scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).masked_fill(~mask, 0.0)


def a_softmax_for_each_tile(q, k, v, block=32):
    parts = zip(k.split(block, -2), v.split(block, -2), strict=True)
    return torch.stack([lab.attention(q, keys, values) for keys, values in parts]).mean(0)


WRONG = [
    ("masked_softmax", softmax_before_the_mask, "softmax before the mask"),
    ("masked_softmax", a_large_negative_number, "leaves the row uniform"),
    ("masked_softmax", minus_infinity, "NaN where a query may look at nothing"),
    ("masked_softmax", nan_hidden_from_the_answer_alone, "NaN in the gradient"),
    ("masked_softmax", zero_is_no_weight, "a hidden score of 0 still has weight"),
    ("masked_softmax", mask_the_wrong_way_round, "True means that a query may look"),
    ("cross_attention_mask", causal_source, "is it causal"),
    ("cross_attention_mask", source_and_target_swapped, "queries and keys swapped"),
    ("cross_attention_mask", without_a_head_axis, "B would meet H"),
    ("cross_attention_mask", padding_may_be_seen, "True and False are swapped"),
    ("cross_attention_mask", one_padding_too_many, "one key too many"),
    ("grouped_query_attention", heads_repeated_as_a_whole, "instead of repeat_interleave"),
    ("grouped_query_attention", mask_forgotten, "the mask isn't used"),
    ("grouped_query_attention", divided_by_d, "divided by d, not by √d"),
    ("grouped_query_attention", not_divided, "division by √d missing"),
    ("grouped_query_attention", mask_rebuilt_top_left, "aligned top-left"),
    ("multi_head_attention", BareView, "a bare view or reshape instead of a transpose"),
    ("multi_head_attention", BareViewTwice, "splits and merges the heads"),
    ("multi_head_attention", MergedWithoutTranspose, "merged without a transpose back"),
    ("multi_head_attention", ModelWidthInTheRoot, "divided by √d_model"),
    ("multi_head_attention", ContextIgnored, "keys and values come from the context"),
    ("multi_head_attention", PositionForgotten, "it was given nothing"),
    ("multi_head_attention", ValuesRotatedToo, "not on the values"),
    ("sliding_window_mask", window_of(lambda _: 0, lambda w: w + 1), "one key too many"),
    ("sliding_window_mask", window_of(lambda _: 0, lambda w: w - 1), "one key too few"),
    ("sliding_window_mask", window_of(lambda _: -99, lambda w: w), "the future is visible"),
    ("sliding_window_mask", window_of(lambda w: 1 - w, lambda w: w), "reaches ahead"),
    ("sliding_window_mask", window_of(lambda _: 0, lambda w: w, aligned=False), "top-left"),
    ("tiled_attention", tiles(rescale_total=False, rescale_mixed=False), "aren't rescaled"),
    ("tiled_attention", tiles(rescale_total=False), "the sum kept so far isn't rescaled"),
    ("tiled_attention", tiles(rescale_mixed=False), "the values kept so far aren't rescaled"),
    ("tiled_attention", tiles(stable=False), "maximum so far subtracted"),
    ("tiled_attention", tiles(start=0.0), "start at -inf, not at 0"),
    ("tiled_attention", tiles(power=1.0), "divided by d, not by √d"),
    ("tiled_attention", only_pretends_to_tile, "whole rows of scores are held"),
    ("tiled_attention", tiles_the_queries, "are the queries tiled, and not the keys"),
    ("tiled_attention", forgets_to_divide, "division by the sum, at the end, is missing"),
    ("sliding_window_mask", leaves_itself_out, "own key is left out"),
    ("masked_softmax", changes_its_input, "changed its input"),
    ("tiled_attention", a_softmax_for_each_tile, "a softmax of its own"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "wrong", "message"), WRONG, ids=[w[2] for w in WRONG])
def test_a_wrong_solution_is_told_its_mistake(part, wrong, message):
    with pytest.raises(Mistake, match=message):
        getattr(checks, part)(wrong)


# The parts, where shapes and masks are hostile.


@pytest.mark.parametrize(("t", "tk"), [(1, 1), (1, 40), (7, 3), (3, 7)])
def test_attention_equals_the_library_for_any_lengths(t, tk):
    q, k, v = qkv(t, tk)
    want = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(lab.attention(q, k, v), want, rtol=0, atol=1e-12)


def test_more_queries_than_keys_leave_the_first_queries_nothing():
    q, k, v = qkv(7, 3)
    answer = lab.attention(q, k, v, lab.causal_mask(7, 3))
    assert answer[:, :, :4].abs().max() == 0
    assert torch.equal(answer[:, :, 4], v[:, :, 0])  # the first that sees a key sees one alone


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_batch_of_nothing_but_padding_is_zero_with_gradient_zero(dtype):
    q, k, v = (x.requires_grad_() for x in qkv(4, dtype=dtype))
    mask = lab.cross_attention_mask(torch.tensor([0, 0, 0]), 4, 4)
    answer = lab.attention(q, k, v, mask)
    answer.float().square().sum().backward()
    assert answer.abs().max() == 0
    assert all(x.grad.abs().max() == 0 for x in (q, k, v))


def test_an_empty_source_leaves_its_neighbours_gradient_alone():
    q, k, v = (x.requires_grad_() for x in qkv(4))
    lab.attention(q, k, v, lab.cross_attention_mask(torch.tensor([0, 4, 2]), 4, 4)).sum().backward()
    assert v.grad[0].abs().max() == 0
    assert v.grad[1].abs().min() > 0
    assert v.grad[2, :, 2:].abs().max() == 0 < v.grad[2, :, :2].abs().min()


def test_large_scores_in_a_short_dtype_stay_finite():
    scores = torch.tensor([[6e4, -6e4, 6e4]], dtype=torch.float16)
    weights = lab.masked_softmax(scores, torch.tensor([[True, True, False]]))
    assert weights.tolist() == [[1.0, 0.0, 0.0]]


def test_the_gradient_of_masked_attention_is_the_finite_difference():
    q, k, v = (x[0, 0].clone().requires_grad_() for x in qkv(4, d=3))
    mask = lab.causal_mask(4, 4)
    mask[2] = False
    assert torch.autograd.gradcheck(lambda *x: lab.attention(*x, mask), (q, k, v))


@pytest.mark.parametrize("block", [1, 3, 7, 8, 100])
def test_tiles_give_the_same_answer_and_gradient_whatever_the_block(block):
    q, k, v = (x.requires_grad_() for x in qkv(5, 8))
    tiled = lab.tiled_attention(q, k, v, block)
    whole = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-12)
    for got, want in zip(
        torch.autograd.grad(tiled.square().sum(), (q, k, v)),
        torch.autograd.grad(whole.square().sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("t", "window"), [(1, 1), (1, 5), (9, 1), (9, 4), (9, 9), (9, 20)])
def test_a_window_on_its_own_keys_equals_the_band_mask(t, window):
    q, k, v = qkv(t)
    want = F.scaled_dot_product_attention(q, k, v, lab.sliding_window_mask(t, t, window))
    got = lab.local_attention(q, k, v, window)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_a_window_of_the_whole_length_is_the_causal_mask():
    assert torch.equal(lab.sliding_window_mask(3, 8, 8), lab.causal_mask(3, 8))
    assert not torch.equal(lab.sliding_window_mask(3, 8, 7), lab.causal_mask(3, 8))


def test_a_model_with_shared_heads_equals_one_with_the_heads_copied():
    shared = lab.MultiHeadAttention(16, 4, kv_heads=2, position=lab.rope).double()
    full = lab.MultiHeadAttention(16, 4, position=lab.rope).double()
    for mine, theirs in ((shared.k, full.k), (shared.v, full.v)):
        copied = mine.weight.unflatten(0, (2, 4)).repeat_interleave(2, 0).flatten(0, 1)
        theirs.load_state_dict({"weight": copied})
    full.q, full.out = shared.q, shared.out
    x = randn(2, 6, 16)
    torch.testing.assert_close(shared(x), full(x), rtol=0, atol=1e-12)


def test_rope_keeps_lengths_and_makes_scores_depend_on_the_distance():
    q, k = (randn(8, seed=seed).expand(12, -1) for seed in (0, 1))
    scores = lab.rope(q) @ lab.rope(k).mT
    torch.testing.assert_close(lab.rope(q).norm(dim=-1), q.norm(dim=-1), rtol=0, atol=1e-6)
    for distance in (0, 3, -5):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5)
    assert (scores[0, 0] - scores[3, 0]).abs() > 0.1


# What the recall experiment rests on.


def test_recall_puts_the_answer_after_the_keys_first_copy_and_nowhere_fixed():
    tokens = lab.recall_batch(200)
    first, keys, answers = tokens[:, : lab.FIRST], tokens[:, lab.KEYS], tokens[:, lab.ANSWERS]
    assert all(len(set(row)) == lab.FIRST for row in first.tolist())
    where = (first[:, None] == keys[..., None]).int().argmax(-1)  # (B, PAIRS)
    assert torch.equal(first.gather(1, where + 1), answers)
    assert len(set((torch.arange(lab.FIRST, tokens.shape[1], 2) - where).flatten().tolist())) > 15


def test_the_circuits_pairs_are_where_a_reader_would_look():
    tokens = lab.recall_batch(3)
    previous, copies = lab.circuit(tokens)
    assert copies.sum() == 3 * lab.PAIRS
    for row, query, key in copies.nonzero().tolist():
        assert tokens[row, key - 1] == tokens[row, query]
        assert tokens[row, key] == tokens[row, query + 1]
    assert previous[0].nonzero().tolist() == [[t, t - 1] for t in range(1, lab.FIRST)]


def test_hiding_everything_from_a_head_silences_it():
    layer = lab.MultiHeadAttention(16, 2).double()
    x, mask = randn(1, 6, 16), lab.causal_mask(6, 6).expand(2, -1, -1).clone()
    mask[0] = False
    without = layer(x, mask)
    with torch.no_grad():
        layer.out.weight[:, :8] = 0  # the first head's columns
    torch.testing.assert_close(without, layer(x, lab.causal_mask(6, 6)), rtol=0, atol=1e-12)


def test_mass_is_one_where_all_the_weight_is():
    pairs = torch.zeros(2, 4, 4, dtype=torch.bool)
    pairs[:, 2, 1] = pairs[:, 3, 0] = True
    weights = torch.stack((pairs, pairs.roll(1, -1)), 1).double()  # (B, H, T, T)
    assert lab.mass(weights, pairs) == [1.0, 0.0]


def test_attention_weights_are_those_that_the_module_uses():
    layer = lab.MultiHeadAttention(16, 4, kv_heads=2, position=lab.rope).double()
    x = randn(2, 6, 16)
    weights = lab.attention_weights(x, layer.q.weight, layer.k.weight, 4, lab.rope)
    values = layer.v(x).unflatten(-1, (2, 4)).transpose(1, 2).repeat_interleave(2, 1)
    got = layer.out((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(got, layer(x, lab.causal_mask(6, 6)), rtol=0, atol=1e-12)


def test_a_tensor_of_a_mebibyte_is_counted_as_one_and_freed_again():
    def twice():
        for _ in range(2):
            torch.empty(2**18)  # float32: 1 MiB, freed at once

    assert 2**20 <= lab.peak_bytes(twice) < 1.1 * 2**20


# The theory.


def test_the_entropy_of_many_gaussian_scores_is_what_the_expansion_says():
    n, draws = 256, 20_000
    scores = randn(draws, n)
    entropy = scores.logsumexp(-1) - (scores.softmax(-1) * scores).sum(-1)
    expected = math.log(n) - 0.5 + (math.e + 1) / (2 * n)
    assert abs(entropy.mean() - expected) < 4 * entropy.std() / math.sqrt(draws) + 1 / n**1.5
    assert abs(entropy.mean() - (expected - (math.e + 1) / (2 * n))) > 5 * entropy.std() / 141


def test_a_lead_that_is_exponential_gives_the_entropy_of_a_hard_choice():
    gap = torch.linspace(0, 60, 200_001, dtype=torch.float64)
    two = gap * torch.sigmoid(-gap) + F.softplus(-gap)  # entropy of two keys whose scores differ
    assert abs(torch.trapezoid(two, gap) - math.pi**2 / 6) < 1e-6
