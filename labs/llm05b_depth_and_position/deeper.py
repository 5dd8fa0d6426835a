# %% [markdown]
# # LLM05b+ · Advanced normalization, deeper
# The law of depth, what norms are worth, and how RoPE reads longer texts than in training.
#
# **You will be able to** predict the stream's size and gradient in a Pre-LN stack within a derived
# band; say what DeepNorm, sandwich and QK-norm bound, and write QK-norm; see what a cast in the
# wrong place costs; extend RoPE by interpolation, a larger base and YaRN. **Builds on** LLM05b,
# whose stack and encodings it imports. **Takes** 40 minutes, an hour with exercises, 2 min to run.

# %% Imports
import copy
import math
from collections.abc import Callable, Iterable
from functools import cache, partial
from statistics import mean, median
from typing import Any, NamedTuple

from labs.kit import Lab, Results, Run
from labs.llm05a_normalization import RMSNorm, Sinusoid, rms_norm
from labs.llm05b_depth_and_position import deeper_figures as figures
from labs.llm05b_depth_and_position import training
from labs.llm05b_depth_and_position.lesson import (
    DOUBLE,
    FFN_ADDS,
    Stack,
    angles,
    build,
    gemma_norm,
    gradient_norms,
    llama_norm,
    rope,
    trained,
)
from labs.llm05b_depth_and_position.stack import Attention, Block, split_heads, value_matrices
from labs.llm05b_depth_and_position.training import LONG, Arm, difference, judge, judge_ratio, ratio
from labs.shared import small_gpt
from labs.shared.small_gpt import Position, attend

import torch
from torch import Tensor, nn

lab = Lab("LLM05b+", width=32)

# %% [markdown]
# ## 1. The law of depth, with a derived band
# LLM05b says that a Pre-LN stream has the size $\sqrt{1 + cL}$ after $L$ blocks. How exact is this?
#
# **The stream.** Let a block add $f$ to the stream $x$, and let $\sigma^2$ be the mean square of
# $x$. Then $\sigma^2$ grows by the mean of $f^2$ plus twice the mean of $x f$. The last matrix of a
# branch is random, with mean 0 and independent of everything before it, so $x f$ has expectation 0.
# What remains is what the branches add:
#
# - The FFN reads a normalized $\hat x$ with $\lVert \hat x \rVert^2 = d$. A hidden unit is
#   $w \cdot \hat x$ with random $w$: it is *exactly* normal with variance 0.4. So the FFN adds
#   0.233 in every block, at any width.
# - $W_v$ and $W_o$ keep the mean square, so attention adds that of $\sum_s p_s \hat x_s$ for
#   weights $p$. It equals $\sum_{s, s'} p_s p_{s'} \cos(\hat x_s, \hat x_{s'})$: near $\sum p^2$ if
#   the tokens are unlike, 1 if they are all alike, and between 0 and 1.
#
# In expectation $0.233 \le c_l \le 1.233$ in every block $l$. A single block can leave this band:
# all its tokens share one draw of $W_v$ and $W_o$. Attention makes tokens more alike, so $c_l$
# rises with depth. The $c$ of $\sqrt{1 + cL}$ is its mean over the blocks and rises with $L$, too.
# A $c$ fitted to shallow stacks is too small for deep ones. The derived band holds at any depth.
#
# **The gradient.** The last norm passes back $1/\sigma_t$ times a part that depends only on the
# normalized stream of token $t$: the loss sees nothing else. The unembedding is random and
# independent of the stream, so it makes no difference which normalized vector it reads. This part,
# the gradient times $\sigma_t$, has the same size on average at any depth.


# %% The law of depth
class DeepEnd(NamedTuple):
    """Of an untrained Pre-LN stack, root mean squares over all tokens."""

    size: float  # of the stream at its end
    gradient: float  # of the loss, at the end of the stream
    product: float  # the gradient times each token's own size
    attention: list[float]  # what each block's attention adds, a mean square
    ffn: list[float]  # what each block's FFN adds, a mean square


def root_mean_square(x: Tensor) -> float:
    """Return the root mean square of all entries."""
    return x.detach().square().mean().sqrt().item()


@cache
def at_the_end(layers: int, d: int, seed: int) -> DeepEnd:
    """Probe an untrained Pre-LN stack on 16 windows of 32 characters."""
    model: Any = build("Pre-LN", layers, d, seed).double()
    attention: list[float] = []
    ffn: list[float] = []
    streams: list[Tensor] = []

    def record(added: list[float]) -> Callable[[Any, Any, Tensor], None]:
        return lambda _module, _inputs, output: added.append(root_mean_square(output) ** 2)

    for block in model.blocks:
        block.attention.register_forward_hook(record(attention))
        block.ffn.register_forward_hook(record(ffn))
        block.register_forward_hook(lambda _module, _inputs, output: streams.append(output))
    loss = training.mean_loss(model, small_gpt.shakespeare().windows(16, 32))
    last = streams[-1]  # (B, T, d)
    (gradient,) = torch.autograd.grad(loss, last)
    own = last.square().mean(-1, keepdim=True).sqrt()  # (B, T, 1)
    size, slope, product = (root_mean_square(x) for x in (last, gradient, gradient * own))
    return DeepEnd(size, slope, product, attention, ffn)


@lab.experiment
def the_depth_law_holds_in_its_band(run: Run):
    """In untrained Pre-LN stacks the FFNs add what the theory says, attention stays below its bound
    on average, and at the stream's end gradient times size does not change with depth.

    Predict: does attention deep in the stack add more or less than in the first block?
    """
    ends = {
        n: [at_the_end(n, training.width(run), seed) for seed in run.seeds(3)]
        for n in training.depths(run)
    }
    rows = []
    for layers, seeds in ends.items():
        values = zip(*((end.size, end.gradient, end.product) for end in seeds), strict=True)
        rows.append([layers, *map(mean, values)])
    run.table("The end of the stream", ["blocks", "size", "gradient", "gradient · size"], rows)
    few, *_, many = training.depths(run)
    attention = torch.tensor([end.attention for end in ends[many]]).mean(0)  # (L,)
    ffn = torch.tensor([end.ffn for end in ends[many]]).mean(0)  # (L,)
    chance = f"derived above; {3 * many} random matrices leave a few per cent to chance"
    what = "what an FFN adds ÷ theory, mean over blocks and seeds"
    share = ffn.mean() / FFN_ADDS
    run.check(what, share, at_least=0.9, at_most=1.1, because=chance, decides=True)
    what = "what attention adds, the same mean"
    because = "a mean of normalized vectors has at most size 1"
    run.check(what, attention.mean(), at_most=1.0, because=because, decides=True)
    low, high = (1 + c * many for c in (FFN_ADDS, 1 + FFN_ADDS))
    square = mean(end.size**2 for end in ends[many])
    what = f"mean square after {many} blocks"
    because = "1 + cL with c from 0.233 to 1.233"
    run.check(what, square, at_least=low, at_most=high, because=because, decides=True)
    products = [row[3] / rows[0][3] for row in rows[1:]]
    what = f"gradient · size ÷ that of {few} blocks"
    because = "equal in expectation, derived above; 10 % for chance"
    run.check(what, products, at_least=0.9, at_most=1.1, because=because, decides=True)
    because = "control: the gradient alone falls, by the least that the band allows"
    least = math.sqrt(1 + FFN_ADDS * (many - few) / (1 + few * (1 + FFN_ADDS)))
    fall = rows[0][2] / rows[-1][2]
    run.check("gradient, fewest blocks ÷ most", fall, at_least=least, because=because)
    figures.show_depth_law(run, attention, ffn, rows, FFN_ADDS)
    return f"It adds {attention[0]:.2f} in the first block and {attention[-1]:.2f} in the last."


# %% [markdown]
# ## 2. DeepNorm and the sandwich
# | placement | $x$ becomes | also | source |
# |---|---|---|---|
# | Post-LN | $\text{norm}(x + f(x))$ | – | LLM05a |
# | Pre-LN | $x + f(\text{norm}(x))$ | a last norm | LLM05a |
# | sandwich | $x + \text{norm}(f(\text{norm}(x)))$ | a last norm | Ding et al. 2021; Gemma 2 |
# | DeepNorm | $\text{norm}(\alpha x + f(x))$ | $W_v, W_o$, FFN times $\beta$ | Wang et al. 2022 |
#
# A **sandwich** normalizes what a branch adds: with a gain of 1, its size is 1 for any matrices. In
# an untrained stack these $2L$ are uncorrelated, so the stream has size $\sqrt{1 + 2L}$ on average.
#
# **DeepNorm** is Post-LN with two constants. They are chosen so that one step of gradient descent
# moves the output by an amount that does not depend on $L$. Section 4 of the paper argues roughly
# like this. A branch has two matrices that start $\beta$ times as large, so it adds little to
# $\alpha x$, and a norm divides by about $\alpha$. Let the first matrix change a little:
#
# | on the way | the change meets | factor |
# |---|---|---|
# | forward | the second matrix, then the norm | $\beta/\alpha$ |
# | backward, in the gradient | the norm, then the second matrix | $\beta/\alpha$ |
#
# The step is proportional to the gradient, so a matrix moves the output by the product of both,
# $\beta^2/\alpha^2$. A change of the second matrix meets the first matrix before it and the norm
# after it, in both directions: the same factors. If two branches in each of $L$ blocks all move the
# output in the same direction, they move it by about
#
# $$2L \cdot \frac{\beta^2 + \beta^2}{\alpha^2}$$
#
# Set this to 1, and $\alpha^2 = 4L\beta^2$. Many pairs of constants satisfy this. The paper takes
# $\alpha = (2L)^{1/4}$, so $\beta = (8L)^{-1/4}$. Check by hand for $L = 2$: $\alpha^2 = 2$,
# $\beta = 16^{-1/4} = 0.5$ and $4L\beta^2 = 8 \cdot 0.5^2 = 2$. For $L = 24$, $\alpha = 2.63$.
#
# The argument ignores that a change also passes through the later blocks. For Post-LN
# $\alpha = \beta = 1$. If we pretend that its norm divides by 1, the argument predicts $4L$: 16
# times as much for 16 times the blocks. The experiment shows how much more it is.
#
# Adam's step is not gradient descent. Its first step moves all matrices equally far, whatever their
# gradients. So of the table only the forward factor $\beta/\alpha$ remains for each matrix. For the
# $4L$ matrices together this is $4L\beta/\alpha = 2\sqrt L$: it grows like $\sqrt L$. The argument
# leaves out the gains of the norms, $W_q$ and $W_k$, so the experiment moves the other matrices.


# %% DeepNorm
def deepnorm(layers: int) -> tuple[float, float]:
    """Return α and β of a decoder with `layers` blocks."""
    return (2 * layers) ** 0.25, (8 * layers) ** -0.25


class DeepNormBlock(Block):
    """A Post-LN block whose stream counts α times; `build_deep` multiplies its matrices by β."""

    def __init__(self, d_model: int, alpha: float):
        super().__init__(d_model)
        self.alpha = alpha

    def forward(self, x: Tensor, position: Position) -> Tensor:
        """Transform the residual stream, (B, T, d) -> (B, T, d)."""
        x = self.norm1(self.alpha * x + self.attention(x, position))
        return self.norm2(self.alpha * x + self.ffn(x))


class SandwichBlock(Block):
    """A Pre-LN block with one more norm at the end of each branch."""

    def __init__(self, d_model: int):
        super().__init__(d_model)
        self.norm3 = nn.LayerNorm(d_model)
        self.norm4 = nn.LayerNorm(d_model)

    def forward(self, x: Tensor, position: Position) -> Tensor:
        """Transform the residual stream, (B, T, d) -> (B, T, d)."""
        x = x + self.norm3(self.attention(self.norm1(x), position))
        return x + self.norm4(self.ffn(self.norm2(x)))


def build_deep(
    name: str, layers: int, d: int, seed: int, position: Position | None = None
) -> Stack:
    """Return an untrained stack of any placement."""
    if name not in ("DeepNorm", "sandwich"):
        return build(name, layers, d, seed, position)
    torch.manual_seed(seed)
    if name == "sandwich":
        return Stack([SandwichBlock(d) for _ in range(layers)], d, True, position)
    alpha, beta = deepnorm(layers)
    model = Stack([DeepNormBlock(d, alpha) for _ in range(layers)], d, False, position)
    for matrix in value_matrices(model):
        matrix.data *= beta
    return model


DEEP = ("Post-LN", "DeepNorm", "Pre-LN", "sandwich")
moved = partial(training.moved, build_deep)


@lab.experiment
def deep_norm_bounds_what_a_step_changes(run: Run):
    """In deeper untrained stacks a step of gradient descent moves Post-LN's output further, and
    DeepNorm's about equally far. Adam's first step moves DeepNorm's further, about like √L.

    Predict: 16 times as many blocks. How much further does Adam's first step move Post-LN?
    """
    layers = training.depths(run)[::2]
    more = layers[-1] / layers[0]
    found: dict[str, Tensor] = {}
    descent: dict[str, list[float]] = {}  # by seed
    adam: dict[str, list[float]] = {}
    for name in run.progress(DEEP, "4 placements"):
        seeds = [[moved(name, n, training.width(run), s) for n in layers] for s in run.seeds(3)]
        found[name] = torch.tensor(seeds)  # (seeds, depths, 2)
        times = found[name][:, -1] / found[name][:, 0]  # (seeds, 2)
        descent[name], adam[name] = times.T.tolist()
    rows = [[name, median(descent[name]), median(adam[name])] for name in DEEP]
    columns = ["", "gradient descent", "Adam's first step"]
    run.table(f"How far the output moves, L = {layers[-1]} ÷ L = 2", columns, rows)
    what = "DeepNorm, gradient descent: times"
    because = "1 by the argument; half is allowed either way, as it ignores the later blocks"
    run.check(what, descent["DeepNorm"], at_least=0.5, at_most=1.5, because=because, decides=True)
    what = "Post-LN, gradient descent: times"
    because = "control: α = β = 1 leaves 4L"
    run.check(what, descent["Post-LN"], at_least=more, because=because, decides=True)
    exponents = [math.log(x) / math.log(more) for x in adam["DeepNorm"]]
    what = "DeepNorm, Adam: exponent of L"
    because = "4L · β/α = 2√L; nearer to the exponent 1/2 than to 0 or 1"
    run.check(what, exponents, at_least=0.25, at_most=0.75, because=because, decides=True)
    deepest = ("Post-LN", layers[-1], training.width(run))
    linear = [moved(*deepest, s)[0] / moved(*deepest, s, size=0.5)[0] for s in run.seeds(3)]
    what = "Post-LN, gradient descent: a step ÷ half a step"
    because = "2 if the step is small enough; a tenth is allowed"
    run.measure(what, linear, expect_between=(1.8, 2.2), because=because)
    what = "Post-LN, Adam: times"
    because = "L blocks that all move the output in the direction of the gradient"
    run.measure(what, adam["Post-LN"], expect_at_least=more, because=because)
    figures.show_steps(run, layers, found)
    return (
        f"{median(adam['Post-LN']):.0f} times as far; DeepNorm's {median(adam['DeepNorm']):.1f} "
        f"times. The rough argument gives {more:.0f} times for Post-LN under gradient descent; "
        f"we measure {median(descent['Post-LN']):.0f}. What amplifies it isn't tested."
    )


# %% [markdown]
# These ratios order the placements by their growth with depth. They don't say which move is too
# far: Pre-LN's grows, too. So we train six blocks at a rate of 0.01, at which Post-LN learned only
# the characters' frequencies in LLM05b. Which placements bear this rate, and does warm-up save
# Post-LN?


# %% Placements at a high rate
RATES = (0.001, 0.003, 0.01)
WARM = "Post-LN, warm-up"


@lab.experiment
def the_others_bear_a_rate_that_post_norm_does_not(run: Run):
    """At a learning rate of 0.01, our Post-LN stacks learn next to nothing beyond the characters'
    frequencies, even with warm-up, while Pre-LN, DeepNorm and sandwich train without it. Pre-LN
    ends lower there than at 0.003.

    Predict: which of the three ends lowest?
    """
    rates = run.pick(tiny=RATES[-1:], small=RATES, full=RATES)
    arms = {(name, lr): Arm(name, lr) for name in DEEP for lr in rates}
    arms |= {(WARM, lr): Arm("Post-LN", lr, warm=True) for lr in rates}
    slow = Arm("Pre-LN", 0.003)
    seeds = dict.fromkeys([*arms.values(), slow], 3)
    outcomes = training.train_arms(run, seeds, build_deep, gradient_norms)
    losses = {key: [outcome.loss for outcome in outcomes[arm]] for key, arm in arms.items()}
    windows = training.validation(run)
    unigram = training.unigram(windows)
    rows = [[name, *(mean(losses[name, lr]) for lr in rates)] for name in (*DEEP, WARM)]
    run.table("Validation loss (nats)", ["", *(f"rate {lr:g}" for lr in rates)], rows)
    third = (unigram - training.bigram(windows)) / 3
    verdicts = []
    for name in (*DEEP, WARM):
        below = [unigram - loss for loss in losses[name, rates[-1]]]
        what = f"{name}, {rates[-1]:g}: below the unigram"
        bound: dict[str, Any] = {"expect_at_least": third}
        because = "a third of what a bigram's loss is below the unigram's"
        if name in ("Post-LN", WARM):
            bound = {"expect_between": (-0.1, 0.1)}
            because = "near the unigram on either side: a bigram is 0.8 below"
        verdict = run.measure(what, below, unit="nats", **bound, because=because, decides=True)
        verdicts.append(verdict)
    figures.show_rates(run, losses, unigram, set(verdicts) == {"held"})
    gain = difference([outcome.loss for outcome in outcomes[slow]], losses["Pre-LN", rates[-1]])
    judge(run, "Pre-LN: gain by 0.01 instead of 0.003", gain)
    for name in ("DeepNorm", "sandwich"):
        gap = difference(losses["Pre-LN", rates[-1]], losses[name, rates[-1]])
        what = f"Pre-LN − {name} at {rates[-1]:g}"
        run.measure(what, gap, unit="nats")
        run.measure(f"{what}, lower 95 % limit", training.lower_limit(gap), unit="nats")
    best = min(DEEP, key=lambda name: mean(losses[name, rates[-1]]))
    loss = mean(losses[best, rates[-1]])
    return f"{best} ends lowest at this rate, at {loss:.2f} nats; the unigram has {unigram:.2f}."


# %% [markdown]
# ## 3. Without norms
# Can a stack do without norms? A branch then reads the stream as it is, and its output grows with
# it. So each block multiplies the size, and also the gradient on its way back. The FFN adds 23 % to
# the mean square of a stream of size 1. In a large stream GELU is almost ReLU, which keeps half of
# the mean square: the FFN adds up to $0.4 \cdot 0.5 \cdot 1.6$, or 32 %. If all tokens have one
# size, attention adds 0 to 100 %. The FFN reads this sum, so on average a block multiplies the mean
# square by $1 \cdot 1.233$ to $2 \cdot 1.32 = 2.64$, or by more if queries prefer larger tokens.
#
# At a factor of 2.6, 32 blocks make the size $2.6^{16}$, or 4 million, and four blocks 7. So we
# train four. The experiment divides the norm of all parameters' gradient at the first step by its
# median over all steps. The warm-up takes a fifth of the steps. For the steps after it, we divide
# the largest norm by their median. Without norms the gradient still falls there: this makes the
# ratio larger.


# %% Without norms
@lab.experiment
def without_norms_the_first_gradient_is_large(run: Run):
    """Without norms each block multiplies an untrained stream's mean square by 1.233 or more on
    average. In four-block stacks the first gradient is a larger multiple of the run's median than
    with Pre-LN.

    Predict: after the warm-up, how many times the median is the largest gradient without norms?
    """
    _, d, length, *_ = training.deep_sizes(run)
    many = training.depths(run)[-1]
    stacks = [build("no norm", many, training.width(run), s).double() for s in run.seeds(3)]
    factors = [training.probe(stack).size ** (2 / many) for stack in stacks]
    what = "no norm: a block multiplies the mean square by"
    because = "derived: the FFN alone multiplies it by 1.233 or more"
    run.check(what, factors, at_least=1 + FFN_ADDS, because=because, decides=True)
    first: dict[str, list[float]] = {}
    spikes: dict[str, float] = {}
    losses: dict[str, list[float]] = {}
    norms: dict[str, list[list[float]]] = {}
    for name in run.progress(("no norm", "Pre-LN"), "2 stacks, 3 seeds"):
        outcomes = training.train_deep(
            run,
            [(Arm(name, 0.01, warm=True), seed) for seed in run.seeds(3)],
            lambda arm, seed: build(arm.placement, 4, d, seed, Sinusoid(length, d)),
            share=0.5,
        )
        norms[name] = [outcome.norms for outcome in outcomes]
        first[name] = [steps[0] / median(steps) for steps in norms[name]]
        later = [steps[len(steps) // 5 :] for steps in norms[name]]
        spikes[name] = median(max(rest) / median(rest) for rest in later)
        losses[name] = [outcome.loss for outcome in outcomes]
        run.measure(f"{name}: loss", losses[name], unit="nats")
    rows = [[name, median(first[name]), spikes[name], mean(losses[name])] for name in norms]
    columns = ["", "first ÷ median", "largest after a fifth ÷ median", "loss (nats)"]
    run.table("The gradient's norm at a peak rate of 0.01", columns, rows)
    ratios = ratio(first["no norm"], first["Pre-LN"])
    what = "first ÷ median: no norm relative to Pre-LN"
    run.measure(what, ratios)
    held = judge_ratio(run, what, ratios)
    figures.show_spikes(run, norms, held)
    without, pre = spikes.values()
    return f"{without:.1f} times; with Pre-LN {pre:.1f} times. The fall from the start adds to it."


# %% [markdown]
# ## 4. QK-norm
# Attention's scores have no norm yet. Nothing bounds $q \cdot k/\sqrt D$: $W_q$ and $W_k$ can grow
# together, and the scores grow like their product. Large enough scores give all weight to one
# token, where a softmax's gradient is almost 0. We measure the scores, not the softmax's gradient.
#
# **QK-norm** (Henry et al. 2020; Dehghani et al. 2023) normalizes each head's queries and keys.
# With RMSNorm, $q$ and $k$ have at most the length $\sqrt D$ times the largest gain. By the
# inequality of Cauchy and Schwarz,
#
# $$\frac{|q \cdot k|}{\sqrt D} \le \sqrt D \cdot \max|\gamma_q| \cdot \max|\gamma_k|$$
#
# whatever $W_q$ and $W_k$ are. For $D = 8$ and gains of 1 the bound is 2.83. The norm comes before
# RoPE's rotation, which keeps lengths. Gains after the rotation would scale the two entries of a
# pair differently, and the score would depend on more than the offset. The first experiment uses
# untrained stacks. The second trains them at 0.03, three times the rate of section 2.


# %% QK-norm
class QKNormAttention(Attention):
    """Attention whose queries and keys may be normalized; it remembers its largest score."""

    def __init__(self, d_model: int, normalize: bool):
        super().__init__(d_model)
        head_dim = d_model // self.heads
        self.q_norm = RMSNorm(head_dim) if normalize else nn.Identity()
        self.k_norm = RMSNorm(head_dim) if normalize else nn.Identity()
        self.largest = 0.0

    @lab.exercise(
        level=2,
        hints=(
            "`Attention.forward` in stack.py makes q and k: a matrix, then split_heads, then turn.",
            "self.q_norm and self.k_norm normalize a head's D entries: split the heads first.",
            "position.turn comes last: a rotation keeps what the norm has done.",
        ),
    )
    def queries_and_keys(self, x: Tensor, position: Position) -> tuple[Tensor, Tensor]:
        """Return normalized and rotated q and k, (B, T, d) -> (B, H, T, D) each."""
        q = self.q_norm(split_heads(self.q(x), self.heads))
        k = self.k_norm(split_heads(self.k(x), self.heads))
        return position.turn(q), position.turn(k)

    def forward(self, x: Tensor, position: Position) -> Tensor:
        """Mix the tokens, (B, T, d) -> (B, T, d)."""
        q, k = self.queries_and_keys(x, position)
        v = split_heads(self.v(x), self.heads)
        if not self.training:
            scores = (q @ k.mT / math.sqrt(q.shape[-1])).tril()  # (B, H, T, T)
            self.largest = scores.abs().max().item()
        mixed = attend(q, k, v, position.bias(self.heads, x.shape[1]))
        return self.out(mixed.transpose(1, 2).flatten(2))


def build_qk(run: Run, normalize: bool, seed: int) -> Stack:
    """Return an untrained Pre-LN stack of such attention, with sinusoids."""
    sizes = training.deep_sizes(run)
    torch.manual_seed(seed)
    blocks = [Block(sizes.d) for _ in range(sizes.layers)]
    for block in blocks:
        block.attention = QKNormAttention(sizes.d, normalize)
    return Stack(blocks, sizes.d, position=Sinusoid(sizes.length, sizes.d))


@torch.no_grad()
def largest_scores(run: Run, model: Any) -> list[float]:
    """Return the largest |score| in each block on the validation text."""
    model = copy.deepcopy(model).cpu().float().eval()
    model(training.validation(run)[:16, :-1])
    return [block.attention.largest for block in model.blocks]


def scores_at_start(run: Run, normalize: bool, times: int) -> list[list[float]]:
    """Return the largest score by seed and block, untrained, with `times` as large W_q and W_k."""
    scores = []
    for seed in run.seeds(3):
        model: Any = build_qk(run, normalize, seed)
        for block in model.blocks:
            block.attention.q.weight.data *= times
            block.attention.k.weight.data *= times
        scores.append(largest_scores(run, model))
    return scores


@lab.experiment
def qk_norm_bounds_the_scores(run: Run):
    """With QK-norm no score of an untrained stack exceeds √D, even with four times as large W_q and
    W_k; without it these make the largest score at least eight times as large.

    Predict: make W_q and W_k four times as large. How does the largest score change without it?
    """
    root = math.sqrt(training.deep_sizes(run).d // 4)
    arms = [(normalize, times) for normalize in (False, True) for times in (1, 4)]
    largest = {arm: list(map(max, scores_at_start(run, *arm))) for arm in arms}
    rows = [["with" if on else "without", n, median(largest[on, n])] for on, n in arms]
    run.table("Largest score at the start", ["QK-norm", "W_q and W_k times", "score"], rows)
    because = "√D, by Cauchy and Schwarz, with gains of 1"
    for n in (1, 4):
        what = f"with QK-norm, matrices times {n}"
        run.check(what, largest[True, n], at_most=1.0001 * root, because=because, decides=True)
    times = ratio(largest[False, 4], largest[False, 1])
    because = "control: 4 · 4 in the first block; half is allowed, as other blocks read other x"
    run.check("without, times 4 ÷ times 1", times, at_least=8, because=because, decides=True)
    return f"Without QK-norm the largest score grows {median(times):.0f} times."


# %% QK-norm in training
@lab.experiment
def scores_grow_in_training_without_qk_norm(run: Run):
    """In training at a rate of 0.03 the largest score grows without QK-norm. With it, only the
    learned gains can raise the bound √D, by Cauchy and Schwarz.

    Predict: does a stack with QK-norm end at a lower loss?
    """
    root = math.sqrt(training.deep_sizes(run).d // 4)
    shares = []
    held = False
    losses: dict[str, list[float]] = {}
    found: dict[str, tuple[list[list[float]], list[list[float]]]] = {}
    for name in run.progress(("without", "with QK-norm"), "3 seeds each"):
        outcomes = training.train_deep(
            run,
            [(Arm(name, 0.03), seed) for seed in run.seeds(3)],
            lambda arm, seed: build_qk(run, arm.placement != "without", seed),
            share=0.5,
        )
        losses[name] = [outcome.loss for outcome in outcomes]
        scores = [largest_scores(run, outcome.model) for outcome in outcomes]  # by seed and block
        largest = [max(blocks) for blocks in scores]
        run.measure(f"trained at 0.03, {name}: loss", losses[name], unit="nats")
        run.measure(f"trained at 0.03, {name}: largest score", largest)
        start = scores_at_start(run, name != "without", 1)
        found[name] = start, scores
        growth = ratio(largest, list(map(max, start)))
        what = f"{name}: largest score, after training ÷ before"
        run.measure(what, growth)
        if name == "without":
            held = judge_ratio(run, what, growth)
            continue
        for outcome, blocks in zip(outcomes, scores, strict=True):
            for block, score in zip(outcome.model.blocks, blocks, strict=True):
                gains = (block.attention.q_norm, block.attention.k_norm)
                bound = root * math.prod(gain.weight.abs().max().item() for gain in gains)
                shares.append(score / bound)
    because = "a test of the code: Cauchy and Schwarz, whatever was learned; 1e-5 for float32"
    what = "trained with it: score ÷ (√D · largest gains), each block"
    run.check(what, max(shares), at_most=1.00001, because=because, decides=True)
    figures.show_scores(run, found, root, held)
    plain, normed = losses.values()
    overlap = max(normed) > min(plain) and max(plain) > min(normed)
    verdict = "The ranges overlap" if overlap else "The ranges of three seeds don't overlap"
    return (
        f"With QK-norm it is {mean(normed):.2f} nats, without {mean(plain):.2f}. {verdict}. With "
        f"QK-norm the largest score grows {median(growth):.1f} times, by the learned gains."
    )


# %% [markdown]
# ## 5. Rounded roots, rounded angles, and ALiBi for any number of heads
# LLM05b converted a norm and a rotation. Here two casts go wrong, and ALiBi's slopes serve any
# number of heads.
#
# **A rounded root.** Llama and Gemma compute the mean square in float32. If mean square and root
# are rounded to bfloat16, all numbers of a token are wrong by the same factor. Take a token of size
# 3: its mean square is near 9, where bfloat16's numbers are 1/16 apart. The reciprocal root is near
# 1/3, where they are 1/512 apart. Rounding errors spread evenly over half a spacing on either side,
# so their root mean square is the spacing divided by $\sqrt{12}$. Relative to 9 that is 0.0020, and
# the root halves it. Relative to 1/3 it is 0.0017. The two are independent:
# $\sqrt{0.0010^2 + 0.0017^2} = 0.0020$. Over a token single errors average out; this shift doesn't.
# Llama's first rounding averages out less than a sum of independent errors: $\hat x$ is $x$ times
# one factor. The 8 bits of $x$ without sign and exponent start with 1, so they have 128 patterns,
# and only 128 different errors occur.


# %% A rounded root
def short_norm(x: Tensor, gain: Tensor) -> Tensor:
    """Return RMSNorm with mean square and root rounded to x's dtype, (..., d), (d,) -> (..., d)."""
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * gain


@lab.experiment
def a_rounded_root_shifts_entire_tokens(run: Run):
    """In bfloat16 a rounded root shifts entire tokens, over three times as far as a float32 root.

    Predict: how many times smaller is Llama's shift than that of a norm all in bfloat16?
    """
    x = 3 * torch.randn(256, 1024).bfloat16()  # the derivation is for this size
    gain = (1 + torch.randn(1024) / 4).bfloat16()
    g = (gain.float() - 1).bfloat16()
    exact = rms_norm(x.double(), gain.double())
    rows = []
    for name, got, want in (
        ("Gemma's", gemma_norm(x, g), rms_norm(x.double(), 1 + g.double())),
        ("Llama's", llama_norm(x, gain), exact),
        ("all in bfloat16", short_norm(x, gain), exact),
    ):
        error = (got.double() / want - 1).nan_to_num()
        shift = error.mean(-1)  # of each token
        rows.append([name, error.abs().max().item(), shift.square().mean().sqrt().item()])
    run.table("Relative error", ["", "largest of a number", "of a token's mean (RMS)"], rows)
    what = "all in bfloat16: shift of a token"
    because = "0.0020, derived above; 15 % for chance, as 256 tokens have some 20 different roots"
    run.check(what, rows[2][2], at_least=0.0017, at_most=0.0023, because=because, decides=True)
    because = "control: errors ≤ 2⁻⁸ average out; Llama's first only over x's 128 significands"
    for name, _, shift in rows[:2]:
        run.check(f"{name}: shift of a token", shift, at_most=2**-11, because=because, decides=True)
    gemma, llama, short = (row[2] for row in rows)
    less = f"With a float32 root Llama shifts it by {llama:.3%}, {short / llama:.0f} times less"
    return f"All in bfloat16 shifts a token by {short:.2%}. {less}, and Gemma by {gemma:.3%}."


# %% [markdown]
# **Rounded angles.** RoPE's angles need more than bfloat16. Between 64 and 128 its numbers are 0.5
# apart, so an angle there is off by up to 0.25 radians, and query and key have different errors.
# Positions are rounded, too: past 256 not all integers exist. Around 10,000 the numbers are 64
# apart, so 10,000 and 9,993 are the same position, and the score is that of offset 0. Rounded
# frequencies alone do little: query and key share them, so the error grows with the offset only.
#
# **Slopes for other numbers of heads.** For $H$ that is no power of 2, ALiBi's authors take the
# slopes of the next lower power of 2, $p$. Then they add the 1st, 3rd, 5th … slope of $2p$ until
# there are $H$. Six heads have the four slopes of $p = 4$, which are 1/4, 1/16, 1/64 and 1/256, and
# then 1/2 and 1/8. BLOOM adds $m s$ instead of $-m(t - s)$: the difference $m t$ is the same for
# all keys of a query, and a softmax ignores it.


# %% Slopes and angles
def slopes(heads: int) -> Tensor:
    """Return ALiBi's slopes for any number of heads, as the paper's code does, (H,)."""
    lower = 2 ** (heads.bit_length() - 1)
    own, doubled = ([2 ** (-8 * i / n) for i in range(1, n + 1)] for n in (lower, 2 * lower))
    return torch.tensor(own + doubled[::2][: heads - lower], dtype=DOUBLE)


def score_errors(places: Iterable[int], dtype: torch.dtype) -> list[float]:
    """Return the largest error of 32 scores at offset 7, with angles computed in `dtype`."""
    q, k = torch.randn(2, 32, 64, dtype=DOUBLE) / 64**0.25  # q·k has size 1

    def score(position: int, dtype: torch.dtype) -> Tensor:
        frequencies = angles(torch.ones(1), 64).to(dtype)  # (1, D/2)
        here, there = torch.tensor([position, position - 7]).to(dtype)
        turned_q = rope(q, (here * frequencies).double())
        return (turned_q * rope(k, (there * frequencies).double())).sum(-1)

    return [(score(t, dtype) - score(7, DOUBLE)).abs().max().item() for t in places]


@lab.experiment
def ports_are_compared_number_by_number(run: Run):
    """For 1, 6, 8 and 12 heads our slopes give BLOOM's weights. RoPE's scores keep their values at
    far positions with angles in float32, not in bfloat16.

    Predict: at which position is an error of bfloat16 angles as large as the scores themselves?
    """
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    raw = torch.randn(64, 64, dtype=DOUBLE)
    ahead = torch.ones(64, 64, dtype=torch.bool).triu(1)
    distance = torch.arange(64)[:, None] - torch.arange(64)
    for heads in (1, 6, 8, 12):
        theirs = build_alibi_tensor(torch.ones(1, 64), heads, DOUBLE)  # (H, 1, T): + m·s
        ours = -slopes(heads)[:, None, None] * distance
        a, b = ((raw + bias).masked_fill(ahead, -math.inf).softmax(-1) for bias in (ours, theirs))
        because = "the row's constant cancels; BLOOM's slopes are float32"
        run.agree(f"H = {heads}: weights, ours − BLOOM's", a - b, 1e-5, because, decides=True)
    places = (7, 100, 1_000, 10_000, 100_000)
    errors = {dtype: score_errors(places, dtype) for dtype in (torch.float32, torch.bfloat16)}
    rows = [[str(dtype).removeprefix("torch."), *errors[dtype]] for dtype in errors]
    run.table("Largest error of a score", ["angles in", *(f"t = {t:,}" for t in places)], rows)
    because = "angles near 100,000 are off by at most 2⁻⁸ radians, those of slow pairs by less"
    error = errors[torch.float32][-1]
    run.check("float32, t = 100,000", error, at_most=0.02, because=because, decides=True)
    because = "query and key get the same position: the score is that of another offset"
    at_100, near, far = errors[torch.bfloat16][1:4]
    run.check("bfloat16, t = 10,000", far, at_least=0.5, because=because, decides=True)
    shown = f"{at_100:.2f} at 100, {near:.2f} at 1,000 and {far:.2f} at 10,000"
    return f"Scores have size 1. The largest of 32 errors is {shown}."


# %% [markdown]
# ## 6. RoPE beyond the trained length
# RoPE fails beyond the trained length (LLM05b). Angles are new there, and a query has more keys.
# First the angles: which pairs are to blame? In $T$ tokens pair $i$ turns $T\omega_i/2\pi$ times. A
# pair that has turned all the way round has seen angles everywhere on the circle. A pair that has
# seen only an arc gets angles outside of it at larger offsets. With $T = 64$ and $D = 12$ the
# pairs turn 10.2, 2.2, 0.47, 0.10, 0.02 and 0.005 times. Four of six have seen an arc only.
#
# Three methods read texts $s$ times as long. None changes the weights:
#
# - **Position interpolation** (Chen et al. 2023) divides a longer text's positions by $s$. No angle
#   leaves the trained arc. But neighbours are only $1/s$ apart, and fast pairs tell them apart.
# - **A larger base**, "NTK-aware" (bloc97 2023), takes $\theta \cdot s^{D/(D - 2)}$. This divides
#   the slowest frequency, $\theta^{-(D - 2)/D}$, by $s$ and leaves the fastest at 1. The others are
#   in between. With $s = 8$, pair 2 is divided by $8^{2/5} = 2.3$: in $8T$ it turns 1.6 times, so
#   it still meets new angles, as pairs 3 and 4 do.
# - **YaRN** (Peng et al. 2023) decides pair by pair. It counts the turns in training,
#   $r_i = T\omega_i/2\pi$. It keeps $\omega_i$ where $r_i > \beta$ and divides it by $s$ where
#   $r_i < \alpha$. In between it mixes both, with the weight $(r_i - \alpha)/(\beta - \alpha)$ for
#   the unchanged frequency. For Llama they take $\alpha = 1$ and $\beta = 32$. A softmax over more
#   keys spreads its weight; larger scores counter this. So YaRN multiplies all scores by
#   $(0.1 \ln s + 1)^2$, which was fitted on Llama.
#
# Our pairs turn at most 10 times, so $\beta = 32$ would change all of them. We take $\beta = 4$: a
# pair with more turns stays as it is. We chose 4 before the first run and did not tune it. Of our
# six pairs, YaRN keeps the first, mixes the second with the weight 0.40 and divides four by $s$.
#
# YaRN changes frequencies and scale. Two more rows of the table separate them: YaRN without the
# scale, and the larger base with it. After any method, a model can be trained a little at the new
# length. To be fair, plain RoPE then trains on the same number of further characters at the old
# length, and the cost is the difference of the two losses. Chen et al. took Llama from 2,048 to
# 8,192 tokens and more in 1,000 steps. As in LLM05b, a cost above 0 means that a cut would be
# better.


# %% Longer positions
@lab.exercise(
    level=1,
    hints=(
        "Positions 0, 1, 2, … times one factor. Which factor makes 512 fit where 64 were?",
        "A text that isn't longer than in training keeps its positions: the factor is at most 1.",
        "The factor of a longer text is trained_length / length.",
    ),
)
def interpolated(length: int, trained_length: int) -> Tensor:
    """Return `length` positions, squeezed below `trained_length` if needed, (T,) in float64."""
    return torch.arange(length, dtype=torch.float64) * min(1.0, trained_length / length)


@lab.exercise(
    level=2,
    hints=(
        "Count each pair's turns in training: trained_length · ω / 2π.",
        "The weight of the unchanged frequency is (turns − low) / (high − low), clamped to 0 … 1.",
        "weight · ω + (1 − weight) · ω / factor.",
    ),
)
def yarn_frequencies(
    frequencies: Tensor, trained_length: int, factor: float, low: float = 1.0, high: float = 32.0
) -> Tensor:
    """Return YaRN's frequencies for texts `factor` times as long, (D/2,) -> (D/2,).

    A pair with more than `high` turns in `trained_length` tokens keeps its frequency, one with
    fewer than `low` turns is interpolated, and those in between are mixed.
    """
    turns = trained_length * frequencies / (2 * math.pi)
    weight = ((turns - low) / (high - low)).clamp(0, 1)
    return weight * frequencies + (1 - weight) * frequencies / factor


class LongRotary(Position):
    """RoPE with given frequencies, (D/2,), a scale of the scores, and a map to positions."""

    def __init__(
        self,
        frequencies: Tensor,
        positions: Callable[[int], Tensor] = torch.arange,
        scale: float = 1.0,
    ):
        super().__init__()
        self.frequencies = frequencies
        self.positions = positions
        self.scale = scale

    def turn(self, x: Tensor) -> Tensor:
        """Rotate queries or keys, (B, H, T, D) -> (B, H, T, D)."""
        angle = self.positions(x.shape[-2]).to(DOUBLE)[:, None] * self.frequencies  # (T, D/2)
        return rope(x, angle.to(x.device)) * math.sqrt(self.scale)  # q and k share the scale


METHODS = ("plain RoPE", "interpolation", "larger base", "YaRN")
BARE = "YaRN without its scale"
SCALED = "larger base with YaRN's scale"
ROWS = (*METHODS, SCALED, BARE)  # of the table of costs
COLUMNS = ((2, False), (4, False), (LONG, False), (LONG, True))  # factor, and trained on or not
SCALE_CHANGES = "8 times: YaRN − YaRN without its scale"


def longer(run: Run, name: str, factor: int) -> LongRotary:
    """Return RoPE for texts `factor` times as long as in training."""
    sizes = training.long_sizes(run)
    head_dim = sizes.d // 4
    at_position_1 = torch.ones(1)
    frequencies = angles(at_position_1, head_dim)[0]  # the angles at position 1
    if name in ("larger base", SCALED):
        base = 10_000 * factor ** (head_dim / (head_dim - 2))
        frequencies = angles(at_position_1, head_dim, base)[0]
    if name in ("YaRN", BARE):
        frequencies = yarn_frequencies(frequencies, sizes.length, factor, high=4.0)
    scale = (0.1 * math.log(factor) + 1) ** 2 if name in ("YaRN", SCALED) else 1.0
    if name == "interpolation":
        return LongRotary(frequencies, partial(interpolated, trained_length=sizes.length))
    return LongRotary(frequencies, scale=scale)


def train_on(run: Run, model: nn.Module, seed: int, factor: int, batch: int) -> Any:
    """Return a copy of the model after a few steps on texts `factor` times as long."""
    return small_gpt.train(
        run,
        model,
        small_gpt.shakespeare(),
        steps=run.pick(tiny=20, small=60, full=200),
        lr=training.best_rate(run, "RoPE", trained) / 2,
        seed=seed,
        batch=batch,
        length=factor * training.long_sizes(run).length,
    ).model


@cache
def short_loss(run: Run, seed: int, learn: bool) -> float:
    """Return RoPE's loss as in training, or after as many more characters of that length."""
    model: Any = trained(run, "RoPE", seed)
    if learn:
        model = train_on(run, model, seed, 1, LONG * long_batch(run))
    return training.last_half(run, training.loss_by_place(run, model, 1))


def long_batch(run: Run) -> int:
    """Return the number of long texts in a step."""
    return run.pick(tiny=2, small=4, full=8)


def cost_of_length(run: Run, name: str, seed: int, factor: int, learn: bool) -> float:
    """Return what reading `factor` times as far costs in nats, after a few long texts or not."""
    model: Any = copy.deepcopy(trained(run, "RoPE", seed))
    model.position = longer(run, name, factor)
    if learn:
        model = train_on(run, model, seed, factor, long_batch(run))
    long = training.loss_by_place(run, model, factor)
    return training.last_half(run, long) - short_loss(run, seed, learn)


def costs_of_length(run: Run) -> dict[tuple[str, int, bool], list[float]]:
    """Return the costs by method, factor and whether the model was trained on, for each seed."""
    costs: dict[tuple[str, int, bool], list[float]] = {}
    for name in run.progress(ROWS, "6 methods"):
        for factor, learn in COLUMNS if name in METHODS else COLUMNS[:-1]:
            seeds = run.seeds(3 if learn else 5)  # plain RoPE's cost differs most without training
            nats = [cost_of_length(run, name, seed, factor, learn) for seed in seeds]
            costs[name, factor, learn] = nats
    return costs


@lab.experiment
def yarn_costs_least(run: Run):
    """Without further training, small models read eight times as far at less cost with YaRN, at our
    β, with its scale or without it, than with plain RoPE, interpolation or a larger base.

    Predict: a few steps on long texts: which of the four gains most by them?
    """
    methods = {name: longer(run, name, LONG) for name in METHODS}
    figures.show_frequencies(run, methods, LONG * training.long_sizes(run).length)
    costs = costs_of_length(run)
    shown = {place: f"{mean(nats):+.2f}" for place, nats in costs.items()}
    rows = [[name, *(shown.get((name, *column), "–") for column in COLUMNS)] for name in ROWS]
    columns = ["", *(f"{n} times{', trained on' if learn else ''}" for n, learn in COLUMNS)]
    run.table("Cost of length (nats)", columns, rows)
    far = {name: costs[name, LONG, False] for name in ROWS}
    held = [
        judge(run, f"8 times: {name} − {yarn}", difference(far[name], far[yarn]))
        for yarn in ("YaRN", BARE)  # the frequencies alone help, too
        for name in METHODS[:-1]
    ]
    what = f"8 times: {SCALED} − YaRN"
    run.measure(what, difference(far[SCALED], far["YaRN"]), unit="nats")
    run.measure(SCALE_CHANGES, difference(far["YaRN"], far[BARE]), unit="nats")
    for name in METHODS:
        what = f"8 times, trained on, {name}: cost of length"
        run.measure(what, costs[name, LONG, True], unit="nats")
    figures.show_methods(run, costs, (2, 4, LONG), METHODS, all(held))
    after = {name: mean(costs[name, LONG, True]) for name in METHODS}
    falls = {name: mean(far[name][:3]) - after[name] for name in METHODS}  # of the same seeds
    most = max(falls, key=lambda name: falls[name])
    best = min(after, key=lambda name: after[name])
    return (
        f"Training on long texts lowers the cost most for {most}, by {falls[most]:.2f} nats to "
        f"{after[most]:.2f}. Then {best} costs least, {after[best]:.2f}."
    )


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Sum up this run's trainings."""
    rates = partial(results.shown, "the_others_bear_a_rate_that_post_norm_does_not")
    long = partial(results.shown, "yarn_costs_least")
    below = "0.01: below the unigram"
    trained_on = "8 times, trained on"
    tuned = {
        name: mean(results.values("yarn_costs_least", f"{trained_on}, {name}: cost of length"))
        for name in METHODS
    }
    better = ", ".join(name for name, cost in tuned.items() if cost < 0)
    verdict = f"better than a cut for {better}" if better else "worse than a cut for all four"
    return f"""## In this run
Medians, with the range over the seeds, in nats:

- At a rate of 0.01 without warm-up the loss is below the unigram by: Post-LN
  {rates(f"Post-LN, {below}")}, DeepNorm {rates(f"DeepNorm, {below}")}, Pre-LN
  {rates(f"Pre-LN, {below}")}, sandwich {rates(f"sandwich, {below}")}. There Pre-LN − DeepNorm is
  {rates("Pre-LN − DeepNorm at 0.01")}.
- Unchanged weights, 8 times the length: the scale of the scores changes YaRN's cost by
  {long(SCALE_CHANGES)}.
- Trained a little on texts of 8 times the length, reading them costs: plain RoPE
  {long(f"{trained_on}, plain RoPE: cost of length")}, interpolation
  {long(f"{trained_on}, interpolation: cost of length")}, a larger base
  {long(f"{trained_on}, larger base: cost of length")}, YaRN
  {long(f"{trained_on}, YaRN: cost of length")}. By the mean over the seeds, reading all of the
  text is then {verdict}.
"""


# %% [markdown]
# ## What to remember
# - A block adds 0.23 to 1.23 to the mean square of an untrained Pre-LN stream, on average.
# - With 32 untrained blocks instead of 2, a step of gradient descent moves DeepNorm's output about
#   equally far. Adam's first step moves it about 4 times as far, Post-LN's 40 to 250 times.
# - DeepNorm bounds what a step of gradient descent changes, a sandwich what each branch adds,
#   QK-norm the scores, up to its gains. QK-norm lies inside attention: it goes with any placement.
# - Which to choose? At six blocks DeepNorm, sandwich and Pre-LN all bear a rate at which Post-LN
#   learns only frequencies, even with warm-up. There DeepNorm ends below Pre-LN in 12 of 13
#   seeds, by 0.03 to 0.08 nats; which is best at its best rate isn't tested. Wang et al. train
#   1,000 layers with DeepNorm. Dehghani et al. use QK-norm, as their scores grow too large.
# - Without norms each block multiplies the untrained stream's size. With warm-up four blocks still
#   train, in 120 steps about as well as Pre-LN. Deeper stacks are untested.
# - A root rounded to bfloat16 shifts entire tokens, by 0.2 %. Angles rounded to bfloat16 ruin
#   RoPE's scores: from about position 1,000 on, the largest of 32 errors exceeds a typical score.
# - To read further with RoPE, keep what the fast pairs know and bring the slow pairs back into the
#   arc that they have seen. YaRN does this pair by pair and costs least here, but a cut to the
#   trained length is still better. Its scale, fitted on Llama, doesn't help our models.
#
# **Read on**: Ding et al. 2021, *CogView* · Wang et al. 2022, *DeepNet: Scaling Transformers to
# 1,000 Layers* · Henry et al. 2020, *Query-Key Normalization for Transformers* · Dehghani et al.
# 2023, *Scaling Vision Transformers to 22 Billion Parameters* · Chen et al. 2023, *Extending
# Context Window … via Positional Interpolation* · Peng et al. 2023, *YaRN*. Next: LLM06, attention.

# %%
if __name__ == "__main__":
    lab.main()
