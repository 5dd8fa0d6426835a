"""List the software in the image: sbom.cdx.json (CycloneDX 1.6) and LICENCES.md.

usage: python docker/sbom.py LABS_HOME

The lists contain the installed Python packages, the packages of the base's distribution, and the
models. They have no time and no random number, so that two builds give the same files.
"""

import json
import platform
import re
import subprocess
import sys
from importlib.metadata import Distribution, PackageMetadata, distributions
from pathlib import Path
from urllib.parse import quote

# What packages call a licence, where it isn't SPDX's name for it.
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}
NOT_IN_METADATA = {"ai21-tokenizer": "Apache-2.0", "tiktoken": "MIT"}  # their files say so
MODEL_LICENCES = {"smollm2": "Apache-2.0", "glass": "MIT"}
DOCUMENTS = Path("/usr/share/doc")
INTRODUCTION = """# Software in this image

The texts of the licences are in `/opt/labs/venv/lib/python*/site-packages/*.dist-info/` and in
`/usr/share/doc/*/copyright`. `sbom.cdx.json` beside this file is the same list in CycloneDX's
format. llm-labs itself is MIT.
"""


def licence(metadata: PackageMetadata) -> str:
    """Return a Python package's licence, as an SPDX expression where it is known."""
    classifiers = metadata.get_all("Classifier") or []
    trove = [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: ")]
    texts = (metadata["License-Expression"], metadata["License"], *trove)
    short = [text.strip() for text in texts if text and "\n" not in text.strip()]
    named = [SPDX.get(text, text) for text in short if len(text) < 120]
    return next((text for text in named if text), NOT_IN_METADATA.get(metadata["Name"], ""))


def python_package(package: Distribution, wheels: dict[str, str]) -> dict:
    """Return the component of an installed Python package."""
    name = re.sub(r"[-_.]+", "-", package.name).lower()
    version = quote(package.version, safe="")
    component = _component("library", name, package.version, f"pkg:pypi/{name}@{version}")
    component["licenses"] = _expression(licence(package.metadata))
    prefix = f"{re.sub(r'[-_.]+', '_', package.name)}-{package.version}-"
    for wheel, digest in wheels.items():
        if wheel.startswith(prefix):
            component["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return component


def distribution_packages() -> list[dict]:
    """Return the components of the packages that dpkg installed."""
    system = platform.freedesktop_os_release()
    command = ["dpkg-query", "--show", "--showformat=${Package}\t${Version}\t${Architecture}\n"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    components = []
    for name, version, architecture in sorted(line.split("\t") for line in lines):
        release = f"{system['ID']}-{system.get('VERSION_ID', '')}"
        purl = f"pkg:deb/{system['ID']}/{quote(name)}@{quote(version, safe='')}"
        purl += f"?arch={architecture}&distro={release}"
        component = _component("library", name, version, purl)
        component["licenses"] = [{"license": {"name": text}} for text in copyright_names(name)]
        components.append(component)
    return components


def copyright_names(package: str) -> list[str]:
    """Return the names of licences in a package's copyright file, as Debian abbreviates them."""
    try:
        text = (DOCUMENTS / package / "copyright").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    names = re.findall(r"^License: *([A-Za-z][\w.+/ -]{0,50}?) *$", text, re.MULTILINE)
    return sorted(set(names))


def models(home: Path) -> list[dict]:
    """Return the components of the converted models."""
    records = json.loads((home / "assets" / "assets.json").read_text(encoding="utf-8"))
    components = []
    for name, record in sorted(records.items()):
        package, version = record["from"].split()
        component = _component("machine-learning-model", name, version, f"model:{name}@{version}")
        component["description"] = f"converted to safetensors from the package {package}"
        component["licenses"] = _expression(MODEL_LICENCES[name])
        digest = record["sha256"]["model.safetensors"]
        component["hashes"] = [{"alg": "SHA-256", "content": digest}]
        components.append(component)
    return components


def _component(kind: str, name: str, version: str, reference: str) -> dict:
    component = {"type": kind, "bom-ref": reference, "name": name, "version": version}
    return {**component, "purl": reference} if reference.startswith("pkg:") else component


def _expression(text: str) -> list[dict]:
    """Return CycloneDX's form of a licence: an SPDX expression, or a name."""
    if re.fullmatch(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*", text):
        return [{"expression": text}]
    return [{"license": {"name": text}}] if text else []


def as_markdown(components: list[dict]) -> str:
    """Return the components as a table."""
    rows = ["| name | version | licence |", "|---|---|---|"]
    for component in components:
        named = [
            entry["expression"] if "expression" in entry else entry["license"]["name"]
            for entry in component["licenses"]
        ]
        licences = ", ".join(named) or "see its files"
        rows.append(f"| {component['name']} | {component['version']} | {licences} |")
    return f"{INTRODUCTION}\n" + "\n".join(rows) + "\n"


def main() -> None:
    """Write both lists."""
    if len(sys.argv) != 2:
        sys.exit("usage: python docker/sbom.py LABS_HOME")
    home = Path(sys.argv[1])
    hashes = home / "torch-hashes.json"
    wheels = json.loads(hashes.read_text(encoding="utf-8")) if hashes.exists() else {}
    packages = [python_package(package, wheels) for package in distributions()]
    packages.sort(key=lambda component: component["name"])
    components = [*models(home), *packages, *distribution_packages()]
    bom = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}
    image = {"type": "container", "bom-ref": "llm-labs", "name": "llm-labs"}
    bom["metadata"] = {"component": image}
    bom["components"] = components
    (home / "sbom.cdx.json").write_text(json.dumps(bom, indent=1) + "\n", encoding="utf-8")
    (home / "LICENCES.md").write_text(as_markdown(components), encoding="utf-8")


if __name__ == "__main__":
    main()
