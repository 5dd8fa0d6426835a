"""The forms in which LLM01 asks its questions, and which replies are right."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from labs.kit import Run
from labs.llm01_inference.model_files import called
from labs.llm01_inference.questions import Item, is_right, words
from labs.llm01_inference.replies import first_line, reply_ids
from labs.llm01_inference.uncertainty import share, verdict

Form = Callable[[str], str]  # turns a question into a prompt
Examples = list[tuple[str, str]]  # questions with solutions
Difference = Callable[[Sequence[bool], Sequence[bool]], tuple[float, float]]
NEW = 12  # tokens of a reply
LONG = 32
MORE = {f"{name}, {LONG} tokens": LONG for name in ("zero-shot", "chat")}  # forms with this limit
OTHERS = (  # pairs of forms to compare, besides 4 examples and zero-shot
    ("4 examples", "zero-shot, 32 tokens"),
    ("1 example", "zero-shot"),
    ("4, reversed", "4 examples"),
    ("4, wrong", "4 examples"),
    ("zero-shot, 32 tokens", "zero-shot"),
    ("chat", "zero-shot"),
    ("chat, 32 tokens", "chat"),
    ("chat", "chat, no system"),
)
OF_CHAT = ("question alone", "zero-shot", "chat, no system", "chat")


def template_form(tokenizer: Any, build_chat: Callable[[Any], str], system: str = "") -> Form:
    """Return the form of a user's turn by the tokenizer's template, else by build_chat.

    A system message comes first if there is one; else the template may add its own.
    """

    def form(question: str) -> str:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": question})
        if tokenizer.chat_template is None:
            return build_chat(messages)
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    return form


def few_shot_prompt(examples: Examples, question: str) -> str:
    """Return 'Q: …', 'A: …' and an empty line for each example, then the question, to 'A:'."""
    shots = [f"Q: {asked}\nA: {answer}\n\n" for asked, answer in examples]
    return "".join(shots) + f"Q: {question}\nA:"


def prompt_forms(
    build_chat: Callable[[Any], str], tokenizer: Any, items: list[Item]
) -> dict[str, Form]:
    """Return all forms by name, made from four examples and by the learner's build_chat.

    "chat, no system" is left out if the model doesn't know the control tokens of build_chat.
    """
    examples = [(item.question, item.answers[0]) for item in items]
    chat = template_form(tokenizer, build_chat)
    solutions = [solution for _, solution in examples]
    shifted = [*solutions[1:], solutions[0]]
    wrong = [(question, other) for (question, _), other in zip(examples, shifted, strict=True)]

    def shots(chosen: Examples) -> Form:
        return lambda question: few_shot_prompt(chosen, question)

    forms: dict[str, Form] = {
        "question alone": str,
        "zero-shot": shots([]),
        "zero-shot, 32 tokens": shots([]),
        "1 example": shots(examples[:1]),
        "4 examples": shots(examples),
        "4, reversed": shots(examples[::-1]),
        "4, wrong": shots(wrong),
        "chat": chat,
        "chat, 32 tokens": chat,
        "chat, reworded": lambda question: chat(f"{question} Answer with one word."),
        "chat, pirate": template_form(tokenizer, build_chat, system="You are a pirate."),
    }
    if "<|im_start|>" in tokenizer.get_vocab():
        forms["chat, no system"] = lambda question: build_chat(
            [{"role": "user", "content": question}]
        )
    return forms


def compare_with_template(run: Run, tokenizer: Any, build_chat: Callable[[Any], str]) -> None:
    """Measure whether build_chat writes the text of the tokenizer's template."""
    asked = "What is the capital of Greece?"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": asked}]
    equal = template_form(tokenizer, build_chat, "Be brief.")(asked) == build_chat(messages)
    because = "build_chat writes SmolLM2's format; another --model may have another"
    run.measure("equal to the template's text", equal, expect_at_least=1, because=because)


def try_form(
    opened: tuple[Any, Any], form: Form, items: list[Item], new: int = NEW, longest: int = NEW
) -> tuple[list[str], list[bool]]:
    """Put the questions to a model; return its replies of up to `new` tokens, and which are right.

    Args:
        opened: the model and its tokenizer.
        form: turns a question into a prompt.
        items: the questions.
        new: the largest number of tokens of a reply.
        longest: the same of another form with these prompts: both take the replies of one call.
    """
    prompts = tuple(form(item.question) for item in items)
    written = _ask(*opened, prompts, max(new, longest))
    texts = [first_line(opened[1], ids[:new])[0] for ids in written]
    return texts, [is_right(text, item) for text, item in zip(texts, items, strict=True)]


def try_chat(
    run: Run, opened: tuple[Any, Any], forms: dict[str, Form], items: list[Item]
) -> dict[str, list[bool]]:
    """Return which replies are right in the forms of OF_CHAT, and tabulate their number."""
    texts = {}
    right = {}
    for name in (name for name in OF_CHAT if name in forms):
        texts[name], right[name] = try_named(opened, forms, name, items)
    at, why = telling_question(right["chat"], right["zero-shot"])
    rows = [
        [name, repr(said[at]), said.count(""), sum(right[name])] for name, said in texts.items()
    ]
    columns = ["form", "first line", "empty replies", f"right of {len(items)}"]
    run.table(f"The replies to “{items[at].question}”{why}", columns, rows)
    return right


def telling_question(chat: list[bool], zero_shot: list[bool]) -> tuple[int, str]:
    """Return the first question that only the template gets right, else 0, and why it is shown."""
    for i, (a, b) in enumerate(zip(chat, zero_shot, strict=True)):
        if a and not b:
            return i, ", the first that the template gets right and zero-shot doesn't"
    return 0, ""


def try_named(
    opened: tuple[Any, Any], forms: dict[str, Form], name: str, items: list[Item]
) -> tuple[list[str], list[bool]]:
    """Put the questions in a form with its limit; return the replies and which are right."""
    new = MORE.get(name, NEW)
    return try_form(opened, forms[name], items, new, MORE.get(f"{name}, {LONG} tokens", new))


@cache
def _ask(model: Any, tokenizer: Any, prompts: tuple[str, ...], new: int) -> list[list[int]]:
    """Return the ids of the model's greedy reply to each prompt."""
    return reply_ids(model, tokenizer, prompts, new)


def try_forms(
    run: Run,
    opened: tuple[Any, Any],
    forms: dict[str, Form],
    items: list[Item],
    difference: Difference,
) -> tuple[dict[str, list[bool]], list[list[Any]], dict[str, int]]:
    """Put the questions in all forms, and tabulate the replies.

    Args:
        run: gets the tables.
        opened: the model and its tokenizer.
        forms: by name, what turns a question into a prompt.
        items: the questions.
        difference: returns share(a) − share(b) on the same questions, and its standard error.

    Returns:
        Which replies are right by form; for each form its name, accuracy, standard error,
        difference from zero-shot, and the error of that difference; and how many replies only
        repeat words of their question, by form.
    """
    right = {}
    copies = {}
    first = []
    for name in run.progress(list(forms), "forms"):
        texts, right[name] = try_named(opened, forms, name, items)
        copies[name] = sum(repeats(text, item) for text, item in zip(texts, items, strict=True))
        first.append([name, repr(texts[0]), copies[name]])
    columns = ["form", "first line", f"replies of {len(items)} that only repeat the question"]
    run.table(f"The replies to “{items[0].question}”", columns, first)
    zero = right["zero-shot"]
    rows = [[name, *share(right[name]), *difference(right[name], zero)] for name in forms]
    columns = ["form", "accuracy", "SE", "accuracy − zero-shot", "SE of the difference"]
    run.table(f"{len(items)} questions to {called(run)}", columns, rows)
    return right, rows, copies


def repeats(text: str, item: Item) -> bool:
    """Return whether a reply consists of words that follow each other in its question."""
    said = " ".join(words(text))
    return bool(said) and f" {said} " in f" {' '.join(words(item.question))} "


def compare_others(run: Run, right: dict[str, list[bool]], difference: Difference) -> None:
    """Tabulate the differences of OTHERS."""
    pairs = [(form, other) for form, other in OTHERS if {form, other} <= right.keys()]
    rows = [[a, b, verdict(*difference(right[a], right[b]))] for a, b in pairs]
    columns = ["form", "compared with", "difference"]
    run.table("Differences of accuracies, in percentage points ± one SE", columns, rows)
