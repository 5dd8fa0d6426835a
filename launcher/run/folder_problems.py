"""Why a folder for a lab's files can't be made or written, and the command that fixes it."""

import errno
import os
import pwd
import shlex
import stat
from pathlib import Path

from common.cards import Card
from launcher import ROOT, settings
from launcher.run.access_control_list import acl_bits

_FULL = {
    errno.ENOSPC: "The disk is full.",
    errno.EDQUOT: "Your quota on that disk is used up.",
}


def refuse_file_or_link(folder: Path) -> None:
    """Refuse a path of which a part is a file, or a link that leads to no folder.

    Raises:
        Card: If there is such a part.
    """
    for part in (*reversed(folder.parents), folder):
        if not os.path.lexists(part) or _is_folder(part):
            continue
        why = "The labs write their files to a folder of that name."
        quoted = shlex.quote(str(part))
        if not part.is_symlink():
            raise Card(f"{part} is a file.", why, f"mv {quoted} {quoted}.old")
        target = part.parent / part.readlink()
        if os.path.lexists(target):
            raise Card(f"{part} is a link to {target}, which is no folder.", why, f"rm {quoted}")
        fix = f"mkdir -p {shlex.quote(str(target))}; or remove the link: rm {quoted}"
        raise Card(f"{part} is a link to {target}, which doesn't exist.", why, fix)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:  # behind a folder that is closed to this user, which is another card
        return True


def cannot_create(folder: Path, error: OSError) -> Card:
    """Return the card for a folder that can't be created."""
    parent = next(path for path in folder.parents if os.access(path, os.F_OK))
    if why := _FULL.get(error.errno or 0):
        what = f"The run's files can't be written to {folder}."
        return Card(what, why, f"free space, then run it again: df -h {shlex.quote(str(parent))}")
    why = f"{error.strerror}. {_owner_and_disk(parent)}"
    return Card(f"{folder} can't be created.", why, _fix(folder, parent))


def cannot_write(folder: Path) -> Card:
    """Return the card for a folder that this user may not write to."""
    return Card(f"{folder} can't be written.", _owner_and_disk(folder), _fix(folder, folder))


def _owner_and_disk(folder: Path) -> str:
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"The file system of {folder} is read-only."
    uid = folder.stat().st_uid
    if uid == os.geteuid():
        return f"You own {folder}, but its mode denies you to write."
    try:
        name = f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        name = f"uid {uid}"
    return f"{folder} belongs to {name}."


def _fix(folder: Path, closed: Path) -> str:
    """Return the fix for `folder`; `closed` is the folder that refuses.

    It changes nothing but the user's own folders and what lies within the user's own clone.
    """
    quoted = shlex.quote(str(closed))
    if os.statvfs(closed).f_flag & os.ST_RDONLY:
        return f"findmnt --target {quoted} shows its file system"
    if closed.stat().st_uid == os.geteuid():
        return f"chmod u+rwx {quoted}"
    own_clone = ROOT.stat().st_uid == os.geteuid()
    if own_clone and ROOT in closed.resolve().parents:
        return f"ls -ld {quoted}; then: sudo chown -R $(id -u):$(id -g) {quoted}"
    if ROOT in folder.parents:
        return f"make your own clone, for example: git clone {shlex.quote(str(ROOT))} ~/llm-labs"
    if (outputs := settings.find("LABS_OUTPUTS")) and Path(outputs.value) == folder:
        return f"set LABS_OUTPUTS, {outputs.source}, to a folder of yours"
    return f"ask its owner for access, or name another folder: ls -ld {quoted}"


def refuse_remapped_user(folder: Path, uid: int, first_uid: int) -> None:
    """Refuse a folder that the user of a container may not write to, if the engine remaps users.

    Args:
        folder: The folder.
        uid: The user in the container.
        first_uid: The host's uid of the container's root.

    Raises:
        Card: If that user may not write to it.
    """
    mapped = first_uid + uid
    status = folder.stat()
    bits = status.st_mode >> 6 if status.st_uid == mapped else status.st_mode
    named_bits = acl_bits(folder, mapped)
    if (bits if named_bits is None else named_bits) & stat.S_IWOTH:
        return
    both = f"u:{mapped}:rwX,d:u:{mapped}:rwX,d:u:{status.st_uid}:rwX"
    raise Card(
        f"A container can't write to {folder}.",
        f"This engine remaps users (userns-remap): the lab's user, uid {uid}, is uid {mapped} on "
        "this machine, and that user may not write there.",
        f"setfacl -R -m {both} {shlex.quote(str(folder))}; or, without a container: --runtime venv",
    )
