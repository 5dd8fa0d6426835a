"""The forms in which section 6 of LLM01 asks its questions."""

from collections.abc import Callable
from typing import Any

Form = Callable[[str], str]  # turns a question into a prompt
Examples = list[tuple[str, str]]  # questions with solutions


def chat_form(build_chat: Callable[[Any], str], system: str = "", addition: str = "") -> Form:
    """Return the form of a user's turn, with a system message or a sentence behind the question."""

    def form(question: str) -> str:
        first = [{"role": "system", "content": system}] if system else []
        return build_chat([*first, {"role": "user", "content": question + addition}])

    return form


def prompt_forms(
    few_shot_prompt: Callable[[Examples, str], str],
    build_chat: Callable[[Any], str],
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
        "1 example": shots(examples[:1]),
        "4 examples": shots(examples),
        "4, reverse order": shots(examples[::-1]),
        "4 with wrong answers": shots(wrong),
        "chat": chat_form(build_chat),
        "chat, reworded": chat_form(build_chat, addition=" Answer with one word."),
        "chat, system prompt": chat_form(build_chat, system="You are a pirate."),
    }
