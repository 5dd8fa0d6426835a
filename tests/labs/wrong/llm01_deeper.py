"""Wrong solutions of LLM01+, each with the message that names its mistake."""

import math

from labs.llm01_inference import deeper as lab

import torch


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


def each_piece_alone(pieces, stops):
    for piece in pieces:
        begins = [piece.index(stop) for stop in stops if stop in piece]
        if begins:
            yield piece[: min(begins)]
            return
        yield piece


def shows_the_stop(pieces, stops):
    text = "".join(pieces)
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    yield text[: min(ends)] if ends else text


def waits_for_all(pieces, stops):
    yield from lab.until_stop(["".join(pieces)], stops)


def forgets_what_it_held(pieces, stops):
    held = ""
    for piece in pieces:
        held += piece
        if any(stop in held for stop in stops):
            yield held[: min(held.index(stop) for stop in stops if stop in held)]
            return
        wait = max(n for stop in stops for n in range(len(stop)) if held.endswith(stop[:n]))
        yield held[: len(held) - wait]
        held = held[len(held) - wait :]


def first_of_the_list(pieces, stops):
    held = ""
    for piece in pieces:
        held += piece
        for stop in stops:
            if stop in held:
                yield held[: held.index(stop)]
                return
        wait = max(n for stop in stops for n in range(len(stop)) if held.endswith(stop[:n]))
        yield held[: len(held) - wait]
        held = held[len(held) - wait :]
    yield held


def earliest_start(pieces, stops):
    def order(text):
        return min((text.index(stop) for stop in stops if stop in text), default=None)

    held = ""
    for piece in pieces:
        held += piece
        at = order(held)
        if at is not None:
            yield held[:at]
            return
        wait = max(n for stop in stops for n in range(len(stop)) if held.endswith(stop[:n]))
        yield held[: len(held) - wait]
        held = held[len(held) - wait :]
    yield held


def returns_a_string(pieces, stops):
    return "".join(lab.until_stop(pieces, stops))


WRONG = [
    ("left_pad", padded(ids=on_the_right), "on the right"),
    ("left_pad", padded(mask=lambda _p, _i, mask, _q: 1 - mask), "the wrong way round"),
    ("left_pad", padded(mask=lambda _p, _i, mask, _q: mask * 0 + 1), "1 everywhere"),
    ("left_pad", padded(positions=count_from_the_edge), "count the padding"),
    ("left_pad", padded(positions=lambda _p, _i, mask, _q: mask.cumsum(-1)), "start at 1"),
    ("left_pad", padded(positions=lambda _p, _i, mask, _q: mask.cumsum(-1) - 1), "negative"),
    ("left_pad", mask_from_ids, "from lengths, not from ids"),
    ("strided_loss", mean_of_means, "each window's mean has the same weight"),
    ("strided_loss", all_of_each_window, "count twice: score only new tokens"),
    ("strided_loss", strided(new=False), "divided as if they counted once"),
    ("strided_loss", strided(first=False), "nothing predicts the first token"),
    ("strided_loss", strided(shift=0), "shift by one"),
    ("strided_loss", perplexity, "the perplexity"),
    ("strided_loss", all_text_at_once, "a window has at most"),
    ("until_stop", each_piece_alone, "ends in the next isn't recognised"),
    ("until_stop", shows_the_stop, "itself was shown"),
    ("until_stop", waits_for_all, "yield safe text at once"),
    ("until_stop", forgets_what_it_held, "it was no stop after all"),
    ("until_stop", first_of_the_list, "not the first of the list"),
    ("until_stop", earliest_start, "is complete first"),
    ("until_stop", returns_a_string, "must yield pieces"),
]
