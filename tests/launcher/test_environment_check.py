"""A damaged environment: found at the start, and repaired by a build that reinstalls only that."""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from common.cards import Card
from launcher import DOCKER_FOLDER
from launcher.environment import repair as repair_environment
from launcher.environment.check import find_damage, refuse_damage
from tests.conftest import Clone

import pytest

TEXT = b"def add(a, b):\n    return a + b\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a small environment with one package."""
    site = tmp_path / "venv" / "site"
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    (site / "adder").mkdir(parents=True)
    (site / "adder" / "__init__.py").write_bytes(TEXT)
    record = site / "adder-1.0.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("adder/__init__.py,…\n")
    home = tmp_path / "home"
    home.mkdir()
    (home / "stack.json").write_text('{"stack": "cpu"}')
    files = {"adder/__init__.py": [len(TEXT), hashlib.sha256(TEXT).hexdigest()]}
    own = hashlib.sha256(record.read_bytes()).hexdigest()
    packages = {"adder-1.0": {"record": own, "files": files}}
    (home / "files.json").write_text(json.dumps({"site": str(site), "packages": packages}))
    return tmp_path


def cut_in_half(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def change_a_letter(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"+", b"-"))


def test_an_intact_environment_has_no_damage(folder: Path) -> None:
    assert find_damage(folder, by_hash=True) == []
    refuse_damage(folder)


@pytest.mark.parametrize(
    ("name", "damage", "why"),
    [
        ("venv/site/adder/__init__.py", Path.unlink, "is missing"),
        ("venv/site/adder/__init__.py", cut_in_half, "has 16 bytes, not 32"),
        ("venv/bin/python", Path.unlink, "is missing or can't be run"),
        ("venv/pyvenv.cfg", Path.unlink, "is missing"),
        ("home/stack.json", cut_in_half, "isn't JSON"),
        ("home/files.json", cut_in_half, "isn't the record"),
        ("home/files.json", Path.unlink, "isn't the record"),
    ],
)
def test_damage_is_a_card_that_names_the_file_and_the_fix(
    folder: Path, name: str, damage: Callable[[Path], None], why: str
) -> None:
    damage(folder / name)
    with pytest.raises(Card) as caught:
        refuse_damage(folder)
    assert caught.value.what == "The environment is damaged."
    assert str(folder / name) in caught.value.why and why in caught.value.why
    assert caught.value.fix == "invoke build --runtime venv"
    assert caught.value.code == 3


def test_a_changed_letter_is_found_by_its_hash(folder: Path) -> None:
    path = folder / "venv" / "site" / "adder" / "__init__.py"
    change_a_letter(path)
    assert find_damage(folder, by_hash=False) == []
    (damage,) = find_damage(folder, by_hash=True)
    assert (damage.package, damage.path) == ("adder-1.0", path)
    assert "has another SHA-256" in damage.reason


def test_a_package_that_somebody_has_replaced_is_left_alone(folder: Path) -> None:
    site = folder / "venv" / "site"
    cut_in_half(site / "adder" / "__init__.py")
    (site / "adder-1.0.dist-info").rename(site / "adder-2.0.dist-info")
    assert find_damage(folder, by_hash=True) == []
    (site / "adder-2.0.dist-info" / "RECORD").unlink()
    (site / "adder-2.0.dist-info").rmdir()
    assert len(find_damage(folder, by_hash=True)) == 1, "its record is gone, too"


def test_every_package_of_the_locks_can_be_reinstalled_with_its_hashes() -> None:
    for name in ("requirements.lock", "requirements-cuda.lock"):
        text = (DOCKER_FOLDER / name).read_text()
        found = repair_environment._requirements(DOCKER_FOLDER / name)
        assert "".join(found.values()).count("--hash=") == text.count("--hash=")
        assert all("--hash=" in lines for lines in found.values())


def test_a_damaged_environment_is_refused_and_repaired(
    shared_clone: Clone, lab_environment: Path
) -> None:
    """Four kinds of damage at once: a link, a record, a file cut, and a letter changed."""
    lab = shared_clone.bare_lab("import mdurl\nprint('ran')", "LLM94")
    (site,) = lab_environment.glob("venv/lib/python3*/site-packages")
    changed = site / "mdurl" / "_parse.py"
    before = changed.read_bytes()
    intact = site / "yaml" / "__init__.py"
    inode = intact.stat().st_ino
    change_a_letter(changed)
    cut_in_half(site / "markdown_it" / "main.py")
    (lab_environment / "venv" / "bin" / "python").unlink()
    cut_in_half(lab_environment / "home" / "stack.json")

    refused = shared_clone.invoke("lab", lab, "--runtime", "venv")
    assert refused.code == 3, refused
    assert "what: The environment is damaged." in refused.err
    assert f"{lab_environment}/venv/bin/python is missing or can't be run" in refused.err
    assert "fix: invoke build --runtime venv" in refused.err
    assert "Traceback" not in refused.out + refused.err

    repaired = shared_clone.invoke("build", "--runtime", "venv")
    assert repaired.code == 0, repaired
    assert "Installing again: markdown" in repaired.err, repaired
    assert "created again" not in repaired.err
    assert changed.read_bytes() == before
    assert intact.stat().st_ino == inode, "an intact package stays as it is"
    assert find_damage(lab_environment, by_hash=True) == []
    assert os.access(lab_environment / "venv" / "bin" / "python", os.X_OK)
    assert shared_clone.invoke("lab", lab, "--runtime", "venv").out.endswith("ran\n")
