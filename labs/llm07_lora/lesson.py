# %% [markdown]
# # LLM07 · LoRA
# Teach a trained model something new: leave its matrices alone, and train a small update for each.
#
# **You will be able to** insert LoRA layers into a real model; show what is frozen and where
# gradients flow; merge, save and swap adapters; teach SmolLM2 a task; choose rank and α.
# **Builds on** linear layers, singular values and gradients (LLM02, LLM03) and attention's
# projections (LLM06). **Takes** 45 minutes to read and a minute to run (`tiny`, 2 cores).

# %% Imports
import math
import tempfile
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from labs.kit import Lab, Results, Run, assets, tolerance
from labs.llm01_inference import called
from labs.llm07_lora import adapter_files, figures, plays, records, training, view_data
from labs.llm07_lora.models import ALL, glass, in_float64, randomize, smollm2, take_out

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn

lab = Lab("LLM07")
lab.argument("--model", help="a Llama-like chat model instead of SmolLM2: a folder, or a hub id")
lab.before_run(assets.check_model)

# %% [markdown]
# ## 1. A small change to a large matrix
# **Fine-tuning** trains a model further, on new data. It turns each weight matrix $W$ into
# $W + \Delta W$. With AdamW this takes three more numbers for each weight: its gradient and two
# moments. And every task needs its own copy of all weights.
#
# **LoRA** (low-rank adaptation, Hu et al. 2021) leaves $W$ as it is and writes the change as a
# product of two thin matrices, $\Delta W = B A$. The first figure draws it. If $W$ has the shape
# `(out, in)`, $B$ has `(out, r)` and $A$ has `(r, in)`. The number $r$ is called the **rank**. In
# SmolLM2 a query projection has $576 \cdot 576 = 331{,}776$ weights. With $r = 8$, $A$ and $B$ have
# $8 \cdot (576 + 576) = 9{,}216$ numbers together, 36 times fewer.
#
# What can so few numbers say? With $r = 1$, every row of $B A$ is a multiple of the same row. With
# $r = 2$, it is a mix of two rows. A product with $r$ rows in $A$ has rank $r$ at most.
#
# The **singular value decomposition** (SVD) writes any matrix as a sum of such products, sorted by
# size:
#
# $$M = \sum_k \sigma_k\,u_k v_k^\top, \qquad \sigma_1 \ge \sigma_2 \ge \dots \ge 0$$
#
# The $u_k$ are orthogonal unit vectors, and so are the $v_k$. The first $r$ terms are the closest
# matrix of rank $r$ (Eckart & Young 1936). The squared error is the sum of the other $\sigma_k^2$.
#
# A picture is a matrix, too: the word LoRA in 9 rows and 25 columns of pixels. How few products
# draw it? We compute its SVD, and we also train $A$ and $B$ by gradient descent, as LoRA does.


# %% Thin matrices
@lab.exercise(
    level=2,
    hints=(
        "torch.linalg.svd(matrix, full_matrices=False) returns U, σ and Vᵀ, the largest σ first.",
        "Cut all three to the first `rank` terms: columns of U, entries of σ, rows of Vᵀ.",
        "Split each σ evenly: B = U[:, :rank] * σ.sqrt(), and A has rows σ.sqrt() times Vᵀ's.",
    ),
)
def low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return A (rank, in) and B (out, rank) whose product B @ A is closest to a matrix (out, in).

    Each direction's size is split evenly: A's row and B's column have the same norm.
    """
    u, sigma, vt = torch.linalg.svd(matrix, full_matrices=False)
    root = sigma[:rank].sqrt()
    return root[:, None] * vt[:rank], u[:, :rank] * root


@lab.experiment
def no_product_is_closer_than_the_svd(run: Run):
    """A picture's SVD gives the closest product of each rank; a trained product ends as close.

    Predict: the picture has 225 pixels. How much of its sum of squares do three products draw?
    """
    picture = view_data.letters()
    sigma = torch.linalg.svdvals(picture)
    drawn = {}
    for rank in range(1, 8):
        a, b = low_rank(picture, rank)
        drawn[rank] = b @ a
    errors = torch.stack([(image - picture).square().sum() for image in drawn.values()])
    remaining = sigma.square().sum() - sigma.square().cumsum(0)[:7]
    run.agree("squared error − sum of the remaining σ²", errors - remaining, decides=True)
    ratios = []
    for seed in run.seeds(3):
        torch.manual_seed(seed)
        trained = training.fit_product(picture, rank=2)
        ratios.append((trained - picture).square().sum() / errors[1])
    because = "Eckart & Young: nothing of rank 2 is closer"
    name = "trained product of rank 2: its error ÷ that of the SVD"
    run.check(name, ratios, at_least=1 - 1e-9, because=because, decides=True)
    because = "no other local minimum (Baldi & Hornik 1989)"
    run.measure("the same ratio", ratios, expect_at_most=1.01, because=because, decides=True)
    figures.update(run)
    figures.pictures(run, picture, {rank: drawn[rank] for rank in (1, 2, 4)})
    targets = {"letters": picture, "noise": view_data.noise()}
    weight = glass().model.layers[0].self_attn.q_proj.weight
    run.view("low_rank", "thin_matrices", *view_data.view(weight, targets, low_rank))
    share = 1 - errors[2] / picture.square().sum()
    return f"Three products, {3 * 34} numbers, draw {100 * share:.0f} % of the sum of squares."


# %% [markdown]
# ## 2. The layer
# A LoRA layer holds a linear layer, the **base**, and adds the update to its output:
#
# $$h = W x + \frac{\alpha}{r}\,B (A x)$$
#
# It computes $A x$ first, which has $r$ numbers, and then $B$ times that. The product $B A$ is
# never formed. The number $\alpha$ is chosen before training. It only scales the update, and
# section 7 shows how to choose it.
#
# By hand, with $r = 1$ and $\alpha = 2$:
#
# $$
# W = \begin{pmatrix} 2 & 0 \\ 1 & 1 \end{pmatrix}, \quad A = \begin{pmatrix} 1 & 0 \end{pmatrix},
# \quad B = \begin{pmatrix} 0 \\ 3 \end{pmatrix}, \quad x = \begin{pmatrix} 1 \\ 2 \end{pmatrix}
# $$
#
# The base gives $W x = (2, 3)$. Then $A x = 1$, $B A x = (0, 3)$, and times $\alpha/r = 2$ that is
# $(0, 6)$. The sum is $h = (2, 9)$. **Merging** adds the update to $W$ for good. The rows of
# $\Delta W = \frac{\alpha}{r} B A$ are $(0, 0)$ and $(6, 0)$. So those of $W + \Delta W$ are
# $(2, 0)$ and $(7, 1)$, and it maps $x$ to $(2, 9)$, too.
#
# $A$ starts random, **$B$ starts at zero**. So $\Delta W = 0$: the model starts as what it was.


# %% The layer
class LoraLinear(nn.Module):
    """A linear layer `base`, which stays frozen, and a low-rank update beside it or merged."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.base = base
        self.rank = rank
        self.alpha = alpha
        self.merged = False
        self.original: Tensor | None = None  # a copy of the base's weight, if merge() saved one
        self.A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # ± 1/√in, as Hu et al. do

    @lab.exercise(
        level=1,
        hints=(
            "The base's output comes first. When is there nothing to add to it?",
            "x is (..., in) and A is (r, in): multiply by A's transpose, then by B's.",
            "Add alpha / rank times F.linear(F.linear(x, A), B), unless it is merged already.",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """Return the output with the update added exactly once, merged or not.

        (..., in) -> (..., out), by way of the r numbers A x: no matrix of out × in is made.
        """
        output = self.base(x)  # (..., out)
        if self.merged:
            return output
        low = F.linear(x, self.A)  # (..., r)
        return output + F.linear(low, self.B) * (self.alpha / self.rank)

    def delta(self) -> Tensor:
        """Return ΔW, (out, in)."""
        return (self.alpha / self.rank) * (self.B @ self.A)

    @lab.exercise(
        level=2,
        hints=(
            "First refuse a second merge: it would add the update twice. Then: is W to be saved?",
            "Under torch.no_grad(), change the weight in place: += keeps the parameter itself.",
            "Set self.original to a clone or None, add self.delta(), set self.merged to True.",
        ),
    )
    def merge(self, keep: bool = False) -> None:
        """Add the update to the base's weight in place; `keep` saves a copy of that weight.

        Raises:
            RuntimeError: if it is merged already.
        """
        if self.merged:
            raise RuntimeError("already merged: a second time would add the update twice")
        self.original = self.base.weight.detach().clone() if keep else None
        with torch.no_grad():
            self.base.weight += self.delta()
        self.merged = True

    @lab.exercise(
        level=1,
        hints=(
            "Refuse if nothing is merged. Is there a copy of the weight to go back to?",
            "With a copy, copy_ it into the weight. Without, subtract the update again.",
            "Work under torch.no_grad(), then set self.original to None and self.merged to False.",
        ),
    )
    def unmerge(self) -> None:
        """Take the update out: exactly, if merge() saved the weight, or else by subtraction.

        Raises:
            RuntimeError: if it isn't merged.
        """
        if not self.merged:
            raise RuntimeError("not merged: there is nothing to take out")
        with torch.no_grad():
            if self.original is not None:
                self.base.weight.copy_(self.original)
            else:
                self.base.weight -= self.delta()
        self.original = None
        self.merged = False


# %% [markdown]
# To put such layers into a model, walk over its modules and replace each linear layer that has one
# of the given names. In SmolLM2 each of the 30 blocks has seven: the four projections of attention,
# and three matrices of the MLP. Then freeze everything but the adapters' $A$ and $B$. Together
# these are called an **adapter** of the model.


# %% Into a model
def adapters(model: nn.Module) -> dict[str, LoraLinear]:
    """Return every LoRA layer by its name, such as model.layers.0.self_attn.q_proj."""
    modules = model.named_modules()
    return {name: module for name, module in modules if isinstance(module, LoraLinear)}


@lab.exercise(
    level=1,
    hints=(
        "First freeze everything. Then find the modules that may train, by their type.",
        "A name can mislead: `adapters` finds LoRA layers, whatever the model calls them.",
        "requires_grad_(False) on the model, then True on the A and the B of each adapter.",
    ),
)
def freeze_base(model: nn.Module) -> None:
    """Let the A and B of every LoraLinear train, and nothing else, whatever was set before."""
    model.requires_grad_(False)
    for layer in adapters(model).values():
        layer.A.requires_grad_(True)
        layer.B.requires_grad_(True)


@lab.exercise(
    level=2,
    hints=(
        "Collect the layers in a list first: the model changes while you replace them.",
        "A layer counts if it is an nn.Linear and the last part of its name is in `targets`.",
        "model.set_submodule(name, LoraLinear(layer, rank, alpha)) for each, then freeze_base.",
    ),
)
def insert(model: Any, targets: Iterable[str], rank: int, alpha: float) -> Any:
    """Replace each linear layer whose last name is in `targets`, freeze the base, return the model.

    Layers that have an adapter already keep it.

    Raises:
        ValueError: if the model has no such layer, and no adapter.
    """
    targets = set(targets)
    linear = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.split(".")[-1] in targets
    ]
    for name, layer in linear:
        model.set_submodule(name, LoraLinear(layer, rank, alpha))
    if not adapters(model):
        raise ValueError(f"the model has no linear layer called {' or '.join(sorted(targets))}")
    freeze_base(model)
    return model


@lab.experiment
@torch.no_grad()
def insertion_changes_nothing(run: Run):
    """New adapters beside every linear layer of SmolLM2's blocks change no logit at all.

    Predict: not even by rounding?
    """
    model, tokenizer = smollm2(run)
    ids = tokenizer("A stitch in time saves nine.", return_tensors="pt").input_ids.to(run.device)
    before = model.to(run.device)(ids).logits
    insert(model, ALL, rank=8, alpha=16)
    change = (model(ids).logits - before).abs().max()
    run.check("largest change of a logit", change, at_most=0, because="W x + 0 = W x", decides=True)
    change = (randomize(model)(ids).logits - before).abs().max()
    run.check("with a random B", change, at_least=0.1, because="logits differ by several units")
    trained = training.count(model)
    change = (take_out(model)(ids).logits - before).abs().max()
    run.check("with the adapters taken out", change, at_most=0, because="the base never changed")
    figures.places(run, model.model.layers[0], ALL, 8, called(run))
    share = 100 * trained / sum(weight.numel() for weight in model.parameters())
    return f"No bit changes. The adapters have {trained:,} numbers, {share:.1f} % of the model's."


# %% [markdown]
# ## 3. What moves first
# Let $L$ be the loss, $s = \alpha/r$, and $G = \partial L/\partial W$ the gradient that $W$ itself
# would get. The layer computes with $W + s B A$, so the chain rule gives
#
# $$
# \frac{\partial L}{\partial B} = s\,G A^\top \quad\text{and}\quad
# \frac{\partial L}{\partial A} = s\,B^\top G
# $$
#
# Each factor sees $G$ through the other one. In the first step $B = 0$, so the gradient of $A$ is
# exactly 0. $A$ is random, so the gradient of $B$ is not. After one step $B$ has moved, and both
# get a gradient. If both started at 0, neither would ever move. We check this in
# SmolLM2. A **fingerprint** is a hash of all frozen weights' bytes.


# %% The first steps
def largest_gradients(model: nn.Module, rows: Tensor) -> dict[str, list[Tensor]]:
    """Return the largest gradient of A and that of B in each layer, after a backward pass."""
    model.zero_grad()
    training.loss_on(model, rows).backward()
    layers = adapters(model).values()
    return {name: [getattr(layer, name).grad.abs().max() for layer in layers] for name in "AB"}


@lab.experiment
def b_moves_first(run: Run):
    """In SmolLM2, only B has a gradient at step 0, both at step 1; the step leaves W alone.

    Predict: what would happen if A started at zero, too?
    """
    model, tokenizer = smollm2(run)
    rows = next(records.training_batches(tokenizer, 1, 1, run.seed))[0].to(run.device)
    insert(model, ALL, rank=8, alpha=16).to(run.device)
    layer: Any = adapters(model)["model.layers.0.self_attn.q_proj"]
    before = training.fingerprint(model)
    layer.base.weight.requires_grad_(True)  # for a moment: to see G
    first = largest_gradients(model, rows)
    zero = "Bᵀ G with B = 0"
    run.check("step 0: A, each layer", first["A"], at_most=0, because=zero, decides=True)
    flows = "a path that is cut would give exactly 0"
    run.check("step 0: B, each layer", first["B"], at_least=1e-7, because=flows, decides=True)
    g = layer.base.weight.grad
    error = (layer.B.grad - 2 * g @ layer.A.mT) / layer.B.grad.abs().max()  # s = 16/8
    run.agree("B's gradient − s G Aᵀ, relative", error, tolerance(torch.float32))
    freeze_base(model)
    training.adamw(model, 1e-3).step()
    second = largest_gradients(model, rows)
    run.check("step 1: A, each layer", second["A"], at_least=1e-7, because=flows, decides=True)
    run.check("step 1: B, each layer", second["B"], at_least=1e-7, because=flows, decides=True)
    same = training.fingerprint(model) == before
    run.check("W has the same bytes after the step", same, equals=True, decides=True)
    with torch.no_grad():
        layer.base.weight -= 1e-3 * g
    same = training.fingerprint(model) == before
    run.check("after a step of one W itself", same, equals=False)
    for weight in training.trainable(model):
        nn.init.zeros_(weight)
    third = largest_gradients(model, rows)
    run.check("A and B at 0: all gradients", third["A"] + third["B"], at_most=0)
    figures.gradient_flow(run, first, second)
    return "With A and B both at zero, all gradients are zero: the adapter would never train."


# %% [markdown]
# ## 4. Merge
# An adapter adds two products to each layer. Merged, the layer costs what it did before. But sums
# are rounded: $(W + \Delta W) - \Delta W$ need not be $W$. Where the sum has a larger exponent than
# the weight, the weight's last bits may be lost. If you need the same bytes, keep a copy of $W$.


# %% Merging
@lab.experiment
@torch.no_grad()
def merging_is_exact_enough(run: Run):
    """Merged equals unmerged; a saved W returns exactly, a subtracted update within rounding.

    Predict: which share of the weights comes back with other bits when ΔW is subtracted?
    """
    model = randomize(insert(glass().double(), ALL, rank=4, alpha=8))
    errors = []
    for layer in adapters(model).values():
        x = torch.randn(32, layer.base.in_features, dtype=torch.float64)
        before = layer(x)
        layer.merge()
        errors.append((layer(x) - before).abs().max())
    bound = tolerance(torch.float64)
    run.agree("float64: merged − unmerged", torch.stack(errors), bound, decides=True)
    layers = adapters(randomize(insert(glass(), ALL, rank=4, alpha=8))).values()
    changes = {True: [], False: []}  # of W, by whether it was saved
    largest = 0.0
    for keep, layer in product(changes, layers):
        before = layer.base.weight.clone()
        layer.merge(keep)
        largest = max(largest, before.abs().max().item(), layer.base.weight.abs().max().item())
        layer.unmerge()
        changes[keep].append((layer.base.weight - before).flatten())
    saved = torch.cat(changes[True]).abs().max()
    run.check("W, saved: change", saved, at_most=0, because="a copy", decides=True)
    subtracted = torch.cat(changes[False])
    because = "two sums, each rounded by at most half a unit in the largest weight's last place"
    bound = largest * torch.finfo(torch.float32).eps
    name = "W, ΔW subtracted: largest change"
    run.check(name, subtracted.abs().max(), at_most=bound, because=because, decides=True)
    share = (subtracted != 0).float().mean()
    run.check("share of W with other bits", share, at_least=0.005, because="subtraction rounds")
    return f"Subtracting ΔW gave {100 * share:.0f} % of the weights other bits."


# %% [markdown]
# ## 5. Save, swap, and exchange with peft
# An adapter is small, so each task can have its own. Save $A$ and $B$ of every layer and nothing
# else: whoever loads them has the base. To switch tasks, **swap** these numbers only.
#
# **peft** is the library that most adapters are made with. We use its format. It stores our $A$ as
# `lora_A.weight` and our $B$ as `lora_B.weight`, after `base_model.model.` and the layer's name. A
# second file, `adapter_config.json`, has $r$, $\alpha$ and the names of the layers.


# %% Save and swap
@lab.exercise(
    level=2,
    hints=(
        "Which layers have an A and a B, and what are their names in the model?",
        "`adapters` gives both. The keys are base_model.model.<name>.lora_A.weight, and lora_B.",
        "Detach and clone each: training continues in place, and would change what you saved.",
    ),
)
def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of every A and B, on the CPU and contiguous, under peft's names."""
    return {
        f"base_model.model.{name}.lora_{letter}.weight": weight.detach().cpu().clone().contiguous()
        for name, layer in adapters(model).items()
        for letter, weight in (("A", layer.A), ("B", layer.B))
    }


@lab.exercise(
    level=2,
    hints=(
        "Save what is there before you overwrite it: adapter_state makes a copy.",
        "Compare names and shapes before you write: half an adapter is worse than none.",
        "copy_ each tensor into its A or B under no_grad; assigning would tie model and state.",
    ),
)
def swap(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the adapter `state` in the place of the model's, and return a copy of the old one.

    Raises:
        ValueError: if names or shapes differ, or a layer is merged; then nothing has changed.
    """
    old = adapter_state(model)
    layers = adapters(model)
    shapes = {key: tensor.shape for key, tensor in state.items()}
    if {key: tensor.shape for key, tensor in old.items()} != shapes:
        raise ValueError("this adapter has other layers, or another rank, than the model's")
    if any(layer.merged for layer in layers.values()):
        raise ValueError("the model's adapter is merged: unmerge it first")
    with torch.no_grad():
        for name, layer in layers.items():
            layer.A.copy_(state[f"base_model.model.{name}.lora_A.weight"])
            layer.B.copy_(state[f"base_model.model.{name}.lora_B.weight"])
    return old


def save(model: Any, folder: Path) -> None:
    """Write the model's adapter as peft does."""
    layers = adapters(model)
    layer = next(iter(layers.values()))
    targets = sorted({name.split(".")[-1] for name in layers})
    base = model.config.name_or_path
    adapter_files.write(folder, adapter_state(model), base, layer.rank, layer.alpha, targets)


def load(model: Any, folder: Path) -> Any:
    """Put an adapter that peft or `save` wrote into a model without one."""
    config, state = adapter_files.read(folder)
    insert(model, config["target_modules"], config["r"], config["lora_alpha"])
    swap(model, state)
    return model


# %% Equal to peft
@lab.experiment
def own_equals_peft(run: Run):
    """Ours and peft's adapter start from one file, train alike, and read each other's files.

    Predict: how far apart are their logits in float64 after ten steps of training?
    """
    rows = plays.rows().training[:4]
    with tempfile.TemporaryDirectory() as folder:
        ours = randomize(insert(in_float64(glass()), ALL, rank=4, alpha=8))
        save(ours, Path(folder))
        theirs = PeftModel.from_pretrained(in_float64(glass()), folder, is_trainable=True)
        start = ours(rows).logits.detach()
        error = start - theirs(rows).logits
        run.agree("our file, opened by peft: logits", error, tolerance(torch.float64), decides=True)
        run.check("trainable parameters", training.count(theirs), equals=training.count(ours))
        untrained = adapter_state(ours)
        for model in (ours, theirs):
            training.tiny_steps(model, rows, 10, training.adamw(model, 1e-2))
        trained = ours(rows).logits.detach()
        apart = trained - theirs(rows).logits
        run.agree("both trained for ten steps", apart, tolerance(torch.float64), decides=True)
        moved = (trained - start).abs().max()
        run.check("training changed a logit by", moved, at_least=0.1, because="so it was trained")
        theirs.save_pretrained(folder)
        again = load(in_float64(glass()), Path(folder))
    error = again(rows).logits - trained
    run.agree("peft's file, opened by us", error, tolerance(torch.float64), decides=True)
    state = swap(ours, untrained)
    run.agree("swapped for the untrained adapter", ours(rows).logits - start, 0.0, "the same bits")
    swap(ours, state)
    run.agree("and back", ours(rows).logits - trained, 0.0, "the same bits")
    return f"After ten steps the logits differ by {apart.abs().max():.1g}."


# %% [markdown]
# ## 6. SmolLM2 learns to write records
# People ask for seats, in three wordings: "Book 3 seats to Oslo on Friday." The model should reply
# with a **record**, `OSL-FRI-3`: city, day, number. Of 672 combinations one in four is **held
# out**. Its city, its day and its number occur in training, but never all three together. So a
# right record there was composed, not remembered.
#
# Untouched, SmolLM2 has two tries. Its system prompt states the rule in words, with an example. A
# second prompt adds six solved requests as earlier turns of the chat. The trained model gets only
# "Turn requests into records.", so the rule has to come from its adapter. The report says "4-bit
# SmolLM2" as our copy was rounded to 4 bits once, see LLM01. Here its weights are floats.
#
# Only the record and the end of the reply are **labels**. The request's tokens have the label −100,
# which the loss ignores. The model replies with the most likely token at each step. `invoke chat
# LLM07` talks to SmolLM2 with the adapter that the run saves.


# %% Before and after
@lab.experiment
def smollm2_learns_a_format(run: Run):
    """A short training teaches SmolLM2 what the rule and six examples in its prompt don't.

    Predict: how many held-out requests are right with the rule and six examples in the prompt?
    """
    model, tokenizer = smollm2(run)
    model = model.to(run.device)
    capital = records.capital(tokenizer)
    quiz = records.quiz(tokenizer, run.pick(tiny=24, small=84, full=168), run.seed)
    untouched = (records.RULE_ONLY, records.EXAMPLES)
    said = {name: records.answers(model, tokenizer, quiz.prompts[name]) for name in untouched}
    paris = [records.answers(model, tokenizer, list(capital.values()))]
    torch.manual_seed(run.seed)
    insert(model, ALL, rank=8, alpha=16)
    steps = run.pick(tiny=16, small=60, full=300)
    data = records.training_batches(tokenizer, 4, steps, run.seed)
    trained = training.train(run, model, data, steps, 3e-3, f"{called(run)} on requests")
    short = quiz.prompts[records.SHORT]
    said[records.SHORT] = records.answers(trained.model, tokenizer, short)
    rows = list(zip(quiz.texts, *said.values(), strict=True))[:6]
    run.table(f"Held-out requests, answered by {called(run)}", ["request", *said], rows)
    right = {name: records.shares_right(said[name], quiz.trips) for name in said}
    number, prompted = right[records.EXAMPLES][-2:]
    learned = right[records.SHORT][-1]
    name = "rule, six examples: right number"
    run.measure(name, number, expect_at_least=0.5, because="the prompt is read: a guess has 1/8")
    because = "a guess has 1/672"
    training.check_embedded(run, "exact match, trained", learned, because, at_least=0.5)
    best = max(right[name][-1] for name in untouched)
    noise = math.sqrt((learned * (1 - learned) + best * (1 - best)) / len(quiz.trips))
    because = "standard errors of the sample of requests"
    name = "trained − best prompt − 4 standard errors"
    training.check_embedded(run, name, learned - best - 4 * noise, because, at_least=0)
    paris.append(records.answers(trained.model, tokenizer, list(capital.values())))
    if run.accelerator.is_main_process:
        folder = run.folder / "adapter"
        save(trained.model, folder)
        adapter_files.write_card(folder, called(run), run.size, run.seed, records.SYSTEM)
        costs = training.costs(trained, adapter_files.size(folder))
        run.table("What is trained and stored, in float32", *costs)
    paris.append(records.answers(take_out(trained.model), tokenizer, list(capital.values())))
    columns = ["system prompt", "before", "trained", "adapter taken out"]
    run.table(records.CAPITAL, columns, list(zip(capital, *paris, strict=True)))
    run.check("taken out: the answers are as before", paris[2] == paris[0], equals=True)
    figures.learned(run, trained.losses, right, called(run))
    return (
        f"Right: {100 * right[untouched[0]][-1]:.0f} % with the rule, {100 * prompted:.0f} % with "
        f"six examples more, {100 * learned:.0f} % after {steps} steps of four requests."
    )


# %% [markdown]
# ## 7. Choosing rank, α and learning rate
# Adam divides each gradient by its own size. So its first step moves every number of $B$ by the
# learning rate $\eta$, whatever $\alpha$ is. The update after this step is proportional to
# $\frac{\alpha}{r}\,\eta$: twice the $\alpha$ is the same as twice the rate. **So $\alpha$ is a
# learning rate in disguise**, exactly in this step, roughly later: then $A$ moves by $\eta$, too.
#
# Why divide by $r$? A larger rank adds up more products, so each step changes the output more. At
# a fixed $\alpha$ the division counters this, so one rate can serve several ranks.
#
# The best values depend on the model, the data and the number of steps. So we measure: a **map** of
# the loss over $\alpha$, $\eta$ and $r$ after short trainings, at `tiny` of only 8 steps. **Glass**
# has 0.85 million parameters and was trained on Lewis Carroll. Here it adapts to Shakespeare. The
# loss is measured on plays that no training uses.


# %% The map
RANKS = (1, 4, 16)
SCALES = (0.5, 2.0, 8.0)  # α/r
RATES = (2.5e-3, 1e-2, 4e-2)
STEPS = {"tiny": 8, "small": 200, "full": 1000}
RATE_OVER_RANK = "cost of the worst rate at r = 4, α = 8 ÷ cost of the worst rank at its best pair"


def adapted_loss(run: Run, rank: int, scale: float, rate: float, seed: int) -> float:
    """Adapt glass to plays; return the loss on other plays (nats per token)."""
    torch.manual_seed(seed)
    model = insert(glass(), ALL, rank, scale * rank)
    steps = run.pick(**STEPS)
    size, length = run.pick(tiny=(4, 32), small=(8, 64), full=(32, 64))
    data = plays.batches(plays.rows().training[:, :length], size, steps, seed)
    trained = training.train_on_one_thread(run, model, data, steps, rate)
    rows = plays.rows().valid[: run.pick(tiny=16, small=64, full=64)]
    return training.test_loss(run, trained.model, rows)


@lab.experiment
def the_rate_matters_more_than_the_rank(run: Run):
    """On glass a larger α needs a smaller rate, and a wrong rate costs more than a small rank.

    Predict: what costs more: the worst of three ranks, or the worst of three rates?
    """
    cells = run.progress(list(product(RANKS, SCALES, RATES, run.seeds(3))), "adapters of glass")
    losses = [adapted_loss(run, *cell) for cell in cells]
    table = torch.tensor(losses).view(3, 3, 3, 3)  # (rank, α/r, η, seed)
    best = torch.tensor(RATES)[table.argmin(2)]  # (rank, α/r, seed)
    ratios = (best[:, 0] / best[:, -1]).flatten().tolist()
    because = "a step of the map; 1 would mean that α doesn't matter"
    name = "best rate at the smallest α ÷ at the largest, each rank and seed"
    run.measure(name, ratios, expect_at_least=4, because=because, decides=True)
    same = torch.stack([best[0, 2], best[1, 1], best[2, 0]])  # (rank, seed), all at α = 8
    name = "at α = 8: best rate ÷ that of rank 4, ranks 1 and 16, each seed"
    ratios = (same[::2] / same[1]).flatten().tolist()
    run.measure(name, ratios, expect_between=(0.5, 2), because="the next rate is 4 times away")
    by_rank = table.amin((1, 2))  # (rank, seed)
    of_rank = by_rank.amax(0) - by_rank.amin(0)  # (seed,)
    of_rate = table[1, 1].amax(0) - table[1, 1].amin(0)  # (seed,), at r = 4 and α = 8
    because = "above 1 the rate costs more"
    ratio = (of_rate / of_rank).tolist()
    run.measure(RATE_OVER_RANK, ratio, expect_at_least=1, because=because, decides=True)
    slow = ((table[1, 1, 0] - table[1, 1].amin(0)) / of_rank).tolist()
    run.measure("the same for the smallest rate", slow, expect_at_least=1, because=because)
    figures.loss_map(run, table.mean(-1), RANKS, SCALES, RATES, run.pick(**STEPS))
    return (
        f"The worst of three ranks costs {of_rank.mean():.2f} nats per token, the worst of three "
        f"rates {of_rate.mean():.2f}."
    )


# %% [markdown]
# A large $\alpha$ with a small rate does about as well as a small $\alpha$ with a large rate. Where
# both are large, the training diverges. Three rows have $\alpha = 8$: the last of rank 1, the
# middle one of rank 4, the first of rank 16. Which rate is best in each? A recipe:
#
# - Insert adapters in **all linear layers** of the blocks. LLM07+ compares other places.
# - Start with $r = 8$ and $\alpha = 16$. Don't search $\alpha$: search the rate instead.
# - **Search the rate** in factors of two to four, on rows that serve nothing else. Start high and
#   go down until the loss stops falling.
# - Then double $r$ and leave $\alpha$ as it is, like Hu et al. Keep the larger rank if it gains
#   more than the seeds differ. If you raise $\alpha$ with $r$, search for a lower rate.
#
# ## What to remember
# - LoRA freezes $W$ and trains $B A$ beside it: two thin matrices with $r$ directions.
# - $B$ starts at zero. So nothing changes at first, and only $B$ has a gradient in the first step.
# - Insert adapters in all linear layers, fix $\alpha$, and search the learning rate.
# - Merged, an adapter costs nothing. Saved, it is small, so one base serves many tasks.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Report what this run measured."""
    learned = results.value("smollm2_learns_a_format", "exact match, trained")
    rate = results.value("the_rate_matters_more_than_the_rank", RATE_OVER_RANK)
    return (
        "## In this run\n"
        f"The trained model wrote {100 * learned:.0f} % of the held-out records. On glass, the "
        f"worst of three rates cost {rate:.1f} times as much as the worst of three ranks."
    )


# %% [markdown]
# **Read on**: Hu et al. 2021, *LoRA* · Kalajdzievski 2023 on α/√r · Hayou et al. 2024, *LoRA+*.
#
# **Deeper**: LLM07+ compares places and ranks, looks for the rank of full fine-tuning's update,
# measures what is forgotten, and runs QLoRA and DoRA. Next: LLM08, data and training.

# %%
if __name__ == "__main__":
    lab.main()
