"""Run a container through the Docker SDK: stream its output, return its exit code, clean up."""

import secrets
import signal
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING, Any

from common.cards import Card, print_status
from common.interrupts import Interrupted
from launcher.engine import heartbeat, orphans, terminal
from launcher.engine.client import Engine
from launcher.engine.container_spec import ContainerSpec
from launcher.engine.known_errors import explain, explain_exit

if TYPE_CHECKING:
    from docker.models.containers import Container

SECONDS_TO_STOP = 20  # a training saves a checkpoint
SECONDS_TO_CREATE = 3  # for a request that a signal interrupted
SECONDS_TO_RESPOND = 3  # of an engine that isn't frozen


def run(engine: Engine, spec: ContainerSpec, name: str) -> int:
    """Run a container to its end.

    Args:
        engine: The engine that runs it.
        spec: The container to run.
        name: The lab's name, for people.

    Returns:
        The exit code of the container's process.

    Raises:
        Card: If the engine refuses, or the container is killed.
        Interrupted: On INT, TERM or HUP, after the container was removed.
    """
    from docker.errors import APIError

    try:
        with created(engine, spec, name) as container:
            try:
                return _stream(container, name, spec.reads_input)
            except Interrupted:
                print_status(f"Stopping {name}. A training saves a checkpoint first.")
                raise
    except APIError as error:
        what = f"The engine refuses the container of {name}."
        fix = "correct what it names: compose.yaml, its override and .env describe the container"
        raise explain(str(error.explanation or error), what, fix) from error
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
def created(engine: Engine, spec: ContainerSpec, name: str) -> Generator["Container"]:
    """Create a container, and remove it at the end of this block, however that is reached."""
    from docker.errors import APIError

    own_name = container_name(name)
    interactive = terminal.is_interactive()
    exists = True  # as far as this process knows: a signal can interrupt the request
    seconds_to_create = 0
    with heartbeat.hold_lock(spec, own_name) as spec:
        spec = replace(spec, labels={**spec.labels, orphans.LABEL: name})
        try:
            try:
                container = engine.client.containers.create(
                    **spec.sdk_arguments(),
                    name=own_name,
                    tty=interactive,
                    stdin_open=interactive or spec.reads_input,
                )
            except APIError:
                exists = False  # a container of that name would be another launcher's
                raise
            yield container
        except Interrupted:
            seconds_to_create = SECONDS_TO_CREATE
            raise
        finally:
            if exists:
                _end(engine, own_name, seconds_to_create)


def _end(engine: Engine, name: str, seconds_to_create: float) -> None:
    """Stop and remove a container, if it exists within `seconds_to_create`.

    A frozen engine can't. Then the container ends when the launcher gives up its lock, and the next
    command removes it.
    """
    from docker.errors import APIError

    try:
        container = _find(engine, name, seconds_to_create)
        if container is None:
            return
        with suppress(OSError):  # includes the SDK's errors
            container.stop(timeout=SECONDS_TO_STOP)
        container.remove(force=True)
    except APIError:
        return  # the engine responds; another command removes the container, too
    except OSError:
        print_status(
            f"The container engine doesn't respond. The lab in the container {name} ends by "
            "itself; the next command removes the container."
        )


def _find(engine: Engine, name: str, seconds: float) -> "Container | None":
    """Return a container, or None if it doesn't exist within `seconds`.

    Raises:
        OSError: If the engine doesn't respond.
    """
    from docker.errors import NotFound

    deadline = time.monotonic() + seconds
    usual = engine.client.api.timeout
    engine.client.api.timeout = SECONDS_TO_RESPOND
    while True:
        try:
            container = engine.client.containers.get(name)
        except NotFound:
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.1)
        else:
            engine.client.api.timeout = usual
            return container


def _stream(
    container: "Container",
    name: str,
    reads_input: bool,
) -> int:
    """Start a container, stream its output and return its exit code."""
    interactive = terminal.is_interactive()
    # Before the start there is no output to catch up on. With logs=True, lines that a fast
    # container prints while the engine attaches come twice.
    output: Any = container.attach(stream=True, demux=not interactive)
    container.start()
    with ExitStack() as stack:
        stack.enter_context(_pass_on_requests_to_stop(container))
        if interactive:
            stack.enter_context(terminal.sync_size(container))
            stack.enter_context(terminal.forward_keys(container, with_ctrl_c=reads_input))
        elif reads_input:
            stack.enter_context(terminal.forward_input(container))
        for chunk in output:
            _write(sys.stdout, chunk if interactive else chunk[0])
            _write(sys.stderr, None if interactive else chunk[1])
        code = int(container.wait(timeout=None)["StatusCode"])
    container.reload()
    card = explain_exit(code, name, bool(container.attrs["State"].get("OOMKilled")))
    if card is not None:
        raise card
    return code


@contextmanager
def _pass_on_requests_to_stop(container: "Container") -> Generator[None]:
    """Pass USR1, which asks a training to stop, on to the lab."""

    def send(_number: int, _frame: object) -> None:
        # In a thread: the signal may have interrupted another request to the engine.
        Thread(target=_request_stop, args=(container,), daemon=True).start()

    before = signal.signal(signal.SIGUSR1, send)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def _request_stop(container: "Container") -> None:
    with suppress(OSError):  # includes the SDK's errors: the container has ended
        container.kill("SIGUSR1")


def _write(stream: Any, chunk: bytes | None) -> None:
    """Write bytes without decoding: a chunk may end inside a character."""
    if chunk:
        stream.buffer.write(chunk)
        stream.flush()
