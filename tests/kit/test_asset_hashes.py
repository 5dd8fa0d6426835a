"""Damaged models, texts and records: each is found before a lab uses it."""

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from common.cards import Card
from labs.kit import assets
from labs.kit.home import rebuild_command
from labs.kit.run.environment import stack
from tests.conftest import Clone

import pytest

OPENS_GLASS = '''
@lab.experiment
def opens(run: Run):
    """A model is opened."""
    import json
    (assets.glass() / "config.json").read_text()
'''


def cut_in_half(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def write_other_numbers(path: Path) -> None:
    """Replace 1 MB in the middle; size and time stay as they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(1_000_000))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def copied_home(tmp_path: Path, labs_home: Path) -> Path:
    """Return a folder of models with a copy of the smaller one."""
    folder = tmp_path / "home" / "assets"
    shutil.copytree(labs_home / "assets" / "glass", folder / "glass")
    for name in ("assets/assets.json", "stack.json"):
        shutil.copy(labs_home / name, tmp_path / "home" / name)
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", cut_in_half),
        ("model.safetensors", write_other_numbers),
        ("tokenizer.json", cut_in_half),
        ("config.json", Path.unlink),
    ],
)
def test_a_damaged_model_is_a_card(
    copied_home: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: Callable[[Path], None]
) -> None:
    monkeypatch.setenv("LABS_HOME", str(copied_home))
    damage(copied_home / "assets" / "glass" / name)
    with pytest.raises(Card, match="The embedded model glass is damaged") as caught:
        assets.glass()
    assert caught.value.code == 3
    assert name in caught.value.why
    assert caught.value.fix == "rm -r .lab-env && invoke build --runtime venv"


def test_a_lab_on_a_damaged_model_ends_before_any_result(clone: Clone, copied_home: Path) -> None:
    write_other_numbers(copied_home / "assets" / "glass" / "model.safetensors")
    ended = clone.labs(clone.kit_lab(OPENS_GLASS), LABS_HOME=str(copied_home))
    assert ended.code == 3, ended
    assert "what: The embedded model glass is damaged." in ended.err
    assert "Traceback" not in ended.out + ended.err
    assert not list(clone.outputs.glob("*/*/results.json"))


def test_a_model_that_is_damaged_while_a_process_runs_is_found_when_it_is_opened_again(
    copied_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABS_HOME", str(copied_home))
    assert assets.glass() == assets.glass()
    cut_in_half(copied_home / "assets" / "glass" / "model.safetensors")
    with pytest.raises(Card, match="glass is damaged"):
        assets.glass()


def test_the_hashes_of_the_models_are_in_the_results(clone: Clone, labs_home: Path) -> None:
    ended = clone.labs(clone.kit_lab(OPENS_GLASS), LABS_HOME=str(labs_home))
    assert ended.code == 0, ended
    (results,) = clone.outputs.glob("LLM90/*/results.json")
    recorded = json.loads(results.read_text())["environment"]["models_sha256"]
    for name in ("smollm2", "glass"):
        weights = labs_home / "assets" / name / "model.safetensors"
        with weights.open("rb") as file:
            assert recorded[name] == hashlib.file_digest(file, "sha256").hexdigest()


def test_a_damaged_record_of_the_models_is_a_card(
    copied_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABS_HOME", str(copied_home))
    cut_in_half(copied_home / "assets" / "assets.json")
    with pytest.raises(Card, match="The record of the models is damaged"):
        assets.glass()


def test_a_damaged_record_of_the_stack_is_a_card(
    copied_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABS_HOME", str(copied_home))
    cut_in_half(copied_home / "stack.json")
    with pytest.raises(Card, match="The record of the image or the environment is damaged"):
        stack()


def test_the_card_of_an_image_names_the_command_for_images(
    copied_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABS_HOME", str(copied_home))
    record = copied_home / "stack.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "base": "debian"}))
    assert rebuild_command().startswith("invoke build; if that changes nothing")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an installed package with two texts."""
    texts = tmp_path / "poems" / "texts"
    texts.mkdir(parents=True)
    record = tmp_path / "poems-1.dist-info" / "RECORD"
    record.parent.mkdir()
    rows = ["poems/__init__.py,,", "poems-1.dist-info/RECORD,,"]
    for name in ("one.md", "two.md"):
        (texts / name).write_text(f"a poem called {name}")
        digest = hashlib.sha256((texts / name).read_bytes()).digest()
        encoded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        rows.append(f"poems/texts/{name},sha256={encoded},20")
    (tmp_path / "poems" / "__init__.py").touch()
    record.write_text("\n".join(rows) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    return texts


def test_the_texts_of_a_package_are_compared_with_what_was_installed(installed: Path) -> None:
    assert assets.file_of("poems", "texts") == installed
    assert assets.file_of("poems", "texts/one.md") == installed / "one.md"


@pytest.mark.parametrize("damage", [cut_in_half, Path.unlink])
def test_a_damaged_text_of_a_package_is_a_card(
    installed: Path, damage: Callable[[Path], None]
) -> None:
    damage(installed / "two.md")
    with pytest.raises(Card, match="is damaged") as caught:
        assets.file_of("poems", "texts")
    assert str(installed / "two.md") in caught.value.why
