"""The script `setup` of a bundle, run as a user runs it, on a small bundle made by hand."""

import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.bundle import folder as bundle_folder
from tests.conftest import REPO

import pytest

# A clone that pip can install without a network: its build backend is in it. The wheel stands
# in for the packages that setup looks for, too.
BACKEND = """
import zipfile

def build_editable(folder, settings=None, metadata=None):
    name = "llm_labs-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        information = "llm_labs-1.0.dist-info/"
        text = "Metadata-Version: 2.1\\nName: llm-labs\\nVersion: 1.0\\n"
        wheel.writestr(information + "METADATA", text)
        text = "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr(information + "WHEEL", text)
        wheel.writestr(information + "RECORD", "")
        for package in ("docker", "invoke", "rich", "uv", "yaml"):
            wheel.writestr(f"{package}.py", "from_env = None")
    return name
"""
FILES = {
    "pyproject.toml": """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "llm-labs"
version = "1.0"
""",
    "backend.py": BACKEND,
    "launcher/__init__.py": "",
    "launcher/bundle/load.py": "import sys\nprint('loading', sys.argv[1])\nsys.exit(7)\n",
}


def write_clone(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


def write_bundle(folder: Path, **changes: Any) -> Path:
    """Write a bundle with a small clone, and changes of its manifest."""
    bundle_folder.begin(folder, "abcdef0123456789", ())
    (folder / "wheels" / "invoke").mkdir(parents=True)
    (folder / "wheels" / "invoke" / "some.whl").write_bytes(b"some")
    shutil.copy(REPO / "launcher" / "bundle" / "offline_setup.py", folder / "setup")
    write_clone(folder / "clone.tar.gz")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    known = {"version": "1.0", "commit": "abcdef0123456789", "machine": platform.machine()}
    contents = {**known, "pythons": [version], "settings": {"LABS_GFX": "all"}, **changes}
    bundle_folder.finish(folder, contents)
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def setup(bundle: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(bundle / "setup"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_setup_makes_a_clone_with_invoke_and_hands_over(bundle: Path, tmp_path: Path) -> None:
    clone = tmp_path / "a new clone"
    ended = setup(bundle, clone)
    assert ended.returncode == 7, ended.stderr
    assert ended.stdout == f"loading {bundle}\n"
    assert "Installing invoke" in ended.stderr
    assert {name: (clone / name).read_text() for name in FILES} == FILES
    assert (clone / ".env").read_text().endswith("LABS_GFX=all\n")
    # It can be run again, and keeps what a site has set since.
    (clone / ".env").write_text("LABS_CPUS=2\n")
    (clone / "work").mkdir()
    again = setup(bundle, clone)
    assert again.returncode == 7, again.stderr
    assert (clone / ".env").read_text() == "LABS_CPUS=2\n"
    assert "Creating" not in again.stderr and "Installing" not in again.stderr


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    text = bytearray(path.read_bytes())
    text[-1] ^= 1
    path.write_bytes(text)


DAMAGE: list[tuple[str, Callable[[Path], None], str]] = [
    ("clone.tar.gz", cut, "clone.tar.gz is cut"),
    ("wheels/invoke/some.whl", flip, "wheels/invoke/some.whl is damaged"),
    ("wheels/invoke/some.whl", Path.unlink, "wheels/invoke/some.whl is missing"),
    ("manifest.json", cut, "manifest.json is damaged"),
    ("manifest.sha256", Path.unlink, "manifest.json or manifest.sha256 can't be read"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE)
def test_a_damaged_file_is_named_and_nothing_is_changed(
    bundle: Path, tmp_path: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    damage(bundle / name)
    ended = setup(bundle, tmp_path / "clone")
    assert ended.returncode == 3, ended
    assert message in ended.stderr and "fix: copy" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "clone").exists()


def test_all_damaged_files_are_named_at_once(bundle: Path, tmp_path: Path) -> None:
    cut(bundle / "clone.tar.gz")
    (bundle / "wheels" / "invoke" / "some.whl").unlink()
    ended = setup(bundle, tmp_path / "clone")
    assert "2 of the bundle's files" in ended.stderr
    assert "clone.tar.gz" in ended.stderr and "some.whl" in ended.stderr


def test_a_wheel_of_another_bundle_is_named_before_pip_takes_it(
    bundle: Path, tmp_path: Path
) -> None:
    (bundle / "wheels" / "invoke" / "._some.whl").write_bytes(b"macOS")
    (bundle / "wheels" / "invoke" / "newer.whl").write_bytes(b"newer")
    ended = setup(bundle, tmp_path / "clone")
    assert ended.returncode == 3, ended
    assert "why: wheels/invoke/newer.whl is of another bundle\n" in ended.stderr
    assert "delete those of another bundle" in ended.stderr
    assert not (tmp_path / "clone").exists()


def test_an_incomplete_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / "INCOMPLETE").write_text("")
    ended = setup(bundle, tmp_path / "clone")
    assert ended.returncode == 3
    assert "The bundle is incomplete." in ended.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pythons": ["3.2"]}, "can't be used"),
        ({"machine": "pdp11"}, "This machine can't run the labs"),
        ({"format": 99}, "mixed"),
    ],
)
def test_a_bundle_for_another_machine_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    ended = setup(write_bundle(tmp_path / "bundle", **changes), tmp_path / "clone")
    assert ended.returncode == 3, ended
    assert message in ended.stderr
    assert not (tmp_path / "clone").exists()


def unpacked(bundle: Path, clone: Path) -> Path:
    with tarfile.open(bundle / "clone.tar.gz") as archive:
        archive.extractall(clone)
    return clone


def test_a_clone_of_another_version_is_refused_with_the_difference(
    bundle: Path, tmp_path: Path
) -> None:
    clone = unpacked(bundle, tmp_path / "clone")
    text = FILES["pyproject.toml"].replace('"1.0"', '"0.9"')
    (clone / "pyproject.toml").write_text(text)
    (clone / "backend.py").unlink()
    ended = setup(bundle, clone)
    assert ended.returncode == 3, ended
    assert "version 0.9, the bundle is version 1.0, commit abcdef01" in ended.stderr
    assert "2 of 4 files differ: pyproject.toml, backend.py." in ended.stderr
    assert (clone / "pyproject.toml").read_text() == text
    assert not (clone / ".venv").exists()


def test_a_folder_that_is_no_clone_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("")
    ended = setup(bundle, tmp_path / "photos")
    assert ended.returncode == 2, ended
    assert "isn't a clone" in ended.stderr


def test_a_folder_that_cannot_be_written_is_named(bundle: Path) -> None:
    ended = setup(bundle, "/proc/clone")
    assert ended.returncode == 3, ended
    assert "/proc/clone can't be written" in ended.stderr or "nearly full" in ended.stderr


def test_the_script_needs_the_standard_library_only() -> None:
    text = (REPO / "launcher" / "bundle" / "offline_setup.py").read_text(encoding="utf-8")
    imported = {line.split()[1].partition(".")[0] for line in text.splitlines()
                if line.startswith(("import ", "from "))}  # fmt: skip
    assert imported <= set(sys.stdlib_module_names)
    assert json.__name__ in imported
