"""A file that a lab's option names is looked for before a container starts."""

import re
from pathlib import Path

from common.cards import Card
from launcher.engine.container_spec import Bind
from launcher.run import data_files
from launcher.run.lab_command import LabCommand
from tests.conftest import Clone

import pytest


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a clone with work/faq.csv, a file beside work/, and an outputs/ elsewhere."""
    for name in ("clone/work/faq.csv", "clone/beside.csv", "runs/LLM08/rows.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("question,answer")
    monkeypatch.setattr(data_files, "ROOT", tmp_path / "clone")
    monkeypatch.chdir(tmp_path / "clone")
    return tmp_path / "clone"


def binds_of(root: Path) -> list[Bind]:
    outputs = Bind(str(root.parent / "runs"), "/lab/outputs")
    return [Bind(str(root / "work"), "/lab/work", read_only=True), outputs]


def refusal(root: Path, name: str, container: bool, *options: str) -> Card | None:
    command = LabCommand(("LLM08",), options, ("--steps", "3", "--dataset", name))
    try:
        data_files.refuse_missing(command, binds_of(root) if container else None)
    except Card as card:
        return card
    return None


@pytest.mark.parametrize(
    ("name", "container"),
    [
        ("work/faq.csv", True),
        ("./work/../work/faq.csv", True),
        ("/lab/work/faq.csv", True),
        ("outputs/LLM08", True),
        ("work/faq.csv", False),
        ("beside.csv", False),
    ],
)
def test_what_the_lab_sees_is_accepted(root: Path, name: str, container: bool) -> None:
    assert refusal(root, name, container) is None


@pytest.mark.parametrize(
    ("name", "container", "fix"),
    [
        ("work/fak.csv", True, "--dataset work/faq.csv"),
        ("faq.csv", True, "--dataset work/faq.csv"),
        ("work/none.csv", True, "put the file there; or correct its name: ls ROOT/work"),
        ("new.csv", True, "put it into work/: --dataset work/new.csv"),
        ("beside.csv", True, "&& cp -r ROOT/beside.csv ROOT/work/beside.csv; then --dataset work/"),
        ("outputs/gone", False, "put it into work/"),
    ],
)
def test_what_it_does_not_see_is_a_card_with_the_way(
    root: Path, name: str, container: bool, fix: str
) -> None:
    card = refusal(root, name, container)
    assert card is not None
    assert card.code == 2
    assert fix.replace("ROOT", str(root)) in card.fix


def test_a_path_from_a_subfolder_is_corrected(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "work")
    (root / "work" / "mine.csv").touch()
    card = refusal(root, "mine.csv", container=True)
    assert card is not None
    assert card.fix == "--dataset work/mine.csv"


@pytest.mark.parametrize(("name", "refused"), [("owner/rows", False), ("./rows", True)])
def test_with_online_a_name_may_be_on_the_hub(root: Path, name: str, refused: bool) -> None:
    assert (refusal(root, name, True, "--online") is not None) is refused


def test_the_lab_command_is_refused_before_the_environment_is_made(clone: Clone) -> None:
    words = ("LLM08", "--runtime", "venv", "--", "--dataset=work/gone.csv")
    ended = clone.invoke("lab", *words)
    assert ended.code == 2, ended
    assert "what: There is no work/gone.csv." in ended.err
    assert not (clone.path / ".lab-env").exists()


@pytest.mark.engine
def test_the_lab_command_is_refused_before_a_container_is_made(clone: Clone) -> None:
    (clone.path / "faq.csv").touch()
    words = ("LLM08", "--runtime", "docker", "--", "--dataset", "faq.csv")
    ended = clone.invoke("lab", *words)
    assert ended.code == 2, ended
    assert "what: The lab doesn't see faq.csv." in ended.err
    assert re.search(
        r"fix: mkdir -p \S+/work && cp -r \S+/faq.csv \S+/faq.csv; then --dataset work/faq.csv",
        ended.err,
    )
