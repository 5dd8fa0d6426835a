"""The page of the class, a service of the hub for the teacher."""

import asyncio
import csv
import io
import json
import os
import shutil
import time
from pathlib import Path

import docker
from hub import (
    archive,
    class_folder,
    class_view,
    handout,
    learners,
    networks,
    presence,
    seat_ends,
    state,
)
from hub.quota import Growth
from hub.steady_clock import use_steady_clock
from labs.course import classroom
from labs.course.cards import Card
from launcher.hub_folder import ARCHIVES, CLASS, LABEL

from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated
from jupyterhub.utils import url_path_join
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.log import app_log
from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler, authenticated

PREFIX = os.environ["JUPYTERHUB_SERVICE_PREFIX"]
PORT = 8002
MILLISECONDS_BETWEEN = 15_000  # of looking for seats that fill the disk
MILLISECONDS_BETWEEN_COPIES = 600_000
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


async def stop_growing_seats(growth):
    """Stop the seats whose learners fill the disk."""
    known = await users()
    presence.record_activities(state.WORKSHOP, known)
    working = [user["name"] for user in known if user["servers"]]
    for name in await asyncio.to_thread(growth.too_much, state.WORKSHOP, working):
        reason = growth.reason(name)
        app_log.warning("Stopping the seat of %s: %s", name, reason)
        seat_ends.record(state.WORKSHOP, name, reason, time.time())
        await ask_hub(f"/users/{name}/server", "DELETE")


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


async def copy_work():
    """Keep a copy of all work while somebody works."""
    if not any(user["servers"] for user in await users()):
        return
    try:
        await asyncio.to_thread(archive.copy, state.WORKSHOP, time.time())
    except OSError as error:
        app_log.error("No copy of the learners' work: %s", error)


class ForTheTeacher(HubOAuthenticated, RequestHandler):
    """A handler that only admin users may use: the hub gives only them access to this service."""

    async def show(self, note=""):
        """Show the page, with a note on what has just been done."""
        archives = sorted(path.name for path in (state.WORKSHOP / ARCHIVES).glob("*.tar.gz"))
        table = await rows()
        await self.render(
            "class_page.html",
            title=workshop.settings.title,
            seats=workshop.settings.seats,
            rows=table,
            running=sum(row.seat in ("works", class_view.READY) for row in table),
            archives=archives[::-1],
            note=note,
            message=classroom.message(state.WORKSHOP / CLASS),
            longest_message=class_folder.LONGEST_MESSAGE,
            open_labs=classroom.open_labs(state.WORKSHOP / CLASS),
            prefix=PREFIX,
            free_gb=shutil.disk_usage(state.WORKSHOP).free / 1e9,
            now=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )


class Page(ForTheTeacher):
    """The table."""

    @authenticated
    async def get(self):
        """Show the page."""
        await self.show()


class Csv(ForTheTeacher):
    """The table as CSV."""

    @authenticated
    async def get(self):
        """Send the file."""
        lines = io.StringIO()
        csv.writer(lines).writerows(class_view.csv_rows(await rows()))
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Content-Disposition", 'attachment; filename="class.csv"')
        self.finish(lines.getvalue())


class HandOut(ForTheTeacher):
    """Hand out a lab."""

    @authenticated
    async def post(self):
        """Write the sheets, and show what happened."""
        known = {user["name"] for user in await users()} | set(workshop.users)
        names = sorted({*known, *learners.names(state.WORKSHOP)} - {workshop.settings.teacher})
        try:
            done = await asyncio.to_thread(
                handout.hand_out, state.WORKSHOP, self.get_argument("lab"), names
            )
        except Card as card:
            await self.show(f"{card} {card.why}")
            return
        await self.show(" ".join(handout.describe(lab, result) for lab, result in done.items()))


class Message(ForTheTeacher):
    """The message to all learners."""

    @authenticated
    async def post(self):
        """Replace the message, or remove it."""
        try:
            class_folder.write_message(state.WORKSHOP, self.get_argument("text", ""), time.time())
        except OSError as error:
            await self.show(f"The message can't be written: {error}. Make room on the disk.")
            return
        self.redirect(PREFIX)


class Solutions(ForTheTeacher):
    """The solutions, which learners see once they are open."""

    @authenticated
    async def post(self):
        """Open or lock the solutions of labs."""
        lab, opens = self.get_argument("lab"), self.get_argument("action") == "open"
        try:
            names = class_folder.open_solutions(state.WORKSHOP, lab, opens)
        except Card as card:
            await self.show(f"{card} {card.why}")
            return
        except OSError as error:
            await self.show(f"Nothing was changed: {error}. Make room on the disk.")
            return
        await self.show(f"{', '.join(names)}: solutions {'open' if opens else 'locked'}.")


class Collect(ForTheTeacher):
    """Collect all work."""

    @authenticated
    async def post(self):
        """Write an archive, and show what is in it."""
        try:
            path, left_out = await asyncio.to_thread(archive.collect, state.WORKSHOP, time.time())
        except OSError as error:
            await self.show(f"The archive can't be written: {error}. Make room on the disk.")
            return
        rest = archive.describe(left_out)
        size = path.stat().st_size / 1e6
        await self.show(f"All work is in workshop/archives/{path.name}, {size:.1f} MB.{rest}")


class Archive(HubOAuthenticated, StaticFileHandler):
    """An archive, to download."""

    @authenticated
    async def get(self, path, include_body=True):
        """Send the file."""
        await super().get(path, include_body)

    def validate_absolute_path(self, root, absolute_path):
        """Refuse everything but archives."""
        if not absolute_path.endswith(".tar.gz"):
            raise HTTPError(404)
        return super().validate_absolute_path(root, absolute_path)


def main():
    """Serve the page until the hub ends it."""
    routes = [
        (PREFIX, Page),
        (url_path_join(PREFIX, "class.csv"), Csv),
        (url_path_join(PREFIX, "handout"), HandOut),
        (url_path_join(PREFIX, "collect"), Collect),
        (url_path_join(PREFIX, "message"), Message),
        (url_path_join(PREFIX, "solutions"), Solutions),
        (
            url_path_join(PREFIX, "archives/(.*)"),
            Archive,
            {"path": state.WORKSHOP / ARCHIVES},
        ),
        (url_path_join(PREFIX, "oauth_callback"), HubOAuthCallbackHandler),
    ]
    use_steady_clock()
    settings = {"cookie_secret": os.urandom(32), "template_path": str(Path(__file__).parent)}
    Application(routes, **settings).listen(PORT, "127.0.0.1")
    growth = Growth(workshop.settings.quota)
    PeriodicCallback(lambda: stop_growing_seats(growth), MILLISECONDS_BETWEEN).start()
    PeriodicCallback(copy_work, MILLISECONDS_BETWEEN_COPIES).start()
    IOLoop.current().start()


if __name__ == "__main__":
    main()
