"""Wrong solutions of LLM08+: what a learner might plausibly hand in, and the message."""

from labs.llm08_training import deeper as lab

import torch


def size_of(row):
    return len(row["input_ids"])


def pack_by(order=lambda row: -size_of(row), choose=min, exact=True, raises=True, keep=None):
    """Return a packer; `choose` picks one of the packs with room, from pairs (number, room)."""

    def pack(rows, length):
        packs = []
        room = []
        for row in sorted(rows, key=order):
            size = size_of(row)
            if size > length and raises:
                raise ValueError(size)
            fits = [(i, left) for i, left in enumerate(room) if left >= size + (not exact)]
            if fits:
                at, _ = choose(fits)
            else:
                at = len(packs)
                packs.append([])
                room.append(length)
            packs[at].append(keep(row) if keep else row)
            room[at] -= size
        return packs

    return pack


def fullest(fits):
    return min(fits, key=lambda pair: pair[1])


def emptiest(fits):
    return max(fits, key=lambda pair: pair[1])


def last_only(rows, length):
    packs = [[]]
    for row in sorted(rows, key=size_of, reverse=True):
        if sum(map(size_of, packs[-1])) + size_of(row) > length:
            packs.append([])
        packs[-1].append(row)
    return packs


def in_place(rows, length):
    rows.sort(key=size_of)
    return lab.pack(rows, length)


def an_empty_pack(rows, length):
    return [*lab.pack(rows, length), []]


def loses_a_row(rows, length):
    return lab.pack(rows[1:], length)


def overfills(rows, length):
    return [sorted(rows, key=size_of, reverse=True)] if len(rows) > 2 else lab.pack(rows, length)


def index_error(rows, length):
    if max(map(size_of, rows)) > length:
        raise IndexError
    return lab.pack(rows, length)


def name_by(
    order=("padding too", "the prompt too", "shifted twice", "end = pad"),
    rows=slice(None),
    padding=lambda batch: batch["attention_mask"] == 0,
    same=lambda batch: (batch["labels"] == batch["input_ids"]) | (batch["labels"] == -100),
    last=None,
    prompt=lambda labelled: labelled[:, 0].any(),
):
    """Return a function that looks for mistakes in an order, in some of the rows."""

    def label_mistake(batch):
        batch = {name: tensor[rows] for name, tensor in batch.items()}
        labelled = batch["labels"] != -100
        length = batch["attention_mask"].sum(1)
        ends = labelled[torch.arange(len(length)), (length - 1 if last is None else last)]
        found = {
            "padding too": (labelled & padding(batch)).any(),
            "the prompt too": prompt(labelled),
            "shifted twice": not same(batch).all(),
            "end = pad": not ends.all(),
        }
        return next((name for name in order if found[name]), "none")

    return label_mistake


def all_ends_labelled(batch):
    """Take each end token for a response's: a request's has no label."""
    missing = (batch["input_ids"] == 2) & (batch["labels"] == -100)
    return "end = pad" if missing.any() else lab.label_mistake(batch)


def padding_by_value(batch):
    return (batch["input_ids"] == 0) | (batch["input_ids"] == 2)


def in_place_names(batch):
    name = lab.label_mistake(batch)
    batch["labels"][batch["attention_mask"] == 0] = 0
    return name


def without(name):
    return name_by([one for one in lab.IN_LABELS if one != name])


WRONG = [
    ("label_mistake", all_ends_labelled, "look only at each row's last token"),
    (
        "label_mistake",
        name_by(same=lambda batch: batch["labels"] == batch["input_ids"]),
        "compare only labels that aren't",
    ),
    ("label_mistake", name_by(padding=padding_by_value), "not their values"),
    ("label_mistake", name_by(last=-1), "not a request's end, not padding"),
    ("label_mistake", name_by(rows=slice(0, 1)), "look at all rows"),
    ("label_mistake", name_by(padding=lambda batch: batch["labels"] == 0), "whatever their value"),
    ("label_mistake", without("the prompt too"), "does it have a label"),
    ("label_mistake", without("end = pad"), "each response needs its end"),
    (
        "label_mistake",
        name_by(["padding too", "the prompt too", "end = pad", "shifted twice"]),
        "look for them before that",
    ),
    ("label_mistake", name_by(["padding too", "the prompt too"]), "moved one place"),
    ("label_mistake", lambda _: None, "expected a name"),
    ("label_mistake", in_place_names, "has changed"),
    ("pack", pack_by(exact=False), "fills a pack exactly"),
    ("pack", pack_by(order=lambda _: 0), "weren't sorted"),
    ("pack", pack_by(order=size_of), "the shortest row came first"),
    ("pack", last_only, "only the last pack is tried"),
    ("pack", pack_by(choose=emptiest), "the most room"),
    ("pack", pack_by(choose=fullest), "the fullest pack"),
    ("pack", pack_by(raises=False), "raise ValueError"),
    ("pack", index_error, "expected a ValueError, got IndexError"),
    ("pack", pack_by(keep=size_of), "something else than the rows"),
    ("pack", in_place, "sort a copy"),
    ("pack", an_empty_pack, "an empty pack"),
    ("pack", loses_a_row, "missing or comes twice"),
    ("pack", overfills, "more than 10 tokens"),
    ("pack", lambda *_: None, "expected a list of packs"),
]
