# %% [markdown]
# # LLM03+ · Neural network fundamentals, deeper
# Memory behind a tensor, the directions of a weight matrix, twenty layers, and time.
#
# This sitting goes beyond LLM03 in nine sections. Sections 5 to 7 belong together, 7 uses 4, and 9
# uses 8. **You will be able to** read strides and make views; explain what a missing axis teaches a
# model; replace transposes by einsum; find how much of a weight matrix is used; compute what twenty
# layers leave of a signal; read an exponent off log-log axes; predict from FLOPs and bytes how fast
# a product can be. **Needs** LLM03 and nothing later. **Takes** about an hour and a half to read,
# half a minute to run (`tiny`, 2 cores).

# %% Imports
import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from labs.kit import Lab, Results, Run, on_one_thread, tolerance
from labs.llm03_neural_networks import deeper_figures as figures
from labs.llm03_neural_networks import starts
from labs.llm03_neural_networks.costs import Shape, best_in_turn, product_call, time_with_roof
from labs.llm03_neural_networks.digits import accuracy, centred, percent, share_read, split_digits
from labs.llm03_neural_networks.lesson import train_classifier
from labs.llm03_neural_networks.watch import is_refused

import torch
import torch.nn.functional as F
from torch import Tensor, nn

lab = Lab("LLM03+")
FLOAT32 = tolerance(torch.float32)
DOUBLE: dict[str, Any] = {"dtype": torch.float64}

# %% [markdown]
# ## 1. Strides: many tensors, one memory
# Memory has no axes. The numbers of a tensor lie in a row, its **storage**. The shape and the
# **strides** turn this row into an array: the stride of an axis is the number of places from one
# entry to the next along it. With an offset for the first entry, entry $(i, j)$ is at
#
# $$\text{offset} + i \cdot \text{stride}_0 + j \cdot \text{stride}_1$$
#
# Take twelve numbers as 3 rows of 4. The strides are `(4, 1)`: the next row starts 4 places later,
# and the next entry of a row 1 place later. Read the same numbers with the shape `(4, 3)` and the
# strides `(1, 4)`, and you have the transpose. Nothing moved. Such a tensor is a **view**. The
# figure shows five tensors that read the same twelve places.
#
# - A slice such as `x[1:, ::2]` skips entries: another offset, and a larger stride.
# - `expand` stretches an axis by giving it the stride 0. Broadcasting does this to its inputs, so
#   it copies neither of them.
# - `as_strided` takes shape, strides and offset as you give them. If you give no offset, it takes
#   that of its source. No stride may be negative, and every place must be inside the storage.
# - A list of indices such as `x[[0, 2]]` copies: it may name rows in any order, which strides can't
#   describe. `x.T.contiguous()` copies the numbers into the order in which `x.T` is read.
#
# Now read `x.T` row by row, as 12 numbers in one axis. They are 0, 4, 8, 1, 5, …: the step isn't
# constant, so no stride describes it. `x.T.view(12)` raises an error; `x.T.reshape(12)` copies.
#
# Two consequences. If you write into a view, its source changes. And where a stride is 0, many
# entries are the same number. `add_` and `copy_` refuse to write there. `fill_` and an assignment
# to one entry don't refuse: they change all entries that share the number.


# %% 1. Strides
@lab.exercise(
    level=2,
    hints=(
        "Entry (i, i) is at offset + i·stride₀ + i·stride₁: how far is it to the next?",
        "A transpose or a slice has unusual strides: ask x.stride(), not the shape.",
        "x.as_strided((length,), (sum of both strides,)); the offset of x is the default.",
    ),
)
def diagonal(x: Tensor) -> Tensor:
    """Return the diagonal of x, (m, n) -> (min(m, n),), as a view by `as_strided`."""
    return x.as_strided((min(x.shape),), (sum(x.stride()),))


@lab.experiment
def expand_copies_nothing(run: Run):
    """`expand` shares the memory of its input, with a stride of 0; `repeat` copies it.

    Predict: the strides and the offset of `x[1:, ::2]`, and the stride of `diagonal(x)`.
    """
    x = torch.arange(12.0).view(3, 4)
    views = {
        "x": x,
        "x.T": x.T,
        "x[1:, ::2]": x[1:, ::2],
        "diagonal(x)": diagonal(x),
        "x[:, :1].expand(3, 4)": x[:, :1].expand(3, 4),
        "x[[0, 2]]": x[[0, 2]],
        "x.T.contiguous()": x.T.contiguous(),
        "x.T.reshape(12)": x.T.reshape(12),
    }
    rows = []
    for name, y in views.items():
        shares = y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
        offset = y.storage_offset()
        rows.append([name, tuple(y.shape), y.stride(), offset, "shared" if shares else "a copy"])
    run.table("Twelve numbers in a row", ["", "shape", "strides", "offset", "memory"], rows)
    column = torch.ones(3, 1)  # 12 bytes
    wide = column.expand(3, 10**6)
    copied = column.repeat(1, 10**6)
    shared = [y.data_ptr() == column.data_ptr() for y in (wide, copied)]
    run.check("same pointer: expand, repeat", shared, equals=[True, False], decides=True)
    run.check("expand: stride of the new axis", wide.stride(1), equals=0, decides=True)
    nbytes = [y.untyped_storage().nbytes() for y in (wide, copied)]
    run.check("bytes: expand, repeat", nbytes, equals=[12, 12 * 10**6], decides=True)
    diagonal(x).zero_()
    run.check("sum of x, its diagonal 0, 5, 10 set to 0", x.sum().item(), equals=66.0 - 15.0)
    writes = ((wide.add_, 1), (wide.copy_, copied), (wide.fill_, 2))
    refused = [is_refused(write, value) for write, value in writes]
    run.check("expanded: add_, copy_, fill_ refused", refused, equals=[True, True, False])
    run.check("x.T.view(12) refused", is_refused(x.T.view, 12), equals=True)
    wide[0, 0] = 5
    run.check("expanded: one entry written, its row changed", wide[0, 999].item(), equals=5.0)
    fig, caption, alt = figures.strides()
    run.figure(fig, "strides", caption, alt=alt)
    _, _, strides, offset, _ = rows[2]  # x[1:, ::2]
    stride = diagonal(x).stride(0)
    return f"The slice has strides {strides} and offset {offset}, the diagonal has stride {stride}."


# %% [markdown]
# ## 2. What a missing axis teaches
# LLM03 warned of a trap. Predictions $p$ have the shape `(n, 1)`, targets $t$ the shape `(n,)`, and
# `p - t` silently has the shape `(n, n)`: every prediction minus every target. The loss is then
#
# $$\frac{1}{n^2} \sum_{i,j} (p_i - t_j)^2 = (\bar p - \bar t)^2 + \text{var}\, p + \text{var}\, t$$
#
# A bar denotes a mean. To derive the formula, write $p_i - t_j$ as
# $(\bar p - \bar t) + (p_i - \bar p) - (t_j - \bar t)$. In its square the products of two different
# terms average to zero. The loss is smallest where every prediction is the mean of the targets.


# %% 2. The trap
def fit(x: Tensor, target: Tensor) -> tuple[Tensor, list[float]]:
    """Fit a linear model with gradient descent; return its predictions, (n, 1), and the losses.

    Args:
        x: inputs, (n, d).
        target: (n, 1) as meant, or (n,) for the trap.
    """
    w = torch.ones(x.shape[1], 1, **DOUBLE)  # not 0, so that the first predictions differ
    losses = []
    for _ in range(500):
        w.requires_grad_()
        loss = (x @ w - target).square().mean()
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, w)
        w = w.detach() - 0.1 * gradient
    return x @ w, losses


@lab.experiment
def a_missing_axis_teaches_the_mean(run: Run):
    """With predictions (n, 1) and targets (n,), training ends at the targets' mean, for all inputs.

    Predict: the targets are linear in the inputs, which gives them the variance 4, plus noise of
    variance 0.01. Where does each loss end, relative to the variance of the targets?
    """
    features = torch.randn(256, 4, **DOUBLE)
    x = torch.cat((features, torch.ones(256, 1)), 1)  # the last weight is a bias
    true_w = torch.tensor([1, -1, 1, -1], **DOUBLE)
    t = 3 + features @ true_w + 0.1 * torch.randn(256, **DOUBLE)  # variances 4 and 0.01
    variance = t.var(correction=0).item()
    meant, good_losses = fit(x, t[:, None])
    broken, bad_losses = fit(x, t)
    p = torch.randn(256, 1, **DOUBLE)
    formula = (p.mean() - t.mean()) ** 2 + p.var(correction=0) + variance
    run.agree("mean over all pairs − the formula", (p - t).square().mean() - formula)
    because = "four times the noise's share of the variance, 0.01 of 4.01; broken, it is 1"
    good = good_losses[-1] / variance
    run.check("as meant: loss ÷ variance of the targets", good, at_most=0.01, because=because)
    because = "the formula's minimum; 500 steps leave less than 1e-20 of the distance to it"
    off = broken - t.mean()
    run.agree("broken: predictions − mean of the targets", off, because=because, decides=True)
    fig, caption, alt = figures.trap(t, meant, broken)
    run.figure(fig, "trap", caption, alt=alt)
    first, last = (bad_losses[i] / variance for i in (0, -1))
    return (
        f"Relative to the variance of the targets, the broken loss falls from {first:.2f} to "
        f"{last:.3f}, the loss as meant to {good:.4f}."
    )


# %% [markdown]
# ## 3. Einsum with four axes
# LLM03 multiplied matrices with einsum. It helps most where an array has many axes. Here is a
# calculation that returns in LLM06 under the name of attention; for now it is an exercise in axes.
#
# There are $B$ texts and $H$ separate groups of $D$ features, called heads. Each text and head has
# $T_q$ *query* vectors, $T_k$ *key* vectors and as many *value* vectors, of $D$ numbers each. Every
# query has a **score** with every key: their dot product, divided by $\sqrt D$. The softmax turns
# the scores of a query into weights that sum to 1. The output for the query is the mean of the
# values with these weights. Write $t$ for a query's place in the text, and $s$ and $u$ for a key's:
#
# $$
# a_{ts} = \frac{e^{q_t \cdot k_s/\sqrt D}}{\sum_u e^{q_t \cdot k_u/\sqrt D}}, \qquad
# o_t = \sum_s a_{ts} v_s
# $$
#
# Take one text, one head and $D = 1$: a query 1, keys 0 and $\ln 3$, values 10 and 20. The scores
# are 0 and $\ln 3$. Their exponentials are 1 and 3, so the weights are $\frac{1}{4}$ and
# $\frac{3}{4}$, and the output is 17.5.
#
# Queries have the shape `(B, Tq, H, D)`, keys and values `(B, Tk, H, D)`. As matrix products they
# would need their axes transposed first, and the output transposed back. Einsum takes the axes in
# any order. Inside, it also transposes and calls a batched product. So it saves writing, but not
# necessarily time. The letters are the formula's: t for queries, s for keys and values.


# %% 3. Einsum with four axes
@lab.exercise(
    level=2,
    hints=(
        "Name the axes: queries are bthd, keys and values bshd. Which letters do scores need?",
        "Scores are bhts, divided by √D; the softmax runs over the keys, the last axis.",
        'Mix the values with "bhts,bshd->bthd": s is summed over.',
    ),
)
def attention_by_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the weighted means of v, (B, Tq, H, D), for q (B, Tq, H, D), k and v (B, Tk, H, D)."""
    scores = torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[-1])
    weights = scores.softmax(-1)  # (B, H, Tq, Tk)
    return torch.einsum("bhts,bshd->bthd", weights, v)


@lab.experiment
def two_einsums_replace_the_transposes(run: Run):
    """Two einsums without a transpose give the weighted means that PyTorch's function gives.

    Predict: which letter does each of the two einsums sum over?
    """
    keys = torch.tensor([0, math.log(3)], **DOUBLE).view(1, 2, 1, 1)  # (B, Tk, H, D)
    values = torch.tensor([10, 20], **DOUBLE).view(1, 2, 1, 1)
    mean = attention_by_einsum(torch.ones(1, 1, 1, 1, **DOUBLE), keys, values)
    run.agree("the example by hand − 17.5", mean - 17.5)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, FLOAT32)):
        q = torch.randn(2, 9, 4, 16, dtype=dtype)  # (B, Tq, H, D)
        k, v = torch.randn(2, 2, 50, 4, 16, dtype=dtype)  # (B, Tk, H, D) each
        ours = attention_by_einsum(q, k, v)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D) each
        off = ours - F.scaled_dot_product_attention(q, k, v).transpose(1, 2)  # (B, Tq, H, D)
        run.agree(f"einsums − PyTorch's function, {dtype}", off, bound, decides=True)
    return "The scores sum over d, the means sum over s: the result of each lacks that letter."


# %% [markdown]
# ## 4. How much of a weight matrix is used
# LLM03 met singular values as the stretches of a 2 × 2 matrix. Every matrix $w$ has them. Its
# **singular value decomposition** is $w = U S V^\top$. $S$ is diagonal and holds the singular
# values $\sigma_1 \ge \sigma_2 \ge \dots$ The columns of $V$ are directions of the inputs, those of
# $U$ directions of the outputs. All columns have the length 1. Those of $V$ are perpendicular to
# each other, and so are those of $U$. The matrix maps column $i$ of $V$ to $\sigma_i$ times column
# $i$ of $U$. LLM03's shear, for example, maps $(0.53, 0.85)$ to $1.62\,(0.85, 0.53)$.
#
# LLM03's trained layer has a $10 \times 64$ matrix, so it has ten singular values. Keep the $k$
# largest and set the others to 0: the result has rank $k$. Of all such matrices it is the closest
# to $w$, by the sum of squared differences (Eckart & Young 1936). Closest in $w$ need not mean
# closest in the outputs: these also depend on how much the images vary along each direction.
#
# As in LLM03, subtract from each row the mean of all rows: that changes no probability. These
# centred rows add up to zero, so at least one of the ten singular values is 0. How many of the
# other nine, the largest first, does it take to read most images? As a control we keep the five
# *smallest*. The fifth of the nine is in both sets.


# %% 4. Singular values
def truncated(w: Tensor, k: int) -> Tensor:
    """Return the matrix of rank k closest to w: its k largest singular values, the others 0."""
    u, s, vt = torch.linalg.svd(w, full_matrices=False)  # the largest first
    return (u[:, :k] * s[:k]) @ vt[:k]  # s scales the columns of U


@lab.experiment
@torch.no_grad()
def five_of_nine_directions_read_most_digits(run: Run):
    """With its five largest singular values the layer reads at least three quarters of the images
    that it reads with all nine; with the five smallest it reads fewer.

    Predict: how many of the nine directions, the largest first, read 80 % of the test images?
    """
    by_rank: list[list[float]] = []
    large: list[float] = []
    small: list[float] = []
    controls: list[float] = []
    for seed in run.seeds(3):
        layer, start = train_classifier(run, seed)
        _, _, x, y = split_digits(run, seed)
        w = centred(layer.weight.double())  # (10, 64)
        x = x.double()
        logits = [x @ truncated(w, k).T + layer.bias for k in range(11)]  # (360, 10) each
        right = [logits_k.argmax(-1) == y for logits_k in logits]  # (360,) each, by rank
        by_rank.append([right_k.double().mean().item() for right_k in right])
        smallest = w - truncated(w, 4)  # the five smallest of nine
        control = (x @ smallest.T + layer.bias).argmax(-1) == y
        large.append(share_read(right[5], right[9]))
        small.append(share_read(control, right[9]))
        controls.append(control.double().mean().item())
        if seed == run.seed:
            p = (x @ layer.weight.double().T + layer.bias).softmax(-1)
            off = logits[9].softmax(-1) - p
            run.agree("rank 9 of the centred rows: probabilities − before", off)
            values, before = (
                torch.linalg.svdvals(centred(m.weight.double())).tolist() for m in (layer, start)
            )
    because = "“most”: three quarters; with no direction at all it would be about a tenth"
    name = "of the images read with all nine directions: share read with the five largest"
    run.measure(name, large, expect_at_least=0.75, because=because, decides=True)
    lead = [a - b for a, b in zip(large, small, strict=True)]
    because = "three standard errors: a paired difference on 340 images has at most 1/√340"
    name = "share read with the five largest − share read with the five smallest"
    run.measure(name, lead, expect_at_least=0.163, because=because, decides=True)
    run.measure("accuracy with five directions, three seeds", [shares[5] for shares in by_rank])
    run.measure("accuracy with the five smallest, three seeds", controls)
    fig, caption, alt = figures.singular_values(before, values, by_rank, controls, run.seed)
    run.figure(fig, "singular_values", caption, alt=alt)
    needed = [next(k for k in range(11) if shares[k] >= 0.8) for shares in by_rank]
    counts = ", ".join(map(str, needed))
    return (
        f"To read 80 % takes {counts} directions, by seed. The five smallest read "
        f"{percent(controls)}, where none would read about 10 %: they are not noise."
    )


# %% [markdown]
# ## 5. Twenty layers: look first
# LLM03 found that weights of variance $1/n$ let *one* layer keep the size of its input. LLM02 used
# the gain $\sqrt 2$ between ReLUs. Stack 20 layers of equal width $n$ with a ReLU after each. Send
# 256 random samples of $n$ numbers through, and draw a histogram of the numbers before the ReLU.
# Nothing is trained. We compare three ways to choose random weights for a layer with $n$ inputs.
# All have the mean 0:
#
# - **He**: variance $2/n$, the gain $\sqrt 2$, no bias (He et al. 2015);
# - **Glorot**: variance $2/(n + m)$ for $m$ outputs, here $1/n$, no bias (Glorot & Bengio 2010, who
#   had tanh in mind). With the same random numbers these weights are He's, divided by $\sqrt 2$;
# - **PyTorch**: what `nn.Linear` does, uniform between $\pm 1/\sqrt n$, biases too. That is a
#   variance of $\frac{1}{3n}$.


# %% 5. Histograms
DEPTH = 20
BARE = "PyTorch, no biases"
# variances of weights and biases, times n
STARTS = {"He": (2, 0), "Glorot": (1, 0), "PyTorch": (1 / 3, 1 / 3), BARE: (1 / 3, 0)}


def fresh_layer(n: int, start: str) -> nn.Linear:
    """Return a float64 layer n -> n; PyTorch's is as it comes, with biases or without."""
    layer = nn.Linear(n, n, bias=start == "PyTorch", **DOUBLE)
    if start in ("He", "Glorot"):
        nn.init.normal_(layer.weight, std=math.sqrt(STARTS[start][0] / n))
    return layer


def fresh_network(n: int, start: str, seed: int) -> tuple[list[nn.Linear], Tensor]:
    """Return 20 layers and 256 samples, (256, n), random with this seed."""
    torch.manual_seed(seed)
    layers = [fresh_layer(n, start) for _ in range(DEPTH)]
    return layers, torch.randn(256, n).double()


@lab.experiment
@torch.no_grad()
def histograms_show_what_is_left(run: Run):
    """After 20 ReLU layers the numbers keep their size with He's start, and shrink with the others.

    Predict: Glorot's weights have half the variance that He's have. By which factor does the
    standard deviation shrink from layer 1 to layer 20?
    """
    n = run.pick(tiny=512, small=1024, full=2048)
    samples: dict[str, list[Tensor]] = {}
    ratios = {}
    for start in ("He", "Glorot", "PyTorch"):
        layers, x = fresh_network(n, start, run.seed)
        samples[start] = []
        for layer in layers:
            z = layer(x)  # (256, n)
            samples[start].append(z.flatten())
            x = z.relu()
        ratios[start] = (samples[start][-1].std() / samples[start][0].std()).item()
    expected = {"He": 1, "Glorot": 2**-9.5, "PyTorch": math.sqrt(6 / (5 * n))}
    because = "section 6: how far a finite width strays, four standard deviations"
    for start, ratio in ratios.items():
        off = max(ratio / expected[start], expected[start] / ratio)
        name = f"{start}: std in layer 20 ÷ layer 1, off from {expected[start]:.2g} by a factor of"
        room = starts.four_deviations(n, DEPTH, biases=start == "PyTorch")
        run.check(name, off, at_most=room, because=because, decides=True)
    fig, caption, alt = figures.histograms(samples)
    run.figure(fig, "histograms", caption, alt=alt)
    shrunk = f"{ratios['Glorot']:.4f}; in theory {2**-9.5:.4f}, by 19 halvings of the variance"
    return f"Standard deviation of layer 20 ÷ layer 1, with Glorot's weights: {shrunk}."


# %% [markdown]
# ## 6. Twenty layers: the theory
# Say the weights of a layer have the variance $a/n$ and the biases $c/n$. Let $q$ be the mean
# square of the layer's inputs; its root is called **RMS**, root mean square. An output $z$ sums $n$
# products of variance $aq/n$ and a bias, so its variance is $v = aq + c/n$. Weights and biases are
# as likely as their negatives, and so is $z$. So the ReLU keeps half of the mean square:
#
# $$q' = \frac{v}{2} = \frac{aq + c/n}{2}$$
#
# Begin with $q = 1$:
#
# - **He**, $a = 2$, $c = 0$: $q$ stays 1. So the gain is $\sqrt 2$.
# - **Glorot**, $a = 1$, $c = 0$: $q$ halves in each layer.
# - **PyTorch**, $a = c = 1/3$: without biases $q$ would shrink sixfold in each layer. With them it
#   settles where $q = \frac{q}{6} + \frac{1}{6n}$, which is $q = \frac{1}{5n}$. For $n = 512$ it
#   goes 1, 0.167, 0.028, 0.0050, 0.0012, 0.0005, … and ends at 0.0004, an RMS of 0.02.
#
# ### What distinguishes two samples
# **So do the biases save the signal?** They keep the numbers from vanishing, but they are the same
# for every sample. What a network needs is what distinguishes two samples: the **spread across
# samples**, the standard deviation of a unit's output over the samples.
#
# Take one unit. Over the samples, its variance is its mean square minus its squared mean. Average
# both terms over the units. The first average is $q$. Call the second $r$, so
# $\text{spread}^2 = q - r$. To compute $r$, pick two samples independently, and let $x$ and
# $\tilde x$ be the unit's outputs for them. For independent numbers the mean of the product is the
# product of the means. So the unit's squared mean is the mean of $x \tilde x$ over pairs of
# samples, and **$r$ is the mean of $x \tilde x$ over units and pairs**. If every unit returned the
# same number for all samples, $r$ would be $q$, and the spread 0.
#
# The next layer has the same weights and biases for both samples:
# $z = \sum_j w_j x_j + \text{bias}$, and $\tilde z = \sum_j w_j \tilde x_j + \text{bias}$. Average
# $z \tilde z$ over the random weights and biases. They are independent with mean 0, so only the
# terms $w_j^2\, x_j \tilde x_j$ and $\text{bias}^2$ remain. They make
# $n \cdot \frac{a}{n} \cdot r + \frac{c}{n} = ar + c/n$. As both have the mean 0, this is their
# **covariance**. Divided by the variance $v$ it is their **correlation**, 1 if they are always
# equal and 0 if they are unrelated:
#
# $$\rho = \frac{ar + c/n}{aq + c/n}$$
#
# In a wide layer $z$ and $\tilde z$ sum many independent terms, so they are nearly normal. With
# PyTorch's biases they aren't: five sixths of the variance is in the end that of the uniform
# biases. But near $\rho = 1$ only their symmetry matters: half of the units are on. In wide layers
# all pairs of random samples have nearly the same $\rho$, so one number stands for all. For normal
# numbers of variance $v$ and correlation $\rho$ the ReLU leaves the mean product (Cho & Saul 2009)
#
# $$
# r' = \frac{v}{2\pi}\left(\sqrt{1 - \rho^2} + (\pi - \arccos\rho)\,\rho\right)
# $$
#
# An example with $a = 2$, $c = 0$: samples with $q = 1$ and $r = 0$. Before the ReLU $v = 2$ and
# $\rho = 0$. After the ReLU $q' = 1$ and $r' = \frac{2}{2\pi} = 0.32$, so the spread is
# $\sqrt{1 - 0.32} = 0.83$. It fell from 1 because no output is negative: each unit now has a
# positive mean, which all samples share.


# %% 6. Theory
@lab.exercise(
    level=1,
    hints=(
        "Begin with v = a·q + c/n, the variance before the ReLU. The ReLU halves it.",
        "The covariance before the ReLU is a·r + c/n. Divided by v it is the correlation ρ.",
        "r' is v/2π times (√(1 − ρ²) + (π − arccos ρ)·ρ), with math.sqrt and math.acos.",
    ),
)
def relu_step(q: float, r: float, a: float, c: float, n: int) -> tuple[float, float]:
    """Return q and r after a linear layer and a ReLU.

    Args:
        q: the mean square of the layer's inputs.
        r: their mean product for two samples, at most q.
        a: n times the variance of the weights.
        c: n times the variance of the biases.
        n: the number of units.
    """
    v = a * q + c / n
    rho = (a * r + c / n) / v
    kernel = math.sqrt(1 - rho**2) + (math.pi - math.acos(rho)) * rho
    return v / 2, v * kernel / (2 * math.pi)


def theory(a: float, c: float, n: int) -> list[tuple[float, float]]:
    """Return (RMS, spread across samples) after each layer, for unrelated samples of variance 1."""
    # q and r become nearly equal, and float64 holds q − r for about 22 layers of PyTorch's start.
    # Deeper than that, the spread is rounding alone, and r must be held at q or below.
    q = 1.0
    r = 0.0
    by_layer = []
    for _ in range(DEPTH):
        q, r = relu_step(q, r, a, c, n)
        r = min(r, q)
        by_layer.append((math.sqrt(q), math.sqrt(q - r)))
    return by_layer


# %% [markdown]
# ### What the theory predicts
# Twenty such steps for $n = 512$, with He's start and with PyTorch's:
#
# | after layer | 1 | 5 | 6 | 19 | 20 |
# |---|---|---|---|---|---|
# | He: RMS | 1 | 1 | 1 | 1 | 1 |
# | He: spread | 0.83 | 0.51 | 0.47 | 0.24 | 0.23 |
# | PyTorch: RMS | 0.41 | 0.023 | 0.020 | 0.020 | 0.020 |
# | PyTorch: spread | 0.34 | 0.0063 | 0.0025 | 2.18 · 10⁻⁸ | 0.89 · 10⁻⁸ |
#
# Even He's start loses three quarters of the spread: the samples become similar. With PyTorch's
# start the size settles, but the spread keeps shrinking. Take the ratio of two neighbours in the
# last row and square it: from layer 5 to 6 it is 0.16, and from 19 to 20 it is 0.167, a sixth.
# **For similar samples a layer multiplies the squared spread by nearly $a/2$**, here a sixth.
#
# Why? At $\rho = 1$ the formula for $r'$ gives $v/2$, which is $q'$. Its slope in $\rho$ is $v/2$
# there, too. So for similar samples $r' \approx q' - (1 - \rho)\,v/2$, and the new squared spread
# is $(1 - \rho)\,v/2$. Now $(1 - \rho)\,v = v - \rho v$ is the variance minus the covariance,
# $(aq + c/n) - (ar + c/n)$. The bias cancels, and $a\,(q - r)$ is left. Half of it is the new
# squared spread: $a/2$ times the old one. The next term of $r'$ makes it smaller by the factor
# $1 - 0.30\sqrt{1 - \rho}$. For He $a/2$ is 1, so this is the only loss: from layer 19 to 20 it is
# 7 % of the squared spread, or 4 % of the spread.
#
# So after 20 layers of PyTorch's start the numbers that distinguish samples are 2 million times
# smaller than the constant they are added to. bfloat16 has 8 significant bits and rounds to 2⁻⁸ of
# a number's size, so it loses them. To see it, the lab sends samples through in float64 and in
# bfloat16. From each unit's outputs it subtracts their mean over the samples, and correlates what
# is left in both. A correlation of 1 means that bfloat16 kept what distinguishes the samples, 0
# that rounding replaced it.
#
# **Without biases as much of the signal is left as with He's start.** If the inputs of a ReLU layer
# without biases grow by a positive factor, so do its outputs. So a wide network with PyTorch's
# weights behaves like He's, scaled down: size and spread shrink together, and one factor on the
# last outputs would undo it. The format must be able to hold such small numbers. The smallest
# number of float16 is $6 \cdot 10^{-8}$, and after layer 20 the RMS is $1.7 \cdot 10^{-8}$: there
# most outputs become 0. With biases no factor would undo it. Section 7 trains the layers without
# biases twice: with this factor and without.


# %% 6. Theory and measurement
@torch.no_grad()
def signal(layers: list[nn.Linear], x: Tensor) -> tuple[list[tuple[float, float]], float]:
    """Return (RMS, spread) after each layer's ReLU, and how much of the last spread bfloat16 has.

    The latter is a correlation, of the outputs' deviations from their mean in both dtypes.
    """
    by_layer = []
    short = x.bfloat16()
    for layer in layers:
        x = layer(x).relu()  # (samples, n)
        weight_and_bias = (p.bfloat16() for p in layer.parameters())  # the bias if there is one
        short = F.linear(short, *weight_and_bias).relu()
        by_layer.append((x.square().mean().sqrt().item(), x.var(0).mean().sqrt().item()))
    both = torch.stack([(y - y.mean(0)).flatten() for y in (x, short.double())])
    # NaN: in bfloat16 all samples have the same output, and nothing of the spread is left
    return by_layer, both.corrcoef()[0, 1].nan_to_num(0).item()


@lab.experiment
def the_start_decides_what_survives(run: Run):
    """With He's start the numbers keep their size and part of their spread; with PyTorch's default
    they keep a size, but hardly depend on the sample.

    Predict: with PyTorch's default, after which layer is the spread in theory smaller than a
    rounding of bfloat16, 2⁻⁸ of the RMS?
    """
    n = run.pick(tiny=512, small=1024, full=2048)
    seeds = run.seeds(3)
    correlations: dict[str, list[float]] = {}
    measured: dict[str, list[list[tuple[float, float]]]] = {}
    for start in STARTS:
        runs = [signal(*fresh_network(n, start, seed)) for seed in seeds]
        measured[start] = [by_layer for by_layer, _ in runs]
        correlations[start] = [correlation for _, correlation in runs]
    expected = {start: theory(a, c, n) for start, (a, c) in STARTS.items()}
    starts.compare_with_theory(run, measured, expected, n)
    starts.check_correlations(run, correlations, BARE)
    because = "25 other seeds, n = 512: mean 0.26, standard deviation 0.02; 0.15 is over five below"
    share = starts.last_share(measured["He"])
    run.check("He: spread ÷ RMS", share, at_least=0.15, because=because, decides=True)
    default = expected["PyTorch"]
    drowned = next(i for i, (rms, spread) in enumerate(default, 1) if spread < rms / 2**8)
    run.measure("PyTorch: spread ÷ RMS", starts.last_share(measured["PyTorch"]))
    first = {start: by_seed[0] for start, by_seed in measured.items()}
    fig, caption, alt = figures.signal(first, expected, run.seed)
    run.figure(fig, "signal", caption, alt=alt)
    return f"In theory PyTorch's spread is below 2⁻⁸ of its RMS from layer {drowned} on."


# %% [markdown]
# ### How far a finite width strays
# This part derives the bounds of the checks above; you can skip it. The theory is exact for
# infinite width. How far is a network of 512 units from it? With He's weights a layer multiplies
# $q$ by the mean of $n$ terms $2\,\text{ReLU}(g)^2$. Here $g$ is standard normal. Each term has
# the mean 1 and the variance $\frac{1}{2} \cdot 4 \cdot 3 - 1 = 5$, because $g^4$ has the mean 3.
# So the mean of $n$ terms is $1 + e$, and $e$ has the variance $5/n$.
#
# The logarithm of a product is a sum. As $\ln(1 + e) \approx e - e^2/2$, each layer shifts $\ln q$
# by $-\frac{5}{2n}$ in the mean. After $L$ layers $\ln q$ has moved to about $-\frac{5L}{2n}$, with
# a standard deviation of $\sqrt{5L/n}$ (Hanin & Nica 2020). For $n = 512$ and $L = 20$, $\sqrt q$
# is uncertain by 22 % for one sample, a little less for the mean of 256. Four deviations and the
# shift make a factor of 2.54.
#
# The squared spread of similar samples varies as much as $q$. Biases cancel in it, so the same
# holds with them. Its terms are $2g^2$ for a unit that is on and 0 for the others, again with mean
# 1 and variance 5. With PyTorch's biases $q$ moves less. There $q' = q/6 + 1/6n$, so only a sixth
# of a deviation reaches the next layer. So $\ln q$ has the variance
# $\frac{5}{n}\left(1 + \frac{1}{36} + \dots\right) = \frac{5}{n} \cdot \frac{36}{35}$. Four
# deviations of $\sqrt q$ are a factor of 1.22. Uniform biases only lower the variance.
#
# These bounds can't show a small systematic error, and there is one. With He's start spread ÷ RMS
# was 0.26 in the mean of 25 networks of 512 units, with a standard error of 0.004. The theory says
# 0.23. The finite width is a likely reason, which the lab doesn't test.

# %% [markdown]
# ## 7. Twenty layers: what learns
# So far these layers were untrained. Can twenty layers learn from each of the four starts? The lab
# trains them on LLM03's digits, with 64 units in each layer. The first ten outputs of the last
# layer are the logits. A fifth arm starts without biases, too, but multiplies its logits by
# $6^{10} = (\sqrt 6)^{20}$, a factor of $\sqrt 6$ for each layer. In theory this makes them as
# large as He's.
#
# The optimizer is Adam (Kingma & Ba 2015). It divides a running mean of each gradient by the root
# of a running mean of its square. So a gradient that is merely small doesn't slow it down. Adam
# adds a small $\varepsilon$ to the root; we take $10^{-12}$. Without biases, for seeds 0 to 9, a
# layer's first gradients have an RMS of at least $2 \cdot 10^{-10}$, which is $200\,\varepsilon$.
#
# The theory describes the start only. Three numbers help to see what training makes of it:
#
# - **The steps before a loss below 2.1.** Equal probabilities have the loss $\ln 10 = 2.30$. Logits
#   near $2 \cdot 10^{-8}$, as without biases, keep it there until the weights have grown.
# - **The directions that layer 10 uses** after training. Take its outputs for the 360 test images,
#   a $360 \times 64$ matrix, and subtract from each column its mean. Let $\lambda_i$ be the squares
#   of this matrix's singular values. Their **participation ratio** is
#   $(\sum_i \lambda_i)^2 / \sum_i \lambda_i^2$. If $k$ of them are equal and the others 0, it is
#   $k$. Weak directions hardly count: singular values 1 and 0.1 give 1.02.
# - **The digits named**: those that have the largest logit for at least one test image.
#
# Two limits of this experiment. At 64 units the theory is rough: $\sqrt q$ strays by a factor of
# 1.9 for one standard deviation. And all arms train at one learning rate, though Adam's steps are
# the same size for large and for small weights. A rate tuned for each start may narrow the gaps.


# %% 7. Training
SCALED = f"{BARE}, outputs × 6¹⁰"
ARMS = (*STARTS, SCALED)


def train_twenty(run: Run, arm: str, seed: int) -> starts.Trained:
    """Train twenty layers on the digits for 300 steps, then look at layer 10 and at the logits."""
    start, factor = (BARE, 6.0**10) if arm == SCALED else (arm, 1.0)
    x, y, x_test, y_test = split_digits(run, seed)
    mean = x.mean()
    deviation = x.std()
    layers, _ = fresh_network(64, start, seed)
    parts: list[nn.Module] = [part for layer in layers for part in (layer.float(), nn.ReLU())]
    model = nn.Sequential(*parts[:-1]).to(run.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-12, fused=True)
    losses = []
    for _ in range(300):
        batch = torch.randint(len(y), (64,))
        logits = factor * model((x[batch] - mean) / deviation)[:, :10]
        loss = F.cross_entropy(logits, y[batch])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        middle = model[:20]((x_test - mean) / deviation)  # ten layers and their ReLUs
        logits = model[20:](middle)[:, :10]  # a positive factor doesn't change the largest
    used = starts.participation_ratio(middle)
    named = len(logits.argmax(-1).unique())
    return starts.Trained(accuracy(logits, y_test), losses, used, named)


@lab.experiment
@on_one_thread
def the_start_decides_what_learns(run: Run):
    """After 300 steps at one learning rate, twenty layers read more digits from He's start than
    from PyTorch's default, with biases or without. Without them, a factor on the outputs helps.

    Predict: the theory found as much signal without biases as with He's start. Which start learns
    least? Does it learn as much as He's if the last outputs are multiplied by 6¹⁰?
    """
    seeds = run.seeds(3)
    trained = {
        arm: [train_twenty(run, arm, seed) for seed in run.progress(seeds, f"{arm}, seeds")]
        for arm in ARMS
    }
    accuracies = {arm: [model.accuracy for model in models] for arm, models in trained.items()}
    for arm, models in trained.items():
        run.measure(f"{arm}: test accuracy", accuracies[arm])
        waits = [model.steps_before(2.1) for model in models]
        run.measure(f"{arm}: steps before a loss below 2.1, of 300", waits)
        run.measure(f"{arm}: directions in layer 10", [model.directions for model in models])
        run.measure(f"{arm}: digits named", [model.named for model in models])
    because = "three standard errors, at most 1/√360 each, of a paired difference on 360 images"
    for better, start in (("He", "PyTorch"), ("He", BARE), (SCALED, BARE)):
        lead = [a - b for a, b in zip(accuracies[better], accuracies[start], strict=True)]
        name = f"lead of {better} over {start}"
        run.measure(name, lead, expect_at_least=0.158, because=because, decides=True)
    fig, caption, alt = figures.training(trained)
    run.figure(fig, "training", caption, alt=alt)
    least = min(ARMS, key=lambda arm: median(accuracies[arm]))
    shown = "; ".join(f"{arm} {percent([median(x)])}" for arm, x in accuracies.items())
    return f"Test digits read: {shown}. The start that learns least is {least}."


# %% [markdown]
# ### What training made of the start
# The start without biases keeps as much signal as He's, yet learns least. Seeds 0 to 9 on a CPU:
#
# | start | steps before 2.1 | directions in layer 10 | digits named | test digits read |
# |---|---|---|---|---|
# | He | 7 to 21 | 4.2 to 5.6 | 10 | 90 to 95 % |
# | Glorot | 17 to 26 | 1.4 to 2.9 | 8 to 10 | 56 to 95 % |
# | PyTorch | 59 to 69 | 1.0 to 1.6 | 5 to 9 | 23 to 58 % |
# | PyTorch, no biases | 29 to 38 | 1.0 to 1.4 | 2, 3 or 10 | 16 to 53 % |
# | the same, outputs × 6¹⁰ | 6 to 12 | 3.3 to 5.5 | 10 | 93 to 97 % |
#
# A late start isn't enough to explain this: without biases the loss falls below 2.1 earlier than
# with them, yet fewer digits are read. Few directions went with few digits read, but the number
# alone doesn't decide. Without biases one run read 53 % with 1.02 of them, another 18 % with 1.41.
#
# The factor changes no weight of the start. In the same ten runs, with and without it, layer 10
# began with 2.8 to 4.6 directions. After 50 steps it had 2.9 to 4.9 with the factor and 1.0
# without. A likely reason, which the lab doesn't test: in a step Adam changes all weights of a
# layer by about the same amount, in the direction of the gradient's sign. Where the logits hardly
# differ between images, the signs hardly depend on the batch. So all steps push the same way, and
# one direction of each layer outgrows the others. Without biases all logits begin tiny. With biases
# they begin near 0.08, but they, too, differ between images by only about $10^{-8}$. The lab trains
# in float32. At the start it still holds most of these differences: computed in float32 and in
# float64, they have a correlation of 0.77 to 0.96.
#
# **Why do most runs with biases read more than those without?** Suppose that in some layer, before
# its ReLU, every image becomes the same vector $u$ times a number $s$ that depends on the image.
# Without biases two images with $s > 0$ then get the same logits, up to a positive factor, and so
# do two with $s < 0$. So only two digits can be named, and two of ten digits are 20 %. Nine of the
# ten runs without biases come near this: they named two digits for all test images except at most
# 4 of 360, and read 16 to 20 %. In the tenth all ten digits were named, so there this can't be all.
# With biases the argument doesn't hold: they move the line of the outputs away from the origin.
#
# The loss doesn't show it. Its mean over the last ten steps was 1.4 to 1.7 in these nine runs, and
# 1.1 to 1.6 with biases. If five digits share the probability for $s > 0$ and the other five for
# $s < 0$, the loss is $\ln 5 = 1.61$; the size of $s$ can lower it. Yet one image in five is read.
#
# So the lab measured that one factor alone takes the start without biases from 16 to 53 % of the
# digits to 93 to 97 %. It didn't test why training without it leaves one direction, or how much
# moving the line helps.


# %% [markdown]
# ## 8. Reading an exponent off log-log axes
# How does time grow with size? Suppose $y = C x^p$. Then $\ln y = \ln C + p \ln x$. On axes with
# logarithmic scales a power law is a straight line, and **its slope is the exponent**. Two points
# are enough for an estimate: if $x$ doubles and $y$ grows eightfold, $p = \log_2 8 = 3$. Given more
# points, fit a line by least squares. With $u$ for $\ln x$ minus its mean over the points, and $v$
# the same for $y$:
#
# $$p = \frac{\sum_i u_i v_i}{\sum_i u_i^2}$$
#
# A product of two $n \times n$ matrices takes $2n^3$ FLOPs, so its time should have the exponent 3.
# Small products are an exception: every call takes some microseconds. This constant flattens the
# lower end. **So fit a slope only where the line is straight**, and say which points you used. On a
# GPU, whose rate is higher, the lab takes larger products.
#
# On a CPU the lab measures the processor time of one thread. That of other programs isn't counted.


# %% 8. Log-log slope
def loglog_slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the exponent p of the power law y = C·xᵖ that fits best on log-log axes."""
    u = torch.tensor(xs, **DOUBLE).log()
    v = torch.tensor(ys, **DOUBLE).log()
    u = u - u.mean()
    v = v - v.mean()
    return ((u * v).sum() / u.square().sum()).item()


@lab.experiment
def large_products_take_cubic_time(run: Run):
    """The slope on log-log axes is the exponent, and large square products have a slope near 3.

    Predict: the slope between n = 16 and n = 64. Is it nearer to 3 or to 0?
    """
    xs = [1.0, 2.0, 5.0, 10.0]
    exact = loglog_slope(xs, [3 * x**1.5 for x in xs])
    run.agree("slope of 3·x^1.5 − 1.5", torch.tensor(exact - 1.5), decides=True)
    bent = loglog_slope(xs, [3 * x**1.5 + 10 for x in xs])
    because = "a constant flattens the lower end"
    run.check("slope of 3·x^1.5 + 10", bent, at_most=1.4, because=because)
    largest = run.pick(tiny=11, small=12, full=13) if run.device.type == "cpu" else 13
    sizes = [2**i for i in range(4, largest + 1)]
    squares = {n: product_call(run, torch.float32, (n, n, n)) for n in sizes}
    times = list(best_in_turn(squares, 5, run.device).values())
    small = loglog_slope(sizes[:3], times[:3])
    large = loglog_slope(sizes[-4:], times[-4:])
    run.measure("slope of the three smallest", small, timed=True)
    because = "3 at a constant rate, 2.67 if it doubles from first to last, 3.33 if it halves"
    name = "slope of the four largest"
    run.measure(name, large, expect_between=(2.67, 3.33), because=because, timed=True, decides=True)
    fig, caption, alt = figures.slopes(sizes, times, small, large)
    run.figure(fig, "slopes", caption, alt=alt)
    return f"The slope is {small:.2f} for n = 16 to 64, and {large:.2f} for the four largest."


# %% [markdown]
# ## 9. The roofline
# A machine has two rates: how many FLOPs it can do in a second, its **peak**, and how many bytes it
# can fetch in a second, its **bandwidth**. A calculation takes at least its FLOPs ÷ peak, and at
# least its bytes ÷ bandwidth. Its **intensity** is its FLOPs ÷ the bytes that it must move. Its
# rate is its FLOPs ÷ its time. So
#
# $$\text{rate} \le \min\left(\text{peak},\ \text{intensity} \cdot \text{bandwidth}\right)$$
#
# Plot this bound over the intensity on log-log axes. It rises as a straight line and then stays
# flat. It is called the **roofline**, or the roof.
#
# A product `x @ w.T` with $x$ `(B, n)` and $w$ `(m, n)` has $2Bmn$ FLOPs. It must read $x$ and $w$
# and write $y$. Take one input of two numbers and a 2 × 2 matrix. These are 8 FLOPs, and
# 2 + 4 + 2 = 8 numbers move. In float32 they have 32 bytes, so the intensity is 1/4.
#
# With one input and a large matrix there are about 2 FLOPs for each weight: half a FLOP per byte in
# float32 and 1 in bfloat16. NVIDIA's data sheet of the H100 SXM names 1,979 TFLOP/s in bfloat16
# with sparsity, so half of that without, and 3.35 TB/s. So it could do 295 FLOPs while it fetches
# one byte. With more inputs each weight that is fetched serves them all.
#
# A language model works at both ends of the roofline. When it reads a prompt, all tokens pass each
# matrix together: high intensity. When it writes for one user, each new token passes alone: low
# intensity. A server that writes for many users lets their tokens pass together.
#
# What does the roofline predict for 16 inputs instead of one? Its slope and its flat part meet at
# the corner. Left of it the bytes set the shortest possible time. They are nearly the same for 1
# and for 16 inputs. If the library reaches the roof for both, 16 inputs take hardly longer than
# one. Right of the corner the shortest possible time grows with the FLOPs.
#
# **The roof is measured apart from the points.** The peak is the best rate of three square products
# that aren't among the points. It is what this library reaches; the processor may be able to do
# more. The bandwidth is that of reading arrays as large as the weight, by a sum or a dot product,
# whichever is faster. All calls take turns, each with separate arrays. At `tiny` they take about
# 250 MiB in float32 and half of that in bfloat16. If that is more than the last cache holds, each
# call must fetch its numbers from memory; else this bandwidth is partly the cache's. **On a CPU,
# points and roof are those of one thread.** With more threads the peak usually grows more than the
# bandwidth, and the corner moves to the right.
#
# Points and roof are both measured, so a point may lie a little above the roof. It may also stay
# far below. The lab doesn't measure why: the library may read the matrix less well than a sum does,
# or convert 16-bit numbers first. So left of the corner the roof is tested only as a bound.


# %% 9. Roofline
INPUTS = [2**power for power in range(11)]


@lab.exercise(
    level=1,
    hints=(
        "Count the FLOPs: each of the B·m outputs takes n multiplications and n additions.",
        "Count the numbers that move: x and w are read, and y, (B, m), is written.",
        "FLOPs ÷ bytes, and each number has `size` bytes.",
    ),
)
def intensity(shape: Shape, size: int) -> float:
    """Return the FLOPs per byte of a product (B, n) times (n, m), each array moved once.

    Args:
        shape: B, n and m.
        size: the bytes of a number.
    """
    b, n, m = shape
    return 2 * b * n * m / (size * (b * n + m * n + b * m))


@lab.experiment
def many_inputs_raise_the_rate(run: Run):
    """From 1 to 1,024 inputs the rate grows to most of the roof, and is at most a fifth above it;
    16 inputs in one call take less than half of the time of 16 calls with one.

    Predict: one square matrix. How many times as long do 16 inputs take as one?
    """
    side = run.pick(tiny=2048, small=4096, full=8192)
    short = {"bf16": [torch.bfloat16], "fp16": [torch.float16]}
    curves = {}
    sentences = []
    for dtype in [torch.float32, *short.get(run.precision, [])]:
        name = str(dtype).removeprefix("torch.")
        times, peak, bandwidth = time_with_roof(run, dtype, side, INPUTS)
        rates = [2 * b * side**2 / time for b, time in zip(INPUTS, times, strict=True)]
        xs = [intensity((b, side, side), dtype.itemsize) for b in INPUTS]
        roof = [min(peak, x * bandwidth) for x in xs]
        shares = [rate / bound for rate, bound in zip(rates, roof, strict=True)]
        run.measure(f"{name}: peak", peak / 1e9, unit="GFLOP/s", timed=True)
        run.measure(f"{name}: bandwidth", bandwidth / 1e9, unit="GB/s", timed=True)
        run.measure(f"{name}: rate ÷ roof, 1 to {INPUTS[-1]:,} inputs", shares, timed=True)
        look: dict[str, Any] = {"timed": True, "decides": True}
        because = "a roof is a bound; both timings may be off by 10 %"
        label = f"{name}: largest rate ÷ roof"
        run.measure(label, max(shares), expect_at_most=1.2, because=because, **look)
        because = "there only the peak counts; a third for reading, writing and the call itself"
        label = f"{name}: rate ÷ roof, 1,024 inputs"
        run.measure(label, shares[-1], expect_at_least=2 / 3, because=because, **look)
        because = "half of the time of 16 separate calls: each weight that is fetched serves all"
        label = f"{name}: time, 16 inputs ÷ one"
        run.measure(label, times[4] / times[0], expect_at_most=8, because=because, **look)
        curves[name] = (xs, rates, peak, bandwidth)
        by_roof = 16 * roof[0] / roof[4]
        sentences.append(
            f"In {name}, 16 inputs take {times[4] / times[0]:.1f} times as long as one. At the "
            f"roof they would take {by_roof:.1f} times as long. One input runs at "
            f"{percent(shares[:1])} of its roof, 16 run at {percent(shares[4:5])}."
        )
    fig, caption, alt = figures.roofline(curves, INPUTS)
    run.figure(fig, "roofline", caption, alt=alt)
    return " ".join(sentences)


# %% [markdown]
# ## What to remember
# - A view is a shape, strides and an offset over memory that it shares. A stride of 0 repeats.
# - Compare the shapes of predictions and targets. With a missing axis the model learns the mean of
#   the targets, and no error is raised.
# - Einsum sums over the letters that the result lacks.
# - The $k$ largest singular values give the closest matrix of rank $k$.
# - Through ReLU layers He's start keeps the size and part of the spread. With PyTorch's biases the
#   numbers keep a size but hardly depend on the sample. Without biases they are He's, but smaller.
# - In our ten runs with twenty layers of 64 units, PyTorch's start read 16 to 58 % of the digits,
#   with biases or without. He's read 90 to 95 %. The participation ratio of layer 10 was 1.0 to 1.6
#   against 4.2 to 5.6. He's start is `nn.init.kaiming_normal_(weight, nonlinearity="relu")`, with
#   biases of 0 or none.
# - On log-log axes a power law is a line, and its slope is the exponent.
# - A rate is at most the peak, and at most the intensity times the bandwidth. More inputs raise the
#   intensity of a product.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Return what surprised, in the numbers of this run."""
    name = "the_start_decides_what_survives"
    default, bare = (
        results.value(name, f"{start}: correlation of bfloat16 with float64")
        for start in ("PyTorch", BARE)
    )
    name = "the_start_decides_what_learns"
    shares, directions_used = (
        [results.value(name, f"{arm}: {what}") for arm in ("PyTorch", BARE, SCALED, "He")]
        for what in ("test accuracy", "directions in layer 10")
    )
    read = [percent([share]) for share in shares]
    used = [f"{count:.1f}" for count in directions_used]
    roof = results.values("many_inputs_raise_the_rate", "float32: rate ÷ roof, 1 to 1,024 inputs")
    name = "five_of_nine_directions_read_most_digits"
    five = results.values(name, "accuracy with five directions, three seeds")
    return (
        "## What surprised\n\n"
        "What distinguishes samples is each unit's deviation from its mean over them. After "
        f"{DEPTH} untrained layers of PyTorch's default start, this deviation has a correlation of "
        f"{default:z.2f} between bfloat16 and float64; **without biases {bare:.3f}**. After 300 "
        f"steps of training, {DEPTH} layers of 64 units read {read[0]} of the test digits with the "
        f"biases (participation ratio of layer 10: {used[0]}), {read[1]} without ({used[1]}), "
        f"{read[2]} without but with one factor on the last outputs ({used[2]}), and {read[3]} "
        f"from He's start ({used[3]}). LLM05a and LLM05b add normalisation and residual paths.\n\n"
        f"Products with 1 to 1,024 inputs, in float32, ran at {percent(roof)} of their roof. "
        f"With its five largest directions LLM03's layer reads {percent(five)} of the test images."
    )


# %% [markdown]
# **Read on**: Williams, Waterman & Patterson 2009, *Roofline* · He et al. 2015, *Delving Deep into
# Rectifiers* · Eckart & Young 1936, *The approximation of one matrix by another of lower rank* ·
# Glorot & Bengio 2010, *Understanding the Difficulty of Training Deep Feedforward Neural Networks*
# · Kingma & Ba 2015, *Adam: A Method for Stochastic Optimization* · Cho & Saul 2009, *Kernel
# Methods for Deep Learning* · Hanin & Nica 2020, *Products of Many Large Random Matrices and
# Gradients in Deep Neural Networks*. Next is LLM04, tokenization.

# %%
if __name__ == "__main__":
    lab.main()
