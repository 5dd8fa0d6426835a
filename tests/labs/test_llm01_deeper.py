"""LLM01+: generators on unusual prompts, and the theory that the lab quotes."""

import math
from functools import partial
from itertools import pairwise

from labs.kit import assets
from labs.llm01_inference import deeper as lab
from labs.llm01_inference import lesson, options, steps, stops
from labs.llm01_inference.diversity import SETTINGS, SampledBySettings, distinct, points_of
from labs.llm01_inference.rounding import growth, in_blocks, jackknife, with_layers_rounded
from labs.llm01_inference.search import beam_search

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = [[7, 8, 9, 300, 12], [5], [40, 41, 42, 43, 44, 45, 46, 47, 48], [3, 3, 3]]


@pytest.fixture(scope="module")
def glass():
    path = assets.glass()
    return AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


def logits(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def plain(model, prompt, new, end=()):
    """Write with the lesson's loop, which has no cache and no batch."""
    return list(lesson.generate(model, prompt, new, stop=end))


def test_p_values_of_a_right_sampler_are_uniform_and_rare_tokens_are_pooled():
    torch.manual_seed(0)
    p = torch.tensor([0.5, 0.3, 0.1999, 0.0001], dtype=torch.float64)
    found = torch.tensor(
        [
            lab.p_value(*lab.chi_squared(counts.bincount(minlength=4).double(), 1000 * p))
            for counts in (lesson.sample(p.log(), 1.0, 1000) for _ in range(400))
        ]
    )
    assert 0.4 < found.mean() < 0.6
    assert 0.02 < (found < 0.1).double().mean() < 0.18


def test_p_value_agrees_with_the_published_table():
    # χ² = 3.841 with one degree of freedom has p = 0.05
    off = math.sqrt(3.841459 * 500)
    counts = torch.tensor([1000 - off, 1000 + off])
    expected = torch.tensor([1000.0, 1000.0])
    statistic, freedom = lab.chi_squared(counts.double(), expected.double())
    assert (statistic, freedom) == (pytest.approx(3.841459), 1)
    assert lab.p_value(statistic, freedom) == pytest.approx(0.05, abs=1e-6)


def test_chi_squared_of_the_text_agrees_with_it():
    counts, expected = torch.tensor([60.0, 30, 10]), torch.tensor([67.0, 24, 9])
    statistic, freedom = lab.chi_squared(counts, expected)
    assert (statistic, freedom) == (pytest.approx(2.34, abs=0.005), 2)
    assert lab.p_value(statistic, freedom) == pytest.approx(math.exp(-statistic / 2))


def test_slope_of_the_entropy_is_the_variance_over_the_temperature_cubed():
    scores = logits(100)
    t = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    logp = (scores / t).log_softmax(-1)
    entropy = -(logp.exp() * logp).sum()
    (slope,) = torch.autograd.grad(entropy, t)
    p = logp.detach().exp()
    variance = (p * (scores - (p * scores).sum()) ** 2).sum()
    assert slope.item() == pytest.approx((variance / 1.7**3).item(), rel=1e-10)


def test_distinct_is_the_share_of_different_runs():
    assert distinct([1, 2, 3, 4, 5]) == 1
    assert distinct([1, 2] * 10, n=2) == 2 / 19
    assert distinct([1, 2, 1, 2, 1]) == 0.5  # the text's example


def test_the_recorded_likelihood_is_that_of_a_call_on_the_complete_text(glass):
    torch.manual_seed(0)
    by = SampledBySettings(control=[3])
    prompts = PROMPTS[:2]
    texts = lab.generate_batch(glass[0], prompts * len(SETTINGS), 9, [by.change], by.choose)
    points = [point for pairs in by.points(texts).values() for point in pairs]
    for prompt, text, point in zip(prompts * len(SETTINGS), texts, points, strict=True):
        (want,) = points_of(glass[0], [prompt + text], len(prompt))
        assert 3 not in text
        assert point == pytest.approx(want, abs=1e-4)
    greedy = plain(glass[0], prompts[0], 9)
    assert 3 in greedy or texts[0] == greedy


@pytest.mark.parametrize("new", [1, 2, 30])
def test_a_batch_of_any_lengths_gives_the_text_of_each_prompt_alone(glass, new):
    alone = [plain(glass[0], prompt, new) for prompt in PROMPTS]
    assert lab.generate_batch(glass[0], PROMPTS, new) == alone
    assert [len(text) for text in alone] == [new] * len(PROMPTS)


def test_an_end_token_ends_one_text_of_a_batch_and_no_other(glass):
    full = lab.generate_batch(glass[0], PROMPTS, 30)
    end = full[0][4]
    got = lab.generate_batch(glass[0], PROMPTS, 30, end=[end])
    for text, unstopped in zip(got, full, strict=True):
        stop = unstopped.index(end) + 1 if end in unstopped else 30
        assert text == unstopped[:stop]
    assert plain(glass[0], PROMPTS[0], 30, end=[end]) == got[0]


def test_a_penalty_does_not_count_padding_as_text(glass):
    penalty = partial(lesson.repetition_penalty, penalty=2.0)
    together = lab.generate_batch(glass[0], [[0, 5], PROMPTS[2]], 12, [penalty])
    assert together[1] == lab.generate_batch(glass[0], [PROMPTS[2]], 12, [penalty])[0]
    assert together[0] == lab.generate_batch(glass[0], [[0, 5]], 12, [penalty])[0]


@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("how", [{}, {"length_penalty": -1.0}, {"early_stopping": True}])
def test_beam_search_is_the_librarys(glass, beams, how):
    end = glass[1](".").input_ids[-1:]
    for prompt in PROMPTS:
        got = beam_search(glass[0], prompt, 15, beams, end=end, **how)
        theirs = {"num_beams": beams, **(how if beams > 1 else {})}
        assert got == lesson.library_text(glass[0], prompt, 15, eos_token_id=end, **theirs)


def test_one_beam_is_greedy(glass):
    for prompt in PROMPTS:
        assert beam_search(glass[0], prompt, 12, 1) == plain(glass[0], prompt, 12)


@pytest.mark.parametrize("how", ["prompt_lookup_num_tokens", "assistant_model"])
def test_guessing_ahead_writes_the_greedy_text_in_fewer_calls(glass, how):
    end = [glass[0].config.eos_token_id]
    prompt = glass[1]("Will you, won’t you, will").input_ids
    guess = {how: 8 if how == "prompt_lookup_num_tokens" else glass[0]}
    with steps.counted(glass[0]) as calls:
        got = lesson.library_text(glass[0], prompt, 24, eos_token_id=end, **guess)
    assert got == lab.our_generate(glass[0], prompt, 24, end)
    if how == "prompt_lookup_num_tokens":  # an assistant's own calls are counted, too
        assert len(calls) < 24


def test_the_text_before_a_stop_is_the_same_for_every_way_to_cut_it():
    torch.manual_seed(0)
    for _ in range(300):
        text = "".join("ab#"[i] for i in torch.randint(3, (30,)).tolist())
        ends = ["##a", "b#b#", "#a#"]
        places = [text.index(end) + len(end) for end in ends if end in text]
        first = min(places, default=None)
        complete = [end for end in ends if first and text[:first].endswith(end)]
        want = text[: first - max(map(len, complete))] if first else text
        cuts = sorted({0, 30, *torch.randint(30, (6,)).tolist()})
        pieces = [text[a:b] for a, b in pairwise(cuts)]
        assert "".join(lab.until_stop(pieces, ends)) == want


@pytest.mark.parametrize(
    ("pieces", "ends", "want"),
    [
        (["no", " stop", " here"], ["##"], "no stop here"),
        (["ends with #"], ["##"], "ends with #"),
        (["a b", " ## c", " d"], ["##"], "a b "),
        (["a#", "#b"], ["##"], "a"),
        (["aaa", "b!"], ["aab"], "a"),
        (["one STOP two END"], ["END", "STOP"], "one "),
        (["xa", "bcd"], ["abcd", "bc"], "xa"),
        (["xa", "bcd"], ["bc", "abc"], "x"),
    ],
)
def test_the_stop_that_is_complete_first_ends_the_text(pieces, ends, want):
    assert "".join(lab.until_stop(pieces, ends)) == want


def test_text_is_held_back_only_while_it_may_begin_a_stop():
    text, held = stops.shown_and_held(lab.until_stop, ["The", " cat #", " sat", " #"], ["##"])
    assert (text, held) == ("The cat # sat #", ["", "", "#", ""])
    assert all(stops.begins_a_stop(part, ["##"]) for part in held)
    late = partial(stops.until_the_end, lab.until_stop)
    text, held = stops.shown_and_held(late, ["The", " cat", " sat"], ["##"])
    assert (text, held) == ("The cat sat", ["", "The", "The cat"])
    assert not stops.begins_a_stop("The", ["##"])


def test_the_stop_of_the_text_is_shown_as_the_text_says():
    parts = [part for part in lab.until_stop(["a #", "b #", "#c", "d"], ["##"]) if part]
    assert parts == ["a ", "#b "]


def test_a_cached_loop_writes_what_the_loop_without_a_cache_writes(glass):
    for prompt in PROMPTS:
        assert lab.generate_cached(glass[0], prompt, 20) == plain(glass[0], prompt, 20)


def test_left_pad_fills_up_in_front_and_counts_the_positions_of_each_prompt():
    ids, mask, positions = lab.left_pad([[5, 6, 7], [8], [1, 2, 3, 4, 9]], 77)
    assert ids.tolist() == [[77, 77, 5, 6, 7], [77, 77, 77, 77, 8], [1, 2, 3, 4, 9]]
    assert mask.tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    assert positions.tolist() == [[0, 0, 0, 1, 2], [0, 0, 0, 0, 0], [0, 1, 2, 3, 4]]
    # a prompt may contain the id of the padding
    assert lab.left_pad([[77, 77, 5], [5]], 77)[1].tolist() == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize(
    ("window", "stride"), [(23, 1), (8, 7), (8, 3), (8, 1), (5, 4), (6, 3), (40, 6)]
)
def test_strided_loss_scores_each_token_once_in_the_window_that_ends_with_the_new_ones(
    window, stride
):
    ids = torch.randint(9, (23,), generator=torch.Generator().manual_seed(0))
    longest = []

    def model(inside):  # depends on all ids of the window
        longest.append(len(inside))
        seen = torch.nn.functional.one_hot(inside, 9).double().cumsum(0)  # (T, 9)
        return seen.sqrt() + 0.1 * torch.arange(9) * inside[:, None]

    total = 0.0
    end = min(window, len(ids))
    first = 1  # nothing predicts the first token
    while first < len(ids):
        begin = max(0, end - window)
        logp = model(ids[begin:end]).log_softmax(-1)
        total -= sum(logp[t - 1 - begin, ids[t]].item() for t in range(first, end))
        first, end = end, min(end + stride, len(ids))
    assert lab.strided_loss(model, ids, window, stride) == pytest.approx(total / 22, abs=1e-9)
    assert max(longest) <= window


def test_strided_loss_in_one_window_is_the_loss_that_the_model_computes(glass):
    ids = torch.arange(5, 70)
    with torch.no_grad():
        want = glass[0](ids[None], labels=ids[None]).loss.item()
    got = lab.strided_loss(lab.reads(glass[0]), ids, 65, 1)
    assert got == pytest.approx(want, abs=1e-5)
    assert lab.strided_loss(lab.reads(glass[0]), ids, 8, 7) != pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("how", [{}, {"block": 8}, {"block": 8, "least_to_largest": True}])
def test_rounding_moves_weights_by_half_a_step_at_most_to_2_to_the_bits_levels(bits, how):
    w = torch.randn(6, 32, generator=torch.Generator().manual_seed(0)).double()
    new = in_blocks(lab.rounded, w, bits, **how)
    blocks, before = (x.unflatten(-1, (-1, how.get("block", 32))) for x in (new, w))
    assert max(len(set(row.tolist())) for row in blocks.flatten(0, 1)) <= 2**bits
    if "least_to_largest" in how:
        step = (before.amax(-1) - before.amin(-1)) / (2**bits - 1)
    else:
        step = before.abs().amax(-1) / (2 ** (bits - 1) - 1)
    assert ((blocks - before).abs().amax(-1) <= step / 2 + 1e-12).all()
    again = in_blocks(lab.rounded, new, bits, **how)
    torch.testing.assert_close(again, new)  # rounding twice is rounding


def test_rounding_the_row_of_the_text_agrees_with_it():
    row = torch.tensor([0.7, -0.2, 0.05])
    torch.testing.assert_close(
        lab.rounded(row, 3), torch.tensor([0.7, -0.7 / 3, 0.0]), rtol=0, atol=1e-6
    )
    assert lab.rounded(torch.linspace(-1, 1, 9999), 4).unique().numel() == 15
    assert lab.rounded(torch.linspace(-1, 1, 9999), 8).unique().numel() == 255


def test_rounding_changes_all_matrices_of_layers_in_a_copy_and_nothing_else(glass):
    before = {name: w.clone() for name, w in glass[0].named_parameters()}
    net, error = with_layers_rounded(lab.rounded, glass[0], bits=3)
    for name, w in glass[0].named_parameters():
        assert torch.equal(w, before[name])
    for name, w in net.named_parameters():
        assert torch.equal(w, before[name]) != (".layers." in name and w.dim() == 2), name
    assert 0.1 < error < 0.5


def test_the_exponent_of_a_power_is_found_and_its_error_covers_noise():
    generator = torch.Generator().manual_seed(0)
    low = 0.1 * (1 + 0.2 * torch.randn(40, generator=generator).double())
    value, error = jackknife(growth(low, 2**2.5 * low, 2.0), 40)
    assert value == pytest.approx(2.5)
    assert error == pytest.approx(0, abs=1e-9)
    noisy = 2**2.5 * 0.1 * (1 + 0.2 * torch.randn(40, generator=generator).double())
    value, error = jackknife(growth(low, noisy, 2.0), 40)
    assert abs(value - 2.5) < 3 * error
    # the delta method: each mean has the relative error 0.2 / √40
    assert error == pytest.approx(math.sqrt(2 * 0.04 / 40) / math.log(2), rel=0.3)


def test_the_jackknife_of_a_mean_has_its_standard_error():
    numbers = torch.randn(25, generator=torch.Generator().manual_seed(1)).double()
    value, error = jackknife(lambda texts: numbers[texts].mean().item(), 25)
    assert value == pytest.approx(numbers.mean().item())
    assert error == pytest.approx(numbers.std().item() / 5)


def test_the_mean_ln_p_is_that_of_each_token_after_the_text_before_it(glass):
    prompts = PROMPTS[:2]
    texts = [[40, 41, 42], [7]]
    total = 0.0
    for prompt, text in zip(prompts, texts, strict=True):
        for i, token in enumerate(text):
            logp = lesson.logits_of(glass[0], prompt + text[:i])[-1].log_softmax(-1)
            total += logp[token].item()
    assert options.mean_of_ln_p(glass[0], prompts, texts) == pytest.approx(total / 4, abs=1e-4)


def test_losses_by_counting_agree_with_a_loop():
    generator = torch.Generator().manual_seed(0)
    v = 7
    k = 200.0
    seen, ids = (torch.randint(v, (n,), generator=generator) for n in (60, 20))
    words = seen.tolist()
    pairs = list(pairwise(words))
    p = {a: (words.count(a) + 1) / (len(words) + v) for a in range(v)}
    assert abs(sum(p.values()) - 1) < 1e-12
    text = ids.tolist()
    unigram = [-math.log(p[b]) for b in text[1:]]
    bigram = [
        -math.log((pairs.count((a, b)) + k * p[b]) / (words.count(a) + k))
        for a, b in pairwise(text)
    ]
    got = lab.losses_by_counting(seen, ids, v)
    assert abs(got[0] - sum(unigram) / len(unigram)) < 1e-9
    assert abs(got[1] - sum(bigram) / len(bigram)) < 1e-9


def test_one_call_yields_the_right_guesses_and_one_token_of_the_model():
    assert lab.accept([5, 6, 7], [5, 6, 1, 2]) == [5, 6, 1]  # the text's a, b, x
    assert lab.accept([5, 6, 7], [5, 6, 7, 8]) == [5, 6, 7, 8]
    assert lab.accept([5], [4, 9]) == [4]
    assert lab.accept([], [4]) == [4]


def test_the_other_sign_of_a_rounding_is_its_mirror_image(glass):
    def weight(net):
        return net.model.layers[0].mlp.up_proj.weight

    up, error = with_layers_rounded(lab.rounded, glass[0], bits=3)
    down, same = with_layers_rounded(lab.rounded, glass[0], sign=-1, bits=3)
    torch.testing.assert_close(weight(up), lab.rounded(weight(glass[0]), 3))
    torch.testing.assert_close((weight(up) + weight(down)) / 2, weight(glass[0]))
    assert error == same
