"""The models that can be talked to: SmolLM2, and those that runs saved below outputs/. No torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from common.cards import VISIBLE_FOLDERS, WRONG_USAGE, Card
from common.syllabus import find, lessons
from labs.kit.chat.plain import plain

ADAPTER = "adapter_config.json"
CONFIG = "config.json"
WEIGHTS = "*.safetensors"
CARD = "README.md"
MAX_CARD = 4096  # characters in which its title stands
MAX_TITLE = 120  # characters that are shown
TEMPLATES = ("chat_template.jinja", "chat_template.json")
LIST = "invoke chat --list"


@dataclass(frozen=True)
class SavedModel:
    """A folder with a model or an adapter, in the format of transformers or peft.

    Attributes:
        folder: the folder; None for the embedded SmolLM2.
    """

    folder: Path | None = None

    @property
    def is_adapter(self) -> bool:
        """Whether it is an adapter, which needs a base model."""
        return self.folder is not None and (self.folder / ADAPTER).is_file()

    @property
    def kind(self) -> str:
        """What it is, for a list: "chat model", "base model" or "adapter"."""
        if self.folder is None:
            return "chat model"
        if self.is_adapter:
            return "adapter"
        return "chat model" if _has_template(self.folder) else "base model"

    @property
    def title(self) -> str:
        """The title of its card, which names what it was trained on; empty without a card."""
        if self.folder is None:
            return ""
        try:
            with (self.folder / CARD).open(encoding="utf-8") as card:
                lines = card.read(MAX_CARD).splitlines()
        except (OSError, UnicodeDecodeError):
            return ""
        titles = (line.removeprefix("# ").strip() for line in lines if line.startswith("# "))
        return plain(next(titles, ""))[:MAX_TITLE]

    @property
    def megabytes(self) -> float:
        """The size of its weights."""
        files = self.folder.glob(WEIGHTS) if self.folder else ()
        return sum(path.stat().st_size for path in files) / 1e6


def _has_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in TEMPLATES):
        return True
    return "chat_template" in read_json(folder / "tokenizer_config.json")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if it can't be read or is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return cast(dict[str, Any], content) if isinstance(content, dict) else {}


def is_model(folder: Path) -> bool:
    """Return whether a folder has a configuration and weights in safetensors."""
    described = (folder / CONFIG).is_file() or (folder / ADAPTER).is_file()
    return described and any(folder.glob(WEIGHTS))


def saved_below(outputs: Path, *labs: str) -> list[SavedModel]:
    """Return the models that runs have saved, the newest run first.

    Args:
        outputs: the folder of all runs; a model is a folder in the folder of its run.
        labs: the names of labs; none for every lab.
    """
    below = [path for lab in labs or ("*",) for path in outputs.glob(f"{lab}/*/*")]
    folders = [path for path in below if path.is_dir() and is_model(path)]
    folders.sort(key=lambda path: (path.parent.name, path.parent.parent.name), reverse=True)
    return [SavedModel(folder) for folder in folders]


def choose(target: str, outputs: Path) -> SavedModel:
    """Return the model that a user names.

    Args:
        target: a folder, a run's folder with one model, a lab for its newest model (LLM10: of
            LLM10 and LLM10+), or nothing for SmolLM2.
        outputs: the folder of all runs.

    Raises:
        Card: if there is no such model.
    """
    if not target:
        return SavedModel()
    folder = Path(target)
    if folder.is_dir():
        return _in_folder(folder)
    if "/" in target or target.startswith("."):
        raise Card(f"There is no folder {plain(target)}.", VISIBLE_FOLDERS, LIST, WRONG_USAGE)
    return _newest_of(target, outputs)


def _in_folder(folder: Path) -> SavedModel:
    """Return the model in a folder, or in the only folder below it that has one."""
    if is_model(folder):
        return SavedModel(folder)
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and is_model(path)]
    if len(below) == 1:
        return SavedModel(below[0])
    why = "A model's folder has config.json, an adapter's has adapter_config.json, and both have "
    why += f"{WEIGHTS}: the only format of weights that can't contain code."
    if below:
        why = f"It has several: {', '.join(path.name for path in below)}."
    raise Card(f"{plain(str(folder))} is not a model.", plain(why), LIST, WRONG_USAGE)


def _newest_of(lab: str, outputs: Path) -> SavedModel:
    (lesson, *more) = find(lab)
    if more:
        why = f"{lab} names {len(more) + 1} labs."
        raise Card("A chat needs one model.", why, "invoke chat LLM10", WRONG_USAGE)
    both = (lesson.name,) if lesson.deeper else (lesson.name, f"{lesson.name}+")
    models = saved_below(outputs, *both)
    if not models:
        what = f"{lesson.name} has saved no model in {outputs}."
        others = ", ".join(_labs_with_models(outputs))
        why = f"These labs have: {others}." if others else "No lab has saved a model there yet."
        raise Card(what, why, f"invoke lab {lesson.name}; or: {LIST}", WRONG_USAGE)
    return models[0]


def _labs_with_models(outputs: Path) -> list[str]:
    saved = {model.folder.parent.parent.name for model in saved_below(outputs) if model.folder}
    return [lesson.name for lesson in lessons() if lesson.name in saved]
