"""LLM10+'s last section: questions about words, and a model that LLM08's loop tunes to reply."""

import copy
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from labs.kit import Checkpoints, Run, assets, on_one_thread
from labs.kit.model_files import generate_greedily, write_card
from labs.llm08_training import PARTS as LLM08
from labs.llm08_training import Recipe, train
from labs.llm10_llama.conversion import from_transformers, to_transformers
from labs.llm10_llama.corpus import Text, tokenizer_of
from labs.llm10_llama.ladder import corpus
from labs.llm10_llama.parts import pad_left
from labs.llm10_llama.training import by_default

import torch
from torch import Tensor

QUESTIONS: dict[str, Callable[[str], str]] = {
    "First letter of {}?": lambda word: word[0],
    "Last letter of {}?": lambda word: word[-1],
    "Length of {}?": lambda word: str(len(word)),
    "{} in capitals?": lambda word: word.upper(),
    "{} twice?": lambda word: f"{word} {word}",
}
TEMPLATE = """{% for m in messages %}{% if m.role == 'user' %}{{ 'Q\n' + m.content }}\
{% elif m.role == 'assistant' %}{{ '\n\nA\n' + m.content + eos_token }}\
{% else %}{{ raise_exception('it knows no system prompt') }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '\n\nA\n' }}{% endif %}"""
CARD = Path(__file__).with_name("chat_tuning_card.md")
SEEN = 20  # times that a word occurs in the plays, at least
ASKED = 200  # held-out questions
LONGEST = 16  # tokens of a reply: seven letters twice, a space, the end


@dataclass(frozen=True)
class Question:
    """A question about a word."""

    kind: str
    word: str

    @property
    def text(self) -> str:
        """The question."""
        return self.kind.format(self.word)

    @property
    def reply(self) -> str:
        """The right reply."""
        return QUESTIONS[self.kind](self.word)


@dataclass(frozen=True)
class Exam:
    """What a model replies to held-out questions.

    Attributes:
        loss: of the right replies, in nats per label.
        replies: the model's own, in the order of the questions.
        right: by kind, the share of questions with exactly the right reply.
    """

    loss: float
    replies: list[str]
    right: dict[str, float]


def recipe(run: Run) -> Recipe:
    """Return how the model is tuned."""
    steps = run.pick(tiny=200, small=1000, full=4000)
    return Recipe(steps, lr=5e-3, warmup=20, batch=32, seed=run.seed)


def questions(seed: int, count: int) -> tuple[list[Question], list[Question]]:
    """Return `count` questions to tune on and ASKED held-out ones, about words of the plays.

    No word is in both.
    """
    counts = Counter(re.findall(r"\b[a-z]{3,7}\b", assets.shakespeare()))
    words = sorted(word for word, times in counts.items() if times >= SEEN)
    dice = random.Random(seed)
    dice.shuffle(words)
    cut = len(words) // 10

    def draw(words: list[str], count: int) -> list[Question]:
        return [Question(dice.choice(list(QUESTIONS)), dice.choice(words)) for _ in range(count)]

    held_out = draw(words[:cut], ASKED)
    return draw(words[cut:], count), held_out


def swapped(rows: list[Question], seed: int) -> list[str]:
    """Return for each question the reply to a random question of the same kind."""
    replies = [""] * len(rows)
    for kind in QUESTIONS:
        places = [place for place, row in enumerate(rows) if row.kind == kind]
        others = places.copy()
        random.Random(seed).shuffle(others)
        for place, other in zip(places, others, strict=True):
            replies[place] = rows[other].reply
    return replies


def chat_tokenizer(text: Text) -> Any:
    """Return the tokenizer of a text, with a chat template."""
    tokenizer = tokenizer_of(text)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def encoded(tokenizer: Any, rows: list[Question], replies: list[str]) -> Any:
    """Encode questions with these replies, by LLM08's function."""
    return [
        LLM08.encode(
            tokenizer,
            [{"role": "user", "content": row.text}, {"role": "assistant", "content": reply}],
        )
        for row, reply in zip(rows, replies, strict=True)
    ]


@on_one_thread
@torch.enable_grad()
def tune(
    run: Run,
    base: Any,
    how: Recipe,
    tokenizer: Any,
    rows: list[Question],
    name: str,
    replies: list[str],
) -> Any:
    """Tune a copy of a model by LLM08's loop; return it as a model of transformers.

    Args:
        run: the run.
        base: a model of LLM10.
        how: the recipe.
        tokenizer: with a chat template.
        rows: the questions.
        name: of this training, for its checkpoints and its progress bar.
        replies: to learn, one for each question.
    """
    model = to_transformers(copy.deepcopy(base).cpu())
    table = encoded(tokenizer, rows, replies)
    weights = b"".join(weight.detach().numpy().tobytes() for weight in model.parameters())
    facts = {
        **vars(how),
        "rows": hashlib.sha256(json.dumps(table).encode()).hexdigest(),
        "model": hashlib.sha256(weights).hexdigest(),
    }
    checkpoints = Checkpoints(run, name, depends_on=facts, steps=how.steps)
    pad = tokenizer.eos_token_id
    loop = replace(LLM08.loop, collate=lambda rows: LLM08.collate(rows, pad))
    with run.small_products(base.config.d_model):
        return train(run, name, model, table, how, loop, checkpoints=checkpoints).model


def examine(
    run: Run,
    model: Any,
    tokenizer: Any,
    rows: list[Question],
    make: Callable[..., Any],
    generate: Callable[..., Tensor],
) -> Exam:
    """Examine a model of transformers: its loss by LLM08's code, its replies by LLM10's.

    Args:
        run: the run.
        model: the model of transformers.
        tokenizer: with a chat template.
        rows: the questions.
        make: makes LLM10's model from its configuration.
        generate: LLM10's generation.
    """
    table = encoded(tokenizer, rows, [row.reply for row in rows])
    loss = LLM08.loss(run, model.to(run.device), table, tokenizer.eos_token_id)
    ours = from_transformers(copy.deepcopy(model).float().cpu(), make)
    replies = replies_of(ours, tokenizer, rows, generate)
    right: dict[str, float] = {}
    for kind in QUESTIONS:
        pairs = zip(rows, replies, strict=True)
        right[kind] = mean(row.reply == reply for row, reply in pairs if row.kind == kind)
    return Exam(loss, replies, right)


def replies_of(
    model: Any, tokenizer: Any, rows: list[Question], generate: Callable[..., Tensor]
) -> list[str]:
    """Return a model's greedy replies to all questions, written in one batch."""
    prompts: list[Tensor] = []
    for row in rows:
        talk = [{"role": "user", "content": row.text}]
        asked = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        prompts.append(torch.tensor(tokenizer(asked).input_ids))
    ids, padding = pad_left(prompts)
    end = tokenizer.eos_token_id
    texts: list[str] = []
    for row in generate(model, ids, LONGEST, padding=padding).tolist():
        texts.append(tokenizer.decode(row[: [*row, end].index(end)]))
    return texts


def better_kinds(exams: dict[str, Exam], rows: list[Question]) -> list[str]:
    """Return the kinds of questions with more right replies than the control's.

    More is by over three standard errors of the difference of two shares.
    """
    better: list[str] = []
    for kind in QUESTIONS:
        count = sum(row.kind == kind for row in rows)
        share = exams["tuned"].right[kind]
        other = exams["replies swapped"].right[kind]
        pooled = (share + other) / 2
        if share - other > 3 * (2 * pooled * (1 - pooled) / count) ** 0.5:
            better.append(kind)
    return better


def judge(run: Run, exams: dict[str, Exam], rows: list[Question]) -> tuple[list[str], list[str]]:
    """Measure what the tuning taught, beside the model before and the control.

    Returns:
        The kinds of questions with more right replies than the control's, and the other kinds.
    """
    right = {name: mean(exam.right.values()) for name, exam in exams.items()}
    loss = {name: exam.loss for name, exam in exams.items()}
    kinds = [kind.format("…") for kind in QUESTIONS]
    columns = ["", "loss (nats per label)", "right, all kinds", *kinds]
    table = [
        [name, loss[name], f"{right[name]:.0%}", *(f"{x:.0%}" for x in exam.right.values())]
        for name, exam in exams.items()
    ]
    run.table(f"{len(rows)} questions about words that were held out", columns, table)
    shown = [rows.index(next(row for row in rows if row.kind == kind)) for kind in QUESTIONS]
    run.table(
        "Their replies",
        ["question", *exams, "right"],
        [
            [rows[i].text, *(repr(exam.replies[i]) for exam in exams.values()), rows[i].reply]
            for i in shown
        ],
    )
    decides = by_default(run)  # nobody knows what a model of another text or recipe can learn
    because = "to know a length saves 1.6 nats, in a fifth of the replies, of five labels each"
    name = "loss of the control − loss"
    gap = loss["replies swapped"] - loss["tuned"]
    run.measure("loss before − loss", loss["before"] - loss["tuned"], expect_at_least=0)
    run.measure(name, gap, expect_at_least=0.05, because=because, decides=decides)
    gap = right["tuned"] - right["replies swapped"]
    run.measure("share of right replies − the control's", gap)
    better = better_kinds(exams, rows)
    because = "more right replies than the control's by over three standard errors"
    name = "kinds of replies beyond the control's"
    run.measure(name, len(better), expect_at_least=1, because=because, decides=decides)
    names = {kind: f"“{kind.format('…')}” ({exams['tuned'].right[kind]:.0%})" for kind in QUESTIONS}
    rest = [name for kind, name in names.items() if kind not in better]
    return [names[kind] for kind in better], rest


def save(run: Run, model: Any, tokenizer: Any, exams: dict[str, Exam], how: Recipe) -> Path:
    """Write the tuned model, its tokenizer and its card; return the folder."""
    folder = run.folder / "chat"
    if not run.accelerator.is_main_process:
        return folder
    generate_greedily(model)  # each question has one right reply
    model.cpu().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    facts = {
        **vars(how),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "text": corpus(run).name,
        "context": model.config.max_position_embeddings,
        "rows": how.steps * how.batch // 2,
        "asked": ASKED,
        "before": exams["before"].loss,
        "after": exams["tuned"].loss,
        "right": mean(exams["tuned"].right.values()),
        "kinds": ", ".join(
            f"{kind.format('…')} {share:.0%}" for kind, share in exams["tuned"].right.items()
        ),
        "questions": ", ".join(f"“{kind.format('music')}”" for kind in QUESTIONS),
    }
    write_card(folder, CARD.read_text(encoding="utf-8").format(**facts))
    return folder
