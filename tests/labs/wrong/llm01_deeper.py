"""Wrong solutions of LLM01+, each with the message that names its mistake."""

import math

from labs.llm01_inference import deeper as lab

import torch
from transformers import DynamicCache


def padded(ids=None, mask=None, positions=None):
    """Return a left_pad that computes ids, mask or positions in another way."""

    def left_pad(prompts, pad=0):
        right = lab.left_pad(prompts, pad)
        changes = zip((ids, mask, positions), right, strict=True)
        return tuple(change(prompts, *right) if change else value for change, value in changes)

    return left_pad


def count_from_the_edge(_prompts, _ids, mask, _positions):
    return torch.arange(mask.shape[1]).expand_as(mask)


def on_the_right(prompts, ids, _mask, _positions):
    width = ids.shape[1]
    return torch.tensor([p + [77] * (width - len(p)) for p in prompts])


def mask_from_ids(prompts, pad=0):
    ids = lab.left_pad(prompts, pad)[0]
    mask = (ids != pad).long()
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


def strided(first=True, total=lambda sums, _: sum(sums), shift=1, new=True):
    """Return a strided_loss with a mistake in one of its steps."""

    def strided_loss(model, ids, window, stride):
        sums = []
        counts = []
        scored = 1
        while scored < len(ids):
            end = min(window if scored == 1 else scored + stride, len(ids))
            inside = ids[max(0, end - window) : end]
            logp = model(inside).log_softmax(-1)
            loss = -logp[: len(logp) - shift].gather(1, inside[shift:, None])[:, 0]
            loss = loss[-(end - scored) :] if new else loss
            sums.append(loss.sum().item())
            counts.append(len(loss))
            scored = end
        return total(sums, counts) / (len(ids) - 1 if first else len(ids))

    return strided_loss


def mean_of_means(model, ids, window, stride):
    spread = strided(total=lambda s, n: sum(a / b for a, b in zip(s, n, strict=True)) / len(s))
    return spread(model, ids, window, stride) * (len(ids) - 1)


def all_of_each_window(model, ids, window, stride):
    mean = strided(new=False, total=lambda s, n: sum(s) / sum(n))
    return mean(model, ids, window, stride) * (len(ids) - 1)


def perplexity(model, ids, window, stride):
    return math.exp(lab.strided_loss(model, ids, window, stride))


def all_text_at_once(model, ids, _window, _stride):
    return lab.strided_loss(model, ids, len(ids), 1)


def cached(prefill=lambda prompt: prompt, later=lambda ids: ids[-1:], row=-1, one_cache=True):
    """Return a generate_cached with a mistake in one of its steps."""

    def generate_cached(model, prompt, new):
        cache = DynamicCache(config=model.config)
        ids = list(prompt)
        fresh = prefill(ids)
        for _ in range(new):
            cache = cache if one_cache else DynamicCache(config=model.config)
            logits = model(torch.tensor([fresh]), cache=cache, use_cache=True).logits
            ids.append(int(logits[0, row].argmax()))
            fresh = later(ids)
        return ids[len(prompt) :]

    return generate_cached


def returns_the_prompt_too(model, prompt, new):
    return prompt + lab.generate_cached(model, prompt, new)


def calls_once_too_often(model, prompt, new):
    return lab.generate_cached(model, prompt, new + 1)[:new]


def appends_to_the_prompt(model, prompt, new):
    new_ids = lab.generate_cached(model, prompt, new)
    prompt += new_ids
    return new_ids


WRONG = [
    ("left_pad", padded(ids=on_the_right), "on the right"),
    ("left_pad", padded(mask=lambda _p, _i, mask, _q: 1 - mask), "the wrong way round"),
    ("left_pad", padded(mask=lambda _p, _i, mask, _q: mask * 0 + 1), "1 everywhere"),
    ("left_pad", padded(positions=count_from_the_edge), "count the padding"),
    ("left_pad", padded(positions=lambda _p, _i, mask, _q: mask.cumsum(-1)), "start at 1"),
    ("left_pad", padded(positions=lambda _p, _i, mask, _q: mask.cumsum(-1) - 1), "negative"),
    ("left_pad", mask_from_ids, "from lengths, not from ids"),
    ("generate_cached", cached(later=lambda ids: ids), "computes the entire text again"),
    ("generate_cached", cached(prefill=lambda ids: ids[-1:]), "the complete prompt"),
    ("generate_cached", cached(one_cache=False), "the same cache"),
    ("generate_cached", cached(row=0), "in the last row"),
    ("generate_cached", returns_the_prompt_too, "the prompt was returned"),
    ("generate_cached", calls_once_too_often, "8 new ids need 8 calls"),
    ("generate_cached", appends_to_the_prompt, "changed the prompt"),
    ("strided_loss", mean_of_means, "each window's mean has the same weight"),
    ("strided_loss", all_of_each_window, "count twice: score only new tokens"),
    ("strided_loss", strided(new=False), "divided as if they counted once"),
    ("strided_loss", strided(first=False), "nothing predicts the first token"),
    ("strided_loss", strided(shift=0), "shift by one"),
    ("strided_loss", perplexity, "the perplexity"),
    ("strided_loss", all_text_at_once, "a window has at most"),
]
