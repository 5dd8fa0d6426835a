"""Assert that the torch which was meant is here and computes, then write down what stands here.

python docker/stack.py LABS_HOME STACK TORCH_VERSION LOCK [BASE_IMAGE] writes LABS_HOME/stack.json.
"""

import hashlib
import json
import platform
import sys
from pathlib import Path

import torch


def check(stack: str, version: str, image: bool) -> None:
    """The right release, built for the right accelerator, able to multiply two matrices.

    An environment may hold another build, which computes on a CPU all the same: where PyTorch's
    index can't be reached, the default one has only CUDA's.
    """
    found = "cuda" if torch.version.cuda else "rocm" if torch.version.hip else "cpu"
    right = found == stack or not image
    if not right or torch.__version__.split("+")[0] != version:
        here = f"{torch.__version__} for {found}"
        sys.exit(f"stack: torch {version} for {stack} was meant, and {here} is installed")
    ones = torch.ones(64, 64)
    if torch.get_num_threads() < 1 or (ones @ ones).sum() != 64**3:
        sys.exit(f"stack: torch {torch.__version__} is here, but can't multiply matrices")


def main() -> None:
    if len(sys.argv) not in (5, 6):
        sys.exit("usage: python docker/stack.py LABS_HOME STACK TORCH_VERSION LOCK [BASE_IMAGE]")
    home, stack, version, lock = sys.argv[1:5]
    base = sys.argv[5] if len(sys.argv) == 6 else None
    check(stack, version, image=base is not None)
    made_of = {
        "stack": stack,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "lock": hashlib.sha256(Path(lock).read_bytes()).hexdigest(),
        "base": base,
    }
    text = json.dumps(made_of, indent=2) + "\n"
    Path(home, "stack.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
