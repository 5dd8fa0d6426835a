# %% [markdown]
# # LLM09+ · Custom architectures, deeper
# How a file stores weights, what a norm remembers, how to resume, and how to open your own model.
#
# **You will be able to** read a safetensors file without its library, and refuse one whose sizes
# don't fit; write batch normalisation, and say what it does to frozen models; save the full state
# of a training; say how far a mixer sees, and which order of mixers recalls; write with a
# convolution token by token; and open your own model with Auto classes. **Builds on** LLM09, whose
# parts it imports. **Takes** half an hour to read, 90 minutes with the exercises, a minute to run.

# %% Imports
import copy
import io
import json
import math
import tempfile
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from labs.kit import Lab, Results, Run, tolerance
from labs.llm02_deep_learning import accuracy
from labs.llm06_attention import GUESS, VOCABULARY, recall_batch
from labs.llm09_custom_architectures import (
    adapters,
    convolutions,
    distances,
    hybrids,
    resuming,
    writing,
)
from labs.llm09_custom_architectures import deeper_figures as figures
from labs.llm09_custom_architectures.hybrids import CausalAttention
from labs.llm09_custom_architectures.inspection import refusal, tied
from labs.llm09_custom_architectures.lesson import (
    ARMS,
    Convolution,
    GatedConvolution,
    Hybrid,
    LoraConvolution,
    windows,
)
from labs.llm09_custom_architectures.new_process import open_in_new_process
from labs.llm09_custom_architectures.training import WIDTH, fit, framed, images, reader, right_at
from labs.llm09_custom_architectures.trap import Trap

import safetensors.torch
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput

transformers.utils.logging.disable_progress_bar()  # these weights load in less than a second
lab = Lab("LLM09+", width=WIDTH)

# %% [markdown]
# ## 1. Read a safetensors file
# A safetensors file has three parts:
#
# - 8 bytes: the length $n$ of the header, an unsigned integer, lowest byte first;
# - $n$ bytes of JSON: for each name its `dtype`, its `shape` and its `data_offsets`, where its
#   bytes begin and end, counted from the end of the header. `__metadata__` is optional text;
# - the bytes of the tensors, row by row, one tensor after the other, without gap or overlap.
#
# For a tensor of three float32 numbers, saved as "w", the header is
# `{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}`. These are 55 characters. The library
# adds a space, so that the numbers begin at a multiple of 8, and the file begins with the byte 56
# and seven zeros. The figure shows the file. A reader can check sizes and offsets before it uses
# any number. A file of `torch.save` begins with "PK", as every zip file does. Its first eight
# bytes, read as a number, promise a header of more than $10^{17}$ bytes, so the reader refuses it.
#
# Tied tensors need care. The format has no field for a second name, and bytes can't overlap. If a
# file has two copies, `load_state_dict` loads both into the tied tensor, so the last one wins. With
# `assign=True` they come back as two tensors, which drift apart in training. So `save_file` refuses
# tied tensors. `save_model` and transformers save one name; `__metadata__` can note the other.


# %% Reading a file
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPES |= {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8}
DTYPES |= {"U8": torch.uint8, "BOOL": torch.bool}


@lab.exercise(
    level=3,
    hints=(
        "int.from_bytes(data[:8], 'little') is the header's length: is the file that long at all?",
        "Sorted by offsets, each tensor must begin where the last one ended, and be as long as its "
        "shape and dtype say; the last one must end where the file does.",
        "Slice torch.frombuffer(bytearray(data), dtype=torch.uint8), clone, view as its dtype and "
        "shape. A strange header can cause KeyError, TypeError, AttributeError or RuntimeError: "
        "raise a ValueError instead.",
    ),
)
def read_safetensors(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a complete safetensors file by name; their types are in DTYPES.

    Raises:
        ValueError: for a file that is cut off, too long, has gaps or overlaps, or isn't one.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or start > len(data):
        raise ValueError("cut off, or not a safetensors file")
    body = torch.frombuffer(bytearray(data), dtype=torch.uint8)[start:]
    expected_begin = 0
    tensors = {}
    try:
        header = json.loads(data[8:start])  # its errors are ValueErrors
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = entry["data_offsets"]
            dtype = DTYPES[entry["dtype"]]
            size = math.prod(entry["shape"]) * dtype.itemsize
            if begin != expected_begin or end != begin + size or end > len(body):
                raise ValueError(f"{name} isn't where its shape says")
            tensors[name] = body[begin:end].clone().view(dtype).view(entry["shape"])
            expected_begin = end
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError("the header isn't that of a safetensors file") from error
    if expected_begin != len(body):
        raise ValueError("there are bytes that belong to no tensor")
    return tensors


@lab.experiment
def our_reader_equals_the_librarys(run: Run):
    """Our reader equals the library's, bit for bit, and refuses a pickle and three broken files.

    Predict: you change one bit of a weight. Does the reader notice?
    """
    figures.layout(run, safetensors.torch.save({"w": torch.tensor([0.5, 1.0, 2.0])}))
    state = {f"of {name}": (100 * torch.rand(3, 5)).to(dtype) for name, dtype in DTYPES.items()}
    state |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}
    data = safetensors.torch.save(state, {"for": "people"})
    ours = read_safetensors(data)
    theirs = safetensors.torch.load(data)
    same = [
        name
        for name, tensor in theirs.items()
        if ours[name].dtype == tensor.dtype and torch.equal(ours[name], tensor)
    ]
    run.check("tensors equal, bit for bit", len(same), equals=len(state), decides=True)
    pickled = io.BytesIO()
    torch.save(state, pickled)
    broken = {"cut off": data[:-1], "a byte too long": data + b"0", "6 bytes": data[:6]}
    for name, content in (broken | {"by torch.save": pickled.getvalue()}).items():
        raised = refusal(partial(read_safetensors, content))
        run.check(f"{name}: raises", raised, equals="ValueError", decides=True)
    changed = bytearray(data)
    changed[-1] ^= 1
    noticed = refusal(partial(read_safetensors, bytes(changed)))
    run.check("one bit of a tensor changed: raises", noticed, equals="nothing")
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    raised = refusal(partial(safetensors.torch.save, model.state_dict()))
    run.check("to save tied tensors raises", raised, equals="RuntimeError")
    copies = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for assign, pairs in ((False, 1), (True, 0)):
        model.load_state_dict(copies, assign=assign)
        what = f"tied pairs after loading two copies, assign={assign}"
        run.check(what, len(tied(model)), equals=pairs)
    return f"Changed by one bit, it raises {noticed}: the format has no checksum."


# %% [markdown]
# ## 2. Inputs with other strides
# A tensor's strides say how far apart its rows and columns are in memory (LLM03+). Code that only
# ever saw contiguous tensors may be wrong for a transposed or an expanded one. As an example,
# `windows_by_shape` in `convolutions.py` computes strides from the shape, $(CHW, HW, W, 1)$. A
# transposed image has others, so it returns wrong windows.
#
# We test six convolutions in five layouts. `F.pad` copies: channels last stays, the four others
# become contiguous. So transposed, every other pixel and expanded images reach the windows only in
# the two convolutions without padding.


# %% Strides
@lab.experiment
def strides_do_not_matter(run: Run):
    """Our convolution equals `F.conv2d`, with gradients, for five layouts of its input in memory.

    Predict: `unfold` makes windows as a view. Which lines of `forward` copy, and how much?
    """
    wide = torch.randn(4, 6, 26, 22, dtype=torch.float64)
    three = wide[:, :3]
    layouts = {
        "contiguous": three.contiguous(),
        "transposed": three.mT,
        "every other pixel": wide[:, 1::2, ::2, 1::2],
        "channels last": three.contiguous(memory_format=torch.channels_last),
        "one image, expanded": three[:1].expand(4, -1, -1, -1),
    }
    for name, x in layouts.items():
        error = convolutions.errors(Convolution, x)
        run.agree(f"outputs and gradients, {name}", error, tolerance(torch.float64), decides=True)
    size = 3
    for name, right in (("contiguous", True), ("transposed", False)):
        x = layouts[name]
        same = torch.equal(convolutions.windows_by_shape(x, size), windows(x, size))
        run.check(f"strides from the shape, {name}: the same windows", same, equals=right)
    padded = F.pad(layouts.pop("channels last"), (1, 1, 1, 1))
    still = padded.is_contiguous(memory_format=torch.channels_last)
    run.check("F.pad keeps channels last", still, equals=True)
    made = [F.pad(x, (1, 1, 1, 1)).is_contiguous() for x in layouts.values()]
    run.check("F.pad makes the four others contiguous", made, equals=[True] * 4)
    view = windows(padded, size)
    rows = view.permute(0, 2, 3, 1, 4, 5).flatten(3)
    shares = [tensor.data_ptr() == padded.data_ptr() for tensor in (view, rows)]
    run.check("windows, rows: they are views", shares, equals=[True, False])
    times = rows.numel() / three.numel()
    run.check("numbers in the rows ÷ image", times, equals=size**2)
    return f"`flatten` copies: {times:.0f} times the image for 3 × 3. Padding copies it once."


# %% [markdown]
# ## 3. Batch normalisation
# **Batch normalisation** (Ioffe & Szegedy 2015, algorithm 1) normalises each channel over the
# batch. A channel has $n$ numbers, over images and pixels, with the mean $\mu$ and the variance
# $\sigma^2$. The output is
#
# $$\gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} + \beta$$
#
# $\gamma$ and $\beta$ are learned. In evaluation, the output for an image must not depend on what
# else is in its batch. So in training the layer also updates running means of $\mu$ and $\sigma^2$:
# $m \leftarrow (1 - a)\,m + a\,\mu$ with $a = 0.1$, PyTorch's `momentum`. In evaluation it uses
# these. They aren't learned, but they belong to the state. Such tensors are buffers.
#
# For the numbers 1 and 3, $\mu = 2$ and $\sigma^2 = 1$, so the outputs are −1 and 1. The running
# variance is an estimate for all images. It divides by $n - 1$, here 1, and moves towards
# $(1 + 1)/1 = 2$.
#
# In training, the mean also contains any constant that is added to a channel, so subtracting the
# mean removes it. A bias before the norm has no gradient then, and moves only the running mean. And
# a forward pass in training mode changes the model, even under `no_grad`.


# %% Batch normalisation
class BatchNorm(nn.Module):
    """`mean` and `var` are running statistics, (C,) each, updated in training."""

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    @lab.exercise(
        level=2,
        hints=(
            "Cast x first. Statistics are over the axes 0, 2, 3; self.training says which to use.",
            "σ² has correction=0 where it divides; the buffer gets it times n / (n − 1).",
            "Update the buffers in place under no_grad: self.mean.lerp_(mean, self.momentum).",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel, (B, C, H, W) -> the same, in the weight's dtype.

        In training, use the batch's statistics, let gradients flow through them, and update the
        buffers; in evaluation, use the buffers.
        """
        x = x.to(self.weight.dtype)  # statistics in bfloat16 would be coarse
        mean = self.mean
        var = self.var
        if self.training:
            mean = x.mean((0, 2, 3))
            var = x.var((0, 2, 3), correction=0)
            n = x.numel() / x.shape[1]
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.var.lerp_(var * n / (n - 1), self.momentum)
        scale = self.weight * (var + self.eps).rsqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]


class NormedCNN(nn.Module):
    """LLM09's CNN with batch normalisation: images (B, 1, H, W) -> logits (B, 10)."""

    def __init__(self, bias: bool = False, dropout: float = 0.0):
        super().__init__()
        self.conv1 = Convolution(1, 16, bias=bias)
        self.norm1 = BatchNorm(16)
        self.conv2 = Convolution(16, 32, bias=bias)
        self.norm2 = BatchNorm(32)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.norm1(self.conv1(x)).relu(), 2)  # (B, 16, H/2, W/2)
        x = self.norm2(self.conv2(x)).relu().amax((2, 3))  # (B, 32)
        return self.head(self.dropout(x))


def largest_gradients(model: Any, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the biases' largest gradient, and the smaller one of the two kernels' largest."""
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    layers = (model.conv1, model.conv2)
    bias = max(layer.bias.grad.abs().max().item() for layer in layers)
    return bias, min(layer.weight.grad.abs().max().item() for layer in layers)


@lab.experiment
def a_bias_before_the_norm_is_idle(run: Run):
    """In training a bias before batch normalisation gets no gradient; in evaluation it gets one.

    Predict: the model has 14 tensors. How many does a forward pass in training mode change?
    """
    ours = BatchNorm(3).double()
    theirs = nn.BatchNorm2d(3).double()
    errors = []
    for training in (True, True, False):  # two updates of the buffers, then their use
        x = 2 * torch.randn(4, 3, 5, 6, dtype=torch.float64) + 3
        errors.append((ours.train(training)(x) - theirs.train(training)(x)).abs().max())
    run.agree("ours − nn.BatchNorm2d", torch.stack(errors))
    assert theirs.running_var is not None
    run.agree("running variance − the library's", ours.var - theirs.running_var)
    model = NormedCNN(bias=True).double()
    x = framed(images()[0][:256]).double()
    y = images()[1][:256]
    changed = {}
    shares = {}
    for mode, training in (("training", True), ("evaluation", False)):
        before = copy.deepcopy(model.train(training).state_dict())
        with torch.no_grad():
            model(x)
        after = model.state_dict()
        changed[mode] = [name for name in after if not torch.equal(before[name], after[name])]
        bias, weight = largest_gradients(model, x, y)
        shares[mode] = bias / weight
    because = "0 but for rounding: sums of 36,864 terms in float64"
    what = "training: gradient of a bias ÷ that of a weight"
    run.check(what, shares["training"], at_most=1e-10, because=because, decides=True)
    because = "there the bias has an effect"
    what = "evaluation: the same"
    run.check(what, shares["evaluation"], at_least=1e-3, because=because, decides=True)
    buffers = ["norm1.mean", "norm1.var", "norm2.mean", "norm2.var"]
    run.check("changed by a pass in training mode", changed["training"], equals=buffers)
    run.check("changed by a pass in evaluation mode", changed["evaluation"], equals=[])
    return f"{len(changed['training'])}, under `no_grad` too: {', '.join(changed['training'])}."


# %% [markdown]
# ## 4. Frozen weights and moving buffers
# LLM09 put LoRA into a CNN without norms. With batch normalisation there is a trap.
# `requires_grad_(False)` freezes parameters, and buffers aren't parameters. In training mode the
# running means and variances follow what the adapted layers output for negatives. If you then
# remove the adapter, the base computes something else, although no weight has changed. One cure is
# to train in evaluation mode, in which buffers stay; but then dropout is off, too. The other is to
# put only the norms into evaluation mode, again after each `model.train()`. In training mode the
# norms fit negatives, so the model may read more of them. Then save the buffers with the adapter.


# %% An adapter beside norms
LOST = "training mode: accuracy on positives that the base loses"


@lab.experiment
@torch.no_grad()
def frozen_weights_and_moving_buffers(run: Run):
    """An adapter teaches a normed CNN negatives; in training mode its frozen base gets worse.

    The base reads fewer of the usual digits. In evaluation mode none of its tensors changes. One
    training each.

    Predict: you train an adapter in training mode, and remove it. Which share of the usual digits
    does the base then read?
    """
    base = reader(run, NormedCNN, run.seed)
    x, y, x_test, y_test = images()
    positives = framed(x_test)
    before = accuracy(base, positives, y_test)
    rows = [["before", accuracy(base, 1 - positives, y_test), before, before]]
    moved = {}
    means = {"before": base.norm2.mean}
    for mode, still in (("evaluation mode", True), ("training mode", False)):
        torch.manual_seed(run.seed)  # the same adapter
        adapter = partial(LoraConvolution, rank=4, alpha=8)
        model = adapters.insert(copy.deepcopy(base), Convolution, adapter)
        epochs = run.pick(tiny=8, small=30, full=100)
        with torch.enable_grad():
            model = fit(run, model, 1 - framed(x), y, epochs, f"adapter, {mode}", still)
        right = [accuracy(model, given, y_test) for given in (1 - positives, positives)]
        removed = adapters.take_out(model)
        state = removed.state_dict()
        moved[mode] = max((a - state[name]).abs().max() for name, a in base.state_dict().items())
        means[mode] = removed.norm2.mean
        rows.append([f"trained in {mode}", *right, accuracy(removed, positives, y_test)])
    columns = ["", "negatives", "positives", "positives, adapter removed"]
    run.table("Accuracy on 360 test images, one seed", columns, rows)
    figures.running_means(run, means)
    what = "negatives before"
    because = "five times a guess: it never saw one"
    run.check(what, rows[0][1], at_most=0.5, because=because, decides=True)
    what = "negatives after, evaluation mode"
    run.measure(what, rows[1][1], expect_at_least=0.75, because="seven times a guess", decides=True)
    because = "parameters are frozen, buffers still"
    what = "evaluation mode: largest change of a tensor of the base"
    run.check(what, moved["evaluation mode"], at_most=0, because=because, decides=True)
    because = "the statistics of negatives are far from those of positives"
    what = "training mode: largest change of a mean or a variance"
    run.check(what, moved["training mode"], at_least=1e-2, because=because)
    adapters.check_still_norms(run, NormedCNN(dropout=0.5), BatchNorm, positives)
    lost = before - rows[2][3]
    because = "a fifth: about nine standard errors of a difference (360 images, one training)"
    run.measure(LOST, lost, expect_at_least=0.2, because=because, decides=True)
    return f"Where buffers moved, the base reads {rows[2][3]:.0%}; before, it read {before:.0%}."


# %% [markdown]
# ## 5. Save the full state of a training
# Stop a training, save it, and continue with new objects, as a new process would. At the end, all
# numbers should be those of a training that never stopped, bit for bit. The weights aren't enough.
# AdamW has running means of each weight's gradient and of its square, and a count of steps. The
# schedule counts its steps. One generator draws the order of the data, and dropout uses torch's own
# generator. The buffers belong to the model's state. LLM08+ resumed from a complete checkpoint. The
# training is in `resuming.py`; its `state` has six parts:
#
# ```python
# "optimizer": self.optimizer.state_dict(),
# "schedule": self.schedule.state_dict(),
# "order": self.order.get_state(),  # a torch.Generator
# "random numbers": torch.get_rng_state(),
# "weights": dict(self.model.named_parameters()),
# "buffers": dict(self.model.named_buffers()),
# ```
#
# The experiment leaves out each of them in turn. The first loss can't show a missing optimizer or
# schedule: they act after it. Other trainings have more parts, such as CUDA's generator, NumPy's
# generator, or the loss scale of fp16.


# %% Resuming
BUFFERS = "buffers missing: logits at the end"


@lab.experiment
def each_missing_part_shows(run: Run):
    """Resumed with its full state a training is the same, bit for bit; no part may be missing.

    Predict: one part can be missing without a change of any training loss. Which one?
    """
    half = resuming.STEPS // 2
    uninterrupted = resuming.Training(NormedCNN, run.seed)
    file = io.BytesIO()
    for _ in range(half):
        uninterrupted.step()
    torch.save(uninterrupted.state(), file)
    losses = torch.tensor([uninterrupted.step() for _ in range(half)])
    x_test = images()[2]
    want = uninterrupted.model.eval()(x_test)
    rows = {}
    for lost in ("nothing", *uninterrupted.state()):
        file.seek(0)
        state = torch.load(file, weights_only=True)
        state.pop(lost, None)
        resumed = resuming.Training(NormedCNN, run.seed + 1)
        resumed.load(state)
        gaps = (torch.tensor([resumed.step() for _ in range(half)]) - losses).abs()
        error = (resumed.model.eval()(x_test) - want).abs().max().item()
        rows[lost] = [gaps[0].item(), gaps.max().item(), error]
    columns = ["missing", "first loss", "largest of 40 losses", "logits at the end"]
    table = [[lost, *row] for lost, row in rows.items()]
    run.table("Differences to the training that never stopped", columns, table)
    figures.resumed(run, rows)
    run.check("nothing missing", rows["nothing"], at_most=0, because="bit for bit", decides=True)
    first, largest, error = rows["buffers"]
    because = "in training the norm uses the batch's own statistics"
    run.check("buffers missing: losses", [first, largest], at_most=0, because=because)
    because = "running means keep 0.9⁴⁰ = 1.5 % of what was there"
    run.check(BUFFERS, error, at_least=1e-3, because=because, decides=True)
    because = "losses are of size 0.1 and more, and float32 rounds at 1e-8"
    for lost in [part for part in rows if part not in ("nothing", "buffers")]:
        what = f"{lost} missing: largest difference of a loss"
        run.check(what, rows[lost][1], at_least=1e-3, because=because, decides=True)
    return f"The buffers: no loss differs, but logits at the end do, by up to {error:.2f}."


# %% [markdown]
# ## 6. Reach and order
# Two convolutions of $k = 4$ see $2 \cdot 3 = 6$ tokens back. The gradient of an output with
# respect to a token further back is exactly 0. In recall, a pair whose first copy begins at most
# six tokens back is in sight. Do two convolutions recall these? A model must compare two tokens.
# Attention does so by its scores, at any distance. Two convolutions have no scores. They can
# compare two tokens only by their gates and feed-forward layers, and must learn this for each
# distance separately. Only 7.5 % of their targets in training were in sight. If they fail, either
# they can't learn it, or they had too few examples; we don't know which.
#
# In the figure, two convolutions have a peak at three steps. It needn't be recall. A model may
# always name the token two places before the first query. If the first copy is three steps back,
# that is right. So we also count how often the model names it where it is wrong. The code is in
# `distances.py`.
#
# LLM09's hybrid has the convolution first. In the other order, attention has to find the token
# after the first A. But the keys of that layer are computed from single tokens, so none of them
# depends on what came before it. The convolution after the attention only sees what is near. As in
# LLM06, this is an argument, not a proof.


# %% Reach and order
ORDERS = ARMS | {"attention first": (CausalAttention, GatedConvolution)}


@lab.experiment
@torch.no_grad()
def order_decides_recall(run: Run):
    """The order of two mixers decides recall; two convolutions recall few pairs within their reach.

    They see six tokens back, and recall at most 0.2 of the pairs there. After the same short
    training, a convolution before attention recalls, and attention before a convolution guesses.

    Predict: within their reach, which share do two convolutions recall? A blind guess is right in
    3 %, and one that knows which tokens can still follow in 9 %.
    """
    slopes = {}
    for name, mixers in ORDERS.items():
        model = Hybrid(VOCABULARY, *mixers).double()
        slopes[name] = distances.influence(model, 24, 15)
        future = slopes[name][16:].max()
        run.check(f"{name}: gradient of the future", future, at_most=0, because="causal")
    back = {name: int((slope[:16] > 0).sum()) - 1 for name, slope in slopes.items()}
    run.check("tokens back, convolutions", back["convolutions"], equals=2 * (4 - 1), decides=True)
    what = "tokens back, with attention"
    run.check(what, [back[name] for name in back if name != "convolutions"], at_least=15)
    tokens = recall_batch(2000)
    distance = distances.steps_back(tokens)
    models = {
        name: [hybrids.trained(run, Hybrid, mixers, "recall", seed) for seed in run.seeds(3)]
        for name, mixers in ORDERS.items()
    }
    hits = {name: [right_at(model, tokens).float() for model in models[name]] for name in models}
    right = {name: [hit.mean().item() for hit in seeds] for name, seeds in hits.items()}
    curves = {}
    for name, seeds in hits.items():
        together = torch.stack(seeds).mean(0)
        curves[name] = [together[distance == d].mean().item() for d in range(2, 31)]
    rows = [[name, mean(values), min(values), max(values)] for name, values in right.items()]
    run.table("Recall, three seeds", ["mixers", "mean", "lowest", "highest"], rows)
    wrong = tokens[distance[:, 0] != 3]  # there the token two before isn't the one to recall
    guesses = [distances.names_two_before(model, wrong) for model in models["convolutions"]]
    habit = [guess.float().mean().item() for guess in guesses]
    run.measure("first query: convolutions name the token two before, where it is wrong", habit)
    figures.distances(run, curves, mean(habit))
    near = [hit[distance <= 6].mean().item() for hit in hits["convolutions"]]
    other = [hit[(distance <= 6) & (distance != 3)].mean().item() for hit in hits["convolutions"]]
    far = [hit[distance > 6].mean().item() for hit in hits["convolutions"]]
    because = f"about twice an informed guess, {GUESS:.2f}"
    what = "recall within their reach, convolutions"
    run.measure(what, near, expect_at_most=0.2, because=because, decides=True)
    run.measure(f"{what}, but for 3 steps", other)
    run.measure("recall beyond their reach, convolutions", far)
    what = "recall, attention first"
    run.measure(what, right["attention first"], expect_at_most=0.2, because=because, decides=True)
    because = "over four times that"
    what = "recall, convolution first"
    run.measure(what, right["hybrid"], expect_at_least=0.9, because=because, decides=True)
    return f"{mean(near):.1%}; but for 3 steps, {mean(other):.1%}. Beyond six, {mean(far):.1%}."


# %% [markdown]
# ## 7. Writing token by token
# While a model writes, each step adds one token. Attention then needs the keys and values of all
# earlier tokens: a cache that grows. The gated convolution needs only the last $k - 1$ vectors $u$.
# This **state** has $(k - 1)\,d$ numbers, and each step replaces the oldest vector by the newest. A
# step of attention reads the entire cache. We fill it with random numbers, as the time doesn't
# depend on them. A convolution's step takes the same time after any text, so we time it once.


# %% A step
class WritingConvolution(GatedConvolution):
    """A gated convolution that can also read one token at a time."""

    def start(self, batch: int) -> Tensor:
        """Return the state before the first token, (B, k − 1, d)."""
        d, k = self.kernel.shape
        return self.kernel.new_zeros(batch, k - 1, d)

    @lab.exercise(
        level=3,
        hints=(
            "Compute a, b, v and u = (1 + a) ⊙ v as in forward, for one token: (B, d) each.",
            "The state has the last k − 1 vectors u, oldest first. With the new one they are k.",
            "Column i of the kernel is for i steps back, and the newest is last: flip the kernel, "
            "transpose it to (k, d), multiply and sum over k. The new state drops the oldest u.",
        ),
    )
    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output for the next token, (B, d), and the new state; leave the old one.

        x is (B, d), the state (B, k − 1, d), oldest first.
        """
        a, b, v = self.enter(x).chunk(3, -1)
        recent = torch.cat((state, ((1 + a) * v)[:, None]), 1)  # (B, k, d)
        mixed = (recent * self.kernel.flip(1).mT).sum(1)  # (B, d)
        return self.leave((1 + b) * mixed), recent[:, 1:]


@lab.experiment
@torch.no_grad()
def a_convolution_writes_with_a_fixed_state(run: Run):
    """Step by step the convolution computes what it computes at once, with a state of fixed size.

    A step of attention takes longer, the more tokens are in its cache.

    Predict: 64 channels, 16,384 tokens written. How many numbers does each of the two store?
    """
    mixer = WritingConvolution(64).double()
    x = torch.randn(2, 40, 64, dtype=torch.float64)
    state = mixer.start(2)
    outputs = []
    for t in range(x.shape[1]):
        output, state = mixer.step(x[:, t], state)
        outputs.append(output)
    error = torch.stack(outputs, 1) - mixer(x)
    run.agree("step by step − at once", error, tolerance(torch.float64), decides=True)
    run.check("state: numbers of a text", state[0].numel(), equals=3 * 64, decides=True)
    attention = CausalAttention(64)
    error = writing.step_by_step(attention, x[:1].float()) - attention(x[:1].float())
    run.agree("attention: step by step − at once", error, tolerance(torch.float32))
    lengths = [256, 1024, 4096, 16384]
    times = [writing.time_of_attention(attention, length) for length in lengths]
    once = writing.time_of_convolution(WritingConvolution(64))
    stored = [2 * 64 * t for t in lengths]
    figures.writing(run, lengths, (times, once), (stored, 3 * 64))
    what = "time of a step of attention, 16,384 ÷ 256 tokens"
    because = "64 times the keys and values, beside a fixed cost of each call"
    growing = times[-1] / times[0]
    run.measure(what, growing, expect_at_least=2, because=because, timed=True, decides=True)
    run.measure("a step of the convolution (ms)", once, timed=True)
    return f"Attention {stored[-1]:,}, the convolution {state[0].numel()}."


# %% [markdown]
# ## 8. Save a model that transformers opens
# The field `model_type` in a folder's `config.json` is a name, here `llm09_hybrid`. AutoConfig maps
# it to a configuration class; AutoModelForCausalLM maps that to a model class. `register` adds ours
# to both maps, in each process that imports this file. The model's `__init__` takes only the
# configuration, whose fields are numbers, strings and lists, so JSON is enough to build the model.
# `save_pretrained` writes safetensors. The folder has no code of ours.
#
# The proof is another process. It gets the folder and some tokens, but no object of ours. It tries
# to open the folder twice: before it imports our classes, and after. Then, back in this process, we
# replace the safetensors file by a pickle, first of weights alone, then with LLM09's trap.


# %% The Auto classes
MIXERS = {"attention": CausalAttention, "convolution": GatedConvolution}


class HybridConfig(transformers.PreTrainedConfig):
    """The fields of config.json."""

    model_type = "llm09_hybrid"
    vocab_size: int = VOCABULARY
    hidden_size: int = 48
    mixers: Any = ("convolution", "attention")  # keys of MIXERS, one for each block
    initializer_range: float = 0.05  # the size of random weights, for post_init


class HybridForCausalLM(transformers.PreTrainedModel, transformers.GenerationMixin):
    """LLM09's hybrid as transformers wants it; `GenerationMixin` adds `generate`."""

    config_class = HybridConfig

    def __init__(self, config: HybridConfig):
        super().__init__(config)
        mixers = [MIXERS[name] for name in config.mixers]
        self.model = Hybrid(config.vocab_size, *mixers, d_model=config.hidden_size)
        self.post_init()  # completes transformers' set-up, and may draw new weights
        self.generation_config.use_cache = False  # our forward takes no cache

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any):
        """Return logits (B, T, V) for (B, T) tokens, in a CausalLMOutput.

        Raises:
            ValueError: for a mask that hides tokens: a convolution would mix the padding in.
        """
        if attention_mask is not None and not attention_mask.all():
            raise ValueError("texts of one length only: padding isn't supported")
        return CausalLMOutput(logits=self.model(input_ids))


transformers.AutoConfig.register(HybridConfig.model_type, HybridConfig, exist_ok=True)
transformers.AutoModelForCausalLM.register(HybridConfig, HybridForCausalLM, exist_ok=True)


def write_greedily(model: Any, ids: Tensor, count: int) -> list[list[int]]:
    """Append the likeliest token `count` times, without a cache; return all tokens."""
    for _ in range(count):
        ids = torch.cat((ids, model(ids)[:, -1:].argmax(-1)), 1)
    return ids.tolist()


@lab.experiment
@torch.no_grad()
def the_auto_classes_open_it(run: Run):
    """Saved and opened in a new process, the hybrid is the same; a trap in its place is refused.

    Predict: a process has the folder, but not our classes. Can AutoModelForCausalLM open it?
    """
    trained = hybrids.trained(run, Hybrid, ARMS["hybrid"], "recall", run.seed)
    model = HybridForCausalLM(HybridConfig())
    model.model.load_state_dict(trained.state_dict())
    ids = recall_batch(2)[:, :20]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        file = Path(folder) / "model.safetensors"
        saved = read_safetensors(file.read_bytes())
        state = model.state_dict()
        same = [name for name in state if torch.equal(saved[name], state[name])]
        run.check("tensors in the file, bit for bit", len(same), equals=len(state))
        opened = open_in_new_process(folder, ids)
        run.check("without our classes it raises", opened.refused, equals="ValueError")
        run.check("with them it is a", opened.kind, equals="HybridForCausalLM")
        error = torch.tensor(opened.logits) - trained(ids)
        run.agree("its logits − ours", error, tolerance(torch.float32), decides=True)
        same = opened.written == write_greedily(trained, ids, 6)
        run.check("it generates what ours does", same, equals=True, decides=True)
        file.unlink()
        pickled = file.with_name("pytorch_model.bin")
        made = Path(folder) / "made"
        load = partial(transformers.AutoModelForCausalLM.from_pretrained, folder)
        torch.save(state, pickled)
        run.check("numbers alone in a pickle: raises", refusal(load), equals="nothing")
        torch.save({**state, "more": Trap(made)}, pickled)
        raised = refusal(load)
        run.check("a trap in a pickle: raises", raised, equals="UnpicklingError", decides=True)
        run.check("its code has run", made.exists(), equals=False, decides=True)
    return f"No: it raises {opened.refused}, as nobody registered the name of our model."


# %% [markdown]
# ## What to remember
# - A safetensors file is a header and bytes. A reader can check where each tensor lies before it
#   uses a number, but it can't notice a changed one.
# - Running statistics change in training mode, whatever is frozen. To adapt a model, put its norms
#   into evaluation mode.
# - The state of this training has six parts. If the buffers are missing, no training loss shows it.
# - A convolution has an exact reach. Before attention, it writes into each token what came before.
# - The Auto classes open a model that is built from JSON and whose name is registered.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Return sentences with this run's numbers."""
    error = results.value("each_missing_part_shows", BUFFERS)
    lost = results.value("frozen_weights_and_moving_buffers", LOST)
    orders = "order_decides_recall"
    first = results.value(orders, "recall, convolution first")
    second = results.value(orders, "recall, attention first")
    return (
        f"- Resumed without its buffers, a training ends with logits that are off by {error:.3g}, "
        "though no loss differs.\n"
        f"- With frozen weights and moving buffers, the base reads {100 * lost:.0f} percentage "
        "points fewer of the usual digits.\n"
        f"- Convolution first, recall is {first:.1%}; attention first, {second:.1%}."
    )


# %% [markdown]
# **Read on**: Ioffe & Szegedy 2015, *Batch normalization* · Arora et al. 2023, *Zoology* · De et
# al. 2024, *Griffin* · the documentation of safetensors. Next: LLM10, a LLaMA from scratch.

# %%
if __name__ == "__main__":
    lab.main()
