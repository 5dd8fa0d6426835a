"""The task of LLM07: requests for seats, in three wordings, become records such as OSL-FRI-3."""

import math
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
RULE_ONLY, EXAMPLES, SHORT = "rule", "rule, six examples", "short prompt"  # of the untrained model
TRAINED = "trained, short prompt"
SYSTEMS = (SYSTEM, "You are a helpful assistant.")
NEW_TOKENS = 8  # the longest record has 7, and then the end
ROOM_FOR_WORDS = 16  # for a record after a few words

Trip = tuple[int, str, str]
Message = dict[str, str]
# Six trips of the training set: no number, city or day twice, and none of the rule's.
SHOTS: list[Trip] = [
    (2, "Athens", "Monday"),
    (5, "Dublin", "Thursday"),
    (7, "Lisbon", "Tuesday"),
    (6, "Madrid", "Saturday"),
    (8, "Paris", "Wednesday"),
    (4, "Vienna", "Sunday"),
]


def trips() -> tuple[list[Trip], list[Trip]]:
    """Return (number, city, day): 504 for training, 168 held out.

    Training has every number, city and day of a held-out trip, but never all three together.
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


def capital(tokenizer: Any) -> list[str]:
    """Return a question that asks for no record, under two system prompts."""
    return [prompt(tokenizer, CAPITAL, system) for system in SYSTEMS]


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
    held_out = trips()[1]
    asked = dice.sample(held_out, min(size, len(held_out)))
    texts = [request(trip, dice) for trip in asked]
    prompts = {
        RULE_ONLY: [prompt(tokenizer, text, RULE) for text in texts],
        EXAMPLES: [prompt(tokenizer, text, RULE, SHOTS) for text in texts],
        SHORT: [prompt(tokenizer, text) for text in texts],
    }
    return Quiz(asked, texts, prompts)


def _shared_start(rows: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all rows share at the start; one of each row is left out."""
    shortest = min(map(len, rows))
    equal = [len({row[i] for row in rows}) == 1 for i in range(shortest - 1)]
    return [*equal, False].index(False)


@torch.no_grad()
def answers(
    model: Any, tokenizer: Any, prompts: Sequence[str], new_tokens: int = NEW_TOKENS
) -> list[str]:
    """Return the first line of each greedy reply of at most `new_tokens`, computed in float32.

    The model reads the shared start of all prompts once; its keys and values serve all rows.
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
        cache = model(ids[:1, :shared], use_cache=True, logits_to_keep=1).cache
        cache.batch_repeat_interleave(len(rows))
        options["cache"] = cache
    out = model.generate(
        ids,
        attention_mask=torch.tensor(mask, device=model.device),
        max_new_tokens=new_tokens,
        **options,
    )
    texts = tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)
    return [text.strip().split("\n")[0] for text in texts]


def shares_right(replies: Sequence[str], expected: Sequence[Trip]) -> list[float]:
    """Return the shares of replies with the right city, day and number, and of exact records."""
    right = [0, 0, 0, 0]
    for reply, trip in zip(replies, expected, strict=True):
        wanted = record(trip)
        parts = [*reply.split("-"), "", "", ""][:3]
        for i, (part, want) in enumerate(zip(parts, wanted.split("-"), strict=True)):
            right[i] += part == want
        right[3] += reply == wanted
    return [count / len(expected) for count in right]


class Exam:
    """Held-out requests for a model, before and after its training.

    Attributes:
        quiz: the requests and their prompts.
        replies: the replies to these requests, by prompt.
        paris: the replies about France, each time that it was asked.
    """

    def __init__(self, tokenizer: Any, size: int, seed: int):
        self.tokenizer = tokenizer
        self.quiz = quiz(tokenizer, size, seed)
        self.replies: dict[str, list[str]] = {}
        self.paris: list[list[str]] = []

    def ask_untrained(self, model: Any) -> None:
        """Ask with each prompt, and about France; prompts that state the rule get more tokens."""
        for name, prompts in self.quiz.prompts.items():
            new_tokens = NEW_TOKENS if name == SHORT else ROOM_FOR_WORDS
            self.replies[name] = answers(model, self.tokenizer, prompts, new_tokens)
        self.ask_about_france(model)

    def ask_trained(self, model: Any) -> None:
        """Ask with the short prompt, and about France."""
        self.replies[TRAINED] = answers(model, self.tokenizer, self.quiz.prompts[SHORT])
        self.ask_about_france(model)

    def ask_about_france(self, model: Any) -> None:
        """Ask for the capital of France, under both system prompts."""
        self.paris.append(answers(model, self.tokenizer, capital(self.tokenizer)))

    def paris_table(self) -> tuple[str, list[str], list[tuple[str, ...]]]:
        """Return title, columns and rows: the replies about France, under both system prompts."""
        columns = ["system prompt", "before", "trained", "adapter taken out"]
        return CAPITAL, columns, list(zip(SYSTEMS, *self.paris, strict=True))

    def table(self) -> tuple[list[str], list[tuple[str, ...]]]:
        """Return columns and rows: six requests and their replies."""
        rows = list(zip(self.quiz.texts, *self.replies.values(), strict=True))
        return ["request", *self.replies], rows[:6]

    def right(self) -> dict[str, list[float]]:
        """Return the shares of right cities, days, numbers and records, by prompt."""
        trips = self.quiz.trips
        return {name: shares_right(replies, trips) for name, replies in self.replies.items()}

    def contains(self) -> float:
        """Return the largest share of an untrained prompt's replies that contain the record."""
        trips = self.quiz.trips
        shares = [
            sum(record(trip) in reply for trip, reply in zip(trips, replies, strict=True))
            for name, replies in self.replies.items()
            if name != TRAINED
        ]
        return max(shares) / len(trips)

    def lead(self) -> float:
        """Return how far the trained share of records is above the best prompt's, minus 4 errors.

        The standard errors are those of shares with two successes and two failures more (Agresti &
        Coull 1998): else a share of 0 or 1 would have a standard error of 0.
        """
        n = len(self.quiz.trips)
        shares = {name: parts[-1] for name, parts in self.right().items()}
        trained = shares.pop(TRAINED)
        best = max(shares.values())
        safe = [(share * n + 2) / (n + 4) for share in (trained, best)]
        variance = sum(share * (1 - share) for share in safe) / (n + 4)
        return trained - best - 4 * math.sqrt(variance)
