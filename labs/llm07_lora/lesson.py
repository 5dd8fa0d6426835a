# %% [markdown]
# # LLM07 · LoRA
# Teach a model something new with a fiftieth of its parameters: a low-rank update by each matrix.
#
# **You will be able to** write a LoRA layer and put it into a real model; say why it changes
# nothing at first and what moves then; choose rank, α and places by measuring; merge an adapter,
# save it, swap it, and exchange it with the library peft; teach SmolLM2 an answer format that
# examples in its prompt don't, and say what that cost. **Builds on** linear layers and gradients
# (LLM03), attention's projections (LLM06). **Takes** an hour to read, two minutes to run (`tiny`,
# 2 cores).

# %% Imports
import copy
import hashlib
import json
import math
import random
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple, cast

from labs.kit import Card, Lab, Results, Run, assets, seconds_paired, tolerance
from labs.kit.measure import peak_bytes
from labs.llm01_inference import called

import matplotlib.pyplot as plt
import safetensors.torch
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()  # these weights load in less than a second
warnings.filterwarnings("ignore", "`is_gradient_checkpointing`")  # peft asks by the old name

lab = Lab("LLM07")
lab.argument("--model", help="a Llama-like chat model instead of SmolLM2: a folder, or a hub id")
lab.before_run(assets.check_model)

# %% [markdown]
# ## 1. A small change to a large matrix
# A linear layer of a trained model maps $x$ to $Wx$; $W$ has
# $\operatorname{out} \times \operatorname{in}$ numbers. Fine-tuning adds a $\Delta W$ of that size,
# and AdamW keeps two more numbers for each. **LoRA** (Hu et al. 2021, eq. 3) leaves $W$ as it is,
# and writes $\Delta W$ as a product of two thin matrices, $A$ of $r$ rows and $B$ of $r$ columns:
#
# $$h = W x + \frac{\alpha}{r}\,B (A x)$$
#
# with $A$ of shape `(r, in)` and $B$ of shape `(out, r)`, so $\Delta W = \frac{\alpha}{r}\,B A$ has
# rank $r$ at most.
#
# The **rank** $r$ says how many directions $\Delta W$ may read and write. It costs
# $r\,(\text{in} + \text{out})$ numbers: in SmolLM2 a query projection has 576 · 576 = 331,776
# weights, its update of rank 8 has 9,216. $\alpha$ is a number to choose; the factor $\alpha/r$
# only scales, and §3 shows what it is good for. By hand, with $r = 1$ and $\alpha = 2$: let
# $A = (1, 0)$ and $B = (0, 3)^\top$. Then $x = (1, 2)$ gives $A x = 1$ and $B A x = (0, 3)$, and
# $(0, 6)$ is added to $W x$.
#
# $A$ starts random, **$B$ starts at zero**, so that the model begins as what it was. To put this
# into a real model, walk over its modules and replace each linear layer of a given name.


# %% 1. The layer
class LoraLinear(nn.Module):
    """A linear layer `base`, which stays as it is, and a low-rank update beside it or merged."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.base, self.rank, self.alpha, self.merged = base, rank, alpha, False
        self.kept: Tensor | None = None  # the base's own weight, where merge() kept it
        self.A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # ± 1/√in, as loralib and peft do

    @lab.exercise(
        level=1,
        hints=(
            "What the base gives comes first. When is there nothing to add to it?",
            "x is (..., in) and A is (r, in): multiply by A's transpose, then by B's.",
            "Add alpha / rank times F.linear(F.linear(x, A), B), unless it is merged already.",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), the update included exactly once, merged or not.

        Goes through the r numbers of A x, and never makes a matrix of out × in.
        """
        if self.merged:
            return self.base(x)
        answer, low = self.base(x), F.linear(x, self.A)  # (..., out), (..., r)
        return answer + F.linear(low, self.B) * (self.alpha / self.rank)

    def delta(self) -> Tensor:
        """ΔW (out, in): what the layer answers to each unit vector, less what its base does."""
        return (self.alpha / self.rank) * (self.B @ self.A)

    @torch.no_grad()
    def merge(self, keep: bool = False) -> None:
        """Add the update to the base's weight; `keep` a copy of that weight to return to.

        Raises:
            RuntimeError: where it is merged already.
        """
        if self.merged:
            raise RuntimeError("already merged: a second time would add the update twice")
        self.kept = self.base.weight.clone() if keep else None
        self.base.weight += self.delta()
        self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the update out again: exactly where the weight was kept, else by subtraction."""
        if not self.merged:
            raise RuntimeError("not merged: there is nothing to take out")
        self.base.weight.copy_(self.base.weight - self.delta() if self.kept is None else self.kept)
        self.kept, self.merged = None, False


def adapters(model: nn.Module) -> dict[str, LoraLinear]:
    """Every LoRA layer of a model by its name, such as model.layers.0.self_attn.q_proj."""
    return {name: one for name, one in model.named_modules() if isinstance(one, LoraLinear)}


@lab.exercise(
    level=1,
    hints=(
        "First nothing may train. Then look for the modules that may, by their type.",
        "A name can mislead: `adapters` finds LoRA layers whatever the model calls them.",
        "requires_grad_(False) on the model, then True on the A and the B of each of its adapters.",
    ),
)
def freeze_base(model: nn.Module) -> None:
    """Let the A and B of every LoraLinear be trained, and nothing else, whatever was set before."""
    model.requires_grad_(False)
    for layer in adapters(model).values():
        layer.A.requires_grad_(True)
        layer.B.requires_grad_(True)


QV = ("q_proj", "v_proj")  # where Hu et al. (2021) put most of theirs
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def insert(model: Any, targets: Iterable[str], rank: int, alpha: float) -> Any:
    """Put a LoraLinear in the place of each linear layer whose last name is in `targets`.

    Raises:
        ValueError: where the model has no such layer, and no adapter.
    """
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.split(".")[-1] in targets
    ]
    for name, module in found:
        model.set_submodule(name, LoraLinear(module, rank, alpha))
    if not adapters(model):
        raise ValueError(f"the model has no linear layer called {' or '.join(targets)}")
    freeze_base(model)
    return model


def take_out(model: Any) -> Any:
    """Put the base layers back where they were; a merged one keeps the update."""
    for name, layer in adapters(model).items():
        model.set_submodule(name, layer.base)
    return model


def randomize(model: Any) -> Any:
    """Give every B random numbers: an adapter that does something, without training."""
    for layer in adapters(model).values():
        nn.init.normal_(layer.B, std=0.05)
    return model


# %% [markdown]
# Two models serve this lab. **SmolLM2-135M-Instruct** is real: 30 layers, $d = 576$, and ours is
# its 4-bit release, dequantised (say so when you quote). **Glass** is small enough to be trained
# many times over: 0.85 M parameters, 4 layers, $d = 128$, trained in float32 on Lewis Carroll; its
# new domain will be Shakespeare's plays.


# %% 2. Two models
def open_model(path: str | Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def glass() -> Any:
    return open_model(assets.glass())


def smollm2(run: Run) -> tuple[Any, Any]:
    """The model (or what --model names) and its tokenizer, which pads on the left.

    Raises:
        Card: for a model whose linear layers aren't called as Llama's are.
    """
    path = assets.pretrained(run.options.model, run.online)
    model, tokenizer = open_model(path), AutoTokenizer.from_pretrained(path, padding_side="left")
    if missing := set(ALL) - {name.split(".")[-1] for name, _ in model.named_modules()}:
        why = f"It has no layers called {', '.join(sorted(missing))}."
        raise Card(f"{path} isn't made like Llama.", why, "another model: --model …")
    if tokenizer.eos_token is None:  # never taught to stop: let the end of the line be the end
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(tokenizer("\n").input_ids[-1])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return model, tokenizer


def check_smollm2(
    run: Run,
    name: str,
    value: float,
    because: str,
    at_most: float | None = None,
    at_least: float | None = None,
) -> None:
    """Check a bound that is SmolLM2's own; of another --model, measure. It decides the claim."""
    if run.options.model is None:
        run.check(name, value, at_most=at_most, at_least=at_least, because=because, decides=True)
    else:
        run.measure(name, value, expect_at_most=at_most, expect_at_least=at_least, decides=True)


LENGTH = 64  # tokens of a row; 165 characters or so


class Plays(NamedTuple):
    """Rows of plays, (N, LENGTH); of other plays than `training` 64 to choose by, 64 to test."""

    training: Tensor
    valid: Tensor
    test: Tensor


@cache
def plays() -> Plays:
    text = assets.shakespeare()
    training, others = to_rows(text[:1_000_000]), to_rows(text[-200_000:])
    return Plays(training, others[10::20][:64], others[::20][:64])


def to_rows(text: str) -> Tensor:
    tokenizer = AutoTokenizer.from_pretrained(assets.glass()).backend_tokenizer
    ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids)
    return ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)


def batches(rows: Tensor, size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`steps` random batches of rows, as tokens and labels: every token is to be predicted."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = rows[torch.randint(len(rows), (size,), generator=draw)]
        yield chosen, chosen


def row_losses(model: Any, tokens: Tensor) -> Tensor:
    """Nats per token that follows another, in each row; (B, T) -> (B,)."""
    logits = model(tokens).logits[:, :-1]
    nats = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return nats.view(len(tokens), -1).mean(1)


def loss_on(model: Any, tokens: Tensor) -> Tensor:
    """The same over all rows."""
    return row_losses(model, tokens).mean()


# %% 3. Insertion
@lab.experiment
@torch.no_grad()
def insertion_changes_nothing(run: Run):
    """Put by each linear layer of a real model's blocks, new adapters change no logit at all.

    Predict: not even by rounding?
    """
    model, tokenizer = smollm2(run)
    ids = tokenizer("A stitch in time saves nine.", return_tensors="pt").input_ids.to(run.device)
    before = model.to(run.device)(ids).logits
    insert(model, ALL, rank=8, alpha=16)
    run.measure("layers", len(adapters(model)))
    change = (model(ids).logits - before).abs().max()
    run.check(
        "largest change of a logit", change, at_most=0, because="W x + 0 is W x", decides=True
    )
    change = (randomize(model)(ids).logits - before).abs().max()
    run.check("with a random B", change, at_least=0.1, because="the partner: logits differ by ones")
    change = (take_out(model)(ids).logits - before).abs().max()
    run.check("with the adapters taken out", change, at_most=0, because="the base never changed")


# %% [markdown]
# ## 2. What moves first
# Let $L$ be the loss, $s = \alpha/r$, and $G = \partial L/\partial W$ the gradient that $W$ itself
# would get, $\operatorname{out} \times \operatorname{in}$. Since $W + sBA$ stands where $W$ stood,
# the chain rule gives
#
# $$
# \frac{\partial L}{\partial B} = s\,G A^\top \quad\text{and}\quad
# \frac{\partial L}{\partial A} = s\,B^\top G
# $$
#
# So each factor sees $G$ through the other one. $B = 0$ makes $A$'s gradient exactly 0 in the first
# step; $A$ is random, so $B$'s is not. After one step $B$ isn't 0 any more, and both move. If both
# started at 0, neither ever would.


# %% 4. The first step
@torch.enable_grad()
def tiny_steps(model: Any, rows: Tensor, steps: int, optimizer: Any) -> None:
    """Plain training without Accelerate, in the model's own precision: for exactness."""
    for _ in range(steps):
        loss_on(model, rows).backward()
        optimizer.step()
        optimizer.zero_grad()


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [one for one in model.parameters() if one.requires_grad]


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(one.numel() for one in trainable(model))


def adamw(model: nn.Module, rate: float) -> torch.optim.AdamW:
    """AdamW for what is trainable; without decay, which would pull A and B towards 0."""
    return torch.optim.AdamW(trainable(model), lr=rate, weight_decay=0)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the bytes of all weights that are no adapter's."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        if not name.endswith((".A", ".B")):
            digest.update(weight.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


@lab.experiment
def b_moves_first(run: Run):
    """At step 0 A's gradient is exactly 0 and B's is not; then both flow; W stays, to the byte.

    Predict: what would happen if A started at zero too?
    """
    rows, full = plays().training[:4], glass().double()
    loss_on(full, rows).backward()
    model = insert(glass().double(), ALL, rank=4, alpha=8)
    layers, before, optimizer = adapters(model), fingerprint(model), adamw(model, 1e-2)

    def largest_gradients() -> list[list[Tensor]]:  # of A and of B, one for each layer
        optimizer.zero_grad()
        loss_on(model, rows).backward()
        return [[getattr(one, name).grad.abs().max() for one in layers.values()] for name in "AB"]

    a, b = largest_gradients()
    run.check(
        "step 0, A: largest gradient of a layer",
        a,
        at_most=0,
        because="Bᵀ G with B = 0",
        decides=True,
    )
    run.check(
        "step 0, B: the same", b, at_least=1e-6, because="rounding would give 1e-16", decides=True
    )
    g = {name: full.get_submodule(name).weight.grad for name in layers}
    off = [(one.B.grad - 2 * g[name] @ one.A.mT).abs().max() for name, one in layers.items()]
    run.agree("B's gradient, less s · G Aᵀ", torch.stack(off))  # s is 2
    optimizer.step()
    a, b = largest_gradients()
    run.check(
        "step 1, A: largest gradient of a layer",
        a,
        at_least=1e-6,
        because="B has moved",
        decides=True,
    )
    run.check(
        "step 1, B: the same", b, at_least=1e-6, because="and A is still random", decides=True
    )
    run.check(
        "W is the same bytes after a step", fingerprint(model) == before, equals=True, decides=True
    )
    tiny_steps(full, rows, 1, adamw(full, 1e-2))
    run.check("and without freezing, the partner", fingerprint(full) == before, equals=False)
    for weight in trainable(model):
        nn.init.zeros_(weight)
    because = "each waits for the other"
    a, b = largest_gradients()
    run.check("both at 0: largest gradients", [*a, *b], at_most=0, because=because)


# %% [markdown]
# ## 3. What α is for
# Adam divides each gradient by its own size, so its first step moves every number of $B$ by the
# learning rate $\eta$, whatever $s$ is:
#
# $$\Delta W = -s\,\eta\,\text{sign}(G A^\top)\,A$$
#
# So **$\alpha$ is a learning rate in disguise**, "roughly", say Hu et al. (§4.1): twice the
# $\alpha$ at half the rate is the same first step, but not the same training, for $A$'s steps
# aren't scaled so. Under plain gradient descent $s$ counts twice, once in the gradient and once in
# the product.
#
# Why divide by $r$? Let there be one token $x$, and $g = \partial L/\partial h$ at its output: then
# $G = g x^\top$. With $a_k$ for $A$'s row $k$, the number $B_{ik}$ moves by
# $-\eta\,\text{sign}(g_i)\,\text{sign}(a_k \cdot x)$, and output $i$ for $x$ by
#
# $$-s\,\eta\,\text{sign}(g_i) \sum_k |a_k \cdot x|$$
#
# All $r$ terms have the same sign. At fixed $s$ that grows like $r$; at fixed $\alpha$, with
# $s = \alpha/r$, it doesn't grow. With many tokens the terms agree only in part, and growth lies
# between $\sqrt r$ (no agreement) and $r$. Hu et al. divide by $r$ so that $\eta$ need not be
# searched for again at each $r$; Kalajdzievski (2023) argues for $\sqrt r$.


# %% 5. α and the first step
ADAM = partial(torch.optim.AdamW, weight_decay=0, eps=1e-20)  # ε beneath every gradient


def first_step(rank: int, alpha: float, rate: float, optimizer: Any = ADAM) -> Any:
    """Glass with an adapter after one step."""
    torch.manual_seed(1)  # the same A for the same rank
    model = insert(glass().double(), ALL, rank, alpha)
    tiny_steps(model, plays().training[:4], 1, optimizer(trainable(model), lr=rate))
    return model


def deltas(model: Any) -> Tensor:
    """All ΔW of a model in one long vector."""
    return torch.cat([one.delta().detach().flatten() for one in adapters(model).values()])


@lab.experiment
def alpha_is_a_learning_rate(run: Run):
    """For Adam's first step twice the α is twice the rate; and a larger rank is a larger step.

    Predict: at fixed α/r and rate, how much further does the first step of rank 64 go than rank 1?
    """
    one, two = (deltas(first_step(4, *pair)) for pair in ((8, 1e-3), (16, 5e-4)))
    run.agree(
        "Adam: ΔW with 2α and η/2, less ΔW, over its norm", (two - one) / one.norm(), decides=True
    )
    plain = torch.optim.SGD
    one, two = (deltas(first_step(4, *pair, plain)) for pair in ((8, 1e-3), (16, 5e-4)))
    run.agree("gradient descent: the ratio of their norms, less 4 · ½", two.norm() / one.norm() - 2)
    rows, base = plays().test[:4], glass().double()
    models = [first_step(rank, 2 * rank, rate=1e-4) for rank in (1, 64)]
    with torch.no_grad():
        one, two = ((model(rows).logits - base(rows).logits).norm().item() for model in models)
    slope, because = math.log(two / one) / math.log(64), "√r to r: how far do the tokens agree?"
    what = "at fixed s the first step's change of the logits grows as r to the"
    run.measure(what, slope, expect_between=(0.5, 1), because=because, decides=True)
    return f"At fixed α/r rank 64 steps {two / one:.0f} times as far as rank 1."


# %% [markdown]
# ## 4. The same as peft
# **peft** is the library that most adapters are made with. It names our $A$ `lora_A.weight` and our
# $B$ `lora_B.weight`, puts `base_model.model.` before the layer's name, and saves two files:
# `adapter_model.safetensors` with the numbers, `adapter_config.json` with rank, $\alpha$ and
# places. What follows these names is exchangeable. Only the adapter is saved: who loads it must
# have the base.


# %% 6. Save and swap
@lab.exercise(
    level=2,
    hints=(
        "Which layers have an A and a B, and what are their names in the model?",
        "`adapters` gives both. The keys are base_model.model.<name>.lora_A.weight, and lora_B.",
        "Detach and clone each: training goes on in place, and would change what you gave away.",
    ),
)
def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every A and B, on the CPU and contiguous, under the names that peft gives them."""
    return {
        f"base_model.model.{name}.lora_{letter}.weight": weight.detach().cpu().clone().contiguous()
        for name, layer in adapters(model).items()
        for letter, weight in (("A", layer.A), ("B", layer.B))
    }


@lab.exercise(
    level=2,
    hints=(
        "What is there now must be kept before it is overwritten: adapter_state makes a copy.",
        "Compare names and shapes before you write anything: half an adapter is worse than none.",
        "copy_ each tensor into its A or B under no_grad: assigning would tie model and state.",
    ),
)
def swap(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the adapter `state` in the place of the model's own, and return a copy of that.

    Raises:
        ValueError: where names or shapes differ, or a layer is merged; nothing has changed then.
    """
    own, layers = adapter_state(model), adapters(model)
    if {key: one.shape for key, one in own.items()} != {k: one.shape for k, one in state.items()}:
        raise ValueError("this adapter has other layers, or another rank, than the model's own")
    if any(layer.merged for layer in layers.values()):
        raise ValueError("the model's own adapter is merged: unmerge it first")
    with torch.no_grad():
        for name, layer in layers.items():
            layer.A.copy_(state[f"base_model.model.{name}.lora_A.weight"])
            layer.B.copy_(state[f"base_model.model.{name}.lora_B.weight"])
    return own


def save(model: Any, folder: Path) -> None:
    """Write the adapter as peft does."""
    layers = adapters(model)
    one = next(iter(layers.values()))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.config.name_or_path,
        "r": one.rank,
        "lora_alpha": one.alpha,
        "target_modules": sorted({name.split(".")[-1] for name in layers}),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    safetensors.torch.save_file(adapter_state(model), folder / "adapter_model.safetensors")


def load(model: Any, folder: Path) -> Any:
    """Put an adapter that peft or `save` wrote into a model without one.

    Raises:
        ValueError: where it has another factor than α/r, or more than an A and a B for each layer.
    """
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("use_rslora") or config.get("alpha_pattern"):
        raise ValueError("this adapter is scaled otherwise than by α/r")
    insert(model, config["target_modules"], config["r"], config["lora_alpha"])
    swap(model, safetensors.torch.load_file(folder / "adapter_model.safetensors"))
    return model


# %% 7. Parity with peft
def exact(model: Any) -> Any:
    """All in float64: transformers' RMSNorm computes in float32, which hides a difference of 1e-16
    nearly always, and now and then rounds it up to 1e-7."""
    for name, one in list(model.named_modules()):
        if hasattr(one, "variance_epsilon"):
            norm = nn.RMSNorm(len(one.weight), one.variance_epsilon)
            norm.weight = one.weight
            model.set_submodule(name, norm)
    return model.double()


@lab.experiment
def own_equals_peft(run: Run):
    """With the same weights ours gives peft's outputs, and still does after ten training steps.

    Predict: how far apart are they in float64, after those ten steps?
    """
    ours = randomize(insert(exact(glass()), ALL, rank=4, alpha=8))
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(ALL))
    theirs, rows = get_peft_model(exact(glass()), config), plays().training[:4]
    set_peft_model_state_dict(theirs, adapter_state(ours))

    def apart() -> Tensor:
        with torch.no_grad():
            return ours(rows).logits - theirs(rows).logits

    run.agree("logits", apart(), tolerance(torch.float64), decides=True)
    with torch.no_grad():
        change = (ours(rows).logits - exact(glass())(rows).logits).abs().max()
    run.check("logits, with and without ours", change, at_least=0.1, because="the partner")
    start = deltas(ours)
    run.check("trainable parameters", parameters(theirs), equals=parameters(ours))
    for model in (ours, theirs):
        tiny_steps(model, rows, 10, adamw(model, 1e-2))
    run.agree("logits after 10 steps of AdamW", apart(), tolerance(torch.float64), decides=True)
    moved = (deltas(ours) - start).norm() / start.norm()
    run.check("ΔW has moved by, relatively", moved, at_least=0.1, because="so that it was trained")


@lab.experiment
@torch.no_grad()
def adapters_travel(run: Run):
    """An adapter saved by us loads in peft with the same logits, and the other way round.

    Predict: rank 8 in q and v of every layer: how many times smaller is its file than the model's?
    """
    model, tokenizer = smollm2(run)
    ids = tokenizer("All that glitters", return_tensors="pt").input_ids
    ours = randomize(insert(model, QV, rank=8, alpha=16))
    want = ours(ids).logits
    with tempfile.TemporaryDirectory() as folder:
        save(ours, Path(folder))
        theirs = PeftModel.from_pretrained(take_out(ours), folder)
        small = (Path(folder) / "adapter_model.safetensors").stat().st_size
        run.agree("ours in peft", theirs(ids).logits - want, tolerance(torch.float32), decides=True)
        theirs.save_pretrained(f"{folder}/back")
        again = load(theirs.unload(), Path(folder) / "back")
        run.agree(
            "peft's in ours", again(ids).logits - want, tolerance(torch.float32), decides=True
        )
    change = (take_out(again)(ids).logits - want).abs().max()
    run.check("without either", change, at_least=0.1, because="the partner")
    run.measure("bytes of the adapter's file", small)
    large = 4 * sum(one.numel() for one in again.parameters())
    run.measure("of the model's weights in float32, times that", large / small)
    return f"The adapter of {called(run)}: {small:,} bytes."


# %% [markdown]
# ## 5. Merged
# An adapter costs two more products in each layer. Merged, $W + \Delta W$ is one matrix again, and
# costs nothing. Taking $\Delta W$ out again subtracts what was added, and floating point keeps no
# promise that $(W + \Delta W) - \Delta W$ is $W$: each of the two sums rounds, by at most half a
# unit in the last place. To get the very same bytes, keep $W$. And in bf16, with 8 bits of
# precision, a change below 1/512 of a weight is less than half a unit and vanishes, as much of
# Adam's first step does: merge in float32, and round once, if at all.


# %% 8. Merging
@lab.experiment
@torch.no_grad()
def merging_is_exact_enough(run: Run):
    """Merged equals unmerged; W comes back within rounding, and exactly if kept; never twice.

    Predict: which share of the weights comes back with other bits, when ΔW is subtracted?
    """
    # layer by layer: the model's norms compute in float32 and round smaller differences away
    off = []
    for layer in adapters(randomize(insert(glass().double(), ALL, rank=4, alpha=8))).values():
        x = torch.randn(32, layer.base.in_features, dtype=torch.float64)
        want = layer(x)
        layer.merge()
        off.append((layer(x) - want).abs().max())
    run.agree(
        "float64: merged less unmerged", torch.stack(off), tolerance(torch.float64), decides=True
    )
    layers, base, missed = adapters(randomize(insert(glass(), ALL, 4, 8))), glass(), []
    w = torch.cat([base.get_submodule(name).weight.flatten() for name in layers])
    for keep in (True, False):
        for layer in layers.values():
            layer.merge(keep)
            with suppress(RuntimeError):
                layer.merge(keep)
                missed.append(layer)
        largest = max(w.abs().max(), *(one.base.weight.abs().max() for one in layers.values()))
        for layer in layers.values():
            layer.unmerge()
        off = torch.cat([layer.base.weight.flatten() for layer in layers.values()]) - w
        if keep:
            run.check(
                "W as it came back, kept",
                off.abs().max(),
                at_most=0,
                because="a copy",
                decides=True,
            )
    because = "two roundings, of at most half a unit of the largest weight each"
    bound = largest.item() * torch.finfo(torch.float32).eps
    run.check(
        "W as it came back, subtracted",
        off.abs().max(),
        at_most=bound,
        because=because,
        decides=True,
    )
    share, because = (off != 0).float().mean(), "the partner: subtracting isn't exact"
    run.check("share of W with other bits", share, at_least=0.005, because=because)
    run.check("second merges that weren't refused", len(missed), equals=0, decides=True)
    step = deltas(first_step(4, 8, rate=1e-3)).bfloat16()  # ordered as w is
    lost = (w.bfloat16() + step == w.bfloat16()).float().mean()
    run.measure("bf16: share of W that the ΔW of Adam's first step, η = 0.001, leaves as is", lost)
    x = torch.randn(run.pick(tiny=256, small=1024, full=4096), 576, device=run.device)
    layer = LoraLinear(nn.Linear(576, 576, bias=False), 8, 16).to(run.device)
    slow, fast = seconds_paired(lambda: layer(x), lambda: layer.base(x), 15)
    ratio = median(a / b for a, b in zip(slow, fast, strict=True))
    what = "time of a 576 × 576 layer, unmerged over merged"
    run.measure(what, ratio, expect_at_least=1, timed=True)
    return f"Subtracting ΔW gave {share:.0%} of the weights other bits; a kept copy, none."


# %% [markdown]
# ## 6. Training, under Accelerate
# Accelerate places the model, sets the precision, and shares the work among processes. Each of $N$
# processes takes its part of the same batch, and their gradients are averaged. So we divide the
# summed loss by the number of labels in the *whole* batch and multiply by $N$: then $N$ processes
# train as one with all of it does. (A label of −100 isn't counted.)


# %% 9. A training loop
def batch_loss(run: Run, model: Any, tokens: Tensor, labels: Tensor) -> Tensor:
    """This process's part of the mean loss per label (nats); whole batches come, (B, T) both."""
    count = (labels[:, 1:] != -100).sum().to(run.device)
    tokens, labels = (run.share(one).to(run.device) for one in (tokens, labels))
    logits = model(tokens).logits[:, :-1].flatten(0, 1)
    total = F.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum")
    return total * run.accelerator.num_processes / count


@dataclass(frozen=True)
class Trained:
    model: Any
    losses: list[float]  # nats per label, one for each step
    optimizer_bytes: int


@torch.enable_grad()
def train(run: Run, model: Any, data: Any, steps: int, rate: float, label: str) -> Trained:
    """AdamW on what requires a gradient; the rate falls in a line, nearly to 0; with clipping."""
    weights, losses, optimizer = trainable(model), [], adamw(model, rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1 / steps, steps)
    model, prepared = run.accelerator.prepare(model, optimizer)
    for tokens, labels in run.progress(data, label, steps):
        loss = batch_loss(run, model, tokens, labels)
        run.accelerator.backward(loss)
        run.accelerator.clip_grad_norm_(weights, 1.0)
        prepared.step()
        prepared.zero_grad()
        schedule.step()
        mean_loss = cast(Tensor, run.accelerator.reduce(loss.detach(), "mean"))
        losses.append(mean_loss.item())
    moments = [one for state in optimizer.state.values() for one in state.values() if one.dim()]
    model = run.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return Trained(model, losses, sum(one.numel() * one.element_size() for one in moments))


@torch.no_grad()
def test_loss(run: Run, model: Any, rows: Tensor) -> float:
    """In float32, whatever the precision of training."""
    return loss_on(model.to(run.device), rows.to(run.device)).item()


# %% [markdown]
# ## 7. How much rank, and where
# Glass learns plays: by LoRA in all linear layers of its blocks at ranks 1, 4 and 16; by LoRA in
# $q$ and $v$ alone at rank 8; by all its weights (full fine-tuning); and, to know what the base is
# worth, as a new model from scratch. $\alpha/r$ is 2 throughout, and all arms see the same batches.
# Each has the learning rate that is best for itself, among steps of a factor of two, on rows that
# serve nothing else (`valid`): for `tiny`'s 40 steps it was found beforehand; larger sizes train
# longer, and try half and twice that rate as well. A larger rank wants a lower rate, as §3 let us
# expect, so one rate for all would have told us about rates, not ranks.


# %% 10. The arms
@dataclass(frozen=True)
class Arm:
    rate: float
    targets: tuple[str, ...] = ()
    rank: int = 0  # 0: no adapter, all weights are trained
    pretrained: bool = True

    def build(self) -> Any:
        model = glass()
        if not self.pretrained:
            return AutoModelForCausalLM.from_config(model.config)
        return insert(model, self.targets, self.rank, 2 * self.rank) if self.rank else model


LORA = {"r = 1": Arm(2e-2, ALL, 1), "r = 4": Arm(1e-2, ALL, 4), "r = 16": Arm(6e-3, ALL, 16)}
LORA["r = 8, q and v"] = Arm(1e-2, QV, 8)
TUNED = {**LORA, "full": Arm(2e-3)}
ARMS = {**TUNED, "from scratch": Arm(8e-3, pretrained=False)}


def learn(run: Run, arm: Arm, rows: Tensor, seed: int, factor: float, label: str) -> Trained:
    torch.manual_seed(seed)
    steps, size = run.pick(tiny=(40, 4), small=(400, 8), full=(3000, 32))
    data = batches(rows, size, steps, seed)
    return train(run, arm.build(), data, steps, arm.rate * factor, label)


@cache
def fits(run: Run, name: str) -> list[Trained]:
    """An arm on three seeds, at the best of its rates on the first of them."""
    first, *others = run.seeds(3)
    factors = run.pick(tiny=(1.0,), small=(0.5, 1.0, 2.0), full=(0.5, 1.0, 2.0))
    rows, label = plays().training, f"{name}, another seed"
    found = {x: learn(run, ARMS[name], rows, first, x, f"{name}, rate × {x}") for x in factors}
    best = min(found, key=lambda x: test_loss(run, found[x].model, plays().valid))
    rest = [learn(run, ARMS[name], rows, seed, best, label) for seed in others]
    return [found[best], *rest]


@cache
def losses(run: Run, name: str) -> list[float]:
    """An arm's loss on the test rows, for each seed; of `untouched`, glass's own."""
    models = [glass()] if name == "untouched" else [one.model for one in fits(run, name)]
    return [test_loss(run, model, plays().test) for model in models]


def gain(run: Run, name: str, over: str) -> list[float]:
    """What an arm gains over another, seed by seed (nats per token)."""
    mine, theirs = losses(run, name), losses(run, over)
    return [b - a for a, b in zip(mine, theirs * (len(mine) // len(theirs)), strict=True)]


def sizes(run: Run, name: str) -> list[Any]:
    """Trainable parameters, percent of the base's, bytes of the optimizer's state and to save."""
    one = fits(run, name)[0]
    count, state = parameters(one.model), adapter_state(one.model)
    saved = len(safetensors.torch.save(state or dict(one.model.named_parameters())))
    return [count, 100 * count / parameters(glass()), one.optimizer_bytes, saved]


# %% 11. Rank
@lab.experiment
def adapting_beats_scratch(run: Run):
    """Every adapter, of rank 1 too, ends far below the base and below a model from scratch.

    Predict: what does rank 1 in every layer get of what full fine-tuning gets?
    """
    rows = [[name, *sizes(run, name), mean(losses(run, name))] for name in ARMS]
    spread = max(max(losses(run, name)) - min(losses(run, name)) for name in TUNED)
    columns = ["arm", "trainable", "% of the base", "optimizer bytes", "bytes to save", "loss"]
    run.table("Plays: nats per token on the test rows, mean of three seeds", columns, rows)
    run.measure("largest range of an adapted arm over seeds", spread, unit="nats")
    because = "several times the range over seeds"
    for other in ("untouched", "from scratch"):
        gains = [one for name in LORA for one in gain(run, name, other)]
        run.check(f"{other}, less each adapter", gains, at_least=0.2, because=because, decides=True)
    fig, ax = plt.subplots()
    for i, name in enumerate(TUNED):
        count, found = sizes(run, name)[0], losses(run, name)
        ax.plot([count] * 3, found, "o", color=f"C{i}")
        ax.annotate(name, (count, mean(found)), (8, -4), textcoords="offset points")
    (untouched,), scratch = losses(run, "untouched"), mean(losses(run, "from scratch"))
    ax.axhline(untouched, color="grey", ls=":")
    ax.text(4200, untouched, "untouched", va="bottom")
    ax.set(xscale="log", xlim=(4000, 2e6), xlabel="trainable parameters")
    ax.set(ylabel="loss on plays (nats per token)", title="Glass learns plays, three seeds")
    caption = "What an adapter gets by its size and place, and what full fine-tuning does."
    run.figure(
        fig,
        "rank",
        f"{caption} A model from scratch ends at {scratch:.2f}, off the scale.",
        alt="Scatter plot of the loss on plays over the number of trainable parameters on a "
        "log scale, a group of three seeds for each adapter and for full fine-tuning; a "
        "dotted line marks the untouched model.",
    )
    full = mean(gain(run, "full", "untouched"))
    shares = [f"{mean(gain(run, name, 'untouched')) / full:.0%} by {name}" for name in LORA]
    return f"Of what full fine-tuning gains they get: {'; '.join(shares)}."


@lab.experiment
def rank_one_is_enough(run: Run):
    """Rank 1 is as good as rank 16, each at a learning rate that suits it (Hu et al. 2021).

    Predict: what if they exchange their rates?
    """
    because = "on GPT-3 r = 1 was as good as more (their table 6)"
    more = gain(run, "r = 16", "r = 1")
    run.measure(
        "what rank 16 gains (nats)", more, expect_at_most=0.02, because=because, decides=True
    )
    because = "§3: at fixed α/r a larger rank is a larger step"
    for name, other in (("r = 1", "r = 16"), ("r = 16", "r = 1")):
        label, factor = f"{name} at the rate of {other}", LORA[other].rate / LORA[name].rate
        model = learn(run, LORA[name], plays().training, run.seed, factor, label).model
        worse = test_loss(run, model, plays().test) - losses(run, name)[0]
        run.measure(f"{label}: worse by (nats)", worse, expect_at_least=0, because=because)
    return (
        f"Rank 16 gains {mean(more):.2f} nats over rank 1; at rank 1's rate it loses {worse:.2f}."
    )


# %% 12. Placement
@lab.experiment
def places_count_more_than_rank(run: Run):
    """Rank 1 in all linear layers beats rank 8 in q and v, with fewer parameters.

    Predict: how many fewer?
    """
    deep, wide = (sizes(run, name)[0] for name in ("r = 1", "r = 8, q and v"))
    because = "q and v leave the MLP as it is, and that has most of the weights"
    what, gains = "what rank 1 everywhere gains (nats)", gain(run, "r = 1", "r = 8, q and v")
    run.measure(what, gains, expect_at_least=0, because=because, decides=True)
    return f"{deep:,} parameters everywhere, {wide:,} in q and v: a gain of {mean(gains):.2f} nats."


# %% [markdown]
# ## 8. Is the update low-rank?
# LoRA rests on a guess: that what fine-tuning changes has a low "intrinsic rank" (Hu et al. 2021,
# §4.1). We can look. The **singular value decomposition** sorts a matrix into directions by size:
#
# $$\Delta W = U\,\text{diag}(\sigma)\,V^\top = \sum_i \sigma_i\,u_i v_i^\top$$
#
# Its first $r$ terms are the best approximation of rank $r$ in the sum of squares (Eckart & Young
# 1936), and their share of the **energy** $\sum_i \sigma_i^2$ says how good. The yardstick is a
# random matrix of the same shape, whose energy is spread over all directions. But energy isn't use:
# what does the *loss* say if of each $\Delta W$ only $r$ directions are kept? Split the $r$ terms
# between $A$ and $B$, and it is an adapter.


# %% 13. The update of full fine-tuning
@lab.exercise(
    level=2,
    hints=(
        "torch.linalg.svd(delta, full_matrices=False) gives U, σ and Vᵀ, largest σ first.",
        "Of the first `rank` terms, √σ goes to each side: B = U √σ and A = √σ Vᵀ.",
        "The layer multiplies by alpha / rank: divide σ by it before you take the root.",
    ),
)
def low_rank(delta: Tensor, rank: int, alpha: float) -> tuple[Tensor, Tensor]:
    """ΔW (out, in) -> A (rank, in), B (out, rank) of the adapter of that rank and alpha whose
    update is the best approximation of ΔW; each direction's size is split evenly between them."""
    u, sigma, vt = torch.linalg.svd(delta, full_matrices=False)
    root = (sigma[:rank] / (alpha / rank)).sqrt()
    return root[:, None] * vt[:rank], u[:, :rank] * root


def energy(delta: Tensor) -> Tensor:
    """The share of Σσ² that the first 1, 2, 3 … directions have."""
    squares = torch.linalg.svdvals(delta.float()).square()
    return squares.cumsum(0) / squares.sum()


@torch.no_grad()
def cut(model: Any, rank: int) -> Any:
    """Full fine-tuning's model with `rank` directions of each linear layer's ΔW."""
    short = insert(glass(), ALL, max(rank, 1), alpha=1.0)
    for name, weight in model.named_parameters():
        if name.split(".")[-2] not in ALL:  # embeddings and norms keep what they learned
            short.get_parameter(name).copy_(weight)
    for name, layer in adapters(short).items():
        delta = model.get_submodule(name).weight.cpu() - layer.base.weight
        a, b = low_rank(delta if rank else 0 * delta, layer.rank, layer.alpha)
        layer.A.copy_(a)
        layer.B.copy_(b)
    return short


@lab.experiment
@torch.no_grad()
def how_low_is_its_rank(run: Run):
    """Full fine-tuning's ΔW isn't of low rank, but a few directions of it do most of the work.

    Predict: of 128 directions keep 8. How much is left of the energy, and how much of the gain?
    """
    base, tuned, table = glass(), [one.model for one in fits(run, "full")], []
    torch.manual_seed(run.seed)  # the same numbers, whether `fits` trained just now or not
    fig, (left, right) = plt.subplots(1, 2)
    for kind in ALL:
        was = {name: one.weight for name, one in base.named_modules() if name.endswith(kind)}
        changes = [m.get_submodule(name).weight.cpu() - w for m in tuned for name, w in was.items()]
        mine = torch.stack([energy(one) for one in changes]).mean(0)
        chance = energy(torch.randn_like(changes[0]))
        table.append([kind, mine[7].item(), chance[7].item()])
        left.plot(range(1, 1 + len(mine)), mine, label=kind)
    left.plot(range(1, 1 + len(chance)), chance, "k:", label="random")
    left.set(xscale="log", xlim=(0.15, 150), xlabel="directions kept", title="Share of ΔW's energy")
    left.set_xticks((1, 8, 128), (1, 8, 128))
    left.legend(fontsize=9)
    run.table("Energy in 8 directions", ["layer", "ΔW (mean)", "random, same shape"], table)
    because, ratios = "1 if ΔW were random", [mine / random for _, mine, random in table]
    run.check("that, over the random one's", ratios, at_least=1.3, because=because)
    ranks, means = (0, 1, 4, 8, 16), []
    for rank in ranks:
        means.append(mean(test_loss(run, cut(model, rank), plays().test) for model in tuned))
    right.plot(ranks, means, "o-", label="ΔW cut to r directions")
    lora = {arm.rank: mean(losses(run, name)) for name, arm in LORA.items() if arm.targets == ALL}
    right.plot(list(lora), list(lora.values()), "s", label="LoRA of rank r")
    right.axhline(mean(losses(run, "full")), color="grey", ls=":", label="full fine-tuning")
    right.set(xscale="symlog", xlim=(-0.3, 20), xlabel="r", title="Loss on plays (nats/token)")
    right.set_xticks(ranks, ranks)
    for ax in (left, right):
        ax.minorticks_off()
    right.legend(fontsize=9)
    caption = "Full fine-tuning's update, direction by direction: its energy, and what it is worth."
    caption += " At r = 0 embeddings and norms keep theirs."
    run.figure(
        fig,
        "spectrum",
        f"{caption} (The random one has down_proj's shape.)",
        alt="Two line plots: the share of the update's energy over the directions kept, a "
        "curve for each kind of matrix, and the loss over the rank.",
    )
    (untouched,), full = losses(run, "untouched"), mean(losses(run, "full"))
    none, *_, eight, _ = means
    kept = (none - eight) / (none - full)
    run.measure(
        "share of what all ΔW gain that 8 directions keep", kept, expect_at_least=0.8, decides=True
    )
    low, high = (f(row[1] for row in table) for f in (min, max))
    alone = (untouched - none) / (untouched - full)
    told = f"8 directions hold {low:.0%} to {high:.0%} of ΔW's energy, and keep {kept:.0%} of its"
    return f"{told} gain. Embeddings and norms alone have {alone:.0%} of full fine-tuning's."


# %% [markdown]
# ## 9. What is forgotten, and a second adapter
# The base's own domain is what it writes: draw text from it, and ask the adapted model for its loss
# there. On text drawn from $p_0$ another model $p_1$ loses, in the mean, more than $p_0$ itself, by
# the **Kullback–Leibler divergence**
#
# $$\sum_x p_0(x) \ln\frac{p_0(x)}{p_1(x)} \ge 0$$
#
# It is never negative: on its own text nothing beats the base. Biderman et al. (2024): "LoRA learns
# less and forgets less". What was forgotten under an adapter is still there, though: take the
# adapter out, and the base is back. So one base serves many tasks, each with some kilobytes of its
# own. Here the second is PLAYS IN CAPITALS, which glass's tokenizer spells letter by letter.


# %% 14. Forgetting
@cache
@torch.no_grad()
def own_text(seed: int) -> Tensor:
    """Rows that glass writes, drawn from its distribution as it is: (64, LENGTH)."""
    torch.manual_seed(seed)
    model, tokens, cache = glass(), [torch.full((64, 1), 2)], None  # <bos>
    while len(tokens) < LENGTH:
        seen = model(tokens[-1], cache=cache, use_cache=True)
        cache = seen.cache
        tokens.append(seen.logits[:, -1].softmax(-1).multinomial(1))
    return torch.cat(tokens, 1)


@lab.experiment
@torch.no_grad()
def the_base_forgets(run: Run):
    """Adapted to plays, glass loses some of its own domain; without the adapter it is itself again.

    Predict: which forgets more for what it learns, full fine-tuning or LoRA?
    """
    rows, (fig, ax), price = own_text(run.seed).to(run.device), plt.subplots(), {}
    before, because = row_losses(glass().to(run.device), rows), "a KL divergence is positive"
    table = [["untouched", before.mean().item(), losses(run, "untouched")[0], "–"]]
    for name in TUNED:
        rises = [row_losses(one.model.to(run.device), rows) - before for one in fits(run, name)]
        forgot, learned = [one.mean().item() for one in rises], gain(run, name, "untouched")
        price[name] = mean(forgot) / mean(learned)
        after = before.mean().item() + mean(forgot)
        table.append([name, after, mean(losses(run, name)), price[name]])
        ax.plot(learned, forgot, "o", label=name)
        sure = [one.mean() / one.std() * math.sqrt(len(one)) for one in rises]
        run.check(
            f"{name}: rise, in standard errors", sure, at_least=5, because=because, decides=True
        )
    columns = ["arm", "on what glass writes", "on plays", "forgotten per learned"]
    run.table("Loss (nats per token), mean of three seeds", columns, table)
    ax.set(xlabel="learned: fall of the loss on plays (nats per token)", title="Three seeds")
    ax.set(ylabel="forgotten: rise on its own text (nats)")
    ax.legend()
    run.figure(
        fig,
        "forgetting",
        "More to the right: more learned. Lower: less forgotten.",
        alt="Scatter plot of the rise of the loss on its own text over the fall of the loss "
        "on plays, a colour for each adapter and for full fine-tuning.",
    )
    bare = take_out(copy.deepcopy(fits(run, "r = 4")[0].model))
    same = fingerprint(bare.cpu()) == fingerprint(glass())
    run.check("adapter taken out: the base, to the byte", same, equals=True, decides=True)
    because, ratio = "Biderman et al. 2024", price["r = 16"] / price["full"]
    run.measure("price, rank 16 over full", ratio, expect_at_most=1, because=because)
    return f"For each nat learned rank 16 forgets {price['r = 16']:.2f}, full {price['full']:.2f}."


# %% 15. Two adapters
@lab.experiment
def two_adapters_share_a_base(run: Run):
    """Each of two adapters is best at its own task; swapped back, the first gives the same bits.

    Predict: how much does the wrong adapter cost, beside what the right one gained?
    """
    text, arm, test = assets.shakespeare(), LORA["r = 4"], plays().test
    loud = to_rows(text[-200_000:].upper())[::20][:64]
    second = learn(run, arm, to_rows(text[:500_000].upper()), run.seed, 1.0, "capitals")
    states = [adapter_state(one.model) for one in (fits(run, "r = 4")[0], second)]
    model, found, logits = arm.build().to(run.device), [], []
    for state in (*states, states[0]):
        swap(model, state)
        found.append([test_loss(run, model, rows) for rows in (test, loud)])
        with torch.no_grad():
            logits.append(model(test[:4].to(run.device)).logits)
    rows = [[name, *row] for name, row in zip(("plays", "capitals"), found[:2], strict=True)]
    run.table("Loss (nats per token)", ["adapter", "on plays", "on capitals"], rows)
    gains = [found[1][0] - found[0][0], found[0][1] - found[1][1]]
    because = "several times the seeds' range"
    run.check(
        "on each task, the other adapter less its own",
        gains,
        at_least=0.2,
        because=because,
        decides=True,
    )
    there, back = ((one - logits[0]).abs().max() for one in logits[1:])
    run.check(
        "swapped and back: change of a logit",
        back,
        at_most=0,
        because="the same numbers",
        decides=True,
    )
    run.check("swapped", there, at_least=0.1, because="the partner")


# %% [markdown]
# ## 10. What shrinks
# LoRA shrinks what belongs to *trainable* numbers: the gradient, one float32 for each, and AdamW's
# two moments. The weights stay, and so do most activations: to reach the first $A$ and $B$, the
# backward pass runs through every layer, and what it needs must be kept. So fifty times fewer
# trainable parameters is not fifty times less memory.


# %% 16. Memory
@lab.experiment
def memory_shrinks_by_less(run: Run):
    """A step's memory shrinks far less than the number of trainable parameters does.

    Predict: SmolLM2, rank 8 in all linear layers, 8 rows of 48 tokens: how much less memory?
    """
    table: list[list[Any]] = []
    for name in ("full", "LoRA"):
        model = smollm2(run)[0]
        shape = (run.pick(tiny=8, small=8, full=32), 48)
        tokens = torch.randint(model.config.vocab_size, shape)
        if name == "LoRA":
            insert(model, ALL, rank=8, alpha=16)
        weights = 4 * sum(one.numel() for one in model.parameters())
        count = parameters(model)
        loss = partial(loss_on, model, tokens)
        held = peak_bytes(lambda loss=loss: loss().backward())
        parts = (weights, held, 8 * count)
        table.append([name, count, *(x / 2**20 for x in (*parts, sum(parts)))])
    columns = ["", "trainable", "weights", "forward and backward", "AdamW's moments", "together"]
    title = "MiB, float32 on the CPU; forward and backward measured, the rest counted"
    run.table(title, columns, table)
    fewer, less = (table[0][i] / table[1][i] for i in (1, 5))
    what, because = "times fewer parameters, over times less memory", "weights and activations stay"
    check_smollm2(run, what, fewer / less, because, at_least=5)
    return f"{fewer:.0f} times fewer trainable parameters, {less:.1f} times less memory."


# %% [markdown]
# ## 11. SmolLM2 learns a format
# A closed domain: requests for seats, in three ways that people might write them, to be turned into
# records such as `OSL-FRI-3`: city, day, number. Of 672 combinations one in four is held out. Its
# city, its day and its number were seen in training, but never together: what is right there was
# put together, not remembered. The system prompt says what to do. For comparison, six examples
# stand before the request instead, as plain lines: as turns of a chat they help SmolLM2 no more.
# Only the answer's tokens have labels: the request has −100, and so has the
# padding, which stands on the right, where a causal model can't see it from the answer.
#
# The run saves the trained adapter. `invoke chat LLM07` talks to SmolLM2 with it.


# %% 17. Requests and records
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
CITIES = ["Athens", "Berlin", "Cairo", "Dublin", "Geneva", "Lisbon", "London", "Madrid", "Oslo"]
CITIES += ["Paris", "Rome", "Vienna"]
SYSTEM = "Turn requests into records."
WAYS = ["Book {} seats to {} on {}.", "I need {} seats to {}, for {}.", "{} to {} on {}, please."]
Trip = tuple[int, str, str]


def trips() -> tuple[list[Trip], list[Trip]]:
    """(number, city, day): 504 to train on, and 168 held out."""
    found: tuple[list[Trip], list[Trip]] = ([], [])
    for n, (i, city), (j, day) in product(range(2, 10), enumerate(CITIES), enumerate(DAYS)):
        found[(n + i + j) % 4 == 0].append((n, city, day))
    return found


def record(trip: Trip) -> str:
    n, city, day = trip
    return f"{city[:3].upper()}-{day[:3].upper()}-{n}"


def prompt(tokenizer: Any, text: str) -> str:
    """A request as the model's chat template puts it, or without one as two lines."""
    said = [{"role": "system", "content": SYSTEM}]
    said.append({"role": "user", "content": text})
    if tokenizer.chat_template is None:
        return "".join(f"{one['content']}\n" for one in said)
    return tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)


def request_batches(tokenizer: Any, size: int, steps: int, seed: int) -> Iterator[Any]:
    """Tokens and labels, (B, T) both."""
    dice, known = random.Random(seed), trips()[0]
    encode = partial(tokenizer.encode, add_special_tokens=False)  # the template has them
    for _ in range(steps):
        tokens, labels = [], []
        for trip in dice.choices(known, k=size):
            asked = encode(prompt(tokenizer, dice.choice(WAYS).format(*trip)))
            answer = [*encode(record(trip)), tokenizer.eos_token_id]
            tokens.append(torch.tensor(asked + answer))
            labels.append(torch.tensor([-100] * len(asked) + answer))
        pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
        yield pad(tokens, padding_value=tokenizer.pad_token_id), pad(labels, padding_value=-100)


@torch.no_grad()
def answers(model: Any, tokenizer: Any, prompts: list[str]) -> list[str]:
    """Greedy, in float32, the first line of each; padded on the left: generation goes on there."""
    given = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    ids, mask = (given[key].to(model.device) for key in ("input_ids", "attention_mask"))
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    out = model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False, **ends)
    said = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    return [one.strip().split("\n")[0] for one in said]


def save_for_chat(run: Run, model: Any) -> None:
    """Save the adapter with a card, in the folder of the run: `invoke chat LLM07` opens it."""
    folder = run.folder / "adapter"
    folder.mkdir(exist_ok=True)
    save(model, folder)
    card = f"""# A LoRA adapter of {called(run)}

Trained in LLM07 of llm-labs, at size {run.size} with seed {run.seed}, to turn requests for seats
into records such as `{record((3, "Oslo", "Friday"))}`, with the system prompt "{SYSTEM}"
It is a lesson, and not for anything else. peft opens it, on its base model alone.
"""
    (folder / "README.md").write_text(card, encoding="utf-8")


# %% 18. Before and after
@lab.experiment
def smollm2_learns_a_format(run: Run):
    """In a few steps a small chat model learns to make records of requests that it never saw.

    Predict: how many of the held-out are right before, with six examples in the prompt, and after?
    """
    model, tokenizer = smollm2(run)
    dice, model, (known, held) = random.Random(run.seed), model.to(run.device), trips()
    trip = dice.sample(held, run.pick(tiny=24, small=84, full=len(held)))
    texts = [dice.choice(WAYS).format(*one) for one in trip]
    asked, seen = [prompt(tokenizer, one) for one in texts], dice.sample(known, 6)
    shots = "".join(f"{dice.choice(WAYS).format(*one)}\n{record(one)}\n\n" for one in seen)
    other = [prompt(tokenizer, "What is the capital of France?")]
    said = {"before": answers(model, tokenizer, asked)}
    said["six examples"] = answers(model, tokenizer, [f"{shots}{text}\n" for text in texts])
    then = answers(model, tokenizer, other)
    torch.manual_seed(run.seed)
    insert(model, ALL, rank=8, alpha=16)
    share = parameters(model) / sum(one.numel() for one in model.parameters())
    steps = run.pick(tiny=12, small=60, full=300)
    data = request_batches(tokenizer, 8, steps, run.seed)
    tuned = train(run, model, data, steps, 3e-3, f"{called(run)} on requests")
    said["after"] = answers(tuned.model, tokenizer, asked)
    if run.accelerator.is_main_process:
        save_for_chat(run, tuned.model)
    shown = [list(row) for row in zip(texts, *said.values(), strict=True)]
    run.table(f"Held-out requests, answered by {called(run)}", ["request", *said], shown[:6])
    right = [[a == record(b) for a, b in zip(s, trip, strict=True)] for s in said.values()]
    before, examples, after = (mean(one) for one in right)
    because = "it was told that records are wanted, not how they look"
    check_smollm2(run, "exact match before", before, because, at_most=0.1)
    run.measure("exact match, six examples in the prompt", examples, expect_at_most=0.5)
    because = "a blind guess has 1/672"
    check_smollm2(run, "exact match after", after, because, at_least=0.5)
    now = answers(tuned.model, tokenizer, other)
    back = answers(take_out(tuned.model), tokenizer, other)
    columns = ["question", "before", "after", "adapter taken out"]
    run.table("And what it forgot", columns, [["The capital of France?", *then, *now, *back]])
    run.check("taken out: the answer is as before", back == then, equals=True)
    fig, (left, ax) = plt.subplots(1, 2, width_ratios=(1.3, 1))
    left.plot(range(1, steps + 1), tuned.losses, "o-")
    left.set(xlabel="step of 8 requests", title="Loss (nats per token of the answer)")
    ax.bar(list(said), [100 * x for x in (before, examples, after)], color=["C4", "C5", "C0"])
    ax.set(title="Exact match, held out (%)", ylim=(0, 100))
    run.figure(
        fig,
        "records",
        f"{called(run)}, trained to write records.",
        alt="A line plot of the loss over training steps, and three bars of exact matches: "
        "before the training, with six examples in the prompt, and after it.",
    )
    told = f"right before {before:.0%}, with examples {examples:.0%}, after training {after:.0%}"
    first, *_, last = tuned.losses
    fell = f"the loss fell from {first:.1f} to {last:.2f} by {share:.1%} of all weights"
    return f"{called(run)}: {told}; {fell}."


# %% [markdown]
# ## What surprised
# What this run measured:


# %% 19. What surprised
@lab.closing
def what_surprised(results: Results) -> str:
    """Sentences about this run, from its own numbers."""
    places = results.value("places_count_more_than_rank", "what rank 1 everywhere gains (nats)")
    rank = results.value("rank_one_is_enough", "what rank 16 gains (nats)")
    what = "share of what all ΔW gain that 8 directions keep"
    kept = results.value("how_low_is_its_rank", what)
    energy = results.shown("how_low_is_its_rank", "that, over the random one's")
    apart = results.value("own_equals_peft", "logits after 10 steps of AdamW")
    what = "times fewer parameters, over times less memory"
    memory = results.value("memory_shrinks_by_less", what)
    if results.verdict("rank_one_is_enough") == "held":
        compared = "as good as none, as Hu et al. found on GPT-3"
    else:
        compared = "where Hu et al. saw no gain on GPT-3"
    return (
        f"- Rank 1 in every layer gains {places:.2f} nats over rank 8 in q and v.\n"
        f"- Rank 16 gains {rank:.2f} nats over rank 1, {compared}.\n"
        f"- Eight directions of full fine-tuning's ΔW keep {kept:.0%} of what all of them gain. "
        f"Their energy relative to a random matrix: {energy}.\n"
        f"- The number of trainable parameters falls {memory:.0f} times as far as the memory of a "
        "training step.\n"
        f"- After ten steps in float64 our logits and peft's differ by {apart:.1g}."
    )


# %% [markdown]
# If more rank helps here, it is perhaps because plays are far from Carroll, and one direction of
# glass has 128 numbers where one of GPT-3 has 12,288. "Low-rank" is true of what a ΔW is *for*, not
# of what it *is*. No adapter here touches the embeddings. Adapters are tiny; a training step isn't,
# for weights and activations stay. Ours can equal peft's to the bit because it adds its gradients
# in the same order, and because the norms compute in float64 here (transformers' RMSNorm computes
# in float32).
#
# **Read on**: Hu et al. 2021, *LoRA* · Kalajdzievski 2023 on α/√r · Hayou et al. 2024, *LoRA+*, on
# separate rates for A and B · Dettmers et al. 2023, *QLoRA*, adapters on a 4-bit base · Biderman et
# al. 2024 on learning and forgetting.

# %%
if __name__ == "__main__":
    lab.main()
