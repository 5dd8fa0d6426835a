"""The verbs: `invoke lab LLM06`. Each one parses, calls the launcher, and exits with its code."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

if TYPE_CHECKING:
    from launcher.interrupts import Interrupts

STACK = "auto (default), cpu, cuda, rocm"
RUNTIME = "auto (default: docker where an engine answers, else venv), docker, venv"


def _refuse_no_lab(verb: str) -> None:
    """`invoke lab` alone: Invoke's own complaint would tell nothing of labs, and exit with 1."""
    from launcher.cards import WRONG_USAGE, Card, show

    why = f"invoke {verb} needs a name, LLM06 for example; invoke {verb} --help says more."
    show(Card("Which lab?", why, "invoke labs lists them"))
    raise Exit(code=WRONG_USAGE)


def _after_the_dashes() -> list[str]:
    """What follows `--`, quoting intact; Invoke joins it into one string."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []


def _ending_in_a_card(work: Callable[["Interrupts"], int | None]) -> None:
    """Do `work` and exit with its code; what can be foreseen ends in a card, never a traceback."""
    from launcher.cards import Card, show
    from launcher.interrupts import EXIT_CODE, Interrupted, Interrupts
    from launcher.owners import give_back_caches

    try:
        with Interrupts() as interrupts:
            code = work(interrupts) or 0
    except Card as card:
        show(card)
        code = card.code
    except Interrupted:
        print("\ninterrupted", file=sys.stderr)
        code = EXIT_CODE
    except BrokenPipeError:  # the reader of our output, a `head` say, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    finally:
        give_back_caches()
    if code:
        raise Exit(code=code)


@task(
    positional=["labs"],
    auto_shortflags=False,
    help={
        "labs": "LLM06, llm06 or 6; LLM01,LLM02; or all",
        "stack": STACK,
        "runtime": RUNTIME,
        "size": "tiny (default on a CPU), small (default on a GPU), full",
        "precision": "of training: auto (default), fp32, bf16, fp16",
        "seed": "a whole number; default 0",
        "gpus": "all, none, how many (2) or which (0,2); default 1; each is a process of its own",
        "processes": "train as N processes, on a CPU too; default 1",
        "resume": "go on from a broken-off run's checkpoints, or not at all",
        "tensorboard": "log training for TensorBoard, into outputs/",
        "online": "let the lab use the network, for the Hugging Face hub",
    },
)
def lab(
    c: Context,
    labs: Any,
    stack: str = "auto",
    runtime: str = "auto",
    size: str = "",
    precision: str = "",
    seed: str = "",
    gpus: str = "",
    processes: str = "",
    resume: bool = False,
    tensorboard: bool = False,
    online: bool = False,
) -> None:
    """Run labs. Options of the lab's own follow --; with --dry in front: print what would run."""
    if labs in ("--help", "-h"):  # Invoke takes the flag for the missing name
        subprocess.run([sys.argv[0], "--help", "lab"], check=True)
        return

    def work(interrupts: "Interrupts") -> int:
        from launcher import plan, run

        options: dict[str, str | bool] = {
            "size": size,
            "precision": precision,
            "seed": seed,
            "processes": processes,
            "resume": resume,
            "tensorboard": tensorboard,
        }
        asked = plan.make(labs, options, online, _after_the_dashes())
        return run.run(asked, stack, runtime, gpus, c.config.run.dry, interrupts)

    _ending_in_a_card(work)


@task(
    positional=["labs"],
    auto_shortflags=False,
    help={
        "labs": "LLM06, llm06 or 6; LLM01,LLM02; or all",
        "reset": "begin anew; the old sheet is kept beside the new one",
        "handout": "a folder: write the sheets for a class there",
    },
)
def learn(_: Context, labs: Any, reset: bool = False, handout: str = "") -> None:
    """Write your sheet of a lab into work/: the lab, with its exercises left for you."""

    def work(_: "Interrupts") -> int:
        from launcher import learning

        return learning.learn(labs, reset, handout)

    _ending_in_a_card(work)


@task(
    positional=["lab"],
    optional=["hint", "solution"],
    auto_shortflags=False,
    help={
        "lab": "LLM06, llm06 or 6",
        "all": "tell all that is wrong, not the first thing alone",
        "watch": "check again whenever you save",
        "hint": "the next hint, of the exercise you are at or of one that you name",
        "solution": "the lab's own solution, likewise",
        "stack": STACK,
        "runtime": RUNTIME,
    },
)
def check(
    c: Context,
    lab: Any,
    all: bool = False,
    watch: bool = False,
    hint: Any = None,
    solution: Any = None,
    stack: str = "auto",
    runtime: str = "auto",
) -> None:
    """Check your sheet of a lab; where nothing is wrong, run the lab's experiments on it."""

    def work(interrupts: "Interrupts") -> int:
        from launcher import plan, run

        flags = {"all": all, "watch": watch, "hint": hint, "solution": solution}
        asked = plan.make_check(lab, flags)
        return run.run(asked, stack, runtime, "", c.config.run.dry, interrupts)

    _ending_in_a_card(work)


@task(
    auto_shortflags=False,
    help={"class": "a folder with many learners' folders", "csv": "as CSV, an exercise a line"},
)
def progress(_: Context, class_: str = "", csv: bool = False) -> None:
    """What you have done, tried and not started, and what is next; or a class has."""

    def work(_: "Interrupts") -> int:
        from launcher import learning

        return learning.progress(class_, csv)

    _ending_in_a_card(work)


@task
def labs(_: Context) -> None:
    """The syllabus: every lab and what it is about."""
    from launcher import ROOT

    subprocess.run([sys.executable, "-m", "labs", "--list"], cwd=ROOT, check=True)


@task(auto_shortflags=False, help={"json": "print the same as JSON"})
def gpus(_: Context, json: bool = False) -> None:
    """The GPUs of this machine, whether they can be used, and the stack that it comes to."""

    def work(_: "Interrupts") -> None:
        from launcher import inventory

        inventory.show(as_json=json)

    _ending_in_a_card(work)


@task(
    auto_shortflags=False,
    help={"stack": STACK, "runtime": RUNTIME, "gfx": "ROCm's target: gfx942, …, or all"},
)
def build(_: Context, stack: str = "auto", runtime: str = "auto", gfx: str = "") -> None:
    """Build a stack's image or, without a container engine, its environment."""

    def work(_: "Interrupts") -> None:
        from launcher import images, run

        if gfx:
            images.aim_at(gfx, stack)
        run.build("rocm" if gfx else stack, runtime)

    _ending_in_a_card(work)


@task(auto_shortflags=False, help={"json": "print the same as JSON"})
def images(_: Context, json: bool = False) -> None:
    """The images that are here: stack, gfx target, lock, size, age, current or stale."""

    def work(_: "Interrupts") -> None:
        from launcher import shelf

        shelf.show(json)

    _ending_in_a_card(work)


@task(auto_shortflags=False, help={"upgrade": "look for newer releases of everything unpinned"})
def lock(_: Context, upgrade: bool = False) -> None:
    """Resolve the hashed locks anew from docker/*.in, by uv."""

    def work(_: "Interrupts") -> None:
        from launcher import locks

        locks.make(upgrade)

    _ending_in_a_card(work)


@task(auto_shortflags=False, help={"file": "default: .env beside compose.yaml"})
def dotenv(_: Context, file: str = "") -> None:
    """Write this host's facts for Docker Compose alone, each explained: docker compose run …"""

    def work(_: "Interrupts") -> None:
        from launcher import dotenv

        dotenv.write(file)

    _ending_in_a_card(work)


@task
def test(_: Context) -> None:
    """Run the tests. What follows -- goes to pytest."""
    from launcher import ROOT

    command = [sys.executable, "-m", "pytest", *_after_the_dashes()]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code:
        raise Exit(code=code)


namespace = Collection(lab, learn, check, progress, labs, gpus, build, images, lock, dotenv, test)

asked = [word for word in sys.argv[1:] if word != "--dry"]
if len(asked) == 1 and asked[0] in ("lab", "learn", "check"):  # read before Invoke parses it
    _refuse_no_lab(asked[0])
