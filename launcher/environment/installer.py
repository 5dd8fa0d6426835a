"""The steps that put packages into an environment: by uv, or by pip where only pip can."""

import ensurepip
import importlib.util
import os
import re
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from launcher import DOCKER_FOLDER, settings
from launcher.environment import torch_source
from launcher.environment.pip_settings import INDEX, NO_INDEX, UvSettings, uv_settings
from launcher.image.build import Step
from launcher.image.status import LOCK

_PIP_OPTIONS = ("--disable-pip-version-check", "--no-compile", "--only-binary=:all:")
# Every index counts and the newest release wins, as with pip.
_UV_OPTIONS = (
    *("--no-config", "--only-binary=:all:"),
    "--index-strategy=unsafe-best-match",
)


@dataclass(frozen=True)
class Installer:
    """How packages get into a virtual environment.

    uv installs what pip would: it gets pip's configuration, and checks the same hashes.

    Attributes:
        venv: The folder of the virtual environment.
        cache: The folder for uv's downloads.
        uv: The path of uv; "" for pip.
        settings: pip's configuration, for uv.
    """

    venv: Path
    cache: Path
    uv: str
    settings: UvSettings

    @property
    def why_pip(self) -> str:
        """Return why pip installs the packages, or "" if uv does."""
        if not self.uv:
            return "uv isn't installed beside invoke"
        unknown = ", ".join(self.settings.unknown)
        return f"pip's configuration sets {unknown}, which uv can't follow" if unknown else ""

    @property
    def _python(self) -> str:
        return str(self.venv / "bin" / "python")

    def create(self) -> list[Step]:
        """Return the steps that create the virtual environment, with pip in it.

        Python itself takes 4 s to install its bundled pip, uv a tenth of a second.
        """
        command = [sys.executable, "-m", "venv", "--clear", str(self.venv)]
        wheel = _bundled_pip()
        title = "Virtual environment"
        if self.why_pip or wheel is None:
            return [Step(title, command)]
        pip = self._uv([NO_INDEX, "--no-deps", str(wheel)])
        return [Step(title, [*command, "--without-pip"]), Step("", pip, self._variables)]

    def install_lock(self, name: str = LOCK) -> Step:
        """Return the step that installs a lock, with hashes and without dependencies."""
        lock = DOCKER_FOLDER / name
        words = ["--no-deps", "--require-hashes", "--requirement", str(lock)]
        command = self._pip(words) if self.why_pip else self._uv(words)
        count = len(re.findall(r"^\S+==", lock.read_text(encoding="utf-8"), re.MULTILINE))
        return Step(f"{count} packages, each verified by its hash", command, self._variables)

    def install_torch(self, stack: str, gfx: str) -> Step:
        """Return the step that installs a stack's torch; ROCm's needs pip.

        AMD publishes a part of it as a source archive, which inspects the machine.
        """
        words = torch_source.pip_arguments(stack, gfx)
        title = f"torch {torch_source.torch_version()}"
        if self.why_pip or stack == "rocm":
            return Step(title, self._pip(words))
        if "--require-hashes" not in words:  # uv allows no constraints beside hashes
            words = [*self.settings.constraints, *words]
        variables = dict(self._variables)
        if "--index-url" in words:
            variables.pop(INDEX, None)
        return Step(title, self._uv(words), variables)

    @property
    def _variables(self) -> dict[str, str]:
        return {} if self.why_pip else self.settings.variables

    def _pip(self, words: list[str]) -> list[str]:
        command = [self._python, "-m", "pip", "install", *_PIP_OPTIONS]
        return [*command, *wheels_on_disk(), *words]

    def _uv(self, words: list[str]) -> list[str]:
        command = [self.uv, "pip", "install", "--python", self._python, *_UV_OPTIONS]
        if "UV_CACHE_DIR" in os.environ:  # shared with others: a link would share damage, too
            command.append("--link-mode=copy")
        else:
            command += ["--link-mode=hardlink", "--cache-dir", str(self.cache)]
        given = NO_INDEX in words  # uv refuses the option twice
        site = [word for word in self.settings.options if word != NO_INDEX or not given]
        return [*command, *wheels_on_disk(), *site, *words]


def choose_installer(venv: Path, cache: Path) -> Installer:
    """Return the installer for a virtual environment."""
    uv = _find_uv()
    return Installer(venv, cache, uv, uv_settings() if uv else UvSettings())


def _find_uv() -> str:
    """Return the path of the uv that was installed with invoke; "" without one."""
    if importlib.util.find_spec("uv") is None:
        return ""
    from uv import find_uv_bin

    try:
        return find_uv_bin()
    except FileNotFoundError:
        return ""


def _bundled_pip() -> Path | None:
    """Return the wheel of pip that Python's `ensurepip` installs; Debian moves it elsewhere."""
    folder = (
        sysconfig.get_config_var("WHEEL_PKG_DIR") or Path(ensurepip.__file__).parent / "_bundled"
    )
    return next(iter(sorted(Path(folder).glob("pip-*.whl"))), None)


def wheels_on_disk() -> list[str]:
    """Return pip's and uv's option for the site's folder of wheels, if there is one."""
    wheels = settings.find("LABS_WHEELS")
    return ["--find-links", wheels.value] if wheels else []
