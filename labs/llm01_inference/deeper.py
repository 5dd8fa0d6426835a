# %% [markdown]
# # LLM01+ · Inference, deeper
# Tests of the sampler, fast decoding and what it costs, search, and how good a model is.
#
# **You will be able to** write the loop that decodes with a cache, stop a text at a string, and
# round weights to few bits. You will see how a sampler is tested, what limits the speed of
# decoding, how to search for probable texts, how models with different tokenizers are compared, and
# what fewer bits cost. **Builds on** LLM01, whose functions it imports, and on derivatives in
# section 2 and in section 10 from "What should it cost?" on. You may skip both, and still write all
# functions. **Takes** 50 minutes to read, 90 with exercises.
#
# **A map.** Sections 1 and 2 look closer at the sampler, 3 to 5 at the speed of decoding, 6 to 8 at
# the text, 9 and 10 at quality. Section 4 uses section 3; 5, 6 and 7 use 4; 10 uses 9. You write
# functions in sections 4, 8 and 10. To write `left_pad` and `strided_loss` yourself, cover our code
# and replace it on the sheet. Test yours with the text's examples; the experiments then call it.

# %% Imports
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

from labs.kit import Lab, Results, Run, assets, seconds_paired
from labs.llm01_inference import deeper_figures, diversity, options, steps, stops
from labs.llm01_inference.baselines import losses_by_counting
from labs.llm01_inference.figures import show
from labs.llm01_inference.lesson import SURE, UNSURE, generate, load, logits_of, sample, smollm2
from labs.llm01_inference.model_files import called
from labs.llm01_inference.rounding import TEXTS, compare_exponents, costs_of_rounding
from labs.llm01_inference.search import Change
from labs.llm01_inference.uncertainty import mean_and_error, rounding, unlike
from labs.llm01_inference.view_data import CARROLL

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

lab = Lab("LLM01+")
lab.before_run(assets.check_model)

# %% [markdown]
# Beside SmolLM2, this part uses a *glass model*, small enough to look through: 0.85 million
# parameters in 4 layers, a vocabulary of 1,024 tokens, trained on Lewis Carroll.
#
# ## 1. Is the sampler right?
# The lesson compared the shares of the five likeliest tokens. **Pearson's $\chi^2$** (1900)
# compares many at once. In $n$ draws, token $i$ is expected $n p_i$ times and came $c_i$ times:
#
# $$\chi^2 = \sum_i \frac{(c_i - n p_i)^2}{n p_i}$$
#
# With 100 draws from 0.67, 0.24 and 0.09, the counts 60, 30 and 10 make
# $49/67 + 36/24 + 1/9 = 2.34$. Is that a lot? For a right sampler the sum approximately follows the
# **$\chi^2$ distribution** if no expected count is small. So we put all tokens with an expected
# count below five together, and treat them as one token. The test can't notice a mistake among
# these rare tokens. The distribution has one parameter, the *degrees of freedom*: the number of
# counts minus one, because the last follows from the others.
#
# The **p-value** is the probability that a right sampler has a sum at least as large. For two
# degrees of freedom it is $e^{-2.34/2} = 0.31$, in general an integral,
# `torch.special.gammaincc(freedom / 2, sum / 2)`. With a right sampler it is below 0.001 about once
# in 1,000 trials. So we make two trials and take the larger p-value. Both are below 0.001 about
# once in a million runs, or a little more often, because the distribution is approximate.


# %% 1. Is the sampler right?
def glass(run: Run, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Return the glass model and its tokenizer."""
    return load(str(assets.glass()), run.device, dtype)


def chi_squared(counts: Tensor, expected: Tensor) -> tuple[float, int]:
    """Return χ² and its degrees of freedom, (V,) and (V,); rare tokens count as one."""
    often = expected >= 5
    if not often.all():
        counts = torch.cat((counts[often], counts[~often].sum()[None]))
        expected = torch.cat((expected[often], expected[~often].sum()[None]))
    return ((counts - expected) ** 2 / expected).sum().item(), len(counts) - 1


def p_value(statistic: float, freedom: int) -> float:
    """Return the probability that a right sampler has a χ² at least as large."""
    half_freedom, half_sum = torch.tensor([freedom, statistic], dtype=torch.float64) / 2
    return torch.special.gammaincc(half_freedom, half_sum).item()


@lab.experiment
def the_sampler_passes_a_chi_squared_test(run: Run):
    """A χ² test doesn't reject our sampler, and rejects one that exchanges two tokens.

    Predict: in 20,000 draws, is the p-value after the exchange just below 0.001, or far below?
    """
    model, tokenizer = smollm2(run)
    logits = logits_of(model, tokenizer(UNSURE).input_ids)[-1].double().cpu()  # (V,)
    n = 20_000
    p = logits.softmax(-1)

    def smaller_sum(used: Tensor) -> tuple[float, int]:
        """Return the smaller χ² of two trials with these logits, and its degrees of freedom."""
        trials = [sample(used, times=n).bincount(minlength=len(p)) for _ in range(2)]
        return min(chi_squared(counts.double(), n * p) for counts in trials)

    right, freedom = smaller_sum(logits)
    p_right = p_value(right, freedom)
    because = "a right sampler fails about once in a million runs"
    run.check("larger p-value", p_right, at_least=1e-3, because=because, decides=True)
    two = logits.topk(30).indices[[5, 29]]
    exchanged = logits.clone()
    exchanged[two] = logits[two.flip(0)]
    wrong, _ = smaller_sum(exchanged)
    p_wrong = p_value(wrong, freedom)
    because = "control: the tokens of rank 6 and 30, which the lesson's test doesn't look at"
    what = "larger p-value, two tokens exchanged"
    run.check(what, p_wrong, at_most=1e-3, because=because, decides=True)
    rare = p[n * p < 5]
    return (
        f"χ² is {right:.0f}, with {freedom} degrees of freedom; after the exchange {wrong:,.0f}, "
        "whose p-value may be too small for float64. "
        f"The {len(rare):,} rare tokens together have {rare.sum():.0%} of the probability."
    )


# %% [markdown]
# ## 2. Why entropy rises with temperature
# The entropy $H = -\sum_i p_i \ln p_i$ measures how spread out a distribution is. Its unit is the
# **nat**; a bit is 0.69 nats. How fast does it grow with the temperature $T$?
#
# Let $\beta = 1/T$ and $Z = \sum_i e^{\beta l_i}$, so $p_i = e^{\beta l_i}/Z$. Let $E$ and
# $\text{Var}$ be the mean and the variance of the logits under this $p$.
#
# - $\ln p_i = \beta l_i - \ln Z$, so $H = \ln Z - \beta E$.
# - The derivative of $e^{\beta l_i}$ is $l_i e^{\beta l_i}$, so $d\ln Z/d\beta = E$.
# - By the quotient rule on $E = \sum_i l_i e^{\beta l_i}/Z$,
#   $dE/d\beta = \sum_i l_i^2 p_i - E^2 = \text{Var}$.
# - By the product rule on $\beta E$, $dH/d\beta = E - E - \beta\,\text{Var} = -\beta\,\text{Var}$.
# - With $d\beta/dT = -1/T^2$ this becomes
#
# $$\frac{dH}{dT} = \frac{\text{Var}}{T^3} \ge 0$$
#
# The variance is that of the distribution at temperature $T$, not at 1. At $T = 1$ a wrong variance
# or exponent wouldn't show, so the experiment tests the formula at 0.5 and 2 as well.


# %% 2. Entropy and temperature
def entropy(logits: Tensor, t: Tensor) -> Tensor:
    """Return the entropy in nats at each temperature, (V,), (n,) -> (n,)."""
    logp = (logits / t[:, None]).log_softmax(-1)  # (n, V)
    return -(logp.exp() * logp).sum(-1)


def variance(logits: Tensor, t: float) -> Tensor:
    """Return the variance of the logits (V,) under the distribution at temperature t."""
    p = (logits / t).softmax(-1)
    return (p * (logits - (p * logits).sum()) ** 2).sum()


@lab.experiment
def entropy_rises_by_the_variance_over_t_cubed(run: Run):
    """The slope of the entropy over temperature is Var/T³, at T = 0.5, 1 and 2.

    Predict: is the slope at T = 2 larger or smaller than at T = 1?
    """
    model, tokenizer = smollm2(run)
    h = 1e-4
    curves = {}
    slopes: list[list[Any]] = []
    tangents = []
    for text in (SURE, "The capital of France is", UNSURE):
        logits = logits_of(model, tokenizer(text).input_ids)[-1].double().cpu()
        for t in (0.5, 1.0, 2.0):
            near = entropy(logits, torch.tensor([t - h, t + h], dtype=torch.float64))
            measured = (near[1] - near[0]).item() / (2 * h)
            formula, wrong = (variance(logits, at).item() / t**3 for at in (t, 1.0))
            slopes.append([text, t, measured, formula, wrong])
            tangents.append((t, near.mean().item(), formula))
        grid = torch.linspace(0.1, 4, 79, dtype=torch.float64)
        curves[text] = (grid.tolist(), entropy(logits, grid).tolist())
    columns = ["text", "T", "measured slope", "Var/T³", "with Var at T = 1"]
    run.table("Nats per unit of temperature", columns, [[repr(a), *rest] for a, *rest in slopes])
    because = "a central difference is off by about (h/T)² ≤ 4e-8, times a third derivative"
    ratios = torch.tensor([measured / formula - 1 for _, _, measured, formula, _ in slopes])
    run.agree("measured slope ÷ (Var/T³) − 1", ratios, 1e-5, because, decides=True)
    wrong = [abs(measured / other - 1) for _, t, measured, _, other in slopes if t != 1]
    because = "control: the variance at T = 1 must be rejected; 100 times the tolerance"
    run.check("error with the variance at T = 1", min(wrong), at_least=1e-3, because=because)
    show(run, "entropy", deeper_figures.entropies(curves, tangents, math.log(len(logits))))
    at_one, at_two = (slope[2] for slope in slopes[-2:])
    return f"After {UNSURE!r} the slope is {at_one:.3g} at T = 1 and {at_two:.3g} at T = 2."


# %% [markdown]
# ## 3. Many prompts at once
# A model takes a **batch** of $B$ texts of the same length. Prompts have different lengths, so
# short ones are filled up with **padding**. For generation the padding goes to the *left*, because
# the next token follows the last position. Two inputs keep the padding from changing the result:
#
# - the **attention mask** is 1 for text and 0 for padding. The model ignores positions with 0.
# - the **position ids** are 0 for the first token of a text, wherever it stands in the row.
#
# `left_pad` returns ids, mask and position ids. For prompts of 3 and 5 tokens, the mask's first row
# is 0, 0, 1, 1, 1. Its positions are 0, 0, 0, 1, 2: the mask's sum so far, minus 1, at least 0.
#
# SmolLM2 uses *relative* positions (RoPE, Su et al. 2021): only the distance of two tokens matters.
# Padding shifts both tokens, so their distance stays, and the mask is enough. GPT-2 learned a
# vector for each *absolute* position and needs both inputs. We test a small GPT-2 with the random
# weights with which training starts.


# %% 3. Many prompts at once
def left_pad(prompts: list[list[int]], pad: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, mask (1 for text) and positions of prompts of any lengths, (B, T) int64 each."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])  # (B, T)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])  # (B, T)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)  # (B, T)
    return ids, mask, positions


@lab.experiment
@torch.no_grad()
def padding_must_change_no_logit(run: Run):
    """Left-padded, SmolLM2 needs the mask to keep its logits; a random GPT-2 also needs positions.

    Predict: without the mask, do the right position ids alone keep the logits of either model?
    """
    model, tokenizer = smollm2(run)
    texts = [tokenizer(text).input_ids for text in (SURE, UNSURE, CARROLL[:90])]
    numbers = [[7, 8, 9], [1, 2, 3, 4, 5], list(range(20, 36))]
    rope = f"RoPE: {called(run)}"
    absolute = "absolute positions: a random GPT-2"
    rows = []
    for name, net, batch, enough in (
        (rope, model, texts, 2),
        (absolute, steps.random_gpt2(run.device), numbers, 1),
    ):
        alone = torch.stack([logits_of(net, ids)[-1] for ids in batch])  # (B, V)
        ids, mask, positions = (x.to(run.device) for x in left_pad(batch))
        errors = []
        for given in ((mask, positions), (mask, None), (None, positions), (None, None)):
            out = net(ids, attention_mask=given[0], position_ids=given[1])
            errors.append((out.logits[:, -1] - alone).abs().max().item())
        rows.append([name, *errors])
        bound = rounding(alone) if name == rope else 1e-10
        what = f"{name}, with what it needs"
        because = "rounding, of float32 in SmolLM2 and of float64 in GPT-2"
        run.check(what, errors[:enough], at_most=bound, because=because, decides=True)
        what = f"{name}, with less"
        because = "control: a needed input is missing; a third of the spread of GPT-2's logits"
        run.check(what, errors[enough:], at_least=0.05, because=because, decides=True)
    columns = ["", "mask and positions", "mask only", "positions only", "neither"]
    run.table("Largest change of a logit, in a batch − alone", columns, rows)
    _, mask, positions = left_pad([[1] * 3, [1] * 5])
    show(run, "padding", deeper_figures.padding(mask.tolist(), positions.tolist()))
    return (
        f"Without the mask, the right position ids alone change a logit of {called(run)} by "
        f"{rows[0][3]:.2g} and one of a random GPT-2 by {rows[1][3]:.2g}: both need the mask. With "
        f"the mask only, they change by {rows[0][2]:.1g} and {rows[1][2]:.2g}."
    )


# %% [markdown]
# ## 4. The cache
# The lesson's loop calls the model on the entire text for each new token. But a position sees only
# the text up to it, so the model computes the same numbers again. From earlier positions, a layer
# needs only a few vectors: a **key** and a **value** for each of its *key-value heads* (LLM06). In
# SmolLM2 each layer has three such heads. The **KV cache** stores these vectors.
#
# Generation then has two phases. **Prefill** is one call on the prompt. **Decoding** is one call
# for each new token, which computes one position. $T$ tokens of one text take this many bytes:
#
# $$2 \cdot L \cdot H_\text{kv} \cdot D \cdot T \cdot \text{bytes per number}$$
#
# with $L$ layers, $H_\text{kv}$ key-value heads in each, and $D$ numbers in a key or value. SmolLM2
# has $2 \cdot 30 \cdot 3 \cdot 64 = 11{,}520$ numbers for each token, 46 kB in float32.
#
# Without rounding, the tokens would be the same as without a cache. But a processor may sum in
# another order for one position than for many, and so round differently. Where two tokens are
# nearly equally probable, this decides. If the order differs, bfloat16 changes more than float32:
# it has 8 significant bits, float32 has 24. If the order is the same, nothing changes in either.
# Which is it on your processor?
#
# You write the loop for one prompt. `DynamicCache(config=model.config)` is an empty cache.
# `model(ids, cache=cache, use_cache=True)` computes the positions of `ids`, (1, T), after those in
# the cache, and adds their keys and values to it. Older versions of `transformers` call this
# argument `past_key_values`. `generate_batch` is the complete generator. It starts from the padded
# prompts of `left_pad`. Each step calls the model on the tokens that the cache doesn't have yet,
# lets functions such as the penalty change the logits, and appends a token to each text.


# %% 4. The cache
@lab.exercise(
    level=2,
    hints=(
        "Which tokens does the cache not have yet, at the first call and at every later one?",
        "The first call gets the prompt. Each later one gets the id that was chosen last, (1, 1).",
        "Make ids by torch.tensor([fresh], device=model.device). .logits[0, -1] has the scores.",
    ),
)
@torch.no_grad()
def generate_cached(model: Any, prompt: list[int], new: int) -> list[int]:
    """Return `new` greedy ids after the prompt; no call computes a position again."""
    cache = DynamicCache(config=model.config)
    fresh = prompt  # what the cache doesn't have yet
    written = []
    for _ in range(new):
        ids = torch.tensor([fresh], device=model.device)  # (1, T)
        logits = model(ids, cache=cache, use_cache=True).logits[0, -1]  # (V,)
        fresh = [int(logits.argmax())]
        written += fresh
    return written


def likeliest(logits: Tensor) -> Tensor:
    return logits.argmax(-1)


@torch.no_grad()
def generate_batch(
    model: Any,
    prompts: list[list[int]],
    new: int,
    change: Sequence[Change] = (),
    choose: Callable[[Tensor], Tensor] = likeliest,
    end: Collection[int] = (),
) -> list[list[int]]:
    """Return up to `new` ids after each prompt, an end token the last; with a cache."""
    ids, mask, positions = (x.to(model.device) for x in left_pad(prompts))  # (B, T) each
    width = ids.shape[1]
    cache = DynamicCache(config=model.config)
    fresh = ids  # what the cache doesn't have yet
    ends = torch.tensor(list(end), device=ids.device)
    running = torch.ones(len(prompts), dtype=torch.bool, device=ids.device)
    for _ in range(new):
        out = model(
            fresh,
            attention_mask=mask,
            position_ids=positions[:, -fresh.shape[1] :],
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = out.logits[:, -1].float()  # (B, V)
        # padding has an id, too: the text's last token replaces it. Right for functions that ask
        # which tokens occurred, such as the penalty
        text = ids.where(mask == 1, ids[:, -1:])
        for function in change:
            logits = function(text, logits)
        fresh = choose(logits)[:, None]  # (B, 1)
        ids = torch.cat((ids, fresh), 1)
        mask = F.pad(mask, (0, 1), value=1)
        positions = torch.cat((positions, positions[:, -1:] + 1), 1)
        running = running & ~torch.isin(fresh[:, 0], ends)
        if not running.any():
            break
    return [steps.until_end(row, set(end)) for row in ids[:, width:].tolist()]


@lab.experiment
@torch.no_grad()
def the_cache_saves_positions_and_changes_no_token(run: Run):
    """With a cache, each position is computed once; on a few prompts, no token changes in float32.

    Predict: a prompt of 10 tokens and 8 new ones: how many positions with a cache, and without?
    """
    texts = (UNSURE, SURE, "The experiment showed that", CARROLL[:60])
    few, length = run.pick(tiny=(1, 8), small=(3, 48), full=(3, 96))
    rows = []
    changes = []  # of a logit, in float32 and in bfloat16
    parted = 0
    for name, open_model, count, new in (
        (called(run), smollm2, few, length),
        ("glass model", glass, 4, 32),
    ):
        model, tokenizer = open_model(run)
        prompts = [tokenizer(text).input_ids for text in texts[:count]]
        with steps.counted(model) as plain:
            want = [list(generate(model, prompt, new)) for prompt in prompts]
        with steps.counted(model) as cached:
            got = [generate_cached(model, prompt, new) for prompt in prompts]
        because = "the same steps; only between nearly equal logits does rounding decide"
        what = f"{name}: tokens that differ"
        run.measure(what, unlike(got, want), expect_at_most=0, because=because, decides=True)
        each = sum(sum(range(len(p), len(p) + new)) for p in prompts)
        run.check(f"{name}: positions without a cache", sum(plain), equals=each, decides=True)
        each = sum(len(p) + new - 1 for p in prompts)
        run.check(f"{name}: positions with a cache", sum(cached), equals=each, decides=True)
        short = open_model(run, torch.bfloat16)[0]
        for net in (model, short):
            steps.check_cache_size(run, name, net)
        for prompt in prompts:
            equal = options.parted_after(generate_cached, short, prompt, new)
            parted += equal < new
            both = [steps.change_by_cache(net, prompt) for net in (model, short)]
            changes.append(both)
            rows.append([name, repr(tokenizer.decode(prompt)), *both, equal, new])
        if count > 1:
            differ = unlike(generate_batch(model, prompts, new), want)
            what = f"{name}: tokens of a batch of {count} that differ from single texts"
            run.measure(what, differ, expect_at_most=0, because=because)
    columns = ["model", "prompt", "change, float32", "change, bfloat16", "equal, bfloat16", "of"]
    run.table("Effect of the cache: largest change of a logit, equal tokens", columns, rows)
    run.measure("prompts whose texts differ in bfloat16", parted)
    in_float32, in_bfloat16 = (max(each) for each in zip(*changes, strict=True))
    same_order = (
        " So the bfloat16 routine probably sums in the same order for one position as for many. "
        "It isn't more exact than float32."
    )
    show(run, "cache", deeper_figures.cache(6, 4))
    return (
        "A prompt of 10 tokens and 8 new ones need 10 + 7 = 17 positions with a cache, and 10 + 11 "
        f"+ … + 17 = 108 without. The cache changes a logit by {in_float32:.2g} at most in float32 "
        f"and {in_bfloat16:.2g} in bfloat16, in which {parted} of {len(rows)} texts differ."
        f"{'' if in_bfloat16 else same_order}"
    )


# %% [markdown]
# ## 5. What a token costs
# Decoding one token multiplies each weight matrix by a vector. It reads each weight once, and uses
# it for one multiplication and one addition: two operations for 2 or 4 bytes. In the time in which
# a processor reads one byte from memory, it computes several operations, and a GPU in bfloat16
# hundreds. So reading takes longer than computing. If the weights don't fit into the processor's
# own fast memory, then
#
# $$\text{time per token} \ge \frac{\text{bytes of weights}}{\text{bandwidth}}$$
#
# If nothing else takes longer, decoding waits for memory, and the time is nearly this bound. The
# **MBU**, the model bandwidth utilisation, is the bound divided by the measured time. We measure
# the bandwidth by summing as many bytes. Few programs read faster than that, so our MBU is at most
# about 1. Published MBUs use the rated bandwidth, which is higher, so for the same program they are
# smaller. They also count the bytes of the cache: after our 32 tokens, 0.3% of SmolLM2's weights.
#
# Two consequences follow. First, a batch shares the reading, so $B$ texts cost less than $B$ times
# one, until arithmetic takes over. Second, weights with half the bytes take half the time. Both are
# true if the step waits for memory. If the MBU is far below 1, it waits for something else. In a
# small model, starting hundreds of operations may take longer than reading. Without fast routines
# for bfloat16, a CPU may have to convert the weights. A batch shares these costs, too. We don't
# measure which of them matters.
#
# After a short text a cache may save nothing, because both kinds of step read all weights and start
# the same operations. After a long text the arithmetic on all positions takes longer. Timings
# depend on what else runs on the machine. So we time two kinds of step alternately, and report the
# median of their ratios. In the table *The next token*, don't compare the milliseconds of different
# rows. In the table of batches you may compare them: the first is the median time of all steps for
# one text, each other one its ratio times that. The first row compares a step for one text with
# itself, so its distance from 1 shows the noise. A ratio a little below 1 may be noise. Or the
# library has a faster routine for several texts.


# %% 5. What a token costs
@lab.experiment
@torch.no_grad()
def the_time_for_the_next_token(run: Run):
    """After the longest of several texts, the next token takes less time with a cache than without.

    Predict: after 512 tokens, how many times faster is a step with the cache?
    """
    model = smollm2(run, steps.DTYPES[run.precision])[0]
    lengths = run.pick(
        tiny=[16, 128, 512], small=[64, 256, 512, 1024, 2048], full=[256, 512, 1024, 2048, 4096]
    )
    rows = []
    for t in run.progress(lengths, "lengths"):
        whole = partial(model, steps.random_ids(model, 1, t), use_cache=False, logits_to_keep=1)
        cached, plain = seconds_paired(steps.one_step(model, 1, t), whole, run.pick(3, 7, 7))
        gains = [y / x for x, y in zip(cached, plain, strict=True)]
        medians = (1000 * median(cached), 1000 * median(plain), median(gains))
        rows.append([t, *medians, min(gains), max(gains)])
    columns = ["tokens so far", "with a cache (ms)", "without (ms)", "speed-up", "min", "max"]
    run.table("The next token", columns, rows)
    what = f"speed-up after {lengths[-1]} tokens"
    because = f"{lengths[-1]} positions instead of one; 1.2 is our choice"
    run.measure(what, rows[-1][3], expect_at_least=1.2, because=because, timed=True, decides=True)
    show(run, "next_token", deeper_figures.next_token(rows), precision=run.precision)
    gain, least, largest = rows[-1][3:]
    return (
        f"After {lengths[-1]} tokens, a step with the cache was {gain:.1f} times faster, in single "
        f"pairs {least:.1f} to {largest:.1f} times."
    )


@lab.experiment
@torch.no_grad()
def the_time_of_a_step_for_many_texts(run: Run):
    """A decoding step for eight texts takes less than four times as long as a step for one.

    Predict: how many times as long does it take?
    """
    model = smollm2(run, steps.DTYPES[run.precision])[0]
    weights = sum(p.nbytes for p in model.parameters())
    repeats = run.pick(tiny=3, small=20, full=20)
    single = steps.one_step(model, 1, 32)
    ones: list[float] = []
    ratios: dict[int, list[float]] = {}
    for batch in run.progress([1, 2, 4, 8, 16], "batches"):
        single_times, times = seconds_paired(single, steps.one_step(model, batch, 32), repeats)
        ratios[batch] = [y / x for x, y in zip(single_times, times, strict=True)]
        ones += single_times
    rows = []
    for batch, repeated in ratios.items():
        ratio = median(repeated)
        seconds = median(ones) * (ratio if batch > 1 else 1)
        rows.append([batch, ratio, 1000 * seconds, batch / seconds, weights / seconds / 1e9])
    columns = ["texts", "step ÷ one text's", "step (ms)", "tokens/s", "weights read (GB/s)"]
    run.table(f"A decoding step after 32 tokens, {run.precision}", columns, rows)
    because = "half of eight, our choice: texts share reading the weights and other costs of a step"
    what = "step for 8 texts ÷ step for 1"
    run.measure(what, ratios[8], expect_at_most=4, because=because, timed=True, decides=True)
    in_bfloat16 = smollm2(run, torch.bfloat16)[0]
    in_float32 = smollm2(run, torch.float32)[0]
    return (
        f"A step for eight texts took {median(ratios[8]):.1f} times as long as for one. "
        f"{steps.compare_formats(run, in_bfloat16, in_float32, repeats)}"
    )


# %% [markdown]
# ## 6. Likelihood and diversity
# Greedy text often repeats itself: after a sentence has occurred twice, a third time is more
# probable still, and greedy text goes on repeating it (Holtzman et al. 2020). To measure this,
# count **distinct 2-grams**: of all pairs of neighbouring tokens in a text, the share of distinct
# ones. This follows Li et al. 2016, who divide by the number of tokens. The pairs of "a b a b a"
# are ab, ba, ab and ba: two of four are distinct.
#
# The other measure is the **likelihood**: the mean $\ln p$ of the text's tokens under the model, at
# $T = 1$ and without cuts, in **nats** a token; $\ln 2 = 0.69$ nats are a bit. High likelihood is
# not quality. Holtzman et al. found that text by people has many improbable tokens, and that the
# best settings come close to its likelihood and diversity. We can't repeat that: our only long text
# by people is Shakespeare's. Its English of 1600 and its verse may make it improbable to SmolLM2,
# and its excerpts start anywhere, after only four tokens of context. So the table shows it only for
# scale. At `tiny` a text has 47 pairs: one repeated pair is 2 percentage points, so small
# differences in the table mean little. We test only greedy text without a penalty against $T = 1$.
#
# All texts must have the same length, so no setting may choose a control token, such as the end.
# Some texts would have ended earlier, so a part of the repetition may come from this.


# %% 6. Likelihood and diversity
GAP = "distinct 2-grams, T = 1 − greedy, mean over prompts"
LIKELIER = "ln p per token, greedy − T = 1, mean over prompts"


@lab.experiment
def greedy_text_repeats_itself(run: Run):
    """Greedy text has fewer distinct 2-grams than text sampled at T = 1, on eight prompts.

    Predict: by how many nats a token is greedy text more probable than text sampled at T = 1?
    """
    model, tokenizer = smollm2(run)
    new = run.pick(tiny=48, small=256, full=512)
    prompts = [tokenizer(text).input_ids for text in diversity.STARTS]
    by = diversity.SampledBySettings(control=tokenizer.all_special_ids)
    texts = generate_batch(model, prompts * len(diversity.SETTINGS), new, [by.change], by.choose)
    points = by.points(texts)
    human = diversity.human_texts(tokenizer, len(prompts), new + 4)
    beside = {**points, "Shakespeare, for scale": diversity.points_of(model, human, 4)}
    rows = [[name, *(median(p[k] for p in beside[name]) for k in (0, 1))] for name in beside]
    columns = ["text", "distinct 2-grams", "mean ln p (nats per token)"]
    run.table(f"Medians of {len(prompts)} texts of {new} tokens", columns, rows)
    pairs = list(zip(points["greedy"], points["T = 1"], strict=True))
    gap, error = mean_and_error([sampled[0] - greedy[0] for greedy, sampled in pairs])
    because = "two standard errors over the prompts"
    run.measure(GAP, gap, expect_at_least=2 * error, because=because, decides=True)
    likelier, error = mean_and_error([greedy[1] - sampled[1] for greedy, sampled in pairs])
    because = "the likeliest token at each step; two standard errors over the prompts"
    run.measure(LIKELIER, likelier, unit="nats", expect_at_least=2 * error, because=because)
    show(run, "likelihood", deeper_figures.likelihoods(points), texts=len(prompts), tokens=new)
    return f"Greedy text is more probable than text at T = 1 by {likelier:.1f} nats a token."


# %% [markdown]
# ## 7. Search, and guessing ahead
# Greedy text needn't be the most probable text: the best token now may lead to a bad one next. Say
# that token A has $p = 0.5$ and B has 0.4. After A the best token has 0.4, after B it has 0.9.
# Greedy decoding takes A and reaches $0.5 \cdot 0.4 = 0.20$; B would have reached 0.36.
#
# **Beam search** keeps the $n$ most probable beginnings. Each step extends all of them by all
# tokens, and selects the best $n$ by the sum of their $\ln p$. With $n = 2$ it keeps A and B, and
# finds the more probable text. On longer texts nothing guarantees that. A beginning that ends with
# an end token is finished. Its score is divided by $\text{length}^\alpha$, because each token adds
# a negative number and short texts would win otherwise. $\alpha$ is called the **length penalty**,
# although a larger one favours long texts. When $n$ texts are finished, `early_stopping=True` ends
# the search at once. By default it ends when the best running text has no higher score than the
# worst finished one. With `"never"` it ends when no running text could still beat the worst
# finished one. So a search may make more calls than its text has tokens. A text that ends early
# leaves out tokens that may be improbable, so compare the mean $\ln p$ only between rows with
# equally many tokens. `search.py` has the code.
#
# **Guessing ahead** can save calls for the same greedy text. Guess $k$ tokens cheaply, and let the
# model judge all of them in *one* call: as in the lesson, a call returns a prediction at each
# place. Accept the guesses up to the first that differs from the model's choice. At that place, the
# same call already gives the model's own token. If the guesses are a, b, c and the choices a, b, x,
# y, one call yields a, b and x. The model chose y after c, which isn't in the text, so y is
# dropped. If all $k$ guesses are right, the call yields $k + 1$ tokens, because the model also
# chooses what follows the last guess. Up to rounding, the text stays the greedy one (Stern et al.
# 2018; for sampling: *speculative decoding*, Leviathan et al. 2023). The guess comes from a smaller
# model, or from the text itself: **prompt lookup**, by Saxena 2023, finds the last tokens at an
# earlier place, and guesses that the same tokens follow again. It saves time if a call on several
# positions takes little longer than on one. We check that the library's prompt lookup writes our
# greedy text. `accept` shows the rule in code. The calls and times in the tables are the library's.


# %% 7. Search, and guessing ahead
def accept(guesses: list[int], choices: list[int]) -> list[int]:
    """Return the tokens of one call: k guesses, the model's k + 1 choices -> 1 to k + 1 ids."""
    right = 0
    while right < len(guesses) and guesses[right] == choices[right]:
        right += 1
    return choices[: right + 1]


our_generate = partial(options.generate_as_asked, generate_batch)  # with beams: search.py


@lab.experiment
def our_generators_write_what_the_library_writes(run: Run):
    """On 3 prompts, our generators write the library's tokens: greedy, and by beams with a penalty.

    Predict: how many tokens does one call yield when prompt lookup guesses ahead?
    """
    show(run, "beams", deeper_figures.beams())
    tries = [([5, 6, 7], [5, 6, 1, 2]), ([5, 6], [5, 6, 9]), ([5, 6], [7, 6, 9])]
    yielded = [accept(*each) for each in tries]
    run.check("tokens of a call", yielded, equals=[[5, 6, 1], [5, 6, 9], [7]])
    every = options.OPTIONS
    compare = partial(options.compare, run, ours=our_generate)
    compare(called(run), smollm2(run), [UNSURE], run.pick(tiny=8, small=40, full=80), every[:2])
    texts = (CARROLL[:50], "Will you, won’t you, will")
    new = run.pick(tiny=24, small=60, full=60)
    changed, gains = compare("glass model", glass(run), texts, new, every)
    others = sum(count > 0 for count in changed[1:-1])  # without greedy and prompt lookup
    because = "control: beams and penalties do change greedy texts with the same end"
    run.check("options that change a text", others, at_least=len(every[1:-1]) / 2, because=because)
    gain = gains[every.index({"num_beams": 3})]
    because = "beam search looks for probable texts; nothing guarantees that it finds one"
    run.measure("mean ln p, 3 beams − greedy", gain, expect_at_least=0, because=because)
    guessed = [options.guess_ahead(*glass(run), text, new, guesses=8) for text in texts]
    columns = ["after", "tokens a call", "time ÷ greedy"]
    run.table("Prompt lookup by the glass model", columns, guessed)
    (_, few, slow), (_, many, fast) = guessed
    return (
        f"With prompt lookup, a call of the glass model yielded {few:.2f} tokens after ordinary "
        f"text, and {many:.2f} after repetitive text. The texts took {slow:.2f} and {fast:.2f} "
        f"times as long as greedy ones."
    )


# %% [markdown]
# ## 8. Stop strings
# A program often wants the model to stop at a *string*, such as an empty line or `User:`. The loop
# sees tokens, and a string may be spread over several: `\n\nUs` may come in one and `er:` in the
# next. A user who reads along must not see a part of the stop string. So if the text ends with
# something that may become a stop, this end is **held back** until the next piece decides.
#
# Say that the stop is `##`, and the pieces are `a #`, `b #` and `#c`. After the first piece, show
# `a ` and hold `#`. The second makes `#b #` of it: show `#b ` and hold `#`. The third makes `##c`:
# the stop is complete, so the text ends, and nothing more is shown. If no stop comes, show what is
# still held after the last piece. Of several stops, the one that is complete first ends the text:
# with `abcd` and `bc`, show `xa` of `xabcd`. If two are complete together, the longer one counts.


# %% 8. Stop strings
@lab.exercise(
    level=3,
    hints=(
        "Add each piece to a string `held`. Does it contain a stop? Yield the text before, return.",
        "Else some n last characters may begin a stop: the largest n with held.endswith(end[:n]).",
        "The first complete stop has the least held.find(end) + len(end). Of two, take the longer.",
    ),
)
def until_stop(pieces: Iterable[str], ends: list[str]) -> Iterator[str]:
    """Yield the text of `pieces` as early as is safe, up to the stop string complete first.

    Don't ask `pieces` for more after the stop. Of stops complete together, the longest counts.
    """
    held = ""  # not shown yet: a stop may begin in one piece and end in another
    for piece in pieces:
        held += piece
        found = [(held.find(end) + len(end), held.find(end)) for end in ends if end in held]
        if found:
            yield held[: min(found)[1]]
            return
        starts = (n for end in ends for n in range(len(end)) if held.endswith(end[:n]))
        safe = len(held) - max(starts, default=0)  # the longest beginning of a stop must wait
        yield held[:safe]
        held = held[safe:]
    yield held


@lab.experiment
def a_stop_string_is_never_shown(run: Run):
    """In 202 ways to cut a text into pieces, `until_stop` shows the same text, as early as is safe.

    Predict: if you search each piece alone, do you miss the stop in most ways, or in a few?
    """
    tokenizer = smollm2(run)[1]
    text = "Answer: 42.\nQuestion two: what, then?\nQuestion three"
    ends = ["two", "\nQuestion t", "\nQuest of"]
    want = text[: text.index("\nQuestion t")]  # complete two characters before "two"
    cuts = [[tokenizer.decode(i) for i in tokenizer(text).input_ids], list(text)]
    for _ in range(200):
        at = sorted({0, len(text), *torch.randint(len(text), (12,)).tolist()})
        cuts.append([text[a:b] for a, b in pairwise(at)])
    shown = [stops.shown_and_held(until_stop, pieces, ends) for pieces in cuts]
    wrong = sum(text != want for text, _ in shown)
    run.check("cuts with another text", wrong, equals=0, decides=True)
    held = [part for _, parts in shown for part in parts]
    without_reason = sum(not stops.begins_a_stop(part, ends) for part in held)
    because = "only the beginning of a stop must wait for the next piece"
    run.check("held back without a reason", without_reason, equals=0, because=because, decides=True)
    late = stops.shown_and_held(partial(stops.until_the_end, until_stop), cuts[0], ends)[1]
    without_reason = sum(not stops.begins_a_stop(part, ends) for part in late)
    because = "control: a function that shows nothing before the end must be noticed"
    what = "held back without a reason, if all is shown at the end"
    run.check(what, without_reason, at_least=1, because=because)
    missed = sum("".join(stops.until_stop_in_a_piece(x, ends)) != want for x in cuts[2:])
    because = "control: the same test must notice a search in each piece alone"
    what = "random cuts in which a search in each piece misses the stop"
    run.check(what, missed, at_least=1, because=because)
    return f"A search in each piece alone misses the stop in {missed} of 200 random cuts."


# %% [markdown]
# ## 9. How good is a model?
# A good model gives real text a high probability. Its **loss** is the mean of $-\ln p$ over a
# text's tokens, in nats per token. Its **perplexity** is $e^{\text{loss}}$, as $e^H$ was in the
# lesson: a uniform choice among that many tokens has the same loss. Neither can be compared between
# models with different vocabularies: if a text is cut into more tokens, each of them is easier to
# guess. **Bits per byte** can be compared: sum the loss over the text, divide by $\ln 2$ and by the
# text's bytes. If you compress it with the model, it takes about this many bits per byte (Shannon
# 1948). Our sum leaves out the first token, which nothing predicts: in a long text that is little.
#
# A loss means little without a **baseline**. A *uniform* model gives every token the probability
# $1/V$ and has the loss $\ln V$. A *unigram* model has counted how frequent each token is in other
# text. A *bigram* model has counted pairs, $n(a, b)$, and looks at the token before:
#
# $$p(b \mid a) = \frac{n(a, b) + k\,p(b)}{n(a) + k}$$
#
# Here the unigram's $p(b)$ has the weight $k / (n(a) + k)$, so it decides where $a$ is rare and the
# pair wasn't seen (MacKay & Peto 1995). We chose $k = 200$ and tuned nothing. The unigram model
# adds 1 to each count, so no token has the probability 0. We test on the end of Shakespeare's
# plays, which the counting models didn't see. SmolLM2 probably did, so its loss may be smaller here
# than on new text. The glass model read Carroll, so counting Shakespeare may beat it. Neighbouring
# tokens depend on each other, so we give no standard error: the claim is about this excerpt, and
# others may differ.
#
# A text longer than the model's **context** is read in windows. A token at the start of a window
# has little before it, so the model usually gives it a lower probability. So let windows overlap
# and score only the new tokens of each: `stride` of them. Take ten tokens, windows of six and
# stride 3. The first window reads tokens 1 to 6 and scores 2 to 6. The second reads 4 to 9 and
# scores 7 to 9. The last reads 5 to 10 and scores 10. Each token after the first window has at
# least window − stride tokens before it, so a small stride gives more context, in more calls. The
# largest stride is the window minus 1: no window can score its first token, so the window before
# must do it. SmolLM2's context has 8,192 tokens. We take short windows to show what the stride
# does.


# %% 9. How good is a model?
def strided_loss(model: Callable[[Tensor], Tensor], ids: Tensor, window: int, stride: int) -> float:
    """Return the mean nats of ids[1:] (N,), each scored once, from windows of `window` tokens.

    The first window is ids[:window]. Each later one ends `stride` tokens further (the last where
    the text does), is as long, and scores what is new. `model` maps (T,) to (T, V) logits;
    1 ≤ stride < window.
    """
    total = 0.0
    scored = 1  # nothing predicts the first token
    while scored < len(ids):
        end = min(window if scored == 1 else scored + stride, len(ids))
        inside = ids[max(0, end - window) : end]  # (T,)
        logp = model(inside).log_softmax(-1)[:-1]  # (T - 1, V), about inside[1:]
        loss = -logp.gather(1, inside[1:, None])[:, 0]  # of each next token, (T - 1, 1) -> (T - 1,)
        total += loss[-(end - scored) :].sum().item()
        scored = end
    return total / (len(ids) - 1)


def reads(model: Any) -> Callable[[Tensor], Tensor]:
    """Return the model as `strided_loss` calls it: (T,) -> (T, V)."""
    return lambda ids: logits_of(model, ids.tolist()).cpu()


@lab.experiment
def losses_on_one_excerpt(run: Run):
    """On one excerpt of Shakespeare, 4-bit SmolLM2 needs fewer bits a byte than counting pairs.

    Predict: how many bits does 4-bit SmolLM2 need for a byte of Shakespeare?
    """
    model, tokenizer = smollm2(run)
    small, small_tokenizer = glass(run)
    window = run.pick(tiny=64, small=512, full=2048)
    plays = assets.shakespeare()
    cut = len(plays) * 9 // 10  # the baselines count before it, and all are tested after it
    test = plays[cut:][: run.pick(tiny=700, small=8000, full=40_000)]
    other = plays[: run.pick(tiny=500_000, small=cut, full=cut)]
    ids, seen = (torch.tensor(tokenizer(text, verbose=False).input_ids) for text in (test, other))
    small_ids = torch.tensor(small_tokenizer(test, verbose=False).input_ids)
    v = model.config.vocab_size
    unigram, bigram = losses_by_counting(seen, ids, v)
    apart = strided_loss(reads(model), ids, window, window - 1)
    overlapping = strided_loss(reads(model), ids, window, window // 4)
    of_small = strided_loss(reads(small), small_ids, 64, 16)
    large_stride, small_stride = (f"{called(run)}, stride {s}" for s in (window - 1, window // 4))
    of_glass = "glass model, windows of 64, stride 16"
    losses = [
        ("uniform", math.log(v), ids),
        ("unigram", unigram, ids),
        ("bigram", bigram, ids),
        (large_stride, apart, ids),
        (small_stride, overlapping, ids),
        (of_glass, of_small, small_ids),
    ]
    size = len(test.encode())
    per_byte = {name: loss * (len(x) - 1) / math.log(2) / size for name, loss, x in losses}
    rows = [[name, len(x), loss, math.exp(loss), per_byte[name]] for name, loss, x in losses]
    columns = ["model", "tokens", "nats per token", "perplexity", "bits per byte"]
    run.table(f"{size:,} bytes of Shakespeare, windows of {window}", columns, rows)
    fewer = per_byte["bigram"] - per_byte[small_stride]
    because = "SmolLM2 sees all tokens of the window, and was trained on far more text"
    what = "bits a byte, bigram − model with the small stride"
    run.measure(what, fewer, expect_at_least=0, because=because, decides=True)
    show(run, "bits", deeper_figures.bits(per_byte), size=size)
    more = (of_small / overlapping, per_byte[of_glass] / per_byte[small_stride])
    return (
        f"On {size:,} bytes, {called(run)} needs {per_byte[small_stride]:.2f} bits per byte, "
        f"counting pairs {per_byte['bigram']:.2f}. The glass model needs {more[0]:.2f} times as "
        f"many nats per token, but {more[1]:.2f} times as many bits per byte."
    )


# %% [markdown]
# ## 10. Smaller numbers
# Decoding reads all weights. Weights of 8 or 4 bits need less memory, and with good routines less
# time. **Rounding to nearest** works like this: divide each row of a weight matrix by a **scale**,
# which is its largest magnitude divided by $2^{b-1} - 1$. Round to integers, and multiply by the
# scale again. With $b = 3$ bits the integers are −3 to 3. The row 0.7, −0.2, 0.05 has the scale
# $0.7 / 3 = 0.233$. Divided by it, the row is 3, −0.86, 0.21; rounded 3, −1, 0; and multiplied
# again 0.7, −0.233, 0. With 4 bits a row has 15 levels, with 8 bits 255.
#
# In a short **block** the largest weight is usually smaller than in the row. So if each block has
# its own scale, the levels are closer together. Q4_1, to which our SmolLM2's layers were once
# rounded, has blocks of 32 weights, each with 16 levels between its smallest and its largest.
# Blocks cost bits, too. A 16-bit scale for every 32 weights adds half a bit to each; Q4_1 also
# stores the smallest weight, which adds another half. We round the matrices of the layers. The
# token embedding, a fifth of SmolLM2's parameters and also its output layer, stays as it is.
#
# What should it cost? Let $\varepsilon$ be the relative error: the root mean square of the errors,
# divided by that of the weights. By Taylor's formula, a small change of the weights changes the
# loss by a term in $\varepsilon$ from its slope, a term in $\varepsilon^2$ from its curvature, and
# smaller terms. At a minimum the slope is 0, so a small error costs $c\,\varepsilon^2$ nats (LeCun
# et al. 1990). Here $c$ depends on the model and on the *direction* of the errors: which weights go
# up, and which go down. We expect a similar $c$ for 8 and 4 bits, because it averages the curvature
# over millions of weights. But 4-bit SmolLM2 isn't at a minimum: its own rounding moved it away,
# and our texts aren't the training texts. So there is a term in $\varepsilon$, too. It is a sum
# over all weights, some with positive and some with negative slopes, so its size and sign may
# differ between roundings.
#
# So measure twice: with $w + e$, the rounded weights, and with $w - e$, their **mirror image**. The
# costs are $\pm a\varepsilon + c\varepsilon^2 \pm d\varepsilon^3 + \dots$, so their mean is
# $c\varepsilon^2$ and, for large errors, a term in $\varepsilon^4$. The cost of rounding is that of
# $w + e$ alone; the mean shows only the curvature.
#
# If $\varepsilon$ rises from $\varepsilon_1$ to $\varepsilon_2$ and the mean from $C_1$ to $C_2$,
# the exponent is $\ln(C_2/C_1) / \ln(\varepsilon_2/\varepsilon_1)$. From 8 to 4 bits, $\varepsilon$
# rises by a factor of 18: if $c$ doubles, the exponent is 2.24 instead of 2. The **jackknife**
# gives its standard error over the texts: leave out each of $n$ texts in turn. Leaving out one text
# changes a result less than a new sample would. So multiply the standard deviation of the $n$
# results by $(n - 1) / \sqrt n$: for a mean, this gives the usual standard error. It says nothing
# about other roundings or models. At 3 bits, compare the loss with $\ln V$ = 10.8, that of a
# uniform model. For so large an error, the square needn't explain the cost.


# %% 10. Smaller numbers
@lab.exercise(
    level=1,
    hints=(
        "Each row has its own scale: the largest magnitude along the last axis, keepdim=True, ÷ …",
        "… ÷ (2 ** (bits - 1) - 1). Divide the weights by it, .round(), and multiply by it again.",
        "In a row of zeros the scale is 0, and 0 ÷ 0 is NaN: scale.clamp(min=1e-12) avoids that.",
    ),
)
def rounded(w: Tensor, bits: int) -> Tensor:
    """Round each row to multiples of its own scale, (..., n) -> (..., n); a row of 0 stays so."""
    scale = w.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)  # (..., 1)
    scale = scale.clamp(min=1e-12)
    return (w / scale).round() * scale


@lab.experiment
def the_fewer_bits_the_higher_the_cost(run: Run):
    """Fewer bits raise 4-bit SmolLM2's loss; from 8 to 4, the mean of both signs grows about as ε².

    Predict: our SmolLM2 once had 4 bits. Does rounding it to 4 bits again cost anything?
    """
    costs = costs_of_rounding(run, called(run), smollm2(run), rounded)
    because = "two standard errors over the texts"
    for cheap, dear in (("8 bits", "4 bits"), ("4 bits", "3 bits")):
        gap, error = mean_and_error((costs[dear].rounded - costs[cheap].rounded).tolist())
        what = f"nats, {dear} − {cheap}"
        run.measure(what, gap, expect_at_least=2 * error, because=because, decides=True)
    exponents = compare_exponents(run, costs)
    stored = costs["4 bits as Q4_1"].rounded.mean().item()
    levels = (-1e-3, 1e-3) if run.options.model is None else None
    why = ": our weights are on its levels already, but not on those of a scale for each row"
    because = "the weights are on these levels, up to float16's rounding; 0.001 is our choice"
    run.measure("nats, 4 bits as Q4_1", stored, expect_between=levels, because=because)
    show(run, "rounding", deeper_figures.rounding_costs(costs), texts=TEXTS)
    return (
        f"{exponents} 4 bits as Q4_1 cost {stored:.3f}{why if levels else ''}. At 3 bits the loss "
        f"is {costs['3 bits'].loss:.1f} nats, and a uniform model has "
        f"{math.log(smollm2(run)[0].config.vocab_size):.1f}."
    )


# %% [markdown]
# ## What to remember
# - Test a sampler with $\chi^2$, a generator against the library, token by token.
# - A cache saves positions. A batch shares what a step costs once, such as reading the weights.
# - High likelihood is not quality: greedy text is likely, and repeats itself.
# - Compare models in bits per byte, and with a baseline.
# - What rounding costs depends on the direction of the errors, too: at `tiny`, 4 bits cost 4-bit
#   SmolLM2 0.6 nats a token, and 1.8 with the other sign. From 8 to 4 bits, the mean of both grew
#   about as $\varepsilon^2$.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Say what this run showed, in its numbers."""
    likelier = results.value("greedy_text_repeats_itself", LIKELIER)
    step = results.value("the_fewer_bits_the_higher_the_cost", "nats, 4 bits − 8 bits")
    gap = results.value("greedy_text_repeats_itself", GAP)
    return (
        f"In this run, text sampled at T = 1 had {100 * gap:.0f} percentage points more distinct "
        f"2-grams than greedy text, and was less likely by {likelier:.1f} nats a token. Four bits "
        f"with a scale for each row cost {step:.2f} nats a token more than eight."
    )


# %% [markdown]
# **Read on**: Shannon 1951, *Prediction and entropy of printed English* · Holtzman et al. 2020 on
# degeneration · Leviathan et al. 2023 on guessing ahead · Pope et al. 2022, *Efficiently scaling
# transformer inference* · Kumar et al. 2024, *Scaling laws for precision*. Next: LLM02.

# %%
if __name__ == "__main__":
    lab.main()
