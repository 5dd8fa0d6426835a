# %% [markdown]
# # LLM10+ · A tiny LLaMA, deeper
# What a step costs in memory, what each part of the model is worth, and a transformer's bill.
#
# **You will be able to** count a step's page faults and avoid them; lay out a matrix for the
# product that it is used in; tell by an ablation, against the spread over seeds, what a part of a
# model is worth; predict a transformer's parameters, FLOPs and bytes from its configuration.
# **Builds on** LLM10, whose model, text and training it takes. **Takes** half an hour to read, a
# minute to run (`tiny`, 2 cores).

# %% Imports
import copy
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import mean, median
from typing import Any

from labs.kit import Lab, Results, Run, assets, seconds_paired
from labs.kit.measure import in_new_process
from labs.llm01_inference import called
from labs.llm03_neural_networks import best_in_turn
from labs.llm05a_normalization import RMSNorm, SwiGLU
from labs.llm10_llama import figures
from labs.llm10_llama.lesson import (
    DOUBLE,
    Config,
    LeanRMSNorm,
    Llama,
    Recipe,
    corpus,
    from_transformers,
    generate,
    nats,
    parameters,
    train,
)
from labs.llm10_llama.memory import cost, keep_memory
from labs.llm10_llama.options import declare_options
from labs.llm10_llama.transformer_costs import (
    GPT2,
    PUBLISHED,
    SMOLLM2,
    Transformer,
    counted_flops,
    language_model,
    library_model,
    saved_bytes,
    storage_bytes,
)
from labs.shared.small_gpt import FeedForward

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

lab = Lab("LLM10+")
declare_options(lab)

# %% [markdown]
# ## 1. What does a step cost?
# A step takes 2 operations forward and 4 backward for each weight and token, so $6NBT$ for $N$
# weights and $B$ texts of $T$ tokens (section 4). At this size that isn't the whole story. A step
# makes and drops some hundred tensors of up to a megabyte. The C library gets large blocks from the
# kernel and gives them back when they are dropped (glibc's bound begins at 128 KiB and moves); and
# a fresh page of 4 KiB is first mapped and cleared, a **page fault**, for each of 256 pages in a
# megabyte, each time. (Some kernels take 2 MiB at once: fewer faults, as much to clear.) Two lines
# in labs/llm10_llama/memory.py tell glibc to keep what it has; LLM10's `train` calls them first.
# Nothing about the model changes, not one bit of its numbers. (A process that has freed much before
# has blocks lying about, and may not notice: so we look at fresh ones.)


# %% 1. What a step costs
def step_of(model: Any, batch: int, length: int) -> Callable[[], None]:
    """Return a function that goes forward and backward on one batch of random tokens."""
    config = model.config
    v = getattr(config, "vocab_size", None) or config.vocabulary
    tokens = torch.randint(v, (batch, length + 1), device=next(model.parameters()).device)

    def step() -> None:
        out = model(tokens[:, :-1])
        logits = out if isinstance(out, Tensor) else out.logits
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        model.zero_grad()

    return step


def step_cost(keep: bool) -> tuple[float, float]:
    """Return the processor seconds and the page faults of a small model's step."""
    if keep:
        keep_memory()
    return cost(step_of(Llama(Config(257)), 16, 64))


IN_A_NEW_PROCESS = """
import json
from labs.llm10_llama.deeper import step_cost
print(json.dumps(step_cost({})))
"""


@lab.experiment
def a_step_pays_for_its_pages(run: Run):
    """Some of a small model's step goes into memory that is asked for anew; it can be kept.

    Predict: a thousand page faults a step, out of some 50 ms: how much faster without them?
    """
    kinds = run.progress((False, True), "fresh processes")
    found = [in_new_process(IN_A_NEW_PROCESS.format(keep)) for keep in kinds]
    (slow, first), (fast, kept) = found
    run.measure("page faults of a step, at first", first, timed=True)
    run.measure(
        "page faults of a step, memory kept",
        kept,
        expect_at_most=first / 10 + 100,
        because="a block that was had before is mapped and cleared already",
        timed=True,
        decides=True,
    )
    gain = slow / fast
    each = (slow - fast) / max(first - kept, 1) * 1e6
    run.measure(
        "times as little processor time with memory kept",
        gain,
        expect_at_least=1.02,
        because="a thousand pages to map and clear, a microsecond or two each",
        timed=True,
        decides=True,
    )
    run.measure("what a page fault costs", each, unit="µs", timed=True)
    lean = Config(257)
    plain = Config(257, norm=RMSNorm, ffn=SwiGLU)
    step, other = (step_of(Llama(config), 16, 64) for config in (lean, plain))
    a, b = seconds_paired(other, step, run.pick(tiny=5, small=15, full=15))
    leaner = median(x / y for x, y in zip(a, b, strict=True))
    run.measure(
        "times as fast with the lean norm and F.silu",
        leaner,
        expect_at_least=1.02,
        because="fewer passes over the same numbers",
        timed=True,
    )
    x, g, dy = (torch.randn(size, dtype=DOUBLE) for size in ((2, 64, 48), (48,), (2, 64, 48)))
    norms = (LeanRMSNorm.apply, lambda x, g, eps: F.rms_norm(x, (48,), g, eps))
    inputs = x.requires_grad_(), g.requires_grad_()
    ours, theirs = (torch.autograd.grad(norm(x, g, 1e-5), inputs, dy) for norm in norms)
    for name, mine, its in zip(("x", "the gain"), ours, theirs, strict=True):
        run.agree(f"the lean norm's gradient to {name}, less the library's", mine - its, 1e-11)
    return f"Memory kept: {gain:.2f} times as fast; leaner code: {leaner:.2f} times as fast again."


# %% [markdown]
# ## 2. A matrix laid out for one row
# In a large model the step for one token is mostly reading: each matrix meets one row, so that each
# of its numbers is fetched for two operations. `nn.Linear` keeps $W$ as (d_out, d_in), row after
# row. For products of many rows the order hardly matters; for one row it can, for here the library
# walks through memory once and does nothing else. `column_major` copies the matrices into the other
# order, column after column: same shapes, same numbers. What that brings depends on the processor
# and its library, and is measured.


# %% 2. A matrix laid out for one row
def column_major(model: Llama) -> Llama:
    """Copy a model, its matrices column after column; the embedding, read by rows, is unchanged."""
    model = copy.deepcopy(model)
    rows = model.embed_tokens.weight.detach().clone()  # tied, it would change with the last matrix
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight.detach().mT.contiguous().mT)
    model.embed_tokens.weight = nn.Parameter(rows)
    return model


@lab.experiment
@torch.no_grad()
def either_order_writes_the_same(run: Run):
    """4-bit SmolLM2 writes the same greedy text with its matrices laid out either way.

    Predict: how many times as fast is it with the matrices laid out for one row?
    """
    logging.disable_progress_bar()
    path = assets.pretrained(run.options.model, run.online)
    theirs = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    by_rows = from_transformers(theirs)
    by_columns = column_major(by_rows)
    new = run.pick(tiny=16, small=48, full=128)
    gains: list[float] = []
    unlike = 0
    for text in ("Shakespeare was born in", "The three primary colours are"):
        ids = tokenizer(text, return_tensors="pt").input_ids
        written: list[Tensor] = []

        def write(model: Llama, ids: Tensor = ids, written: list[Tensor] = written) -> None:
            written.append(generate(model, ids, new))

        a, b = seconds_paired(partial(write, by_rows), partial(write, by_columns), 1)
        gains.append(a[0] / b[0])
        unlike += sum(int((ids != written[0]).sum()) for ids in written[1:])
    run.check("greedy tokens that the order changes", unlike, equals=0, decides=True)
    run.measure("times as fast with matrices laid out for one row", gains, timed=True)
    return f"{called(run)} writes {median(gains):.2f} times as fast with the other order, here."


# %% [markdown]
# ## 3. What each part is worth
# Every part came with a paper. Here each is taken out in turn, all else alike (parameters, too,
# where that can be had), and the loss is compared with the whole's, whose spread over seeds says
# what counts. (Nothing is tuned anew for an arm. A run at `tiny` is short, which favours what
# learns fast.)


# %% 3. What each part is worth
def plain_ffn(d_model: int, d_ff: int) -> nn.Module:
    """Return a GELU layer without a gate: two matrices, 1.5 times as wide, as many parameters."""
    return FeedForward(d_model, 3 * d_ff // 2)


# for each arm: what changes in the configuration, and in the recipe
ARMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "without RoPE": ({"theta": None}, {}),
    "GELU for SwiGLU": ({"ffn": plain_ffn}, {}),
    "untied": ({"tied": False}, {}),
    "σ = 0.02": ({"std": 0.02}, {}),
    "LayerNorm": ({"norm": nn.LayerNorm}, {}),
    "one key-value head": ({"kv_heads": 1}, {}),
    "AdamW for all": ({}, {"muon": None}),
}
EXPECTED: dict[str, dict[str, float]] = {
    "without RoPE": {"expect_at_least": 0.03},
    "AdamW for all": {"expect_at_least": 0.03},
    "LayerNorm": {"expect_at_most": 0.03},
}


@lab.experiment
def each_part_is_worth_something(run: Run):
    """RoPE, SwiGLU, tying, the init, RMSNorm and Muon: what the loss is without each.

    Predict: which of them costs most when it is left out, and which nothing?
    """
    base, recipe = run.pick(
        tiny=(Config(0, 48, 2, 4, 4, 128, context=32), Recipe(200, 32)),
        small=(Config(0), Recipe(600, 32)),
        full=(Config(0), Recipe(2000, 32)),
    )
    text = corpus(run)
    base = replace(base, vocabulary=text.vocabulary)
    part = text.validation[: run.pick(tiny=2**14, small=2**16, full=2**17)]

    def loss(name: str, config: Config, recipe: Recipe, seed: int) -> float:
        return nats(train(run, name, config, text, recipe, seed).model, part, config.context)

    whole = [loss("the whole", base, recipe, seed) for seed in run.seeds(3)]
    spread = max(whole) - min(whole)
    rows: list[list[Any]] = [["the whole", parameters(Llama(base)), mean(whole), 0.0]]
    for name, (changes, other) in ARMS.items():
        config = replace(base, **changes)
        x = loss(name, config, replace(recipe, **other), run.seed)
        rows.append([name, parameters(Llama(config)), x, x - whole[0]])
    columns = ["arm", "parameters", "nats per token", "more than the whole, same seed"]
    title = f"Validation loss after {recipe.steps} steps of {recipe.batch} × {base.context}"
    run.table(title, columns, rows)
    run.measure("the whole, three seeds", whole)
    costs = {row[0]: row[3] for row in rows[1:]}
    because = "several times what seeds make of it; the papers find RMSNorm as good as LayerNorm"
    for name, cost_of_it in costs.items():
        bound: dict[str, Any] = EXPECTED.get(name, {})
        reason = because if bound else ""
        run.measure(f"nats that it costs: {name}", cost_of_it, because=reason, **bound)
    fig = figures.parts(costs, spread)
    run.figure(
        fig,
        "parts",
        f"{recipe.steps} steps; bars inside the grey tell nothing.",
        alt="Horizontal bars of the additional loss without each part; a grey band around 0 "
        "marks the range of three seeds.",
    )
    worst = max(costs, key=lambda name: costs[name])
    nothing = [name for name, cost in costs.items() if abs(cost) <= spread]
    return (
        f"Most costs: {worst} ({costs[worst]:+.3f}). Within the seeds' range of {spread:.3f}: "
        f"{', '.join(nothing) or 'nothing'}."
    )


# %% [markdown]
# ## 4. The bill of a transformer: parameters
# A configuration file has a dozen numbers. They give a model's parameters, FLOPs and bytes exactly,
# before anything is built. First the parameters. For a vocabulary of $V$, width $d$, and $L$
# layers:
#
# - **Embedding**: $Vd$. The output matrix has $Vd$ more, unless it is tied to the embedding.
# - **Attention**, in each layer: with $H$ query heads and $H_\text{kv}$ key-value heads of width
#   $D$, the matrices of queries and output have $dHD$ entries each, those of keys and values
#   $dH_\text{kv}D$ each.
# - **Feed-forward**, in each layer: $2df$ for the way up to width $f$ and down again. With a gate
#   (SwiGLU) it goes up twice: $3df$.
# - **Norms**: $d$ gains each, two in a layer and one at the end. GPT-2's norms have $d$ shifts,
#   too.
# - **Biases**: GPT-2 has one for each matrix of its layers, as long as the output. Llama has none.
# - **Positions**: GPT-2 learns a vector of $d$ for each of 1,024. Rotary ones have no parameters.
#
# In SmolLM2 a layer has 2·576·(576 + 192) = 884,736 entries in attention, 3·576·1,536 = 2,654,208
# in the feed-forward part and 1,152 gains. Thirty layers, 49,152·576 = 28,311,552 for the tied
# embedding and 576 for the last norm make 134,515,008.


# %% 4. Parameters
@lab.exercise(
    level=3,
    hints=(
        "Begin without biases: four matrices of attention, two or three of the feed-forward part.",
        "k and v are narrower where kv_heads < heads, and heads · head_dim may differ from width.",
        "A bias is as long as its matrix's output: H·D, H_kv·D twice, d; f for each way up, and d.",
    ),
)
def parameter_count(s: Transformer) -> dict[str, int]:
    """Return the parameters of "embedding", "positions", "attention", "ffn", "norms", "output".

    The output is 0 if it is tied.
    """
    queries = s.heads * s.head_dim
    keys = s.kv_heads * s.head_dim
    ways_up = 2 if s.gated else 1
    attention = 2 * s.width * (queries + keys)
    ffn = (ways_up + 1) * s.width * s.ffn
    if s.biases:
        attention += queries + 2 * keys + s.width
        ffn += ways_up * s.ffn + s.width
    return {
        "embedding": s.vocabulary * s.width,
        "positions": s.positions * s.width,
        "attention": s.layers * attention,
        "ffn": s.layers * ffn,
        "norms": (2 * s.layers + 1) * s.width * (2 if s.biases else 1),
        "output": 0 if s.tied else s.vocabulary * s.width,
    }


def total(s: Transformer) -> int:
    """Return the number of parameters."""
    return sum(parameter_count(s).values())


@lab.experiment
def a_configuration_gives_the_parameters(run: Run):
    """Published configurations give the parameter counts of five models exactly.

    Predict: GPT-2's paper says 117 M. How many do its width, depth and vocabulary give?
    """
    rows = []
    for name, s in PUBLISHED.items():
        with torch.device("meta"):  # shapes without numbers: 8 billion parameters take no memory
            library = library_model(s).num_parameters()
        run.check(f"{name}: counted, as transformers does", total(s), equals=library, decides=True)
        shares = [f"{n / total(s):.1%}" for n in parameter_count(s).values()]
        rows.append([name, total(s), *shares])
    run.table("Parameters, and each part's share", ["", "all", *parameter_count(GPT2)], rows)
    model, s = language_model(run)
    count = sum(p.numel() for p in model.parameters())
    run.check("the model opened here: counted", total(s), equals=count, decides=True)
    return f"GPT-2 has {total(GPT2) / 1e6:.1f} M."


# %% [markdown]
# ## 5. FLOPs
# Each entry of a matrix, the output's included, works once on every token, for 2 FLOPs. In
# attention each head also multiplies $T$ queries by $T$ keys, and $T \times T$ weights by $T$
# values: $2T^2D$ each. (Half of it is masked, but plain kernels compute it.) Forward, a sequence
# takes
#
# $$2T\left(N_\text{att} + N_\text{ff} + Vd\right) + 4T^2LHD$$
#
# where $N_\text{att}$ and $N_\text{ff}$ count the entries of the matrices of attention and
# feed-forward. Backward takes twice as many (LLM03). Only matrix products are counted; norms,
# softmax, activations and look-ups have far fewer FLOPs. The usual estimate is $2N$ a token for $N$
# parameters, and $6N$ with backward (Kaplan et al. 2020, who leave the embeddings out of $N$).


# %% 5. FLOPs
def forward_flops(s: Transformer, batch: int, length: int) -> int:
    """Return the FLOPs of the matrix products of a forward pass over tokens (batch, length)."""
    parts = parameter_count(replace(s, biases=False))
    matrices = parts["attention"] + parts["ffn"] + s.vocabulary * s.width
    squares = s.layers * s.heads * s.head_dim * length**2
    return batch * (2 * length * matrices + 4 * squares)


def count_in_a_fused_kernel(run: Run) -> None:
    """Count a small model with numbers, in plain products and with a fused attention."""
    s = replace(SMOLLM2, layers=2, vocabulary=320)
    model = library_model(s)
    tokens = torch.randint(320, (2, 32))
    _, plain = counted_flops(lambda: model(tokens))
    formula = forward_flops(s, 2, 32)
    run.check("a small model with numbers: forward", formula, equals=plain, decides=True)
    model.set_attn_implementation("sdpa")
    _, fused = counted_flops(lambda: model(tokens))
    missed = (plain - fused) / (8 * s.layers * s.heads * s.head_dim * 32**2)
    because = "the counter has a formula for each operation"
    run.measure("share of the T² terms that a fused kernel hides", missed, because=because)


@lab.experiment
def a_configuration_gives_the_flops(run: Run):
    """The formula gives the FLOPs that PyTorch counts in matrix products; backward has twice those.

    Predict: for which of these models is 2N FLOPs a token too much, and why?
    """
    lengths = [2**i for i in range(7, 14)]
    curves = {}
    for name, s in PUBLISHED.items():
        with torch.device("meta"):
            model = library_model(s).eval()
            tokens = torch.zeros(2, 64, dtype=torch.long)
            logits, forward = counted_flops(lambda m=model, t=tokens: m(t).logits)
            _, backward = counted_flops(logits.sum().backward)
        formula = forward_flops(s, 2, 64)
        run.check(f"{name}: forward, as counted", formula, equals=forward, decides=True)
        run.check(f"{name}: backward ÷ forward", backward / forward, equals=2.0, decides=True)
        reach = [t for t in lengths if t <= (s.positions or t)]
        ratios = [forward_flops(s, 1, t) / (2 * total(s) * t) for t in reach]
        curves[name] = (reach, ratios)
    count_in_a_fused_kernel(run)
    run.figure(
        figures.flops(curves),
        "flops",
        "The exact count ÷ the estimate; GPT-2's up to its 1,024 positions. Dotted: equal.",
        alt="Lines of forward FLOPs divided by 2·N·T over the length of a sequence, one for each "
        "of five models; a dotted line marks 1.",
    )
    first = [f"{name} {ratios[0]:.2f}" for name, (_, ratios) in curves.items()]
    return f"FLOPs ÷ 2NT at {lengths[0]} tokens: {', '.join(first)}."


# %% [markdown]
# ## 6. Bytes
# Training with AdamW in float32 takes $4N$ bytes for the weights, $4N$ for the gradients and $8N$
# for AdamW's two averages. A model that writes stores the keys and values of all tokens so far, the
# **KV cache**: $2LH_\text{kv}D$ numbers a token.
#
# Backward also needs what forward computed, the **activations**. A linear layer saves its input, a
# product of two tensors saves both, a softmax its output. In Llama as transformers writes it, a
# layer saves
#
# $$BT\left(6d + 2 + 4HD + 4f\right) + BHT^2$$
#
# numbers for $B$ sequences. For each norm and token these are the input, the normalised input, the
# scaled one, and one factor. Attention saves queries, keys and values (the latter two repeated for
# all $H$ heads), the heads' outputs, and $T^2$ weights a head. The gated part saves the gate before
# and after its activation, the other way up, and their product. The last norm adds $BT(3d + 1)$,
# the rotary cosines and sines $2TD$, and the tokens 8 bytes each. A loss adds $BTV$ for its
# softmax. A fused kernel saves no $T^2$: see LLM06.


# %% 6. Bytes
def activation_bytes(s: Transformer, batch: int, length: int) -> int:
    """Return the bytes that forward saves for backward, by the formula, in float32."""
    token = 6 * s.width + 2 + 4 * s.heads * s.head_dim + 4 * s.ffn
    layers = s.layers * (batch * length * token + batch * s.heads * length**2)
    ends = batch * length * (3 * s.width + 1) + 2 * length * s.head_dim
    return 4 * (layers + ends) + 8 * batch * length


@lab.experiment
def a_configuration_gives_the_bytes(run: Run):
    """Weights, gradients, AdamW's state, activations, cache and file have the predicted bytes.

    Predict: two layers of SmolLM2, 2 × 64 tokens. Which takes more: weights or activations?
    """
    s = replace(SMOLLM2, layers=2, vocabulary=1024)
    batch = 2
    length = 64
    n = total(s)
    model = library_model(s)
    tokens = torch.randint(1024, (batch, length))
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters)
    activations = saved_bytes(model, tokens)
    output = model(tokens)
    output.logits.sum().backward()
    optimizer.step()
    state = [tensor for moments in optimizer.state.values() for tensor in moments.values()]
    cached = [t for layer in output.cache.layers for t in (layer.keys, layer.values)]
    path = assets.smollm2() / "model.safetensors"
    with path.open("rb") as file:  # 8 bytes with the header's length, the header, the numbers
        (header,) = struct.unpack("<Q", file.read(8))
    cache_numbers = 2 * s.layers * s.kv_heads * s.head_dim * batch * length
    for name, predicted, measured in (
        ("weights", 4 * n, storage_bytes(parameters)),
        ("gradients", 4 * n, storage_bytes(p.grad for p in parameters)),
        ("AdamW, a step count a tensor", 8 * n + 4 * len(parameters), storage_bytes(state)),
        ("activations", activation_bytes(s, batch, length), activations),
        ("cache", 4 * cache_numbers, storage_bytes(cached)),
        ("SmolLM2's file", 8 + header + 2 * total(SMOLLM2), path.stat().st_size),
    ):
        run.check(f"bytes, {name}", predicted, equals=measured, decides=True)
    rows = []
    for name, shape in PUBLISHED.items():
        cache = 2 * 2 * shape.layers * shape.kv_heads * shape.head_dim / 2**10
        rows.append([name, 2 * total(shape) / 1e9, 16 * total(shape) / 1e9, cache])
    columns = ["", "weights, bf16 (GB)", "to train, float32 (GB)", "cache a token, bf16 (KiB)"]
    run.table("Real models, without activations", columns, rows)
    return (
        f"{batch * length} tokens leave {activations / 1e6:.1f} MB of activations, beside "
        f"{4 * n / 1e6:.1f} MB of weights."
    )


# %% [markdown]
# ## 7. Time
# LLM03+ drew a roofline: no calculation is faster than its FLOPs at the machine's peak, or its
# bytes at the machine's bandwidth. That gives a floor for a language model. Reading a prompt, all
# tokens pass each matrix together: the floor is all FLOPs at the rate of a large product. Writing,
# each new token passes alone: the floor is the time of fetching every weight once.


# %% 7. Time
@lab.experiment
@torch.no_grad()
def two_rates_and_a_configuration_give_the_time(run: Run):
    """Two measured rates and a configuration predict how long SmolLM2 takes to read and to write.

    Predict: how many tokens are read in the time in which one is written?
    """
    model, s = language_model(run)
    length = run.pick(tiny=256, small=1024, full=4096)
    tokens = torch.randint(s.vocabulary, (1, length), device=run.device)
    a, b = torch.randn(2, 1024, 1024, device=run.device)
    cached = model(tokens).cache
    calls: dict[str, Callable[[], Any]] = {
        "product": lambda: a @ b,
        "sums": lambda: [p.sum() for p in model.parameters()],
        "read": lambda: model(tokens),
        "write": lambda: model(tokens[:, :1], cache=cached),
    }
    times = best_in_turn(calls, 3, run.device)
    read = times["read"]
    write = times["write"]
    floor_read = forward_flops(s, 1, length) * times["product"] / (2 * 1024**3)
    floor_write = times["sums"]
    run.measure(
        "reading ÷ its floor",
        read / floor_read,
        expect_between=(0.9, 3),
        because="all FLOPs at the rate of 1,024 × 1,024 matrices; small operations add to it",
        timed=True,
        decides=True,
    )
    run.measure(
        "writing ÷ its floor",
        write / floor_write,
        expect_between=(0.9, 3),
        because="each weight fetched once, in the time of summing them; small operations add to it",
        timed=True,
        decides=True,
    )
    ratio = write / (read / length)
    run.measure("tokens read in the time of writing one", ratio, timed=True)
    return (
        f"Reading {length:,} tokens takes {1e3 * read:.0f} ms, writing one {1e3 * write:.0f} ms. In"
        f" the time of writing one token the model reads {ratio:.0f}."
    )


# %% What surprised
@lab.closing
def closing(results: Results) -> str:
    """Return what surprised, in the numbers of this run."""
    return f"## What surprised\n\n{_pages(results)} {_order(results)}\n\n{_parts(results)}"


def _pages(results: Results) -> str:
    """Report page faults and processor time with either setting of the C library."""
    name = "a_step_pays_for_its_pages"
    first = results.value(name, "page faults of a step, at first")
    kept = results.value(name, "page faults of a step, memory kept")
    gain = results.value(name, "times as little processor time with memory kept")
    lean = results.value(name, "times as fast with the lean norm and F.silu")
    found = f"A step of a model of half a million parameters had {first:,.0f} page faults"
    if results.verdict(name) != "held":
        return (
            f"{found}, and {kept:,.0f} with freed memory kept. That took {1 / gain:.2f}× the "
            "processor time, which is not what we expected on this machine."
        )
    return (
        f"{found}, which no profiler of operations shows. With freed memory kept there were "
        f"{kept:,.0f}, and the step took {1 / gain:.2f}× the processor time. Leaner code made it "
        f"{lean:.2f} times as fast again."
    )


def _order(results: Results) -> str:
    """Report which order of the matrices writes faster."""
    gain = results.value(
        "either_order_writes_the_same", "times as fast with matrices laid out for one row"
    )
    if abs(gain - 1) < 0.05:
        return "How the matrices lie in memory made no difference to speak of."
    better = "for one row" if gain > 1 else "as `nn.Linear` has it"
    return f"Matrices laid out {better} write {max(gain, 1 / gain):.2f} times as fast."


def _parts(results: Results) -> str:
    """Sort the arms by what they cost, against the range of three seeds."""
    name = "each_part_is_worth_something"
    whole = results.values(name, "the whole, three seeds")
    spread = max(whole) - min(whole)
    costs = {arm: results.value(name, f"nats that it costs: {arm}") for arm in ARMS}
    order = sorted(costs, key=lambda arm: costs[arm], reverse=True)
    groups = {
        "It is worse by more than seeds explain": [a for a in order if costs[a] > spread],
        "Seeds explain the difference": [a for a in order if abs(costs[a]) <= spread],
        "It is better by more than seeds explain": [a for a in order if costs[a] < -spread],
    }
    lines = [
        f"- {title}: {', '.join(f'{arm} ({costs[arm]:+.3f})' for arm in arms)}."
        for title, arms in groups.items()
        if arms
    ]
    return "\n".join(
        [
            "Of the parts that made LLaMA a LLaMA, a short run of a small model notices some at "
            f"once and others not at all. Three seeds of the complete model differ by "
            f"{spread:.3f} nats per token. What changes if one part is replaced:",
            "",
            *lines,
            "",
            "What such a run doesn't notice was chosen for other sizes and other reasons, memory "
            "and simplicity among them.",
        ]
    )


# %% [markdown]
# **Read on**: Jordan et al. 2024, *Muon*, and Bernstein 2025 on why it works · Karpathy's nanochat,
# whose log of experiments keeps those that brought nothing · `man 3 mallopt`, on the two bounds ·
# `benchmarks/llama.py`, which measures training and writing beside `transformers` at three sizes.

# %%
if __name__ == "__main__":
    lab.main()
