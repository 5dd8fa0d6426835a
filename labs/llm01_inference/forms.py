"""The forms in which LLM01 asks its questions, and which replies are right."""

from collections.abc import Callable
from functools import cache
from typing import Any

from labs.kit import Run
from labs.llm01_inference.model_files import called
from labs.llm01_inference.questions import Item, is_right
from labs.llm01_inference.replies import replies
from labs.llm01_inference.uncertainty import share

Form = Callable[[str], str]  # turns a question into a prompt
Examples = list[tuple[str, str]]  # questions with solutions
PAIRS = (  # the forms to compare; the first pair was chosen beforehand
    ("4 examples", "zero-shot"),
    ("4 examples", "zero-shot, 32 tokens"),
    ("1 example", "zero-shot"),
    ("4, reversed", "4 examples"),
    ("4, wrong", "4 examples"),
    ("zero-shot, 32 tokens", "zero-shot"),
)


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


def prompt_forms(
    few_shot_prompt: Callable[[Examples, str], str],
    build_chat: Callable[[Any], str],
    tokenizer: Any,
    examples: Examples,
) -> dict[str, Form]:
    """Return all forms by name, made by the learner's functions from four examples."""
    chat = template_form(tokenizer, build_chat)
    solutions = [solution for _, solution in examples]
    shifted = [*solutions[1:], solutions[0]]
    wrong = [(question, other) for (question, _), other in zip(examples, shifted, strict=True)]

    def shots(chosen: Examples) -> Form:
        return lambda question: few_shot_prompt(chosen, question)

    return {
        "question alone": str,
        "zero-shot": shots([]),
        "zero-shot, 32 tokens": shots([]),
        "1 example": shots(examples[:1]),
        "4 examples": shots(examples),
        "4, reversed": shots(examples[::-1]),
        "4, wrong": shots(wrong),
        "chat": chat,
        "chat, reworded": lambda question: chat(f"{question} Answer with one word."),
        "chat, pirate": template_form(tokenizer, build_chat, system="You are a pirate."),
    }


def try_form(
    opened: tuple[Any, Any], form: Form, items: list[Item], new: int = 12
) -> tuple[list[str], list[bool]]:
    """Put the questions to a model; return its replies of up to `new` tokens, and which are right.

    Args:
        opened: the model and its tokenizer.
        form: turns a question into a prompt.
        items: the questions.
        new: the largest number of tokens of a reply.
    """
    texts = _ask(*opened, tuple(form(item.question) for item in items), new)
    return texts, [is_right(text, item) for text, item in zip(texts, items, strict=True)]


@cache
def _ask(model: Any, tokenizer: Any, prompts: tuple[str, ...], new: int) -> list[str]:
    """Return the first line of the model's greedy reply to each prompt."""
    return replies(model, tokenizer, prompts, new)


def try_forms(
    run: Run,
    opened: tuple[Any, Any],
    forms: dict[str, Form],
    items: list[Item],
    difference: Callable[[list[bool], list[bool]], tuple[float, float]],
) -> tuple[dict[str, list[bool]], list[list[Any]]]:
    """Put the questions in all forms, and tabulate the replies.

    Returns:
        Which replies are right by form; and for each form its name, accuracy, standard error,
        difference from zero-shot, and the error of that difference.
    """
    right = {}
    first = []
    for name in run.progress(list(forms), "forms"):
        texts, right[name] = try_form(opened, forms[name], items, 32 if "32" in name else 12)
        first.append([name, repr(texts[0])])
    run.table(f"The replies to “{items[0].question}”", ["form", "first line"], first)
    zero = right["zero-shot"]
    rows = [[name, *share(right[name]), *difference(right[name], zero)] for name in forms]
    columns = ["form", "accuracy", "its SE", "accuracy − zero-shot's", "its SE"]
    run.table(f"{len(items)} questions to {called(run)}", columns, rows)
    return right, rows
