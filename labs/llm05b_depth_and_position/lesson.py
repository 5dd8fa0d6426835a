# %% [markdown]
# # LLM05b · Advanced normalization
# Stack transformer blocks so that they train, and tell attention where each token stands.
#
# **You will be able to** stack blocks, probe gradients, find a broken layer; explain what Pre-LN
# does to a stack and what warm-up does to Post-LN; convert weights; write RoPE and ALiBi. **Builds
# on** LLM05a. **Takes** 40 minutes, two hours with exercises, two minutes to run.

# %% Imports
import math
from collections.abc import Callable, Iterable
from functools import cache, partial
from statistics import mean, median
from typing import Any

from labs.kit import Lab, Results, Run
from labs.llm05a_normalization import Sinusoid, rms_norm, wide
from labs.llm05b_depth_and_position import figures, training, view_data
from labs.llm05b_depth_and_position.planted_faults import planted
from labs.llm05b_depth_and_position.stack import Block, Parts, split_heads
from labs.llm05b_depth_and_position.training import LONG, Arm, difference, judge, judge_ratio, ratio
from labs.shared.small_gpt import Learned, Position

import torch
from torch import Tensor, nn

lab = Lab("LLM05b", width=32)
DOUBLE = torch.float64
PLACEMENTS = ("Post-LN", "Pre-LN")
FFN_ADDS = 0.2329  # to the stream's mean square: section 2 derives it

# %% [markdown]
# ## 1. A stack, and attention in half a page
# A transformer turns each token into a vector of $d$ numbers and passes them through $L$ blocks.
# The vectors between the blocks are the **residual stream** $x$. A block's two **branches** add to
# it: **attention** mixes tokens, the **feed-forward layer** (FFN) treats each token alone. LLM05a
# puts a norm before each branch (**Pre-LN**, or Pre-Norm) or after each sum (**Post-LN**). After
# the last block a matrix, the **unembedding**, turns each vector into $V$ **logits** of the next
# token. In shapes, $B$ is the number of texts and $T$ the number of tokens in each.
#
# Attention computes three vectors for each token. The **query** $q = W_q x$ is what the token looks
# for, the **key** $k = W_k x$ is what it can be found by, and the **value** $v = W_v x$ is what it
# passes on. The **score** of a query and a key is $q \cdot k / \sqrt D$; both have $D$ entries. A
# softmax turns the scores of a query into weights, and the output is the mean of the values with
# these weights. Attention is **causal**: a **mask** hides the tokens after the query's token.
#
# The last of three tokens has $q = (2, 0)$. Their keys are $(1, 0)$, $(0, 1)$ and $(1, 1)$, their
# values 1, 5 and 3. The products are 2, 0 and 2, the scores 1.41, 0 and 1.41, the weights 0.446,
# 0.108 and 0.446, and the output is 2.325. Now swap the first two tokens: the output is the same.
# So one layer of attention needs positions to see the order of earlier tokens.
#
# One softmax gives one set of weights, but a token may need several. So a model has $H$ **heads**:
# each has $D = d/H$ of the $d$ entries of $q$, $k$ and $v$, and a last matrix $W_o$ mixes their
# outputs. Read `Attention.forward` and `Block.forward` in `stack.py` now: 20 lines. Attention calls
# `position.turn` on $q$ and $k$ and adds `position.bias` to the scores; the stack calls
# `position.embed`. The default position changes nothing. Section 6 has others.


# %% A stack
class Stack(Parts):
    """A language model, (B, T) tokens -> (B, T, V) logits.

    `Parts` makes `embedding`, `position`, `blocks`, each called as `block(x, position)`, `norm` and
    `unembedding`. In Pre-LN `norm` brings the stream to size 1; in Post-LN it returns its input.
    """

    @lab.exercise(
        level=1,
        hints=(
            "Start with the embeddings of the tokens; self.position.embed adds positions to them.",
            "Each block needs the stream and self.position, and returns the new stream.",
            "After the last block come self.norm and then self.unembedding.",
        ),
    )
    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of each next token, (B, T) -> (B, T, V)."""
        x = self.position.embed(self.embedding(tokens))  # (B, T, d)
        for block in self.blocks:
            x = block(x, self.position)
        return self.unembedding(self.norm(x))


def build(
    placement: str, layers: int, d: int, seed: int, position: Position | None = None
) -> Stack:
    """Return an untrained stack; the seed determines its weights."""
    torch.manual_seed(seed)
    blocks = [Block(d, placement) for _ in range(layers)]
    return Stack(blocks, d, last_norm=placement == "Pre-LN", position=position)


@lab.experiment
def two_blocks_see_some_of_the_order(run: Run):
    """Without positions, one block's last output does not depend on the order of the first two
    tokens; that of two blocks does.

    Predict: how can two blocks see more than one? Think of what the causal mask hides.
    """
    figures.show_stack(run)
    tokens = torch.tensor([[5, 11, 7, 3], [11, 5, 7, 3]])  # the first two are swapped
    stacks = [build("Pre-LN", layers, 32, run.seed).double() for layers in (1, 2)]
    one, two = (stack(tokens)[:, -1] for stack in stacks)  # (2, V): the last logits of each text
    run.agree("one block: change of the last logits", one[0] - one[1], decides=True)
    because = "control: the first token differs, and logits have size 1"
    change = (two[0] - two[1]).abs().max()
    run.check("two blocks: their change", change, at_least=1e-3, because=because, decides=True)
    return "The first token sees itself alone, the second sees both. Block 2 reads the results."


# %% [markdown]
# ## 2. Signal and gradient in a stack
# Stack 32 untrained blocks. How large is the stream at the end, and how large is the gradient
# there? By the **size** of a vector we mean the root of the mean square of its entries.
#
# **Forwards.** The stream starts at size 1: the embeddings have variance 1. In Post-LN a norm
# follows each sum, so the size is 1 after every block. In Pre-LN nothing normalizes the stream: a
# branch reads a normalized input and adds $f$. Its last matrix is random with mean 0, so an entry
# of $f$ is as often positive as negative, and $xf$ is 0 on average. As $(x + f)^2 = x^2 + 2xf +
# f^2$, mean squares add up. If a block adds $c$ on average, the size after $L$ is $\sqrt{1 + cL}$.
# Our matrices start with the variance 2/(inputs + outputs). This bounds $c$:
#
# - **FFN**, from $d$ to $4d$ and back. A hidden unit is a sum of $d$ terms, so its variance is
#   $d \cdot 2/(5d) = 0.4$. GELU turns this into a mean square of 0.146. Try it with
#   `nn.functional.gelu(0.4**0.5 * torch.randn(10**6)).square().mean()`. The second matrix sums $4d$
#   such numbers: $4d \cdot 2/(5d) \cdot 0.146 = 0.23$.
# - **Attention.** $W_v$ and $W_o$ keep the mean square of what they read, as $d \cdot 2/(2d) = 1$.
#   Between them attention averages, which cannot increase the size. So it adds between 0 and 1.
#
# On average over the random matrices $0.23 \le c \le 1.23$: 32 blocks make the size 2.9 to 6.4.
#
# **Backwards.** In Pre-LN the last norm divides the stream by its size, and its derivative contains
# the same division. If the stream is 4 times as large, the gradient at its end is a quarter. The
# last block adds to this stream, so its weights get less gradient, too. For its last matrix Xiong
# et al. (2020, Theorem 1) prove upper bounds: Pre-LN's falls like $1/\sqrt L$, Post-LN's doesn't
# depend on $L$. But a weight's gradient is a sum over the tokens. In deep stacks attention makes
# the tokens alike. Similar tokens contribute similar terms, which cancel less. So Pre-LN's gradient
# may fall more slowly than $1/\sqrt L$, and Post-LN's may grow. We measure the gradient's norm.
#
# **Verdicts.** `judge` asks whether the 95 % interval of a mean over the seeds, as in LLM05a, lies
# above 0. `judge_ratio` asks this of the logarithms of ratios: the logarithm of 1 is 0.


# %% Probes
@lab.exercise(
    level=2,
    hints=(
        "After loss.backward() each parameter p of a module has its gradient in p.grad.",
        "Sum the squares over all entries of all parameters, and take one root at the end.",
        "A frozen parameter has p.grad = None: skip it.",
    ),
)
def gradient_norms(modules: Iterable[nn.Module]) -> list[float]:
    """Return the norm of each module's gradient; call it after `loss.backward()`.

    Parameters without a gradient count as 0. Nothing is changed.
    """
    norms = []
    for module in modules:
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        norms.append(math.sqrt(sum(g.double().square().sum().item() for g in gradients)))
    return norms


@lab.experiment
def pre_norm_lets_the_stream_grow(run: Run):
    """In untrained Pre-LN stacks the stream grows with depth, and the gradients at its end and of
    the last block shrink; in Post-LN stacks the last block's gradient does not shrink.

    Predict: after 32 blocks, is the Pre-LN stream nearer to the band's lower or its upper end?
    """
    ends, gradients = training.probe_stacks(run, PLACEMENTS, build, gradient_norms)
    few, *_, many = training.depths(run)
    first, last = (ends["Pre-LN", layers] for layers in (few, many))
    size = math.sqrt(mean(end.size**2 for end in last))
    low, high = (math.sqrt(1 + c * many) for c in (FFN_ADDS, 1 + FFN_ADDS))
    because = "√(1 + cL) with c from 0.23 to 1.23 on average, as derived above"
    run.check("Pre-LN: size", size, at_least=low, at_most=high, because=because, decides=True)
    least = math.sqrt(1 + FFN_ADDS * (many - few) / (1 + few * (1 + FFN_ADDS)))
    fall = ratio([end.gradient for end in first], [end.gradient for end in last])
    what = "Pre-LN: gradient at the stream's end, fewest blocks ÷ most"
    because = "the stream's least growth: the last norm divides by its size"
    run.check(what, fall, at_least=least, because=because, decides=True)
    falls = {name: ratio(gradients[name, few], gradients[name, many]) for name in PLACEMENTS}
    what = "the last block's gradient, fewest blocks ÷ most"
    run.measure(f"Pre-LN: {what}", falls["Pre-LN"])
    judge_ratio(run, f"Pre-LN: {what}", falls["Pre-LN"])
    because = "shrinking by a tenth or less counts as not shrinking"
    run.check(f"Post-LN: {what}", falls["Post-LN"], at_most=1.1, because=because, decides=True)
    training.show_alike(run, few, many, ends)
    figures.show_starts(run, ends, gradients, FFN_ADDS)
    return f"The {'lower' if size < (low + high) / 2 else 'upper'} end: its size is {size:.1f}."


# %% [markdown]
# ## 3. Pre-LN, the learning rate and warm-up
# Add a vector of size 1 at right angles to the stream. A stream of size 1 turns by 45°, a stream of
# size 5 by 11°. In Pre-LN the stream that leaves block $l$ has the size $\sqrt{1 + cl}$. The later
# blocks read the turned stream, so what they add turns, too. The last norm rescales the stream to
# size 1, so only its direction reaches the logits. So a late change moves logits and loss less, and
# the gradient falls with $l$. In Post-LN a late change turns the stream as far as an early one.
#
# Post-LN is harder to train. Xiong et al. 2020 blame its large gradient near the output at the
# start. Liu et al. 2020 blame how strongly the output depends on each block: a small step then
# moves it far. We use **Adam**: it divides each gradient by its recent size. Its first step moves
# each weight by the learning rate, so a large gradient alone makes no large step. But Xiong et al.
# need a warm-up with gradient descent, too. So we measure each block's gradient, and how far the
# logits move if each entry of its matrices moves equally far, up or down at random. In Pre-LN Xiong
# et al. find similar gradients in all blocks, Shleifer et al. 2021 larger ones early.


# %% One block moves
@lab.experiment
def late_pre_norm_blocks_move_the_output_less(run: Run):
    """In an untrained Pre-LN stack late blocks get less gradient than early blocks, and a random
    step of theirs moves the logits less. Post-LN's last block moves them further than Pre-LN's.

    Predict: Post-LN's last block moves the logits further than Pre-LN's. How many times as far?
    """
    layers = training.depths(run)[-1]
    blocks = [2**n - 1 for n in range(layers.bit_length())]  # the 1st, 2nd, 4th … block
    gradients, moves = training.by_block(run, PLACEMENTS, build, gradient_norms, layers, blocks)
    least = math.sqrt((1 + FFN_ADDS * layers) / (2 + FFN_ADDS))
    for name, rows in (("gradient", gradients), ("how far the logits move", moves)):
        what = f"{name}, first block ÷ last"
        falls = {n: [row[0] / row[-1] for row in rows[n]] for n in PLACEMENTS}
        because = "√(1 + cl), the stream's least growth: a heuristic, as later blocks add terms"
        run.check(f"Pre-LN: {what}", falls["Pre-LN"], at_least=least, because=because)
        judge_ratio(run, f"Pre-LN: {what}", falls["Pre-LN"])
        run.measure(f"Post-LN: {what}", falls["Post-LN"])
    ratios = [post[-1] / pre[-1] for post, pre in zip(*moves.values(), strict=True)]
    what = "how far the last block moves the logits, Post-LN ÷ Pre-LN"
    run.measure(what, ratios)
    judge_ratio(run, what, ratios)
    figures.show_blocks(run, gradients, moves, blocks)
    post, pre = (median(row[0] / row[-1] for row in gradients[name]) for name in PLACEMENTS)
    first = f"The first block gets {pre:.1f} times the gradient of the last in Pre-LN"
    return f"About {median(ratios):.1f} times as far. {first}, {post:.1f} times in Post-LN."


# %% [markdown]
# Our Pre-LN gradients fall. Unlike in Xiong et al., Post-LN's show no trend. Over 20 seeds of 32
# blocks the first one gets 0.2 to 6 times as much as the last, 0.9 times in the median.
#
# Two things can help Post-LN: a **lower rate**, which slows training, and **warm-up**, where the
# rate rises linearly before it falls. Later rates are 1/4 higher than without; the sum is the same.
#
# Why would large first steps harm? In Post-LN each norm divides the gradient by the size of the
# sum, and each branch adds to the gradient. In untrained stacks the two about balance: see the
# median above. Takase et al. 2022, *B2T Connection*, blame gradients that vanish. Liu et al.
# don't: Adam scales small gradients up, and fixing them alone did not stabilize training. So we
# test for a symptom, not for a cause. Block 1 is **weak** at a step if it gets less than a tenth of
# the last block's gradient. Hypothesis: smaller first steps make it rarer.
#
# The experiment trains six blocks on nine tenths of Shakespeare, character by character, and
# reports the loss on 8,192 characters of the last tenth. A **unigram** knows how frequent each
# character is, a **bigram** how frequent it is after the one before. We ask which rate a placement
# bears and tune none. LLM05b+ trains Pre-LN at 0.003, too: about 0.1 nats worse.


# %% Learning rate, placement, warm-up
@lab.experiment
def warm_up_helps_post_norm(run: Run):
    """At a rate of 0.003 warm-up lowers Post-LN's loss. Pre-LN at 0.01 without warm-up ends lower
    than Post-LN at 0.003 with it; a Post-LN stack at 0.01 learns only characters' frequencies.

    Predict: how much of the distance to Pre-LN at 0.01 does warm-up close: nothing, half, all?
    """
    post, warm = Arm("Post-LN", 0.003), Arm("Post-LN", 0.003, warm=True)
    low, high, pre = Arm("Post-LN", 0.001), Arm("Post-LN", 0.01), Arm("Pre-LN", 0.01)
    seeds = {post: 6, warm: 6, low: 1, high: 1, pre: 3}
    figures.show_schedules(run)
    outcomes = training.train_arms(run, seeds, build, gradient_norms)
    losses = {arm: [outcome.loss for outcome in outcomes[arm]] for arm in outcomes}
    unigram = training.show_losses(run, outcomes)
    below = unigram - losses[high][0]  # LLM05b+ takes three seeds
    near: dict[str, Any] = {"expect_between": (-0.1, 0.1), "because": "a bigram is 0.8 below"}
    held = run.measure("Post-LN at 0.01: below the unigram", below, **near, decides=True) == "held"
    warmer = difference(losses[post], losses[warm])  # of the seeds that both have
    slower = difference(losses[post], losses[low])
    ahead = difference(losses[warm], losses[pre])
    held &= judge(run, "Post-LN: gain by warm-up", warmer)
    held &= judge(run, "Pre-LN at 0.01 ahead of Post-LN at 0.003 with warm-up", ahead)
    run.measure("Post-LN: gain by a rate of 0.001", slower, unit="nats")
    figures.show_rates(run, losses, unigram, held)
    weak = training.show_weak(run, *(outcomes[arm] for arm in (post, warm, low)))
    figures.show_training(run, {arm: outcomes[arm] for arm in (post, warm, pre)}, unigram)
    gaps = difference(losses[post], losses[pre])
    closed = [mean(warmer[: len(gaps)]) / mean(gaps), slower[0] / gaps[0]]  # of the same seeds
    return f"Warm-up closes {closed[0]:.0%}, a rate of 0.001 {closed[1]:.0%} in one seed. {weak}"


# %% [markdown]
# ## 4. A broken layer
# A broken stack has the right shapes and often trains a little. But you can *ask* its layers. Here
# a layer means one attention branch with its residual connection and its norm, $(B, T, d)$ to
# $(B, T, d)$. Pass it $x$, $1000x$ and an $x$ with another last token, and compare the outputs. A
# sound Pre-LN layer returns $x + f(\text{norm}(x))$. The norm removes the factor 1000, so the layer
# *adds* the same for $x$ and $1000x$. Which comparison finds each of the faults below?


# %% Faults
FAULTS = {
    "sound": "x + f(norm(x)); a token sees itself and earlier tokens",
    "no norm": "x + f(x)",
    "norm on the sum": "norm(x + f(x)): Post-LN where Pre-LN was meant",
    "no residual": "f(norm(x))",
    "dead branch": "x + 0: for example, the last matrix was never loaded and is zero",
    "looks ahead": "the mask is reversed: a token sees itself and later tokens",
}


@lab.exercise(
    level=3,
    hints=(
        "Replace the last token of x: in a sound layer no earlier output changes.",
        "Compare layer(1000 x) − 1000 x with layer(x) − x. For which faults are they equal?",
        "Two faults return an output that doesn't grow with x. What is its size for each?",
    ),
)
def diagnose(layer: Callable[[Tensor], Tensor], x: Tensor) -> str:
    """Return the fault of a layer, a key of FAULTS, from its outputs alone.

    `x`, (B, T, d) in float64, has size 1 or more. You may pass the layer other tensors, too.
    """
    close = partial(torch.allclose, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        output = layer(x)
        loud = layer(1000 * x)
        other = layer(torch.cat((x[:, :-1], -x[:, -1:]), 1))  # another last token
    if not close(other[:, :-1], output[:, :-1]):
        return "looks ahead"
    if close(output, x):
        return "dead branch"
    if close(loud - 1000 * x, output - x):
        return "sound"
    if close(output.square().mean(-1), torch.ones_like(x[..., 0])):
        return "norm on the sum"
    return "no residual" if close(loud, output) else "no norm"


@lab.experiment
def a_layer_can_be_asked(run: Run):
    """Each of five faults of a stack's last layer can be found and named from outputs alone.

    Predict: which two faults of the last layer leave a stream of size about 1 or less?
    """
    rows = []
    for fault in FAULTS:
        torch.manual_seed(run.seed)  # the same weights for each fault
        x = torch.randn(4, 16, 32, dtype=DOUBLE)
        names = []
        for name in (*["sound"] * 7, fault):
            layer = planted(name, 32)  # a layer with this fault
            names.append(diagnose(layer, x))  # asked with the stream that reaches it
            x = layer(x)
        rows.append([fault, names[-1], names[:-1].count("sound"), x.square().mean().sqrt().item()])
    run.table("Broken last layers", ["fault", "diagnosis", "7 others called sound", "size"], rows)
    right = sum(row[0] == row[1] for row in rows) + rows[0][2]  # all stacks share the seven
    run.check("right diagnoses of 6 + 7 layers", right, equals=len(FAULTS) + 7, decides=True)
    small = " and ".join(row[0] for row in rows if row[-1] < 1.2)
    return f"These: {small}. The sound stack has {rows[0][-1]:.1f}."


# %% [markdown]
# ## 5. Two RMSNorms, and what is stored
# A layer can also be wrong because its weights come from another model. **RMSNorm** divides a
# token's numbers by their root mean square, which gives $\hat x$, and multiplies by a learned gain
# $\gamma$ (LLM05a). Llama and Gemma differ in two details. They show in **bfloat16**, which stores
# a number to 8 significant bits. Rounding to it changes a number by at most $2^{-8}$, or 0.4 %.
#
# - **Casts.** Both compute $\hat x$ in float32. Llama rounds it to bfloat16, multiplies by $\gamma$
#   and rounds again: two errors. Gemma, like `rms_norm`, multiplies in float32 and rounds once.
# - **What is stored.** Llama stores $\gamma$, which starts at 1. Gemma stores $g = \gamma - 1$,
#   which starts at 0. Gemma's $g$ in Llama's norm multiplies by $\gamma - 1$ and raises no error.
#
# Just above 1 the numbers of bfloat16 are $2^{-7} = 0.0078$ apart, so a gain of 1.003 becomes 1. A
# $g$ of 0.003 is stored to within 0.4 % of itself. Weights stored in float32 lose neither.


# %% Llama's norm and Gemma's
def llama_norm(x: Tensor, gain: Tensor) -> Tensor:
    """Return RMSNorm, rounded before and after the gain, (..., d), (d,) -> (..., d)."""
    return rms_norm(x, torch.ones_like(gain)) * gain


@lab.exercise(
    level=1,
    hints=(
        "Look at `llama_norm`. Where is its first rounding, and can it be left out?",
        "In bfloat16 1 + 0.003 is 1: add in float32. LLM05a's `wide` returns float32 at least.",
        "rms_norm(x, gain) computes in float32 and rounds its result once, to x's dtype.",
    ),
)
def gemma_norm(x: Tensor, g: Tensor) -> Tensor:
    """Return RMSNorm with the gain 1 + g, rounded once, (..., d), (d,) -> (..., d)."""
    return rms_norm(x, 1 + wide(g))


@lab.experiment
def gemma_rounds_once_and_stores_small_changes(run: Run):
    """In bfloat16, Gemma's norm rounds once and Llama's twice. Small steps don't move a stored gain
    of 1, and they move a stored g of 0.

    Predict: a gain in bfloat16 starts at 1 and is raised by 0.001 a hundred times. Where is it?
    """
    x = torch.randn(256, 1024).bfloat16()
    gain = (1 + torch.randn(1024) / 4).bfloat16()
    g = (gain.float() - 1).bfloat16()
    llama = training.largest_error(llama_norm(x, gain), rms_norm(x.double(), gain.double()))
    gemma = training.largest_error(gemma_norm(x, g), rms_norm(x.double(), 1 + g.double()))
    rounding = 2**-8 / (1 + 2**-8) * (1 + 1e-4)
    because = "half a unit in the last place, for a number just above a power of two"
    run.check("Gemma's: largest error", gemma, at_most=rounding, because=because, decides=True)
    because = "one rounding to two: of 262,144 numbers some are rounded twice the same way"
    bounds = {"at_least": rounding, "at_most": (1 + rounding) ** 2 - 1}
    run.check("Llama's: largest error", llama, **bounds, because=because, decides=True)
    stored = torch.tensor([1.0, 0.0]).bfloat16()  # γ and g
    for _ in range(100):
        stored = stored + 0.001
    run.check("γ = 1 after 100 steps of 0.001", stored[0].item(), equals=1.0, decides=True)
    because = "0.1; each sum is rounded by at most 2⁻⁸ of itself, 100 · 2⁻⁸ · 0.05 in all"
    error = stored[1].item() - 0.1
    run.check("g after 100 steps − 0.1", abs(error), at_most=0.02, because=because, decides=True)
    return f"γ is still {stored[0].item():g}; g is {stored[1].item():.3g}."


# %% [markdown]
# ## 6. RoPE: positions as rotations
# Positions can enter at three points. The code calls them `embed`, `turn` and `bias`. LLM05a adds
# **sinusoids** or a **learned table** to the stream (`embed`). Then $q$ comes from $x_t + p_t$ and
# $k$ from $x_s + p_s$, so $q \cdot k$ has four parts: content with content, content with position,
# position with content, and position with position. Move both tokens equally far: only the first
# part is sure to stay the same. **RoPE** (Su et al. 2021) acts on queries and keys (`turn`). It
# takes neighbours $(a, b)$ of $q$ as a point and turns it by an angle that grows with position $t$:
#
# $$a' = a\cos(\omega_i t) - b\sin(\omega_i t), \quad b' = a\sin(\omega_i t) + b\cos(\omega_i t)$$
#
# Pair $i$ has the frequency $\omega_i = \theta^{-2i/D}$ for $i = 0, \ldots, D/2 - 1$, with the
# **base** $\theta = 10000$. Keys are rotated in the same way, values are not. Rotate $q$ by
# $\omega t$ and $k$ by $\omega s$: the angle between them changes by $\omega(t - s)$. A dot product
# depends only on lengths and on the angle between. So for given $q$ and $k$ each pair's part of
# $q \cdot k$ depends on the **offset** $t - s$ alone, and so does their sum. Take $q = k = (1, 0)$
# and $\omega = 1$. At 3 and 5, as at 103 and 105, $q \cdot k$ is $\cos 2 = -0.416$. If $q = k$ and
# all of many pairs are equally long, $q \cdot k$ falls with distance, apart from waves. For any $q$
# and $k$ an upper bound falls: see section 3.4.3 of Su et al.


# %% RoPE
def angles(positions: Tensor, head_dim: int, base: float = 10_000.0) -> Tensor:
    """Return each pair's angle in radians, positions (..., T) -> (..., T, D/2) in float64."""
    exponents = -torch.arange(0, head_dim, 2, dtype=DOUBLE) / head_dim  # (D/2,)
    return positions.to(DOUBLE)[..., None] * base**exponents


@lab.exercise(
    level=2,
    hints=(
        "x[..., ::2] has the a of all pairs, x[..., 1::2] the b: (..., T, D/2), like the angles.",
        "Compute a cos − b sin and a sin + b cos from wide(x), which is float32 at least.",
        "Make the two neighbours again: stack them on a new last axis, then flatten it.",
    ),
)
def rope(x: Tensor, angle: Tensor) -> Tensor:
    """Rotate entries 2i and 2i + 1 by angle i, (..., T, D), (..., T, D/2) -> (..., T, D).

    It computes in float32 at least (LLM05a's `wide`) and returns x's dtype.
    """
    a, b = wide(x).unflatten(-1, (-1, 2)).unbind(-1)  # (..., T, D/2) each
    cos = angle.cos().to(a.dtype)
    sin = angle.sin().to(a.dtype)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


class Rotary(Position):
    """Rotate queries and keys by position."""

    def turn(self, x: Tensor) -> Tensor:
        """Rotate queries or keys, (B, H, T, D) -> (B, H, T, D)."""
        angle = angles(torch.arange(x.shape[-2]), x.shape[-1])  # (T, D/2)
        return rope(x, angle.to(x.device))


@lab.experiment
def rope_scores_by_distance(run: Run):
    """With RoPE the score of two given tokens depends on their distance alone; with sinusoids in
    the stream of an untrained model it depends on the place, too.

    Predict: q = k = (1, 0) and ω = 1. At positions 3 and 5, q · k is −0.416. And at 5 and 3?
    """
    figures.show_places(run)
    view_data.show_rotation(run)
    scores = [training.pair_scores(run, p) for p in (Rotary(), Sinusoid(128, 64))]
    spread = [training.spread_at_distances(each) for each in scores]
    what = "spread over places at one distance"
    because = "float32 rounding of scores of size 1"
    run.check(f"RoPE: {what}", spread[0], at_most=1e-4, because=because, decides=True)
    because = "control: terms of size 1 in positions"
    run.check(f"sinusoids: {what}", spread[1], at_least=0.1, because=because, decides=True)
    training.show_decay(run, angles)
    return f"cos(−2) = {math.cos(-2):.3f}, too. Where q and k differ, the sign counts."


# %% [markdown]
# **Two layouts.** Which entries form a pair? The paper and Meta's Llama rotate **neighbours**,
# entries $2i$ and $2i + 1$. GPT-NeoX and Hugging Face's Llama rotate **halves**, entries $i$ and
# $i + D/2$. Trained $W_q$ and $W_k$ belong to one layout. Loaded into the other, they raise no
# error and produce nonsense. To convert, reorder the *rows* of $W_q$ and $W_k$, because each row
# makes one entry of $q$ or $k$. Convert each head separately: first its even rows, then its odd
# rows. For $D = 4$ the order is 0, 2, 1, 3. A dot product does not depend on the order of the
# entries, as long as $q$ and $k$ have the same. $W_v$ and $W_o$ stay as they are.


# %% Layouts
@lab.exercise(
    level=2,
    hints=(
        "Convert each head separately: unflatten the first axis to (H, D/2, 2).",
        "The 2 are the neighbours. In halves, the axis of 2 comes before the axis of D/2.",
        "transpose(1, 2), then flatten the first three axes to one.",
    ),
)
def to_halves(rows: Tensor, head_dim: int) -> Tensor:
    """Reorder rows from neighbours to halves in each head, (H·D, ...) -> (H·D, ...)."""
    pairs = rows.unflatten(0, (-1, head_dim // 2, 2))  # (H, D/2, 2, ...)
    return pairs.transpose(1, 2).flatten(0, 2)


@lab.experiment
def layouts_convert(run: Run):
    """Rows of W_q and W_k that are reordered head by head give Hugging Face's Llama the scores of
    the paper's layout; unchanged rows, or rows reordered across heads, give others.

    Predict: a head has 16 entries. How many of its rows stay where they are?
    """
    figures.show_layouts(run, to_halves)
    x = torch.randn(2, 40, 64, dtype=DOUBLE)  # (B, T, d): four heads of 16
    weights = torch.randn(2, 64, 64, dtype=DOUBLE) / 8  # W_q and W_k
    angle = angles(torch.arange(40), 16)  # (T, D/2)
    q, k = (rope(split_heads(x @ w.mT, 4), angle) for w in weights)  # (B, H, T, D)
    ours = q @ k.mT / 4
    reordered, across = ([to_halves(w, width) for w in weights] for width in (16, 64))
    error = ours - training.llama_scores(x, reordered, angle)
    run.agree("scores: ours − theirs, rows reordered", error, 1e-10, decides=True)
    because = "control: scores have size 1"
    for what, ported in (("rows unchanged", weights), ("reordered across heads", across)):
        largest = (ours - training.llama_scores(x, ported, angle)).abs().max()
        run.check(what, largest, at_least=0.1, because=because, decides=True)
    stay = int((to_halves(torch.arange(16), 16) == torch.arange(16)).sum())
    return f"Of a head's 16 rows {stay} stay: the first and the last."


# %% [markdown]
# ## 7. ALiBi, and no positions at all
# **ALiBi** (Press et al. 2021) rotates nothing and adds nothing to the stream. It subtracts from
# each score the distance times a **slope** $m$: the score is $q \cdot k / \sqrt D - m(t - s)$. In
# the softmax a token at distance $n$ then counts $e^{-mn}$ times as much as without this. If $H$ is
# a power of 2, the fixed slopes are $2^{-8i/H}$ for $i = 1, \ldots, H$: for 8 heads 1/2, 1/4, …
# 1/256. **NoPE** has no positions: in block 1 two given tokens have the same score everywhere.
# Haviv et al. 2022 find such models competitive: the mask may reveal how many tokens came before.


# %% ALiBi
class Alibi(Position):
    """Subtract slope · distance from the scores."""

    @lab.exercise(
        level=2,
        hints=(
            "The slopes are 2 ** (−8 i / H) for i = 1 … H: one for each head, (H, 1, 1).",
            "The distance t − s is a table (T, T) of query position t minus key position s.",
            "Minus the slope times the distance: the bias of an earlier key is negative.",
        ),
    )
    def bias(self, heads: int, length: int) -> Tensor:
        """Return −m(t − s), (H, T, T) over (query, key), in float64; H is a power of 2."""
        slopes = 2 ** (-8 * torch.arange(1, heads + 1, dtype=DOUBLE) / heads)
        positions = torch.arange(length)
        return -slopes[:, None, None] * (positions[:, None] - positions)


ENCODINGS: dict[str, Callable[[int, int], Position]] = {  # of a length and a width
    "NoPE": lambda *_: Position(),
    "learned": Learned,
    "sinusoids": Sinusoid,
    "RoPE": lambda *_: Rotary(),
    "ALiBi": lambda *_: Alibi(),
}


@lab.experiment
def alibi_heads_reach_twice_as_far_each(run: Run):
    """Where all keys match equally well, half of an ALiBi head's weight lies on the nearest
    ln 2 / m tokens; from each of eight heads to the next, that is twice as many.

    Predict: on how many tokens does half of the weight of the widest of eight heads lie?
    """
    weights = Alibi().bias(8, 2048)[:, -1].softmax(-1)  # of the last query, (H, T)
    nearest = weights.flip(-1).cumsum(-1)  # of the nearest tokens together, (H, T)
    counts = ((nearest < 0.5).sum(-1) + 1).tolist()
    above = [count - math.log(2) * 2**h for h, count in enumerate(counts, start=1)]
    because = "a sum of weights e⁻ᵐⁿ reaches 1/2 of the total at ln 2 / m, rounded up"
    what = "tokens with half of the weight, minus ln 2 / m"
    run.check(what, above, at_least=0, at_most=1, because=because, decides=True)
    scores = {n: training.pair_scores(run, make(128, 64)) for n, make in ENCODINGS.items()}
    figures.show_distances(run, scores)
    return f"On {counts[-1]}. In the heads before it, on {', '.join(map(str, counts[:-1]))}."


# %% [markdown]
# ## 8. Length extrapolation: longer than in training
# Train on windows of $T = 64$ characters and read $8T = 512$. Some passages are harder, so take the
# *same* last 32 characters twice: at the end of all 512, and after a **cut** to the last 64.
#
# | term | meaning |
# |---|---|
# | **cost of length** | their loss in all 512 minus that after the cut: above 0, a cut helps |
# | RoPE's **advantage** | NoPE's loss minus RoPE's after the cut: what positions are worth |
# | a model **extrapolates** | cost < a tenth of this advantage; after the cut it beats the bigram |
#
# What should happen? ALiBi's steep heads give far tokens almost no weight. But where all keys match
# equally well, the flattest head, with $m = 2^{-8}$ for any $H$, spreads half of its weight over
# 145 of 512 tokens, more than $T$. Press et al. 2021 report that ALiBi extrapolates, and that
# sinusoids and RoPE don't. RoPE's fast pairs have turned fully in training, but its slow pairs meet
# new angles. The learned table's rows after $T$ are untrained.
#
# At `tiny` all five learn at a rate of 0.02, which a search with one seed chose; `--tune` searches
# again. Two Pre-LN blocks and 160 steps at `tiny` show how fast an encoding is learned, not how
# good it gets. Intervals cover seeds, not passages: all read the same 32 windows.


# %% Longer than in training
@cache
def trained(run: Run, name: str, seed: int, lr: float | None = None) -> Stack:
    """Return a Pre-LN stack with this encoding, trained at `lr`, or at its best rate."""
    sizes = training.long_sizes(run)
    position = ENCODINGS[name](LONG * sizes.length, sizes.d)
    model = build("Pre-LN", sizes.layers, sizes.d, seed, position)
    return training.train_long(run, model, lr or training.best_rate(run, name, trained), seed)


@lab.experiment
def alibi_extrapolates_and_rope_does_not(run: Run):
    """At eight times the trained length, small models with ALiBi lose less than a tenth of RoPE's
    advantage over NoPE and beat a bigram; with RoPE they lose more than this advantage.

    Predict: and a model without any positions?
    """
    read = training.read_all(run, ENCODINGS, trained)
    leads = training.show_reading(run, read)  # over the bigram at T, by encoding and seed
    ahead = difference(read["NoPE"].short, read["RoPE"].short)
    spare = difference([nats / 10 for nats in ahead], read["ALiBi"].cost)
    excess = [nats - max(ahead) for nats in read["RoPE"].cost]
    held = judge(run, "a tenth of RoPE's advantage − ALiBi's cost", spare)
    held &= judge(run, "bigram − ALiBi at T", leads["ALiBi"])
    held &= judge(run, "RoPE's cost − its largest advantage", excess)
    base = training.bigram_by_place(training.long_windows(run))
    figures.show_lengths(run, read, training.long_sizes(run).length, base, held)
    view_data.show_lengths(run, read, training.long_sizes(run).length, base)
    idle = ", ".join(name for name in leads if mean(leads[name]) <= 0) or "none"
    lost = f"NoPE loses {mean(read['NoPE'].cost):.2f} nats"
    return f"{lost}. No better than a bigram at T: {idle}. The costs of such models say little."


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Sum up this run's trainings."""
    warm = partial(results.shown, "warm_up_helps_post_norm")
    length = partial(results.shown, "alibi_extrapolates_and_rope_does_not")
    return f"""## In this run
Medians, with the range over the seeds, in nats: warm-up lowers the loss of Post-LN by
{warm("Post-LN: gain by warm-up")}. Eight times the length costs ALiBi
{length("ALiBi: cost of length")}, NoPE {length("NoPE: cost of length")} and RoPE
{length("RoPE: cost of length")}. With a cut ALiBi − RoPE is {length("ALiBi − RoPE at T")}.
"""


# %% [markdown]
# ## What to remember
# - In untrained stacks Pre-LN lets the stream grow, and its late blocks get less gradient. In
#   Post-LN the stream keeps its size, and its last block's gradient does not shrink with depth.
# - Adam divides by the gradient's size, so ask how far a step moves the output. In 32 untrained
#   blocks, a random step of the last one moves it 4 to 6 times as far in Post-LN as in Pre-LN.
# - In training, Post-LN's block 1 can lose its gradient; we don't show that this does the harm.
#   At a rate of 0.003 warm-up lowers Post-LN's loss by 0 to 0.4 nats, on average 0.2; at 0.01 not
#   at all (LLM05b+). Pre-LN trains without it. In 240 steps neither placement beats a bigram.
# - Weights made for another norm or layout raise no error. Test a layer with chosen inputs.
# - Without a cut, a text of 8 times the trained length costs our ALiBi models under 0.01 nats. It
#   doesn't help them either; Press et al. (appendix B.2) suspect the same of theirs. RoPE loses 0.5
#   to 1.2 nats, in LLM05b+ less with YaRN. With a cut RoPE is ahead of ALiBi, by 0.01 to 0.07 nats
#   in each of the nine seeds that we tried.
#
# **Read on**: Xiong et al. 2020, *On Layer Normalization in the Transformer Architecture* · Liu et
# al. 2020, *Understanding the Difficulty of Training Transformers* · Shleifer et al. 2021,
# *NormFormer* · Su et al. 2021, *RoFormer* · Press et al. 2021, *Train Short, Test Long*.

# %%
if __name__ == "__main__":
    lab.main()
