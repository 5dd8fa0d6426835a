"""Start each learner's seat: a hardened container with own folders, network and GPUs."""

import asyncio
import os
import socket
import time
from dataclasses import replace

from hub import learners, networks, presence, seat_ends, seats, state
from hub.seat_leases import SeatLeases
from hub.waiting_line import WaitingLine
from launcher.gpu.select import attach
from launcher.hub.folder import LABEL

from docker.errors import APIError, NotFound
from dockerspawner import DockerSpawner

BEING_REMOVED = 409  # the engine's reply; the container has ended by then
SECONDS_TO_START = 300  # 30 seats that start at once on two cores took up to 180
workshop = state.load()
leases = SeatLeases(workshop.gpus) if workshop.gpus else None
line = WaitingLine(leases) if leases else None
HUB_CONTAINER = os.environ.get("HOSTNAME") or socket.gethostname()


class SeatSpawner(DockerSpawner):
    """A DockerSpawner whose container compose.yaml describes."""

    gpus = ()  # of this seat
    seen_running = False  # by this hub, which hasn't stopped it since

    @property
    def learner(self):
        """Return the learner's name."""
        return self.user.name

    async def start(self):
        """Wait for GPUs if the seat needs some, then start it."""
        seat_ends.forget(state.WORKSHOP, self.learner)
        if self.handler and self.handler.current_user is self.user:  # not the teacher, or --seats
            presence.record(state.WORKSHOP, self.learner, time.time())
        if line is None:
            return await super().start()
        # A hub that was killed in this method leaves a container, which holds GPUs.
        await self._remove_container()
        self.gpus = await line.wait(self.learner)
        try:
            return await asyncio.wait_for(super().start(), SECONDS_TO_START)
        except BaseException:
            await asyncio.shield(self._give_back())
            raise

    async def poll(self):
        """Return None if the seat runs, and otherwise how it ended."""
        status = await super().poll()
        if status is None:
            self.seen_running = True
        return status

    async def stop(self, now=False):
        """Stop the seat; its end is no surprise."""
        self.seen_running = False
        await super().stop(now)

    async def progress(self):
        """Yield what the page of a seat that starts shows."""
        if line is not None:
            async for message in line.messages(self.learner):
                yield {"progress": 0, "message": message}
        yield {"progress": 50, "message": "Starting your seat."}

    async def _give_back(self):
        """Release GPUs, once no container has them."""
        await self._remove_container()
        await asyncio.to_thread(leases.release, self.learner)

    async def _remove_container(self):
        """Remove the container, if there is one.

        Raises:
            APIError: If the engine can't. Then the container may run, and its GPUs aren't free.
        """
        try:
            await self.docker("remove_container", self.container_name, force=True)
        except NotFound:
            pass
        except APIError as error:
            if error.status_code != BEING_REMOVED:
                raise

    async def create_object(self):
        """Create the folders and the network, then the container."""
        learners.make_folders(state.WORKSHOP, self.learner)
        self.network_name = networks.seat_network(workshop.ident, self.learner)
        hub_address = await self._in_thread(networks.create)
        spec = workshop.seat
        if workshop.settings.network:
            spec = replace(spec, dns=())  # the engine's own servers look names up
        if workshop.gpus:
            spec = attach(spec, workshop.gpus.stack, self.gpus, workshop.gpus.access)
            self.environment = {**self.environment, **spec.environment}
        labels = {**spec.labels, LABEL: workshop.ident}
        self.extra_create_kwargs = seats.create_arguments(spec, labels)
        self.extra_host_config = {
            **seats.host_config(spec, learners.binds(workshop.host_folder, self.learner)),
            "extra_hosts": {networks.HUB: hub_address},
        }
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
        """Release the GPUs and remove the network of a seat that has ended, also by itself."""
        if self.seen_running and seat_ends.read(state.WORKSHOP, self.learner) is None:
            seat_ends.record(state.WORKSHOP, self.learner, seat_ends.UNEXPECTED, time.time())
        self.seen_running = False
        if leases is not None:
            leases.release(self.learner)
        await self._in_thread(networks.remove)

    def _in_thread(self, function):
        return asyncio.to_thread(function, self.client, workshop.ident, self.learner, HUB_CONTAINER)
