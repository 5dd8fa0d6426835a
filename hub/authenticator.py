"""Log in with a shared password or with the passwords of a course, on top of JupyterHub's own."""

from secrets import compare_digest

from hub.learners import clean_name
from hub.tries import Tries
from launcher.hub_users import ALLOWED, is_allowed

from jupyterhub.auth import Authenticator
from tornado.web import HTTPError
from traitlets import Dict, Unicode

_tries = Tries()


class WorkshopAuthenticator(Authenticator):
    """Check a name and a password, and slow down whoever guesses."""

    teacher_password = Unicode(config=True, help="The password of the admin users.")
    password = Unicode(config=True, help="The password that all learners share.")
    users = Dict(config=True, help="The passwords of a course, by name.")

    def normalize_username(self, username):
        """Return the name in lower case, without spaces around it."""
        return clean_name(username)

    async def authenticate(self, handler, data):  # noqa: ARG002
        """Return the name if the password is right, else None; raise a message for the form."""
        name = clean_name(data["username"])
        if not is_allowed(name):
            raise HTTPError(400, f"A name has {ALLOWED}. Choose another one.")
        if wait := _tries.seconds_to_wait(name):
            raise HTTPError(429, f"Too many wrong passwords for {name}. Wait {wait} seconds.")
        expected = self._password_of(name)
        if expected and compare_digest(data["password"].encode(), expected.encode()):
            _tries.forget(name)
            return {"name": name, "admin": name in self.admin_users}
        _tries.add_wrong(name)
        return None

    def _password_of(self, name):
        if name in self.admin_users:
            return self.teacher_password
        return self.users.get(name, "") if self.users else self.password
