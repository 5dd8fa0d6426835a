"""Wrong solutions that a learner might write for LLM08, and the message that each must get."""

import math
from itertools import islice

from labs.llm08_training import lesson as lab

import torch

IGNORED = -100


def spans(ids, header, end):
    """Return the start of each assistant's turn, after the header, and its end, exclusive."""
    place = 0
    found = []
    while place < len(ids):
        if ids[place : place + len(header)] == header:
            start = place + len(header)
            place = ids.index(end, start) + 1 if end in ids[start:] else len(ids)
            found.append((start, place))
        else:
            place += 1
    return found


def labelled(found, ids, fill=IGNORED):
    labels = [fill] * len(ids)
    for start, stop in found:
        labels[start:stop] = ids[start:stop]
    return labels


def supervise_by(change, fill=IGNORED):
    def supervise(ids, header, end):
        return labelled(change(spans(ids, header, end), ids, header, end), ids, fill)

    return supervise


def every_turn(found, *_):
    return found


def without_end(found, ids, _, end):
    return [(start, stop - (ids[stop - 1] == end)) for start, stop in found]


def with_header(found, _ids, header, _end):
    return [(start - len(header), stop) for start, stop in found]


def first_only(found, *_):
    return found[:1]


def all_behind(found, ids, *_):
    return [(found[0][0], len(ids))] if found else []


def ended_only(found, ids, _, end):
    return [(start, stop) for start, stop in found if ids[stop - 1] == end]


def by_last_token(_, ids, header, end):
    return spans(ids, header[-1:], end)


def shifted(ids, header, end):
    return [*lab.supervise(ids, header, end)[1:], IGNORED]


def the_others(ids, header, end):
    mine = lab.supervise(ids, header, end)
    return [a if b == IGNORED else IGNORED for a, b in zip(ids, mine, strict=True)]


def in_place(ids, header, end):
    ids[:] = lab.supervise(ids, header, end)
    return list(ids)


def collate_by(fills=(None, IGNORED, 0), left=False, after=lambda *_: None):
    def collate(rows, pad):
        length = max(len(row["input_ids"]) for row in rows)
        names = ("input_ids", "labels", "attention_mask")
        batch = {}
        for name, fill in zip(names, fills, strict=True):
            fill = pad if fill is None else fill
            lists = [row.get(name, [1] * len(row["input_ids"])) for row in rows]
            padding = [[fill] * (length - len(one)) for one in lists]
            lines = [p + one if left else one + p for one, p in zip(lists, padding, strict=True)]
            batch[name] = torch.tensor(lines)
        after(batch, pad)
        return batch

    return collate


def labels_by_value(batch, pad):
    batch["labels"][batch["input_ids"] == pad] = IGNORED


def tokens_as_labels(batch, _):
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)


def mask_by_value(batch, pad):
    batch["attention_mask"] = (batch["input_ids"] != pad).long()


def mask_reversed(batch, _):
    batch["attention_mask"] = 1 - batch["attention_mask"]


def without_mask(batch, _):
    del batch["attention_mask"]


def as_floats(batch, _):
    batch["attention_mask"] = batch["attention_mask"].float()


def adam(
    sign=1,
    corrected=True,
    inside=False,
    early=False,
    l2=False,
    by_rate=True,
    decays=True,
    root=True,
    swapped=False,
    keeps=True,
):
    def adamw_step(weight, gradient, m, v, t, lr, betas, eps, decay):
        one, two = betas[::-1] if swapped else betas
        first, second = (m, v) if keeps else (m.clone(), v.clone())
        if l2:
            gradient = gradient + decay * weight
        elif decays:
            weight.mul_(1 - (lr if by_rate else 1) * decay)
        first.mul_(one).add_(gradient, alpha=1 - one)
        second.mul_(two).addcmul_(gradient, gradient, value=1 - two)
        m_hat = first / (1 - betas[0] ** t) if corrected else first
        factor = 1 - betas[1] ** t if corrected else 1
        if inside:
            below = (second / factor + eps).sqrt()
        elif early:
            below = (second.sqrt() + eps) / math.sqrt(factor)
        else:
            below = (second / factor).sqrt() if root else second / factor
            below = below + eps
        weight.sub_(sign * lr * m_hat / below)

    return adamw_step


def returns_new(weight, gradient, *_, **how):
    return weight - how["lr"] * gradient


def scales_the_gradient(weight, gradient, m, v, t, **how):
    gradient.add_(how["decay"] * weight)
    lab.adamw_step(weight, gradient, m, v, t, **{**how, "decay": 0})


def curve(up=lambda t, w: (t + 1) / w, down=None):
    def cosine(t, s, w, f):
        p = min(1.0, (t + 1 - w) / (s + 1 - w))
        return f + (1 - f) * (1 + math.cos(math.pi * p)) / 2

    def rate(step, steps, warmup, floor=0.1):
        if up and step < warmup:
            return up(step, warmup)
        return (down or cosine)(step, steps, warmup, floor)

    return rate


def half(p):
    return (1 + math.cos(math.pi * p)) / 2


def no_warmup(t, s, w, f):
    return f + (1 - f) * half(min(1.0, (t + 1) / (s + 1))) if t < w else lab.lr_at(t, s, w, f)


def from_zero(t, s, _, f):
    return f + (1 - f) * half(min(1.0, (t + 1) / (s + 1)))


def no_floor(t, s, w, _):
    return half(min(1.0, (t + 1 - w) / (s + 1 - w)))


def floor_on_top(t, s, w, f):
    return f + no_floor(t, s, w, f)


def line(t, s, w, f):
    return 1 - (1 - f) * min(1.0, (t + 1 - w) / (s + 1 - w))


def cut_off(t, s, w, f):
    return max(f, no_floor(t, s, w, f))


def unbounded(t, s, w, f):
    return f + (1 - f) * half((t + 1 - w) / (s + 1 - w))


def window_by(last=True, count=lambda window: sum(map(lab.label_count, window)), ahead=False):
    def windows(micro, size):
        source = iter(list(micro) if ahead else micro)
        while window := list(islice(source, size)):
            if len(window) == size or last:
                yield window, count(window)

    return windows


def an_empty_one(micro, size):
    yield from lab.windows(micro, size)
    yield [], 0


def filled_up(micro, size):
    for window, _ in lab.windows(micro, size):
        window = (window * size)[:size]
        yield window, sum(map(lab.label_count, window))


def running_on(micro, size):
    count = 0
    for window, n in lab.windows(micro, size):
        count += n
        yield window, count


def places(window):
    return sum(batch["labels"].numel() for batch in window)


def unshifted(window):
    return sum(int((batch["labels"] != IGNORED).sum()) for batch in window)


def packs_by(after):
    def collate_packs(packs, pad):
        batch = lab.collate_packs(packs, pad)
        return after(batch, packs, pad) or batch

    return collate_packs


def causal_alone(batch, *_):
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"]).tril()


def alternating(batch, packs, _):
    """Number a pack's documents 1, 2, 1, 2, …: every other one is seen, too."""
    for i, rows in enumerate(packs):
        numbers = [1 + n % 2 for n, row in enumerate(rows) for _ in row["input_ids"]]
        part = torch.tensor(numbers)
        length = len(numbers)
        batch["attention_mask"][i, 0, :length, :length] = (part[:, None] == part).tril()


def without_tril(batch, *_):
    batch["attention_mask"] = batch["attention_mask"] | batch["attention_mask"].mT


def inverted(batch, *_):
    batch["attention_mask"] = ~batch["attention_mask"]


def blind_padding(batch, packs, _):
    for i, rows in enumerate(packs):
        batch["attention_mask"][i, :, sum(len(row["input_ids"]) for row in rows) :] = False


def every_label(batch, packs, _):
    for i, rows in enumerate(packs):
        labels = [label for row in rows for label in row["labels"]]
        batch["labels"][i, : len(labels)] = torch.tensor(labels)


def first_label_alone(batch, packs, _):
    every_label(batch, packs, _)
    batch["labels"][:, 0] = IGNORED


def padded_labels(batch, packs, pad):
    for i, rows in enumerate(packs):
        batch["labels"][i, sum(len(row["input_ids"]) for row in rows) :] = pad


def all_tokens_as_labels(batch, *_):
    later = batch["position_ids"] > 0  # all but each document's first token
    batch["labels"][later] = batch["input_ids"][later]


def padded_with_zeros(batch, packs, _):
    for i, rows in enumerate(packs):
        batch["input_ids"][i, sum(len(row["input_ids"]) for row in rows) :] = 0


def positions_on(batch, packs, _):
    for i, rows in enumerate(packs):
        n = sum(len(row["input_ids"]) for row in rows)
        batch["position_ids"][i, :n] = torch.arange(n)


def float_mask(batch, *_):
    batch["attention_mask"] = batch["attention_mask"].float()


def float_positions(batch, *_):
    batch["position_ids"] = batch["position_ids"].float()


def without_positions(batch, *_):
    del batch["position_ids"]


def norm_of(gradients):
    return torch.stack([gradient.norm() for gradient in gradients]).norm()


def clip_by(change):
    def clip_gradients(parameters, c):
        gradients = [weight.grad for weight in parameters if weight.grad is not None]
        return change(gradients, c)

    return clip_gradients


def each_by_itself(gradients, c):
    norm = norm_of(gradients)
    for gradient in gradients:
        gradient.mul_(min(1.0, c / gradient.norm()))
    return norm


def always(gradients, c):
    norm = norm_of(gradients)
    for gradient in gradients:
        gradient.mul_(c / norm)
    return norm


def never(gradients, _):
    return norm_of(gradients)


def by_entry(gradients, c):
    norm = norm_of(gradients)
    for gradient in gradients:
        gradient.clamp_(-c, c)
    return norm


def sum_of_norms(gradients, c):
    norm = sum(gradient.norm() for gradient in gradients)
    for gradient in gradients:
        gradient.mul_(min(1.0, c / norm))
    return norm


def norm_after(gradients, c):
    always(gradients, min(c, norm_of(gradients)))
    return norm_of(gradients)


def step_by(
    mean=lambda loss_sum, _batch, labels, _window: loss_sum / labels,
    sets_rate=True,
    clips="once",
    steps="once",
    clears="once",
    detached=True,
    total_of=lambda total, _labels: total,
):
    def training_step(model, optimizer, window, labels, lr, clip, accelerator):
        batches = list(window)
        total = torch.zeros(())
        if sets_rate:
            groups = optimizer.param_groups
            for group in groups[:1] if sets_rate == "first group" else groups:
                group["lr"] = lr
        for batch in batches:
            loss = mean(lab.label_sum(model, batch), batch, labels, batches)
            accelerator.backward(loss)
            total = total + (loss.detach() if detached else loss)
            if clips == "each":
                accelerator.clip_grad_norm_(model.parameters(), clip)
            if steps == "each":
                optimizer.step()
            if clears == "each" and batch is not batches[-1]:
                optimizer.zero_grad()
        if clips == "once":
            accelerator.clip_grad_norm_(model.parameters(), clip)
        if steps == "once":
            optimizer.step()
        if clips == "late":
            accelerator.clip_grad_norm_(model.parameters(), clip)
        if clears != "never":
            optimizer.zero_grad()
        return total_of(total, labels)

    return training_step


def mean_of_means(loss_sum, batch, _labels, window):
    return loss_sum / lab.label_count(batch) / len(window)


WRONG = [
    ("collate_packs", packs_by(causal_alone), "documents see each other"),
    ("collate_packs", packs_by(alternating), "give each document its own number"),
    ("collate_packs", packs_by(without_tril), "lacks tril"),
    ("collate_packs", packs_by(inverted), "inverted"),
    ("collate_packs", packs_by(blind_padding), "old PyTorch gave NaN"),
    ("collate_packs", packs_by(every_label), "first token of a document has a label"),
    ("collate_packs", packs_by(first_label_alone), "only the first document's first label"),
    ("collate_packs", packs_by(padded_labels), "padding has the pad token as its label"),
    ("collate_packs", packs_by(all_tokens_as_labels), "take the rows' labels"),
    ("collate_packs", packs_by(padded_with_zeros), "it must be `pad`"),
    ("collate_packs", packs_by(positions_on), "start at 0 in each"),
    ("collate_packs", packs_by(float_mask), "must be boolean"),
    ("collate_packs", packs_by(float_positions), "position_ids is torch.float32"),
    ("collate_packs", packs_by(without_positions), "missing or too many: position_ids"),
    ("clip_gradients", clip_by(each_by_itself), "one norm, over all"),
    ("clip_gradients", clip_by(always), "below c"),
    ("clip_gradients", clip_by(never), "nothing was clipped"),
    ("clip_gradients", clip_by(by_entry), "entries are cut off"),
    ("clip_gradients", clip_by(sum_of_norms), "sum of the norms"),
    ("clip_gradients", clip_by(norm_after), "the norm after clipping"),
    ("training_step", step_by(mean=mean_of_means), "mean of means"),
    (
        "training_step",
        step_by(mean=lambda loss, batch, *_: loss / lab.label_count(batch)),
        "its own labels",
    ),
    ("training_step", step_by(mean=lambda loss, *_: loss), "summed and not divided"),
    ("training_step", step_by(sets_rate=False), "the rate was not set"),
    ("training_step", step_by(sets_rate="first group"), "into each group"),
    ("training_step", step_by(clips="each"), "each batch's gradient is clipped"),
    ("training_step", step_by(clips="late"), "clipped after the step"),
    ("training_step", step_by(clips="never"), "the gradient was not clipped"),
    ("training_step", step_by(steps="each"), "steps for each batch"),
    ("training_step", step_by(steps="never"), "step\\(\\) was not called"),
    ("training_step", step_by(clears="each"), "only the last batch counts"),
    ("training_step", step_by(clears="never"), "the gradient is still there"),
    ("training_step", step_by(detached=False), "has a graph"),
    ("training_step", step_by(total_of=lambda total, n: total * n), "the summed loss was returned"),
    ("supervise", supervise_by(without_end), "never learns to stop"),
    ("supervise", supervise_by(with_header), "the template writes the header"),
    ("supervise", supervise_by(first_only), "more than one turn"),
    ("supervise", supervise_by(all_behind), "next request is not a response"),
    ("supervise", supervise_by(every_turn, fill=0), "label −100, not 0"),
    ("supervise", supervise_by(ended_only), "a turn that was cut off"),
    ("supervise", supervise_by(by_last_token), "nothing else"),
    ("supervise", shifted, "the labels are shifted"),
    ("supervise", lambda ids, *_: list(ids), "all tokens are labelled"),
    ("supervise", the_others, "labelled and the assistant's aren't"),
    ("supervise", in_place, "the row that was passed in has changed"),
    ("supervise", lambda *_: None, "expected a list of labels, got nothing"),
    ("supervise", lambda *_: [math.nan] * 17, "must be an integer"),
    ("collate", collate_by(after=labels_by_value), "mask by place"),
    ("collate", collate_by((None, None, 0)), "the pad token as its label"),
    ("collate", collate_by((None, 0, 0)), "the label 0, which is a token"),
    ("collate", collate_by(after=tokens_as_labels), "take the rows' labels"),
    ("collate", collate_by(left=True), "the padding is on the left|mask by place"),
    ("collate", collate_by((0, IGNORED, 0)), "it must be `pad`"),
    ("collate", collate_by((None, IGNORED, 1)), "1 everywhere: it must be 0"),
    ("collate", collate_by(after=mask_by_value), "the attention mask is by value"),
    ("collate", collate_by(after=mask_reversed), "mask is inverted"),
    ("collate", collate_by(after=without_mask), "missing or too many: attention_mask"),
    ("collate", collate_by(after=as_floats), "int64"),
    ("collate", lambda *_: None, "expected a dict of tensors"),
    ("adamw_step", adam(sign=-1), "up the gradient"),
    ("adamw_step", adam(corrected=False), "divide each by 1 − βᵗ"),
    ("adamw_step", adam(inside=True), "ε is inside the root"),
    ("adamw_step", adam(early=True), "first √v̂, then ε"),
    ("adamw_step", adam(l2=True), "That is L2"),
    ("adamw_step", adam(by_rate=False), "isn't multiplied by the rate"),
    ("adamw_step", adam(decays=False), "the decay is missing"),
    ("adamw_step", adam(root=False), "divides by the root"),
    ("adamw_step", adam(swapped=True), "the betas are swapped"),
    ("adamw_step", adam(keeps=False), "m or v is still 0"),
    ("adamw_step", returns_new, "it must return nothing"),
    ("adamw_step", scales_the_gradient, "the gradient has changed"),
    ("adamw_step", lambda *_, **__: None, "m or v is still 0|hasn't moved"),
    ("lr_at", curve(up=lambda t, w: t / w), "rate of 0 and is wasted"),
    ("lr_at", curve(up=None, down=no_warmup), "there is no warm-up"),
    ("lr_at", curve(down=from_zero), "the cosine begins at step 0"),
    ("lr_at", curve(down=no_floor), "the floor is missing"),
    ("lr_at", curve(down=floor_on_top), "the floor is added on top"),
    ("lr_at", curve(down=line), "a straight line"),
    ("lr_at", curve(down=cut_off), "is cut off at the floor"),
    ("lr_at", curve(down=unbounded), "after the last step"),
    ("lr_at", lambda *_: None, "expected a number, got nothing"),
    ("lr_at", lambda *_: math.nan, "got NaN"),
    ("windows", window_by(last=False), "the last window is lost"),
    ("windows", an_empty_one, "the last window is empty"),
    ("windows", filled_up, "the last window is filled up"),
    ("windows", window_by(ahead=True), "read only what the window needs"),
    ("windows", window_by(count=len), "batches or rows are counted"),
    ("windows", window_by(count=places), "all places are counted"),
    ("windows", window_by(count=unshifted), "the first place's label is counted"),
    ("windows", window_by(count=lambda one: lab.label_count(one[-1])), "only the last batch's"),
    ("windows", running_on, "the count continues"),
    ("windows", lambda *_: None, "expected an iterator, got nothing"),
    ("windows", lambda *_: iter([None]), "each window is a pair"),
]
