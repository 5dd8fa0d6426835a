"""In a container: a sheet that attacks, and an image whose model was damaged."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.cli.test_hostile_sheet import ATTACK, REFUSED
from tests.conftest import Clone
from tests.small_lab import CHECKS, LAB, SHEET, write_next

import pytest

pytestmark = pytest.mark.engine
IMAGE = "llm-labs-damaged:test"
# Other numbers in the middle of the smaller model.
DAMAGED = """FROM llm-labs:cpu
USER 0
RUN dd if=/dev/zero of=/opt/labs/assets/glass/model.safetensors bs=1M seek=1 count=1 conv=notrunc
USER 1000
"""
OPENS = '''
@lab.experiment
def opens(run: Run):
    """A model is opened."""
    assets.glass()
'''


def test_a_sheet_that_attacks_in_a_container_changes_outputs_and_nothing_else(clone: Clone) -> None:
    clone.kit_lab(LAB, checks=CHECKS)
    learned = clone.invoke("learn", "LLM90")
    assert learned.code == 0, learned
    write_next(clone, ATTACK.format(home="/home"))
    text = (clone.path / SHEET).read_text()
    ended = clone.invoke("check", "LLM90", "--runtime", "docker")
    for name in REFUSED:
        assert f"{name} refused\n" in ended.out, ended
    assert "outputs worked\n" in ended.out, ended
    assert "\x1b" not in ended.out, ended
    assert "They come to 6." in ended.out, ended
    assert (clone.path / SHEET).read_text() == text
    assert (clone.path / "work" / "progress" / "LLM90.json").read_text() != "{}"


@pytest.fixture
def damaged_image(engine: object) -> Iterator[str]:
    del engine
    build = ["docker", "build", "--tag", IMAGE, "-"]
    subprocess.run(build, input=DAMAGED, text=True, check=True, capture_output=True)
    yield IMAGE
    subprocess.run(["docker", "image", "rm", IMAGE], check=True, capture_output=True)


def test_a_lab_in_a_damaged_image_is_a_card(clone: Clone, damaged_image: str) -> None:
    clone.make_folders()
    clone.kit_lab(OPENS)
    ended = clone.run(
        *("docker", "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--user=0:0"),
        *(f"--volume={clone.path / name}:/lab/{name}" for name in ("common", "labs", "outputs")),
        *(damaged_image, "LLM90"),
    )
    assert ended.code == 3, ended
    assert "what: The embedded model glass is damaged." in ended.err
    assert "/opt/labs/assets/glass/model.safetensors isn't the file that was converted" in ended.err
    assert "fix: invoke build; if that changes nothing" in ended.err
    assert not list(Path(clone.outputs).glob("*/*/results.json"))
