"""`invoke bundle`: what is refused, what is written, and images that travel in parts."""

import io
import json
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common.cards import Card
from launcher.bundle import folder as bundle_folder
from launcher.bundle import images as bundle_images
from launcher.bundle import licences as bundle_licences
from launcher.bundle import load as load_bundle
from launcher.bundle import make as bundle
from launcher.bundle import wheels as bundle_wheels
from launcher.bundle.images import BundledImage
from launcher.engine import client as engine
from launcher.environment import torch_source
from launcher.image import status as image_status
from launcher.run import lab as run_lab
from launcher.run.file_owner import Owner
from launcher.run.placement import Placement

import pytest

CPU = Placement("cpu", (), Owner(0, 0), "")
TINY = "llm-labs-tiny:cpu"


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a clone with one commit, in place of this one."""
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "lesson.py").write_text("1\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=first")
    monkeypatch.setattr(bundle, "ROOT", folder)
    return folder


def test_uncommitted_changes_are_named(repository: Path) -> None:
    (repository / "lesson.py").write_text("2\n")
    with pytest.raises(Card, match="aren't committed") as caught:
        bundle.make("anywhere", "cpu", "docker")
    assert "lesson.py" in caught.value.why
    assert "git commit" in caught.value.fix


def test_files_that_git_does_not_track_are_named_and_left_out(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "new.py").write_text("")
    (repository / "compose.override.yaml").write_text("")
    assert len(bundle._commit()) == 40
    told = capsys.readouterr().err
    assert "new.py" in told and "compose.override.yaml" in told


def test_a_folder_without_git_cannot_be_bundled(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(bundle, "ROOT", tmp_path)
    with pytest.raises(Card, match="can't be bundled"):
        bundle._commit()


@pytest.mark.parametrize("text", ["gpu", "cpu,gpu", "", "auto,cpu"])
def test_an_unknown_stack_is_refused(text: str) -> None:
    with pytest.raises(Card, match="--stack can't be") as caught:
        bundle._stacks(text)
    assert caught.value.code == 2


def test_several_stacks_are_taken_once_each() -> None:
    assert bundle._stacks("cpu, cuda,cpu") == ("cpu", "cuda")


@pytest.mark.parametrize("name", ["file", "folder"])
def test_a_folder_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "holiday.jpg").write_text("")
    with pytest.raises(Card) as caught:
        bundle_folder.begin(tmp_path / name, "abc", ())
    assert caught.value.code == 2
    assert (tmp_path / "file").exists() and (tmp_path / "folder" / "holiday.jpg").exists()


FOREIGN = [
    ({"manifest.json": '{"name": "my web app"}', "index.html": ""}, "index.html, manifest.json"),
    ({"manifest.json": '{"manifest_version": 3}'}, "manifest.json"),
    ({"manifest.json": "7"}, "manifest.json"),
    ({"manifest.json": '{"format": 1}', "slides.pdf": "", "setup": ""}, "slides.pdf"),
    ({"INCOMPLETE": "abc", "images.tar.gz.old": ""}, "images.tar.gz.old"),
]


@pytest.mark.parametrize(("files", "named"), FOREIGN)
def test_nothing_is_deleted_where_a_file_is_not_a_bundles(
    tmp_path: Path, files: dict[str, str], named: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(Card, match="has other files") as caught:
        bundle_folder.begin(tmp_path, "abc", ())
    assert caught.value.why.endswith(f"part of one: {named}.")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def begun(folder: Path, commit: str = "abc") -> None:
    bundle_folder.begin(folder, commit, ("invoke", "labs"))


def test_an_interrupted_bundle_keeps_the_downloads_of_its_commit_only(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "bundle"
    begun(folder)
    for name in ("wheels/labs/a.whl", "wheels/cuda/b.whl", "images.tar.gz.001"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    begun(folder)
    left = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert sorted(left) == ["INCOMPLETE", "wheels/labs/a.whl"]
    begun(folder, "another")
    assert [path.name for path in folder.iterdir()] == ["INCOMPLETE"]


def test_the_manifest_has_the_sum_of_each_file_and_ends_the_mark(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "a.whl").write_bytes(b"abc")
    assert bundle_folder.finish(tmp_path, {"commit": "abc"}) == 3
    manifest = bundle_folder.read_manifest(tmp_path)
    sum_of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert manifest["files"] == {"wheels/a.whl": {"bytes": 3, "sha256": sum_of_abc}}
    checked = ["sha256sum", "--check", "--strict", "manifest.sha256"]
    assert subprocess.run(checked, cwd=tmp_path, capture_output=True).returncode == 0
    for name in ("setup", "README.txt", "THIRD-PARTY.md", "clone.tar.gz", "images.tar.gz.001"):
        (tmp_path / name).write_text("")
    begun(tmp_path)  # an earlier bundle may be written over
    assert sorted(path.name for path in tmp_path.iterdir()) == ["INCOMPLETE", "wheels"]


def test_a_file_in_parts_is_read_as_it_was_written(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(bundle_folder, "PART_BYTES", 10)
    begun(tmp_path)
    parts = bundle_folder.PartsWriter(tmp_path / "images")
    for piece in (b"0123456", b"789abcdefghijklmnopqrstuvw", b"", b"xyz"):
        assert parts.write(piece) == len(piece)
    parts.close()
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("images.*"))]
    assert sizes == [10, 10, 10, 6]
    bundle_folder.finish(tmp_path, {})
    (tmp_path / "images.005").write_bytes(b"the last part of an older, larger bundle")
    assert b"".join(bundle_folder.read_parts(tmp_path, "images")) == (
        b"0123456789abcdefghijklmnopqrstuvwxyz"
    )


def test_a_full_disk_is_a_card() -> None:
    error = OSError(28, "No space left on device", "/stick/images.tar.gz.001")
    card = bundle_folder.cannot_write(Path("/stick"), error)
    assert card.what == "The disk is full." and "/stick/images.tar.gz.001" in card.why


def test_too_small_a_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    plan = bundle.Plan(tmp_path, "abc", None, [CPU])
    with pytest.raises(Card, match="isn't enough disk space for the bundle"):
        bundle._check_disk_space(plan, [BundledImage("a:cpu", "a:cpu", 10**18, "")])


def test_layers_that_images_of_a_stack_share_need_their_space_once(monkeypatch: Any) -> None:
    needed: list[float] = []
    monkeypatch.setattr(bundle, "refuse_full_disk", lambda _, size, *__: needed.append(size))
    monkeypatch.setattr(bundle_images, "COMPRESSED", 1)
    sizes = {"a:cpu": 3, "a:cpu-notebook": 5, "a:cpu-hub": 4, "a:cuda": 10, "a:cuda-notebook": 11}
    images = [BundledImage(name, name, size * 10**9, "") for name, size in sizes.items()]
    here = engine.Engine(None, rootless=False, root_dir="")  # type: ignore[arg-type]
    bundle._check_disk_space(bundle.Plan(Path("/stick"), "abc", here, [CPU]), images)
    assert needed == [pytest.approx(0.2 + 5 + 11)]


@pytest.mark.usefixtures("repository")
def test_root_completes_a_bundle_on_a_file_system_without_owners(
    tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, *_: int) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "lchown", refuse)
    monkeypatch.setattr(bundle, "_check_disk_space", lambda *_: None)
    monkeypatch.setattr(bundle, "_fill", lambda *_: {"commit": "abc"})
    bundle.make(str(tmp_path / "stick"), "cpu", "venv")
    assert "stick is complete: " in capsys.readouterr().err


# Wheels


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the commands of the downloads, which aren't run."""
    commands: list[list[str]] = []

    def record(_failure: str, steps: Any) -> None:
        commands.extend(step.command for step in steps)

    monkeypatch.setattr(bundle_wheels, "run_build", record)
    return commands


def test_invoke_is_downloaded_for_every_python_of_the_labs(steps: list[list[str]]) -> None:
    bundle_wheels.download_host(Path("/bundle"), bundle_wheels.PYTHONS)
    assert [word for step in steps for word in step if word.startswith("--python-version")] == [
        "--python-version=3.11", "--python-version=3.12", "--python-version=3.13"
    ]  # fmt: skip
    for step in steps:
        assert "--dest=/bundle/wheels/invoke" in step and "--only-binary=:all:" in step
        assert any(word.startswith("setuptools") for word in step), "pip builds the clone with it"


def test_an_environments_packages_are_downloaded_by_the_hashes_of_the_locks(
    steps: list[list[str]], monkeypatch: Any
) -> None:
    monkeypatch.setattr(torch_source, "pip_arguments", lambda *_: ["torch==1", "--no-deps"])
    bundle_wheels.download_environment(Path("/bundle"), [CPU])
    *locks, torch = steps
    assert [Path(step[-1]).name for step in locks] == [
        "requirements.lock", "requirements-notebook.lock"
    ]  # fmt: skip
    assert all("--require-hashes" in step for step in locks)
    assert torch[-2:] == ["torch==1", "--no-deps"] and "--dest=/bundle/wheels/cpu" in torch


def test_torch_with_cuda_is_not_taken_for_the_cpus(
    steps: list[list[str]], monkeypatch: Any
) -> None:
    monkeypatch.setattr(torch_source, "pip_arguments", lambda *_: ["torch==1"])
    with pytest.raises(Card, match="torch for the CPU can't be downloaded"):
        bundle_wheels.download_environment(Path("/bundle"), [CPU])
    assert steps == []


def test_the_list_of_wheels_has_versions_and_licences(tmp_path: Path) -> None:
    for python in ("cp311", "cp312"):
        with zipfile.ZipFile(tmp_path / f"pie-1.0-{python}-none-any.whl", "w") as wheel:
            text = "Metadata-Version: 2.1\nName: pie\nVersion: 1.0\nLicense: MIT License\n"
            wheel.writestr("pie-1.0.dist-info/METADATA", text)
    rows = bundle_licences._list_wheels(tmp_path).splitlines()
    assert rows[2:] == ["| pie | 1.0 | MIT |"]


# The other machine


def test_an_environment_is_built_from_the_bundle_alone(monkeypatch: Any) -> None:
    seen: list[tuple[str, ...]] = []

    def build(stack: str, runtime: str, jupyterlab: bool) -> None:
        names = ("LABS_WHEELS", "PIP_FIND_LINKS", "PIP_NO_INDEX")
        assert jupyterlab
        seen.append((stack, runtime, *map(load_bundle.os.environ.get, names)))

    monkeypatch.setattr(run_lab, "build", build)
    for name in ("LABS_WHEELS", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.setenv(name, "before")
    load_bundle._install(Path("/bundle"), ["cpu"])
    assert seen == [("cpu", "venv", "/bundle/wheels/cpu", "/bundle/wheels/labs", "1")]


def test_the_lab_runs_on_a_stack_that_the_bundle_has() -> None:
    assert load_bundle._stack_to_try("venv", ["cpu", "cuda"]) in ("cpu", "cuda")
    assert load_bundle._stack_to_try("venv", ["rocm"]) == "rocm"


class Images:
    """The images of an engine, by name, with their labels."""

    def __init__(self, labels: dict[str, dict[str, str]]) -> None:
        self.images = self
        self.labels_of = labels

    def get(self, name: str) -> Any:
        from docker.errors import ImageNotFound

        if name not in self.labels_of:
            raise ImageNotFound(name)
        return SimpleNamespace(labels=self.labels_of[name])


@pytest.mark.parametrize(
    ("labels", "loads"),
    [
        ({"a:cpu": "lock=1", "a:cpu-notebook": "lock=1"}, False),
        ({"a:cpu": "lock=1"}, True),
        ({"a:cpu": "lock=1", "a:cpu-notebook": "lock=0"}, True),
    ],
)
def test_images_that_are_loaded_need_no_space_again(
    monkeypatch: Any, tmp_path: Path, labels: dict[str, str], loads: bool
) -> None:
    clone = image_status.clone_name
    client = Images({clone(name): {image_status.INPUTS_LABEL: labels[name]} for name in labels})
    here = engine.Engine(client, rootless=False, root_dir=str(tmp_path))  # type: ignore[arg-type]
    monkeypatch.setattr(load_bundle, "choose_runtime", lambda _: SimpleNamespace(engine=here))
    names = ("a:cpu", "a:cpu-notebook")
    images = bundle_images.as_json(BundledImage(name, name, 1, "lock=1") for name in names)
    manifest = {"images": images, "unpacked_bytes": 10**18}
    expected = pytest.raises(Card, match="isn't enough disk space") if loads else nullcontext()
    with expected:
        load_bundle._load_images(tmp_path, manifest)


def test_a_folder_that_is_no_bundle_is_a_card(tmp_path: Path) -> None:
    with pytest.raises(Card, match="isn't a bundle"):
        load_bundle.load(tmp_path)


@pytest.fixture
def tiny() -> Iterator[BundledImage]:
    """Yield a tiny image, which another clone has built: it has that clone's name only."""
    try:
        client = engine.connect().client
    except (engine.NoEngine, Card) as error:
        pytest.skip(f"no container engine responds here ({error})")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as files:
        files.addfile(tarfile.TarInfo("hello"), io.BytesIO(b""))
    name = f"{TINY}-0123abcd"
    client.api.import_image_from_data(archive.getvalue(), name.split(":")[0], name.split(":")[1])
    yield BundledImage(TINY, name, 1, "")
    for left in (name, TINY, image_status.clone_name(TINY)):
        subprocess.run(["docker", "image", "rm", left], capture_output=True, check=False)


@pytest.mark.engine
def test_an_image_travels_in_parts_and_gets_the_names_of_the_new_clone(
    tiny: BundledImage, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(bundle_folder, "PART_BYTES", 100)
    begun(tmp_path)
    sent = bundle_images.save(tmp_path, [tiny])
    bundle_folder.finish(tmp_path, {})
    assert len(list(tmp_path.glob("images.tar.gz.*"))) > 3 and sent > 1000
    connected = engine.connect()
    connected.client.images.remove(tiny.saved_as)
    images = bundle_images.from_json(json.loads(json.dumps(bundle_images.as_json([tiny]))))
    bundle_images.load(connected, tmp_path, images)
    names = {name for name in bundle_images._names(connected) if name.startswith(TINY)}
    assert names == {TINY, image_status.clone_name(TINY)}


@pytest.mark.engine
def test_an_archive_that_the_engine_refuses_is_a_card(tiny: BundledImage, tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "images.tar.gz.001").write_bytes(b"not an archive" * 100)
    bundle_folder.finish(tmp_path, {})
    with pytest.raises(Card, match="can't load the images"):
        bundle_images.load(engine.connect(), tmp_path, [tiny])


@pytest.mark.engine
@pytest.mark.usefixtures("tiny")
def test_an_image_that_is_gone_is_a_card(tmp_path: Path) -> None:
    gone = BundledImage("llm-labs-gone:cpu", "llm-labs-gone:cpu", 1, "")
    with pytest.raises(Card, match="can't save the images"):
        bundle_images.save(tmp_path, [gone])
