"""The image: built where it is missing or stale, said first, explained where it can't be."""

import shutil
import uuid
from collections import namedtuple
from collections.abc import Iterator

from launcher import building
from launcher.cards import Card
from launcher.engine import Engine
from tests.conftest import Clone

import pytest

TINY = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nARG INPUTS\nLABEL llm-labs.inputs=$INPUTS\nENV N={n}\n"
Disk = namedtuple("Disk", "total used free")


@pytest.fixture
def own_image(clone: Clone, engine) -> Iterator[str]:
    """A name that the clone's image has for itself, so that nobody else's is replaced."""
    name = f"llm-labs:test-{uuid.uuid4().hex[:12]}"
    clone.change("compose.yaml", "image: llm-labs:cpu", f"image: {name}")
    (clone.path / "docker" / "Dockerfile").write_text(TINY.replace("{n}", "1"))
    yield name
    if engine.images.list(name):
        engine.images.remove(name, force=True)


@pytest.mark.engine
def test_an_image_is_built_once_and_anew_when_its_files_change(
    clone: Clone, engine, own_image: str
) -> None:
    words = ("lab", clone.bare_lab("pass"), "--runtime", "docker")
    first = clone.invoke(*words)
    assert f"Building {own_image}, because it isn't here." in first.err, first
    assert "MB" in first.err.split("Building")[1].split("#")[0], "how big is said before"
    before = engine.images.get(own_image).id

    again = clone.invoke(*words)
    assert "Building" not in again.err, again

    (clone.path / "docker" / "Dockerfile").write_text(TINY.replace("{n}", "2"))
    changed = clone.invoke(*words)
    assert "docker/'s files changed since it was built" in changed.err, changed
    after = engine.images.get(own_image).id
    assert after != before
    assert before not in {one.id for one in engine.images.list(all=True)}, "the old one is left"


@pytest.mark.engine
@pytest.mark.usefixtures("own_image")
def test_another_base_image_makes_the_image_stale(clone: Clone) -> None:
    assert clone.invoke("build", "--runtime", "docker").code == 0
    base = f"llm-labs-base:{uuid.uuid4().hex[:12]}"
    dry = clone.invoke("--dry", "lab", clone.bare_lab("pass"), LABS_BASE_IMAGE=base)
    assert " build cpu" in dry.out, dry


@pytest.mark.engine
@pytest.mark.usefixtures("own_image")
def test_a_base_image_that_can_not_be_reached_is_a_card(clone: Clone) -> None:
    lab = clone.bare_lab("print('ran')")
    words = ("lab", lab, "--runtime", "docker")
    ended = clone.invoke(*words, LABS_BASE_IMAGE="registry.invalid/none:1")
    assert ended.code == 3, ended
    assert "what: Something to build from can't be downloaded." in ended.err
    assert "Without the internet" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.engine
@pytest.mark.usefixtures("own_image")
def test_a_step_that_fails_shows_its_words_and_ends_in_a_card(clone: Clone) -> None:
    (clone.path / "docker" / "Dockerfile").write_text(
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo the dog ate it >&2; exit 7\n"
    )
    ended = clone.invoke("build", "--runtime", "docker")
    assert ended.code == 3, ended
    assert "the dog ate it" in ended.err
    assert "what: The cpu image couldn't be built." in ended.err


@pytest.mark.engine
@pytest.mark.usefixtures("own_image")
def test_a_folder_of_wheels_that_is_not_there_is_a_card(clone: Clone) -> None:
    ended = clone.invoke("build", "--runtime", "docker", LABS_WHEELS="/nonexistent/wheels")
    assert ended.code == 3, ended
    assert "what: " in ended.err
    assert "/nonexistent/wheels" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.engine
def test_a_compose_file_that_can_not_be_read_is_a_card(clone: Clone) -> None:
    (clone.path / "compose.yaml").write_text("services: [")
    ended = clone.invoke("build", "--runtime", "docker")
    assert ended.code == 3, ended
    assert "what: compose.yaml can't be read." in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.engine
def test_gigabytes_that_are_declined_on_a_terminal_are_not_downloaded(clone: Clone) -> None:
    (clone.path / "docker" / "Dockerfile").write_text("FROM scratch\nRUN it would fail\n")
    words = ("build", "--runtime", "docker", "--stack", "cuda")
    running = clone.start_invoke(*words, terminal=(24, 100))
    running.wait_for("Download about 2.9 GB?")
    running.type(b"n\n")
    assert running.ended().code == 3, running.text
    assert "Nothing was downloaded." in running.text
    assert "RUN it would fail" not in running.text


def test_a_full_disk_is_told_before_anything_is_built(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(10**11, 10**11 - 10**9, 10**9))
    engine = Engine(None, rootless=False, root_dir=str(tmp_path))
    with pytest.raises(Card) as caught:
        building._refuse_a_full_disk(engine, 4)
    assert "disk space" in caught.value.what
    assert "1.0 GB free" in caught.value.why
    assert "docker system df" in caught.value.mend


def test_an_engine_elsewhere_is_not_asked_for_its_disk(monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(0, 0, 0))
    building._refuse_a_full_disk(Engine(None, rootless=False, root_dir="/nonexistent/docker"), 4)
