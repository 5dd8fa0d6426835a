"""The small GPT of LLM05a and LLM05b: model, text and training."""

import io
import math
from collections import Counter
from functools import partial
from pathlib import Path

from common.options import Settings
from labs.kit.run.console import Output
from labs.kit.run.run import Run
from labs.shared import small_gpt
from labs.shared.small_gpt import Config, Learned, Position

import pytest
import torch
from torch import nn

V = 11
A_BLOCK = partial(Config, V, layers=1, d_model=16, heads=2)


class Biased(Position):
    """A bias of zeros."""

    def bias(self, heads, length):
        return torch.zeros(heads, length, length)


class Backwards(Position):
    """Multiplies every second query and key by −1."""

    def turn(self, x):
        return x * (1 - 2 * (torch.arange(x.shape[-2]) % 2))[:, None]


def model(config):
    torch.manual_seed(0)
    return small_gpt.LanguageModel(config).double()


def tokens(n=2, t=9, seed=0):
    return torch.randint(V, (n, t), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("position", [Position, Biased])
def test_a_block_equals_torchs_encoder_layer_with_its_weights(placement, position):
    ours = model(A_BLOCK(placement=placement, position=position))
    attention = ours.blocks[0].attention.branch
    ffn = ours.blocks[0].ffn.branch
    theirs = nn.TransformerEncoderLayer(
        16, 2, 64, 0.0, "gelu", batch_first=True, norm_first=placement == "pre", bias=False
    ).double()
    stacked = torch.cat([attention.q.weight, attention.k.weight, attention.v.weight])
    theirs.load_state_dict(
        {
            **theirs.state_dict(),
            "self_attn.in_proj_weight": stacked,
            "self_attn.out_proj.weight": attention.out.weight,
            "linear1.weight": ffn.up.weight,
            "linear2.weight": ffn.down.weight,
        }
    )
    x = torch.randn(3, 7, 16, dtype=torch.float64)
    ahead = torch.ones(7, 7, dtype=torch.bool).triu(1)
    got = ours.blocks[0](x, ours.position)
    torch.testing.assert_close(got, theirs(x, ahead), rtol=0, atol=1e-12)


@pytest.mark.parametrize("position", [Position, partial(Learned, 9, 16), Biased, Backwards])
@pytest.mark.parametrize("placement", small_gpt.PLACEMENTS)
def test_no_logit_depends_on_later_tokens(position, placement):
    decoder = model(A_BLOCK(position=position, placement=placement))
    x = tokens()
    changed = x.clone()
    changed[:, 5:] = (x[:, 5:] + 1) % V
    before = decoder(x)
    after = decoder(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] - after[:, 5:]).abs().amax(-1).min() > 1e-3


def test_without_heads_each_token_is_processed_alone():
    x = tokens(1)
    for config, same in ((A_BLOCK(heads=0), True), (A_BLOCK(), False)):
        decoder = model(config)
        one_by_one = torch.cat([decoder(x[:, [i]]) for i in range(x.shape[1])], 1)
        assert torch.allclose(decoder(x), one_by_one, atol=1e-12) is same


def test_positions_act_on_the_scores():
    x = tokens()
    change = model(A_BLOCK())(x) - model(A_BLOCK(position=Backwards))(x)
    assert change[:, 0].abs().max() < 1e-12  # the first token sees itself alone
    assert change[:, 1:].abs().max() > 1e-3


def test_the_number_of_parameters_follows_the_formula():
    d = 16
    layers = 3
    t = 9
    for placement, norms in (("pre", 2 * layers + 1), ("post", 2 * layers)):
        config = Config(V, layers, d, 2, placement=placement, position=partial(Learned, t, d))
        matrices = layers * (4 * d * d + 2 * d * 4 * d)
        assert small_gpt.parameters(model(config)) == 2 * V * d + t * d + matrices + norms * 2 * d
    bare = Config(V, 2, d, 0, norm=nn.Identity, ffn=partial(small_gpt.FeedForward, d_ff=5))
    assert small_gpt.parameters(model(bare)) == 2 * V * d + 2 * 2 * d * 5


def test_at_the_start_logits_have_a_variance_of_about_one():
    config = Config(82, layers=4, position=partial(Learned, 64, 64))
    logits = model(config)(torch.randint(82, (8, 64)))
    assert 0.5 < logits.var(-1).mean() < 2


# The text.


def test_the_numbers_decode_to_the_text_and_its_parts_do_not_overlap():
    corpus = small_gpt.shakespeare()
    text = small_gpt.assets.shakespeare()
    assert len(corpus.characters) == len(set(text))
    assert "".join(corpus.characters[i] for i in corpus.train[:500]) == text[:500]
    assert "".join(corpus.characters[i] for i in corpus.validation[-500:]) == text[-500:]
    assert len(corpus.train) + len(corpus.validation) == len(text)


def test_batches_are_windows_of_the_training_text_from_end_to_end():
    corpus = small_gpt.Corpus(torch.arange(10), torch.arange(10, 20), "")
    drawn = corpus.batch(500, 3, torch.Generator().manual_seed(0))
    assert {tuple(row) for row in drawn.tolist()} == {tuple(range(i, i + 4)) for i in range(7)}


def test_validation_windows_reach_from_the_first_character_to_the_last():
    corpus = small_gpt.Corpus(torch.arange(10), torch.arange(10, 20), "")
    assert corpus.windows(3, 3).tolist() == [
        [10, 11, 12, 13],
        [13, 14, 15, 16],
        [16, 17, 18, 19],
    ]


def test_unigram_and_bigram_equal_the_entropies_counted_by_hand():
    windows = tokens(20, 30)
    following = windows[:, 1:].flatten().tolist()
    last = windows[:, :-1].flatten().tolist()
    n = len(following)
    singles = Counter(following)
    firsts = Counter(last)
    pairs = Counter(zip(last, following, strict=True))
    want = -sum(c * math.log(c / n) for c in singles.values()) / n
    assert small_gpt.unigram(windows) == pytest.approx(want, abs=1e-12)
    want = -sum(c * math.log(c / firsts[pair[0]]) for pair, c in pairs.items()) / n
    assert small_gpt.bigram(windows) == pytest.approx(want, abs=1e-12)


# The training.


def test_the_rate_rises_to_one_and_falls_to_almost_zero():
    shares = [small_gpt.lr_at(step, 10, 4) for step in range(10)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[5:] == pytest.approx([5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert small_gpt.lr_at(0, 10, 0) == 1


@pytest.fixture(scope="module")
def run():
    return Run(Settings(), "fp32", Output(io.StringIO()), Path("nowhere"))


COUNTING = small_gpt.Corpus(torch.arange(3000) % V, torch.arange(3000) % V, "")
TRAIN = {"steps": 60, "lr": 1e-2, "batch": 4, "length": 8}


def test_training_learns_and_the_same_seed_gives_the_same_curves(run):
    trained = [
        small_gpt.train(run, A_BLOCK(heads=0), COUNTING, seed=seed, **TRAIN) for seed in (1, 1, 2)
    ]
    first, again, other = trained
    assert first.losses[0] > 2 > 0.5 > first.losses[-1]
    assert (first.losses, first.gradient_norms) == (again.losses, again.gradient_norms)
    assert first.losses != other.losses
    loss = small_gpt.nats(first.model, COUNTING.windows(5, 8))
    assert loss.shape == (5, 8)
    assert loss.mean() < 0.5


def test_training_continues_with_a_copy_of_a_model(run):
    first = small_gpt.train(run, A_BLOCK(heads=0), COUNTING, seed=1, **TRAIN)
    before = first.model.embedding.weight.clone()
    second = small_gpt.train(run, first.model, COUNTING, seed=2, **TRAIN)
    assert torch.equal(first.model.embedding.weight, before)
    assert not torch.equal(second.model.embedding.weight, before)
    assert second.losses[0] < 0.5 < first.losses[0]


def test_training_shows_each_steps_gradients_to_a_watcher(run):
    sizes = []

    def watch(step, model):
        sizes.append((step, model.unembedding.weight.grad.norm().item()))

    trained = small_gpt.train(run, A_BLOCK(heads=0), COUNTING, seed=1, watch=watch, **TRAIN)
    assert [step for step, _ in sizes] == list(range(60))
    assert all(
        0 < size < norm for (_, size), norm in zip(sizes, trained.gradient_norms, strict=True)
    )


def test_clipping_changes_training_and_the_norm_before_it_is_recorded(run):
    free, clipped = (
        small_gpt.train(run, A_BLOCK(heads=0), COUNTING, seed=1, clip=clip, **TRAIN)
        for clip in (math.inf, 1e-3)
    )
    assert free.gradient_norms[0] == clipped.gradient_norms[0] > 0.1
    assert free.losses[5] != clipped.losses[5]


def test_each_loss_is_that_of_the_next_character():
    decoder = model(A_BLOCK())
    windows = tokens(3, 9)
    log_p = decoder(windows[:, :-1]).log_softmax(-1)
    loss = small_gpt.nats(decoder, windows)
    assert loss[1, 4] == pytest.approx(-log_p[1, 4, windows[1, 5]].item())
