"""Leases: who uses which GPU of this machine. They are locks of the kernel on files.

A folder that all users share has a file for each GPU. A run holds the lock (flock) on the files of
its GPUs as long as it lives, or a process that inherited their descriptors. The kernel drops the
lock with the last of them, also after KILL, so nothing has to clean up: a container ends with its
launcher (launcher/engine/heartbeat.py). The text in a file says who locked it, for people. A GPU
that several runs may share has a second file, and so on.
"""

import fcntl
import json
import os
import pwd
import stat
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from common.cards import Card
from launcher import settings
from launcher.gpu.model import Gpu

SETTING = "LABS_LEASES"
# Both are emptied when the machine starts. Every user has to choose the same folder, so the choice
# depends on the folder's mode, and not on the user's rights.
FOLDERS = (Path("/run/lock"), Path("/tmp"))
PREFIX = "llm-labs-gpu-"
SECONDS_TO_LOCK = 10  # the folder; another launcher holds its lock for milliseconds
MOST_BYTES = 1_024  # of a file
MOST_LETTERS = 80  # of a holder's name, which another user wrote


@dataclass(frozen=True)
class Lease:
    """A GPU that somebody uses.

    Attributes:
        gpu: its name, as `lease_name` gives it.
        uid: the user.
        holder: what uses it, for people: "LLM06, process 4711".
        per_gpu: how many leases the holder accepts on the GPU, its own included.
        with_own: whether it accepts any number of leases of the same user.
        since: when it was taken, in seconds since 1970.
    """

    gpu: str
    uid: int
    holder: str
    per_gpu: int = 1
    with_own: bool = False
    since: float = 0


class AllTaken(Card):
    """Others hold too many of the GPUs."""

    def __init__(self, gpus: Sequence[Gpu], count: int, free: int, held: Sequence[Lease]) -> None:
        """Create the card of a request for `count` of these GPUs, of which `free` are free."""
        what = "No GPU is free." if not free else f"{count} GPUs are needed, and {free} free."
        if len(gpus) == count:
            numbers = _numbers(gpus)
            what = f"GPU {numbers} isn't free."
            if count > 1:
                what = f"Not all of these GPUs are free: {numbers}."
        super().__init__(
            what,
            f"{describe(gpus, held)}.",
            "wait for a GPU: invoke lab … --wait; or run without one: --stack cpu",
        )


class Leases:
    """The leases of this machine, and which of these GPUs a new one gets."""

    def __init__(
        self,
        gpus: Sequence[Gpu],
        per_gpu: int = 1,
        with_own: bool = False,
        folder: Path | None = None,
    ) -> None:
        """Create a view of the machine's leases.

        Args:
            gpus: The GPUs to give, in order of preference.
            per_gpu: How many leases may share a GPU. If leases disagree, the lowest number counts.
            with_own: Whether a lease may share a GPU with this user's others if none is free.
            folder: Where the leases are; by default, where every user of the machine has them.

        Raises:
            Card: If the machine has no folder for leases.
        """
        self._gpus = tuple(gpus)
        self._per_gpu = per_gpu
        self._with_own = with_own
        self._folder = folder or lease_folder()
        self._open: dict[str, list[int]] = {}  # the descriptors of a holder's files

    def take(self, count: int, holder: str) -> tuple[Gpu, ...]:
        """Take a lease on the `count` GPUs that the fewest leases are on.

        Raises:
            AllTaken: If others hold too many.
            Card: If the folder of leases can't be used.
        """
        with self._locked():
            gpus = self._choose(count)
            descriptors = self._open.setdefault(holder, [])
            try:
                for gpu in gpus:
                    descriptors.append(self._lock_file(gpu))
                    _write(descriptors[-1], self._lease(gpu, holder))
            except OSError as error:
                self.release(holder)
                raise self._unusable(error) from error
            return gpus

    def preview(self, count: int) -> tuple[Gpu, ...]:
        """Return the GPUs that `take` would take.

        Raises:
            AllTaken: If others hold too many.
        """
        with self._locked():
            return self._choose(count)

    def release(self, holder: str) -> None:
        """End the leases that this object took for a holder, if there are any."""
        for descriptor in self._open.pop(holder, []):
            os.close(descriptor)

    def held(self) -> list[Lease]:
        """Return the leases of all users on these GPUs, the oldest first."""
        with self._locked():
            leases = [lease for gpu in self._gpus for lease in self._on(gpu)]
        return sorted(leases, key=lambda lease: lease.since)

    def descriptors(self, holder: str) -> tuple[int, ...]:
        """Return the descriptors whose inheritors keep the leases of a holder alive."""
        return tuple(self._open.get(holder, []))

    def _choose(self, count: int) -> tuple[Gpu, ...]:
        """Return the GPUs for a new lease, in the order of preference."""
        on = {gpu: self._on(gpu) for gpu in self._gpus}
        free = [gpu for gpu in self._gpus if self._has_room(on[gpu])]
        own = [gpu for gpu in self._gpus if gpu not in free and self._is_own(on[gpu])]
        ranked = sorted(free, key=lambda gpu: len(on[gpu]))
        ranked += sorted(own, key=lambda gpu: len(on[gpu]))
        if len(ranked) < count:
            held = [lease for leases in on.values() for lease in leases]
            raise AllTaken(self._gpus, count, len(ranked), held)
        chosen = ranked[:count]
        return tuple(gpu for gpu in self._gpus if gpu in chosen)

    def _has_room(self, on: Sequence[Lease]) -> bool:
        return len(on) < min([self._per_gpu, *(held.per_gpu for held in on)])

    def _is_own(self, on: Sequence[Lease]) -> bool:
        return self._with_own and all(held.with_own and held.uid == os.geteuid() for held in on)

    def _lease(self, gpu: Gpu, holder: str) -> Lease:
        user = os.geteuid()
        return Lease(lease_name(gpu), user, holder, self._per_gpu, self._with_own, time.time())

    def _file(self, gpu: Gpu, number: int) -> Path:
        return self._folder / f"{PREFIX}{lease_name(gpu).strip('/').replace('/', '-')}.{number}"

    def _on(self, gpu: Gpu) -> list[Lease]:
        """Return the leases on a GPU."""
        found: list[Lease] = []
        for number in count():
            path = self._file(gpu, number)
            if not os.path.lexists(path):
                return found
            if lease := _read(path, lease_name(gpu)):
                found.append(lease)
        raise AssertionError("unreachable")

    def _lock_file(self, gpu: Gpu) -> int:
        """Lock the first file of a GPU that nobody has locked; return its descriptor.

        Raises:
            OSError: If a file can't be made.
        """
        for number in count():
            path = self._file(gpu, number)
            with suppress(FileExistsError):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
                os.fchmod(descriptor, 0o666)  # its next holder may be another user
                os.close(descriptor)
            with suppress(OSError):  # another user's odd file
                descriptor = _open(path, os.O_RDWR)
                if _lock(descriptor):
                    return descriptor
                os.close(descriptor)
        raise AssertionError("unreachable")

    def _unusable(self, error: OSError) -> Card:
        return Card(
            f"The lease on a GPU can't be written to {self._folder}.",
            f"{error.strerror}.",
            f"df -h -i {self._folder} && ls -ld {self._folder}; without a GPU: --stack cpu",
        )

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Exclude other launchers. The lock is on the folder, which no user can replace."""
        try:
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            _lock_within_seconds(descriptor, self._folder)
            yield
        finally:
            os.close(descriptor)


def _lock_within_seconds(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_LOCK
    while not _lock(descriptor):
        if time.monotonic() > deadline:
            raise Card(
                "The leases of GPUs can't be read.",
                f"Another process has locked {folder} for {SECONDS_TO_LOCK} seconds.",
                f"find the process and its user: lsof {folder}; or run without a GPU: --stack cpu",
            )
        time.sleep(0.02)


def _lock(descriptor: int) -> bool:
    """Lock a file if nobody has locked it; return whether that worked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path, mode: int) -> int:
    """Open a regular file that another user may have made.

    Raises:
        OSError: If it is something else, or can't be opened.
    """
    descriptor = os.open(path, mode | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return descriptor


def _write(descriptor: int, lease: Lease) -> None:
    """Write a lease into its file.

    Raises:
        OSError: If the disk is full.
    """
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(lease)).encode(), 0)


def _read(path: Path, gpu: str) -> Lease | None:
    """Return the lease of a file that somebody has locked; None if nobody has."""
    try:
        descriptor = _open(path, os.O_RDONLY)
    except OSError:  # another user's odd file holds nothing
        return None
    try:
        return None if _lock(descriptor) else _parse(os.read(descriptor, MOST_BYTES), gpu)
    finally:
        os.close(descriptor)


def _parse(text: bytes, gpu: str) -> Lease:
    """Return the lease of a locked file, whose text any user may have written."""
    try:
        said: dict[str, Any] = json.loads(text)
        holder = "".join(one if one.isprintable() else "?" for one in str(said["holder"]))
        uid, per_gpu, since = int(said["uid"]), int(said["per_gpu"]), float(said["since"])
        with_own = said["with_own"] is True
        return Lease(gpu, uid, holder[:MOST_LETTERS], per_gpu, with_own, since)
    except (ValueError, OverflowError, KeyError, TypeError, RecursionError):
        return Lease(gpu, -1, "unknown")


def lease_name(gpu: Gpu) -> str:
    """Return the name of a GPU in leases: its node, which all users of the machine know."""
    return gpu.node or gpu.uuid or f"{gpu.vendor} {gpu.index}"


def describe(gpus: Sequence[Gpu], leases: Sequence[Lease]) -> str:
    """Return who holds which of these GPUs: "GPU 0: anna (uid 1001), LLM06, since Mon 14:02"."""
    parts: list[str] = []
    for key in dict.fromkeys((lease.uid, lease.holder) for lease in leases):
        theirs = [lease for lease in leases if (lease.uid, lease.holder) == key]
        on = [gpu for gpu in gpus if lease_name(gpu) in {lease.gpu for lease in theirs}]
        if on:
            since = time.strftime("%a %H:%M", time.localtime(theirs[0].since))
            parts.append(f"GPU {_numbers(on)}: {_user(key[0])}, {key[1]}, since {since}")
    return "; ".join(parts)


def _numbers(gpus: Sequence[Gpu]) -> str:
    return ", ".join(str(gpu.index) for gpu in gpus)


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except (KeyError, OverflowError):
        return f"uid {uid}"


def lease_folder() -> Path:
    """Return the site's folder, or else the first that is open to all users.

    Raises:
        Card: If no folder can be used, or the site's would let other users remove a lease.
    """
    fix = f"sudo install -d -m 1777 /var/lib/llm-labs; then {SETTING}=/var/lib/llm-labs, in .env"
    setting = settings.find(SETTING)
    if setting is None:
        usable = next((path for path in FOLDERS if not folder_problem(path)), None)
        if usable is not None:
            return usable
        why = "; ".join(f"{path} {folder_problem(path)}" for path in FOLDERS)
        raise Card("There is no folder for leases of GPUs.", f"{why}.", fix)
    path = Path(setting.value)
    if problem := folder_problem(path):
        why = f"It is set {setting.source}, and {path} {problem}."
        raise Card(f"{SETTING}={path} isn't possible.", why, fix)
    return path


def folder_problem(path: Path) -> str:
    """Return why a folder can't hold leases, in words that follow its name; "" if it can."""
    try:
        status = path.stat()
    except OSError as error:
        return f"can't be used: {error.strerror}"
    if not path.is_absolute() or not stat.S_ISDIR(status.st_mode):
        return "isn't the absolute path of a folder"
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to uid {status.st_uid}, who could remove the leases of others"
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o1777 != 0o1777:
        return f"has the mode {mode:o}; leases of several users need 1777"
    return ""
