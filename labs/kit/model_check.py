"""Check that a model in a folder is data alone and complete, before a lab opens it.

Somebody else's model can contain code (`auto_map`, a pickle), a chat template that never ends, or a
tokenizer that takes all memory. What the files alone don't show is tried in a sandboxed child
process, with limits of time and memory.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from common.cards import WRONG_USAGE, Card
from labs.kit.sandbox import child
from labs.kit.sandbox.limits import Limits, Outcome

LIMITS = Limits(cpu_seconds=60, seconds=180.0, memory=2 * 2**30)
LARGEST_CONFIG = 2**20  # bytes; the largest we know has 50 kB
LARGEST_TEXT = 2**26  # of a tokenizer; Gemma 3's has 33 MB
LARGEST_HEADER = 2**24  # of a safetensors file; about 100 bytes for each tensor
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MESSAGES = [{"role": "user", "content": "Hi"}]


def require_safe(folder: str) -> str:
    """Return `folder` if its model is data alone, complete, and can be opened within the limits.

    Raises:
        Card: if it isn't.
    """
    path = Path(folder)
    _refuse(_problem_of_files(path))
    stamps = tuple((one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in _files(path))
    _try_opening(folder, stamps)
    return folder


def _refuse(why: str) -> None:
    if why:
        raise Card("The model can't be opened.", why, "another model: --model …", WRONG_USAGE)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _problem_of_files(folder: Path) -> str:
    """Return what is wrong with the files of a model; empty if nothing is."""
    if not (folder / WEIGHTS).is_file() and not (folder / INDEX).is_file():
        return (
            f"{folder} has no *.safetensors under the name {WEIGHTS} or {INDEX}, "
            "the only format that can't contain code."
        )
    if (folder / "adapter_config.json").exists():
        return f"{folder} has adapter_config.json, which names another model to open."
    too_large = next(_large_files(folder), "")
    return too_large or _problem_of_config(folder) or next(_headers(folder), "")


def _large_files(folder: Path) -> Iterator[str]:
    for path in _files(folder):
        size = path.stat().st_size
        limit = LARGEST_CONFIG if path.name == "config.json" else LARGEST_TEXT
        if path.suffix in (".json", ".jinja", ".txt", ".model") and size > limit:
            yield f"{path} has {size / 1e6:,.0f} MB; at most {limit / 1e6:,.0f} MB are opened."


def _headers(folder: Path) -> Iterator[str]:
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > min(LARGEST_HEADER, path.stat().st_size - 8):
            yield f"{path} isn't safetensors: its header claims to have {length:,} bytes."


def _problem_of_config(folder: Path) -> str:
    # The class of the model is imported here, and not again in each child.
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    config = _read(folder / "config.json")
    if config is None:
        return f"{folder / 'config.json'} isn't a JSON object."
    weights = config.get("transformers_weights")
    if weights is not None and not str(weights).endswith(".safetensors"):
        return f"{folder / 'config.json'} names weights that aren't safetensors: {weights!r:.80}."
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in (_read(folder / name) or {}):
            return f"{folder / name} has auto_map: the model brings code, and labs don't run it."
    model_type = config.get("model_type")
    if model_type is None:
        return f"{folder} has no config.json with a model type."
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        return (
            f"transformers has no model type {model_type!r:.80}, and a model's own code isn't run."
        )
    if MODEL_FOR_CAUSAL_LM_MAPPING.get(CONFIG_MAPPING[model_type], None) is None:
        return f"A model of the type {model_type!r} doesn't predict the next token."
    return ""


def _read(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, empty without the file; None if it isn't one."""
    try:
        data: Any = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        return None
    return cast(dict[str, Any], data) if isinstance(data, dict) else None


@cache
def _try_opening(folder: str, stamps: tuple[Any, ...]) -> None:
    """Open a model in a sandboxed child, once a process and again after a change.

    Raises:
        Card: if that fails, or takes too much time or memory.
    """
    del stamps  # they are a part of the cache's key
    path = Path(folder).resolve()
    readable = [path, *(one.resolve() for one in _files(path))]  # the hub's cache has links
    outcome = child.run(partial(_open, str(path)), LIMITS, readable=readable)
    _refuse(_problem_of_outcome(outcome))


def _problem_of_outcome(outcome: Outcome) -> str:
    if outcome.kind == "returned":
        return str(outcome.result)
    if outcome.kind == "time":
        return (
            f"Opening it was stopped after {LIMITS.cpu_seconds} s of computing: "
            "does its chat template loop?"
        )
    if outcome.kind == "memory":
        return f"Opening it, without its weights, took more than {LIMITS.memory >> 30} GiB."
    return f"Opening it ended a child process ({outcome.kind} {outcome.code})."


def _open(folder: str) -> str:
    """Open a model without its weights, its tokenizer and its chat template; return the problem."""
    try:
        return _missing_weights(folder) or _try_tokenizer(folder)
    except MemoryError:
        return f"Opening it, without its weights, took more than {LIMITS.memory >> 30} GiB."
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        return f"{type(error).__name__}: {first:.200}"


def _missing_weights(folder: str) -> str:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    opened: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        device_map="meta",
        use_safetensors=True,
        output_loading_info=True,
    )
    missing: list[str] = sorted(opened[1]["missing_keys"])
    if not missing:
        return ""
    return f"Its files lack {len(missing)} of its weights, such as {missing[0]}."


def _try_tokenizer(folder: str) -> str:
    from jinja2 import TemplateError
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.decode(tokenizer("Good morning").input_ids)
    if tokenizer.chat_template:
        with suppress(TemplateError):  # it may want other messages: the lab reports that
            tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    return ""
