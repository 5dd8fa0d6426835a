"""Start a chat: find the model on this machine, then run it where the labs run."""

import json
from collections.abc import Sequence
from pathlib import Path

from common.processes import capture
from launcher import ROOT
from launcher.run import lab as run_lab
from launcher.run import lab_command
from launcher.run.lab_command import LabCommand, labs_command
from launcher.run.pages import outputs_folders

INSIDE = Path("outputs")  # below the folder in which a lab runs


def run(model: str, listing: bool, stack: str, runtime: str, dry: bool) -> int:
    """Talk to a model, or list the models that can be talked to.

    Args:
        model: A folder, or a lab for its newest model; empty for SmolLM2.
        listing: Whether to list the models instead.
        stack: The requested stack, or "auto".
        runtime: The requested runtime, or "auto".
        dry: Whether to print the commands only.

    Returns:
        The exit code.
    """
    outputs = ROOT / INSIDE if runtime == "venv" else next(iter(outputs_folders()), ROOT / INSIDE)
    if listing:
        return lab_command.run_here(["chat", "--list", *_outputs_option(outputs)])
    return run_lab.run(_plan(model, outputs), stack, runtime, "", dry)


def _plan(model: str, outputs: Path) -> LabCommand:
    """Find the model, and name it as the lab's container sees it.

    Raises:
        SystemExit: If there is no such model; the labs print a card.
    """
    if not model:
        return LabCommand((), verb="chat")
    given = Path(model).expanduser()
    if found := next((one for one in (Path.cwd() / given, ROOT / given) if one.is_dir()), None):
        model = str(found)
    words = ["chat", model, "--plan", *_outputs_option(outputs)]
    result = capture(labs_command(words), cwd=ROOT)
    if result.returncode != 0:
        raise SystemExit(result.returncode)
    folder = Path(json.loads(result.stdout)["folder"])
    return LabCommand((), (_inside(folder, outputs),), verb="chat")


def _inside(folder: Path, outputs: Path) -> str:
    """Return the path of a folder as a container of the lab sees it."""
    folder = (ROOT / folder).resolve()
    for start, name in ((outputs.resolve(), INSIDE), (ROOT.resolve(), Path())):
        if folder.is_relative_to(start):
            return str(name / folder.relative_to(start))
    return str(folder)


def _outputs_option(outputs: Path) -> Sequence[str]:
    return () if outputs == ROOT / INSIDE else ("--outputs", str(outputs))
