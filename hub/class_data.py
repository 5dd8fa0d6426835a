"""What the page of the class asks the hub and the engine."""

import asyncio
import json
import os

import docker
from hub import class_view, networks, presence, state
from launcher.hub.folder import LABEL

from tornado.httpclient import AsyncHTTPClient, HTTPRequest

workshop = state.load()
engine = docker.from_env()


async def ask_hub(path, method="GET"):
    """Send a request to the hub; return the body of the reply."""
    url = f"{os.environ['JUPYTERHUB_API_URL']}{path}"
    headers = {"Authorization": f"token {os.environ['JUPYTERHUB_API_TOKEN']}"}
    return (await AsyncHTTPClient().fetch(HTTPRequest(url, method, headers))).body


async def users():
    """Return the hub's models of its users."""
    return json.loads(await ask_hub("/users?limit=1000"))


def memory_of_seats():
    """Return the bytes that each seat uses, without the files that the kernel caches."""
    own = networks.seat_network(workshop.ident, "")
    used = {}
    for container in engine.api.containers(filters={"label": f"{LABEL}={workshop.ident}"}):
        name = container["Names"][0].removeprefix("/").removeprefix(own)
        try:
            memory = engine.api.stats(container["Id"], stream=False, one_shot=True)["memory_stats"]
        except docker.errors.APIError:
            continue  # it has just ended
        details = memory.get("stats", {})
        cached = details.get("total_inactive_file", details.get("inactive_file", 0))
        used[name] = max(0, memory.get("usage", 0) - cached)
    return used


async def rows():
    """Return the rows of the table."""
    known = await users()
    presence.record_activities(state.WORKSHOP, known)
    memory = await asyncio.to_thread(memory_of_seats)
    return await asyncio.to_thread(
        class_view.rows, state.WORKSHOP, known, memory, workshop.settings.teacher
    )
