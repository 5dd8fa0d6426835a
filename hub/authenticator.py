"""Log in with a shared password or with the passwords of a course, on top of JupyterHub's own."""

import time
from secrets import compare_digest, token_hex

from hub import presence, state
from hub.client_address import client_address
from hub.learners import clean_name
from hub.tries import TRIES, Tries
from launcher.hub.users import ALLOWED, is_allowed

from jupyterhub.auth import Authenticator
from tornado.web import HTTPError
from traitlets import Dict, Instance, Integer, Unicode, default


class WorkshopAuthenticator(Authenticator):
    """Check a name and a password, and slow down whoever guesses."""

    teacher_password = Unicode(config=True, help="The password of the admin users.")
    password = Unicode(config=True, help="The password that all learners share.")
    users = Dict(config=True, help="The passwords of a course, by name.")
    seats = Integer(1, config=True, help="How many learners can share an address.")
    tries = Instance(Tries)

    @default("tries")
    def _count_from_zero(self):
        return Tries(TRIES * self.seats)

    def normalize_username(self, username):
        """Return the name in lower case, without spaces around it."""
        return clean_name(username)

    async def authenticate(self, handler, data):
        """Return the name if the password is right, else None; raise a message for the form."""
        name = clean_name(data["username"])
        if not is_allowed(name):
            advice = "Ask your teacher for your name." if self.users else "Choose another one."
            raise HTTPError(400, f"A name has {ALLOWED}. {advice}")
        is_teacher = name in self.admin_users
        source = _known_browser(handler, name) or _address(handler)
        if wait := self.tries.seconds_to_wait(source, name, is_teacher):
            raise HTTPError(429, f"Too many wrong passwords. Wait {wait} seconds.")
        expected = self._password_of(name)
        if expected and compare_digest(data["password"].encode(), expected.encode()):
            self.tries.forget(source, name)
            _remember_browser(handler, name)
            presence.record(state.WORKSHOP, name, time.time())
            return {"name": name, "admin": is_teacher}
        self.tries.add_wrong(source, name, is_teacher)
        return None

    async def refresh_user(self, user, handler=None):
        """Remember that a learner is here; JupyterHub calls this for each request to the hub.

        A browser that is logged in asks the hub before it opens a new seat. A seat's own requests
        have a token.
        """
        is_own = handler is not None and handler.current_user is user
        if is_own and handler.get_token() is None:
            presence.record(state.WORKSHOP, user.name, time.time())
        return True

    def _password_of(self, name):
        if name in self.admin_users:
            return self.teacher_password
        return self.users.get(name, "") if self.users else self.password


def _address(handler):
    """Return the client's address; `remote_ip` is what a client writes into X-Real-IP."""
    connection = handler.request.connection
    here = connection.stream.socket
    own = here.getsockname()[0] if here else ""
    forwarded = handler.request.headers.get("X-Forwarded-For", "")
    return client_address(connection.context.address[0], own, forwarded)


def _known_browser(handler, name):
    """Return the id of a browser in which this name has logged in before, or ""."""
    value = handler.get_secure_cookie(_cookie(name))
    return f"browser {value.decode()}" if value else ""


def _remember_browser(handler, name):
    """Give the browser a signed cookie, which no other page or script can read."""
    handler.set_secure_cookie(
        _cookie(name),
        token_hex(8),
        path=handler.hub.base_url,
        httponly=True,
        secure=handler.request.protocol == "https",
        samesite="Lax",
    )


def _cookie(name):
    return f"llm-labs-{name}"
