"""Wrong solutions of LLM06+: what a learner might plausibly hand in, and the message."""

import math

from labs.llm06_attention import lesson as lab

import torch


def tiles(rescale_total=True, rescale_mixed=True, start=-math.inf, stable=True, power=0.5):
    def attend(q, k, v, block=32):
        top = q.new_full((*q.shape[:-1], 1), start)
        total = 0.0
        mixed = 0.0
        for keys, values in zip(k.split(block, -2), v.split(block, -2), strict=True):
            scores = q @ keys.mT / q.shape[-1] ** power
            largest = torch.maximum(top, scores.amax(-1, keepdim=True))
            new = largest if stable else torch.zeros_like(largest)
            shrink = (top - new).exp() if stable else 1.0
            weights = (scores - new).exp()
            total = total * (shrink if rescale_total else 1) + weights.sum(-1, keepdim=True)
            mixed = mixed * (shrink if rescale_mixed else 1) + weights @ values
            top = new
        return mixed / total

    return attend


def only_pretends_to_tile(q, k, v, **_block):
    return lab.attention(q, k, v)


def tiles_the_queries(q, k, v, block=32):
    return torch.cat([lab.attention(part, k, v) for part in q.split(block, -2)], -2)


def forgets_to_divide(q, k, v, **_block):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return (scores - scores.amax(-1, keepdim=True)).exp() @ v


def a_softmax_for_each_tile(q, k, v, block=32):
    parts = zip(k.split(block, -2), v.split(block, -2), strict=True)
    return torch.stack([lab.attention(q, keys, values) for keys, values in parts]).mean(0)


def joined(k, v, cache):
    return (k, v) if cache is None else (torch.cat((cache[0], k), -2), torch.cat((cache[1], v), -2))


def cache_without_a_mask(q, k, v, cache=None):
    k, v = joined(k, v, cache)
    return lab.attention(q, k, v), (k, v)


def cache_masked_top_left(q, k, v, cache=None):
    k, v = joined(k, v, cache)
    mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    return lab.attention(q, k, v, mask), (k, v)


def cache_unused(q, k, v, cache=None):
    mask = lab.causal_mask(q.shape[-2], q.shape[-2])
    return lab.attention(q, k, v, mask), joined(k, v, cache)


def cache_of_new_tokens_alone(q, k, v, cache=None):
    k_all, v_all = joined(k, v, cache)
    mask = lab.causal_mask(q.shape[-2], k_all.shape[-2])
    return lab.attention(q, k_all, v_all, mask), (k, v)


def outputs_alone(q, k, v, cache=None):
    return cache_without_a_mask(q, k, v, cache)[0]


def silencer(part, clone=True, answer=True, handle=True):
    """Return a solution that sets the coordinates `part(head, width, size)` to 0."""

    def silence(projection, head, width):
        def hook(_, inputs):
            mixed = inputs[0].clone() if clone else inputs[0]
            mixed[..., part(head, width, mixed.shape[-1])] = 0
            return (mixed,) if answer else None

        registered = projection.register_forward_pre_hook(hook)
        return registered if handle else None

    return silence


def its_coordinates(head, width, _size):
    return slice(head * width, (head + 1) * width)


def silences_outputs(projection, head, width):
    def hook(_module, _inputs, output):
        output = output.clone()
        output[..., its_coordinates(head, width, 0)] = 0
        return output

    return projection.register_forward_hook(hook)


def silences_the_others(projection, head, width):
    def hook(_, inputs):
        mixed = torch.zeros_like(inputs[0])
        part = its_coordinates(head, width, 0)
        mixed[..., part] = inputs[0][..., part]
        return (mixed,)

    return projection.register_forward_pre_hook(hook)


def silences_weights(projection, head, width):
    with torch.no_grad():
        projection.weight[:, its_coordinates(head, width, 0)] = 0
    return projection.register_forward_pre_hook(lambda _, inputs: inputs)


WRONG = [
    ("silence", silencer(its_coordinates, clone=False), "clone it first"),
    ("silence", silencer(its_coordinates, answer=False), "does the hook return"),
    ("silence", silencer(its_coordinates, handle=False), "return the handle"),
    ("silence", silencer(lambda head, width, size: slice(head, None, size // width)), "every H-th"),
    (
        "silence",
        silencer(lambda head, width, _: slice(head, head + width)),
        "start at head · width",
    ),
    (
        "silence",
        silencer(lambda head, width, _: slice(max(head - 1, 0) * width, max(head, 1) * width)),
        "counted from 0",
    ),
    ("silence", silences_outputs, "a pre-hook changes its input"),
    ("silence", silences_the_others, "all other heads are silenced"),
    ("silence", silences_weights, "the weights have changed"),
    ("attend_with_cache", cache_without_a_mask, "sees later new tokens"),
    ("attend_with_cache", cache_masked_top_left, "aligned top-left"),
    ("attend_with_cache", cache_unused, "don't see the cache"),
    ("attend_with_cache", cache_of_new_tokens_alone, "only the new keys"),
    ("attend_with_cache", outputs_alone, "return two things"),
    (
        "tiled_attention",
        tiles(rescale_total=False, rescale_mixed=False),
        "the sum and the values so far aren't rescaled",
    ),
    ("tiled_attention", tiles(rescale_total=False), "the sum so far isn't rescaled"),
    ("tiled_attention", tiles(rescale_mixed=False), "the values so far aren't rescaled"),
    ("tiled_attention", tiles(stable=False), "does exp overflow"),
    ("tiled_attention", tiles(start=0.0), "start above them"),
    ("tiled_attention", tiles(power=1.0), "divided by d, not by √d"),
    ("tiled_attention", only_pretends_to_tile, "entire rows of scores"),
    ("tiled_attention", tiles_the_queries, "split the keys, not the queries"),
    ("tiled_attention", forgets_to_divide, "division by the sum, at the end, is missing"),
    ("tiled_attention", a_softmax_for_each_tile, "one common denominator"),
]
