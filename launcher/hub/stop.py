"""`invoke hub --stop` and `--purge`: end the hub and its seats, list what is left, remove it."""

import shutil
import stat
import subprocess
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from common.cards import WRONG_USAGE, Card, print_status
from common.processes import capture
from launcher import ROOT
from launcher.engine.client import Engine
from launcher.engine.known_errors import explain
from launcher.hub import compose as hub_compose
from launcher.hub import folder as hub_folder
from launcher.hub.compose import compose_command, require_runtime
from launcher.hub.folder import ARCHIVES, CLASS, COPIES, LABEL, LEARNERS, MESSAGE, STATE
from launcher.hub.settings import WORKSHOP
from launcher.hub.users import is_allowed
from launcher.run.file_owner import file_owner, make_writable_folder
from launcher.run.service import shell_line
from launcher.task_words import SIMILAR

SECONDS_TO_STOP = 5
AT_ONCE = 8  # seats that stop at the same time
ALL = "all"


def stop(dry: bool) -> int:
    """Stop the hub and all seats, and list what is left.

    Args:
        dry: Whether to print the commands only.

    Raises:
        Card: If the engine refuses.
    """
    engine = require_runtime().engine
    assert engine is not None
    if dry:
        return _print_commands(engine, [])
    copy = _copy_work(engine)
    stopped = _end(engine)
    (WORKSHOP / CLASS / MESSAGE).unlink(missing_ok=True)
    print_status(stopped)
    if copy:
        print_status(copy)
    list_left(WORKSHOP)
    if _work(WORKSHOP):
        print_status("invoke hub --purge removes the hub's own files, and no work.")
    return 0


def _copy_work(engine: Engine) -> str:
    """Make a copy if anybody has a seat; return a line that names it, or the reason."""
    seats, _ = _seats_and_networks(engine)
    if not seats or not hub_compose.containers(engine):
        return ""
    copy, problem = _run_copy(hub_compose.copy_command())
    return copy or f"No copy of the learners' work was made: {problem}"


def _run_copy(command: list[str]) -> tuple[str, str]:
    """Run a command that makes a copy; return a line that names the copy, or "" and a reason."""
    result = capture(command, cwd=ROOT, stderr=subprocess.PIPE)
    if result.returncode == 0:
        return f"A copy of all work is in {WORKSHOP / COPIES / result.stdout.strip()}.", ""
    lines = result.stderr.strip().splitlines() or ["it printed nothing"]
    return "", lines[-1]


def _end(engine: Engine) -> str:
    """Remove the containers and the networks of this clone's hub; return what was stopped."""
    was_running = bool(hub_compose.containers(engine))
    result = capture(_down_command(), stderr=subprocess.PIPE)
    if result.returncode != 0:
        raise explain(result.stderr, "The engine refuses to stop the hub.", "docker ps")
    seats, networks = _seats_and_networks(engine)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(_remove_seat, seats))
    for network in networks:
        with suppress(OSError):
            network.remove()
    if was_running or seats:
        return f"Stopped the hub and {len(seats)} {'seat' if len(seats) == 1 else 'seats'}."
    return "No hub was running."


def _down_command() -> list[str]:
    return [*compose_command(), "down", "--timeout=10"]


def _seats_and_networks(engine: Engine) -> tuple[list[Any], list[Any]]:
    """Return the containers and the networks of this clone's seats."""
    only_ours: dict[str, Any] = {"label": f"{LABEL}={hub_folder.identity()}"}
    seats = engine.client.containers.list(all=True, filters=only_ours, ignore_removed=True)
    return seats, engine.client.networks.list(filters=only_ours)


def _print_commands(engine: Engine, paths: Collection[Path]) -> int:
    """Print the commands that end the hub and its seats and remove these paths; return 0."""
    print(shell_line(_down_command()))
    seats, networks = _seats_and_networks(engine)
    if seats:
        print(shell_line(["docker", "rm", "--force", *(seat.name for seat in seats)]))
    if networks:
        print(shell_line(["docker", "network", "rm", *(network.name for network in networks)]))
    if _needs_copy(paths):
        print(shell_line(hub_compose.copy_command_without_hub(WORKSHOP)))
    for path in paths:
        print(shell_line(["rm", "-r", str(path)]))
    return 0


def _remove_seat(seat: Any) -> None:
    with suppress(OSError):  # includes the SDK's errors: somebody else removes it
        seat.stop(timeout=SECONDS_TO_STOP)
    with suppress(OSError):
        seat.remove(force=True)


def list_left(folder: Path) -> None:
    """Print what is left in workshop/, with sizes, and the command that removes it."""
    lines = [f"{size / 1e3:12,.0f} kB  {path.relative_to(folder)}" for path, size in _work(folder)]
    if lines:
        print(f"Left in {folder}:")
        print("\n".join(lines))
        print_status("To continue: invoke hub. To see where everybody stands:")
        print_status(f"invoke progress --class {folder / LEARNERS}")
    else:
        print(f"{folder} has no work of learners.")


def _work(folder: Path) -> list[tuple[Path, int]]:
    """Return the learners' folders, the archives and the hub's copies, with their sizes."""
    found = [*(folder / LEARNERS).glob("*/"), *(folder / ARCHIVES).glob("*.tar.gz")]
    found += [path for path in [folder / COPIES] if path.is_dir()]
    return [(path, _size(path)) for path in sorted(found)]


def _size(path: Path) -> int:
    total = 0
    for file in path.rglob("*") if path.is_dir() else [path]:
        with suppress(OSError):  # in a folder that a learner has closed
            status = file.lstat()
            total += 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return total


def purge(names: str, dry: bool) -> int:
    """Stop the hub and remove its own files; of the learners' work only what is named.

    Args:
        names: Learners and archives with commas, "all", or "" for none.
        dry: Whether to print the commands only.

    Raises:
        Card: If a name isn't there, or the disk refuses; then nothing was removed.
    """
    chosen = _chosen(WORKSHOP, names)
    engine = require_runtime().engine
    assert engine is not None
    if dry:
        return _print_commands(engine, [WORKSHOP / STATE, WORKSHOP / CLASS, *chosen])
    print_status(_end(engine))
    if _needs_copy(chosen):
        _copy_before_removal()
    hub_folder.remove_state(WORKSHOP)
    _remove(chosen)
    removed = ["the hub's own files", *(str(path.relative_to(WORKSHOP)) for path in chosen)]
    print_status(f"Removed {', '.join(removed)}.")
    left = _work(WORKSHOP)
    if left:
        list_left(WORKSHOP)
        example = ",".join(path.name for path, _ in left[:2])
        print_status(f"To remove work, name it: invoke hub --purge {example}; or {ALL}")
    if files := sorted(path.name for path in WORKSHOP.glob("*") if path.is_file()):
        print_status(f"Settings and passwords stay in {WORKSHOP}: {', '.join(files)}")
    return 0


def _needs_copy(removed: Collection[Path]) -> bool:
    """Return whether a learner's folder is removed, and the copies aren't."""
    return WORKSHOP / COPIES not in removed and any(
        path.parent == WORKSHOP / LEARNERS for path in removed
    )


def _copy_before_removal() -> None:
    """Copy all work, because a learner's folder is removed.

    Raises:
        Card: If that fails.
    """
    make_writable_folder(WORKSHOP / COPIES, file_owner())
    copy, problem = _run_copy(hub_compose.copy_command_without_hub(WORKSHOP))
    if not copy:
        why = f"No copy of the learners' work can be made: {problem}. The hub has ended."
        fix = f"make room: df -h {WORKSHOP}; or without a copy: rm -r {WORKSHOP / LEARNERS}/NAME"
        raise Card("Nothing was removed.", why, fix)
    print_status(copy)


def _chosen(folder: Path, names: str) -> list[Path]:
    """Return the paths that names stand for.

    Raises:
        Card: If one doesn't exist.
    """
    if names == ALL:
        return [path for path, _ in _work(folder)]
    return [_path(folder, name) for name in names.split(",") if name]


def _path(folder: Path, name: str) -> Path:
    learner = folder / LEARNERS / name
    archive = folder / ARCHIVES / name
    if name == COPIES and (folder / COPIES).is_dir():
        return folder / COPIES
    if is_allowed(name) and learner.is_dir():
        return learner
    if Path(name).name == name and name.endswith(".tar.gz") and archive.is_file():
        return archive
    names = [path.name for path, _ in _work(folder)]
    near = get_close_matches(name.lower(), names, 1, SIMILAR)
    why = f"{folder} has no learner and no archive of this name. Nothing was removed or stopped."
    why += f" Did you mean {near[0]}?" if near else ""
    fix = f"choose from {', '.join(names)}; or {ALL}" if names else "nothing is left to purge"
    raise Card(f"{name!r} can't be purged.", why, fix, WRONG_USAGE)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            why = f"The error was: {error}."
            raise Card(f"{path} can't be removed.", why, f"sudo rm -r {path}") from error
