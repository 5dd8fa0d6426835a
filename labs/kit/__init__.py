"""What every lab needs and no lab teaches: the run, checks, figures, the report, assets.

Names resolve on first use, so that the command line can list the labs on a machine without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labs.kit import assets as assets
    from labs.kit.cards import Card as Card
    from labs.kit.checkpoints import Checkpoints as Checkpoints
    from labs.kit.grading import Mistake as Mistake
    from labs.kit.grading import draw as draw
    from labs.kit.grading import equals as equals
    from labs.kit.grading import expect_close as expect_close
    from labs.kit.grading import name_mistake as name_mistake
    from labs.kit.grading import tolerance as tolerance
    from labs.kit.lab import Lab as Lab
    from labs.kit.run import Run as Run
    from labs.kit.timing import seconds as seconds
    from labs.kit.timing import seconds_paired as seconds_paired
    from labs.kit.training import batches as batches
    from labs.kit.training import on_one_thread as on_one_thread
    from labs.kit.training import stop_on_nan as stop_on_nan

_MODULE_OF = {
    "Card": "cards",
    "Checkpoints": "checkpoints",
    "Lab": "lab",
    "Mistake": "grading",
    "Run": "run",
    "batches": "training",
    "draw": "grading",
    "equals": "grading",
    "expect_close": "grading",
    "name_mistake": "grading",
    "on_one_thread": "training",
    "seconds": "timing",
    "seconds_paired": "timing",
    "stop_on_nan": "training",
    "tolerance": "grading",
}


def __getattr__(name: str) -> Any:
    if name == "assets":
        return import_module("labs.kit.assets")
    if name not in _MODULE_OF:
        raise AttributeError(f"labs.kit has no {name}")
    return getattr(import_module(f"labs.kit.{_MODULE_OF[name]}"), name)
