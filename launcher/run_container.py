"""Run a container through the Docker SDK: stream its output, return its exit code, clean up."""

import secrets
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from launcher import terminal
from launcher.cards import Card
from launcher.container_spec import ContainerSpec
from launcher.engine import Engine
from launcher.interrupts import Interrupts
from launcher.known_errors import explain, explain_exit

if TYPE_CHECKING:
    from docker.models.containers import Container

LABEL = "llm-labs.lab"
SECONDS_TO_STOP = 5
ABANDONED_AFTER = timedelta(minutes=1)
ENDED_STATES = ("exited", "dead")


def run(engine: Engine, spec: ContainerSpec, name: str, interrupts: Interrupts) -> int:
    """Run a container to its end.

    Args:
        engine: The engine that runs it.
        spec: The container to run.
        name: The lab's name, for people.
        interrupts: The active signal handlers.

    Returns:
        The exit code of the container's process.

    Raises:
        Card: If the engine refuses, or the container is killed.
        Interrupted: On INT, TERM or HUP, after the container was removed.
    """
    from docker.errors import APIError

    try:
        _remove_abandoned(engine)
        with _created(engine, spec, name, interrupts) as container:
            return _stream(container, name)
    except APIError as error:
        raise explain(str(error.explanation or error), f"{name}'s container can't run.") from error
    except BrokenPipeError:
        raise  # the reader of our output left; the engine is fine
    except OSError as error:
        raise Card(
            f"The connection to the container engine broke while {name} ran.",
            f"The error was: {error}",
            "docker info; once it succeeds, run the lab again",
        ) from error


def container_name(name: str) -> str:
    """Return a new, valid container name for a lab: llm-labs-llm06-plus-1a2b3c."""
    words = name.lower().replace("+", "-plus").replace(" ", "-")
    return f"llm-labs-{words}-{secrets.token_hex(3)}"


@contextmanager
def _created(
    engine: Engine, spec: ContainerSpec, name: str, interrupts: Interrupts
) -> Generator["Container"]:
    """Create a container, and remove it at the end of this block, however that is reached."""
    spec = replace(spec, labels={**spec.labels, LABEL: name})
    interactive = terminal.is_interactive()
    container: Container | None = None
    try:
        with interrupts.deferred():
            container = engine.client.containers.create(
                **spec.sdk_arguments(),
                name=container_name(name),
                tty=interactive,
                stdin_open=interactive,
            )
        yield container
    finally:
        if container is not None:
            with suppress(OSError):  # includes the SDK's errors: the engine may be gone
                container.stop(timeout=SECONDS_TO_STOP)
            with suppress(OSError):
                container.remove(force=True)


def _stream(container: "Container", name: str) -> int:
    """Start a container, stream its output and return its exit code."""
    interactive = terminal.is_interactive()
    output: Any = container.attach(stream=True, logs=True, demux=not interactive)
    container.start()
    with ExitStack() as stack:
        if interactive:
            stack.enter_context(terminal.sync_size(container))
            stack.enter_context(terminal.forward_keys(container))
        for chunk in output:
            _write(sys.stdout, chunk if interactive else chunk[0])
            _write(sys.stderr, None if interactive else chunk[1])
        code = int(container.wait()["StatusCode"])
    container.reload()
    card = explain_exit(code, name, bool(container.attrs["State"].get("OOMKilled")))
    if card is not None:
        raise card
    return code


def _write(stream: Any, chunk: bytes | None) -> None:
    """Write bytes without decoding: a chunk may end inside a character."""
    if chunk:
        stream.buffer.write(chunk)
        stream.flush()


def _remove_abandoned(engine: Engine) -> None:
    """Remove ended containers of a launcher that was killed before it could remove them."""
    from docker.errors import APIError

    ours = engine.client.containers.list(all=True, ignore_removed=True, filters={"label": LABEL})
    for container in ours:
        if container.status not in ENDED_STATES:  # Podman rejects a filter for the state "dead"
            continue
        finished = datetime.fromisoformat(container.attrs["State"]["FinishedAt"])
        if datetime.now(UTC) - finished > ABANDONED_AFTER:
            with suppress(APIError):
                container.remove()
