"""The host side: choose a stack, run a lab in a container or an environment, explain failures.

Nothing here imports torch, or anything that needs it.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
