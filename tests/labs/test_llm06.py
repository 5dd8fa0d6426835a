"""LLM06: its parts on unusual shapes and masks, its recall task, and the theory it quotes."""

import math

from labs.kit.records import View
from labs.kit.report import views
from labs.llm06_attention import attention_maps, dates, five_words, recall
from labs.llm06_attention import lesson as lab
from tests.browser import page_of

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
    mask = lab.padding_mask(torch.tensor([0, 0, 0]), 4, 4)
    mixed = lab.attention(q, k, v, mask)
    mixed.float().square().sum().backward()
    assert mixed.abs().max() == 0
    assert all(x.grad.abs().max() == 0 for x in (q, k, v))


def test_an_empty_source_does_not_change_its_neighbours_gradients():
    q, k, v = (x.requires_grad_() for x in qkv(4))
    lab.attention(q, k, v, lab.padding_mask(torch.tensor([0, 4, 2]), 4, 4)).sum().backward()
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
    shared = lab.MultiHeadAttention(16, 4, kv_heads=2, position=recall.rope).double()
    full = lab.MultiHeadAttention(16, 4, position=recall.rope).double()
    for source, target in ((shared.k_proj, full.k_proj), (shared.v_proj, full.v_proj)):
        copied = source.weight.unflatten(0, (2, 4)).repeat_interleave(2, 0).flatten(0, 1)
        target.load_state_dict({"weight": copied})
    full.q_proj = shared.q_proj
    full.o_proj = shared.o_proj
    x = randn(2, 6, 16)
    torch.testing.assert_close(shared(x), full(x), rtol=0, atol=1e-12)


def test_rope_keeps_norms_and_its_scores_depend_on_the_distance_alone():
    q, k = (randn(8, seed=seed).expand(12, -1) for seed in (0, 1))
    scores = recall.rope(q) @ recall.rope(k).mT
    torch.testing.assert_close(recall.rope(q).norm(dim=-1), q.norm(dim=-1), rtol=0, atol=1e-6)
    for distance in (0, 3, -5):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5)
    assert (scores[0, 0] - scores[3, 0]).abs() > 0.1


@pytest.mark.parametrize("shape", [(6,), (2, 6), (2, 3, 6)])
def test_heads_take_any_leading_dimensions(shape):
    layer = lab.MultiHeadAttention(16, 4, kv_heads=2).double()
    x = randn(*shape, 16)
    rows = layer(x.flatten(0, -3), lab.causal_mask(6, 6)) if x.dim() > 2 else layer(x[None])[0]
    mask = lab.causal_mask(6, 6) if x.dim() > 2 else None
    torch.testing.assert_close(layer(x, mask), rows.reshape(x.shape), rtol=0, atol=1e-12)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="3 heads don't divide a width of 10"):
        lab.MultiHeadAttention(10, 3)
    with pytest.raises(ValueError, match="4 key-value heads don't divide 6 query heads"):
        lab.MultiHeadAttention(12, 6, kv_heads=4)
    assert lab.MultiHeadAttention(10, 3, head_dim=4).o_proj.weight.shape == (10, 12)


# The worked example, and the dates.


def test_the_view_has_the_vectors_of_the_worked_example():
    data, _, columns, rows = five_words.view()
    x = five_words.features("the dog saw its tail")
    for index, q in zip(data["sentence"], (x @ five_words.W_Q).tolist(), strict=True):
        assert data["words"][index]["q"] == q
    assert len(columns) == len(rows[0]) == 6
    assert [sum(row[1:]) for row in rows] == pytest.approx([1.0] * 5)


def test_the_page_computes_the_worked_example_with_and_without_a_mask(browser, tmp_path):
    data, caption, columns, _ = five_words.view()
    path = tmp_path / "views" / "five_words.json"
    views.write(data, path)
    page = tmp_path / "page.html"
    view = View("five_words", "sentence", caption, columns, [], path)
    page.write_text(views.document(view), "utf-8")
    x = five_words.features("the dog saw its tail")
    q, k, v = (x @ matrix for matrix in (five_words.W_Q, five_words.W_K, five_words.W_V))
    with page_of(browser, page, 1280, "light") as shown:
        both = shown.locator(".view-live", has_text="“its” looks at dog, tail, weight 0.49 each.")
        both.wait_for(state="attached")
        row = shown.locator("tbody tr").nth(3).locator("td")
        for mask in (None, lab.causal_mask(5, 5)):
            output = lab.attention(q, k, v, mask)[3].tolist()
            shown_output = row.last.text_content().strip("()").split(", ")
            assert [float(number) for number in shown_output] == pytest.approx(output, abs=0.005)
            shown.get_by_role("checkbox").click()
        shown.get_by_label("second word").select_option("chased")
        assert row.nth(4).text_content() == "0.95", "the tail is the only noun left"
        shown.locator("tbody button").nth(2).press("Enter")
        assert "“saw” is (3, 0)" in shown.locator(".view-title").text_content()


def test_no_date_of_the_test_is_one_of_the_training():
    assert not set(dates.TRAINING_YEARS) & set(dates.TEST_YEARS)
    source, lengths, _ = dates.Sampler(3, dates.TEST_YEARS).batch(100)
    for row, length in zip(source, lengths.tolist(), strict=True):
        year = "".join(dates.CHARACTERS[i - 1] for i in row[length - 4 : length].tolist())
        assert int(year) in dates.TEST_YEARS


def test_a_sampled_date_is_written_in_two_ways_and_padded():
    source, lengths, target = dates.Sampler(0).batch(200)
    digits = {dates.CHARACTERS[i - 1] for i in target.flatten().tolist()}
    assert digits == set("-0123456789")
    for row, length, written in zip(source, lengths.tolist(), target.tolist(), strict=True):
        text = "".join(dates.CHARACTERS[i - 1] for i in row[:length].tolist())
        year = "".join(dates.CHARACTERS[i - 1] for i in written[:4])
        assert text.endswith(year)
        assert row[length:].tolist() == [0] * (dates.SOURCE - length)
    assert source[:, 0].lt(14).any(), "some begin with the day"
    assert source[:, 0].ge(14).any(), "some begin with the month"
    assert len(max(dates.MONTHS, key=len)) + len(" 28, 1999") == dates.SOURCE


def test_a_knock_out_hides_the_digit_or_the_character_before_it():
    source, lengths, target = dates.Sampler(0).batch(20)
    places = dates.places_of_the_year(lengths)
    assert torch.equal(source.gather(1, places), target[:, :4])
    mask = lab.padding_mask(lengths, dates.TARGET, dates.SOURCE)
    masks = dates.knock_outs(mask, places)
    assert torch.equal(masks["nothing"], mask)
    for name, shift in (("digit", 0), ("neighbour", 1)):
        hidden = (mask & ~masks[name]).nonzero().tolist()
        expected = [[row, 0, i, places[row, i] - shift] for row in range(20) for i in range(4)]
        assert hidden == expected, name


# The recall task.


def test_the_answer_follows_the_first_copy_of_the_key_at_varying_distances():
    tokens = recall.recall_batch(200)
    first, keys, answers = (
        tokens[:, : recall.FIRST],
        tokens[:, recall.KEYS],
        tokens[:, recall.TARGETS],
    )
    assert all(len(set(row)) == recall.FIRST for row in first.tolist())
    where = (first[:, None] == keys[..., None]).int().argmax(-1)  # (B, PAIRS)
    assert torch.equal(first.gather(1, where + 1), answers)
    assert (
        len(set((torch.arange(recall.FIRST, tokens.shape[1], 2) - where).flatten().tolist())) > 15
    )


def test_the_circuit_has_the_previous_token_and_the_token_after_the_first_copy():
    tokens = recall.recall_batch(3)
    previous, copies = recall.circuit(tokens).values()
    assert copies.sum() == 3 * recall.PAIRS
    for row, query, key in copies.nonzero().tolist():
        assert tokens[row, key - 1] == tokens[row, query]
        assert tokens[row, key] == tokens[row, query + 1]
    assert previous[0].nonzero().tolist() == [[t, t - 1] for t in range(1, recall.FIRST)]


def test_the_control_asks_for_the_token_before_each_query():
    tokens, before = recall.previous_batch(3)
    for i in range(recall.PAIRS):
        assert torch.equal(before[:, i], tokens[:, recall.FIRST + 2 * i - 1])


def test_masking_all_keys_of_a_head_equals_zeroing_its_output():
    layer = lab.MultiHeadAttention(16, 2).double()
    x = randn(1, 6, 16)
    mask = lab.causal_mask(6, 6).expand(2, -1, -1).clone()  # (H, T, T)
    mask[0] = False
    without = layer(x, mask)
    with torch.no_grad():
        layer.o_proj.weight[:, :8] = 0  # the first head's columns
    torch.testing.assert_close(without, layer(x, lab.causal_mask(6, 6)), rtol=0, atol=1e-12)


def test_a_score_is_the_share_of_weight_on_the_pairs():
    pairs = torch.zeros(2, 4, 4, dtype=torch.bool)
    pairs[:, 2, 1] = pairs[:, 3, 0] = True
    weights = torch.stack((pairs, pairs.roll(1, -1)), 1).double()  # (B, H, T, T)
    assert lab.head_scores(weights, pairs).tolist() == [1.0, 0.0]


def test_attention_weights_equal_those_of_the_module():
    layer = lab.MultiHeadAttention(16, 4, kv_heads=2, position=recall.rope).double()
    x = randn(2, 6, 16)
    weights = attention_maps.attention_weights(x, layer.q_proj.weight, layer.k_proj.weight, 4)
    values = layer.v_proj(x).unflatten(-1, (2, 4)).transpose(1, 2).repeat_interleave(2, 1)
    got = layer.o_proj((weights @ values).transpose(1, 2).flatten(2))
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
