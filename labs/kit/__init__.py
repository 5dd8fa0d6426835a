"""What every lab needs and no lab teaches: runs, checks, figures, reports, assets.

Names are imported at first use, so that the command line lists the labs without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.cards import Card as Card
    from labs.kit import assets as assets
    from labs.kit.compare import Checks as Checks
    from labs.kit.compare import Mistake as Mistake
    from labs.kit.compare import draw as draw
    from labs.kit.compare import equals as equals
    from labs.kit.compare import expect_close as expect_close
    from labs.kit.compare import name_mistake as name_mistake
    from labs.kit.compare import tolerance as tolerance
    from labs.kit.measure import seconds as seconds
    from labs.kit.measure import seconds_paired as seconds_paired
    from labs.kit.report.views import pack_array as pack_array
    from labs.kit.run.lab import Lab as Lab
    from labs.kit.run.results import Results as Results
    from labs.kit.run.run import Run as Run
    from labs.kit.training.checkpoints import Checkpoints as Checkpoints
    from labs.kit.training.loop import batches as batches
    from labs.kit.training.loop import on_one_thread as on_one_thread
    from labs.kit.training.loop import stop_on_nan as stop_on_nan
    from labs.kit.training.memory import keep_memory as keep_memory

_MODULE_OF = {
    "Card": "common.cards",
    "Checkpoints": "labs.kit.training.checkpoints",
    "Checks": "labs.kit.compare",
    "Lab": "labs.kit.run.lab",
    "Mistake": "labs.kit.compare",
    "Results": "labs.kit.run.results",
    "Run": "labs.kit.run.run",
    "batches": "labs.kit.training.loop",
    "draw": "labs.kit.compare",
    "equals": "labs.kit.compare",
    "expect_close": "labs.kit.compare",
    "keep_memory": "labs.kit.training.memory",
    "name_mistake": "labs.kit.compare",
    "on_one_thread": "labs.kit.training.loop",
    "pack_array": "labs.kit.report.views",
    "seconds": "labs.kit.measure",
    "seconds_paired": "labs.kit.measure",
    "stop_on_nan": "labs.kit.training.loop",
    "tolerance": "labs.kit.compare",
}


def __getattr__(name: str) -> Any:
    if name == "assets":
        return import_module("labs.kit.assets")
    if name not in _MODULE_OF:
        raise AttributeError(f"labs.kit has no {name}")
    return getattr(import_module(_MODULE_OF[name]), name)
