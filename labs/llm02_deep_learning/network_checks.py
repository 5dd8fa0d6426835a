"""Check the network and the optimizer of LLM02.

References: PyTorch's autograd for `MLP.__call__`, its `optim.SGD` for `Momentum.step`.
"""

from collections.abc import Callable
from typing import Any

from labs.kit import Mistake, draw, equals, expect_close, name_mistake

import torch
from torch import Tensor, nn

Mistakes = dict[str, Callable[[], Tensor]]


def mlp_call(module: Any) -> None:
    """Compare logits and gradients with PyTorch's, for one layer and for three."""
    for widths in ((3, 2), (3, 4, 4, 2)):
        model = module.MLP(*widths, activation="tanh", dtype=torch.float64)
        for i, bias in enumerate(model.biases):
            bias.data = draw(*bias.data.shape, seed=10 + i)  # they start as 0: a test needs more
        x = draw(5, 3)
        got = model(x.clone())
        if isinstance(got, Tensor) or not isinstance(got, module.Value):
            raise Mistake(
                f"expected a TensorValue, got {type(got).__name__}: without it there is no graph"
            )
        weights = [weight.data for weight in model.weights]
        biases = [bias.data for bias in model.biases]
        name_mistake(got.data, _mistakes_of_mlp(x, weights, biases))
        want = _network(x, weights, biases)
        expect_close(got.data, want, "y = y @ weight + bias, and tanh between two layers")
        _check_gradients_of_mlp(model, got, x)


def _check_gradients_of_mlp(model: Any, logits: Any, x: Tensor) -> None:
    logits.sum().backward()
    leaves = [value.data.clone().requires_grad_() for value in [*model.weights, *model.biases]]
    n = len(model.weights)
    wants = torch.autograd.grad(_network(x, leaves[:n], leaves[n:]).sum(), leaves)
    for value, want in zip([*model.weights, *model.biases], wants, strict=True):
        if isinstance(value.grad, float):
            raise Mistake(
                "a parameter gets no gradient: use the Value itself, and not its .data, which is a "
                "tensor outside the graph"
            )
        expect_close(value.grad, want, "the gradient of a parameter")


def _network(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = (x.tanh() if i else x) @ weight + bias
    return x


def _mistakes_of_mlp(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Mistakes:
    def without_activation() -> Tensor:
        y = x
        for weight, bias in zip(weights, biases, strict=True):
            y = y @ weight + bias
        return y

    mistakes: Mistakes = {
        "the activation acts on the logits, too: there is none after the last layer": (
            lambda: _network(x, weights, biases).tanh()
        ),
        "the activation acts on the input: the first layer gets x as it is": lambda: _network(
            x.tanh(), weights, biases
        ),
        "the biases are missing": lambda: _network(
            x, weights, [torch.zeros_like(bias) for bias in biases]
        ),
    }
    if len(weights) > 1:
        mistakes["the activation is missing: without it all layers make one"] = without_activation
        mistakes["that is ReLU: call self.activation, which may be another one"] = lambda: _relu(
            x, weights, biases
        )
    return mistakes


def _relu(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = (x.relu() if i else x) @ weight + bias
    return x


RATES = (0.1, 0.1, 0.02, 0.02, 0.02, 0.02)  # the learning rate changes


def momentum(module: Any) -> None:
    """Compare six steps with those of `torch.optim.SGD`."""
    mine = [module.TensorValue(draw(2, 3)), module.TensorValue(draw(4, seed=1))]
    theirs = [nn.Parameter(draw(2, 3)), nn.Parameter(draw(4, seed=1))]
    optimizer = module.Momentum(mine, 0.1, 0.9)
    reference = torch.optim.SGD(theirs, 0.1, 0.9)
    for i, rate in enumerate(RATES):
        gradients = [draw(2, 3, seed=10 + i), draw(4, seed=20 + i)]
        optimizer.lr = rate
        reference.param_groups[0]["lr"] = rate
        for value, parameter, g in zip(mine, theirs, gradients, strict=True):
            value.grad = g.clone()
            parameter.grad = g.clone()
        optimizer.step()
        reference.step()
        if any(a.data.shape != b.shape for a, b in zip(mine, theirs, strict=True)):
            raise Mistake("a parameter has another shape after the step")
        _expect_gradients(mine, gradients)
        if i == 0:
            continue  # from the second step on, every mistake has a different result
        name_mistake(mine[0].data, _mistakes_of_momentum(i + 1))
        for value, want in zip(mine, theirs, strict=True):
            reason = f"step {i + 1}: v ← μ·v + g, then w ← w − η·v"
            expect_close(value.data, want.detach(), reason)


def _expect_gradients(values: list[Any], gradients: list[Tensor]) -> None:
    for value, g in zip(values, gradients, strict=True):
        if not isinstance(value.grad, Tensor):
            raise Mistake("step must leave the gradients alone: zero_grad resets them")
        if not torch.equal(value.grad, g):
            raise Mistake("step changed a gradient: store the velocity in separate memory")
        value.grad.zero_()  # as optimizers do that reset in place


def _mistakes_of_momentum(steps: int) -> Mistakes:
    """Return where the first parameter is after `steps` steps, by mistake."""

    def end(rule: Callable[..., tuple[Any, Any]]) -> Tensor:
        w = draw(2, 3)
        v = torch.zeros(2, 3, dtype=torch.float64)
        for i, rate in enumerate(RATES[:steps]):
            w, v = rule(w, v, draw(2, 3, seed=10 + i), rate)
        return w

    def by_velocity(velocity: Callable[..., Tensor]) -> Tensor:
        return end(lambda w, v, g, lr: (w - lr * velocity(v, g), velocity(v, g)))

    right = by_velocity(lambda v, g: 0.9 * v + g)
    ends = {
        "nothing moves: w = w − … makes a new tensor; change parameter.data": draw(2, 3),
        "the sign is wrong: a step goes against the gradient": end(
            lambda w, v, g, lr: (w + lr * (0.9 * v + g), 0.9 * v + g)
        ),
        "the gradient is damped: v ← μ·v + g has no factor of 1 − μ": by_velocity(
            lambda v, g: 0.9 * v + 0.1 * g
        ),
        "that is Nesterov's step: Polyak's moves by the velocity alone": end(
            lambda w, v, g, lr: (w - lr * (g + 0.9 * (0.9 * v + g)), 0.9 * v + g)
        ),
        "there is no momentum: keep the velocity for the next step, in memory separate from the "
        "gradient": end(lambda w, v, g, lr: (w - lr * g, v)),
        "each gradient comes one step late: update the velocity first, then the parameter": end(
            lambda w, v, g, lr: (w - lr * v, 0.9 * v + g)
        ),
        "the learning rate is inside the velocity: when it changes, old gradients keep the old "
        "rate": end(lambda w, v, g, lr: (w - (0.9 * v + lr * g), 0.9 * v + lr * g)),
        "the gradient decays at once: v ← μ·v + g, not μ·(v + g)": by_velocity(
            lambda v, g: 0.9 * (v + g)
        ),
    }
    # Some mistakes make no difference in the first steps; later steps show them.
    return {message: lambda x=x: x for message, x in ends.items() if not equals(x, right)}
