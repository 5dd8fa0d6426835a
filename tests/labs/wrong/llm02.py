"""Wrong solutions of LLM02: each is what a learner might plausibly hand in, and what it is told."""

from labs.llm02_deep_learning import lesson as lab

import torch
import torch.nn.functional as F


def grown_axes(g, shape):
    lead = g.ndim - len(shape)
    return lead, [i for i, n in enumerate(shape) if n == 1 and g.shape[i + lead] > 1]


def the_mean(g, shape):
    return lab.unbroadcast(g, shape) * (torch.Size(shape).numel() / g.numel())


def the_first_copy(g, shape):
    lead, grown = grown_axes(g, shape)
    g = g[(0,) * lead]
    for axis in grown:
        g = g.narrow(axis, 0, 1)
    return g


def leading_axes_kept(g, shape):
    lead, grown = grown_axes(g, shape)
    axes = [*range(lead), *(lead + axis for axis in grown)]
    return g.sum(axes, keepdim=True) if axes else g


def without_keepdim(g, shape):
    lead, grown = grown_axes(g, shape)
    axes = [*range(lead), *(lead + axis for axis in grown)]
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


def one_largest_for_all(x):
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


def p_less_hot(logits, targets):
    return logits.softmax(-1) - F.one_hot(targets, logits.shape[-1])


def not_averaged(g, logits, targets):
    return g * p_less_hot(logits, targets)


def averaged_over_the_first_axis(g, logits, targets):
    return g * p_less_hot(logits, targets) / len(targets)


def without_g(_g, logits, targets):
    return p_less_hot(logits, targets) / targets.numel()


def downhill(g, logits, targets):
    return -g * p_less_hot(logits, targets) / targets.numel()


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
    """`change` is what each wrong solution does with a parameter that has a gradient."""

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


def wanted(module):
    return [(name, one) for name, one in module.named_parameters() if one.requires_grad]


def by_grad(loss, module):
    if not loss.requires_grad:
        return [name for name, _ in wanted(module)]
    return [name for name, one in wanted(module) if one.grad is None]


def by_going_backward(loss, module):
    module.zero_grad()
    loss.backward()
    return [name for name, one in wanted(module) if one.grad is None]


def spends_the_graph(loss, module):
    if not loss.requires_grad:
        return [name for name, _ in wanted(module)]
    found = torch.autograd.grad(loss, [one for _, one in wanted(module)], allow_unused=True)
    return [name for (name, _), g in zip(wanted(module), found, strict=True) if g is None]


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
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        operation = waiting.pop()
        seen.add(operation)
        for before, _ in operation.next_functions:
            waiting += [before] if before is not None and before not in seen else []
    found = {id(getattr(operation, "variable", None)) for operation in seen}
    return [name for name, one in wanted(module) if id(one) not in found]


def recursively(loss, module, seen=None):
    found = []
    along(loss.grad_fn, found, set() if seen is None else seen)
    return [name for name, one in wanted(module) if id(one) not in found]


def path_by_path(loss, module):
    return recursively(loss, module, NothingSeen())


def those_reached(loss, module):
    lost = lab.unreached(loss, module)
    return [name for name, _ in wanted(module) if name not in lost]


def frozen_ones_too(loss, module):
    frozen = [name for name, one in module.named_parameters() if not one.requires_grad]
    lost = {*lab.unreached(loss, module), *frozen}
    return [name for name, _ in module.named_parameters() if name in lost]


def in_another_order(loss, module):
    return sorted(lab.unreached(loss, module), reverse=True)


def parameters_for_names(loss, module):
    lost = lab.unreached(loss, module)
    return [one for name, one in module.named_parameters() if name in lost]


WRONG = [
    ("unbroadcast", the_mean, "that is the mean"),
    ("unbroadcast", the_first_copy, "one copy's gradient"),
    ("unbroadcast", leading_axes_kept, "leading axes that the source lacks"),
    ("unbroadcast", without_keepdim, "an axis of size 1 is gone"),
    ("unbroadcast", only_leading_axes, "came back as it was"),
    ("unbroadcast", nothing_returned, r"nothing \(None\) came"),
    ("matmul_vjp", not_transposed, "a factor isn't transposed"),
    ("matmul_vjp", in_the_wrong_order, "in the wrong order"),
    ("matmul_vjp", gradients_swapped, "the two gradients are swapped"),
    ("matmul_vjp", all_axes_transposed, "Of a batch the last two axes alone"),
    ("matmul_vjp", by_elements, "a product of elements"),
    ("matmul_vjp", only_one, "two gradients were expected"),
    ("log_softmax", log_of_the_softmax, "never take the logarithm of a softmax"),
    ("log_softmax", with_an_epsilon, "an epsilon or a clamp hides"),
    ("log_softmax", one_largest_for_all, "the largest of all rows"),
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
    ("Momentum.step", Damped, "without a factor of 1 − μ"),
    ("Momentum.step", RateInTheVelocity, "the learning rate is inside the velocity"),
    ("Momentum.step", Nesterov, "Nesterov"),
    ("Momentum.step", Forgetful, "no momentum"),
    ("Momentum.step", OneStepLate, "one step late"),
    ("Momentum.step", IntoTheGradient, "step changed a gradient"),
    ("Momentum.step", TheGradientItself, "in memory of its own"),
    ("Momentum.step", NewTensors, "nothing moves"),
    ("Momentum.step", NeverNone, "whose grad is None"),
    ("unreached", by_grad, "an earlier backward prove nothing|only the unused layer"),
    ("unreached", by_going_backward, "it went backward"),
    ("unreached", spends_the_graph, "the graph is spent"),
    ("unreached", with_a_graph_for_granted, "a loss without a graph"),
    ("unreached", recursively, "deeper than Python's recursion"),
    ("unreached", path_by_path, "it takes every path anew"),
    ("unreached", those_reached, "wanted are the others"),
    ("unreached", frozen_ones_too, "a frozen parameter"),
    ("unreached", in_another_order, "in another order"),
    ("unreached", parameters_for_names, "a list of names was expected"),
]  # fmt: skip
