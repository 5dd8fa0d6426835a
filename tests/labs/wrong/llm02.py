"""Plausible wrong solutions of LLM02's exercises, each with the message that names its mistake."""

from labs.llm02_deep_learning import lesson as lab

import torch
import torch.nn.functional as F


class Swapped(lab.Value):
    def __mul__(self, other):
        return Swapped(
            self.data * other.data, (self, other), "×", lambda g: (g * self.data, g * other.data)
        )


class WithoutG(lab.Value):
    def __mul__(self, other):
        return WithoutG(
            self.data * other.data, (self, other), "×", lambda _g: (other.data, self.data)
        )


class LikeASum(lab.Value):
    def __mul__(self, other):
        return LikeASum(self.data * other.data, (self, other), "×", lambda g: (g, g))


class PlainNumber(lab.Value):
    def __mul__(self, other):
        return self.data * other.data


class InputsSwapped(lab.Value):
    def __mul__(self, other):
        return InputsSwapped(
            self.data * other.data, (other, self), "×", lambda g: (g * self.data, g * other.data)
        )


class WithoutInputs(lab.Value):
    def __mul__(self, other):
        return WithoutInputs(
            self.data * other.data, (), "×", lambda g: (g * other.data, g * self.data)
        )


class PathByPath(lab.Value):
    def backward(self, g=1.0):
        self.grad = self.grad + g
        for source, contribution in zip(self.inputs, self.grad_fn(g), strict=True):
            source.backward(contribution)


def in_order(result):
    """Return the values of a graph, inputs first, by recursion."""
    order = []
    visited = set()

    def visit(value):
        if value not in visited:
            visited.add(value)
            for source in value.inputs:
                visit(source)
            order.append(value)

    visit(result)
    return order


class Recursive(lab.Value):
    def backward(self):
        gradients = {self: 1.0}
        for value in reversed(in_order(self)):
            g = gradients[value]
            value.grad = value.grad + g
            for source, contribution in zip(value.inputs, value.grad_fn(g), strict=True):
                gradients[source] = gradients.get(source, 0.0) + contribution


class Overwrites(lab.Value):
    def backward(self):
        gradients = {self: 1.0}
        for value in reversed(in_order(self)):
            g = gradients[value]
            value.grad = value.grad + g
            gradients.update(zip(value.inputs, value.grad_fn(g), strict=True))


class TooEarly(lab.Value):
    def backward(self):
        queue = [self]
        self.grad = self.grad + 1.0
        visited = {self}
        while queue:
            value = queue.pop(0)
            for source, contribution in zip(value.inputs, value.grad_fn(value.grad), strict=True):
                source.grad = source.grad + contribution
                if source not in visited:
                    visited.add(source)
                    queue.append(source)


class FromGrad(lab.Value):
    def backward(self):
        self.grad = 1.0
        for value in reversed(in_order(self)):
            for source, contribution in zip(value.inputs, value.grad_fn(value.grad), strict=True):
                source.grad = source.grad + contribution


class Replaces(lab.Value):
    def backward(self):
        for value in in_order(self):
            value.grad = 0.0
        FromGrad.backward(self)


class LeavesAlone(lab.Value):
    def backward(self):
        lab.Value.backward(self)
        for value in in_order(self)[:-1]:
            value.grad = 0.0 if value.inputs else value.grad


class InPlace(lab.Value):
    def backward(self):
        gradients = {self: 1.0}
        for value in reversed(in_order(self)):
            g = gradients[value]
            value.grad = value.grad + g
            for source, contribution in zip(value.inputs, value.grad_fn(g), strict=True):
                if source in gradients:
                    gradients[source] += contribution
                else:
                    gradients[source] = contribution


def grown_axes(g, shape):
    lead = g.ndim - len(shape)
    return lead, [i for i, n in enumerate(shape) if n == 1 and g.shape[i + lead] > 1]


def axes_to_sum(g, shape):
    lead, grown = grown_axes(g, shape)
    return [*range(lead), *(lead + axis for axis in grown)]


def the_mean(g, shape):
    return lab.unbroadcast(g, shape) * (torch.Size(shape).numel() / g.numel())


def the_first_copy(g, shape):
    lead, grown = grown_axes(g, shape)
    g = g[(0,) * lead]
    for axis in grown:
        g = g.narrow(axis, 0, 1)
    return g


def leading_axes_kept(g, shape):
    axes = axes_to_sum(g, shape)
    return g.sum(axes, keepdim=True) if axes else g


def without_keepdim(g, shape):
    axes = axes_to_sum(g, shape)
    return g.sum(axes) if axes else g


def only_leading_axes(g, shape):
    lead, _ = grown_axes(g, shape)
    return g.sum(list(range(lead))) if lead else g


def an_empty_list_of_axes(g, shape):
    g = g.sum(list(range(g.ndim - len(shape))))  # for no axes, a sum over all
    return g.sum([i for i, n in enumerate(shape) if n == 1 and g.shape[i] > 1], keepdim=True)


def everything_summed(g, shape):
    return g.sum(axes_to_sum(g, shape)) if len(shape) < g.ndim else g.sum([])


def nothing_returned(_g, _shape):
    return None


def not_transposed(g, a, b):
    return g @ b, a @ g


def in_the_wrong_order(g, a, b):
    return b.mT @ g, g @ a.mT


def gradients_swapped(g, a, b):
    return a.mT @ g, g @ b.mT


def all_axes_transposed(g, a, b):
    a, b = (x.permute(*reversed(range(x.ndim))) for x in (a, b))
    return g @ b, a @ g


def by_elements(g, a, b):
    return g * b, g * a


def only_one(g, _a, b):
    return g @ b.mT


def p_minus_one_hot(logits, targets):
    return logits.softmax(-1) - F.one_hot(targets, logits.shape[-1])


def not_averaged(g, logits, targets):
    return g * p_minus_one_hot(logits, targets)


def averaged_over_the_first_axis(g, logits, targets):
    return g * p_minus_one_hot(logits, targets) / len(targets)


def without_g(_g, logits, targets):
    return p_minus_one_hot(logits, targets) / targets.numel()


def downhill(g, logits, targets):
    return -g * p_minus_one_hot(logits, targets) / targets.numel()


def the_softmax_alone(g, logits, targets):
    return g * logits.softmax(-1) / targets.numel()


def for_a_matrix_alone(g, logits, targets):
    p = logits.softmax(-1)
    p[torch.arange(len(targets)), targets] -= 1
    return g * p / len(targets)


def by_a_bare_exponential(g, logits, targets):
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return g * (p - F.one_hot(targets, p.shape[-1])) / targets.numel()


class Network(lab.MLP):
    """Call `layer`, the wrong rule, for each layer."""

    def __call__(self, x):
        y = lab.TensorValue(x)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            y = self.layer(i, y, weight, bias)
        return y


class AfterTheLast(Network):
    def layer(self, _i, y, weight, bias):
        return self.activation(y @ weight + bias)


class BeforeTheFirst(Network):
    def layer(self, _i, y, weight, bias):
        return self.activation(y) @ weight + bias


class WithoutBias(Network):
    def layer(self, i, y, weight, _bias):
        return (self.activation(y) if i else y) @ weight


class Straight(Network):
    def layer(self, _i, y, weight, bias):
        return y @ weight + bias


class AlwaysReLU(Network):
    def layer(self, i, y, weight, bias):
        return (y.relu() if i else y) @ weight + bias


class OutsideTheGraph(Network):
    def layer(self, i, y, weight, bias):
        return (self.activation(y) if i else y) @ weight.data + bias.data


class PlainTensor(lab.MLP):
    def __call__(self, x):
        return lab.MLP.__call__(self, x).data


class Steps(lab.Momentum):
    """Call `change`, the wrong rule, for each parameter."""

    def step(self):
        for i, parameter in enumerate(self.parameters):
            self.change(parameter, i)


class Uphill(Steps):
    def change(self, w, i):
        self.velocities[i] = self.momentum * self.velocities[i] + w.grad
        w.data += self.lr * self.velocities[i]


class Damped(Steps):
    def change(self, w, i):
        self.velocities[i] = self.momentum * self.velocities[i] + (1 - self.momentum) * w.grad
        w.data -= self.lr * self.velocities[i]


class RateInTheVelocity(Steps):
    def change(self, w, i):
        self.velocities[i] = self.momentum * self.velocities[i] + self.lr * w.grad
        w.data -= self.velocities[i]


class Nesterov(Steps):
    def change(self, w, i):
        self.velocities[i] = self.momentum * self.velocities[i] + w.grad
        w.data -= self.lr * (w.grad + self.momentum * self.velocities[i])


class Forgetful(Steps):
    def change(self, w, i):
        velocity = self.momentum * torch.zeros_like(self.velocities[i]) + w.grad
        w.data -= self.lr * velocity


class OneStepLate(Steps):
    def change(self, w, i):
        w.data -= self.lr * self.velocities[i]
        self.velocities[i] = self.momentum * self.velocities[i] + w.grad


class IntoTheGradient(Steps):
    def change(self, w, i):
        w.grad += self.momentum * self.velocities[i]
        self.velocities[i] = w.grad.clone()
        w.data -= self.lr * self.velocities[i]


class TheGradientItself(Steps):
    def change(self, w, i):
        old = self.velocities[i]
        self.velocities[i] = w.grad if old.abs().max() == 0 else self.momentum * old + w.grad
        w.data -= self.lr * self.velocities[i]


class NewTensors(Steps):
    def change(self, w, i):
        self.velocities[i] = self.momentum * self.velocities[i] + w.grad
        data = w.data
        data = data - self.lr * self.velocities[i]


WRONG = [
    ("Value.__mul__", Swapped, "the gradients are swapped"),
    ("Value.__mul__", WithoutG, "g is missing"),
    ("Value.__mul__", LikeASum, "the rule of the sum"),
    ("Value.__mul__", PlainNumber, "expected a Value"),
    ("Value.__mul__", InputsSwapped, "in the wrong order"),
    ("Value.__mul__", WithoutInputs, "the inputs aren't recorded"),
    ("Value.backward", PathByPath, "passed its gradient on 2 times"),
    ("Value.backward", Overwrites, "add contributions"),
    ("Value.backward", TooEarly, "before all contributions had arrived"),
    ("Value.backward", FromGrad, "keep the gradients of a pass apart"),
    ("Value.backward", Replaces, "a second backward must add"),
    ("Value.backward", Recursive, "deeper than Python's recursion"),
    ("Value.backward", LeavesAlone, "not leaves alone"),
    ("Value.backward", InPlace, "changes a tensor in place"),
    ("unbroadcast", the_mean, "expected a sum, got the mean"),
    ("unbroadcast", the_first_copy, "the gradient of one copy"),
    ("unbroadcast", leading_axes_kept, "leading axes that the source lacks"),
    ("unbroadcast", without_keepdim, "an axis of size 1 is gone"),
    ("unbroadcast", only_leading_axes, "as g came in"),
    ("unbroadcast", an_empty_list_of_axes, "sums over all axes"),
    ("unbroadcast", everything_summed, "every axis was summed"),
    ("unbroadcast", nothing_returned, r"got nothing \(None\)"),
    ("matmul_vjp", not_transposed, "a factor isn't transposed"),
    ("matmul_vjp", in_the_wrong_order, "in the wrong order"),
    ("matmul_vjp", gradients_swapped, "the two gradients are swapped"),
    ("matmul_vjp", all_axes_transposed, "the last two axes of a batch only"),
    ("matmul_vjp", by_elements, "a product of elements"),
    ("matmul_vjp", only_one, "expected a tuple of two gradients"),
    ("cross_entropy_vjp", not_averaged, "divide by their number"),
    ("cross_entropy_vjp", averaged_over_the_first_axis, "divided by the first axis alone"),
    ("cross_entropy_vjp", without_g, "g is missing"),
    ("cross_entropy_vjp", downhill, "points uphill"),
    ("cross_entropy_vjp", the_softmax_alone, "that is the softmax alone"),
    ("cross_entropy_vjp", for_a_matrix_alone, "any number of leading axes"),
    ("cross_entropy_vjp", by_a_bare_exponential, "logits of ±1,000"),
    ("MLP.__call__", AfterTheLast, "none after the last layer"),
    ("MLP.__call__", BeforeTheFirst, "the first layer gets x as it is"),
    ("MLP.__call__", WithoutBias, "the biases are missing"),
    ("MLP.__call__", Straight, "the activation is missing"),
    ("MLP.__call__", AlwaysReLU, "that is ReLU"),
    ("MLP.__call__", OutsideTheGraph, "a parameter gets no gradient"),
    ("MLP.__call__", PlainTensor, "without it there is no graph"),
    ("Momentum.step", Uphill, "goes against the gradient"),
    ("Momentum.step", Damped, "has no factor of 1 − μ"),
    ("Momentum.step", RateInTheVelocity, "the learning rate is inside the velocity"),
    ("Momentum.step", Nesterov, "Nesterov"),
    ("Momentum.step", Forgetful, "there is no momentum"),
    ("Momentum.step", OneStepLate, "one step late"),
    ("Momentum.step", IntoTheGradient, "step changed a gradient"),
    ("Momentum.step", TheGradientItself, "in memory separate from the gradient"),
    ("Momentum.step", NewTensors, "nothing moves"),
]
