"""docker/check_torch.py: wheels whose hash is known, unknown, or another."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DOCKER = Path(__file__).parents[2] / "docker"
WHEEL = "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl"


def check(
    folder: Path, known: dict[str, str], **archive: object
) -> subprocess.CompletedProcess[str]:
    """Run the script on a report of pip that names WHEEL."""
    source = {"url": f"file:///wheels/{WHEEL.replace('+', '%2B')}", "archive_info": archive}
    (folder / "report.json").write_text(json.dumps({"install": [{"download_info": source}]}))
    (folder / "known.json").write_text(json.dumps(known))
    files = [folder / name for name in ("report.json", "known.json", "out.json")]
    command = [sys.executable, str(DOCKER / "check_torch.py"), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("archive", [{"hash": "sha256=a"}, {"hashes": {"sha256": "a"}}])
def test_a_known_wheel_passes_and_is_recorded(tmp_path: Path, archive: dict[str, object]) -> None:
    done = check(tmp_path, {WHEEL: "a"}, **archive)
    assert (done.returncode, done.stdout) == (0, "")
    assert json.loads((tmp_path / "out.json").read_text()) == {WHEEL: "a"}


def test_another_file_under_a_known_name_is_refused(tmp_path: Path) -> None:
    done = check(tmp_path, {WHEEL: "a"}, hash="sha256=b")
    assert done.returncode == 1
    assert f"{WHEEL} has the SHA-256 b," in done.stderr
    assert "torch-hashes.json has a." in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_a_wheel_that_nobody_recorded_is_named_with_its_hash(tmp_path: Path) -> None:
    done = check(tmp_path, {}, hash="sha256=c")
    assert done.returncode == 0
    assert f"{WHEEL} isn't in docker/torch-hashes.json; its SHA-256 is c" in done.stdout


def test_the_recorded_hashes_are_sha256_of_this_torch() -> None:
    known = json.loads((DOCKER / "torch-hashes.json").read_text())
    assert all(len(digest) == 64 and int(digest, 16) for digest in known.values())
    version = "torch-2.13.0+"
    assert all(name.startswith(version) for name in known)
