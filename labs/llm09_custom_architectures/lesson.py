# %% [markdown]
# # LLM09 · Custom architectures
# What a module is made of, what is saved of it, and how to build one that isn't in the catalogue.
#
# **You will be able to** say what `nn.Module` knows of your model and find what it forgot; save a
# training so that it goes on bit for bit; open a file of weights without running anybody's code;
# build a convolution and batch normalisation by hand; put LLM07's adapters into a CNN; join
# convolution and attention into one model, and give it to others through transformers' Auto
# classes. **Builds on** training loops (LLM02), strides (LLM03+), RMSNorm (LLM05a), attention
# (LLM06), LoRA (LLM07). **Takes** an hour to read, two minutes to run (`tiny`, 2 cores).

# %% Imports
import copy
import io
import json
import math
import pickle
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from labs.kit import Lab, Results, Run, tolerance
from labs.llm02_deep_learning import accuracy
from labs.llm06_attention import VOCABULARY, MultiHeadAttention, causal_mask, recall_batch, rope
from labs.llm07_lora import insert, randomize, take_out, trainable
from labs.llm09_custom_architectures import figures, training
from labs.llm09_custom_architectures.inspection import forgotten, hooks, parameters, refusal, tied
from labs.llm09_custom_architectures.new_process import open_in_new_process
from labs.llm09_custom_architectures.training import Training, fit, images, mlp, reader
from labs.llm09_custom_architectures.trap import Trap
from labs.shared import small_gpt

import matplotlib.pyplot as plt
import safetensors.torch
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput

transformers.utils.logging.disable_progress_bar()  # these weights load in less than a second
lab = Lab("LLM09")

# %% [markdown]
# ## 1. A tree of names
# A module keeps three dictionaries: its **parameters** (learned), its **buffers** (kept, not
# learned), and its **submodules**, which have three of their own: a tree. Who writes
# `self.scale = nn.Parameter(…)` or `self.layer = nn.Linear(…)` has put something into them, for
# `nn.Module` watches assignments; `register_buffer(name, tensor)` adds a buffer (with
# `persistent=False` for what can be computed anew: it is moved, but not saved). All else walks the
# three: `parameters()` for the optimizer, `.to()` for the device, `state_dict()` for the file.
# The names are paths: `layers.0.weight`.
#
# So what isn't registered does not exist. A tensor in a plain attribute isn't moved and isn't
# saved; layers in a plain list aren't trained either. Until something is moved nothing raises, and
# the model computes. And a tensor that stands under two names (**tied**, as the two ends of GPT-2
# are) is one tensor with two entries: saved as two, it may come back as two, which drift apart from
# then on. (Helpers are in `inspection.py`: `refusal` tells the kind of error that an action
# raises, `forgotten` finds tensors in plain attributes, `tied` names that share memory.)


# %% 1. What is registered
class Careless(nn.Module):
    """A list of layers, a tensor that isn't learned, and two tied matrices: (B, 4) -> (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(4, 4)]
        self.scale = torch.rand(4)
        self.first, self.last = (nn.Linear(4, 4, bias=False) for _ in range(2))
        self.last.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers[0](self.first(x)) * self.scale)


class Careful(Careless):
    """The same, registered."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, scale = nn.ModuleList(self.layers), self.scale
        del self.scale  # a name is a plain attribute or a buffer, not both
        self.register_buffer("scale", scale)


@lab.experiment
def what_is_registered_is_saved(run: Run):
    """What is registered is moved, trained and saved; a plain list and a plain tensor are not.

    Predict: which error does it raise to load the careless one's state into another of its kind?
    """
    x, rows = torch.randn(8, 4), []
    for kind in (Careless, Careful):
        one, other = kind(), kind()
        said = refusal(lambda one=one, other=other: other.load_state_dict(one.state_dict()))
        off = (one(x) - other(x)).abs().max().item()
        double = refusal(lambda one=one: one.double()(x.double()))
        rows.append([kind.__name__, ", ".join(forgotten(one)) or "–", parameters(one), said])
        rows[-1] += [off, double]
    columns = ["", "forgotten", "learned", "loading raises", "then off by", "double() raises"]
    run.table("Both compute the same", columns, rows)
    lost = "layers.0.weight, layers.0.bias, scale"
    run.check("forgotten by the careless", rows[0][1], equals=lost)
    run.check("forgotten by the careful", rows[1][1], equals="–")
    run.check("numbers that are learned", [row[2] for row in rows], equals=[16, 36], decides=True)
    run.check(
        "double() raises",
        [row[5] for row in rows],
        equals=["RuntimeError", "nothing"],
        decides=True,
    )
    because = "what was lost is of size 1"
    run.check("careless, loaded: off by", rows[0][4], at_least=1e-3, because=because, decides=True)
    run.check(
        "careful, loaded: off by", rows[1][4], at_most=0, because="the same numbers", decides=True
    )
    one = Careful()
    run.check("tied", tied(one), equals=[["first.weight", "last.weight"]])
    said = refusal(lambda: safetensors.torch.save(one.state_dict()))
    run.check("to save tied tensors as safetensors raises", said, equals="RuntimeError")
    state = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    for assign, left in ((False, 1), (True, 0)):
        one.load_state_dict(state, assign=assign)
        run.check(f"tied after loading two copies, assign={assign}", len(tied(one)), equals=left)
    return f"Loading the careless one raised {rows[0][3]}; its answer was off by {rows[0][4]:.2f}."


# %% [markdown]
# ## 2. Loading
# `load_state_dict` is **strict**: names must agree, or it raises. With `strict=False` it takes what
# it finds, and *returns* what it didn't; who doesn't look at that may have loaded nothing. A state
# of PyTorch's wrapper for several processes has `module.` before each name: in the bare model none
# agrees, nothing is raised, and training begins from random weights. Shapes are another matter: one
# that differs raises even then, so a new head on an old body needs a loader of one's own.


# %% 2. Partial loading
class Loaded(NamedTuple):
    """Names, sorted; `missing` are the module's alone, `unexpected` the state's alone."""

    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]  # in both, with another shape


@lab.exercise(
    level=1,
    hints=(
        "Compare the module's own state_dict with the state: names first, then shapes.",
        "dict.keys() can be subtracted and intersected like sets; sorted() makes lists of them.",
        "Keep what fits in a dict of its own and load that with strict=False; raise if it's empty.",
    ),
)
def load_partial(module: nn.Module, state: dict[str, Tensor]) -> Loaded:
    """Copy in place what fits by name and shape, buffers too, and tell what did and what didn't.

    Raises:
        ValueError: where nothing fits.
    """
    own = module.state_dict()
    both = own.keys() & state.keys()
    fits = sorted(name for name in both if own[name].shape == state[name].shape)
    if not fits:
        raise ValueError("nothing fits: have the names another prefix?")
    module.load_state_dict({name: state[name] for name in fits}, strict=False)
    missing, unexpected = sorted(own.keys() - both), sorted(state.keys() - both)
    return Loaded(fits, missing, unexpected, sorted(both.difference(fits)))


@lab.experiment
def not_strict_is_silent(run: Run):
    """With `strict=False` a wrong prefix loads nothing and raises nothing; our loader tells."""
    learned, fresh = (nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)) for _ in range(2))
    state = learned.state_dict()
    before = fresh.state_dict()["0.weight"].clone()
    prefixed = {f"module.{name}": one for name, one in state.items()}
    wider = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 6))
    lenient = partial(fresh.load_state_dict, prefixed, strict=False)
    for name, action, error, decides in (
        ("prefix, strict", lambda: fresh.load_state_dict(prefixed), "RuntimeError", False),
        ("prefix, not strict", lenient, "nothing", True),
        ("prefix, our loader", lambda: load_partial(fresh, prefixed), "ValueError", True),
        (
            "shape, not strict",
            lambda: wider.load_state_dict(state, strict=False),
            "RuntimeError",
            False,
        ),
    ):
        run.check(f"another {name}: raises", refusal(action), equals=error, decides=decides)
    same = torch.equal(fresh.state_dict()["0.weight"], before)
    run.check("the weights are as before", same, equals=True, decides=True)
    found = load_partial(wider, state).misshapen
    run.check("another shape, our loader: misshapen", found, equals=["1.bias", "1.weight"])
    same = torch.equal(wider.state_dict()["0.weight"], state["0.weight"])
    run.check("and the body is loaded", same, equals=True)


# %% [markdown]
# ## 3. A file that can only hold numbers
# A **pickle** is a program. It may call any function that Python can import, with any arguments,
# *while it is opened*: to read its numbers is to run it. PyTorch's `.pt` and `.bin` files are zip
# archives with a pickle inside. Since release 2.6 `torch.load` reads them with `weights_only=True`
# unless told otherwise: an unpickler with a short list of what may be called (which could be got
# round before 2.6: CVE-2025-32434). **safetensors** (Hugging Face, 2022) has nothing to call:
#
# - 8 bytes: the length $n$ of the header, little-endian, unsigned;
# - $n$ bytes of JSON: for each name its `dtype`, `shape` and `data_offsets`, where its bytes begin
#   and end, counted from the header's end (`__metadata__`, if there, is text for people);
# - the bytes, one tensor after the other, rows first, without gap or overlap, to the file's end.
#
# Of a tensor of three float32, saved under "w", the header is
# `{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}`. All of it can be checked before a
# number is used. (What `torch.save` writes begins with "PK", as zips do: its first eight bytes,
# read as a length, are more than any file has.)


# %% 3. Safe loading
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPES |= {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8}
DTYPES |= {"U8": torch.uint8, "BOOL": torch.bool}


@lab.exercise(
    level=3,
    hints=(
        "int.from_bytes(data[:8], 'little') is the header's length: is the file that long at all?",
        "In the order of their offsets each tensor must begin where the last one ended, be as long "
        "as its shape and dtype say, and the last must end where the file does.",
        "Slice torch.frombuffer(bytearray(data), dtype=torch.uint8), clone, view as its dtype and "
        "shape; turn a KeyError or TypeError of a strange header into a ValueError.",
    ),
)
def read_safetensors(data: bytes) -> dict[str, Tensor]:
    """The tensors of a whole safetensors file, of the kinds in DTYPES, by name.

    Raises:
        ValueError: for what is cut off, too long, has gaps or overlaps, or is something else.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or start > len(data):
        raise ValueError("cut off, or no safetensors")
    raw, at, found = torch.frombuffer(bytearray(data), dtype=torch.uint8)[start:], 0, {}
    try:
        header = json.loads(data[8:start])  # its errors are ValueErrors
        header.pop("__metadata__", None)
        for name, one in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            (begin, end), dtype = one["data_offsets"], DTYPES[one["dtype"]]
            size = math.prod(one["shape"]) * dtype.itemsize
            if begin != at or end != begin + size or end > len(raw):
                raise ValueError(f"{name} doesn't lie where its shape says")
            found[name] = raw[begin:end].clone().view(dtype).view(one["shape"])
            at = end
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError("the header isn't that of a safetensors file") from error
    if at != len(raw):
        raise ValueError("there are bytes that belong to no tensor")
    return found


@lab.experiment
def a_pickle_is_refused(run: Run):
    """A pickle runs code when it is opened; safetensors can't, and our reader equals the library's.

    Predict: a trap makes a folder when it is opened. Is it there after three careful ways?
    """
    state = {f"of {name}": (100 * torch.rand(3, 5)).to(kind) for name, kind in DTYPES.items()}
    state |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}
    data = safetensors.torch.save(state, {"for": "people"})
    got, want = read_safetensors(data), safetensors.torch.load(data)
    pairs = [(got[name], one) for name, one in want.items()]
    same = [a for a, b in pairs if a.dtype == b.dtype and torch.equal(a, b)]
    run.check(
        "tensors equal to the library's, bit for bit", len(same), equals=len(state), decides=True
    )
    for name, one in {"cut off": data[:-1], "a byte more": data + b"0", "short": data[:6]}.items():
        said = refusal(lambda one=one: read_safetensors(one))
        run.check(f"{name}: our reader raises", said, equals="ValueError")
    with tempfile.TemporaryDirectory() as folder:
        path, file = Path(folder) / "trap", io.BytesIO()
        trap = Trap(path)
        torch.save({"weight": torch.zeros(3), "more": trap}, file)
        data = file.getvalue()
        ways = (
            lambda: torch.load(io.BytesIO(data), weights_only=True),
            lambda: read_safetensors(data),
            lambda: safetensors.torch.load(data),
        )
        said, want = list(map(refusal, ways)), ["UnpicklingError", "ValueError", "SafetensorError"]
        run.check("torch.load, our reader and safetensors raise", said, equals=want, decides=True)
        run.check("its code has run", path.exists(), equals=False, decides=True)
        pickle.loads(pickle.dumps(trap))
        run.check("its code has run, by pickle.loads", path.exists(), equals=True, decides=True)


# %% [markdown]
# ## 4. A convolution by hand
# An image is a tensor `(C, H, W)`: $C$ channels, $H$ pixels down, $W$ across. A **convolution**
# (LeCun et al. 1989) is one linear layer for all its windows of $k \times k$: for each number it
# answers, the same $C k^2$ weights look at every place, so what is learned at one is known at all.
# Windows begin every $s$ pixels (the **stride**), after $p$ zeros on every side (**padding**), and
# a window's rows and columns lie $d$ pixels apart (**dilation**; 1: side by side). The number of
# windows down is
#
# $$H' = \left\lfloor \frac{H + 2p - d\,(k - 1) - 1}{s} \right\rfloor + 1$$
#
# and $W'$, the number across, is computed in the same way.
#
# Eight pixels, $k = 3$, $p = 1$, $s = 2$, $d = 1$: $\lfloor (8 + 2 - 2 - 1)/2 \rfloor + 1 = 4$.
# Windows are a matter of strides (LLM03+): `unfold` makes all of them as a view and copies nothing;
# what copies, $k^2$ times the image, is laying each out as a row for the matrix product. (Deep
# learning says convolution and means correlation: the kernel isn't turned round.)


# %% 4. A convolution
def windows(x: Tensor, size: int, stride: int = 1, dilation: int = 1) -> Tensor:
    """(B, C, H, W) -> (B, C, H′, W′, size, size), a view."""
    reach = dilation * (size - 1) + 1
    x = x.unfold(2, reach, stride).unfold(3, reach, stride)
    return x[..., ::dilation, ::dilation]


class Convolution(nn.Module):
    """`linear` on each window: what nn.Conv2d computes with square kernels and groups=1."""

    def __init__(self, channels, out, size=3, stride=1, padding=1, dilation=1, bias=True):
        super().__init__()
        self.size, self.stride, self.padding, self.dilation = size, stride, padding, dilation
        self.linear = nn.Linear(channels * size**2, out, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out, H′, W′)."""
        x = windows(F.pad(x, (self.padding,) * 4), self.size, self.stride, self.dilation)
        rows = x.permute(0, 2, 3, 1, 4, 5).flatten(3)  # (B, H′, W′, C·k·k)
        return self.linear(rows).movedim(-1, 1)


@lab.experiment
def our_convolution_is_the_librarys(run: Run):
    """A linear layer on windows equals `F.conv2d`, with its gradients, however its input lies."""
    wide, three = torch.randn(4, 6, 26, 22, dtype=torch.float64), slice(3)
    inputs = {
        "contiguous": wide[:, three].contiguous(),
        "transposed": wide[:, three].mT,
        "every other pixel": wide[:, 1::2, ::2, 1::2],
        "channels last": wide[:, three].contiguous(memory_format=torch.channels_last),
        "one image, expanded": wide[:1, three].expand(4, -1, -1, -1),
    }
    kinds = [(3, 1, 1, 1), (3, 2, 1, 1), (1, 1, 0, 1), (2, 3, 0, 1), (5, 1, 4, 2), (3, 4, 2, 3)]
    for name, x in inputs.items():
        errors, x = [], x.requires_grad_()
        for size, stride, padding, dilation in kinds:
            layer = Convolution(3, 5, size, stride, padding, dilation).double()
            weight = layer.linear.weight.view(5, 3, size, size)  # each row is a window: C, k, k
            bias = layer.linear.bias
            ours, theirs = layer(x), F.conv2d(x, weight, bias, stride, padding, dilation)
            slope, inputs_of = torch.randn_like(theirs), (x, layer.linear.weight)
            a, b = (torch.autograd.grad(y, inputs_of, slope, True) for y in (ours, theirs))
            pairs = zip((ours, *a), (theirs, *b), strict=True)
            errors += [(one - other).abs().max() for one, other in pairs]
        run.agree(f"answer and gradients, {name}", torch.stack(errors), 1e-10, decides=True)


# %% [markdown]
# ## 5. Buffers that move
# **Batch normalisation** (Ioffe & Szegedy 2015, algorithm 1) takes from each channel the mean $\mu$
# of the batch, over images and pixels, and divides by its standard deviation:
#
# $$\gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} + \beta$$
#
# with $\gamma$ and $\beta$ learned and a small $\varepsilon$ against a division by 0. An answer
# must not depend on what else is in the batch, though. So in training it keeps running means of
# $\mu$ and $\sigma^2$, such as $m \leftarrow (1 - a)\,m + a \mu$ with $a = 0.1$ (PyTorch's
# `momentum`), and in evaluation uses these. They are neither learned nor constant: the very case
# for buffers. ($\sigma^2$ is a sum over the batch's $n$ numbers of the channel, divided by $n$; for
# the running one by $n - 1$, as an estimate for all images should be. Of 1 and 3: $\mu = 2$,
# $\sigma^2 = 1$, out come −1 and 1; the running variance steps towards 2.)
#
# Three things follow. In training a constant added to a channel is taken off again with its mean:
# a bias before the norm has gradient 0, and 48 such numbers in our CNN would never learn. Who only
# *looks* at a model in training mode changes it, `no_grad` or not. And to freeze all parameters
# isn't to freeze the model: section 8 pays for that.


# %% 5. Batch normalisation
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
            "Statistics are over the axes 0, 2 and 3; self.training says which ones to use.",
            "σ² has correction=0 where it divides; the buffer gets it times n / (n − 1).",
            "Update the buffers in place under no_grad: self.mean.lerp_(mean, self.momentum).",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same, in the weight's dtype (in bf16 statistics would be coarse).

        In training by the batch's statistics, which gradients flow through, and with a step of the
        buffers, which they don't; in evaluation by the buffers, which stay.
        """
        x, mean, var = x.to(self.weight.dtype), self.mean, self.var
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            n = x.numel() / x.shape[1]
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.var.lerp_(var * n / (n - 1), self.momentum)
        scale = self.weight * (var + self.eps).rsqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]


class CNN(nn.Module):
    """Images (B, 1, 8, 8) -> logits (B, 10)."""

    def __init__(self, bias: bool = False, dropout: float = 0.0):
        super().__init__()
        self.conv1, self.norm1 = Convolution(1, 16, bias=bias), BatchNorm(16)
        self.conv2, self.norm2 = Convolution(16, 32, bias=bias), BatchNorm(32)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(32 * 2 * 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = halve(self.norm1(self.conv1(x)).relu())  # (B, 16, 4, 4)
        x = halve(self.norm2(self.conv2(x)).relu())  # (B, 32, 2, 2)
        return self.head(self.dropout(x.flatten(1)))


def halve(x: Tensor) -> Tensor:
    """The largest of each 2 × 2 pixels, (B, C, H, W) -> (B, C, H/2, W/2)."""
    return windows(x, 2, 2).amax((-2, -1))


@lab.experiment
def a_bias_before_the_norm_is_idle(run: Run):
    """In training a bias before batch normalisation gets no gradient; in evaluation it gets one.

    Predict: and what does a look under `no_grad`, in training mode, change in the model?
    """
    ours, theirs = BatchNorm(3).double(), nn.BatchNorm2d(3).double()
    for mode in (True, True, False):  # two steps of the buffers, then their use
        x = 2 * torch.randn(4, 3, 5, 6, dtype=torch.float64) + 3
        run.agree("ours less nn.BatchNorm2d", ours.train(mode)(x) - theirs.train(mode)(x))
    assert theirs.running_var is not None
    run.agree("running variance, less the library's", ours.var - theirs.running_var)
    model, x, y = CNN(bias=True).double(), images()[0][:256].double(), images()[1][:256]
    run.check("parameters", parameters(model), equals=6186, because="48 are biases before norms")
    shares, changed, layers = [], [], (model.conv1.linear, model.conv2.linear)
    for mode in (True, False):
        before = copy.deepcopy(model.train(mode).state_dict())
        with torch.no_grad():
            model(x)
        after = copy.deepcopy(model.state_dict())
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        bias, weight = (
            [getattr(one, kind).grad.abs().max() for one in layers] for kind in ("bias", "weight")
        )
        shares.append(max(bias) / min(weight))
        changed.append([name for name in after if not torch.equal(before[name], after[name])])
    because = "0 but for rounding: 16,384 terms in float64"
    what = "bias's gradient over the weight's, in training"
    run.check(what, shares[0], at_most=1e-10, because=because, decides=True)
    because = "there it acts"
    run.check("in evaluation, the partner", shares[1], at_least=1e-3, because=because, decides=True)
    want = ["norm1.mean", "norm1.var", "norm2.mean", "norm2.var"]
    run.check("changed by a look in training mode", changed[0], equals=want)
    run.check("in evaluation mode", changed[1], equals=[])
    return f"A look in training mode, under no_grad, changed {', '.join(changed[0])}."


# %% [markdown]
# ## 6. A CNN reads digits
# A convolution, a norm and a ReLU, then the largest of each 2 × 2 pixels; all that twice, and one
# linear layer at the end: 144 + 32 + 4,608 + 64 + 1,290 = 6,138 numbers. What does a CNN know
# beforehand? That neighbours belong together, and that a stroke is a stroke wherever it stands.
# Take that away: shuffle the 64 pixels, in all images alike. To a network of linear layers, an MLP,
# it is the same task as before. (LLM02's 8 × 8 digits, 1,437 to train on and 360 to test; AdamW
# under Accelerate, the rate falling in a line to 0 after a short warm-up.)


# %% 6. A CNN reads digits
@lab.experiment
def a_cnn_reads_digits(run: Run):
    """With 6,138 numbers a CNN reads 97 % of unseen digits or more; on shuffled pixels it loses.

    Predict: shuffled, is it still better than the MLP?
    """
    run.check("parameters", parameters(CNN()), equals=6138, decides=True)
    found = {
        (kind, shuffle): [reader(run, kind, seed, shuffle)[1] for seed in run.seeds(3)]
        for kind in (CNN, mlp)
        for shuffle in (False, True)
    }
    because = "three standard errors of 0.99 on 360 images are 0.016"
    run.check(
        "accuracy of the CNN", found[CNN, False], at_least=0.97, because=because, decides=True
    )
    rows = [
        [kind.__name__.upper(), *(mean(found[kind, s]) for s in (False, True))]
        for kind in (CNN, mlp)
    ]
    run.table("Accuracy, mean of three seeds", ["", "pixels in place", "shuffled alike"], rows)
    because = "what it knows beforehand is of places; a standard error is 0.01"
    (_, cnn, cnn_shuffled), (_, plain, plain_shuffled) = rows
    cost = cnn - cnn_shuffled
    run.measure(
        "what shuffling costs the CNN", cost, expect_at_least=0.01, because=because, decides=True
    )
    run.measure(
        "what it costs the MLP",
        plain - plain_shuffled,
        expect_between=(-0.02, 0.02),
        because="to it all orders are alike",
    )
    return (
        f"In place the CNN reads {cnn:.1%} and the MLP {plain:.1%}; "
        f"shuffled {cnn_shuffled:.1%} and {plain_shuffled:.1%}."
    )


# %% [markdown]
# **What does it see?** A **hook** is a function that a module calls with each answer that it has
# computed: `hook(module, inputs, answer)`. `module.register_forward_hook(hook)` adds it; the model
# need not change. But it stays until the handle that this returned is told to `remove()` it: one
# left behind keeps what it collects alive, more at every call, and who runs the same cell twice has
# two. What a hook *returns* takes the answer's place, so it should return nothing.


# %% 7. Hooks
@lab.exercise(
    level=2,
    hints=(
        "register_forward_hook returns a handle: collect the handles, and remove() each.",
        "`finally` runs where the model, or get_submodule, raises too.",
        "In a loop a closure sees the last name: bind it, name=name. Keep answers by clone(), for "
        "an operation in place may change them later.",
    ),
)
def look_inside(model: nn.Module, names: list[str], x: Tensor) -> dict[str, Tensor]:
    """What these submodules answer while the model reads x: copies, outside of any graph.

    No hook is left behind, even where something raises, and the model's answer is what it was.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, answer: seen.update({name: answer.detach().clone()})

    handles = []
    try:
        for name in names:
            handles.append(model.get_submodule(name).register_forward_hook(keep(name)))
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@lab.experiment
def looking_leaves_nothing_behind(run: Run):
    """Hooks show what each layer sees, and none is left behind, even where the model raises.

    Predict: a hook that is never removed, and three looks: how often is each answer kept?
    """
    model, x = copy.deepcopy(reader(run, CNN, run.seed, False)[0]), images()[2][:1]
    seen = look_inside(model, ["conv1", "conv2"], x)
    run.agree(
        "conv1's answer, less what it answers alone",
        seen["conv1"] - model.conv1(x),
        1e-6,
        decides=True,
    )
    run.check("hooks left after a look", hooks(model), equals=0, decides=True)
    said = refusal(lambda: look_inside(model, ["conv1"], torch.zeros(1, 3, 8, 8)))
    run.check("three channels for one: raises", said, equals="RuntimeError")
    run.check("hooks left after that", hooks(model), equals=0, decides=True)
    kept: list[Tensor] = []
    for _ in range(3):
        model.conv1.register_forward_hook(lambda _module, _inputs, answer: kept.append(answer))
        model(x)
    run.check("never removed: answers kept of three looks", len(kept), equals=1 + 2 + 3)
    fig, axes = plt.subplots(3, 8, figsize=(7.2, 3.4))
    figures.draw_maps(axes, x[0, 0], seen["conv1"][0], seen["conv2"][0])
    run.figure(
        fig,
        "maps",
        "One digit; maps of layers 1 and 2, each on its own colour scale.",
        alt="Three rows of small pictures: the digit and 15 maps of layer 1, then eight "
        "coarser maps of layer 2.",
    )


# %% [markdown]
# ## 7. All that a training is
# Stop a training, save it, go on in a new process: it should end as if it had never stopped, to the
# bit. The weights aren't enough. AdamW has two means for each weight and a count of steps; the
# schedule has its place; the order of the data has a generator; dropout draws from torch's own. And
# the buffers belong to the model's state. LLM08 leaves this to Accelerate; here each of these six
# parts is left out in turn, to see what it would have been (by `Training` in `training.py`).


# %% 8. Resumed
@lab.experiment
def each_missing_part_shows(run: Run):
    """Resumed with its full state a training is the same, bit for bit; each missing part shows.

    Predict: which part can be missing, and no training loss tells?
    """
    whole, saved, x_test = Training(CNN, run.seed), io.BytesIO(), images()[2]
    for _ in range(40):
        whole.step()
    torch.save(whole.state(), saved)
    losses = torch.tensor([whole.step() for _ in range(40)])
    want, rows, (fig, ax) = whole.model.eval()(x_test), {}, plt.subplots()
    for lost in ("nothing", *whole.state()):
        saved.seek(0)
        state = torch.load(saved, weights_only=True)
        state.pop(lost, None)
        again = Training(CNN, run.seed + 1)
        again.load(state)
        gaps = (torch.tensor([again.step() for _ in range(40)]) - losses).abs()
        off = (again.model.eval()(x_test) - want).abs().max().item()
        rows[lost] = [gaps[0].item(), gaps.max().item(), off]
        if gaps.max() > 0:
            ax.semilogy(range(41, 81), gaps.clamp(min=1e-6), label=lost)
    columns = ["left out", "first loss", "largest of 40 losses", "logits at the end"]
    run.table(
        "Differences to the training that never stopped",
        columns,
        [[lost, *row] for lost, row in rows.items()],
    )
    run.check(
        "nothing left out", rows.pop("nothing"), at_most=0, because="bit for bit", decides=True
    )
    *gaps, off = rows.pop("buffers")
    run.check("buffers left out: losses", gaps, at_most=0, because="training uses the batch's own")
    because = "running means keep 0.9⁴⁰ = 1.5 % of what was there"
    run.check(
        "buffers left out: logits at the end", off, at_least=1e-3, because=because, decides=True
    )
    because = "losses are of size 0.1 and more, float32's rounding is 1e-8"
    for lost, (_, gap, _) in rows.items():
        what = f"{lost} left out: largest gap of a loss"
        run.check(what, gap, at_least=1e-3, because=because, decides=True)
    ax.set(xlabel="step", ylabel="difference of the loss (nats)", title="Resumed without …")
    ax.legend(ncols=2, fontsize=9)
    caption = "Resumed after 40 steps; 10⁻⁶ stands for 0. Without buffers all differences are 0."
    run.figure(
        fig,
        "resumed",
        caption,
        alt="Line plot on a log scale of the loss's difference from the uninterrupted "
        "training over steps, a curve for each part left out.",
    )
    return f"Without its buffers no loss differs, but logits do, by up to {off:.2f}."


# %% [markdown]
# ## 8. LoRA in a CNN
# Our convolution holds a linear layer, so LLM07's `insert` puts an adapter into it as it is. What
# is it, seen as a convolution? $A$ reads each window: $r$ kernels of $k \times k$. $B$ mixes the
# $r$ maps that come of it: a convolution with windows of 1 × 1.
#
# The task: a CNN that reads bright strokes on black gets the photographic negative, $1 - x$. The
# base is frozen, and the adapter learns. But the norms' buffers are no parameters: unless they are
# frozen too (by evaluation mode), they follow the new images, and without its adapter the base
# isn't what it was.


# %% 9. An adapter as convolutions
@lab.exercise(
    level=2,
    hints=(
        "A is (r, C·k·k), each row a window: channels first, then its rows and columns.",
        "B is (out, r): a kernel of 1 × 1 has two more axes of size 1.",
        "The layer multiplies by alpha / rank: once, in the second kernel.",
    ),
)
def adapter_kernels(convolution: Convolution) -> tuple[Tensor, Tensor]:
    """Of a convolution with a LoraLinear: two kernels that add to its base's answer as it does.

    (r, C, k, k), to be used with the convolution's own stride, padding and dilation; then
    (out, r, 1, 1), with the factor alpha / rank in it.
    """
    adapter: Any = convolution.linear
    k = convolution.size
    factor = adapter.alpha / adapter.rank
    return adapter.A.view(adapter.rank, -1, k, k), factor * adapter.B[:, :, None, None]


@lab.experiment
def frozen_weights_and_moving_buffers(run: Run):
    """An adapter teaches the CNN negatives; only with its buffers still is the base as it was.

    Predict: trained in training mode and the adapter taken out: how many digits does the base read?
    """
    base, before = reader(run, CNN, run.seed, False)
    torch.manual_seed(run.seed)  # the same numbers, whether the reader was trained just now or not
    (x, y, x_test, y_test), places = images(), ("linear",)
    layer = randomize(insert(copy.deepcopy(base).double(), places, 4, 8)).conv2
    wide = torch.randn(2, 16, 9, 7, dtype=torch.float64)
    down, up = adapter_kernels(layer)
    added = F.conv2d(F.conv2d(wide, down, padding=layer.padding), up)
    want = layer(wide) - copy.deepcopy(base).double().conv2(wide)
    run.agree("two convolutions, less what the adapter adds", added - want)
    run.check("what it adds", want.abs().max(), at_least=0.1, because="the partner")
    rows, moved = [["before", accuracy(base, 1 - x_test, y_test), before, before]], []
    for name, still in (("evaluation mode", True), ("training mode", False)):
        torch.manual_seed(run.seed)
        model = insert(copy.deepcopy(base), places, 4, 8)
        share = sum(one.numel() for one in trainable(model)) / parameters(base)
        with torch.no_grad():
            change = (model(x_test) - base(x_test)).abs().max()
        run.check("change of a logit by insertion", change, at_most=0, because="B is 0")
        epochs = run.pick(tiny=8, small=30, full=100)
        model = fit(run, model, 1 - x, y, epochs, f"adapter, {name}", still)
        read = [accuracy(model, one, y_test) for one in (1 - x_test, x_test)]
        state = take_out(model).state_dict()
        moved.append([(one - state[k]).abs().max().item() for k, one in base.state_dict().items()])
        rows.append([f"adapted in {name}", *read, accuracy(model, x_test, y_test)])
    columns = ["", "negatives", "positives", "positives, adapter taken out"]
    run.table("Accuracy on 360 test images", columns, rows)
    run.check("negatives before", rows[0][1], at_most=0.5, because="it never saw one", decides=True)
    what = "negatives after, evaluation mode"
    run.check(what, rows[1][1], at_least=0.8, because="chance: 0.1", decides=True)
    run.check(
        "evaluation mode, taken out: change of any tensor of the base",
        moved[0],
        at_most=0,
        because="nothing of it could move",
        decides=True,
    )
    largest = max(moved[1])
    run.check(
        "training mode: the largest", largest, at_least=1e-2, because="the partner", decides=True
    )
    because = "its running means and variances are those of negatives"
    run.measure(
        "positives that the base lost where buffers moved",
        before - rows[2][3],
        expect_at_least=0.2,
        because=because,
    )
    return (
        f"{share:.0%} of the numbers bring negatives from {rows[0][1]:.0%} to {rows[1][1]:.0%}. "
        f"Where buffers moved, the base reads {rows[2][3]:.0%} of positives, once {before:.0%}."
    )


# %% [markdown]
# ## 9. A mixer that isn't attention
# In a block of a transformer one part mixes tokens and another thinks about each. The mixer need
# not be attention. A **gated causal convolution** makes of each token three vectors, $a$, $b$ and
# $v$, and mixes each channel by itself over the last $k$ tokens:
#
# $$
# \begin{aligned}
# y &= W_\text{out} \left((1 + b) \odot \text{conv}((1 + a) \odot v)\right) \\
# \text{conv}(u)_t &= \sum_{i=0}^{k-1} w_i \odot u_{t-i}
# \end{aligned}
# $$
#
# $\odot$ multiplies entry by entry. With $k = 2$ and $w = (1, -1)$ a channel 3, 5, 4 becomes 3, 2,
# −1. Gates that multiply make it more than a moving average (Dauphin et al. 2017; in this form, but
# for the 1s: LFM2, Liquid AI 2025, with $k = 3$). The 1s hold them open at first: else an answer
# would begin as the product of three small numbers, and its gradients too (for the same reason an
# LSTM's forget gate starts open, Jozefowicz et al. 2015).
#
# It has as many parameters as attention, $4d^2$, and $kd$ more. It needs no mask and no positions,
# and to write on it remembers $k - 1$ tokens, not all. Its price is its reach: $L$ layers see
# $L(k - 1)$ tokens back, and nothing before.
#
# LLM06 found that recall takes *two* layers of attention: one that notes the token before, and one
# that finds it. A convolution has the token before for free. Is one layer of each enough? And in
# which order?


# %% 10. Mixers
class GatedConvolution(nn.Module):
    """`kernel` (d, k): column i is the weight of the token i steps back."""

    def __init__(self, d_model: int, k: int = 4):
        super().__init__()
        self.enter = nn.Linear(d_model, 3 * d_model, bias=False)  # a, b and v, one after another
        self.leave = nn.Linear(d_model, d_model, bias=False)
        self.kernel = nn.Parameter(torch.randn(d_model, k) / math.sqrt(k))

    @lab.exercise(
        level=3,
        hints=(
            "Causal: the answer at t needs t and the k − 1 before it, so pad zeros on one side.",
            "F.conv1d wants (B, d, T) and kernels (d, 1, k), with groups=d: a channel for itself.",
            "F.conv1d doesn't turn the kernel round: its last column meets the newest token. flip.",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, d): leave((1 + b) ⊙ conv((1 + a) ⊙ v)).

        What is convolved is 0 before the first token.
        """
        a, b, v = self.enter(x).chunk(3, -1)
        d, k = self.kernel.shape
        past = F.pad(((1 + a) * v).mT, (k - 1, 0))  # (B, d, k − 1 + T)
        mixed = F.conv1d(past, self.kernel.flip(1)[:, None], groups=d)  # (B, d, T)
        return self.leave((1 + b) * mixed.mT)


class CausalAttention(MultiHeadAttention):
    """LLM06's, with its mask."""

    def forward(self, x: Tensor) -> Tensor:  # (B, T, d) -> (B, T, d)
        return super().forward(x, causal_mask(x.shape[1], x.shape[1], x.device))


# %% [markdown]
# ## 10. A model for transformers' shelves
# transformers opens a folder by a name in its `config.json`: `model_type` leads to a class of
# configurations, and that to a class of models. `register` adds ours to both lists, in any process
# that imports this file. The configuration is plain fields; the model's `__init__` takes nothing
# else, so the model can be built again from JSON. `save_pretrained` writes safetensors; nothing of
# our code is in the folder, so there is none for `trust_remote_code` to run. (Positions in
# attention are LLM06's RoPE. A cache would hold keys, values and the last $k - 1$ of
# $(1 + a) \odot v$: left out here, so `use_cache` is off.)


# %% 11. The hybrid
class HybridConfig(transformers.PreTrainedConfig):
    """Fields are saved as JSON, and given by name."""

    model_type = "llm09_hybrid"
    vocab_size: int = VOCABULARY
    hidden_size: int = 64
    mixers: Any = ("convolution", "attention")  # keys of MIXERS, one for each layer
    heads: int = 1
    kernel: int = 4
    initializer_range: float = 0.05


MIXERS: dict[str, Callable[[HybridConfig], nn.Module]] = {
    "attention": lambda c: CausalAttention(c.hidden_size, c.heads, position=rope),
    "convolution": lambda c: GatedConvolution(c.hidden_size, c.kernel),
}


class Block(nn.Module):
    """A mixer, then a feed-forward layer, each on what a norm makes of x, and added to x."""

    def __init__(self, config: HybridConfig, mixer: str):
        super().__init__()
        d = config.hidden_size
        self.norm1, self.mixer = nn.RMSNorm(d), MIXERS[mixer](config)
        self.norm2, self.ffn = nn.RMSNorm(d), small_gpt.FeedForward(d)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, d) -> (B, T, d)
        x = x + self.mixer(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Hybrid(transformers.PreTrainedModel, transformers.GenerationMixin):
    """A causal language model that mixes tokens by convolution or attention, layer by layer."""

    config_class = HybridConfig

    def __init__(self, config: HybridConfig):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config, mixer) for mixer in config.mixers)
        self.norm = nn.RMSNorm(config.hidden_size)
        self.unembed = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # draws the matrices with initializer_range
        nn.init.normal_(self.embed.weight)  # else the branches, small at first, would drown it
        self.generation_config.use_cache = False

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any):
        """(B, T) tokens -> logits (B, T, V) in a CausalLMOutput.

        Raises:
            ValueError: for a mask that hides something: a convolution would mix the padding in.
        """
        if attention_mask is not None and not attention_mask.all():
            raise ValueError("texts of one length only: padding isn't supported")
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x)
        return CausalLMOutput(logits=self.unembed(self.norm(x)))


transformers.AutoConfig.register(HybridConfig.model_type, HybridConfig, exist_ok=True)
transformers.AutoModelForCausalLM.register(HybridConfig, Hybrid, exist_ok=True)
ARMS = {
    "convolution": ("convolution", "convolution"),
    "attention": ("attention", "attention"),
    "hybrid": ("convolution", "attention"),
    "hybrid, reversed": ("attention", "convolution"),
}


@lab.experiment
def a_convolution_has_a_reach(run: Run):
    """Two convolutions of k = 4 see six tokens back, exactly; with one attention all are seen.

    Predict: and the future? The convolution has no mask.
    """
    tokens, reach, count = torch.randint(VOCABULARY, (1, 24)), [], []
    for name, mixers in ARMS.items():
        model, entered = Hybrid(HybridConfig(mixers=mixers)).double(), []
        count.append(parameters(model))
        handle = model.embed.register_forward_hook(lambda _m, _i, x, to=entered: to.append(x))
        answer = model(tokens).logits[0, 12].square().sum()
        handle.remove()
        size = torch.autograd.grad(answer, entered)[0][0].abs().amax(-1)  # (T,)
        reach.append(int((size[:13] > 0).sum()) - 1)
        run.check(f"{name}: gradient to the future", size[13:].max(), at_most=0, because="causal")
    run.check(
        "tokens back, two convolutions", reach[0], equals=6, because="2 · (4 − 1)", decides=True
    )
    run.check("with attention", reach[1:], at_least=12, because="all there are", decides=True)
    run.check(
        "parameters: convolutions less attentions",
        count[0] - count[1],
        equals=2 * 4 * 64,
        because="k·d more for each",
    )
    fig, ax = plt.subplots(figsize=(7.2, 7.2))
    figures.draw_tree(ax, Hybrid(HybridConfig()))
    run.figure(
        fig,
        "tree",
        "Modules with all parameters below them. A kernel is no module.",
        alt="The modules as an indented list, each with a point at its number of parameters "
        "on a log scale.",
    )


# %% [markdown]
# Four models of two layers, alike but for their mixers, on two tasks. **Recall** is LLM06's: 16
# different tokens, then eight of them again, in another order, each to be followed by what followed
# it there. Of the 8 · 15 places where a key may have stood, a model that sees six tokens back has 9
# in sight; else it must guess. **Text** is Shakespeare's plays by characters: a loss below the
# bigram's takes more than a look at the last one. (With the attention first only recall is asked.)
# All have the same batches, learning rate and initial sizes. These were chosen in a few trials, so
# that hybrid and attention both learn recall in so short a training: look at gaps, not at small
# differences.


# %% 12. Recall and text
@cache
@torch.enable_grad()
def trained(run: Run, arm: str, task: str, seed: int) -> Any:
    """A model of an arm that has learned "recall" or "text"."""
    torch.manual_seed(seed)
    vocabulary = VOCABULARY if task == "recall" else len(small_gpt.shakespeare().characters)
    model = Hybrid(HybridConfig(vocab_size=vocabulary, mixers=ARMS[arm]))
    return training.teach(run, model, task, f"{arm}, {task}, seed {seed}", seed)


@lab.experiment
@torch.no_grad()
def the_hybrid_has_both(run: Run):
    """One convolution, then one attention: recall as good as any, and nearly the best loss on text.

    Predict: and with the attention first?
    """
    tokens, rows = recall_batch(1000), small_gpt.shakespeare().windows(256, 64)
    right = {
        arm: [training.recall(trained(run, arm, "recall", seed), tokens) for seed in run.seeds(3)]
        for arm in ARMS
    }
    loss = {
        arm: [
            training.loss_on(trained(run, arm, "text", seed), "text", rows).item()
            for seed in run.seeds(3)
        ]
        for arm in ("convolution", "attention", "hybrid")
    }
    bigram = small_gpt.bigram(rows)
    table = [[arm, mean(right[arm]), mean(loss[arm]) if arm in loss else "–"] for arm in ARMS]
    others = [["bigram", "–", bigram], ["unigram", "–", small_gpt.unigram(rows)]]
    columns = ["", "recall", "loss on text (nats per character)"]
    run.table("Mean of three seeds", columns, table + others)
    because = "it sees 9 answers of 120, and 1 in 10 guesses of the others are right at best: 0.17"
    run.check("recall, convolution", right["convolution"], at_most=0.2, because=because)
    because = "over four times that"
    run.check("recall, hybrid", right["hybrid"], at_least=0.9, because=because, decides=True)
    because = "nothing notes for attention which token came before: a guess, as in LLM06"
    run.check("recall, attention first", right["hybrid, reversed"], at_most=0.2, because=because)
    run.measure("recall, attention", right["attention"], expect_at_least=0.9, because="as in LLM06")
    because = "it sees more than one character"
    run.check("text, hybrid (nats)", loss["hybrid"], at_most=bigram, because=because)
    ahead = [a - b for a, b in zip(loss["attention"], loss["hybrid"], strict=True)]
    gap = mean(loss["attention"]) - mean(loss["convolution"])
    behind = [a - b for a, b in zip(loss["hybrid"], loss["convolution"], strict=True)]
    because = "it need not learn to look back by one"
    what = "text: attention less hybrid (nats)"
    run.measure(what, ahead, expect_at_least=0, because=because, decides=True)
    because = "half the gap of attention: what is near counts most, in a short training"
    what = "text: hybrid less convolution (nats)"
    run.measure(what, behind, expect_at_most=gap / 2, because=because, decides=True)
    run.measure(
        "text: the hybrid's range over seeds (nats)", max(loss["hybrid"]) - min(loss["hybrid"])
    )
    fig, ax = plt.subplots(figsize=(7.2, 4.6))
    figures.draw_arms(ax, right, loss, bigram)
    run.figure(
        fig,
        "hybrid",
        "Recall against the loss on text, by the mixers of the two layers.",
        alt="Scatter plot of the accuracy of recall over the loss on text, three seeds for "
        "each of three models; lines mark the reversed hybrid and the bigram.",
    )
    told = "; ".join(f"{arm} {mean(right[arm]):.2f} / {mean(loss[arm]):.2f}" for arm in loss)
    late = mean(right["hybrid, reversed"])
    return f"Recall / loss: {told}. With the attention first, recall is {late:.2f}."


# %% [markdown]
# ## 11. Opened by others
# The proof is another process. All it gets is the folder, which it tries to open before it imports
# our classes, and after.


# %% 13. A new process
@lab.experiment
@torch.no_grad()
def the_auto_classes_open_it(run: Run):
    """Saved and opened in a new process, the hybrid is the same; a trap in its place is refused.

    Predict: what does a process say that hasn't imported our classes?
    """
    model = trained(run, "hybrid", "recall", run.seed)
    ids, opened = recall_batch(2)[:, :20], transformers.AutoModelForCausalLM.from_pretrained
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        file, trap = Path(folder) / "model.safetensors", Path(folder) / "trap"
        ours, state = read_safetensors(file.read_bytes()), model.state_dict()
        same = [name for name in state if torch.equal(ours[name], state[name])]
        run.check("tensors in the file, bit for bit", len(same), equals=len(state))
        refused, kind, logits, written = open_in_new_process(folder, ids)
        run.check("without our classes it raises", refused, equals="ValueError")
        run.check("with them it is a", kind, equals="Hybrid")
        off = torch.tensor(logits) - model(ids).logits
        run.agree("its logits less ours", off, tolerance(torch.float32), decides=True)
        want = training.greedy(model, ids, 6).tolist()
        run.check("what it writes is what ours does", written == want, equals=True, decides=True)
        file.unlink()
        pickled = file.with_name("pytorch_model.bin")
        torch.save(state, pickled)
        said = refusal(lambda: opened(folder))
        run.check("opening numbers alone in a pickle raises", said, equals="nothing")
        torch.save({**state, "more": Trap(trap)}, pickled)
        said = refusal(lambda: opened(folder))
        run.check("opening a trap in a pickle raises", said, equals="UnpicklingError", decides=True)
        run.check("its code has run", trap.exists(), equals=False, decides=True)
    return f"Without our classes it said {refused}; the trap ended in {said}."


# %% [markdown]
# ## What surprised
# The dangerous faults raise nothing: a list of layers, a prefix, a buffer. And the safest file
# format is the one that can do the least. What this run measured:


# %% 14. What surprised
@lab.closing
def what_surprised(results: Results) -> str:
    """Sentences about this run, from its own numbers."""
    losses = max(results.values("each_missing_part_shows", "buffers left out: losses"))
    logits = results.value("each_missing_part_shows", "buffers left out: logits at the end")
    what = "positives that the base lost where buffers moved"
    lost = results.value("frozen_weights_and_moving_buffers", what)
    right = {
        order: results.value("the_hybrid_has_both", f"recall, {order}")
        for order in ("hybrid", "attention first")
    }
    return (
        f"- Resumed without its buffers, a training's losses are off by {losses:.3g} and its "
        f"logits at the end by {logits:.3g}.\n"
        f"- With frozen weights and moving buffers the base reads {100 * lost:.0f} percentage "
        "points fewer positives.\n"
        f"- Convolution first, the two mixers recall {right['hybrid']:.0%}; attention first, "
        f"{right['attention first']:.0%}."
    )


# %% [markdown]
# **Read on**: LeCun et al. 1989 and 1998 on convolutional networks · Ioffe & Szegedy 2015, *Batch
# normalization* · Dauphin et al. 2017, *Language modeling with gated convolutional networks* · Fu
# et al. 2023, *Hungry hungry hippos* · Arora et al. 2023, *Zoology*, on what recall tells about
# mixers · Lieber et al. 2024, *Jamba*, and De et al. 2024, *Griffin*: hybrids at scale. Next:
# LLM10, a LLaMA from scratch.

# %%
if __name__ == "__main__":
    lab.main()
