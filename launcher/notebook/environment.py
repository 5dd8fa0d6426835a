"""JupyterLab for use without an engine: a virtual environment on top of that of the labs.

It contains the packages of requirements-notebook.lock, and finds all others in the environment of
the labs, which it leaves as it is.
"""

import fcntl
import hashlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from common.cards import Card, print_status
from launcher import DOCKER_FOLDER
from launcher.environment.installer import choose_installer
from launcher.environment.make import CACHE, Environment
from launcher.image.build import Step, run_build
from launcher.image.status import NOTEBOOK_FILES, NOTEBOOK_LOCK
from launcher.run.file_owner import Owner, give_to

DOWNLOAD = "40 MB"
# Writes a .pth file that adds the packages of the labs, with their own .pth files.
_ADD_PACKAGES = (
    "import pathlib, sys, sysconfig;"
    "pathlib.Path(sysconfig.get_path('purelib'), 'llm-labs.pth').write_text("
    "f'import site; site.addsitedir({sys.argv[1]!r})\\n')"
)


@dataclass(frozen=True)
class NotebookEnvironment:
    """The environment of JupyterLab on top of that of the labs. It may not exist yet."""

    folder: Path
    labs: Environment

    @property
    def python(self) -> Path:
        """Return the path of its Python."""
        return self.folder / "bin" / "python"

    @property
    def marker(self) -> Path:
        """Return the path of the file that the last step writes."""
        return self.folder / "complete"

    @property
    def is_complete(self) -> bool:
        """Return whether every step has succeeded."""
        return self.marker.is_file()


def required(labs: Environment) -> NotebookEnvironment:
    """Return the environment that this clone needs; it is in the folder of the labs' own."""
    digest = hashlib.sha256()
    for name in (NOTEBOOK_LOCK, *NOTEBOOK_FILES):
        digest.update((DOCKER_FOLDER / name).read_bytes())
    return NotebookEnvironment(labs.folder / f"notebook-{digest.hexdigest()[:12]}", labs)


def install(notebook: NotebookEnvironment, owner: Owner) -> None:
    """Create the environment if necessary. The labs' own must be ready.

    Raises:
        Card: If it can't be created.
    """
    if not notebook.is_complete:
        try:
            with (notebook.labs.folder / "notebook.lock").open("a") as lock_file:
                fcntl.flock(lock_file, fcntl.LOCK_EX)
                if not notebook.is_complete:
                    _create(notebook, owner)
        except OSError as error:
            raise Card(
                f"JupyterLab can't be installed into {notebook.labs.folder}.",
                f"{error.strerror}: {error.filename}",
                f"give yourself access: ls -ld {notebook.labs.folder}",
            ) from error


def _create(notebook: NotebookEnvironment, owner: Owner) -> None:
    for older in notebook.labs.folder.glob("notebook-*/"):
        shutil.rmtree(older, ignore_errors=True)
    print_status(f"Installing JupyterLab into {notebook.folder}: {DOWNLOAD} to download.")
    try:
        run_build("JupyterLab couldn't be installed.", build_steps(notebook))
        give_to(owner, (notebook.folder, *notebook.folder.rglob("*"), CACHE, *CACHE.rglob("*")))
    except BaseException:
        shutil.rmtree(notebook.folder, ignore_errors=True)
        raise


def build_steps(notebook: NotebookEnvironment) -> list[Step]:
    """Return the steps that create an environment; the last one marks it as complete."""
    installer = choose_installer(notebook.folder, CACHE)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = notebook.labs.folder / "venv" / "lib" / version / "site-packages"
    config, overrides = (str(DOCKER_FOLDER / name) for name in NOTEBOOK_FILES)
    etc = notebook.folder / "etc" / "jupyter"
    share = notebook.folder / "share" / "jupyter" / "lab" / "settings"
    finish = [
        [str(notebook.python), "-c", _ADD_PACKAGES, str(packages)],
        ["install", "-D", "--mode=644", config, str(etc / NOTEBOOK_FILES[0])],
        ["install", "-D", "--mode=644", overrides, str(share / "overrides.json")],
        ["touch", str(notebook.marker)],
    ]
    return [
        *installer.create(),
        installer.install_lock(NOTEBOOK_LOCK),
        *[Step("", command) for command in finish],
    ]
