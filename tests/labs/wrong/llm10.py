"""Plausible wrong solutions of LLM10's exercises, each with the message that names its mistake."""

from functools import partial

from labs.llm10_llama import lesson as lab

import torch
import torch.nn.functional as F


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
        return self.mix(q, k, v, self.mask)

    def forward(self, x, turns=None, extend=None, mask=None):
        self.mask = mask
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


class MaskForgotten(Attending):
    def forward(self, x, turns=None, extend=None, mask=None):  # noqa: ARG002
        return super().forward(x, turns, extend)


def not_turned(x, _turns):
    return x


def backwards(x, turns):
    return lab.turn(x, turns.conj())


def in_halves(x, turns):
    a, b = x.chunk(2, -1)
    turned = torch.complex(a, b) * turns
    return torch.cat((turned.real, turned.imag), -1)


def real_parts_first(x, turns):
    turned = lab.turn(x, turns)
    return torch.cat((turned[..., ::2], turned[..., 1::2]), -1)


def no_bfloat16(x, turns):
    pairs = torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).view(x.shape)


def stays_wide(x, turns):
    return lab.turn(x.float() if x.dtype == torch.bfloat16 else x, turns)


class Blocked(lab.Block):
    """Branches that subclasses get wrong."""

    def attend(self, x, *rest):
        return self.self_attn(self.input_layernorm(x), *rest)

    def feed(self, x):
        return self.mlp(self.post_attention_layernorm(x))


class OldInput(Blocked):
    def forward(self, x, turns, extend=None, mask=None):
        return x + self.attend(x, turns, extend, mask) + self.feed(x)


class PostNorm(Blocked):
    def forward(self, x, turns, extend=None, mask=None):
        x = self.input_layernorm(x + self.self_attn(x, turns, extend, mask))
        return self.post_attention_layernorm(x + self.mlp(x))


class AddedToNormed(Blocked):
    def forward(self, x, turns, extend=None, mask=None):
        x = self.input_layernorm(x)
        x = x + self.self_attn(x, turns, extend, mask)
        x = self.post_attention_layernorm(x)
        return x + self.mlp(x)


class NoSecondAddition(Blocked):
    def forward(self, x, turns, extend=None, mask=None):
        return self.feed(x + self.attend(x, turns, extend, mask))


class ArgumentsForgotten(Blocked):
    def forward(self, x, turns, extend=None, mask=None):  # noqa: ARG002
        x = x + self.attend(x, turns)
        return x + self.feed(x)


class CopyTied(lab.Llama):
    def tie(self):
        with torch.no_grad():
            self.lm_head.weight.copy_(self.embed_tokens.weight)


class DataTied(lab.Llama):
    def tie(self):
        self.lm_head.weight.data = self.embed_tokens.weight.data


class TiedTheOtherWay(lab.Llama):
    def tie(self):
        self.embed_tokens.weight = self.lm_head.weight


class NotTied(lab.Llama):
    def tie(self):
        pass


class Passing(lab.Llama):
    """The reference, its steps apart, so that a subclass gets one of them wrong."""

    positions_continue = True
    caches = True
    normed = True
    masked = True
    all_keys = True
    layer_of = staticmethod(lambda i: i)

    def passed(self, x, blocks):
        for block in blocks:
            x = block(x)
        return x

    def out(self, x):
        return self.lm_head(self.norm(x) if self.normed else x)

    def forward(self, tokens, cache=None, padding=None, last=False):
        length = tokens.shape[1]
        before = 0 if cache is None else cache.filled[0]
        start = before if self.positions_continue else 0
        turns = self.turns(start, length, tokens.device)
        mask = None
        if padding is not None and self.masked:
            mask = lab.padded_mask(padding, length, length + (before if self.all_keys else 0))
        blocks = []
        for i, layer in enumerate(self.layers):
            extend = None
            if cache is not None and self.caches:
                extend = partial(cache.extend, self.layer_of(i))
            blocks.append(partial(layer, turns=turns, extend=extend, mask=mask))
        x = self.passed(self.embed_tokens(tokens), blocks)
        return self.out(x[:, -1:] if last else x)


class PositionsBeginAgain(Passing):
    positions_continue = False


class NothingStored(Passing):
    caches = False


class NoLastNorm(Passing):
    normed = False


class PaddingForgotten(Passing):
    masked = False


class MaskTooNarrow(Passing):
    all_keys = False


class OneLayerOfTheCache(Passing):
    layer_of = staticmethod(lambda _: 0)


class OnlyTheLastBlock(Passing):
    def passed(self, x, blocks):
        return [block(x) for block in blocks][-1]


def writer(returns="new", rereads=False, half=2, pads="shrinks", stays=True, grad=False, cut=True):
    """Return a `generate` with mistakes: without arguments it is right."""

    def generate(model, ids, new, choose=None, padding=None):
        context = model.config.context
        prompt = ids.shape[1]
        first = max(0, prompt - context) if cut else 0
        fresh = ids[:, first:]
        with torch.enable_grad() if grad else torch.inference_mode():
            cache = model.cache(len(ids), min(context, prompt + new))
            for _ in range(new):
                if half and cache.filled[0] + fresh.shape[1] > cache.room:
                    cache = model.cache(len(ids), context)
                    first = ids.shape[1] - max(1, context // half)
                    fresh = ids[:, first:]
                shift = first if pads == "shrinks" else 0
                hidden = None if padding is None or pads == "no" else padding - shift
                fresh = choose(model(fresh, cache, hidden, last=True)[:, -1])[:, None]
                ids = torch.cat((ids, fresh), 1)
                fresh = ids if rereads else fresh
        text = ids if returns == "all" else ids[:, prompt:]
        return text.clone() if stays else text

    return generate


def returns_an_inference_tensor(model, ids, new, choose=None, padding=None):
    with torch.inference_mode():
        return writer()(model, ids, new, choose, padding)


def without_a_cache(model, ids, new, choose=None, padding=None):  # noqa: ARG001
    for _ in range(new):
        ids = torch.cat((ids, choose(model(ids)[:, -1])[:, None]), 1)
    return ids[:, -new:]


def always_greedy(model, ids, new, choose=None, padding=None):  # noqa: ARG001
    return writer()(model, ids, new, lambda logits: logits.argmax(-1), padding)


def not_shifted(model, optimizers, tokens, backward):
    logits = model(tokens[:, :-1]).flatten(0, 1)
    return finished(F.cross_entropy(logits, tokens[:, :-1].flatten()), optimizers, backward)


def finished(loss, optimizers, backward, clear=True):
    backward(loss)
    for optimizer in optimizers:
        optimizer.step()
        if clear:
            optimizer.zero_grad()
    return loss.detach()


def loss_of(model, tokens, reduction="mean"):
    logits = model(tokens[:, :-1]).flatten(0, 1)
    return F.cross_entropy(logits, tokens[:, 1:].flatten(), reduction=reduction)


def summed(model, optimizers, tokens, backward):
    return finished(loss_of(model, tokens, "sum"), optimizers, backward)


def gradients_left_over(model, optimizers, tokens, backward):
    return finished(loss_of(model, tokens), optimizers, backward, clear=False)


def first_optimizer_alone(model, optimizers, tokens, backward):
    loss = finished(loss_of(model, tokens), optimizers[:1], backward)
    optimizers[1].zero_grad()
    return loss


def cleared_before_the_step(model, optimizers, tokens, backward):
    loss = loss_of(model, tokens)
    backward(loss)
    for optimizer in optimizers:
        optimizer.zero_grad()
        optimizer.step()
    return loss.detach()


def graph_returned(model, optimizers, tokens, backward):
    loss = loss_of(model, tokens)
    finished(loss, optimizers, backward)
    return loss


def own_backward(model, optimizers, tokens, _backward):
    return finished(loss_of(model, tokens), optimizers, lambda loss: loss.backward())


WRONG = [
    ("turn", not_turned, "nothing is turned"),
    ("turn", backwards, "turns backwards"),
    ("turn", in_halves, "paired with i"),
    ("turn", real_parts_first, "real parts come first"),
    ("turn", no_bfloat16, "no complex bfloat16"),
    ("turn", stays_wide, "came back as float32"),
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
    ("Attention.forward", MaskForgotten, "mask isn't passed"),
    ("Block.forward", OldInput, "starts from the old x"),
    ("Block.forward", PostNorm, "this is Post-Norm"),
    ("Block.forward", AddedToNormed, "added to its normed input"),
    ("Block.forward", NoSecondAddition, "second branch isn't added"),
    ("Block.forward", ArgumentsForgotten, "pass turns, extend and mask on"),
    ("Llama.tie", CopyTied, "this is a copy"),
    ("Llama.tie", DataTied, "two parameters share one storage"),
    ("Llama.tie", TiedTheOtherWay, "the embedding has changed"),
    ("Llama.tie", NotTied, "still differ"),
    ("Llama.forward", PositionsBeginAgain, "positions begin at 0 again"),
    ("Llama.forward", NothingStored, "nothing is stored"),
    ("Llama.forward", NoLastNorm, "last norm is missing"),
    ("Llama.forward", PaddingForgotten, "padding isn't used"),
    ("Llama.forward", MaskTooNarrow, "no columns for the cache"),
    ("Llama.forward", OneLayerOfTheCache, "block i stores in layer i"),
    ("Llama.forward", OnlyTheLastBlock, "only the last block"),
    ("generate", without_a_cache, "without a cache"),
    ("generate", writer(rereads=True), "is read again at each step"),
    ("generate", writer(half=0), "when it is full"),
    ("generate", writer(half=8), "the last token alone"),
    ("generate", writer(half=1), "another part of the text"),
    ("generate", writer(returns="all"), "the prompt is returned"),
    ("generate", writer(grad=True), "gradients are recorded"),
    ("generate", returns_an_inference_tensor, "can't be trained on"),
    ("generate", always_greedy, "choose isn't used"),
    ("generate", writer(pads="no"), "padding isn't passed"),
    ("generate", writer(pads="stays"), "padding shrinks"),
    ("training_step", not_shifted, "one place on"),
    ("training_step", summed, "the loss is a sum"),
    ("training_step", gradients_left_over, "gradients are left over"),
    ("training_step", first_optimizer_alone, "not every optimizer"),
    ("training_step", cleared_before_the_step, "the weights are wrong"),
    ("training_step", graph_returned, "return loss.detach"),
    ("training_step", own_backward, "call backward"),
]
