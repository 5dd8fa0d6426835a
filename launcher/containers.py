"""Run a container through the Docker SDK: output live, exit code kept, nothing left behind."""

import secrets
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from launcher import terminals
from launcher.cards import Card
from launcher.compose import Container
from launcher.engine import Engine
from launcher.errors import explain, explain_exit
from launcher.interrupts import Interrupts

if TYPE_CHECKING:
    from docker.models.containers import Container as Running

LABEL = "llm-labs.lab"
SECONDS_TO_STOP = 5
ABANDONED = timedelta(minutes=1)
ENDED = ("exited", "dead")


def run(engine: Engine, container: Container, name: str, interrupts: Interrupts) -> int:
    """Run `container` to its end.

    Returns:
        The exit code of what ran in it.

    Raises:
        Card: where the engine refuses, or the container is killed.
        Interrupted: on INT, TERM or HUP; the container is gone then.
    """
    from docker.errors import APIError

    try:
        _sweep(engine)
        with _created(engine, container, name, interrupts) as running:
            return _watch(running, name)
    except APIError as error:
        raise explain(str(error.explanation or error), f"{name}'s container can't run.") from error
    except BrokenPipeError:
        raise  # whoever read our output left; the engine is well
    except OSError as error:
        raise Card(
            f"The container engine was lost while {name} ran.",
            f"Its connection broke: {error}",
            "docker info; when it answers again, run the lab again",
        ) from error


@contextmanager
def _created(
    engine: Engine, container: Container, name: str, interrupts: Interrupts
) -> Generator["Running"]:
    """A container that is gone after this block, however the block ends."""
    container = replace(container, labels={**container.labels, LABEL: name})
    unique = f"llm-labs-{name.lower().replace(' ', '-')}-{secrets.token_hex(3)}"
    terminal = terminals.can_type()
    running: Running | None = None
    try:
        with interrupts.held():
            arguments = container.for_the_sdk()
            running = engine.client.containers.create(
                **arguments, name=unique, tty=terminal, stdin_open=terminal
            )
        yield running
    finally:
        if running is not None:
            with suppress(OSError):  # the engine's errors are OSErrors: it may be lost
                running.stop(timeout=SECONDS_TO_STOP)
            with suppress(OSError):
                running.remove(force=True)


def _watch(running: "Running", name: str) -> int:
    terminal = terminals.can_type()
    output: Any = running.attach(stream=True, logs=True, demux=not terminal)
    running.start()
    with ExitStack() as stack:
        if terminal:
            stack.enter_context(terminals.same_size(running))
            stack.enter_context(terminals.typing(running))
        for chunk in output:
            _write(sys.stdout, chunk if terminal else chunk[0])
            _write(sys.stderr, None if terminal else chunk[1])
        code = int(running.wait()["StatusCode"])
    running.reload()
    card = explain_exit(code, name, bool(running.attrs["State"].get("OOMKilled")))
    if card is not None:
        raise card
    return code


def _write(stream: Any, chunk: bytes | None) -> None:
    """Bytes as they come: a character may be cut in two between chunks."""
    if chunk:
        stream.buffer.write(chunk)
        stream.flush()


def _sweep(engine: Engine) -> None:
    """Remove what a launcher left that was itself killed, and so couldn't."""
    from docker.errors import APIError

    ours = engine.client.containers.list(all=True, ignore_removed=True, filters={"label": LABEL})
    for one in ours:
        if one.status not in ENDED:  # not a filter: Podman refuses to look for a state "dead"
            continue
        finished = datetime.fromisoformat(one.attrs["State"]["FinishedAt"])
        if datetime.now(UTC) - finished > ABANDONED:
            with suppress(APIError):
                one.remove()
