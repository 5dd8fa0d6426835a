"""Check that the requested torch is installed and works, then record the stack.

python docker/stack.py LABS_HOME STACK TORCH_VERSION LOCK [BASE_IMAGE] writes LABS_HOME/stack.json,
and without BASE_IMAGE, for an environment, LABS_HOME/files.json: the installed files with their
sizes and hashes, by which the launcher finds damage.
"""

import base64
import csv
import hashlib
import json
import platform
import sys
import sysconfig
from pathlib import Path

import torch


def check(stack: str, version: str, in_image: bool) -> None:
    """Exit with a message unless torch has the requested version and can multiply matrices.

    An image needs the build for its stack. An environment for the CPU may have the CUDA build,
    which works on a CPU too: pip's default index has no other, and PyTorch's may be unreachable.
    """
    build = "cuda" if torch.version.cuda else "rocm" if torch.version.hip else "cpu"
    wrong_build = in_image and build != stack
    if wrong_build or torch.__version__.split("+")[0] != version:
        installed = f"{torch.__version__} for {build}"
        sys.exit(f"stack: torch {version} for {stack} is required, but {installed} is installed")
    ones = torch.ones(64, 64)
    if torch.get_num_threads() < 1 or (ones @ ones).sum() != 64**3:
        sys.exit(f"stack: torch {torch.__version__} can't multiply matrices")


def installed_files(site: Path) -> dict[str, dict]:
    """Return the files of each package below `site`, with the size and SHA-256 that pip recorded.

    Byte-code has no hash there and is left out.
    """
    packages = {}
    for record in sorted(site.glob("*.dist-info/RECORD")):
        files = {}
        for name, digest, size in csv.reader(record.read_text(encoding="utf-8").splitlines()):
            algorithm, _, value = digest.partition("=")
            if algorithm == "sha256" and size:
                files[name] = [int(size), base64.urlsafe_b64decode(f"{value}=").hex()]
        own = hashlib.sha256(record.read_bytes()).hexdigest()
        packages[record.parent.name.removesuffix(".dist-info")] = {"record": own, "files": files}
    return packages


def main() -> None:
    """Check torch and write stack.json."""
    if len(sys.argv) not in (5, 6):
        sys.exit("usage: python docker/stack.py LABS_HOME STACK TORCH_VERSION LOCK [BASE_IMAGE]")
    home, stack, version, lock = sys.argv[1:5]
    base = sys.argv[5] if len(sys.argv) == 6 else None
    check(stack, version, in_image=base is not None)
    record = {
        "stack": stack,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "lock": hashlib.sha256(Path(lock).read_bytes()).hexdigest(),
        "base": base,
    }
    if base is None:
        site = Path(sysconfig.get_path("purelib"))
        files = {"site": str(site), "packages": installed_files(site)}
        Path(home, "files.json").write_text(json.dumps(files), encoding="utf-8")
    text = json.dumps(record, indent=2) + "\n"
    Path(home, "stack.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
