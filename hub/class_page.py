"""The page of the class, a service of the hub for the teacher."""

import asyncio
import csv
import io
import os
import shutil
import time
from pathlib import Path

from common import classroom
from common.cards import Card
from hub import archive, class_folder, class_view, handout, learners, presence, seat_ends, state
from hub.class_data import ask_hub, rows, users, workshop
from hub.quota import Growth
from hub.steady_clock import use_steady_clock
from launcher.hub.folder import ARCHIVES, CLASS

from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated
from jupyterhub.utils import url_path_join
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.log import app_log
from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler, authenticated

PREFIX = os.environ["JUPYTERHUB_SERVICE_PREFIX"]
PORT = 8002
MILLISECONDS_BETWEEN = 15_000  # of looking for seats that fill the disk
MILLISECONDS_BETWEEN_COPIES = 600_000
notes = {}  # on what was done, by teacher, until the page shows it


async def stop_growing_seats(growth):
    """Stop the seats whose learners fill the disk."""
    known = await users()
    presence.record_activities(state.WORKSHOP, known)
    working = [user["name"] for user in known if user["servers"]]
    for name in await asyncio.to_thread(growth.too_much, state.WORKSHOP, working):
        reason = growth.reason(name)
        app_log.warning("Stopping the seat of %s: %s", name, reason.brief)
        seat_ends.record(state.WORKSHOP, name, reason, time.time())
        await ask_hub(f"/users/{name}/server", "DELETE")


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


class Page(ForTheTeacher):
    """The table."""

    @authenticated
    async def get(self):
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
            note=notes.pop(self.current_user["name"], ""),
            message=classroom.message(state.WORKSHOP / CLASS),
            longest_message=class_folder.LONGEST_MESSAGE,
            open_labs=classroom.open_labs(state.WORKSHOP / CLASS),
            prefix=PREFIX,
            free_gb=shutil.disk_usage(state.WORKSHOP).free / 1e9,
            now=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )


class Action(ForTheTeacher):
    """A button of the page. It leads back to the page, so that a reload repeats nothing."""

    @authenticated
    async def get(self):
        """Lead to the page."""
        self.redirect(PREFIX)

    @authenticated
    async def post(self):
        """Act, and lead to the page, which shows once what was done."""
        try:
            note = await self.act()
        except Card as card:
            note = f"{card} {card.why}"
        except OSError as error:
            note = f"{self.failure}: {error}. Make room on the disk."
        notes[self.current_user["name"]] = note
        self.redirect(PREFIX, status=303)


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


class HandOut(Action):
    """Hand out a lab."""

    failure = "Nothing was handed out"

    async def act(self):
        """Write the sheets; return what happened."""
        known = {user["name"] for user in await users()} | set(workshop.users)
        names = sorted({*known, *learners.names(state.WORKSHOP)} - {workshop.settings.teacher})
        lab = self.get_argument("lab")
        done = await asyncio.to_thread(handout.hand_out, state.WORKSHOP, lab, names)
        return " ".join(handout.describe(lab, result) for lab, result in done.items())


class Message(Action):
    """The message to all learners."""

    failure = "The message wasn't changed"

    async def act(self):
        """Replace the message; without one, remove it."""
        text = self.get_argument("text", None)
        if text == "":  # of spaces only
            return "The message is empty, so nothing was changed."
        class_folder.write_message(state.WORKSHOP, text or "", time.time())
        return "" if text else "The message is removed."


class Solutions(Action):
    """The solutions, which learners see once they are open."""

    failure = "Nothing was changed"

    async def act(self):
        """Open or lock the solutions of labs; return which."""
        opens = self.get_argument("action") == "open"
        names = class_folder.open_solutions(state.WORKSHOP, self.get_argument("lab"), opens)
        return f"{', '.join(names)}: solutions {'open' if opens else 'locked'}."


class Collect(Action):
    """Collect all work."""

    failure = "The archive can't be written"

    async def act(self):
        """Write an archive; return what is in it."""
        path, left_out = await asyncio.to_thread(archive.collect, state.WORKSHOP, time.time())
        rest = archive.describe(left_out)
        size = path.stat().st_size / 1e6
        return f"All work is in workshop/archives/{path.name}, {size:.1f} MB.{rest}"


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
