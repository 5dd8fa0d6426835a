"""Choose the stack and the GPUs of a run, and the user who owns its files."""

import os
from dataclasses import dataclass

from common.cards import Card
from launcher import settings
from launcher.environment.stack import choose_stack, refuse_gpus_of_cpu
from launcher.gpu import select as select_gpus
from launcher.gpu.access import User
from launcher.gpu.detect import detect
from launcher.gpu.model import Gpu
from launcher.gpu.select import Taker
from launcher.gpu.visible import SEATS
from launcher.run.file_owner import Owner, file_owner
from launcher.run.runtime import Runtime


@dataclass(frozen=True)
class Placement:
    """The stack and the GPUs of a run, the owner of its files, and the reason for the stack."""

    stack: str
    gpus: tuple[Gpu, ...]
    owner: Owner
    reason: str

    @property
    def gfx(self) -> str:
        """Return the gfx target for ROCm: LABS_GFX if it is set, else that of the GPU."""
        if self.stack != "rocm":
            return ""
        return os.environ.get("LABS_GFX") or (self.gpus[0].target if self.gpus else "")


def choose_placement(
    runtime: Runtime, stack: str, gpus: str, take: Taker = select_gpus.first_ones
) -> Placement:
    """Choose the stack and the GPUs for the user who opens their device nodes.

    Args:
        runtime: The runtime, which decides on the user.
        stack: The requested stack, or "auto".
        gpus: The requested GPUs, as in `select_gpus.select`.
        take: Takes the GPUs, as in `select_gpus.select`.

    Raises:
        Card: If the request can't be met on this machine.
    """
    owner = file_owner()
    if gpus == "none":
        if stack not in ("auto", "cpu"):
            what = f"--stack {stack} needs a GPU."
            raise Card(what, "--gpus none selects no GPU.", "--stack cpu")
        return Placement("cpu", (), owner, "no GPU was asked for")
    machine = detect(user=_device_user(runtime, owner), ask_nvidia_smi=False)
    choice = choose_stack(stack, machine)
    if choice.stack == "cpu":
        if stack == "cpu" and gpus:
            refuse_gpus_of_cpu()
        if gpus:
            raise Card(f"--gpus {gpus} isn't possible.", f"{choice.reason}.", "invoke gpus")
        return Placement("cpu", (), owner, choice.reason)
    environment = {**os.environ, **_seat(choice.stack)}
    selection = select_gpus.select(gpus, choice.stack, choice.gpus, environment, take)
    reason = f"{choice.reason}; {selection.note}" if selection.note else choice.reason
    return Placement(choice.stack, selection.gpus, owner, reason)


def placement_to_build(runtime: Runtime, stack: str) -> Placement:
    """Return the placement that a stack is built for; a machine without a GPU can build for one.

    Raises:
        Card: If the stack, or ROCm's target, has to be detected and can't be.
    """
    if stack in ("cpu", "cuda") or (stack == "rocm" and os.environ.get("LABS_GFX")):
        return Placement(stack, (), file_owner(), "")
    return choose_placement(runtime, stack, "")


def _seat(stack: str) -> dict[str, str]:
    """Return the site's variable that restricts the GPUs of this seat, if it is set."""
    setting = settings.find(SEATS[stack][0])
    return {setting.name: setting.value} if setting else {}


def _device_user(runtime: Runtime, owner: Owner) -> User:
    """Return the user who opens the nodes; only a container's user can join their groups."""
    if runtime.engine is not None:
        return container_device_user(runtime.engine.rootless, owner)
    if os.geteuid() == 0 and owner.uid != 0:
        return User.on_host(owner)
    return User.caller()


def container_device_user(rootless: bool, owner: Owner) -> User:
    """Return the user who opens the nodes in a container."""
    if rootless:
        return User.in_rootless_container(os.geteuid())
    return User.in_container(owner)
