"""Let Tornado count seconds by the monotonic clock.

Tornado uses the wall clock. If that jumps back by two hours, Tornado repeats nothing for two hours:
no copy of the learners' work, no look at the proxy, no end of unused seats.
"""

import time

from tornado.ioloop import IOLoop


def use_steady_clock():
    """Replace the clock of all loops in this process, before it starts one."""
    IOLoop.time = lambda _: time.monotonic()
