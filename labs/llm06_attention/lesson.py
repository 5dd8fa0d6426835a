# %% [markdown]
# # LLM06 · Attention
# How a token looks at other tokens, from five words on paper to the 270 heads of SmolLM2.
#
# **You will be able to** write attention by hand and check it against PyTorch's; mask it without
# leaks or NaN; read an attention map, and test whether the model relies on what it shows.
# **Builds on** softmax and matrix products (LLM02 and LLM03), and on blocks and positions (LLM05a
# and LLM05b). **Takes** 40 minutes to read, two hours with the exercises, a minute to run.

# %% Imports
import math
from collections.abc import Callable
from functools import partial

from labs.kit import Lab, Results, Run, assets, tolerance
from labs.llm06_attention import dates, figures, five_words, head_patterns, library, recall
from labs.llm06_attention.attention_maps import jobs, language_model, patterns, weights_of
from labs.llm06_attention.training import train_on_dates, train_on_previous, train_on_recall

import torch
import torch.nn.functional as F
from torch import Tensor, nn

lab = Lab("LLM06")
lab.before_run(assets.check_model)

# %% [markdown]
# ## 1. Five words on paper
# Read "the dog saw its tail". To understand "its" you look back at "dog". Attention gives a model
# this ability: each token **attends to**, or looks at, the tokens of the text, itself included.
# For this, each token has three vectors:
#
# - its **query** $q$ says what it looks for;
# - its **key** $k$ says how other tokens can find it;
# - its **value** $v$ is what it hands over when another token looks at it.
#
# All three are computed from the token's own vector $x$, by three matrices that a model learns:
# $q = x W_Q$, $k = x W_K$, $v = x W_V$. Here we choose everything by hand. A word is described by
# five features: article, noun, verb, possessive, animal. So "its" is $x = (0, 0, 0, 1, 0)$ and
# "dog" is $(0, 1, 0, 0, 1)$. The matrices have a row for each feature:
#
# $$W_Q = \begin{pmatrix} 0 & 0 \\ 0 & 3 \\ 3 & 0 \\ 3 & 0 \\ 0 & 0 \end{pmatrix} \quad
# W_K = \begin{pmatrix} 0 & 2 \\ 2 & 0 \\ 0 & 0 \\ 0 & 0 \\ 0 & 0 \end{pmatrix} \quad
# W_V = \begin{pmatrix} 0 & 0 \\ 0 & 0 \\ 0 & 1 \\ 0 & 0 \\ 1 & 0 \end{pmatrix}$$
#
# Vectors are rows here, and matrices stand on the right; LLM05b wrote $q = W_q x$. A product $x W$
# adds the rows of the features that a word has. "Its" has one feature, so its query is the fourth
# row of $W_Q$: $q = (3, 0)$. The first coordinate of a query or key means "noun", the second
# "article". So "its" looks for nouns, and so does a verb. Nouns look for articles. "Dog" is a noun
# and an animal. Rows 2 and 5 give its key $k = (2, 0)$ and its value $v = (1, 0)$. The first
# coordinate of a value means "an animal", the second "an action".
#
# Attention then takes four steps for each query.
#
# - **Scores.** Multiply the query with every key. A large product means a good match.
# - **Scale.** Divide the scores by $\sqrt d$, where $d$ is the width of a key, 2 in this example.
# - **Weights.** A softmax turns the scores into positive weights that sum to 1.
# - **Output.** Average the values with these weights.
#
# For "its", $q = (3, 0)$. "Dog" and "tail" both have the key $(2, 0)$ and score
# $3 \cdot 2 / \sqrt 2 = 4.24$. The other three words score 0. The softmax compares
# $e^{6/\sqrt 2} = 69.6$ with $e^0 = 1$: each noun gets $69.6/(2 \cdot 69.6 + 3) = 0.49$ of the
# weight, and each other word 0.007. "Dog" adds $0.49 \cdot (1, 0)$ to the output, "saw" adds
# $0.007 \cdot (0, 1)$, and "tail" adds nothing, as its value is $(0, 0)$. The output is
# $(0.49, 0.007)$, half an animal: "its" can't decide between "dog" and "tail". But somebody who
# reads from left to right hasn't seen "tail" yet. The experiment below hides it. And "the" looks
# for nothing: its query is $(0, 0)$, so it gives each word 0.2. Section 8 shows what a real model
# does instead.


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
    share = on_paper / (2 * on_paper + 3)  # of "dog", and of "tail"
    error = weights[3, [1, 4]] - share
    run.agree("weights on both nouns − on paper", error, tolerance(torch.float32), decides=True)
    error = output[3] - torch.tensor([share, share / on_paper])  # an animal, an action
    run.agree("output − on paper", error, tolerance(torch.float32))
    run.figure(
        figures.worked_example(q, k, scores, weights, v, output),
        "five_words",
        "All numbers, rounded. Orange frames: the row of “its”. Its query is compared with all "
        "keys, and its weights average all values.",
        alt="Six small tables of numbers: queries, keys, scores, weights, values and outputs.",
    )
    run.view("five_words", "sentence", *five_words.view())
    hidden = scores[3, :4].softmax(-1)  # without the last word
    return (
        f'"dog" gets {weights[3, 1]:.2f} of the weight, and "tail" as much. With "tail" hidden, '
        f'"dog" gets {hidden[1]:.2f}.'
    )


# %% [markdown]
# ## 2. Attention in one formula
# Write the queries of all $T$ tokens as the rows of a matrix $Q$, the keys as $K$, the values as
# $V$. The four steps become one formula (Vaswani et al. 2017, equation 1):
#
# $$\text{Attention}(Q, K, V) = \text{softmax}\left(\frac{Q K^\top}{\sqrt d}\right) V$$
#
# The width $d$ of a key is `D` in the shapes of the code. If queries, keys and values come from the
# same text, as here, the formula is called **self-attention**.
#
# **Why $\sqrt d$?** A score sums $d$ products. If the entries of $q$ and $k$ are independent, with
# mean 0 and variance 1, the score has variance $d$. For $d = 64$ its standard deviation would be 8.
# Of 256 keys, the best would then get three quarters of the weight on average, and the best three
# 94 %, before the model has learned which ones matter. Division by $\sqrt d$ brings the variance
# back to 1. LLM06+ measures how many keys share the weight with and without it.
#
# A **mask** says which keys each query may attend to; section 3 shows the usual ones. It sets the
# other scores to $-\infty$ *before* the softmax. Their weights become 0, and the remaining weights
# still sum to 1. With "tail" hidden, "dog" gets $69.6/(69.6 + 3) = 0.96$. Set the weight of "tail"
# to 0 *after* the softmax, and "dog" stays at 0.49, as "tail" still counts in the sum. In this way
# a hidden token leaks into the output; LLM06+ measures it.
#
# A mask may hide all keys from a query: a padded batch can contain an empty text (section 3). Then
# `torch.tensor([-math.inf] * 2).softmax(-1)` is `[nan, nan]`: $-\infty$ minus the maximum, also
# $-\infty$, is NaN. We want weights of 0. So our code fills hidden scores with the lowest finite
# number. The softmax is then defined, and the code sets the hidden weights to 0.
#
# Don't *add* $-\infty$ to all scores of a query. You can set its NaN weights to 0 afterwards. But
# its gradient stays NaN: the softmax's backward pass multiplies by these weights, and 0 · NaN is
# NaN. *Filling* with $-\infty$, and setting hidden weights to 0 afterwards, works: `masked_fill`
# passes a gradient of 0 to the scores that it replaced.


# %% Scaled dot-product attention
@lab.exercise(
    level=2,
    hints=(
        "Hide a key before the softmax, so that its score doesn't enter the sum.",
        "A row of nothing but -inf gives NaN. Which lowest number keeps the softmax defined?",
        "Fill with torch.finfo(scores.dtype).min. At the end, set hidden weights to 0 once more.",
    ),
)
def masked_softmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the softmax over the keys that a query may look at, and 0 for the others.

    `scores` is (..., Tq, Tk). `mask` is boolean, True where a query may look, and broadcasts to the
    scores. A query that may look at no key gets weights of 0.
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

    (..., Tq, D), (..., Tk, D), (..., Tk, Dv) -> (..., Tq, Dv). `mask` is as in `masked_softmax`.
    """
    scores = q @ k.mT / math.sqrt(q.shape[-1])  # (..., Tq, Tk)
    return masked_softmax(scores, mask) @ v  # (..., Tq, Dv)


# %% [markdown]
# ## 3. Masks
# Without a mask and without positions, attention can't know the order of the tokens (LLM05a).
# Models use three masks most. Combine two of them with `&`.
#
# - **Causal.** A language model predicts the next token, so a query may look at its own key and at
#   earlier ones. The mask is a lower triangle.
# - **Causal with a cache.** A model that generates adds one token a step. Earlier keys and values
#   don't change, as no token sees later ones, so the **KV cache** stores them. A step has queries
#   only for the newest tokens, the *last* positions. Its mask is the bottom rows of the triangle.
# - **Padding.** Texts of different lengths are padded to one length. No query may attend to the
#   padding. The mask depends on the lengths of the **sources**, the texts that queries attend to.


# %% Masks
@lab.exercise(
    level=1,
    hints=(
        "Query i of the last tq has position tk − tq + i. It sees its own key and earlier keys.",
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
def padding_mask(source_lengths: Tensor, tq: int, tk: int) -> Tensor:
    """Return (B, 1, Tq, Tk), True where a query may look, for (B,) lengths of padded texts.

    The padding is on the right.
    """
    real = torch.arange(tk, device=source_lengths.device) < source_lengths[:, None]  # (B, Tk)
    return real[:, None, None, :].expand(-1, 1, tq, -1)  # (B, 1, Tq, Tk)


@lab.experiment
def by_hand_equals_the_library(run: Run):
    """Attention by hand equals `F.scaled_dot_product_attention` without a mask and with each mask.

    Predict: if a query may look at no key, ours returns 0. What does PyTorch's function return?
    """
    q, k, v = torch.randn(3, 3, 6, 50, 16, dtype=torch.float64)  # (B, H, T, D) each
    new = q[:, :, -5:]  # the last five queries: 45 keys are in the cache, 5 are new
    padding = padding_mask(torch.tensor([50, 0, 7]), 5, 50)  # a full, an empty, a short source
    cases = {
        "no mask": (q, None),
        "causal": (q, causal_mask(50, 50)),
        "five new tokens and a cache of 45": (new, causal_mask(5, 50)),
        "padded sources, one of them empty": (new, padding),
    }
    for name, (queries, mask) in cases.items():
        expected = F.scaled_dot_product_attention(queries, k, v, mask)
        error = attention(queries, k, v, mask) - expected
        run.agree(name, error, tolerance(torch.float64), decides=True)
    run.figure(
        figures.masks(causal_mask(5, 5), causal_mask(2, 5), padding[..., :9]),
        "masks",
        "Three masks. A filled cell is a key that the query may look at. In the third, a row is "
        "for all queries that look at one source: of 9, 0 and 7 tokens.",
        alt="Three grids: a triangle, the lower part of one, and rows of 9, 0 and 7 filled cells.",
    )
    empty = F.scaled_dot_product_attention(new, k, v, padding)[1]
    return f"PyTorch {torch.__version__} returns {empty.abs().max():g}. Old versions returned NaN."


# %% [markdown]
# ## 4. Heads
# One head hands over one average. If a verb looks at its subject and its object with one head, it
# may not be able to tell afterwards who did what. **Multi-head attention** runs $H$ heads
# side by side, each with its own three projections. A last matrix $W_O$ mixes their outputs:
#
# $$\text{head}_h = \text{Attention}(x W_Q^h,\; x W_K^h,\; x W_V^h)$$
#
# $$\text{MultiHead}(x) = [\text{head}_1, \dots, \text{head}_H]\, W_O$$
#
# The brackets put the outputs of all heads side by side. Usually $d = d_\text{model}/H$. The $d$
# under the root is the width of *one head's* keys, not of the model.
#
# In code, one product gives the queries of all heads, `(B, T, H * D)`. The first figure below shows
# the split: `unflatten` cuts the last axis into heads, `transpose` moves them before the tokens, to
# `(B, H, T, D)`. A bare `view` gives this shape, too, but mixes heads with tokens. Queries and keys
# then get their positions, each head attends, and `transpose` and `flatten` merge the heads.
#
# The KV cache has the keys and values of every layer and head. For long texts it can outgrow the
# model. **Grouped-query attention** (GQA, Ainslie et al. 2023) makes it smaller: several query
# heads share one key-value head. SmolLM2 has 9 query heads on 3 key-value heads. The first three
# share the first key-value head, and so on. Its cache is a third as large as with 9 of them.


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
    """Return attention in which Hq/Hkv neighbouring query heads share a key-value head.

    (..., Hq, Tq, D), (..., Hkv, Tk, D) twice -> (..., Hq, Tq, D); `mask` fits (..., Hq, Tq, Tk).
    """
    sharing = q.shape[-3] // k.shape[-3]
    k = k.repeat_interleave(sharing, dim=-3)  # (..., Hq, Tk, D)
    v = v.repeat_interleave(sharing, dim=-3)  # (..., Hq, Tk, D)
    return attention(q, k, v, mask)


class MultiHeadAttention(nn.Module):
    """Attend with `heads` query heads that share `kv_heads` key-value heads, all of width D.

    `position` acts on queries and keys, (..., H, T, D).
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
        position: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
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
            "One head after another: y.unflatten(-1, (-1, self.head_dim)) splits and counts them.",
            "Attention wants (..., H, T, D): which two axes have to change places?",
            "self.position on q and k; grouped_query_attention; transpose, flatten(-2), o_proj.",
        ),
    )
    def forward(
        self, x: Tensor, mask: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Attend, (..., Tq, d_model) in and out; k and v are of `context` (section 5), or of x."""
        context = x if context is None else context
        q = self.q_proj(x).unflatten(-1, (-1, self.head_dim)).transpose(-3, -2)  # (..., H, T, D)
        k = self.k_proj(context).unflatten(-1, (-1, self.head_dim)).transpose(-3, -2)
        v = self.v_proj(context).unflatten(-1, (-1, self.head_dim)).transpose(-3, -2)
        mixed = grouped_query_attention(self.position(q), self.position(k), v, mask)
        merged = mixed.transpose(-3, -2).flatten(-2)  # (..., Tq, H·D)
        return self.o_proj(merged)


@lab.experiment
@torch.no_grad()
def heads_equal_the_library(run: Run):
    """Our heads equal `nn.MultiheadAttention`, and shared heads PyTorch's grouped queries.

    Predict: SmolLM2 takes 257 MiB in bfloat16. It has 30 layers, and its heads are 64 wide. How
    much does its cache take for 8,192 tokens?
    """
    theirs = nn.MultiheadAttention(48, 6, batch_first=True).double()
    ours = MultiHeadAttention(48, 6, bias=True).double()
    library.copy_weights(theirs, ours)
    x = torch.randn(3, 50, 48, dtype=torch.float64)
    past = causal_mask(50, 50)
    expected = theirs(x, x, x, attn_mask=~past)[0]  # its masks are True where one may NOT look
    run.agree("self-attention, causal", ours(x, past) - expected, decides=True)
    context = torch.randn(3, 20, 48, dtype=torch.float64)
    error = ours(x, None, context) - theirs(x, context, context)[0]
    run.agree("cross-attention", error, decides=True)
    q = torch.randn(2, 9, 50, 16, dtype=torch.float64)
    k, v = torch.randn(2, 2, 3, 50, 16, dtype=torch.float64)
    expected = F.scaled_dot_product_attention(q, k, v, past, enable_gqa=True)
    error = grouped_query_attention(q, k, v, past) - expected
    run.agree("9 query heads on 3 key-value heads", error, decides=True)
    figures.show_split_heads(run)
    figures.show_groups(run)
    mib = 30 * 2 * 64 * 2 * 8192 / 2**20  # layers, keys and values, numbers, bytes, tokens
    return (
        f"3 heads in 30 layers: {3 * mib:.0f} MiB. 9 key-value heads would take {9 * mib:.0f} MiB."
    )


# %% [markdown]
# ## 5. Cross-attention: keys and values come from elsewhere
# In **cross-attention** the keys and values come from a different input than the queries. In
# translation, queries come from the words written so far, keys and values from the source text.
#
# The task here: read a date as people write it, `march 3, 1999` or `3 march 1999`, and write
# `1999-03-03`. The **encoder** reads the source with one layer of self-attention. The **decoder**
# learns a vector for each of the ten characters to write. So the queries come from parameters, not
# from a text. The first figure below shows the model. Query 3 is the same for every date: it asks
# for "the third digit of the year". The head must use the keys to find that digit. All characters
# are written at once. Usual decoders write one after another: a query sees those before its own.
#
# The weights of the cross-attention form an **alignment**: which part of the source does each
# written character look at? `alignment` reads them with unit vectors as values: the output is then
# the weights. Weights can mislead. The encoder may copy a character to its neighbour's vector,
# where the query then finds it. To test whether the model relies on a key, hide it: an **attention
# knock-out** (Geva et al. 2023). The other keys get its weight, so the head hands over something
# else, not nothing. A knock-out shows which *vector* is needed, not which characters are in it.


# %% Dates
class DateReader(nn.Module):
    """An encoder with self-attention, and ten queries that look at it with one head."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.encoder = dates.Encoder(MultiHeadAttention(width, 4), width)
        self.queries = nn.Parameter(torch.randn(dates.TARGET, width))
        self.cross_attention = MultiHeadAttention(width, 1)
        self.writer = dates.Writer(width)  # an MLP, and a score for each character

    def encode(self, source: Tensor, lengths: Tensor) -> Tensor:
        """Return what the queries look at, (B, SOURCE) -> (B, SOURCE, width)."""
        return self.encoder(source, padding_mask(lengths, dates.SOURCE, dates.SOURCE))

    def forward(self, source: Tensor, lengths: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits (B, TARGET, V); `mask` is that of the cross-attention."""
        if mask is None:
            mask = padding_mask(lengths, dates.TARGET, dates.SOURCE)
        y = self.queries.expand(len(source), -1, -1)  # (B, TARGET, width)
        return self.writer(y + self.cross_attention(y, mask, self.encode(source, lengths)))

    def alignment(self, source: Tensor, lengths: Tensor) -> Tensor:
        """Return the weights of the cross-attention, (B, TARGET, SOURCE)."""
        q = self.cross_attention.q_proj(self.queries)  # (TARGET, width)
        k = self.cross_attention.k_proj(self.encode(source, lengths))  # (B, SOURCE, width)
        v = torch.eye(dates.SOURCE, device=k.device)  # a unit vector for each character
        return attention(q, k, v, padding_mask(lengths, dates.TARGET, dates.SOURCE)[:, 0])


@lab.experiment
@torch.no_grad()
def cross_attention_finds_the_digit(run: Run):
    """To write digits 2 to 4 of a year, the head looks at that digit's place, and relies on it.

    Predict: hide the digit from the query. How often does the model still write it?
    """
    figures.show_date_reader(run)
    test = dates.Sampler(run.seed, dates.TEST_YEARS)
    source, lengths, target = (x.to(run.device) for x in test.batch(500))
    places = dates.places_of_the_year(lengths)  # (B, 4)
    source_mask = padding_mask(lengths, dates.TARGET, dates.SOURCE)  # (B, 1, TARGET, SOURCE)
    masks = dates.knock_outs(source_mask, places)
    accuracy = {case: [] for case in masks}
    alignments = []
    for seed in run.seeds(3):
        with torch.enable_grad():
            model = train_on_dates(run, DateReader, seed)
        year = model.alignment(source, lengths)[:, :4]  # (B, 4, SOURCE): queries of the year
        alignments.append(year.gather(-1, places[..., None]).mean((0, 2)))  # (4,)
        for case, mask in masks.items():
            written = model(source, lengths, mask).argmax(-1)  # (B, TARGET)
            accuracy[case].append((written == target).float().mean(0))  # (TARGET,)
    characters = torch.stack(accuracy["nothing"]).mean(-1).tolist()  # for each seed
    constant = "the best constant guess has 0.43"
    run.measure("characters right, new years", characters, expect_at_least=0.95, because=constant)
    # The first digit is only ever 1 or 2: a model may find it without looking there.
    later = torch.stack(alignments)[:, 1:].flatten().tolist()
    evenly = "most of it; spread evenly it would be 0.07"
    name = "weight on each of digits 2 to 4"
    run.measure(name, later, expect_at_least=0.5, because=evenly, decides=True)
    without_digit = torch.stack(accuracy["digit"])[:, 1:4].flatten().tolist()
    half = "half of what it writes with the digit; the best constant digit has 0.15"
    name = "digits 2 to 4 right, each hidden"
    run.measure(name, without_digit, expect_at_most=0.5, because=half, decides=True)
    without_neighbour = torch.stack(accuracy["neighbour"])[:, 1:4].flatten().tolist()
    control = "a test of the masks: this key has little weight, so hiding it changes little"
    name = "digits 2 to 4 right, the character before it hidden"
    run.measure(name, without_neighbour, expect_at_least=0.8, because=control)
    texts = {"march 3, 1999": "1999-03-03", "28 september 2024": "2024-09-28"}
    weights = model.alignment(*(x.to(run.device) for x in dates.encode(list(texts)))).cpu()
    figures.show_alignments(run, weights, texts)
    return f"With its digit hidden, a query writes it in {100 * max(without_digit):.0f} % at most."


# %% [markdown]
# ## 6. Two layers recall what followed
# Here is a task that two layers learn, and one layer with as many parameters doesn't in as many
# steps. In **recall**, 16 different tokens come first, then eight of them again in random order,
# each with the token that followed it before: `… D B A F C … | A F  D B …`. The model predicts the
# second token of each pair.
#
# In the first figure below, the query is the last A. A score compares it with *one* key. So it can
# find the earlier A by its content. Thanks to RoPE, it can also find a key at a fixed distance. It
# can't find F: nothing in the key of F says that A came before, and the distance differs each time.
#
# This argument isn't a proof. Sanford et al. 2024 prove a bound, which you may skip: for one layer,
# heads times width times bits of precision must grow at least in proportion to the length. Here
# 2 heads · width 32 · 32 bits = 2,048, far more than 32 tokens. The bound doesn't exclude our
# layer, so we need the experiment. Two layers take two steps:
#
# - In layer 1, a **previous-token head** adds A's value to F's vector: a note "A came before me".
# - In layer 2, the key of F is computed from F and this note. An **induction head** finds it with
#   the query A, and copies F. The two are an **induction circuit** (Olsson et al. 2022).
#
# We compare two models of 20,480 parameters: one layer with two heads, and two layers with one head
# each, trained for 300 steps (`tiny`). As a control, one layer has to name the token *before* the
# query, in half as many steps. A fixed distance is enough for that, so one layer should learn it.


# %% Recall
class AttentionOnly(nn.Module):
    """Layers of attention, each added to its input: no MLP, no norm."""

    def __init__(self, layers: int, heads: int):
        super().__init__()
        self.embed = nn.Embedding(recall.VOCABULARY, 64)
        self.unembed = nn.Linear(64, recall.VOCABULARY, False)
        layer = partial(MultiHeadAttention, 64, heads, head_dim=32, position=recall.rope)
        self.layers = nn.ModuleList(layer() for _ in range(layers))

    def forward(self, tokens: Tensor, masks: list[Tensor] | None = None) -> Tensor:
        """Return the logits after each key, (B, PAIRS, V); a mask for each layer, or causal."""
        x = self.embed(tokens)
        if masks is None:
            masks = [recall.PAST.to(x.device)] * len(self.layers)
        for layer, mask in zip(self.layers, masks, strict=True):
            x = x + layer(x, mask)
        return self.unembed(x[:, recall.KEYS])


@lab.experiment
def two_layers_learn_recall(run: Run):
    """Two layers with one head each learn recall; one layer with two doesn't in as many steps.

    Predict: which accuracy does one layer reach? A blind guess has 1/32.
    """
    figures.show_circuit(run)
    tokens = recall.recall_batch(2000).to(run.device)
    accuracy = {1: [], 2: []}
    curves = {1: [], 2: [], "control": []}
    for seed in run.seeds(3):
        for layers in (1, 2):
            model, curve = train_on_recall(run, AttentionOnly, layers, 3 - layers, seed)
            accuracy[layers].append(recall.accuracy(model, tokens))
            curves[layers].append(curve)
        curves["control"].append(train_on_previous(run, AttentionOnly, seed))
    guess = recall.TWICE_A_GUESS
    run.check("accuracy, one layer", accuracy[1], at_most=0.2, because=guess, decides=True)
    far = "nine of ten: far above what any guess reaches"
    run.measure("accuracy, two layers", accuracy[2], expect_at_least=0.9, because=far, decides=True)
    control = [sum(curve[-10:]) / 10 for curve in curves["control"]]  # each step has new tasks
    name = "accuracy, one layer, the token before the query"
    run.measure(name, control, expect_at_least=0.9, because=far, decides=True)
    figures.show_rise(run, curves, recall.GUESS)
    return f"One layer reaches at best {max(accuracy[1]):.3f}, two at worst {min(accuracy[2]):.3f}."


# %% [markdown]
# ## 7. What does a head look at?
# To find a head, describe its job as pairs: for each query, the keys that it should look at. For
# each query with such a key, add up the weight on its keys. The mean over these queries is the
# head's **score for the job**. Say one query puts 0.9 on its key, another 0.7, and a third has no
# key: the score is 0.8. A score shows where a head looks. A knock-out tests whether the model needs
# what the head finds there.


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


@lab.experiment
def two_heads_do_the_recall(run: Run):
    """Without the previous token in layer 1, or what followed last time in layer 2, recall is gone.
    With only these keys, most of it stays.

    Predict: if both layers see only these keys, is the accuracy lower, the same or higher?
    """
    tokens = recall.recall_batch(1000).to(run.device)
    models = [train_on_recall(run, AttentionOnly, 2, 1, seed)[0] for seed in run.seeds(3)]
    weights = [patterns(model, tokens) for model in models]
    circuit = recall.circuit(tokens)
    only_pairs = []
    for layer, (job, pairs) in enumerate(circuit.items()):
        scores = [head_scores(layers[layer], pairs)[0] for layers in weights]
        evenly = "three times an even spread, which gives less than 0.2"
        run.measure(f"score on {job}", scores, expect_at_least=0.6, because=evenly, decides=True)
        only_pairs.append(pairs[:, None])  # (B, 1, T, T)
        masks = [recall.PAST, recall.PAST]
        masks[layer] = recall.PAST & ~pairs.cpu()[:, None]
        without = [recall.accuracy(model, tokens, masks) for model in models]
        label = f"accuracy, {job} hidden"
        run.check(label, without, at_most=0.2, because=recall.TWICE_A_GUESS, decides=True)
    with_pairs = [recall.accuracy(model, tokens, only_pairs) for model in models]
    control = "four of five: the head copies the only key left; finding it is tested above"
    name = "accuracy, in both layers all keys but these hidden"
    run.measure(name, with_pairs, expect_at_least=0.8, because=control, decides=True)
    figures.show_two_heads(run, patterns(models[0], tokens[:1]), circuit.values())
    complete = [recall.accuracy(model, tokens) for model in models]
    return (
        f"Lowest accuracy: {min(complete):.3f} with all keys, {min(with_pairs):.3f} with these. "
        "Each query then sees at most one key and needn't search. So this shows that these keys "
        "are enough. The scores show that the heads find them."
    )


# %% [markdown]
# ## 8. The heads of a language model
# SmolLM2-135M-Instruct has 30 layers of 9 query heads; our copy has its weights compressed to 4
# bits each. Do its heads show three patterns: the previous token, induction, and a sink? The text
# has 64 random tokens, 32 and the same 32 again. At the second copy of a token, an induction head
# looks 31 tokens back: 32 to the first copy, then one forward.
#
# An **attention sink** is a token on which many heads put much of their weight, whatever it is:
# most often the *first*. The usual explanation (Xiao et al. 2023): weights must sum to 1, so a head
# that finds nothing needs a place for them. The first token is the only one that every query sees.
#
# **Try it** in the view below. Choose "random words, twice" and "what followed last time": a few
# heads stand out. Select one of them. Then walk through the second half of the words with the
# arrow keys: the head looks at the word that came next in the first half.


# %% SmolLM2
@lab.experiment
@torch.no_grad()
def heads_of_smollm2_have_patterns(run: Run):
    """SmolLM2 has a previous-token head, an induction head, and a sink on the first token.

    Predict: which share of their weight do the queries give the first token, whatever it is?
    """
    model, ids, tokenizer = language_model(run)
    repeated = head_patterns.repeated_tokens(run, model)  # (B, 64), the second half as the first
    weights = weights_of(model, repeated)
    control = weights_of(model, torch.randint_like(repeated, 1000, model.config.vocab_size))
    sentence_weights = weights_of(model, ids)[:, 0]  # (L, H, T, T)
    maps = {}
    scores = {}
    for name, pairs in jobs(repeated).items():  # for queries in the second half
        scores[name] = torch.stack([head_scores(layer, pairs) for layer in weights])  # (L, H)
        layer, head = divmod(int(scores[name].argmax()), scores[name].shape[1])
        maps[f"{name}\nlayer {layer + 1}, head {head + 1}"] = sentence_weights[layer, head].cpu()
        best = scores[name][layer, head]
        evenly = "most of the weight; spread evenly it would be 0.02"
        label = f"{name}, score of the best head"
        run.measure(label, best, expect_at_least=0.5, because=evenly, decides=True)
        if name == "induction":
            unrepeated = head_scores(control[layer], pairs)[head]
            reason = "it follows the repetition, not a fixed distance"
            label = "the same head and distance, without a repetition"
            run.measure(label, unrepeated, expect_at_most=0.1, because=reason, decides=True)
    sink = scores["first token"].mean()
    evenly = "ten times what an even spread would give"
    label = "first token, mean of all heads"
    run.measure(label, sink, expect_at_least=0.2, because=evenly, decides=True)
    words = [tokenizer.decode(i).strip() for i in ids[0]]
    figures.show_heads_on_a_sentence(run, maps, words)
    run.view("attention", "heads", *head_patterns.view(model, tokenizer))
    return f"In the second half, the first token gets {100 * sink:.0f} % of the weight."


# %% [markdown]
# ## What to remember
# - A query is compared with every key. The softmax of the scores weighs the values.
# - A mask acts before the softmax. A row without any key gets weights of 0.
# - Split heads with a reshape *and* a transpose. Shared key-value heads shrink the KV cache.
# - Two layers learned to copy what followed last time: over 90 % right. One layer had under 20 %.
# - A map of weights shows where a head looks. A knock-out tests whether the model relies on it.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Report this run's two knock-outs."""
    digit = results.value("cross_attention_finds_the_digit", "digits 2 to 4 right, each hidden")
    recalled = results.value("two_heads_do_the_recall", "accuracy, induction hidden")
    return (
        "## In this run\n"
        f"With its digit hidden, the date reader wrote it in {100 * digit:.0f} % of the cases. A "
        "constant digit is right in about 15 % of the years at best. With the induction head's "
        f"keys hidden, recall fell to {100 * recalled:.0f} %. A blind guess has 3 %. The model "
        "can do worse, because it usually names a token of the text, and the right one is hidden."
    )


# %% [markdown]
# **Read on**: Vaswani et al. 2017, *Attention Is All You Need* · Ainslie et al. 2023, *GQA* · Geva
# et al. 2023, *Dissecting Recall of Factual Associations*, on knock-outs · Elhage et al. 2021, *A
# Mathematical Framework for Transformer Circuits* · Olsson et al. 2022, *In-context Learning and
# Induction Heads* · Sanford et al. 2024, *One-layer Transformers Fail to Solve the Induction Heads
# Task* · Xiao et al. 2023, *Efficient Streaming Language Models with Attention Sinks*.
#
# **Deeper**: LLM06+ derives the entropy of the weights, fills a KV cache, computes softmax in
# tiles as FlashAttention does, and measures what heads and sinks are worth. Next: LLM07, LoRA.

# %%
if __name__ == "__main__":
    lab.main()
