"""Stop seats that have reached a time limit: jupyterhub-idle-culler, a service of the hub."""

import time

from hub import seat_ends, state
from hub.seat_times import SeatTimes
from hub.steady_clock import use_steady_clock
from hub.time_limits import seconds_between_reports

from jupyterhub_idle_culler import IdleCuller
from traitlets.config import Config


def main():
    """Look for such seats until the hub ends this process."""
    settings = state.load().settings
    times = SeatTimes(settings.idle, settings.longest)

    def is_over(*, inactive, server, **_):
        reason = times.reason_to_stop(inactive=inactive, server=server)
        if reason:
            name = server["url"].rstrip("/").rpartition("/")[2]
            seat_ends.record(state.WORKSHOP, name, reason, time.time())
        return reason is not None

    use_steady_clock()
    options = {
        "cull_arbiter_hook": is_over,
        "cull_every": seconds_between_reports(settings.idle),
    }
    IdleCuller.launch_instance(argv=[], config=Config({"IdleCuller": options}))


if __name__ == "__main__":
    main()
