"""The sampling settings of a chat, each with a command that changes it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from common.options import LARGEST_SEED


@dataclass(frozen=True)
class Setting:
    """How a command sets a value.

    Attributes:
        parse: int or float.
        low: the smallest value.
        high: the largest value.
        help: what the value does.
    """

    parse: Callable[[str], int | float]
    low: float
    high: float
    help: str


@dataclass(frozen=True)
class Sampling:
    """The sampling settings.

    Attributes:
        temperature: divides the logits; 0 always takes the most probable token.
        top_p: sample from the most probable tokens that have this probability together.
        top_k: sample from this many most probable tokens; 0 is no limit.
        min_p: drop tokens less probable than this fraction of the most probable one; 0 drops none.
        max_tokens: the length limit of a reply.
        seed: of the random numbers; the same inputs then give the same replies.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 256
    seed: int = 0

    def changed(self, command: str, value: str) -> "Sampling":
        """Return the settings with another value.

        Args:
            command: the name of the setting on the command line, such as top-p.
            value: the value as text.

        Raises:
            ValueError: for a value that isn't a number in the setting's range.
        """
        setting = SETTINGS[command]
        kind = "an integer" if setting.parse is int else "a number"
        bounds = f"{kind} from {setting.low} to {setting.high}"
        try:
            number = setting.parse(value)
        except ValueError:
            raise ValueError(f"/{command} needs {bounds}") from None
        if not setting.low <= number <= setting.high:  # NaN isn't, either
            raise ValueError(f"/{command} needs {bounds}")
        return replace(self, **{_field(command): number})

    def shown(self) -> dict[str, str]:
        """Return each setting's command and its value."""
        return {f"/{command}": str(getattr(self, _field(command))) for command in SETTINGS}

    def generation_options(self) -> dict[str, Any]:
        """Return the arguments of transformers' GenerationConfig."""
        if self.temperature == 0:
            return {"do_sample": False}
        return {
            "do_sample": True,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p or None,
        }


def _field(command: str) -> str:
    return command.replace("-", "_")


SETTINGS = {
    "temperature": Setting(float, 0, 10, "0 always takes the most probable token"),
    "top-p": Setting(float, 0.01, 1, "sample from tokens that have this probability together"),
    "top-k": Setting(int, 0, 1_000_000, "sample from the K most probable tokens; 0 is no limit"),
    "min-p": Setting(float, 0, 1, "drop tokens below this fraction of the most probable one's"),
    "max-tokens": Setting(int, 1, 1_000_000, "the length limit of a reply"),
    "seed": Setting(int, 0, LARGEST_SEED, "of the random numbers, which start again"),
}
