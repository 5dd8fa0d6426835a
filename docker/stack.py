"""Check that the requested torch is installed and works, then record the stack.

python docker/stack.py LABS_HOME STACK TORCH_VERSION LOCK [BASE_IMAGE] writes LABS_HOME/stack.json.
Without BASE_IMAGE, for an environment, it also converts the models, in the process that has
imported torch.
"""

import hashlib
import json
import platform
import sys
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


def main() -> None:
    """Check torch, convert an environment's models, and write stack.json."""
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
        import assets

        assets.convert_all(Path(home, "assets"))
    text = json.dumps(record, indent=2) + "\n"
    Path(home, "stack.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
