# %% [markdown]
# # LLM02+ · Deep learning basics, deeper
# How rounding, depth and the learning rate affect training, and failures that raise no error.
#
# **You will be able to** choose the step of a finite difference; keep softmax finite; add an
# operation to an autograd engine and test it on random graphs; compare two networks digit by digit;
# say what depth does to gradients and to the differences between inputs; find a range of learning
# rates; add small numbers in bfloat16; separate memorising from learning; find a layer that is cut
# off from the loss.
#
# **Builds on** LLM02, whose engine, training loop and digits it uses, and LLM01's paired
# differences. LLM02's test digits are used again, and again no rate or size is chosen by them. The
# sections are about rounding (1, 2, 3, 8), the engine's graph (4, 10), what an accuracy shows (5,
# 9), and depth and steps (6, 7). Sections 2, 3 and 8 need section 1, and 4 needs 3. Otherwise read
# what you like. **Takes** an hour to read, two hours with the exercises, and two minutes to run.

# %% Imports
import math
import random
from collections import Counter
from collections.abc import Callable
from functools import cache, partialmethod
from statistics import mean, median
from typing import Any, ClassVar
from unittest.mock import patch

from labs.kit import Lab, Results, Run, on_one_thread
from labs.llm02_deep_learning import compare, cut_figure, cut_network, deeper_figures, figures
from labs.llm02_deep_learning.best_step import check_best_step
from labs.llm02_deep_learning.data import (
    batches_of,
    digit_sets,
    digits,
    may_be_chance,
    near_the_best,
    paired_lead,
)
from labs.llm02_deep_learning.depth import check_gradients, check_spreads, derived_gradients
from labs.llm02_deep_learning.lesson import MLP, OPERATIONS, TensorValue, Value, fit
from labs.llm02_deep_learning.paths import count_calls, doublings
from labs.llm02_deep_learning.random_graphs import STEPS, random_graph, run_steps, total
from labs.llm02_deep_learning.reading import reads_digits, train_deep
from labs.llm02_deep_learning.rounded_sums import check_remedies, plain_sums

import torch
from torch import Tensor, nn

lab = Lab("LLM02+")

# %% [markdown]
# ## 1. Floating-point numbers
# A floating-point number is $\pm 1.b_1 b_2 \ldots \cdot 2^e$. A format stores some bits for the
# exponent $e$ and $p - 1$ bits after the point. With the leading 1 these are $p$ **significant
# bits**.
#
# Take $p = 3$. Between 1 and 2 the numbers are 1, 1.25, 1.5 and 1.75. Between 2 and 4 they are
# twice as large, so they are twice as far apart: 2, 2.5, 3 and 3.5. In general the numbers between
# $2^e$ and $2^{e+1}$ are $2^{e-p+1}$ apart. The spacing above 1 is the **machine epsilon**
# $\varepsilon = 2^{1-p}$.
#
# Sums, products, quotients and square roots are rounded to the nearest number, so they are wrong by
# at most half a spacing. Other functions, such as $e^x$, are about as exact. In a tie, IEEE 754
# takes the number whose last bit is 0: with $p = 3$, 1.125 becomes 1 and 1.375 becomes 1.5.
#
# float64 has $p = 53$ and float32 $p = 24$. float16 has $p = 11$ and ends at 65,504. bfloat16 has
# the range of float32 but only $p = 8$. Very small numbers have fewer significant bits. In float32
# these **subnormal** numbers lie between $10^{-38}$ and $10^{-45}$. Below them is 0.


# %% Formats
SIGNIFICANT = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}


@lab.experiment
def the_spacing_doubles_at_a_power_of_two(run: Run):
    """In four formats the next number above 1 is 2¹⁻ᵖ away, and the next below it half as far.

    Predict: what is 1 + 0.001 in bfloat16?
    """
    figures.show(run, "numbers", deeper_figures.draw_numbers())
    rows = []
    spacings = []
    for name, p in SIGNIFICANT.items():
        dtype = getattr(torch, name)
        one = torch.ones((), dtype=dtype)
        above = (torch.nextafter(one, 2 * one) - one).item()
        below = (one - torch.nextafter(one, 0 * one)).item()
        info = torch.finfo(dtype)
        rows.append([name, p, above, below, f"{info.max:.3g}", info.tiny])
        spacings += [above * 2.0 ** (p - 1), below * 2.0**p]
    columns = ["", "p", "spacing above 1", "below 1", "largest", "smallest with all p bits"]
    run.table("Formats", columns, rows)
    off = max(abs(spacing - 1) for spacing in spacings)
    because = "powers of two are exact: 2¹⁻ᵖ above 1 and 2⁻ᵖ below, for each format"
    run.check(
        "largest |spacing ÷ its power of two − 1|", off, equals=0.0, because=because, decides=True
    )
    added = torch.ones((), dtype=torch.bfloat16) + 0.001
    return f"1 + 0.001 is {added.item():g} in bfloat16: half of its spacing above 1 is 0.0039."


# %% [markdown]
# ## 2. Derivatives by finite differences
# A simple and good estimate of a derivative is the **central difference**:
#
# $$f'(x) \approx \frac{f(x + h) - f(x - h)}{2h}$$
#
# Which step $h$ is best? Two errors compete.
#
# - **Taylor's**: the central difference is exact for a parabola. For other curves its error is
#   about $h^2 |f'''| / 6$, so small steps are better.
# - **Rounding**: each value of $f$ is rounded, by about $\varepsilon |f| / 2$ at most. Their
#   difference is wrong by at most $\varepsilon |f|$, and division by $2h$ makes it
#   $\varepsilon |f| / (2h)$. Large steps are better.
#
# The sum of both errors is smallest where its derivative with respect to $h$ is 0:
#
# $$h^* = \left(\frac{3 \varepsilon |f|}{2 |f'''|}\right)^{1/3}$$
#
# For $e^x$, where $f''' = f$, this is $6.9 \cdot 10^{-6}$ in float64. Compare three steps, with
# errors relative to the slope:
#
# | step $h$ | from Taylor's term, $h^2/6$ | from rounding, $\varepsilon/2h$ |
# |---|---|---|
# | 10⁻³ | 1.7 · 10⁻⁷ | 1.1 · 10⁻¹³ |
# | 10⁻⁵ | 1.7 · 10⁻¹¹ | 1.1 · 10⁻¹¹ |
# | 10⁻⁹ | 1.7 · 10⁻¹⁹ | 1.1 · 10⁻⁷ |
#
# With $10^{-5}$ more than ten of sixteen digits are right, with the other two steps fewer than
# seven. The table leaves out a third error: $x \pm h$ is rounded, too. The lab avoids it: its steps
# are powers of 2, and its points multiples of $2^{-10}$. The table also assumes the worst rounding
# of $f$. The median rounding error is about a fifth of the worst, so the best step is smaller by
# the cube root of that: about $0.6\,h^*$.
#
# A gradient of a million parameters would take two million evaluations of the loss. One backward
# pass computes it, up to rounding, in the time of a few forward passes (Baur & Strassen 1983).


# %% Finite differences
def difference_errors(dtype: torch.dtype, steps: Tensor) -> Tensor:
    """Return the median relative error of the slope of eˣ over 1,024 points, for each step."""
    # Down to h = 2⁻⁴⁵ in float64 and 2⁻²⁰ in float32, x ± h is exact: only f is rounded.
    x = torch.arange(512, 1536, dtype=dtype) / 1024
    true = x.double().exp()  # eˣ is its own slope
    errors = []
    for h in steps.tolist():
        slope = ((x + h).exp() - (x - h).exp()) / (2 * h)
        errors.append(((slope.double() - true) / true).abs().median())
    return torch.stack(errors)


def best_step(dtype: torch.dtype) -> float:
    """Return h* for a function that equals its third derivative."""
    return (1.5 * torch.finfo(dtype).eps) ** (1 / 3)


@lab.experiment
def a_difference_has_a_best_step(run: Run):
    """For eˣ, central differences are best near h*, and worse for much larger and smaller steps.

    Predict: float32 has less than half the digits of float64. How much larger is its best step?
    """
    best = {}
    measured = {}
    for name, last in (("float64", 45), ("float32", 20)):
        dtype = getattr(torch, name)
        steps = 0.5 ** torch.arange(last + 1).double()
        errors = difference_errors(dtype, steps)
        measured[name] = (steps, errors, best_step(dtype))
        best[name] = check_best_step(run, name, *measured[name])
    figures.show(run, "best_step", deeper_figures.draw_steps(measured))
    factor = best["float32"] / best["float64"]
    return (
        f"The best step is {best['float64']:.1e} in float64, and {factor:,.0f} times as large in "
        "float32. Theory says 2^(29/3) = 813; we tried powers of 2."
    )


# %% [markdown]
# ## 3. A softmax that stays finite
# Many losses need the logarithm of a softmax. But $e^{1000}$ is too large for float64 and shorter
# formats, and $e^{-1000}$ is 0. A program that computes $e^x$ first may divide infinity by
# infinity. That is NaN, "not a number". And where a probability is too small for a float, it takes
# the logarithm of 0. Two facts help. First, the quotient needn't be computed:
#
# $$\ln \frac{e^{x_i}}{\sum_j e^{x_j}} = x_i - \ln \sum_j e^{x_j}$$
#
# Second, the softmax doesn't change if the same number is subtracted from all logits of a row. **An
# example**: the logits 1000 and 999. Subtract 1000, which leaves 0 and −1. Then
# $\ln(e^0 + e^{-1}) = 0.31$, and the logarithms of the softmax are −0.31 and −1.31.


# %% log-softmax
@lab.exercise(
    level=1,
    hints=(
        "log(eˣ / Σeˣ) = x − log Σeˣ. What is e¹⁰⁰⁰ in floating point? And log e⁻¹⁰⁰⁰?",
        "Subtracting one number from all of a row changes nothing. Which number is safe?",
        "The row's largest: no term of the sum exceeds e⁰ = 1, and one term equals it.",
    ),
)
def log_softmax(x: Tensor) -> Tensor:
    """Return log(eˣ / Σeˣ) over the last axis, also where eˣ is too large or small for a float."""
    x = x - x.amax(-1, keepdim=True)
    return x - x.exp().sum(-1, keepdim=True).log()


def naive_log_softmax(x: Tensor) -> Tensor:
    return (x.exp() / x.exp().sum(-1, keepdim=True)).log()


@lab.experiment
def log_softmax_survives_large_logits(run: Run):
    """With the maximum subtracted, log-softmax in float32 is right where the exponential overflows.

    Predict: from which size of logits on does the naive formula fail? The largest float32 is 3e38.
    """
    rows = []
    x = torch.rand(1000, 10) * 2 - 1
    for size in (1, 10, 50, 100, 1000):
        logits = size * x
        want = logits.double().log_softmax(-1)
        naive = naive_log_softmax(logits).double()
        finite = naive.isfinite().all(-1)
        scale = 1 + want.abs()
        naive_error = ((naive - want).abs() / scale)[finite].max().item() if finite.any() else "–"
        error = ((log_softmax(logits).double() - want).abs() / scale).max().item()
        rows.append([f"±{size}", 1 - finite.float().mean().item(), naive_error, error])
    columns = ["logits", "naive: rows that fail", "naive: error elsewhere", "ours: error"]
    run.table("1,000 rows of ten logits", columns, rows)
    errors = [error for *_, error in rows]
    because = "relative to 1 + |log p|: a few roundings of 2⁻²⁴ = 6·10⁻⁸"
    run.check("largest error of ours", max(errors), at_most=1e-6, because=because, decides=True)
    because = "a row without any logit above 88.7, where eˣ overflows, has a probability of 0.544¹⁰"
    run.check("naive: rows that fail at ±1,000", rows[-1][1], at_least=0.9, because=because)
    first = next(name for name, failed, *_ in rows if failed)
    return (
        f"Of these sizes, the naive formula first fails at {first}. There e⁸⁹ exceeds the largest "
        "float32, and a p below 10⁻⁴⁵ becomes 0. At ±50 all numbers are finite, but less exact: "
        "a p below 10⁻³⁸ has fewer than 24 significant bits."
    )


# %% [markdown]
# ## 4. Random graphs
# One way to test an engine is to let it differentiate formulas that nobody chose. A random graph
# here has four leaves, from single numbers to tensors of shape `(2, 3, 4)`. Its operations
# broadcast the smaller ones. Twelve steps follow, each on one or two values that exist already. In
# the end the tanh of all values is summed to one number. The first table shows the steps of one
# graph. Its leaves are the values 0 to 3, and a step such as "exp" ignores its second value.
#
# For these graphs the engine gets eight more operations, in a subclass of `TensorValue`. Each needs
# its forward function, its VJP and a method. The VJP is the operation's **rule**, which a value's
# `grad_fn` applies. `backward` stays as it is. You write log-softmax's rule.
#
# Write $y_i = x_i - \ln \sum_j e^{x_j}$. Which $y_i$ change if one $x_k$ grows? The logarithm of
# the sum has the derivative $e^{x_k} / \sum_j e^{x_j}$, which is the softmax $p_k$. So if $x_k$
# grows, every $y_i$ falls at the rate $p_k$. In addition, $y_k$ grows at the rate 1. **An
# example**: the logits 2, 1, 0 have the softmax 0.665, 0.245, 0.090. If the gradients of $y$ are
# $g = 0, -1, 0$, then those of the logits are 0.665, −0.755, 0.090, as for LLM02's cross-entropy.
# With $g = 1, 1, 0$, whose sum is 2, they are −0.330, 0.511, −0.180.


# %% More operations
@lab.exercise(
    level=2,
    hints=(
        "x_k is in every y_i of its row, so add over i what each gᵢ contributes.",
        "Each gᵢ contributes −pₖ·gᵢ, and g_k contributes g_k more. What is Σᵢ gᵢ, times −pₖ?",
        "p is y.exp(). Sum g over the last axis only, with keepdim=True: rows are separate.",
    ),
)
def log_softmax_vjp(g: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the logits, (…, C), from g, that of y = log_softmax(x), (…, C)."""
    return g - y.exp() * g.sum(-1, keepdim=True)


class RichValue(TensorValue):
    """A value with more operations. Their results are RichValues, too."""

    operations: ClassVar = {
        **OPERATIONS,
        "sub": (torch.sub, lambda g, _y, _a, _b: (g, -g)),
        "div": (torch.div, lambda g, y, _a, b: (g / b, -g * y / b)),
        "pow": (torch.pow, lambda g, _y, a, exponent: (g * exponent * a ** (exponent - 1),)),
        "exp": (torch.exp, lambda g, y, _a: (g * y,)),
        "log": (torch.log, lambda g, _y, a: (g / a,)),
        "log_softmax": (log_softmax, lambda g, y, _a: (log_softmax_vjp(g, y),)),
        "reshape": (torch.reshape, lambda g, _y, a, **_shape: (g.reshape(a.shape),)),
        "transpose": (lambda a: a.mT, lambda g, _y, _a: (g.mT,)),
    }
    __sub__: Any = partialmethod(TensorValue.apply, "sub")
    __truediv__: Any = partialmethod(TensorValue.apply, "div")
    exp: Any = partialmethod(TensorValue.apply, "exp")
    log: Any = partialmethod(TensorValue.apply, "log")
    log_softmax: Any = partialmethod(TensorValue.apply, "log_softmax")
    mT: Any = property(lambda a: a.apply("transpose"))

    def __pow__(self, exponent: float) -> Any:
        return self.apply("pow", exponent=exponent)

    def reshape(self, shape: tuple[int, ...]) -> Any:
        return self.apply("reshape", shape=shape)


@lab.experiment
def random_graphs_equal_pytorchs(run: Run):
    """Our engine's gradients equal PyTorch's on random graphs of all its operations.

    Predict: float64 rounds by 10⁻¹⁶ of a number's size, and the gradients here reach some
    hundreds. How far apart are ours and PyTorch's?
    """
    chance = random.Random(run.seed)
    errors = []
    sizes = []
    largest = 0.0
    used: Counter[str] = Counter()
    for graph in run.progress(range(200), "graphs"):
        shapes, steps = random_graph(chance)
        if graph == 0:
            rows = [[4 + i, *step] for i, step in enumerate(steps)]
            run.table("The first graph", ["makes value", "step", "from value", "and value"], rows)
        tensors: list[Any] = [
            torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes
        ]
        values = [RichValue(x.detach()) for x in tensors]
        computed = run_steps(steps, values)
        largest = max(largest, *(value.data.abs().max().item() for value in computed))
        total(computed).backward()
        total(run_steps(steps, tensors)).backward()
        errors += [(a.grad - b.grad).abs().max() for a, b in zip(values, tensors, strict=True)]
        sizes += [x.grad.abs().max().item() for x in tensors]
        used.update(name for name, *_ in steps)
    run.measure("largest |value|", largest)
    run.measure("largest |gradient|", max(sizes))
    because = (
        "40 operations that round by 10⁻¹⁶ make 10⁻¹² of gradients of some hundreds; numbers on "
        "the way may be a hundred times as large"
    )
    run.check("largest difference", max(errors), at_most=1e-10, because=because, decides=True)
    because = "a control: a leaf's own tanh gives at most 1, the rest comes through the steps"
    what = "median over the leaves: largest |gradient|"
    run.check(what, median(sizes), at_least=1.0, because=because)
    because = f"2,400 steps of {len(STEPS)} kinds make 150 ± 12 of each"
    fewest = min(used[name] for name in STEPS)
    run.check("fewest uses of a step", fewest, at_least=100, because=because)
    return f"The largest difference is {max(errors):.0e}, the largest gradient {max(sizes):.0f}."


# %% [markdown]
# How much does the order save? A backward pass that follows each path separately is right, but a
# chain of $n$ doublings has $2^n$ paths. In topological order each value sends its gradient once.


# %% Paths and visits
def walk_paths(value: Value, g: float = 1.0) -> int:
    """Add to each grad along every path from `value` separately; return the number of calls."""
    value.grad += g
    calls = 1 if value.inputs else 0
    for source, contribution in zip(value.inputs, value.grad_fn(g), strict=True):
        calls += walk_paths(source, contribution)
    return calls


@lab.experiment
def each_rule_is_called_once(run: Run):
    """`backward` calls each rule of n doublings once; a walk along each path makes 2ⁿ − 1 calls.

    Predict: you make the chain twice as long. What happens to the calls path by path, and in order?
    """
    rows = []
    calls_of = {}
    for n in (4, 8, 12, 16):
        walked = doublings(n)
        paths = walk_paths(walked[-1])
        ordered = doublings(n)
        calls = count_calls(ordered)
        calls_of[n] = (paths, calls)
        rows.append([n, paths, calls, walked[0].grad - ordered[0].grad])
    run.table("Calls of rules", ["n", "path by path", "in order", "gradients' difference"], rows)
    extra = max(abs(calls - n) for n, _, calls, _ in rows)
    run.check("calls in order minus n", extra, equals=0, because="once each", decides=True)
    extra = max(abs(paths - 2**n + 1) for n, paths, _, _ in rows)
    because = "1 + 2 + 4 + … + 2ⁿ⁻¹"
    what = "calls path by path minus (2ⁿ − 1)"
    run.check(what, extra, equals=0, because=because, decides=True)
    wrong = max(abs(difference) for *_, difference in rows)
    run.check("gradients' difference", wrong, equals=0.0, because="powers of two are exact")
    walk, calls = calls_of[8]
    longer_walk, more_calls = calls_of[16]
    return (
        f"From 8 to 16 doublings the walk goes from {walk} to {longer_walk:,} calls, and the order "
        f"from {calls} to {more_calls}."
    )


# %% [markdown]
# ## 5. What success on digits does not show
# On LLM02's spirals a network needs an activation: without one its boundary is a straight line.
# LLM02 also read digits. How many errors does an activation remove on digits? We train networks
# with layers of 64, 64 and 10 units, with ReLU, with tanh and without an activation.
#
# Near 100 %, accuracy hides differences. Say one network reads 96 % of the digits and another 97 %.
# That is one point of accuracy, but a quarter of the errors. At 96 % only 4 points are left for any
# other network to gain. So look at the errors, too.
#
# All networks read the same 360 digits, so compare them digit by digit, as LLM01 compared prompts.
# Take ReLU and no activation. The score $s_i$ of digit $i$ is 1 if only ReLU is right, −1 if only
# the other network is, and 0 otherwise. ReLU's lead is $\sum_i s_i$ digits, and its standard error
# is $\sqrt{360}$ times the standard deviation of the $s_i$. Both networks tend to miss the same
# digits, and such a digit scores 0. So this standard error is smaller than for two accuracies on
# separate digits. If the networks erred independently, pairing would gain nothing.
#
# Here, as in sections 6, 9 and 10, we train on training and validation digits. We use three seeds,
# and first average each digit's score over them. The standard error then says how much the result
# would change on another sample of digits. It says nothing about other seeds.


# %% Digits without an activation
WIDTHS = (64, 64, 64, 10)


def read_by_seed(run: Run, activation: str) -> Tensor:
    """Train with three seeds; return 1 for each test digit read, (seeds, 360)."""
    steps = run.pick(tiny=300, small=1000, full=3000)
    seeds = run.progress(run.seeds(3), f"{activation}, seeds")
    return torch.stack([reads_digits(seed, steps, 0.05, activation, *WIDTHS) for seed in seeds])


read_once = cache(read_by_seed)  # two experiments share ReLU's results


@lab.experiment
def digits_leave_an_activation_little_to_win(run: Run):
    """Without an activation a network reads more than nine tenths of our unseen digits, so an
    activation has less than a tenth to win.

    Predict: without an activation, how many of 360 unseen digits does the network miss? With ReLU?
    """
    right = {name: read_once(run, name) for name in ("ReLU", "tanh", "identity")}
    errors = {name: 1 - read.mean(1) for name, read in right.items()}  # (seeds,) each
    for name in ("ReLU", "tanh"):
        run.measure(f"test errors, {name}", errors[name].tolist())
    because = "“more than nine tenths” are read; one accuracy of 0.9 has a standard error of 0.016"
    what = "test errors, no activation"
    run.measure(
        what, errors["identity"].tolist(), expect_at_most=0.1, because=because, decides=True
    )
    ratio = (errors["ReLU"].mean() / errors["identity"].mean()).item()
    run.measure("errors, ReLU ÷ no activation", ratio)
    lead, error = paired_lead(right["ReLU"], right["identity"])
    run.measure("ReLU's lead, in digits of 360", lead)
    run.measure("its standard error, digit by digit", error)
    leads = (right["ReLU"] - right["identity"]).sum(1).tolist()
    run.measure("ReLU's lead by seed", leads)
    variances = [right[name].mean(0).var().item() for name in ("ReLU", "identity")]
    separate = math.sqrt(360 * sum(variances))
    smaller = error / separate
    because = "both networks tend to miss the same digits"
    run.measure("standard error, paired ÷ separate", smaller, expect_at_most=1, because=because)
    left = 360 * errors["identity"].mean().item()
    by_seed = f"{min(leads):+.0f} to {max(leads):+.0f}".replace("-", "−")
    chance = may_be_chance(lead, error)
    if chance:
        chance += " 360 digits and three seeds are too few to say how many errors ReLU removes."
    return (
        f"On average over three seeds the network misses {left:.1f} of 360 digits without an "
        f"activation, and {left - lead:.1f} with ReLU. ReLU's lead is {lead:.1f} ± {error:.1f} "
        f"digits, one standard error over digits.{chance} By seed the lead is {by_seed}. On "
        f"separate digits the error would be {separate:.1f}. Other learning rates weren't tried. "
        "The table shows medians over seeds; the numbers above are means."
    )


# %% [markdown]
# If a network learns to read digits, are its gradients right? Try a wrong rule: let relu send all
# of $g$ back, even where its input was negative. Then the steps no longer follow the gradient. Only
# the last layer's gradient stays right, as no relu lies between it and the loss. The other layers
# may learn, too. Networks even learn with random matrices in place of $W^\top$ on the way back
# (Lillicrap et al. 2016). A part of the success may be that of the last layer alone: in section 10
# a network reads most digits with only its last layer trained. The lab doesn't measure how much.


# %% A wrong rule
@lab.experiment
def a_wrong_rule_trains_too(run: Run):
    """With a wrong rule for relu a network learns to read digits; the comparison finds the mistake.

    Predict: how many of 360 unseen digits does the wrong rule cost?
    """
    right = read_once(run, "ReLU")
    with patch.dict(OPERATIONS, relu=(torch.relu, lambda g, _y, _a: (g,))):
        wrong = read_by_seed(run, "ReLU")
        x = torch.randn(4, 5, dtype=torch.float64)
        [(ours, theirs)] = compare.gradients(TensorValue, lambda a: a.relu(), x)
    run.measure("test accuracy, right rule", right.mean(1).tolist())
    because = "half of the digits; guessing reads a tenth"
    what = "test accuracy, wrong rule"
    run.check(what, wrong.mean(1).tolist(), at_least=0.5, because=because, decides=True)
    because = "where x < 0 the rule sends g, which is at least 0.5 here, instead of 0"
    off = (ours - theirs).abs().max()
    run.check("difference from PyTorch", off, at_least=0.5, because=because, decides=True)
    cost, error = paired_lead(right, wrong)
    run.measure("digits of 360 that the wrong rule costs", cost)
    run.measure("its standard error, digit by digit", error)
    return (
        f"The wrong rule costs {cost:.1f} ± {error:.1f} of 360 digits, one standard error over "
        f"digits, not seeds.{may_be_chance(cost, error)} An accuracy of {wrong.mean():.0%} hides "
        f"the mistake. The comparison finds it: the gradients differ from PyTorch's by up to "
        f"{off:.2f}."
    )


# %% [markdown]
# ## 6. Depth
# On its way back the gradient is multiplied in each layer by the activation's derivative and by
# $W^\top$. So the gradient of one number that enters a layer of width $n$ is a sum of $n$ products
# $w_j f'(z_j) g_j$. Let the weights have mean 0 and variance $\text{gain}^2 / n$. Let weights,
# derivatives and the gradients $g$ that arrive be independent of each other. In a wide layer that
# is nearly true, as one weight hardly moves $z$. Then the products are uncorrelated, and their mean
# squares add:
# $n \cdot \frac{\text{gain}^2}{n} \cdot \text{E}[f'(z)^2] \cdot \text{E}[g^2]$. For large $n$ each
# expectation E is close to the mean over the layer's numbers. So a layer multiplies the root mean
# square (RMS) of the gradient by
#
# $$\text{gain} \cdot \sqrt{\text{E}\left[f'(z)^2\right]}$$
#
# Several layers multiply it by the product of these factors. With ReLU all factors are equal.
# Otherwise they differ from layer to layer, as $z$ does.
#
# - The **sigmoid**'s derivative is at most 1/4. With gain 1, the 19 sigmoids between 20 layers
#   leave less than $4^{-19} = 4 \cdot 10^{-12}$ of the gradient. This is the **vanishing gradient**
#   (Hochreiter 1991, Bengio et al. 1994).
# - **ReLU**'s derivative is 1 for half of its inputs and 0 for the rest, a mean square of 1/2. With
#   gain $\sqrt 2$ the factor is $\sqrt 2 \cdot \sqrt{1/2} = 1$ at any depth. LLM03+ derives the
#   same gain for the forward pass.
# - **tanh** with gain 1: let $z$ be normal, as in a wide layer, and $q = \text{E}[z^2]$ small. With
#   $\tanh z \approx z - z^3/3$ and $\text{E}[z^4] = 3q^2$, the numbers shrink by $\sqrt{1 - 2q}$ in
#   each layer forward. As the derivative is about $1 - z^2$, the gradient shrinks by the same
#   factor in each layer backward. The input has the factors of all earlier layers, and the gradient
#   those of all later ones. So their product, the gradient of the weights, is nearly the same in
#   every layer. In our first layers $q$ isn't small, as it begins at 1. There the factors differ
#   somewhat, so the first layers' gradient is a little larger.
#
# **How large is the gradient of a weight?** It is a sum over our 64 examples, of the weight's input
# times the gradient that arrives. With ReLU and gain $\sqrt 2$ both have an RMS of about 1 in each
# layer: the inputs and the gradients that we send into the logits are standard normal, and no layer
# changes their size. The signs are random, so the sum has an RMS of $\sqrt{64} = 8$. In networks of
# finite width it scatters around that (Hanin & Nica 2020). With gain 1 each layer multiplies by
# $1/\sqrt 2$. Of 20 layers, those before layer $i$ shrink its input, those after it its gradient:
# 19 layers for every $i$. So each weight's gradient has an RMS of $8 \cdot 2^{-9.5} = 0.011$.


# %% Gradients by layer
def gradients_by_layer(activation: str, depth: int, width: int) -> list[float]:
    """Return the RMS of each layer's weight gradient, untrained, for 64 random examples."""
    model = MLP(*[width] * (depth + 1), activation=activation)
    logits: Any = model(torch.randn(64, width))
    (logits * torch.randn(64, width)).sum().backward()
    return [weight.grad.square().mean().sqrt().item() for weight in model.weights]


# %% [markdown]
# **The differences vanish, too.** The **relative spread** of a layer is the standard deviation of
# its numbers over the examples, divided by their RMS. With the RMS 0.5 and the deviation 0.005 it
# is 0.01. A *small* difference between two examples passes forward through the same matrices and
# derivatives, so it shrinks by the same factors: one more sigmoid leaves about a quarter of 0.005
# at most, while the RMS stays near 0.5. After 19 sigmoids all examples look alike to the last
# layer.
#
# So a deep stack of sigmoids has two problems. The first layers get hardly any gradient. The last
# layer gets nearly the same input for every image. To see the second problem alone, train only the
# last layer: no sigmoid lies between it and the loss. The experiment ends with such trainings, of
# ten layers of width 64 on digits. If the last layer alone fails as well, the experiment can't show
# which of the two problems stops the training of all layers.
#
# With tanh of gain 1 the relative spread hardly changes. Our examples are unrelated, and tanh is
# odd, so they don't get more alike. Sigmoid and ReLU return no negative numbers, which gives all
# examples a common part, so the relative spread falls. With ReLU the gain plays no part in it: a
# gain scales all numbers alike. ReLU multiplies each number by its slope, 0 or 1. A small
# difference between two examples meets the same slopes, so relative to the numbers it stays as
# large. A large difference shrinks: where ReLU is 0 for one of two examples, a part of it is lost.
# Two unrelated examples keep 0.68 of their squared difference in a layer, similar ones nearly all
# of it. So the spread falls ever more slowly; LLM03+ computes how fast.
#
# **Try a cure for the sigmoid**: subtract $\frac{1}{2}$, and use the gain 4, in the first layer 2.
# As $\sigma(z) - \frac{1}{2} = \frac{1}{2} \tanh\frac{z}{2}$, layers return half of what tanh does.
# Add `"shifted": lambda z: z.sigmoid() + TensorValue(-0.5)` to the lesson's `ACTIVATIONS`. `MLP`
# gives it gain 1, so in a copy of `gradients_by_layer` multiply the first `weight.data` by 2 and
# the others by 4. Call the copy with `"shifted", 20, 256`, and `gradients_by_layer` with tanh. The
# first layer's gradient should be about that of tanh, and all others half of it.


# %% Spreads by layer
def spreads_by_layer(activation: str, depth: int, width: int) -> list[float]:
    """Return the relative spread of each layer's input, untrained, for 64 random examples."""
    # float64: in float32, rounding would hide spreads below 10⁻⁷.
    model = MLP(*[width] * (depth + 1), activation=activation, dtype=torch.float64)
    y = TensorValue(torch.randn(64, width, dtype=torch.float64))
    spreads = []
    for i, (weight, bias) in enumerate(zip(model.weights, model.biases, strict=True)):
        y = model.activation(y) if i else y
        spread = y.data.var(0).mean() / y.data.square().mean()  # variance over the examples
        spreads.append(spread.sqrt().item())
        y = y @ weight + bias  # (64, width)
    return spreads


@lab.experiment
def sigmoids_stop_gradient_and_spread(run: Run):
    """Untrained sigmoids of gain 1 hardly pass gradient or spread; ReLU of gain √2 passes the
    gradient and, over 20 layers, more than a tenth of the relative spread.

    In theory infinitely wide ReLU layers leave 0.236 of it (LLM03+). We ask for half of that.

    Predict: of ten sigmoid layers only the last is trained. Does it learn to read digits?
    """
    depth = 20
    width = run.pick(tiny=256, small=512, full=1024)
    sizes: dict[str, list[list[float]]] = {"sigmoid": [], "tanh": [], "ReLU": []}
    spreads: dict[str, list[list[float]]] = {name: [] for name in sizes}
    for name in sizes:
        for seed in run.seeds(3):
            torch.manual_seed(seed)
            sizes[name].append(gradients_by_layer(name, depth, width))
            spreads[name].append(spreads_by_layer(name, depth, width))
    derived = {name: derived_gradients(name, depth, width) for name in sizes}
    figures.show(run, "depth", deeper_figures.draw_depth(sizes, derived, spreads))
    check_gradients(run, sizes, derived, width)
    check_spreads(run, spreads)
    right = [median(values) for values in train_deep(run).values()]
    return (
        "After 300 steps at one learning rate, 0.02, ten sigmoid layers read "
        f"{right[0]:.0%} of unseen digits, and with only the last layer trained {right[1]:.0%}. "
        f"With ReLU it is {right[2]:.0%} and {right[3]:.0%}. Other rates weren't tried."
    )


# %% [markdown]
# ## 7. How wide is the range of good learning rates?
# For the loss $c w^2$ a plain step multiplies $w$ by $1 - 2c\eta$. Only $\eta < 1/c$ is stable. The
# **curvature** is the second derivative, $2c$, so the limit is 2 divided by it. A network has many
# directions with different curvatures. For a quadratic loss the steepest direction limits the rate,
# and the flattest ones need a large rate. At the limit the factor is $-1$: each step only changes
# the sign of $w$. Momentum does the same at its limit. A step from $-w$ to $w$ has the velocity
# $-2w/\eta$, the next one $2w/\eta$. Put both into LLM02's $v \leftarrow \mu v + g$ with $g = 2cw$:
# $2w/\eta = -\mu \cdot 2w/\eta + 2cw$, and so $\eta = (1 + \mu)/c$. A steady gradient moves a
# parameter $1/(1 - \mu)$ times as far as without momentum. So a rate for one optimizer says little
# about another.
#
# In a network the curvatures change during training. With all examples in each batch, training
# often hovers at the limit (Cohen et al. 2021). So for a network the limit is only a guide.
#
# We test only the lower end of the range. Far below the limit, a weight moves in proportion to the
# rate and to the sum of its gradients. So eight times as many epochs with an eighth of the rate
# should reach about the same accuracy. After more epochs the best accuracy is higher, too. Then a
# learning rate must reach more to count as near the best, so the factor may be less than 8. Our
# rates are $\sqrt{10} = 3.2$ apart.
#
# The sweep below is finer than that of the lesson. Like that one it trains on 1,237 digits and
# measures on the 200 of the validation set. These 200 digits also choose the best of the eleven
# rates, so its accuracy is a little too high. A learning rate is near the best if its share of
# errors is at most two standard errors above that of the best one. A standard error is
# $\sqrt{(e_1 + e_2)/200}$ as in LLM02, with the shares $e_1$ and $e_2$. Two are 2.8 points if both
# shares are 2 %, and 5.7 points if both are 8 %.


# %% A fine sweep
@lab.experiment
@on_one_thread
def longer_training_makes_smaller_rates_good(run: Run):
    """After eight times as many epochs, smaller learning rates are near the best, too.

    Predict: with eight times as many epochs, by what factor does the range's lower end move?
    """
    rates = [10 ** (i / 2) for i in range(-8, 3)]
    epochs = run.pick(tiny=3, small=5, full=10)
    *sets, _ = digit_sets(run.device)
    by_rate = []
    for rate in run.progress(rates, "learning rates"):
        fits = [fit(run, sets, rate, 8 * epochs, seed) for seed in run.seeds(3)]
        by_rate.append(torch.stack([history[:, 1] for _, history in fits]))
    right = torch.stack(by_rate)  # (rates, seeds, epochs): validation accuracies
    by_epochs = {epochs: right[:, :, epochs - 1], 8 * epochs: right[:, :, -1]}
    near = {n: near_the_best(accuracies) for n, accuracies in by_epochs.items()}
    figures.show(run, "fine_sweep", deeper_figures.draw_fine_sweep(rates, by_epochs, near))
    (first, top), (longer_first, longer_top) = near.values()
    because = "the rates are a factor of √10 apart: the range begins at least one rate lower"
    what = "factors of ten by which the range begins lower"
    lower = (first - longer_first) / 2
    run.measure(what, lower, expect_at_least=0.5, because=because, decides=True)
    short = rates[top] / rates[first]
    long = rates[longer_top] / rates[longer_first]
    return (
        f"After {epochs} epochs the rates from {rates[first]:.2g} to {rates[top]:.2g} are near the "
        f"best, a range of a factor of {short:.0f}. After {8 * epochs} epochs they are "
        f"{rates[longer_first]:.2g} to {rates[longer_top]:.2g}, a factor of {long:.0f}. The lower "
        f"end moves by a factor of {rates[first] / rates[longer_first]:.0f}."
    )


# %% [markdown]
# ## 8. Small updates in short formats
# Training adds many small steps to each weight. Add 0.001 to 1 in bfloat16. Above 1 the spacing is
# $2^{-7} = 0.0078$, so each positive step of less than half of it is lost. Below 1 the spacing is
# half as large, and so is the limit for a negative step. There are three remedies.
#
# - **Master weights**: keep the weights in float32 and compute in bfloat16. Accelerate does this.
#   See Micikevicius et al. 2018.
# - **Stochastic rounding**: round up or down at random, so that the *mean* is right (Gupta et al.
#   2015). A step of 0.13 spacings becomes a full spacing with the probability 0.13, else 0.
# - **Compensated summation**: after each addition, store the excess, which is what was really added
#   minus what should have been. If 0 was added in place of 0.3, it is −0.3. Subtract it from the
#   next step. Kahan's algorithm of 1965 has the sum $s$, a step $x$ and the excess $c$, first 0:
#
# $$y = x - c, \qquad t = s + y, \qquad c \leftarrow (t - s) - y, \qquad s \leftarrow t$$
#
# **An example**: let the spacing be 1. Adding 0.3 to 10 gives $t = 10$, and
# $c = (10 - 10) - 0.3 = -0.3$. The next step adds $0.3 - (-0.3) = 0.6$, so $t = 11$ and
# $c = (11 - 10) - 0.6 = 0.4$. Nothing is lost.
#
# The lab adds numbers alone; it trains no network with weights in bfloat16. If the run's precision
# is bf16, sections 7 and 9 use the first remedy. **Try** `plain_sums(torch.bfloat16, 0.005)[-1]`:
# where does the sum stop, and why there?


# %% Better sums
def kahan_sum(start: Tensor, steps: Tensor) -> Tensor:
    """Add the steps (n,) to start () one after another, with compensation, all in their dtype."""
    total = start
    excess = torch.zeros_like(start)  # what was really added, minus what should have been
    for step in steps:
        corrected = step - excess
        new_total = total + corrected
        excess = (new_total - total) - corrected
        total = new_total
    return total


def stochastic_bfloat16(x: Tensor) -> Tensor:
    """Round float32 to bfloat16, away from 0 with the probability that keeps the mean right."""
    # bfloat16 drops float32's last 16 bits. They are a fraction of a spacing, in units of 2⁻¹⁶.
    # Adding a random 16-bit number carries into the other bits with exactly that probability.
    noise = torch.randint(0, 2**16, x.shape, dtype=torch.int32)
    bits = (x.view(torch.int32) + noise) & ~0xFFFF
    return bits.view(torch.float32).bfloat16()


def stochastic_sums(start: float, step: float, n: int, copies: int) -> Tensor:
    """Return independent sums in bfloat16 with stochastic rounding, by steps, (n + 1, copies)."""
    sums = [torch.full((copies,), start, dtype=torch.bfloat16)]
    for _ in range(n):
        sums.append(stochastic_bfloat16(sums[-1].float() + step))
    return torch.stack(sums).float()


@lab.experiment
def bfloat16_loses_small_updates(run: Run):
    """In bfloat16 many small additions are lost. Kahan's sum saves them, and stochastic rounding
    saves them in the mean of many sums.

    Predict: which is the smallest positive bfloat16 number that changes 1.0 when it is added?
    """
    plain = {name: plain_sums(getattr(torch, name)) for name in ("float32", "bfloat16")}
    steps = torch.full((1000,), 0.001, dtype=torch.bfloat16)
    one = torch.ones((), dtype=torch.bfloat16)
    kahan = [kahan_sum(one, steps[:n]).item() for n in range(0, 1001, 50)]
    sums = stochastic_sums(1.0, 0.001, 1000, 1000)  # (1001, 1000)
    figures.show(run, "small_updates", deeper_figures.draw_sums(plain, kahan, sums))
    because = "0.001 is less than 2⁻⁸, half the spacing above 1"
    end = plain["bfloat16"][-1]
    run.check("sum in bfloat16", end, equals=1.0, because=because, decides=True)
    error = abs(plain["float32"][-1] - 2)
    because = "1,000 roundings by at most 2⁻²⁴, and 0.001 itself is rounded"
    run.check("|float32 − 2|", error, at_most=1001 * 2**-24, because=because)
    check_remedies(run, kahan[-1], sums[-1])
    numbers = torch.arange(1, 127 * 128, dtype=torch.int16).view(torch.bfloat16)  # 0 < x < 1
    moving = numbers[1 + numbers > 1].min().item()
    because = "2⁻⁸ is a tie, and 1.0 wins because its last bit is 0; this is the next number"
    what = "smallest positive number that changes 1.0"
    run.check(what, moving, equals=2**-8 * (1 + 2**-7), because=because)
    return (
        f"The smallest positive number that changes 1.0 is {moving:.6f}, the one after 2⁻⁸. A "
        f"single sum with stochastic rounding strays by {sums[-1].std():.2f}."
    )


# %% [markdown]
# ## 9. Learned by heart
# A network with enough parameters can learn labels that mean nothing (Zhang et al. 2017). Give each
# training image a random label, by a permutation of all labels. By chance about a tenth of the
# labels stay right. No rule connects image and label, so a falling training loss shows memory, not
# insight. Unseen images show the difference: if nothing but memory was learned, the network is
# right on a tenth of them, by chance. We train with three permutations.


# %% Random labels
@lab.experiment
@on_one_thread
def random_labels_are_learned_by_heart(run: Run):
    """With random labels a network learns most of them by heart, and reads about a tenth of unseen
    images, as by chance.

    Predict: which training accuracy does it reach with labels that mean nothing?
    """
    epochs = run.pick(tiny=120, small=200, full=300)
    x, y, *unseen = (tensor.to(run.device) for tensor in digits())
    histories: dict[str, list[Tensor]] = {"true labels": [], "random labels": []}
    for seed in run.progress(run.seeds(3), "seeds"):
        torch.manual_seed(seed)
        shuffled = y[torch.randperm(len(y))]
        for name, labels in (("true labels", y), ("random labels", shuffled)):
            sets = [(x, labels), (unseen[0], unseen[1])]
            _, history = fit(run, sets, 0.1, epochs, seed, hidden=256)
            histories[name].append(history)
    figures.show(run, "random_labels", deeper_figures.draw_labels(histories))
    ends = {name: torch.stack(runs)[:, -1].T.tolist() for name, runs in histories.items()}
    memory, test = ends["random labels"]
    because = "halfway from chance, 0.1, to all labels; there is no rule to learn"
    what = "training accuracy, random labels"
    run.check(what, memory, at_least=0.55, because=because, decides=True)
    off = abs(mean(test) - 0.1)
    because = "five times √(0.1·0.9/360); images of a digit are alike, so the error is larger"
    what = "unseen images, random labels: |mean accuracy − 0.1|"
    bound = 5 * math.sqrt(0.09 / 360)
    run.measure(what, off, expect_at_most=bound, because=because, decides=True)
    run.measure("test accuracy, random labels", test)
    right = ends["true labels"][1]
    because = "the same network can read: halfway from chance to all"
    run.check("test accuracy, true labels", right, at_least=0.55, because=because)
    return (
        f"In the median of three seeds it reaches {median(memory):.0%} on training images and "
        f"{median(test):.0%} on unseen ones."
    )


# %% [markdown]
# ## 10. The layer that was cut off
# Some failures raise no error. A result has lost its graph if it went through `detach`, `.data`,
# `.item()` or `.tolist()`, or if it was computed under `torch.no_grad`. By contrast, `torch.stack`
# of a list of tensors keeps the graph. After a cut by `detach` the loss has the same value, and
# `backward` runs. But a layer gets no gradient if all its paths to the loss are cut. The loss even
# falls, because the layers between the cut and the loss learn to use the random layers' results.
#
# The graph shows the cut. `loss.grad_fn` is the operation that made the loss. Its `next_functions`
# has a pair for each input: the operation that made it, and a number that you can ignore. For an
# input without `requires_grad` the operation is None. A parameter's operation is called
# `AccumulateGrad`: its `.variable` is the parameter. `module.named_parameters()` gives pairs of a
# name and a parameter, in the module's order. A loss without a graph has None as its `grad_fn`. The
# figure shows a walk from the loss.


# %% Find the cut
@lab.exercise(
    level=3,
    hints=(
        "Walk from loss.grad_fn along next_functions, and collect each `variable` in a set: on a "
        "list, `in` compares the tensors' entries.",
        "A result that is used twice is met twice: without a set of visited operations, a graph "
        "of n doublings takes 2ⁿ visits. Store the operations: Python may reuse their ids.",
        "Graphs can be deeper than Python's recursion limit: keep a list of operations to visit.",
    ),
)
def unreached(loss: Tensor, module: nn.Module) -> list[str]:
    """Return the names of the parameters with `requires_grad` that get no gradient from `loss`.

    The names are in the module's order. Graph and gradients stay as they are: `loss.backward()`
    works afterwards.
    """
    reached: set[int] = set()
    visited: set[Any] = {None}
    unvisited: list[Any] = [loss.grad_fn]
    while unvisited:
        operation = unvisited.pop()
        if operation not in visited:
            visited.add(operation)
            reached.add(id(getattr(operation, "variable", None)))
            unvisited += [source for source, _ in operation.next_functions]
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and id(parameter) not in reached
    ]


CUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "intact": lambda z: z,
    "z.detach()": lambda z: z.detach(),
    "z.new_tensor(z.tolist())": lambda z: z.new_tensor(z.tolist()),
    "clamp under no_grad": torch.no_grad()(lambda z: z.clamp(-9, 9)),  # used as a decorator
}


@lab.experiment
def a_cut_off_layer_raises_no_error(run: Run):
    """Cutting layers off raises no error, and the loss still falls; the graph names the layers.

    Predict: two of three layers stay random. How many of ten unseen digits does the network read?
    """
    figures.show(run, "cut", cut_figure.draw_cut(*cut_network.intact_and_cut()))
    cut_network.check_names(run, unreached, CUTS)
    labels = digits()[1]
    steps = run.pick(tiny=440, small=880, full=2200)
    rows = []
    for name in ("intact", "z.detach()"):
        for seed in run.seeds(3):
            torch.manual_seed(seed)
            model = cut_network.three_layers(CUTS[name])
            batches = batches_of(64, len(labels), steps)
            rows.append([name, seed, *cut_network.train_plainly(model, batches)])
    run.table("Trained alike", ["", "seed", "first loss", "mean of last 20", "test accuracy"], rows)
    ends = [last for name, _, _, last, _ in rows if name == "z.detach()"]
    because = "ln 10 is the loss of even guessing"
    what = "cut off: mean of the last 20 losses"
    run.check(what, ends, at_most=math.log(10), because=because, decides=True)
    falls = [first - last for name, _, first, last, _ in rows if name == "z.detach()"]
    because = "untrained, a loss has a std of at most about 1 a digit, 1/8 for 64; five of these"
    what = "cut off: first loss minus mean of the last 20"
    run.check(what, falls, at_least=5 / 8, because=because, decides=True)
    intact = mean(right for name, *_, right in rows if name == "intact")
    cut = mean(right for name, *_, right in rows if name == "z.detach()")
    run.measure("test accuracy that the cut costs", intact - cut)
    return f"With two random layers it reads {cut:.0%} of unseen digits, intact {intact:.0%}."


# %% [markdown]
# If all parameters require a gradient and the loss has a graph, one line of PyTorch does the same:
# `torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)`. It returns None for
# each parameter that the loss doesn't reach, and changes no `.grad`. For a frozen parameter or a
# loss without a graph it raises an error. The lab compared `unreached` with it.

# %% [markdown]
# ## What to remember
# - A central difference of $e^x$ has at best about two thirds of a float's digits. Backward has no
#   step to choose. On random graphs the gradients of two engines differed by less than 10⁻¹⁰.
# - Subtract the maximum before a softmax. Keep weights in float32, or use compensated sums or
#   stochastic rounding.
# - Sigmoids in a row, with gain 1, let hardly any gradient or relative spread through. ReLU with
#   gain $\sqrt 2$ passes the gradient and, with any gain, a part of the relative spread.
# - Near an accuracy of 1 compare errors. Compare two methods on the same examples one by one: the
#   standard error is smaller if both miss the same ones.
# - A falling loss shows that the network fits something. It may not be what you meant, a gradient
#   may be wrong, and a layer may take no part.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Sum up in the numbers of this run."""
    memory = "random_labels_are_learned_by_heart"
    training = results.value(memory, "training accuracy, random labels")
    test = results.value(memory, "test accuracy, random labels")
    cut = "a_cut_off_layer_raises_no_error"
    fallen = max(results.values(cut, "cut off: mean of the last 20 losses"))
    return (
        f"With random labels the network reached {training:.0%} on its training images and "
        f"{test:.0%} on unseen ones. A network with two of three layers cut off still "
        f"reached a loss of {fallen:.2f} or lower."
    )


# %% [markdown]
# **Read on**: Goldberg 1991, *What every computer scientist should know about floating-point
# arithmetic* · Higham 2002, *Accuracy and Stability of Numerical Algorithms* · Glorot & Bengio 2010
# on depth · Zhang et al. 2017, *Understanding deep learning requires rethinking generalization*.

# %%
if __name__ == "__main__":
    lab.main()
