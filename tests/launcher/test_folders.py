"""Folders for a lab's files that can't be used: the card says what is in the way."""

import errno
import json
import os
import subprocess
from pathlib import Path

from common.cards import Card
from launcher.run import file_owner, folder_problems
from launcher.run.file_owner import Owner
from tests.conftest import SOMEBODY, Clone, as_user
from tests.launcher.gpu_host import Host

import pytest

ME = Owner(os.geteuid(), os.getegid())


def refused(folder: Path) -> Card:
    with pytest.raises(Card) as caught:
        file_owner.make_writable_folder(folder, ME)
    assert caught.value.code == 3
    return caught.value


def fixed(card: Card, folder: Path) -> bool:
    """Run the first command of the fix, and return whether the folder can be made then."""
    subprocess.run(card.fix.split("; ")[0], shell=True, check=True)
    file_owner.make_writable_folder(folder, ME)
    return folder.is_dir()


@pytest.mark.parametrize("below", [".", "progress"])
def test_a_file_in_place_of_a_folder_is_a_card_with_the_command_that_moves_it(
    tmp_path: Path, below: str
) -> None:
    file = tmp_path / "it's a folder"
    file.write_text("mine")
    card = refused(file / below)
    assert card.what == f"{file} is a file."
    assert fixed(card, file / below)
    assert (tmp_path / "it's a folder.old").read_text() == "mine"


@pytest.mark.parametrize("target", ["gone/away", "/nonexistent-llm-labs/outputs"])
def test_a_link_that_leads_nowhere_is_a_card(tmp_path: Path, target: str) -> None:
    link = tmp_path / "outputs"
    link.symlink_to(target)
    card = refused(link)
    assert card.what == f"{link} is a link to {tmp_path / target}, which doesn't exist."
    assert card.fix.endswith(f"rm {link}")
    if not target.startswith("/"):
        assert fixed(card, link)


def test_a_link_to_a_file_or_to_itself_is_a_card(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in ("file", "outputs"):
        link = tmp_path / "outputs"
        link.symlink_to(target)
        assert "which is no folder" in refused(link).what
        link.unlink()


def test_a_link_to_a_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "outputs").symlink_to("elsewhere")
    file_owner.make_writable_folder(tmp_path / "outputs" / "a", ME)
    assert (tmp_path / "elsewhere" / "a").is_dir()


@pytest.mark.engine
def test_a_launch_names_a_dangling_link_and_builds_nothing(clone: Clone) -> None:
    clone.outputs.symlink_to("/nonexistent-llm-labs")
    (clone.path / "docker" / "Dockerfile").write_text("FROM scratch\nRUN it would fail\n")
    ended = clone.invoke("lab", clone.bare_lab("print('ran')"), "--runtime", "docker")
    assert ended.code == 3, ended
    assert f"what: {clone.outputs} is a link to /nonexistent-llm-labs" in ended.err
    assert "Building" not in ended.err
    assert "Traceback" not in ended.err


def test_a_file_in_place_of_work_is_a_card_for_learn(clone: Clone) -> None:
    (clone.path / "work").write_text("")
    ended = clone.invoke("learn", "LLM06")
    assert ended.code == 3, ended
    assert f"what: {clone.path / 'work'} is a file." in ended.err


# Folders of other users


@pytest.fixture
def of_somebody(monkeypatch: pytest.MonkeyPatch, root: None) -> None:
    """Act as an ordinary user. Root's other rights are gone only in a child process."""
    del root
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)


def clone_of(uid: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    os.chown(tmp_path, uid, uid)
    monkeypatch.setattr(folder_problems, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.usefixtures("of_somebody")
def test_a_folder_in_ones_own_clone_may_be_taken_over(tmp_path: Path, monkeypatch) -> None:
    outputs = clone_of(SOMEBODY, tmp_path, monkeypatch) / "outputs"
    outputs.mkdir()  # root's
    card = folder_problems.cannot_write(outputs)
    assert card.why == f"{outputs} belongs to root (uid 0)."
    assert f"sudo chown -R $(id -u):$(id -g) {outputs}" in card.fix


@pytest.mark.usefixtures("of_somebody")
@pytest.mark.parametrize("folder", ["outputs", "", ".."])
def test_no_card_takes_over_somebody_elses_clone(tmp_path: Path, monkeypatch, folder: str) -> None:
    clone = clone_of(SOMEBODY + 1, tmp_path, monkeypatch)
    (clone / "outputs").mkdir()
    card = folder_problems.cannot_write((clone / folder).resolve())
    assert "chown" not in card.fix


@pytest.mark.usefixtures("of_somebody")
def test_no_card_takes_over_a_folder_outside_the_clone(tmp_path: Path, monkeypatch) -> None:
    clone = clone_of(SOMEBODY, tmp_path, monkeypatch)
    (clone / "outputs").symlink_to("/")
    monkeypatch.setenv("LABS_OUTPUTS", "/srv")
    for folder in (Path("/"), clone / "outputs", Path("/srv")):
        card = folder_problems.cannot_write(folder)
        assert "chown" not in card.fix, card.fix
    assert "set LABS_OUTPUTS, in the shell," in folder_problems.cannot_write(Path("/srv")).fix
    denied = OSError(errno.EACCES, "Permission denied")
    assert "chown" not in folder_problems.cannot_create(Path("/outputs"), denied).fix


def test_a_full_disk_has_the_card_of_a_run_whose_disk_fills_up(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    card = folder_problems.cannot_create(tmp_path / "outputs", full)
    assert card.what == f"The run's files can't be written to {tmp_path / 'outputs'}."
    assert card.why == "The disk is full."


@pytest.mark.usefixtures("root")
def test_a_user_of_a_shared_clone_is_told_to_make_one(clone: Clone) -> None:
    lab = clone.bare_lab("print('ran')")
    clone.outputs.mkdir()
    user = as_user(SOMEBODY)
    ended = clone.invoke("lab", lab, "--runtime", "venv", user=user, HOME="/tmp")
    assert ended.code == 3, ended
    assert "chown" not in ended.err
    assert "Traceback" not in ended.err


# An engine that remaps users


@pytest.mark.engine
@pytest.mark.usefixtures("root")
def test_an_engine_that_remaps_users_is_explained(clone: Clone) -> None:
    lab = clone.bare_lab("print('ran')")
    clone.make_folders()
    host = Host.new()
    try:
        file = host.folder / "daemon.json"
        remapped = {**json.loads(file.read_text()), "userns-remap": "default"}
        file.write_text(json.dumps(remapped))
        host.start()
        words = ("lab", lab, "--runtime", "docker")
        ended = clone.invoke(*words, **host.here(clone))
    finally:
        host.close()
    assert ended.code == 3, ended
    assert f"what: A container can't write to {clone.outputs}." in ended.err
    assert "userns-remap" in ended.err
    assert "Building" not in ended.err
