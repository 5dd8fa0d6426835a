# %% [markdown]
# # LLM06 · Attention
# What a token does when it looks at the others: from one weighted average to the heads of SmolLM2.
#
# **You will be able to** write attention by hand and prove it equal to PyTorch's; mask it without
# leaks or NaN; find the two heads that let a model copy, and prove that they do it. **Builds on**
# softmax and matrix products (LLM02 and LLM03). **Takes** an hour to read, a minute to run
# (`tiny`, 2 cores).

# %% Imports
import math
from functools import cache, partial
from statistics import median
from typing import Any

from labs.kit import Lab, Results, Run, assets, on_one_thread, tolerance
from labs.llm06_attention import head_patterns

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

lab = Lab("LLM06")
lab.argument("--model", help="a Llama-like model instead of SmolLM2: a folder, or a hub id")
lab.before_run(assets.check_model)
LENGTHS = torch.tensor([50, 0, 7])  # of padded sources: a whole one, an empty one, a short one

# %% [markdown]
# ## 1. A dictionary that averages
# A dictionary compares your **query** with its **keys** and returns the **value** of the one that
# is equal. Attention does so softly, so that it can be learned: it compares the query with *every*
# key by a dot product, makes of these scores positive weights that sum to one (softmax), and
# returns the values' average under them. Take the query (2, 0) and the keys (1, 0) and (0, 1): the
# scores are 2 and 0, the weights 0.88 and 0.12, so 88 % of the answer is the first value.
#
# In a transformer learned matrices make all three from each token's vector $x$: $q = W_q x$ says
# what it looks for, $k = W_k x$ what it can be found by, $v = W_v x$ what it hands over. Stacked
# for all tokens, attention is (Vaswani et al. 2017, eq. 1)
#
# $$\text{softmax}\left(\frac{Q K^\top}{\sqrt d}\right) V$$
#
# A **mask** says which keys a query may look at. It acts *before* the softmax, so that what is
# hidden gets weight 0 and the rest still sums to one. A query that may look at nothing, as in
# padded batches, would get 0/0: we say 0, as PyTorch's kernel does. (With a large negative number
# for $-\infty$ and nothing more, it would quietly average all that was to be hidden.)
#
# **Why $\sqrt d$?** (For the curious; the experiment shows it too.) If the entries of $q$ and $k$
# are independent with variance 1, $q \cdot k$ sums $d$ products and has variance $d$; divided by
# $\sqrt d$, it has variance 1 at any width. Draw $n$ such scores $s_i$; let $Z = \sum_i e^{s_i}$
# and $p_i = e^{s_i}/Z$. The entropy of the weights is $H = \ln Z - \sum_i p_i s_i$. For many keys
# $Z \approx n\,\text{E}[e^s] = n\sqrt e$ and
# $\sum_i p_i s_i \approx \text{E}[s e^s]/\text{E}[e^s] = 1$, so
#
# $$H \approx \ln n - \frac{1}{2}$$
#
# and the next term is $(e + 1)/(2n)$. For 256 keys that is 5.045, where an even spread is 5.545:
# untrained, a query looks almost everywhere.
#
# Undivided, the scores spread by $\sqrt d$. Above $\sqrt{2\ln n} = 3.3$ a handful of keys hold
# nearly all (so freezes the random energy model, Derrida 1981); far above it the largest alone
# does: its lead is exponential with mean $\sqrt d/\sqrt{2\ln n}$, which gives, for
# $\sqrt d \gg 3.3$,
#
# $$H \approx \frac{\pi^2}{6}\sqrt{\frac{2\ln n}{d}}$$
#
# That is a hard choice before anything is learned, with hardly a gradient to learn from.


# %% Scaled dot-product attention
@lab.exercise(
    level=1,
    hints=(
        "The mask acts on the scores: what is hidden must not even enter the softmax's sum.",
        "A row of nothing but -inf is 0/0. Which lowest number would leave a softmax defined?",
        "Fill with the lowest finite number, and set hidden weights to 0 once more at the end.",
    ),
)
def masked_softmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax of (..., Tq, Tk) where the boolean mask is True, 0 elsewhere, whole rows too."""
    if mask is None:
        return scores.softmax(-1)
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask, lowest).softmax(-1).masked_fill(~mask, 0.0)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """(..., Tq, D), (..., Tk, D), (..., Tk, Dv) -> (..., Tq, Dv)."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])  # (..., Tq, Tk)
    return masked_softmax(scores, mask) @ v


# %% Why the scores are divided
@lab.experiment
def scaling_keeps_the_entropy(run: Run):
    """Divided by √d, the weights' entropy stays at ln n − ½ at any width; undivided it collapses.

    Predict: 256 keys, d = 1,024, nothing trained. How many keys share the weight without √d?
    """
    n, rows, excess = 256, [], []
    for d in (16, 64, 256, 1024):
        s = torch.randn(64, 32, d) @ torch.randn(64, d, n)  # (sets of keys, queries, keys)
        s = torch.stack((s / math.sqrt(d), s))
        scaled, raw = (s.logsumexp(-1) - (s.softmax(-1) * s).sum(-1)).mean(-1)  # one for each set
        excess.append(abs(scaled.mean() - math.log(n) + 0.5) - 4 * scaled.std() / 8)
        rows.append([d, scaled.mean().item(), raw.mean().item()])
        rows[-1].append(math.pi**2 / 6 * math.sqrt(2 * math.log(n) / d))
    run.table("Entropy (nats)", ["d", "divided", "undivided", "theory for large d"], rows)
    bound, because = (math.e + 1) / n, "twice the next term of the expansion, (e + 1)/2n"
    what = "divided by √d: entropy's distance from ln n − ½, less four standard errors"
    run.check(what, excess, at_most=bound, because=because, decides=True)
    bound, because = 2 * rows[-1][3], "twice the theory; an even spread has 5.545"
    what = "undivided: entropy at d = 1,024"
    run.check(what, rows[-1][2], at_most=bound, because=because, decides=True)
    shared, alone = math.exp(rows[-1][1]), math.exp(rows[-1][2])
    return f"At d = 1,024 some {shared:.0f} keys (e^H) share the weight; without √d {alone:.1f}."


# %% [markdown]
# ## 2. Masks
# A language model predicts the next token, so a query may look at keys up to its own: the
# **causal** mask is a lower triangle. With a cache there are more keys than queries, which are the
# *last* ones then: the triangle sits at the bottom right, and the last query sees every key. In
# **cross-attention** a decoder's queries look at an encoder's keys: none is in the future, but
# short sources were padded, and no query may look at padding. (What padded *queries*
# answer, the loss throws away.)


# %% Masks
def causal_mask(tq: int, tk: int, device: torch.device | None = None) -> Tensor:
    """(Tq, Tk), True where a query may look: the queries are the last Tq of Tk positions."""
    return torch.ones(tq, tk, dtype=torch.bool, device=device).tril(tk - tq)


@lab.exercise(
    level=1,
    hints=(
        "A key is real where its index is less than its source's length: (B, Tk).",
        "Every head and every query sees the same keys: two axes of size 1 are missing.",
        "Index with [:, None, None, :], then expand the query axis to tq.",
    ),
)
def cross_attention_mask(source_lengths: Tensor, tq: int, tk: int) -> Tensor:
    """(B,) lengths of right-padded sources -> (B, 1, Tq, Tk), True where a query may look."""
    mask = torch.arange(tk, device=source_lengths.device) < source_lengths[:, None]  # (B, Tk)
    return mask[:, None, None, :].expand(-1, 1, tq, -1)  # (B, 1, Tq, Tk)


@lab.experiment
def no_gradient_reaches_the_future(run: Run):
    """No answer has a gradient towards a later token, if the mask comes before the softmax."""
    past, x = causal_mask(16, 16), torch.randn(16, 8, dtype=torch.float64)
    future = torch.arange(16) > torch.arange(16)[:, None]  # told without the mask under test
    ways = (lambda x: attention(x, x, x, past), lambda x: ((x @ x.mT).softmax(-1) * past) @ x)
    slopes = [torch.func.jacrev(lambda x, f=f: f(x).sum(-1))(x) for f in ways]  # (Tq, Tk, D)
    right, wrong = (slope.abs().amax(-1) for slope in slopes)  # (Tq, Tk)
    ahead = right[future].max()
    because = "nothing added"
    run.check("largest towards the future", ahead, at_most=0, because=because, decides=True)
    partner: dict[str, Any] = {"at_least": 1e-9}
    partner["because"] = "so a gradient would be seen; rounding gives 1e-16"
    run.check("smallest towards the past", right[~future].min(), **partner)
    run.check("median future, masked after the softmax", wrong[future].median(), **partner)


@lab.experiment
def is_causal_aligns_top_left(run: Run):
    """PyTorch's `is_causal=True` aligns top-left: with a cache, a new query sees the wrong keys.

    Predict: one new query, 64 cached keys, `is_causal=True`. Which keys does it see?
    """
    q, k, v = torch.randn(3, 32, 8, 64, 16, dtype=torch.float64)  # (B, H, T, D) each
    library, new = F.scaled_dot_product_attention, q[:, :, -1:]  # one query and a full cache
    trusting, masked = library(new, k, v, is_causal=True), library(new, k, v, causal_mask(1, 64))
    want = library(q, k, v, is_causal=True)[:, :, -1:]
    run.agree("its answer, less the first value", trusting - v[:, :, :1], decides=True)
    run.agree("with our mask, less the last answer of the whole", masked - want)
    error = (trusting - want).square().mean().sqrt()
    because = "v₁ − Σpv has variance 1 − 2/64 + Σp²: 1.004 in theory, ± 0.011 over draws"
    what = "its error, in spreads of a value"
    run.check(what, error, at_least=0.9, because=because, decides=True)


# %% [markdown]
# ## 3. A set has no order
# Nothing in the formula knows *where* a key stands: shuffle the tokens, and the answers are
# shuffled alike. A mask or positions end this. **RoPE** (Su et al. 2021) rotates pairs of
# coordinates of $q$ and $k$ by angles that grow with position. Turning both by the same angle
# leaves $q \cdot k$ as it is, so it depends on the distance alone. (Slow angles tell far positions
# apart; base 100 is enough for our 32 positions, Llama takes 10,000 and more.)


# %% Order
def rope(x: Tensor, base: float = 100.0) -> Tensor:
    """Rotate (..., T, D) by position; coordinate i is paired with i + D/2, as in Llama."""
    t, d = (torch.arange(size, device=x.device) for size in x.shape[-2:])
    angle = t[:, None] * base ** (-d[::2] / len(d))  # (T, D/2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


SAME: dict[str, Any] = {"at_most": 1e-12, "because": "float64 rounding"}
CHANGED: dict[str, Any] = {"at_least": 1e-2, "because": "the values are of size 1"}


@lab.experiment
def attention_alone_sees_a_set(run: Run):
    """Permuting the tokens permutes the answers; a causal mask or positions put an end to that."""
    x, order = torch.randn(64, 32, dtype=torch.float64), torch.randperm(64)
    for name, f, bound in (
        ("no mask, no positions", lambda x: attention(x, x, x), SAME),
        ("causal", lambda x: attention(x, x, x, causal_mask(64, 64)), CHANGED),
        ("rotary positions", lambda x: attention(rope(x), rope(x), x), CHANGED),
    ):
        change = (f(x[order]) - f(x)[order]).abs().max()
        run.check(f"change, {name}", change, **bound, decides=True)


# %% [markdown]
# ## 4. Heads
# One softmax makes one choice. To fetch the subject *and* the verb a token needs two: so there are
# $H$ **heads** of width $D$, and a last matrix mixes their answers (Vaswani et al. 2017, §3.2.2).
# Mind the axes: a projection gives `(B, T, H * D)`, the heads one after another; naming them gives
# `(B, T, H, D)`, and only a transpose brings them in front. A bare `view(B, H, T, D)` fits, and
# jumbles all.
#
# In generation all past keys and values stay in memory, and for long texts reading them is most of
# the work. One key-value head for all query heads (Shazeer 2019) or for each group (**grouped-query
# attention**, Ainslie et al. 2023) shrinks that: in SmolLM2 9 query heads share 3, the first three
# the first.


# %% Multi-head and grouped-query attention
@lab.exercise(
    level=2,
    hints=(
        "How many query heads are there for each key-value head? Give each of them a copy.",
        "Neighbours share: with 6 on 2, query heads 0, 1 and 2 use key-value head 0.",
        "repeat_interleave repeats each head in place; repeat would deal them out in turn.",
    ),
)
def grouped_query_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, Hq, Tq, D), (B, Hkv, Tk, D) twice -> (B, Hq, Tq, D); Hkv divides Hq."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))  # (B, Hq, Tk, D)
    return attention(q, k, v, mask)


class MultiHeadAttention(nn.Module):
    """Query heads of width D on as many or fewer key-value heads; `position` acts on q and k."""

    def __init__(self, d_model, heads, kv_heads=None, head_dim=None, bias=False, position=None):
        super().__init__()
        self.head_dim, self.position = head_dim or d_model // heads, position or nn.Identity()
        kv_width = (kv_heads or heads) * self.head_dim
        self.q = nn.Linear(d_model, heads * self.head_dim, bias)
        self.k, self.v = (nn.Linear(d_model, kv_width, bias) for _ in range(2))
        self.out = nn.Linear(heads * self.head_dim, d_model, bias)

    @lab.exercise(
        level=2,
        hints=(
            "The last axis holds the heads one after another: split it into (heads, head_dim).",
            "Attention wants (B, H, T, D): which two axes have to change places?",
            "On the way back undo both: transpose(1, 2), flatten(2), then self.out.",
        ),
    )
    def forward(self, x, mask=None, context=None):
        """(B, Tq, d) -> (B, Tq, d); keys and values come from `context`, (B, Tk, d), or from x."""
        context = x if context is None else context
        projected = self.q(x), self.k(context), self.v(context)  # (B, T, H·D) each
        q, k, v = (y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for y in projected)
        mixed = grouped_query_attention(self.position(q), self.position(k), v, mask)
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, H, Tq, D) -> (B, Tq, H·D) -> d


@lab.experiment
def by_hand_equals_the_library(run: Run):
    """Attention by hand equals `F.scaled_dot_product_attention` for every mask and grouping."""
    q, k, v = torch.randn(3, 3, 6, 50, 16, dtype=torch.float64)  # (B, H, T, D) each
    library = partial(F.scaled_dot_product_attention, enable_gqa=True)
    fused = library(q, k, v, is_causal=True)
    error = fused - attention(q, k, v, causal_mask(50, 50))
    run.agree("causal, its own mask", error, decides=True)
    for name, qkv, mask in (
        ("no mask", (q, k, v), None),
        ("causal", (q, k, v), causal_mask(50, 50)),
        ("five new tokens, a cache of 45", (q[:, :, -5:], k, v), causal_mask(5, 50)),
        ("cross, one source empty", (q[:, :, 9:], k, v), cross_attention_mask(LENGTHS, 41, 50)),
        ("causal, 6 heads on 2", (q, k[:, :2], v[:, :2]), causal_mask(50, 50)),
    ):
        for dtype, bound in ((torch.float64, 1e-12), (torch.float32, tolerance(torch.float32))):
            queries, keys, values = (x.to(dtype) for x in qkv)
            want = library(queries, keys, values, mask)
            error = grouped_query_attention(queries, keys, values, mask) - want
            run.agree(f"{name}, {str(dtype)[6:]}", error, bound, decides=True)
    q, k, v = (x.bfloat16() for x in (q, k, v))
    for name, f in (("by hand", attention), ("library", library)):
        error = (f(q, k, v) - attention(q.double(), k.double(), v.double())).abs().max()
        run.measure(f"bfloat16, {name}", error, expect_at_most=tolerance(torch.bfloat16))


@lab.experiment
@torch.no_grad()
def heads_equal_multihead_attention(run: Run):
    """Our heads equal `nn.MultiheadAttention` with its weights, where a query may see something.

    Predict: for a query that may see nothing, ours returns 0. What does the library return?
    """
    theirs = nn.MultiheadAttention(48, 6, batch_first=True).double()
    ours = MultiHeadAttention(48, 6, bias=True).double()
    for bias in (theirs.in_proj_bias, theirs.out_proj.bias):
        nn.init.normal_(bias)  # they start as 0, and would prove nothing
    for i, mine in enumerate((ours.q, ours.k, ours.v)):  # which the library stacks in one matrix
        weight, bias = theirs.in_proj_weight.chunk(3)[i], theirs.in_proj_bias.chunk(3)[i]
        mine.load_state_dict({"weight": weight, "bias": bias})
    ours.out.load_state_dict(theirs.out_proj.state_dict())
    x = torch.randn(3, 50, 48, dtype=torch.float64)
    past, mask = causal_mask(50, 50), cross_attention_mask(LENGTHS, 41, 50)
    hidden = ~mask[:, 0, 0]  # (B, Tk): the library's masks are True where one may NOT look
    run.agree("causal", ours(x, past) - theirs(x, x, x, attn_mask=~past)[0], decides=True)
    got, want = ours(x[:, :41], mask, x), theirs(x[:, :41], x, x, hidden)[0]
    run.agree("cross with padding", (got - want)[::2], decides=True)
    nothing = (got[1] - ours.out.bias).abs().max()
    because = "weights of 0 add nothing to the bias"
    run.check("ours, nothing to see, less the bias", nothing, at_most=0, because=because)
    other = theirs(x, x, x, hidden, need_weights=False)[0]
    fast = theirs.eval()(x, x, x, hidden, need_weights=False)[0]
    shown = [f"{(y[1] - ours.out.bias).abs().max():g}" for y in (want, other, fast)]
    return (
        "For a query that may see nothing, torch {} returns {}. "
        "With need_weights=False it returns {}, and in eval() with it {}."
    ).format(torch.__version__.split("+")[0], *shown)


# %% [markdown]
# ## 5. Two heads in a row
# What takes two layers? Here a model of attention alone, no MLP, no norm, learns **recall**: 16
# different tokens, then eight of them again, in random order, each followed by what followed it
# before, which is to be predicted: `… D B A F C … | A F  D B …`. One layer adds to a token terms
# $\text{weight}(\text{query}, x_j, t - j) \cdot M x_j$, each about *one* token of the context. But
# F is the answer because of *two*, itself and the A before it: the softmax's denominator apart, no
# term can tell F after A from F elsewhere. A second layer can, if the first left a note at F of
# what came before. This is an **induction circuit** (Elhage et al. 2021, Olsson et al. 2022): in
# layer 1 a **previous-token head** writes the notes; in layer 2 an **induction head** finds the
# note that equals the current token and copies what stands there. To be fair, two heads side by
# side meet two in a row: as many parameters. (One layer ends *below* a good guess: the terms of
# tokens that were seen twice, because they were asked before, add up.)
#
# A head's **mass** on something is the weight it puts there, averaged over the queries that matter:
# here, in layer 1 on the previous token, in layer 2 on the one after the key's first copy. But mass
# is correlation. To find causes, hide just these pairs from the trained model (**attention
# knock-out**, Geva et al. 2023), or as many beside them: a mask does it. Hiding all mutes a head.

# %% Recall
VOCABULARY, FIRST, PAIRS = 32, 16, 8
PAST = causal_mask(FIRST + 2 * PAIRS, FIRST + 2 * PAIRS)
KEYS, ANSWERS = slice(FIRST, None, 2), slice(FIRST + 1, None, 2)


def recall_batch(size: int) -> Tensor:  # -> (B, FIRST + 2·PAIRS)
    first = torch.rand(size, VOCABULARY).argsort(-1)[:, :FIRST]  # all different
    which = torch.rand(size, FIRST - 1).argsort(-1)[:, :PAIRS]
    pairs = torch.stack((first.gather(1, which), first.gather(1, which + 1)), -1)  # (B, PAIRS, 2)
    return torch.cat((first, pairs.flatten(1)), 1)


class AttentionOnly(nn.Module):
    def __init__(self, layers: int, heads: int):
        super().__init__()
        self.embed, self.unembed = nn.Embedding(VOCABULARY, 64), nn.Linear(64, VOCABULARY, False)
        layer = partial(MultiHeadAttention, 64, heads, head_dim=32, position=rope)
        self.layers = nn.ModuleList(layer() for _ in range(layers))

    def forward(self, tokens: Tensor, masks: list[Tensor]) -> Tensor:  # one mask for each layer
        x = self.embed(tokens)
        for layer, mask in zip(self.layers, masks, strict=True):
            x = x + layer(x, mask)
        return self.unembed(x)[:, KEYS]  # (B, PAIRS, V)


def accuracy(model: nn.Module, tokens: Tensor, masks: list[Tensor]) -> float:
    with torch.no_grad():
        guesses = model(tokens, [mask.to(tokens.device) for mask in masks]).argmax(-1)
    return (guesses == tokens[:, ANSWERS]).float().mean().item()


@cache
@on_one_thread
def trained(run: Run, layers: int, heads: int, seed: int) -> tuple[Any, list[float]]:  # + accuracy
    torch.manual_seed(seed)
    model = AttentionOnly(layers, heads)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98))
    model, optimizer = run.accelerator.prepare(model, optimizer)
    steps, curve = run.pick(tiny=400, small=1000, full=4000), []
    shape = f"{layers} layer{'s' * (layers > 1)} of {heads} head{'s' * (heads > 1)}"
    for _ in run.progress(range(steps), f"training {shape}, seed {seed}"):
        tokens = run.share(recall_batch(64)).to(run.device)
        logits, answers = model(tokens, [PAST.to(run.device)] * layers), tokens[:, ANSWERS]
        run.accelerator.backward(F.cross_entropy(logits.flatten(0, 1), answers.flatten()))
        optimizer.step()
        optimizer.zero_grad()
        curve.append((logits.argmax(-1) == answers).float().mean().item())
    return run.accelerator.unwrap_model(model, keep_fp32_wrapper=False), curve


# %% What heads look at
def attention_weights(x: Tensor, w_q: Tensor, w_k: Tensor, head_dim: int, position: Any) -> Tensor:
    """(B, T, d), (H·D, d), (Hkv·D, d) -> causal (B, H, T, T); a head is a slice of W_q."""
    q, k = (torch.einsum("btm,hdm->bhtd", x, w.unflatten(0, (-1, head_dim))) for w in (w_q, w_k))
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)  # (B, H, T, D)
    scores = position(q) @ position(k).mT / math.sqrt(head_dim)
    tq, tk = scores.shape[-2:]
    return masked_softmax(scores, causal_mask(tq, tk, x.device))


@torch.no_grad()
def patterns(model: Any, tokens: Tensor) -> list[Tensor]:  # -> (B, H, T, T) for each layer
    x, found = model.embed(tokens), []
    for layer in model.layers:
        found.append(attention_weights(x, layer.q.weight, layer.k.weight, layer.head_dim, rope))
        x = x + layer(x, PAST.to(x.device))
    return found


def show_patterns(axes: Any, weights: Any, titles: Any, words: list[str] | None = None) -> None:
    for ax, layer, title in zip(axes, weights, titles, strict=True):
        ax.imshow(layer[0, 0].cpu(), vmin=0, vmax=1, aspect="auto")
        ax.set(title=title, xlabel="key", ylabel="query")
        ax.grid(False)
        if words:
            ax.set_xticks(range(len(words)), words, rotation=60)
            ax.set_yticks(range(len(words)), words)


def circuit(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs (B, T, T) that recall needs: previous token, token after the key's first copy."""
    t = torch.arange(tokens.shape[1], device=tokens.device)
    previous = (t[:, None] - t == 1) & (t < FIRST - 1)
    # one to the right: from the first copy of the key to the token after it
    copies = F.pad(tokens[:, None, :-1] == tokens[:, :, None], (1, 0)) & (t < FIRST)
    return previous.expand_as(copies), copies & ((t >= FIRST) & (t % 2 == 0))[:, None]


def mass(weights: Tensor, pairs: Tensor) -> list[float]:  # (B, H, T, T), (B, T, T) -> H numbers
    return ((weights * pairs[:, None]).sum((0, 2, 3)) / pairs.any(-1).sum()).tolist()


# %% The rise
RISE = "steps that accuracy takes from 0.2 to 0.9, over those before 0.2"


@lab.experiment
def recall_takes_two_layers(run: Run):
    """Two heads in a row learn to recall, and suddenly; side by side they don't in as many steps.

    Predict: how long is nothing to be seen, and how long does the rise take then?
    """
    tokens, found = recall_batch(2000).to(run.device), {1: [], 2: []}
    waits, rises = [], []  # steps until 0.2, and from there to 0.9
    fig, axes = plt.subplot_mosaic("AA;BC", figsize=(7.2, 7.6), height_ratios=(1, 1.1))
    for seed in run.seeds(3):
        for layers, name in ((1, "two heads in one layer"), (2, "one head in each of two layers")):
            model, curve = trained(run, layers, 3 - layers, seed)
            found[layers].append(accuracy(model, tokens, [PAST] * layers))
            smooth = torch.tensor(curve).unfold(0, 10, 1).mean(-1)
            axes["A"].plot(smooth, f"C{layers - 1}", label=name if seed == run.seed else None)
        start, end = ((smooth <= x).int().cumprod(0).sum().item() for x in (0.2, 0.9))
        waits.append(start)
        rises.append(end - start)
    guess = sum(1 / (FIRST - 1 - i) for i in range(PAIRS)) / PAIRS
    because = f"a guess among what followed in the first part and wasn't asked yet has {guess:.2f}"
    run.check("accuracy, one layer", found[1], at_most=0.2, because=because, decides=True)
    because = f"ten times {guess:.2f}"
    run.check("accuracy, two layers", found[2], at_least=0.9, because=because, decides=True)
    because = "sudden would be: the rise from 0.2 to 0.9 takes half as long as the wait for 0.2"
    shares = [rise / max(wait, 1) for rise, wait in zip(rises, waits, strict=True)]
    run.measure(RISE, shares, expect_at_most=0.5, because=because, decides=True)
    axes["A"].axhline(guess, color="grey", ls=":", label="a guess among those not asked yet")
    axes["A"].set(xlabel="training step", title="Accuracy of recall, three seeds")
    axes["A"].legend(loc="center right")
    show_patterns((axes["B"], axes["C"]), patterns(model, tokens), ("previous token", "induction"))
    run.figure(
        fig,
        "recall",
        "The rise of accuracy in training, and the two heads that do the recall; attention weights "
        "from 0 (dark) to 1 (yellow).",
        alt="Above, a line plot of the accuracy over training steps for one layer and for "
        "two; below, a heat map of attention weights, query by key, for each of two heads.",
    )
    wait, rise = median(waits), median(rises)
    return f"An accuracy of 0.2 takes {wait:.0f} steps, 0.9 another {rise:.0f}, of {len(curve)}."


# %% The heads that recall
@lab.experiment
def two_heads_do_the_recall(run: Run):
    """A previous-token head and an induction head do the recall: hide their pairs and it is gone.

    Predict: with two heads in each layer, what does silencing one of them cost?
    """
    tokens, rows = recall_batch(1000).to(run.device), []
    pairs, both, sentences = circuit(tokens), [], []
    for i, name in enumerate(("previous token", "induction")):
        masses, gone, beside = [], [], []
        for model in (trained(run, 2, 1, seed)[0] for seed in run.seeds(3)):
            masses.append(mass(patterns(model, tokens)[i], pairs[i])[0])
            for accuracies, hidden in ((gone, pairs[i]), (beside, pairs[i].roll(-1, -1))):
                masks = [PAST, PAST]
                masks[i] = (PAST & ~hidden.cpu())[:, None]  # (B, 1, T, T)
                accuracies.append(accuracy(model, tokens, masks))
        because = "spread evenly: below 0.2"
        run.check(f"mass on {name}", masses, at_least=0.6, because=because, decides=True)
        what = f"accuracy with {name} hidden"
        run.check(what, gone, at_most=0.2, because="as with one layer", decides=True)
        run.check("accuracy with its neighbour hidden", beside, at_least=0.8, because="the partner")
        lost = []
        for seed in run.seeds(3):
            model, silent = trained(run, 2, 2, seed)[0], []
            for heads in ([0], [1], [0, 1], []):
                masks = [PAST.expand(2, -1, -1).clone() for _ in range(2)]  # (H, T, T)
                masks[i][heads] = False
                silent.append(accuracy(model, tokens, masks))
            masses = mass(patterns(model, tokens)[i], pairs[i])
            rows += [[seed, i + 1, name, h + 1, masses[h], silent[h], silent[3]] for h in (0, 1)]
            lost.append(silent[3] - silent[masses.index(max(masses))])
            both.append(silent[2])
        run.measure(f"{name}: accuracy lost without the head of most mass", lost)
        sentences.append(f"of two {name} heads one is worth {median(lost):.2f}")
    columns = ["seed", "layer", "job", "head", "mass", "accuracy without it", "with all"]
    run.table("Two heads in each layer, one silenced", columns, rows)
    run.check("accuracy without both of a layer", both, at_most=0.2, because="as with one layer")
    return f"In accuracy, {' and '.join(sentences)}: mass alone doesn't tell."


# %% [markdown]
# ## 6. The heads of a language model
# SmolLM2-135M has 30 layers of 9 heads (ours is its 4-bit release: say so when you quote). If our
# code gives its attention weights, they have no secret left. Then its heads. In random tokens,
# repeated, the second half can be predicted only by looking back, which tells induction heads
# (Olsson et al. 2022). The first token is a **sink** (Xiao et al. 2023): weights must sum to one,
# so a head with nothing to say puts them where they do no harm.
#
# **Try it**: the last view of this section has all heads. Choose "random words, twice" and "what
# followed last time": a few heads stay lit. Select one of them, then walk through the second half
# of the words with the arrow keys. The head looks at the word that came next in the first half.


# %% SmolLM2
@cache
def language_model(run: Run) -> tuple[Any, Tensor, Any]:  # the model, ids (1, T), the tokenizer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = assets.pretrained(run.options.model, run.online)
    how: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    ids = tokenizer(
        "Yesterday Anna Brook met Tom Hall. Later Tom Hall wrote to Anna Brook."
    ).input_ids
    model: Any = AutoModelForCausalLM.from_pretrained(path, **how)
    return model.to(run.device).eval(), torch.tensor([ids], device=run.device), tokenizer


@lab.experiment
@torch.no_grad()
def our_weights_are_smollm2s(run: Run):
    """Our code gives 4-bit SmolLM2's attention weights from what enters each of its layers."""
    model, ids, _ = language_model(run)
    seen = model(ids, output_attentions=True, output_hidden_states=True)
    turn = partial(rope, base=model.config.rope_parameters["rope_theta"])
    errors = {turn: [], nn.Identity(): []}
    for i, layer in enumerate(model.model.layers):
        x, part = layer.input_layernorm(seen.hidden_states[i]), layer.self_attn
        for position, found in errors.items():
            w = (part.q_proj.weight, part.k_proj.weight, model.config.head_dim)
            found.append((attention_weights(x, *w, position) - seen.attentions[i]).abs().max())
    ours, bare = (max(found) for found in errors.values())
    run.agree("largest difference", ours, tolerance(torch.float32), decides=True)
    run.check("largest without rotary positions", bare, at_least=0.1, because="the partner")


@lab.experiment
@torch.no_grad()
def trained_heads_have_trades(run: Run):
    """4-bit SmolLM2 has previous-token and induction heads, and a sink that takes much weight.

    Predict: which share of all weight goes to the first token, whatever it is?
    """
    model, ids, tokenizer = language_model(run)
    half = torch.randint(1000, model.config.vocab_size, (run.pick(tiny=8, small=32, full=64), 32))
    repeated, late = half.repeat(1, 2).to(run.device), torch.arange(32, 64)
    weights = torch.stack(model(repeated, output_attentions=True).attentions, 1)  # (B, L, H, T, T)
    plain = torch.randint_like(repeated, 1000, model.config.vocab_size)  # the same, not repeated
    control = torch.stack(model(plain, output_attentions=True).attentions, 1)
    trades = {"previous token": late - 1, "induction": late - 32 + 1, "first token": 0 * late}
    shown, titles, sentence = [], [], model(ids, output_attentions=True).attentions
    for name, keys in trades.items():
        masses = weights[..., late, keys].mean((0, -1))  # (L, H)
        layer, head = divmod(int(masses.argmax()), masses.shape[1])
        shown.append(sentence[layer][:, head : head + 1])
        titles.append(f"{name}: layer {layer + 1}, head {head + 1}")
        even = f"spread evenly it would be {(1 / (late + 1)).mean():.3f}"
        what = f"{name}, the best head's mass"
        run.measure(what, masses.max(), expect_at_least=0.5, because=even, decides=True)
        if name == "induction":
            mass_there = control[:, layer, head, late, keys].mean()
            because = "it looks for the repetition, not for a distance"
            what = "that head's mass there without a repetition"
            run.measure(what, mass_there, expect_at_most=0.1, because=because, decides=True)
    because = f"in random tokens, from the second half; {even}"
    what = "first token, all heads' mass"
    run.measure(what, masses.mean(), expect_at_least=0.25, because=because, decides=True)
    fig, axes = plt.subplots(3, 1, figsize=(7.2, 14))
    show_patterns(axes, shown, titles, [tokenizer.decode(i).strip() for i in ids[0]])
    run.figure(
        fig,
        "smollm2_heads",
        "Three heads of the model (4-bit SmolLM2-135M-Instruct, unless "
        "--model named another) on a sentence: who looks at whom. Layers and heads are counted "
        "from 1; weights from 0 (dark) to 1 (yellow).",
        alt="Three heat maps of attention weights, query by key, with the tokens of the "
        "sentence on both axes.",
    )
    run.view("attention", "heads", *head_patterns.view(model, tokenizer))


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Say how sudden the rise was in this run."""
    share = results.value("recall_takes_two_layers", RISE)
    rise = "sudden" if share <= 0.5 else "no cliff at this size"
    sentence = f"The rise is {rise}: it takes {share:.2f} times as long as the wait before it."
    return f"## In this run\n{sentence}"


# %% [markdown]
# ## What surprised
# The library's answer to a query that may see nothing depends on how it is called, and on the
# release of torch. And a head's mass isn't what it is worth: with a twin beside it, it may be
# spared (in large models many heads can be removed at little cost, Michel et al. 2019, and later
# layers can step in, McGrath et al. 2023).
# **Read on**: Elhage et al. 2021 and Olsson et al. 2022 on circuits · Xiao et al. 2023 on sinks.
# **Deeper**: LLM06+ has a sliding window, which needs linear work, and softmax in tiles, as in
# FlashAttention, which needs linear memory. Next: LLM07, LoRA.

# %%
if __name__ == "__main__":
    lab.main()
