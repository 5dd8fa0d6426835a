# %% [markdown]
# # LLM01 · Introduction and inference
# Load a language model, let it write, change how it chooses, and measure which prompt works best.
#
# **You will be able to** load a pre-trained model, turn a text into token ids, logits and
# probabilities, write the loop that generates text, adjust its settings, talk to a chat model, and
# compare prompts with their uncertainty. **Builds on** Python and a little probability. **Takes**
# 40 minutes to read, with the exercises about two hours.
#
# **How to work.** `invoke learn LLM01` makes your own copy of the lesson, the *sheet*. Write the
# functions marked `@lab.exercise` there, before you open the page's solutions. `invoke check LLM01`
# checks them. In `invoke notebook LLM01`, paste the text's calls into new cells and change them. An
# `@lab.experiment` tests a claim: write down your guess where it says *Predict*, then run. You may
# skip its code. Lines with `decides=True` decide the claim; a *control* shows that a test can fail.

# %% Imports
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache, partial
from typing import Any

from labs.kit import Lab, Results, Run, assets
from labs.llm01_inference import cuts, figures, forms, view_data
from labs.llm01_inference.cuts import min_p, top_k
from labs.llm01_inference.figures import show
from labs.llm01_inference.model_files import called, compare_with_files, sizes_of_files
from labs.llm01_inference.questions import EXAMPLES, all_items, built_in, check_prompts
from labs.llm01_inference.replies import library_text, stream
from labs.llm01_inference.uncertainty import errors_of_shares, rounding, unlike, verdict

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

lab = Lab("LLM01")
lab.before_run(assets.check_model)
lab.before_run(check_prompts)
SURE = "Once upon a time"
UNSURE = "My favourite thing about the sea is"
FACT = "The capital of France is"
FIVE = "five standard errors: chance exceeds them in fewer than one of 10,000 runs"
TWO = "two standard errors of this difference: less may be chance"
GAIN = "accuracy, 4 examples − zero-shot"

# %% [markdown]
# ## 1. A model is a folder of numbers
# A **language model** takes a text and predicts how it goes on. It is a formula with millions of
# numbers, its **parameters** or **weights**. In *training* they were adjusted until the formula
# predicted a large amount of text well. Using the trained model is called **inference**:
#
# ```python
# folder = assets.pretrained()  # our copy; on the hub: "HuggingFaceTB/SmolLM2-135M-Instruct"
# tokenizer = AutoTokenizer.from_pretrained(folder)
# model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
# inputs = tokenizer("Once upon a time", return_tensors="pt")
# tokenizer.decode(model.generate(**inputs, max_new_tokens=10)[0])
# # Once upon a time, the city of Nova Haven was a thriving metropolis
# ```
#
# By the end of section 3 you have written a loop that gives the same text. This environment is
# ready. On another computer, run `pip install torch "transformers>=5.24" accelerate`; the model
# downloads by its name from Hugging Face's hub. SmolLM2, by Allal et al. 2025, is a folder:
#
# - `model.safetensors` has the weights: arrays of numbers, each under a name. The format can't
#   contain code. Other formats can, so don't load a stranger's `.bin` or `.pt` file.
# - `config.json` describes the formula's steps, `tokenizer.json` how to cut a text into pieces.
# - `chat_template.jinja` turns messages into one text, `generation_config.json` sets defaults.
#
# `AutoModelForCausalLM.from_pretrained` builds an empty model from `config.json`. It copies each
# array of the file to the parameter of the same name, in the number format `dtype`. This lesson
# takes **float32**, 4 bytes. **float64** or `double` has 8, **float16** and **bfloat16** have 2.
#
# Most weights of our copy of SmolLM2 were once rounded to 4 bits: each block of 32 has at most 16
# different values. The token embedding was rounded to 8 bits. Our file stores both as float16. The
# hub's model may give other replies, so we call ours *4-bit SmolLM2*.
#
# `run.device` is the device that `accelerate.Accelerator()` chooses: the GPU if there is one, else
# the CPU. `model.to` moves a model there. `eval` sets layers such as dropout to inference.


# %% 1. Loading a model
@cache
def load(path: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    tokenizer = AutoTokenizer.from_pretrained(path)
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    return model.to(device).eval(), tokenizer


def smollm2(run: Run, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Return the model that --model names, by default SmolLM2, and its tokenizer."""
    return load(assets.pretrained(run.options.model, run.online), run.device, dtype)


@lab.experiment
def the_files_hold_the_parameters(run: Run):
    """Each parameter of the loaded model equals the number of its name and place in the files.

    Predict: how many megabytes do 135 million parameters need in float32? And in bfloat16?
    """
    model, _ = smollm2(run)
    folder = assets.pretrained(run.options.model, run.online)
    run.table("The files of the model", ["file", "bytes"], sizes_of_files(folder))
    compare_with_files(run, folder, model, AutoModelForCausalLM.from_config(model.config))
    parameters = sum(p.numel() for p in model.parameters())
    show(run, "parameters", figures.parameters(figures.parts_of(model)))
    return f"{parameters:,} parameters: {4 * parameters / 1e6:.0f} MB in float32, half in bfloat16."


# %% [markdown]
# ## 2. From text to probabilities
# A model computes with numbers, so the text is cut into **tokens**: pieces from a fixed list, the
# **vocabulary**. A frequent word is one token, a rare word several. Each token has a number, its
# **id**. A space is part of the word after it, so `" Paris"` and `"Paris"` have different ids.
# Before a digit, a space is a token by itself. SmolLM2's vocabulary has $V$ = 49,152 tokens.
#
# For each position of the text, the model returns $V$ numbers: a score for every token that might
# come next. These scores are called **logits**. This is the first call of a model:
#
# ```python
# ids = tokenizer("The capital of France is").input_ids  # [504, 3575, 282, 4649, 314]
# logits = model(torch.tensor([ids])).logits[0]
# logits.shape  # torch.Size([5, 49152])
# ```
#
# The way back is `tokenizer.decode`: 3575 is `" capital"`. PyTorch calls arrays of numbers
# **tensors**. Their **shape** is the length of each axis: here 5 and 49,152, in general `(T, V)`,
# which is $T$ rows of $V$ numbers. The model takes a batch of $B$ texts, `(B, T)`, and returns
# `(B, T, V)`. Ours has one text, so we write `[ids]` and `[0]`.
#
# The **softmax** turns logits into probabilities, which are positive and sum to one:
#
# $$p_i = \frac{e^{l_i}}{\sum_j e^{l_j}}$$
#
# Take a vocabulary of three tokens with the logits 2, 1 and 0. The powers are $e^2 = 7.39$,
# $e^1 = 2.72$ and $e^0 = 1$. Their sum is 11.1, so the probabilities are 0.67, 0.24 and 0.09. In
# code it is a tensor's method, `.softmax(-1)`. The −1 names the **last axis**, for logits the
# vocabulary: each of the $T$ rows becomes $V$ probabilities, which sum to one. The shape is still
# the same. In `logits[-1]`, the −1 means the last row. We write `(..., V)` if before the vocabulary
# there may be a batch, positions, or nothing.
#
# The prediction at a position uses the tokens up to there, and no later one; such a model is called
# *causal*. So one call on a text of $T$ tokens returns $T$ predictions. The first predicts the
# second token, the next the third. The last predicts a new token: `next_token` returns the best.
#
# **Try it** in the coloured text below the next figure: point at the darkest tokens, and read what
# was expected. Choose "a sentence, twice". Where in the second copy does the model start to copy?


# %% 2. One call of the model
@torch.no_grad()  # stores nothing for derivatives, which only training needs
def logits_of(model: Any, ids: list[int]) -> Tensor:
    """Call the model on one text, T ids -> (T, V)."""
    batch = torch.tensor([ids], device=model.device)  # (1, T)
    return model(batch).logits[0]


@lab.exercise(
    level=1,
    hints=(
        "logits_of(model, ids) has a row for each position. Which predicts what follows the text?",
        "The last row is logits_of(model, ids)[-1], (V,). .softmax(-1) makes probabilities of it.",
        "p.argmax() is the place of the largest p, which is the id. int(…) and float(…) convert.",
    ),
)
def next_token(model: Any, ids: list[int]) -> tuple[int, float]:
    """Return the id of the token that most probably follows the text, and its probability."""
    p = logits_of(model, ids)[-1].softmax(-1)  # (V,)
    best = int(p.argmax())
    return best, float(p[best])


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
    because = "control: the last prediction uses even the first token; 1,000 times rounding"
    run.check(what, changed.abs().max(), at_least=1000 * rounding(logits), because=because)
    show(run, "pipeline", figures.pipeline(tokenizer, ids, logits))
    read = view_data.reading(view_data.TEXTS, tokenizer, partial(logits_of, model))
    run.view("tokens", "coloured_text", *read)
    best, p = next_token(model, ids)
    return (
        f"The most probable next token is {tokenizer.decode(best)!r} with {p:.0%}. In the sentence "
        f"that occurs twice, {view_data.where_copying_starts(read)}."
    )


# %% [markdown]
# ## 3. The loop that writes
# A model only predicts the next token. To write a text, *we* choose a token from the prediction,
# append it, and call the model again, in a loop. The text that we start with is the **prompt**. The
# simplest choice is always the most probable token, as in `next_token`. That is called **greedy
# decoding**. The loop ends after a number of tokens, or at a **stop token**.
#
# A program **streams** a text: it shows it while it is written. Python's tool for that is a
# *generator function*: `yield token` hands a token to the caller's `for`, and goes on when the
# caller asks for the next. Some characters, such as 🌊, are several tokens, so `stream` waits until
# a character is complete. Once you have written `generate`, watch it in the notebook:
# `for piece in stream(tokenizer, generate(model, ids, 30)): print(piece, end="", flush=True)`


# %% 3. The loop
Choice = Callable[[list[int], Tensor], int]  # ids so far, logits (V,) -> the next id


def greedy(_ids: list[int], logits: Tensor) -> int:
    """Choose the most probable token."""
    return int(logits.argmax())


@lab.exercise(
    level=2,
    hints=(
        "Keep a list of all ids: the prompt, then each new one. Which row of the logits is next?",
        "logits_of(model, ids)[-1] has the logits after the last token: pass them to `choose`.",
        "In a loop of `new` rounds: choose, append, yield, and return if the token is in `stop`.",
    ),
)
def generate(
    model: Any, prompt: list[int], new: int, choose: Choice = greedy, stop: Collection[int] = ()
) -> Iterator[int]:
    """Yield up to `new` ids that follow the prompt, each as soon as it is chosen, stop token last.

    `choose` gets all ids so far and the next token's logits (V,). The prompt stays as it is.
    """
    ids = list(prompt)
    for _ in range(new):
        token = choose(ids, logits_of(model, ids)[-1])
        ids.append(token)
        yield token
        if token in stop:
            return


@lab.experiment
def our_loop_writes_what_the_library_writes(run: Run):
    """On two prompts, our greedy loop writes the same tokens as `model.generate` of transformers.

    Predict: after "Once upon a time", is the model surer of the first new token or of the next?
    """
    model, tokenizer = smollm2(run)
    new = run.pick(tiny=12, small=40, full=100)  # by --size
    prompts = [tokenizer(text).input_ids for text in (FACT, SURE)]
    ours = [list(generate(model, prompt, new)) for prompt in prompts]
    theirs = [library_text(model, prompt, new, eos_token_id=None) for prompt in prompts]
    because = "the same steps; only between nearly equal logits does rounding decide"
    count = unlike(ours, theirs)
    run.measure("tokens that differ", count, expect_at_most=0, because=because, decides=True)
    because = "control: the comparison does see differences"
    run.check("with prompts exchanged", unlike(ours, theirs[::-1]), at_least=1, because=because)
    ids = prompts[1] + ours[1]
    read = view_data.coloured(ids, logits_of(model, ids), tokenizer)
    names, p = (read[key][len(prompts[1]) :] for key in ("texts", "p"))
    show(run, "loop", figures.loop(SURE, names, p))
    first, second = (f"{p[i]:.0%} sure of {names[i]!r}" for i in (0, 1))
    return f"It was {first}, the first new token, and {second}, the next."


# %% [markdown]
# ## 4. Inference settings
# Greedy decoding writes the same text each time, on the same machine. For variety, **sample**:
# choose each token at random, with the probability that the model gives it. Picture the
# probabilities as stretches of a line from 0 to 1, as in the first figure below. The stretches of
# three tokens with 0.67, 0.24 and 0.09 end at 0.67, 0.91 and 1: `cumsum` adds them up. Draw a
# uniform random number $u$ between 0 and 1. `searchsorted` finds the stretch on which it falls:
#
# ```python
# ends = torch.tensor([0.67, 0.24, 0.09]).cumsum(-1)  # 0.67, 0.91, 1.00
# torch.searchsorted(ends, torch.tensor([0.7]), right=True)  # 1: the second token
# ```
#
# For two rows of logits and three draws from each, $u$ is `torch.rand(2, 3, dtype=torch.float64)`.
# `searchsorted` looks up each row of $u$ in the same row of ends. `best.expand(2, 3)` repeats a
# column of two along its last axis. Write `*logits.shape[:-1]` for the 2: it fits any rows. At
# $T = 1$ most tokens have probabilities below 6e-8. Just below 1, float32 numbers are that far
# apart: such a stretch would be 0 or 6e-8 long. So add up in float64. Multiply $u$ by the last end,
# `ends[..., -1:]`, which may be just below 1. `torch.manual_seed` makes draws repeatable.
#
# **Temperature** changes how much the sampling favours probable tokens. It divides the logits by a
# number $T$, not the `T` of the shapes, before the softmax. With the logits 2, 1 and 0:
#
# - $T = 0.5$ doubles them to 4, 2 and 0, and $p$ = 0.867, 0.117 and 0.016: the favourite gains.
# - $T = 2$ halves them to 1, 0.5 and 0, and $p$ = 0.506, 0.307 and 0.186: the others gain.
# - As $T$ approaches 0, sampling becomes greedy decoding, so $T = 0$ means greedy.
#
# To test a sampler, draw $n$ times and count how often each token came. The share of a token with
# probability $p$ is close to $p$. It varies by chance, and its **standard error** says how much:
#
# $$\text{SE} = \sqrt{\frac{p\,(1 - p)}{n}}$$
#
# With $p = 0.24$ and $n$ = 20,000 it is 0.003. If $np$ and $n - np$ are large, the share is within
# two standard errors of $p$ in about 95 of 100 trials, and beyond five once in two million.


# %% 4. Sampling with a temperature
@lab.exercise(
    level=2,
    hints=(
        "At 0, repeat .argmax(-1, keepdim=True) by .expand. Else divide by T, then .softmax(-1).",
        "torch.rand(*logits.shape[:-1], times, dtype=torch.float64, device=logits.device) is u.",
        ".double().cumsum(-1) gives the ends, torch.searchsorted(ends, u, right=True) the ids.",
    ),
)
def sample(logits: Tensor, temperature: float = 1.0, times: int = 1) -> Tensor:
    """Draw ids by softmax(logits ÷ temperature), or argmax at 0: (..., V) -> (..., times)."""
    if temperature == 0:
        best = logits.argmax(-1, keepdim=True)  # (..., 1)
        return best.expand(*best.shape[:-1], times)
    ends = (logits / temperature).softmax(-1).double().cumsum(-1)  # (..., V)
    u = torch.rand(*logits.shape[:-1], times, dtype=torch.float64, device=logits.device)
    u = u * ends[..., -1:]  # rounding may leave the last end a little below 1
    return torch.searchsorted(ends, u, right=True)  # (..., times)


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
    show(run, "stretches", figures.stretches((2.0, 1.0, 0.0), 0.7))
    best = p[1.0].topk(5).indices
    names = [tokenizer.decode(i) for i in best.tolist()]
    show(run, "temperature", figures.temperatures(UNSURE, names, {t: p[t][best] for t in p}))
    low, middle, high = (p[t][best].sum() for t in p)
    five = "of the probability at T = 0.5, 1 and 2"
    return f"The five likeliest tokens have {low:.0%}, {middle:.0%} and {high:.1%} {five}."


# %% [markdown]
# ### Cutting off improbable tokens
# In the last figure at $T = 2$, the five likeliest tokens have almost nothing. Tens of thousands of
# others share the rest, and one nonsense token spoils the text after it. So samplers cut off
# improbable tokens before they draw: `logits.masked_fill(mask, -torch.inf)` sets their logits to
# $-\infty$ where the mask is true. Then the softmax gives their share to others. `transformers`
# divides by $T$ first, llama.cpp's default cuts first. The table *Tokens kept* shows what changes.
#
# - **Top-k**, by Fan et al. 2018, keeps the $k$ most probable tokens, whatever their probabilities.
# - **Top-p**, by Holtzman et al. 2020, keeps the smallest set of most probable tokens whose sum is
#   at least a limit $p$. The set is small where the model is sure, and large where it hesitates:
#   the figure below shows both. Of 0.67, 0.24 and 0.09, top-p 0.9 keeps two tokens, 0.6 keeps one.
# - **Min-p**, by Nguyen et al. 2024, keeps tokens with at least a given fraction of the largest
#   probability. Min-p 0.3 removes tokens below $0.3 \cdot 0.67 = 0.20$, and keeps two.
#
# The masks of top-k and min-p are `logits < logits.topk(k).values[..., -1:]` and
# `p < fraction * p.amax(-1, keepdim=True)`; `keepdim=True` keeps the axis, with length 1. Top-p is
# yours. Take 0.24, 0.67 and 0.09, and top-p 0.6. `sort(descending=True)` returns the sorted
# probabilities, and their old places `where`. Remove a token if those *before* it have ≥ 0.6:
#
# | in sorted order | first | second | third |
# |---|---|---|---|
# | probability | 0.67 | 0.24 | 0.09 |
# | `where`: its old place | 1 | 0 | 2 |
# | sum before it | 0 | 0.67 | 0.91 |
# | remove? | no | yes | yes |
#
# `mask.scatter(-1, where, mask)` copies the mask and writes entry $i$ to place `where[i]`. In the
# old order 0.24, 0.67, 0.09 the mask is then yes, no, yes.
#
# **Try it** below: draw ten tokens, then set T = 2. Which cuts bring sensible tokens back: top-k
# 50, top-p 0.9 or min-p 0.1? The view also shows $e^H$: the next token is as uncertain as a choice
# among $e^H$ equally likely tokens. $H = -\sum_i p_i \ln p_i$ is Shannon's **entropy**.


# %% 4. Cutting off improbable tokens
@lab.exercise(
    level=2,
    hints=(
        "Sort the probabilities from the largest down and add them up as you go.",
        "Keep a token if those before it have less than p together: also the one that crosses p.",
        "sort(descending=True), cumsum minus the token's own p, compare with p, and scatter back.",
    ),
)
def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest likeliest tokens that sum to p or more; set other logits (..., V) to -inf."""
    ordered, where = logits.sort(-1, descending=True)  # (..., V)
    share = ordered.softmax(-1)
    before = share.cumsum(-1) - share  # the sum of all likelier tokens
    outside = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, where, before >= p)
    return logits.masked_fill(outside, -torch.inf)


def sampler(temperature: float, p: float = 1.0) -> Choice:
    """Return a choice for `generate`: divide by the temperature, cut by top-p, draw; 0: greedy."""
    if temperature == 0:
        return greedy
    cut = (lambda logits: top_p(logits, p)) if p < 1 else torch.clone
    return lambda _ids, logits: int(sample(cut(logits / temperature)))


@lab.experiment
def our_cuts_equal_the_librarys(run: Run):
    """In four prompts, our top-k, top-p and min-p cut off the same tokens as those of transformers.

    Predict: how many tokens does top-p 0.9 keep where the model is sure, how many where it isn't?
    """
    model, tokenizer = smollm2(run)
    prompts = (UNSURE, SURE, FACT, "2 + 2 =")
    every = {text: logits_of(model, tokenizer(text).input_ids) for text in prompts}  # (T, V) each
    last = {text: logits[-1] for text, logits in every.items()}
    run.view("sampler", "sampler", *view_data.sampler(last, tokenizer))
    ours = {"top-k": top_k, "top-p": top_p, "min-p": min_p}
    cuts.compare_cuts(run, torch.cat(list(every.values())).double(), ours)
    left = {text: int(top_p(last[text], 0.9).isfinite().sum()) for text in (SURE, UNSURE)}
    show(run, "nucleus", figures.nucleus({text: (last[text], left[text]) for text in left}))
    counts = cuts.count_left(run, UNSURE, last[UNSURE], ours)
    new = run.pick(tiny=12, small=30, full=30)
    write = partial(generate, model, tokenizer(UNSURE).input_ids, new)
    choices = {"greedy": greedy, "T = 1": sampler(1.0), "T = 2": sampler(2.0)}
    choices["T = 2, then top-p 0.9"] = sampler(2.0, 0.9)
    choices["top-p 0.9, then T = 2"] = lambda _ids, logits: int(sample(top_p(logits, 0.9), 2.0))
    texts = [[name, tokenizer.decode(list(write(choose)))] for name, choose in choices.items()]
    run.table(f"{new} tokens after {UNSURE!r}, one text each", ["setting", "text"], texts)
    return (
        f"Tokens that top-p 0.9 keeps: {left[SURE]:,} after {SURE!r}, {left[UNSURE]:,} after "
        f"{UNSURE!r}. There, with T = 2 before the cut, top-p 0.9 keeps {counts['2']['top-p']:,} "
        f"tokens, min-p 0.1 keeps {counts['2']['min-p']:,}, and top-k 50 keeps 50."
    )


# %% [markdown]
# ### A penalty for repetition
# Models like to repeat themselves. The **repetition penalty** lowers the logit of every token of
# the text so far, even of "the". Keskar et al. 2019 divide it by a number, here 1.3. This lowers a
# positive logit: 2 becomes $2 / 1.3 = 1.5$. But −2 becomes −1.5, a reward: see the figure. So code
# divides positive logits and multiplies negative ones: −2 becomes −2.6. `torch.where(mask, a, b)`
# chooses between them. Adding 5 to all logits changes no probability, but it changes the penalty.
#
# `gather` reads from given places, as `scatter` writes to them. For logits `(B, V)` and the ids so
# far, `(B, T)`, `logits.gather(1, ids)` looks up along axis 1, the vocabulary. The result has the
# shape of the ids: from the logits 5, 6 and 7, the ids 2 and 0 gather 7 and 5.


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


def with_penalty(ids: list[int], logits: Tensor) -> int:
    """Choose greedily after a penalty of 1.3."""
    seen = torch.tensor([ids], device=logits.device)  # (1, T)
    return int(repetition_penalty(seen, logits[None], 1.3).argmax())  # [None]: (V,) -> (1, V)


@lab.experiment
def our_penalty_equals_the_librarys(run: Run):
    """Our repetition penalty changes the logits after one text as that of transformers does.

    Predict: what does a penalised greedy loop write after a sentence that occurred twice?
    """
    model, tokenizer = smollm2(run)
    prompt = tokenizer(view_data.TWICE).input_ids
    logits = logits_of(model, prompt)[-1:].double()  # (1, V)
    cuts.compare_penalty(run, prompt, logits, repetition_penalty)
    show(run, "penalty", figures.penalty(1.3))
    texts = [list(generate(model, prompt, 10, choose)) for choose in (greedy, with_penalty)]
    plain, penalised = (repr(tokenizer.decode(text)) for text in texts)
    return f"The greedy loop writes {plain}, with the penalty {penalised}."


# %% [markdown]
# ### What the library's defaults do
# SmolLM2's `generation_config.json` sets nothing about the choice of tokens, so `model.generate`
# does: `do_sample=False`, which is greedy, $T = 1$, top-p 1, and **top-k 50**. So `do_sample=True`
# alone doesn't draw from the model's own distribution. `top_k=0` switches the cut off.


# %% 4. The library's defaults
@lab.experiment
def the_library_samples_from_fifty_tokens(run: Run):
    """With `do_sample=True`, `generate` draws only from the 50 likeliest tokens by default.

    Predict: what share of the model's probability lies beyond its 50 likeliest tokens?
    """
    model, tokenizer = smollm2(run)
    prompt = tokenizer(UNSURE).input_ids
    logits = logits_of(model, prompt)[-1].double().cpu()  # (V,)
    n = run.pick(tiny=100, small=500, full=2000)
    by_default, without_cut = cuts.compare_defaults(run, model, prompt, logits, n, because=FIVE)
    show(run, "defaults", figures.ranks(by_default, without_cut), prompt=UNSURE)
    first, second = (int((ranks >= 50).sum()) for ranks in (by_default, without_cut))
    return f"In {n} draws, {first} are beyond rank 50 by default, and {second} with top_k=0."


# %% [markdown]
# ## 5. Chat
# A conversation is *one* text, in which **control tokens** mark who speaks. SmolLM2 was trained on
# such texts. It remembers nothing: each call gets the entire conversation and writes the next turn:
#
# ```
# <|im_start|>user
# What is the capital of Greece?<|im_end|>
# <|im_start|>assistant
# ```
#
# The last line opens the assistant's turn, which the model ends with `<|im_end|>`: our stop token.
# A third role, **system**, comes first and says how to behave. A chat model's tokenizer has its
# **chat template**: `tokenizer.apply_chat_template(messages, tokenize=False)` returns the text. The
# argument `add_generation_prompt=True` adds the last line. If the first message isn't a system
# message, SmolLM2's template adds one: "You are a helpful AI assistant named SmolLM, trained by
# Hugging Face". `build_chat` adds none. Talk to the model: `invoke chat`.
#
# Which form gets the most right replies? We ask for 44 capitals in four forms: the bare question;
# `Q: …` and `A:` on two lines; the text of `build_chat`; and that of the template. A reply is
# *right* if its first line, of at most 12 tokens, contains the capital. "Not Paris" counts, too.
#
# All forms get the *same* questions, so compare two question by question. The difference $d_i$
# is 1 if only the first prompt is right, −1 if only the second is, else 0. The mean $\bar d$ is the
# difference of the shares, and its standard error comes from how much the $d_i$ vary:
#
# $$\text{SE} = \sqrt{\frac{1}{n}\cdot\frac{\sum_i (d_i - \bar d)^2}{n - 1}}$$
#
# For 1, 0, 1, 0 and 0 the mean is 0.4, and the squared distances from it sum to 1.2. So the error
# is $\sqrt{1.2 / 4 / 5} = 0.245$. Section 4's formula is the same, up to the −1: zeros and ones
# have the variance $p(1 - p)$. Your function `difference` returns the mean and its error.


# %% 5. A chat is one text
@lab.exercise(
    level=1,
    hints=(
        "One message: the start token, the role, a line end, the content, the end token, …",
        "… and a line end. Join all messages. What must follow the last one?",
        "Add '<|im_start|>assistant\\n' once, at the end: that turn is the model's to write.",
    ),
)
def build_chat(messages: list[dict[str, str]]) -> str:
    """Return messages, each with role and content, as SmolLM2's text up to its next reply."""
    text = ""
    for message in messages:
        text += f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n"
    return text + "<|im_start|>assistant\n"


@lab.exercise(
    level=1,
    hints=(
        "zip(first, second, strict=True) pairs the replies; int(True) is 1 and int(False) is 0.",
        "The mean of the differences is sum(gains) / n. For each, take (gain - mean) ** 2.",
        "Add these squares, divide by n - 1, then by n, and take the square root: ** 0.5.",
    ),
)
def difference(first: Sequence[bool], second: Sequence[bool]) -> tuple[float, float]:
    """Return share(first) − share(second), right on the same questions, and its standard error."""
    gains = [int(a) - int(b) for a, b in zip(first, second, strict=True)]
    n = len(gains)
    mean = sum(gains) / n
    variance = sum((gain - mean) ** 2 for gain in gains) / (n - 1)
    return mean, (variance / n) ** 0.5


@lab.experiment
def the_template_gets_more_replies_right(run: Run):
    """In its template, 4-bit SmolLM2 gets more of 44 questions right than with `Q: …` and `A:`.

    Predict: what does the chat model write after the bare question, without a template?
    """
    model, tokenizer = smollm2(run)
    if tokenizer.chat_template is None:
        return f"{called(run)} has no chat template: it wasn't trained to converse."
    forms.compare_with_template(run, tokenizer, build_chat)
    asked = forms.prompt_forms(build_chat, tokenizer, built_in()[:EXAMPLES])
    right = forms.try_chat(run, (model, tokenizer), asked, built_in()[EXAMPLES:])
    gain, error = difference(right["chat"], right["zero-shot"])
    what = "share of right replies, chat − zero-shot"
    run.measure(what, gain, expect_at_least=2 * error, because=TWO, decides=True)
    prompt = build_chat([{"role": "user", "content": "What is the capital of Greece?"}])
    stop = [tokenizer.eos_token_id]
    reply = generate(model, tokenizer(prompt).input_ids, forms.NEW, stop=stop)
    return f"After build_chat's text, your loop writes {''.join(stream(tokenizer, reply))!r}."


# %% [markdown]
# After each bare question, SmolLM2 ends the turn at once: 0 right replies don't mean that it knows
# nothing. The fair baseline is *zero-shot*, which invites a reply without control tokens.
#
# ## 6. Prompt experiments
# Which form of a question works best? We put the same questions in twelve forms, of three kinds:
#
# - **zero-shot**: the question as `Q: …` and `A:`. *Question alone* is the bare text. Forms with
#   *32 tokens* allow longer replies than 12: does that limit cut off right ones?
# - **few-shot**, after Brown et al. 2020: the same after 1 or 4 examples. Does their order matter?
#   *Reversed* starts with the last. Must they be right? *Wrong* shifts the capitals by one country.
# - **chat**: the template with its default system message. *No system* is the text of `build_chat`.
#   *Reworded* adds "Answer with one word."; *pirate* has the system message "You are a pirate."
#
# If 30 of 44 replies are right, the **accuracy** is 0.68. By section 4's formula, its standard
# error is $\sqrt{0.68 \cdot 0.32 / 44} = 0.07$. With 44 other, equally well-known countries, 0.75
# would be no surprise. The error says nothing about other kinds of questions or other examples.
#
# If our 16 comparisons were independent and all forms equally good, one or more would exceed two
# standard errors with a probability of a half. Ours share forms, so this is only a guide. Our
# claims rest on *two* of them: chat − zero-shot in section 5, and 4 examples − zero-shot here.
#
# **Try your own form** in the notebook, with section 1's `model` and `tokenizer`. This is few-shot:
#
# ```python
# def mine(question):
#     return f"Q: What is the capital of France?\nA: Paris\n\nQ: {question}\nA:"
# texts, right = forms.try_form((model, tokenizer), mine, built_in()[EXAMPLES:])
# right.count(True), texts[:5]
# ```
#
# **Try your own questions**: `invoke lab LLM01 -- --prompts work/questions.jsonl`. Each line of the
# file is `{"question": "…", "answer": "…"}`. It needs eight or more; the first four are examples.


# %% 6. Prompt experiments
@lab.experiment
def four_examples_beat_zero_shot(run: Run):
    """With these four examples, more replies are right within 12 tokens than with zero-shot.

    Predict: does one example help, too? What does the model reply after four wrong examples?
    """
    items = all_items(run.options.prompts)
    questions = items[EXAMPLES:]
    asked = forms.prompt_forms(build_chat, smollm2(run)[1], items[:EXAMPLES])
    right, rows, copies = forms.try_forms(run, smollm2(run), asked, questions, difference)
    gain, error = difference(right["4 examples"], right["zero-shot"])
    run.measure(GAIN, gain, expect_at_least=2 * error, because=TWO, decides=True)
    run.measure(f"standard error of {GAIN}", error)
    forms.compare_others(run, right, difference)
    show(run, "accuracy", figures.accuracies(rows, len(questions)), forms=len(rows))
    return (
        f"In percentage points, 4 examples − zero-shot is {verdict(gain, error)}. After 1 example, "
        f"{copies['1 example']} of {len(questions)} replies only repeat words of the question, "
        f"after four {copies['4 examples']}."
    )


# %% [markdown]
# With our 44 questions, **4-bit SmolLM2** gets the same ones right with 32 tokens as with 12. The
# template beats `Q:` and `A:` by 39 ± 8 percentage points, four examples by 39 ± 10. Its system
# message may not matter: the template − `build_chat` alone is 2 ± 7. The *one* example that we
# chose seems to make it worse, by 18 ± 7: 38 of 44 replies repeat the country. Reversing the
# examples gains 14 ± 5: 6 more are right, and none is lost. If coins decided, six would agree once
# in 32 trials. *Reversed* has the most right, 36 of 44. But chance helps the best of twelve: test
# it on new questions. A new run with the old ones gets the same replies. After four wrong examples
# SmolLM2 still names capitals: they seem to show a reply's form, as in Min et al. 2022.
#
# ## What to remember
# - At each position, a model returns a logit for every token; softmax makes probabilities of them.
# - Cut by top-k, top-p or min-p. Know your library's defaults, and whether $T$ comes first.
# - A chat is one text. Try its template first: here it got 30 of 44 right, as four examples did.
# - Compare prompts on many questions with a fair baseline, and report the standard error.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Say what this run showed, in its numbers."""
    beyond = results.value("the_library_samples_from_fifty_tokens", "probability beyond rank 50")
    of = partial(results.value, "four_examples_beat_zero_shot")
    return (
        f"In this run, with `do_sample=True`, `generate`'s default top-k of 50 gave up "
        f"{beyond:.0%} of the probability after {UNSURE!r}. Four examples changed the accuracy by "
        f"{verdict(of(GAIN), of(f'standard error of {GAIN}'))} percentage points."
    )


# %% [markdown]
# **Read on**: Holtzman et al. 2020, *The curious case of neural text degeneration* · Miller 2024,
# *Adding error bars to evals* · Min et al. 2022, *Rethinking the role of demonstrations*.
# Deeper: LLM01+. Next: LLM02.

# %%
if __name__ == "__main__":
    lab.main()
