# %% [markdown]
# # LLM06 · Attention
# How a token looks at other tokens, from five words on paper to the 270 heads of SmolLM2.
#
# **You will be able to** write attention by hand and prove it equal to PyTorch's; mask it without
# leaks or NaN; read an attention map, and test whether the model relies on what it shows.
# **Builds on** softmax and matrix products (LLM02 and LLM03), and on blocks and positions (LLM05a
# and LLM05b). **Takes** 40 minutes to read and a minute to run (`tiny`, 2 cores).

# %% Imports
import math
from functools import cache, partial
from typing import Any

from labs.kit import Lab, Results, Run, assets, on_one_thread, tolerance
from labs.llm06_attention import dates, figures, five_words, head_patterns, recall

import torch
import torch.nn.functional as F
from torch import Tensor, nn

lab = Lab("LLM06")
lab.argument("--model", help="a Llama-like model instead of SmolLM2: a folder, or a hub id")
lab.before_run(assets.check_model)

# %% [markdown]
# ## 1. Five words on paper
# Read "the dog saw its tail". To understand "its" you look back at "dog". Attention gives a model
# this ability: each token looks at the other tokens and takes something from each of them.
#
# For this, each token has three vectors:
#
# - its **query** $q$ describes what it looks for;
# - its **key** $k$ describes what others can find it by;
# - its **value** $v$ is what it hands over when somebody looks at it.
#
# All three are computed from the token's own vector $x$, by three matrices that a model learns:
# $q = x W_Q$, $k = x W_K$, $v = x W_V$. Here we choose everything by hand. A word is described by
# five features: article, noun, verb, possessive, animal. So "its" is $x = (0, 0, 0, 1, 0)$ and
# "dog" is $(0, 1, 0, 0, 1)$. The matrix $W_Q$ has a row for each feature:
#
# $$W_Q = \begin{pmatrix} 0 & 0 \\ 0 & 3 \\ 3 & 0 \\ 3 & 0 \\ 0 & 0 \end{pmatrix}$$
#
# The product $x W_Q$ adds the rows of the features that a word has. For "its" that is the fourth
# row, $q = (3, 0)$. The first coordinate of a query or key means "noun", the second "article". So
# "its" looks for nouns, and so does a verb, while a noun looks for its article. In a value, the
# first coordinate means "an animal", the second "an action".
#
# Attention then takes four steps for each query.
#
# - **Scores.** Multiply the query with every key. A large product means a good match.
# - **Scale.** Divide the scores by $\sqrt d$, where $d$ is the width of a key, 2 in this example.
# - **Weights.** A softmax turns the scores into positive weights that sum to 1.
# - **Output.** Average the values with these weights.
#
# For "its", $q = (3, 0)$. The keys of "dog" and "tail" are $(2, 0)$, so both score
# $3 \cdot 2 / \sqrt 2 = 4.24$. The other three words score 0. The softmax compares
# $e^{4.24} = 69.6$ with $e^0 = 1$: each noun gets $69.6/(2 \cdot 69.6 + 3) = 0.49$ of the weight.
# So "its" can't decide between "dog" and "tail". But who reads from left to right hasn't seen
# "tail" yet: section 3 hides it.


# %% Five words
@lab.experiment
def its_looks_at_both_nouns(run: Run):
    """With matrices chosen by hand, "its" gives nearly all its weight to the two nouns.

    Predict: hide "tail" from "its", as it hasn't been read yet. How much weight does "dog" get?
    """
    x = five_words.features("the dog saw its tail")  # (T, 5)
    q = x @ five_words.W_Q  # (T, 2)
    k = x @ five_words.W_K  # (T, 2)
    v = x @ five_words.W_V  # (T, 2)
    scores = q @ k.T / math.sqrt(2)  # (T, T)
    weights = scores.softmax(-1)  # (T, T)
    output = weights @ v  # (T, 2)
    on_paper = math.exp(6 / math.sqrt(2))
    expected = on_paper / (2 * on_paper + 3)
    for word, column in (("dog", 1), ("tail", 4)):
        name = f"weight on {word} − the weight computed on paper"
        run.agree(name, weights[3, column] - expected, tolerance(torch.float32), decides=True)
    others = weights[3, [0, 2, 3]].sum()
    because = "twice the 0.02 computed on paper"
    run.check("weight on the other three words", others, at_most=0.04, because=because)
    run.figure(
        figures.worked_example(q, k, scores, weights, v, output),
        "five_words",
        "All numbers of the example. A row belongs to the word on its left. The columns of scores "
        "and weights are the words that it looks at.",
        alt="Six small tables of numbers: queries, keys, scores, weights, values and outputs.",
    )
    run.view("five_words", "sentence", *five_words.view())
    hidden = scores[3, :4].softmax(-1)  # without the last word
    return (
        f'"dog" gets {weights[3, 1]:.2f} of the weight, and "tail" as much. With "tail" hidden, '
        f'"dog" gets {hidden[1]:.2f}.'
    )


# %% [markdown]
# ## 2. Attention in three lines
# Write the queries of all $T$ tokens as the rows of a matrix $Q$, and likewise $K$ and $V$. The
# four steps become one formula (Vaswani et al. 2017, equation 1):
#
# $$\text{Attention}(Q, K, V) = \text{softmax}\left(\frac{Q K^\top}{\sqrt d}\right) V$$
#
# **Why $\sqrt d$?** A score sums $d$ products. If the entries of $q$ and $k$ are independent with
# variance 1, the score has variance $d$: it grows with the width of the keys. Large scores make
# the softmax pick a single key before anything is learned. Division by $\sqrt d$ brings the
# variance back to 1. LLM06+ measures this.
#
# A **mask** says which keys each query may look at; section 3 shows the usual ones. It sets the
# other scores to $-\infty$ *before* the softmax. Their weights become 0, and the remaining weights
# still sum to 1.
#
# One case needs care. If a query may look at no key at all, its scores are all $-\infty$ and the
# softmax is 0/0, which is NaN. We define its weights as 0. Filling with the lowest finite number in
# place of $-\infty$ keeps the softmax defined. If you *add* $-\infty$ to the scores instead, NaN
# also enters the gradient.


# %% Scaled dot-product attention
@lab.exercise(
    level=2,
    hints=(
        "Hide a key before the softmax, so that its score doesn't enter the sum.",
        "A row of nothing but -inf gives 0/0. Which lowest number keeps the softmax defined?",
        "Fill with the lowest finite number, and set hidden weights to 0 once more at the end.",
    ),
)
def masked_softmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the softmax over the keys that a query may look at, and 0 for the others.

    `scores` is (..., Tq, Tk). `mask` is boolean, True where a query may look. A query that may look
    at no key gets weights of 0.
    """
    if mask is None:
        return scores.softmax(-1)
    lowest = torch.finfo(scores.dtype).min
    weights = scores.masked_fill(~mask, lowest).softmax(-1)
    return weights.masked_fill(~mask, 0.0)


@lab.exercise(
    level=1,
    hints=(
        "Multiply each query with each key. Which axis of k has to move for one matrix product?",
        "k.mT swaps the last two axes: (..., Tq, D) @ (..., D, Tk) gives (..., Tq, Tk).",
        "Divide by math.sqrt(q.shape[-1]), call masked_softmax, and multiply with v.",
    ),
)
def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the average of the values under the attention weights.

    (..., Tq, D), (..., Tk, D), (..., Tk, Dv) -> (..., Tq, Dv).
    """
    scores = q @ k.mT / math.sqrt(q.shape[-1])  # (..., Tq, Tk)
    return masked_softmax(scores, mask) @ v  # (..., Tq, Dv)


# %% [markdown]
# ## 3. Masks
# Three masks come first.
#
# - **Causal.** A language model predicts the next token, so a query may look at its own key and at
#   earlier ones. The mask is a lower triangle.
# - **Causal with a cache.** While a model writes, each step adds one token. Keys and values of
#   earlier tokens don't change, so they are stored: this is the **cache**. Only the newest tokens
#   have queries. They are the *last* positions, so the triangle sits at the bottom right.
# - **Padding.** Sources of different lengths are padded to one length. No query may look at the
#   padding. The mask is the same for all queries of a source.


# %% Masks
@lab.exercise(
    level=1,
    hints=(
        "Query i of the last tq queries has the position tk − tq + i. Which keys lie before it?",
        "torch.ones(tq, tk).tril(n) keeps entries up to the n-th diagonal.",
        "With a cache, the diagonal moves to the right by tk − tq.",
    ),
)
def causal_mask(tq: int, tk: int, device: torch.device | None = None) -> Tensor:
    """Return (Tq, Tk), True where a query may look: the queries are the last Tq of Tk positions."""
    everything = torch.ones(tq, tk, dtype=torch.bool, device=device)
    return everything.tril(tk - tq)


@lab.exercise(
    level=1,
    hints=(
        "A key is real where its index is less than the length of its source: (B, Tk).",
        "Every head and every query sees the same keys: two axes of size 1 are missing.",
        "Index with [:, None, None, :], then expand the query axis to tq.",
    ),
)
def cross_attention_mask(source_lengths: Tensor, tq: int, tk: int) -> Tensor:
    """Return (B, 1, Tq, Tk), True where a query may look, for (B,) lengths of padded sources.

    The padding is on the right.
    """
    positions = torch.arange(tk, device=source_lengths.device)
    real = positions < source_lengths[:, None]  # (B, Tk)
    return real[:, None, None, :].expand(-1, 1, tq, -1)  # (B, 1, Tq, Tk)


LENGTHS = torch.tensor([50, 0, 7])  # of padded sources: full, empty, short


@lab.experiment
def by_hand_equals_the_library(run: Run):
    """Attention by hand equals `F.scaled_dot_product_attention` without a mask and with each mask.

    Predict: if a query may look at no key, ours returns 0. What does PyTorch's function return?
    """
    q, k, v = torch.randn(3, 3, 6, 50, 16, dtype=torch.float64)  # (B, H, T, D) each
    new = q[:, :, -5:]  # the last five queries, with 50 keys in the cache
    cases = {
        "no mask": (q, None),
        "causal": (q, causal_mask(50, 50)),
        "five new tokens and a cache of 45": (new, causal_mask(5, 50)),
        "padded sources, one of them empty": (new, cross_attention_mask(LENGTHS, 5, 50)),
    }
    for name, (queries, mask) in cases.items():
        for dtype in (torch.float64, torch.float32):
            q_, k_, v_ = (x.to(dtype) for x in (queries, k, v))
            library = F.scaled_dot_product_attention(q_, k_, v_, mask)
            error = attention(q_, k_, v_, mask) - library
            run.agree(f"{name}, {str(dtype)[6:]}", error, tolerance(dtype), decides=True)
    own_mask = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    error = attention(q, k, v, causal_mask(50, 50)) - own_mask
    run.agree("causal, with the library's own mask", error, decides=True)
    run.figure(
        figures.masks(causal_mask(5, 5), causal_mask(2, 5), cross_attention_mask(LENGTHS, 5, 9)),
        "masks",
        "Three masks. A filled cell is a key that the query may look at.",
        alt="Three grids of queries by keys: a triangle, the lower part of one, and a block.",
    )
    empty = F.scaled_dot_product_attention(new, k, v, cross_attention_mask(LENGTHS, 5, 50))[1]
    return f"For a query that may look at no key, the library returns {empty.abs().max():g}."


@lab.experiment
def a_masked_key_has_no_effect(run: Run):
    """A change of one token changes no earlier output, if the mask comes before the softmax.

    Predict: somebody masks after the softmax. Can the future then be noticed in the output?
    """
    x = torch.randn(50, 16, dtype=torch.float64)
    changed = x.clone()
    changed[30] += 1.0  # one token of fifty
    past = causal_mask(50, 50)

    def masked_too_late(x: Tensor) -> Tensor:
        weights = (x @ x.mT / math.sqrt(x.shape[-1])).softmax(-1)
        return (weights * past) @ x

    right = (attention(changed, changed, changed, past) - attention(x, x, x, past)).abs()
    wrong = (masked_too_late(changed) - masked_too_late(x)).abs()
    run.check("largest change before the token", right[:30].max(), at_most=0, decides=True)
    because = "otherwise nothing would be tested; rounding is 1e-16"
    run.check(
        "smallest change from it on", right[30:].amax(-1).min(), at_least=1e-9, because=because
    )
    name = "masked after the softmax: smallest change before the token"
    run.check(name, wrong[:30].amax(-1).min(), at_least=1e-9, because=because, decides=True)
    return "Masked too late, the future changes the softmax's sum: every earlier output moves."


# %% [markdown]
# ## 4. Heads
# One head hands over one average. If a verb looks at its subject and its object with one head, it
# may not be able to tell afterwards who did what. **Multi-head attention** runs $H$ attentions side
# by side, each with its own projections of width $D$. A last matrix mixes their outputs.
#
# Mind the axes. A projection returns `(B, T, H * D)`, with the heads one after another. Split the
# last axis into `(H, D)`, then move the heads to the front: `(B, H, T, D)`. A bare
# `view(B, H, T, D)` has the right shape and mixes up heads and tokens.
#
# The cache has the keys and values of all earlier tokens. For long texts it can outgrow the
# model. **Grouped-query attention** (Ainslie et al. 2023) makes it smaller:
# several query heads share one key-value head. SmolLM2 has 9 query heads and 3 key-value heads.
# Query heads 0 to 2 share key-value head 0, and its cache has a third of the size.


# %% Multi-head and grouped-query attention
@lab.exercise(
    level=2,
    hints=(
        "How many query heads are there for each key-value head? Give each of them a copy.",
        "Neighbours share: with 6 on 2, query heads 0, 1 and 2 use key-value head 0.",
        "repeat_interleave repeats each head in place; repeat assigns the heads in turn.",
    ),
)
def grouped_query_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return attention in which neighbouring query heads share a key-value head.

    (..., Hq, Tq, D), (..., Hkv, Tk, D) twice -> (..., Hq, Tq, D); Hkv divides Hq.
    """
    sharing = q.shape[-3] // k.shape[-3]
    k = k.repeat_interleave(sharing, dim=-3)  # (..., Hq, Tk, D)
    v = v.repeat_interleave(sharing, dim=-3)  # (..., Hq, Tk, D)
    return attention(q, k, v, mask)


class MultiHeadAttention(nn.Module):
    """Query heads of width D on as many or fewer key-value heads.

    `position` acts on queries and keys, (..., H, T, D).

    Raises:
        ValueError: if the heads don't divide the width, or the key-value heads the query heads.
    """

    def __init__(self, d_model, heads, kv_heads=None, head_dim=None, bias=False, position=None):
        super().__init__()
        kv_heads = kv_heads or heads
        if head_dim is None and d_model % heads:
            raise ValueError(f"{heads} heads don't divide a width of {d_model}")
        if heads % kv_heads:
            raise ValueError(f"{kv_heads} key-value heads don't divide {heads} query heads")
        self.head_dim = head_dim or d_model // heads
        self.position = position or nn.Identity()
        self.q_proj = nn.Linear(d_model, heads * self.head_dim, bias)
        self.k_proj = nn.Linear(d_model, kv_heads * self.head_dim, bias)
        self.v_proj = nn.Linear(d_model, kv_heads * self.head_dim, bias)
        self.o_proj = nn.Linear(heads * self.head_dim, d_model, bias)

    @lab.exercise(
        level=2,
        hints=(
            "The last axis holds the heads one after another: split it into (heads, head_dim).",
            "Attention wants (..., H, T, D): which two axes have to change places?",
            "Merge with transpose(-3, -2), then flatten(-2), then self.o_proj.",
        ),
    )
    def forward(self, x, mask=None, context=None):
        """(..., Tq, d) -> (..., Tq, d); keys and values come from `context`, or else from x."""
        context = x if context is None else context
        heads = []
        for projected in (self.q_proj(x), self.k_proj(context), self.v_proj(context)):
            split = projected.unflatten(-1, (-1, self.head_dim))  # (..., T, H, D)
            heads.append(split.transpose(-3, -2))  # (..., H, T, D)
        q, k, v = heads
        mixed = grouped_query_attention(self.position(q), self.position(k), v, mask)
        merged = mixed.transpose(-3, -2).flatten(-2)  # (..., Tq, H·D)
        return self.o_proj(merged)


@lab.experiment
@torch.no_grad()
def heads_equal_the_library(run: Run):
    """Our heads equal `nn.MultiheadAttention`, and shared heads PyTorch's grouped queries.

    Predict: by which factor do 3 key-value heads instead of 9 shrink the cache?
    """
    theirs = nn.MultiheadAttention(48, 6, batch_first=True).double()
    nn.init.normal_(theirs.in_proj_bias)  # biases start as 0, and would prove nothing
    nn.init.normal_(theirs.out_proj.bias)
    ours = MultiHeadAttention(48, 6, bias=True).double()
    weights = theirs.in_proj_weight.chunk(3)  # the library stacks the three projections
    biases = theirs.in_proj_bias.chunk(3)
    for i, projection in enumerate((ours.q_proj, ours.k_proj, ours.v_proj)):
        projection.load_state_dict({"weight": weights[i], "bias": biases[i]})
    ours.o_proj.load_state_dict(theirs.out_proj.state_dict())
    x = torch.randn(3, 50, 48, dtype=torch.float64)
    past = causal_mask(50, 50)
    library = theirs(x, x, x, attn_mask=~past)[0]  # its masks are True where one may NOT look
    run.agree("self-attention, causal", ours(x, past) - library, decides=True)
    context = torch.randn(3, 20, 48, dtype=torch.float64)
    error = ours(x, None, context) - theirs(x, context, context)[0]
    run.agree("cross-attention", error, decides=True)
    q = torch.randn(2, 9, 50, 16, dtype=torch.float64)
    k, v = torch.randn(2, 2, 3, 50, 16, dtype=torch.float64)
    library = F.scaled_dot_product_attention(q, k, v, past, enable_gqa=True)
    error = grouped_query_attention(q, k, v, past) - library
    run.agree("9 query heads on 3 key-value heads", error, decides=True)
    run.figure(
        figures.groups(),
        "groups",
        "SmolLM2's 9 query heads share 3 key-value heads, three neighbours each.",
        alt="Two rows of boxes: nine query heads above, three key-value heads below, with lines.",
    )
    sizes = [30 * 2 * heads * 64 * 2 * 8192 / 2**20 for heads in (9, 3)]  # layers, K and V, bf16
    return (
        f"For a text of 8,192 tokens in bfloat16, SmolLM2's cache takes {sizes[1]:.0f} MiB instead "
        f"of {sizes[0]:.0f} MiB: a factor of {sizes[0] / sizes[1]:.0f}."
    )


# %% [markdown]
# ## 5. Cross-attention: one text looks at another
# So far a text looked at itself. In **cross-attention** the queries come from one text and the keys
# and values from another: a translation looks at its source, a caption at an image.
#
# The task here: read a date as people write it, `march 3, 1999` or `3 march 1999`, and write
# `1999-03-03`. The **encoder** reads the source: characters, positions, one layer of
# self-attention. The **decoder** has one query for each of the ten characters to write. A query
# knows only "I am the third character". Everything else has to come from the source, through one
# cross-attention head. We can read its weights as an **alignment**: which part of the source does
# each written character look at? Not every row will be one. The encoder moves information between
# characters, so a query may look at a place that only *received* what it needs.
#
# A map of weights is a correlation. To learn whether the model *relies* on a key, hide it with the
# mask and see what happens. This is called an **attention knock-out** (Geva et al. 2023).


# %% Dates
class DateReader(nn.Module):
    """An encoder with self-attention, and ten queries that look at it with one head."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.characters = nn.Embedding(dates.VOCABULARY, width)
        self.positions = nn.Embedding(dates.SOURCE, width)
        self.queries = nn.Parameter(torch.randn(dates.TARGET, width))
        self.norm_source = nn.LayerNorm(width)
        self.self_attention = MultiHeadAttention(width, 4)
        self.norm_encoded = nn.LayerNorm(width)
        self.cross_attention = MultiHeadAttention(width, 1)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.output = nn.Linear(width, dates.VOCABULARY)

    def encode(self, source: Tensor, lengths: Tensor) -> Tensor:
        """Return what the queries look at, (B, SOURCE) -> (B, SOURCE, d)."""
        x = self.characters(source) + self.positions.weight
        mask = cross_attention_mask(lengths, dates.SOURCE, dates.SOURCE)
        return self.norm_encoded(x + self.self_attention(self.norm_source(x), mask))

    def forward(self, source: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        """Return logits (B, TARGET, V); `mask` is that of the cross-attention."""
        encoded = self.encode(source, lengths)
        y = self.queries.expand(len(source), -1, -1)  # (B, TARGET, d)
        y = y + self.cross_attention(y, mask, encoded)
        return self.output(y + self.mlp(y))

    def alignment(self, source: Tensor, lengths: Tensor) -> Tensor:
        """Return the weights of the cross-attention, (B, TARGET, SOURCE)."""
        q = self.cross_attention.q_proj(self.queries)  # (TARGET, d)
        k = self.cross_attention.k_proj(self.encode(source, lengths))  # (B, SOURCE, d)
        scores = q @ k.mT / math.sqrt(self.cross_attention.head_dim)  # (B, TARGET, SOURCE)
        mask = cross_attention_mask(lengths, dates.TARGET, dates.SOURCE)[:, 0]
        return masked_softmax(scores, mask)


@on_one_thread
def train(run: Run, model: nn.Module, step: Any, steps: int, label: str) -> tuple[Any, list[float]]:
    """Train with AdamW; return the model and its accuracy at each step.

    `step(model)` draws a batch and returns logits (B, N, V) and targets (B, N).
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98))
    model, optimizer = run.accelerator.prepare(model, optimizer)
    curve = []
    for _ in run.progress(range(steps), label):
        logits, targets = step(model)
        run.accelerator.backward(F.cross_entropy(logits.flatten(0, 1), targets.flatten()))
        optimizer.step()
        optimizer.zero_grad()
        curve.append((logits.argmax(-1) == targets).float().mean().item())
    return run.accelerator.unwrap_model(model, keep_fp32_wrapper=False), curve


def trained_reader(run: Run, seed: int) -> DateReader:
    """Train on random dates, a new batch each step."""
    torch.manual_seed(seed)
    sampler = dates.Sampler(seed)

    def step(model: nn.Module) -> tuple[Tensor, Tensor]:
        source, lengths, targets = (run.share(x).to(run.device) for x in sampler.batch(64))
        mask = cross_attention_mask(lengths, dates.TARGET, dates.SOURCE)
        return model(source, lengths, mask), targets

    steps = run.pick(tiny=400, small=800, full=1600)
    return train(run, DateReader(), step, steps, f"dates, seed {seed}")[0]


@lab.experiment
@torch.no_grad()
def cross_attention_finds_the_digit(run: Run):
    """To write a digit of the year, the trained head looks at that digit, and relies on it.

    Predict: hide the digit from the query. How often does the model still write it?
    """
    test = dates.Sampler(run.seed, dates.TEST_YEARS)
    source, lengths, target = (x.to(run.device) for x in test.batch(500))
    rows = torch.arange(500, device=run.device)[:, None]
    digits = torch.arange(4, device=run.device)  # the year comes first in what is written
    places = lengths[:, None] - 4 + digits  # and last in the source, (B, 4)
    mask = cross_attention_mask(lengths, dates.TARGET, dates.SOURCE)
    hidden = mask.clone()
    hidden[rows, 0, digits, places] = False
    beside = mask.clone()
    beside[rows, 0, digits, places - 1] = False
    complete = []
    on_digit = []
    without = []
    control = []
    for seed in run.seeds(3):
        with torch.enable_grad():
            model = trained_reader(run, seed)
        right = model(source, lengths, mask).argmax(-1) == target  # (B, TARGET)
        complete.append(right.float().mean())
        weights = model.alignment(source, lengths)  # (B, TARGET, SOURCE)
        on_digit.append(weights[rows, digits, places].mean())
        right = model(source, lengths, hidden).argmax(-1) == target
        without.append(right[:, 1:4].float().mean())  # the first digit is only ever 1 or 2
        right = model(source, lengths, beside).argmax(-1) == target
        control.append(right[:, 1:4].float().mean())
    because = "the best constant guess has 0.42"
    name = "characters right, in years it never saw"
    run.check(name, complete, at_least=0.95, because=because)
    because = "most of it; spread evenly it would be 0.07"
    run.check("weight on the digit", on_digit, at_least=0.5, because=because, decides=True)
    because = "three times a guess among ten digits: the encoder may pass some of it on"
    name = "digits 2 to 4 right, each hidden from its query"
    run.check(name, without, at_most=0.3, because=because, decides=True)
    because = "as many keys hidden, but not the digit"
    name = "digits 2 to 4 right, the character before it hidden"
    run.check(name, control, at_least=0.8, because=because, decides=True)
    examples = dates.encode(["march 3, 1999", "28 september 2024"])
    weights = model.alignment(*(x.to(run.device) for x in examples[:2])).cpu()
    run.figure(
        figures.alignments(weights, examples[1], ["march 3, 1999", "28 september 2024"]),
        "alignment",
        "Which characters of the source each written character looks at, for two ways to write a "
        "date.",
        alt="Two heat maps: written characters by characters of the source, with bright diagonals.",
    )
    middle = float(torch.stack(without).median())
    return f"With its digit hidden, a query still writes the right one in {100 * middle:.0f} %."


# %% [markdown]
# ## 6. Two heads in a row
# What can two layers do that one can't? The task is **recall**: 16 different tokens, then eight of
# them again in random order, each followed by the token that followed it before:
# `… D B A F C … | A F  D B …`. The model has to predict the second token of each pair.
#
# One head finds a key by its content, or at a fixed distance. The query A can find the earlier A.
# But the answer F stands *after* it, and where that is differs each time. At F itself, nothing
# says that A came before. Two layers can do it, as the first figure below shows:
#
# - In layer 1, a **previous-token head** writes at F: "A came before me".
# - In layer 2, an **induction head** looks for this note with the query A, finds F, and copies it.
#
# This pair is called an **induction circuit** (Elhage et al. 2021, Olsson et al. 2022). Here a
# model has attention only, no MLP and no norm. We compare two models of 20,480 parameters: one
# layer with two heads, and two layers with one head each.


# %% Recall
class AttentionOnly(nn.Module):
    """Layers of attention on a residual stream, nothing else."""

    def __init__(self, layers: int, heads: int):
        super().__init__()
        self.embed = nn.Embedding(recall.VOCABULARY, 64)
        self.unembed = nn.Linear(64, recall.VOCABULARY, False)
        layer = partial(MultiHeadAttention, 64, heads, head_dim=32, position=recall.rope)
        self.layers = nn.ModuleList(layer() for _ in range(layers))

    def forward(self, tokens: Tensor, masks: list[Tensor]) -> Tensor:
        """Return the logits after each key, (B, PAIRS, V); there is a mask for each layer."""
        x = self.embed(tokens)
        for layer, mask in zip(self.layers, masks, strict=True):
            x = x + layer(x, mask)
        return self.unembed(x)[:, recall.KEYS]


@torch.no_grad()
def accuracy(model: nn.Module, tokens: Tensor, masks: list[Tensor]) -> float:
    """Return the share of answers that are right."""
    guesses = model(tokens, [mask.to(tokens.device) for mask in masks]).argmax(-1)
    return (guesses == tokens[:, recall.TARGETS]).float().mean().item()


@cache
def trained(run: Run, layers: int, heads: int, seed: int) -> tuple[Any, list[float]]:
    """Train on recall; return the model and its accuracy at each step."""
    torch.manual_seed(seed)
    masks = [recall.PAST.to(run.device)] * layers

    def step(model: nn.Module) -> tuple[Tensor, Tensor]:
        tokens = run.share(recall.recall_batch(64)).to(run.device)
        return model(tokens, masks), tokens[:, recall.TARGETS]

    steps = run.pick(tiny=400, small=1000, full=4000)
    label = f"recall, {layers} × {heads} heads, seed {seed}"
    return train(run, AttentionOnly(layers, heads), step, steps, label)


@lab.experiment
def recall_takes_two_layers(run: Run):
    """Two heads in a row learn to recall; side by side they don't, in as many steps.

    Predict: which accuracy does one layer reach? A blind guess has 1/32.
    """
    run.figure(
        figures.circuit(),
        "circuit",
        "The induction circuit. Layer 1 writes A at the place of F. Layer 2 compares "
        "the last token, A, with these copies, and finds F.",
        alt="A row of tokens with two arrows: from F back to A, and from the last A to F.",
    )
    tokens = recall.recall_batch(2000).to(run.device)
    reached = {1: [], 2: []}
    curves = {1: [], 2: []}
    for seed in run.seeds(3):
        for layers in (1, 2):
            model, curve = trained(run, layers, 3 - layers, seed)
            reached[layers].append(accuracy(model, tokens, [recall.PAST] * layers))
            curves[layers].append(curve)
    because = f"a guess among the tokens that can still be the answer has {recall.GUESS:.2f}"
    run.check("accuracy, one layer", reached[1], at_most=0.2, because=because, decides=True)
    because = f"ten times {recall.GUESS:.2f}"
    run.check("accuracy, two layers", reached[2], at_least=0.9, because=because, decides=True)
    run.figure(
        figures.rise(curves, recall.GUESS),
        "recall",
        "Accuracy of recall during training, three seeds each.",
        alt="Lines of accuracy over training steps: two layers rise to 1, one layer stays low.",
    )
    return f"One layer reaches {max(reached[1]):.2f}, two layers at least {min(reached[2]):.2f}."


# %% [markdown]
# ## 7. What does a head look at?
# To find a head, describe the pairs that it should look at: for each query, which keys? Its
# **score** is the weight that it puts on these keys, averaged over the queries that have such a
# key. A score near 1 means that these queries look at little else. What the head does for other
# queries, the score doesn't say: in the figure below, the head of layer 1 has a second diagonal.


# %% Scores of heads
@lab.exercise(
    level=2,
    hints=(
        "Weights are (B, H, T, T), pairs (B, T, T): give pairs an axis for heads, and multiply.",
        "Some queries have no pair. They must not count in the average.",
        "Divide the sum over B and both T by pairs.any(-1).sum(), the queries with a pair.",
    ),
)
def head_scores(weights: Tensor, pairs: Tensor) -> Tensor:
    """Return each head's mean weight on the pairs, over the queries that have one.

    (B, H, T, T) weights, (B, T, T) booleans -> (H,).
    """
    on_pairs = (weights * pairs[:, None]).sum((0, 2, 3))  # (H,)
    return on_pairs / pairs.any(-1).sum()


def attention_weights(
    x: Tensor, w_q: Tensor, w_k: Tensor, head_dim: int, position: Any = recall.rope
) -> Tensor:
    """Return causal weights (B, H, T, T) from (B, T, d) and the matrices (H·D, d), (Hkv·D, d)."""
    q = (x @ w_q.mT).unflatten(-1, (-1, head_dim)).transpose(1, 2)  # (B, H, T, D)
    k = (x @ w_k.mT).unflatten(-1, (-1, head_dim)).transpose(1, 2)  # (B, Hkv, T, D)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)  # (B, H, T, D)
    scores = position(q) @ position(k).mT / math.sqrt(head_dim)
    length = x.shape[1]
    return masked_softmax(scores, causal_mask(length, length, x.device))


@torch.no_grad()
def patterns(model: Any, tokens: Tensor) -> list[Tensor]:
    """Return the attention weights of each layer, (B, H, T, T)."""
    x = model.embed(tokens)
    layers = []
    for layer in model.layers:
        weights = attention_weights(x, layer.q_proj.weight, layer.k_proj.weight, layer.head_dim)
        layers.append(weights)
        x = x + layer(x, recall.PAST.to(x.device))
    return layers


@lab.experiment
def two_heads_do_the_recall(run: Run):
    """The two heads of the circuit do the recall: hide the keys that they need, and it is gone.

    Predict: hide the keys next to those. What happens to the accuracy?
    """
    tokens = recall.recall_batch(1000).to(run.device)
    pairs = recall.circuit(tokens)
    models = [trained(run, 2, 1, seed)[0] for seed in run.seeds(3)]
    kept = []
    for i, name in enumerate(("previous token", "induction")):
        scores = [head_scores(patterns(model, tokens)[i], pairs[i])[0] for model in models]
        because = "most of the weight; spread evenly it would be below 0.2"
        run.check(f"score on {name}", scores, at_least=0.6, because=because, decides=True)
        hidden = {"the pairs": pairs[i], "their neighbours": pairs[i].roll(-1, -1)}
        found = {what: [] for what in hidden}
        for what, keys in hidden.items():
            masks = [recall.PAST, recall.PAST]
            masks[i] = (recall.PAST & ~keys.cpu())[:, None]  # (B, 1, T, T)
            found[what] = [accuracy(model, tokens, masks) for model in models]
        because = "no better than one layer"
        gone = found["the pairs"]
        run.check(f"accuracy, {name} hidden", gone, at_most=0.2, because=because, decides=True)
        because = "as many keys hidden, but not those"
        beside = found["their neighbours"]
        what = f"accuracy, neighbours of {name} hidden"
        run.check(what, beside, at_least=0.8, because=because, decides=True)
        kept += beside
    run.figure(
        figures.two_heads(patterns(models[0], tokens[:1])),
        "circuit_weights",
        "The weights of both heads on one task of recall.",
        alt="Two heat maps, query by key: a diagonal, and single bright cells.",
    )
    return f"With the neighbours hidden, the accuracy is still at least {min(kept):.2f}."


# %% [markdown]
# ## 8. The heads of a language model
# SmolLM2-135M has 30 layers of 9 query heads. Do its heads have jobs? We test it with random
# tokens, repeated once. Nobody can predict the first half. The second half can be predicted only by
# looking back, as an induction head does. A third pattern needs no repetition: many heads put
# their weight on the *first* token, whatever it is. It is called an **attention sink**. The usual
# explanation (Xiao et al. 2023) is that weights must sum to 1, so a head that finds nothing needs a
# place for them, and the first token is the only one that every query sees. These scores only show
# where heads look. LLM06+ silences the induction heads.
#
# **Try it** in the view below. Choose "random words, twice" and "what followed last time": a few
# heads stay bright. Select one of them. Then walk through the second half of the words with the
# arrow keys: the head looks at the word that came next in the first half.


# %% SmolLM2
@cache
def language_model(run: Run) -> tuple[Any, Tensor, Any]:
    """Return the model, the ids of a sentence, (1, T), and the tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = assets.pretrained(run.options.model, run.online)
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    model: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    )
    ids = tokenizer(head_patterns.SENTENCES["names"]).input_ids
    return model.to(run.device).eval(), torch.tensor([ids], device=run.device), tokenizer


@torch.no_grad()
def weights_of(model: Any, ids: Tensor) -> Tensor:
    """Return the attention weights of a library's model, (L, B, H, T, T)."""
    return torch.stack(model(ids, output_attentions=True).attentions)


@lab.experiment
@torch.no_grad()
def heads_of_smollm2_have_jobs(run: Run):
    """SmolLM2 has heads that look at the previous token, at what followed last time, at a sink.

    Predict: which share of their weight do the queries give the first token, whatever it is?
    """
    model, ids, tokenizer = language_model(run)
    size = (run.pick(tiny=8, small=32, full=64), 32)
    half = torch.randint(1000, model.config.vocab_size, size, device=run.device)
    repeated = half.repeat(1, 2)  # (B, 64)
    plain = torch.randint_like(repeated, 1000, model.config.vocab_size)
    query, key = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    late = query >= 32  # the second half
    jobs = {
        "previous token": (key == query - 1) & late,
        "induction": (key == query - 31) & late,
        "first token": (key == 0) & late,
    }
    weights = weights_of(model, repeated)
    control = weights_of(model, plain)
    sentence = weights_of(model, ids)[:, 0]  # (L, H, T, T)
    maps = {}
    for name, pairs in jobs.items():
        pairs = pairs.to(run.device).expand(len(repeated), -1, -1)
        scores = torch.stack([head_scores(layer, pairs) for layer in weights])  # (L, H)
        layer, head = divmod(int(scores.argmax()), scores.shape[1])
        maps[f"{name}\nlayer {layer + 1}, head {head + 1}"] = sentence[layer, head].cpu()
        because = "most of the weight; spread evenly it would be 0.02"
        best = f"{name}, score of the best head"
        run.measure(best, scores.max(), expect_at_least=0.5, because=because, decides=True)
        if name == "induction":
            elsewhere = head_scores(control[layer], pairs)[head]
            because = "it follows the repetition, not a fixed distance"
            what = "the same head and distance, without a repetition"
            run.measure(what, elsewhere, expect_at_most=0.1, because=because, decides=True)
    sink = scores.mean()
    because = "ten times what an even spread would give"
    run.measure(
        "first token, mean of all heads", sink, expect_at_least=0.2, because=because, decides=True
    )
    run.figure(
        figures.heads_on_a_sentence(maps, [tokenizer.decode(i).strip() for i in ids[0]]),
        "smollm2_heads",
        "The best head for each job (SmolLM2-135M-Instruct in 4 bits, unless --model named "
        "another model) on a sentence.",
        alt="Three heat maps of attention weights, query by key, with words on both axes.",
    )
    run.view("attention", "heads", *head_patterns.view(model, tokenizer))
    return f"In the second half, the first token gets {100 * sink:.0f} % of the weight."


# %% [markdown]
# ## What to remember
# - A query is compared with every key. The softmax of the scores weighs the values.
# - A mask acts before the softmax. A row without any key gets weights of 0.
# - Split heads with a reshape *and* a transpose. Shared key-value heads shrink the cache.
# - Two heads in a row learned what two side by side didn't: to copy what followed last time.
# - A map of weights shows where a head looks. A knock-out tests whether the model relies on it. If
#   nothing happens, another head may do the same job.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Report this run's two knock-outs."""
    digit = results.value(
        "cross_attention_finds_the_digit", "digits 2 to 4 right, each hidden from its query"
    )
    recall = results.value("two_heads_do_the_recall", "accuracy, induction hidden")
    return (
        "## In this run\n"
        f"With its digit hidden, the date reader wrote it in {100 * digit:.0f} % of the cases. "
        f"With the induction head's keys hidden, recall fell to {100 * recall:.0f} %."
    )


# %% [markdown]
# **Read on**: Vaswani et al. 2017, *Attention Is All You Need* · Ainslie et al. 2023 on grouped
# queries · Elhage et al. 2021 and Olsson et al. 2022 on circuits · Xiao et al. 2023 on sinks.
#
# **Deeper**: LLM06+ derives the entropy of the weights, computes attention in tiles as
# FlashAttention does, and measures what a sink hands over. Next: LLM07, LoRA.

# %%
if __name__ == "__main__":
    lab.main()
