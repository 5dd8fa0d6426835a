"""Start each learner's seat: a hardened container with the learner's folders and own network."""

import asyncio
import os
import socket
from dataclasses import replace

from hub import learners, networks, seats, state
from launcher.hub_folder import LABEL

from dockerspawner import DockerSpawner

workshop = state.load()
HUB_CONTAINER = os.environ.get("HOSTNAME") or socket.gethostname()


class SeatSpawner(DockerSpawner):
    """A DockerSpawner whose container compose.yaml describes."""

    @property
    def learner(self):
        """Return the learner's name."""
        return self.user.name

    async def create_object(self):
        """Create the folders and the network, then the container."""
        learners.make_folders(state.WORKSHOP, self.learner)
        self.network_name = await self._in_thread(networks.create)
        spec = workshop.seat
        if workshop.settings.network:
            spec = replace(spec, dns=())  # the engine's own servers look names up
        labels = {**spec.labels, LABEL: workshop.ident}
        self.extra_create_kwargs = seats.create_arguments(spec, labels)
        self.extra_host_config = seats.host_config(
            spec, learners.binds(workshop.host_folder, self.learner)
        )
        created = await super().create_object()
        if workshop.settings.network:
            await asyncio.to_thread(
                networks.connect_outside, self.client, workshop.ident, created["Id"]
            )
        return created

    def load_state(self, state):
        """Find the network of a seat that ran before this hub did."""
        super().load_state(state)
        self.network_name = networks.seat_network(workshop.ident, self.learner)

    async def clean_up(self):
        """Remove the network of a seat that has ended, also by itself."""
        await self._in_thread(networks.remove)

    def _in_thread(self, function):
        return asyncio.to_thread(function, self.client, workshop.ident, self.learner, HUB_CONTAINER)
