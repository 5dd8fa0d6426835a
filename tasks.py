"""The tasks of `invoke`, such as `invoke lab LLM06`: parse, call the launcher, exit."""

import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.program import Program
from invoke.tasks import task

if TYPE_CHECKING:
    from common.interrupts import Interrupts
    from launcher.task_words import KnownTask

LABS = "LLM06, llm06 or 6; LLM06+ for its deeper part; LLM01,LLM02; all, or all+ with deeper parts"
SIZES = ("tiny", "small", "full")
STACK = "auto (default), cpu, cuda, rocm"
RUNTIME = "auto (default: docker if an engine is running, else venv), docker, venv"
LAB_RUNTIME = f"{RUNTIME}; with --on slurm also apptainer, pyxis"
# Options of `invoke lab` that the launcher handles. The lab gets all others.
SLURM_OPTIONS = ("nodes", "partition", "time", "account", "slurm_options")
LAUNCHER_OPTIONS = (
    *("c", "labs", "list", "stack", "runtime", "gpus", "wait", "on", "detach"),
    *SLURM_OPTIONS,
)


def _after_dashes() -> list[str]:
    """Return the words after `--` with their quoting; Invoke joins them into one string."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []


def _optional(name: str, task_name: str, *with_values: str) -> list[str]:
    """Return `name` as a positional argument if a word was given for it.

    Invoke requires every positional argument. Without a word, this one is an option.

    Args:
        name: The argument.
        task_name: The task.
        *with_values: The options of the task that take a value.
    """
    words = sys.argv[: sys.argv.index("--")] if "--" in sys.argv else sys.argv
    if task_name not in words:
        return []
    after = words[words.index(task_name) :]
    given = [
        word
        for before, word in pairwise(after)
        if not word.startswith("-") and before not in with_values
    ]
    return [name] if given else []


def _help_instead(verb: str, name: str) -> bool:
    """Show a verb's help if its flag stands where a name belongs; return whether it does."""
    if name not in ("--help", "-h"):  # Invoke takes the flag for the missing name
        return False
    code = subprocess.run([sys.argv[0], "--help", verb], check=False).returncode
    if code:
        raise Exit(code=code if code > 0 else 128 - code)
    return True


def _exit_with(action: Callable[["Interrupts"], int | None]) -> None:
    """Call `action` and exit with the code it returns; print a card for an expected failure."""
    from launcher.task_exit import exit_code_of

    if code := exit_code_of(action):
        raise Exit(code=code)


@task(
    positional=["labs"],
    auto_shortflags=False,
    help={
        "labs": LABS,
        "list": "list the experiments of a lab, and run nothing",
        "stack": STACK,
        "runtime": LAB_RUNTIME,
        "gpus": "all, none, a count (2) or a list (0,2); default 1, in Slurm 0; a process each",
        "wait": "wait while other users hold the GPUs",
        "only": "run one experiment: a name from --list",
        "size": "tiny (default on a CPU), small (default on a GPU), full",
        "precision": "for training: auto (default), fp32, bf16, fp16",
        "seed": "an integer; default 0",
        "processes": "train with N processes, also on a CPU; default 1",
        "resume": "continue an interrupted run from its checkpoints, or fail",
        "tensorboard": "log training for TensorBoard, into outputs/",
        "online": "allow the network, for the Hugging Face hub",
        "on": "slurm: run as a job of this cluster; --gpus is then the number on each node",
        "nodes": "with --on slurm: how many nodes; default 1",
        "partition": "with --on slurm: the partition; default: the cluster's",
        "time": "with --on slurm: the time limit, such as 30 (minutes) or 2:00:00",
        "account": "with --on slurm: the account that is charged",
        "slurm_options": 'with --on slurm: other options of sbatch, such as "--mem=32G"',
        "detach": "with --on slurm: submit the job and don't follow it",
    },
)
def lab(
    c: Context,
    labs: Any,
    list: bool = False,
    stack: str = "auto",
    runtime: str = "auto",
    gpus: str = "",
    wait: bool = False,
    only: str = "",
    size: str = "",
    precision: str = "",
    seed: str = "",
    processes: str = "",
    resume: bool = False,
    tensorboard: bool = False,
    online: bool = False,
    on: str = "",
    nodes: str = "",
    partition: str = "",
    time: str = "",
    account: str = "",
    slurm_options: str = "",
    detach: bool = False,
) -> None:
    """Run labs. A lab's own options follow --: `invoke lab LLM08 -- --help` lists them.

    `invoke --dry lab …` prints the commands only.
    """
    arguments = locals()
    if _help_instead("lab", labs):
        return
    options = {name: arguments[name] for name in arguments if name not in LAUNCHER_OPTIONS}

    def run(_: "Interrupts") -> int:
        from launcher.run import lab as run_lab
        from launcher.run import lab_command

        if list:
            return lab_command.run_here([labs, "--list"])
        command = lab_command.plan_run(labs, options, _after_dashes())
        asked = {name: arguments[name] for name in SLURM_OPTIONS if arguments[name]}
        if on or asked or detach:
            from launcher.cluster import lab as slurm_lab

            if wait:
                slurm_lab.refuse_wait()
            request = slurm_lab.Request(on, stack, runtime, gpus, **asked)
            return slurm_lab.run(command, request, detach, c.config.run.dry)
        return run_lab.run(command, stack, runtime, gpus, c.config.run.dry, wait)

    _exit_with(run)


@task(
    positional=["labs"],
    auto_shortflags=False,
    help={
        "labs": LABS,
        "reset": "start over; the old sheet is saved beside the new one",
        "handout": "a folder: write the sheets for a class there",
    },
)
def learn(_: Context, labs: Any, reset: bool = False, handout: str = "") -> None:
    """Write your sheet of a lab into work/: the lab without the code of its exercises."""
    if _help_instead("learn", labs):
        return
    from launcher import sheets

    _exit_with(lambda _: sheets.learn(labs, reset, handout))


@task(
    positional=["lab"],
    optional=["hint", "solution"],
    auto_shortflags=False,
    help={
        "lab": "LLM06, llm06 or 6; LLM06+ for its deeper part",
        "all": "show every error, not only the first",
        "watch": "check again each time you save",
        "hint": "show the next hint for the current exercise, or for one that you name",
        "solution": "show the solution of the current exercise, or of one that you name",
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
    """Check your sheet of a lab; if all exercises are right, run the experiments with it."""
    if _help_instead("check", lab):
        return

    def run(_: "Interrupts") -> int:
        from launcher.run import lab as run_lab
        from launcher.run import lab_command

        options = {"all": all, "watch": watch, "hint": hint, "solution": solution}
        command = lab_command.plan_check(lab, options)
        return run_lab.run(command, stack, runtime, "", c.config.run.dry)

    _exit_with(run)


@task(
    positional=_optional("lab", "notebook", "--port", "--stack", "--runtime", "--gpus"),
    auto_shortflags=False,
    help={
        "lab": "LLM06, llm06 or 6: open its sheet, or the lesson while there is no sheet",
        "port": "the port on 127.0.0.1; default: the first free one from 8888 on",
        "stack": STACK,
        "runtime": RUNTIME,
        "gpus": "all, none, a count (2) or a list (0,2); default 1",
        "wait": "wait while other users hold the GPUs",
    },
)
def notebook(
    c: Context,
    lab: Any = None,
    port: str = "",
    stack: str = "auto",
    runtime: str = "auto",
    gpus: str = "",
    wait: bool = False,
) -> None:
    """Open lessons and sheets in JupyterLab, until Ctrl-C."""
    from launcher.notebook import run as notebook

    dry: bool = c.config.run.dry
    _exit_with(lambda _: notebook.run(lab or "", port, stack, runtime, gpus, dry, wait))


@task(
    auto_shortflags=False,
    help={
        "class": "a folder with the folders of many learners",
        "csv": "print CSV, a line for each exercise",
    },
)
def progress(_: Context, class_: str = "", csv: bool = False) -> None:
    """Show your progress, or a class's, and the next exercise."""
    from launcher import sheets

    _exit_with(lambda _: sheets.progress(class_, csv))


@task(
    name="open",
    positional=_optional("lab", "open", "--port"),
    auto_shortflags=False,
    help={
        "lab": "LLM06, llm06 or 6; without a lab: the newest report of all",
        "index": "open the page of all runs, where two runs can be compared",
        "serve": "serve the pages on 127.0.0.1, for a remote machine, until Ctrl-C",
        "port": "the port for --serve; default: any free one",
    },
)
def open_(
    _: Context, lab: Any = None, index: bool = False, serve: bool = False, port: str = ""
) -> None:
    """Open the newest report, or print its path where there is no desktop."""
    from launcher.pages import open_page

    _exit_with(lambda _: open_page.show(lab or "", index, serve, port))


@task(
    positional=_optional("model", "chat", "--stack", "--runtime"),
    auto_shortflags=False,
    help={
        "model": "a folder, or a lab (LLM10) for its newest model; default: SmolLM2",
        "list": "list the models",
        "stack": STACK,
        "runtime": RUNTIME,
    },
)
def chat(
    c: Context, model: Any = None, list: bool = False, stack: str = "auto", runtime: str = "auto"
) -> None:
    """Talk to SmolLM2 or to a model that a run saved; piped input gets one reply."""
    from launcher import chat

    dry: bool = c.config.run.dry
    _exit_with(lambda _: chat.run(model or "", list, stack, runtime, dry))


@task(
    positional=_optional("job", "jobs"),
    auto_shortflags=False,
    help={"job": "follow this job: `invoke jobs 12`; without a number, list the jobs"},
)
def jobs(_: Context, job: Any = None) -> None:
    """List the jobs of `invoke lab --on slurm`, or follow one."""
    from launcher.cluster import lab as slurm_lab

    _exit_with(lambda _: slurm_lab.jobs(job or ""))


@task
def labs(_: Context) -> None:
    """List the labs and their topics."""
    from launcher.run import lab_command

    _exit_with(lambda _: lab_command.run_here(["--list"]))


@task(auto_shortflags=False, help={"json": "print JSON"})
def gpus(_: Context, json: bool = False) -> None:
    """List the GPUs of this machine, whether they are usable, and the stack they lead to."""
    from launcher.gpu import show as list_gpus

    _exit_with(lambda _: list_gpus.show(as_json=json))


@task(
    auto_shortflags=False,
    help={
        "stack": STACK,
        "runtime": RUNTIME,
        "gfx": "ROCm's target: gfx942, …, or all",
        "notebook": "with JupyterLab, for invoke notebook",
    },
)
def build(
    _: Context, stack: str = "auto", runtime: str = "auto", gfx: str = "", notebook: bool = False
) -> None:
    """Build a stack's image or, without a container engine, its environment."""

    def run(_: "Interrupts") -> None:
        from launcher.image import status as image_status
        from launcher.run import lab as run_lab

        if gfx:
            image_status.set_gfx_target(gfx, stack)
        run_lab.build("rocm" if gfx else stack, runtime, notebook)

    _exit_with(run)


@task(
    positional=_optional("folder", "bundle", "--stack", "--runtime"),
    auto_shortflags=False,
    help={
        "folder": "a new folder, for example on a USB stick, or an earlier bundle",
        "stack": f"{STACK}; cpu,cuda for several",
        "runtime": "docker: images; venv: wheels for this Python; auto (default): as a lab runs",
    },
)
def bundle(_: Context, folder: str = "", stack: str = "auto", runtime: str = "auto") -> None:
    """Write all that a machine without a network needs into a folder, with a script `setup`."""
    if _help_instead("bundle", folder):
        return
    from launcher.bundle import make as bundle

    _exit_with(lambda _: bundle.make(folder, stack, runtime))


@task(auto_shortflags=False, help={"json": "print JSON"})
def images(_: Context, json: bool = False) -> None:
    """List the images on this machine: stack, gfx target, lock, size, age, current or stale."""
    from launcher.image import show as list_images

    _exit_with(lambda _: list_images.show(as_json=json))


@task(
    auto_shortflags=False,
    help={
        "seats": "start the containers of so many learners at once, and measure them",
        "json": "print JSON",
    },
)
def preflight(_: Context, seats: str = "", json: bool = False) -> None:
    """Check this machine before a workshop, run an experiment, and list what to fix."""
    from launcher.preflight import run as preflight

    _exit_with(lambda _: preflight.run(seats, json))


@task(auto_shortflags=False, help={"upgrade": "allow newer releases of all unpinned packages"})
def lock(_: Context, upgrade: bool = False) -> None:
    """Compile the hashed locks from docker/*.in with uv."""
    from launcher.environment import locks as lock_files

    _exit_with(lambda _: lock_files.compile_locks(upgrade))


@task
def audit(_: Context) -> None:
    """Check the locked packages for known vulnerabilities; needs pip-audit and the internet."""
    from launcher.environment import audit

    _exit_with(lambda _: audit.audit_locks())


@task(auto_shortflags=False, help={"file": "default: .env beside compose.yaml"})
def dotenv(_: Context, file: str = "") -> None:
    """Write this host's values to .env, with comments, for use of Docker Compose alone."""
    from launcher import dotenv

    _exit_with(lambda _: dotenv.write(file))


@task(
    optional=["purge"],
    auto_shortflags=False,
    help={
        "seats": "start the seats of all learners, too, so that they are ready before the class",
        "stop": "stop the hub and all seats, and list what is left",
        "purge": "stop, and remove the hub's own files; and work that you name: ada,ben or all",
    },
)
def hub(c: Context, seats: bool = False, stop: bool = False, purge: Any = None) -> None:
    """Serve the labs to a class: each learner logs in and works in a separate container."""
    dry: bool = c.config.run.dry

    def run(_: "Interrupts") -> int:
        from launcher.hub import start as hub
        from launcher.hub import stop as hub_stop

        if purge:
            return hub_stop.purge("" if purge is True else purge, dry)
        return hub_stop.stop(dry) if stop else hub.start(seats, dry)

    _exit_with(run)


@task(
    positional=["labs"],
    auto_shortflags=False,
    help={
        "labs": LABS,
        "stack": "cpu (default), cuda, rocm; for rocm set LABS_GFX",
        "gpus": "how many; default 1 on cuda and rocm; one process for each",
        "image": "the image as the cluster's nodes name it; default: as this machine does",
        "claim": "the PersistentVolumeClaim that has a copy of this clone; default: llm-labs",
        "size": "tiny, small, full",
        "precision": "for training: auto (default), fp32, bf16, fp16",
        "seed": "an integer; default 0",
        "online": "allow the network, for the Hugging Face hub",
    },
)
def manifest(
    _: Context,
    labs: Any,
    stack: str = "cpu",
    gpus: str = "",
    image: str = "",
    claim: str = "llm-labs",
    size: str = "",
    precision: str = "",
    seed: str = "",
    online: bool = False,
) -> None:
    """Print a Kubernetes Job that runs labs. A lab's own options follow --."""
    if _help_instead("manifest", labs):
        return
    options = {"size": size, "precision": precision, "seed": seed, "online": online}

    def write(_: "Interrupts") -> None:
        from common.cards import refuse_value
        from launcher.cluster import kubernetes_job
        from launcher.run import lab_command

        if size not in ("", *SIZES):  # the labs would point to invoke lab
            refuse_value("--size", size, SIZES)
        command = lab_command.plan_run(labs, options, _after_dashes())
        kubernetes_job.write(command, stack, gpus, image, claim)

    _exit_with(write)


@task
def test(_: Context) -> None:
    """Run the tests, in two processes. Options of pytest follow --."""
    from launcher import ROOT

    # Most tests wait for a process that uses one core, and a laptop has at least two.
    processes = ("-n", "2", "--dist", "loadscope")
    command = [sys.executable, "-m", "pytest", *processes, *_after_dashes()]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code:
        raise Exit(code=code)


namespace = Collection(
    lab,
    learn,
    check,
    notebook,
    progress,
    open_,
    chat,
    jobs,
    labs,
    gpus,
    build,
    bundle,
    images,
    preflight,
    lock,
    audit,
    dotenv,
    manifest,
    hub,
    test,
)

# Invoke would report these mistakes in its own words, so this comes before it parses the tasks.
_words = [word for word in sys.argv[1:] if word not in ("--dry", "--list")]
if _words in (["lab"], ["learn"], ["check"]):
    from launcher.task_exit import refuse_no_lab

    raise Exit(code=refuse_no_lab(_words[0]))


def _known(name: str) -> "KnownTask":
    """Return what a task can be given."""
    from launcher.task_words import KnownTask

    own = namespace[name].get_arguments()
    flags = {
        f"--{name}" if len(name) > 1 else f"-{name}": argument.takes_value and not argument.optional
        for argument in [*Program().core_args(), *own]
        for name in argument.names
    }
    return KnownTask(flags, sum(argument.positional for argument in own))


_words = sys.argv[1:]
if {"--help", "-h", "--list", "-l"} & set(_words):  # Invoke prints these; `| head` may leave early
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
if _words[:1] == ["--dry"]:
    _words[:2] = reversed(_words[:2])
if "invoke.main" in sys.modules and _words and not _words[0].startswith("-"):
    from launcher.task_exit import refuse_wrong_words

    _tasks = {name: _known(name) for name in namespace.task_names}
    if code := refuse_wrong_words(_words, _tasks):
        raise Exit(code=code)
    _before_dashes = _words[: _words.index("--")] if "--" in _words else _words
    if {"--help", "-h"} & set(_before_dashes[1:]):  # there Invoke lists options without a text
        _help_instead(_words[0], "--help")
        raise Exit
