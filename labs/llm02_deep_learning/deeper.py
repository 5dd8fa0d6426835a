# %% [markdown]
# # LLM02+ · Deep learning basics, deeper
# What rounding, depth and the learning rate do to a training, and failures that raise no error.
#
# **You will be able to** choose the step of a finite difference; keep softmax finite; test an
# autograd engine on random graphs; judge whether a task needs an activation; say how depth shrinks
# gradients and signals; find a range of learning rates; add small numbers in bfloat16; separate
# memorising from learning; find a layer that is cut off from the loss. **Builds on** LLM02, whose
# engine, training loop and digits it uses. Nothing here is chosen by the test digits. Except in
# section 7 the validation digits are part of the training set. **Takes** an hour to read. At `tiny`
# it takes about 50 seconds of processor time.

# %% Imports
import math
import random
from collections import Counter
from collections.abc import Callable
from functools import partialmethod
from itertools import accumulate
from statistics import mean, median
from typing import Any
from unittest.mock import patch

from labs.kit import Lab, Results, Run, on_one_thread
from labs.llm02_deep_learning import compare, deeper_figures, figures
from labs.llm02_deep_learning.data import accuracy, batches_of, digit_sets, digits, unbroken
from labs.llm02_deep_learning.lesson import (
    MLP,
    OPERATIONS,
    Momentum,
    TensorValue,
    Value,
    fit,
    train,
)
from labs.llm02_deep_learning.random_graphs import STEPS, random_graph, run_steps, total

import torch
import torch.nn.functional as F
from torch import Tensor, nn

lab = Lab("LLM02+")

# %% [markdown]
# ## 1. Floating-point numbers
# A floating-point number is $\pm 1.b_1 b_2 \ldots \cdot 2^e$. A format stores some bits for the
# exponent $e$ and $p - 1$ bits after the point. With the leading 1 these are $p$ **significant
# bits**. Between $2^e$ and $2^{e+1}$ the numbers are $2^{e-p+1}$ apart. The spacing above 1 is the
# **machine epsilon** $\varepsilon = 2^{1-p}$. Sums, products, quotients and square roots are
# rounded to the nearest number, so they are wrong by at most half a spacing. Other functions, such
# as $e^x$, are about as exact. In a tie, IEEE 754 takes the number whose last bit is 0.
#
# float64 has $p = 53$ and float32 $p = 24$. float16 has $p = 11$ and ends at 65,504. bfloat16 has
# the range of float32 but only $p = 8$.
#
# ## 2. Slopes by trying
# The plainest way to a derivative is the **central difference**:
#
# $$f'(x) \approx \frac{f(x + h) - f(x - h)}{2h}$$
#
# Which step $h$ is best? Two errors compete.
#
# - The curve bends. By Taylor's formula the error is about $h^2 |f'''| / 6$, so small steps are
#   better.
# - Each value of $f$ is rounded, by about $\varepsilon |f| / 2$ at most. Their difference is wrong
#   by at most $\varepsilon |f|$, and division by $2h$ makes it $\varepsilon |f| / (2h)$. Large
#   steps are better.
#
# The sum of both is smallest where its derivative by $h$ is 0:
#
# $$h^* = \left(\frac{3 \varepsilon |f|}{2 |f'''|}\right)^{1/3}$$
#
# For $e^x$, where $f''' = f$, this is $6.9 \cdot 10^{-6}$ in float64. About ten of sixteen digits
# are then right, and no other step gives many more. This counts the worst rounding. The median
# rounding error that we measure is smaller, $r$ times the worst with $r$ about 0.2. Then the best
# step is $r^{1/3} h^*$, about $0.6\, h^*$, and its error $r^{2/3} h^{*2}/2$. At $32 h^*$ the bend
# makes $1024\, h^{*2}/6$, which is $341\, r^{-2/3}$ times as much. At $h^*/32$ rounding makes
# $32\, r h^{*2}/3$, which is $21\, r^{1/3}$ times as much.
#
# A gradient of a million parameters would take two million losses. Backward finds all of it, exact
# but for rounding, at the cost of a few losses (Baur & Strassen 1983).


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
        theory = best_step(dtype)
        measured[name] = (steps, errors, theory)
        best[name] = steps[int(errors.argmin())].item()
        because = (
            "r^(1/3), and steps are powers of 2; r is about 0.2, and a fifth or five times that is "
            "allowed"
        )
        ratio = best[name] / theory
        what = f"{name}: best step ÷ h*"
        run.check(what, ratio, at_least=0.24, at_most=1.42, because=because, decides=True)
        nearest = round(-math.log2(theory))
        sides = (("32 h*", -5, "341·r^(−2/3)", 150), ("h*/32", 5, "21·r^(1/3)", 5))
        for side, shift, gain, least in sides:
            worse = (errors[nearest + shift] / errors.min()).item()
            because = f"theory: {gain}, with r as above and steps within a factor of √2"
            what = f"{name}: error at {side} ÷ smallest error"
            run.check(what, worse, at_least=least, because=because, decides=True)
    figures.show(run, "best_step", deeper_figures.draw_steps(measured))
    factor = best["float32"] / best["float64"]
    return (
        f"The best step is {best['float64']:.1e} in float64 and {factor:,.0f} times it in float32."
    )


# %% [markdown]
# ## 3. A softmax that stays finite
# $e^{1000}$ is too large for float64 and shorter formats, and $e^{-1000}$ is 0. So a softmax that
# computes $e^x$ first can return infinity divided by infinity, which is NaN, "not a number". And
# where $p$ is too small for a float, it takes the logarithm of 0. Two facts help:
#
# $$\ln \frac{e^{x_i}}{\sum_j e^{x_j}} = x_i - \ln \sum_j e^{x_j}$$
#
# and the softmax doesn't change when the same number is subtracted from all logits of a row.


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
        "float32, and a p below 10⁻⁴⁵ becomes 0."
    )


# %% [markdown]
# ## 4. Random graphs
# One way to test an engine is to let it differentiate formulas that nobody chose. A random graph
# here has four leaves, from single numbers to tensors of shape `(2, 3, 4)`, some of whose axes are
# broadcast. Twelve steps follow, each on two values that exist already. All values are added to one
# number.
#
# For these graphs we give the engine seven more operations. Each needs its forward function and its
# VJP, and nothing else: `backward` stays as it is.


# %% More operations
OPERATIONS.update(
    {
        "sub": (torch.sub, lambda g, _y, _a, _b: (g, -g)),
        "div": (torch.div, lambda g, y, _a, b: (g / b, -g * y / b)),
        "pow": (torch.pow, lambda g, _y, a, exponent: (g * exponent * a ** (exponent - 1),)),
        "exp": (torch.exp, lambda g, y, _a: (g * y,)),
        "log": (torch.log, lambda g, _y, a: (g / a,)),
        "reshape": (torch.reshape, lambda g, _y, a, **_shape: (g.reshape(a.shape),)),
        "transpose": (lambda a: a.mT, lambda g, _y, _a: (g.mT,)),
    }
)
METHODS: dict[str, Any] = {
    "__sub__": partialmethod(TensorValue.apply, "sub"),
    "__truediv__": partialmethod(TensorValue.apply, "div"),
    "__pow__": lambda a, exponent: a.apply("pow", exponent=exponent),
    "exp": partialmethod(TensorValue.apply, "exp"),
    "log": partialmethod(TensorValue.apply, "log"),
    "reshape": lambda a, shape: a.apply("reshape", shape=shape),
    "mT": property(lambda a: a.apply("transpose")),
}
for _name, _method in METHODS.items():
    setattr(TensorValue, _name, _method)  # as if it stood in the class


@lab.experiment
def random_graphs_equal_pytorchs(run: Run):
    """Our engine's gradients equal PyTorch's on random graphs of all its operations."""
    chance = random.Random(run.seed)
    errors = []
    sizes = []
    largest = 0.0
    used: Counter[str] = Counter()
    for _ in run.progress(range(200), "graphs"):
        shapes, steps = random_graph(chance)
        tensors: list[Any] = [
            torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes
        ]
        values = [TensorValue(x.detach()) for x in tensors]
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
    because = "far above the difference that is allowed: zeros would always agree"
    run.check("median gradient", median(sizes), at_least=0.1, because=because)
    because = f"2,400 steps of {len(STEPS)} kinds make 160 ± 12 of each"
    fewest = min(used[name] for name in STEPS)
    run.check("fewest uses of a step", fewest, at_least=100, because=because)


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


def doublings(n: int) -> list[Value]:
    """Return x and n values, each of which is the one before it added to itself."""
    values = [Value(1.0)]
    for _ in range(n):
        values.append(values[-1] + values[-1])
    return values


def count_calls(values: list[Value]) -> int:
    """Return how many rules of results `backward` calls from the last value."""
    calls = 0

    def counted(rule: Callable) -> Callable:
        def grad_fn(g: Any) -> Any:
            nonlocal calls
            calls += 1
            return rule(g)

        return grad_fn

    for value in values[1:]:
        value.grad_fn = counted(value.grad_fn)
    values[-1].backward()
    return calls


@lab.experiment
def each_rule_is_called_once(run: Run):
    """`backward` calls each rule of a chain of doublings once; a walk along each path calls 2ⁿ − 1.

    Predict: you make the chain twice as long. What happens to the number of calls in both ways?
    """
    rows = []
    for n in (4, 8, 12, 16):
        walked = doublings(n)
        paths = walk_paths(walked[-1])
        ordered = doublings(n)
        calls = count_calls(ordered)
        rows.append([n, paths, calls, walked[0].grad - ordered[0].grad])
    run.table("Calls of rules", ["n", "path by path", "in order", "gradients' difference"], rows)
    extra = max(abs(calls - n) for n, _, calls, _ in rows)
    run.check("calls in order minus n", extra, equals=0, because="once each", decides=True)
    extra = max(abs(paths - 2**n + 1) for n, paths, _, _ in rows)
    because = "1 + 2 + 4 + … + 2ⁿ⁻¹"
    run.check("calls path by path minus (2ⁿ − 1)", extra, equals=0, because=because, decides=True)
    wrong = max(abs(difference) for *_, difference in rows)
    run.check("gradients' difference", wrong, equals=0.0, because="powers of two are exact")
    _, (_, walk, calls, _), _, (_, longer_walk, more_calls, _) = rows
    return (
        f"From 8 to 16 doublings the walk goes from {walk} to {longer_walk:,} calls, and the order "
        f"from {calls} to {more_calls}."
    )


# %% [markdown]
# ## 5. What success on digits does not show
# On LLM02's spirals a network needs an activation. Many courses show networks on digits, and so did
# our lesson. How much worse is a network without activations there? Both networks read the same 360
# digits, so compare them digit by digit, as LLM01 compared prompts: 1 if only ReLU is right, −1 if
# only the other one is, else 0. Most digits make 0. So the mean of these numbers has a smaller
# standard error than the difference of two accuracies on separate digits.


# %% Digits without an activation
def reads_digits(
    seed: int, steps: int, lr: float, activation: str, *widths: int, last_only: bool = False
) -> Tensor:
    """Train an MLP of our engine, or its last layer; return 1 for each test digit read, (360,)."""
    x, y, x_test, y_test = digits()
    torch.manual_seed(seed)
    model = MLP(*widths, activation=activation)
    trained = [model.weights[-1], model.biases[-1]] if last_only else model.parameters()
    train(model, Momentum(trained, lr), x, y, batches_of(64, len(y), steps))
    return (model(x_test).data.argmax(-1) == y_test).float()


@lab.experiment
def digits_show_little_of_an_activation(run: Run):
    """On our digits, ReLU's lead over no activation is under a tenth of its lead on the spirals.

    Predict: of 360 unseen digits, how many more does ReLU read?
    """
    steps = run.pick(tiny=300, small=1000, full=3000)
    right = {}
    for name in ("ReLU", "tanh", "identity"):
        seeds = run.progress(run.seeds(3), f"{name}, seeds")
        read = [reads_digits(seed, steps, 0.05, name, 64, 64, 64, 10) for seed in seeds]
        right[name] = torch.stack(read)  # (seeds, 360)
        run.measure(f"test accuracy, {name}", right[name].mean(1).tolist())
    differences = (right["ReLU"] - right["identity"]).mean(0)  # (360,): means over the seeds
    lead = differences.mean().item()
    error = differences.std().item() / math.sqrt(360)
    because = "a tenth of 0.35, about what ReLU leads the best line by on LLM02's spirals"
    run.measure("|ReLU's lead|", abs(lead), expect_at_most=0.035, because=because, decides=True)
    run.measure("standard error of the lead", error)
    each = [right[name].mean(0).var().item() for name in ("ReLU", "identity")]
    separate = math.sqrt(sum(each) / 360)
    return (
        f"ReLU's lead is {360 * lead:+.1f} of 360 digits, with a standard error of "
        f"{360 * error:.1f}. On separate digits it would be {360 * separate:.1f}."
    )


# %% [markdown]
# Does a network that reads digits have right gradients? Let relu's rule send all of $g$ back, also
# where relu was 0. Then the steps no longer follow the gradient.


# %% A wrong rule
@lab.experiment
def a_wrong_rule_trains_too(run: Run):
    """With a wrong rule for relu a network learns to read digits; the comparison finds the mistake.

    Predict: how many of 360 unseen digits does the wrong rule cost?
    """
    steps = run.pick(tiny=300, small=1000, full=3000)

    def trained() -> list[float]:
        read = [reads_digits(seed, steps, 0.05, "ReLU", 64, 64, 64, 10) for seed in run.seeds(3)]
        return torch.stack(read).mean(1).tolist()

    right = trained()
    with patch.dict(OPERATIONS, relu=(torch.relu, lambda g, _y, _a: (g,))):
        wrong = trained()
        x = torch.randn(4, 5, dtype=torch.float64)
        [(ours, theirs)] = compare.gradients(TensorValue, lambda a: a.relu(), x)
    run.measure("test accuracy, right rule", right)
    because = "half of the digits; guessing reads a tenth"
    run.check("test accuracy, wrong rule", wrong, at_least=0.5, because=because, decides=True)
    because = "where x < 0 the rule sends g, which is at least 0.5 here, instead of 0"
    off = (ours - theirs).abs().max()
    run.check("difference from PyTorch", off, at_least=0.5, because=because, decides=True)
    return (
        f"The wrong rule costs {360 * (mean(right) - mean(wrong)):.1f} of 360 digits. Its gradient "
        f"differs from PyTorch's by up to {off:.2f}."
    )


# %% [markdown]
# ## 6. Depth
# On its way back the gradient is multiplied in each layer by the activation's derivative and by
# $W^\top$. Let the entries of $W$ be independent with the variance $\text{gain}^2 / n$, for layers
# of width $n$. Let $n$ be large, and the derivatives independent of the gradient that arrives.
# Then a layer multiplies the root mean square (RMS) of the gradient by
#
# $$\text{gain} \cdot \sqrt{\text{E}\left[f'(z)^2\right]}$$
#
# and $L$ layers by that factor to the power $L$.
#
# For the gradient at one input is a sum of $n$ products $w_j f'(z_j) g_j$. The weights are random
# with variance $\text{gain}^2/n$, so the products are uncorrelated and their mean squares add:
# $n \cdot \frac{\text{gain}^2}{n} \cdot \text{E}[f'(z)^2] \cdot \text{E}[g^2]$.
#
# - The **sigmoid**'s derivative is at most 1/4. With gain 1, the 19 sigmoids between 20 layers
#   leave less than $4^{-19} = 4 \cdot 10^{-12}$. This is the **vanishing gradient** (Hochreiter
#   1991, Bengio et al. 1994).
# - **ReLU**'s derivative is 1 for half of its inputs and 0 for the rest, a mean square of 1/2. A
#   gain of $\sqrt 2$ makes the factor 1 at any depth. LLM03+ derives this gain for the forward
#   pass. For one input of a random network, the logarithm of the squared gradient varies by about
#   $\sqrt{5L/n}$ (Hanin & Nica 2020). A mean over many inputs varies less.
# - **tanh** with gain 1: with $q = \text{E}[z^2]$ small, $\tanh z \approx z - z^3/3$ shrinks the
#   signal by $\sqrt{1 - 2q}$ in a layer, and its derivative $1 - z^2$ shrinks the gradient by the
#   same. A weight's gradient is the product of both, and stays nearly even over the layers.
#
# **The signal vanishes, too.** A small difference between two inputs passes forward through the
# same matrices and derivatives, so it shrinks by the same factors. After 19 sigmoids all inputs
# look alike to the last layer. So two causes act together: hardly any gradient for the first
# layers, and hardly any signal for the last. To see the second alone, train only the last layer:
# its gradient doesn't pass through any sigmoid. ReLU loses a part of the signal, too: each layer
# makes the outputs for two inputs more alike. `relu_spread` follows the correlation $c$ of two
# inputs through the layers, by a formula that LLM03+ explains; 0.24 of the spread is left.


# %% Depth
def gradients_by_layer(activation: str, depth: int, width: int) -> list[float]:
    """Return the RMS of each layer's weight gradient, untrained, for 64 random inputs."""
    model = MLP(*[width] * (depth + 1), activation=activation)
    logits: Any = model(torch.randn(64, width))
    (logits * torch.randn(64, width)).sum().backward()
    return [weight.grad.square().mean().sqrt().item() for weight in model.weights]


def spreads_by_layer(activation: str, depth: int, width: int) -> list[float]:
    """Return how much each layer's input differs between 64 random inputs, relative to its size."""
    model = MLP(*[width] * (depth + 1), activation=activation, dtype=torch.float64)
    y = TensorValue(torch.randn(64, width, dtype=torch.float64))
    spreads = []
    for i, (weight, bias) in enumerate(zip(model.weights, model.biases, strict=True)):
        y = model.activation(y) if i else y
        spread = y.data.var(0).mean() / y.data.square().mean()  # variance over the inputs
        spreads.append(spread.sqrt().item())
        y = y @ weight + bias  # (64, width)
    return spreads


def relu_spread(layers: int) -> float:
    """Return the theory of `spreads_by_layer` after this many wide layers of ReLU (LLM03+)."""
    c = 0.0  # random inputs are orthogonal
    for _ in range(layers):
        c = (math.sqrt(1 - c**2) + c * (math.pi - math.acos(c))) / math.pi
    return math.sqrt(1 - c)


def train_deep(run: Run) -> dict[str, list[float]]:
    """Return the test accuracies of ten layers after 300 steps, by activation and trained part."""
    widths = [64] * 10 + [10]
    right: dict[str, list[float]] = {}
    for name in ("sigmoid", "ReLU"):
        for part in ("all layers", "the last layer alone"):
            last = part != "all layers"
            key = f"ten layers of {name}, {part} trained"
            right[key] = [
                reads_digits(seed, 300, 0.02, name, *widths, last_only=last).mean().item()
                for seed in run.seeds(3)
            ]
            run.measure(f"{key}: test accuracy", right[key])
    return right


@lab.experiment
def sigmoids_stop_gradient_and_signal(run: Run):
    """Untrained sigmoids of gain 1 hardly pass gradient or signal; ReLU of gain √2 passes both.

    The bounds come from theory: the largest derivative of the sigmoid, and for ReLU the random
    spread of a network of this width.

    Predict: the last of ten sigmoid layers has a full gradient. Does it learn to read digits alone?
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
    figures.show(run, "depth", deeper_figures.draw_depth(sizes, spreads))
    back = {name: [g[0] / g[-1] for g in by_seed] for name, by_seed in sizes.items()}
    because = "4⁻¹⁹; the last layer's input is at least half the size of the first one's"
    ratios = back["sigmoid"]
    what = "sigmoid: gradient, first layer ÷ last layer"
    run.check(what, ratios, at_most=2 * 4**-19, because=because, decides=True)
    off = [abs(math.log(ratio)) for ratio in back["ReLU"]]
    bound = 5 * math.sqrt(5 * depth / width) / 2
    because = "near 0; one input's gradient has a standard deviation of √(5L/n)/2; five of these"
    what = "ReLU: |ln(gradient, first layer ÷ last layer)|"
    run.check(what, off, at_most=bound, because=because, decides=True)
    run.measure("tanh: gradient, first layer ÷ last layer", back["tanh"])
    ends = {name: [spread[-1] for spread in by_seed] for name, by_seed in spreads.items()}
    because = "4⁻¹⁹; its size is at least half that of the first layer's input"
    what = "sigmoid: relative spread of the last layer's input"
    run.check(what, ends["sigmoid"], at_most=2 * 4**-19, because=because, decides=True)
    wide = relu_spread(depth - 1)
    because = f"half of {wide:.2f}, that of infinitely wide layers; narrower ones scatter"
    what = "ReLU: relative spread of the last layer's input"
    run.measure(what, ends["ReLU"], expect_at_least=wide / 2, because=because, decides=True)
    right = [median(values) for values in train_deep(run).values()]
    return (
        f"After 300 steps ten sigmoid layers read {right[0]:.0%} of unseen digits, and with only "
        f"the last layer trained {right[1]:.0%}. With ReLU it is {right[2]:.0%} and {right[3]:.0%}."
    )


# %% [markdown]
# ## 7. How wide is the range of good learning rates?
# For the loss $c w^2$ a plain step multiplies $w$ by $1 - 2c\eta$. Only $\eta < 1/c$ is stable. A
# network has many directions with different curvatures $c$. The steepest one limits the rate, and
# the flattest ones need a large rate. With momentum $\mu$ the limit is $(1 + \mu)/c$, and a steady
# gradient moves a parameter $1/(1 - \mu)$ times as far. So a rate for one optimizer says little
# about another. Below the limit a small rate is only slow, so more epochs should make up for it.
# The sweep below is finer than that of the lesson. Like that one it trains on 1,237 digits and
# measures on the 200 of the validation set.


# %% A fine sweep
def near_the_best(right: Tensor) -> tuple[int, int]:
    """Return the first and last rate that are near the best, from accuracies (rates, seeds).

    Near is within two standard errors, where a paired difference of two accuracies on 200 images
    has at most the variance (e₁ + e₂)/200.
    """
    errors = 1 - right.mean(1)
    best = int(errors.argmin())
    near = errors - errors[best] <= 2 * ((errors + errors[best]) / 200).sqrt()
    return unbroken(near.tolist(), best)


@lab.experiment
@on_one_thread
def longer_training_makes_smaller_rates_good(run: Run):
    """After eight times as many epochs, smaller learning rates are near the best, too.

    Predict: how many times as large as the smallest good rate is the largest one?
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
        f"After {epochs} epochs {rates[first]:.2g} to {rates[top]:.2g} are near the best, a factor "
        f"of {short:.0f}. After {8 * epochs} these are {rates[longer_first]:.2g} to "
        f"{rates[longer_top]:.2g}, a factor of {long:.0f}."
    )


# %% [markdown]
# ## 8. Small updates in short formats
# Training adds many small steps to each weight. Add 0.001 to 1 in bfloat16. Above 1 the spacing is
# $2^{-7} = 0.0078$, so each addition of less than half of it is lost. There are three remedies.
#
# - **Master weights**: keep the weights in float32 and compute in bfloat16. Accelerate does this.
#   See Micikevicius et al. 2018.
# - **Compensated summation**: keep what an addition lost, and add it to the next one. Kahan's
#   algorithm of 1965 has the sum $s$, a step $x$ and the compensation $c$, which starts at 0:
#
# $$y = x - c, \qquad t = s + y, \qquad c \leftarrow (t - s) - y, \qquad s \leftarrow t$$
#
# - **Stochastic rounding**: round up or down at random, so that the *mean* is right (Gupta et al.
#   2015). To 0.13 of a spacing it adds a full spacing with the probability 0.13.
#
# An example for Kahan: let the spacing be 1. Adding 0.3 to 10 gives $t = 10$, and
# $c = (10 - 10) - 0.3 = -0.3$. The next step adds $0.3 - (-0.3) = 0.6$, so $t = 11$ and
# $c = (11 - 10) - 0.6 = 0.4$. Nothing is lost.


# %% Kahan and stochastic rounding
@lab.exercise(
    level=2,
    hints=(
        "Keep two tensors: the sum, and the compensation c, which starts at 0.",
        "y = step − c is the step with what was lost before. Then t = total + y is rounded.",
        "c = (t − total) − y, with these brackets: t − total is what really was added.",
    ),
)
def kahan_sum(start: Tensor, steps: Tensor) -> Tensor:
    """Add the steps (n,) to start () one after another, with compensation, all in their dtype."""
    total = start
    lost = torch.zeros_like(start)
    for step in steps:
        corrected = step - lost
        new_total = total + corrected
        lost = (new_total - total) - corrected
        total = new_total
    return total


def stochastic_bfloat16(x: Tensor) -> Tensor:
    """Round float32 to bfloat16, up with a probability equal to the distance from below."""
    noise = torch.randint(0, 2**16, x.shape, dtype=torch.int32)  # bfloat16 drops the last 16 bits
    bits = (x.view(torch.int32) + noise) & ~0xFFFF
    return bits.view(torch.float32).bfloat16()


def stochastic_sums(start: float, step: float, n: int, copies: int) -> Tensor:
    """Return `copies` independent sums in bfloat16 with stochastic rounding, (copies,)."""
    total = torch.full((copies,), start, dtype=torch.bfloat16)
    for _ in range(n):
        total = stochastic_bfloat16(total.float() + step)
    return total.float()


@lab.experiment
def bfloat16_loses_small_updates(run: Run):
    """In bfloat16 many small additions are lost; Kahan's sum and stochastic rounding keep them.

    Predict: which bfloat16 number is the smallest that changes 1.0 when it is added?
    """
    formats = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn)
    infos = [torch.finfo(dtype) for dtype in formats]
    rows = [[i.dtype, 1 - int(math.log2(i.eps)), i.eps, f"{i.max:.3g}", i.tiny] for i in infos]
    run.table("Formats", ["", "p", "ε", "largest", "smallest with all p bits"], rows)
    paths = {}
    for dtype in (torch.float32, torch.bfloat16):
        steps = torch.full((1000,), 0.001, dtype=dtype)
        sums = accumulate(steps, initial=torch.ones((), dtype=dtype))
        paths[str(dtype).removeprefix("torch.")] = [x.item() for x in sums]
    ends = {name: path[-1] for name, path in paths.items()}
    steps = torch.full((1000,), 0.001, dtype=torch.bfloat16)
    one = torch.ones((), dtype=torch.bfloat16)
    path = [kahan_sum(one, steps[:n]).item() for n in range(0, 1001, 50)]
    sums = stochastic_sums(1.0, 0.001, 1000, 1000)
    figures.show(run, "small_updates", deeper_figures.draw_sums(paths, path, sums))
    because = "0.001 is less than 2⁻⁸, half the spacing above 1"
    run.check("sum in bfloat16", ends["bfloat16"], equals=1.0, because=because, decides=True)
    error = abs(ends["float32"] - 2)
    because = "1,000 roundings by at most 2⁻²⁴, and 0.001 itself is rounded"
    run.check("|float32 − 2|", error, at_most=1001 * 2**-24, because=because)
    error = abs(path[-1] - 2)
    because = (
        "2u·Σ|x| = 0.016 and a term of the size n·u²·Σ|x| = 0.03, u = 2⁻⁸ (Higham 2002, § 4.3)"
    )
    bound = (2 * 2**-8 + 1000 * 2**-16) * 2
    run.check("|bfloat16 with Kahan − 2|", error, at_most=bound, because=because, decides=True)
    off = abs(sums.mean().item() - 2)
    share = 0.001 * 2**6  # of the spacing above 2, the largest here
    deviation = math.sqrt(1000 * share * (1 - share)) * 2**-6  # of one sum
    bound = 5 * deviation / math.sqrt(len(sums))
    because = "five standard errors, from theory with the spacing above 2: 0.12/√1000 each"
    what = "|mean with stochastic rounding − 2|"
    run.check(what, off, at_most=bound, because=because, decides=True)
    run.measure("standard deviation of one stochastic sum", sums.std())
    numbers = torch.arange(1, 127 * 128, dtype=torch.int16).view(torch.bfloat16)  # 0 < x < 1
    moving = numbers[1 + numbers > 1].min().item()
    because = "2⁻⁸ is a tie, and 1.0 wins because its last bit is 0; this is the next number"
    run.check("smallest that changes 1.0", moving, equals=2**-8 * (1 + 2**-7), because=because)
    return f"The smallest number that changes 1.0 is {moving:.6f}, the one after 2⁻⁸."


# %% [markdown]
# ## 9. Learned by heart
# A network with enough parameters can learn labels that mean nothing (Zhang et al. 2017). Give each
# training image a random label, by a permutation of all labels. A tenth of them stay right by
# accident. Apart from these, no rule connects image and label, so a falling training loss shows
# memory, not insight. Only unseen images show the difference.


# %% Random labels
@lab.experiment
@on_one_thread
def random_labels_are_learned_by_heart(run: Run):
    """With random labels a network learns most by heart, and reads less than half as well.

    How well it reads is its accuracy above chance on unseen images, compared with that of the same
    network after training with true labels.

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
    right = ends["true labels"][1]
    left = (mean(test) - 0.1) / (mean(right) - 0.1)
    because = "less than half is what the claim says"
    what = "unseen images, accuracy above chance: random ÷ true labels"
    run.check(what, left, at_most=0.5, because=because, decides=True)
    run.measure("test accuracy, random labels", test)
    run.measure("test accuracy, true labels", right)
    return f"It reaches {mean(memory):.0%} on training images and {mean(test):.0%} on unseen ones."


# %% [markdown]
# ## 10. The layer that was cut off
# Some failures raise no error. A result that went through `detach`, `.data`, `torch.no_grad` or a
# list has lost its graph. The loss has the same value and `backward` runs, but no layer before the
# cut gets a gradient. The loss even falls, because the layers *behind* the cut learn to use the
# results of the random layers.
#
# The graph shows the cut. `loss.grad_fn` is the operation that made the loss. Its `next_functions`
# are pairs: the operation that made an input, and which of its outputs that was. The operation is
# None where no gradient is wanted. The walk ends at operations with an attribute `variable`, which
# is the parameter whose `.grad` they fill. A loss without a graph has None as its `grad_fn`.
#
# In practice one calls `backward` once and looks for parameters whose `.grad` is None. That needs
# fresh gradients, and it changes them. The walk does neither, and shows what a graph is made of.


# %% Find the cut
@lab.exercise(
    level=3,
    hints=(
        "Walk from loss.grad_fn along next_functions, and collect each `variable` you meet.",
        "A result that is used twice is met twice: without a set of visited operations, a graph "
        "of n doublings takes 2ⁿ visits.",
        "Graphs can be deeper than Python's recursion limit: keep a list of operations to visit.",
    ),
)
def unreached(loss: Tensor, module: nn.Module) -> list[str]:
    """Return the names of parameters that want a gradient and get none from `loss`.

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


def three_layers(between: Callable[[Tensor], Tensor]) -> nn.Sequential:
    """Return a network for digits; `between` is applied to the result of its second layer."""
    first = nn.Linear(64, 64)
    second = nn.Linear(64, 64)
    third = nn.Linear(64, 10)
    for layer in (first, second, third):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def hook(_layer: nn.Module, _inputs: Any, z: Tensor) -> Tensor:
        return between(z)  # replaces the layer's result

    second.register_forward_hook(hook)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)


CUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "intact": lambda z: z,
    "z.detach()": lambda z: z.detach(),
    "z.new_tensor(z.tolist())": lambda z: z.new_tensor(z.tolist()),
    "clamp under no_grad": torch.no_grad()(lambda z: z.clamp(-9, 9)),  # used as a decorator
}


def train_plainly(model: nn.Module, batches: list[Tensor]) -> tuple[float, float, float]:
    """Train without Accelerate; return the first loss, the mean of the last 20, the test accuracy.

    With several processes, Accelerate's DistributedDataParallel would notice unused parameters.
    """
    x, y, x_test, y_test = digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for batch in batches:
        loss = F.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], mean(losses[-20:]), accuracy(model, x_test, y_test)


@lab.experiment
def a_cut_off_layer_raises_no_error(run: Run):
    """Cutting layers off raises no error, and the loss still falls; the graph names the layers.

    Predict: two of three layers stay random. How many of ten unseen digits does the network read?
    """
    x, y, _, _ = digits()
    before = "0.weight, 0.bias, 2.weight, 2.bias"  # 1 and 3 are the activations
    steps = run.pick(tiny=440, small=880, full=2200)
    rows = []
    for name, between in CUTS.items():
        torch.manual_seed(run.seed)
        model = three_layers(between)
        loss = F.cross_entropy(model(x), y)
        names = ", ".join(unreached(loss, model)) or "none"
        want = "none" if name == "intact" else before
        because = "all are reached" if name == "intact" else "everything before the cut"
        run.check(f"{name}: not reached", names, equals=want, because=because, decides=True)
        loss.backward()  # raises no error
        empty = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        because = "`backward` leaves the same ones without a gradient"
        run.check(f"{name}: no .grad", ", ".join(empty) or "none", equals=want, because=because)
    for name in ("intact", "z.detach()"):
        for seed in run.seeds(3):
            torch.manual_seed(seed)
            model = three_layers(CUTS[name])
            rows.append([name, seed, *train_plainly(model, batches_of(64, len(y), steps))])
    run.table("Trained alike", ["", "seed", "first loss", "mean of last 20", "test accuracy"], rows)
    ends = [last for name, _, _, last, _ in rows if name == "z.detach()"]
    because = "ln 10 is the loss of even guessing"
    what = "cut off: mean of the last 20 losses"
    run.check(what, ends, at_most=math.log(10), because=because, decides=True)
    falls = [first - last for name, _, first, last, _ in rows if name == "z.detach()"]
    because = "five standard errors: untrained, a digit's loss varies by at most about 1, 64 by 1/8"
    what = "cut off: first loss minus mean of the last 20"
    run.check(what, falls, at_least=5 / 8, because=because, decides=True)
    intact = mean(right for name, *_, right in rows if name == "intact")
    cut = mean(right for name, *_, right in rows if name == "z.detach()")
    run.measure("test accuracy that the cut costs", intact - cut)
    return f"With two random layers it reads {cut:.0%} of unseen digits, intact {intact:.0%}."


# %% [markdown]
# ## What to remember
# - A slope by differences has at best two thirds of a float's digits. Backward has nearly all.
# - Subtract the maximum before a softmax. Keep weights in float32, or use compensated sums or
#   stochastic rounding.
# - Sigmoids in a row, with gain 1, let hardly any gradient or signal through. ReLU with gain
#   $\sqrt 2$ lets both through.
# - Compare two methods on the same examples one by one: the standard error is smaller.
# - A falling loss shows that something is being fitted. It does not show that it is what you meant,
#   that the gradients are right, or that every layer takes part.


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
        f"{test:.0%} on unseen ones. With two of three layers cut off, its loss still fell to "
        f"{fallen:.2f} or lower."
    )


# %% [markdown]
# **Read on**: Goldberg 1991, *What every computer scientist should know about floating-point
# arithmetic* · Higham 2002, *Accuracy and Stability of Numerical Algorithms* · Glorot & Bengio 2010
# on depth · Zhang et al. 2017, *Understanding deep learning requires rethinking generalization*.

# %%
if __name__ == "__main__":
    lab.main()
