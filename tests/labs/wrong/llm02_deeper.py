"""Plausible wrong solutions of LLM02+'s exercises, each with the message that names its mistake."""

from labs.llm02_deep_learning import deeper

import torch


def in_one_go(start, steps):
    return start + steps.sum()


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


def every_step_lost(start, steps):
    for step in steps:
        start = start + step
    return start


def in_float32(start, steps):
    return start.float() + steps.float().sum()


def without_the_start(start, steps):
    return deeper.kahan_sum(torch.zeros_like(start), steps)


def into_the_start(start, steps):
    total = deeper.kahan_sum(start, steps)
    start += total - start
    return total


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
    ("kahan_sum", every_step_lost, "every step was lost"),
    ("kahan_sum", in_float32, "expected dtype"),
    ("kahan_sum", without_the_start, "the steps alone"),
    ("kahan_sum", in_one_go, "summed in one go"),
    ("kahan_sum", into_the_start, "changed `start`"),
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
