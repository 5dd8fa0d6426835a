"""Run a lab as N processes of one torch.distributed group: `--processes N`, or one for each GPU.

A container of a Slurm job runs the processes of one node: LABS_NODES is then the number of nodes,
LABS_NODE the number of this one, and MASTER_ADDR:MASTER_PORT is where all processes meet.

torch and Accelerate read the group from environment variables, which are set here. The Accelerator
checks that as many processes joined. Other launchers don't fit: `accelerate launch --cpu
--num_processes 2` starts one process and reports nothing. torchrun and torch.distributed.elastic
poll the processes in the order of their ranks. When rank 1 failed 50 ms before rank 0, they
returned the exit code of rank 0.
https://docs.pytorch.org/docs/stable/distributed.html#environment-variable-initialization
"""

import atexit
import ctypes
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NoReturn

from common.cards import Card
from labs.cpus import cpu_limit, usable_cpus
from labs.kit.run import stop_request

GRACE_SECONDS = 10  # for the other processes to end after one has failed
PR_SET_PDEATHSIG = 1  # prctl(2)
Wait = Callable[[], int]


def rank() -> int:
    """Return this process's number in its group; 0 if it is alone."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Return whether this is the process that prints, checks and writes files."""
    return rank() == 0


def group_size() -> int:
    """Return the number of processes that run this lab together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def nodes() -> int:
    """Return the number of machines whose processes run this lab together."""
    return int(os.environ.get("LABS_NODES", "1"))


def stop_all(card: Card) -> NoReturn:
    """Raise a card that every process of the group raises; only the main process shows it."""
    card.shown_elsewhere = not is_main()
    raise card


def end_with_parent() -> None:
    """Let the kernel end this process when the process that started it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # it ended while this process was importing
        os._exit(128 + signal.SIGKILL)


def run_ranks(processes: int, function: Callable[..., int], *arguments: Any) -> int:
    """Call `function` in each process of a new group.

    Args:
        processes: the size of the group.
        function: a function of a module, which can be imported; it returns an exit code.
        arguments: its arguments, which must be picklable.

    A request to stop a training (USR1, TERM) is passed on to the processes.

    Returns:
        The exit code of the first process that fails, else 0. The others are ended then.
    """
    spawn = multiprocessing.get_context("spawn")
    started: list[Any] = []
    try:
        for variables in _rank_variables(processes):
            process = spawn.Process(target=_rank_main, args=(function, arguments))
            with _environment(variables):
                process.start()
            started.append(process)
        with stop_request.passed_on_to([process.pid for process in started]):
            return _first_failure([_joining(process) for process in started])
    finally:
        for process in started:
            process.kill()
            while process.is_alive():  # until the thread that waits for it has its exit code, too
                process.join(timeout=0.1)


def _rank_main(function: Callable[..., int], arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    leave(function(*arguments))


def _joining(process: Any) -> Wait:
    def wait() -> int:
        process.join()
        return process.exitcode

    return wait


def run_group(processes: int, command: list[str], **variables: str) -> int:
    """Run `command` as a group of processes, with additional environment variables.

    Returns:
        The exit code of the first process that fails, else 0. The others are ended then.
    """
    started = [
        subprocess.Popen(command, env={**os.environ, **variables, **of_rank})
        for of_rank in _rank_variables(processes)
    ]
    try:
        return _first_failure([process.wait for process in started])
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait()


def leave(code: int) -> NoReturn:
    """End this process; in a group, without Python's own finalisation.

    Gloo's threads may release the tensors of the last collective during finalisation, when Python
    is no longer there. Of the runs that a NaN had stopped, this aborted one in twelve, with exit
    code 134. Destroying the group first doesn't help: a prepared model keeps its threads alive.
    """
    if group_size() == 1:
        sys.exit(code)
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _rank_variables(processes: int) -> list[dict[str, str]]:
    """Return the variables of each process on this machine."""
    first = processes * int(os.environ.get("LABS_NODE", "0"))
    common = {
        **(_meeting_place() if nodes() == 1 else {}),  # else the job has set it
        "WORLD_SIZE": str(processes * nodes()),
        "LOCAL_WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": _threads_of_each(processes),
    }
    return [{**common, "RANK": str(first + n), "LOCAL_RANK": str(n)} for n in range(processes)]


def _meeting_place() -> dict[str, str]:
    """Return an address of this machine alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        # Else Gloo looks up this machine's name, which fails in a container without a network.
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    }


def _threads_of_each(processes: int) -> str:
    """Return the user's number of threads; else share the CPUs between the processes."""
    given = os.environ.get("OMP_NUM_THREADS")
    if given is not None and given != str(cpu_limit()):  # labs/__init__.py sets it to the limit
        return given
    return str(max(1, usable_cpus() // processes))


@contextmanager
def _environment(variables: dict[str, str]) -> Generator[None]:
    """Set environment variables that a process started meanwhile inherits."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _first_failure(waits: list[Wait]) -> int:
    """Wait for all processes, each in a thread; after a failure wait for the others briefly."""
    # One thread for each: the order in which they end matters. When one fails, the others lose
    # their connection to it and fail a moment later.
    ended: SimpleQueue[int] = SimpleQueue()
    for wait in waits:
        Thread(target=_report_end, args=(wait, ended), daemon=True).start()
    code = 0
    deadline = 0.0
    for _ in waits:
        timeout = max(0.0, deadline - time.monotonic()) if code else None
        try:
            last = ended.get(timeout=timeout)
        except Empty:
            break
        if last and code == 0:
            code = last
            deadline = time.monotonic() + GRACE_SECONDS
    return code if code >= 0 else 128 - code


def _report_end(wait: Wait, ended: "SimpleQueue[int]") -> None:
    ended.put(wait())
