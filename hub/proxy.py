"""JupyterHub's proxy, which leads to the seats."""

import time

from hub import presence, state

from jupyterhub.proxy import ConfigurableHTTPProxy


class SeatProxy(ConfigurableHTTPProxy):
    """A proxy that remembers when it got to know a seat; it reports that as an activity."""

    async def add_user(self, user, server_name=""):
        """Lead to a learner's seat."""
        await super().add_user(user, server_name)
        presence.record_route(state.WORKSHOP, user.name, time.time())
