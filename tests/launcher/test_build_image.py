"""Builds of a missing or stale image: announced before, explained if they fail."""

import shlex
import shutil
import uuid
from collections import namedtuple
from collections.abc import Iterator

from common.cards import Card
from launcher.engine.client import Engine
from launcher.image import build as build_image
from launcher.image.status import clone_name
from tests.conftest import Clone, _fresh_clone

import pytest

TINY = """ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG INPUTS
LABEL llm-labs.inputs=$INPUTS llm-labs.stack=cpu
ENV N={n}
"""
Disk = namedtuple("Disk", "total used free")


@pytest.fixture
def own_image(clone: Clone, engine) -> Iterator[str]:
    """Give the clone's image a unique name, so that a build replaces no other image."""
    name = f"llm-labs:test-{uuid.uuid4().hex[:12]}"
    clone.change("compose.yaml", "image: llm-labs:cpu", f"image: {name}")
    (clone.path / "docker" / "Dockerfile").write_text(TINY.replace("{n}", "1"))
    yield name
    if engine.images.list(name):
        engine.images.remove(name, force=True)


@pytest.mark.engine
def test_an_image_is_built_once_and_again_after_its_files_change(
    clone: Clone, engine, own_image: str
) -> None:
    words = ("lab", clone.bare_lab("pass"), "--runtime", "docker")
    first = clone.invoke(*words)
    assert f"Building {own_image}, because it doesn't exist yet." in first.err, first
    assert "MB" in first.err.split("Building")[1].split("#")[0], (
        "the size is printed before the build"
    )
    before = engine.images.get(own_image).id

    again = clone.invoke(*words)
    assert "Building" not in again.err, again

    (clone.path / "docker" / "Dockerfile").write_text(TINY.replace("{n}", "2"))
    changed = clone.invoke(*words)
    assert "the files in docker/ changed since it was built" in changed.err, changed
    after = engine.images.get(own_image).id
    assert after != before
    assert before not in {one.id for one in engine.images.list(all=True)}, "the old image remains"


@pytest.mark.engine
def test_an_administrators_name_keeps_an_old_image(clone: Clone, engine, own_image: str) -> None:
    assert clone.invoke("build", "--runtime", "docker").code == 0
    old = engine.images.get(own_image)
    kept = f"{own_image}-approved"
    old.tag("llm-labs", kept.partition(":")[2])
    (clone.path / "docker" / "Dockerfile").write_text(TINY.replace("{n}", "2"))
    assert clone.invoke("build", "--runtime", "docker").code == 0
    try:
        assert engine.images.get(kept).id == old.id
        assert engine.images.get(own_image).id != old.id
    finally:
        engine.images.remove(kept)


@pytest.mark.engine
def test_two_clones_with_other_inputs_do_not_rebuild_each_others_images(
    clone: Clone, snapshot, engine, own_image: str
) -> None:
    other = _fresh_clone(snapshot)
    try:
        other.change("compose.yaml", "image: llm-labs:cpu", f"image: {own_image}")
        (other.path / "docker" / "Dockerfile").write_text(TINY.replace("{n}", "2"))
        for one in (clone, other):
            assert one.invoke("build", "--runtime", "docker").code == 0
        assert engine.images.get(own_image).attrs["Config"]["Env"][-1] == "N=2"
        for one, number in ((clone, 1), (other, 2)):
            dry = one.invoke("--dry", "lab", one.bare_lab("pass"), "--runtime", "docker")
            assert " build " not in dry.out, dry
            name = next(word for word in shlex.split(dry.out) if word.startswith(own_image))
            assert engine.images.get(name).attrs["Config"]["Env"][-1] == f"N={number}"
        rows = other.invoke("images").out
        assert f"{clone_name(own_image, clone.path)}\t" in rows
        assert "another clone's; if that is gone: docker image rm" in rows
    finally:
        other.close()


@pytest.mark.engine
@pytest.mark.usefixtures("own_image")
def test_another_base_image_makes_the_image_stale(clone: Clone) -> None:
    assert clone.invoke("build", "--runtime", "docker").code == 0
    base = f"llm-labs-base:{uuid.uuid4().hex[:12]}"
    dry = clone.invoke("--dry", "lab", clone.bare_lab("pass"), LABS_BASE_IMAGE=base)
    assert " build cpu" in dry.out, dry


@pytest.mark.engine
@pytest.mark.usefixtures("own_image")
def test_an_unreachable_base_image_is_a_card(clone: Clone) -> None:
    lab = clone.bare_lab("print('ran')")
    words = ("lab", lab, "--runtime", "docker")
    ended = clone.invoke(*words, LABS_BASE_IMAGE="registry.invalid/none:1")
    assert ended.code == 3, ended
    assert "what: A download for the build failed." in ended.err
    assert "Without the internet" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.engine
@pytest.mark.usefixtures("own_image")
def test_a_failed_step_shows_its_output_and_ends_in_a_card(clone: Clone) -> None:
    (clone.path / "docker" / "Dockerfile").write_text(
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo the dog ate it >&2; exit 7\n"
    )
    ended = clone.invoke("build", "--runtime", "docker")
    assert ended.code == 3, ended
    assert "the dog ate it" in ended.err
    assert "what: The cpu image couldn't be built." in ended.err


@pytest.mark.engine
@pytest.mark.usefixtures("own_image")
def test_a_missing_folder_of_wheels_is_a_card(clone: Clone) -> None:
    ended = clone.invoke("build", "--runtime", "docker", LABS_WHEELS="/nonexistent/wheels")
    assert ended.code == 3, ended
    assert "what: " in ended.err
    assert "/nonexistent/wheels" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.engine
def test_an_invalid_compose_file_is_a_card(clone: Clone) -> None:
    (clone.path / "compose.yaml").write_text("services: [")
    ended = clone.invoke("build", "--runtime", "docker")
    assert ended.code == 3, ended
    assert "what: compose.yaml can't be read." in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.engine
def test_a_declined_download_on_a_terminal_builds_nothing(clone: Clone) -> None:
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
        build_image._check_disk_space(engine, 4)
    assert "disk space" in caught.value.what
    assert "1.0 GB free" in caught.value.why
    assert "docker system df" in caught.value.fix


def test_the_disk_of_a_remote_engine_is_not_checked(monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(0, 0, 0))
    build_image._check_disk_space(Engine(None, rootless=False, root_dir="/nonexistent/docker"), 4)
