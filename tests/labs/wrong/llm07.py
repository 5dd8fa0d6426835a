"""Wrong solutions that a learner might write for LLM07, and the message that each must get."""

import math

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


def swap_by(put, check=True, old=lab.adapter_state, merged=True):
    def swap(model, state):
        before = old(model)
        layers = lab.adapters(model)
        if check and {k: v.shape for k, v in before.items()} != {
            k: v.shape for k, v in state.items()
        }:
            raise ValueError
        if merged and any(layer.merged for layer in layers.values()):
            raise ValueError
        with torch.no_grad():
            for name, layer in layers.items():
                for letter in "AB":
                    put(layer, letter, state[f"base_model.model.{name}.lora_{letter}.weight"])
        return before

    return swap


def copies(layer, letter, tensor):
    getattr(layer, letter).copy_(tensor)


def shares(layer, letter, tensor):
    getattr(layer, letter).data = tensor


def copies_b(layer, letter, tensor):
    if letter == "B":
        layer.B.copy_(tensor)


def checks_as_it_writes(model, state):
    before = lab.adapter_state(model)
    if any(layer.merged for layer in lab.adapters(model).values()):
        raise ValueError
    with torch.no_grad():
        for name, layer in lab.adapters(model).items():
            for letter in "AB":
                key = f"base_model.model.{name}.lora_{letter}.weight"
                if key not in state or state[key].shape != getattr(layer, letter).shape:
                    raise ValueError
                copies(layer, letter, state[key])
    return before


def returns_nothing(model, state):
    lab.swap(model, state)


def refuses_all(*_):
    raise ValueError("no")


def empties_the_dict(model, state):
    before = lab.swap(model, state)
    state.clear()
    return before


def overwrites_the_base(model, state):
    for layer in lab.adapters(model).values():
        layer.merge()
        layer.merged = False
    return lab.swap(model, state)


def factors(factor=lambda sigma, rank, alpha: (sigma * rank / alpha).sqrt(), start=0):
    def low_rank(delta, rank, alpha):
        u, sigma, vt = torch.linalg.svd(delta, full_matrices=False)
        used = slice(start or None, rank if not start else None)
        root = factor(sigma[used], rank, alpha)
        return root[:, None] * vt[used], u[:, used] * root

    return low_rank


def all_on_one_side(delta, rank, alpha):
    a, b = lab.low_rank(delta, rank, alpha)
    size = a.norm(dim=1)
    return a * size[:, None], b / size


def swapped(delta, rank, alpha):
    return lab.low_rank(delta, rank, alpha)[::-1]


WRONG = [
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
    ("freeze_base", freezes_all, "nothing is trainable"),
    ("freeze_base", freezes_nothing, "everything is trainable; freeze"),
    ("freeze_base", freezes_by_name, "is it by name"),
    ("freeze_base", freezes_the_bases_alone, "lora_gate is a base layer|norms"),
    ("freeze_base", unfreezes_entire_layers, "own base layer is still trainable"),
    ("freeze_base", trains_b_alone, "A isn't trainable"),
    ("freeze_base", makes_new_ones, "an optimizer would miss"),
    ("freeze_base", zeroes_what_it_freezes, "other values than before"),
    ("adapter_state", a_view_of_each, "clone each tensor"),
    ("adapter_state", the_full_state, "A and B alone"),
    ("adapter_state", own_names, "peft calls them"),
    ("adapter_state", without_the_prefix, "begin with base_model.model"),
    ("adapter_state", still_in_the_graph, "detach it"),
    ("adapter_state", b_alone, "a key for each A and B"),
    ("swap", swap_by(lambda *_: None), "copy the new values"),
    ("swap", swap_by(copies_b), "A isn't the new adapter's"),
    ("swap", swap_by(shares), "don't share them"),
    ("swap", swap_by(copies, old=a_view_of_each), "copy the old one before"),
    ("swap", swap_by(copies, merged=False), "is merged, but it isn't refused"),
    ("swap", swap_by(copies, check=False), "expected a ValueError, got KeyError"),
    ("swap", checks_as_it_writes, "already overwritten"),
    ("swap", returns_nothing, "expected a dict of tensors by name"),
    ("swap", refuses_all, "refuses an adapter that fits"),
    ("swap", empties_the_dict, "the dict that was passed in has changed"),
    ("swap", overwrites_the_base, "only A and B belong to the adapter"),
    ("low_rank", factors(lambda s, _r, _a: s.sqrt()), "the layer will multiply"),
    ("low_rank", factors(lambda s, r, a: (s * a / r).sqrt()), "the layer does so again"),
    ("low_rank", factors(lambda s, r, a: s.sqrt() * r / a), "it counts twice"),
    ("low_rank", factors(lambda s, _r, a: (s / a).sqrt()), "divides by alpha alone"),
    ("low_rank", factors(lambda s, r, a: s * (r / a) ** 0.5), "√σ in each"),
    ("low_rank", factors(lambda s, r, a: s**0 * (r / a) ** 0.5), "directions alone have no size"),
    ("low_rank", factors(start=-2), "the smallest directions"),
    ("low_rank", all_on_one_side, "each direction's size evenly"),
    (
        "low_rank",
        lambda *given: lab.low_rank(*given) if given[1] == 2 else None,
        "expected two tensors",
    ),
    ("low_rank", swapped, "A and B are swapped"),
]
