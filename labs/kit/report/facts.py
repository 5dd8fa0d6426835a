"""The environment of a run in plain words: for its report, and for the comparison of two runs."""

from collections.abc import Iterator
from typing import Any

# The keys of results.json that aren't words which a reader looks for.
LABELS: dict[tuple[str, ...], str] = {
    ("lab_sha256",): "hash of the lab's text",
    ("written_by_you",): "exercises written by you",
    ("stack", "stack"): "packages for",
    ("stack", "torch"): "installed torch",
    ("stack", "python"): "installed Python",
    ("stack", "lock"): "hash of the package list",
    ("stack", "base"): "base image",
    ("python",): "Python",
    ("cpu_capability",): "CPU instructions",
    ("online",): "downloads allowed",
}
# Groups of facts, of which each run may have others.
GROUPS = {
    "models_sha256": "hash of the weights of {}",
    "options": "option --{}",
    "stack": "packages: {}",
}
NOT_GIVEN = ("", "None")


def plain(environment: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the label and the value of each fact of an environment that was given."""
    for keys, value in _flat(environment):
        shown = _shown(value)
        if shown not in NOT_GIVEN:
            yield _label(keys), shown


def _flat(
    facts: dict[Any, Any], outer: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in facts.items():
        keys = (*outer, str(key))
        if isinstance(value, dict):
            yield from _flat(value, keys)  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield keys, value


def _label(keys: tuple[str, ...]) -> str:
    if keys in LABELS:
        return LABELS[keys]
    group, *inner = keys
    if inner and group in GROUPS:
        separator = "-" if group == "options" else " "
        return GROUPS[group].format(": ".join(inner).replace("_", separator))
    return ": ".join(keys).replace("_", " ")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
