"""Wrong solutions of LLM01+, each with the message that names its mistake."""

from labs.llm01_inference import deeper as lab
from labs.llm01_inference import stops

import torch
from transformers import DynamicCache


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


def stopped(complete=min, wait=max, before=lambda start, _: start, last=True, over=True):
    """Return an until_stop with a mistake in one of its steps."""

    def until_stop(pieces, ends):
        held = ""
        for piece in pieces:
            held += piece
            found = [(held.find(end) + len(end), held.find(end)) for end in ends if end in held]
            if found:
                stop, start = complete(found)
                yield held[: before(start, stop)]
                if over:
                    return
                held = held[stop:]
            starts = [n for end in ends for n in range(1, len(end)) if held.endswith(end[:n])]
            safe = len(held) - wait(starts, default=0)
            yield held[:safe]
            held = held[safe:]
        if last:
            yield held

    return until_stop


def in_each_piece(pieces, ends):
    return stops.until_stop_in_a_piece(pieces, ends)


def holds_nothing(pieces, ends):
    text = ""
    shown = 0
    for piece in pieces:
        text += piece
        places = [text.index(end) for end in ends if end in text]
        yield text[shown : min(places, default=len(text))]
        if places:
            return
        shown = len(text)


def all_at_the_end(pieces, ends):
    return stops.until_the_end(lab.until_stop, pieces, ends)


def begins_first(found):
    return min(found, key=lambda place: place[1])


def shorter(found):
    return min(found, key=lambda place: (place[0], -place[1]))


def reads_on(pieces, ends):
    parts = lab.until_stop(pieces, ends)
    yield from parts
    for _ in pieces:
        pass


def with_scale(largest=lambda w: w.abs().amax(-1, keepdim=True), less=1, back=True, to=torch.round):
    """Return a rounded with a mistake in one of its steps."""

    def rounded(w, bits):
        scale = (largest(w) / (2 ** (bits - 1) - less)).clamp(min=1e-12)
        return to(w / scale) * (scale if back else 1)

    return rounded


def zero_scale(w, bits):
    scale = w.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (w / scale).round() * scale


def rounds_in_place(w, bits):
    return w.copy_(lab.rounded(w, bits))


WRONG = [
    ("generate_cached", cached(later=lambda ids: ids), "computes the entire text again"),
    ("generate_cached", cached(prefill=lambda ids: ids[-1:]), "the complete prompt"),
    ("generate_cached", cached(one_cache=False), "the same cache"),
    ("generate_cached", cached(row=0), "in the last row"),
    ("generate_cached", returns_the_prompt_too, "the prompt was returned"),
    ("generate_cached", calls_once_too_often, "8 new ids need 8 calls"),
    ("generate_cached", appends_to_the_prompt, "changed the prompt"),
    ("until_stop", in_each_piece, "in two pieces was missed"),
    ("until_stop", all_at_the_end, "was held back, though no stop"),
    ("until_stop", stopped(last=False), "end of the text is missing"),
    ("until_stop", stopped(before=lambda _, stop: stop), "the stop string was shown"),
    ("until_stop", stopped(over=False), "text after the stop was shown"),
    ("until_stop", holds_nothing, "half of a stop was shown"),
    ("until_stop", stopped(wait=min), "the longest must wait"),
    ("until_stop", stopped(complete=lambda found: found[0]), "first stop of the list"),
    ("until_stop", stopped(complete=begins_first), "that begins first ended"),
    ("until_stop", stopped(complete=shorter), "the longer one counts"),
    ("until_stop", reads_on, "asked for after the stop"),
    ("until_stop", lambda pieces, ends: "".join(lab.until_stop(pieces, ends)), "be a generator"),
    ("rounded", with_scale(largest=lambda w: w.abs().max()), "all rows have the same scale"),
    ("rounded", with_scale(largest=lambda w: w.amax(-1, keepdim=True)), "so abs"),
    ("rounded", with_scale(largest=lambda w: w.abs().amax(-2, keepdim=True)), "the columns"),
    ("rounded", with_scale(less=0), "the − 1 is missing"),
    ("rounded", with_scale(back=False), "these are the integers"),
    ("rounded", with_scale(to=torch.trunc), "cut off"),
    ("rounded", zero_scale, "a row of zeros became NaN"),
    ("rounded", rounds_in_place, "changed its input"),
]
