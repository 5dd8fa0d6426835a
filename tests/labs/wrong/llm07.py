"""Wrong solutions of LLM07: what a learner might plausibly hand in, and the message."""

import math
from functools import partial

from labs.llm07_lora import lesson as lab

import torch
import torch.nn.functional as F


def layer(update=True, base=True, merged=True, scale=lambda alpha, rank: alpha / rank, twice=0.0):
    class Layer(lab.LoraLinear):
        def forward(self, x):
            low = F.linear(F.linear(x, self.A), self.B) * scale(self.alpha, self.rank)
            plain = self.base(x) + twice * (self.base.bias if self.base.bias is not None else 0)
            if self.merged and merged:
                return plain
            return plain * base + low * update

    return Layer


class Detached(lab.LoraLinear):
    def forward(self, x):
        low = F.linear(F.linear(x, self.A.data), self.B)
        return self.base(x) + (0 if self.merged else low * (self.alpha / self.rank))


class FactorsConfused(lab.LoraLinear):
    def forward(self, x):
        return self.base(x) + x @ self.B @ self.A


class MakesTheMatrix(lab.LoraLinear):
    def forward(self, x):
        return self.base(x) if self.merged else self.base(x) + F.linear(x, self.delta())


def freezes_all(model):
    model.requires_grad_(False)


def freezes_nothing(model):
    model.eval()


def trains_every_a_and_b(model):
    for name, weight in model.named_parameters():
        weight.requires_grad_("A" in name or "B" in name)


def freezes_by_name(model):
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora" in name or name.endswith((".A", ".B")))


def freezes_the_bases_alone(model):
    for layer in lab.adapters(model).values():
        layer.base.requires_grad_(False)


def unfreezes_entire_layers(model):
    model.requires_grad_(False)
    for layer in lab.adapters(model).values():
        layer.requires_grad_(True)


def trains_b_alone(model):
    model.requires_grad_(False)
    for layer in lab.adapters(model).values():
        layer.B.requires_grad_(True)


def makes_new_ones(model):
    lab.freeze_base(model)
    for layer in lab.adapters(model).values():
        layer.A = torch.nn.Parameter(layer.A.data)
        layer.B = torch.nn.Parameter(layer.B.data)


def zeroes_what_it_freezes(model):
    lab.freeze_base(model)
    for weight in model.parameters():
        weight.data.mul_(weight.requires_grad)


def a_view_of_each(model):
    return {
        f"base_model.model.{name}.lora_{letter}.weight": getattr(layer, letter).detach()
        for name, layer in lab.adapters(model).items()
        for letter in "AB"
    }


def copies_with_the_strides(model):
    return {key: tensor.clone() for key, tensor in a_view_of_each(model).items()}


def the_full_state(model):
    return dict(model.state_dict())


def own_names(model):
    return {
        f"base_model.model.{name}.{letter}": getattr(layer, letter).detach().clone()
        for name, layer in lab.adapters(model).items()
        for letter in "AB"
    }


def without_the_prefix(model):
    state = lab.adapter_state(model)
    return {key.removeprefix("base_model.model."): tensor for key, tensor in state.items()}


def still_in_the_graph(model):
    return {key: tensor.requires_grad_() for key, tensor in lab.adapter_state(model).items()}


def b_alone(model):
    return {key: tensor for key, tensor in lab.adapter_state(model).items() if "lora_B" in key}


def gradients_by(a=lambda gradient, scale: scale * gradient, b=None, order=1):
    """Return `factor_gradients` with a change to A's gradient, and the same or another to B's."""

    def factor_gradients(g, factor_a, factor_b, scale):
        of_a = a(factor_b.mT @ g, scale)
        of_b = (b or a)(g @ factor_a.mT, scale)
        return (of_a, of_b)[::order]

    return factor_gradients


def right(gradient, scale):
    return scale * gradient


def unscaled(gradient, _):
    return gradient


def transposed_gradients(g, a, b, scale):
    return scale * (g.mT @ b), scale * (a @ g.mT)


def factors(factor=lambda sigma: sigma.sqrt(), start=0):
    def low_rank(matrix, rank):
        u, sigma, vt = torch.linalg.svd(matrix, full_matrices=False)
        used = slice(start or None, rank if not start else None)
        root = factor(sigma[used])
        return root[:, None] * vt[used], u[:, used] * root

    return low_rank


def all_on_one_side(matrix, rank):
    a, b = lab.low_rank(matrix, rank)
    size = a.norm(dim=1)
    return a * size[:, None], b / size


def swapped(matrix, rank):
    return lab.low_rank(matrix, rank)[::-1]


def merge_by(change, guard=True, keeps="clone", sets=True):
    """Return a layer whose merge() calls `change(weight, layer)`, with parts left out."""

    class Layer(lab.LoraLinear):
        def merge(self, keep=False):
            if guard and self.merged:
                raise RuntimeError
            weight = self.base.weight
            copies = {"clone": weight.detach().clone(), "view": weight.detach(), "no": None}
            self.original = copies[keeps] if keep or keeps == "always" else None
            change(weight, self)
            self.merged = sets

    return Layer


class CopiesBeforeItRefuses(lab.LoraLinear):
    def merge(self, keep=False):
        self.original = self.base.weight.detach().clone() if keep else None
        super().merge(keep)


def adds(weight, layer, factor=1.0):
    with torch.no_grad():
        weight += factor * layer.delta()


def adds_without_the_factor(weight, layer):
    with torch.no_grad():
        weight += layer.B @ layer.A


def adds_in_the_graph(weight, layer):
    weight += layer.delta()


def makes_a_new_parameter(weight, layer):
    layer.base.weight = torch.nn.Parameter((weight + layer.delta()).detach())


def replaces(model, targets, rank, alpha, match, frozen=True, kind=torch.nn.Linear):
    """Insert adapters where `match(name, targets)` holds."""
    targets = set(targets)
    for name, module in list(model.named_modules()):
        if isinstance(module, kind) and match(name, targets):
            model.set_submodule(name, lab.LoraLinear(module, rank, alpha))
    if not lab.adapters(model):
        raise ValueError
    if frozen:
        lab.freeze_base(model)
    return model


def last(name, targets):
    return name.split(".")[-1] in targets


def by_prefix(*given):
    return replaces(*given, lambda name, targets: name.split(".")[-1].startswith(tuple(targets)))


def by_full_name(*given):
    return replaces(*given, lambda name, targets: name in targets)


def forgets_to_freeze(*given):
    return replaces(*given, last, frozen=False)


def returns_no_model(*given):
    replaces(*given, last)


def swaps_rank_and_alpha(model, targets, rank, alpha):
    targets = set(targets)
    lab.insert(model, targets, rank, alpha)
    for layer in lab.adapters(model).values():
        layer.alpha = rank
    return model


def refuses_no_name(model, targets, rank, alpha):
    try:
        return lab.insert(model, targets, rank, alpha)
    except ValueError:
        return model


def reads_targets_in_the_loop(model, targets, rank, alpha):
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name.split(".")[-1] in targets:
            model.set_submodule(name, lab.LoraLinear(module, rank, alpha))
    if not lab.adapters(model):
        raise ValueError
    lab.freeze_base(model)
    return model


def adapts_adapters(model, targets, rank, alpha):
    targets = set(targets)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and set(name.split(".")) & targets:
            model.set_submodule(name, lab.LoraLinear(module, rank, alpha))
    if not lab.adapters(model):
        raise ValueError
    lab.freeze_base(model)
    return model


WRONG = [
    ("low_rank", factors(lambda sigma: sigma), "√σ in each"),
    ("low_rank", factors(lambda sigma: sigma**0), "directions alone have no size"),
    ("low_rank", factors(start=-2), "the smallest directions"),
    ("low_rank", all_on_one_side, "each direction's size evenly"),
    ("low_rank", lambda *_: None, "expected two tensors"),
    ("low_rank", swapped, "A and B are swapped"),
    ("LoraLinear.forward", layer(update=False), "the update isn't added"),
    ("LoraLinear.forward", layer(base=False), "the base's own output is missing"),
    ("LoraLinear.forward", layer(scale=lambda *_: 1), "the factor alpha / rank is missing"),
    ("LoraLinear.forward", layer(scale=lambda a, _: a), "multiplied by alpha alone"),
    ("LoraLinear.forward", layer(scale=lambda a, r: r / a), "is it rank / alpha"),
    ("LoraLinear.forward", layer(scale=lambda a, r: a / math.sqrt(r)), "alpha / √rank"),
    ("LoraLinear.forward", layer(twice=1.0), "the bias is scaled or added twice"),
    ("LoraLinear.forward", layer(merged=False), "it is added twice"),
    ("LoraLinear.forward", Detached, "no gradient reaches A"),
    ("LoraLinear.forward", MakesTheMatrix, "makes a matrix of 4 × 6"),
    ("LoraLinear.forward", None, "expected a class, got nothing"),
    ("LoraLinear.merge", merge_by(lambda *_: None), "the weight hasn't changed"),
    ("LoraLinear.merge", merge_by(adds_without_the_factor), "the factor alpha / rank is missing"),
    ("LoraLinear.merge", merge_by(partial(adds, factor=-1.0)), "the update is subtracted"),
    ("LoraLinear.merge", merge_by(adds_in_the_graph), "work under torch.no_grad"),
    ("LoraLinear.merge", merge_by(makes_a_new_parameter), "the weight is a new object"),
    ("LoraLinear.merge", merge_by(adds, guard=False), "a second merge adds the update twice"),
    ("LoraLinear.merge", merge_by(adds, keeps="view"), "clone it before you add"),
    ("LoraLinear.merge", merge_by(adds, keeps="no"), "must hold the weight as it was"),
    ("LoraLinear.merge", merge_by(adds, sets=False), "set self.merged to True"),
    ("LoraLinear.merge", CopiesBeforeItRefuses, "must leave self.original"),
    ("freeze_base", freezes_all, "nothing is trainable"),
    ("freeze_base", freezes_nothing, "everything is trainable; freeze"),
    ("freeze_base", freezes_by_name, "is it by name"),
    ("freeze_base", trains_every_a_and_b, "decay.A belongs to no adapter"),
    ("freeze_base", freezes_the_bases_alone, "lora_gate is a base layer|norms"),
    ("freeze_base", unfreezes_entire_layers, "own base layer is still trainable"),
    ("freeze_base", trains_b_alone, "A isn't trainable"),
    ("freeze_base", makes_new_ones, "an optimizer would miss"),
    ("freeze_base", zeroes_what_it_freezes, "other values than before"),
    ("insert", by_prefix, "compare the last part of the name exactly"),
    ("insert", by_full_name, "look at modules inside of modules"),
    ("insert", forgets_to_freeze, "everything is trainable"),
    ("insert", returns_no_model, "must return the model that it changed"),
    ("insert", swaps_rank_and_alpha, "has rank 2 and alpha 2"),
    ("insert", refuses_no_name, "raise a ValueError"),
    ("insert", adapts_adapters, "a second adapter"),
    ("insert", reads_targets_in_the_loop, "can be read only once"),
    ("adapter_state", a_view_of_each, "clone each tensor"),
    ("adapter_state", copies_with_the_strides, "isn't contiguous"),
    ("adapter_state", the_full_state, "A and B alone"),
    ("adapter_state", own_names, "peft calls them"),
    ("adapter_state", without_the_prefix, "begin with base_model.model"),
    ("adapter_state", still_in_the_graph, "detach it"),
    ("adapter_state", b_alone, "a key for each A and B"),
    ("factor_gradients", gradients_by(unscaled), "A: the factor scale is missing"),
    ("factor_gradients", gradients_by(right, unscaled), "B: the factor scale is missing"),
    ("factor_gradients", gradients_by(lambda g, scale: g / scale), "divided by scale"),
    ("factor_gradients", gradients_by(lambda g, scale: -scale * g), "has no minus"),
    ("factor_gradients", gradients_by(order=-1), "the gradients are swapped"),
    ("factor_gradients", transposed_gradients, "A's gradient has A's shape"),
]
