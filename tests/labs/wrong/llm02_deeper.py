"""Plausible wrong solutions of LLM02+'s exercises, each with the message that names its mistake."""

from labs.llm02_deep_learning import deeper

import torch


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


def passes_g_on(g, _y):
    return g


def own_output_forgotten(g, y):
    return deeper.log_softmax_vjp(g, y) - g


def plus_for_minus(g, y):
    return 2 * g - deeper.log_softmax_vjp(g, y)


def elementwise(g, y):
    return g - y.exp() * g


def y_for_p(g, y):
    return g - y * g.sum(-1, keepdim=True)


def sums_the_first_axis(g, y):
    return g - y.exp() * g.sum(0, keepdim=True)


def as_for_the_cross_entropy(g, y):
    return g - y.exp()


def vjp_without_keepdim(g, y):
    return g - y.exp() * g.sum(-1)


def vjp_of_the_softmax(g, y):
    p = y.exp()
    return p * (g - (p * g).sum(-1, keepdim=True))


def sums_the_second_axis(g, y):
    return g - y.exp() * g.sum(1, keepdim=True)


def changes_g(g, y):
    g -= y.exp() * g.sum(-1, keepdim=True)
    return g


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
    lost = deeper.unreached(loss, module)
    return [name for name, _ in trainable(module) if name not in lost]


def frozen_ones_too(loss, module):
    frozen = [name for name, x in module.named_parameters() if not x.requires_grad]
    lost = {*deeper.unreached(loss, module), *frozen}
    return [name for name, _ in module.named_parameters() if name in lost]


def in_another_order(loss, module):
    return sorted(deeper.unreached(loss, module), reverse=True)


def parameters_for_names(loss, module):
    lost = deeper.unreached(loss, module)
    return [parameter for name, parameter in module.named_parameters() if name in lost]


WRONG = [
    ("log_softmax", log_of_the_softmax, "never take the logarithm of a softmax"),
    ("log_softmax", with_an_epsilon, "an epsilon or a clamp hides"),
    ("log_softmax", one_maximum_for_all_rows, "the maximum of all rows"),
    ("log_softmax", over_the_first_axis, "over the last axis"),
    ("log_softmax", over_the_second_axis, "the last axis is -1"),
    ("log_softmax", without_keepdim_in_the_rows, "keepdim=True"),
    ("log_softmax", forgot_the_sum, "but log Σeˣ isn't"),
    ("log_softmax", in_place, "changed its input"),
    ("log_softmax_vjp", passes_g_on, "that is g itself"),
    ("log_softmax_vjp", own_output_forgotten, "own y is missing"),
    ("log_softmax_vjp", plus_for_minus, "the sign is wrong"),
    ("log_softmax_vjp", elementwise, "multiplied by its own p"),
    ("log_softmax_vjp", y_for_p, "y is the logarithm of p"),
    ("log_softmax_vjp", sums_the_first_axis, "the sum runs over the first axis"),
    ("log_softmax_vjp", as_for_the_cross_entropy, "Σg isn't 1 in general"),
    ("log_softmax_vjp", vjp_without_keepdim, "is keepdim=True missing"),
    ("log_softmax_vjp", vjp_of_the_softmax, "the VJP of the softmax"),
    ("log_softmax_vjp", sums_the_second_axis, "a separate sum of g|the last axis, -1"),
    ("log_softmax_vjp", changes_g, "changed g"),
    ("unreached", by_grad, "an earlier backward prove nothing|only the unused layer"),
    ("unreached", by_going_backward, "your function went backward"),
    ("unreached", spends_the_graph, "the graph is used up"),
    ("unreached", with_a_graph_for_granted, "a loss without a graph"),
    ("unreached", recursively, "deeper than Python's recursion"),
    ("unreached", path_by_path, "every path separately"),
    ("unreached", those_reached, "got those that are"),
    ("unreached", frozen_ones_too, "a frozen parameter"),
    ("unreached", in_another_order, "in another order"),
    ("unreached", parameters_for_names, "expected a list of names"),
]
