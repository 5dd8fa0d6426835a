"""JupyterHub's proxy, which leads to the seats and reports when each was last used."""

import time

from hub import presence

from jupyterhub.proxy import ConfigurableHTTPProxy


class SeatProxy(ConfigurableHTTPProxy):
    """A proxy that a hub has just started, and that gets to know a seat, reports no activity."""

    def __init__(self, *arguments, **keywords):
        """Create a proxy that knows no seat."""
        super().__init__(*arguments, **keywords)
        self.added = {}  # when it got to know each learner's seat, by the wall clock

    async def add_user(self, user, server_name=""):
        """Lead to a learner's seat."""
        await super().add_user(user, server_name)
        self.added[user.name] = time.time()

    async def get_all_routes(self):
        """Return the routes; an activity that is only the beginning of a route is left out."""
        routes = await super().get_all_routes()
        for route in routes.values():
            data = route["data"]
            if presence.is_beginning(data, self.added):
                del data["last_activity"]
        return routes
