# %% [markdown]
# # LLM01 · Introduction and inference
# From a first prompt to the last detail of generation: tokens in, a distribution out, and a choice.
#
# **You will be able to** say what a language model computes and what it doesn't; choose the next
# token in every usual way, and write the loop that does; run many prompts at once, and long ones
# with a cache, and get the same text; tell how good a model is, in units that can be compared, and
# what rounding its weights costs. **Builds on** Python and a little probability; no model was ever
# called before. **Takes** an hour and a half to read, a minute to run (`tiny`, 2 cores).

# %% Imports
import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from labs.kit import Lab, Results, Run, assets, seconds_paired, tolerance
from labs.llm01_inference import view_data

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.generation import logits_process as library

lab = Lab("LLM01")
lab.argument("--model", help="a Llama-like model instead of SmolLM2: a folder, or a hub id")
lab.before_run(assets.check_model)
SURE, UNSURE = "Once upon a time", "My favourite thing about the sea is"
CARROLL = (
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having "
    "nothing to do: once or twice she had peeped into the book her sister was reading, but it had "
    "no pictures or conversations in it, “and what is the use of a book,” thought Alice “without "
    "pictures or conversations?”"
)

# %% [markdown]
# ## 1. Tokens in, a distribution out
# A language model reads no letters. A **tokenizer** cuts a text into pieces from a fixed list, the
# **vocabulary** of $V$ pieces, and hands over their numbers, the **ids** (LLM04 builds one).
# Frequent words are one piece, rare ones several: a **token** is one such piece, four letters or so
# of English.
#
# The model is a function. It takes $T$ ids and returns, for each of the $T$ places, $V$ numbers:
# one score, a **logit**, for each token that might come next. A softmax makes of them a
# **distribution**, positive numbers that sum to one:
#
# $$p_i = \frac{e^{l_i}}{\sum_j e^{l_j}}$$
#
# With three tokens and logits 2, 1 and 0 that is 7.39, 2.72 and 1 over their sum 11.1: $p = 0.67$,
# 0.24 and 0.09. Adding one number to all logits changes nothing: it cancels. So a logit alone means
# nothing; a difference of two does, the logarithm of how many times likelier one token is.
#
# That is all a model does. It writes nothing: *we* choose a token from the distribution, put it
# behind the text and call the model again. It is **autoregressive**, and the probability of a whole
# text is the product of those of its tokens, each given what stands before it.
#
# Place $t$ sees ids 1 to $t$ and none after (LLM06 shows how). So one call on a text gives the
# distributions after *all* its beginnings at once, which makes it cheap to ask how likely a given
# text is, and to train. We use SmolLM2-135M-Instruct (Allal et al. 2025): 135 million
# **parameters** or **weights**, numbers that were fitted in training, in 30 layers; $V$ = 49,152.
# It is here in its 4-bit release, made float32 (4 bytes a number) again: *4-bit SmolLM2*, which is
# somewhat worse than the original, so say so when you quote. Beside it stands a *glass model* of
# 0.85 million parameters and 4 layers, trained on Lewis Carroll.
#
# **Try it**: in the coloured text below, point at the darkest tokens and read what the model
# expected instead. Then choose the sentence that comes twice, and compare its two copies.


# %% 1. A first call
@cache
def opened(path: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    return model.to(device).eval(), AutoTokenizer.from_pretrained(path)


def smollm2(run: Run, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """The model (or what --model names) and its tokenizer."""
    return opened(assets.pretrained(run.options.model, run.online), run.device, dtype)


def called(run: Run) -> str:
    if run.options.model is None:
        return "4-bit SmolLM2"
    name = Path(run.options.model).name
    return "the model" if name == "model" else name  # LLM10 saves its own under that name


def glass(run: Run, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    return opened(str(assets.glass()), run.device, dtype)


@torch.no_grad()
def logits_of(model: Any, ids: list[int]) -> Tensor:  # -> (T, V)
    return model(torch.tensor([ids], device=model.device)).logits[0]


def rounding(logits: Tensor) -> float:
    """What float32 may lose in logits of this size."""
    return tolerance(torch.float32) * max(1.0, logits.abs().max().item())


@lab.experiment
def one_call_answers_for_every_beginning(run: Run):
    """A model maps a text to a distribution over the next token, for each of its beginnings.

    Predict: after "The capital of France is", how likely is the likeliest token?
    """
    model, tokenizer = smollm2(run)
    ids = tokenizer("The capital of France is").input_ids
    logits = logits_of(model, ids)  # (T, V)
    p, best = logits[-1].softmax(-1).topk(5)
    rows = [
        [repr(tokenizer.decode(i)), i, logits[-1, i].item(), p[n].item()]
        for n, i in enumerate(best.tolist())
    ]
    run.table("The five likeliest next tokens", ["token", "id", "logit", "probability"], rows)
    run.agree("sum of the probabilities, less one", logits.double().softmax(-1).sum(-1) - 1)
    alone = torch.stack([logits_of(model, ids[:t])[-1] for t in range(1, len(ids) + 1)])
    name = "all at once, less one beginning at a time"
    run.agree(name, logits - alone, rounding(logits), decides=True)
    other = logits_of(model, [*ids[:-2], ids[-2] + 1, ids[-1]])[-1].softmax(-1)
    moved = (other - logits[-1].softmax(-1)).abs().max()
    because = "the partner: the last place does see the one before it"
    run.check("moved by another token before the last", moved, at_least=1e-3, because=because)
    texts = {"Alice": CARROLL, **view_data.TEXTS}
    read = view_data.reading(texts, tokenizer, partial(logits_of, model))
    run.view("tokens", "coloured_text", *read)
    return f"{len(ids)} tokens in, {len(ids)} distributions over {logits.shape[1]:,} tokens out."


# %% [markdown]
# ## 2. The loop, and a chat
# Generation is a loop of three lines: call the model, choose from the last distribution, append.
# The simplest choice is the likeliest token, **greedy decoding**.
#
# An assistant is the same function. A conversation becomes *one* text in which **control tokens**
# mark who speaks; the model was trained to continue such texts and to close its own turn with an
# end token, at which the loop stops. SmolLM2's marks are `<|im_start|>` and `<|im_end|>` (ChatML);
# the **template** that writes them travels with the tokenizer.


# %% 2. The loop, and a chat
Choice = Callable[[Tensor], Tensor]  # logits (..., V) -> ids (...)
greedy: Choice = partial(torch.argmax, dim=-1)


def write(model: Any, prompt: list[int], new: int, choose: Choice = greedy, end: Any = ()) -> Any:
    """The loop at its plainest: up to `new` ids that follow `prompt`, an end token the last."""
    ids = list(prompt)
    while len(ids) < len(prompt) + new and not (len(ids) > len(prompt) and ids[-1] in end):
        ids.append(int(choose(logits_of(model, ids)[-1])))
    return ids[len(prompt) :]


def chat(system: str, question: str) -> str:
    turns = (("system", system), ("user", question))
    text = "".join(f"<|im_start|>{who}\n{what}<|im_end|>\n" for who, what in turns)
    return f"{text}<|im_start|>assistant\n"  # the turn that the model is to write


@lab.experiment
def a_chat_is_one_text(run: Run):
    """A conversation reaches the model as one text, whose marks make it answer.

    Predict: given the bare question, without any marks, what does the chat model say?
    """
    model, tokenizer = smollm2(run)
    if tokenizer.chat_template is None:
        return f"{called(run)} has no chat template: it wasn't taught to converse."
    system, question = "You answer in one sentence.", "What is the capital of France?"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True).input_ids
    ours, end = tokenizer(chat(system, question)).input_ids, (tokenizer.eos_token_id,)
    because = "that is how SmolLM2 was trained; another --model may have other marks"
    unlike = sum(a != b for a, b in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))
    name = "ids unlike the template's"
    run.measure(name, unlike, expect_at_most=0, because=because, decides=True)
    marked, bare = (
        tokenizer.decode(write(model, ids, 12, end=end))
        for ids in (theirs, tokenizer(question).input_ids)
    )
    return f"With the marks it says {marked!r}, without them {bare!r}."


# %% [markdown]
# ## 3. Choosing by lot
# Greedy decoding gives one text. To get others, draw a token with the probability that the model
# gives it. The usual way: lay the probabilities end to end on the line from 0 to 1, throw a uniform
# number $u$, and take the token on whose stretch it falls (**inverse transform**). With $p = 0.67$,
# 0.24, 0.09 the stretches end at 0.67, 0.91 and 1; $u = 0.7$ draws the second. (Both the running
# sum and $u$ want float64: tens of thousands of the 49,152 stretches are shorter than float32's
# steps.)
#
# Is a sampler right? It must draw token $i$ about $n p_i$ times in $n$ draws. With $c_i$ for the
# number of times it did, Pearson's **$\chi^2$** (1900) adds up the squared misses:
#
# $$\chi^2 = \sum_i \frac{(c_i - n p_i)^2}{n p_i}$$
#
# For a right sampler that sum follows a known law, nearly, if no expected count is small, so tokens
# expected fewer than five times are counted together. The p-value is how often a *right* sampler
# misses at least as badly: it is below 0.001 once in a thousand trials. We let each sampler try
# twice and take the better p-value, so a right one fails once in a million runs.
#
# The **temperature** $T$ (by custom the same letter as the length, which it isn't) divides the
# logits before the softmax: below 1 it sharpens, towards 0 it becomes greedy; above 1 it flattens.
# The **entropy** (Shannon 1948) measures how spread out a distribution is:
#
# $$H = -\sum_i p_i \ln p_i$$
#
# Its unit is the **nat**, the unit of natural logarithms (a bit is 0.69 nats); $e^H$ is the number
# of equally likely tokens with the same $H$. It can only rise with $T$, and here is how fast. Write
# $\beta = 1/T$ and $Z = \sum_i e^{\beta l_i}$, so that $p_i = e^{\beta l_i}/Z$; let $E$ and
# $\text{Var}$ be the mean and the variance of the logits under this $p$. Then
# $\ln p_i = \beta l_i - \ln Z$, so $H = \ln Z - \beta E$. The derivatives are $d\ln Z/d\beta = E$
# and $dE/d\beta = \text{Var}$, so
#
# $$\frac{dH}{d\beta} = E - E - \beta\,\text{Var} = -\beta\,\text{Var}$$
#
# and with $d\beta/dT = -1/T^2$:
#
# $$\frac{dH}{dT} = \frac{\text{Var}}{T^3} \ge 0$$


# %% 3. Sampling
def draw(logits: Tensor, times: int = 1) -> Tensor:
    """Draw from the softmax of the logits: (..., V) -> ids (..., times)."""
    line = logits.softmax(-1).double().cumsum(-1)
    u = torch.rand(*line.shape[:-1], times, dtype=line.dtype).to(line) * line[..., -1:]
    return torch.searchsorted(line, u, right=True)  # the first stretch that ends beyond u


def sample(logits: Tensor) -> Tensor:
    return draw(logits)[..., 0]


def p_value(counts: Tensor, expected: Tensor) -> float:
    """Pearson's χ² test; what is expected fewer than five times is counted together."""
    often = expected >= 5
    if not often.all():
        counts, expected = (
            torch.cat((x[often], x[~often].sum()[None])) for x in (counts, expected)
        )
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = torch.tensor(len(counts) - 1.0).to(statistic)
    return torch.special.gammaincc(freedom / 2, statistic / 2).item()


@lab.experiment
def sampler_draws_from_the_distribution(run: Run):
    """The sampler draws each token as often as the model says; a wrong temperature is noticed.

    Predict: does a sampler at T = 1.1 instead of 1 show in 20,000 draws?
    """
    model, tokenizer = smollm2(run)
    logits, n = logits_of(model, tokenizer(UNSURE).input_ids)[-1].double().cpu(), 20_000
    expected, because = n * logits.softmax(-1), "a right one misses twice once in a million runs"

    def better_of_two(t: float) -> float:
        draws = [draw(logits / t, n).bincount(minlength=len(logits)).double() for _ in range(2)]
        return max(p_value(counts, expected) for counts in draws)

    better = better_of_two(1.0)
    run.check("better p-value, T = 1", better, at_least=1e-3, because=because, decides=True)
    better = better_of_two(1.1)
    run.check("the same, T = 1.1", better, at_most=1e-3, because="the partner", decides=True)
    return f"{int((expected >= 5).sum())} of the tokens were expected at least five times."


@lab.experiment
def entropy_rises_with_temperature(run: Run):
    """Entropy rises with temperature, by Var/T³: little at first where the model is sure.

    Predict: at T = 2, among how many tokens (e^H) does the model choose?
    """
    (model, tokenizer), rows, errors, h = smollm2(run), [], [], 1e-4
    grid, (fig, ax) = torch.logspace(-1, 1, 60, dtype=torch.float64), plt.subplots()

    def entropy(logits: Tensor, t: Tensor) -> Tensor:  # (V,), (n,) -> (n,)
        logp = (logits / t[:, None]).log_softmax(-1)
        return -(logp.exp() * logp).sum(-1)

    for text in (SURE, "The capital of France is", UNSURE):
        logits = logits_of(model, tokenizer(text).input_ids)[-1].double().cpu()
        p, t = logits.softmax(-1), torch.tensor([1 - h, 1 + h, 0.5, 1, 2], dtype=torch.float64)
        slope = (p * (logits - (p * logits).sum()) ** 2).sum()  # Var / 1³
        below, above, *shown = entropy(logits, t).tolist()
        errors.append((above - below) / (2 * h) / slope - 1)
        rows.append([repr(text), *shown, slope.item()])
        (line,) = ax.semilogx(grid, entropy(logits, grid), label=repr(text))
        ax.plot([0.75, 1, 1.33], [shown[1] + slope * x for x in (-0.25, 0, 0.33)], "k", lw=1)
        ax.plot(1, shown[1], "o", color=line.get_color())
    run.table("Entropy (nats)", ["text", "T = 0.5", "T = 1", "T = 2", "slope at 1"], rows)
    because = "a central difference of step h errs by order h², 1e-8"
    run.agree("slope over Var/T³, less one", torch.stack(errors), 1e-5, because, decides=True)
    ax.axhline(math.log(len(logits)), color="grey", ls=":", label="ln V: all tokens alike")
    ax.set(xlabel="temperature T", ylabel="entropy (nats)", title="What temperature does")
    ax.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
    ax.legend(loc="center left")
    run.figure(
        fig,
        "entropy",
        f"The next token of {called(run)}. Thin lines at 1: the slope Var/T³.",
        alt="Line plot of entropy over temperature: for each of three prompts a curve that "
        "rises from 0 towards ln V, with a short tangent at temperature 1.",
    )
    one, two = (math.exp(h) for h in rows[-1][2:4])
    return f"After {rows[-1][0]}, e^H grows from {one:.0f} tokens at T = 1 to {two:,.0f} at T = 2."


# %% [markdown]
# ## 4. Cutting the tail
# Each of the tens of thousands of unlikely tokens is nearly impossible; together they are not, and
# one bad token spoils what follows. So samplers cut the tail before they draw: set its logits to
# $-\infty$, and the softmax shares its weight among the rest.
#
# **Top-k** keeps the $k$ likeliest (Fan et al. 2018), whether the model is sure or not. **Top-p**
# keeps the smallest set that holds at least the share $p$, the *nucleus* (Holtzman et al. 2020):
# few where the model is sure, many where it hesitates. With $p = 0.67$, 0.24 and 0.09, a nucleus of
# 0.9 needs two tokens, one of 0.6 just the first. **Min-p** keeps what has at least a given part of
# the top probability (Nguyen et al. 2024).
#
# **Try it**: draw ten tokens in the last view of this section, then drag the temperature to 0.2 and
# to 2. The same ten random numbers choose other tokens. At temperature 2, which cut brings back
# sensible ones: top-k 50, top-p 0.9 or min-p 0.1?


# %% 4. Cutting the tail
def top_k(logits: Tensor, k: int) -> Tensor:
    """(..., V) -> (..., V), -inf for all but the k likeliest."""
    return logits.masked_fill(
        logits < logits.topk(min(k, logits.shape[-1])).values[..., -1:], -math.inf
    )


@lab.exercise(
    level=1,
    hints=(
        "Sort the probabilities from the largest down and add them up as you go.",
        "A token stays if those before it don't yet hold p: so the one that crosses p stays, too.",
        "sort(descending=True), cumsum less the token's own, compare with p, and scatter back.",
    ),
)
def top_p(logits: Tensor, p: float) -> Tensor:
    """(..., V) -> (..., V), -inf outside the fewest likeliest tokens that hold at least p."""
    ordered, where = logits.sort(-1, descending=True)
    share = ordered.softmax(-1)
    before = share.cumsum(-1) - share  # what the likelier tokens hold
    outside = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, where, before >= p)
    return logits.masked_fill(outside, -math.inf)


def min_p(logits: Tensor, part: float) -> Tensor:
    """(..., V) -> (..., V), -inf where the probability is below `part` of the largest."""
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(part), -math.inf)


@lab.experiment
def our_cuts_are_the_librarys(run: Run):
    """Top-k, top-p and min-p by hand keep what `transformers` keeps; they differ where it counts.

    Predict: how many tokens hold 90 % where the model is sure, and how many where it isn't?
    """
    model, tokenizer = smollm2(run)
    texts = [tokenizer(text).input_ids for text in (SURE, UNSURE, CARROLL)]
    rows = torch.cat([logits_of(model, ids[:20])[::3] for ids in texts]).double()  # (rows, V)
    cuts: list[tuple[str, Callable, Any, list[Any]]] = [
        ("top-k", top_k, library.TopKLogitsWarper, [1, 50, 5000]),
        ("top-p", top_p, library.TopPLogitsWarper, [0.1, 0.5, 0.9, 0.99]),
        ("min-p", min_p, library.MinPLogitsWarper, [0.01, 0.1, 1.0]),
    ]
    for name, ours, theirs, values in cuts:
        # sorted, for two tokens with equal logits at the edge may change places
        pairs = [(ours(rows, x), theirs(x)(None, rows)) for x in values]
        unlike = sum((a.sort(-1).values != b.sort(-1).values).sum().item() for a, b in pairs)
        run.check(f"{name}: logits unlike the library's", unlike, equals=0, decides=True)
    rank, (fig, ax) = torch.arange(1, rows.shape[1] + 1), plt.subplots()
    kept = []
    for i, (name, ids) in enumerate(zip(("sure", "unsure"), texts, strict=False)):
        logits = logits_of(model, ids)[-1].double().cpu()
        p = logits.softmax(-1).sort(descending=True).values
        kept.append([int(x.isfinite().sum()) for x in (top_p(logits, 0.9), min_p(logits, 0.05))])
        inside = p.cumsum(0) - p < 0.9
        ax.loglog(rank, p, f"C{i}", label=f"{name}: {kept[i][0]} in the nucleus")
        ax.loglog(rank[inside], p[inside], f"C{i}o-", markevery=[0], ms=9, lw=7, alpha=0.4)
    ax.axvline(50, color="grey", ls=":", label="top-k with k = 50 cuts both here")
    ax.set(xlabel="rank of the token", ylabel="probability", ylim=(1e-9, 1.5))
    ax.set_title("The next token, and its nucleus")
    ax.legend(loc="upper right")
    run.figure(
        fig,
        "nucleus",
        f"{called(run)} after {SURE!r} and {UNSURE!r}; thick: p = 0.9.",
        alt="Line plot on log scales of probability over rank, one falling curve for each of "
        "two prompts; the tokens of the nucleus are drawn thick, and a dotted line marks "
        "k = 50.",
    )
    prompts = (UNSURE, SURE, "The capital of France is", "2 + 2 =")
    last = {text: logits_of(model, tokenizer(text).input_ids)[-1] for text in prompts}
    run.view("sampler", "sampler", *view_data.sampler(last, tokenizer))
    return (
        f"Sure, top-p 0.9 keeps {kept[0][0]} and min-p 0.05 {kept[0][1]} tokens; "
        f"unsure, {kept[1][0]} and {kept[1][1]}."
    )


# %% [markdown]
# ## 5. A penalty for repetition
# The **repetition penalty** $\theta > 1$ pushes down tokens that stand in the text already (Keskar
# et al. 2019). It was published as $l/\theta$; but dividing a *negative* logit makes it larger, a
# reward. So code divides what is positive and multiplies what is negative. Even then it rests on
# something that means nothing: logits are known up to a constant, their zero is arbitrary, and the
# penalty acts around that zero. (In beam search `transformers` applies it to log-probabilities, all
# of them negative: another penalty under the same name.)


# %% 5. A penalty for repetition
@lab.exercise(
    level=1,
    hints=(
        "Gather the logits of the ids that occurred: for each row its own ids.",
        "A penalty must lower a logit. What does dividing by 1.3 do to -2?",
        "Divide where it is positive, multiply where it is negative, scatter back, once for each.",
    ),
)
def repetition_penalty(ids: Tensor, logits: Tensor, penalty: float) -> Tensor:
    """Ids so far (B, T), logits (B, V) -> (B, V): lower by the factor for each id that occurred."""
    score = logits.gather(1, ids)  # (B, T)
    return logits.scatter(1, ids, torch.where(score < 0, score * penalty, score / penalty))


def distinct(ids: list[int], n: int = 4) -> float:
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams)


@lab.experiment
def the_penalty_rests_on_an_arbitrary_zero(run: Run):
    """The penalty by hand is the library's; both change when a constant is added to all logits.

    Predict: does taking 20 from all logits change the distribution without a penalty? With one?
    """
    model, tokenizer = smollm2(run)
    text = CARROLL.removesuffix(" conversations?”")
    ids = torch.tensor([tokenizer(text).input_ids], device=run.device)
    logits = logits_of(model, ids[0].tolist())[-1:].double()  # (1, V)
    theirs: Any = library.RepetitionPenaltyLogitsProcessor(1.3)
    off = repetition_penalty(ids, logits, 1.3) - theirs(ids, logits)
    run.agree("less the library's", off, decides=True)
    change = (repetition_penalty(ids, logits, 1.3) - logits).gather(1, ids)
    what, because = "largest change of a seen token's logit", "a penalty may only lower"
    run.check(what, change.max(), at_most=0, because=because)
    lower = logits - 20
    run.agree("without a penalty, 20 lower", lower.softmax(-1) - logits.softmax(-1))
    penalised = (repetition_penalty(ids, x, 1.3) for x in (logits, lower))
    seen = [x.softmax(-1)[0, ids[0].unique()].sum().item() for x in (logits, *penalised)]
    because = "a seen token's l falls by 0.23·l where l > 0, by 0.3·|l| where l < 0"
    moved = abs(seen[2] - seen[1])
    name = "with it, the share that moves"
    run.check(name, moved, at_least=0.01, because=because, decides=True)
    shown = "seen tokens have {:.0%} of the distribution, penalised {:.0%}, from 20 lower {:.0%}"
    return f"After “without pictures or”, {shown.format(*seen)}."


# %% [markdown]
# ## 6. Many prompts at once
# A model runs a **batch**: $B$ texts of one length. Prompts differ in length, so the short ones are
# filled up, and for generation on the *left*, since the next token follows the last place. The
# model must not notice. Two things tell it what is text, and then any ids will do as filling:
#
# - the **attention mask**, 1 where there is text: without it tokens look at the filling;
# - the **position ids**, 0 for a text's first token, whatever is in front of it.
#
# Are positions needed? With **rotary** positions (RoPE, Su et al. 2021), as in SmolLM2, only the
# distance of two tokens enters, and filling shifts all alike: the mask is enough. A model with a
# learned vector for each **absolute** position, as GPT-2, needs both.


# %% 6. Many prompts at once
@lab.exercise(
    level=2,
    hints=(
        "How many places does each prompt lack to be as long as the longest?",
        "The filling goes in front; the mask is 0 there and 1 on the prompt.",
        "A prompt's own places count 0, 1, 2, …; below the filling a position of 0 does no harm.",
    ),
)
def left_pad(prompts: list[list[int]], pad: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts of any lengths -> ids, mask (1 for text) and positions, (B, T) each, int64."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])  # (B, T)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


@lab.experiment
@torch.no_grad()
def filling_must_not_be_noticed(run: Run):
    """Padded on the left, a prompt gets its own logits: RoPE needs the mask, GPT-2 positions too.

    Predict: which of the two models minds if it is given the mask, but no position ids?
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    model, tokenizer = smollm2(run)
    config = GPT2Config(
        vocab_size=500,
        n_positions=64,
        n_embd=64,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    config.initializer_range = 0.2  # untrained; at GPT-2's own 0.02 positions hardly matter yet
    random: Any = GPT2LMHeadModel(config)
    random = random.double().to(run.device).eval()
    prompts = {
        f"RoPE: {called(run)}": (
            model,
            [tokenizer(x).input_ids for x in (SURE, UNSURE, CARROLL[:90])],
        ),
        "absolute: a random GPT-2": (random, [[7, 8, 9], [1, 2, 3, 4, 5], list(range(20, 36))]),
    }
    rows = []
    for name, (net, batch) in prompts.items():
        alone = torch.stack([logits_of(net, ids)[-1] for ids in batch])  # (B, V)
        ids, mask, positions = (x.to(run.device) for x in left_pad(batch))
        errors = [
            (net(ids, attention_mask=m, position_ids=p).logits[:, -1] - alone).abs().max().item()
            for m in (mask, None)
            for p in (positions, None)
        ]
        rows.append([name, *errors])
        enough = errors[:2] if name.startswith("RoPE") else errors[:1]
        bound = rounding(alone) if name.startswith("RoPE") else 1e-10
        what = f"{name}, with what it needs"
        run.check(what, enough, at_most=bound, because="rounding", decides=True)
        because = "the partner: logits are of order one and more"
        less = errors[len(enough) :]
        run.check(f"{name}, with less", less, at_least=0.05, because=because, decides=True)
    columns = ["positions", "mask and positions", "mask", "positions alone", "neither"]
    run.table("Largest change of a logit, batch against single", columns, rows)


# %% [markdown]
# ## 7. A cache
# `write` calls the model on the whole text for each new token, though the text before it didn't
# change. Nothing that the model computed there changed either: a place sees only what stands before
# it. What later places need of it are its **keys** and **values**, two vectors in each layer and
# each key-value head (LLM06 explains them). Keep them in a **KV cache**, and each step computes one
# place. Generation then has two parts: **prefill**, one call on the prompt, and **decode**, one
# place a call. For $T$ tokens the cache holds, for each prompt,
#
# $$2 \cdot L \cdot H_\text{kv} \cdot D \cdot T \cdot \text{bytes per number}$$
#
# with $L$ layers, $H_\text{kv}$ key-value heads in each, and $D$ numbers in a key or a value: for
# SmolLM2 2 · 30 · 3 · 64 = 11,520 numbers, in float32 46 kB, for each token.
#
# The tokens are the same, up to rounding. Where two tokens are nearly as likely, rounding decides:
# float32 keeps 24 bits of each number, **bfloat16**, which takes 2 bytes, only 8.
#
# Now the whole generator: any number of prompts, any changes to the logits, any choice. `change`
# holds functions of (ids, logits), which is also how `transformers`' own logits processors are
# called. (One that counts runs of tokens, not just tokens, wants prompts of one length.)


# %% 7. A cache
@torch.no_grad()
def generate(
    model: Any,
    prompts: list[list[int]],
    new: int,
    change: Iterable[Callable[[Tensor, Tensor], Tensor]] = (),
    choose: Choice = greedy,
    end: Iterable[int] = (),
) -> list[list[int]]:
    """Up to `new` ids after each prompt, an end token the last: as `write` does, with a cache."""
    ids, mask, positions = (x.to(model.device) for x in left_pad(prompts))  # (B, T) each
    kept, fresh, width = DynamicCache(config=model.config), ids, ids.shape[1]
    ends, going = torch.tensor(list(end), device=ids.device), ids[:, 0] >= 0  # (B,), all True
    for _ in range(new):
        here = positions[:, -fresh.shape[1] :]
        out = model(
            fresh,
            attention_mask=mask,
            position_ids=here,
            cache=kept,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = out.logits[:, -1].float()  # (B, V)
        # what fills is no text that a penalty may count: the last token again stands for it
        text = ids.where(mask == 1, ids[:, -1:])
        for function in change:
            logits = function(text, logits)
        fresh = choose(logits)[:, None]  # (B, 1)
        ids, mask = torch.cat((ids, fresh), 1), F.pad(mask, (0, 1), value=1)
        positions = torch.cat((positions, positions[:, -1:] + 1), 1)
        going = going & ~torch.isin(fresh[:, 0], ends)
        if not going.any():
            break
    return [until_end(row, set(end)) for row in ids[:, width:].tolist()]


def until_end(row: list[int], end: set[int]) -> list[int]:
    stops = [i for i, token in enumerate(row) if token in end]
    return row[: stops[0] + 1] if stops else row


def differing(got: list[list[int]], want: list[list[int]]) -> int:
    return sum(a != b for x, y in zip(got, want, strict=True) for a, b in zip(x, y, strict=True))


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """Collect how many places each call of the model computes."""
    places: list[int] = []
    hook = model.get_input_embeddings().register_forward_pre_hook(
        lambda _module, inputs: places.append(inputs[0].numel())
    )
    try:
        yield places
    finally:
        hook.remove()


@lab.experiment
@torch.no_grad()
def the_cache_changes_no_token(run: Run):
    """With a cache the tokens are the same in float32, for far fewer places; its size is a formula.

    Predict: and in bfloat16? After how many tokens would the two texts part?
    """
    sizes, rows = run.pick(tiny=(1, 8), small=(3, 48), full=(3, 96)), []
    texts = (UNSURE, SURE, "The experiment showed that", CARROLL[:60])
    for name, which, some, new in ((called(run), smollm2, *sizes), ("glass model", glass, 4, 32)):
        model, tokenizer = which(run)
        prompts, c = [tokenizer(text).input_ids for text in texts[:some]], model.config
        with counted(model) as plain:
            want = [write(model, prompt, new) for prompt in prompts]
        with counted(model) as cached:
            got = [generate(model, [prompt], new)[0] for prompt in prompts]
        run.check(f"{name}: tokens unlike", differing(got, want), equals=0, decides=True)
        each = sum(sum(range(len(p), len(p) + new)) for p in prompts)
        because = "the whole text"
        run.check(f"{name}: places without", sum(plain), equals=each, because=because, decides=True)
        each = sum(len(p) + new - 1 for p in prompts)
        because = "each once"
        run.check(f"{name}: places with", sum(cached), equals=each, because=because, decides=True)
        short, ids = which(run, torch.bfloat16)[0], torch.ones(2, 10, dtype=torch.long)
        for net in (model, short):
            kept = net(ids.to(run.device), use_cache=True, logits_to_keep=1).cache
            size = sum(layer.keys.nbytes + layer.values.nbytes for layer in kept.layers)
            each = 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * net.dtype.itemsize
            what, bytes_ = f"{name}: bytes of a {str(net.dtype)[6:]} cache", each * ids.numel()
            because = "2·L·H_kv·D·T·size, two texts of 10"
            run.check(what, size, equals=bytes_, because=because, decides=True)
        for prompt in prompts:
            a, b = write(short, prompt, new), generate(short, [prompt], new)[0]
            same = next((i for i in range(new) if a[i] != b[i]), new)
            rows.append([name, repr(tokenizer.decode(prompt)), same, new])
    what, batch = "glass model: tokens unlike, in a batch of four", generate(model, prompts, new)
    run.check(what, differing(batch, want), equals=0)
    run.table("In bfloat16", ["", "prompt", "tokens that are equal", "of"], rows)
    parted = sum(row[2] < row[3] for row in rows)
    run.measure("prompts on which bfloat16 parts", parted)
    return f"In bfloat16, cached and uncached text parted on {parted} of {len(rows)} prompts."


# %% [markdown]
# ## 8. What a token costs
# Without a cache step $t$ computes $t$ places; with one, one place, which still reads all keys and
# values, but that is little: 46 kB a token, beside 538 MB of weights. So the speed-up grows with
# the length of the text.
#
# Decoding is the slow part for another reason. Each step reads *every weight* once, to multiply it
# with one vector: two operations (multiply and add) for each weight, which in float32 is 4 bytes.
# Processors compute tens of operations in the time they read a byte (GPUs in bfloat16, hundreds),
# so **decoding waits for memory**, and
#
# $$\text{time per token} \approx \frac{\text{bytes of weights}}{\text{bandwidth}}$$
#
# The share of the memory's bandwidth that is used so is the **MBU**, model bandwidth utilization;
# for the bandwidth we take what a plain sum reads. An MBU far below 1 says that something else
# takes the time: arithmetic, or starting hundreds of small operations. Two things follow. A batch
# shares the reading, so $B$ prompts cost little more than one, until the arithmetic takes over. And
# weights of half the bytes should take half the time, if their kernels (the routines that multiply)
# keep up: so a model that runs in bfloat16 is also *stored* so. (Mixed precision, as in training,
# keeps float32 and converts in each step: that would read more, not less. Ask `from_pretrained` for
# it: `model.bfloat16()` would round the frequencies of RoPE as well, and turn far tokens by wrong
# angles.)


# %% 8. What a token costs
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def random_ids(model: Any, batch: int, length: int) -> Tensor:
    return torch.randint(model.config.vocab_size, (batch, length), device=model.device)


def one_step(model: Any, batch: int, length: int) -> Callable[[], None]:
    """A decoding step behind `length` tokens, that can be repeated."""
    kept = model(random_ids(model, batch, length), use_cache=True, logits_to_keep=1).cache
    ids = random_ids(model, batch, 1)

    def step() -> None:
        model(ids, cache=kept, use_cache=True)
        kept.crop(-1)

    return step


@lab.experiment
@torch.no_grad()
def the_cache_pays_more_the_longer_the_text(run: Run):
    """A cached step hardly grows with the text, a whole one does: the speed-up grows with length.

    Predict: behind 256 tokens, how many times faster is a step with the cache?
    """
    model, rows = smollm2(run, DTYPES[run.precision])[0], []
    lengths = run.pick(tiny=[16, 64, 256], small=[64, 256, 1024, 2048], full=[256, 1024, 4096])
    for t in run.progress(lengths, "lengths"):
        whole = partial(model, random_ids(model, 1, t), use_cache=False, logits_to_keep=1)
        a, b = seconds_paired(one_step(model, 1, t), whole, run.pick(tiny=3, small=7, full=7))
        gain = median(y / x for x, y in zip(a, b, strict=True))
        rows.append([t, 1000 * median(a), 1000 * median(b), gain])
    run.table("The next token (ms)", ["tokens so far", "cached", "whole text", "speed-up"], rows)
    _, steps, wholes, gains = zip(*rows, strict=True)
    run.measure(f"speed-up behind {lengths} tokens", gains, timed=True)
    because = f"{lengths[-1] // lengths[0]} times the places, if nothing else took time"
    grew = gains[-1] / gains[0]
    run.measure("how it grew", grew, expect_at_least=2, because=because, timed=True, decides=True)
    each, what = steps[-1] / (wholes[-1] / lengths[-1]), "a token decoded, in tokens of prefill"
    run.measure(what, each, expect_at_least=2, because="prefill shares the weights", timed=True)
    fig, ax = plt.subplots()
    ax.loglog(lengths, wholes, "o-", label="without a cache: the whole text each time")
    ax.loglog(lengths, steps, "o-", label="with a cache: one place")
    ax.set(xlabel="tokens so far", ylabel="time for the next token (ms)")
    ax.set_title(f"A cache: {gains[0]:.1f} to {gains[-1]:.0f} times faster")
    ax.set_xticks(lengths, [str(t) for t in lengths])
    ticks = [10.0**e * m for e in range(-1, 5) for m in (1, 2, 5)]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_ylim(min(steps) / 1.5, max(wholes) * 1.5)
    ax.minorticks_off()
    ax.legend()
    run.figure(
        fig,
        "cache",
        f"{called(run)}, one text, {run.precision}, on the run's device.",
        alt="Line plot of milliseconds for the next token over the number of tokens so far, "
        "one curve with a cache and one without.",
    )
    return f"Decoding one token took as long as prefill takes for {each:.0f}."


@lab.experiment
@torch.no_grad()
def decoding_waits_for_memory(run: Run):
    """Decoding waits for memory: a batch shares the reading, and shorter weights take less time.

    Predict: eight texts at once: how many times as long does a step take?
    """
    model, rows = smollm2(run, DTYPES[run.precision])[0], []
    weights, n = sum(p.nbytes for p in model.parameters()), run.pick(tiny=3, small=20, full=20)
    block, single = torch.ones(weights // 4, device=run.device), one_step(model, 1, 32)
    for batch in run.progress([1, 2, 4, 8, 16], "batches"):
        ones, many = seconds_paired(single, one_step(model, batch, 32), n)
        gain, took = median(batch * x / y for x, y in zip(ones, many, strict=True)), median(many)
        done = 2 * weights / model.dtype.itemsize * batch / took / 1e9
        rows.append([batch, 1000 * took, batch / took, gain, weights / took / 1e9, done])
    columns = ["texts", "ms for a step", "tokens/s", "over one text's", "weights, GB/s", "GFLOP/s"]
    run.table("A step behind 32 tokens; GFLOP: 10⁹ operations", columns, rows)
    steps, sums = seconds_paired(single, block.sum, n)
    run.measure("a plain sum reads", weights / median(sums) / 1e9, unit="GB/s", timed=True)
    mbu = median(y / x for x, y in zip(steps, sums, strict=True))
    run.measure("MBU, one text", mbu, timed=True)
    gain, because = rows[3][3], "they share the reading; 8 would be a free lunch"
    run.measure(
        "tokens/s, 8 texts over 1",
        gain,
        expect_at_least=2,
        because=because,
        timed=True,
        decides=True,
    )
    short, long = (one_step(smollm2(run, x)[0], 1, 32) for x in (torch.bfloat16, torch.float32))
    a, b = seconds_paired(short, long, n)
    ratio = median(x / y for x, y in zip(a, b, strict=True))
    because = "0.5 if memory were all; kernels for bfloat16 may be made for larger products"
    what = "a step in bfloat16, in steps in float32"
    run.measure(what, ratio, expect_at_most=1, because=because, timed=True, decides=True)
    return (
        f"One text used {mbu:.0%} of the bandwidth. A step for eight took {8 / gain:.1f} times as "
        f"long as for one, a step in bfloat16 {ratio:.2f} times as long as in float32."
    )


# %% [markdown]
# ## 9. Quality against diversity
# The likeliest text is not the likeliest *kind* of text: what people write is full of tokens that
# were not the likeliest. A greedy loop that has said something twice finds a third time likelier
# still, and never leaves (Holtzman et al. 2020). We count **distinct n-grams**: of all runs of four
# tokens in a text, the share that are different (Li et al. 2016).
#
# So there are two measures that pull apart: how likely a text's tokens are, on the average, and how
# varied it is (Caccia et al. 2020). Each way to choose is a point between them. Likely is meant
# here to the model as it is, at $T = 1$ and uncut, whichever way chose the tokens.


# %% 9. Quality against diversity
WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # greedy: draw from the best alone
    "greedy": lambda _, logits: top_k(logits, 1),
    "greedy, penalty": lambda ids, logits: top_k(repetition_penalty(ids, logits, 1.3), 1),
    "T = 0.7": lambda _, logits: logits / 0.7,
    "top-p 0.9": lambda _, logits: top_p(logits, 0.9),
    "T = 1": lambda _, logits: logits,
}


@lab.experiment
def greedy_repeats_itself(run: Run):
    """Greedy text repeats itself; sampled text doesn't, and is made of less likely tokens.

    Predict: is a text by a person likelier, to the model, than its own greedy one?
    """
    (model, tokenizer), new = smollm2(run), run.pick(tiny=80, small=256, full=512)
    starts = ("In the morning the train", "The old man opened the door and", "We know that")
    prompts, said = [tokenizer(text).input_ids for text in starts], []

    def each_its_way(ids: Tensor, logits: Tensor) -> Tensor:
        if said:  # of the step before only what was chosen then is of interest
            said[-1] = said[-1].gather(1, ids[:, -1:])
        said.append(logits.log_softmax(-1))
        parts = zip(WAYS.values(), ids.chunk(len(WAYS)), logits.chunk(len(WAYS)), strict=True)
        return torch.cat([way(*part) for way, *part in parts])

    texts = generate(model, prompts * len(WAYS), new, [each_its_way], sample)
    quality = torch.cat(said[:-1], 1).mean(1).view(len(WAYS), -1).tolist()  # (ways, prompts)
    ids = tokenizer(CARROLL).input_ids
    person = -F.cross_entropy(logits_of(model, ids)[:-1], torch.tensor(ids[1:]).to(model.device))
    (fig, ax), rows, spread = plt.subplots(), [], {}
    for i, (name, likely) in enumerate(zip(WAYS, quality, strict=True)):
        mine = texts[i * len(prompts) :][: len(prompts)]
        spread[name] = [distinct(text) for text in mine]
        tail = repr(tokenizer.decode(mine[0][-10:]))
        rows.append([name, median(spread[name]), median(likely), tail])
        ax.plot(spread[name], likely, f"C{i}o", alpha=0.4)
        ax.plot(rows[-1][1], rows[-1][2], f"C{i}D", ms=10, label=name)
    columns = ["choice", "distinct 4-grams", "ln p", f"the end after {starts[0]!r}"]
    run.table(f"Medians of {len(prompts)} texts of {new} tokens; ln p per token", columns, rows)
    same, other = (rows[list(WAYS).index(name)][1] for name in ("greedy", "T = 1"))
    run.measure("greedy: distinct 4-grams", same, expect_at_most=0.8, decides=True)
    run.measure("T = 1: distinct 4-grams", other, expect_at_least=0.9, decides=True)
    what, because = "Carroll's text over greedy, ln p per token", "as Holtzman et al. 2020, fig. 2"
    run.measure(what, person - rows[0][2], unit="nats", expect_at_most=0, because=because)
    ax.axhline(person.item(), color="grey", ls=":", label="written by Lewis Carroll")
    ax.set(xlabel="diversity: distinct 4-grams (share)", title="Quality against diversity")
    ax.set_ylabel("quality: mean ln p (nats per token)")
    ax.legend()
    run.figure(
        fig,
        "quality",
        f"{called(run)}. Small: a text of {new} tokens; large: median.",
        alt="Scatter plot of mean ln p over the share of distinct 4-grams, a colour for each "
        "way of sampling; a dotted line marks Lewis Carroll's own text.",
    )
    return f"Distinct 4-grams: {rows[0][1]:.0%} in greedy text, {rows[-1][1]:.0%} at T = 1."


# %% [markdown]
# ## 10. Searching, and guessing ahead
# The greedy text isn't the likeliest one: a token that is best now may lead nowhere. **Beam
# search** keeps the $n$ likeliest beginnings. Each step extends each by all tokens, and keeps the
# best $n$ of these $nV$ by their summed log-probability; one that ends with an end token is set
# aside, with its score divided by $\text{length}^\alpha$, for otherwise short texts would win: each
# token adds a negative number. $\alpha$ is the **length penalty**, which (by its name it should
# not) favours length. When to stop: with $n$ finished texts (`early_stopping=True`); when no
# running one looks better than the worst of them at its present length (`False`); or at any length
# it might reach (`"never"`).
#
# **Guessing ahead** makes greedy decoding faster and leaves its text alone: guess $k$ tokens
# cheaply, let the model judge all of them in *one* call, keep those it would have chosen, and its
# own choice after the first wrong one (Stern et al. 2018; for sampling, *speculative decoding*,
# Leviathan et al. 2023). The guess comes from a smaller model or from the text itself, where it
# looks for what followed its last tokens before (**prompt lookup**, Saxena 2023). We use the
# library's, and hold it to our greedy text.


# %% 10. Searching, and guessing ahead
@torch.no_grad()
def beam_search(
    model: Any,
    prompt: list[int],
    new: int,
    beams: int,
    change: Any = (),
    end: Iterable[int] = (),
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
) -> list[int]:
    """The best of `beams` texts after one prompt, as `generate(num_beams=…)` of transformers."""
    ids, scores = torch.tensor([prompt], device=model.device), torch.zeros(1, device=model.device)
    kept, fresh, ends = DynamicCache(config=model.config), ids, torch.tensor(list(end)).to(ids)
    done: list[tuple[float, list[int]]] = []
    for n in range(1, new + 1):
        logp = model(fresh, cache=kept, use_cache=True, logits_to_keep=1).logits[:, -1].float()
        logp = logp.log_softmax(-1)  # (beams, V)
        for function in change:
            logp = function(ids, logp)
        total, where = (scores[:, None] + logp).flatten().topk((1 + max(len(ends), 1)) * beams)
        parent, token = where // logp.shape[1], where % logp.shape[1]
        texts = torch.cat((ids[parent], token[:, None]), 1)
        ended = torch.isin(token, ends) | (n == new)
        over = ended[:beams].nonzero()[:, 0]
        marks = (total[over] / n**length_penalty).tolist()
        done += zip(marks, texts[over].tolist(), strict=True)
        done = sorted(done, key=lambda one: -one[0])[:beams]
        alive = (~ended).nonzero()[:beams, 0]
        if n == new or (len(done) == beams and early_stopping is True):
            break
        longest = new if early_stopping == "never" and length_penalty > 0 else n
        if len(done) == beams and total[alive[0]] / longest**length_penalty <= done[-1][0]:
            break
        ids, scores, fresh = texts[alive], total[alive], token[alive, None]
        kept.reorder_cache(parent[alive])
    return done[0][1][len(prompt) :]


def their_generate(
    model: Any, prompt: list[int], new: int, end: list[int], **how: Any
) -> list[int]:
    ids = torch.tensor([prompt], device=model.device)
    how = {"do_sample": False, "pad_token_id": 0, "eos_token_id": end, "max_new_tokens": new, **how}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), **how)
    return out[0, len(prompt) :].tolist()


def our_generate(model: Any, prompt: list[int], new: int, end: list[int], **how: Any) -> list[int]:
    """Our generator for what the options of transformers' `generate` ask."""
    change: list[Any] = []
    if theta := how.pop("repetition_penalty", None):
        change.append(partial(repetition_penalty, penalty=theta))
    if n := how.pop("no_repeat_ngram_size", None):  # no run of n tokens twice; theirs, in our loop
        change.append(library.NoRepeatNGramLogitsProcessor(n))
    if beams := how.pop("num_beams", None):
        return beam_search(model, prompt, new, beams, change, end, **how)
    return generate(model, [prompt], new, change, end=end)[0]  # guessing ahead changes no text


@lab.experiment
def ours_writes_what_transformers_writes(run: Run):
    """Greedy, by beams, with changed logits, ahead: our generators give `model.generate`'s ids.

    Predict: how many tokens does one call of the model yield when prompt lookup guesses ahead?
    """
    options: list[dict[str, Any]] = [
        {},
        {"num_beams": 3, "repetition_penalty": 1.3},
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 3},
        {"num_beams": 3},
        {"num_beams": 3, "early_stopping": True},
        {"num_beams": 4, "length_penalty": 2.0, "early_stopping": "never"},
        {"num_beams": 2, "length_penalty": 0.0},
        {"prompt_lookup_num_tokens": 8},
    ]
    small, texts = run.pick(tiny=24, small=60, full=60), (CARROLL[:50], "Will you, won’t you, will")
    for name, (model, tokenizer), new, starts, some in (
        ("glass model", glass(run), small, texts, len(options)),
        (called(run), smollm2(run), run.pick(tiny=8, small=40, full=80), (UNSURE,), 2),
    ):
        prompts, rows, wrong = [tokenizer(text).input_ids for text in starts], [], 0
        stop, never = tokenizer(".").input_ids[-1:], [model.config.eos_token_id]
        greedily = [our_generate(model, prompt, new, []) for prompt in prompts]
        for how in options[:some]:
            end = stop if {"early_stopping", "length_penalty"} & how.keys() else never
            got = [our_generate(model, prompt, new, end, **how) for prompt in prompts]
            with counted(model) as calls:
                want = [their_generate(model, prompt, new, end, **how) for prompt in prompts]
            wrong += sum(a != b for a, b in zip(got, want, strict=True))
            shown = ", ".join(f"{key}={value}" for key, value in how.items()) or "greedy"
            other = sum(a != b for a, b in zip(got, greedily, strict=True))
            rows.append([shown, sum(map(len, got)), len(calls), f"{other} of {len(got)}"])
        columns = ["options", "tokens", "their calls of the model", "texts that aren't greedy's"]
        run.table(name, columns, rows)
        run.check(f"{name}: texts unlike model.generate's", wrong, equals=0, decides=True)
        others, what = sum(row[3][0] != "0" for row in rows), f"{name}: options that change a text"
        if run.options.model is None or some == len(options):  # of others nobody knows
            run.check(what, others, at_least=len(rows) // 2, because="the partner")
        if some == len(options):
            each = rows[-1][1] / rows[-1][2]
    return f"Guessing ahead, the glass model yielded {each:.2f} tokens a call."


# %% [markdown]
# ## 11. Stop sequences
# A program that calls a model often wants it to stop at a *string*: a blank line, "User:". The loop
# sees tokens, and their edges lie where they like: `\n\nUs` may come in one, "er:" in the next. A
# user who reads along must never see a part of the stop string either, so text that might be its
# beginning is **held back** until it is clear what it is. With several stop strings, the one that
# is complete first ends the text (of two complete together, the longer), however the pieces are
# cut.


# %% 11. Stop sequences
@lab.exercise(
    level=3,
    hints=(
        "Keep what isn't shown yet in one string: a stop may begin in one piece, end in another.",
        "After each piece: is a stop complete? Which was first? Show what is before it, and end.",
        "If none is: the longest end of the text that a stop begins with must wait; show the rest.",
    ),
)
def until_stop(pieces: Iterable[str], stops: list[str]) -> Iterator[str]:
    """Yield the text of `pieces` as early as is safe, up to the stop string complete first."""
    held = ""
    for piece in pieces:
        held += piece
        found = [(held.find(stop) + len(stop), held.find(stop)) for stop in stops if stop in held]
        if found:
            yield held[: min(found)[1]]
            return
        starts = (n for stop in stops for n in range(len(stop)) if held.endswith(stop[:n]))
        wait = max(starts, default=0)
        yield held[: len(held) - wait]
        held = held[len(held) - wait :]
    yield held


@lab.experiment
def a_stop_is_never_shown(run: Run):
    """However a text is cut into pieces, the same is shown, and never a part of a stop string.

    Predict: looking for the stop in each piece alone, how often is it missed?
    """
    tokenizer, text = smollm2(run)[1], "Answer: 42.\nQuestion two: what, then?\nQuestion three"
    stops, missed, shown = ["\nQuestion t", "then", "\nQuest of"], 0, []
    want = text[: text.index(stops[0])]
    cuts = [[tokenizer.decode(i) for i in tokenizer(text).input_ids], list(text), [text]]
    for _ in range(200):
        places = sorted({0, len(text), *torch.randint(len(text), (12,)).tolist()})
        cuts.append([text[a:b] for a, b in pairwise(places)])
    for pieces in cuts:
        shown.append("".join(until_stop(pieces, stops)))
        missed += not any(stops[0] in piece for piece in pieces)
    run.check("shown otherwise", sum(one != want for one in shown), equals=0, decides=True)
    return f"Of {len(cuts)} ways to cut it, {missed} have the stop string in no piece as a whole."


# %% [markdown]
# ## 12. How good is it?
# A good model finds real text likely. Its **loss** is the mean of $-\ln p$ over a text's tokens, in
# nats per token; its **perplexity** $e^{\text{loss}}$, the number of equally likely tokens among
# which it seems to choose. Neither can be compared between two models with different vocabularies:
# who cuts a text into more tokens has an easier choice each time. **Bits per byte** can: the loss
# summed over the text, in bits (divide by $\ln 2$), divided by the text's bytes. It is also how
# small the text could be packed with the model's help (Shannon 1948). (The first token has nothing
# before it and isn't scored; in a text of 200 tokens that makes it half a percent too good.)
#
# A loss says little without a **baseline**. Who finds all $V$ tokens alike, the *uniform* one, has
# the loss $\ln V$ and the perplexity $V$. The *unigram* has counted how frequent each token is in
# other text, and ignores what stands before; the *bigram* has counted pairs, $n(a, b)$, and goes by
# the token before:
#
# $$p(b \mid a) = \frac{n(a, b) + k\,p(b)}{n(a) + k}$$
#
# It falls back on the unigram's $p(b)$ where $a$ was seldom met (MacKay & Peto 1995). LLM10 goes on
# to triples.
#
# A text longer than the model's **context** is read in windows. A token at a window's start has
# little before it, and looks worse than it is. So let windows overlap, and score in each only what
# is new: `stride` tokens. A small stride gives all a long context, and costs one call for each.
# Mind two traps: each token counts once, and the last window may hold fewer new ones, so sum first
# and divide by the tokens at the end.


# %% 12. How good is it?
@lab.exercise(
    level=2,
    hints=(
        "Which tokens does a window score? Those that no window before it did.",
        "The logits at place t are about token t + 1: shift by one before you gather.",
        "Feed ids[end - window : end], at first ids[:window]; sum the last end - scored losses.",
    ),
)
def strided_loss(model: Callable[[Tensor], Tensor], ids: Tensor, window: int, stride: int) -> float:
    """Mean nats of ids[1:], each scored once, from windows of `window` tokens.

    The first window holds ids[:window]; each later one ends `stride` tokens further (the last where
    the text does), is as long, and scores what is new. `model` maps (T,) to (T, V) logits; ids
    (N,); 1 ≤ stride < window.
    """
    total, scored = 0.0, 1  # nothing stands before the first token
    while scored < len(ids):
        end = min(window if scored == 1 else scored + stride, len(ids))
        inside = ids[max(0, end - window) : end]  # (T,)
        logp = model(inside).log_softmax(-1)[:-1]  # (T - 1, V), about inside[1:]
        loss = -logp.gather(1, inside[1:, None])[:, 0]  # (T - 1,)
        total += loss[-(end - scored) :].sum().item()
        scored = end
    return total / (len(ids) - 1)


def reads(model: Any) -> Callable[[Tensor], Tensor]:
    """The model as `strided_loss` calls it: (T,) -> (T, V)."""
    return lambda ids: logits_of(model, ids.tolist()).cpu()


def losses_by_counting(seen: Tensor, ids: Tensor, v: int, k: float = 200.0) -> tuple[float, float]:
    """Mean nats of ids[1:] (N,) by a unigram and a bigram that have counted `seen` (M,)."""
    n, pairs = seen.bincount(minlength=v).double(), seen[:-1] * v + seen[1:]
    unigram = (n + 1) / (n + 1).sum()  # one more of each: nothing is impossible
    found, times = pairs.unique(return_counts=True)
    asked = ids[:-1] * v + ids[1:]
    at = torch.searchsorted(found, asked).clamp(max=len(found) - 1)
    both = times[at] * (found[at] == asked)
    bigram = (both + k * unigram[ids[1:]]) / (n[ids[:-1]] + k)
    return -unigram[ids[1:]].log().mean().item(), -bigram.log().mean().item()


@lab.experiment
def bits_per_byte_compare_what_perplexity_cannot(run: Run):
    """The model beats counting; perplexity flatters shorter tokens; more context lowers the loss.

    Predict: how many bits does 4-bit SmolLM2 need for a byte of Shakespeare?
    """
    (model, tokenizer), (small, its_tokenizer) = smollm2(run), glass(run)
    plays, window = assets.shakespeare(), run.pick(tiny=64, small=512, full=2048)
    cut = len(plays) * 9 // 10  # what is counted stands before, what is tested after
    test = plays[cut:][: run.pick(tiny=700, small=8000, full=40_000)]
    other = plays[: run.pick(tiny=500_000, small=cut, full=cut)]
    ids, seen = (torch.tensor(tokenizer(text, verbose=False).input_ids) for text in (test, other))
    its = torch.tensor(its_tokenizer(test, verbose=False).input_ids)
    net, name, v = reads(model), called(run), model.config.vocab_size
    unigram, bigram = losses_by_counting(seen, ids, v)
    found = [
        ("uniform", math.log(v), ids),
        ("unigram", unigram, ids),
        ("bigram", bigram, ids),
        (f"{name}, stride {window - 1}", strided_loss(net, ids, window, window - 1), ids),
        (f"{name}, stride {window // 4}", strided_loss(net, ids, window, window // 4), ids),
        ("glass model, stride 16", strided_loss(reads(small), its, 64, 16), its),
    ]
    size = len(test.encode())
    rows = [
        [what, len(x), loss, math.exp(loss), loss * (len(x) - 1) / math.log(2) / size]
        for what, loss, x in found
    ]
    columns = ["", "tokens", "nats per token", "perplexity", "bits per byte"]
    run.table(f"{size:,} bytes of Shakespeare, windows of {window}", columns, rows)
    steps = [a[2] - b[2] for a, b in pairwise(rows[:4])]
    because = "uniform, unigram, bigram, model: each uses what the one before it doesn't"
    what = "steps down this ladder"
    run.measure(what, steps, unit="nats", expect_at_least=0, because=because, decides=True)
    gain, because = rows[3][2] - rows[4][2], "each token has more before it"
    what = "windows that overlap"
    run.measure(what, gain, unit="nats", expect_at_least=0, because=because, decides=True)
    per_byte, per_token = (rows[5][k] / rows[4][k] for k in (4, 2))
    return (
        f"The glass model needs {per_token:.2f} times {name}'s nats per token, but {per_byte:.2f} "
        f"times its bits per byte ({rows[5][4]:.2f} and {rows[4][4]:.2f}); counting pairs "
        f"{rows[2][4]:.2f}."
    )


# %% [markdown]
# ## 13. Smaller numbers
# Decoding reads all weights, so weights of 8 or 4 bits would make it faster, and fit where float32
# doesn't. **Rounding to the nearest**: divide each row of a weight matrix by a **scale**, its
# largest magnitude over $2^{b-1} - 1$, round to whole numbers, multiply back. With $b = 8$ a row
# has 255 levels, with 4 bits 15, with 3 bits 7. Do shorter **blocks** with a scale of their own
# help? In a block the largest is smaller. Q4_1, the format of our 4-bit SmolLM2, has blocks of 32,
# each with its minimum and a step: 16 levels between its least and its largest weight.
#
# What should it cost? Training ended near a minimum of the loss in the weights, so an error costs
# in proportion to its *square* (LeCun et al. 1990), in each layer anew: $c L \varepsilon^2$ nats or
# so, if in each of $L$ layers the matrices have the relative error $\varepsilon$ (root mean square
# of the errors over that of the weights), with $c$ to be measured. That is how to ask why one model
# minds more than another: is it the errors, the number of layers, or each layer's $c$?


# %% 13. Smaller numbers
def rounded(w: Tensor, bits: int, block: int = 0, least_to_largest: bool = False) -> Tensor:
    """(out, in), at most 2^bits levels a row, or each `block` weights where that divides it."""
    width = w.shape[-1]
    x = w.unflatten(-1, (-1, block if block and width % block == 0 else width))  # (out, blocks, _)
    if least_to_largest:
        low, high, levels = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True), 2**bits - 1
    else:
        low, high, levels = 0.0, x.abs().amax(-1, keepdim=True), 2 ** (bits - 1) - 1
    step = ((high - low) / levels).clamp(min=1e-12)
    return (((x - low) / step).round() * step + low).flatten(-2)


@torch.no_grad()
def with_layers_rounded(model: Any, some: int, **how: Any) -> tuple[Any, float]:
    """A copy with `some` layers' matrices rounded, and their relative error (root mean square)."""
    net, error, whole = copy.deepcopy(model), 0.0, 0.0
    layers = net.model.layers[:: max(1, len(net.model.layers) // some)][:some]
    for w in (w for w in layers.parameters() if w.dim() == 2):
        new = rounded(w, **how)
        error, whole = error + (new - w).square().sum(), whole + w.square().sum()
        w.copy_(new)
    return net, math.sqrt(error / whole)


A_ROW = [(f"{bits} bits, a scale for each row", {"bits": bits}) for bits in (8, 4, 3)]
BLOCKS = [
    ("4 bits, a scale for each 32 weights", {"bits": 4, "block": 32}),
    ("4 bits, as Q4_1", {"bits": 4, "block": 32, "least_to_largest": True}),
]
TELLS = 0.05  # nats: on one paragraph rounding may also gain a few hundredths, by chance


def square_law(run: Run, name: str, costs: Sequence[float], weighed: Sequence[float]) -> bool:
    """Compare the c of several roundings, where their costs tell: each cost is c · `weighed`."""
    c = [cost / weight for cost, weight in zip(costs, weighed, strict=True)]
    tells = min(costs) >= TELLS
    if tells:
        because = "the square law: one constant c, whatever the bits and how many layers"
        what = f"largest c of {name} over its smallest"
        run.measure(what, max(c) / min(c), expect_at_most=2, because=because)
    else:
        because = f"no bound: a cost below {TELLS} nats on one paragraph may be chance"
        run.measure(f"c of {name}", c, because=because)
    return tells


@lab.experiment
def eight_bits_are_nearly_free(run: Run):
    """8-bit weights are nearly free; 4 and 3 bits with a scale a row are not, in a deep model.

    Predict: 4-bit SmolLM2's weights had 4 bits once. Does rounding them to 4 again cost anything?
    """
    rows, laws, big = [], {}, called(run)  # laws: costs, and L·ε² of each
    for name, (model, tokenizer) in ((big, smollm2(run)), ("the glass model", glass(run))):
        ids, depth = torch.tensor(tokenizer(CARROLL).input_ids), model.config.num_hidden_layers
        loss = strided_loss(reads(model), ids, len(ids), 1)
        tries = [(what, how, depth) for what, how in A_ROW]
        if name == big:
            tries += [(what, how, depth) for what, how in BLOCKS]
            tries += [(what, how, 4) for what, how in A_ROW[1:] if depth > 4]
        for what, how, some in tries:
            net, error = with_layers_rounded(model, some, **how)
            cost = strided_loss(reads(net), ids, len(ids), 1) - loss
            rows.append([name, what, f"{some} of {depth}", error, cost])
            if how in ({"bits": 4}, {"bits": 3}):
                laws.setdefault(name, []).append((cost, some * error**2))
    columns = ["", "weights", "layers", "their error ε", "nats per token added"]
    run.table("Rounding, on a paragraph of Carroll", columns, rows)
    w = model.model.layers[0].mlp.up_proj.weight.detach()
    for bits in (8, 4, 3):
        off = (rounded(w, bits) - w).abs() / (w.abs().amax(-1, keepdim=True) / (2**bits / 2 - 1))
        run.check(f"{bits} bits: farthest, in steps", off.max(), at_most=0.501, because="rounding")
    eight, four, three, _, own = (row[4] for row in rows[:5])
    free = (-0.02, 0.02)
    because = "ε² is 300 times less"
    run.measure("8 bits: nats", eight, expect_between=free, because=because, decides=True)
    because = "15 levels for a whole row"
    run.measure("4 bits: nats", four, expect_at_least=0.1, because=because, decides=True)
    because = "7 levels for a whole row"
    run.measure("3 bits: nats", three, expect_at_least=1, because=because, decides=True)
    if run.options.model is None:
        stored, because = (-1e-3, 1e-3), "its weights lie on such levels already"
    else:
        stored, because = None, "no bound: this model's weights aren't known to be stored so"
    run.measure("4 bits as Q4_1: nats", own, expect_between=stored, because=because)
    tells = [square_law(run, name, *zip(*laws[name], strict=True)) for name in laws]
    if not tells[0]:
        return f"Rounding costs {big} too little, on this paragraph, to tell its c."
    deep, small = (median(cost / weight for cost, weight in law) for law in laws.values())
    return f"{big} loses c = {deep:.2f} nats for each layer and ε², the glass model {small:.2f}."


# %% [markdown]
# ## What surprised
# See what the chat model makes of the bare question. `model.generate(do_sample=True)` cuts to the
# top 50 unless told otherwise. And the relative errors of the weights are much alike in both
# models: what rounding costs the deep one more is that it has 7.5 times the layers, and that each
# minds more (the longer a model was trained for its size, the less rounding it bears: Kumar et al.
# 2024).


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Say what surprised, in the numbers of this run."""
    return " ".join(part(results) for part in (_distributions, _formats, _levels))


def _distributions(results: Results) -> str:
    penalty = "the_penalty_rests_on_an_arbitrary_zero"
    moved = results.value(penalty, "with it, the share that moves")
    person = results.value("greedy_repeats_itself", "Carroll's text over greedy, ln p per token")
    likely = "less" if person < 0 else "more"
    return (
        "Adding a constant to the logits, which changes no distribution, changes what a repetition "
        f"penalty does: it moved {moved:.0%} of the distribution. To the model, a paragraph by a "
        f"great writer is {likely} likely than its own greedy text, by {abs(person):.1f} nats a "
        "token."
    )


def _formats(results: Results) -> str:
    parted = results.shown("the_cache_changes_no_token", "prompts on which bfloat16 parts")
    memory = "decoding_waits_for_memory"
    step = results.value(memory, "a step in bfloat16, in steps in float32")
    mbu = results.value(memory, "MBU, one text")
    return (
        "bfloat16 may write another text with a cache than without, and neither is wrong: here on "
        f"{parted} of the prompts. With half the bytes a step for one text took {step:.2f} times "
        "as long as in float32: a format is as fast as its kernels, and an MBU of "
        f"{mbu:.0%} tells how much of a step is waiting for memory."
    )


def _levels(results: Results) -> str:
    rounding_costs = "eight_bits_are_nearly_free"
    by_row = results.value(rounding_costs, "4 bits: nats")
    own = results.value(rounding_costs, "4 bits as Q4_1: nats")
    return (
        f"Rounding weights to four bits cost {by_row:.2f} nats a token with a scale a row, "
        f"{own:.2f} as Q4_1: it depends on where the levels lie."
    )


# %% [markdown]
# Four strategies that `generate` once had (contrastive search, DoLa, diverse and constrained beams)
# have left transformers for code on the hub, so they aren't compared here.
#
# **Read on**: Shannon 1951, *Prediction and entropy of printed English* · Holtzman et al. 2020 on
# degeneration · Leviathan et al. 2023 on guessing ahead · Pope et al. 2022, *Efficiently scaling
# transformer inference* · Kumar et al. 2024, *Scaling laws for precision*. Next is LLM02, what a
# network is made of.

# %%
if __name__ == "__main__":
    lab.main()
