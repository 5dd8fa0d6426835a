"""The input hashes of an image, the reasons to build it, and the list of images."""

import copy
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common.cards import Card
from launcher.engine.client import Engine
from launcher.image import build as build_image
from launcher.image import show as list_images
from launcher.image import status as image_status

import pytest

SERVICES = {
    "cpu": {"build": {"args": {"STACK": "cpu", "BASE_IMAGE": "base:1", "CPU_INDEX": "a"}}},
    "cuda": {"build": {"args": {"STACK": "cuda", "BASE_IMAGE": "base:1"}}},
    "rocm": {
        "build": {
            "args": {"STACK": "rocm", "BASE_IMAGE": "base:1", "GFX": "gfx942", "TORCH": "rocm"}
        }
    },
}


JUPYTERLAB = (*image_status.NOTEBOOK_FILES, image_status.NOTEBOOK_LOCK)


def service(stack: str, **args: str) -> Any:
    one = copy.deepcopy(SERVICES[stack])
    one["build"]["args"].update(args)
    return one


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a temporary docker/ folder."""
    names = (*image_status.BUILD_FILES, *image_status.lock_names("cuda"), *JUPYTERLAB)
    for name in names:
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(image_status, "DOCKER_FOLDER", tmp_path)
    return tmp_path


def test_an_image_with_the_same_inputs_is_current() -> None:
    for stack in SERVICES:
        assert (
            image_status.why_stale(image_status.input_hashes(service(stack)), service(stack)) == ""
        )


def test_a_change_of_any_build_file_makes_the_image_stale(files: Path) -> None:
    for name in (*image_status.BUILD_FILES, *image_status.lock_names("cuda")):
        before = image_status.input_hashes(service("cuda"))
        (files / name).write_text("changed")
        why = image_status.why_stale(before, service("cuda"))
        kind = "the lock" if name.endswith(".lock") else "the files in docker/"
        assert why == f"{kind} changed since it was built"


def test_the_lock_of_another_stack_has_no_effect(files: Path) -> None:
    before = image_status.input_hashes(service("cpu"))
    (files / "requirements-cuda.lock").write_text("changed")
    assert image_status.input_hashes(service("cpu")) == before


@pytest.mark.parametrize("name", JUPYTERLAB)
def test_jupyterlab_affects_only_the_image_of_notebooks(files: Path, name: str) -> None:
    notebook = service("cpu")
    notebook["build"]["target"] = "notebook"
    labs_before = image_status.input_hashes(service("cpu"))
    before = image_status.input_hashes(notebook)
    (files / name).write_text("changed")
    assert image_status.input_hashes(service("cpu")) == labs_before
    assert "changed since it was built" in image_status.why_stale(before, notebook)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"BASE_IMAGE": "base:2"}, "the base image changed since it was built"),
        ({"GFX": "all"}, "the choice of torch changed since it was built"),
        ({"TORCH": "base"}, "the choice of torch changed since it was built"),
        ({"ROCM_INDEX": "a mirror"}, ""),
    ],
)
def test_a_change_of_a_build_argument_makes_the_image_stale(
    changed: dict[str, str], why: str
) -> None:
    assert (
        image_status.why_stale(
            image_status.input_hashes(service("rocm")), service("rocm", **changed)
        )
        == why
    )


@pytest.mark.parametrize("label", ["", "0228d27edf263c8d"])
def test_an_image_without_input_hashes_is_stale(label: str) -> None:
    assert "are unknown" in image_status.why_stale(label, service("cpu"))


@pytest.mark.parametrize("gfx", ["gfx942", "gfx90a", "gfx1151", "all"])
def test_the_gfx_target_reaches_compose(monkeypatch: pytest.MonkeyPatch, gfx: str) -> None:
    monkeypatch.setenv("LABS_GFX", "")
    image_status.set_gfx_target(gfx, "rocm")
    assert os.environ["LABS_GFX"] == gfx


@pytest.mark.parametrize(
    ("gfx", "stack"), [("mi300x", "rocm"), ("gfx942,gfx90a", "auto"), ("gfx942", "cuda")]
)
def test_an_invalid_gfx_target_is_refused(gfx: str, stack: str) -> None:
    with pytest.raises(Card) as refused:
        image_status.set_gfx_target(gfx, stack)
    assert refused.value.code == 2


def test_a_rocm_build_needs_a_gfx_target() -> None:
    with pytest.raises(Card, match="Which gfx target"):
        build_image.build(SimpleNamespace(root_dir=""), "rocm", service("rocm", GFX=""), "")  # type: ignore


def test_all_gfx_targets_at_once_have_a_separate_size() -> None:
    assert build_image.sizes_of("rocm", "gfx942") != build_image.sizes_of("rocm", "all")
    assert {build_image.sizes_of(stack).download for stack in SERVICES} == {
        build_image.SIZES[stack].download for stack in SERVICES
    }


def test_the_build_command_passes_the_input_hashes() -> None:
    variables, command = build_image.build_command(Engine(None, False, ""), "rocm", service("rocm"))  # type: ignore
    assert variables["LABS_GFX"] == "gfx942"
    assert variables["LABS_INPUTS"] == image_status.input_hashes(service("rocm"))
    assert command[-2:] == ["build", "rocm"]


def test_images_are_listed_with_the_stacks_that_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_images, "resolve", lambda *_: service("rocm"))
    labels = {"llm-labs.stack": "rocm", "llm-labs.gfx": "gfx942"}
    labels["llm-labs.inputs"] = image_status.input_hashes(service("rocm"))
    made = {"Size": 5_000_000_000, "Created": "2026-11-20T10:11:12.123456789Z"}
    image = SimpleNamespace(tags=["llm-labs:rocm-gfx942"], labels=labels, attrs=made)
    client = SimpleNamespace(images=SimpleNamespace(list=lambda **_: [image]))
    rows = list_images.find_images(SimpleNamespace(client=client))  # type: ignore
    assert [(row.name, row.gfx, row.state.split(";")[0]) for row in rows] == [
        ("llm-labs:rocm-gfx942", "gfx942", "current"),
        ("llm-labs:cpu", "", "not built"),
        ("llm-labs:cuda", "", "not built"),
    ]
    assert f"lock={rows[0].lock}" in labels["llm-labs.inputs"]


class Typed(io.StringIO):
    """Input from a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stack", "typed"), [("cuda", "n\n"), ("rocm", "maybe\nn\n")])
def test_a_declined_download_of_gigabytes_is_a_card(
    monkeypatch: pytest.MonkeyPatch, stack: str, typed: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Typed(typed))
    with pytest.raises(Card, match="Nothing was downloaded"):
        build_image._confirm_download(build_image.SIZES[stack])


def test_megabytes_or_a_missing_terminal_ask_no_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", Typed("n\n"))
    build_image._confirm_download(build_image.SIZES["cpu"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    build_image._confirm_download(build_image.SIZES["cuda"])


def test_yes_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    for typed in ("y\n", "\n"):
        monkeypatch.setattr(sys, "stdin", Typed(typed))
        build_image._confirm_download(build_image.SIZES["cuda"])
