"""Plausible wrong solutions of LLM10's exercises, each with the message that names its mistake."""

from labs.llm01_inference import draw, top_p
from labs.llm10_llama import lesson as lab

import torch
import torch.nn.functional as F


def rows_as_they_are(rows, _head_dim):
    return rows


def one_head(rows, _head_dim):
    return torch.cat((rows[::2], rows[1::2]))


def columns(rows, head_dim):
    return lab.to_halves(rows.T, head_dim).T


def odd_first(rows, head_dim):
    pairs = rows.unflatten(0, (-1, head_dim // 2, 2)).flip(2)
    return pairs.transpose(1, 2).flatten(0, 2)


def cache(count=True, every=False, returned="all", look=True, anew=False, swap=False, front=False):
    """Return a KVCache with mistakes: without arguments it is right."""

    class Cache(lab.KVCache):
        def extend(self, layer, k, v):
            start = self.filled[layer]
            end = start + k.shape[2]
            if look and end > self.room:
                raise ValueError
            if anew:
                self.keys[layer] = torch.cat((self.keys[layer][:, :, :start], k), 2)
                self.values[layer] = torch.cat((self.values[layer][:, :, :start], v), 2)
            else:
                space = self.keys[layer][:, :, start:end].shape[2]
                where = slice(0, space) if front else slice(start, end)
                self.keys[layer][:, :, where] = k[:, :, :space]
                self.values[layer][:, :, where] = v[:, :, :space]
            for i in range(len(self.filled)) if every else [layer] * count:
                self.filled[i] = end
            if returned == "new":
                return k, v
            cut = None if returned == "room" else end
            keys = self.keys[layer][:, :, :cut]
            values = self.values[layer][:, :, :cut]
            return (values, keys) if swap else (keys, values)

    return Cache


class Attending(lab.Attention):
    """The reference, its steps apart, so that a subclass gets one of them wrong."""

    turned = "qk"
    turns_before_caching = True
    uses_the_cache = True
    caches = True

    def merge(self, y):
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def attend(self, q, k, v):
        return self.mix(q, k, v)

    def forward(self, x, turns=None, extend=None):
        projections = {"q": self.q_proj, "k": self.k_proj, "v": self.v_proj}
        heads = {n: f(x).unflatten(-1, (-1, self.head_dim)) for n, f in projections.items()}
        raw = heads["k"].transpose(1, 2)
        if turns is not None:
            heads |= {name: lab.turn(heads[name], turns) for name in self.turned}
        q, k, v = (y.transpose(1, 2) for y in heads.values())
        if extend is not None and self.caches:
            cached = extend(k if self.turns_before_caching else raw, v)
            k, v = cached if self.uses_the_cache else (k, v)
        return self.merge(self.attend(q, k, v))


class NothingTurned(Attending):
    turned = ""


class ValuesTurned(Attending):
    turned = "qkv"


class KeysNotTurned(Attending):
    turned = "q"


class CachedUnturned(Attending):
    turns_before_caching = False


class CachedForNothing(Attending):
    uses_the_cache = False


class NotCached(Attending):
    caches = False


class NoTransposeBack(Attending):
    def merge(self, y):
        return self.o_proj(y.reshape(y.shape[0], y.shape[2], -1))


class NoLastMatrix(Attending):
    def merge(self, y):
        return y.transpose(1, 2).flatten(2)


class HeadsRepeated(Attending):
    def attend(self, q, k, v):
        times = q.shape[1] // k.shape[1]
        return self.mix(q, k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1))


class LooksAhead(Attending):
    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def two_groups(first, rest, decay):
    return [{"params": first, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


def shared_twice(model, decay):
    named = dict(model.named_parameters(remove_duplicate=False)).values()
    trained = [p for p in named if p.requires_grad]
    return two_groups(
        [p for p in trained if p.dim() > 1], [p for p in trained if p.dim() < 2], decay
    )


def everything_decays(model, decay):
    return two_groups([p for p in model.parameters() if p.requires_grad], [], decay)


def by_name(model, decay):
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    spared = [p for n, p in named if "norm" in n or p.dim() < 2]
    return two_groups([p for n, p in named if "norm" not in n and p.dim() > 1], spared, decay)


def embedding_spared(model, decay):
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    spared = [p for n, p in named if "embed" in n or p.dim() < 2]
    return two_groups([p for n, p in named if "embed" not in n and p.dim() > 1], spared, decay)


def frozen_too(model, decay):
    every = list(model.parameters())
    return two_groups([p for p in every if p.dim() > 1], [p for p in every if p.dim() < 2], decay)


def groups_swapped(model, decay):
    return lab.decay_groups(model, decay)[::-1]


def cut_first(logits, temperature=1.0, p=1.0):
    return lab.choose(top_p(logits, p), temperature)


def never_cut(logits, temperature=1.0, p=1.0):  # noqa: ARG001
    return lab.choose(logits, temperature)


def multiplied(logits, temperature=1.0, p=1.0):
    if temperature == 0:
        return logits.argmax(-1)
    return draw(top_p(logits * temperature, p))[..., 0]


def drawn_cold(logits, temperature=1.0, p=1.0):
    if temperature == 0:
        return logits.argmax(-1)
    kept = top_p(logits / temperature, p)
    return draw(logits.masked_fill(kept.isinf(), -torch.inf))[..., 0]


def without_the_crossing_token(logits, temperature=1.0, p=1.0):
    """The first token always stays: learners add that after `draw` fails on NaN."""
    if temperature == 0:
        return logits.argmax(-1)
    divided = logits / temperature
    ordered, where = divided.sort(-1, descending=True)
    in_order = ordered.softmax(-1).cumsum(-1) <= p
    in_order[..., 0] = True
    stays = torch.zeros_like(in_order).scatter(-1, where, in_order)
    return draw(divided.masked_fill(~stays, -torch.inf))[..., 0]


def rows_alone(logits, temperature=1.0, p=1.0):
    """torch.multinomial takes one or two axes."""
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial(top_p(logits / temperature, p).softmax(-1), 1)[..., 0]


def ranks(logits, temperature=1.0, p=1.0):
    if temperature == 0:
        return logits.argmax(-1)
    return draw(top_p((logits / temperature).sort(-1, descending=True).values, p))[..., 0]


def always_the_likeliest(logits, temperature=1.0, p=1.0):  # noqa: ARG001
    return logits.argmax(-1)


def square_root_of_the_temperature(logits, temperature=1.0, p=1.0):
    """The check doesn't know this mistake, so it must name no cause."""
    return lab.choose(logits, temperature**0.5, p)


def one_axis_too_many(logits, temperature=1.0, p=1.0):
    return logits.argmax(-1) if temperature == 0 else draw(top_p(logits / temperature, p))


def blind(_model):
    return ""


def always_cries_wolf(model):
    return lab.diagnose(model) or "the two ends aren't tied"


def equal_is_tied(model):
    found = lab.diagnose(model)
    same = torch.equal(model.lm_head.weight, model.embed_tokens.weight)
    return "" if found == "the two ends aren't tied" and same else found


def order_of_questions(model):
    found = lab.diagnose(model)
    return "the last norm is missing" if found == "there are no positions" else found


def breaks_what_it_looks_at(model):
    found = lab.diagnose(model)
    with torch.no_grad():
        model.embed_tokens.weight.mul_(2)
    return found


def says_none(model):
    return lab.diagnose(model) or None


WRONG = [
    ("to_halves", rows_as_they_are, "stayed where it was"),
    ("to_halves", lab.to_neighbours, "this is the inverse"),
    ("to_halves", one_head, "all rows for one head"),
    ("to_halves", columns, "columns changed places"),
    ("to_halves", odd_first, "even rows come first"),
    ("KVCache.extend", cache(returned="room"), "empty room"),
    ("KVCache.extend", cache(returned="new"), "only the new tokens are returned"),
    ("KVCache.extend", cache(front=True), "replaced the first"),
    ("KVCache.extend", cache(count=False), "self.filled isn't updated"),
    ("KVCache.extend", cache(every=True), "updated for every layer"),
    ("KVCache.extend", cache(anew=True), "you replaced the room"),
    ("KVCache.extend", cache(look=False), "raise a ValueError: a slice"),
    ("KVCache.extend", cache(swap=True), "keys and values are swapped"),
    ("Attention.forward", NothingTurned, "nothing is turned"),
    ("Attention.forward", ValuesTurned, "values are turned too"),
    ("Attention.forward", KeysNotTurned, "the keys aren't turned"),
    ("Attention.forward", CachedUnturned, "before they are turned"),
    ("Attention.forward", CachedForNothing, "isn't used"),
    ("Attention.forward", NotCached, "call `extend` once"),
    ("Attention.forward", NoTransposeBack, "without transposing back"),
    ("Attention.forward", NoLastMatrix, "o_proj, is missing"),
    ("Attention.forward", HeadsRepeated, "share key-value head 0"),
    ("Attention.forward", LooksAhead, "must not look ahead"),
    ("choose", cut_first, "cut comes before the temperature"),
    ("choose", without_the_crossing_token, "the token that crosses p is missing"),
    ("choose", rows_alone, r"\(2, 3, 9\) raised RuntimeError"),
    ("choose", ranks, "got ranks"),
    ("choose", always_the_likeliest, "is anything drawn"),
    (
        "choose",
        square_root_of_the_temperature,
        "logits that stay; of 4,000 draws .* expected shares of 0.33, 0.25, 0.42, got",
    ),
    ("choose", never_cut, "is the cut missing"),
    ("choose", multiplied, "multiplied by the temperature"),
    ("choose", drawn_cold, "the draw doesn't use the temperature"),
    ("choose", one_axis_too_many, r"take \[\.\.\., 0\]"),
    ("decay_groups", shared_twice, "is listed twice"),
    ("decay_groups", everything_decays, "gains and biases decay"),
    ("decay_groups", by_name, "spared because of its name"),
    ("decay_groups", embedding_spared, "the tied matrix must decay"),
    ("decay_groups", frozen_too, "an untrained parameter"),
    ("decay_groups", groups_swapped, "the groups are swapped"),
    ("diagnose", blind, "expected “the future is seen”, got no bug"),
    ("diagnose", always_cries_wolf, "expected no bug in a correct model"),
    ("diagnose", equal_is_tied, "expected “the two ends aren't tied”, got no bug"),
    ("diagnose", order_of_questions, "got “the last norm is missing”"),
    ("diagnose", breaks_what_it_looks_at, "your function changed the model"),
    ("diagnose", says_none, "or an empty string, got None"),
]
