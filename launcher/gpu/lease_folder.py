"""The folder of leases, shared by all users of a machine."""

import os
import stat
from pathlib import Path

from common.cards import Card
from launcher import settings

SETTING = "LABS_LEASES"
# Both are emptied when the machine starts. Every user has to choose the same folder, so the choice
# depends on the folder's mode, and not on the user's rights.
FOLDERS = (Path("/run/lock"), Path("/tmp"))


def lease_folder() -> Path:
    """Return the site's folder, or else the first that is open to all users.

    Raises:
        Card: If no folder can be used, or the site's would let other users remove a lease.
    """
    setting = settings.find(SETTING)
    if setting is None:
        usable = next((path for path in FOLDERS if not folder_problem(path)), None)
        if usable is not None:
            return usable
        why = "; ".join(f"{path} {folder_problem(path)}" for path in FOLDERS)
        raise Card("There is no folder for leases of GPUs.", f"{why}.", _fix())
    path = Path(setting.value)
    if problem := folder_problem(path):
        why = f"It is set {setting.source}, and {path} {problem}."
        raise Card(f"{SETTING}={path} isn't possible.", why, _fix())
    return path


def _fix() -> str:
    return f"sudo install -d -m 1777 /var/lib/llm-labs; then {SETTING}=/var/lib/llm-labs, in .env"


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
