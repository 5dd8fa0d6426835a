"""LLM06: its parts on unusual shapes and masks, its recall task, and the theory it quotes."""

import math

from labs.llm06_attention import lesson as lab

import pytest
import torch
import torch.nn.functional as F


def randn(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def qkv(t, tk=None, heads=2, kv_heads=None, d=8, dtype=torch.float64):
    """Return q, (B, H, T, D), and k and v, (B, Hkv, Tk, D)."""
    kv_shape = (3, kv_heads or heads, tk or t, d)
    q = randn(3, heads, t, d, dtype=dtype)
    k = randn(*kv_shape, dtype=dtype, seed=1)
    v = randn(*kv_shape, dtype=dtype, seed=2)
    return q, k, v


# The parts.


@pytest.mark.parametrize(("t", "tk"), [(1, 1), (1, 40), (7, 3), (3, 7)])
def test_attention_equals_the_library_for_any_lengths(t, tk):
    q, k, v = qkv(t, tk)
    want = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(lab.attention(q, k, v), want, rtol=0, atol=1e-12)


def test_with_more_queries_than_keys_the_first_queries_see_no_key():
    q, k, v = qkv(7, 3)
    mixed = lab.attention(q, k, v, lab.causal_mask(7, 3))
    assert mixed[:, :, :4].abs().max() == 0
    assert torch.equal(mixed[:, :, 4], v[:, :, 0])  # query 4 sees one key


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_batch_that_is_all_padding_gives_zeros_and_zero_gradients(dtype):
    q, k, v = (x.requires_grad_() for x in qkv(4, dtype=dtype))
    mask = lab.cross_attention_mask(torch.tensor([0, 0, 0]), 4, 4)
    mixed = lab.attention(q, k, v, mask)
    mixed.float().square().sum().backward()
    assert mixed.abs().max() == 0
    assert all(x.grad.abs().max() == 0 for x in (q, k, v))


def test_an_empty_source_does_not_change_its_neighbours_gradients():
    q, k, v = (x.requires_grad_() for x in qkv(4))
    lab.attention(q, k, v, lab.cross_attention_mask(torch.tensor([0, 4, 2]), 4, 4)).sum().backward()
    assert v.grad[0].abs().max() == 0
    assert v.grad[1].abs().min() > 0
    assert v.grad[2, :, 2:].abs().max() == 0 < v.grad[2, :, :2].abs().min()


def test_large_scores_in_float16_give_finite_weights():
    scores = torch.tensor([[6e4, -6e4, 6e4]], dtype=torch.float16)
    weights = lab.masked_softmax(scores, torch.tensor([[True, True, False]]))
    assert weights.tolist() == [[1.0, 0.0, 0.0]]


def test_the_gradient_of_masked_attention_equals_finite_differences():
    q, k, v = (x[0, 0].clone().requires_grad_() for x in qkv(4, d=3))
    mask = lab.causal_mask(4, 4)
    mask[2] = False
    assert torch.autograd.gradcheck(lambda *x: lab.attention(*x, mask), (q, k, v))


def test_shared_key_value_heads_equal_copied_ones():
    shared = lab.MultiHeadAttention(16, 4, kv_heads=2, position=lab.rope).double()
    full = lab.MultiHeadAttention(16, 4, position=lab.rope).double()
    for source, target in ((shared.k, full.k), (shared.v, full.v)):
        copied = source.weight.unflatten(0, (2, 4)).repeat_interleave(2, 0).flatten(0, 1)
        target.load_state_dict({"weight": copied})
    full.q = shared.q
    full.out = shared.out
    x = randn(2, 6, 16)
    torch.testing.assert_close(shared(x), full(x), rtol=0, atol=1e-12)


def test_rope_keeps_norms_and_its_scores_depend_on_the_distance_alone():
    q, k = (randn(8, seed=seed).expand(12, -1) for seed in (0, 1))
    scores = lab.rope(q) @ lab.rope(k).mT
    torch.testing.assert_close(lab.rope(q).norm(dim=-1), q.norm(dim=-1), rtol=0, atol=1e-6)
    for distance in (0, 3, -5):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5)
    assert (scores[0, 0] - scores[3, 0]).abs() > 0.1


# The recall task.


def test_the_answer_follows_the_first_copy_of_the_key_at_varying_distances():
    tokens = lab.recall_batch(200)
    first, keys, answers = tokens[:, : lab.FIRST], tokens[:, lab.KEYS], tokens[:, lab.ANSWERS]
    assert all(len(set(row)) == lab.FIRST for row in first.tolist())
    where = (first[:, None] == keys[..., None]).int().argmax(-1)  # (B, PAIRS)
    assert torch.equal(first.gather(1, where + 1), answers)
    assert len(set((torch.arange(lab.FIRST, tokens.shape[1], 2) - where).flatten().tolist())) > 15


def test_the_circuit_has_the_previous_token_and_the_token_after_the_first_copy():
    tokens = lab.recall_batch(3)
    previous, copies = lab.circuit(tokens)
    assert copies.sum() == 3 * lab.PAIRS
    for row, query, key in copies.nonzero().tolist():
        assert tokens[row, key - 1] == tokens[row, query]
        assert tokens[row, key] == tokens[row, query + 1]
    assert previous[0].nonzero().tolist() == [[t, t - 1] for t in range(1, lab.FIRST)]


def test_masking_all_keys_of_a_head_equals_zeroing_its_output():
    layer = lab.MultiHeadAttention(16, 2).double()
    x = randn(1, 6, 16)
    mask = lab.causal_mask(6, 6).expand(2, -1, -1).clone()  # (H, T, T)
    mask[0] = False
    without = layer(x, mask)
    with torch.no_grad():
        layer.out.weight[:, :8] = 0  # the first head's columns
    torch.testing.assert_close(without, layer(x, lab.causal_mask(6, 6)), rtol=0, atol=1e-12)


def test_mass_is_the_share_of_weight_on_the_pairs():
    pairs = torch.zeros(2, 4, 4, dtype=torch.bool)
    pairs[:, 2, 1] = pairs[:, 3, 0] = True
    weights = torch.stack((pairs, pairs.roll(1, -1)), 1).double()  # (B, H, T, T)
    assert lab.mass(weights, pairs) == [1.0, 0.0]


def test_attention_weights_equal_those_of_the_module():
    layer = lab.MultiHeadAttention(16, 4, kv_heads=2, position=lab.rope).double()
    x = randn(2, 6, 16)
    weights = lab.attention_weights(x, layer.q.weight, layer.k.weight, 4, lab.rope)
    values = layer.v(x).unflatten(-1, (2, 4)).transpose(1, 2).repeat_interleave(2, 1)
    got = layer.out((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(got, layer(x, lab.causal_mask(6, 6)), rtol=0, atol=1e-12)


# The theory that the prose quotes.


def test_the_expansion_predicts_the_entropy_of_many_gaussian_scores():
    n = 256
    draws = 20_000
    scores = randn(draws, n)
    entropy = scores.logsumexp(-1) - (scores.softmax(-1) * scores).sum(-1)
    expected = math.log(n) - 0.5 + (math.e + 1) / (2 * n)
    assert abs(entropy.mean() - expected) < 4 * entropy.std() / math.sqrt(draws) + 1 / n**1.5
    assert abs(entropy.mean() - (expected - (math.e + 1) / (2 * n))) > 5 * entropy.std() / 141


def test_an_exponential_lead_gives_the_entropy_of_a_hard_choice():
    gap = torch.linspace(0, 60, 200_001, dtype=torch.float64)
    two = gap * torch.sigmoid(-gap) + F.softplus(-gap)  # entropy of two keys whose scores differ
    assert abs(torch.trapezoid(two, gap) - math.pi**2 / 6) < 1e-6
