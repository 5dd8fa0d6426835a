"""The labs: one file, one lesson. `python -m labs LLM06` runs one."""

import os
import sys

# OpenMP threads that spin while they wait cost a busy machine dearly: with one other process on
# two cores a 64×64 product took 16 ms, against 0.03 ms when the threads sleep. torch reads this
# once, when it is imported, so it stands here, in front of every lab.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The hub's client reads this once, too. Labs stay off the network unless they are told otherwise.
os.environ["HF_HUB_OFFLINE"] = "0" if "--online" in sys.argv else "1"
