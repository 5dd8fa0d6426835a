"""The forms in which section 6 of LLM01 asks its questions."""

from collections.abc import Callable
from typing import Any

Form = Callable[[str], str]  # turns a question into a prompt
Examples = list[tuple[str, str]]  # questions with solutions


def chat_form(build_chat: Callable[[Any], str], system: str = "") -> Form:
    """Return the form of a user's turn, after a system message if there is one."""

    def form(question: str) -> str:
        first = [{"role": "system", "content": system}] if system else []
        return build_chat([*first, {"role": "user", "content": question}])

    return form


def template_form(tokenizer: Any, build_chat: Callable[[Any], str]) -> Form:
    """Return the form of a user's turn by the tokenizer's template, else by build_chat."""
    if tokenizer.chat_template is None:
        return chat_form(build_chat)

    def form(question: str) -> str:
        user = {"role": "user", "content": question}
        return tokenizer.apply_chat_template([user], add_generation_prompt=True, tokenize=False)

    return form


def prompt_forms(
    few_shot_prompt: Callable[[Examples, str], str],
    build_chat: Callable[[Any], str],
    chat: Form,
    examples: Examples,
) -> dict[str, Form]:
    """Return all forms by name, made by the learner's functions from four examples."""
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
        "chat, pirate": chat_form(build_chat, system="You are a pirate."),
    }
