# %% [markdown]
# # LLM07 · LoRA
# Teach a trained model a new task: freeze its matrices, and train a small update for each.
#
# **You will be able to** insert LoRA layers into a real model; show what is frozen and where
# gradients flow; merge and save adapters; teach SmolLM2 a task; choose rank and α.
# **Builds on** linear layers, singular values and gradients (LLM02, LLM03), Adam (LLM05b),
# attention (LLM06). **Takes** 45 minutes to read, a minute to run (`tiny`, 2 cores).

# %% Imports
import math
import tempfile
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from labs.kit import Lab, Results, Run, assets, on_one_thread, tolerance
from labs.llm01_inference import called
from labs.llm07_lora import adapter_files, figures, plays, records, training, view_data
from labs.llm07_lora.models import ALL, glass, in_float64, randomize, smollm2, take_out

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn

lab = Lab("LLM07", width=32)  # A and B are thin
lab.before_run(assets.check_model)

# %% [markdown]
# ## 1. A small change to a large matrix
# **Fine-tuning** trains a model further, on new data. It turns each weight matrix $W$ into
# $W + \Delta W$. With LLM05b's Adam, or with AdamW, which LLM08 explains, training needs three more
# numbers for each weight: its gradient and two running averages, the **moments**. Every task also
# needs a separate copy of all weights.
#
# **LoRA** (low-rank adaptation, Hu et al. 2021) freezes $W$ and writes the change as a product of
# two thin matrices, $\Delta W = B A$. Section 2 adds a factor. If $W$ has the shape `(out, in)`,
# $B$ has `(out, r)` and $A$ has `(r, in)`. The number $r$ is called the **rank**.
#
# In SmolLM2, a query projection has $576 \cdot 576 = 331{,}776$ weights. With $r = 8$, $A$ and $B$
# have $8 \cdot (576 + 576) = 9{,}216$ numbers together, 36 times fewer.


# %% The idea, drawn
@lab.experiment
def a_thin_product_has_few_numbers(run: Run):
    """A and B have 9,216 numbers, B A has 331,776 and rank 8; a random matrix has rank 576."""
    figures.update(run)
    torch.manual_seed(run.seed)
    a = torch.randn(8, 576)
    b = torch.randn(576, 8)
    run.check("numbers in A and B", a.numel() + b.numel(), equals=9216)
    for name, matrix, rank, because in (
        ("B A", b @ a, 8, "each row mixes the 8 rows of A"),
        ("a random matrix", torch.randn(576, 576), 576, "random rows are independent"),
    ):
        measured = torch.linalg.matrix_rank(matrix.double(), rtol=1e-5)
        run.check(f"rank of {name}", int(measured), equals=rank, because=because, decides=True)


# %% [markdown]
# What can so few numbers express? With $r = 1$, every row of $B A$ is a multiple of the same row.
# With $r = 2$, every row is a mix of two rows. A product with $r$ rows in $A$ has rank $r$ at most.
#
# The **singular value decomposition** (SVD) writes any matrix as a sum of such products:
#
# $$M = \sum_k \sigma_k\,u_k v_k^\top, \qquad \sigma_1 \ge \sigma_2 \ge \dots \ge 0$$
#
# The $u_k$ are orthogonal unit vectors, and so are the $v_k$. No matrix of rank $r$ is closer to
# $M$ than the sum of the first $r$ terms (Eckart & Young 1936). Its squared error is the sum of the
# other $\sigma_k^2$.
#
# A picture is also a matrix. Ours shows the word LoRA in 9 rows and 25 columns of pixels. We
# compute its SVD. We also train $A$ and $B$ with Adam, from $B = 0$.


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

    The squared error is the smallest. Row k of A and column k of B both have the norm √σ_k.
    """
    u, sigma, vt = torch.linalg.svd(matrix, full_matrices=False)
    root = sigma[:rank].sqrt()
    return root[:, None] * vt[:rank], u[:, :rank] * root


@lab.experiment
def no_product_is_closer_than_the_svd(run: Run):
    """A picture's SVD gives the closest product of each rank; training at rank 2 comes as close.

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
    name = "trained product of rank 2: its error ÷ that of the SVD"
    run.check(name, ratios, at_least=1 - 1e-9, because="Eckart & Young", decides=True)
    because = "local minima are as close as the SVD (Baldi & Hornik 1989)"  # shown for full rank
    run.measure("the same ratio", ratios, expect_at_most=1.01, because=because, decides=True)
    figures.pictures(run, picture, {rank: drawn[rank] for rank in (1, 3, 7)})
    weight = glass().model.layers[0].self_attn.q_proj.weight  # a small model: section 4
    run.view("low_rank", "thin_matrices", *view_data.view(weight, low_rank))
    share = 1 - errors[2] / picture.square().sum()
    return f"Three products, {3 * 34} numbers, draw {100 * share:.0f} % of the sum of squares."


# %% [markdown]
# ## 2. The layer
# A LoRA layer holds a linear layer, the **base**, and adds the update to its output:
#
# $$h = W x + \frac{\alpha}{r}\,B (A x)$$
#
# The layer computes $A x$ first, which has $r$ numbers, and then multiplies it by $B$. It never
# forms the product $B A$. The number $\alpha$ scales the update. Section 7 shows how to choose it.
#
# By hand, with $r = 1$ and $\alpha = 2$:
#
# $$
# W = \begin{pmatrix} 2 & 0 \\ 1 & 1 \end{pmatrix}, \quad A = \begin{pmatrix} 1 & 0 \end{pmatrix},
# \quad B = \begin{pmatrix} 0 \\ 3 \end{pmatrix}, \quad x = \begin{pmatrix} 1 \\ 2 \end{pmatrix}
# $$
#
# The base gives $W x = (2, 3)$. Then $A x = 1$ and $B A x = (0, 3)$. Times $\alpha/r = 2$, the
# update is $(0, 6)$. The sum is $h = (2, 9)$.
#
# **Merging** adds the update to $W$ itself, so that the layer has one matrix again. The rows of
# $\Delta W = \frac{\alpha}{r} B A$ are $(0, 0)$ and $(6, 0)$. The merged matrix has the rows
# $(2, 0)$ and $(7, 1)$. It also maps $x$ to $(2, 9)$.
#
# At the start $A$ is random and **$B$ is zero**. So $\Delta W = 0$: no output has changed yet.


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
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # ± 1/√in: Hu et al.'s code

    @lab.exercise(
        level=1,
        hints=(
            "The base's output comes first. When is there nothing to add to it?",
            "x is (..., in) and A is (r, in): multiply by A's transpose, then by B's.",
            "Add alpha / rank times F.linear(F.linear(x, A), B), unless it is merged already.",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """Return the output with the update added exactly once: (..., in) -> (..., out).

        It goes by way of the r numbers A x: no matrix of out × in is made.
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
        """Add the update to the base's weight, set `merged`; `keep` saves a copy in `original`.

        Raises:
            RuntimeError: if it is merged already.
        """
        if self.merged:
            raise RuntimeError("already merged: a second time would add the update twice")
        self.original = self.base.weight.detach().clone() if keep else None
        with torch.no_grad():
            self.base.weight += self.delta()
        self.merged = True

    def unmerge(self) -> None:
        """Take the update out: exactly, if merge() saved the weight, or else by subtraction."""
        if not self.merged:
            raise RuntimeError("not merged: there is nothing to take out")
        with torch.no_grad():
            old = self.base.weight - self.delta() if self.original is None else self.original
            self.base.weight.copy_(old)
        self.original = None
        self.merged = False


# %% [markdown]
# To put such layers into a model, replace each linear layer that has one of the given names.
# `model.named_modules()` lists all modules with their names, and `model.set_submodule(name, layer)`
# replaces a module. Each of SmolLM2's 30 blocks has seven linear layers: four in attention, three
# in the MLP. Then freeze all weights except $A$ and $B$. Together, these are called an **adapter**.


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

    Layers that have an adapter already keep it. `targets` may be an iterator, read only once.

    Raises:
        ValueError: if the model has no such layer, and no adapter.
    """
    targets = set(targets)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and name.split(".")[-1] in targets:
            model.set_submodule(name, LoraLinear(layer, rank, alpha))
    if not adapters(model):
        raise ValueError(f"the model has no linear layer called {' or '.join(sorted(targets))}")
    freeze_base(model)
    return model


@lab.experiment
@torch.no_grad()
def insertion_changes_nothing(run: Run):
    """New adapters beside every linear layer of SmolLM2's blocks start without any effect.

    Predict: how many numbers do the adapters add, in percent of the model's?
    """
    model, tokenizer = smollm2(run)
    ids = tokenizer("A stitch in time saves nine.", return_tensors="pt").input_ids.to(run.device)
    before = model.to(run.device)(ids).logits
    insert(model, ALL, rank=8, alpha=16)
    change = (model(ids).logits - before).abs().max()
    run.check("largest change of a logit", change, at_most=0, because="W x + 0 = W x", decides=True)
    change = (randomize(model)(ids).logits - before).abs().max()
    run.check("with a random B", change, at_least=0.1, because="far above rounding")
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
# \frac{\partial L}{\partial A} = s\,B^\top G \quad\text{and}\quad
# \frac{\partial L}{\partial B} = s\,G A^\top
# $$
#
# Each factor's gradient contains the other factor. In the first step $B = 0$, so the gradient of
# $A$ is exactly 0. $A$ is random, so the gradient of $B$ is not 0. After one step $B$ has moved,
# and both factors have a gradient. We check this in SmolLM2. To see $G$, $W$ gets a gradient, too.


# %% The first steps
@lab.exercise(
    level=1,
    hints=(
        "Each gradient has the shape of its factor: A's is (r, in), B's is (out, r).",
        "A's gradient is s times B's transpose times G. `.mT` transposes a matrix.",
        "Return scale * (b.mT @ g), scale * (g @ a.mT).",
    ),
)
def factor_gradients(g: Tensor, a: Tensor, b: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the gradients of A (r, in) and B (out, r); W + scale · B A has G (out, in)."""
    return scale * (b.mT @ g), scale * (g @ a.mT)


@lab.experiment
def b_moves_first(run: Run):
    """In SmolLM2, only B has a gradient at step 0, both at step 1; the step leaves W alone.

    Predict: what would happen if A started at zero, too?
    """
    model, tokenizer = smollm2(run)
    rows = next(records.training_batches(tokenizer, 1, 1, run.seed))[0].to(run.device)
    insert(model, ALL, rank=8, alpha=16).to(run.device)
    layers = list(adapters(model).values())
    frozen = training.frozen(model)
    before = [weight.clone() for weight in frozen]
    first = training.largest(training.gradients(model, layers, rows))
    run.check("step 0: A, each layer", first["A"], at_most=0, because="B = 0", decides=True)
    flows = "a path that is cut would give exactly 0"
    run.check("step 0: B, each layer", first["B"], at_least=1e-7, because=flows, decides=True)
    training.adamw(model, 1e-3).step()
    gradients = training.gradients(model, layers, rows)
    second = training.largest(gradients)
    for i, name in enumerate("AB"):
        label = f"step 1: {name}, each layer"
        run.check(label, second[name], at_least=1e-7, because=flows, decides=True)
        pairs = zip(layers, gradients, strict=True)
        want = [factor_gradients(each.W, layer.A, layer.B, scale=2)[i] for layer, each in pairs]
        errors = training.relative_errors([getattr(each, name) for each in gradients], want)
        label = f"step 1: {name}'s gradient − the formula, relative, all layers"
        run.agree(label, errors, tolerance(torch.float32), decides=True)
    same = all(map(torch.equal, frozen, before))
    run.check("frozen weights: the same bits after the step", same, equals=True, decides=True)
    with torch.no_grad():
        layers[0].base.weight -= 1e-3 * gradients[0].W
    run.check("after a step of one W itself", all(map(torch.equal, frozen, before)), equals=False)
    del gradients, before  # each about as large as the model
    for weight in training.trainable(model):
        nn.init.zeros_(weight)
    stuck = training.largest(training.gradients(model, layers, rows))
    run.check("A and B at 0: both gradients", stuck["A"] + stuck["B"], at_most=0)
    run.check("A and B at 0: G, each layer", stuck["W"], at_least=1e-7, because=flows)
    figures.gradient_flow(run, called(run), first, second)
    return "With A and B both at zero, all their gradients are zero: the adapter would never train."


# %% [markdown]
# ## 4. Merge
# An adapter adds two products to each layer. After a merge, the layer costs what it did before.
# But computers round sums, so $(W + \Delta W) - \Delta W$ need not be $W$. Beyond a power of two,
# floats have coarser steps: a sum that passes it may lose the weight's last bits. To get the same
# bits, save a copy of $W$. We check this in **glass**, a language model of 0.85 million parameters.


# %% Merging
@lab.experiment
@torch.no_grad()
def merging_is_exact_enough(run: Run):
    """In glass, merged equals unmerged up to rounding; W returns exactly if saved, else nearly.

    Predict: which share of the weights comes back with other bits when ΔW is subtracted?
    """
    model = randomize(insert(glass().double(), ALL, rank=4, alpha=8))
    errors = []
    for layer in adapters(model).values():
        x = torch.randn(32, layer.base.in_features, dtype=torch.float64)
        before = layer(x)
        layer.merge()
        errors.append((layer(x) - before).abs().max())
    error = torch.stack(errors)
    run.agree("float64: merged − unmerged", error, tolerance(torch.float64), decides=True)
    layers = adapters(randomize(insert(glass(), ALL, rank=4, alpha=8))).values()
    changes = {True: [], False: []}  # of W, by whether it was saved
    largest = 0.0
    for keep, layer in product(changes, layers):
        before = layer.base.weight.clone()
        layer.merge(keep)
        largest = max(largest, before.abs().max().item(), layer.base.weight.abs().max().item())
        layer.unmerge()
        changes[keep].append((layer.base.weight - before).flatten())
    run.agree("W, saved: change", torch.cat(changes[True]), 0.0, "a copy", decides=True)
    subtracted = torch.cat(changes[False])
    because = "two sums, each rounded by at most half a unit in the largest weight's last place"
    bound = largest * torch.finfo(torch.float32).eps
    run.agree("W, ΔW subtracted: largest change", subtracted, bound, because, decides=True)
    share = (subtracted != 0).float().mean()
    run.check("share of W with other bits", share, at_least=0.005, because="subtraction rounds")
    return f"Subtracting a random ΔW gave {100 * share:.0f} % of the weights other bits."


# %% [markdown]
# ## 5. Save, swap, and exchange with peft
# An adapter is small, so each task can have its own. Save $A$ and $B$ of every layer and nothing
# else: users have the base already. To switch tasks, `swap` replaces only these.
#
# **peft** is the usual library for adapters, and we use its format. It stores our $A$ as
# `lora_A.weight` and our $B$ as `lora_B.weight`, after `base_model.model.` and the layer's name. A
# second file, `adapter_config.json`, has $r$, $\alpha$ and the names of the layers.
# Below, `train_step` trains both adapters. The optimizer of each gets only its $A$ and $B$.


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


def swap(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace the model's adapter by one of the same shapes; return a copy of the old one."""
    old = adapter_state(model)
    adapter_files.put(state, adapters(model))
    return old


def save(model: Any, folder: Path) -> None:
    """Write the model's adapter as peft does."""
    adapter_files.write(folder, model, adapters(model), adapter_state(model))


def load(model: Any, folder: Path) -> Any:
    """Put an adapter that peft or `save` wrote into a model without one."""
    config, state = adapter_files.read(folder)
    insert(model, config["target_modules"], config["r"], config["lora_alpha"])
    adapter_files.put(state, adapters(model))
    return model


# %% Equal to peft
def train_step(model: Any, optimizer: Any, tokens: Tensor, labels: Tensor) -> None:
    """Take a step on the loss of tokens and labels, (B, T) each; a label of −100 doesn't count."""
    logits = model(tokens).logits[:, :-1].flatten(0, 1)  # (B · (T − 1), V)
    F.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100).backward()
    optimizer.step()
    optimizer.zero_grad()


@lab.experiment
@on_one_thread
def own_equals_peft(run: Run):
    """Ours and peft's adapter start from one file, train alike, and read each other's files.

    Predict: how far apart are their logits in float64 after ten steps of training?
    """
    rows = plays.rows().training[:4]
    exact = tolerance(torch.float64)
    with tempfile.TemporaryDirectory() as folder:
        ours = randomize(insert(in_float64(glass()), ALL, rank=4, alpha=8))
        untrained = adapter_state(ours)
        save(ours, Path(folder))
        theirs = PeftModel.from_pretrained(in_float64(glass()), folder, is_trainable=True)
        start = ours(rows).logits.detach()
        run.agree("our file, opened by peft", start - theirs(rows).logits, exact, decides=True)
        run.check("trainable parameters", training.count(theirs), equals=training.count(ours))
        for model in (ours, theirs):
            optimizer = torch.optim.AdamW(training.trainable(model), lr=1e-2, weight_decay=0)
            for _ in range(10):
                train_step(model, optimizer, rows, rows)
        trained = ours(rows).logits.detach()
        apart = trained - theirs(rows).logits
        run.agree("both trained for ten steps", apart, exact, decides=True)
        moved = (trained - start).abs().max()
        run.check("training changed a logit by", moved, at_least=0.1, because="far above the bound")
        theirs.save_pretrained(folder)
        again = load(in_float64(glass()), Path(folder))
    run.agree("peft's file, opened by us", again(rows).logits - trained, exact, decides=True)
    state = swap(again, untrained)
    run.agree("swapped: the untrained adapter", again(rows).logits - start, exact)
    swap(again, state)
    run.agree("swapped back: the trained adapter", again(rows).logits - trained, exact)
    return f"After ten steps the logits differ by {apart.abs().max():.1g}."


# %% [markdown]
# ## 6. SmolLM2 learns to write records
# People ask for seats, in three wordings: "Book 3 seats to Oslo on Friday." The model should reply
# with a **record**, `OSL-FRI-3`: city, day, number. Of $12 \cdot 7 \cdot 8$ combinations, 1/4 is
# **held out**. Training has every city, day and number, but none of these. The model must compose.
#
# We first test the untrained model with three prompts. A system prompt states the rule in words,
# with an example. A second prompt adds six solved requests, as earlier turns of the chat. The third
# is short: "Turn requests into records." It doesn't state the format, so it shows where training
# starts. The trained model gets only this one. Only the first line of a reply counts. It must be
# the record and nothing else: even an added full stop is wrong. A reply has at most 8 tokens, or 16
# if the prompt states the rule. For the prompts we also count lines that *contain* the record.
#
# A training row is a prompt, then `OSL-FRI-3` and the end of the reply. All tokens of the prompt
# have the **label** −100. `training.train` takes steps like `train_step`, with clipping (LLM08) and
# a rate that falls to almost 0. At `tiny` it sees 64 solved requests. Our copy of SmolLM2 was once
# rounded to 4 bits. The original may follow prompts better.
#
# Does the adapter also change replies that have nothing to do with its task? We ask "What is the
# capital of France?" before and after the training, with the training's system prompt and with
# another. Predict: does the trained model still reply Paris? Then we take the adapter out and ask
# again. After the run, `invoke chat LLM07` talks to SmolLM2 with this adapter.


# %% Before and after
EXACT = "exact match, trained"


def teach(run: Run, seed: int) -> tuple[training.Trained, records.Exam]:
    """Train an adapter of SmolLM2 on requests, and examine the model before and after."""
    model, tokenizer = smollm2(run)
    exam = records.Exam(tokenizer, run.pick(tiny=24, small=84, full=168), seed)
    exam.ask_untrained(model.to(run.device))
    torch.manual_seed(seed)
    insert(model, ALL, rank=8, alpha=16)
    steps = run.pick(tiny=16, small=60, full=300)
    data = records.training_batches(tokenizer, 4, steps, seed)
    trained = training.train(run, model, data, steps, 3e-3, f"{called(run)} on requests")
    exam.ask_trained(trained.model)
    return trained, exam


@lab.experiment
def smollm2_learns_a_format(run: Run):
    """After a short training, SmolLM2 writes more correct records than with any of three prompts.

    Predict: how many held-out requests are right with the rule and six examples in the prompt?
    """
    trained, exam = teach(run, run.seed)
    more = run.seeds(run.pick(tiny=1, small=3, full=3))[1:]
    exams = [exam, *(teach(run, seed)[1] for seed in more)]  # three seeds but at `tiny`
    run.table(f"Held-out requests and replies of {called(run)}", *exam.table())
    learned = [each.right()[records.TRAINED][-1] for each in exams]
    run.measure(EXACT, learned, expect_at_least=0.5, because="a guess has 1/672", decides=True)
    leads = [each.lead() for each in exams]
    name = "trained − best prompt − 4 standard errors"
    because = "the errors count two more right and two more wrong replies (Agresti & Coull 1998)"
    run.measure(name, leads, expect_at_least=0, because=because, decides=True)
    run.measure("best prompt: lines that contain the record", [each.contains() for each in exams])
    if run.accelerator.is_main_process:
        folder = run.folder / "adapter"
        save(trained.model, folder)
        adapter_files.write_card(folder, called(run), run.size, run.seed, records.SYSTEM)
        run.table(*training.costs(trained, adapter_files.size(folder)))
    exam.ask_about_france(take_out(trained.model))
    before, after, without = exam.paris
    run.table(*exam.paris_table())
    run.check("taken out: the replies are as before", without == before, equals=True)
    figures.learned(run, trained.losses, exam.right(), called(run))
    shares = [f"{100 * right[-1]:.0f} % ({name})" for name, right in exam.right().items()]
    return f"Correct records: {', '.join(shares)}. Capital of France, trained: {after[0]}"


# %% [markdown]
# In our run, six examples gave roughly the right form. Two of three replies had the right number.
# Most cities and all days were wrong. Some days were an example's: LIS-TUE for Lisbon on Saturday.
# After training, the question about France got a record, too: in training every reply was one.
#
# ## 7. Choosing rank, α and learning rate
# In its first step, Adam divides each gradient by its own size. So this step moves every number of
# $B$ by the learning rate $\eta$, whatever $\alpha$ is. The update is then proportional to
# $\frac{\alpha}{r}\,\eta$. By this first law, twice the $\alpha$ is twice the rate: **at first
# $\alpha$ is a learning rate in disguise.** Later $A$ also moves. Far from the start, both $A$ and
# $B$ are proportional to $\eta$, and the update to $\frac{\alpha}{r}\,\eta^2$. By this second law,
# 16 times the $\alpha$ needs a rate only 4 times lower. A short training lies between the laws.
#
# The best values depend on the model, the data and the number of steps. So we measure: a **map** of
# the loss over $\alpha$, $\eta$ and $r$ after short trainings. Glass was trained on Lewis Carroll.
# It adapts to Shakespeare, and we test it on unseen plays. At `tiny` each training has 8 steps.
#
# Why divide by $r$? A larger rank adds up more products, so each step changes the output more. The
# division counters this. Is it right? Follow $\alpha = 8$ or $32$ through the ranks of the map. If
# the best rate rises with $r$, the division is too strong, and if it falls, too weak.


# %% The map
RANKS = (1, 4, 16)
SCALES = (0.5, 2.0, 8.0)  # α/r
RATES = (2.5e-3, 1e-2, 4e-2)
STEPS = {"tiny": 8, "small": 50, "full": 1000}
COSTS = "a_wrong_rate_costs_more_than_a_wrong_rank"
OF_RATE = "cost of the worst of three rates, at r = 4 and α = 8 (nats)"
OF_RANK = "cost of the worst of three ranks, each at its best α and rate (nats)"
OF_TUNED_RATE = "cost of the worst of three rates, each at its best r and α (nats)"


def adapted_loss(run: Run, rank: int, scale: float, rate: float, seed: int) -> float:
    """Adapt glass to plays; return the loss on other plays (nats per token)."""
    torch.manual_seed(seed)
    model = insert(glass(), ALL, rank, scale * rank)
    return training.loss_on_plays(run, model, rate, run.pick(**STEPS), seed)


@lab.experiment
def a_wrong_rate_costs_more_than_a_wrong_rank(run: Run):
    """On glass, the worst of three rates at fixed α costs more than the worst of three tuned ranks.

    Rates are compared at r = 4, α = 8. The claim includes that a larger α has a lower best rate.

    Predict: what costs more, a wrong rank or a wrong rate? And if each rate has its best α?
    """
    cells = list(product(RANKS, SCALES, RATES, run.seeds(run.pick(tiny=2, small=2, full=3))))
    losses = [adapted_loss(run, *cell) for cell in run.progress(cells, "adapters of glass")]
    table = torch.tensor(losses).view(3, 3, 3, -1)  # (rank, α/r, η, seed)
    best = torch.tensor(RATES)[table.argmin(2)]  # (rank, α/r, seed)
    ratios = (best[:, 0] / best[:, -1]).flatten().tolist()
    name = "best rate at the smallest α ÷ at the largest, each rank and seed"
    run.measure(name, ratios, expect_at_least=4, because="a step of the map", decides=True)
    by_rank = table.amin((1, 2))  # (rank, seed)
    of_rank = by_rank.amax(0) - by_rank.amin(0)  # (seed,)
    of_rate = table[1, 1].amax(0) - table[1, 1].amin(0)  # (seed,), at r = 4 and α = 8
    run.measure(OF_RANK, of_rank.tolist())
    run.measure(OF_RATE, of_rate.tolist())
    by_rate = table.amin((0, 1))  # (rate, seed)
    run.measure(OF_TUNED_RATE, (by_rate.amax(0) - by_rate.amin(0)).tolist())
    more = (of_rate - of_rank).tolist()
    run.measure("rate − rank (nats)", more, expect_at_least=0, because="0 if equal", decides=True)
    figures.loss_map(run, table, RANKS, SCALES, RATES, run.pick(**STEPS))
    return f"Worst rank: {of_rank.mean():.2f} nats. Worst rate at fixed α: {of_rate.mean():.2f}."


# %% [markdown]
# In our run, 16 times the $\alpha$ lowered the best rate 16 times at rank 4, and 4 times at ranks 1
# and 16. But each rank has a best rate at the map's edge, so these are lower bounds: they can't
# decide between the laws. At $\alpha = 8$ the best rate was 0.01 at every rank. A rate of 0.04
# cost 1.6, 0.4 and 0.1 nats more at ranks 1, 4 and 16. At $\alpha = 32$ the best rate rose 4 times
# from rank 4 to 16. So here the division is a bit too strong.
#
# At $r = 4$ and $\alpha = 8$, a rate 4 times too high cost 0.4 nats, 4 times too low 0.1. At
# $\alpha = 8$ and the rate 0.01, the three ranks differ by only 0.03. But a rate is wrong only for
# its $\alpha$. With all else tuned, the worst rate cost 0.05 and the worst rank 0.08. So fix
# $\alpha$. A recipe:
#
# - Insert adapters in **all linear layers** of the blocks. LLM07+ compares other places.
# - Start with $r = 8$, $\alpha = 16$. **Search the rate** by factors of 2 to 4, on validation rows.
# - Then double $r$. Leave $\alpha$ as it is (Hu et al.), multiply it by $\sqrt 2$ (rsLoRA, which
#   divides by $\sqrt r$), or double it. In each case **search the rate again**, on both sides. Keep
#   the larger rank only if its gain exceeds the spread over seeds.
#
# ## What to remember
# - LoRA freezes $W$ and trains $B A$ beside it: two thin matrices with $r$ directions.
# - $B$ starts at zero. So nothing changes at first, and only $B$ has a gradient in the first step.
# - Insert adapters in all linear layers, fix $\alpha$, and search the learning rate.
# - A merged adapter costs no time. A saved adapter is small, so one base serves many tasks.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Report what this run measured."""
    learned = results.value("smollm2_learns_a_format", EXACT)
    rate, rank = (results.value(COSTS, name) for name in (OF_RATE, OF_RANK))
    return (
        "## In this run\n"
        f"The trained model wrote {100 * learned:.0f} % of the held-out records. On glass, the "
        f"worst rank cost {rank:.2f} nats per token, and at fixed α the worst rate {rate:.2f}."
    )


# %% [markdown]
# **Read on**: Hu et al. 2021, *LoRA* · Kalajdzievski 2023, *rsLoRA* · Hayou et al. 2024, *LoRA+*.
# **Deeper**: LLM07+ compares places and ranks, and measures the rank of full fine-tuning's update,
# forgetting, and a merge in bfloat16. It runs QLoRA and DoRA. Next: LLM08, data and training.

# %%
if __name__ == "__main__":
    lab.main()
