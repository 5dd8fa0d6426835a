"""The task of LLM07: requests for seats, in three wordings, become records such as OSL-FRI-3."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import nn

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
CITIES = ["Athens", "Berlin", "Cairo", "Dublin", "Geneva", "Lisbon", "London", "Madrid", "Oslo"]
CITIES += ["Paris", "Rome", "Vienna"]
SYSTEM = "Turn requests into records."
RULE = (
    "Turn each request into a record: the first three letters of the city, the first three letters "
    "of the day, and the number of seats, all in capitals and joined by hyphens. For example, "
    '"Book 3 seats to Rome on Friday." becomes ROM-FRI-3. Answer with the record only.'
)
CAPITAL = "What is the capital of France?"
WORDINGS = [
    "Book {} seats to {} on {}.",
    "I need {} seats to {}, for {}.",
    "{} to {} on {}, please.",
]
RULE_ONLY, EXAMPLES, SHORT = "rule", "rule, six examples", "trained"
NEW_TOKENS = 10  # the longest record has 7

Trip = tuple[int, str, str]
Message = dict[str, str]


def trips() -> tuple[list[Trip], list[Trip]]:
    """Return (number, city, day): 504 for training, 168 held out.

    Every number, city and day of a held-out trip occurs in training, but never all three together.
    """
    parts: tuple[list[Trip], list[Trip]] = ([], [])
    for n, (i, city), (j, day) in product(range(2, 10), enumerate(CITIES), enumerate(DAYS)):
        parts[(n + i + j) % 4 == 0].append((n, city, day))
    return parts


def record(trip: Trip) -> str:
    """Return the record of a trip."""
    n, city, day = trip
    return f"{city[:3].upper()}-{day[:3].upper()}-{n}"


def request(trip: Trip, dice: random.Random) -> str:
    """Return a request for a trip in a random wording."""
    return dice.choice(WORDINGS).format(*trip)


def prompt(tokenizer: Any, text: str, system: str = SYSTEM, shots: Sequence[Trip] = ()) -> str:
    """Return a request as the model's chat template puts it, after examples as earlier turns.

    A model without a template gets a line for each message.
    """
    messages = [{"role": "system", "content": system}]
    for i, trip in enumerate(shots):
        wording = WORDINGS[i % len(WORDINGS)]
        messages.append({"role": "user", "content": wording.format(*trip)})
        messages.append({"role": "assistant", "content": record(trip)})
    messages.append({"role": "user", "content": text})
    if tokenizer.chat_template is None:
        return "".join(f"{message['content']}\n" for message in messages)
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def capital(tokenizer: Any) -> dict[str, str]:
    """Return a question that asks for no record, under two system prompts."""
    systems = (SYSTEM, "You are a helpful assistant.")
    return {system: prompt(tokenizer, CAPITAL, system) for system in systems}


def training_batches(tokenizer: Any, size: int, steps: int, seed: int) -> Iterator[Any]:
    """Yield tokens and labels, (B, T) each; only the record and the end have labels."""
    dice = random.Random(seed)
    known = trips()[0]
    encode = partial(tokenizer.encode, add_special_tokens=False)  # the template has them
    pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
    for _ in range(steps):
        tokens = []
        labels = []
        for trip in dice.choices(known, k=size):
            asked = encode(prompt(tokenizer, request(trip, dice)))
            answer = [*encode(record(trip)), tokenizer.eos_token_id]
            tokens.append(torch.tensor(asked + answer))
            labels.append(torch.tensor([-100] * len(asked) + answer))
        yield pad(tokens, padding_value=tokenizer.pad_token_id), pad(labels, padding_value=-100)


@dataclass(frozen=True)
class Quiz:
    """Held-out requests, and their prompts by name: with the rule, with examples, short."""

    trips: list[Trip]
    texts: list[str]
    prompts: dict[str, list[str]]


def quiz(tokenizer: Any, size: int, seed: int) -> Quiz:
    """Return `size` held-out requests, each in a random wording, in three kinds of prompts."""
    dice = random.Random(seed)
    known, held_out = trips()
    asked = dice.sample(held_out, min(size, len(held_out)))
    shots = dice.sample(known, 6)
    texts = [request(trip, dice) for trip in asked]
    prompts = {
        RULE_ONLY: [prompt(tokenizer, text, RULE) for text in texts],
        EXAMPLES: [prompt(tokenizer, text, RULE, shots) for text in texts],
        SHORT: [prompt(tokenizer, text) for text in texts],
    }
    return Quiz(asked, texts, prompts)


def _shared_start(rows: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all rows share at the start; one of each row is left out."""
    shortest = min(map(len, rows))
    equal = [len({row[i] for row in rows}) == 1 for i in range(shortest - 1)]
    return [*equal, False].index(False)


@torch.no_grad()
def answers(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """Return the first line of each greedy reply, computed in float32.

    What all prompts begin with is read once, and its keys and values are shared.
    """
    rows = [tokenizer.encode(text, add_special_tokens=False) for text in prompts]
    shared = _shared_start(rows)
    longest = max(map(len, rows))
    pad = tokenizer.pad_token_id
    padded = [row[:shared] + [pad] * (longest - len(row)) + row[shared:] for row in rows]
    mask = [[1] * shared + [0] * (longest - len(row)) + [1] * (len(row) - shared) for row in rows]
    ids = torch.tensor(padded, device=model.device)  # (B, T)
    options = {"pad_token_id": pad, "eos_token_id": tokenizer.eos_token_id, "do_sample": False}
    if shared:
        cache = model(ids[:1, :shared], use_cache=True).cache
        cache.batch_repeat_interleave(len(rows))
        options["cache"] = cache
    out = model.generate(
        ids,
        attention_mask=torch.tensor(mask, device=model.device),
        max_new_tokens=NEW_TOKENS,
        **options,
    )
    texts = tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)
    return [text.strip().split("\n")[0] for text in texts]


PARTS = ("city", "day", "number", "record")


def shares_right(said: Sequence[str], expected: Sequence[Trip]) -> list[float]:
    """Return the shares of replies with the right city, day and number, and of exact records."""
    right = [0, 0, 0, 0]
    for answer, trip in zip(said, expected, strict=True):
        wanted = record(trip)
        parts = [*answer.split("-"), "", "", ""][:3]
        for i, (part, want) in enumerate(zip(parts, wanted.split("-"), strict=True)):
            right[i] += part == want
        right[3] += answer == wanted
    return [count / len(expected) for count in right]
