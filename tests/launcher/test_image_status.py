"""What an image is known by, when it is stale, and what is said of it."""

import copy
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from launcher import building, images, shelf
from launcher.cards import Card
from launcher.engine import Engine

import pytest

SERVICES = {
    "cpu": {"build": {"args": {"STACK": "cpu", "BASE_IMAGE": "base:1", "TORCH_INDEX": "a"}}},
    "cuda": {"build": {"args": {"STACK": "cuda", "BASE_IMAGE": "base:1"}}},
    "rocm": {
        "build": {
            "args": {"STACK": "rocm", "BASE_IMAGE": "base:1", "GFX": "gfx942", "TORCH": "rocm"}
        }
    },
}


def service(stack: str, **args: str) -> Any:
    one = copy.deepcopy(SERVICES[stack])
    one["build"]["args"].update(args)
    return one


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder docker/ of one's own."""
    for name in (*images.FILES, *images.locks("cuda")):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(images, "DOCKER", tmp_path)
    return tmp_path


def test_an_image_of_the_same_inputs_is_current() -> None:
    for stack in SERVICES:
        assert images.stale(images.inputs(service(stack)), service(stack)) == ""


def test_every_file_counts_and_is_told_under_its_kind(files: Path) -> None:
    for name in (*images.FILES, *images.locks("cuda")):
        before = images.inputs(service("cuda"))
        (files / name).write_text("changed")
        why = images.stale(before, service("cuda"))
        kind = "the lock" if name.endswith(".lock") else "docker/'s files"
        assert why == f"{kind} changed since it was built"


def test_the_lock_of_another_stack_does_not_count(files: Path) -> None:
    before = images.inputs(service("cpu"))
    (files / "requirements-cuda.lock").write_text("changed")
    assert images.inputs(service("cpu")) == before


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"BASE_IMAGE": "base:2"}, "the base image changed since it was built"),
        ({"GFX": "all"}, "the choice of torch changed since it was built"),
        ({"TORCH": "base"}, "the choice of torch changed since it was built"),
        ({"TORCH_INDEX": "a mirror"}, ""),
    ],
)
def test_what_a_build_is_asked_for_counts(changed: dict[str, str], why: str) -> None:
    assert images.stale(images.inputs(service("rocm")), service("rocm", **changed)) == why


@pytest.mark.parametrize("label", ["", "0228d27edf263c8d"])
def test_an_image_that_says_nothing_of_itself_is_stale(label: str) -> None:
    assert "isn't known" in images.stale(label, service("cpu"))


@pytest.mark.parametrize("gfx", ["gfx942", "gfx90a", "gfx1151", "all"])
def test_a_target_reaches_compose(monkeypatch: pytest.MonkeyPatch, gfx: str) -> None:
    monkeypatch.setenv("LABS_GFX", "")
    images.aim_at(gfx, "rocm")
    assert os.environ["LABS_GFX"] == gfx


@pytest.mark.parametrize(
    ("gfx", "stack"), [("mi300x", "rocm"), ("gfx942,gfx90a", "auto"), ("gfx942", "cuda")]
)
def test_what_is_no_target_is_refused(gfx: str, stack: str) -> None:
    with pytest.raises(Card) as refused:
        images.aim_at(gfx, stack)
    assert refused.value.code == 2


def test_rocm_is_not_built_without_a_target() -> None:
    with pytest.raises(Card, match="Which gfx target"):
        building.build(SimpleNamespace(root_dir=""), "rocm", service("rocm", GFX=""), "")  # type: ignore


def test_each_stack_has_a_size_and_every_target_at_once_its_own() -> None:
    assert images.size("rocm", service("rocm")) != images.size("rocm", service("rocm", GFX="all"))
    assert {images.size(stack, service(stack)).download for stack in SERVICES} == {
        images.SIZES[stack].download for stack in SERVICES
    }


def test_the_build_passes_on_what_it_is_of() -> None:
    variables, command = building.command(Engine(None, False, ""), "rocm", service("rocm"))  # type: ignore
    assert variables["LABS_GFX"] == "gfx942"
    assert variables["LABS_INPUTS"] == images.inputs(service("rocm"))
    assert command[-2:] == ["build", "rocm"]


def test_what_is_here_is_listed_with_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "resolve", lambda *_: service("rocm"))
    labels = {"llm-labs.stack": "rocm", "llm-labs.gfx": "gfx942"}
    labels["llm-labs.inputs"] = images.inputs(service("rocm"))
    made = {"Size": 5_000_000_000, "Created": "2026-11-20T10:11:12.123456789Z"}
    image = SimpleNamespace(tags=["llm-labs:rocm-gfx942"], labels=labels, attrs=made)
    client = SimpleNamespace(images=SimpleNamespace(list=lambda **_: [image]))
    rows = shelf.here(SimpleNamespace(client=client))  # type: ignore
    assert [(row.name, row.gfx, row.state.split(";")[0]) for row in rows] == [
        ("llm-labs:rocm-gfx942", "gfx942", "current"),
        ("llm-labs:cpu", "", "not here"),
        ("llm-labs:cuda", "", "not here"),
    ]
    assert f"lock={rows[0].lock}" in labels["llm-labs.inputs"]


class Typed(io.StringIO):
    """A terminal's input."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stack", "typed"), [("cuda", "n\n"), ("rocm", "maybe\nn\n")])
def test_gigabytes_that_are_declined_are_not_downloaded(
    monkeypatch: pytest.MonkeyPatch, stack: str, typed: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Typed(typed))
    with pytest.raises(Card, match="Nothing was downloaded"):
        building._ask_about_gigabytes(images.SIZES[stack])


def test_nobody_is_asked_about_megabytes_or_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", Typed("n\n"))
    building._ask_about_gigabytes(images.SIZES["cpu"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    building._ask_about_gigabytes(images.SIZES["cuda"])


def test_a_yes_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for typed in ("y\n", "\n"):
        monkeypatch.setattr(sys, "stdin", Typed(typed))
        building._ask_about_gigabytes(images.SIZES["cuda"])
