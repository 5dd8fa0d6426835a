"""Choose the runtime: a container if an engine is running, else a virtual environment."""

from dataclasses import dataclass

from common.cards import WRONG_USAGE, Card, refuse_value, typed_task
from launcher.engine.client import Engine, NoEngine, connect
from launcher.engine.known_errors import no_engine

CHOICES = ("auto", "docker", "venv")
IN_JOBS = ("apptainer", "pyxis")  # only with --on slurm


@dataclass(frozen=True)
class Runtime:
    """The engine to run a container with, or None for an environment; and the reason."""

    engine: Engine | None
    reason: str

    @property
    def description(self) -> str:
        """Return where the lab runs, for people."""
        return "a container" if self.engine else "an environment"


def choose_runtime(request: str) -> Runtime:
    """Choose the runtime that was requested, or the best one for "auto".

    Raises:
        Card: If the runtime is unknown or only for jobs of Slurm, or "docker" is requested and no
            engine is running.
    """
    if request in IN_JOBS:
        why = "It is how a job of Slurm starts a container; here, an engine or an environment does."
        fix = f"invoke lab … --on slurm --runtime {request}"
        if (task := typed_task()) != "lab":  # no other task has jobs
            fix = f"invoke {task} with --runtime docker, or venv"
        raise Card(f"--runtime {request} needs --on slurm.", why, fix, WRONG_USAGE)
    if request not in CHOICES:
        refuse_value("--runtime", request, CHOICES)
    if request == "venv":
        return Runtime(None, "it was asked for")
    try:
        engine = connect()
    except NoEngine as error:
        if request == "auto":
            return Runtime(None, str(error))
        raise no_engine() from error
    reason = "it was asked for" if request == "docker" else "a container engine is running"
    return Runtime(engine, reason)
