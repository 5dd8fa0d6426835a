"""The host side: pick a stack, run a lab in a container or an environment, explain failures.

No module here imports torch, or a package that needs it.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCKER_FOLDER = ROOT / "docker"
