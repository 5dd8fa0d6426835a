"""The folder workshop/: the settings, the learners' work, and the state of the hub."""

import hashlib
import json
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.cards import WRONG_USAGE, Card, print_status
from launcher import ROOT
from launcher.engine.container_spec import ContainerSpec
from launcher.hub.certificate import refuse_no_pair
from launcher.hub.gpus import HubGpus
from launcher.hub.settings import SETTINGS_FILE, HubSettings
from launcher.hub.users import read_users
from launcher.run.file_owner import Owner, give_to, make_writable_folder

STATE = "state"
DESCRIPTION = "hub.json"  # in state/: what the hub needs to know
LEARNERS = "learners"
ARCHIVES = "archives"
COPIES = "copies"  # that the hub makes while learners work
CLASS = "class"  # what the teacher decides for all seats, which mount it read-only
MESSAGE = "message.txt"  # in class/; the labs read it
LABEL = "llm-labs.hub"  # of the seats and their networks; the value is the clone's identity
TEMPLATE = """\
# The settings of `invoke hub`. After a change: invoke hub
title = "llm-labs"

# How learners log in: all with one password and a name of their choice …
password = "{password}"
# … or each with a name and a password from a file beside this one, with lines such as
# ada,a-long-word (then remove the line above):
# users = "users.csv"

# Who sees the page of the class.
teacher = "teacher"
teacher_password = "{teacher_password}"

# Each learner who works takes a seat, with these limits.
seats = 30
memory = "3g"
cpus = 2
gpus = 0          # of this machine for each seat; if all are taken, learners wait for one
quota = "2g"      # for a learner's files on this machine's disk
idle = "1h"       # an unused seat is stopped after this time; "never" is possible
longest = "12h"   # any seat is stopped after this time
network = false   # whether seats can reach other machines
solutions = "open"  # "locked": the teacher opens them, lab by lab, on the page of the class

# Where the hub listens. 127.0.0.1 is this machine only; 0.0.0.0 is every network it is in.
address = "127.0.0.1"
port = 8000
# For HTTPS, PEM files beside this one:
# certificate = "certificate.pem"
# key = "key.pem"
"""


def identity(clone: Path = ROOT) -> str:
    """Return what distinguishes the hubs of several clones on one engine."""
    return hashlib.sha256(str(clone).encode()).hexdigest()[:6]


def prepare(folder: Path, owner: Owner) -> None:
    """Create workshop/, and hub.toml with new passwords if it is missing.

    Raises:
        Card: If the disk refuses.
    """
    for path in (folder, *(folder / name for name in (LEARNERS, ARCHIVES, STATE, CLASS))):
        make_writable_folder(path, owner)
    (folder / STATE).chmod(0o700)
    path = folder / SETTINGS_FILE
    if not path.exists():
        write_private(path, new_settings(), owner)
        print_status(f"Wrote {path}, with new passwords. Change what you like; then: invoke hub")


def new_settings() -> str:
    """Return the text of a new hub.toml, with random passwords."""
    return TEMPLATE.format(password=_words(2), teacher_password=_words(4))


def _words(count: int) -> str:
    """Return a random password in groups of five, without letters that look alike."""
    letters = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(5)) for _ in range(count))


def write_private(path: Path, text: str, owner: Owner) -> None:
    """Write a file that only its owner can read, so that it is complete or unchanged.

    Raises:
        Card: If the disk refuses.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        new.touch(mode=0o600, exist_ok=False)
        new.write_text(text, encoding="utf-8")
        give_to(owner, [new])
        new.replace(path)
    except OSError as error:
        what = f"{path} can't be written."
        raise Card(what, f"The error was: {error}.", f"df -h {path.parent}") from error


@dataclass(frozen=True)
class HubState:
    """What the hub reads at its start.

    Attributes:
        description: The settings, the users and the container of a seat, as JSON.
        pem: The texts of the certificate and its key; empty for HTTP.
    """

    description: str
    pem: dict[str, str]

    @property
    def digest(self) -> str:
        """Return a hash of all that the hub reads, its code included."""
        digest = hashlib.sha256(self.description.encode())
        for file in sorted((ROOT / "hub").rglob("*.*")):
            if file.suffix in (".py", ".html"):
                digest.update(file.read_bytes())
        for text in self.pem.values():
            digest.update(text.encode())
        return digest.hexdigest()[:12]


def describe(
    folder: Path, hub: HubSettings, seat: ContainerSpec, gpus: HubGpus | None = None
) -> HubState:
    """Return what the hub needs to know; without GPUs, seats run on the CPU.

    Raises:
        Card: If the list of users can't be read, or certificate and key can't be used.
    """
    users = read_users(folder / hub.users, hub.teacher) if hub.users else {}
    data: dict[str, Any] = {
        "settings": asdict(hub),
        "users": users,
        "seat": asdict(seat),
        "gpus": asdict(gpus) if gpus else None,
        "host_folder": str(folder),
        "ident": identity(),
    }
    pem: dict[str, str] = {}
    if hub.certificate:
        files = {"certificate": folder / hub.certificate, "key": folder / hub.key}
        pem = {name: _read_pem(file) for name, file in files.items()}
        refuse_no_pair(**files)
    return HubState(json.dumps(data, indent=2), pem)


def write_state(folder: Path, state: HubState, owner: Owner) -> None:
    """Write what the hub needs to know into state/.

    Raises:
        Card: If the disk refuses.
    """
    files = {DESCRIPTION: state.description}
    files |= {f"{name}.pem": text for name, text in state.pem.items()}
    if not (folder / STATE / "token").exists():
        files["token"] = secrets.token_hex(32)
    for name, text in files.items():
        write_private(folder / STATE / name, text, owner)


def _read_pem(path: Path) -> str:
    """Return a certificate or a key.

    Raises:
        Card: If it can't be read, or isn't text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = f"The hub needs a PEM file that you can read. The error was: {error}."
        raise Card(f"{path} can't be read.", why, f"ls -l {path}", WRONG_USAGE) from error


def remove_state(folder: Path) -> None:
    """Remove what the hub itself wrote; the learners' folders and archives stay."""
    for name in (STATE, CLASS):
        shutil.rmtree(folder / name, ignore_errors=True)
