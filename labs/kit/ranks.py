"""A lab as N processes of one torch.distributed group: `--processes N`, or one for each GPU.

`accelerate launch --cpu --num_processes 2` runs one process and says nothing; torchrun gives two,
and ends with 1 whatever they end with. So the group is started here, by the environment variables
that torch and Accelerate read, and its size is asserted where the Accelerator is made.
https://docs.pytorch.org/docs/stable/distributed.html#environment-variable-initialization
"""

import atexit
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NoReturn

from labs.kit.cards import Card

SECONDS_TO_FOLLOW = 10  # that a process has to end in after another one failed
PR_SET_PDEATHSIG = 1  # prctl(2)


def rank() -> int:
    """This process's number in its group; 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Is this the process that prints, checks and writes files?"""
    return rank() == 0


def group_size() -> int:
    """How many processes run this lab together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def stop_all(card: Card) -> NoReturn:
    """Raise a card that every process of the group raises: the main one alone shows it."""
    card.told_elsewhere = not is_main()
    raise card


def end_with_its_starter() -> None:
    """Let the kernel end this process of a group when the one that started it is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start(processes: int, arguments: list[str], module: str = "labs") -> int:
    """Run `python -m module` with `arguments` as a group of processes; its exit code."""
    return group(processes, [sys.executable, "-m", module, *arguments])


def group(processes: int, command: list[str], **variables: str) -> int:
    """Run `command` as a group of processes, with some environment variables more.

    Returns:
        The exit code of the first one that fails, else of the main one. The others are ended then.
    """
    started = [
        subprocess.Popen(command, env=_environment({**variables, **one}))
        for one in _variables(processes)
    ]
    try:
        return _watch(started)
    finally:
        for one in started:
            if one.poll() is None:
                one.kill()
            one.wait()


def leave(code: int) -> NoReturn:
    """End this process. One of a group does so without Python's being taken apart.

    Gloo's threads still let go of the last collective's tensors then, for which they need Python:
    one run in twelve that a NaN stopped was aborted by that, with code 134 for 1. Destroying the
    group first doesn't help, for a model that was prepared for it keeps it, threads and all.
    """
    if group_size() == 1:
        sys.exit(code)
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _variables(processes: int) -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    threads = max(1, (os.cpu_count() or 1) // processes)
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        # without it Gloo looks this machine's name up, which a container has no network for
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }
    return [{**common, "RANK": str(one), "LOCAL_RANK": str(one)} for one in range(processes)]


def _environment(variables: dict[str, str]) -> dict[str, str]:
    return {**os.environ, **variables}


def _watch(group: list["subprocess.Popen[bytes]"]) -> int:
    """Wait for all; once one has failed the rest is waiting for it, and isn't waited for long."""
    # In the order in which they end: the others fail within a moment, for they have lost the first.
    ended: SimpleQueue[int] = SimpleQueue()

    def wait_for(one: "subprocess.Popen[bytes]") -> None:
        ended.put(one.wait())

    for one in group:
        Thread(target=wait_for, args=(one,), daemon=True).start()
    code, deadline = 0, 0.0
    for _ in group:
        left = max(0.0, deadline - time.monotonic()) if code else None
        try:
            last = ended.get(timeout=left)
        except Empty:
            break
        if last and code == 0:
            code, deadline = last, time.monotonic() + SECONDS_TO_FOLLOW
    return _exit_code(code)


def _exit_code(code: int) -> int:
    return code if code >= 0 else 128 - code
