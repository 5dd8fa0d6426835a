"""`invoke notebook`: JupyterLab on 127.0.0.1, in a container or in the environment."""

import os
import shlex
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from common.cards import WRONG_USAGE, Card, print_status
from common.interrupts import defer_interrupts
from launcher import ROOT
from launcher.engine import container as run_container
from launcher.engine.client import Engine
from launcher.engine.compose import notebook_service
from launcher.engine.container_spec import ContainerSpec
from launcher.engine.known_errors import explain, explain_exit
from launcher.environment import make as environment
from launcher.environment.make import Environment
from launcher.gpu import select as select_gpus
from launcher.gpu.lease import RunLease, run_lease
from launcher.notebook import environment as notebook_environment
from launcher.notebook.environment import NotebookEnvironment
from launcher.notebook.server import HOST, NotebookServer, announced, choose_port
from launcher.run import lab_command
from launcher.run import service as lab_service
from launcher.run.file_owner import give_to, make_writable_folder, run_as_owner
from launcher.run.placement import Placement, choose_placement
from launcher.run.runtime import choose_runtime
from launcher.run.service import shell_line

NAME = "notebook"
LABEL = "llm-labs.notebook"  # of the network
ABANDONED_AFTER = "1m"  # a network without a container, in the engine's notation
FOLDERS = ("outputs", "work", "work/progress")  # that a lab or a learner writes to


def run(
    lab: str, port: str, stack: str, runtime: str, gpus: str, dry: bool, wait: bool = False
) -> int:
    """Serve the lessons and sheets as notebooks until Ctrl-C, or print the commands that do.

    Args:
        lab: The lab to open, as the user names it; empty for the list of files.
        port: The port on 127.0.0.1; empty for a free one.
        stack: The requested stack, or "auto".
        runtime: The requested runtime, or "auto".
        gpus: The requested GPUs, as in `select_gpus.select`.
        dry: Whether to print the commands only.
        wait: Whether to wait while other users hold the GPUs.

    Returns:
        The exit code.
    """
    server = NotebookServer(choose_port(port), _page(lab) if lab else "")
    chosen = choose_runtime(runtime)
    with run_lease(NAME, wait, dry) as lease:
        placement = choose_placement(chosen, stack, gpus, lease.take)
        print_status(f"JupyterLab runs on the {placement.stack} stack, because {placement.reason}.")
        print_status(f"It runs in {chosen.description}, because {chosen.reason}.")
        if chosen.engine is None:
            return _run_in_environment(server, placement, lease, dry)
        return _run_in_container(server, placement, chosen.engine, dry)


def _page(lab: str) -> str:
    """Return the path of the learner's sheet, or of the lesson without a sheet.

    Raises:
        Card: If `lab` names several labs.
        SystemExit: If there is no such lab; the labs print a card.
    """
    file, *more = lab_command.find_files(lab)
    if more:
        why = f"{lab} names {len(more) + 1} labs."
        raise Card("One lab can be opened.", why, "invoke notebook LLM06", WRONG_USAGE)
    if (ROOT / file.sheet).is_file():
        return file.sheet
    print_status(
        f"The link opens the lesson, which is read-only. To write in your own copy, first: "
        f"invoke learn {file.name}"
    )
    return file.lesson


def _run_in_container(
    server: NotebookServer, placement: Placement, engine: Engine, dry: bool
) -> int:
    variables = {
        **lab_service.user_variables(placement, engine.rootless),
        "LABS_PORT": str(server.port),
        "LABS_TOKEN": server.token,
    }
    name = notebook_service(placement.stack)
    service = lab_service.resolve(name, placement, variables)
    spec = lab_service.container_spec(service, placement, engine)
    spec = replace(spec, network_mode=run_container.container_name(NAME))
    if dry:
        lines = lab_service.commands(engine, name, service, spec, placement.owner)
        print(" &&\n".join([shell_line(_create_network_command(spec)), *lines]) + ";")
        print(shell_line(["docker", "network", "rm", spec.network_mode]))
        print_status(f"The link: {server.link}")
        return 0
    make_writable_folder(ROOT / "work" / "progress", placement.owner)
    lab_service.prepare(engine, name, service, spec, placement.owner)
    with network(engine, spec), announced(server):
        return run_container.run(engine, spec, NAME)


def _create_network_command(spec: ContainerSpec) -> list[str]:
    options = [f"--opt={name}={value}" for name, value in spec.network_options.items()]
    return ["docker", "network", "create", *options, f"--label={LABEL}", spec.network_mode]


@contextmanager
def network(engine: Engine, spec: ContainerSpec) -> Generator[None]:
    """Create the network that a container names, and remove it at the end of this block.

    Raises:
        Card: If the engine refuses.
    """
    from docker.errors import APIError

    network = None
    try:
        with defer_interrupts():
            engine.client.networks.prune(filters={"label": LABEL, "until": ABANDONED_AFTER})
            network = engine.client.networks.create(
                spec.network_mode, driver="bridge", options=spec.network_options, labels={LABEL: ""}
            )
    except APIError as error:
        what = "The engine refuses the network of the notebook."
        raise explain(str(error.explanation or error), what) from error
    try:
        yield
    finally:
        with suppress(OSError):  # includes the SDK's errors: the engine may be gone
            network.remove()


def _run_in_environment(
    server: NotebookServer, placement: Placement, lease: RunLease, dry: bool
) -> int:
    lab_service.refuse_other_target(placement, placement.gfx)
    required = environment.required_environment(placement.stack, placement.gfx)
    notebook = notebook_environment.required(required)
    gpus = select_gpus.visibility_variables(placement.stack, placement.gpus)
    words = [str(notebook.python), "-m", "jupyterlab", f"--ip={HOST}", f"--port={server.port}"]
    variables = {**required.variables, **gpus, "JUPYTER_TOKEN": server.token}
    if dry:
        _print_environment(server, required, notebook, shell_line(words, variables))
        return 0
    with environment.ready(required, placement.owner), _private_folders(placement) as folders:
        notebook_environment.install(notebook, placement.owner)
        for folder in FOLDERS:
            make_writable_folder(ROOT / folder, placement.owner)
        with announced(server):
            variables = {**os.environ, **variables, **folders}
            code = run_as_owner(placement.owner, words, variables, lease.inherited)
    card = explain_exit(code, NAME, out_of_memory=False)
    if card is not None:
        raise card
    return code


@contextmanager
def _private_folders(placement: Placement) -> Generator[dict[str, str]]:
    """Yield variables that keep Jupyter and IPython away from the user's own settings."""
    # Short names: the path of a kernel's socket is limited to 107 bytes.
    names = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "run",
        "IPYTHONDIR": "ipython",
    }
    with tempfile.TemporaryDirectory(prefix="llm-labs-", ignore_cleanup_errors=True) as root:
        folders = {variable: Path(root, name) for variable, name in names.items()}
        for folder in folders.values():
            folder.mkdir(mode=0o700)
        give_to(placement.owner, [Path(root), *folders.values()])
        yield {name: str(folder) for name, folder in folders.items()}


def _print_environment(
    server: NotebookServer, labs: Environment, notebook: NotebookEnvironment, command: str
) -> None:
    steps: list[list[str]] = []
    if not labs.is_complete:
        steps += [["mkdir", "-p", str(labs.home)], *environment.steps(labs)]
    if not notebook.is_complete:
        steps += [step.words for step in notebook_environment.build_steps(notebook)]
    for step in steps:
        print(f"{shell_line(step)} &&")
    print(f"cd {shlex.quote(str(ROOT))} && {command}")
    print_status(f"The link: {server.link}")
