"""The GPUs that `invoke hub` gives to its seats."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.cards import Card
from launcher.engine.client import Engine
from launcher.gpu.lease import per_gpu
from launcher.gpu.model import Gpu
from launcher.hub.settings import SETTINGS_FILE, WORKSHOP, HubSettings
from launcher.run import service as lab_service
from launcher.run.placement import Placement, choose_placement
from launcher.run.runtime import Runtime


@dataclass(frozen=True)
class HubGpus:
    """What the hub needs to know to give GPUs to seats.

    Attributes:
        stack: cuda or rocm.
        gpus: the GPUs that seats may have.
        access: how a GPU enters a container, as in `select_gpus.attach`.
        per_seat: how many GPUs a seat gets.
        per_gpu: how many seats and labs may share a GPU.
    """

    stack: str
    gpus: tuple[Gpu, ...]
    access: str
    per_seat: int
    per_gpu: int

    @property
    def seats(self) -> int:
        """Return how many seats can have GPUs at once, if nobody else uses them."""
        return len(self.gpus) * self.per_gpu // self.per_seat


def place(runtime: Runtime, hub: HubSettings) -> Placement:
    """Choose the stack of the seats, and all GPUs that they may have.

    Raises:
        Card: If seats need more GPUs than this machine has.
    """
    if not hub.gpus:
        return choose_placement(runtime, "auto", "none")
    placement = choose_placement(runtime, "auto", "", _take_all)
    if len(placement.gpus) >= hub.gpus:
        return placement
    path = WORKSHOP / SETTINGS_FILE
    what = f"{path} asks for {hub.gpus} GPU{'s' if hub.gpus > 1 else ''} for each seat."
    count = len(placement.gpus)
    why = f"Seats can use {count} GPU{'s' if count > 1 else ''}: {placement.reason}."
    if not placement.gpus:
        why = f"No GPU can be used here: {placement.reason}."
    raise Card(what, why, f"invoke gpus; or, in {path}: gpus = {count}")


def describe(hub: HubSettings, placement: Placement, engine: Engine) -> HubGpus | None:
    """Return what the hub needs to know about GPUs; None for seats on the CPU.

    Raises:
        Card: If a setting of the site isn't possible.
    """
    if not hub.gpus:
        return None
    return HubGpus(
        stack=placement.stack,
        gpus=placement.gpus,
        access=lab_service.gpu_access(placement.stack, engine),
        per_seat=hub.gpus,
        per_gpu=per_gpu(),
    )


def _take_all(gpus: Sequence[Gpu], count: int) -> tuple[tuple[Gpu, ...], str]:
    """Take all GPUs: the hub gives each seat some of them."""
    del count
    return tuple(gpus), ""
