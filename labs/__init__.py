"""The labs, one folder each. `python -m labs LLM06` runs one."""

import os
import sys

from labs.cpus import cpu_limit

# OpenMP threads that spin while they wait are slow on a busy machine: with one other process on two
# cores, a 64×64 product took 16 ms, and 0.03 ms with sleeping threads. torch reads this once, when
# it is imported, so it is set here, before any lab.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Without this, a container limited to 2 of 384 CPUs would start 384 threads. Without a limit, torch
# chooses better itself: it counts cores, not hyper-threads.
if (limit := cpu_limit()) is not None:
    os.environ.setdefault("OMP_NUM_THREADS", str(limit))

# The hub's client reads this once, too. Labs stay off the network without --online.
os.environ["HF_HUB_OFFLINE"] = "0" if "--online" in sys.argv else "1"
