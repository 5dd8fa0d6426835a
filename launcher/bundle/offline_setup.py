"""The script `setup` of a bundle: check it, make a clone, install invoke, and hand over to it.

usage: python3 setup [FOLDER]

FOLDER is the new clone, or one of the same version; by default it is llm-labs in the home folder.
The script needs Python's standard library only, and can be run again at any time.
"""

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, NoReturn

BUNDLE = Path(__file__).resolve().parent
MANIFEST = "manifest.json"
CLONE = "clone.tar.gz"
FORMAT = 1
WRONG_USAGE = 2
WRONG_ENVIRONMENT = 3
INTERRUPTED = 130
CHUNK_BYTES = 1 << 20
SHOWN = 10  # files in a message
BYTES_FREE = 1 << 29  # for the clone, invoke and the first runs


def fail(what: str, why: str, fix: str, code: int = WRONG_ENVIRONMENT) -> NoReturn:
    """Print what happened, why, and what fixes it; end."""
    for label, text in (("what", what), ("why", why), ("fix", fix)):
        print(f"{label}: {text}", file=sys.stderr)
    sys.exit(code)


def say(line: str) -> None:
    """Print a line about the progress."""
    print(line, file=sys.stderr, flush=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def read_manifest() -> dict[str, Any]:
    """Return the manifest, if it is complete and undamaged."""
    if (BUNDLE / "INCOMPLETE").exists():
        fail(
            "The bundle is incomplete.",
            "`invoke bundle` was interrupted while it wrote this folder.",
            "run `invoke bundle` again with the same folder",
        )
    copy_again = f"copy these files into {BUNDLE} again"
    try:
        expected = (BUNDLE / "manifest.sha256").read_text(encoding="utf-8").split()[:1]
        damaged = expected != [sha256(BUNDLE / MANIFEST)]
    except (OSError, ValueError) as error:
        fail(f"{MANIFEST} or manifest.sha256 can't be read.", str(error), copy_again)
    if damaged:
        why = "Its SHA-256 isn't the one in manifest.sha256: one of the two is cut or damaged."
        fail(f"{MANIFEST} is damaged.", why, copy_again)
    manifest = json.loads((BUNDLE / MANIFEST).read_text(encoding="utf-8"))
    if manifest["format"] != FORMAT:
        why = f"Its format is {manifest['format']}, and this setup reads {FORMAT}."
        fail("The files of two bundles are mixed.", why, copy_again)
    return manifest


def check_machine(manifest: dict[str, Any]) -> None:
    """Check that this Python can make the clone's environment."""
    version = ".".join(platform.python_version_tuple()[:2])
    known = manifest["pythons"]
    if version not in known:
        fail(
            f"Python {version} can't be used.",
            f"The packages in this bundle are for Python {' and '.join(known)}.",
            f"python{known[-1]} {BUNDLE / 'setup'}, once it is installed",
        )
    if platform.machine() != manifest["machine"]:
        why = f"This machine is {platform.machine()}, and the bundle is for {manifest['machine']}."
        fail("This machine can't run the labs.", why, "use another machine")
    if importlib.util.find_spec("ensurepip") is None:
        why = "Debian and Ubuntu have the venv module in a separate package."
        fail("Python's venv module is missing.", why, f"sudo apt-get install python{version}-venv")


def check_files(files: dict[str, dict[str, Any]]) -> None:
    """Check the size and SHA-256 of each file, and name all that can't be used."""
    total = sum(file["bytes"] for file in files.values())
    say(f"Checking {len(files)} files, {total / 1e9:.2f} GB")
    problems = [problem for name in files if (problem := problem_of(name, files[name]))]
    # Hidden files are an operating system's; pip might prefer any other to the bundle's.
    wheels = sorted(path.relative_to(BUNDLE).as_posix() for path in BUNDLE.glob("wheels/*/[!.]*"))
    problems += [f"{name} is of another bundle" for name in wheels if name not in files]
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        fail(
            f"{len(problems)} of the bundle's files can't be used.",
            "; ".join([*problems[:SHOWN], *more]),
            f"copy them into {BUNDLE} again, and delete those of another bundle; if that doesn't "
            "help, the disk or stick is faulty",
        )


def problem_of(name: str, expected: dict[str, Any]) -> str:
    """Return what is wrong with a file; "" if nothing is."""
    path = BUNDLE / name
    if not path.is_file():
        return f"{name} is missing"
    size = path.stat().st_size
    if size != expected["bytes"]:
        return f"{name} is cut: it has {size} of {expected['bytes']} bytes"
    try:
        damaged = sha256(path) != expected["sha256"]
    except OSError as error:
        return f"{name} can't be read: {error.strerror}"
    return f"{name} is damaged: its SHA-256 is another" if damaged else ""


def make_clone(clone: Path, manifest: dict[str, Any]) -> None:
    """Unpack the clone, or check that the one in this folder is the same."""
    ours = f"version {manifest['version']}, commit {manifest['commit'][:8]}"
    with tarfile.open(BUNDLE / CLONE) as archive:
        members = [member for member in archive if member.isfile()]
        if not clone.is_dir() or not any(clone.iterdir()):
            say(f"Creating the clone {clone}: {ours}")
            unpack(archive, clone)
            return
        changed = [member.name for member in members if differs(archive, member, clone)]
    if not changed:
        say(f"The clone {clone} is there: {ours}")
        return
    theirs = version_of(clone)
    if not theirs:
        why = "It has files, and none of them is pyproject.toml of llm-labs."
        fail(f"{clone} isn't a clone.", why, "python3 setup NEW-FOLDER", WRONG_USAGE)
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    fail(
        f"The clone {clone} differs from the bundle.",
        f"It is version {theirs}, the bundle is {ours}. {len(changed)} of {len(members)} files "
        f"differ: {', '.join(changed[:SHOWN])}{more}.",
        f"python3 {BUNDLE / 'setup'} NEW-FOLDER; then move work/ and outputs/ there",
    )


def unpack(archive: tarfile.TarFile, clone: Path) -> None:
    """Unpack the clone beside its place and move it there, so that it is never half a clone."""
    unfinished = clone.with_name(f"{clone.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    archive.extractall(unfinished, **options)
    unfinished.rename(clone)


def differs(archive: tarfile.TarFile, member: tarfile.TarInfo, clone: Path) -> bool:
    """Return whether a file of the archive is missing in the clone, or another there."""
    file = archive.extractfile(member)
    try:
        return file is None or file.read() != (clone / member.name).read_bytes()
    except OSError:
        return True


def version_of(clone: Path) -> str:
    """Return the version of the clone in a folder; "" if it isn't one."""
    try:
        lines = (clone / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    versions = [line.partition('"')[2].rstrip('"') for line in lines if line[:10] == "version = "]
    return versions[0] if versions and 'name = "llm-labs"' in lines else ""


def install_invoke(clone: Path) -> Path:
    """Install invoke and the launcher from the wheels; return the path of their Python."""
    environment = clone / ".venv"
    python = environment / "bin" / "python"
    test = [str(python), "-c", "import docker, invoke, rich, uv, yaml; docker.from_env"]
    if python.exists() and subprocess.run(test, stderr=subprocess.DEVNULL).returncode == 0:
        return python
    say("Installing invoke")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wheels = f"--find-links={BUNDLE / 'wheels' / 'invoke'}"
    run([sys.executable, "-m", "venv", "--clear", str(environment)], "The environment of invoke")
    run([*pip, "--no-index", wheels, "--editable", str(clone)], "invoke")
    return python


def run(command: list[str], what: str) -> None:
    """Run a command, and fail with its output."""
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if ended.returncode:
        text = ended.stdout.decode(errors="replace").strip()
        fail(f"{what} can't be installed.", text, "correct what the last line names; then again")


def write_settings(clone: Path, values: dict[str, str]) -> None:
    """Write the settings that the images were built with, if there is no file of settings."""
    file = clone / ".env"
    lines = [f"{name}={value}\n" for name, value in values.items()]
    if lines and not file.exists():
        file.write_text("# Written by the setup of a bundle.\n" + "".join(lines), encoding="utf-8")


def check_disk_space(clone: Path) -> None:
    """Check the space for the clone and its invoke."""
    folder = next(path for path in (clone, *clone.parents) if path.is_dir())
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if free < BYTES_FREE:
        why = f"{free / 1e9:.1f} GB are free, and {BYTES_FREE / 1e9:.1f} GB are needed."
        fail(f"The disk of {folder} is nearly full.", why, "python3 setup FOLDER on another disk")


def main() -> int:
    """Set up a clone; return the exit code of its first lab."""
    if len(sys.argv) > 2 or sys.argv[1:2] in (["--help"], ["-h"]):
        print(__doc__)
        return 0 if len(sys.argv) == 2 else WRONG_USAGE
    clone = Path(sys.argv[1] if len(sys.argv) == 2 else "~/llm-labs").expanduser().resolve()
    manifest = read_manifest()
    check_machine(manifest)
    check_disk_space(clone)
    check_files(manifest["files"])
    try:
        make_clone(clone, manifest)
        write_settings(clone, manifest["settings"])
    except OSError as error:
        why = f"{error.strerror}: {error.filename}"
        fail(f"{clone} can't be written.", why, "python3 setup FOLDER, with a folder of yours")
    python = install_invoke(clone)
    command = [str(python), "-m", "launcher.bundle.load", str(BUNDLE)]
    return subprocess.run(command, cwd=clone, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("interrupted; run setup again")
        sys.exit(INTERRUPTED)
