# %% [markdown]
# # LLM09 · Custom architectures
# What a module is made of, what is saved of it, and how to build a model that you can't download.
#
# **You will be able to** write how PyTorch's modules register tensors, and find what a model
# forgets; save and load models, in part and safely; write a convolution and say how far it sees;
# look inside a model, and silence its parts; put LoRA into a CNN; build a hybrid of convolution and
# attention, and say what each part does and costs. **Builds on** LLM02, LLM03, LLM05b to LLM07.
# **Takes** 45 minutes to read, two to three hours with the exercises, a minute to run.

# %% Imports
import copy
import math
from collections.abc import Iterator
from functools import partial
from statistics import mean
from typing import Any, NamedTuple

from labs.kit import Lab, Results, Run, tolerance
from labs.llm06_attention import GUESS, recall_batch
from labs.llm09_custom_architectures import adapters, careless, convolutions, costs, figures, looks
from labs.llm09_custom_architectures.hybrids import Block, CausalAttention, Mixer, compare, trained
from labs.llm09_custom_architectures.knock_outs import check_parts, recall_without
from labs.llm09_custom_architectures.training import WIDTH, compare_readers, mlp, reader

import torch
import torch.nn.functional as F
from torch import Tensor, nn

lab = Lab("LLM09", width=WIDTH)

# %% [markdown]
# ## 1. A module in forty lines
# `model.parameters()` gives the optimizer its tensors, `model.to(device)` moves them, and
# `model.state_dict()` names them for a file. How does the model know what belongs to it? You only
# write assignments. Some of them build `model`, a network of three layers in `careless.py`:
#
# ```python
# layer.weight = nn.Parameter(torch.rand(4, 4))  # a tensor to learn
# layer.register_buffer("scale", torch.rand(4))  # a tensor to save, not to learn
# model.first = layer                            # a module inside a module
# model.last.weight = model.first.weight         # a second name for a tensor
# model.layers = [other_layer]                   # a module in a list
# model.shift = torch.rand(4)                    # a tensor that isn't an nn.Parameter
# ```
#
# For each assignment to an attribute, Python calls the method `__setattr__` with the name and the
# value. A class may define that method. `nn.Module` sorts values by type into three dictionaries:
#
# - **parameters**: tensors of the type `nn.Parameter`, which the optimizer changes;
# - **buffers**: other tensors of the model's state, such as a running mean. `register_buffer` puts
#   them there, and a later assignment to that name replaces the tensor;
# - **modules**: submodules, which have three dictionaries of their own. So a model is a **tree**.
#
# Everything else becomes a plain attribute. `parameters`, `to` and `state_dict` walk the tree. The
# path to a tensor is its name, such as `first.weight`. If Python finds no attribute `weight`, it
# calls `__getattr__`, and `nn.Module` looks into its dictionaries. Two names may share one tensor;
# then they are **tied**. `parameters()` yields a tied tensor once; `state_dict()` lists it under
# both names. Here is our `Module`, in forty lines. `nn.Module` has a few more rules.


# %% Our module
class Module:
    """The registration of `nn.Module`: three dictionaries, and a walk over the tree."""

    def __init__(self) -> None:
        self.__dict__.update(_parameters={}, _buffers={}, _modules={})  # __setattr__ needs them

    @lab.exercise(
        level=2,
        hints=(
            "First decide which dictionary is the home of the value: its type says so.",
            "A plain value for a buffer's name replaces the buffer; others live in self.__dict__.",
            "Remove the name from the three other dictionaries, then set home[name] = value.",
        ),
    )
    def __setattr__(self, name: str, value: Any) -> None:
        """Put a value into its home, parameters, modules, buffers or `__dict__`, and nowhere else.

        Raises:
            TypeError: for a plain value under the name of a parameter or a module.
        """
        if isinstance(value, nn.Parameter):
            home = self._parameters
        elif isinstance(value, Module):
            home = self._modules
        elif name in self._buffers:
            home = self._buffers
        elif name in self._parameters or name in self._modules:
            raise TypeError(f"{name} is registered: a plain value would be neither moved nor saved")
        else:
            home = self.__dict__
        for other in (self.__dict__, self._parameters, self._buffers, self._modules):
            if other is not home:
                other.pop(name, None)
        home[name] = value

    def __getattr__(self, name: str) -> Any:
        """Find a registered value; Python calls this if its usual search finds nothing."""
        for home in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(home, {}):
                return self.__dict__[home][name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def register_buffer(self, name: str, tensor: Tensor) -> None:
        if name not in self._buffers and hasattr(self, name):
            raise KeyError(f"{name} is an attribute already")  # as nn.Module does
        self._buffers[name] = tensor

    @lab.exercise(
        level=2,
        hints=(
            "A module's own tensors come first: its parameters, then its buffers.",
            "Then each submodule yields its own, with a longer prefix: a method may call itself.",
            'yield from module.named_tensors(f"{prefix}{name}.") for each name in self._modules.',
        ),
    )
    def named_tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Yield the path and the tensor of each parameter and buffer; tied ones with each path."""
        for name, tensor in {**self._parameters, **self._buffers}.items():
            yield prefix + name, tensor
        for name, module in self._modules.items():
            yield from module.named_tensors(f"{prefix}{name}.")

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield each parameter once, with its first path."""
        seen = set()
        for path, tensor in self.named_tensors():
            if isinstance(tensor, nn.Parameter) and tensor not in seen:
                seen.add(tensor)  # a tensor's hash is its identity
                yield path, tensor

    def state_dict(self) -> dict[str, Tensor]:
        return {path: tensor.detach() for path, tensor in self.named_tensors()}


# %% [markdown]
# We test both classes on the network above, which has two mistakes: a layer in a plain list, and a
# tensor in a plain attribute. Its forward pass works and raises no error. But the optimizer doesn't
# get that layer, and the state lacks it. If you load that state into a new network, the forgotten
# tensors stay random. `nn.ModuleList` and `nn.ModuleDict` do register their modules. A buffer with
# `persistent=False`, such as a table that can be computed again, is moved but not saved.


# %% What is registered
@lab.experiment
def what_is_not_registered_is_lost(run: Run):
    """Our module registers what `nn.Module` registers, under the same names, in the same order.

    A layer in a list and a plain tensor aren't learned, converted or saved; no error says so.

    Predict: a new network loads that state. Are its outputs off by less or by more than 5 %?
    """
    careless.check_names(run, Module)
    figures.tree(run, careless.network(nn.Module, run.seed))
    careless.check_fates(run)
    error = careless.check_loading(run)
    return f"No error; outputs are off by {100 * error:.0f} % of their size on average."


# %% [markdown]
# ## 2. Saving and loading
# A file of weights has names and tensors, but no class. To open it, build the same network first:
#
# ```python
# save_file(model.state_dict(), "model.safetensors")  # from safetensors.torch
# model = CNN()                                       # random weights
# model.load_state_dict(load_file("model.safetensors"))
# ```
#
# For a tied tensor `save_file` raises an error; `save_model` and `load_model` handle it.
# `load_state_dict` is **strict**: if the names differ, it raises an error. With `strict=False` it
# loads the names that match and *returns* the others. Print them: otherwise loading nothing looks
# like success. A typical case: the wrapper `DistributedDataParallel` puts `module.` before each
# name. If you load such a file with `strict=False` into the unwrapped model, no name matches, and
# training starts from random weights. If a *shape* differs, `load_state_dict` raises an error even
# with `strict=False`. For a new head on a trained body you write a loader that skips it.
#
# PyTorch's `.pt` and `.bin` files contain a **pickle**, a program that builds objects. One of its
# instructions calls any function that Python can import. So opening a stranger's file can delete
# your own files before you see a single weight. There are two ways out:
#
# - `torch.load` with `weights_only=True`, the default since PyTorch 2.6, has a short list of
#   functions that files may call. Its manual still says "Never load data from an untrusted source".
# - **safetensors** files contain nothing that could be called: a header in JSON with the type,
#   shape and place of each tensor, then their bytes. LLM09+ reads one by hand.


# %% Loading with care
class Loaded(NamedTuple):  # sorted names
    loaded: list[str]
    missing: list[str]  # in the module alone
    unexpected: list[str]  # in the state alone
    misshapen: list[str]  # in both, with another shape


@lab.exercise(
    level=1,
    hints=(
        "Compare the module's own state_dict with the state: names first, then shapes.",
        "dict.keys() can be subtracted and intersected like sets; sorted() makes lists of them.",
        "Put what fits into a new dict and load that with strict=False; raise if it is empty.",
    ),
)
def load_partial(module: nn.Module, state: dict[str, Tensor]) -> Loaded:
    """Copy what fits by name and shape into the module, buffers too; report all names.

    Raises:
        ValueError: if nothing fits.
    """
    own = module.state_dict()
    both = own.keys() & state.keys()
    fits = sorted(name for name in both if own[name].shape == state[name].shape)
    if not fits:
        raise ValueError("nothing fits: do the names have another prefix?")
    module.load_state_dict({name: state[name] for name in fits}, strict=False)
    missing = sorted(own.keys() - both)
    unexpected = sorted(state.keys() - both)
    return Loaded(fits, missing, unexpected, sorted(both.difference(fits)))


@lab.experiment
def careless_loading_is_silent(run: Run):
    """A file of safetensors restores a model; with `strict=False` a wrong prefix restores nothing.

    That raises no error; our loader raises one. `weights_only=True` refuses a trap in a pickle.

    Predict: two layers, 8 → 8 → 4, are loaded into 8 → 8 → 6. What does our loader load?
    """
    careless.check_saving(run)
    loaded = careless.check_prefix(run, load_partial)
    raised = careless.check_trap(run)
    return f"{loaded}: the body. Of three ways to open the trap, two raise {raised}."


# %% [markdown]
# ## 3. A convolution by hand
# An image is a tensor `(C, H, W)`: $C$ channels, $H$ rows and $W$ columns of pixels. A
# **convolution** (LeCun et al. 1989) looks at it through a small window of $k \times k$ pixels,
# multiplies each pixel by a weight and adds the products. Then it moves the window. The weights,
# its **kernel**, are the same at each place. A window $(0, 0, 1)$ with the weights $(-1, 0, 1)$
# gives 1; the figure has 3 × 3. Strictly this is a **cross-correlation**: no kernel is flipped.
#
# With $C$ channels a window has $C k^2$ numbers. Several kernels make several output channels,
# called **maps**. So a convolution is a linear layer, applied to each window. The image gets $p$
# zeros on each side, the **padding**. Windows start every $s$ pixels, the **stride**. The pixels of
# a window are $d$ apart, the **dilation**, 1 for neighbours. So a map has
#
# $$H' = \left\lfloor \frac{H + 2p - d\,(k - 1) - 1}{s} \right\rfloor + 1$$
#
# rows; for columns, put $W$ for $H$. So $H = 8$, $k = 3$, $p = 1$, $s = 2$, $d = 1$ give 4 rows.


# %% The convolution
def windows(x: Tensor, size: int, stride: int = 1, dilation: int = 1) -> Tensor:
    """Return all windows as a view that copies nothing: (B, C, H, W) -> (B, C, H′, W′, k, k)."""
    reach = dilation * (size - 1) + 1
    x = x.unfold(2, reach, stride).unfold(3, reach, stride)  # each adds an axis: a window's pixels
    return x[..., ::dilation, ::dilation]


class Convolution(nn.Module):
    """`weight` is (out, C, k, k), `bias` (out,): what nn.Conv2d computes with square kernels."""

    def __init__(self, channels, out, size=3, stride=1, padding=1, dilation=1, bias=True):
        super().__init__()
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        bound = 1 / math.sqrt(channels * size**2)  # as nn.Linear draws its weights
        self.weight = nn.Parameter(torch.empty(out, channels, size, size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out).uniform_(-bound, bound)) if bias else None

    @lab.exercise(
        level=2,
        hints=(
            "F.pad(x, (p, p, p, p)) adds p zeros on each side. `windows` returns all windows.",
            "Make each window a row of C·k·k numbers, channels first: permute, then flatten(3).",
            "F.linear(rows, self.weight.flatten(1), self.bias) has `out` last: move it to place 1.",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """Apply the kernels to each window, (B, C, H, W) -> (B, out, H′, W′)."""
        if self.padding:
            x = F.pad(x, (self.padding,) * 4)
        x = windows(x, self.weight.shape[-1], self.stride, self.dilation)
        rows = x.permute(0, 2, 3, 1, 4, 5).flatten(3)  # (B, H′, W′, C·k·k)
        maps = F.linear(rows, self.weight.flatten(1), self.bias)  # (B, H′, W′, out)
        return maps.movedim(-1, 1)


# %% [markdown]
# **Reach**, the receptive field. A **max pool** of 2 × 2 replaces four pixels by the largest of
# them, which halves height and width. Our **CNN**, a convolutional neural network, has a
# convolution and a ReLU, a pool, and a second convolution and a ReLU. Then a linear layer reads the
# largest value of each map: 5,130 parameters. With `by_place=True` it reads all 32 · 36 values,
# with a weight for each place. How far does a pixel of the second map see? It sees 3 × 3 pixels
# behind the pool, so 6 × 6 before it. The first convolution adds one on each side: 8 × 8.


# %% The CNN
class CNN(nn.Module):
    """Images (B, 1, 12, 12) -> logits (B, 10)."""

    def __init__(self, by_place: bool = False) -> None:
        super().__init__()
        self.by_place = by_place
        self.conv1 = Convolution(1, 16)
        self.conv2 = Convolution(16, 32)
        self.head = nn.Linear(32 * 36 if by_place else 32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x).relu(), 2)  # (B, 16, 6, 6)
        x = self.conv2(x).relu()  # (B, 32, 6, 6)
        return self.head(x.flatten(1) if self.by_place else x.amax((2, 3)))


@lab.experiment
def our_convolution_equals_the_librarys(run: Run):
    """Our convolution equals `F.conv2d`, with the gradients of input, weight and bias.

    In the CNN, a pixel of the first map sees 3 × 3 pixels of the image, one of the second 8 × 8.

    Predict: a third convolution of 3 × 3 behind a second pool: how many pixels would it see?
    """
    figures.by_hand(run)
    x = torch.randn(4, 3, 13, 11, dtype=torch.float64)
    error = convolutions.errors(Convolution, x)
    run.agree("outputs and gradients − F.conv2d's", error, tolerance(torch.float64), decides=True)
    reach = convolutions.reach_of(CNN())
    sizes = [convolutions.across(slopes) for slopes in reach]
    run.check("reach, in pixels", sizes, equals=[3, 2 * 3 + 2], decides=True)
    figures.reach(run, reach)
    return "3 behind pool 2, 6 before it; conv2: 8; before pool 1: 16; conv1: 18. Images have 12."


# %% [markdown]
# ## 4. What a CNN knows before it learns
# A network of linear layers has separate weights for each pixel. What it learns about a stroke in
# the middle says little about the same stroke elsewhere. A kernel of a CNN is the same at all
# places: if a digit moves, its first maps move with it. A convolution is **equivariant** to shifts.
# The pool joins pixels 0 and 1, 2 and 3, and so on. After a shift by two, the same pixels are
# joined, one cell further. So the second maps move by one cell, and each keeps its largest value,
# but for the border. After a shift by one, the pool joins others: the second maps change.
#
# To test this, we put LLM02's digits of 8 × 8 pixels into the middle of black images of 12 × 12. We
# train on these only, by `fit` in `training.py`, and read test digits moved by one or two pixels.
# None is cut off. We compare the CNN with an **MLP** of equal depth and similar size. A **CNN by
# place** has a weight for each place: 16,330 parameters, three times as many.
#
# As a control, CNN and MLP also learn images with shuffled pixels, all in the same order. To the
# MLP that is the same task. But if a digit moves and is then shuffled, its pixels don't move
# together: on moved digits the CNN should lose its advantage.


# %% Shifted digits
@lab.experiment
def a_cnn_reads_shifted_digits(run: Run):
    """Trained on centred digits, a CNN reads shifted ones better than an MLP of the same depth.

    Three seeds each, shifts of two pixels. With shuffled pixels the CNN loses that advantage.
    Reading the maps place by place costs it at least 40 percentage points.

    Predict: which share of the digits that moved by two pixels does the CNN by place read?
    """
    arms = {"CNN": (CNN, False), "CNN by place": (partial(CNN, by_place=True), False)}
    arms |= {"MLP": (mlp, False), "CNN, shuffled": (CNN, True), "MLP, shuffled": (mlp, True)}
    figures.digits(run)
    readings, shares = compare_readers(run, arms)
    figures.shifts(run, {name: reading.across for name, reading in readings.items()})
    return f"Moved by two pixels: {shares}."


# %% [markdown]
# ## 5. Hooks
# A **forward hook** is a function that a module calls after its forward pass, with the module, its
# inputs and its output. So you see any layer's output. `register_forward_hook` adds the hook and
# returns a handle. The hook stays until you call the handle's `remove`. If you run a cell again, it
# adds one more, and each may store tensors. So remove hooks in a `finally` block, which also runs
# after an error. If a hook *returns* something, that replaces the output.


# %% Looking inside
@lab.exercise(
    level=2,
    hints=(
        "register_forward_hook returns a handle: collect the handles, and remove() each.",
        "`finally` also runs if the model raises, or get_submodule does.",
        "Make each hook by functools.partial(store, name); let it store output.detach().clone().",
    ),
)
def look_inside(model: nn.Module, names: list[str], x: Tensor) -> dict[str, Tensor]:
    """Return copies of what some submodules output while the model reads x, without a graph.

    No hook stays, even after an error, and neither the model nor its mode changes.
    """
    seen: dict[str, Tensor] = {}

    def store(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        seen[name] = output.detach().clone()

    handles = []
    try:
        for name in names:
            layer = model.get_submodule(name)
            handles.append(layer.register_forward_hook(partial(store, name)))
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@lab.experiment
@torch.no_grad()
def looking_leaves_nothing_behind(run: Run):
    """Our hooks copy both convolutions' outputs, and none stays, even after an error.

    Predict: a hook stores the output at each call and is never removed. You run the cell three
    times. How many outputs are stored?
    """
    model = copy.deepcopy(reader(run, CNN, run.seed))
    stored = looks.check(run, model, look_inside)
    figures.maps(run, model.conv1.weight[:, 0], *looks.maps_of(model, look_inside))
    return f"{stored}: one at the first run, two at the second, three at the third."


# %% [markdown]
# ## 6. LoRA in a CNN
# LLM07 adds $\frac{\alpha}{r} B A$ to a matrix. A convolution has a matrix for its windows, so LoRA
# fits. $A$ has $r$ rows of $C k^2$ numbers: these are $r$ kernels, a small convolution, **down**.
# $B$ mixes its $r$ maps: a convolution of 1 × 1, **up**, which starts at 0. To merge, compute the
# single kernel that equals down followed by up. Let down be $(-1, 0, 1)$ and up 2, with one channel
# and $r = 1$. A window $(x_1, x_2, x_3)$ gives $2 (x_3 - x_1)$, so that kernel is $(-2, 0, 2)$.
#
# The task: a CNN that was trained on white digits reads their negatives, $1 - x$. Its first layer
# has 16 kernels, the rows of a matrix $W$. It now computes $W(1 - x) = c - Wx$, where $c$ has the
# sum of each row. The update $-2W$ turns this into $Wx - c$: the old maps, each off by a constant,
# except at the border. But $W$ is 16 × 9, so $-2W$ can have rank 9; LoRA's update has at most 4, so
# it can't do this exactly. `adapters.insert` freezes a model and adds adapters.


# %% The adapter
class LoraConvolution(nn.Module):
    """A convolution `base`, which stays frozen, and a low-rank update beside it."""

    def __init__(self, base: Convolution, rank: int, alpha: float):
        super().__init__()
        out, channels, size, _ = base.weight.shape
        places = (base.stride, base.padding, base.dilation)
        self.base = base
        self.factor = alpha / rank
        self.down = Convolution(channels, rank, size, *places, bias=False)
        self.up = Convolution(rank, out, 1, padding=0, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.factor * self.up(self.down(x))

    @lab.exercise(
        level=2,
        hints=(
            "Down and up are one linear map of a window: B A is a kernel, a sum over the rank r.",
            'torch.einsum("or,rcij->ocij", B, A): B is `up`\'s weight without its 1 × 1 window.',
            "Add self.factor times that to the weight of a copy.deepcopy of the base, in no_grad.",
        ),
    )
    def merged(self) -> Convolution:
        """Return one new convolution that computes the same; the adapter and its base stay."""
        merged = copy.deepcopy(self.base)
        kernel = torch.einsum("or,rcij->ocij", self.up.weight[:, :, 0, 0], self.down.weight)
        with torch.no_grad():
            merged.weight.add_(self.factor * kernel)
        return merged


@lab.experiment
@torch.no_grad()
def an_adapter_reads_negatives(run: Run):
    """LoRA on both convolutions teaches a frozen CNN most negatives; merged, it computes the same.

    Predict: which share of the negatives does the CNN read before?
    """
    figures.low_rank(run)
    base = reader(run, CNN, run.seed)
    torch.manual_seed(run.seed)  # the same adapter, whether the CNN was trained just now or not
    adapter = partial(LoraConvolution, rank=4, alpha=8)
    model = adapters.insert(copy.deepcopy(base), Convolution, adapter)
    before, after, new, old = adapters.check_negatives(run, base, model)
    return f"{before:.0%} before; {after:.0%} with {new:,} numbers, {new / old:.0%} of the CNN's."


# %% [markdown]
# ## 7. A mixer that isn't attention
# In a block of a transformer one part mixes tokens and another transforms each alone. The **mixer**
# need not be attention. A **gated causal convolution**, drawn below its code, makes three vectors
# of each token, $a$, $b$ and $v$, and mixes each channel over the last $k$ tokens. With the weight
# $w_i$ for $i$ steps back and $\odot$ for the product entry by entry:
#
# $$u = (1 + a) \odot v, \qquad \text{conv}(u)_t = \sum_{i=0}^{k-1} w_i \odot u_{t-i}$$
#
# $$y = W_\text{out} \left((1 + b) \odot \text{conv}(u)\right)$$
#
# With $k = 2$ and $w = (1, -1)$ a channel 3, 5, 4 becomes 3, 2, −1. This is the convolution of
# mathematics: $w_0$ meets the newest token, so the kernel is flipped. The factors $1 + a$ and
# $1 + b$ are **gates**: each token sets how much of each channel passes. LFM2 (Liquid AI 2025) and
# H3 (Fu et al. 2023) gate before and after a convolution; the 1 is ours. A convolution needs no
# mask and no positions. Both mixers have $4 d^2$ weights in matrices; the kernel adds $k d$.


# %% Mixers
class GatedConvolution(nn.Module):
    """`kernel` is (d, k): column i has the weights of the token i steps back."""

    def __init__(self, d_model: int, k: int = 4):
        super().__init__()
        self.enter = nn.Linear(d_model, 3 * d_model, bias=False)  # a, b and v, one after another
        self.leave = nn.Linear(d_model, d_model, bias=False)  # W_out
        self.kernel = nn.Parameter(torch.randn(d_model, k) / math.sqrt(k))

    @lab.exercise(
        level=3,
        hints=(
            "Causal: the output at t needs t and the k − 1 before it, so pad zeros on one side.",
            "F.conv1d takes (B, d, T) and kernels (d, 1, k); groups=d keeps channels apart.",
            "F.conv1d's last column meets the newest token, ours the oldest: flip the kernel.",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """Mix the last k tokens, (B, T, d) -> (B, T, d); before the first token u is 0."""
        a, b, v = self.enter(x).chunk(3, -1)
        d, k = self.kernel.shape
        past = F.pad(((1 + a) * v).mT, (k - 1, 0))  # (B, d, k − 1 + T)
        mixed = F.conv1d(past, self.kernel.flip(1)[:, None], groups=d)  # (B, d, T)
        return self.leave((1 + b) * mixed.mT)


# %% [markdown]
# Our models have two blocks: $x \leftarrow x + \text{mixer}(\text{norm}(x))$, then
# $x \leftarrow x + \text{ffn}(\text{norm}(x))$ with LLM05b's feed-forward layer. Attention has one
# head and RoPE; see `hybrids.py`. The **hybrid** has a convolution first, then attention. The task
# is LLM06's **recall**. A text shows 16 different tokens at the places 0 to 15. Then come eight
# pairs of neighbours among them again, in random order: `… D A F C B … C B A F …`. At the first
# token of each pair, the **query**, the second must be predicted: F at the last A. In LLM06, one
# layer of attention didn't learn this; two did. The first copies into each token what the previous
# one was, the second searches for that copy. A convolution sees the previous token, too, so one of
# each may do. At `tiny` we train 150 steps on recall (LLM06: 300, larger ones), and 70 on text.
#
# How much could two convolutions recall at best? With $k = 4$ they see six tokens back: from query
# 1, at place 16, to place 10. Five of its 15 possible first copies begin there; for query 2, three;
# for query 3, one. So 9 of $8 \cdot 15 = 120$ are in sight, 0.075. Elsewhere they can guess: among
# all tokens that can still follow, a guess is right in 1/15 at query 1, in 1/8 at query 8, and in
# 0.09 on average. This is an **informed guess**. The sum bounds what two convolutions recall: 0.17.


# %% The hybrid
class Hybrid(nn.Module):
    """A causal language model with one mixer in each block: (B, T) -> logits (B, T, V)."""

    def __init__(self, vocabulary: int, *mixers: Mixer, d_model: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, d_model)
        self.blocks = nn.ModuleList(Block(d_model, mixer) for mixer in mixers)
        self.norm = nn.LayerNorm(d_model, bias=False)
        self.unembed = nn.Linear(d_model, vocabulary, bias=False)
        nn.init.normal_(self.unembed.weight, std=0.05)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)  # (B, T, d)
        for block in self.blocks:
            x = block(x)
        return self.unembed(self.norm(x))


ARMS = {
    "convolutions": (GatedConvolution, GatedConvolution),
    "attentions": (CausalAttention, CausalAttention),
    "hybrid": (GatedConvolution, CausalAttention),
}


@lab.experiment
def the_hybrid_has_both(run: Run):
    """A convolution and then an attention learn recall; two convolutions see too little for it.

    On Shakespeare's text the hybrid has a lower loss than two attentions, after a short training.

    Predict: which of the three has the lowest loss on text?
    """
    figures.mixers(run)
    right, loss = compare(run, Hybrid, ARMS)
    why = f"9 of 120 in sight, an informed guess elsewhere, {GUESS:.2f}: 0.17, whatever they learn"
    run.check("recall, convolutions", right["convolutions"], at_most=0.2, because=why)
    why = "over five times 0.17"
    run.measure("recall, hybrid", right["hybrid"], expect_at_least=0.9, because=why, decides=True)
    run.measure("recall, attentions", right["attentions"])
    ahead = [a - b for a, b in zip(loss["attentions"], loss["hybrid"], strict=True)]
    run.measure("text: attentions − hybrid (nats)", ahead, expect_at_least=0, decides=True)
    figures.arms(run, right, loss)
    best = min(loss, key=lambda arm: mean(loss[arm]))
    return f"The lowest loss on text: {best}, {mean(loss[best]):.2f} nats per character."


# %% [markdown]
# ## 8. What does each part do?
# Our guess, drawn in section 7: the convolution notes at each token which one came before. Then
# attention finds this note: from the last A it looks at F, which followed the first A. To test
# this, LLM06's **knock-outs** take parts away. As controls we also remove the other columns, one at
# a time, and the other keys, all at once. That should cost little. See `knock_outs.py`.
#
# - Silence the convolution, or the attention, by a hook that returns `torch.zeros_like(output)`.
#   But no later layer ever met a mixer that outputs 0. So we also replace the output by its mean
#   over all texts. The mean keeps what texts have in common, and no more.
# - Set one column of the kernel to 0: the token itself, one step back, two or three.
# - Hide from each query the one key that we think it needs, or all other keys. A **forward
#   pre-hook**, which changes a module's inputs, passes the mask on.


# %% Knock-outs
@lab.experiment
@torch.no_grad()
def each_part_has_its_job(run: Run):
    """For recall, the hybrid needs the convolution's view one step back, and one key per query.

    Without either, recall is at most 0.2, about twice an informed guess, 0.09. Without one of the
    other three steps, or with all other keys hidden, it is at least 0.8.

    Predict: a blind guess is right in 3 %. Is recall with the needed key hidden above or below?
    """
    tokens = recall_batch(400)
    models = [trained(run, Hybrid, ARMS["hybrid"], "recall", seed) for seed in run.seeds(3)]
    right = recall_without(models, tokens)
    check_parts(run, right)
    figures.knock_outs(run, right, GUESS)
    return f"{100 * mean(right['needed key hidden']):.1f} %; a blind guess is right in 3.1 %."


# %% [markdown]
# ## 9. What does each part cost?
# Attention compares each token with all earlier ones: about $T^2/2$ scores for $T$ tokens. A score
# takes $d$ products, and its use $d$ more: $d\,T^2$ in all. The four matrices take $4 d^2 T$. Below
# $4 d$ tokens, 256 for our $d = 64$, most work is in the matrices. It grows like $T$, as all of a
# convolution's does. At 4,096, all products are $1 + T/4d$ = 17 times as many. A plain
# implementation stores all $T^2$ scores; PyTorch's kernel never does, see LLM06+. While a model
# writes, attention stores $2 d\,T$ numbers of keys and values, a convolution its last $k - 1$
# vectors. LFM2-1.2B has six layers of attention and ten of gated convolutions. A block of Jamba has
# one of attention and seven of Mamba, with a fixed state.


# %% Time and memory
@lab.experiment
def costs_grow_with_the_text(run: Run):
    """From 256 to 4,096 tokens, attention's time ÷ that of a convolution at least doubles.

    Twice the text takes four times the memory if attention stores its scores, and otherwise twice.

    Predict: 4,096 tokens, 64 channels: the time of PyTorch's attention ÷ that of the convolution?
    """
    measured = costs.compare(run, CausalAttention, GatedConvolution)
    figures.cost(run, costs.LENGTHS, measured)
    ratio = costs.check_growth(run, measured)
    return f"{ratio:.1f} times, with PyTorch's kernel; 4,096 tokens have 8 million scores."


# %% [markdown]
# ## What to remember
# - Plain tensors, and modules in plain lists, aren't learned, moved or saved; no error says so.
# - A file has names and tensors; you bring the class. Look at what `strict=False` returns.
# - If an image moves, the maps of a convolution move. A maximum over each map hardly changes.
# - Remove each hook, even after an error.
# - A short convolution sees what is near, at the same cost for each token. In our runs at `tiny`,
#   two recalled 3 to 5 %, but had the lowest loss on text, by 0.03 to 0.05 nats.
# - Attention finds what is far; it costs $T^2$. After a convolution, it learnt recall sooner.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Return sentences with this run's numbers."""
    gap = 100 * results.value("a_cnn_reads_shifted_digits", "moved: CNN − MLP")
    right = results.value("the_hybrid_has_both", "recall, hybrid")
    step = results.value("each_part_has_its_job", "recall, kernel without step 1")
    ratio = results.value("costs_grow_with_the_text", costs.RATIO)
    return (
        f"- Of digits moved by two, the CNN reads {gap:.0f} percentage points more than the MLP.\n"
        f"- The hybrid recalls {right:.1%}, and {step:.1%} without its view one step back.\n"
        f"- On 4,096 tokens attention takes {ratio:.1f} times the time of a convolution.\n\n"
        "The first three numbers are medians of three seeds."
    )


# %% [markdown]
# **Read on**: Dauphin et al. 2017, *Language modeling with gated convolutional networks* · Arora et
# al. 2023, *Zoology*, on recall · Lieber et al. 2024, *Jamba*. **Deeper**: LLM09+ reads a
# safetensors file, writes batch normalisation, and resumes a training. Next: LLM10, a LLaMA.

# %%
if __name__ == "__main__":
    lab.main()
