"""Small data of every kind of view, computed here, with pages that show it."""

from pathlib import Path
from typing import Any

from labs.kit.records import View, show
from labs.kit.report import views
from labs.kit.report.views import pack_array

import numpy as np

LAYERS = 2
HEADS = 3
WORDS = ["The", "cat", "sat", ".", "The", "cat"]
LOOKS_BACK = 4  # the index of the head (layer 2, head 2) that looks at the previous token


def attention() -> dict[str, Any]:
    """Heads with even weights, but for one that looks at the previous token."""
    rows, keys = np.tril_indices(len(WORDS))
    even = np.rint(255 / (rows + 1))
    weights = np.tile(even, (LAYERS * HEADS, 1))
    weights[LOOKS_BACK] = np.where(keys == np.maximum(rows - 1, 0), 255, 0)
    scores = np.full(LAYERS * HEADS, 0.25)
    scores[LOOKS_BACK] = 1.0
    return {
        "layers": LAYERS,
        "heads": HEADS,
        "sentences": [
            {"name": name, "words": WORDS, "weights": pack_array(weights.astype(np.uint8))}
            for name in ("cats", "cats again")
        ],
        "patterns": [
            {"name": "itself", "means": "Even.", "scores": [0.2, 0.3, 0.2, 0.2, 0.1, 0.2]},
            {"name": "the previous token", "means": "Back.", "scores": scores.tolist()},
        ],
    }


def sampler() -> dict[str, Any]:
    """Two prompts with eight tokens each, which aren't in the order of their logits."""
    levels = np.array([765, 0, 20, 50, 50, 150, 750, 760], np.uint16)
    names = ["silly", " the", "a", " <b>", "\n", "e", "f", "g"]
    one = {"step": 0.01, "levels": pack_array(levels)}
    return {"names": names, "prompts": [{"name": "Once", **one}, {"name": "Twice", **one}]}


def tokens() -> dict[str, Any]:
    """A text that a model has read, cut in two ways."""
    read = {
        "name": "words",
        "texts": ["Oh", " <i>", "\n", " end"],
        "ids": [7, 300, 10, 99],
        "p": [None, 0.5, 0.001, 0.9],
        "alternatives": [[], [[" <i>", 0.5], [" no", 0.25]], [[" so", 0.6]], [[" end", 0.9]]],
    }
    letters = {"name": "letters", "texts": list("Oh <i>"), "ids": [1, 2, 3, 4, 5, 6]}
    other = {"name": "words", "texts": ["Hi", "!"], "ids": [8, 9], "p": [None, 0.25]}
    groups = [
        {"name": "first", "variants": [read, letters]},
        {"name": "second", "variants": [{**other, "alternatives": [[], []]}]},
    ]
    return {"labels": ["Text", "Vocabulary"], "groups": groups}


def curve() -> dict[str, Any]:
    """Forty steps of a falling loss."""
    return {
        "losses": [4.0 - 0.05 * step for step in range(40)],
        "rates": [0.01 * (1 - step / 50) for step in range(40)],
        "seen": [
            {"step": 10, "loss": 3.6, "text": "xq<z"},
            {"step": 40, "loss": 2.1, "text": "To be\nor\x00not"},
        ],
        "baselines": [{"name": "uniform", "loss": 4.2}, {"name": "bigram", "loss": 3.0}],
        "unit": "nats per token",
    }


def plane() -> dict[str, Any]:
    """A matrix that leaves the plane alone, and one that flattens it."""
    return {
        "matrices": [
            {"name": "nothing", "entries": [1.0, 0.0, 0.0, 1.0]},
            {"name": "<b>flat</b>", "entries": [0.5, 0.5, 0.5, 0.5]},
        ]
    }


def boundary() -> dict[str, Any]:
    """Two networks on 2 × 2 points at two steps; the second is certain from the start."""
    maps = [np.array([0, 64, 128, 255], np.uint8), np.array([255, 255, 0, 0], np.uint8)]
    return {
        "size": 2,
        "reach": 1.0,
        "points": [[-0.5, -0.5], [0.5, 0.5]],
        "classes": [0, 1],
        "steps": [0, 1000],
        "networks": [
            {"name": "bent", "maps": [pack_array(p) for p in maps], "accuracies": [0.5, 0.9]},
            {"name": "<b>", "maps": [pack_array(maps[1])] * 2, "accuracies": [0.6, 0.6]},
        ],
    }


def graph() -> dict[str, Any]:
    """z = x·y + x at x = 2, y = 3, and a value that is added to itself."""
    nodes = [
        {"name": "x", "operation": "", "inputs": [], "value": 2.0, "place": [0, 0.5]},
        {"name": "y", "operation": "", "inputs": [], "value": 3.0, "place": [0, 1.5]},
        {"name": "p", "operation": "×", "inputs": [0, 1], "value": 6.0, "place": [1, 0.5]},
        {"name": "z", "operation": "+", "inputs": [2, 0], "value": 8.0, "place": [2, 0.0]},
    ]
    twice = [
        {"name": "<b>", "operation": "", "inputs": [], "value": -1.0, "place": [0, 0.0]},
        {"name": "d", "operation": "+", "inputs": [0, 0], "value": -2.0, "place": [1, 0.0]},
        {"name": "r", "operation": "relu", "inputs": [1], "value": 0.0, "place": [2, 0.0]},
    ]
    return {"graphs": [{"name": "a sum", "nodes": nodes}, {"name": "twice", "nodes": twice}]}


def norms() -> dict[str, Any]:
    """A vector of three numbers, one of them 0."""
    return {"vector": [1.5, 0.0, -2.0]}


def rotation() -> dict[str, Any]:
    """Two pairs; the first turns by a quarter for each position, the second stands still."""
    pairs = [[1.0, 0.0], [0.0, 2.0]]
    return {"q": pairs, "k": pairs, "frequencies": [np.pi / 2, 1e-9], "keys": 8, "offsets": 4}


def lengths() -> dict[str, Any]:
    """Two encodings on texts that are four times as long as in training; the first fails there."""
    return {
        "edges": [4, 8, 16, 32],
        "trained": 8,
        "encodings": [
            {"name": "fails", "losses": [2.0, 3.0, 3.5]},
            {"name": "<b>", "losses": [2.25, 2.5, 2.75]},
        ],
        "baseline": {"name": "bigram", "losses": [2.5, 2.5, 3.0]},
    }


def merges() -> dict[str, Any]:
    """Two vocabularies of two merges: lo and low, or wl and lo."""
    learned = {"first": [(108, 111), (256, 119)], "second": [(119, 108), (108, 111)]}
    return {
        "text": "low",
        "vocabularies": [
            {"name": name, "merges": pack_array(np.array(pairs, np.uint16))}
            for name, pairs in learned.items()
        ],
    }


def five_words() -> dict[str, Any]:
    """A word that looks for nouns, and a noun that looks for nothing."""
    looks = {"word": "<b>", "q": [3.0, 0.0], "k": [0.0, 0.0], "v": [0.0, 1.0]}
    noun = {"word": "noun", "q": [0.0, 0.0], "k": [2.0, 0.0], "v": [1.0, 0.0]}
    return {"words": [looks, noun], "sentence": [1, 0, 1, 0, 1]}


def low_rank() -> dict[str, Any]:
    """A base of two rows and three columns, an update of rank 2, and an update of rank 1."""
    letters = {
        "name": "<b>",
        "b": [[2.0, 0.0], [0.0, 1.0]],
        "a": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
    }
    line = {"name": "line", "b": [[1.0], [1.0]], "a": [[-1.0, 0.0, 0.5]]}
    return {"base": [[0.5, 0.0, 0.0], [0.0, -0.25, 0.0]], "matrices": [letters, line]}


def batch() -> dict[str, Any]:
    """Two rows, padded and in one pack."""

    def cell(token: str, label: bool, position: int, first: int, place: int) -> dict[str, Any]:
        sees = [first, place]
        return {
            "token": token,
            "label": token if label else None,
            "position": position,
            "sees": sees,
        }

    pad = {"token": "<pad>", "label": None, "position": 1, "sees": None, "padding": True}
    padded = [
        [cell("<b>", False, 0, 0, 0), cell("yes", True, 1, 0, 1)],
        [cell("no", False, 0, 0, 0), pad],
    ]
    pack = [
        cell("<b>", False, 0, 0, 0),
        cell("yes", True, 1, 0, 1),
        cell("no", False, 0, 2, 2),
    ]
    return {"grids": [{"name": "padded", "lines": padded}, {"name": "packed", "lines": [pack]}]}


DATA = {
    "batch": batch,
    "low_rank": low_rank,
    "merges": merges,
    "attention": attention,
    "boundary": boundary,
    "curve": curve,
    "five_words": five_words,
    "graph": graph,
    "lengths": lengths,
    "norms": norms,
    "plane": plane,
    "rotation": rotation,
    "sampler": sampler,
    "tokens": tokens,
}


def small_view(kind: str, folder: Path) -> View:
    """Return a view of small data, saved in `folder`."""
    path = folder / "views" / f"small_{kind}.json"
    views.write(DATA[kind](), path)
    rows = [[show(1.5), "<b>"]]
    return View(kind, f"small_{kind}", "What *it* shows.", ["number", "text"], rows, path)


def page_with(view: View, folder: Path) -> Path:
    """Write a page with one view, as a notebook gets it, under a heading."""
    page = folder / f"{view.kind}.html"
    html = views.document(view).replace("<main>", "<main><h1>A view</h1>")
    page.write_text(html, encoding="utf-8")
    return page
