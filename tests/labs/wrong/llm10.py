"""Wrong solutions of LLM10: each is what a learner might plausibly hand in, and what it is told."""

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


def cache(write=True, count=True, every=False, returned="all", look=True, anew=False, swap=False,
          front=False):  # fmt: skip
    class Cache(lab.KVCache):
        def extend(self, layer, k, v):
            start, end = self.filled[layer], self.filled[layer] + k.shape[2]
            if look and end > self.room:
                raise ValueError
            if anew:
                self.keys[layer] = torch.cat((self.keys[layer][:, :, :start], k), 2)
                self.values[layer] = torch.cat((self.values[layer][:, :, :start], v), 2)
            elif write:
                space = self.keys[layer][:, :, start:end].shape[2]
                where = slice(0, space) if front else slice(start, end)
                self.keys[layer][:, :, where] = k[:, :, :space]
                self.values[layer][:, :, where] = v[:, :, :space]
            for i in range(len(self.filled)) if every else [layer] * count:
                self.filled[i] = end
            if returned == "new":
                return k, v
            cut = None if returned == "room" else end
            a, b = self.keys[layer][:, :, :cut], self.values[layer][:, :, :cut]
            return (b, a) if swap else (a, b)

    return Cache


class Attending(lab.Attention):
    """The reference with its steps apart, for a mistake to be put in one of them."""

    turned = "qk"
    turns_before_keeping = True
    uses_what_is_kept = True
    keeps = True

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
        if extend is not None and self.keeps:
            kept = extend(k if self.turns_before_keeping else raw, v)
            k, v = kept if self.uses_what_is_kept else (k, v)
        return self.merge(self.attend(q, k, v))


class NothingTurned(Attending):
    turned = ""


class ValuesTurned(Attending):
    turned = "qkv"


class KeysNotTurned(Attending):
    turned = "q"


class KeptUnturned(Attending):
    turns_before_keeping = False


class KeptForNothing(Attending):
    uses_what_is_kept = False


class NotKept(Attending):
    keeps = False


class NoTransposeBack(Attending):
    def merge(self, y):
        return self.o_proj(y.reshape(y.shape[0], y.shape[2], -1))


class NoLastMatrix(Attending):
    def merge(self, y):
        return y.transpose(1, 2).flatten(2)


class HeadsDealtOut(Attending):
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


def without_what_crosses(logits, temperature=1.0, p=1.0):
    """The first token stays by itself, as one writes it once draw has failed on NaN."""
    if temperature == 0:
        return logits.argmax(-1)
    ordered, where = (logits / temperature).sort(-1, descending=True)
    kept = ordered.softmax(-1).cumsum(-1) <= p
    kept[..., 0] = True
    return draw(
        (logits / temperature).masked_fill(
            ~torch.zeros_like(kept).scatter(-1, where, kept), -torch.inf
        )
    )[..., 0]


def rows_alone(logits, temperature=1.0, p=1.0):
    """torch.multinomial takes one axis or two."""
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
    """Nothing that the check knows: it must name no cause."""
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
    ("to_halves", lab.to_neighbours, "the way back"),
    ("to_halves", one_head, "taken for one head"),
    ("to_halves", columns, "columns changed places"),
    ("to_halves", odd_first, "even rows come first"),
    ("KVCache.extend", cache(returned="room"), "empty room"),
    ("KVCache.extend", cache(returned="new"), "only the new ones came back"),
    ("KVCache.extend", cache(front=True), "replaced the first"),
    ("KVCache.extend", cache(count=False), "isn't counted up"),
    ("KVCache.extend", cache(every=True), "every layer was counted up"),
    ("KVCache.extend", cache(anew=True), "made anew"),
    ("KVCache.extend", cache(look=False), "must be a ValueError"),
    ("KVCache.extend", cache(swap=True), "keys and values are swapped"),
    ("Attention.forward", NothingTurned, "nothing is turned"),
    ("Attention.forward", ValuesTurned, "values are turned, too"),
    ("Attention.forward", KeysNotTurned, "the keys aren't turned"),
    ("Attention.forward", KeptUnturned, "before they are turned"),
    ("Attention.forward", KeptForNothing, "isn't used"),
    ("Attention.forward", NotKept, "must be called once"),
    ("Attention.forward", NoTransposeBack, "without a transpose back"),
    ("Attention.forward", NoLastMatrix, "o_proj, is missing"),
    ("Attention.forward", HeadsDealtOut, "share key-value head 0"),
    ("Attention.forward", LooksAhead, "must not look ahead"),
    ("decay_groups", shared_twice, "comes twice"),
    ("decay_groups", everything_decays, "gains and biases are pulled"),
    ("decay_groups", by_name, "spared for its name"),
    ("decay_groups", embedding_spared, "the shared matrix must decay"),
    ("decay_groups", frozen_too, "isn't trained"),
    ("decay_groups", groups_swapped, "the matrices come first"),
    ("choose", cut_first, "cut comes before the temperature"),
    ("choose", without_what_crosses, "the token that crosses p is missing"),
    ("choose", rows_alone, r"\(2, 3, 9\) raised RuntimeError"),
    ("choose", ranks, "ranks came"),
    ("choose", always_the_likeliest, "is anything drawn"),
    (
        "choose",
        square_root_of_the_temperature,
        "of what is left; of 4,000 draws .* should be 0.33, 0.25, 0.42, not",
    ),
    ("choose", never_cut, "is the cut missing"),
    ("choose", multiplied, "multiplied by the temperature"),
    ("choose", drawn_cold, "isn't at the temperature"),
    ("choose", one_axis_too_many, r"take \[\.\.\., 0\]"),
    ("diagnose", blind, "taken for sound, but the future is seen"),
    ("diagnose", always_cries_wolf, "a sound model was told"),
    ("diagnose", equal_is_tied, "taken for sound, but the two ends"),
    ("diagnose", order_of_questions, "was taken for"),
    ("diagnose", breaks_what_it_looks_at, "the model was changed"),
    ("diagnose", says_none, "or an empty string"),
]
