"""Plausible wrong solutions of LLM02's exercises, each with the message that names its mistake."""

from labs.llm02_deep_learning import lesson as lab

import torch
import torch.nn.functional as F


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


def log_of_the_softmax(x):
    return x.softmax(-1).log()


def with_an_epsilon(x):
    return (x.softmax(-1) + 1e-12).log()


def one_maximum_for_all_rows(x):
    x = x - x.max()
    return x - x.exp().sum(-1, keepdim=True).log()


def over_the_first_axis(x):
    return x.log_softmax(0)


def over_the_second_axis(x):
    x = x - x.amax(1, keepdim=True)
    return x - x.exp().sum(1, keepdim=True).log()


def without_keepdim_in_the_rows(x):
    x = x - x.amax(-1)
    return x - x.exp().sum(-1).log()


def forgot_the_sum(x):
    return x - x.amax(-1, keepdim=True)


def in_place(x):
    x -= x.amax(-1, keepdim=True)
    return x - x.exp().sum(-1, keepdim=True).log()


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


class Steps(lab.Momentum):
    """Call `change`, the wrong rule, for each parameter that has a gradient."""

    def step(self):
        for i, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
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
        w = w - self.lr * self.velocities[i]


class NeverNone(lab.Momentum):
    def step(self):
        for w, velocity in zip(self.parameters, self.velocities, strict=True):
            velocity.mul_(self.momentum).add_(w.grad)
            w.data -= self.lr * velocity


def trainable(module):
    return [pair for pair in module.named_parameters() if pair[1].requires_grad]


def by_grad(loss, module):
    if not loss.requires_grad:
        return [name for name, _ in trainable(module)]
    return [name for name, parameter in trainable(module) if parameter.grad is None]


def by_going_backward(loss, module):
    module.zero_grad()
    loss.backward()
    return [name for name, parameter in trainable(module) if parameter.grad is None]


def spends_the_graph(loss, module):
    if not loss.requires_grad:
        return [name for name, _ in trainable(module)]
    found = torch.autograd.grad(loss, [x for _, x in trainable(module)], allow_unused=True)
    return [name for (name, _), g in zip(trainable(module), found, strict=True) if g is None]


def along(operation, found, seen):
    if operation is None or operation in seen:
        return
    seen.add(operation)
    found.append(id(getattr(operation, "variable", None)))
    for before, _ in operation.next_functions:
        along(before, found, seen)


class NothingSeen(set):
    def add(self, _):
        pass


def with_a_graph_for_granted(loss, module):
    seen = set()
    waiting = [loss.grad_fn]
    while waiting:
        operation = waiting.pop()
        seen.add(operation)
        for before, _ in operation.next_functions:
            waiting += [before] if before is not None and before not in seen else []
    found = {id(getattr(operation, "variable", None)) for operation in seen}
    return [name for name, parameter in trainable(module) if id(parameter) not in found]


def recursively(loss, module, seen=None):
    found = []
    along(loss.grad_fn, found, set() if seen is None else seen)
    return [name for name, parameter in trainable(module) if id(parameter) not in found]


def path_by_path(loss, module):
    return recursively(loss, module, NothingSeen())


def those_reached(loss, module):
    lost = lab.unreached(loss, module)
    return [name for name, _ in trainable(module) if name not in lost]


def frozen_ones_too(loss, module):
    frozen = [name for name, x in module.named_parameters() if not x.requires_grad]
    lost = {*lab.unreached(loss, module), *frozen}
    return [name for name, _ in module.named_parameters() if name in lost]


def in_another_order(loss, module):
    return sorted(lab.unreached(loss, module), reverse=True)


def parameters_for_names(loss, module):
    lost = lab.unreached(loss, module)
    return [parameter for name, parameter in module.named_parameters() if name in lost]


WRONG = [
    ("unbroadcast", the_mean, "expected a sum, got the mean"),
    ("unbroadcast", the_first_copy, "the gradient of one copy"),
    ("unbroadcast", leading_axes_kept, "leading axes that the source lacks"),
    ("unbroadcast", without_keepdim, "an axis of size 1 is gone"),
    ("unbroadcast", only_leading_axes, "as g came in"),
    ("unbroadcast", nothing_returned, r"got nothing \(None\)"),
    ("matmul_vjp", not_transposed, "a factor isn't transposed"),
    ("matmul_vjp", in_the_wrong_order, "in the wrong order"),
    ("matmul_vjp", gradients_swapped, "the two gradients are swapped"),
    ("matmul_vjp", all_axes_transposed, "the last two axes of a batch only"),
    ("matmul_vjp", by_elements, "a product of elements"),
    ("matmul_vjp", only_one, "expected a tuple of two gradients"),
    ("log_softmax", log_of_the_softmax, "never take the logarithm of a softmax"),
    ("log_softmax", with_an_epsilon, "an epsilon or a clamp hides"),
    ("log_softmax", one_maximum_for_all_rows, "the maximum of all rows"),
    ("log_softmax", over_the_first_axis, "over the last axis"),
    ("log_softmax", over_the_second_axis, "the last axis is -1"),
    ("log_softmax", without_keepdim_in_the_rows, "keepdim=True"),
    ("log_softmax", forgot_the_sum, "but log Σeˣ isn't"),
    ("log_softmax", in_place, "changed its input"),
    ("cross_entropy_vjp", not_averaged, "divide by their number"),
    ("cross_entropy_vjp", averaged_over_the_first_axis, "divided by the first axis alone"),
    ("cross_entropy_vjp", without_g, "g is missing"),
    ("cross_entropy_vjp", downhill, "points uphill"),
    ("cross_entropy_vjp", the_softmax_alone, "that is the softmax alone"),
    ("cross_entropy_vjp", for_a_matrix_alone, "any number of leading axes"),
    ("cross_entropy_vjp", by_a_bare_exponential, "logits of ±1,000"),
    ("Momentum.step", Uphill, "goes against the gradient"),
    ("Momentum.step", Damped, "has no factor of 1 − μ"),
    ("Momentum.step", RateInTheVelocity, "the learning rate is inside the velocity"),
    ("Momentum.step", Nesterov, "Nesterov"),
    ("Momentum.step", Forgetful, "there is no momentum"),
    ("Momentum.step", OneStepLate, "one step late"),
    ("Momentum.step", IntoTheGradient, "step changed a gradient"),
    ("Momentum.step", TheGradientItself, "in memory separate from the gradient"),
    ("Momentum.step", NewTensors, "nothing moves"),
    ("Momentum.step", NeverNone, "whose grad is None"),
    ("unreached", by_grad, "an earlier backward prove nothing|only the unused layer"),
    ("unreached", by_going_backward, "your function went backward"),
    ("unreached", spends_the_graph, "the graph is used up"),
    ("unreached", with_a_graph_for_granted, "a loss without a graph"),
    ("unreached", recursively, "deeper than Python's recursion"),
    ("unreached", path_by_path, "walks every path separately"),
    ("unreached", those_reached, "got those that are"),
    ("unreached", frozen_ones_too, "a frozen parameter"),
    ("unreached", in_another_order, "in another order"),
    ("unreached", parameters_for_names, "expected a list of names"),
]
