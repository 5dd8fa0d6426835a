# %% [markdown]
# # LLM01 · Introduction and inference
# Load a language model, let it write, change how it chooses, and measure which prompt works best.
#
# **You will be able to** load a pre-trained model, turn a text into token ids, logits and
# probabilities, and write the loop that generates text. You will adjust its settings, talk to a
# chat model, and compare prompts with their uncertainty. **Builds on** Python and a little
# probability. You need not have called a model before. **Takes** 40 minutes to read, a minute to
# run at size `tiny`, the default on a CPU.

# %% Imports
import math
from collections.abc import Callable, Collection, Iterator
from functools import cache, partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from labs.kit import Lab, Results, Run, assets, tolerance
from labs.llm01_inference import figures, view_data
from labs.llm01_inference.forms import Form, prompt_forms, template_form
from labs.llm01_inference.model_files import called, numbers_in_files
from labs.llm01_inference.questions import (
    EXAMPLES,
    Item,
    all_items,
    built_in,
    is_right,
    prompts_file,
)
from labs.llm01_inference.replies import replies, stream
from labs.llm01_inference.uncertainty import (
    errors_of_shares,
    mean_and_error,
    share,
    unlike,
    unlike_logits,
    verdict,
)

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation import logits_process as library

lab = Lab("LLM01")
lab.argument("--model", help="a Llama-like model instead of SmolLM2: a folder, or a hub id")
lab.argument(
    "--prompts",
    type=prompts_file,
    metavar="FILE",
    help="your own questions for section 6: JSONL or CSV with question and answer",
)
lab.before_run(assets.check_model)
SURE = "Once upon a time"
UNSURE = "My favourite thing about the sea is"
FACT = "The capital of France is"
FIVE = "five standard errors: all of them by chance less than once in 100,000 runs"
TWO = "two standard errors of this difference: less may be chance"

# %% [markdown]
# ## 1. A model is a folder of numbers
# A **language model** takes a text and predicts how it goes on. Inside, it is a formula with
# millions of numbers, its **parameters** or **weights**. In *training* they were adjusted until the
# formula predicted a large amount of text well. Using the trained model is called **inference**,
# and that is all this lab does.
#
# Your environment is complete: Python, PyTorch, Hugging Face's `transformers` and `accelerate`, and
# a model called SmolLM2-135M-Instruct (Allal et al. 2025), which has 135 million parameters.
# Nothing is downloaded. A pre-trained model is a folder with these files:
#
# - `model.safetensors` has the weights: arrays of numbers, each under a name. The format can't
#   contain code. Other formats can, so don't load a stranger's `.bin` or `.pt` file.
# - `config.json` describes the formula: which steps, how many, and how large they are.
# - `tokenizer.json` says how to cut a text into pieces.
# - `chat_template.jinja` says how to write down a conversation.
# - `generation_config.json` has the defaults for writing text.
#
# Two lines open the folder. They also take the name of a model on Hugging Face's hub in its place,
# such as `HuggingFaceTB/SmolLM2-135M-Instruct`, and download it.
#
# ```python
# tokenizer = AutoTokenizer.from_pretrained(folder)
# model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
# ```
#
# The second line reads `config.json`, builds the network in Python with empty parameters, and fills
# each of them from the array of the same name. `dtype` is the number format. **float32** has 4
# bytes for each number. **bfloat16** has 2: it needs half the memory, and rounds to 2 or 3 digits.
#
# `accelerate` then decides where the model runs. `Accelerator().device` is the GPU if there is one,
# else the CPU, and `model.to(device)` moves all parameters there. `eval()` switches off steps that
# only training needs. SmolLM2 has none, so here it is a good habit.
#
# The SmolLM2 in this course was rounded: within each block of 32 weights, a weight has one of 16
# values, which takes 4 bits. The file stores these values in bfloat16. The model is a little worse
# than the original, so call it *4-bit SmolLM2* when you quote its numbers. One array serves twice,
# for the tokens that go in and for the scores that come out. The file has it once.


# %% 1. Loading a model
@cache
def load(path: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    tokenizer = AutoTokenizer.from_pretrained(path)
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    return model.to(device).eval(), tokenizer


def smollm2(run: Run, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Return the model that --model names, by default SmolLM2, and its tokenizer."""
    folder = assets.pretrained(run.options.model, run.online)
    return load(folder, run.device, dtype)


@lab.experiment
def the_files_have_as_many_numbers_as_the_model(run: Run):
    """The weights files have as many numbers as the loaded model has parameters.

    Predict: how many megabytes do 135 million parameters need in float32?
    """
    model, _ = smollm2(run)
    folder = Path(assets.pretrained(run.options.model, run.online))
    files = [[path.name, path.stat().st_size] for path in sorted(folder.iterdir())]
    run.table("The files of the model", ["file", "bytes"], files)
    parameters = sum(p.numel() for p in model.parameters())
    run.measure("parameters", parameters)
    extra = numbers_in_files(folder) - parameters
    because = "from_pretrained copies each array to one parameter"
    what = "numbers in the files − parameters"
    run.measure(what, extra, expect_between=(0, 0), because=because, decides=True)
    caption = f"The parameters of {called(run)}, by parts that the later labs build and explain."
    fig = figures.parameters(figures.parts_of(model))
    run.figure(fig, "parameters", caption, alt="A bar of millions of parameters for each part.")
    megabytes = 4 * parameters / 1e6
    return (
        f"{parameters:,} parameters need {megabytes:,.0f} MB in float32 and "
        f"{megabytes / 2:,.0f} MB in bfloat16. The model runs on {run.device}."
    )


# %% [markdown]
# ## 2. From text to probabilities
# A model computes with numbers, so the text is cut into **tokens**: pieces from a fixed list, the
# **vocabulary**. A frequent word is one token, a rare word several. Each token has a number, its
# **id**. The function `tokenizer(text).input_ids` returns the ids, `tokenizer.decode(ids)` the
# text. A space belongs to the token behind it, so `" Paris"` and `"Paris"` are different tokens.
# SmolLM2's vocabulary has $V$ = 49,152 tokens. LLM04 builds one.
#
# For each position of the text, the model returns $V$ numbers: a score for every token that might
# come next. These scores are called **logits**. The **softmax** turns them into probabilities,
# which are positive and sum to one:
#
# $$p_i = \frac{e^{l_i}}{\sum_j e^{l_j}}$$
#
# Take a vocabulary of three tokens with the logits 2, 1 and 0. The powers are $e^2 = 7.39$,
# $e^1 = 2.72$ and $e^0 = 1$, and their sum is 11.1. The probabilities are 0.67, 0.24 and 0.09. If
# you add the same number to all logits, the probabilities stay the same: the factor cancels. So
# only differences of logits have a meaning.
#
# The prediction at a position uses the tokens up to there, and none behind it. So one call on a
# text of $T$ tokens returns $T$ predictions: for the second token, for the third, up to the last
# one, which is about a token that nobody has written yet. That also shows how probable the model
# finds a text that somebody else wrote: look up the probability of each token that did follow.
#
# **Try it**: in the coloured text, point at the darkest tokens and read what the model expected.
# Then choose the sentence that occurs twice. Its second copy is nearly white: the model copies.


# %% 2. One call of the model
@torch.no_grad()
def logits_of(model: Any, ids: list[int]) -> Tensor:
    """Call the model on one text, T ids -> (T, V)."""
    batch = torch.tensor([ids], device=model.device)  # (1, T)
    return model(batch).logits[0]


def rounding(logits: Tensor) -> float:
    """Return how much float32 may round logits of this size."""
    return tolerance(torch.float32) * max(1.0, logits.abs().max().item())


@lab.experiment
def one_call_predicts_after_every_prefix(run: Run):
    """One call on a text of five tokens returns the logits of separate calls on its five prefixes.

    Predict: after "The capital of France is", how probable is the most probable next token?
    """
    model, tokenizer = smollm2(run)
    ids = tokenizer(FACT).input_ids
    logits = logits_of(model, ids)  # (T, V)
    separate = torch.stack([logits_of(model, ids[:t])[-1] for t in range(1, len(ids) + 1)])
    what = "one call − separate calls, largest difference of a logit"
    run.agree(what, logits - separate, rounding(logits), decides=True)
    changed = logits_of(model, [ids[1], *ids[1:]])[-1] - logits[-1]
    what = "change of the last logits when the first token changes"
    because = "control: the last prediction uses all tokens; the bound is 1,000 times rounding"
    run.check(what, changed.abs().max(), at_least=1000 * rounding(logits), because=because)

    rows = view_data.likeliest(logits[-1], tokenizer, 8)
    run.table("The likeliest next tokens", ["token", "id", "logit", "probability"], rows)
    guesses = [view_data.likeliest(row, tokenizer, 1)[0] for row in logits]
    fig = figures.pipeline([tokenizer.decode(i) for i in ids], ids, guesses, rows)
    alt = "Tokens, their ids, the model, the likeliest next token after each; bars for the last."
    run.figure(fig, "pipeline", f"From text to probabilities, in {called(run)}.", alt=alt)
    read = view_data.reading(view_data.TEXTS, tokenizer, partial(logits_of, model))
    run.view("tokens", "coloured_text", *read)
    return (
        f"The most probable next token is {rows[0][0]!r} with {rows[0][3]:.0%}. "
        f"{len(ids)} tokens in, {len(ids)} predictions over {logits.shape[1]:,} tokens out."
    )


# %% [markdown]
# ## 3. The loop that writes
# A model only predicts the next token. To write a text, *we* choose a token from the prediction,
# append it, and call the model again, in a loop. The text that we start with is the **prompt**.
#
# The simplest choice is always the most probable token. That is called **greedy decoding**. The
# loop ends after a number of tokens, or at a **stop token**. Models are trained to write a token
# where a text or a turn ends. SmolLM2 ends its turns with `<|im_end|>`.
#
# Each call takes a moment, so a program shows the text while it is written. That is called
# **streaming**, and Python has the right tool for it: a generator function *yields* each token as
# soon as it is chosen. Some characters, such as 🌊, consist of several tokens. Half a character
# can't be shown, so `stream` waits until it is complete.


# %% 3. The loop
Choice = Callable[[list[int], Tensor], int]  # ids so far, logits (V,) -> the next id


def greedy(ids: list[int], logits: Tensor) -> int:
    """Choose the most probable token."""
    del ids  # other choices need them
    return int(logits.argmax())


@lab.exercise(
    level=1,
    hints=(
        "Keep a list of all ids: the prompt, then each new one. Which row of the logits is next?",
        "logits_of(model, ids)[-1] has the logits after the last token: pass them to `choose`.",
        "In a loop of `new` rounds: choose, append, yield, and return if the token is in `stop`.",
    ),
)
def generate(
    model: Any, prompt: list[int], new: int, choose: Choice = greedy, stop: Collection[int] = ()
) -> Iterator[int]:
    """Yield up to `new` ids that follow the prompt, each once chosen; a stop token is the last.

    `choose` gets all ids so far and the logits (V,) of the next token, and returns an id. The
    prompt stays as it is.
    """
    ids = list(prompt)
    for _ in range(new):
        token = choose(ids, logits_of(model, ids)[-1])
        ids.append(token)
        yield token
        if token in stop:
            return


def library_text(model: Any, prompt: list[int], new: int, **settings: Any) -> list[int]:
    """Return up to `new` ids by `model.generate`, greedy unless the settings say otherwise."""
    ids = torch.tensor([prompt], device=model.device)  # (1, T)
    settings = {"do_sample": False, "pad_token_id": 0, **settings}
    mask = torch.ones_like(ids)
    written = model.generate(ids, attention_mask=mask, max_new_tokens=new, **settings)
    return written[:, len(prompt) :].flatten().tolist()


@lab.experiment
def our_loop_writes_what_the_library_writes(run: Run):
    """On two prompts, our greedy loop writes the same tokens as `model.generate` of transformers.

    Predict: after "Once upon a time", is the model surer of the first new token or of the next?
    """
    model, tokenizer = smollm2(run)
    new = run.pick(tiny=12, small=40, full=100)
    prompts = [tokenizer(text).input_ids for text in (FACT, SURE)]
    ours = [list(generate(model, prompt, new)) for prompt in prompts]
    theirs = [library_text(model, prompt, new, eos_token_id=None) for prompt in prompts]
    because = "the same steps; only between nearly equal logits does rounding decide"
    count = unlike(ours, theirs)
    run.measure("unlike tokens", count, expect_at_most=0, because=because, decides=True)
    because = "control: the comparison does see differences"
    run.check("with prompts exchanged", unlike(ours, theirs[::-1]), at_least=1, because=because)

    wave = tokenizer("The 🌊 sea").input_ids
    run.check("streamed text", "".join(stream(tokenizer, wave)), equals=tokenizer.decode(wave))
    broken = sum("\N{REPLACEMENT CHARACTER}" in tokenizer.decode(i) for i in wave)
    because = "🌊 has several tokens in SmolLM2's vocabulary"
    run.measure("broken characters, token by token", broken, expect_at_least=1, because=because)

    logits = logits_of(model, prompts[1] + ours[1])[len(prompts[1]) - 1 : -1]  # (new, V)
    p = logits.softmax(-1)[torch.arange(new), ours[1]].tolist()
    names = [tokenizer.decode(i) for i in ours[1]]
    alt = "A row for each step: the text so far, the added token, and a bar for its probability."
    caption = "The greedy loop: each call adds the token on the right to the text."
    run.figure(figures.loop(SURE, names, p), "loop", caption, alt=alt)
    least = p.index(min(p))
    return (
        f"It was {p[0]:.0%} sure of the first new token, {names[0]!r}, and {p[1]:.0%} of the next, "
        f"{names[1]!r}. It was least sure of {names[least]!r}, with {p[least]:.0%}."
    )


# %% [markdown]
# ## 4. Inference settings
# Greedy decoding always writes the same text on the same machine. For variety, **sample**: choose
# each token at random, with the probability that the model gives it. Picture the probabilities as
# stretches of a line from 0 to 1. Three tokens with 0.67, 0.24 and 0.09 end at 0.67, 0.91 and 1.
# Draw a uniform random number $u$ between 0 and 1, and take the token on whose stretch it falls:
# $u = 0.7$ falls on the second. In PyTorch, `cumsum` computes the ends, and `searchsorted` finds
# the stretch:
#
# ```python
# ends = torch.tensor([0.67, 0.24, 0.09]).cumsum(-1)  # 0.67, 0.91, 1.00
# torch.searchsorted(ends, torch.tensor([0.7]), right=True)  # 1: the second token
# ```
#
# Rounding may leave the last end a little below 1. So multiply $u$ by that end.
#
# **Temperature** changes how bold the sampling is. It divides the logits by $T$ before the
# softmax. With the logits 2, 1 and 0:
#
# - $T = 0.5$ doubles them to 4, 2 and 0, and $p$ = 0.867, 0.117 and 0.016: the favourite gains.
# - $T = 1$ leaves $p$ = 0.67, 0.24 and 0.09.
# - $T = 2$ halves them to 1, 0.5 and 0, and $p$ = 0.506, 0.307 and 0.186: the others gain.
#
# As $T$ approaches 0, sampling becomes greedy decoding. By convention, $T = 0$ means greedy.
#
# How do we test a sampler? Draw $n$ times and count how often each token came. The share of a token
# with probability $p$ is close to $p$, but not equal. It varies by chance, and its **standard
# error** says how much:
#
# $$\text{SE} = \sqrt{\frac{p\,(1 - p)}{n}}$$
#
# If $n p$ isn't small, the share is within two standard errors of $p$ in about 95 of 100 trials.
# Five standard errors happen by chance about once in a million trials. With $p = 0.24$ and $n$ =
# 20,000 the standard error is 0.003. Section 6 uses the same formula to compare prompts.


# %% 4. Sampling with a temperature
@lab.exercise(
    level=2,
    hints=(
        "Divide the logits before the softmax. What does a temperature of 0 mean?",
        "cumsum(-1) of the probabilities gives the ends of the stretches, torch.rand the numbers.",
        "torch.searchsorted(ends, u, right=True) finds the stretch of each u, in float64.",
    ),
)
def sample(logits: Tensor, temperature: float = 1.0, times: int = 1) -> Tensor:
    """Draw ids from the softmax of logits ÷ temperature, (..., V) -> (..., times).

    At temperature 0, return the most probable id.
    """
    if temperature == 0:
        best = logits.argmax(-1, keepdim=True)  # (..., 1)
        return best.expand(*best.shape[:-1], times)
    # float64: most of 49,152 stretches are shorter than a step of float32
    ends = (logits / temperature).softmax(-1).double().cumsum(-1)  # (..., V)
    u = torch.rand(*logits.shape[:-1], times, dtype=torch.float64).to(ends.device)
    return torch.searchsorted(ends, u * ends[..., -1:], right=True)  # (..., times)


def draw(logits: Tensor, times: int = 1) -> Tensor:
    """Draw ids from the softmax of the logits, (..., V) -> (..., times)."""
    return sample(logits, 1.0, times)


@lab.experiment
def the_sampler_draws_by_probability(run: Run):
    """At three temperatures, the sampler draws the five likeliest tokens as often as their p says.

    Predict: at T = 2, what share of the draws goes to the five tokens that are likeliest at T = 1?
    """
    model, tokenizer = smollm2(run)
    logits = logits_of(model, tokenizer(UNSURE).input_ids)[-1].double().cpu()  # (V,)
    n = 20_000
    p = {t: (logits / t).softmax(-1) for t in (0.5, 1.0, 2.0)}
    for t in p:
        errors = errors_of_shares(sample(logits, t, n), p[t], 5)
        what = f"T = {t:g}: errors of 5 shares in {n:,} draws, in SE"
        run.check(what, errors, at_most=5, because=FIVE, decides=True)
    wrong = max(errors_of_shares(sample(logits, 1.1, n), p[1.0], 5))
    because = "control: the test must notice a temperature that is wrong by a tenth"
    run.check("draws at T = 1.1, p at T = 1: in SE", wrong, at_least=5, because=because)

    fig = figures.stretches((2.0, 1.0, 0.0), 0.7)
    caption = "A random number u = 0.7 and three temperatures, with the logits 2, 1 and 0."
    alt = "Three lines from 0 to 1, cut into three stretches; u falls on the first or the second."
    run.figure(fig, "stretches", caption, alt=alt)
    best = p[1.0].topk(5).indices
    names = [tokenizer.decode(i) for i in best.tolist()]
    top = {t: p[t][best].tolist() for t in p}
    caption = f"The next token of {called(run)}: the five likeliest, and all others together."
    alt = "Bars of probability at three temperatures. At T = 2 nearly all is in “all others”."
    run.figure(figures.temperatures(UNSURE, names, top), "temperature", caption, alt=alt)
    low, middle, high = (sum(shares) for shares in top.values())
    return (
        f"The five likeliest tokens have {low:.0%} at T = 0.5, {middle:.0%} at T = 1 and "
        f"{high:.1%} at T = 2. The other {len(logits) - 5:,} tokens have the rest."
    )


# %% [markdown]
# ### Cutting off improbable tokens
# Each of the tens of thousands of improbable tokens has almost no probability. Together they have a
# lot, as the last figure shows, and one nonsense token spoils the text behind it. So samplers cut
# them off before they draw: set their logits to $-\infty$, and the softmax gives their share to the
# others.
#
# - **Top-k** leaves the $k$ most probable tokens (Fan et al. 2018), whether the model is sure or
#   not.
# - **Top-p** leaves the smallest set of most probable tokens whose sum is at least $p$ (Holtzman et
#   al. 2020). The set is small where the model is sure, and large where it hesitates. With 0.67,
#   0.24 and 0.09, top-p 0.9 leaves two tokens, and top-p 0.6 leaves one.
# - **Min-p** leaves tokens with at least a given fraction of the top probability (Nguyen et al.
#   2024). With min-p 0.3, tokens below $0.3 \cdot 0.67 = 0.20$ go: two are left.
#
# Top-p sorts the tokens, and the result must be in the old order. `scatter` writes values to given
# places: `torch.zeros(3).scatter(0, torch.tensor([2]), 1.0)` is 0, 0, 1. `gather` reads from them.
#
# How spread out is a distribution? Its **entropy** is $H = -\sum_i p_i \ln p_i$ (Shannon 1948), and
# $e^H$ is the number of equally probable tokens with the same entropy. So $e^H = 4$ means: as hard
# to guess as one of four equally probable tokens.
#
# **Try it** with the sliders below. Draw ten tokens, then set the temperature to 2. The same ten
# random numbers now choose other tokens. Which cut brings sensible tokens back: top-k 50, top-p 0.9
# or min-p 0.1?


# %% 4. Cutting off improbable tokens
def top_k(logits: Tensor, k: int) -> Tensor:
    """Set all but the k largest logits to -inf, (..., V) -> (..., V)."""
    smallest = logits.topk(min(k, logits.shape[-1])).values[..., -1:]  # (..., 1)
    return logits.masked_fill(logits < smallest, -torch.inf)


@lab.exercise(
    level=2,
    hints=(
        "Sort the probabilities from the largest down and add them up as you go.",
        "A token stays if those before it have less than p together: the one that crosses p stays.",
        "sort(descending=True), cumsum minus the token's own p, compare with p, and scatter back.",
    ),
)
def top_p(logits: Tensor, p: float) -> Tensor:
    """Set logits to -inf outside the fewest likeliest tokens with at least p, (..., V) -> same."""
    ordered, where = logits.sort(-1, descending=True)  # (..., V)
    share = ordered.softmax(-1)
    before = share.cumsum(-1) - share  # the sum of all likelier tokens
    outside = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, where, before >= p)
    return logits.masked_fill(outside, -torch.inf)


def min_p(logits: Tensor, fraction: float) -> Tensor:
    """Set logits to -inf where p is below a fraction of the largest p, (..., V) -> (..., V)."""
    probabilities = logits.softmax(-1)
    smallest = fraction * probabilities.amax(-1, keepdim=True)  # (..., 1)
    return logits.masked_fill(probabilities < smallest, -torch.inf)


@lab.experiment
def our_cuts_equal_the_librarys(run: Run):
    """Our top-k, top-p and min-p leave the same logits as those of transformers.

    Predict: how many tokens does top-p 0.9 leave where the model is sure, how many where it isn't?
    """
    model, tokenizer = smollm2(run)
    texts = [tokenizer(text).input_ids for text in (SURE, UNSURE, FACT)]
    rows = torch.cat([logits_of(model, ids) for ids in texts]).double()  # (rows, V)
    cuts: list[tuple[str, Callable, Any, list[Any]]] = [
        ("top-k", top_k, library.TopKLogitsWarper, [1, 50, 5000]),
        ("top-p", top_p, library.TopPLogitsWarper, [0.1, 0.5, 0.9, 0.99]),
        ("min-p", min_p, library.MinPLogitsWarper, [0.01, 0.1, 1.0]),
    ]
    for name, ours, theirs, values in cuts:
        pairs = [(ours(rows, x), theirs(x)(None, rows)) for x in values]
        wrong = sum(unlike_logits(a, b, rows) for a, b in pairs)
        run.check(f"{name}: logits unlike the library's", wrong, equals=0, decides=True)
        cut = sum(a.isinf().sum().item() for a, _ in pairs)
        run.check(f"{name}: logits cut off", cut, at_least=1, because="control: cuts do cut")

    settings = [("T = 0.7", 0.7, 1.0), ("T = 1", 1.0, 1.0), ("T = 1.5", 1.5, 1.0)]
    settings.append(("T = 1.5, top-p 0.9", 1.5, 0.9))
    write = partial(library_text, model, texts[1], 14, do_sample=True, top_k=0)
    said = [
        [name, repr(tokenizer.decode(write(temperature=t, top_p=p)))] for name, t, p in settings
    ]
    run.table(f"One text for each setting, after {UNSURE!r}", ["settings", "text"], said)
    prompts = (UNSURE, SURE, FACT, "2 + 2 =")
    last = {text: logits_of(model, tokenizer(text).input_ids)[-1] for text in prompts}
    run.view("sampler", "sampler", *view_data.sampler(last, tokenizer))
    left = {text: int(top_p(last[text], 0.9).isfinite().sum()) for text in (SURE, UNSURE)}
    curves = {
        text: (last[text].softmax(-1).sort(descending=True).values.cpu().numpy(), count)
        for text, count in left.items()
    }
    caption = f"The next token of {called(run)} after two prompts. Thick: what top-p 0.9 leaves."
    alt = (
        "Two falling curves of probability over rank; one is thick for a few tokens, one for many."
    )
    run.figure(figures.nucleus(curves), "nucleus", caption, alt=alt)
    return f"Top-p 0.9 leaves {left[SURE]:,} after {SURE!r} and {left[UNSURE]:,} after {UNSURE!r}."


# %% [markdown]
# ### What the library's defaults do
# In practice you call `model.generate`. Its defaults are those of `generation_config.json`, and
# SmolLM2's file sets nothing about the choice. So it is greedy. With `do_sample=True` it samples,
# at $T = 1$ and with top-p 1. You might expect samples from the model's own distribution. But
# `top_k` is 50 unless you set it to 0.


# %% 4. The library's defaults
@lab.experiment
def the_library_samples_from_fifty_tokens(run: Run):
    """With `do_sample=True`, `generate` draws only from the 50 likeliest tokens by default.

    Predict: what share of the model's probability lies beyond its 50 likeliest tokens?
    """
    model, tokenizer = smollm2(run)
    prompt = tokenizer(UNSURE).input_ids
    logits = logits_of(model, prompt)[-1].double().cpu()  # (V,)
    rank = logits.argsort(descending=True).argsort()  # of each token; 0 is the likeliest
    beyond = logits.softmax(-1)[rank >= 50].sum().item()
    run.measure("probability beyond rank 50", beyond)
    n = run.pick(tiny=100, small=500, full=2000)
    many = partial(library_text, model, prompt, 1, do_sample=True, num_return_sequences=n)
    by_default = rank[many()]  # (n,)
    without_cut = rank[many(top_k=0)]  # (n,)
    because = "transformers documents top_k=50"
    count = int((by_default >= 50).sum())
    what = "by default: draws beyond rank 50"
    run.measure(what, count, expect_at_most=0, because=because, decides=True)
    share_beyond = (without_cut >= 50).double().mean().item()
    error = abs(share_beyond - beyond) / (beyond * (1 - beyond) / n + 1 / n**2) ** 0.5
    what = "with top_k=0: error of the share beyond rank 50, in SE"
    run.check(what, error, at_most=5, because=FIVE, decides=True)
    fig = figures.ranks(by_default.tolist(), without_cut.tolist())
    caption = f"Each dot is a token that `generate` drew after {UNSURE!r}, in {called(run)}."
    alt = "Two clouds of dots by rank: one ends at rank 50, the other reaches ranks of thousands."
    run.figure(fig, "defaults", caption, alt=alt)
    return (
        f"Tokens beyond rank 50 have {beyond:.0%} of the probability. The default drew {count} of "
        f"them in {n} draws; with top_k=0 they were {share_beyond:.0%} of the draws."
    )


# %% [markdown]
# ### A penalty for repetition
# Models like to repeat themselves. The **repetition penalty** lowers the logit of every token
# that occurs in the text already (Keskar et al. 2019). The paper divides the logit by a number such
# as 1.3. That works for a positive logit: 2 becomes $2 / 1.3 = 1.5$. But a *negative* logit grows:
# $-2$ becomes $-1.5$, and the penalty is a reward. So code divides positive logits and multiplies
# negative ones: $-2$ becomes $-2.6$.


# %% 4. The repetition penalty
@lab.exercise(
    level=2,
    hints=(
        "Gather the logits of the ids that occurred: for each row its own ids.",
        "A penalty must lower a logit. What does dividing by 1.3 do to -2?",
        "Divide where positive, multiply where negative, then scatter back: once for each token.",
    ),
)
def repetition_penalty(ids: Tensor, logits: Tensor, penalty: float) -> Tensor:
    """Lower the logits of ids that occurred: ids so far (B, T), logits (B, V) -> (B, V)."""
    score = logits.gather(1, ids)  # (B, T)
    lowered = torch.where(score < 0, score * penalty, score / penalty)
    return logits.scatter(1, ids, lowered)


@lab.experiment
def the_penalty_must_look_at_the_sign(run: Run):
    """Our penalty changes the logits of seen tokens, of both signs, as the library's does.

    Predict: a logit is −2. Does dividing it by 1.3 make its token more or less probable?
    """
    model, tokenizer = smollm2(run)
    seen = torch.tensor([tokenizer(view_data.TWICE).input_ids], device=run.device)  # (1, T)
    logits = logits_of(model, seen[0].tolist())[-1:].double()  # (1, V)
    run.measure("seen tokens with negative logits", int((logits.gather(1, seen) < 0).sum()))
    # A constant changes no probability. This one makes half of the seen tokens' logits negative.
    logits = logits - logits.gather(1, seen).median()
    score = logits.gather(1, seen)
    theirs: Any = library.RepetitionPenaltyLogitsProcessor(1.3)
    ours = repetition_penalty(seen, logits, 1.3)
    run.agree("ours − the library's", ours - theirs(seen, logits.clone()), decides=True)
    change = ours.gather(1, seen) - score
    run.check("largest change of a seen token", change.max(), at_most=0, because="a penalty")
    run.check("smallest change", change.min(), at_most=-0.1, because="control: some do fall")
    raised = int((score / 1.3 > score).sum())
    run.measure("seen tokens that division alone raises: the negative ones", raised)
    caption = "What a penalty of 1.3 does to a logit. Above the diagonal it is a reward."
    alt = "Logit after over logit before: division is above the diagonal for negative logits."
    run.figure(figures.penalty(1.3), "penalty", caption, alt=alt)

    prompt = seen[0].tolist()
    new = len(prompt) // 2
    texts = [library_text(model, prompt, new, repetition_penalty=x) for x in (1.0, 1.3)]
    plain, penalised = (repr(tokenizer.decode(text)) for text in texts)
    return (
        f"With these logits, division alone raises {raised} of {seen.shape[1]}. After a sentence "
        f"that occurred twice, greedy writes {plain}, and {penalised} with the penalty."
    )


# %% [markdown]
# ## 5. Chat
# A chat model also only predicts the next token. A conversation is written down as *one* text, in
# which **control tokens** mark who speaks, and the model writes the next turn. SmolLM2 was trained
# on conversations in this form:
#
# ```
# <|im_start|>user
# What is the capital of Greece?<|im_end|>
# <|im_start|>assistant
# ```
#
# The last line opens the assistant's turn, so the model writes a reply. It ends its turn with
# `<|im_end|>`, which is the stop token of our loop. A third role, **system**, comes first and says
# how to behave. Other models use other control tokens. Each tokenizer brings its own **chat
# template**, and `tokenizer.apply_chat_template(messages, add_generation_prompt=True)` applies it.
# SmolLM2's template adds a default system message if you give none. `build_chat` below adds
# nothing.
#
# To see what the template is worth, we ask for the capitals of 44 countries. A reply is *right* if
# its first line, of at most 12 tokens, contains the capital. So a reply that starts with a detour
# counts as wrong. Such a rule makes mistakes: it accepts "not Paris", and for Bern it rejects
# Berne. The replies are greedy, so another run gives the same ones.


# %% 5. A chat is one text
@lab.exercise(
    level=1,
    hints=(
        "One message: the start token, the role, a line end, the content, the end token, …",
        "… and a line end. Join all messages. What must come behind the last one?",
        "Add '<|im_start|>assistant\\n' once, at the end: that turn is the model's to write.",
    ),
)
def build_chat(messages: list[dict[str, str]]) -> str:
    """Return a conversation as one text for SmolLM2, which ends where the model is to reply.

    A message has a role (system, user or assistant) and a content.
    """
    turns = [f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


@cache
def ask(run: Run, prompts: tuple[str, ...], new: int) -> list[str]:
    """Return the first line of the model's greedy reply to each prompt."""
    return replies(*smollm2(run), prompts, new)


def try_form(
    run: Run, form: Form, items: list[Item], new: int = 12
) -> tuple[list[str], list[bool]]:
    """Put the questions into a form; return the model's replies, and which are right."""
    texts = ask(run, tuple(form(item.question) for item in items), new)
    return texts, [is_right(text, item) for text, item in zip(texts, items, strict=True)]


def chat_reply(run: Run, question: str, new: int) -> str:
    """Reply by all parts of this lab: template, loop, stop token, top-p, temperature, stream."""
    model, tokenizer = smollm2(run)
    prompt = tokenizer(build_chat([{"role": "user", "content": question}])).input_ids

    def choose(ids: list[int], logits: Tensor) -> int:
        del ids
        return int(sample(top_p(logits, 0.9), temperature=0.7))

    tokens = generate(model, prompt, new, choose, stop=[tokenizer.eos_token_id])
    return "".join(stream(tokenizer, tokens))


@lab.experiment
def the_template_makes_the_model_reply(run: Run):
    """In its chat template, SmolLM2 gets more of the lab's 44 questions right than without it.

    Predict: what does the chat model write after the bare question, without a template?
    """
    tokenizer = smollm2(run)[1]
    if tokenizer.chat_template is None:
        return f"{called(run)} has no chat template: it wasn't trained to converse."
    user = {"role": "user", "content": "What is the capital of Greece?"}
    messages = [{"role": "system", "content": "Be brief."}, user]
    their_text = partial(tokenizer.apply_chat_template, add_generation_prompt=True, tokenize=False)
    because = "build_chat writes SmolLM2's format; another --model may have another"
    equal = their_text(messages) == build_chat(messages)
    run.measure("equal to the template's text", equal, expect_at_least=1, because=because)
    run.say(f"Without a system message the template writes: {their_text([user])!r}")

    questions = built_in()[EXAMPLES:]
    silent, bare = try_form(run, str, questions)
    replied, right = try_form(run, template_form(tokenizer, build_chat), questions)
    run.measure("right answers to bare questions", sum(bare))
    run.measure("right answers with the template", sum(right))
    gain, error = mean_and_error([int(x) - int(y) for x, y in zip(right, bare, strict=True)])
    what = "share of right replies, with template − bare"
    run.measure(what, gain, expect_at_least=2 * error, because=TWO, decides=True)
    reply = chat_reply(run, "Who are you?", new=run.pick(tiny=16, small=40, full=80))
    rows = [[questions[i].question, repr(silent[i]), repr(replied[i])] for i in range(6)]
    run.table("First lines of replies", ["question", "bare", "in the chat template"], rows)
    empty = sum(not text for text in silent)
    return (
        f"After the bare question, {empty} of {len(questions)} replies are empty: the model ends "
        f"the text at once. Right are {sum(bare)} without the template, {sum(right)} with it. At "
        f"T = 0.7 and top-p 0.9, our loop replies to “Who are you?”: {reply!r}"
    )


# %% [markdown]
# ## 6. Prompt experiments
# The same question can be asked in many ways, and small models are sensitive to the form. Which one
# is best? Don't trust a single reply: measure. You need many questions, a rule that says which
# replies are right, and the uncertainty of the result. We compare these forms:
#
# - **zero-shot**: the question alone, in the form `Q: …` and `A:`. The model writes what follows.
# - **few-shot**: the same after 1 or 4 examples (Brown et al. 2020), which show what a reply looks
#   like. Does their order matter? And whether they are right?
# - **chat**: the template with its default system message. *Reworded* has "Answer with one word."
#   behind the question. *Pirate* has another system message: "You are a pirate."
#
# Our rule rewards short replies. Is that why examples help? *Zero-shot, 32 tokens* gives the model
# more room for a detour. With your own questions and your own rule, other forms may win.
#
# If 30 of 44 replies are right, the **accuracy** is 0.68. With 44 other questions of this kind, it
# would be a little different. Its standard error is the formula of section 4 with the accuracy as
# $p$: $\sqrt{0.68 \cdot 0.32 / 44} = 0.07$. So two prompts with 0.68 and 0.75 may be equally good.
# Our 44 countries are no random sample of all countries, so read the ± with care.
#
# Two forms with the *same* questions can be compared more precisely. For each question, take the
# difference: 1 if only the first form is right, −1 if only the second is, else 0. Their mean is the
# difference of the accuracies, and its standard error is their standard deviation divided by
# $\sqrt n$. Questions that are easy or hard for both cancel. Two warnings: the best of many forms
# is partly lucky, so test it again with new questions. And at 0 or 100 % the formula gives an error
# of 0, which is too small.
#
# **Try your own**: `invoke lab LLM01 --prompts work/questions.jsonl`. Each line of the file is
# `{"question": "…", "answer": "…"}`, or it is CSV with these two columns. The first four are the
# examples.


# %% 6. Prompt experiments
@lab.exercise(
    level=1,
    hints=(
        "An example is two lines, 'Q: …' and 'A: …', and an empty line.",
        "The question comes last, in the same form, with nothing behind 'A:'.",
        "Why no space behind the last 'A:'? Section 2: to which token does a space belong?",
    ),
)
def few_shot_prompt(examples: list[tuple[str, str]], question: str) -> str:
    """Return examples (question, solution) and a question as 'Q: …' and 'A: …'.

    An empty line separates the examples. The prompt ends with 'A:', for the model to continue.
    """
    shots = [f"Q: {asked}\nA: {answer}\n\n" for asked, answer in examples]
    return "".join(shots) + f"Q: {question}\nA:"


@lab.exercise(
    level=2,
    hints=(
        "For each question, subtract: True counts as 1, False as 0.",
        "The difference of the shares is the mean of these numbers.",
        "Its standard error is statistics.stdev(the numbers) / math.sqrt(how many).",
    ),
)
def difference(a: list[bool], b: list[bool]) -> tuple[float, float]:
    """Return share(a) − share(b) on the same questions, and the standard error of this difference.

    The standard deviation divides by n − 1, as `statistics.stdev` does.
    """
    steps = [int(x) - int(y) for x, y in zip(a, b, strict=True)]
    return mean(steps), stdev(steps) / math.sqrt(len(steps))


@lab.experiment
def four_examples_beat_zero_shot(run: Run):
    """With four examples, more replies are right within 12 tokens than with the zero-shot prompt.

    Predict: and does one example help? Do four wrong ones?
    """
    items = all_items(run.options.prompts)
    questions = items[EXAMPLES:]
    examples = [(item.question, item.answers[0]) for item in items[:EXAMPLES]]
    chat = template_form(smollm2(run)[1], build_chat)
    forms = prompt_forms(few_shot_prompt, build_chat, chat, examples)
    texts = {}
    right = {}
    for name in run.progress(list(forms), "forms"):
        new = 32 if "32" in name else 12
        texts[name], right[name] = try_form(run, forms[name], questions, new)
    rows = [
        [name, *share(right[name]), *difference(right[name], right["zero-shot"])] for name in forms
    ]
    columns = ["form", "accuracy", "its SE", "accuracy − zero-shot's", "its SE"]
    run.table(f"{len(questions)} questions to {called(run)}", columns, rows)
    first = [[name, repr(texts[name][0])] for name in forms]
    run.table(f"The replies to “{questions[0].question}”", ["form", "first line"], first)

    pairs = dict.fromkeys(("4 examples", "1 example", "zero-shot, 32 tokens"), "zero-shot")
    pairs |= {"4, wrong": "4 examples", "4, reversed": "4 examples"}
    said = []
    for form, other in pairs.items():
        gain, error = difference(right[form], right[other])
        low = 2 * error if form == "4 examples" else None
        what = f"accuracy, {form} − {other}"
        run.measure(what, gain, expect_at_least=low, because=TWO, decides=low is not None)
        run.measure(f"standard error of {form} − {other}", error)
        said.append(f"{form} − {other}: {verdict(gain, error)}")
    fig = figures.accuracies(rows, len(questions))
    alt = "Each form's accuracy as a dot, and beside it the difference from zero-shot with a bar."
    run.figure(fig, "accuracy", f"The same questions to {called(run)} in ten forms.", alt=alt)
    return "; ".join(said) + ". Each ± is one standard error, in points of a hundred."


# %% [markdown]
# ## What to remember
# - A model maps token ids to one logit for each token of the vocabulary, at each position. Softmax
#   makes probabilities of them. Everything else is our loop.
# - Temperature divides the logits. Top-k, top-p and min-p cut off improbable tokens. Know the
#   defaults of your library.
# - A chat is one text. Use the template that the model was trained with.
# - Compare prompts on many questions, and report the standard error.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Say what this run showed, in its numbers."""
    beyond = results.value("the_library_samples_from_fifty_tokens", "probability beyond rank 50")
    prompts = "four_examples_beat_zero_shot"
    pairs = ("4 examples − zero-shot", "1 example − zero-shot", "4, reversed − 4 examples")
    said = []
    for pair in pairs:
        gain = results.value(prompts, f"accuracy, {pair}")
        error = results.value(prompts, f"standard error of {pair}")
        said.append(f"{pair}: {verdict(gain, error)}")
    return (
        f"In this run, the default of `generate` gave up {beyond:.0%} of the probability after "
        f"{UNSURE!r}. The prompts differed in accuracy, in points of a hundred with one standard "
        f"error: {'; '.join(said)}."
    )


# %% [markdown]
# **Read on**: Holtzman et al. 2020, *The curious case of neural text degeneration* · Brown et al.
# 2020, *Language models are few-shot learners* · Min et al. 2022, *Rethinking the role of
# demonstrations* · Miller 2024, *Adding error bars to evals*. LLM01+ is the deeper part of this
# lab: fast decoding, search, and how good a model is. Next is LLM02, what a network is made of.

# %%
if __name__ == "__main__":
    lab.main()
